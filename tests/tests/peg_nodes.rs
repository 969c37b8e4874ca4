//! Nodes and their Bitcoin, as real processes: a validator whose bitcoind is behind, nodes that are killed, a node without
//! Bitcoin. Nothing is believed that is not seen, nothing is lost, and payments go on.
//!
//! `CAUSEWAY_TEST_FULL=1` runs all of it; the ordinary run only a validator that is behind.

use std::ops::Range;

use bitcoin::{Amount, Network};
use causeway_node::devnet::client::{PegIn, PegOut};
use causeway_node::devnet::key::DevKey;
use causeway_node::devnet::{DevNode, DevnetError};
use causeway_tests::devnet::{PegNetwork, Plan, full, payee};
use serde_json::{Value, json};

const VALUE: Amount = Amount::from_sat(100_000_000);

/// Confirmations that make something final on the devnet.
const FINAL_DEPTH: u32 = 3;

/// Validators of the devnet.
const VALIDATORS: Range<usize> = 0..4;

/// Heights in which every validator proposes.
const HEIGHTS: u32 = 4;

/// Waits until so many more blocks are final.
fn wait_blocks(network: &mut PegNetwork, blocks: u32) {
    let height = network.node().height().expect("it answers") + blocks;
    network
        .wait("blocks of Causeway", |network| (network.node().height().expect("it answers") >= height).then_some(()));
}

/// The height of Bitcoin that Causeway knows.
fn known(network: &PegNetwork) -> u64 {
    network.json("/v1/status")["peg"]["bitcoin_height"].as_u64().expect("a height")
}

#[test]
fn a_validator_whose_bitcoin_is_behind_holds_what_it_cannot_see() {
    let behind = 3;
    let plan = Plan { second_bitcoind: true, apart: vec![behind], ..Plan::default() };
    let mut network = PegNetwork::start_with(&plan);
    network.wait_followed();
    // Nothing is decided without it.
    network.kill_nodes([0]);

    let deposit = network.deposit(VALUE);
    let height = known(&network);
    network.mine(FINAL_DEPTH);
    let log = network.devnet.nodes[behind].log.clone();
    network.wait("the validator to hold a block", |_| {
        let text = std::fs::read_to_string(&log).unwrap();
        text.contains("this machine's Bitcoin node does not say the same").then_some(())
    });
    wait_blocks(&mut network, HEIGHTS);
    network.pay(&payee("shop"), VALUE / 1_000).unwrap();
    assert_eq!(known(&network), height, "a header is final that a third of the power has not seen");
    assert!(network.node().peg_in(deposit).unwrap().is_none_or(|peg_in| peg_in.credit.is_none()));

    network.connect_second();
    network.wait_credit(deposit);
    network.cut_second();

    // The same on the way out: the batch stays open until the validator sees that it is paid.
    let payee = payee("first");
    let request = network.request(&payee, VALUE / 2).unwrap();
    network.wait_signed(request);
    network.mine(FINAL_DEPTH);
    wait_blocks(&mut network, HEIGHTS);
    assert_eq!(network.peg_out(request).state, "batched");
    network.connect_second();
    network.wait_closed(request, &payee);
    network.start_nodes([0]);
    network.wait_followed();
    network.audit();
}

#[test]
fn nodes_are_killed_in_the_middle_of_a_deposit_and_of_a_payout() {
    if !full() {
        return;
    }
    let mut network = PegNetwork::start();
    let all = 0..network.node_count();
    let restart = |network: &mut PegNetwork, nodes: Range<usize>| {
        network.kill_nodes(nodes.clone());
        network.start_nodes(nodes);
    };

    let deposit = network.deposit(VALUE);
    restart(&mut network, all.clone());
    network.mine(1);
    network.wait_confirmations(deposit, 1);
    restart(&mut network, all.clone());
    network.wait_confirmations(deposit, 1);
    // It becomes deep while nobody looks.
    network.kill_nodes(all.clone());
    network.mine(FINAL_DEPTH - 1);
    network.start_nodes(all.clone());
    network.wait_credit(deposit);
    restart(&mut network, all.clone());
    network.wait_followed();
    network.audit();

    let payee = payee("first");
    let request = network.request(&payee, VALUE / 2).unwrap();
    restart(&mut network, all.clone());
    network.wait_batch(request);
    restart(&mut network, all.clone());
    network.wait_signed(request);
    // Two validators are too many to lose: nothing is decided until they are back.
    network.kill_nodes(VALIDATORS.start..2);
    network.mine(1);
    network.start_nodes(VALIDATORS.start..2);
    network.wait_paid(request, 1);
    network.kill_nodes(all.clone());
    network.mine(FINAL_DEPTH - 1);
    network.start_nodes(all.clone());
    network.wait_closed(request, &payee);
    restart(&mut network, all);
    network.wait_followed();
    network.audit();
}

#[test]
fn a_node_without_bitcoin_follows_everything_and_hands_out_no_address() {
    if !full() {
        return;
    }
    let mut network = PegNetwork::start_with(&Plan { without_bitcoin: true, ..Plan::default() });
    let blind = network.devnet.nodes[VALIDATORS.end].clone();
    let status: Value = blind.json("/v1/status").unwrap();
    assert_eq!((&status["peg"]["source"], &status["validator"]), (&Value::Null, &Value::Null), "{status}");
    let refund_key = DevKey::of("refund", Network::Regtest).x_only().to_string();
    let body = json!({ "destination": network.devnet.funds.address, "refund_key": refund_key });
    match blind.post::<Value>("/v1/peg-in/address", &body) {
        Err(DevnetError::Answer { status, body, .. }) => {
            assert_eq!(status, 501);
            assert!(body.contains("this node has no Bitcoin node: ask another node"), "{body}");
        }
        other => panic!("{other:?}"),
    }

    let deposit = network.deposit(VALUE);
    network.mine(FINAL_DEPTH);
    let credit = network.wait_credit(deposit);
    let seen = network.wait("the credit at the node without Bitcoin", |_| {
        blind.peg_in(deposit).unwrap().and_then(|PegIn { credit, .. }| credit)
    });
    assert_eq!((seen.txid, seen.vout, seen.amount), (credit.txid, credit.vout, credit.amount));
    let payee = payee("first");
    let request = network.request(&payee, VALUE / 2).unwrap();
    network.wait_signed(request);
    network.mine(FINAL_DEPTH);
    network.wait_closed(request, &payee);
    let closed = |node: &DevNode| node.peg_out(request).unwrap().filter(|it: &PegOut| it.state == "confirmed");
    let seen = network.wait("the end of the batch at the node without Bitcoin", |_| closed(&blind));
    let known = closed(network.node()).unwrap();
    assert_eq!((seen.txid, seen.vout, seen.payout), (known.txid, known.vout, known.payout));
    network.wait_followed();
    network.audit();
}

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
