//! `script_tests.json`: one input each (Core: `script_tests.cpp`, `script_json_test`).

use bitcoin::absolute::LockTime;
use bitcoin::key::{Keypair, Secp256k1};
use bitcoin::taproot::{LeafVersion, TaprootBuilder, TaprootSpendInfo};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use bitcoinkernel::{VERIFY_DERSIG, VERIFY_P2SH, VERIFY_WITNESS};
use causeway_consensus::script::Verdict;
use causeway_tests::core_source::core_vectors;
use causeway_tests::oracle::Oracle;
use serde_json::Value;

use crate::asm::parse_script;
use crate::flags::{Flags, fill, names, trim};
use crate::tally::Tally;
use crate::{agreed, hex, list, text};

/// A vector, built.
struct Vector {
    transaction: Transaction,
    spent: [TxOut; 1],
    flags: Flags,
    /// `OK`, or the name of an error.
    result: String,
}

#[test]
fn script_tests() {
    let file = core_vectors("script_tests.json");
    let mut tally = Tally::default();
    for json in list(&file) {
        // One string alone is a comment.
        if list(json).len() > 1 {
            run(&Vector::new(list(json)), json, &mut tally);
        }
    }
    println!("script_tests.json: all ran, {tally}");
    assert!(tally.with_core >= 1200, "script_tests.json has shrunk");
    assert!(tally.with_expected > 940, "few results were compared with the expected ones");
}

fn run(vector: &Vector, json: &Value, tally: &mut Tally) {
    let Vector { transaction, spent, flags, result } = vector;
    let ours = agreed(transaction, spent, json)[0];
    tally.with_core += 1;

    let oracle = Oracle::new(transaction, spent);
    let consensus = trim(flags.consensus);
    if result == "OK" {
        // That Core gets the result here too shows that the vector was built as it should be.
        assert_eq!(oracle.verify(0, consensus), Verdict::Valid, "Core, under the vector's consensus flags: {json}");
        let missing = flags.missing_for(&transaction.input[0], &spent[0].script_pubkey);
        assert_eq!(oracle.verify(0, fill(consensus | missing)), ours, "no other flag matters: {json}");
        if missing == 0 {
            assert_eq!(ours, Verdict::Valid, "expected: {json}");
            tally.with_expected += 1;
        } else {
            tally.no_expectation(format!("OK without {}", names(missing)), ours);
        }
    } else if flags.fails_by_consensus(result) {
        let consensus = if result == "SIG_DER" { consensus | VERIFY_DERSIG } else { consensus };
        assert_eq!(oracle.verify(0, consensus), Verdict::Invalid, "Core, under the vector's consensus flags: {json}");
        assert_eq!(ours, Verdict::Invalid, "expected: {json}");
        tally.with_expected += 1;
    } else {
        tally.no_expectation(format!("{result} by policy"), ours);
    }
}

impl Vector {
    /// `[[witness..., amount]?, scriptSig, scriptPubKey, flags, result, comment...]`
    fn new(json: &[Value]) -> Self {
        let (witness, rest) = match json {
            [Value::Array(witness), rest @ ..] => (witness.as_slice(), rest),
            _ => (&[][..], json),
        };
        let [script_sig, script_pubkey, flags, result, ..] = rest else { panic!("{json:?} is too short") };
        let (value, elements) = witness.split_last().map_or((Amount::ZERO, witness), |(value, elements)| {
            let value = Amount::from_btc(value.as_f64().expect("an amount in bitcoins")).expect("in range");
            (value, elements)
        });
        let mut tree = None;
        let witness = elements.iter().fold(vec![], |mut stack, element| {
            let element = element_bytes(text(element), &stack, &mut tree);
            stack.push(element);
            stack
        });
        let script_pubkey = match text(script_pubkey) {
            "0x51 0x20 #TAPROOTOUTPUT#" => {
                ScriptBuf::new_p2tr_tweaked(tree.expect("a control block before").output_key())
            }
            asm => parse_script(asm),
        };
        let mut flags = Flags::parse(text(flags));
        if flags.has_policy("CLEANSTACK") {
            flags.consensus |= VERIFY_P2SH | VERIFY_WITNESS;
        }
        let spent = TxOut { value, script_pubkey };
        Self {
            transaction: spending(&spent, parse_script(text(script_sig)), &witness),
            spent: [spent],
            flags,
            result: text(result).to_owned(),
        }
    }
}

/// Returns a witness element, given those in front of it.
fn element_bytes(element: &str, stack: &[Vec<u8>], tree: &mut Option<TaprootSpendInfo>) -> Vec<u8> {
    if let Some(asm) = element.strip_prefix("#SCRIPT#") {
        return parse_script(asm).into_bytes();
    }
    if element != "#CONTROLBLOCK#" {
        return hex(&element.into());
    }
    // The leaf is in front, the internal key is that of secret key 1.
    let secp = Secp256k1::new();
    let mut secret = [0; 32];
    secret[31] = 1;
    let key = Keypair::from_seckey_slice(&secp, &secret).expect("one is a key").x_only_public_key().0;
    let leaf = ScriptBuf::from_bytes(stack.last().expect("a leaf in front").clone());
    let builder = TaprootBuilder::new().add_leaf(0, leaf.clone()).expect("one leaf");
    let info = tree.insert(builder.finalize(&secp, key).expect("complete"));
    info.control_block(&(leaf, LeafVersion::TapScript)).expect("the leaf is there").serialize()
}

/// Core: `BuildCreditingTransaction` and `BuildSpendingTransaction`.
fn spending(spent: &TxOut, script_sig: ScriptBuf, witness: &[Vec<u8>]) -> Transaction {
    let transaction = |previous_output, script_sig, witness, output| Transaction {
        version: Version::ONE,
        lock_time: LockTime::ZERO,
        input: vec![TxIn { previous_output, script_sig, sequence: Sequence::MAX, witness }],
        output: vec![output],
    };
    let two_zeros = ScriptBuf::from_bytes(vec![0, 0]);
    let credit = transaction(OutPoint::null(), two_zeros, Witness::new(), spent.clone());
    let outpoint = OutPoint { txid: credit.compute_txid(), vout: 0 };
    let output = TxOut { value: spent.value, script_pubkey: ScriptBuf::new() };
    transaction(outpoint, script_sig, Witness::from_slice(witness), output)
}
