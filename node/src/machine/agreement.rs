//! One height after the other: what the engine says, and what comes of it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::BlockHash;
use causeway_chainspec::Height;
use causeway_consensus::ConnectedBlock;
use causeway_consensus::bft::{
    CommitCertificate, HighWaterMark, Input, LogEntry, Message, Output, Persist, Step, Timer, TimerStep, Writing,
};

use super::action::{Action, RelayVerdict};
use super::bodies::{BodyState, Source, Waiting};
use super::event::Now;
use super::jobs::block_hash;
use super::report::Report;
use super::sync::SYNC_STUCK;
use super::timers::Alarm;
use super::{Node, NodeFault};
use crate::wire::{Topic, encode_consensus};

/// A block on its way to disk.
#[derive(Debug)]
pub(super) struct Committing {
    height: Height,
    connected: Arc<ConnectedBlock>,
    round: u32,
    decided_in: Option<Duration>,
}

/// Turns what must be written into actions, which the shell performs in their order.
struct Sink<'a>(&'a mut Vec<Action>);

impl Persist for Sink<'_> {
    type Error = Infallible;

    fn persist(
        &mut self,
        height: Height,
        log: &[LogEntry],
        mark: Option<&HighWaterMark>,
        writing: Writing,
    ) -> Result<(), Infallible> {
        self.0.push(Action::Log { height, entries: log.to_vec(), mark: mark.cloned(), writing });
        Ok(())
    }
}

impl Node {
    /// Starts the height above the tip.
    pub(super) fn start_height(&mut self, now: Now) -> Result<(), NodeFault> {
        self.timers.stop(Alarm::StartHeight);
        let Some(height) = self.tip.height().next() else { return Ok(()) };
        if self.committing.is_some() || self.engine.height().is_some_and(|current| height <= current) {
            return Ok(());
        }
        if !self.may_start(now) {
            return Ok(());
        }
        let restart = self.restart.take().unwrap_or_default();
        for bytes in restart.bodies {
            let Some(hash) = block_hash(&bytes) else { continue };
            let source = Source { peer: None, gossip: None };
            // Who it stands on is known: it was judged.
            self.bodies.wait(Waiting { height, hash, parent: self.tip.hash(), bytes, source, kept: true });
        }
        self.height_started = now.uptime;
        self.following = true;
        let step = self.engine.start(height, self.set.clone(), &restart.log)?;
        self.perform(now, step)
    }

    /// Gives the engine everything that waits for it, and does what it says.
    pub(super) fn drain(&mut self, now: Now) -> Result<(), NodeFault> {
        loop {
            while let Some(input) = self.inputs.pop_front() {
                let current = self.engine.height();
                // What is final by sync needs no votes; messages of the next height are kept by the engine.
                let of_next = |input: &Input| match input {
                    Input::Message(message) => Some(message.height()) > current,
                    Input::Checked(checked) => Some(checked.message().height()) > current,
                    _ => false,
                };
                let late = !self.following && !of_next(&input);
                if current.is_none() || late {
                    continue;
                }
                let step = self.engine.step(input)?;
                self.perform(now, step)?;
            }
            self.judge_held(now);
            self.judge_again();
            if self.inputs.is_empty() {
                return Ok(());
            }
        }
    }

    fn perform(&mut self, now: Now, step: Step) -> Result<(), NodeFault> {
        let Ok(outputs) = step.persist(&mut Sink(&mut self.actions));
        for output in outputs {
            self.output(now, output)?;
        }
        Ok(())
    }

    fn output(&mut self, now: Now, output: Output) -> Result<(), NodeFault> {
        match output {
            Output::Send(message) | Output::SendAgain(message) => self.say(now, &message),
            Output::StartTimer(timer, delay) => self.timers.set(Alarm::Engine(timer), now.uptime + delay),
            Output::StopTimer(timer) => self.timers.stop(Alarm::Engine(timer)),
            Output::StopTimers => self.timers.stop_all(|alarm| matches!(alarm, Alarm::Engine(_))),
            Output::RoundStarted { height, round, proposer, .. } => {
                self.counts.rounds += 1;
                self.stop_jobs_before(round);
                if round > 0 {
                    self.actions.push(Action::Report(Report::Round { height, round, proposer }));
                }
            }
            Output::Propose { height, round, .. } => self.propose(now, height, round),
            Output::Accepted { round, block, proposer, .. } => {
                self.admit(now, round, block, proposer);
            }
            // Whoever has not got the body asks for it.
            Output::Restream { .. } => {}
            Output::Decided(certificate) => self.decided(now, certificate),
            Output::Finalized { evidence, .. } => {
                for evidence in evidence {
                    self.actions.push(Action::KeepEvidence(evidence.clone()));
                    self.actions.push(Action::Report(Report::Equivocation(evidence)));
                }
            }
            Output::SignedElsewhere => {
                if let Some(height) = self.engine.height() {
                    self.actions.push(Action::Report(Report::SignedElsewhere { height }));
                }
            }
            Output::Withheld { position, refusal } => {
                self.actions.push(Action::Report(Report::Withheld { position, refusal }));
            }
            // Certificates of peers are verified with their blocks, by sync.
            Output::CertificateVerified { .. } | Output::CertificateRejected(_) => {}
        }
        Ok(())
    }

    /// Sends a message, as one that no gossip layer has carried before.
    fn say(&mut self, now: Now, message: &Message) {
        self.actions.push(Action::Publish { topic: Topic::Consensus, bytes: encode_consensus(message, now.nonce()) });
    }

    /// An engine timer has run out.
    pub(super) fn engine_timer(&mut self, timer: Timer) {
        match timer.step {
            TimerStep::Propose => self.counts.propose_timeouts += 1,
            TimerStep::Prevote => self.counts.prevote_timeouts += 1,
            TimerStep::Precommit => self.counts.precommit_timeouts += 1,
            TimerStep::Rebroadcast => {}
        }
        self.inputs.push_back(Input::TimerElapsed(timer));
    }

    /// The engine has decided.
    fn decided(&mut self, now: Now, certificate: CommitCertificate) {
        if self.committing.is_some() {
            return;
        }
        let hash = certificate.block();
        self.decided_in = Some(now.uptime.saturating_sub(self.height_started));
        match self.bodies.get(&hash).map(|body| &body.state) {
            Some(BodyState::Valid { connected, .. }) => {
                let connected = Arc::clone(connected);
                self.commit(connected, certificate, false);
            }
            // After a restart: the log has the votes, and the block is being judged again, or has to be fetched.
            _ => {
                let proposer = self.set.proposer(self.chain, certificate.height(), certificate.round()).address();
                let round = certificate.round();
                self.final_block = Some(certificate);
                self.admit(now, round, hash, proposer);
            }
        }
    }

    /// The block that is final and was not here is here.
    pub(super) fn commit_final(&mut self, hash: BlockHash, connected: &Arc<ConnectedBlock>) -> bool {
        let Some(certificate) = self.final_block.take_if(|certificate| certificate.block() == hash) else {
            return false;
        };
        self.commit(Arc::clone(connected), certificate, false);
        true
    }

    /// Puts a final block on disk.
    pub(super) fn commit(&mut self, connected: Arc<ConnectedBlock>, certificate: CommitCertificate, catching_up: bool) {
        let (height, round) = (certificate.height(), certificate.round());
        let decided_in = self.decided_in.take();
        if !self.engine.is_decided() || self.engine.height() != Some(height) {
            // The engine has not come so far by itself, and need not any more.
            self.following = false;
            self.timers.stop_all(|alarm| matches!(alarm, Alarm::Engine(_)));
        }
        self.timers.stop_all(|alarm| matches!(alarm, Alarm::Propose | Alarm::Judge | Alarm::FetchBody(_)));
        self.final_block = None;
        self.stop_all_jobs();
        self.stop_sync_job();
        self.committing = Some(Committing { height, connected: Arc::clone(&connected), round, decided_in });
        self.actions.push(Action::Commit { connected, certificate, catching_up });
    }

    /// A block is on disk.
    pub(super) fn committed(&mut self, now: Now, height: Height) {
        let Some(done) = self.committing.take_if(|committing| committing.height == height) else { return };
        let block = done.connected.block();
        self.tip = Arc::clone(done.connected.tip());
        let next_set = (self.validators)(&self.tip);
        let set = std::mem::replace(&mut self.set, next_set);
        // What an earlier run wrote of this height is of no use above it.
        self.restart = None;
        self.tips.keep(&self.set);
        self.peg_committed(&done.connected, done.round, &set);
        if let (0, Some(took)) = (done.round, done.decided_in) {
            let proposer = set.proposer(self.chain, height, done.round).address();
            self.pace.decided(block.bytes().len(), took, self.engine.address() == Some(proposer));
        }
        let departed = self.mempool.connected(block, &self.tip, now.unix.as_secs());
        self.intake.departed(&departed);
        self.intake_connected(now, block);
        self.heard.clear(now);
        let Some(next) = height.next() else { return };
        for source in self.bodies.start(next, self.tip.hash()) {
            self.relay_source(source, RelayVerdict::Ignore);
        }
        self.actions.push(Action::Report(Report::Committed {
            height,
            hash: self.tip.hash(),
            round: done.round,
            transactions: block.transactions().len(),
            decided_in: done.decided_in,
        }));
        self.start_at = match done.decided_in {
            Some(_) => (self.height_started + self.interval).max(now.uptime),
            None => now.uptime,
        };
        self.sync(now);
        // If sync has the next block, the engine is not needed for it, unless sync gets stuck.
        let start = if self.sync.has(next) { now.uptime + SYNC_STUCK } else { self.start_at };
        self.timers.set(Alarm::StartHeight, start);
    }
}
