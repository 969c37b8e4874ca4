//! The parts of the swarm.

use std::collections::HashSet;

use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::identity::Keypair;
use libp2p::request_response::ProtocolSupport;
use libp2p::swarm::NetworkBehaviour;
use libp2p::{PeerId, identify, ping, request_response};

use super::codec::{self, Codec};
use super::gate::Gate;
use super::gossip::{self, Lane};
use super::limits::{Limits, Timing};
use super::meter::Metered;
use super::names::{AGENT, Names};
use super::peer_list::ListCodec;
use super::slots::Slots;
use crate::wire::{RESPONSE_BYTES_MAX, Topic};

/// Requests for lists of peers that a connection may have open at once.
const LIST_STREAMS: usize = 2;

/// Who may connect at all.
#[derive(Clone, Debug)]
pub(super) struct Company {
    /// Peers that need no room.
    pub(super) persistent: HashSet<PeerId>,
    /// There are no others. This node tells nobody where it is.
    pub(super) is_only: bool,
}

/// The parts of the swarm. The first three decide about connections before any other sees them; the third may close one to
/// make room for another, and no part after it refuses any.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) gate: Gate,
    limits: connection_limits::Behaviour,
    pub(super) slots: Slots,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    pub(super) lists: request_response::Behaviour<ListCodec>,
    consensus: Metered,
    bodies: Metered,
    transactions: Metered,
    claims: Metered,
    pub(super) requests: request_response::Behaviour<Codec>,
}

impl Behaviour {
    /// The parts of a node with this identity. `slots_key` is secret.
    pub(super) fn new(
        identity: &Keypair,
        names: &Names,
        limits: &Limits,
        timing: &Timing,
        company: &Company,
        slots_key: [u8; 32],
    ) -> Self {
        let Company { persistent, is_only } = company;
        let identify = identify::Config::new(names.identity.clone(), identity.public())
            .with_agent_version(AGENT.to_owned())
            .with_hide_listen_addrs(*is_only)
            .with_cache_size(0);
        let ping = ping::Config::new().with_interval(timing.ping).with_timeout(timing.ping);
        // The codec's deadlines are shorter: the request's, the node's for an answer, and the answer's.
        let longest = timing.request * 2 + codec::total(timing.request, RESPONSE_BYTES_MAX);
        let requests = request_response::Config::default()
            .with_request_timeout(longest)
            .with_max_concurrent_streams(limits.streams);
        let lists = request_response::Config::default()
            .with_request_timeout(timing.request)
            .with_max_concurrent_streams(LIST_STREAMS);
        let listing = if *is_only { ProtocolSupport::Outbound } else { ProtocolSupport::Full };
        let lane = |topic| {
            let lane = gossip::lane(topic, names, timing);
            Metered::new(lane, topic, limits.validators, persistent.clone())
        };
        Self {
            gate: Gate::new(limits.clone(), company.clone()),
            limits: connection_limits(limits, persistent),
            slots: Slots::new(limits, persistent.clone(), slots_key),
            identify: identify::Behaviour::new(identify),
            ping: ping::Behaviour::new(ping),
            lists: request_response::Behaviour::new([(names.peer_lists(), listing)], lists),
            consensus: lane(Topic::Consensus),
            bodies: lane(Topic::Bodies),
            transactions: lane(Topic::Transactions),
            claims: lane(Topic::Claims),
            requests: request_response::Behaviour::with_codec(
                Codec { idle: timing.request },
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
            .with_max_established_per_peer(Some(limits.per_peer))
            .with_max_pending_incoming(Some(limits.pending_inbound))
            .with_max_pending_outgoing(Some(limits.pending_outbound)),
    );
    for peer in persistent {
        behaviour.bypass_peer_id(peer);
    }
    behaviour
}
