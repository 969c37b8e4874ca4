//! The peg on real processes with a real Bitcoin Core: members and bitcoind are killed, Bitcoin takes blocks back. Nobody is
//! credited or paid twice, the accounts add up, and payments go on.
//!
//! `CAUSEWAY_TEST_FULL=1` runs all of it; the ordinary run only silent members and a deep reorganisation.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bitcoin::Amount;
use causeway_tests::devnet::{PegNetwork, payee};
use serde_json::{Value, json};

/// One network at a time, on two cores.
static ONE: Mutex<()> = Mutex::new(());

const VALUE: Amount = Amount::from_sat(100_000_000);

/// Members of the devnet's federation.
const MEMBERS: usize = 5;

/// Confirmations that make something final on the devnet.
const FINAL_DEPTH: u32 = 3;

/// Blocks that Bitcoin takes back without a freeze.
const SHALLOW: u32 = 2;

/// As few blocks as it takes back with one: the final depth.
const DEEP: u64 = 3;

/// Payments, one after the other.
const PAYMENTS: usize = 5;

fn alone() -> MutexGuard<'static, ()> {
    // Another test's failure is not this one's.
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether all of it runs.
fn full() -> bool {
    std::env::var_os("CAUSEWAY_TEST_FULL").is_some()
}

/// The members that others in a list have this flag for.
fn places<'a>(list: &'a Value, is: impl Fn(&Value) -> Option<u64> + 'a) -> BTreeSet<u64> {
    list.as_array().expect("a list").iter().filter_map(is).collect()
}

#[test]
fn two_silent_members_are_named_and_hold_nothing_up() {
    let _alone = alone();
    let mut network = PegNetwork::start();
    network.wait_connected();
    let silent = [1, 3];
    let expected: BTreeSet<u64> =
        silent.iter().map(|index| network.member_status(*index)["member"].as_u64().unwrap()).collect();
    network.kill_members(silent);

    let first = payee("first");
    let request = network.request(&first, VALUE).unwrap();
    network.wait_batch(request);
    network.wait_signed(request);
    network.wait("the silent members' places", |network| {
        let status = network.member_status(0);
        let absent = places(&status["peers"], |peer| (peer["connected"] == false).then(|| peer["member"].as_u64())?);
        (absent == expected).then_some(())
    });
    let status = network.member_status(0);
    let faults = places(&status["tasks"][0]["faults"], |fault| fault[0].as_u64());
    assert!(!faults.is_empty() && faults.is_subset(&expected), "{status}");
    network.mine(FINAL_DEPTH);
    network.wait_closed(request, &first);

    network.start_members(silent);
    network.wait_connected();
    let second = payee("second");
    let request = network.request(&second, VALUE).unwrap();
    network.wait_signed(request);
    network.mine(FINAL_DEPTH);
    network.wait_closed(request, &second);
    network.audit();
}

#[test]
fn a_deep_reorganisation_freezes_the_peg_and_nothing_else() {
    let _alone = alone();
    let mut network = PegNetwork::start();
    let first = payee("first");
    let request = network.request(&first, VALUE).unwrap();
    network.wait_signed(request);
    network.mine(FINAL_DEPTH);
    network.wait_closed(request, &first);
    network.audit();

    // A payout that is planned and not signed yet.
    network.kill_members(0..MEMBERS);
    let planned = payee("planned");
    let request = network.request(&planned, VALUE).unwrap();
    network.wait_batch(request);
    network.wait_followed();
    network.reorganise(DEEP, 6);
    network.wait("the freeze at every node", |network| network.frozen().iter().all(Option::is_some).then_some(()));
    assert!(network.json("/v1/reserves")["frozen"].is_string());
    assert!(network.peg_out(request).frozen.is_some());

    network.start_members(0..MEMBERS);
    for index in 0..MEMBERS {
        let status = network.wait("a member that knows", |network| {
            Some(network.member_status(index)).filter(|status| status["node"]["frozen"].is_string())
        });
        assert!(status["declined"].as_array().is_some_and(|declined| !declined.is_empty()), "{status}");
    }
    network.wait_connected();
    let refused = payee("refused");
    let refusal = network.request(&refused, VALUE).unwrap_err();
    assert!(refusal.contains("peg-frozen"), "{refusal}");
    // Time for a session, had the members begun one.
    for _ in 0..PAYMENTS {
        network.pay(&payee("shop"), VALUE / 1_000).unwrap();
        network.mine(1);
    }
    for index in 0..MEMBERS {
        let status = network.member_status(index);
        assert_eq!(status["tasks"], json!([]), "member {index} signs while the peg is frozen");
    }
    let versions = network.peg_out(request).versions;
    assert!(network.waiting().iter().all(|txid| !versions.contains(txid)), "a payout is sent while the peg is frozen");
    assert!(network.coins(&planned).is_empty() && network.coins(&refused).is_empty());
    network.accounts();
}

#[test]
fn all_members_are_killed_once_a_payout_is_planned() {
    if !full() {
        return;
    }
    let _alone = alone();
    let mut network = PegNetwork::start();
    network.wait_connected();
    for name in ["first", "second", "third"] {
        let payee = payee(name);
        let request = network.request(&payee, VALUE).unwrap();
        network.wait_batch(request);
        network.kill_members(0..MEMBERS);
        network.start_members(0..MEMBERS);
        network.wait_signed(request);
        // Whatever was signed before and after: Bitcoin takes one of them.
        network.mine(FINAL_DEPTH);
        network.wait_closed(request, &payee);
    }
    network.audit();
}

#[test]
fn bitcoind_is_killed_between_a_deposit_and_its_credit() {
    if !full() {
        return;
    }
    let _alone = alone();
    let mut network = PegNetwork::start();
    let before = network.accounts()[0].owed;
    let deposit = network.deposit(VALUE);
    network.mine(1);
    network.wait_confirmations(deposit, 1);
    network.kill_bitcoind();
    network.wait("a node that misses its bitcoind", |network| {
        (network.json("/v1/status")["peg"]["source"]["reliable"] == false).then_some(())
    });
    network.pay(&payee("shop"), VALUE / 1_000).unwrap();
    network.start_bitcoind();
    network.mine(FINAL_DEPTH);
    let credit = network.wait_credit(deposit);
    assert_eq!(credit.amount + credit.fee, VALUE.to_sat());
    network.mine(FINAL_DEPTH);
    network.wait_followed();
    network.audit();
    assert_eq!(network.accounts()[0].owed, before + credit.amount, "it is credited once");
    assert!(network.frozen().iter().all(Option::is_none));
}

#[test]
fn shallow_reorganisations_under_a_deposit_and_under_a_payout() {
    if !full() {
        return;
    }
    let _alone = alone();
    let mut network = PegNetwork::start();
    let before = network.accounts()[0].owed;
    let deposit = network.deposit(VALUE);
    network.mine(SHALLOW);
    network.wait_confirmations(deposit, SHALLOW);
    network.reorganise(SHALLOW.into(), SHALLOW + 1);
    network.wait_followed();
    network.wait("the deposit to be out of the chain", |network| {
        let peg_in = network.node().peg_in(deposit).unwrap();
        peg_in.is_none_or(|it| it.credit.is_none() && it.confirmations.unwrap_or(0) == 0).then_some(())
    });
    network.mine(FINAL_DEPTH);
    let credit = network.wait_credit(deposit);
    network.mine(1);
    network.wait_followed();
    network.audit();
    assert_eq!(network.accounts()[0].owed, before + credit.amount, "it is credited once");

    let payee = payee("first");
    let request = network.request(&payee, VALUE / 2).unwrap();
    network.wait_signed(request);
    network.mine(1);
    network.wait_paid(request, 1);
    network.reorganise(1, 2);
    network.wait("the payout to be out of the chain", |network| {
        network.peg_out(request).bitcoin_height.is_none().then_some(())
    });
    network.wait_signed(request);
    network.mine(FINAL_DEPTH);
    network.wait_closed(request, &payee);
    network.audit();
    assert!(network.frozen().iter().all(Option::is_none));
}
