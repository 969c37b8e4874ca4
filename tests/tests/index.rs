//! The indexes: what they say is what the blocks say, however they came to be.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use causeway_chainspec::{ChainSpec, Height, LAST_DERIVED_HEIGHT};
use causeway_consensus::state::{CoinFlush, FAMILIES, Index, Store, StoreOptions, family_options};
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

/// Every record of the indexes.
fn records(home: &Path) -> Vec<(&'static str, Box<[u8]>, Box<[u8]>)> {
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
    let build = || {
        // One block in each write.
        Command::new(env!("CARGO_BIN_EXE_causeway-replay"))
            .args([home.as_os_str(), blocks.as_os_str(), "with-block".as_ref(), "1".as_ref()])
            .stdout(Stdio::null())
            .spawn()
            .expect("the process starts")
    };
    filled(&home, &history, Index::None);
    let start = Instant::now();
    assert!(build().wait().expect("it ends").success());
    let takes = start.elapsed();
    assert_eq!(records(&home), expected);

    let mut rng = StdRng::seed_from_u64(27);
    let (mut kills, mut midway, mut went_on) = (0, 0, 0);
    while midway < 12 {
        drop(open_store_with(&home, Index::None).expect("opens"));
        let mut before = None;
        loop {
            let mut child = build();
            std::thread::sleep(takes.mul_f64(rng.random_range(0.0..1.0)));
            child.kill().expect("the process is ours");
            child.wait().expect("it has ended");
            kills += 1;
            assert!(kills < 400, "kills must hit while the indexes are built: {midway} of {kills}");
            let height = building_height(&home);
            assert!(before.is_none() || height.is_none() || height >= before, "{before:?} {height:?}");
            midway += usize::from(height.is_some());
            went_on += usize::from(before.is_some() && (height > before || height.is_none()));
            if height.is_none() && before.is_some() {
                break;
            }
            before = height;
            if kills % 40 == 0 {
                break;
            }
        }
        drop(open_in_steps(&home, 3));
        assert_eq!(records(&home), expected);
    }
    println!("{kills} kills, {midway} of them midway, {went_on} times it went on");
    assert!(went_on >= 3, "{went_on}");
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
    let lost: [(&str, Vec<u8>); 6] = [
        ("scripts", block(130)),
        ("spends", block(101)),
        ("spends", block(0)),
        ("transactions", b"indexed".to_vec()),
        ("transactions", expected[5].1.to_vec()),
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
