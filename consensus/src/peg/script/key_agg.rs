//! BIP327's KeyAgg: the key of a MuSig2 group.

use causeway_chainspec::tagged_hash;
use secp256k1::{PublicKey, SECP256K1, Scalar, constants};
use thiserror::Error;

/// Why keys have no aggregate.
///
/// Apart from the empty list, no list of keys that does is known: to find one is as hard as to break SHA256 or the curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyAggError {
    /// There is no key.
    #[error("no keys to aggregate: give at least one")]
    NoKeys,
    /// A coefficient is zero, or the sum is the point at infinity.
    #[error("these keys sum to the point at infinity: use other keys")]
    Infinity,
}

/// Returns the aggregate of `keys` in this order, before any tweak (BIP327 KeyAgg). The same key may stand twice.
///
/// KeySort is not done here: the members of an epoch, and every subset of them, are sorted.
///
/// # Errors
///
/// No keys; or [`KeyAggError::Infinity`], which cannot happen.
pub fn key_agg(keys: &[PublicKey]) -> Result<PublicKey, KeyAggError> {
    let first = keys.first().ok_or(KeyAggError::NoKeys)?;
    let serialized: Vec<[u8; 33]> = keys.iter().map(PublicKey::serialize).collect();
    let list_hash = tagged_hash("KeyAgg list", &[serialized.as_flattened()]);
    // The first key that differs from the first of the list, whatever its position: its coefficient is 1.
    let second = keys.iter().find(|key| *key != first);

    let terms = keys
        .iter()
        .zip(&serialized)
        .map(|(key, bytes)| {
            if Some(key) == second {
                return Ok(*key);
            }
            let coefficient = modulo_order(tagged_hash("KeyAgg coefficient", &[&list_hash, bytes]));
            key.mul_tweak(SECP256K1, &coefficient).map_err(|_| KeyAggError::Infinity)
        })
        .collect::<Result<Vec<PublicKey>, KeyAggError>>()?;
    // Only the sum of all is looked at: what lies between may be the point at infinity.
    PublicKey::combine_keys(&terms.iter().collect::<Vec<_>>()).map_err(|_| KeyAggError::Infinity)
}

/// The number modulo the order of the curve; big endian.
fn modulo_order(mut number: [u8; 32]) -> Scalar {
    if let Ok(scalar) = Scalar::from_be_bytes(number) {
        return scalar;
    }
    // Below 2^256, which is less than twice the order: one subtraction is enough.
    let mut borrow = 0;
    for (digit, order) in number.iter_mut().zip(constants::CURVE_ORDER).rev() {
        let (difference, below) = digit.overflowing_sub(order);
        let (difference, below_borrow) = difference.overflowing_sub(borrow);
        *digit = difference;
        borrow = u8::from(below || below_borrow);
    }
    Scalar::from_be_bytes(number).expect("less than the order was left")
}

#[cfg(test)]
mod tests;
