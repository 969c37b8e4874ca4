//! What peers send on about the height: which of it is worth the engine's time, and which is sent on.
//!
//! Anybody can send a validator's message again under a new nonce, so nothing is counted against a validator but what it
//! signed, once; and nothing against a peer but what it sends, certificates too, which everybody can put together.
//!
//! What is done here is to read a message and to look whether it is known: about a microsecond, less than it takes to hand it
//! to another thread. Signatures are checked elsewhere ([`Action::Verify`]), once, and the engine takes our word for them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bitcoin::hashes::{Hash, sha256};
use bytes::Bytes;
use causeway_consensus::bft::{
    Address, CheckedMessage, Input, Message, RoundCertificateType, SignedTipStatement, Unsigned,
};
use libp2p::PeerId;

use super::Node;
use super::action::{Action, RelayVerdict};
use super::event::{GossipId, Now, Ticket};
use super::jobs::VerifyJob;
use super::report::Offence;
use super::timers::Alarm;
use crate::wire::{Topic, decode_consensus};

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
    /// The messages that were taken, by their names.
    messages: BTreeMap<sha256::Hash, Taken>,
    /// How many different ones came of each source.
    counts: BTreeMap<Source, u32>,
    since: Duration,
    /// Messages whose signatures are being checked. They outlive the height: each has a peer's word to answer. Bounded by
    /// what may be under way for a peer.
    checking: BTreeMap<Ticket, Checking>,
    /// The names of these, by peer: nobody has the same checked twice at once.
    names: BTreeSet<(PeerId, sha256::Hash)>,
}

/// A message that was taken.
#[derive(Clone, Copy, Debug)]
struct Taken {
    /// When it last was.
    at: Duration,
    /// Whether the engine was at its height then: it needs it no second time.
    engine_has_it: bool,
}

/// A message whose signatures are being checked.
#[derive(Clone, Debug)]
struct Checking {
    peer: PeerId,
    id: GossipId,
    name: sha256::Hash,
    source: Source,
    signatures: u32,
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
    /// Forgets what was taken: a height is over.
    pub(super) fn clear(&mut self, now: Now) {
        let (checking, names) = (std::mem::take(&mut self.checking), std::mem::take(&mut self.names));
        *self = Self { since: now.uptime, checking, names, ..Self::default() };
    }

    /// Different messages that are remembered, or being checked.
    pub(super) fn len(&self) -> usize {
        self.messages.len() + self.checking.len()
    }

    /// Whether a message of this name was taken a moment ago.
    fn is_fresh(&self, name: &sha256::Hash, now: Now) -> bool {
        self.messages.get(name).is_some_and(|taken| now.uptime < taken.at + AGAIN)
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

    /// Remembers a message with the right signatures. Returns whether the engine has it already.
    fn take(&mut self, name: sha256::Hash, source: Source, engine_has_it: bool, now: Now) -> bool {
        let before = self.messages.insert(name, Taken { at: now.uptime, engine_has_it });
        if before.is_none() {
            *self.counts.entry(source).or_insert(0) += 1;
        }
        before.is_some_and(|before| before.engine_has_it)
    }
}

/// What two messages have in common that are as good as each other: all of a vote or proposal; of a certificate what it
/// certifies, whoever signed it.
fn name(message: &Message, content: &[u8]) -> sha256::Hash {
    let said = match message {
        Message::Vote(_) | Message::Proposal(_) => content,
        // Kind, height, round, and the block or type.
        Message::Polka(_) => &content[..content.len().min(1 + 4 + 4 + 32)],
        Message::Round(_) => &content[..content.len().min(1 + 4 + 4 + 1)],
    };
    sha256::Hash::hash(said)
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
        if message.height().to_u32() > self.tip.height().to_u32().saturating_add(2) {
            // This node is behind, or somebody says so.
            self.ask_status(peer);
        }
        let name = name(&message, content);
        let source = message.signer().map_or(Source::Peer(peer), Source::Validator);
        if !self.is_wanted(&message, &name, now) {
            return self.of_no_use(peer, Topic::Consensus, id);
        }
        let known = self.heard.messages.get(&name).copied();
        if message.signer().is_some() && known.is_some_and(|taken| taken.engine_has_it) {
            // These very bytes were checked before, and are only sent on again.
            self.heard.take(name, source, true, now);
            return self.relay(id, RelayVerdict::Accept);
        }
        let signatures = u32::try_from(message.signatures()).unwrap_or(u32::MAX);
        let has_room = known.is_some() || self.heard.has_room(source, now);
        let twice = self.heard.names.contains(&(peer, name));
        if !has_room || twice || !self.peers.begin(&peer, Topic::Consensus, signatures) {
            return self.of_no_use(peer, Topic::Consensus, id);
        }
        self.verify(Checking { peer, id, name, source, signatures }, message);
    }

    /// Has the signatures of a message checked. The validators of the height after this one are not known yet; most of them
    /// are those of this one.
    fn verify(&mut self, checking: Checking, message: Message) {
        let ticket = self.ticket();
        self.heard.names.insert((checking.peer, checking.name));
        self.heard.checking.insert(ticket, checking);
        let job = VerifyJob { message, chain: self.chain, set: self.set.clone() };
        self.actions.push(Action::Verify { ticket, job });
    }

    /// The signatures of a message were checked.
    pub(super) fn verified(&mut self, now: Now, ticket: Ticket, result: Result<CheckedMessage, Unsigned>) {
        let Some(checking) = self.heard.checking.remove(&ticket) else { return };
        let Checking { peer, id, name, source, signatures } = checking;
        self.heard.names.remove(&(peer, name));
        let checked = match result {
            Ok(checked) => checked,
            Err(why) => {
                self.peers.end(&peer, Topic::Consensus, signatures, signatures);
                let forged = why == Unsigned::Forged;
                self.relay(id, if forged { RelayVerdict::Reject } else { RelayVerdict::Ignore });
                if forged {
                    self.punish(now, peer, Offence::BadSignature);
                }
                return;
            }
        };
        if *checked.set() != self.set && self.is_wanted(checked.message(), &name, now) {
            // A block has become final meanwhile, and with it other validators.
            return self.verify(Checking { peer, id, name, source, signatures }, checked.into_message());
        }
        // What was worth the check when it began costs nothing, though another may have brought the same meanwhile.
        self.peers.end(&peer, Topic::Consensus, signatures, 0);
        let has_room = self.heard.messages.contains_key(&name) || self.heard.has_room(source, now);
        if !has_room || !self.is_wanted(checked.message(), &name, now) {
            return self.of_no_use(peer, Topic::Consensus, id);
        }
        let height = checked.message().height();
        let known = self.heard.take(name, source, self.engine.height() == Some(height), now);
        if let (Some(by), Some(position)) = (checked.message().signer(), checked.message().position()) {
            self.tips.hear(by, position);
        }
        self.relay(id, RelayVerdict::Accept);
        if self.tip.height().next() == Some(height) && self.opens_height(checked.message()) {
            // Whoever proposes has waited for the interval; one that starts later would keep the others waiting in its own turn.
            self.timers.hasten(Alarm::StartHeight, now.uptime);
        }
        if !known {
            self.inputs.push_back(Input::Checked(checked));
        }
    }

    /// Whether a message may tell something new: of this height or the next, and not of what was just heard.
    fn is_wanted(&self, message: &Message, name: &sha256::Hash, now: Now) -> bool {
        let ahead = message.height().blocks_since(self.tip.height()).unwrap_or(0);
        (1..=2).contains(&ahead) && !self.heard.is_fresh(name, now) && !self.is_stale(message)
    }

    /// A message is not sent on, and its sender not blamed: it costs a little of its allowance.
    pub(super) fn of_no_use(&mut self, peer: PeerId, topic: Topic, id: GossipId) {
        self.peers.idle(&peer, topic);
        self.relay(id, RelayVerdict::Ignore);
    }

    /// Whether a message is the proposal of a first round, by its proposer.
    fn opens_height(&self, message: &Message) -> bool {
        let Message::Proposal(signed) = message else { return false };
        let proposal = &signed.message;
        let proposer = self.set.proposer(self.chain, proposal.height(), 0);
        proposal.round() == Some(0) && proposal.proposer() == proposer.address()
    }

    /// Whether a certificate says nothing new, as the engine sees it: a round that is over needs no second end, and one that
    /// was entered no second entry.
    fn is_stale(&self, message: &Message) -> bool {
        if Some(message.height()) != self.engine.height() {
            return false;
        }
        match message {
            Message::Round(certificate) => match certificate.cert_type {
                RoundCertificateType::Skip => certificate.round.as_u32() <= self.engine.round(),
                RoundCertificateType::Precommit => certificate.round.as_u32() < self.engine.round(),
            },
            Message::Vote(_) | Message::Proposal(_) | Message::Polka(_) => false,
        }
    }
}

#[cfg(test)]
mod tests;
