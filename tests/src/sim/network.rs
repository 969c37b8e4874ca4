//! Links, gossip and requests.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use bytes::Bytes;
use causeway_consensus::bft::{Address, Message};
use causeway_node::machine::{Event, GossipId, InboundId, OutboundId, RequestFailure};
use causeway_node::wire::{Request, Response, Topic, decode_consensus};
use libp2p::PeerId;

use super::check::Check;
use super::host::{Asker, Heard};
use super::plan::Plan;
use super::rng::Rng;
use super::world::{What, World};

/// How long a gossip layer remembers what it has carried.
const CARRIED_FOR: Duration = Duration::from_secs(120);

/// How long a requester waits.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The same where an answer may be on its way for longer.
const ANSWER_ON_THIN_LINE_WITHIN: Duration = Duration::from_secs(60);

/// Who may connect to whom, and who is.
pub(super) struct Links {
    wanted: BTreeSet<(usize, usize)>,
    up: BTreeSet<(usize, usize)>,
    /// The group of each host: between groups nothing gets through.
    groups: Vec<u8>,
    hosts: usize,
}

impl Links {
    pub(super) fn new(plan: &Plan, rng: &mut Rng) -> Self {
        let hosts = plan.hosts();
        let mut wanted = BTreeSet::new();
        for one in 0..hosts {
            match plan.degree {
                // A ring, and some links across.
                Some(degree) => {
                    wanted.insert(pair(one, (one + 1) % hosts));
                    for _ in 1..degree {
                        wanted.insert(pair(one, rng.index(hosts)));
                    }
                }
                None => wanted.extend((0..one).map(|other| pair(one, other))),
            }
        }
        wanted.retain(|(one, other)| one != other);
        Self { wanted, up: BTreeSet::new(), groups: vec![0; hosts], hosts }
    }

    pub(super) fn neighbours(&self, host: usize) -> Vec<usize> {
        (0..self.hosts).filter(|other| self.is_up(host, *other)).collect()
    }

    fn is_up(&self, one: usize, other: usize) -> bool {
        self.up.contains(&pair(one, other))
    }

    fn is_cut(&self, one: usize, other: usize) -> bool {
        self.groups[one] != self.groups[other]
    }

    pub(super) fn heal(&mut self) {
        self.groups.fill(0);
    }
}

fn pair(one: usize, other: usize) -> (usize, usize) {
    (one.min(other), one.max(other))
}

impl World {
    /// The hosts fall into groups.
    pub(super) fn regroup(&mut self) {
        if self.healed {
            return;
        }
        let kinds = 1 + self.rng.below(3);
        for host in 0..self.hosts.len() {
            self.links.groups[host] = u8::try_from(self.rng.below(kinds)).expect("small");
        }
        if !self.plan.faults.silent {
            let cut = self.links.up.iter().copied().filter(|(one, other)| self.links.is_cut(*one, *other));
            for (one, other) in cut.collect::<Vec<_>>() {
                self.disconnect(one, other);
            }
        }
        let every = self.plan.faults.regroup_every.unwrap_or_default();
        let delay = self.rng.between(every / 3, every * 2);
        self.after(delay, What::Regroup);
    }

    /// Connects whoever may be.
    pub(super) fn look_after_links(&mut self) {
        for (one, other) in self.links.wanted.iter().copied().collect::<Vec<_>>() {
            let banned = |by: usize, of: usize| self.hosts[by].bans.get(&of).is_some_and(|until| *until > self.now);
            let alive = self.hosts[one].life.is_some() && self.hosts[other].life.is_some();
            if !alive || self.links.is_up(one, other) || banned(one, other) || banned(other, one) {
                continue;
            }
            if self.links.is_cut(one, other) {
                continue;
            }
            self.links.up.insert(pair(one, other));
            for (host, peer) in [(one, other), (other, one)] {
                let peer = self.hosts[peer].peer;
                self.tell(host, Event::Connected { peer });
            }
        }
    }

    fn tell(&mut self, host: usize, event: Event) {
        if let Some(life) = &self.hosts[host].life {
            let number = life.number;
            self.after(Duration::ZERO, What::Event { host, life: number, event: Box::new(event) });
        }
    }

    fn disconnect(&mut self, one: usize, other: usize) {
        if !self.links.up.remove(&pair(one, other)) {
            return;
        }
        for (host, peer) in [(one, other), (other, one)] {
            let id = self.hosts[peer].peer;
            // Open requests may be told of, before or after, or not.
            let open = self.hosts[host].life.as_mut().map(|life| {
                let open: Vec<_> = life.asked.iter().filter(|(_, of)| **of == peer).map(|(id, _)| *id).collect();
                life.asked.retain(|_, of| *of != peer);
                open
            });
            let before = self.rng.chance(50);
            if !before {
                self.tell(host, Event::Disconnected { peer: id });
            }
            for request in open.unwrap_or_default() {
                if self.rng.chance(50) {
                    let result = Err(RequestFailure::Disconnected);
                    self.tell(host, Event::Response { peer: id, id: request, result });
                }
            }
            if before {
                self.tell(host, Event::Disconnected { peer: id });
            }
        }
    }

    pub(super) fn disconnect_all(&mut self, host: usize) {
        for other in self.links.neighbours(host) {
            self.disconnect(host, other);
        }
    }

    pub(super) fn ban(&mut self, host: usize, peer: &PeerId, duration: Duration) {
        let Some(of) = self.hosts.iter().position(|host| host.peer == *peer) else { return };
        self.hosts[host].bans.insert(of, self.now + duration);
        self.disconnect(host, of);
    }

    /// A message for all neighbours, unless the gossip layer has carried it.
    pub(super) fn send_to_all(&mut self, from: usize, topic: Topic, bytes: &Bytes) {
        let (now, key) = (self.now, content(topic, bytes));
        let Some(life) = &mut self.hosts[from].life else { return };
        if is_known(life.carried.get(&key).copied(), now) {
            return;
        }
        life.carried.insert(key, now);
        for to in self.links.neighbours(from) {
            self.send(from, to, topic, bytes);
        }
    }

    /// A message for the neighbours that it did not come from.
    pub(super) fn send_on(&mut self, from: usize, source: usize, topic: Topic, bytes: &Bytes) {
        for to in self.links.neighbours(from) {
            if to != source {
                self.send(from, to, topic, bytes);
            }
        }
    }

    /// A message for one neighbour.
    pub(super) fn send(&mut self, from: usize, to: usize, topic: Topic, bytes: &Bytes) {
        if !self.links.is_up(from, to) || self.links.is_cut(from, to) || bytes.len() > topic.max_bytes() {
            return;
        }
        self.watch.note(self.now, from, bytes);
        if self.lines.is_long(bytes.len()) && self.has_said_to_have(to, topic, bytes) {
            return;
        }
        let copies = 1 + u64::from(self.rng.chance(self.plan.faults.duplicate_percent));
        for _ in 0..copies {
            if !self.rng.chance(self.plan.faults.loss_percent) {
                let delay = self.delay();
                if let Some(takes) = self.lines.gossip(self.now, from, to, bytes.len()) {
                    self.after(delay + takes, What::Gossip { from, to, topic, bytes: bytes.clone() });
                }
            }
        }
    }

    /// Whether a host has a message, and has told its neighbours that it wants it no more, as gossipsub does with long ones.
    fn has_said_to_have(&self, host: usize, topic: Topic, bytes: &Bytes) -> bool {
        let carried = self.hosts[host].life.as_ref().and_then(|life| life.carried.get(&content(topic, bytes)));
        carried.is_some_and(|at| *at + self.plan.delay < self.now)
    }

    fn delay(&mut self) -> Duration {
        let delay = self.plan.faults.delay;
        self.rng.between(Duration::from_millis(3).min(delay / 2), delay)
    }

    pub(super) fn gossip_arrives(&mut self, from: usize, to: usize, topic: Topic, bytes: Bytes) {
        let (now, peer, key) = (self.now, self.hosts[from].peer, content(topic, &bytes));
        if !self.links.is_up(from, to) {
            return;
        }
        let own = self.hosts[to].address;
        if let Some(liar) = &mut self.hosts[to].byzantine {
            liar.hear(topic, &bytes);
            if topic == Topic::Consensus && liar.announces() {
                self.announce_unseen(to, &bytes);
            }
            // Its node is not to know what the liar says in its name.
            if topic == Topic::Consensus && own.is_some() && signer(&bytes) == own {
                return;
            }
        }
        let Some(life) = &mut self.hosts[to].life else { return };
        if is_known(life.carried.get(&key).copied(), now) {
            return;
        }
        life.carried.insert(key, now);
        if topic == Topic::Consensus && self.plan.is_honest(to) && own.is_some() {
            self.watch.reached(&bytes);
        }
        self.stats.messages += 1;
        let id = GossipId(life.name());
        life.heard.insert(id, Heard { from, topic, bytes: bytes.clone(), at: now });
        let number = life.number;
        self.deliver(to, number, Event::Gossip { peer, id, topic, bytes });
    }

    pub(super) fn request(&mut self, from: usize, peer: &PeerId, id: OutboundId, request: Request) {
        let Some(to) = self.hosts.iter().position(|host| host.peer == *peer) else { return };
        if !self.links.is_up(from, to) {
            let result = Err(RequestFailure::Disconnected);
            return self.tell(from, Event::Response { peer: *peer, id, result });
        }
        let Some(life) = &mut self.hosts[from].life else { return };
        life.asked.insert(id, to);
        let number = life.number;
        let bytes = Bytes::from(request.encode());
        if !self.is_request_lost(from, to) {
            let delay = self.delay();
            self.after(delay, What::Request { from, life: number, to, id, bytes });
        }
        let result = Err(RequestFailure::Timeout);
        let within = if self.plan.lines.is_empty() { ANSWER_WITHIN } else { ANSWER_ON_THIN_LINE_WITHIN };
        self.after(within, What::Answer { from: to, to: from, life: number, id, result });
    }

    fn is_request_lost(&mut self, from: usize, to: usize) -> bool {
        self.links.is_cut(from, to) || self.rng.below(1_000) < self.plan.faults.request_loss_permille
    }

    pub(super) fn request_arrives(&mut self, from: usize, asker: u64, to: usize, id: OutboundId, bytes: &[u8]) {
        if !self.links.is_up(from, to) {
            return;
        }
        let peer = self.hosts[from].peer;
        let Some(life) = &mut self.hosts[to].life else { return };
        let Ok(request) = Request::decode(bytes) else { return };
        let name = InboundId(life.name());
        life.inbound.insert(name, Asker { host: from, life: asker, id });
        let number = life.number;
        self.deliver(to, number, Event::Request { peer, id: name, request });
    }

    /// An answer on its way back.
    pub(super) fn respond(&mut self, index: usize, id: InboundId, response: Response) {
        let Some(asker) = self.hosts[index].life.as_mut().and_then(|life| life.inbound.remove(&id)) else {
            return self.fail(Check::OneRelay, format!("host {index} answers request {} twice", id.0));
        };
        if let Response::Body(Some(block)) = &response {
            self.watch.body(block);
        }
        if matches!(&response, Response::Body(Some(block)) if self.lines.refuses(self.now, index, block.len())) {
            let delay = self.delay();
            let result = Err(RequestFailure::Refused);
            return self
                .after(delay, What::Answer { from: index, to: asker.host, life: asker.life, id: asker.id, result });
        }
        let bytes = match self.lie(index, response) {
            Some(bytes) if !self.is_request_lost(index, asker.host) => bytes,
            _ => return,
        };
        let delay = self.delay() + self.lines.carry(self.now, index, asker.host, bytes.len());
        let what = What::Answer { from: index, to: asker.host, life: asker.life, id: asker.id, result: Ok(bytes) };
        self.after(delay, what);
    }

    pub(super) fn answer_arrives(
        &mut self,
        from: usize,
        to: usize,
        number: u64,
        id: OutboundId,
        result: Result<Bytes, RequestFailure>,
    ) {
        let peer = self.hosts[from].peer;
        if !self.is_alive(to, number) {
            return;
        }
        let Some(life) = &mut self.hosts[to].life else { return };
        if life.asked.get(&id) != Some(&from) {
            return;
        }
        life.asked.remove(&id);
        let result = result.and_then(|bytes| Response::decode(bytes).map_err(|_| RequestFailure::Malformed));
        self.deliver(to, number, Event::Response { peer, id, result });
    }

    /// Bounds of what a host holds, and messages that nobody decided on.
    pub(super) fn look_at_queues(&mut self) {
        let now = self.now;
        if let Some(lowest) = self.honest().map(|host| self.hosts[host].height()).min() {
            self.watch.passed(lowest);
        }
        for index in 0..self.hosts.len() {
            let height = self.hosts[index].height();
            let peers = self.links.neighbours(index).len();
            let members = self.plan.powers.len();
            let Some(life) = &mut self.hosts[index].life else { continue };
            life.carried.retain(|_, at| *at + CARRIED_FOR > now);
            if self.hosts[index].byzantine.is_some() {
                continue;
            }
            self.watch.queues(now, index, height, self.hosts[index].life.as_ref(), peers, members);
            if let Some(life) = self.hosts[index].life.as_ref().filter(|life| !life.busy) {
                self.watch.jobs(now, index, life);
            }
        }
    }
}

fn is_known(carried: Option<Duration>, now: Duration) -> bool {
    carried.is_some_and(|at| at + CARRIED_FOR > now)
}

/// Who signed a message of the consensus topic.
fn signer(bytes: &[u8]) -> Option<Address> {
    let content = decode_consensus(bytes).ok()?;
    Message::decode(content).ok()?.signer()
}

/// The name of a content.
fn content(topic: Topic, bytes: &[u8]) -> u64 {
    // With fixed keys: the same in every run.
    let mut hasher = DefaultHasher::new();
    topic.hash(&mut hasher);
    bytes.hash(&mut hasher);
    hasher.finish()
}
