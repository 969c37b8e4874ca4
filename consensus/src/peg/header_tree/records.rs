//! The header tree as records.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::hashes::Hash;
use causeway_chainspec::{BitcoinHeight, BitcoinStart};
use thiserror::Error;

use super::chain::Link;
use super::rules::{self, Past};
use super::{Branch, HeaderTree, InvalidHeaders};
use crate::peg::record::RecordKey;

/// Record of a best-chain header: kind || height (u32, big endian) -> header (80 bytes), from the starting header on.
pub const KIND_BEST: u8 = 0x01;
/// Record of a header off the best chain: kind || hash (32, internal byte order) -> height (u32, little endian) || header
/// (80 bytes).
pub const KIND_BRANCH: u8 = 0x02;
/// Record of the highest tip ever held: kind -> height (u32, little endian).
pub const KIND_HIGHEST: u8 = 0x03;

/// Why records are no header tree. The store is damaged, or belongs to another chainspec.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DamagedHeaders {
    /// A key of another kind or length, or a value of a wrong length.
    #[error("the record with key {key:02x?} and {bytes} bytes is none of a header")]
    Record {
        /// The record's key.
        key: RecordKey,
        /// Length of its value.
        bytes: usize,
    },
    /// Two records with one key.
    #[error("the record with key {key:02x?} occurs twice")]
    Repeated {
        /// The key.
        key: RecordKey,
    },
    /// The lowest best-chain header is not the chainspec's.
    #[error("the best chain does not begin with the chainspec's starting header at height {height}")]
    Start {
        /// Height of the starting header.
        height: BitcoinHeight,
    },
    /// No header at a height below others.
    #[error("the best chain has no header at height {height}")]
    Gap {
        /// The height.
        height: BitcoinHeight,
    },
    /// A header that does not follow the one below it.
    #[error("header {height} does not name the one below it as its parent")]
    Link {
        /// The header's height.
        height: BitcoinHeight,
    },
    /// A best-chain header that breaks a rule.
    #[error("the best chain holds a header that could not have been accepted")]
    Rule(#[from] InvalidHeaders),
    /// A header off the best chain that is too deep, has no proof of work or no parent, or is on the best chain.
    #[error("the branch header {hash} at height {height} has no place")]
    Branch {
        /// The hash in the key.
        hash: BlockHash,
        /// The height in the value.
        height: BitcoinHeight,
    },
    /// Not the height of the highest header known.
    #[error("the record of the highest tip is {got:?}, which must be {height}")]
    Highest {
        /// The height in the record; `None` without one.
        got: Option<u32>,
        /// The height of the highest header.
        height: BitcoinHeight,
    },
}

pub(super) fn best_key(height: u32) -> RecordKey {
    [&[KIND_BEST][..], &height.to_be_bytes()].concat()
}

pub(super) fn branch_key(hash: &BlockHash) -> RecordKey {
    [&[KIND_BRANCH][..], hash.as_byte_array()].concat()
}

pub(super) fn header_value(header: &Header) -> Vec<u8> {
    serialize(header)
}

pub(super) fn branch_value(branch: &Branch) -> Vec<u8> {
    [&branch.height.to_le_bytes()[..], &serialize(&branch.header)].concat()
}

pub(super) fn highest_value(height: u32) -> Vec<u8> {
    height.to_le_bytes().to_vec()
}

/// The parts of a tree as records hold them, unchecked.
#[derive(Default)]
struct Parts {
    best: BTreeMap<u32, Header>,
    branches: BTreeMap<BlockHash, Branch>,
    highest: Option<u32>,
}

impl Parts {
    fn add(&mut self, key: RecordKey, value: Vec<u8>) -> Result<(), DamagedHeaders> {
        let bytes = value.len();
        let (kind, id) = key.split_first().ok_or(DamagedHeaders::Record { key: key.clone(), bytes })?;
        let fresh = match *kind {
            KIND_BEST => id
                .try_into()
                .ok()
                .zip(deserialize(&value).ok())
                .map(|(height, header)| self.best.insert(u32::from_be_bytes(height), header).is_none()),
            KIND_BRANCH => <[u8; 32]>::try_from(id)
                .ok()
                .zip(branch(&value))
                .map(|(hash, branch)| self.branches.insert(BlockHash::from_byte_array(hash), branch).is_none()),
            KIND_HIGHEST if id.is_empty() => value
                .as_slice()
                .try_into()
                .ok()
                .map(|height| self.highest.replace(u32::from_le_bytes(height)).is_none()),
            _ => None,
        };
        match fresh {
            Some(true) => Ok(()),
            Some(false) => Err(DamagedHeaders::Repeated { key }),
            None => Err(DamagedHeaders::Record { key, bytes }),
        }
    }
}

fn branch(value: &[u8]) -> Option<Branch> {
    let (height, header) = value.split_first_chunk()?;
    Some(Branch { height: u32::from_le_bytes(*height), header: deserialize(header).ok()? })
}

impl HeaderTree {
    /// Every record of the tree.
    pub fn records(&self) -> impl Iterator<Item = (RecordKey, Vec<u8>)> {
        let best = self.chain.iter().map(|(height, link)| (best_key(height), header_value(&link.header)));
        let branches = self.branches.iter().map(|(hash, branch)| (branch_key(hash), branch_value(branch)));
        best.chain(branches).chain([(vec![KIND_HIGHEST], highest_value(self.highest))])
    }

    /// The tree of which these are all records, in any order. Checks the best chain by Bitcoin's rules once more and
    /// computes its work: about 1 µs for each header.
    ///
    /// # Errors
    /// [`DamagedHeaders`].
    pub fn restore(
        start: &BitcoinStart,
        fork_depth: u32,
        records: impl IntoIterator<Item = (RecordKey, Vec<u8>)>,
    ) -> Result<Self, DamagedHeaders> {
        let mut parts = Parts::default();
        for (key, value) in records {
            parts.add(key, value)?;
        }
        let mut tree = Self::new(start, fork_depth);
        tree.restore_best(parts.best)?;
        let branch_heights = parts.branches.values().map(|branch| branch.height);
        let height = branch_heights.chain([tree.chain.tip_height()]).max().expect("the tip is one");
        if parts.highest != Some(height) {
            return Err(DamagedHeaders::Highest { got: parts.highest, height: BitcoinHeight(height) });
        }
        tree.highest = height;
        tree.branches = Arc::new(parts.branches);
        tree.check_branches()?;
        Ok(tree)
    }

    fn restore_best(&mut self, best: BTreeMap<u32, Header>) -> Result<(), DamagedHeaders> {
        let start = self.start.height();
        let mut headers = best.into_iter();
        if headers.next() != Some((start.to_u32(), *self.start.header())) {
            return Err(DamagedHeaders::Start { height: start });
        }
        let mut own_work = (self.start.header().bits, self.start.header().work());
        for (height, header) in headers {
            let next = self.chain.tip_height() + 1;
            if height != next {
                return Err(DamagedHeaders::Gap { height: BitcoinHeight(next) });
            }
            if header.prev_blockhash != self.chain.tip_hash() {
                return Err(DamagedHeaders::Link { height: BitcoinHeight(height) });
            }
            rules::check(&Past::new(&self.start, &self.chain, height - 1), &header, &header.block_hash())?;
            // Bits change once a period, and the division is most of the cost.
            if own_work.0 != header.bits {
                own_work = (header.bits, header.work());
            }
            self.chain.push(Link { header, work: self.chain.tip().work + own_work.1 });
        }
        Ok(())
    }

    fn check_branches(&self) -> Result<(), DamagedHeaders> {
        let lowest = self.highest.saturating_sub(self.fork_depth);
        for (hash, branch) in &*self.branches {
            let Branch { height, header } = branch;
            let parent = &header.prev_blockhash;
            let has_parent = height.checked_sub(1).is_some_and(|below| {
                self.chain.hash_at(below) == Some(*parent)
                    || self.branches.get(parent).is_some_and(|branch| branch.height == below)
                    // Its parent was dropped with the last step of the highest tip.
                    || *height == lowest
            });
            let in_place = header.block_hash() == *hash
                && rules::proves_its_bits(self.start.network(), header, hash)
                && has_parent
                && *height >= lowest
                && *height > self.start.height().to_u32()
                && self.chain.hash_at(*height) != Some(*hash);
            if !in_place {
                return Err(DamagedHeaders::Branch { hash: *hash, height: BitcoinHeight(*height) });
            }
        }
        Ok(())
    }
}
