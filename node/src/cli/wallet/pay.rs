//! Paying.

use std::io::Write;
use std::time::Duration;

use bitcoin::Txid;
use clap::Args;
use serde_json::{Value, json};

use super::terminal::confirm;
use super::watch::{Patience, patiently};
use super::{CliError, Desk, Lines};
use crate::wallet::amount::{AmountArg, FeeRateArg, ShownFeeRate};
use crate::wallet::node::Node;
use crate::wallet::open::Look;
use crate::wallet::payment::Draft;
use crate::wallet::{Wallet, WalletError};

/// How long a payment is waited for.
const FINAL_TIMEOUT: Duration = Duration::from_secs(120);

/// What `causeway wallet send` is told.
#[derive(Debug, Args)]
pub(super) struct SendArgs {
    /// Whom to pay.
    #[arg(required_unless_present = "replace")]
    address: Option<String>,
    /// How much, with its unit: "0.1 BTC" or "1000 sat".
    #[arg(required_unless_present = "replace")]
    amount: Option<AmountArg>,
    /// What the transaction pays for its size, such as "2 sat/vB". By default what the node suggests.
    #[arg(long, value_name = "RATE")]
    feerate: Option<FeeRateArg>,
    /// Replaces this payment, which is not final yet, by the same one with a higher fee.
    #[arg(long, value_name = "TXID", conflicts_with_all = ["address", "amount"])]
    replace: Option<Txid>,
    /// Waits until the payment is final.
    #[arg(long)]
    wait: bool,
    /// Does not ask before it sends.
    #[arg(long)]
    yes: bool,
}

pub(super) fn send<W: Write>(desk: &mut Desk<'_, W>, args: &SendArgs) -> Result<(), CliError> {
    let (mut wallet, node) = desk.open_with_node()?;
    wallet.sync(&node, Look::Shown)?;
    let rate = args.feerate.map(|FeeRateArg(rate)| rate);
    let draft = match (args.replace, &args.address, args.amount) {
        (Some(txid), _, _) => {
            let suggested = if rate.is_none() { node.fee_rate()? } else { bitcoin::FeeRate::ZERO };
            wallet.replace(txid, rate, suggested)?
        }
        (None, Some(address), Some(AmountArg(amount))) => {
            let payee = wallet.parse_address(address)?;
            let rate = rate.map_or_else(|| node.fee_rate(), Ok)?;
            wallet.draft(&payee, amount, rate)?
        }
        (None, _, _) => return Err(WalletError::NothingToSend.into()),
    };
    approve(args.yes, &draft)?;
    let txid = wallet.send(&node, &draft)?;
    drop(wallet);
    let mut json = shown(&draft);
    if args.wait {
        json["height"] = json!(wait_final(&node, txid)?);
    }
    desk.tell(&json, |lines| {
        lines.field("sent", txid);
        if let Some(height) = json["height"].as_u64() {
            lines.field("final", format!("in block {height}"));
        }
    })
}

/// Asks whether a payment shall be sent.
pub(super) fn approve(yes: bool, draft: &Draft) -> Result<(), WalletError> {
    confirm(yes, "Send it?", |lines| describe(draft, lines))
}

fn describe(draft: &Draft, lines: &mut Lines) {
    for payment in &draft.payments {
        lines.field("pay", payment.amount);
        lines.field("to", &payment.address);
        if let Some(bitcoin) = &payment.bitcoin_address {
            lines.field("on Bitcoin", bitcoin);
        }
    }
    lines.field("fee", format!("{} ({})", draft.fee, ShownFeeRate(draft.fee_rate)));
    lines.field("change", draft.change);
    if let Some(replaced) = draft.replaces {
        lines.field("replaces", replaced);
    }
}

/// A payment as JSON.
pub(super) fn shown(draft: &Draft) -> Value {
    let payments = draft.payments.iter().map(|payment| {
        json!({
            "address": payment.address,
            "bitcoin_address": payment.bitcoin_address,
            "amount_sat": payment.amount.to_sat(),
            "vout": payment.vout,
        })
    });
    json!({
        "txid": draft.txid(),
        "payments": payments.collect::<Vec<_>>(),
        "fee_sat": draft.fee.to_sat(),
        "feerate_sat_per_vb": ShownFeeRate(draft.fee_rate).sat_per_vb(),
        "change_sat": draft.change.to_sat(),
        "replaces": draft.replaces,
    })
}

/// Waits until a payment is final, and returns its block.
pub(super) fn wait_final(node: &Node, txid: Txid) -> Result<u32, WalletError> {
    let patience = Patience { timeout: Some(FINAL_TIMEOUT), what: "the payment", again: txid.to_string() };
    patiently(&patience, || {
        let status = node.status(txid)?;
        Ok(status.block_height.filter(|_| status.confirmed))
    })
}

/// A payment that was asked for on Bitcoin.
pub(super) fn draft_peg_out(
    wallet: &mut Wallet,
    node: &Node,
    bitcoin_address: &str,
    AmountArg(amount): AmountArg,
    rate: Option<FeeRateArg>,
) -> Result<Draft, WalletError> {
    let payee = wallet.peg_out_address(bitcoin_address, amount)?;
    if let Some(reason) = node.frozen()? {
        return Err(WalletError::Frozen { reason });
    }
    let rate = rate.map_or_else(|| node.fee_rate(), |FeeRateArg(rate)| Ok(rate))?;
    wallet.draft(&payee, amount, rate)
}
