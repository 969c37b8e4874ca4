//! The network: one libp2p swarm for gossip, requests, answers and the search for peers.
//!
//! ```text
//! start(P2pConfig, events) -> (P2p, addresses)     the swarm runs as a task from here on
//! P2p::publish, relay, request, respond, ban  ->   what the node wants done; they never wait
//! events: P2pEvent  ->                             what happens to the node
//! ```
//!
//! A peer becomes one when it has said that it is of this chain and version, and listens to all topics: then
//! [`P2pEvent::Connected`] comes, before anything else of it. Whatever it sent earlier is held back until then.
//!
//! Votes overtake everything, in both directions. What waits for the node, and what waits for the swarm, waits in [`lanes`],
//! in which peers take turns. On the wire each topic has a stream and a queue of its own, which the connection serves in
//! turn, some 16 KiB at a time; and the system holds back no more than [`UNSENT_MAX`] that could still be overtaken.
//!
//! Nothing here waits for the node, and the node waits for nothing here. When the node is slow:
//! - gossip and requests beyond [`Limits`] and [`EVENTS`] are dropped and refused, each topic by itself;
//! - connections and answers wait; when [`KEPT_EVENTS_MAX`] of them do, nothing is read from the network until the node
//!   takes some.
//!
//! When the swarm is slow, publications, verdicts and answers beyond [`COMMANDS`] are dropped with a warning; requests and
//! bans wait.
//!
//! What a peer sends beyond what an honest one would (`meter`) is dropped before gossipsub sees and remembers it.
//!
//! What never enters: whether a message is right. The machine says so, and bans.

mod address;
mod behaviour;
mod book;
mod book_file;
mod codec;
mod evict;
mod exchange;
mod families;
mod gate;
mod gossip;
pub mod lanes;
mod limits;
mod meter;
mod names;
mod peer_list;
mod peers;
mod resolve;
mod slots;
mod swarm;
mod tables;
mod transport;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use causeway_chainspec::ChainId;
use libp2p::core::transport::TransportError;
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId, noise};
use tokio::sync::{Notify, oneshot};

use self::book_file::Saved;
use self::lanes::{Bounds, Lane, Laned};
pub use self::limits::{Limits, Timing};
use crate::machine::{GossipId, InboundId, OutboundId, RelayVerdict, RequestFailure};
use crate::shell::reports::log_error;
use crate::wire::{Request, Response, Topic};

/// Commands that may wait for the swarm.
pub const COMMANDS: Bounds = Bounds { consensus: 4_096, bodies: 256, transactions: 4_096, requests: 1_024 };

/// Events that may wait for the node; the bytes of gossip are bounded by [`Limits`].
pub const EVENTS: Bounds = Bounds { consensus: 4_096, bodies: 256, transactions: 4_096, requests: 1_024 };

/// Events of connections, and answers, that may wait for the node before the swarm stops reading.
pub const KEPT_EVENTS_MAX: usize = 4_096;

/// Bytes that were handed to the system for a connection, and not sent. Nothing overtakes them any more.
pub const UNSENT_MAX: u32 = 64 << 10;

/// How long a listener may take until it is bound.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);

/// What the network must know.
#[derive(Clone, Debug)]
pub struct P2pConfig {
    /// The node's key; its public half is the node's name.
    pub identity: Keypair,
    /// The chain. Peers of another one are refused.
    pub chain: ChainId,
    /// Where to listen: `/ip4/../tcp/..` or `/ip6/../tcp/..`; port 0 is any free one. `/ip6/::` is left out on a machine
    /// that has no IPv6.
    pub listen: Vec<Multiaddr>,
    /// Where others reach this node, if that is not where it listens. These and the next three may have names
    /// (`/dns/../tcp/..`, `/dns4/..`, `/dns6/..`), which are looked up again from time to time.
    pub external: Vec<Multiaddr>,
    /// Where to find the first peers, with or without `/p2p/..`. Dialled while there are too few peers.
    pub seeds: Vec<Multiaddr>,
    /// Peers to be connected with always, with `/p2p/..`: dialled for ever, and not counted by the limits of connections.
    pub persistent: Vec<Multiaddr>,
    /// If there are any: the only peers of this node, with `/p2p/..`. They are its persistent peers, nobody else is dialled
    /// or let in, and nobody is told where it is; `external`, `seeds`, `persistent` and `book` mean nothing then.
    pub only: Vec<Multiaddr>,
    /// Where the address book is kept from run to run, if it is.
    pub book: Option<PathBuf>,
    /// What the network may use.
    pub limits: Limits,
    /// How long it waits for what.
    pub timing: Timing,
}

/// What happens on the network. The machine's events of the same names.
#[derive(Debug)]
pub enum P2pEvent {
    /// A peer of this chain and version is connected, and what is published from here on is sent to it.
    Connected {
        /// Who.
        peer: PeerId,
    },
    /// A peer has no connection any more. Every request to it has been answered before this.
    Disconnected {
        /// Who.
        peer: PeerId,
    },
    /// A gossip message arrived, within the bound of its topic. Answered by [`P2p::relay`].
    Gossip {
        /// Who sent it on.
        peer: PeerId,
        /// Its name.
        id: GossipId,
        /// Its topic.
        topic: Topic,
        /// What it says.
        bytes: Bytes,
    },
    /// A peer asks. Answered by [`P2p::respond`], or not at all: then the peer is refused after [`Timing::request`].
    Request {
        /// Who asks.
        peer: PeerId,
        /// Its name.
        id: InboundId,
        /// What.
        request: Request,
    },
    /// An answer to a request of this node, or the certainty that there will be none. One for each request.
    Response {
        /// Who answers.
        peer: PeerId,
        /// The request.
        id: OutboundId,
        /// The answer. It is of the kind that was asked for, and has no more blocks.
        result: Result<Response, RequestFailure>,
    },
}

/// Who opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The peer.
    Inbound,
    /// This node.
    Outbound,
}

/// A connected peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Its name.
    pub peer: PeerId,
    /// The other end of its oldest connection.
    pub address: Multiaddr,
    /// Who opened that.
    pub direction: Direction,
    /// What the peer calls itself. Anything, at most 128 characters, none of them invisible.
    pub agent: String,
    /// When that connection began.
    pub since: SystemTime,
    /// The last time a message there and back took.
    pub ping: Option<Duration>,
    /// Whether it is a persistent peer.
    pub persistent: bool,
}

/// Why the network cannot start.
#[derive(Debug, thiserror::Error)]
pub enum P2pError {
    /// Another process, or another listener of this one, has the port.
    #[error("cannot listen on {address}: port {port} is in use: stop what uses it, or set another port")]
    PortInUse {
        /// The address.
        address: Multiaddr,
        /// Its port.
        port: u16,
    },
    /// The system does not let this process listen there.
    #[error("cannot listen on {address}: set an address of this machine, and a port that this user may use")]
    Listen {
        /// The address.
        address: Multiaddr,
        /// Why.
        source: io::Error,
    },
    /// An address of another form.
    #[error(
        "address {address} is not supported: write it as /ip4/<address>/tcp/<port> or /ip6/<address>/tcp/<port>; where others are, also as /dns4/<name>/tcp/<port> or /dns6/<name>/tcp/<port>"
    )]
    Address {
        /// The address.
        address: Multiaddr,
    },
    /// A persistent peer without its name.
    #[error("persistent peer {address} has no name: add /p2p/<peer id>")]
    NoPeerId {
        /// The address.
        address: Multiaddr,
    },
    /// The node's key cannot be used.
    #[error("the node's network key cannot sign: make a new one")]
    Key(#[source] noise::Error),
}

impl P2pError {
    fn listen(address: Multiaddr, error: io::Error) -> Self {
        match address::socket(&address) {
            Some((_, port)) if error.kind() == io::ErrorKind::AddrInUse => Self::PortInUse { address, port },
            _ => Self::Listen { address, source: error },
        }
    }
}

impl Laned for P2pEvent {
    type Source = PeerId;

    fn lane(&self) -> Lane {
        match self {
            // As many as there are connections, and requests of this node.
            Self::Connected { .. } | Self::Disconnected { .. } | Self::Response { .. } => Lane::Kept,
            Self::Gossip { topic, .. } => Lane::of(*topic),
            // Without the body its asker does not vote.
            Self::Request { request: Request::Body { .. }, .. } => Lane::Bodies,
            Self::Request { .. } => Lane::Requests,
        }
    }

    fn source(&self) -> PeerId {
        match self {
            Self::Connected { peer }
            | Self::Disconnected { peer }
            | Self::Gossip { peer, .. }
            | Self::Request { peer, .. }
            | Self::Response { peer, .. } => *peer,
        }
    }
}

/// Makes the queue that [`start`] puts its events into.
pub fn inbox() -> (lanes::Sender<P2pEvent>, lanes::Receiver<P2pEvent>) {
    lanes::channel(EVENTS)
}

/// What the node wants done.
#[derive(Debug)]
enum Command {
    Publish { topic: Topic, bytes: Bytes },
    Relay { id: GossipId, verdict: RelayVerdict },
    Request { peer: PeerId, id: OutboundId, request: Request },
    Respond { id: InboundId, response: Response },
    Ban { peer: PeerId, duration: Duration },
    HangUp { peer: PeerId },
    Peers { reply: oneshot::Sender<Vec<PeerInfo>> },
}

impl Laned for Command {
    /// All are the node's.
    type Source = ();

    fn lane(&self) -> Lane {
        match self {
            // As many as the node's list of open requests, as its verdicts about peers, and as there are who ask.
            Self::Request { .. } | Self::Ban { .. } | Self::HangUp { .. } | Self::Peers { .. } => Lane::Kept,
            Self::Publish { topic, .. } => Lane::of(*topic),
            Self::Relay { id, .. } => Lane::of(gossip::topic(*id)),
            Self::Respond { response: Response::Body(_), .. } => Lane::Bodies,
            Self::Respond { .. } => Lane::Requests,
        }
    }

    fn source(&self) {}
}

/// What all handles and the swarm share.
#[derive(Debug, Default)]
struct Shared {
    /// The swarm shall stop.
    wake: Notify,
    stop: AtomicBool,
    commands: AtomicU64,
    gossip: AtomicU64,
}

impl Shared {
    /// Counts a command that is lost, and warns at the first, second, fourth, eighth..
    fn lose_command(&self, what: &'static str) {
        let lost = self.commands.fetch_add(1, Ordering::Relaxed) + 1;
        if lost.is_power_of_two() {
            tracing::warn!(what, lost, "not sent: the network has more to do than it can");
        }
    }

    /// The same for a message that the node does not get.
    fn lose_gossip(&self, topic: Topic, peer: PeerId, count: u64) {
        let before = self.gossip.fetch_add(count, Ordering::Relaxed);
        let lost = before + count;
        // A power of two was reached or passed.
        if before.leading_zeros() != lost.leading_zeros() {
            tracing::warn!(topic = topic.name(), %peer, lost, "gossip was dropped: it is more than the node can take");
        }
    }
}

/// What was lost since the start because something was too slow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Publications, verdicts and answers of this node: the swarm was too slow.
    pub commands: u64,
    /// Gossip messages to this node: it was too slow, or one peer sent too many.
    pub gossip: u64,
}

/// The running network. Cheap to clone. Its commands never wait, and need no runtime.
#[derive(Clone, Debug)]
pub struct P2p {
    commands: lanes::Sender<Command>,
    shared: Arc<Shared>,
}

impl P2p {
    /// Sends a message to everybody. Dropped if it is beyond the bound of its topic, if no peer is there, or if the swarm
    /// is too busy.
    pub fn publish(&self, topic: Topic, bytes: Bytes) {
        self.send(Command::Publish { topic, bytes });
    }

    /// Says what to do with a gossip message. The first verdict counts.
    pub fn relay(&self, id: GossipId, verdict: RelayVerdict) {
        self.send(Command::Relay { id, verdict });
    }

    /// Asks a peer. Leads to exactly one [`P2pEvent::Response`] as long as the swarm runs, within [`Timing::request`] or
    /// shortly after.
    pub fn request(&self, peer: PeerId, id: OutboundId, request: Request) {
        self.send(Command::Request { peer, id, request });
    }

    /// Answers a peer. Dropped if the peer is gone, or has given up.
    pub fn respond(&self, id: InboundId, response: Response) {
        self.send(Command::Respond { id, response });
    }

    /// Disconnects a peer, and refuses it and its addresses for so long; not addresses of this machine.
    pub fn ban(&self, peer: PeerId, duration: Duration) {
        self.send(Command::Ban { peer, duration });
    }

    /// Disconnects a peer, which may come back.
    pub fn hang_up(&self, peer: PeerId) {
        self.send(Command::HangUp { peer });
    }

    /// Returns the connected peers, none if the swarm has stopped. Waits for the swarm.
    pub async fn peers(&self) -> Vec<PeerInfo> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Peers { reply });
        tokio::select! {
            peers = answer => peers.unwrap_or_default(),
            () = self.commands.closed() => Vec::new(),
        }
    }

    /// Stops the swarm. The channel of events closes when it has stopped and its ports are free.
    pub fn shutdown(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake.notify_one();
    }

    /// Returns what was lost so far.
    pub fn lost(&self) -> Lost {
        Lost {
            commands: self.shared.commands.load(Ordering::Relaxed),
            gossip: self.shared.gossip.load(Ordering::Relaxed),
        }
    }

    fn send(&self, command: Command) {
        match self.commands.push(command) {
            None => {}
            Some(Command::Publish { .. }) => self.shared.lose_command("publication"),
            Some(Command::Relay { .. }) => self.shared.lose_command("verdict"),
            Some(Command::Respond { .. }) => self.shared.lose_command("answer"),
            Some(Command::Request { .. } | Command::Ban { .. } | Command::HangUp { .. } | Command::Peers { .. }) => {
                unreachable!("they are kept")
            }
        }
    }
}

/// Starts the network on this Tokio runtime, and returns it with the addresses it listens on. It stops by
/// [`P2p::shutdown`], or when nobody takes its events or holds a handle any more.
///
/// # Errors
/// An address cannot be used, or the key cannot.
pub async fn start(config: P2pConfig, events: lanes::Sender<P2pEvent>) -> Result<(P2p, Vec<Multiaddr>), P2pError> {
    let config = alone(config);
    let persistent = persistent(&config.persistent)?;
    let unsupported = |address: &&Multiaddr| address::socket(address).is_none();
    let wrong = config.listen.iter().find(unsupported);
    let wrong = wrong.or_else(|| config.seeds.iter().chain(&config.external).find(|it| !resolve::is_dialable(it)));
    if let Some(address) = wrong {
        return Err(P2pError::Address { address: address.clone() });
    }
    let saved = config.book.as_deref().and_then(|path| last_run(path, config.chain));
    let saved = saved.unwrap_or_else(|| Saved::fresh(rand::random()));
    let (commands, receiver) = lanes::channel(COMMANDS);
    let shared = Arc::new(Shared::default());
    let mut task = swarm::Task::new(&config, persistent, saved, receiver, events, Arc::clone(&shared))?;
    let bound = task.listen(&config.listen).await?;
    tokio::spawn(task.run());
    Ok((P2p { commands, shared }, bound))
}

/// A node with only some peers: it has no others, and says nothing of itself.
fn alone(config: P2pConfig) -> P2pConfig {
    if config.only.is_empty() {
        return config;
    }
    let persistent = config.only.clone();
    P2pConfig { persistent, external: Vec::new(), seeds: Vec::new(), book: None, ..config }
}

/// What the last run knew of peers. Nothing depends on it: if it cannot be had, this node begins afresh and says so.
fn last_run(path: &Path, chain: ChainId) -> Option<Saved> {
    let loaded = book_file::load(path, chain);
    loaded.inspect_err(|error| log_error("no peers are remembered from the last run", error)).ok().flatten()
}

/// Returns names and addresses of the persistent peers.
fn persistent(addresses: &[Multiaddr]) -> Result<Vec<(PeerId, Multiaddr)>, P2pError> {
    let mut seen = HashSet::new();
    let mut peers = Vec::new();
    for address in addresses.iter().filter(|address| seen.insert(*address)) {
        if !resolve::is_dialable(address) {
            return Err(P2pError::Address { address: address.clone() });
        }
        let (address, peer) = address::split(address);
        match peer {
            Some(peer) => peers.push((peer, address)),
            None => return Err(P2pError::NoPeerId { address }),
        }
    }
    Ok(peers)
}

/// Fails if anybody listens on one of the addresses, or if they are not different. libp2p lets several processes of one
/// user share a port; each would get some of the connections.
///
/// All are looked at before any is listened on: an IPv6 wildcard may stand for IPv4 here, but not in libp2p.
fn probe(addresses: &[Multiaddr]) -> Result<(), P2pError> {
    let mut seen = HashSet::new();
    for address in addresses {
        let Some((ip, port)) = address::socket(address) else {
            return Err(P2pError::Address { address: address.clone() });
        };
        if port == 0 {
            continue;
        }
        if !seen.insert((ip, port)) {
            return Err(P2pError::PortInUse { address: address.clone(), port });
        }
        std::net::TcpListener::bind((ip, port)).map_err(|error| P2pError::listen(address.clone(), error))?;
    }
    Ok(())
}

fn listen_error(address: Multiaddr, error: TransportError<io::Error>) -> P2pError {
    match error {
        TransportError::MultiaddrNotSupported(address) => P2pError::Address { address },
        TransportError::Other(error) => P2pError::listen(address, error),
    }
}

#[cfg(test)]
mod tests;
