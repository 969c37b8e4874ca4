//! What goes wrong with a devnet.

use std::io;
use std::path::{Path, PathBuf};

use bitcoin::{Amount, Txid};
use causeway_federation::bitcoind::{BitcoindError, OLDEST_VERSION};

use crate::config::ConfigError;
use crate::home::HomeError;
use crate::keys::KeyFileError;
use crate::shell::mark_file::MarkFileError;

/// Bitcoin Core's oldest major version that will do.
pub(super) const OLDEST_MAJOR: u64 = OLDEST_VERSION / 10_000;

/// What went wrong with a devnet.
#[expect(missing_docs, reason = "every variant is documented, and its message names its fields")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DevnetError {
    /// A home could not be made or read.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// A key could not be made or read.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// A mark could not be made.
    #[error(transparent)]
    Mark(#[from] MarkFileError),
    /// Settings could not be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file of the devnet.
    #[error("{} cannot be {doing}", path.display())]
    Io {
        path: PathBuf,
        doing: &'static str,
        #[source]
        source: io::Error,
    },
    /// The directory holds something else.
    #[error("{} is no devnet of this version: choose another directory, or remove it", path.display())]
    NotADevnet {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    /// The directory holds nothing.
    #[error("{} holds no devnet: make one with \"causeway devnet --dir {}\"", path.display(), path.display())]
    NoDevnet { path: PathBuf },
    /// The devnet was made without Bitcoin, as tests do.
    #[error("this devnet has no Bitcoin: make one with \"causeway devnet\"")]
    NoBitcoin,
    /// No port is free.
    #[error("no port is free on this machine")]
    NoPort(#[source] io::Error),
    /// A process could not be started.
    #[error("{} could not be started: check that it is there and may be run", program.display())]
    Start {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    /// There is no bitcoind.
    #[error(
        "there is no bitcoind on PATH: install Bitcoin Core {OLDEST_MAJOR} or newer, name one with --bitcoind or in CAUSEWAY_BITCOIND, or run scripts/devnet, which builds one"
    )]
    NoBitcoind,
    /// A program is not Bitcoin Core.
    #[error(
        "{} is no Bitcoin Core (to --version it says {said:?}): name its bitcoind with --bitcoind or in CAUSEWAY_BITCOIND",
        program.display()
    )]
    NotBitcoind { program: PathBuf, said: String },
    /// A Bitcoin Core that is too old.
    #[error(
        "{} is Bitcoin Core {version}, needs {OLDEST_MAJOR} or newer: install a newer one, name another with --bitcoind, or run scripts/devnet, which builds one",
        program.display()
    )]
    OldBitcoind { program: PathBuf, version: u64 },
    /// The member daemon is not where it is built.
    #[error("{} is not there: build the whole workspace (cargo build --release --workspace)", program.display())]
    NoMemberProgram { program: PathBuf },
    /// A member could not be set up.
    #[error("{name} cannot be set up: {said}")]
    Member { name: String, said: String },
    /// A process ended.
    #[error("{name} ended by itself ({how}): its last line is {last_line:?}; all of them are in {}", log.display())]
    Ended { name: String, how: String, last_line: String, log: PathBuf },
    /// Another program has bitcoind's port.
    #[error(
        "another program listens at {endpoint}, where this devnet's bitcoind should: end it (it may be this devnet, running already), or use another directory"
    )]
    PortTaken { endpoint: String },
    /// A node does not answer.
    #[error("{name} does not answer at {url}: see its log, and whether the devnet runs")]
    NoAnswer { name: String, url: String },
    /// A node answers with something else than what was asked for.
    #[error("{name} answers to {url} with status {status}: {body}")]
    Answer { name: String, url: String, status: u16, body: String },
    /// A node's answer is not what it should be.
    #[error("{name} answers to {url} with something else than expected: is it of this version?")]
    Unreadable {
        name: String,
        url: String,
        #[source]
        source: serde_json::Error,
    },
    /// Bitcoin Core.
    #[error(transparent)]
    Bitcoind(#[from] BitcoindError),
    /// Bitcoin Core does not take a transaction.
    #[error("bitcoind refuses a payment: {reason}")]
    BitcoinRefused { reason: String },
    /// There are too few coins.
    #[error("{needed} and a fee are more than the {available} that can be spent: {advice}")]
    TooLittle { needed: Amount, available: Amount, advice: &'static str },
    /// A peg-out address, for Bitcoin.
    #[error(
        "{address} is a peg-out address: on Bitcoin anyone could take what is paid to it; pay it on Causeway, with \"causeway devnet fund\""
    )]
    NotOnBitcoin { address: String },
    /// A payment was refused.
    #[error("{name} refuses a payment: {answer}")]
    Refused { name: String, answer: String },
    /// A payment is not final.
    #[error("payment {txid} is not final after {seconds} s: see the logs of the nodes")]
    NotFinal { txid: Txid, seconds: u64 },
    /// Something did not happen.
    #[error("after {seconds} s still waiting for {what}: see the logs beside the homes")]
    Waited { what: String, seconds: u64 },
    /// Something happened otherwise than it should.
    #[error("it does not add up: {0}")]
    Wrong(String),
    /// A process did not come up in time.
    #[error("{name} does not answer at {url} after {seconds} s: see {}", log.display())]
    Silent { name: String, url: String, seconds: u64, log: PathBuf },
}

/// An [`DevnetError::Io`].
pub(super) fn io_error(path: &Path, doing: &'static str, source: io::Error) -> DevnetError {
    DevnetError::Io { path: path.to_owned(), doing, source }
}
