//! What dishonest validators say, and strangers.
//!
//! A liar runs an honest node, so that it knows the state, and changes or adds to what that says: it holds the key.

mod answers;
mod floods;
mod peg;
mod proposals;
mod strangers;
mod votes;

use std::collections::{BTreeMap, VecDeque};

use bitcoin::consensus::{deserialize, serialize};
use bitcoin::secp256k1::Keypair;
use bitcoin::{Block, BlockHash, Target};
use bytes::Bytes;
use causeway_chainspec::{ChainId, Height};
use causeway_consensus::bft::{Key, Message, Proposal, SignedProposal, SignedVote, Vote};
use causeway_node::wire::{BodyMessage, Topic, decode_body, encode_consensus};

use super::rng::Rng;
use super::world::World;

/// How a host is dishonest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strategy {
    /// Tells each peer something else.
    Equivocate,
    /// Sends bodies without proposals, and altered ones.
    FloodBodies,
    /// Does not send bodies, proposals or votes.
    Withhold,
    /// Proposes blocks that break rules.
    InvalidBlocks,
    /// Proposes out of turn.
    WrongProposer,
    /// Sends messages of other rounds and heights, and old ones again.
    StaleRounds,
    /// Proposes blocks far ahead of the clock.
    FutureBlocks,
    /// Proposes blocks without headers, deposits, confirmations and transactions.
    Censor,
    /// Proposes headers that Bitcoin does not have.
    FalseEvidence,
    /// Answers wrongly, or not.
    LyingSync,
    /// Sends bytes that mean nothing, and asks all the time.
    Spam,
    /// Fills the room for bodies without a proposal. This and the next need no key.
    JunkBodies,
    /// Claims to have everything, answers nothing, and comes back under other names.
    Stall,
    /// Claims to have everything, answers with old blocks, and comes back under other names.
    Decoy,
    /// Puts certificates together from what validators signed, each of other votes.
    Certificates,
    /// Adds to transactions what only those can judge who have them already.
    Riders,
    /// Announces the block of every proposal at once, has it not, and comes back under other names.
    Announce,
}

impl Strategy {
    /// Those of validators.
    pub const ALL: [Self; 11] = [
        Self::Equivocate,
        Self::FloodBodies,
        Self::Withhold,
        Self::InvalidBlocks,
        Self::WrongProposer,
        Self::StaleRounds,
        Self::FutureBlocks,
        Self::LyingSync,
        Self::Spam,
        Self::Censor,
        Self::FalseEvidence,
    ];
}

/// A dishonest validator.
#[derive(Debug)]
pub struct Byzantine {
    strategies: Vec<Strategy>,
    /// What came in last.
    heard: VecDeque<(Topic, Bytes)>,
    /// Its own block of a height, as its node published it.
    own: Option<(Height, Bytes)>,
    /// Blocks that stand for its node's own.
    instead: BTreeMap<BlockHash, BlockHash>,
    /// What it withholds at a height: bodies, proposals, votes.
    withheld: (Height, u64),
    /// Names it had before.
    names: u8,
}

/// Messages that a liar remembers.
const HEARD: usize = 256;

impl Byzantine {
    /// A liar with these ways.
    pub fn new(strategies: Vec<Strategy>) -> Self {
        Self {
            strategies,
            heard: VecDeque::new(),
            own: None,
            instead: BTreeMap::new(),
            withheld: (Height(0), 0),
            names: 0,
        }
    }

    /// Something came in.
    pub(super) fn hear(&mut self, topic: Topic, bytes: &Bytes) {
        if self.heard.len() >= HEARD {
            self.heard.pop_front();
        }
        self.heard.push_back((topic, bytes.clone()));
    }

    /// Whether it says to have every block.
    pub(super) fn announces(&self) -> bool {
        self.strategies.contains(&Strategy::Announce)
    }
}

impl World {
    /// What a liar says when its node has something to say.
    pub(super) fn say_otherwise(&mut self, index: usize, topic: Topic, bytes: &Bytes) {
        if topic == Topic::Bodies
            && let Some((height, block)) = pushed(bytes)
            && let Some(liar) = &mut self.hosts[index].byzantine
        {
            liar.own = Some((height, block));
        }
        let mut truth = true;
        for strategy in self.strategies(index) {
            truth &= match strategy {
                Strategy::Equivocate => self.two_faces(index, topic, bytes),
                Strategy::Withhold => self.withhold(index, topic, bytes),
                Strategy::InvalidBlocks | Strategy::FutureBlocks | Strategy::Censor | Strategy::FalseEvidence => {
                    self.propose_instead(index, strategy, topic, bytes)
                }
                Strategy::FloodBodies
                | Strategy::WrongProposer
                | Strategy::StaleRounds
                | Strategy::LyingSync
                | Strategy::Spam
                | Strategy::JunkBodies
                | Strategy::Stall
                | Strategy::Decoy
                | Strategy::Certificates
                | Strategy::Riders
                | Strategy::Announce => true,
            };
        }
        if truth {
            self.lie_to_all(index, topic, bytes);
        }
    }

    /// What liars say unasked.
    pub(super) fn let_liars_speak(&mut self) {
        for index in 0..self.hosts.len() {
            if self.hosts[index].life.is_none() {
                continue;
            }
            for strategy in self.strategies(index) {
                match strategy {
                    Strategy::FloodBodies => self.flood_bodies(index),
                    Strategy::WrongProposer => self.propose_out_of_turn(index),
                    Strategy::StaleRounds => self.dig_up(index),
                    Strategy::Spam => self.spam(index),
                    Strategy::JunkBodies => self.send_junk_bodies(index),
                    Strategy::Stall | Strategy::Decoy | Strategy::Announce => self.come_back(index, strategy),
                    Strategy::Certificates => {
                        self.flood_certificates(index);
                        self.come_back(index, strategy);
                    }
                    Strategy::Riders => {
                        self.send_riders(index);
                        self.come_back(index, strategy);
                    }
                    Strategy::Equivocate
                    | Strategy::Withhold
                    | Strategy::InvalidBlocks
                    | Strategy::FutureBlocks
                    | Strategy::Censor
                    | Strategy::FalseEvidence
                    | Strategy::LyingSync => {}
                }
            }
        }
    }

    fn strategies(&self, index: usize) -> Vec<Strategy> {
        self.hosts[index].byzantine.as_ref().map(|liar| liar.strategies.clone()).unwrap_or_default()
    }

    fn has_strategy(&self, index: usize, strategy: Strategy) -> bool {
        self.hosts[index].byzantine.as_ref().is_some_and(|liar| liar.strategies.contains(&strategy))
    }

    /// Past the gossip layer's memory: a liar sends what it likes.
    fn lie_to_all(&mut self, index: usize, topic: Topic, bytes: &Bytes) {
        for to in self.links.neighbours(index) {
            self.lie_to(index, to, topic, bytes);
        }
    }

    fn lie_to(&mut self, index: usize, to: usize, topic: Topic, bytes: &Bytes) {
        self.watch.wire(topic, bytes);
        self.send(index, to, topic, bytes);
    }
}

/// A vote under a key, for the consensus topic.
fn sign_vote(key: &Keypair, chain: ChainId, vote: Vote, nonce: u64) -> Bytes {
    let signature = Key::sign(key, &vote.digest(chain)).expect("the key is here");
    encode_consensus(&Message::Vote(SignedVote::new(vote, signature)), nonce)
}

/// A proposal under a key, for the consensus topic.
fn sign_proposal(key: &Keypair, chain: ChainId, proposal: Proposal, nonce: u64) -> Bytes {
    let signature = Key::sign(key, &proposal.digest(chain)).expect("the key is here");
    encode_consensus(&Message::Proposal(SignedProposal::new(proposal, signature)), nonce)
}

/// The same block under another id: only the nonce differs.
fn twin(block: &[u8], rng: &mut Rng) -> Option<Bytes> {
    let mut block: Block = deserialize(block).ok()?;
    let target = Target::from_compact(block.header.bits);
    block.header.nonce = u32::try_from(1_000 + rng.below(1_000_000_000)).expect("below 2^32");
    while !target.is_met_by(block.block_hash()) {
        block.header.nonce += 1;
    }
    Some(serialize(&block).into())
}

/// Height and block of a message of the topic of bodies that holds one.
pub(super) fn pushed(bytes: &Bytes) -> Option<(Height, Bytes)> {
    match decode_body(bytes.clone()) {
        Ok(BodyMessage::Pushed { height, block }) => Some((height, block)),
        Ok(BodyMessage::Announced { .. }) | Err(_) => None,
    }
}

/// The id of serialised bytes that begin with a header.
fn id(block: &[u8]) -> Option<BlockHash> {
    use bitcoin::hashes::Hash;
    block.get(..80).map(BlockHash::hash)
}
