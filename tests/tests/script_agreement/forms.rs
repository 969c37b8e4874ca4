//! Any form of an input.

use causeway_tests::wallet::Kind;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::plan::{
    Annex, Control, Dress, Form, KeyForm, Leaf, Number, Place, Program, SchnorrForm, SignatureForm, bytes,
};

pub(crate) fn form() -> impl Strategy<Value = Form> {
    prop_oneof![
        3 => (select(&Kind::ALL), select(&[0u8, 1, 2, 3, 0x81, 0x82, 0x83]))
            .prop_map(|(kind, hash_type)| Form::Wallet { kind, hash_type }),
        10 => (place(), key(), signature(), ecdsa_type(), dress()).prop_map(
            |(place, key, signature, hash_type, dress)| Form::KeyHash { place, key, signature, hash_type, dress }
        ),
        6 => (program(), schnorr(), taproot_type(), annex(), dress()).prop_map(
            |(program, signature, hash_type, annex, dress)| Form::KeyPath { program, signature, hash_type, annex, dress }
        ),
        3 => (leaf(), leaf_version(), path(), control(), taproot_type(), annex()).prop_map(
            |(leaf, version, path, control, hash_type, annex)| {
                Form::ScriptPath { leaf, version, path, control, hash_type, annex }
            }
        ),
        1 => (small_lengths(), select(&[3u8, 0x83, 0x43, 0xe3, 1]), any::<bool>()).prop_map(
            |((r_bytes, s_bytes), hash_type, nested)| Form::SmallSignature { r_bytes, s_bytes, hash_type, nested }
        ),
        1 => (0..=16u8, prop_oneof![Just(vec![0; 32]), Just(vec![0; 20]), bytes(2..41)], any::<bool>(), elements())
            .prop_map(|(version, program, nested, elements)| Form::Witness { version, program, nested, elements }),
        1 => (bytes(0..12), bytes(0..12), elements()).prop_map(
            |(script_pubkey, script_sig, witness)| Form::Bytes { script_pubkey, script_sig, witness }
        ),
    ]
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![4 => Just(Place::P2wpkh), 4 => Just(Place::P2pkh), 1 => Just(Place::P2shP2wpkh)]
}

/// 6 and 7 make a signature as long as a key hash.
fn small_lengths() -> impl Strategy<Value = (usize, usize)> {
    prop_oneof![1 => Just((6, 7)), 2 => (1..=32usize, 1..=32usize)]
}

fn elements() -> impl Strategy<Value = Vec<Vec<u8>>> {
    vec(bytes(0..70), 0..3)
}

fn ecdsa_type() -> impl Strategy<Value = u8> {
    prop_oneof![
        3 => Just(1),
        3 => select(&[2u8, 3, 0x81, 0x82, 0x83]),
        3 => select(&[0x00u8, 0x04, 0x1f, 0x80, 0x41, 0x42, 0x43, 0xc3, 0x20, 0x23, 0xff]),
        1 => any::<u8>(),
    ]
}

fn taproot_type() -> impl Strategy<Value = u8> {
    prop_oneof![
        4 => Just(0),
        5 => select(&[1u8, 2, 3, 0x81, 0x82, 0x83]),
        1 => select(&[4u8, 0x80, 0x84, 0x41, 0x1f, 0xff]),
        1 => any::<u8>(),
    ]
}

fn key() -> impl Strategy<Value = KeyForm> {
    prop_oneof![
        10 => Just(KeyForm::Compressed),
        2 => Just(KeyForm::Uncompressed),
        2 => any::<bool>().prop_map(|right| KeyForm::Hybrid { right }),
        1 => (any::<bool>(), prop_oneof![0..8u8, any::<u8>()])
            .prop_map(|(uncompressed, head)| KeyForm::Head { uncompressed, head }),
        1 => (any::<bool>(), prop_oneof![select(&[0usize, 1, 32, 33, 34, 64, 65, 66, 75]), 0..76usize])
            .prop_map(|(uncompressed, bytes)| KeyForm::Length { uncompressed, bytes }),
        1 => any::<[u8; 32]>().prop_map(KeyForm::X),
        1 => Just(KeyForm::XTooLarge),
        1 => Just(KeyForm::Other),
    ]
}

fn number() -> impl Strategy<Value = Option<Number>> {
    prop_oneof![
        2 => Just(None),
        5 => select(&[
            Number::NoBytes,
            Number::Zero,
            Number::One,
            Number::Negative,
            Number::Order,
            Number::OrderLessOne,
            Number::PlusOrder,
        ]).prop_map(Some),
        1 => (1..40usize).prop_map(|bytes| Some(Number::Large(bytes))),
    ]
}

fn signature() -> impl Strategy<Value = SignatureForm> {
    let index = any::<Index>;
    prop_oneof![
        14 => Just(SignatureForm::Right),
        4 => Just(SignatureForm::HighS),
        1 => (0..3usize, 0..3usize).prop_map(|(r, s)| SignatureForm::Padded { r, s }),
        2 => (number(), number()).prop_map(|(r, s)| SignatureForm::Numbers { r, s }),
        1 => (index(), any::<u8>()).prop_map(|(at, value)| SignatureForm::Byte { at, value }),
        1 => (index(), 0..8u8).prop_map(|(at, bit)| SignatureForm::Bit { at, bit }),
        1 => (bytes(1..4), any::<bool>()).prop_map(|(bytes, counted)| SignatureForm::Trailing { bytes, counted }),
        1 => prop_oneof![
            Just(SignatureForm::LongLength),
            Just(SignatureForm::NoHashType),
            Just(SignatureForm::OnlyHashType),
            Just(SignatureForm::Empty),
            index().prop_map(SignatureForm::Cut),
            any::<u8>().prop_map(SignatureForm::OtherHashType),
            bytes(0..80).prop_map(SignatureForm::Bytes),
            bytes(20..21).prop_map(SignatureForm::Bytes),
        ],
    ]
}

fn dress() -> impl Strategy<Value = Dress> {
    let element = || prop_oneof![Just(vec![]), Just(vec![0x50]), bytes(0..80)];
    let form = || select(&[0u8, 1, 2, 4]);
    prop_oneof![
        24 => Just(Dress::Plain),
        1 => (form(), form()).prop_map(|(first, second)| Dress::Pushes([first, second])),
        1 => element().prop_map(Dress::First),
        1 => element().prop_map(Dress::Last),
        1 => prop_oneof![select(vec![vec![0x61], vec![0x51], vec![0xab], vec![0x4f], vec![0x4c]]), bytes(1..4)]
            .prop_map(Dress::Code),
        1 => Just(Dress::WithoutFirst),
        1 => Just(Dress::WithoutLast),
        1 => Just(Dress::Swapped),
        1 => element().prop_map(Dress::OtherSide),
        1 => Just(Dress::Nothing),
    ]
}

fn program() -> impl Strategy<Value = Program> {
    prop_oneof![
        14 => Just(Program::Key),
        2 => any::<[u8; 32]>().prop_map(Program::Bytes),
        1 => Just(Program::Zero),
        1 => Just(Program::NegativeZero),
        1 => Just(Program::XTooLarge),
    ]
}

fn schnorr() -> impl Strategy<Value = SchnorrForm> {
    prop_oneof![
        16 => Just(SchnorrForm::Right),
        1 => Just(SchnorrForm::LikeAnnex),
        3 => prop_oneof![Just(vec![]), Just(vec![0]), Just(vec![1]), bytes(0..3)].prop_map(SchnorrForm::Written),
        1 => (any::<Index>(), 0..8u8).prop_map(|(at, bit)| SchnorrForm::Bit { at, bit }),
        1 => any::<Index>().prop_map(SchnorrForm::Cut),
        1 => any::<bool>().prop_map(|r| SchnorrForm::Limit { r }),
        1 => any::<bool>().prop_map(|r| SchnorrForm::Ones { r }),
        1 => bytes(0..3).prop_map(SchnorrForm::OtherAnnex),
        1 => prop_oneof![Just(vec![]), bytes(60..68)].prop_map(SchnorrForm::Bytes),
    ]
}

fn annex() -> impl Strategy<Value = Annex> {
    prop_oneof![
        7 => Just(Annex::None),
        3 => prop_oneof![Just(vec![]), bytes(0..300)].prop_map(Annex::Tagged),
        1 => prop_oneof![Just(vec![]), Just(vec![0x51])].prop_map(Annex::Untagged),
    ]
}

fn leaf() -> impl Strategy<Value = Leaf> {
    prop_oneof![
        5 => Just(Leaf::CheckSig),
        2 => Just(Leaf::CheckSigAdd),
        1 => Just(Leaf::True),
        1 => prop_oneof![Just(0), 1..40usize].prop_map(Leaf::UnknownKey),
        2 => any::<u8>().prop_map(Leaf::Operation),
        1 => bytes(0..10).prop_map(Leaf::Bytes),
    ]
}

/// 0x50 makes a control block look like an annex.
fn leaf_version() -> impl Strategy<Value = u8> {
    prop_oneof![5 => Just(0xc0), 1 => select(&[0x50u8, 0xc2, 0x66, 0x00, 0xfe]), 1 => any::<u8>()]
}

/// 128 is the longest that is allowed.
fn path() -> impl Strategy<Value = usize> {
    prop_oneof![6 => 0..4usize, 1 => 127..130usize]
}

fn control() -> impl Strategy<Value = Control> {
    prop_oneof![
        8 => Just(Control::Right),
        1 => Just(Control::OtherParity),
        1 => any::<u8>().prop_map(Control::OtherVersion),
        1 => (any::<Index>(), any::<u8>()).prop_map(|(at, value)| Control::Byte { at, value }),
        1 => any::<Index>().prop_map(Control::Cut),
        1 => prop_oneof![bytes(1..3), bytes(32..33)].prop_map(Control::More),
    ]
}
