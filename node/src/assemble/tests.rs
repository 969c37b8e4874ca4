use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, ScriptBuf, Witness};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::mempool::Policy;
use crate::testing::{Bench, COIN, bump, commitment, first_output, free_input, free_script, pay, pay_padded};
use crate::wire::BLOCK_BYTES_MAX;

fn txids(selection: &Selection) -> Vec<Txid> {
    selection.transactions.iter().map(Transaction::compute_txid).collect()
}

fn room(weight: u64) -> BlockRoom {
    BlockRoom { weight: Weight::from_wu(weight), ..BlockRoom::beside(&free_script(), None, BLOCK_BYTES_MAX) }
}

#[test]
fn best_feerate_first_and_ties_by_txid() {
    let mut bench = Bench::new();
    let payments: Vec<_> = [500, 900, 900, 900, 700]
        .into_iter()
        .map(|fee| {
            let coin = bench.coin();
            let payment = pay(&[coin], &[COIN - fee]);
            bench.add(&payment);
            payment.compute_txid()
        })
        .collect();
    let mut equal = payments[1..4].to_vec();
    equal.sort_unstable();
    let selection = select(&bench.pool, &bench.room());
    assert_eq!(txids(&selection), [&equal[..], &[payments[4], payments[0]]].concat());
    assert_eq!(selection.fees, Amount::from_sat(3_900));
}

/// A parent that pays little with a child that pays much is worth more than what pays something in between. Choosing each
/// transaction by its own feerate would take the child too late or never.
#[test]
fn a_package_beats_the_choice_one_by_one() {
    let mut bench = Bench::new();
    let (a, b) = (bench.coin(), bench.coin());
    let parent = pay(&[a], &[COIN - 100]);
    let child = pay(&[first_output(&parent)], &[COIN - 10_100]);
    let middle = [pay(&[b], &[COIN / 2, COIN / 2 - 3_000])];
    for transaction in [&parent, &child, &middle[0]] {
        bench.add(transaction);
    }
    let two = bench.pool.get(&child.compute_txid()).expect("there").ancestors().weight.to_wu();
    let selection = select(&bench.pool, &room(two));
    assert_eq!(txids(&selection), [parent.compute_txid(), child.compute_txid()]);
    assert_eq!(selection.fees, Amount::from_sat(10_100));
    // One by one: the child is not possible yet, the middle one is best, and the poor parent no longer fits.
    let greedy = Amount::from_sat(3_000);
    assert!(selection.fees > greedy);
}

/// A parent without fee whose dust nobody would have to spend: it comes with its child, or not at all.
#[test]
fn a_parent_with_dust_comes_with_its_child_or_not_at_all() {
    let mut bench = Bench::new();
    let coins: Vec<OutPoint> = (0..4).map(|_| bench.coin()).collect();
    let parent = commitment(coins[0], 0);
    let child = bump(&parent, coins[1], 2_000);
    assert!(bench.submit_package(&[&parent, &child]).refused.is_none());
    let rich = pay(&[coins[2]], &[COIN - 50_000]);
    bench.add(&rich);
    let [parent_weight, child_weight, rich_weight] = [&parent, &child, &rich].map(|one| one.weight().to_wu());
    let both = [&rich, &parent, &child].map(Transaction::compute_txid);
    assert_eq!(txids(&select(&bench.pool, &room(rich_weight + parent_weight + child_weight))), both);
    for weight in [rich_weight + parent_weight + child_weight - 1, rich_weight + parent_weight, rich_weight] {
        assert_eq!(txids(&select(&bench.pool, &room(weight))), both[..1]);
    }
    // Its child is replaced by what does not need it: the parent stays in the pool, and out of blocks.
    let other = pay(&[coins[1]], &[COIN - 9_000]);
    bench.submit(&other).expect("it pays more");
    assert!(bench.pool.contains(&parent.compute_txid()) && !bench.pool.contains(&child.compute_txid()));
    let selection = select(&bench.pool, &bench.room());
    assert_eq!(txids(&selection), [rich.compute_txid(), other.compute_txid()]);
    bench.commit(selection);
    // Until there is another child.
    bench.submit(&bump(&parent, coins[3], 3_000)).expect("the parent is there");
    let selection = select(&bench.pool, &bench.room());
    assert_eq!(selection.transactions.len(), 2);
    bench.commit(selection);
    assert!(bench.pool.is_empty());
}

/// Once the shared parent is in, each child counts with its own feerate.
#[test]
fn what_is_left_of_a_package_is_ranked_anew() {
    let mut bench = Bench::new();
    let (a, b) = (bench.coin(), bench.coin());
    let parent = pay(&[a], &[COIN / 3; 3]);
    let mut free = parent.clone();
    free.output[0].value -= Amount::from_sat(20);
    let output = |vout| OutPoint { txid: free.compute_txid(), vout };
    let rich = pay(&[output(1)], &[COIN / 3 - 10_000]);
    let modest = pay(&[output(2)], &[COIN / 3 - 2_000]);
    let middle = pay(&[b], &[COIN - 1_500]);
    for transaction in [&free, &rich, &modest, &middle] {
        bench.add(transaction);
    }
    // With its parent the modest one is worth less than the middle one, without it more.
    let score = |transaction: &Transaction| bench.pool.get(&transaction.compute_txid()).expect("there").mining_score();
    assert!(score(&modest) < score(&middle));
    let selection = select(&bench.pool, &bench.room());
    let expected = [&free, &rich, &modest, &middle].map(Transaction::compute_txid);
    assert_eq!(txids(&selection), expected);
    bench.commit(selection);
}

#[test]
fn what_does_not_fit_is_passed_over() {
    let mut bench = Bench::new();
    let (a, b, c) = (bench.coin(), bench.coin(), bench.coin());
    // The child needs both parents; one of them is heavy and rich enough to come by itself.
    let heavy = pay_padded(&[a], &[COIN - 30_000], 1_000);
    let light = pay(&[b], &[COIN - 20]);
    let child = pay(&[first_output(&heavy), first_output(&light)], &[2 * COIN - 100_000]);
    let small = pay(&[c], &[COIN - 100]);
    for transaction in [&heavy, &light, &child, &small] {
        bench.add(transaction);
    }
    let weight = |transaction: &Transaction| transaction.weight().to_wu();
    // Room for all but one unit: the package of three fits with nothing else.
    let three = weight(&heavy) + weight(&light) + weight(&child);
    let selection = select(&bench.pool, &room(three));
    assert_eq!(selection.transactions.len(), 3);
    assert_eq!(selection.weight.to_wu(), three);
    // One unit less, and the heavy parent comes alone, with what still fits beside it.
    let selection = select(&bench.pool, &room(three - 1));
    assert_eq!(txids(&selection)[0], heavy.compute_txid());
    assert!(!txids(&selection).contains(&child.compute_txid()));
    assert!(txids(&selection).contains(&small.compute_txid()));
}

#[test]
fn below_the_least_feerate_nothing_is_chosen() {
    let mut bench = Bench::new();
    let coin = bench.coin();
    bench.add(&pay(&[coin], &[COIN - 50]));
    let room = BlockRoom { min_feerate: SatPerKvb(1_000), ..bench.room() };
    assert_eq!(select(&bench.pool, &room).transactions, []);
    assert_eq!(select(&bench.pool, &bench.room()).transactions.len(), 1);
}

#[test]
fn signature_operations_are_bounded() {
    let mut bench = Bench::new();
    let script = ScriptBuf::from_bytes([&[0x51, 0x00, 0x63][..], &[0xac; 190], &[0x68]].concat());
    for _ in 0..8 {
        let input = (0..84).map(|_| {
            let output = bitcoin::TxOut { value: Amount::from_sat(COIN), script_pubkey: script.to_p2wsh() };
            let witness = Witness::from_slice(&[script.as_bytes()]);
            bitcoin::TxIn { witness, ..free_input(bench.put_output(output)) }
        });
        let input = input.collect();
        bench.add(&Transaction { input, ..pay(&[], &[COIN]) });
    }
    let selection = select(&bench.pool, &bench.room());
    assert_eq!(selection.transactions.len(), 5);
    assert_eq!(selection.sigops_cost, 5 * 84 * 190);
    bench.commit(selection);
}

/// What spends outside of witnesses cost depends on the script that they spend and on the size of their transaction, in the
/// pool as in the block.
#[test]
fn signature_operations_outside_of_witnesses_are_bounded() {
    let mut bench = Bench::new();
    let redeem = ScriptBuf::from_bytes([&[0x51, 0x00, 0x63][..], &[0xac; 15], &[0x68]].concat());
    let script_sig = ScriptBuf::from_bytes([&[19], redeem.as_bytes()].concat());
    for _ in 0..8 {
        let input = (0..118).map(|_| {
            let output = bitcoin::TxOut { value: Amount::from_sat(COIN), script_pubkey: redeem.to_p2sh() };
            bitcoin::TxIn {
                script_sig: script_sig.clone(),
                witness: Witness::new(),
                ..free_input(bench.put_output(output))
            }
        });
        let input = input.collect();
        bench.add(&Transaction { input, ..pay_padded(&[], &[COIN], 80_000) });
    }
    let selection = select(&bench.pool, &bench.room());
    // 4 units for each operation, and 5 for the 87 kB that it may hash.
    assert_eq!(selection.transactions.len(), 5);
    assert_eq!(selection.sigops_cost, 5 * 118 * 15 * (4 + 5));
    bench.commit(selection);
}

/// A block filled to the last transaction passes the rules, beside a fee script of any standard size.
#[test]
fn a_full_block_is_within_the_rules() {
    let mut bench = Bench::with(Policy::default());
    for i in 0..12 {
        let coin = bench.coin();
        bench.add(&pay_padded(&[coin], &[COIN - 50_000 - i], 98_000));
    }
    for i in 0..300 {
        let coin = bench.coin();
        bench.add(&pay(&[coin], &[COIN - 100 - i]));
    }
    let room = bench.room();
    let selection = select(&bench.pool, &room);
    assert!(selection.weight > room.weight - Weight::from_wu(500_000));
    let mut filled = selection.clone();
    // What is left is filled to the unit with padding that no pool would hold.
    let coin = bench.coin();
    let empty = pay_padded(&[coin], &[COIN], 1).weight().to_wu();
    let left = (room.weight - selection.weight).to_wu() - empty;
    let padded = pay_padded(&[coin], &[COIN], usize::try_from(left / 4).expect("small") - 4);
    filled.weight += padded.weight();
    filled.transactions.push(padded);
    assert!(filled.weight <= room.weight && filled.weight + Weight::from_wu(64) > room.weight);
    bench.commit(filled);
}

#[test]
fn a_block_holds_no_more_bytes_than_it_may_though_its_weight_would_permit_them() {
    let mut bench = Bench::new();
    for fee in [9_000, 6_000, 3_000] {
        let coin = bench.coin();
        bench.add(&pay_padded(&[coin], &[COIN - fee], 20_000));
    }
    let all = select(&bench.pool, &bench.room());
    assert_eq!(all.transactions.len(), 3);
    assert_eq!(all.bytes, all.transactions.iter().map(Transaction::total_size).sum::<usize>());
    let beside = BLOCK_BYTES_MAX - bench.room().bytes;
    let two = select(&bench.pool, &BlockRoom::beside(&free_script(), None, all.bytes * 2 / 3 + beside));
    assert_eq!(txids(&two), txids(&all)[..2]);
    let one = select(&bench.pool, &BlockRoom::beside(&free_script(), None, all.bytes * 2 / 3 + beside - 1));
    assert_eq!(txids(&one), txids(&all)[..1]);
}

#[test]
fn the_room_beside_a_peg_transaction_and_a_costly_fee_script() {
    let plain = BlockRoom::beside(&free_script(), None, BLOCK_BYTES_MAX);
    let hash = bitcoin::PubkeyHash::from_byte_array([1; 20]);
    let p2pkh =
        BlockRoom::beside(&ScriptBuf::new_p2pkh(&hash), Some((Weight::from_wu(9_000_000), 100)), BLOCK_BYTES_MAX);
    assert_eq!(plain.sigops_cost, 80_000);
    assert_eq!(p2pkh.sigops_cost, 80_000 - 4 - 100);
    assert_eq!(p2pkh.weight, Weight::ZERO);
    let peg = BlockRoom::beside(&free_script(), Some((Weight::from_wu(400_000), 0)), BLOCK_BYTES_MAX);
    assert_eq!(plain.weight - peg.weight, Weight::from_wu(400_000));
}

/// The same choice with every package added up anew at every step.
fn select_slowly(pool: &Mempool, room: &BlockRoom) -> Vec<Txid> {
    let mut chosen: Vec<Txid> = vec![];
    let mut passed_over = BTreeSet::new();
    let (mut weight, mut sigops_cost) = (Weight::ZERO, 0);
    loop {
        let package = |entry: &Entry| {
            let mut package = BTreeSet::from([(entry.ancestors().count, entry.txid())]);
            let mut open: Vec<Txid> = entry.parents().iter().copied().collect();
            while let Some(txid) = open.pop() {
                let ancestor = pool.get(&txid).expect("there");
                open.extend(ancestor.parents());
                if !chosen.contains(&txid) {
                    package.insert((ancestor.ancestors().count, txid));
                }
            }
            package
        };
        let sum = |package: &BTreeSet<(usize, Txid)>| {
            let mut family = Family::NONE;
            package.iter().for_each(|(_, txid)| family.add(pool.get(txid).expect("there")));
            family
        };
        let open =
            pool.entries().filter(|entry| !chosen.contains(&entry.txid()) && !passed_over.contains(&entry.txid()));
        let score = |entry: &Entry| entry.feerate().min(sum(&package(entry)).feerate());
        let Some(best) = open.min_by_key(|entry| (Reverse(score(entry)), entry.txid())) else { return chosen };
        let (package, family) = (package(best), sum(&package(best)));
        if weight + family.weight > room.weight || sigops_cost + family.sigops_cost > room.sigops_cost {
            passed_over.insert(best.txid());
            continue;
        }
        weight += family.weight;
        sigops_cost += family.sigops_cost;
        chosen.extend(package.iter().map(|(_, txid)| *txid));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Random families and any room: limits hold, parents come first, and the block passes the whole pipeline.
    #[test]
    fn a_block_of_any_room_is_valid(
        payments in vec((vec(any::<Index>(), 1..3), 100u64..9_000, prop_oneof![2 => Just(0usize), 1 => 1usize..3_000]), 1..60),
        weight in 0u64..60_000,
        sigops_cost in prop_oneof![Just(0usize), Just(80_000)],
    ) {
        let mut bench = Bench::new();
        let mut outputs: Vec<(OutPoint, u64)> = (0..20).map(|_| (bench.coin(), COIN)).collect();
        for (spends, fee, padding) in &payments {
            let mut spends: Vec<_> = spends.iter().map(|index| *index.get(&outputs)).collect();
            spends.sort_unstable();
            spends.dedup();
            let inputs: Vec<_> = spends.iter().map(|(outpoint, _)| *outpoint).collect();
            let each = spends.iter().map(|(_, worth)| worth).sum::<u64>().saturating_sub(*fee) / 2;
            let transaction = match padding {
                0 => pay(&inputs, &[each, each]),
                padding => pay_padded(&inputs, &[each, each], *padding),
            };
            if bench.submit(&transaction).is_ok() {
                let txid = transaction.compute_txid();
                outputs.extend([0, 1].map(|vout| (OutPoint { txid, vout }, each)));
                outputs.retain(|(outpoint, _)| !inputs.contains(outpoint));
            }
        }
        let room = BlockRoom { weight: Weight::from_wu(weight), sigops_cost, ..bench.room() };
        let selection = select(&bench.pool, &room);
        prop_assert_eq!(txids(&selection), select_slowly(&bench.pool, &room));
        prop_assert!(selection.weight <= room.weight && selection.sigops_cost <= room.sigops_cost);
        let sum: u64 = selection.transactions.iter().map(|transaction| transaction.weight().to_wu()).sum();
        prop_assert_eq!(selection.weight.to_wu(), sum);
        let (left, chosen) = (bench.pool.len() - selection.transactions.len(), selection.clone());
        bench.commit(selection);
        prop_assert_eq!(bench.pool.len(), left);
        bench.pool.assert_consistent();
        // Nothing that would still have fitted was left out.
        let spare = room.weight - chosen.weight;
        for entry in bench.pool.entries().filter(|entry| entry.ancestors().count == 1) {
            prop_assert!(entry.weight() > spare);
        }
    }
}
