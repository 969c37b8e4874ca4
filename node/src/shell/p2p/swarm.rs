//! The task that runs the swarm.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::StreamExt;
use libp2p::core::transport::ListenerId;
use libp2p::gossipsub::{self, MessageAcceptance, PublishError};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{self, ConnectionId, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, identify, kad};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::address::{self, Reach};
use super::behaviour::{Behaviour, BehaviourEvent};
use super::book::{Book, Dial};
use super::exchange::Exchange;
use super::gossip::Verdicts;
use super::limits::{Limits, Timing};
use super::names::Names;
use super::peers::{Peer, Peers, shown};
use super::{
    Command, LISTEN_TIMEOUT, OUTBOX_MAX, P2pConfig, P2pError, P2pEvent, Shared, listen_error, probe, transport,
};
use crate::machine::RelayVerdict;
use crate::wire::Topic;

/// Idle connections are kept: peers are few, and gossip may be silent for long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(24 * 3_600);

/// Streams of a connection that may be in negotiation at once; more are closed.
const NEGOTIATING_STREAMS_MAX: usize = 32;

/// Dials to other than persistent peers that may be under way at once.
const DIALS_MAX: usize = 4;

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
    commands: mpsc::Receiver<Command>,
    shared: Arc<Shared>,
    /// Events that the node has not taken yet.
    outbox: VecDeque<P2pEvent>,
    next_discovery: Instant,
}

impl Task {
    /// A swarm that does not listen yet.
    ///
    /// # Errors
    /// The key cannot be used.
    pub(super) fn new(
        config: &P2pConfig,
        persistent: Vec<(PeerId, Multiaddr)>,
        commands: mpsc::Receiver<Command>,
        shared: Arc<Shared>,
    ) -> Result<Self, P2pError> {
        let P2pConfig { identity, limits, timing, .. } = config;
        let names = Names::new(config.chain);
        let local = identity.public().to_peer_id();
        let reach =
            Reach::new(config.listen.iter().chain(&config.external), config.seeds.iter().chain(&config.persistent));
        let transport = transport::build(identity, reach.clone(), timing.handshake).map_err(P2pError::Key)?;
        let always = persistent.iter().map(|(peer, _)| *peer).collect();
        let behaviour = Behaviour::new(identity, &names, limits, timing, &always);
        let settings = swarm::Config::with_tokio_executor()
            .with_idle_connection_timeout(IDLE_TIMEOUT)
            .with_max_negotiating_inbound_streams(NEGOTIATING_STREAMS_MAX);
        let mut swarm = Swarm::new(transport, behaviour, local, settings);
        for address in &config.external {
            swarm.add_external_address(address.clone());
        }
        let now = Instant::now();
        Ok(Self {
            swarm,
            peers: Peers::new(),
            exchange: Exchange::new(limits.clone(), now),
            limits: limits.clone(),
            timing: timing.clone(),
            names,
            verdicts: Verdicts::new(limits.clone()),
            book: Book::new(local, reach, limits.book, timing.clone(), &persistent, &config.seeds, now),
            commands,
            shared,
            outbox: VecDeque::new(),
            next_discovery: now,
        })
    }

    /// Listens on these addresses, and returns what they are bound to. A wildcard address is bound to several.
    ///
    /// # Errors
    /// One of them cannot be listened on.
    pub(super) async fn listen(&mut self, addresses: &[Multiaddr]) -> Result<Vec<Multiaddr>, P2pError> {
        let mut open: HashMap<ListenerId, &Multiaddr> = HashMap::new();
        probe(addresses)?;
        for address in addresses {
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
    pub(super) async fn run(mut self, events: mpsc::Sender<P2pEvent>) {
        let shared = Arc::clone(&self.shared);
        let mut tick = tokio::time::interval(self.timing.tick);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !shared.stop.load(Ordering::Acquire) {
            let has_room = self.outbox.len() < OUTBOX_MAX;
            tokio::select! {
                permit = events.reserve(), if !self.outbox.is_empty() => {
                    let Ok(permit) = permit else { break };
                    if let Some(event) = self.outbox.pop_front() {
                        permit.send(event);
                    }
                }
                command = self.commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => break,
                },
                () = shared.wake.notified() => self.take_overflow(),
                event = self.swarm.select_next_some(), if has_room => self.on_swarm(event),
                _ = tick.tick() => self.on_tick(),
                () = events.closed() => break,
            }
        }
        // Ports are free and connections closed before the node sees the end of the events.
        drop(self);
        drop(events);
    }

    /// Puts an event in line for the node.
    pub(super) fn emit(&mut self, event: P2pEvent) {
        self.outbox.push_back(event);
    }

    /// Puts an event of a peer in line, or keeps it until the node knows the peer.
    pub(super) fn emit_or_hold(&mut self, peer: PeerId, event: P2pEvent) {
        match self.peers.get_mut(&peer) {
            Some(entry) if entry.ready.is_some() => self.outbox.push_back(event),
            Some(entry) => entry.held.push_back(event),
            None => {}
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
                        RelayVerdict::Ignore => MessageAcceptance::Ignore,
                        RelayVerdict::Reject => MessageAcceptance::Reject,
                    };
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

    fn take_overflow(&mut self) {
        let overflow = std::mem::take(&mut *self.shared.overflow());
        for (peer, id) in overflow.requests {
            let result = Err(crate::machine::RequestFailure::Disconnected);
            self.emit(P2pEvent::Response { peer, id, result });
        }
        for (peer, duration) in overflow.bans {
            self.ban(peer, duration);
        }
        for peer in overflow.hang_ups {
            self.disconnect(peer);
        }
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
        self.forget(peer);
    }

    /// Disconnects a peer, and names it to nobody.
    fn forget(&mut self, peer: PeerId) {
        self.swarm.behaviour_mut().kad.remove_peer(&peer);
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
                let Some(peer) = self.peers.get_mut(&event.peer) else { return };
                if peer.pinged(event.connection, event.result.ok()) >= FAILED_PINGS_MAX {
                    tracing::debug!(peer = %event.peer, "a peer does not answer: the connection is closed");
                    self.swarm.close_connection(event.connection);
                }
            }
            BehaviourEvent::Kad(event) => self.on_kad(event, now),
            BehaviourEvent::Gate(event) | BehaviourEvent::Limits(event) => match event {},
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

    fn on_identified(&mut self, peer: PeerId, info: &identify::Info, now: Instant) {
        if info.protocol_version != self.names.identity {
            return self.refuse_foreign(peer, info, now);
        }
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        entry.identified(&info.agent_version);
        let addresses = self.book.usable(&peer, &info.listen_addrs);
        self.book.learn(peer, &addresses, now);
        self.book.proven(peer, entry.dialled());
        for address in addresses {
            self.swarm.behaviour_mut().kad.add_address(&peer, address);
        }
        self.check_ready(peer, now);
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
        self.forget(peer);
    }

    /// Introduces a peer to the node as soon as all is known of it, and hands over what it sent before.
    fn check_ready(&mut self, peer: PeerId, now: Instant) {
        let Some(entry) = self.peers.get_mut(&peer).filter(|entry| entry.becomes_ready()) else { return };
        entry.ready = Some(now);
        let held = std::mem::take(&mut entry.held);
        self.emit(P2pEvent::Connected { peer });
        self.outbox.extend(held);
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
            if let P2pEvent::Gossip { id, .. } = event
                && let Some(waiting) = self.verdicts.take(id)
            {
                self.judge(waiting.topic, &waiting.message, waiting.peer, MessageAcceptance::Ignore);
            }
        }
    }

    fn on_kad(&mut self, event: kad::Event, now: Instant) {
        let kad::Event::OutboundQueryProgressed { result: kad::QueryResult::GetClosestPeers(result), .. } = event
        else {
            return;
        };
        let found = match result {
            Ok(kad::GetClosestPeersOk { peers, .. }) => peers,
            Err(kad::GetClosestPeersError::Timeout { peers, .. }) => peers,
        };
        for found in found {
            self.book.learn(found.peer_id, &found.addrs, now);
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
        self.dial_more(now);
    }

    fn dial_more(&mut self, now: Instant) {
        for dial in self.book.due_persistent(now, |peer| self.peers.contains_key(peer)) {
            self.dial(dial, now);
        }
        let outbound =
            self.peers.iter().filter(|(id, peer)| peer.is_outbound() && !self.book.is_persistent(id)).count();
        let missing = self.limits.outbound_wanted.saturating_sub(outbound + self.book.open_dials());
        if missing == 0 {
            return;
        }
        let count = missing.min(DIALS_MAX.saturating_sub(self.book.open_dials()));
        let gate = &self.swarm.behaviour().gate;
        let connected = |peer: &PeerId| self.peers.contains_key(peer) || gate.is_banned(peer, now);
        let fits = |address: &Multiaddr| address::ip(address).is_none_or(|ip| gate.has_room(ip));
        let mut dials = self.book.due(now, count, connected, fits);
        if dials.len() < count {
            dials.extend(self.book.due_seeds(now, connected));
        }
        for dial in dials {
            self.dial(dial, now);
        }
        if now >= self.next_discovery && self.peers.values().any(|peer| peer.ready.is_some()) {
            self.swarm.behaviour_mut().kad.get_closest_peers(PeerId::random());
            self.next_discovery = now + self.timing.discovery.mul_f64(rand::random_range(0.75..1.25));
        }
    }

    fn dial(&mut self, dial: Dial, now: Instant) {
        let options = match (dial.peer, dial.addresses.first()) {
            (Some(peer), _) => DialOpts::peer_id(peer)
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .addresses(dial.addresses)
                .allocate_new_port()
                .build(),
            (None, Some(address)) => DialOpts::unknown_peer_id().address(address.clone()).allocate_new_port().build(),
            (None, None) => return,
        };
        let connection = options.connection_id();
        self.book.dialling(dial.target, connection);
        if let Err(error) = self.swarm.dial(options) {
            tracing::debug!(peer = ?dial.peer, %error, "cannot dial");
            self.book.failed(connection, now);
        }
    }
}
