//! The check of one transaction, on any thread, with everything it needs at hand.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::{Amount, BlockHash, OutPoint, Transaction, TxOut, Txid, Weight, Wtxid};
use causeway_chainspec::{Height, SatPerKvb};
use causeway_consensus::coin::Coin;
use causeway_consensus::script::{PreparedTransaction, ScriptError, VerifiedScripts};
use causeway_consensus::spend::{check_lock_time, check_spends, lock_heights, sigops_cost};
use causeway_consensus::state::{ScriptId, Statistics};
use causeway_consensus::{ChainView, InvalidTransaction, SerializedTransaction, SpendContext, StateFault, Tip};

use super::encoding;
use super::entry::touched_scripts;
use super::policy::{MAX_TX_SIGOPS_COST, adjusted_weight, virtual_size};
use super::reject::{CheckError, Invalid, Named, NotYet, PolicyReject, Reject, ScriptFailure};
use super::replace::Terms;
use super::standard::{check_inputs, check_witnesses};

/// Reads of one transaction's coins before giving up on a chain that grows all the time.
const MAX_READS: usize = 4;

/// Own outputs that are looked up to tell a transaction in the chain from one whose coins are unknown.
const OUTPUTS_LOOKED_UP: usize = 16;

/// A transaction with its ids.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub(super) transaction: Arc<Transaction>,
    pub(super) txid: Txid,
    pub(super) wtxid: Wtxid,
    pub(super) weight: Weight,
    pub(super) entered_s: u64,
    /// Its dust output, if it has one.
    pub(super) dust: Option<u32>,
    /// What its sender permits at most.
    pub(super) max_feerate: Option<SatPerKvb>,
}

impl Subject {
    pub(super) fn named(&self) -> Named {
        Named { txid: self.txid, wtxid: self.wtxid }
    }
}

/// A transaction that has passed a first look and waits for its coins. Send it to where the chain can be read.
#[derive(Debug, Clone)]
pub struct CoinRequest {
    pub(super) subject: Subject,
    /// For each input the output of the pool, or of its package, that it spends, or None for one of the chain.
    pub(super) from_pool: Vec<Option<TxOut>>,
    pub(super) terms: Terms,
    /// Scripts that an earlier check has verified: they need no second one, whatever the tip is.
    pub(super) verified: Option<VerifiedScripts>,
    /// Checks that came too late so far.
    pub(super) late: u8,
}

impl CoinRequest {
    /// The id of the transaction, with witnesses.
    pub fn wtxid(&self) -> Wtxid {
        self.subject.wtxid
    }

    /// Returns the check with all that it needs. The only read, of one state or not at all.
    ///
    /// # Errors
    /// [`NotYet::MissingInput`], [`PolicyReject::AlreadyKnown`], [`NotYet::ChainMoved`]; a fault if the state cannot be
    /// read.
    pub fn resolve(self, view: &impl ChainView) -> Result<CheckJob, CheckError> {
        for _ in 0..MAX_READS {
            let tip = view.tip();
            let context = SpendContext::after(&tip).ok_or(StateFault::HeightExhausted { height: tip.height() })?;
            let outpoints: Vec<OutPoint> = (self.from_pool.iter().zip(&self.subject.transaction.input))
                .filter(|(output, _)| output.is_none())
                .map(|(_, input)| input.previous_output)
                .collect();
            let found = view.coins(&outpoints)?;
            if view.tip().hash() != tip.hash() {
                continue;
            }
            if let Some(place) = found.iter().position(Option::is_none) {
                return Err(self.missing(view, outpoints[place])?.into());
            }
            let mut found = found.into_iter().flatten();
            // An output of the pool would be created in the very block that spends it.
            let of_pool = |output: &TxOut| Coin { output: output.clone(), height: context.height, coinbase: false };
            let coin = |output: &Option<TxOut>| output.as_ref().map(of_pool).or_else(|| found.next());
            let coins: Vec<Coin> = self.from_pool.iter().filter_map(coin).collect();
            // Times below the tip never change.
            let heights = lock_heights(&self.subject.transaction, coins.iter());
            let median_times = heights.iter().copied().zip(view.median_times(&heights)?).collect();
            return Ok(CheckJob { request: self, coins, context, tip: TipFacts::of(&tip), median_times });
        }
        Err(Reject::from(NotYet::ChainMoved).into())
    }

    fn missing(&self, view: &impl ChainView, outpoint: OutPoint) -> Result<Reject, StateFault> {
        let txid = self.subject.txid;
        let outputs = (0..).take(self.subject.transaction.output.len().min(OUTPUTS_LOOKED_UP));
        let own: Vec<OutPoint> = outputs.map(|vout| OutPoint { txid, vout }).collect();
        let known = view.coins(&own)?.iter().any(Option::is_some);
        Ok(if known { PolicyReject::AlreadyKnown.into() } else { NotYet::MissingInput { outpoint }.into() })
    }
}

/// What the pool knows of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TipFacts {
    /// The last block's height.
    pub height: Height,
    /// The last block's id.
    pub hash: BlockHash,
    /// The median of the last eleven block times, in seconds of Unix time.
    pub median_time: u32,
}

impl TipFacts {
    /// Returns the facts about a tip.
    pub fn of(tip: &Tip) -> Self {
        Self { height: tip.height(), hash: tip.hash(), median_time: tip.median_time_past() }
    }

    /// The context of the block on top.
    ///
    /// # Panics
    /// At the last height of a chain.
    pub(super) fn next_block(&self) -> SpendContext {
        let height = self.height.next().expect("the chain has a height left");
        SpendContext { height, median_time: self.median_time }
    }
}

/// A transaction with its coins and the facts of the tip they were read at: the work that belongs on a CPU thread.
#[derive(Debug, Clone)]
pub struct CheckJob {
    request: CoinRequest,
    /// One for each input.
    coins: Vec<Coin>,
    context: SpendContext,
    tip: TipFacts,
    median_times: BTreeMap<Height, u32>,
}

impl CheckJob {
    /// The id of the transaction, with witnesses.
    pub fn wtxid(&self) -> Wtxid {
        self.request.wtxid()
    }

    /// Returns the checked transaction. What costs little comes first, scripts last.
    ///
    /// # Errors
    /// The first rule or policy broken, in the order of the code. A fault only if Bitcoin Core's library fails where it
    /// cannot.
    pub fn run(self) -> Result<Checked, CheckError> {
        let facts = self.look()?;
        self.verify(facts)
    }

    /// Everything but the scripts.
    pub(super) fn look(&self) -> Result<Facts, Reject> {
        let CoinRequest { subject, terms, .. } = &self.request;
        let transaction = &subject.transaction;
        let fee = self.check_rules(transaction)?;
        check_inputs(transaction, &self.coins).map_err(PolicyReject::NonstandardInput)?;
        check_witnesses(transaction, &self.coins)?;
        if subject.dust.is_some() && fee > Amount::ZERO {
            return Err(PolicyReject::DustWithFee.into());
        }
        let cost = sigops_cost(transaction, self.coins.iter());
        if cost > MAX_TX_SIGOPS_COST {
            return Err(PolicyReject::TooManySigops { cost }.into());
        }
        let vsize = virtual_size(subject.weight, cost);
        terms.check(subject.named(), fee, vsize)?;
        Ok(Facts { fee, sigops_cost: cost, vsize, weight: adjusted_weight(subject.weight, cost) })
    }

    /// The scripts.
    pub(super) fn verify(self, facts: Facts) -> Result<Checked, CheckError> {
        let verified = match self.request.verified.clone() {
            Some(verified) => verified,
            None => self.verify_scripts()?,
        };
        let CoinRequest { subject, from_pool, late, .. } = self.request;
        let scripts = touched_scripts(&subject.transaction, &self.coins);
        let from_pool = from_pool.iter().map(Option::is_some).collect();
        Ok(Checked { subject, from_pool, facts, tip: self.tip, verified, scripts, late })
    }

    /// The tip that the coins were read at.
    pub(super) fn tip(&self) -> TipFacts {
        self.tip
    }

    pub(super) fn subject(&self) -> &Subject {
        &self.request.subject
    }

    /// The rules of the chain, as the next block would ask them.
    fn check_rules(&self, transaction: &Transaction) -> Result<Amount, InvalidTransaction> {
        check_lock_time(transaction, self.context)?;
        check_spends(transaction, self.coins.iter(), self.context, |height| self.median_times[&height])
    }

    fn verify_scripts(&self) -> Result<VerifiedScripts, CheckError> {
        let transaction = &self.request.subject.transaction;
        for (index, (input, coin)) in transaction.input.iter().zip(&self.coins).enumerate() {
            encoding::check(input, coin)
                .map_err(|error| Reject::from(PolicyReject::Script(self.failure(index, error))))?;
        }
        let spent = self.coins.iter().map(|coin| &coin.output).collect();
        PreparedTransaction::new(SerializedTransaction::of(transaction), spent).verify().map_err(|error| match error {
            ScriptError::Invalid { input } => {
                let error = encoding::failure(&transaction.input[input], &self.coins[input]);
                Reject::from(Invalid::Script(self.failure(input, error))).into()
            }
            ScriptError::Fault(fault) => fault.into(),
        })
    }

    fn failure(&self, input: usize, error: &'static str) -> Box<ScriptFailure> {
        let Subject { transaction, txid, wtxid, .. } = &self.request.subject;
        let spends = transaction.input[input].previous_output;
        Box::new(ScriptFailure { input, txid: *txid, wtxid: *wtxid, spends, error })
    }
}

/// What a transaction pays and takes, known once its coins are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    pub(super) fee: Amount,
    pub(super) sigops_cost: usize,
    /// Virtual bytes that the fee counts for.
    pub(super) vsize: u64,
    /// Weight that the fee counts for.
    pub(super) weight: Weight,
}

/// A transaction that may stand in the block on top of the tip it was checked at. Only [`CheckJob::run`] makes it.
#[derive(Debug, Clone)]
pub struct Checked {
    pub(super) subject: Subject,
    /// For each input whether it spends an output of the pool, or of its package.
    pub(super) from_pool: Vec<bool>,
    pub(super) facts: Facts,
    pub(super) tip: TipFacts,
    pub(super) verified: VerifiedScripts,
    /// What it adds to the history of each script.
    pub(super) scripts: Vec<(ScriptId, Statistics)>,
    pub(super) late: u8,
}

impl Checked {
    /// The id of the transaction, with witnesses.
    pub fn wtxid(&self) -> Wtxid {
        self.subject.wtxid
    }
}
