//! `/block...`: all from the final chain.

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{BlockHash, Target};
use causeway_chainspec::Height;
use causeway_consensus::{ChainView, StateFault, Tx};

use super::answer::{Answer, Keep, PAGE, Refusal};
use super::json::{BlockJson, BlockStatusJson, StatusJson, TransactionJson};
use super::reader::{Place, Reader};
use super::routes::OfBlock;

/// Blocks on one page.
const BLOCKS_PAGE: u32 = 10;

impl Reader {
    /// Ten blocks, newest first: from the tip, or from a height.
    pub(super) fn blocks(&self, start: Option<u64>) -> Result<Answer, Refusal> {
        let first = match start {
            Some(start) => self.height(start)?,
            None => self.tip().height(),
        };
        let last = first.to_u32().saturating_sub(BLOCKS_PAGE - 1);
        let blocks = (last..=first.to_u32()).rev().map(|height| self.summary(Height(height)));
        let blocks = blocks.collect::<Result<Vec<BlockJson>, Refusal>>()?;
        Answer::json(&blocks, if start.is_some() { Keep::Final } else { Keep::Never })
    }

    /// The id of the block at a height.
    pub(super) fn hash_at(&self, height: u64) -> Result<Answer, Refusal> {
        let height = self.height(height)?;
        Ok(Answer::text(self.header(height)?.block_hash(), Keep::Final))
    }

    /// What is asked of a block.
    pub(super) fn of_block(&self, hash: BlockHash, what: OfBlock) -> Result<Answer, Refusal> {
        if what == OfBlock::Status {
            return self.block_status(hash);
        }
        let height = self.height_of(hash)?.ok_or(Refusal::BlockNotFound)?;
        match what {
            OfBlock::Summary => Answer::json(&self.summary(height)?, Keep::Final),
            OfBlock::Header => Ok(Answer::text(serialize_hex(&self.header(height)?), Keep::Final)),
            OfBlock::Raw => Ok(Answer::binary(self.block_bytes(height)?, Keep::Final)),
            OfBlock::Status => self.block_status(hash),
            OfBlock::Txids => {
                let block = self.block(height)?;
                Answer::json(&block.transactions().iter().map(Tx::txid).collect::<Vec<_>>(), Keep::Final)
            }
            OfBlock::Txid(place) => {
                let block = self.block(height)?;
                let tx = usize::try_from(place).ok().and_then(|place| block.transactions().get(place));
                Ok(Answer::text(tx.ok_or(Refusal::NoSuchPlace)?.txid(), Keep::Final))
            }
            OfBlock::Transactions(start) => self.page(height, start),
        }
    }

    fn summary(&self, height: Height) -> Result<BlockJson, Refusal> {
        let header = self.header(height)?;
        let sizes = self.sizes(height)?;
        let times = self.store().median_times(&[height])?;
        let mediantime = *times.first().ok_or(Refusal::Fault(StateFault::Damaged { record: "header" }))?;
        Ok(BlockJson {
            id: header.block_hash(),
            height: height.to_u32(),
            version: header.version.to_consensus(),
            timestamp: header.time,
            tx_count: sizes.transactions,
            size: sizes.bytes,
            weight: sizes.weight,
            merkle_root: header.merkle_root,
            previousblockhash: (height > Height(0)).then_some(header.prev_blockhash),
            mediantime,
            nonce: header.nonce,
            bits: header.bits.to_consensus(),
            difficulty: Target::from_compact(header.bits).difficulty_float(),
        })
    }

    /// Whoever asks about an unknown block is told that it is not in the chain.
    fn block_status(&self, hash: BlockHash) -> Result<Answer, Refusal> {
        let Some(height) = self.height_of(hash)? else {
            let unknown = BlockStatusJson { in_best_chain: false, height: None, next_best: None };
            return Answer::json(&unknown, Keep::Never);
        };
        let next = height.next().filter(|next| *next <= self.tip().height());
        let next_best = next.map(|next| self.header(next)).transpose()?.map(|header| header.block_hash());
        let keep = if next_best.is_some() { Keep::Final } else { Keep::Never };
        Answer::json(&BlockStatusJson { in_best_chain: true, height: Some(height.to_u32()), next_best }, keep)
    }

    /// Some transactions of a block, from place `start` on.
    fn page(&self, height: Height, start: u64) -> Result<Answer, Refusal> {
        if !self.store().has_index() {
            return Err(Refusal::NoIndex);
        }
        let block = self.block(height)?;
        let start = usize::try_from(start).ok().filter(|start| *start < block.transactions().len());
        let start = start.ok_or(Refusal::StartOutOfRange)?;
        if !start.is_multiple_of(PAGE) {
            return Err(Refusal::StartNotOnPage);
        }
        let page = || block.transactions().iter().skip(start).take(PAGE);
        let spent = self.spent_outputs(page().map(Tx::transaction))?;
        let place = Place { height, hash: block.hash(), time: block.header().time, index: 0 };
        let status = StatusJson::confirmed(&place);
        let transactions: Vec<TransactionJson<'_>> = page()
            .map(|tx| TransactionJson::new(tx.transaction(), tx.txid(), &spent, self.network(), status))
            .collect();
        Answer::json(&transactions, Keep::Final)
    }
}
