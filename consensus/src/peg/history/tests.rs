use bitcoin::hashes::Hash;

use super::*;

fn deposit(number: u8) -> OutPoint {
    OutPoint { txid: Txid::from_byte_array([number; 32]), vout: u32::from(number) }
}

fn credited(number: u8, height: u32, vout: u32) -> PegEvent {
    let credit = Credit {
        height: Height(height),
        vout,
        amount: Amount::from_sat(70_000),
        fee: Amount::from_sat(1_000),
        bitcoin_height: BitcoinHeight(900),
        bitcoin_index: 7,
    };
    PegEvent::Credited { outpoint: deposit(number), credit }
}

#[test]
fn a_credit_is_found_by_its_deposit_and_by_its_block() {
    let records = credited(3, 200, 5).records(Height(200));
    let [(by_deposit, credit), (by_block, found)] = &records[..] else { panic!("{records:?}") };
    assert_eq!(*by_deposit, credit_key(&deposit(3)));
    let PegEvent::Credited { credit: expected, .. } = credited(3, 200, 5) else { unreachable!() };
    assert_eq!(Credit::decode(credit), Some(expected));
    assert_eq!(Credit::decode(&credit[..credit.len() - 1]), None);
    assert_eq!(decode_credited_at_key(by_block), Some(Height(200)));
    assert_eq!(decode_deposit(found), Some(deposit(3)));
    assert_eq!(decode_deposit(&[&found[..], &[0]].concat()), None);
}

#[test]
fn keys_of_credits_sort_as_the_credits_happened() {
    let places = [(1, 2), (1, 300), (255, 1), (256, 1), (70_000, 1)];
    let keys: Vec<_> = places.iter().map(|(height, vout)| credited_at_key(Height(*height), *vout)).collect();
    assert!(keys.is_sorted());
    assert_eq!(decode_credited_at_key(&batch_key(1)), None);
    assert_eq!(decode_credited_at_key(&keys[0][..8]), None);
}
