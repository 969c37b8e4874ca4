//! The store: what is read is what was written, and what it says when it cannot be opened.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bitcoin::hashes::{Hash, sha256};
use bitcoin::hex::DisplayHex;
use bitcoin::{Amount, OutPoint};
use causeway_chainspec::{ChainSpec, Height, LAST_DERIVED_HEIGHT};
use causeway_consensus::state::{
    CoinFlush, FAMILIES, FORMAT_VERSION, Index, OpenError, Store, StoreOptions, family_options,
};
use causeway_consensus::{
    ChainView, Coin, LtHash, NotReady, ResolveError, StateFault, Tip, check_block, parse_block, resolve,
};
use causeway_tests::chain::MemoryChain;
use causeway_tests::history::History;
use causeway_tests::index_model::check_indexed;
use causeway_tests::parent::fund;
use causeway_tests::replay::{connect, describe, open_store, options, replay, workers, write_blocks};
use causeway_tests::wallet::spend;
use rocksdb::{ColumnFamilyDescriptor, DB, IteratorMode, Options, ReadOptions};
use tempfile::TempDir;

fn directory() -> TempDir {
    TempDir::new().expect("a temporary directory")
}

fn open_error(home: &Path) -> (OpenError, String) {
    let error = open_store(home).expect_err("does not open");
    let text = error.to_string();
    (error, text)
}

/// The database's own directory.
fn database(home: &Path) -> PathBuf {
    home.join("chain")
}

fn raw_database(home: &Path) -> DB {
    let families = DB::list_cf(&Options::default(), database(home)).expect("readable");
    let families = families.iter().map(|name| ColumnFamilyDescriptor::new(name, family_options(name)));
    DB::open_cf_descriptors(&Options::default(), database(home), families).expect("opens")
}

fn filled(home: &Path, blocks: usize, flush: CoinFlush) -> History {
    let history = History::new(4, blocks, 10);
    let store = open_store(home).expect("opens");
    replay(&store, &history.blocks, flush, std::io::sink()).expect("replays");
    history
}

#[test]
fn a_new_store_holds_the_derived_chain() {
    let home = directory();
    let spec = ChainSpec::built_in("devnet").expect("built in");
    for _ in 0..2 {
        let store = open_store(home.path()).expect("opens, and opens again");
        assert_eq!(store.tip().height(), LAST_DERIVED_HEIGHT);
        assert_eq!(store.recompute_coins_hash().expect("readable"), *store.tip().coins());
        for height in (0..=LAST_DERIVED_HEIGHT.to_u32()).map(Height) {
            let derived = spec.derived_block(height).expect("derived");
            let stored = store.block_bytes(height).expect("readable").expect("there");
            assert_eq!(stored, bitcoin::consensus::serialize(&derived));
            assert_eq!(store.header(height).expect("readable"), Some(derived.header));
            assert_eq!(store.height_of(derived.block_hash()).expect("readable"), Some(height));
            assert_eq!(store.certificate(height).expect("readable"), None);
        }
        assert_eq!(store.header(Height(101)).expect("readable"), None);
    }
}

#[test]
fn a_full_recomputation_equals_the_incremental_hash_however_coins_are_flushed() {
    let homes = [directory(), directory()];
    let history = filled(homes[0].path(), 60, CoinFlush::WithBlock);
    filled(homes[1].path(), 60, CoinFlush::Later);
    let stores = homes.each_ref().map(|home| open_store(home.path()).expect("opens"));
    assert_eq!(describe(&stores[0]), describe(&stores[1]));
    for store in &stores {
        assert_eq!(store.tip().coins(), history.coins.last().expect("blocks"));
        assert_eq!(store.recompute_coins_hash().expect("readable"), *store.tip().coins());
    }
}

#[test]
fn coins_that_wait_in_memory_are_found_like_those_on_disk() {
    let home = directory();
    let history = History::new(5, 30, 10);
    let spec = ChainSpec::built_in("devnet").expect("built in");
    let store = open_store(home.path()).expect("opens");
    for (index, bytes) in history.blocks.iter().enumerate() {
        let connected = connect(&store, &spec, &workers(), bytes.clone());
        store.commit(&connected, b"", CoinFlush::Later).expect("commits");
        assert_eq!(store.recompute_coins_hash().expect("readable"), history.coins[index]);
        let created: Vec<_> = connected.delta().created.iter().map(|(outpoint, _)| *outpoint).collect();
        let spent: Vec<_> = connected.delta().spent.iter().map(|(outpoint, _)| *outpoint).collect();
        assert!(store.coins(&created).expect("readable").iter().all(Option::is_some));
        assert!(store.coins(&spent).expect("readable").iter().all(Option::is_none));
    }
}

#[test]
fn reads_see_one_state_while_a_block_is_written() {
    let home = directory();
    let history = History::new(7, 60, 40);
    let spec = ChainSpec::built_in("devnet").expect("built in");
    // So few coins are remembered that most are read from disk.
    let options = StoreOptions { coin_cache_bytes: 4 << 10, ..options(Index::All) };
    let store = Store::open(home.path(), &spec, options, &workers()).expect("opens");
    let (before, after) = (AtomicUsize::new(0), AtomicUsize::new(0));
    for (index, bytes) in history.blocks.iter().enumerate() {
        let connected = connect(&store, &spec, &workers(), bytes.clone());
        let created: Vec<_> = connected.delta().created.iter().map(|(outpoint, _)| *outpoint).collect();
        let spent: Vec<_> = connected.delta().spent.iter().map(|(outpoint, _)| *outpoint).collect();
        let outpoints = [created.as_slice(), &spent].concat();
        let read = || {
            let tip = store.tip().hash();
            let coins = store.coins(&outpoints).expect("readable");
            if tip != store.tip().hash() {
                return;
            }
            let (created, spent) = coins.split_at(created.len());
            let is_new = tip == connected.tip().hash();
            assert!(created.iter().all(|coin| coin.is_some() == is_new), "created, and the block is there: {is_new}");
            assert!(spent.iter().all(|coin| coin.is_some() != is_new), "spent, and the block is there: {is_new}");
            let view = store.index_view().expect("indexed");
            if view.tip().hash() == tip {
                let txid = connected.block().transactions()[0].txid();
                assert_eq!(view.place(&txid).expect("readable").is_some(), is_new);
            }
            let count = if is_new { &after } else { &before };
            count.fetch_add(1, Ordering::Relaxed);
        };
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !is_done.load(Ordering::Relaxed) {
                        read();
                    }
                    read();
                });
            }
            read();
            // Some of them wait in memory for the next block that takes all to disk.
            let flush = if index % 3 == 0 { CoinFlush::Later } else { CoinFlush::WithBlock };
            store.commit(&connected, b"", flush).expect("commits");
            is_done.store(true, Ordering::Relaxed);
        });
    }
    let (before, after) = (before.into_inner(), after.into_inner());
    assert!(before >= 60 && after >= 120, "{before} reads of the state before a block, {after} of that after it");
    assert_eq!(store.recompute_coins_hash().expect("readable"), *history.coins.last().expect("blocks"));
}

#[test]
fn committing_twice_does_nothing_and_a_stranger_is_refused() {
    let home = directory();
    let history = History::new(6, 3, 4);
    let spec = ChainSpec::built_in("devnet").expect("built in");
    let store = open_store(home.path()).expect("opens");
    let first = connect(&store, &spec, &workers(), history.blocks[0].clone());
    let committed = store.commit(&first, b"one", CoinFlush::WithBlock).expect("commits");
    assert_eq!(store.commit(&first, b"two", CoinFlush::WithBlock).expect("nothing to do"), committed);
    assert_eq!(store.certificate(Height(101)).expect("readable"), Some(b"one".to_vec()));
    let second = connect(&store, &spec, &workers(), history.blocks[1].clone());
    store.commit(&second, b"", CoinFlush::WithBlock).expect("commits");
    let fault = store.commit(&first, b"", CoinFlush::WithBlock).expect_err("it does not stand on the tip");
    assert!(matches!(fault, StateFault::NotOnTip { height: Height(101), .. }), "{fault}");
    assert_eq!(store.tip().height(), Height(102));
}

/// A state whose tip moves on while its coins are read.
struct Moving<'a> {
    before: &'a MemoryChain,
    after: &'a MemoryChain,
    reads: Cell<u32>,
}

impl ChainView for Moving<'_> {
    fn tip(&self) -> Arc<Tip> {
        if self.reads.get() == 0 { self.before.tip() } else { self.after.tip() }
    }

    fn coins(&self, outpoints: &[OutPoint]) -> Result<Vec<Option<Coin>>, StateFault> {
        self.reads.set(self.reads.get() + 1);
        self.after.coins(outpoints)
    }

    fn median_times(&self, heights: &[Height]) -> Result<Vec<u32>, StateFault> {
        self.after.median_times(heights)
    }
}

/// The block is final by then, and its coins are spent by itself: that must never be called invalid.
#[test]
fn a_block_that_is_committed_while_it_is_resolved_is_not_invalid() {
    let spec = ChainSpec::built_in("devnet").expect("built in");
    let mut before = MemoryChain::new(spec.clone());
    let (_, coin) = fund(&mut before);
    let mut after = before.clone();
    let payment = spend(std::slice::from_ref(&coin), vec![coin.output.clone()]);
    let block = before.next_block(Amount::ZERO, vec![payment]);
    after.accept(&block).expect("valid");
    let view = Moving { before: &before, after: &after, reads: Cell::new(0) };
    let bytes = bitcoin::consensus::serialize(&block);
    let checked = check_block(parse_block(bytes).expect("parses"), spec.params()).expect("passes the checks");
    let error = resolve(checked, &view).expect_err("the tip has moved on");
    assert!(matches!(error, ResolveError::NotReady(NotReady::ParentNotTip { .. })), "{error}");
}

/// Every key and value, of every column family, of a chain with blocks. A change here is a change of the format.
#[test]
fn the_layout_on_disk_is_frozen() {
    let home = directory();
    filled(home.path(), 20, CoinFlush::WithBlock);
    let db = raw_database(home.path());
    let mut engine = sha256::Hash::engine();
    let mut hashes = Vec::new();
    for family in FAMILIES {
        use bitcoin::hashes::HashEngine;
        engine.input(family.as_bytes());
        let mut options = ReadOptions::default();
        options.set_total_order_seek(true);
        for entry in db.iterator_cf_opt(db.cf_handle(family).expect("there"), options, IteratorMode::Start) {
            let (key, value) = entry.expect("readable");
            for part in [key, value] {
                engine.input(&(part.len() as u64).to_le_bytes());
                engine.input(&part);
            }
        }
        let hash = sha256::Hash::from_engine(engine.clone()).to_byte_array().to_lower_hex_string();
        hashes.push((family, hash));
    }
    // Each of all families up to it.
    let frozen = [
        ("coins", "3864640b50d9b1daffec4623da3f3f2f84b33b653a05c435d83ea317fb572f3f"),
        ("peg", "ca8e86a73b697a4973d0b6ea61de02ad2a92bf4e8acbe422cfb8647537b0553a"),
        ("peg-history", "d5e85fb604b71d92da62c27a1430bd45d4840e345d240c1b86426dccf388ad21"),
        ("transactions", "8d4a40c396eeee91138a9cb35582a6513ad66a8a84e6da7444f9f35cb596471a"),
        ("scripts", "9100fdf2385b8eb5610cd60c37801940e359cf4e5ba94d07f685c45cf2210bd0"),
        ("spends", "8df310e356c12cb130cfcf2dfc95949a62d622357a9feb4ba7e0b4d7d186ae23"),
        ("building", "221111b4d53b24efc5cfbf7b5f88d0db1463b2f6a02725e762ffa00633bce778"),
    ];
    assert_eq!(hashes[5..], frozen.map(|(family, hash)| (family, hash.to_owned())));
}

#[test]
fn a_second_process_is_refused() {
    let home = directory();
    let _store = open_store(home.path()).expect("opens");
    let (error, text) = open_error(home.path());
    assert!(matches!(error, OpenError::Locked { .. }), "{text}");
    assert!(text.contains("in use by another process: stop that one first"), "{text}");
}

#[test]
fn a_store_of_another_chain_is_refused() {
    let home = directory();
    drop(open_store(home.path()).expect("opens"));
    let mut parts = ChainSpec::built_in("devnet").expect("built in").to_parts();
    parts.launch[0] ^= 1;
    let other = ChainSpec::new(parts).expect("valid");
    let error = Store::open(home.path(), &other, StoreOptions::default(), &workers()).expect_err("another chain");
    let text = error.to_string();
    assert!(matches!(error, OpenError::OtherChain { .. }), "{text}");
    assert!(text.contains(&other.chain_id().to_string()), "both chains are named: {text}");
}

#[test]
fn a_store_of_another_format_is_refused() {
    let home = directory();
    drop(open_store(home.path()).expect("opens"));
    let db = raw_database(home.path());
    db.put_cf(db.cf_handle("meta").expect("there"), b"format", 99u32.to_le_bytes()).expect("written");
    drop(db);
    let (error, text) = open_error(home.path());
    assert!(matches!(error, OpenError::OtherFormat { found: 99, .. }), "{text}");
    assert!(text.contains(&format!("state format 99, this build needs {FORMAT_VERSION}")), "{text}");
}

#[test]
fn a_store_with_more_in_it_is_refused() {
    let home = directory();
    drop(open_store(home.path()).expect("opens"));
    raw_database(home.path()).create_cf("assets", &Options::default()).expect("made");
    let (error, text) = open_error(home.path());
    assert!(matches!(error, OpenError::NewerFormat { .. }), "{text}");
}

#[test]
fn a_directory_that_is_a_file_is_refused() {
    let home = directory();
    let path = home.path().join("file");
    fs::write(&path, b"").expect("written");
    let (error, text) = open_error(&path);
    assert!(matches!(error, OpenError::Directory { .. }), "{text}");
}

/// As another user if the tests run as root, whom no permission stops.
#[test]
fn a_read_only_directory_is_refused() {
    const NOBODY: u32 = 65_534;
    let home = directory();
    let history = filled(home.path(), 3, CoinFlush::WithBlock);
    let blocks = home.path().join("blocks");
    write_blocks(&blocks, &history.blocks).expect("written");
    let program = home.path().join("replay");
    fs::copy(env!("CARGO_BIN_EXE_causeway-replay"), &program).expect("copied");
    let lock = home.path().join("causeway.lock");
    fs::set_permissions(&lock, fs::Permissions::from_mode(0o444)).expect("ours");
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o555)).expect("ours");

    let mut command = Command::new(&program);
    command.args([home.path().as_os_str(), blocks.as_os_str(), "later".as_ref()]).stdout(Stdio::null());
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command.output().expect("runs");
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).expect("ours");
    fs::set_permissions(&lock, fs::Permissions::from_mode(0o644)).expect("ours");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("cannot be written to: check its owner, its permissions"), "{text}");
    assert!(text.contains("Permission denied"), "{text}");
    assert_eq!(open_store(home.path()).expect("opens again").tip().height(), Height(103));
}

/// RocksDB would make a new database here, and delete the tables of the old one.
#[test]
fn tables_without_the_file_that_names_them_are_not_taken_for_a_new_store() {
    let home = directory();
    filled(home.path(), 30, CoinFlush::WithBlock);
    drop(open_store(home.path()).expect("opens, and moves what the logs hold into tables"));
    for entry in fs::read_dir(database(home.path())).expect("readable") {
        let path = entry.expect("readable").path();
        let is_table = path.extension().is_some_and(|end| end == "sst" || end == "blob");
        if path.is_file() && !is_table {
            fs::remove_file(path).expect("removed");
        }
    }
    let (error, text) = open_error(home.path());
    assert!(matches!(error, OpenError::Damaged { .. }), "{text}");
    assert!(text.contains("CURRENT is missing"), "{text}");
}

#[test]
fn a_database_that_lost_its_format_is_not_taken_for_a_new_store() {
    let home = directory();
    filled(home.path(), 3, CoinFlush::WithBlock);
    let db = raw_database(home.path());
    db.delete_cf(db.cf_handle("meta").expect("there"), b"format").expect("deleted");
    drop(db);
    let (error, text) = open_error(home.path());
    assert!(matches!(error, OpenError::Damaged { .. }), "{text}");
    assert!(text.contains("no format version"), "{text}");
}

/// As if a table was lost that a cut list of tables does not name: what is lost with it are whole writes.
#[test]
fn a_write_that_is_missing_is_missed_when_the_store_opens() {
    let flush_key = |height: u32| [b"flush".as_slice(), &height.to_be_bytes()].concat();
    for (flush, family, key, record) in [
        (CoinFlush::WithBlock, "coins", flush_key(100), "write of coins"),
        (CoinFlush::WithBlock, "coins", flush_key(115), "write of coins"),
        (CoinFlush::WithBlock, "coins", flush_key(130), "write of coins"),
        (CoinFlush::Later, "coins", flush_key(112), "write of coins"),
        (CoinFlush::WithBlock, "headers", 120u32.to_be_bytes().to_vec(), "header"),
        (CoinFlush::WithBlock, "headers", 0u32.to_be_bytes().to_vec(), "header"),
    ] {
        let home = directory();
        filled(home.path(), 30, flush);
        let db = raw_database(home.path());
        let handle = db.cf_handle(family).expect("there");
        assert!(db.get_cf(handle, &key).expect("readable").is_some(), "{family} {key:?}");
        db.delete_cf(handle, &key).expect("deleted");
        drop(db);
        let (error, _) = open_error(home.path());
        let OpenError::Load { source, .. } = error else { panic!("{error}") };
        assert!(
            matches!(source, StateFault::Damaged { record: found } if found == record),
            "{family} {key:?}: {source}"
        );
    }
}

/// Counting them takes longer the more there are: opening does not, and `causeway check` does.
#[test]
fn opening_counts_no_coins_and_the_count_is_kept() {
    let home = directory();
    let history = filled(home.path(), 30, CoinFlush::WithBlock);
    let count = || open_store(home.path()).expect("opens").figures().coins;
    let kept = history.coin_counts.last().copied().expect("blocks");
    assert_eq!(count(), kept as u64);
    let db = raw_database(home.path());
    let coins = db.cf_handle("coins").expect("there");
    let entry = db.iterator_cf(coins, IteratorMode::Start).next().expect("there are coins");
    let (key, _) = entry.expect("readable");
    assert_eq!(key.len(), 36, "an outpoint");
    db.delete_cf(coins, key).expect("deleted");
    drop(db);
    assert_eq!(count(), kept as u64);
    let store = open_store(home.path()).expect("opens");
    let mut found = 0;
    store.for_each_coin(|_, _| found += 1).expect("readable");
    assert_eq!(found, kept - 1);
    assert_ne!(store.recompute_coins_hash().expect("readable"), *store.tip().coins());
}

/// Reads every block and every coin; returns the hash of the coins.
fn read_everything(store: &Store) -> Result<LtHash, StateFault> {
    for height in (0..=store.tip().height().to_u32()).map(Height) {
        let block = store.block_bytes(height)?.ok_or(StateFault::Damaged { record: "block" })?;
        assert_eq!(block[..80], bitcoin::consensus::serialize(&store.header(height)?.expect("and headers")));
    }
    store.recompute_coins_hash()
}

/// Every file of the database in turn: cut short, emptied, overwritten, removed. Either the store opens with all that was
/// committed, or it says that it is damaged. Only where the end of the write-ahead log is missing, which looks like a
/// crash, may it open at an earlier block; the state is that block's, and peers have the final blocks after it.
#[test]
fn damage_is_seen_and_nothing_is_lost_silently() {
    let original = directory();
    // Opening anew moves what the logs hold into tables and blob files. After that the column families that are written
    // most have tables again, and the others wait in several logs.
    filled(original.path(), 30, CoinFlush::WithBlock);
    let history = filled(original.path(), 90, CoinFlush::WithBlock);
    let names: Vec<_> = fs::read_dir(database(original.path()))
        .expect("readable")
        .map(|entry| entry.expect("readable").file_name())
        .collect();
    let logs = names.iter().filter(|name| Path::new(name).extension().is_some_and(|end| end == "log")).count();
    assert!(logs >= 2, "one log is not enough to lose an older one: {names:?}");
    let newest_log = names.iter().filter(|name| Path::new(name).extension().is_some_and(|end| end == "log")).max();
    let (mut refused, mut seen_on_read, mut whole, mut earlier) = (0, 0, 0, 0);
    for name in &names {
        for damage in ["cut in half", "cut to three quarters", "cut at the end", "empty", "overwrite", "remove"] {
            let copy = directory();
            fs::create_dir(database(copy.path())).expect("made");
            for name in &names {
                fs::copy(database(original.path()).join(name), database(copy.path()).join(name)).expect("copied");
            }
            let file = database(copy.path()).join(name);
            let mut bytes = fs::read(&file).expect("readable");
            match damage {
                "cut in half" => bytes.truncate(bytes.len() / 2),
                "cut to three quarters" => bytes.truncate(bytes.len() * 3 / 4),
                "cut at the end" => bytes.truncate(bytes.len().saturating_sub(9)),
                "empty" => bytes.clear(),
                "overwrite" => {
                    let middle = bytes.len() / 2;
                    bytes[middle..].iter_mut().take(64).for_each(|byte| *byte ^= 0xa5);
                }
                _ => {}
            }
            if damage == "remove" {
                fs::remove_file(&file).expect("removed");
            } else {
                fs::write(&file, bytes).expect("written");
            }
            match open_store(copy.path()) {
                Ok(store) => {
                    let tip = store.tip();
                    let Ok(hash) = read_everything(&store).and_then(|hash| check_indexed(&store).map(|()| hash)) else {
                        seen_on_read += 1;
                        continue;
                    };
                    assert_eq!(hash, *tip.coins(), "{damage} {name:?}");
                    let done = (tip.height().to_u32() - LAST_DERIVED_HEIGHT.to_u32()) as usize;
                    assert!(done == 0 || *tip.coins() == history.coins[done - 1], "{damage} {name:?}");
                    let log_ends_early = damage != "overwrite" && Some(name) == newest_log;
                    assert!(done == history.blocks.len() || log_ends_early, "{damage} {name:?}: at {}", tip.height());
                    if done == history.blocks.len() { whole += 1 } else { earlier += 1 }
                }
                Err(OpenError::Damaged { .. } | OpenError::Load { .. }) => refused += 1,
                Err(error) => panic!("{damage} {name:?}: {error}"),
            }
        }
    }
    let files = names.len();
    println!(
        "{files} files in 6 ways: {refused} refused, {seen_on_read} seen on reading, {whole} whole, {earlier} earlier"
    );
    assert!(refused >= 4 && seen_on_read >= 1);
}
