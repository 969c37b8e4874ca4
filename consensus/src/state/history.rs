//! What happened to the peg, up to the tip and not beyond: the disk may be a block ahead.

use std::collections::BTreeMap;

use bitcoin::OutPoint;
use causeway_chainspec::Height;
use rocksdb::{Direction, IteratorMode, ReadOptions, Snapshot, WriteBatch};

use super::schema;
use super::store::Store;
use crate::connect::ConnectedBlock;
use crate::error::StateFault;
use crate::peg::history::{self, BatchRecord, Credit, CreditPage};

const RECORD: &str = "credits of a block";

impl Store {
    /// Puts what a block adds to the history into a batch, and returns what is there before, by key.
    pub(super) fn put_history(
        &self,
        batch: &mut WriteBatch,
        connected: &ConnectedBlock,
    ) -> Result<BTreeMap<Vec<u8>, Option<Vec<u8>>>, StateFault> {
        let family = self.family(schema::PEG_HISTORY);
        let mut before = BTreeMap::new();
        for (key, value) in connected.peg_events().iter().flat_map(|event| event.records(connected.tip().height())) {
            batch.put_cf(family, &key, value);
            before.insert(key.clone(), self.db.get_cf(family, key)?);
        }
        Ok(before)
    }

    /// Returns the credit of a deposit, or None if it was not credited.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn peg_in(&self, deposit: &OutPoint) -> Result<Option<Credit>, StateFault> {
        self.read_history(&history::credit_key(deposit), "credit of a deposit", Credit::decode)
    }

    /// Returns the number of the batch that pays a peg-out request, or None if none does yet.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn batch_of_request(&self, request: &OutPoint) -> Result<Option<u32>, StateFault> {
        self.read_history(&history::paid_by_key(request), "batch of a request", history::decode_number)
    }

    /// Returns the number of the last batch that was to spend a coin of the peg, or None if there was none.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn batch_of_coin(&self, coin: &OutPoint) -> Result<Option<u32>, StateFault> {
        self.read_history(&history::swept_by_key(coin), "batch of a coin", history::decode_number)
    }

    /// Returns a batch, open or closed, or None if there is no such batch.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn batch(&self, number: u32) -> Result<Option<BatchRecord>, StateFault> {
        self.read_history(&history::batch_key(number), "batch", BatchRecord::decode)
    }

    fn read_history<T>(
        &self,
        key: &[u8],
        record: &'static str,
        decode: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, StateFault> {
        let (before, disk) = self.history_now(key);
        let value = match before {
            Some(before) => before,
            None => disk.get_cf(self.family(schema::PEG_HISTORY), key)?,
        };
        value.map(|value| decode(&value).ok_or(StateFault::Damaged { record })).transpose()
    }

    /// The disk as it is now, and what counts in its place if a block that is not the tip yet may have changed this record.
    fn history_now(&self, key: &[u8]) -> (Option<Option<Vec<u8>>>, Snapshot<'_>) {
        let state = self.read_state();
        (state.history.get(key).cloned(), self.db.snapshot())
    }

    /// Returns the deposits that were credited in the blocks above `after`, up to `last` or the tip at most: those of whole
    /// blocks, until they are at least `enough`. A block credits a few hundred at most.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn credits(&self, after: Height, last: Height, enough: usize) -> Result<CreditPage, StateFault> {
        let damaged = || StateFault::Damaged { record: RECORD };
        let (last, disk) = {
            let state = self.read_state();
            (last.min(state.tip.height()), self.db.snapshot())
        };
        let family = self.family(schema::PEG_HISTORY);
        let mut page = CreditPage { credits: Vec::new(), to: last };
        let Some(first) = after.next() else { return Ok(page) };
        let start = history::credited_at_key(first, 0);
        let mode = IteratorMode::From(&start, Direction::Forward);
        for entry in disk.iterator_cf_opt(family, ReadOptions::default(), mode) {
            let (key, value) = entry?;
            let height = match history::decode_credited_at_key(&key) {
                Some(height) if height <= last => height,
                _ => break,
            };
            let is_new_block = page.credits.last().is_some_and(|(_, credit)| credit.height < height);
            if is_new_block && page.credits.len() >= enough {
                page.to = page.credits.last().map_or(last, |(_, credit)| credit.height);
                break;
            }
            let deposit = history::decode_deposit(&value).ok_or_else(damaged)?;
            // A deposit is credited once, so no later block has changed it.
            let credit = disk.get_cf(family, history::credit_key(&deposit))?;
            let credit = credit.as_deref().and_then(Credit::decode).filter(|credit| credit.height == height);
            page.credits.push((deposit, credit.ok_or_else(damaged)?));
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests;
