//! Who may connect: the list of the only ones, bans, connections of one address, outbound connections into one group of addresses.

use std::collections::HashMap;
use std::convert::Infallible;
use std::hash::Hash;
use std::net::IpAddr;
use std::task::{Context, Poll};
use std::time::Instant;

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
    dummy,
};
use libp2p::{Multiaddr, PeerId};

use super::address::{self, Scope};
use super::behaviour::Company;
use super::limits::Limits;

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// The peer is banned.
    #[error("{0} is banned")]
    PeerBanned(PeerId),
    /// This node has a list of the only peers that it has, and the peer is not on it.
    #[error("{0} is not in p2p.only")]
    Stranger(PeerId),
    /// The address is banned.
    #[error("{0} is banned")]
    AddressBanned(IpAddr),
    /// Too many connections of this address.
    #[error("{0} has as many connections as an address may have")]
    AddressFull(IpAddr),
    /// Too many outbound connections into this group of addresses.
    #[error("this node has as many connections to addresses near {0} as it wants")]
    GroupFull(IpAddr),
}

/// A connection, in its handshake or established.
#[derive(Clone, Copy, Debug)]
struct Counted {
    host: IpAddr,
    group: Option<IpAddr>,
}

/// The gate, as a part of the swarm.
#[derive(Debug)]
pub(super) struct Gate {
    limits: Limits,
    company: Company,
    peers: Bans<PeerId>,
    hosts: Bans<IpAddr>,
    connections: HashMap<ConnectionId, Counted>,
    by_host: HashMap<IpAddr, usize>,
    by_group: HashMap<IpAddr, usize>,
}

impl Gate {
    /// A gate that lets everybody in, within the limits.
    pub(super) fn new(limits: Limits, company: Company) -> Self {
        Self {
            peers: Bans::new(limits.bans),
            hosts: Bans::new(limits.bans),
            limits,
            company,
            connections: HashMap::new(),
            by_host: HashMap::new(),
            by_group: HashMap::new(),
        }
    }

    /// Refuses a peer until then.
    pub(super) fn ban_peer(&mut self, peer: PeerId, until: Instant) {
        self.peers.insert(peer, until);
    }

    /// Refuses an address until then, unless it is of this machine.
    pub(super) fn ban_address(&mut self, ip: IpAddr, until: Instant) {
        if address::scope(ip) != Some(Scope::Loopback) {
            self.hosts.insert(address::host(ip), until);
        }
    }

    /// Whether a peer is refused.
    pub(super) fn is_banned(&self, peer: &PeerId, now: Instant) -> bool {
        self.peers.contains(peer, now)
    }

    /// Whether another outbound connection to this address may be made.
    pub(super) fn has_room(&self, ip: IpAddr) -> bool {
        address::group(ip)
            .is_none_or(|group| self.by_group.get(&group).copied().unwrap_or(0) < self.limits.outbound_per_group)
    }

    /// Forgets the bans that are over.
    pub(super) fn expire(&mut self, now: Instant) {
        self.peers.expire(now);
        self.hosts.expire(now);
    }

    fn check_peer(&self, peer: PeerId) -> Result<(), Refusal> {
        if self.company.is_only && !self.company.persistent.contains(&peer) {
            return Err(Refusal::Stranger(peer));
        }
        if self.peers.contains(&peer, Instant::now()) { Err(Refusal::PeerBanned(peer)) } else { Ok(()) }
    }

    fn check_host(&self, host: IpAddr) -> Result<(), Refusal> {
        if self.hosts.contains(&host, Instant::now()) {
            return Err(Refusal::AddressBanned(host));
        }
        let max = match address::scope(host) {
            Some(Scope::Loopback) => self.limits.per_loopback_ip,
            _ => self.limits.per_ip,
        };
        if self.by_host.get(&host).copied().unwrap_or(0) >= max { Err(Refusal::AddressFull(host)) } else { Ok(()) }
    }

    fn count(&mut self, id: ConnectionId, counted: Counted) {
        self.uncount(id);
        *self.by_host.entry(counted.host).or_default() += 1;
        if let Some(group) = counted.group {
            *self.by_group.entry(group).or_default() += 1;
        }
        self.connections.insert(id, counted);
    }

    fn uncount(&mut self, id: ConnectionId) {
        let Some(counted) = self.connections.remove(&id) else { return };
        lower(&mut self.by_host, counted.host);
        if let Some(group) = counted.group {
            lower(&mut self.by_group, group);
        }
    }

    fn inbound(&mut self, id: ConnectionId, remote: &Multiaddr) -> Result<(), Refusal> {
        let Some(ip) = address::ip(remote) else { return Ok(()) };
        let host = loopback_or_host(ip);
        self.check_host(host)?;
        self.count(id, Counted { host, group: None });
        Ok(())
    }

    fn outbound(&mut self, id: ConnectionId, peer: PeerId, remote: &Multiaddr) -> Result<(), Refusal> {
        self.check_peer(peer)?;
        let Some(ip) = address::ip(remote).filter(|_| !self.company.persistent.contains(&peer)) else { return Ok(()) };
        let host = loopback_or_host(ip);
        self.check_host(host)?;
        let group = address::group(ip);
        if let Some(group) = group.filter(|_| !self.has_room(ip)) {
            return Err(Refusal::GroupFull(group));
        }
        self.count(id, Counted { host, group });
        Ok(())
    }
}

/// What counts as one address. `::1` stays what it is, so that it is known to be loopback.
fn loopback_or_host(ip: IpAddr) -> IpAddr {
    if address::scope(ip) == Some(Scope::Loopback) { ip.to_canonical() } else { address::host(ip) }
}

fn lower(counts: &mut HashMap<IpAddr, usize>, key: IpAddr) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

impl NetworkBehaviour for Gate {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inbound(id, remote).map_err(ConnectionDenied::new)
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.check_peer(peer).map_err(ConnectionDenied::new)?;
        Ok(dummy::ConnectionHandler)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        if let Some(peer) = peer {
            self.check_peer(peer).map_err(ConnectionDenied::new)?;
        }
        Ok(Vec::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.outbound(id, peer, remote).map_err(ConnectionDenied::new)?;
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionClosed(event) => self.uncount(event.connection_id),
            FromSwarm::ListenFailure(event) => self.uncount(event.connection_id),
            FromSwarm::DialFailure(event) => self.uncount(event.connection_id),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

/// Who is banned until when. A full list drops the ban that ends first.
#[derive(Debug)]
struct Bans<K> {
    until: HashMap<K, Instant>,
    max: usize,
}

impl<K: Copy + Eq + Hash> Bans<K> {
    fn new(max: usize) -> Self {
        Self { until: HashMap::new(), max }
    }

    /// The longer of two bans counts.
    fn insert(&mut self, key: K, until: Instant) {
        if self.until.len() >= self.max && !self.until.contains_key(&key) {
            let first = self.until.iter().min_by_key(|(_, until)| **until).map(|(key, _)| *key);
            if let Some(first) = first {
                self.until.remove(&first);
            }
        }
        let end = self.until.entry(key).or_insert(until);
        *end = until.max(*end);
    }

    fn contains(&self, key: &K, now: Instant) -> bool {
        self.until.get(key).is_some_and(|until| *until > now)
    }

    fn expire(&mut self, now: Instant) {
        self.until.retain(|_, until| *until > now);
    }
}

#[cfg(test)]
mod tests;
