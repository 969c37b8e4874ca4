//! What was seen on Bitcoin, and in which block.

use std::collections::BTreeMap;

use bitcoin::{Amount, BlockHash, OutPoint, ScriptBuf, Txid};
use causeway_chainspec::BitcoinHeight;
use serde::{Deserialize, Serialize};

/// Where a transaction stands on the best chain. With the block this is what an inclusion proof takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The block.
    pub block: BlockHash,
    /// Its height.
    #[serde(with = "height_number")]
    pub height: BitcoinHeight,
    /// The transaction's index in the block; the coinbase has 0.
    pub index: u32,
}

impl Place {
    /// Confirmations of the transaction under this tip, 1 in the tip itself.
    pub fn confirmations(&self, tip: BitcoinHeight) -> u32 {
        self.height.confirmations(tip)
    }
}

/// An output that pays a watched script.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deposit {
    /// The script.
    pub script_pubkey: ScriptBuf,
    /// The output's value.
    pub value: Amount,
    /// Where the transaction stands that made it.
    pub place: Place,
}

/// What spent a watched outpoint, or a deposit that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spend {
    /// The transaction that spends it.
    pub by: Txid,
    /// Where that stands.
    pub place: Place,
}

/// Everything that was seen of what is watched, on the best chain as the tip of the same view has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub(super) deposits: BTreeMap<OutPoint, Deposit>,
    pub(super) spends: BTreeMap<OutPoint, Spend>,
    pub(super) confirmed: BTreeMap<Txid, Place>,
}

impl Facts {
    /// The deposits to watched scripts, spent ones included, by outpoint.
    pub fn deposits(&self) -> &BTreeMap<OutPoint, Deposit> {
        &self.deposits
    }

    /// What spent watched outpoints and deposits, by the outpoint spent.
    pub fn spends(&self) -> &BTreeMap<OutPoint, Spend> {
        &self.spends
    }

    /// Where watched transactions are confirmed, by txid.
    pub fn confirmed(&self) -> &BTreeMap<Txid, Place> {
        &self.confirmed
    }

    /// How many facts there are.
    pub fn count(&self) -> usize {
        self.deposits.len() + self.spends.len() + self.confirmed.len()
    }

    /// How many of these are not among `known`.
    pub(super) fn count_new(&self, known: &Facts) -> usize {
        self.deposits.keys().filter(|outpoint| !known.deposits.contains_key(outpoint)).count()
            + self.spends.keys().filter(|outpoint| !known.spends.contains_key(outpoint)).count()
            + self.confirmed.keys().filter(|txid| !known.confirmed.contains_key(*txid)).count()
    }

    /// Withdraws what was seen above this height.
    pub(super) fn withdraw_above(&mut self, height: BitcoinHeight) {
        self.deposits.retain(|_, deposit| deposit.place.height <= height);
        self.spends.retain(|_, spend| spend.place.height <= height);
        self.confirmed.retain(|_, place| place.height <= height);
    }
}

/// Heights as plain numbers.
mod height_number {
    use super::BitcoinHeight;
    use serde::{Deserialize as _, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde asks for")]
    pub(super) fn serialize<S: Serializer>(height: &BitcoinHeight, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(height.0)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BitcoinHeight, D::Error> {
        u32::deserialize(deserializer).map(BitcoinHeight)
    }
}
