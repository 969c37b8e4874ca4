//! Why a command failed.

use std::io;
use std::path::PathBuf;

use causeway_chainspec::{ChainSpecError, Height};
use causeway_consensus::StateFault;
use causeway_consensus::state::OpenError;
use causeway_federation::command::CommandError;

use super::check::Damage;
use crate::ask::AskError;
use crate::config::ConfigError;
use crate::devnet::DevnetError;
use crate::home::HomeError;
use crate::keys::KeyFileError;
use crate::shell::evidence::EvidenceFileError;
use crate::shell::log_file::LogError;
use crate::shell::mark_file::MarkFileError;
use crate::shell::recovery::RecoveryError;
use crate::shell::service::ServiceError;
use crate::wallet::WalletError;

/// Why a command failed, and what to do.
#[expect(missing_docs, reason = "every variant is documented, and its message names its fields")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// The home.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A key file.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The high-water mark.
    #[error(transparent)]
    Mark(#[from] MarkFileError),
    /// The consensus log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The state of log, mark and tip together.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The evidence.
    #[error(transparent)]
    Evidence(#[from] EvidenceFileError),
    /// The store does not open.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The store does not read.
    #[error(
        "the store cannot be read: check the disk, then restore the store from a copy, or delete it and sync again"
    )]
    State(#[from] StateFault),
    /// The store holds what it should not.
    #[error("the store {} is damaged: restore the directory from a copy, or delete it and sync again; never delete the directory keys", path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        source: Box<Damage>,
    },
    /// Blocks or certificates are missing, and can be fetched again.
    #[error("the store {} lacks the block or the certificate of {count} heights, the first of which is {first}: start the node, which fetches them again from its peers, and check again; all else is in order", path.display())]
    Missing { path: PathBuf, count: usize, first: Height },
    /// No chainspec of this name.
    #[error("--chain {given} is neither a file nor a built-in network: give the path of a chainspec file, or one of: {}", built_in.join(", "))]
    NoSuchChain { given: String, built_in: Vec<&'static str> },
    /// The values are no chainspec.
    #[error("these values make no chainspec: change what the cause names")]
    ChainSpec(#[source] Box<ChainSpecError>),
    /// The file with the start of Bitcoin is not what it should be.
    #[error("{} is refused: it must hold the section [bitcoin] of a chainspec, and nothing else", path.display())]
    BitcoinStart {
        path: PathBuf,
        #[source]
        source: Option<Box<ChainSpecError>>,
    },
    /// The clock is outside of what a chain can have.
    #[error("this machine's clock gives no time for block 1: set the clock, or give --genesis-time")]
    Clock,
    /// A key from elsewhere may have signed.
    #[error(
        "a key that is imported may have signed elsewhere: give --above <height>, a height that the network has decided (0 if the key was never used), and run the key nowhere else"
    )]
    ImportWithoutAbove,
    /// `--above` without an imported key.
    #[error("--above is for an imported validator key: a new key has signed nothing, leave it out")]
    AboveWithoutImport,
    /// No validator key to adopt.
    #[error("{} has no validator key: nothing has to be adopted", path.display())]
    NoValidatorKey { path: PathBuf },
    /// The home of a running node that does not answer.
    #[error("the node on {} runs (pid {pid}), but {url} does not answer: see its log, and [rest] in its config.toml", path.display())]
    NoAnswer {
        path: PathBuf,
        pid: String,
        url: String,
        #[source]
        source: AskError,
    },
    /// The home of a running node that serves no REST.
    #[error("the node on {} runs (pid {pid}), but serves no REST: set enabled = true under [rest] in its config.toml and restart it", path.display())]
    RestDisabled { path: PathBuf, pid: String },
    /// Something else answers.
    #[error("{url} answers with status {status}: another program listens there, or the node is still starting")]
    WrongAnswer { url: String, status: u16 },
    /// Something else is answered.
    #[error(
        "{url} answers something else than a node's status: another program listens there, or a node of another version; see [rest] in its config.toml"
    )]
    OtherAnswer {
        url: String,
        #[source]
        source: serde_json::Error,
    },
    /// The barrier is below the chain's first decided height.
    #[error(
        "--above {got} is below {min}, the last height that nobody votes on: give the highest height that the network has decided"
    )]
    AboveTooLow { got: Height, min: Height },
    /// Standard output is closed or full.
    #[error("the result cannot be written to standard output: check where it goes")]
    Output(#[from] io::Error),
    /// The node.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The devnet.
    #[error(transparent)]
    Devnet(#[from] DevnetError),
    /// The wallet.
    #[error(transparent)]
    Wallet(#[from] WalletError),
}

impl CommandError for CliError {
    fn output(&self) -> Option<&io::Error> {
        if let Self::Output(error) = self { Some(error) } else { None }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::NoSuchChain { .. }
            | Self::ImportWithoutAbove
            | Self::AboveWithoutImport
            | Self::AboveTooLow { .. } => 2,
            Self::Wallet(error) if error.is_wrong_request() => 2,
            _ => 1,
        }
    }
}
