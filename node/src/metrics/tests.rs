use std::io::{Read, Write};
use std::net::TcpStream;
use std::num::NonZeroUsize;
use std::time::Instant;

use causeway_chainspec::{BitcoinHeight, ChainSpec, Height};
use causeway_consensus::state::{Store, StoreOptions};
use causeway_consensus::{ChainView, Workers};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::health::BEHIND_MAX;
use super::*;
use crate::machine::{Node, Offence, Report};
use crate::rest::peg::SourceStanding;
use crate::shell::Handle;
use crate::shell::handle::Call;
use crate::testing::setup;

/// How long a test waits for what should happen at once.
const DEADLINE: Duration = Duration::from_secs(60);

/// How long the node and its disk have in tests.
const WITHIN: Duration = Duration::from_millis(300);

const INTERVAL: Duration = Duration::from_secs(1);

fn spec() -> ChainSpec {
    ChainSpec::built_in("devnet").unwrap()
}

/// A server, and a node that answers only when it is told to.
struct Site {
    runtime: Runtime,
    server: Option<Server>,
    address: SocketAddr,
    store: Arc<Store>,
    node: Node,
    calls: mpsc::Receiver<Call>,
    handle: Handle,
    _home: TempDir,
}

impl Site {
    fn new(within: Duration) -> Self {
        let (home, spec) = (TempDir::new().unwrap(), spec());
        let options =
            StoreOptions { coin_cache_bytes: 1 << 20, write_buffer_bytes: 1 << 20, ..StoreOptions::default() };
        let store = Arc::new(Store::open(home.path(), &spec, options, &Workers::new(NonZeroUsize::MIN)).unwrap());
        let node = Node::new(setup(&spec, &store.tip()));
        let (sender, calls) = mpsc::channel(1_024);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let bind = SocketAddr::from(([127, 0, 0, 1], 0));
        let metrics = Metrics::new(&spec);
        let server = runtime.block_on(Server::start_within(within, bind, metrics, INTERVAL)).unwrap();
        let address = server.address();
        Self { runtime, server: Some(server), address, store, node, calls, handle: Handle::new(sender), _home: home }
    }

    /// The node runs from here on.
    fn running(within: Duration) -> Self {
        let site = Self::new(within);
        site.server().running(Sources {
            node: site.handle.clone(),
            store: Arc::clone(&site.store),
            bitcoin: None,
            network: Arc::new(|| NetworkSeen { inbound: 3, outbound: 5, lost_commands: 0, lost_gossip: 7 }),
        });
        site
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    fn get(&self, path: &str) -> (i32, String) {
        get(self.address, path)
    }

    /// The answer while the node answers as well.
    fn get_answered(&mut self, path: &str) -> (i32, String) {
        let (address, path) = (self.address, path.to_owned());
        let asking = std::thread::spawn(move || get(address, &path));
        while !asking.is_finished() {
            match self.calls.try_recv() {
                Ok(Call::Look(look)) => look(&self.node),
                Ok(_) => panic!("only looks"),
                Err(_) => std::thread::yield_now(),
            }
        }
        asking.join().unwrap()
    }

    /// What the running node looks like.
    fn seen(&mut self) -> NodeSeen {
        let handle = self.handle.clone();
        let watcher = Watcher::new(Sources {
            node: handle,
            store: Arc::clone(&self.store),
            bitcoin: None,
            network: Arc::new(NetworkSeen::default),
        });
        let asking = self.runtime.spawn(async move { watcher.node(DEADLINE).await.unwrap() });
        let Some(Call::Look(look)) = self.calls.blocking_recv() else { panic!("a look") };
        look(&self.node);
        self.runtime.block_on(asking).unwrap()
    }
}

fn get(address: SocketAddr, path: &str) -> (i32, String) {
    let response = minreq::get(format!("http://{address}{path}")).with_timeout(60).send().unwrap();
    (response.status_code, response.as_str().unwrap().to_owned())
}

fn json(answer: &(i32, String), status: i32) -> serde_json::Value {
    assert_eq!(answer.0, status, "{}", answer.1);
    serde_json::from_str(&answer.1).unwrap()
}

/// The value of a sample, by its name with labels.
fn sample(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// Checks that a text is what a reader of OpenMetrics takes, by our names, and returns how many families it has.
fn check(text: &str) -> usize {
    let areas = ["node", "consensus", "mempool", "peg", "rest", "store", "p2p"];
    let mut families: Vec<(String, String)> = Vec::new();
    let mut series = std::collections::BTreeSet::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "# EOF" {
            assert_eq!(lines.next(), None, "nothing follows the end");
            return families.len();
        }
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match *words.as_slice() {
            ["#", "HELP", name, help] => {
                let rest = name.strip_prefix("causeway_").unwrap_or_else(|| panic!("{line}"));
                let (area, noun) = rest.split_once('_').unwrap_or_else(|| panic!("{line}"));
                assert!(areas.contains(&area), "{line}");
                assert!(noun.chars().all(|letter| matches!(letter, 'a'..='z' | '0'..='9' | '_')), "{line}");
                assert!(!noun.ends_with('_') && !noun.contains("__") && !noun.ends_with("_total"), "{line}");
                for unit in ["ms", "us", "ns", "kb", "mb", "mib", "minutes", "hours", "btc", "percent"] {
                    assert!(!noun.split('_').any(|word| word == unit), "{line}: base units only");
                }
                assert!(help.ends_with('.') && help.len() > 10, "{line}");
                assert!(families.iter().all(|(known, _)| known != name), "{name} comes twice");
                let kind = lines.next().unwrap();
                let kind = kind.strip_prefix(&format!("# TYPE {name} ")).unwrap_or_else(|| panic!("{kind}"));
                families.push((name.to_owned(), kind.to_owned()));
            }
            ["#", "UNIT", name, unit] => {
                assert_eq!(families.last().unwrap().0, name);
                assert!(name.ends_with(&format!("_{unit}")), "{line}");
                assert!(["seconds", "bytes", "sats", "vbytes"].contains(&unit), "{line}");
            }
            _ => {
                let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
                assert!(value.parse::<f64>().is_ok(), "{line}");
                assert!(series.insert(name.to_owned()), "{name} comes twice");
                let bare = name.split('{').next().unwrap();
                let (family, kind) = families.last().unwrap();
                let ends: &[&str] = match kind.as_str() {
                    "counter" => &["_total"],
                    "gauge" => &[""],
                    "info" => &["_info"],
                    "histogram" => &["_bucket", "_sum", "_count"],
                    kind => panic!("{kind}"),
                };
                assert!(ends.iter().any(|end| bare == format!("{family}{end}")), "{line} in {family}");
            }
        }
    }
    panic!("no end: {text}");
}

#[test]
fn every_name_keeps_the_pattern_and_comes_once() {
    let mut site = Site::running(DEADLINE);
    let metrics = site.server().metrics.clone();
    metrics.report(&Report::Misbehaved { peer: libp2p::PeerId::random(), offence: Offence::Stalled, score: 75 });
    metrics.report(&Report::Banned { peer: libp2p::PeerId::random(), duration: DEADLINE });
    metrics.rest().request(&Method::GET, "/tx/00").answered(Response::default());
    let (status, text) = site.get_answered("/metrics");
    assert_eq!(status, 200);
    assert!(check(&text) > 60, "{text}");
    for (name, value) in [
        ("causeway_node_up", 1.0),
        ("causeway_node_ready", 0.0),
        ("causeway_consensus_height", 100.0),
        ("causeway_consensus_validators", 4.0),
        ("causeway_consensus_validator_voting", 0.0),
        ("causeway_consensus_timeouts_total{step=\"propose\"}", 0.0),
        ("causeway_mempool_transactions", 0.0),
        ("causeway_mempool_min_feerate_sats_per_kvb", 100.0),
        ("causeway_mempool_rejected_transactions_total{why=\"policy\"}", 0.0),
        ("causeway_peg_reserve_sats", 21e14),
        ("causeway_peg_locked_sats", 0.0),
        ("causeway_peg_frozen", 0.0),
        ("causeway_peg_bitcoin_node_configured", 0.0),
        ("causeway_store_tip_height", 100.0),
        ("causeway_store_flushed_height", 100.0),
        ("causeway_store_keys{family=\"headers\"}", 101.0),
        ("causeway_p2p_peers{direction=\"inbound\"}", 3.0),
        ("causeway_p2p_peers{direction=\"outbound\"}", 5.0),
        ("causeway_p2p_bans_total", 1.0),
        ("causeway_p2p_offences_total{offence=\"stalled\"}", 1.0),
        ("causeway_p2p_lost_messages_total{what=\"gossip\"}", 7.0),
        ("causeway_rest_requests_total{route=\"tx\",status=\"2xx\"}", 1.0),
        ("causeway_rest_request_duration_seconds_count{route=\"tx\"}", 1.0),
        ("causeway_rest_requests_under_way", 0.0),
    ] {
        assert_eq!(sample(&text, name), Some(value), "{name}\n{text}");
    }
    assert!(sample(&text, "causeway_store_memtable_bytes{family=\"coins\"}").unwrap() > 0.0);
    assert!(text.contains(&format!("chain_id=\"{}\"", spec().chain_id())), "{text}");
    let head = minreq::head(format!("http://{}/metrics", site.address));
    let asking = std::thread::spawn(move || head.with_timeout(60).send().unwrap());
    while !asking.is_finished() {
        if let Ok(Call::Look(look)) = site.calls.try_recv() {
            look(&site.node);
        }
    }
    assert_eq!(asking.join().unwrap().headers["content-type"], OPENMETRICS);
}

#[test]
fn a_node_that_hangs_holds_nobody_up_and_is_looked_at_once() {
    let mut site = Site::running(WITHIN);
    let started = Instant::now();
    for _ in 0..5 {
        let (status, text) = site.get("/metrics");
        assert_eq!((status, sample(&text, "causeway_node_up")), (200, Some(0.0)));
        assert_eq!(sample(&text, "causeway_node_ready"), Some(0.0));
        // The disk answers all the same.
        assert_eq!(sample(&text, "causeway_store_tip_height"), Some(100.0));
        let live = json(&site.get("/health/live"), 503);
        assert_eq!((&live["live"], &live["reason"]), (&false.into(), &"node_not_answering".into()));
        let ready = json(&site.get("/health/ready"), 503);
        assert_eq!((&ready["ready"], &ready["reason"]), (&false.into(), &"node_not_answering".into()));
        assert!(!ready["hint"].as_str().unwrap().is_empty() && !ready["message"].as_str().unwrap().is_empty());
    }
    assert!(started.elapsed() < DEADLINE / 2, "fifteen answers took {:?}", started.elapsed());
    assert_eq!(site.calls.len(), 1, "one look is open, whoever waits for it");

    // It comes back: the open look is answered, and the next answers are new.
    let live = site.get_answered("/health/live");
    assert_eq!(json(&live, 200), serde_json::json!({ "live": true }));
    let (_, text) = site.get_answered("/metrics");
    assert_eq!(sample(&text, "causeway_node_up"), Some(1.0));

    // It hangs again: what was seen last is told.
    let (_, text) = site.get("/metrics");
    assert_eq!(sample(&text, "causeway_node_up"), Some(0.0));
    assert_eq!(sample(&text, "causeway_consensus_height"), Some(100.0));
}

#[test]
fn readiness_follows_the_life_of_the_process() {
    let mut site = Site::new(DEADLINE);
    let starting = json(&site.get("/health/ready"), 503);
    assert_eq!(starting["reason"], "starting");
    assert_eq!(json(&site.get("/health/live"), 200)["live"], true);
    let (status, text) = site.get("/metrics");
    assert_eq!((status, sample(&text, "causeway_node_up")), (200, Some(0.0)));
    check(&text);

    let Site { handle, store, .. } = &site;
    let network = Arc::new(NetworkSeen::default);
    site.server().running(Sources { node: handle.clone(), store: Arc::clone(store), bitcoin: None, network });
    let alone = json(&site.get_answered("/health/ready"), 503);
    assert_eq!(alone["reason"], "no_peers");

    site.server().stopping();
    assert_eq!(json(&site.get("/health/ready"), 503)["reason"], "node_stopping");
    assert_eq!(json(&site.get("/health/live"), 200)["live"], true);

    // A node that has gone away by itself.
    let mut site = Site::running(DEADLINE);
    site.calls.close();
    assert_eq!(json(&site.get("/health/ready"), 503)["reason"], "node_stopping");
    assert_eq!(json(&site.get("/health/live"), 200)["live"], true);
}

#[test]
fn readiness_is_judged_by_what_was_seen() {
    let mut site = Site::new(DEADLINE);
    let mut seen = site.seen();
    seen.status.peers = 3;
    let standing = |reliable: bool| SourceStanding {
        reliable,
        words: "words".to_owned(),
        tip: (BitcoinHeight(0), bitcoin::hashes::Hash::all_zeros()),
    };
    let (good, bad) = (standing(true), standing(false));
    let facts =
        Facts { bitcoin: Some(&good), since_block: INTERVAL, tip_age: Duration::from_secs(61), interval: INTERVAL };
    let reasons = |seen: &NodeSeen, facts: Facts<'_>| {
        let Readiness { against, degraded } = judge(seen, facts);
        (against.map(|it| it.reason), degraded.into_iter().map(|it| it.reason).collect::<Vec<_>>())
    };
    let fine = (None, vec![]);
    assert_eq!(reasons(&seen, facts), fine);

    // As far behind as a block's way to everybody, and farther.
    seen.status.sync_target = Some(Height(100 + BEHIND_MAX));
    assert_eq!(reasons(&seen, facts), fine);
    seen.status.sync_target = Some(Height(101 + BEHIND_MAX));
    assert_eq!(reasons(&seen, facts), (Some(Reason::Syncing), vec![]));
    // What peers say is not enough.
    assert_eq!(reasons(&seen, Facts { tip_age: INTERVAL, ..facts }), (None, vec![Reason::Syncing]));
    let late = Facts { since_block: Duration::from_secs(61), ..facts };
    assert_eq!(reasons(&seen, late), (Some(Reason::Syncing), vec![Reason::Stalled]));
    seen.status.sync_target = None;
    assert_eq!(reasons(&seen, late), (Some(Reason::Stalled), vec![]));
    // Slower chains have longer.
    assert_eq!(reasons(&seen, Facts { interval: Duration::from_secs(5), ..late }), fine);
    assert_eq!(reasons(&seen, Facts { since_block: Duration::from_secs(60), ..facts }), fine);

    // Bitcoin is a full node's trouble, and against a validator.
    let unreliable = Facts { bitcoin: Some(&bad), ..facts };
    assert_eq!(reasons(&seen, unreliable), (None, vec![Reason::BitcoinUnreliable]));
    assert_eq!(reasons(&seen, Facts { bitcoin: None, ..facts }), fine);
    seen.power = 1;
    assert_eq!(reasons(&seen, facts), fine);
    assert_eq!(reasons(&seen, unreliable), (Some(Reason::BitcoinUnreliable), vec![]));
    assert_eq!(reasons(&seen, Facts { bitcoin: None, ..facts }), (None, vec![Reason::NoBitcoin]));

    // Nobody there matters unless the node decides alone.
    seen.status.peers = 0;
    assert_eq!(reasons(&seen, facts), (Some(Reason::NoPeers), vec![]));
    seen.decides_alone = true;
    assert_eq!(reasons(&seen, facts), fine);
}

#[test]
fn what_is_not_there_is_not_found() {
    let mut site = Site::running(DEADLINE);
    for path in [
        "/",
        "",
        "/metric",
        "/metrics/x",
        "//metrics",
        "/health",
        "/health/live/x",
        "/v1/status",
        "/%00",
        "/metrics%2f",
    ] {
        let refused = json(&site.get(path), 404);
        assert_eq!(refused["code"], "unknown_path", "{path}");
        assert!(refused["hint"].as_str().unwrap().contains("/metrics"), "{path}");
    }
    assert_eq!(site.get_answered("/metrics/?name=x").0, 200);
    let post = minreq::post(format!("http://{}/metrics", site.address)).with_body("x".repeat(100_000));
    let refused = post.with_timeout(60).send().unwrap();
    assert_eq!((refused.status_code, refused.headers["allow"].as_str()), (405, "GET, HEAD"));
}

#[test]
fn more_requests_than_are_answered_at_once_are_turned_away() {
    let site = Site::running(DEADLINE);
    let ask = || {
        let mut stream = TcpStream::connect(site.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        stream
    };
    let mut open = Vec::new();
    let started = Instant::now();
    loop {
        let mut stream = ask();
        let mut bytes = [0; 1_000];
        match stream.read(&mut bytes) {
            Ok(count) => {
                let answer = String::from_utf8_lossy(&bytes[..count]).into_owned();
                assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\"busy\""), "{answer}");
                break;
            }
            Err(_) => open.push(stream),
        }
        assert!(started.elapsed() < DEADLINE, "nobody is turned away");
    }
    assert_eq!(open.len(), MAX_REQUESTS);
    assert_eq!(site.calls.len(), 1, "one look is open, whoever waits for it");
}

#[test]
fn the_server_ends_with_a_request_under_way_and_frees_its_port() {
    let mut site = Site::running(DEADLINE);
    let again = Server::start(site.address, Metrics::new(&spec()), INTERVAL);
    let error = site.runtime.block_on(again).err().unwrap().to_string();
    assert!(error.contains("is in use") && error.contains("section [metrics] of config.toml"), "{error}");
    assert!(!error.contains('\n'), "{error}");

    let mut stream = TcpStream::connect(site.address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let look = site.calls.blocking_recv();
    assert!(look.is_some(), "the request is under way");
    let server = site.server.take().unwrap();
    site.runtime.block_on(async { tokio::time::timeout(DEADLINE, server.end()).await.unwrap() });
    let again = site.runtime.block_on(Server::start(site.address, Metrics::new(&spec()), INTERVAL));
    assert!(again.is_ok());
}
