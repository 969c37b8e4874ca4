//! What a scrape or a check looks at: the running node, its disk, its Bitcoin node, its peers.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use causeway_chainspec::SatPerKvb;
use causeway_consensus::Tip;
use causeway_consensus::state::{Store, StoreFigures};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::time::timeout;

use crate::machine::{Counts, Load, Node, Status};
use crate::rest::peg::{Source, SourceStanding};
use crate::shell::{Handle, Stopped};

/// What the answers come from, once the node runs.
#[derive(Clone)]
pub struct Sources {
    /// The running node.
    pub node: Handle,
    /// Its chain on disk.
    pub store: Arc<Store>,
    /// Its Bitcoin node, if it has one.
    pub bitcoin: Source,
    /// Its peers. It must be quick.
    pub network: Arc<dyn Fn() -> NetworkSeen + Send + Sync>,
}

/// The network, as of a moment ago.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkSeen {
    /// Peers that called this node.
    pub inbound: usize,
    /// Peers that this node called.
    pub outbound: usize,
    /// What this node said, and the network was too busy to send.
    pub lost_commands: u64,
    /// What peers said, and this node was too busy to take.
    pub lost_gossip: u64,
}

/// The running node at one moment.
#[derive(Clone, Debug)]
pub(super) struct NodeSeen {
    pub(super) status: Status,
    pub(super) tip: Arc<Tip>,
    pub(super) counts: Counts,
    pub(super) load: Load,
    /// The power that the node votes with; 0 if it does not.
    pub(super) power: u64,
    pub(super) total_power: u64,
    pub(super) validators: usize,
    /// Whether the node's own power decides.
    pub(super) decides_alone: bool,
    pub(super) mempool_bytes: usize,
    pub(super) mempool_bytes_max: usize,
    pub(super) min_feerate: SatPerKvb,
}

impl NodeSeen {
    /// Copies numbers and references: the node stands still meanwhile.
    fn of(node: &Node, now_s: u64) -> Self {
        let (status, set, pool) = (node.status(), node.validator_set(), node.mempool());
        let power = status.validator.and_then(|address| set.get(&address)).map_or(0, |member| member.power());
        Self {
            tip: Arc::clone(node.tip()),
            counts: node.counts(),
            load: node.load(),
            power,
            total_power: set.total_power(),
            validators: set.members().len(),
            decides_alone: set.is_quorum(power),
            mempool_bytes: pool.memory(),
            mempool_bytes_max: pool.policy().max_memory_bytes,
            min_feerate: pool.min_feerate(now_s),
            status,
        }
    }
}

/// Why there is nothing to see of the running node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unseen {
    /// It stops.
    Stopping,
    /// It has not answered in time.
    NotAnswering,
}

/// Looks at the sources, one question at a time to each: whoever comes while one is open waits for the same answer.
pub(super) struct Watcher {
    sources: Sources,
    node: Flight<Result<NodeSeen, Stopped>>,
    disk: Flight<Option<StoreFigures>>,
}

impl Watcher {
    pub(super) fn new(sources: Sources) -> Self {
        Self { sources, node: Flight::default(), disk: Flight::default() }
    }

    /// The running node, if it answers within this time.
    pub(super) async fn node(&self, within: Duration) -> Result<NodeSeen, Unseen> {
        let ask = || {
            let node = self.sources.node.clone();
            async move { node.look(move |node| NodeSeen::of(node, now_s())).await }
        };
        match self.node.get(within, ask).await {
            Some(Ok(seen)) => Ok(seen),
            Some(Err(Stopped)) => Err(Unseen::Stopping),
            None => Err(Unseen::NotAnswering),
        }
    }

    /// The disk, if it answers within this time.
    pub(super) async fn disk(&self, within: Duration) -> Option<StoreFigures> {
        let ask = || {
            let store = Arc::clone(&self.sources.store);
            // It waits for a block that is being written.
            let read = tokio::task::spawn_blocking(move || store.figures());
            async move { read.await.ok() }
        };
        self.disk.get(within, ask).await.flatten()
    }

    pub(super) fn bitcoin(&self) -> Option<SourceStanding> {
        self.sources.bitcoin.as_ref().map(|bitcoin| bitcoin.standing())
    }

    pub(super) fn network(&self) -> NetworkSeen {
        (self.sources.network)()
    }
}

/// A question that is open at most once.
struct Flight<T: Clone>(Mutex<Option<Shared<BoxFuture<'static, T>>>>);

impl<T: Clone> Default for Flight<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone + Send + Sync + 'static> Flight<T> {
    /// The answer, if it comes within this time. It is waited for to the end, also if nobody here does any more.
    async fn get<F>(&self, within: Duration, ask: impl FnOnce() -> F) -> Option<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let answer = {
            let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match open.as_ref().filter(|answer| answer.peek().is_none()) {
                Some(answer) => answer.clone(),
                None => {
                    let answer = ask().boxed().shared();
                    *open = Some(answer.clone());
                    tokio::spawn(answer.clone());
                    answer
                }
            }
        };
        timeout(within, answer).await.ok()
    }
}

/// Seconds of Unix time. A clock before 1970 is as wrong as any.
pub(super) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
