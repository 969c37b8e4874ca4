//! The commands of the operator.

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

use causeway_federation::command::{self, start_log};
use clap::{Parser, Subcommand};

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
    command::run(|cli: Cli| execute(cli.command, &mut io::stdout().lock()))
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
