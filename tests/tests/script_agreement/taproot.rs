//! Taproot outputs, signatures and script paths, right and wrong.

use bitcoin::consensus::serialize;
use bitcoin::key::Keypair;
use bitcoin::{ScriptBuf, Transaction, TxOut};
use secp256k1::{Message, Parity, SECP256K1, Scalar, XOnlyPublicKey};

use crate::messages::{self, sha256, tagged};
use crate::plan::{Annex, Control, Leaf, Program, SchnorrForm};
use crate::tamper::flip;

/// The order of the curve's field, which r must be below.
const FIELD: [u8; 32] = secp256k1::constants::FIELD_SIZE;

/// The number of points, which s must be below.
const ORDER: [u8; 32] = secp256k1::constants::CURVE_ORDER;

/// The first byte of an annex.
const ANNEX_TAG: u8 = 0x50;

/// The script with these 32 bytes.
pub(crate) fn output(program: &[u8; 32]) -> ScriptBuf {
    ScriptBuf::from_bytes([&[0x51, 0x20], program.as_slice()].concat())
}

/// The bytes of a key path output.
pub(crate) fn program(keypair: &Keypair, program: &Program) -> [u8; 32] {
    match program {
        Program::Key => keypair.x_only_public_key().0.serialize(),
        Program::Bytes(bytes) => *bytes,
        Program::Zero => [0; 32],
        Program::NegativeZero => {
            let mut bytes = [0; 32];
            bytes[31] = 0x80;
            bytes
        }
        Program::XTooLarge => FIELD,
    }
}

/// The witness element of an annex.
pub(crate) fn annex(annex: &Annex) -> Option<Vec<u8>> {
    match annex {
        Annex::None => None,
        Annex::Tagged(bytes) => Some([&[ANNEX_TAG], bytes.as_slice()].concat()),
        Annex::Untagged(bytes) => Some(bytes.clone()),
    }
}

/// What a signature is made for.
pub(crate) struct Signing<'a> {
    pub(crate) transaction: &'a Transaction,
    pub(crate) spent: &'a [TxOut],
    pub(crate) input: usize,
    pub(crate) hash_type: u8,
    pub(crate) annex: &'a Annex,
    pub(crate) leaf: Option<[u8; 32]>,
}

impl Signing<'_> {
    /// Returns the bytes that stand for a signature.
    pub(crate) fn signature(&self, keypair: &Keypair, form: &SchnorrForm) -> Vec<u8> {
        let signed_annex = match (form, self.annex) {
            (SchnorrForm::OtherAnnex(bytes), _) => Some([&[ANNEX_TAG], bytes.as_slice()].concat()),
            (_, Annex::Tagged(_)) => annex(self.annex),
            _ => None,
        };
        let Self { transaction, spent, input, hash_type, leaf, .. } = *self;
        let message = messages::taproot(transaction, spent, input, hash_type, signed_annex.as_deref(), leaf);
        // About every 256th begins with any given byte.
        let wanted = |signature: &[u8; 64]| !matches!(form, SchnorrForm::LikeAnnex) || signature[0] == ANNEX_TAG;
        let mut signature = (0..u32::MAX)
            .map(|nonce| {
                let mut aux = [0; 32];
                aux[..4].copy_from_slice(&nonce.to_le_bytes());
                SECP256K1.sign_schnorr_with_aux_rand(&Message::from_digest(message), keypair, &aux).serialize()
            })
            .find(wanted)
            .expect("some begin with it")
            .to_vec();
        match form {
            SchnorrForm::Limit { r: true } => signature[..32].copy_from_slice(&FIELD),
            SchnorrForm::Limit { r: false } => signature[32..].copy_from_slice(&ORDER),
            SchnorrForm::Ones { r } => signature[if *r { 0..32 } else { 32..64 }].fill(0xff),
            _ => {}
        }
        match form {
            SchnorrForm::Written(bytes) => signature.extend(bytes),
            _ if hash_type != 0 => signature.push(hash_type),
            _ => {}
        }
        match form {
            SchnorrForm::Bit { at, bit } => flip(&mut signature, at, *bit),
            SchnorrForm::Cut(at) => signature.truncate(at.index(signature.len())),
            SchnorrForm::Bytes(bytes) => signature.clone_from(bytes),
            _ => {}
        }
        signature
    }
}

/// An output that one leaf can spend.
pub(crate) struct Tree {
    pub(crate) script: Vec<u8>,
    pub(crate) leaf_hash: [u8; 32],
    pub(crate) output: [u8; 32],
    pub(crate) control: Vec<u8>,
}

/// Returns the tree with a leaf at the end of a path of other nodes.
pub(crate) fn tree(keypair: &Keypair, internal: XOnlyPublicKey, leaf: &Leaf, version: u8, path: usize) -> Tree {
    let script = leaf_script(keypair, leaf);
    let version = version & 0xfe;
    let leaf_hash = tagged("TapLeaf", &[&[version], &serialize(&script)]);
    let nodes: Vec<[u8; 32]> = (0..path).map(|i| sha256(&i.to_le_bytes())).collect();
    let root = nodes
        .iter()
        .fold(leaf_hash, |hash, node| tagged("TapBranch", &[hash.min(*node).as_slice(), hash.max(*node).as_slice()]));
    let tweak = Scalar::from_be_bytes(tagged("TapTweak", &[&internal.serialize(), &root])).expect("below the order");
    let (output, parity) = internal.add_tweak(SECP256K1, &tweak).expect("not opposite");
    let head = version | u8::from(parity == Parity::Odd);
    let control = [&[head], internal.serialize().as_slice(), nodes.concat().as_slice()].concat();
    Tree { script, leaf_hash, output: output.serialize(), control }
}

fn leaf_script(keypair: &Keypair, leaf: &Leaf) -> Vec<u8> {
    let key = keypair.x_only_public_key().0.serialize();
    match leaf {
        Leaf::CheckSig => [&[0x20], key.as_slice(), &[0xac]].concat(),
        // 0 <key> CHECKSIGADD 1 NUMEQUAL
        Leaf::CheckSigAdd => [&[0x00, 0x20], key.as_slice(), &[0xba, 0x51, 0x9c]].concat(),
        Leaf::True => vec![0x51],
        Leaf::UnknownKey(bytes) => {
            [vec![u8::try_from(*bytes).expect("a short key")], vec![7; *bytes], vec![0xac]].concat()
        }
        Leaf::Operation(operation) => vec![*operation, 0xff],
        Leaf::Bytes(bytes) => bytes.clone(),
    }
}

/// Whether the leaf takes a signature.
pub(crate) fn takes_signature(leaf: &Leaf) -> bool {
    matches!(leaf, Leaf::CheckSig | Leaf::CheckSigAdd | Leaf::UnknownKey(_))
}

/// The control block that is presented.
pub(crate) fn control(mut right: Vec<u8>, form: &Control) -> Vec<u8> {
    match form {
        Control::Right => {}
        Control::OtherParity => right[0] ^= 1,
        Control::OtherVersion(version) => right[0] = (version & 0xfe) | (right[0] & 1),
        Control::Byte { at, value } => *at.get_mut(&mut right) = *value,
        Control::Cut(at) => right.truncate(at.index(right.len())),
        Control::More(bytes) => right.extend(bytes),
    }
    right
}
