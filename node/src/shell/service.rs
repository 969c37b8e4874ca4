//! A whole node, from what its home holds to an orderly end.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bitcoin::ScriptBuf;
use causeway_chainspec::ChainSpec;
use causeway_consensus::bft::{Equivocation, Guarded, Signer, ValidatorSet, ValidatorSetError};
use causeway_consensus::state::{OpenError, Store};
use causeway_consensus::{ChainView, ScriptCache, StateFault, Workers};
use causeway_federation::bitcoind::{Bitcoind, EndpointCountError};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use tokio::sync::oneshot;

use super::body_file::{BodyFile, BodyFileError};
use super::desk::{Clerk, Desk, DeskConfig, DeskError};
use super::evidence::{EvidenceFileError, EvidenceStore};
use super::index::IndexBuilder;
use super::mempool_file;
use super::p2p::{self, Direction, Limits, P2p, P2pConfig, P2pError, PeerInfo, Timing};
use super::persistence::Persistence;
use super::progress;
use super::recovery::RecoveryError;
use super::reports::log_error;
use super::run::{AskBitcoin, Disk, Parts, RunError, Running, start};
use crate::cli::run::{Prepared, Validator};
use crate::config::Config;
use crate::home::Home;
use crate::http::ListenError;
use crate::machine::{Node, Restart, Setup};
use crate::metrics::{self, Metrics, NetworkSeen};
use crate::rest::{self, peg::BitcoinSource};
use crate::wire::PUSHED_BYTES_MAX;

/// Transactions whose scripts are known to be valid: some blocks' worth.
const KNOWN_SCRIPTS: usize = 100_000;

/// Most threads that network and REST share, however many cores there are.
const IO_THREADS_MAX: usize = 4;

/// How long reading from disk may go on after the end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the table of connections is brought up to date.
const CONNECTIONS_EVERY: Duration = Duration::from_secs(2);

/// Why a node does not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The store does not open.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The store failed in the end.
    #[error(transparent)]
    State(#[from] StateFault),
    /// The node must not go on from its log.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The file of proposed blocks.
    #[error(transparent)]
    Bodies(#[from] BodyFileError),
    /// The evidence.
    #[error(transparent)]
    Evidence(#[from] EvidenceFileError),
    /// The validators of the chainspec are no set.
    #[error("the chainspec's validators cannot agree on anything: use the chainspec that the network was made with")]
    Validators(#[from] ValidatorSetError),
    /// The network.
    #[error(transparent)]
    P2p(#[from] P2pError),
    /// The list of Bitcoin nodes.
    #[error(transparent)]
    Bitcoin(#[from] EndpointCountError),
    /// What watches Bitcoin.
    #[error(transparent)]
    Desk(#[from] DeskError),
    /// REST.
    #[error(transparent)]
    Rest(#[from] rest::RestError),
    /// Metrics and health.
    #[error(transparent)]
    Metrics(#[from] ListenError),
    /// Tokio.
    #[error("the threads of the network cannot be started: raise the limit of processes of this user")]
    Runtime(#[source] std::io::Error),
    /// The node stopped by itself.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// Runs a node until `stop` is ready.
///
/// # Errors
/// It cannot start, or it stopped by itself.
pub fn serve(prepared: Prepared, stop: impl Future<Output = ()> + Send) -> Result<(), ServiceError> {
    let runtime = |name: &str, threads: usize| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(threads).thread_name(name).enable_all().build().map_err(ServiceError::Runtime)
    };
    // REST leaves half of the cores to the others, and on two its tasks wake each other cheapest on one thread.
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let main = runtime("io", (cores / 2).clamp(1, IO_THREADS_MAX))?;
    // Its tasks mostly wake each other, which costs least on one thread; and no request of REST keeps a vote waiting.
    let p2p = runtime("p2p", 1)?;
    let result = main.block_on(run(prepared, p2p.handle(), stop));
    // A reader of the disk may still be at work.
    main.shutdown_timeout(SHUTDOWN_TIMEOUT);
    p2p.shutdown_timeout(SHUTDOWN_TIMEOUT);
    result
}

async fn run(
    prepared: Prepared,
    p2p_threads: &tokio::runtime::Handle,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), ServiceError> {
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let workers = Arc::new(Workers::new(cores));
    let spec = Arc::new(prepared.chainspec.clone());
    let metrics = Metrics::new(&spec);
    let watched = watch_over(&prepared.config, &spec, &metrics).await?;
    let options = prepared.config.store_options();
    let store = Arc::new(Store::open(&prepared.home.store(), &spec, options, &workers)?);
    let tip = store.tip();
    let (log, remembered) = prepared.open_log(tip.height())?;
    let next = tip.height().next().unwrap_or(tip.height());
    let (bodies, kept) = BodyFile::open(&prepared.home.bodies(), next)?;
    let evidence = EvidenceStore::open(&prepared.home.evidence())?;
    let log_entries = remembered.filter(|(height, _)| *height == next).map(|(_, entries)| entries).unwrap_or_default();

    let policy = prepared.config.mempool_policy();
    let snapshot = if prepared.config.mempool.persist {
        mempool_file::load(&prepared.home.mempool(), policy.max_memory_bytes).unwrap_or_else(|error| {
            log_error("the mempool starts empty", &error);
            Vec::new()
        })
    } else {
        Vec::new()
    };
    let Prepared { home, config, identity, validator, fee_script, lock: _lock, .. } = prepared;
    let (mark, signer) = match validator {
        Some(Validator { key, mark }) => {
            let guarded = Guarded::new(key, mark.mark().clone()).expect("the mark was opened for this key");
            (Some(mark), Some(Box::new(guarded) as Box<dyn Signer>))
        }
        None => (None, None),
    };
    let set = ValidatorSet::new(spec.validators())?;
    let scripts = Arc::new(ScriptCache::new(KNOWN_SCRIPTS));
    let node = Node::new(Setup {
        chain: spec.chain_id(),
        params: spec.params().clone(),
        timeouts: config.timeouts(),
        policy,
        // Nobody asks a full node for a block.
        fee_script: fee_script.unwrap_or_else(ScriptBuf::new),
        // The state of every height has the chainspec's validators.
        validators: Box::new(move |_| set.clone()),
        tip,
        signer,
        restart: Restart { log: log_entries, bodies: kept },
        scripts: Arc::clone(&scripts),
        snapshot,
        seed: rand::random(),
        trusted: trusted(config.p2p.persistent_peers.iter().chain(&config.p2p.only)),
        pushed_max: PUSHED_BYTES_MAX,
    });

    let (desk, clerk) = match open_desk(&home, &config, &spec)? {
        Some((desk, clerk)) => (Some(desk), Some(clerk)),
        None => (None, None),
    };
    let (events, network) = p2p::inbox();
    let p2p = p2p_threads.spawn(p2p::start(network_config(&config, &home, identity, &spec), events));
    let (p2p, addresses) = p2p.await.map_err(|_| RunError::Died)??;
    for address in &addresses {
        tracing::info!(%address, chain = %spec.chain_id(), "listening for peers");
    }
    let bitcoin = desk.clone().map(|desk| Arc::new(desk) as Arc<dyn AskBitcoin>);
    let evidence = Arc::new(Mutex::new(evidence));
    let persistence = Persistence::new(log, mark);
    let disk = Disk { store: Arc::clone(&store), persistence, bodies, evidence: Arc::clone(&evidence) };
    let runtime = tokio::runtime::Handle::current();
    let parts = Parts {
        node,
        spec: Arc::clone(&spec),
        disk,
        workers,
        scripts,
        bitcoin,
        p2p: p2p.clone(),
        network,
        runtime,
        metrics: metrics.clone(),
    };
    let index = IndexBuilder::start(&store).map_err(RunError::Thread)?;
    let running = start(parts)?;
    let clerk = clerk.map(|clerk| AbortOnDrop(tokio::spawn(clerk.run(running.handle.clone()))));
    let mempool = config.mempool.persist.then(|| home.mempool());
    let mut node = Service { running, p2p, store, index, mempool, desk, metrics, watched };
    let served = node.serve_until(&config, spec, evidence, stop).await;
    drop(clerk);
    let ended = node.end().await;
    served?;
    ended?;
    tracing::info!("stopped; everything is on disk");
    Ok(())
}

/// A node that runs, and what it leaves behind.
struct Service {
    running: Running,
    p2p: P2p,
    store: Arc<Store>,
    index: IndexBuilder,
    /// Where the mempool is saved, if it is.
    mempool: Option<PathBuf>,
    desk: Option<Desk>,
    metrics: Metrics,
    /// What operators' machines ask, if they may.
    watched: Option<metrics::Server>,
}

impl Service {
    /// Serves REST until the node ends or `stop` is ready.
    async fn serve_until(
        &mut self,
        config: &Config,
        spec: Arc<ChainSpec>,
        evidence: Arc<Mutex<EvidenceStore>>,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<(), ServiceError> {
        let progress = AbortOnDrop(tokio::spawn(progress::show(self.running.handle.clone())));
        let connections = Connections::default();
        let table = AbortOnDrop(tokio::spawn(connections.clone().refresh(self.p2p.clone())));
        if let Some(watched) = &self.watched {
            watched.running(self.sources(&connections));
        }
        let (stop_rest, stopped) = oneshot::channel::<()>();
        let parts = rest::Parts {
            spec,
            store: Arc::clone(&self.store),
            live: self.running.handle.clone(),
            bitcoin: self.desk.clone().map(|desk| Arc::new(desk) as Arc<dyn BitcoinSource>),
            connection: Arc::new(move |peer| connections.get(peer)),
            evidence: Arc::new(move || load_evidence(&evidence)),
            meter: self.metrics.rest().clone(),
        };
        let rest = if config.rest.enabled {
            let shutdown = async move {
                // A dropped sender says the same.
                let _ = stopped.await;
            };
            let (address, server) = rest::serve(config.rest_config(), parts, shutdown).await?;
            tracing::info!(%address, "REST");
            Some(tokio::spawn(server))
        } else {
            None
        };
        tokio::select! {
            () = self.running.ended() => {}
            () = stop => tracing::info!("stopping"),
        }
        if let Some(watched) = &self.watched {
            watched.stopping();
        }
        drop((progress, table, stop_rest));
        if let Some(rest) = rest {
            // It ends in a few seconds; if it failed, there is nothing left to stop.
            let _ = rest.await;
        }
        if let Some(watched) = self.watched.take() {
            watched.end().await;
        }
        Ok(())
    }

    fn sources(&self, connections: &Connections) -> metrics::Sources {
        let (connections, p2p) = (connections.clone(), self.p2p.clone());
        metrics::Sources {
            node: self.running.handle.clone(),
            store: Arc::clone(&self.store),
            bitcoin: self.desk.clone().map(|desk| Arc::new(desk) as Arc<dyn BitcoinSource>),
            network: Arc::new(move || {
                let (inbound, outbound) = connections.count();
                let lost = p2p.lost();
                NetworkSeen { inbound, outbound, lost_commands: lost.commands, lost_gossip: lost.gossip }
            }),
        }
    }

    /// Stops the node and leaves everything on disk.
    async fn end(self) -> Result<(), ServiceError> {
        let Self { running, p2p, store, index, mempool, desk: _, metrics: _, watched: _ } = self;
        // Their threads may be waiting for the disk.
        let stop = move || {
            let node = running.stop();
            index.stop();
            node
        };
        let ended = tokio::task::spawn_blocking(stop).await.map_err(|_| RunError::Died)?;
        p2p.shutdown();
        let node = ended?;
        if let Some(path) = mempool
            && let Err(error) = mempool_file::save(&path, node.mempool())
        {
            log_error("the mempool is not saved", &error);
        }
        store.flush_coins()?;
        Ok(())
    }
}

/// Metrics and health, if the settings want them.
async fn watch_over(
    config: &Config,
    spec: &ChainSpec,
    metrics: &Metrics,
) -> Result<Option<metrics::Server>, ServiceError> {
    if !config.metrics.enabled {
        return Ok(None);
    }
    let interval = Duration::from_millis(spec.params().block_interval_ms.into());
    let server = metrics::Server::start(config.metrics.bind, metrics.clone(), interval).await?;
    tracing::info!(address = %server.address(), "metrics and health");
    Ok(Some(server))
}

/// The desk, if the settings name a Bitcoin node.
fn open_desk(home: &Home, config: &Config, spec: &ChainSpec) -> Result<Option<(Desk, Clerk)>, ServiceError> {
    let Some(bitcoin) = &config.bitcoin else {
        tracing::warn!(
            "no Bitcoin node is configured: this node verifies the peg, and neither votes on deposits nor takes them"
        );
        return Ok(None);
    };
    let client = Bitcoind::new(bitcoin.client(spec.bitcoin().network()))?;
    let settings = DeskConfig {
        watcher: home.bitcoin(),
        book: home.deposits(),
        poll: bitcoin.poll(),
        header_delay: bitcoin.header_delay(),
    };
    Ok(Some(Desk::open(client, spec, settings)?))
}

fn load_evidence(evidence: &Mutex<EvidenceStore>) -> Vec<Equivocation> {
    let evidence = evidence.lock().unwrap_or_else(PoisonError::into_inner);
    let load = |name| evidence.load(name).inspect_err(|error| log_error("a proof cannot be read", error)).ok();
    evidence.list().filter_map(load).collect()
}

/// How the peers are connected, as of a moment ago.
#[derive(Clone, Default)]
struct Connections(Arc<Mutex<HashMap<PeerId, rest::Connection>>>);

impl Connections {
    fn get(&self, peer: &PeerId) -> Option<rest::Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(peer).cloned()
    }

    /// Peers that called this node, and peers that it called.
    fn count(&self) -> (usize, usize) {
        let connections = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let inbound = connections.values().filter(|it| it.direction == rest::Direction::Inbound).count();
        (inbound, connections.len() - inbound)
    }

    async fn refresh(self, p2p: P2p) {
        loop {
            let connection = |info: PeerInfo| {
                let direction = match info.direction {
                    Direction::Inbound => rest::Direction::Inbound,
                    Direction::Outbound => rest::Direction::Outbound,
                };
                (info.peer, rest::Connection { address: info.address, direction })
            };
            let peers = p2p.peers().await.into_iter().map(connection).collect();
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = peers;
            tokio::time::sleep(CONNECTIONS_EVERY).await;
        }
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The peers that these addresses name.
fn trusted<'a>(addresses: impl Iterator<Item = &'a Multiaddr>) -> BTreeSet<PeerId> {
    let name = |part| if let Protocol::P2p(peer) = part { Some(peer) } else { None };
    addresses.filter_map(|address| address.iter().find_map(name)).collect()
}

fn network_config(config: &Config, home: &Home, identity: Keypair, spec: &ChainSpec) -> P2pConfig {
    let p2p = &config.p2p;
    let defaults = Limits::default();
    let (max, outbound) = (p2p.max_connections, p2p.outbound.min(p2p.max_connections));
    let per_ip = usize::try_from(p2p.max_connections_per_address).unwrap_or(usize::MAX);
    let limits = Limits {
        connections: max,
        inbound: max - outbound,
        outbound,
        outbound_wanted: usize::try_from(outbound).unwrap_or(usize::MAX),
        per_ip,
        per_loopback_ip: defaults.per_loopback_ip.max(per_ip),
        validators: u32::try_from(spec.validators().len()).unwrap_or(u32::MAX),
        ..defaults
    };
    P2pConfig {
        identity,
        chain: spec.chain_id(),
        listen: p2p.listen.clone(),
        external: p2p.external.clone(),
        seeds: p2p.seeds.clone(),
        persistent: p2p.persistent_peers.clone(),
        only: p2p.only.clone(),
        book: Some(home.peers()),
        limits,
        timing: Timing::default(),
    }
}
