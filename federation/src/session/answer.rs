//! What members have of a round, and how they come to what they lack.
//!
//! Everything is said once, to all. Connections break and queues are bounded, so that it may not arrive: now and then
//! each member says what it has of its round, and is sent what it lacks, from those who said it at once, and from
//! everyone else when it asks again. So what one honest member has heard, all hear, and a round in which somebody is
//! silent costs no more than these short words.

use std::time::Duration;

use super::message::{Body, MessageName, SignedMessage};
use super::round::Kept;
use super::task::SigningTask;
use super::{Session, SessionAction};

/// When a member said what it has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    round: u32,
    /// For the first time in this round.
    first: Duration,
    /// When something was last sent for it.
    answered: Option<Duration>,
}

impl<T: SigningTask> Session<T> {
    /// Says that this member is in its round, and what it has of it.
    pub(super) fn say_what_is_here(&mut self, now: Duration) {
        self.next_repeat = now + self.timing.resend;
        let heard = self.joined.iter().map(|joined| joined.as_ref().map_or(0, |(round, _)| round.saturating_add(1)));
        let heard = heard.collect();
        let have = self.said_in_round().map(|kept| self.name(kept)).collect();
        self.say(Body::Join { heard, have });
    }

    /// What was said in this round and can be said again.
    fn said_in_round(&self) -> impl Iterator<Item = &Kept> {
        let plain = self.plain.values().map(|(_, kept)| kept).filter(|_| self.round == self.last_round());
        self.rounds.get(&self.round).into_iter().flat_map(|state| state.all()).chain(plain)
    }

    fn name(&self, kept: &Kept) -> MessageName {
        match kept {
            Kept::Own(message) => message.name(self.own),
            Kept::Theirs(signed) => signed.message().name(signed.member()),
        }
    }

    /// Sends a member what its word shows that it lacks.
    pub(super) fn answer(&mut self, now: Duration, signed: &SignedMessage) {
        let (to, round) = (signed.member(), signed.message().round);
        let Body::Join { heard, have } = &signed.message().body else { return };
        if to == self.own {
            return;
        }
        let fresh = Asked { round, first: now, answered: None };
        let asked = self.asked[usize::from(to)].filter(|asked| asked.round == round).unwrap_or(fresh);
        self.asked[usize::from(to)] = Some(asked);
        let pause = self.timing.resend / 2;
        if asked.answered.is_some_and(|answered| now < answered + pause) {
            return;
        }
        // The first time, what others said is under way.
        let relays = now >= asked.first + pause;
        let mut actions = Vec::new();
        for (member, joined) in self.joined.iter().enumerate() {
            let Some((at, Some(word))) = joined else { continue };
            if relays && *at >= self.round && heard.get(member).is_none_or(|heard| heard <= at) {
                actions.push(SessionAction::RelayTo { to, signed: word.clone() });
            }
        }
        if round == self.round {
            let lacks = self.said_in_round().filter(|kept| relays || matches!(kept, Kept::Own(_)));
            actions.extend(lacks.filter(|kept| !have.contains(&self.name(kept))).map(|kept| kept.send_to(to)));
        }
        if !actions.is_empty() {
            self.asked[usize::from(to)] = Some(Asked { answered: Some(now), ..asked });
            self.actions.extend(actions);
        }
    }
}
