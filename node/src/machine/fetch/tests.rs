//! Of whom a long block is fetched, and who gets it from here.

use std::collections::VecDeque;
use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{Keypair, SECP256K1};
use bytes::Bytes;
use causeway_chainspec::{ChainId, Height, Validator};
use causeway_consensus::InvalidBlock;
use causeway_consensus::bft::{Key, Message, Proposal, SignedProposal, ValidatorSet};
use libp2p::PeerId;

use super::{AFTER, BUSY_AGAIN, DUE_MAX, DUE_MAX_UNPROVEN, Line, Reliability, TRIP, TRIP_UNPROVEN};
use crate::machine::{
    Action, Event, GossipId, InboundId, Node, Now, Offence, OutboundId, RelayVerdict, Report, RequestFailure, Setup,
    Ticket, Verdict,
};
use crate::testing::{Chain, START_S, setup};
use crate::wire::{
    BodyMessage, PUSHED_BYTES_MAX, Request, Response, Topic, decode_body, encode_announcement, encode_body,
    encode_consensus,
};

const MS: Duration = Duration::from_millis(1);

/// Bytes of a long block.
const LONG: usize = 1_000_000;

/// A full node whose network and workers are played by the test.
struct Site {
    node: Node,
    chain: ChainId,
    set: ValidatorSet,
    parent: BlockHash,
    height: Height,
    uptime: Duration,
    names: u64,
    /// Questions of the node for bodies that were not taken out yet.
    asked: VecDeque<(PeerId, OutboundId)>,
    judging: Vec<Ticket>,
    verdicts: Vec<(GossipId, RelayVerdict)>,
    published: Vec<BodyMessage>,
    handed_out: Option<Option<Bytes>>,
    offences: Vec<(PeerId, Offence)>,
}

fn peer(number: u8) -> PeerId {
    PeerId::from_bytes(&[0, 1, number]).unwrap()
}

fn key(index: u8) -> Keypair {
    Keypair::from_seckey_slice(SECP256K1, &[index + 1; 32]).unwrap()
}

impl Site {
    /// With so many peers.
    fn new(peers: u8) -> Self {
        let chain = Chain::new();
        let keys = (0..4).map(|index| Validator { key: key(index).x_only_public_key().0, power: 1 });
        let set = ValidatorSet::new(&keys.collect::<Vec<_>>()).unwrap();
        let of_height = set.clone();
        let node =
            Node::new(Setup { validators: Box::new(move |_| of_height.clone()), ..setup(&chain.spec, &chain.tip) });
        let mut site = Self {
            node,
            chain: chain.spec.chain_id(),
            set,
            parent: chain.tip.hash(),
            height: chain.tip.height().next().unwrap(),
            uptime: Duration::from_secs(1),
            names: 0,
            asked: VecDeque::new(),
            judging: Vec::new(),
            verdicts: Vec::new(),
            published: Vec::new(),
            handed_out: None,
            offences: Vec::new(),
        };
        site.handle(Event::Tick);
        for number in 0..peers {
            site.handle(Event::Connected { peer: peer(number) });
        }
        site
    }

    fn handle(&mut self, event: Event) {
        let now = Now { uptime: self.uptime, unix: Duration::from_secs(START_S) + self.uptime };
        for action in self.node.handle(now, event).unwrap() {
            match action {
                Action::Verify { ticket, job } => self.handle(Event::Verified { ticket, result: job.run() }),
                Action::Request { peer, id, request: Request::Body { .. } } => self.asked.push_back((peer, id)),
                Action::Validate { ticket, .. } => self.judging.push(ticket),
                Action::Relay { id, verdict } => self.verdicts.push((id, verdict)),
                Action::Publish { topic: Topic::Bodies, bytes } => self.published.push(decode_body(bytes).unwrap()),
                Action::Respond { response: Response::Body(body), .. } => self.handed_out = Some(body),
                Action::Report(Report::Misbehaved { peer, offence, .. }) => self.offences.push((peer, offence)),
                _ => {}
            }
        }
    }

    /// Lets time pass.
    fn pass(&mut self, time: Duration) {
        let end = self.uptime + time;
        while let Some(at) = self.node.next_deadline().filter(|at| *at <= end) {
            self.uptime = at.max(self.uptime);
            self.handle(Event::Tick);
        }
        self.uptime = end;
    }

    fn gossip(&mut self, peer: PeerId, topic: Topic, bytes: Bytes) -> GossipId {
        self.names += 1;
        let id = GossipId(self.names);
        self.handle(Event::Gossip { peer, id, topic, bytes });
        id
    }

    /// Something with a header on the tip.
    fn block(&self, fill: u8, bytes: usize) -> Bytes {
        let mut block = vec![fill; bytes];
        block[..4].fill(0);
        block[4..36].copy_from_slice(self.parent.as_byte_array());
        block.into()
    }

    /// The proposer of a round proposes a block.
    fn propose(&mut self, round: u32, hash: BlockHash) {
        let proposer = self.set.proposer(self.chain, self.height, round).address();
        let key = (0..4).map(key).find(|key| Key::address(key) == proposer).unwrap();
        let proposal = Proposal::new(self.height, round, hash, None, proposer);
        let signature = Key::sign(&key, &proposal.digest(self.chain)).unwrap();
        let message = Message::Proposal(SignedProposal::new(proposal, signature));
        let bytes = encode_consensus(&message, self.names);
        self.gossip(peer(0), Topic::Consensus, bytes);
    }

    /// A long block that is proposed.
    fn proposed(&mut self, bytes: usize) -> (BlockHash, Bytes) {
        let block = self.block(7, bytes);
        let hash = BlockHash::hash(&block[..80]);
        self.propose(0, hash);
        (hash, block)
    }

    fn announce(&mut self, peer: PeerId, hash: BlockHash, bytes: usize) -> RelayVerdict {
        let bytes = encode_announcement(self.height, hash, u32::try_from(bytes).unwrap(), self.names);
        let id = self.gossip(peer, Topic::Bodies, bytes);
        self.verdicts.iter().find(|(of, _)| *of == id).expect("each has one").1
    }

    fn answer(&mut self, (peer, id): (PeerId, OutboundId), body: Option<Bytes>) {
        self.handle(Event::Response { peer, id, result: Ok(Response::Body(body)) });
    }

    fn refuse(&mut self, (peer, id): (PeerId, OutboundId)) {
        self.handle(Event::Response { peer, id, result: Err(RequestFailure::Refused) });
    }

    /// What a peer gets that asks for a block.
    fn hand_out(&mut self, hash: BlockHash) -> Option<Bytes> {
        self.names += 1;
        let request = Request::Body { height: self.height, hash };
        self.handle(Event::Request { peer: peer(0), id: InboundId(self.names), request });
        self.handed_out.take().expect("each question has an answer")
    }
}

#[test]
fn a_long_block_is_fetched_from_whoever_announced_it_and_from_nobody_else_until_it_is_due() {
    let mut site = Site::new(6);
    let (hash, block) = site.proposed(LONG);
    assert!(site.asked.is_empty(), "it may come by itself");
    assert_eq!(site.announce(peer(4), hash, LONG), RelayVerdict::Used);
    let asked = site.asked.pop_front().unwrap();
    assert_eq!(asked.0, peer(4));
    // Two more have it; two seconds for a megabyte are not over.
    site.announce(peer(2), hash, LONG);
    site.announce(peer(3), hash, LONG);
    site.pass(TRIP_UNPROVEN + DUE_MAX_UNPROVEN - MS);
    assert!(site.asked.is_empty());
    site.pass(2 * MS);
    let second = site.asked.pop_front().unwrap();
    assert!([peer(2), peer(3)].contains(&second.0));
    // What comes late is as good.
    site.answer(asked, Some(block));
    assert_eq!(site.judging.len(), 1);
    site.pass(Duration::from_secs(5));
    assert!(site.asked.is_empty());
}

#[test]
fn a_block_that_nobody_has_announced_is_asked_for_a_moment_later() {
    let mut site = Site::new(3);
    site.proposed(200);
    site.pass(AFTER - MS);
    assert!(site.asked.is_empty());
    site.pass(2 * MS);
    for _ in 0..3 {
        let asked = site.asked.pop_front().unwrap();
        site.answer(asked, None);
    }
    // All were asked: once more, after a while.
    assert!(site.asked.is_empty());
    site.pass(TRIP + MS);
    assert_eq!(site.asked.len(), 1);
}

#[test]
fn a_stranger_that_announces_and_sends_nothing_is_not_waited_for_if_one_has_it_that_has_sent_blocks() {
    let mut site = Site::new(4);
    let (first, block) = site.proposed(LONG);
    site.announce(peer(1), first, LONG);
    let asked = site.asked.pop_front().unwrap();
    site.answer(asked, Some(block));

    let second = BlockHash::hash(&site.block(8, 80));
    site.pass(Duration::from_secs(20));
    site.asked.clear();
    let round = site.node.status().round;
    site.announce(peer(2), second, LONG);
    site.propose(round, second);
    assert_eq!(site.asked.pop_front().unwrap().0, peer(2));
    // Another of whom nothing is known changes nothing.
    site.announce(peer(3), second, LONG);
    assert!(site.asked.is_empty());
    site.announce(peer(1), second, LONG);
    assert_eq!(site.asked.pop_front().unwrap().0, peer(1));
}

#[test]
fn a_stranger_that_says_that_a_short_block_is_long_is_waited_for_no_longer() {
    let mut site = Site::new(4);
    let (hash, _) = site.proposed(LONG);
    site.announce(peer(1), hash, 4_000_000);
    assert_eq!(site.asked.pop_front().unwrap().0, peer(1));
    site.pass(100 * MS);
    site.announce(peer(2), hash, 300);
    assert!(site.asked.is_empty());
    site.pass(TRIP_UNPROVEN - 100 * MS + MS);
    assert_eq!(site.asked.pop_front().unwrap().0, peer(2));
}

#[test]
fn a_stranger_that_was_late_is_not_waited_for_if_one_has_it_of_whom_nothing_is_known() {
    let mut site = Site::new(4);
    let (hash, _) = site.proposed(LONG);
    site.announce(peer(1), hash, LONG);
    site.pass(TRIP_UNPROVEN + DUE_MAX_UNPROVEN + MS);
    let second = BlockHash::hash(&site.block(8, 80));
    site.pass(Duration::from_secs(20));
    site.asked.clear();
    site.announce(peer(1), second, LONG);
    let round = site.node.status().round;
    site.propose(round, second);
    assert_eq!(site.asked.pop_front().unwrap().0, peer(1));
    site.announce(peer(2), second, LONG);
    assert_eq!(site.asked.pop_front().unwrap().0, peer(2));
    site.announce(peer(3), second, LONG);
    assert!(site.asked.is_empty(), "that one is as good as the next");
}

#[test]
fn whoever_was_late_is_asked_after_all_others() {
    let mut site = Site::new(4);
    let (hash, _) = site.proposed(LONG);
    site.announce(peer(1), hash, LONG);
    assert_eq!(site.asked.pop_front().unwrap().0, peer(1));
    site.pass(TRIP_UNPROVEN + DUE_MAX_UNPROVEN + MS);
    site.asked.clear();
    let another = BlockHash::hash(&site.block(9, 80));
    for number in [1, 2, 3] {
        site.announce(peer(number), another, LONG);
    }
    site.pass(Duration::from_secs(20));
    site.asked.clear();
    let round = site.node.status().round;
    site.propose(round, another);
    let mut order = Vec::new();
    while let Some(asked) = site.asked.pop_front() {
        order.push(asked.0);
        site.answer(asked, None);
    }
    assert_eq!(order[2], peer(1), "{order:?}");
    assert_eq!(order.len(), 4, "and only then whoever has said nothing");
}

#[test]
fn whoever_has_too_much_to_send_is_asked_again_and_nobody_who_has_not_the_block() {
    let mut site = Site::new(5);
    let (hash, block) = site.proposed(LONG);
    site.announce(peer(1), hash, LONG);
    site.announce(peer(2), hash, LONG);
    let mut busy = Vec::new();
    while let Some(asked) = site.asked.pop_front() {
        busy.push(asked.0);
        site.refuse(asked);
    }
    busy.sort();
    assert_eq!(busy, [peer(1), peer(2)]);
    site.pass(BUSY_AGAIN + MS);
    let asked = site.asked.pop_front().unwrap();
    assert!(busy.contains(&asked.0));
    // One that has it meanwhile is asked at once when that fails.
    site.announce(peer(3), hash, LONG);
    site.refuse(asked);
    while let Some(asked) = site.asked.pop_front() {
        if asked.0 == peer(3) {
            site.answer(asked, Some(block.clone()));
        } else {
            site.refuse(asked);
        }
    }
    assert_eq!(site.judging.len(), 1);
    assert!(site.offences.is_empty());
}

#[test]
fn a_block_is_passed_on_when_it_belongs_to_its_header_and_before_it_is_judged() {
    let mut site = Site::new(3);
    let (hash, block) = site.proposed(LONG);
    site.announce(peer(1), hash, LONG);
    let asked = site.asked.pop_front().unwrap();
    site.answer(asked, Some(block.clone()));
    assert_eq!(site.hand_out(hash), None);
    assert!(site.published.is_empty());
    let ticket = site.judging[0];
    site.handle(Event::Matched { ticket });
    assert_eq!(site.published, [BodyMessage::Announced { height: site.height, hash, bytes: 1_000_000 }]);
    assert_eq!(site.hand_out(hash), Some(block));
    // Nothing is said twice when it turns out to break a rule, and it is handed out no more.
    site.handle(Event::Validated { ticket, verdict: Verdict::Invalid(InvalidBlock::CoinbaseRepeated { index: 1 }) });
    assert_eq!(site.published.len(), 1);
    assert_eq!(site.hand_out(hash), None);
    assert!(site.offences.is_empty());
}

#[test]
fn a_short_block_is_sent_on_by_gossip_at_the_same_moment() {
    let mut site = Site::new(3);
    let (_, block) = site.proposed(300);
    let id = site.gossip(peer(1), Topic::Bodies, encode_body(site.height, &block));
    let (said, ticket) = (|site: &Site| site.verdicts.iter().filter(|(of, _)| *of == id).count(), site.judging[0]);
    assert_eq!(said(&site), 0);
    site.handle(Event::Matched { ticket });
    assert_eq!(site.verdicts.last(), Some(&(id, RelayVerdict::Accept)));
    site.handle(Event::Validated { ticket, verdict: Verdict::Invalid(InvalidBlock::CoinbaseRepeated { index: 1 }) });
    assert_eq!(said(&site), 1);
    assert!(site.published.is_empty());
}

#[test]
fn what_is_altered_is_neither_passed_on_nor_handed_out_and_is_asked_of_another() {
    let mut site = Site::new(3);
    let (hash, block) = site.proposed(LONG);
    site.announce(peer(1), hash, LONG);
    site.announce(peer(2), hash, LONG);
    let asked = site.asked.pop_front().unwrap();
    site.answer(asked, Some(block));
    let ticket = site.judging[0];
    site.handle(Event::Validated { ticket, verdict: Verdict::Invalid(InvalidBlock::MerkleRootMismatch) });
    assert_eq!(site.offences, [(asked.0, Offence::AlteredBlock)]);
    assert_eq!(site.hand_out(hash), None);
    assert!(site.published.is_empty());
    let again = site.asked.pop_front().unwrap();
    assert!(again.0 != asked.0 && [peer(1), peer(2)].contains(&again.0));
}

#[test]
fn a_block_that_nobody_has_proposed_is_neither_fetched_nor_passed_on() {
    let mut site = Site::new(3);
    let hash = BlockHash::hash(&site.block(1, 80));
    assert_eq!(site.announce(peer(1), hash, LONG), RelayVerdict::Used);
    site.pass(Duration::from_secs(5));
    assert!(site.asked.is_empty() && site.judging.is_empty() && site.published.is_empty());
    // Word of more blocks than there can be is of no use.
    let useless = (0..100).filter(|fill| {
        let hash = BlockHash::hash(&site.block(10 + fill, 80));
        site.announce(peer(1), hash, LONG) == RelayVerdict::Ignore
    });
    assert_eq!(useless.count(), 93);
}

#[test]
fn an_answer_is_due_by_its_length_and_the_line() {
    let mut line = Line::default();
    assert_eq!(line.patience(None, Reliability::Proven, 5), TRIP);
    assert_eq!(line.patience(Some(1_000), Reliability::Proven, 0), TRIP + 2 * MS);
    assert_eq!(line.patience(Some(1_000_000), Reliability::Proven, 0), TRIP + 2_000 * MS);
    assert_eq!(line.patience(Some(1_000_000), Reliability::Unknown, 0), TRIP_UNPROVEN + DUE_MAX_UNPROVEN);
    assert_eq!(line.patience(Some(4_000_000), Reliability::Proven, 0), TRIP + DUE_MAX);
    assert_eq!(line.patience(Some(4_000_000), Reliability::Proven, 1), TRIP + DUE_MAX * 2);
    assert_eq!(line.patience(Some(4_000_000), Reliability::Proven, 100), TRIP + DUE_MAX * 4);
    // Short blocks say nothing of the line. A faster one has less patience.
    line.note(PUSHED_BYTES_MAX, Duration::from_secs(9));
    assert_eq!(line.patience(Some(1_000_000), Reliability::Proven, 0), TRIP + 2_000 * MS);
    (0..20).for_each(|_| line.note(4_000_000, Duration::from_secs(1)));
    let patience = line.patience(Some(4_000_000), Reliability::Proven, 0);
    assert!((TRIP + 1_990 * MS..TRIP + 2_100 * MS).contains(&patience), "{patience:?}");
}
