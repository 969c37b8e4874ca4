//! Why a chainspec is refused: one variant for each rule. Every message names the key, what was given, and what is
//! allowed.

use bitcoin::{Amount, BlockHash, CompactTarget, Network, Weight, Work};
use thiserror::Error;

use crate::key::{self, KeyPath};
use crate::spec::RULES;
use crate::units::{BitcoinHeight, SatPerKvb};

/// Why a chainspec is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ChainSpecError {
    /// No built-in network has this name.
    #[error("no built-in network is called {name:?}; built in: {}", built_in.join(", "))]
    UnknownBuiltIn {
        /// The name asked for.
        name: String,
        /// The names there are.
        built_in: Vec<&'static str>,
    },
    /// The text is not TOML.
    #[error("the chainspec is not valid TOML")]
    Toml(#[from] toml::de::Error),
    /// A chain of another build's rules.
    #[error(
        "this chain began under rules {got}; this build runs rules {RULES}: use the build that wrote it, or start a new network"
    )]
    OtherRules {
        /// The number of its rules.
        got: i64,
    },
    /// A key that means nothing.
    #[error("unknown key {key:?} in {}; allowed: {}", section_name(*section), allowed.join(", "))]
    UnknownKey {
        /// The section that holds it.
        section: KeyPath,
        /// The key.
        key: String,
        /// The keys that this section may hold.
        allowed: &'static [&'static str],
    },
    /// A key without which there is no chainspec.
    #[error("{key} is missing: {wanted}")]
    MissingKey {
        /// The key.
        key: KeyPath,
        /// What to write there.
        wanted: &'static str,
    },
    /// A value of another TOML type.
    #[error("{key} is of type {got}, which must be {wanted}")]
    WrongType {
        /// The key.
        key: KeyPath,
        /// Type of the value.
        got: &'static str,
        /// The type it must have.
        wanted: &'static str,
    },
    /// A word that is not one of the allowed ones.
    #[error("{key} is {got:?}, which must be one of: {}", allowed.join(", "))]
    NotOneOf {
        /// The key.
        key: KeyPath,
        /// The word.
        got: String,
        /// The words allowed.
        allowed: &'static [&'static str],
    },
    /// Hex of the wrong length.
    #[error("{key} has {got} characters, which must be {wanted} hex digits")]
    HexLength {
        /// The key.
        key: KeyPath,
        /// Length of the text in characters.
        got: usize,
        /// Length it must have.
        wanted: usize,
    },
    /// Something else than hex.
    #[error("{key} is no hex: it must be an even number of hex digits and nothing else")]
    NotHex {
        /// The key.
        key: KeyPath,
    },
    /// A public key that is no point of secp256k1.
    #[error("{key} is no public key: the bytes are no point of the curve secp256k1")]
    NotAPoint {
        /// The key.
        key: KeyPath,
    },
    /// A number outside its bounds.
    #[error("{key} is {got}, which must be {min} to {max}{}{unit}", if unit.is_empty() { "" } else { " " })]
    OutOfRange {
        /// The key.
        key: KeyPath,
        /// The number.
        got: i128,
        /// Least number allowed.
        min: u64,
        /// Greatest number allowed.
        max: u64,
        /// Unit of all three.
        unit: &'static str,
    },
    /// A name that could be confused or cannot stand in a path or a log line.
    #[error("{} is {got:?}, which must be 1 to 32 of a-z, 0-9 and -", key::NAME)]
    Name {
        /// The name.
        got: String,
    },
    /// A time of block 1 that is not after block 0's.
    #[error("{} is {got}, which must be greater than the time of block 0, {block_0}", key::GENESIS_TIME.path)]
    GenesisTimeTooEarly {
        /// The time, in seconds since 1970.
        got: u32,
        /// The time of the identity's genesis block.
        block_0: u32,
    },
    /// No validator, or too many.
    #[error("{} holds {got} entries, which must be 1 to {max}", key::VALIDATORS)]
    ValidatorCount {
        /// Validators given.
        got: usize,
        /// Most validators allowed.
        max: usize,
    },
    /// A key that stands twice.
    #[error(
        "{key} repeats {first}: every key may stand once (keys of members and recovery are compared by x coordinate)"
    )]
    DuplicateKey {
        /// The second place.
        key: KeyPath,
        /// The first place.
        first: KeyPath,
    },
    /// Too much voting power altogether.
    #[error("{} add up to {got}, which may be at most {max}", key::POWER.path)]
    TotalPower {
        /// Sum of all powers.
        got: u128,
        /// Greatest sum allowed.
        max: u64,
    },
    /// The federation breaks a rule.
    #[error(transparent)]
    Federation(#[from] EpochError),
    /// The peg's parameters break a rule.
    #[error(transparent)]
    Peg(#[from] PegParamsError),
    /// The start of the Bitcoin chain breaks a rule.
    #[error(transparent)]
    Bitcoin(#[from] BitcoinStartError),
}

fn section_name(section: KeyPath) -> String {
    let name = section.to_string();
    if name.is_empty() { "the top level".to_owned() } else { format!("[{name}]") }
}

/// Why a federation epoch is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EpochError {
    /// A chainspec fixes epoch 1 only (PEG section 6).
    #[error("the chainspec's federation is epoch {got}, which must be 1")]
    NotFirst {
        /// The number of the epoch.
        got: u32,
    },
    /// No key, or too many.
    #[error("{key} holds {got} keys, which must be 1 to {max}")]
    KeyCount {
        /// The list.
        key: KeyPath,
        /// Keys given.
        got: usize,
        /// Most keys allowed.
        max: usize,
    },
    /// A threshold that no set of signers can meet, or that none has to.
    #[error("{key} is {got}, which must be 1 to {max}, the number of keys")]
    Threshold {
        /// The threshold.
        key: KeyPath,
        /// Its value.
        got: u32,
        /// The number of keys.
        max: usize,
    },
    /// More leaves than a script tree should have.
    #[error(
        "{} is {threshold} of {members} members, which makes more than the {max} subsets allowed: use fewer members",
        key::THRESHOLD.path
    )]
    TooManySubsets {
        /// Members, n.
        members: usize,
        /// Threshold, t.
        threshold: u32,
        /// Greatest C(n, t) allowed.
        max: u64,
    },
    /// A recovery key that is also a member's.
    #[error("{key} is the key of {member}: recovery must not depend on a member's key")]
    RecoveryKeyIsMember {
        /// The recovery key.
        key: KeyPath,
        /// The member.
        member: KeyPath,
    },
    /// Timelocks out of order: a depositor could be credited and refunded, or recovery could race a sweep.
    #[error(
        "{longer} is {longer_value} Bitcoin blocks, which must be greater than {shorter} ({shorter_value}): claim_window < sweep_age < recovery_delay < refund_delay"
    )]
    TimelockOrder {
        /// The key that must be the smaller one.
        shorter: KeyPath,
        /// Its value in Bitcoin blocks.
        shorter_value: u16,
        /// The key that must be the greater one.
        longer: KeyPath,
        /// Its value in Bitcoin blocks.
        longer_value: u16,
    },
}

/// Why the peg's parameters are refused although each is within its own bounds (PEG: "at load").
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PegParamsError {
    /// A request that pays the greatest fee would leave dust.
    #[error("{} is {} sat, which must be at least {}: peg_out_fee_max and 546", key::PEG_OUT_MIN.path, got.to_sat(), min.to_sat())]
    PegOutMinTooSmall {
        /// Its value.
        got: Amount,
        /// Least value allowed.
        min: Amount,
    },
    /// No amount of a request is allowed.
    #[error("{} is {} sat, which must be at least peg_out_min ({})", key::PEG_OUT_MAX.path, got.to_sat(), min.to_sat())]
    PegOutMaxBelowMin {
        /// Its value.
        got: Amount,
        /// Least value allowed.
        min: Amount,
    },
    /// A request of the greatest amount would fit no batch.
    #[error("{} is {} sat, which must be at least peg_out_max ({})", key::BATCH_VALUE_MAX.path, got.to_sat(), min.to_sat())]
    BatchValueTooSmall {
        /// Its value.
        got: Amount,
        /// Least value allowed.
        min: Amount,
    },
    /// A batch of the greatest value would fit no day.
    #[error("{} is {} sat, which must be at least batch_value_max ({})", key::VALUE_PER_DAY_MAX.path, got.to_sat(), min.to_sat())]
    DayValueTooSmall {
        /// Its value.
        got: Amount,
        /// Least value allowed.
        min: Amount,
    },
    /// The feerate before the first quotes is not permitted.
    #[error("{} is {got}, which may be at most fee_rate_max ({max})", key::FEE_RATE_DEFAULT.path)]
    FeeRateDefaultTooHigh {
        /// Its value.
        got: SatPerKvb,
        /// Greatest value allowed.
        max: SatPerKvb,
    },
    /// A deposit of the least amount could not be swept alone at every permitted feerate.
    #[error(
        "{} is {} sat, which must be at least {}: 10,000 and the fee of sweeping one deposit alone at fee_rate_max ({fee_rate_max})",
        key::PEG_IN_MIN.path,
        got.to_sat(),
        min.to_sat()
    )]
    PegInMinTooSmall {
        /// Its value.
        got: Amount,
        /// Least value allowed.
        min: Amount,
        /// The greatest feerate.
        fee_rate_max: SatPerKvb,
    },
    /// Branches that would have to freeze the peg would not even be accepted.
    #[error("{} is {got}, which must be at least final_depth ({min})", key::FORK_DEPTH.path)]
    ForkDepthTooSmall {
        /// Its value in Bitcoin blocks.
        got: u32,
        /// Least value allowed.
        min: u32,
    },
    /// A deposit's window would close before the deposit is deep.
    #[error("{} is {got} Bitcoin blocks, which must be greater than peg.final_depth ({final_depth})", key::CLAIM_WINDOW.path)]
    ClaimWindowTooShort {
        /// Its value in Bitcoin blocks.
        got: u16,
        /// The depth at which a deposit can be credited.
        final_depth: u32,
    },
    /// A refresh would take coins of every age.
    #[error(
        "{} is {got} Bitcoin blocks, which must be less than federation.sweep_age ({sweep_age})",
        key::REFRESH_MARGIN.path
    )]
    RefreshMarginTooLong {
        /// Its value in Bitcoin blocks.
        got: u16,
        /// The age at which a coin is due.
        sweep_age: u16,
    },
    /// Sweeping could not keep up before recovery opens.
    #[error(
        "{} is {got}, which may be at most {max}: max_open_refreshes x max_inputs x (recovery_delay - sweep_age) / (2 x final_depth)",
        key::COINS_MAX.path
    )]
    CoinsMaxTooLarge {
        /// Its value.
        got: u32,
        /// Greatest value allowed.
        max: u64,
    },
    /// The largest batch would not be relayed.
    #[error(
        "{} ({max_inputs} inputs of {input} weight) and max_payees ({max_payees}, and 8 change outputs) make a batch of weight {got}, which may be at most {max}",
        key::MAX_INPUTS.path
    )]
    BatchTooLarge {
        /// Most inputs.
        max_inputs: u32,
        /// Most payees.
        max_payees: u32,
        /// Weight of the worst deposit input.
        input: Weight,
        /// Weight of the largest batch.
        got: Weight,
        /// Greatest weight of a TRUC transaction.
        max: Weight,
    },
}

/// Why the start of the Bitcoin chain is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BitcoinStartError {
    /// A network that no peg can stand on.
    #[error("{} is {got}, which must be one of: bitcoin, testnet4, signet, regtest", key::BITCOIN_NETWORK)]
    Network {
        /// The network.
        got: Network,
    },
    /// Retargets after the start could not be computed.
    #[error("{} is {got}, which must be a multiple of 2016 (on regtest too)", key::BITCOIN_HEIGHT.path)]
    NotOnRetargetBoundary {
        /// The height.
        got: BitcoinHeight,
    },
    /// A target that is malformed or easier than the network allows.
    #[error(
        "{} has bits {got:08x}, which must be a target in canonical form, at most {limit:08x} on {network}",
        key::BITCOIN_HEADER
    )]
    Bits {
        /// The header's bits.
        got: CompactTarget,
        /// The network.
        network: Network,
        /// The easiest target of the network.
        limit: CompactTarget,
    },
    /// A header that nobody worked for.
    #[error("{} has hash {hash}, which does not meet its target (bits {bits:08x})", key::BITCOIN_HEADER)]
    ProofOfWork {
        /// The header's hash.
        hash: BlockHash,
        /// The header's bits.
        bits: CompactTarget,
    },
    /// At height 0 there is only one header.
    #[error(
        "{} has hash {got}, which at height 0 of {network} must be the genesis block, {genesis}",
        key::BITCOIN_HEADER
    )]
    NotGenesis {
        /// The network.
        network: Network,
        /// The header's hash.
        got: BlockHash,
        /// The hash of the network's genesis block.
        genesis: BlockHash,
    },
    /// A chainwork that no chain with this header at this height can have.
    #[error(
        "{} is {got:x}, which at height {height} must be at least {min:x} (exactly that at height 0) and below 2^128",
        key::BITCOIN_CHAINWORK
    )]
    Chainwork {
        /// The chainwork.
        got: Work,
        /// The least work of a chain with this header at this height.
        min: Work,
        /// The header's height.
        height: BitcoinHeight,
    },
    /// Too few times for the median of the next header, or too many.
    #[error(
        "{} holds {got} times, which must be {count}: those of the blocks before the header, oldest first",
        key::BITCOIN_EARLIER_TIMES
    )]
    EarlierTimes {
        /// Times given.
        got: usize,
        /// Times needed: 10, or fewer where there are fewer blocks.
        count: u32,
    },
}
