//! The store of one chain: one read for a block, and one write.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, OutPoint, Txid};
use causeway_chainspec::{ChainSpec, Height};
use rocksdb::{ColumnFamily, DB, IteratorMode, WriteBatch, WriteOptions};

use super::coins::CoinMemory;
use super::damage;
use super::index::{Index, IndexState, Indexed, Parts, TxPlace};
use super::open::{self, OpenError};
use super::reads::Threads;
use super::schema::{self, decode_outpoint};
use crate::coin::{Coin, encode_outpoint};
use crate::commitment::LtHash;
use crate::connect::ConnectedBlock;
use crate::error::StateFault;
use crate::peg::record::RecordKey;
use crate::resolve::ChainView;
use crate::tip::Tip;
use crate::workers::Workers;

/// Coins are flushed after so many blocks, whatever the caller asks, so that opening never replays more.
const MAX_BLOCKS_BEHIND: u32 = 1_000;

/// How much memory a store may take, and what it keeps besides the chain.
///
/// Besides what is named here, RocksDB holds the indexes and filters of tables that it has open, some 1.5 MiB for each of
/// 512 at most, and, while pending coins are written, they are there twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreOptions {
    /// Coins kept in memory besides those that wait to be written, in bytes.
    pub coin_cache_bytes: usize,
    /// Coins that wait to be written ([`CoinFlush::Later`]), in bytes: they are written when there are more.
    pub pending_coin_bytes: usize,
    /// RocksDB's cache of table blocks, in bytes.
    pub block_cache_bytes: usize,
    /// Writes to one of the twelve column families that RocksDB gathers before they go to a table file, in bytes; twice that
    /// while they go there. All of them together take some 512 MiB at most, as their logs are bounded.
    pub write_buffer_bytes: usize,
    /// The indexes to keep.
    pub index: Index,
    /// Whether opening leaves indexes that take long to build to [`Store::build_index`].
    pub build_index_later: bool,
    /// Transactions that one write holds while the indexes are built, some 1,500 bytes of memory each. A building that is
    /// stopped goes on after the last write.
    pub index_batch_transactions: u64,
}

impl Default for StoreOptions {
    /// 256 MiB of coins, 512 MiB of those that wait, 64 MiB of table blocks, 64 MiB of writes; with the indexes, which opening
    /// builds.
    fn default() -> Self {
        Self {
            coin_cache_bytes: 256 << 20,
            pending_coin_bytes: 512 << 20,
            block_cache_bytes: 64 << 20,
            write_buffer_bytes: 64 << 20,
            index: Index::All,
            build_index_later: false,
            index_batch_transactions: 20_000,
        }
    }
}

/// When the coins of a block go to disk. The block itself always goes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CoinFlush {
    /// With the block: at the tip of the chain.
    WithBlock,
    /// Some blocks later, many changes at once: during sync.
    Later,
}

/// A block that is on disk. The last stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommittedBlock {
    height: Height,
    hash: BlockHash,
}

impl CommittedBlock {
    /// The block's height.
    pub fn height(&self) -> Height {
        self.height
    }

    /// The block's id.
    pub fn hash(&self) -> BlockHash {
        self.hash
    }
}

/// The final blocks of one chain and the coins after them.
///
/// Any number of threads may read, also while a block is written: every read sees one state, the one before until the whole
/// block is on disk, and no write waits for a read. Only a view of the indexes waits for the write, and all wait for
/// [`Store::flush_coins`].
#[derive(Debug)]
pub struct Store {
    pub(super) db: DB,
    pub(super) path: PathBuf,
    pub(super) state: RwLock<State>,
    /// [`StoreOptions::index_batch_transactions`].
    pub(super) index_batch_transactions: u64,
    /// Held by whoever writes, and by whoever must not see the database ahead of the state. Locked before the state.
    pub(super) writing: Mutex<Parts>,
    pub(super) stopped: AtomicBool,
    /// Those that help to read coins.
    pub(super) threads: Threads,
    /// Where blocks or certificates are missing.
    pub(super) holes: Mutex<BTreeSet<Height>>,
    /// Held for as long as the store is open.
    pub(super) _lock: File,
}

/// What changes with a commit.
#[derive(Debug)]
pub(super) struct State {
    pub(super) tip: Arc<Tip>,
    /// The height whose coins are on disk.
    pub(super) flushed: Height,
    /// How many coins there are after `tip`.
    pub(super) coin_count: u64,
    pub(super) coins: CoinMemory,
    /// Pending coins are written when they take this much memory, whatever the caller asks.
    pub(super) pending_coin_bytes: usize,
    /// Records of the peg that changed since `flushed`, by key.
    pub(super) peg_pending: BTreeMap<RecordKey, Option<Vec<u8>>>,
    /// What the peg's history holds where the block that is being written writes, by key: the disk may be ahead.
    pub(super) history: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// What the indexes hold; None if they are not kept, or are damaged.
    pub(super) indexed: Option<Indexed>,
    /// Why there are none, if there are none.
    pub(super) no_index: IndexState,
}

impl Store {
    /// Opens the store of `spec`'s chain in the directory `path`, or makes a new one there.
    ///
    /// Replays, on the threads of `workers`, the final blocks whose coins had not been written; the log says how far.
    ///
    /// # Errors
    /// [`OpenError`], each with what to do. A store of another chain or format is left as it is, but for RocksDB's own
    /// bookkeeping.
    pub fn open(path: &Path, spec: &ChainSpec, options: StoreOptions, workers: &Workers) -> Result<Self, OpenError> {
        open::open(path, spec, options, workers)
    }

    /// The directory of the store.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a connected block, with the encoded certificate that makes it final. It is on disk when this returns.
    ///
    /// Committing the block that is the tip already does nothing.
    ///
    /// # Errors
    /// [`StateFault`]: the block does not stand on the tip, or the write failed; after that nothing more is written.
    pub fn commit(
        &self,
        connected: &ConnectedBlock,
        certificate: &[u8],
        flush: CoinFlush,
    ) -> Result<CommittedBlock, StateFault> {
        let mut parts = self.lock_writing();
        // Nobody else changes it.
        let state = self.read_state();
        let (height, hash) = (connected.tip().height(), connected.tip().hash());
        let committed = CommittedBlock { height, hash };
        if state.tip.hash() == hash {
            return Ok(committed);
        }
        if connected.parent().hash() != state.tip.hash() {
            let (parent, tip) = (connected.parent().hash(), state.tip.hash());
            return Err(StateFault::NotOnTip { height, parent, tip });
        }
        drop(state);
        let mut batch = WriteBatch::default();
        let indexed = self.put_index_if_whole(&mut batch, connected, &mut parts);
        let state = self.read_state();
        let block = connected.block();
        self.put_block(&mut batch, height, block.header(), block.bytes(), connected.tip().median_time_past());
        batch.put_cf(self.family(schema::CERTIFICATES), schema::height_key(height), certificate);
        batch.put_cf(self.family(schema::META), schema::META_TIP, schema::encode_tip(height, hash));

        let coin_count = state.count_after(connected)?;
        let flush_coins = flush == CoinFlush::WithBlock || state.flush_is_due();
        if flush_coins {
            self.put_coins(&mut batch, state.coins.pending());
            self.put_coins(&mut batch, connected.delta().changes());
            self.put_peg(&mut batch, state.peg_pending.iter().map(|(key, value)| (key, value.as_ref())));
            self.put_peg(&mut batch, connected.peg_changes().iter().map(|(key, change)| (key, change.after.as_ref())));
            self.put_flushed(&mut batch, connected.tip(), coin_count, state.flushed);
        }
        drop(state);
        let history = self.put_history(&mut batch, connected)?;
        {
            // From now on the disk may be ahead of the state.
            let mut state = self.write_state();
            state.history = history;
            if flush_coins {
                state.coins.expect(height, connected.delta());
            }
        }
        self.write(batch)?;
        let mut state = self.write_state();
        if flush_coins {
            state.apply_flushed(connected, coin_count);
        } else {
            state.apply(connected, coin_count);
        }
        // A reader may have found damage meanwhile.
        state.indexed = state.indexed.and(indexed);
        Ok(committed)
    }

    /// Writes the coins that wait in memory, if any. Opening is then quick.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn flush_coins(&self) -> Result<(), StateFault> {
        let _writing = self.lock_writing();
        let mut state = self.write_state();
        if state.flushed == state.tip.height() {
            return Ok(());
        }
        let mut batch = WriteBatch::default();
        self.put_coins(&mut batch, state.coins.pending());
        self.put_peg(&mut batch, state.peg_pending.iter().map(|(key, value)| (key, value.as_ref())));
        self.put_flushed(&mut batch, &state.tip, state.coin_count, state.flushed);
        self.write(batch)?;
        state.flushed();
        Ok(())
    }

    /// Returns the serialised final block at `height`, or None above the tip and where it is missing ([`Store::holes`]).
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn block_bytes(&self, height: Height) -> Result<Option<Vec<u8>>, StateFault> {
        if height > self.tip().height() { Ok(None) } else { self.or_hole(height, self.read_block(height)) }
    }

    /// Returns the encoded commit certificate of the block at `height`; None for derived blocks, above the tip, and where it is
    /// missing ([`Store::holes`]).
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn certificate(&self, height: Height) -> Result<Option<Vec<u8>>, StateFault> {
        if height > self.tip().height() { Ok(None) } else { self.or_hole(height, self.read_certificate(height)) }
    }

    /// Returns the header at `height`, or None above the tip.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn header(&self, height: Height) -> Result<Option<Header>, StateFault> {
        let record = if height > self.tip().height() { None } else { self.read_header(height)? };
        Ok(record.map(|(header, _)| header))
    }

    /// Returns the height of the final block `hash`, or None if there is none.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn height_of(&self, hash: BlockHash) -> Result<Option<Height>, StateFault> {
        let tip = self.tip().height();
        Ok(self.read_height(hash)?.filter(|height| *height <= tip))
    }

    /// Whether the indexes are there: kept ([`StoreOptions::index`]), and not damaged.
    pub fn has_index(&self) -> bool {
        self.read_state().indexed.is_some()
    }

    /// What there is of the indexes.
    pub fn index_state(&self) -> IndexState {
        let state = self.read_state();
        if state.indexed.is_some() { IndexState::Whole } else { state.no_index }
    }

    /// Returns where a transaction of a final block stands. None if no final block holds it, or if there is no index
    /// ([`Store::has_index`]).
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn transaction_place(&self, txid: &Txid) -> Result<Option<TxPlace>, StateFault> {
        match self.index_view() {
            Some(view) => view.place(txid),
            None => Ok(None),
        }
    }

    /// Calls `each` with every coin of one state, in no particular order. Commits go on meanwhile.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn for_each_coin(&self, mut each: impl FnMut(&OutPoint, &Coin)) -> Result<(), StateFault> {
        let (pending, on_disk) = {
            let _no_commit = self.lock_writing();
            let state = self.read_state();
            let pending: HashMap<_, _> =
                state.coins.pending().map(|(outpoint, change)| (*outpoint, change.cloned())).collect();
            // An iterator sees the database as it was when it was made.
            (pending, self.db.iterator_cf(self.family(schema::COINS), IteratorMode::Start))
        };
        for (outpoint, coin) in &pending {
            if let Some(coin) = coin {
                each(outpoint, coin);
            }
        }
        for entry in on_disk {
            let (key, value) = entry?;
            if *key == *schema::COINS_FLUSHED || schema::decode_flush_key(&key).is_some() {
                continue;
            }
            let damaged = StateFault::Damaged { record: "coin" };
            let Some((outpoint, coin)) = decode_outpoint(&key).zip(Coin::decode(&value)) else { return Err(damaged) };
            if !pending.contains_key(&outpoint) {
                each(&outpoint, &coin);
            }
        }
        Ok(())
    }

    /// Returns the hash of all coins, computed from every single one of them.
    ///
    /// It equals [`Tip::coins`] of the tip, if no block was committed meanwhile, or the store is damaged.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn recompute_coins_hash(&self) -> Result<LtHash, StateFault> {
        let mut hash = LtHash::empty();
        self.for_each_coin(|outpoint, coin| hash.add(outpoint, coin))?;
        Ok(hash)
    }

    /// Puts a block's own records into a batch: all but certificate and tip.
    pub(super) fn put_block(&self, batch: &mut WriteBatch, height: Height, header: &Header, bytes: &[u8], median: u32) {
        let key = schema::height_key(height);
        batch.put_cf(self.family(schema::HEADERS), key, schema::encode_header(header, median));
        batch.put_cf(self.family(schema::HEIGHTS), header.block_hash().to_byte_array(), schema::encode_height(height));
        batch.put_cf(self.family(schema::BLOCKS), key, bytes);
    }

    /// Puts changes of coins into a batch; a later change of a coin wins.
    pub(super) fn put_coins<'a>(
        &self,
        batch: &mut WriteBatch,
        changes: impl Iterator<Item = (&'a OutPoint, Option<&'a Coin>)>,
    ) {
        let family = self.family(schema::COINS);
        for (outpoint, change) in changes {
            match change {
                Some(coin) => batch.put_cf(family, encode_outpoint(outpoint), coin.encode()),
                None => batch.delete_cf(family, encode_outpoint(outpoint)),
            }
        }
    }

    /// Puts changes of the peg's records into a batch; a later change of a record wins.
    pub(super) fn put_peg<'a>(
        &self,
        batch: &mut WriteBatch,
        changes: impl Iterator<Item = (&'a RecordKey, Option<&'a Vec<u8>>)>,
    ) {
        let family = self.family(schema::PEG);
        for (key, change) in changes {
            match change {
                Some(value) => batch.put_cf(family, key, value),
                None => batch.delete_cf(family, key),
            }
        }
    }

    /// Puts into a batch that the coins and the peg on disk are those after `tip`, and were those of `before`.
    pub(super) fn put_flushed(&self, batch: &mut WriteBatch, tip: &Tip, coin_count: u64, before: Height) {
        batch.put_cf(self.family(schema::PEG), schema::PEG_FLUSHED, schema::encode_peg_flushed(tip));
        let coins = self.family(schema::COINS);
        batch.put_cf(coins, schema::flush_key(tip.height()), schema::encode_height(before));
        batch.put_cf(coins, schema::COINS_FLUSHED, schema::encode_flushed(tip, coin_count));
    }

    /// Writes a batch and waits until it is on disk. After a failure nothing is written any more.
    pub(super) fn write(&self, batch: WriteBatch) -> Result<(), StateFault> {
        if self.stopped.load(Ordering::SeqCst) {
            return Err(StateFault::Stopped);
        }
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.db.write_opt(batch, &options).map_err(|error| {
            self.stopped.store(true, Ordering::SeqCst);
            if damage::names_index_file(&self.db, &error) {
                // RocksDB came upon it while it rewrote tables, and writes nothing at all any more.
                damage::note(&self.path, &error);
            }
            error.into()
        })
    }

    pub(super) fn read_block(&self, height: Height) -> Result<Option<Vec<u8>>, StateFault> {
        Ok(self.db.get_cf(self.family(schema::BLOCKS), schema::height_key(height))?)
    }

    pub(super) fn read_certificate(&self, height: Height) -> Result<Option<Vec<u8>>, StateFault> {
        Ok(self.db.get_cf(self.family(schema::CERTIFICATES), schema::height_key(height))?)
    }

    pub(super) fn read_height(&self, hash: BlockHash) -> Result<Option<Height>, StateFault> {
        let value = self.db.get_cf(self.family(schema::HEIGHTS), hash.to_byte_array())?;
        let decode =
            |value: Vec<u8>| schema::decode_height(&value).ok_or(StateFault::Damaged { record: "height of a block" });
        value.map(decode).transpose()
    }

    /// The header at a height, and the median time past with it.
    pub(super) fn read_header(&self, height: Height) -> Result<Option<(Header, u32)>, StateFault> {
        let value = self.db.get_cf(self.family(schema::HEADERS), schema::height_key(height))?;
        let decode = |value: Vec<u8>| schema::decode_header(&value).ok_or(StateFault::Damaged { record: "header" });
        value.map(decode).transpose()
    }

    pub(super) fn family(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("every column family is opened with the database")
    }

    pub(super) fn read_state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(|poisoned| self.stop(poisoned))
    }

    pub(super) fn write_state(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(|poisoned| self.stop(poisoned))
    }

    pub(super) fn lock_writing(&self) -> MutexGuard<'_, Parts> {
        self.writing.lock().unwrap_or_else(|poisoned| self.stop(poisoned))
    }

    /// After a panic in the middle of a change, what is in memory is not to be built on.
    fn stop<Guard>(&self, poisoned: PoisonError<Guard>) -> Guard {
        self.stopped.store(true, Ordering::SeqCst);
        poisoned.into_inner()
    }
}

impl State {
    /// Takes a connected block in, after which there are `coin_count` coins.
    pub(super) fn apply(&mut self, connected: &ConnectedBlock, coin_count: u64) {
        self.coin_count = coin_count;
        self.coins.apply(connected.delta());
        self.history.clear();
        let changes = connected.peg_changes().iter();
        self.peg_pending.extend(changes.map(|(key, change)| (key.clone(), change.after.clone())));
        self.tip = Arc::clone(connected.tip());
    }

    /// Takes in a connected block that is on disk with all its changes, after which there are `coin_count` coins.
    fn apply_flushed(&mut self, connected: &ConnectedBlock, coin_count: u64) {
        self.coin_count = coin_count;
        self.coins.apply_flushed(connected.delta());
        self.peg_pending.clear();
        self.history.clear();
        self.tip = Arc::clone(connected.tip());
        self.flushed = self.tip.height();
    }

    /// How many coins there are after a block on the tip.
    pub(super) fn count_after(&self, connected: &ConnectedBlock) -> Result<u64, StateFault> {
        let delta = connected.delta();
        let count = (self.coin_count + delta.created.len() as u64).checked_sub(delta.spent.len() as u64);
        count.ok_or(StateFault::Damaged { record: "number of coins" })
    }

    pub(super) fn flush_is_due(&self) -> bool {
        let behind = self.tip.height().to_u32() - self.flushed.to_u32();
        behind >= MAX_BLOCKS_BEHIND || self.coins.pending_bytes() >= self.pending_coin_bytes
    }

    /// The pending coins and records of the peg are on disk now.
    pub(super) fn flushed(&mut self) {
        self.coins.flushed();
        self.peg_pending.clear();
        self.flushed = self.tip.height();
    }
}
