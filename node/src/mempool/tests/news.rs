//! What the pool tells of what enters and leaves it.

use bitcoin::Amount;
use causeway_consensus::state::ScriptId;
use tokio::sync::broadcast::Receiver;

use crate::mempool::{Departure, PegStatus, Policy, fee_at};
use crate::news::Change;
use crate::testing::{Bench, COIN, first_output, free_script, pay, vsize};

/// What was told so far, in words.
fn told(news: &mut Receiver<Change>) -> Vec<String> {
    let word = |change| match change {
        Change::Entered(entered) => format!("{} enters", entered.txid),
        Change::Left { txid, why, by, .. } => format!("{txid} {why:?} by {by:?}"),
        Change::Connected { height } => format!("block {height}"),
        Change::Claimed { deposit, .. } => format!("{deposit} claimed"),
    };
    std::iter::from_fn(|| news.try_recv().ok()).map(word).collect()
}

#[test]
fn who_does_not_listen_is_not_told() {
    let mut bench = Bench::new();
    assert!(!bench.pool.news().is_heard());
    let news = bench.pool.news().listen();
    assert!(bench.pool.news().is_heard());
    drop(news);
    assert!(!bench.pool.news().is_heard());
    bench.pool.news().tell(|| panic!("nobody listens"));
    let coin = bench.coin();
    bench.add(&pay(&[coin], &[COIN - 1_000]));
    assert_eq!(told(&mut bench.pool.news().listen()), [""; 0]);
}

#[test]
fn a_transaction_that_enters_is_described() {
    let mut bench = Bench::new();
    let mut news = bench.pool.news().listen();
    let coin = bench.coin();
    let transaction = pay(&[coin], &[COIN - 4_000, 3_000]);
    bench.add(&transaction);
    let Ok(Change::Entered(entered)) = news.try_recv() else { panic!("it has entered") };
    assert_eq!(entered.txid, transaction.compute_txid());
    assert_eq!(entered.fee, Amount::from_sat(1_000));
    assert_eq!(entered.vsize, vsize(&transaction));
    assert_eq!(entered.value, Amount::from_sat(COIN - 1_000));
    assert_eq!(*entered.scripts, [ScriptId::of(&free_script())]);
}

#[test]
fn everything_is_told_in_its_order() {
    let mut bench = Bench::new();
    let mut news = bench.pool.news().listen();
    let coin = bench.coin();
    let old = pay(&[coin], &[COIN - 1_000]);
    let child = pay(&[first_output(&old)], &[COIN - 2_000]);
    let new = pay(&[coin], &[COIN - 50_000]);
    bench.add(&old);
    bench.add(&child);
    bench.submit(&new).expect("it pays more");
    let ids = |transaction: &bitcoin::Transaction| transaction.compute_txid();
    let enters = |transaction| format!("{} enters", ids(transaction));
    let leaves = |transaction, why: Departure, by| format!("{} {why:?} by {by:?}", ids(transaction));
    let mut got = told(&mut news);
    // A family leaves together, in the order of its txids.
    got[2..4].sort();
    let by = Some(ids(&new));
    let mut family = [leaves(&old, Departure::Replaced, by), leaves(&child, Departure::Replaced, by)];
    family.sort();
    assert_eq!(got, [&[enters(&old), enters(&child)][..], &family, &[enters(&new)]].concat());

    // What a block holds is told by the block; what it contradicts, after it.
    let other = pay(&[coin], &[COIN - 7_000]);
    bench.commit_transactions(vec![other.clone()], 7_000);
    assert_eq!(told(&mut news), ["block 101".to_owned(), leaves(&new, Departure::Conflicted, Some(ids(&other)))]);

    let coin = bench.coin();
    let waits = pay(&[coin], &[COIN - 1_000]);
    bench.add(&waits);
    bench.mine();
    assert_eq!(told(&mut news), [enters(&waits), "block 102".to_owned()]);

    let coin = bench.coin();
    let waits = pay(&[coin], &[COIN - 1_000]);
    bench.add(&waits);
    bench.now_s += Policy::default().expiry_s;
    let now_s = bench.now_s;
    bench.pool.expire(now_s);
    bench.pool.set_peg(PegStatus::Frozen);
    assert_eq!(told(&mut news), [enters(&waits), leaves(&waits, Departure::Expired, None)]);
}

#[test]
fn who_is_refused_was_never_there() {
    // Room for about ten.
    let mut bench = Bench::with(Policy { max_memory_bytes: 18_000, ..Policy::default() });
    let payments: Vec<_> = (1..=10)
        .map(|number| {
            let coin = bench.coin();
            pay(&[coin], &[COIN - number * 100])
        })
        .collect();
    payments.iter().for_each(|payment| {
        bench.add(payment);
    });
    let mut news = bench.pool.news().listen();
    let coin = bench.coin();
    let better = pay(&[coin], &[COIN - 5_000]);
    bench.submit(&better).expect("it is worth more");
    let evicted = format!("{} {:?} by None", payments[0].compute_txid(), Departure::Evicted);
    assert_eq!(told(&mut news), [evicted, format!("{} enters", better.compute_txid())]);

    // Enough for the minimum, and still the least of all.
    let need = fee_at(bench.pool.min_feerate(bench.now_s), vsize(&better)).to_sat();
    let coin = bench.coin();
    assert_eq!(bench.reason(&pay(&[coin], &[COIN - need])), "mempool full");
    assert_eq!(told(&mut news), [""; 0]);
}
