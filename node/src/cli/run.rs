//! `causeway run`: everything that a node needs, loaded and checked before it starts.

use std::path::PathBuf;

use bitcoin::ScriptBuf;
use bitcoin::secp256k1::SECP256K1;
use causeway_chainspec::{ChainSpec, Height};
use causeway_consensus::bft::{Address, Key};
use clap::Args;
use libp2p::identity;
use tokio::signal::unix::{SignalKind, signal};

use super::CliError;
use super::keys::validator_key;
use super::parent::ask_to_end_with_parent;
use crate::config::Config;
use crate::home::{Home, HomeLock};
use crate::keys::{ValidatorKey, load_node_key};
use crate::shell::log_file::{LogFile, Remembered};
use crate::shell::mark_file::MarkFile;
use crate::shell::recovery::{RecoveryError, open_log};
use crate::shell::service::serve;

/// What `causeway run` is told.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The node's directory.
    #[arg(long, value_name = "DIR")]
    pub home: PathBuf,
    /// Follows the chain and never votes, also if there is a validator's key.
    #[arg(long)]
    pub full_node: bool,
    /// Stops when the process that started it is gone: for a devnet's nodes.
    #[arg(long, hide = true)]
    pub end_with_parent: bool,
}

/// What a node does with a validator's key, if its home has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunAs {
    /// It votes with it.
    Validator,
    /// It leaves it alone.
    FullNode,
}

/// Everything of a home that a node runs with.
#[derive(Debug)]
pub struct Prepared {
    /// Where everything else lies.
    pub home: Home,
    /// The settings, checked.
    pub config: Config,
    /// The chain.
    pub chainspec: ChainSpec,
    /// Who the node is among its peers.
    pub identity: identity::Keypair,
    /// What it votes with; None for a full node.
    pub validator: Option<Validator>,
    /// Who gets the fees of its blocks; None for a full node without `consensus.fee_address`.
    pub fee_script: Option<ScriptBuf>,
    /// To keep for as long as anything writes to the home.
    pub lock: HomeLock,
}

/// What a validator votes with.
#[derive(Debug)]
pub struct Validator {
    /// Its key.
    pub key: ValidatorKey,
    /// How far it has signed.
    pub mark: MarkFile,
}

impl Prepared {
    /// Opens the consensus log, once the tip is known. What it returns goes to the engine at the height above.
    ///
    /// # Errors
    /// The node must not vote from what is on disk: see [`RecoveryError`].
    pub fn open_log(&self, tip: Height) -> Result<(LogFile, Remembered), RecoveryError> {
        let mark = self.validator.as_ref().map(|validator| validator.mark.mark());
        open_log(&self.home, self.chainspec.chain_id(), tip, mark)
    }
}

/// Takes a home for this process and loads everything but the store and the log.
///
/// # Errors
/// The first thing that is missing, refused, or in use.
pub fn prepare(home: &Home, run_as: RunAs) -> Result<Prepared, CliError> {
    home.check_present()?;
    let config = Config::load(&home.config())?;
    let chainspec = home.load_chainspec()?;
    let fee_script = config.fee_script(chainspec.identity(), &home.config())?;
    let lock = home.lock()?;
    let identity = load_node_key(&home.node_key())?;
    let validator = match run_as {
        RunAs::FullNode => None,
        RunAs::Validator => validator_key(home)?.map(|key| open_validator(home, &chainspec, key)).transpose()?,
    };
    // The key path of BIP86: whoever has the key can spend it, and there is no script.
    let own_script = |validator: &Validator| ScriptBuf::new_p2tr(SECP256K1, validator.key.public_key(), None);
    let fee_script = fee_script.or_else(|| validator.as_ref().map(own_script));
    Ok(Prepared { home: home.clone(), config, chainspec, identity, validator, fee_script, lock })
}

fn open_validator(home: &Home, spec: &ChainSpec, key: ValidatorKey) -> Result<Validator, CliError> {
    let address = Key::address(&key);
    let mark = MarkFile::open(&home.validator_mark(), &home.validator_key(), spec.chain_id(), address)?;
    if !spec.validators().iter().any(|validator| Address::from(&validator.key) == address) {
        tracing::warn!(validator = %address, "the chainspec does not name this key: the node only follows");
    }
    Ok(Validator { key, mark })
}

/// Runs a node until it is told to stop.
///
/// # Errors
/// It cannot start, or has failed.
pub fn run(args: &RunArgs) -> Result<(), CliError> {
    let run_as = if args.full_node { RunAs::FullNode } else { RunAs::Validator };
    let home = Home::at(&args.home);
    // Before anything can be logged; what is wrong with the settings is told again below, as the error.
    start_log(&home);
    let prepared = prepare(&home, run_as)?;
    if args.end_with_parent {
        ask_to_end_with_parent();
    }
    Ok(serve(prepared, stop_signal())?)
}

/// Ready when the operator, or the system, says that the process should stop.
pub(super) async fn stop_signal() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("signals cannot be heard: the node stops only when it is killed, which loses nothing");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn start_log(home: &Home) {
    let level = Config::load(&home.config()).map(|config| config.log.level);
    causeway_federation::command::start_log(level.as_deref().unwrap_or("info"));
}
