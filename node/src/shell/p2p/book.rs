//! Known peers and where they are: whom to dial next, and when.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};
use rand::seq::IteratorRandom;

use super::address::{self, Reach};
use super::limits::Timing;

/// Addresses that are kept of a peer.
pub(super) const ADDRESSES_MAX: usize = 4;

/// A peer that never answered is forgotten after this many attempts, one that has answered before after four times as many.
const ATTEMPTS_MAX: u32 = 4;

/// A known peer.
#[derive(Debug)]
struct Entry {
    /// The best first.
    addresses: Vec<Multiaddr>,
    persistent: bool,
    /// It has been a peer of this node.
    good: bool,
    attempts: Attempts,
}

/// A bootstrap address.
#[derive(Debug)]
struct Seed {
    address: Multiaddr,
    /// Who answers there.
    peer: Option<PeerId>,
    attempts: Attempts,
}

/// When something may be tried again.
#[derive(Debug)]
struct Attempts {
    /// An attempt is under way.
    open: bool,
    failures: u32,
    next: Instant,
}

impl Attempts {
    fn new(now: Instant) -> Self {
        Self { open: false, failures: 0, next: now }
    }

    fn is_due(&self, now: Instant) -> bool {
        !self.open && self.next <= now
    }

    /// Waits twice as long as after the failure before, with a jitter of a quarter: `min`, 2 `min`, .. `max`.
    fn fail(&mut self, now: Instant, min: Duration, max: Duration) {
        self.open = false;
        let wait = min.saturating_mul(1 << self.failures.min(20)).min(max);
        self.failures = self.failures.saturating_add(1);
        self.next = now + wait.mul_f64(rand::random_range(0.75..1.0));
    }
}

/// Whom a dial is meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A peer of the book.
    Peer(PeerId),
    /// The bootstrap address with this index.
    Seed(usize),
}

/// What to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dial {
    /// Whom this is for.
    pub(super) target: Target,
    /// Who should answer, if that is known.
    pub(super) peer: Option<PeerId>,
    /// Where.
    pub(super) addresses: Vec<Multiaddr>,
}

/// The address book. Bounded; persistent peers are always in it.
#[derive(Debug)]
pub(super) struct Book {
    local: PeerId,
    reach: Reach,
    max: usize,
    timing: Timing,
    entries: HashMap<PeerId, Entry>,
    seeds: Vec<Seed>,
    open: HashMap<ConnectionId, Target>,
}

impl Book {
    /// A book with these persistent peers and bootstrap addresses.
    pub(super) fn new(
        local: PeerId,
        reach: Reach,
        max: usize,
        timing: Timing,
        persistent: &[(PeerId, Multiaddr)],
        seeds: &[Multiaddr],
        now: Instant,
    ) -> Self {
        let mut entries: HashMap<PeerId, Entry> = HashMap::new();
        for (peer, address) in persistent.iter().filter(|(peer, _)| *peer != local) {
            let entry = entries.entry(*peer).or_insert_with(|| Entry {
                addresses: Vec::new(),
                persistent: true,
                good: false,
                attempts: Attempts::new(now),
            });
            entry.addresses.push(address.clone());
        }
        let seeds = seeds.iter().map(|address| {
            let (address, peer) = address::split(address);
            Seed { address, peer, attempts: Attempts::new(now) }
        });
        let seeds = seeds.filter(|seed| seed.peer != Some(local)).collect();
        Self { local, reach, max, timing, entries, seeds, open: HashMap::new() }
    }

    /// Whether this is a persistent peer.
    pub(super) fn is_persistent(&self, peer: &PeerId) -> bool {
        self.entries.get(peer).is_some_and(|entry| entry.persistent)
    }

    /// Returns those of the addresses that this node may dial, without the peer, at most [`ADDRESSES_MAX`].
    pub(super) fn usable(&self, peer: &PeerId, addresses: &[Multiaddr]) -> Vec<Multiaddr> {
        let mut usable = Vec::new();
        for given in addresses {
            let (address, of) = address::split(given);
            let fits = of.is_none_or(|of| of == *peer) && self.reach.allows(&address) && !usable.contains(&address);
            if fits && usable.len() < ADDRESSES_MAX {
                usable.push(address);
            }
        }
        usable
    }

    /// Notes where a peer says it is, or others say. The operator's addresses of persistent peers stay.
    pub(super) fn learn(&mut self, peer: PeerId, addresses: &[Multiaddr], now: Instant) {
        let usable = self.usable(&peer, addresses);
        if usable.is_empty() || peer == self.local {
            return;
        }
        if let Some(entry) = self.entries.get_mut(&peer) {
            for address in usable {
                if !entry.addresses.contains(&address) && entry.addresses.len() < ADDRESSES_MAX {
                    entry.addresses.push(address);
                }
            }
        } else if self.entries.len() < self.max || self.forget_one() {
            let attempts = Attempts::new(now);
            self.entries.insert(peer, Entry { addresses: usable, persistent: false, good: false, attempts });
        }
    }

    /// Makes room, at random among those that never were peers: nobody can push out the good ones by naming many.
    fn forget_one(&mut self) -> bool {
        let unproven =
            self.entries.iter().filter(|(_, entry)| !entry.good && !entry.persistent && !entry.attempts.open);
        let Some(peer) = unproven.map(|(peer, _)| *peer).choose(&mut rand::rng()) else { return false };
        self.entries.remove(&peer).is_some()
    }

    /// Returns persistent peers to dial, those excepted which `connected` names.
    pub(super) fn due_persistent(&self, now: Instant, connected: impl Fn(&PeerId) -> bool) -> Vec<Dial> {
        let due = self.entries.iter().filter(|(_, entry)| entry.persistent && entry.attempts.is_due(now));
        due.filter(|(peer, _)| !connected(peer)).map(|(peer, entry)| dial(*peer, entry)).collect()
    }

    /// Returns at most `count` other peers to dial in an order by chance, whose best address `fits`.
    pub(super) fn due(
        &self,
        now: Instant,
        count: usize,
        connected: impl Fn(&PeerId) -> bool,
        fits: impl Fn(&Multiaddr) -> bool,
    ) -> Vec<Dial> {
        let due = self.entries.iter().filter(|(peer, entry)| {
            let free = !entry.persistent && entry.attempts.is_due(now) && !connected(peer);
            free && entry.addresses.first().is_some_and(&fits)
        });
        due.map(|(peer, entry)| dial(*peer, entry)).choose_multiple(&mut rand::rng(), count)
    }

    /// Returns the bootstrap addresses to dial.
    pub(super) fn due_seeds(&self, now: Instant, connected: impl Fn(&PeerId) -> bool) -> Vec<Dial> {
        let due = self
            .seeds
            .iter()
            .enumerate()
            .filter(|(_, seed)| seed.attempts.is_due(now) && !seed.peer.is_some_and(|peer| connected(&peer)));
        due.map(|(index, seed)| Dial {
            target: Target::Seed(index),
            peer: seed.peer,
            addresses: vec![seed.address.clone()],
        })
        .collect()
    }

    /// Dials that are under way to other than persistent peers.
    pub(super) fn open_dials(&self) -> usize {
        let free = |target: &&Target| !matches!(target, Target::Peer(peer) if self.is_persistent(peer));
        self.open.values().filter(free).count()
    }

    /// A dial is under way.
    pub(super) fn dialling(&mut self, target: Target, connection: ConnectionId) {
        self.open.insert(connection, target);
        if let Some(attempts) = self.attempts(target) {
            attempts.open = true;
        }
    }

    /// A dial has led to a connection, which may not last.
    pub(super) fn connected(&mut self, connection: ConnectionId, peer: PeerId) {
        let Some(target) = self.open.remove(&connection) else { return };
        if let Target::Seed(index) = target
            && let Some(seed) = self.seeds.get_mut(index)
        {
            seed.peer = Some(peer);
        }
        // Until more is known this counts as a failure: whoever accepts and hangs up is not dialled again at once.
        self.fail(target, Instant::now());
    }

    /// A dial has failed.
    pub(super) fn failed(&mut self, connection: ConnectionId, now: Instant) {
        if let Some(target) = self.open.remove(&connection) {
            self.fail(target, now);
        }
    }

    /// A peer has said that it is of this chain and version. `dialled` is where this node reached it.
    pub(super) fn proven(&mut self, peer: PeerId, dialled: Option<&Multiaddr>) {
        let Some(entry) = self.entries.get_mut(&peer) else { return };
        entry.good = true;
        let Some((address, _)) = dialled.map(address::split) else { return };
        if !entry.persistent && self.reach.allows(&address) {
            entry.addresses.retain(|known| *known != address);
            entry.addresses.insert(0, address);
            entry.addresses.truncate(ADDRESSES_MAX);
        }
    }

    /// A peer has no connection any more, after having been one for `lasted`.
    pub(super) fn closed(&mut self, peer: PeerId, lasted: Option<Duration>, now: Instant) {
        let stable = lasted.is_some_and(|lasted| lasted >= self.timing.redial_max);
        let seed = self.seeds.iter_mut().filter(|seed| seed.peer == Some(peer)).map(|seed| &mut seed.attempts);
        let entry = self.entries.get_mut(&peer).map(|entry| &mut entry.attempts);
        if stable {
            for attempts in seed.chain(entry) {
                *attempts = Attempts { open: attempts.open, ..Attempts::new(now) };
            }
        }
    }

    /// Dials a peer of another chain or version no sooner than then. Persistent ones are dialled on.
    pub(super) fn avoid(&mut self, peer: PeerId, until: Instant) {
        for seed in self.seeds.iter_mut().filter(|seed| seed.peer == Some(peer)) {
            seed.attempts.next = until;
        }
        if !self.is_persistent(&peer) {
            self.entries.remove(&peer);
        }
    }

    fn attempts(&mut self, target: Target) -> Option<&mut Attempts> {
        match target {
            Target::Peer(peer) => self.entries.get_mut(&peer).map(|entry| &mut entry.attempts),
            Target::Seed(index) => self.seeds.get_mut(index).map(|seed| &mut seed.attempts),
        }
    }

    fn fail(&mut self, target: Target, now: Instant) {
        let patient = match target {
            Target::Peer(peer) => self.is_persistent(&peer),
            Target::Seed(_) => true,
        };
        let Timing { redial_min, redial_max, retry_min, retry_max, .. } = self.timing;
        let (min, max) = if patient { (redial_min, redial_max) } else { (retry_min, retry_max) };
        let Some(attempts) = self.attempts(target) else { return };
        attempts.fail(now, min, max);
        let failures = attempts.failures;
        if let Target::Peer(peer) = target
            && self
                .entries
                .get(&peer)
                .is_some_and(|entry| !entry.persistent && failures >= ATTEMPTS_MAX * if entry.good { 4 } else { 1 })
        {
            self.entries.remove(&peer);
        }
    }
}

fn dial(peer: PeerId, entry: &Entry) -> Dial {
    Dial { target: Target::Peer(peer), peer: Some(peer), addresses: entry.addresses.clone() }
}

#[cfg(test)]
mod tests;
