//! What should never happen freezes the peg, and nothing moves after.

use bitcoin::{Amount, ScriptBuf, TxOut};
use causeway_chainspec::{BitcoinHeight, SatPerKvb};
use causeway_consensus::ChainView;
use causeway_consensus::peg::propose::Candidates;
use causeway_consensus::peg::state::Freeze;
use causeway_tests::parent::{quote, spending};
use rand::Rng;
use rand::seq::IndexedRandom;

use crate::for_seeds;
use crate::world::World;

/// A history that came so far that the peg has coins.
fn lived(seed: u64) -> World {
    let mut world = World::new(seed);
    for _ in 0..150 {
        world.act();
    }
    while world.peg().coins().next().is_none() {
        world.act();
    }
    world.catch_up();
    world
}

/// Everyone goes on as before; only Bitcoin's headers, feerates and what waits may change.
fn nothing_moves(world: &mut World) {
    let before = world.peg().clone();
    assert!(before.frozen().is_some());
    for _ in 0..150 {
        world.act();
        assert_eq!(world.peg().frozen(), before.frozen());
        assert!(world.peg().coins().eq(before.coins()));
        assert!(world.peg().open_batches().eq(before.open_batches()));
        assert_eq!(world.peg().batches(), before.batches());
        assert_eq!(world.peg().reserve().1, before.reserve().1);
        let (now, then) = (world.peg().accounts(), before.accounts());
        assert_eq!((now.fee_account, now.charges), (then.fee_account, then.charges));
        assert_eq!(now.circulating() + now.waiting, then.circulating() + then.waiting);
        assert!(now.waiting >= then.waiting);
    }
    let height = world.chain.next_context().height;
    let before = world.peg().quote(&quote(&world.chain.spec, 0, height, SatPerKvb(2_000)).validator);
    let fee_rate = Some(quote(&world.chain.spec, 0, height, SatPerKvb(2_000)));
    let time = world.chain.tip().time() + 1;
    let candidates = Candidates { fee_rate, ..world.parent.candidates(world.peg(), time) };
    world.add(time, candidates, Amount::ZERO, vec![]);
    let after = world.peg().quote(&quote(&world.chain.spec, 0, height, SatPerKvb(2_000)).validator);
    assert_ne!(before, after, "feerates go on");
    world.check_deeply();
}

#[test]
fn a_deep_reorganisation_freezes_the_peg() {
    for_seeds(6, 60, |seed| {
        let mut world = lived(seed);
        let highest = world.peg().headers().highest();
        let final_depth = world.chain.spec.params().final_depth;
        let depth = world.rng.random_range(final_depth..=final_depth + 5).min(highest.0);
        let fork_point = BitcoinHeight(highest.0 - depth);
        world.replace_branch(fork_point, depth + 1);
        world.catch_up();
        assert_eq!(world.peg().frozen(), Some(Freeze::Reorganisation { fork_point, highest, final_depth }));
        nothing_moves(&mut world);
    });
}

/// One block less is no reason.
#[test]
fn a_reorganisation_just_above_what_is_final_does_nothing() {
    for_seeds(6, 60, |seed| {
        let mut world = lived(seed);
        let depth = world.chain.spec.params().final_depth - 1;
        let fork = BitcoinHeight(world.peg().headers().highest().0 - depth);
        world.replace_branch(fork, depth + 1);
        world.catch_up();
        assert_eq!(world.peg().frozen(), None);
        world.check_deeply();
        world.settle();
    });
}

#[test]
fn a_foreign_spend_freezes_the_peg_once_it_is_deep() {
    for_seeds(6, 60, |seed| {
        let mut world = lived(seed);
        // Of a free coin or a batch's, as long as no batch has taken it.
        let stolen = loop {
            let unspent: Vec<_> = world.peg().coins().filter(|coin| world.parent.is_unspent(&coin.outpoint)).collect();
            if let Some(coin) = unspent.choose(&mut world.rng.clone()) {
                break coin.outpoint;
            }
            world.act();
            world.catch_up();
        };
        let theft = spending(&[stolen], vec![TxOut { value: Amount::ONE_SAT, script_pubkey: ScriptBuf::new() }]);
        let txid = theft.compute_txid();
        world.parent.mine(vec![theft]);
        let final_depth = world.chain.spec.params().final_depth;
        for confirmations in 1..=final_depth {
            world.catch_up();
            assert_eq!(world.peg().frozen(), None);
            let spent = vec![world.parent.proof(&txid).expect("mined")];
            let time = world.chain.tip().time() + 1;
            world.add(time, Candidates { spent, ..Candidates::default() }, Amount::ZERO, vec![]);
            if confirmations < final_depth {
                assert_eq!(world.peg().frozen(), None);
                world.parent.mine_empty(1);
            }
        }
        assert_eq!(world.peg().frozen(), Some(Freeze::CoinSpent { outpoint: stolen, txid }));
        nothing_moves(&mut world);
    });
}
