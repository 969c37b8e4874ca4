//! The search for peers: whom to dial, who tells of whom, names of the operator, and what the next run should know.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use causeway_chainspec::ChainId;
use futures::future::{BoxFuture, FutureExt, join_all};
use futures::stream::FuturesUnordered;
use libp2p::request_response::{self, Message};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId, identify};
use rand::seq::IndexedRandom;
use tokio::task::JoinHandle;

use super::super::address::{self, Reach, Scope};
use super::super::book::Dial;
use super::super::book_file;
use super::super::peer_list::{LIST_MAX, Listed};
use super::super::peers::Peer;
use super::super::resolve::{self, Name, look_up};
use super::Task;
use crate::bucket::Rate;
use crate::shell::reports::log_error;

/// Dials to other than persistent peers that may be under way at once.
const DIALS_MAX: usize = 4;

/// Outbound peers that the next run dials first: those that have lasted longest.
const ANCHORS: usize = 2;

/// The book is written this often, and at the end.
const SAVE_EVERY: Duration = Duration::from_secs(600);

/// Names under which this node is reached are looked up this often.
const EXTERNAL_EVERY: Duration = Duration::from_secs(600);

/// How often a peer may say who it is, at once and then in a second. One does so a few times at first, then every five
/// minutes; each is 4,096 bytes at most.
pub(in crate::shell::p2p) const IDENTITIES: Rate = Rate { per_second: 1, burst: 16 };

/// Protocols that a peer may speak; ours speaks some twenty.
const PROTOCOLS_MAX: usize = 64;

/// Addresses of a peer that are looked at.
const LISTEN_ADDRS_MAX: usize = 16;

/// The state of the search.
pub(super) struct Search {
    reach: Reach,
    next_discovery: Instant,
    next_feeler: Instant,
    /// A peer that is called only to see whether it is there.
    feeler: Option<PeerId>,
    /// Lookups of names, as many as the operator has set at most.
    pub(super) lookups: FuturesUnordered<BoxFuture<'static, Found>>,
    external: Vec<External>,
    next_external: Instant,
    file: Option<(PathBuf, ChainId)>,
    next_save: Instant,
    saving: Option<JoinHandle<()>>,
    /// This node names no peers to anybody.
    is_hidden: bool,
}

/// A name under which this node is reached, and what it has told others that it stands for.
struct External {
    name: Name,
    told: Vec<Multiaddr>,
}

/// What came of a lookup.
pub(super) enum Found {
    /// What to dial.
    Dial(Dial),
    /// Where this node is reached under the external name with this index.
    External(usize, Vec<Multiaddr>),
}

impl Search {
    /// A search that has not begun. `external` are names of this node, `file` is where the book is kept.
    pub(super) fn new(
        reach: Reach,
        external: impl Iterator<Item = Name>,
        file: Option<(PathBuf, ChainId)>,
        is_hidden: bool,
        now: Instant,
    ) -> Self {
        Self {
            reach,
            next_discovery: now,
            next_feeler: now,
            feeler: None,
            lookups: FuturesUnordered::new(),
            external: external.map(|name| External { name, told: Vec::new() }).collect(),
            next_external: now,
            file,
            next_save: now + SAVE_EVERY,
            saving: None,
            is_hidden,
        }
    }
}

impl Task {
    /// A peer says who it is.
    pub(super) fn on_identified(&mut self, peer: PeerId, info: &identify::Info, now: Instant) {
        if info.protocol_version != self.names.identity {
            return self.refuse_foreign(peer, info, now);
        }
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        let is_rare = entry.identities.take(now.saturating_duration_since(entry.began), 1);
        if !is_rare || info.protocols.len() > PROTOCOLS_MAX {
            return self.refuse_talker(peer, now);
        }
        let told = &info.listen_addrs[..info.listen_addrs.len().min(LISTEN_ADDRS_MAX)];
        let dialled = entry.dialled().cloned();
        if let Some(source) = self.source(&peer) {
            self.book.hear_itself(peer, told, source, now);
        }
        if let Some(dialled) = dialled {
            self.book.proven(peer, &dialled, now);
        }
        if self.search.feeler == Some(peer) {
            self.search.feeler = None;
            if self.outbound() > self.limits.outbound_wanted {
                return self.disconnect(peer);
            }
        }
        if let Some(entry) = self.peers.get_mut(&peer) {
            entry.identified(&info.agent_version);
        }
        self.check_ready(peer, now);
    }

    /// Peers that this node has called, persistent ones not counted.
    fn outbound(&self) -> usize {
        self.peers.iter().filter(|(id, peer)| peer.is_outbound() && !self.book.is_persistent(id)).count()
    }

    /// Nothing honest says so often who it is, or speaks so much. What a persistent peer says is only not heard.
    fn refuse_talker(&mut self, peer: PeerId, now: Instant) {
        if self.book.is_persistent(&peer) {
            return tracing::debug!(%peer, "a persistent peer says too often who it is");
        }
        tracing::debug!(%peer, "a peer says too often who it is, or speaks too many protocols: it is disconnected");
        self.swarm.behaviour_mut().gate.ban_peer(peer, now + self.timing.foreign);
        self.disconnect(peer);
    }

    /// The address that what a peer says comes from.
    fn source(&self, peer: &PeerId) -> Option<IpAddr> {
        self.peers.get(peer)?.connections.first().and_then(|connection| address::ip(&connection.address))
    }

    /// A peer asks for peers, or tells of some.
    pub(super) fn on_list(&mut self, event: request_response::Event<(), Vec<Listed>>, now: Instant) {
        let request_response::Event::Message { peer, message, .. } = event else { return };
        match message {
            // A request that is dropped is refused.
            Message::Request { channel, .. } => {
                let Some(entry) = self.peers.get_mut(&peer).filter(|entry| entry.ready.is_some()) else { return };
                if self.search.is_hidden || !entry.lists.take(now.saturating_duration_since(entry.began), 1) {
                    return;
                }
                let scope = self.source(&peer).and_then(address::scope).unwrap_or(Scope::Public);
                let gate = &self.swarm.behaviour().gate;
                let told = self.book.tell(LIST_MAX, scope, |told| *told != peer && !gate.is_banned(told, now));
                let sockets = |addresses: Vec<Multiaddr>| addresses.iter().filter_map(address::socket).collect();
                let list = told.into_iter().map(|(peer, addresses)| (peer, sockets(addresses))).collect();
                // The peer may have gone.
                let _ = self.swarm.behaviour_mut().lists.send_response(channel, list);
            }
            Message::Response { response, .. } => {
                let Some(source) = self.source(&peer) else { return };
                for (told, addresses) in response {
                    let addresses: Vec<_> = addresses.into_iter().map(|(ip, port)| address::of(ip, port)).collect();
                    self.book.hear(told, &addresses, source, now);
                }
            }
        }
    }

    /// Asks a new peer that this node has called whom it knows.
    pub(super) fn greet(&mut self, peer: PeerId) {
        let has_called = self.peers.get(&peer).is_some_and(Peer::is_outbound);
        if has_called && self.limits.outbound_wanted > 0 {
            self.swarm.behaviour_mut().lists.send_request(&peer, ());
        }
    }

    /// Asks one peer for others: one that this node has chosen, if there is any.
    fn ask_for_peers(&mut self) {
        let ready = || self.peers.iter().filter(|(_, peer)| peer.ready.is_some());
        let mut asked: Vec<_> = ready().filter(|(_, peer)| peer.is_outbound()).map(|(id, _)| *id).collect();
        if asked.is_empty() {
            asked = ready().map(|(id, _)| *id).collect();
        }
        if let Some(peer) = asked.choose(&mut rand::rng()) {
            self.swarm.behaviour_mut().lists.send_request(peer, ());
        }
    }

    /// Dials whom this node lacks, looks for more, and keeps what it knows.
    pub(super) fn search_on(&mut self, now: Instant) {
        self.dial_more(now);
        if now >= self.search.next_external {
            self.search.next_external = now + EXTERNAL_EVERY;
            for (index, External { name, .. }) in self.search.external.iter().enumerate() {
                let name = name.clone();
                let found = async move {
                    let found = look_up(&name).await.into_iter().map(|(ip, port)| address::of(ip, port));
                    Found::External(index, found.collect())
                };
                self.search.lookups.push(found.boxed());
            }
        }
        if now >= self.search.next_save {
            self.search.next_save = now + SAVE_EVERY;
            if let Some(save) = self.save_book() {
                self.search.saving = Some(tokio::task::spawn_blocking(save));
            }
        }
    }

    fn dial_more(&mut self, now: Instant) {
        for dial in self.book.due_persistent(now, |peer| self.peers.contains_key(peer)) {
            self.dial(dial, now);
        }
        let missing = self.limits.outbound_wanted.saturating_sub(self.outbound() + self.book.open_dials());
        if missing == 0 {
            return self.feel(now);
        }
        let count = missing.min(DIALS_MAX.saturating_sub(self.book.open_dials()));
        let gate = &self.swarm.behaviour().gate;
        let connected = |peer: &PeerId| self.peers.contains_key(peer) || gate.is_banned(peer, now);
        let fits = |address: &Multiaddr| address::ip(address).is_none_or(|ip| gate.has_room(ip));
        let mut dials = self.book.due(now, count, connected, fits);
        if dials.len() < count {
            dials.extend(self.book.due_seeds(now, connected));
        }
        for dial in dials {
            self.dial(dial, now);
        }
        if now >= self.search.next_discovery && self.peers.values().any(|peer| peer.ready.is_some()) {
            self.ask_for_peers();
            self.search.next_discovery = now + self.timing.discovery.mul_f64(rand::random_range(0.75..1.25));
        }
    }

    /// Calls a peer that was only heard of, so that rumours become experience or are forgotten, as Bitcoin Core's feelers
    /// do. Peers that this node has reached before are its way out of lies.
    fn feel(&mut self, now: Instant) {
        if now < self.search.next_feeler || self.limits.outbound_wanted == 0 || self.book.open_dials() > 0 {
            return;
        }
        self.search.next_feeler = now + self.timing.feeler.mul_f64(rand::random_range(0.75..1.25));
        let gate = &self.swarm.behaviour().gate;
        let connected = |peer: &PeerId| self.peers.contains_key(peer) || gate.is_banned(peer, now);
        let fits = |address: &Multiaddr| address::ip(address).is_none_or(|ip| gate.has_room(ip));
        let Some((peer, dial)) = self.book.due_new(now, connected, fits).and_then(|dial| Some((dial.peer?, dial)))
        else {
            return;
        };
        self.search.feeler = Some(peer);
        self.swarm.behaviour_mut().slots.feel(peer);
        self.dial(dial, now);
    }

    /// Dials, once names are looked up.
    fn dial(&mut self, dial: Dial, now: Instant) {
        if dial.addresses.iter().all(|address| resolve::name(address).is_none()) {
            return self.dial_addresses(dial, now);
        }
        self.book.begins(dial.target);
        let reach = self.search.reach.clone();
        self.search.lookups.push(resolved(dial, reach).map(Found::Dial).boxed());
    }

    /// A lookup has ended.
    pub(super) fn on_found(&mut self, found: Found, now: Instant) {
        match found {
            Found::Dial(dial) if dial.addresses.is_empty() => self.book.missed(dial.target, now),
            Found::Dial(dial) => self.dial_addresses(dial, now),
            // What it stood for counts until there is another answer.
            Found::External(_, addresses) if addresses.is_empty() => {}
            Found::External(index, addresses) => {
                let Some(external) = self.search.external.get_mut(index) else { return };
                let before = std::mem::replace(&mut external.told, addresses.clone());
                for gone in before.iter().filter(|address| !addresses.contains(address)) {
                    self.swarm.remove_external_address(gone);
                }
                for address in addresses {
                    self.swarm.add_external_address(address);
                }
            }
        }
    }

    fn dial_addresses(&mut self, dial: Dial, now: Instant) {
        let options = match (dial.peer, dial.addresses.choose(&mut rand::rng())) {
            (Some(peer), Some(_)) => DialOpts::peer_id(peer)
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .addresses(dial.addresses)
                .allocate_new_port()
                .build(),
            // Behind the name of a seed there may be many nodes: each time another.
            (None, Some(address)) => DialOpts::unknown_peer_id().address(address.clone()).allocate_new_port().build(),
            (_, None) => return,
        };
        let connection = options.connection_id();
        self.book.dialling(dial.target, connection);
        if let Err(error) = self.swarm.dial(options) {
            tracing::debug!(peer = ?dial.peer, %error, "cannot dial");
            self.book.failed(connection, now);
        }
    }

    /// Returns what writes the book, if there is a file for it.
    fn save_book(&self) -> Option<impl FnOnce() + Send + 'static> {
        let (path, chain) = self.search.file.clone()?;
        let outbound = self.peers.iter().filter(|(id, peer)| peer.is_outbound() && !self.book.is_persistent(id));
        let mut anchors: Vec<_> = outbound.filter_map(|(id, peer)| peer.ready.map(|ready| (ready, *id))).collect();
        anchors.sort_unstable();
        let anchors: Vec<_> = anchors.into_iter().take(ANCHORS).map(|(_, peer)| peer).collect();
        let bytes = book_file::encode(chain, &self.book.saved(&anchors));
        Some(move || {
            if let Err(error) = book_file::save(&path, &bytes) {
                log_error("the address book is not kept", &error);
            }
        })
    }

    /// Writes the book for the last time.
    pub(super) async fn end_search(&mut self) {
        if let Some(saving) = self.search.saving.take() {
            // If it failed, the next line writes the same.
            let _ = saving.await;
        }
        if let Some(save) = self.save_book() {
            let _ = tokio::task::spawn_blocking(save).await;
        }
    }
}

/// The same dial with addresses in the place of names. A name that is not answered now stands for what it stood for last.
async fn resolved(dial: Dial, reach: Reach) -> Dial {
    let resolve = async |address: Multiaddr| {
        let Some(name) = resolve::name(&address) else { return vec![address] };
        let found = look_up(&name).await;
        if !found.is_empty() {
            reach.name(address.clone(), found);
        }
        reach.behind(&address).into_iter().map(|(ip, port)| address::of(ip, port)).collect()
    };
    let addresses = join_all(dial.addresses.into_iter().map(resolve)).await.concat();
    Dial { addresses, ..dial }
}
