//! The blocks of the height: proposing our own, judging those of others, voting or waiting.
//!
//! Three verdicts (DESIGN section 6). A block that breaks a rule is *invalid*. One that does not is *voted* for, unless
//! our own view of the outside speaks against it: then it is *held*. Of a held block the engine hears nothing until our
//! view agrees, or until more than two thirds of the validators have prevoted it: then it is valid, as it always was.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::consensus::deserialize;
use bytes::Bytes;
use causeway_chainspec::Height;
use causeway_consensus::bft::{Address, CommitCertificate, Input, Validity};
use causeway_consensus::sigops::{self, WITNESS_SCALE_FACTOR};
use causeway_consensus::{ConnectedBlock, InvalidBlock};
use libp2p::PeerId;

use super::action::{Action, RelayVerdict};
use super::allowance::body_cost;
use super::bodies::{BodyState, Job, Source, Told, Waiting};
use super::event::{GossipId, Now, Ticket, Verdict};
use super::jobs::{AssembleJob, ValidateJob, block_hash, is_altered};
use super::report::{Offence, Report};
use super::timers::Alarm;
use super::{Node, NodeFault};
use crate::assemble::{BlockRoom, Selection, select};
use crate::wire::{BodyMessage, Topic, decode_body, encode_announcement, encode_body};

/// How far ahead of this machine's clock a block's time may be before its vote is held. Clocks of validators differ by
/// less; a proposer that always claims the most gains nothing, as the next block may have the same time.
pub const CLOCK_AHEAD_MAX: Duration = Duration::from_secs(10);

/// What this node was asked to propose.
#[derive(Debug)]
pub(super) struct Proposing {
    height: Height,
    round: u32,
    /// The job that assembles it.
    ticket: Option<Ticket>,
    content: Content,
}

/// What goes into a block of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// The best of the mempool.
    Mempool,
    /// Nothing but what the peg demands: with the mempool's choice the block would break a rule, which is a bug of ours.
    Nothing,
}

impl Node {
    /// The engine asks for a block.
    pub(super) fn propose(&mut self, now: Now, height: Height, round: u32) {
        self.stop_proposing();
        self.proposing = Some(Proposing { height, round, ticket: None, content: Content::Mempool });
        self.assemble(now);
    }

    /// A block of ours that is not ready yet comes too late.
    fn stop_proposing(&mut self) {
        if let Some(Proposing { ticket: Some(ticket), .. }) = self.proposing.take() {
            self.actions.push(Action::Cancel { ticket });
        }
    }

    /// A round begins: nobody votes for blocks of earlier ones any more, unless they are proposed again or most have voted
    /// already. What is being done about them keeps no thread from the blocks of this round.
    pub(super) fn stop_jobs_before(&mut self, round: u32) {
        if self.proposing.as_ref().is_some_and(|proposing| proposing.round < round) {
            self.stop_proposing();
        }
        if let (Some(ours), Some(before)) = (self.engine.address(), round.checked_sub(1)) {
            let failed = self.bodies.proposed(ours, before).filter(|(hash, _)| !self.may_be_decided(*hash));
            let failed: Vec<usize> = failed.map(|(_, bytes)| bytes).collect();
            failed.into_iter().for_each(|bytes| self.pace.failed(bytes));
        }
        let over: Vec<BlockHash> = self.bodies.judging().into_iter().filter(|hash| self.is_over(*hash)).collect();
        let jobs = self.bodies.set_aside(|hash| over.contains(hash));
        jobs.into_iter().for_each(|job| self.stop(job));
    }

    /// Whether a block's last round has ended, and nothing says that it may be decided.
    fn is_over(&self, hash: BlockHash) -> bool {
        let past = self.bodies.get(&hash).is_some_and(|body| body.rounds.last().copied() < self.engine.round());
        past && !self.may_be_decided(hash)
    }

    fn may_be_decided(&self, hash: BlockHash) -> bool {
        self.final_block.as_ref().map(CommitCertificate::block) == Some(hash) || self.engine.has_polka(hash)
    }

    /// The height is decided.
    pub(super) fn stop_all_jobs(&mut self) {
        self.stop_proposing();
        self.bodies.set_aside(|_| true).into_iter().for_each(|job| self.stop(job));
    }

    fn stop(&mut self, job: Job) {
        self.actions.push(Action::Cancel { ticket: job.ticket });
        self.relay_source(job.source, RelayVerdict::Ignore);
    }

    /// Has those of the blocks that were set aside judged which are decided after all, or about to be.
    pub(super) fn judge_again(&mut self) {
        for hash in self.bodies.aside() {
            if self.may_be_decided(hash) {
                self.judge_aside(hash);
            }
        }
    }

    /// Has a block judged that was set aside.
    fn judge_aside(&mut self, hash: BlockHash) {
        if let Some(BodyState::SetAside { bytes, peer, .. }) = self.bodies.get(&hash).map(|body| &body.state) {
            let (bytes, source) = (bytes.clone(), Source { peer: *peer, gossip: None });
            self.judge(hash, bytes, source);
        }
    }

    /// Assembles the block that was asked for, as soon as the clock permits.
    pub(super) fn assemble(&mut self, now: Now) {
        let ticket = self.ticket();
        let Some(proposing) = self.proposing.as_mut().filter(|proposing| proposing.ticket.is_none()) else { return };
        // Bitcoin's rule, and ours that time never goes back.
        let earliest = self.tip.time().max(self.tip.median_time_past().saturating_add(1));
        let latest_vote = now.unix + CLOCK_AHEAD_MAX;
        if let Some(wait) = Duration::from_secs(earliest.into()).checked_sub(latest_vote).filter(|wait| !wait.is_zero())
        {
            return self.timers.set(Alarm::Propose, now.uptime + wait);
        }
        let time = u32::try_from(now.unix.as_secs()).unwrap_or(u32::MAX).max(earliest);
        proposing.ticket = Some(ticket);
        let (height, round, content) = (proposing.height, proposing.round, proposing.content);
        let peg = self.peg_transaction(height, if content == Content::Mempool { round } else { round.max(1) }, time);
        let taken = peg.as_ref().map(|peg| (peg.weight(), sigops::legacy(peg) * WITNESS_SCALE_FACTOR));
        let selection = match content {
            Content::Mempool => select(&self.mempool, &BlockRoom::beside(&self.fee_script, taken, self.pace.limit())),
            Content::Nothing => Selection::nothing(),
        };
        // Who knows the block's transactions when it comes needs not check them then.
        self.flush_transactions(now);
        let fees = selection.fees;
        let transactions = peg.into_iter().chain(selection.transactions).collect();
        let (parent, fee_script) = (Arc::clone(&self.tip), self.fee_script.clone());
        let job = AssembleJob { parent, time, fees, fee_script, transactions };
        self.actions.push(Action::Assemble { ticket, job });
    }

    /// Our block is ready.
    pub(super) fn assembled(&mut self, now: Now, ticket: Ticket, verdict: Verdict) {
        let Some(proposing) = self.proposing.take_if(|proposing| proposing.ticket == Some(ticket)) else { return };
        let Proposing { height, round, content, .. } = proposing;
        match verdict {
            Verdict::Valid { bytes, connected } => {
                let (Some(address), hash) = (self.engine.address(), connected.tip().hash()) else { return };
                let waiting = self.admit_body(hash, round, address);
                let Some(body) = self.bodies.get_mut(&hash) else { return };
                let state = BodyState::Valid { bytes: bytes.clone(), connected, told: Told::Yes };
                let before = std::mem::replace(&mut body.state, state);
                body.kept = true;
                // The same block, if it came from others before: an empty one has nothing of its own.
                let judging = if let BodyState::Judging { ticket, source, .. } = before {
                    self.actions.push(Action::Cancel { ticket });
                    Some(source)
                } else {
                    None
                };
                for source in judging.into_iter().chain(waiting.map(|waiting| waiting.source)) {
                    self.relay_source(source, RelayVerdict::Accept);
                }
                self.actions.push(Action::KeepBody { height, bytes: bytes.clone() });
                if bytes.len() <= self.pushed_max {
                    self.actions.push(Action::Publish { topic: Topic::Bodies, bytes: encode_body(height, &bytes) });
                } else {
                    self.announce_body(now, hash, &bytes);
                }
                self.inputs.push_back(Input::Propose { height, round, block: hash });
            }
            Verdict::Invalid(rule) => {
                self.actions.push(Action::Report(Report::OwnBlockInvalid { height, rule }));
                if content == Content::Mempool {
                    self.proposing = Some(Proposing { height, round, ticket: None, content: Content::Nothing });
                    self.assemble(now);
                }
            }
            // The height is over.
            Verdict::NotReady(_) | Verdict::Unproven(_) => {}
        }
    }

    /// The engine accepted a proposal: its block, and no other, may be judged.
    pub(super) fn admit(&mut self, now: Now, round: u32, hash: BlockHash, proposer: Address) {
        let waiting = self.admit_body(hash, round, proposer);
        self.judge_aside(hash);
        let Some(body) = self.bodies.get_mut(&hash) else { return };
        let missing = matches!(body.state, BodyState::Missing);
        match waiting {
            Some(waiting) if missing => {
                body.kept |= waiting.kept;
                self.judge(hash, waiting.bytes, waiting.source);
            }
            Some(waiting) => self.relay_source(waiting.source, RelayVerdict::Ignore),
            // It may have given way to others, and does not come by itself then.
            None if missing && self.bodies.is_crowded() => self.fetch_body(now, hash),
            None if missing => self.fetch_body_soon(now, hash),
            None => {}
        }
    }

    /// Admits a body in place of one that nobody can decide any more. Returns what waited of it.
    pub(super) fn admit_body(&mut self, hash: BlockHash, round: u32, proposer: Address) -> Option<Waiting> {
        let (engine, last) = (&self.engine, self.final_block.as_ref().map(CommitCertificate::block));
        let may_be_decided = |hash: &BlockHash| last == Some(*hash) || engine.has_polka(*hash);
        let (waiting, dropped) = self.bodies.admit(hash, round, proposer, may_be_decided);
        if let Some(dropped) = dropped {
            self.stop(dropped);
        }
        if let Some(Waiting { bytes, source: Source { peer: Some(peer), .. }, .. }) = &waiting {
            self.peers.forgive(peer, Topic::Bodies, body_cost(bytes.len()));
        }
        waiting
    }

    /// A peer sends on a block that is proposed, or says that it has one.
    pub(super) fn gossiped_body(&mut self, now: Now, peer: PeerId, id: GossipId, bytes: Bytes) {
        let parts = match decode_body(bytes) {
            Ok(BodyMessage::Announced { height, hash, bytes }) => {
                return self.body_announced(now, peer, id, (height, hash, bytes));
            }
            Ok(BodyMessage::Pushed { height, block }) => block_hash(&block).map(|hash| (height, hash, block)),
            Err(_) => None,
        };
        let Some((height, hash, bytes)) = parts else {
            self.relay(id, RelayVerdict::Reject);
            return self.punish(now, peer, Offence::Malformed);
        };
        let source = Source { peer: Some(peer), gossip: Some(id) };
        let tip = self.tip.height();
        let above = height.blocks_since(tip).unwrap_or(0);
        let header = bytes.get(..Header::SIZE).and_then(|header| deserialize::<Header>(header).ok());
        let Some(Header { prev_blockhash: parent, .. }) = header else {
            return self.of_no_use(peer, Topic::Bodies, id);
        };
        let on_tip = parent == self.tip.hash();
        if !(above == 1 && on_tip || above == 2 && !on_tip) {
            return self.of_no_use(peer, Topic::Bodies, id);
        }
        match self.bodies.get(&hash).map(|body| &body.state) {
            Some(BodyState::Missing) => self.judge(hash, bytes, source),
            Some(_) => self.of_no_use(peer, Topic::Bodies, id),
            // What nobody has proposed costs its bytes, until somebody does. Whoever has no more is not heard before that.
            None if !self.peers.is_open(&peer, Topic::Bodies) => {
                self.bodies.turn_away();
                self.of_no_use(peer, Topic::Bodies, id);
            }
            None => {
                self.peers.end(&peer, Topic::Bodies, 0, body_cost(bytes.len()));
                for dropped in self.bodies.wait(Waiting { height, hash, parent, bytes, source, kept: false }) {
                    self.relay_source(dropped, RelayVerdict::Ignore);
                }
            }
        }
    }

    /// Has the rules applied to the body of an admitted block, unless its height is decided or its round over.
    pub(super) fn judge(&mut self, hash: BlockHash, bytes: Bytes, source: Source) {
        if self.committing.is_some() {
            return self.relay_source(source, RelayVerdict::Ignore);
        }
        let (ticket, is_over) = (self.ticket(), self.is_over(hash));
        let Some(body) = self.bodies.get_mut(&hash) else { return };
        self.timers.stop(Alarm::FetchBody(hash));
        if is_over {
            if source.peer.is_some() {
                self.pace.came_late(bytes.len());
            }
            body.state = BodyState::SetAside { bytes, peer: source.peer, belongs: false };
            return self.relay_source(source, RelayVerdict::Ignore);
        }
        body.state = BodyState::Judging { ticket, bytes: bytes.clone(), source, belongs: false };
        self.actions.push(Action::Validate { ticket, job: ValidateJob { bytes, proof: None } });
    }

    /// What came of a block belongs to its header. It is passed on before it is judged: whoever checks the same bytes finds
    /// the same, and only what the engine has accepted the proposal of gets as far as this.
    pub(super) fn matched(&mut self, now: Now, ticket: Ticket) {
        let Some(hash) = self.bodies.by_ticket(ticket) else { return };
        let Some(body) = self.bodies.get_mut(&hash) else { return };
        let BodyState::Judging { bytes, source, belongs, .. } = &mut body.state else { return };
        *belongs = true;
        let (bytes, gossip) = (bytes.clone(), source.gossip.take());
        if let Some(id) = gossip {
            self.relay(id, RelayVerdict::Accept);
        }
        if bytes.len() > self.pushed_max {
            self.announce_body(now, hash, &bytes);
        }
    }

    /// Says that this node has a block, and hands it out.
    fn announce_body(&mut self, now: Now, hash: BlockHash, block: &Bytes) {
        let Some(height) = self.tip.height().next() else { return };
        let length = u32::try_from(block.len()).unwrap_or(u32::MAX);
        let bytes = encode_announcement(height, hash, length, now.nonce());
        self.actions.push(Action::Publish { topic: Topic::Bodies, bytes });
    }

    /// A block was judged by the rules.
    pub(super) fn validated(&mut self, now: Now, ticket: Ticket, verdict: Verdict) -> Result<(), NodeFault> {
        if self.sync_validated(now, ticket, &verdict)? {
            return Ok(());
        }
        // A job of an earlier height, otherwise.
        let Some(hash) = self.bodies.by_ticket(ticket) else { return Ok(()) };
        let Some(body) = self.bodies.get_mut(&hash) else { return Ok(()) };
        let BodyState::Judging { source, .. } = std::mem::replace(&mut body.state, BodyState::Missing) else {
            return Ok(());
        };
        match verdict {
            Verdict::Valid { bytes, connected } => {
                body.state = BodyState::Valid { bytes, connected: Arc::clone(&connected), told: Told::Held };
                self.relay_source(source, RelayVerdict::Accept);
                if !self.commit_final(hash, &connected) {
                    self.vote_or_hold(now, hash, &connected);
                }
            }
            Verdict::Invalid(rule) if is_altered(&rule) => {
                self.relay_source(source, RelayVerdict::Reject);
                if let Some(peer) = source.peer {
                    self.punish(now, peer, Offence::AlteredBlock);
                }
                self.fetch_body(now, hash);
            }
            Verdict::Invalid(rule) => {
                body.state = BodyState::Invalid;
                self.relay_source(source, RelayVerdict::Ignore);
                return self.invalid(hash, rule);
            }
            // The tip has moved, so the height is over.
            Verdict::NotReady(_) | Verdict::Unproven(_) => self.relay_source(source, RelayVerdict::Ignore),
        }
        Ok(())
    }

    /// An admitted block breaks a rule.
    fn invalid(&mut self, hash: BlockHash, rule: InvalidBlock) -> Result<(), NodeFault> {
        let Some((height, body)) = self.tip.height().next().zip(self.bodies.get(&hash)) else { return Ok(()) };
        if self.final_block.as_ref().is_some_and(|certificate| certificate.block() == hash) {
            return Err(NodeFault::FinalBlockInvalid { height, hash, rule: Box::new(rule) });
        }
        for round in &body.rounds {
            let input = Input::Judged { height, round: *round, block: hash, validity: Validity::Invalid };
            self.inputs.push_back(input);
        }
        let proposer = body.proposer;
        self.actions.push(Action::Report(Report::InvalidProposal { height, hash, proposer, rule }));
        Ok(())
    }

    /// The voting judgement of a block that breaks no rule.
    fn vote_or_hold(&mut self, now: Now, hash: BlockHash, connected: &ConnectedBlock) {
        if self.speaks_for(now, hash, connected) {
            return self.tell_valid(hash);
        }
        let (height, ahead) = (connected.tip().height(), ahead_of(now, connected.tip().time()));
        if ahead > CLOCK_AHEAD_MAX {
            self.actions.push(Action::Report(Report::Held { height, hash, ahead }));
        }
    }

    /// Whether our own view does not speak against a block, or the others have decided without us. If it does, an alarm is set
    /// for the next look.
    fn speaks_for(&mut self, now: Now, hash: BlockHash, connected: &ConnectedBlock) -> bool {
        if self.engine.has_polka(hash) {
            return true;
        }
        let ahead = ahead_of(now, connected.tip().time());
        if ahead > CLOCK_AHEAD_MAX {
            self.timers.set_at_latest(Alarm::Judge, now.uptime + (ahead - CLOCK_AHEAD_MAX));
            return false;
        }
        self.bitcoin_agrees(now, hash, connected)
    }

    /// Looks again at what is held.
    pub(super) fn judge_held(&mut self, now: Now) {
        for hash in self.bodies.held() {
            let Some(BodyState::Valid { connected, .. }) = self.bodies.get(&hash).map(|body| &body.state) else {
                continue;
            };
            let connected = Arc::clone(connected);
            if self.speaks_for(now, hash, &connected) {
                self.tell_valid(hash);
            }
        }
    }

    /// Tells the engine that a block is valid, once it is on disk: what is voted for can be brought back.
    fn tell_valid(&mut self, hash: BlockHash) {
        let Some((height, body)) = self.tip.height().next().zip(self.bodies.get_mut(&hash)) else { return };
        let BodyState::Valid { bytes, told, .. } = &mut body.state else { return };
        *told = Told::Yes;
        if !std::mem::replace(&mut body.kept, true) {
            self.actions.push(Action::KeepBody { height, bytes: bytes.clone() });
        }
        // A later proposal of the same block needs no second verdict.
        if let Some(round) = body.rounds.first().copied() {
            self.inputs.push_back(Input::Judged { height, round, block: hash, validity: Validity::Valid });
        }
    }

    pub(super) fn relay_source(&mut self, source: Source, verdict: RelayVerdict) {
        if let Some(id) = source.gossip {
            self.relay(id, verdict);
        }
    }
}

/// How far a block's time is ahead of this machine's clock.
fn ahead_of(now: Now, time: u32) -> Duration {
    Duration::from_secs(time.into()).saturating_sub(now.unix)
}
