//! Taking deposits back on Bitcoin.

use std::io::Write;
use std::path::PathBuf;

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Amount, OutPoint};
use causeway_chainspec::BitcoinHeight;
use causeway_federation::bitcoind::{Bitcoind, BitcoindConfig, Deadlines, Endpoint, EndpointConfig, Sent};
use clap::Args;
use serde_json::json;

use super::terminal::{confirm, remark};
use super::{CliError, Desk};
use crate::wallet::amount::{AmountArg, FeeRateArg};
use crate::wallet::node::Node;
use crate::wallet::open::{GAP, GAP_MAX};
use crate::wallet::refund::UnclaimedDeposit;
use crate::wallet::{Wallet, WalletError};

/// How long bitcoind may take for a look at all coins.
const SCAN_DEADLINE: std::time::Duration = std::time::Duration::from_secs(3_600);

/// What `causeway wallet refund` is told.
#[derive(Debug, Args)]
pub(super) struct RefundArgs {
    /// Who gets the coins, on Bitcoin.
    #[arg(long, value_name = "ADDRESS")]
    to: String,
    /// What the transaction pays for its size, such as "5 sat/vB".
    #[arg(long, value_name = "RATE")]
    feerate: FeeRateArg,
    /// A Bitcoin Core of yours: all coins are looked through for deposits of this wallet.
    #[arg(long, value_name = "IP:PORT", requires = "credentials_file")]
    bitcoind: Option<Endpoint>,
    /// With --bitcoind: its .cookie, or a file with user:password.
    #[arg(long, value_name = "FILE", requires = "bitcoind")]
    credentials_file: Option<PathBuf>,
    /// With --bitcoind: sends the transaction. Otherwise it is printed in hex, to be sent by any Bitcoin node.
    #[arg(long, requires = "bitcoind")]
    broadcast: bool,
    /// This deposit alone (txid:number). Without --bitcoind also needs --address and --amount.
    #[arg(long, value_name = "OUTPOINT", required_unless_present = "bitcoind")]
    deposit: Option<OutPoint>,
    /// The deposit address that it was paid to.
    #[arg(
        long,
        value_name = "ADDRESS",
        requires = "amount",
        conflicts_with = "bitcoind",
        required_unless_present = "bitcoind"
    )]
    address: Option<String>,
    /// How much was paid, with its unit: "0.1 BTC" or "1000 sat".
    #[arg(
        long,
        value_name = "AMOUNT",
        requires = "address",
        conflicts_with = "bitcoind",
        required_unless_present = "bitcoind"
    )]
    amount: Option<AmountArg>,
    /// Looks for deposits to so many addresses behind the last that this wallet knows of.
    #[arg(long, value_name = "N", default_value_t = GAP, value_parser = clap::value_parser!(u32).range(1..=i64::from(GAP_MAX)))]
    gap: u32,
    /// Does not ask before it sends.
    #[arg(long)]
    yes: bool,
}

pub(super) fn refund<W: Write>(desk: &mut Desk<'_, W>, args: &RefundArgs) -> Result<(), CliError> {
    let (wallet, node) = desk.open_with_node()?;
    let destination = wallet.parse_bitcoin_address(&args.to)?;
    let bitcoind = connect(&wallet, args)?;
    let deposits = match (&bitcoind, args.deposit, &args.address, args.amount) {
        (Some(bitcoind), wanted, _, _) => bitcoind.deposits(&wallet, wanted, args.gap)?,
        (None, Some(outpoint), Some(address), Some(AmountArg(amount))) => {
            let address = wallet.find_deposit(address).or_else(|error| {
                let mut candidates = wallet.deposit_candidates(args.gap).into_iter();
                candidates.find(|candidate| candidate.address.to_string() == address.trim()).ok_or(error)
            })?;
            vec![UnclaimedDeposit { address, outpoint, amount, from: None }]
        }
        (None, ..) => return Err(WalletError::NothingToSend.into()),
    };
    check_not_credited(&wallet, &node, &deposits)?;
    let transaction = wallet.refund(&deposits, destination.script_pubkey(), args.feerate.0).map_err(CliError::from)?;
    let (txid, hex) = (transaction.compute_txid(), serialize_hex(&transaction));
    let taken: Amount = deposits.iter().map(|deposit| deposit.amount).sum();
    let paid: Amount = transaction.output.iter().map(|output| output.value).sum();
    let fee = taken.checked_sub(paid).unwrap_or_default();
    if let (Some(bitcoind), true) = (&bitcoind, args.broadcast) {
        confirm(args.yes, "Send it?", |lines| {
            for deposit in &deposits {
                lines.field("take back", format!("{} of {}", deposit.amount, deposit.outpoint));
            }
            lines.field("to", &destination);
            lines.field("fee", fee);
        })?;
        bitcoind.send(&transaction)?;
    }
    let outpoints: Vec<String> = deposits.iter().map(|deposit| deposit.outpoint.to_string()).collect();
    let from = deposits.iter().filter_map(|deposit| deposit.from).max();
    let json = json!({
        "txid": txid, "hex": hex, "deposits": outpoints, "address": destination, "amount_sat": paid.to_sat(),
        "fee_sat": fee.to_sat(), "from_bitcoin_height": from.map(|height| height.0), "sent": args.broadcast,
    });
    desk.tell(&json, |lines| {
        if args.broadcast {
            lines.field("sent", txid);
            lines.field("pays", format!("{paid} to {destination}, fee {fee}"));
        } else {
            lines.line(&hex);
        }
    })
}

/// A deposit that was credited is not the wallet's any more. A chain that is dead tells nothing, and a refund is for then.
fn check_not_credited(wallet: &Wallet, node: &Node, deposits: &[UnclaimedDeposit]) -> Result<(), WalletError> {
    if let Err(error) = node.check_chain(wallet.spec()) {
        let why = causeway_federation::command::one_line(&error);
        remark(&format!("Whether the deposits were credited is not known: {why}"));
        return Ok(());
    }
    for deposit in deposits {
        if node.peg_in(deposit.outpoint)?.is_some_and(|peg_in| peg_in.credit.is_some()) {
            return Err(WalletError::Credited { deposit: deposit.outpoint.to_string() });
        }
    }
    Ok(())
}

/// A Bitcoin Core, with what its answers are waited for by.
struct Core {
    client: Bitcoind,
    runtime: tokio::runtime::Runtime,
}

fn connect(wallet: &Wallet, args: &RefundArgs) -> Result<Option<Core>, WalletError> {
    let (Some(endpoint), Some(credentials)) = (&args.bitcoind, &args.credentials_file) else {
        return Ok(None);
    };
    let endpoint = EndpointConfig { endpoint: endpoint.clone(), credentials_file: credentials.clone() };
    let mut config = BitcoindConfig::new(wallet.spec().bitcoin().network(), vec![endpoint]);
    config.deadlines = Deadlines { call: SCAN_DEADLINE, ..config.deadlines };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(WalletError::Thread)?;
    Ok(Some(Core { client: Bitcoind::new(config)?, runtime }))
}

impl Core {
    /// The wallet's deposits that can be taken back at this moment.
    fn deposits(
        &self,
        wallet: &Wallet,
        wanted: Option<OutPoint>,
        gap: u32,
    ) -> Result<Vec<UnclaimedDeposit>, WalletError> {
        let candidates = wallet.deposit_candidates(gap);
        let scripts: Vec<_> = candidates.iter().map(|candidate| candidate.address.script_pubkey()).collect();
        let (found, tip) = self.runtime.block_on(self.client.scan(&scripts))?;
        let mut deposits = wallet.deposits_among(&candidates, &found);
        deposits.retain(|deposit| wanted.is_none_or(|wanted| deposit.outpoint == wanted));
        if deposits.is_empty() {
            let why = "Bitcoin has no coin at any of its deposit addresses".to_owned();
            return Err(WalletError::NothingToRefund { why });
        }
        let next = BitcoinHeight(tip.0.saturating_add(1));
        let (ready, early): (Vec<_>, Vec<_>) =
            deposits.into_iter().partition(|deposit| deposit.from.is_some_and(|from| from <= next));
        for deposit in &early {
            let from = deposit.from.unwrap_or_default();
            remark(&format!("{} can be taken back from Bitcoin block {from} on; the next is {next}", deposit.outpoint));
        }
        if ready.is_empty() {
            let first = early.iter().filter_map(|deposit| deposit.from).min().unwrap_or_default();
            let why = format!("the first can be from Bitcoin block {first} on, and the next is {next}");
            return Err(WalletError::NothingToRefund { why });
        }
        Ok(ready)
    }

    fn send(&self, transaction: &bitcoin::Transaction) -> Result<(), WalletError> {
        match self.runtime.block_on(self.client.send(transaction))? {
            Sent::InMempool | Sent::InChain => Ok(()),
            Sent::Refused(refusal) => Err(WalletError::RefundRefused { reason: refusal.to_string() }),
        }
    }
}
