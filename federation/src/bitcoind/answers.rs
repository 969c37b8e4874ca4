//! What bitcoind answers, read with care: no amount passes through a float, and nothing is read that is not used. What else
//! an answer holds has another form in every version (`warnings` is a text or a list), and is no error.
//!
//! Amounts are JSON numbers in bitcoin with eight decimals. `serde_json` would make them floats (its feature
//! `arbitrary_precision` would change every other crate's numbers too), so they are kept as raw text and read by
//! `bitcoin::Amount`, which allows eight decimals and no exponent.

use std::fmt;

use bitcoin::{Amount, BlockHash, Denomination, ScriptBuf, Txid, Weight};
use causeway_chainspec::{BitcoinHeight, SatPerKvb};
use serde::{Deserialize, Deserializer, de};
use serde_json::value::RawValue;

use super::error::Text;

/// An amount in bitcoin, as bitcoind writes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Btc(pub(super) Amount);

impl<'de> Deserialize<'de> for Btc {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Amount::from_str_in(raw.get(), Denomination::Bitcoin).map(Btc).map_err(de::Error::custom)
    }
}

impl Btc {
    /// A feerate that is written in bitcoin per 1,000 virtual bytes.
    pub(super) fn to_feerate(self) -> SatPerKvb {
        SatPerKvb(self.0.to_sat())
    }
}

/// What `getblockchaininfo` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainInfo {
    /// Height of the best block.
    pub blocks: BitcoinHeight,
    /// Height of the best header, which its blocks may not have reached yet.
    pub headers: BitcoinHeight,
    /// The best block.
    pub best: BlockHash,
    /// It is downloading the chain, or its best block is more than a day old.
    pub initial_block_download: bool,
    /// Blocks below this height are gone; `None` if it keeps all.
    pub pruned_below: Option<BitcoinHeight>,
}

/// What `getnetworkinfo` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkInfo {
    /// 10,000 times the major version, and 100 times the minor one.
    pub version: u64,
    /// The name it gives to its peers.
    pub user_agent: Text,
    /// How many peers it has.
    pub connections: u32,
}

#[derive(Deserialize)]
pub(super) struct RawNetworkInfo {
    version: u64,
    subversion: String,
    connections: u32,
}

impl From<RawNetworkInfo> for NetworkInfo {
    fn from(raw: RawNetworkInfo) -> Self {
        let RawNetworkInfo { version, subversion, connections } = raw;
        NetworkInfo { version, user_agent: Text::of(&subversion), connections }
    }
}

#[derive(Deserialize)]
pub(super) struct RawChainInfo {
    blocks: u32,
    headers: u32,
    bestblockhash: BlockHash,
    initialblockdownload: bool,
    pruneheight: Option<u32>,
}

impl From<RawChainInfo> for ChainInfo {
    fn from(raw: RawChainInfo) -> Self {
        let RawChainInfo { blocks, headers, bestblockhash, initialblockdownload, pruneheight } = raw;
        ChainInfo {
            blocks: BitcoinHeight(blocks),
            headers: BitcoinHeight(headers),
            best: bestblockhash,
            initial_block_download: initialblockdownload,
            pruned_below: pruneheight.map(BitcoinHeight),
        }
    }
}

/// Where a header stands for a bitcoind, by `getblockheader`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderPlace {
    /// Its height.
    pub height: BitcoinHeight,
    /// Its confirmations if it is on the best chain, 1 for the tip.
    pub confirmations: Option<u32>,
}

#[derive(Deserialize)]
pub(super) struct RawHeaderPlace {
    pub(super) hash: BlockHash,
    height: u32,
    confirmations: i64,
}

impl RawHeaderPlace {
    /// `None` if a number is out of range.
    pub(super) fn place(&self) -> Option<HeaderPlace> {
        // Off the best chain it says -1.
        let confirmations = if self.confirmations < 1 { None } else { Some(u32::try_from(self.confirmations).ok()?) };
        Some(HeaderPlace { height: BitcoinHeight(self.height), confirmations })
    }
}

/// A branch that a bitcoind knows, by `getchaintips`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainTip {
    /// Height of its last header.
    pub height: BitcoinHeight,
    /// Its last header.
    pub hash: BlockHash,
    /// How many of its headers are not on the best chain; 0 for the best chain.
    pub branch_length: u32,
    /// How much of it was validated.
    pub status: TipStatus,
}

/// How much of a branch was validated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TipStatus {
    /// The best chain.
    Active,
    /// Fully validated, and not the best chain.
    ValidFork,
    /// The blocks are there; their scripts were not checked, since the branch never was the best one.
    ValidHeaders,
    /// Blocks are missing.
    HeadersOnly,
    /// It holds an invalid block.
    Invalid,
    /// A word that we do not know.
    #[serde(other)]
    Unknown,
}

#[derive(Deserialize)]
pub(super) struct RawChainTip {
    height: u32,
    hash: BlockHash,
    branchlen: u32,
    status: TipStatus,
}

impl From<RawChainTip> for ChainTip {
    fn from(raw: RawChainTip) -> Self {
        let RawChainTip { height, hash, branchlen, status } = raw;
        ChainTip { height: BitcoinHeight(height), hash, branch_length: branchlen, status }
    }
}

/// A coin of the best chain's coin set, by `gettxout`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnspentCoin {
    /// Its value.
    pub value: Amount,
    /// What may spend it.
    pub script_pubkey: ScriptBuf,
    /// Confirmations of its block, at least 1.
    pub confirmations: u32,
    /// Whether a coinbase made it.
    pub coinbase: bool,
    /// The best block that this holds at.
    pub as_of: BlockHash,
}

#[derive(Deserialize)]
pub(super) struct RawUnspentCoin {
    bestblock: BlockHash,
    confirmations: u32,
    value: Btc,
    #[serde(rename = "scriptPubKey")]
    script_pubkey: RawScript,
    coinbase: bool,
}

#[derive(Deserialize)]
struct RawScript {
    hex: ScriptBuf,
}

impl From<RawUnspentCoin> for UnspentCoin {
    fn from(raw: RawUnspentCoin) -> Self {
        let RawUnspentCoin { bestblock, confirmations, value, script_pubkey, coinbase } = raw;
        UnspentCoin { value: value.0, script_pubkey: script_pubkey.hex, confirmations, coinbase, as_of: bestblock }
    }
}

/// Whether a transaction of a mempool spends an outpoint, by `gettxspendingprevout`.
#[derive(Deserialize)]
pub(super) struct RawSpending {
    pub(super) spendingtxid: Option<Txid>,
}

/// A transaction that waits in a mempool, by `getmempoolentry`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MempoolEntry {
    /// Its weight.
    pub weight: Weight,
    /// Its fee, without what prioritisation adds.
    pub fee: Amount,
    /// How many transactions spend its outputs, itself included.
    pub descendants: u32,
    /// How many transactions it needs, itself included.
    pub ancestors: u32,
    /// When it came, in seconds since 1970.
    pub since_s: u64,
}

#[derive(Deserialize)]
pub(super) struct RawMempoolEntry {
    weight: u64,
    time: u64,
    descendantcount: u32,
    ancestorcount: u32,
    fees: RawFees,
}

#[derive(Deserialize)]
struct RawFees {
    base: Btc,
}

impl From<RawMempoolEntry> for MempoolEntry {
    fn from(raw: RawMempoolEntry) -> Self {
        let RawMempoolEntry { weight, time, descendantcount, ancestorcount, fees } = raw;
        MempoolEntry {
            weight: Weight::from_wu(weight),
            fee: fees.base.0,
            descendants: descendantcount,
            ancestors: ancestorcount,
            since_s: time,
        }
    }
}

/// The state of a mempool, by `getmempoolinfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MempoolInfo {
    /// It was read from disk and takes transactions.
    pub loaded: bool,
    /// How many transactions it holds.
    pub transactions: u64,
    /// What a transaction must pay to get in.
    pub feerate_min: SatPerKvb,
    /// What a replacement must pay more than what it replaces.
    pub feerate_increment: SatPerKvb,
}

#[derive(Deserialize)]
pub(super) struct RawMempoolInfo {
    loaded: bool,
    size: u64,
    mempoolminfee: Btc,
    incrementalrelayfee: Btc,
}

impl From<RawMempoolInfo> for MempoolInfo {
    fn from(raw: RawMempoolInfo) -> Self {
        let RawMempoolInfo { loaded, size, mempoolminfee, incrementalrelayfee } = raw;
        MempoolInfo {
            loaded,
            transactions: size,
            feerate_min: mempoolminfee.to_feerate(),
            feerate_increment: incrementalrelayfee.to_feerate(),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct RawFeeEstimate {
    pub(super) feerate: Option<Btc>,
}

#[derive(Deserialize)]
pub(super) struct RawAcceptance {
    pub(super) txid: Txid,
    pub(super) allowed: Option<bool>,
    pub(super) vsize: Option<u64>,
    pub(super) fees: Option<RawAcceptedFees>,
    #[serde(rename = "reject-reason")]
    pub(super) reject_reason: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct RawAcceptedFees {
    pub(super) base: Btc,
}

/// What became of a transaction that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is in the mempool, perhaps since long, and is announced to peers again.
    InMempool,
    /// It is in a block: its outputs are coins of the best chain.
    InChain,
    /// It was refused.
    Refused(Refusal),
}

/// What a mempool would do with a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// It would take it.
    Allowed {
        /// Its virtual size as policy counts it.
        vsize: u64,
        /// Its fee.
        fee: Amount,
    },
    /// It has it, or one of the same txid with other witnesses.
    InMempool,
    /// It is in a block, with an output still unspent.
    InChain,
    /// It would refuse it.
    Refused(Refusal),
}

/// Why a mempool refuses a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// An input is spent in the best chain, or is not known: perhaps this very transaction confirmed, and its outputs
    /// are spent too.
    MissingInputs,
    /// It pays too little: to get in at all, or to replace what spends its inputs.
    Fee(Text),
    /// It conflicts with a transaction of the mempool that it may not replace.
    Conflict(Text),
    /// Its locktime or a sequence does not allow it in the next block.
    NotFinal(Text),
    /// A signature or script is wrong, or not standard.
    Script(Text),
    /// Any other reason, in bitcoind's words.
    Other(Text),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::MissingInputs => f.write_str("an input is spent or not known"),
            Refusal::Fee(reason)
            | Refusal::Conflict(reason)
            | Refusal::NotFinal(reason)
            | Refusal::Script(reason)
            | Refusal::Other(reason) => reason.fmt(f),
        }
    }
}

impl Refusal {
    /// By the reason that Bitcoin Core gives (`src/validation.cpp`), with or without details behind it.
    pub(super) fn of(reason: &str) -> Refusal {
        let is = |start: &str| reason.starts_with(start);
        if is("missing-inputs") || is("bad-txns-inputs-missingorspent") || is("Inputs missing or spent") {
            Refusal::MissingInputs
        } else if is("insufficient fee")
            || is("min relay fee not met")
            || is("mempool min fee not met")
            || is("mempool full")
            || is("replacement-failed")
        {
            Refusal::Fee(Text::of(reason))
        } else if is("txn-mempool-conflict")
            || is("bip125-replacement-disallowed")
            || is("too many potential replacements")
        {
            Refusal::Conflict(Text::of(reason))
        } else if is("non-final") || is("non-BIP68-final") {
            Refusal::NotFinal(Text::of(reason))
        } else if is("mandatory-script-verify-flag-failed")
            || is("mempool-script-verify-flag-failed")
            || is("block-script-verify-flag-failed")
            || is("non-mandatory-script-verify-flag")
            || is("bad-witness-nonstandard")
            || is("bad-txns-nonstandard-inputs")
            || is("scriptpubkey")
        {
            Refusal::Script(Text::of(reason))
        } else {
            Refusal::Other(Text::of(reason))
        }
    }
}
