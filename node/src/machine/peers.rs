//! What is known of the peers: their tips, and how far they can be trusted.

use std::collections::BTreeMap;
use std::time::Duration;

use causeway_chainspec::Height;
use libp2p::PeerId;

use super::report::{Offence, PeerStatus};

/// The score of a peer that did nothing wrong.
const SCORE_FULL: i32 = 100;

/// A lost point of score comes back in this time.
const POINT_BACK: Duration = Duration::from_secs(6);

/// How long a peer without score stays away.
pub(super) const BAN: Duration = Duration::from_secs(600);

/// Scores of peers that are gone are kept for this many, so that reconnecting forgives nothing.
const GONE_MAX: usize = 1_000;

/// Signatures that are verified for a peer at once, and each second: votes of 256 validators, several times over. One
/// takes some 40 us.
const SIGNATURES_BURST: u32 = 4_096;
const SIGNATURES_PER_SECOND: u32 = 2_048;

/// The peers of this chain.
#[derive(Debug, Default)]
pub(super) struct Peers {
    connected: BTreeMap<PeerId, Peer>,
    /// Score, and when it was that.
    gone: BTreeMap<PeerId, (i32, Duration)>,
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
    /// Signatures of its messages that may be verified, and since when.
    signatures: u32,
    allowed: Duration,
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
    /// Takes note of the time.
    pub(super) fn tick(&mut self, uptime: Duration) {
        self.uptime = uptime;
    }

    pub(super) fn connect(&mut self, peer: PeerId, uptime: Duration) {
        let (score, scored) = self.gone.remove(&peer).unwrap_or((SCORE_FULL, uptime));
        let new = Peer { height: None, score, scored, signatures: SIGNATURES_BURST, allowed: uptime };
        self.connected.entry(peer).or_insert(new);
    }

    pub(super) fn disconnect(&mut self, peer: &PeerId) {
        let Some(left) = self.connected.remove(peer) else { return };
        if left.score < SCORE_FULL {
            if self.gone.len() >= GONE_MAX {
                self.gone.pop_first();
            }
            // A ban takes the score's place.
            self.gone.insert(*peer, (left.score.max(1), left.scored));
        }
    }

    /// Takes score from a peer; nothing if it is gone.
    pub(super) fn punish(&mut self, peer: &PeerId, offence: Offence, uptime: Duration) -> Option<Penalty> {
        let peer = self.connected.get_mut(peer)?;
        (peer.score, peer.scored) = peer.score_at(uptime);
        peer.score -= offence.cost();
        if offence == Offence::Stalled {
            // Silence may be the network's: it never bans.
            peer.score = peer.score.max(1);
        }
        Some(if peer.score > 0 { Penalty::Left(peer.score) } else { Penalty::Ban })
    }

    /// Whether this many signatures of a peer's message may be verified.
    pub(super) fn allow_signatures(&mut self, peer: &PeerId, count: u32) -> bool {
        let uptime = self.uptime;
        let Some(peer) = self.connected.get_mut(peer) else { return false };
        let seconds = u32::try_from(uptime.saturating_sub(peer.allowed).as_secs()).unwrap_or(u32::MAX);
        if seconds > 0 {
            let more = seconds.saturating_mul(SIGNATURES_PER_SECOND);
            peer.signatures = peer.signatures.saturating_add(more).min(SIGNATURES_BURST);
            peer.allowed = uptime;
        }
        let left = peer.signatures.checked_sub(count);
        peer.signatures = left.unwrap_or(peer.signatures);
        left.is_some()
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
