//! Proof that a Bitcoin block holds a transaction (PEG section 4).

use bitcoin::consensus::encode::{Decodable, Encodable};
use bitcoin::hashes::{Hash, HashEngine, sha256d};
use bitcoin::{Block, Transaction, TxMerkleNode, Txid, Witness};
use causeway_chainspec::BitcoinHeight;
use thiserror::Error;

/// The most levels of a block's merkle tree above its transactions.
///
/// A transaction has at least 60 bytes without witnesses (one input of 41, one output of 9, 10 for the rest), each of
/// weight 4, so a block of weight 4,000,000 has at most 16,666 of them: 15 levels.
pub const MAX_BRANCH: usize = 15;

/// The most bytes of the carried transactions together: both are in one block, of weight 4,000,000, without witnesses.
pub const MAX_TRANSACTION_BYTES: usize = 1_000_000;

/// That a transaction stands in a block, as evidence claims it.
///
/// The block's coinbase is carried as well, with a branch as long as the transaction's. So the height of the tree is
/// proven, and neither can an inner node pose as a transaction nor a transaction as an inner node (CVE-2017-12842): the
/// coinbase would have to be one too, and its first 32 bytes are no hash that anyone can find.
///
/// For the coinbase itself (index 0) `transaction` and `branch` equal `coinbase` and `coinbase_branch`, and are encoded
/// once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InclusionProof {
    /// The height of the block on Bitcoin's best chain. Its header there has the merkle root that is proven against.
    pub height: BitcoinHeight,
    /// The transaction, without witnesses.
    pub transaction: Transaction,
    /// Its place in the block.
    pub index: u32,
    /// The siblings of the transaction and of the nodes above it, lowest first.
    pub branch: Vec<TxMerkleNode>,
    /// The block's first transaction, without witnesses.
    pub coinbase: Transaction,
    /// The siblings of the coinbase and of the nodes above it, lowest first.
    pub coinbase_branch: Vec<TxMerkleNode>,
}

/// A transaction that a block holds. Comes from [`InclusionProof::verify`] only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProvenTransaction<'a> {
    txid: Txid,
    proof: &'a InclusionProof,
}

impl<'a> ProvenTransaction<'a> {
    /// The transaction's id.
    pub fn txid(&self) -> Txid {
        self.txid
    }

    /// The transaction, without witnesses.
    pub fn transaction(&self) -> &'a Transaction {
        &self.proof.transaction
    }

    /// Its place in the block.
    pub fn index(&self) -> u32 {
        self.proof.index
    }

    /// Whether it is a coinbase, whose outputs can be spent 100 blocks later only.
    pub fn is_coinbase(&self) -> bool {
        self.proof.transaction.is_coinbase()
    }
}

/// Why an inclusion proof proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidProof {
    /// More levels than a block's tree can have.
    #[error("the branch has {levels} levels, which may be at most {MAX_BRANCH}")]
    BranchTooLong {
        /// Levels of the longer branch.
        levels: usize,
    },
    /// The branches do not have the same length.
    #[error("the transaction's branch has {branch} levels and the coinbase's {coinbase}, which must be equal")]
    UnequalBranches {
        /// Levels of the transaction's branch.
        branch: usize,
        /// Levels of the coinbase's branch.
        coinbase: usize,
    },
    /// No place of a tree with so many levels.
    #[error("index {index} is not below 2^{levels}")]
    Index {
        /// The index.
        index: u32,
        /// Levels of the branches.
        levels: usize,
    },
    /// A carried transaction has a witness.
    #[error("a carried transaction has a witness, which must be left out")]
    Witness,
    /// A carried transaction has no inputs.
    #[error("a carried transaction has no inputs")]
    NoInputs,
    /// The carried transactions are larger than a block.
    #[error("the carried transactions have {bytes} bytes, which may be at most {MAX_TRANSACTION_BYTES}")]
    TooManyBytes {
        /// Their bytes without witnesses.
        bytes: usize,
    },
    /// The first transaction is no coinbase: one input, which spends the null outpoint.
    #[error("the block's first transaction is no coinbase")]
    NotCoinbase,
    /// The proof is of the coinbase (index 0), but carries another transaction or branch too.
    #[error("a proof at index 0 carries anything but the coinbase and its branch twice")]
    TwoCoinbases,
    /// A right node equals its left sibling, so this place is a repetition of another (CVE-2012-2459).
    #[error("at level {level} a right node equals its left sibling")]
    RepeatedNode {
        /// Levels above the transactions.
        level: usize,
    },
    /// A branch leads to another root than the header's.
    #[error("the branch of {txid} leads to {got}, which must be {root}")]
    Root {
        /// The transaction at the branch's lower end.
        txid: Txid,
        /// Where it leads.
        got: TxMerkleNode,
        /// The header's merkle root.
        root: TxMerkleNode,
    },
}

/// Why bytes are no [`InclusionProof`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MalformedProof {
    /// The bytes end inside the proof.
    #[error("the inclusion proof ends early")]
    Short,
    /// More levels than a block's tree can have.
    #[error("the branch has {levels} levels, which may be at most {MAX_BRANCH}")]
    BranchTooLong {
        /// The levels that the proof states.
        levels: u8,
    },
    /// A carried transaction is no transaction without witnesses in its one encoding.
    #[error("a carried transaction is not in its one form: without witnesses, with inputs, numbers as short as can be")]
    Transaction,
    /// The carried transactions are larger than a block.
    #[error("the carried transactions have {bytes} bytes, which may be at most {MAX_TRANSACTION_BYTES}")]
    TooManyBytes {
        /// Their bytes.
        bytes: usize,
    },
}

impl InclusionProof {
    /// The proof of the transaction at `index` of a block; `None` if it has none there, or no transaction at all.
    ///
    /// The block is the caller's: an own node has validated it.
    pub fn of_block(block: &Block, height: BitcoinHeight, index: usize) -> Option<Self> {
        let transaction = stripped(block.txdata.get(index)?);
        let coinbase = stripped(block.txdata.first()?);
        let txids: Vec<TxMerkleNode> = block.txdata.iter().map(|tx| leaf(tx.compute_txid())).collect();
        Some(Self {
            height,
            transaction,
            index: u32::try_from(index).ok()?,
            branch: branch_of(txids.clone(), index),
            coinbase,
            coinbase_branch: branch_of(txids, 0),
        })
    }

    /// Checks the proof against the merkle root of the header that the best chain has at the proof's height.
    ///
    /// # Errors
    /// [`InvalidProof`], one variant for each rule (PEG section 4).
    pub fn verify(&self, merkle_root: TxMerkleNode) -> Result<ProvenTransaction<'_>, InvalidProof> {
        let levels = self.branch.len();
        if levels > MAX_BRANCH || self.coinbase_branch.len() > MAX_BRANCH {
            return Err(InvalidProof::BranchTooLong { levels: levels.max(self.coinbase_branch.len()) });
        }
        if levels != self.coinbase_branch.len() {
            return Err(InvalidProof::UnequalBranches { branch: levels, coinbase: self.coinbase_branch.len() });
        }
        if self.index >> levels != 0 {
            return Err(InvalidProof::Index { index: self.index, levels });
        }
        self.check_carried()?;
        let txid = self.transaction.compute_txid();
        climb(txid, self.index, &self.branch, merkle_root)?;
        if self.index > 0 {
            climb(self.coinbase.compute_txid(), 0, &self.coinbase_branch, merkle_root)?;
        }
        Ok(ProvenTransaction { txid, proof: self })
    }

    fn check_carried(&self) -> Result<(), InvalidProof> {
        let carried = [&self.coinbase, &self.transaction];
        if carried.iter().any(|tx| tx.input.is_empty()) {
            return Err(InvalidProof::NoInputs);
        }
        if carried.iter().any(|tx| tx.input.iter().any(|input| !input.witness.is_empty())) {
            return Err(InvalidProof::Witness);
        }
        if !self.coinbase.is_coinbase() {
            return Err(InvalidProof::NotCoinbase);
        }
        let mut bytes = self.coinbase.base_size();
        if self.index > 0 {
            bytes += self.transaction.base_size();
        } else if self.transaction != self.coinbase || self.branch != self.coinbase_branch {
            return Err(InvalidProof::TwoCoinbases);
        }
        if bytes > MAX_TRANSACTION_BYTES {
            return Err(InvalidProof::TooManyBytes { bytes });
        }
        Ok(())
    }

    /// Appends height (u32, little endian) || index (u32, little endian) || levels (1) || the coinbase's branch (32 for each
    /// level, internal byte order) || the coinbase || unless the index is 0: the transaction's branch || the transaction.
    ///
    /// Transactions are serialised without witnesses. The encoding stands for this proof if [`Self::verify`] accepts it,
    /// or [`Self::of_block`] made it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.height.to_u32().to_le_bytes());
        out.extend_from_slice(&self.index.to_le_bytes());
        out.push(u8::try_from(self.coinbase_branch.len()).unwrap_or(u8::MAX));
        encode_leaf(&self.coinbase_branch, &self.coinbase, out);
        if self.index > 0 {
            encode_leaf(&self.branch, &self.transaction, out);
        }
    }

    /// Takes a proof off the front of `bytes`. It has one encoding only, and memory is bounded by a multiple of `bytes`.
    ///
    /// # Errors
    /// [`MalformedProof`]; then `bytes` may have been moved.
    pub fn decode(bytes: &mut &[u8]) -> Result<Self, MalformedProof> {
        let height = BitcoinHeight(u32::from_le_bytes(take(bytes)?));
        let index = u32::from_le_bytes(take(bytes)?);
        let [levels] = take(bytes)?;
        if usize::from(levels) > MAX_BRANCH {
            return Err(MalformedProof::BranchTooLong { levels });
        }
        let (coinbase_branch, coinbase, coinbase_bytes) = decode_leaf(bytes, levels)?;
        if index == 0 {
            let (transaction, branch) = (coinbase.clone(), coinbase_branch.clone());
            return Ok(Self { height, transaction, index, branch, coinbase, coinbase_branch });
        }
        let (branch, transaction, transaction_bytes) = decode_leaf(bytes, levels)?;
        let carried = coinbase_bytes + transaction_bytes;
        if carried > MAX_TRANSACTION_BYTES {
            return Err(MalformedProof::TooManyBytes { bytes: carried });
        }
        Ok(Self { height, transaction, index, branch, coinbase, coinbase_branch })
    }
}

fn encode_leaf(branch: &[TxMerkleNode], transaction: &Transaction, out: &mut Vec<u8>) {
    branch.iter().for_each(|node| out.extend_from_slice(node.as_byte_array()));
    put(&transaction.version, out);
    put(&transaction.input, out);
    put(&transaction.output, out);
    put(&transaction.lock_time, out);
}

/// Takes a branch and a transaction; the third value is the transaction's length in bytes.
fn decode_leaf(bytes: &mut &[u8], levels: u8) -> Result<(Vec<TxMerkleNode>, Transaction, usize), MalformedProof> {
    let mut branch = Vec::with_capacity(levels.into());
    for _ in 0..levels {
        branch.push(TxMerkleNode::from_byte_array(take(bytes)?));
    }
    // After the version comes the count of inputs; a zero there marks a transaction with witnesses, or one without inputs.
    if bytes.get(4) == Some(&0) {
        return Err(MalformedProof::Transaction);
    }
    // Scripts and counts are bounded by what is there.
    let (within, cut) = match bytes.split_at_checked(MAX_TRANSACTION_BYTES) {
        Some((within, _)) => (within, true),
        None => (*bytes, false),
    };
    let mut rest = within;
    let transaction = Transaction::consensus_decode_from_finite_reader(&mut rest).map_err(|_| match cut {
        true => MalformedProof::TooManyBytes { bytes: bytes.len() },
        false => MalformedProof::Transaction,
    })?;
    let length = within.len() - rest.len();
    *bytes = &bytes[length..];
    Ok((branch, transaction, length))
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], MalformedProof> {
    let (head, rest) = bytes.split_first_chunk().ok_or(MalformedProof::Short)?;
    *bytes = rest;
    Ok(*head)
}

/// Appends Bitcoin's serialisation.
fn put(value: &impl Encodable, out: &mut Vec<u8>) {
    value.consensus_encode(out).expect("writing to a vector does not fail");
}

fn stripped(transaction: &Transaction) -> Transaction {
    let mut transaction = transaction.clone();
    transaction.input.iter_mut().for_each(|input| input.witness = Witness::new());
    transaction
}

fn leaf(txid: Txid) -> TxMerkleNode {
    TxMerkleNode::from_raw_hash(txid.to_raw_hash())
}

/// The siblings on the way up from the leaf at `index`; an odd level repeats its last node.
fn branch_of(mut level: Vec<TxMerkleNode>, mut index: usize) -> Vec<TxMerkleNode> {
    let mut branch = Vec::new();
    while level.len() > 1 {
        branch.push(*level.get(index ^ 1).unwrap_or(&level[index]));
        level = level.chunks(2).map(|pair| parent(&pair[0], pair.last().unwrap_or(&pair[0]))).collect();
        index /= 2;
    }
    branch
}

/// Checks that a branch leads from a transaction to `root`.
fn climb(txid: Txid, index: u32, branch: &[TxMerkleNode], root: TxMerkleNode) -> Result<(), InvalidProof> {
    let mut node = leaf(txid);
    for (level, sibling) in branch.iter().enumerate() {
        let right = index >> level & 1 == 1;
        if right && *sibling == node {
            return Err(InvalidProof::RepeatedNode { level });
        }
        node = if right { parent(sibling, &node) } else { parent(&node, sibling) };
    }
    if node != root {
        return Err(InvalidProof::Root { txid, got: node, root });
    }
    Ok(())
}

fn parent(left: &TxMerkleNode, right: &TxMerkleNode) -> TxMerkleNode {
    let mut engine = sha256d::Hash::engine();
    engine.input(left.as_byte_array());
    engine.input(right.as_byte_array());
    TxMerkleNode::from_raw_hash(sha256d::Hash::from_engine(engine))
}

#[cfg(test)]
mod tests;
