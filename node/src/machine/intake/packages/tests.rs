use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::consensus::deserialize;
use bitcoin::{OutPoint, Transaction, Txid, Witness};
use bytes::Bytes;
use libp2p::PeerId;

use super::{HERE_MAX, PEER_PACKAGES_MAX, POOR_FOR, POOR_MAX};
use crate::machine::jobs::CheckJob;
use crate::machine::{Action, Event, GossipId, Node, Now, RelayVerdict, Report, Setup, SubmitId, Ticket};
use crate::mempool::snapshot::{SnapshotEntry, decode, encode};
use crate::mempool::{NotYet, Package, PackageCheck, PackageResult, TxResult};
use crate::testing::{Bench, COIN, START_S, bump, commitment, first_output, pay, setup};
use crate::wire::{Topic, decode_transactions, encode_transaction, encode_transactions};

/// Longer than it takes until own transactions are sent again.
const REBROADCAST: Duration = Duration::from_secs(31);

enum Job {
    Check(Ticket, CheckJob),
    Package(Ticket, PackageCheck),
}

/// A full node on a chain with coins, and what it wants done.
struct Alone {
    bench: Bench,
    node: Node,
    uptime: Duration,
    names: u64,
    jobs: VecDeque<Job>,
    /// Packages that were checked, or their transactions one by one.
    package_checks: usize,
    /// The transactions of each message that was sent.
    sent: Vec<Vec<Txid>>,
    relayed: Vec<RelayVerdict>,
    results: Vec<Result<PackageResult, NotYet>>,
    punished: Vec<PeerId>,
}

impl Alone {
    fn new() -> Self {
        Self::after(Bench::new(), Vec::new())
    }

    /// A node that had this mempool in an earlier run.
    fn after(bench: Bench, snapshot: Vec<SnapshotEntry>) -> Self {
        let node = Node::new(Setup { snapshot, ..setup(&bench.chain.spec, &bench.chain.tip) });
        let mut alone = Self {
            bench,
            node,
            uptime: Duration::from_secs(1),
            names: 0,
            jobs: VecDeque::new(),
            package_checks: 0,
            sent: Vec::new(),
            relayed: Vec::new(),
            results: Vec::new(),
            punished: Vec::new(),
        };
        alone.handle(Event::Tick);
        alone
    }

    fn handle(&mut self, event: Event) {
        let now = Now { uptime: self.uptime, unix: Duration::from_secs(START_S) + self.uptime };
        let mut read = Vec::new();
        for action in self.node.handle(now, event).unwrap() {
            match action {
                Action::Read { ticket, job } => read.push(Event::Read { ticket, message: job.run() }),
                Action::Check { ticket, job } => self.jobs.push_back(Job::Check(ticket, job)),
                Action::CheckPackage { ticket, check } => self.jobs.push_back(Job::Package(ticket, check)),
                Action::Publish { topic: Topic::Transactions, bytes } => {
                    let transactions = decode_transactions(bytes).unwrap();
                    let txid = |bytes: &Bytes| deserialize::<Transaction>(bytes).unwrap().compute_txid();
                    self.sent.push(transactions.iter().map(txid).collect());
                }
                Action::Relay { verdict, .. } => self.relayed.push(verdict),
                Action::PackageReply { result, .. } => self.results.push(result),
                Action::Report(Report::Misbehaved { peer, .. }) => self.punished.push(peer),
                _ => {}
            }
        }
        read.into_iter().for_each(|event| self.handle(event));
    }

    /// Does all jobs.
    fn work(&mut self) {
        while let Some(job) = self.jobs.pop_front() {
            match job {
                Job::Check(ticket, job) => {
                    let results = job.run(&self.bench.chain).unwrap();
                    self.handle(Event::Checked { ticket, results });
                }
                Job::Package(ticket, check) => {
                    self.package_checks += 1;
                    let answer = check.run(&self.bench.chain).unwrap();
                    self.handle(Event::PackageChecked { ticket, answer });
                }
            }
        }
    }

    /// A new peer.
    fn peer(&mut self) -> PeerId {
        let peer = PeerId::random();
        self.handle(Event::Connected { peer });
        peer
    }

    /// A message of a peer arrives; its transactions are checked later.
    fn receive(&mut self, peer: PeerId, transactions: &[&Transaction]) {
        self.names += 1;
        let encoded: Vec<Bytes> = transactions.iter().map(|one| Bytes::from(encode_transaction(one))).collect();
        let bytes = encode_transactions(&encoded, self.names);
        self.handle(Event::Gossip { peer, id: GossipId(self.names), topic: Topic::Transactions, bytes });
    }

    /// A message of a peer, and all that comes of it.
    fn gossip(&mut self, peer: PeerId, transactions: &[&Transaction]) {
        self.receive(peer, transactions);
        self.work();
    }

    fn submit_package(&mut self, transactions: &[&Transaction]) {
        self.names += 1;
        let transactions = transactions.iter().map(|one| Arc::new((*one).clone())).collect();
        let package = Package::new(transactions).unwrap();
        self.handle(Event::SubmitPackage { id: SubmitId(self.names), package, max_feerate: None });
    }

    fn submit(&mut self, transaction: &Transaction) {
        self.names += 1;
        self.handle(Event::Submit { id: SubmitId(self.names), transaction: transaction.clone() });
        self.work();
    }

    /// A channel's close without fee, and the child that pays for it.
    fn pair(&mut self) -> (Transaction, Transaction) {
        let parent = commitment(self.bench.coin(), 0);
        let child = bump(&parent, self.bench.coin(), 2_000);
        (parent, child)
    }

    fn has(&self, transaction: &Transaction) -> bool {
        self.node.mempool().contains(&transaction.compute_txid())
    }
}

fn txids(transactions: &[&Transaction]) -> Vec<Txid> {
    transactions.iter().map(|transaction| transaction.compute_txid()).collect()
}

#[test]
fn a_pair_from_peers_enters_however_it_comes_and_is_sent_on_together() {
    // In one message; one after the other; the child first; from two peers.
    for way in 0..5 {
        let mut alone = Alone::new();
        let (parent, child) = alone.pair();
        let (one, other) = (alone.peer(), alone.peer());
        match way {
            0 => alone.gossip(one, &[&parent, &child]),
            1 => alone.gossip(one, &[&child, &parent]),
            2 => {
                alone.gossip(one, &[&parent]);
                assert!(!alone.has(&parent) && alone.sent.is_empty());
                alone.gossip(one, &[&child]);
            }
            3 => {
                alone.gossip(one, &[&child]);
                alone.gossip(one, &[&parent]);
            }
            _ => {
                alone.gossip(one, &[&child]);
                alone.gossip(other, &[&parent]);
            }
        }
        assert!(alone.has(&parent) && alone.has(&child), "way {way}");
        assert_eq!(alone.sent, [txids(&[&parent, &child])], "way {way}");
        // What came is not sent on: another node would take neither by itself.
        assert!(alone.relayed.iter().all(|verdict| *verdict == RelayVerdict::Ignore));
        assert_eq!(alone.punished, []);
    }
}

#[test]
fn what_stands_on_a_pair_follows_it() {
    let mut alone = Alone::new();
    let coin = alone.bench.coin();
    let parent = pay(&[coin], &[COIN]);
    let child = pay(&[first_output(&parent)], &[COIN - 2_000]);
    let grandchild = pay(&[first_output(&child)], &[COIN - 4_000]);
    let peer = alone.peer();
    alone.gossip(peer, &[&grandchild]);
    alone.gossip(peer, &[&parent, &child]);
    assert!(alone.has(&grandchild), "an orphan of the child");
    assert_eq!(alone.sent[0], txids(&[&parent, &child]));
}

#[test]
fn a_pair_that_was_refused_is_not_checked_again_before_the_next_block() {
    let mut alone = Alone::new();
    let parent = commitment(alone.bench.coin(), 0);
    let stingy = bump(&parent, alone.bench.coin(), 1);
    let peer = alone.peer();
    alone.gossip(peer, &[&parent, &stingy]);
    let first = alone.package_checks;
    assert!(first > 0);
    for _ in 0..10 {
        alone.gossip(peer, &[&parent, &stingy]);
        alone.gossip(peer, &[&stingy]);
    }
    assert_eq!(alone.package_checks, first);
    assert!(alone.node.mempool().is_empty() && alone.punished.is_empty());
    // Another child may bring the parent in.
    let child = bump(&parent, alone.bench.coin(), 2_000);
    alone.gossip(peer, &[&child]);
    assert!(alone.has(&parent) && alone.has(&child));
}

#[test]
fn a_wrong_child_is_held_against_who_sent_it_and_its_parent_may_still_enter() {
    let mut alone = Alone::new();
    let (parent, child) = alone.pair();
    let mut wrong = child.clone();
    wrong.input[1].witness = Witness::from_slice(&[[0x52]]);
    let (honest, liar) = (alone.peer(), alone.peer());
    alone.gossip(honest, &[&parent]);
    alone.gossip(liar, &[&wrong]);
    assert_eq!(alone.punished, [liar]);
    alone.gossip(honest, &[&child]);
    assert!(alone.has(&parent) && alone.has(&child));
    assert_eq!(alone.punished, [liar]);
}

#[test]
fn a_wrong_parent_is_held_against_who_sent_it() {
    let mut alone = Alone::new();
    let (mut parent, _) = alone.pair();
    parent.input[0].witness = Witness::from_slice(&[[0x52]]);
    let child = bump(&parent, alone.bench.coin(), 2_000);
    let (liar, honest) = (alone.peer(), alone.peer());
    // Its fee is looked at before its scripts.
    alone.gossip(liar, &[&parent]);
    assert_eq!(alone.punished, []);
    alone.gossip(honest, &[&child]);
    assert_eq!(alone.punished, [liar]);
    assert_eq!(alone.node.load().transactions, 0, "it is not kept");
}

/// Whoever floods pushes out only his own.
#[test]
fn parents_without_children_are_bounded_and_a_flood_keeps_nobody_elses_out() {
    let mut alone = Alone::new();
    let (parent, child) = alone.pair();
    let (honest, flooder) = (alone.peer(), alone.peer());
    alone.gossip(honest, &[&parent]);
    let size = |alone: &Alone| alone.node.load().transactions;
    for _ in 0..POOR_MAX + 50 {
        let poor = commitment(alone.bench.coin(), 0);
        alone.gossip(flooder, &[&poor]);
        assert!(size(&alone) <= POOR_MAX);
    }
    assert_eq!(size(&alone), POOR_MAX);
    alone.gossip(honest, &[&child]);
    assert!(alone.has(&parent) && alone.has(&child));
    // Time makes room.
    alone.uptime += POOR_FOR;
    let poor = commitment(alone.bench.coin(), 0);
    alone.gossip(flooder, &[&poor]);
    assert_eq!(size(&alone), 1);
}

#[test]
fn packages_of_peers_that_are_checked_at_once_are_bounded() {
    let mut alone = Alone::new();
    let peer = alone.peer();
    let pairs: Vec<_> = (0..PEER_PACKAGES_MAX + 4).map(|_| alone.pair()).collect();
    for (parent, _) in &pairs {
        alone.gossip(peer, &[parent]);
    }
    // The children's own checks are done, the packages' are not.
    for (_, child) in &pairs {
        alone.receive(peer, &[child]);
        while let Some(place) = alone.jobs.iter().position(|job| matches!(job, Job::Check(..))) {
            let Some(Job::Check(ticket, job)) = alone.jobs.remove(place) else { unreachable!("it was there") };
            let results = job.run(&alone.bench.chain).unwrap();
            alone.handle(Event::Checked { ticket, results });
        }
    }
    assert_eq!(alone.jobs.len(), PEER_PACKAGES_MAX);
    alone.work();
    assert_eq!(alone.node.mempool().len(), 2 * PEER_PACKAGES_MAX);
    // The others wait as orphans for their parents to be sent again.
    for (parent, _) in &pairs {
        alone.gossip(peer, &[parent]);
    }
    assert_eq!(alone.node.mempool().len(), 2 * pairs.len());
}

#[test]
fn a_package_handed_in_here_is_sent_and_sent_again_in_one_message() {
    let mut alone = Alone::new();
    let (parent, child) = alone.pair();
    alone.submit_package(&[&parent, &child]);
    alone.work();
    let result = alone.results.pop().unwrap().unwrap();
    assert!(result.refused.is_none());
    assert!(result.results.iter().all(|(_, result)| matches!(result, TxResult::Accepted { .. })));
    let both = txids(&[&parent, &child]);
    assert_eq!(std::mem::take(&mut alone.sent), std::slice::from_ref(&both));
    alone.uptime += REBROADCAST;
    alone.handle(Event::Tick);
    assert_eq!(std::mem::take(&mut alone.sent), [both]);
    // Whoever bumps the child gets the parent taken along: not everybody may have it.
    let again = bump(&parent, alone.bench.coin(), 9_000);
    alone.submit(&again);
    assert!(alone.has(&again) && !alone.has(&child));
    assert_eq!(alone.sent, [txids(&[&parent, &again])]);
}

#[test]
fn packages_count_among_what_is_handed_in_here() {
    let mut alone = Alone::new();
    for _ in 0..HERE_MAX / 2 {
        let (parent, child) = alone.pair();
        alone.submit_package(&[&parent, &child]);
    }
    assert!(alone.results.is_empty());
    let (parent, child) = alone.pair();
    alone.submit_package(&[&parent, &child]);
    assert!(matches!(alone.results.as_slice(), [Err(NotYet::Busy)]));
    alone.work();
    assert_eq!(alone.results.len(), HERE_MAX / 2 + 1);
    alone.submit_package(&[&parent, &child]);
    alone.work();
    assert!(alone.has(&parent) && alone.has(&child));
}

#[test]
fn pairs_survive_a_restart() {
    let mut bench = Bench::new();
    let mut pairs = Vec::new();
    for _ in 0..5 {
        let parent = commitment(bench.coin(), 0);
        let child = bump(&parent, bench.coin(), 2_000);
        assert!(bench.submit_package(&[&parent, &child]).refused.is_none());
        pairs.push((parent, child));
    }
    let plain: OutPoint = bench.coin();
    bench.add(&pay(&[plain], &[COIN - 1_000]));
    let entries = decode(&encode(&bench.pool), usize::MAX).unwrap();
    let entered = bench.now_s;
    let mut alone = Alone::after(bench, entries);
    alone.work();
    assert_eq!(alone.node.mempool().len(), 11);
    for (parent, child) in &pairs {
        assert!(alone.has(parent) && alone.has(child));
        let entry = alone.node.mempool().get(&child.compute_txid()).unwrap();
        assert_eq!(entry.entered_s(), entered, "they have not become younger");
    }
    assert_eq!(alone.node.load().transactions, 0);
    alone.uptime += REBROADCAST;
    alone.handle(Event::Tick);
    for (parent, child) in &pairs {
        assert!(alone.sent.contains(&txids(&[parent, child])));
    }
}
