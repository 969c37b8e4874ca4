//! `causeway keys`: the public side of the node's keys, and the way to move a validator.

use std::io::Write;
use std::path::PathBuf;

use causeway_chainspec::{ChainSpec, Height, LAST_DERIVED_HEIGHT};
use causeway_consensus::bft::{HighWaterMark, Key};
use clap::{Args, Subcommand};

use super::CliError;
use crate::home::Home;
use crate::keys::{ValidatorKey, load_node_key};
use crate::shell::mark_file::MarkFile;

/// What to do with the keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Shows the public keys, and how far the validator's key has signed.
    Show(ShowArgs),
    /// Makes this home the only place of its validator's key, which then signs only above a height.
    ///
    /// For a home that was moved to another disk or machine, and for a lost or damaged high-water mark. The key must run
    /// nowhere else any more, and the network must have decided the height: nothing can check that for you, and a key that
    /// runs twice signs contradictory votes.
    Adopt(AdoptArgs),
}

/// What `causeway keys show` is told.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The node's directory.
    #[arg(long, value_name = "DIR")]
    pub home: PathBuf,
}

/// What `causeway keys adopt` is told.
#[derive(Debug, Args)]
pub struct AdoptArgs {
    /// The node's directory.
    #[arg(long, value_name = "DIR")]
    pub home: PathBuf,
    /// The key signs only above this height. The network must have decided it, and everything below.
    #[arg(long, value_name = "HEIGHT")]
    pub above: u32,
}

/// Performs a command about keys.
///
/// # Errors
/// A file is missing or refused.
pub fn keys(command: &KeysCommand, out: &mut impl Write) -> Result<(), CliError> {
    match command {
        KeysCommand::Show(args) => show(&Home::at(&args.home), out),
        KeysCommand::Adopt(args) => adopt(&Home::at(&args.home), Height(args.above), out),
    }
}

fn show(home: &Home, out: &mut impl Write) -> Result<(), CliError> {
    home.check_present()?;
    let spec = home.load_chainspec()?;
    match validator_key(home)? {
        Some(key) => {
            let mark = MarkFile::peek(&home.validator_mark(), spec.chain_id(), Key::address(&key))?;
            writeln!(out, "validator  {}", Key::address(&key))?;
            writeln!(out, "power      {}", power(&spec, &key))?;
            writeln!(out, "mark       {}", describe(&mark))?;
        }
        None => writeln!(out, "validator  none: a full node")?,
    }
    writeln!(out, "node       {}", load_node_key(&home.node_key())?.public().to_peer_id())?;
    Ok(())
}

fn adopt(home: &Home, above: Height, out: &mut impl Write) -> Result<(), CliError> {
    home.check_present()?;
    let _lock = home.lock()?;
    let spec = home.load_chainspec()?;
    let key = validator_key(home)?.ok_or_else(|| CliError::NoValidatorKey { path: home.path().to_owned() })?;
    if above < LAST_DERIVED_HEIGHT {
        return Err(CliError::AboveTooLow { got: above, min: LAST_DERIVED_HEIGHT });
    }
    let (path, mark) = (home.validator_key(), home.validator_mark());
    let adopted = MarkFile::adopt(&mark, &path, spec.chain_id(), Key::address(&key), above)?;
    writeln!(out, "validator  {}", Key::address(&key))?;
    writeln!(out, "mark       {}", describe(adopted.mark()))?;
    writeln!(out, "\nThis is the key's only place from here on: the original must stay off for good.")?;
    Ok(())
}

/// The validator's key of a home, if it has one. A mark without its key is a lost key, not a full node.
///
/// # Errors
/// It is missing though there is a mark, or refused.
pub fn validator_key(home: &Home) -> Result<Option<ValidatorKey>, CliError> {
    let path = home.validator_key();
    if !path.exists() && !home.validator_mark().exists() {
        return Ok(None);
    }
    Ok(Some(ValidatorKey::load(&path)?))
}

/// How far a key has signed, for people.
pub(super) fn describe(mark: &HighWaterMark) -> String {
    match mark.position() {
        None => "nothing signed".to_owned(),
        Some(position) if mark.is_barrier() => format!("signs only above height {}", position.height),
        Some(position) => format!("signed the {position}"),
    }
}

fn power(spec: &ChainSpec, key: &ValidatorKey) -> String {
    let public_key = key.public_key();
    match spec.validators().iter().find(|validator| validator.key == public_key) {
        Some(validator) => format!("{} of {}", validator.power, spec.total_power()),
        None => "none: the chainspec does not name this key".to_owned(),
    }
}
