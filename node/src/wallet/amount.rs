//! Amounts and feerates as they are typed: always with their unit.

use std::fmt;
use std::str::FromStr;

use bitcoin::{Amount, Denomination, FeeRate};

/// An amount with its unit: `0.1 BTC` or `1000 sat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AmountArg(pub Amount);

/// Text that is no amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// A number alone: a wrong guess of its unit would cost a hundred million times as much.
    #[error("an amount without its unit: write \"0.1 BTC\" or \"1000 sat\"")]
    NoUnit,
    /// No such unit.
    #[error("an amount in an unknown unit: write \"0.1 BTC\" or \"1000 sat\"")]
    OtherUnit,
    /// No number, or none of that unit.
    #[error("not a number with at most 8 decimals before BTC, or none before sat: write \"0.1 BTC\" or \"1000 sat\"")]
    NotANumber,
    /// Nothing, or more than there is.
    #[error("not above 0 and at most 21000000 BTC: write \"0.1 BTC\" or \"1000 sat\"")]
    OutOfRange,
}

impl FromStr for AmountArg {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        let (number, unit) = split(text);
        let denomination = match unit.to_ascii_lowercase().as_str() {
            "btc" => Denomination::Bitcoin,
            "sat" | "sats" => Denomination::Satoshi,
            "" => return Err(AmountError::NoUnit),
            _ => return Err(AmountError::OtherUnit),
        };
        if number.starts_with('-') {
            return Err(AmountError::OutOfRange);
        }
        let amount = Amount::from_str_in(number, denomination).map_err(|_| AmountError::NotANumber)?;
        if amount == Amount::ZERO || amount > Amount::MAX_MONEY {
            return Err(AmountError::OutOfRange);
        }
        Ok(Self(amount))
    }
}

/// The number and what follows it, without blanks between.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    (text[..end].trim_end(), &text[end..])
}

/// A feerate with its unit: `2 sat/vB`, with at most three decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeeRateArg(pub FeeRate);

/// Most of a feerate, in sat/vB: what is more is a mistake.
pub const FEE_RATE_MAX_SAT_PER_VB: u64 = 10_000;

/// Text that is no feerate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a feerate of 1 to {FEE_RATE_MAX_SAT_PER_VB} sat/vB: write \"2 sat/vB\"")]
pub struct FeeRateError;

impl FromStr for FeeRateArg {
    type Err = FeeRateError;

    fn from_str(text: &str) -> Result<Self, FeeRateError> {
        let (number, unit) = split(text);
        if !matches!(unit.to_ascii_lowercase().as_str(), "sat/vb" | "sats/vb") {
            return Err(FeeRateError);
        }
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(part) || part.len() > 3 {
            return Err(FeeRateError);
        }
        // Thousandths of sat/vB are sat/kvB, four of which are sat/kwu; rounded up.
        let whole: u64 = whole.parse().map_err(|_| FeeRateError)?;
        let part: u64 = format!("{part:0<3}").parse().map_err(|_| FeeRateError)?;
        let per_kvb = whole.checked_mul(1_000).and_then(|kvb| kvb.checked_add(part)).ok_or(FeeRateError)?;
        if !(1_000..=FEE_RATE_MAX_SAT_PER_VB * 1_000).contains(&per_kvb) {
            return Err(FeeRateError);
        }
        Ok(Self(FeeRate::from_sat_per_kwu(per_kvb.div_ceil(4))))
    }
}

/// A feerate as it is shown: `1.25 sat/vB`, rounded to hundredths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShownFeeRate(pub FeeRate);

impl ShownFeeRate {
    /// In sat/vB, for JSON.
    pub fn sat_per_vb(self) -> f64 {
        let hundredths = self.hundredths();
        f64::from(u32::try_from(hundredths).unwrap_or(u32::MAX)) / 100.0
    }

    fn hundredths(self) -> u64 {
        // 1,000 weight units are 250 vbytes: sat/kwu / 250 * 100.
        self.0.to_sat_per_kwu().saturating_mul(2).saturating_add(2) / 5
    }
}

impl fmt::Display for ShownFeeRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hundredths = self.hundredths();
        write!(f, "{}.{:02} sat/vB", hundredths / 100, hundredths % 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_says_its_unit() {
        for (text, sat) in [
            ("0.1 BTC", 10_000_000),
            ("1000 sat", 1_000),
            ("1sat", 1),
            ("0.00000001btc", 1),
            (" 2  BTC ", 200_000_000),
            ("7 sats", 7),
            ("21000000 BTC", 2_100_000_000_000_000),
        ] {
            assert_eq!(text.parse(), Ok(AmountArg(Amount::from_sat(sat))), "{text}");
        }
        for (text, error) in [
            ("1", AmountError::NoUnit),
            ("0.5", AmountError::NoUnit),
            ("", AmountError::NoUnit),
            ("1 mBTC", AmountError::OtherUnit),
            ("1e8 sat", AmountError::OtherUnit),
            ("1 eth", AmountError::OtherUnit),
            ("sat", AmountError::NotANumber),
            ("1.5 sat", AmountError::NotANumber),
            ("0.000000001 BTC", AmountError::NotANumber),
            ("1,5 BTC", AmountError::NotANumber),
            ("+ 1 BTC", AmountError::NotANumber),
            ("0 sat", AmountError::OutOfRange),
            ("-1 BTC", AmountError::OutOfRange),
            ("21000000.00000001 BTC", AmountError::OutOfRange),
        ] {
            assert_eq!(text.parse::<AmountArg>(), Err(error), "{text}");
        }
        assert!(AmountError::NoUnit.to_string().contains("0.1 BTC"));
    }

    #[test]
    fn a_feerate_says_its_unit() {
        for (text, per_kwu) in [
            ("1 sat/vB", 250),
            ("2sat/vb", 500),
            ("1.5 sat/vB", 375),
            ("1.001 sat/vB", 251),
            ("10000 sat/vB", 2_500_000),
        ] {
            assert_eq!(text.parse(), Ok(FeeRateArg(FeeRate::from_sat_per_kwu(per_kwu))), "{text}");
        }
        for text in [
            "1",
            "1 sat",
            "0 sat/vB",
            "0.9 sat/vB",
            "10001 sat/vB",
            "1.0001 sat/vB",
            "-1 sat/vB",
            ". sat/vB",
            "1e3 sat/vB",
        ] {
            assert_eq!(text.parse::<FeeRateArg>(), Err(FeeRateError), "{text}");
        }
        assert_eq!(ShownFeeRate(FeeRate::from_sat_per_kwu(375)).to_string(), "1.50 sat/vB");
        assert_eq!(ShownFeeRate(FeeRate::from_sat_per_kwu(250)).sat_per_vb(), 1.0);
    }
}
