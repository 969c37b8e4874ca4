//! Following deposits and peg-outs. Nothing of the wallet is open meanwhile.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use bitcoin::{Amount, OutPoint};
use causeway_chainspec::ChainSpec;
use clap::Args;
use serde_json::json;

use super::pay::wait_final;
use super::terminal::remark;
use super::{CliError, Desk};
use crate::wallet::WalletError;
use crate::wallet::deposit::DepositAddress;
use crate::wallet::node::Node;

/// How often the node is asked.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// What `causeway wallet watch` is told.
#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    /// A deposit address of this wallet, or a peg-out: the transaction's output (txid:number) as "peg-out" has printed it.
    what: String,
    /// Gives up after so long.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
}

pub(super) fn watch<W: Write>(desk: &mut Desk<'_, W>, args: &WatchArgs) -> Result<(), CliError> {
    let timeout = args.timeout.map(Duration::from_secs);
    let (wallet, node) = desk.open_with_node()?;
    node.check_chain(wallet.spec())?;
    if let Ok(request) = args.what.trim().parse::<OutPoint>() {
        let needed = wallet.spec().params().final_depth;
        drop(wallet);
        return follow_request(desk, &node, request, needed, timeout);
    }
    let (deposit, spec) = (wallet.find_deposit(&args.what)?, wallet.spec().clone());
    drop(wallet);
    // The node that is asked may be another one than at first.
    deposit.register(&node)?;
    follow_deposit(desk, &node, &spec, &deposit, timeout)
}

/// How long something is waited for, and what it is.
pub(super) struct Patience {
    pub(super) timeout: Option<Duration>,
    pub(super) what: &'static str,
    /// What goes on with it later.
    pub(super) again: String,
}

/// Asks until there is an answer. A node that does not answer for a moment is asked again.
pub(super) fn patiently<T>(
    patience: &Patience,
    mut ask: impl FnMut() -> Result<Option<T>, WalletError>,
) -> Result<T, WalletError> {
    let started = Instant::now();
    let mut trouble = None;
    loop {
        match ask() {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => trouble = None,
            Err(error) if error.is_passing() => {
                let text = causeway_federation::command::one_line(&error);
                if trouble.as_ref() != Some(&text) {
                    remark(&format!("asking again: {text}"));
                    trouble = Some(text);
                }
            }
            Err(error) => return Err(error),
        }
        if let Some(timeout) = patience.timeout.filter(|timeout| started.elapsed() >= *timeout) {
            let (what, again) = (patience.what, patience.again.clone());
            return Err(WalletError::Waited { what, seconds: timeout.as_secs(), again });
        }
        std::thread::sleep(ASK_EVERY);
    }
}

/// Follows what is paid to a deposit address, until all that was seen is credited.
pub(super) fn follow_deposit<W: Write>(
    desk: &mut Desk<'_, W>,
    node: &Node,
    spec: &ChainSpec,
    deposit: &DepositAddress,
    timeout: Option<Duration>,
) -> Result<(), CliError> {
    let needed = spec.params().final_depth;
    let mut waiting: BTreeMap<OutPoint, Option<u32>> = BTreeMap::new();
    let mut credited = Vec::new();
    let started = Instant::now();
    loop {
        let left = timeout.map(|timeout| timeout.saturating_sub(started.elapsed()));
        let patience = Patience { timeout: left, what: "the deposit's credit", again: deposit.address.to_string() };
        let step = patiently(&patience, || next_of_deposit(node, deposit, &waiting, &credited));
        let step = step.map_err(|error| whole(error, timeout))?;
        match step {
            DepositStep::Seen { outpoint, amount } => {
                waiting.insert(outpoint, None);
                let json = json!({
                    "event": "seen", "deposit": outpoint.to_string(), "amount_sat": amount.to_sat(),
                });
                desk.tell(&json, |lines| lines.field("seen", format!("{amount} in {outpoint}")))?;
            }
            DepositStep::Confirmations { outpoint, confirmations } => {
                waiting.insert(outpoint, Some(confirmations));
                let json = json!({
                    "event": "confirmations", "deposit": outpoint.to_string(),
                    "confirmations": confirmations, "confirmations_needed": needed,
                });
                desk.tell(&json, |lines| lines.field("confirmed", format!("{confirmations} of {needed}")))?;
            }
            DepositStep::Credited { outpoint, credit } => {
                waiting.remove(&outpoint);
                credited.push(outpoint);
                let json = json!({
                    "event": "credited", "deposit": outpoint.to_string(), "txid": credit.txid, "vout": credit.vout,
                    "height": credit.height, "amount_sat": credit.amount, "fee_sat": credit.fee,
                });
                let amount = Amount::from_sat(credit.amount);
                desk.tell(&json, |lines| {
                    lines.field("credited", format!("{amount} in block {}, {}", credit.height, credit.txid));
                })?;
                if waiting.is_empty() {
                    return Ok(());
                }
            }
        }
    }
}

/// What is new of a deposit address.
enum DepositStep {
    Seen { outpoint: OutPoint, amount: Amount },
    Confirmations { outpoint: OutPoint, confirmations: u32 },
    Credited { outpoint: OutPoint, credit: crate::devnet::client::Credit },
}

fn next_of_deposit(
    node: &Node,
    deposit: &DepositAddress,
    waiting: &BTreeMap<OutPoint, Option<u32>>,
    credited: &[OutPoint],
) -> Result<Option<DepositStep>, WalletError> {
    for seen in node.deposits(&deposit.address)? {
        if !waiting.contains_key(&seen.outpoint) && !credited.contains(&seen.outpoint) {
            return Ok(Some(DepositStep::Seen { outpoint: seen.outpoint, amount: seen.amount }));
        }
    }
    for (outpoint, told) in waiting {
        let Some(peg_in) = node.peg_in(*outpoint)? else { continue };
        if let Some(credit) = peg_in.credit {
            deposit.check_credit(node, &credit)?;
            return Ok(Some(DepositStep::Credited { outpoint: *outpoint, credit }));
        }
        if let Some(confirmations) = peg_in.confirmations.filter(|confirmations| Some(*confirmations) != *told) {
            return Ok(Some(DepositStep::Confirmations { outpoint: *outpoint, confirmations }));
        }
    }
    Ok(None)
}

/// Follows a request until it is paid on Bitcoin, and so deep that the chain records it: `needed` confirmations.
pub(super) fn follow_request<W: Write>(
    desk: &mut Desk<'_, W>,
    node: &Node,
    request: OutPoint,
    needed: u32,
    timeout: Option<Duration>,
) -> Result<(), CliError> {
    let started = Instant::now();
    if node.transaction(request.txid)?.is_none() {
        return Err(WalletError::NoRequest { request: request.to_string() }.into());
    }
    let height = wait_final(node, request.txid)?;
    let json = json!({ "event": "final", "request": request.to_string(), "height": height });
    desk.tell(&json, |lines| lines.field("final", format!("in block {height}")))?;
    let mut told = None;
    loop {
        let left = timeout.map(|timeout| timeout.saturating_sub(started.elapsed()));
        let patience = Patience { timeout: left, what: "the payment on Bitcoin", again: request.to_string() };
        let peg_out = patiently(&patience, || {
            let peg_out = node.peg_out(request)?.ok_or(WalletError::NoRequest { request: request.to_string() })?;
            let stage = (peg_out.state.clone(), peg_out.txid, peg_out.confirmations, peg_out.frozen.clone());
            let new = told.as_ref() != Some(&stage);
            told = Some(stage);
            Ok(new.then_some(peg_out))
        });
        let peg_out = peg_out.map_err(|error| whole(error, timeout))?;
        let done = peg_out.state == "confirmed";
        let json = json!({
            "event": peg_out.state, "request": request.to_string(), "batch": peg_out.batch, "txid": peg_out.txid,
            "vout": peg_out.vout, "payout_sat": peg_out.payout, "fee_sat": peg_out.fee,
            "confirmations": peg_out.confirmations, "confirmations_needed": needed, "bitcoin_height": peg_out.bitcoin_height,
            "frozen": peg_out.frozen,
        });
        let text = |amount: Option<u64>| Amount::from_sat(amount.unwrap_or_default());
        desk.tell(&json, |lines| match (peg_out.state.as_str(), peg_out.batch, peg_out.txid) {
            ("waiting", _, _) => lines.field("waiting", "for a batch"),
            ("confirmed", _, Some(txid)) => {
                lines.field("paid", format!("{} on Bitcoin, fee {}: {txid}", text(peg_out.payout), text(peg_out.fee)));
            }
            (state, Some(batch), Some(txid)) => {
                match peg_out.confirmations.filter(|confirmations| *confirmations > 0) {
                    Some(confirmations) => lines.field("confirmed", format!("{confirmations} of {needed}: {txid}")),
                    None => lines.field(state, format!("in batch {batch}: {txid}")),
                }
            }
            (state, _, _) => lines.line(state),
        })?;
        if let Some(reason) = peg_out.frozen.filter(|_| !done) {
            return Err(WalletError::Frozen { reason }.into());
        }
        if done {
            return Ok(());
        }
    }
}

/// The error with the time that was given at first, of which the last wait had only what was left.
fn whole(error: WalletError, timeout: Option<Duration>) -> WalletError {
    match (error, timeout) {
        (WalletError::Waited { what, again, .. }, Some(timeout)) => {
            WalletError::Waited { what, seconds: timeout.as_secs(), again }
        }
        (error, _) => error,
    }
}
