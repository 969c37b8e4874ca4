//! The coins in memory: what is not yet on disk, and what has been read.

use std::collections::VecDeque;

use bitcoin::OutPoint;
use causeway_chainspec::Height;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::coin::Coin;
use crate::connect::StateDelta;
use crate::id_map::{IdMap, IdSet};

/// Bytes of a cached coin besides its script: key, value, and the cache's own bookkeeping.
const ENTRY_OVERHEAD_BYTES: usize = 160;

/// What one cache entry is guessed to take, to size the cache's tables.
const TYPICAL_ENTRY_BYTES: usize = ENTRY_OVERHEAD_BYTES + 34;

/// Blocks whose spent coins are known by name, some 60 bytes each: what a read brings that took longer is not remembered.
const RECENT_BLOCKS: usize = 8;

/// Answers in front of the database. `None` means: the database does not know better, there is no such coin.
#[derive(Debug)]
pub(super) struct CoinMemory {
    /// Changes since the last flush: a coin that was created, or None for one that was spent.
    pending: IdMap<OutPoint, Option<Coin>>,
    pending_bytes: usize,
    /// Coins as they are on disk.
    clean: Cache<OutPoint, Coin, ByBytes>,
    /// The block that is being written, if any: the disk may have its changes already.
    expected: Option<Expected>,
    /// How many blocks were taken in.
    age: Age,
    /// What the last of them spent, newest last, at most [`RECENT_BLOCKS`].
    recent: VecDeque<IdSet<OutPoint>>,
}

/// How many blocks a memory has taken in: when a read began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Age(u64);

/// What is on its way to disk, and not yet true.
#[derive(Debug)]
struct Expected {
    /// Coins of this height do not exist yet.
    height: Height,
    /// These still do.
    spent: IdMap<OutPoint, Coin>,
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<OutPoint, Coin> for ByBytes {
    fn weight(&self, _: &OutPoint, coin: &Coin) -> u64 {
        entry_bytes(coin) as u64
    }
}

fn entry_bytes(coin: &Coin) -> usize {
    ENTRY_OVERHEAD_BYTES + coin.output.script_pubkey.len()
}

impl CoinMemory {
    /// Returns an empty memory that caches about `capacity_bytes` of coins that are also on disk.
    pub(super) fn new(capacity_bytes: usize) -> Self {
        let entries = capacity_bytes / TYPICAL_ENTRY_BYTES;
        let clean = Cache::with_weighter(entries, capacity_bytes as u64, ByBytes);
        Self {
            pending: IdMap::default(),
            pending_bytes: 0,
            clean,
            expected: None,
            age: Age::default(),
            recent: VecDeque::new(),
        }
    }

    /// Returns what memory knows of a coin: the coin, that there is none, or (outer None) nothing.
    pub(super) fn get(&self, outpoint: &OutPoint) -> Option<Option<Coin>> {
        match self.pending.get(outpoint) {
            Some(change) => Some(change.clone()),
            None => self.clean.get(outpoint).or_else(|| self.leaving(outpoint)).map(Some),
        }
    }

    fn leaving(&self, outpoint: &OutPoint) -> Option<Coin> {
        self.expected.as_ref()?.spent.get(outpoint).cloned()
    }

    /// A block at this height is about to be written, with these changes and all that is pending. Until they are applied,
    /// the state is the one before, whatever the disk says.
    pub(super) fn expect(&mut self, height: Height, delta: &StateDelta) {
        self.expected = Some(Expected { height, spent: delta.spent.iter().cloned().collect() });
    }

    /// The height of the block that is being written, if any.
    pub(super) fn expected(&self) -> Option<Height> {
        self.expected.as_ref().map(|expected| expected.height)
    }

    /// How old this memory is.
    pub(super) fn age(&self) -> Age {
        self.age
    }

    /// Remembers coins that were on disk when this memory had that age, but for those that may be spent by now.
    pub(super) fn remember(&self, coins: impl Iterator<Item = (OutPoint, Coin)>, read_at: Age) {
        let blocks = usize::try_from(self.age.0 - read_at.0).unwrap_or(usize::MAX);
        if blocks > self.recent.len() {
            return;
        }
        let since = || self.recent.iter().rev().take(blocks);
        for (outpoint, coin) in coins.filter(|(outpoint, _)| !since().any(|spent| spent.contains(outpoint))) {
            self.clean.insert(outpoint, coin);
        }
    }

    /// Notes what one more block spends.
    fn grow_older(&mut self, delta: &StateDelta) {
        self.age.0 += 1;
        if self.recent.len() == RECENT_BLOCKS {
            self.recent.pop_front();
        }
        self.recent.push_back(delta.spent.iter().map(|(outpoint, _)| *outpoint).collect());
    }

    /// Takes a block's changes in. They are pending until [`CoinMemory::flushed`].
    pub(super) fn apply(&mut self, delta: &StateDelta) {
        self.grow_older(delta);
        for (outpoint, coin) in &delta.created {
            self.pending_bytes += entry_bytes(coin);
            self.pending.insert(*outpoint, Some(coin.clone()));
        }
        for (outpoint, _) in &delta.spent {
            self.clean.remove(outpoint);
            match self.pending.remove(outpoint) {
                // It never reached the disk, and an outpoint is created only once.
                Some(Some(coin)) => self.pending_bytes -= entry_bytes(&coin),
                _ => {
                    self.pending.insert(*outpoint, None);
                    self.pending_bytes += ENTRY_OVERHEAD_BYTES;
                }
            }
        }
    }

    /// The changes that are not on disk.
    pub(super) fn pending(&self) -> impl Iterator<Item = (&OutPoint, Option<&Coin>)> {
        self.pending.iter().map(|(outpoint, change)| (outpoint, change.as_ref()))
    }

    /// Approximate memory of the pending changes.
    pub(super) fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// A block's changes are on disk now, and with them all that was pending.
    pub(super) fn apply_flushed(&mut self, delta: &StateDelta) {
        self.grow_older(delta);
        self.expected = None;
        self.flushed();
        for (outpoint, coin) in &delta.created {
            self.clean.insert(*outpoint, coin.clone());
        }
        for (outpoint, _) in &delta.spent {
            self.clean.remove(outpoint);
        }
    }

    /// The pending changes are on disk now.
    pub(super) fn flushed(&mut self) {
        // Not drained: the table of a large sync would be kept for ever.
        for (outpoint, change) in std::mem::take(&mut self.pending) {
            if let Some(coin) = change {
                self.clean.insert(outpoint, coin);
            }
        }
        self.pending_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::{Amount, ScriptBuf, TxOut};

    fn coin(vout: u32) -> (OutPoint, Coin) {
        let output = TxOut { value: Amount::from_sat(u64::from(vout)), script_pubkey: ScriptBuf::new() };
        (OutPoint { vout, ..OutPoint::null() }, Coin { output, height: Height(101), coinbase: false })
    }

    #[test]
    fn a_coin_created_and_spent_between_flushes_never_reaches_the_disk() {
        let mut memory = CoinMemory::new(1 << 20);
        memory.apply(&StateDelta { spent: vec![], created: vec![coin(1), coin(2)] });
        assert_eq!(memory.get(&coin(1).0), Some(Some(coin(1).1)));
        memory.apply(&StateDelta { spent: vec![coin(1), coin(3)], created: vec![] });
        assert_eq!(memory.get(&coin(1).0), None);
        assert_eq!(memory.get(&coin(3).0), Some(None));
        assert_eq!(memory.pending().count(), 2);
        memory.flushed();
        assert_eq!(memory.pending_bytes(), 0);
        assert_eq!(memory.get(&coin(2).0), Some(Some(coin(2).1)));
        assert_eq!(memory.get(&coin(3).0), None);
    }

    #[test]
    fn a_block_that_is_flushed_takes_with_it_what_was_pending() {
        let mut memory = CoinMemory::new(1 << 20);
        memory.remember([coin(0)].into_iter(), memory.age());
        memory.apply(&StateDelta { spent: vec![], created: vec![coin(1), coin(2)] });
        memory.apply_flushed(&StateDelta { spent: vec![coin(0), coin(1)], created: vec![coin(3)] });
        assert_eq!(memory.pending().count(), 0);
        assert_eq!(memory.pending_bytes(), 0);
        for spent in [0, 1] {
            assert_eq!(memory.get(&coin(spent).0), None, "the disk knows");
        }
        for unspent in [2, 3] {
            assert_eq!(memory.get(&coin(unspent).0), Some(Some(coin(unspent).1)));
        }
    }

    #[test]
    fn a_spent_coin_leaves_the_cache() {
        let mut memory = CoinMemory::new(1 << 20);
        memory.remember([coin(1)].into_iter(), memory.age());
        memory.apply(&StateDelta { spent: vec![coin(1)], created: vec![] });
        assert_eq!(memory.get(&coin(1).0), Some(None));
        memory.flushed();
        assert_eq!(memory.get(&coin(1).0), None);
    }

    #[test]
    fn what_was_read_before_it_was_spent_is_not_remembered() {
        let spends = |vout| StateDelta { spent: vec![coin(vout)], created: vec![] };
        for blocks_after in 0..=RECENT_BLOCKS + 1 {
            let mut memory = CoinMemory::new(1 << 20);
            let read_at = memory.age();
            memory.apply_flushed(&spends(1));
            (0..blocks_after).for_each(|_| memory.apply_flushed(&spends(9)));
            memory.remember([coin(1), coin(2)].into_iter(), read_at);
            assert_eq!(memory.get(&coin(1).0), None, "after {blocks_after} blocks");
            let is_known = blocks_after < RECENT_BLOCKS;
            assert_eq!(memory.get(&coin(2).0).is_some(), is_known, "after {blocks_after} blocks");
        }
    }

    #[test]
    fn the_table_of_pending_coins_gives_its_memory_back() {
        let mut memory = CoinMemory::new(1 << 20);
        memory.apply(&StateDelta { spent: vec![], created: (0..10_000).map(coin).collect() });
        assert!(memory.pending.capacity() >= 10_000);
        memory.flushed();
        assert_eq!(memory.pending.capacity(), 0);
    }
}
