//! Whether the newest records are all there, however many there are.
//!
//! RocksDB opens without some of its tables if its list of them was cut short. What is lost with a table are the writes just
//! before those that are still in a log, and logs are bounded ([`MAX_LOG_BYTES`](schema::MAX_LOG_BYTES)): to look at the
//! last [`TAIL_BLOCKS`] suffices, and takes less than a second. `causeway check` counts everything.

use causeway_chainspec::Height;
use rocksdb::{DBRawIterator, ReadOptions};

use super::schema;
use super::store::Store;
use crate::error::StateFault;

/// More blocks than RocksDB's logs hold: each of them is a write of 500 bytes or more.
const TAIL_BLOCKS: u32 = 1 << 20;

/// What looking reads ahead.
pub(super) const READAHEAD_BYTES: usize = 2 << 20;

/// Returns an iterator over all of a column family that leaves the cache to others.
pub(super) fn records<'a>(store: &'a Store, family: &str) -> DBRawIterator<'a> {
    let mut options = ReadOptions::default();
    options.set_total_order_seek(true);
    options.fill_cache(false);
    options.set_readahead_size(READAHEAD_BYTES);
    store.db.raw_iterator_cf_opt(store.family(family), options)
}

/// Whether every one of the last blocks up to `last` has its header.
pub(super) fn has_headers(store: &Store, last: Height) -> Result<bool, StateFault> {
    has_blocks(store, schema::HEADERS, schema::height_key, last, last)
}

/// Whether every one of the last blocks up to `last`, and none above it, has its record in a column family of the indexes.
pub(super) fn has_index_blocks(store: &Store, family: &str, last: Height) -> Result<bool, StateFault> {
    has_blocks(store, family, schema::block_key, last, Height(u32::MAX))
}

/// The keys of blocks are the only ones of their length; others may stand between them. None of them may be above `last` up
/// to `end`.
fn has_blocks<const N: usize>(
    store: &Store,
    family: &str,
    key: fn(Height) -> [u8; N],
    last: Height,
    end: Height,
) -> Result<bool, StateFault> {
    let mut next = Some(Height(last.to_u32().saturating_sub(TAIL_BLOCKS)));
    let mut records = records(store, family);
    records.seek(key(next.unwrap_or(last)));
    let end = key(end);
    while let Some(found) = records.key().filter(|found| *found <= end.as_slice()) {
        if found.len() == N {
            if next.is_none_or(|next| *found != key(next)) {
                return Ok(false);
            }
            next = next.filter(|next| *next < last).and_then(Height::next);
        }
        records.next();
    }
    records.status()?;
    Ok(next.is_none())
}

/// Whether the coins hold every one of the last writes up to that of `flushed`: each names the one before.
pub(super) fn has_flushes(store: &Store, flushed: Height) -> Result<bool, StateFault> {
    let enough = flushed.to_u32().saturating_sub(TAIL_BLOCKS);
    let mut expected = flushed;
    let mut records = records(store, schema::COINS);
    records.seek_for_prev(schema::flush_key(flushed));
    while let Some((key, value)) = records.item().filter(|(key, _)| *key >= schema::FLUSH_TAG.as_slice()) {
        if let Some(height) = schema::decode_flush_key(key) {
            let before = schema::decode_height(value).ok_or(StateFault::Damaged { record: "write of coins" })?;
            if height != expected {
                return Ok(false);
            }
            // The first of all names itself.
            if before == height || height.to_u32() <= enough {
                return Ok(true);
            }
            expected = before;
        }
        records.prev();
    }
    records.status()?;
    Ok(false)
}
