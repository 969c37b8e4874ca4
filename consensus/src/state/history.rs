//! The deposits that were credited, in the order of their credits.

use causeway_chainspec::Height;
use rocksdb::{Direction, IteratorMode};

use super::schema;
use super::store::Store;
use crate::error::StateFault;
use crate::peg::history::{self, CreditPage};

const RECORD: &str = "credits of a block";

impl Store {
    /// Returns the deposits that were credited in the blocks above `after`, up to `last` at most: those of whole blocks,
    /// until they are at least `enough`. A block credits a few hundred at most.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn credits(&self, after: Height, last: Height, enough: usize) -> Result<CreditPage, StateFault> {
        let damaged = || StateFault::Damaged { record: RECORD };
        let mut page = CreditPage { credits: Vec::new(), to: last };
        let Some(first) = after.next() else { return Ok(page) };
        let start = history::credited_at_key(first, 0);
        let mode = IteratorMode::From(&start, Direction::Forward);
        for entry in self.db.iterator_cf(self.family(schema::PEG_HISTORY), mode) {
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
            let credit = self.peg_in(&deposit)?.filter(|credit| credit.height == height).ok_or_else(damaged)?;
            page.credits.push((deposit, credit));
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests;
