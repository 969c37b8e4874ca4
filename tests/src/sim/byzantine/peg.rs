//! Blocks that keep every rule, and leave out what the peg waits for, or speak of a Bitcoin that nobody has.

use bitcoin::block::{Header, Version};
use bitcoin::hashes::{Hash, sha256};
use bitcoin::{Amount, Block, BlockHash, CompactTarget, ScriptBuf, TxMerkleNode};
use causeway_chainspec::BitcoinHeight;
use causeway_consensus::ChainView;
use causeway_consensus::assemble::assemble_block;
use causeway_consensus::peg::PegContext;
use causeway_consensus::peg::header_tree::{HeaderRun, HeaderTree};
use causeway_consensus::peg::propose::{Candidates, propose};

use crate::parent::prove_work;
use crate::sim::rng::Rng;
use crate::sim::world::World;

/// Regtest's target, which nothing ever changes.
const BITS: u32 = 0x207f_ffff;

impl World {
    /// A block with nothing in it but the batch that the rules demand.
    pub(super) fn without_evidence(&self, index: usize, truth: Block) -> Block {
        self.with_headers(index, truth, None)
    }

    /// The same, with headers that were never on the Bitcoin network: on the tip, or a longer branch.
    pub(super) fn with_false_headers(&mut self, index: usize, truth: Block) -> Block {
        let tip = self.hosts[index].chain.tip();
        let run = false_run(tip.peg().headers(), &mut self.rng);
        self.with_headers(index, truth, run)
    }

    fn with_headers(&self, index: usize, truth: Block, headers: Option<HeaderRun>) -> Block {
        let chain = &self.hosts[index].chain;
        let (tip, time) = (chain.tip(), truth.header.time);
        if truth.header.prev_blockhash != tip.hash() {
            return truth;
        }
        let Some(height) = tip.height().next() else { return truth };
        // A low fee is not raised either.
        let keep = tip.peg().open_batches().map(|batch| batch.number).collect();
        let candidates = Candidates { headers, keep, ..Candidates::default() };
        let peg = propose(tip.peg(), PegContext { height, time }, candidates);
        assemble_block(&tip, time, Amount::ZERO, ScriptBuf::new(), peg.into_iter().collect())
    }
}

/// One to three headers on the tip, or a branch from up to four below it that is longer by one.
fn false_run(tree: &HeaderTree, rng: &mut Rng) -> Option<HeaderRun> {
    let tip = tree.tip().height;
    let below = if rng.chance(50) { 0 } else { u32::try_from(rng.below(5)).ok()? };
    let count = if below == 0 { 1 + rng.below(3) } else { u64::from(below) + 1 };
    let mut parent: Header = *tree.best(BitcoinHeight(tip.0.checked_sub(below)?))?;
    let mut headers = Vec::new();
    for _ in 0..count {
        let root = sha256::Hash::hash(&rng.number().to_le_bytes());
        let mut header = Header {
            version: Version::from_consensus(0x2000_0000),
            prev_blockhash: BlockHash::all_zeros(),
            merkle_root: TxMerkleNode::from_byte_array(root.to_byte_array()),
            time: tree.tip().time + 1,
            bits: CompactTarget::from_consensus(BITS),
            nonce: 0,
        };
        header.prev_blockhash = parent.block_hash();
        prove_work(&mut header);
        headers.push(header);
        parent = header;
    }
    HeaderRun::between(&headers)
}
