//! What the next block needs to know of the chain below it.

use std::sync::Arc;

use bitcoin::block::Header;
use bitcoin::{BlockHash, OutPoint};
use causeway_chainspec::{ChainSpec, Height, LAST_DERIVED_HEIGHT, tagged_hash};

use crate::coin::{Coin, is_unspendable};
use crate::commitment::{LtHash, state_commitment};
use crate::peg::{PegNetwork, PegState};

/// The last height of a chain: a coin's encoding has 31 bits for it.
pub const MAX_HEIGHT: Height = Height((1 << 31) - 1);

/// Block times that the median is taken over (BIP-0113).
const MEDIAN_TIME_SPAN: usize = 11;

/// The head of the chain and the state after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tip {
    height: Height,
    hash: BlockHash,
    /// The times of the last blocks, at most eleven, oldest first.
    times: Vec<u32>,
    coins: LtHash,
    peg: PegState,
    /// Digest of the validator set that decides the next block.
    validators: [u8; 32],
}

impl Tip {
    /// Returns the tip after the derived blocks of a chain, and the coins that they create. Builds the scripts of the
    /// federation, which takes about a second at 11-of-15.
    pub fn after_derived_blocks(spec: &ChainSpec) -> (Self, Vec<(OutPoint, Coin)>) {
        Self::of_derived_blocks(spec, Arc::new(PegNetwork::new(spec)))
    }

    /// Returns the tip after the derived blocks of the chain that `network` was made for.
    pub(crate) fn of_derived_blocks(spec: &ChainSpec, network: Arc<PegNetwork>) -> (Self, Vec<(OutPoint, Coin)>) {
        let mut coins = Vec::new();
        let mut times = Vec::new();
        let mut hash = None;
        for height in 0..=LAST_DERIVED_HEIGHT.to_u32() {
            let block = spec.derived_block(Height(height)).expect("heights 0 to 100 are derived");
            hash = Some(block.block_hash());
            push_time(&mut times, block.header.time);
            // Block 0's coinbase is no coin, as on Bitcoin.
            for transaction in block.txdata.iter().filter(|_| height > 0) {
                let txid = transaction.compute_txid();
                for (vout, output) in (0u32..).zip(&transaction.output) {
                    if !is_unspendable(&output.script_pubkey) {
                        let coin = Coin { output: output.clone(), height: Height(height), coinbase: true };
                        coins.push((OutPoint { txid, vout }, coin));
                    }
                }
            }
        }
        let mut sum = LtHash::empty();
        coins.iter().for_each(|(outpoint, coin)| sum.add(outpoint, coin));
        let tip = Self {
            height: LAST_DERIVED_HEIGHT,
            hash: hash.expect("there is a block 0"),
            times,
            coins: sum,
            peg: PegState::new(network, spec),
            validators: validators_digest(spec),
        };
        (tip, coins)
    }

    /// Returns the tip that a store kept. The caller has read its parts from one consistent state.
    #[cfg(feature = "store")]
    pub(crate) fn restored(
        spec: &ChainSpec,
        height: Height,
        hash: BlockHash,
        times: Vec<u32>,
        coins: LtHash,
        peg: PegState,
    ) -> Self {
        Self { height, hash, times, coins, peg, validators: validators_digest(spec) }
    }

    /// Returns the tip after a block, of which header, coins and peg are given.
    pub(crate) fn child(&self, height: Height, header: &Header, coins: LtHash, peg: PegState) -> Self {
        let mut times = self.times.clone();
        push_time(&mut times, header.time);
        Self { height, hash: header.block_hash(), times, coins, peg, validators: self.validators }
    }

    /// The height of the last block.
    pub fn height(&self) -> Height {
        self.height
    }

    /// The id of the last block.
    pub fn hash(&self) -> BlockHash {
        self.hash
    }

    /// The time of the last block, in seconds of Unix time.
    pub fn time(&self) -> u32 {
        *self.times.last().expect("a chain has a block 0")
    }

    /// The median of the last eleven block times (BIP-0113), in seconds of Unix time.
    pub fn median_time_past(&self) -> u32 {
        median(&self.times)
    }

    /// The hash of all coins.
    pub fn coins(&self) -> &LtHash {
        &self.coins
    }

    /// The peg.
    pub fn peg(&self) -> &PegState {
        &self.peg
    }

    /// What the coinbase of the next block commits to.
    pub fn state_commitment(&self) -> [u8; 32] {
        state_commitment(&self.coins, self.peg.digest(), self.validators)
    }
}

/// Returns the median of at most eleven times, the upper one of an even count (Bitcoin Core: `GetMedianTimePast`).
pub(crate) fn median(times: &[u32]) -> u32 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

/// Appends a block's time and keeps the last eleven.
pub(crate) fn push_time(times: &mut Vec<u32>, time: u32) {
    if times.len() == MEDIAN_TIME_SPAN {
        times.remove(0);
    }
    times.push(time);
}

/// Returns the tagged hash of (key (32) || power (u64 LE)) of every validator, in the chainspec's order.
fn validators_digest(spec: &ChainSpec) -> [u8; 32] {
    let mut bytes = Vec::new();
    for validator in spec.validators() {
        bytes.extend_from_slice(&validator.key.serialize());
        bytes.extend_from_slice(&validator.power.to_le_bytes());
    }
    tagged_hash("causeway/validators/v1", &[&bytes])
}
