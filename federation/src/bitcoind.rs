//! Bitcoin as the operator's own bitcoind tells it: JSON-RPC over connections that are bounded in size and time.
//!
//! One or several bitcoinds are asked: always the same one until it fails, then the next. What they say is checked as
//! far as it can be: blocks and headers by their hash and proof of work, transactions by their txid, the network by its
//! block 0.

mod answers;
mod block;
mod calls;
mod endpoint;
mod error;
mod scan;
mod standing;
mod transport;

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bitcoin::{Block, BlockHash, Network};
use jsonrpc::client_async::Client;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::{RawValue, to_raw_value};

pub use answers::{
    Acceptance, ChainInfo, ChainTip, HeaderPlace, MempoolEntry, MempoolInfo, NetworkInfo, Refusal, Sent, TipStatus,
    UnspentCoin,
};
pub use block::{BlockFault, FullBlock, has_proof_of_work};
pub use calls::BATCH_MAX;
pub use endpoint::{CredentialsError, Endpoint, EndpointConfig, EndpointError};
pub use error::{BitcoindError, Problem, RpcError, Text};
pub use scan::FoundCoin;
pub use standing::Standing;
pub use transport::Deadlines;

use transport::HttpTransport;

/// The oldest Bitcoin Core that understands what we ask, as `getnetworkinfo` writes versions: 30.0.
pub const OLDEST_VERSION: u64 = 300_000;

/// Most bitcoinds that one client asks.
pub const ENDPOINTS_MAX: usize = 8;

/// RPC errors that have a meaning of their own (Bitcoin Core, `src/rpc/protocol.h`).
mod code {
    pub(super) const MISC: i32 = -1;
    pub(super) const NOT_FOUND: i32 = -5;
    pub(super) const INVALID_PARAMETER: i32 = -8;
    pub(super) const TRANSACTION_ERROR: i32 = -25;
    pub(super) const TRANSACTION_REJECTED: i32 = -26;
    pub(super) const ALREADY_IN_CHAIN: i32 = -27;
    pub(super) const WARMING_UP: i32 = -28;
}

/// Whom to ask, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BitcoindConfig {
    /// The network that every bitcoind must be on.
    pub network: Network,
    /// The bitcoinds, in the order of preference: 1 to [`ENDPOINTS_MAX`].
    pub endpoints: Vec<EndpointConfig>,
    /// How long a connection and a call may take.
    pub deadlines: Deadlines,
    /// How long a bitcoind that failed is left alone while another one answers.
    pub retry_after: Duration,
    /// How long one that served a false block is left alone.
    pub distrust_for: Duration,
}

impl BitcoindConfig {
    /// These bitcoinds with default waits: a failed one is left alone for 10 s, a lying one for an hour.
    pub fn new(network: Network, endpoints: Vec<EndpointConfig>) -> BitcoindConfig {
        BitcoindConfig {
            network,
            endpoints,
            deadlines: Deadlines::default(),
            retry_after: Duration::from_secs(10),
            distrust_for: Duration::from_secs(3_600),
        }
    }
}

/// A number of bitcoinds that a client cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{got} Bitcoin nodes are configured: name 1 to {ENDPOINTS_MAX}")]
pub struct EndpointCountError {
    /// How many there are.
    pub got: usize,
}

/// A client of one or several bitcoinds. Clones share connections.
#[derive(Clone)]
pub struct Bitcoind {
    shared: Arc<Shared>,
}

struct Shared {
    network: Network,
    genesis: BlockHash,
    nodes: Vec<Node>,
    /// The one that answered last.
    current: AtomicUsize,
    retry_after: Duration,
    distrust_for: Duration,
    alarm: Mutex<Option<Arc<BitcoindError>>>,
}

struct Node {
    endpoint: Endpoint,
    client: Client,
    /// Until when it is left alone.
    aside_until: Mutex<Option<Instant>>,
    /// Connections opened to it, and how many of them had been when its version and network were last checked.
    opened: Arc<AtomicU64>,
    checked: AtomicU64,
}

impl fmt::Debug for Bitcoind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoints: Vec<_> = self.shared.nodes.iter().map(|node| node.endpoint.to_string()).collect();
        f.debug_struct("Bitcoind").field("network", &self.shared.network).field("endpoints", &endpoints).finish()
    }
}

impl Bitcoind {
    /// A client of these bitcoinds. Connects when it is first used.
    ///
    /// # Errors
    ///
    /// No endpoint, or too many.
    pub fn new(config: BitcoindConfig) -> Result<Bitcoind, EndpointCountError> {
        let BitcoindConfig { network, endpoints, deadlines, retry_after, distrust_for } = config;
        if endpoints.is_empty() || endpoints.len() > ENDPOINTS_MAX {
            return Err(EndpointCountError { got: endpoints.len() });
        }
        let nodes = endpoints.into_iter().map(|EndpointConfig { endpoint, credentials_file }| {
            if !endpoint.is_loopback() {
                tracing::warn!(%endpoint, "plain HTTP to another machine: put a tunnel around it");
            }
            let opened = Arc::new(AtomicU64::new(0));
            let transport = HttpTransport::new(endpoint.clone(), credentials_file, deadlines, Arc::clone(&opened));
            let client = Client::with_transport(transport);
            Node { endpoint, client, aside_until: Mutex::default(), opened, checked: AtomicU64::new(0) }
        });
        Ok(Bitcoind {
            shared: Arc::new(Shared {
                network,
                genesis: bitcoin::constants::genesis_block(network).block_hash(),
                nodes: nodes.collect(),
                current: AtomicUsize::new(0),
                retry_after,
                distrust_for,
                alarm: Mutex::default(),
            }),
        })
    }

    /// The network that every bitcoind must be on.
    pub fn network(&self) -> Network {
        self.shared.network
    }

    /// The bitcoind that answers.
    pub fn endpoint(&self) -> &Endpoint {
        &self.shared.nodes[self.shared.current.load(Ordering::Relaxed)].endpoint
    }

    /// The last proof that a bitcoind lied: it served a block that its hash does not prove. Never forgotten while the
    /// process lives.
    pub fn alarm(&self) -> Option<Arc<BitcoindError>> {
        self.shared.alarm.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Calls `method` and reads the answer, at the first bitcoind that does both.
    async fn ask<R, T, F>(&self, method: &'static str, params: &impl Serialize, read: F) -> Result<T, BitcoindError>
    where
        R: DeserializeOwned,
        F: Fn(R) -> Result<T, Problem>,
    {
        let params = raw(params);
        let mut tries = self.tries(method);
        loop {
            let node = tries.next().await?;
            let answer = node.call::<R>(method, &params).await.and_then(&read);
            if let Some(end) = tries.end(answer).await {
                return end;
            }
        }
    }

    /// A call that is tried at one bitcoind after the other.
    fn tries(&self, method: &'static str) -> Tries<'_> {
        let shared = &*self.shared;
        let first = shared.current.load(Ordering::Relaxed);
        Tries { shared, method, first, tried: 0, current: first, last: None }
    }
}

/// A call under way: first at the bitcoind that answered last, then at those that are not set aside.
///
/// ```text
/// loop {
///     let node = tries.next().await?;
///     if let Some(end) = tries.end(/* what node answers */).await { return end; }
/// }
/// ```
struct Tries<'a> {
    shared: &'a Shared,
    method: &'static str,
    first: usize,
    tried: usize,
    current: usize,
    last: Option<BitcoindError>,
}

impl<'a> Tries<'a> {
    /// The next bitcoind to ask, its version and network checked.
    async fn next(&mut self) -> Result<&'a Node, BitcoindError> {
        let nodes = &self.shared.nodes;
        // With nobody else to ask, the one that answered last is asked although it is set aside.
        let all_aside = nodes.iter().all(Node::is_aside);
        while self.tried < nodes.len() {
            self.current = (self.first + self.tried) % nodes.len();
            self.tried += 1;
            let node = &nodes[self.current];
            if node.is_aside() && !(all_aside && self.tried == 1) {
                continue;
            }
            match node.check(self.shared).await {
                Ok(()) => return Ok(node),
                Err(problem) => self.failed(problem)?,
            }
        }
        Err(self.last.take().unwrap_or_else(|| self.error(Problem::Busy)))
    }

    /// The end of the call if there is one; `None`: the next bitcoind is to be asked.
    async fn end<T>(&mut self, answer: Result<T, Problem>) -> Option<Result<T, BitcoindError>> {
        let checked = match answer {
            // A connection opened for this very call may lead to another bitcoind than the last one.
            Ok(answer) => self.shared.nodes[self.current].check(self.shared).await.map(|()| answer),
            Err(problem) => Err(problem),
        };
        match checked {
            Ok(answer) => {
                self.shared.current.store(self.current, Ordering::Relaxed);
                Some(Ok(answer))
            }
            Err(problem) => self.failed(problem).err().map(Err),
        }
    }

    /// Notes what went wrong. An error ends the call.
    fn failed(&mut self, problem: Problem) -> Result<(), BitcoindError> {
        let shared = self.shared;
        let error = self.error(problem);
        let lied = matches!(error.problem, Problem::FalseBlock(_));
        if error.problem.sets_aside() {
            shared.nodes[self.current].set_aside(if lied { shared.distrust_for } else { shared.retry_after });
        }
        if let Problem::FalseBlock(fault) = &error.problem {
            tracing::error!(endpoint = %error.endpoint, %fault, "a Bitcoin node lies");
            let alarm = self.error(Problem::FalseBlock(fault.clone()));
            *shared.alarm.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(alarm));
        }
        if !error.problem.is_of_endpoint() {
            shared.current.store(self.current, Ordering::Relaxed);
            return Err(error);
        }
        self.last = Some(error);
        Ok(())
    }

    fn error(&self, problem: Problem) -> BitcoindError {
        BitcoindError { endpoint: self.shared.nodes[self.current].endpoint.clone(), method: self.method, problem }
    }
}

/// Parameters as JSON.
fn raw(params: &impl Serialize) -> Box<RawValue> {
    to_raw_value(params).expect("texts, numbers and lists of them are JSON")
}

impl Node {
    fn is_aside(&self) -> bool {
        self.aside_until.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| Instant::now() < until)
    }

    fn set_aside(&self, wait: Duration) {
        *self.aside_until.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now().checked_add(wait);
    }

    /// Calls `method`.
    async fn call<R: DeserializeOwned>(&self, method: &str, params: &RawValue) -> Result<R, Problem> {
        self.client.call(method, Some(params)).await.map_err(problem_of)
    }

    /// Calls `method` once with each of `params`, in one request. Answers are in the order of `params`.
    async fn call_each<R: DeserializeOwned>(
        &self,
        method: &str,
        params: &[Box<RawValue>],
    ) -> Result<Vec<Result<R, Problem>>, Problem> {
        if params.is_empty() {
            return Ok(Vec::new());
        }
        let requests: Vec<_> = params.iter().map(|params| self.client.build_request(method, Some(params))).collect();
        let responses = self.client.send_batch(&requests).await.map_err(problem_of)?;
        responses
            .into_iter()
            .map(|response| match response {
                Some(response) => Ok(response.result().map_err(problem_of)),
                None => Err(Problem::UnexpectedAnswer),
            })
            .collect()
    }

    /// Checks version and network, if connections were opened since that was last done.
    async fn check(&self, shared: &Shared) -> Result<(), Problem> {
        let checked = self.checked.load(Ordering::SeqCst);
        if checked > 0 && checked >= self.opened.load(Ordering::SeqCst) {
            return Ok(());
        }
        let genesis: BlockHash = self.call("getblockhash", &raw(&(0,))).await?;
        if genesis != shared.genesis {
            return Err(Problem::WrongNetwork { expected: shared.genesis, got: genesis });
        }
        let info: answers::RawNetworkInfo = self.call("getnetworkinfo", &raw(&[(); 0])).await?;
        let version = NetworkInfo::from(info).version;
        if version < OLDEST_VERSION {
            return Err(Problem::TooOld { version });
        }
        // What was opened meanwhile by another call is counted too: it was opened to the same address just now.
        self.checked.fetch_max(self.opened.load(Ordering::SeqCst), Ordering::SeqCst);
        Ok(())
    }
}

/// What went wrong, by what the envelope's library makes of it.
fn problem_of(error: jsonrpc::Error) -> Problem {
    match error {
        jsonrpc::Error::Transport(error) => match error.downcast::<Problem>() {
            Ok(problem) => *problem,
            Err(_) => Problem::UnexpectedAnswer,
        },
        jsonrpc::Error::Rpc(error) if error.code == code::WARMING_UP => Problem::WarmingUp(Text::of(&error.message)),
        jsonrpc::Error::Rpc(error) => Problem::Rpc(RpcError { code: error.code, message: Text::of(&error.message) }),
        _ => Problem::UnexpectedAnswer,
    }
}

/// The block in these bytes in hex, if it is the one that was asked for and all of it is proven.
fn read_block(network: Network, asked: BlockHash, hex: &str) -> Result<FullBlock, Problem> {
    let block: Block = bitcoin::consensus::encode::deserialize_hex(hex).map_err(|_| Problem::UnexpectedAnswer)?;
    block::check_header(network, asked, &block.header).map_err(Problem::FalseBlock)?;
    FullBlock::new(block).map_err(Problem::FalseBlock)
}

#[cfg(test)]
pub(crate) mod tests;
