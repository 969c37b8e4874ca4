//! The task that runs the swarm.

mod search;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::StreamExt;
use libp2p::core::transport::ListenerId;
use libp2p::gossipsub::{self, MessageAcceptance, PublishError};
use libp2p::swarm::{self, ConnectionId, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, identify};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::MissedTickBehavior;

use super::address::{self, Reach};
use super::behaviour::{Behaviour, BehaviourEvent, Company};
use super::book::Book;
use super::book_file::Saved;
use super::exchange::Exchange;
use super::gossip::Verdicts;
use super::lanes;
use super::limits::{Limits, Timing};
use super::names::Names;
use super::peers::{Peer, Peers, shown};
use super::{
    Command, KEPT_EVENTS_MAX, LISTEN_TIMEOUT, P2pConfig, P2pError, P2pEvent, Shared, families, listen_error, probe,
    resolve, transport,
};
use crate::machine::{GossipId, RelayVerdict};
use crate::wire::Topic;
pub(super) use search::IDENTITIES;
use search::Search;

/// Idle connections are kept: peers are few, and gossip may be silent for long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(24 * 3_600);

/// Streams of a connection that may be in negotiation at once; more are closed.
const NEGOTIATING_STREAMS_MAX: usize = 32;

/// Events of a connection that are read in advance. A vote of another connection waits for so many, and one more, of each that
/// floods; the rest of the flood waits with its sender.
const EVENTS_IN_ADVANCE: usize = 2;

/// Failed pings in a row after which a connection is closed.
const FAILED_PINGS_MAX: u32 = 2;

/// No ban is longer: a year.
const BAN_MAX: Duration = Duration::from_secs(365 * 24 * 3_600);

/// The swarm with all that it knows.
pub(super) struct Task {
    pub(super) swarm: Swarm<Behaviour>,
    pub(super) peers: Peers,
    pub(super) exchange: Exchange,
    pub(super) limits: Limits,
    pub(super) timing: Timing,
    names: Names,
    verdicts: Verdicts,
    book: Book,
    commands: lanes::Receiver<Command>,
    events: lanes::Sender<P2pEvent>,
    shared: Arc<Shared>,
    search: Search,
}

impl Task {
    /// A swarm that does not listen yet. `saved` is what the last run knew of peers.
    ///
    /// # Errors
    /// The key cannot be used.
    pub(super) fn new(
        config: &P2pConfig,
        persistent: Vec<(PeerId, Multiaddr)>,
        saved: Saved,
        commands: lanes::Receiver<Command>,
        events: lanes::Sender<P2pEvent>,
        shared: Arc<Shared>,
    ) -> Result<Self, P2pError> {
        let P2pConfig { identity, limits, timing, .. } = config;
        let names = Names::new(config.chain);
        let local = identity.public().to_peer_id();
        let reach =
            Reach::new(config.listen.iter().chain(&config.external), config.seeds.iter().chain(&config.persistent));
        let transport = transport::build(identity, reach.clone(), timing.handshake).map_err(P2pError::Key)?;
        let is_only = !config.only.is_empty();
        let company = Company { persistent: persistent.iter().map(|(peer, _)| *peer).collect(), is_only };
        let behaviour = Behaviour::new(identity, &names, limits, timing, &company, rand::random());
        let settings = swarm::Config::with_tokio_executor()
            .with_idle_connection_timeout(IDLE_TIMEOUT)
            .with_per_connection_event_buffer_size(EVENTS_IN_ADVANCE)
            .with_max_negotiating_inbound_streams(NEGOTIATING_STREAMS_MAX);
        let mut swarm = Swarm::new(transport, behaviour, local, settings);
        for address in config.external.iter().filter(|address| resolve::name(address).is_none()) {
            swarm.add_external_address(address.clone());
        }
        let now = Instant::now();
        let external = config.external.iter().filter_map(resolve::name);
        let file = config.book.clone().map(|path| (path, config.chain));
        let search = Search::new(reach.clone(), external, file, is_only, now);
        let set = (persistent.as_slice(), config.seeds.as_slice());
        let book = Book::new(local, reach, timing.clone(), set, saved, StdRng::from_os_rng(), now);
        Ok(Self {
            swarm,
            peers: Peers::new(),
            exchange: Exchange::new(limits.clone(), now),
            // Who has only some peers looks for no others.
            limits: Limits { outbound_wanted: if is_only { 0 } else { limits.outbound_wanted }, ..limits.clone() },
            timing: timing.clone(),
            names,
            verdicts: Verdicts::new(limits.clone()),
            book,
            commands,
            events,
            shared,
            search,
        })
    }

    /// Listens on these addresses, and returns what they are bound to. A wildcard address is bound to several.
    ///
    /// # Errors
    /// One of them cannot be listened on.
    pub(super) async fn listen(&mut self, addresses: &[Multiaddr]) -> Result<Vec<Multiaddr>, P2pError> {
        let mut open: HashMap<ListenerId, &Multiaddr> = HashMap::new();
        let addresses = families::present(addresses, families::bind);
        probe(&addresses)?;
        for address in &addresses {
            let listener =
                self.swarm.listen_on(address.clone()).map_err(|error| listen_error(address.clone(), error))?;
            open.insert(listener, address);
        }
        let mut bound = Vec::new();
        let deadline = tokio::time::Instant::now() + LISTEN_TIMEOUT;
        while let Some(waiting) = open.values().next().map(|address| (*address).clone()) {
            let next = tokio::time::timeout_at(deadline, self.swarm.select_next_some());
            let event = next.await.map_err(|_| P2pError::listen(waiting, std::io::ErrorKind::TimedOut.into()))?;
            match &event {
                SwarmEvent::NewListenAddr { listener_id, address } => {
                    bound.push(address.clone());
                    open.remove(listener_id);
                }
                SwarmEvent::ListenerClosed { listener_id, reason, .. } => {
                    if let Some(address) = open.remove(listener_id) {
                        let kind = reason.as_ref().err().map_or(std::io::ErrorKind::Other, std::io::Error::kind);
                        return Err(P2pError::listen(address.clone(), kind.into()));
                    }
                }
                _ => {}
            }
            self.on_swarm(event);
        }
        Ok(bound)
    }

    /// Runs until it is told to stop, or nobody is left to run for.
    pub(super) async fn run(mut self) {
        let (shared, events) = (Arc::clone(&self.shared), self.events.clone());
        let mut tick = tokio::time::interval(self.timing.tick);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !shared.stop.load(Ordering::Acquire) {
            // Looked at again with the next tick at the latest.
            let has_room = events.kept() < KEPT_EVENTS_MAX;
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => break,
                },
                () = shared.wake.notified() => {}
                event = self.swarm.select_next_some(), if has_room => self.on_swarm(event),
                Some(found) = self.search.lookups.next(), if !self.search.lookups.is_empty() => {
                    self.on_found(found, Instant::now());
                }
                _ = tick.tick() => self.on_tick(),
                () = events.closed() => break,
            }
        }
        self.end_search().await;
        // Ports are free and connections closed before the node sees the end of the events.
        drop(self);
        drop(events);
    }

    /// Puts an event in line for the node. What has no room there is as if it had not come.
    pub(super) fn emit(&mut self, event: P2pEvent) {
        match self.events.push(event) {
            None => {}
            Some(P2pEvent::Gossip { peer, id, topic, .. }) => {
                self.shared.lose_gossip(topic, peer, 1);
                self.ignore(id);
            }
            Some(P2pEvent::Request { peer, id, .. }) => {
                tracing::debug!(%peer, "the node has too much to do: a request was refused");
                self.refuse(id);
            }
            Some(P2pEvent::Connected { .. } | P2pEvent::Disconnected { .. } | P2pEvent::Response { .. }) => {
                unreachable!("they are kept")
            }
        }
    }

    /// Puts an event of a peer in line, or keeps it until the node knows the peer.
    pub(super) fn emit_or_hold(&mut self, peer: PeerId, event: P2pEvent) {
        match self.peers.get_mut(&peer) {
            Some(entry) if entry.ready.is_some() => self.emit(event),
            Some(entry) => entry.held.push_back(event),
            None => {}
        }
    }

    /// Sends a message on to nobody, and holds it against nobody.
    fn ignore(&mut self, id: GossipId) {
        if let Some(waiting) = self.verdicts.take(id) {
            self.judge(waiting.topic, &waiting.message, waiting.peer, MessageAcceptance::Ignore);
        }
    }

    /// Closes all connections of a peer.
    pub(super) fn disconnect(&mut self, peer: PeerId) {
        // It may have none any more.
        let _ = self.swarm.disconnect_peer_id(peer);
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Publish { topic, bytes } => self.publish(topic, bytes.into()),
            Command::Relay { id, verdict } => {
                if let Some(waiting) = self.verdicts.take(id) {
                    let acceptance = match verdict {
                        RelayVerdict::Accept => MessageAcceptance::Accept,
                        RelayVerdict::Used | RelayVerdict::Ignore => MessageAcceptance::Ignore,
                        RelayVerdict::Reject => MessageAcceptance::Reject,
                    };
                    if verdict == RelayVerdict::Used {
                        self.swarm.behaviour_mut().metered(waiting.topic).of_use(&waiting.peer);
                    }
                    if verdict == RelayVerdict::Accept {
                        self.swarm.behaviour_mut().slots.useful(&waiting.peer, waiting.topic, Instant::now());
                    }
                    self.judge(waiting.topic, &waiting.message, waiting.peer, acceptance);
                }
            }
            Command::Request { peer, id, request } => self.ask(peer, id, request),
            Command::Respond { id, response } => self.answer(id, response),
            Command::Ban { peer, duration } => self.ban(peer, duration),
            Command::HangUp { peer } => self.disconnect(peer),
            Command::Peers { reply } => {
                let peers = self.peers.iter().filter_map(|(id, peer)| peer.info(*id, self.book.is_persistent(id)));
                // Whoever asked may have gone away.
                let _ = reply.send(peers.collect());
            }
        }
    }

    /// Whether the operator has named a peer.
    pub(super) fn is_persistent(&self, peer: &PeerId) -> bool {
        self.book.is_persistent(peer)
    }

    fn publish(&mut self, topic: Topic, bytes: Vec<u8>) {
        let length = bytes.len();
        if length > topic.max_bytes() {
            return tracing::error!(topic = topic.name(), length, "a message beyond its bound was not published");
        }
        let name = self.names.topic(topic);
        match self.swarm.behaviour_mut().lane(topic).publish(name, bytes) {
            Ok(_) => {}
            Err(PublishError::NoPeersSubscribedToTopic | PublishError::Duplicate) => {
                tracing::debug!(topic = topic.name(), "nobody to publish to, or published before");
            }
            Err(PublishError::AllQueuesFull(_)) => self.shared.lose_command("publication"),
            Err(error) => tracing::warn!(topic = topic.name(), length, %error, "a message was not published"),
        }
    }

    fn judge(&mut self, topic: Topic, message: &gossipsub::MessageId, peer: PeerId, acceptance: MessageAcceptance) {
        let metered = self.swarm.behaviour_mut().metered(topic);
        if matches!(acceptance, MessageAcceptance::Accept) {
            metered.of_use(&peer);
        }
        metered.lane().report_message_validation_result(message, &peer, acceptance);
    }

    fn ban(&mut self, peer: PeerId, duration: Duration) {
        let until = Instant::now() + duration.min(BAN_MAX);
        let addresses = self.peers.get(&peer).map(|peer| peer.connections.clone()).unwrap_or_default();
        let gate = &mut self.swarm.behaviour_mut().gate;
        gate.ban_peer(peer, until);
        for ip in addresses.iter().filter_map(|connection| address::ip(&connection.address)) {
            gate.ban_address(ip, until);
        }
        self.disconnect(peer);
    }

    fn on_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) {
        let now = Instant::now();
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event, now),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.book.connected(connection_id, peer_id);
                self.peers.entry(peer_id).or_insert_with(|| Peer::new(now)).opened(connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, num_established, cause, .. } => {
                tracing::debug!(peer = %peer_id, ?cause, "connection closed");
                self.on_closed(peer_id, connection_id, num_established, now);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                tracing::debug!(peer = ?peer_id, %error, "cannot connect");
                self.book.failed(connection_id, now);
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                tracing::debug!(address = %send_back_addr, %error, "connection refused");
            }
            SwarmEvent::NewListenAddr { address, .. } => tracing::info!(%address, "listening"),
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                tracing::error!(?addresses, ?reason, "this node listens there no longer: restart it");
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "cannot accept a connection"),
            _ => {}
        }
    }

    fn on_behaviour(&mut self, event: BehaviourEvent, now: Instant) {
        match event {
            BehaviourEvent::Consensus(event) => self.on_gossip(Topic::Consensus, event, now),
            BehaviourEvent::Bodies(event) => self.on_gossip(Topic::Bodies, event, now),
            BehaviourEvent::Transactions(event) => self.on_gossip(Topic::Transactions, event, now),
            BehaviourEvent::Claims(event) => self.on_gossip(Topic::Claims, event, now),
            BehaviourEvent::Requests(event) => self.on_exchange(event, now),
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                self.on_identified(peer_id, &info, now);
            }
            BehaviourEvent::Identify(event) => tracing::trace!(?event, "identify"),
            BehaviourEvent::Ping(event) => {
                if let Ok(time) = event.result {
                    self.swarm.behaviour_mut().slots.pinged(event.connection, time);
                }
                let Some(peer) = self.peers.get_mut(&event.peer) else { return };
                if peer.pinged(event.connection, event.result.ok()) >= FAILED_PINGS_MAX {
                    tracing::debug!(peer = %event.peer, "a peer does not answer: the connection is closed");
                    self.swarm.close_connection(event.connection);
                }
            }
            BehaviourEvent::Lists(event) => self.on_list(event, now),
            BehaviourEvent::Gate(event) | BehaviourEvent::Limits(event) | BehaviourEvent::Slots(event) => {
                match event {}
            }
        }
    }

    fn on_gossip(&mut self, topic: Topic, event: gossipsub::Event, now: Instant) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                self.on_message(topic, propagation_source, message_id, message.data, now);
            }
            gossipsub::Event::Subscribed { peer_id, .. } => {
                if let Some(peer) = self.peers.get_mut(&peer_id) {
                    peer.subscribed(topic);
                }
                self.check_ready(peer_id, now);
            }
            gossipsub::Event::Unsubscribed { peer_id, .. } => {
                if let Some(peer) = self.peers.get_mut(&peer_id) {
                    peer.unsubscribed(topic);
                }
            }
            gossipsub::Event::GossipsubNotSupported { .. } | gossipsub::Event::SlowPeer { .. } => {
                tracing::debug!(topic = topic.name(), ?event, "gossip");
            }
        }
    }

    fn on_message(&mut self, topic: Topic, peer: PeerId, message: gossipsub::MessageId, data: Vec<u8>, now: Instant) {
        if data.len() > topic.max_bytes() {
            tracing::debug!(%peer, topic = topic.name(), bytes = data.len(), "a message beyond its bound");
            return self.judge(topic, &message, peer, MessageAcceptance::Reject);
        }
        let max = self.limits.held_per_peer;
        let welcome = self.peers.get(&peer).is_some_and(|entry| entry.ready.is_some() || entry.held.len() < max);
        let id = if welcome { self.verdicts.admit(topic, message.clone(), peer, data.len(), now) } else { None };
        match id {
            Some(id) => self.emit_or_hold(peer, P2pEvent::Gossip { peer, id, topic, bytes: data.into() }),
            None => {
                self.shared.lose_gossip(topic, peer, 1);
                self.judge(topic, &message, peer, MessageAcceptance::Ignore);
            }
        }
    }

    fn refuse_foreign(&mut self, peer: PeerId, info: &identify::Info, now: Instant) {
        let theirs = shown(&info.protocol_version);
        let ours = &self.names.identity;
        let connection = self.peers.get(&peer).and_then(|peer| peer.connections.first());
        let address = connection.map(|connection| connection.address.to_string()).unwrap_or_default();
        tracing::warn!(%peer, address, theirs, %ours, "a node of another chain or version was disconnected: check its address");
        let until = now + self.timing.foreign;
        self.book.avoid(peer, until);
        if !self.book.is_persistent(&peer) {
            self.swarm.behaviour_mut().gate.ban_peer(peer, until);
        }
        self.disconnect(peer);
    }

    /// Introduces a peer to the node as soon as all is known of it, and hands over what it sent before.
    fn check_ready(&mut self, peer: PeerId, now: Instant) {
        let Some(entry) = self.peers.get_mut(&peer).filter(|entry| entry.becomes_ready()) else { return };
        entry.ready = Some(now);
        let held = std::mem::take(&mut entry.held);
        self.greet(peer);
        self.emit(P2pEvent::Connected { peer });
        held.into_iter().for_each(|event| self.emit(event));
    }

    fn on_closed(&mut self, peer: PeerId, connection: ConnectionId, left: u32, now: Instant) {
        if left > 0 {
            if let Some(entry) = self.peers.get_mut(&peer) {
                entry.closed(connection);
            }
            return;
        }
        self.end_exchanges(peer);
        let Some(entry) = self.peers.remove(&peer) else { return };
        self.book.closed(peer, entry.ready.map(|ready| now.duration_since(ready)), now);
        if entry.ready.is_some() {
            self.emit(P2pEvent::Disconnected { peer });
        }
        for event in entry.held {
            if let P2pEvent::Gossip { id, .. } = event {
                self.ignore(id);
            }
        }
    }

    fn on_tick(&mut self) {
        let now = Instant::now();
        let late = self.peers.iter().filter(|(_, peer)| peer.is_late(now, self.timing.identify));
        for peer in late.map(|(id, _)| *id).collect::<Vec<_>>() {
            tracing::debug!(%peer, "a peer has not said who it is: it is disconnected");
            self.disconnect(peer);
        }
        while let Some(waiting) = self.verdicts.take_expired(now, self.timing.verdict) {
            self.judge(waiting.topic, &waiting.message, waiting.peer, MessageAcceptance::Ignore);
        }
        for topic in Topic::ALL {
            if let Some((peer, count)) = self.swarm.behaviour_mut().metered(topic).take_dropped() {
                self.shared.lose_gossip(topic, peer, count);
            }
        }
        self.expire_exchanges(now);
        self.swarm.behaviour_mut().gate.expire(now);
        self.search_on(now);
    }
}
