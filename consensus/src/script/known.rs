//! Verdicts that are kept, so that a block of known transactions needs no signature work again.

use std::sync::{PoisonError, RwLock};

use bitcoin::Wtxid;

use crate::block::SerializedTransaction;
use crate::id_map::IdSet;

/// The evidence that every input of a transaction has been verified against the outputs that it spends. Only
/// [`PreparedTransaction::verify`](super::PreparedTransaction::verify) makes it, for a transaction whose bytes are its own
/// and for the outputs that it was given: whoever gave it others than those of the chain must not put the evidence into a
/// cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedScripts {
    wtxid: Wtxid,
}

impl VerifiedScripts {
    /// The evidence for a transaction that was verified.
    pub(super) fn of(verified: &SerializedTransaction<'_>) -> Self {
        Self { wtxid: verified.wtxid() }
    }

    /// Which transaction it is about.
    pub fn wtxid(&self) -> Wtxid {
        self.wtxid
    }
}

/// A bounded memory of transactions whose every input has been found valid, shared by the threads that validate blocks
/// and the one that fills it.
///
/// Skipping them is as safe as verifying them again. The verdict is a function of the transaction, the outputs that it
/// spends and the flags. The wtxid commits to the transaction with its witnesses; each of its outpoints names a txid,
/// which commits to the output spent, value and script; and the flags are the same from block 0 on. Height, time and
/// other coins are no part of it: lock times inside of scripts compare with the transaction's own fields. A verdict on
/// one wtxid says nothing about another witness of the same txid.
///
/// What it forgets is verified again, so its size changes no verdict. Two generations: when the younger is full the
/// older is dropped, so at least half of the capacity is always the latest.
#[derive(Debug)]
pub struct ScriptCache {
    generations: RwLock<Generations>,
    per_generation: usize,
}

#[derive(Debug, Default)]
struct Generations {
    young: IdSet<Wtxid>,
    old: IdSet<Wtxid>,
}

impl ScriptCache {
    /// Returns an empty cache of at most `capacity` transactions (at least two), of about 40 bytes each.
    pub fn new(capacity: usize) -> Self {
        Self { generations: RwLock::default(), per_generation: (capacity / 2).max(1) }
    }

    /// Remembers a transaction.
    pub fn insert(&self, verified: &VerifiedScripts) {
        // A thread that panicked in here left no set half changed that matters: an entry is there or not.
        let mut generations = self.generations.write().unwrap_or_else(PoisonError::into_inner);
        if generations.young.len() >= self.per_generation {
            generations.old = std::mem::take(&mut generations.young);
        }
        generations.young.insert(verified.wtxid);
    }

    /// Whether every input of this transaction has been found valid, and that is not forgotten.
    pub fn contains(&self, wtxid: &Wtxid) -> bool {
        let generations = self.generations.read().unwrap_or_else(PoisonError::into_inner);
        generations.young.contains(wtxid) || generations.old.contains(wtxid)
    }

    /// The number of transactions remembered; one in both generations counts twice.
    pub fn len(&self) -> usize {
        let generations = self.generations.read().unwrap_or_else(PoisonError::into_inner);
        generations.young.len() + generations.old.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::Transaction;
    use bitcoin::absolute::LockTime;
    use bitcoin::transaction::Version;

    fn evidence(version: i32) -> VerifiedScripts {
        let version = Version(version);
        let transaction = Transaction { version, lock_time: LockTime::ZERO, input: vec![], output: vec![] };
        VerifiedScripts::of(&SerializedTransaction::of(&transaction))
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_the_latest() {
        let cache = ScriptCache::new(10);
        assert!(cache.is_empty());
        let evidence: Vec<_> = (0..50).map(evidence).collect();
        for (i, verified) in evidence.iter().enumerate() {
            assert!(!cache.contains(&verified.wtxid()));
            cache.insert(verified);
            assert!(cache.len() <= 10);
            let latest = &evidence[i.saturating_sub(4)..=i];
            assert!(latest.iter().all(|verified| cache.contains(&verified.wtxid())), "after {i}");
        }
        assert!(!cache.contains(&evidence[0].wtxid()));
    }
}
