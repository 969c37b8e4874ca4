//! The commands of the operator. Results go to standard output, the log to standard error; a failure is one line
//! `error: ...` that ends with what to do. Exit codes: 0 done, 1 failed, 2 asked for wrongly.

pub mod chainspec;
pub mod check;
pub mod devnet;
mod error;
pub mod init;
pub mod keys;
pub mod parent;
pub mod run;
pub mod status;
pub mod wallet;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

pub use error::CliError;

/// A node of a Causeway chain: a Bitcoin sidechain with final blocks.
#[derive(Debug, Parser)]
#[command(name = "causeway", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes the home of a new node: keys, settings, chainspec.
    Init(init::InitArgs),
    /// Runs the node.
    Run(run::RunArgs),
    /// Runs a whole network on this machine for trying things out: Bitcoin on regtest, validators, federation, funds.
    Devnet(devnet::DevnetArgs),
    /// Runs a program that ends with the process that started it.
    #[command(hide = true)]
    EndWithParent(parent::ParentArgs),
    /// Tells how far the node is, running or stopped.
    Status(status::StatusArgs),
    /// Checks everything on the disk of a stopped node.
    Check(check::CheckArgs),
    /// Shows the node's public keys, or moves its validator key here for good.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Makes or shows a chainspec: what every node of a network shares.
    #[command(subcommand)]
    Chainspec(chainspec::ChainspecCommand),
    /// Keeps coins: receives, pays, moves them from Bitcoin and back.
    Wallet(Box<wallet::WalletArgs>),
}

/// Runs the command of this process, and returns its exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody is there to be told that standard error is closed.
            let _ = error.print();
            return u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
        }
    };
    match execute(cli.command, &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has read enough.
        Err(CliError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {}", error::one_line(&error));
            ExitCode::from(error.exit_code())
        }
    }
}

fn execute(command: Command, out: &mut impl Write) -> Result<(), CliError> {
    match command {
        // It takes its level from the settings.
        Command::Run(args) => run::run(&args),
        Command::Check(args) => {
            // On a terminal a bar tells the progress, otherwise the log does.
            start_log(if io::stderr().is_terminal() { "warn" } else { "info" });
            check::check(&args, out)
        }
        other => {
            start_log("warn");
            match other {
                Command::Init(args) => init::init(&args, out),
                Command::Status(args) => status::status(&args, out),
                Command::Keys(command) => keys::keys(&command, out),
                Command::Chainspec(command) => chainspec::chainspec(&command, out),
                Command::Devnet(args) => devnet::devnet(&args, out),
                Command::Wallet(args) => wallet::wallet(&args, out),
                Command::EndWithParent(args) => parent::end_with_parent(&args),
                Command::Run(_) | Command::Check(_) => Ok(()),
            }
        }
    }
}

/// Sends the log to standard error; once, later calls change nothing. `filter` is as `log.level` in the settings.
pub(crate) fn start_log(filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    // An error says that the log has started already.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .try_init();
}
