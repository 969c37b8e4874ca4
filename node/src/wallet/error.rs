//! What goes wrong with a wallet.

use std::io;
use std::path::PathBuf;

use bdk_wallet::LoadError;
use bdk_wallet::descriptor::DescriptorError;
use bdk_wallet::error::{BuildFeeBumpError, CreateTxError};
use bitcoin::{Address, Amount, BlockHash, Network, Txid};
use causeway_chainspec::{ChainSpecError, PegOutAddressError};
use causeway_federation::bitcoind::{BitcoindError, EndpointCountError};
use causeway_federation::keystore::{PassphraseError, SealedFileError};
use causeway_federation::spend::SpendError;

use super::keys::MnemonicError;
use super::node::NodeUrlError;
use crate::ask::AskError;

/// What went wrong with a wallet, and what to do.
#[expect(missing_docs, reason = "every variant is documented, and its message names its fields")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalletError {
    /// No randomness.
    #[error("the operating system gives no randomness: try again, on another machine if it goes on")]
    Randomness,
    /// No mnemonic.
    #[error(transparent)]
    Mnemonic(#[from] MnemonicError),
    /// The file.
    #[error(transparent)]
    File(#[from] SealedFileError),
    /// The passphrase.
    #[error(transparent)]
    Passphrase(#[from] PassphraseError),
    /// The file's directory cannot be made.
    #[error("the directory of {} cannot be made: give another path with --wallet", path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// No wallet.
    #[error("there is no wallet {}: make one with \"causeway wallet create\", or name its file with --wallet", path.display())]
    NoWallet { path: PathBuf },
    /// The file with the words.
    #[error("{} cannot be read: give the file with the words of the wallet", path.display())]
    MnemonicFile {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Nothing was named.
    #[error("nothing to send was named: see --help")]
    NothingToSend,
    /// No place for the file.
    #[error("there is no home directory: give the wallet's file with --wallet")]
    NoHome,
    /// What is in the file is none of ours.
    #[error("{} holds something else than a wallet of this version: use the build that wrote it", path.display())]
    Content {
        path: PathBuf,
        #[source]
        source: Option<serde_json::Error>,
    },
    /// The chainspec in the file.
    #[error("the chainspec in {} is refused: use the build that wrote it", path.display())]
    ChainSpec {
        path: PathBuf,
        #[source]
        source: Box<ChainSpecError>,
    },
    /// What the file knows of the chain.
    #[error("what {} knows of the chain does not fit its keys: restore the wallet from its mnemonic, in a new file", path.display())]
    State {
        path: PathBuf,
        #[source]
        source: Option<Box<LoadError>>,
    },
    /// The descriptors.
    #[error("the keys make no descriptors: this is a mistake of the program, please report it")]
    Descriptor(#[source] Box<DescriptorError>),
    /// No URL that is used.
    #[error("{given} is no address of a node: {why}")]
    NodeUrl { given: String, why: NodeUrlError },
    /// No answer.
    #[error("no node answers at {url}: start one, or name another with --node")]
    NoAnswer {
        url: String,
        #[source]
        source: AskError,
    },
    /// The connection ended in the middle of the answer.
    #[error("the answer of {url} ends too early: try again")]
    Cut {
        url: String,
        #[source]
        source: io::Error,
    },
    /// The node refuses.
    #[error("{url} answers with status {status}: {body}")]
    Answer { url: String, status: u16, body: String },
    /// The answer is another one.
    #[error("{url} answers something else than expected: is it a Causeway node of this version?")]
    Unreadable {
        url: String,
        #[source]
        source: Option<serde_json::Error>,
    },
    /// The node is of another chain.
    #[error(
        "the node at {url} is of chain {got}, the wallet of {expected}: name a node of the wallet's chain with --node"
    )]
    OtherChain { url: String, got: BlockHash, expected: BlockHash },
    /// The coins cannot be asked for.
    #[error(
        "the node at {url} does not tell which coins are whose: name one that keeps an index (index in its config.toml) with --node"
    )]
    Sync {
        url: String,
        #[source]
        source: Box<WalletError>,
    },
    /// What the node tells is no continuation of what is known.
    #[error("the node at {url} tells of another chain than before: name another node with --node")]
    Disconnected { url: String },
    /// No address of the chain.
    #[error("{given} is no address of this chain, whose addresses are those of {network}: give one")]
    Address { given: String, network: Network },
    /// No address of Bitcoin.
    #[error("{given} is no address of Bitcoin's network {network}: give one")]
    BitcoinAddress { given: String, network: Network },
    /// A Bitcoin address that is never paid.
    #[error("{given} cannot be paid by the peg: give a P2PKH, P2SH, P2WPKH, P2WSH or P2TR address")]
    PegOutAddress {
        given: String,
        #[source]
        source: PegOutAddressError,
    },
    /// An amount that no request may have.
    #[error("{amount} cannot be withdrawn at once: give {min} to {max}")]
    PegOutAmount { amount: Amount, min: Amount, max: Amount },
    /// Nothing moves between the chains.
    #[error("the peg is frozen ({reason}): wait; payments on the chain go on")]
    Frozen { reason: String },
    /// Too few coins.
    #[error(
        "{needed} are needed with the fee, and {available} can be spent: give a smaller amount, or wait for what is pending"
    )]
    TooLittle { needed: Amount, available: Amount },
    /// The payment is too small.
    #[error("{amount} is an output that no node passes on: give a greater amount")]
    Dust { amount: Amount },
    /// A replacement that pays too little.
    #[error("a replacement must pay more: give --feerate of at least {least}")]
    FeeRateTooLow { least: String },
    /// A feerate that somebody should look at.
    #[error("the node suggests a feerate of {rate}: if that is right, give it with --feerate")]
    FeeRateTooHigh { rate: String },
    /// No transaction.
    #[error("the payment cannot be made: this is a mistake of the program, please report it")]
    Draft(#[source] Box<CreateTxError>),
    /// The transaction is none of ours, or final.
    #[error(
        "{txid} cannot be replaced: it must be a payment of this wallet that is not final; see \"causeway wallet history\""
    )]
    Bump {
        txid: Txid,
        #[source]
        source: BuildFeeBumpError,
    },
    /// A signature is missing.
    #[error("the transaction was not signed: this is a mistake of the program, please report it")]
    NotSigned,
    /// The node does not take the transaction.
    #[error("the node refuses the payment ({reason}): nothing was sent; change what the reason names")]
    Refused { reason: String },
    /// Nobody knows whether the node has it.
    #[error(
        "the node did not answer to payment {txid}: it may have it; see \"causeway wallet history\" before you pay again"
    )]
    Unknown {
        txid: Txid,
        #[source]
        source: Box<WalletError>,
    },
    /// The node tells another deposit address than the keys make.
    #[error(
        "the node at {url} answers with the deposit address {got}, the federation's keys make {expected}: DO NOT PAY to it; ask another node with --node"
    )]
    WrongDepositAddress { url: String, got: String, expected: Address },
    /// An epoch that the chainspec does not have.
    #[error(
        "the node at {url} answers with epoch {got} of the federation, the wallet's chainspec has {known}: make a wallet with the chain's newest chainspec and the same mnemonic"
    )]
    OtherEpoch { url: String, got: u32, known: u32 },
    /// Nobody paid the last addresses.
    #[error(
        "the last {gap} addresses were not paid, as far as this wallet knows, and behind so many no restored wallet would look: run \"causeway wallet balance\" to learn of payments, or use an address that was shown (\"causeway wallet address\", \"causeway wallet deposits\")"
    )]
    GapFull { gap: u32 },
    /// No deposit address of this wallet.
    #[error("{given} is no deposit address that this wallet has shown: see \"causeway wallet deposits\"")]
    NoDeposit { given: String },
    /// A credit that is not there.
    #[error(
        "the node at {url} says that {credit} is the credit, but that is not a payment to the wallet: ask another node with --node"
    )]
    WrongCredit { url: String, credit: String },
    /// A request that nobody knows.
    #[error("the node does not know the request {request}: if it was replaced, name the transaction that replaced it")]
    NoRequest { request: String },
    /// Something did not happen in time.
    #[error("after {seconds} s still waiting for {what}: to go on, run \"causeway wallet watch {again}\"")]
    Waited { what: &'static str, seconds: u64, again: String },
    /// Nothing to take back.
    #[error("no deposit of this wallet can be taken back: {why}")]
    NothingToRefund { why: String },
    /// The deposit is on the chain.
    #[error(
        "the deposit {deposit} is credited on Causeway: its coins are there, and taking it back would be theft from everybody; pay with them, or withdraw them"
    )]
    Credited { deposit: String },
    /// The refund cannot be made.
    #[error("the refund cannot be made")]
    Refund(#[source] SpendError),
    /// A refund that Bitcoin refuses.
    #[error("the Bitcoin node refuses the refund ({reason}): nothing was sent; change what the reason names")]
    RefundRefused { reason: String },
    /// Bitcoin Core.
    #[error(transparent)]
    Bitcoind(#[from] BitcoindError),
    /// No Bitcoin node.
    #[error(transparent)]
    Endpoint(#[from] EndpointCountError),
    /// Nobody to ask.
    #[error("there is no terminal to ask whether to go on: run this on one, or give --yes; nothing was done")]
    NobodyToAsk,
    /// The answer was no.
    #[error("you said no: nothing was done")]
    Declined,
    /// The terminal.
    #[error("the terminal cannot be read: try again")]
    Terminal(#[source] io::Error),
    /// No thread.
    #[error("the operating system gives no thread: end other programs and try again")]
    Thread(#[source] io::Error),
}

impl WalletError {
    /// Whether something was asked for wrongly.
    pub fn is_wrong_request(&self) -> bool {
        matches!(
            self,
            Self::Mnemonic(_)
                | Self::NodeUrl { .. }
                | Self::Address { .. }
                | Self::BitcoinAddress { .. }
                | Self::PegOutAddress { .. }
                | Self::PegOutAmount { .. }
                | Self::NoDeposit { .. }
        )
    }

    /// Whether it may go by: the node is busy, restarts, or cannot be reached for a moment.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::NoAnswer { .. } | Self::Cut { .. } => true,
            Self::Answer { status, .. } => *status >= 500 && *status != 501,
            _ => false,
        }
    }
}
