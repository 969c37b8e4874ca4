//! A peer that speaks the protocols, but says what the test wants.

use std::io;

use async_trait::async_trait;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::gossipsub::Event;
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{StreamProtocol, Swarm, identify};

use super::super::address::Reach;
use super::super::gossip::{Lane, lane};
use super::super::names::Names;
use super::super::transport;
use super::*;

/// Sends and receives any bytes.
#[derive(Clone, Copy, Default)]
pub(super) struct AnyBytes;

#[async_trait]
impl request_response::Codec for AnyBytes {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        io.read_to_end(&mut bytes).await.map(|_| bytes)
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        io.read_to_end(&mut bytes).await.map(|_| bytes)
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, bytes: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&bytes).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, bytes: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&bytes).await
    }
}

#[derive(NetworkBehaviour)]
pub(super) struct RawBehaviour {
    identify: Toggle<identify::Behaviour>,
    consensus: Toggle<Lane>,
    bodies: Toggle<Lane>,
    transactions: Toggle<Lane>,
    claims: Toggle<Lane>,
    pub(super) requests: request_response::Behaviour<AnyBytes>,
}

impl RawBehaviour {
    pub(super) fn publish(&mut self, topic: Topic, bytes: Vec<u8>) {
        let lane = match topic {
            Topic::Consensus => &mut self.consensus,
            Topic::Bodies => &mut self.bodies,
            Topic::Transactions => &mut self.transactions,
            Topic::Claims => &mut self.claims,
        };
        lane.as_mut().unwrap().publish(Names::new(chain(1)).topic(topic), bytes).unwrap();
    }

    /// Says who it is, without being asked.
    pub(super) fn push(&mut self, to: PeerId) {
        self.identify.as_mut().unwrap().push([to]);
    }

    pub(super) fn transaction_protocols(&self) -> Vec<String> {
        self.transactions.as_ref().unwrap().peer_protocol().map(|(_, kind)| kind.to_string()).collect()
    }
}

/// How much of the handshake a raw peer takes part in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Says {
    /// Nothing.
    Nothing,
    /// Who it is.
    Name,
    /// What it listens to, not who it is.
    Topics,
    /// Both.
    All,
}

pub(super) type Raw = Swarm<RawBehaviour>;

/// A peer that dials this node.
pub(super) fn raw(number: u8, says: Says, to: &TestNode) -> Raw {
    let identity = key(number);
    let names = Names::new(chain(1));
    let own: Multiaddr = "/ip4/127.0.0.1/tcp/0".parse().unwrap();
    let reach = Reach::new([&own].into_iter(), [].into_iter());
    let transport = transport::build(&identity, reach, PATIENCE).unwrap();
    let timing = Timing::default();
    let identify = identify::Behaviour::new(identify::Config::new(names.identity.clone(), identity.public()));
    let topic = |topic| Toggle::from(matches!(says, Says::Topics | Says::All).then(|| lane(topic, &names, &timing)));
    let behaviour = RawBehaviour {
        identify: Toggle::from(matches!(says, Says::Name | Says::All).then_some(identify)),
        consensus: topic(Topic::Consensus),
        bodies: topic(Topic::Bodies),
        transactions: topic(Topic::Transactions),
        claims: topic(Topic::Claims),
        requests: request_response::Behaviour::with_codec(
            AnyBytes,
            [(names.requests(), ProtocolSupport::Full)],
            request_response::Config::default().with_max_concurrent_streams(1_000),
        ),
    };
    let settings = libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(NEVER);
    let mut swarm = Swarm::new(transport, behaviour, identity.public().to_peer_id(), settings);
    swarm.dial(to.address.clone()).unwrap();
    swarm
}

/// The next event of the raw peer for which `wanted` returns something.
pub(super) async fn wait<T>(swarm: &mut Raw, mut wanted: impl FnMut(SwarmEvent<RawBehaviourEvent>) -> Option<T>) -> T {
    let search = async {
        loop {
            if let Some(found) = wanted(swarm.select_next_some().await) {
                return found;
            }
        }
    };
    timeout(PATIENCE, search).await.expect("the event comes")
}

/// Waits until the node hangs up, or refuses.
pub(super) async fn closed(swarm: &mut Raw) {
    wait(swarm, |event| {
        let over = matches!(event, SwarmEvent::ConnectionClosed { .. } | SwarmEvent::OutgoingConnectionError { .. });
        over.then_some(())
    })
    .await;
}

/// Waits until the node has told the raw peer that it listens to every topic.
pub(super) async fn heard(swarm: &mut Raw) {
    use RawBehaviourEvent::{Bodies, Claims, Consensus, Transactions};
    for _ in Topic::ALL {
        wait(swarm, |event| match event {
            SwarmEvent::Behaviour(Bodies(event) | Claims(event) | Consensus(event) | Transactions(event)) => {
                matches!(event, Event::Subscribed { .. }).then_some(())
            }
            _ => None,
        })
        .await;
    }
}
