//! A block as it came: decoded, its ids computed, nothing believed yet.

use std::borrow::Cow;
use std::ops::Range;

use bitcoin::block::Header;
use bitcoin::consensus::encode::VarInt;
use bitcoin::consensus::{Decodable, Encodable};
use bitcoin::hashes::{Hash, HashEngine, sha256d};
use bitcoin::{BlockHash, Transaction, Txid, Weight, Wtxid};

use crate::error::InvalidBlock;

/// Weight limit of a block (BIP-0141), in weight units.
pub const MAX_BLOCK_WEIGHT: Weight = Weight::MAX_BLOCK;

/// Size limit of a serialised block, in bytes: every byte weighs at least one unit.
pub const MAX_BLOCK_BYTES: usize = 4_000_000;

/// The least bytes that a serialised transaction takes (Bitcoin Core: `MIN_SERIALIZABLE_TRANSACTION_WEIGHT`).
const MIN_TRANSACTION_BYTES: usize = 10;

/// A decoded block with its ids. The first stage: see the crate's documentation.
#[derive(Debug, Clone)]
pub struct Block {
    bytes: Vec<u8>,
    header: Header,
    hash: BlockHash,
    transactions: Vec<Tx>,
}

impl Block {
    /// The 80-byte header, decoded.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The block's id: sha256d of its header.
    pub fn hash(&self) -> BlockHash {
        self.hash
    }

    /// The transactions in block order.
    pub fn transactions(&self) -> &[Tx] {
        &self.transactions
    }

    /// The serialised block, exactly as it came.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The serialised transaction at `index`, with its witnesses.
    ///
    /// # Panics
    /// If the block has no such transaction.
    pub fn transaction_bytes(&self, index: usize) -> &[u8] {
        &self.bytes[self.transactions[index].range.clone()]
    }

    /// The transaction at `index` with its bytes.
    ///
    /// # Panics
    /// If the block has no such transaction.
    pub fn serialized(&self, index: usize) -> SerializedTransaction<'_> {
        let Tx { transaction, wtxid, .. } = &self.transactions[index];
        SerializedTransaction { transaction, bytes: Cow::Borrowed(self.transaction_bytes(index)), wtxid: *wtxid }
    }
}

/// A transaction with its one serialisation, witnesses included, and the hash of that. Nobody can put together what does not
/// belong together: the bytes were decoded to the transaction, or encoded from it.
#[derive(Debug, Clone)]
pub struct SerializedTransaction<'a> {
    transaction: &'a Transaction,
    bytes: Cow<'a, [u8]>,
    wtxid: Wtxid,
}

impl<'a> SerializedTransaction<'a> {
    /// Serialises a transaction.
    pub fn of(transaction: &'a Transaction) -> Self {
        let mut bytes = Vec::with_capacity(transaction.total_size());
        transaction.consensus_encode(&mut bytes).expect("a vector takes all");
        let wtxid = Wtxid::from_raw_hash(sha256d::Hash::hash(&bytes));
        Self { transaction, bytes: Cow::Owned(bytes), wtxid }
    }

    /// The transaction.
    pub fn transaction(&self) -> &'a Transaction {
        self.transaction
    }

    /// Its serialisation.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The id with witnesses.
    pub fn wtxid(&self) -> Wtxid {
        self.wtxid
    }
}

/// A transaction of a [`Block`], with its ids and sizes.
#[derive(Debug, Clone)]
pub struct Tx {
    transaction: Transaction,
    txid: Txid,
    wtxid: Wtxid,
    range: Range<usize>,
    base_size: usize,
}

impl Tx {
    /// The decoded transaction.
    pub fn transaction(&self) -> &Transaction {
        &self.transaction
    }

    /// The id without witnesses.
    pub fn txid(&self) -> Txid {
        self.txid
    }

    /// The id with witnesses (BIP-0141). For a coinbase too: its place in the witness tree is zero all the same.
    pub fn wtxid(&self) -> Wtxid {
        self.wtxid
    }

    /// Bytes without marker, flag and witnesses.
    pub fn base_size(&self) -> usize {
        self.base_size
    }

    /// Bytes as serialised.
    pub fn total_size(&self) -> usize {
        self.range.len()
    }

    /// Three times the base size plus the total size (BIP-0141), in weight units.
    pub fn weight(&self) -> u64 {
        (self.base_size * 3 + self.total_size()) as u64
    }
}

/// Returns the block that `bytes` hold, all of them.
///
/// Linear in the length of `bytes`, which is at most [`MAX_BLOCK_BYTES`]; memory is bounded by a multiple of it. Each
/// block has one encoding: bytes after it, and numbers longer than needed, are refused.
///
/// # Errors
/// [`InvalidBlock::TooManyBytes`] and [`InvalidBlock::Malformed`].
pub fn parse_block(bytes: Vec<u8>) -> Result<Block, InvalidBlock> {
    if bytes.len() > MAX_BLOCK_BYTES {
        return Err(InvalidBlock::TooManyBytes { bytes: bytes.len(), max: MAX_BLOCK_BYTES });
    }
    let mut rest = bytes.as_slice();
    let offset = |rest: &[u8]| bytes.len() - rest.len();
    let malformed = |rest: &[u8]| InvalidBlock::Malformed { offset: offset(rest) };

    let header = Header::consensus_decode(&mut rest).map_err(|_| malformed(rest))?;
    let VarInt(count) = VarInt::consensus_decode(&mut rest).map_err(|_| malformed(rest))?;
    let count = usize::try_from(count).map_err(|_| malformed(rest))?;
    if count > rest.len() / MIN_TRANSACTION_BYTES {
        return Err(malformed(rest));
    }
    let mut transactions = Vec::with_capacity(count);
    for _ in 0..count {
        let start = offset(rest);
        let transaction = Transaction::consensus_decode_from_finite_reader(&mut rest).map_err(|_| malformed(rest))?;
        transactions.push(identify(transaction, &bytes, start..offset(rest)));
    }
    if !rest.is_empty() {
        return Err(malformed(rest));
    }
    let hash = BlockHash::from_raw_hash(sha256d::Hash::hash(&bytes[..Header::SIZE]));
    Ok(Block { bytes, header, hash, transactions })
}

/// Hashes a transaction from the bytes that it was decoded from, which are its one encoding.
fn identify(transaction: Transaction, bytes: &[u8], range: Range<usize>) -> Tx {
    let raw = &bytes[range.clone()];
    let base_size = transaction.base_size();
    let whole = sha256d::Hash::hash(raw);
    let stripped = if base_size == raw.len() {
        whole
    } else {
        // version (4) || marker, flag (2) || inputs and outputs || witnesses || lock time (4)
        let mut engine = sha256d::Hash::engine();
        engine.input(&raw[..4]);
        engine.input(&raw[6..base_size - 2]);
        engine.input(&raw[raw.len() - 4..]);
        sha256d::Hash::from_engine(engine)
    };
    Tx { transaction, txid: Txid::from_raw_hash(stripped), wtxid: Wtxid::from_raw_hash(whole), range, base_size }
}
