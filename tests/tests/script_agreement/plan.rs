//! What a generated transaction is made from. Where there is a choice, what is right stands first, so that failures
//! shrink towards it.

use causeway_tests::wallet::Kind;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

/// A transaction, and what is done to it after signing.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) version: i32,
    pub(crate) lock_time: u32,
    pub(crate) inputs: Vec<Input>,
    pub(crate) outputs: Vec<(u64, Vec<u8>)>,
    pub(crate) alterations: Vec<Alteration>,
}

/// A coin and how it is spent.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    /// Who has the key.
    pub(crate) owner: u64,
    pub(crate) value: u64,
    pub(crate) vout: u32,
    pub(crate) sequence: u32,
    pub(crate) form: Form,
}

/// The script of a coin and what is presented to spend it.
#[derive(Debug, Clone)]
pub(crate) enum Form {
    /// As the wallet does it.
    Wallet { kind: Kind, hash_type: u8 },
    /// A key hash.
    KeyHash { place: Place, key: KeyForm, signature: SignatureForm, hash_type: u8, dress: Dress },
    /// Taproot's key path.
    KeyPath { program: Program, signature: SchnorrForm, hash_type: u8, annex: Annex, dress: Dress },
    /// Taproot's script path.
    ScriptPath { leaf: Leaf, version: u8, path: usize, control: Control, hash_type: u8, annex: Annex },
    /// P2PKH with a signature of small numbers, by the key for which it is valid if the message is the number one:
    /// SIGHASH_SINGLE without its output.
    SmallSignature { r_bytes: usize, s_bytes: usize, hash_type: u8, nested: bool },
    /// Any witness program, in a script hash or not.
    Witness { version: u8, program: Vec<u8>, nested: bool, elements: Vec<Vec<u8>> },
    /// Any bytes.
    Bytes { script_pubkey: Vec<u8>, script_sig: Vec<u8>, witness: Vec<Vec<u8>> },
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    P2wpkh,
    P2pkh,
    P2shP2wpkh,
}

/// The key that is presented. Its hash is in the script, whatever it is, except for `Other`.
#[derive(Debug, Clone)]
pub(crate) enum KeyForm {
    Compressed,
    Uncompressed,
    /// With the parity of its y, or with the other.
    Hybrid {
        right: bool,
    },
    /// A first byte that is another than the form's.
    Head {
        uncompressed: bool,
        head: u8,
    },
    /// Cut short or made longer.
    Length {
        uncompressed: bool,
        bytes: usize,
    },
    /// 32 bytes that may be no x of the curve.
    X([u8; 32]),
    /// x beyond the field.
    XTooLarge,
    /// Another than the script names.
    Other,
}

/// An ECDSA signature, from the right numbers r and s.
#[derive(Debug, Clone)]
pub(crate) enum SignatureForm {
    Right,
    /// The other s, which is valid too.
    HighS,
    /// Zeros in front of a number.
    Padded {
        r: usize,
        s: usize,
    },
    /// The numbers with these contents in place of the right ones.
    Numbers {
        r: Option<Number>,
        s: Option<Number>,
    },
    /// A byte of the encoding has another value.
    Byte {
        at: Index,
        value: u8,
    },
    /// A bit of the encoding is another.
    Bit {
        at: Index,
        bit: u8,
    },
    /// Bytes after S, counted by the outer length or not.
    Trailing {
        bytes: Vec<u8>,
        counted: bool,
    },
    /// The outer length in two bytes (BER).
    LongLength,
    Cut(Index),
    NoHashType,
    OnlyHashType,
    Empty,
    /// For the message of another hash type than the written one.
    OtherHashType(u8),
    Bytes(Vec<u8>),
}

/// The content of a DER integer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Number {
    NoBytes,
    Zero,
    One,
    /// The right number with its sign bit set.
    Negative,
    /// The order of the group, which is out of range.
    Order,
    /// The order less one, which is in range.
    OrderLessOne,
    /// The right number plus the order.
    PlusOrder,
    /// All ones, in this number of bytes behind a zero.
    Large(usize),
}

/// How what is presented, usually signature and key, stands in the input.
#[derive(Debug, Clone)]
pub(crate) enum Dress {
    Plain,
    /// With OP_PUSHDATA1, 2 or 4, for scriptSigs; 0 is a direct push.
    Pushes([u8; 2]),
    First(Vec<u8>),
    Last(Vec<u8>),
    /// Bytes after the pushes, for scriptSigs.
    Code(Vec<u8>),
    WithoutFirst,
    WithoutLast,
    Swapped,
    /// The witness of a scriptSig, or the scriptSig of a witness.
    OtherSide(Vec<u8>),
    Nothing,
}

/// A Taproot output's 32 bytes.
#[derive(Debug, Clone)]
pub(crate) enum Program {
    Key,
    Bytes([u8; 32]),
    Zero,
    NegativeZero,
    XTooLarge,
}

#[derive(Debug, Clone)]
pub(crate) enum SchnorrForm {
    Right,
    /// As right, and beginning with the annex's tag.
    LikeAnnex,
    /// The hash type is written, or left out, though it should not be.
    Written(Vec<u8>),
    Bit {
        at: Index,
        bit: u8,
    },
    Cut(Index),
    /// r or s at its limit, which is out of range.
    Limit {
        r: bool,
    },
    Ones {
        r: bool,
    },
    /// Signed without the annex that is there, or with one that is not.
    OtherAnnex(Vec<u8>),
    Bytes(Vec<u8>),
}

/// The last witness element.
#[derive(Debug, Clone)]
pub(crate) enum Annex {
    None,
    /// Begins with the annex's tag.
    Tagged(Vec<u8>),
    /// Does not, so it is one element more.
    Untagged(Vec<u8>),
}

#[derive(Debug, Clone)]
pub(crate) enum Leaf {
    CheckSig,
    CheckSigAdd,
    True,
    /// A key of unknown form, valid for any signature.
    UnknownKey(usize),
    /// An operation, then a byte that is none.
    Operation(u8),
    Bytes(Vec<u8>),
}

#[derive(Debug, Clone)]
pub(crate) enum Control {
    Right,
    OtherParity,
    OtherVersion(u8),
    Byte { at: Index, value: u8 },
    Cut(Index),
    More(Vec<u8>),
}

/// What is done after signing.
#[derive(Debug, Clone)]
pub(crate) enum Alteration {
    ScriptSig { input: Index, at: Index, bit: u8 },
    Witness { input: Index, element: Index, at: Index, bit: u8 },
    SpentScript { input: Index, at: Index, bit: u8 },
    SpentValue { input: Index, bit: u8 },
    Sequence { input: Index, bit: u8 },
    OutputValue { output: Index, bit: u8 },
    OutputScript { output: Index, bytes: Vec<u8> },
    DropOutput,
    AddOutput,
    SwapInputs { first: Index, second: Index },
    SwapSpent { first: Index, second: Index },
    SwapWitnesses { first: Index, second: Index },
    PushWitness { input: Index, element: Vec<u8> },
    PopWitness { input: Index },
    ReplaceScriptSig { input: Index, bytes: Vec<u8> },
    Version { bit: u8 },
    LockTime { bit: u8 },
}

/// Any plan.
pub(crate) fn plan() -> impl Strategy<Value = Plan> {
    (
        prop_oneof![Just(2), Just(1), any::<i32>()],
        prop_oneof![Just(0), any::<u32>()],
        vec(input(), 1..=6),
        vec((value(), bytes(0..40)), 0..=4),
        prop_oneof![Just(vec![]), vec(alteration(), 1..=2)],
    )
        .prop_map(|(version, lock_time, inputs, outputs, alterations)| Plan {
            version,
            lock_time,
            inputs,
            outputs,
            alterations,
        })
}

fn input() -> impl Strategy<Value = Input> {
    let sequence = prop_oneof![Just(u32::MAX), Just(0), any::<u32>()];
    (0..4u64, value(), any::<u32>(), sequence, crate::forms::form())
        .prop_map(|(owner, value, vout, sequence, form)| Input { owner, value, vout, sequence, form })
}

/// An amount in the range of money.
fn value() -> impl Strategy<Value = u64> {
    prop_oneof![Just(100_000), 0..=2_100_000_000_000_000u64]
}

pub(crate) fn bytes(length: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), length)
}

fn alteration() -> impl Strategy<Value = Alteration> {
    let index = any::<Index>;
    let bit = || 0..8u8;
    prop_oneof![
        3 => (index(), index(), bit()).prop_map(|(input, at, bit)| Alteration::ScriptSig { input, at, bit }),
        4 => (index(), index(), index(), bit())
            .prop_map(|(input, element, at, bit)| Alteration::Witness { input, element, at, bit }),
        1 => (index(), index(), bit()).prop_map(|(input, at, bit)| Alteration::SpentScript { input, at, bit }),
        1 => (index(), 0..50u8).prop_map(|(input, bit)| Alteration::SpentValue { input, bit }),
        1 => (index(), 0..32u8).prop_map(|(input, bit)| Alteration::Sequence { input, bit }),
        1 => (index(), 0..50u8).prop_map(|(output, bit)| Alteration::OutputValue { output, bit }),
        1 => (index(), bytes(0..30)).prop_map(|(output, bytes)| Alteration::OutputScript { output, bytes }),
        1 => Just(Alteration::DropOutput),
        1 => Just(Alteration::AddOutput),
        1 => (index(), index()).prop_map(|(first, second)| Alteration::SwapInputs { first, second }),
        1 => (index(), index()).prop_map(|(first, second)| Alteration::SwapSpent { first, second }),
        1 => (index(), index()).prop_map(|(first, second)| Alteration::SwapWitnesses { first, second }),
        1 => (index(), prop_oneof![Just(vec![]), Just(vec![0x50]), bytes(0..80)])
            .prop_map(|(input, element)| Alteration::PushWitness { input, element }),
        1 => index().prop_map(|input| Alteration::PopWitness { input }),
        1 => (index(), bytes(0..80)).prop_map(|(input, bytes)| Alteration::ReplaceScriptSig { input, bytes }),
        1 => (0..32u8).prop_map(|bit| Alteration::Version { bit }),
        1 => (0..32u8).prop_map(|bit| Alteration::LockTime { bit }),
    ]
}
