//! Why a transaction is not taken, in Bitcoin Core's words where Core has words for it.
//!
//! What a package is refused for stands in [`package`](super::package).
//!
//! Never given: `txn-mempool-conflict`, since every transaction may be replaced by one that pays for it, and
//! `too-large-cluster`, since families are bounded instead of clusters (`too-long-mempool-chain`).
//!
//! `Display` gives what Core's `sendrawtransaction` puts into its message: the reason, then a comma and the detail.

use std::borrow::Cow;
use std::fmt;

use bitcoin::{Amount, OutPoint, Txid, Wtxid};
use causeway_chainspec::SatPerKvb;
use causeway_consensus::{InvalidTransaction, StateFault};

use super::feerate::{BtcPerKvb, Money};

/// Why a transaction is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// It breaks a rule of the chain, now and for ever: who sends it checks nothing. Hold it against a peer, and remember
    /// the wtxid (never the txid: another witness may be right).
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A coin, a height or a time is missing. It may be valid later, and nobody is at fault.
    #[error(transparent)]
    NotYet(#[from] NotYet),
    /// Valid, for all that was checked, and not what this node relays. Nobody is at fault.
    #[error(transparent)]
    Policy(#[from] PolicyReject),
}

impl Reject {
    /// Returns the short reason, without details.
    pub fn reason(&self) -> Cow<'static, str> {
        match self {
            Self::Invalid(invalid) => invalid.reason(),
            Self::NotYet(not_yet) => Cow::Borrowed(not_yet.reason()),
            Self::Policy(policy) => policy.reason(),
        }
    }

    /// Whether it is for the fee alone, so that a child that pays more may bring the transaction in (Core:
    /// `TX_RECONSIDERABLE`).
    pub fn is_for_the_fee(&self) -> bool {
        use PolicyReject::{InsufficientFee, MempoolFull, MempoolMinFee, MinRelayFee};
        let Self::Policy(policy) = self else { return false };
        matches!(policy, MempoolMinFee { .. } | MinRelayFee { .. } | InsufficientFee { .. } | MempoolFull)
    }
}

/// Why a check gave no checked transaction.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The transaction is not taken.
    #[error(transparent)]
    Rejected(#[from] Reject),
    /// We failed.
    #[error(transparent)]
    Fault(#[from] StateFault),
}

impl From<InvalidTransaction> for Reject {
    fn from(rule: InvalidTransaction) -> Self {
        match rule {
            InvalidTransaction::LockTime => NotYet::NonFinal.into(),
            InvalidTransaction::SequenceLock => NotYet::NonBip68Final.into(),
            InvalidTransaction::MissingInput { outpoint } => NotYet::MissingInput { outpoint }.into(),
            InvalidTransaction::ImmatureCoinbase { outpoint, .. } => NotYet::ImmatureCoinbase { outpoint }.into(),
            rule => Invalid::Rule(rule).into(),
        }
    }
}

/// A script that fails, and where (Core: `CheckInputScripts`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptFailure {
    /// The failing input.
    pub input: usize,
    /// The transaction.
    pub txid: Txid,
    /// The same with its witnesses.
    pub wtxid: Wtxid,
    /// What the input spends.
    pub spends: OutPoint,
    /// Core's words for what is wrong (`ScriptErrorString`); "unknown error" if only the interpreter knows, which does not
    /// tell.
    pub error: &'static str,
}

impl ScriptFailure {
    fn reason(&self) -> String {
        format!("mempool-script-verify-flag-failed ({})", self.error)
    }
}

impl fmt::Display for ScriptFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { input, txid, wtxid, spends, .. } = self;
        write!(f, "{}, input {input} of {txid} (wtxid {wtxid}), spending {spends}", self.reason())
    }
}

/// A broken rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A rule that blocks share.
    #[error("{}, {_0}", rule_reason(_0))]
    Rule(InvalidTransaction),
    /// A coinbase outside of a block.
    #[error("coinbase")]
    Coinbase,
    /// A script or a signature does not permit the spend.
    #[error("{_0}")]
    Script(Box<ScriptFailure>),
    /// It spends an output of a transaction that it also double-spends.
    #[error("bad-txns-spends-conflicting-tx, {txid} spends conflicting transaction {conflict}")]
    SpendsConflict {
        /// The transaction.
        txid: Txid,
        /// Its ancestor that it conflicts with.
        conflict: Txid,
    },
}

impl Invalid {
    fn reason(&self) -> Cow<'static, str> {
        match self {
            Self::Rule(rule) => Cow::Borrowed(rule_reason(rule)),
            Self::Coinbase => Cow::Borrowed("coinbase"),
            Self::Script(failure) => Cow::Owned(failure.reason()),
            Self::SpendsConflict { .. } => Cow::Borrowed("bad-txns-spends-conflicting-tx"),
        }
    }
}

/// Core's reason for a rule; a name in its manner for the rules of the peg.
fn rule_reason(rule: &InvalidTransaction) -> &'static str {
    match rule {
        InvalidTransaction::NoInputs => "bad-txns-vin-empty",
        InvalidTransaction::NoOutputs => "bad-txns-vout-empty",
        InvalidTransaction::TooLarge => "bad-txns-oversize",
        InvalidTransaction::OutputValueOutOfRange { .. } => "bad-txns-vout-toolarge",
        InvalidTransaction::OutputSumOutOfRange => "bad-txns-txouttotal-toolarge",
        InvalidTransaction::DuplicateInput { .. } => "bad-txns-inputs-duplicate",
        InvalidTransaction::NullOutpoint { .. } => "bad-txns-prevout-null",
        InvalidTransaction::InputSumOutOfRange => "bad-txns-inputvalues-outofrange",
        InvalidTransaction::OutputsExceedInputs { .. } => "bad-txns-in-belowout",
        InvalidTransaction::PegScript { .. } => "bad-peg-script",
        InvalidTransaction::CreatesReserve { .. } => "bad-peg-reserve",
        InvalidTransaction::RequestOutOfRange { .. } => "bad-peg-out-amount",
        InvalidTransaction::SpendsPegCoin { .. } => "bad-peg-spend",
        _ => "bad-txns",
    }
}

/// What is missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotYet {
    /// An input's coin is neither in the chain nor in the pool: unknown, or spent. Transactions that wait for a parent
    /// are not kept.
    #[error("bad-txns-inputs-missingorspent")]
    MissingInput {
        /// The first such coin.
        outpoint: OutPoint,
    },
    /// The lock time does not permit the next block (BIP-0113).
    #[error("non-final")]
    NonFinal,
    /// A relative lock does not permit the next block (BIP-0068).
    #[error("non-BIP68-final")]
    NonBip68Final,
    /// A coinbase's output has fewer than 100 blocks on top in the next block.
    #[error("bad-txns-premature-spend-of-coinbase, {outpoint}")]
    ImmatureCoinbase {
        /// The coin.
        outpoint: OutPoint,
    },
    /// The chain grew during every one of several checks. Send it again.
    #[error("chain moved during the check")]
    ChainMoved,
    /// Too many others that were handed in here have no verdict yet. Send it again.
    #[error("too many transactions wait for a check")]
    Busy,
}

impl NotYet {
    fn reason(&self) -> &'static str {
        match self {
            Self::MissingInput { .. } => "bad-txns-inputs-missingorspent",
            Self::NonFinal => "non-final",
            Self::NonBip68Final => "non-BIP68-final",
            Self::ImmatureCoinbase { .. } => "bad-txns-premature-spend-of-coinbase",
            Self::ChainMoved => "chain moved during the check",
            Self::Busy => "too many transactions wait for a check",
        }
    }
}

/// What this node does not relay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyReject {
    // ---- the transaction alone ----
    /// Its version is none of 1, 2 and 3.
    #[error("version")]
    Version,
    /// It is heavier than 400,000 weight units.
    #[error("tx-size")]
    TooLarge,
    /// Without witnesses it has fewer than 65 bytes.
    #[error("tx-size-small")]
    TooSmall,
    /// A scriptSig has more than 1,650 bytes.
    #[error("scriptsig-size")]
    ScriptSigSize,
    /// A scriptSig does more than push.
    #[error("scriptsig-not-pushonly")]
    ScriptSigNotPushOnly,
    /// An output's script has no standard form.
    #[error("scriptpubkey")]
    ScriptPubkey,
    /// The OP_RETURN scripts are too long together.
    #[error("datacarrier")]
    Datacarrier,
    /// An output is a bare multisig, which the operator does not permit.
    #[error("bare-multisig")]
    BareMultisig,
    /// Several outputs are worth less than spending them costs.
    #[error("dust")]
    Dust,
    /// An output is worth less than spending it costs, and the transaction pays a fee: somebody could mine it alone.
    #[error("dust, tx with dust output must be 0-fee")]
    DustWithFee,
    /// A peg-out request, while the peg is frozen (PEG section 3).
    #[error("peg-frozen, the peg is frozen: no peg-out request is taken until it is resolved")]
    PegFrozen,

    // ---- with its coins ----
    /// An input's coin or redeem script has no standard form.
    #[error("bad-txns-nonstandard-inputs, {_0}")]
    NonstandardInput(NonstandardInput),
    /// An input's witness is beyond the standard limits, or has an annex.
    #[error("bad-witness-nonstandard")]
    NonstandardWitness,
    /// The signature operations cost more than 16,000.
    #[error("bad-txns-too-many-sigops, {cost}")]
    TooManySigops {
        /// What they cost.
        cost: usize,
    },
    /// A script is spent in a way that is valid and not standard: an encoding, or something kept for later upgrades.
    #[error("{_0}")]
    Script(Box<ScriptFailure>),

    // ---- with the pool ----
    /// It is in the pool.
    #[error("txn-already-in-mempool")]
    AlreadyInMempool,
    /// It is in the pool with another witness.
    #[error("txn-same-nonwitness-data-in-mempool")]
    SameTxidInMempool,
    /// It is in the chain: one of its outputs is a coin.
    #[error("txn-already-known")]
    AlreadyKnown,
    /// It entered too long ago.
    #[error("expired")]
    Expired,
    /// Its feerate is below what the full pool asks for at the moment.
    #[error("mempool min fee not met, {} < {}", fee.to_sat(), need.to_sat())]
    MempoolMinFee {
        /// What it pays.
        fee: Amount,
        /// What it would have to pay.
        need: Amount,
    },
    /// Its feerate is below what this node relays.
    #[error("min relay fee not met, {} < {}", fee.to_sat(), need.to_sat())]
    MinRelayFee {
        /// What it pays.
        fee: Amount,
        /// What it would have to pay.
        need: Amount,
    },
    /// It pays too little for what it replaces.
    #[error("insufficient fee{}, rejecting replacement {txid}{reason}", if *sibling { SIBLING } else { "" })]
    InsufficientFee {
        /// The transaction.
        txid: Txid,
        /// Whether the other child of a TRUC parent is among what it replaces.
        sibling: bool,
        /// Which of the rules it breaks.
        reason: InsufficientFee,
    },
    /// It would evict more than 100 transactions.
    #[error(
        "too many potential replacements, rejecting replacement {txid}; too many potential replacements ({count} > {max})"
    )]
    TooManyReplaced {
        /// The transaction.
        txid: Txid,
        /// How many, or how many were counted until it was too many.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// Too many unconfirmed transactions would hang together.
    #[error("too-long-mempool-chain, {_0}")]
    TooLongChain(TooLongChain),
    /// A rule about version 3 (BIP-0431).
    #[error("TRUC-violation, {_0}")]
    Truc(Box<TrucViolation>),
    /// Its feerate is above what its sender permits.
    #[error("max feerate exceeded")]
    MaxFeerate,
    /// It spends from a parent in the pool, or in its package, and leaves the parent's dust.
    #[error("missing-ephemeral-spends, tx {_0} did not spend parent's ephemeral dust")]
    LeavesDust(Named),
    /// It was the first to go from the full pool.
    #[error("mempool full")]
    MempoolFull,
}

const SIBLING: &str = " (including sibling eviction)";

impl PolicyReject {
    fn reason(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Version => "version",
            Self::TooLarge => "tx-size",
            Self::TooSmall => "tx-size-small",
            Self::ScriptSigSize => "scriptsig-size",
            Self::ScriptSigNotPushOnly => "scriptsig-not-pushonly",
            Self::ScriptPubkey => "scriptpubkey",
            Self::Datacarrier => "datacarrier",
            Self::BareMultisig => "bare-multisig",
            Self::Dust | Self::DustWithFee => "dust",
            Self::PegFrozen => "peg-frozen",
            Self::NonstandardInput(_) => "bad-txns-nonstandard-inputs",
            Self::NonstandardWitness => "bad-witness-nonstandard",
            Self::TooManySigops { .. } => "bad-txns-too-many-sigops",
            Self::Script(failure) => return Cow::Owned(failure.reason()),
            Self::AlreadyInMempool => "txn-already-in-mempool",
            Self::SameTxidInMempool => "txn-same-nonwitness-data-in-mempool",
            Self::AlreadyKnown => "txn-already-known",
            Self::Expired => "expired",
            Self::MempoolMinFee { .. } => "mempool min fee not met",
            Self::MinRelayFee { .. } => "min relay fee not met",
            Self::InsufficientFee { sibling: false, .. } => "insufficient fee",
            Self::InsufficientFee { sibling: true, .. } => "insufficient fee (including sibling eviction)",
            Self::TooManyReplaced { .. } => "too many potential replacements",
            Self::TooLongChain(_) => "too-long-mempool-chain",
            Self::Truc(_) => "TRUC-violation",
            Self::MaxFeerate => "max feerate exceeded",
            Self::LeavesDust(_) => "missing-ephemeral-spends",
            Self::MempoolFull => "mempool full",
        })
    }
}

/// What is not standard about an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NonstandardInput {
    /// More than 2,500 signature operations outside of witnesses.
    #[error("non-witness sigops exceed bip54 limit")]
    LegacySigops,
    /// The coin's script has no standard form.
    #[error("input {input} script unknown")]
    Unknown {
        /// The input.
        input: usize,
    },
    /// The coin's witness program has no meaning yet.
    #[error("input {input} witness program is undefined")]
    UndefinedProgram {
        /// The input.
        input: usize,
    },
    /// The scriptSig pushes no redeem script.
    #[error("input {input} P2SH redeemscript missing")]
    RedeemScriptMissing {
        /// The input.
        input: usize,
    },
    /// The redeem script has more than 15 signature operations.
    #[error("p2sh redeemscript sigops exceed limit (input {input}: {count} > 15)")]
    RedeemScriptSigops {
        /// The input.
        input: usize,
        /// How many.
        count: usize,
    },
}

/// What a replacement pays too little for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InsufficientFee {
    /// Less than all it evicts together (BIP-0125 rule 3).
    #[error(", less fees than conflicting txs; {} < {}", Money(*fee), Money(*replaced))]
    Total {
        /// What it pays.
        fee: Amount,
        /// What it evicts.
        replaced: Amount,
    },
    /// Too little more, for its own relay (BIP-0125 rule 4).
    #[error(", not enough additional fees to relay; {} < {}", Money(*additional), Money(*need))]
    Relay {
        /// What it pays more.
        additional: Amount,
        /// What its relay costs.
        need: Amount,
    },
    /// A feerate not above that of what it conflicts with (Core up to 30: `PaysMoreThanConflicts`).
    #[error("; new feerate {} <= old feerate {}", BtcPerKvb(*new), BtcPerKvb(*old))]
    Feerate {
        /// Its feerate, with its ancestors if it brings new ones in.
        new: SatPerKvb,
        /// The best feerate of what it conflicts with.
        old: SatPerKvb,
    },
}

/// Which limit of the graph is passed (Core up to 30: `CalculateAncestorsAndCheckLimits`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooLongChain {
    /// Too many ancestors.
    #[error("too many unconfirmed ancestors [limit: {limit}]")]
    Ancestors {
        /// The limit.
        limit: usize,
    },
    /// Ancestors of too many virtual bytes.
    #[error("exceeds ancestor size limit [limit: {limit}]")]
    AncestorsSize {
        /// The limit.
        limit: u64,
    },
    /// Too many descendants of an ancestor.
    #[error("too many descendants for tx {txid} [limit: {limit}]")]
    Descendants {
        /// The ancestor.
        txid: Txid,
        /// The limit.
        limit: usize,
    },
    /// Descendants of an ancestor of too many virtual bytes.
    #[error("exceeds descendant size limit for tx {txid} [limit: {limit}]")]
    DescendantsSize {
        /// The ancestor.
        txid: Txid,
        /// The limit.
        limit: u64,
    },
}

/// A transaction as Core's messages name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    /// Its id.
    pub txid: Txid,
    /// Its id with witnesses.
    pub wtxid: Wtxid,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (wtxid={})", self.txid, self.wtxid)
    }
}

/// Which rule of BIP-0431 is broken (Core: `SingleTRUCChecks`, `PackageTRUCChecks`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TrucViolation {
    /// Version 3 spends an unconfirmed output of another version.
    #[error("version=3 tx {child} cannot spend from non-version=3 tx {parent}")]
    SpendsOther {
        /// The transaction.
        child: Named,
        /// Its parent.
        parent: Named,
    },
    /// Another version spends an unconfirmed output of version 3.
    #[error("non-version=3 tx {child} cannot spend from version=3 tx {parent}")]
    OtherSpends {
        /// The transaction.
        child: Named,
        /// Its parent.
        parent: Named,
    },
    /// More than 10,000 virtual bytes.
    #[error("version=3 tx {tx} is too big: {vsize} > {max} virtual bytes")]
    TooBig {
        /// The transaction.
        tx: Named,
        /// Its virtual bytes.
        vsize: u64,
        /// The limit.
        max: u64,
    },
    /// More than 1,000 virtual bytes with an unconfirmed parent.
    #[error("version=3 child tx {tx} is too big: {vsize} > {max} virtual bytes")]
    ChildTooBig {
        /// The transaction.
        tx: Named,
        /// Its virtual bytes.
        vsize: u64,
        /// The limit.
        max: u64,
    },
    /// More than one unconfirmed ancestor.
    #[error("tx {_0} would have too many ancestors")]
    Ancestors(Named),
    /// The parent has another child, which cannot be replaced here.
    #[error("tx {_0} would exceed descendant count limit")]
    Descendants(Named),
}
