//! `bip341_wallet_vectors.json`, key path spending (Core: `script_tests.cpp`, `bip341_keypath_test_vectors`).

use bitcoin::consensus::deserialize;
use bitcoin::hashes::{Hash, HashEngine};
use bitcoin::sighash::TapSighash;
use bitcoin::{Amount, ScriptBuf, Transaction, TxOut, Witness};
use causeway_consensus::script::sighash::Midstates;
use causeway_consensus::script::{Judge, Verdict};
use causeway_tests::core_source::core_vectors;
use causeway_tests::oracle::judge;
use serde_json::Value;

use crate::{hex, list};

#[test]
fn bip341_wallet_vectors() {
    let file = core_vectors("bip341_wallet_vectors.json");
    let (mut messages, mut inputs) = (0, 0);
    for json in list(&file["keyPathSpending"]) {
        let unsigned: Transaction = deserialize(&hex(&json["given"]["rawUnsignedTx"])).expect("a transaction");
        let spent: Vec<TxOut> = list(&json["given"]["utxosSpent"]).iter().map(output).collect();
        messages += messages_match(json, &unsigned, &spent);

        let signed: Transaction = deserialize(&hex(&json["auxiliary"]["fullySignedTx"])).expect("a transaction");
        for (input, judged) in judge(&signed, &spent).into_iter().enumerate() {
            assert_eq!((judged.ours, judged.core), (Verdict::Valid, Verdict::Valid), "input {input}");
            assert_eq!(judged.judge, Judge::Direct, "input {input}");
            inputs += 1;
        }
        // Its key path witnesses are those that the vectors expect, and none serves an altered transaction.
        for vector in list(&json["inputSpending"]) {
            let expected: Vec<Vec<u8>> = list(&vector["expected"]["witness"]).iter().map(hex).collect();
            assert_eq!(signed.input[index(vector)].witness, Witness::from_slice(&expected));
        }
        let mut altered = signed.clone();
        altered.lock_time = bitcoin::absolute::LockTime::ZERO;
        for judged in judge(&altered, &spent) {
            assert_eq!((judged.ours, judged.core), (Verdict::Invalid, Verdict::Invalid));
        }
    }
    let outputs = list(&file["scriptPubKey"]).len();
    println!(
        "bip341_wallet_vectors.json: {messages} messages as expected, {inputs} signed inputs valid here and for Core; \
         not run: {outputs} vectors of how a wallet makes an output, which spend nothing"
    );
    assert!(messages >= 7 && inputs >= 9, "bip341_wallet_vectors.json has shrunk");
}

/// Returns the number of key path messages, which are as expected.
fn messages_match(json: &Value, unsigned: &Transaction, spent: &[TxOut]) -> usize {
    let spent: Vec<&TxOut> = spent.iter().collect();
    let midstates = Midstates::new(unsigned, &spent);
    for vector in list(&json["inputSpending"]) {
        let hash_type = u8::try_from(vector["given"]["hashType"].as_u64().expect("a number")).expect("a byte");
        let message = midstates.key_path(unsigned, &spent, index(vector), hash_type, None).expect("an allowed type");
        assert_eq!(message.as_slice(), hex(&vector["intermediary"]["sigHash"]), "{vector}");
        // What is hashed is as expected too, each of the shared hashes at its place.
        let mut engine = TapSighash::engine();
        engine.input(&hex(&vector["intermediary"]["sigMsg"]));
        assert_eq!(TapSighash::from_engine(engine).to_byte_array(), message, "{vector}");
    }
    list(&json["inputSpending"]).len()
}

fn index(vector: &Value) -> usize {
    usize::try_from(vector["given"]["txinIndex"].as_u64().expect("an index")).expect("a small index")
}

fn output(json: &Value) -> TxOut {
    TxOut {
        value: Amount::from_sat(json["amountSats"].as_u64().expect("satoshis")),
        script_pubkey: ScriptBuf::from_bytes(hex(&json["scriptPubKey"])),
    }
}
