//! Why a member does not sign.

use bitcoin::{Amount, BlockHash, OutPoint, Txid};
use causeway_chainspec::{BitcoinHeight, ChainId, Height};
use causeway_consensus::bft::{CertificateError, CommitCertificate};

use super::{BitcoinPoint, BlockPoint};
use crate::session::INPUTS_MAX;

/// Something is missing. Ask again later.
#[expect(missing_docs, reason = "every variant is documented, and its message names its fields")]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotReady {
    /// The node is behind what this member has acted on.
    #[error(
        "the node is at height {height}, this member acted on height {acted_on}: wait until the node has caught up"
    )]
    NodeBehind { height: u32, acted_on: u32 },
    /// The member has acted since the node was asked for its block there.
    #[error("the node was not asked for its block at height {acted_on} yet: asking")]
    NotAsked { acted_on: u32 },
    /// bitcoind is behind.
    #[error("bitcoind is at height {height} and still syncing: wait")]
    BitcoinSyncing { height: BitcoinHeight },
    /// bitcoind is behind what the chain knew when it fixed the transaction.
    #[error("bitcoind is at height {height}, the transaction was fixed at Bitcoin height {fixed_at}: wait")]
    BitcoinBehind { height: BitcoinHeight, fixed_at: BitcoinHeight },
    /// Bitcoin's best chain changed between two answers.
    #[error("Bitcoin's best block changed while its coins were asked for: asking again")]
    BitcoinMoved,
    /// Not all credited deposits were looked for yet (PEG section 8, rule 3).
    #[error("deposits credited up to height {checked} were found on Bitcoin, the node is at height {tip}: looking on")]
    DepositsUnchecked { checked: u32, tip: u32 },
    /// bitcoind is behind the block of a deposit that was credited.
    #[error("bitcoind is at height {height}, the Bitcoin block at height {block} holds a credited deposit: wait")]
    DepositAhead { height: BitcoinHeight, block: u32 },
    /// A version of the batch is in a block already (PEG section 8, rule 3).
    #[error(
        "version {txid} is in a Bitcoin block: nothing is left to sign, the chain closes the batch once it is deep"
    )]
    Confirmed { txid: Txid },
}

/// A rule says no.
#[expect(missing_docs, reason = "every variant is documented, and its message names its fields")]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Rule 5.
    #[error("this member is paused: run \"causeway-federation resume\" when it may sign again")]
    Paused,
    /// The node follows another chain.
    #[error("the node follows chain {got}, this member's is {expected}: correct url under [node] in federation.toml")]
    OtherChain { got: ChainId, expected: ChainId },
    /// Rule 1: what the node calls final is not proven.
    #[error(
        "the node's certificate of {block} proves nothing ({problem}): the node lies or is damaged, sign nothing by it; run \"causeway check\" on it"
    )]
    FalseCertificate { block: BlockPoint, problem: CertificateError },
    /// Rule 1: the tip has no certificate.
    #[error("the node shows no certificate of {tip}: use a node of this version, and run \"causeway check\" on it")]
    NoCertificate { tip: BlockPoint },
    /// Rule 1: the node's chain does not descend from what this member acted on, and nothing proves it final.
    #[error(
        "this member acted on {acted_on}, and the node shows {got} there without a certificate: the node lies, or its store was replaced; sign nothing by it"
    )]
    OtherBlock { acted_on: BlockPoint, got: BlockHash },
    /// It stopped before.
    #[error("this member has stopped ({reason}): find out why, then run \"causeway-federation resume --clear-alarm\"")]
    Alarmed { reason: String },
    /// Rule 1: the peg is frozen.
    #[error("the peg is frozen ({reason}): members sign nothing until the validators resolve it")]
    Frozen { reason: String },
    /// Rule 1: not of a final block.
    #[error("the version was fixed at height {fixed}, above the final height {tip}: check the node")]
    NotFinal { fixed: Height, tip: u32 },
    /// Rule 2: not the transaction of the version.
    #[error("the rebuilt transaction is {rebuilt}, the version's is {expected}: check the node")]
    OtherTransaction { rebuilt: Txid, expected: Txid },
    /// Rule 2: the change does not come back to the federation.
    #[error("the change of the batch does not go to the main output of epoch {epoch}: check the node")]
    ForeignChange { epoch: u32 },
    /// The epoch is not known.
    #[error(
        "input {outpoint} is of epoch {epoch}, which this member does not know: use the build and chainspec of the network"
    )]
    UnknownEpoch { outpoint: OutPoint, epoch: u32 },
    /// No inputs, or too many.
    #[error("the batch has {0} inputs, at most {INPUTS_MAX} can be signed")]
    Inputs(usize),
    /// Rule 3: spent, or never there.
    #[error(
        "input {outpoint} is not unspent on Bitcoin's best chain and no version of the batch has confirmed: look for what spent it"
    )]
    Spent { outpoint: OutPoint },
    /// Rule 3: a deposit that is not on the best chain.
    #[error(
        "deposit {outpoint} was credited and is not on Bitcoin's best chain: look for a deep reorganisation or a double payment"
    )]
    DepositGone { outpoint: OutPoint },
    /// Rule 3: the block of a credited deposit, whether or not the batch spends it.
    #[error(
        "deposit {outpoint} was credited at height {credited}, and its block ({block}) is not on Bitcoin's best chain: look for a deep reorganisation, and whether node and bitcoind follow the same Bitcoin"
    )]
    CreditedOffChain { outpoint: OutPoint, credited: u32, block: BitcoinPoint },
    /// Rule 3: a credited deposit that no batch spends.
    #[error(
        "deposit {outpoint} was credited at height {credited}, no batch spends it, and it is not unspent on Bitcoin's best chain: look for what spent it"
    )]
    CreditedSpent { outpoint: OutPoint, credited: u32 },
    /// Rule 3: what was found once is gone.
    #[error(
        "{block} holds a deposit that was credited, and is not on Bitcoin's best chain any longer: look for a deep reorganisation"
    )]
    CreditsReorganised { block: BitcoinPoint },
    /// What bitcoind shows is not what the chain recorded.
    #[error(
        "input {outpoint} has value {got} or a script on Bitcoin that the chain does not record ({expected}): check node and bitcoind"
    )]
    OtherCoin { outpoint: OutPoint, got: Amount, expected: Amount },
    /// A coin that cannot be mined yet.
    #[error("input {outpoint} is of a coinbase: the peg holds no such coins, check the node")]
    Coinbase { outpoint: OutPoint },
    /// Rule 4.
    #[error(
        "coin {outpoint} was signed for in batch {earlier}: no other batch may spend it; find out why the chain says so"
    )]
    OtherBatch { outpoint: OutPoint, earlier: u64 },
}

/// A chain or a key is broken. Stop and call a person.
#[expect(missing_docs, reason = "every variant is documented, and its message names its fields")]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Breach {
    /// Rule 1: another block has a valid certificate where this member acted on a block whose certificate it does not
    /// have, as after an operator wrote the record.
    #[error(
        "this member acted on {acted_on}, and the validators have signed {} there: sign nothing; when people know which of them stands, write its height and hash into acted-on.json", other.block()
    )]
    NotADescendant { acted_on: BlockPoint, other: Box<CommitCertificate> },
    /// Rule 1: two valid certificates for one height. Validators with more than a third of the power have signed both.
    #[error(
        "two blocks are final at height {}: {} and {}, both certificates are valid and stand in alarm.json; sign nothing; when people know which of them stands, write its height and hash into acted-on.json", first.height(), first.block(), second.block()
    )]
    TwoCertificates { first: Box<CommitCertificate>, second: Box<CommitCertificate> },
}

impl Breach {
    /// The certificates that show it, encoded: proof to anybody who knows the validators.
    pub fn proof(&self) -> Vec<Vec<u8>> {
        match self {
            Self::NotADescendant { other, .. } => vec![other.encode()],
            Self::TwoCertificates { first, second } => vec![first.encode(), second.encode()],
        }
    }
}

/// Why a member does not sign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Decline {
    /// Something is missing.
    #[error(transparent)]
    NotReady(#[from] NotReady),
    /// A rule says no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Something is broken.
    #[error(transparent)]
    Breach(#[from] Breach),
}
