//! The index at one tip.

use std::sync::Arc;

use bitcoin::hashes::Hash;
use bitcoin::{Amount, OutPoint, Txid};
use causeway_chainspec::Height;
use rocksdb::{DBRawIterator, ReadOptions, Snapshot};

use super::{ScriptId, Statistics, TxPlace, damaged};
use crate::error::StateFault;
use crate::state::schema;
use crate::state::store::Store;
use crate::tip::Tip;

/// Candidates for the spender of one output that are looked at. Each more of them takes 2^32 tries to make.
const MAX_CANDIDATES: usize = 64;

/// The index as it is at one tip, whatever is committed meanwhile. It reads a disk.
pub struct IndexView<'a> {
    store: &'a Store,
    snapshot: Snapshot<'a>,
    tip: Arc<Tip>,
}

/// An output that no final block spends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unspent {
    /// Which.
    pub outpoint: OutPoint,
    /// What it is worth.
    pub value: Amount,
    /// The height of the block that created it.
    pub height: Height,
}

/// An input of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpendPlace {
    /// Where its transaction stands.
    pub place: TxPlace,
    /// Which of the transaction's inputs it is.
    pub vin: u32,
}

impl Store {
    /// Returns the index at the tip; None if none is kept.
    pub fn index_view(&self) -> Option<IndexView<'_>> {
        // So that no commit comes between the snapshot and the tip.
        let _no_commit = self.lock_writing();
        let state = self.read_state();
        state.indexed?;
        Some(IndexView { store: self, snapshot: self.db.snapshot(), tip: Arc::clone(&state.tip) })
    }
}

impl IndexView<'_> {
    /// The last block that the answers know.
    pub fn tip(&self) -> &Tip {
        &self.tip
    }

    /// Returns where a transaction stands; None if no block holds it.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn place(&self, txid: &Txid) -> Result<Option<TxPlace>, StateFault> {
        self.see(|| {
            let value = self.snapshot.get_cf(self.store.family(schema::TRANSACTIONS), txid.to_byte_array())?;
            value.map(|value| schema::decode_place(&value).ok_or(damaged("place of a transaction"))).transpose()
        })
    }

    /// Returns the sums over a script's history, zeros for one that was never used. One look-up, however long it is.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn statistics(&self, id: &ScriptId) -> Result<Statistics, StateFault> {
        self.see(|| {
            let value = self.snapshot.get_cf(self.store.family(schema::SCRIPTS), schema::statistics_key(id))?;
            let Some(value) = value else { return Ok(Statistics::default()) };
            Statistics::decode(&value).ok_or(damaged("statistics of a script"))
        })
    }

    /// Returns the transactions of a script's history, newest first, at most `limit` of them: from the newest, or those
    /// older than `before`. What came before them is not read.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn history(&self, id: &ScriptId, before: Option<TxPlace>, limit: usize) -> Result<Vec<TxPlace>, StateFault> {
        let start = match before {
            // The next key.
            Some(place) => [schema::history_key(id, place).as_slice(), &[0]].concat(),
            None => schema::history_prefix(id).to_vec(),
        };
        let mut places = Vec::new();
        self.scan(schema::SCRIPTS, &start, &schema::history_prefix(id), limit, |key, _| {
            places.push(schema::decode_history_key(key)?);
            Some(())
        })?;
        Ok(places)
    }

    /// Returns the unspent outputs of a script by outpoint, at most `limit` of them: [`Statistics::unspent`] says how many
    /// there are.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn unspent(&self, id: &ScriptId, limit: usize) -> Result<Vec<Unspent>, StateFault> {
        let prefix = schema::unspent_prefix(id);
        let mut unspent = Vec::new();
        self.scan(schema::SCRIPTS, &prefix, &prefix, limit, |key, value| {
            let outpoint = schema::decode_unspent_key(key)?;
            let (height, value) = schema::decode_unspent(value)?;
            unspent.push(Unspent { outpoint, value, height });
            Some(())
        })?;
        Ok(unspent)
    }

    /// Returns the input that spends an output, and with it, very rarely, inputs that spend outputs whose txids begin with
    /// the same 8 bytes: look at each of them. Empty if no block spends it.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn spend_candidates(&self, outpoint: &OutPoint) -> Result<Vec<SpendPlace>, StateFault> {
        let prefix = schema::spend_prefix(outpoint);
        let mut places = Vec::new();
        self.scan(schema::SPENDS, &prefix, &prefix, MAX_CANDIDATES, |key, _| {
            places.push(schema::decode_spend_key(key)?);
            Some(())
        })?;
        Ok(places)
    }

    /// Calls `each` with up to `limit` records from `start` on whose keys begin with `prefix`; None from it is damage.
    fn scan(
        &self,
        family: &'static str,
        start: &[u8],
        prefix: &[u8],
        limit: usize,
        mut each: impl FnMut(&[u8], &[u8]) -> Option<()>,
    ) -> Result<(), StateFault> {
        let mut options = ReadOptions::default();
        options.set_prefix_same_as_start(true);
        let mut records: DBRawIterator<'_> = {
            let family = self.store.family(family);
            self.snapshot.raw_iterator_cf_opt(family, options)
        };
        self.see(|| {
            records.seek(start);
            for _ in 0..limit {
                let Some((key, value)) = records.item().filter(|(key, _)| key.starts_with(prefix)) else { break };
                each(key, value).ok_or(damaged(family))?;
                records.next();
            }
            Ok(records.status()?)
        })
    }

    /// Reads, and gives up the indexes if what is read is not what was written.
    fn see<T>(&self, read: impl FnOnce() -> Result<T, StateFault>) -> Result<T, StateFault> {
        read().inspect_err(|fault| {
            if matches!(fault, StateFault::Damaged { .. } | StateFault::DamagedDatabase(_)) {
                self.store.give_up_index(fault);
            }
        })
    }
}

impl std::fmt::Debug for IndexView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IndexView").field("tip", &self.tip.height()).finish_non_exhaustive()
    }
}
