//! What Bitcoin Core's standard script flags refuse beyond the rules, as far as it can be said without an interpreter.
//!
//! The interpreter that this node has (Core's, as a library) takes the consensus flags only. So the forms that wallets use
//! (P2PK, P2PKH, bare multisig, P2WPKH, and these inside of P2SH and P2WSH) are judged here by their look:
//!
//! - signatures: strict DER, low S, a known hash type (STRICTENC, LOW_S);
//! - keys: compressed or uncompressed, in witnesses compressed only (STRICTENC, WITNESS_PUBKEYTYPE); of a multisig all
//!   keys are looked at, where Core looks at those that it tries;
//! - scriptSigs of any form: shortest pushes (MINIMALDATA); exactly what the form consumes (CLEANSTACK);
//! - kept for upgrades: leaf versions other than tapscript's, OP_SUCCESS, OP_NOP1 and OP_NOP4 to 10, anywhere in a script
//!   (Core: the last only where it is executed); OP_CODESEPARATOR outside of witnesses (CONST_SCRIPTCODE).
//!
//! Not judged in other scripts, where Core refuses: the encodings of their signatures and keys, MINIMALDATA inside of
//! scripts, MINIMALIF in P2WSH, NULLFAIL, CLEANSTACK in P2SH, tapscript keys of unknown length, a signature found in its
//! own script code. All of these are valid, so a block may hold them.

use bitcoin::blockdata::script::Instruction;
use bitcoin::hashes::Hash;
use bitcoin::opcodes::all::{OP_CODESEPARATOR, OP_NOP1, OP_NOP4, OP_NOP10};
use bitcoin::opcodes::{Class, ClassifyContext};
use bitcoin::secp256k1::ecdsa;
use bitcoin::{Script, TxIn};
use causeway_consensus::Coin;

use super::standard::{ScriptForm, TAPSCRIPT, TaprootSpend, multisig_keys};

const NON_MINIMAL_PUSH: &str = "Data push larger than necessary";
const NOT_DER: &str = "Non-canonical DER signature";
const HIGH_S: &str = "Non-canonical signature: S value is unnecessarily high";
const HASH_TYPE: &str = "Signature hash type missing or not understood";
const KEY_TYPE: &str = "Public key is neither compressed or uncompressed";
const WITNESS_KEY_TYPE: &str = "Using non-compressed keys in segwit";
const CLEAN_STACK: &str = "Stack size must be exactly one after execution";
const UPGRADABLE_NOP: &str = "NOPx reserved for soft-fork upgrades";
const UPGRADABLE_LEAF: &str = "Taproot version reserved for soft-fork upgrades";
const OP_SUCCESS: &str = "OP_SUCCESSx reserved for soft-fork upgrades";
const CODE_SEPARATOR: &str = "Using OP_CODESEPARATOR in non-witness script";

const EVALUATED_FALSE: &str = "Script evaluated without error but finished with a false/empty top stack element";
const PROGRAM_MISMATCH: &str = "Witness program hash mismatch";
const MALLEATED: &str = "Witness requires empty scriptSig";
const MALLEATED_P2SH: &str = "Witness requires only-redeemscript scriptSig";

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Legacy,
    Witness,
}

/// Checks how an input spends its coin. The scriptSig is known to do nothing but push.
///
/// # Errors
/// Core's words for what is not standard.
pub(crate) fn check(input: &TxIn, coin: &Coin) -> Result<(), &'static str> {
    let script = coin.output.script_pubkey.as_script();
    let stack = pushes(&input.script_sig)?;
    if script.is_witness_program() {
        return witness_program(script, input);
    }
    let Some((redeem, stack)) = stack.split_last().filter(|_| script.is_p2sh()) else {
        return by_form(script, &stack, Place::Legacy);
    };
    let redeem = Script::from_bytes(redeem);
    if redeem.is_witness_program() { witness_program(redeem, input) } else { by_form(redeem, stack, Place::Legacy) }
}

/// What a scriptSig pushes. Numbers are shown as no bytes: no form has a use for them.
fn pushes(script_sig: &Script) -> Result<Vec<&[u8]>, &'static str> {
    let push = |instruction| match instruction {
        Ok(Instruction::PushBytes(bytes)) => Ok(bytes.as_bytes()),
        Ok(Instruction::Op(_)) => Ok([].as_slice()),
        Err(_) => Err(NON_MINIMAL_PUSH),
    };
    script_sig.instructions_minimal().map(push).collect()
}

fn witness_program(program: &Script, input: &TxIn) -> Result<(), &'static str> {
    let witness: Vec<&[u8]> = input.witness.iter().collect();
    match (ScriptForm::of(program), witness.as_slice()) {
        (ScriptForm::P2wpkh, [signature, key]) => {
            check_signature(signature)?;
            check_key(key, Place::Witness)
        }
        (ScriptForm::P2wsh, [stack @ .., script]) => by_form(Script::from_bytes(script), stack, Place::Witness),
        (ScriptForm::P2tr, _) => match TaprootSpend::of(&input.witness) {
            TaprootSpend::ScriptPath { script, leaf_version: Some(TAPSCRIPT) } => check_tapscript(script),
            TaprootSpend::ScriptPath { leaf_version: Some(_), .. } => Err(UPGRADABLE_LEAF),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Whatever stands behind an OP_SUCCESS, even what is no script, it makes the script valid (BIP-0342).
fn check_tapscript(script: &Script) -> Result<(), &'static str> {
    let opcodes = script.instructions().map_while(Result::ok).filter_map(|instruction| instruction.opcode());
    for opcode in opcodes {
        if opcode.classify(ClassifyContext::TapScript) == Class::SuccessOp {
            return Err(OP_SUCCESS);
        }
    }
    check_nops(script)
}

fn by_form(script: &Script, stack: &[&[u8]], place: Place) -> Result<(), &'static str> {
    let form = ScriptForm::of(script);
    let consumed = match form {
        ScriptForm::P2pk(_) => 1,
        ScriptForm::P2pkh => 2,
        ScriptForm::Multisig { required, .. } => 1 + required,
        _ => return check_script(script, place),
    };
    match stack.len() {
        // The script fails: the rules say so.
        len if len < consumed => return Ok(()),
        len if len > consumed => return Err(CLEAN_STACK),
        _ => {}
    }
    match form {
        ScriptForm::P2pk(key) => {
            check_signature(stack[0])?;
            check_key(key, place)
        }
        ScriptForm::P2pkh => {
            check_signature(stack[0])?;
            check_key(stack[1], place)
        }
        _ => {
            stack[1..].iter().try_for_each(|signature| check_signature(signature))?;
            let (_, keys) = multisig_keys(script).unwrap_or_default();
            keys.iter().try_for_each(|key| check_key(key, place))
        }
    }
}

fn check_script(script: &Script, place: Place) -> Result<(), &'static str> {
    let mut opcodes = script.instructions().map_while(Result::ok).filter_map(|instruction| instruction.opcode());
    if place == Place::Legacy && opcodes.any(|opcode| opcode == OP_CODESEPARATOR) {
        return Err(CODE_SEPARATOR);
    }
    check_nops(script)
}

fn check_nops(script: &Script) -> Result<(), &'static str> {
    let kept = |code: u8| code == OP_NOP1.to_u8() || (OP_NOP4.to_u8()..=OP_NOP10.to_u8()).contains(&code);
    let mut opcodes = script.instructions().map_while(Result::ok).filter_map(|instruction| instruction.opcode());
    if opcodes.any(|opcode| kept(opcode.to_u8())) { Err(UPGRADABLE_NOP) } else { Ok(()) }
}

/// An ECDSA signature with its hash type. One of no bytes is no signature: the interpreter will say what it is worth.
fn check_signature(signature: &[u8]) -> Result<(), &'static str> {
    let Some((hash_type, der)) = signature.split_last() else { return Ok(()) };
    let parsed = ecdsa::Signature::from_der(der).map_err(|_| NOT_DER)?;
    let mut low = parsed;
    low.normalize_s();
    if low != parsed {
        return Err(HIGH_S);
    }
    // SIGHASH_ALL, NONE or SINGLE, with or without ANYONECANPAY.
    if (1..=3).contains(&(hash_type & 0x7f)) { Ok(()) } else { Err(HASH_TYPE) }
}

fn check_key(key: &[u8], place: Place) -> Result<(), &'static str> {
    let (compressed, uncompressed) = match (key.first(), key.len()) {
        (Some(2 | 3), 33) => (true, false),
        (Some(4), 65) => (false, true),
        _ => (false, false),
    };
    match place {
        _ if !compressed && !uncompressed => Err(KEY_TYPE),
        Place::Witness if !compressed => Err(WITNESS_KEY_TYPE),
        _ => Ok(()),
    }
}

/// Returns Core's words for the failure of an input under the rules, as far as they show from outside; the interpreter's
/// library gives a verdict without a reason.
pub(crate) fn failure(input: &TxIn, coin: &Coin) -> &'static str {
    let script = coin.output.script_pubkey.as_script();
    let stack = pushes(&input.script_sig).unwrap_or_default();
    if script.is_witness_program() {
        return if input.script_sig.is_empty() { program_failure(script, input) } else { MALLEATED };
    }
    let Some((redeem, stack)) = stack.split_last().filter(|_| script.is_p2sh()) else {
        return form_failure(script, &stack);
    };
    let redeem = Script::from_bytes(redeem);
    match redeem {
        _ if redeem.to_p2sh().as_script() != script => EVALUATED_FALSE,
        _ if !redeem.is_witness_program() => form_failure(redeem, stack),
        _ if !stack.is_empty() => MALLEATED_P2SH,
        _ => program_failure(redeem, input),
    }
}

fn program_failure(program: &Script, input: &TxIn) -> &'static str {
    let witness: Vec<&[u8]> = input.witness.iter().collect();
    match (ScriptForm::of(program), witness.as_slice()) {
        (ScriptForm::P2wpkh | ScriptForm::P2wsh | ScriptForm::P2tr, []) => {
            "Witness program was passed an empty witness"
        }
        (ScriptForm::P2wpkh, [signature, key]) => key_hash_failure(&program.as_bytes()[2..], signature, key),
        (ScriptForm::P2wpkh, _) => PROGRAM_MISMATCH,
        (ScriptForm::P2wsh, [stack @ .., script]) => match Script::from_bytes(script) {
            script if script.to_p2wsh().as_script() != program => PROGRAM_MISMATCH,
            script => form_failure(script, stack),
        },
        (ScriptForm::P2tr, [signature]) => match signature {
            signature if ![64, 65].contains(&signature.len()) => "Invalid Schnorr signature size",
            [.., hash_type] if signature.len() == 65 && ![1, 2, 3, 0x81, 0x82, 0x83].contains(hash_type) => {
                "Invalid Schnorr signature hash type"
            }
            _ => "Invalid Schnorr signature",
        },
        _ => "unknown error",
    }
}

fn form_failure(script: &Script, stack: &[&[u8]]) -> &'static str {
    match (ScriptForm::of(script), stack) {
        (ScriptForm::P2pk(_) | ScriptForm::P2pkh | ScriptForm::Multisig { .. }, []) => {
            "Operation not valid with the current stack size"
        }
        (ScriptForm::P2pk(_), [signature]) => signature_failure(&[signature]),
        (ScriptForm::P2pkh, [signature, key]) => key_hash_failure(&script.as_bytes()[3..23], signature, key),
        (ScriptForm::Multisig { required, .. }, [_, signatures @ ..]) if signatures.len() == required => {
            signature_failure(signatures)
        }
        _ => "unknown error",
    }
}

fn key_hash_failure(key_hash: &[u8], signature: &[u8], key: &[u8]) -> &'static str {
    let matches = bitcoin::PubkeyHash::hash(key).as_byte_array() == key_hash;
    if matches { signature_failure(&[signature]) } else { "Script failed an OP_EQUALVERIFY operation" }
}

/// NULLFAIL is Core's policy, and the name that Core gives to every signature that fails.
fn signature_failure(signatures: &[&[u8]]) -> &'static str {
    let all_empty = signatures.iter().all(|signature| signature.is_empty());
    if all_empty { EVALUATED_FALSE } else { "Signature must be zero for failed CHECK(MULTI)SIG operation" }
}
