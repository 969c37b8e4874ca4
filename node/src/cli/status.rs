//! `causeway status`: a running node over REST, a stopped one from its disk.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use causeway_chainspec::{ChainSpec, LAST_DERIVED_HEIGHT};
use causeway_consensus::bft::Key;
use causeway_consensus::state::{IndexState, Store};
use causeway_consensus::{ChainView, Workers};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::CliError;
use super::keys::{describe, validator_key};
use crate::ask::{BaseUrl, Bounds};
use crate::config::Config;
use crate::home::{Home, HomeError};
use crate::shell::evidence::EvidenceStore;
use crate::shell::log_file::{LogError, LogFile};
use crate::shell::mark_file::MarkFile;

/// What the answer of a running node may take.
const BOUNDS: Bounds = Bounds::within(1 << 20, 5);

/// What `causeway status` is told.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The node's directory.
    #[arg(long, value_name = "DIR")]
    pub home: PathBuf,
    /// Prints one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// What `GET /v1/status` of a running node says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningStatus {
    /// Height of the last final block.
    pub height: u32,
    /// Its id.
    pub hash: String,
    /// Its time, in seconds since 1970.
    pub time: u32,
    /// The round of the height above.
    pub round: u32,
    /// The highest tip that peers tell of, if it is above.
    pub sync_target: Option<u32>,
    /// The key that the node votes with.
    pub validator: Option<String>,
    /// Peers of this chain.
    pub peers: u64,
    /// Transactions that wait for a block.
    pub mempool_transactions: u64,
    /// Their virtual bytes.
    pub mempool_vsize: u64,
}

/// What the disk of a stopped node says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoppedStatus {
    /// Height of the last final block.
    pub height: u32,
    /// Its id.
    pub hash: String,
    /// Its time, in seconds since 1970.
    pub time: u32,
    /// Whether its commit certificate is there; None for a block that the chainspec fixes.
    pub certificate: Option<bool>,
    /// How many coins there are.
    pub coins: u64,
    /// Blocks or certificates that were found to be missing.
    pub missing: usize,
    /// What there is of the indexes for wallets.
    pub index: &'static str,
    /// Height of the validator's consensus log.
    pub log_height: Option<u32>,
    /// Its entries.
    pub log_entries: usize,
    /// Whether it is damaged.
    pub log_damaged: bool,
    /// The validator's public key.
    pub validator: Option<String>,
    /// How far it has signed.
    pub mark: Option<String>,
    /// Proofs that validators contradicted themselves.
    pub evidence: usize,
}

#[derive(Serialize)]
struct Json<'a, T> {
    running: bool,
    #[serde(flatten)]
    status: &'a T,
}

/// Tells how far the node of a home is.
///
/// # Errors
/// It runs and does not answer, or its disk cannot be read.
pub fn status(args: &StatusArgs, out: &mut impl Write) -> Result<(), CliError> {
    let home = Home::at(&args.home);
    home.check_present()?;
    let config = Config::load(&home.config())?;
    let spec = home.load_chainspec()?;
    match home.lock() {
        Ok(_lock) => {
            let status = read_stopped(&home, &spec, &config)?;
            if args.json { write_json(false, &status, out) } else { write_stopped(&spec, &status, out) }
        }
        Err(HomeError::Running { path, pid }) => {
            let status = ask_running(&config, path, pid)?;
            if args.json { write_json(true, &status, out) } else { write_running(&spec, &status, out) }
        }
        Err(error) => Err(error.into()),
    }
}

fn ask_running(config: &Config, path: PathBuf, pid: String) -> Result<RunningStatus, CliError> {
    if !config.rest.enabled {
        return Err(CliError::RestDisabled { path, pid });
    }
    const PATH: &str = "/v1/status";
    let base: BaseUrl = format!("http://{}", reachable(config.rest.bind)).parse().expect("an address and a port");
    let url = format!("{base}{PATH}");
    let answer = base.get(PATH, BOUNDS).and_then(|answer| Ok((answer.status(), answer.bytes()?)));
    match answer {
        Ok((200, body)) => serde_json::from_slice(&body).map_err(|source| CliError::OtherAnswer { url, source }),
        Ok((status, _)) => Err(CliError::WrongAnswer { url, status }),
        Err(source) => Err(CliError::NoAnswer { path, pid, url, source }),
    }
}

/// Where to ask what listens at every address.
fn reachable(bind: SocketAddr) -> SocketAddr {
    let ip = match bind.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, bind.port())
}

fn read_stopped(home: &Home, spec: &ChainSpec, config: &Config) -> Result<StoppedStatus, CliError> {
    let (log, log_damaged) = match LogFile::peek(&home.consensus_log(), spec.chain_id()) {
        Ok(log) => (log, false),
        Err(LogError::Damaged { .. }) => (None, true),
        Err(error) => return Err(error.into()),
    };
    let key = validator_key(home)?;
    let mark = key.as_ref().map(|key| MarkFile::peek(&home.validator_mark(), spec.chain_id(), Key::address(key)));
    let mark = mark.transpose()?.map(|mark| describe(&mark));
    let store = Store::open(&home.store(), spec, config.store_options(), &Workers::new(NonZeroUsize::MIN))?;
    let tip = store.tip();
    let certificate = match tip.height() {
        height if height <= LAST_DERIVED_HEIGHT => None,
        height => Some(store.certificate(height)?.is_some()),
    };
    Ok(StoppedStatus {
        height: tip.height().to_u32(),
        hash: tip.hash().to_string(),
        time: tip.time(),
        certificate,
        coins: store.figures().coins,
        missing: store.holes().len(),
        index: describe_index(store.index_state()),
        log_height: log.as_ref().map(|(height, _)| height.to_u32()),
        log_entries: log.map_or(0, |(_, entries)| entries.len()),
        log_damaged,
        validator: key.map(|key| Key::address(&key).to_string()),
        mark,
        evidence: EvidenceStore::open(&home.evidence())?.list().len(),
    })
}

/// What there is of the indexes, in words.
pub(super) fn describe_index(state: IndexState) -> &'static str {
    match state {
        IndexState::Whole => "whole",
        IndexState::Off => "none",
        IndexState::Building => "not whole: built from the blocks while the node runs",
        IndexState::Damaged => "damaged: built again from the blocks when the node starts",
    }
}

fn write_json(running: bool, status: &impl Serialize, out: &mut impl Write) -> Result<(), CliError> {
    serde_json::to_writer(&mut *out, &Json { running, status }).map_err(std::io::Error::from)?;
    writeln!(out)?;
    Ok(())
}

fn write_running(spec: &ChainSpec, status: &RunningStatus, out: &mut impl Write) -> Result<(), CliError> {
    writeln!(out, "node       runs")?;
    writeln!(out, "chain      {} ({})", spec.name(), spec.chain_id())?;
    writeln!(out, "tip        {} {}, time {}", status.height, status.hash, status.time)?;
    match status.sync_target {
        Some(target) => writeln!(out, "sync       on the way to {target}")?,
        None => writeln!(out, "sync       at the tip, round {}", status.round)?,
    }
    writeln!(out, "validator  {}", status.validator.as_deref().unwrap_or("none: a full node"))?;
    writeln!(out, "peers      {}", status.peers)?;
    writeln!(out, "mempool    {} transactions, {} vB", status.mempool_transactions, status.mempool_vsize)?;
    Ok(())
}

fn write_stopped(spec: &ChainSpec, status: &StoppedStatus, out: &mut impl Write) -> Result<(), CliError> {
    writeln!(out, "node       stopped")?;
    writeln!(out, "chain      {} ({})", spec.name(), spec.chain_id())?;
    writeln!(out, "tip        {} {}, time {}", status.height, status.hash, status.time)?;
    let proof = match status.certificate {
        None => "none needed: the chainspec fixes this block",
        Some(true) => "there",
        Some(false) => "missing: run \"causeway check\"",
    };
    writeln!(out, "proof      {proof}")?;
    writeln!(out, "coins      {}", status.coins)?;
    writeln!(out, "index      {}", status.index)?;
    if status.missing > 0 {
        writeln!(out, "missing    {} blocks or certificates: fetched again when the node runs", status.missing)?;
    }
    match status.log_height {
        Some(height) => writeln!(out, "log        height {height}, {} entries", status.log_entries)?,
        None if status.log_damaged => writeln!(out, "log        damaged: run \"causeway check\"")?,
        None => writeln!(out, "log        empty")?,
    }
    writeln!(out, "validator  {}", status.validator.as_deref().unwrap_or("none: a full node"))?;
    if let Some(mark) = &status.mark {
        writeln!(out, "mark       {mark}")?;
    }
    writeln!(out, "evidence   {}", status.evidence)?;
    Ok(())
}
