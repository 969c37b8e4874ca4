//! Building a peg transaction out of what a proposer has found.

use std::collections::BTreeSet;

use bitcoin::Transaction;
use bitcoin::consensus::serialize;

use super::error::InvalidPeg;
use super::evidence::{FeeRateQuote, PEG_TRANSACTION_BYTES_MAX, PegIn, SINGLE_PROOF_BYTES_MAX};
use super::header_tree::{BareHeader, HeaderRun};
use super::proof::InclusionProof;
use super::state::PegState;
use super::step::{PegContext, Step};

/// Bytes of a peg transaction that headers and proofs leave to the rest: the requests of a batch (at most 224 of 41), marks,
/// a quote, and the payments of the deposits, which their proofs are longer than.
const BESIDE_PROOFS: usize = 20_000;

/// A deposit with a long proof comes first in one block of so many.
const LONG_EVERY: u32 = 8;

/// Most headers in one block, 48 bytes each: the most that a branch can need beside nothing else.
pub const HEADERS_MAX: usize = 2_040;

/// What a proposer might put into its block.
#[derive(Debug, Clone, Default)]
pub struct Candidates {
    /// New Bitcoin headers, at most [`HEADERS_MAX`].
    pub headers: Option<HeaderRun>,
    /// Versions of batches that are in a block.
    pub confirmed: Vec<InclusionProof>,
    /// Foreign spends of the peg's coins.
    pub spent: Vec<InclusionProof>,
    /// Deposits.
    pub peg_ins: Vec<PegIn>,
    /// The proposer's feerate.
    pub fee_rate: Option<FeeRateQuote>,
    /// Open batches, by number, that are not to be replaced: a version of them is in a block already.
    pub keep: BTreeSet<u32>,
}

/// Returns the peg transaction of the block on top of `state`; `None` if nothing is to be said.
///
/// Every item that the rules permit goes in as far as there is room; what they do not permit, or not yet, is left out. A
/// batch is opened if one is due, and batches whose time has come are replaced.
///
/// A deposit whose proof is too long beside others has every eighth block to itself.
pub fn propose(state: &PegState, context: PegContext, candidates: Candidates) -> Option<Transaction> {
    let fits = |step: &Step, transaction: &Transaction| serialize(transaction).len() <= step.evidence().bytes_max();
    let candidates = match candidates.peg_ins.iter().find(|peg_in| is_long(peg_in)) {
        Some(long) if context.height.to_u32().is_multiple_of(LONG_EVERY) => {
            Candidates { confirmed: Vec::new(), spent: Vec::new(), peg_ins: vec![long.clone()], ..candidates }
        }
        _ => candidates,
    };
    let without_headers = Candidates { headers: None, ..candidates.clone() };
    let without_everything = Candidates { keep: candidates.keep.clone(), ..Candidates::default() };
    // A long branch beside a large batch may be too much for one block: the batch comes first, it cannot be left out.
    for candidates in [candidates, without_headers] {
        let step = fill(state, context, candidates);
        match step.transaction() {
            Some(transaction) if !fits(&step, &transaction) => {}
            transaction => return transaction,
        }
    }
    fill(state, context, without_everything).transaction()
}

fn fill(state: &PegState, context: PegContext, candidates: Candidates) -> Step {
    let Candidates { headers, mut confirmed, spent, mut peg_ins, fee_rate, keep } = candidates;
    let mut step = Step::new(state, context);
    if let Some(run) = headers.filter(|run| run.headers.len() <= HEADERS_MAX) {
        let _ = step.headers(run);
    }
    let headers = step.evidence().headers.as_ref().map_or(0, |run| run.headers.len());
    let mut room = Room { used: headers * BareHeader::SIZE, proofs: 0, full: false };
    let number = |proof: &InclusionProof| {
        let txid = proof.transaction.compute_txid();
        state.open_batches().find(|batch| batch.version(&txid).is_some()).map(|batch| batch.number)
    };
    confirmed.sort_by_cached_key(number);
    for proof in confirmed {
        room.take(&mut step, encoded(&proof), |step| step.confirm(proof));
    }
    for proof in spent {
        room.take(&mut step, encoded(&proof), |step| step.spent(proof));
    }
    peg_ins.sort_by_cached_key(PegIn::outpoint);
    for peg_in in peg_ins {
        room.take(&mut step, length(&peg_in), |step| step.peg_in(peg_in));
    }
    if let Some(quote) = fee_rate {
        let _ = step.fee_rate(quote);
    }
    step.agree();
    for number in state.open_batches().map(|batch| batch.number).filter(|number| !keep.contains(number)) {
        let _ = step.replace(number);
    }
    step.open();
    step
}

fn length(peg_in: &PegIn) -> usize {
    let mut bytes = Vec::new();
    peg_in.encode(&mut bytes);
    bytes.len()
}

/// Whether a deposit only fits in alone.
fn is_long(peg_in: &PegIn) -> bool {
    length(peg_in) > PEG_TRANSACTION_BYTES_MAX - BESIDE_PROOFS
}

fn encoded(proof: &InclusionProof) -> usize {
    let mut bytes = Vec::new();
    proof.encode(&mut bytes);
    bytes.len()
}

/// What is left for proofs.
struct Room {
    used: usize,
    proofs: usize,
    full: bool,
}

impl Room {
    /// Applies an item with a proof of so many bytes, if there is room. One that is too long beside others goes in alone.
    fn take(&mut self, step: &mut Step, bytes: usize, apply: impl FnOnce(&mut Step) -> Result<(), InvalidPeg>) {
        let fits = self.used + bytes <= PEG_TRANSACTION_BYTES_MAX - BESIDE_PROOFS;
        let alone = !fits && self.proofs == 0 && bytes <= SINGLE_PROOF_BYTES_MAX - PEG_TRANSACTION_BYTES_MAX;
        if self.full || !(fits || alone) {
            return;
        }
        if apply(step).is_ok() {
            self.used += bytes;
            self.proofs += 1;
            self.full = alone;
        }
    }
}
