//! The Bitcoin chain under the peg, in memory: real regtest blocks with real proof of work and merkle roots, and the rule
//! that an output is spent once. Nobody signs: what the peg reads of a transaction has no witness.

mod evidence;
mod faucet;

use std::collections::HashMap;
use std::sync::Arc;

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version as BlockVersion};
use bitcoin::hashes::{Hash, sha256};
use bitcoin::script::Builder;
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, Block, BlockHash, OutPoint, ScriptBuf, Sequence, Target, Transaction, TxIn, TxMerkleNode, TxOut,
};
use bitcoin::{CompactTarget, Txid, Witness};
use causeway_chainspec::{BitcoinHeight, ChainSpec};

pub use evidence::{quote, stub_peg_transaction, terms};
pub use faucet::{bury, credit, credit_each, fund, peg_spec, request_script};

/// Regtest's target, which nothing ever changes.
const BITS: u32 = 0x207f_ffff;

/// Bitcoin as one node sees it: the best chain and its unspent outputs. A fork is a rewind and other blocks on top.
///
/// The supply is not modelled: [`ParentChain::pay`] spends outputs out of nowhere.
#[derive(Debug, Clone)]
pub struct ParentChain {
    start: Header,
    start_height: u32,
    blocks: Vec<ParentBlock>,
    coins: HashMap<OutPoint, TxOut>,
    places: HashMap<Txid, (u32, usize)>,
    /// The time of the next block, in seconds of Unix time; later if the median asks for it.
    pub clock: u32,
    /// Makes the next block or payment another one; chains that are to differ are given different ones.
    pub serial: u64,
}

#[derive(Debug, Clone)]
struct ParentBlock {
    block: Arc<Block>,
    hash: BlockHash,
    /// What its transactions spent.
    spent: Vec<(OutPoint, TxOut)>,
}

impl ParentChain {
    /// Returns the chain that has the starting header of a chainspec only, with the clock at the chain's beginning.
    pub fn new(spec: &ChainSpec) -> Self {
        Self {
            start: *spec.bitcoin().header(),
            start_height: spec.bitcoin().height().to_u32(),
            blocks: Vec::new(),
            coins: HashMap::new(),
            places: HashMap::new(),
            clock: spec.genesis_time(),
            serial: 0,
        }
    }

    /// The height of the best block.
    pub fn tip(&self) -> BitcoinHeight {
        BitcoinHeight(self.start_height + u32::try_from(self.blocks.len()).expect("few blocks"))
    }

    /// The header at a height of the best chain.
    pub fn header(&self, height: BitcoinHeight) -> Option<Header> {
        if height.to_u32() == self.start_height {
            return Some(self.start);
        }
        self.block(height).map(|block| block.header)
    }

    /// The block at a height of the best chain; the start has a header only.
    pub fn block(&self, height: BitcoinHeight) -> Option<&Arc<Block>> {
        self.at(height).map(|parent| &parent.block)
    }

    fn at(&self, height: BitcoinHeight) -> Option<&ParentBlock> {
        let index = height.to_u32().checked_sub(self.start_height + 1)?;
        self.blocks.get(index as usize)
    }

    /// The id of the best block.
    pub fn tip_hash(&self) -> BlockHash {
        self.blocks.last().map_or_else(|| self.start.block_hash(), |parent| parent.hash)
    }

    /// Whether the best chain has this output unspent.
    pub fn is_unspent(&self, outpoint: &OutPoint) -> bool {
        self.coins.contains_key(outpoint)
    }

    /// An unspent output.
    pub fn coin(&self, outpoint: &OutPoint) -> Option<&TxOut> {
        self.coins.get(outpoint)
    }

    /// Whether all of a transaction's inputs are unspent.
    pub fn is_spendable(&self, transaction: &Transaction) -> bool {
        transaction.input.iter().all(|input| self.is_unspent(&input.previous_output))
    }

    /// Where a transaction stands on the best chain: height and place in the block.
    pub fn place(&self, txid: &Txid) -> Option<(BitcoinHeight, usize)> {
        self.places.get(txid).map(|(height, index)| (BitcoinHeight(*height), *index))
    }

    /// A transaction of the best chain.
    pub fn transaction(&self, txid: &Txid) -> Option<&Transaction> {
        let (height, index) = self.place(txid)?;
        self.block(height)?.txdata.get(index)
    }

    /// Returns a transaction to these outputs, out of money that comes from nowhere.
    pub fn pay(&mut self, outputs: Vec<TxOut>) -> Transaction {
        self.serial += 1;
        let seed = sha256::Hash::hash(&[b"causeway test money".as_slice(), &self.serial.to_le_bytes()].concat());
        let outpoint = OutPoint { txid: Txid::from_byte_array(seed.to_byte_array()), vout: 0 };
        let value = outputs.iter().fold(Amount::ZERO, |sum, output| sum.checked_add(output.value).unwrap_or(sum));
        self.coins.insert(outpoint, TxOut { value, script_pubkey: ScriptBuf::new() });
        spending(&[outpoint], outputs)
    }

    /// Lets a payment that another chain made with [`ParentChain::pay`] be mined here too, unless it was.
    pub fn endow(&mut self, payment: &Transaction) {
        if self.place(&payment.compute_txid()).is_none() {
            let money = TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::new() };
            self.coins.extend(payment.input.iter().map(|input| (input.previous_output, money.clone())));
        }
    }

    /// Mines one block of these transactions, in this order, and returns its height.
    ///
    /// # Panics
    /// If an input is spent, or was never there.
    pub fn mine(&mut self, transactions: Vec<Transaction>) -> BitcoinHeight {
        let output = TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(vec![0x51]) };
        self.mine_to(vec![output], transactions)
    }

    /// Mines one block whose coinbase has these outputs.
    pub fn mine_to(&mut self, outputs: Vec<TxOut>, transactions: Vec<Transaction>) -> BitcoinHeight {
        self.serial += 1;
        let height = self.tip().to_u32() + 1;
        let mut txdata = vec![coinbase(height, self.serial, outputs)];
        txdata.extend(transactions);
        let header = Header {
            version: BlockVersion::from_consensus(0x2000_0000),
            prev_blockhash: self.tip_hash(),
            merkle_root: TxMerkleNode::all_zeros(),
            time: self.clock.max(self.median_time() + 1),
            bits: CompactTarget::from_consensus(BITS),
            nonce: 0,
        };
        let mut block = Block { header, txdata };
        block.header.merkle_root = block.compute_merkle_root().expect("a block has transactions");
        prove_work(&mut block.header);
        self.push(block);
        BitcoinHeight(height)
    }

    /// Mines so many empty blocks.
    pub fn mine_empty(&mut self, blocks: u32) {
        for _ in 0..blocks {
            self.mine(Vec::new());
        }
    }

    /// Appends a block, whatever its header says.
    pub fn push(&mut self, block: Block) {
        let height = self.tip().to_u32() + 1;
        let mut spent = Vec::new();
        for (index, transaction) in block.txdata.iter().enumerate() {
            for input in transaction.input.iter().filter(|_| index > 0) {
                let outpoint = input.previous_output;
                let coin = self.coins.remove(&outpoint);
                spent.push((outpoint, coin.unwrap_or_else(|| panic!("{outpoint} is not there to be spent"))));
            }
            let txid = transaction.compute_txid();
            self.places.insert(txid, (height, index));
            for (vout, output) in (0u32..).zip(&transaction.output) {
                self.coins.insert(OutPoint { txid, vout }, output.clone());
            }
        }
        let hash = block.block_hash();
        self.blocks.push(ParentBlock { block: Arc::new(block), hash, spent });
    }

    /// Takes the blocks above `height` off the chain, and returns their transactions without coinbases, oldest first.
    pub fn rewind(&mut self, height: BitcoinHeight) -> Vec<Transaction> {
        let mut undone = Vec::new();
        while self.tip() > height {
            let ParentBlock { block, hash: _, spent } = self.blocks.pop().expect("the start stays");
            for transaction in &block.txdata {
                let txid = transaction.compute_txid();
                self.places.remove(&txid);
                for vout in (0u32..).take(transaction.output.len()) {
                    self.coins.remove(&OutPoint { txid, vout });
                }
            }
            let within: Vec<Txid> = block.txdata.iter().map(Transaction::compute_txid).collect();
            let before = spent.into_iter().filter(|(outpoint, _)| !within.contains(&outpoint.txid));
            self.coins.extend(before);
            undone.splice(0..0, block.txdata.iter().skip(1).cloned());
        }
        undone
    }

    fn median_time(&self) -> u32 {
        let mut times: Vec<u32> = self.blocks.iter().rev().take(11).map(|parent| parent.block.header.time).collect();
        if times.len() < 11 {
            times.push(self.start.time);
        }
        times.sort_unstable();
        times[times.len() / 2]
    }
}

/// Returns the unsigned transaction of these inputs and outputs.
pub fn spending(inputs: &[OutPoint], output: Vec<TxOut>) -> Transaction {
    let input = |outpoint: &OutPoint| TxIn {
        previous_output: *outpoint,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    };
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: inputs.iter().map(input).collect(), output }
}

/// Finds a nonce for which the header's hash meets its target.
pub fn prove_work(header: &mut Header) {
    let target = Target::from_compact(header.bits);
    while !target.is_met_by(header.block_hash()) {
        header.nonce = header.nonce.wrapping_add(1);
    }
}

/// The serial makes every block another one.
fn coinbase(height: u32, serial: u64, outputs: Vec<TxOut>) -> Transaction {
    let script_sig = Builder::new().push_int(height.into()).push_slice(serial.to_le_bytes()).into_script();
    let mut transaction = spending(&[OutPoint::null()], outputs);
    transaction.input[0].script_sig = script_sig;
    transaction
}
