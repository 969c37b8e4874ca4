//! The indexes: what they say is what the blocks say, however they came to be.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use causeway_chainspec::{ChainSpec, Height, LAST_DERIVED_HEIGHT};
use causeway_consensus::state::{
    CoinFlush, FAMILIES, Index, IndexState, ScriptId, Store, StoreOptions, family_options,
};
use causeway_consensus::{ChainView, parse_block};
use causeway_tests::history::History;
use causeway_tests::index_model::{IndexModel, assert_indexed};
use causeway_tests::replay::{open_store, open_store_with, options, replay, workers, write_blocks};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rocksdb::{ColumnFamilyDescriptor, DB, IteratorMode, Options, ReadOptions};
use tempfile::TempDir;

const INDEX_FAMILIES: [&str; 4] = ["transactions", "scripts", "spends", "building"];

fn directory() -> TempDir {
    TempDir::new().expect("a temporary directory")
}

fn filled(home: &Path, history: &History, index: Index) {
    let store = open_store_with(home, index).expect("opens");
    replay(&store, &history.blocks, CoinFlush::WithBlock, std::io::sink()).expect("replays");
}

fn open_in_steps(home: &Path, index_batch_transactions: u64) -> Store {
    let spec = ChainSpec::built_in("devnet").expect("built in");
    let options = StoreOptions { index_batch_transactions, ..options(Index::All) };
    Store::open(home, &spec, options, &workers()).expect("opens")
}

fn raw(home: &Path) -> DB {
    let families = FAMILIES.map(|name| ColumnFamilyDescriptor::new(name, family_options(name)));
    DB::open_cf_descriptors(&Options::default(), home.join("chain"), families).expect("opens")
}

/// Column family, key and value.
type Record = (&'static str, Box<[u8]>, Box<[u8]>);

/// Every record of the indexes.
fn records(home: &Path) -> Vec<Record> {
    let db = raw(home);
    let of_family = |family: &'static str| {
        let mut options = ReadOptions::default();
        options.set_total_order_seek(true);
        let entries = db.iterator_cf_opt(db.cf_handle(family).expect("there"), options, IteratorMode::Start);
        let record = move |entry: Result<_, _>| {
            let (key, value) = entry.expect("readable");
            (family, key, value)
        };
        entries.map(record).collect::<Vec<_>>()
    };
    INDEX_FAMILIES.into_iter().flat_map(of_family).collect()
}

#[test]
fn after_every_block_they_say_what_the_blocks_say() {
    let mut within = 0;
    for seed in 20..24 {
        let home = directory();
        let history = History::new(seed, 40, 14);
        let store = open_store(home.path()).expect("opens");
        let mut model = IndexModel::default();
        let flush = if seed % 2 == 0 { CoinFlush::WithBlock } else { CoinFlush::Later };
        for blocks in 1..=history.blocks.len() {
            replay(&store, &history.blocks[..blocks], flush, std::io::sink()).expect("replays");
            model.follow(&store).expect("readable");
            let view = store.index_view().expect("there is an index");
            model.compare(&view, blocks % 4 + 1).expect("readable");
        }
        within += model.spent_within();
    }
    assert!(within > 50, "some blocks spend what they create: {within}");
}

#[test]
fn a_view_stays_at_its_tip() {
    let home = directory();
    let history = History::new(25, 30, 10);
    let store = open_store(home.path()).expect("opens");
    let mut model = IndexModel::default();
    for blocks in (1..=history.blocks.len()).step_by(5) {
        model.follow(&store).expect("readable");
        let view = store.index_view().expect("there is an index");
        replay(&store, &history.blocks[..blocks], CoinFlush::WithBlock, std::io::sink()).expect("replays");
        assert!(view.tip().height() < store.tip().height());
        model.compare(&view, 2).expect("readable");
    }
}

#[test]
fn built_from_the_blocks_in_any_steps_they_are_the_same() {
    let history = History::new(26, 50, 12);
    let (grown, built) = (directory(), directory());
    filled(grown.path(), &history, Index::All);
    let expected = records(grown.path());
    filled(built.path(), &history, Index::None);
    for step in [1, 7, 100, 20_000] {
        let store = open_in_steps(built.path(), step);
        assert_indexed(&store);
        drop(store);
        assert_eq!(records(built.path()), expected, "in steps of {step}");
        let store = open_store_with(built.path(), Index::None).expect("opens");
        assert!(!store.has_index());
        assert!(store.index_view().is_none());
        drop(store);
        assert_eq!(records(built.path()), [], "nothing is left");
    }
    // With more blocks in between.
    let more = History::new(26, 60, 12);
    filled(built.path(), &more, Index::None);
    filled(grown.path(), &more, Index::All);
    drop(open_in_steps(built.path(), 5));
    assert_eq!(records(built.path()), records(grown.path()));
}

/// The process that opens the store is killed again and again; each time the next one goes on where it was.
#[test]
fn a_building_that_is_killed_goes_on() {
    let history = History::new(27, 150, 12);
    let directory = directory();
    let (home, blocks) = (directory.path().join("home"), directory.path().join("blocks"));
    let undisturbed = directory.path().join("undisturbed");
    write_blocks(&blocks, &history.blocks).expect("written");
    filled(&undisturbed, &history, Index::All);
    let expected = records(&undisturbed);
    filled(&home, &history, Index::None);
    let mut rng = StdRng::seed_from_u64(27);
    let (mut kills, mut midway, mut went_on) = (0, 0, 0);
    for _ in 0..4 {
        drop(open_store_with(&home, Index::None).expect("opens"));
        let mut before = None;
        loop {
            // One block in each write, and a line for each.
            let mut child = Command::new(env!("CARGO_BIN_EXE_causeway-replay"))
                .args([home.as_os_str(), blocks.as_os_str(), "with-block".as_ref(), "1".as_ref()])
                .stdout(Stdio::piped())
                .spawn()
                .expect("the process starts");
            let output = BufReader::new(child.stdout.take().expect("piped"));
            let lines = output.lines().map_while(Result::ok).filter(|line| line.contains("building the indexes"));
            lines.take(rng.random_range(1..60)).for_each(drop);
            child.kill().expect("the process is ours");
            child.wait().expect("it has ended");
            kills += 1;
            let height = building_height(&home);
            midway += usize::from(height.is_some());
            went_on += usize::from(before.is_some() && (height > before || height.is_none()));
            assert!(before.is_none() || height.is_none() || height >= before, "{before:?} {height:?}");
            before = height;
            if height.is_none() {
                break;
            }
        }
        drop(open_in_steps(&home, 3));
        assert_eq!(records(&home), expected);
    }
    println!("{kills} kills, {midway} of them midway, {went_on} times it went on");
    assert!(midway >= 12 && went_on >= 12, "kills must hit while the indexes are built: {midway}, {went_on}");
}

fn building_height(home: &Path) -> Option<u32> {
    let db = raw(home);
    let value = db.get_cf(db.cf_handle("building").expect("there"), b"height").expect("readable")?;
    Some(u32::from_le_bytes(value.try_into().expect("a height")))
}

/// As if tables were lost that a cut list of tables does not name.
#[test]
fn indexes_that_lost_records_are_built_again() {
    let home = directory();
    let history = History::new(28, 40, 10);
    filled(home.path(), &history, Index::All);
    let expected = records(home.path());
    let block = |height: u32| [b"block".as_slice(), &height.to_be_bytes()].concat();
    let lost: [(&str, Vec<u8>); 7] = [
        ("scripts", block(130)),
        ("spends", block(101)),
        ("spends", block(0)),
        ("transactions", b"indexed".to_vec()),
        ("transactions", block(117)),
        ("transactions", block(140)),
        ("scripts", block(140)),
    ];
    for (family, key) in lost {
        let db = raw(home.path());
        let handle = db.cf_handle(family).expect("there");
        assert!(db.get_cf(handle, &key).expect("readable").is_some(), "{family}");
        db.delete_cf(handle, &key).expect("deleted");
        // What was lost with it, and what no block wrote.
        let spoilt = expected.iter().filter(|(name, key, _)| *name == "scripts" && key.len() == 25).step_by(7);
        let scripts = db.cf_handle("scripts").expect("there");
        for (_, key, _) in spoilt {
            db.delete_cf(scripts, key).expect("deleted");
            db.put_cf(scripts, [key.as_ref(), b"x"].concat(), b"").expect("written");
        }
        drop(db);
        drop(open_store(home.path()).expect("opens"));
        assert_eq!(records(home.path()), expected, "{family}");
    }
    assert_indexed(&open_store(home.path()).expect("opens"));
}

/// An index that was stopped midway knows the blocks up to there, and not what they left unspent.
#[test]
fn a_building_without_its_outputs_starts_again() {
    let home = directory();
    let history = History::new(29, 30, 10);
    filled(home.path(), &history, Index::All);
    let expected = records(home.path());
    let more = History::new(29, 40, 10);
    filled(home.path(), &more, Index::All);
    let db = raw(home.path());
    // The records of height 130: the index ends there, the chain at 140.
    let family = |name| db.cf_handle(name).expect("there");
    for name in INDEX_FAMILIES {
        db.delete_range_cf(family(name), b"".as_slice(), [0xff; 64].as_slice()).expect("deleted");
    }
    for (name, key, value) in &expected {
        db.put_cf(family(name), key, value).expect("written");
    }
    drop(db);
    let store = open_store(home.path()).expect("opens");
    assert_indexed(&store);
    assert_eq!(store.tip().height(), Height(LAST_DERIVED_HEIGHT.to_u32() + 40));
    let first = parse_block(more.blocks[0].clone()).expect("parses").transactions()[0].txid();
    assert!(store.transaction_place(&first).expect("readable").is_some());
}

/// RocksDB's tables of one column family.
fn tables(home: &Path, family: &str) -> Vec<PathBuf> {
    let files = raw(home).live_files().expect("readable");
    let of_family = files.into_iter().filter(|file| file.column_family_name == family);
    of_family.map(|file| home.join("chain").join(file.name.trim_start_matches('/'))).collect()
}

/// Files of the indexes that are cut short, overwritten or gone: the chain is there, and the indexes come back from it.
#[test]
fn damaged_index_files_do_not_keep_a_store_from_opening() {
    let original = directory();
    let history = History::new(30, 40, 10);
    filled(original.path(), &history, Index::All);
    // What the logs hold goes into tables.
    drop(open_store(original.path()).expect("opens"));
    let expected = records(original.path());
    let mut damaged = 0;
    for family in INDEX_FAMILIES {
        for damage in ["remove", "empty", "cut", "overwrite the end", "overwrite the beginning"] {
            let home = directory();
            fs::create_dir(home.path().join("chain")).expect("made");
            for entry in fs::read_dir(original.path().join("chain")).expect("readable") {
                let entry = entry.expect("readable");
                fs::copy(entry.path(), home.path().join("chain").join(entry.file_name())).expect("copied");
            }
            // The copy is not opened before it is damaged.
            let copies = tables(original.path(), family);
            let copies = copies.iter().map(|table| home.path().join("chain").join(table.file_name().expect("a name")));
            let copies: Vec<_> = copies.filter(|copy| copy.exists()).collect();
            for table in &copies {
                let mut bytes = fs::read(table).expect("readable");
                let length = bytes.len();
                match damage {
                    "empty" => bytes.clear(),
                    "cut" => bytes.truncate(length / 2),
                    "overwrite the end" => bytes[length.saturating_sub(200)..].fill(0xa5),
                    "overwrite the beginning" => bytes[..length.min(200)].fill(0xa5),
                    _ => {}
                }
                if damage == "remove" {
                    fs::remove_file(table).expect("removed");
                } else {
                    fs::write(table, bytes).expect("written");
                }
                damaged += 1;
            }
            let store = open_store(home.path()).unwrap_or_else(|error| panic!("{family}, {damage}: {error:?}"));
            assert_eq!(store.tip().hash().to_string(), tip_of(&history), "{family}, {damage}");
            // What is damaged where nobody looked yet is found when it is read, or counted.
            if store.check_index().expect("readable") == IndexState::Damaged {
                drop(store);
                drop(open_store(home.path()).expect("opens"));
            } else {
                drop(store);
            }
            assert_eq!(records(home.path()), expected, "{family}, {damage}");
            let store = open_store(home.path()).expect("opens");
            assert_eq!(store.index_state(), IndexState::Whole);
            assert_indexed(&store);
        }
    }
    println!("{damaged} tables were damaged");
    assert!(damaged >= 15, "there are tables to damage: {damaged}");
}

fn tip_of(history: &History) -> String {
    parse_block(history.blocks.last().expect("blocks").clone()).expect("parses").hash().to_string()
}

/// Blocks are committed and coins read as before; wallets are told that there is no index, until the next start.
#[test]
fn damage_that_is_seen_while_the_node_runs_stops_only_the_indexes() {
    let history = History::new(31, 40, 10);
    for way in ["commit", "read"] {
        let home = directory();
        let half = History::new(31, 20, 10);
        filled(home.path(), &half, Index::All);
        // Nobody can add to such sums.
        let db = raw(home.path());
        let scripts = db.cf_handle("scripts").expect("there");
        let sums: Vec<_> = records_of(&db, "scripts").into_iter().filter(|(key, _)| key.len() == 17).collect();
        assert!(sums.len() > 3);
        for (key, _) in &sums {
            db.put_cf(scripts, key, [0xff; 40]).expect("written");
        }
        drop(db);
        let store = open_store(home.path()).expect("opens");
        assert_eq!(store.index_state(), IndexState::Whole, "nobody looked yet");
        if way == "read" {
            let mut hash = [0; 32];
            hash[..16].copy_from_slice(&sums[0].0[..16]);
            let view = store.index_view().expect("there is one");
            view.statistics(&ScriptId::of_hash(&hash)).expect_err("it is damaged");
            assert_eq!(store.index_state(), IndexState::Damaged);
        }
        replay(&store, &history.blocks, CoinFlush::WithBlock, std::io::sink()).expect("goes on");
        assert_eq!(store.tip().hash().to_string(), tip_of(&history), "{way}");
        if way == "read" {
            assert!(store.index_view().is_none() && !store.has_index());
            assert_eq!(store.index_state(), IndexState::Damaged);
        }
        let _ = store.check_index().expect("readable");
        drop(store);
        let store = open_store(home.path()).expect("opens");
        assert_eq!(store.index_state(), IndexState::Whole, "{way}");
        assert_indexed(&store);
    }
}

/// Key and value.
type Pair = (Box<[u8]>, Box<[u8]>);

fn records_of(db: &DB, family: &str) -> Vec<Pair> {
    let mut options = ReadOptions::default();
    options.set_total_order_seek(true);
    let entries = db.iterator_cf_opt(db.cf_handle(family).expect("there"), options, IteratorMode::Start);
    entries.map(|entry| entry.expect("readable")).collect()
}

/// Blocks are committed while the indexes are built, and at the end these hold them too.
#[test]
fn indexes_are_built_while_blocks_are_committed() {
    let history = History::new(35, 700, 3);
    let home = directory();
    let spec = ChainSpec::built_in("devnet").expect("built in");
    let most = 550;
    let store = open_store_with(home.path(), Index::None).expect("opens");
    replay(&store, &history.blocks[..most], CoinFlush::WithBlock, std::io::sink()).expect("replays");
    drop(store);
    let later = StoreOptions { build_index_later: true, index_batch_transactions: 40, ..options(Index::All) };
    let open = || Store::open(home.path(), &spec, later, &workers()).expect("opens");
    // Stopped at once, it goes on from there.
    let store = open();
    assert_eq!(store.index_state(), IndexState::Building);
    assert!(store.index_view().is_none() && !store.has_index());
    assert_eq!(store.build_index(&AtomicBool::new(true)).expect("writes"), IndexState::Building);
    drop(store);
    assert!(building_height(home.path()).is_some_and(|height| height > 0));

    let store = open();
    assert_eq!(store.index_state(), IndexState::Building);
    std::thread::scope(|scope| {
        let building = scope.spawn(|| store.build_index(&AtomicBool::new(false)).expect("writes"));
        for blocks in most..history.blocks.len() {
            if building.is_finished() && blocks > most + 20 {
                break;
            }
            replay(&store, &history.blocks[..blocks], CoinFlush::WithBlock, std::io::sink()).expect("replays");
        }
        assert_eq!(building.join().expect("it ends"), IndexState::Whole);
    });
    assert!(store.tip().height() > Height(LAST_DERIVED_HEIGHT.to_u32() + u32::try_from(most).expect("few")));
    replay(&store, &history.blocks, CoinFlush::WithBlock, std::io::sink()).expect("replays");
    assert_eq!(store.check_index().expect("readable"), IndexState::Whole);
    drop(store);
    let grown = directory();
    filled(grown.path(), &history, Index::All);
    assert_eq!(records(home.path()), records(grown.path()));
    assert_eq!(open().index_state(), IndexState::Whole);
}

/// A record that is gone, with no block's record: only counting tells.
#[test]
fn a_transaction_that_the_index_lost_is_found_by_counting() {
    let home = directory();
    let history = History::new(32, 20, 10);
    filled(home.path(), &history, Index::All);
    let expected = records(home.path());
    let (family, key, _) =
        expected.iter().find(|(family, key, _)| *family == "transactions" && key.len() == 32).expect("one");
    let db = raw(home.path());
    db.delete_cf(db.cf_handle(family).expect("there"), key).expect("deleted");
    drop(db);
    let store = open_store(home.path()).expect("opens");
    assert_eq!(store.index_state(), IndexState::Whole);
    assert_eq!(store.check_index().expect("readable"), IndexState::Damaged);
    drop(store);
    drop(open_store(home.path()).expect("opens"));
    assert_eq!(records(home.path()), expected);
    assert_eq!(open_store(home.path()).expect("opens").check_index().expect("readable"), IndexState::Whole);
}

/// Another format's indexes are its own business.
#[test]
fn the_indexes_of_another_format_are_left_alone() {
    let home = directory();
    filled(home.path(), &History::new(33, 5, 10), Index::All);
    let db = raw(home.path());
    db.put_cf(db.cf_handle("meta").expect("there"), b"format", 99u32.to_le_bytes()).expect("written");
    drop(db);
    let expected = records(home.path());
    fs::write(home.path().join("index-damaged"), b"").expect("written");
    open_store(home.path()).expect_err("another format");
    assert_eq!(records(home.path()), expected);
}

/// RocksDB writes nothing any more once it came upon damage while it rewrote tables. The node stops then, as with any fault
/// of the store, and its next start is as good as new.
#[test]
fn an_index_that_cannot_be_rewritten_is_built_again_by_the_next_start() {
    let home = directory();
    let history = History::new(34, 130, 10);
    let fill = |blocks: usize| {
        let store = open_store(home.path()).expect("opens");
        replay(&store, &history.blocks[..blocks], CoinFlush::WithBlock, std::io::sink()).expect("replays");
    };
    // Every opening makes tables of what the logs hold. Four of them are rewritten.
    [20, 40].into_iter().for_each(fill);
    for table in tables(home.path(), "scripts") {
        let mut bytes = fs::read(&table).expect("readable");
        // Behind what opening looks at, which are keys that begin with a small letter.
        let place = bytes.len() * 3 / 4;
        bytes[place..place + 16].fill(0xa5);
        fs::write(table, bytes).expect("written");
    }
    (41..=42).for_each(fill);
    let store = open_store(home.path()).expect("opens");
    assert_eq!(store.index_state(), IndexState::Whole, "nobody looked there yet");
    let mut blocks = 42;
    let deadline = Instant::now() + Duration::from_secs(30);
    while replay(&store, &history.blocks[..blocks], CoinFlush::WithBlock, std::io::sink()).is_ok() {
        assert!(Instant::now() < deadline, "the damage is come upon");
        blocks = (blocks + 1).min(history.blocks.len());
        std::thread::sleep(Duration::from_millis(100));
    }
    let tip = store.tip().hash();
    drop(store);
    assert!(home.path().join("index-damaged").exists(), "it is noted");
    let store = open_store(home.path()).expect("opens");
    assert!(!home.path().join("index-damaged").exists());
    assert_eq!(store.index_state(), IndexState::Whole);
    assert_eq!(store.tip().hash(), tip);
    replay(&store, &history.blocks, CoinFlush::WithBlock, std::io::sink()).expect("goes on");
    assert_eq!(store.tip().hash().to_string(), tip_of(&history));
    assert_indexed(&store);
}
