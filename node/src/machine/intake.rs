//! The way of a transaction into the mempool: how many are checked at once, who waits, and who is told.

mod orphans;
mod packages;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::{Transaction, Txid};
use bytes::Bytes;
use causeway_consensus::{Block, Tx};
use libp2p::PeerId;

use packages::Packages;

use super::action::{Action, RelayVerdict};
use super::allowance::transaction_cost;
use super::event::{GossipId, Now, SubmitId, Ticket};
use super::jobs::CheckJob;
use super::report::{Offence, TransactionCounts};
use super::timers::Alarm;
use super::{Node, Reading};
use crate::mempool::snapshot::SnapshotEntry;
use crate::mempool::{self, Checked, CoinRequest, Departed, Departure, NotYet, Outcome, PolicyReject, Reject};
use crate::wire::{TRANSACTIONS_MAX, Topic, encode_transaction, encode_transactions};
use orphans::{Orphan, Orphans};

/// Jobs of checks that run at once, and the transactions of one. To wake a thread costs about as much as to check a
/// signature: while [`SMALL_JOBS`] run, a job starts only when it is full, and transactions gather for the next.
const JOBS_MAX: usize = 16;
const JOB_TRANSACTIONS: usize = 32;

/// Jobs that run at once without waiting to be full. More than one, so that a transaction that takes long to check keeps
/// nobody waiting.
const SMALL_JOBS: usize = 2;

/// The least time between two messages with transactions of this node: every message costs every peer far more than its
/// bytes. What comes alone is sent at once.
const SEND_EVERY: Duration = Duration::from_millis(100);

/// Bytes that are sent at once, unless a single transaction has more.
const GATHER_BYTES: usize = 100_000;

/// Transactions of peers that wait for a check, those of one peer, and their bytes. What comes on top is dropped.
const QUEUE_MAX: usize = 4_096;
const QUEUE_PER_PEER: usize = QUEUE_MAX / 4;
const QUEUE_BYTES_MAX: usize = 32 << 20;

/// Transactions handed in here that have no verdict yet, also of clients that have gone. More are turned away.
const HERE_MAX: usize = 256;

/// Transactions of an earlier run that are looked at with one event.
const SNAPSHOT_AT_ONCE: usize = 256;

/// This node's own transactions that are sent again at once.
const REBROADCAST_MAX: usize = 64;

/// Everything between a transaction's arrival and the mempool.
#[derive(Debug, Default)]
pub(super) struct Intake {
    queue: VecDeque<(CoinRequest, Arrival)>,
    /// Bytes of those of peers, until their checks have ended.
    queued_bytes: usize,
    /// Transactions handed in here that have no verdict yet.
    here: usize,
    running: BTreeMap<Ticket, Vec<Arrival>>,
    /// Messages of peers, some of whose transactions have no verdict yet.
    messages: BTreeMap<GossipId, Message>,
    /// What is sent with the next message.
    outbox: Vec<Bytes>,
    outbox_bytes: usize,
    /// The earliest time of the next message.
    send_after: Duration,
    /// Checked against a tip that the pool is about to have.
    early: Vec<(CoinRequest, Arrival)>,
    orphans: Orphans,
    packages: Packages,
    /// Of an earlier run, parents first; one at a time, since the next may stand on it.
    snapshot: VecDeque<SnapshotEntry>,
    snapshot_running: bool,
    /// Handed in here, and in no block yet.
    own: BTreeSet<Txid>,
    /// The last own transaction that was sent again.
    sent: Option<Txid>,
    counts: TransactionCounts,
}

/// A transaction on its way.
#[derive(Clone, Debug)]
struct Arrival {
    transaction: Arc<Transaction>,
    bytes: usize,
    origin: Origin,
}

/// What became of the transactions of a message.
#[derive(Debug)]
struct Message {
    peer: PeerId,
    /// What it costs of the peer's allowance while it is under way, and how much of that came to nothing.
    cost: u32,
    wasted: u32,
    open: usize,
    /// Those that the pool took from it.
    accepted: Vec<Arc<Transaction>>,
    /// Whether one can never be valid.
    invalid: bool,
    /// Whether one is neither in the pool nor invalid: nobody here has looked at all of it.
    unverified: bool,
}

/// What became of one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// The pool took it.
    Accepted(Arc<Transaction>),
    /// The pool has it, with these witnesses.
    Known,
    /// The pool does not take it, and it may be right.
    Unverified {
        /// What it cost.
        cost: u32,
    },
    /// It can never be valid.
    Invalid {
        /// What it cost.
        cost: u32,
    },
}

/// Where a transaction came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Peer { peer: PeerId, id: GossipId },
    Here { id: SubmitId },
    Snapshot { entered_s: u64 },
    Orphan { peer: PeerId },
}

impl Intake {
    pub(super) fn new(snapshot: Vec<SnapshotEntry>) -> Self {
        Self { snapshot: snapshot.into(), ..Self::default() }
    }

    /// Transactions between arrival and pool.
    pub(super) fn len(&self) -> usize {
        let running = self.running.values().map(Vec::len).sum::<usize>();
        self.queue.len() + running + self.early.len() + self.orphans.len() + self.packages.len()
    }

    /// What became of transactions.
    pub(super) fn counts(&self) -> TransactionCounts {
        self.counts
    }

    /// Whether there is work for one more job, and it may start.
    fn may_start_job(&self) -> bool {
        let least = if self.running.len() < SMALL_JOBS { 1 } else { JOB_TRANSACTIONS };
        self.queue.len() >= least && self.running.len() < JOBS_MAX
    }

    /// Counts a transaction that the pool does not take.
    fn count(&mut self, reject: &Reject) {
        *match reject {
            Reject::Invalid(_) => &mut self.counts.invalid,
            Reject::NotYet(_) => &mut self.counts.not_yet,
            Reject::Policy(PolicyReject::AlreadyInMempool) => &mut self.counts.known,
            Reject::Policy(_) => &mut self.counts.policy,
        } += 1;
    }

    /// Counts transactions that left the pool, and forgets those of them that are this node's own.
    pub(super) fn departed(&mut self, departed: &[Departed]) {
        for departed in departed {
            self.own.remove(&departed.txid);
            *match departed.why {
                Departure::Confirmed => &mut self.counts.confirmed,
                Departure::Conflicted => &mut self.counts.conflicted,
                Departure::Replaced => &mut self.counts.replaced,
                Departure::Evicted => &mut self.counts.evicted,
                Departure::Expired => &mut self.counts.expired,
                Departure::PegFrozen => &mut self.counts.peg_frozen,
            } += 1;
        }
    }
}

impl Node {
    /// Transactions of a peer, with what each says by itself.
    pub(super) fn gossiped_transactions(
        &mut self,
        now: Now,
        reading: Reading,
        list: Vec<(Arc<Transaction>, Result<mempool::Read, Reject>)>,
    ) {
        let Reading { peer, id, bytes, .. } = reading;
        let of_peer: usize =
            self.intake.messages.values().filter(|message| message.peer == peer).map(|message| message.open).sum();
        let (all, all_bytes) = (self.intake.queue.len() + list.len(), self.intake.queued_bytes + bytes);
        if all > QUEUE_MAX || all_bytes > QUEUE_BYTES_MAX || of_peer + list.len() > QUEUE_PER_PEER {
            self.peers.end(&peer, Topic::Transactions, reading.cost(), 0);
            return self.of_no_use(peer, Topic::Transactions, id);
        }
        let message = Message {
            peer,
            cost: reading.cost(),
            wasted: 0,
            open: list.len(),
            accepted: Vec::new(),
            invalid: false,
            unverified: false,
        };
        self.intake.messages.insert(id, message);
        for (transaction, read) in list {
            let (bytes, origin) = (transaction.total_size(), Origin::Peer { peer, id });
            let now_s = now.unix.as_secs();
            let request = read.and_then(|read| self.mempool.begin_read(read, now_s, now_s));
            self.begun(now, request, Arrival { transaction, bytes, origin });
        }
        self.run_checks(now);
    }

    /// Takes note of what became of a transaction of a message. Once all are known, the message is sent on if the pool has
    /// every one of them, and took one just now: whoever gets it may hold each against this node. Of any other message what
    /// the pool took is sent on by itself.
    fn settle(&mut self, now: Now, id: GossipId, fate: Fate) {
        let Some(message) = self.intake.messages.get_mut(&id) else { return };
        message.open = message.open.saturating_sub(1);
        match fate {
            Fate::Accepted(transaction) => message.accepted.push(transaction),
            Fate::Known => {}
            Fate::Unverified { cost } => {
                message.unverified = true;
                message.wasted = message.wasted.saturating_add(cost);
            }
            Fate::Invalid { cost } => {
                message.invalid = true;
                message.wasted = message.wasted.saturating_add(cost);
            }
        }
        if message.open > 0 {
            return;
        }
        let Some(message) = self.intake.messages.remove(&id) else { return };
        let Message { peer, cost, wasted, accepted, invalid, unverified, .. } = message;
        self.peers.end(&peer, Topic::Transactions, cost, wasted);
        if !invalid && !unverified && !accepted.is_empty() {
            return self.relay(id, RelayVerdict::Accept);
        }
        if accepted.is_empty() {
            self.peers.idle(&peer, Topic::Transactions);
        }
        self.relay(id, if invalid { RelayVerdict::Reject } else { RelayVerdict::Ignore });
        for transaction in accepted {
            self.publish_transaction(now, &transaction);
        }
    }

    /// A transaction of a user of this node.
    pub(super) fn submitted(&mut self, now: Now, id: SubmitId, transaction: Transaction) {
        if self.intake.here >= HERE_MAX {
            self.actions.push(Action::Reply { id, result: Err(NotYet::Busy.into()) });
            return;
        }
        self.intake.here += 1;
        self.begin(now, Arc::new(transaction), 0, Origin::Here { id });
        self.run_checks(now);
    }

    fn begin(&mut self, now: Now, transaction: Arc<Transaction>, bytes: usize, origin: Origin) {
        let request = self.mempool.begin(Arc::clone(&transaction), now.unix.as_secs());
        self.begun(now, request, Arrival { transaction, bytes, origin });
    }

    fn begun(&mut self, now: Now, request: Result<CoinRequest, Reject>, arrival: Arrival) {
        match request {
            Ok(request) => self.enqueue(request, arrival),
            Err(reject) => self.refuse(now, arrival.transaction, arrival.origin, reject),
        }
    }

    fn enqueue(&mut self, request: CoinRequest, arrival: Arrival) {
        self.intake.queued_bytes += arrival.bytes;
        self.intake.queue.push_back((request, arrival));
    }

    /// Starts as many checks as may run.
    pub(super) fn run_checks(&mut self, now: Now) {
        self.feed_snapshot(now);
        while self.intake.may_start_job() {
            let count = self.intake.queue.len().min(JOB_TRANSACTIONS);
            let (requests, arrivals): (Vec<_>, Vec<_>) = self.intake.queue.drain(..count).unzip();
            let ticket = self.ticket();
            self.intake.running.insert(ticket, arrivals);
            self.actions.push(Action::Check { ticket, job: CheckJob { requests } });
        }
    }

    /// Takes the next transaction of an earlier run.
    fn feed_snapshot(&mut self, now: Now) {
        for _ in 0..SNAPSHOT_AT_ONCE {
            if self.intake.snapshot_running {
                break;
            }
            let Some(entry) = self.intake.snapshot.pop_front() else { break };
            let transaction = Arc::new(entry.transaction);
            let request = self.mempool.begin_again(Arc::clone(&transaction), entry.entered_s, now.unix.as_secs());
            if let Ok(request) = request {
                self.intake.snapshot_running = true;
                let origin = Origin::Snapshot { entered_s: entry.entered_s };
                self.enqueue(request, Arrival { transaction, bytes: 0, origin });
            }
        }
        if self.intake.snapshot.is_empty() && !self.intake.snapshot_running {
            self.intake.packages.end_snapshot();
        }
    }

    /// The results of a job.
    pub(super) fn checked(&mut self, now: Now, ticket: Ticket, results: Vec<Result<Box<Checked>, Reject>>) {
        let Some(arrivals) = self.intake.running.remove(&ticket) else { return };
        self.intake.queued_bytes -= arrivals.iter().map(|arrival| arrival.bytes).sum::<usize>();
        for (arrival, result) in arrivals.into_iter().zip(results) {
            self.finish(now, arrival, result);
        }
        self.run_checks(now);
    }

    fn finish(&mut self, now: Now, arrival: Arrival, result: Result<Box<Checked>, Reject>) {
        let outcome = match result {
            Ok(checked) => {
                let finish = self.mempool.finish(*checked, now.unix.as_secs());
                self.intake.departed(&finish.departed);
                finish.outcome
            }
            Err(reject) => Outcome::Rejected(reject),
        };
        match outcome {
            // The check may have seen a block that this node is about to be told of.
            Outcome::Again(request) if self.committing.is_some() => {
                self.intake.early.push((*request, arrival));
            }
            Outcome::Again(request) => self.enqueue(*request, arrival),
            Outcome::Accepted { txid, .. } => self.accepted(now, &arrival, txid),
            Outcome::Rejected(reject) => self.refuse(now, arrival.transaction, arrival.origin, reject),
        }
    }

    /// The pool has a transaction.
    fn accepted(&mut self, now: Now, arrival: &Arrival, txid: Txid) {
        self.intake.counts.accepted += 1;
        match arrival.origin {
            Origin::Peer { id, .. } => self.settle(now, id, Fate::Accepted(Arc::clone(&arrival.transaction))),
            Origin::Here { id } => {
                self.intake.here -= 1;
                self.actions.push(Action::Reply { id, result: Ok(txid) });
                self.intake.own.insert(txid);
                self.publish_with_parents(now, &arrival.transaction);
            }
            Origin::Snapshot { .. } => {
                // It may never have got through to anybody.
                self.intake.own.insert(txid);
                self.intake.snapshot_running = false;
            }
            Origin::Orphan { .. } => self.publish_with_parents(now, &arrival.transaction),
        }
        self.adopt(now, |parent| *parent == txid);
    }

    /// Sends a transaction, with others that come soon.
    fn publish_transaction(&mut self, now: Now, transaction: &Transaction) {
        let bytes = Bytes::from(encode_transaction(transaction));
        let (count, size) = (self.intake.outbox.len(), self.intake.outbox_bytes + bytes.len());
        if count >= TRANSACTIONS_MAX || size > GATHER_BYTES {
            self.flush_transactions(now);
        }
        self.intake.outbox_bytes += bytes.len();
        self.intake.outbox.push(bytes);
        self.timers.set_at_latest(Alarm::Transactions, self.intake.send_after.max(now.uptime));
    }

    /// Sends what has gathered.
    pub(super) fn flush_transactions(&mut self, now: Now) {
        let gathered = std::mem::take(&mut self.intake.outbox);
        self.intake.outbox_bytes = 0;
        self.timers.stop(Alarm::Transactions);
        if !gathered.is_empty() {
            self.intake.send_after = now.uptime + SEND_EVERY;
            // Sent again, it is a new message to the gossip layer.
            let bytes = encode_transactions(&gathered, now.nonce());
            self.actions.push(Action::Publish { topic: Topic::Transactions, bytes });
        }
    }

    /// Looks again at the orphans of transactions that are here now.
    fn adopt(&mut self, now: Now, is_here: impl Fn(&Txid) -> bool) {
        for Orphan { transaction, peer, .. } in self.intake.orphans.take(is_here) {
            let origin = Origin::Orphan { peer };
            match self.mempool.begin(Arc::clone(&transaction), now.unix.as_secs()) {
                Ok(request) => self.enqueue(request, Arrival { transaction, bytes: 0, origin }),
                Err(reject) => self.refuse(now, transaction, origin, reject),
            }
        }
    }

    /// The pool does not take a transaction.
    fn refuse(&mut self, now: Now, transaction: Arc<Transaction>, origin: Origin, reject: Reject) {
        self.intake.count(&reject);
        let missing = match &reject {
            Reject::NotYet(NotYet::MissingInput { outpoint }) => Some(outpoint.txid),
            _ => None,
        };
        match origin {
            Origin::Peer { peer, id } => {
                let cost = transaction_cost(transaction.total_size());
                if let Reject::Invalid(_) = reject {
                    self.settle(now, id, Fate::Invalid { cost });
                    return self.punish(now, peer, Offence::InvalidTransaction);
                }
                let known = matches!(reject, Reject::Policy(PolicyReject::AlreadyInMempool));
                self.settle(now, id, if known { Fate::Known } else { Fate::Unverified { cost } });
                if reject.is_for_the_fee() {
                    return self.keep_poor(now, peer, transaction);
                }
                if let Some(missing) = missing
                    && !self.pair(now, Some(peer), &transaction, &missing)
                {
                    self.intake.orphans.keep(now.uptime, peer, transaction, missing);
                }
            }
            Origin::Orphan { peer } => {
                if let Some(missing) = missing
                    && !self.pair(now, None, &transaction, &missing)
                {
                    self.intake.orphans.keep(now.uptime, peer, transaction, missing);
                }
            }
            Origin::Here { id } => {
                self.intake.here -= 1;
                let known = matches!(reject, Reject::Policy(PolicyReject::AlreadyInMempool));
                if known {
                    // Whoever hands in a transaction again wants it sent again.
                    self.publish_with_parents(now, &transaction);
                }
                self.actions.push(Action::Reply { id, result: Err(reject) });
            }
            Origin::Snapshot { entered_s } => {
                if missing.is_some() && self.pair_of_snapshot(now, &transaction, entered_s) {
                    return;
                }
                if reject.is_for_the_fee() {
                    self.intake.packages.keep_of_snapshot(transaction, entered_s);
                }
                self.intake.snapshot_running = false;
            }
        }
    }

    /// The pool stands on a new tip: what was checked too early may go on.
    pub(super) fn intake_connected(&mut self, now: Now, block: &Block) {
        for (request, arrival) in std::mem::take(&mut self.intake.early) {
            self.enqueue(request, arrival);
        }
        self.packages_connected();
        if !self.intake.orphans.is_empty() {
            let confirmed: BTreeSet<Txid> = block.transactions().iter().map(Tx::txid).collect();
            self.adopt(now, |parent| confirmed.contains(parent));
        }
        self.run_checks(now);
    }

    /// Sends some of this node's own transactions again, one after the other over time.
    pub(super) fn rebroadcast(&mut self, now: Now) {
        let after = self.intake.sent.take();
        let later = self.intake.own.iter().filter(|txid| after.is_none_or(|after| **txid > after));
        let batch: Vec<Txid> = later.take(REBROADCAST_MAX).copied().collect();
        if batch.len() == REBROADCAST_MAX {
            self.intake.sent = batch.last().copied();
        }
        for txid in batch {
            match self.mempool.get(&txid) {
                // Its child takes it along.
                Some(entry) if self.is_poor(entry) => {}
                Some(entry) => {
                    let transaction = Arc::clone(entry.transaction());
                    self.publish_with_parents(now, &transaction);
                }
                None => drop(self.intake.own.remove(&txid)),
            }
        }
    }
}

#[cfg(test)]
mod relay_tests;
#[cfg(test)]
mod tests;
