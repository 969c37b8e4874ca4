//! Heights of the two chains, which never mix, and the feerate unit of the peg's rules.

use std::fmt;

use bitcoin::{Amount, Weight};

/// The height of a Causeway block. Block 0 is the identity's genesis block.
///
/// Never converts to or from a [`BitcoinHeight`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Height(pub u32);

/// The height of a block of the Bitcoin network that the peg stands on.
///
/// Never converts to or from a [`Height`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BitcoinHeight(pub u32);

impl Height {
    /// The number itself.
    pub const fn to_u32(self) -> u32 {
        self.0
    }

    /// The height above this one; `None` at `u32::MAX`.
    pub fn next(self) -> Option<Height> {
        self.0.checked_add(1).map(Height)
    }

    /// The height below this one; `None` at 0.
    pub fn prev(self) -> Option<Height> {
        self.0.checked_sub(1).map(Height)
    }

    /// The height `blocks` above this one; `None` past `u32::MAX`.
    pub fn checked_add(self, blocks: u32) -> Option<Height> {
        self.0.checked_add(blocks).map(Height)
    }

    /// How many blocks this height is above `earlier`; `None` if it is below.
    pub fn blocks_since(self, earlier: Height) -> Option<u32> {
        self.0.checked_sub(earlier.0)
    }
}

impl BitcoinHeight {
    /// The number itself.
    pub const fn to_u32(self) -> u32 {
        self.0
    }

    /// The height above this one; `None` at `u32::MAX`.
    pub fn next(self) -> Option<BitcoinHeight> {
        self.0.checked_add(1).map(BitcoinHeight)
    }

    /// The height below this one; `None` at 0.
    pub fn prev(self) -> Option<BitcoinHeight> {
        self.0.checked_sub(1).map(BitcoinHeight)
    }

    /// The height `blocks` above this one; `None` past `u32::MAX`.
    pub fn checked_add(self, blocks: u32) -> Option<BitcoinHeight> {
        self.0.checked_add(blocks).map(BitcoinHeight)
    }

    /// How many blocks this height is above `earlier`; `None` if it is below.
    pub fn blocks_since(self, earlier: BitcoinHeight) -> Option<u32> {
        self.0.checked_sub(earlier.0)
    }

    /// The confirmations of a block at this height under `tip`: the block counts itself as one, and a block above the
    /// tip has none (PEG, preamble).
    pub fn confirmations(self, tip: BitcoinHeight) -> u32 {
        tip.0.checked_sub(self.0).map_or(0, |above| above.saturating_add(1))
    }
}

impl fmt::Display for Height {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for BitcoinHeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A feerate in satoshi per 1,000 virtual bytes.
///
/// Not `bitcoin::FeeRate`, which holds whole satoshi per 1,000 weight units and so cannot express every rate that the
/// peg's rules (PEG section 2) may arrive at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SatPerKvb(pub u64);

impl SatPerKvb {
    /// The fee of `weight` at this rate, rounded up: `ceil(rate x weight / 4000)`. `None` if it does not fit.
    pub fn fee(self, weight: Weight) -> Option<Amount> {
        let fee = (u128::from(self.0) * u128::from(weight.to_wu())).div_ceil(4000);
        u64::try_from(fee).ok().map(Amount::from_sat)
    }
}

impl fmt::Display for SatPerKvb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sat/kvB", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heights_stop_at_their_ends() {
        assert_eq!(Height(7).next(), Some(Height(8)));
        assert_eq!(Height(u32::MAX).next(), None);
        assert_eq!(Height(0).prev(), None);
        assert_eq!(Height(7).prev(), Some(Height(6)));
        assert_eq!(Height(7).checked_add(3), Some(Height(10)));
        assert_eq!(Height(u32::MAX).checked_add(1), None);
        assert_eq!(Height(7).blocks_since(Height(3)), Some(4));
        assert_eq!(Height(3).blocks_since(Height(7)), None);
        assert_eq!(BitcoinHeight(u32::MAX).next(), None);
        assert_eq!(BitcoinHeight(0).prev(), None);
        assert_eq!(BitcoinHeight(u32::MAX).checked_add(1), None);
        assert_eq!(BitcoinHeight(3).blocks_since(BitcoinHeight(7)), None);
        assert_eq!(Height(101).to_string(), "101");
        assert_eq!(BitcoinHeight(850_000).to_string(), "850000");
    }

    #[test]
    fn a_block_counts_itself_as_one_confirmation() {
        assert_eq!(BitcoinHeight(100).confirmations(BitcoinHeight(100)), 1);
        assert_eq!(BitcoinHeight(100).confirmations(BitcoinHeight(105)), 6);
        assert_eq!(BitcoinHeight(100).confirmations(BitcoinHeight(99)), 0);
        assert_eq!(BitcoinHeight(0).confirmations(BitcoinHeight(u32::MAX)), u32::MAX);
    }

    #[test]
    fn fees_round_up_and_never_wrap() {
        assert_eq!(SatPerKvb(1_000).fee(Weight::from_wu(4)), Some(Amount::from_sat(1)));
        assert_eq!(SatPerKvb(1_000).fee(Weight::from_wu(5)), Some(Amount::from_sat(2)));
        assert_eq!(SatPerKvb(1_001).fee(Weight::from_wu(4_000)), Some(Amount::from_sat(1_001)));
        assert_eq!(SatPerKvb(0).fee(Weight::from_wu(400)), Some(Amount::ZERO));
        assert_eq!(SatPerKvb(u64::MAX).fee(Weight::MAX), None);
        assert_eq!(SatPerKvb(1_500).to_string(), "1500 sat/kvB");
    }
}
