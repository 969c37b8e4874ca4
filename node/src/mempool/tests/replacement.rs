//! Replacement by fee, rule by rule.

use bitcoin::transaction::Version;
use bitcoin::{OutPoint, Sequence, Transaction};

use crate::mempool::{Departed, Departure, Invalid, Policy, Reject};
use crate::testing::{Bench, COIN, first_output, pay, pay_padded, vsize};

fn replaced(departed: &[Departed]) -> Vec<bitcoin::Txid> {
    assert!(departed.iter().all(|departed| departed.why == Departure::Replaced));
    departed.iter().map(|departed| departed.txid).collect()
}

#[test]
fn more_fee_takes_the_place_whatever_was_signalled() {
    let mut bench = Bench::new();
    let coin = bench.coin();
    let old = pay(&[coin], &[COIN - 1_000]);
    assert!(!old.is_explicitly_rbf());
    let new = pay(&[coin], &[COIN - 2_000]);
    bench.add(&old);
    assert_eq!(replaced(&bench.submit(&new).expect("pays more")), [old.compute_txid()]);
    assert!(!bench.pool.contains(&old.compute_txid()));
    assert_eq!(bench.pool.spender(&coin), Some(new.compute_txid()));
    bench.mine();
}

/// (what the old one pays, what the new one pays, padding of the new one in bytes, what comes of it)
#[test]
fn what_a_replacement_has_to_pay() {
    let size = vsize(&pay(&[OutPoint::null()], &[COIN]));
    let relay = size.div_ceil(10);
    let cases = [
        (1_000, 999, 0, Some(", less fees than conflicting txs; 0.00000999 < 0.00001")),
        (1_000, 1_000, 0, Some(", not enough additional fees to relay; 0.00 < 0.0000001")),
        (1_000, 1_000 + relay - 1, 0, Some(", not enough additional fees to relay; 0.00000009 < 0.0000001")),
        (1_000, 1_000 + relay, 0, None),
        // Ten times as large for twice the fee: the feerate falls.
        (1_000, 2_000, 900, Some("; new feerate 0.00001986 BTC/kvB <= old feerate 0.00010416 BTC/kvB")),
        (1_000, 20_000, 900, None),
    ];
    assert_eq!(relay, 10, "the messages above say so");
    for (old_fee, new_fee, padding, refusal) in cases {
        let mut bench = Bench::new();
        let coin = bench.coin();
        let old = pay(&[coin], &[COIN - old_fee]);
        bench.add(&old);
        let mut new = pay(&[coin], &[COIN - new_fee]);
        if padding > 0 {
            new = pay_padded(&[coin], &[COIN - new_fee], padding);
        }
        // Another transaction, even for the same fee.
        new.input[0].sequence = Sequence::ENABLE_RBF_NO_LOCKTIME;
        match refusal {
            None => assert_eq!(replaced(&bench.submit(&new).expect("accepted")), [old.compute_txid()]),
            Some(detail) => {
                let (reason, message) = bench.refusal(&new);
                assert_eq!(reason, "insufficient fee");
                let start = format!("insufficient fee, rejecting replacement {}{detail}", new.compute_txid());
                assert!(message.starts_with(&start), "{message}");
                assert!(bench.pool.contains(&old.compute_txid()));
            }
        }
        bench.pool.graph.assert_consistent();
    }
}

#[test]
fn descendants_go_too_and_are_paid_for() {
    let mut bench = Bench::new();
    let coin = bench.coin();
    let parent = pay(&[coin], &[COIN - 1_000]);
    let child = pay(&[first_output(&parent)], &[COIN - 11_000]);
    bench.add(&parent);
    bench.add(&child);
    let message = bench.refusal(&pay(&[coin], &[COIN - 10_999])).1;
    assert!(message.ends_with("less fees than conflicting txs; 0.00010999 < 0.00011"), "{message}");
    let mut gone = replaced(&bench.submit(&pay(&[coin], &[COIN - 11_100])).expect("pays for both"));
    gone.sort_unstable();
    let mut both = [parent.compute_txid(), child.compute_txid()];
    both.sort_unstable();
    assert_eq!(gone, both);
}

#[test]
fn at_most_a_hundred_go() {
    // Four chains of 25, and one of one.
    for (last, fits) in [(25, true), (26, false)] {
        let mut bench = Bench::new();
        let mut coins = Vec::new();
        for length in [25, 25, 25, last - 1] {
            let coin = bench.coin();
            coins.push(coin);
            let mut tip = coin;
            for i in 1..=length {
                tip = bench.add(&pay(&[tip], &[COIN - i * 100]));
            }
        }
        let coin = bench.coin();
        coins.push(coin);
        bench.add(&pay(&[coin], &[COIN - 100]));
        let new = pay(&coins, &[COIN]);
        assert_eq!(bench.pool.len(), if fits { 100 } else { 101 });
        match fits {
            true => assert_eq!(bench.submit(&new).expect("a hundred").len(), 100),
            false => {
                let txid = new.compute_txid();
                let reason = "too many potential replacements";
                let message = format!("{reason}, rejecting replacement {txid}; {reason} (101 > 100)");
                assert_eq!(bench.refusal(&new), (reason.to_owned(), message));
            }
        }
    }
}

#[test]
fn nobody_replaces_what_he_spends() {
    let mut bench = Bench::new();
    let coin = bench.coin();
    let parent = pay(&[coin], &[COIN / 2, COIN / 2 - 1_000]);
    bench.add(&parent);
    let child = pay(&[first_output(&parent)], &[COIN / 2 - 1_000]);
    bench.add(&child);
    let grandchild = pay(&[first_output(&child), coin], &[COIN / 2]);
    let reject = bench.submit(&grandchild).expect_err("spends what it replaces");
    assert_eq!(reject.reason(), "bad-txns-spends-conflicting-tx");
    assert!(matches!(reject, Reject::Invalid(Invalid::SpendsConflict { .. })));
}

#[test]
fn new_unconfirmed_parents_count_with_their_feerate() {
    let mut bench = Bench::new();
    let (coin, other) = (bench.coin(), bench.coin());
    let old = pay(&[coin], &[COIN - 2_000]);
    // A large parent that pays the minimum.
    let weak = pay_padded(&[other], &[COIN - 1_000], 5_000);
    bench.add(&old);
    let weak_output = bench.add(&weak);
    // On its own it pays five times as much; together with what it needs, less.
    let message = bench.refusal(&pay(&[coin, weak_output], &[2 * COIN - 1_000 - 10_000])).1;
    assert!(message.contains("new feerate"), "{message}");
    bench.submit(&pay(&[coin, weak_output], &[2 * COIN - 1_000 - 200_000])).expect("pays for its parent too");
}

#[test]
fn a_parent_that_the_old_one_had_is_not_new() {
    let mut bench = Bench::new();
    let coin = bench.coin();
    let weak_output = bench.add(&pay_padded(&[coin], &[COIN - 1_000], 5_000));
    bench.add(&pay(&[weak_output], &[COIN - 10_000]));
    bench.submit(&pay(&[weak_output], &[COIN - 12_000])).expect("an ordinary bump");
}

#[test]
fn limits_are_those_after_the_replacement() {
    let mut bench = Bench::with(Policy::default());
    let coin = bench.coin();
    let mut tip = coin;
    let mut last = None;
    for i in 1..=25 {
        let transaction = pay(&[tip], &[COIN - i * 1_000]);
        tip = bench.add(&transaction);
        last = Some(transaction);
    }
    // The chain is full, and its last may still be bumped.
    let last = last.expect("25");
    bench.submit(&pay(&[last.input[0].previous_output], &[COIN - 40_000])).expect("takes the place of the 25th");
    assert_eq!(bench.pool.len(), 25);
}

fn truc(mut transaction: Transaction) -> Transaction {
    transaction.version = Version(3);
    transaction
}

#[test]
fn version_three_keeps_to_itself() {
    let mut bench = Bench::new();
    let [a, b, c] = [bench.coin(), bench.coin(), bench.coin()];
    let parent = truc(pay(&[a], &[COIN / 2, COIN / 2 - 1_000]));
    let plain = pay(&[b], &[COIN / 2, COIN / 2 - 1_000]);
    let large = truc(pay_padded(&[c], &[COIN - 10_000], 9_850));
    for transaction in [&parent, &plain, &large] {
        bench.add(transaction);
    }
    let second = |transaction: &Transaction| OutPoint { vout: 1, ..first_output(transaction) };
    let (d, too_large) = (bench.coin(), 10_000);
    let refused = |bench: &mut Bench, transaction: Transaction, detail: &str| {
        let (reason, message) = bench.refusal(&transaction);
        assert_eq!(reason, "TRUC-violation");
        assert!(message.contains(detail), "{message}");
    };
    refused(&mut bench, truc(pay_padded(&[d], &[COIN - 10_000], too_large)), "is too big: 10");
    refused(&mut bench, pay(&[first_output(&parent)], &[COIN / 4]), "cannot spend from version=3 tx");
    refused(&mut bench, truc(pay(&[first_output(&plain)], &[COIN / 4])), "cannot spend from non-version=3 tx");
    refused(&mut bench, truc(pay_padded(&[first_output(&parent)], &[COIN / 4], 950)), "is too big: 10");
    refused(&mut bench, truc(pay(&[first_output(&parent), first_output(&large)], &[COIN])), "too many ancestors");

    let child = truc(pay(&[first_output(&parent)], &[COIN / 2 - 1_000]));
    bench.add(&child);
    refused(&mut bench, truc(pay(&[first_output(&child)], &[COIN / 4])), "too many ancestors");
    // A second child takes the place of the first, if it pays for that.
    let (reason, _) = bench.refusal(&truc(pay(&[second(&parent)], &[COIN / 2 - 1_000 - 900])));
    assert_eq!(reason, "insufficient fee (including sibling eviction)");
    let sibling = truc(pay(&[second(&parent)], &[COIN / 2 - 1_000 - 2_000]));
    assert_eq!(replaced(&bench.submit(&sibling).expect("pays more")), [child.compute_txid()]);
    bench.pool.graph.assert_consistent();
    bench.mine();
}
