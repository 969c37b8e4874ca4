//! How much gossip of a peer reaches gossipsub.
//!
//! What gossipsub remembers is bounded by time only: the id of every message for `CACHED_FOR`, twice, and the message for
//! ten heartbeats. So a meter stands before each lane, and drops what is too much before gossipsub sees it:
//!
//! - *Arrivals*: all messages of a peer and their bytes, those too that other peers have sent before. An honest peer sends
//!   each message once.
//! - *News*: messages that were new and turned out to be of no use. One that is sent on costs nothing: validators'
//!   signatures, fees and deposits bound those. An honest peer's are late votes, a third of the validators' at each height,
//!   and what two peers send at the same time; see [`news`].
//!
//! **The bound.** A message that is remembered takes some 600 bytes in the caches of gossipsub (`ENTRY_BYTES`; its content is
//! forgotten with the verdict that it is of no use). With V validators a peer adds at most
//! `(8 V + 256) + (V + 16) x 120` on the consensus topic, 2,432 on that of transactions, 304 on that of bodies and 1,216 on
//! that of claims: 4 MB with 4 validators, 12 MB with 100, and with 128 such peers 0.5 and 1.5 GB. A peer that goes on
//! beyond that is disconnected after a minute ([`Patience`]) unless the operator has named it.

use std::collections::{HashMap, HashSet};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::gossipsub;
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};

use super::gossip::Lane;
use crate::bucket::{Bucket, Patience, Rate};
use crate::wire::Topic;

/// How long gossipsub's scores remember a message; its other caches do so for no longer.
#[cfg(test)]
const CACHED_FOR: u32 = 120;

/// What gossipsub's caches hold of a message, besides its content: its id of 32 bytes in two tables and two lists, the
/// record of its delivery, and their overhead.
#[cfg(test)]
const ENTRY_BYTES: u64 = 600;

/// Peers whose meters are kept.
const METERS_MAX: usize = 1_024;

/// Messages of a peer.
const ARRIVALS: Rate = Rate { per_second: 4_096, burst: 16_384 };

/// Bytes of a peer's messages.
fn arrival_bytes(topic: Topic) -> Rate {
    match topic {
        // 256 certificates of 256 validators are 8.6 MB.
        Topic::Consensus => Rate { per_second: 2 << 20, burst: 16 << 20 },
        // A short block every 200 ms, several times.
        Topic::Bodies => Rate { per_second: 2 << 20, burst: 16 << 20 },
        Topic::Transactions => Rate { per_second: 4 << 20, burst: 16 << 20 },
        Topic::Claims => Rate { per_second: 1 << 20, burst: 16 << 20 },
    }
}

/// Messages of a peer that were new, and of no use. With some validators a third of their votes may come too late at every
/// height, by the same peer.
fn news(topic: Topic, validators: u32) -> Rate {
    match topic {
        Topic::Consensus => {
            Rate { per_second: validators.saturating_add(16), burst: validators.saturating_mul(8).saturating_add(256) }
        }
        Topic::Transactions => Rate { per_second: 16, burst: 512 },
        Topic::Bodies => Rate { per_second: 2, burst: 64 },
        // Whoever has made claims sends up to 100 every 30 s.
        Topic::Claims => Rate { per_second: 8, burst: 256 },
    }
}

/// A lane behind a meter, as a part of the swarm.
pub(super) struct Metered {
    lane: Lane,
    topic: Topic,
    validators: u32,
    persistent: HashSet<PeerId>,
    began: Instant,
    meters: HashMap<PeerId, Meter>,
    /// Peers that are to be disconnected.
    enough: Vec<PeerId>,
    /// Messages that were dropped since the last look, and the peer of the last.
    dropped: Option<(PeerId, u64)>,
}

#[derive(Debug)]
struct Meter {
    arrivals: Bucket,
    bytes: Bucket,
    news: Bucket,
    patience: Patience,
}

impl Metered {
    /// A lane whose network has so many validators.
    pub(super) fn new(lane: Lane, topic: Topic, validators: u32, persistent: HashSet<PeerId>) -> Self {
        let (meters, enough) = (HashMap::new(), Vec::new());
        Self { lane, topic, validators, persistent, began: Instant::now(), meters, enough, dropped: None }
    }

    /// The lane.
    pub(super) fn lane(&mut self) -> &mut Lane {
        &mut self.lane
    }

    /// A message of a peer was of use.
    pub(super) fn of_use(&mut self, peer: &PeerId) {
        if let Some(meter) = self.meters.get_mut(peer) {
            meter.news.give_back(1);
        }
    }

    /// Returns how many messages were dropped since the last call, and a peer that sent some of them.
    pub(super) fn take_dropped(&mut self) -> Option<(PeerId, u64)> {
        self.dropped.take()
    }

    fn meter(&mut self, peer: PeerId, now: Duration) -> &mut Meter {
        if self.meters.len() >= METERS_MAX {
            self.meters.retain(|_, meter| !meter.is_whole(now));
        }
        let (topic, validators) = (self.topic, self.validators);
        self.meters.entry(peer).or_insert_with(|| Meter {
            arrivals: Bucket::full(ARRIVALS, now),
            bytes: Bucket::full(arrival_bytes(topic), now),
            news: Bucket::full(news(topic, validators), now),
            patience: Patience::default(),
        })
    }

    /// Whether messages that a peer sends at once reach gossipsub.
    fn lets_in(&mut self, peer: PeerId, count: u32, bytes: usize, now: Duration) -> bool {
        let meter = self.meter(peer, now);
        if meter.news.is_open(now) && meter.bytes.is_open(now) && meter.arrivals.take(now, count) {
            meter.bytes.spend(now, u32::try_from(bytes).unwrap_or(u32::MAX));
            return true;
        }
        let enough = meter.patience.try_on(now);
        if enough && !self.persistent.contains(&peer) {
            self.enough.push(peer);
        }
        let dropped = self.dropped.map_or(0, |(_, dropped)| dropped);
        self.dropped = Some((peer, dropped + u64::from(count)));
        false
    }
}

impl Meter {
    fn is_whole(&mut self, now: Duration) -> bool {
        self.arrivals.is_full(now) && self.bytes.is_full(now) && self.news.is_full(now)
    }
}

/// What the handler of a lane hears.
type Heard = THandlerOutEvent<Lane>;

impl NetworkBehaviour for Metered {
    type ConnectionHandler = THandler<Lane>;
    type ToSwarm = gossipsub::Event;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.lane.handle_pending_inbound_connection(id, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.lane.handle_established_inbound_connection(id, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.lane.handle_pending_outbound_connection(id, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.lane.handle_established_outbound_connection(id, peer, remote, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.lane.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, mut event: THandlerOutEvent<Self>) {
        if let Heard::Message { rpc, invalid_messages } = &mut event {
            let count = u32::try_from(rpc.messages.len() + invalid_messages.len()).unwrap_or(u32::MAX);
            let bytes = rpc.messages.iter().map(|message| message.data.len()).sum();
            if count > 0 && !self.lets_in(peer, count, bytes, self.began.elapsed()) {
                rpc.messages.clear();
                invalid_messages.clear();
            }
        }
        self.lane.on_connection_handler_event(peer, id, event);
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some(peer_id) = self.enough.pop() {
            tracing::warn!(peer = %peer_id, topic = self.topic.name(), "a peer was disconnected: it has sent far more than is of use");
            return Poll::Ready(ToSwarm::CloseConnection { peer_id, connection: CloseConnection::All });
        }
        let polled = self.lane.poll(context);
        if let Poll::Ready(ToSwarm::GenerateEvent(gossipsub::Event::Message { propagation_source, .. })) = &polled {
            let now = self.began.elapsed();
            self.meter(*propagation_source, now).news.spend(now, 1);
        }
        polled
    }
}

#[cfg(test)]
mod tests;
