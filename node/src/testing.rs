//! A chain in memory, coins that anyone can spend in standard ways, and the whole way of a transaction into a block.

mod deposits;

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::sync::Arc;

use bitcoin::absolute::LockTime;
use bitcoin::consensus::serialize;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::SECP256K1;
use bitcoin::transaction::Version;
use bitcoin::{Amount, BlockHash, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use bytes::Bytes;
use causeway_chainspec::{ChainSpec, Height, LAST_DERIVED_HEIGHT, devnet};
use causeway_consensus::assemble::assemble_block;
use causeway_consensus::bft::{CommitCertificate, Key, LinearTimeouts, ValidatorSet, Vote, VoteType};
use causeway_consensus::{
    Block, ChainView, Coin, ScriptCache, StateFault, Tip, Workers, check_block, connect_block, parse_block, resolve,
};

use crate::assemble::{BlockRoom, Selection, select};
use crate::machine::{Restart, Setup};
use crate::mempool::{
    CheckError, Checked, Departed, Mempool, Outcome, Package, PackageResult, Policy, Reject, Submission, TipFacts, Turn,
};
use crate::wire::{BLOCK_BYTES_MAX, FinalBlock, PUSHED_BYTES_MAX};

pub(crate) use deposits::{burial, deposit_fee, deposits};

/// What a coin of [`Bench::coin`] is worth.
pub(crate) const COIN: u64 = 1_000_000;

/// Unix time at which tests begin.
pub(crate) const START_S: u64 = 1_800_000_000;

/// A final state held in maps.
#[derive(Clone)]
pub(crate) struct Chain {
    pub(crate) spec: ChainSpec,
    pub(crate) tip: Arc<Tip>,
    pub(crate) coins: HashMap<OutPoint, Coin>,
    median_times: Vec<u32>,
}

impl ChainView for Chain {
    fn tip(&self) -> Arc<Tip> {
        Arc::clone(&self.tip)
    }

    fn coins(&self, outpoints: &[OutPoint]) -> Result<Vec<Option<Coin>>, StateFault> {
        Ok(outpoints.iter().map(|outpoint| self.coins.get(outpoint).cloned()).collect())
    }

    fn median_times(&self, heights: &[Height]) -> Result<Vec<u32>, StateFault> {
        Ok(heights.iter().map(|height| self.median_times[height.to_u32() as usize]).collect())
    }
}

/// A full node on a tip of this chain, without a past.
pub(crate) fn setup(spec: &ChainSpec, tip: &Arc<Tip>) -> Setup {
    let set = ValidatorSet::new(spec.validators()).expect("the chainspec's");
    Setup {
        chain: spec.chain_id(),
        params: spec.params().clone(),
        timeouts: LinearTimeouts::default(),
        policy: Policy::default(),
        fee_script: free_script(),
        validators: Box::new(move |_| set.clone()),
        tip: Arc::clone(tip),
        signer: None,
        restart: Restart::default(),
        scripts: Arc::new(ScriptCache::new(1_000)),
        snapshot: Vec::new(),
        seed: [0; 32],
        trusted: BTreeSet::new(),
        pushed_max: PUSHED_BYTES_MAX,
    }
}

impl Chain {
    /// The devnet after its derived blocks.
    pub(crate) fn new() -> Self {
        let spec = ChainSpec::built_in("devnet").expect("built in");
        let (tip, coins) = Tip::after_derived_blocks(&spec);
        // The derived blocks are one second apart, so the median of eleven is the time five blocks ago; only relative
        // locks by time look here, and only differences count.
        let last = tip.time();
        let median_times = (0..=LAST_DERIVED_HEIGHT.to_u32()).map(|height| last - 105 + height).collect();
        Self { spec, tip: Arc::new(tip), coins: coins.into_iter().collect(), median_times }
    }

    /// Takes a block through every stage, with and without known scripts, and makes it the tip.
    pub(crate) fn accept(&mut self, bytes: &[u8], known: &ScriptCache) -> Block {
        let workers = Workers::new(NonZeroUsize::MIN);
        let connect = |known| {
            let checked = check_block(parse_block(bytes.to_vec()).expect("parses"), self.spec.params()).expect("right");
            connect_block(resolve(checked, self).expect("resolves"), &workers, known).expect("connects")
        };
        let connected = connect(None);
        assert_eq!(connect(Some(known)).delta(), connected.delta());
        for (outpoint, coin) in &connected.delta().created {
            self.coins.insert(*outpoint, coin.clone());
        }
        for (outpoint, _) in &connected.delta().spent {
            self.coins.remove(outpoint);
        }
        self.tip = Arc::clone(connected.tip());
        self.median_times.push(self.tip.median_time_past());
        connected.block().clone()
    }
}

/// A chain, a pool on it, and the time.
pub(crate) struct Bench {
    pub(crate) chain: Chain,
    pub(crate) pool: Mempool,
    pub(crate) now_s: u64,
    coins: u32,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(Policy::default())
    }

    pub(crate) fn with(policy: Policy) -> Self {
        Self::on(Chain::new(), policy)
    }

    pub(crate) fn on(chain: Chain, policy: Policy) -> Self {
        let scripts = Arc::new(ScriptCache::new(10_000));
        let pool = Mempool::new(policy, chain.spec.params().clone(), TipFacts::of(&chain.tip), scripts);
        Self { chain, pool, now_s: START_S, coins: 0 }
    }

    /// Adds a coin to the chain.
    pub(crate) fn put(&mut self, coin: Coin) -> OutPoint {
        self.coins += 1;
        let txid = Txid::from_byte_array(sha256::Hash::hash(&self.coins.to_le_bytes()).to_byte_array());
        let outpoint = OutPoint { txid, vout: self.coins % 3 };
        self.chain.coins.insert(outpoint, coin);
        outpoint
    }

    /// Adds an output of height 1 to the chain.
    pub(crate) fn put_output(&mut self, output: TxOut) -> OutPoint {
        self.put(Coin { output, height: Height(1), coinbase: false })
    }

    /// Adds a coin of [`COIN`] that anyone can spend.
    pub(crate) fn coin(&mut self) -> OutPoint {
        self.put_output(free_output(COIN))
    }

    /// Goes through the whole check up to its last step.
    pub(crate) fn check(&self, transaction: &Transaction) -> Result<Checked, Reject> {
        let request = self.pool.begin(transaction.clone(), self.now_s)?;
        request.resolve(&self.chain).and_then(|job| job.run()).map_err(rejected)
    }

    /// Goes the whole way into the pool.
    pub(crate) fn submit(&mut self, transaction: &Transaction) -> Result<Vec<Departed>, Reject> {
        let mut checked = self.check(transaction)?;
        loop {
            let finish = self.pool.finish(checked, self.now_s);
            match finish.outcome {
                Outcome::Accepted { txid, .. } => {
                    assert_eq!(txid, transaction.compute_txid());
                    return Ok(finish.departed);
                }
                Outcome::Rejected(reject) => return Err(reject),
                Outcome::Again(request) => {
                    checked = request.resolve(&self.chain).and_then(|job| job.run()).map_err(rejected)?;
                }
            }
        }
    }

    /// Goes the whole way of a package into the pool.
    pub(crate) fn submit_package(&mut self, transactions: &[&Transaction]) -> PackageResult {
        let transactions = transactions.iter().map(|transaction| Arc::new((*transaction).clone())).collect();
        let package = Package::new(transactions).expect("a child with its parents");
        let mut submission = Submission::new(&package, None, self.now_s);
        let mut turn = submission.step(&self.pool, self.now_s);
        loop {
            match turn {
                Turn::Check(check) | Turn::Again(check) => {
                    let answer = check.run(&self.chain).expect("maps do not fail");
                    turn = submission.answered(&mut self.pool, answer, self.now_s, &mut Vec::new());
                }
                Turn::Done(result) => return result,
            }
        }
    }

    /// Submits what has to be accepted and replaces nothing. Returns its first output.
    pub(crate) fn add(&mut self, transaction: &Transaction) -> OutPoint {
        assert_eq!(self.submit(transaction).expect("accepted"), []);
        first_output(transaction)
    }

    /// The reason of the refusal of a transaction, and its whole message.
    pub(crate) fn refusal(&mut self, transaction: &Transaction) -> (String, String) {
        let reject = self.submit(transaction).expect_err("refused");
        assert!(reject.to_string().starts_with(reject.reason().as_ref()));
        (reject.reason().into_owned(), reject.to_string())
    }

    /// The reason of the refusal of a transaction.
    pub(crate) fn reason(&mut self, transaction: &Transaction) -> String {
        self.refusal(transaction).0
    }

    /// Room for the transactions of a block that pays [`free_script`].
    pub(crate) fn room(&self) -> BlockRoom {
        BlockRoom::beside(&free_script(), None, BLOCK_BYTES_MAX)
    }

    /// Commits the block of a selection and tells the pool.
    pub(crate) fn commit(&mut self, selection: Selection) -> Vec<Departed> {
        let time = (self.chain.tip.time() + 1).max(self.chain.tip.median_time_past() + 1);
        let block = assemble_block(&self.chain.tip, time, selection.fees, free_script(), selection.transactions);
        let block = self.chain.accept(&serialize(&block), self.pool.scripts());
        self.pool.connected(&block, &self.chain.tip, self.now_s)
    }

    /// Commits a block with these transactions, which pay `fees` together, whatever the pool holds.
    pub(crate) fn commit_transactions(&mut self, transactions: Vec<Transaction>, fees: u64) -> Vec<Departed> {
        let selection = Selection { transactions, fees: Amount::from_sat(fees), ..Selection::nothing() };
        self.commit(selection)
    }

    /// Commits the block that the pool gives.
    pub(crate) fn mine(&mut self) -> Vec<Departed> {
        let selection = select(&self.pool, &self.room());
        self.commit(selection)
    }
}

fn rejected(error: CheckError) -> Reject {
    match error {
        CheckError::Rejected(reject) => reject,
        CheckError::Fault(fault) => panic!("{fault}"),
    }
}

/// What a peer might send as a final block: any bytes, with a certificate that can be read and proves something else.
pub(crate) fn fetched(spec: &ChainSpec, height: Height, block: &'static [u8]) -> FinalBlock {
    let hash = BlockHash::from_byte_array([7; 32]);
    let set = ValidatorSet::new(spec.validators()).expect("a set");
    let signatures = (0..3).map(|index| {
        let key = devnet::secret_key(devnet::VALIDATOR, index).keypair(SECP256K1);
        let vote = Vote::new(VoteType::Precommit, height, 0, Some(hash), Key::address(&key));
        (Key::address(&key), Key::sign(&key, &vote.digest(spec.chain_id())).expect("a signature"))
    });
    let certificate = CommitCertificate::new(&set, height, 0, hash, signatures).expect("of the set");
    FinalBlock { certificate: certificate.encode().into(), block: Bytes::from_static(block) }
}

/// P2WSH of a script that is always true.
pub(crate) fn free_script() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x51]).to_p2wsh()
}

/// An output that anyone can spend.
pub(crate) fn free_output(sat: u64) -> TxOut {
    TxOut { value: Amount::from_sat(sat), script_pubkey: free_script() }
}

/// An input that spends an output of [`free_script`].
pub(crate) fn free_input(previous_output: OutPoint) -> TxIn {
    TxIn {
        previous_output,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::from_slice(&[[0x51]]),
    }
}

/// The transaction (version 2, no lock) that spends outputs of [`free_script`] to others.
pub(crate) fn pay(inputs: &[OutPoint], outputs: &[u64]) -> Transaction {
    let input = inputs.iter().map(|outpoint| free_input(*outpoint)).collect();
    let output = outputs.iter().map(|sat| free_output(*sat)).collect();
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input, output }
}

/// The same with an OP_RETURN output of `bytes` bytes, all pushes.
pub(crate) fn pay_padded(inputs: &[OutPoint], outputs: &[u64], bytes: usize) -> Transaction {
    let mut transaction = pay(inputs, outputs);
    let mut script = vec![0x51; bytes];
    script[0] = 0x6a;
    transaction.output.push(TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(script) });
    transaction
}

/// A pay-to-anchor output (BIP-0433).
pub(crate) fn anchor(sat: u64) -> TxOut {
    TxOut { value: Amount::from_sat(sat), script_pubkey: ScriptBuf::from_bytes(vec![0x51, 2, 0x4e, 0x73]) }
}

/// A transaction of version 3 that spends a coin of [`Bench::coin`] for `fee` and has an anchor without value as its second
/// output: what closes a Lightning channel.
pub(crate) fn commitment(coin: OutPoint, fee: u64) -> Transaction {
    let mut transaction = Transaction { version: Version(3), ..pay(&[coin], &[COIN - fee]) };
    transaction.output.push(anchor(0));
    transaction
}

/// A transaction of version 3 that spends the anchor of a [`commitment`] and a coin of [`Bench::coin`], for `fee`.
pub(crate) fn bump(parent: &Transaction, coin: OutPoint, fee: u64) -> Transaction {
    let anchor = OutPoint { vout: 1, ..first_output(parent) };
    let mut transaction = Transaction { version: Version(3), ..pay(&[anchor, coin], &[COIN - fee]) };
    transaction.input[0].witness = Witness::new();
    transaction
}

pub(crate) fn first_output(transaction: &Transaction) -> OutPoint {
    OutPoint { txid: transaction.compute_txid(), vout: 0 }
}

/// The virtual size of a transaction without costly signature operations.
pub(crate) fn vsize(transaction: &Transaction) -> u64 {
    transaction.vsize() as u64
}
