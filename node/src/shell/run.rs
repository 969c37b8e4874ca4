//! The running node: its thread.
//!
//! One thread owns the [`Node`]. It takes events, one at a time, and performs the actions of each before the next. Work
//! goes to `helpers` and comes back as events. The network and REST run on threads of their own.
//!
//! What comes first: blocks that were judged, assembled or committed; deadlines; votes and proposed blocks of peers;
//! transactions that were checked; then the other lanes of the network. Votes that never end stop nothing: one call and one
//! job of checks is taken after at most `CALL_EVERY` other events.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use causeway_chainspec::{ChainSpec, Height};
use causeway_consensus::bft::{Equivocation, HighWaterMark, LogEntry, Persist, Writing};
use causeway_consensus::state::{CoinFlush, Store};
use causeway_consensus::{ScriptCache, StateFault, Workers};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use super::body_file::{BodyFile, BodyFileError};
use super::evidence::EvidenceStore;
use super::handle::{Call, Handle};
use super::helpers::{self, Commit, Helpers, ToNode};
use super::p2p::{P2p, P2pEvent, lanes};
use super::persistence::{Persistence, PersistenceError};
use super::reports;
use crate::machine::claims::{ClaimRefusal, Claimed};
use crate::machine::peg::{BitcoinAnswer, BitcoinQuestion};
use crate::machine::{Action, Event, GossipId, Node, NodeFault, Now, RelayVerdict, SubmitId};
use crate::mempool::{NotYet, PackageResult, Reject};
use crate::metrics::Metrics;
use crate::wire::{Topic, vote_nonce};

/// Calls of REST that may wait.
const CALLS_MAX: usize = 1_024;

/// Transactions handed in here that wait for their verdict before it is asked whether anybody still waits with them.
const SWEEP_FROM: usize = 256;

/// One call, and one job of checks, is taken after at most so many other events.
const CALL_EVERY: u64 = 16;

/// Votes without a verdict whose sending is remembered.
const DELAYS_MAX: usize = 4_096;

/// A vote that took longer was sent by another clock.
const DELAY_MAX: Duration = Duration::from_secs(60);

/// Why a node stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It cannot go on.
    #[error(transparent)]
    Node(#[from] NodeFault),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StateFault),
    /// The log or the high-water mark failed.
    #[error(transparent)]
    Persistence(#[from] PersistenceError),
    /// The file of proposed blocks failed.
    #[error(transparent)]
    Bodies(#[from] BodyFileError),
    /// A thread could not be started.
    #[error("a thread could not be started: raise the limit of processes of this user")]
    Thread(#[source] std::io::Error),
    /// A thread died.
    #[error("a thread of the node has failed: this is a bug, please report it; start the node again")]
    Died,
}

/// What the node's thread writes to.
pub struct Disk {
    /// The final blocks.
    pub store: Arc<Store>,
    /// The engine's log, and a validator's high-water mark.
    pub persistence: Persistence,
    /// The proposed blocks.
    pub bodies: BodyFile,
    /// Proofs of contradictions.
    pub evidence: Arc<Mutex<EvidenceStore>>,
}

impl Disk {
    fn log(
        &mut self,
        height: Height,
        entries: &[LogEntry],
        mark: Option<&HighWaterMark>,
        writing: Writing,
    ) -> Result<(), RunError> {
        if writing == Writing::Now {
            self.bodies.sync()?;
        }
        Ok(self.persistence.persist(height, entries, mark, writing)?)
    }

    fn keep(&mut self, evidence: &Equivocation) {
        // A proof that cannot be kept is in the log of the process, and stops nothing.
        let mut kept = self.evidence.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = kept.keep(evidence) {
            reports::log_error("evidence could not be written", &error);
        }
    }
}

/// Who knows what this machine's Bitcoin node says.
#[async_trait::async_trait]
pub trait AskBitcoin: Send + Sync {
    /// Answers within seconds.
    async fn ask(&self, question: BitcoinQuestion) -> BitcoinAnswer;
}

/// What a node runs with.
pub struct Parts {
    /// The node, not started.
    pub node: Node,
    /// Its chain.
    pub spec: Arc<ChainSpec>,
    /// Its disk.
    pub disk: Disk,
    /// Threads for signatures.
    pub workers: Arc<Workers>,
    /// Its memory of verified transactions.
    pub scripts: Arc<ScriptCache>,
    /// The Bitcoin node, if there is one.
    pub bitcoin: Option<Arc<dyn AskBitcoin>>,
    /// The network.
    pub p2p: P2p,
    /// What happens there.
    pub network: lanes::Receiver<P2pEvent>,
    /// The runtime of network and REST.
    pub runtime: tokio::runtime::Handle,
    /// What counts what happens.
    pub metrics: Metrics,
}

/// A node that runs.
pub struct Running {
    /// How to talk to it.
    pub handle: Handle,
    stop: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<Result<Box<Node>, RunError>>,
    committer: std::thread::JoinHandle<()>,
    ended: oneshot::Receiver<()>,
}

impl Running {
    /// Waits until the node has stopped by itself.
    pub async fn ended(&mut self) {
        // Either way it has.
        let _ = (&mut self.ended).await;
    }

    /// Stops the node, if it runs, and returns it as it was in the end.
    ///
    /// # Errors
    /// Why it had stopped by itself.
    pub fn stop(self) -> Result<Box<Node>, RunError> {
        // It may have stopped already.
        let _ = self.stop.send(());
        let node = self.thread.join().map_err(|_| RunError::Died)?;
        // A block may still be on its way to disk.
        self.committer.join().map_err(|_| RunError::Died)?;
        node
    }
}

/// Starts the node's threads.
///
/// # Errors
/// A thread cannot be started.
pub fn start(parts: Parts) -> Result<Running, RunError> {
    let Parts { node, spec, disk, workers, scripts, bitcoin, p2p, network, runtime, metrics } = parts;
    let (calls, calls_in) = mpsc::channel(CALLS_MAX);
    let (stop, stopped) = oneshot::channel();
    let (end, ended) = oneshot::channel::<()>();
    let (blocks, blocks_in) = mpsc::unbounded_channel();
    let (checks, checks_in) = mpsc::unbounded_channel();
    let results = ToNode { blocks, checks };
    let results_in = Results { blocks: blocks_in, checks: checks_in };
    let store = Arc::clone(&disk.store);
    let parts = helpers::Parts { spec, store, workers, scripts, bitcoin, runtime, metrics: metrics.clone() };
    let (helpers, committer) = Helpers::start(parts, results).map_err(RunError::Thread)?;
    let owner = Owner {
        node: Box::new(node),
        disk,
        helpers,
        p2p,
        metrics,
        started: Instant::now(),
        submits: BTreeMap::new(),
        packages: BTreeMap::new(),
        sweep_at: SWEEP_FROM,
        claims: BTreeMap::new(),
        names: 0,
        delays: Delays::default(),
    };
    let body = move || {
        let _end = end;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(RunError::Thread)?;
        runtime.block_on(owner.run(network, results_in, calls_in, stopped))
    };
    let thread = std::thread::Builder::new().name("node".into()).spawn(body).map_err(RunError::Thread)?;
    Ok(Running { handle: Handle::new(calls), stop, thread, committer, ended })
}

/// The thread that owns the node.
struct Owner {
    node: Box<Node>,
    disk: Disk,
    helpers: Helpers,
    p2p: P2p,
    metrics: Metrics,
    started: Instant,
    submits: BTreeMap<SubmitId, oneshot::Sender<Result<bitcoin::Txid, Reject>>>,
    /// Each is answered, whether somebody waits or not.
    packages: BTreeMap<SubmitId, oneshot::Sender<Result<PackageResult, NotYet>>>,
    /// How many of these there may be before those that nobody waits for are forgotten.
    sweep_at: usize,
    /// Each is answered with the event that it comes with.
    claims: BTreeMap<SubmitId, oneshot::Sender<Result<Claimed, ClaimRefusal>>>,
    names: u64,
    delays: Delays,
}

/// What comes back from the helpers.
struct Results {
    blocks: mpsc::UnboundedReceiver<Result<Event, RunError>>,
    /// Of transactions: as many as the intake has jobs.
    checks: mpsc::UnboundedReceiver<Result<Event, RunError>>,
}

impl Owner {
    async fn run(
        mut self,
        mut network: lanes::Receiver<P2pEvent>,
        mut results: Results,
        mut calls: mpsc::Receiver<Call>,
        mut stopped: oneshot::Receiver<()>,
    ) -> Result<Box<Node>, RunError> {
        self.handle(Event::Tick)?;
        for turn in 0u64.. {
            // A flood from the network keeps nobody waiting.
            if turn % CALL_EVERY == 0 {
                if let Ok(call) = calls.try_recv() {
                    self.call(call)?;
                }
                if let Ok(result) = results.checks.try_recv() {
                    self.handle(result?)?;
                }
            }
            let wait = self
                .node
                .next_deadline()
                .map_or(Duration::from_secs(1), |at| at.saturating_sub(self.started.elapsed()));
            tokio::select! {
                biased;
                // The sender is gone if nobody can stop the node any more.
                _ = &mut stopped => return Ok(self.node),
                Some(result) = results.blocks.recv() => self.handle(result?)?,
                () = sleep(wait) => self.handle(Event::Tick)?,
                Some(result) = results.checks.recv(), if !network.has_urgent() => self.handle(result?)?,
                event = network.recv() => match event {
                    Some(event) => self.network(event)?,
                    None => return Ok(self.node),
                },
                Some(call) = calls.recv() => self.call(call)?,
            }
        }
        unreachable!("there are more turns than a process has")
    }

    fn call(&mut self, call: Call) -> Result<(), RunError> {
        match call {
            Call::Look(look) => {
                look(&self.node);
                Ok(())
            }
            Call::Submit { transaction, reply } => {
                self.names += 1;
                let id = SubmitId(self.names);
                if self.submits.len() >= self.sweep_at {
                    self.submits.retain(|_, reply| !reply.is_closed());
                    self.sweep_at = (2 * self.submits.len()).max(SWEEP_FROM);
                }
                self.submits.insert(id, reply);
                self.handle(Event::Submit { id, transaction })
            }
            Call::SubmitPackage { package, max_feerate, reply } => {
                self.names += 1;
                let id = SubmitId(self.names);
                self.packages.insert(id, reply);
                self.handle(Event::SubmitPackage { id, package, max_feerate })
            }
            Call::Claim { peg_in, reply } => {
                self.names += 1;
                let id = SubmitId(self.names);
                self.claims.insert(id, reply);
                self.handle(Event::Claim { id: Some(id), peg_in })
            }
            Call::Bitcoin(offer) => self.handle(Event::Bitcoin { offer }),
        }
    }

    fn network(&mut self, event: P2pEvent) -> Result<(), RunError> {
        if let P2pEvent::Gossip { id, topic: Topic::Consensus, bytes, .. } = &event {
            self.delays.arrived(*id, bytes);
        }
        self.handle(event_of(event))
    }

    fn now(&self) -> Now {
        // A clock before 1970 is as wrong as any.
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { uptime: self.started.elapsed(), unix }
    }

    fn handle(&mut self, event: Event) -> Result<(), RunError> {
        let actions = self.node.handle(self.now(), event)?;
        for action in actions {
            self.perform(action)?;
        }
        Ok(())
    }

    fn perform(&mut self, action: Action) -> Result<(), RunError> {
        match action {
            Action::Log { height, entries, mark, writing } => {
                self.disk.log(height, &entries, mark.as_ref(), writing)?
            }
            Action::KeepBody { height, bytes } => self.disk.bodies.append(height, &bytes)?,
            Action::Publish { topic, bytes } => self.p2p.publish(topic, bytes),
            Action::Relay { id, verdict } => {
                let delay = self.delays.judged(id, self.now());
                if let Some(delay) = delay.filter(|_| verdict == RelayVerdict::Accept) {
                    self.metrics.vote_heard(delay);
                }
                self.p2p.relay(id, verdict);
            }
            Action::Request { peer, id, request } => self.p2p.request(peer, id, request),
            Action::Respond { id, response } => self.p2p.respond(id, response),
            Action::ServeBlocks { id, from, count } => self.helpers.serve(&self.p2p, id, from, count),
            Action::Ban { peer, duration } => self.p2p.ban(peer, duration),
            Action::HangUp { peer } => self.p2p.hang_up(peer),
            Action::Verify { ticket, job } => self.helpers.verify(ticket, job),
            Action::Read { ticket, job } => self.helpers.read(ticket, job),
            Action::Validate { ticket, job } => self.helpers.validate(ticket, job),
            Action::Prefetch { block } => self.helpers.prefetch(&block),
            Action::Assemble { ticket, job } => self.helpers.assemble(ticket, job),
            Action::Cancel { ticket } => self.helpers.cancel(ticket),
            Action::Check { ticket, job } => self.helpers.check(ticket, job),
            Action::Fill { ticket, job } => self.helpers.fill(ticket, job),
            Action::CheckPackage { ticket, check } => self.helpers.check_package(ticket, check),
            Action::Commit { connected, certificate, catching_up } => {
                let flush = if catching_up { CoinFlush::Later } else { CoinFlush::WithBlock };
                let commit = Commit { connected, certificate: certificate.encode(), flush };
                self.helpers.commit(commit)?;
            }
            Action::KeepEvidence(evidence) => self.disk.keep(&evidence),
            Action::Reply { id, result } => {
                if let Some(reply) = self.submits.remove(&id) {
                    // Whoever asked may have gone away.
                    let _ = reply.send(result);
                }
            }
            Action::PackageReply { id, result } => {
                if let Some(reply) = self.packages.remove(&id) {
                    // Whoever asked may have gone away.
                    let _ = reply.send(result);
                }
            }
            Action::AskBitcoin { ticket, question } => self.helpers.ask_bitcoin(ticket, question),
            Action::ClaimReply { id, result } => {
                if let Some(reply) = self.claims.remove(&id) {
                    // Whoever asked may have gone away.
                    let _ = reply.send(result);
                }
            }
            Action::Report(report) => {
                self.metrics.report(&report);
                reports::report(&report);
            }
        }
        Ok(())
    }
}

/// When votes were sent, by their senders' clocks, until they have their verdicts. A peer can make that up, so it is never
/// more than a figure to look at.
#[derive(Debug, Default)]
struct Delays(BTreeMap<GossipId, Duration>);

impl Delays {
    /// A message waits for its verdict.
    fn arrived(&mut self, id: GossipId, bytes: &[u8]) {
        if let Some(nonce) = vote_nonce(bytes) {
            if self.0.len() >= DELAYS_MAX {
                self.0.pop_first();
            }
            self.0.insert(id, Duration::from_nanos(nonce));
        }
    }

    /// How long a vote took that is taken now; nothing if the two clocks do not agree.
    fn judged(&mut self, id: GossipId, now: Now) -> Option<Duration> {
        let sent = self.0.remove(&id)?;
        now.unix.checked_sub(sent).filter(|delay| *delay <= DELAY_MAX)
    }
}

fn event_of(event: P2pEvent) -> Event {
    match event {
        P2pEvent::Connected { peer } => Event::Connected { peer },
        P2pEvent::Disconnected { peer } => Event::Disconnected { peer },
        P2pEvent::Gossip { peer, id, topic, bytes } => Event::Gossip { peer, id, topic, bytes },
        P2pEvent::Request { peer, id, request } => Event::Request { peer, id, request },
        P2pEvent::Response { peer, id, result } => Event::Response { peer, id, result },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Now {
        Now { uptime: Duration::ZERO, unix: Duration::from_nanos(nanos) }
    }

    /// A message of the consensus topic of this kind, sent then.
    fn message(kind: u8, sent: u64) -> Vec<u8> {
        [&sent.to_le_bytes()[..], &[kind, 7, 7]].concat()
    }

    #[test]
    fn the_delay_of_a_vote_is_told_once_and_of_nothing_else() {
        let mut delays = Delays::default();
        let minute = u64::try_from(DELAY_MAX.as_nanos()).unwrap();
        delays.arrived(GossipId(1), &message(1, 500));
        delays.arrived(GossipId(2), &message(2, 500));
        delays.arrived(GossipId(3), b"short");
        assert_eq!(delays.judged(GossipId(1), at(800)), Some(Duration::from_nanos(300)));
        for id in 1..=3 {
            assert_eq!(delays.judged(GossipId(id), at(800)), None);
        }
        // By a clock that is ahead, and by one that is far behind.
        for (sent, now) in [(501, 500), (500, minute + 501)] {
            delays.arrived(GossipId(4), &message(1, sent));
            assert_eq!(delays.judged(GossipId(4), at(now)), None);
        }
        assert!(delays.0.is_empty());
    }

    #[test]
    fn votes_that_never_get_a_verdict_take_no_more_than_their_room() {
        let mut delays = Delays::default();
        for id in 0..2 * DELAYS_MAX as u64 {
            delays.arrived(GossipId(id), &message(1, id));
        }
        assert_eq!(delays.0.len(), DELAYS_MAX);
        assert!(delays.judged(GossipId(0), at(1)).is_none());
    }
}
