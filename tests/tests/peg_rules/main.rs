//! Every rule of the peg: one test for each variant of `InvalidPeg`, which shows a block that is accepted and the least change
//! that breaks this rule, both as whole blocks.
//!
//! The table below is compared with the enum's source, so a variant without a test fails; and each test fails unless the
//! verdict it is named for was really given.

mod batches;
mod deposits;
mod encoding;
mod form;
mod headers;
mod proofs;
mod rates;
mod scene;

use std::collections::BTreeSet;

/// Makes a test of each function, and the table of what is tested.
macro_rules! rules {
    ($($variant:ident: $module:ident::$test:ident,)+) => {
        $(
            #[test]
            fn $test() {
                scene::trips(stringify!($variant), $module::$test);
            }
        )+

        const TESTED: &[&str] = &[$(stringify!($variant),)+];
    };
}

rules! {
    EvidenceForm: form::evidence_form,
    TooLarge: form::too_large,
    WrongTransaction: form::wrong_transaction,
    StrayData: form::stray_data,
    NotSorted: form::not_sorted,
    Frozen: form::frozen,
    Headers: headers::headers,
    UnknownBlock: proofs::unknown_block,
    Proof: proofs::proof,
    TooShallow: proofs::too_shallow,
    NoSuchVersion: batches::no_such_version,
    SpendIsBatch: batches::spend_is_batch,
    NoPegCoinSpent: batches::no_peg_coin_spent,
    UnknownEpoch: deposits::unknown_epoch,
    NoSuchOutput: deposits::no_such_output,
    WrongScript: deposits::wrong_script,
    DestinationForm: deposits::destination_form,
    RequestOutOfRange: deposits::request_out_of_range,
    StaleTip: deposits::stale_tip,
    ClaimWindowOver: deposits::claim_window_over,
    CreditedBefore: deposits::credited_before,
    CoinbaseDeposit: deposits::coinbase_deposit,
    TooManyCoins: deposits::too_many_coins,
    DepositTooSmall: deposits::deposit_too_small,
    ReserveTooSmall: deposits::reserve_too_small,
    NotAValidator: rates::not_a_validator,
    QuoteSignature: rates::quote_signature,
    NoSuchBatch: batches::no_such_batch,
    ReplacedTooEarly: batches::replaced_too_early,
    FeeRateAtLimit: batches::fee_rate_at_limit,
    CannotPayMore: batches::cannot_pay_more,
    NothingToOpen: batches::nothing_to_open,
    BatchNotOpened: batches::batch_not_opened,
}

#[test]
fn every_variant_has_its_test() {
    let source = include_str!("../../../consensus/src/peg/error.rs");
    let (_, body) = source.split_once("pub enum InvalidPeg {\n").expect("the enum is there");
    let (body, _) = body.split_once("\n}\n").expect("the enum ends");
    let variants: BTreeSet<String> = body
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(|first: char| first.is_ascii_uppercase()))
        .map(scene::leading_word)
        .collect();
    let tested: BTreeSet<String> = TESTED.iter().map(|variant| (*variant).to_owned()).collect();
    assert_eq!(tested.len(), TESTED.len(), "one test for each variant");
    assert_eq!(tested, variants);
}
