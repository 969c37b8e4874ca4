//! The task that owns the swarm.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt as _;
use libp2p::allow_block_list::{self, AllowedPeers};
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::request_response::{
    self, Event, InboundFailure, Message, OutboundFailure, OutboundRequestId, ProtocolSupport,
};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, SwarmBuilder, noise, ping, tcp, yamux};
use tokio::sync::{mpsc, oneshot};

use super::codec::{self, Codec};
use super::{Incoming, Limits, PeerAddress, TransportConfig, TransportError};

/// How often what waits is looked at: dials.
const BEAT: Duration = Duration::from_millis(100);

/// How long a connection without a word stays: members have nothing to say for hours.
const IDLE: Duration = Duration::from_secs(30 * 86_400);

/// Between pings, and how long one may take.
const PING: Duration = Duration::from_secs(10);

/// Streams of a member that are served at once.
const STREAMS_MAX: usize = 8;

/// What the swarm is told.
#[derive(Debug)]
pub(super) enum Command {
    Broadcast(Bytes),
    Send { peer: usize, message: Bytes },
    Distrust { peer: usize, wait: Duration },
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    allowed: allow_block_list::Behaviour<AllowedPeers>,
    limits: connection_limits::Behaviour,
    ping: ping::Behaviour,
    frames: request_response::Behaviour<Codec>,
}

/// What is taken from a member: a bucket that fills at a rate, up to four seconds of it.
struct Bucket {
    rate: f64,
    level: f64,
    filled: Instant,
}

impl Bucket {
    fn new(rate: u32, now: Instant) -> Self {
        let rate = f64::from(rate);
        Self { rate, level: 4.0 * rate, filled: now }
    }

    /// Takes so much out, or nothing if there is less.
    fn take(&mut self, amount: usize, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.level = (self.level + passed * self.rate).min(4.0 * self.rate);
        self.filled = now;
        let amount = u32::try_from(amount).map_or(f64::INFINITY, f64::from);
        let enough = amount <= self.level;
        if enough {
            self.level -= amount;
        }
        enough
    }
}

struct Peer {
    address: PeerAddress,
    connections: usize,
    queue: VecDeque<Bytes>,
    queue_bytes: usize,
    in_flight: Option<OutboundRequestId>,
    wait: Duration,
    dial_at: Instant,
    bytes: Bucket,
    messages: Bucket,
    distrusted_until: Option<Instant>,
    /// A fault of its software was logged since it connected.
    told: bool,
}

pub(super) struct SwarmTask {
    swarm: Swarm<Behaviour>,
    peers: Vec<Peer>,
    places: HashMap<PeerId, usize>,
    limits: Limits,
    commands: mpsc::Receiver<Command>,
    incoming: mpsc::Sender<Incoming>,
    connected: Arc<Mutex<Vec<bool>>>,
    bound: Option<oneshot::Sender<Result<Multiaddr, String>>>,
}

impl SwarmTask {
    pub(super) fn new(
        config: TransportConfig,
        commands: mpsc::Receiver<Command>,
        incoming: mpsc::Sender<Incoming>,
        connected: Arc<Mutex<Vec<bool>>>,
        bound: oneshot::Sender<Result<Multiaddr, String>>,
    ) -> Result<Self, TransportError> {
        let TransportConfig { key, chain, listen, peers, limits } = config;
        let start = |problem: String| TransportError::Start { problem };
        let protocol = format!("/causeway-federation/{chain}/1");
        let protocol = StreamProtocol::try_from_owned(protocol).map_err(|error| start(error.to_string()))?;
        let mut allowed = allow_block_list::Behaviour::<AllowedPeers>::default();
        for peer in &peers {
            allowed.allow_peer(peer.peer);
        }
        // Both ends may dial at once, and one end may not have noticed yet that a connection is gone.
        let connections = u32::try_from(4 * peers.len()).unwrap_or(u32::MAX);
        let behaviour = Behaviour {
            allowed,
            limits: connection_limits::Behaviour::new(
                ConnectionLimits::default()
                    .with_max_established(Some(connections))
                    .with_max_established_per_peer(Some(4))
                    .with_max_pending_incoming(Some(connections.max(16)))
                    .with_max_pending_outgoing(Some(connections)),
            ),
            ping: ping::Behaviour::new(ping::Config::new().with_interval(PING).with_timeout(PING)),
            frames: request_response::Behaviour::with_codec(
                Codec,
                [(protocol, ProtocolSupport::Full)],
                request_response::Config::default()
                    .with_request_timeout(limits.frame_timeout)
                    .with_max_concurrent_streams(STREAMS_MAX),
            ),
        };
        let mut swarm = SwarmBuilder::with_existing_identity(key)
            .with_tokio()
            .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
            .map_err(|error| start(error.to_string()))?
            .with_behaviour(|_| behaviour)
            .map_err(|error| start(error.to_string()))?
            .with_swarm_config(|config| config.with_idle_connection_timeout(IDLE))
            .build();
        swarm
            .listen_on(listen.clone())
            .map_err(|error| TransportError::Listen { address: listen, problem: error.to_string() })?;
        let now = Instant::now();
        let places = peers.iter().enumerate().map(|(place, peer)| (peer.peer, place)).collect();
        let peers = peers.into_iter().map(|address| Peer {
            address,
            connections: 0,
            queue: VecDeque::new(),
            queue_bytes: 0,
            in_flight: None,
            wait: limits.redial_min,
            dial_at: now,
            bytes: Bucket::new(limits.bytes_per_second, now),
            messages: Bucket::new(limits.messages_per_second, now),
            distrusted_until: None,
            told: false,
        });
        let peers = peers.collect();
        Ok(Self { swarm, peers, places, limits, commands, incoming, connected, bound: Some(bound) })
    }

    /// Runs until the [`Transport`](super::Transport) is gone.
    pub(super) async fn run(mut self) {
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                event = self.swarm.select_next_some() => self.happened(event),
                _ = beat.tick() => self.dial(),
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Broadcast(message) => {
                for place in 0..self.peers.len() {
                    self.enqueue(place, &message);
                }
            }
            Command::Send { peer, message } => {
                if peer < self.peers.len() {
                    self.enqueue(peer, &message);
                }
            }
            Command::Distrust { peer, wait } => {
                if let Some(peer) = self.peers.get_mut(peer) {
                    peer.distrusted_until = Instant::now().checked_add(wait);
                }
            }
        }
    }

    fn enqueue(&mut self, place: usize, message: &Bytes) {
        let peer = &mut self.peers[place];
        // Repetitions say nothing new.
        if peer.queue.contains(message) {
            return;
        }
        peer.queue.push_back(message.clone());
        peer.queue_bytes += message.len();
        while peer.queue_bytes > self.limits.queue_bytes {
            let Some(oldest) = peer.queue.pop_front() else { break };
            peer.queue_bytes -= oldest.len();
        }
        self.flush(place);
    }

    /// Sends what waits for a member, if nothing is under way to it.
    fn flush(&mut self, place: usize) {
        let peer = &mut self.peers[place];
        if peer.connections == 0 || peer.in_flight.is_some() || peer.queue.is_empty() {
            return;
        }
        let frame = codec::encode(&mut peer.queue);
        peer.queue_bytes = peer.queue.iter().map(Bytes::len).sum();
        let id = self.swarm.behaviour_mut().frames.send_request(&peer.address.peer, frame);
        peer.in_flight = Some(id);
    }

    fn dial(&mut self) {
        let now = Instant::now();
        for peer in &mut self.peers {
            if peer.connections > 0 || now < peer.dial_at {
                continue;
            }
            peer.dial_at = now + peer.wait;
            peer.wait = (peer.wait * 2).min(self.limits.redial_max);
            let options = DialOpts::peer_id(peer.address.peer)
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .addresses(vec![peer.address.address.clone()])
                .build();
            // It says only that it is being dialled.
            let _ = self.swarm.dial(options);
        }
    }

    fn happened(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::NewListenAddr { address, .. } => {
                if let Some(bound) = self.bound.take() {
                    // Whoever asked has given up.
                    let _ = bound.send(Ok(address));
                }
            }
            SwarmEvent::ListenerClosed { reason: Err(error), .. } => {
                tracing::error!(%error, "the listener is closed: members can only be reached by dialling them");
                if let Some(bound) = self.bound.take() {
                    let _ = bound.send(Err(error.to_string()));
                }
            }
            SwarmEvent::ConnectionEstablished { peer_id, num_established, .. } => {
                self.count(&peer_id, usize::try_from(num_established.get()).unwrap_or(usize::MAX));
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established, .. } => {
                self.count(&peer_id, usize::try_from(num_established).unwrap_or(usize::MAX));
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. } => {
                tracing::debug!(%peer, %error, "a member cannot be reached");
            }
            SwarmEvent::IncomingConnectionError { error, .. } => {
                tracing::debug!(%error, "a connection is refused");
            }
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event { connection, result: Err(error), .. })) => {
                tracing::debug!(%error, "a connection is dead");
                self.swarm.close_connection(connection);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Frames(event)) => self.frame(event),
            _ => {}
        }
    }

    fn count(&mut self, id: &PeerId, connections: usize) {
        let Some(place) = self.places.get(id).copied() else { return };
        let peer = &mut self.peers[place];
        let was = std::mem::replace(&mut peer.connections, connections);
        if was == 0 && connections > 0 {
            peer.wait = self.limits.redial_min;
            peer.told = false;
            tracing::info!(peer = %id, "a member is connected");
        }
        if was > 0 && connections == 0 {
            peer.in_flight = None;
            peer.dial_at = Instant::now() + peer.wait;
            tracing::info!(peer = %id, "a member is gone");
        }
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)[place] = connections > 0;
        self.flush(place);
    }

    fn frame(&mut self, event: Event<Vec<u8>, ()>) {
        match event {
            Event::Message { peer, message: Message::Request { request, channel, .. }, .. } => {
                // A dropped answer is a frame that the other end believes lost.
                let _ = self.swarm.behaviour_mut().frames.send_response(channel, ());
                self.take(&peer, &request);
            }
            Event::Message { peer, message: Message::Response { request_id, .. }, .. } => self.sent(&peer, request_id),
            Event::OutboundFailure { peer, request_id, error, .. } => {
                if let Some(place) = self.places.get(&peer).copied()
                    && matches!(error, OutboundFailure::UnsupportedProtocols)
                    && !std::mem::replace(&mut self.peers[place].told, true)
                {
                    tracing::warn!(%peer, "a member speaks of another chain or version: compare chainspec and build");
                }
                self.sent(&peer, request_id);
            }
            Event::InboundFailure { peer, error, .. } => {
                if !matches!(error, InboundFailure::ConnectionClosed) {
                    tracing::debug!(%peer, %error, "a frame was not read");
                }
            }
            Event::ResponseSent { .. } => {}
        }
    }

    fn sent(&mut self, id: &PeerId, request: OutboundRequestId) {
        let Some(place) = self.places.get(id).copied() else { return };
        if self.peers[place].in_flight == Some(request) {
            self.peers[place].in_flight = None;
            self.flush(place);
        }
    }

    /// Takes a frame of a member, within its bounds.
    fn take(&mut self, id: &PeerId, frame: &[u8]) {
        let Some(place) = self.places.get(id).copied() else { return };
        let (peer, now) = (&mut self.peers[place], Instant::now());
        if peer.distrusted_until.is_some_and(|until| now < until) {
            return;
        }
        if !peer.bytes.take(frame.len(), now) {
            tracing::debug!(peer = %id, "a member sends too much");
            return;
        }
        let Some(messages) = codec::decode(frame) else {
            if !std::mem::replace(&mut peer.told, true) {
                tracing::warn!(peer = %id, "a member sends what is no frame: its software is broken or of another version");
            }
            return;
        };
        if !peer.messages.take(messages.len(), now) {
            tracing::debug!(peer = %id, "a member sends too many messages");
            return;
        }
        // When the daemon is slow, members repeat.
        let _ = self.incoming.try_send(Incoming { from: place, messages });
    }
}
