//! The rules of the peg: one variant each.

#![expect(missing_docs, reason = "every variant is documented, and its message names its fields")]

use bitcoin::{Amount, OutPoint, Txid, XOnlyPublicKey};
use causeway_chainspec::{BitcoinHeight, SatPerKvb};

use super::header_tree::InvalidHeaders;
use super::proof::InvalidProof;

/// The rule of the peg that a block broke (PEG).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPeg {
    // ---- the peg transaction ----
    /// The first witness of the peg transaction is not one element of evidence in its one encoding.
    #[error("the peg transaction's first witness is not one element of well-formed evidence")]
    EvidenceForm,
    /// The peg transaction is too long.
    #[error("a peg transaction of {bytes} bytes, the limit for its evidence is {max}")]
    TooLarge { bytes: usize, max: usize },
    /// The peg transaction is not the one that its evidence demands.
    #[error("the peg transaction is {got}, its evidence demands {expected}")]
    WrongTransaction { got: Txid, expected: Txid },
    /// An input of the peg transaction but the first has a witness, or an input has a scriptSig.
    #[error("input {input} of the peg transaction carries data that is not evidence")]
    StrayData { input: usize },
    /// Items of a kind are not sorted, or repeat.
    #[error("evidence items are not sorted")]
    NotSorted,
    /// The peg is frozen, and only headers and feerates are accepted (PEG section 3).
    #[error("the peg is frozen")]
    Frozen,

    // ---- Headers ----
    /// The headers break a rule of Bitcoin or of PEG section 2.
    #[error("bitcoin headers")]
    Headers(#[source] InvalidHeaders),

    // ---- proofs ----
    /// A proof names a block that is not on the best chain in state.
    #[error("a proof in Bitcoin block {height}, which the chain does not know: its Bitcoin tip is {tip}")]
    UnknownBlock { height: BitcoinHeight, tip: BitcoinHeight },
    /// A proof does not lead to its block's merkle root.
    #[error("a proof in Bitcoin block {height}")]
    Proof {
        height: BitcoinHeight,
        #[source]
        source: InvalidProof,
    },
    /// What is proven is not deep enough. The block that holds it counts as one confirmation.
    #[error("{txid} has {got} confirmations at Bitcoin height {tip}, needs {min}")]
    TooShallow { txid: Txid, got: u32, min: u32, tip: BitcoinHeight },

    // ---- BatchConfirmed, CoinSpent ----
    /// The proven transaction is no version of an open batch.
    #[error("{txid} is no version of an open batch")]
    NoSuchVersion { txid: Txid },
    /// The proven transaction is a version of an open batch, which is no foreign spend.
    #[error("{txid} is a version of a batch")]
    SpendIsBatch { txid: Txid },
    /// The proven transaction spends no coin of the peg.
    #[error("{txid} spends no coin of the peg")]
    NoPegCoinSpent { txid: Txid },

    // ---- PegIn ----
    /// The deposit names an epoch that there is not.
    #[error("deposit {outpoint} is to epoch {epoch}, which there is not")]
    UnknownEpoch { outpoint: OutPoint, epoch: u32 },
    /// The proven transaction has no such output.
    #[error("deposit {outpoint} does not exist")]
    NoSuchOutput { outpoint: OutPoint },
    /// The output's script is not that of the deposit's terms.
    #[error("deposit {outpoint} is not to the address of its terms")]
    WrongScript { outpoint: OutPoint },
    /// The destination has none of the forms that the peg pays on Causeway.
    #[error("deposit {outpoint}: the destination is no P2PKH, P2SH, P2WPKH, P2WSH, P2TR or peg-out request")]
    DestinationForm { outpoint: OutPoint },
    /// The destination is a request, and the credit is outside of a request's bounds.
    #[error("deposit {outpoint}: a peg-out request of {amount}, allowed are {min} to {max}")]
    RequestOutOfRange { outpoint: OutPoint, amount: Amount, min: Amount, max: Amount },
    /// The Bitcoin tip in state is too old to credit anything.
    #[error("deposit {outpoint}: the Bitcoin tip's time {tip_time} is more than {max_age} s before the block's {time}")]
    StaleTip { outpoint: OutPoint, tip_time: u32, time: u32, max_age: u32 },
    /// The deposit is too old to be credited.
    #[error("deposit {outpoint} is {age} Bitcoin blocks old, the claim window is {max}")]
    ClaimWindowOver { outpoint: OutPoint, age: u32, max: u32 },
    /// The deposit was credited before.
    #[error("deposit {outpoint} was credited before")]
    CreditedBefore { outpoint: OutPoint },
    /// The deposit is an output of a Bitcoin coinbase.
    #[error("deposit {outpoint} is an output of a coinbase")]
    CoinbaseDeposit { outpoint: OutPoint },
    /// The peg holds as many coins as it can look after.
    #[error("deposit {outpoint}: the peg holds {held} coins, the limit for this amount is {max}")]
    TooManyCoins { outpoint: OutPoint, held: usize, max: u32 },
    /// The deposit is smaller than what it costs to sweep it allows.
    #[error("deposit {outpoint} of {amount}, needs at least {min} at the agreed feerate")]
    DepositTooSmall { outpoint: OutPoint, amount: Amount, min: Amount },
    /// The reserve is smaller than the credit.
    #[error("deposit {outpoint}: the reserve of {reserve} cannot credit {credit}")]
    ReserveTooSmall { outpoint: OutPoint, reserve: Amount, credit: Amount },

    // ---- FeeRate ----
    /// The quote is not a validator's.
    #[error("a feerate of {key}, which is no validator")]
    NotAValidator { key: XOnlyPublicKey },
    /// The quote's signature is not right for this block's height.
    #[error("the signature of {key} on its feerate of {rate} is not right for this block")]
    QuoteSignature { key: XOnlyPublicKey, rate: SatPerKvb },

    // ---- ReplaceBatch, OpenBatch ----
    /// There is no such open batch.
    #[error("batch {number} is not open")]
    NoSuchBatch { number: u32 },
    /// The newest version is too young to be replaced.
    #[error("batch {number} can be replaced at Bitcoin height {from}, the tip is {tip}")]
    ReplacedTooEarly { number: u32, from: BitcoinHeight, tip: BitcoinHeight },
    /// The batch has the greatest feerate already.
    #[error("batch {number} pays {rate} already, the most that is permitted")]
    FeeRateAtLimit { number: u32, rate: SatPerKvb },
    /// The inputs cannot pay a higher fee.
    #[error("batch {number} cannot pay a higher fee")]
    CannotPayMore { number: u32 },
    /// A batch is opened although none is due.
    #[error("a batch is opened although none is due")]
    NothingToOpen,
    /// No batch is opened although one is due.
    #[error("no batch is opened although one is due")]
    BatchNotOpened,
}
