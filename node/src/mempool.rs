//! The transactions that wait for a block.
//!
//! Checks are split so that nothing slow happens here: [`Mempool::begin`] says at once what can be said without coins,
//! [`CoinRequest::resolve`] reads them, [`CheckJob::run`] does the CPU work on any thread, [`Mempool::finish`] takes the
//! result in, as the pool is then. What the pool holds may stand in the next block, whole, and in every later one: heights
//! and median times only grow, and a final block is never taken back, so no lock closes again and no coinbase becomes
//! immature. What leaves the pool are transactions that a block confirmed or contradicted, that were replaced, that
//! expired, or that the pool's size pushed out.
//!
//! A transaction below the minimum feerate enters only together with a child that pays for it, in a [`package`], which goes
//! the same way: a [`Submission`] tries each transaction by itself and then, together, those that need each other. Not kept
//! are transactions whose parents are unknown, and those that wait for such a child; the caller may keep some.
//!
//! Bounds: memory by [`Policy::max_memory_bytes`]; families by [`Limits`]; each call touches at most the families of one
//! transaction (25 + 25) or of a package's 25, of 100 replaced ones, of a block's, or of what has to leave. How many checks run at once is the
//! caller's to bound.

mod check;
mod diagram;
mod encoding;
mod entry;
mod evict;
mod feerate;
mod graph;
mod list;
pub mod package;
pub mod policy;
mod read;
pub mod reject;
mod replace;
pub mod snapshot;
pub mod standard;
mod submission;
mod truc;

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::{Amount, OutPoint, Transaction, TxOut, Txid, Wtxid};
use causeway_chainspec::{Params, SatPerKvb};
use causeway_consensus::coin::is_unspendable;
use causeway_consensus::script::VerifiedScripts;
use causeway_consensus::spend::check_lock_time;
use causeway_consensus::state::{ScriptId, Statistics};
use causeway_consensus::{Block, ScriptCache, Tip};

pub use check::{CheckJob, Checked, CoinRequest, TipFacts};
pub use entry::{Entry, Family};
pub use feerate::{FeeFraction, fee_at};
pub use list::{Row, Rows};
pub use package::{Package, PackageForm, PackageReject};
pub use policy::{Limits, Policy};
pub use read::{Read, Reader};
pub use reject::{CheckError, Invalid, NotYet, PolicyReject, Reject};
pub use submission::{PackageAnswer, PackageCheck, PackageResult, Submission, Turn, TxResult};

use crate::news::{Change, Entered, News};

use check::{Facts, Subject};
use entry::{asks_for_peg_out, memory};
use evict::RollingMinimum;
use graph::Graph;
use replace::{Place, place};
use standard::dust_outputs;

/// Checks of one transaction that may come too late before the sender has to send it again.
const MAX_LATE: u8 = 8;

/// The transactions that wait for a block.
#[derive(Debug)]
pub struct Mempool {
    policy: Policy,
    reader: Arc<Reader>,
    graph: Graph,
    minimum: RollingMinimum,
    tip: TipFacts,
    peg: PegStatus,
    scripts: Arc<ScriptCache>,
    news: News,
}

/// Whether peg-out requests are taken (PEG section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PegStatus {
    /// They are.
    Open,
    /// They are not, until people have resolved what froze the peg. A block may hold them all the same.
    Frozen,
}

/// A transaction that left the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Departed {
    /// Which.
    pub txid: Txid,
    /// Why.
    pub why: Departure,
}

/// Why a transaction left the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// A block holds it.
    Confirmed,
    /// A block spends one of its coins otherwise, or one of its ancestors'.
    Conflicted,
    /// A transaction that pays more took its place, or an ancestor's.
    Replaced,
    /// The pool was full.
    Evicted,
    /// It, or an ancestor, waited too long.
    Expired,
    /// It, or an ancestor, holds a peg-out request and the peg is frozen.
    PegFrozen,
}

/// What came of a checked transaction.
#[derive(Debug)]
pub struct Finish {
    /// What became of it.
    pub outcome: Outcome,
    /// What left the pool for it, or because of its time.
    pub departed: Vec<Departed>,
}

/// What became of a checked transaction.
#[derive(Debug)]
pub enum Outcome {
    /// It is in the pool.
    Accepted {
        /// Its id.
        txid: Txid,
        /// Its id with witnesses.
        wtxid: Wtxid,
    },
    /// The chain or its parents have moved since: check again, behind the events that wait already (a block that the view
    /// shows and the pool has not been told of is among them). Its scripts are not verified a second time.
    Again(Box<CoinRequest>),
    /// It is not taken.
    Rejected(Reject),
}

impl Mempool {
    /// Returns an empty pool on top of a tip. `scripts` remembers what it has verified, for the validation of blocks.
    pub fn new(policy: Policy, params: Params, tip: TipFacts, scripts: Arc<ScriptCache>) -> Self {
        Self {
            reader: Arc::new(Reader::new(policy.clone(), params)),
            policy,
            graph: Graph::default(),
            minimum: RollingMinimum::default(),
            tip,
            peg: PegStatus::Open,
            scripts,
            news: News::default(),
        }
    }

    /// Takes a first look at a transaction that arrived at `now_s` (seconds of Unix time).
    ///
    /// # Errors
    /// What can be said without its coins. Nothing is remembered of it.
    pub fn begin(&self, transaction: impl Into<Arc<Transaction>>, now_s: u64) -> Result<CoinRequest, Reject> {
        self.begin_again(transaction, now_s, now_s)
    }

    /// Takes a first look at a transaction that had entered a pool at `entered_s`, before a restart.
    ///
    /// # Errors
    /// As [`Mempool::begin`], and [`PolicyReject::Expired`].
    pub fn begin_again(
        &self,
        transaction: impl Into<Arc<Transaction>>,
        entered_s: u64,
        now_s: u64,
    ) -> Result<CoinRequest, Reject> {
        let subject = self.subject(transaction.into(), entered_s, now_s, None)?;
        self.request(subject, None, 0, now_s)
    }

    /// Takes a first look at a transaction that was read by [`Mempool::reader`] elsewhere.
    ///
    /// # Errors
    /// As [`Mempool::begin_again`].
    pub fn begin_read(&self, read: Read, entered_s: u64, now_s: u64) -> Result<CoinRequest, Reject> {
        let subject = self.subject_of(read, entered_s, now_s, None)?;
        self.request(subject, None, 0, now_s)
    }

    /// What can be said of a transaction by itself.
    fn subject(
        &self,
        transaction: Arc<Transaction>,
        entered_s: u64,
        now_s: u64,
        max_feerate: Option<SatPerKvb>,
    ) -> Result<Subject, Reject> {
        self.subject_of(self.reader.read(transaction)?, entered_s, now_s, max_feerate)
    }

    fn subject_of(
        &self,
        read: Read,
        entered_s: u64,
        now_s: u64,
        max_feerate: Option<SatPerKvb>,
    ) -> Result<Subject, Reject> {
        if now_s.saturating_sub(entered_s) >= self.policy.expiry_s {
            return Err(PolicyReject::Expired.into());
        }
        let Read { transaction, txid, wtxid, weight } = read;
        let dust = dust_outputs(&transaction, self.policy.dust_relay).next();
        Ok(Subject { txid, wtxid, weight, dust, transaction, entered_s: entered_s.min(now_s), max_feerate })
    }

    /// What can say on any thread what a transaction says by itself.
    pub fn reader(&self) -> &Arc<Reader> {
        &self.reader
    }

    /// What depends on the tip and on the pool, before the coins are known.
    fn request(
        &self,
        subject: Subject,
        verified: Option<VerifiedScripts>,
        late: u8,
        now_s: u64,
    ) -> Result<CoinRequest, Reject> {
        let transaction = &subject.transaction;
        self.check_peg(transaction)?;
        check_lock_time(transaction, self.tip.next_block())?;
        self.check_new(&subject)?;
        let outputs = transaction.input.iter().map(|input| self.output(input.previous_output));
        let from_pool = outputs.collect::<Result<Vec<Option<TxOut>>, NotYet>>()?;
        // Never more than its real size, which waits for the cost of its signature operations.
        let vsize = policy::virtual_size(subject.weight, 0);
        let Place { terms, .. } = place(&self.graph, &self.policy, self.pool_minimum(now_s), &subject, vsize)?;
        Ok(CoinRequest { subject, from_pool, terms, verified, late })
    }

    /// Takes a checked transaction into the pool as it is at `now_s` (seconds of Unix time), if it still fits.
    pub fn finish(&mut self, checked: Checked, now_s: u64) -> Finish {
        self.settle(now_s);
        let mut departed = self.expire(now_s);
        let outcome = match self.try_finish(checked, now_s, &mut departed) {
            Ok(outcome) => outcome,
            Err(reject) => Outcome::Rejected(reject),
        };
        Finish { outcome, departed }
    }

    fn try_finish(&mut self, checked: Checked, now_s: u64, departed: &mut Vec<Departed>) -> Result<Outcome, Reject> {
        let mut inputs = checked.subject.transaction.input.iter().zip(&checked.from_pool);
        let parents_stand = inputs.all(|(input, pool)| *pool == self.contains(&input.previous_output.txid));
        if checked.tip != self.tip || !parents_stand {
            let Checked { subject, verified, late, .. } = checked;
            if late >= MAX_LATE {
                return Err(NotYet::ChainMoved.into());
            }
            return Ok(Outcome::Again(Box::new(self.request(subject, Some(verified), late + 1, now_s)?)));
        }
        self.check_peg(&checked.subject.transaction)?;
        self.check_new(&checked.subject)?;
        let Subject { txid, wtxid, .. } = checked.subject;
        let Facts { fee, vsize, .. } = checked.facts;
        let pool_minimum = self.pool_minimum(now_s);
        let Place { parents, replaced, terms } =
            place(&self.graph, &self.policy, pool_minimum, &checked.subject, vsize)?;
        terms.check(checked.subject.named(), fee, vsize)?;

        self.depart(&replaced, Departure::Replaced, Some(txid), departed);
        self.enter(checked, parents);
        self.trim(now_s, &[txid], departed);
        if self.contains(&txid) {
            self.tell_entered(&txid);
            Ok(Outcome::Accepted { txid, wtxid })
        } else {
            departed.retain(|gone| gone.txid != txid);
            Err(PolicyReject::MempoolFull.into())
        }
    }

    /// Puts a transaction into the pool, and what is known of its scripts where blocks look for it.
    fn enter(&mut self, checked: Checked, parents: BTreeSet<Txid>) {
        let Checked { subject, facts: Facts { fee, sigops_cost, vsize, .. }, verified, scripts, .. } = checked;
        self.scripts.insert(&verified);
        let Subject { transaction, txid, wtxid, weight, entered_s, dust, .. } = subject;
        self.graph.insert(Entry {
            memory: memory(&transaction, scripts.len()),
            bytes: transaction.total_size(),
            transaction,
            txid,
            wtxid,
            weight,
            vsize,
            fee,
            sigops_cost,
            entered_s,
            dust,
            parents,
            children: BTreeSet::new(),
            ancestors: Family::NONE,
            descendants: Family::NONE,
            scripts,
            number: 0,
            row: 0,
        });
    }

    /// Takes notice of a committed block: its transactions leave, and what contradicts them. Returns what left.
    ///
    /// # Panics
    /// If the block does not stand on the tip that the pool knows: blocks are handed in one by one.
    pub fn connected(&mut self, block: &Block, tip: &Tip, now_s: u64) -> Vec<Departed> {
        assert_eq!(block.header().prev_blockhash, self.tip.hash, "blocks are handed in one by one");
        self.settle(now_s);
        self.tip = TipFacts::of(tip);
        self.news.tell(|| Change::Connected { height: tip.height() });
        let mut departed = Vec::new();
        for tx in block.transactions().iter().skip(1) {
            if self.contains(&tx.txid()) {
                self.graph.remove_root(&tx.txid());
                departed.push(Departed { txid: tx.txid(), why: Departure::Confirmed });
            } else {
                // A transaction of the pool spends these coins already, if others do.
                let inputs = tx.transaction().input.iter();
                let conflicts = inputs.filter_map(|input| self.graph.spender(&input.previous_output)).collect();
                self.depart_with_descendants(&conflicts, Departure::Conflicted, Some(tx.txid()), &mut departed);
            }
        }
        self.minimum.block(now_s);
        departed
    }

    /// Removes what has waited longer than [`Policy::expiry_s`], with all that depends on it. Returns what left.
    pub fn expire(&mut self, now_s: u64) -> Vec<Departed> {
        let mut departed = Vec::new();
        while let Some(oldest) = self.graph.oldest() {
            if now_s.saturating_sub(oldest.entered_s) < self.policy.expiry_s {
                break;
            }
            let txid = oldest.txid;
            self.depart_with_descendants(&BTreeSet::from([txid]), Departure::Expired, None, &mut departed);
        }
        departed
    }

    /// Says whether peg-out requests are taken. On freezing, those in the pool leave; in a block they would wait in the
    /// peg's queue, where their owners could not take them back. Returns what left.
    pub fn set_peg(&mut self, peg: PegStatus) -> Vec<Departed> {
        let mut departed = Vec::new();
        if peg == PegStatus::Frozen && self.peg == PegStatus::Open {
            let asks = |entry: &&Entry| asks_for_peg_out(&entry.transaction);
            let requests = self.graph.entries().filter(asks).map(|entry| entry.txid).collect();
            self.depart_with_descendants(&requests, Departure::PegFrozen, None, &mut departed);
        }
        self.peg = peg;
        departed
    }

    /// Removes what is worth least until the pool is within its memory. Nobody is told that a newcomer left: nobody was
    /// told that it came.
    fn trim(&mut self, now_s: u64, newcomers: &[Txid], departed: &mut Vec<Departed>) {
        while self.graph.memory() > self.policy.max_memory_bytes {
            let Some(worst) = self.graph.worst() else { break };
            let SatPerKvb(rate) = worst.descendants.feerate().rate();
            let txid = worst.txid;
            self.minimum.bump(SatPerKvb(rate.saturating_add(self.policy.incremental_relay.0)), now_s);
            let all = self.graph.descendants(&BTreeSet::from([txid]), usize::MAX).expect("no limit");
            self.tell_left(all.iter().filter(|txid| !newcomers.contains(txid)), Departure::Evicted, None);
            self.remove(&all, Departure::Evicted, departed);
        }
    }

    fn depart_with_descendants(
        &mut self,
        roots: &BTreeSet<Txid>,
        why: Departure,
        by: Option<Txid>,
        departed: &mut Vec<Departed>,
    ) {
        let all = self.graph.descendants(roots, usize::MAX).expect("no limit");
        self.depart(&all, why, by, departed);
    }

    fn depart(&mut self, txids: &BTreeSet<Txid>, why: Departure, by: Option<Txid>, departed: &mut Vec<Departed>) {
        self.tell_left(txids.iter(), why, by);
        self.remove(txids, why, departed);
    }

    fn remove(&mut self, txids: &BTreeSet<Txid>, why: Departure, departed: &mut Vec<Departed>) {
        self.graph.remove_with_descendants(txids);
        departed.extend(txids.iter().map(|txid| Departed { txid: *txid, why }));
    }

    fn check_peg(&self, transaction: &Transaction) -> Result<(), PolicyReject> {
        if self.peg == PegStatus::Frozen && asks_for_peg_out(transaction) {
            return Err(PolicyReject::PegFrozen);
        }
        Ok(())
    }

    fn check_new(&self, subject: &Subject) -> Result<(), PolicyReject> {
        match self.graph.get(&subject.txid) {
            Some(entry) if entry.wtxid == subject.wtxid => Err(PolicyReject::AlreadyInMempool),
            Some(_) => Err(PolicyReject::SameTxidInMempool),
            None => Ok(()),
        }
    }

    /// The pool's output at an outpoint; None if its transaction is not in the pool.
    fn output(&self, outpoint: OutPoint) -> Result<Option<TxOut>, NotYet> {
        let Some(parent) = self.graph.get(&outpoint.txid) else { return Ok(None) };
        let output = usize::try_from(outpoint.vout).ok().and_then(|vout| parent.transaction.output.get(vout));
        match output.filter(|output| !is_unspendable(&output.script_pubkey)) {
            Some(output) => Ok(Some(output.clone())),
            None => Err(NotYet::MissingInput { outpoint }),
        }
    }

    fn tell_left<'a>(&self, txids: impl Iterator<Item = &'a Txid>, why: Departure, by: Option<Txid>) {
        if self.news.is_heard() {
            for entry in txids.filter_map(|txid| self.graph.get(txid)) {
                self.news.tell(|| Change::Left { txid: entry.txid, why, by, scripts: entry.script_ids() });
            }
        }
    }

    fn tell_entered(&self, txid: &Txid) {
        let Some(entry) = self.graph.get(txid).filter(|_| self.news.is_heard()) else { return };
        self.news.tell(|| {
            let Entry { txid, fee, vsize, .. } = *entry;
            let value = entry.transaction.output.iter().map(|output| output.value).sum();
            Change::Entered(Arc::new(Entered { txid, fee, vsize, value, scripts: entry.script_ids() }))
        });
    }

    fn settle(&mut self, now_s: u64) {
        let (memory, max) = (self.graph.memory(), self.policy.max_memory_bytes);
        self.minimum.settle(now_s, memory, max, self.policy.incremental_relay);
    }

    fn pool_minimum(&self, now_s: u64) -> SatPerKvb {
        let (memory, max) = (self.graph.memory(), self.policy.max_memory_bytes);
        self.minimum.at(now_s, memory, max, self.policy.incremental_relay)
    }

    /// The feerate that a transaction must have to enter at `now_s` (Core: `mempoolminfee`).
    pub fn min_feerate(&self, now_s: u64) -> SatPerKvb {
        self.pool_minimum(now_s).max(self.policy.min_relay)
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The tip that the pool stands on.
    pub fn tip(&self) -> &TipFacts {
        &self.tip
    }

    /// Whether peg-out requests are taken.
    pub fn peg(&self) -> PegStatus {
        self.peg
    }

    /// The memory of verified transactions, which block validation consults.
    pub fn scripts(&self) -> &Arc<ScriptCache> {
        &self.scripts
    }

    /// Where the pool tells what enters and leaves it.
    pub fn news(&self) -> &News {
        &self.news
    }

    /// Whether a transaction is in the pool, whatever its witnesses.
    pub fn contains(&self, txid: &Txid) -> bool {
        self.graph.get(txid).is_some()
    }

    /// Returns the entry of a transaction.
    pub fn get(&self, txid: &Txid) -> Option<&Entry> {
        self.graph.get(txid)
    }

    /// Returns the entry of a transaction by its id with witnesses.
    pub fn get_by_wtxid(&self, wtxid: &Wtxid) -> Option<&Entry> {
        self.graph.by_wtxid(wtxid)
    }

    /// Returns which transaction of the pool spends a coin.
    pub fn spender(&self, outpoint: &OutPoint) -> Option<Txid> {
        self.graph.spender(outpoint)
    }

    /// Returns the outputs of a transaction that the pool spends, and by which transaction each, by output.
    pub fn spends_of(&self, txid: &Txid) -> impl Iterator<Item = (OutPoint, Txid)> {
        self.graph.spends_of(txid)
    }

    /// Returns the entries that pay a script or spend from it, newest first.
    pub fn by_script(&self, id: &ScriptId) -> impl Iterator<Item = &Entry> {
        self.graph.by_script(id)
    }

    /// Returns the sums over all entries that pay a script or spend from it.
    pub fn statistics_of(&self, id: &ScriptId) -> Statistics {
        self.graph.statistics_of(id)
    }

    /// Returns all entries, in no particular order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.graph.entries()
    }

    /// Returns what is told of all entries, as they are now, without copying any.
    pub fn rows(&self) -> Rows {
        self.graph.rows()
    }

    /// Returns all entries, best for a block first, ties by txid. A child may come before its parent.
    pub fn by_mining_score(&self) -> impl Iterator<Item = &Entry> {
        self.graph.by_mining()
    }

    /// The number of transactions.
    pub fn len(&self) -> usize {
        self.graph.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory by the pool's own count: see [`Entry::memory`].
    pub fn memory(&self) -> usize {
        self.graph.memory()
    }

    /// Virtual bytes of all transactions.
    pub fn vsize(&self) -> u64 {
        self.graph.vsize()
    }

    /// What all transactions pay.
    pub fn fees(&self) -> Amount {
        self.graph.fees()
    }

    /// Panics unless every map and sum is what the transactions say.
    #[cfg(test)]
    pub(crate) fn assert_consistent(&self) {
        self.graph.assert_consistent();
    }
}

#[cfg(test)]
mod tests;
