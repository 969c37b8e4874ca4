//! The known peers in two tables that nobody fills alone, as Bitcoin Core's `addrman` has them. Pure.
//!
//! *New* holds what others say, *tried* the peers that this node has reached by itself. Each place is given by a hash
//! under a key that only this node has:
//! - what one group of networks says reaches [`NEW_BUCKETS_PER_SOURCE`] of the [`NEW_BUCKETS`] buckets of *new*, and what
//!   it says of one other group reaches one;
//! - peers of one group reach [`TRIED_BUCKETS_PER_GROUP`] of the [`TRIED_BUCKETS`] buckets of *tried*;
//! - whoever is in a place stays, unless a dial has missed it since it was last reached, or it is a rumour of yesterday.
//!
//! So many addresses in few groups fill little, and what is new never pushes out what was tried. A group is an IPv4 /16
//! or an IPv6 /32; an address that is not public is a group by itself, since no stranger can have many of those.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use causeway_chainspec::tagged_hash;
use libp2p::{Multiaddr, PeerId};
use rand::Rng;
use rand::seq::IteratorRandom;

use super::address;
use super::book::{ADDRESSES_MAX, Attempts};

/// Buckets of tried peers, and the places of one: 1,024 peers.
const TRIED_BUCKETS: u64 = 128;
const TRIED_PLACES: u64 = 8;

/// Buckets that the peers of one group are in: 32 peers, a thirty-second of all.
const TRIED_BUCKETS_PER_GROUP: u64 = 4;

/// Buckets of new peers, and the places of one: 4,096 peers.
const NEW_BUCKETS: u64 = 256;
const NEW_PLACES: u64 = 16;

/// Buckets that what one group says is in: 256 peers, a sixteenth of all.
const NEW_BUCKETS_PER_SOURCE: u64 = 16;

/// Most peers that are known.
pub(super) const KNOWN_MAX: usize = 1_024 + 4_096;

/// A new peer that was heard of so long ago makes room for another.
const RUMOUR_LASTS: Duration = Duration::from_secs(24 * 3_600);

/// Where a peer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    New { bucket: u64, place: u64 },
    Tried { bucket: u64, place: u64 },
}

/// A known peer.
#[derive(Debug)]
pub(super) struct Known {
    /// The best first; never none.
    pub(super) addresses: Vec<Multiaddr>,
    /// Who told of it.
    pub(super) source: IpAddr,
    /// When it may be dialled.
    pub(super) attempts: Attempts,
    heard: Instant,
    /// Dials that led nowhere since it was last reached.
    missed: u32,
    place: Place,
}

impl Known {
    /// Whether this node has reached it by itself.
    pub(super) fn is_tried(&self) -> bool {
        matches!(self.place, Place::Tried { .. })
    }

    /// A dial led nowhere.
    pub(super) fn miss(&mut self) {
        self.missed = self.missed.saturating_add(1);
    }

    /// Whether it must make room for another that belongs in its place.
    fn gives_way(&self, now: Instant) -> bool {
        let is_old = !self.is_tried() && now.saturating_duration_since(self.heard) > RUMOUR_LASTS;
        !self.attempts.is_open() && (self.missed > 0 || is_old)
    }
}

/// The two tables.
#[derive(Debug)]
pub(super) struct Tables {
    key: [u8; 32],
    known: HashMap<PeerId, Known>,
    places: BTreeMap<Place, PeerId>,
}

impl Tables {
    /// Empty tables under this key, which nobody else knows.
    pub(super) fn new(key: [u8; 32]) -> Self {
        Self { key, known: HashMap::new(), places: BTreeMap::new() }
    }

    /// The key.
    pub(super) fn key(&self) -> &[u8; 32] {
        &self.key
    }

    /// A known peer.
    pub(super) fn get(&self, peer: &PeerId) -> Option<&Known> {
        self.known.get(peer)
    }

    /// The same, to note attempts.
    pub(super) fn get_mut(&mut self, peer: &PeerId) -> Option<&mut Known> {
        self.known.get_mut(peer)
    }

    /// All known peers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&PeerId, &Known)> {
        self.places.values().filter_map(|peer| self.known.get_key_value(peer))
    }

    /// Takes note of what somebody at `source` says of a peer. Of a known one, addresses are added while it has few.
    pub(super) fn hear(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, source: IpAddr, now: Instant) {
        if let Some(known) = self.known.get_mut(&peer) {
            for address in addresses {
                if !known.addresses.contains(&address) && known.addresses.len() < ADDRESSES_MAX {
                    known.addresses.push(address);
                }
            }
            return;
        }
        self.add_new(peer, addresses, source, Attempts::new(now), now);
    }

    /// Takes note of what a peer at `source` says of itself, which counts more than what others said. Where this node
    /// reached it stays first.
    pub(super) fn hear_itself(&mut self, peer: PeerId, mut addresses: Vec<Multiaddr>, source: IpAddr, now: Instant) {
        match self.known.get_mut(&peer) {
            Some(known) if known.is_tried() => {
                addresses.retain(|address| known.addresses.first() != Some(address));
                known.addresses.truncate(1);
                known.addresses.extend(addresses.into_iter().take(ADDRESSES_MAX - 1));
            }
            Some(known) if known.attempts.is_open() || known.addresses == addresses => {}
            Some(_) => {
                let attempts = self.remove(&peer).map_or_else(|| Attempts::new(now), |known| known.attempts);
                self.add_new(peer, addresses, source, attempts, now);
            }
            None => self.hear(peer, addresses, source, now),
        }
    }

    /// This node has reached a peer by itself, at this address; also one that names no address, as behind a router.
    pub(super) fn reached(&mut self, peer: PeerId, at: &Multiaddr, now: Instant) {
        let (Some(place), Some(ip)) = (self.tried_place(at), address::ip(at)) else { return };
        let holder = self.places.get(&place).copied().filter(|holder| *holder != peer);
        let stays = |holder: &PeerId| self.known.get(holder).is_some_and(|known| !known.gives_way(now));
        if holder.as_ref().is_some_and(stays) {
            match self.known.get_mut(&peer) {
                Some(known) => (known.heard, known.missed) = (now, 0),
                None => self.add_new(peer, vec![at.clone()], ip, Attempts::new(now), now),
            }
            return;
        }
        let known = self.remove(&peer).unwrap_or_else(|| Known {
            addresses: Vec::new(),
            source: ip,
            attempts: Attempts::new(now),
            heard: now,
            missed: 0,
            place,
        });
        let others = known.addresses.into_iter().filter(|address| address != at).take(ADDRESSES_MAX - 1);
        let addresses = std::iter::once(at.clone()).chain(others).collect();
        let pushed = holder.and_then(|holder| self.remove(&holder).map(|known| (holder, known)));
        self.insert(peer, Known { addresses, heard: now, missed: 0, place, ..known });
        // It is as good as any rumour.
        if let Some((holder, known)) = pushed {
            self.add_new(holder, known.addresses, known.source, known.attempts, now);
        }
    }

    /// Puts back a peer that an earlier run knew under the same key. Nothing if its place is taken.
    pub(super) fn restore(
        &mut self,
        peer: PeerId,
        addresses: Vec<Multiaddr>,
        source: IpAddr,
        is_tried: bool,
        now: Instant,
    ) {
        let place = if is_tried {
            addresses.first().and_then(|address| self.tried_place(address))
        } else {
            addresses.first().and_then(|address| self.new_place(address, source))
        };
        let Some(place) = place.filter(|place| !self.places.contains_key(place)) else { return };
        if !self.known.contains_key(&peer) {
            let attempts = Attempts::new(now);
            self.insert(peer, Known { addresses, source, attempts, heard: now, missed: 0, place });
        }
    }

    /// Forgets a peer.
    pub(super) fn remove(&mut self, peer: &PeerId) -> Option<Known> {
        let known = self.known.remove(peer)?;
        self.places.remove(&known.place);
        Some(known)
    }

    /// Draws at most `count` peers that `fits`: from either table as often, from each of its buckets as often.
    pub(super) fn draw(&self, rng: &mut impl Rng, count: usize, fits: impl Fn(&PeerId, &Known) -> bool) -> Vec<PeerId> {
        if count == 0 {
            return Vec::new();
        }
        let (mut new, mut tried) = (BTreeMap::<u64, Vec<PeerId>>::new(), BTreeMap::<u64, Vec<PeerId>>::new());
        for (place, peer) in &self.places {
            if self.known.get(peer).is_some_and(|known| fits(peer, known)) {
                match place {
                    Place::New { bucket, .. } => new.entry(*bucket).or_default().push(*peer),
                    Place::Tried { bucket, .. } => tried.entry(*bucket).or_default().push(*peer),
                }
            }
        }
        let mut drawn = Vec::new();
        while drawn.len() < count {
            let from_tried = new.is_empty() || (!tried.is_empty() && rng.random());
            let table = if from_tried { &mut tried } else { &mut new };
            let Some(bucket) = table.keys().copied().choose(rng) else { break };
            let Some(peers) = table.get_mut(&bucket) else { break };
            drawn.push(peers.swap_remove(rng.random_range(0..peers.len())));
            if peers.is_empty() {
                table.remove(&bucket);
            }
        }
        drawn
    }

    /// Nothing if another holds the place.
    fn add_new(
        &mut self,
        peer: PeerId,
        mut addresses: Vec<Multiaddr>,
        source: IpAddr,
        attempts: Attempts,
        now: Instant,
    ) {
        addresses.truncate(ADDRESSES_MAX);
        let Some(place) = addresses.first().and_then(|address| self.new_place(address, source)) else { return };
        if let Some(holder) = self.places.get(&place).copied() {
            if !self.known.get(&holder).is_none_or(|known| known.gives_way(now)) {
                return;
            }
            self.remove(&holder);
        }
        self.insert(peer, Known { addresses, source, attempts, heard: now, missed: 0, place });
    }

    fn insert(&mut self, peer: PeerId, known: Known) {
        self.places.insert(known.place, peer);
        self.known.insert(peer, known);
    }

    fn new_place(&self, address: &Multiaddr, source: IpAddr) -> Option<Place> {
        let (ip, port) = address::socket(address)?;
        let (group, source) = (group(ip, port), group(source, 0));
        let which = self.hash("new", &[&group, &source]) % NEW_BUCKETS_PER_SOURCE;
        let bucket = self.hash("new bucket", &[&source, &which.to_le_bytes()]) % NEW_BUCKETS;
        let place = self.hash("new place", &[&bucket.to_le_bytes(), &endpoint(ip, port)]) % NEW_PLACES;
        Some(Place::New { bucket, place })
    }

    fn tried_place(&self, address: &Multiaddr) -> Option<Place> {
        let (ip, port) = address::socket(address)?;
        let (group, endpoint) = (group(ip, port), endpoint(ip, port));
        let which = self.hash("tried", &[&endpoint]) % TRIED_BUCKETS_PER_GROUP;
        let bucket = self.hash("tried bucket", &[&group, &which.to_le_bytes()]) % TRIED_BUCKETS;
        let place = self.hash("tried place", &[&bucket.to_le_bytes(), &endpoint]) % TRIED_PLACES;
        Some(Place::Tried { bucket, place })
    }

    fn hash(&self, what: &str, parts: &[&[u8]]) -> u64 {
        keyed(&self.key, what, parts)
    }
}

/// A hash that nobody can foresee without the key. The parts after `what` have lengths that do not vary.
pub(super) fn keyed(key: &[u8; 32], what: &str, parts: &[&[u8]]) -> u64 {
    let hash = tagged_hash(&format!("causeway/peers/{what}/v1"), &[key, &parts.concat()]);
    u64::from_le_bytes(hash[..8].try_into().expect("a hash has more than eight bytes"))
}

/// What one owner has much of: the group of a public address; else the address, and its port where it tells nodes apart.
pub(super) fn group(ip: IpAddr, port: u16) -> [u8; 18] {
    match address::group(ip) {
        Some(group) => endpoint(group, 0),
        None => endpoint(ip, port),
    }
}

/// What tells nodes apart: the host and the port.
fn endpoint(ip: IpAddr, port: u16) -> [u8; 18] {
    let ip = match address::host(ip) {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        // Loopback is in the /64 of nobody.
        IpAddr::V6(_) if ip.is_loopback() => Ipv6Addr::LOCALHOST,
        IpAddr::V6(ip) => ip,
    };
    let mut bytes = [0; 18];
    bytes[..16].copy_from_slice(&ip.octets());
    bytes[16..].copy_from_slice(&port.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests;
