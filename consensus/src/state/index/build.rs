//! Building the indexes from the blocks, and dropping them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use bitcoin::OutPoint;
use causeway_chainspec::{Height, LAST_DERIVED_HEIGHT};
use rocksdb::{ReadOptions, WriteBatch};

use super::entries::inputs;
use super::{IndexState, Indexed, ScriptId, SpentOutput, Statistics, damaged, is_indexed};
use crate::block::{Block, parse_block};
use crate::coin::encode_outpoint;
use crate::error::StateFault;
use crate::resolve::ChainView;
use crate::state::schema::{self, INDEX_FAMILIES};
use crate::state::store::Store;
use crate::state::tail;

/// Blocks that one write of the building holds at most, so that the log says something now and then.
const BATCH_BLOCKS: u32 = 10_000;

/// Blocks that are put in at most while none is committed.
const LAST_BLOCKS: u32 = 2;

/// Blocks that are put in when a store opens, however large: a moment's work.
const AT_ONCE_BLOCKS: u32 = 500;

/// Those with a record of every block.
const BLOCK_FAMILIES: [&str; 3] = [schema::TRANSACTIONS, schema::SCRIPTS, schema::SPENDS];

/// Bytes of a key of `transactions`.
const TXID_BYTES: usize = 32;

/// Above every key.
const END: [u8; 64] = [0xff; 64];

/// Why the indexes cannot be brought to the tip. Only the last one is a reason not to open the store.
#[derive(Debug)]
pub(in crate::state) enum IndexFault {
    /// What is in them is not what was written: they are to be dropped.
    Damaged(StateFault),
    /// A block that they follow from cannot be read.
    Block(StateFault),
    /// Nothing can be written.
    Write(StateFault),
}

impl From<StateFault> for IndexFault {
    fn from(fault: StateFault) -> Self {
        Self::Damaged(fault)
    }
}

impl From<rocksdb::Error> for IndexFault {
    fn from(error: rocksdb::Error) -> Self {
        Self::Damaged(error.into())
    }
}

/// Brings the indexes to the tip, from where their building was stopped: from block 0 if there are none, or if something of
/// them is missing. With `stop`, blocks may be committed meanwhile, but for the last moment, and it returns early once that
/// says so.
pub(in crate::state) fn catch_up(store: &Store, stop: Option<&AtomicBool>) -> Result<(), IndexFault> {
    let found = read_indexed(store, store.tip().height())?;
    let indexed = found.unwrap_or(Indexed::NONE);
    let mut building = Building { store, indexed, changes: HashMap::new(), sums: HashMap::new() };
    let blocks = building.behind(store.tip().height());
    // Those of a new store are no news.
    let is_news = store.tip().height() > LAST_DERIVED_HEIGHT && blocks > 0;
    if is_news {
        tracing::info!(tip = %store.tip().height(), blocks, "building the indexes: this may be stopped, and goes on");
    }
    let mut clear = found.is_none();
    let mut done = 0;
    loop {
        // The last blocks go in while none is added.
        let is_end = stop.is_none() || building.behind(store.tip().height()) <= LAST_BLOCKS;
        let no_commit = is_end.then(|| store.lock_writing());
        let tip = store.tip().height();
        let mut batch = WriteBatch::default();
        if clear {
            // Whatever there is does not fit together.
            put_nothing(store, &mut batch);
            clear = false;
        }
        let start = building.indexed.next().filter(|next| *next <= tip);
        if let Some(start) = start {
            let end = building.put_blocks(&mut batch, start, tip)?;
            store.put_indexed(&mut batch, building.indexed);
            done += end.to_u32() - start.to_u32() + 1;
        }
        let is_last = no_commit.is_some() && building.indexed.height == Some(tip);
        building.put_changes(&mut batch, is_last)?;
        if !batch.is_empty() {
            store.write(batch).map_err(IndexFault::Write)?;
        }
        if is_last {
            store.write_state().indexed = Some(building.indexed);
            if is_news {
                tracing::info!(%tip, "the indexes are whole");
            }
            return Ok(());
        }
        drop(no_commit);
        let height = building.indexed.height.map_or(0, Height::to_u32);
        let percent = u64::from(done) * 100 / u64::from(blocks).max(1);
        tracing::info!(height, %tip, done, blocks, percent, "building the indexes");
        if stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
            return Ok(());
        }
    }
}

/// Brings the indexes to the tip if that takes a moment, and says that they are to be built otherwise.
pub(in crate::state) fn catch_up_soon(store: &Store) -> Result<(), IndexFault> {
    let tip = store.tip().height();
    let indexed = read_indexed(store, tip)?.unwrap_or(Indexed::NONE);
    let building = Building { store, indexed, changes: HashMap::new(), sums: HashMap::new() };
    if building.behind(tip) <= AT_ONCE_BLOCKS {
        return catch_up(store, None);
    }
    store.write_state().no_index = IndexState::Building;
    Ok(())
}

/// Drops whatever there is of the indexes.
pub(in crate::state) fn drop_index(store: &Store) -> Result<(), IndexFault> {
    if is_empty(store)? {
        return Ok(());
    }
    tracing::info!("dropping the indexes, which the settings do not ask for");
    let mut batch = WriteBatch::default();
    put_nothing(store, &mut batch);
    store.write(batch).map_err(IndexFault::Write)?;
    for family in INDEX_FAMILIES {
        // The room comes back at once, not when the tables are rewritten.
        store.db.delete_file_in_range_cf(store.family(family), [].as_slice(), END.as_slice())?;
    }
    Ok(())
}

/// Whether there is nothing of the indexes at all.
fn is_empty(store: &Store) -> Result<bool, StateFault> {
    for family in INDEX_FAMILIES {
        let mut records = tail::records(store, family);
        records.seek_to_first();
        if records.valid() {
            return Ok(false);
        }
        records.status()?;
    }
    Ok(true)
}

fn put_nothing(store: &Store, batch: &mut WriteBatch) {
    for family in INDEX_FAMILIES {
        batch.delete_range_cf(store.family(family), [].as_slice(), END.as_slice());
    }
}

/// How far the indexes on disk go; None if they do not hold what they say.
fn read_indexed(store: &Store, tip: Height) -> Result<Option<Indexed>, StateFault> {
    let Some(value) = store.db.get_cf(store.family(schema::TRANSACTIONS), schema::TRANSACTIONS_INDEXED)? else {
        return Ok(is_empty(store)?.then_some(Indexed::NONE));
    };
    let (height, count) = schema::decode_indexed(&value).ok_or(damaged("height of the indexes"))?;
    let mut has_last = true;
    for family in BLOCK_FAMILIES {
        has_last &= tail::has_index_blocks(store, family, height)?;
    }
    // Without the unspent outputs at its height, an index cannot go on from the blocks alone.
    let goes_on = height == tip || read_building(store)? == Some(height);
    // A tip below it has lost its newest blocks, which come back from peers as they were.
    if height > tip || !has_last || !goes_on {
        tracing::warn!(%height, count, has_last, "the indexes are not whole: building them again");
        return Ok(None);
    }
    Ok(Some(Indexed { height: Some(height), count }))
}

/// Counts again what the indexes hold, and returns whether it is what they say: every block's record, and every transaction.
pub(in crate::state) fn recount(store: &Store, indexed: Indexed) -> Result<bool, StateFault> {
    let blocks = indexed.height.map_or(0, |height| u64::from(height.to_u32()) + 1);
    for family in BLOCK_FAMILIES {
        let mut records = tail::records(store, family);
        records.seek_to_first();
        let (mut found, mut transactions) = (0, 0);
        while let Some(key) = records.key() {
            found += u64::from(schema::is_block_key(key));
            transactions += u64::from(family == schema::TRANSACTIONS && key.len() == TXID_BYTES);
            records.next();
        }
        records.status()?;
        if found != blocks || family == schema::TRANSACTIONS && transactions != indexed.count {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The height whose unspent outputs `building` holds; None if it is empty.
fn read_building(store: &Store) -> Result<Option<Height>, StateFault> {
    let value = store.db.get_cf(store.family(schema::BUILDING), schema::BUILDING_HEIGHT)?;
    value.map(|value| schema::decode_height(&value).ok_or(damaged("height of the building index"))).transpose()
}

/// The indexes of a store on their way to the tip.
struct Building<'a> {
    store: &'a Store,
    indexed: Indexed,
    /// What this write changes of the unspent outputs: one that was created, or None for one that was spent.
    changes: HashMap<OutPoint, Option<SpentOutput>>,
    /// What this write adds to the sums of scripts.
    sums: HashMap<ScriptId, Statistics>,
}

impl Building<'_> {
    /// How many blocks up to `tip` are not in the indexes.
    fn behind(&self, tip: Height) -> u32 {
        self.indexed.next().and_then(|next| tip.blocks_since(next)).map_or(0, |above| above + 1)
    }

    /// Puts blocks from `start` on into a batch, until it is full or the tip is in it. Returns the last one's height.
    fn put_blocks(&mut self, batch: &mut WriteBatch, start: Height, tip: Height) -> Result<Height, IndexFault> {
        let before = self.indexed.count;
        let mut height = start;
        loop {
            let missing = || IndexFault::Block(damaged("block"));
            let bytes = self.store.block_bytes(height).map_err(IndexFault::Block)?.ok_or_else(missing)?;
            let block = parse_block(bytes).map_err(|_| missing())?;
            let spent = self.apply(height, &block)?;
            let sums = &mut self.sums;
            self.indexed = self.store.put_index(batch, self.indexed, height, &block, &spent, |_, id, more| {
                let sum = sums.entry(id).or_default();
                *sum = sum.checked_add(more).ok_or(damaged("statistics of a script"))?;
                Ok(())
            })?;
            let is_full = self.indexed.count - before >= self.store.index_batch_transactions
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

    /// Puts the unspent outputs after the last block into a batch, or that none are needed any more.
    fn put_changes(&mut self, batch: &mut WriteBatch, is_last: bool) -> Result<(), StateFault> {
        let family = self.store.family(schema::BUILDING);
        if is_last {
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
        if let Some(height) = self.indexed.height {
            batch.put_cf(family, schema::BUILDING_HEIGHT, schema::encode_height(height));
        }
        Ok(())
    }
}
