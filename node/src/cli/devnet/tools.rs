//! What can be done with a devnet that runs: pay on Causeway, pay on Bitcoin, mine.

use std::io::Write;
use std::path::{Path, PathBuf};

use bitcoin::{TxOut, WitnessVersion};
use clap::Args;

use super::CliError;
use crate::devnet::amount::{AddressArg, AmountArg};
use crate::devnet::miner::Miner;
use crate::devnet::purse::Purse;
use crate::devnet::{Devnet, DevnetError};

/// What `causeway devnet fund` is told.
#[derive(Debug, Args)]
pub struct FundArgs {
    /// Where the devnet is.
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Whom to pay: any address on Causeway, also one that asks for a peg-out.
    pub address: AddressArg,
    /// How much: in BTC, as in 0.5, or in satoshi, as in 50000sat.
    pub amount: AmountArg,
}

/// What `causeway devnet mine` is told.
#[derive(Debug, Args)]
pub struct MineArgs {
    /// Where the devnet is.
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// How many blocks.
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub blocks: u32,
}

/// What `causeway devnet deposit` is told.
#[derive(Debug, Args)]
pub struct DepositArgs {
    /// Where the devnet is.
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// What to pay on Bitcoin.
    pub address: AddressArg,
    /// How much: in BTC, as in 0.5, or in satoshi, as in 50000sat.
    pub amount: AmountArg,
}

fn load(directory: &Path) -> Result<Devnet, DevnetError> {
    Devnet::load(directory)?.ok_or_else(|| DevnetError::NoDevnet { path: directory.to_owned() })
}

/// Pays on Causeway.
///
/// # Errors
/// There is too little, or the payment does not become final.
pub(super) fn fund(args: &FundArgs, out: &mut impl Write) -> Result<(), CliError> {
    let devnet = load(&args.dir)?;
    let mut purse = Purse::open(&args.dir, &devnet)?;
    let AmountArg(value) = args.amount;
    let txid = purse.pay(&[TxOut { value, script_pubkey: args.address.0.script_pubkey() }])?;
    // The next payment need not wait.
    drop(purse);
    devnet.client_node().wait_final(txid)?;
    writeln!(out, "{txid}")?;
    Ok(())
}

/// Mines on Bitcoin.
///
/// # Errors
/// bitcoind does not answer.
pub(super) fn mine(args: &MineArgs, out: &mut impl Write) -> Result<(), CliError> {
    let height = Miner::new(load(&args.dir)?.bitcoin()?)?.mine(args.blocks)?;
    writeln!(out, "{height}")?;
    Ok(())
}

/// Pays on Bitcoin.
///
/// # Errors
/// There is too little, or bitcoind does not take it.
pub(super) fn deposit(args: &DepositArgs, out: &mut impl Write) -> Result<(), CliError> {
    let devnet = load(&args.dir)?;
    let (AddressArg(address), AmountArg(amount)) = (&args.address, args.amount);
    if address.script_pubkey().witness_version() == Some(WitnessVersion::V16) {
        return Err(DevnetError::NotOnBitcoin { address: address.to_string() }.into());
    }
    let outpoint = Miner::new(devnet.bitcoin()?)?.pay(address, amount)?;
    writeln!(out, "{outpoint}")?;
    Ok(())
}
