//! Where each transaction stands in the chain: for those who ask, never for validation.

use bitcoin::Txid;
use bitcoin::hashes::Hash;
use causeway_chainspec::{Height, LAST_DERIVED_HEIGHT};
use rocksdb::WriteBatch;

use super::open::count_entries;
use super::schema;
use super::store::Store;
use crate::block::{Tx, parse_block};
use crate::error::StateFault;
use crate::resolve::ChainView;

/// Transactions that one write of the catching up holds before it ends with the block: about 10 MiB of memory.
const BATCH_TRANSACTIONS: u64 = 100_000;

/// Blocks that one write of the catching up holds at most, so that the log says something now and then.
const BATCH_BLOCKS: u32 = 10_000;

/// How far the index goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Indexed {
    /// The height up to which every transaction is in it. None before block 0.
    height: Option<Height>,
    /// How many transactions are in it.
    count: u64,
}

impl Indexed {
    const NONE: Self = Self { height: None, count: 0 };

    /// The height that comes next; None after the last one.
    fn next(self) -> Option<Height> {
        self.height.map_or(Some(Height(0)), Height::next)
    }
}

impl Store {
    /// Puts a block's transactions into a batch, and returns how far the index goes with them.
    pub(super) fn put_transactions(
        &self,
        batch: &mut WriteBatch,
        before: Indexed,
        height: Height,
        txids: impl Iterator<Item = Txid>,
    ) -> Indexed {
        let family = self.family(schema::TRANSACTIONS);
        let mut count = before.count;
        for (place, txid) in (0u32..).zip(txids) {
            batch.put_cf(family, txid.to_byte_array(), schema::encode_place(height, place));
            count += 1;
        }
        Indexed { height: Some(height), count }
    }

    /// Puts into a batch how far the index goes.
    pub(super) fn put_indexed(&self, batch: &mut WriteBatch, indexed: Indexed) {
        if let Some(height) = indexed.height {
            let value = schema::encode_indexed(height, indexed.count);
            batch.put_cf(self.family(schema::TRANSACTIONS), schema::TRANSACTIONS_INDEXED, value);
        }
    }

    pub(super) fn read_place(&self, txid: &Txid) -> Result<Option<(Height, u32)>, StateFault> {
        let value = self.db.get_cf(self.family(schema::TRANSACTIONS), txid.to_byte_array())?;
        let decode = |value: Vec<u8>| {
            schema::decode_place(&value).ok_or(StateFault::Damaged { record: "place of a transaction" })
        };
        value.map(decode).transpose()
    }
}

/// Brings the index to the tip, from where it ends: from block 0 if there is none, or if something of it is missing.
pub(super) fn catch_up(store: &Store) -> Result<(), StateFault> {
    let tip = store.tip().height();
    let found = read_indexed(store, tip)?;
    let mut indexed = found.unwrap_or(Indexed::NONE);
    let first = indexed.next();
    let blocks = first.and_then(|first| tip.blocks_since(first)).map_or(0, |above| above + 1);
    // Those of a new store are no news.
    if blocks > 0 && tip > LAST_DERIVED_HEIGHT {
        tracing::info!(%tip, blocks, "indexing the transactions of blocks that are not in the index");
    }
    let mut done = 0;
    while let Some(start) = indexed.next().filter(|next| *next <= tip) {
        let mut batch = WriteBatch::default();
        if found.is_none() && indexed == Indexed::NONE {
            // Whatever there is does not fit together. Past every txid:
            let end = [0xff; 33];
            batch.delete_range_cf(store.family(schema::TRANSACTIONS), [].as_slice(), end.as_slice());
        }
        let (mut height, before) = (start, indexed);
        loop {
            let bytes = store.read_block(height)?.ok_or(StateFault::Damaged { record: "block" })?;
            let block = parse_block(bytes).map_err(|_| StateFault::Damaged { record: "block" })?;
            let txids = block.transactions().iter().map(Tx::txid);
            indexed = store.put_transactions(&mut batch, indexed, height, txids);
            done += 1;
            let is_full = indexed.count - before.count >= BATCH_TRANSACTIONS
                || height.blocks_since(start).is_some_and(|blocks| blocks + 1 >= BATCH_BLOCKS);
            match height.next().filter(|next| *next <= tip && !is_full) {
                Some(next) => height = next,
                None => break,
            }
        }
        store.put_indexed(&mut batch, indexed);
        store.write(batch)?;
        if height < tip {
            tracing::info!(%height, done, blocks, "indexing");
        }
    }
    store.write_state().indexed = Some(indexed);
    Ok(())
}

/// How far the index on disk goes; None if it does not hold what it says.
fn read_indexed(store: &Store, tip: Height) -> Result<Option<Indexed>, StateFault> {
    let Some(value) = store.db.get_cf(store.family(schema::TRANSACTIONS), schema::TRANSACTIONS_INDEXED)? else {
        return Ok(Some(Indexed::NONE));
    };
    let damaged = StateFault::Damaged { record: "height of the index of transactions" };
    let (height, count) = schema::decode_indexed(&value).ok_or(damaged)?;
    // A tip below it has lost its newest blocks, which come back from peers as they were.
    let found = count_entries(store, schema::TRANSACTIONS, schema::TRANSACTIONS_INDEXED)?;
    if height > tip || found != count {
        tracing::warn!(%height, count, found, "the index of transactions is not whole: building it again");
        return Ok(None);
    }
    Ok(Some(Indexed { height: Some(height), count }))
}
