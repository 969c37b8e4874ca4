//! The one listener to the running node, for all streams: it passes on which block is next, and what happens meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bitcoin::Txid;
use causeway_chainspec::{BitcoinHeight, Height};
use causeway_consensus::peg::batch::Batch;
use causeway_consensus::state::ScriptId;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::time::sleep;

use super::feed::stopped;
use super::frame::{self, PegInJson, Standing, TxJson};
use super::peg::{OfBatch, address};
use super::query::Topic;
use crate::mempool::Departure;
use crate::news::{Change, Entered};
use crate::rest::App;
use crate::rest::answer::Refusal;
use crate::rest::live::Live;
use crate::rest::peg::Source;
use crate::rest::reader::Reader;

/// Changes that are passed on together at most.
const TOGETHER: usize = 256;

/// What every stream is told, in one order.
#[derive(Clone)]
pub(super) enum Told {
    /// A block is final, and REST shows it.
    Block(Height),
    /// What happened at this node, after the block before.
    Now(Arc<[Item]>),
}

/// An event that has no place in the chain.
pub(super) struct Item {
    pub(super) topic: Topic,
    pub(super) json: String,
    /// The transaction that it is about, and the scripts that this one touches.
    pub(super) touches: Option<(Txid, Standing, Arc<[ScriptId]>)>,
}

/// Where what is told comes out.
#[derive(Clone)]
pub(super) struct Line(Arc<Mutex<State>>);

struct State {
    /// None once nobody tells anything any more.
    streams: Option<broadcast::Sender<Told>>,
    /// The last block that was told.
    height: Height,
}

impl Line {
    fn new(height: Height, waiting: usize) -> Self {
        Self(Arc::new(Mutex::new(State { streams: Some(broadcast::Sender::new(waiting)), height })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // It is right after every line of what holds it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is told from here on, and the last block that was told before. None if the line has ended.
    fn subscribe(&self) -> Option<(broadcast::Receiver<Told>, Height)> {
        let state = self.state();
        state.streams.as_ref().map(|streams| (streams.subscribe(), state.height))
    }

    /// Tells all streams. False if there is none: then the line has ended.
    fn tell(&self, told: Told) -> bool {
        let mut state = self.state();
        if let Told::Block(height) = &told {
            state.height = *height;
        }
        let heard = state.streams.as_ref().is_some_and(|streams| streams.send(told).is_ok());
        if !heard {
            state.streams = None;
        }
        heard
    }

    /// Tells what happened, if anything did. False as above.
    fn tell_all(&self, now: &mut Vec<Item>) -> bool {
        now.is_empty() || self.tell(Told::Now(std::mem::take(now).into()))
    }
}

/// Ends a line, also if its task panics.
struct End(Line);

impl Drop for End {
    fn drop(&mut self) {
        self.0.state().streams = None;
    }
}

impl<L: Live> App<L> {
    /// What is told from here on, and the last block that was told before. The first of several streams makes the line.
    pub(super) async fn listen(self: &Arc<Self>) -> Result<(broadcast::Receiver<Told>, Height), Refusal> {
        let mut line = self.events.line.lock().await;
        if let Some(told) = line.as_ref().and_then(Line::subscribe) {
            return Ok(told);
        }
        let (news, height) = self.live.pool(|pool| (pool.news().listen(), pool.tip().height)).await?;
        let new = Line::new(height, self.times.events.waiting);
        let told = new.subscribe().ok_or(Refusal::Busy)?;
        tokio::spawn(pass_on(Arc::clone(self), news, End(new.clone())));
        *line = Some(new);
        Ok(told)
    }
}

/// Passes on all news, until nobody listens, the server stops, or the node has.
async fn pass_on<L: Live>(app: Arc<App<L>>, mut news: broadcast::Receiver<Change>, End(ref line): End) {
    let mut paid = Paid::default();
    // What was paid before is no event.
    let _ = paid.look(&app).await;
    loop {
        let first = tokio::select! {
            first = news.recv() => first,
            () = stopped(app.stop.clone()) => return,
        };
        // Streams that have missed something end: their clients connect again.
        let Ok(first) = first else { return };
        let (mut now, mut next) = (Vec::new(), Some(first));
        let (mut count, mut is_missed) = (0, false);
        while let Some(change) = next {
            count += 1;
            match item(&app, change) {
                Ok(item) => now.push(item),
                Err(height) => {
                    if !(line.tell_all(&mut now) && line.tell(Told::Block(height))) {
                        return;
                    }
                    now = paid.look(&app).await;
                }
            }
            next = None;
            if count < TOGETHER {
                match waiting(&mut news) {
                    Ok(change) => next = change,
                    Err(Missed) => is_missed = true,
                }
            }
        }
        if !line.tell_all(&mut now) || is_missed {
            return;
        }
        // Where much happens, it travels together.
        sleep(app.times.events.gather).await;
    }
}

/// More happened than waits for a listener.
#[derive(Debug, PartialEq, Eq)]
struct Missed;

/// The next of the changes that have happened already.
fn waiting(news: &mut broadcast::Receiver<Change>) -> Result<Option<Change>, Missed> {
    match news.try_recv() {
        Ok(change) => Ok(Some(change)),
        // The next wait finds out if it is closed.
        Err(TryRecvError::Empty | TryRecvError::Closed) => Ok(None),
        Err(TryRecvError::Lagged(_)) => Err(Missed),
    }
}

/// What is told of a change; the height if it is a block.
fn item<L>(app: &App<L>, change: Change) -> Result<Item, Height> {
    let of_tx = |txid: Txid, standing: Standing, scripts: Arc<[ScriptId]>| {
        let json = frame::json(&TxJson { txid, standing: &standing });
        Item { topic: Topic::Tx, json, touches: Some((txid, standing, scripts)) }
    };
    Ok(match change {
        Change::Connected { height } => return Err(height),
        Change::Entered(entered) => {
            let Entered { txid, fee, vsize, value, ref scripts } = *entered;
            let standing = Standing::Mempool { fee: fee.to_sat(), vsize, value: value.to_sat() };
            of_tx(txid, standing, Arc::clone(scripts))
        }
        Change::Left { txid, why, by, scripts } => of_tx(txid, Standing::Removed { reason: reason(why), by }, scripts),
        Change::Claimed { deposit, amount, destination, bitcoin_height } => {
            let json = PegInJson {
                deposit: deposit.to_string(),
                state: "claimed",
                amount: amount.to_sat(),
                destination: address(&destination, app.chain.network()),
                bitcoin_height: bitcoin_height.to_u32(),
                ..PegInJson::default()
            };
            Item { topic: Topic::PegIn, json: frame::json(&json), touches: None }
        }
    })
}

fn reason(why: Departure) -> &'static str {
    match why {
        Departure::Confirmed => "confirmed",
        Departure::Conflicted => "conflicted",
        Departure::Replaced => "replaced",
        Departure::Evicted => "evicted",
        Departure::Expired => "expired",
        Departure::PegFrozen => "peg_frozen",
    }
}

/// The versions of open batches that this node's Bitcoin node has in a block, by batch.
#[derive(Default)]
struct Paid(HashMap<u32, (Txid, BitcoinHeight)>);

impl Paid {
    /// Looks again, and returns what is new.
    async fn look<L>(&mut self, app: &App<L>) -> Vec<Item> {
        let source = app.bitcoin.clone();
        if source.is_none() {
            return Vec::new();
        }
        let network = app.chain.spec.bitcoin().network();
        // It is looked again with the next block.
        let Ok(seen) = app.read(move |reader| Ok(in_blocks(reader, &source))).await else { return Vec::new() };
        let mut items = Vec::new();
        let mut paid = HashMap::new();
        for (batch, version, height) in seen {
            let place = (batch.versions[version].txid, height);
            if self.0.get(&batch.number) != Some(&place) {
                let of = OfBatch { state: "paid", bitcoin_height: Some(height), block: None };
                let events = of.events(&batch, version, network).into_iter();
                items.extend(events.map(|(topic, json)| Item { topic, json, touches: None }));
            }
            paid.insert(batch.number, place);
        }
        self.0 = paid;
        items
    }
}

/// The open batches of which the Bitcoin node has a version in a block: which, and where.
fn in_blocks(reader: &Reader, source: &Source) -> Vec<(Batch, usize, BitcoinHeight)> {
    let Some(source) = source else { return Vec::new() };
    let find = |batch: &Batch| {
        let versions = batch.versions.iter().enumerate();
        let mut found = versions.filter_map(|(version, fixed)| Some((version, source.confirmed(&fixed.txid)?)));
        found.next().map(|(version, height)| (batch.clone(), version, height))
    };
    reader.tip().peg().open_batches().filter_map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_in_the_news_is_no_silence() {
        let (news, mut heard) = broadcast::channel(2);
        let tell = |height| news.send(Change::Connected { height: Height(height) }).unwrap();
        assert!(matches!(waiting(&mut heard), Ok(None)));
        tell(1);
        assert!(matches!(waiting(&mut heard), Ok(Some(Change::Connected { height: Height(1) }))));
        for height in 2..6 {
            tell(height);
        }
        assert!(matches!(waiting(&mut heard), Err(Missed)));
    }
}
