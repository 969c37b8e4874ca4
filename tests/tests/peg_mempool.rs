//! Payouts and the mempool of a real Bitcoin Core: fees that are too low, a payee who pins, versions that conflict, a mempool
//! that is lost. The payout confirms, one version of it, and everything adds up.
//!
//! `CAUSEWAY_TEST_FULL=1` runs all of it; the ordinary run only a cheap pin.

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::hashes::Hash;
use bitcoin::opcodes::all::OP_RETURN;
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::secp256k1::{Message, SECP256K1};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{Address, Amount, OutPoint, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use causeway_chainspec::devnet;
use causeway_tests::devnet::{PegNetwork, Plan, full, payee};
use serde_json::{Value, json};

const VALUE: Amount = Amount::from_sat(100_000_000);

/// Confirmations that make something final on the devnet.
const FINAL_DEPTH: u32 = 3;

/// Blocks after which a version is replaced on the devnet.
const REPLACE_AFTER: u32 = 3;

/// Replacements that a test waits for at most.
const VERSIONS_MAX: usize = 12;

/// The largest child that Bitcoin Core takes of an unconfirmed transaction of version 3 (BIP431), in virtual bytes.
const TRUC_CHILD_VSIZE: u64 = 1_000;

/// What the payee of a role makes of a coin of his: a transaction of about this size that pays this fee.
fn child(role: &str, coin: (OutPoint, Amount), version: Version, vsize: u64, fee: Amount) -> Transaction {
    let secret = devnet::secret_key(role, 0);
    let script = payee(role).script_pubkey();
    let make = |padding: u64| {
        let padding = vec![0; usize::try_from(padding).expect("short")];
        let padding = Builder::new().push_opcode(OP_RETURN).push_slice(PushBytesBuf::try_from(padding).expect("short"));
        let output = vec![
            TxOut { value: coin.1 - fee, script_pubkey: script.clone() },
            TxOut { value: Amount::ZERO, script_pubkey: padding.into_script() },
        ];
        let input = TxIn { previous_output: coin.0, sequence: Sequence::ENABLE_RBF_NO_LOCKTIME, ..TxIn::default() };
        let mut transaction = Transaction { version, lock_time: LockTime::ZERO, input: vec![input], output };
        let all = EcdsaSighashType::All;
        let hash =
            SighashCache::new(&transaction).p2wpkh_signature_hash(0, &script, coin.1, all).expect("it has an input");
        let signature = SECP256K1.sign_ecdsa(&Message::from_digest(hash.to_byte_array()), &secret);
        let signature = bitcoin::ecdsa::Signature { signature, sighash_type: all };
        transaction.input[0].witness = Witness::p2wpkh(&signature, &secret.public_key(SECP256K1));
        transaction
    };
    // Enough for a length of three bytes.
    let shortest = u64::try_from(make(300).vsize()).expect("short");
    // Signatures differ by a byte or two of witness: half a virtual byte.
    make(300 + vsize - shortest - 1)
}

/// What a payee has of a version: its output and value.
fn payout(network: &PegNetwork, txid: Txid, payee: &Address) -> (OutPoint, Amount) {
    let transaction = network.miner.transaction(txid).expect("bitcoind answers").expect("it has the version");
    let output = (0..).zip(&transaction.output).find(|(_, output)| output.script_pubkey == payee.script_pubkey());
    let (vout, output) = output.expect("it pays the payee");
    (OutPoint { txid, vout }, output.value)
}

/// Why bitcoind does not take a transaction.
fn refusal(network: &PegNetwork, transaction: &Transaction) -> String {
    let answer = network.bitcoin("testmempoolaccept", &[&json!([serialize_hex(transaction)]).to_string()]);
    assert_eq!(answer[0]["allowed"], false, "{answer}");
    answer[0]["reject-reason"].as_str().expect("a reason").to_owned()
}

/// What bitcoind said to member 0 about a version; None if it was not sent yet.
fn sent(network: &PegNetwork, txid: Txid) -> Option<String> {
    let status = network.member_status(0);
    let of_version = |transaction: &&Value| transaction["txid"] == txid.to_string();
    status["transactions"].as_array()?.iter().find(of_version)?["sent"].as_str().map(str::to_owned)
}

/// Mines empty blocks until a replacement is in the mempool; returns it, and what was said to those that were refused.
fn replace_until_taken(network: &mut PegNetwork, request: OutPoint) -> (Txid, Vec<String>) {
    let mut refusals = Vec::new();
    loop {
        let count = network.peg_out(request).versions.len();
        assert!(count < VERSIONS_MAX, "{refusals:?}");
        network.mine_empty(REPLACE_AFTER);
        let newest = *network.wait_replaced(request, count + 1).last().expect("several");
        let said = network.wait("an answer of bitcoind to a version", |network| sent(network, newest));
        if said == "in the mempool" {
            return (network.wait_version(request, count + 1), refusals);
        }
        refusals.push(said);
    }
}

#[test]
fn a_payee_does_not_pin_his_payout() {
    let mut network = PegNetwork::start();
    let pinner = payee("pinner");
    let request = network.request(&pinner, VALUE).unwrap();
    let first = network.wait_signed(request);
    let coin = payout(&network, first, &pinner);

    let child = |version, vsize, fee| child("pinner", coin, version, vsize, Amount::from_sat(fee));
    // As heavy as any transaction that nodes pass on.
    let refused = refusal(&network, &child(Version::TWO, 90_000, 90_000));
    assert!(refused.contains("TRUC"), "{refused}");
    let refused = refusal(&network, &child(Version(3), TRUC_CHILD_VSIZE + 3, 2_000));
    assert!(refused.contains("TRUC"), "{refused}");
    let pin = child(Version(3), TRUC_CHILD_VSIZE, TRUC_CHILD_VSIZE);
    network.bitcoin("sendrawtransaction", &[&serialize_hex(&pin)]);
    let waiting = network.waiting();
    assert!(waiting.contains(&first) && waiting.contains(&pin.compute_txid()));

    network.mine_empty(REPLACE_AFTER);
    let second = network.wait_version(request, 2);
    let waiting = network.waiting();
    assert!(!waiting.contains(&first) && !waiting.contains(&pin.compute_txid()), "{waiting:?}");
    network.mine(FINAL_DEPTH);
    network.wait_closed(request, &pinner);
    assert_eq!(network.peg_out(request).txid, Some(second));
    network.audit();
}

#[test]
fn a_payee_who_pays_for_his_pin_only_delays_his_payout() {
    if !full() {
        return;
    }
    let mut network = PegNetwork::start();
    let pinner = payee("pinner");
    let request = network.request(&pinner, VALUE).unwrap();
    let first = network.wait_signed(request);
    let coin = payout(&network, first, &pinner);
    let pin = child("pinner", coin, Version(3), TRUC_CHILD_VSIZE, Amount::from_sat(5_000));
    network.bitcoin("sendrawtransaction", &[&serialize_hex(&pin)]);

    let (taken, refusals) = replace_until_taken(&mut network, request);
    assert!(refusals.iter().all(|said| said.contains("fee")) && !refusals.is_empty(), "{refusals:?}");
    let waiting = network.waiting();
    assert!(!waiting.contains(&first) && !waiting.contains(&pin.compute_txid()), "{waiting:?}");
    network.mine(FINAL_DEPTH);
    network.wait_closed(request, &pinner);
    assert_eq!(network.peg_out(request).txid, Some(taken));
    network.audit();
}

#[test]
fn a_payout_below_the_minimum_fee_is_replaced_until_it_is_taken() {
    if !full() {
        return;
    }
    let mut network = PegNetwork::start();
    let payee = payee("first");
    let request = network.request(&payee, VALUE).unwrap();
    let first = network.wait_signed(request);
    let entry = network.bitcoin("getmempoolentry", &[&first.to_string()]);
    let fee = Amount::from_btc(entry["fees"]["base"].as_f64().unwrap()).unwrap();
    let rate = fee.to_sat() * 1_000 / entry["vsize"].as_u64().unwrap();

    // Bitcoin's nodes ask for twice as much from one moment to the next.
    network.kill_bitcoind();
    let minimum = Amount::from_sat(rate * 2).to_btc();
    network.set_bitcoind(&format!("minrelaytxfee={minimum:.8}\nincrementalrelayfee={minimum:.8}"));
    network.start_bitcoind();
    // At a new block every member sends it again.
    network.mine_empty(1);
    network
        .wait("the refusal at a member", |network| sent(network, first).filter(|said| said.contains("fee is too low")));
    assert!(!network.waiting().contains(&first));

    let (taken, _) = replace_until_taken(&mut network, request);
    let entry = network.bitcoin("getmempoolentry", &[&taken.to_string()]);
    let more = Amount::from_btc(entry["fees"]["base"].as_f64().unwrap()).unwrap();
    assert!(more > fee);
    network.mine(FINAL_DEPTH);
    network.wait_closed(request, &payee);
    assert_eq!(network.peg_out(request).txid, Some(taken));
    network.audit();
}

/// A request of which the second bitcoind has the first version in its mempool and the first bitcoind the second; both have
/// the same blocks.
fn two_versions(network: &mut PegNetwork, payee: &Address) -> (OutPoint, Txid, Txid) {
    let request = network.request(payee, VALUE).expect("a node takes it");
    let first = network.wait_signed(request);
    let bytes = network.bitcoin("getrawtransaction", &[&first.to_string()]);
    let bytes = bytes.as_str().expect("hex");
    network.feed_second();
    network.second().call("sendrawtransaction", &[bytes]);
    network.mine_empty(REPLACE_AFTER);
    network.feed_second();
    let second = network.wait_version(request, 2);

    // Whoever has the second does not go back; whoever has the first would take the second.
    let refused = network.try_bitcoin("sendrawtransaction", &[bytes]).expect_err("it has a newer one");
    assert!(refused.contains("insufficient fee"), "{refused}");
    let newer = network.bitcoin("getrawtransaction", &[&second.to_string()]);
    let answer = network.second().call("testmempoolaccept", &[&json!([newer]).to_string()]);
    assert_eq!(answer[0]["allowed"], true, "{answer}");
    assert_eq!(network.second().call("getrawmempool", &[]), json!([first]));
    assert_eq!(network.waiting(), [second]);
    (request, first, second)
}

fn mine_at_second(network: &PegNetwork, blocks: u32) {
    network.second().call("generatetoaddress", &[&blocks.to_string(), &payee("sink").to_string()]);
}

#[test]
fn whichever_of_two_versions_confirms_is_the_one_that_counts() {
    if !full() {
        return;
    }
    let mut network = PegNetwork::start_with(&Plan { second_bitcoind: true, ..Plan::default() });

    // The older one, from a miner who has not heard of the newer one.
    let older = payee("older");
    let (request, first, _) = two_versions(&mut network, &older);
    mine_at_second(&network, 1);
    network.feed_first();
    network.wait_paid(request, 1);
    assert!(network.waiting().is_empty(), "a version waits whose coins are spent");
    network.mine(FINAL_DEPTH - 1);
    network.wait_closed(request, &older);
    assert_eq!(network.peg_out(request).txid, Some(first));
    network.audit();

    // The newer one, while others have the older one.
    let newer = payee("newer");
    let (request, _, second) = two_versions(&mut network, &newer);
    network.mine(FINAL_DEPTH);
    network.feed_second();
    assert_eq!(network.second().call("getrawmempool", &[]), json!([]));
    network.wait_closed(request, &newer);
    assert_eq!(network.peg_out(request).txid, Some(second));
    network.audit();

    // The newer one is in a block, and then in none: a branch with the older one is longer.
    let both = payee("both");
    let (request, first, second) = two_versions(&mut network, &both);
    network.mine(1);
    network.wait_paid(request, 1);
    assert_eq!(network.coins(&both)[0].0.txid, second);
    mine_at_second(&network, 2);
    network.feed_first();
    network.wait_paid(request, 2);
    assert_eq!(network.coins(&both)[0].0.txid, first);
    network.mine(FINAL_DEPTH - 2);
    network.wait_closed(request, &both);
    assert_eq!(network.peg_out(request).txid, Some(first));
    network.audit();
}

#[test]
fn a_newer_version_reaches_a_mempool_that_missed_it() {
    if !full() {
        return;
    }
    let mut network = PegNetwork::start_with(&Plan { second_bitcoind: true, ..Plan::default() });
    let has_only = |network: &PegNetwork, txid| network.second().call("getrawmempool", &[]) == json!([txid]);
    network.connect_second();
    let payee = payee("first");
    let request = network.request(&payee, VALUE).unwrap();
    let first = network.wait_signed(request);
    network.wait("the payout at the second bitcoind", |network| has_only(network, first).then_some(()));
    network.cut_second();
    network.mine_empty(REPLACE_AFTER);
    let second = network.wait_version(request, 2);
    network.connect_second();
    assert!(has_only(&network, first));
    // At a new block every member sends it again.
    network.mine_empty(1);
    network.wait("the newer version at the second bitcoind", |network| has_only(network, second).then_some(()));
    mine_at_second(&network, FINAL_DEPTH);
    network.wait_closed(request, &payee);
    assert_eq!(network.peg_out(request).txid, Some(second));
    network.audit();
}

#[test]
fn a_payout_that_bitcoind_forgets_is_sent_again() {
    if !full() {
        return;
    }
    let mut network = PegNetwork::start();
    let payee = payee("first");
    let request = network.request(&payee, VALUE).unwrap();
    let first = network.wait_signed(request);
    // Once while no block comes, and once with one.
    for blocks in [0, 1] {
        network.kill_bitcoind();
        assert!(!network.directory().join("bitcoind/regtest/mempool.dat").exists(), "it kept its mempool");
        network.start_bitcoind();
        network.mine_empty(blocks);
        assert_eq!(network.wait_signed(request), first);
    }
    network.mine(1);
    network.wait_paid(request, 1);
    network.kill_bitcoind();
    network.start_bitcoind();
    network.mine(FINAL_DEPTH - 1);
    network.wait_closed(request, &payee);
    assert_eq!(network.peg_out(request).txid, Some(first));
    network.audit();
}
