//! From Bitcoin, and back.

use std::io::Write;
use std::time::Duration;

use bitcoin::Address;
use clap::Args;
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use serde_json::json;

use super::pay::{approve, draft_peg_out, shown};
use super::terminal::remark;
use super::watch::{follow_deposit, follow_request};
use super::{CliError, Desk};
use crate::wallet::WalletError;
use crate::wallet::amount::{AmountArg, FeeRateArg};
use crate::wallet::open::Look;

/// What `causeway wallet peg-in` is told.
#[derive(Debug, Args)]
pub(super) struct PegInArgs {
    /// Waits for a deposit, and follows it to the credit.
    #[arg(long)]
    watch: bool,
    /// With --watch: gives up after so long.
    #[arg(long, value_name = "SECONDS", requires = "watch")]
    timeout: Option<u64>,
    /// Without the QR code.
    #[arg(long)]
    no_qr: bool,
}

/// What `causeway wallet peg-out` is told.
#[derive(Debug, Args)]
pub(super) struct PegOutArgs {
    /// Whom to pay, on Bitcoin.
    bitcoin_address: String,
    /// How much leaves this wallet, with its unit: "0.1 BTC" or "1000 sat". The payment's fee on Bitcoin is taken from it.
    amount: AmountArg,
    /// What the transaction on Causeway pays for its size, such as "2 sat/vB". By default what the node suggests.
    #[arg(long, value_name = "RATE")]
    feerate: Option<FeeRateArg>,
    /// Follows the payment until it is confirmed on Bitcoin.
    #[arg(long)]
    watch: bool,
    /// With --watch: gives up after so long.
    #[arg(long, value_name = "SECONDS", requires = "watch")]
    timeout: Option<u64>,
    /// Does not ask before it sends.
    #[arg(long)]
    yes: bool,
}

pub(super) fn peg_in<W: Write>(desk: &mut Desk<'_, W>, args: &PegInArgs) -> Result<(), CliError> {
    let (mut wallet, node) = desk.open_with_node()?;
    let (deposit, offer) = wallet.new_deposit(&node)?;
    let spec = wallet.spec().clone();
    // Others may use the wallet while this waits.
    drop(wallet);
    let (network, depth) = (spec.bitcoin().network(), spec.params().final_depth);
    let (locks, uri) = (spec.federation().timelocks(), uri(&deposit.address));
    let min = bitcoin::Amount::from_sat(offer.min_amount);
    let fee = bitcoin::Amount::from_sat(offer.fee);
    let json = json!({
        "event": "address",
        "address": deposit.address,
        "uri": uri,
        "bitcoin_network": network,
        "destination": deposit.destination,
        "index": deposit.index,
        "epoch": deposit.terms.epoch,
        "refund_key": deposit.terms.refund_key,
        "min_amount_sat": offer.min_amount,
        "fee_sat": offer.fee,
        "confirmations_needed": depth,
        "claim_window_blocks": locks.claim_window,
        "refund_delay_blocks": locks.refund_delay,
    });
    desk.tell(&json, |lines| {
        if !args.no_qr && let Some(qr) = qr(&uri) {
            lines.line(qr);
        }
        lines.field("pay", format!("{} (on Bitcoin's network {network})", deposit.address));
        lines.field("credits", &deposit.destination);
        lines.field("at least", min);
        lines.field("fee", format!("{fee} of each deposit, at this moment's feerate"));
        lines.field("credited", format!("after {depth} confirmations"));
        lines.field(
            "if not",
            format!(
                "after {} blocks it is not credited any more, and {} blocks after it \"causeway wallet refund\" takes it back",
                locks.claim_window, locks.refund_delay
            ),
        );
        lines.line("\nThe wallet has worked this address out from the federation's keys by itself.");
    })?;
    if !args.watch {
        return Ok(());
    }
    follow_deposit(desk, &node, &spec, &deposit, args.timeout.map(Duration::from_secs))
}

pub(super) fn peg_out<W: Write>(desk: &mut Desk<'_, W>, args: &PegOutArgs) -> Result<(), CliError> {
    let (mut wallet, node) = desk.open_with_node()?;
    wallet.sync(&node, Look::Shown)?;
    let draft = draft_peg_out(&mut wallet, &node, &args.bitcoin_address, args.amount, args.feerate)?;
    approve(args.yes, &draft)?;
    wallet.send(&node, &draft)?;
    let needed = wallet.spec().params().final_depth;
    drop(wallet);
    let request = draft.outpoint().ok_or(WalletError::NotSigned)?;
    let mut json = shown(&draft);
    json["event"] = json!("requested");
    json["request"] = json!(request.to_string());
    desk.tell(&json, |lines| lines.field("requested", request))?;
    if !args.watch {
        if !desk.common.json {
            remark(&format!("To follow it: causeway wallet watch {request}"));
        }
        return Ok(());
    }
    follow_request(desk, &node, request, needed, args.timeout.map(Duration::from_secs))
}

/// BIP21, in capitals, which make a smaller code.
fn uri(address: &Address) -> String {
    format!("bitcoin:{address}").to_uppercase()
}

/// A QR code in half blocks, light on dark as most terminals are; None if it does not fit, which no address does.
fn qr(text: &str) -> Option<String> {
    let code = QrCode::new(text).ok()?;
    let (dark, light) = (Dense1x2::Light, Dense1x2::Dark);
    Some(code.render::<Dense1x2>().dark_color(dark).light_color(light).quiet_zone(true).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_made_of_half_blocks() {
        let code = qr("BITCOIN:BCRT1PJ3962F04KJ08EHLPJDRP8UTJ05LXNUWWD6XWLJ69MJVPG3PFPHNQFYNXSK").unwrap();
        let rows: Vec<&str> = code.lines().collect();
        // Version 4 has 33 modules a side, and four of quiet zone around them.
        assert_eq!(rows.len(), (33_usize + 8).div_ceil(2));
        assert!(rows.iter().all(|row| row.chars().count() == 41), "{code}");
        assert!(code.chars().all(|c| matches!(c, ' ' | '▀' | '▄' | '█' | '\n')), "{code}");
    }
}
