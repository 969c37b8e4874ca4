//! `/address...` and `/scripthash...`: the history of a script, from the chain and the mempool at one tip.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::address::NetworkUnchecked;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::hex::FromHex;
use bitcoin::{Address, Network, OutPoint, Transaction, Txid};
use causeway_consensus::coin::is_unspendable;
use causeway_consensus::state::{IndexView, ScriptId, TxPlace};
use tokio::sync::mpsc;

use super::App;
use super::answer::{Answer, JsonList, Keep, PAGE, Part, Refusal};
use super::json::{ScriptJson, StatisticsJson, StatusJson, TransactionJson, UnspentJson};
use super::live::Live;
use super::reader::{DAMAGED_BLOCK, Reader};
use super::routes::{Key, OfScript};
use super::waiting::Waiting;
use crate::mempool::{Entry, Mempool};

/// Transactions of the mempool on one page.
const MEMPOOL_PAGE: usize = 50;

/// Bytes of them, serialised: the page ends before the one that has more, unless it is the first. JSON takes four times as
/// many.
const MEMPOOL_PAGE_BYTES: usize = 4 << 20;

/// Serialised bytes of transactions of a page that are read and written at once; more go out in parts. A single one may have
/// four times as many.
const PART_BYTES: usize = 1 << 20;

/// How long all parts of a page may take: 65 MB, which 25 standard transactions come to, at 1 Mbit/s.
const PARTS_TIME: Duration = Duration::from_secs(600);

/// How long the client may take until it is told that the page breaks off.
const BREAK_TIME: Duration = Duration::from_secs(30);

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
pub(super) async fn of_script<L: Live>(app: &Arc<App<L>>, key: Key, what: OfScript) -> Result<Answer, Refusal> {
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
                let mut list = JsonList::default();
                waiting.json(reader).try_for_each(|transaction| list.push(&transaction))?;
                Ok(Answer::json_list(list, Keep::Never))
            })
            .await
        }
        OfScript::Final(last) => {
            let last = last.and_then(|text| text.parse::<Txid>().ok());
            let trail = Arc::clone(&app.trail);
            let begun = app.read(move |reader| {
                let view = reader.index()?;
                // One that is in no block is, or was, in the mempool: what came after it is all of the chain.
                let place = last.map(|last| view.place(&last)).transpose()?.flatten();
                let before = place.filter(|_| last.is_some_and(|last| !trail.take(id, last)));
                Page::begin(reader, view.history(&id, before, PAGE)?, JsonList::default())
            });
            begun.await?.finish(app)
        }
        OfScript::Unspent => unspent(app, id).await,
    }
}

/// The newest of the mempool, then the newest of the chain.
async fn transactions<L: Live>(app: &Arc<App<L>>, id: ScriptId) -> Result<Answer, Refusal> {
    let (page, last_seen) = app
        .at_one_tip(newest_waiting(id), move |reader, view, waiting| {
            let waiting = still_waiting(view, waiting)?;
            let last_waiting = waiting.transactions.last().map(|(txid, _)| *txid);
            let waiting = waiting.resolve(reader)?;
            let mut list = JsonList::default();
            waiting.json(reader).try_for_each(|transaction| list.push(&transaction))?;
            let places = view.history(&id, None, PAGE)?;
            let last_seen = last_waiting.filter(|_| places.is_empty());
            Ok((Page::begin(reader, places, list)?, last_seen))
        })
        .await?;
    let answer = page.finish(app)?;
    if let Some(last) = last_seen {
        app.trail.leave(id, last);
    }
    Ok(answer)
}

fn newest_waiting(id: ScriptId) -> impl Fn(&Mempool) -> Waiting + Clone + Send + 'static {
    move |pool| {
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            let is_first = bytes == 0;
            bytes += entry.transaction().total_size();
            is_first || bytes <= MEMPOOL_PAGE_BYTES
        };
        Waiting::of(pool, pool.by_script(&id).take(MEMPOOL_PAGE).take_while(fits))
    }
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

/// A page of a history, as far as it is written.
///
/// Clients take a page with fewer than [`PAGE`] transactions for the last one, so it has as many whatever their bytes: a
/// stranger who pays a script by transactions of hundreds of kilobytes makes its pages long, but they never hold more than a
/// part of one in memory, and there is no length at which they end.
struct Page {
    list: JsonList,
    /// What is to come, newest first.
    rest: Vec<TxPlace>,
}

impl Page {
    /// Writes what comes first of some places, after what is in the list already.
    fn begin(reader: &Reader, places: Vec<TxPlace>, mut list: JsonList) -> Result<Self, Refusal> {
        let rest = reader.show_some(places, &mut list)?;
        Ok(Self { list, rest })
    }

    /// The answer: in one piece if that is all, else in parts.
    fn finish<L: Live>(self, app: &Arc<App<L>>) -> Result<Answer, Refusal> {
        let Self { list, rest } = self;
        if rest.is_empty() {
            return Ok(Answer::json_list(list, Keep::Never));
        }
        let permit = Arc::clone(&app.long_pages).try_acquire_owned().map_err(|_| Refusal::Busy)?;
        // One part waits for the client, while the next is made.
        let (parts, answer) = mpsc::channel(1);
        let app = Arc::clone(app);
        tokio::spawn(async move {
            let _permit = permit;
            let sent = tokio::time::timeout(PARTS_TIME, send(&app, &parts, list, rest)).await;
            let why = match sent {
                Ok(Ok(())) => return,
                Ok(Err(refusal)) => refusal,
                Err(_) => Refusal::TooLate,
            };
            tracing::debug!(error = &why as &dyn std::error::Error, "a page of a history was broken off");
            // A client that takes nothing any more, or has gone, misses nothing: what it has is no JSON.
            let _ = tokio::time::timeout(BREAK_TIME, parts.send(Err(io::Error::other(why)))).await;
        });
        Ok(Answer::json_parts(answer, Keep::Never))
    }
}

/// Sends a list and then what is at these places, as one JSON list. Ends early if nobody waits for it.
async fn send<L: Live>(
    app: &App<L>,
    parts: &mpsc::Sender<Part>,
    list: JsonList,
    mut places: Vec<TxPlace>,
) -> Result<(), Refusal> {
    let mut part = [b"[".as_slice(), &list.into_bytes()].concat();
    while !places.is_empty() {
        if parts.send(Ok(part.into())).await.is_err() {
            return Ok(());
        }
        let (list, rest) = app
            .read(move |reader| {
                let mut list = JsonList::default();
                let rest = reader.show_some(places, &mut list)?;
                Ok((list, rest))
            })
            .await?;
        part = [b",".as_slice(), &list.into_bytes()].concat();
        places = rest;
    }
    part.push(b']');
    // As above.
    let _ = parts.send(Ok(part.into())).await;
    Ok(())
}

impl Reader {
    /// Writes transactions at some places of final blocks into a list: the first, and as many more as are short. Returns the
    /// other places. A block that holds several, one after the other, is read once.
    fn show_some(&self, mut places: Vec<TxPlace>, list: &mut JsonList) -> Result<Vec<TxPlace>, Refusal> {
        let (mut transactions, mut bytes) = (Vec::new(), 0);
        for place in &places {
            let cut = self.cut(place.height)?;
            bytes += cut.raw(place.index).ok_or(DAMAGED_BLOCK)?.len();
            if !transactions.is_empty() && bytes > PART_BYTES {
                break;
            }
            let transaction = cut.transaction(place.index).ok_or(DAMAGED_BLOCK)?;
            transactions.push((self.place_of(*place)?, transaction.compute_txid(), transaction));
        }
        let spent = self.spent_outputs(transactions.iter().map(|(.., transaction)| transaction))?;
        for (place, txid, transaction) in &transactions {
            let status = StatusJson::confirmed(place);
            list.push(&TransactionJson::new(transaction, *txid, &spent, self.network(), status))?;
        }
        Ok(places.split_off(transactions.len()))
    }

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
