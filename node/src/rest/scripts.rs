//! `/address...` and `/scripthash...`: the history of a script, from the chain and the mempool at one tip.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::str::FromStr;
use std::sync::Arc;

use bitcoin::address::NetworkUnchecked;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::hex::FromHex;
use bitcoin::{Address, Network, OutPoint, Transaction, Txid};
use causeway_consensus::coin::is_unspendable;
use causeway_consensus::state::{IndexView, ScriptId, TxPlace};

use super::App;
use super::answer::{Answer, Keep, PAGE, Refusal};
use super::json::{ScriptJson, StatisticsJson, StatusJson, TransactionJson, UnspentJson};
use super::live::Live;
use super::reader::{DAMAGED_BLOCK, Place, Reader};
use super::routes::{Key, OfScript};
use super::waiting::Waiting;
use crate::mempool::Mempool;

/// Transactions of the mempool on one page.
const MEMPOOL_PAGE: usize = 50;

/// Unspent outputs that are listed (electrs: `--utxos-limit`).
const MAX_UNSPENT: usize = 500;

/// Transactions of the mempool that are looked at for unspent outputs.
const MAX_WAITING: usize = 5_000;

/// A script, and how it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    key: Key,
    id: ScriptId,
}

impl Asked {
    fn of(key: Key, network: Network) -> Result<Self, Refusal> {
        let id = ScriptId::of_hash(&script_hash(&key, network)?);
        Ok(Self { key, id })
    }
}

/// The SHA-256 of the script that a name stands for.
pub(super) fn script_hash(key: &Key, network: Network) -> Result<[u8; sha256::Hash::LEN], Refusal> {
    match key {
        Key::Address(text) => {
            let address = Address::<NetworkUnchecked>::from_str(text);
            let address = address.map_err(|error| Refusal::InvalidAddress(error.to_string()))?;
            let address = address.require_network(network).map_err(|_| Refusal::OtherNetwork)?;
            Ok(sha256::Hash::hash(address.script_pubkey().as_bytes()).to_byte_array())
        }
        // As SHA-256 gives it, not reversed.
        Key::ScriptHash(text) => <[u8; sha256::Hash::LEN]>::from_hex(text).map_err(|_| Refusal::InvalidScriptHash),
    }
}

/// What is asked of a script.
pub(super) async fn of_script<L: Live>(app: &App<L>, key: Key, what: OfScript) -> Result<Answer, Refusal> {
    let asked = Asked::of(key, app.chain.network())?;
    let id = asked.id;
    match what {
        OfScript::Summary => {
            let sums = app.at_one_tip(
                move |pool| pool.statistics_of(&id),
                move |_, view, waiting| Ok((view.statistics(&id)?, waiting)),
            );
            let (chain, waiting) = sums.await?;
            let json = ScriptJson::new(&asked.key, StatisticsJson::of(&chain), StatisticsJson::of(&waiting));
            Answer::json(&json, Keep::Never)
        }
        OfScript::Transactions => transactions(app, id).await,
        OfScript::Waiting => {
            app.at_one_tip(newest_waiting(id), move |reader, view, waiting| {
                let waiting = still_waiting(view, waiting)?.resolve(reader)?;
                Answer::json(&waiting.json(reader).collect::<Vec<_>>(), Keep::Never)
            })
            .await
        }
        OfScript::Final(last) => {
            let last = last.and_then(|text| text.parse::<Txid>().ok());
            let trail = Arc::clone(&app.trail);
            app.read(move |reader| {
                let view = reader.index()?;
                // One that is in no block is, or was, in the mempool: what came after it is all of the chain.
                let place = last.map(|last| view.place(&last)).transpose()?.flatten();
                let before = place.filter(|_| last.is_some_and(|last| !trail.take(id, last)));
                let page = Page::read(reader, &view, id, before)?;
                Answer::json(&page.json(reader), Keep::Never)
            })
            .await
        }
        OfScript::Unspent => unspent(app, id).await,
    }
}

/// The newest of the mempool, then the newest of the chain.
async fn transactions<L: Live>(app: &App<L>, id: ScriptId) -> Result<Answer, Refusal> {
    let (answer, last_seen) = app
        .at_one_tip(newest_waiting(id), move |reader, view, waiting| {
            let waiting = still_waiting(view, waiting)?;
            let last_waiting = waiting.transactions.last().map(|(txid, _)| *txid);
            let waiting = waiting.resolve(reader)?;
            let page = Page::read(reader, view, id, None)?;
            let last_seen = last_waiting.filter(|_| page.transactions.is_empty());
            let all: Vec<_> = waiting.json(reader).chain(page.json(reader)).collect();
            Ok((Answer::json(&all, Keep::Never)?, last_seen))
        })
        .await?;
    if let Some(last) = last_seen {
        app.trail.leave(id, last);
    }
    Ok(answer)
}

fn newest_waiting(id: ScriptId) -> impl Fn(&Mempool) -> Waiting + Clone + Send + 'static {
    move |pool| Waiting::of(pool, pool.by_script(&id).take(MEMPOOL_PAGE))
}

/// The chain has the last word on what waits.
fn still_waiting(view: &IndexView<'_>, waiting: Waiting) -> Result<Waiting, Refusal> {
    waiting.without(|txid| Ok(view.place(txid)?.is_some()))
}

/// What can be spent of a script: outputs of the chain and of the mempool that neither spends.
async fn unspent<L: Live>(app: &App<L>, id: ScriptId) -> Result<Answer, Refusal> {
    let look = move |pool: &Mempool| {
        // One more than permitted says that there are more.
        let entries = pool.by_script(&id).take(MAX_WAITING + 1);
        entries.map(|entry| (entry.txid(), entry.transaction().clone())).collect::<Vec<_>>()
    };
    app.at_one_tip(look, move |reader, view, waiting| {
        if waiting.len() > MAX_WAITING {
            return Err(Refusal::TooManyWaiting { max: MAX_WAITING });
        }
        if view.statistics(&id)?.unspent() > MAX_UNSPENT as u64 {
            return Err(Refusal::TooManyUnspent { max: MAX_UNSPENT });
        }
        let inputs = waiting.iter().flat_map(|(_, transaction)| &transaction.input);
        let spent: HashSet<OutPoint> = inputs.map(|input| input.previous_output).collect();
        let mut unspent = Vec::new();
        for output in view.unspent(&id, MAX_UNSPENT)? {
            if !spent.contains(&output.outpoint) {
                let status = StatusJson::confirmed(&reader.place_of(TxPlace { height: output.height, index: 0 })?);
                unspent.push(UnspentJson::new(output.outpoint, output.value, status));
            }
        }
        for (txid, transaction) in &waiting {
            if view.place(txid)?.is_some() {
                continue;
            }
            for (vout, output) in (0u32..).zip(&transaction.output) {
                let outpoint = OutPoint { txid: *txid, vout };
                let script = &output.script_pubkey;
                if !spent.contains(&outpoint) && !is_unspendable(script) && ScriptId::of(script) == id {
                    unspent.push(UnspentJson::new(outpoint, output.value, StatusJson::UNCONFIRMED));
                }
            }
            if unspent.len() > MAX_UNSPENT {
                return Err(Refusal::TooManyUnspent { max: MAX_UNSPENT });
            }
        }
        Answer::json(&unspent, Keep::Never)
    })
    .await
}

/// A page of a history in the chain.
struct Page {
    /// Newest first.
    transactions: Vec<(Place, Txid, Transaction)>,
    spent: HashMap<OutPoint, bitcoin::TxOut>,
}

impl Page {
    /// The newest, or those older than `before`.
    fn read(reader: &Reader, view: &IndexView<'_>, id: ScriptId, before: Option<TxPlace>) -> Result<Self, Refusal> {
        let places = view.history(&id, before, PAGE)?;
        let mut found = reader.transactions(places.iter().copied())?;
        let mut transactions = Vec::with_capacity(places.len());
        for place in places {
            let transaction = found.remove(&place).ok_or(DAMAGED_BLOCK)?;
            transactions.push((reader.place_of(place)?, transaction.compute_txid(), transaction));
        }
        let spent = reader.spent_outputs(transactions.iter().map(|(.., transaction)| transaction))?;
        Ok(Self { transactions, spent })
    }

    fn json(&self, reader: &Reader) -> Vec<TransactionJson<'_>> {
        let transactions = self.transactions.iter();
        let show = transactions.map(|(place, txid, transaction)| {
            let status = StatusJson::confirmed(place);
            TransactionJson::new(transaction, *txid, &self.spent, reader.network(), status)
        });
        show.collect()
    }
}

impl Reader {
    /// The transactions at some places of final blocks. Each block is read once.
    pub(super) fn transactions(
        &self,
        places: impl Iterator<Item = TxPlace>,
    ) -> Result<HashMap<TxPlace, Transaction>, Refusal> {
        let mut blocks: BTreeMap<_, BTreeSet<u32>> = BTreeMap::new();
        for TxPlace { height, index } in places {
            blocks.entry(height).or_default().insert(index);
        }
        let mut transactions = HashMap::new();
        for (height, indexes) in blocks {
            let found = self.cut(height)?.transactions(&indexes).ok_or(DAMAGED_BLOCK)?;
            transactions.extend(found.into_iter().map(|(index, transaction)| (TxPlace { height, index }, transaction)));
        }
        Ok(transactions)
    }
}
