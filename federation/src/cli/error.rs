//! Why a command failed.

use std::io;
use std::path::PathBuf;

use bitcoin::secp256k1::PublicKey;
use causeway_chainspec::ChainId;
use causeway_consensus::bft::ValidatorSetError;

use crate::bitcoind::{BitcoindError, EndpointCountError};
use crate::command::CommandError;
use crate::config::ConfigError;
use crate::daemon::{ControlError, DaemonError};
use crate::home::HomeError;
use crate::keystore::{KeystoreError, PassphraseError, SigningLogError};
use crate::musig::KeyError;

use super::recover::RecoverError;

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
    /// The key file.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    /// A key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The passphrase.
    #[error(transparent)]
    Passphrase(#[from] PassphraseError),
    /// The signing log.
    #[error(transparent)]
    Log(#[from] SigningLogError),
    /// The member.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// The way to the member.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The endpoints of bitcoind.
    #[error(transparent)]
    Endpoints(#[from] EndpointCountError),
    /// bitcoind.
    #[error(transparent)]
    Bitcoind(#[from] BitcoindError),
    /// Recovery.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// No chainspec of this name.
    #[error("--chain {given} is neither a file nor a built-in network: give the path of the network's chainspec.toml")]
    NoSuchChain { given: String },
    /// The network has other keys than the public ones.
    #[error(
        "--devnet-index is for networks whose members are the public keys of the built-in devnet: leave it out, and make keys of your own"
    )]
    NotDevnet,
    /// There is no such public key.
    #[error("--devnet-index {got}: the devnet has {members} members, 0 to {}", members - 1)]
    DevnetIndex { got: u32, members: u32 },
    /// The validators of the chainspec.
    #[error("the validators of the chainspec are no set: use the chainspec that the network was made with")]
    Validators(#[from] ValidatorSetError),
    /// The key is of nobody in this network.
    #[error(
        "key {key} is no member of the federation of {network}: use the home and the chainspec that belong together"
    )]
    NotAMember { key: PublicKey, network: String },
    /// The node is of another network.
    #[error(
        "the node at {url} follows chain {got}, the chainspec is of {expected}: correct url under [node] in federation.toml, or the chainspec"
    )]
    OtherChain { url: String, got: ChainId, expected: ChainId },
    /// An alarm stands.
    #[error(
        "the member has stopped with an alarm ({reason}): find out why; if it is safe to sign again, run resume with --clear-alarm"
    )]
    Alarmed { reason: String },
    /// Nothing to do.
    #[error("{} has keys already: give --chain to give them their network, or choose another directory", path.display())]
    KeysExist { path: PathBuf },
    /// The runtime.
    #[error("the system gives no threads to run on: free some memory and start again")]
    Runtime(#[source] io::Error),
    /// Standard output is closed or full.
    #[error("the result cannot be written to standard output: check where it goes")]
    Output(#[from] io::Error),
}

impl CommandError for CliError {
    fn output(&self) -> Option<&io::Error> {
        if let Self::Output(error) = self { Some(error) } else { None }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::NoSuchChain { .. } | Self::NotDevnet | Self::DevnetIndex { .. } | Self::KeysExist { .. } => 2,
            _ => 1,
        }
    }
}
