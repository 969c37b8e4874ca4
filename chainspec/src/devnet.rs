//! The built-in network `devnet`: every node of it runs on one machine, and everyone knows every key.
//!
//! **Its keys are public by design.** Whoever reads this page can sign for every validator, every member, the recovery
//! set and the funds. Nothing on a devnet is worth anything, and no key of it may ever hold anything else.

use bitcoin::secp256k1::SecretKey;

use crate::canonical::tagged_hash;

/// The chainspec file of `devnet`.
pub(crate) const TOML: &str = include_str!("../specs/devnet.toml");

/// Role of the validators' keys, indices 0 to 3.
pub const VALIDATOR: &str = "validator";

/// Role of the federation members' keys, indices 0 to 4.
pub const MEMBER: &str = "member";

/// Role of the recovery keys, indices 0 to 2.
pub const RECOVERY: &str = "recovery";

/// Role of the key (index 0) whose P2WPKH address the first deposits are credited to.
pub const FUNDS: &str = "funds";

/// The secret key of a role on `devnet`, which **everyone knows**: `tagged_hash("causeway/devnet/v1", length of role
/// (u32 LE) || role || index (u32 LE))`.
///
/// A chainspec sorts its keys, so the index is not the position in [`ChainSpec::validators`](crate::ChainSpec::validators)
/// or [`Epoch::members`](crate::Epoch::members): compare public keys.
pub fn secret_key(role: &str, index: u32) -> SecretKey {
    SecretKey::from_slice(&label_hash(role, index)).expect("one hash in 2^127 is no secret key")
}

fn label_hash(role: &str, index: u32) -> [u8; 32] {
    let length = u32::try_from(role.len()).expect("a role is a word");
    let message = [&length.to_le_bytes(), role.as_bytes(), &index.to_le_bytes()].concat();
    tagged_hash("causeway/devnet/v1", &[&message])
}

#[cfg(test)]
mod tests;
