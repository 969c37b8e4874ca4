//! `causeway-federation run`: everything that a member needs, loaded and checked before it starts.

use std::path::PathBuf;
use std::sync::Arc;

use causeway_consensus::bft::ValidatorSet;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::{CliError, PassphraseArgs};
use crate::approve::Federation;
use crate::bitcoind::{Bitcoind, BitcoindConfig};
use crate::command::{self, one_line};
use crate::config::Config;
use crate::daemon::{self, DaemonParts, RestNode, Tempo, load_scripts};
use crate::home::Home;
use crate::keystore::{KeyLock, OpenKeys, Passphrase, SigningLog};
use crate::transport::{Limits, TransportConfig, transport_key};

/// What `causeway-federation run` is told.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The member's directory.
    #[arg(long, value_name = "DIR")]
    home: PathBuf,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    /// Stops when the process that started it is gone: for a devnet's members.
    #[arg(long, hide = true)]
    end_with_parent: bool,
}

pub(crate) fn run(args: &RunArgs) -> Result<(), CliError> {
    let home = Home::at(&args.home);
    home.check_complete()?;
    let config = Config::load(&home.config())?;
    command::start_log(&config.log_level);
    let (parts, _lock) = prepare(args, &home, config)?;
    if args.end_with_parent {
        end_with_parent();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(CliError::Runtime)?;
    runtime.block_on(async {
        check_node(&parts).await?;
        Ok(daemon::run(parts, stop_signal()).await?)
    })
}

/// Loads everything. The lock is to be kept for as long as the keys are used.
fn prepare(args: &RunArgs, home: &Home, config: Config) -> Result<(DaemonParts, KeyLock), CliError> {
    let spec = home.load_chainspec()?;
    let epoch = spec.federation();
    let chain = spec.chain_id();
    let validators = ValidatorSet::new(spec.validators())?;
    let passphrase = Passphrase::get(&args.passphrase.source(config.passphrase_file.clone()))?;
    let (keys, lock) = OpenKeys::open(&home.key(), &passphrase)?.into_parts();
    let public = keys.public();
    let own = epoch.members().iter().position(|member| *member == public.member);
    let own = own.and_then(|own| u16::try_from(own).ok());
    let own = own.ok_or_else(|| CliError::NotAMember { key: public.member, network: spec.name().to_owned() })?;
    let (peers, identities) = config.members(&home.config(), epoch, public.member, public.identity)?;
    let log = SigningLog::open(&home.signing_log(), chain, public.member)?;
    let bitcoin = Bitcoind::new(BitcoindConfig::new(spec.bitcoin().network(), config.bitcoin))?;
    if !config.node.is_loopback() {
        tracing::warn!(node = %config.node, "the node is not on this machine: its answers decide what is signed, put a tunnel around them");
    }
    let transport = TransportConfig {
        key: transport_key(&keys.identity),
        chain,
        listen: config.listen,
        peers,
        limits: Limits::default(),
    };
    let parts = DaemonParts {
        network: spec.name().to_owned(),
        federation: Federation { chain, validators, epochs: vec![load_scripts(home, epoch)?] },
        own,
        identities,
        keys,
        log,
        node_url: config.node.to_string(),
        node: Arc::new(RestNode::new(config.node)),
        bitcoin: Arc::new(bitcoin),
        transport,
        timing: config.timing,
        tempo: Tempo::default(),
        home: home.clone(),
    };
    Ok((parts, lock))
}

/// A node of another network is found out at once; one that does not answer may come.
async fn check_node(parts: &DaemonParts) -> Result<(), CliError> {
    match parts.node.chain().await {
        Ok(got) if got != parts.federation.chain => {
            Err(CliError::OtherChain { url: parts.node_url.clone(), got, expected: parts.federation.chain })
        }
        Ok(_) => {
            if let Err(error) = parts.bitcoin.tip().await {
                tracing::warn!(error = %one_line(&error), "bitcoind does not answer yet: nothing is signed until it does");
            }
            Ok(())
        }
        Err(error) => {
            tracing::warn!(error = %one_line(&error), "the node does not answer yet: nothing is signed until it does");
            Ok(())
        }
    }
}

/// Ready when the operator, or the system, says that the process should stop.
async fn stop_signal() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("signals cannot be heard: the member stops only when it is killed, which loses nothing");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Has the system ask this process to stop when the one that started it is gone, however that ended.
fn end_with_parent() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM)) {
        tracing::warn!(%error, "the member will not notice the end of the process that started it");
    }
}
