//! A block of Bitcoin whose bytes are proven by the hash that was asked for.

use bitcoin::block::Header;
use bitcoin::hashes::Hash as _;
use bitcoin::params::Params as BitcoinParams;
use bitcoin::{Block, BlockHash, Network, Target, Txid};
use causeway_consensus::merkle::merkle_root;

/// The greatest exponent of a valid compact target: regtest's limit is 0x207fffff.
const COMPACT_EXPONENT_MAX: u32 = 0x20;

/// Why bytes are not the block or header that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlockFault {
    /// Another header than asked for.
    #[error("asked for {asked}, got {got}")]
    OtherHeader {
        /// The hash that was asked for.
        asked: BlockHash,
        /// The hash of what came.
        got: BlockHash,
    },
    /// The hash does not meet the header's target, or the target is easier than the network allows.
    #[error("header {hash} has no proof of work")]
    NoProofOfWork {
        /// The hash of the header.
        hash: BlockHash,
    },
    /// The transactions are not those of the header.
    #[error("the transactions of block {hash} do not have its merkle root")]
    MerkleRoot {
        /// The hash of the header.
        hash: BlockHash,
    },
    /// Transactions repeated so that the merkle root stays (CVE-2012-2459).
    #[error("block {hash} repeats transactions")]
    Repeated {
        /// The hash of the header.
        hash: BlockHash,
    },
    /// The first transaction is no coinbase, or a later one is.
    #[error("block {hash} does not have its one coinbase first")]
    Coinbase {
        /// The hash of the header.
        hash: BlockHash,
    },
    /// The witnesses are not those that the coinbase commits to (BIP-0141).
    #[error("the witnesses of block {hash} are not those it commits to")]
    WitnessCommitment {
        /// The hash of the header.
        hash: BlockHash,
    },
}

/// A block whose transactions and witnesses are those that its header commits to, with their txids.
///
/// Not that Bitcoin accepts it: that is what the local bitcoind says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FullBlock {
    block: Block,
    hash: BlockHash,
    txids: Vec<Txid>,
}

impl FullBlock {
    /// The block, checked against its own header.
    ///
    /// # Errors
    ///
    /// The merkle root, the place of the coinbase or the witness commitment is wrong.
    pub fn new(block: Block) -> Result<FullBlock, BlockFault> {
        let hash = block.block_hash();
        let txids: Vec<Txid> = block.txdata.iter().map(bitcoin::Transaction::compute_txid).collect();
        let root = merkle_root(txids.iter().map(|txid| txid.to_byte_array()).collect());
        if root.root != block.header.merkle_root.to_byte_array() {
            return Err(BlockFault::MerkleRoot { hash });
        }
        if root.mutated {
            return Err(BlockFault::Repeated { hash });
        }
        // Also why no inner node of the tree poses as a transaction (CVE-2017-12842): the first would have to be a
        // coinbase.
        let coinbase_first = block.txdata.iter().enumerate().all(|(i, tx)| tx.is_coinbase() == (i == 0));
        if block.txdata.is_empty() || !coinbase_first {
            return Err(BlockFault::Coinbase { hash });
        }
        if !block.check_witness_commitment() {
            return Err(BlockFault::WitnessCommitment { hash });
        }
        Ok(FullBlock { block, hash, txids })
    }

    /// The block.
    pub fn block(&self) -> &Block {
        &self.block
    }

    /// The block itself.
    pub fn into_block(self) -> Block {
        self.block
    }

    /// The hash of its header.
    pub fn hash(&self) -> BlockHash {
        self.hash
    }

    /// The txids of its transactions, in their order.
    pub fn txids(&self) -> &[Txid] {
        &self.txids
    }
}

/// Whether the header's hash meets its own target, and the target is one that the network allows.
///
/// Not whether the target is the one that Bitcoin's retargeting asks for at its place.
pub fn has_proof_of_work(network: Network, header: &Header) -> bool {
    // Larger exponents are outside what Bitcoin allows, and some outside what `Target` can shift.
    if header.bits.to_consensus() >> 24 > COMPACT_EXPONENT_MAX {
        return false;
    }
    let target = header.target();
    let limit = BitcoinParams::new(network).max_attainable_target;
    target > Target::ZERO && target <= limit && target.is_met_by(header.block_hash())
}

/// Checks that `header` is the one asked for, with proof of work.
pub(super) fn check_header(network: Network, asked: BlockHash, header: &Header) -> Result<(), BlockFault> {
    let got = header.block_hash();
    if got != asked {
        return Err(BlockFault::OtherHeader { asked, got });
    }
    if !has_proof_of_work(network, header) {
        return Err(BlockFault::NoProofOfWork { hash: got });
    }
    Ok(())
}
