//! `status`, `pause`, `resume` and `verify-backup`.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;

use super::{CliError, PassphraseArgs};
use crate::daemon::{Status, TaskState, ask_status, load_alarm, nudge};
use crate::files;
use crate::home::Home;
use crate::keystore::{Passphrase, verify_backup as verify};

/// A member's directory.
#[derive(Debug, Args)]
pub(crate) struct HomeArgs {
    /// The member's directory.
    #[arg(long, value_name = "DIR")]
    home: PathBuf,
}

/// What `causeway-federation status` is told.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    home: HomeArgs,
    /// Everything, as JSON.
    #[arg(long)]
    json: bool,
}

/// What `causeway-federation resume` is told.
#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    home: HomeArgs,
    /// Also after an alarm, whose cause is known and gone.
    #[arg(long)]
    clear_alarm: bool,
}

/// What `causeway-federation verify-backup` is told.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The copy of member.key.
    file: PathBuf,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

pub(crate) fn status(args: &StatusArgs, out: &mut impl Write) -> Result<(), CliError> {
    let status = block_on(ask_status(&Home::at(&args.home.home)))??;
    if args.json {
        let text = serde_json::to_string_pretty(&status).map_err(io::Error::from)?;
        writeln!(out, "{text}")?;
    } else {
        show(&status, out)?;
    }
    Ok(())
}

fn show(status: &Status, out: &mut impl Write) -> io::Result<()> {
    let Status { network, member, member_key, .. } = status;
    let runs = if status.running { "running" } else { "STOPPED (this is what it left)" };
    writeln!(out, "member {member} of {network} ({member_key}): {runs}")?;
    if let Some(alarm) = &status.alarm {
        writeln!(out, "ALARM since {}: {}", alarm.time, alarm.reason)?;
    }
    if status.paused {
        writeln!(out, "PAUSED: signs nothing until \"causeway-federation resume\"")?;
    }
    let node = &status.node;
    match (&node.error, &node.tip) {
        (Some(error), _) => writeln!(out, "node      {error}")?,
        (None, Some(tip)) => writeln!(out, "node      {tip} ({})", node.url)?,
        (None, None) => writeln!(out, "node      not asked yet ({})", node.url)?,
    }
    if let Some(frozen) = &node.frozen {
        writeln!(out, "FROZEN    {frozen}")?;
    }
    let bitcoin = &status.bitcoin;
    match (&bitcoin.error, bitcoin.height) {
        (Some(error), _) => writeln!(out, "bitcoin   {error}")?,
        (None, Some(height)) => {
            writeln!(out, "bitcoin   height {height}{}", if bitcoin.syncing { ", syncing" } else { "" })?;
        }
        (None, None) => writeln!(out, "bitcoin   not asked yet")?,
    }
    if let Some(acted_on) = &status.acted_on {
        writeln!(out, "acted on  {acted_on}")?;
    }
    let connected = status.peers.iter().filter(|peer| peer.connected).count();
    let absent: Vec<_> = status.peers.iter().filter(|peer| !peer.connected).map(|peer| peer.member).collect();
    writeln!(out, "peers     {connected} of {}, absent: {absent:?}", status.peers.len())?;
    for task in &status.tasks {
        let state = if task.state == TaskState::Signed { "signed" } else { "signing" };
        let path = task.path.as_deref().unwrap_or("none yet");
        writeln!(
            out,
            "task      batch {} ({}, version {}) {}: {state}, path {path}, round {} of {}, missing {:?}, {} ms",
            task.batch, task.kind, task.version, task.txid, task.round, task.last_round, task.missing, task.took_ms
        )?;
        for (member, fault) in &task.faults {
            writeln!(out, "          member {member} {fault}")?;
        }
    }
    for transaction in &status.transactions {
        let sent = transaction.sent.as_deref().unwrap_or("not sent yet");
        writeln!(out, "signed    batch {} {} by {}: {sent}", transaction.batch, transaction.txid, transaction.path)?;
    }
    for declined in &status.declined {
        let batch = declined.batch.map_or_else(|| "all".to_owned(), |batch| format!("batch {batch}"));
        let word = if declined.refused { "REFUSED" } else { "waiting" };
        writeln!(out, "{word}   {batch}: {}", declined.reason)?;
    }
    Ok(())
}

pub(crate) fn pause(args: &HomeArgs, out: &mut impl Write) -> Result<(), CliError> {
    let home = existing(&args.home)?;
    let path = home.paused();
    files::replace(&path, files::SECRET_MODE, b"paused\n").map_err(|source| home.io(&path, "written", source))?;
    let runs = block_on(nudge(&home))??.is_some();
    writeln!(out, "paused: the member signs nothing{}", if runs { "" } else { " (it is not running)" })?;
    Ok(())
}

pub(crate) fn resume(args: &ResumeArgs, out: &mut impl Write) -> Result<(), CliError> {
    let home = existing(&args.home.home)?;
    if let Some(alarm) = load_alarm(&home) {
        if !args.clear_alarm {
            return Err(CliError::Alarmed { reason: alarm.reason });
        }
        let path = home.alarm();
        files::remove(&path).map_err(|source| home.io(&path, "removed", source))?;
    }
    let path = home.paused();
    files::remove(&path).map_err(|source| home.io(&path, "removed", source))?;
    let runs = block_on(nudge(&home))??.is_some();
    writeln!(out, "resumed: the member signs what it approves{}", if runs { "" } else { " once it runs" })?;
    Ok(())
}

fn existing(path: &std::path::Path) -> Result<Home, CliError> {
    let home = Home::at(path);
    home.check_complete()?;
    Ok(home)
}

pub(crate) fn verify_backup(args: &VerifyArgs, out: &mut impl Write) -> Result<(), CliError> {
    let passphrase = Passphrase::get(&args.passphrase.source(None))?;
    let public = verify(&args.file, &passphrase)?;
    writeln!(out, "member   {}", public.member)?;
    writeln!(out, "identity {}", public.identity)?;
    Ok(())
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::Runtime)?;
    Ok(runtime.block_on(future))
}
