//! A signing session: how the members of a federation come to the signatures of one transaction.
//!
//! A pure state machine: no clock, no socket, no randomness and no secret in it. [`Session::handle`] takes an event and
//! returns actions; the member's process performs them, and [`Signer`] holds what is secret.
//!
//! A task goes through *rounds*. Round 0 tries the key path with all members. The next 2(n - t) + 1 rounds try subsets: the
//! round's coordinator, which rotates, proposes t of those who answer. The last round is `multi_a`: every member signs
//! plainly, and t signatures suffice. Each round is at most one attempt with nonces of its own; all paths sign the same
//! transaction, so that attempts can do no harm to each other. At most n - t of the coordinators are at fault, so at least
//! n - t + 1 rounds of subsets are honestly led, and each of those that fails names a member that was not named before.
//! A member gives nonces for at most n - t + 1 subsets.
//!
//! Within a round: everyone joins, the signers are known (or proposed), each signer broadcasts its public nonces, and with
//! all of them its partial signatures. Every member adds up and checks by itself. The clock of a round starts when t
//! members are in it. Members say what they have of the round, and are sent what they lack, the words of others too, until
//! the round ends: what one honest member has heard, all hear.
//!
//! A member is *proven* at fault by its own signed messages, and then never signs in the task again. Silence only makes
//! others preferred.
//!
//! A round that the member may have said something in is on disk before. After a restart the nonces are gone, and the
//! member takes part in later rounds alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::secp256k1::schnorr;

mod answer;
mod drive;
mod event;
mod message;
mod round;
mod signer;
mod task;

pub use event::{Alarm, Fault, SessionAction, SessionEvent, Signatures, Signed, Timing};
pub use message::{Body, MESSAGE_BYTES_MAX, MessageError, MessageName, SessionMessage, SignedMessage};
pub use signer::Signer;
pub use task::{Attempt, AttemptId, AttemptInput, AttemptRecord, INPUTS_MAX, MEMBERS_MAX, Path, SigningTask, TaskId};

use crate::musig::{self, PUBLIC_NONCE_BYTES};
use answer::Asked;
use round::{Keeping, Kept, Round};

/// Why there is no session for a task: it is not one that this federation can sign, or the member is not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// Members: 1 to [`MEMBERS_MAX`], sorted and distinct.
    #[error("the members of the task are not 1 to {MEMBERS_MAX} sorted, distinct keys")]
    Members,
    /// The threshold is zero or above the number of members.
    #[error("the threshold of the task is not between 1 and the number of members")]
    Threshold,
    /// Inputs: 1 to [`INPUTS_MAX`].
    #[error("the transaction has not 1 to {INPUTS_MAX} inputs")]
    Inputs,
    /// There is no member of this index.
    #[error("the task has no member {0}")]
    NotAMember(u16),
}

/// How far this member is in the current round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nothing said but that it is there.
    Idle,
    /// The record of the round is being written.
    Persisting,
    /// Nonces are being made.
    MakingNonces,
    /// Nonces are out.
    NoncesSent,
    /// The nonces are being used.
    MakingPartials,
    /// It has said everything it can.
    Finished,
}

/// One task at one member.
#[derive(Debug)]
pub struct Session<T> {
    task: T,
    own: u16,
    timing: Timing,
    /// Rounds up to here are on disk from an earlier life: never said anything in again.
    used: Option<u32>,
    round: u32,
    step: Step,
    /// When t members were first seen in the round.
    quorum_since: Option<Duration>,
    /// When the signers of the round were known.
    live_since: Option<Duration>,
    next_repeat: Duration,
    /// The `multi_a` record is on disk.
    plain_persisted: bool,
    rounds: BTreeMap<u32, Round>,
    /// The highest round that each member joined, and its word for it.
    joined: Vec<Option<(u32, Option<SignedMessage>)>>,
    /// When each member last said what it has.
    asked: Vec<Option<Asked>>,
    strikes: Vec<u32>,
    proven: BTreeSet<u16>,
    faults: Vec<(u16, Fault)>,
    /// Public nonces that were shown, to see one again.
    nonces_shown: BTreeSet<(u16, [u8; PUBLIC_NONCE_BYTES])>,
    /// Plain signatures, checked.
    plain: BTreeMap<u16, (Vec<schnorr::Signature>, Kept)>,
    /// Subset attempts that this member may still give nonces for.
    attempts_left: usize,
    done: Option<Arc<Signed>>,
    started: bool,
    halted: bool,
    actions: Vec<SessionAction>,
}

impl<T: SigningTask> Session<T> {
    /// The session of the member with index `own`. `used` is the highest round of this task that is on disk
    /// ([`AttemptRecord::round`]), None if the task is new to this member.
    ///
    /// # Errors
    /// [`TaskError`].
    pub fn new(task: T, own: u16, timing: Timing, used: Option<u32>) -> Result<Self, TaskError> {
        let members = task.members();
        let (n, t) = (members.len(), task.threshold());
        let sorted = members.is_sorted_by(|one, two| one.serialize() < two.serialize());
        if n == 0 || n > MEMBERS_MAX || !sorted {
            return Err(TaskError::Members);
        }
        if t == 0 || t > n {
            return Err(TaskError::Threshold);
        }
        if !(1..=INPUTS_MAX).contains(&task.input_count()) {
            return Err(TaskError::Inputs);
        }
        if usize::from(own) >= n {
            return Err(TaskError::NotAMember(own));
        }
        Ok(Self {
            task,
            own,
            timing,
            used,
            round: 0,
            step: Step::Idle,
            quorum_since: None,
            live_since: None,
            next_repeat: Duration::ZERO,
            plain_persisted: false,
            rounds: BTreeMap::new(),
            joined: vec![None; n],
            asked: vec![None; n],
            strikes: vec![0; n],
            proven: BTreeSet::new(),
            faults: Vec::new(),
            nonces_shown: BTreeSet::new(),
            plain: BTreeMap::new(),
            attempts_left: n - t + 1,
            done: None,
            started: false,
            halted: false,
            actions: Vec::new(),
        })
    }

    /// The task.
    pub fn task(&self) -> &T {
        &self.task
    }

    /// The round that the session is in.
    pub fn round(&self) -> u32 {
        self.round
    }

    /// The last round of the task, that of `multi_a`.
    pub fn last_round(&self) -> u32 {
        let (n, t) = (self.task.members().len(), self.task.threshold());
        u32::try_from(2 * (n - t) + 2).expect("there are at most 100 members")
    }

    /// The member that proposes the signers of a round.
    pub fn coordinator(&self, round: u32) -> u16 {
        let [a, b, c, d, ..] = self.task.task_id().0;
        let n = self.task.members().len() as u64;
        let place = (u64::from(u32::from_le_bytes([a, b, c, d])) + u64::from(round)) % n;
        u16::try_from(place).expect("there are at most 100 members")
    }

    /// What the current round tries to sign by; None until its signers are known.
    pub fn path(&self) -> Option<Path> {
        if self.round == self.last_round() {
            return Some(Path::MultiA);
        }
        let attempt = self.rounds.get(&self.round)?.attempt.as_ref()?;
        Some(attempt.path().clone())
    }

    /// Members that have not been heard of in the current round or a later one.
    pub fn missing(&self) -> Vec<u16> {
        let heard = |joined: &Option<(u32, Option<SignedMessage>)>| {
            joined.as_ref().is_some_and(|(round, _)| *round >= self.round)
        };
        (0..)
            .zip(&self.joined)
            .filter(|(member, joined)| *member != self.own && !heard(joined))
            .map(|(m, _)| m)
            .collect()
    }

    /// The outcome, once the task is signed.
    pub fn signed(&self) -> Option<&Arc<Signed>> {
        self.done.as_ref()
    }

    /// Who was found at fault so far.
    pub fn faults(&self) -> &[(u16, Fault)] {
        &self.faults
    }

    /// Takes an event at a time of the member's own monotonic clock, and returns what is to be done, in this order.
    pub fn handle(&mut self, now: Duration, event: SessionEvent) -> Vec<SessionAction> {
        if self.halted {
            return Vec::new();
        }
        if !self.started {
            self.started = true;
            let first = self.used.map_or(0, |used| used.saturating_add(1)).min(self.last_round());
            self.enter(first, now);
        }
        match event {
            SessionEvent::Received(message) => self.receive(now, message),
            SessionEvent::Persisted { round } => self.persisted(round),
            SessionEvent::NoncesMade { round, nonces } => self.nonces_made(round, &nonces),
            SessionEvent::PartialsMade { round, partials } => {
                if round == self.round && self.step == Step::MakingPartials {
                    self.partials_made(&partials);
                }
            }
            SessionEvent::SignaturesMade(signatures) => self.signatures_made(signatures),
            SessionEvent::Started | SessionEvent::Tick => {}
        }
        self.drive(now);
        std::mem::take(&mut self.actions)
    }

    fn receive(&mut self, now: Duration, signed: SignedMessage) {
        let (from, message) = (signed.member(), signed.message());
        if message.task != self.task.task_id() || usize::from(from) >= self.joined.len() {
            return;
        }
        if self.done.is_some() {
            if !matches!(message.body, Body::Result { .. }) && from != self.own && now >= self.next_repeat {
                self.next_repeat = now + self.timing.resend;
                self.tell_result();
            }
            return;
        }
        if self.proven.contains(&from) || message.round > self.last_round() {
            return;
        }
        match &message.body {
            Body::Result { signers, signatures } => self.received_result(from, signers, signatures),
            Body::Signatures(signatures) => {
                let signatures = signatures.clone();
                self.note_presence(from, message.round, None);
                self.received_plain(signed, signatures);
            }
            Body::Join { .. } => {
                self.answer(now, &signed);
                let round = message.round;
                self.note_presence(from, round, Some(signed));
            }
            _ => self.received_in_round(signed),
        }
    }

    /// A member has been in this round.
    fn note_presence(&mut self, from: u16, round: u32, word: Option<SignedMessage>) {
        if from == self.own {
            return;
        }
        let joined = &mut self.joined[usize::from(from)];
        match joined {
            Some((known, _)) if *known > round => {}
            Some((known, kept)) if *known == round => {
                if kept.is_none() {
                    *kept = word;
                }
            }
            _ => *joined = Some((round, word)),
        }
    }

    fn received_in_round(&mut self, signed: SignedMessage) {
        let (from, round) = (signed.member(), signed.message().round);
        if from != self.own {
            self.note_presence(from, round, None);
        }
        // One ahead is a member that was faster. More is repeated until this member is there.
        if round > self.round.saturating_add(1) {
            return;
        }
        if round == self.last_round() {
            return self.convict(from, Fault::BadProposal { round }, vec![Kept::Theirs(signed)]);
        }
        if from == self.own && self.used.is_none_or(|used| round > used) {
            let known =
                matches!(self.rounds.entry(round).or_default().keep(from, Kept::Theirs(signed)), Keeping::Known);
            if !known {
                self.alarm(Alarm::KeyInUseElsewhere);
            }
            return;
        }
        if let Body::Proposal { signers } = &signed.message().body {
            let in_range = signers.iter().all(|signer| usize::from(*signer) < self.joined.len());
            let rules =
                round != 0 && from == self.coordinator(round) && signers.len() == self.task.threshold() && in_range;
            if !rules {
                return self.convict(from, Fault::BadProposal { round }, vec![Kept::Theirs(signed)]);
            }
        }
        let kept = Kept::Theirs(signed);
        match self.rounds.entry(round).or_default().keep(from, kept.clone()) {
            Keeping::Known => {}
            Keeping::Conflict(earlier) => {
                self.convict(from, Fault::Equivocation { round }, vec![*earlier, kept]);
            }
            Keeping::New => {
                if let Body::Nonces { nonces, .. } = &kept.message().body {
                    let fresh = nonces.iter().all(|nonce| self.nonces_shown.insert((from, *nonce)));
                    if !fresh {
                        return self.convict(from, Fault::ReusedNonce { round }, vec![kept]);
                    }
                }
                if round <= self.round {
                    self.look_at(round);
                }
            }
        }
    }

    fn received_plain(&mut self, signed: SignedMessage, signatures: Vec<schnorr::Signature>) {
        let from = signed.member();
        if signed.message().round != self.last_round() || self.plain.contains_key(&from) {
            return;
        }
        let round = self.last_round();
        let kept = Kept::Theirs(signed);
        if signatures.len() != self.task.input_count() {
            return self.convict(from, Fault::WrongCount { round }, vec![kept]);
        }
        let key = self.task.members()[usize::from(from)].x_only_public_key().0;
        let wrong = signatures
            .iter()
            .enumerate()
            .find(|(input, signature)| !musig::verify(&key, &self.task.message(*input, &Path::MultiA), signature));
        if let Some((input, _)) = wrong {
            return self.convict(from, Fault::BadSignature { input }, vec![kept]);
        }
        self.plain.insert(from, (signatures, kept));
        self.sum_plain();
    }

    fn received_result(&mut self, from: u16, signers: &[u16], signatures: &[schnorr::Signature]) {
        let path = if signers.is_empty() { Path::Key } else { Path::Subset(signers.to_vec()) };
        let in_range = signers.iter().all(|signer| usize::from(*signer) < self.joined.len());
        let count = signers.is_empty() || signers.len() == self.task.threshold();
        let fits = count && in_range && signatures.len() == self.task.input_count();
        let right = fits
            && Attempt::new(&self.task, 0, path.clone()).is_ok_and(|attempt| {
                let mut each = attempt.inputs().iter().zip(signatures);
                each.all(|(input, signature)| input.aggregate.verify(&input.message, signature))
            });
        if right {
            self.finish(path, Signatures::One(signatures.to_vec()), false);
        } else {
            self.convict(from, Fault::BadResult, Vec::new());
        }
    }

    /// Finishes with `multi_a` if t members have signed.
    fn sum_plain(&mut self) {
        let threshold = self.task.threshold();
        if self.plain.len() >= threshold && self.done.is_none() {
            let each = self.plain.iter().take(threshold);
            let each = each.map(|(member, (signatures, _))| (*member, signatures.clone())).collect();
            self.finish(Path::MultiA, Signatures::Each(each), true);
        }
    }

    /// Looks at what a round adds up to.
    fn look_at(&mut self, round: u32) {
        self.settle(round);
        let Some(state) = self.rounds.get_mut(&round) else { return };
        let findings = state.check(self.task.members());
        if (findings.disputed || !findings.faults.is_empty()) && !state.shown {
            state.shown = true;
            self.actions.extend(state.all().map(Kept::repeat));
        }
        let path = state.attempt.as_ref().map(|attempt| attempt.path().clone());
        for (member, fault) in findings.faults {
            self.convict(member, fault, Vec::new());
        }
        match (findings.signatures, path) {
            (Some(Ok(signatures)), Some(path)) => self.finish(path, Signatures::One(signatures), true),
            (Some(Err(_)), _) => self.alarm(Alarm::Sum),
            _ => {}
        }
    }

    /// Makes the attempt of a round as soon as its signers are known.
    fn settle(&mut self, round: u32) {
        let Some(state) = self.rounds.get_mut(&round) else { return };
        if state.attempt.is_some() {
            return;
        }
        let path = match (&state.proposal, round) {
            (_, 0) => Path::Key,
            (Some(kept), _) => match &kept.message().body {
                Body::Proposal { signers } => Path::Subset(signers.clone()),
                _ => return,
            },
            (None, _) => return,
        };
        state.attempt = Attempt::new(&self.task, round, path).ok().map(Arc::new);
    }

    /// Names a member whose own messages show a fault, once, and shows them to everyone.
    fn convict(&mut self, member: u16, fault: Fault, evidence: Vec<Kept>) {
        if member == self.own {
            return self.alarm(Alarm::OwnFault(fault));
        }
        if self.done.is_none() && self.proven.insert(member) {
            self.actions.extend(evidence.iter().map(Kept::repeat));
            self.blame(member, fault);
        }
    }

    fn blame(&mut self, member: u16, fault: Fault) {
        self.faults.push((member, fault));
        self.actions.push(SessionAction::Blame { member, fault });
    }

    fn alarm(&mut self, alarm: Alarm) {
        self.give_up();
        self.halted = true;
        self.actions.push(SessionAction::Alarm(alarm));
    }

    fn finish(&mut self, path: Path, signatures: Signatures, tell: bool) {
        if self.done.is_some() {
            return;
        }
        self.give_up();
        let signed = Arc::new(Signed { path, signatures, faults: self.faults.clone() });
        self.done = Some(Arc::clone(&signed));
        self.actions.push(SessionAction::Done(signed));
        if tell {
            self.tell_result();
        }
    }

    /// Tells everyone what the task was signed with.
    fn tell_result(&mut self) {
        let Some(signed) = &self.done else { return };
        let signatures = match &signed.signatures {
            Signatures::One(signatures) => signatures.clone(),
            Signatures::Each(_) => {
                self.actions.extend(self.plain.values().map(|(_, kept)| kept.repeat()));
                return;
            }
        };
        let signers = match &signed.path {
            Path::Subset(signers) => signers.clone(),
            Path::Key | Path::MultiA => Vec::new(),
        };
        let body = Body::Result { signers, signatures };
        self.actions.push(SessionAction::Send(SessionMessage { task: self.task.task_id(), round: 0, body }));
    }
}

#[cfg(test)]
mod tests;
