//! What strangers can make a node do with messages of the consensus topic.

use std::collections::VecDeque;
use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{Keypair, SECP256K1};
use bytes::Bytes;
use causeway_chainspec::{ChainId, Height, Validator};
use causeway_consensus::bft::{CheckedMessage, Key, Message, SignedVote, Unsigned, ValidatorSet, Vote, VoteType};
use libp2p::PeerId;

use super::AGAIN;
use crate::machine::jobs::VerifyJob;
use crate::machine::{Action, Event, GossipId, Node, Now, Offence, RelayVerdict, Report, Setup, Ticket};
use crate::testing::{Chain, START_S, setup};
use crate::wire::{Topic, encode_consensus};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

const VALIDATORS: u8 = 4;

/// A full node with peers, whose network and workers are played by the test.
struct Bench {
    node: Node,
    chain: ChainId,
    /// The height that is being decided.
    height: Height,
    uptime: Duration,
    names: u64,
    /// Work that was asked for and not done.
    jobs: VecDeque<(Ticket, VerifyJob)>,
    /// Signatures that were to be checked.
    asked: u64,
    verdicts: Vec<(GossipId, RelayVerdict)>,
    offences: Vec<Offence>,
    bans: Vec<PeerId>,
    hung_up: Vec<PeerId>,
}

fn key(index: u8) -> Keypair {
    Keypair::from_seckey_slice(SECP256K1, &[index + 1; 32]).unwrap()
}

fn peer(number: u8) -> PeerId {
    PeerId::from_bytes(&[0, 1, number]).unwrap()
}

fn block(fill: u8) -> BlockHash {
    BlockHash::from_byte_array([fill; 32])
}

impl Bench {
    /// With these peers, of which the operator has named some.
    fn new(peers: &[PeerId], trusted: &[PeerId]) -> Self {
        let chain = Chain::new();
        let keys = (0..VALIDATORS).map(|index| Validator { key: key(index).x_only_public_key().0, power: 1 });
        let set = ValidatorSet::new(&keys.collect::<Vec<_>>()).unwrap();
        let node = Node::new(Setup {
            validators: Box::new(move |_| set.clone()),
            trusted: trusted.iter().copied().collect(),
            ..setup(&chain.spec, &chain.tip)
        });
        let mut bench = Self {
            node,
            chain: chain.spec.chain_id(),
            height: chain.tip.height().next().unwrap(),
            uptime: SECOND,
            names: 0,
            jobs: VecDeque::new(),
            asked: 0,
            verdicts: Vec::new(),
            offences: Vec::new(),
            bans: Vec::new(),
            hung_up: Vec::new(),
        };
        bench.handle(Event::Tick);
        for peer in peers {
            bench.handle(Event::Connected { peer: *peer });
        }
        bench
    }

    fn handle(&mut self, event: Event) {
        let now = Now { uptime: self.uptime, unix: Duration::from_secs(START_S) + self.uptime };
        for action in self.node.handle(now, event).unwrap() {
            match action {
                Action::Verify { ticket, job } => {
                    self.asked += job.message.signatures() as u64;
                    self.jobs.push_back((ticket, job));
                }
                Action::Relay { id, verdict } => self.verdicts.push((id, verdict)),
                Action::Ban { peer, .. } => self.bans.push(peer),
                Action::HangUp { peer } => self.hung_up.push(peer),
                Action::Report(Report::Misbehaved { offence, .. }) => self.offences.push(offence),
                _ => {}
            }
        }
    }

    fn work(&mut self) {
        while let Some((ticket, job)) = self.jobs.pop_front() {
            self.handle(Event::Verified { ticket, result: job.run() });
        }
    }

    /// A message, under a nonce of its own. Returns its name.
    fn gossip(&mut self, peer: PeerId, message: &Message) -> GossipId {
        let bytes = encode_consensus(message, self.names);
        self.gossip_bytes(peer, bytes)
    }

    fn gossip_bytes(&mut self, peer: PeerId, bytes: Bytes) -> GossipId {
        self.names += 1;
        let id = GossipId(self.names);
        self.handle(Event::Gossip { peer, id, topic: Topic::Consensus, bytes });
        id
    }

    /// The verdict on a message, once all work is done.
    fn verdict(&mut self, peer: PeerId, message: &Message) -> RelayVerdict {
        let id = self.gossip(peer, message);
        self.work();
        self.verdicts.iter().find(|(of, _)| *of == id).expect("each has one").1
    }

    fn signed(&self, index: u8, kind: VoteType, height: Height, round: u32, fill: u8) -> SignedVote {
        let key = key(index);
        let vote = Vote::new(kind, height, round, Some(block(fill)), Key::address(&key));
        let signature = Key::sign(&key, &vote.digest(self.chain)).unwrap();
        SignedVote::new(vote, signature)
    }

    fn vote(&self, index: u8, height: Height, round: u32, fill: u8) -> Message {
        Message::Vote(self.signed(index, VoteType::Prevote, height, round, fill))
    }

    fn next(&self) -> Height {
        self.height.next().unwrap()
    }
}

/// The same with a bit of its signature changed.
fn forged(message: Message) -> Message {
    let Message::Vote(mut vote) = message else { panic!("a vote") };
    vote.signature.0[7] ^= 1;
    Message::Vote(vote)
}

/// Prevotes of these validators for a block, as a certificate.
fn polka(votes: &[SignedVote]) -> Message {
    let mut votes: Vec<&SignedVote> = votes.iter().collect();
    votes.sort_by_key(|vote| vote.message.validator());
    let first = &votes[0].message;
    let mut bytes = vec![3];
    bytes.extend_from_slice(&first.height().to_u32().to_le_bytes());
    bytes.extend_from_slice(&first.round().unwrap().to_le_bytes());
    bytes.extend_from_slice(first.block().unwrap().as_byte_array());
    bytes.extend_from_slice(&u16::try_from(votes.len()).unwrap().to_le_bytes());
    for vote in votes {
        bytes.extend_from_slice(&vote.message.validator().0);
        bytes.extend_from_slice(&vote.signature.0);
    }
    Message::decode(&bytes).unwrap()
}

/// Votes of a round as a certificate that it was entered.
fn skip(votes: &[SignedVote]) -> Message {
    let mut votes: Vec<&SignedVote> = votes.iter().collect();
    votes.sort_by_key(|vote| vote.message.validator());
    let first = &votes[0].message;
    let mut bytes = vec![4];
    bytes.extend_from_slice(&first.height().to_u32().to_le_bytes());
    bytes.extend_from_slice(&first.round().unwrap().to_le_bytes());
    bytes.push(1);
    bytes.extend_from_slice(&u16::try_from(votes.len()).unwrap().to_le_bytes());
    for vote in votes {
        bytes.push(1);
        bytes.push(1);
        bytes.extend_from_slice(vote.message.block().unwrap().as_byte_array());
        bytes.extend_from_slice(&vote.message.validator().0);
        bytes.extend_from_slice(&vote.signature.0);
    }
    Message::decode(&bytes).unwrap()
}

#[test]
fn forged_votes_of_the_next_height_are_few_at_once_and_their_sender_is_sent_away() {
    let liar = peer(1);
    let mut bench = Bench::new(&[liar], &[]);
    let (height, mut round) = (bench.next(), 0);
    for _ in 0..5_000 {
        round += 1;
        let vote = forged(bench.vote(0, height, round, 1));
        bench.gossip(liar, &vote);
    }
    assert!(bench.jobs.len() <= 512, "{} at once", bench.jobs.len());
    bench.work();
    assert_eq!((bench.bans, &bench.offences[..2]), (vec![liar], &[Offence::BadSignature; 2][..]));
    assert!(bench.asked <= 512);
}

#[test]
fn votes_of_strangers_cost_nothing_and_are_no_offence() {
    let relayer = peer(1);
    let mut bench = Bench::new(&[relayer], &[]);
    for round in 0..20 {
        for height in [bench.height, bench.next()] {
            let vote = bench.vote(VALIDATORS, height, round, 1);
            let stranger = Message::Vote(SignedVote::new(
                Vote::new(VoteType::Prevote, height, round, Some(block(1)), Key::address(&key(99))),
                match &vote {
                    Message::Vote(vote) => vote.signature,
                    _ => panic!("a vote"),
                },
            ));
            // A validator of another set, and somebody who only says so: an honest neighbour may know another set.
            for message in [vote, stranger] {
                assert_eq!(bench.verdict(relayer, &message), RelayVerdict::Ignore);
            }
        }
    }
    assert_eq!((bench.offences, bench.bans), (vec![], vec![]));
}

/// Certificates that prove nothing are right in every signature, and as many as there are rounds.
#[test]
fn what_comes_to_nothing_is_checked_at_a_rate_and_ends_the_connection_after_a_minute() {
    let (stranger, named) = (peer(1), peer(2));
    for (from, named) in [(stranger, vec![]), (named, vec![named])] {
        let mut bench = Bench::new(&[from], &named);
        let (start, mut round) = (bench.uptime, 0);
        let mut at_once = 0;
        while bench.hung_up.is_empty() && bench.uptime < start + 70 * SECOND {
            bench.uptime += 50 * MS;
            for _ in 0..8 {
                round += 1;
                let height = bench.next();
                let little = polka(&[bench.signed(1, VoteType::Prevote, height, round, 3)]);
                bench.gossip(from, &little);
            }
            at_once = at_once.max(bench.jobs.len());
            bench.work();
        }
        let seconds = (bench.uptime - start).as_secs();
        assert!(at_once <= 512, "{at_once}");
        // What was under way when the allowance ended, and what came back since.
        assert!(bench.asked <= 512 + 33 * (seconds + 1), "{} signatures in {seconds} s", bench.asked);
        assert!(bench.bans.is_empty() && bench.offences.is_empty());
        if named.is_empty() {
            assert!((59..=62).contains(&seconds), "{seconds}");
            assert_eq!(bench.hung_up, [from]);
            assert!(bench.node.peers().is_empty());
            // Coming back forgives nothing.
            bench.hung_up.clear();
            let asked = bench.asked;
            bench.handle(Event::Connected { peer: from });
            for round in 0..600 {
                let little = polka(&[bench.signed(2, VoteType::Prevote, bench.next(), round, 3)]);
                bench.gossip(from, &little);
                bench.work();
            }
            assert!(bench.asked <= asked + 33, "{} more", bench.asked - asked);
        } else {
            assert_eq!((bench.hung_up, seconds), (vec![], 70), "what the operator wants stays");
        }
    }
}

#[test]
fn a_vote_is_checked_once_and_costs_nothing_if_it_is_right() {
    let peers = [peer(1), peer(2)];
    let mut bench = Bench::new(&peers, &[]);
    for index in 0..3 {
        let vote = bench.vote(index, bench.height, 0, 1);
        assert_eq!(bench.verdict(peers[0], &vote), RelayVerdict::Accept);
        assert_eq!(bench.verdict(peers[1], &vote), RelayVerdict::Ignore, "it was just sent on");
    }
    assert_eq!(bench.asked, 3);
    bench.uptime += AGAIN;
    let vote = bench.vote(0, bench.height, 0, 1);
    assert_eq!(bench.verdict(peers[1], &vote), RelayVerdict::Accept, "somebody may have missed it");
    assert_eq!(bench.asked, 3, "and it is known to be right");
    let wrong = forged(bench.vote(0, bench.height, 0, 2));
    assert_eq!(bench.verdict(peers[1], &wrong), RelayVerdict::Reject);
    assert_eq!(bench.offences, [Offence::BadSignature]);
}

#[test]
fn what_is_being_checked_is_not_checked_again_for_the_same_peer() {
    let peers = [peer(1), peer(2)];
    let mut bench = Bench::new(&peers, &[]);
    let vote = bench.vote(0, bench.height, 0, 1);
    for _ in 0..1_000 {
        bench.gossip(peers[0], &vote);
    }
    bench.gossip(peers[1], &vote);
    assert_eq!(bench.asked, 2);
    bench.work();
    let accepted = bench.verdicts.iter().filter(|(_, verdict)| *verdict == RelayVerdict::Accept);
    assert_eq!((accepted.count(), bench.verdicts.len()), (1, 1_001));
    assert_eq!(bench.offences, []);
}

#[test]
fn of_certificates_that_say_the_same_one_is_checked() {
    let relayer = peer(1);
    let mut bench = Bench::new(&[relayer], &[]);
    let votes: Vec<SignedVote> =
        (0..4).map(|index| bench.signed(index, VoteType::Prevote, bench.height, 0, 1)).collect();
    assert_eq!(bench.verdict(relayer, &polka(&votes[..3])), RelayVerdict::Accept);
    assert_eq!(bench.asked, 3);
    for others in [&votes[1..], &votes[..], &votes[..3]] {
        assert_eq!(bench.verdict(relayer, &polka(others)), RelayVerdict::Ignore);
    }
    assert_eq!(bench.asked, 3);
    // Later another one is looked at, and checked before it is sent on.
    bench.uptime += AGAIN;
    let mut wrong = votes[1..].to_vec();
    wrong[2].signature.0[9] ^= 1;
    assert_eq!(bench.verdict(relayer, &polka(&wrong)), RelayVerdict::Reject);
    assert_eq!(bench.verdict(relayer, &polka(&votes[1..])), RelayVerdict::Accept);
    assert_eq!(bench.asked, 9);
}

#[test]
fn a_certificate_that_a_round_was_entered_is_of_no_use_in_that_round() {
    let relayer = peer(1);
    let mut bench = Bench::new(&[relayer], &[]);
    let votes = |bench: &Bench, round| -> Vec<SignedVote> {
        (0..2).map(|index| bench.signed(index, VoteType::Prevote, bench.height, round, 1)).collect()
    };
    let this = skip(&votes(&bench, 0));
    assert_eq!(bench.node.status().round, 0);
    assert_eq!(bench.verdict(relayer, &this), RelayVerdict::Ignore);
    assert_eq!(bench.asked, 0);
    let later = skip(&votes(&bench, 1));
    assert_eq!(bench.verdict(relayer, &later), RelayVerdict::Accept);
    assert_eq!(bench.node.status().round, 1);
    assert_eq!(bench.verdict(relayer, &skip(&votes(&bench, 1))), RelayVerdict::Ignore);
    assert_eq!(bench.asked, 2);
}

#[test]
fn messages_that_tell_nothing_new_are_not_even_read_in_the_end() {
    let relayer = peer(1);
    let mut bench = Bench::new(&[relayer], &[]);
    let old = bench.vote(0, Height(bench.height.to_u32() - 1), 0, 1);
    for _ in 0..5_000 {
        assert_eq!(bench.verdict(relayer, &old), RelayVerdict::Ignore);
    }
    // Nonsense would be an offence, if it was read.
    bench.gossip_bytes(relayer, Bytes::from_static(&[9; 100]));
    assert_eq!(bench.offences, []);
    bench.uptime += SECOND;
    bench.gossip_bytes(relayer, Bytes::from_static(&[9; 100]));
    assert_eq!(bench.offences, [Offence::Malformed]);
}

#[test]
fn whom_the_operator_named_is_never_banned() {
    let named = peer(1);
    let mut bench = Bench::new(&[named], &[named]);
    for _ in 0..50 {
        bench.gossip_bytes(named, Bytes::from_static(&[9; 100]));
    }
    assert_eq!(bench.offences.len(), 50);
    assert_eq!((bench.bans, bench.hung_up), (vec![], vec![]));
    assert_eq!(bench.node.peers()[0].score, 1);
}

#[test]
fn a_signature_is_right_or_forged_or_of_another_set() {
    let bench = Bench::new(&[], &[]);
    let set = bench.node.validator_set().clone();
    let check = |message: &Message| message.clone().check(bench.chain, &set).map(CheckedMessage::into_message);
    let vote = bench.vote(0, bench.height, 0, 1);
    assert_eq!(check(&vote), Ok(vote.clone()));
    assert_eq!(check(&forged(vote.clone())), Err(Unsigned::Forged));
    assert_eq!(check(&bench.vote(VALIDATORS, bench.height, 0, 1)), Err(Unsigned::OtherSet));
    let votes: Vec<SignedVote> =
        (0..5).map(|index| bench.signed(index, VoteType::Prevote, bench.height, 0, 1)).collect();
    assert!(check(&polka(&votes[..3])).is_ok());
    assert_eq!(check(&polka(&votes[..2])), Err(Unsigned::OtherSet));
    assert_eq!(check(&polka(&votes[2..])), Err(Unsigned::OtherSet), "one is no validator");
    let mut wrong = votes[..3].to_vec();
    wrong[0].signature.0[0] ^= 1;
    assert_eq!(check(&polka(&wrong)), Err(Unsigned::Forged));
    // The engine that takes our word for a message takes it for that set only.
    assert_eq!(vote.clone().check(bench.chain, &set).unwrap().set(), &set);
}
