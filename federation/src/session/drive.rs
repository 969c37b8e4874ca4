//! What a member does by itself: rounds, deadlines, proposals, and its own part of an attempt.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::secp256k1::schnorr;
use causeway_chainspec::tagged_hash;

use super::event::{Fault, SessionAction};
use super::message::{Body, SessionMessage};
use super::round::{Keeping, Kept};
use super::task::{Attempt, AttemptId, AttemptRecord, Path, SigningTask};
use super::{Session, Step};
use crate::musig::{PartialSignature, PublicNonce};

impl<T: SigningTask> Session<T> {
    /// Goes on as far as possible.
    pub(super) fn drive(&mut self, now: Duration) {
        while self.done.is_none() && !self.halted && self.advance(now) {}
        if self.done.is_some() || self.halted {
            return;
        }
        if now >= self.next_repeat {
            self.say_what_is_here(now);
        }
        let wake = [Some(self.next_repeat), self.deadline(), self.gather_until().filter(|until| *until > now)];
        if let Some(wake) = wake.into_iter().flatten().min() {
            self.actions.push(SessionAction::WakeAt(wake));
        }
    }

    /// One step; true if there may be another.
    fn advance(&mut self, now: Duration) -> bool {
        if let Some(ahead) = self.others_ahead() {
            self.blame_if_due(now);
            self.enter(ahead, now);
            return true;
        }
        if self.quorum_since.is_none() && self.present() >= self.task.threshold() {
            self.quorum_since = Some(now);
        }
        if self.round == self.last_round() {
            if self.step == Step::Idle {
                self.persist(plain_id(&self.task));
            }
            return false;
        }
        if self.is_hopeless() {
            self.blame_if_due(now);
            self.enter(self.next_round(), now);
            return true;
        }
        self.find_signers(now);
        self.take_part();
        if self.done.is_some() || self.halted {
            return false;
        }
        if self.deadline().is_some_and(|deadline| now >= deadline) {
            self.blame_the_silent();
            self.enter(self.next_round(), now);
            return true;
        }
        false
    }

    /// The round after this one: the last, once this member has given nonces for all the subsets that it may.
    fn next_round(&self) -> u32 {
        if self.attempts_left == 0 { self.last_round() } else { self.round + 1 }
    }

    /// Leaves the round for a later one.
    pub(super) fn enter(&mut self, round: u32, now: Duration) {
        self.give_up();
        self.round = round;
        self.step = Step::Idle;
        (self.quorum_since, self.live_since) = (None, None);
        self.joined[usize::from(self.own)] = Some((round, None));
        self.rounds.entry(round).or_default();
        self.say_what_is_here(now);
        self.look_at(round);
    }

    /// Burns the nonces of the round, if there are any that wait.
    pub(super) fn give_up(&mut self) {
        if matches!(self.step, Step::MakingNonces | Step::NoncesSent) {
            self.burn(self.round);
        }
        self.step = Step::Finished;
    }

    fn burn(&mut self, round: u32) {
        if let Some(attempt) = self.rounds.get(&round).and_then(|state| state.attempt.clone()) {
            self.actions.push(SessionAction::Burn(attempt));
        }
    }

    pub(super) fn say(&mut self, body: Body) {
        let message = SessionMessage { task: self.task.task_id(), round: self.round, body };
        self.actions.push(SessionAction::Send(message));
    }

    /// Says something that is kept and repeated as it is: nothing is ever made twice (nonce rule 6).
    fn say_once(&mut self, body: Body) {
        let message = SessionMessage { task: self.task.task_id(), round: self.round, body };
        let kept = self.rounds.entry(self.round).or_default().keep(self.own, Kept::Own(message.clone()));
        debug_assert!(matches!(kept, Keeping::New), "a round has one step of each kind");
        self.actions.push(SessionAction::Send(message));
    }

    fn is_in(&self, member: u16, rounds: impl Fn(u32) -> bool) -> bool {
        let joined = self.joined.get(usize::from(member)).and_then(Option::as_ref);
        joined.is_some_and(|(round, _)| rounds(*round)) && !self.proven.contains(&member)
    }

    fn indices(&self) -> impl Iterator<Item = u16> + use<T> {
        (0..).take(self.joined.len())
    }

    /// Members in this round or a later one, this one too.
    fn present(&self) -> usize {
        self.indices().filter(|member| self.is_in(*member, |round| round >= self.round)).count()
    }

    /// The highest later round that so many members are in that one of them is honest.
    fn others_ahead(&self) -> Option<u32> {
        let needed = self.task.members().len() - self.task.threshold() + 1;
        let ahead = self.indices().filter(|member| self.is_in(*member, |round| round > self.round));
        let mut rounds: Vec<u32> =
            ahead.filter_map(|member| self.joined[usize::from(member)].as_ref()).map(|(round, _)| *round).collect();
        rounds.sort_unstable_by(|one, two| two.cmp(one));
        rounds.get(needed - 1).map(|round| (*round).min(self.last_round()))
    }

    /// Whether the round can no longer sign.
    fn is_hopeless(&self) -> bool {
        if self.round == 0 {
            let gone = |member| member != self.own && self.is_in(member, |round| round > 0);
            return !self.proven.is_empty() || self.indices().any(gone);
        }
        let attempt = self.rounds.get(&self.round).and_then(|state| state.attempt.as_ref());
        let signers = attempt.map_or(&[][..], |attempt| attempt.signers());
        self.proven.contains(&self.coordinator(self.round)) || signers.iter().any(|signer| self.proven.contains(signer))
    }

    /// Finds out who signs in this round, and proposes it if that is this member's turn.
    fn find_signers(&mut self, now: Duration) {
        if self.live_since.is_some() {
            return;
        }
        let coordinates = self.round > 0 && self.coordinator(self.round) == self.own;
        let proposed = self.rounds.get(&self.round).is_some_and(|state| state.proposal.is_some());
        if self.round == 0 {
            if !self.indices().all(|member| self.is_in(member, |round| round == 0)) {
                return;
            }
        } else if coordinates && self.step == Step::Idle {
            let Some(signers) = self.choose_signers(now) else { return };
            let Ok(attempt) = Attempt::new(&self.task, self.round, Path::Subset(signers)) else { return };
            let id = attempt.id();
            self.rounds.entry(self.round).or_default().attempt = Some(Arc::new(attempt));
            self.live_since = Some(now);
            // A coordinator that is restarted must not propose something else.
            self.persist(id);
            return;
        } else if !proposed {
            return;
        }
        self.live_since = Some(now);
        self.look_at(self.round);
    }

    /// Signers of a round that this member coordinates: those who answer and were never silent, this member first. With
    /// fewer than t of them, when everyone answered or the time for that is over, also those who were silent before.
    fn choose_signers(&self, now: Duration) -> Option<Vec<u16>> {
        let (n, t) = (self.joined.len(), self.task.threshold());
        let mut here: Vec<u16> = self.in_this_round().collect();
        let distance = |member: u16| (usize::from(member) + n - usize::from(self.own)) % n;
        here.sort_by_key(|member| (self.strikes[usize::from(*member)], distance(*member)));
        let reliable = here.iter().filter(|member| self.strikes[usize::from(**member)] == 0).count();
        let everyone = here.len() + self.proven.len() >= n;
        let waited = self.gather_until().is_some_and(|until| now >= until);
        if here.len() < t || (reliable < t && !everyone && !waited) {
            return None;
        }
        here.truncate(t);
        here.sort_unstable();
        Some(here)
    }

    /// Members in this round and no later one.
    fn in_this_round(&self) -> impl Iterator<Item = u16> {
        self.indices().filter(|member| self.is_in(*member, |round| round == self.round))
    }

    /// Until when a coordinator waits for better signers.
    fn gather_until(&self) -> Option<Duration> {
        let waits = self.round > 0 && self.live_since.is_none() && self.coordinator(self.round) == self.own;
        self.quorum_since.filter(|_| waits).map(|since| since + self.timing.propose / 2)
    }

    /// Starts this member's part once the signers are known, and signs once all nonces are there.
    fn take_part(&mut self) {
        let Some(state) = self.rounds.get(&self.round) else { return };
        let Some(attempt) = state.attempt.clone().filter(|_| self.live_since.is_some()) else { return };
        if !attempt.signers().contains(&self.own) {
            return;
        }
        match self.step {
            Step::Idle => self.persist(attempt.id()),
            Step::NoncesSent => {
                if let Some(sums) = state.sums() {
                    let nonces = sums.nonces.clone();
                    self.step = Step::MakingPartials;
                    self.actions.push(SessionAction::MakePartials { attempt, nonces });
                }
            }
            _ => {}
        }
    }

    fn persist(&mut self, attempt: AttemptId) {
        self.step = Step::Persisting;
        let (task, txid, round) = (self.task.task_id(), self.task.txid(), self.round);
        self.actions.push(SessionAction::Persist(AttemptRecord { task, txid, round, attempt }));
    }

    /// The record of the round is on disk: what cannot be repeated may be said.
    pub(super) fn persisted(&mut self, round: u32) {
        if round != self.round || self.step != Step::Persisting || self.done.is_some() {
            return;
        }
        if self.round == self.last_round() {
            self.plain_persisted = true;
            let messages = (0..self.task.input_count()).map(|input| self.task.message(input, &Path::MultiA)).collect();
            self.step = Step::Finished;
            self.actions.push(SessionAction::MakeSignatures(messages));
            return;
        }
        let Some(attempt) = self.rounds.get(&round).and_then(|state| state.attempt.clone()) else { return };
        if round > 0 && self.coordinator(round) == self.own {
            self.say_once(Body::Proposal { signers: attempt.signers().to_vec() });
        }
        if !attempt.signers().contains(&self.own) {
            self.step = Step::Finished;
            return;
        }
        if *attempt.path() != Path::Key {
            self.attempts_left = self.attempts_left.saturating_sub(1);
        }
        self.step = Step::MakingNonces;
        self.actions.push(SessionAction::MakeNonces(attempt));
    }

    pub(super) fn nonces_made(&mut self, round: u32, nonces: &[PublicNonce]) {
        if round != self.round || self.step != Step::MakingNonces || self.done.is_some() {
            return self.burn(round);
        }
        let Some(attempt) = self.rounds.get(&round).and_then(|state| state.attempt.as_ref()) else { return };
        let attempt = attempt.id();
        let nonces: Vec<_> = nonces.iter().map(PublicNonce::to_bytes).collect();
        self.nonces_shown.extend(nonces.iter().map(|nonce| (self.own, *nonce)));
        self.step = Step::NoncesSent;
        self.say_once(Body::Nonces { attempt, nonces });
        self.look_at(round);
    }

    pub(super) fn partials_made(&mut self, partials: &[PartialSignature]) {
        let Some(state) = self.rounds.get(&self.round) else { return };
        let (Some(attempt), Some(sums)) = (&state.attempt, state.sums()) else { return };
        let (attempt, seen) = (attempt.id(), sums.seen);
        let partials = partials.iter().map(PartialSignature::to_bytes).collect();
        self.step = Step::Finished;
        self.say_once(Body::Partials { attempt, seen, partials });
        self.look_at(self.round);
    }

    pub(super) fn signatures_made(&mut self, signatures: Vec<schnorr::Signature>) {
        if !self.plain_persisted || self.done.is_some() || self.plain.contains_key(&self.own) {
            return;
        }
        let body = Body::Signatures(signatures.clone());
        let message = SessionMessage { task: self.task.task_id(), round: self.last_round(), body };
        self.actions.push(SessionAction::Send(message.clone()));
        self.plain.insert(self.own, (signatures, Kept::Own(message)));
        self.sum_plain();
    }

    /// When the round ends without a signature.
    fn deadline(&self) -> Option<Duration> {
        if self.round == self.last_round() {
            return None;
        }
        let wait = if self.round == 0 { self.timing.key_path } else { self.timing.propose };
        let live = self.live_since.map(|since| since + self.timing.attempt);
        live.or_else(|| self.quorum_since.map(|since| since + wait))
    }

    /// Others left the round. If they did because of their clocks, this member's clock nearly ran out too, and the same
    /// members were silent here.
    fn blame_if_due(&mut self, now: Duration) {
        if self.deadline().is_some_and(|deadline| now + self.timing.propose / 2 >= deadline) {
            self.blame_the_silent();
        }
    }

    /// Names those whose turn it was.
    fn blame_the_silent(&mut self) {
        let round = self.round;
        let Some(state) = self.rounds.get(&round) else { return };
        let attempt = state.attempt.as_ref().filter(|_| self.live_since.is_some());
        let silent: Vec<(u16, Fault)> = match attempt {
            None if round == 0 => {
                let absent = self.indices().filter(|member| !self.is_in(*member, |_| true));
                absent.map(|member| (member, Fault::Silent { round })).collect()
            }
            // It had nobody to propose, perhaps.
            None if self.in_this_round().count() < self.task.threshold() => Vec::new(),
            None => vec![(self.coordinator(round), Fault::NoProposal { round })],
            Some(attempt) => {
                let signers = attempt.signers().iter().copied();
                let without_nonces: Vec<u16> = signers.clone().filter(|signer| !state.has_nonces(*signer)).collect();
                let without_partials = || signers.filter(|signer| !state.has_partials(*signer)).collect();
                let silent = if without_nonces.is_empty() { without_partials() } else { without_nonces };
                silent.into_iter().map(|member| (member, Fault::Silent { round })).collect()
            }
        };
        for (member, fault) in silent {
            if member != self.own && !self.proven.contains(&member) {
                self.strikes[usize::from(member)] += 1;
                self.blame(member, fault);
            }
        }
    }
}

/// Names the plain signatures of a task, for its record on disk.
fn plain_id(task: &impl SigningTask) -> AttemptId {
    let messages: Vec<[u8; 32]> = (0..task.input_count()).map(|input| task.message(input, &Path::MultiA)).collect();
    let parts: Vec<&[u8]> = messages.iter().map(|message| &message[..]).collect();
    AttemptId(tagged_hash("causeway/plain-signing/v1", &parts))
}
