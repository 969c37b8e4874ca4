//! Amounts and addresses as they are typed.

use std::str::FromStr;

use bitcoin::address::NetworkUnchecked;
use bitcoin::{Address, Amount, Denomination, Network};

/// An amount: in BTC, as in `0.5` or `0.5btc`, or in satoshi, as in `50000sat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AmountArg(pub Amount);

/// Text that is no amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not an amount above 0 and at most 21000000 BTC: write BTC with at most 8 decimals (0.5), or satoshi (50000sat)"
)]
pub struct AmountError;

impl FromStr for AmountArg {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        let lower = text.trim().to_ascii_lowercase();
        let amount = match (lower.strip_suffix("sat"), lower.strip_suffix("btc")) {
            (Some(number), _) => Amount::from_str_in(number.trim_end(), Denomination::Satoshi),
            (None, Some(number)) => Amount::from_str_in(number.trim_end(), Denomination::Bitcoin),
            (None, None) => Amount::from_str_in(&lower, Denomination::Bitcoin),
        };
        let amount = amount.ok().filter(|amount| *amount > Amount::ZERO && *amount <= Amount::MAX_MONEY);
        amount.map(AmountArg).ok_or(AmountError)
    }
}

/// An address of regtest: Causeway's devnet has its prefix too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressArg(pub Address);

/// Text that is no address of regtest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address of regtest: they start with bcrt1, m, n or 2")]
pub struct AddressError;

impl FromStr for AddressArg {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let address: Address<NetworkUnchecked> = text.trim().parse().map_err(|_| AddressError)?;
        address.require_network(Network::Regtest).map(AddressArg).map_err(|_| AddressError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_bitcoin_unless_they_say_satoshi() {
        for (text, sat) in [
            ("1", 100_000_000),
            ("0.5", 50_000_000),
            ("0.00000001", 1),
            (" 2 BTC", 200_000_000),
            ("1.5btc", 150_000_000),
            ("50000sat", 50_000),
            ("50000 sat", 50_000),
            ("21000000", 2_100_000_000_000_000),
        ] {
            assert_eq!(text.parse(), Ok(AmountArg(Amount::from_sat(sat))), "{text}");
        }
        for text in ["", "0", "-1", "1e8", "0.000000001", "1.5sat", "21000000.00000001", "1 eth", "sat", "1,5", "0x1"] {
            assert_eq!(text.parse::<AmountArg>(), Err(AmountError), "{text}");
        }
    }

    #[test]
    fn addresses_are_those_of_regtest() {
        let regtest = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
        assert_eq!(regtest.parse::<AddressArg>().unwrap().0.to_string(), regtest);
        for text in
            ["bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx", "x", ""]
        {
            assert_eq!(text.parse::<AddressArg>(), Err(AddressError), "{text}");
        }
    }
}
