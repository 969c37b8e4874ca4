//! `POST /txs/package`: a child with parents that it pays for, in the form of Bitcoin Core's `submitpackage`.
//!
//! Each transaction is tried by itself first; those that pay too little, or miss an output of another one, are then tried
//! together. The answer says of each what became of it. A transaction that was taken stays, also when another one is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bitcoin::consensus::encode::deserialize_hex;
use bitcoin::hex::FromHex;
use bitcoin::{Amount, Transaction, TxOut, Txid, Wtxid};
use causeway_chainspec::SatPerKvb;
use causeway_consensus::coin::is_unspendable;
use schemars::JsonSchema;
use serde::Serialize;

use super::App;
use super::answer::{Answer, Keep, Refusal};
use super::live::Live;
use super::schema::Hash;
use super::transactions::RpcError;
use crate::mempool::policy::MAX_PACKAGE_COUNT;
use crate::mempool::{NotYet, Package, PackageForm, PackageResult, Reject, TxResult};

/// Digits of one transaction: from 60 bytes to the heaviest standard one (electrs).
const DIGITS: std::ops::Range<usize> = 120..800_000;

/// The highest feerate that is taken, in BTC/kvB, where the sender does not say (Core: `DEFAULT_MAX_RAW_TX_FEE_RATE`).
const DEFAULT_MAX_FEERATE: f64 = 0.10;

/// What a sender does not want to do by mistake.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct PackageLimits {
    /// BTC/kvB; 0 for no limit.
    max_feerate: f64,
    /// BTC in one output that nobody can spend.
    max_burn: f64,
}

impl PackageLimits {
    fn max_feerate(self) -> Option<SatPerKvb> {
        let sat = format!("{:.0}", self.max_feerate * 1e8).parse().unwrap_or(u64::MAX);
        (self.max_feerate > 0.0).then_some(SatPerKvb(sat))
    }

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
    /// `success` if all of it is in the mempool; else why not.
    package_msg: String,
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

/// Hands in a package.
pub(super) async fn submit<L: Live>(app: &App<L>, limits: PackageLimits, body: Vec<u8>) -> Result<Answer, Refusal> {
    let decoded = app.read(move |_| {
        let transactions = decode(&body, limits)?;
        Ok((Package::new(transactions.clone()), transactions))
    });
    let package = match decoded.await? {
        (Ok(package), _) => package,
        (Err(PackageForm::Topology | PackageForm::TooMany), _) => {
            return Err(Refusal::RejectedPackage(RpcError::Topology));
        }
        (Err(form), transactions) => {
            return Answer::json(&PackageJson::not_looked_at(form, &transactions), Keep::Never);
        }
    };
    let result = match app.live.submit_package(package, limits.max_feerate()).await? {
        Ok(result) => result,
        Err(NotYet::Busy) => return Err(Refusal::Busy),
        Err(_) => return Err(Refusal::ChainMoved),
    };
    let moved = |result: &TxResult| matches!(result, TxResult::Refused(Reject::NotYet(NotYet::ChainMoved)));
    if result.results.iter().any(|(_, result)| moved(result)) {
        return Err(Refusal::ChainMoved);
    }
    // Whoever looks next sees it.
    app.pool_changed();
    app.read(move |_| Answer::json(&PackageJson::of(result), Keep::Never)).await
}

fn decode(body: &[u8], limits: PackageLimits) -> Result<Vec<Arc<Transaction>>, Refusal> {
    let package: Vec<String> =
        serde_json::from_slice(body).map_err(|error| Refusal::InvalidPackage(error.to_string()))?;
    if package.len() > MAX_PACKAGE_COUNT {
        return Err(Refusal::PackageTooLong { max: MAX_PACKAGE_COUNT });
    }
    for (item, hex) in package.iter().enumerate() {
        if !DIGITS.contains(&hex.len()) {
            return Err(Refusal::PackageItemSize { item });
        }
        Vec::<u8>::from_hex(hex).map_err(|_| Refusal::PackageItemHex { item })?;
    }
    if package.is_empty() {
        return Err(Refusal::RejectedPackage(RpcError::EmptyPackage { max: MAX_PACKAGE_COUNT }));
    }
    let decode = |hex: &String| deserialize_hex(hex).map_err(|_| Refusal::RejectedPackage(RpcError::Decode));
    let transactions = package.iter().map(decode).collect::<Result<Vec<Transaction>, Refusal>>()?;
    let burns = |output: &TxOut| is_unspendable(&output.script_pubkey) && output.value.to_btc() > limits.max_burn;
    if transactions.iter().flat_map(|transaction| &transaction.output).any(burns) {
        return Err(Refusal::RejectedPackage(RpcError::Burns));
    }
    Ok(transactions.into_iter().map(Arc::new).collect())
}

impl PackageJson {
    fn not_looked_at(form: PackageForm, transactions: &[Arc<Transaction>]) -> Self {
        let error = || Some("package-not-validated".to_owned());
        let result = |transaction: &Arc<Transaction>| {
            let nothing = ResultJson::nothing(transaction.compute_txid());
            (transaction.compute_wtxid(), ResultJson { error: error(), ..nothing })
        };
        Self {
            package_msg: form.to_string(),
            results: transactions.iter().map(result).collect(),
            replaced: BTreeSet::new(),
        }
    }

    fn of(result: PackageResult) -> Self {
        let PackageResult { refused, results, replaced } = result;
        let result = |(transaction, result): (Arc<Transaction>, TxResult)| {
            (transaction.compute_wtxid(), ResultJson::of(transaction.compute_txid(), result))
        };
        Self {
            package_msg: refused.map_or_else(|| "success".to_owned(), |refused| refused.to_string()),
            results: results.into_iter().map(result).collect(),
            replaced,
        }
    }
}

impl ResultJson {
    fn nothing(txid: Txid) -> Self {
        Self { txid, other_wtxid: None, vsize: None, fees: None, error: None }
    }

    fn of(txid: Txid, result: TxResult) -> Self {
        let nothing = Self::nothing(txid);
        match result {
            TxResult::Accepted { vsize, fee, feerate, includes } => {
                let SatPerKvb(rate) = feerate.rate();
                let effective_feerate = Some(Amount::from_sat(rate).to_btc());
                let fees = FeesJson { base: fee.to_btc(), effective_feerate, effective_includes: includes };
                Self { vsize: Some(vsize), fees: Some(fees), ..nothing }
            }
            TxResult::Known { vsize, fee } => {
                let fees = FeesJson { base: fee.to_btc(), effective_feerate: None, effective_includes: Vec::new() };
                Self { vsize: Some(vsize), fees: Some(fees), ..nothing }
            }
            TxResult::OtherWitness(wtxid) => Self { other_wtxid: Some(wtxid), ..nothing },
            TxResult::Refused(reject) => Self { error: Some(reject.to_string()), ..nothing },
        }
    }
}
