//! Nodes and their Bitcoin, as real processes: a bitcoind that is killed. Nothing is lost, and payments go on.
//!
//! `CAUSEWAY_TEST_FULL=1` runs it.

use bitcoin::Amount;
use causeway_tests::devnet::{PegNetwork, full, payee};

const VALUE: Amount = Amount::from_sat(100_000_000);

/// Confirmations that make something final on the devnet.
const FINAL_DEPTH: u32 = 3;

#[test]
fn bitcoind_is_killed_between_a_deposit_and_its_credit() {
    if !full() {
        return;
    }
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
