//! The three outcomes that never share a type: [`InvalidBlock`], [`NotReady`] and [`StateFault`].
//!
//! [`InvalidBlock`] and [`InvalidTransaction`] read as the list of the rules: one variant each.

#![expect(missing_docs, reason = "every variant is documented, and its message names its fields")]

use bitcoin::{Amount, BlockHash, OutPoint, Txid, Weight};
use causeway_chainspec::{Height, PegScriptError};

use crate::peg::InvalidPeg;

/// The rule that a block broke. Permanent, and the same on every node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidBlock {
    // ---- the bytes ----
    /// The block is longer than any valid block can be.
    #[error("block of {bytes} bytes, the limit is {max}")]
    TooManyBytes { bytes: usize, max: usize },
    /// The bytes are not one block in Bitcoin's serialisation, with nothing after it.
    #[error("not a serialised block: decoding stopped at byte {offset}")]
    Malformed { offset: usize },

    // ---- the header ----
    /// The header's version is below 4 (BIP-0065; BIP-0066; BIP-0034).
    #[error("block version {version}, needs at least 4")]
    VersionTooLow { version: i32 },
    /// The header's target is not the chain's one target (DESIGN section 2).
    #[error("bits {bits:#010x}, must be {required:#010x}")]
    WrongBits { bits: u32, required: u32 },
    /// The header's hash is above its own target.
    #[error("block hash {hash} is above its target")]
    HashAboveTarget { hash: BlockHash },
    /// The time is not after the median of the last eleven (BIP-0113).
    #[error("block time {time} is not after the median time past {median}")]
    TimeNotAfterMedian { time: u32, median: u32 },
    /// The time is before the parent's (DESIGN section 2).
    #[error("block time {time} is before its parent's {parent}")]
    TimeBeforeParent { time: u32, parent: u32 },

    // ---- the body as a whole ----
    /// No transaction at all.
    #[error("block without transactions")]
    NoTransactions,
    /// The header's merkle root is not that of these transactions.
    #[error("merkle root does not match the transactions")]
    MerkleRootMismatch,
    /// The transaction list repeats itself in a way that keeps the merkle root (CVE-2012-2459).
    #[error("transactions repeated without changing the merkle root")]
    MerkleMutated,
    /// The first transaction is not a coinbase.
    #[error("the first transaction is not a coinbase")]
    CoinbaseMissing,
    /// A second coinbase.
    #[error("transaction {index} is a second coinbase")]
    CoinbaseRepeated { index: usize },
    /// The block is heavier than allowed (BIP-0141).
    #[error("block weight {weight}, the limit is {max}")]
    TooHeavy { weight: Weight, max: Weight },
    /// Too many signature operations (BIP-0141 sigop cost).
    #[error("signature operations cost more than {max}")]
    TooManySigops { max: usize },

    // ---- the coinbase ----
    /// The coinbase's scriptSig is shorter than 2 or longer than 100 bytes.
    #[error("coinbase script of {bytes} bytes, must be 2 to 100")]
    CoinbaseScriptLength { bytes: usize },
    /// The coinbase's scriptSig does not begin with the block's height (BIP-0034).
    #[error("coinbase does not begin with height {height}")]
    CoinbaseHeight { height: Height },
    /// The coinbase's last output but one is not the only witness commitment, of exactly 38 bytes and no value (DESIGN section 2).
    #[error("coinbase does not carry exactly one witness commitment, as its last output but one, without value")]
    WitnessCommitmentForm,
    /// The coinbase's witness is not exactly one element of 32 bytes (BIP-0141).
    #[error("coinbase witness is not one element of 32 bytes")]
    WitnessReservedValue,
    /// The witness commitment is not that of these transactions (BIP-0141).
    #[error("witness commitment does not match the transactions")]
    WitnessCommitmentMismatch,
    /// The coinbase's last output is not the only state commitment, version 1, without value (DESIGN section 2).
    #[error("coinbase does not carry exactly one state commitment, as its last output, without value")]
    StateCommitmentForm,
    /// The coinbase commits to another state than the one before this block.
    #[error("state commitment {}, the state before this block is {}", hex(committed), hex(actual))]
    StateCommitmentMismatch { committed: [u8; 32], actual: [u8; 32] },
    /// The coinbase does not claim exactly the fees of its block (DESIGN section 2: no subsidy).
    #[error("coinbase claims {claimed}, the block's fees are {fees}")]
    CoinbaseValue { claimed: Amount, fees: Amount },

    // ---- the peg ----
    /// The peg transaction, or what it should have been, breaks a rule of the peg (PEG).
    #[error("the peg")]
    Peg(#[from] InvalidPeg),

    // ---- its transactions ----
    /// Two transactions of the block spend one coin.
    #[error("{outpoint} is spent twice in the block")]
    DoubleSpend { outpoint: OutPoint },
    /// The fees of the block do not fit the range of amounts.
    #[error("the block's fees exceed the range of amounts")]
    FeesOutOfRange,
    /// A transaction broke a rule.
    #[error("transaction {index} ({txid})")]
    Transaction {
        index: usize,
        txid: Txid,
        #[source]
        rule: InvalidTransaction,
    },
}

impl InvalidBlock {
    /// Whether it is only this body that is at fault, not the block of this hash.
    ///
    /// Until merkle root and witness commitment have matched, a body may have been altered on its way: whoever sent it
    /// is to blame, and another body for the same hash may still be valid. Such a verdict is never remembered for the
    /// hash (Bitcoin Core: `BLOCK_MUTATED`). A body without coinbase is one too: two ids of the honest body can be read
    /// as one transaction of 64 bytes, whose id is their parent in the tree (Bitcoin Core: `IsBlockMutated`).
    pub fn is_mutation(&self) -> bool {
        matches!(
            self,
            Self::TooManyBytes { .. }
                | Self::Malformed { .. }
                | Self::NoTransactions
                | Self::MerkleRootMismatch
                | Self::MerkleMutated
                | Self::CoinbaseMissing
                | Self::WitnessReservedValue
                | Self::WitnessCommitmentMismatch
        )
    }
}

/// The rule that a transaction broke, in a block or alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTransaction {
    // ---- context-free ----
    /// No input.
    #[error("no inputs")]
    NoInputs,
    /// No output.
    #[error("no outputs")]
    NoOutputs,
    /// The transaction without its witnesses is heavier than a block.
    #[error("larger than a block")]
    TooLarge,
    /// An output's value is above 21,000,000 BTC (CVE-2010-5139).
    #[error("value of output {vout} is out of range")]
    OutputValueOutOfRange { vout: usize },
    /// The outputs together are above 21,000,000 BTC (CVE-2010-5139).
    #[error("sum of the outputs is out of range")]
    OutputSumOutOfRange,
    /// Two inputs spend one coin (CVE-2018-17144).
    #[error("{outpoint} is spent twice")]
    DuplicateInput { outpoint: OutPoint },
    /// An input other than a coinbase's has the null outpoint.
    #[error("input {input} spends the null outpoint")]
    NullOutpoint { input: usize },
    /// A witness-version-16 output has none of the two forms (PEG section 1).
    #[error("output {vout} has witness version 16")]
    PegScript {
        vout: usize,
        #[source]
        source: PegScriptError,
    },
    /// A reserve output outside of block 1 and of a peg transaction (PEG section 1).
    #[error("output {vout} creates a reserve coin")]
    CreatesReserve { vout: usize },
    /// A peg-out request in a coinbase (PEG section 1).
    #[error("output {vout} of a coinbase is a peg-out request")]
    CoinbaseCreatesRequest { vout: usize },
    /// A peg-out request is too small or too large (PEG section 1).
    #[error("peg-out request of {value} in output {vout}, allowed are {min} to {max}")]
    RequestOutOfRange { vout: usize, value: Amount, min: Amount, max: Amount },

    // ---- with its coins ----
    /// An input's coin does not exist, or is spent.
    #[error("{outpoint} does not exist or is spent")]
    MissingInput { outpoint: OutPoint },
    /// A coinbase's output is spent before it has 100 blocks on top.
    #[error("{outpoint} was created by the coinbase of height {created} and needs {needs} blocks")]
    ImmatureCoinbase { outpoint: OutPoint, created: Height, needs: u32 },
    /// Only a peg transaction may spend a witness-version-16 coin (PEG section 1).
    #[error("{outpoint} is a coin of the peg")]
    SpendsPegCoin { outpoint: OutPoint },
    /// The inputs together are above 21,000,000 BTC.
    #[error("sum of the inputs is out of range")]
    InputSumOutOfRange,
    /// The outputs are worth more than the inputs.
    #[error("outputs of {outputs} exceed inputs of {inputs}")]
    OutputsExceedInputs { inputs: Amount, outputs: Amount },
    /// The lock time has not passed (BIP-0113).
    #[error("lock time not reached")]
    LockTime,
    /// A relative lock has not passed (BIP-0068).
    #[error("relative lock time not reached")]
    SequenceLock,
    /// A script or a signature does not permit the spend.
    #[error("input {input}: script verification failed")]
    Script { input: usize },
}

/// What is missing before a block can be judged. Wait, or fetch it; never a reason to call the block invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotReady {
    /// The block does not stand on our tip. If its parent is a final block below the tip, no waiting helps: another block
    /// is final at its height, or this one is.
    #[error("parent {parent} is not our tip {tip} at height {height}")]
    ParentNotTip { parent: BlockHash, tip: BlockHash, height: Height },
    /// Nobody wanted the verdict any more before it was found.
    #[error("the verdict was not wanted any more")]
    Cancelled,
}

/// Our disk or our bug: stop, and lose nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateFault {
    /// The store could not be read or written.
    #[cfg(feature = "store")]
    #[error("the store failed; nothing final is lost: free disk space or repair the disk, then start again")]
    Store(#[source] rocksdb::Error),
    /// What the store read is not what was written.
    #[cfg(feature = "store")]
    #[error("the store is damaged: restore the data directory from a copy, or delete it and sync again")]
    DamagedDatabase(#[source] rocksdb::Error),
    /// An earlier write failed. Nothing more is written, and a restart replays from what is on disk.
    #[error(
        "an earlier write failed, the store is stopped: fix its cause (see the first error in the log) and start again"
    )]
    Stopped,
    /// A record of the store is not what was written.
    #[error("a {record} in the store is damaged: restore the data directory from a copy, or delete it and sync again")]
    Damaged { record: &'static str },
    /// A final block does not connect on replay: the state or the code that made it is wrong.
    #[error(
        "final block at height {height} does not connect to the stored state: the state is damaged, delete the data directory and sync again"
    )]
    Replay {
        height: Height,
        #[source]
        source: Box<ReplayError>,
    },
    /// A connected block does not stand on the store's tip: a bug of the caller.
    #[error(
        "block at height {height} was connected to {parent}, the store's tip is {tip}: this is a bug, please report it"
    )]
    NotOnTip { height: Height, parent: BlockHash, tip: BlockHash },
    /// The accounts of the peg do not add up after a block that breaks no rule: a bug of ours.
    #[error("the peg's accounts do not add up after block {height}: this is a bug, please report it")]
    PegAccounts { height: Height },
    /// Bitcoin Core's library refused data that this crate had accepted: a bug of ours.
    #[error("Bitcoin Core's library refused {what}: this is a bug, please report it")]
    Kernel { what: &'static str },
    /// The chain cannot grow past the range of heights.
    #[error("no height is left after {height}: this chain has ended")]
    HeightExhausted { height: Height },
}

#[cfg(feature = "store")]
impl From<rocksdb::Error> for StateFault {
    fn from(error: rocksdb::Error) -> Self {
        match error.kind() {
            rocksdb::ErrorKind::Corruption => Self::DamagedDatabase(error),
            _ => Self::Store(error),
        }
    }
}

/// Why a final block did not connect again.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It broke a rule.
    #[error(transparent)]
    Invalid(#[from] InvalidBlock),
    /// It does not stand on the block before it.
    #[error(transparent)]
    NotReady(#[from] NotReady),
}

/// Why a block could not be resolved.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// It broke a rule.
    #[error(transparent)]
    Invalid(#[from] InvalidBlock),
    /// Something is missing.
    #[error(transparent)]
    NotReady(#[from] NotReady),
    /// We failed.
    #[error(transparent)]
    Fault(#[from] StateFault),
}

/// Why a block could not be connected.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// It broke a rule.
    #[error(transparent)]
    Invalid(#[from] InvalidBlock),
    /// Its job was cancelled.
    #[error(transparent)]
    NotReady(#[from] NotReady),
    /// We failed.
    #[error(transparent)]
    Fault(#[from] StateFault),
}

fn hex(bytes: &[u8; 32]) -> impl std::fmt::Display {
    use bitcoin::hex::DisplayHex;
    bytes.to_lower_hex_string()
}
