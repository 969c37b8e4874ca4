//! Who judges an input, and what there is to verify.

use bitcoin::hashes::{Hash, hash160};
use bitcoin::{Script, Witness};

use super::PreparedTransaction;
use super::job::{EcdsaKey, Job, ecdsa_signature};

/// The first byte of a Taproot annex (BIP-0341).
const ANNEX_TAG: u8 = 0x50;

/// A P2PKH signature of this length could also be the key hash in the script, which FindAndDelete would then remove.
const KEY_HASH_BYTES: usize = 20;

/// The way of an input.
#[derive(Debug)]
pub(super) enum Route {
    /// Valid exactly if this signature is.
    Job(Job),
    /// Invalid, whatever the signature.
    Refused,
    /// For Core's interpreter to say.
    Kernel,
}

/// Returns the way of an input.
pub(super) fn classify(prepared: &PreparedTransaction<'_>, input: usize) -> Route {
    let txin = &prepared.transaction.input[input];
    let script = prepared.spent[input].script_pubkey.as_script();
    let route = if script.is_p2tr() {
        key_path(prepared, input, script, &txin.witness)
    } else if script.is_p2wpkh() {
        p2wpkh(prepared, input, script, &txin.witness)
    } else if script.is_p2pkh() && txin.witness.is_empty() {
        return p2pkh(prepared, input, script, &txin.script_sig);
    } else {
        return Route::Kernel;
    };
    // BIP-0141: a native witness program is spent with an empty scriptSig.
    if txin.script_sig.is_empty() { route } else { Route::Refused }
}

/// BIP-0341, spending by key path: one element, after an annex has been taken off.
fn key_path(prepared: &PreparedTransaction<'_>, input: usize, script: &Script, witness: &Witness) -> Route {
    let Some(key) = script.as_bytes().last_chunk::<32>() else { return Route::Kernel };
    if is_false(key) {
        return Route::Kernel;
    }
    let annex = witness.last().filter(|last| witness.len() >= 2 && last.first() == Some(&ANNEX_TAG));
    let signature = match witness.len() - usize::from(annex.is_some()) {
        0 => return Route::Refused,
        1 => witness.nth(0).unwrap_or_default(),
        _ => return Route::Kernel,
    };
    let Some((signature, hash_type)) = signature.split_first_chunk::<64>() else { return Route::Refused };
    let hash_type = match hash_type {
        [] => 0,
        // The default is never written out.
        [hash_type] if *hash_type != 0 => *hash_type,
        _ => return Route::Refused,
    };
    match prepared.midstates.key_path(prepared.transaction, &prepared.spent, input, hash_type, annex) {
        Some(message) => Route::Job(Job::Schnorr { signature: *signature, message, key: *key }),
        None => Route::Refused,
    }
}

/// A script that pushes nothing but a zero fails before any witness is looked at (Core: `CastToBool`).
fn is_false(program: &[u8; 32]) -> bool {
    let (last, zeros) = program.split_last().expect("32 bytes");
    zeros.iter().all(|byte| *byte == 0) && (*last == 0 || *last == 0x80)
}

/// BIP-0141: signature and key, run as P2PKH.
fn p2wpkh(prepared: &PreparedTransaction<'_>, input: usize, script: &Script, witness: &Witness) -> Route {
    let (2, Some(signature), Some(key)) = (witness.len(), witness.nth(0), witness.nth(1)) else {
        return Route::Refused;
    };
    ecdsa(signature, key, &script.as_bytes()[2..], |hash_type| {
        prepared.midstates.p2wpkh(prepared.transaction, prepared.spent[input], input, hash_type)
    })
}

/// The scriptSig with exactly two direct pushes, signature and key. Everything else is Core's to judge.
fn p2pkh(prepared: &PreparedTransaction<'_>, input: usize, script: &Script, script_sig: &Script) -> Route {
    let Some((signature, rest)) = direct_push(script_sig.as_bytes()) else { return Route::Kernel };
    let Some((key, [])) = direct_push(rest) else { return Route::Kernel };
    if signature.len() == KEY_HASH_BYTES {
        return Route::Kernel;
    }
    ecdsa(signature, key, &script.as_bytes()[3..23], |hash_type| {
        super::sighash::legacy(prepared.transaction, script, input, u32::from(hash_type))
    })
}

/// Splits off what an operation 1 to 75 pushes.
fn direct_push(script: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = script.split_first()?;
    (1..=75).contains(&length).then(|| rest.split_at_checked(usize::from(length)))?
}

/// A key that hashes to `key_hash`, and its signature with a hash type as last byte.
fn ecdsa(signature: &[u8], key: &[u8], key_hash: &[u8], message: impl FnOnce(u8) -> [u8; 32]) -> Route {
    if hash160::Hash::hash(key).as_byte_array() != key_hash {
        return Route::Refused;
    }
    let Some((&hash_type, der)) = signature.split_last() else { return Route::Refused };
    match (ecdsa_signature(der), EcdsaKey::new(key)) {
        (Some(signature), Some(key)) => Route::Job(Job::Ecdsa { signature, message: message(hash_type), key }),
        _ => Route::Refused,
    }
}
