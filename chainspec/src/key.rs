//! The keys of a chainspec file: how errors name them, and the unit and bounds of every number.
//!
//! The bounds here are those of a single value. Rules between several values are the variants of
//! [`PegParamsError`](crate::PegParamsError) and its neighbours.

use std::fmt;

use crate::derived::SUPPLY_SAT;
use crate::error::ChainSpecError;

/// Where a value stands in a chainspec file: `genesis_time`, `peg.final_depth`, `validators[2].key`,
/// `federation.members[4]`. Indices count from 0, in the order of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyPath {
    section: &'static str,
    entry: Option<u32>,
    name: &'static str,
    element: Option<u32>,
}

impl KeyPath {
    /// The key `name` of `section`, which is empty for the top level.
    pub const fn new(section: &'static str, name: &'static str) -> KeyPath {
        KeyPath { section, entry: None, name, element: None }
    }

    /// The same key in the entry `index` of a section that is a list of tables.
    pub fn of_entry(self, index: usize) -> KeyPath {
        KeyPath { entry: Some(saturate(index)), ..self }
    }

    /// The element `index` of the list that stands at this key.
    pub fn element(self, index: usize) -> KeyPath {
        KeyPath { element: Some(saturate(index)), ..self }
    }

    /// The key's own name, without section and indices.
    pub const fn name(self) -> &'static str {
        self.name
    }
}

/// Small indices keep errors small; no list of a chainspec is that long.
fn saturate(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.section)?;
        if let Some(entry) = self.entry {
            write!(f, "[{entry}]")?;
        }
        if !self.section.is_empty() && !self.name.is_empty() {
            f.write_str(".")?;
        }
        f.write_str(self.name)?;
        if let Some(element) = self.element {
            write!(f, "[{element}]")?;
        }
        Ok(())
    }
}

/// A key whose value is a whole number: its unit and the least and greatest value allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NumberKey {
    /// Where it stands.
    pub path: KeyPath,
    /// Unit of the value; empty for a plain number.
    pub unit: &'static str,
    /// Least value allowed.
    pub min: u64,
    /// Greatest value allowed.
    pub max: u64,
    /// What the value means, one sentence or more, in lines.
    pub meaning: &'static str,
}

impl NumberKey {
    /// Checks a value against the bounds.
    ///
    /// # Errors
    ///
    /// [`ChainSpecError::OutOfRange`].
    pub fn check(&self, value: u64) -> Result<(), ChainSpecError> {
        if (self.min..=self.max).contains(&value) { Ok(()) } else { Err(self.out_of_range(value.into())) }
    }

    pub(crate) fn out_of_range(&self, got: i128) -> ChainSpecError {
        ChainSpecError::OutOfRange { key: self.path, got, min: self.min, max: self.max, unit: self.unit }
    }

    /// The same key in the entry `index` of a section that is a list of tables.
    pub(crate) fn of_entry(self, index: usize) -> NumberKey {
        NumberKey { path: self.path.of_entry(index), ..self }
    }

    /// The same key's element `index`.
    pub(crate) fn element(self, index: usize) -> NumberKey {
        NumberKey { path: self.path.element(index), ..self }
    }
}

const BITCOIN_BLOCKS: &str = "Bitcoin blocks";
const CAUSEWAY_BLOCKS: &str = "Causeway blocks";
const SAT: &str = "sat";
const U16: u64 = u16::MAX as u64;
const U32: u64 = u32::MAX as u64;

/// Names of the keys, section by section, as a file may hold them.
pub(crate) mod names {
    pub(crate) const TOP: &[&str] = &[
        "rules",
        "name",
        "identity",
        "launch",
        "genesis_time",
        "block_interval_ms",
        "validators",
        "federation",
        "peg",
        "bitcoin",
    ];
    pub(crate) const VALIDATOR: &[&str] = &["key", "power"];
    pub(crate) const FEDERATION: &[&str] = &[
        "members",
        "threshold",
        "recovery_keys",
        "recovery_threshold",
        "claim_window",
        "sweep_age",
        "recovery_delay",
        "refund_delay",
    ];
    pub(crate) const PEG: &[&str] = &[
        "peg_out_min",
        "peg_out_max",
        "peg_out_fee_max",
        "peg_in_min",
        "batch_value_max",
        "value_per_day_max",
        "change_unit",
        "fee_rate_default",
        "fee_rate_max",
        "final_depth",
        "fork_depth",
        "header_freshness_s",
        "coins_max",
        "refresh_margin",
        "max_open_refreshes",
        "max_open_batches",
        "max_inputs",
        "max_payees",
        "batch_interval",
        "request_max_wait",
        "replace_after",
        "quote_age",
        "epoch_grace",
    ];
    pub(crate) const BITCOIN: &[&str] = &["network", "height", "header", "chainwork", "earlier_times"];

    /// Words that `identity` may be.
    pub(crate) const IDENTITIES: &[&str] = &["regtest", "signet"];
    /// Words that `bitcoin.network` may be.
    pub(crate) const PARENT_NETWORKS: &[&str] = &["bitcoin", "testnet4", "signet", "regtest"];
}

macro_rules! paths {
    ($($(#[$doc:meta])* $konst:ident = $section:literal $name:literal;)*) => {
        $($(#[$doc])* pub const $konst: KeyPath = KeyPath::new($section, $name);)*
    };
}

paths! {
    /// Number of the rules that the chain began under.
    RULES = "" "rules";
    /// Name of the network: 1 to 32 of `a`-`z`, `0`-`9` and `-`.
    NAME = "" "name";
    /// The Bitcoin test network whose genesis block and address prefixes the chain has: `regtest` or `signet`.
    IDENTITY = "" "identity";
    /// 32 random bytes in hex, so that a relaunched network is another chain.
    LAUNCH = "" "launch";
    /// The validators of set 1, a list of tables.
    VALIDATORS = "" "validators";
    /// X-only public key of a validator, BIP340, in hex.
    VALIDATOR_KEY = "validators" "key";
    /// Epoch 1 of the federation, a table.
    FEDERATION = "" "federation";
    /// The parameters of the peg, a table.
    PEG = "" "peg";
    /// The start of the Bitcoin chain, a table.
    BITCOIN = "" "bitcoin";
    /// Compressed public keys of the members (33 bytes in hex).
    MEMBERS = "federation" "members";
    /// X-only public keys of the recovery set, in hex.
    RECOVERY_KEYS = "federation" "recovery_keys";
    /// The Bitcoin network that the peg stands on: `bitcoin`, `testnet4`, `signet` or `regtest`.
    BITCOIN_NETWORK = "bitcoin" "network";
    /// The starting header: 80 bytes in hex, as serialised.
    BITCOIN_HEADER = "bitcoin" "header";
    /// Total work up to and including the starting header, 32 bytes big endian in hex, as Bitcoin Core prints it.
    BITCOIN_CHAINWORK = "bitcoin" "chainwork";
    /// Times of the blocks before the starting header, oldest first.
    BITCOIN_EARLIER_TIMES = "bitcoin" "earlier_times";
}

macro_rules! numbers {
    ($($(#[doc = $doc:literal])* $konst:ident = $section:literal $name:literal, $unit:expr, $min:expr, $max:expr;)*) => {
        $(
            $(#[doc = $doc])*
            pub const $konst: NumberKey = NumberKey {
                path: KeyPath::new($section, $name),
                unit: $unit,
                min: $min,
                max: $max,
                meaning: concat!($($doc, "\n"),*),
            };
        )*
    };
}

numbers! {
    /// Time of block 1, and of block h up to 100 `genesis_time + h - 1`. It must be greater than the time of block 0. The
    /// greatest leaves nine years before the 32-bit time field ends.
    GENESIS_TIME = "" "genesis_time", "seconds since 1970", 1, 4_000_000_000;
    /// Target time between blocks. Bitcoin's median-time rule allows about six blocks a second (DESIGN section 2).
    BLOCK_INTERVAL_MS = "" "block_interval_ms", "ms", 200, 600_000;
    /// Voting power. The sum over all validators has the same bound, so that three times any sum fits 64 bits.
    POWER = "validators" "power", "", 1, 1 << 60;

    /// Members needed to sign, t.
    THRESHOLD = "federation" "threshold", "members", 1, 100;
    /// Recovery keys needed to sign.
    RECOVERY_THRESHOLD = "federation" "recovery_threshold", "keys", 1, 100;
    /// A deposit can be credited this long after its block. More than `final_depth`.
    CLAIM_WINDOW = "federation" "claim_window", BITCOIN_BLOCKS, 1, U16;
    /// A coin older than this is moved to a fresh main output.
    SWEEP_AGE = "federation" "sweep_age", BITCOIN_BLOCKS, 1, U16;
    /// A coin older than this can be taken by the recovery keys: N_recovery. BIP68 holds 16 bits.
    RECOVERY_DELAY = "federation" "recovery_delay", BITCOIN_BLOCKS, 1, U16;
    /// A deposit older than this can be taken back by its depositor: N_refund. BIP68 holds 16 bits.
    REFUND_DELAY = "federation" "refund_delay", BITCOIN_BLOCKS, 1, U16;

    /// Least amount of a peg-out request. At least `peg_out_fee_max` and 546 sat.
    PEG_OUT_MIN = "peg" "peg_out_min", SAT, 546, SUPPLY_SAT;
    /// Greatest amount of a peg-out request. At least `peg_out_min`.
    PEG_OUT_MAX = "peg" "peg_out_max", SAT, 546, SUPPLY_SAT;
    /// Most that a request pays toward the fee of its batch, until it has waited `request_max_wait`.
    PEG_OUT_FEE_MAX = "peg" "peg_out_fee_max", SAT, 1, SUPPLY_SAT;
    /// Least amount of a deposit. At least 10,000 sat and the fee of sweeping one deposit alone at `fee_rate_max`, so that
    /// every deposit can be swept at any permitted rate.
    PEG_IN_MIN = "peg" "peg_in_min", SAT, 10_000, SUPPLY_SAT;
    /// Most value in one batch. At least `peg_out_max`.
    BATCH_VALUE_MAX = "peg" "batch_value_max", SAT, 546, SUPPLY_SAT;
    /// Most value batched in 86,400 seconds of block time. At least `batch_value_max`.
    VALUE_PER_DAY_MAX = "peg" "value_per_day_max", SAT, 546, SUPPLY_SAT;
    /// Change is split into one output for each such amount, 1 to 8.
    CHANGE_UNIT = "peg" "change_unit", SAT, 10_000, SUPPLY_SAT;
    /// The agreed feerate until the validators first agree on one. At most `fee_rate_max`.
    FEE_RATE_DEFAULT = "peg" "fee_rate_default", "sat/kvB", 1_000, 10_000_000;
    /// Greatest feerate of a batch.
    FEE_RATE_MAX = "peg" "fee_rate_max", "sat/kvB", 1_000, 10_000_000;
    /// Confirmations before anything on Bitcoin is recorded.
    FINAL_DEPTH = "peg" "final_depth", BITCOIN_BLOCKS, 1, 2_016;
    /// No branch starts deeper than this below the highest Bitcoin tip ever held. At least `final_depth`.
    FORK_DEPTH = "peg" "fork_depth", BITCOIN_BLOCKS, 1, 2_016;
    /// A deposit is credited only while the Bitcoin tip is at most this much older than the block.
    HEADER_FRESHNESS_S = "peg" "header_freshness_s", "seconds", 60, 30 * 86_400;
    /// Most coins that the peg holds. At most `max_open_refreshes` x `max_inputs` x (`recovery_delay` - `sweep_age`) / (2 x
    /// `final_depth`), so that sweeping keeps up.
    COINS_MAX = "peg" "coins_max", "coins", 1, 1_000_000;
    /// A refresh also takes the coins that are within this much of `sweep_age`. Less than `sweep_age`.
    REFRESH_MARGIN = "peg" "refresh_margin", BITCOIN_BLOCKS, 0, U16;
    /// Most refreshes open at once.
    MAX_OPEN_REFRESHES = "peg" "max_open_refreshes", "batches", 1, 100;
    /// Most batches with payees (or consolidations) open at once.
    MAX_OPEN_BATCHES = "peg" "max_open_batches", "batches", 1, 100;
    /// Most coins that one batch spends. The largest batch has at most 10,000 vB: 12 + `max_inputs` x the worst input +
    /// (`max_payees` + 8) x 43.
    MAX_INPUTS = "peg" "max_inputs", "coins", 12, 1_000;
    /// Most requests that one batch pays.
    MAX_PAYEES = "peg" "max_payees", "requests", 1, 1_000;
    /// Least distance between the openings of two batches with payees.
    BATCH_INTERVAL = "peg" "batch_interval", CAUSEWAY_BLOCKS, 1, 1_000_000;
    /// A request that has waited this long may pay any fee that leaves it 546 sat.
    REQUEST_MAX_WAIT = "peg" "request_max_wait", CAUSEWAY_BLOCKS, 1, 10_000_000;
    /// A batch can be replaced this long after its newest version was fixed.
    REPLACE_AFTER = "peg" "replace_after", BITCOIN_BLOCKS, 1, 2_016;
    /// A feerate quote counts for this long.
    QUOTE_AGE = "peg" "quote_age", CAUSEWAY_BLOCKS, 1, 1_000_000;
    /// Deposits to an ended epoch are still credited if mined at most this long after its end.
    EPOCH_GRACE = "peg" "epoch_grace", BITCOIN_BLOCKS, 0, U16;

    /// Height of the starting header, a multiple of 2,016. The bound is about 190 years away.
    BITCOIN_HEIGHT = "bitcoin" "height", "", 0, 10_000_000;
    /// One of the times of the blocks before the starting header.
    EARLIER_TIME = "bitcoin" "earlier_times", "seconds since 1970", 1, U32;
}
