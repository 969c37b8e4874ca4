//! Our verdict on an input is Bitcoin Core's, on the fast path above all: transactions of every kind of input, right and
//! wrong in every way we know of, then altered after signing, and each input judged by both.
//!
//! `CAUSEWAY_TEST_FULL=1` makes twenty times as many.

mod build;
mod ecdsa;
mod forms;
mod known;
mod messages;
mod plan;
mod tamper;
mod taproot;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::env;

use bitcoin::{Transaction, TxOut};
use causeway_consensus::script::{Judge, Verdict};
use causeway_tests::oracle::judge;
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};

use build::build;
use plan::plan;

/// Transactions of a run, without those that alterations make.
const CASES: u32 = 512;

/// How many times more a full run has.
const FULL: u32 = 20;

/// Where failures are kept, to run first the next time. To be committed.
const REGRESSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions/script_agreement.txt");

/// Inputs by judge, script and verdict.
type Counts = BTreeMap<(&'static str, &'static str, &'static str), usize>;

#[test]
fn our_verdicts_are_cores() {
    let full = env::var_os("CAUSEWAY_TEST_FULL").is_some();
    let mut runner = TestRunner::new(Config {
        cases: if full { CASES * FULL } else { CASES },
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(REGRESSIONS))),
        max_shrink_iters: 20_000,
        ..Config::default()
    });
    let counts = RefCell::new(Counts::new());
    let result = runner.run(&plan(), |plan| {
        let (mut transaction, mut spent) = build(&plan);
        compare(&transaction, &spent, &counts)?;
        for alteration in &plan.alterations {
            tamper::alter(&mut transaction, &mut spent, alteration);
            compare(&transaction, &spent, &counts)?;
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let counts = counts.into_inner();
    let number = |judge, verdict| -> usize {
        let these = counts.iter().filter(|((by, _, what), _)| *by == judge && *what == verdict);
        these.map(|(_, count)| count).sum()
    };
    println!("inputs judged alike: {} in all", counts.values().sum::<usize>());
    for ((judge, script, verdict), count) in &counts {
        println!("  {judge}, {script}, {verdict}: {count}");
    }
    for (judge, verdict, least) in
        [("direct", "valid", 300), ("direct", "invalid", 500), ("kernel", "valid", 100), ("kernel", "invalid", 100)]
    {
        assert!(number(judge, verdict) >= least, "too few: {judge}, {verdict}");
    }
    for script in ["P2TR", "P2WPKH", "P2PKH"] {
        for verdict in ["valid", "invalid"] {
            assert!(counts.get(&("direct", script, verdict)) >= Some(&80), "too few: direct, {script}, {verdict}");
        }
    }
}

/// Compares both verdicts on each input.
fn compare(transaction: &Transaction, spent: &[TxOut], counts: &RefCell<Counts>) -> Result<(), TestCaseError> {
    for (input, judged) in judge(transaction, spent).into_iter().enumerate() {
        let script = &spent[input].script_pubkey;
        prop_assert_eq!(
            judged.ours,
            judged.core,
            "input {} by {:?}, Core on the right: {} spending {}",
            input,
            judged.judge,
            bitcoin::consensus::encode::serialize_hex(transaction),
            bitcoin::consensus::encode::serialize_hex(&spent.to_vec())
        );
        let form = match () {
            () if script.is_p2tr() => "P2TR",
            () if script.is_p2wpkh() => "P2WPKH",
            () if script.is_p2pkh() => "P2PKH",
            () => "other",
        };
        let by = if judged.judge == Judge::Direct { "direct" } else { "kernel" };
        let verdict = if judged.ours == Verdict::Valid { "valid" } else { "invalid" };
        *counts.borrow_mut().entry((by, form, verdict)).or_default() += 1;
    }
    Ok(())
}
