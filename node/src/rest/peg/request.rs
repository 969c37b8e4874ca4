//! The way out: the address to pay, and what became of a request.

use std::str::FromStr;
use std::sync::Arc;

use bitcoin::address::NetworkUnchecked;
use bitcoin::{Address, OutPoint, Txid};
use causeway_consensus::peg::history::BatchRecord;
use causeway_consensus::peg::{PegState, coin::PegOutRequest};
use schemars::JsonSchema;
use serde::Serialize;

use super::super::App;
use super::super::answer::{Answer, Keep, Refusal};
use super::super::reader::Reader;
use super::super::schema::{Hash, Outpoint};
use super::{ConfirmationsJson, Source, seconds, show};

/// How to withdraw to a Bitcoin address. Amounts in satoshi.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PegOutAddress")]
pub(in super::super) struct PegOutAddressJson {
    /// What to pay on Causeway.
    address: String,
    bitcoin_address: String,
    min_amount: u64,
    max_amount: u64,
    /// Most of the request that goes to the fee on Bitcoin, until it has waited long.
    fee_max: u64,
    confirmations_needed: u32,
    /// Why nothing is paid out at this moment; null if it is.
    frozen: Option<String>,
}

/// `GET /v1/peg-out/address/:address`.
pub(in super::super) fn peg_out_address<L>(app: &App<L>, text: &str) -> Result<Answer, Refusal> {
    let wrong = |why: String| Refusal::PegOutAddress(why);
    let bitcoin = Address::<NetworkUnchecked>::from_str(text).map_err(|error| wrong(error.to_string()))?;
    let address = app.chain.spec.peg_out_address(bitcoin).map_err(|error| wrong(error.to_string()))?;
    let params = app.chain.spec.params();
    let json = PegOutAddressJson {
        address: address.to_string(),
        bitcoin_address: text.to_owned(),
        min_amount: params.peg_out_min.to_sat(),
        max_amount: params.peg_out_max.to_sat(),
        fee_max: params.peg_out_fee_max.to_sat(),
        confirmations_needed: params.final_depth,
        frozen: app.chain.store_tip().peg().frozen().map(|why| why.to_string()),
    };
    Answer::json(&json, Keep::Never)
}

/// What became of a withdrawal. Amounts in satoshi.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PegOut")]
pub(in super::super) struct PegOutJson {
    #[schemars(with = "Outpoint")]
    request: String,
    /// `waiting` for a batch, `batched`, `replaced` (batched, with a higher fee than at first), or `confirmed`.
    state: &'static str,
    amount: u64,
    bitcoin_address: String,
    /// Requests before it; null once it is batched.
    position: Option<usize>,
    batch: Option<u32>,
    /// The transaction on Bitcoin: the one that confirmed, or the newest version.
    #[schemars(with = "Option<Hash>")]
    txid: Option<Txid>,
    /// All versions, oldest first: any of them may confirm.
    #[schemars(with = "Vec<Hash>")]
    versions: Vec<Txid>,
    vout: Option<usize>,
    /// What arrives on Bitcoin.
    payout: Option<u64>,
    fee: Option<u64>,
    bitcoin_height: Option<u32>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    confirming: Option<ConfirmationsJson>,
    /// Why nothing moves; null if it does.
    frozen: Option<String>,
}

/// `GET /v1/peg-out/:outpoint`.
pub(in super::super) async fn peg_out<L: super::super::Live>(
    app: &Arc<App<L>>,
    request: OutPoint,
) -> Result<Answer, Refusal> {
    let source = app.bitcoin.clone();
    app.read(move |reader| reader.peg_out(request, &source)).await
}

impl Reader {
    fn peg_out(&self, request: OutPoint, source: &Source) -> Result<Answer, Refusal> {
        let peg = self.tip().peg();
        let network = peg.network().start().network();
        if let Some((position, waiting)) = peg.waiting().enumerate().find(|(_, waiting)| waiting.outpoint == request) {
            let json = PegOutJson {
                position: Some(position),
                confirming: Some(ConfirmationsJson {
                    confirmations: 0,
                    confirmations_needed: peg.network().params().final_depth,
                    estimated_seconds: seconds(peg.network().params().final_depth.saturating_add(1), network),
                }),
                ..blank(peg, waiting)
            };
            return Answer::json(&json, Keep::Never);
        }
        let number = self.store().batch_of_request(&request)?.ok_or(Refusal::PegOutNotFound)?;
        let record = self.store().batch(number)?.ok_or(Refusal::PegOutNotFound)?;
        let payee = record.batch.payees.iter().position(|payee| payee.outpoint == request);
        let vout = payee.ok_or(Refusal::PegOutNotFound)?;
        Answer::json(&batched(peg, &record, vout, source), Keep::Never)
    }
}

fn blank(peg: &PegState, request: &PegOutRequest) -> PegOutJson {
    let network = peg.network().start().network();
    let address = Address::from_script(request.destination.script(), network);
    PegOutJson {
        request: show(&request.outpoint),
        state: "waiting",
        amount: request.amount.to_sat(),
        bitcoin_address: address.map_or_else(|_| String::new(), |address| address.to_string()),
        position: None,
        batch: None,
        txid: None,
        versions: Vec::new(),
        vout: None,
        payout: None,
        fee: None,
        bitcoin_height: None,
        confirming: None,
        frozen: peg.frozen().map(|why| why.to_string()),
    }
}

fn batched(peg: &PegState, record: &BatchRecord, vout: usize, source: &Source) -> PegOutJson {
    let batch = &record.batch;
    let seen = |txid: &Txid| source.as_ref().and_then(|source| source.confirmed(txid));
    let shallow = batch.versions.iter().find_map(|version| Some((version, seen(&version.txid)?)));
    let closed = record.confirmed.as_ref().and_then(|at| Some((batch.version(&at.txid)?, at.height)));
    let (version, height) = match closed.or(shallow) {
        Some((version, height)) => (version, Some(height)),
        None => (batch.newest(), None),
    };
    let share = version.shares.get(vout).copied().unwrap_or_default();
    let state = match (&record.confirmed, batch.versions.len()) {
        (Some(_), _) => "confirmed",
        (None, 1) => "batched",
        (None, _) => "replaced",
    };
    let tip = source.as_ref().map(|source| source.standing().tip.0);
    let tip = tip.unwrap_or_default().max(peg.headers().tip().height);
    PegOutJson {
        state,
        batch: Some(batch.number),
        txid: Some(version.txid),
        versions: batch.versions.iter().map(|version| version.txid).collect(),
        vout: Some(vout),
        payout: batch.payees[vout].amount.checked_sub(share).map(|payout| payout.to_sat()),
        fee: Some(share.to_sat()),
        bitcoin_height: height.map(|height| height.0),
        confirming: height.map(|height| ConfirmationsJson::new(peg, height, tip)),
        ..blank(peg, &batch.payees[vout])
    }
}
