use proptest::collection::vec;
use proptest::prelude::*;
use secp256k1::{Message, SecretKey};

use super::*;

/// `0x30 [length] 0x02 [length] [r] 0x02 [length] [s]`
fn der(r: &[u8], s: &[u8]) -> Vec<u8> {
    let length = |bytes: usize| u8::try_from(bytes).expect("short");
    let numbers = [&[2, length(r.len())], r, &[2, length(s.len())], s].concat();
    [&[0x30, length(numbers.len())], numbers.as_slice()].concat()
}

/// Bitcoin Core: `IsValidSignatureEncoding`, line by line. Takes the hash type byte too.
fn core_is_valid_signature_encoding(sig: &[u8]) -> bool {
    if sig.len() < 9 || sig.len() > 73 {
        return false;
    }
    if sig[0] != 0x30 || usize::from(sig[1]) != sig.len() - 3 {
        return false;
    }
    let len_r = usize::from(sig[3]);
    if 5 + len_r >= sig.len() {
        return false;
    }
    let len_s = usize::from(sig[5 + len_r]);
    if len_r + len_s + 7 != sig.len() {
        return false;
    }
    if sig[2] != 0x02 || len_r == 0 || sig[4] & 0x80 != 0 {
        return false;
    }
    if len_r > 1 && sig[4] == 0 && sig[5] & 0x80 == 0 {
        return false;
    }
    if sig[len_r + 4] != 0x02 || len_s == 0 || sig[len_r + 6] & 0x80 != 0 {
        return false;
    }
    !(len_s > 1 && sig[len_r + 6] == 0 && sig[len_r + 7] & 0x80 == 0)
}

#[test]
fn numbers_are_minimal_and_not_negative() {
    for number in [&[0][..], &[1], &[0x7f], &[0, 0x80], &[1, 0], &[0, 0xff, 0], &[0x7f; 33]] {
        assert!(is_strict_der(&der(number, &[1])), "{number:?}");
        assert!(is_strict_der(&der(&[1], number)), "{number:?}");
    }
    for number in [&[][..], &[0x80], &[0xff, 1], &[0, 0], &[0, 1], &[0, 0x7f, 0xff], &[0, 0, 0x80]] {
        assert!(!is_strict_der(&der(number, &[1])), "{number:?}");
        assert!(!is_strict_der(&der(&[1], number)), "{number:?}");
    }
}

#[test]
fn lengths_are_exact() {
    let right = der(&[1], &[2]);
    assert_eq!(right.len(), 8);
    assert!(is_strict_der(&right));
    for at in [1, 3, 6] {
        for change in [1, u8::MAX, 0x80] {
            let mut wrong = right.clone();
            wrong[at] = wrong[at].wrapping_add(change);
            assert!(!is_strict_der(&wrong), "{wrong:?}");
        }
    }
    for bytes in 0..right.len() {
        assert!(!is_strict_der(&right[..bytes]));
    }
    assert!(!is_strict_der(&[right.as_slice(), &[0]].concat()));
    // Counted by the outer length, but part of no number.
    assert!(!is_strict_der(&[0x30, 7, 2, 1, 1, 2, 1, 1, 0]));
    // 72 bytes at most: two numbers of 33.
    assert!(is_strict_der(&der(&[0x7f; 33], &[0x7f; 33])));
    assert!(!is_strict_der(&der(&[0x7f; 34], &[0x7f; 33])));
}

#[test]
fn types_are_exact() {
    let right = der(&[1], &[2]);
    for at in [0, 2, 5] {
        for change in 1..=u8::MAX {
            let mut wrong = right.clone();
            wrong[at] ^= change;
            assert!(!is_strict_der(&wrong), "{wrong:?}");
        }
    }
}

#[test]
fn a_high_s_is_valid_too() {
    let secret = SecretKey::from_slice(&[3; 32]).expect("in range");
    let message = [5; 32];
    let low = SECP256K1.sign_ecdsa(&Message::from_digest(message), &secret).serialize_compact();
    let s = SecretKey::from_slice(&low[32..]).expect("not zero").negate().secret_bytes();
    let high = ecdsa::Signature::from_compact(&[&low[..32], &s].concat()).expect("in range");
    let der = high.serialize_der();
    let key = EcdsaKey::new(&PublicKey::from_secret_key(SECP256K1, &secret).serialize()).expect("33 bytes");

    let job = |signature| Job::Ecdsa { signature, message, key: key.clone() };
    assert!(job(ecdsa_signature(&der).expect("strict")).verify());
    assert!(!job(high).verify(), "libsecp256k1 takes low ones only");
}

/// Core takes the encoding and finds the signature wrong; both are invalid.
#[test]
fn numbers_out_of_range_are_valid_for_no_message() {
    let order = [&[0], secp256k1::constants::CURVE_ORDER.as_slice()].concat();
    let key = EcdsaKey::new(&PublicKey::from_slice(&[2; 33]).expect("a point").serialize()).expect("33 bytes");
    for (r, s) in [(order.as_slice(), &[1][..]), (&[1], &order), (&[0], &[1]), (&[1], &[0]), (&[0x7f; 33], &[1])] {
        let der = der(r, s);
        assert!(is_strict_der(&der));
        let valid = ecdsa_signature(&der)
            .is_some_and(|signature| Job::Ecdsa { signature, message: [0; 32], key: key.clone() }.verify());
        assert!(!valid, "{der:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// From random numbers, with some bytes replaced by those that mean something in an encoding.
    #[test]
    fn strict_der_is_cores(
        r in vec(prop_oneof![Just(0), Just(0x80), any::<u8>()], 0..36),
        s in vec(prop_oneof![Just(0), Just(0x80), any::<u8>()], 0..36),
        changes in vec((any::<prop::sample::Index>(), prop_oneof![0..10u8, 28..80u8, any::<u8>()]), 0..2),
        cut in prop_oneof![4 => Just(0), 1 => 1..4usize],
        hash_type: u8,
    ) {
        let mut bytes = der(&r, &s);
        for (at, value) in changes {
            *at.get_mut(&mut bytes) = value;
        }
        bytes.truncate(bytes.len() - cut);
        let with_type = [bytes.as_slice(), &[hash_type]].concat();
        prop_assert_eq!(is_strict_der(&bytes), core_is_valid_signature_encoding(&with_type));
    }

    #[test]
    fn strict_der_of_any_bytes_is_cores(bytes in vec(prop_oneof![0..4u8, Just(0x30), any::<u8>()], 0..14)) {
        let (_, der) = bytes.split_last().map_or((0, &[][..]), |(last, der)| (*last, der));
        prop_assert_eq!(is_strict_der(der), core_is_valid_signature_encoding(&bytes));
    }
}
