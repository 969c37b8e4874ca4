//! What Bitcoin demands of a header, given those before it (Bitcoin Core: `pow.cpp`, `ContextualCheckBlockHeader`).

use bitcoin::block::Header;
use bitcoin::{BlockHash, CompactTarget, Network, Target};
use causeway_chainspec::{BitcoinHeight, BitcoinStart, RETARGET_INTERVAL};

use super::InvalidHeaders;
use super::chain::Chain;
use crate::tip::median;

/// The least version of a header: lower ones ended with BIP-0065, below every useful start.
pub const MIN_VERSION: i32 = 4;

/// How far a header's time may be after the time of the Causeway block that carries it, in seconds: 2 h.
pub(super) const MAX_FUTURE_SECONDS: u64 = 2 * 60 * 60;

/// How far the first header of a difficulty period may be before its parent, in seconds (BIP-0094).
const MAX_TIMEWARP_SECONDS: u32 = 600;

/// Headers that the median of times is taken over (BIP-0113).
const MEDIAN_TIME_SPAN: u32 = 11;

/// The greatest exponent of a valid compact target: regtest's limit is 0x207fffff.
const COMPACT_EXPONENT_MAX: u32 = 0x20;

/// The headers before one that is checked: the best chain up to a fork point, and a branch above it.
pub(super) struct Past<'a> {
    start: &'a BitcoinStart,
    chain: &'a Chain,
    /// Height of the last header that counts of `chain`.
    fork: u32,
    /// The headers above it.
    side: Vec<Header>,
}

impl<'a> Past<'a> {
    /// The best chain up to and including `fork`, at which it has a header.
    pub(super) fn new(start: &'a BitcoinStart, chain: &'a Chain, fork: u32) -> Self {
        Self { start, chain, fork, side: Vec::new() }
    }

    /// Appends a header.
    pub(super) fn push(&mut self, header: Header) {
        self.side.push(header);
    }

    /// The height of the header that comes next.
    pub(super) fn next_height(&self) -> u32 {
        self.fork + 1 + u32::try_from(self.side.len()).expect("a run fits into a block")
    }

    fn header(&self, height: u32) -> Option<&Header> {
        match height.checked_sub(self.fork + 1) {
            Some(index) => self.side.get(index as usize),
            None => self.chain.get(height).map(|link| &link.header),
        }
    }

    /// The time of the header at `height`, of the ten below the start too.
    fn time(&self, height: u32) -> Option<u32> {
        match self.start.height().to_u32().checked_sub(height) {
            None | Some(0) => self.header(height).map(|header| header.time),
            Some(below) => self.start.earlier_times().iter().rev().nth(below as usize - 1).copied(),
        }
    }

    fn last(&self) -> &Header {
        self.header(self.next_height() - 1).expect("the fork point has a header")
    }

    /// The median of the last eleven times, of all where there are fewer.
    fn median_time(&self) -> u32 {
        let next = self.next_height();
        let times: Vec<u32> = (next.saturating_sub(MEDIAN_TIME_SPAN)..next).filter_map(|h| self.time(h)).collect();
        median(&times)
    }
}

/// Checks the header that follows `past`, apart from how far its time is ahead.
pub(super) fn check(past: &Past<'_>, header: &Header, hash: &BlockHash) -> Result<(), InvalidHeaders> {
    let height = BitcoinHeight(past.next_height());
    let required = required_bits(past, header.time);
    if header.bits != required {
        return Err(InvalidHeaders::Bits { height, got: header.bits, required });
    }
    let median = past.median_time();
    if header.time <= median {
        return Err(InvalidHeaders::TimeTooOld { height, got: header.time, median });
    }
    let earliest = past.last().time.saturating_sub(MAX_TIMEWARP_SECONDS);
    if bip94(past.start.network()) && opens_period(height.to_u32()) && header.time < earliest {
        return Err(InvalidHeaders::TimeWarp { height, got: header.time, min: earliest });
    }
    let version = header.version.to_consensus();
    if version < MIN_VERSION {
        return Err(InvalidHeaders::Version { height, got: version });
    }
    if !header.target().is_met_by(*hash) {
        return Err(InvalidHeaders::ProofOfWork { height, hash: *hash, bits: header.bits });
    }
    Ok(())
}

/// The bits of the header that follows `past` and has this time (Bitcoin Core: `GetNextWorkRequired`).
pub(super) fn required_bits(past: &Past<'_>, time: u32) -> CompactTarget {
    let network = past.start.network();
    let params = network.params();
    let limit = params.max_attainable_target.to_compact_lossy();
    // Regtest: the genesis block has the limit, and nothing ever changes it.
    if params.no_pow_retargeting {
        return limit;
    }
    let height = past.next_height();
    let last = past.last();
    // The start lies on a boundary, so the first header of every period above it is here.
    let period_start = (height - 1) / RETARGET_INTERVAL * RETARGET_INTERVAL;
    let first = past.header(period_start).expect("the start lies on a retarget boundary");
    if opens_period(height) {
        // Testnet4: only the first header of a period is sure to have its real difficulty (BIP-0094).
        let base = if bip94(network) { first.bits } else { last.bits };
        // Clocks may go backwards; the least timespan is a quarter of the target in any case.
        let timespan = last.time.saturating_sub(first.time);
        return CompactTarget::from_next_work_required(base, timespan.into(), params);
    }
    if params.allow_min_difficulty_blocks {
        // Twenty minutes without a block allow one of the least difficulty, and require it. Every other header of the
        // period has the bits of the first: what going back to the last with other bits than the limit finds.
        let late = u64::from(time) > u64::from(last.time) + 2 * params.pow_target_spacing;
        return if late { limit } else { first.bits };
    }
    last.bits
}

/// Whether a header has the proof of work that its own bits ask for, and those are within the network's limit. So the work
/// of such a header is no more than what was spent on it.
pub(super) fn proves_its_bits(network: Network, header: &Header, hash: &BlockHash) -> bool {
    // Larger exponents are outside what Bitcoin allows, and some outside what `Target` can shift.
    if header.bits.to_consensus() >> 24 > COMPACT_EXPONENT_MAX {
        return false;
    }
    let target = header.target();
    target != Target::ZERO && target <= network.params().max_attainable_target && target.is_met_by(*hash)
}

/// Whether BIP-0094 applies.
fn bip94(network: Network) -> bool {
    network == Network::Testnet4
}

fn opens_period(height: u32) -> bool {
    height.is_multiple_of(RETARGET_INTERVAL)
}
