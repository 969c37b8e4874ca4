//! Scripts that are dear to run.

use bitcoin::hashes::{Hash, sha256};
use bitcoin::opcodes::all::{
    OP_2DROP, OP_2DUP, OP_3DUP, OP_CHECKSIG, OP_CHECKSIGVERIFY, OP_CODESEPARATOR, OP_DROP, OP_DUP, OP_ENDIF, OP_IF,
    OP_PICK, OP_RIPEMD160, OP_ROLL,
};
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::secp256k1::{Message, SECP256K1, SecretKey};
use bitcoin::{Opcode, PublicKey, ScriptBuf};

/// The largest element of the stack, in bytes.
pub(super) const ELEMENT_BYTES: usize = 520;

/// Operations that a script may hold outside of tapscript.
const OPERATIONS_MAX: usize = 201;

/// Bytes of the longest script outside of tapscript.
const SCRIPT_BYTES_MAX: usize = 10_000;

/// The most elements on the stack.
const STACK_MAX: usize = 1_000;

/// Checks in a script of [`distinct_checks`]: three operations each, and one at the end.
pub(super) const DISTINCT_CHECKS: usize = (OPERATIONS_MAX - 1) / 3;

/// Checks in a script of [`separated_checks`] with padding: four operations each, and three at the end.
pub(super) const SEPARATED_CHECKS: usize = (OPERATIONS_MAX - 3) / 4;

/// Hashes in a script of [`hashes`]: two operations each.
const HASHES: usize = (OPERATIONS_MAX - 1) / 2;

/// The secret key of a number.
pub(super) fn secret_key(number: u64) -> SecretKey {
    let seed = sha256::Hash::hash(&[b"causeway worst key".as_slice(), &number.to_le_bytes()].concat());
    SecretKey::from_slice(seed.as_ref()).expect("a hash is a key")
}

/// The compressed public key of a number.
pub(super) fn public_key(number: u64) -> PublicKey {
    PublicKey::new(secret_key(number).public_key(SECP256K1))
}

/// A signature of full length that signs nothing which is ever checked, with its hash type: checking it takes as long as
/// checking a valid one, and a script outside of tapscript goes on after it.
pub(super) fn wrong_signature() -> Vec<u8> {
    let signature = SECP256K1.sign_ecdsa(&Message::from_digest([7; 32]), &secret_key(0));
    [signature.serialize_der().as_ref(), &[1]].concat()
}

/// A script that checks the one element on the stack against `count` keys, at most [`DISTINCT_CHECKS`].
pub(super) fn distinct_checks(count: usize) -> ScriptBuf {
    let check = |builder: Builder, number: usize| {
        let key = public_key(number as u64);
        builder.push_opcode(OP_DUP).push_key(&key).push_opcode(OP_CHECKSIG).push_opcode(OP_DROP)
    };
    (0..count).fold(Builder::new(), check).push_opcode(OP_DROP).push_int(1).into_script()
}

/// A script that checks the signature and key on the stack `count` times, at most [`SEPARATED_CHECKS`], over another
/// message each time, and is as long as can be up to `bytes`, since every message holds what is left of it.
pub(super) fn separated_checks(count: usize, bytes: usize) -> ScriptBuf {
    let checks = repeated(Builder::new(), count, &[OP_2DUP, OP_CHECKSIG, OP_DROP, OP_CODESEPARATOR]).into_script();
    let mut script = checks.into_bytes();
    script.extend([0x00, OP_IF.to_u8()]);
    // Pushes that never run: they count neither as operations nor on the stack.
    let length = bytes.min(SCRIPT_BYTES_MAX).saturating_sub(3).max(script.len());
    script.resize(length, 0x51);
    script.extend([OP_ENDIF.to_u8(), OP_2DROP.to_u8(), 0x51]);
    ScriptBuf::from_bytes(script)
}

/// The same with signature and key in the script, as a coin that is spent with nothing.
pub(super) fn embedded_checks(count: usize, bytes: usize) -> ScriptBuf {
    let head = Builder::new().push_slice(push(wrong_signature())).push_key(&public_key(1)).into_script();
    let rest = separated_checks(count, bytes.saturating_sub(head.len()).min(SCRIPT_BYTES_MAX - head.len()));
    ScriptBuf::from_bytes([head.into_bytes(), rest.into_bytes()].concat())
}

/// A script that checks the signature and key on the stack so many times, at most [`DISTINCT_CHECKS`], over one message: as
/// dear as over others, since nothing is remembered between checks, and short.
pub(super) fn repeated_checks(count: usize) -> ScriptBuf {
    repeated(Builder::new(), count, &[OP_2DUP, OP_CHECKSIG, OP_DROP]).push_opcode(OP_2DROP).push_int(1).into_script()
}

/// A script that pushes the largest element and hashes it over and over, and leaves one element, as a witness's must.
pub(super) fn witness_hashes() -> ScriptBuf {
    let start = Builder::new().push_slice(push(vec![7; ELEMENT_BYTES]));
    let hashes = repeated(start, DISTINCT_CHECKS, &[OP_DUP, OP_RIPEMD160, OP_DROP]);
    hashes.push_opcode(OP_DROP).push_int(1).into_script()
}

/// A script that pushes the largest element and hashes it as often as a script may.
pub(super) fn hashes() -> ScriptBuf {
    let start = Builder::new().push_slice(push(vec![7; ELEMENT_BYTES])).push_opcode(OP_DUP);
    let hash = |builder: Builder, above: usize| {
        let above = i64::try_from(above).expect("a few");
        builder.push_opcode(OP_RIPEMD160).push_int(above).push_opcode(OP_PICK)
    };
    (1..HASHES).fold(start, hash).push_opcode(OP_RIPEMD160).into_script()
}

/// A tapscript that verifies the signature and key on the stack so many times.
pub(super) fn tapscript_checks(count: usize) -> ScriptBuf {
    repeated(Builder::new(), count, &[OP_2DUP, OP_CHECKSIGVERIFY]).push_opcode(OP_2DROP).push_int(1).into_script()
}

/// A tapscript of about `bytes` bytes that does nothing but hash the three elements on the stack.
pub(super) fn tapscript_hashes(bytes: usize) -> ScriptBuf {
    let round = [OP_3DUP, OP_RIPEMD160, OP_DROP, OP_RIPEMD160, OP_DROP, OP_RIPEMD160, OP_DROP];
    let rounds = repeated(Builder::new(), bytes / round.len(), &round);
    rounds.push_opcode(OP_2DROP).push_opcode(OP_DROP).push_int(1).into_script()
}

/// A tapscript of about `bytes` bytes that does nothing but bring the lowest of [`rolled`] elements to the top.
pub(super) fn tapscript_rolls(bytes: usize) -> ScriptBuf {
    let deepest = i64::try_from(rolled() - 1).expect("a thousand");
    let roll = |builder: Builder| builder.push_int(deepest).push_opcode(OP_ROLL);
    let rolls = (0..bytes / 4).fold(Builder::new(), |builder, _| roll(builder));
    let drops = repeated(rolls, (rolled() - 2) / 2, &[OP_2DROP]);
    drops.push_opcode(OP_DROP).push_opcode(OP_DROP).push_int(1).into_script()
}

/// Elements on the stack of [`tapscript_rolls`], an even number; the number of the lowest one needs room too.
pub(super) fn rolled() -> usize {
    STACK_MAX - 2
}

fn repeated(builder: Builder, count: usize, operations: &[Opcode]) -> Builder {
    (0..count).fold(builder, |builder, _| {
        operations.iter().fold(builder, |builder, operation| builder.push_opcode(*operation))
    })
}

pub(super) fn push(bytes: Vec<u8>) -> PushBytesBuf {
    PushBytesBuf::try_from(bytes).expect("an element is short")
}
