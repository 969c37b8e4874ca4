//! Building the indexes from the blocks, and dropping them.

use std::collections::HashMap;

use bitcoin::OutPoint;
use causeway_chainspec::{Height, LAST_DERIVED_HEIGHT};
use rocksdb::{ReadOptions, WriteBatch};

use super::entries::inputs;
use super::{Indexed, ScriptId, SpentOutput, Statistics, damaged, is_indexed};
use crate::block::{Block, parse_block};
use crate::coin::encode_outpoint;
use crate::error::StateFault;
use crate::resolve::ChainView;
use crate::state::open::count_entries;
use crate::state::schema;
use crate::state::store::Store;

/// Blocks that one write of the building holds at most, so that the log says something now and then.
const BATCH_BLOCKS: u32 = 10_000;

/// The column families of the indexes.
const FAMILIES: [&str; 4] = [schema::TRANSACTIONS, schema::SCRIPTS, schema::SPENDS, schema::BUILDING];

/// Above every key.
const END: [u8; 64] = [0xff; 64];

/// Brings the indexes to the tip, from where their building was stopped: from block 0 if there are none, or if something of
/// them is missing. One write ends with the block that brings it to `batch_transactions`.
pub(in crate::state) fn catch_up(store: &Store, batch_transactions: u64) -> Result<(), StateFault> {
    let tip = store.tip().height();
    let found = read_indexed(store, tip)?;
    let indexed = found.unwrap_or(Indexed::NONE);
    let mut building = Building { store, batch_transactions, indexed, changes: HashMap::new(), sums: HashMap::new() };
    let first = building.indexed.next();
    let blocks = first.and_then(|first| tip.blocks_since(first)).map_or(0, |above| above + 1);
    // Those of a new store are no news.
    if blocks > 0 && tip > LAST_DERIVED_HEIGHT {
        tracing::info!(%tip, blocks, "building the indexes: the node starts when they are whole, and may be stopped");
    }
    let mut clear = found.is_none();
    let mut done = 0;
    while let Some(start) = building.indexed.next().filter(|next| *next <= tip) {
        let mut batch = WriteBatch::default();
        if clear {
            // Whatever there is does not fit together.
            put_nothing(store, &mut batch);
            clear = false;
        }
        let end = building.put_blocks(&mut batch, start, tip)?;
        store.put_indexed(&mut batch, building.indexed);
        building.put_changes(&mut batch, end, tip)?;
        store.write(batch)?;
        done += end.to_u32() - start.to_u32() + 1;
        if end < tip {
            let percent = u64::from(done) * 100 / u64::from(blocks).max(1);
            tracing::info!(height = %end, %tip, done, blocks, percent, "building the indexes");
        }
    }
    if done > 0 && tip > LAST_DERIVED_HEIGHT {
        tracing::info!(%tip, "the indexes are whole");
    }
    store.write_state().indexed = Some(building.indexed);
    Ok(())
}

/// Drops whatever there is of the indexes.
pub(in crate::state) fn drop_index(store: &Store) -> Result<(), StateFault> {
    if is_empty(store)? {
        return Ok(());
    }
    tracing::info!("dropping the indexes, which the settings do not ask for");
    let mut batch = WriteBatch::default();
    put_nothing(store, &mut batch);
    store.write(batch)?;
    for family in FAMILIES {
        // The room comes back at once, not when the tables are rewritten.
        store.db.delete_file_in_range_cf(store.family(family), [].as_slice(), END.as_slice())?;
    }
    Ok(())
}

/// Whether there is nothing of the indexes at all.
fn is_empty(store: &Store) -> Result<bool, StateFault> {
    for family in FAMILIES {
        let mut options = ReadOptions::default();
        options.set_total_order_seek(true);
        let mut records = store.db.raw_iterator_cf_opt(store.family(family), options);
        records.seek_to_first();
        if records.valid() {
            return Ok(false);
        }
        records.status()?;
    }
    Ok(true)
}

fn put_nothing(store: &Store, batch: &mut WriteBatch) {
    for family in FAMILIES {
        batch.delete_range_cf(store.family(family), [].as_slice(), END.as_slice());
    }
}

/// How far the indexes on disk go; None if they do not hold what they say.
fn read_indexed(store: &Store, tip: Height) -> Result<Option<Indexed>, StateFault> {
    let Some(value) = store.db.get_cf(store.family(schema::TRANSACTIONS), schema::TRANSACTIONS_INDEXED)? else {
        return Ok(is_empty(store)?.then_some(Indexed::NONE));
    };
    let (height, count) = schema::decode_indexed(&value).ok_or(damaged("height of the indexes"))?;
    let found = count_entries(store, schema::TRANSACTIONS, schema::TRANSACTIONS_INDEXED)?;
    let blocks = u64::from(height.to_u32()) + 1;
    let all_blocks = count_blocks(store, schema::SCRIPTS)? == blocks && count_blocks(store, schema::SPENDS)? == blocks;
    // Without the unspent outputs at its height, an index cannot go on from the blocks alone.
    let goes_on = height == tip || read_building(store)? == Some(height);
    // A tip below it has lost its newest blocks, which come back from peers as they were.
    if height > tip || found != count || !all_blocks || !goes_on {
        tracing::warn!(%height, count, found, all_blocks, "the indexes are not whole: building them again");
        return Ok(None);
    }
    Ok(Some(Indexed { height: Some(height), count }))
}

/// The height whose unspent outputs `building` holds; None if it is empty.
fn read_building(store: &Store) -> Result<Option<Height>, StateFault> {
    let value = store.db.get_cf(store.family(schema::BUILDING), schema::BUILDING_HEIGHT)?;
    value.map(|value| schema::decode_height(&value).ok_or(damaged("height of the building index"))).transpose()
}

/// How many blocks have their record in a column family: RocksDB opens without some of its tables if its list of them was
/// cut short, and a table holds whole blocks until it is merged with others.
fn count_blocks(store: &Store, family: &str) -> Result<u64, StateFault> {
    let mut options = ReadOptions::default();
    options.set_total_order_seek(true);
    options.fill_cache(false);
    let mut records = store.db.raw_iterator_cf_opt(store.family(family), options);
    records.seek(schema::block_key(Height(0)));
    let last = schema::block_key(Height(u32::MAX));
    let mut count = 0;
    while let Some(key) = records.key().filter(|key| *key <= last.as_slice()) {
        // Records of a script or an output may stand between them.
        count += u64::from(schema::is_block_key(key));
        records.next();
    }
    records.status()?;
    Ok(count)
}

/// The indexes of a store on their way to the tip.
struct Building<'a> {
    store: &'a Store,
    batch_transactions: u64,
    indexed: Indexed,
    /// What this write changes of the unspent outputs: one that was created, or None for one that was spent.
    changes: HashMap<OutPoint, Option<SpentOutput>>,
    /// What this write adds to the sums of scripts.
    sums: HashMap<ScriptId, Statistics>,
}

impl Building<'_> {
    /// Puts blocks from `start` on into a batch, until it is full or the tip is in it. Returns the last one's height.
    fn put_blocks(&mut self, batch: &mut WriteBatch, start: Height, tip: Height) -> Result<Height, StateFault> {
        let before = self.indexed.count;
        let mut height = start;
        loop {
            let bytes = self.store.read_block(height)?.ok_or(damaged("block"))?;
            let block = parse_block(bytes).map_err(|_| damaged("block"))?;
            let spent = self.apply(height, &block)?;
            let sums = &mut self.sums;
            self.indexed = self.store.put_index(batch, self.indexed, height, &block, &spent, |_, id, more| {
                let sum = sums.entry(id).or_default();
                *sum = sum.checked_add(more).ok_or(damaged("statistics of a script"))?;
                Ok(())
            })?;
            let is_full = self.indexed.count - before >= self.batch_transactions
                || height.blocks_since(start).is_some_and(|blocks| blocks + 1 >= BATCH_BLOCKS);
            match height.next().filter(|next| *next <= tip && !is_full) {
                Some(next) => height = next,
                None => break,
            }
        }
        for (id, sums) in self.sums.drain() {
            self.store.put_part(batch, &id, sums);
        }
        Ok(height)
    }

    /// Takes a block's outputs in, and returns those that it spends, in block order.
    fn apply(&mut self, height: Height, block: &Block) -> Result<Vec<SpentOutput>, StateFault> {
        for tx in block.transactions() {
            for (vout, output) in (0u32..).zip(&tx.transaction().output) {
                if is_indexed(height, &output.script_pubkey) {
                    let created = SpentOutput { id: ScriptId::of(&output.script_pubkey), value: output.value };
                    self.changes.insert(OutPoint { txid: tx.txid(), vout }, Some(created));
                }
            }
        }
        let outpoints = || inputs(block).map(|input| input.previous_output);
        let mut missing: Vec<_> = outpoints()
            .filter(|outpoint| !self.changes.contains_key(outpoint))
            .map(|it| encode_outpoint(&it))
            .collect();
        missing.sort_unstable();
        let family = self.store.family(schema::BUILDING);
        let values = self.store.db.batched_multi_get_cf_opt(family, &missing, true, &ReadOptions::default());
        let mut on_disk = HashMap::with_capacity(missing.len());
        for (key, value) in missing.iter().zip(values) {
            let output = value?.as_deref().and_then(schema::decode_spent_output);
            on_disk.insert(*key, output.ok_or(damaged("unspent output of the building index"))?);
        }
        let spend = |outpoint: OutPoint| {
            let created = self.changes.remove(&outpoint).flatten();
            // It is not on disk if this write created it.
            created.or_else(|| {
                self.changes.insert(outpoint, None);
                on_disk.get(&encode_outpoint(&outpoint)).copied()
            })
        };
        let spent: Option<Vec<SpentOutput>> = outpoints().map(spend).collect();
        spent.ok_or(damaged("unspent output of the building index"))
    }

    /// Puts the unspent outputs after the block at `end` into a batch, or that none are needed any more.
    fn put_changes(&mut self, batch: &mut WriteBatch, end: Height, tip: Height) -> Result<(), StateFault> {
        let family = self.store.family(schema::BUILDING);
        if end == tip {
            if read_building(self.store)?.is_some() {
                batch.delete_range_cf(family, [].as_slice(), END.as_slice());
            }
            self.changes.clear();
            return Ok(());
        }
        for (outpoint, change) in self.changes.drain() {
            match change {
                Some(output) => batch.put_cf(family, encode_outpoint(&outpoint), schema::encode_spent_output(&output)),
                None => batch.delete_cf(family, encode_outpoint(&outpoint)),
            }
        }
        batch.put_cf(family, schema::BUILDING_HEIGHT, schema::encode_height(end));
        Ok(())
    }
}
