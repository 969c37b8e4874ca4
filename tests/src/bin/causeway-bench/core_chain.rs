//! Bitcoin Core's engine on a regtest chain of its own.

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::script::Builder;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode,
    TxOut, Witness, transaction,
};
use bitcoinkernel::{ChainType, ChainstateManager, Context, ContextBuilder, ProcessBlockResult};
use causeway_consensus::assemble::seal;
use tempfile::TempDir;

/// What a regtest block creates until height 150.
const SUBSIDY: Amount = Amount::from_int_btc(50);

/// Core's engine with its databases in memory and its block files in a directory that goes with it.
pub(crate) struct CoreChain {
    manager: ChainstateManager,
    _context: Context,
    _directory: TempDir,
}

impl CoreChain {
    /// Returns an engine at block 0 that verifies on `threads` threads.
    pub(crate) fn new(threads: usize) -> Result<Self, Box<dyn std::error::Error>> {
        let directory = TempDir::new()?;
        let data = directory.path().to_str().ok_or("the temporary directory has a name that is no text")?;
        let context = ContextBuilder::new().chain_type(ChainType::Regtest).build()?;
        // The thread that processes the block verifies too.
        let workers = i32::try_from(threads - 1)?;
        let manager = ChainstateManager::builder(&context, data, &format!("{data}/blocks"))?
            .worker_threads(workers)
            .block_tree_db_in_memory(true)
            .chainstate_db_in_memory(true)
            .build()?;
        manager.import_blocks()?;
        Ok(Self { manager, _context: context, _directory: directory })
    }

    /// Validates a block and makes it the tip. The bytes are decoded here, as they are on the other side.
    pub(crate) fn process(&self, bytes: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
        let height = self.manager.active_chain().height();
        let block = bitcoinkernel::Block::new(bytes)?;
        let result = self.manager.process_block(&block);
        if !matches!(result, ProcessBlockResult::NewBlock) || self.manager.active_chain().height() != height + 1 {
            return Err(format!("Bitcoin Core refused block {}", height + 1).into());
        }
        Ok(())
    }
}

/// Makes blocks for [`CoreChain`], one after the other.
pub(crate) struct CoreMiner {
    tip: BlockHash,
    time: u32,
    height: u32,
}

impl CoreMiner {
    /// Returns a miner at block 0.
    pub(crate) fn new() -> Self {
        let genesis = bitcoin::constants::genesis_block(Network::Regtest);
        Self { tip: genesis.block_hash(), time: genesis.header.time, height: 0 }
    }

    /// Returns the next block, whose coinbase pays the subsidy to `script`.
    pub(crate) fn mine(&mut self, script: ScriptBuf, transactions: Vec<Transaction>) -> Block {
        self.height += 1;
        self.time += 600;
        let coinbase = Transaction {
            version: transaction::Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::null(),
                script_sig: Builder::new().push_int(i64::from(self.height)).push_slice(b"bench").into_script(),
                sequence: Sequence::MAX,
                witness: Witness::from_slice(&[[0; 32]]),
            }],
            // The last but one is for the witness commitment.
            output: vec![
                TxOut { value: SUBSIDY, script_pubkey: script },
                TxOut::NULL,
                TxOut::minimal_non_dust(ScriptBuf::new()),
            ],
        };
        let mut txdata = vec![coinbase];
        txdata.extend(transactions);
        txdata[0].output[2].value = Amount::ZERO;
        let header = Header {
            version: Version::from_consensus(0x2000_0000),
            prev_blockhash: self.tip,
            merkle_root: TxMerkleNode::all_zeros(),
            time: self.time,
            bits: CompactTarget::from_consensus(0x207f_ffff),
            nonce: 0,
        };
        let mut block = Block { header, txdata };
        seal(&mut block);
        self.tip = block.block_hash();
        block
    }
}

/// Returns a block's bytes.
pub(crate) fn bytes(block: &Block) -> Vec<u8> {
    serialize(block)
}
