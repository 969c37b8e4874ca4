//! Fetching final blocks: which are wanted, who is asked, and what becomes of the answers.
//!
//! Several peers are asked for different stretches at once. What comes is applied in order: the certificate is verified
//! against the validators of its height, the block by the whole pipeline. Whoever answers wrongly or not at all loses
//! score, and the stretch is asked of somebody else. How many stretches are asked for at once, and how long they are, follows
//! the line ([`window`]).

mod window;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use causeway_chainspec::Height;
use causeway_consensus::bft::CommitCertificate;
use libp2p::PeerId;

use super::action::Action;
use super::event::{Now, OutboundId, RequestFailure, Ticket, Verdict};
use super::jobs::{Proof, ValidateJob, is_altered};
use super::report::{Offence, Report};
use super::timers::Alarm;
use super::{Asked, Node, NodeFault};
use crate::wire::{FinalBlock, Request};
use window::{Answer, STRETCHES_MAX, Window};

/// How long a peer may be one block ahead before its block is fetched: consensus is usually about to bring it.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// Blocks behind from which coins are written later, many blocks at once.
const FAR_BEHIND: u32 = 32;

/// How often sync looks after itself.
const LOOK: Duration = Duration::from_millis(500);

/// How long the engine waits for sync to go on before it starts in spite of it.
pub(super) const SYNC_STUCK: Duration = Duration::from_secs(5);

/// What is being fetched.
#[derive(Debug, Default)]
pub(super) struct Sync {
    stretches: BTreeMap<Height, Stretch>,
    /// The block that is being judged, and whose it is.
    judging: Option<Judging>,
    /// Since when some peer is ahead.
    behind_since: Option<Duration>,
    /// Whether the operator was told of it.
    reported: bool,
    /// How often each peer was asked, and served.
    peers: BTreeMap<PeerId, Served>,
    /// How much is asked for at once.
    window: Window,
}

#[derive(Clone, Copy, Debug, Default)]
struct Served {
    asked: u64,
    served: u64,
    /// Whether it took long the last time.
    is_slow: bool,
}

#[derive(Debug)]
struct Stretch {
    count: u16,
    state: State,
    /// Who could not serve it.
    failed: BTreeSet<PeerId>,
}

#[derive(Debug)]
enum State {
    Wanted,
    /// Of one peer, and then of another if that takes too long. The first answer is taken.
    Asked(Vec<Question>),
    Here {
        peer: PeerId,
        blocks: VecDeque<FinalBlock>,
    },
}

#[derive(Clone, Copy, Debug)]
struct Question {
    id: OutboundId,
    peer: PeerId,
    since: Duration,
}

#[derive(Debug)]
struct Judging {
    ticket: Ticket,
    peer: PeerId,
    height: Height,
    certificate: CommitCertificate,
}

impl Sync {
    /// Blocks that are here and wait for their turn.
    pub(super) fn len(&self) -> usize {
        let here = |stretch: &Stretch| match &stretch.state {
            State::Here { blocks, .. } => blocks.len(),
            State::Wanted | State::Asked(_) => 0,
        };
        self.stretches.values().map(here).sum()
    }

    /// Whether the next block is here. That it was asked for says nothing: any peer can claim to have it.
    pub(super) fn has(&self, next: Height) -> bool {
        self.judging.as_ref().is_some_and(|judging| judging.height == next)
            || self.stretches.get(&next).is_some_and(|first| matches!(first.state, State::Here { .. }))
    }
}

impl Node {
    /// The highest tip that peers tell of, if it is above ours.
    pub(super) fn sync_target(&self) -> Option<Height> {
        self.peers.best_height().filter(|best| *best > self.tip.height())
    }

    /// Goes on with sync, whatever has happened.
    pub(super) fn sync(&mut self, now: Now) {
        let Some(target) = self.sync_target() else {
            self.sync.behind_since = None;
            self.sync.stretches.clear();
            if std::mem::take(&mut self.sync.reported) {
                self.actions.push(Action::Report(Report::Synced { height: self.tip.height() }));
            }
            return;
        };
        let since = *self.sync.behind_since.get_or_insert(now.uptime);
        self.timers.set_at_latest(Alarm::Sync, now.uptime + LOOK);
        let behind = target.to_u32() - self.tip.height().to_u32();
        if behind < 2 && now.uptime < since + PATIENCE {
            return;
        }
        // The next block is on its way already, as a proposal: no second time over a thin line.
        if behind < FAR_BEHIND && self.bodies.are_awaited() && self.sync.stretches.is_empty() {
            return;
        }
        if behind >= FAR_BEHIND && !self.sync.reported {
            self.sync.reported = true;
            self.actions.push(Action::Report(Report::Syncing { height: self.tip.height(), target }));
        }
        self.tidy();
        self.want(target);
        self.ask(now);
        self.judge_next(now);
        if self.committing.is_none() && self.tip.height().next().is_some_and(|next| !self.sync.has(next)) {
            // What was thought to be here is not: the engine has to bring it.
            self.timers.hasten(Alarm::StartHeight, self.start_at);
        }
    }

    /// Drops what is at or below the tip.
    fn tidy(&mut self) {
        let Some(next) = self.tip.height().next() else { return };
        while let Some((from, mut stretch)) = self.sync.stretches.pop_first() {
            if from >= next {
                self.sync.stretches.insert(from, stretch);
                break;
            }
            let past = next.to_u32() - from.to_u32();
            let Ok(count) = u16::try_from(u32::from(stretch.count).saturating_sub(past)) else { continue };
            // The answer to an earlier question would not fit any more.
            let State::Here { blocks, .. } = &mut stretch.state else { continue };
            blocks.drain(..blocks.len().min(usize::try_from(past).unwrap_or(usize::MAX)));
            if count > 0 && !blocks.is_empty() {
                stretch.count = count;
                self.sync.stretches.insert(next, stretch);
            }
        }
    }

    /// Covers the heights above the tip with stretches.
    fn want(&mut self, target: Height) {
        let next = self.tip.height().to_u32().saturating_add(1);
        let is_open = |stretch: &&Stretch| !matches!(stretch.state, State::Here { .. });
        let mut open = self.sync.stretches.values().filter(is_open).count();
        let mut at = next;
        while at <= target.to_u32() && self.sync.stretches.len() < STRETCHES_MAX {
            let from = Height(at);
            if let Some(stretch) = self.sync.stretches.get(&from) {
                at = at.saturating_add(stretch.count.into());
                continue;
            }
            // Later ones are cut when their turn comes, as long as answers are then.
            if open >= self.sync.window.stretches() && at > next {
                break;
            }
            open += 1;
            let after = self.sync.stretches.range(from..).next().map_or(u32::MAX, |(after, _)| after.to_u32());
            let room = (after - at).min(target.to_u32() - at + 1).min(self.sync.window.blocks().into());
            let Ok(count) = u16::try_from(room) else { break };
            self.sync.stretches.insert(from, Stretch { count, state: State::Wanted, failed: BTreeSet::new() });
            at = at.saturating_add(room);
        }
    }

    /// Asks peers that have nothing else to do for the stretches that nobody was asked for, as far as the window allows,
    /// and for the first if whoever was asked takes too long: everything waits for it.
    fn ask(&mut self, now: Now) {
        let busy: BTreeSet<PeerId> = self.asked_of(|asked| matches!(asked, Asked::Blocks { .. }));
        let mut free: BTreeSet<PeerId> = self.peers.iter().filter(|peer| !busy.contains(peer)).copied().collect();
        let (next, window) = (self.tip.height().next(), self.sync.window);
        let is_asked = |stretch: &&Stretch| matches!(stretch.state, State::Asked(_));
        let mut room = window.stretches().saturating_sub(self.sync.stretches.values().filter(is_asked).count());
        let mut wanted = Vec::new();
        for (from, stretch) in &self.sync.stretches {
            let is_first = Some(*from) == next;
            match &stretch.state {
                State::Asked(questions) if is_first => {
                    let since = questions.last().map_or(Duration::ZERO, |last| last.since);
                    if now.uptime >= since + window.patience(questions.len()) {
                        wanted.push(*from);
                    }
                }
                State::Wanted if is_first || room > 0 => {
                    room = room.saturating_sub(1);
                    wanted.push(*from);
                }
                State::Wanted | State::Asked(_) | State::Here { .. } => {}
            }
        }
        for from in wanted {
            self.ask_for(now, from, &mut free);
        }
    }

    /// Asks the best of the free peers that have it for a stretch.
    fn ask_for(&mut self, now: Now, from: Height, free: &mut BTreeSet<PeerId>) {
        let Sync { stretches, peers, window, .. } = &mut self.sync;
        let Some(stretch) = stretches.get_mut(&from) else { return };
        if let State::Asked(questions) = &stretch.state {
            for question in questions {
                stretch.failed.insert(question.peer);
                // One that is gone is forgotten.
                if let Some(served) = peers.get_mut(&question.peer) {
                    served.is_slow = true;
                }
            }
        }
        let has = |peer: &&PeerId| self.peers.height(peer).is_some_and(|height| height >= from);
        if self.peers.iter().filter(has).all(|peer| stretch.failed.contains(peer)) {
            stretch.failed.clear();
        }
        // Those that have served before those that have not, and a stranger's turn comes only when they are busy.
        let rank = |peer: &&PeerId| {
            let Served { asked, served, is_slow } = peers.get(peer).copied().unwrap_or_default();
            (served == 0, is_slow, Reverse(self.peers.score(peer)), asked)
        };
        let can = free.iter().filter(has).filter(|peer| !stretch.failed.contains(peer));
        let Some(peer) = can.min_by_key(rank).copied() else { return };
        free.remove(&peer);
        peers.entry(peer).or_default().asked += 1;
        if matches!(stretch.state, State::Wanted) {
            // What is cut off is a stretch of its own the next time.
            stretch.count = stretch.count.min(window.blocks());
        }
        let count = stretch.count;
        let id = self.request(peer, Asked::Blocks { from }, Request::Blocks { from, count });
        let question = Question { id, peer, since: now.uptime };
        let Some(stretch) = self.sync.stretches.get_mut(&from) else { return };
        match &mut stretch.state {
            State::Asked(questions) => questions.push(question),
            State::Wanted | State::Here { .. } => stretch.state = State::Asked(vec![question]),
        }
    }

    /// Forgets a peer that is gone.
    pub(super) fn sync_forget(&mut self, peer: &PeerId) {
        self.sync.peers.remove(peer);
    }

    /// Blocks came.
    pub(super) fn fetched(&mut self, now: Now, peer: PeerId, id: OutboundId, from: Height, blocks: Vec<FinalBlock>) {
        let Some(stretch) = self.sync.stretches.get_mut(&from) else { return };
        let State::Asked(questions) = &stretch.state else { return };
        let Some(question) = questions.iter().find(|question| question.id == id).copied() else { return };
        if blocks.is_empty() || blocks.len() > usize::from(stretch.count) {
            let offence = if blocks.is_empty() { Offence::EmptyAnswer } else { Offence::LyingSync };
            self.peers.doubt(&peer, from.prev().unwrap_or(from));
            self.unserved(from, peer);
            return self.punish(now, peer, offence);
        }
        let (asked, count) = (stretch.count, u16::try_from(blocks.len()).expect("no more than were asked for"));
        let bytes = blocks.iter().map(|block| block.block.len() + block.certificate.len()).sum();
        let took = now.uptime.saturating_sub(question.since);
        stretch.count = count;
        stretch.state = State::Here { peer, blocks: blocks.into() };
        self.sync.window.note(Answer { asked, blocks: count, bytes, took });
        let served = self.sync.peers.entry(peer).or_default();
        served.served += 1;
        served.is_slow = took > window::SLOW;
    }

    /// Blocks did not come.
    pub(super) fn not_fetched(&mut self, now: Now, peer: PeerId, id: OutboundId, from: Height, why: RequestFailure) {
        let stretch = self.sync.stretches.get(&from);
        let is_of = |questions: &[Question]| questions.iter().any(|question| question.id == id);
        if matches!(stretch, Some(Stretch { state: State::Asked(questions), .. }) if is_of(questions)) {
            self.unserved(from, peer);
        }
        // Until it tells of its tip again.
        self.peers.doubt(&peer, from.prev().unwrap_or(from));
        match why {
            RequestFailure::Timeout => self.punish(now, peer, Offence::Stalled),
            RequestFailure::Malformed => self.punish(now, peer, Offence::Malformed),
            RequestFailure::Disconnected | RequestFailure::Refused => {}
        }
    }

    /// A peer does not serve a stretch, or has sent what is wrong: it is wanted again, unless another was asked too.
    fn unserved(&mut self, from: Height, peer: PeerId) {
        let Some(stretch) = self.sync.stretches.get_mut(&from) else { return };
        stretch.failed.insert(peer);
        if let State::Asked(questions) = &mut stretch.state {
            questions.retain(|question| question.peer != peer);
            if !questions.is_empty() {
                return;
            }
        }
        stretch.state = State::Wanted;
    }

    /// Has the next block judged, if it is here and nothing is being committed.
    fn judge_next(&mut self, now: Now) {
        let Some(next) = self.tip.height().next() else { return };
        if self.sync.judging.is_some() || self.committing.is_some() {
            return;
        }
        let Some(Stretch { state: State::Here { peer, blocks }, .. }) = self.sync.stretches.get(&next) else { return };
        let (peer, Some(block)) = (*peer, blocks.front().cloned()) else { return };
        let after = blocks.get(1).map(|after| after.block.clone());
        let Ok(certificate) = CommitCertificate::decode(&block.certificate) else {
            self.unserved(next, peer);
            self.peers.doubt(&peer, self.tip.height());
            return self.punish(now, peer, Offence::LyingSync);
        };
        let ticket = self.ticket();
        let proof = Proof { certificate: certificate.clone(), chain: self.chain, set: self.set.clone(), height: next };
        self.sync.judging = Some(Judging { ticket, peer, height: next, certificate });
        let job = ValidateJob { bytes: block.block, proof: Some(proof) };
        self.actions.push(Action::Validate { ticket, job });
        // Whoever sent it answers for it once it is judged.
        self.actions.extend(after.map(|block| Action::Prefetch { block }));
    }

    /// The block that is being judged is final by other means: its place among what was fetched is given up with its height.
    pub(super) fn stop_sync_job(&mut self) {
        if let Some(judging) = self.sync.judging.take() {
            self.actions.push(Action::Cancel { ticket: judging.ticket });
        }
    }

    /// A fetched block was judged; `false` if the job was for another reason.
    pub(super) fn sync_validated(&mut self, now: Now, ticket: Ticket, verdict: &Verdict) -> Result<bool, NodeFault> {
        if self.sync.judging.as_ref().is_none_or(|judging| judging.ticket != ticket) {
            return Ok(false);
        }
        let Some(judging) = self.sync.judging.take() else { return Ok(false) };
        let is_next = self.tip.height().next() == Some(judging.height);
        match verdict {
            Verdict::Valid { connected, .. } if is_next && self.committing.is_none() => {
                let far = self
                    .sync_target()
                    .is_some_and(|target| target.to_u32() - judging.height.to_u32().min(target.to_u32()) >= FAR_BEHIND);
                self.commit(Arc::clone(connected), judging.certificate, far);
            }
            Verdict::Valid { .. } | Verdict::NotReady(_) => {}
            Verdict::Invalid(rule) if !is_altered(rule) => {
                let (height, hash) = (judging.height, judging.certificate.block());
                return Err(NodeFault::FinalBlockInvalid { height, hash, rule: Box::new(rule.clone()) });
            }
            Verdict::Invalid(_) | Verdict::Unproven(_) => {
                self.unserved(judging.height, judging.peer);
                // One that is never banned is not asked the same again at once.
                self.peers.doubt(&judging.peer, judging.height.prev().unwrap_or(judging.height));
                self.punish(now, judging.peer, Offence::LyingSync);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
