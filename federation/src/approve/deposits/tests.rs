use bitcoin::Txid;
use bitcoin::hashes::Hash;

use super::*;
use crate::approve::tests::hash;

fn point(height: u32) -> BitcoinPoint {
    BitcoinPoint { height, hash: hash(50_000 + height) }
}

fn deposit(number: u8, credited: u32, block: u32) -> CreditedDeposit {
    CreditedDeposit {
        outpoint: OutPoint { txid: Txid::from_byte_array([number; 32]), vout: 0 },
        credited,
        block: point(block),
        in_batch: false,
        found: Some(point(block).hash),
        unspent: true,
    }
}

/// Two deposits credited above height 150, as they should be.
fn facts() -> DepositFacts {
    DepositFacts {
        since: 150,
        to: 180,
        deposits: vec![deposit(1, 160, 290), deposit(2, 170, 285)],
        newest: Some((point(280), Some(point(280).hash))),
        bitcoin_height: BitcoinHeight(310),
        syncing: false,
    }
}

fn mark() -> DepositsMark {
    DepositsMark { height: 150, newest: Some(point(280)) }
}

fn check(change: impl FnOnce(&mut DepositFacts)) -> Result<DepositsMark, Decline> {
    let mut facts = facts();
    change(&mut facts);
    check_deposits(&mark(), &facts)
}

#[test]
fn the_mark_moves_over_what_was_found() {
    let moved = check(|_| {}).unwrap();
    assert_eq!(moved, DepositsMark { height: 180, newest: Some(point(290)) });
    let none = |facts: &mut DepositFacts| facts.deposits.clear();
    assert_eq!(check(none).unwrap(), DepositsMark { height: 180, newest: Some(point(280)) });
    // Facts from before the mark moved are good for what they show, and never move it back.
    assert_eq!(check_deposits(&moved, &facts()).unwrap(), moved);
    assert_eq!(check(|facts| (facts.since, facts.to) = (100, 120)).unwrap().height, 150);
    // A new member begins at the first deposit.
    let first = DepositFacts { since: 0, newest: None, ..facts() };
    assert_eq!(check_deposits(&DepositsMark::default(), &first).unwrap(), moved);
}

#[test]
fn a_gap_moves_nothing() {
    let decline = check(|facts| facts.since = 151).unwrap_err();
    assert_eq!(decline, NotReady::DepositsUnchecked { checked: 150, tip: 180 }.into());
}

#[test]
fn a_deposit_whose_block_is_not_on_the_best_chain_is_refused_also_one_that_a_batch_spends() {
    for in_batch in [false, true] {
        let decline = check(|facts| {
            facts.deposits[1].in_batch = in_batch;
            facts.deposits[1].found = Some(hash(1));
        });
        let refusal =
            Refusal::CreditedOffChain { outpoint: facts().deposits[1].outpoint, credited: 170, block: point(285) };
        assert_eq!(decline.unwrap_err(), refusal.into());
    }
}

#[test]
fn a_deposit_that_is_spent_is_refused_unless_a_batch_spends_it() {
    let decline = check(|facts| facts.deposits[0].unspent = false).unwrap_err();
    assert_eq!(decline, Refusal::CreditedSpent { outpoint: facts().deposits[0].outpoint, credited: 160 }.into());
    check(|facts| (facts.deposits[0].unspent, facts.deposits[0].in_batch) = (false, true)).unwrap();
}

#[test]
fn what_was_found_once_must_stay() {
    let decline = check(|facts| facts.newest = Some((point(280), Some(hash(1))))).unwrap_err();
    assert_eq!(decline, Refusal::CreditsReorganised { block: point(280) }.into());
}

#[test]
fn a_bitcoind_that_is_behind_is_waited_for() {
    assert!(matches!(check(|facts| facts.syncing = true), Err(Decline::NotReady(NotReady::BitcoinSyncing { .. }))));
    for decline in [
        check(|facts| facts.deposits[0].found = None).unwrap_err(),
        check(|facts| facts.newest = Some((point(280), None))).unwrap_err(),
    ] {
        assert!(matches!(decline, Decline::NotReady(NotReady::DepositAhead { .. })), "{decline}");
    }
}
