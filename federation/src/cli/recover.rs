//! `causeway-federation recover`: taking coins by the recovery path.
//!
//! ```text
//! recover deposits  any Causeway node -> a list of the deposits that were never swept      (keep a copy of it)
//! recover plan      the list, or a node, and a bitcoind -> transactions, unsigned          (one person)
//! recover sign      adds the signatures of a recovery key                                 (each holder)
//! recover combine   puts the signatures together, and prints what can be sent
//! ```

mod coins;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::address::NetworkUnchecked;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::hex::FromHex as _;
use bitcoin::secp256k1::SecretKey;
use bitcoin::{Address, FeeRate, ScriptBuf};
use causeway_chainspec::{ChainId, ChainSpec, devnet};
use causeway_consensus::peg::script::EpochScripts;
use clap::{Args, Subcommand};
use zeroize::Zeroizing;

use super::CliError;
use super::control::block_on;
use super::keygen::load_chain;
use crate::bitcoind::{Bitcoind, BitcoindConfig, Deadlines, Endpoint, EndpointConfig};
use crate::daemon::{NodeError, NodeUrl};
use crate::files::{self, PrivateFileError};
use crate::recover::{Recovery, RecoveryCoin, RecoveryError};

/// Most bytes of a list of coins or a recovery file.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// How long bitcoind may take for a look at all coins.
const SCAN_DEADLINE: Duration = Duration::from_secs(3_600);

/// Why a recovery does not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// The recovery.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// A file cannot be read or written.
    #[error("{} cannot be {doing}: check path, disk and permissions", path.display())]
    File {
        path: PathBuf,
        doing: &'static str,
        #[source]
        source: std::io::Error,
    },
    /// No list of coins.
    #[error("{} is no list of coins: write [{{\"outpoint\": \"txid:vout\", \"value\": satoshi, \"deposit\": {{\"destination\": hex, \"refund_key\": hex}}}}], deposit only for deposits", path.display())]
    CoinList { path: PathBuf },
    /// No key.
    #[error("{} holds no secret key: its first line must be 64 hex digits", path.display())]
    KeyFile { path: PathBuf },
    /// The file of a key is not its owner's alone.
    #[error(transparent)]
    KeyAccess(#[from] PrivateFileError),
    /// Nowhere to find coins.
    #[error(
        "no coins: give --bitcoind and --credentials-file to look for main outputs, and --node or --coins for deposits that were never swept"
    )]
    NoSource,
    /// Nothing that can be taken.
    #[error(
        "none of the coins is there and old enough: nothing was written; compare the chainspec, the list and the network of bitcoind, or wait"
    )]
    NothingThere,
    /// The node that knows the deposits.
    #[error(
        "the deposits cannot be had from the node: start any node of the network (a full node that finds no peers is enough), or give --coins with a list"
    )]
    Node(#[from] NodeError),
    /// It is of another network.
    #[error("the node at {url} follows chain {got}, the chainspec is of {expected}: use those that belong together")]
    OtherChain { url: NodeUrl, got: ChainId, expected: ChainId },
    /// It gives more than there can be.
    #[error("the node at {url} lists deposits without end: ask another one")]
    Endless { url: NodeUrl },
    /// No address.
    #[error("--destination {given} is no address of Bitcoin's network {network}: give one that you control")]
    Destination { given: String, network: bitcoin::Network },
    /// No feerate.
    #[error("--fee-rate {given}: give 1000 to 10000000 sat/kvB")]
    FeeRate { given: u64 },
    /// Too young.
    #[error("coin {outpoint} has {confirmations} confirmations, the recovery path opens at {needed}: leave it out with --mature-only, or wait {} blocks", needed - confirmations)]
    Immature { outpoint: bitcoin::OutPoint, confirmations: u32, needed: u32 },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RecoverCommand {
    /// Writes the list of deposits that were never swept, as "recover plan" takes it. Do it now and then, and keep the list
    /// with the recovery keys: without it and without any node, nobody can find those deposits.
    Deposits(DepositsArgs),
    /// Builds the transactions, unsigned, and writes them to a file for the holders of the recovery keys.
    Plan(PlanArgs),
    /// Adds signatures to such a file.
    Sign(SignArgs),
    /// Puts together the signatures of several copies of such a file, and prints the transactions once they are
    /// complete.
    Combine(CombineArgs),
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// The network: a chainspec file, or the name of a built-in network.
    #[arg(long, value_name = "FILE")]
    chain: String,
    /// A Causeway node of the network, which is asked for the deposits that were never swept. Anybody's: what it says is
    /// looked up in bitcoind.
    #[arg(long, value_name = "URL", requires = "bitcoind")]
    node: Option<NodeUrl>,
    /// If there is no node: a list of the deposits that were never swept, as "recover deposits" wrote it. What was spent
    /// since is left out.
    #[arg(long, value_name = "FILE")]
    coins: Option<PathBuf>,
    /// A bitcoind, which is asked for main outputs, and whether the coins are there and old enough.
    #[arg(long, value_name = "IP:PORT", requires = "credentials_file")]
    bitcoind: Option<Endpoint>,
    /// bitcoind's .cookie, or a file with user:password.
    #[arg(long, value_name = "FILE", requires = "bitcoind")]
    credentials_file: Option<PathBuf>,
    /// Leaves out coins whose timelock has not passed. Needs --bitcoind.
    #[arg(long, requires = "bitcoind")]
    mature_only: bool,
    /// Who gets everything: a Bitcoin address.
    #[arg(long, value_name = "ADDRESS")]
    destination: String,
    /// In sat/kvB.
    #[arg(long, value_name = "RATE")]
    fee_rate: u64,
    /// The file to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct DepositsArgs {
    /// The network: a chainspec file, or the name of a built-in network.
    #[arg(long, value_name = "FILE")]
    chain: String,
    /// A Causeway node of the network: http://IP:PORT of its REST.
    #[arg(long, value_name = "URL")]
    node: NodeUrl,
    /// The file to write. One that is there is replaced.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct SignArgs {
    /// The network: a chainspec file, or the name of a built-in network.
    #[arg(long, value_name = "FILE")]
    chain: String,
    /// The file that "recover plan" wrote. It is replaced by one with more signatures.
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// Who must get everything: nothing is signed that pays another.
    #[arg(long, value_name = "ADDRESS")]
    destination: String,
    /// A file of mode 0600 with a recovery key in hex. May be given several times.
    #[arg(long, value_name = "FILE", required_unless_present = "devnet_index")]
    key: Vec<PathBuf>,
    /// Takes the public recovery key of this number on a devnet. May be given several times.
    #[arg(long, value_name = "N")]
    devnet_index: Vec<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct CombineArgs {
    /// The network: a chainspec file, or the name of a built-in network.
    #[arg(long, value_name = "FILE")]
    chain: String,
    /// Copies of one recovery file.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Writes the combined file.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) fn recover(command: &RecoverCommand, out: &mut impl Write) -> Result<(), CliError> {
    match command {
        RecoverCommand::Deposits(args) => deposits(args, out),
        RecoverCommand::Plan(args) => plan(args, out),
        RecoverCommand::Sign(args) => sign(args, out),
        RecoverCommand::Combine(args) => combine(args, out),
    }
}

fn deposits(args: &DepositsArgs, out: &mut impl Write) -> Result<(), CliError> {
    let spec = load_chain(&args.chain)?;
    let (coins, tip) = block_on(coins::unswept(&args.node, spec.chain_id(), spec.federation().number()))??;
    let text = serde_json::to_string_pretty(&coins).map_err(std::io::Error::from)?;
    write(&args.out, &text)?;
    let value: bitcoin::Amount = coins.iter().map(|coin| bitcoin::Amount::from_sat(coin.value)).sum();
    writeln!(out, "{} deposits of {value} are not swept, as of {tip}: written to {}", coins.len(), args.out.display())?;
    Ok(())
}

fn plan(args: &PlanArgs, out: &mut impl Write) -> Result<(), CliError> {
    let spec = load_chain(&args.chain)?;
    let scripts = Arc::new(EpochScripts::build(spec.federation()));
    let destination = destination(&args.destination, &spec)?;
    if !(1_000..=10_000_000).contains(&args.fee_rate) {
        return Err(RecoverError::FeeRate { given: args.fee_rate }.into());
    }
    // sat/kvB is sat per 4,000 weight units.
    let fee_rate = FeeRate::from_sat_per_kwu(args.fee_rate.div_ceil(4));
    let mut coins: Vec<RecoveryCoin> = match &args.coins {
        Some(path) => {
            let list = serde_json::from_str(&read(path)?);
            list.map_err(|_| RecoverError::CoinList { path: path.clone() })?
        }
        None => Vec::new(),
    };
    if let Some(node) = &args.node {
        let (more, _) = block_on(coins::unswept(node, spec.chain_id(), spec.federation().number()))??;
        let new = more.into_iter().filter(|coin| coins.iter().all(|listed| listed.outpoint != coin.outpoint));
        coins.extend(new.collect::<Vec<_>>());
    }
    match (&args.bitcoind, &args.credentials_file) {
        (Some(endpoint), Some(credentials)) => {
            let bitcoind = connect(&spec, endpoint, credentials)?;
            let wanted = coins::wanted_scripts(spec.chain_id(), &scripts, &coins);
            let (found, tip) = block_on(bitcoind.scan(&wanted))??;
            let there = coins::sort_out(spec.chain_id(), &scripts, coins, &found, tip, args.mature_only)?;
            for outpoint in there.gone {
                writeln!(out, "left out: {outpoint} is not unspent on Bitcoin with the value and terms of the list")?;
            }
            coins = there.coins;
            if coins.is_empty() {
                return Err(RecoverError::NothingThere.into());
            }
        }
        _ if coins.is_empty() => return Err(RecoverError::NoSource.into()),
        _ => {}
    }
    let recovery = Recovery::plan(spec.chain_id(), &scripts, &coins, &destination, fee_rate);
    let recovery = recovery.map_err(RecoverError::from)?;
    write(&args.out, &recovery.to_json())?;
    show(&recovery, &spec, out)
}

fn connect(spec: &ChainSpec, endpoint: &Endpoint, credentials: &Path) -> Result<Bitcoind, CliError> {
    let endpoint = EndpointConfig { endpoint: endpoint.clone(), credentials_file: credentials.to_owned() };
    let mut config = BitcoindConfig::new(spec.bitcoin().network(), vec![endpoint]);
    config.deadlines = Deadlines { call: SCAN_DEADLINE, ..config.deadlines };
    Ok(Bitcoind::new(config)?)
}

fn sign(args: &SignArgs, out: &mut impl Write) -> Result<(), CliError> {
    let spec = load_chain(&args.chain)?;
    let scripts = Arc::new(EpochScripts::build(spec.federation()));
    let destination = destination(&args.destination, &spec)?;
    let mut recovery = load(&args.file, &spec, &scripts)?;
    recovery.check_destination(&destination).map_err(RecoverError::from)?;
    for path in &args.key {
        let mut key = read_key(path)?;
        let signed = recovery.sign(&key);
        key.non_secure_erase();
        signed.map_err(RecoverError::from)?;
    }
    for index in &args.devnet_index {
        recovery.sign(&devnet::secret_key(devnet::RECOVERY, *index)).map_err(RecoverError::from)?;
    }
    write(&args.file, &recovery.to_json())?;
    show(&recovery, &spec, out)
}

fn combine(args: &CombineArgs, out: &mut impl Write) -> Result<(), CliError> {
    let spec = load_chain(&args.chain)?;
    let scripts = Arc::new(EpochScripts::build(spec.federation()));
    let mut combined: Option<Recovery> = None;
    for path in &args.files {
        let recovery = load(path, &spec, &scripts)?;
        match &mut combined {
            None => combined = Some(recovery),
            Some(combined) => combined.combine(recovery).map_err(RecoverError::from)?,
        }
    }
    let Some(combined) = combined else { return Err(RecoverError::NoSource.into()) };
    if let Some(path) = &args.out {
        write(path, &combined.to_json())?;
    }
    show(&combined, &spec, out)
}

/// Tells what the transactions do, and the transactions themselves once they are complete.
fn show(recovery: &Recovery, spec: &ChainSpec, out: &mut impl Write) -> Result<(), CliError> {
    for summary in recovery.summaries() {
        let to = Address::from_script(&summary.output.script_pubkey, spec.bitcoin().network());
        let to = to.map_or_else(|_| summary.output.script_pubkey.to_hex_string(), |address| address.to_string());
        writeln!(
            out,
            "{}: {} coins pay {} to {to}, fee {}; {} signed, {} missing",
            summary.txid,
            summary.coins,
            summary.output.value,
            summary.fee,
            summary.signed_by.len(),
            summary.missing
        )?;
    }
    if let Some(transactions) = recovery.transactions().map_err(RecoverError::from)? {
        for transaction in transactions {
            writeln!(out, "{}", serialize_hex(&transaction))?;
        }
    }
    Ok(())
}

fn destination(given: &str, spec: &ChainSpec) -> Result<ScriptBuf, RecoverError> {
    let network = spec.bitcoin().network();
    let wrong = || RecoverError::Destination { given: given.to_owned(), network };
    let address: Address<NetworkUnchecked> = given.parse().map_err(|_| wrong())?;
    Ok(address.require_network(network).map_err(|_| wrong())?.script_pubkey())
}

fn load(path: &Path, spec: &ChainSpec, scripts: &Arc<EpochScripts>) -> Result<Recovery, RecoverError> {
    Ok(Recovery::from_json(spec.chain_id(), scripts, &read(path)?)?)
}

fn read(path: &Path) -> Result<String, RecoverError> {
    let failed = |source| RecoverError::File { path: path.to_owned(), doing: "read", source };
    let bytes = files::read(path, FILE_BYTES_MAX).map_err(failed)?;
    let bytes = bytes.ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
    String::from_utf8(bytes).map_err(|_| failed(std::io::ErrorKind::InvalidData.into()))
}

fn write(path: &Path, text: &str) -> Result<(), RecoverError> {
    let written = files::replace(path, files::SECRET_MODE, text.as_bytes());
    written.map_err(|source| RecoverError::File { path: path.to_owned(), doing: "written", source })
}

/// The key in the first line of a file that nobody else can read.
fn read_key(path: &Path) -> Result<SecretKey, RecoverError> {
    let none = || RecoverError::KeyFile { path: path.to_owned() };
    let file = files::open_private(path, false)?;
    let bytes = Zeroizing::new(files::read_bounded(&file, 1_024).ok().flatten().ok_or_else(none)?);
    let line = std::str::from_utf8(&bytes).ok().and_then(|text| text.lines().next()).ok_or_else(none)?;
    let secret = Zeroizing::new(<[u8; 32]>::from_hex(line.trim()).map_err(|_| none())?);
    SecretKey::from_slice(&*secret).map_err(|_| none())
}
