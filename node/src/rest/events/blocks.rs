//! The events that follow from a final block: read from the store once for all who listen, and the same at any later time
//! and on every node (but for the round of the certificate).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bitcoin::Txid;
use bytes::Bytes;
use causeway_chainspec::Height;
use causeway_consensus::bft::CommitCertificate;
use causeway_consensus::state::{IndexView, ScriptId, TxPlace};
use causeway_consensus::{Block, Tx};
use tokio::sync::Mutex;

use super::frame::{self, BlockJson, InBlock, ScriptJson, Standing, TxJson};
use super::peg;
use super::position::Position;
use super::query::{Scripts, Topic};
use crate::rest::App;
use crate::rest::answer::Refusal;
use crate::rest::reader::Reader;

/// Blocks whose events are kept, and the most bytes of them but for the newest: clients take each new one at about the same
/// time.
const KEPT: usize = 16;
const KEPT_BYTES: usize = 32 << 20;

/// Events about scripts that are made at once for one client, some 200 bytes each and 67 for each script after the first.
const SCRIPT_PAGE: usize = 500;

/// Places of one script that are read from the index at once.
const HISTORY_PAGE: usize = 1_000;

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
    txs: Bytes,
    /// Where each begins.
    tx_starts: Vec<usize>,
    peg: Vec<(Topic, String)>,
    last: String,
}

impl BlockEvents {
    /// Reads a block up to the tip.
    fn read(reader: &Reader, height: Height) -> Result<Self, Refusal> {
        let block = reader.block(height)?;
        let in_block = InBlock { height: height.to_u32(), hash: block.hash() };
        let time = block.header().time;
        let txids: Vec<Txid> = block.transactions().iter().map(Tx::txid).collect();
        let standing = final_standing(in_block, time);
        let (mut txs, mut tx_starts) = (String::new(), Vec::with_capacity(txids.len()));
        for (index, txid) in (0..).zip(&txids) {
            tx_starts.push(txs.len());
            let json = frame::json(&TxJson { txid: *txid, standing: &standing });
            frame::push(&mut txs, Topic::Tx, &Position { height, index: Some(index) }, &json);
        }
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
        Ok(Self { height, block: in_block, time, txids, txs: txs.into(), tx_starts, peg, last })
    }

    /// The events about transactions from the `first` number on.
    pub(super) fn txs_from(&self, first: u32) -> Bytes {
        let start = usize::try_from(first).ok().and_then(|first| self.tx_starts.get(first));
        start.map_or_else(Bytes::new, |start| self.txs.slice(*start..))
    }

    /// The events about the peg from the `first` number on, and that about the block, as far as `wants` them.
    pub(super) fn rest_from(&self, first: u32, wants: impl Fn(Topic) -> bool) -> String {
        let peg = (2 * count(&self.txids)..).zip(&self.peg);
        let peg = peg.filter(|(index, (topic, _))| *index >= first && wants(*topic)).map(|(_, (_, event))| event);
        peg.chain(wants(Topic::Block).then_some(&self.last)).map(String::as_str).collect()
    }

    /// The events about some scripts from the `first` number on, at most a page of them, and the number from which there
    /// may be more.
    pub(super) fn scripts_from(
        &self,
        reader: &Reader,
        scripts: &Scripts,
        first: u32,
    ) -> Result<(String, Option<u32>), Refusal> {
        let view = reader.index()?;
        let count = count(&self.txids);
        let first = first.saturating_sub(count);
        let mut touched: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
        for (id, hash) in scripts {
            for index in places(reader, &view, id, self.height)?.into_iter().filter(|index| *index >= first) {
                touched.entry(index).or_default().push(hash);
            }
        }
        let more = touched.keys().nth(SCRIPT_PAGE).map(|index| count + index);
        let standing = final_standing(self.block, self.time);
        let mut events = String::new();
        for (index, scripthashes) in touched.iter().take(SCRIPT_PAGE) {
            let place = usize::try_from(*index).ok().and_then(|index| self.txids.get(index));
            let txid = *place.ok_or(crate::rest::reader::DAMAGED_BLOCK)?;
            let json = frame::json(&ScriptJson { txid, scripthashes, standing: &standing });
            let id = Position { height: self.height, index: Some(count + index) };
            frame::push(&mut events, Topic::Script, &id, &json);
        }
        Ok((events, more))
    }

    fn memory(&self) -> usize {
        let peg: usize = self.peg.iter().map(|(_, event)| event.len()).sum();
        self.txs.len() + peg + self.txids.len() * (size_of::<Txid>() + size_of::<usize>())
    }
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

/// The places in a block of the transactions that touch a script.
fn places(reader: &Reader, view: &IndexView<'_>, id: &ScriptId, height: Height) -> Result<Vec<u32>, Refusal> {
    let (mut places, mut before) = (Vec::new(), height.next().map(|height| TxPlace { height, index: 0 }));
    loop {
        reader.check_time()?;
        let page = view.history(id, before, HISTORY_PAGE)?;
        let is_whole = page.len() == HISTORY_PAGE;
        before = page.last().copied();
        let known = places.len();
        places.extend(page.iter().filter(|place| place.height == height).map(|place| place.index));
        if !is_whole || places.len() - known < HISTORY_PAGE {
            return Ok(places);
        }
    }
}

/// The events of the blocks that were asked for last.
#[derive(Default)]
pub(super) struct Kept(Mutex<VecDeque<Arc<BlockEvents>>>);

impl<L> App<L> {
    /// The events of a block up to the tip. One block is read at a time, for all who wait for it.
    pub(super) async fn block_events(&self, height: Height) -> Result<Arc<BlockEvents>, Refusal> {
        let mut kept = self.events.kept.0.lock().await;
        if let Some(events) = kept.iter().find(|events| events.height == height) {
            return Ok(Arc::clone(events));
        }
        let events = Arc::new(self.read(move |reader| BlockEvents::read(reader, height)).await?);
        kept.push_back(Arc::clone(&events));
        while kept.len() > KEPT
            || (kept.len() > 1 && kept.iter().map(|events| events.memory()).sum::<usize>() > KEPT_BYTES)
        {
            kept.pop_front();
        }
        Ok(events)
    }
}
