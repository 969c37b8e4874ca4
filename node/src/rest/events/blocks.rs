//! The events that follow from a final block: read from the store once for all who listen, and the same at any later time
//! and on every node (but for the round of the certificate).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bitcoin::Txid;
use bytes::Bytes;
use causeway_chainspec::Height;
use causeway_consensus::bft::CommitCertificate;
use causeway_consensus::state::{IndexView, ScriptId, TxPlace};
use causeway_consensus::{Block, Tx};
use tokio::sync::{OnceCell, Semaphore};

use super::frame::{self, BlockJson, InBlock, ScriptJson, Standing, TxJson};
use super::peg;
use super::position::Position;
use super::query::{Scripts, Topic};
use crate::rest::App;
use crate::rest::answer::Refusal;
use crate::rest::reader::Reader;

/// Blocks below the tip that are near it: their events are kept, as clients take each new block at about the same time.
const NEAR: u32 = 16;

/// The most bytes of kept events but for those of the newest block.
const KEPT_BYTES: usize = 32 << 20;

/// Blocks that are not near the tip and are read at once. Most readers are left for all else.
const REPLAYS: usize = 2;

/// Bytes of a part of a stream, but for its last event. Each is a piece of memory of its own: who waits to send it holds
/// nothing else of its block.
const PART_BYTES: usize = 64 << 10;

/// Parts that are made at once for one client.
const PAGE_PARTS: usize = 4;

/// Places of one script that are read from the index at once: so many first, and twice as many each time, up to the most.
const FIRST_PLACES: usize = 16;
const MOST_PLACES: usize = 1_000;

/// The events of one block, as they stand on the wire.
///
/// They come in this order, and have these numbers in a block of n transactions: `tx` of each transaction, 0 to n - 1 by its
/// place; `script` of each transaction that touches some of a client's scripts, n to 2n - 1 by its place; `peg-in` and
/// `peg-out`, from 2n on; at last `block`, whose id is the height alone.
pub(super) struct BlockEvents {
    height: Height,
    block: InBlock,
    time: u32,
    txids: Vec<Txid>,
    txs: Vec<TxPart>,
    peg: Vec<(Topic, String)>,
    last: String,
}

/// The events about some transactions in a row.
struct TxPart {
    /// The number of the first.
    first: u32,
    /// Where each begins.
    starts: Vec<usize>,
    events: Bytes,
}

impl TxPart {
    fn new(first: u32, starts: Vec<usize>, events: String) -> Self {
        Self { first, starts, events: exact(events) }
    }

    /// The events from a number on. None if there are none.
    fn from(&self, first: u32) -> Option<Bytes> {
        let skipped = usize::try_from(first.saturating_sub(self.first)).ok()?;
        self.starts.get(skipped).map(|start| self.events.slice(*start..))
    }
}

/// Some of the events of a block for one client.
#[derive(Default)]
pub(super) struct Page {
    /// None is empty.
    pub(super) parts: Vec<Bytes>,
    /// The number from which there may be more.
    pub(super) next: Option<u32>,
    /// The last part, as far as it has come.
    text: String,
}

impl Page {
    /// Whether there is no room, so that the page ends before a number.
    fn ends_before(&mut self, number: u32) -> bool {
        let is_full = self.parts.len() >= PAGE_PARTS;
        if is_full {
            self.next = Some(number);
        }
        is_full
    }

    /// Takes the event with a number. False if there is no room for it.
    fn push(&mut self, number: u32, event: &str) -> bool {
        if self.text.len() + event.len() > PART_BYTES {
            self.end_part();
        }
        if self.ends_before(number) {
            return false;
        }
        self.text.push_str(event);
        true
    }

    fn end_part(&mut self) {
        if !self.text.is_empty() {
            self.parts.push(exact(std::mem::take(&mut self.text)));
        }
    }
}

/// Text without room for more.
fn exact(mut text: String) -> Bytes {
    text.shrink_to_fit();
    text.into()
}

impl BlockEvents {
    /// Reads a block up to the tip.
    fn read(reader: &Reader, height: Height) -> Result<Self, Refusal> {
        let block = reader.block(height)?;
        let in_block = InBlock { height: height.to_u32(), hash: block.hash() };
        let time = block.header().time;
        let txids: Vec<Txid> = block.transactions().iter().map(Tx::txid).collect();
        let txs = tx_parts(height, &txids, &final_standing(in_block, time));
        let count = count(&txids);
        let mut peg = Vec::new();
        for (index, (topic, json)) in (2 * count..).zip(peg::of_block(reader, &block, in_block)?) {
            let mut event = String::new();
            frame::push(&mut event, topic, &Position { height, index: Some(index) }, &json);
            peg.push((topic, event));
        }
        let mut last = String::new();
        let json = frame::json(&block_json(reader, &block, in_block)?);
        frame::push(&mut last, Topic::Block, &Position::whole(height), &json);
        Ok(Self { height, block: in_block, time, txids, txs, peg, last })
    }

    /// A page of the events about some topics and scripts, from the `first` number on.
    fn page(&self, reader: &Reader, wanted: &Scope, first: u32) -> Result<Page, Refusal> {
        let is_past = first >= 2 * count(&self.txids);
        let touched = if is_past { Touched::new() } else { touched(reader, &wanted.scripts, self.height)? };
        self.page_with(&wanted.topics, &touched, first)
    }

    fn page_with(&self, topics: &BTreeSet<Topic>, touched: &Touched<'_>, first: u32) -> Result<Page, Refusal> {
        let mut page = Page::default();
        for part in self.txs.iter().filter(|_| topics.contains(&Topic::Tx)) {
            let Some(events) = part.from(first) else { continue };
            if page.ends_before(part.first) {
                return Ok(page);
            }
            page.parts.push(events);
        }
        let count = count(&self.txids);
        let standing = final_standing(self.block, self.time);
        for (index, scripthashes) in touched.range(first.saturating_sub(count)..) {
            let place = usize::try_from(*index).ok().and_then(|index| self.txids.get(index));
            let txid = *place.ok_or(crate::rest::reader::DAMAGED_BLOCK)?;
            let json = frame::json(&ScriptJson { txid, scripthashes, standing: &standing });
            let id = Position { height: self.height, index: Some(count + index) };
            let mut event = String::new();
            frame::push(&mut event, Topic::Script, &id, &json);
            if !page.push(count + index, &event) {
                return Ok(page);
            }
        }
        let mut number = 2 * count;
        for (topic, event) in &self.peg {
            if number >= first && topics.contains(topic) && !page.push(number, event) {
                return Ok(page);
            }
            number += 1;
        }
        if topics.contains(&Topic::Block) && !page.push(number, &self.last) {
            return Ok(page);
        }
        page.end_part();
        Ok(page)
    }

    fn memory(&self) -> usize {
        let peg: usize = self.peg.iter().map(|(_, event)| event.len()).sum();
        let txs: usize = self.txs.iter().map(|part| part.events.len()).sum();
        txs + peg + self.txids.len() * (size_of::<Txid>() + size_of::<usize>())
    }
}

fn tx_parts(height: Height, txids: &[Txid], standing: &Standing) -> Vec<TxPart> {
    let mut parts = Vec::new();
    let (mut first, mut starts, mut events) = (0, Vec::new(), String::new());
    for (index, txid) in (0..).zip(txids) {
        if events.len() >= PART_BYTES {
            parts.push(TxPart::new(first, std::mem::take(&mut starts), std::mem::take(&mut events)));
            first = index;
        }
        starts.push(events.len());
        let json = frame::json(&TxJson { txid: *txid, standing });
        frame::push(&mut events, Topic::Tx, &Position { height, index: Some(index) }, &json);
    }
    parts.push(TxPart::new(first, starts, events));
    parts
}

/// A block holds fewer transactions than that: each takes more than 60 of its 4,000,000 bytes.
fn count(txids: &[Txid]) -> u32 {
    u32::try_from(txids.len()).unwrap_or(u32::MAX / 4)
}

fn final_standing(InBlock { height, hash }: InBlock, time: u32) -> Standing {
    Standing::Final { height, hash, time }
}

fn block_json(reader: &Reader, block: &Block, InBlock { height, hash }: InBlock) -> Result<BlockJson, Refusal> {
    let certificate = reader.store().certificate(Height(height))?;
    let certificate = certificate.map(|bytes| CommitCertificate::decode(&bytes)).transpose()?;
    let sizes = reader.sizes(Height(height))?;
    Ok(BlockJson {
        height,
        hash,
        previousblockhash: block.header().prev_blockhash,
        time: block.header().time,
        tx_count: sizes.transactions,
        size: sizes.bytes,
        weight: sizes.weight,
        round: certificate.map(|certificate| certificate.round()),
    })
}

/// The places in a block of the transactions that touch some scripts, and which.
type Touched<'a> = BTreeMap<u32, Vec<&'a str>>;

fn touched<'a>(reader: &Reader, scripts: &'a Scripts, height: Height) -> Result<Touched<'a>, Refusal> {
    let mut touched = Touched::new();
    if scripts.is_empty() {
        return Ok(touched);
    }
    let view = reader.index()?;
    for (id, hash) in scripts {
        for index in places(reader, &view, id, height)? {
            touched.entry(index).or_default().push(hash);
        }
    }
    Ok(touched)
}

/// The places in a block of the transactions that touch a script. What is below the block is hardly read.
fn places(reader: &Reader, view: &IndexView<'_>, id: &ScriptId, height: Height) -> Result<Vec<u32>, Refusal> {
    let (mut places, mut before) = (Vec::new(), height.next().map(|height| TxPlace { height, index: 0 }));
    let mut limit = FIRST_PLACES;
    loop {
        reader.check_time()?;
        let page = view.history(id, before, limit)?;
        // Newest first.
        places.extend(page.iter().take_while(|place| place.height == height).map(|place| place.index));
        before = page.last().copied();
        if page.len() < limit || before.is_none_or(|last| last.height != height) {
            return Ok(places);
        }
        limit = (2 * limit).min(MOST_PLACES);
    }
}

/// What of a block is for a client.
pub(super) struct Scope {
    pub(super) topics: BTreeSet<Topic>,
    pub(super) scripts: Scripts,
}

/// The events of blocks near the tip, and those who read other blocks.
pub(super) struct Kept {
    near: Mutex<BTreeMap<Height, Slot>>,
    replays: Arc<Semaphore>,
}

/// Whoever comes first reads a block; all others wait for that.
type Slot = Arc<OnceCell<Arc<BlockEvents>>>;

impl Default for Kept {
    fn default() -> Self {
        Self { near: Mutex::default(), replays: Arc::new(Semaphore::new(REPLAYS)) }
    }
}

impl Kept {
    fn near(&self) -> MutexGuard<'_, BTreeMap<Height, Slot>> {
        // It is right after every line of what holds it.
        self.near.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place of a block near the tip. None if it is not near.
    fn slot(&self, height: Height, tip: Height) -> Option<Slot> {
        let is_near = |height: Height| tip.blocks_since(height).is_none_or(|below| below <= NEAR);
        let mut near = self.near();
        near.retain(|height, _| is_near(*height));
        is_near(height).then(|| Arc::clone(near.entry(height).or_default()))
    }

    /// Lets the oldest go until the rest is small enough.
    fn trim(&self) {
        let mut near = self.near();
        let bytes = |slot: &Slot| slot.get().map_or(0, |events| events.memory());
        while near.len() > 1 && near.values().map(bytes).sum::<usize>() > KEPT_BYTES {
            near.pop_first();
        }
    }
}

impl<L> App<L> {
    /// A page of what a block up to the tip has for a client, from the `first` number on.
    ///
    /// A block near the tip is read once, for all. Others are read again for each page, a few at a time: nobody holds one
    /// while a client reads.
    pub(super) async fn page(&self, height: Height, wanted: &Arc<Scope>, first: u32) -> Result<Page, Refusal> {
        let kept = &self.events.kept;
        let Some(slot) = kept.slot(height, self.chain.store_tip().height()) else {
            let turn = Arc::clone(&kept.replays).acquire_owned().await.map_err(|_| Refusal::Busy)?;
            let wanted = Arc::clone(wanted);
            let read = move |reader: &Reader| {
                // To the end of the reading, also if nobody waits for it any more.
                let _turn = turn;
                BlockEvents::read(reader, height)?.page(reader, &wanted, first)
            };
            return self.read(read).await;
        };
        let read = || async {
            let events = self.read(move |reader| BlockEvents::read(reader, height)).await?;
            Ok::<_, Refusal>(Arc::new(events))
        };
        let events = Arc::clone(slot.get_or_try_init(read).await?);
        kept.trim();
        if wanted.scripts.is_empty() {
            return events.page_with(&wanted.topics, &Touched::new(), first);
        }
        let wanted = Arc::clone(wanted);
        self.read(move |reader| events.page(reader, &wanted, first)).await
    }
}

#[cfg(test)]
mod tests;
