//! What is known of the peers: their tips, and how far they can be trusted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use causeway_chainspec::Height;
use libp2p::PeerId;

use super::allowance::{Admission, Allowance};
use super::report::{Offence, PeerStatus};
use crate::wire::Topic;

/// The score of a peer that did nothing wrong.
const SCORE_FULL: i32 = 100;

/// A lost point of score comes back in this time.
const POINT_BACK: Duration = Duration::from_secs(6);

/// How long a peer without score stays away.
pub(super) const BAN: Duration = Duration::from_secs(600);

/// Peers that are gone are remembered if they have lost something, so many, so that reconnecting forgives nothing.
const GONE_MAX: usize = 1_000;

/// The peers of this chain.
#[derive(Debug, Default)]
pub(super) struct Peers {
    connected: BTreeMap<PeerId, Peer>,
    gone: BTreeMap<PeerId, Peer>,
    /// Never banned, and never disconnected for what they cost: the operator wants them whatever they do, and without them
    /// a validator behind sentries has nobody. What they send is bounded all the same.
    trusted: BTreeSet<PeerId>,
    /// When anything last happened.
    uptime: Duration,
}

#[derive(Debug)]
struct Peer {
    /// The tip that it told of, and has not been caught lying about.
    height: Option<Height>,
    score: i32,
    /// When the score was that.
    scored: Duration,
    allowance: Allowance,
    bodies: Record,
}

/// How well a peer has answered when it was asked for proposed blocks.
#[derive(Clone, Copy, Debug, Default)]
struct Record {
    /// Blocks that came.
    came: u64,
    /// Blocks that were not here when they were due, since the last that came.
    late: u32,
}

/// How likely a peer is to send a proposed block that it says it has, the least likely first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reliability {
    /// It was asked and did not send it in time, and nothing since.
    Late,
    /// It was never asked, or has failed once after it had sent some.
    Unknown,
    /// It has sent those that it was asked for lately.
    Proven,
}

/// What an offence led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Penalty {
    /// The peer has this score left.
    Left(i32),
    /// It has none left.
    Ban,
}

impl Peers {
    /// Nobody is connected yet.
    pub(super) fn new(trusted: BTreeSet<PeerId>) -> Self {
        Self { trusted, ..Self::default() }
    }

    /// Takes note of the time.
    pub(super) fn tick(&mut self, uptime: Duration) {
        self.uptime = uptime;
    }

    pub(super) fn connect(&mut self, peer: PeerId, uptime: Duration) {
        let allowance = Allowance::new(uptime);
        let bodies = Record::default();
        let new = Peer { height: None, score: SCORE_FULL, scored: uptime, allowance, bodies };
        let known = self.gone.remove(&peer).map(|gone| Peer { height: None, ..gone });
        self.connected.entry(peer).or_insert(known.unwrap_or(new));
    }

    pub(super) fn disconnect(&mut self, peer: &PeerId) {
        let Some(mut left) = self.connected.remove(peer) else { return };
        if left.score < SCORE_FULL || !left.allowance.is_whole(self.uptime) {
            if self.gone.len() >= GONE_MAX {
                self.gone.pop_first();
            }
            // A ban takes the score's place.
            left.score = left.score.max(1);
            self.gone.insert(*peer, left);
        }
    }

    /// Takes score from a peer; nothing if it is gone.
    pub(super) fn punish(&mut self, peer: &PeerId, offence: Offence, uptime: Duration) -> Option<Penalty> {
        let trusted = self.trusted.contains(peer);
        let peer = self.connected.get_mut(peer)?;
        (peer.score, peer.scored) = peer.score_at(uptime);
        peer.score -= offence.cost();
        if offence == Offence::Stalled || trusted {
            // Silence may be the network's: it never bans.
            peer.score = peer.score.max(1);
        }
        Some(if peer.score > 0 { Penalty::Left(peer.score) } else { Penalty::Ban })
    }

    /// Whether a peer's message is looked at.
    pub(super) fn knock(&mut self, peer: &PeerId, topic: Topic) -> Admission {
        let uptime = self.uptime;
        let Some(known) = self.connected.get_mut(peer) else { return Admission::No };
        match known.allowance.knock(uptime, topic) {
            Admission::HangUp if self.trusted.contains(peer) => Admission::No,
            admission => admission,
        }
    }

    /// Whether a peer has something left of its allowance.
    pub(super) fn is_open(&mut self, peer: &PeerId, topic: Topic) -> bool {
        let uptime = self.uptime;
        self.connected.get_mut(peer).is_some_and(|peer| peer.allowance.is_open(uptime, topic))
    }

    /// Begins work for a peer, unless too much is under way. Each is ended by [`Peers::end`].
    pub(super) fn begin(&mut self, peer: &PeerId, topic: Topic, cost: u32) -> bool {
        self.connected.get_mut(peer).is_some_and(|peer| peer.allowance.begin(topic, cost))
    }

    /// Work for a peer has ended, and so much of it came to nothing.
    pub(super) fn end(&mut self, peer: &PeerId, topic: Topic, cost: u32, wasted: u32) {
        let uptime = self.uptime;
        self.with_allowance(peer, |allowance| allowance.end(uptime, topic, cost, wasted));
    }

    /// What was held against a peer's allowance was of use.
    pub(super) fn forgive(&mut self, peer: &PeerId, topic: Topic, cost: u32) {
        self.with_allowance(peer, |allowance| allowance.forgive(topic, cost));
    }

    /// A message of a peer told nothing new.
    pub(super) fn idle(&mut self, peer: &PeerId, topic: Topic) {
        let uptime = self.uptime;
        self.with_allowance(peer, |allowance| allowance.idle(uptime, topic));
    }

    /// Of a peer that is connected, or was a moment ago.
    fn with_allowance(&mut self, peer: &PeerId, change: impl FnOnce(&mut Allowance)) {
        if let Some(peer) = self.connected.get_mut(peer).or_else(|| self.gone.get_mut(peer)) {
            change(&mut peer.allowance);
        }
    }

    /// A proposed block came from a peer that was asked.
    pub(super) fn body_came(&mut self, peer: &PeerId) {
        if let Some(peer) = self.connected.get_mut(peer) {
            peer.bodies = Record { came: peer.bodies.came.saturating_add(1), late: 0 };
        }
    }

    /// A proposed block did not come from a peer when it was due.
    pub(super) fn body_was_late(&mut self, peer: &PeerId) {
        if let Some(peer) = self.connected.get_mut(peer) {
            peer.bodies.late = peer.bodies.late.saturating_add(1);
        }
    }

    /// Proposed blocks that did not come from a peer when they were due, since the last that came.
    pub(super) fn bodies_late(&self, peer: &PeerId) -> u32 {
        self.connected.get(peer).map_or(0, |peer| peer.bodies.late)
    }

    /// How likely a peer is to send a proposed block that it says it has. Those that the operator has named are believed the
    /// first time.
    pub(super) fn reliability(&self, peer: &PeerId) -> Reliability {
        let Record { came, late } = self.connected.get(peer).map(|peer| peer.bodies).unwrap_or_default();
        let is_known = came > 0 || self.trusted.contains(peer);
        match late {
            0 if is_known => Reliability::Proven,
            0 => Reliability::Unknown,
            1 if is_known => Reliability::Unknown,
            _ => Reliability::Late,
        }
    }

    /// Takes note of the tip that a peer tells of.
    pub(super) fn tell(&mut self, peer: &PeerId, height: Height) {
        if let Some(peer) = self.connected.get_mut(peer) {
            peer.height = Some(height);
        }
    }

    /// Believes a peer no more than this.
    pub(super) fn doubt(&mut self, peer: &PeerId, height: Height) {
        if let Some(peer) = self.connected.get_mut(peer) {
            peer.height = peer.height.map(|told| told.min(height));
        }
    }

    pub(super) fn height(&self, peer: &PeerId) -> Option<Height> {
        self.connected.get(peer).and_then(|peer| peer.height)
    }

    /// The highest tip that any peer tells of.
    pub(super) fn best_height(&self) -> Option<Height> {
        self.connected.values().filter_map(|peer| peer.height).max()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &PeerId> {
        self.connected.keys()
    }

    pub(super) fn len(&self) -> usize {
        self.connected.len()
    }

    /// The score that a peer has by now; 0 for one that is gone.
    pub(super) fn score(&self, peer: &PeerId) -> i32 {
        self.connected.get(peer).map_or(0, |peer| peer.score_at(self.uptime).0)
    }

    pub(super) fn status(&self) -> Vec<PeerStatus> {
        let score = |peer: &Peer| peer.score_at(self.uptime).0;
        let status = |(id, peer): (&PeerId, &Peer)| PeerStatus { peer: *id, height: peer.height, score: score(peer) };
        self.connected.iter().map(status).collect()
    }
}

impl Peer {
    /// The score at a time, and when the last point of it came back.
    fn score_at(&self, uptime: Duration) -> (i32, Duration) {
        let points = u32::try_from(uptime.saturating_sub(self.scored).as_secs() / POINT_BACK.as_secs());
        let points = points.unwrap_or(u32::MAX);
        let score = self.score.saturating_add(i32::try_from(points).unwrap_or(i32::MAX)).min(SCORE_FULL);
        (score, self.scored.saturating_add(POINT_BACK.saturating_mul(points)))
    }
}
