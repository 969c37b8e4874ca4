//! What the wallet's file holds.

use std::collections::BTreeSet;
use std::fmt;

use bdk_wallet::ChangeSet;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize as _;

/// The kind of file.
pub(super) const MAGIC: [u8; 4] = *b"CWWA";

/// The version of [`Content`].
pub(super) const VERSION: u32 = 1;

/// Blocks at the tip that are kept, beside those that hold transactions: syncing starts from one of them.
const TIP_BLOCKS: usize = 12;

/// What the file holds, as JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Content {
    pub(super) version: u32,
    pub(super) mnemonic: String,
    /// The chainspec, as a chainspec file.
    pub(super) chain: String,
    /// REST of the node that is asked.
    pub(super) node: String,
    /// Whether the coins of a mnemonic from elsewhere have still to be looked for.
    pub(super) to_scan: bool,
    /// What is known of the chain.
    pub(super) state: ChangeSet,
    /// The deposit addresses that were shown: the numbers of their addresses and refund keys.
    pub(super) deposits: Vec<DepositRecord>,
}

/// A deposit address that was shown. Its terms follow from these numbers and the mnemonic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DepositRecord {
    /// The number of the address that is credited, and of the refund key.
    pub index: u32,
    /// The epoch whose members hold what is paid.
    pub epoch: u32,
    /// The address on Bitcoin, in words of the file: what was shown.
    pub address: String,
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content").field("deposits", &self.deposits).finish_non_exhaustive()
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        self.mnemonic.zeroize();
    }
}

/// Forgets the blocks that nothing needs: every sync adds ten, and with a block a second that is a lot.
pub(super) fn prune(state: &mut ChangeSet) {
    let held: BTreeSet<u32> = state.tx_graph.anchors.iter().map(|(anchor, _)| anchor.block_id.height).collect();
    let blocks = &mut state.local_chain.blocks;
    blocks.retain(|_, hash| hash.is_some());
    let top: BTreeSet<u32> = blocks.keys().rev().take(TIP_BLOCKS).copied().collect();
    blocks.retain(|height, _| *height == 0 || held.contains(height) || top.contains(height));
}
