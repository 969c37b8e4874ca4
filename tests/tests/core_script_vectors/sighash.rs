//! `sighash.json`: the message of a legacy signature, for any hash type (Core: `sighash_tests.cpp`).

use bitcoin::consensus::deserialize;
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::opcodes::all::OP_CODESEPARATOR;
use bitcoin::{Script, ScriptBuf, Transaction};
use causeway_consensus::script::sighash::legacy;
use causeway_tests::core_source::core_vectors;

use crate::{hex, list, text};

#[test]
fn sighash() {
    let file = core_vectors("sighash.json");
    let (mut ran, mut with_separator) = (0, 0);
    for json in list(&file).iter().filter(|json| list(json).len() > 1) {
        let transaction: Transaction = deserialize(&hex(&json[0])).unwrap_or_else(|error| panic!("{error}: {json}"));
        let script = ScriptBuf::from_bytes(hex(&json[1]));
        let stripped = without_separators(&script);
        with_separator += usize::from(stripped != script);
        let input = usize::try_from(json[2].as_u64().expect("an index")).expect("a small index");
        // Core's is a signed number of 32 bits.
        let hash_type = i32::try_from(json[3].as_i64().expect("a hash type")).expect("32 bits").cast_unsigned();
        let message = legacy(&transaction, &stripped, input, hash_type);
        assert_eq!(sha256d::Hash::from_byte_array(message).to_string(), text(&json[4]), "{json}");
        ran += 1;
    }
    println!(
        "sighash.json: all {ran} messages as expected, {with_separator} of scripts with OP_CODESEPARATOR, taken out here"
    );
    assert!(ran >= 500 && with_separator >= 100, "sighash.json has shrunk");
}

/// Core leaves OP_CODESEPARATOR out of what is signed; `legacy` takes scripts without.
fn without_separators(script: &Script) -> ScriptBuf {
    let mut bytes = vec![];
    let mut from = 0;
    for instruction in script.instruction_indices() {
        let (at, instruction) = instruction.expect("these scripts push nothing");
        if instruction.opcode() == Some(OP_CODESEPARATOR) {
            bytes.extend_from_slice(&script.as_bytes()[from..at]);
            from = at + 1;
        }
    }
    bytes.extend_from_slice(&script.as_bytes()[from..]);
    ScriptBuf::from_bytes(bytes)
}
