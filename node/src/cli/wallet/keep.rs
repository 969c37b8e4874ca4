//! Making a wallet, and what it has.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

use bitcoin::{Amount, SignedAmount};
use causeway_chainspec::ChainSpec;
use causeway_federation::keystore::Passphrase;
use clap::Args;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::terminal::{WORDS_BYTES_MAX, confirm, mnemonic, remark};
use super::{CliError, Desk, shown};
use crate::cli::init::find_chain;
use crate::wallet::keys::{new_mnemonic, read_mnemonic};
use crate::wallet::node::Node;
use crate::wallet::open::{GAP, GAP_MAX, Look};
use crate::wallet::{Wallet, WalletError};

/// What `causeway wallet create` is told.
#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// The chain: its chainspec file, or the name of a built-in network. The wallet believes its federation's keys from
    /// there, and from nowhere else.
    #[arg(long, value_name = "FILE|NAME")]
    chain: String,
}

/// What `causeway wallet restore` is told.
#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// The chain: its chainspec file, or the name of a built-in network. The wallet believes its federation's keys from
    /// there, and from nowhere else.
    #[arg(long, value_name = "FILE|NAME")]
    chain: String,
    /// A file with the words. Otherwise they are typed, or the first line of standard input.
    #[arg(long, value_name = "FILE")]
    mnemonic_file: Option<PathBuf>,
    /// Goes on searching until so many addresses in a row were never paid. Words of this program need no more than the
    /// default; those of another wallet may.
    #[arg(long, visible_alias = "stop-gap", value_name = "N", default_value_t = GAP, value_parser = clap::value_parser!(u32).range(1..=i64::from(GAP_MAX)))]
    gap: u32,
}

/// What `causeway wallet address` is told.
#[derive(Debug, Args)]
pub(super) struct AddressArgs {
    /// One that was never shown, instead of the last that was not paid.
    #[arg(long)]
    new: bool,
}

/// What `causeway wallet balance` is told.
#[derive(Debug, Args)]
pub(super) struct BalanceArgs {
    /// Looks at every address, also at those that this wallet has not shown: after another one with the same words was used.
    #[arg(long)]
    rescan: bool,
    /// Goes on searching until so many addresses in a row were never paid.
    #[arg(long, visible_alias = "stop-gap", value_name = "N", requires = "rescan", default_value_t = GAP, value_parser = clap::value_parser!(u32).range(1..=i64::from(GAP_MAX)))]
    gap: u32,
    /// Does not ask the node: what was known the last time.
    #[arg(long, conflicts_with = "rescan")]
    offline: bool,
}

/// What `causeway wallet history` is told.
#[derive(Debug, Args)]
pub(super) struct HistoryArgs {
    /// The newest of them alone.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Does not ask the node: what was known the last time.
    #[arg(long)]
    offline: bool,
}

/// What `causeway wallet show-mnemonic` is told.
#[derive(Debug, Args)]
pub(super) struct ShowMnemonicArgs {
    /// Does not ask.
    #[arg(long)]
    yes: bool,
}

pub(super) fn create<W: Write>(desk: &mut Desk<'_, W>, args: &CreateArgs) -> Result<(), CliError> {
    let (path, spec, node) = before(desk, &args.chain)?;
    let passphrase = desk.new_passphrase()?;
    let words = new_mnemonic()?;
    let wallet = Wallet::create(&path, &passphrase, &words, spec, &node, false)?;
    let wallet = reopened(wallet, &passphrase)?;
    let mut json = about(&wallet);
    json["mnemonic"] = json!(words.words().collect::<Vec<_>>().join(" "));
    desk.tell(&json, |lines| {
        for (name, value) in [("wallet", "wallet"), ("chain", "chain"), ("chain id", "chain_id"), ("node", "node")] {
            lines.field(name, json[value].as_str().unwrap_or_default());
        }
        lines.line(
            "\nWrite these words down, in their order, on paper. Whoever has them has the coins; without them, whoever\n\
             loses the file or its passphrase has lost the coins.\n",
        );
        let words: Vec<&str> = words.words().collect();
        for (row, line) in words.chunks(4).enumerate() {
            let words = line.iter().enumerate().map(|(column, word)| format!("{:>4} {word:<10}", row * 4 + column + 1));
            lines.line(words.collect::<String>().trim_end());
        }
    })
}

pub(super) fn restore<W: Write>(desk: &mut Desk<'_, W>, args: &RestoreArgs) -> Result<(), CliError> {
    let (path, spec, node) = before(desk, &args.chain)?;
    let words = match &args.mnemonic_file {
        Some(path) => words_of_file(path)?,
        None => mnemonic()?,
    };
    let words = read_mnemonic(&words)?;
    let passphrase = desk.new_passphrase()?;
    let wallet = Wallet::create(&path, &passphrase, &words, spec, &node, true)?;
    let mut wallet = reopened(wallet, &passphrase)?;
    if let Err(error) = wallet.sync(&node, Look::All { gap: args.gap }) {
        let again = if args.gap == GAP { String::new() } else { format!(" --rescan --gap {}", args.gap) };
        remark(&format!(
            "The wallet is restored, its coins are not known yet: \"causeway wallet balance{again}\" looks for them. \
             Now: {}",
            causeway_federation::command::one_line(&error)
        ));
        return desk.tell(&about(&wallet), |lines| lines.field("wallet", shown(wallet.path())));
    }
    tell_balance(desk, &wallet)
}

/// The bytes of the file with the words.
fn words_of_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, WalletError> {
    let failed = |source| WalletError::MnemonicFile { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(WORDS_BYTES_MAX + 1));
    file.take(WORDS_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > WORDS_BYTES_MAX {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(bytes)
}

/// What is checked before a wallet is made.
fn before<W: Write>(desk: &Desk<'_, W>, chain: &str) -> Result<(PathBuf, ChainSpec, Node), CliError> {
    let path = desk.path()?;
    if path.exists() {
        return Err(WalletError::from(causeway_federation::keystore::SealedFileError::Exists { path }).into());
    }
    let spec = find_chain(chain)?;
    let node = desk.new_node()?;
    match node.check_chain(&spec) {
        Err(error @ WalletError::OtherChain { .. }) => return Err(error.into()),
        Err(error) => remark(&format!("The node was not asked: {}", causeway_federation::command::one_line(&error))),
        Ok(()) => {}
    }
    Ok((path, spec, node))
}

/// What cannot be opened again is found out now.
fn reopened(wallet: Wallet, passphrase: &Passphrase) -> Result<Wallet, WalletError> {
    let path = wallet.path().to_owned();
    drop(wallet);
    Wallet::open(&path, passphrase)
}

fn about(wallet: &Wallet) -> Value {
    json!({
        "wallet": shown(wallet.path()),
        "chain": wallet.spec().name(),
        "chain_id": wallet.spec().chain_id().block_hash(),
        "node": wallet.node(),
    })
}

pub(super) fn address<W: Write>(desk: &mut Desk<'_, W>, args: &AddressArgs) -> Result<(), CliError> {
    let (index, address) = desk.open()?.address(args.new)?;
    desk.tell(&json!({ "address": address, "index": index }), |lines| lines.line(&address))
}

pub(super) fn balance<W: Write>(desk: &mut Desk<'_, W>, args: &BalanceArgs) -> Result<(), CliError> {
    let (mut wallet, node) = desk.open_with_node()?;
    if !args.offline {
        wallet.sync(&node, if args.rescan { Look::All { gap: args.gap } } else { Look::Shown })?;
    }
    tell_balance(desk, &wallet)
}

fn tell_balance<W: Write>(desk: &mut Desk<'_, W>, wallet: &Wallet) -> Result<(), CliError> {
    let balance = wallet.balance();
    let pending = balance.trusted_pending + balance.untrusted_pending;
    let json = json!({
        "final_sat": balance.confirmed.to_sat(),
        "pending_sat": pending.to_sat(),
        "immature_sat": balance.immature.to_sat(),
        "spendable_sat": balance.trusted_spendable().to_sat(),
        "total_sat": balance.total().to_sat(),
        "height": wallet.height(),
    });
    desk.tell(&json, |lines| {
        lines.field("balance", balance.confirmed);
        if pending > Amount::ZERO {
            lines.field("pending", pending);
        }
        if balance.immature > Amount::ZERO {
            lines.field("immature", format!("{} (fees of blocks, spendable 100 blocks later)", balance.immature));
        }
        lines.field("height", wallet.height());
    })
}

pub(super) fn history<W: Write>(desk: &mut Desk<'_, W>, args: &HistoryArgs) -> Result<(), CliError> {
    let (mut wallet, node) = desk.open_with_node()?;
    if !args.offline {
        wallet.sync(&node, Look::Shown)?;
    }
    let mut entries = wallet.history();
    entries.truncate(args.limit.unwrap_or(usize::MAX));
    let of_entry = |entry: &crate::wallet::open::HistoryEntry| {
        json!({
            "txid": entry.txid,
            "kind": entry.kind.name(),
            "height": entry.place.map(|(height, _)| height),
            "time": entry.place.map(|(_, time)| time),
            "delta_sat": entry.delta.to_sat(),
            "fee_sat": entry.fee.map(Amount::to_sat),
        })
    };
    let json = json!({ "height": wallet.height(), "transactions": entries.iter().map(of_entry).collect::<Vec<_>>() });
    desk.tell(&json, |lines| {
        for entry in &entries {
            let height = entry.place.map_or_else(|| "pending".to_owned(), |(height, _)| height.to_string());
            lines.line(format!("{height:>8}  {:<8}  {:>22}  {}", entry.kind.name(), signed(entry.delta), entry.txid));
        }
        if entries.is_empty() {
            lines.line("no transactions yet");
        }
    })
}

/// With its sign, and all decimals below one another.
fn signed(amount: SignedAmount) -> String {
    format!("{}{}", if amount.is_negative() { '-' } else { '+' }, amount.unsigned_abs())
}

pub(super) fn deposits<W: Write>(desk: &mut Desk<'_, W>) -> Result<(), CliError> {
    let wallet = desk.open()?;
    let list: Vec<Value> = wallet
        .deposits()
        .iter()
        .map(|deposit| {
            json!({
                "address": deposit.address,
                "index": deposit.index,
                "epoch": deposit.epoch,
                "destination": wallet.address_at(deposit.index),
            })
        })
        .collect();
    desk.tell(&json!({ "deposits": list }), |lines| {
        for deposit in wallet.deposits() {
            lines.line(format!("{}  credits {}", deposit.address, wallet.address_at(deposit.index)));
        }
        if list.is_empty() {
            lines.line("no deposit address was shown yet: causeway wallet peg-in");
        }
    })
}

pub(super) fn show_mnemonic<W: Write>(desk: &mut Desk<'_, W>, args: &ShowMnemonicArgs) -> Result<(), CliError> {
    confirm(args.yes, "Is nobody looking?", |lines| lines.line("Whoever sees the words can take the coins."))?;
    let wallet = desk.open()?;
    desk.tell(&json!({ "mnemonic": wallet.mnemonic() }), |lines| lines.line(wallet.mnemonic()))
}
