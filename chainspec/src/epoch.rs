//! A federation epoch: whose keys hold the coins on Bitcoin, the timelocks of their scripts, and what spending a coin
//! weighs (PEG sections 5 and 6).

use bitcoin::secp256k1::{PublicKey, XOnlyPublicKey};
use bitcoin::{VarInt, Weight};

use crate::error::{ChainSpecError, EpochError};
use crate::key::{self, KeyPath};

/// Most members of a federation, and most recovery keys. The weight of a batch bounds the members further.
const KEYS_MAX: usize = 100;

/// Most t-sized subsets of the members, one leaf each (DESIGN section 4).
pub(crate) const SUBSETS_MAX: u64 = 5_000;

/// What a batch transaction weighs without its inputs and outputs, 12 vB (PEG section 2).
///
/// Version, locktime and two counts are 10 vB, segwit's marker and flag half of one. The rest is reserve.
pub const BATCH_OVERHEAD_WEIGHT: Weight = Weight::from_wu(48);

/// What the largest output of a batch weighs: P2TR or P2WSH, 8 + 1 + 34 bytes.
pub const OUTPUT_WEIGHT: Weight = Weight::from_wu(4 * 43);

/// Timelocks of an epoch in Bitcoin blocks, strictly increasing (PEG section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timelocks {
    /// A deposit can be credited this long after its block.
    pub claim_window: u16,
    /// A coin older than this is moved to a fresh main output.
    pub sweep_age: u16,
    /// N_recovery: a coin older than this can be taken by the recovery keys.
    pub recovery_delay: u16,
    /// N_refund: a deposit older than this can be taken back by its depositor.
    pub refund_delay: u16,
}

/// What a federation epoch is made of. [`Epoch::new`] checks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochParts {
    /// The number of the epoch; the chainspec's is 1.
    pub number: u32,
    /// Public keys of the members, 1 to 100. The order does not matter.
    pub members: Vec<PublicKey>,
    /// Members needed to sign, t: 1 to the number of members.
    pub threshold: u32,
    /// Keys of the recovery path, 1 to 100. The order does not matter.
    pub recovery_keys: Vec<XOnlyPublicKey>,
    /// Recovery keys needed to sign: 1 to the number of recovery keys.
    pub recovery_threshold: u32,
    /// Timelocks of the epoch's scripts.
    pub timelocks: Timelocks,
}

/// A federation epoch, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Epoch {
    parts: EpochParts,
    subsets: u64,
}

impl Epoch {
    /// The epoch of these parts. Sorts the keys.
    ///
    /// # Errors
    ///
    /// Too few or too many keys, a duplicate (members are compared by x coordinate, because the leaves of the script
    /// hold nothing else), a member that is also a recovery key, a threshold of zero or above the number of keys, more
    /// than 5,000 subsets of `threshold` members, or timelocks that do not strictly increase. Keys are named by their
    /// position in `parts`.
    pub fn new(mut parts: EpochParts) -> Result<Epoch, ChainSpecError> {
        let EpochParts { number: _, members, threshold, recovery_keys, recovery_threshold, timelocks } = &mut parts;
        let member_points: Vec<_> = members.iter().map(|member| member.x_only_public_key().0).collect();
        check_count(key::MEMBERS, members.len())?;
        check_count(key::RECOVERY_KEYS, recovery_keys.len())?;
        check_distinct(key::MEMBERS, &member_points)?;
        check_distinct(key::RECOVERY_KEYS, recovery_keys)?;
        if let Some((recovery_key, member)) = first_common(recovery_keys, &member_points) {
            return Err(EpochError::RecoveryKeyIsMember {
                key: key::RECOVERY_KEYS.element(recovery_key),
                member: key::MEMBERS.element(member),
            }
            .into());
        }
        check_threshold(key::THRESHOLD.path, *threshold, members.len())?;
        check_threshold(key::RECOVERY_THRESHOLD.path, *recovery_threshold, recovery_keys.len())?;
        let subsets = subsets(members.len(), *threshold).ok_or(EpochError::TooManySubsets {
            members: members.len(),
            threshold: *threshold,
            max: SUBSETS_MAX,
        })?;
        timelocks.check()?;

        // BIP327 KeySort: lexicographic order of the 33 bytes.
        members.sort_by_key(PublicKey::serialize);
        recovery_keys.sort_by_key(XOnlyPublicKey::serialize);
        Ok(Epoch { parts, subsets })
    }

    /// What the epoch is made of, to change and to build another one from.
    pub fn to_parts(&self) -> EpochParts {
        self.parts.clone()
    }

    /// The number of the epoch; the chainspec's is 1.
    pub fn number(&self) -> u32 {
        self.parts.number
    }

    /// Public keys of the members, sorted as BIP327 KeySort does.
    pub fn members(&self) -> &[PublicKey] {
        &self.parts.members
    }

    /// Members needed to sign, t: 1 to the number of members.
    pub fn threshold(&self) -> u32 {
        self.parts.threshold
    }

    /// Keys of the recovery path, in lexicographic order, as the script holds them.
    pub fn recovery_keys(&self) -> &[XOnlyPublicKey] {
        &self.parts.recovery_keys
    }

    /// Recovery keys needed to sign.
    pub fn recovery_threshold(&self) -> u32 {
        self.parts.recovery_threshold
    }

    /// Timelocks of the epoch's scripts.
    pub fn timelocks(&self) -> Timelocks {
        self.parts.timelocks
    }

    /// The number of t-sized subsets of the members, which is the number of `pk(musig(S))` leaves: 1 to 5,000.
    pub fn subset_count(&self) -> u64 {
        self.subsets
    }

    /// What spending a main output of this epoch weighs at most, over the paths that members sign (PEG section 5).
    pub fn worst_main_input_weight(&self) -> Weight {
        self.worst_input_weight(0)
    }

    /// What spending a deposit to this epoch weighs at most, over the paths that members sign: 382.25 vB at 11-of-15.
    pub fn worst_deposit_input_weight(&self) -> Weight {
        // MAIN_TREE stands one level below the root of a deposit.
        self.worst_input_weight(1)
    }

    /// The heaviest of key path, subset path and `multi_a`, where MAIN_TREE's root has depth `root`.
    fn worst_input_weight(&self, root: u64) -> Weight {
        let subset_depth = root + 1 + u64::from(ceil_log2(self.subsets));
        key_path_weight().max(subset_path_weight(subset_depth)).max(multi_a_weight(
            self.parts.members.len() as u64,
            self.parts.threshold.into(),
            root + 2,
        ))
    }
}

impl Timelocks {
    fn check(self) -> Result<(), EpochError> {
        let order = [
            (&key::CLAIM_WINDOW, self.claim_window),
            (&key::SWEEP_AGE, self.sweep_age),
            (&key::RECOVERY_DELAY, self.recovery_delay),
            (&key::REFUND_DELAY, self.refund_delay),
        ];
        for pair in order.windows(2) {
            let [(shorter, shorter_value), (longer, longer_value)] = [pair[0], pair[1]];
            if shorter_value >= longer_value {
                return Err(EpochError::TimelockOrder {
                    shorter: shorter.path,
                    shorter_value,
                    longer: longer.path,
                    longer_value,
                });
            }
        }
        Ok(())
    }
}

fn check_count(key: KeyPath, got: usize) -> Result<(), EpochError> {
    if got == 0 || got > KEYS_MAX {
        return Err(EpochError::KeyCount { key, got, max: KEYS_MAX });
    }
    Ok(())
}

fn check_threshold(key: KeyPath, got: u32, keys: usize) -> Result<(), EpochError> {
    if got == 0 || got as usize > keys {
        return Err(EpochError::Threshold { key, got, max: keys });
    }
    Ok(())
}

/// Names the first key that stands twice in `keys`.
pub(crate) fn check_distinct(key: KeyPath, keys: &[XOnlyPublicKey]) -> Result<(), ChainSpecError> {
    match first_duplicate(keys) {
        Some((first, second)) => {
            Err(ChainSpecError::DuplicateKey { key: key.element(second), first: key.element(first) })
        }
        None => Ok(()),
    }
}

/// Positions of the first key that stands twice.
pub(crate) fn first_duplicate(keys: &[XOnlyPublicKey]) -> Option<(usize, usize)> {
    keys.iter()
        .enumerate()
        .find_map(|(second, key)| keys[..second].iter().position(|earlier| earlier == key).map(|first| (first, second)))
}

fn first_common(left: &[XOnlyPublicKey], right: &[XOnlyPublicKey]) -> Option<(usize, usize)> {
    left.iter().enumerate().find_map(|(at, key)| right.iter().position(|other| other == key).map(|other| (at, other)))
}

/// C(n, t), if it is at most [`SUBSETS_MAX`]; `t` is at most `n`.
fn subsets(n: usize, t: u32) -> Option<u64> {
    let (n, t) = (n as u64, u64::from(t));
    let mut count = 1;
    // C(n - k + i, i) grows with i up to k, and each step divides exactly.
    let k = t.min(n - t);
    for i in 1..=k {
        count = count * (n - k + i) / i;
        if count > SUBSETS_MAX {
            return None;
        }
    }
    Some(count)
}

/// The depth of `leaves` folded by halving, where the left half takes the larger part.
fn ceil_log2(leaves: u64) -> u32 {
    leaves.next_power_of_two().trailing_zeros()
}

/// Outpoint, empty scriptSig and sequence.
const INPUT_BASE: Weight = Weight::from_wu(4 * (36 + 1 + 4));

/// A signature with the default hash type, or a public key, with its length.
const SIGNATURE: u64 = 1 + 64;

fn sized(bytes: u64) -> u64 {
    VarInt(bytes).size() as u64 + bytes
}

/// Leaf version and internal key, then one hash for each level (BIP341).
fn control_block(depth: u64) -> u64 {
    sized(33 + 32 * depth)
}

/// One signature: 57.5 vB.
fn key_path_weight() -> Weight {
    INPUT_BASE + Weight::from_wu(1 + SIGNATURE)
}

/// One signature, `<key> OP_CHECKSIG`, control block.
fn subset_path_weight(depth: u64) -> Weight {
    INPUT_BASE + Weight::from_wu(1 + SIGNATURE + sized(33 + 1) + control_block(depth))
}

/// t signatures and n - t empty elements; `<x1> OP_CHECKSIG <x2> OP_CHECKSIGADD .. <t> OP_NUMEQUAL`; control block.
fn multi_a_weight(n: u64, t: u64, depth: u64) -> Weight {
    // OP_1 to OP_16, or a push of one byte: thresholds stay below 128.
    let threshold = if t <= 16 { 1 } else { 2 };
    let script = n * (33 + 1) + threshold + 1;
    let elements = VarInt(n + 2).size() as u64;
    INPUT_BASE + Weight::from_wu(elements + t * SIGNATURE + (n - t) + sized(script) + control_block(depth))
}

#[cfg(test)]
mod tests;
