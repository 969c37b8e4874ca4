//! Nodes on real sockets of this machine.

mod connect;
mod eclipse;
mod exchange;
mod gossip;
mod hostile;
mod overtake;
mod raw;

use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use causeway_chainspec::{ChainId, Height};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use tokio::time::timeout;

use super::*;

/// No wait is longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longer than anything that this node does at once.
const NEVER: Duration = Duration::from_secs(3_600);

/// A node without a machine.
struct TestNode {
    p2p: P2p,
    events: lanes::Receiver<P2pEvent>,
    peer: PeerId,
    address: Multiaddr,
}

/// The same key for the same number.
fn key(number: u8) -> Keypair {
    Keypair::ed25519_from_bytes([number; 32]).unwrap()
}

fn chain(number: u8) -> ChainId {
    ChainId::from_byte_array([number; 32])
}

/// A node on this machine that knows nobody, and is in a hurry.
fn config(number: u8) -> P2pConfig {
    P2pConfig {
        identity: key(number),
        chain: chain(1),
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        external: Vec::new(),
        seeds: Vec::new(),
        persistent: Vec::new(),
        only: Vec::new(),
        book: None,
        limits: Limits::default(),
        timing: Timing {
            redial_min: Duration::from_millis(50),
            redial_max: Duration::from_millis(200),
            retry_min: Duration::from_millis(100),
            retry_max: Duration::from_millis(500),
            discovery: Duration::from_millis(200),
            feeler: Duration::from_millis(200),
            heartbeat: Duration::from_millis(100),
            tick: Duration::from_millis(10),
            ..Timing::default()
        },
    }
}

/// A node with that configuration, which always connects to these.
fn config_to(number: u8, others: &[&TestNode]) -> P2pConfig {
    P2pConfig { persistent: others.iter().map(|other| other.full()).collect(), ..config(number) }
}

impl TestNode {
    async fn start(config: P2pConfig) -> Self {
        Self::start_with(config, inbox()).await
    }

    /// With a queue of events that has other bounds.
    async fn start_with(
        config: P2pConfig,
        (sender, events): (lanes::Sender<P2pEvent>, lanes::Receiver<P2pEvent>),
    ) -> Self {
        let peer = config.identity.public().to_peer_id();
        let (p2p, bound) = start(config, sender).await.unwrap();
        let [address] = &bound[..] else { panic!("one address for one listener") };
        Self { p2p, events, peer, address: address.clone() }
    }

    /// Its address with its name.
    fn full(&self) -> Multiaddr {
        self.address.clone().with(Protocol::P2p(self.peer))
    }

    /// The next event for which `wanted` returns something. Others are dropped, gossip accepted, requests left.
    async fn wait<T>(&mut self, mut wanted: impl FnMut(P2pEvent) -> Option<T>) -> T {
        let search = async {
            loop {
                let event = self.events.recv().await.expect("the network runs");
                if let P2pEvent::Gossip { id, .. } = &event {
                    self.p2p.relay(*id, RelayVerdict::Accept);
                }
                if let Some(found) = wanted(event) {
                    return found;
                }
            }
        };
        timeout(PATIENCE, search).await.expect("the event comes")
    }

    async fn connected(&mut self, wanted: PeerId) {
        self.wait(|event| matches!(event, P2pEvent::Connected { peer } if peer == wanted).then_some(())).await;
    }

    async fn disconnected(&mut self, wanted: PeerId) {
        self.wait(|event| matches!(event, P2pEvent::Disconnected { peer } if peer == wanted).then_some(())).await;
    }

    async fn gossip(&mut self) -> (PeerId, Topic, Bytes) {
        self.wait(|event| match event {
            P2pEvent::Gossip { peer, topic, bytes, .. } => Some((peer, topic, bytes)),
            _ => None,
        })
        .await
    }

    async fn request(&mut self) -> (PeerId, InboundId, Request) {
        self.wait(|event| match event {
            P2pEvent::Request { peer, id, request } => Some((peer, id, request)),
            _ => None,
        })
        .await
    }

    async fn response(&mut self) -> (OutboundId, Result<Response, RequestFailure>) {
        self.wait(|event| match event {
            P2pEvent::Response { id, result, .. } => Some((id, result)),
            _ => None,
        })
        .await
    }

    /// Stops it, and returns when it has stopped.
    async fn stop(mut self) {
        self.p2p.shutdown();
        timeout(PATIENCE, async { while self.events.recv().await.is_some() {} }).await.expect("the network stops");
    }
}

/// Two nodes that are connected.
async fn pair() -> (TestNode, TestNode) {
    let mut first = TestNode::start(config(1)).await;
    let mut second = TestNode::start(config_to(2, &[&first])).await;
    first.connected(second.peer).await;
    second.connected(first.peer).await;
    (first, second)
}

/// Waits for a condition that another task of this thread brings about.
async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, wait).await.expect("the condition comes true");
}

fn status(height: u32) -> Request {
    Request::Status { height: Height(height) }
}

fn status_answer(height: u32) -> Response {
    Response::Status { height: Height(height), hash: BlockHash::from_byte_array([7; 32]) }
}
