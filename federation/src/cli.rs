//! The commands of a member's operator.

mod control;
mod error;
mod keygen;
mod recover;
mod run;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::command;
use crate::keystore::PassphraseSource;

pub use error::CliError;

/// The environment variable that holds the passphrase, if no file does.
pub const PASSPHRASE_VARIABLE: &str = "CAUSEWAY_MEMBER_PASSPHRASE";

/// A member of a Causeway federation: it signs what the chain has decided, and nothing else.
#[derive(Debug, Parser)]
#[command(name = "causeway-federation", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes a member's keys and settings, or gives keys that are there their network.
    Keygen(keygen::KeygenArgs),
    /// Runs the member.
    Run(run::RunArgs),
    /// Tells where the member stands, running or stopped.
    Status(control::StatusArgs),
    /// Makes the member sign nothing until it is resumed, also after a restart.
    Pause(control::HomeArgs),
    /// Lets a paused member sign again.
    Resume(control::ResumeArgs),
    /// Checks that a key file opens with the passphrase, and shows its public keys.
    VerifyBackup(control::VerifyArgs),
    /// Takes coins by the recovery path, when the federation is dead.
    #[command(subcommand)]
    Recover(recover::RecoverCommand),
}

/// Where the passphrase comes from.
#[derive(Clone, Debug, Args)]
pub(crate) struct PassphraseArgs {
    /// A file of mode 0600 whose first line is the passphrase. Otherwise the environment variable
    /// CAUSEWAY_MEMBER_PASSPHRASE, or the terminal.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl PassphraseArgs {
    /// The source; `settings` is what the settings name, if they are known.
    pub(crate) fn source(&self, settings: Option<PathBuf>) -> PassphraseSource {
        if let Some(file) = &self.passphrase_file {
            return PassphraseSource::File(file.clone());
        }
        if std::env::var_os(PASSPHRASE_VARIABLE).is_some() {
            return PassphraseSource::Variable(PASSPHRASE_VARIABLE.to_owned());
        }
        settings.map_or(PassphraseSource::Prompt, PassphraseSource::File)
    }
}

/// Runs the command of this process, and returns its exit code.
pub fn main() -> ExitCode {
    command::run(|cli: Cli| execute(cli.command, &mut io::stdout().lock()))
}

fn execute(command: Command, out: &mut impl Write) -> Result<(), CliError> {
    if !matches!(command, Command::Run(_)) {
        command::start_log("warn");
    }
    match command {
        Command::Keygen(args) => keygen::keygen(&args, out),
        // It takes its level from the settings.
        Command::Run(args) => run::run(&args),
        Command::Status(args) => control::status(&args, out),
        Command::Pause(args) => control::pause(&args, out),
        Command::Resume(args) => control::resume(&args, out),
        Command::VerifyBackup(args) => control::verify_backup(&args, out),
        Command::Recover(command) => recover::recover(&command, out),
    }
}

#[cfg(test)]
mod tests;
