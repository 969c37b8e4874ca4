//! The peers that have a connection.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use libp2p::core::ConnectedPoint;
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};

use super::peer_list::LISTS;
use super::swarm::IDENTITIES;
use super::{Direction, P2pEvent, PeerInfo};
use crate::bucket::Bucket;
use crate::wire::Topic;

/// Most characters of what a peer says of itself that are shown.
const SHOWN_MAX: usize = 128;

/// One of the connections of a peer.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    id: ConnectionId,
    /// The other end.
    pub(super) address: Multiaddr,
    /// Who opened it.
    pub(super) direction: Direction,
    since: SystemTime,
    failed_pings: u32,
}

/// A peer with a connection.
#[derive(Debug)]
pub(super) struct Peer {
    /// Its connections, the oldest first.
    pub(super) connections: Vec<Connection>,
    /// When the first of them began.
    pub(super) began: Instant,
    /// What it calls itself, when it has said so and is of this chain and version.
    agent: Option<String>,
    /// Topics that it listens to.
    topics: Vec<Topic>,
    /// Since when the node knows it.
    pub(super) ready: Option<Instant>,
    /// What it sent before.
    pub(super) held: VecDeque<P2pEvent>,
    /// The last time a message there and back took.
    ping: Option<Duration>,
    /// The rate at which it says who it is.
    pub(super) identities: Bucket,
    /// The rate of its requests for lists of peers.
    pub(super) lists: Bucket,
    /// Requests to it that are open.
    pub(super) asked: usize,
    /// Requests of it that are open.
    pub(super) asking: usize,
}

impl Peer {
    /// A peer that nothing is known of yet.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            connections: Vec::new(),
            began: now,
            agent: None,
            topics: Vec::new(),
            ready: None,
            held: VecDeque::new(),
            ping: None,
            identities: Bucket::full(IDENTITIES, Duration::ZERO),
            lists: Bucket::full(LISTS, Duration::ZERO),
            asked: 0,
            asking: 0,
        }
    }

    /// It has one more connection.
    pub(super) fn opened(&mut self, id: ConnectionId, endpoint: &ConnectedPoint) {
        let direction = if endpoint.is_dialer() { Direction::Outbound } else { Direction::Inbound };
        let address = endpoint.get_remote_address().clone();
        self.connections.push(Connection { id, address, direction, since: SystemTime::now(), failed_pings: 0 });
    }

    /// It has one connection less.
    pub(super) fn closed(&mut self, id: ConnectionId) {
        self.connections.retain(|connection| connection.id != id);
    }

    /// It is of this chain and version.
    pub(super) fn identified(&mut self, agent: &str) {
        self.agent = Some(shown(agent));
    }

    /// It listens to a topic.
    pub(super) fn subscribed(&mut self, topic: Topic) {
        if !self.topics.contains(&topic) {
            self.topics.push(topic);
        }
    }

    /// It listens to a topic no longer.
    pub(super) fn unsubscribed(&mut self, topic: Topic) {
        self.topics.retain(|known| *known != topic);
    }

    /// Whether all that the node relies on is there for the first time.
    pub(super) fn becomes_ready(&self) -> bool {
        self.ready.is_none() && self.agent.is_some() && self.topics.len() == Topic::ALL.len()
    }

    /// Whether it has not become ready in time.
    pub(super) fn is_late(&self, now: Instant, patience: Duration) -> bool {
        self.ready.is_none() && now.duration_since(self.began) > patience
    }

    /// Notes how long a message took there and back, and returns how many in a row did not come back.
    pub(super) fn pinged(&mut self, id: ConnectionId, result: Option<Duration>) -> u32 {
        let Some(connection) = self.connections.iter_mut().find(|connection| connection.id == id) else { return 0 };
        match result {
            Some(time) => {
                self.ping = Some(time);
                connection.failed_pings = 0;
            }
            None => connection.failed_pings += 1,
        }
        connection.failed_pings
    }

    /// Whether this node opened a connection to it.
    pub(super) fn is_outbound(&self) -> bool {
        self.connections.iter().any(|connection| connection.direction == Direction::Outbound)
    }

    /// Where this node reached it.
    pub(super) fn dialled(&self) -> Option<&Multiaddr> {
        let dialled = self.connections.iter().find(|connection| connection.direction == Direction::Outbound);
        dialled.map(|connection| &connection.address)
    }

    /// What others may know of it, once it is ready.
    pub(super) fn info(&self, peer: PeerId, persistent: bool) -> Option<PeerInfo> {
        let connection = self.connections.first().filter(|_| self.ready.is_some())?;
        Some(PeerInfo {
            peer,
            address: connection.address.clone(),
            direction: connection.direction,
            agent: self.agent.clone().unwrap_or_default(),
            since: connection.since,
            ping: self.ping,
            persistent,
        })
    }
}

/// All peers that have a connection.
pub(super) type Peers = HashMap<PeerId, Peer>;

/// What a peer says, fit for a log: printable, and not long.
pub(super) fn shown(text: &str) -> String {
    text.chars()
        .filter(|char| !char.is_control())
        .take(SHOWN_MAX)
        .flat_map(char::escape_debug)
        .take(SHOWN_MAX)
        .collect()
}

#[cfg(test)]
mod tests;
