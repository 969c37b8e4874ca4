//! What works for the node's thread: signatures of consensus messages on a pool of threads, reading and checking of
//! transactions and claims on a second, blocks on a third, commits on a thread of their own: no vote waits for a
//! transaction. Every result comes back as an event.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroUsize;
use std::sync::{Arc, Weak, mpsc as std_mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use causeway_chainspec::{ChainSpec, Height, Params};
use causeway_consensus::state::{CoinFlush, Store};
use causeway_consensus::{Cancel, ConnectedBlock, ScriptCache, StateFault, Workers};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

use super::p2p::P2p;
use super::prefetch::Prefetcher;
use super::run::{AskBitcoin, RunError};
use crate::machine::jobs::{AssembleJob, CheckJob, FillJob, ReadJob, ValidateJob, VerifyJob};
use crate::machine::peg::{BitcoinAnswer, BitcoinQuestion};
use crate::machine::{Event, Filled, InboundId, Ticket};
use crate::mempool::PackageCheck;
use crate::metrics::Metrics;
use crate::wire::{ANSWER_BYTES_TARGET, FinalBlock, Response};

/// Answers with blocks that are read from disk at once.
const SERVING_MAX: usize = 4;

/// Blocks that are judged and assembled at once, each by a pool of [`Workers`]. At most one of this round, one of sync, our
/// own, and those that most have voted for are wanted; of the others each holds its threads until the inputs that they
/// are at are verified, which takes no input more than some seconds. So many rounds do not begin and end in that time.
const BLOCKS_AT_ONCE: usize = 16;

/// A thread of a pool that has had nothing to do for so long ends. The next job starts another.
const KEEP_IDLE: Duration = Duration::from_secs(600);

/// How often the node is told of blocks that the disk has lost.
const TELL_HOLES: Duration = Duration::from_secs(10);

/// What the helpers work with.
pub(super) struct Parts {
    pub(super) spec: Arc<ChainSpec>,
    pub(super) store: Arc<Store>,
    pub(super) workers: Arc<Workers>,
    pub(super) scripts: Arc<ScriptCache>,
    pub(super) bitcoin: Option<Arc<dyn AskBitcoin>>,
    /// The runtime of network and REST.
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) metrics: Metrics,
}

/// What others do for the node.
pub(super) struct Helpers {
    spec: Arc<ChainSpec>,
    store: Arc<Store>,
    workers: Arc<Workers>,
    scripts: Arc<ScriptCache>,
    votes: Pool,
    checks: Pool,
    blocks: Pool,
    /// Of each job of a block that is not done.
    cancels: BTreeMap<Ticket, Weak<Cancel>>,
    commits: std_mpsc::SyncSender<Commit>,
    prefetcher: Prefetcher,
    serving: Arc<tokio::sync::Semaphore>,
    bitcoin: Option<Arc<dyn AskBitcoin>>,
    results: ToNode,
    runtime: tokio::runtime::Handle,
    metrics: Metrics,
}

/// A decided block on its way to disk.
pub(super) struct Commit {
    pub(super) connected: Arc<ConnectedBlock>,
    pub(super) certificate: Vec<u8>,
    pub(super) flush: CoinFlush,
}

impl Helpers {
    /// Starts the threads.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub(super) fn start(parts: Parts, results: ToNode) -> io::Result<(Self, JoinHandle<()>)> {
        let Parts { spec, store, workers, scripts, bitcoin, runtime, metrics } = parts;
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let (commits, commits_in) = std_mpsc::sync_channel(1);
        let committer = committer(Arc::clone(&store), commits_in, results.clone(), metrics.clone());
        let committer = std::thread::Builder::new().name("commit".into()).spawn(committer)?;
        runtime.spawn(tell_holes(Arc::downgrade(&store), results.clone()));
        let prefetcher = Prefetcher::start(Arc::clone(&store))?;
        let helpers = Self {
            spec,
            store,
            workers,
            scripts,
            votes: Pool::new("votes", cores.get())?,
            checks: Pool::new("check", cores.get())?,
            blocks: Pool::new("block", BLOCKS_AT_ONCE)?,
            cancels: BTreeMap::new(),
            commits,
            prefetcher,
            serving: Arc::new(tokio::sync::Semaphore::new(SERVING_MAX)),
            bitcoin,
            results,
            runtime,
            metrics,
        };
        Ok((helpers, committer))
    }

    pub(super) fn commit(&self, commit: Commit) -> Result<(), RunError> {
        self.commits.send(commit).map_err(|_| RunError::Died)
    }

    pub(super) fn prefetch(&self, block: &Bytes) {
        self.prefetcher.prefetch(block);
    }

    pub(super) fn validate(&mut self, ticket: Ticket, job: ValidateJob) {
        // While it waits for a thread and is checked by itself.
        self.prefetch(&job.bytes);
        let workers = self.workers_for(ticket);
        self.run(&self.blocks, Metrics::validated, move |work| {
            let matched = || {
                work.results.send(Ok::<_, RunError>(Event::Matched { ticket }));
            };
            let verdict = job.run(work.spec.params(), &*work.store, &workers, &work.scripts, matched)?;
            Ok(Event::Validated { ticket, verdict })
        });
    }

    pub(super) fn assemble(&mut self, ticket: Ticket, job: AssembleJob) {
        let workers = self.workers_for(ticket);
        self.run(&self.blocks, Metrics::assembled, move |work| {
            let verdict = job.run(work.spec.params(), &*work.store, &workers, &work.scripts)?;
            Ok(Event::Assembled { ticket, verdict })
        });
    }

    /// Has a job of a block begin nothing more.
    pub(super) fn cancel(&mut self, ticket: Ticket) {
        if let Some(cancel) = self.cancels.remove(&ticket).and_then(|cancel| cancel.upgrade()) {
            cancel.cancel();
        }
    }

    /// The threads that work for a job until it is cancelled.
    fn workers_for(&mut self, ticket: Ticket) -> Workers {
        self.cancels.retain(|_, cancel| cancel.strong_count() > 0);
        let cancel = Arc::new(Cancel::default());
        self.cancels.insert(ticket, Arc::downgrade(&cancel));
        self.workers.until(cancel)
    }

    pub(super) fn check(&self, ticket: Ticket, job: CheckJob) {
        self.run(&self.checks, Metrics::checked, move |work| {
            Ok(Event::Checked { ticket, results: job.run(&*work.store)? })
        });
    }

    /// Puts a final block back that the disk has lost.
    pub(super) fn fill(&self, ticket: Ticket, job: FillJob) {
        let work = self.work();
        self.checks.spawn(move || {
            let filled = fill_hole(&work.store, work.spec.params(), &job);
            work.results.send(filled.map(|filled| Event::Filled { ticket, filled }));
        });
    }

    pub(super) fn check_package(&self, ticket: Ticket, check: PackageCheck) {
        self.run(&self.checks, Metrics::checked, move |work| {
            Ok(Event::PackageChecked { ticket, answer: check.run(&*work.store)? })
        });
    }

    pub(super) fn verify(&self, ticket: Ticket, job: VerifyJob) {
        let results = self.results.clone();
        self.votes.spawn(move || {
            results.send(Ok::<_, RunError>(Event::Verified { ticket, result: job.run() }));
        });
    }

    pub(super) fn read(&self, ticket: Ticket, job: ReadJob) {
        let results = self.results.clone();
        self.checks.spawn(move || {
            results.send(Ok::<_, RunError>(Event::Read { ticket, message: job.run() }));
        });
    }

    fn run(
        &self,
        pool: &Pool,
        took: fn(&Metrics, Duration),
        job: impl FnOnce(&Work) -> Result<Event, StateFault> + Send + 'static,
    ) {
        let work = self.work();
        pool.spawn(move || {
            let since = Instant::now();
            let event = job(&work);
            took(&work.metrics, since.elapsed());
            work.results.send(event);
        });
    }

    pub(super) fn ask_bitcoin(&self, ticket: Ticket, question: BitcoinQuestion) {
        let (bitcoin, results) = (self.bitcoin.clone(), self.results.clone());
        self.runtime.spawn(async move {
            let answer = match bitcoin {
                Some(bitcoin) => bitcoin.ask(question).await,
                None => BitcoinAnswer::Absent,
            };
            results.send(Ok::<_, RunError>(Event::BitcoinJudged { ticket, answer }));
        });
    }

    /// Reads blocks from disk and answers a peer with them, a few peers at a time.
    pub(super) fn serve(&self, p2p: &P2p, id: InboundId, from: Height, count: u16) {
        let (store, p2p, results) = (Arc::clone(&self.store), p2p.clone(), self.results.clone());
        let serving = Arc::clone(&self.serving);
        self.runtime.spawn(async move {
            // Nobody closes it. Who waits here is bounded by the network's open requests.
            let Ok(_permit) = serving.acquire().await else { return };
            let read = tokio::task::spawn_blocking(move || read_blocks(&store, from, count));
            match read.await {
                Ok(Ok(blocks)) => p2p.respond(id, Response::Blocks(blocks)),
                Ok(Err(fault)) => drop(results.send(Err(fault))),
                Err(_) => drop(results.send(Err(RunError::Died))),
            }
        });
    }

    fn work(&self) -> Work {
        Work {
            spec: Arc::clone(&self.spec),
            store: Arc::clone(&self.store),
            scripts: Arc::clone(&self.scripts),
            results: self.results.clone(),
            metrics: self.metrics.clone(),
        }
    }
}

/// What a job needs.
struct Work {
    spec: Arc<ChainSpec>,
    store: Arc<Store>,
    scripts: Arc<ScriptCache>,
    results: ToNode,
    metrics: Metrics,
}

/// What the thread does that commits: until nobody can hand in a block any more, or the node has stopped.
fn committer(
    store: Arc<Store>,
    commits: std_mpsc::Receiver<Commit>,
    results: ToNode,
    metrics: Metrics,
) -> impl FnOnce() {
    move || {
        for Commit { connected, certificate, flush } in commits {
            let since = Instant::now();
            let result = store.commit(&connected, &certificate, flush);
            if result.is_ok() {
                metrics.committed(connected.block(), since.elapsed());
            }
            if !results.send(result.map(|committed| Event::Committed { height: committed.height() })) {
                break;
            }
        }
    }
}

/// Puts a block back that is final, and the one that was lost.
fn fill_hole(store: &Store, params: &Params, job: &FillJob) -> Result<Filled, StateFault> {
    let Some(block) = job.check(params) else { return Ok(Filled::Unproven) };
    let (height, hash) = (job.proof.height, block.block().hash());
    if store.fill_hole(height, &block, &job.block.certificate)? {
        tracing::info!(%height, %hash, "a block that was missing is back");
        return Ok(Filled::Whole);
    }
    tracing::error!(%height, %hash, "ANOTHER BLOCK OF THIS HEIGHT IS FINAL TOO: a third of the validators has lied");
    Ok(Filled::Another)
}

/// Tells the node of blocks that the disk has lost, for as long as there are some.
async fn tell_holes(store: Weak<Store>, results: ToNode) {
    while let Some(heights) = store.upgrade().map(|store| store.holes()) {
        if !heights.is_empty() && !results.send(Ok::<_, RunError>(Event::Holes { heights })) {
            return;
        }
        tokio::time::sleep(TELL_HOLES).await;
    }
}

/// Returns final blocks from `from` on, as many as an answer holds. Derived blocks have no certificate: none for them.
fn read_blocks(store: &Store, from: Height, count: u16) -> Result<Vec<FinalBlock>, StateFault> {
    let (mut blocks, mut size) = (Vec::new(), 0);
    for offset in 0..u32::from(count) {
        let Some(height) = from.checked_add(offset) else { break };
        let (Some(certificate), Some(block)) = (store.certificate(height)?, store.block_bytes(height)?) else { break };
        size += block.len();
        if size > ANSWER_BYTES_TARGET && !blocks.is_empty() {
            break;
        }
        blocks.push(FinalBlock { certificate: certificate.into(), block: Bytes::from(block) });
    }
    Ok(blocks)
}

/// Threads that sleep while there is nothing to do, and take jobs in the order they came. (Rayon's look for work for a
/// while before they sleep, which costs the other threads of a small machine.)
#[derive(Debug)]
struct Pool(Option<Runtime>);

impl Pool {
    fn new(name: &str, threads: usize) -> std::io::Result<Self> {
        let mut builder = Builder::new_current_thread();
        builder.thread_name(name).max_blocking_threads(threads).thread_keep_alive(KEEP_IDLE);
        Ok(Self(Some(builder.build()?)))
    }

    fn spawn(&self, job: impl FnOnce() + Send + 'static) {
        let pool = self.0.as_ref().expect("it is there until the pool is dropped");
        // Whoever waits for the job hears of it in another way.
        drop(pool.spawn_blocking(job));
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(pool) = self.0.take() {
            pool.shutdown_background();
        }
    }
}

/// The way back to the node, which is told if a thread panics that holds one.
#[derive(Clone)]
pub(super) struct ToNode {
    /// What a block waits for.
    pub(super) blocks: mpsc::UnboundedSender<Result<Event, RunError>>,
    /// Checks of transactions, which wait for votes.
    pub(super) checks: mpsc::UnboundedSender<Result<Event, RunError>>,
}

impl ToNode {
    /// Whether the node still runs.
    fn send(&self, result: Result<Event, impl Into<RunError>>) -> bool {
        let lane = if matches!(result, Ok(Event::Checked { .. } | Event::PackageChecked { .. })) {
            &self.checks
        } else {
            &self.blocks
        };
        lane.send(result.map_err(Into::into)).is_ok()
    }
}

impl Drop for ToNode {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.send(Err(RunError::Died));
        }
    }
}

#[cfg(test)]
mod slow_blocks;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_takes_jobs_in_their_order() {
        let pool = Pool::new("test", 1).unwrap();
        let (done, order) = std_mpsc::channel();
        for number in 0..100 {
            let done = done.clone();
            pool.spawn(move || done.send(number).unwrap());
        }
        assert!(order.iter().take(100).eq(0..100));
    }

    #[test]
    fn the_node_hears_of_a_job_that_panics() {
        let (blocks, mut heard) = mpsc::unbounded_channel();
        let pool = Pool::new("test", 1).unwrap();
        let to_node = ToNode { blocks, checks: mpsc::unbounded_channel().0 };
        let held = to_node.clone();
        pool.spawn(move || drop(held));
        let held = to_node.clone();
        pool.spawn(move || {
            let _held = held;
            panic!("as a bug would");
        });
        assert!(matches!(heard.blocking_recv(), Some(Err(RunError::Died))));
        assert!(heard.try_recv().is_err(), "once, and not by the one that ended well");
    }

    #[tokio::test]
    async fn a_pool_may_end_where_nothing_may_wait() {
        let pool = Pool::new("test", 1).unwrap();
        let (go, wait) = std_mpsc::channel::<()>();
        pool.spawn(move || assert!(wait.recv().is_err()));
        drop(pool);
        drop(go);
    }
}
