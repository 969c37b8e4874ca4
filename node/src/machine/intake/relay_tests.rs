//! What an honest node sends on, and what others hold against it.

use std::time::Duration;

use bitcoin::{OutPoint, Transaction, Witness};
use bytes::Bytes;
use causeway_chainspec::SatPerKvb;
use libp2p::PeerId;

use super::QUEUE_PER_PEER;
use crate::machine::{Action, Event, GossipId, Node, Now, Offence, RelayVerdict, Report, Setup};
use crate::mempool::Policy;
use crate::testing::{COIN, Chain, START_S, first_output, pay, setup};
use crate::wire::{Topic, encode_transaction, encode_transactions};

/// A full node, whose network and workers are played by the test.
struct TestNode {
    node: Node,
    chain: Chain,
    uptime: Duration,
    names: u64,
    /// What it sent: by itself, and on.
    sent: Vec<Bytes>,
    verdicts: Vec<RelayVerdict>,
    offences: Vec<(PeerId, Offence)>,
    bans: Vec<PeerId>,
    jobs: Vec<Action>,
}

const LIAR: u8 = 9;

fn peer(number: u8) -> PeerId {
    PeerId::from_bytes(&[0, 1, number]).unwrap()
}

impl TestNode {
    fn new(chain: &Chain, policy: Policy) -> Self {
        let node = Node::new(Setup { policy, ..setup(&chain.spec, &chain.tip) });
        let mut node = Self {
            node,
            chain: chain.clone(),
            uptime: Duration::from_secs(1),
            names: 0,
            sent: Vec::new(),
            verdicts: Vec::new(),
            offences: Vec::new(),
            bans: Vec::new(),
            jobs: Vec::new(),
        };
        node.handle(Event::Tick);
        for number in [1, 2, LIAR] {
            node.handle(Event::Connected { peer: peer(number) });
        }
        node
    }

    fn handle(&mut self, event: Event) {
        let now = Now { uptime: self.uptime, unix: Duration::from_secs(START_S) + self.uptime };
        for action in self.node.handle(now, event).unwrap() {
            match action {
                Action::Read { .. } | Action::Check { .. } => self.jobs.push(action),
                Action::Publish { topic: Topic::Transactions, bytes } => self.sent.push(bytes),
                Action::Relay { verdict, .. } => self.verdicts.push(verdict),
                Action::Ban { peer, .. } => self.bans.push(peer),
                Action::Report(Report::Misbehaved { peer, offence, .. }) => self.offences.push((peer, offence)),
                _ => {}
            }
        }
    }

    /// Does the work that was asked for.
    fn work(&mut self) {
        while !self.jobs.is_empty() {
            let event = match self.jobs.remove(0) {
                Action::Read { ticket, job } => Event::Read { ticket, message: job.run() },
                Action::Check { ticket, job } => Event::Checked { ticket, results: job.run(&self.chain).unwrap() },
                other => panic!("{other:?}"),
            };
            self.handle(event);
        }
    }

    /// Takes a message of a peer in, and sends it on if that is the verdict. Whatever was to be sent is sent.
    fn gossip(&mut self, from: PeerId, message: &Bytes) -> RelayVerdict {
        self.names += 1;
        self.handle(Event::Gossip {
            peer: from,
            id: GossipId(self.names),
            topic: Topic::Transactions,
            bytes: message.clone(),
        });
        self.work();
        let verdict = *self.verdicts.last().expect("each has one");
        if verdict == RelayVerdict::Accept {
            self.sent.push(message.clone());
        }
        self.uptime += Duration::from_secs(1);
        self.handle(Event::Tick);
        verdict
    }

    fn has(&self, transaction: &Transaction) -> bool {
        self.node.mempool().contains(&transaction.compute_txid())
    }
}

fn message(transactions: &[&Transaction], nonce: u64) -> Bytes {
    let list: Vec<Bytes> = transactions.iter().map(|transaction| encode_transaction(transaction).into()).collect();
    encode_transactions(&list, nonce)
}

/// The same without the right to spend.
fn without_right(mut transaction: Transaction) -> Transaction {
    for input in &mut transaction.input {
        input.witness = Witness::from_slice(&[[0x52]]);
    }
    transaction
}

/// A chain with this many coins.
fn chain(coins: usize) -> (Chain, Vec<OutPoint>) {
    let mut bench = crate::testing::Bench::new();
    let coins = (0..coins).map(|_| bench.coin()).collect();
    (bench.chain, coins)
}

/// Sends messages through a relayer to the next node, which has to end with these transactions and nothing against the relayer.
fn assert_no_blame(relayer: &mut TestNode, next: &mut TestNode, messages: &[Bytes], good: &[Transaction]) {
    for message in messages {
        relayer.gossip(peer(LIAR), message);
        for sent in std::mem::take(&mut relayer.sent) {
            next.gossip(peer(1), &sent);
        }
    }
    assert_eq!((&next.offences, &next.bans), (&vec![], &vec![]));
    for transaction in good {
        assert!(relayer.has(transaction) && next.has(transaction));
    }
}

#[test]
fn a_rider_that_only_the_next_node_can_judge_is_not_sent_on() {
    let (chain, coins) = chain(12);
    let parent = pay(&coins[..1], &[COIN - 1_000]);
    let child = without_right(pay(&[first_output(&parent)], &[COIN - 5_000]));
    let (mut relayer, mut next) = (TestNode::new(&chain, Policy::default()), TestNode::new(&chain, Policy::default()));
    assert_eq!(next.gossip(peer(2), &message(&[&parent], 0)), RelayVerdict::Accept);
    let good: Vec<Transaction> = coins[1..].iter().map(|coin| pay(&[*coin], &[COIN - 1_000])).collect();
    let messages: Vec<Bytes> = (1..).zip(&good).map(|(nonce, good)| message(&[&child, good], nonce)).collect();
    assert_no_blame(&mut relayer, &mut next, &messages, &good);
    assert!(relayer.verdicts.iter().all(|verdict| *verdict == RelayVerdict::Ignore), "what came is not what is sent");
}

#[test]
fn what_policy_refuses_unread_is_not_sent_on() {
    let (chain, coins) = chain(12);
    // It asks for more than the rider pays, so that nobody looks at the rider's witness.
    let dear = Policy { min_relay: SatPerKvb(50_000), ..Policy::default() };
    let (mut relayer, mut next) = (TestNode::new(&chain, dear), TestNode::new(&chain, Policy::default()));
    let rider = without_right(pay(&coins[..1], &[COIN - 1_000]));
    let good: Vec<Transaction> = coins[1..].iter().map(|coin| pay(&[*coin], &[COIN - 50_000])).collect();
    let messages: Vec<Bytes> = (1..).zip(&good).map(|(nonce, good)| message(&[good, &rider], nonce)).collect();
    assert_no_blame(&mut relayer, &mut next, &messages, &good);
    assert!(!relayer.has(&rider) && !next.has(&rider));
}

#[test]
fn the_witness_that_is_sent_on_is_the_one_that_was_checked() {
    let (chain, coins) = chain(2);
    let (known, good) = (pay(&coins[..1], &[COIN - 1_000]), pay(&coins[1..], &[COIN - 1_000]));
    let (mut relayer, mut next) = (TestNode::new(&chain, Policy::default()), TestNode::new(&chain, Policy::default()));
    relayer.gossip(peer(2), &message(&[&known], 0));
    relayer.sent.clear();
    // The relayer has this transaction, with another witness.
    let other = without_right(known.clone());
    assert_no_blame(&mut relayer, &mut next, &[message(&[&other, &good], 1)], std::slice::from_ref(&good));
    // With this one it knows all of it.
    let again = pay(&[first_output(&good)], &[COIN - 3_000]);
    assert_eq!(relayer.gossip(peer(LIAR), &message(&[&known, &again], 2)), RelayVerdict::Accept);
    assert_eq!(relayer.gossip(peer(LIAR), &message(&[&known, &again], 3)), RelayVerdict::Ignore, "nothing is new");
}

#[test]
fn whoever_sends_what_no_node_can_take_is_sent_away() {
    let (chain, coins) = chain(6);
    let mut node = TestNode::new(&chain, Policy::default());
    for (nonce, coin) in (0..).zip(&coins[1..]) {
        let good = pay(&[*coin], &[COIN - 1_000]);
        let wrong = without_right(pay(&coins[..1], &[COIN - 1_000 - nonce]));
        assert_eq!(node.gossip(peer(LIAR), &message(&[&good, &wrong], nonce)), RelayVerdict::Reject);
        assert!(node.has(&good), "it is right all the same");
    }
    assert_eq!(node.offences, [(peer(LIAR), Offence::InvalidTransaction); 5]);
    assert_eq!(node.bans, [peer(LIAR)]);
    assert_eq!(node.sent.len(), 5, "what is right is sent on by itself");
}

#[test]
fn what_the_pool_refuses_costs_its_sender_until_it_is_not_read_any_more() {
    let (chain, coins) = chain(1);
    let mut node = TestNode::new(&chain, Policy::default());
    // All spend the same coin, and only the first pays enough for that.
    let first = pay(&coins, &[COIN - 100_000]);
    assert_eq!(node.gossip(peer(LIAR), &message(&[&first], 0)), RelayVerdict::Accept);
    let (mut read, mut nonce) = (0_usize, 0);
    for _ in 0..200 {
        let list: Vec<Transaction> = (0..100)
            .map(|_| {
                nonce += 1;
                pay(&coins, &[COIN - 1_000 - nonce])
            })
            .collect();
        node.names += 1;
        let bytes = message(&list.iter().collect::<Vec<_>>(), nonce);
        let event = Event::Gossip { peer: peer(LIAR), id: GossipId(node.names), topic: Topic::Transactions, bytes };
        node.handle(event);
        read += 100 * node.jobs.len();
        node.work();
        node.uptime += Duration::from_millis(10);
    }
    // A burst, what was under way when it ended, and two seconds' worth.
    assert!((2_048..=2_048 + 2 * 128 + 100).contains(&read), "{read} of 20,000");
    assert_eq!((&node.offences, &node.bans), (&vec![], &vec![]));
    let other = pay(&[first_output(&first)], &[COIN - 200_000]);
    assert_eq!(node.gossip(peer(2), &message(&[&other], 1)), RelayVerdict::Accept, "others are heard");
}

#[test]
fn one_peer_does_not_fill_the_queue() {
    let (chain, coins) = chain(2_048);
    let mut node = TestNode::new(&chain, Policy::default());
    for (nonce, coins) in (0..).zip(coins.chunks(128)) {
        let list: Vec<Transaction> = coins.iter().map(|coin| pay(&[*coin], &[COIN - 1_000])).collect();
        let bytes = message(&list.iter().collect::<Vec<_>>(), nonce);
        let id = GossipId(nonce + 1);
        node.handle(Event::Gossip { peer: peer(LIAR), id, topic: Topic::Transactions, bytes });
        // Read, and not checked.
        let (read, rest): (Vec<Action>, Vec<Action>) =
            std::mem::take(&mut node.jobs).into_iter().partition(|job| matches!(job, Action::Read { .. }));
        node.jobs = rest;
        for job in read {
            let Action::Read { ticket, job } = job else { continue };
            let event = Event::Read { ticket, message: job.run() };
            node.handle(event);
        }
    }
    let waiting = node.node.load().transactions;
    assert!(waiting <= QUEUE_PER_PEER, "{waiting}");
    assert!(waiting > QUEUE_PER_PEER / 2, "{waiting}");
    node.work();
    assert_eq!(node.node.mempool().len(), waiting);
}
