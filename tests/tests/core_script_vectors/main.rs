//! Our verdicts on every vector of Bitcoin Core's own tests, compared with Core's engine under our flags (all consensus
//! flags, no policy) and, where the vector's flags say something about ours, with the result that the file expects.

mod asm;
mod bip341;
mod flags;
mod scripts;
mod sighash;
mod tally;
mod transactions;

use bitcoin::{Transaction, TxOut};
use causeway_consensus::script::Verdict;
use causeway_tests::oracle::judge;
use serde_json::Value;

/// Returns the verdict on every input, which Core shares.
///
/// # Panics
/// If Core does not share it.
fn agreed(transaction: &Transaction, spent: &[TxOut], vector: &Value) -> Vec<Verdict> {
    let judged = judge(transaction, spent);
    for (input, judged) in judged.iter().enumerate() {
        assert_eq!(judged.ours, judged.core, "input {input} by {:?}, Core on the right: {vector}", judged.judge);
    }
    judged.iter().map(|judged| judged.ours).collect()
}

/// Valid if all are.
fn all_valid(verdicts: &[Verdict]) -> Verdict {
    if verdicts.contains(&Verdict::Invalid) { Verdict::Invalid } else { Verdict::Valid }
}

/// Returns the bytes of a hex string.
fn hex(value: &Value) -> Vec<u8> {
    bitcoin::hex::FromHex::from_hex(text(value)).unwrap_or_else(|_| panic!("{value} is not hex"))
}

/// Returns a string.
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is not a string"))
}

/// Returns a list.
fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("{value} is not a list"))
}
