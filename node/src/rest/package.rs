//! `POST /txs/package`: several transactions that depend on each other, in the form of Bitcoin Core's `submitpackage`.
//!
//! The mempool judges each transaction by its own fee: none is taken because another one pays for it. So the transactions
//! are handed in one after the other, in the order given, and the answer says of each what became of it. Whoever sends a
//! parent below the minimum with a child that pays for both is told so of the parent, and that the child's input is
//! missing. A transaction that was taken stays, also when a later one is refused.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bitcoin::consensus::encode::deserialize_hex;
use bitcoin::hex::FromHex;
use bitcoin::{Amount, OutPoint, Transaction, TxOut, Txid, Wtxid};
use causeway_consensus::ChainView;
use causeway_consensus::coin::is_unspendable;
use schemars::JsonSchema;
use serde::Serialize;

use super::App;
use super::answer::{Answer, Keep, Refusal};
use super::live::Live;
use super::schema::Hash;
use super::transactions::RpcError;
use crate::mempool::{Mempool, NotYet, PolicyReject, Reject};

/// Transactions of one package (Core: `MAX_PACKAGE_COUNT`).
pub(super) const MAX_TRANSACTIONS: usize = 25;

/// Digits of one transaction: from 60 bytes to the heaviest standard one (electrs).
const DIGITS: std::ops::Range<usize> = 120..800_000;

/// The highest feerate that is taken, in BTC/kvB, where the sender does not say (Core: `DEFAULT_MAX_RAW_TX_FEE_RATE`).
const DEFAULT_MAX_FEERATE: f64 = 0.10;

/// Transactions that one replaces at most, as the mempool has it.
const MAX_REPLACED: usize = 100;

/// What a sender does not want to do by mistake.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct PackageLimits {
    /// BTC/kvB; 0 for no limit.
    max_feerate: f64,
    /// BTC in one output that nobody can spend.
    max_burn: f64,
}

impl PackageLimits {
    /// Reads them from the query of the request.
    pub(super) fn of_query(query: &str) -> Result<Self, Refusal> {
        let mut limits = Self { max_feerate: DEFAULT_MAX_FEERATE, max_burn: 0.0 };
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let number = || value.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
            match name {
                "maxfeerate" => limits.max_feerate = number().ok_or(Refusal::InvalidMaxFeerate)?,
                "maxburnamount" => limits.max_burn = number().ok_or(Refusal::InvalidMaxBurn)?,
                _ => {}
            }
        }
        Ok(limits)
    }
}

/// Core's answer.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PackageResult")]
pub(super) struct PackageJson {
    package_msg: &'static str,
    /// By wtxid.
    #[schemars(with = "BTreeMap<String, ResultJson>")]
    #[serde(rename = "tx-results")]
    results: BTreeMap<Wtxid, ResultJson>,
    #[schemars(with = "Vec<Hash>")]
    #[serde(rename = "replaced-transactions")]
    replaced: BTreeSet<Txid>,
}

/// What became of a transaction of a package.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PackageItem")]
struct ResultJson {
    #[schemars(with = "Hash")]
    txid: Txid,
    #[schemars(with = "Option<Hash>")]
    #[serde(rename = "other-wtxid", skip_serializing_if = "Option::is_none")]
    other_wtxid: Option<Wtxid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vsize: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fees: Option<FeesJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// What a transaction pays, in BTC.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PackageFees")]
struct FeesJson {
    base: f64,
    #[serde(rename = "effective-feerate", skip_serializing_if = "Option::is_none")]
    effective_feerate: Option<f64>,
    #[serde(rename = "effective-includes", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Hash>")]
    effective_includes: Vec<Wtxid>,
}

/// Hands in the transactions of a package.
pub(super) async fn submit<L: Live>(app: &App<L>, limits: PackageLimits, body: Vec<u8>) -> Result<Answer, Refusal> {
    let package = app.read(move |_| decode(&body, limits)).await?;
    let mut json = PackageJson { package_msg: "success", results: BTreeMap::new(), replaced: BTreeSet::new() };
    for transaction in package {
        let wtxid = transaction.compute_wtxid();
        let result = submit_one(app, limits, Arc::new(transaction), &mut json.replaced).await?;
        if result.error.is_some() {
            json.package_msg = "transaction failed";
        }
        json.results.insert(wtxid, result);
    }
    Answer::json(&json, Keep::Never)
}

fn decode(body: &[u8], limits: PackageLimits) -> Result<Vec<Transaction>, Refusal> {
    let package: Vec<String> =
        serde_json::from_slice(body).map_err(|error| Refusal::InvalidPackage(error.to_string()))?;
    if package.len() > MAX_TRANSACTIONS {
        return Err(Refusal::PackageTooLong { max: MAX_TRANSACTIONS });
    }
    for (item, hex) in package.iter().enumerate() {
        if !DIGITS.contains(&hex.len()) {
            return Err(Refusal::PackageItemSize { item });
        }
        Vec::<u8>::from_hex(hex).map_err(|_| Refusal::PackageItemHex { item })?;
    }
    if package.is_empty() {
        return Err(Refusal::RejectedPackage(RpcError::EmptyPackage { max: MAX_TRANSACTIONS }));
    }
    let decode = |hex: &String| deserialize_hex(hex).map_err(|_| Refusal::RejectedPackage(RpcError::Decode));
    let transactions = package.iter().map(decode).collect::<Result<Vec<Transaction>, Refusal>>()?;
    let burns = |output: &TxOut| is_unspendable(&output.script_pubkey) && output.value.to_btc() > limits.max_burn;
    if transactions.iter().flat_map(|transaction| &transaction.output).any(burns) {
        return Err(Refusal::RejectedPackage(RpcError::Burns));
    }
    Ok(transactions)
}

async fn submit_one<L: Live>(
    app: &App<L>,
    limits: PackageLimits,
    transaction: Arc<Transaction>,
    replaced: &mut BTreeSet<Txid>,
) -> Result<ResultJson, Refusal> {
    let txid = transaction.compute_txid();
    let nothing = || ResultJson { txid, other_wtxid: None, vsize: None, fees: None, error: None };
    let refused = |error: String| Ok(ResultJson { error: Some(error), ..nothing() });

    let looked_at = Arc::clone(&transaction);
    let (from_pool, rivals) =
        app.live.pool(move |pool| (outputs_of(pool, &looked_at), rivals(pool, &looked_at))).await?;
    if limits.max_feerate > 0.0 {
        let looked_at = Arc::clone(&transaction);
        let fee = app.read(move |reader| fee(reader.store(), &looked_at, from_pool)).await?;
        // Without all of its coins, the mempool has another reason.
        if fee.is_some_and(|fee| btc_per_kvb(fee, transaction.vsize() as u64) > limits.max_feerate) {
            return refused("max feerate exceeded".to_owned());
        }
    }

    let outcome = app.live.submit((*transaction).clone()).await?;
    let entry = app.live.pool(move |pool| {
        let gone: Vec<Txid> = rivals.into_iter().filter(|rival| !pool.contains(rival)).collect();
        let entry = pool.get(&txid).map(|entry| (entry.wtxid(), entry.vsize(), entry.fee()));
        (entry, gone)
    });
    let (entry, gone) = entry.await?;
    match outcome {
        Ok(_) => {
            app.pool_changed();
            replaced.extend(gone);
            // A block may have taken it since.
            let fees = entry.map(|(wtxid, vsize, fee)| FeesJson {
                base: fee.to_btc(),
                effective_feerate: Some(btc_per_kvb(fee, vsize)),
                effective_includes: vec![wtxid],
            });
            Ok(ResultJson { vsize: entry.map(|(_, vsize, _)| vsize), fees, ..nothing() })
        }
        Err(Reject::Policy(PolicyReject::AlreadyInMempool)) => {
            let fees = |(_, _, fee): (Wtxid, u64, Amount)| FeesJson {
                base: fee.to_btc(),
                effective_feerate: None,
                effective_includes: Vec::new(),
            };
            Ok(ResultJson { vsize: entry.map(|(_, vsize, _)| vsize), fees: entry.map(fees), ..nothing() })
        }
        Err(Reject::Policy(PolicyReject::SameTxidInMempool)) => {
            Ok(ResultJson { other_wtxid: entry.map(|(wtxid, ..)| wtxid), ..nothing() })
        }
        Err(Reject::NotYet(NotYet::ChainMoved)) => Err(Refusal::ChainMoved),
        Err(Reject::NotYet(NotYet::Busy)) => Err(Refusal::Busy),
        Err(reject) => refused(reject.to_string()),
    }
}

/// What a transaction spends of the mempool.
fn outputs_of(pool: &Mempool, transaction: &Transaction) -> HashMap<OutPoint, TxOut> {
    let output = |outpoint: OutPoint| {
        let vout = usize::try_from(outpoint.vout).ok()?;
        Some((outpoint, pool.get(&outpoint.txid)?.transaction().output.get(vout)?.clone()))
    };
    transaction.input.iter().filter_map(|input| output(input.previous_output)).collect()
}

/// The transactions of the mempool that cannot stand beside this one.
fn rivals(pool: &Mempool, transaction: &Transaction) -> BTreeSet<Txid> {
    let txid = transaction.compute_txid();
    let spenders = transaction.input.iter().filter_map(|input| pool.spender(&input.previous_output));
    let mut open: Vec<Txid> = spenders.filter(|spender| *spender != txid).collect();
    let mut rivals = BTreeSet::new();
    while let Some(rival) = open.pop().filter(|_| rivals.len() < MAX_REPLACED) {
        if rivals.insert(rival) {
            open.extend(pool.get(&rival).into_iter().flat_map(|entry| entry.children()));
        }
    }
    rivals
}

/// What a transaction pays; None if one of its coins is unknown.
fn fee(
    chain: &impl ChainView,
    transaction: &Transaction,
    from_pool: HashMap<OutPoint, TxOut>,
) -> Result<Option<Amount>, Refusal> {
    let inputs = transaction.input.iter().map(|input| input.previous_output);
    let of_chain: Vec<OutPoint> = inputs.filter(|outpoint| !from_pool.contains_key(outpoint)).collect();
    let coins = chain.coins(&of_chain)?;
    let values = coins.into_iter().map(|coin| coin.map(|coin| coin.output.value));
    let values = values.chain(from_pool.values().map(|output| Some(output.value)));
    let spent = values.collect::<Option<Vec<Amount>>>();
    let paid = total(transaction.output.iter().map(|output| output.value));
    let spent = spent.and_then(total);
    Ok(spent.zip(paid).and_then(|(spent, paid)| spent.checked_sub(paid)))
}

fn total(amounts: impl IntoIterator<Item = Amount>) -> Option<Amount> {
    amounts.into_iter().try_fold(Amount::ZERO, Amount::checked_add)
}

fn btc_per_kvb(fee: Amount, vsize: u64) -> f64 {
    // Exact up to 2^53, which no size comes near.
    fee.to_btc() * 1_000.0 / vsize.max(1) as f64
}
