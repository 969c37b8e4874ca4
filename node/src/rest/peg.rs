//! `/v1/peg-in...`, `/v1/peg-ins`, `/v1/peg-out...`, `/v1/federation`, `/v1/reserves`, `/v1/batches...`: the way in, the way out, and the
//! accounts.
//!
//! Amounts are satoshi, heights of Bitcoin say so in their names, hashes are shown as Bitcoin shows them. Every answer comes
//! from the state after one final block; what is not final yet comes from this node's own Bitcoin node, and says so.

mod accounts;
mod credits;
mod deposit;
mod request;

use std::sync::Arc;

use bitcoin::hashes::Hash;
use bitcoin::{Amount, BlockHash, Network, OutPoint, Script, ScriptBuf, Txid};
use causeway_chainspec::BitcoinHeight;
use causeway_consensus::peg::PegState;
use causeway_consensus::peg::proof::InclusionProof;
use causeway_consensus::peg::script::DepositTerms;
use schemars::JsonSchema;
use serde::Serialize;

pub(super) use accounts::{
    BatchFilter, BatchJson, BatchesJson, EpochJson, FederationJson, ReservesJson, batch, batches, federation, reserves,
};
pub(super) use credits::{PegInsJson, peg_ins};
pub(super) use deposit::{
    AddressJson, AddressRequest, ClaimJson, ClaimRequest, PegInJson, PegInRefusal, PegInsToJson, claim, new_address,
    peg_in, peg_ins_to,
};
pub(super) use request::{PegOutAddressJson, PegOutJson, peg_out, peg_out_address};

/// What REST asks of this node's Bitcoin node.
#[async_trait::async_trait]
pub trait BitcoinSource: Send + Sync {
    /// Whether it can be relied on, and its tip.
    fn standing(&self) -> SourceStanding;

    /// Looks for what is paid to a deposit address from here on, also after a restart.
    ///
    /// # Errors
    /// The reason, in words. Then the address must not be shown to anybody.
    async fn register(&self, script: ScriptBuf, terms: DepositTerms) -> Result<(), String>;

    /// The deposit at an outpoint, if it was seen: the height of its block, and what it is worth.
    fn deposit(&self, outpoint: &OutPoint) -> Option<(BitcoinHeight, Amount)>;

    /// The deposits that were seen at a script that was registered: in which block, and what each is worth.
    fn deposits_to(&self, script: &Script) -> Vec<(OutPoint, BitcoinHeight, Amount)>;

    /// The height of the block that holds a version of an open batch.
    fn confirmed(&self, txid: &Txid) -> Option<BitcoinHeight>;

    /// The proof that a transaction stands in a block; `None` if it does not.
    ///
    /// # Errors
    /// The reason, in words: the block cannot be had.
    async fn prove(&self, block: BlockHash, txid: Txid) -> Result<Option<InclusionProof>, String>;
}

/// See [`BitcoinSource::standing`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceStanding {
    /// Whether its view is Bitcoin's best chain.
    pub reliable: bool,
    /// What it is doing, in words.
    pub words: String,
    /// Its tip.
    pub tip: (BitcoinHeight, BlockHash),
}

/// The Bitcoin node, if there is one.
pub type Source = Option<Arc<dyn BitcoinSource>>;

/// What happens on Bitcoin about every ten minutes, in seconds; `None` where blocks come as somebody likes.
fn seconds(blocks: u32, network: Network) -> Option<u64> {
    (network != Network::Regtest).then_some(u64::from(blocks) * 600)
}

/// What is so far of the confirmations that something needs.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Confirmations")]
struct ConfirmationsJson {
    confirmations: u32,
    confirmations_needed: u32,
    /// Until then, at ten minutes a block; null on regtest.
    estimated_seconds: Option<u64>,
}

impl ConfirmationsJson {
    /// Of what stands in the block at `height`. The chain adopts headers after they are mined, so one block more is reckoned.
    fn new(peg: &PegState, height: BitcoinHeight, tip: BitcoinHeight) -> Self {
        let confirmations = height.confirmations(tip);
        let needed = peg.network().params().final_depth;
        let left = needed.saturating_sub(confirmations).saturating_add(u32::from(confirmations < needed));
        let network = peg.network().start().network();
        Self { confirmations, confirmations_needed: needed, estimated_seconds: seconds(left, network) }
    }
}

/// An outpoint as Bitcoin shows it.
fn show(outpoint: &OutPoint) -> String {
    outpoint.to_string()
}

/// Zero, which is no block's.
fn no_block() -> BlockHash {
    BlockHash::all_zeros()
}
