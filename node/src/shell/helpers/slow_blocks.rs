//! A block that takes long to verify, and what comes after it.

use std::sync::OnceLock;

use bitcoin::consensus::serialize;
use bitcoin::key::UntweakedPublicKey;
use bitcoin::taproot::{LeafVersion, TaprootBuilder, TaprootSpendInfo};
use bitcoin::{Amount, BlockHash, OutPoint, ScriptBuf, Transaction, TxOut, Witness};
use causeway_chainspec::Height;
use causeway_consensus::assemble::assemble_block;
use causeway_consensus::bft::{Address, CommitCertificate, Key, ValidatorSet, Vote, VoteType};
use causeway_consensus::peg::PegContext;
use causeway_consensus::peg::propose::{Candidates, propose};
use causeway_consensus::state::StoreOptions;
use causeway_consensus::{ChainView, NotReady, check_block, connect_block, parse_block, resolve};
use tempfile::TempDir;

use super::*;
use crate::machine::Verdict;
use crate::testing::{deposits, free_script, pay};

/// How long a test waits for what has to come.
const DEADLINE: Duration = Duration::from_secs(120);

/// Threads that verify a block.
const THREADS: usize = 2;

/// Inputs of a slow block, and bytes of each script: seconds for all, and one call into Bitcoin Core's interpreter that takes
/// some tenths of a second for each.
const SLOW_INPUTS: u32 = 8;
const SLOW_SCRIPT_BYTES: usize = 400_000;

const COIN: u64 = 10_000_000;

/// A tapscript that hashes 520 bytes again and again, which no limit of Bitcoin's bounds but the size.
fn slow_leaf() -> &'static (ScriptBuf, TaprootSpendInfo) {
    static LEAF: OnceLock<(ScriptBuf, TaprootSpendInfo)> = OnceLock::new();
    LEAF.get_or_init(|| {
        // OP_DUP OP_RIPEMD160 OP_DROP
        let script = ScriptBuf::from_bytes([0x76, 0xa6, 0x75].repeat(SLOW_SCRIPT_BYTES / 3));
        let secp = bitcoin::secp256k1::SECP256K1;
        // BIP-0341's H.
        let key: UntweakedPublicKey =
            "50929b74c1a04954b78b4b6035e97a5e078a5a0f28ec96d547bfee9ace803ac0".parse().expect("a key");
        let tree = TaprootBuilder::new().add_leaf(0, script.clone()).expect("one leaf");
        (script, tree.finalize(secp, key).expect("complete"))
    })
}

/// A node's helpers on a store in which slow coins are.
struct Shell {
    helpers: Helpers,
    results: mpsc::UnboundedReceiver<Result<Event, RunError>>,
    store: Arc<Store>,
    workers: Arc<Workers>,
    coins: Vec<OutPoint>,
    /// Spends the coins.
    slow: Bytes,
    tickets: u64,
    runtime: Runtime,
    _home: TempDir,
}

impl Shell {
    fn new() -> Self {
        let (home, spec) = (TempDir::new().unwrap(), Arc::new(ChainSpec::built_in("devnet").unwrap()));
        let workers = Arc::new(Workers::new(NonZeroUsize::new(THREADS).unwrap()));
        let options = StoreOptions {
            coin_cache_bytes: 1 << 20,
            block_cache_bytes: 1 << 20,
            write_buffer_bytes: 1 << 20,
            ..StoreOptions::default()
        };
        let store = Arc::new(Store::open(home.path(), &spec, options, &workers).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let parts = Parts {
            spec: Arc::clone(&spec),
            store: Arc::clone(&store),
            workers: Arc::clone(&workers),
            scripts: Arc::new(ScriptCache::new(10)),
            bitcoin: None,
            runtime: runtime.handle().clone(),
            metrics: Metrics::new(&spec),
        };
        let (blocks, results) = mpsc::unbounded_channel();
        let results_to = ToNode { blocks: blocks.clone(), checks: blocks };
        let (helpers, _) = Helpers::start(parts, results_to).unwrap();
        let mut shell = Self {
            helpers,
            results,
            store,
            workers,
            coins: vec![],
            slow: Bytes::new(),
            tickets: 0,
            runtime,
            _home: home,
        };
        let output = TxOut {
            value: Amount::from_sat(COIN),
            script_pubkey: ScriptBuf::new_p2tr_tweaked(slow_leaf().1.output_key()),
        };
        let tip = shell.store.tip();
        for candidates in deposits(tip.peg(), tip.time(), &vec![output; SLOW_INPUTS as usize]) {
            shell.commit_peg(&spec, candidates);
        }
        shell.slow = shell.slow_block();
        shell
    }

    /// Commits a block with what the peg has to say. The credits of the last are the coins.
    fn commit_peg(&mut self, spec: &ChainSpec, candidates: Candidates) {
        let tip = self.store.tip();
        let context = PegContext { height: tip.height().next().unwrap(), time: tip.time() + 1 };
        let peg = propose(tip.peg(), context, candidates).unwrap();
        let txid = peg.compute_txid();
        self.coins = (1..=SLOW_INPUTS).map(|vout| OutPoint { txid, vout }).collect();
        let block = assemble_block(&tip, context.time, Amount::ZERO, free_script(), vec![peg]);
        let checked = check_block(parse_block(serialize(&block)).unwrap(), spec.params()).unwrap();
        let connected = connect_block(resolve(checked, &*self.store).unwrap(), &self.workers, None).unwrap();
        let certificate = certificate(spec, context.height, block.block_hash());
        self.store.commit(&connected, &certificate.encode(), CoinFlush::WithBlock).unwrap();
    }

    /// A block on the tip with these transactions, which pay nothing.
    fn block(&self, transactions: Vec<Transaction>) -> Bytes {
        let tip = self.store.tip();
        serialize(&assemble_block(&tip, tip.time() + 1, Amount::ZERO, free_script(), transactions)).into()
    }

    /// A block that spends the coins.
    fn slow_block(&self) -> Bytes {
        let mut transaction = pay(&self.coins, &[u64::from(SLOW_INPUTS) * COIN]);
        let (script, spend) = slow_leaf();
        let control = spend.control_block(&(script.clone(), LeafVersion::TapScript)).unwrap().serialize();
        for input in &mut transaction.input {
            input.witness = Witness::from_slice(&[&[1; 520][..], script.as_bytes(), &control[..]]);
        }
        self.block(vec![transaction])
    }

    fn validate(&mut self, bytes: Bytes) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.helpers.validate(ticket, ValidateJob { bytes, proof: None });
        ticket
    }

    /// Has a block without transactions judged.
    fn validate_empty(&mut self) -> Ticket {
        self.validate(self.block(vec![]))
    }

    /// Has a slow block judged, and waits until its scripts are being verified.
    fn begin_slow(&mut self) -> Ticket {
        let before = self.workers.running();
        let ticket = self.validate(self.slow.clone());
        self.wait_until(|shell| shell.workers.running() > before);
        ticket
    }

    /// Has our own block assembled.
    fn assemble(&mut self) -> Ticket {
        self.tickets += 1;
        let (ticket, parent) = (Ticket(self.tickets), self.store.tip());
        let time = parent.time() + 1;
        let job = AssembleJob { parent, time, fees: Amount::ZERO, fee_script: free_script(), transactions: vec![] };
        self.helpers.assemble(ticket, job);
        ticket
    }

    fn wait_until(&self, what: impl Fn(&Self) -> bool) {
        let since = Instant::now();
        while !what(self) {
            assert!(since.elapsed() < DEADLINE, "it does not come");
            std::thread::yield_now();
        }
    }

    /// The next verdict, and whether the block was found valid; `None` if its job was cancelled.
    fn verdict(&mut self) -> (Ticket, Option<bool>) {
        let (ticket, verdict) = loop {
            let event = self.runtime.block_on(async { tokio::time::timeout(DEADLINE, self.results.recv()).await });
            match event.expect("it comes").expect("helpers run").expect("no fault") {
                Event::Matched { .. } => {}
                Event::Validated { ticket, verdict } | Event::Assembled { ticket, verdict } => break (ticket, verdict),
                _ => panic!("a job of a block was asked for"),
            }
        };
        let valid = match verdict {
            Verdict::Valid { .. } => Some(true),
            Verdict::NotReady(NotReady::Cancelled) => None,
            _ => Some(false),
        };
        (ticket, valid)
    }
}

fn certificate(spec: &ChainSpec, height: Height, block: BlockHash) -> CommitCertificate {
    let set = ValidatorSet::new(spec.validators()).unwrap();
    let signatures = (0..3).map(|index| {
        let key = causeway_chainspec::devnet::secret_key(causeway_chainspec::devnet::VALIDATOR, index)
            .keypair(bitcoin::secp256k1::SECP256K1);
        let address: Address = Key::address(&key);
        let vote = Vote::new(VoteType::Precommit, height, 0, Some(block), address);
        (address, Key::sign(&key, &vote.digest(spec.chain_id())).unwrap())
    });
    let signatures: Vec<_> = signatures.collect();
    CommitCertificate::new(&set, height, 0, block, signatures).unwrap()
}

#[test]
fn a_block_is_judged_before_a_slow_one_that_came_earlier() {
    let mut shell = Shell::new();
    let slow = shell.begin_slow();
    let empty = shell.validate_empty();
    assert_eq!(shell.verdict(), (empty, Some(true)));
    let own = shell.assemble();
    assert_eq!(shell.verdict(), (own, Some(true)));
    // In one pool they would have come too, just before the end: when a thread found no input of the slow block to begin.
    shell.helpers.cancel(slow);
    assert_eq!(shell.verdict(), (slow, None), "inputs are left");
}

#[test]
fn many_slow_blocks_keep_no_thread_that_the_next_block_needs() {
    let mut shell = Shell::new();
    let slow: Vec<Ticket> = (0..3).map(|_| shell.begin_slow()).collect();
    let empty = shell.validate_empty();
    assert_eq!(shell.verdict(), (empty, Some(true)));
    // Every call into the interpreter ends, nothing follows it, and the threads come back.
    slow.iter().for_each(|ticket| shell.helpers.cancel(*ticket));
    let mut ended: Vec<_> = slow.iter().map(|_| shell.verdict()).collect();
    ended.sort_unstable();
    assert_eq!(ended, slow.iter().map(|ticket| (*ticket, None)).collect::<Vec<_>>());
    shell.wait_until(|shell| shell.workers.running() == 0 && shell.workers.threads() <= 2 * THREADS);
    let empty = shell.validate_empty();
    assert_eq!(shell.verdict(), (empty, Some(true)));
}

#[test]
fn a_job_that_is_cancelled_before_it_begins_looks_at_nothing() {
    let (shell, spec, cancel) = (Shell::new(), ChainSpec::built_in("devnet").unwrap(), Arc::new(Cancel::default()));
    let run = |workers: &Workers| {
        let job = ValidateJob { bytes: Bytes::from_static(b"no block"), proof: None };
        job.run(spec.params(), &*shell.store, workers, &ScriptCache::new(2), || {}).unwrap()
    };
    let workers = shell.workers.until(Arc::clone(&cancel));
    assert!(matches!(run(&workers), Verdict::Invalid(_)));
    cancel.cancel();
    assert!(matches!(run(&workers), Verdict::NotReady(NotReady::Cancelled)));
}
