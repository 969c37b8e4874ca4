//! `/tx/:txid/outspend...`: who spends outputs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bitcoin::{OutPoint, Txid};
use causeway_chainspec::Height;
use causeway_consensus::state::{IndexView, SpendPlace, TxPlace};

use super::App;
use super::answer::{Answer, Keep, Refusal};
use super::json::{SpendJson, StatusJson};
use super::live::Live;
use super::reader::Reader;
use crate::mempool::Mempool;

/// The input of the mempool that spends an output.
fn waiting_spender(pool: &Mempool, outpoint: &OutPoint) -> Option<(Txid, u32)> {
    let entry = pool.get(&pool.spender(outpoint)?)?;
    let inputs = (0u32..).zip(&entry.transaction().input);
    let vin = inputs.filter(|(_, input)| input.previous_output == *outpoint).map(|(vin, _)| vin).next()?;
    Some((entry.txid(), vin))
}

/// `GET /tx/:txid/outspend/:vout`. Of an unknown output it says that it is not spent.
pub(super) async fn of_output<L: Live>(app: &App<L>, outpoint: OutPoint) -> Result<Answer, Refusal> {
    app.at_one_tip(
        move |pool| waiting_spender(pool, &outpoint),
        move |reader, view, waiting| {
            let mut spends = reader.spends(view, &[outpoint])?;
            let spend = spends.remove(&outpoint);
            let keep = if spend.is_some() { Keep::Final } else { Keep::Never };
            Answer::json(&spend.or(waiting.map(unconfirmed)).unwrap_or(SpendJson::UNSPENT), keep)
        },
    )
    .await
}

/// `GET /tx/:txid/outspends`: of each output.
pub(super) async fn of_outputs<L: Live>(app: &App<L>, txid: Txid) -> Result<Answer, Refusal> {
    app.at_one_tip(
        move |pool| {
            // No more than references: the node stands still meanwhile.
            let spenders: BTreeSet<Txid> = pool.spends_of(&txid).map(|(_, spender)| spender).collect();
            let spenders = spenders.iter().filter_map(|spender| pool.get(spender));
            let spenders: Vec<_> = spenders.map(|it| (it.txid(), Arc::clone(it.transaction()))).collect();
            (pool.get(&txid).map(|entry| entry.transaction().output.len()), spenders)
        },
        move |reader, view, (waiting_outputs, spenders)| {
            let waiting: HashMap<OutPoint, (Txid, u32)> = spenders
                .iter()
                .flat_map(|(spender, transaction)| {
                    let inputs = (0u32..).zip(&transaction.input);
                    inputs.map(move |(vin, input)| (input.previous_output, (*spender, vin)))
                })
                .collect();
            let outputs = match view.place(&txid)? {
                Some(place) => {
                    let place = reader.place_of(place)?;
                    reader.transaction(&place)?.output.len()
                }
                None => waiting_outputs.ok_or(Refusal::TransactionNotFound)?,
            };
            let outpoints: Vec<OutPoint> = (0..).take(outputs).map(|vout| OutPoint { txid, vout }).collect();
            let mut spends = reader.spends(view, &outpoints)?;
            let spend = |outpoint: &OutPoint| {
                let waiting = waiting.get(outpoint).copied().map(unconfirmed);
                spends.remove(outpoint).or(waiting).unwrap_or(SpendJson::UNSPENT)
            };
            let spends: Vec<SpendJson> = outpoints.iter().map(spend).collect();
            Answer::json(&spends, Keep::Never)
        },
    )
    .await
}

fn unconfirmed((txid, vin): (Txid, u32)) -> SpendJson {
    SpendJson::new(txid, vin, StatusJson::UNCONFIRMED)
}

impl Reader {
    /// The inputs of final blocks that spend outputs. Each block is read once.
    fn spends(&self, view: &IndexView<'_>, outpoints: &[OutPoint]) -> Result<HashMap<OutPoint, SpendJson>, Refusal> {
        let mut by_block: BTreeMap<Height, Vec<(OutPoint, SpendPlace)>> = BTreeMap::new();
        for outpoint in outpoints {
            self.check_time()?;
            for spend in view.spend_candidates(outpoint)? {
                by_block.entry(spend.place.height).or_default().push((*outpoint, spend));
            }
        }
        let mut spends = HashMap::new();
        for (_, candidates) in by_block {
            let spenders = self.transactions(candidates.iter().map(|(_, spend)| spend.place))?;
            let txids: HashMap<TxPlace, Txid> =
                spenders.iter().map(|(place, spender)| (*place, spender.compute_txid())).collect();
            for (outpoint, SpendPlace { place, vin }) in candidates {
                let input = usize::try_from(vin).ok().and_then(|vin| spenders[&place].input.get(vin));
                // Others spend an output whose txid begins in the same way.
                if input.is_some_and(|input| input.previous_output == outpoint) {
                    let status = StatusJson::confirmed(&self.place_of(place)?);
                    spends.insert(outpoint, SpendJson::new(txids[&place], vin, status));
                }
            }
        }
        Ok(spends)
    }
}
