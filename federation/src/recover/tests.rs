use bitcoin::WPubkeyHash;
use bitcoin::hashes::Hash;

use super::*;
use crate::approve::tests::{chain, federation, secret};

fn key(index: usize) -> SecretKey {
    SecretKey::from_slice(&secret("recovery", index)).unwrap()
}

fn destination(byte: u8) -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([byte; 20]))
}

fn scripts() -> Arc<EpochScripts> {
    Arc::clone(&federation(3, 2).epochs[0])
}

fn coin(number: u8, deposit: bool) -> RecoveryCoin {
    let deposit = deposit
        .then(|| RecoveryDeposit { destination: destination(8), refund_key: key(2).x_only_public_key(SECP256K1).0 });
    RecoveryCoin { outpoint: OutPoint { txid: Txid::from_byte_array([number; 32]), vout: 1 }, value: 100_000, deposit }
}

fn plan(coins: &[RecoveryCoin]) -> Recovery {
    let rate = FeeRate::from_sat_per_vb(2).unwrap();
    Recovery::plan(chain(), &scripts(), coins, &destination(1), rate).unwrap()
}

#[test]
fn two_holders_sign_apart_and_combine() {
    let planned = plan(&[coin(1, false), coin(2, true)]);
    let text = planned.to_json();
    let mut copies: Vec<Recovery> = (0..2).map(|_| Recovery::from_json(chain(), &scripts(), &text).unwrap()).collect();
    for (index, copy) in copies.iter_mut().enumerate() {
        copy.check_destination(&destination(1)).unwrap();
        copy.sign(&key(index)).unwrap();
        assert_eq!(copy.summaries()[0].missing, 1);
        assert!(copy.transactions().unwrap().is_none());
    }
    let texts: Vec<String> = copies.iter().map(Recovery::to_json).collect();
    let mut combined = Recovery::from_json(chain(), &scripts(), &texts[0]).unwrap();
    combined.combine(Recovery::from_json(chain(), &scripts(), &texts[1]).unwrap()).unwrap();
    let transactions = combined.transactions().unwrap().unwrap();
    assert_eq!(transactions.len(), 1);
    let transaction = &transactions[0];
    assert_eq!(transaction.output.len(), 1);
    let delay = scripts().epoch().timelocks().recovery_delay;
    assert!(transaction.input.iter().all(|input| input.sequence == bitcoin::Sequence::from_height(delay)));
    // Two signatures, an empty element, script and control block.
    assert!(transaction.input.iter().all(|input| input.witness.len() == 5));
    // A third signature changes nothing.
    combined.sign(&key(2)).unwrap();
    assert_eq!(combined.summaries()[0].signed_by.len(), 3);
    assert!(combined.transactions().unwrap().is_some());
}

#[test]
fn what_is_not_the_plan_is_refused() {
    let mut planned = plan(&[coin(1, false), coin(2, true)]);
    planned.sign(&key(0)).unwrap();
    let text = planned.to_json();
    let parse = |text: &str| Recovery::from_json(chain(), &scripts(), text).map(|_| ());
    parse(&text).unwrap();
    assert!(matches!(planned.check_destination(&destination(2)), Err(RecoveryError::OtherDestination { .. })));
    assert!(matches!(
        parse(&text.replace("\"value\": 100000", "\"value\": 100001")),
        Err(RecoveryError::WrongSignature { .. })
    ));
    assert!(matches!(parse(&text[1..]), Err(RecoveryError::Malformed)));
    assert!(matches!(parse(&text.replace("\"version\": 1", "\"version\": 2")), Err(RecoveryError::Malformed)));
    let other = ChainId::from_byte_array([9; 32]);
    assert!(matches!(Recovery::from_json(other, &scripts(), &text), Err(RecoveryError::OtherChain { .. })));
    let (one, two) = (coin(1, false).outpoint.to_string(), coin(3, false).outpoint.to_string());
    assert!(matches!(parse(&text.replace(&one, &two)), Err(RecoveryError::OtherTransaction { .. })));
    let stranger = SecretKey::from_slice(&[7; 32]).unwrap();
    assert!(matches!(planned.sign(&stranger), Err(RecoveryError::NotARecoveryKey(_))));
    assert!(matches!(planned.combine(plan(&[coin(1, false)])), Err(RecoveryError::Different)));
}

#[test]
fn plans_without_sense_are_refused() {
    let rate = FeeRate::from_sat_per_vb(2).unwrap();
    let plan = |coins: &[RecoveryCoin]| {
        Recovery::plan(chain(), &scripts(), coins, &destination(1), rate).map(|_| ()).unwrap_err()
    };
    assert!(matches!(plan(&[]), RecoveryError::Coins(0)));
    assert!(matches!(plan(&[coin(1, false), coin(1, true)]), RecoveryError::Twice(_)));
    let dust = RecoveryCoin { value: 300, ..coin(1, false) };
    assert!(matches!(plan(&[dust]), RecoveryError::Spend(SpendError::Dust { .. })));
}

#[test]
fn many_coins_make_transactions_that_are_relayed() {
    let coins: Vec<RecoveryCoin> = (0..2_500_u32)
        .map(|vout| RecoveryCoin { outpoint: OutPoint { vout, ..coin(1, false).outpoint }, ..coin(1, vout % 2 == 0) })
        .collect();
    let mut planned = plan(&coins);
    planned.sign(&key(0)).unwrap();
    planned.sign(&key(1)).unwrap();
    let transactions = planned.transactions().unwrap().unwrap();
    assert!(transactions.len() > 1);
    assert!(transactions.iter().all(|transaction| transaction.weight().to_wu() <= 400_000));
    assert_eq!(transactions.iter().map(|transaction| transaction.input.len()).sum::<usize>(), 2_500);
}
