//! Bitcoin takes blocks back, on real processes with a real Bitcoin Core: shallow ones change nothing that is recorded, a
//! deep one freezes the peg. Nobody is credited or paid twice, the accounts add up, and payments go on.
//!
//! `CAUSEWAY_TEST_FULL=1` runs all of it; the ordinary run only the deep one.

use bitcoin::Amount;
use causeway_tests::devnet::{PegNetwork, full, payee};
use serde_json::json;

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

#[test]
fn a_deep_reorganisation_freezes_the_peg_and_nothing_else() {
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
fn shallow_reorganisations_under_a_deposit_and_under_a_payout() {
    if !full() {
        return;
    }
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
