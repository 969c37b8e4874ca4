//! A server over a store with some blocks, and a double of the running node.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard};

use bitcoin::consensus::serialize;
use bitcoin::secp256k1::{Message, SECP256K1};
use bitcoin::{Amount, Block, BlockHash, OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use causeway_chainspec::{BitcoinHeight, ChainSpec, Height, SatPerKvb, devnet};
use causeway_consensus::assemble::assemble_block;
use causeway_consensus::bft::{Address, CommitCertificate, Equivocation, Signature, ValidatorSet, Vote, VoteType};
use causeway_consensus::peg::PegContext;
use causeway_consensus::peg::evidence::PegIn;
use causeway_consensus::peg::propose::{Candidates, propose};
use causeway_consensus::state::{CoinFlush, Index, Store, StoreOptions};
use causeway_consensus::{
    ChainView, ConnectedBlock, ScriptCache, Workers, check_block, connect_block, parse_block, resolve,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};

use crate::machine::claims::{ClaimRefusal, Claimed};
use crate::machine::{PeerStatus, Status};
use crate::mempool::{
    CheckError, Mempool, NotYet, Outcome, Package, PackageResult, Policy, Reject, Submission, TipFacts, Turn,
};
use crate::rest::peg::Source;
use crate::rest::server::Times;
use crate::rest::{Config, Connection, Live, Parts, RestError, serve, serve_within};
use crate::shell::Stopped;
use crate::testing::{START_S, deposits, first_output, free_output, free_script, pay};

/// How many coins block 102 credits.
pub(super) const COINS: u32 = 40;

/// What each is worth.
pub(super) const COIN: u64 = 10_000_000;

/// The running node, as REST knows it.
#[derive(Clone)]
pub(super) struct Double {
    node: Arc<Mutex<Inside>>,
    /// While false, nobody is told the status.
    pub(super) talks: watch::Sender<bool>,
    /// How many have asked for the status.
    pub(super) asked: watch::Sender<usize>,
}

pub(super) struct Inside {
    store: Arc<Store>,
    pub(super) pool: Mempool,
    pub(super) peers: Vec<PeerStatus>,
    pub(super) sync_target: Option<Height>,
    pub(super) stopped: bool,
    pub(super) evidence: Vec<Equivocation>,
}

impl Double {
    pub(super) fn node(&self) -> MutexGuard<'_, Inside> {
        self.node.lock().unwrap()
    }

    fn ask<T>(&self, question: impl FnOnce(&mut Inside) -> T) -> Result<T, Stopped> {
        let mut node = self.node();
        if node.stopped { Err(Stopped) } else { Ok(question(&mut node)) }
    }
}

impl Inside {
    fn submit(&mut self, transaction: Transaction) -> Result<Txid, Reject> {
        let check = |request: crate::mempool::CoinRequest| {
            request.resolve(&*self.store).and_then(|job| job.run()).map_err(|error| match error {
                CheckError::Rejected(reject) => reject,
                CheckError::Fault(fault) => panic!("{fault}"),
            })
        };
        let checked = check(self.pool.begin(transaction, START_S)?)?;
        match self.pool.finish(checked, START_S).outcome {
            Outcome::Accepted { txid, .. } => Ok(txid),
            Outcome::Rejected(reject) => Err(reject),
            Outcome::Again(_) => panic!("the tip does not move meanwhile"),
        }
    }
}

impl Inside {
    fn submit_package(&mut self, package: &Package, max_feerate: Option<SatPerKvb>) -> PackageResult {
        let mut submission = Submission::new(package, max_feerate, START_S);
        let mut turn = submission.step(&self.pool, START_S);
        loop {
            match turn {
                Turn::Check(check) | Turn::Again(check) => {
                    let answer = check.run(&*self.store).unwrap();
                    turn = submission.answered(&mut self.pool, answer, START_S, &mut Vec::new());
                }
                Turn::Done(result) => return result,
            }
        }
    }
}

impl Live for Double {
    async fn submit(&self, transaction: Transaction) -> Result<Result<Txid, Reject>, Stopped> {
        self.ask(|node| node.submit(transaction))
    }

    async fn submit_package(
        &self,
        package: Package,
        max_feerate: Option<SatPerKvb>,
    ) -> Result<Result<PackageResult, NotYet>, Stopped> {
        self.ask(|node| Ok(node.submit_package(&package, max_feerate)))
    }

    async fn status(&self) -> Result<Status, Stopped> {
        self.asked.send_modify(|asked| *asked += 1);
        self.talks.subscribe().wait_for(|talks| *talks).await.map_err(|_| Stopped)?;
        self.ask(|node| {
            let tip = node.store.tip();
            Status {
                height: tip.height(),
                hash: tip.hash(),
                time: tip.time(),
                round: 2,
                sync_target: node.sync_target,
                validator: None,
                peers: node.peers.len(),
                awaits_tips: false,
                mempool_transactions: node.pool.len(),
                mempool_vsize: node.pool.vsize(),
            }
        })
    }

    async fn claim(&self, peg_in: PegIn) -> Result<Result<Claimed, ClaimRefusal>, Stopped> {
        self.ask(|_| Ok(Claimed { outpoint: peg_in.outpoint(), waits: None }))
    }

    async fn claim_height(&self, _: OutPoint) -> Result<Option<BitcoinHeight>, Stopped> {
        self.ask(|_| None)
    }

    async fn peers(&self) -> Result<Vec<PeerStatus>, Stopped> {
        self.ask(|node| node.peers.clone())
    }

    async fn pool<T: Send + 'static>(&self, look: impl FnOnce(&Mempool) -> T + Send + 'static) -> Result<T, Stopped> {
        self.ask(|node| look(&node.pool))
    }
}

/// A server with all that stands behind it.
pub(super) struct Site {
    pub(super) address: SocketAddr,
    pub(super) store: Arc<Store>,
    pub(super) node: Double,
    /// The blocks above the derived ones.
    pub(super) blocks: Vec<Block>,
    pub(super) runtime: Runtime,
    pub(super) stop: Option<oneshot::Sender<()>>,
    pub(super) server: Option<tokio::task::JoinHandle<()>>,
    _home: TempDir,
}

/// An answer as a client sees it.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) status: i32,
    pub(super) body: Vec<u8>,
    pub(super) headers: std::collections::HashMap<String, String>,
}

impl Seen {
    pub(super) fn of(request: minreq::Request) -> Self {
        let response = request.with_timeout(60).send().unwrap();
        let (status, headers) = (response.status_code, response.headers.clone());
        Self { status, headers, body: response.into_bytes() }
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(super) fn json(&self) -> Value {
        assert_eq!((self.status, self.headers["content-type"].as_str()), (200, "application/json"), "{}", self.text());
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The status and the code of an error under `/v1`.
    pub(super) fn problem(&self) -> (i32, String) {
        assert_eq!(self.headers["content-type"], "application/json", "{}", self.text());
        let problem: Value = serde_json::from_slice(&self.body).unwrap();
        for part in ["message", "hint"] {
            assert!(problem[part].as_str().is_some_and(|text| !text.is_empty()), "{problem}");
        }
        assert_eq!(problem.as_object().unwrap().len(), 3, "{problem}");
        (self.status, problem["code"].as_str().unwrap().to_owned())
    }

    pub(super) fn keep(&self) -> &str {
        &self.headers["cache-control"]
    }
}

pub(super) fn spec() -> ChainSpec {
    ChainSpec::built_in("devnet").unwrap()
}

impl Site {
    /// A server over the derived blocks, a block 101 with Bitcoin's headers, a block 102 that credits [`COINS`] free coins,
    /// and nothing else.
    pub(super) fn new() -> Self {
        Self::with(Times::default(), Index::All)
    }

    /// The same in other times, with or without the indexes.
    pub(super) fn with(times: Times, index: Index) -> Self {
        Self::beside(None, times, index)
    }

    /// The same of a node that has this Bitcoin node.
    pub(super) fn beside(bitcoin: Source, times: Times, index: Index) -> Self {
        let home = TempDir::new().unwrap();
        let spec = spec();
        let options = StoreOptions {
            coin_cache_bytes: 1 << 20,
            block_cache_bytes: 1 << 20,
            write_buffer_bytes: 1 << 20,
            index,
            ..StoreOptions::default()
        };
        let store = Arc::new(Store::open(home.path(), &spec, options, &workers()).unwrap());
        let scripts = Arc::new(ScriptCache::new(1_000));
        let pool = Mempool::new(Policy::default(), spec.params().clone(), TipFacts::of(&store.tip()), scripts);
        let inside = Inside {
            store: Arc::clone(&store),
            pool,
            peers: vec![],
            sync_target: None,
            stopped: false,
            evidence: vec![],
        };
        let node = Double {
            node: Arc::new(Mutex::new(inside)),
            talks: watch::Sender::new(true),
            asked: watch::Sender::new(0),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async move { stopped.await.unwrap_or_default() };
        let parts = Parts { bitcoin, ..parts(&store, &node) };
        let config = config(([127, 0, 0, 1], 0).into());
        let (address, server) = runtime.block_on(serve_within(times, config, parts, shutdown)).unwrap();
        let server = Some(runtime.spawn(server));
        let mut site = Self { address, store, node, blocks: vec![], runtime, stop: Some(stop), server, _home: home };
        let tip = site.store.tip();
        for candidates in deposits(tip.peg(), tip.time(), &vec![free_output(COIN); COINS as usize]) {
            site.commit_peg(candidates);
        }
        site
    }

    /// Commits a block with what the peg has to say, and tells the mempool.
    pub(super) fn commit_peg(&mut self, candidates: Candidates) {
        let tip = self.store.tip();
        let context = PegContext { height: tip.height().next().unwrap(), time: tip.time() + 1 };
        let peg = propose(tip.peg(), context, candidates).unwrap();
        let connected = self.commit_block(Amount::ZERO, vec![peg]);
        self.node.node().pool.connected(connected.block(), connected.tip(), START_S);
    }

    /// Commits a block of another site, and tells the mempool.
    pub(super) fn adopt(&mut self, block: Block) {
        let connected = self.commit_whole(block);
        self.node.node().pool.connected(connected.block(), connected.tip(), START_S);
    }

    /// Commits a block with these transactions, which pay 1,000 sat each, and tells the mempool.
    pub(super) fn commit(&mut self, transactions: Vec<Transaction>) -> BlockHash {
        let connected = self.commit_unnoticed(transactions);
        self.node.node().pool.connected(connected.block(), connected.tip(), START_S);
        connected.tip().hash()
    }

    /// The same, and the mempool does not know of it yet.
    pub(super) fn commit_unnoticed(&mut self, transactions: Vec<Transaction>) -> ConnectedBlock {
        let fees = Amount::from_sat(1_000) * transactions.len() as u64;
        self.commit_block(fees, transactions)
    }

    fn commit_block(&mut self, fees: Amount, transactions: Vec<Transaction>) -> ConnectedBlock {
        let tip = self.store.tip();
        self.commit_whole(assemble_block(&tip, tip.time() + 1, fees, free_script(), transactions))
    }

    fn commit_whole(&mut self, block: Block) -> ConnectedBlock {
        let checked = check_block(parse_block(serialize(&block)).unwrap(), spec().params()).unwrap();
        let connected = connect_block(resolve(checked, &*self.store).unwrap(), &workers(), None).unwrap();
        let height = connected.tip().height();
        self.store.commit(&connected, &certificate(height, block.block_hash()).encode(), CoinFlush::WithBlock).unwrap();
        self.blocks.push(block);
        connected
    }

    /// A free coin of block 102, by its number below [`COINS`].
    pub(super) fn coin(&self, number: u32) -> OutPoint {
        OutPoint { txid: self.blocks[1].txdata[1].compute_txid(), vout: 1 + number }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(super) fn get(&self, path: &str) -> Seen {
        Seen::of(minreq::get(self.url(path)))
    }

    pub(super) fn post(&self, path: &str, body: impl Into<Vec<u8>>) -> Seen {
        Seen::of(minreq::post(self.url(path)).with_body(body))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // Whoever still waits for the status is let go.
        self.node.talks.send_replace(true);
    }
}

pub(super) fn parts(store: &Arc<Store>, node: &Double) -> Parts<Double> {
    let keeper = node.clone();
    Parts {
        spec: Arc::new(spec()),
        store: Arc::clone(store),
        live: node.clone(),
        bitcoin: None,
        connection: Arc::new(|_| {
            let address = "/ip4/10.0.0.1/tcp/4000".parse().unwrap();
            Some(Connection { address, direction: crate::rest::Direction::Inbound })
        }),
        evidence: Arc::new(move || keeper.node().evidence.clone()),
        meter: crate::rest::Meter::default(),
    }
}

pub(super) fn config(bind: SocketAddr) -> Config {
    Config { bind, max_connections: 512, max_connections_per_address: 64 }
}

/// Where a second server would listen on the same address.
pub(super) fn serve_again(site: &Site) -> RestError {
    let again =
        site.runtime.block_on(serve(config(site.address), parts(&site.store, &site.node), std::future::pending()));
    again.err().unwrap()
}

fn workers() -> Workers {
    Workers::new(NonZeroUsize::MIN)
}

/// A certificate of three of the devnet's validators.
pub(super) fn certificate(height: Height, block: BlockHash) -> CommitCertificate {
    let set = ValidatorSet::new(spec().validators()).unwrap();
    let signatures = (0..3).map(|index| {
        let keypair = devnet::secret_key(devnet::VALIDATOR, index).keypair(SECP256K1);
        let address = Address::from(&keypair.x_only_public_key().0);
        let vote = Vote::new(VoteType::Precommit, height, 1, Some(block), address);
        let digest = Message::from_digest(vote.digest(spec().chain_id()));
        (address, Signature(SECP256K1.sign_schnorr_no_aux_rand(&digest, &keypair).serialize()))
    });
    let signatures: Vec<_> = signatures.collect();
    CommitCertificate::new(&set, height, 1, block, signatures).unwrap()
}

/// A payment of a free coin to one output, for a fee of 1,000 sat.
pub(super) fn payment(coin: OutPoint) -> Transaction {
    pay(&[coin], &[COIN - 1_000])
}

/// A chain of payments, each of the one before.
pub(super) fn payments(coin: OutPoint, count: u64) -> Vec<Transaction> {
    let mut coin = coin;
    let pay_on = |step: u64| {
        let transaction = pay(&[coin], &[COIN - 1_000 * step]);
        coin = first_output(&transaction);
        transaction
    };
    (1..=count).map(pay_on).collect()
}

/// An output with a script.
pub(super) fn output(script_pubkey: ScriptBuf, sat: u64) -> TxOut {
    TxOut { value: Amount::from_sat(sat), script_pubkey }
}
