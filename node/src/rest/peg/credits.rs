//! The deposits that were credited, page by page: what members check against Bitcoin before they sign, and what a recovery
//! needs to know of coins that were never swept.

use std::collections::HashMap;
use std::sync::Arc;

use bitcoin::hex::DisplayHex;
use bitcoin::{BlockHash, OutPoint};
use causeway_chainspec::Height;
use causeway_consensus::peg::coin::{CoinKind, CoinPlace, PegCoin};
use causeway_consensus::peg::history::Credit;
use schemars::JsonSchema;
use serde::Serialize;

use super::super::App;
use super::super::answer::{Answer, Keep, Refusal};
use super::super::live::Live;
use super::super::reader::Reader;
use super::super::schema::{Hash, HexBytes, Outpoint, XOnlyKey};
use super::accounts::TipJson;
use super::show;

/// Deposits from which on a page ends with the block that it has come to.
const PAGE: usize = 500;

/// A page of credited deposits.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CreditedDeposits")]
pub(in super::super) struct PegInsJson {
    tip: TipJson,
    /// Deposits credited in blocks above this one are here.
    since: u32,
    /// Up to this block: the next page is asked for with `since` of this. The tip's height if there is no more.
    to: u32,
    /// In the order of their credits.
    peg_ins: Vec<CreditedJson>,
}

/// A deposit that was credited.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CreditedDeposit")]
struct CreditedJson {
    #[schemars(with = "Outpoint")]
    deposit: String,
    amount: u64,
    /// The Causeway block that credited it.
    credited: u32,
    /// Its block on Bitcoin; the hash is null if the chain's view of Bitcoin has no block there.
    bitcoin_height: u32,
    #[schemars(with = "Option<Hash>")]
    bitcoin_hash: Option<BlockHash>,
    /// `credited`, `batched` while an open batch spends it, `swept` once that is deep.
    state: &'static str,
    /// What its script commits to; null once it is swept.
    terms: Option<TermsJson>,
}

/// What a deposit's script commits to.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "DepositTerms")]
struct TermsJson {
    epoch: u32,
    /// The script that was credited, hex.
    #[schemars(with = "HexBytes")]
    destination: String,
    #[schemars(with = "XOnlyKey")]
    refund_key: String,
}

/// `GET /v1/peg-ins?since=:height`.
pub(in super::super) async fn peg_ins<L: Live>(app: &Arc<App<L>>, since: u64) -> Result<Answer, Refusal> {
    app.read(move |reader| reader.peg_ins(since)).await
}

impl Reader {
    fn peg_ins(&self, since: u64) -> Result<Answer, Refusal> {
        // A member may have seen another node's tip.
        let since = Height(u32::try_from(since).map_err(|_| Refusal::InvalidNumber)?);
        let (tip, peg) = (self.tip().height(), self.tip().peg());
        let page = self.store().credits(since, tip, PAGE)?;
        let in_batches: HashMap<OutPoint, &PegCoin> =
            peg.open_batches().flat_map(|batch| &batch.inputs).map(|coin| (coin.outpoint, coin)).collect();
        let credited = |(deposit, credit): (OutPoint, Credit)| {
            let Credit { bitcoin_height: height, bitcoin_index: index, .. } = credit;
            let free = peg.free_coin(&CoinPlace { height, index, vout: deposit.vout });
            let free = free.filter(|coin| coin.outpoint == deposit);
            let (state, coin) = match (free, in_batches.get(&deposit)) {
                (Some(coin), _) => ("credited", Some(coin)),
                (None, Some(coin)) => ("batched", Some(*coin)),
                (None, None) => ("swept", None),
            };
            CreditedJson {
                deposit: show(&deposit),
                amount: credit.amount.to_sat(),
                credited: credit.height.to_u32(),
                bitcoin_height: height.to_u32(),
                bitcoin_hash: peg.headers().best_hash(height),
                state,
                terms: coin.and_then(terms),
            }
        };
        let (since, to) = (since.to_u32(), page.to.to_u32());
        let peg_ins = page.credits.into_iter().map(credited).collect();
        Answer::json(&PegInsJson { tip: TipJson::of(self), since, to, peg_ins }, Keep::Never)
    }
}

fn terms(coin: &PegCoin) -> Option<TermsJson> {
    let CoinKind::Deposit(terms) = &coin.kind else { return None };
    Some(TermsJson {
        epoch: terms.epoch,
        destination: terms.destination.as_bytes().to_lower_hex_string(),
        refund_key: terms.refund_key.to_string(),
    })
}
