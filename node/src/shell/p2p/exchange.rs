//! Requests and answers.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::request_response::{self, InboundRequestId, Message, OutboundFailure, OutboundRequestId, ResponseChannel};

use super::P2pEvent;
use super::limits::Limits;
use super::swarm::Task;
use crate::bucket::{Bucket, Rate};
use crate::machine::{InboundId, OutboundId, RequestFailure};
use crate::wire::{PUSHED_BYTES_MAX, Request, Response};

/// A request of this node.
#[derive(Debug)]
struct Asked {
    peer: PeerId,
    id: OutboundId,
    request: Request,
}

/// A request of a peer, until the node answers.
#[derive(Debug)]
struct Asking {
    peer: PeerId,
    request: InboundRequestId,
    channel: ResponseChannel<Response>,
    since: Instant,
}

/// An answer on its way.
#[derive(Debug)]
struct Answering {
    peer: PeerId,
    bytes: usize,
    /// Since when it is on its way, if it is a long block of the current height, and whether the operator has named the peer.
    body: Option<(Instant, bool)>,
}

/// How long a long block that is being sent keeps others from theirs: a reader that takes longer leaves the line to them.
const BODY_HOLDS: Duration = Duration::from_secs(2);

/// Peers whose budgets are kept.
const BUDGETS_MAX: usize = 1_024;

/// What a peer may ask. It outlives its connections.
#[derive(Debug)]
struct Budget {
    requests: Bucket,
    /// KiB of blocks.
    upload: Bucket,
}

/// Requests and answers that are under way.
#[derive(Debug)]
pub(super) struct Exchange {
    began: Instant,
    limits: Limits,
    budgets: HashMap<PeerId, Budget>,
    /// KiB of blocks for all.
    upload: Bucket,
    asked: HashMap<OutboundRequestId, Asked>,
    asking: HashMap<InboundId, Asking>,
    /// Answers that are on their way.
    answering: HashMap<InboundRequestId, Answering>,
    answering_bytes: usize,
    next: u64,
}

impl Exchange {
    /// Nothing is under way.
    pub(super) fn new(limits: Limits, now: Instant) -> Self {
        let upload = Rate { per_second: limits.upload_all_per_second, burst: limits.upload_all_burst };
        Self {
            began: now,
            limits,
            budgets: HashMap::new(),
            upload: Bucket::full(upload, Duration::ZERO),
            asked: HashMap::new(),
            asking: HashMap::new(),
            answering: HashMap::new(),
            answering_bytes: 0,
            next: 0,
        }
    }

    fn budget(&mut self, peer: PeerId, now: Duration) -> &mut Budget {
        if self.budgets.len() >= BUDGETS_MAX {
            self.budgets.retain(|_, budget| !budget.requests.is_full(now) || !budget.upload.is_full(now));
        }
        let limits = &self.limits;
        self.budgets.entry(peer).or_insert_with(|| {
            let requests = Rate { per_second: limits.requests_per_second, burst: limits.request_burst };
            let upload = Rate { per_second: limits.upload_per_second, burst: limits.upload_burst };
            Budget { requests: Bucket::full(requests, now), upload: Bucket::full(upload, now) }
        })
    }

    /// Whether a request of a peer is within what it may ask.
    fn may_ask(&mut self, peer: PeerId, request: &Request, now: Instant) -> bool {
        let now = now.saturating_duration_since(self.began);
        let uploads = match request {
            Request::Status { .. } => true,
            // What an answer costs is known when it is there, and may be debt. Whoever fetches the whole chain keeps nobody from
            // what is being decided.
            Request::Blocks { .. } => self.upload.is_open(now) && self.budget(peer, now).upload.is_open(now),
            Request::Body { .. } => self.budget(peer, now).upload.is_open(now),
        };
        uploads && self.budget(peer, now).requests.take(now, 1)
    }

    /// Whether another long block may be sent to such a peer.
    fn has_room_for_body(&self, is_named: bool, now: Instant) -> bool {
        let bodies = self.answering.values().filter_map(|answering| answering.body);
        let holds = |(since, named): &(Instant, bool)| *named == is_named && now.duration_since(*since) < BODY_HOLDS;
        bodies.filter(holds).count() < self.limits.bodies_at_once
    }

    /// Whether an answer of so many bytes may be on its way to such a peer.
    fn has_room_for_answer(&self, peer: PeerId, is_named: bool, bytes: usize) -> bool {
        let held = |answering: &&Answering| answering.peer == peer;
        let of_peer = self.answering.values().filter(held).map(|answering| answering.bytes).sum();
        has_room(self.limits.response_bytes, self.answering_bytes, of_peer, is_named, bytes)
    }

    /// A peer gets so many bytes.
    fn upload(&mut self, peer: PeerId, bytes: usize) {
        let now = self.began.elapsed();
        let kib = u32::try_from(bytes / 1_024).unwrap_or(u32::MAX);
        self.upload.spend(now, kib);
        self.budget(peer, now).upload.spend(now, kib);
    }
}

impl Task {
    /// Asks a peer.
    pub(super) fn ask(&mut self, peer: PeerId, id: OutboundId, request: Request) {
        let max = self.limits.requests_per_peer;
        match self.peers.get_mut(&peer) {
            Some(entry) if entry.ready.is_some() && entry.asked < max => {
                entry.asked += 1;
                let name = self.swarm.behaviour_mut().requests.send_request(&peer, Some(request));
                self.exchange.asked.insert(name, Asked { peer, id, request });
            }
            _ => self.emit(P2pEvent::Response { peer, id, result: Err(RequestFailure::Disconnected) }),
        }
    }

    /// Answers a peer.
    pub(super) fn answer(&mut self, id: InboundId, response: Response) {
        let Some(Asking { peer, request, channel, .. }) = self.exchange.asking.remove(&id) else { return };
        let (bytes, is_named) = (size(&response), self.is_persistent(&peer));
        if !self.exchange.has_room_for_answer(peer, is_named, bytes) {
            tracing::debug!(%peer, bytes, "an answer was not sent: too many are on their way");
            return self.asking_ends(peer);
        }
        let is_long = matches!(&response, Response::Body(Some(block)) if block.len() > PUSHED_BYTES_MAX);
        let now = Instant::now();
        if is_long && !self.exchange.has_room_for_body(is_named, now) {
            tracing::debug!(%peer, "as many blocks are being sent as may be: a request was refused");
            return self.asking_ends(peer);
        }
        self.exchange.upload(peer, bytes);
        let body = is_long.then_some((now, is_named));
        self.exchange.answering.insert(request, Answering { peer, bytes, body });
        self.exchange.answering_bytes += bytes;
        if self.swarm.behaviour_mut().requests.send_response(channel, response).is_err() {
            self.answered(request);
        }
    }

    /// A request or an answer has come or gone.
    pub(super) fn on_exchange(&mut self, event: request_response::Event<Option<Request>, Response>, now: Instant) {
        match event {
            request_response::Event::Message { peer, message, .. } => match message {
                Message::Request { request_id, request, channel } => {
                    let Some(request) = request else {
                        tracing::warn!(%peer, "a peer's request is malformed: it is disconnected");
                        return self.disconnect(peer);
                    };
                    self.on_request(peer, request_id, request, channel, now);
                }
                Message::Response { request_id, response } => self.on_response(request_id, Ok(response)),
            },
            request_response::Event::OutboundFailure { request_id, error, .. } => {
                self.on_response(request_id, Err(failure(&error)));
            }
            request_response::Event::InboundFailure { request_id, .. } => self.answered(request_id),
            request_response::Event::ResponseSent { request_id, .. } => self.answered(request_id),
        }
    }

    /// A request that is dropped here is refused: its stream ends without an answer.
    fn on_request(
        &mut self,
        peer: PeerId,
        request_id: InboundRequestId,
        request: Request,
        channel: ResponseChannel<Response>,
        now: Instant,
    ) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        let limits = &self.limits;
        if !self.exchange.may_ask(peer, &request, now) {
            return tracing::debug!(%peer, "a peer asks for too much: a request was refused");
        }
        let open = self.exchange.asking.len() + self.exchange.answering.len();
        let full = entry.asking >= limits.inbound_requests_per_peer || open >= limits.inbound_requests;
        if full || (entry.ready.is_none() && entry.held.len() >= limits.held_per_peer) {
            return tracing::debug!(%peer, "too many requests are open: one was refused");
        }
        let id = InboundId(self.exchange.next);
        self.exchange.next += 1;
        entry.asking += 1;
        self.exchange.asking.insert(id, Asking { peer, request: request_id, channel, since: now });
        self.emit_or_hold(peer, P2pEvent::Request { peer, id, request });
    }

    /// Refuses a request that the node has not answered: its stream ends without an answer.
    pub(super) fn refuse(&mut self, id: InboundId) {
        if let Some(asking) = self.exchange.asking.remove(&id) {
            self.asking_ends(asking.peer);
        }
    }

    fn on_response(&mut self, request: OutboundRequestId, result: Result<Response, RequestFailure>) {
        let Some(Asked { peer, id, request }) = self.exchange.asked.remove(&request) else { return };
        if let Some(entry) = self.peers.get_mut(&peer) {
            entry.asked = entry.asked.saturating_sub(1);
        }
        let result = result
            .and_then(|response| if fits(&request, &response) { Ok(response) } else { Err(RequestFailure::Malformed) });
        self.emit(P2pEvent::Response { peer, id, result });
    }

    /// Ends all that is open with a peer that is gone.
    pub(super) fn end_exchanges(&mut self, peer: PeerId) {
        let open: Vec<_> =
            self.exchange.asked.iter().filter(|(_, asked)| asked.peer == peer).map(|(id, _)| *id).collect();
        for request in open {
            self.on_response(request, Err(RequestFailure::Disconnected));
        }
        self.exchange.asking.retain(|_, asking| asking.peer != peer);
    }

    /// Refuses the requests that the node has not answered in time.
    pub(super) fn expire_exchanges(&mut self, now: Instant) {
        let patience = self.timing.request;
        let late = |asking: &Asking| now.duration_since(asking.since) > patience;
        let expired: Vec<_> =
            self.exchange.asking.iter().filter(|(_, asking)| late(asking)).map(|(id, _)| *id).collect();
        expired.into_iter().for_each(|id| self.refuse(id));
    }

    fn answered(&mut self, request: InboundRequestId) {
        if let Some(Answering { peer, bytes, .. }) = self.exchange.answering.remove(&request) {
            self.exchange.answering_bytes -= bytes;
            self.asking_ends(peer);
        }
    }

    fn asking_ends(&mut self, peer: PeerId) {
        if let Some(entry) = self.peers.get_mut(&peer) {
            entry.asking = entry.asking.saturating_sub(1);
        }
    }
}

/// Whether so many more bytes fit into what answers may hold together, beside what they hold and what those of one peer do.
fn has_room(max: usize, held: usize, of_peer: usize, is_named: bool, bytes: usize) -> bool {
    let most = if is_named { max } else { max / 4 * 3 };
    // What says that there is nothing holds nothing: whoever fills the rest keeps nobody from asking for tips.
    bytes <= EMPTY || held.saturating_add(bytes) <= most && (of_peer == 0 || of_peer.saturating_add(bytes) <= max / 8)
}

/// Bytes that an answer without blocks holds, about.
const EMPTY: usize = 64;

/// What an answer holds in memory, about.
fn size(response: &Response) -> usize {
    match response {
        Response::Status { .. } | Response::Body(None) => EMPTY,
        Response::Blocks(blocks) => {
            EMPTY + blocks.iter().map(|block| block.certificate.len() + block.block.len()).sum::<usize>()
        }
        Response::Body(Some(block)) => EMPTY + block.len(),
    }
}

/// Whether this answers that.
fn fits(request: &Request, response: &Response) -> bool {
    match (request, response) {
        (Request::Status { .. }, Response::Status { .. }) | (Request::Body { .. }, Response::Body(_)) => true,
        (Request::Blocks { count, .. }, Response::Blocks(blocks)) => blocks.len() <= usize::from(*count),
        _ => false,
    }
}

fn failure(error: &OutboundFailure) -> RequestFailure {
    match error {
        OutboundFailure::Timeout => RequestFailure::Timeout,
        OutboundFailure::UnsupportedProtocols => RequestFailure::Refused,
        OutboundFailure::Io(error) => match error.kind() {
            io::ErrorKind::TimedOut => RequestFailure::Timeout,
            io::ErrorKind::InvalidData => RequestFailure::Malformed,
            io::ErrorKind::UnexpectedEof => RequestFailure::Refused,
            _ => RequestFailure::Disconnected,
        },
        OutboundFailure::DialFailure | OutboundFailure::ConnectionClosed => RequestFailure::Disconnected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_reads_slowly_leaves_room_for_others_and_all_of_them_for_those_that_are_named() {
        const MAX: usize = 256 << 20;
        const ANSWER: usize = 8 << 20;
        // Strangers that take nothing of what they ask for.
        let (mut held, mut strangers) = (0, 0);
        while has_room(MAX, held, 0, false, ANSWER) {
            let mut of_peer = 0;
            while has_room(MAX, held, of_peer, false, ANSWER) {
                of_peer += ANSWER;
                held += ANSWER;
            }
            assert_eq!(of_peer, MAX / 8);
            strangers += 1;
        }
        assert_eq!((strangers, held), (6, MAX / 4 * 3));
        assert!(has_room(MAX, held, 0, true, ANSWER));
        assert!(has_room(MAX, held, MAX / 8, false, EMPTY), "a tip is always told");
        // One answer is always let through, however little there is for each.
        assert!(has_room(ANSWER * 2, 0, 0, false, ANSWER) && !has_room(ANSWER * 2, ANSWER, ANSWER, true, ANSWER));
    }
}
