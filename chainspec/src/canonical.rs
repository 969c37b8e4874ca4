//! The canonical encoding of a chainspec, and its hash.
//!
//! The hash is `tagged_hash("causeway/chainspec/v2", encoding)` as BIP340 defines tagged hashes. Integers are little
//! endian, counts and lengths are `u32`, values of a fixed size stand bare, a name follows its length. Networks
//! are the four bytes of their P2P magic. In order:
//!
//! | field | encoding |
//! |---|---|
//! | `rules` | `u32` |
//! | `name` | length, bytes |
//! | `identity` | magic |
//! | `launch` | 32 bytes |
//! | `genesis_time`, `block_interval_ms` | `u32`, `u32` |
//! | `validators`, sorted by key | count, then key (32 bytes) and power (`u64`) of each |
//! | number of the federation's epoch | `u32` |
//! | `federation.members`, sorted | count, then 33 bytes of each |
//! | `federation.threshold` | `u32` |
//! | `federation.recovery_keys`, sorted | count, then 32 bytes of each |
//! | `federation.recovery_threshold` | `u32` |
//! | `claim_window`, `sweep_age`, `recovery_delay`, `refund_delay` | `u16` each |
//! | the 23 numbers of `[peg]`, in the order of `specs/devnet.toml` | `u64` each |
//! | `bitcoin.network` | magic |
//! | `bitcoin.height` | `u32` |
//! | `bitcoin.header` | 80 bytes |
//! | `bitcoin.chainwork` | 32 bytes, big endian |
//! | `bitcoin.earlier_times` | count, then `u32` of each |

use std::fmt;

use bitcoin::consensus::serialize;
use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::hex::DisplayHex;

use crate::epoch::Timelocks;
use crate::spec::{ChainSpecParts, RULES};

const TAG: &str = "causeway/chainspec/v2";

/// The canonical hash of a chainspec. Shown as hex in the order of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChainSpecHash([u8; 32]);

impl ChainSpecHash {
    /// The hash of checked parts, whose validators are sorted.
    pub(crate) fn of(parts: &ChainSpecParts) -> ChainSpecHash {
        ChainSpecHash(tagged_hash(TAG, &[&encode(parts)]))
    }

    /// The 32 bytes.
    pub fn to_byte_array(self) -> [u8; 32] {
        self.0
    }
}

impl fmt::Display for ChainSpecHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hex().fmt(f)
    }
}

impl fmt::Debug for ChainSpecHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChainSpecHash({self})")
    }
}

/// Returns BIP340's tagged hash of the concatenated `parts`: SHA256 of the tag's hash, twice, and the parts.
pub fn tagged_hash(tag: &str, parts: &[&[u8]]) -> [u8; 32] {
    let tag = sha256::Hash::hash(tag.as_bytes());
    let mut engine = sha256::Hash::engine();
    engine.input(tag.as_byte_array());
    engine.input(tag.as_byte_array());
    parts.iter().for_each(|part| engine.input(part));
    sha256::Hash::from_engine(engine).to_byte_array()
}

fn encode(parts: &ChainSpecParts) -> Vec<u8> {
    // Taken apart in full, so that a new field cannot be left out.
    let ChainSpecParts { name, launch, genesis_time, validators, params, federation, bitcoin } = parts;
    let mut encoder = Encoder(Vec::new());
    encoder.u32(RULES);
    encoder.sized(name.as_bytes());
    encoder.raw(&params.identity.magic().to_bytes());
    encoder.raw(launch);
    encoder.u32(*genesis_time);
    encoder.u32(params.block_interval_ms);

    encoder.count(validators.len());
    for validator in validators {
        encoder.raw(&validator.key.serialize());
        encoder.u64(validator.power);
    }

    encoder.u32(federation.number());
    encoder.count(federation.members().len());
    for member in federation.members() {
        encoder.raw(&member.serialize());
    }
    encoder.u32(federation.threshold());
    encoder.count(federation.recovery_keys().len());
    for recovery_key in federation.recovery_keys() {
        encoder.raw(&recovery_key.serialize());
    }
    encoder.u32(federation.recovery_threshold());
    let Timelocks { claim_window, sweep_age, recovery_delay, refund_delay } = federation.timelocks();
    for timelock in [claim_window, sweep_age, recovery_delay, refund_delay] {
        encoder.raw(&timelock.to_le_bytes());
    }

    for (_, number) in params.peg_numbers() {
        encoder.u64(number);
    }

    encoder.raw(&bitcoin.network().magic().to_bytes());
    encoder.u32(bitcoin.height().to_u32());
    encoder.raw(&serialize(bitcoin.header()));
    encoder.raw(&bitcoin.chainwork().to_be_bytes());
    encoder.count(bitcoin.earlier_times().len());
    for time in bitcoin.earlier_times() {
        encoder.u32(*time);
    }
    encoder.0
}

struct Encoder(Vec<u8>);

impl Encoder {
    fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn u32(&mut self, number: u32) {
        self.raw(&number.to_le_bytes());
    }

    fn u64(&mut self, number: u64) {
        self.raw(&number.to_le_bytes());
    }

    fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).expect("the lists of a checked chainspec are short"));
    }

    fn sized(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.raw(bytes);
    }
}

#[cfg(test)]
mod tests;
