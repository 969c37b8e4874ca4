//! One request's view of the final chain, and the threads that read it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use bitcoin::block::Header;
use bitcoin::consensus::encode::VarInt;
use bitcoin::{BlockHash, Network, OutPoint, Transaction, TxOut, Txid};
use causeway_chainspec::{ChainSpec, Height};
use causeway_consensus::state::{IndexView, Store, TxPlace};
use causeway_consensus::{Block, ChainView, StateFault, Tip, parse_block};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::App;
use super::answer::{MAX_JSON_BYTES, Refusal};
use super::cut::Cut;

/// Sizes of blocks that are remembered, some 100 bytes each.
const REMEMBERED_SIZES: usize = 10_000;

/// Bytes of blocks that are kept cut: pages of a history come back to the same blocks.
const KEPT_BLOCK_BYTES: u64 = 64 << 20;

/// About as many blocks as these are. The cache is divided by it: a part takes at least 32, and a full block.
const KEPT_BLOCKS: usize = 64;

pub(super) const DAMAGED_BLOCK: Refusal = Refusal::Fault(StateFault::Damaged { record: "block" });

/// The final chain.
pub(super) struct Chain {
    pub(super) spec: Arc<ChainSpec>,
    pub(super) store: Arc<Store>,
    /// What takes reading a whole block to know.
    sizes: Cache<Height, Sizes>,
    cuts: Cache<Height, Arc<Cut>, Memory>,
}

/// What a kept block takes.
#[derive(Clone, Copy)]
struct Memory;

impl Weighter<Height, Arc<Cut>> for Memory {
    fn weight(&self, _height: &Height, cut: &Arc<Cut>) -> u64 {
        cut.memory() as u64
    }
}

/// What only the whole of a block says about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) transactions: usize,
    pub(super) bytes: usize,
    pub(super) weight: u64,
}

/// Where a final transaction stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) height: Height,
    pub(super) hash: BlockHash,
    pub(super) time: u32,
    pub(super) index: u32,
}

/// The chain up to the tip that was final when the reading began. Its calls read a disk.
pub(super) struct Reader {
    chain: Arc<Chain>,
    tip: Arc<Tip>,
    deadline: Instant,
}

impl Chain {
    pub(super) fn new(spec: Arc<ChainSpec>, store: Arc<Store>) -> Self {
        Self {
            spec,
            store,
            sizes: Cache::new(REMEMBERED_SIZES),
            cuts: Cache::with_weighter(KEPT_BLOCKS, KEPT_BLOCK_BYTES, Memory),
        }
    }

    /// The network whose address prefixes the chain has.
    pub(super) fn network(&self) -> Network {
        self.spec.identity()
    }

    /// The last final block.
    pub(super) fn store_tip(&self) -> Arc<Tip> {
        self.store.tip()
    }
}

impl<L> App<L> {
    /// Runs `work` on a thread that may wait for a disk. Waits while too many others do.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Reader) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let deadline = Instant::now() + self.times.answer;
        let permit = Arc::clone(&self.readers).acquire_owned().await.map_err(|_| Refusal::Busy)?;
        let chain = Arc::clone(&self.chain);
        let work = tokio::task::spawn_blocking(move || {
            // To the end of the work, also if nobody waits for it any more.
            let _permit = permit;
            let tip = chain.store.tip();
            work(&Reader { chain, tip, deadline })
        });
        work.await.map_err(|_| Refusal::Panicked)?
    }
}

impl Reader {
    pub(super) fn tip(&self) -> &Tip {
        &self.tip
    }

    pub(super) fn network(&self) -> Network {
        self.chain.network()
    }

    pub(super) fn store(&self) -> &Store {
        &self.chain.store
    }

    /// A height up to the tip.
    pub(super) fn height(&self, height: u64) -> Result<Height, Refusal> {
        let height = u32::try_from(height).ok().map(Height).filter(|height| *height <= self.tip.height());
        height.ok_or(Refusal::BlockNotFound)
    }

    /// The height of a block up to the tip.
    pub(super) fn height_of(&self, hash: BlockHash) -> Result<Option<Height>, Refusal> {
        Ok(self.store().height_of(hash)?.filter(|height| *height <= self.tip.height()))
    }

    /// The header at a height up to the tip.
    pub(super) fn header(&self, height: Height) -> Result<Header, Refusal> {
        self.store().header(height)?.ok_or(Refusal::Fault(StateFault::Damaged { record: "header" }))
    }

    /// The serialised block at a height up to the tip.
    pub(super) fn block_bytes(&self, height: Height) -> Result<Vec<u8>, Refusal> {
        self.check_time()?;
        self.store().block_bytes(height)?.ok_or(DAMAGED_BLOCK)
    }

    /// The block at a height up to the tip.
    pub(super) fn block(&self, height: Height) -> Result<Block, Refusal> {
        parse_block(self.block_bytes(height)?).map_err(|_| DAMAGED_BLOCK)
    }

    /// The block at a height up to the tip, cut into its transactions.
    pub(super) fn cut(&self, height: Height) -> Result<Arc<Cut>, Refusal> {
        self.check_time()?;
        if let Some(cut) = self.chain.cuts.get(&height) {
            return Ok(cut);
        }
        let cut = Arc::new(Cut::new(self.block_bytes(height)?).ok_or(DAMAGED_BLOCK)?);
        self.chain.cuts.insert(height, Arc::clone(&cut));
        Ok(cut)
    }

    /// What only the whole block at a height up to the tip says.
    pub(super) fn sizes(&self, height: Height) -> Result<Sizes, Refusal> {
        if let Some(sizes) = self.chain.sizes.get(&height) {
            return Ok(sizes);
        }
        let block = self.block(height)?;
        // The count of transactions is no part of any of them.
        let head = Header::SIZE + VarInt::from(block.transactions().len()).size();
        let weight = block.transactions().iter().map(causeway_consensus::Tx::weight).sum::<u64>() + 4 * head as u64;
        let sizes = Sizes { transactions: block.transactions().len(), bytes: block.bytes().len(), weight };
        self.chain.sizes.insert(height, sizes);
        Ok(sizes)
    }

    /// Where a transaction stands, if it is final.
    ///
    /// # Errors
    /// There is no index.
    pub(super) fn place(&self, txid: &Txid) -> Result<Option<Place>, Refusal> {
        if !self.store().has_index() {
            return Err(Refusal::NoIndex);
        }
        let place = self.store().transaction_place(txid)?.filter(|place| place.height <= self.tip.height());
        place.map(|place| self.place_of(place)).transpose()
    }

    /// The same of a place up to the tip.
    pub(super) fn place_of(&self, TxPlace { height, index }: TxPlace) -> Result<Place, Refusal> {
        let header = self.header(height)?;
        Ok(Place { height, hash: header.block_hash(), time: header.time, index })
    }

    /// The index at its tip, which may be above this reader's.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn index(&self) -> Result<IndexView<'_>, Refusal> {
        self.store().index_view().ok_or(Refusal::NoIndex)
    }

    /// The transaction at a place.
    pub(super) fn transaction(&self, place: &Place) -> Result<Transaction, Refusal> {
        self.cut(place.height)?.transaction(place.index).ok_or(DAMAGED_BLOCK)
    }

    /// The serialised transaction at a place.
    pub(super) fn raw_transaction(&self, place: &Place) -> Result<Vec<u8>, Refusal> {
        self.cut(place.height)?.raw(place.index).map(<[u8]>::to_vec).ok_or(DAMAGED_BLOCK)
    }

    /// The outputs that final transactions spend. Each block that holds some of them is read once.
    pub(super) fn spent_outputs<'a>(
        &self,
        transactions: impl Iterator<Item = &'a Transaction>,
    ) -> Result<HashMap<OutPoint, TxOut>, Refusal> {
        let inputs = transactions.filter(|transaction| !transaction.is_coinbase()).flat_map(|tx| &tx.input);
        self.outputs(inputs.map(|input| input.previous_output).collect())
    }

    /// Outputs of final transactions.
    pub(super) fn outputs(&self, wanted: BTreeSet<OutPoint>) -> Result<HashMap<OutPoint, TxOut>, Refusal> {
        let unknown = || Refusal::Fault(StateFault::Damaged { record: "place of a transaction" });
        let mut vouts: BTreeMap<TxPlace, Vec<OutPoint>> = BTreeMap::new();
        let mut last = None;
        for outpoint in wanted {
            // Those of one transaction follow each other.
            let place = match last.filter(|(txid, _)| *txid == outpoint.txid) {
                Some((_, place)) => place,
                None => {
                    self.check_time()?;
                    self.store().transaction_place(&outpoint.txid)?.ok_or_else(unknown)?
                }
            };
            last = Some((outpoint.txid, place));
            vouts.entry(place).or_default().push(outpoint);
        }
        let mut blocks: BTreeMap<Height, BTreeSet<u32>> = BTreeMap::new();
        for TxPlace { height, index } in vouts.keys() {
            blocks.entry(*height).or_default().insert(*index);
        }
        let mut outputs = HashMap::new();
        let mut script_bytes = 0;
        for (height, places) in blocks {
            let found = self.cut(height)?.transactions(&places).ok_or(DAMAGED_BLOCK)?;
            for (index, transaction) in found {
                for outpoint in vouts.get(&TxPlace { height, index }).into_iter().flatten() {
                    let vout = usize::try_from(outpoint.vout).ok();
                    let output = vout.and_then(|vout| transaction.output.get(vout)).ok_or_else(unknown)?;
                    script_bytes += output.script_pubkey.len();
                    if script_bytes > MAX_JSON_BYTES {
                        return Err(Refusal::AnswerTooLarge);
                    }
                    outputs.insert(*outpoint, output.clone());
                }
            }
        }
        Ok(outputs)
    }

    /// Gives up when nobody waits any more.
    pub(super) fn check_time(&self) -> Result<(), Refusal> {
        if Instant::now() > self.deadline { Err(Refusal::TooLate) } else { Ok(()) }
    }
}
