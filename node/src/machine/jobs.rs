//! Work that takes too long for [`Node::handle`](super::Node::handle): pure functions of a job and a state, run on any
//! thread by the shell and at virtual times by the simulator.

use std::sync::Arc;

use bitcoin::block::Header;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::{Amount, BlockHash, ScriptBuf, Transaction};
use bytes::Bytes;
use causeway_chainspec::{ChainId, Height, Params};
use causeway_consensus::assemble::assemble_block;
use causeway_consensus::bft::{CertificateError, CheckedMessage, CommitCertificate, Message, Unsigned, ValidatorSet};
use causeway_consensus::peg::evidence::PegIn;
use causeway_consensus::{
    ChainView, CheckedBlock, ConnectError, InvalidBlock, ResolveError, ScriptCache, StateFault, Tip, Workers,
    check_block, connect_block, parse_block, resolve,
};

use super::claims::{Standing, standing};
use super::event::Verdict;
use crate::mempool::{self, CheckError, Checked, CoinRequest, Reader, Reject};
use crate::wire::{FinalBlock, decode_claim, decode_transactions};

/// A block to judge by the rules.
#[derive(Clone, Debug)]
pub struct ValidateJob {
    /// The block.
    pub bytes: Bytes,
    /// What is said to make it final, to be verified first.
    pub proof: Option<Proof>,
}

/// A certificate that makes a block final, if it is right.
#[derive(Clone, Debug)]
pub struct Proof {
    /// The certificate.
    pub certificate: CommitCertificate,
    /// The chain.
    pub chain: ChainId,
    /// The validators of the height.
    pub set: ValidatorSet,
    /// The height.
    pub height: Height,
}

impl Proof {
    /// Checks that the certificate makes the block with this serialised header final.
    fn verify(&self, block: &[u8]) -> Result<(), CertificateError> {
        // Bytes without a header have no id, so they are not those of the certificate.
        let hash = block_hash(block).unwrap_or_else(BlockHash::all_zeros);
        self.certificate.verify(self.chain, &self.set, self.height, hash)
    }
}

/// Returns the id of a serialised block; `None` if there is no header.
pub(super) fn block_hash(block: &[u8]) -> Option<BlockHash> {
    block.get(..Header::SIZE).map(BlockHash::hash)
}

impl ValidateJob {
    /// Takes the block through the whole pipeline on top of `view`, until the job of `workers` is cancelled. Calls `matched` as
    /// soon as it is certain that the block's content is that of its header: `is_altered` is said of it no more.
    ///
    /// # Errors
    /// Only if the state cannot be read.
    pub fn run(
        self,
        params: &Params,
        view: &impl ChainView,
        workers: &Workers,
        known: &ScriptCache,
        matched: impl FnOnce(),
    ) -> Result<Verdict, StateFault> {
        if let Err(not_ready) = workers.still_wanted() {
            return Ok(Verdict::NotReady(not_ready));
        }
        if let Some(Err(error)) = self.proof.as_ref().map(|proof| proof.verify(&self.bytes)) {
            return Ok(Verdict::Unproven(error));
        }
        let checked = match parse_block(self.bytes.to_vec()).and_then(|block| check_block(block, params)) {
            Ok(checked) => checked,
            Err(invalid) => return Ok(Verdict::Invalid(invalid)),
        };
        matched();
        if let Err(not_ready) = workers.still_wanted() {
            return Ok(Verdict::NotReady(not_ready));
        }
        let resolved = match resolve(checked, view) {
            Ok(resolved) => resolved,
            Err(ResolveError::Invalid(invalid)) => return Ok(Verdict::Invalid(invalid)),
            Err(ResolveError::NotReady(not_ready)) => return Ok(Verdict::NotReady(not_ready)),
            Err(ResolveError::Fault(fault)) => return Err(fault),
        };
        match connect_block(resolved, workers, Some(known)) {
            Ok(connected) => Ok(Verdict::Valid { bytes: self.bytes, connected: Arc::new(connected) }),
            Err(ConnectError::Invalid(invalid)) => Ok(Verdict::Invalid(invalid)),
            Err(ConnectError::NotReady(not_ready)) => Ok(Verdict::NotReady(not_ready)),
            Err(ConnectError::Fault(fault)) => Err(fault),
        }
    }
}

/// A final block to put back where the disk has lost it.
#[derive(Clone, Debug)]
pub struct FillJob {
    /// What a peer says that it is.
    pub block: FinalBlock,
    /// What is said to make it final.
    pub proof: Proof,
}

impl FillJob {
    /// Returns the block if its certificate makes it final and its body is that of its header. That it keeps the rules was
    /// found when it was committed.
    pub fn check(&self, params: &Params) -> Option<CheckedBlock> {
        self.proof.verify(&self.block.block).ok()?;
        parse_block(self.block.block.to_vec()).and_then(|block| check_block(block, params)).ok()
    }
}

/// A block to put together, and to judge like any other.
#[derive(Clone, Debug)]
pub struct AssembleJob {
    /// What it stands on.
    pub parent: Arc<Tip>,
    /// Its time, in seconds of Unix time.
    pub time: u32,
    /// What its transactions pay.
    pub fees: Amount,
    /// Who gets it.
    pub fee_script: ScriptBuf,
    /// Its transactions, parents before children.
    pub transactions: Vec<Transaction>,
}

impl AssembleJob {
    /// Assembles the block and takes it through the whole pipeline, until the job of `workers` is cancelled.
    ///
    /// # Errors
    /// Only if the state cannot be read.
    pub fn run(
        self,
        params: &Params,
        view: &impl ChainView,
        workers: &Workers,
        known: &ScriptCache,
    ) -> Result<Verdict, StateFault> {
        let block = assemble_block(&self.parent, self.time, self.fees, self.fee_script, self.transactions);
        ValidateJob { bytes: serialize(&block).into(), proof: None }.run(params, view, workers, known, || {})
    }
}

/// Transactions to check, one after the other.
#[derive(Clone, Debug)]
pub struct CheckJob {
    /// The transactions, as the pool has seen them.
    pub requests: Vec<CoinRequest>,
}

impl CheckJob {
    /// Reads the coins of each transaction, and checks it.
    ///
    /// # Errors
    /// Only if the state cannot be read, or Bitcoin Core's library fails where it cannot.
    pub fn run(self, view: &impl ChainView) -> Result<Vec<Result<Box<Checked>, Reject>>, StateFault> {
        let check = |request: CoinRequest| match request.resolve(view).and_then(|job| job.run()) {
            Ok(checked) => Ok(Ok(Box::new(checked))),
            Err(CheckError::Rejected(reject)) => Ok(Err(reject)),
            Err(CheckError::Fault(fault)) => Err(fault),
        };
        self.requests.into_iter().map(check).collect()
    }
}

/// Signatures of a consensus message to check.
#[derive(Clone, Debug)]
pub struct VerifyJob {
    /// The message.
    pub message: Message,
    /// The chain.
    pub chain: ChainId,
    /// Those who may have signed it.
    pub set: ValidatorSet,
}

impl VerifyJob {
    /// Checks the message: some 40 us a signature, of which it has one, or up to 256.
    ///
    /// # Errors
    /// It is not what members of the set signed.
    pub fn run(self) -> Result<CheckedMessage, Unsigned> {
        self.message.check(self.chain, &self.set)
    }
}

/// A gossip message of many bytes to read: everything is decoded and hashed that is in it.
#[derive(Clone, Debug)]
pub enum ReadJob {
    /// Of the topic of transactions.
    Transactions {
        /// The message.
        bytes: Bytes,
        /// The pool's.
        reader: Arc<Reader>,
    },
    /// Of the topic of claims.
    Claim {
        /// The message.
        bytes: Bytes,
        /// The tip to check its proof against.
        tip: Arc<Tip>,
        /// This machine's clock, in seconds of Unix time.
        time: u32,
    },
}

/// What a gossip message says.
#[derive(Debug)]
pub enum ReadMessage {
    /// Nothing.
    Malformed,
    /// These transactions, and what each says by itself.
    Transactions(Vec<(Arc<Transaction>, Result<mempool::Read, Reject>)>),
    /// This deposit, and what the rules say of it.
    Claim(Box<PegIn>, Standing),
}

impl ReadJob {
    /// Reads the message: up to some milliseconds.
    pub fn run(self) -> ReadMessage {
        let read = match self {
            Self::Transactions { bytes, reader } => decode_transactions(bytes).ok().and_then(|list| {
                let read = |bytes: &Bytes| {
                    let transaction = Arc::new(deserialize::<Transaction>(bytes).ok()?);
                    Some((Arc::clone(&transaction), reader.read(transaction)))
                };
                list.iter().map(read).collect::<Option<Vec<_>>>().map(ReadMessage::Transactions)
            }),
            Self::Claim { bytes, tip, time } => decode_claim(&bytes).map(|peg_in| {
                let standing = standing(&tip, time, &peg_in);
                ReadMessage::Claim(Box::new(peg_in), standing)
            }),
        };
        read.unwrap_or(ReadMessage::Malformed)
    }
}

/// Whether a broken rule says nothing of the block that the header names, only of whoever sent these bytes.
pub(super) fn is_altered(rule: &InvalidBlock) -> bool {
    rule.is_mutation()
}
