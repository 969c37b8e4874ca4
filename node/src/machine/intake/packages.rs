//! Packages on their way into the mempool: those handed in here, those of an earlier run, and those that this node puts
//! together from what peers send: a parent that pays too little, and the child that pays for it (Bitcoin Core:
//! `Find1P1CPackage`).
//!
//! On the wire a package is a message with both, as any two transactions are. Whoever takes them sends them on in a message
//! of their own; whoever gets only one of them keeps it for a while.
//!
//! What a stranger can do: send parents that pay too little, of which [`POOR_MAX`] and [`POOR_BYTES_MAX`] are kept, those of
//! whoever has most of them dropped first; and send children for them, each a package to check. Of those
//! [`PEER_PACKAGES_MAX`] run at once, and none again that was refused since the last block. Fees are looked at before
//! scripts. A transaction that breaks a rule is held against the peer that sent it, if that is known: peers send on only
//! what they have taken themselves.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::{Transaction, Txid, Wtxid};
use bytes::Bytes;
use causeway_chainspec::SatPerKvb;
use libp2p::PeerId;

use super::HERE_MAX;
use super::orphans::{ORPHAN_BYTES_MAX, ORPHAN_FOR};
use crate::machine::Node;
use crate::machine::action::Action;
use crate::machine::event::{Now, SubmitId, Ticket};
use crate::machine::report::Offence;
use crate::mempool::{
    Entry, NotYet, Package, PackageAnswer, PackageCheck, PackageResult, Reject, Submission, Turn, TxResult, fee_at,
};
use crate::wire::{TRANSACTIONS_BYTES_MAX, Topic, encode_transaction, encode_transactions};

/// Parents of peers that pay too little and wait for a child, their bytes together, and how long. One has at most
/// [`ORPHAN_BYTES_MAX`].
const POOR_MAX: usize = 128;
const POOR_BYTES_MAX: usize = 4 << 20;
const POOR_FOR: Duration = ORPHAN_FOR;

/// Packages of peers that are checked at once.
const PEER_PACKAGES_MAX: usize = 16;

/// Packages of peers that are remembered as refused, until the next block.
const REFUSED_MAX: usize = 1_024;

/// Packages, and what may become one.
#[derive(Debug, Default)]
pub(super) struct Packages {
    running: BTreeMap<Ticket, Running>,
    /// Checked against a tip that the pool is about to have.
    early: Vec<(PackageCheck, Running)>,
    /// By arrival.
    poor: VecDeque<Poor>,
    /// Of an earlier run, with the time at which each entered: no more than the snapshot has.
    poor_of_snapshot: BTreeMap<Txid, (Arc<Transaction>, u64)>,
    /// Parent and child.
    refused: BTreeSet<(Wtxid, Wtxid)>,
}

#[derive(Debug)]
struct Running {
    submission: Submission,
    origin: Origin,
}

/// Where a package came from.
#[derive(Clone, Copy, Debug)]
enum Origin {
    Here {
        id: SubmitId,
    },
    /// Who sent the parent, and who the child if that is known.
    Peers {
        parent: PeerId,
        child: Option<PeerId>,
    },
    Snapshot,
}

/// A parent that pays too little.
#[derive(Debug)]
struct Poor {
    transaction: Arc<Transaction>,
    txid: Txid,
    bytes: usize,
    peer: PeerId,
    until: Duration,
}

impl Packages {
    /// Transactions in packages, or waiting for one.
    pub(super) fn len(&self) -> usize {
        let on_the_way: usize = self.all().map(|running| running.submission.len()).sum();
        on_the_way + self.poor.len() + self.poor_of_snapshot.len()
    }

    fn all(&self) -> impl Iterator<Item = &Running> {
        self.running.values().chain(self.early.iter().map(|(_, running)| running))
    }

    /// Whether one more package of peers may be checked.
    fn may_start(&self) -> bool {
        let of_peers = self.all().filter(|running| matches!(running.origin, Origin::Peers { .. }));
        of_peers.count() < PEER_PACKAGES_MAX
    }

    /// Keeps a transaction of an earlier run that pays too little by itself.
    pub(super) fn keep_of_snapshot(&mut self, transaction: Arc<Transaction>, entered_s: u64) {
        self.poor_of_snapshot.insert(transaction.compute_txid(), (transaction, entered_s));
    }

    /// Forgets them: the earlier run has no more.
    pub(super) fn end_snapshot(&mut self) {
        self.poor_of_snapshot.clear();
    }

    /// Keeps a transaction of a peer that pays too little by itself.
    fn keep(&mut self, poor: Poor, now: Now) {
        self.poor.retain(|other| other.until > now.uptime && other.txid != poor.txid);
        if poor.bytes > ORPHAN_BYTES_MAX {
            return;
        }
        self.poor.push_back(poor);
        while self.poor.len() > POOR_MAX || self.poor.iter().map(|poor| poor.bytes).sum::<usize>() > POOR_BYTES_MAX {
            let mut kept: BTreeMap<PeerId, (usize, usize)> = BTreeMap::new();
            for poor in &self.poor {
                let (count, bytes) = kept.entry(poor.peer).or_default();
                (*count, *bytes) = (*count + 1, *bytes + poor.bytes);
            }
            // What of the two bounds a peer takes most of.
            let share = |(count, bytes): (usize, usize)| (count * POOR_BYTES_MAX).max(bytes * POOR_MAX);
            let most = kept.into_iter().max_by_key(|(_, kept)| share(*kept)).map(|(peer, _)| peer);
            let Some(place) = self.poor.iter().position(|poor| Some(poor.peer) == most) else { return };
            self.poor.remove(place);
        }
    }
}

impl Node {
    /// A package of a user of this node.
    pub(in crate::machine) fn submitted_package(
        &mut self,
        now: Now,
        id: SubmitId,
        package: &Package,
        max_feerate: Option<SatPerKvb>,
    ) {
        let submission = Submission::new(package, max_feerate, now.unix.as_secs());
        if self.intake.here + submission.len() > HERE_MAX {
            self.actions.push(Action::PackageReply { id, result: Err(NotYet::Busy) });
            return;
        }
        self.intake.here += submission.len();
        self.start_package(now, submission, Origin::Here { id });
    }

    fn start_package(&mut self, now: Now, mut submission: Submission, origin: Origin) {
        let turn = submission.step(&self.mempool, now.unix.as_secs());
        self.turn(now, Running { submission, origin }, turn);
    }

    /// The answer to a check of a package.
    pub(in crate::machine) fn package_checked(&mut self, now: Now, ticket: Ticket, answer: PackageAnswer) {
        let Some(mut running) = self.intake.packages.running.remove(&ticket) else { return };
        let mut departed = Vec::new();
        let turn = running.submission.answered(&mut self.mempool, answer, now.unix.as_secs(), &mut departed);
        self.intake.departed(&departed);
        self.turn(now, running, turn);
    }

    fn turn(&mut self, now: Now, running: Running, turn: Turn) {
        match turn {
            // The check may have seen a block that this node is about to be told of.
            Turn::Again(check) if self.committing.is_some() => self.intake.packages.early.push((check, running)),
            Turn::Check(check) | Turn::Again(check) => self.check_package(check, running),
            Turn::Done(result) => self.package_done(now, running.origin, result),
        }
    }

    fn check_package(&mut self, check: PackageCheck, running: Running) {
        let ticket = self.ticket();
        self.intake.packages.running.insert(ticket, running);
        self.actions.push(Action::CheckPackage { ticket, check });
    }

    fn package_done(&mut self, now: Now, origin: Origin, result: PackageResult) {
        let (mut in_pool, mut entered) = (Vec::new(), BTreeSet::new());
        for (transaction, result) in &result.results {
            match result {
                TxResult::Accepted { .. } => {
                    self.intake.counts.accepted += 1;
                    entered.insert(transaction.compute_txid());
                    in_pool.push(Arc::clone(transaction));
                }
                TxResult::Known { .. } => {
                    self.intake.counts.known += 1;
                    in_pool.push(Arc::clone(transaction));
                }
                TxResult::OtherWitness(_) => self.intake.counts.policy += 1,
                TxResult::Refused(reject) => self.intake.count(reject),
            }
        }
        match origin {
            Origin::Here { id } => {
                self.intake.here -= result.results.len();
                self.intake.own.extend(in_pool.iter().map(|transaction| transaction.compute_txid()));
                // Whoever hands in a transaction again wants it sent again.
                self.publish_together(now, &in_pool);
                self.actions.push(Action::PackageReply { id, result: Ok(result) });
            }
            Origin::Peers { parent, child } => {
                if !entered.is_empty() {
                    self.publish_together(now, &in_pool);
                }
                self.package_of_peers_done(now, parent, child, &result);
            }
            Origin::Snapshot => {
                // It may never have got through to anybody.
                self.intake.own.extend(entered.iter().copied());
                self.intake.snapshot_running = false;
            }
        }
        if !entered.is_empty() {
            self.adopt(now, |parent| entered.contains(parent));
        }
    }

    fn package_of_peers_done(&mut self, now: Now, parent: PeerId, child: Option<PeerId>, result: &PackageResult) {
        let [(of_parent, parent_result), (of_child, _)] = result.results.as_slice() else { return };
        let refused = &mut self.intake.packages.refused;
        if result.refused.is_some() && refused.len() < REFUSED_MAX {
            refused.insert((of_parent.compute_wtxid(), of_child.compute_wtxid()));
        }
        let is_poor = matches!(parent_result, TxResult::Refused(reject) if reject.is_for_the_fee());
        let txid = of_parent.compute_txid();
        if !is_poor {
            self.intake.packages.poor.retain(|poor| poor.txid != txid);
        }
        for ((_, result), peer) in result.results.iter().zip([Some(parent), child]) {
            if let (TxResult::Refused(Reject::Invalid(_)), Some(peer)) = (result, peer) {
                self.punish(now, peer, Offence::InvalidTransaction);
            }
        }
        if is_poor {
            self.pair_orphans(now, &txid);
        }
    }

    /// A transaction of a peer pays too little by itself: a child may be here, or come.
    pub(super) fn keep_poor(&mut self, now: Now, peer: PeerId, transaction: Arc<Transaction>) {
        let (txid, bytes) = (transaction.compute_txid(), transaction.total_size());
        let poor = Poor { transaction, txid, bytes, peer, until: now.uptime + POOR_FOR };
        self.intake.packages.keep(poor, now);
        self.pair_orphans(now, &txid);
    }

    /// Begins a package of a parent that pays too little with an orphan that misses it, the newest first: an older one may
    /// have been replaced (Core: `GetChildrenFromSamePeer`).
    fn pair_orphans(&mut self, now: Now, parent: &Txid) {
        while self.intake.packages.may_start()
            && let Some(orphan) = self.intake.orphans.take_newest(parent)
        {
            if self.begin_pair(now, None, &orphan.transaction, parent) == Pairing::Begun {
                break;
            }
        }
    }

    /// A transaction of a peer misses an output of a parent: begins their package if the parent is here and pays too
    /// little. Says whether the child need not be kept.
    pub(super) fn pair(&mut self, now: Now, peer: Option<PeerId>, child: &Arc<Transaction>, missing: &Txid) -> bool {
        self.begin_pair(now, peer, child, missing) != Pairing::No
    }

    fn begin_pair(&mut self, now: Now, peer: Option<PeerId>, child: &Arc<Transaction>, missing: &Txid) -> Pairing {
        let packages = &self.intake.packages;
        let poor = packages.poor.iter().find(|poor| poor.txid == *missing && poor.until > now.uptime);
        let Some(poor) = poor.filter(|_| packages.may_start()) else { return Pairing::No };
        let (parent, parent_peer) = (Arc::clone(&poor.transaction), poor.peer);
        if packages.refused.contains(&(parent.compute_wtxid(), child.compute_wtxid())) {
            return Pairing::Refused;
        }
        let Ok(package) = Package::new(vec![parent, Arc::clone(child)]) else { return Pairing::Refused };
        let submission = Submission::new(&package, None, now.unix.as_secs());
        self.start_package(now, submission, Origin::Peers { parent: parent_peer, child: peer });
        Pairing::Begun
    }

    /// A transaction of an earlier run misses an output: begins its package with the parents that pay too little. Says
    /// whether it has.
    pub(super) fn pair_of_snapshot(&mut self, now: Now, child: &Arc<Transaction>, entered_s: u64) -> bool {
        let inputs: BTreeSet<Txid> = child.input.iter().map(|input| input.previous_output.txid).collect();
        let poor = &self.intake.packages.poor_of_snapshot;
        let parents = inputs.iter().filter_map(|txid| poor.get(txid)).cloned();
        let members: Vec<(Arc<Transaction>, u64)> = parents.chain([(Arc::clone(child), entered_s)]).collect();
        if members.len() < 2 {
            return false;
        }
        let (transactions, times): (Vec<_>, Vec<_>) = members.into_iter().unzip();
        let Ok(package) = Package::new(transactions) else { return false };
        self.start_package(now, Submission::entered_at(&package, &times), Origin::Snapshot);
        true
    }

    /// The pool stands on a new tip: what was checked too early may go on, and what was refused may fit.
    pub(super) fn packages_connected(&mut self) {
        self.intake.packages.refused.clear();
        for (check, running) in std::mem::take(&mut self.intake.packages.early) {
            self.check_package(check, running);
        }
    }

    /// Sends a transaction of the pool, with those of its parents that pay too little to go alone.
    pub(super) fn publish_with_parents(&mut self, now: Now, transaction: &Arc<Transaction>) {
        let entry = self.mempool.get(&transaction.compute_txid());
        let parents = entry.into_iter().flat_map(Entry::parents).filter_map(|txid| self.mempool.get(txid));
        let poor = parents.filter(|parent| self.is_poor(parent)).map(|parent| Arc::clone(parent.transaction()));
        let together: Vec<Arc<Transaction>> = poor.chain([Arc::clone(transaction)]).collect();
        self.publish_together(now, &together);
    }

    /// Whether a transaction of the pool pays too little to be taken by itself.
    pub(super) fn is_poor(&self, entry: &Entry) -> bool {
        entry.fee() < fee_at(self.mempool.policy().min_relay, entry.vsize())
    }

    /// Sends transactions, parents first: in one message, if they are several and it has room for them.
    fn publish_together(&mut self, now: Now, transactions: &[Arc<Transaction>]) {
        let encode = |transaction: &Arc<Transaction>| Bytes::from(encode_transaction(transaction));
        let encoded: Vec<Bytes> = transactions.iter().map(encode).collect();
        let bytes = encode_transactions(&encoded, now.nonce());
        if transactions.len() < 2 || bytes.len() > TRANSACTIONS_BYTES_MAX {
            return transactions.iter().for_each(|transaction| self.publish_transaction(now, transaction));
        }
        self.actions.push(Action::Publish { topic: Topic::Transactions, bytes });
    }
}

/// What came of putting a parent and a child together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pairing {
    /// Their package is being checked.
    Begun,
    /// They are no package, or one that was refused a moment ago.
    Refused,
    /// The parent is not here, or there are too many others: the child may wait.
    No,
}

#[cfg(test)]
mod tests;
