use bitcoin::hex::FromHex;
use causeway_chainspec::{Epoch, EpochParts, devnet};
use proptest::prelude::*;
use secp256k1::XOnlyPublicKey;

use super::*;

/// The rest of every line of the vectors that starts with this word.
fn lines(word: &str) -> Vec<Vec<&'static str>> {
    let lines: Vec<Vec<&str>> = include_str!("bip327.txt")
        .lines()
        .filter_map(|line| line.strip_prefix(word)?.strip_prefix(' '))
        .map(|rest| rest.split(' ').collect())
        .collect();
    assert!(!lines.is_empty(), "{word}");
    lines
}

fn key(hex: &str) -> Option<PublicKey> {
    PublicKey::from_slice(&Vec::from_hex(hex).unwrap()).ok()
}

fn vector_key(index: &str) -> Option<PublicKey> {
    key(lines("pubkey")[index.parse::<usize>().unwrap()][0])
}

fn vector_keys(indices: &str) -> Vec<PublicKey> {
    indices.split(',').map(|index| vector_key(index).unwrap()).collect()
}

#[test]
fn aggregates_are_those_of_bip327() {
    for case in lines("valid") {
        let expected: XOnlyPublicKey = case[1].to_lowercase().parse().unwrap();
        assert_eq!(key_agg(&vector_keys(case[0])).unwrap().x_only_public_key().0, expected, "{case:?}");
    }
}

#[test]
fn keys_that_bip327_refuses_are_no_keys() {
    for case in lines("invalid_pubkey") {
        for index in case[0].split(',') {
            assert_eq!(vector_key(index).is_none(), index == case[1], "{case:?}");
        }
    }
}

#[test]
fn tweaks_that_bip327_refuses_cannot_be_added() {
    for case in lines("invalid_tweak") {
        let aggregate = key_agg(&vector_keys(case[0])).unwrap();
        let tweak = <[u8; 32]>::from_hex(lines("tweak")[case[1].parse::<usize>().unwrap()][0]).unwrap();
        let tweaked =
            Scalar::from_be_bytes(tweak).ok().and_then(|tweak| aggregate.add_exp_tweak(SECP256K1, &tweak).ok());
        assert_eq!(tweaked, None, "{case:?}");
    }
}

#[test]
fn an_epoch_sorts_its_members_as_bip327() {
    let keys = |word| lines(word).into_iter().map(|line| key(line[0])).collect::<Vec<_>>();
    // A member may stand only once, and one of the vector's keys is not on the curve; the order is judged on the rest.
    let mut sorted: Vec<PublicKey> = keys("sorted").into_iter().flatten().collect();
    sorted.dedup();
    let mut members = Vec::new();
    for member in keys("unsorted").into_iter().flatten() {
        if !members.contains(&member) {
            members.push(member);
        }
    }
    assert!(members.len() >= 4 && members != sorted);
    let devnet = causeway_chainspec::ChainSpec::built_in("devnet").unwrap();
    let parts = EpochParts { members, threshold: 2, ..devnet.federation().to_parts() };
    assert_eq!(Epoch::new(parts).unwrap().members(), sorted);
}

#[test]
fn no_keys_have_no_aggregate() {
    assert_eq!(key_agg(&[]), Err(KeyAggError::NoKeys));
}

#[test]
fn a_key_and_its_negation_have_an_aggregate() {
    // The coefficients differ, so the sum is not the point at infinity.
    let key = devnet::secret_key(devnet::MEMBER, 0).public_key(SECP256K1);
    assert!(key_agg(&[key, key.negate(SECP256K1)]).is_ok());
}

#[test]
fn numbers_are_taken_modulo_the_order() {
    let order = constants::CURVE_ORDER;
    assert_eq!(modulo_order(order), Scalar::ZERO);
    let mut above = order;
    above[31] += 1;
    assert_eq!(modulo_order(above), Scalar::ONE);
    let mut below = order;
    below[31] -= 1;
    assert_eq!(modulo_order(below).to_be_bytes(), below);
    // 2^128 more than the order, less its lowest byte (0x41): a borrow runs through 15 equal bytes.
    let mut borrows = order;
    (borrows[15], borrows[31]) = (0xff, 0);
    let mut expected = [0; 32];
    expected[16..].fill(0xff);
    expected[31] = 0xbf;
    assert_eq!(modulo_order(borrows).to_be_bytes(), expected);
    // 2^256 - 1 is the order and 2^256 - 1 - order, which is the complement of the order.
    assert_eq!(modulo_order([0xff; 32]).to_be_bytes(), order.map(|byte| !byte));
}

proptest! {
    /// Who knows every secret key knows the secret key of the aggregate: the coefficients, written down a second time.
    #[test]
    fn the_aggregate_is_the_sum_of_keys_times_coefficients(secrets in prop::collection::vec(1..40u32, 1..12)) {
        let secrets: Vec<_> = secrets.into_iter().map(|index| devnet::secret_key("key_agg", index)).collect();
        let keys: Vec<_> = secrets.iter().map(|secret| secret.public_key(SECP256K1)).collect();
        let all: Vec<u8> = keys.iter().flat_map(PublicKey::serialize).collect();
        let list = tagged_hash("KeyAgg list", &[&all]);
        let second = keys[1..].iter().find(|key| **key != keys[0]).map_or([0; 33], PublicKey::serialize);
        let sum = secrets
            .iter()
            .zip(&keys)
            .map(|(secret, key)| {
                let bytes = key.serialize();
                if bytes == second {
                    return *secret;
                }
                let coefficient = tagged_hash("KeyAgg coefficient", &[&list[..], &bytes[..]]);
                secret.mul_tweak(&Scalar::from_be_bytes(coefficient).unwrap()).unwrap()
            })
            .reduce(|sum, secret| sum.add_tweak(&secret.into()).unwrap())
            .unwrap();
        prop_assert_eq!(key_agg(&keys).unwrap(), sum.public_key(SECP256K1));
    }
}
