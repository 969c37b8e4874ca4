//! The node: everything that decides, and nothing that does.
//!
//! ```text
//! Node::new(setup)                  what the shell read from disk
//! Node::handle(now, Event)          -> Vec<Action>, to be done in their order
//! Node::next_deadline()             -> when to come back with Event::Tick
//! ```
//!
//! | room | what it decides |
//! |---|---|
//! | `agreement` | one height after the other: what the BFT engine says, what is committed, when the next one starts |
//! | `blocks`, `bodies` | what to propose; which bodies may be judged; the three verdicts |
//! | `fetch`, `pace` | of whom a proposed block is fetched; how long those of this node may be |
//! | `gossip` | which consensus messages reach the engine, and which are sent on |
//! | `intake` | the way of a transaction into the mempool |
//! | `sync` | fetching final blocks from several peers |
//! | `holes` | fetching final blocks that the disk has lost |
//! | `peers`, `allowance` | tips and scores of peers, and what each may cost |
//! | `tips` | whether the tip of a validator that starts is old: before it is known, nothing is signed |
//!
//! What never enters here: a clock, a socket, a task, a disk, randomness. The shell performs the actions, and the
//! simulator does so in virtual time, with loss, crashes and liars: both run this very code. Work that takes long is an
//! action ([`jobs`]) answered by an event.
//!
//! Bounds: every queue and cache of a room names its own; [`Node::load`] adds them up.

mod action;
mod agreement;
mod allowance;
pub mod blocks;
mod bodies;
pub mod claims;
mod event;
mod fetch;
mod gossip;
mod holes;
mod intake;
pub mod jobs;
mod pace;
mod peers;
pub mod peg;
mod report;
mod sync;
mod timers;
mod tips;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::{BlockHash, ScriptBuf};
use bytes::Bytes;
use causeway_chainspec::{ChainId, Height, Params};
use causeway_consensus::bft::CommitCertificate;
use causeway_consensus::bft::{Engine, EngineFault, Input, LinearTimeouts, LogEntry, Signer, ValidatorSet};
use causeway_consensus::{InvalidBlock, ScriptCache, Tip};
use libp2p::PeerId;

use crate::mempool::snapshot::SnapshotEntry;
use crate::mempool::{Mempool, PegStatus, Policy, TipFacts};
use crate::wire::{ANSWER_BLOCKS_MAX, PUSHED_BYTES_MAX, Request, Response, Topic};

pub use action::{Action, RelayVerdict};
pub use event::{Event, Filled, GossipId, InboundId, Now, OutboundId, RequestFailure, SubmitId, Ticket, Verdict};
pub use report::{Counts, Offence, PeerStatus, Report, Status, TransactionCounts};

use agreement::Committing;
use allowance::{Admission, transaction_cost};
use blocks::Proposing;
use bodies::Bodies;
use claims::Claims;
use fetch::Line;
use gossip::Heard;
use holes::Holes;
use intake::Intake;
use jobs::{ReadJob, ReadMessage};
use pace::Pace;
use peers::{BAN, Peers, Penalty};
use peg::Outside;
use sync::Sync;
use timers::{Alarm, Timers};
use tips::Tips;

/// How often every peer is asked for its tip.
const ASK_STATUS: Duration = Duration::from_secs(2);

/// How often this node's own transactions are sent again.
const REBROADCAST: Duration = Duration::from_secs(30);

/// What a node is made of.
pub struct Setup {
    /// The chain.
    pub chain: ChainId,
    /// Its rules' parameters.
    pub params: Params,
    /// How long the engine waits.
    pub timeouts: LinearTimeouts,
    /// What the mempool takes.
    pub policy: Policy,
    /// Who gets the fees of this node's blocks.
    pub fee_script: ScriptBuf,
    /// The validators of the height after a state.
    pub validators: Box<dyn Fn(&Tip) -> ValidatorSet + Send>,
    /// The tip on disk.
    pub tip: Arc<Tip>,
    /// Who signs for this validator; `None` for a full node.
    pub signer: Option<Box<dyn Signer>>,
    /// What an earlier run wrote of the height above the tip.
    pub restart: Restart,
    /// Transactions that are known to be valid.
    pub scripts: Arc<ScriptCache>,
    /// The mempool of an earlier run, parents first.
    pub snapshot: Vec<SnapshotEntry>,
    /// Random, and new in every run: what others cannot foresee about it.
    pub seed: [u8; 32],
    /// Peers that the operator has named: they are never banned, nor disconnected for what they cost.
    pub trusted: BTreeSet<PeerId>,
    /// Bytes of a block up to which it is sent to all peers unasked: [`PUSHED_BYTES_MAX`] at
    /// most.
    pub pushed_max: usize,
}

/// What an earlier run wrote of the height above the tip.
#[derive(Debug, Default)]
pub struct Restart {
    /// The engine's log.
    pub log: Vec<LogEntry>,
    /// The blocks of [`Action::KeepBody`].
    pub bodies: Vec<Bytes>,
}

/// The node cannot go on. What is on disk is as good as before.
#[derive(Debug, thiserror::Error)]
pub enum NodeFault {
    /// The engine failed.
    #[error("consensus stopped")]
    Engine(#[from] EngineFault),
    /// More than two thirds of the validators made a block final that breaks a rule of this build.
    #[error(
        "the validators made block {hash} at height {height} final, which breaks a rule of this build: stop, and look for \
         a newer build"
    )]
    FinalBlockInvalid {
        /// Its height.
        height: Height,
        /// Its id.
        hash: BlockHash,
        /// The rule.
        #[source]
        rule: Box<InvalidBlock>,
    },
}

/// A node.
pub struct Node {
    chain: ChainId,
    interval: Duration,
    fee_script: ScriptBuf,
    validators: Box<dyn Fn(&Tip) -> ValidatorSet + Send>,
    tip: Arc<Tip>,
    /// The validators of the height above the tip.
    set: ValidatorSet,
    engine: Engine,
    /// Whether the engine's height is still open: not after it became final by sync.
    following: bool,
    /// What the engine has not been told yet.
    inputs: VecDeque<Input>,
    restart: Option<Restart>,
    height_started: Duration,
    /// When the next height starts, unless sync brings it.
    start_at: Duration,
    decided_in: Option<Duration>,
    /// What makes a block final that is not here.
    final_block: Option<CommitCertificate>,
    committing: Option<Committing>,
    proposing: Option<Proposing>,
    bodies: Bodies,
    line: Line,
    pace: Pace,
    /// See [`Setup::pushed_max`].
    pushed_max: usize,
    heard: Heard,
    mempool: Mempool,
    claims: Claims,
    outside: Outside,
    intake: Intake,
    /// Gossip messages that are being read.
    reading: BTreeMap<Ticket, Reading>,
    sync: Sync,
    holes: Holes,
    peers: Peers,
    tips: Tips,
    asked: BTreeMap<OutboundId, (PeerId, Asked)>,
    timers: Timers,
    /// But for those of transactions, which the intake counts.
    counts: Counts,
    names: u64,
    actions: Vec<Action>,
}

/// What a peer was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Status,
    Blocks { from: Height },
    Hole { height: Height },
    Body { hash: BlockHash },
}

/// A gossip message that is being read.
#[derive(Clone, Copy, Debug)]
struct Reading {
    peer: PeerId,
    id: GossipId,
    topic: Topic,
    bytes: usize,
}

impl Reading {
    /// What reading costs of the peer's allowance, whatever comes of it.
    fn cost(&self) -> u32 {
        match self.topic {
            Topic::Claims => 1,
            _ => transaction_cost(self.bytes),
        }
    }
}

/// What a node holds at one moment: see the bounds of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Bytes of proposed blocks.
    pub body_bytes: usize,
    /// Consensus messages of this height and the next that are remembered.
    pub messages: usize,
    /// Transactions between arrival and mempool.
    pub transactions: usize,
    /// Deposits that wait to be credited.
    pub claims: usize,
    /// Fetched blocks that wait for their turn.
    pub fetched_blocks: usize,
    /// Requests without an answer.
    pub requests: usize,
}

impl Node {
    /// A node on the tip that it had. Its first event may be any; nothing is done before.
    pub fn new(setup: Setup) -> Self {
        let Setup { chain, params, timeouts, policy, fee_script, validators, tip, .. } = setup;
        let Setup { signer, restart, scripts, snapshot, trusted, seed, pushed_max, .. } = setup;
        let interval = Duration::from_millis(params.block_interval_ms.into());
        let mut mempool = Mempool::new(policy, params, TipFacts::of(&tip), scripts);
        if tip.peg().frozen().is_some() {
            let departed = mempool.set_peg(PegStatus::Frozen);
            debug_assert!(departed.is_empty(), "the pool is new");
        }
        let mut timers = Timers::default();
        timers.set(Alarm::StartHeight, Duration::ZERO);
        timers.set(Alarm::Rebroadcast, REBROADCAST);
        timers.set(Alarm::AskStatus, ASK_STATUS);
        timers.set(Alarm::AskTips, ASK_STATUS);
        let tips = Tips::new(seed, signer.as_deref(), &restart.log);
        Self {
            chain,
            interval,
            fee_script,
            set: validators(&tip),
            validators,
            engine: Engine::new(chain, timeouts, signer),
            following: false,
            inputs: VecDeque::new(),
            restart: Some(restart),
            height_started: Duration::ZERO,
            start_at: Duration::ZERO,
            decided_in: None,
            final_block: None,
            committing: None,
            proposing: None,
            bodies: Bodies::default(),
            line: Line::default(),
            pace: Pace::new(timeouts.propose),
            pushed_max: pushed_max.min(PUSHED_BYTES_MAX),
            heard: Heard::default(),
            mempool,
            claims: Claims::default(),
            outside: Outside::default(),
            intake: Intake::new(snapshot),
            reading: BTreeMap::new(),
            sync: Sync::default(),
            holes: Holes::default(),
            peers: Peers::new(trusted),
            tips,
            asked: BTreeMap::new(),
            timers,
            counts: Counts::default(),
            names: 0,
            actions: Vec::new(),
            tip,
        }
    }

    /// Takes in what happened, and returns what to do, in its order.
    ///
    /// # Errors
    /// The node cannot go on: stop it, and do nothing of what it said with this event.
    pub fn handle(&mut self, now: Now, event: Event) -> Result<Vec<Action>, NodeFault> {
        self.peers.tick(now.uptime);
        self.event(now, event)?;
        self.drain(now)?;
        while let Some(alarm) = self.timers.due(now.uptime) {
            self.alarm(now, alarm)?;
            self.drain(now)?;
        }
        self.sync(now);
        self.run_checks(now);
        Ok(std::mem::take(&mut self.actions))
    }

    /// The uptime at which the node wants an [`Event::Tick`], if nothing else happens before.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.timers.next()
    }

    fn event(&mut self, now: Now, event: Event) -> Result<(), NodeFault> {
        match event {
            Event::Tick => {}
            Event::Connected { peer } => {
                self.peers.connect(peer, now.uptime);
                self.ask_status(peer);
                self.hasten_tips(now);
            }
            Event::Disconnected { peer } => self.disconnected(now, peer),
            Event::Gossip { peer, id, topic, .. } if !self.lets_in(now, peer, topic) => {
                self.relay(id, RelayVerdict::Ignore);
            }
            Event::Gossip { peer, id, topic, bytes } => match topic {
                Topic::Consensus => self.gossiped_consensus(now, peer, id, &bytes),
                Topic::Bodies => self.gossiped_body(now, peer, id, bytes),
                Topic::Transactions | Topic::Claims => self.read(now, peer, id, topic, bytes),
            },
            Event::Request { peer, id, request } => self.requested(peer, id, request),
            Event::Response { peer, id, result } => self.answered(now, peer, id, result),
            Event::Verified { ticket, result } => self.verified(now, ticket, result),
            Event::Read { ticket, message } => self.has_read(now, ticket, message),
            Event::Matched { ticket } => self.matched(now, ticket),
            Event::Validated { ticket, verdict } => self.validated(now, ticket, verdict)?,
            Event::Assembled { ticket, verdict } => self.assembled(now, ticket, verdict),
            Event::Checked { ticket, results } => self.checked(now, ticket, results),
            Event::Holes { heights } => self.found_holes(heights),
            Event::Filled { ticket, filled } => self.filled(now, ticket, filled),
            Event::Committed { height } => self.committed(now, height),
            Event::Bitcoin { offer } => self.outside.offer = offer,
            Event::BitcoinJudged { ticket, answer } => self.bitcoin_judged(now, ticket, answer),
            Event::Claim { id, peg_in } => self.claimed(now, id, *peg_in),
            Event::PackageChecked { ticket, answer } => self.package_checked(now, ticket, answer),
            Event::Submit { id, transaction } => self.submitted(now, id, transaction),
            Event::SubmitPackage { id, package, max_feerate } => {
                self.submitted_package(now, id, &package, max_feerate);
            }
        }
        Ok(())
    }

    fn alarm(&mut self, now: Now, alarm: Alarm) -> Result<(), NodeFault> {
        match alarm {
            Alarm::Engine(timer) => self.engine_timer(timer),
            Alarm::StartHeight => self.start_height(now)?,
            Alarm::Propose => self.assemble(now),
            // Both are looked after with every event.
            Alarm::Judge | Alarm::Sync => {}
            Alarm::FetchBody(hash) => self.fetch_body(now, hash),
            Alarm::AskStatus => {
                for peer in self.peers.iter().copied().collect::<Vec<_>>() {
                    self.ask_status(peer);
                }
                self.timers.set(Alarm::AskStatus, now.uptime + ASK_STATUS);
            }
            Alarm::AskTips => self.ask_tips(now),
            Alarm::AnswerTips => self.answer_tips(now),
            Alarm::Transactions => self.flush_transactions(now),
            Alarm::Rebroadcast => {
                self.rebroadcast(now);
                self.rebroadcast_claims(now);
                self.timers.set(Alarm::Rebroadcast, now.uptime + REBROADCAST);
            }
        }
        Ok(())
    }

    fn ask_status(&mut self, peer: PeerId) {
        if !self.asked_of(|asked| *asked == Asked::Status).contains(&peer) {
            self.request(peer, Asked::Status, Request::Status { height: self.tip.height() });
        }
    }

    fn disconnected(&mut self, now: Now, peer: PeerId) {
        let open = self.asked.iter().filter(|(_, (of, _))| *of == peer).map(|(id, _)| *id).collect::<Vec<_>>();
        for id in open {
            self.answered(now, peer, id, Err(RequestFailure::Disconnected));
        }
        self.peers.disconnect(&peer);
        self.bodies.announced.forget(&peer);
        self.sync_forget(&peer);
    }

    /// Asks a peer.
    fn request(&mut self, peer: PeerId, asked: Asked, request: Request) -> OutboundId {
        let id = OutboundId(self.name());
        self.asked.insert(id, (peer, asked));
        self.actions.push(Action::Request { peer, id, request });
        id
    }

    /// The peers that were asked such things, and have not answered.
    fn asked_of(&self, which: impl Fn(&Asked) -> bool) -> BTreeSet<PeerId> {
        self.asked.values().filter(|(_, asked)| which(asked)).map(|(peer, _)| *peer).collect()
    }

    fn answered(&mut self, now: Now, peer: PeerId, id: OutboundId, result: Result<Response, RequestFailure>) {
        let Some((_, asked)) = self.asked.remove(&id).filter(|(of, _)| *of == peer) else { return };
        match (asked, result) {
            (Asked::Status, Ok(Response::Status { height, .. })) => self.peers.tell(&peer, height),
            (Asked::Status, Err(RequestFailure::Disconnected | RequestFailure::Refused)) => {}
            (Asked::Status, Err(RequestFailure::Timeout)) => self.punish(now, peer, Offence::Stalled),
            (Asked::Blocks { from }, Ok(Response::Blocks(blocks))) => self.fetched(now, peer, id, from, blocks),
            (Asked::Blocks { from }, Err(why)) => self.not_fetched(now, peer, id, from, why),
            (Asked::Blocks { from }, Ok(_)) => self.not_fetched(now, peer, id, from, RequestFailure::Malformed),
            (Asked::Hole { height }, result) => self.hole_answered(now, peer, height, result),
            (Asked::Body { hash }, Ok(Response::Body(bytes))) => self.fetched_body(now, (peer, id), hash, bytes),
            (Asked::Body { hash }, Err(why)) => self.body_failed(now, (peer, id), hash, why),
            (Asked::Body { hash }, Ok(_)) => self.body_failed(now, (peer, id), hash, RequestFailure::Malformed),
            (Asked::Status, _) => self.punish(now, peer, Offence::Malformed),
        }
    }

    /// The shell bounds how much a peer may ask.
    fn requested(&mut self, peer: PeerId, id: InboundId, request: Request) {
        let response = match request {
            Request::Status { height } => {
                self.peers.tell(&peer, height);
                Response::Status { height: self.tip.height(), hash: self.tip.hash() }
            }
            Request::Blocks { from, count } if from <= self.tip.height() => {
                let count = count.min(ANSWER_BLOCKS_MAX);
                return self.actions.push(Action::ServeBlocks { id, from, count });
            }
            Request::Blocks { .. } => Response::Blocks(Vec::new()),
            Request::Body { hash, .. } => Response::Body(self.body_for(peer, &hash)),
        };
        self.actions.push(Action::Respond { id, response });
    }

    /// Says what to do with a gossip message.
    fn relay(&mut self, id: GossipId, verdict: RelayVerdict) {
        self.actions.push(Action::Relay { id, verdict });
    }

    /// Whether a message of a peer is looked at. Whoever costs too much for too long is disconnected.
    fn lets_in(&mut self, now: Now, peer: PeerId, topic: Topic) -> bool {
        // What a peer sends of a block that is wanted is looked at in any case; see `gossiped_body`.
        match self.peers.knock(&peer, topic) {
            Admission::Yes => true,
            Admission::No => topic == Topic::Bodies,
            Admission::HangUp => {
                self.actions.push(Action::Report(Report::HungUp { peer, topic }));
                self.actions.push(Action::HangUp { peer });
                self.disconnected(now, peer);
                false
            }
        }
    }

    /// Has a gossip message read, unless as much of the same peer is under way.
    fn read(&mut self, now: Now, peer: PeerId, id: GossipId, topic: Topic, bytes: Bytes) {
        let reading = Reading { peer, id, topic, bytes: bytes.len() };
        if !self.peers.begin(&peer, topic, reading.cost()) {
            return self.of_no_use(peer, topic, id);
        }
        let job = match topic {
            Topic::Claims => ReadJob::Claim { bytes, tip: Arc::clone(&self.tip), time: self.time(now) },
            _ => ReadJob::Transactions { bytes, reader: Arc::clone(self.mempool.reader()) },
        };
        let ticket = self.ticket();
        self.reading.insert(ticket, reading);
        self.actions.push(Action::Read { ticket, job });
    }

    fn has_read(&mut self, now: Now, ticket: Ticket, message: ReadMessage) {
        let Some(reading) = self.reading.remove(&ticket) else { return };
        match message {
            ReadMessage::Malformed => {
                self.peers.end(&reading.peer, reading.topic, reading.cost(), reading.cost());
                self.relay(reading.id, RelayVerdict::Reject);
                self.punish(now, reading.peer, Offence::Malformed);
            }
            ReadMessage::Transactions(list) => self.gossiped_transactions(now, reading, list),
            ReadMessage::Claim(peg_in, standing) => self.gossiped_claim(now, reading, *peg_in, standing),
        }
    }

    /// Holds something against a peer.
    fn punish(&mut self, now: Now, peer: PeerId, offence: Offence) {
        match self.peers.punish(&peer, offence, now.uptime) {
            Some(Penalty::Left(score)) => {
                self.actions.push(Action::Report(Report::Misbehaved { peer, offence, score }));
            }
            Some(Penalty::Ban) => {
                self.actions.push(Action::Report(Report::Misbehaved { peer, offence, score: 0 }));
                self.actions.push(Action::Report(Report::Banned { peer, duration: BAN }));
                self.actions.push(Action::Ban { peer, duration: BAN });
                self.disconnected(now, peer);
            }
            None => {}
        }
    }

    fn name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }

    fn ticket(&mut self) -> Ticket {
        Ticket(self.name())
    }

    /// The node at this moment.
    pub fn status(&self) -> Status {
        Status {
            height: self.tip.height(),
            hash: self.tip.hash(),
            time: self.tip.time(),
            round: self.engine.round().unwrap_or(0),
            sync_target: self.sync_target(),
            validator: self.engine.address(),
            peers: self.peers.len(),
            awaits_tips: self.tips.is_waiting(),
            mempool_transactions: self.mempool.len(),
            mempool_vsize: self.mempool.vsize(),
        }
    }

    /// The connected peers.
    pub fn peers(&self) -> Vec<PeerStatus> {
        self.peers.status()
    }

    /// The tip.
    pub fn tip(&self) -> &Arc<Tip> {
        &self.tip
    }

    /// The mempool.
    pub fn mempool(&self) -> &Mempool {
        &self.mempool
    }

    /// The validators of the height that is being decided.
    pub fn validator_set(&self) -> &ValidatorSet {
        &self.set
    }

    /// What the node has counted since it started.
    pub fn counts(&self) -> Counts {
        Counts { transactions: self.intake.counts(), ..self.counts }
    }

    /// What the node holds at this moment.
    pub fn load(&self) -> Load {
        Load {
            body_bytes: self.bodies.memory(),
            messages: self.heard.len() + self.tips.len(),
            transactions: self.intake.len(),
            claims: self.claims.len(),
            fetched_blocks: self.sync.len(),
            requests: self.asked.len(),
        }
    }
}
