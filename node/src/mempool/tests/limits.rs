//! Families, memory and time are bounded.

use bitcoin::{Amount, OutPoint, Transaction, Txid};
use causeway_chainspec::SatPerKvb;

use crate::mempool::{Departed, Departure, Policy, fee_at};
use crate::testing::{Bench, COIN, START_S, first_output, pay, pay_padded, vsize};

fn output(transaction: &Transaction, vout: u32) -> OutPoint {
    OutPoint { vout, ..first_output(transaction) }
}

fn txids(departed: &[Departed], why: Departure) -> Vec<Txid> {
    assert!(departed.iter().all(|departed| departed.why == why), "{departed:?}");
    departed.iter().map(|departed| departed.txid).collect()
}

#[test]
fn twenty_five_in_a_row() {
    let mut bench = Bench::new();
    let mut tip = bench.coin();
    for i in 1..=25 {
        tip = bench.add(&pay(&[tip], &[COIN - i * 100]));
    }
    let message = "too-long-mempool-chain, too many unconfirmed ancestors [limit: 25]";
    assert_eq!(bench.refusal(&pay(&[tip], &[COIN - 5_000])).1, message);
    bench.mine();
    bench.add(&pay(&[tip], &[COIN - 5_000]));
}

#[test]
fn twenty_five_of_one() {
    let mut bench = Bench::new();
    let coin = bench.coin();
    let parent = pay(&[coin], &[COIN / 30; 26]);
    bench.add(&parent);
    for vout in 0..24 {
        bench.add(&pay(&[output(&parent, vout)], &[COIN / 30 - 100]));
    }
    let message = format!("too-long-mempool-chain, too many descendants for tx {} [limit: 25]", parent.compute_txid());
    assert_eq!(bench.refusal(&pay(&[output(&parent, 24)], &[COIN / 30 - 100])).1, message);
}

#[test]
fn a_hundred_and_one_thousand_virtual_bytes() {
    // The parent and the child are within the limit each, and not together.
    let mut bench = Bench::new();
    let coin = bench.coin();
    let parent = pay_padded(&[coin], &[COIN / 2, COIN / 2 - 20_000], 60_000);
    bench.add(&parent);
    let child = pay_padded(&[output(&parent, 0)], &[COIN / 2 - 20_000], 60_000);
    let message = "too-long-mempool-chain, exceeds ancestor size limit [limit: 101000]";
    assert_eq!(bench.refusal(&child).1, message);
    bench.add(&pay_padded(&[output(&parent, 0)], &[COIN / 2 - 20_000], 25_000));
    // The third is within its ancestors' limit, and too much for the parent's descendants.
    let third = pay_padded(&[output(&parent, 1)], &[COIN / 2 - 40_000], 25_000);
    let txid = parent.compute_txid();
    let message = format!("too-long-mempool-chain, exceeds descendant size limit for tx {txid} [limit: 101000]");
    assert_eq!(bench.refusal(&third).1, message);
}

/// A pool with room for about ten small transactions.
fn small_pool() -> Bench {
    let mut bench = Bench::with(Policy { max_memory_bytes: 18_000, ..Policy::default() });
    let coin = bench.coin();
    let one = crate::mempool::entry::memory(&pay(&[coin], &[COIN]), 1);
    assert!((1_580..1_790).contains(&one), "{one}");
    bench
}

#[test]
fn a_full_pool_drops_what_is_worth_least_and_asks_for_more() {
    let mut bench = small_pool();
    let payments: Vec<_> = (1..=10)
        .map(|i| {
            let coin = bench.coin();
            pay(&[coin], &[COIN - i * 100])
        })
        .collect();
    payments.iter().for_each(|payment| {
        bench.add(payment);
    });
    assert_eq!(bench.pool.min_feerate(bench.now_s), SatPerKvb(100));
    let coin = bench.coin();
    let departed = bench.submit(&pay(&[coin], &[COIN - 5_000])).expect("worth more");
    assert_eq!(txids(&departed, Departure::Evicted), [payments[0].compute_txid()]);

    let size = vsize(&payments[0]);
    let minimum = bench.pool.min_feerate(bench.now_s);
    assert_eq!(minimum, SatPerKvb(100 * 1_000 / size + 100));
    let need = fee_at(minimum, size).to_sat();
    let coin = bench.coin();
    let message = format!("mempool min fee not met, {} < {need}", need - 1);
    assert_eq!(bench.refusal(&pay(&[coin], &[COIN - need + 1])).1, message);
    // Enough for the minimum, and still the least of all.
    assert_eq!(bench.reason(&pay(&[coin], &[COIN - need])), "mempool full");
    bench.pool.graph.assert_consistent();

    // With blocks and time the minimum falls.
    bench.mine();
    bench.now_s += 3 * 3_600;
    let later = bench.pool.min_feerate(bench.now_s);
    assert!(later < minimum, "{later} {minimum}");
    bench.now_s += 14 * 86_400;
    assert_eq!(bench.pool.min_feerate(bench.now_s), SatPerKvb(100));
}

#[test]
fn of_equals_the_youngest_goes_first() {
    let mut bench = small_pool();
    let payments: Vec<_> = (0..10)
        .map(|_| {
            bench.now_s += 1;
            let coin = bench.coin();
            let payment = pay(&[coin], &[COIN - 1_000]);
            bench.add(&payment);
            payment.compute_txid()
        })
        .collect();
    let coin = bench.coin();
    let departed = bench.submit(&pay(&[coin], &[COIN - 5_000])).expect("worth more");
    assert_eq!(txids(&departed, Departure::Evicted), payments[9..]);
}

#[test]
fn a_poor_parent_is_kept_for_its_rich_child() {
    let mut bench = small_pool();
    let coin = bench.coin();
    let parent = pay(&[coin], &[COIN - 20]);
    bench.add(&parent);
    bench.add(&pay(&[first_output(&parent)], &[COIN - 20_000]));
    for i in 1..=20 {
        let coin = bench.coin();
        bench.submit(&pay(&[coin], &[COIN - 1_000 - i * 200])).expect("each pays more");
    }
    assert!(bench.pool.contains(&parent.compute_txid()));
    assert!(bench.pool.memory() <= 18_000);
}

#[test]
fn a_flood_stays_within_its_memory() {
    let max_memory_bytes = 200_000;
    let mut bench = Bench::with(Policy { max_memory_bytes, ..Policy::default() });
    let (mut accepted, mut refused) = (0, 0);
    for i in 0..600u64 {
        let coin = bench.coin();
        // Fees that go up and down, sizes that vary, some with a child.
        let fee = 200 + (i * 7_919) % 5_000 + i * 10;
        let parent = pay_padded(&[coin], &[COIN - fee], 1 + usize::try_from(i * 31 % 700).expect("small"));
        let child = pay(&[first_output(&parent)], &[COIN - 2 * fee]);
        for transaction in [Some(parent), (i % 3 == 0).then_some(child)].into_iter().flatten() {
            match bench.submit(&transaction) {
                Ok(_) => accepted += 1,
                Err(_) => refused += 1,
            }
            assert!(bench.pool.memory() <= max_memory_bytes);
        }
    }
    assert!(accepted > 200 && refused > 50, "{accepted} {refused}");
    bench.pool.graph.assert_consistent();
    bench.mine();
}

#[test]
fn what_waits_too_long_goes_with_its_children() {
    let mut bench = Bench::new();
    let (first, second) = (bench.coin(), bench.coin());
    let old = pay(&[first], &[COIN - 1_000]);
    bench.add(&old);
    bench.now_s += 100;
    let child = pay(&[first_output(&old)], &[COIN - 2_000]);
    bench.add(&child);
    let expiry_s = 336 * 3_600;
    assert_eq!(bench.pool.expire(START_S + expiry_s - 1), []);
    bench.now_s = START_S + expiry_s;
    let mut gone = txids(&bench.submit(&pay(&[second], &[COIN - 1_000])).expect("room"), Departure::Expired);
    gone.sort_unstable();
    let mut both = [old.compute_txid(), child.compute_txid()];
    both.sort_unstable();
    assert_eq!(gone, both);
    let reject = bench.pool.begin_again(old, START_S, bench.now_s).expect_err("too old");
    assert_eq!(reject.reason(), "expired");
}

#[test]
fn the_count_of_memory_covers_what_a_transaction_holds() {
    let mut bench = Bench::new();
    let coins: Vec<_> = (0..50).map(|_| bench.coin()).collect();
    let transaction = pay_padded(&coins, &[1_000; 20], 5_000);
    let counted = crate::mempool::entry::memory(&transaction, 1);
    let held = size_of::<crate::mempool::Entry>()
        + transaction.input.iter().map(|input| size_of_val(input) + input.witness.size()).sum::<usize>()
        + transaction.output.iter().map(|output| size_of_val(output) + output.script_pubkey.len()).sum::<usize>()
        // Maps and sets hold 36 + 32 bytes for each input, half full at worst.
        + transaction.input.len() * 2 * (36 + 32);
    assert!(counted > held && counted < 2 * held, "{counted} {held}");
    assert_eq!(bench.pool.fees(), Amount::ZERO);
}
