//! Opening a store: whose it is, whether it is whole, and what it still has to replay.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, RwLock};

use bitcoin::BlockHash;
use bitcoin::consensus::serialize;
use causeway_chainspec::{ChainId, ChainSpec, Height, LAST_DERIVED_HEIGHT};
use rocksdb::{DB, IteratorMode, ReadOptions, WriteBatch};

use super::coins::CoinMemory;
use super::index::{self, Index};
use super::schema::{self, FORMAT_VERSION};
use super::store::{State, Store, StoreOptions};
use crate::block::parse_block;
use crate::check::check_block;
use crate::connect::reconnect_block;
use crate::error::{ConnectError, ReplayError, ResolveError, StateFault};
use crate::peg::script::EpochScripts;
use crate::peg::{PegNetwork, PegState};
use crate::resolve::resolve;
use crate::tip::{Tip, median, push_time};
use crate::workers::Workers;

/// The file whose lock says that a process has the store open.
const LOCK_FILE: &str = "causeway.lock";

/// RocksDB's directory within the store's.
const DATABASE_DIRECTORY: &str = "chain";

/// RocksDB's file that names its current state. A database without it looks new to RocksDB, which would delete its tables.
const CURRENT_FILE: &str = "CURRENT";

/// What counting reads ahead.
const READAHEAD_BYTES: usize = 2 << 20;

/// Blocks between two lines of progress in the log while replaying.
const REPLAY_LOG_BLOCKS: u32 = 100;

/// Why a store could not be opened, and what to do.
#[expect(missing_docs, reason = "every variant is documented, and its message names its fields")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it open.
    #[error("{} is in use by another process: stop that one first, or choose another directory", path.display())]
    Locked { path: PathBuf },
    /// The directory cannot be written to.
    #[error("{} cannot be written to: check its owner, its permissions and that its file system is not read-only", path.display())]
    ReadOnly {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// No room on the disk.
    #[error("no space is left for {}: free some and start again; nothing is lost", path.display())]
    NoSpace { path: PathBuf },
    /// The directory cannot be made or read.
    #[error("{} cannot be opened: check that the path is a directory on a working disk", path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// It holds another chain.
    #[error("{} holds chain {found}, not {expected}: use the chainspec that it was made with, or another directory", path.display())]
    OtherChain { path: PathBuf, found: ChainId, expected: ChainId },
    /// It was written by another version.
    #[error("{} has state format {found}, this build needs {FORMAT_VERSION}: use the build that wrote it, or another directory and sync again", path.display())]
    OtherFormat { path: PathBuf, found: u32 },
    /// It was written by a newer version, which keeps more in it.
    #[error("{} was written by a newer build: use that one, or another directory and sync again", path.display())]
    NewerFormat {
        path: PathBuf,
        #[source]
        source: rocksdb::Error,
    },
    /// What is on disk is not what was written.
    #[error("{} is damaged ({what}): restore the directory from a copy, or delete it and sync again", path.display())]
    Damaged {
        path: PathBuf,
        what: &'static str,
        #[source]
        source: Option<rocksdb::Error>,
    },
    /// The database could not be opened for another reason.
    #[error("the database in {} cannot be opened: see the cause, and check the disk and the limit of open files", path.display())]
    Database {
        path: PathBuf,
        #[source]
        source: rocksdb::Error,
    },
    /// Reading or replaying failed after the database was open.
    #[error("the state in {} could not be loaded", path.display())]
    Load {
        path: PathBuf,
        #[source]
        source: StateFault,
    },
}

pub(super) fn open(
    path: &Path,
    spec: &ChainSpec,
    options: StoreOptions,
    workers: &Workers,
) -> Result<Store, OpenError> {
    std::fs::create_dir_all(path).map_err(|error| directory_error(path, error))?;
    let lock = lock(path)?;
    let directory = path.join(DATABASE_DIRECTORY);
    refuse_headless_database(path, &directory)?;
    let families = schema::column_families(options);
    let db = DB::open_cf_descriptors(&schema::database_options(), &directory, families)
        .map_err(|error| database_error(path, error))?;

    // The derived chain is what a new store starts from; an older one replaces it below.
    let family = |name: &str| db.cf_handle(name).expect("every column family is opened with the database");
    let scripts_key = schema::scripts_key(spec.federation().number());
    let scripts = db.get_cf(family(schema::META), &scripts_key).map_err(|error| database_error(path, error))?;
    let scripts = scripts.and_then(|bytes| EpochScripts::decode(spec.federation(), &bytes).ok());
    let cached = scripts.is_some();
    let scripts = scripts.unwrap_or_else(|| EpochScripts::build(spec.federation()));
    let encoded_scripts = scripts.encode();
    let (tip, coins) = Tip::of_derived_blocks(spec, Arc::new(PegNetwork::with_scripts(spec, scripts)));
    let state = State {
        tip: Arc::new(tip),
        flushed: LAST_DERIVED_HEIGHT,
        coin_count: coins.len() as u64,
        coins: CoinMemory::new(options.coin_cache_bytes),
        peg_pending: BTreeMap::new(),
        indexed: None,
    };
    let store = Store {
        db,
        path: path.to_owned(),
        state: RwLock::new(state),
        writing: Mutex::default(),
        stopped: AtomicBool::new(false),
        _lock: lock,
    };
    let load_error = |source| OpenError::Load { path: path.to_owned(), source };
    if is_new(&store, path)? {
        let mut batch = WriteBatch::default();
        put_derived_blocks(&store, &mut batch, spec);
        batch.put_cf(store.family(schema::META), &scripts_key, &encoded_scripts);
        let peg = store.read_state().tip.peg().clone();
        peg.records().for_each(|(key, value)| batch.put_cf(store.family(schema::PEG), key, value));
        store.put_coins(&mut batch, coins.iter().map(|(outpoint, coin)| (outpoint, Some(coin))));
        store.put_flushed(&mut batch, &store.read_state().tip, coins.len() as u64);
        store.write(batch).map_err(load_error)?;
    } else {
        check_identity(&store, path, spec)?;
        load(&store, spec, workers).map_err(load_error)?;
        if !cached {
            let mut batch = WriteBatch::default();
            batch.put_cf(store.family(schema::META), &scripts_key, &encoded_scripts);
            store.write(batch).map_err(load_error)?;
        }
    }
    match options.index {
        Index::All => index::catch_up(&store, options.index_batch_transactions).map_err(load_error)?,
        Index::None => index::drop_index(&store).map_err(load_error)?,
    }
    Ok(store)
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path.join(LOCK_FILE));
    let file = file.map_err(|error| directory_error(path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(directory_error(path, error)),
    }
}

fn refuse_headless_database(path: &Path, directory: &Path) -> Result<(), OpenError> {
    if directory.join(CURRENT_FILE).exists() {
        return Ok(());
    }
    let tables = match std::fs::read_dir(directory) {
        Ok(entries) => entries.filter_map(Result::ok).any(|entry| {
            entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "sst" || extension == "blob" || extension == "log")
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(directory_error(path, error)),
    };
    if tables {
        return Err(damaged(path, "its file CURRENT is missing"));
    }
    Ok(())
}

fn damaged(path: &Path, what: &'static str) -> OpenError {
    OpenError::Damaged { path: path.to_owned(), what, source: None }
}

fn directory_error(path: &Path, source: io::Error) -> OpenError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => OpenError::ReadOnly { path, source },
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => OpenError::NoSpace { path },
        _ => OpenError::Directory { path, source },
    }
}

/// RocksDB gives the operating system's reason as text only.
fn database_error(path: &Path, source: rocksdb::Error) -> OpenError {
    let path = path.to_owned();
    let text = source.as_ref();
    if text.contains("No space left on device") || text.contains("Disk quota exceeded") {
        OpenError::NoSpace { path }
    } else if text.contains("Permission denied") || text.contains("Read-only file system") {
        let source = io::Error::new(io::ErrorKind::PermissionDenied, source);
        OpenError::ReadOnly { path, source }
    } else if text.contains("Column families not opened") {
        OpenError::NewerFormat { path, source }
    } else if source.kind() == rocksdb::ErrorKind::Corruption || text.contains("No such file or directory") {
        OpenError::Damaged { path, what: "the database says so", source: Some(source) }
    } else {
        OpenError::Database { path, source }
    }
}

/// Whether nothing has been written yet: the first write is one batch, with the format in it.
fn is_new(store: &Store, path: &Path) -> Result<bool, OpenError> {
    let format = store.db.get_cf(store.family(schema::META), schema::META_FORMAT);
    if format.map_err(|error| database_error(path, error))?.is_some() {
        return Ok(false);
    }
    if store.db.latest_sequence_number() > 0 {
        return Err(damaged(path, "it was written to, but has no format version"));
    }
    Ok(true)
}

fn put_derived_blocks(store: &Store, batch: &mut WriteBatch, spec: &ChainSpec) {
    let mut times = Vec::new();
    let mut tip = None;
    for height in (0..=LAST_DERIVED_HEIGHT.to_u32()).map(Height) {
        let block = spec.derived_block(height).expect("heights 0 to 100 are derived");
        push_time(&mut times, block.header.time);
        store.put_block(batch, height, &block.header, &serialize(&block), median(&times));
        tip = Some((height, block.block_hash()));
    }
    let (height, hash) = tip.expect("there is a block 0");
    let meta = store.family(schema::META);
    batch.put_cf(meta, schema::META_FORMAT, FORMAT_VERSION.to_le_bytes());
    batch.put_cf(meta, schema::META_CHAIN, spec.chain_id().to_byte_array());
    batch.put_cf(meta, schema::META_TIP, schema::encode_tip(height, hash));
}

fn check_identity(store: &Store, path: &Path, spec: &ChainSpec) -> Result<(), OpenError> {
    let read = |key| store.db.get_cf(store.family(schema::META), key).map_err(|error| database_error(path, error));
    let format = read(schema::META_FORMAT)?.and_then(|value| value.try_into().ok()).map(u32::from_le_bytes);
    match format {
        Some(FORMAT_VERSION) => {}
        Some(found) => return Err(OpenError::OtherFormat { path: path.to_owned(), found }),
        None => return Err(damaged(path, "its format version is unreadable")),
    }
    let found = read(schema::META_CHAIN)?.and_then(|value| value.try_into().ok()).map(ChainId::from_byte_array);
    let found = found.ok_or_else(|| damaged(path, "its chain id is unreadable"))?;
    let expected = spec.chain_id();
    if found != expected {
        return Err(OpenError::OtherChain { path: path.to_owned(), found, expected });
    }
    Ok(())
}

/// Brings the state in memory to the tip on disk: the state that the coins stand for, and every block after it.
fn load(store: &Store, spec: &ChainSpec, workers: &Workers) -> Result<(), StateFault> {
    let read = |family, key| store.db.get_cf(store.family(family), key);
    let unreadable = |record| StateFault::Damaged { record };
    let tip = read(schema::META, schema::META_TIP)?.as_deref().and_then(schema::decode_tip);
    let (tip, tip_hash) = tip.ok_or_else(|| unreadable("tip"))?;
    let coins = read(schema::COINS, schema::COINS_FLUSHED)?.as_deref().and_then(schema::decode_flushed);
    let (flushed, coin_count, coins) = coins.ok_or_else(|| unreadable("hash of the coins"))?;
    if flushed > tip {
        return Err(StateFault::Damaged { record: "tip" });
    }
    check_tip_records(store, tip, tip_hash)?;
    if count_entries(store, schema::COINS, schema::COINS_FLUSHED)? != coin_count {
        return Err(StateFault::Damaged { record: "number of coins" });
    }

    let mut times = Vec::new();
    let mut hash = None;
    for height in (flushed.to_u32().saturating_sub(10)..=flushed.to_u32()).map(Height) {
        let (header, _) = store.read_header(height)?.ok_or(StateFault::Damaged { record: "header" })?;
        push_time(&mut times, header.time);
        hash = Some(header.block_hash());
    }
    let hash = hash.ok_or_else(|| unreadable("header"))?;
    let peg = load_peg(store, flushed)?;
    {
        let mut state = store.write_state();
        state.tip = Arc::new(Tip::restored(spec, flushed, hash, times, coins, peg));
        state.flushed = flushed;
        state.coin_count = coin_count;
    }
    replay(store, spec, workers, flushed, tip)?;
    if store.read_state().tip.hash() != tip_hash {
        return Err(StateFault::Damaged { record: "tip" });
    }
    Ok(())
}

/// Reads the peg, which must be that of the height whose coins are on disk.
fn load_peg(store: &Store, flushed: Height) -> Result<PegState, StateFault> {
    let damaged = || StateFault::Damaged { record: "peg" };
    let (mut records, mut stamp) = (Vec::new(), None);
    for entry in store.db.iterator_cf(store.family(schema::PEG), IteratorMode::Start) {
        let (key, value) = entry?;
        if *key == *schema::PEG_FLUSHED {
            stamp = schema::decode_peg_flushed(&value);
        } else {
            records.push((key.into_vec(), value.into_vec()));
        }
    }
    let (height, digest) = stamp.ok_or_else(damaged)?;
    if height != flushed {
        return Err(damaged());
    }
    let network = Arc::clone(store.read_state().tip.peg().network());
    PegState::restore(network, digest, records).map_err(|_| damaged())
}

/// Whether every column family has what the batch of the tip put there: none lost its newest table.
fn check_tip_records(store: &Store, tip: Height, hash: BlockHash) -> Result<(), StateFault> {
    let damaged = |record| StateFault::Damaged { record };
    if store.read_header(tip)?.is_none_or(|(header, _)| header.block_hash() != hash) {
        return Err(damaged("header"));
    }
    if store.read_height(hash)? != Some(tip) {
        return Err(damaged("height of a block"));
    }
    if store.read_block(tip)?.is_none() {
        return Err(damaged("block"));
    }
    if tip > LAST_DERIVED_HEIGHT && store.read_certificate(tip)?.is_none() {
        return Err(damaged("certificate"));
    }
    Ok(())
}

/// Counts what a column family holds besides the record `except`, a few million a second: RocksDB opens without some of its
/// tables if its list of them was cut short.
pub(super) fn count_entries(store: &Store, family: &str, except: &[u8]) -> Result<u64, StateFault> {
    let mut options = ReadOptions::default();
    options.fill_cache(false);
    options.set_readahead_size(READAHEAD_BYTES);
    let mut entries = store.db.raw_iterator_cf_opt(store.family(family), options);
    let mut count = 0;
    entries.seek_to_first();
    while let Some(key) = entries.key() {
        count += u64::from(key != except);
        entries.next();
    }
    entries.status()?;
    Ok(count)
}

/// Connects the final blocks above `flushed` again, without their scripts, and writes the coins.
fn replay(store: &Store, spec: &ChainSpec, workers: &Workers, flushed: Height, tip: Height) -> Result<(), StateFault> {
    if flushed == tip {
        return Ok(());
    }
    let blocks = tip.to_u32() - flushed.to_u32();
    tracing::info!(%flushed, %tip, blocks, "replaying final blocks whose coins were not yet written");
    for height in (flushed.to_u32() + 1..=tip.to_u32()).map(Height) {
        let bytes = store.read_block(height)?.ok_or(StateFault::Damaged { record: "block" })?;
        let failed = |source| StateFault::Replay { height, source: Box::new(source) };
        let block = parse_block(bytes).map_err(|error| failed(error.into()))?;
        let checked = check_block(block, spec.params()).map_err(|error| failed(error.into()))?;
        let resolved = resolve(checked, store).map_err(|error| match error {
            ResolveError::Invalid(invalid) => failed(invalid.into()),
            ResolveError::NotReady(not_ready) => failed(ReplayError::NotReady(not_ready)),
            ResolveError::Fault(fault) => fault,
        })?;
        let connected = reconnect_block(resolved, workers).map_err(|error| match error {
            ConnectError::Invalid(invalid) => failed(invalid.into()),
            ConnectError::NotReady(not_ready) => failed(not_ready.into()),
            ConnectError::Fault(fault) => fault,
        })?;
        let mut state = store.write_state();
        let coin_count = state.count_after(&connected)?;
        state.apply(&connected, coin_count);
        drop(state);
        let done = height.to_u32() - flushed.to_u32();
        if done.is_multiple_of(REPLAY_LOG_BLOCKS) {
            tracing::info!(%height, done, blocks, "replaying");
        }
    }
    store.flush_coins()
}
