//! Gossip: one gossipsub for each topic, so that what waits for a slow peer holds up no vote, and each has queues and limits
//! of its own.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bitcoin::hashes::{Hash, HashEngine, sha256};
use libp2p::PeerId;
use libp2p::gossipsub::{
    self, ConfigBuilder, MessageAuthenticity, MessageId, PeerScoreParams, PeerScoreThresholds, TopicScoreParams,
    ValidationMode, WhitelistSubscriptionFilter,
};

use super::limits::{Limits, Timing};
use super::names::Names;
use crate::machine::GossipId;
use crate::wire::Topic;

/// The gossip of one topic.
pub(super) type Lane = gossipsub::Behaviour<gossipsub::IdentityTransform, WhitelistSubscriptionFilter>;

/// Bytes around a message, and the most bytes of what gossipsub itself says: [`IHAVE_MAX`] ids of 32 bytes, framed.
const FRAMING_BYTES: usize = 64 << 10;

/// Most ids in an announcement of messages.
const IHAVE_MAX: usize = 1_000;

/// What a waiting message costs besides its bytes.
const MESSAGE_OVERHEAD_BYTES: usize = 512;

/// Messages that wait to be sent to one peer; half of them published, half relayed. What comes on top is not sent to it:
/// of transactions, whose messages have up to 400 kB, a slow peer costs 100 MB at most.
fn queue_length(topic: Topic) -> usize {
    match topic {
        Topic::Consensus => 2_048,
        Topic::Bodies => 64,
        Topic::Transactions => 256,
        Topic::Claims => 64,
    }
}

/// The gossip of this topic.
pub(super) fn lane(topic: Topic, names: &Names, timing: &Timing) -> Lane {
    let mut config = ConfigBuilder::default();
    config
        .validation_mode(ValidationMode::Anonymous)
        .validate_messages()
        .message_id_fn(message_id)
        .max_transmit_size(topic.max_bytes() + FRAMING_BYTES)
        .max_ihave_length(IHAVE_MAX)
        .max_messages_per_rpc(Some(16))
        .heartbeat_interval(timing.heartbeat)
        .heartbeat_initial_delay(timing.heartbeat)
        // Validators shall hear of a vote at once. Of the rest each peer would cost as much as its mesh does together.
        .flood_publish(topic == Topic::Consensus)
        .mesh_n_low(6)
        .mesh_n(8)
        .mesh_n_high(12)
        .mesh_outbound_min(3)
        // A message can be sent on only as long as it is remembered; verdicts take a while.
        .history_length(10)
        .history_gossip(3)
        .duplicate_cache_time(Duration::from_secs(120))
        .connection_handler_queue_len(queue_length(topic))
        .publish_queue_duration(Duration::from_secs(10))
        .forward_queue_duration(Duration::from_secs(5));
    // Only under its own name gossipsub speaks version 1.2, with which peers say which long messages they have already. The
    // name of the topic carries the chain all the same.
    if topic != Topic::Transactions {
        config.protocol_id_prefix(names.gossip(topic));
    }
    let config = config.build().expect("the settings fit each other");
    let topic = names.topic(topic);
    let filter = WhitelistSubscriptionFilter(std::iter::once(topic.hash()).collect());
    let mut lane = Lane::new_with_subscription_filter(MessageAuthenticity::Anonymous, config, filter)
        .expect("anonymous messages are neither signed nor expected to be");
    lane.with_peer_score(scores(topic.hash()), thresholds()).expect("the scores fit each other");
    lane.subscribe(&topic).expect("the topic is on its own list");
    lane
}

/// Only what is wrong for certain counts, and is forgotten within minutes: messages that were rejected, and promises that
/// were broken. Who is merely slow or silent loses nothing, and addresses are limited by connections.
fn scores(topic: gossipsub::TopicHash) -> PeerScoreParams {
    let params = TopicScoreParams {
        topic_weight: 1.0,
        time_in_mesh_weight: 0.0,
        first_message_deliveries_weight: 0.0,
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        // The count is squared: five rejected messages at once close the lane for gossip, ten for everything.
        invalid_message_deliveries_weight: -1.0,
        invalid_message_deliveries_decay: 0.95,
        ..TopicScoreParams::default()
    };
    PeerScoreParams {
        topics: std::iter::once((topic, params)).collect(),
        app_specific_weight: 0.0,
        ip_colocation_factor_weight: 0.0,
        behaviour_penalty_weight: -1.0,
        behaviour_penalty_threshold: 6.0,
        behaviour_penalty_decay: 0.9,
        slow_peer_weight: 0.0,
        retain_score: Duration::from_secs(600),
        ..PeerScoreParams::default()
    }
}

fn thresholds() -> PeerScoreThresholds {
    PeerScoreThresholds {
        gossip_threshold: -20.0,
        publish_threshold: -40.0,
        graylist_threshold: -80.0,
        accept_px_threshold: 0.0,
        opportunistic_graft_threshold: 0.0,
    }
}

/// The same bytes on the same topic are the same message, whoever sends them.
fn message_id(message: &gossipsub::Message) -> MessageId {
    let topic = message.topic.as_str().as_bytes();
    let mut engine = sha256::Hash::engine();
    engine.input(&u64::try_from(topic.len()).unwrap_or(u64::MAX).to_le_bytes());
    engine.input(topic);
    engine.input(&message.data);
    MessageId::new(&sha256::Hash::from_engine(engine).to_byte_array())
}

/// The lowest bits of a message's name, which tell its topic.
const TOPIC_BITS: u32 = 2;

/// The topic of a message with this name.
pub(super) fn topic(id: GossipId) -> Topic {
    let number = id.0 & ((1 << TOPIC_BITS) - 1);
    Topic::ALL.into_iter().find(|topic| *topic as u64 == number).expect("two bits name four topics")
}

/// A message that waits for its verdict.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    /// Its topic.
    pub(super) topic: Topic,
    /// Its name in gossipsub.
    pub(super) message: MessageId,
    /// Who sent it on.
    pub(super) peer: PeerId,
    cost: usize,
    since: Instant,
}

/// Messages that wait for their verdict. Bounded in bytes by topic and by peer, and in time.
#[derive(Debug)]
pub(super) struct Verdicts {
    limits: Limits,
    waiting: HashMap<GossipId, Waiting>,
    /// By age; ids that are answered stay until they are the oldest.
    ages: VecDeque<GossipId>,
    by_topic: HashMap<Topic, usize>,
    by_peer: HashMap<(Topic, PeerId), usize>,
    next: u64,
}

impl Verdicts {
    /// None wait.
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            waiting: HashMap::new(),
            ages: VecDeque::new(),
            by_topic: HashMap::new(),
            by_peer: HashMap::new(),
            next: 0,
        }
    }

    /// Gives a message of `bytes` bytes a name to wait under; nothing if its topic, or its peer's share of that, is full.
    pub(super) fn admit(
        &mut self,
        topic: Topic,
        message: MessageId,
        peer: PeerId,
        bytes: usize,
        now: Instant,
    ) -> Option<GossipId> {
        let cost = bytes + MESSAGE_OVERHEAD_BYTES;
        let all = self.limits.gossip_bytes(topic);
        let share = (all / 4).max(topic.max_bytes() + MESSAGE_OVERHEAD_BYTES);
        let of_topic = self.by_topic.entry(topic).or_default();
        if *of_topic + cost > all {
            return None;
        }
        let of_peer = self.by_peer.get(&(topic, peer)).copied().unwrap_or_default();
        if of_peer + cost > share {
            return None;
        }
        *of_topic += cost;
        self.by_peer.insert((topic, peer), of_peer + cost);
        let id = GossipId(self.next << TOPIC_BITS | topic as u64);
        self.next += 1;
        self.waiting.insert(id, Waiting { topic, message, peer, cost, since: now });
        self.ages.push_back(id);
        Some(id)
    }

    /// Takes the message with this name out, unless it has gone already.
    pub(super) fn take(&mut self, id: GossipId) -> Option<Waiting> {
        let waiting = self.waiting.remove(&id)?;
        if let Some(of_topic) = self.by_topic.get_mut(&waiting.topic) {
            *of_topic = of_topic.saturating_sub(waiting.cost);
        }
        let key = (waiting.topic, waiting.peer);
        if let Some(of_peer) = self.by_peer.get_mut(&key) {
            *of_peer = of_peer.saturating_sub(waiting.cost);
            if *of_peer == 0 {
                self.by_peer.remove(&key);
            }
        }
        while self.ages.front().is_some_and(|id| !self.waiting.contains_key(id)) {
            self.ages.pop_front();
        }
        Some(waiting)
    }

    /// Takes out a message that has waited longer than `patience`.
    pub(super) fn take_expired(&mut self, now: Instant, patience: Duration) -> Option<Waiting> {
        let oldest = *self.ages.front()?;
        let expired = self.waiting.get(&oldest).is_none_or(|waiting| now.duration_since(waiting.since) > patience);
        if expired { self.take(oldest) } else { None }
    }
}

#[cfg(test)]
mod tests;
