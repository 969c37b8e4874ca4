//! The transactions of the pool and how they hang together: maps and sums that agree at all times. No policy.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use bitcoin::{Amount, OutPoint, Txid, Wtxid};
use causeway_consensus::id_map::IdMap;
use causeway_consensus::state::{ScriptId, Statistics};

use super::entry::{Entry, Family};
use super::feerate::FeeFraction;
use super::list::{List, Row, Rows};

/// Best first for a block, ties by txid.
type MiningKey = (Reverse<FeeFraction>, Txid);

/// First to be evicted first: lowest worth, then youngest, then the last to enter.
type EvictionKey = (FeeFraction, Reverse<u64>, Reverse<u64>);

/// The pool's transactions by every key that is asked for. What is only looked up is hashed; what is gone through in an
/// order is a tree, so that nothing depends on a hasher. Keys that follow one another as transactions enter keep to one
/// end of their tree.
#[derive(Debug, Default)]
pub(super) struct Graph {
    entries: IdMap<Txid, Box<Entry>>,
    by_wtxid: IdMap<Wtxid, Txid>,
    spends: BTreeMap<OutPoint, Txid>,
    by_mining: BTreeSet<MiningKey>,
    by_eviction: BTreeMap<EvictionKey, Txid>,
    /// By time and number.
    by_time: BTreeMap<(u64, u64), Txid>,
    /// By script and number.
    by_script: BTreeMap<(ScriptId, u64), Txid>,
    /// Of the scripts that some entry pays or spends from.
    statistics: IdMap<ScriptId, Statistics>,
    /// Shared with those who look at all of them.
    list: List,
    /// How many have entered so far.
    entered: u64,
    memory: usize,
    vsize: u64,
    fees: Amount,
}

impl Graph {
    pub(super) fn get(&self, txid: &Txid) -> Option<&Entry> {
        self.entries.get(txid).map(Box::as_ref)
    }

    /// # Panics
    /// If it is not there.
    pub(super) fn entry(&self, txid: &Txid) -> &Entry {
        self.entries.get(txid).expect("links and keys lead to entries")
    }

    pub(super) fn by_wtxid(&self, wtxid: &Wtxid) -> Option<&Entry> {
        self.by_wtxid.get(wtxid).map(|txid| self.entry(txid))
    }

    pub(super) fn spender(&self, outpoint: &OutPoint) -> Option<Txid> {
        self.spends.get(outpoint).copied()
    }

    pub(super) fn spends_of(&self, txid: &Txid) -> impl Iterator<Item = (OutPoint, Txid)> {
        let outputs = OutPoint { txid: *txid, vout: 0 }..=OutPoint { txid: *txid, vout: u32::MAX };
        self.spends.range(outputs).map(|(outpoint, spender)| (*outpoint, *spender))
    }

    /// Entries that pay a script or spend from it, newest first.
    pub(super) fn by_script(&self, id: &ScriptId) -> impl Iterator<Item = &Entry> {
        self.by_script.range((*id, 0)..=(*id, u64::MAX)).rev().map(|(_, txid)| self.entry(txid))
    }

    pub(super) fn statistics_of(&self, id: &ScriptId) -> Statistics {
        self.statistics.get(id).copied().unwrap_or_default()
    }

    /// All entries, in no particular order.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values().map(Box::as_ref)
    }

    /// All entries, best for a block first.
    pub(super) fn by_mining(&self) -> impl Iterator<Item = &Entry> {
        self.by_mining.iter().map(|(_, txid)| self.entry(txid))
    }

    /// The entry that is worth least to keep.
    pub(super) fn worst(&self) -> Option<&Entry> {
        self.by_eviction.first_key_value().map(|(_, txid)| self.entry(txid))
    }

    /// The entry that has been there longest.
    pub(super) fn oldest(&self) -> Option<&Entry> {
        self.by_time.first_key_value().map(|(_, txid)| self.entry(txid))
    }

    /// What is told of all entries.
    pub(super) fn rows(&self) -> Rows {
        self.list.rows()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn memory(&self) -> usize {
        self.memory
    }

    pub(super) fn vsize(&self) -> u64 {
        self.vsize
    }

    pub(super) fn fees(&self) -> Amount {
        self.fees
    }

    /// Returns `parents` and all their ancestors, or None if they are more than `limit`.
    pub(super) fn ancestors(&self, parents: &BTreeSet<Txid>, limit: usize) -> Option<BTreeSet<Txid>> {
        self.reach(parents, limit, |entry| &entry.parents)
    }

    /// Returns `roots` and all their descendants, or None if they are more than `limit`.
    pub(super) fn descendants(&self, roots: &BTreeSet<Txid>, limit: usize) -> Option<BTreeSet<Txid>> {
        self.reach(roots, limit, |entry| &entry.children)
    }

    fn reach(
        &self,
        from: &BTreeSet<Txid>,
        limit: usize,
        next: impl Fn(&Entry) -> &BTreeSet<Txid>,
    ) -> Option<BTreeSet<Txid>> {
        let mut reached = from.clone();
        let mut open: Vec<Txid> = from.iter().copied().collect();
        while let Some(txid) = open.pop() {
            if reached.len() > limit {
                return None;
            }
            open.extend(next(self.entry(&txid)).iter().filter(|txid| reached.insert(**txid)));
        }
        (reached.len() <= limit).then_some(reached)
    }

    /// Adds a transaction, of which nothing in the pool depends and whose `parents` are all in the pool.
    pub(super) fn insert(&mut self, mut entry: Entry) {
        let ancestors = self.ancestors(&entry.parents, usize::MAX).expect("no limit");
        entry.descendants = Family::of(&entry);
        entry.ancestors = Family::of(&entry);
        for txid in &ancestors {
            entry.ancestors.add(self.entry(txid));
            self.update(txid, |ancestor| ancestor.descendants.add(&entry));
        }
        for parent in &entry.parents {
            self.entries.get_mut(parent).expect("parents are in the pool").children.insert(entry.txid);
        }
        for input in &entry.transaction.input {
            let before = self.spends.insert(input.previous_output, entry.txid);
            debug_assert!(before.is_none(), "conflicts are removed first");
        }
        self.memory += entry.memory;
        self.vsize += entry.vsize;
        self.fees += entry.fee;
        self.by_wtxid.insert(entry.wtxid, entry.txid);
        entry.number = self.entered;
        self.entered += 1;
        self.by_time.insert((entry.entered_s, entry.number), entry.txid);
        for (id, sums) in &entry.scripts {
            self.by_script.insert((*id, entry.number), entry.txid);
            add(self.statistics.entry(*id).or_default(), sums);
        }
        self.rank(&entry);
        entry.row = self.list.push(Row::of(&entry));
        self.entries.insert(entry.txid, Box::new(entry));
    }

    /// Removes a set that holds all descendants of each of its members.
    pub(super) fn remove_with_descendants(&mut self, txids: &BTreeSet<Txid>) {
        let mut leaves_first: Vec<_> = txids.iter().map(|txid| (self.entry(txid).ancestors.count, *txid)).collect();
        leaves_first.sort_unstable_by_key(|key| Reverse(*key));
        for (_, txid) in leaves_first {
            debug_assert!(self.entry(&txid).children.is_empty(), "all descendants go first");
            self.remove(&txid);
        }
    }

    /// Removes a transaction that no longer has parents in the pool, because it is in the chain. Its children stay.
    pub(super) fn remove_root(&mut self, txid: &Txid) {
        debug_assert!(self.entry(txid).parents.is_empty(), "parents are confirmed first");
        self.remove(txid);
    }

    /// Removes a transaction without parents or without children: between the two, ties would be cut.
    fn remove(&mut self, txid: &Txid) {
        let entry = self.entries.remove(txid).expect("it is in the pool");
        self.unrank(&entry);
        if let Some(moved) = self.list.remove(entry.row) {
            self.entries.get_mut(&moved).expect("rows are of entries").row = entry.row;
        }
        for ancestor in self.ancestors(&entry.parents, usize::MAX).expect("no limit") {
            self.update(&ancestor, |ancestor| ancestor.descendants.remove(&entry));
        }
        for descendant in self.descendants(&entry.children, usize::MAX).expect("no limit") {
            self.update(&descendant, |descendant| descendant.ancestors.remove(&entry));
        }
        for parent in &entry.parents {
            self.entries.get_mut(parent).expect("parents are in the pool").children.remove(txid);
        }
        for child in &entry.children {
            self.entries.get_mut(child).expect("children are in the pool").parents.remove(txid);
        }
        for input in &entry.transaction.input {
            self.spends.remove(&input.previous_output);
        }
        self.memory -= entry.memory;
        self.vsize -= entry.vsize;
        self.fees -= entry.fee;
        self.by_wtxid.remove(&entry.wtxid);
        self.by_time.remove(&(entry.entered_s, entry.number));
        for (id, sums) in &entry.scripts {
            self.by_script.remove(&(*id, entry.number));
            let left = self.statistics.get_mut(id).expect("the sums of its entries");
            subtract(left, sums);
            if *left == Statistics::default() {
                self.statistics.remove(id);
            }
        }
    }

    /// Changes the sums of an entry, and its places by score with them.
    fn update(&mut self, txid: &Txid, change: impl FnOnce(&mut Entry)) {
        let entry = self.entries.get_mut(txid).expect("links lead to entries");
        let (mining, eviction) = (mining_key(entry), eviction_key(entry));
        change(entry);
        let (new_mining, new_eviction) = (mining_key(entry), eviction_key(entry));
        if new_mining != mining {
            self.list.set(entry.row, Row::of(entry));
            self.by_mining.remove(&mining);
            self.by_mining.insert(new_mining);
        }
        if new_eviction != eviction {
            self.by_eviction.remove(&eviction);
            self.by_eviction.insert(new_eviction, *txid);
        }
    }

    fn rank(&mut self, entry: &Entry) {
        self.by_mining.insert(mining_key(entry));
        self.by_eviction.insert(eviction_key(entry), entry.txid);
    }

    fn unrank(&mut self, entry: &Entry) {
        self.by_mining.remove(&mining_key(entry));
        self.by_eviction.remove(&eviction_key(entry));
    }

    /// Panics unless every map and sum is what the transactions say.
    #[cfg(test)]
    pub(super) fn assert_consistent(&self) {
        let (mut memory, mut vsize, mut fees, mut inputs) = (0, 0, Amount::ZERO, 0);
        let (mut scripts, mut statistics) = (0, IdMap::<ScriptId, Statistics>::default());
        for (txid, entry) in &self.entries {
            assert_eq!(*txid, entry.transaction.compute_txid());
            assert_eq!(entry.wtxid, entry.transaction.compute_wtxid());
            assert_eq!(self.by_wtxid.get(&entry.wtxid), Some(txid));
            assert_eq!(self.by_time.get(&(entry.entered_s, entry.number)), Some(txid));
            assert!(self.by_mining.contains(&mining_key(entry)));
            assert_eq!(self.list.get(entry.row), Row::of(entry));
            assert_eq!(self.by_eviction.get(&eviction_key(entry)), Some(txid));
            let mut parents = BTreeSet::new();
            for input in &entry.transaction.input {
                assert_eq!(self.spends.get(&input.previous_output), Some(txid), "no conflict inside");
                let parent = input.previous_output.txid;
                if self.entries.contains_key(&parent) {
                    parents.insert(parent);
                    assert!(self.entries[&parent].children.contains(txid));
                }
            }
            assert_eq!(entry.parents, parents);
            for child in &entry.children {
                assert!(self.entries[child].parents.contains(txid));
            }
            let sum = |others: BTreeSet<Txid>| {
                let mut family = Family::NONE;
                others.iter().for_each(|txid| family.add(&self.entries[txid]));
                family.add(entry);
                family
            };
            assert_eq!(entry.ancestors, sum(self.ancestors(&entry.parents, usize::MAX).expect("no limit")));
            assert_eq!(entry.descendants, sum(self.descendants(&entry.children, usize::MAX).expect("no limit")));
            memory += entry.memory;
            vsize += entry.vsize;
            fees += entry.fee;
            inputs += entry.transaction.input.len();
            for (id, sums) in &entry.scripts {
                assert_eq!(self.by_script.get(&(*id, entry.number)), Some(txid));
                add(statistics.entry(*id).or_default(), sums);
            }
            scripts += entry.scripts.len();
            let paid: BTreeSet<_> = entry.transaction.output.iter().map(|it| ScriptId::of(&it.script_pubkey)).collect();
            let unlisted = paid.iter().filter(|id| !entry.scripts.iter().any(|(listed, _)| listed == *id));
            // Those that nobody can spend.
            assert!(
                unlisted.count()
                    <= entry.transaction.output.iter().filter(|it| it.script_pubkey.is_op_return()).count()
            );
        }
        assert_eq!(self.by_script.len(), scripts);
        assert_eq!(self.statistics, statistics);
        assert_eq!((self.memory, self.vsize, self.fees), (memory, vsize, fees));
        let entries = self.entries.len();
        assert_eq!(self.spends.len(), inputs);
        assert_eq!(self.list.len(), entries);
        assert_eq!([self.by_wtxid.len(), self.by_time.len()], [entries; 2]);
        assert_eq!([self.by_mining.len(), self.by_eviction.len()], [entries; 2]);
    }
}

/// Adds what an entry adds to a script's history.
fn add(sums: &mut Statistics, entry: &Statistics) {
    sums.transactions += entry.transactions;
    for (sum, of) in [(&mut sums.funded, entry.funded), (&mut sums.spent, entry.spent)] {
        sum.count += of.count;
        sum.sat += of.sat;
    }
}

fn subtract(sums: &mut Statistics, entry: &Statistics) {
    sums.transactions -= entry.transactions;
    for (sum, of) in [(&mut sums.funded, entry.funded), (&mut sums.spent, entry.spent)] {
        sum.count -= of.count;
        sum.sat -= of.sat;
    }
}

fn mining_key(entry: &Entry) -> MiningKey {
    (Reverse(entry.mining_score()), entry.txid)
}

fn eviction_key(entry: &Entry) -> EvictionKey {
    (entry.keeping_score(), Reverse(entry.entered_s), Reverse(entry.number))
}
