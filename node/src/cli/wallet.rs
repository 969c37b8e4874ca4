//! `causeway wallet`: coins on a Causeway chain, and their way from Bitcoin and back.
//!
//! With `--json` every result is one JSON object in one line; what is watched gives one for each step. Amounts in them are
//! satoshi and end in `_sat`. Questions and remarks go to standard error.

mod keep;
mod pay;
mod peg;
mod refund;
mod terminal;
mod watch;

use std::io::Write;
use std::path::{Path, PathBuf};

use causeway_federation::keystore::{Passphrase, PassphraseSource};
use clap::{Args, Subcommand};
use serde_json::Value;

use super::CliError;
use crate::wallet::node::{DEFAULT_URL, Node};
use crate::wallet::{Wallet, WalletError};

/// The environment variable that holds the passphrase, if no file does.
pub const PASSPHRASE_VARIABLE: &str = "CAUSEWAY_WALLET_PASSPHRASE";

/// Where the wallet is in the user's home directory, if nothing else is said.
const DEFAULT_FILE: &str = ".causeway/wallet";

/// What `causeway wallet` is told.
#[derive(Debug, Args)]
pub struct WalletArgs {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: WalletCommand,
}

/// What every command of the wallet is told.
#[derive(Debug, Args)]
struct Common {
    /// The wallet's file. By default .causeway/wallet in your home directory.
    #[arg(long, global = true, value_name = "FILE")]
    wallet: Option<PathBuf>,
    /// A file of mode 0600 whose first line is the passphrase. Otherwise the environment variable
    /// CAUSEWAY_WALLET_PASSPHRASE, or the terminal.
    #[arg(long, global = true, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// REST of the node to ask. By default the one that the wallet was made with, or http://127.0.0.1:29380.
    #[arg(long, global = true, value_name = "URL")]
    node: Option<String>,
    /// Allows a node on another machine: everybody on the way sees what is asked and answered, and can change it.
    #[arg(long, global = true)]
    plain_http: bool,
    /// One line of JSON for each result.
    #[arg(long, global = true)]
    json: bool,
}

/// What to do with the wallet.
#[derive(Debug, Subcommand)]
enum WalletCommand {
    /// Makes a new wallet, and shows the words that it can be restored from.
    Create(keep::CreateArgs),
    /// Makes a wallet from the words of another one (BIP39), and looks for its coins.
    Restore(keep::RestoreArgs),
    /// Shows an address to be paid at.
    Address(keep::AddressArgs),
    /// Shows what the wallet has.
    Balance(keep::BalanceArgs),
    /// Lists the wallet's transactions, newest first.
    History(keep::HistoryArgs),
    /// Lists the deposit addresses that were shown.
    Deposits,
    /// Pays an address, or replaces a payment that is not final by one with a higher fee.
    Send(pay::SendArgs),
    /// Shows a Bitcoin address whose deposits are credited to this wallet.
    PegIn(peg::PegInArgs),
    /// Pays a Bitcoin address from this wallet, through the peg.
    PegOut(peg::PegOutArgs),
    /// Follows a deposit address to the credit, or a peg-out to its payment on Bitcoin.
    Watch(watch::WatchArgs),
    /// Takes deposits back on Bitcoin that were never credited, once their timelock has passed.
    Refund(refund::RefundArgs),
    /// Shows the words that the wallet can be restored from.
    ShowMnemonic(keep::ShowMnemonicArgs),
}

/// Performs a command about the wallet.
///
/// # Errors
/// See [`WalletError`]: each says what to do.
pub fn wallet(args: &WalletArgs, out: &mut impl Write) -> Result<(), CliError> {
    let mut desk = Desk { common: &args.common, out };
    match &args.command {
        WalletCommand::Create(args) => keep::create(&mut desk, args),
        WalletCommand::Restore(args) => keep::restore(&mut desk, args),
        WalletCommand::Address(args) => keep::address(&mut desk, args),
        WalletCommand::Balance(args) => keep::balance(&mut desk, args),
        WalletCommand::History(args) => keep::history(&mut desk, args),
        WalletCommand::Deposits => keep::deposits(&mut desk),
        WalletCommand::Send(args) => pay::send(&mut desk, args),
        WalletCommand::PegIn(args) => peg::peg_in(&mut desk, args),
        WalletCommand::PegOut(args) => peg::peg_out(&mut desk, args),
        WalletCommand::Watch(args) => watch::watch(&mut desk, args),
        WalletCommand::Refund(args) => refund::refund(&mut desk, args),
        WalletCommand::ShowMnemonic(args) => keep::show_mnemonic(&mut desk, args),
    }
}

/// Where a command takes its wallet and node from, and where its results go.
struct Desk<'a, W> {
    common: &'a Common,
    out: &'a mut W,
}

impl<W: Write> Desk<'_, W> {
    fn path(&self) -> Result<PathBuf, WalletError> {
        let home = || std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
        match &self.common.wallet {
            Some(path) => Ok(path.clone()),
            None => Ok(home().ok_or(WalletError::NoHome)?.join(DEFAULT_FILE)),
        }
    }

    fn passphrase_source(&self) -> PassphraseSource {
        match &self.common.passphrase_file {
            Some(file) => PassphraseSource::File(file.clone()),
            None if std::env::var_os(PASSPHRASE_VARIABLE).is_some() => {
                PassphraseSource::Variable(PASSPHRASE_VARIABLE.to_owned())
            }
            None => PassphraseSource::Prompt,
        }
    }

    fn new_passphrase(&self) -> Result<Passphrase, WalletError> {
        Ok(Passphrase::get_new_for(&self.passphrase_source(), "the wallet")?)
    }

    fn open(&self) -> Result<Wallet, WalletError> {
        let path = self.path()?;
        // Whoever has no such file is not asked for its passphrase.
        if !path.exists() {
            return Err(WalletError::NoWallet { path });
        }
        Wallet::open(&path, &Passphrase::get_of(&self.passphrase_source(), "the wallet")?)
    }

    fn node(&self, default: &str) -> Result<Node, WalletError> {
        Node::new(self.common.node.as_deref().unwrap_or(default), self.common.plain_http)
    }

    fn new_node(&self) -> Result<Node, WalletError> {
        self.node(DEFAULT_URL)
    }

    /// The wallet and the node that it asks.
    fn open_with_node(&self) -> Result<(Wallet, Node), WalletError> {
        let wallet = self.open()?;
        let node = self.node(wallet.node())?;
        Ok((wallet, node))
    }

    /// Writes one result: lines of text, or one of JSON.
    fn tell(&mut self, json: &Value, text: impl FnOnce(&mut Lines)) -> Result<(), CliError> {
        if self.common.json {
            writeln!(self.out, "{json}")?;
        } else {
            let mut lines = Lines::default();
            text(&mut lines);
            self.out.write_all(lines.0.as_bytes())?;
        }
        self.out.flush()?;
        Ok(())
    }
}

/// Lines of a name and a value.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn field(&mut self, name: &str, value: impl std::fmt::Display) {
        self.0.push_str(&format!("{name:<10} {value}\n"));
    }

    fn line(&mut self, text: impl std::fmt::Display) {
        self.0.push_str(&format!("{text}\n"));
    }
}

/// A path as JSON holds it.
fn shown(path: &Path) -> String {
    path.display().to_string()
}
