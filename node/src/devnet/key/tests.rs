use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, Txid};

use super::*;

fn key() -> DevKey {
    DevKey::of(MINER, Network::Regtest)
}

fn coin(number: u8, value: u64) -> Coin {
    let outpoint = OutPoint { txid: Txid::from_byte_array([number; 32]), vout: 0 };
    Coin { outpoint, value: Amount::from_sat(value) }
}

fn output(value: u64) -> TxOut {
    TxOut { value: Amount::from_sat(value), script_pubkey: DevKey::of(SINK, Network::Regtest).script() }
}

fn fee(coins: &[Coin], transaction: &Transaction) -> u64 {
    let spent = |input: &TxIn| coins.iter().find(|coin| coin.outpoint == input.previous_output).unwrap().value.to_sat();
    let inputs: u64 = transaction.input.iter().map(spent).sum();
    inputs - transaction.output.iter().map(|output| output.value.to_sat()).sum::<u64>()
}

#[test]
fn a_payment_takes_the_largest_coins_and_pays_its_fee() {
    let coins = [coin(1, 10_000), coin(2, 50_000), coin(3, 30_000)];
    for (amount, inputs, outputs) in [(20_000, 1, 2), (49_500, 1, 1), (60_000, 2, 2), (89_000, 3, 1)] {
        let transaction = key().pay(&coins, &[output(amount)]).unwrap();
        assert_eq!((transaction.input.len(), transaction.output.len()), (inputs, outputs), "{amount}");
        assert_eq!(transaction.output[0], output(amount));
        let (fee, vsize) = (fee(&coins, &transaction), transaction.vsize() as u64);
        assert!(fee >= 2 * vsize && fee < 2 * vsize + 1_200, "{fee} sat for {vsize} vB");
    }
    assert_eq!(key().pay(&coins, &[output(89_900)]), Err(TooLittle { available: Amount::from_sat(90_000) }));
    assert_eq!(key().pay(&[], &[output(0)]), Err(TooLittle { available: Amount::ZERO }));
}

#[test]
fn every_input_is_signed() {
    let coins = [coin(1, 40_000), coin(2, 50_000)];
    let transaction = key().pay(&coins, &[output(80_000)]).unwrap();
    let mut cache = SighashCache::new(&transaction);
    for (index, input) in transaction.input.iter().enumerate() {
        let spent = coins.iter().find(|coin| coin.outpoint == input.previous_output).unwrap();
        let hash = cache.p2wpkh_signature_hash(index, &key().script(), spent.value, EcdsaSighashType::All).unwrap();
        let signature = bitcoin::ecdsa::Signature::from_slice(input.witness.nth(0).unwrap()).unwrap();
        let public = bitcoin::secp256k1::PublicKey::from_slice(input.witness.nth(1).unwrap()).unwrap();
        assert_eq!(CompressedPublicKey(public), key().public());
        let message = Message::from_digest(hash.to_byte_array());
        SECP256K1.verify_ecdsa(&message, &signature.signature, &public).unwrap();
    }
}
