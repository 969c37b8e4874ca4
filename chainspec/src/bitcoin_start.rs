//! Where the chain's view of Bitcoin starts: one header that every node takes as given (PEG section 2, Headers).

use bitcoin::block::Header;
use bitcoin::constants::genesis_block;
use bitcoin::params::Params as BitcoinParams;
use bitcoin::{Network, Target, Work};

use crate::error::{BitcoinStartError, ChainSpecError};
use crate::key;
use crate::units::BitcoinHeight;

/// The Bitcoin networks that a peg can stand on.
///
/// Coins of every one but `Bitcoin` are worthless, and so is a peg on them: the headers of testnet4, signet and
/// regtest prove little or nothing.
pub const PARENT_NETWORKS: [Network; 4] = [Network::Bitcoin, Network::Testnet4, Network::Signet, Network::Regtest];

/// Bitcoin blocks between two difficulty adjustments. The starting header's height is a multiple of it.
pub const RETARGET_INTERVAL: u32 = 2_016;

/// How many block times a node needs before the starting header for the median of the last 11.
const EARLIER_TIMES: u32 = 10;

/// The greatest exponent of a valid compact target: regtest's limit is 0x207fffff.
const COMPACT_EXPONENT_MAX: u32 = 0x20;

/// Where the chain's view of Bitcoin starts, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BitcoinStart {
    network: Network,
    height: BitcoinHeight,
    header: Header,
    chainwork: Work,
    earlier_times: Vec<u32>,
}

impl BitcoinStart {
    /// The start at this header. `chainwork` is the total work up to and including it; `earlier_times` are the times
    /// of the ten blocks before it, oldest first (none at height 0).
    ///
    /// # Errors
    ///
    /// Not one of [`PARENT_NETWORKS`], a height that is not on a retarget boundary, a target that the network does not
    /// allow, missing proof of work, at height 0 anything but the network's genesis block, a chainwork that no chain of
    /// this height can have, or a wrong number of earlier times.
    pub fn new(
        network: Network,
        height: BitcoinHeight,
        header: Header,
        chainwork: Work,
        earlier_times: Vec<u32>,
    ) -> Result<BitcoinStart, ChainSpecError> {
        if !PARENT_NETWORKS.contains(&network) {
            return Err(BitcoinStartError::Network { got: network }.into());
        }
        key::BITCOIN_HEIGHT.check(height.0.into())?;
        if !height.0.is_multiple_of(RETARGET_INTERVAL) {
            return Err(BitcoinStartError::NotOnRetargetBoundary { got: height }.into());
        }
        check_proof_of_work(network, &header)?;
        if height.0 == 0 {
            let genesis = genesis_block(network).block_hash();
            if header.block_hash() != genesis {
                return Err(BitcoinStartError::NotGenesis { network, got: header.block_hash(), genesis }.into());
            }
        }
        check_chainwork(network, height, &header, chainwork)?;
        let count = height.0.min(EARLIER_TIMES);
        if earlier_times.len() != count as usize {
            return Err(BitcoinStartError::EarlierTimes { got: earlier_times.len(), count }.into());
        }
        for (index, time) in earlier_times.iter().enumerate() {
            key::EARLIER_TIME.element(index).check(u64::from(*time))?;
        }
        Ok(BitcoinStart { network, height, header, chainwork, earlier_times })
    }

    /// The Bitcoin network that the peg stands on, one of [`PARENT_NETWORKS`].
    pub fn network(&self) -> Network {
        self.network
    }

    /// The height of the starting header, a multiple of [`RETARGET_INTERVAL`].
    pub fn height(&self) -> BitcoinHeight {
        self.height
    }

    /// The starting header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The total work up to and including the starting header, below 2^128.
    pub fn chainwork(&self) -> Work {
        self.chainwork
    }

    /// Times of the ten blocks before the starting header, oldest first; none at height 0.
    pub fn earlier_times(&self) -> &[u32] {
        &self.earlier_times
    }
}

/// The least difficulty of a network, as a target.
fn limit(network: Network) -> Target {
    BitcoinParams::new(network).max_attainable_target
}

fn check_proof_of_work(network: Network, header: &Header) -> Result<(), BitcoinStartError> {
    let got = header.bits;
    let limit = limit(network);
    let bad_bits = BitcoinStartError::Bits { got, network, limit: limit.to_compact_lossy() };
    // Larger exponents are outside what Bitcoin allows, and some outside what `Target` can shift.
    if got.to_consensus() >> 24 > COMPACT_EXPONENT_MAX {
        return Err(bad_bits);
    }
    let target = Target::from_compact(got);
    // Bitcoin computes the bits of every header, so no other spelling of the same target occurs.
    if target == Target::ZERO || target > limit || target.to_compact_lossy() != got {
        return Err(bad_bits);
    }
    if !target.is_met_by(header.block_hash()) {
        return Err(BitcoinStartError::ProofOfWork { hash: header.block_hash(), bits: got });
    }
    Ok(())
}

/// Every block before this one has at least the least work of the network, and at height 0 there are none. Below 2^128,
/// so that adding the work of headers never overflows.
fn check_chainwork(
    network: Network,
    height: BitcoinHeight,
    header: &Header,
    got: Work,
) -> Result<(), BitcoinStartError> {
    let own = header.work();
    let least_before = low_u128(limit(network).to_work()).and_then(|least| least.checked_mul(height.0.into()));
    let min = least_before.zip(low_u128(own)).and_then(|(before, own)| before.checked_add(own)).map_or(own, work);
    let allowed = low_u128(got).is_some() && got >= min && (height.0 > 0 || got == own);
    if !allowed {
        return Err(BitcoinStartError::Chainwork { got, min, height });
    }
    Ok(())
}

/// The number, if it is below 2^128.
fn low_u128(work: Work) -> Option<u128> {
    let bytes = work.to_be_bytes();
    let (high, low) = bytes.split_at(16);
    (high == [0; 16]).then(|| u128::from_be_bytes(low.try_into().expect("half of 32 bytes is 16")))
}

fn work(number: u128) -> Work {
    let mut bytes = [0; 32];
    bytes[16..].copy_from_slice(&number.to_be_bytes());
    Work::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests;
