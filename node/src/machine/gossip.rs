//! What peers send on about the height: which of it is worth the engine's time, and which is sent on.
//!
//! Anybody can send a validator's message again under a new nonce, so nothing is counted against a validator but what it
//! signed, once; and nothing against a peer but what it sends, certificates too, which everybody can put together.

use std::collections::BTreeMap;
use std::time::Duration;

use bitcoin::hashes::{Hash, sha256};
use bytes::Bytes;
use causeway_consensus::bft::{Address, Input, Message, SignedTipStatement};
use libp2p::PeerId;

use super::Node;
use super::action::RelayVerdict;
use super::event::{GossipId, Now};
use super::report::Offence;
use super::timers::Alarm;
use crate::wire::decode_consensus;

/// The same message is taken again after this time: somebody may have missed it.
const AGAIN: Duration = Duration::from_millis(400);

/// Different messages of one validator in a height, and how many more each second: an honest one signs three a round, and
/// rounds take longer and longer.
const MESSAGES: u32 = 128;
const MESSAGES_PER_SECOND: u32 = 16;

/// Different certificates of rounds from one peer in a height.
const CERTIFICATES: u32 = 128;

/// What was heard in this height and the next.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// When a message was last taken, by its hash.
    messages: BTreeMap<sha256::Hash, Duration>,
    /// How many different ones came of each source.
    counts: BTreeMap<Source, u32>,
    since: Duration,
}

/// Whose messages are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    /// Votes and proposals of a validator.
    Validator(Address),
    /// Certificates that a peer sends on.
    Peer(PeerId),
}

impl Heard {
    /// Forgets everything: a height is over.
    pub(super) fn clear(&mut self, now: Now) {
        *self = Self { since: now.uptime, ..Self::default() };
    }

    /// Different messages that are remembered.
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether a message with these bytes was taken a moment ago.
    fn is_fresh(&self, hash: &sha256::Hash, now: Now) -> bool {
        self.messages.get(hash).is_some_and(|at| now.uptime < *at + AGAIN)
    }

    /// Whether one more message of this source is worth looking at.
    fn has_room(&self, source: Source, now: Now) -> bool {
        let seconds = u32::try_from(now.uptime.saturating_sub(self.since).as_secs()).unwrap_or(u32::MAX);
        let first = match source {
            Source::Validator(_) => MESSAGES,
            Source::Peer(_) => CERTIFICATES,
        };
        let max = first.saturating_add(seconds.saturating_mul(MESSAGES_PER_SECOND));
        self.counts.get(&source).is_none_or(|count| *count < max)
    }

    /// Remembers a message with the right signatures.
    fn take(&mut self, hash: sha256::Hash, source: Source, now: Now) {
        if self.messages.insert(hash, now.uptime).is_none() {
            *self.counts.entry(source).or_insert(0) += 1;
        }
    }
}

impl Node {
    /// A message of the consensus topic.
    pub(super) fn gossiped_consensus(&mut self, now: Now, peer: PeerId, id: GossipId, bytes: &Bytes) {
        let content = decode_consensus(bytes).ok();
        if let Some(content) =
            content.filter(|content| content.first().copied().is_some_and(SignedTipStatement::is_kind))
        {
            return self.gossiped_tip_statement(now, peer, id, content);
        }
        let message = content.and_then(|content| Message::decode(content).ok());
        let (Some(content), Some(message)) = (content, message) else {
            self.relay(id, RelayVerdict::Reject);
            return self.punish(now, peer, Offence::Malformed);
        };
        let (height, tip) = (message.height().to_u32(), self.tip.height().to_u32());
        if height > tip.saturating_add(2) {
            // This node is behind, or somebody says so.
            self.ask_status(peer);
        }
        let hash = sha256::Hash::hash(content);
        if height <= tip || height - tip > 2 || self.heard.is_fresh(&hash, now) || self.is_stale(&message) {
            return self.relay(id, RelayVerdict::Ignore);
        }
        let source = message.signer().map_or(Source::Peer(peer), Source::Validator);
        // A message that was verified before is only sent on again.
        if !self.heard.messages.contains_key(&hash) {
            let count = u32::try_from(message.signatures()).unwrap_or(u32::MAX);
            if !self.heard.has_room(source, now) || !self.peers.allow_signatures(&peer, count) {
                return self.relay(id, RelayVerdict::Ignore);
            }
            // The validators of the height after this one are not known yet; most of them are those of this one.
            let is_this = height == tip + 1;
            if !message.is_signed(self.chain, &self.set) {
                self.relay(id, if is_this { RelayVerdict::Reject } else { RelayVerdict::Ignore });
                if is_this {
                    self.punish(now, peer, Offence::BadSignature);
                }
                return;
            }
        }
        self.heard.take(hash, source, now);
        if let (Some(by), Some(position)) = (message.signer(), message.position()) {
            self.tips.hear(by, position);
        }
        self.relay(id, RelayVerdict::Accept);
        if height == tip + 1 && self.opens_height(&message) {
            // Whoever proposes has waited for the interval; one that starts later would keep the others waiting in its own turn.
            self.timers.hasten(Alarm::StartHeight, now.uptime);
        }
        self.inputs.push_back(Input::Message(message));
    }

    /// Whether a message is the proposal of a first round, by its proposer.
    fn opens_height(&self, message: &Message) -> bool {
        let Message::Proposal(signed) = message else { return false };
        let proposal = &signed.message;
        let proposer = self.set.proposer(self.chain, proposal.height(), 0);
        proposal.round() == Some(0) && proposal.proposer() == proposer.address()
    }

    /// Whether a certificate says nothing new.
    fn is_stale(&self, message: &Message) -> bool {
        if Some(message.height()) != self.engine.height() {
            return false;
        }
        match message {
            Message::Round(certificate) => certificate.round.as_u32() < self.engine.round(),
            Message::Vote(_) | Message::Proposal(_) | Message::Polka(_) => false,
        }
    }
}
