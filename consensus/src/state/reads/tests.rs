use std::num::NonZeroUsize;

use bitcoin::absolute::LockTime;
use bitcoin::consensus::serialize;
use bitcoin::transaction::Version;
use bitcoin::{Amount, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use causeway_chainspec::ChainSpec;
use rocksdb::WriteBatch;
use tempfile::TempDir;

use super::*;
use crate::assemble::assemble_block;
use crate::block::parse_block;
use crate::check::check_block;
use crate::connect::{ConnectedBlock, StateDelta, connect_block};
use crate::resolve::resolve;
use crate::state::{CoinFlush, StoreOptions};
use crate::workers::Workers;

fn open() -> (TempDir, Store) {
    let home = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(home.path(), &spec(), StoreOptions::default(), &workers()).expect("opens");
    (home, store)
}

fn spec() -> ChainSpec {
    ChainSpec::built_in("devnet").expect("built in")
}

fn workers() -> Workers {
    Workers::new(NonZeroUsize::MIN)
}

/// A coin of an early block that anyone can spend with a witness of [`anyone`].
fn coin(vout: u32, height: Height) -> (OutPoint, Coin) {
    let output = TxOut { value: Amount::from_sat(1_000), script_pubkey: anyone().to_p2wsh() };
    (OutPoint { vout, ..OutPoint::null() }, Coin { output, height, coinbase: false })
}

fn anyone() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x51])
}

fn write(store: &Store, delta: &StateDelta) {
    let mut batch = WriteBatch::default();
    store.put_coins(&mut batch, delta.changes());
    store.write(batch).expect("writes");
}

/// A block on the tip that spends a coin for nothing.
fn spends(store: &Store, outpoint: OutPoint) -> ConnectedBlock {
    let input = TxIn {
        previous_output: outpoint,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::from_slice(&[anyone().into_bytes()]),
    };
    let output = TxOut { value: Amount::from_sat(1_000), script_pubkey: anyone().to_p2wsh() };
    let payment =
        Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![input], output: vec![output] };
    let tip = store.tip();
    let block = assemble_block(&tip, tip.time() + 1, Amount::ZERO, ScriptBuf::new(), vec![payment]);
    let checked = check_block(parse_block(serialize(&block)).expect("parses"), spec().params()).expect("right");
    connect_block(resolve(checked, store).expect("resolves"), &workers(), None).expect("connects")
}

#[test]
fn a_block_is_committed_while_a_read_waits_for_the_disk() {
    let (first, second) = (coin(0, Height(1)), coin(1, Height(1)));
    let filled = || {
        let (home, store) = open();
        write(&store, &StateDelta { spent: vec![], created: vec![first.clone(), second.clone()] });
        (home, store)
    };
    let (_home, other) = filled();
    let connected = spends(&other, first.0);
    let created = connected.delta().created.last().expect("the payment's output").0;
    let outpoints = [first.0, second.0, created];
    for flush in [CoinFlush::WithBlock, CoinFlush::Later] {
        // Its memory knows none of the coins.
        let (_home, store) = filled();
        let read = store.begin_read(&outpoints);
        assert_eq!(read.missing.len(), 3, "the disk is asked for all");
        assert!(store.state.try_write().is_ok(), "a read at the disk holds no lock that a commit takes");
        store.commit(&connected, b"", flush).expect("commits");
        let late = store.begin_read(&outpoints);

        // It sees the state that there was when it began, and what it brings is not mistaken for the state now.
        let expected = [Some(first.1.clone()), Some(second.1.clone()), None];
        assert_eq!(read.finish(&outpoints).expect("readable"), expected);
        for read in [late, store.begin_read(&outpoints)] {
            let coins = read.finish(&outpoints).expect("readable");
            assert_eq!(coins[..2], [None, Some(second.1.clone())]);
            assert!(coins[2].is_some());
        }
        store.flush_coins().expect("writes");
        assert_eq!(store.coins(&outpoints[..1]).expect("readable"), [None]);
    }
}

#[test]
fn what_is_on_disk_before_its_block_is_the_tip_is_not_there_yet() {
    let (_home, store) = open();
    let next = store.tip().height().next().expect("a height");
    let (old, new) = (coin(0, Height(1)), coin(1, next));
    write(&store, &StateDelta { spent: vec![], created: vec![old.clone()] });

    let read = || store.coins(&[old.0, new.0]).expect("readable");
    let delta = StateDelta { spent: vec![old.clone()], created: vec![new.clone()] };
    store.write_state().coins.expect(next, &delta);
    write(&store, &delta);
    for _ in 0..2 {
        assert_eq!(read(), [Some(old.1.clone()), None]);
    }
    {
        let mut state = store.write_state();
        state.coins.apply_flushed(&delta);
        state.flushed = next;
    }
    assert_eq!(read(), [None, Some(new.1.clone())]);
}

#[test]
fn many_coins_are_read_by_many_threads_as_by_one() {
    let (_home, store) = open();
    // Every third is not there.
    let all: Vec<_> = (0..3_000).map(|vout| coin(vout, Height(1))).collect();
    let created = all.iter().filter(|(outpoint, _)| outpoint.vout % 3 != 0).cloned().collect();
    write(&store, &StateDelta { spent: vec![], created });
    let outpoints: Vec<_> = all.iter().rev().map(|(outpoint, _)| *outpoint).collect();
    let expected: Vec<_> =
        all.iter().rev().map(|(outpoint, coin)| (outpoint.vout % 3 != 0).then(|| coin.clone())).collect();

    // With none of the threads, with all of them, and from memory.
    let none = store.threads.free.swap(0, Ordering::Relaxed);
    assert_eq!(none, HELPERS_MAX);
    let read = store.begin_read(&outpoints);
    assert_eq!(read.finish(&outpoints).expect("readable"), expected);
    store.threads.free.store(HELPERS_MAX, Ordering::Relaxed);
    for _ in 0..2 {
        assert_eq!(store.coins(&outpoints).expect("readable"), expected);
        assert_eq!(store.threads.free.load(Ordering::Relaxed), HELPERS_MAX, "they are given back");
    }
}

#[test]
fn the_threads_that_read_are_bounded_and_some_are_left_for_the_next_one() {
    let threads = Threads::default();
    let taken: Vec<_> = (0..10).map(|_| threads.take(1_000)).collect();
    let counts: Vec<_> = taken.iter().map(|taken| taken.count).collect();
    assert_eq!(counts, [16, 8, 4, 2, 1, 1, 0, 0, 0, 0]);
    drop(taken);
    assert_eq!(threads.free.load(Ordering::Relaxed), HELPERS_MAX);
    assert_eq!(threads.take(3).count, 3);
}
