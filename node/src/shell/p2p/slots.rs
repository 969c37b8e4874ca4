//! Who has a slot: the bounds of established connections, and who makes room for whom.
//!
//! Persistent peers need no slot. An outbound connection beyond the bounds is refused; an inbound one takes the slot of
//! the one with least merit, if there is one, or is refused.

use std::collections::{HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::net::IpAddr;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};

use super::Direction;
use super::address;
use super::evict::{Candidate, select};
use super::limits::Limits;
use super::tables::{group, keyed};
use crate::wire::Topic;

/// Connections that are being closed to make room, beyond all bounds meanwhile.
const LEAVING_MAX: usize = 16;

/// The handshakes that may be under way at once are shared by so many groups at least: eight.
const PENDING_GROUPS: usize = 8;

/// All slots are taken, and nobody makes room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("all connections that this node may have are taken")]
pub(super) struct Full;

/// So many of a group of networks are in their handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("as many connections from near {0} are in their handshake as may be")]
pub(super) struct GroupPending(IpAddr);

/// A connection that has a slot.
#[derive(Debug)]
struct Slot {
    peer: PeerId,
    direction: Direction,
    merit: Candidate<ConnectionId>,
    /// It is being closed.
    is_leaving: bool,
}

/// The slots, as a part of the swarm.
#[derive(Debug)]
pub(super) struct Slots {
    connections: usize,
    inbound: usize,
    outbound: usize,
    persistent: HashSet<PeerId>,
    /// A peer that is called to see whether it is there, beyond the bounds.
    feeler: Option<PeerId>,
    /// Nobody knows which groups it favours.
    key: [u8; 32],
    taken: HashMap<ConnectionId, Slot>,
    /// Connections of public addresses in their handshake, by group: whoever is slow there holds up its own.
    pending: HashMap<ConnectionId, IpAddr>,
    pending_per_group: usize,
    closing: VecDeque<(PeerId, ConnectionId)>,
}

impl Slots {
    /// Slots within the limits. The key is secret.
    pub(super) fn new(limits: &Limits, persistent: HashSet<PeerId>, key: [u8; 32]) -> Self {
        let count = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX);
        Self {
            connections: count(limits.connections),
            inbound: count(limits.inbound),
            outbound: count(limits.outbound),
            persistent,
            feeler: None,
            key,
            taken: HashMap::new(),
            pending: HashMap::new(),
            pending_per_group: count(limits.pending_inbound).div_ceil(PENDING_GROUPS),
            closing: VecDeque::new(),
        }
    }

    /// This peer may be called beyond the bounds, and none that was named before.
    pub(super) fn feel(&mut self, peer: PeerId) {
        self.feeler = Some(peer);
    }

    /// A peer was the first with something good of this topic.
    pub(super) fn useful(&mut self, peer: &PeerId, topic: Topic, now: Instant) {
        for slot in self.taken.values_mut().filter(|slot| slot.peer == *peer) {
            match topic {
                Topic::Transactions => slot.merit.transaction = Some(now),
                Topic::Consensus | Topic::Bodies | Topic::Claims => slot.merit.block = Some(now),
            }
        }
    }

    /// A message on a connection took so long there and back.
    pub(super) fn pinged(&mut self, id: ConnectionId, time: Duration) {
        if let Some(slot) = self.taken.get_mut(&id) {
            slot.merit.ping = Some(slot.merit.ping.map_or(time, |shortest| shortest.min(time)));
        }
    }

    /// Slots of one direction, those not counted that become free.
    fn count(&self, direction: Direction) -> usize {
        self.taken.values().filter(|slot| slot.direction == direction && !slot.is_leaving).count()
    }

    fn begin(&mut self, id: ConnectionId, ip: Option<IpAddr>) -> Result<(), GroupPending> {
        let Some(group) = ip.and_then(address::group) else { return Ok(()) };
        if self.pending.values().filter(|pending| **pending == group).count() >= self.pending_per_group {
            return Err(GroupPending(group));
        }
        self.pending.insert(id, group);
        Ok(())
    }

    fn admit_outbound(&self, peer: &PeerId) -> Result<(), Full> {
        let outbound = self.count(Direction::Outbound);
        let has_room = outbound < self.outbound && outbound + self.count(Direction::Inbound) < self.connections;
        if has_room || self.persistent.contains(peer) || self.feeler == Some(*peer) { Ok(()) } else { Err(Full) }
    }

    fn admit_inbound(&mut self, peer: &PeerId) -> Result<(), Full> {
        let inbound = self.count(Direction::Inbound);
        let has_room = inbound < self.inbound && inbound + self.count(Direction::Outbound) < self.connections;
        if self.persistent.contains(peer) || has_room {
            return Ok(());
        }
        if self.taken.values().filter(|slot| slot.is_leaving).count() >= LEAVING_MAX {
            return Err(Full);
        }
        let inbound = self.taken.values().filter(|slot| slot.direction == Direction::Inbound && !slot.is_leaving);
        let leaves = select(inbound.map(|slot| slot.merit).collect()).ok_or(Full)?;
        let slot = self.taken.get_mut(&leaves).ok_or(Full)?;
        slot.is_leaving = true;
        tracing::debug!(peer = %slot.peer, "an inbound connection makes room for another");
        self.closing.push_back((slot.peer, leaves));
        Ok(())
    }

    fn established(&mut self, id: ConnectionId, peer: PeerId, direction: Direction, ip: Option<IpAddr>, now: Instant) {
        if self.persistent.contains(&peer) {
            return;
        }
        // Nodes on this machine are one group, whatever their ports.
        let group = ip.map_or(0, |ip| keyed(&self.key, "slot", &[&group(ip, 0)]));
        let merit = Candidate { id, group, since: now, ping: None, transaction: None, block: None };
        self.taken.insert(id, Slot { peer, direction, merit, is_leaving: false });
    }
}

impl NetworkBehaviour for Slots {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.begin(id, address::ip(remote)).map_err(ConnectionDenied::new)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.pending.remove(&id);
        self.admit_inbound(&peer).map_err(ConnectionDenied::new)?;
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.admit_outbound(&peer).map_err(ConnectionDenied::new)?;
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(event) => {
                let direction = if event.endpoint.is_dialer() { Direction::Outbound } else { Direction::Inbound };
                let ip = address::ip(event.endpoint.get_remote_address());
                self.established(event.connection_id, event.peer_id, direction, ip, Instant::now());
            }
            FromSwarm::ConnectionClosed(event) => drop(self.taken.remove(&event.connection_id)),
            FromSwarm::ListenFailure(event) => drop(self.pending.remove(&event.connection_id)),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        match self.closing.pop_front() {
            Some((peer_id, id)) => {
                Poll::Ready(ToSwarm::CloseConnection { peer_id, connection: CloseConnection::One(id) })
            }
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests;
