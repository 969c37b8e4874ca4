//! ECDSA signatures and keys, right and wrong.

use bitcoin::key::Keypair;
use secp256k1::{Message, PublicKey, SECP256K1, Scalar, SecretKey};

use crate::messages::sha256;
use crate::plan::{KeyForm, Number, SignatureForm};
use crate::tamper::flip;

/// The number of points of the curve.
const ORDER: [u8; 32] = secp256k1::constants::CURVE_ORDER;

/// Returns the key whose hash the script has, and the one that is presented.
pub(crate) fn keys(keypair: &Keypair, other: &Keypair, form: &KeyForm) -> (Vec<u8>, Vec<u8>) {
    let serialized = |uncompressed: bool| {
        let key = keypair.public_key();
        if uncompressed { key.serialize_uncompressed().to_vec() } else { key.serialize().to_vec() }
    };
    let key = match form {
        KeyForm::Compressed => serialized(false),
        KeyForm::Uncompressed => serialized(true),
        KeyForm::Hybrid { right } => {
            let mut key = serialized(true);
            key[0] = 6 | ((key[64] ^ u8::from(!right)) & 1);
            key
        }
        KeyForm::Head { uncompressed, head } => {
            let mut key = serialized(*uncompressed);
            key[0] = *head;
            key
        }
        KeyForm::Length { uncompressed, bytes } => {
            let mut key = serialized(*uncompressed);
            key.resize(*bytes, 0);
            key
        }
        KeyForm::X(x) => [&[2], x.as_slice()].concat(),
        KeyForm::XTooLarge => [&[3], [0xff; 32].as_slice()].concat(),
        KeyForm::Other => return (serialized(false), other.public_key().serialize().to_vec()),
    };
    (key.clone(), key)
}

/// Returns the bytes that stand for a signature with `hash_type`.
pub(crate) fn signature(
    keypair: &Keypair,
    message: impl Fn(u8) -> [u8; 32],
    hash_type: u8,
    form: &SignatureForm,
) -> Vec<u8> {
    let message = Message::from_digest(message(hash_type));
    let compact = SECP256K1.sign_ecdsa(&message, &keypair.secret_key()).serialize_compact();
    let (r, s): ([u8; 32], [u8; 32]) = (compact[..32].try_into().expect("32"), compact[32..].try_into().expect("32"));
    let right = [der(&content(&r), &content(&s)), vec![hash_type]].concat();
    let typed = |der: Vec<u8>| [der, vec![hash_type]].concat();
    match form {
        SignatureForm::Right => right,
        SignatureForm::HighS => {
            let s = SecretKey::from_slice(&s).expect("not zero").negate().secret_bytes();
            typed(der(&content(&r), &content(&s)))
        }
        SignatureForm::Padded { r: zeros_r, s: zeros_s } => {
            typed(der(&[vec![0; *zeros_r], content(&r)].concat(), &[vec![0; *zeros_s], content(&s)].concat()))
        }
        SignatureForm::Numbers { r: number_r, s: number_s } => {
            let number =
                |number: &Option<Number>, right: [u8; 32]| number.map_or_else(|| content(&right), |n| wrong(n, right));
            typed(der(&number(number_r, r), &number(number_s, s)))
        }
        SignatureForm::Byte { at, value } => {
            let mut bytes = right;
            *at.get_mut(&mut bytes) = *value;
            bytes
        }
        SignatureForm::Bit { at, bit } => {
            let mut bytes = right;
            flip(&mut bytes, at, *bit);
            bytes
        }
        SignatureForm::Trailing { bytes, counted } => {
            let mut der = der(&content(&r), &content(&s));
            if *counted {
                der[1] += u8::try_from(bytes.len()).expect("a few");
            }
            typed([der, bytes.clone()].concat())
        }
        SignatureForm::LongLength => [&[0x30, 0x81], &right[1..]].concat(),
        SignatureForm::Cut(at) => right[..at.index(right.len())].to_vec(),
        SignatureForm::NoHashType => right[..right.len() - 1].to_vec(),
        SignatureForm::OnlyHashType => vec![hash_type],
        SignatureForm::Empty => vec![],
        SignatureForm::OtherHashType(written) => [&right[..right.len() - 1], &[*written]].concat(),
        SignatureForm::Bytes(bytes) => bytes.clone(),
    }
}

/// Returns a signature whose numbers have these lengths, and the key for which it is valid on `message`.
pub(crate) fn small_signature(seed: u64, r_bytes: usize, s_bytes: usize, message: [u8; 32]) -> (Vec<u8>, PublicKey) {
    let number = |name: u8, bytes: usize| {
        let mut number = [0; 32];
        number[32 - bytes..].copy_from_slice(&sha256(&[&seed.to_le_bytes(), [name].as_slice()].concat())[..bytes]);
        // Of this very length, and neither zero nor negative.
        number[32 - bytes] = (number[32 - bytes] & 0x7f) | 1;
        number
    };
    let (mut r, s) = (number(b'r', r_bytes), number(b's', s_bytes));
    let point = loop {
        // About every second number is the x of a point.
        match PublicKey::from_slice(&[&[2], r.as_slice()].concat()) {
            Ok(point) => break point,
            Err(_) => r[31] = r[31].wrapping_add(1).max(1),
        }
    };
    // s R = m G + r Q
    let scalar = |bytes: &[u8; 32]| SecretKey::from_slice(bytes).expect("a number in range");
    let over_r = Scalar::from(inverse(scalar(&r)));
    let key = point.mul_tweak(SECP256K1, &Scalar::from(scalar(&s))).expect("not zero");
    let minus_message = PublicKey::from_secret_key(SECP256K1, &scalar(&message).negate());
    let key = key.combine(&minus_message).expect("not opposite").mul_tweak(SECP256K1, &over_r).expect("not zero");
    (der(&content(&r), &content(&s)), key)
}

/// One over a number, modulo the order: its power to the order less two.
fn inverse(number: SecretKey) -> SecretKey {
    let mut exponent = ORDER;
    exponent[31] -= 2;
    let mut one = [0; 32];
    one[31] = 1;
    let mut power = SecretKey::from_slice(&one).expect("one is in range");
    for bit in (0..256).map(|i| exponent[i / 8] >> (7 - i % 8) & 1) {
        power = power.mul_tweak(&Scalar::from(power)).expect("not zero");
        if bit == 1 {
            power = power.mul_tweak(&Scalar::from(number)).expect("not zero");
        }
    }
    power
}

fn der(r: &[u8], s: &[u8]) -> Vec<u8> {
    let length = |bytes: usize| u8::try_from(bytes).expect("a byte");
    let integer = |number: &[u8]| [&[2, length(number.len())], number].concat();
    let numbers = [integer(r), integer(s)].concat();
    [&[0x30, length(numbers.len())], numbers.as_slice()].concat()
}

/// The least content of a DER integer.
fn content(number: &[u8]) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count().min(number.len() - 1);
    let mut content = number[zeros..].to_vec();
    if content[0] & 0x80 != 0 {
        content.insert(0, 0);
    }
    content
}

fn wrong(number: Number, right: [u8; 32]) -> Vec<u8> {
    match number {
        Number::NoBytes => vec![],
        Number::Zero => vec![0],
        Number::One => vec![1],
        Number::Negative => {
            let mut content = content(&right);
            content[0] |= 0x80;
            content
        }
        Number::Order => content(&ORDER),
        Number::OrderLessOne => {
            let mut number = ORDER;
            number[31] -= 1;
            content(&number)
        }
        Number::PlusOrder => {
            let mut sum = [0; 33];
            let mut carry = 0;
            for i in (0..32).rev() {
                let digit = u16::from(right[i]) + u16::from(ORDER[i]) + carry;
                (sum[i + 1], carry) = (digit.to_le_bytes()[0], digit >> 8);
            }
            sum[0] = carry.to_le_bytes()[0];
            content(&sum)
        }
        Number::Large(bytes) => [vec![0], vec![0xff; bytes]].concat(),
    }
}
