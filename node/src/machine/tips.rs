//! The tip of a validator that starts: it takes no part in a height before others have said that it is not old.
//!
//! A disk or a virtual machine that was restored as a whole has an old mark beside an old chain: it would sign again where it
//! has signed already. So a validator that starts asks for the others' tips, with a number that nobody could foresee, and
//! starts its first height once
//!
//! - validators that with it hold more than two thirds of the power have answered, each with a tip that is not above its own,
//! - and nobody has answered with one above, or with a message of this validator's that it does not know of: then the tip
//!   has to come there first. Whoever claims what never comes is not waited for longer than [`UNPROVEN`].
//!
//! It listens for [`LISTEN`] before that, unless all have answered. Whoever waits answers too, or validators that all start together would wait for ever. One that alone holds more than two
//! thirds needs nobody: nobody could have gone on without it. Full nodes send questions and answers on, so that a validator
//! which knows only its sentries is heard.
//!
//! What a message costs: one signature's check, for a question that is newer than the validator's last one, at most one of a
//! validator each [`QUESTION_AGAIN`]; for an answer to a question that was heard here, once from each validator. Anything else
//! is dropped unread. A copy of an old question passes once where the validator's last one is forgotten, and is no harm.
//! Memory: [`QUESTIONS_KEPT`] questions of each validator, and who has answered them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use causeway_chainspec::{Height, tagged_hash};
use causeway_consensus::bft::signer::Position;
use causeway_consensus::bft::tip_statement::TIP_ANSWERS_MAX;
use causeway_consensus::bft::{
    Address, LogEntry, SignedTipStatement, Signer, TipAnswer, TipNonce, TipStatement, ValidatorSet,
};
use libp2p::PeerId;

use super::Node;
use super::action::{Action, RelayVerdict};
use super::event::{GossipId, Now};
use super::report::{Offence, Report};
use super::timers::Alarm;
use crate::wire::{Topic, encode_tip_statement};

/// How long a claim to have blocks above ours is believed that nobody can show.
const UNPROVEN: Duration = Duration::from_secs(30);

/// From a connection to the first question: others may connect at the same moment.
const GATHER: Duration = Duration::from_millis(20);

/// How long a validator listens after its first question, unless all have answered: whoever knows better may be slower than the
/// others.
const LISTEN: Duration = Duration::from_secs(1);

/// Between two questions, when somebody has come who did not hear the first.
const ASK_SOON: Duration = Duration::from_millis(150);

/// Between two questions otherwise: at first, and at most.
const ASK_FIRST: Duration = Duration::from_millis(500);
const ASK_MAX: Duration = Duration::from_secs(4);

/// Between two questions of one validator that are sent on. Less than between those of an honest one, since messages overtake
/// each other.
const QUESTION_AGAIN: Duration = Duration::from_millis(100);

/// After this time without a question of a validator, any is taken as its newest: its clock may have been set back.
const QUESTION_FORGOTTEN: Duration = Duration::from_secs(60);

/// Questions of a validator that may still be answered.
const QUESTIONS_KEPT: usize = 4;

/// How long questions gather until they are answered together.
const ANSWER_DELAY: Duration = Duration::from_millis(20);

/// Between two lines of the log that say that a validator waits.
const TELL: Duration = Duration::from_secs(10);

/// What is asked and answered about tips.
#[derive(Debug)]
pub(super) struct Tips {
    /// What nobody can foresee about this run.
    seed: [u8; 32],
    /// Until this validator's tip is confirmed.
    own: Option<Own>,
    questions: BTreeMap<Address, Questions>,
    /// Questions that this validator has not answered yet, and whose they are.
    owed: BTreeMap<TipNonce, Address>,
    /// Where the highest message of each validator stands that was heard, in this run or by the log of an earlier one.
    heard: BTreeMap<Address, Position>,
}

/// A validator that waits.
#[derive(Debug)]
struct Own {
    /// Where the last message stands that it knows it has signed.
    signed: Option<Position>,
    asked: u64,
    first: Option<Duration>,
    /// When it last asked, and by which time.
    last: Option<(Duration, u64)>,
    told: BTreeMap<Address, Told>,
    /// When the operator was last told.
    reported: Duration,
}

/// What a validator said of its tip.
#[derive(Clone, Copy, Debug)]
struct Told {
    /// The height that our tip has to have: the teller's, or where it heard something of ours that we do not know of.
    height: Height,
    /// Since when that is more than we have, if it is.
    since: Duration,
}

/// The last questions of a validator.
#[derive(Debug)]
struct Questions {
    time: u64,
    taken: Duration,
    /// Each with those who have answered it.
    open: VecDeque<(TipNonce, BTreeSet<Address>)>,
}

/// What the answers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// This node may go on: its tip is confirmed, or it needs no confirmation.
    Confirmed,
    /// Answers are missing, or blocks that others claim to have.
    Waiting {
        /// The power that has confirmed the tip, our own included.
        power: u64,
    },
}

impl Tips {
    /// Of a node that starts. `seed` is random, and new in every run.
    pub(super) fn new(seed: [u8; 32], signer: Option<&dyn Signer>, log: &[LogEntry]) -> Self {
        let mut tips =
            Self { seed, own: None, questions: BTreeMap::new(), owed: BTreeMap::new(), heard: BTreeMap::new() };
        for (by, position) in log.iter().filter_map(LogEntry::position) {
            tips.hear(by, position);
        }
        // A log is written ahead of the mark.
        let logged = log.iter().filter(|entry| entry.is_own()).filter_map(LogEntry::position).map(|(_, at)| at).max();
        tips.own = signer.map(|signer| Own {
            signed: signer.position().max(logged),
            asked: 0,
            first: None,
            last: None,
            told: BTreeMap::new(),
            reported: Duration::ZERO,
        });
        tips
    }

    /// Remembers where a validator's message stands whose signature is right.
    pub(super) fn hear(&mut self, by: Address, position: Position) {
        let highest = self.heard.entry(by).or_insert(position);
        *highest = position.max(*highest);
    }

    /// Forgets validators that are none any more.
    pub(super) fn keep(&mut self, set: &ValidatorSet) {
        self.questions.retain(|validator, _| set.get(validator).is_some());
        self.heard.retain(|validator, _| set.get(validator).is_some());
    }

    /// Whether this validator's tip is not confirmed yet.
    pub(super) fn is_waiting(&self) -> bool {
        self.own.is_some()
    }

    /// Questions that are remembered.
    pub(super) fn len(&self) -> usize {
        self.questions.values().map(|questions| questions.open.len()).sum()
    }

    /// Whether a question is newer than its validator's last one, and not too soon after it.
    fn is_new(&self, validator: &Address, time: u64, uptime: Duration) -> bool {
        self.questions.get(validator).is_none_or(|last| {
            let since = uptime.saturating_sub(last.taken);
            since >= QUESTION_FORGOTTEN || (since >= QUESTION_AGAIN && time > last.time)
        })
    }

    fn take(&mut self, validator: Address, time: u64, nonce: TipNonce, uptime: Duration) {
        let new = || Questions { time, taken: uptime, open: VecDeque::new() };
        let questions = self.questions.entry(validator).or_insert_with(new);
        (questions.time, questions.taken) = (time, uptime);
        questions.open.push_back((nonce, BTreeSet::new()));
        if questions.open.len() > QUESTIONS_KEPT {
            questions.open.pop_front();
        }
    }

    /// The questions of this answer that were heard here, and not from this validator before.
    fn open<'a>(
        &mut self,
        answers: &'a [TipAnswer],
        by: &Address,
    ) -> Vec<(Address, &'a TipAnswer, &mut BTreeSet<Address>)> {
        let mut open = Vec::new();
        for (of, questions) in &mut self.questions {
            for (nonce, answered) in &mut questions.open {
                let Ok(place) = answers.binary_search_by_key(nonce, |answer| answer.nonce) else { continue };
                if !answered.contains(by) {
                    open.push((*of, &answers[place], answered));
                }
            }
        }
        open
    }
}

impl Node {
    /// Whether this node may start a height. If not, it is started once it may.
    pub(super) fn may_start(&mut self, now: Now) -> bool {
        if self.tip_standing(now) != Standing::Confirmed {
            return false;
        }
        // A validator that is not in the set of this height may be in a later one.
        if self.engine.address().is_some_and(|address| self.set.get(&address).is_some())
            && let Some(own) = self.tips.own.take()
        {
            self.timers.stop(Alarm::AskTips);
            if own.reported > Duration::ZERO {
                self.actions.push(Action::Report(Report::TipConfirmed { height: self.tip.height() }));
            }
        }
        true
    }

    fn tip_standing(&self, now: Now) -> Standing {
        let Some(own) = &self.tips.own else { return Standing::Confirmed };
        let member = self.engine.address().and_then(|address| self.set.get(&address));
        let Some(member) = member else { return Standing::Confirmed };
        let mut power = member.power();
        let mut ahead = false;
        for (validator, told) in &own.told {
            let Some(other) = self.set.get(validator) else { continue };
            if told.height <= self.tip.height() {
                power = power.saturating_add(other.power());
            } else {
                ahead |= now.uptime < told.since + UNPROVEN;
            }
        }
        // One that holds a quorum by itself is behind nobody.
        let alone = self.set.is_quorum(member.power());
        let all = own.told.len() + 1 >= self.set.members().len();
        let listened = all || own.first.is_some_and(|first| now.uptime >= first + LISTEN);
        if alone || (self.set.is_quorum(power) && !ahead && listened) {
            Standing::Confirmed
        } else {
            Standing::Waiting { power }
        }
    }

    /// Somebody is connected who may know others.
    pub(super) fn hasten_tips(&mut self, now: Now) {
        if let Some(own) = &self.tips.own {
            let earliest = own.last.map_or(Duration::ZERO, |(at, _)| at + ASK_SOON);
            self.timers.set_at_latest(Alarm::AskTips, earliest.max(now.uptime + GATHER));
        }
    }

    /// Asks the other validators for their tips, and looks whether it may go on.
    pub(super) fn ask_tips(&mut self, now: Now) {
        let standing = self.tip_standing(now);
        let (height, total) = (self.tip.height(), self.set.total_power());
        let Some(own) = &mut self.tips.own else { return };
        let power = match standing {
            Standing::Confirmed => {
                self.timers.set(Alarm::StartHeight, self.start_at.max(now.uptime));
                return;
            }
            Standing::Waiting { power } => power,
        };
        let clock = u64::try_from(now.unix.as_millis()).unwrap_or(u64::MAX);
        let time = own.last.map_or(clock, |(_, last)| clock.max(last.saturating_add(1)));
        let whole = tagged_hash("causeway/tip-nonce/v1", &[&self.tips.seed, &own.asked.to_le_bytes()]);
        let nonce: TipNonce = *whole.first_chunk().expect("a hash has 32 bytes");
        own.last = Some((now.uptime, time));
        let first = *own.first.get_or_insert(now.uptime);
        let wait = ASK_FIRST.saturating_mul(1 << own.asked.min(8)).min(ASK_MAX);
        own.asked += 1;
        if now.uptime >= own.reported + TELL {
            own.reported = now.uptime;
            self.actions.push(Action::Report(Report::TipUnconfirmed { height, power, total }));
        }
        self.timers.set(Alarm::AskTips, now.uptime + wait);
        if now.uptime < first + LISTEN {
            self.timers.set_at_latest(Alarm::AskTips, first + LISTEN);
        }
        let Some(signed) = self.engine.sign_tip_statement(TipStatement::Question { time, nonce }) else { return };
        self.tips.take(signed.validator, time, nonce, now.uptime);
        self.publish_tip_statement(now, &signed);
    }

    /// A statement about a tip.
    pub(super) fn gossiped_tip_statement(&mut self, now: Now, peer: PeerId, id: GossipId, content: &[u8]) {
        let Ok(signed) = SignedTipStatement::decode(content) else {
            self.relay(id, RelayVerdict::Reject);
            return self.punish(now, peer, Offence::Malformed);
        };
        let by = signed.validator;
        let is_own = self.engine.address() == Some(by);
        let Some(member) = self.set.get(&by).filter(|_| !is_own) else { return self.relay(id, RelayVerdict::Ignore) };
        let is_useful = match &signed.statement {
            TipStatement::Question { time, .. } => self.tips.is_new(&by, *time, now.uptime),
            TipStatement::Answer { answers, .. } => !self.tips.open(answers, &by).is_empty(),
        };
        if !is_useful || !self.peers.begin(&peer, Topic::Consensus, 1) {
            return self.of_no_use(peer, Topic::Consensus, id);
        }
        let is_signed = signed.signature.verifies(&signed.statement.digest(self.chain), member.key());
        self.peers.end(&peer, Topic::Consensus, 1, u32::from(!is_signed));
        if !is_signed {
            // Nobody sends a statement on before this check.
            self.relay(id, RelayVerdict::Reject);
            return self.punish(now, peer, Offence::BadSignature);
        }
        self.relay(id, RelayVerdict::Accept);
        match signed.statement {
            TipStatement::Question { time, nonce } => {
                self.tips.take(by, time, nonce, now.uptime);
                if self.tips.own.as_ref().is_some_and(|own| !own.told.contains_key(&by)) {
                    // It has just started, and may not have heard ours.
                    self.hasten_tips(now);
                }
                if self.engine.address().is_some() && self.tips.owed.len() < TIP_ANSWERS_MAX {
                    self.tips.owed.insert(nonce, by);
                    self.timers.set_at_latest(Alarm::AnswerTips, now.uptime + ANSWER_DELAY);
                }
            }
            TipStatement::Answer { height, answers } => self.tip_answered(now, by, height, &answers),
        }
    }

    fn tip_answered(&mut self, now: Now, by: Address, height: Height, answers: &[TipAnswer]) {
        let me = self.engine.address();
        let mut mine = None;
        for (of, answer, answered) in self.tips.open(answers, &by) {
            answered.insert(by);
            if Some(of) == me {
                mine = Some(answer);
            }
        }
        let tip = self.tip.height();
        let (Some(answer), Some(own)) = (mine, &mut self.tips.own) else { return };
        // What this validator has signed and forgotten, it may contradict within that height.
        let forgotten = answer.signed.filter(|signed| Some(*signed) > own.signed);
        let height = forgotten.map_or(height, |signed| height.max(signed.height));
        let told = own.told.entry(by).or_insert(Told { height, since: now.uptime });
        if told.height <= tip {
            told.since = now.uptime;
        }
        told.height = told.height.max(height);
        if self.tip_standing(now) == Standing::Confirmed {
            self.timers.set(Alarm::StartHeight, self.start_at.max(now.uptime));
        }
    }

    /// Answers the questions that have gathered.
    pub(super) fn answer_tips(&mut self, now: Now) {
        let owed = std::mem::take(&mut self.tips.owed);
        let heard = &self.tips.heard;
        let answer = |(nonce, of)| TipAnswer { nonce, signed: heard.get(&of).copied() };
        let answers = owed.into_iter().map(answer).collect::<Vec<_>>();
        if answers.is_empty() {
            return;
        }
        let height = self.tip.height();
        if let Some(signed) = self.engine.sign_tip_statement(TipStatement::Answer { height, answers }) {
            self.publish_tip_statement(now, &signed);
        }
    }

    fn publish_tip_statement(&mut self, now: Now, signed: &SignedTipStatement) {
        let bytes = encode_tip_statement(signed, now.nonce());
        self.actions.push(Action::Publish { topic: Topic::Consensus, bytes });
    }
}

#[cfg(test)]
mod tests;
