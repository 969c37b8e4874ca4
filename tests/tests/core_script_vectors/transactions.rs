//! `tx_valid.json` and `tx_invalid.json`: whole transactions (Core: `transaction_tests.cpp`).

use std::collections::HashMap;

use bitcoin::consensus::{deserialize, serialize};
use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxOut};
use causeway_consensus::check::check_transaction;
use causeway_consensus::script::Verdict;
use causeway_consensus::{InvalidBlock, InvalidTransaction, assemble, check_block, parse_block};
use causeway_tests::core_source::core_vectors;
use causeway_tests::draft::devnet;
use causeway_tests::oracle::Oracle;
use serde_json::Value;

use crate::asm::parse_script;
use crate::flags::{Flags, fill, names, trim, without_each};
use crate::tally::Tally;
use crate::{agreed, all_valid, hex, list, text};

/// A vector that could be decoded.
struct Vector {
    transaction: Transaction,
    spent: Vec<TxOut>,
}

/// The file names the flags to leave out: valid under all others, policy too.
#[test]
fn tx_valid() {
    let file = core_vectors("tx_valid.json");
    let mut tally = Tally::default();
    for json in list(&file).iter().filter(|json| json[0].is_array()) {
        let vector = Vector::new(json);
        assert_eq!(vector.check_transaction(), Ok(()), "{json}");
        let flags = Flags::parse(text(&json[2])).complement();
        let ours = all_valid(&agreed(&vector.transaction, &vector.spent, json));
        tally.with_core += 1;
        vector.compare_with_valid(&flags, ours, json, &mut tally);
    }
    println!("tx_valid.json: all ran, {tally}");
    assert!(tally.with_core >= 115, "tx_valid.json has shrunk");
    assert!(tally.with_expected >= 105, "few results were compared with the expected ones");
}

/// The file names the least flags that make it invalid: valid under these flags but any one of them, and BADTX if it
/// is invalid without its scripts.
#[test]
fn tx_invalid() {
    let file = core_vectors("tx_invalid.json");
    let mut tally = Tally::default();
    let mut bad = 0;
    for json in list(&file).iter().filter(|json| json[0].is_array()) {
        if text(&json[2]) == "BADTX" {
            assert_refused(json);
            bad += 1;
            continue;
        }
        let vector = Vector::new(json);
        assert_eq!(vector.check_transaction(), Ok(()), "{json}");
        let flags = Flags::parse(text(&json[2]));
        let ours = all_valid(&agreed(&vector.transaction, &vector.spent, json));
        tally.with_core += 1;
        if !flags.has_any_policy() {
            assert_eq!(vector.core(flags.consensus), Verdict::Invalid, "Core, under the vector's flags: {json}");
            // It is invalid for the reason that the flags name, not because it was built wrong.
            for fewer in without_each(flags.consensus) {
                assert_eq!(vector.core(fewer), Verdict::Valid, "Core, under {fewer:#x}: {json}");
            }
            assert_eq!(ours, Verdict::Invalid, "expected: {json}");
            tally.with_expected += 1;
            continue;
        }
        // Policy alone makes it invalid: it is valid under the consensus flags among them.
        vector.compare_with_valid(&flags, ours, json, &mut tally);
    }
    println!("tx_invalid.json: all ran, {bad} BADTX refused without their scripts; the others: {tally}");
    assert!(bad >= 9 && tally.with_core >= 75, "tx_invalid.json has shrunk");
    assert!(tally.with_expected >= 70, "few results were compared with the expected ones");
}

/// Checks that what CheckTransaction refuses on Bitcoin is refused here.
fn assert_refused(json: &Value) {
    let transaction: Transaction = deserialize(&hex(&json[1])).unwrap_or_else(|error| panic!("{error}: {json}"));
    let vector = Vector { transaction, spent: vec![] };
    if vector.check_transaction().is_ok() {
        // The length of a coinbase's script is a rule of the block here.
        assert!(vector.transaction.is_coinbase(), "{json}");
        let script = &vector.transaction.input[0].script_sig;
        let expected = InvalidBlock::CoinbaseScriptLength { bytes: script.len() };
        assert_eq!(block_with_coinbase_script(script.clone()), Err(expected), "{json}");
    }
}

/// Checks a block of our devnet in which nothing but its coinbase's script could be wrong.
fn block_with_coinbase_script(script: ScriptBuf) -> Result<(), InvalidBlock> {
    let chain = devnet();
    let mut block = chain.next_block(Amount::ZERO, vec![]);
    check_block(parse_block(serialize(&block))?, chain.spec.params()).expect("valid as it was");
    block.txdata[0].input[0].script_sig = script;
    assemble::seal(&mut block);
    check_block(parse_block(serialize(&block))?, chain.spec.params()).map(|_| ())
}

impl Vector {
    /// `[[[txid, vout, scriptPubKey, amount?]...], transaction, flags]`
    fn new(json: &Value) -> Self {
        let coins: HashMap<OutPoint, TxOut> = list(&json[0]).iter().map(coin).collect();
        let transaction: Transaction =
            deserialize(&hex(&json[1])).unwrap_or_else(|error| panic!("a transaction, {error}: {json}"));
        let spent = transaction.input.iter().map(|input| {
            coins.get(&input.previous_output).unwrap_or_else(|| panic!("no {}: {json}", input.previous_output)).clone()
        });
        Self { spent: spent.collect(), transaction }
    }

    fn check_transaction(&self) -> Result<(), InvalidTransaction> {
        check_transaction(&self.transaction, self.transaction.base_size(), devnet().spec.params())
    }

    /// Core's verdict on all inputs.
    fn core(&self, flags: bitcoinkernel::ScriptVerificationFlags) -> Verdict {
        let oracle = Oracle::new(&self.transaction, &self.spent);
        all_valid(&(0..self.spent.len()).map(|input| oracle.verify(input, flags)).collect::<Vec<_>>())
    }

    /// Compares our verdict with the result under the consensus flags among `flags`, which is valid, if no other of
    /// our flags could change it.
    fn compare_with_valid(&self, flags: &Flags, ours: Verdict, json: &Value, tally: &mut Tally) {
        // That Core gets this result here too shows that the vector was built as it should be.
        let consensus = trim(flags.consensus);
        assert_eq!(self.core(consensus), Verdict::Valid, "Core, under the vector's consensus flags: {json}");
        let inputs = self.transaction.input.iter().zip(&self.spent);
        let missing = inputs.fold(0, |all, (input, spent)| all | flags.missing_for(input, &spent.script_pubkey));
        assert_eq!(self.core(fill(consensus | missing)), ours, "no other flag matters: {json}");
        if missing == 0 {
            assert_eq!(ours, Verdict::Valid, "expected: {json}");
            tally.with_expected += 1;
        } else {
            tally.no_expectation(format!("valid without {}", names(missing)), ours);
        }
    }
}

fn coin(json: &Value) -> (OutPoint, TxOut) {
    let txid = text(&json[0]).parse().expect("a txid");
    // -1 is the null outpoint's.
    let vout = json[1].as_i64().map(|vout| if vout == -1 { u32::MAX } else { u32::try_from(vout).expect("an index") });
    let value = Amount::from_sat(json.get(3).map_or(0, |value| value.as_u64().expect("satoshis")));
    let script_pubkey = parse_script(text(&json[2]));
    (OutPoint { txid, vout: vout.expect("a number") }, TxOut { value, script_pubkey })
}
