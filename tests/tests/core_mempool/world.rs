//! A real Bitcoin Core and a chain of ours in memory with the same coins.

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::transaction::Version;
use bitcoin::{Address, Amount, Block, Network, OutPoint, Sequence, Transaction, TxIn, Txid};
use causeway_chainspec::Height;
use causeway_consensus::ChainView;
use causeway_consensus::{Coin, ScriptCache, Tip};
use causeway_node::mempool::{
    CheckError, Mempool, Outcome, Package, PackageResult, Policy, Reject, Submission, TipFacts, Turn,
};
use causeway_tests::bitcoind::Bitcoind;
use causeway_tests::chain::MemoryChain;
use causeway_tests::draft::devnet;
use causeway_tests::wallet::{Kind, Owner, Spendable, output, sign_all};
use serde_json::Value;

/// What each coin is worth.
pub(crate) const COIN: Amount = Amount::from_sat(1_000_000);

/// Coins that one transaction makes.
const COINS_AT_ONCE: usize = 400;

/// Blocks until the first coinbase may be spent, and some more of them.
const FIRST_BLOCKS: usize = 100 + 120;

/// Unix time of our pool.
const NOW_S: u64 = 1_800_000_000;

/// Histories after which Core's mempool is emptied by a block.
const MINE_EVERY: u64 = 50;

/// Both sides.
pub(crate) struct World {
    core: Bitcoind,
    chain: MemoryChain,
    owner: Owner,
    kinds: &'static [Kind],
    /// Coinbases of Core's that were not spent.
    coinbases: Vec<Spendable>,
    /// Coins on both sides that no history has had.
    coins: Vec<Spendable>,
    histories: u64,
}

impl World {
    /// Both sides with coins of these kinds.
    pub(crate) fn new(kinds: &'static [Kind]) -> Self {
        let core = Bitcoind::start_with(&["-acceptnonstdtxn=0", "-persistmempool=0"]);
        let owner = Owner::new(11);
        let script = owner.script_pubkey(Kind::P2wpkh);
        let address = Address::from_script(&script, Network::Regtest).unwrap().to_string();
        let hashes = core.call("generatetoaddress", &[&FIRST_BLOCKS.to_string(), &address]);
        let hashes = &hashes.as_array().unwrap()[..FIRST_BLOCKS - 100];
        let coinbase = |hash: &Value| {
            let block = core.call("getblock", &[hash.as_str().unwrap(), "0"]);
            let block: Block = deserialize_hex(block.as_str().unwrap()).unwrap();
            let outpoint = OutPoint { txid: block.txdata[0].compute_txid(), vout: 0 };
            let output = block.txdata[0].output[0].clone();
            Spendable { outpoint, output, owner: owner.clone(), kind: Kind::P2wpkh }
        };
        let coinbases = hashes.iter().map(coinbase).collect();
        Self { coinbases, core, chain: devnet(), owner, kinds, coins: Vec::new(), histories: 0 }
    }

    /// Starts a history: an empty pool of ours, and so many coins that nobody has touched.
    pub(crate) fn history(&mut self, coins: usize) -> (Pool, Vec<Spendable>) {
        if self.histories.is_multiple_of(MINE_EVERY) {
            self.mine();
        }
        self.histories += 1;
        while self.coins.len() < coins {
            self.make_coins();
        }
        let coins = self.coins.split_off(self.coins.len() - coins);
        let tip: Arc<Tip> = self.chain.tip();
        let scripts = Arc::new(ScriptCache::new(1_000));
        (Pool(Mempool::new(Policy::default(), self.chain.spec.params().clone(), TipFacts::of(&tip), scripts)), coins)
    }

    fn mine(&mut self) {
        let script = Owner::new(12).script_pubkey(Kind::P2wpkh);
        let address = Address::from_script(&script, Network::Regtest).unwrap().to_string();
        self.core.call("generatetoaddress", &["1", &address]);
    }

    /// Spends a coinbase of Core's to coins, and gives both sides these.
    fn make_coins(&mut self) {
        let coinbase = self.coinbases.pop().expect("enough for all histories");
        let kinds: Vec<Kind> = self.kinds.iter().copied().cycle().take(COINS_AT_ONCE).collect();
        let mut outputs: Vec<_> = kinds.iter().map(|kind| output(COIN, self.owner.script_pubkey(*kind))).collect();
        let left = coinbase.output.value - COIN * COINS_AT_ONCE as u64 - Amount::from_sat(100_000);
        outputs.push(output(left, self.owner.script_pubkey(Kind::P2wpkh)));
        let input = TxIn { previous_output: coinbase.outpoint, sequence: Sequence::MAX, ..TxIn::default() };
        let mut transaction =
            Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![input], output: outputs };
        sign_all(&mut transaction, &[coinbase], 0);
        self.core.call("sendrawtransaction", &[&serialize_hex(&transaction), "0"]);
        self.mine();
        let txid = transaction.compute_txid();
        for ((vout, output), kind) in (0..).zip(&transaction.output).zip(kinds) {
            let outpoint = OutPoint { txid, vout };
            let coin = Coin { output: output.clone(), height: Height(1), coinbase: false };
            self.chain.coins_mut().insert(outpoint, coin);
            self.coins.push(Spendable { outpoint, output: output.clone(), owner: self.owner.clone(), kind });
        }
    }

    /// Whose the coins are.
    pub(crate) fn owner(&self) -> &Owner {
        &self.owner
    }

    /// What Core says of a transaction, without taking it.
    pub(crate) fn test(&self, transaction: &Transaction) -> Value {
        let hex = serde_json::to_string(&[serialize_hex(transaction)]).unwrap();
        self.core.call("testmempoolaccept", &[&hex, "0"])[0].take()
    }

    /// Hands Core a transaction that it takes.
    pub(crate) fn send(&self, transaction: &Transaction) {
        self.core.call("sendrawtransaction", &[&serialize_hex(transaction), "0", "21000000"]);
    }

    /// Hands Core a package, and returns its answer, or the error of the call.
    pub(crate) fn submit_package(&self, package: &[Transaction]) -> Result<Value, String> {
        let hex: Vec<String> = package.iter().map(serialize_hex).collect();
        self.core.try_call("submitpackage", &[&serde_json::to_string(&hex).unwrap(), "0", "21000000"])
    }

    /// What Core's mempool holds.
    pub(crate) fn mempool(&self) -> BTreeSet<Txid> {
        let txids = self.core.call("getrawmempool", &[]);
        txids.as_array().unwrap().iter().map(|txid| txid.as_str().unwrap().parse().unwrap()).collect()
    }

    /// The same steps of our own.
    pub(crate) fn ours<'a>(&'a self, pool: &'a mut Pool) -> Ours<'a> {
        Ours { pool: &mut pool.0, chain: &self.chain }
    }
}

/// A pool of ours.
pub(crate) struct Pool(Mempool);

impl Pool {
    /// Whether it holds a transaction.
    pub(crate) fn contains(&self, txid: &Txid) -> bool {
        self.0.contains(txid)
    }

    /// Virtual bytes and fee of a transaction that it holds.
    pub(crate) fn cost(&self, txid: &Txid) -> (u64, Amount) {
        let entry = self.0.get(txid).expect("it holds it");
        (entry.vsize(), entry.fee())
    }
}

/// A pool of ours on the chain of the world.
pub(crate) struct Ours<'a> {
    pool: &'a mut Mempool,
    chain: &'a MemoryChain,
}

impl Ours<'_> {
    /// Hands in a transaction.
    pub(crate) fn submit(&mut self, transaction: &Transaction) -> Result<(), Reject> {
        let request = self.pool.begin(transaction.clone(), NOW_S)?;
        let checked = request.resolve(self.chain).and_then(|job| job.run()).map_err(|error| match error {
            CheckError::Rejected(reject) => reject,
            CheckError::Fault(fault) => panic!("{fault}"),
        })?;
        match self.pool.finish(checked, NOW_S).outcome {
            Outcome::Accepted { .. } => Ok(()),
            Outcome::Rejected(reject) => Err(reject),
            Outcome::Again(_) => panic!("the tip does not move"),
        }
    }

    /// Hands in a package.
    pub(crate) fn submit_package(&mut self, package: &Package) -> PackageResult {
        let mut submission = Submission::new(package, None, NOW_S);
        let mut turn = submission.step(self.pool, NOW_S);
        loop {
            match turn {
                Turn::Check(check) | Turn::Again(check) => {
                    let answer = check.run(self.chain).unwrap();
                    turn = submission.answered(self.pool, answer, NOW_S, &mut Vec::new());
                }
                Turn::Done(result) => return result,
            }
        }
    }
}
