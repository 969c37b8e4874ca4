//! Votes and proposals that differ from peer to peer, are old, or do not come.

use bitcoin::BlockHash;
use bytes::Bytes;
use causeway_chainspec::Height;
use causeway_consensus::bft::{Message, Proposal, Vote, VoteType};
use causeway_node::wire::{Topic, decode_consensus, encode_body};

use super::{Strategy, id, pushed, sign_proposal, sign_vote, twin};
use crate::sim::world::World;

impl World {
    /// The truth, a lie, both or nothing to each peer. Returns whether the truth is still to be told to all.
    pub(super) fn two_faces(&mut self, index: usize, topic: Topic, bytes: &Bytes) -> bool {
        if topic != Topic::Consensus {
            return true;
        }
        let message = decode_consensus(bytes).ok().and_then(|content| Message::decode(content).ok());
        let (Some(message), Some(key)) = (message, self.hosts[index].key) else { return true };
        let chain = self.spec.chain_id();
        let Some((height, own)) = self.hosts[index].byzantine.as_ref().and_then(|liar| liar.own.clone()) else {
            return true;
        };
        let nonce = self.rng.number();
        let (lie, body) = match &message {
            Message::Vote(signed) => {
                let vote = signed.message;
                let Some(round) = vote.round() else { return true };
                let other = self.other_block(index, vote.height(), vote.block());
                let lie = Vote::new(vote.kind(), vote.height(), round, other, vote.validator());
                (sign_vote(&key, chain, lie, nonce), None)
            }
            Message::Proposal(signed) => {
                let truth = &signed.message;
                let (Some(round), Some(other)) = (truth.round(), twin(&own, &mut self.rng)) else { return true };
                let Some(hash) = id(&other) else { return true };
                let lie = Proposal::new(truth.height(), round, hash, truth.pol_round(), truth.proposer());
                // The others of its kind know.
                let body = encode_body(height, &other);
                for liar in self.hosts.iter_mut().filter_map(|host| host.byzantine.as_mut()) {
                    liar.hear(Topic::Bodies, &body);
                }
                (sign_proposal(&key, chain, lie, nonce), Some(body))
            }
            Message::Polka(_) | Message::Round(_) => return true,
        };
        for to in self.links.neighbours(index) {
            // At every second height there are two camps, and each hears one story.
            let camps = message.height().to_u32() % 2 == 0;
            let face = match camps {
                _ if self.hosts[to].byzantine.is_some() => 0,
                true => u64::from(to % 2 == 0),
                false => self.rng.below(4),
            };
            if face != 1 && face != 3 {
                self.lie_to(index, to, topic, bytes);
            }
            if face != 0 && face != 3 {
                self.lie_to(index, to, topic, &lie);
                if let Some(body) = &body {
                    self.lie_to(index, to, Topic::Bodies, body);
                }
            }
        }
        false
    }

    /// Another block of this height, or none, to vote for too.
    fn other_block(&mut self, index: usize, height: Height, block: Option<BlockHash>) -> Option<BlockHash> {
        let liar = self.hosts[index].byzantine.as_ref()?;
        let own = liar.own.iter().filter(|(of, _)| *of == height).filter_map(|(_, bytes)| id(bytes));
        let bodies = liar.heard.iter().filter(|(topic, _)| *topic == Topic::Bodies);
        let heard = bodies.filter_map(|(_, bytes)| pushed(bytes));
        let heard = heard.filter(|(of, _)| *of == height).filter_map(|(_, bytes)| id(&bytes));
        let mut others: Vec<BlockHash> = own.chain(heard).filter(|other| Some(*other) != block).collect();
        others.sort_unstable();
        others.dedup();
        others.first().copied()
    }

    /// Draws for each height what does not leave the liar. Returns whether this may.
    pub(super) fn withhold(&mut self, index: usize, topic: Topic, bytes: &Bytes) -> bool {
        let height = self.hosts[index].height();
        let draw = self.rng.below(8);
        let Some(liar) = &mut self.hosts[index].byzantine else { return true };
        if liar.withheld.0 != height {
            liar.withheld = (height, draw);
        }
        let what = liar.withheld.1;
        let message = decode_consensus(bytes).ok().and_then(|content| Message::decode(content).ok());
        match (topic, message) {
            (Topic::Bodies, _) => what & 1 == 0,
            (Topic::Consensus, Some(Message::Proposal(_))) => what & 2 == 0,
            (Topic::Consensus, Some(Message::Vote(_))) => what & 4 == 0,
            _ => true,
        }
    }

    /// Whether the liar keeps bodies to itself at this height.
    pub(super) fn withholds_bodies(&self, index: usize) -> bool {
        let liar = self.hosts[index].byzantine.as_ref();
        self.has_strategy(index, Strategy::Withhold) && liar.is_some_and(|liar| liar.withheld.1 & 1 == 1)
    }

    /// What others said before, under new nonces, and votes of its own for any round and height.
    pub(super) fn dig_up(&mut self, index: usize) {
        let (Some(key), Some(address)) = (self.hosts[index].key, self.hosts[index].address) else { return };
        let chain = self.spec.chain_id();
        for _ in 0..4 {
            let heard = self.hosts[index].byzantine.as_ref().and_then(|liar| {
                let consensus: Vec<_> = liar.heard.iter().filter(|(topic, _)| *topic == Topic::Consensus).collect();
                self.rng.clone().pick(&consensus).map(|(_, bytes)| bytes.clone())
            });
            let nonce = self.rng.number();
            if let Some(content) = heard.as_ref().and_then(|bytes| decode_consensus(bytes).ok()) {
                let again = Bytes::from([&nonce.to_le_bytes()[..], content].concat());
                self.lie_to_all(index, Topic::Consensus, &again);
            }
        }
        let tip = self.hosts[index].height().to_u32();
        let height = Height(tip.saturating_sub(2) + u32::try_from(self.rng.below(6)).expect("small"));
        let round = match self.rng.below(3) {
            0 => u32::try_from(self.rng.below(4)).expect("small"),
            1 => u32::try_from(self.rng.below(1_000)).expect("small"),
            _ => u32::MAX - 2,
        };
        let kind = if self.rng.chance(50) { VoteType::Prevote } else { VoteType::Precommit };
        let block = self.hosts[index].byzantine.as_ref().and_then(|liar| {
            let bodies = liar.heard.iter().filter(|(topic, _)| *topic == Topic::Bodies);
            bodies.last().and_then(|(_, bytes)| id(&pushed(bytes)?.1))
        });
        let block = block.filter(|_| self.rng.chance(60));
        let nonce = self.rng.number();
        let vote = sign_vote(&key, chain, Vote::new(kind, height, round, block, address), nonce);
        self.lie_to_all(index, Topic::Consensus, &vote);
    }
}
