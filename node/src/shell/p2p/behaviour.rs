//! The parts of the swarm.

use std::collections::HashSet;

use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::identity::Keypair;
use libp2p::kad::store::{MemoryStore, MemoryStoreConfig};
use libp2p::request_response::ProtocolSupport;
use libp2p::swarm::NetworkBehaviour;
use libp2p::{PeerId, identify, kad, ping, request_response};

use super::codec::Codec;
use super::gate::Gate;
use super::gossip::{self, Lane};
use super::limits::{Limits, Timing};
use super::meter::Metered;
use super::names::{AGENT, Names};
use crate::wire::Topic;

/// The parts of the swarm. The first two decide about connections before any other sees them.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) gate: Gate,
    limits: connection_limits::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    pub(super) kad: kad::Behaviour<MemoryStore>,
    consensus: Metered,
    bodies: Metered,
    transactions: Metered,
    claims: Metered,
    pub(super) requests: request_response::Behaviour<Codec>,
}

impl Behaviour {
    /// The parts of a node with this identity.
    pub(super) fn new(
        identity: &Keypair,
        names: &Names,
        limits: &Limits,
        timing: &Timing,
        persistent: &HashSet<PeerId>,
    ) -> Self {
        let local = identity.public().to_peer_id();
        let identify = identify::Config::new(names.identity.clone(), identity.public())
            .with_agent_version(AGENT.to_owned())
            .with_cache_size(0);
        let ping = ping::Config::new().with_interval(timing.ping).with_timeout(timing.ping);
        let requests = request_response::Config::default()
            .with_request_timeout(timing.request)
            .with_max_concurrent_streams(limits.streams);
        let lane = |topic| {
            let lane = gossip::lane(topic, names, timing);
            Metered::new(lane, topic, limits.validators, persistent.clone())
        };
        Self {
            gate: Gate::new(limits.clone(), persistent.clone()),
            limits: connection_limits(limits, persistent),
            identify: identify::Behaviour::new(identify),
            ping: ping::Behaviour::new(ping),
            kad: kad(local, names),
            consensus: lane(Topic::Consensus),
            bodies: lane(Topic::Bodies),
            transactions: lane(Topic::Transactions),
            claims: lane(Topic::Claims),
            requests: request_response::Behaviour::with_codec(
                Codec,
                [(names.requests(), ProtocolSupport::Full)],
                requests,
            ),
        }
    }

    /// The gossip of a topic.
    pub(super) fn lane(&mut self, topic: Topic) -> &mut Lane {
        self.metered(topic).lane()
    }

    /// The same with its meter.
    pub(super) fn metered(&mut self, topic: Topic) -> &mut Metered {
        match topic {
            Topic::Consensus => &mut self.consensus,
            Topic::Bodies => &mut self.bodies,
            Topic::Transactions => &mut self.transactions,
            Topic::Claims => &mut self.claims,
        }
    }
}

fn connection_limits(limits: &Limits, persistent: &HashSet<PeerId>) -> connection_limits::Behaviour {
    let mut behaviour = connection_limits::Behaviour::new(
        ConnectionLimits::default()
            .with_max_established(Some(limits.connections))
            .with_max_established_incoming(Some(limits.inbound))
            .with_max_established_outgoing(Some(limits.outbound))
            .with_max_established_per_peer(Some(limits.per_peer))
            .with_max_pending_incoming(Some(limits.pending_inbound))
            .with_max_pending_outgoing(Some(limits.pending_outbound)),
    );
    for peer in persistent {
        behaviour.bypass_peer_id(peer);
    }
    behaviour
}

/// Kademlia finds peers and does nothing else: it keeps no records of anybody, and routes only to peers that have said who
/// they are.
fn kad(local: PeerId, names: &Names) -> kad::Behaviour<MemoryStore> {
    let mut config = kad::Config::new(names.kad());
    config
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_caching(kad::Caching::Disabled)
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(None)
        // The swarm looks for peers when it has too few.
        .set_periodic_bootstrap_interval(None);
    let nothing =
        MemoryStoreConfig { max_records: 0, max_value_bytes: 0, max_providers_per_key: 0, max_provided_keys: 0 };
    let mut behaviour = kad::Behaviour::with_config(local, MemoryStore::with_config(local, nothing), config);
    behaviour.set_mode(Some(kad::Mode::Server));
    behaviour
}
