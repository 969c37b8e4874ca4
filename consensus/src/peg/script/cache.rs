//! The costly part of an epoch's scripts as bytes, so that a restart need not aggregate every subset again.
//!
//! Form: a checksum (32 bytes), the script pubkey of the main output (34 bytes), then the aggregate key of every subset
//! in order (32 bytes each). The checksum is the tagged hash of the epoch and of everything after it.
//!
//! The check finds damage and bytes of another epoch. It is no defence against somebody who writes the bytes on purpose:
//! whoever can do that to a node's files owns the node.

use causeway_chainspec::{Epoch, Timelocks, tagged_hash};
use secp256k1::XOnlyPublicKey;
use thiserror::Error;

use super::{EpochScripts, subset_key, subsets_of};

const TAG: &str = "causeway/epoch-scripts/v1";

const CHECKSUM: usize = 32;
const MAIN_SCRIPT: usize = 34;
const KEY: usize = 32;

/// Aggregates that are computed again, out of all: a change of the aggregation is found, which a checksum cannot see.
const SPOT_CHECKS: usize = 8;

/// Why bytes are not the scripts of an epoch. The answer is always to build the scripts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CachedScriptsError {
    /// Another epoch has another number of subsets, or bytes are missing.
    #[error("cached scripts have {got} bytes where the epoch has {expected}: build them again")]
    Length {
        /// Bytes given.
        got: usize,
        /// Bytes of this epoch's scripts.
        expected: usize,
    },
    /// The checksum is not that of this epoch and these bytes.
    #[error("cached scripts are damaged or of another epoch: build them again")]
    Checksum,
    /// The aggregate key of a subset is no point of the curve.
    #[error("cached key {position} is no point of the curve: build the scripts again")]
    Key {
        /// Position of the subset.
        position: usize,
    },
    /// The aggregate key of a subset is another one.
    #[error("cached key {position} is not the aggregate of its members: build the scripts again")]
    Aggregate {
        /// Position of the subset.
        position: usize,
    },
    /// The keys do not make the main output.
    #[error("cached keys do not make the cached main output: build the scripts again")]
    MainScript,
}

impl EpochScripts {
    /// The bytes that [`EpochScripts::decode`] takes: 66 and 32 for each subset.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = self.main_script.to_bytes();
        self.subset_keys.iter().for_each(|key| body.extend_from_slice(&key.serialize()));
        let mut bytes = checksum(&self.epoch, &body).to_vec();
        bytes.append(&mut body);
        bytes
    }

    /// The scripts of `epoch` from what [`EpochScripts::encode`] returned.
    ///
    /// # Errors
    ///
    /// The bytes are damaged, of another epoch, or made by another aggregation.
    pub fn decode(epoch: &Epoch, bytes: &[u8]) -> Result<Self, CachedScriptsError> {
        let subsets = usize::try_from(epoch.subset_count()).expect("at most 5,000");
        let expected = CHECKSUM + MAIN_SCRIPT + subsets * KEY;
        let wrong_length = CachedScriptsError::Length { got: bytes.len(), expected };
        if bytes.len() != expected {
            return Err(wrong_length);
        }
        let (stored, body) = bytes.split_first_chunk::<CHECKSUM>().ok_or(wrong_length)?;
        if *stored != checksum(epoch, body) {
            return Err(CachedScriptsError::Checksum);
        }
        let (main_script, keys) = body.split_at(MAIN_SCRIPT);
        let subset_keys = keys
            .chunks_exact(KEY)
            .enumerate()
            .map(|(position, key)| XOnlyPublicKey::from_slice(key).map_err(|_| CachedScriptsError::Key { position }))
            .collect::<Result<Vec<_>, _>>()?;
        let step = subsets.div_ceil(SPOT_CHECKS);
        for (position, subset) in subsets_of(epoch).enumerate().step_by(step) {
            if subset_keys[position] != subset_key(epoch, &subset) {
                return Err(CachedScriptsError::Aggregate { position });
            }
        }
        let scripts = Self::from_subset_keys(epoch, subset_keys);
        if scripts.main_script().as_bytes() != main_script {
            return Err(CachedScriptsError::MainScript);
        }
        Ok(scripts)
    }
}

/// Every field of the epoch is in front, lists after their length.
fn checksum(epoch: &Epoch, body: &[u8]) -> [u8; CHECKSUM] {
    let Timelocks { claim_window, sweep_age, recovery_delay, refund_delay } = epoch.timelocks();
    let count = |keys: usize| u32::try_from(keys).expect("at most 100 keys").to_le_bytes();
    let mut bytes = Vec::new();
    bytes.extend(epoch.number().to_le_bytes());
    bytes.extend(count(epoch.members().len()));
    epoch.members().iter().for_each(|key| bytes.extend(key.serialize()));
    bytes.extend(epoch.threshold().to_le_bytes());
    bytes.extend(count(epoch.recovery_keys().len()));
    epoch.recovery_keys().iter().for_each(|key| bytes.extend(key.serialize()));
    bytes.extend(epoch.recovery_threshold().to_le_bytes());
    for timelock in [claim_window, sweep_age, recovery_delay, refund_delay] {
        bytes.extend(timelock.to_le_bytes());
    }
    tagged_hash(TAG, &[&bytes, body])
}

#[cfg(test)]
mod tests;
