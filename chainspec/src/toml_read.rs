//! Reading a chainspec file: text to typed parts. Every value is read by hand, so that every error can name its key.

use bitcoin::block::Header;
use bitcoin::consensus::deserialize;
use bitcoin::hex::FromHex;
use bitcoin::secp256k1::{PublicKey, XOnlyPublicKey};
use bitcoin::{Amount, Network, Work};
use toml::{Table, Value};

use crate::bitcoin_start::BitcoinStart;
use crate::epoch::{Epoch, EpochParts, Timelocks};
use crate::error::ChainSpecError;
use crate::key::{self, KeyPath, NumberKey, names};
use crate::params::Params;
use crate::spec::{ChainSpecParts, RULES, Validator};
use crate::units::{BitcoinHeight, SatPerKvb};

/// The number of the epoch that a chainspec fixes.
const FIRST_EPOCH: u32 = 1;

/// The rules of a chainspec that does not say.
const RULES_WITHOUT_KEY: i64 = 0;

/// Reads a chainspec file. The rules between values are left to [`ChainSpec::new`](crate::ChainSpec::new), except those
/// of the parts that check themselves.
pub(crate) fn read(text: &str) -> Result<ChainSpecParts, ChainSpecError> {
    let table: Table = text.parse()?;
    check_rules(&table)?;
    let top = Section::new(&table, KeyPath::new("", ""), None, names::TOP)?;
    let validators = top.list(key::VALIDATORS, names::VALIDATOR)?;
    let federation = top.section(key::FEDERATION, names::FEDERATION)?;
    let peg = top.section(key::PEG, names::PEG)?;
    let bitcoin = top.section(key::BITCOIN, names::BITCOIN)?;
    Ok(ChainSpecParts {
        name: top.text(key::NAME)?.to_owned(),
        launch: top.hex(key::LAUNCH)?,
        genesis_time: top.number(&key::GENESIS_TIME)?,
        params: read_params(&top, &peg)?,
        validators: validators.iter().map(read_validator).collect::<Result<_, _>>()?,
        federation: read_federation(&federation)?,
        bitcoin: read_bitcoin(&bitcoin)?,
    })
}

/// Checks the number of the rules before all else: under others the file may look otherwise.
fn check_rules(table: &Table) -> Result<(), ChainSpecError> {
    let got = match table.get(key::RULES.name()) {
        Some(value) => value.as_integer().ok_or_else(|| wrong_type(key::RULES, value, "a whole number"))?,
        // Every chainspec has launch bytes: without them it is a file of another kind.
        None if table.contains_key(key::LAUNCH.name()) => RULES_WITHOUT_KEY,
        None => return Err(ChainSpecError::MissingKey { key: key::RULES, wanted: "a whole number" }),
    };
    if got == i64::from(RULES) { Ok(()) } else { Err(ChainSpecError::OtherRules { got }) }
}

fn read_params(top: &Section<'_>, peg: &Section<'_>) -> Result<Params, ChainSpecError> {
    Ok(Params {
        identity: top.network(key::IDENTITY, names::IDENTITIES)?,
        block_interval_ms: top.number(&key::BLOCK_INTERVAL_MS)?,
        peg_out_min: peg.amount(&key::PEG_OUT_MIN)?,
        peg_out_max: peg.amount(&key::PEG_OUT_MAX)?,
        peg_out_fee_max: peg.amount(&key::PEG_OUT_FEE_MAX)?,
        peg_in_min: peg.amount(&key::PEG_IN_MIN)?,
        batch_value_max: peg.amount(&key::BATCH_VALUE_MAX)?,
        value_per_day_max: peg.amount(&key::VALUE_PER_DAY_MAX)?,
        change_unit: peg.amount(&key::CHANGE_UNIT)?,
        fee_rate_default: SatPerKvb(peg.number(&key::FEE_RATE_DEFAULT)?),
        fee_rate_max: SatPerKvb(peg.number(&key::FEE_RATE_MAX)?),
        final_depth: peg.number(&key::FINAL_DEPTH)?,
        fork_depth: peg.number(&key::FORK_DEPTH)?,
        header_freshness_s: peg.number(&key::HEADER_FRESHNESS_S)?,
        coins_max: peg.number(&key::COINS_MAX)?,
        refresh_margin: peg.number(&key::REFRESH_MARGIN)?,
        max_open_refreshes: peg.number(&key::MAX_OPEN_REFRESHES)?,
        max_open_batches: peg.number(&key::MAX_OPEN_BATCHES)?,
        max_inputs: peg.number(&key::MAX_INPUTS)?,
        max_payees: peg.number(&key::MAX_PAYEES)?,
        batch_interval: peg.number(&key::BATCH_INTERVAL)?,
        request_max_wait: peg.number(&key::REQUEST_MAX_WAIT)?,
        replace_after: peg.number(&key::REPLACE_AFTER)?,
        quote_age: peg.number(&key::QUOTE_AGE)?,
        epoch_grace: peg.number(&key::EPOCH_GRACE)?,
    })
}

fn read_validator(section: &Section<'_>) -> Result<Validator, ChainSpecError> {
    let bytes: [u8; 32] = section.hex(key::VALIDATOR_KEY)?;
    let key = XOnlyPublicKey::from_slice(&bytes)
        .map_err(|_| ChainSpecError::NotAPoint { key: section.key(key::VALIDATOR_KEY) })?;
    Ok(Validator { key, power: section.number(&key::POWER)? })
}

fn read_federation(section: &Section<'_>) -> Result<Epoch, ChainSpecError> {
    let members = section.elements(key::MEMBERS, |path, value| {
        let bytes: [u8; 33] = hex_array(path, text(path, value)?)?;
        PublicKey::from_slice(&bytes).map_err(|_| ChainSpecError::NotAPoint { key: path })
    })?;
    let recovery_keys = section.elements(key::RECOVERY_KEYS, |path, value| {
        let bytes: [u8; 32] = hex_array(path, text(path, value)?)?;
        XOnlyPublicKey::from_slice(&bytes).map_err(|_| ChainSpecError::NotAPoint { key: path })
    })?;
    Epoch::new(EpochParts {
        number: FIRST_EPOCH,
        members,
        threshold: section.number(&key::THRESHOLD)?,
        recovery_keys,
        recovery_threshold: section.number(&key::RECOVERY_THRESHOLD)?,
        timelocks: Timelocks {
            claim_window: section.number(&key::CLAIM_WINDOW)?,
            sweep_age: section.number(&key::SWEEP_AGE)?,
            recovery_delay: section.number(&key::RECOVERY_DELAY)?,
            refund_delay: section.number(&key::REFUND_DELAY)?,
        },
    })
}

fn read_bitcoin(section: &Section<'_>) -> Result<BitcoinStart, ChainSpecError> {
    let header: [u8; 80] = section.hex(key::BITCOIN_HEADER)?;
    let header: Header = deserialize(&header).expect("any 80 bytes are a header");
    let earlier_times = section
        .elements(key::BITCOIN_EARLIER_TIMES, |path, value| number(&NumberKey { path, ..key::EARLIER_TIME }, value))?;
    BitcoinStart::new(
        section.network(key::BITCOIN_NETWORK, names::PARENT_NETWORKS)?,
        BitcoinHeight(section.number(&key::BITCOIN_HEIGHT)?),
        header,
        Work::from_be_bytes(section.hex(key::BITCOIN_CHAINWORK)?),
        earlier_times,
    )
}

/// A table of the file that holds no unknown key.
struct Section<'a> {
    table: &'a Table,
    entry: Option<usize>,
}

impl<'a> Section<'a> {
    /// `entry` is its position in a list of tables.
    fn new(
        table: &'a Table,
        path: KeyPath,
        entry: Option<usize>,
        allowed: &'static [&'static str],
    ) -> Result<Section<'a>, ChainSpecError> {
        match table.keys().find(|key| !allowed.contains(&key.as_str())) {
            Some(key) => Err(ChainSpecError::UnknownKey { section: path, key: key.clone(), allowed }),
            None => Ok(Section { table, entry }),
        }
    }

    fn section(&self, path: KeyPath, allowed: &'static [&'static str]) -> Result<Section<'a>, ChainSpecError> {
        Section::new(table(path, self.value(path, "a table")?)?, path, None, allowed)
    }

    fn list(&self, path: KeyPath, allowed: &'static [&'static str]) -> Result<Vec<Section<'a>>, ChainSpecError> {
        let value = self.value(path, "a list of tables")?;
        let entries = value.as_array().ok_or_else(|| wrong_type(path, value, "a list of tables"))?;
        let section = |(index, value)| {
            let path = path.element(index);
            Section::new(table(path, value)?, path, Some(index), allowed)
        };
        entries.iter().enumerate().map(section).collect()
    }

    /// The key as it stands in this section.
    fn key(&self, path: KeyPath) -> KeyPath {
        self.entry.map_or(path, |entry| path.of_entry(entry))
    }

    fn value(&self, path: KeyPath, wanted: &'static str) -> Result<&'a Value, ChainSpecError> {
        self.table.get(path.name()).ok_or(ChainSpecError::MissingKey { key: self.key(path), wanted })
    }

    fn text(&self, path: KeyPath) -> Result<&'a str, ChainSpecError> {
        text(self.key(path), self.value(path, "a string")?)
    }

    fn hex<const N: usize>(&self, path: KeyPath) -> Result<[u8; N], ChainSpecError> {
        hex_array(self.key(path), self.text(path)?)
    }

    fn number<T: TryFrom<u64>>(&self, key: &NumberKey) -> Result<T, ChainSpecError> {
        let value = self.value(key.path, "a whole number")?;
        number(&NumberKey { path: self.key(key.path), ..*key }, value)
    }

    fn amount(&self, key: &NumberKey) -> Result<Amount, ChainSpecError> {
        self.number(key).map(Amount::from_sat)
    }

    fn network(&self, path: KeyPath, allowed: &'static [&'static str]) -> Result<Network, ChainSpecError> {
        let word = self.text(path)?;
        let network = if allowed.contains(&word) { word.parse().ok() } else { None };
        network.ok_or_else(|| ChainSpecError::NotOneOf { key: self.key(path), got: word.to_owned(), allowed })
    }

    fn elements<T>(
        &self,
        path: KeyPath,
        read: impl Fn(KeyPath, &'a Value) -> Result<T, ChainSpecError>,
    ) -> Result<Vec<T>, ChainSpecError> {
        let value = self.value(path, "a list")?;
        let elements = value.as_array().ok_or_else(|| wrong_type(path, value, "a list"))?;
        elements.iter().enumerate().map(|(index, value)| read(path.element(index), value)).collect()
    }
}

fn wrong_type(key: KeyPath, value: &Value, wanted: &'static str) -> ChainSpecError {
    ChainSpecError::WrongType { key, got: value.type_str(), wanted }
}

fn table(key: KeyPath, value: &Value) -> Result<&Table, ChainSpecError> {
    value.as_table().ok_or_else(|| wrong_type(key, value, "a table"))
}

fn text(key: KeyPath, value: &Value) -> Result<&str, ChainSpecError> {
    value.as_str().ok_or_else(|| wrong_type(key, value, "a string"))
}

/// The number, if it is within the key's bounds and those of `T`.
fn number<T: TryFrom<u64>>(key: &NumberKey, value: &Value) -> Result<T, ChainSpecError> {
    let got = value.as_integer().ok_or_else(|| wrong_type(key.path, value, "a whole number"))?;
    let out_of_range = || key.out_of_range(got.into());
    let number = u64::try_from(got).map_err(|_| out_of_range())?;
    key.check(number)?;
    T::try_from(number).map_err(|_| out_of_range())
}

fn hex_array<const N: usize>(key: KeyPath, text: &str) -> Result<[u8; N], ChainSpecError> {
    let got = text.chars().count();
    if got != 2 * N {
        return Err(ChainSpecError::HexLength { key, got, wanted: 2 * N });
    }
    let bytes = Vec::from_hex(text).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or(ChainSpecError::NotHex { key })
}

#[cfg(test)]
mod tests;
