//! Feerates as fractions, compared exactly.

use std::cmp::Ordering;
use std::fmt;

use bitcoin::{Amount, Weight};
use causeway_chainspec::SatPerKvb;

/// A fee over a virtual size. Two are equal if their quotients are.
#[derive(Debug, Clone, Copy)]
pub struct FeeFraction {
    /// The fee.
    pub fee: Amount,
    /// Virtual bytes, not zero.
    pub vsize: u64,
}

impl FeeFraction {
    /// Returns the feerate, rounded down.
    pub fn rate(self) -> SatPerKvb {
        SatPerKvb((self.scaled(1_000) / u128::from(self.vsize.max(1))).try_into().unwrap_or(u64::MAX))
    }

    fn scaled(self, by: u64) -> u128 {
        u128::from(self.fee.to_sat()) * u128::from(by)
    }
}

impl Ord for FeeFraction {
    fn cmp(&self, other: &Self) -> Ordering {
        self.scaled(other.vsize).cmp(&other.scaled(self.vsize))
    }
}

impl PartialOrd for FeeFraction {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for FeeFraction {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for FeeFraction {}

/// Returns the fee of `vsize` virtual bytes at a rate, rounded up (Core: `CFeeRate::GetFee`).
pub fn fee_at(rate: SatPerKvb, vsize: u64) -> Amount {
    rate.fee(Weight::from_wu(vsize.saturating_mul(4))).unwrap_or(Amount::MAX)
}

/// An amount as Core's messages write it: bitcoins with at least two digits after the point (Core: `FormatMoney`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Money(pub(crate) Amount);

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sat = self.0.to_sat();
        let fraction = format!("{:08}", sat % 100_000_000);
        let digits = fraction.trim_end_matches('0').len().max(2);
        write!(f, "{}.{}", sat / 100_000_000, &fraction[..digits])
    }
}

/// A feerate as Core's messages write it (Core: `CFeeRate::ToString`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct BtcPerKvb(pub(crate) SatPerKvb);

impl fmt::Display for BtcPerKvb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SatPerKvb(rate) = self.0;
        write!(f, "{}.{:08} BTC/kvB", rate / 100_000_000, rate % 100_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fraction(fee: u64, vsize: u64) -> FeeFraction {
        FeeFraction { fee: Amount::from_sat(fee), vsize }
    }

    #[test]
    fn fractions_compare_by_quotient() {
        assert_eq!(fraction(1, 2), fraction(50, 100));
        assert!(fraction(1, 3) < fraction(34, 100));
        assert!(fraction(u64::MAX, 1) > fraction(u64::MAX, 2));
        assert_eq!(fraction(1, 3).rate(), SatPerKvb(333));
    }

    #[test]
    fn fees_round_up_and_amounts_read_as_in_core() {
        assert_eq!(fee_at(SatPerKvb(100), 141), Amount::from_sat(15));
        assert_eq!(fee_at(SatPerKvb(u64::MAX), u64::MAX), Amount::MAX);
        assert_eq!(Money(Amount::from_sat(141)).to_string(), "0.00000141");
        assert_eq!(Money(Amount::from_sat(150_000_000)).to_string(), "1.50");
        assert_eq!(Money(Amount::ZERO).to_string(), "0.00");
        assert_eq!(BtcPerKvb(SatPerKvb(1_234)).to_string(), "0.00001234 BTC/kvB");
    }
}
