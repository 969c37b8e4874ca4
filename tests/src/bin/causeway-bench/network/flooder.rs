//! A process of strangers: it connects to nodes from one address of this machine, passes their handshake, and sends junk
//! transactions and forged votes for as long as they take it. Whoever is thrown out comes again under another name.
//!
//! It writes gossip's bytes itself: what the flood costs shall be the nodes' work, not its own.

use std::convert::Infallible;
use std::future::Pending;
use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bitcoin::hex::FromHex;
use bytes::Bytes;
use causeway_chainspec::Height;
use causeway_consensus::bft::{Address, Message, Signature, SignedVote, Vote, VoteType};
use causeway_node::devnet::get;
use causeway_node::wire::{PROTOCOL_VERSION, Topic, encode_consensus, encode_transactions};
use clap::Args;
use futures::future::BoxFuture;
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::core::UpgradeInfo;
use libp2p::core::transport::{DialOpts, ListenerId, PortUse, TransportError, TransportEvent};
use libp2p::core::upgrade::{InboundUpgrade, ReadyUpgrade, Version};
use libp2p::core::{Endpoint, Transport};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::handler::ConnectionEvent;
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour, Stream,
    SubstreamProtocol, SwarmEvent, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::tcp::tokio::TcpStream;
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, identify, noise, ping, yamux};
use rand::RngCore;
use serde::{Deserialize, Serialize};

/// How often a part of the messages of a second is written.
const TURN: Duration = Duration::from_millis(10);

/// How long a stranger stays away after it was thrown out.
const AGAIN: Duration = Duration::from_millis(200);

/// How often the height is asked for.
const HEIGHT_EVERY: Duration = Duration::from_millis(100);

/// What such a process is told.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Where its connections come from.
    #[arg(long)]
    from: Ipv4Addr,
    /// The nodes, by `/ip4/../tcp/..`.
    #[arg(long, required = true)]
    to: Vec<Multiaddr>,
    /// The chain.
    #[arg(long)]
    chain: String,
    /// REST of one of the nodes, for the height.
    #[arg(long)]
    rest: String,
    /// Validators' keys, in whose names votes are forged.
    #[arg(long, required = true)]
    validator: Vec<String>,
    /// Transactions a second to all nodes together, and as many votes.
    #[arg(long)]
    rate: u32,
    /// It ends by itself after this, or when its standard input does.
    #[arg(long)]
    seconds: u64,
}

/// What such a process has done, as its last line.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Sent {
    pub(crate) transactions: u64,
    pub(crate) votes: u64,
    /// How often a node let it in.
    pub(crate) connections: u64,
}

/// What all connections share.
struct Plan {
    prefix: String,
    identity: String,
    validators: Vec<Address>,
    /// Messages of each kind that a connection sends in a turn.
    per_turn: u32,
    height: AtomicU32,
    transactions: AtomicU64,
    votes: AtomicU64,
    connections: AtomicU64,
}

/// Floods until it is told to end.
pub(crate) fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    // Whatever the nodes need of the machine comes first.
    rustix::process::nice(19)?;
    let Arguments { from, to, chain, rest, validator, rate, seconds } = arguments;
    let keys = validator.iter().map(|key| Ok(Address(<[u8; 32]>::from_hex(key)?)));
    let turns = u32::try_from(Duration::from_secs(1).as_millis() / TURN.as_millis())?;
    let plan = Arc::new(Plan {
        prefix: format!("/causeway/{}", &chain[chain.len().saturating_sub(16)..]),
        identity: format!("causeway/{PROTOCOL_VERSION}/{chain}"),
        validators: keys.collect::<Result<_, Box<dyn std::error::Error>>>()?,
        per_turn: rate / turns / u32::try_from(to.len())?,
        height: AtomicU32::new(0),
        transactions: AtomicU64::new(0),
        votes: AtomicU64::new(0),
        connections: AtomicU64::new(0),
    });
    let follow = Arc::clone(&plan);
    std::thread::spawn(move || {
        loop {
            if let Some(height) = get(&rest, "/blocks/tip/height").and_then(|height| height.parse().ok()) {
                follow.height.store(height, Ordering::Relaxed);
            }
            std::thread::sleep(HEIGHT_EVERY);
        }
    });
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        // Nothing is written there: it ends with whoever started this process.
        let _ = io::stdin().read(&mut [0]);
        let _ = ended.send(());
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        for node in to {
            // Whoever forges votes is thrown out sooner.
            for topic in [Topic::Transactions, Topic::Consensus] {
                tokio::spawn(stranger(from, node.clone(), topic, Arc::clone(&plan)));
            }
        }
        // Either way it is over.
        let _ = tokio::time::timeout(Duration::from_secs(seconds), end).await;
    });
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let sent = Sent {
        transactions: count(&plan.transactions),
        votes: count(&plan.votes),
        connections: count(&plan.connections),
    };
    println!("{}", serde_json::to_string(&sent)?);
    Ok(())
}

/// Connects to a node again and again, each time as somebody else, and floods this topic.
async fn stranger(from: Ipv4Addr, node: Multiaddr, topic: Topic, plan: Arc<Plan>) {
    loop {
        let mut swarm = swarm(from, topic, &plan);
        // It is a right address.
        let _ = swarm.dial(node.clone());
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { .. } => drop(plan.connections.fetch_add(1, Ordering::Relaxed)),
                SwarmEvent::ConnectionClosed { .. } | SwarmEvent::OutgoingConnectionError { .. } => break,
                _ => {}
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Says who it is, answers pings, and floods.
#[derive(NetworkBehaviour)]
struct Stranger {
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    flood: Flood,
}

fn swarm(from: Ipv4Addr, topic: Topic, plan: &Arc<Plan>) -> Swarm<Stranger> {
    let identity = Keypair::generate_ed25519();
    let transport = FromAddress(from)
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(&identity).expect("a key that was just made"))
        .multiplex(yamux::Config::default())
        .boxed();
    let behaviour = Stranger {
        identify: identify::Behaviour::new(identify::Config::new(plan.identity.clone(), identity.public())),
        ping: ping::Behaviour::default(),
        flood: Flood { topic, plan: Arc::clone(plan) },
    };
    let settings =
        libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(3_600));
    Swarm::new(transport, behaviour, identity.public().to_peer_id(), settings)
}

/// Dials from one address of this machine.
struct FromAddress(Ipv4Addr);

impl Transport for FromAddress {
    type Output = TcpStream;
    type Error = io::Error;
    type ListenerUpgrade = Pending<io::Result<TcpStream>>;
    type Dial = BoxFuture<'static, io::Result<TcpStream>>;

    fn listen_on(&mut self, _: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        Err(TransportError::MultiaddrNotSupported(address))
    }

    fn remove_listener(&mut self, _: ListenerId) -> bool {
        false
    }

    fn dial(&mut self, address: Multiaddr, _: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        let mut parts = address.iter();
        let (Some(Protocol::Ip4(ip)), Some(Protocol::Tcp(port))) = (parts.next(), parts.next()) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        let from = (self.0, 0).into();
        Ok(Box::pin(async move {
            let socket = tokio::net::TcpSocket::new_v4()?;
            socket.bind(from)?;
            let stream = socket.connect((ip, port).into()).await?;
            stream.set_nodelay(true)?;
            Ok(TcpStream(stream))
        }))
    }

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        Poll::Pending
    }
}

/// Floods every connection.
struct Flood {
    topic: Topic,
    plan: Arc<Plan>,
}

impl Flood {
    fn streams(&self) -> Streams {
        Streams { flooded: self.topic, plan: Arc::clone(&self.plan), open: Topic::ALL.to_vec() }
    }
}

impl NetworkBehaviour for Flood {
    type ConnectionHandler = Streams;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.streams())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.streams())
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

/// A stream of each topic.
struct Streams {
    flooded: Topic,
    plan: Arc<Plan>,
    open: Vec<Topic>,
}

/// Takes the node's streams of gossip.
struct Gossip(Vec<StreamProtocol>);

impl UpgradeInfo for Gossip {
    type Info = StreamProtocol;
    type InfoIter = Vec<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone()
    }
}

impl InboundUpgrade<Stream> for Gossip {
    type Output = Stream;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Stream, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, _: StreamProtocol) -> Self::Future {
        std::future::ready(Ok(stream))
    }
}

impl ConnectionHandler for Streams {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = Gossip;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Topic;

    fn listen_protocol(&self) -> SubstreamProtocol<Gossip> {
        SubstreamProtocol::new(Gossip(Topic::ALL.into_iter().map(|topic| protocol(&self.plan, topic)).collect()), ())
    }

    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Topic, Self::ToBehaviour>> {
        match self.open.pop() {
            Some(topic) => Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(ReadyUpgrade::new(protocol(&self.plan, topic)), topic),
            }),
            None => Poll::Pending,
        }
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Gossip, Self::OutboundProtocol, (), Topic>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(stream) => drop(tokio::spawn(forget(stream.protocol))),
            ConnectionEvent::FullyNegotiatedOutbound(stream) => {
                let (flooded, plan) = (self.flooded == stream.info, Arc::clone(&self.plan));
                tokio::spawn(async move {
                    // It ends with the connection.
                    let _ = speak(stream.protocol, stream.info, flooded, &plan).await;
                });
            }
            _ => {}
        }
    }
}

/// The name of a topic's protocol. That of bodies is gossipsub's own.
fn protocol(plan: &Plan, topic: Topic) -> StreamProtocol {
    let name = match topic {
        Topic::Transactions => "/meshsub/1.2.0".to_owned(),
        _ => format!("{}/gossip/{}/{PROTOCOL_VERSION}/1.1.0", plan.prefix, topic.name()),
    };
    StreamProtocol::try_from_owned(name).expect("the name begins with a slash")
}

/// Reads what the node says, and forgets it.
async fn forget(mut stream: Stream) {
    let mut bytes = vec![0; 16 << 10];
    while matches!(stream.read(&mut bytes).await, Ok(1..)) {}
}

/// Listens to a topic, and floods it or says nothing more.
async fn speak(mut stream: Stream, topic: Topic, flooded: bool, plan: &Plan) -> io::Result<()> {
    let name = format!("{}/{}/{PROTOCOL_VERSION}", &plan.prefix[1..], topic.name());
    let listens = [&[0x08, 1][..], &field(2, name.as_bytes())].concat();
    stream.write_all(&framed(&field(1, &listens))).await?;
    stream.flush().await?;
    let (message, count): (fn(&Plan) -> Bytes, _) = match topic {
        Topic::Transactions if flooded => (junk, &plan.transactions),
        Topic::Consensus if flooded => (forged, &plan.votes),
        // The stream stays open as long as this task lives.
        _ => return std::future::pending().await,
    };
    let mut turns = tokio::time::interval(TURN);
    // What the node has no time for is not made up for.
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        let mut bytes = Vec::new();
        for _ in 0..plan.per_turn {
            let publish = [field(2, &message(plan)), field(4, name.as_bytes())].concat();
            bytes.extend(framed(&field(2, &publish)));
        }
        stream.write_all(&bytes).await?;
        stream.flush().await?;
        count.fetch_add(plan.per_turn.into(), Ordering::Relaxed);
    }
}

/// A message with one transaction of 60 bytes, of an input that does not exist.
fn junk(_: &Plan) -> Bytes {
    let mut transaction = [0; 60];
    transaction[0] = 2;
    transaction[4] = 1;
    rand::rng().fill_bytes(&mut transaction[5..37]);
    transaction[46] = 1;
    encode_transactions(&[Bytes::copy_from_slice(&transaction)], nonce())
}

/// A vote of the height after the one that is being decided, in a validator's name, that he has not signed.
fn forged(plan: &Plan) -> Bytes {
    let mut signature = [0; 64];
    rand::rng().fill_bytes(&mut signature);
    // Less than the curve's order: it is looked at in earnest.
    signature[0] = 0;
    signature[32] = 0;
    let validator = plan.validators[usize::from(signature[1]) % plan.validators.len()];
    let height = Height(plan.height.load(Ordering::Relaxed) + 2);
    let vote = Vote::new(VoteType::Prevote, height, 0, None, validator);
    encode_consensus(&Message::Vote(SignedVote::new(vote, Signature(signature))), nonce())
}

fn nonce() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// A field of bytes, in protobuf.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    field.extend(framed(bytes));
    field
}

/// Bytes behind their length, seven bits to a byte.
fn framed(bytes: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(bytes.len() + 3);
    let mut length = bytes.len();
    while length > 0x7f {
        framed.push(u8::try_from(length & 0x7f).expect("seven bits") | 0x80);
        length >>= 7;
    }
    framed.push(u8::try_from(length).expect("seven bits"));
    framed.extend_from_slice(bytes);
    framed
}
