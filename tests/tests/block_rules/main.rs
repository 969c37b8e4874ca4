//! Every rule of a block and of a transaction: one test for each variant of `InvalidBlock` and `InvalidTransaction`,
//! which shows a block that is accepted and the least change that breaks this rule and no other.
//!
//! The table below is compared with the enums' source, so a variant without a test fails; and each test fails unless the
//! verdict it is named for was really given.

mod body;
mod bytes;
mod coinbase;
mod header;
mod locks;
mod mutation;
mod peg;
mod sigops;
mod spends;
mod transactions;
mod verdicts;

use std::collections::BTreeSet;

/// The variants after which another body may still be valid for the same hash.
const MUTATIONS: [&str; 8] = [
    "TooManyBytes",
    "Malformed",
    "NoTransactions",
    "MerkleRootMismatch",
    "MerkleMutated",
    "CoinbaseMissing",
    "WitnessReservedValue",
    "WitnessCommitmentMismatch",
];

/// Makes a test of each function, and the table of what is tested.
macro_rules! rules {
    ($($kind:ident { $($variant:ident: $module:ident::$test:ident,)+ })+) => {
        $($(
            #[test]
            fn $test() {
                verdicts::trips(stringify!($kind), stringify!($variant), $module::$test);
            }
        )+)+

        /// (enum, variant) of each test.
        const TESTED: &[(&str, &str)] = &[$($((stringify!($kind), stringify!($variant)),)+)+];
    };
}

rules! {
    InvalidBlock {
        TooManyBytes: bytes::too_many_bytes,
        Malformed: bytes::malformed,
        VersionTooLow: header::version_too_low,
        WrongBits: header::wrong_bits,
        HashAboveTarget: header::hash_above_target,
        TimeNotAfterMedian: header::time_not_after_median,
        TimeBeforeParent: header::time_before_parent,
        NoTransactions: body::no_transactions,
        MerkleRootMismatch: body::merkle_root_mismatch,
        MerkleMutated: body::merkle_mutated,
        CoinbaseMissing: body::coinbase_missing,
        CoinbaseRepeated: body::coinbase_repeated,
        TooHeavy: body::too_heavy,
        TooManySigops: sigops::too_many_sigops,
        CoinbaseScriptLength: coinbase::script_length,
        CoinbaseHeight: coinbase::height,
        WitnessCommitmentForm: coinbase::witness_commitment_form,
        WitnessReservedValue: coinbase::witness_reserved_value,
        WitnessCommitmentMismatch: coinbase::witness_commitment_mismatch,
        StateCommitmentForm: coinbase::state_commitment_form,
        StateCommitmentMismatch: coinbase::state_commitment_mismatch,
        CoinbaseValue: coinbase::value,
        Peg: peg::breaks_a_rule_of_the_peg,
        DoubleSpend: body::double_spend,
        FeesOutOfRange: body::fees_out_of_range,
        Transaction: transactions::names_the_transaction,
    }
    InvalidTransaction {
        NoInputs: transactions::no_inputs,
        NoOutputs: transactions::no_outputs,
        TooLarge: transactions::too_large,
        OutputValueOutOfRange: transactions::output_value_out_of_range,
        OutputSumOutOfRange: transactions::output_sum_out_of_range,
        DuplicateInput: transactions::duplicate_input,
        NullOutpoint: transactions::null_outpoint,
        PegScript: peg::script_of_no_known_form,
        CreatesReserve: peg::creates_reserve,
        CoinbaseCreatesRequest: peg::coinbase_creates_request,
        RequestOutOfRange: peg::request_out_of_range,
        MissingInput: spends::missing_input,
        ImmatureCoinbase: spends::immature_coinbase,
        SpendsPegCoin: peg::spends_peg_coin,
        InputSumOutOfRange: spends::input_sum_out_of_range,
        OutputsExceedInputs: spends::outputs_exceed_inputs,
        LockTime: locks::lock_time,
        SequenceLock: locks::sequence_lock,
        TooManyLegacySigops: sigops::too_many_legacy_sigops,
        Script: spends::script,
    }
}

/// The variants of an enum in the source of `causeway_consensus::error`: the lines that start one, four spaces deep.
fn variants(name: &str) -> BTreeSet<String> {
    let source = include_str!("../../../consensus/src/error.rs");
    let (_, body) = source.split_once(&format!("pub enum {name} {{\n")).expect("the enum is there");
    let (body, _) = body.split_once("\n}\n").expect("the enum ends");
    body.lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(|first: char| first.is_ascii_uppercase()))
        .map(verdicts::leading_word)
        .collect()
}

#[test]
fn every_variant_has_its_test() {
    for name in ["InvalidBlock", "InvalidTransaction"] {
        let tested: Vec<String> =
            TESTED.iter().filter(|(kind, _)| *kind == name).map(|(_, variant)| (*variant).to_owned()).collect();
        let distinct: BTreeSet<String> = tested.iter().cloned().collect();
        assert_eq!(distinct.len(), tested.len(), "one test for each variant of {name}");
        assert_eq!(distinct, variants(name), "{name}");
    }
}
