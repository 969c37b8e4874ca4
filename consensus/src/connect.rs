//! The rules that need the chain: a pure function of a resolved block.

use std::sync::Arc;

use bitcoin::consensus::serialize;
use bitcoin::{Amount, OutPoint, ScriptBuf, TxIn};
use causeway_chainspec::{Height, PegScript};
use rayon::prelude::*;

use crate::block::{Block, Tx};
use crate::check::PEG_TRANSACTION_INDEX;
use crate::coin::{Coin, is_unspendable};
use crate::commitment::LtHash;
use crate::error::{ConnectError, InvalidBlock, InvalidTransaction, StateFault};
use crate::id_map::IdSet;
use crate::peg::error::InvalidPeg;
use crate::peg::history::PegEvent;
use crate::peg::record::RecordChanges;
use crate::peg::step::requests_of;
use crate::peg::{Evidence, PegContext, PegStep, Step};
use crate::resolve::ResolvedBlock;
use crate::script::{self, ScriptCache};
use crate::sigops::{self, MAX_SIGOPS_COST, WITNESS_SCALE_FACTOR};
use crate::spend::{SpendContext, check_lock_time, check_spends};
use crate::tip::Tip;
use crate::workers::Workers;

pub use crate::spend::COINBASE_MATURITY;

/// A block that breaks no rule, and what it does to the state.
#[derive(Debug, Clone)]
pub struct ConnectedBlock {
    block: Block,
    parent: Arc<Tip>,
    tip: Arc<Tip>,
    delta: StateDelta,
    fees: Amount,
    peg_changes: RecordChanges,
    peg_events: Vec<PegEvent>,
    evidence: Option<Evidence>,
}

impl ConnectedBlock {
    /// The block.
    pub fn block(&self) -> &Block {
        &self.block
    }

    /// The head of the chain before this block.
    pub fn parent(&self) -> &Tip {
        &self.parent
    }

    /// The head of the chain once this block is committed.
    pub fn tip(&self) -> &Arc<Tip> {
        &self.tip
    }

    /// What it spends and creates.
    pub fn delta(&self) -> &StateDelta {
        &self.delta
    }

    /// The fees of its transactions, which its coinbase claims.
    pub fn fees(&self) -> Amount {
        self.fees
    }

    /// The records of the peg that it changes.
    pub fn peg_changes(&self) -> &RecordChanges {
        &self.peg_changes
    }

    /// What it does to deposits, requests and batches.
    pub fn peg_events(&self) -> &[PegEvent] {
        &self.peg_events
    }

    /// What its peg transaction says; `None` if it has none.
    pub fn evidence(&self) -> Option<&Evidence> {
        self.evidence.as_ref()
    }
}

/// What a block does to the coins. Coins that it creates and spends itself appear in neither list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateDelta {
    /// The coins that leave the state, in block order.
    pub spent: Vec<(OutPoint, Coin)>,
    /// The coins that enter it, in block order.
    pub created: Vec<(OutPoint, Coin)>,
}

impl StateDelta {
    /// Returns each coin that changes: the coin that enters, or None for one that leaves.
    pub fn changes(&self) -> impl Iterator<Item = (&OutPoint, Option<&Coin>)> {
        let created = self.created.iter().map(|(outpoint, coin)| (outpoint, Some(coin)));
        created.chain(self.spent.iter().map(|(outpoint, _)| (outpoint, None)))
    }
}

/// Returns the block as a connected one, if it breaks no rule. Reads nothing and writes nothing.
///
/// Scripts are verified, but for transactions that are `known` to have valid ones, and the state commitment is brought
/// forward, on the threads of `workers`. Once the job of these is cancelled no further input is begun.
///
/// # Errors
/// [`InvalidBlock`], the first rule broken in the order of the code; of several failing inputs always the first of the
/// block. [`NotReady`](crate::error::NotReady) if the job is cancelled before all is done. A fault only if Bitcoin Core's
/// library fails where it cannot.
pub fn connect_block(
    resolved: ResolvedBlock,
    workers: &Workers,
    known: Option<&ScriptCache>,
) -> Result<ConnectedBlock, ConnectError> {
    connect(resolved, workers, |resolved| script::verify_block(resolved, known, workers))
}

/// Connects a block that is final and stored: its scripts were verified before it was.
///
/// # Errors
/// [`InvalidBlock`] as [`connect_block`], but for scripts.
#[cfg(feature = "store")]
pub(crate) fn reconnect_block(resolved: ResolvedBlock, workers: &Workers) -> Result<ConnectedBlock, ConnectError> {
    connect(resolved, workers, |_| Ok(()))
}

fn connect(
    resolved: ResolvedBlock,
    workers: &Workers,
    verify_scripts: impl FnOnce(&ResolvedBlock) -> Result<(), ConnectError> + Send,
) -> Result<ConnectedBlock, ConnectError> {
    workers.still_wanted()?;
    check_context(&resolved)?;
    let (peg, evidence) = step_peg(&resolved)?;
    let fees = check_transactions(&resolved)?;
    check_coinbase_value(&resolved, fees)?;
    let created = created_coins(&resolved);
    let hash = || workers.still_wanted().map(|()| hash_after(&resolved, &created));
    let (verdict, coins) = workers.run(|| rayon::join(|| verify_scripts(&resolved), hash));
    verdict?;
    let coins = coins?;

    let height = resolved.height();
    let (checked, parent, spent) = resolved.into_parts();
    let block = checked.into_block();
    let spent = inputs(&block).zip(spent).filter(|(_, spent)| !spent.within_block);
    let delta =
        StateDelta { spent: spent.map(|(input, spent)| (input.previous_output, spent.coin)).collect(), created };
    let PegStep { state, changes: peg_changes, events: peg_events } = peg;
    if evidence.is_some() && !state.accounts().balance() {
        return Err(StateFault::PegAccounts { height }.into());
    }
    let tip = Arc::new(parent.child(height, block.header(), coins, state));
    Ok(ConnectedBlock { block, parent, tip, delta, fees, peg_changes, peg_events, evidence })
}

/// The rules about the header and the coinbase that need the parent.
fn check_context(resolved: &ResolvedBlock) -> Result<(), InvalidBlock> {
    let (block, parent, height) = (resolved.checked().block(), resolved.parent(), resolved.height());
    let time = block.header().time;
    let median = parent.median_time_past();
    if time <= median {
        return Err(InvalidBlock::TimeNotAfterMedian { time, median });
    }
    if time < parent.time() {
        return Err(InvalidBlock::TimeBeforeParent { time, parent: parent.time() });
    }
    let coinbase = &block.transactions()[0].transaction().input[0];
    if !coinbase.script_sig.as_bytes().starts_with(height_push(height).as_bytes()) {
        return Err(InvalidBlock::CoinbaseHeight { height });
    }
    let (committed, actual) = (resolved.checked().state_commitment(), parent.state_commitment());
    if committed != actual {
        return Err(InvalidBlock::StateCommitmentMismatch { committed, actual });
    }
    Ok(())
}

/// Returns what the scriptSig of the coinbase at `height` begins with (BIP-0034; Bitcoin Core: `CScript() << nHeight`).
pub fn height_push(height: Height) -> ScriptBuf {
    bitcoin::script::Builder::new().push_int(i64::from(height.to_u32())).into_script()
}

/// Returns the peg transaction: the one that spends the reserve coin, at index 1.
fn peg_transaction(resolved: &ResolvedBlock) -> Option<&Tx> {
    let tx = resolved.checked().block().transactions().get(PEG_TRANSACTION_INDEX)?;
    // The coinbase spends nothing, so the first coin is that of this transaction's first input.
    let coin = &resolved.spent().first()?.coin;
    let reserve = PegScript::of(&coin.output.script_pubkey) == Some(Ok(PegScript::Reserve));
    reserve.then_some(tx)
}

/// The rules of the peg (PEG section 2). Returns what the block does to it, and the evidence for it.
fn step_peg(resolved: &ResolvedBlock) -> Result<(PegStep, Option<Evidence>), InvalidBlock> {
    let block = resolved.checked().block();
    let (height, time) = (resolved.height(), block.header().time);
    let peg_tx = peg_transaction(resolved);
    let evidence = match peg_tx {
        Some(tx) => Some(read_evidence(tx)?),
        None => None,
    };
    let mut step = Step::new(resolved.parent().peg(), PegContext { height, time });
    step.apply(evidence.clone().unwrap_or_default())?;
    if let Some(tx) = peg_tx {
        let expected = step.transaction().map(|transaction| transaction.compute_txid());
        let expected = expected.filter(|expected| *expected != tx.txid());
        if let Some(expected) = expected {
            return Err(InvalidPeg::WrongTransaction { got: tx.txid(), expected }.into());
        }
    }
    let first = if peg_tx.is_some() { PEG_TRANSACTION_INDEX + 1 } else { 1 };
    let others = (0u32..).zip(block.transactions()).skip(first);
    let requests = others.flat_map(|(index, tx)| requests_of(tx.transaction(), tx.txid(), height, index)).collect();
    let step = step.finish(peg_tx.map(|tx| (tx.transaction(), tx.txid())), requests);
    Ok((step, evidence))
}

/// Reads the evidence of a peg transaction, which carries nothing else.
fn read_evidence(tx: &Tx) -> Result<Evidence, InvalidPeg> {
    let transaction = tx.transaction();
    for (input, txin) in transaction.input.iter().enumerate() {
        if !txin.script_sig.is_empty() || (input > 0 && !txin.witness.is_empty()) {
            return Err(InvalidPeg::StrayData { input });
        }
    }
    let witness = &transaction.input[0].witness;
    let bytes = witness.nth(0).filter(|_| witness.len() == 1).ok_or(InvalidPeg::EvidenceForm)?;
    let evidence = Evidence::decode(bytes).ok_or(InvalidPeg::EvidenceForm)?;
    let (bytes, max) = (serialize(transaction).len(), evidence.bytes_max());
    if bytes > max {
        return Err(InvalidPeg::TooLarge { bytes, max });
    }
    Ok(evidence)
}

/// The rules about values, locks, maturity and sigops. Returns the block's fees.
fn check_transactions(resolved: &ResolvedBlock) -> Result<Amount, InvalidBlock> {
    let checked = resolved.checked();
    let context = SpendContext { height: resolved.height(), median_time: resolved.parent().median_time_past() };
    let peg = peg_transaction(resolved).is_some();
    let mut spent = resolved.spent();
    let mut fees = Amount::ZERO;
    let mut sigops_cost = 0usize;
    for (index, (tx, legacy)) in checked.block().transactions().iter().zip(checked.legacy_sigops()).enumerate() {
        let invalid = |rule| InvalidBlock::Transaction { index, txid: tx.txid(), rule };
        check_lock_time(tx.transaction(), context).map_err(invalid)?;
        sigops_cost += legacy * WITNESS_SCALE_FACTOR;
        if index == PEG_TRANSACTION_INDEX && peg {
            // It is the one transaction that its evidence demands: its coins, its values and its fee of 0 are right.
            spent = &spent[tx.transaction().input.len()..];
        } else if index > 0 {
            if index == PEG_TRANSACTION_INDEX && creates_reserve(tx) {
                return Err(invalid(InvalidTransaction::CreatesReserve { vout: 0 }));
            }
            let (coins, rest) = spent.split_at(tx.transaction().input.len());
            spent = rest;
            let fee = check_spends(tx.transaction(), coins.iter().map(|spent| &spent.coin), context, |height| {
                resolved.median_time(height)
            })
            .map_err(invalid)?;
            fees += fee;
            if fees > Amount::MAX_MONEY {
                return Err(InvalidBlock::FeesOutOfRange);
            }
            let pairs = tx.transaction().input.iter().zip(coins);
            sigops_cost += pairs.map(|(input, spent)| sigops::input_cost(input, &spent.coin)).sum::<usize>();
        }
        if sigops_cost > MAX_SIGOPS_COST {
            return Err(InvalidBlock::TooManySigops { max: MAX_SIGOPS_COST });
        }
    }
    Ok(fees)
}

/// Whether the first output is a reserve coin.
fn creates_reserve(tx: &Tx) -> bool {
    let first = tx.transaction().output.first();
    first.is_some_and(|output| PegScript::of(&output.script_pubkey) == Some(Ok(PegScript::Reserve)))
}

fn check_coinbase_value(resolved: &ResolvedBlock, fees: Amount) -> Result<(), InvalidBlock> {
    let coinbase = resolved.checked().block().transactions()[0].transaction();
    let claimed = coinbase.output.iter().map(|output| output.value).sum();
    if claimed != fees {
        return Err(InvalidBlock::CoinbaseValue { claimed, fees });
    }
    Ok(())
}

/// The inputs of a block that spend coins: all but the coinbase's, in block order.
fn inputs(block: &Block) -> impl Iterator<Item = &TxIn> {
    block.transactions().iter().skip(1).flat_map(|tx| &tx.transaction().input)
}

/// Returns the coins that the block creates and does not spend itself, in block order.
fn created_coins(resolved: &ResolvedBlock) -> Vec<(OutPoint, Coin)> {
    let block = resolved.checked().block();
    let within = inputs(block).zip(resolved.spent()).filter(|(_, spent)| spent.within_block);
    let spent_within: IdSet<OutPoint> = within.map(|(input, _)| input.previous_output).collect();
    let mut created = Vec::new();
    for (index, tx) in block.transactions().iter().enumerate() {
        for (vout, output) in (0u32..).zip(&tx.transaction().output) {
            let outpoint = OutPoint { txid: tx.txid(), vout };
            if !is_unspendable(&output.script_pubkey) && !spent_within.contains(&outpoint) {
                let coin = Coin { output: output.clone(), height: resolved.height(), coinbase: index == 0 };
                created.push((outpoint, coin));
            }
        }
    }
    created
}

/// Returns the hash of the coins after the block, computed on rayon's current threads.
fn hash_after(resolved: &ResolvedBlock, created: &[(OutPoint, Coin)]) -> LtHash {
    let spent: Vec<(&OutPoint, &Coin)> = inputs(resolved.checked().block())
        .zip(resolved.spent())
        .filter(|(_, spent)| !spent.within_block)
        .map(|(input, spent)| (&input.previous_output, &spent.coin))
        .collect();
    let created = created.par_iter().map(|(outpoint, coin)| (outpoint, coin));
    let (added, removed) = rayon::join(|| LtHash::of(created), || LtHash::of(spent.into_par_iter()));
    resolved.parent().coins().clone().plus(&added).minus(&removed)
}
