//! Which transactions the next block holds: the best packages by feerate, each a transaction with the ancestors that are
//! not yet chosen (Bitcoin Core up to 30: `BlockAssembler::addPackageTxs`).
//!
//! A function of the pool and the limits: the same pool gives the same transactions in the same order, ties by txid.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use bitcoin::absolute::LockTime;
use bitcoin::{Amount, Script, Transaction, TxOut, Txid, Weight};
use causeway_chainspec::SatPerKvb;
use causeway_consensus::block::MAX_BLOCK_WEIGHT;
use causeway_consensus::sigops::{self, MAX_SIGOPS_COST, WITNESS_SCALE_FACTOR};

use crate::mempool::{Entry, Family, FeeFraction, Mempool, fee_at};

/// Packages in a row that do not fit before a block that is nearly full is left as it is (Core:
/// `MAX_CONSECUTIVE_FAILURES`).
const MAX_CONSECUTIVE_FAILURES: usize = 1_000;

/// What is nearly full: this much weight is left (Core: `BLOCK_FULL_ENOUGH_WEIGHT_DELTA`).
const FULL_ENOUGH: Weight = Weight::from_wu(4_000);

/// Packages that do not fit before the search ends in any case, so that its time is bounded by the block, not the pool.
const MAX_FAILURES: usize = 20_000;

/// Header, and a count of transactions of at most 5 bytes (BIP-0141: four units a byte).
const HEAD_WEIGHT: Weight = Weight::from_wu((80 + 5) * 4);

/// A coinbase in its layout (DESIGN section 2) without its fee output: version 4, marker and flag 2 units, one input of
/// 36 + 1 + at most 6 + 4, a count of 1, the commitments' outputs of 8 + 1 + 38 and 8 + 1 + 39, lock time 4; the witness
/// of 1 + 1 + 32 bytes.
const COINBASE_WEIGHT: Weight = Weight::from_wu((4 + 1 + 47 + 1 + 47 + 48 + 4) * 4 + 2 + 34);

/// Room for the transactions of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRoom {
    /// Weight that they may have together.
    pub weight: Weight,
    /// Bytes that they may have together.
    pub bytes: usize,
    /// Cost that their signature operations may have together.
    pub sigops_cost: usize,
    /// The least feerate of a package (Core: `-blockmintxfee`, 1 sat/kvB).
    pub min_feerate: SatPerKvb,
}

impl BlockRoom {
    /// Returns the room in a block of at most so many bytes beside the header, the coinbase that pays `fee_script`, and a peg
    /// transaction if there is one, of which weight and cost of signature operations are given.
    pub fn beside(fee_script: &Script, peg: Option<(Weight, usize)>, most: usize) -> Self {
        let (peg_weight, peg_sigops) = peg.unwrap_or((Weight::ZERO, 0));
        let fee_output = TxOut { value: Amount::ZERO, script_pubkey: fee_script.to_owned() };
        let taken = HEAD_WEIGHT + COINBASE_WEIGHT + fee_output.weight() + peg_weight;
        // Counted as in a coinbase: what an output's script holds, each multisig as 20.
        let paid = Transaction {
            version: bitcoin::transaction::Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![],
            output: vec![fee_output],
        };
        let taken_sigops = sigops::legacy(&paid) * WITNESS_SCALE_FACTOR + peg_sigops;
        Self {
            weight: MAX_BLOCK_WEIGHT.checked_sub(taken).unwrap_or(Weight::ZERO),
            // No byte has less weight than one.
            bytes: most.saturating_sub(usize::try_from(taken.to_wu()).unwrap_or(usize::MAX)),
            sigops_cost: MAX_SIGOPS_COST.saturating_sub(taken_sigops),
            min_feerate: SatPerKvb(1),
        }
    }
}

/// The transactions of a block, parents before children.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// The transactions, for [`assemble_block`](causeway_consensus::assemble::assemble_block).
    pub transactions: Vec<Transaction>,
    /// What they pay together, which the coinbase claims.
    pub fees: Amount,
    /// Their weight together.
    pub weight: Weight,
    /// Their bytes together.
    pub bytes: usize,
    /// The cost of their signature operations together.
    pub sigops_cost: usize,
}

impl Selection {
    /// Returns the choice of nothing.
    pub fn nothing() -> Self {
        Self { transactions: vec![], fees: Amount::ZERO, weight: Weight::ZERO, bytes: 0, sigops_cost: 0 }
    }
}

/// Returns the transactions for the block on top of the tip that the pool stands on.
pub fn select(pool: &Mempool, room: &BlockRoom) -> Selection {
    let mut chooser = Chooser::new(pool, room);
    let mut fresh = pool.by_mining_score().peekable();
    let (mut failures, mut in_a_row) = (0, 0);
    loop {
        while fresh.next_if(|entry| chooser.marks.contains_key(&entry.txid())).is_some() {}
        let best_fresh = fresh.peek().map(|entry| (Reverse(entry.mining_score()), entry.txid()));
        let (entry, family) = match (best_fresh, chooser.best_waiting()) {
            (Some(fresh_key), waiting) if waiting.is_none_or(|(score, txid, _)| fresh_key < (score, txid)) => {
                let entry = fresh.next().expect("peeked");
                (entry, *entry.ancestors())
            }
            (_, Some((_, txid, family))) => (pool.get(&txid).expect("marks are of entries"), family),
            (_, None) => break,
        };
        if family.fee < fee_at(room.min_feerate, family.vsize) {
            break;
        }
        if chooser.fits(&family) {
            chooser.choose(entry);
            in_a_row = 0;
            continue;
        }
        chooser.mark(entry, Mark::PassedOver);
        failures += 1;
        in_a_row += 1;
        let full_enough = usize::try_from(FULL_ENOUGH.to_wu()).unwrap_or(usize::MAX);
        let full = chooser.selection.weight + FULL_ENOUGH > room.weight
            || chooser.selection.bytes.saturating_add(full_enough) > room.bytes;
        if (in_a_row > MAX_CONSECUTIVE_FAILURES && full) || failures > MAX_FAILURES {
            break;
        }
    }
    chooser.selection
}

struct Chooser<'a> {
    pool: &'a Mempool,
    room: &'a BlockRoom,
    marks: BTreeMap<Txid, Mark>,
    /// The waiting ones, best first.
    waiting: BTreeSet<(Reverse<FeeFraction>, Txid)>,
    selection: Selection,
}

/// What is known of a transaction. Those without a mark count with all their ancestors.
#[derive(Clone, Copy)]
enum Mark {
    Chosen,
    /// Its package does not fit. It never will: an ancestor that is chosen takes as much room as it leaves in the package.
    PassedOver,
    /// Some of its ancestors are chosen: what is left of its package.
    Waiting(Family),
}

impl<'a> Chooser<'a> {
    fn new(pool: &'a Mempool, room: &'a BlockRoom) -> Self {
        let selection = Selection::nothing();
        Self { pool, room, marks: BTreeMap::new(), waiting: BTreeSet::new(), selection }
    }

    /// The best of the waiting ones, with what is left of its package.
    fn best_waiting(&self) -> Option<(Reverse<FeeFraction>, Txid, Family)> {
        let (score, txid) = *self.waiting.first()?;
        let Some(Mark::Waiting(family)) = self.marks.get(&txid) else { unreachable!("it is marked as waiting") };
        Some((score, txid, *family))
    }

    /// Marks a transaction, which waits no longer.
    fn mark(&mut self, entry: &Entry, mark: Mark) {
        if let Some(Mark::Waiting(family)) = self.marks.insert(entry.txid(), mark) {
            self.waiting.remove(&waiting_key(entry, &family));
        }
    }

    fn is_chosen(&self, txid: &Txid) -> bool {
        matches!(self.marks.get(txid), Some(Mark::Chosen))
    }

    fn fits(&self, family: &Family) -> bool {
        self.selection.weight + family.weight <= self.room.weight
            && self.selection.bytes + family.bytes <= self.room.bytes
            && self.selection.sigops_cost + family.sigops_cost <= self.room.sigops_cost
    }

    /// Chooses a transaction with all its ancestors that are not chosen yet.
    fn choose(&mut self, entry: &'a Entry) {
        let mut package = BTreeMap::new();
        let mut open = vec![entry];
        while let Some(entry) = open.pop() {
            // An ancestor has fewer ancestors than its descendants have.
            if package.insert((entry.ancestors().count, entry.txid()), entry).is_none() {
                let parents = entry.parents().iter().filter(|parent| !self.is_chosen(parent));
                open.extend(parents.map(|parent| self.pool.get(parent).expect("links lead to entries")));
            }
        }
        for entry in package.values() {
            self.mark(entry, Mark::Chosen);
            self.selection.transactions.push(entry.transaction().as_ref().clone());
            self.selection.fees += entry.fee();
            self.selection.weight += entry.weight();
            self.selection.bytes += entry.bytes();
            self.selection.sigops_cost += entry.sigops_cost();
        }
        for entry in package.values() {
            self.rank_descendants(entry);
        }
    }

    /// Takes a chosen transaction out of the packages of all that depend on it.
    fn rank_descendants(&mut self, chosen: &Entry) {
        let mut seen = BTreeSet::new();
        let mut open: Vec<Txid> = chosen.children().iter().copied().collect();
        while let Some(txid) = open.pop() {
            if !seen.insert(txid) {
                continue;
            }
            let entry = self.pool.get(&txid).expect("links lead to entries");
            open.extend(entry.children());
            let mut family = match self.marks.get(&txid) {
                Some(Mark::Chosen | Mark::PassedOver) => continue,
                Some(Mark::Waiting(family)) => *family,
                None => *entry.ancestors(),
            };
            family.remove(chosen);
            self.mark(entry, Mark::Waiting(family));
            self.waiting.insert(waiting_key(entry, &family));
        }
    }
}

fn waiting_key(entry: &Entry, family: &Family) -> (Reverse<FeeFraction>, Txid) {
    (Reverse(entry.feerate().min(family.feerate())), entry.txid())
}

#[cfg(test)]
mod tests;
