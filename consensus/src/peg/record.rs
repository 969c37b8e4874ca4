//! The peg's state as records: what the state commitment covers, and what the store keeps.

use std::collections::BTreeMap;

/// Key of a record: its first byte says which kind of record it is.
pub type RecordKey = Vec<u8>;

/// Every record that a block changes, with its value before and after; `None` where there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordChanges {
    changes: BTreeMap<RecordKey, RecordChange>,
}

/// A record's value before and after a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordChange {
    /// The value in the state before the block.
    pub before: Option<Vec<u8>>,
    /// The value in the state after it.
    pub after: Option<Vec<u8>>,
}

impl RecordChanges {
    /// Notes that a record was changed from `before` to `after`. Of several changes of a record the first value before and
    /// the last value after count.
    pub fn note(&mut self, key: RecordKey, before: Option<Vec<u8>>, after: Option<Vec<u8>>) {
        self.changes
            .entry(key)
            .and_modify(|change| change.after.clone_from(&after))
            .or_insert(RecordChange { before, after });
    }

    /// The records that differ, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&RecordKey, &RecordChange)> {
        self.changes.iter().filter(|(_, change)| change.before != change.after)
    }
}
