//! The running node: its thread.
//!
//! One thread owns the [`Node`]. It takes events, one at a time, and performs the actions of each before the next. Work
//! goes to `helpers` and comes back as events. The network and REST run on threads of their own.

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
use super::helpers::{self, Commit, Helpers};
use super::p2p::{P2p, P2pEvent};
use super::persistence::{Persistence, PersistenceError};
use super::reports;
use crate::machine::claims::{ClaimRefusal, Claimed};
use crate::machine::peg::{BitcoinAnswer, BitcoinQuestion};
use crate::machine::{Action, Event, Node, NodeFault, Now, SubmitId};
use crate::mempool::Reject;
use crate::metrics::Metrics;

/// Calls of REST that may wait.
const CALLS_MAX: usize = 1_024;

/// Transactions handed in here that wait for their verdict before it is asked whether anybody still waits with them.
const SWEEP_FROM: usize = 256;

/// One call is taken after at most so many other events.
const CALL_EVERY: u64 = 16;

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
    pub network: mpsc::Receiver<P2pEvent>,
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
    let (results, results_in) = mpsc::unbounded_channel();
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
        sweep_at: SWEEP_FROM,
        claims: BTreeMap::new(),
        names: 0,
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
    /// How many of these there may be before those that nobody waits for are forgotten.
    sweep_at: usize,
    /// Each is answered with the event that it comes with.
    claims: BTreeMap<SubmitId, oneshot::Sender<Result<Claimed, ClaimRefusal>>>,
    names: u64,
}

impl Owner {
    async fn run(
        mut self,
        mut network: mpsc::Receiver<P2pEvent>,
        mut results: mpsc::UnboundedReceiver<Result<Event, RunError>>,
        mut calls: mpsc::Receiver<Call>,
        mut stopped: oneshot::Receiver<()>,
    ) -> Result<Box<Node>, RunError> {
        self.handle(Event::Tick)?;
        for turn in 0u64.. {
            // A flood from the network does not keep calls waiting.
            if turn % CALL_EVERY == 0
                && let Ok(call) = calls.try_recv()
            {
                self.call(call)?;
            }
            let wait = self
                .node
                .next_deadline()
                .map_or(Duration::from_secs(1), |at| at.saturating_sub(self.started.elapsed()));
            tokio::select! {
                biased;
                // The sender is gone if nobody can stop the node any more.
                _ = &mut stopped => return Ok(self.node),
                Some(result) = results.recv() => self.handle(result?)?,
                () = sleep(wait) => self.handle(Event::Tick)?,
                event = network.recv() => match event {
                    Some(event) => self.handle(event_of(event))?,
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
            Call::Claim { peg_in, reply } => {
                self.names += 1;
                let id = SubmitId(self.names);
                self.claims.insert(id, reply);
                self.handle(Event::Claim { id: Some(id), peg_in })
            }
            Call::Bitcoin(offer) => self.handle(Event::Bitcoin { offer }),
        }
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
            Action::Relay { id, verdict } => self.p2p.relay(id, verdict),
            Action::Request { peer, id, request } => self.p2p.request(peer, id, request),
            Action::Respond { id, response } => self.p2p.respond(id, response),
            Action::ServeBlocks { id, from, count } => self.helpers.serve(&self.p2p, id, from, count),
            Action::Ban { peer, duration } => self.p2p.ban(peer, duration),
            Action::HangUp { peer } => self.p2p.hang_up(peer),
            Action::Verify { ticket, job } => self.helpers.verify(ticket, job),
            Action::Read { ticket, job } => self.helpers.read(ticket, job),
            Action::Validate { ticket, job } => self.helpers.validate(ticket, job),
            Action::Assemble { ticket, job } => self.helpers.assemble(ticket, job),
            Action::Check { ticket, job } => self.helpers.check(ticket, job),
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

fn event_of(event: P2pEvent) -> Event {
    match event {
        P2pEvent::Connected { peer } => Event::Connected { peer },
        P2pEvent::Disconnected { peer } => Event::Disconnected { peer },
        P2pEvent::Gossip { peer, id, topic, bytes } => Event::Gossip { peer, id, topic, bytes },
        P2pEvent::Request { peer, id, request } => Event::Request { peer, id, request },
        P2pEvent::Response { peer, id, result } => Event::Response { peer, id, result },
    }
}
