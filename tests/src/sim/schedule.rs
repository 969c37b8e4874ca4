//! Who validates at which height.

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{Keypair, SECP256K1};
use causeway_chainspec::{Height, LAST_DERIVED_HEIGHT, Validator};
use causeway_consensus::bft::{Address, Key, ValidatorSet};

/// Keys, and their powers over the heights.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    keys: Vec<Keypair>,
    powers: Vec<u64>,
    /// After so many heights the set changes.
    changes_every: Option<u32>,
}

impl Schedule {
    pub(super) fn new(powers: &[u64], changes_every: Option<u32>) -> Self {
        let keys = (0..powers.len()).map(keypair).collect();
        Self { keys, powers: powers.to_vec(), changes_every }
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn key(&self, validator: usize) -> Keypair {
        self.keys[validator]
    }

    pub(super) fn address(&self, validator: usize) -> Address {
        Key::address(&self.keys[validator])
    }

    /// The powers at a height; 0 for who is not in the set.
    pub(super) fn powers(&self, height: Height) -> Vec<u64> {
        let Some(every) = self.changes_every else { return self.powers.clone() };
        let epoch = u64::from((height.to_u32() - LAST_DERIVED_HEIGHT.to_u32() - 1) / every);
        let count = self.powers.len() as u64;
        (0..count)
            .zip(&self.powers)
            // One is out at a time, and the powers move too.
            .map(|(place, power)| if (place + epoch) % count == 0 { 0 } else { power + (place * 7 + epoch * 3) % 3 })
            .collect()
    }

    /// The validators of a height, for a chainspec.
    pub(super) fn validators(&self, height: Height) -> Vec<Validator> {
        let pairs = self.keys.iter().zip(self.powers(height)).filter(|(_, power)| *power > 0);
        pairs.map(|(key, power)| Validator { key: key.x_only_public_key().0, power }).collect()
    }

    /// The validators of a height.
    pub(super) fn set(&self, height: Height) -> ValidatorSet {
        ValidatorSet::new(&self.validators(height)).expect("the powers are in bounds")
    }
}

fn keypair(index: usize) -> Keypair {
    let secret = sha256::Hash::hash(format!("causeway simulator key {index}").as_bytes());
    Keypair::from_seckey_slice(SECP256K1, secret.as_byte_array()).expect("a hash is a key")
}
