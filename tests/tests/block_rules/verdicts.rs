//! Asserting verdicts, and keeping a record of them for the running test.

use std::cell::RefCell;

use bitcoin::consensus::serialize;
use bitcoin::{Block, Transaction};
use causeway_consensus::check::check_transaction;
use causeway_consensus::{ConnectedBlock, InvalidBlock, InvalidTransaction};
use causeway_tests::chain::MemoryChain;

use crate::MUTATIONS;

/// What the running test has seen.
#[derive(Default)]
struct Record {
    accepted: usize,
    /// (enum, variant)
    refused: Vec<(&'static str, String)>,
}

thread_local! {
    /// Each test runs on a thread of its own.
    static RECORD: RefCell<Record> = RefCell::default();
}

/// Runs a test, and asserts that it saw a block accepted, and one refused with the variant that it is named for.
pub(crate) fn trips(kind: &str, variant: &str, test: fn()) {
    RECORD.take();
    test();
    let record = RECORD.take();
    assert!(record.accepted > 0, "nothing was accepted");
    let tripped = record.refused.iter().any(|(seen_kind, seen)| *seen_kind == kind && seen == variant);
    assert!(tripped, "{kind}::{variant} was not tripped");
}

/// Validates a block that breaks no rule.
pub(crate) fn accepted(chain: &MemoryChain, block: &Block) -> ConnectedBlock {
    accepted_bytes(chain, serialize(block))
}

/// Validates a serialised block that breaks no rule.
pub(crate) fn accepted_bytes(chain: &MemoryChain, bytes: Vec<u8>) -> ConnectedBlock {
    let connected = chain.validate(bytes).expect("a valid block");
    RECORD.with_borrow_mut(|record| record.accepted += 1);
    connected
}

/// Asserts that a block is refused with exactly this verdict.
pub(crate) fn refused(chain: &MemoryChain, block: &Block, expected: InvalidBlock) {
    refused_bytes(chain, serialize(block), expected);
}

/// Asserts that a serialised block is refused with exactly this verdict.
pub(crate) fn refused_bytes(chain: &MemoryChain, bytes: Vec<u8>, expected: InvalidBlock) {
    let verdict = chain.validate(bytes).map(drop).expect_err("an invalid block");
    assert_eq!(verdict, expected);
    let variant = leading_word(&format!("{verdict:?}"));
    assert_eq!(verdict.is_mutation(), MUTATIONS.contains(&variant.as_str()), "{verdict:?}");
    RECORD.with_borrow_mut(|record| record.refused.push(("InvalidBlock", variant)));
    if let InvalidBlock::Transaction { rule, .. } = verdict {
        record_rule(&rule);
    }
}

/// Asserts that a block is refused because its transaction at `index` breaks a rule.
pub(crate) fn refused_for(chain: &MemoryChain, block: &Block, index: usize, rule: InvalidTransaction) {
    let txid = block.txdata[index].compute_txid();
    refused(chain, block, InvalidBlock::Transaction { index, txid, rule });
}

/// Asserts that a transaction alone breaks no rule that needs no coins.
pub(crate) fn accepted_alone(chain: &MemoryChain, transaction: &Transaction) {
    let verdict = check_transaction(transaction, transaction.base_size(), chain.spec.params());
    verdict.expect("a valid transaction");
    RECORD.with_borrow_mut(|record| record.accepted += 1);
}

/// Asserts that a transaction alone is refused with exactly this verdict.
pub(crate) fn refused_alone(chain: &MemoryChain, transaction: &Transaction, expected: InvalidTransaction) {
    let verdict = check_transaction(transaction, transaction.base_size(), chain.spec.params());
    let verdict = verdict.expect_err("an invalid transaction");
    assert_eq!(verdict, expected);
    record_rule(&verdict);
}

fn record_rule(rule: &InvalidTransaction) {
    let variant = leading_word(&format!("{rule:?}"));
    RECORD.with_borrow_mut(|record| record.refused.push(("InvalidTransaction", variant)));
}

/// Returns the letters that `text` starts with: the name of a variant.
pub(crate) fn leading_word(text: &str) -> String {
    text.chars().take_while(char::is_ascii_alphanumeric).collect()
}
