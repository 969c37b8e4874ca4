//! Bounds and times of the network.

use std::time::Duration;

use crate::wire::Topic;

/// What the network may use at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Established connections, persistent peers not counted.
    pub connections: u32,
    /// Of these, those that others opened. When all are taken, the one with least merit makes room for the next.
    pub inbound: u32,
    /// Of these, those that this node opened.
    pub outbound: u32,
    /// Peers that this node opens connections to as long as it has fewer, persistent peers not counted.
    pub outbound_wanted: usize,
    /// Outbound connections into one group of addresses (IPv4 /16, IPv6 /32), so that the peers of this node are not all
    /// of one owner. Persistent peers and addresses that are not public are not counted.
    pub outbound_per_group: usize,
    /// Connections of one address (IPv4, or IPv6 /64), handshakes included. Outbound ones to persistent peers are free.
    pub per_ip: usize,
    /// The same for a loopback address, where a devnet has all its nodes.
    pub per_loopback_ip: usize,
    /// Connections of one peer. Two, since two nodes may connect to each other at the same moment.
    pub per_peer: u32,
    /// Inbound connections in their handshake.
    pub pending_inbound: u32,
    /// Outbound connections in their handshake.
    pub pending_outbound: u32,
    /// Banned peers and, apart from these, banned addresses.
    pub bans: usize,
    /// Bytes of consensus messages that wait for their verdict. One peer may use a quarter of these and of the next two,
    /// or a single message.
    pub consensus_bytes: usize,
    /// Bytes of block bodies that wait for their verdict.
    pub bodies_bytes: usize,
    /// Bytes of transactions that wait for their verdict.
    pub transactions_bytes: usize,
    /// Bytes of claims that wait for their verdict.
    pub claims_bytes: usize,
    /// Gossip messages and requests that a peer may send before it has said who it is.
    pub held_per_peer: usize,
    /// Streams of requests and answers that a connection may have open at once.
    pub streams: usize,
    /// Requests of this node to one peer that are open at once.
    pub requests_per_peer: usize,
    /// Requests of one peer that are open at once.
    pub inbound_requests_per_peer: usize,
    /// Requests of all peers that are open at once.
    pub inbound_requests: usize,
    /// Requests of one peer in a second, in the long run.
    pub requests_per_second: u32,
    /// Requests of one peer at once, after a silence.
    pub request_burst: u32,
    /// Bytes of answers that are on their way. One peer may hold an eighth of these, and all that the operator has not
    /// named together three quarters, or a single answer: whoever reads slowly leaves room for others.
    pub response_bytes: usize,
    /// Long blocks of the current height that are being sent at once to peers that the operator has named, and so many to
    /// others. Further ones are refused, and come back: who has one whole sends it on, while all at once have it late.
    pub bodies_at_once: usize,
    /// KiB of blocks that one peer gets in a second, in the long run. More is refused, and it asks others.
    pub upload_per_second: u32,
    /// KiB of blocks that it gets at once, after a silence.
    pub upload_burst: u32,
    /// The same for all peers together.
    pub upload_all_per_second: u32,
    /// KiB of blocks that all peers get at once.
    pub upload_all_burst: u32,
    /// Validators of the chain: their votes are what an honest peer sends.
    pub validators: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 128,
            inbound: 100,
            outbound: 24,
            outbound_wanted: 8,
            outbound_per_group: 2,
            per_ip: 8,
            per_loopback_ip: 128,
            per_peer: 2,
            pending_inbound: 64,
            pending_outbound: 32,
            bans: 4_096,
            consensus_bytes: 8 << 20,
            bodies_bytes: 8 << 20,
            transactions_bytes: 32 << 20,
            claims_bytes: 16 << 20,
            held_per_peer: 64,
            streams: 32,
            requests_per_peer: 16,
            inbound_requests_per_peer: 8,
            inbound_requests: 256,
            requests_per_second: 100,
            request_burst: 200,
            response_bytes: 256 << 20,
            bodies_at_once: 2,
            upload_per_second: 8 << 10,
            upload_burst: 64 << 10,
            upload_all_per_second: 32 << 10,
            upload_all_burst: 256 << 10,
            validators: 64,
        }
    }
}

impl Limits {
    /// Bytes of messages on this topic that may wait for their verdict.
    pub(super) fn gossip_bytes(&self, topic: Topic) -> usize {
        match topic {
            Topic::Consensus => self.consensus_bytes,
            Topic::Bodies => self.bodies_bytes,
            Topic::Transactions => self.transactions_bytes,
            Topic::Claims => self.claims_bytes,
        }
    }
}

/// How long the network waits for what. The default suits every network; tests are in a hurry. None is zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// A connection that is not encrypted and multiplexed after this long is dropped.
    pub handshake: Duration,
    /// A peer that has not said who it is after this long is dropped.
    pub identify: Duration,
    /// A request has failed when nothing of its answer comes for so long, and so has an answer of which nothing is taken. A
    /// request that this node does not answer is refused after this time.
    pub request: Duration,
    /// A connection is tested this often, and dropped when two tests in a row fail.
    pub ping: Duration,
    /// The first wait before a persistent peer is dialled again. It doubles with each failure.
    pub redial_min: Duration,
    /// The longest such wait.
    pub redial_max: Duration,
    /// The first wait before another known peer is dialled again. It doubles with each failure.
    pub retry_min: Duration,
    /// The longest such wait.
    pub retry_max: Duration,
    /// How long a peer of another chain or version is neither dialled nor let in.
    pub foreign: Duration,
    /// New peers are looked for this often while there are too few.
    pub discovery: Duration,
    /// While there are enough peers, one that was only heard of is tried this often, and left again.
    pub feeler: Duration,
    /// A gossip message without a verdict after this long is not sent on.
    pub verdict: Duration,
    /// Gossipsub's heartbeat.
    pub heartbeat: Duration,
    /// Deadlines are looked at this often.
    pub tick: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            identify: Duration::from_secs(10),
            request: Duration::from_secs(10),
            ping: Duration::from_secs(15),
            redial_min: Duration::from_secs(1),
            redial_max: Duration::from_secs(60),
            retry_min: Duration::from_secs(30),
            retry_max: Duration::from_secs(3_600),
            foreign: Duration::from_secs(600),
            discovery: Duration::from_secs(30),
            feeler: Duration::from_secs(120),
            verdict: Duration::from_secs(60),
            heartbeat: Duration::from_secs(1),
            tick: Duration::from_millis(250),
        }
    }
}
