//! Fetching a block that is proposed and not here: of whom, one at a time, and for how long.
//!
//! A short block is sent unasked, a long one announced (`wire`). Whoever has announced it is asked first, at once; others
//! only if nobody has, and a moment later. Until the answer is due nobody else is asked: a second answer would take half
//! of a thin line. When it is due depends on the length that was announced and on the rate at which long blocks came lately.
//!
//! **What a liar can do.** A peer that announces and does not send is waited for two seconds at most, less if others say that
//! the block is short, and only until one announces it that was more reliable so far ([`Reliability`]): that one is asked
//! at once. So a stranger costs a node two seconds, once; after that it is asked when nobody else has the block. One that
//! has sent blocks and stops costs up to eight seconds, and is like a stranger then. Whoever sends slowly makes the next
//! answers due later, within these bounds. Whoever says that a long block is short makes a node that knows nobody yet ask a
//! second peer too early, which takes a part of its line, until one has sent it a block. Nobody is blamed for what does not
//! come.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::hashes::{Hash, sha256};
use bytes::Bytes;
use causeway_chainspec::Height;
use libp2p::PeerId;

use super::bodies::Source;
use super::event::{GossipId, Now, OutboundId, RequestFailure};
use super::jobs::block_hash;
use super::peers::Reliability;
use super::report::Offence;
use super::timers::Alarm;
use super::{Asked, Node, RelayVerdict};
use crate::wire::{PUSHED_BYTES_MAX, Request, Topic};

/// How long to wait for a body that nobody has announced before asking for it.
const AFTER: Duration = Duration::from_millis(150);

/// How long an answer may take besides its bytes.
const TRIP: Duration = Duration::from_millis(400);

/// The same for a peer that has not sent such a block before, or not the last time.
const TRIP_UNPROVEN: Duration = Duration::from_millis(200);

/// When those are asked again who had no time for it: what they were sending has got on by then.
const BUSY_AGAIN: Duration = Duration::from_millis(100);

/// The bytes of an answer may take this time at most, but for what [`DOUBLINGS`] add.
const DUE_MAX: Duration = Duration::from_secs(8);

/// The same for a peer that is not proven.
const DUE_MAX_UNPROVEN: Duration = Duration::from_secs(2);

/// So often that time doubles for a block whose answers were not there when they were due.
const DOUBLINGS: u32 = 2;

/// The rate that is expected before anything has come, in bytes a second: 8 Mbit/s.
const FIRST_RATE: u64 = 1_000_000;

/// How often a body is sent to one peer that asks. The network refuses some of its questions when it has too much to send.
const SENDINGS_MAX: u32 = 16;

/// A question that has no answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fetch {
    id: OutboundId,
    peer: PeerId,
    /// Whether the peer has said that it has the block.
    is_promised: bool,
    /// What the peer was like when it was asked.
    reliability: Reliability,
    since: Duration,
    due: Duration,
    /// Whether the answer was not here when it was due: others may be asked.
    is_late: bool,
}

/// Who was asked for a block that is not here.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    open: Vec<Fetch>,
    /// Who is not asked again before all others were.
    asked: BTreeSet<PeerId>,
    /// Of these, who has it, and too much to send.
    busy: BTreeSet<PeerId>,
    /// Answers that were not here when they were due.
    late: u32,
}

impl Fetches {
    /// The answer that is being waited for.
    pub(super) fn awaited(&self) -> Option<&Fetch> {
        self.open.iter().filter(|fetch| !fetch.is_late).max_by_key(|fetch| fetch.reliability)
    }

    /// Waits no longer than this for those of whom nothing is known.
    fn hasten(&mut self, patience: Duration) {
        let unproven = |fetch: &&mut Fetch| fetch.reliability < Reliability::Proven && !fetch.is_late;
        for fetch in self.open.iter_mut().filter(unproven) {
            fetch.due = fetch.due.min(fetch.since + patience);
        }
    }

    /// Waits no longer for what is due. Returns who had promised it.
    fn give_up(&mut self, now: Duration) -> Vec<PeerId> {
        let mut late = Vec::new();
        for fetch in self.open.iter_mut().filter(|fetch| !fetch.is_late && fetch.due <= now) {
            fetch.is_late = true;
            late.extend(fetch.is_promised.then_some(fetch.peer));
        }
        self.late = self.late.saturating_add(u32::try_from(late.len()).unwrap_or(u32::MAX));
        late
    }

    /// A question is over.
    fn end(&mut self, id: OutboundId) -> Option<Fetch> {
        let index = self.open.iter().position(|fetch| fetch.id == id)?;
        Some(self.open.remove(index))
    }
}

/// How fast long blocks came lately.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    bytes_per_second: u64,
}

impl Default for Line {
    fn default() -> Self {
        Self { bytes_per_second: FIRST_RATE }
    }
}

impl Line {
    /// A block came in so long. Short ones say more of the way than of the line.
    fn note(&mut self, bytes: usize, took: Duration) {
        if bytes <= PUSHED_BYTES_MAX {
            return;
        }
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(1_000) / millis;
        self.bytes_per_second = ((self.bytes_per_second * 3).saturating_add(rate) / 4).max(1);
    }

    /// How long an answer of so many bytes may take: twice what it takes by itself, longer after each that was late.
    /// Of one that nobody has announced, and may be nowhere, [`TRIP`].
    fn patience(&self, bytes: Option<u32>, reliability: Reliability, late: u32) -> Duration {
        let Some(bytes) = bytes else { return TRIP };
        let twice = Duration::from_millis(u64::from(bytes) * 2 * 1_000 / self.bytes_per_second);
        let (trip, most) = match reliability {
            Reliability::Proven => (TRIP, DUE_MAX),
            Reliability::Unknown | Reliability::Late => (TRIP_UNPROVEN, DUE_MAX_UNPROVEN),
        };
        trip + twice.min(most) * (1 << late.min(DOUBLINGS))
    }
}

impl Node {
    /// A peer says that it has a block that is proposed.
    pub(super) fn body_announced(
        &mut self,
        now: Now,
        peer: PeerId,
        id: GossipId,
        (height, hash, bytes): (Height, BlockHash, u32),
    ) {
        let above = height.blocks_since(self.tip.height()).unwrap_or(0);
        if !(1..=2).contains(&above) || !self.bodies.announced.hear(peer, height, hash, bytes) {
            self.of_no_use(peer, Topic::Bodies, id);
        } else {
            self.relay(id, RelayVerdict::Used);
        }
        self.fetch_announced(now, hash);
    }

    /// Asks for a body whose proposal has just come: at once if somebody has it, else if it does not come by itself.
    pub(super) fn fetch_body_soon(&mut self, now: Now, hash: BlockHash) {
        if !self.fetch_announced(now, hash) {
            self.timers.set_at_latest(Alarm::FetchBody(hash), now.uptime + AFTER);
        }
    }

    /// Asks for a body if somebody has announced it who was not asked. Returns whether one is asked, or was, or the body is here.
    fn fetch_announced(&mut self, now: Now, hash: BlockHash) -> bool {
        let Some((body, announced)) = self.bodies.missing(&hash) else { return true };
        let fetches = &body.fetches;
        let can = |peer: &PeerId| !fetches.asked.contains(peer) && announced.bytes(peer, &hash).is_some();
        let (waits, can) = (fetches.awaited().is_some(), self.peers.iter().any(can));
        if can || waits {
            self.fetch_body(now, hash);
        }
        waits || can
    }

    /// Asks for a body that is not here, unless an answer is still to come of a peer that is as reliable as any that has it.
    pub(super) fn fetch_body(&mut self, now: Now, hash: BlockHash) {
        let Some(height) = self.tip.height().next() else { return };
        let Some((body, announced)) = self.bodies.missing(&hash) else { return };
        let fetches = &mut body.fetches;
        if let Some(least) = announced.least(&hash) {
            fetches.hasten(self.line.patience(Some(least), Reliability::Unknown, fetches.late));
        }
        for peer in fetches.give_up(now.uptime) {
            self.peers.body_was_late(&peer);
        }
        // Every block in another order of the peers, which nobody can choose a name for.
        let order = |peer: &PeerId| sha256::Hash::hash(&[&peer.to_bytes(), &hash.to_byte_array()[..]].concat());
        let rank = |peer: &&PeerId| {
            let (silent, reliability) = (announced.bytes(peer, &hash).is_none(), self.peers.reliability(peer));
            (silent, Reverse(reliability), self.peers.bodies_late(peer), order(peer))
        };
        let best = self.peers.iter().filter(|peer| !fetches.asked.contains(peer)).min_by_key(rank).copied();
        let bytes = best.and_then(|peer| announced.bytes(&peer, &hash));
        let reliability = best.map_or(Reliability::Late, |peer| self.peers.reliability(&peer));
        if let Some(awaited) = fetches.awaited()
            && (bytes.is_none() || awaited.reliability >= reliability)
        {
            return self.timers.set_at_latest(Alarm::FetchBody(hash), awaited.due);
        }
        let (Some(peer), true) = (best, bytes.is_some() || fetches.busy.is_empty()) else {
            // Whoever had too much to send, or had it not, is asked again; the latter a little later.
            let busy = std::mem::take(&mut fetches.busy);
            let wait = if busy.is_empty() { TRIP } else { BUSY_AGAIN };
            fetches.asked.retain(|peer| !busy.is_empty() && !busy.contains(peer));
            return self.timers.set(Alarm::FetchBody(hash), now.uptime + wait);
        };
        fetches.asked.insert(peer);
        let due = now.uptime + self.line.patience(bytes, reliability, fetches.late);
        let id = self.request(peer, Asked::Body { hash }, Request::Body { height, hash });
        let is_promised = bytes.is_some();
        let fetch = Fetch { id, peer, is_promised, reliability, since: now.uptime, due, is_late: false };
        if let Some((body, _)) = self.bodies.missing(&hash) {
            body.fetches.open.push(fetch);
        }
        self.timers.set(Alarm::FetchBody(hash), due);
    }

    /// A peer answers with a body, or has none.
    pub(super) fn fetched_body(
        &mut self,
        now: Now,
        (peer, id): (PeerId, OutboundId),
        hash: BlockHash,
        bytes: Option<Bytes>,
    ) {
        let Some(fetch) = self.bodies.get_mut(&hash).and_then(|body| body.fetches.end(id)) else { return };
        match bytes {
            Some(bytes) if block_hash(&bytes) == Some(hash) => {
                self.line.note(bytes.len(), now.uptime.saturating_sub(fetch.since));
                self.peers.body_came(&peer);
                if self.bodies.missing(&hash).is_some() {
                    self.judge(hash, bytes, Source { peer: Some(peer), gossip: None });
                }
            }
            Some(_) => {
                self.punish(now, peer, Offence::AlteredBlock);
                self.fetch_body(now, hash);
            }
            None => self.fetch_body(now, hash),
        }
    }

    /// A body does not come from whom it was asked of.
    pub(super) fn body_failed(
        &mut self,
        now: Now,
        (peer, id): (PeerId, OutboundId),
        hash: BlockHash,
        why: RequestFailure,
    ) {
        match why {
            RequestFailure::Timeout => self.punish(now, peer, Offence::Stalled),
            RequestFailure::Malformed => self.punish(now, peer, Offence::Malformed),
            RequestFailure::Disconnected | RequestFailure::Refused => {}
        }
        let Some(body) = self.bodies.get_mut(&hash) else { return };
        let Some(fetch) = body.fetches.end(id) else { return };
        if why == RequestFailure::Refused {
            body.fetches.busy.insert(fetch.peer);
        }
        self.fetch_body(now, hash);
    }

    /// The answer to a peer that asks for a body: what belongs to its header, until the height after its own is final, and to
    /// each peer some times at most.
    pub(super) fn body_for(&mut self, peer: PeerId, hash: &BlockHash) -> Option<Bytes> {
        let body = self.bodies.asked_for(hash)?;
        let bytes = body.bytes()?.clone();
        let sent = body.sent.entry(peer).or_insert(0);
        *sent += 1;
        (*sent <= SENDINGS_MAX).then_some(bytes)
    }
}

#[cfg(test)]
mod tests;
