//! Packages, rule by rule, with Bitcoin Core's words.

use std::sync::Arc;

use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, Transaction, TxOut, Witness};
use causeway_chainspec::SatPerKvb;

use crate::mempool::{
    Departed, Departure, Invalid, NotYet, Package, PackageForm, PackageReject, PackageResult, Policy, PolicyReject,
    Reject, Submission, Turn, TxResult,
};
use crate::testing::{Bench, COIN, anchor, bump, commitment, first_output, free_output, pay, pay_padded, vsize};

fn message(result: &PackageResult) -> String {
    result.refused.as_ref().map_or_else(|| "success".to_owned(), ToString::to_string)
}

fn error(result: &PackageResult, transaction: &Transaction) -> String {
    let (_, result) = result.results.iter().find(|(one, _)| **one == *transaction).expect("a result for each");
    match result {
        TxResult::Refused(reject) => reject.to_string(),
        other => panic!("{other:?}"),
    }
}

fn all_accepted(result: &PackageResult) -> bool {
    message(result) == "success" && result.results.iter().all(|(_, result)| matches!(result, TxResult::Accepted { .. }))
}

fn truc(transaction: Transaction) -> Transaction {
    Transaction { version: Version(3), ..transaction }
}

fn second(transaction: &Transaction) -> OutPoint {
    OutPoint { vout: 1, ..first_output(transaction) }
}

#[test]
fn a_parent_without_fee_enters_with_the_child_that_spends_its_anchor() {
    let mut bench = Bench::new();
    let (a, b) = (bench.coin(), bench.coin());
    let parent = commitment(a, 0);
    let child = bump(&parent, b, 2_000);
    assert_eq!(bench.reason(&parent), "min relay fee not met");
    let result = bench.submit_package(&[&parent, &child]);
    assert!(all_accepted(&result), "{result:?}");
    let both = vsize(&parent) + vsize(&child);
    for (_, result) in &result.results {
        let TxResult::Accepted { feerate, includes, .. } = result else { panic!("{result:?}") };
        assert_eq!((feerate.fee, feerate.vsize), (Amount::from_sat(2_000), both));
        assert_eq!(includes, &[parent.compute_wtxid(), child.compute_wtxid()]);
    }
    // Once more: both are known.
    let again = bench.submit_package(&[&parent, &child]);
    assert_eq!(message(&again), "success");
    assert!(again.results.iter().all(|(_, result)| matches!(result, TxResult::Known { .. })));
    bench.pool.assert_consistent();
    bench.mine();
    assert!(bench.pool.is_empty(), "both are in one block");
}

#[test]
fn dust_is_for_transactions_without_fee_and_their_children_spend_it() {
    let mut bench = Bench::new();
    let coins: Vec<OutPoint> = (0..6).map(|_| bench.coin()).collect();
    let with_fee = commitment(coins[0], 1_000);
    assert_eq!(bench.refusal(&with_fee).1, "dust, tx with dust output must be 0-fee");
    let mut two = commitment(coins[0], 0);
    two.output.push(anchor(0));
    assert_eq!(bench.refusal(&two).1, "dust");

    // The child takes the parent's payment and leaves the dust.
    let parent = commitment(coins[1], 0);
    let leaves = truc(pay(&[first_output(&parent), coins[2]], &[2 * COIN - 2_000]));
    let result = bench.submit_package(&[&parent, &leaves]);
    assert_eq!(message(&result), "unspent-dust");
    assert!(error(&result, &leaves).starts_with("missing-ephemeral-spends, tx "), "{result:?}");
    assert!(error(&result, &parent).starts_with("min relay fee not met, 0 < "));
    assert!(bench.pool.is_empty());

    // Of a parent in the pool too. It is not bound to version 3.
    let parent = Transaction { version: Version::TWO, ..commitment(coins[3], 0) };
    let child = Transaction { version: Version::TWO, ..bump(&parent, coins[4], 2_000) };
    assert!(all_accepted(&bench.submit_package(&[&parent, &child])));
    let other = pay(&[first_output(&parent), coins[5]], &[2 * COIN - 5_000]);
    assert_eq!(bench.reason(&other), "missing-ephemeral-spends");
    let mut both = pay(&[first_output(&parent), second(&parent)], &[COIN - 5_000]);
    both.input[1].witness = Witness::new();
    bench.submit(&both).expect("it spends the dust, and replaces the child");
    bench.pool.assert_consistent();
    bench.mine();
    assert!(bench.pool.is_empty());
}

#[test]
fn a_child_pays_for_its_parents_and_each_is_told_its_own_fate() {
    let mut bench = Bench::new();
    let coins: Vec<OutPoint> = (0..5).map(|_| bench.coin()).collect();
    let (rich, poor) = (pay(&[coins[0]], &[COIN - 1_000]), pay(&[coins[1]], &[COIN]));
    let poorer = pay_padded(&[coins[2]], &[COIN], 500);
    let inputs = [&rich, &poor, &poorer].map(first_output);
    let enough = (vsize(&poor) + vsize(&poorer) + vsize(&pay(&inputs, &[COIN]))).div_ceil(10);
    let child = |fee: u64| pay(&inputs, &[3 * COIN - 1_000 - fee]);

    let less = child(enough - 1);
    let result = bench.submit_package(&[&rich, &poor, &poorer, &less]);
    assert_eq!(message(&result), "transaction failed");
    assert_eq!(error(&result, &less), format!("min relay fee not met, {} < {enough}", enough - 1));
    assert!(error(&result, &poor).starts_with("min relay fee not met, 0 < "));
    assert!(bench.pool.contains(&rich.compute_txid()), "what stands by itself is taken");

    let result = bench.submit_package(&[&rich, &poor, &poorer, &child(enough)]);
    assert_eq!(message(&result), "success");
    assert!(matches!(result.results[0].1, TxResult::Known { .. }));
    let TxResult::Accepted { feerate, includes, .. } = &result.results[1].1 else { panic!("{result:?}") };
    assert_eq!((feerate.fee.to_sat(), includes.len()), (enough, 3), "the rich one's fee counts once");
    bench.pool.assert_consistent();
    bench.mine();
    assert!(bench.pool.is_empty());
}

#[test]
fn a_parent_does_not_pay_for_its_child() {
    let mut bench = Bench::new();
    let coin = bench.coin();
    let parent = pay(&[coin], &[COIN - 10_000]);
    let child = pay(&[first_output(&parent)], &[COIN - 10_000]);
    let result = bench.submit_package(&[&parent, &child]);
    assert_eq!(message(&result), "transaction failed");
    assert!(error(&result, &child).starts_with("min relay fee not met, 0 < "));
    assert!(bench.pool.contains(&parent.compute_txid()));
}

#[test]
fn what_fails_for_another_reason_ends_the_attempt() {
    let mut bench = Bench::new();
    let (a, b) = (bench.coin(), bench.coin());
    let parent = commitment(a, 0);
    // Wrong by itself.
    let mut child = bump(&parent, b, 2_000);
    child.output.push(TxOut { script_pubkey: vec![0x52].into(), ..free_output(1_000) });
    let result = bench.submit_package(&[&parent, &child]);
    assert_eq!((message(&result), error(&result, &child)), ("transaction failed".into(), "scriptpubkey".into()));
    // Wrong once its coins are there, which only the package has.
    let mut child = bump(&parent, b, 2_000);
    child.input[1].witness = Witness::from_slice(&[[0x52]]);
    let result = bench.submit_package(&[&parent, &child]);
    assert_eq!(message(&result), "transaction failed");
    assert!(error(&result, &child).starts_with("mempool-script-verify-flag-failed"));
    assert!(matches!(&result.results[1].1, TxResult::Refused(Reject::Invalid(Invalid::Script(_)))));
    // A coin that nobody knows.
    let child = bump(&parent, OutPoint { vout: 99, ..a }, 2_000);
    let result = bench.submit_package(&[&parent, &child]);
    assert_eq!(message(&result), "transaction failed");
    assert_eq!(error(&result, &child), "bad-txns-inputs-missingorspent");
    assert!(matches!(&result.results[1].1, TxResult::Refused(Reject::NotYet(NotYet::MissingInput { .. }))));
    assert!(bench.pool.is_empty());
}

#[test]
fn version_three_keeps_to_itself_in_packages_too() {
    let mut bench = Bench::new();
    let coins: Vec<OutPoint> = (0..8).map(|_| bench.coin()).collect();
    let parent = commitment(coins[0], 0);
    let plain = Transaction { version: Version::TWO, ..bump(&parent, coins[1], 2_000) };
    let result = bench.submit_package(&[&parent, &plain]);
    assert!(message(&result).starts_with("TRUC-violation, non-version=3 tx "), "{}", message(&result));
    assert_eq!(error(&result, &plain), "bad-txns-inputs-missingorspent", "its own result stays");

    let plain = Transaction { version: Version::TWO, ..parent.clone() };
    let result = bench.submit_package(&[&plain, &bump(&plain, coins[1], 2_000)]);
    assert!(message(&result).contains("cannot spend from non-version=3 tx"), "{}", message(&result));

    let mut large = bump(&parent, coins[1], 20_000);
    large.output.push(pay_padded(&[], &[], 900).output.remove(0));
    let result = bench.submit_package(&[&parent, &large]);
    assert!(
        message(&result).contains("child tx") && message(&result).contains("is too big: 10"),
        "{}",
        message(&result)
    );

    let other = commitment(coins[2], 0);
    let two = {
        let mut two = bump(&parent, coins[1], 5_000);
        two.input.push(bump(&other, coins[1], 0).input.remove(0));
        two
    };
    let result = bench.submit_package(&[&parent, &other, &two]);
    assert!(message(&result).ends_with("would have too many ancestors"), "{}", message(&result));

    // A child in the pool keeps its place: a sibling may take it only by itself.
    let grandparent = truc(pay(&[coins[3]], &[COIN / 2, COIN / 2 - 1_000]));
    bench.add(&grandparent);
    bench.add(&truc(pay(&[first_output(&grandparent)], &[COIN / 2 - 1_000])));
    let poor = truc(pay(&[second(&grandparent)], &[COIN / 2 - 1_000]));
    let result = bench.submit_package(&[&poor, &truc(pay(&[first_output(&poor)], &[COIN / 4]))]);
    assert_eq!(message(&result), "transaction failed");
    assert!(error(&result, &poor).ends_with("would exceed descendant count limit"), "{}", error(&result, &poor));
    bench.pool.assert_consistent();
}

/// A package of the same channel with a higher fee, as when both sides close it.
#[test]
fn a_package_replaces_another() {
    let mut bench = Bench::new();
    let coins: Vec<OutPoint> = (0..4).map(|_| bench.coin()).collect();
    let mine = commitment(coins[0], 0);
    let mut yours = commitment(coins[0], 0);
    yours.output[0].value -= Amount::from_sat(1_000);
    yours.output.push(free_output(1_000));
    let old = bump(&mine, coins[1], 2_000);
    assert!(all_accepted(&bench.submit_package(&[&mine, &old])));

    let relay = (vsize(&yours) + vsize(&bump(&yours, coins[2], 0))).div_ceil(10);
    let cases = [
        (1_999, "insufficient anti-DoS fees, rejecting replacement", "less fees than conflicting txs"),
        (2_000 + relay - 1, "insufficient anti-DoS fees, rejecting replacement", "not enough additional fees"),
        // More fees, and more bytes.
        (2_000 + relay, "insufficient feerate: does not improve feerate diagram", ""),
    ];
    for (fee, start, part) in cases {
        let result = bench.submit_package(&[&yours, &bump(&yours, coins[2], fee)]);
        let start = format!("package RBF failed: {start}");
        assert!(message(&result).starts_with(&start) && message(&result).contains(part), "{fee}: {}", message(&result));
        assert!(bench.pool.contains(&old.compute_txid()));
    }
    let new = bump(&yours, coins[2], 5_000);
    let result = bench.submit_package(&[&yours, &new]);
    assert!(all_accepted(&result), "{}", message(&result));
    assert_eq!(result.replaced, [mine.compute_txid(), old.compute_txid()].into());
    bench.pool.assert_consistent();
    bench.mine();
    assert!(bench.pool.is_empty());
}

#[test]
fn a_package_that_replaces_is_a_pair_among_pairs() {
    let mut bench = Bench::new();
    let coins: Vec<OutPoint> = (0..8).map(|_| bench.coin()).collect();
    bench.add(&pay(&[coins[0]], &[COIN - 500]));
    // Three.
    let parents = [pay(&[coins[0]], &[COIN]), pay(&[coins[1]], &[COIN])];
    let child = pay(&[first_output(&parents[0]), first_output(&parents[1])], &[2 * COIN - 50_000]);
    let result = bench.submit_package(&[&parents[0], &parents[1], &child]);
    assert_eq!(message(&result), "package RBF failed: package must be 1-parent-1-child");
    // With a parent in the pool.
    let grandparent = bench.add(&pay(&[coins[2]], &[COIN - 500]));
    let parent = pay(&[coins[0], grandparent], &[2 * COIN - 500]);
    let child = pay(&[first_output(&parent)], &[2 * COIN - 50_000]);
    let result = bench.submit_package(&[&parent, &child]);
    assert_eq!(message(&result), "package RBF failed: new transaction cannot have mempool ancestors");
    // The child adds nothing: the parent by itself pays enough for the pool, and too little for what it replaces.
    let parent = pay_padded(&[coins[0]], &[COIN - 400], 200);
    let child = pay_padded(&[first_output(&parent)], &[COIN - 700], 500);
    let result = bench.submit_package(&[&parent, &child]);
    let start = "package RBF failed: package feerate is less than or equal to parent feerate, package feerate 0.0000";
    assert!(message(&result).starts_with(start), "{}", message(&result));
    // What it conflicts with has two children.
    let family = pay(&[coins[3]], &[COIN / 2, COIN / 2 - 500]);
    bench.add(&family);
    bench.add(&pay(&[first_output(&family)], &[COIN / 2 - 500]));
    bench.add(&pay(&[second(&family)], &[COIN / 2 - 1_000]));
    let parent = pay(&[coins[3]], &[COIN]);
    let child = pay(&[first_output(&parent)], &[COIN - 50_000]);
    let result = bench.submit_package(&[&parent, &child]);
    assert!(message(&result).ends_with("is in a cluster of more than 2 transactions"), "{}", message(&result));
    // Only the child of a pair: its parent stays, and counts.
    let stays = pay(&[coins[4]], &[COIN - 100]);
    let goes = pay(&[first_output(&stays), coins[5]], &[2 * COIN - 3_000]);
    bench.add(&stays);
    bench.add(&goes);
    let parent = pay(&[coins[5]], &[COIN]);
    let child = pay(&[first_output(&parent)], &[COIN - 9_000]);
    let result = bench.submit_package(&[&parent, &child]);
    assert!(all_accepted(&result), "{}", message(&result));
    assert_eq!(result.replaced, [goes.compute_txid()].into());
    bench.pool.assert_consistent();
}

#[test]
fn families_are_bounded_with_the_package_in_them() {
    let mut bench = Bench::with(Policy::default());
    let (coin, other) = (bench.coin(), bench.coin());
    let mut tip = coin;
    for i in 1..=23 {
        tip = bench.add(&pay(&[tip], &[COIN - i * 1_000]));
    }
    let poor = pay(&[tip], &[COIN - 23_000]);
    let child = pay(&[first_output(&poor), other], &[COIN / 2, 3 * COIN / 2 - 33_000]);
    // Ancestors: 23, the parent and the child are 25.
    let longer = pay(&[first_output(&poor)], &[COIN - 24_000]);
    assert!(all_accepted(&bench.submit_package(&[&poor, &child])));
    let grandchild = pay(&[first_output(&child)], &[COIN / 4]);
    assert_eq!(bench.reason(&grandchild), "too-long-mempool-chain");

    let mut bench = Bench::with(Policy::default());
    let coin = bench.coin();
    let mut tip = coin;
    for i in 1..=24 {
        tip = bench.add(&pay(&[tip], &[COIN - i * 1_000]));
    }
    let poor = pay(&[tip], &[COIN - 24_000]);
    let result = bench.submit_package(&[&poor, &pay(&[first_output(&poor)], &[COIN / 2])]);
    assert_eq!(message(&result), "too-long-mempool-chain, too many unconfirmed ancestors [limit: 25]");
    assert_ne!(longer, poor);

    // Descendants of one that has 24, itself included.
    let mut bench = Bench::with(Policy::default());
    let coin = bench.coin();
    let root = pay(&[coin], &[COIN / 30; 25]);
    bench.add(&root);
    for vout in 0..23 {
        bench.add(&pay(&[OutPoint { vout, ..first_output(&root) }], &[COIN / 30 - 1_000]));
    }
    let poor = pay(&[OutPoint { vout: 23, ..first_output(&root) }], &[COIN / 30]);
    let result = bench.submit_package(&[&poor, &pay(&[first_output(&poor)], &[COIN / 40])]);
    let txid = root.compute_txid();
    assert_eq!(message(&result), format!("too-long-mempool-chain, too many descendants for tx {txid} [limit: 25]"));
}

#[test]
fn a_full_pool_asks_the_package_for_its_minimum_and_evicts_it_whole() {
    let mut bench = Bench::with(Policy { max_memory_bytes: 60_000, ..Policy::default() });
    for i in 0..20 {
        let coin = bench.coin();
        let _ = bench.submit(&pay_padded(&[coin], &[COIN - 50_000 - i * 1_000], 3_000));
    }
    let minimum = bench.pool.min_feerate(bench.now_s);
    assert!(minimum > SatPerKvb(10_000), "{minimum:?}");
    let (a, b) = (bench.coin(), bench.coin());
    let parent = commitment(a, 0);
    let result = bench.submit_package(&[&parent, &bump(&parent, b, 2_000)]);
    assert_eq!(message(&result), "transaction failed");
    let child = bump(&parent, b, 20_000);
    let result = bench.submit_package(&[&parent, &child]);
    assert!(all_accepted(&result), "{result:?}");
    // Others that pay more push out both at once.
    let mut gone: Vec<Departed> = Vec::new();
    for i in 0..40 {
        let coin = bench.coin();
        gone.extend(bench.submit(&pay_padded(&[coin], &[COIN - 400_000 - i * 1_000], 3_000)).expect("it pays most"));
    }
    for txid in [parent.compute_txid(), child.compute_txid()] {
        assert!(gone.contains(&Departed { txid, why: Departure::Evicted }));
    }
    bench.pool.assert_consistent();
    assert!(bench.pool.memory() <= 60_000);
}

#[test]
fn a_package_that_is_pushed_out_at_once_is_told_so() {
    // Room for about ten small transactions.
    let mut bench = Bench::with(Policy { max_memory_bytes: 18_000, ..Policy::default() });
    for i in 0..10 {
        let coin = bench.coin();
        bench.add(&pay(&[coin], &[COIN - 1_000 - i]));
    }
    let (a, b) = (bench.coin(), bench.coin());
    let parent = commitment(a, 0);
    let child = bump(&parent, b, 100);
    let result = bench.submit_package(&[&parent, &child]);
    assert_eq!(message(&result), "transaction failed");
    let full = TxResult::Refused(PolicyReject::MempoolFull.into());
    assert!(result.results.iter().any(|(_, result)| *result == full), "{result:?}");
    assert_eq!(bench.pool.len(), 10, "nobody else has to go for it");
    bench.pool.assert_consistent();
}

#[test]
fn a_sender_may_bound_the_feerate_of_each() {
    let mut bench = Bench::new();
    let (a, b) = (bench.coin(), bench.coin());
    let parent = commitment(a, 0);
    let child = bump(&parent, b, 20_000);
    let package = Package::new(vec![Arc::new(parent.clone()), Arc::new(child.clone())]).expect("a pair");
    for (max, text) in [(20_000, "max feerate exceeded"), (200_000, "")] {
        let mut submission = Submission::new(&package, Some(SatPerKvb(max)), bench.now_s);
        let mut turn = submission.step(&bench.pool, bench.now_s);
        let result = loop {
            match turn {
                Turn::Check(check) | Turn::Again(check) => {
                    let answer = check.run(&bench.chain).expect("maps do not fail");
                    turn = submission.answered(&mut bench.pool, answer, bench.now_s, &mut Vec::new());
                }
                Turn::Done(result) => break result,
            }
        };
        match text {
            "" => assert!(all_accepted(&result)),
            text => assert_eq!(error(&result, &child), text),
        }
    }
}

/// While the package is checked its parent enters with another child: the package is begun anew, and its child takes the
/// other's place.
#[test]
fn a_parent_that_enters_meanwhile_is_known() {
    let mut bench = Bench::new();
    let (a, b, c) = (bench.coin(), bench.coin(), bench.coin());
    let parent = commitment(a, 0);
    let (first, second) = (bump(&parent, b, 2_000), bump(&parent, c, 9_000));
    let package = Package::new(vec![Arc::new(parent.clone()), Arc::new(second.clone())]).expect("a pair");
    let mut submission = Submission::new(&package, None, bench.now_s);
    let mut turn = submission.step(&bench.pool, bench.now_s);
    let result = loop {
        match turn {
            Turn::Check(check) | Turn::Again(check) => {
                let together = matches!(check, crate::mempool::PackageCheck::Together(_));
                let answer = check.run(&bench.chain).expect("maps do not fail");
                if together && bench.pool.is_empty() {
                    assert!(all_accepted(&bench.submit_package(&[&parent, &first])));
                }
                turn = submission.answered(&mut bench.pool, answer, bench.now_s, &mut Vec::new());
            }
            Turn::Done(result) => break result,
        }
    };
    assert_eq!(message(&result), "success");
    assert!(matches!(result.results[0].1, TxResult::Known { .. }));
    assert_eq!(result.replaced, [first.compute_txid()].into());
    bench.pool.assert_consistent();
}

/// A block between the check and its result.
#[test]
fn a_package_is_checked_again_on_a_new_tip() {
    let mut bench = Bench::new();
    let (a, b) = (bench.coin(), bench.coin());
    let parent = commitment(a, 0);
    let child = bump(&parent, b, 2_000);
    let package = Package::new(vec![Arc::new(parent), Arc::new(child)]).expect("a pair");
    let mut submission = Submission::new(&package, None, bench.now_s);
    let mut turn = submission.step(&bench.pool, bench.now_s);
    let (mut checks, mut again) = (0, 0);
    let result = loop {
        match turn {
            Turn::Check(check) | Turn::Again(check) => {
                let answer = check.run(&bench.chain).expect("maps do not fail");
                checks += 1;
                if checks == 3 {
                    bench.commit_transactions(vec![], 0);
                }
                turn = submission.answered(&mut bench.pool, answer, bench.now_s, &mut Vec::new());
                again += usize::from(matches!(turn, Turn::Again(_)));
            }
            Turn::Done(result) => break result,
        }
    };
    assert_eq!((checks, again), (4, 1));
    assert!(all_accepted(&result), "{result:?}");
}

#[test]
fn what_is_no_package() {
    let mut bench = Bench::new();
    let coins: Vec<OutPoint> = (0..30).map(|_| bench.coin()).collect();
    let package = |transactions: &[&Transaction]| {
        Package::new(transactions.iter().map(|one| Arc::new((*one).clone())).collect()).map(|_| ())
    };
    let parent = pay(&[coins[0]], &[COIN / 2, COIN / 2]);
    let child = pay(&[first_output(&parent)], &[COIN / 2]);
    assert_eq!(package(&[]), Err(PackageForm::Topology));
    assert_eq!(package(&[&parent]), Ok(()));
    assert_eq!(package(&[&parent, &child]), Ok(()));
    assert_eq!(package(&[&child, &parent]), Err(PackageForm::Topology));
    assert_eq!(package(&[&parent, &pay(&[coins[1]], &[COIN])]), Err(PackageForm::Topology));
    assert_eq!(package(&[&parent, &parent]), Err(PackageForm::Topology));
    assert_eq!(package(&[&parent, &parent, &child]), Err(PackageForm::Duplicates));
    // A parent spends from another.
    let between = pay(&[first_output(&parent)], &[COIN / 2]);
    let last = pay(&[second(&parent), first_output(&between)], &[COIN]);
    assert_eq!(package(&[&parent, &between, &last]), Err(PackageForm::Topology));
    // The child spends what its parent spends.
    assert_eq!(package(&[&parent, &pay(&[first_output(&parent), coins[0]], &[COIN])]), Err(PackageForm::Conflict));
    assert_eq!(package(&[&pay(&[], &[COIN])]), Err(PackageForm::Conflict));
    let heavy = pay_padded(&[coins[2]], &[COIN], 99_000);
    assert_eq!(package(&[&heavy, &pay_padded(&[first_output(&heavy)], &[COIN], 3_000)]), Err(PackageForm::TooLarge));
    let parents: Vec<Transaction> = coins[..25].iter().map(|coin| pay(&[*coin], &[COIN])).collect();
    let outputs: Vec<OutPoint> = parents.iter().map(first_output).collect();
    let child = pay(&outputs, &[COIN]);
    let all: Vec<&Transaction> = parents.iter().chain([&child]).collect();
    assert_eq!(package(&all), Err(PackageForm::TooMany));
    let child = pay(&outputs[1..], &[COIN]);
    let all: Vec<&Transaction> = parents[1..].iter().chain([&child]).collect();
    assert_eq!(package(&all), Ok(()));
    let member = PackageReject::Member { wtxid: child.compute_wtxid(), reject: NotYet::NonFinal.into() };
    assert_eq!(member.to_string(), "transaction failed");
}
