//! Members that are silent or killed, as real processes with a real Bitcoin Core: they are named, and the payouts happen.
//!
//! `CAUSEWAY_TEST_FULL=1` runs all of it; the ordinary run only silent members.

use std::collections::BTreeSet;

use bitcoin::Amount;
use causeway_tests::devnet::{PegNetwork, full, payee};
use serde_json::Value;

const VALUE: Amount = Amount::from_sat(100_000_000);

/// Members of the devnet's federation.
const MEMBERS: usize = 5;

/// Confirmations that make something final on the devnet.
const FINAL_DEPTH: u32 = 3;

/// The members that others in a list have this flag for.
fn places<'a>(list: &'a Value, is: impl Fn(&Value) -> Option<u64> + 'a) -> BTreeSet<u64> {
    list.as_array().expect("a list").iter().filter_map(is).collect()
}

#[test]
fn two_silent_members_are_named_and_hold_nothing_up() {
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
fn all_members_are_killed_once_a_payout_is_planned() {
    if !full() {
        return;
    }
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
