//! HTTP for wallets and operators: the Esplora interface at `/` and `/api`, and what is Causeway's own under `/v1`.
//!
//! ```text
//! server    limits, CORS, the body of a POST          never decides what is right
//! routes    method and path -> a call                 the list of all endpoints
//! openapi   the same list as a document               schemas of the types that are written
//! blocks, transactions, scripts, spends, package, pool, policy, v1, peg -> Answer or Refusal the endpoints
//! problem   Refusal -> code, message, hint            the list of all errors
//! tip       chain and mempool together, at one tip
//! reader    one request's view of the final chain     the only blocking reads
//! cut       a block's bytes, cut into transactions
//! events    what happens, as a stream                one reading of each new block for all who listen
//! live      what the running node says                the only questions to it
//! ```
//!
//! Every answer about the chain stands on the tip that was final when its reading began; one about the mempool too, on the
//! tip that the mempool stands on. Reads of the disk happen on
//! threads for blocking work, a few at a time, and give up when the request's time is over; the running node is asked
//! only what is quick to say.
//!
//! Connections, their deadlines, and compression are [`http`]'s.
//!
//! What never enters: a decision about blocks, transactions or peers, a write, a secret.

mod answer;
mod blocks;
mod cut;
mod events;
mod json;
mod live;
mod meter;
mod openapi;
mod package;
pub mod peg;
mod policy;
mod pool;
mod problem;
mod reader;
mod routes;
mod schema;
mod scripts;
mod server;
mod spends;
mod tip;
mod trail;
mod transactions;
mod v1;
mod waiting;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use causeway_chainspec::ChainSpec;
use causeway_consensus::bft::{Equivocation, ValidatorSet, ValidatorSetError};
use causeway_consensus::state::Store;
use libp2p::{Multiaddr, PeerId};
use tokio::sync::{Mutex, Semaphore, watch};
use warp::http::Method;
use warp::reply::Response;

pub use live::Live;
pub use meter::{Asked, Meter, Open};
pub(crate) use problem::in_words;

use crate::http::{self, Limits, ListenError};
use reader::Chain;
use server::{MAX_BODY_BYTES, Times};
use trail::Trail;

/// Requests that are answered at once; more are turned away.
const MAX_REQUESTS: usize = 256;

/// Bodies above 16 KiB that are received at once, each of at most 1 MB; more are turned away.
const MAX_BODIES: usize = 64;

/// Pages of histories that go out in parts at once, of some megabytes each; more are turned away.
const MAX_LONG_PAGES: usize = 16;

/// Requests that read the disk at once; more wait.
const MAX_READERS: usize = 8;

/// What an operator sets: the section `[rest]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where to listen. With port 0 the system chooses one.
    pub bind: SocketAddr,
    /// Connections in all.
    pub max_connections: usize,
    /// Connections of one address; half of them may have a request under way. A loopback address may have all.
    pub max_connections_per_address: usize,
}

/// What the answers come from.
#[derive(Clone)]
pub struct Parts<L> {
    /// The chain's parameters.
    pub spec: Arc<ChainSpec>,
    /// The final blocks. Without its indexes, what needs them is refused.
    pub store: Arc<Store>,
    /// The running node.
    pub live: L,
    /// The node's Bitcoin node, if it has one.
    pub bitcoin: peg::Source,
    /// How a peer is connected, if it is. It must be quick.
    pub connection: ConnectionOf,
    /// The evidence that this node keeps against validators. It may read a disk.
    pub evidence: EvidenceList,
    /// What counts the requests.
    pub meter: Meter,
}

/// See [`Parts::connection`].
pub type ConnectionOf = Arc<dyn Fn(&PeerId) -> Option<Connection> + Send + Sync>;

/// See [`Parts::evidence`].
pub type EvidenceList = Arc<dyn Fn() -> Vec<Equivocation> + Send + Sync>;

/// How a peer is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Its address, as this node sees it.
    pub address: Multiaddr,
    /// Who called whom.
    pub direction: Direction,
}

/// Who opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The peer.
    Inbound,
    /// This node.
    Outbound,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        })
    }
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestError {
    /// The address cannot be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The chainspec's validators are no set.
    #[error("the validators of the chainspec cannot be served: correct the chainspec")]
    Validators(#[source] ValidatorSetError),
}

/// Listens, and returns the address and the server, which works while it is polled and ends after `shutdown`: requests
/// under way then have 5 seconds.
///
/// # Errors
/// [`RestError`], each with what to do.
pub async fn serve<L: Live>(
    config: Config,
    parts: Parts<L>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(SocketAddr, impl Future<Output = ()> + Send + 'static), RestError> {
    serve_within(Times::default(), config, parts, shutdown).await
}

async fn serve_within<L: Live>(
    times: Times,
    config: Config,
    parts: Parts<L>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(SocketAddr, impl Future<Output = ()> + Send + 'static), RestError> {
    let Config { bind, max_connections, max_connections_per_address } = config;
    let (stopping, stop) = watch::channel(false);
    let app = Arc::new(App::new(times, parts, stop.clone())?);
    let (listener, address) = http::listen(bind, "rest").await?;
    let limits = Limits {
        body_bytes: MAX_BODY_BYTES as u64,
        ..Limits::of_connections(max_connections, max_connections_per_address)
    };
    let front = Front { meter: app.meter.clone() };
    let server = async move {
        let told = async {
            shutdown.await;
            // Whoever polls the server waits for this.
            let _ = stopping.send(true);
        };
        tokio::join!(told, http::serve(listener, server::filter(app), limits, front, stop));
    };
    Ok((address, server))
}

/// What the server of connections knows of REST.
struct Front {
    meter: Meter,
}

impl http::Host for Front {
    fn opened(&self) -> Box<dyn Send> {
        Box::new(self.meter.connection())
    }

    fn refuse(&self, refusal: http::Refusal, path: &str) -> Response {
        let response = problem::refuse(refusal, path);
        match refusal {
            // Nothing else counts them.
            http::Refusal::Requests | http::Refusal::BodyTooLarge => {
                self.meter.request(&Method::GET, path).answered(response)
            }
            _ => response,
        }
    }
}

/// What the endpoints share.
struct App<L> {
    times: Times,
    chain: Arc<Chain>,
    /// The validators of every height: the set of a chain does not change.
    validators: ValidatorSet,
    live: L,
    bitcoin: peg::Source,
    connection: ConnectionOf,
    evidence: EvidenceList,
    meter: Meter,
    requests: Semaphore,
    bodies: Semaphore,
    readers: Arc<Semaphore>,
    long_pages: Arc<Semaphore>,
    pool: Mutex<Option<pool::View>>,
    /// Transactions that were handed in here: a look at the mempool from before is too old.
    handed_in: AtomicU64,
    trail: Arc<Trail>,
    events: events::Hub,
    /// True once the server stops: streams end then.
    stop: watch::Receiver<bool>,
}

impl<L> App<L> {
    fn new(times: Times, parts: Parts<L>, stop: watch::Receiver<bool>) -> Result<Self, RestError> {
        let Parts { spec, store, live, bitcoin, connection, evidence, meter } = parts;
        Ok(Self {
            times,
            events: events::Hub::new(times.events),
            validators: ValidatorSet::new(spec.validators()).map_err(RestError::Validators)?,
            chain: Arc::new(Chain::new(spec, store)),
            live,
            bitcoin,
            connection,
            evidence,
            meter,
            requests: Semaphore::new(MAX_REQUESTS),
            bodies: Semaphore::new(MAX_BODIES),
            readers: Arc::new(Semaphore::new(MAX_READERS)),
            long_pages: Arc::new(Semaphore::new(MAX_LONG_PAGES)),
            pool: Mutex::new(None),
            handed_in: AtomicU64::new(0),
            trail: Arc::new(Trail::new()),
            stop,
        })
    }
}

#[cfg(test)]
mod tests;
