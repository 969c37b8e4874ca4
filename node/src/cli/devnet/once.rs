//! The whole way, once: from a deposit on Bitcoin to a payout there, and the accounts in the end.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use bitcoin::address::NetworkUnchecked;
use bitcoin::{Address, Amount, Network, OutPoint, Transaction, TxOut};
use causeway_chainspec::ChainSpec;
use causeway_consensus::peg::script::EpochScripts;
use causeway_federation::bitcoind::UnspentCoin;
use serde::Serialize;
use serde_json::json;

use super::story::{Step, Story, millis};
use super::{CliError, DevnetArgs};
use crate::devnet::client::{Credit, DepositAddress, Federation, PegOut, PegOutAddress, Reserves, wait_for};
use crate::devnet::key::DevKey;
use crate::devnet::miner::Miner;
use crate::devnet::purse::{self, Purse};
use crate::devnet::signing::{SigningPath, signing};
use crate::devnet::{DevNode, Devnet, DevnetError};
use crate::home::Home;

/// What a new devnet gets through the peg: 500 BTC.
const ENDOWMENT: Amount = Amount::from_sat(500 * 100_000_000);

/// What is withdrawn: 1 BTC.
const WITHDRAWAL: Amount = Amount::from_sat(100_000_000);

/// Payments, one after the other.
const PAYMENTS: usize = 5;

/// What each of them pays.
const PAYMENT: Amount = Amount::from_sat(100_000);

/// Role of the key (index 0) that the withdrawal goes to.
const PAYEE: &str = "payee";

/// How long a step may take: a signing session tries several paths, each with a deadline of its own.
const STEP_TIMEOUT: Duration = Duration::from_secs(180);

/// How often it is asked whether a step is done.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// What `--once` has measured. Amounts in satoshi, times in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Nodes that ran.
    pub nodes: usize,
    /// Members that ran.
    pub members: usize,
    /// Members that sign.
    pub threshold: u32,
    /// Milliseconds between blocks that the chain aims at.
    pub block_interval_ms: u32,
    /// From the start until all processes answered.
    pub start_ms: u64,
    /// What was deposited.
    pub deposit: DepositFigures,
    /// Payments that were made, one after the other.
    pub payments: usize,
    /// From handing in a payment until it was final at the full node.
    pub final_ms_median: u64,
    /// The longest.
    pub final_ms_max: u64,
    /// What was withdrawn.
    pub withdrawal: WithdrawalFigures,
    /// The accounts in the end.
    pub audit: AuditFigures,
    /// Height in the end.
    pub height: u32,
    /// Every step with its time.
    pub steps: Vec<Step>,
}

/// A deposit.
#[derive(Clone, Debug, Serialize)]
pub struct DepositFigures {
    /// What was paid on Bitcoin.
    pub address: String,
    /// The output.
    pub outpoint: String,
    /// What was paid.
    pub amount: u64,
    /// What was credited.
    pub credited: u64,
    /// What was kept.
    pub fee: u64,
    /// Confirmations that were needed.
    pub confirmations: u32,
    /// The Causeway block of the credit.
    pub height: u32,
    /// From the last confirmation to the credit.
    pub credit_ms: u64,
}

/// A withdrawal.
#[derive(Clone, Debug, Serialize)]
pub struct WithdrawalFigures {
    /// The payment on Causeway that asked for it.
    pub request: String,
    /// Where it went.
    pub bitcoin_address: String,
    /// What was given up on Causeway.
    pub amount: u64,
    /// What arrived on Bitcoin.
    pub payout: u64,
    /// What the transaction on Bitcoin took of it.
    pub fee: u64,
    /// The batch that paid it.
    pub batch: u32,
    /// The transaction on Bitcoin.
    pub txid: String,
    /// How its inputs were signed: `key`, `subset` or `multi_a`.
    pub paths: Vec<SigningPath>,
    /// Who signed.
    pub signers: Vec<String>,
    /// From the final request to the signed transaction in bitcoind's mempool.
    pub signing_ms: u64,
    /// The Bitcoin block that holds it.
    pub bitcoin_height: u32,
}

/// The accounts in the end.
#[derive(Clone, Debug, Serialize)]
pub struct AuditFigures {
    /// What a node says.
    #[serde(flatten)]
    pub reserves: Reserves,
    /// What Bitcoin Core finds at the federation's addresses; null in a directory that had deposits before, whose addresses
    /// are not known here.
    pub found_on_bitcoin: Option<u64>,
}

/// Gives the funds of a new network their first coins.
pub(super) fn endow(
    devnet: &Devnet,
    directory: &Path,
    miner: &Miner,
    story: &mut Story<impl Write>,
) -> Result<(), CliError> {
    if Purse::open(directory, devnet)?.balance() == Amount::ZERO {
        deposit(devnet, miner, story)?;
    }
    Ok(())
}

/// Goes the whole way.
pub(super) fn once(
    args: &DevnetArgs,
    devnet: &Devnet,
    directory: &Path,
    miner: &Miner,
    story: &mut Story<impl Write>,
) -> Result<(), CliError> {
    let start_ms = story.steps().last().map_or(0, |step| step.at_ms);
    let node = devnet.client_node();
    let spec = Home::at(&node.home).load_chainspec()?;
    let fresh = node.json::<Reserves>("/v1/reserves")?.locked == 0;

    let deposit = deposit(devnet, miner, story)?;
    let mut times = pay(devnet, directory, story)?;
    times.sort_unstable();
    let withdrawal = withdraw(devnet, directory, &spec, miner, story)?;
    let audit = audit(devnet, miner, fresh.then_some(&deposit), story)?;

    let figures = Figures {
        nodes: devnet.nodes.len(),
        members: devnet.members.len(),
        threshold: spec.federation().threshold(),
        block_interval_ms: spec.params().block_interval_ms,
        start_ms,
        deposit,
        payments: times.len(),
        final_ms_median: times[times.len() / 2],
        final_ms_max: times[times.len() - 1],
        withdrawal,
        audit,
        height: node.height()?,
        steps: story.steps().to_vec(),
    };
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(&figures).expect("numbers and texts are JSON") + "\n";
        let io = |source| DevnetError::Io { path: path.clone(), doing: "written", source };
        std::fs::write(path, json).map_err(io)?;
    }
    writeln!(story.out(), "all of it happened, and it adds up")?;
    Ok(())
}

/// From a deposit address to the credit.
fn deposit(devnet: &Devnet, miner: &Miner, story: &mut Story<impl Write>) -> Result<DepositFigures, CliError> {
    let node = devnet.client_node();
    let key = purse::key();
    let body = json!({ "destination": devnet.funds.address, "refund_key": key.x_only().to_string() });
    // A node that has just started follows Bitcoin a moment later.
    let deposit: DepositAddress =
        wait_for("a deposit address", STEP_TIMEOUT, ASK_EVERY, || match node.post("/v1/peg-in/address", &body) {
            Ok(address) => Ok(Some(address)),
            Err(DevnetError::Answer { status: 503, .. }) => Ok(None),
            Err(error) => Err(error),
        })?;
    let address = regtest_address(&deposit.address)?;
    story.tell("deposit_address", format!("deposit address {address} of epoch {}", deposit.epoch))?;

    let outpoint = miner.pay(&address, ENDOWMENT)?;
    story.tell("deposit", format!("{ENDOWMENT} paid to it on Bitcoin: {outpoint}"))?;

    for confirmation in 1..=deposit.confirmations_needed {
        let height = miner.mine(1)?;
        wait_for("a confirmation of the deposit", STEP_TIMEOUT, ASK_EVERY, || {
            let seen = node.peg_in(outpoint)?.filter(|peg_in| {
                peg_in.state != "confirming" || peg_in.confirmations.is_some_and(|got| got >= confirmation)
            });
            Ok(seen.map(|_| ()))
        })?;
        let needed = deposit.confirmations_needed;
        story.tell("confirmation", format!("confirmation {confirmation} of {needed}: Bitcoin block {height}"))?;
    }
    let deep = Instant::now();
    let credited = || Ok(node.peg_in(outpoint)?.and_then(|peg_in| peg_in.credit));
    let credit: Credit = wait_for("the credit", STEP_TIMEOUT, ASK_EVERY, credited)?;
    let credit_ms = millis(deep.elapsed());
    if credit.amount.checked_add(credit.fee) != Some(ENDOWMENT.to_sat()) {
        return wrong(format!("{ENDOWMENT} were deposited, {} sat credited and {} kept", credit.amount, credit.fee));
    }
    check_output(node, &credit, &key)?;
    let amount = Amount::from_sat(credit.amount);
    story.tell("credit", format!("credited {amount} in Causeway block {}, {} sat kept", credit.height, credit.fee))?;
    Ok(DepositFigures {
        address: address.to_string(),
        outpoint: outpoint.to_string(),
        amount: ENDOWMENT.to_sat(),
        credited: credit.amount,
        fee: credit.fee,
        confirmations: deposit.confirmations_needed,
        height: credit.height,
        credit_ms,
    })
}

/// The credit is where the node says that it is: in the block itself.
fn check_output(node: &DevNode, credit: &Credit, key: &DevKey) -> Result<(), CliError> {
    let block = node.block(credit.height)?;
    let of_credit = |transaction: &&Transaction| transaction.compute_txid() == credit.txid;
    let output = block.txdata.iter().find(of_credit).and_then(|transaction| output_of(transaction, credit.vout));
    let expected = TxOut { value: Amount::from_sat(credit.amount), script_pubkey: key.script() };
    if output != Some(&expected) {
        return wrong(format!("block {} does not hold the credit {}:{}", credit.height, credit.txid, credit.vout));
    }
    Ok(())
}

/// Payments, and how long each took until it was final.
fn pay(devnet: &Devnet, directory: &Path, story: &mut Story<impl Write>) -> Result<Vec<u64>, CliError> {
    let node = devnet.client_node();
    let mut purse = Purse::open(directory, devnet)?;
    let script_pubkey = DevKey::of(PAYEE, Network::Regtest).script();
    let mut times = Vec::new();
    for number in 1..=PAYMENTS {
        let started = Instant::now();
        let txid = purse.pay(&[TxOut { value: PAYMENT, script_pubkey: script_pubkey.clone() }])?;
        node.wait_final(txid)?;
        times.push(millis(started.elapsed()));
        story.tell("payment", format!("payment {number} of {PAYMENTS}, {PAYMENT}, final: {txid}"))?;
        purse.catch_up()?;
    }
    Ok(times)
}

/// From a payment to a peg-out address to the payout on Bitcoin.
fn withdraw(
    devnet: &Devnet,
    directory: &Path,
    spec: &ChainSpec,
    miner: &Miner,
    story: &mut Story<impl Write>,
) -> Result<WithdrawalFigures, CliError> {
    let node = devnet.client_node();
    let payee = DevKey::of(PAYEE, Network::Regtest);
    let destination = payee.address();
    let address: PegOutAddress = node.json(&format!("/v1/peg-out/address/{destination}"))?;
    let script_pubkey = regtest_address(&address.address)?.script_pubkey();
    let mut purse = Purse::open(directory, devnet)?;
    let txid = purse.pay(&[TxOut { value: WITHDRAWAL, script_pubkey }])?;
    drop(purse);
    node.wait_final(txid)?;
    let requested = Instant::now();
    let request = OutPoint { txid, vout: 0 };
    story.tell("withdrawal", format!("withdrawal of {WITHDRAWAL} to {destination} requested, final: {request}"))?;

    let look = |done: &dyn Fn(&PegOut) -> bool| -> Result<Option<PegOut>, DevnetError> {
        let peg_out = node.peg_out(request)?;
        if let Some(why) = peg_out.as_ref().and_then(|peg_out| peg_out.frozen.clone()) {
            return Err(DevnetError::Wrong(format!("the peg is frozen: {why}")));
        }
        Ok(peg_out.filter(done))
    };
    let batched = wait_for("a batch", STEP_TIMEOUT, ASK_EVERY, || look(&|peg_out| peg_out.batch.is_some()))?;
    let batch = batched.batch.unwrap_or_default();
    story.tell("batch", format!("batch {batch} planned by consensus"))?;

    let signed = wait_for("the members' signatures", STEP_TIMEOUT, ASK_EVERY, || {
        let versions = look(&|_| true)?.map(|peg_out| peg_out.versions).unwrap_or_default();
        for version in versions {
            if let Some(transaction) = miner.transaction(version)? {
                return Ok(Some(transaction));
            }
        }
        Ok(None)
    })?;
    let signing_ms = millis(requested.elapsed());
    let (paths, signers) = who_signed(devnet, spec, &signed)?;
    let names: Vec<&str> = paths.iter().map(|path| path.name()).collect();
    let text = format!("signed by the {}: {}", names.join(" and "), signers.join(", "));
    story.tell("signing", text)?;
    story.tell("payout", format!("payout in bitcoind's mempool: {}", signed.compute_txid()))?;

    let needed = spec.params().final_depth;
    for confirmation in 1..=needed {
        let height = miner.mine(1)?;
        story
            .tell("payout_confirmation", format!("confirmation {confirmation} of {needed}: Bitcoin block {height}"))?;
    }
    let closed = wait_for("the end of the batch", STEP_TIMEOUT, ASK_EVERY, || look(&|it| it.state == "confirmed"))?;
    let (Some(txid), Some(vout), Some(payout), Some(fee), Some(bitcoin_height)) =
        (closed.txid, closed.vout, closed.payout, closed.fee, closed.bitcoin_height)
    else {
        return wrong("a withdrawal that is confirmed has no transaction".to_owned());
    };
    check_payout(miner, OutPoint { txid, vout }, Amount::from_sat(payout), &payee, needed)?;
    if txid != signed.compute_txid() || payout.checked_add(fee) != Some(WITHDRAWAL.to_sat()) {
        return wrong(format!("{WITHDRAWAL} were withdrawn, {payout} sat paid for a fee of {fee} by {txid}"));
    }
    let amount = Amount::from_sat(payout);
    story.tell(
        "payout_confirmed",
        format!("payout of {amount} confirmed in Bitcoin block {bitcoin_height}, fee {fee} sat"),
    )?;
    Ok(WithdrawalFigures {
        request: request.to_string(),
        bitcoin_address: destination.to_string(),
        amount: WITHDRAWAL.to_sat(),
        payout,
        fee,
        batch,
        txid: txid.to_string(),
        paths,
        signers,
        signing_ms,
        bitcoin_height,
    })
}

/// Who signed a payout, by its witnesses.
fn who_signed(
    devnet: &Devnet,
    spec: &ChainSpec,
    transaction: &Transaction,
) -> Result<(Vec<SigningPath>, Vec<String>), CliError> {
    let scripts = EpochScripts::build(spec.federation());
    let Some(signings) = signing(&scripts, spec.chain_id(), transaction) else {
        return wrong(format!("{} was not signed by the members", transaction.compute_txid()));
    };
    let threshold = usize::try_from(spec.federation().threshold()).unwrap_or(usize::MAX);
    if signings.iter().any(|signing| signing.signers.len() < threshold) {
        return wrong(format!("{} was signed by fewer than {threshold} members", transaction.compute_txid()));
    }
    let mut paths: Vec<SigningPath> = signings.iter().map(|signing| signing.path).collect();
    paths.dedup();
    let mut places: Vec<u16> = signings.into_iter().flat_map(|signing| signing.signers).collect();
    places.sort_unstable();
    places.dedup();
    let name = |place: &u16| {
        let key = scripts.epoch().members()[usize::from(*place)].to_string();
        devnet.members.iter().find(|member| member.key == key).map_or(key, |member| member.name.clone())
    };
    let mut names: Vec<String> = places.iter().map(name).collect();
    names.sort();
    Ok((paths, names))
}

/// Bitcoin Core has the payout in its chain.
fn check_payout(
    miner: &Miner,
    outpoint: OutPoint,
    value: Amount,
    payee: &DevKey,
    confirmations: u32,
) -> Result<(), CliError> {
    let coin = miner.coin(outpoint)?;
    let right = |coin: &UnspentCoin| {
        coin.value == value && coin.script_pubkey == payee.script() && coin.confirmations >= confirmations
    };
    if !coin.as_ref().is_some_and(right) {
        return wrong(format!("bitcoind has no coin {outpoint} of {value} for the payee"));
    }
    Ok(())
}

/// The accounts at every node, and what Bitcoin Core finds of them.
fn audit(
    devnet: &Devnet,
    miner: &Miner,
    only: Option<&DepositFigures>,
    story: &mut Story<impl Write>,
) -> Result<AuditFigures, CliError> {
    for node in &devnet.nodes {
        let reserves: Reserves = node.json("/v1/reserves")?;
        if reserves.difference != 0 || reserves.reckon() != 0 {
            let (locked, owed, difference) = (reserves.locked, reserves.owed, reserves.difference);
            return wrong(format!("at {} {locked} sat are locked, {owed} owed: difference {difference}", node.name));
        }
    }
    let node = devnet.client_node();
    let reserves: Reserves = node.json("/v1/reserves")?;
    let found_on_bitcoin = match only {
        None => None,
        Some(deposit) => {
            let federation: Federation = node.json("/v1/federation")?;
            let addresses = federation.epochs.iter().map(|epoch| &epoch.main_address).chain([&deposit.address]);
            let mut found = Amount::ZERO;
            for address in addresses {
                found += miner.balance(&regtest_address(address)?)?;
            }
            if found.to_sat() != reserves.locked {
                return wrong(format!("{} sat are locked, bitcoind finds {}", reserves.locked, found.to_sat()));
            }
            Some(found.to_sat())
        }
    };
    let [locked, owed] = [reserves.locked, reserves.owed].map(Amount::from_sat);
    let found = found_on_bitcoin.map_or("", |_| " (bitcoind finds the same)");
    let fees = Amount::from_sat(reserves.fee_pot);
    let text =
        format!("audit: locked {locked}{found}, owed {owed}, fees kept {fees}; difference {}", reserves.difference);
    story.tell("audit", text)?;
    Ok(AuditFigures { reserves, found_on_bitcoin })
}

fn output_of(transaction: &Transaction, vout: u32) -> Option<&TxOut> {
    transaction.output.get(usize::try_from(vout).ok()?)
}

fn regtest_address(text: &str) -> Result<Address, DevnetError> {
    let address = text.parse::<Address<NetworkUnchecked>>().ok();
    let address = address.and_then(|address| address.require_network(Network::Regtest).ok());
    address.ok_or_else(|| DevnetError::Wrong(format!("{text} is no address of regtest")))
}

fn wrong<T>(what: String) -> Result<T, CliError> {
    Err(DevnetError::Wrong(what).into())
}
