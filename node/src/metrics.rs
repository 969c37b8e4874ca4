//! What an operator's machines watch, on an address of its own: Prometheus metrics and checks of health.
//!
//! ```text
//! families, named   everything that is counted, with its names        never asks
//! seen              the running node, its disk, its Bitcoin node      the only questions, one at a time to each
//! health            whether a node that was seen is ready             pure
//! ```
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | OpenMetrics text; of a node that does not answer what was last known, with `causeway_node_up 0` |
//! | `/health/live` | 200 `{"live":true}`; 503 if the node's thread does not answer in time: start it again |
//! | `/health/ready` | 200 `{"ready":true}`; 503 with `reason`, `message` and `hint`: send requests elsewhere |
//!
//! The address is served before the disk is opened, which can take long, and until the node has stopped serving REST. At
//! most [`MAX_REQUESTS`] requests are answered at once, each within [`ANSWER_WITHIN`] or shortly after: a request costs the
//! node's thread one look at most, and none while another look is open.
//!
//! What never enters: a write, a secret, anything that another node's operator would have to agree with.

mod families;
mod health;
mod named;
mod seen;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use warp::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use warp::http::{Method, StatusCode};
use warp::path::FullPath;
use warp::reply::Response;
use warp::{Filter, Rejection};

pub use families::Metrics;
pub use health::Reason;
pub use seen::{NetworkSeen, Sources};

use health::{Facts, Readiness, Trouble, judge};
use seen::{NodeSeen, Unseen, Watcher};

use crate::http::{self, ListenError};

/// How long the node and its disk may take to be seen. Whoever checks may wait no longer than a few seconds.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Requests that are answered at once; more are turned away.
pub const MAX_REQUESTS: usize = 16;

/// Most connections at once. Whoever watches has one or two, and keeps them.
const MAX_CONNECTIONS: usize = 64;

/// How long requests that are under way may go on after the server was told to stop.
const GRACE: Duration = Duration::from_secs(1);

/// The content type of OpenMetrics, which `/metrics` is written in.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How far the process is.
#[derive(Clone)]
enum Stage {
    /// It opens its disk.
    Starting,
    /// The node runs.
    Running(Arc<Watcher>),
    /// It was told to stop, or has stopped by itself.
    Stopping(Option<Arc<Watcher>>),
}

/// A server of metrics and health, which works in the background.
pub struct Server {
    metrics: Metrics,
    stage: watch::Sender<Stage>,
    stop: watch::Sender<bool>,
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    /// Listens, and serves from then on. With port 0 the system chooses one. `interval` is the least time between two blocks.
    ///
    /// # Errors
    /// [`ListenError`], each with what to do.
    pub async fn start(bind: SocketAddr, metrics: Metrics, interval: Duration) -> Result<Self, ListenError> {
        Self::start_within(ANSWER_WITHIN, bind, metrics, interval).await
    }

    async fn start_within(
        within: Duration,
        bind: SocketAddr,
        metrics: Metrics,
        interval: Duration,
    ) -> Result<Self, ListenError> {
        let (listener, address) = http::listen(bind, "metrics").await?;
        let (stage, stages) = watch::channel(Stage::Starting);
        let (stop, stopped) = watch::channel(false);
        let requests = Semaphore::new(MAX_REQUESTS);
        let app = Arc::new(App { metrics: metrics.clone(), stage: stages, within, interval, requests });
        let times = http::Times { grace: GRACE, ..http::Times::default() };
        let limits = http::Limits { times, ..http::Limits::of_connections(MAX_CONNECTIONS, MAX_CONNECTIONS) };
        let task = tokio::spawn(http::serve(listener, filter(app), limits, http::Plain, stopped));
        Ok(Self { metrics, stage, stop, address, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The node runs: this is what to look at.
    pub fn running(&self, sources: Sources) {
        self.metrics.node_starts();
        self.stage.send_replace(Stage::Running(Arc::new(Watcher::new(sources))));
    }

    /// The process stops: it lives, and is not ready.
    pub fn stopping(&self) {
        self.stage.send_modify(|stage| {
            *stage = Stage::Stopping(match stage {
                Stage::Running(watcher) => Some(Arc::clone(watcher)),
                Stage::Starting | Stage::Stopping(_) => None,
            });
        });
    }

    /// Stops serving: requests under way have a second.
    pub async fn end(self) {
        let _ = self.stop.send(true);
        // It ends by itself; if it failed, there is nothing left to stop.
        let _ = self.task.await;
    }
}

fn filter(app: Arc<App>) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone + Send + Sync + 'static {
    // Of `CONNECT host:1` there is no path, which `full` does not stand.
    let no_path = warp::path::end().map(|| "/".to_owned());
    let path = no_path.or(warp::path::full().map(|path: FullPath| path.as_str().to_owned())).unify();
    warp::method().and(path).and_then(move |method: Method, path: String| {
        let app = Arc::clone(&app);
        async move { Ok::<_, Rejection>(app.answer(&method, &path).await) }
    })
}

/// What the answers share.
struct App {
    metrics: Metrics,
    stage: watch::Receiver<Stage>,
    within: Duration,
    interval: Duration,
    requests: Semaphore,
}

#[derive(Serialize)]
struct LiveJson {
    live: bool,
    #[serde(flatten)]
    trouble: Option<Trouble>,
}

#[derive(Serialize)]
struct ReadyJson {
    ready: bool,
    #[serde(flatten)]
    against: Option<Trouble>,
    /// What else is not as it should be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    degraded: Vec<Trouble>,
}

#[derive(Serialize)]
struct RefusalJson {
    code: &'static str,
    message: &'static str,
    hint: &'static str,
}

impl App {
    async fn answer(&self, method: &Method, path: &str) -> Response {
        // One trailing slash is as good as none.
        let path = path.strip_suffix('/').unwrap_or(path);
        if !matches!(path, "/metrics" | "/health/live" | "/health/ready") {
            let hint = "ask for /metrics, /health/live or /health/ready; wallets ask REST, on its own address";
            return refuse(StatusCode::NOT_FOUND, "unknown_path", "there is no such path", hint);
        }
        if method != Method::GET && method != Method::HEAD {
            let hint = "ask with GET or HEAD";
            let refusal = refuse(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "the path is only read", hint);
            return with(refusal, ALLOW, "GET, HEAD");
        }
        let Ok(_permit) = self.requests.try_acquire() else {
            let refusal =
                refuse(StatusCode::SERVICE_UNAVAILABLE, "busy", "too many requests at once", "ask less often");
            return with(refusal, RETRY_AFTER, "1");
        };
        match path {
            "/metrics" => self.scrape().await,
            "/health/live" => self.live().await,
            _ => self.ready().await,
        }
    }

    fn stage(&self) -> Stage {
        self.stage.borrow().clone()
    }

    /// Everything that can be seen in time; of the rest what was seen last.
    async fn scrape(&self) -> Response {
        let metrics = &self.metrics;
        let stage = self.stage();
        let (node, disk) = match &stage {
            Stage::Running(watcher) | Stage::Stopping(Some(watcher)) => {
                tokio::join!(watcher.node(self.within), watcher.disk(self.within))
            }
            Stage::Starting | Stage::Stopping(None) => (Err(Unseen::NotAnswering), None),
        };
        metrics.set_node(node.as_ref().ok());
        if let Some(figures) = &disk {
            metrics.set_disk(figures);
        }
        if let Stage::Running(watcher) | Stage::Stopping(Some(watcher)) = &stage {
            metrics.set_bitcoin(watcher.bitcoin().as_ref());
            metrics.set_network(watcher.network());
        }
        metrics.set_ready(self.judge(&stage, node).against.is_none());
        let mut response = Response::new(metrics.text().into());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(OPENMETRICS));
        response
    }

    async fn live(&self) -> Response {
        let trouble = match self.stage() {
            Stage::Running(watcher) => watcher.node(self.within).await.err(),
            // Opening a disk may take hours, and stopping seconds: neither gets better by starting again.
            Stage::Starting | Stage::Stopping(_) => None,
        };
        // A node that has stopped by itself ends the process.
        let trouble = trouble.filter(|why| *why == Unseen::NotAnswering).map(Trouble::from);
        let status = if trouble.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        json(status, &LiveJson { live: trouble.is_none(), trouble })
    }

    async fn ready(&self) -> Response {
        let stage = self.stage();
        let node = match &stage {
            Stage::Running(watcher) => watcher.node(self.within).await,
            Stage::Starting | Stage::Stopping(_) => Err(Unseen::NotAnswering),
        };
        let Readiness { against, degraded } = self.judge(&stage, node);
        let status = if against.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        json(status, &ReadyJson { ready: against.is_none(), against, degraded })
    }

    fn judge(&self, stage: &Stage, node: Result<NodeSeen, Unseen>) -> Readiness {
        let not = |against| Readiness { against: Some(against), degraded: Vec::new() };
        let watcher = match stage {
            Stage::Starting => return not(Trouble::new(Reason::Starting, "the node opens its disk")),
            Stage::Stopping(_) => return not(Trouble::from(Unseen::Stopping)),
            Stage::Running(watcher) => watcher,
        };
        match node {
            Err(why) => not(why.into()),
            Ok(seen) => {
                let (bitcoin, since_block) = (watcher.bitcoin(), self.metrics.since_block());
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let tip_age = now.saturating_sub(Duration::from_secs(seen.tip.time().into()));
                judge(&seen, Facts { bitcoin: bitcoin.as_ref(), since_block, tip_age, interval: self.interval })
            }
        }
    }
}

fn refuse(status: StatusCode, code: &'static str, message: &'static str, hint: &'static str) -> Response {
    json(status, &RefusalJson { code, message, hint })
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let body = serde_json::to_vec(value).expect("texts and switches are JSON");
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn with(mut response: Response, name: warp::http::HeaderName, value: &'static str) -> Response {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}

#[cfg(test)]
mod tests;
