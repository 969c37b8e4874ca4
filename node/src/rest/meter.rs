//! What REST counts of itself: requests by kind and by what became of them, how long they took, what is open.

use std::sync::Arc;
use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use warp::http::Method;
use warp::reply::Response;

/// Upper ends of the classes of durations, in seconds. An answer has 30.
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0];

/// Second segments of paths under `/v1` that are kinds of their own. A path that somebody makes up is none.
const OWN: [(&str, &str); 16] = [
    ("batches", "v1/batches"),
    ("chain", "v1/chain"),
    ("events", "v1/events"),
    ("evidence", "v1/evidence"),
    ("federation", "v1/federation"),
    ("fees", "v1/fees"),
    ("finality", "v1/finality"),
    ("mempool", "v1/mempool"),
    ("openapi.json", "v1/openapi.json"),
    ("peers", "v1/peers"),
    ("peg-in", "v1/peg-in"),
    ("peg-ins", "v1/peg-ins"),
    ("peg-out", "v1/peg-out"),
    ("reserves", "v1/reserves"),
    ("status", "v1/status"),
    ("validators", "v1/validators"),
];

/// First segments of the other paths.
const ESPLORA: [&str; 8] =
    ["address-prefix", "block", "block-height", "blocks", "broadcast", "fee-estimates", "health", "mempool"];

/// What REST counts of itself. Cheap to clone: all clones count together.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<Families>);

#[derive(Debug)]
struct Families {
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabels, Histogram, fn() -> Histogram>,
    under_way: Gauge,
    connections: Gauge,
    streams: Gauge,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    route: &'static str,
    status: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RouteLabels {
    route: &'static str,
}

impl Default for Families {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            under_way: Gauge::default(),
            connections: Gauge::default(),
            streams: Gauge::default(),
        }
    }
}

impl Meter {
    /// Names what is counted, in a registry with a prefix for REST.
    pub fn register(&self, registry: &mut Registry) {
        let Families { requests, durations, under_way, connections, streams } = &*self.0;
        registry.register(
            "requests",
            "Requests that were answered, or given up by the client (none)",
            requests.clone(),
        );
        let help = "Time from the head of a request to the head of its answer";
        registry.register_with_unit("request_duration", help, Unit::Seconds, durations.clone());
        registry.register("requests_under_way", "Requests without an answer yet", under_way.clone());
        registry.register("connections", "Open connections", connections.clone());
        registry.register("streams", "Answers that go on until the client leaves: events", streams.clone());
    }

    /// A request has come.
    pub fn request(&self, method: &Method, path: &str) -> Asked {
        self.0.under_way.inc();
        Asked { meter: self.clone(), route: kind_of(method, path), since: Instant::now(), status: "none" }
    }

    /// A connection, open until what is returned is dropped.
    pub fn connection(&self) -> Open {
        Open::new(&self.0.connections)
    }

    /// An answer without an end, until what is returned is dropped.
    pub fn stream(&self) -> Open {
        Open::new(&self.0.streams)
    }
}

/// A request without an answer. Dropped, it counts as given up.
#[derive(Debug)]
pub struct Asked {
    meter: Meter,
    route: &'static str,
    since: Instant,
    status: &'static str,
}

impl Asked {
    /// Counts the answer, and returns it.
    pub fn answered(mut self, response: Response) -> Response {
        self.status = match response.status().as_u16() {
            ..=199 => "1xx",
            200..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            500.. => "5xx",
        };
        response
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let Families { requests, durations, under_way, .. } = &*self.meter.0;
        let Self { route, status, .. } = *self;
        under_way.dec();
        requests.get_or_create(&RequestLabels { route, status }).inc();
        durations.get_or_create(&RouteLabels { route }).observe(self.since.elapsed().as_secs_f64());
    }
}

/// Something that is open, and counted until it is dropped.
#[derive(Debug)]
pub struct Open(Gauge);

impl Open {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The kind of a request: one of a fixed list, whatever clients make up.
fn kind_of(method: &Method, path: &str) -> &'static str {
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/');
    let first = match segments.next() {
        Some("api") => segments.next(),
        first => first,
    };
    let second = segments.next().unwrap_or_default();
    match first.unwrap_or_default() {
        "tx" if method == Method::POST => "broadcast",
        "tx" => "tx",
        "txs" if second == "package" => "package",
        "address" | "scripthash" => match segments.next() {
            None | Some("") => "script",
            Some("txs") => "script/txs",
            Some("utxo") => "script/utxo",
            Some(_) => "other",
        },
        "v1" => OWN.iter().find(|(segment, _)| *segment == second).map_or("other", |(_, kind)| kind),
        first => ESPLORA.iter().find(|segment| **segment == first).copied().unwrap_or("other"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_paths_are_of_one_kind() {
        for (path, kind) in [
            ("/tx/00", "tx"),
            ("/api/tx/00/raw", "tx"),
            ("/blocks/", "blocks"),
            ("/blocks/tip/height", "blocks"),
            ("/scripthash/00/txs/chain/11", "script/txs"),
            ("/address/bc1/", "script"),
            ("/address/bc1/coins", "other"),
            ("/v1/status", "v1/status"),
            ("/api/v1/peg-in/address", "v1/peg-in"),
            ("/v1/nothing", "other"),
            ("/v1", "other"),
            ("/txs/bundle", "other"),
            ("", "other"),
            ("//tx", "other"),
            ("/%00", "other"),
        ] {
            assert_eq!(kind_of(&Method::GET, path), kind, "{path}");
        }
        assert_eq!(kind_of(&Method::POST, "/tx"), "broadcast");
    }

    #[test]
    fn a_request_that_is_given_up_is_counted() {
        let meter = Meter::default();
        let asked = meter.request(&Method::GET, "/tx/00");
        assert_eq!(meter.0.under_way.get(), 1);
        drop(asked);
        meter.request(&Method::GET, "/tx/00").answered(Response::default());
        assert_eq!(meter.0.under_way.get(), 0);
        for status in ["none", "2xx"] {
            let labels = RequestLabels { route: "tx", status };
            assert_eq!(meter.0.requests.get_or_create(&labels).get(), 1, "{status}");
        }
        let open = meter.connection();
        assert_eq!(meter.0.connections.get(), 1);
        drop(open);
        assert_eq!(meter.0.connections.get(), 0);
    }
}
