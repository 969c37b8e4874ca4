//! Known peers and where they are: whom to dial next, and when.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};
use rand::rngs::StdRng;

use super::address::{self, Reach, Scope};
use super::book_file::{Saved, SavedPeer};
use super::limits::Timing;
use super::resolve;
use super::tables::{Known, Tables};

/// Addresses that are kept of a peer.
pub(super) const ADDRESSES_MAX: usize = 4;

/// A peer that never answered is forgotten after this many attempts, one that has answered before after four times as many.
const ATTEMPTS_MAX: u32 = 4;

/// A persistent peer.
#[derive(Debug)]
struct Persistent {
    /// Those of the operator first.
    addresses: Vec<Multiaddr>,
    attempts: Attempts,
}

/// A bootstrap address.
#[derive(Debug)]
struct Seed {
    address: Multiaddr,
    /// Who answers there. Behind a name without a peer there may be many.
    peer: Option<PeerId>,
    attempts: Attempts,
}

/// When something may be tried again.
#[derive(Debug)]
pub(super) struct Attempts {
    /// An attempt is under way.
    open: bool,
    failures: u32,
    next: Instant,
}

impl Attempts {
    /// Nothing was tried yet.
    pub(super) fn new(now: Instant) -> Self {
        Self { open: false, failures: 0, next: now }
    }

    /// Whether an attempt is under way.
    pub(super) fn is_open(&self) -> bool {
        self.open
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
    /// Where; of what the operator has set, also by name.
    pub(super) addresses: Vec<Multiaddr>,
}

/// The address book. Bounded by its tables; what the operator has set is beside them.
#[derive(Debug)]
pub(super) struct Book {
    local: PeerId,
    reach: Reach,
    timing: Timing,
    persistent: HashMap<PeerId, Persistent>,
    tables: Tables,
    /// Peers of the last run that are dialled before all others.
    anchors: Vec<PeerId>,
    seeds: Vec<Seed>,
    open: HashMap<ConnectionId, Target>,
    rng: StdRng,
}

impl Book {
    /// A book with these persistent peers and bootstrap addresses, and what the last run knew.
    pub(super) fn new(
        local: PeerId,
        reach: Reach,
        timing: Timing,
        (persistent, seeds): (&[(PeerId, Multiaddr)], &[Multiaddr]),
        saved: Saved,
        rng: StdRng,
        now: Instant,
    ) -> Self {
        let mut known: HashMap<PeerId, Persistent> = HashMap::new();
        for (peer, address) in persistent.iter().filter(|(peer, _)| *peer != local) {
            let entry = known.entry(*peer);
            let entry = entry.or_insert_with(|| Persistent { addresses: Vec::new(), attempts: Attempts::new(now) });
            entry.addresses.push(address.clone());
        }
        let seeds = seeds.iter().map(|address| {
            let (address, peer) = address::split(address);
            Seed { address, peer, attempts: Attempts::new(now) }
        });
        let seeds = seeds.filter(|seed| seed.peer != Some(local)).collect();
        let (tables, anchors) = (Tables::new(saved.key), Vec::new());
        let mut book =
            Self { local, reach, timing, persistent: known, tables, anchors, seeds, open: HashMap::new(), rng };
        for saved in saved.peers {
            let addresses = saved.addresses.iter().map(|(ip, port)| address::of(*ip, *port)).collect::<Vec<_>>();
            let addresses = book.usable(&saved.peer, &addresses);
            if addresses.is_empty() || saved.peer == local || book.is_persistent(&saved.peer) {
                continue;
            }
            book.tables.restore(saved.peer, addresses, saved.source, saved.is_tried, now);
            if saved.is_anchor {
                book.anchors.push(saved.peer);
            }
        }
        book
    }

    /// What the next run should know. `anchors` are the peers that it dials first.
    pub(super) fn saved(&self, anchors: &[PeerId]) -> Saved {
        let peers = self.tables.iter().map(|(peer, known)| SavedPeer {
            peer: *peer,
            addresses: known.addresses.iter().filter_map(address::socket).collect(),
            source: known.source,
            is_tried: known.is_tried(),
            is_anchor: anchors.contains(peer),
        });
        Saved { key: *self.tables.key(), peers: peers.collect() }
    }

    /// Whether this is a persistent peer.
    pub(super) fn is_persistent(&self, peer: &PeerId) -> bool {
        self.persistent.contains_key(peer)
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

    /// Notes where somebody at `source` says that a peer is.
    pub(super) fn hear(&mut self, peer: PeerId, addresses: &[Multiaddr], source: IpAddr, now: Instant) {
        let usable = self.usable(&peer, addresses);
        if !usable.is_empty() && peer != self.local && !self.is_persistent(&peer) {
            self.tables.hear(peer, usable, source, now);
        }
    }

    /// Notes where a peer at `source` says that it is itself. The operator's addresses of persistent peers stay.
    pub(super) fn hear_itself(&mut self, peer: PeerId, addresses: &[Multiaddr], source: IpAddr, now: Instant) {
        let usable = self.usable(&peer, addresses);
        if usable.is_empty() || peer == self.local {
            return;
        }
        match self.persistent.get_mut(&peer) {
            Some(persistent) => {
                for address in usable {
                    if !persistent.addresses.contains(&address) && persistent.addresses.len() < ADDRESSES_MAX {
                        persistent.addresses.push(address);
                    }
                }
            }
            None => self.tables.hear_itself(peer, usable, source, now),
        }
    }

    /// Returns at most `count` known peers by chance, to tell one of `scope` about, with those of their addresses that mean
    /// something there. What the operator has set is told to nobody: a validator behind this node stays hidden.
    pub(super) fn tell(
        &mut self,
        count: usize,
        scope: Scope,
        wanted: impl Fn(&PeerId) -> bool,
    ) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let reaches =
            |address: &Multiaddr| address::ip(address).and_then(address::scope).is_some_and(|reached| reached >= scope);
        let fits = |peer: &PeerId, known: &Known| wanted(peer) && known.addresses.iter().any(reaches);
        let drawn = self.tables.draw(&mut self.rng, count, fits);
        let told = drawn.into_iter().filter_map(|peer| {
            let known = self.tables.get(&peer)?;
            Some((peer, known.addresses.iter().filter(|address| reaches(address)).cloned().collect()))
        });
        told.collect()
    }

    /// Returns persistent peers to dial, those excepted which `connected` names.
    pub(super) fn due_persistent(&self, now: Instant, connected: impl Fn(&PeerId) -> bool) -> Vec<Dial> {
        let due = self.persistent.iter().filter(|(peer, entry)| entry.attempts.is_due(now) && !connected(peer));
        due.map(|(peer, entry)| dial(*peer, &entry.addresses)).collect()
    }

    /// Returns at most `count` other peers to dial whose best address `fits`: anchors first, then by chance.
    pub(super) fn due(
        &mut self,
        now: Instant,
        count: usize,
        connected: impl Fn(&PeerId) -> bool,
        fits: impl Fn(&Multiaddr) -> bool,
    ) -> Vec<Dial> {
        let due = |peer: &PeerId, known: &Known| {
            known.attempts.is_due(now) && !connected(peer) && known.addresses.first().is_some_and(&fits)
        };
        let anchors = self.anchors.iter().filter(|peer| self.tables.get(peer).is_some_and(|known| due(peer, known)));
        let mut peers: Vec<_> = anchors.copied().take(count).collect();
        let left = count - peers.len();
        let others = self.tables.draw(&mut self.rng, left, |peer, known| !peers.contains(peer) && due(peer, known));
        peers.extend(others);
        let dials = peers.iter().filter_map(|peer| self.tables.get(peer).map(|known| dial(*peer, &known.addresses)));
        dials.collect()
    }

    /// Returns a peer by chance that was only heard of, to find out whether it is there.
    pub(super) fn due_new(
        &mut self,
        now: Instant,
        connected: impl Fn(&PeerId) -> bool,
        fits: impl Fn(&Multiaddr) -> bool,
    ) -> Option<Dial> {
        let due = |peer: &PeerId, known: &Known| {
            let is_free = !known.is_tried() && known.attempts.is_due(now) && !connected(peer);
            is_free && known.addresses.first().is_some_and(&fits)
        };
        let peer = self.tables.draw(&mut self.rng, 1, due).pop()?;
        self.tables.get(&peer).map(|known| dial(peer, &known.addresses))
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

    /// An attempt begins that is no dial yet: its names are looked up.
    pub(super) fn begins(&mut self, target: Target) {
        if let Target::Peer(peer) = target {
            self.anchors.retain(|anchor| *anchor != peer);
        }
        if let Some(attempts) = self.attempts(target) {
            attempts.open = true;
        }
    }

    /// A dial is under way.
    pub(super) fn dialling(&mut self, target: Target, connection: ConnectionId) {
        self.begins(target);
        self.open.insert(connection, target);
    }

    /// A dial has led to a connection, which may not last.
    pub(super) fn connected(&mut self, connection: ConnectionId, peer: PeerId) {
        let Some(target) = self.open.remove(&connection) else { return };
        if let Target::Seed(index) = target
            && let Some(seed) = self.seeds.get_mut(index)
            && resolve::name(&seed.address).is_none()
        {
            seed.peer = Some(peer);
        }
        // Until more is known this counts as a failure: whoever accepts and hangs up is not dialled again at once.
        self.fail(target, Instant::now());
    }

    /// A dial has failed.
    pub(super) fn failed(&mut self, connection: ConnectionId, now: Instant) {
        if let Some(target) = self.open.remove(&connection) {
            self.missed(target, now);
        }
    }

    /// An attempt led nowhere.
    pub(super) fn missed(&mut self, target: Target, now: Instant) {
        if let Target::Peer(peer) = target
            && let Some(known) = self.tables.get_mut(&peer)
        {
            known.miss();
        }
        self.fail(target, now);
    }

    /// A peer that this node reached at `dialled` has said that it is of this chain and version. Who calls by itself proves
    /// nothing about where it can be reached.
    pub(super) fn proven(&mut self, peer: PeerId, dialled: &Multiaddr, now: Instant) {
        let (address, _) = address::split(dialled);
        if peer != self.local && !self.is_persistent(&peer) && self.reach.allows(&address) {
            self.tables.reached(peer, &address, now);
        }
    }

    /// A peer has no connection any more, after having been one for `lasted`.
    pub(super) fn closed(&mut self, peer: PeerId, lasted: Option<Duration>, now: Instant) {
        let stable = lasted.is_some_and(|lasted| lasted >= self.timing.redial_max);
        let seed = self.seeds.iter_mut().filter(|seed| seed.peer == Some(peer)).map(|seed| &mut seed.attempts);
        let persistent = self.persistent.get_mut(&peer).map(|entry| &mut entry.attempts);
        let known = self.tables.get_mut(&peer).map(|known| &mut known.attempts);
        if stable {
            for attempts in seed.chain(persistent).chain(known) {
                *attempts = Attempts { open: attempts.open, ..Attempts::new(now) };
            }
        }
    }

    /// Dials a peer of another chain or version no sooner than then. Persistent ones are dialled on.
    pub(super) fn avoid(&mut self, peer: PeerId, until: Instant) {
        for seed in self.seeds.iter_mut().filter(|seed| seed.peer == Some(peer)) {
            seed.attempts.next = until;
        }
        self.tables.remove(&peer);
    }

    fn attempts(&mut self, target: Target) -> Option<&mut Attempts> {
        match target {
            Target::Peer(peer) => match self.persistent.get_mut(&peer) {
                Some(persistent) => Some(&mut persistent.attempts),
                None => self.tables.get_mut(&peer).map(|known| &mut known.attempts),
            },
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
            && let Some(known) = self.tables.get(&peer)
            && failures >= ATTEMPTS_MAX * if known.is_tried() { 4 } else { 1 }
        {
            self.tables.remove(&peer);
        }
    }
}

fn dial(peer: PeerId, addresses: &[Multiaddr]) -> Dial {
    Dial { target: Target::Peer(peer), peer: Some(peer), addresses: addresses.to_vec() }
}

#[cfg(test)]
mod tests;
