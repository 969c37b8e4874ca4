//! Reading coins: what memory knows of them under the state's lock, the rest from a snapshot of the disk without it.
//!
//! Nobody waits for a disk with the lock in hand, so however many cold coins a stranger's transaction names, blocks are
//! committed meanwhile.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bitcoin::OutPoint;
use causeway_chainspec::Height;
use rocksdb::{ReadOptions, Snapshot};

use super::coins::Age;
use super::schema;
use super::store::Store;
use crate::coin::{Coin, OUTPOINT_BYTES, encode_outpoint};
use crate::error::StateFault;
use crate::resolve::ChainView;
use crate::tip::Tip;

/// Coins that are read with one look-up: some milliseconds of a disk.
const COINS_PER_CHUNK: usize = 64;

/// Most threads of a store that help to read coins. A disk answers some 16 questions at once as quickly as one.
const HELPERS_MAX: usize = 32;

/// The threads that help to read coins. They are started for one read and end with it: a cold read takes milliseconds, a
/// thread some 20 us. Nobody waits for one, as whoever reads does so himself too.
#[derive(Debug)]
pub(super) struct Threads {
    free: AtomicUsize,
}

impl Default for Threads {
    fn default() -> Self {
        Self { free: AtomicUsize::new(HELPERS_MAX) }
    }
}

impl Threads {
    /// Takes up to `wanted` of them, and at most half of those that are free, so that the next one finds some.
    fn take(&self, wanted: usize) -> Taken<'_> {
        let taken = |free: usize| wanted.min(free.div_ceil(2));
        let before = self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| Some(free - taken(free)));
        Taken { threads: self, count: before.map_or(0, taken) }
    }
}

/// Threads that one read has taken; given back in the end.
struct Taken<'a> {
    threads: &'a Threads,
    count: usize,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.threads.free.fetch_add(self.count, Ordering::Relaxed);
    }
}

/// A read of coins that has begun: of the state that there was then, however late it ends. It holds no lock.
struct CoinRead<'a> {
    store: &'a Store,
    /// What memory knew.
    known: Vec<Option<Coin>>,
    /// What it did not know: keys, with their places in `known`.
    missing: Vec<(Key, usize)>,
    /// The disk at that moment, if it is needed.
    disk: Option<Snapshot<'a>>,
    /// The height whose coins were there.
    flushed: Height,
    /// The height of the block that was being written, whose coins may be there too.
    expected: Option<Height>,
    read_at: Age,
}

/// An outpoint in the database.
type Key = [u8; OUTPOINT_BYTES];

impl Store {
    /// Asks memory for coins, and sees to it that the disk can be asked later as it is now.
    fn begin_read(&self, outpoints: &[OutPoint]) -> CoinRead<'_> {
        let mut known = Vec::with_capacity(outpoints.len());
        let mut missing = Vec::new();
        // For all of them, so that what memory says is of one state.
        let state = self.read_state();
        for (index, outpoint) in outpoints.iter().enumerate() {
            let coin = state.coins.get(outpoint);
            if coin.is_none() {
                missing.push((encode_outpoint(outpoint), index));
            }
            known.push(coin.flatten());
        }
        CoinRead {
            store: self,
            known,
            disk: (!missing.is_empty()).then(|| self.db.snapshot()),
            missing,
            flushed: state.flushed,
            expected: state.coins.expected(),
            read_at: state.coins.age(),
        }
    }
}

impl CoinRead<'_> {
    /// Asks the disk for what memory did not know.
    fn finish(mut self, outpoints: &[OutPoint]) -> Result<Vec<Option<Coin>>, StateFault> {
        if self.missing.is_empty() {
            return Ok(self.known);
        }
        self.missing.sort_unstable();
        let found = self.read_missing(outpoints)?;
        for ((_, index), coin) in self.missing.iter().zip(found) {
            self.known[*index] = coin;
        }
        Ok(self.known)
    }

    /// Reads in chunks, on this thread and on those that are free.
    fn read_missing(&self, outpoints: &[OutPoint]) -> Result<Vec<Option<Coin>>, StateFault> {
        let chunks: Vec<_> = self.missing.chunks(COINS_PER_CHUNK).collect();
        let results: Vec<OnceLock<_>> = chunks.iter().map(|_| OnceLock::new()).collect();
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some((chunk, result)) = chunks.get(index).zip(results.get(index)) else { return };
                let read = self.read_chunk(chunk, outpoints);
                let is_over = read.is_err();
                result.set(read).expect("every chunk is read by one thread");
                if is_over {
                    return;
                }
            }
        };
        let helpers = self.store.threads.take(chunks.len() - 1);
        std::thread::scope(|scope| {
            for _ in 0..helpers.count {
                let thread = std::thread::Builder::new().name("causeway-coins".into());
                if thread.spawn_scoped(scope, work).is_err() {
                    // The system has none left: fewer threads give the same answer.
                    break;
                }
            }
            work();
        });
        let mut coins = Vec::with_capacity(self.missing.len());
        for result in results {
            // A chunk that nobody read comes after one that failed on every thread.
            let Some(result) = result.into_inner() else { continue };
            coins.extend(result?);
        }
        Ok(coins)
    }

    /// Reads one chunk, and has memory remember what is there.
    fn read_chunk(&self, chunk: &[(Key, usize)], outpoints: &[OutPoint]) -> Result<Vec<Option<Coin>>, StateFault> {
        let mut options = ReadOptions::default();
        options.set_snapshot(self.disk.as_ref().expect("something is missing"));
        let keys = chunk.iter().map(|(key, _)| key);
        let family = self.store.family(schema::COINS);
        let values = self.store.db.batched_multi_get_cf_opt(family, keys, true, &options);
        let coins: Vec<_> = values.into_iter().map(|value| self.judge(value?.as_deref())).collect::<Result<_, _>>()?;
        let found = chunk.iter().zip(&coins).filter_map(|((_, index), coin)| Some((outpoints[*index], coin.clone()?)));
        self.store.read_state().coins.remember(found, self.read_at);
        Ok(coins)
    }

    /// What a record of the disk is in the state of this read.
    fn judge(&self, value: Option<&[u8]>) -> Result<Option<Coin>, StateFault> {
        let Some(value) = value else { return Ok(None) };
        let damaged = StateFault::Damaged { record: "coin" };
        match Coin::decode(value) {
            // It does not exist yet.
            Some(coin) if Some(coin.height) == self.expected => Ok(None),
            Some(coin) if coin.height <= self.flushed => Ok(Some(coin)),
            _ => Err(damaged),
        }
    }
}

impl ChainView for Store {
    fn tip(&self) -> Arc<Tip> {
        Arc::clone(&self.read_state().tip)
    }

    fn coins(&self, outpoints: &[OutPoint]) -> Result<Vec<Option<Coin>>, StateFault> {
        self.begin_read(outpoints).finish(outpoints)
    }

    fn median_times(&self, heights: &[Height]) -> Result<Vec<u32>, StateFault> {
        let time = |height: &Height| {
            let record = self.read_header(*height)?;
            record.map(|(_, time)| time).ok_or(StateFault::Damaged { record: "header" })
        };
        heights.iter().map(time).collect()
    }
}

#[cfg(test)]
mod tests;
