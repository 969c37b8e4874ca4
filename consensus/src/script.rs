//! Whether each input may spend its coin.
//!
//! Three forms go straight to libsecp256k1: Taproot's key path, P2WPKH, and P2PKH with its two pushes. Their signatures
//! are extracted as jobs of (signature, message, key), with no curve point touched, and verified in chunks. Every other
//! input goes to Bitcoin Core's interpreter. Both give Core's verdict under the consensus flags (P2SH, DERSIG,
//! NULLDUMMY, CHECKLOCKTIMEVERIFY, CHECKSEQUENCEVERIFY, WITNESS, TAPROOT), which are all active from block 0.

mod classify;
mod job;
mod kernel;
mod known;
pub mod sighash;

use std::sync::OnceLock;

use bitcoin::{Transaction, TxOut};
use causeway_chainspec::PegScript;
use rayon::prelude::*;

use crate::error::{ConnectError, InvalidBlock, InvalidTransaction, NotReady, StateFault};
use crate::resolve::ResolvedBlock;
use crate::workers::Workers;

use classify::{Route, classify};
use kernel::KernelTransaction;
use sighash::Midstates;

pub use known::{ScriptCache, VerifiedScripts};

/// Inputs of quick forms that one task verifies: some milliseconds of work, so that no thread waits long for the last task.
/// Each of the others, which may take seconds, is a task of its own.
const INPUTS_PER_TASK: usize = 64;

/// A transaction with the outputs that it spends, ready to have its inputs verified.
pub struct PreparedTransaction<'a> {
    transaction: &'a Transaction,
    /// Serialised with witnesses.
    bytes: &'a [u8],
    /// One for each input.
    spent: Vec<&'a TxOut>,
    midstates: Midstates,
    /// Made when the first input needs it.
    kernel: OnceLock<Result<KernelTransaction, StateFault>>,
}

/// What came of one input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may spend its coin.
    Valid,
    /// It may not.
    Invalid,
}

/// Who judges an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judge {
    /// Our own rules for the three forms, and libsecp256k1.
    Direct,
    /// Bitcoin Core's interpreter.
    Kernel,
}

/// Why the scripts of a transaction are not verified.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// An input may not spend its coin.
    #[error("input {input}: script verification failed")]
    Invalid {
        /// The first such input.
        input: usize,
    },
    /// We failed.
    #[error(transparent)]
    Fault(#[from] StateFault),
}

impl<'a> PreparedTransaction<'a> {
    /// Prepares `transaction`, of which `bytes` are the serialisation with witnesses and `spent` the outputs that its
    /// inputs spend, in their order.
    ///
    /// # Panics
    /// If there are not as many outputs as inputs.
    pub fn new(transaction: &'a Transaction, bytes: &'a [u8], spent: Vec<&'a TxOut>) -> Self {
        assert_eq!(transaction.input.len(), spent.len(), "one spent output for each input");
        let midstates = Midstates::new(transaction, &spent);
        Self { transaction, bytes, spent, midstates, kernel: OnceLock::new() }
    }

    /// Returns the verdict on one input, and who gave it.
    ///
    /// # Errors
    /// If Bitcoin Core's library fails, which no input can bring about.
    ///
    /// # Panics
    /// If there is no such input.
    pub fn verify_input(&self, input: usize) -> Result<(Verdict, Judge), StateFault> {
        let (valid, judge) = match classify(self, input) {
            Route::Job(job) => (job.verify(), Judge::Direct),
            Route::Refused => (false, Judge::Direct),
            Route::Kernel => (self.verify_by_kernel(input)?, Judge::Kernel),
        };
        Ok((if valid { Verdict::Valid } else { Verdict::Invalid }, judge))
    }

    /// Verifies every input, in their order on this thread.
    ///
    /// # Errors
    /// The first input that may not spend its coin, or the failure of Bitcoin Core's library, which no input can bring
    /// about.
    pub fn verify(&self) -> Result<VerifiedScripts, ScriptError> {
        let inputs: Vec<_> = (0..self.spent.len()).map(|input| (self, 0, input)).collect();
        match verify_task(&inputs, || Ok::<_, StateFault>(()))? {
            None => Ok(VerifiedScripts::of(self.bytes)),
            Some((_, input)) => Err(ScriptError::Invalid { input }),
        }
    }

    fn verify_by_kernel(&self, input: usize) -> Result<bool, StateFault> {
        match self.kernel.get_or_init(|| KernelTransaction::new(self.bytes, &self.spent)) {
            Ok(transaction) => transaction.verify(input),
            Err(_) => Err(StateFault::Kernel { what: "a decoded transaction" }),
        }
    }
}

/// Verifies every input of a block but the coinbase's, the peg transaction's and those of known transactions, on rayon's
/// current threads. A coin of witness version 16 asks for no particular witness, and only the peg transaction spends them.
///
/// # Errors
/// The first failing input of the block, or that the job of `workers` was cancelled before it was known.
pub(crate) fn verify_block(
    resolved: &ResolvedBlock,
    known: Option<&ScriptCache>,
    workers: &Workers,
) -> Result<(), ConnectError> {
    let block = resolved.checked().block();
    let mut coins = resolved.spent();
    let with_coins: Vec<_> = (block.transactions().iter().enumerate().skip(1))
        .map(|(index, tx)| {
            let (own, rest) = coins.split_at(tx.transaction().input.len());
            coins = rest;
            (index, tx, own)
        })
        .filter(|(_, _, coins)| !coins.iter().any(|spent| PegScript::of(&spent.coin.output.script_pubkey).is_some()))
        .filter(|(_, tx, _)| known.is_none_or(|known| !known.contains(&tx.wtxid())))
        .collect();
    let prepared: Vec<PreparedTransaction<'_>> = with_coins
        .par_iter()
        .map(|(index, tx, coins)| {
            workers.still_wanted()?;
            let spent = coins.iter().map(|spent| &spent.coin.output).collect();
            Ok(PreparedTransaction::new(tx.transaction(), block.transaction_bytes(*index), spent))
        })
        .collect::<Result<_, NotReady>>()?;
    let inputs: Vec<Input<'_>> = (with_coins.iter().map(|(index, ..)| *index))
        .zip(&prepared)
        .flat_map(|(index, transaction)| (0..transaction.spent.len()).map(move |input| (transaction, index, input)))
        .collect();

    let tasks: Vec<_> = tasks(&inputs).collect();
    let verify = |task: &&[_]| verify_task(task, || workers.still_wanted().map_err(ConnectError::from)).transpose();
    let failure = tasks.par_iter().with_max_len(1).find_map_first(verify);
    let Some((index, input)) = failure.transpose()? else { return Ok(()) };
    let txid = block.transactions()[index].txid();
    Err(InvalidBlock::Transaction { index, txid, rule: InvalidTransaction::Script { input } }.into())
}

/// What is to be verified: an input of a transaction, which has this index in its block.
type Input<'a> = (&'a PreparedTransaction<'a>, usize, usize);

/// Splits inputs into tasks, in their order.
fn tasks<'a>(inputs: &'a [Input<'a>]) -> impl Iterator<Item = &'a [Input<'a>]> {
    let is_quick = |(transaction, _, input): &Input<'_>| {
        let script = &transaction.spent[*input].script_pubkey;
        let witness = &transaction.transaction.input[*input].witness;
        let by_key = witness.len() - usize::from(witness.taproot_annex().is_some()) <= 1;
        script.is_p2wpkh() || script.is_p2pkh() || script.is_p2tr() && by_key
    };
    inputs.chunk_by(move |a, b| is_quick(a) && is_quick(b)).flat_map(|run| run.chunks(INPUTS_PER_TASK))
}

/// Returns the first failing input among some, as (transaction's index, input's index). Each is begun only if
/// `may_go_on`.
fn verify_task<E: From<StateFault>>(
    task: &[Input<'_>],
    may_go_on: impl Fn() -> Result<(), E>,
) -> Result<Option<(usize, usize)>, E> {
    let mut jobs = Vec::with_capacity(task.len());
    let mut first_failure = None;
    for &(transaction, index, input) in task {
        may_go_on()?;
        let refused = match classify(transaction, input) {
            Route::Job(job) => {
                jobs.push((job, index, input));
                false
            }
            Route::Refused => true,
            Route::Kernel => !transaction.verify_by_kernel(input)?,
        };
        if refused {
            first_failure = Some((index, input));
            break;
        }
    }
    for (job, index, input) in jobs {
        may_go_on()?;
        if !job.verify() {
            return Ok(Some((index, input)));
        }
    }
    Ok(first_failure)
}

#[cfg(test)]
mod tests;
