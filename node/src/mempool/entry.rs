//! A transaction of the pool, with what is known of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bitcoin::{Amount, Transaction, TxIn, TxOut, Txid, Weight, Wtxid};
use causeway_chainspec::PegScript;
use causeway_consensus::Coin;
use causeway_consensus::coin::is_unspendable;
use causeway_consensus::state::{ScriptId, Statistics};

use super::feerate::FeeFraction;
use super::reject::Named;

/// Bytes that an entry takes besides what its transaction holds: the entry itself (about 350), its places in the maps by
/// txid, wtxid, time, mining and eviction score (about 64 each with the trees' slack), its row in the list of all (80), the
/// reference counts.
const ENTRY_BYTES: usize = 900;

/// Bytes for each input: its place in the map of spends, and in the parent's and the child's sets.
const LINK_BYTES: usize = 192;

/// Bytes for each script that it pays or spends from: the sums in the entry (96), its place in the map by script, and the
/// sums of the script, with the trees' slack.
const SCRIPT_BYTES: usize = 384;

/// Bytes that the allocator adds to each script and each witness.
const ALLOCATION_BYTES: usize = 16;

/// A transaction that has passed every check, alone and with its coins.
#[derive(Debug, Clone)]
pub struct Entry {
    pub(super) transaction: Arc<Transaction>,
    pub(super) txid: Txid,
    pub(super) wtxid: Wtxid,
    pub(super) weight: Weight,
    pub(super) bytes: usize,
    pub(super) vsize: u64,
    pub(super) fee: Amount,
    pub(super) sigops_cost: usize,
    pub(super) entered_s: u64,
    pub(super) memory: usize,
    /// Its dust output, which each of its children spends.
    pub(super) dust: Option<u32>,
    pub(super) parents: BTreeSet<Txid>,
    pub(super) children: BTreeSet<Txid>,
    pub(super) ancestors: Family,
    pub(super) descendants: Family,
    /// What it adds to the history of each script that it pays or spends from, by script.
    pub(super) scripts: Vec<(ScriptId, Statistics)>,
    /// How many entered before it.
    pub(super) number: u64,
    /// Its place in the list of all.
    pub(super) row: usize,
}

/// Sums over a transaction and its ancestors, or its descendants, in the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// How many transactions, itself included.
    pub count: usize,
    /// Virtual bytes.
    pub vsize: u64,
    /// Weight.
    pub weight: Weight,
    /// Bytes, with witnesses.
    pub bytes: usize,
    /// Fees.
    pub fee: Amount,
    /// Cost of the signature operations.
    pub sigops_cost: usize,
}

impl Family {
    /// Nobody yet.
    pub(crate) const NONE: Self =
        Self { count: 0, vsize: 0, weight: Weight::ZERO, bytes: 0, fee: Amount::ZERO, sigops_cost: 0 };

    pub(crate) fn of(entry: &Entry) -> Self {
        let Entry { vsize, weight, bytes, fee, sigops_cost, .. } = *entry;
        Self { count: 1, vsize, weight, bytes, fee, sigops_cost }
    }

    pub(crate) fn add(&mut self, entry: &Entry) {
        self.count += 1;
        self.vsize += entry.vsize;
        self.weight += entry.weight;
        self.bytes += entry.bytes;
        self.fee += entry.fee;
        self.sigops_cost += entry.sigops_cost;
    }

    pub(crate) fn remove(&mut self, entry: &Entry) {
        self.count -= 1;
        self.vsize -= entry.vsize;
        self.weight -= entry.weight;
        self.bytes -= entry.bytes;
        self.fee -= entry.fee;
        self.sigops_cost -= entry.sigops_cost;
    }

    /// The feerate of all of them together.
    pub fn feerate(&self) -> FeeFraction {
        FeeFraction { fee: self.fee, vsize: self.vsize }
    }
}

impl Entry {
    /// The transaction.
    pub fn transaction(&self) -> &Arc<Transaction> {
        &self.transaction
    }

    /// The id without witnesses.
    pub fn txid(&self) -> Txid {
        self.txid
    }

    /// The id with witnesses.
    pub fn wtxid(&self) -> Wtxid {
        self.wtxid
    }

    /// Its weight.
    pub fn weight(&self) -> Weight {
        self.weight
    }

    /// Its bytes, with witnesses.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Virtual bytes that its fee is counted for: see [`virtual_size`](super::policy::virtual_size).
    pub fn vsize(&self) -> u64 {
        self.vsize
    }

    /// What it pays.
    pub fn fee(&self) -> Amount {
        self.fee
    }

    /// What its signature operations cost in a block.
    pub fn sigops_cost(&self) -> usize {
        self.sigops_cost
    }

    /// When it entered, in seconds of Unix time.
    pub fn entered_s(&self) -> u64 {
        self.entered_s
    }

    /// Bytes of memory that the pool counts for it: 900, and 192 for each input, and 384 for each script, and what the
    /// transaction's inputs, outputs, scripts and witnesses take. What the process really takes is about that; the count is
    /// the same on every machine.
    pub fn memory(&self) -> usize {
        self.memory
    }

    /// The scripts that it pays or spends from.
    pub(super) fn script_ids(&self) -> Arc<[ScriptId]> {
        self.scripts.iter().map(|(id, _)| *id).collect()
    }

    /// The transactions of the pool whose outputs it spends.
    pub fn parents(&self) -> &BTreeSet<Txid> {
        &self.parents
    }

    /// The transactions of the pool that spend its outputs.
    pub fn children(&self) -> &BTreeSet<Txid> {
        &self.children
    }

    /// Itself and all that it depends on in the pool.
    pub fn ancestors(&self) -> &Family {
        &self.ancestors
    }

    /// Itself and all that depends on it in the pool.
    pub fn descendants(&self) -> &Family {
        &self.descendants
    }

    pub(super) fn named(&self) -> Named {
        Named { txid: self.txid, wtxid: self.wtxid }
    }

    /// Its own feerate.
    pub fn feerate(&self) -> FeeFraction {
        FeeFraction { fee: self.fee, vsize: self.vsize }
    }

    /// What it is worth to a block: its own feerate, or that with its ancestors if lower (Core up to 30:
    /// `CompareTxMemPoolEntryByAncestorFee`).
    pub fn mining_score(&self) -> FeeFraction {
        self.feerate().min(self.ancestors.feerate())
    }

    /// What it is worth to keep: its own feerate, or that with its descendants if higher (Core up to 30:
    /// `CompareTxMemPoolEntryByDescendantScore`).
    pub fn keeping_score(&self) -> FeeFraction {
        self.feerate().max(self.descendants.feerate())
    }
}

/// Returns the bytes that the pool counts for a transaction: see [`Entry::memory`].
pub(super) fn memory(transaction: &Transaction, scripts: usize) -> usize {
    let input = |input: &TxIn| {
        let witness = if input.witness.is_empty() { 0 } else { input.witness.size() + 4 * input.witness.len() };
        size_of::<TxIn>() + input.script_sig.len() + witness + LINK_BYTES + 2 * ALLOCATION_BYTES
    };
    let output = |output: &TxOut| size_of::<TxOut>() + output.script_pubkey.len() + ALLOCATION_BYTES;
    let held = transaction.input.iter().map(input).chain(transaction.output.iter().map(output));
    ENTRY_BYTES + size_of::<Transaction>() + held.sum::<usize>() + SCRIPT_BYTES * scripts
}

/// Returns what a transaction adds to the history of each script, by script. `coins` are what its inputs spend.
pub(super) fn touched_scripts(transaction: &Transaction, coins: &[Coin]) -> Vec<(ScriptId, Statistics)> {
    let mut scripts: BTreeMap<ScriptId, Statistics> = BTreeMap::new();
    for coin in coins {
        scripts.entry(ScriptId::of(&coin.output.script_pubkey)).or_default().spent.add(coin.output.value);
    }
    for output in transaction.output.iter().filter(|output| !is_unspendable(&output.script_pubkey)) {
        scripts.entry(ScriptId::of(&output.script_pubkey)).or_default().funded.add(output.value);
    }
    let counted = |(id, sums)| (id, Statistics { transactions: 1, ..sums });
    scripts.into_iter().map(counted).collect()
}

/// Whether a transaction holds a peg-out request.
pub(super) fn asks_for_peg_out(transaction: &Transaction) -> bool {
    let request = |output: &TxOut| matches!(PegScript::of(&output.script_pubkey), Some(Ok(PegScript::Request(_))));
    transaction.output.iter().any(request)
}
