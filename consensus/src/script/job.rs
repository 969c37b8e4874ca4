//! Signature checks that wait for their turn.

use secp256k1::{Message, PublicKey, SECP256K1, XOnlyPublicKey, ecdsa, schnorr};

/// The longest key that ECDSA takes: uncompressed, 65 bytes.
const MAX_KEY_BYTES: usize = 65;

/// One signature to verify. Making it touches no curve point.
#[derive(Debug, Clone)]
pub(super) enum Job {
    /// BIP-0340.
    Schnorr {
        signature: [u8; 64],
        message: [u8; 32],
        /// x-only.
        key: [u8; 32],
    },
    /// ECDSA over a strictly encoded signature.
    Ecdsa { signature: ecdsa::Signature, message: [u8; 32], key: EcdsaKey },
}

/// A serialised key, compressed, uncompressed or hybrid. Whether it is on the curve shows when the job runs.
#[derive(Debug, Clone)]
pub(super) struct EcdsaKey {
    bytes: [u8; MAX_KEY_BYTES],
    len: usize,
}

impl EcdsaKey {
    /// Returns the key, or None if its length fits no form.
    pub(super) fn new(key: &[u8]) -> Option<Self> {
        let mut bytes = [0; MAX_KEY_BYTES];
        bytes.get_mut(..key.len())?.copy_from_slice(key);
        Some(Self { bytes, len: key.len() })
    }
}

impl Job {
    /// Whether the signature is valid.
    pub(super) fn verify(&self) -> bool {
        match self {
            Self::Schnorr { signature, message, key } => {
                let Ok(key) = XOnlyPublicKey::from_slice(key) else { return false };
                let Ok(signature) = schnorr::Signature::from_slice(signature) else { return false };
                SECP256K1.verify_schnorr(&signature, &Message::from_digest(*message), &key).is_ok()
            }
            Self::Ecdsa { signature, message, key } => {
                let Ok(key) = PublicKey::from_slice(&key.bytes[..key.len]) else { return false };
                SECP256K1.verify_ecdsa(&Message::from_digest(*message), signature, &key).is_ok()
            }
        }
    }
}

/// Returns the signature that `der` encodes, with its S made low, or None if the encoding is not strict (BIP-0066) or a
/// number in it is out of range. Consensus takes a high S too; libsecp256k1 verifies low ones only.
pub(super) fn ecdsa_signature(der: &[u8]) -> Option<ecdsa::Signature> {
    if !is_strict_der(der) {
        return None;
    }
    let mut signature = ecdsa::Signature::from_der_lax(der).ok()?;
    signature.normalize_s();
    Some(signature)
}

/// BIP-0066, on a signature without its hash type byte:
/// `0x30 [length] 0x02 [R length] [R] 0x02 [S length] [S]`, R and S minimal and not negative.
fn is_strict_der(der: &[u8]) -> bool {
    if !(8..=72).contains(&der.len()) || der[0] != 0x30 || usize::from(der[1]) != der.len() - 2 {
        return false;
    }
    let Some((_, rest)) = strict_integer(&der[2..]) else { return false };
    matches!(strict_integer(rest), Some((_, [])))
}

/// Splits a minimal, non-negative DER integer off.
fn strict_integer(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let [0x02, length, rest @ ..] = bytes else { return None };
    let (number, rest) = rest.split_at_checked(usize::from(*length))?;
    let minimal = match number {
        [] => false,
        [first, ..] if first & 0x80 != 0 => false,
        [0, second, ..] => second & 0x80 != 0,
        _ => true,
    };
    minimal.then_some((number, rest))
}

#[cfg(test)]
mod tests;
