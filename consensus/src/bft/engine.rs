//! The engine: one input in, one [`Step`] out. No clock, no randomness, no task.
//!
//! ```text
//! start(h, set, log) -> Step        the log is empty, or what an earlier run of this height wrote
//! step(input)        -> Step        until Decided and Finalized
//! start(h + 1, ..)   -> Step        when the block is committed, and it is time for the next
//! ```
//!
//! Without a signer it follows like a full node. A validator whose signer refuses goes on without that message.
//!
//! Malachite aborts where it finds its own state impossible. Here that, like every answer of it that makes no sense, is
//! an [`EngineFault`]: the engine has stopped, and the log on disk is as good as before. Restart from it.

mod effects;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arc_malachitebft_core_consensus as consensus;
use arc_malachitebft_core_types as types;
use bitcoin::BlockHash;
use causeway_chainspec::{ChainId, Height, SatPerKvb};
use consensus::{LocallyProposedValue, Params, State};
use types::{
    LinearTimeouts, NilOrVal, Round, ThresholdParams, Validity, ValueOrigin, ValuePayload, VoteExtensionPolicy,
    VoteType,
};

use super::certificate::CertificateError;
use super::context::{Address, BlockId, Context, EngineHeight, Signature};
use super::early::Early;
use super::gossip::{CheckedMessage, Message};
use super::io::{Input, Output, Step, TimerStep};
use super::log::{Entry, LogEntry, proposed_value, sync_response};
use super::signer::{Signer, ToSign};
use super::tip_statement::{SignedTipStatement, TipStatement};
use super::validator_set::ValidatorSet;
use crate::peg::evidence::FeeRateQuote;
use effects::Effects;

/// Stands for the address of a node without a key. It is no key: x = 0 is on no point of the curve.
const NOBODY: Address = Address([0; 32]);

/// The engine or its caller is wrong. Every variant from `Stopped` on stops the engine for good.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineFault {
    /// A step before the first start.
    #[error("the engine was not started: this is a bug, please report it")]
    NotStarted,
    /// A start that does not go up. To run a height again, make a new engine and give it the height's log.
    #[error("height {got} was started after height {current}: this is a bug, please report it")]
    NotAbove {
        /// The height that was asked for.
        got: Height,
        /// The height of the engine.
        current: Height,
    },
    /// The log is of another height.
    #[error("the log of height {wanted} holds an entry of height {got}: it is damaged, or was not the one to give")]
    ForeignLog {
        /// Height of the entry.
        got: Height,
        /// Height of the log.
        wanted: Height,
    },
    /// A certificate in the log is of another validator set.
    #[error("a certificate in the log is of another validator set: it is damaged, or was not the one to give")]
    ForeignCertificate(#[source] CertificateError),
    /// An earlier fault stopped the engine.
    #[error("the engine has stopped; see the first fault: restart the node")]
    Stopped,
    /// Malachite gave up.
    #[error("the consensus engine failed: this is a bug, please report it; restart the node")]
    Engine(#[source] Box<consensus::Error<Context>>),
    /// Malachite aborted.
    #[error("the consensus engine aborted: this is a bug, please report it; restart the node")]
    Aborted,
    /// Malachite asked for something that this chain does not use.
    #[error("the consensus engine asked for {what}: this is a bug, please report it; restart the node")]
    Unexpected {
        /// What it asked for.
        what: &'static str,
    },
    /// Malachite decided with a certificate that is none.
    #[error("the consensus engine decided without proof: this is a bug, please report it; restart the node")]
    Certificate(#[source] CertificateError),
}

/// Agreement of one node, height after height.
pub struct Engine {
    context: Context,
    timeouts: LinearTimeouts,
    signer: Option<Box<dyn Signer>>,
    state: Option<State<Context>>,
    early: Early,
    local: Local,
    stopped: bool,
}

/// What this node said, asked and was told in the height, beside what Malachite remembers.
#[derive(Default)]
struct Local {
    address: Option<Address>,
    /// Every signature of the signer.
    signatures: BTreeSet<Signature>,
    /// Others have heard something from this key that this node does not know of.
    elsewhere: bool,
    /// Rounds and blocks of the accepted proposals: nothing else may be judged. Malachite keeps two values a round, and
    /// those must not be a stranger's, nor crowd out our own block when the log is replayed.
    accepted: BTreeSet<(Round, BlockId)>,
    /// The round for which a block was asked for and has not come.
    asked: Option<u32>,
}

impl Engine {
    /// An engine for this chain. Without a signer it only follows.
    pub fn new(chain: ChainId, timeouts: LinearTimeouts, signer: Option<Box<dyn Signer>>) -> Self {
        let context = Context::new(chain);
        Self {
            context,
            timeouts,
            signer,
            state: None,
            early: Early::default(),
            local: Local::default(),
            stopped: false,
        }
    }

    /// The height being agreed on; `None` before the first start.
    pub fn height(&self) -> Option<Height> {
        self.state.as_ref().map(|state| state.height().0)
    }

    /// The round being run; `None` before the first start.
    pub fn round(&self) -> Option<u32> {
        self.state.as_ref().and_then(|state| state.round().as_u32())
    }

    /// Whether the height is decided. Until the next one starts, the engine only sends its last votes again, and keeps
    /// messages of the next height.
    pub fn is_decided(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.driver.step_is_commit())
    }

    /// The validators of the height.
    pub fn validator_set(&self) -> Option<&ValidatorSet> {
        self.state.as_ref().map(State::validator_set)
    }

    /// The validator that this node signs for; `None` without a signer.
    pub fn address(&self) -> Option<Address> {
        self.signer.as_ref().map(|signer| signer.address())
    }

    /// Returns this validator's feerate for the block of this height, signed; `None` without a signer, or if its key cannot be
    /// reached.
    pub fn sign_fee_rate(&self, height: Height, rate: SatPerKvb) -> Option<FeeRateQuote> {
        self.signer.as_ref()?.sign_fee_rate(self.context.chain(), height, rate)
    }

    /// Returns a statement about this validator's tip, signed; `None` without a signer, or if its key cannot be reached.
    pub fn sign_tip_statement(&self, statement: TipStatement) -> Option<SignedTipStatement> {
        self.signer.as_ref()?.sign_tip_statement(self.context.chain(), statement)
    }

    /// Whether more than two thirds prevoted the block in some round of this height, or a certificate commits to it:
    /// then a node that held its verdict back gives it.
    pub fn has_polka(&self, block: BlockHash) -> bool {
        let Some(state) = &self.state else { return false };
        let (set, block) = (state.validator_set(), BlockId(block));
        let prevoted = state.driver.votes().all_rounds().values().any(|round| {
            set.is_quorum(round.votes().get_weight(VoteType::Prevote, &NilOrVal::Val(block)))
                || set.is_quorum(round.votes().get_weight(VoteType::Precommit, &NilOrVal::Val(block)))
        });
        prevoted
            || state.driver.polka_certificates().iter().any(|polka| polka.value_id == block)
            || state.driver.commit_certificates().iter().any(|certificate| certificate.value_id == block)
    }

    /// Starts a height. `log` is what an earlier run of this height wrote, up to wherever a crash cut it off; empty if
    /// there was none. Timers begin anew.
    ///
    /// # Errors
    ///
    /// The height is not above the current one, the log is another height's, or the engine failed.
    pub fn start(&mut self, height: Height, set: ValidatorSet, log: &[LogEntry]) -> Result<Step, EngineFault> {
        if self.stopped {
            return Err(EngineFault::Stopped);
        }
        if let Some(current) = self.height().filter(|current| height <= *current) {
            return Err(EngineFault::NotAbove { got: height, current });
        }
        if let Some(got) = log.iter().filter_map(LogEntry::height).find(|got| *got != height) {
            return Err(EngineFault::ForeignLog { got, wanted: height });
        }
        let inputs = log.iter().map(|entry| entry.clone().into_input(&self.context, &set));
        let inputs: Vec<_> = inputs.collect::<Result<_, _>>().map_err(EngineFault::ForeignCertificate)?;
        let params = Params {
            address: self.address().unwrap_or(NOBODY),
            threshold_params: ThresholdParams::default(),
            value_payload: ValuePayload::ProposalAndParts,
            enabled: self.signer.is_some(),
        };
        // Its own queue of early messages stays empty: `Early` filters them.
        self.state = Some(State::new(self.context, EngineHeight(height), set.clone(), params, 1, 1));
        let signed = log.iter().filter(|entry| entry.own).filter_map(LogEntry::signed);
        self.local = Local {
            address: self.address(),
            signatures: signed.map(|(_, signature)| signature).collect(),
            ..Local::default()
        };
        let mut step = Step::new(height, false);
        self.raise_mark(log, &mut step);

        let known: BTreeSet<Vec<u8>> = log.iter().map(LogEntry::encode).collect();
        let start = consensus::Input::StartHeight(
            EngineHeight(height),
            set.clone(),
            false,
            None,
            VoteExtensionPolicy::Disabled,
        );
        self.run(start, &known, None, &mut step)?;
        if !log.is_empty() {
            let own = log.iter().zip(&inputs).filter(|(entry, _)| entry.own).map(|(_, input)| input);
            if let Some(state) = &mut self.state {
                state.index_wal_entries(own);
            }
            for input in inputs {
                self.run(input, &known, None, &mut step)?;
            }
            if let Some(state) = &mut self.state {
                state.reset_entries_index();
            }
            step.keep_propose(self.local.asked);
        }
        for checked in self.early.take(height) {
            if self.is_decided() {
                break;
            }
            self.run_checked(checked, &set, &known, &mut step)?;
        }
        Ok(step)
    }

    /// Tells the engine what happened.
    ///
    /// # Errors
    ///
    /// The engine was not started, or failed.
    pub fn step(&mut self, input: Input) -> Result<Step, EngineFault> {
        if self.stopped {
            return Err(EngineFault::Stopped);
        }
        let state = self.state.as_ref().ok_or(EngineFault::NotStarted)?;
        let (current, set) = (state.height().0, state.validator_set().clone());
        let mut step = Step::new(current, self.is_decided());
        // What comes back from the log as a verdict must have been one: Malachite looks for proposals of a judged block, but
        // not for those of a block that it proposes.
        if let Input::Propose { height, round, block } = input
            && self.is_asked(height, round)
        {
            let (height, round, block) = (EngineHeight(height), Round::new(round), BlockId(block));
            let value = proposed_value(&self.context, &set, height, round, block, Validity::Valid);
            let value = consensus::Input::ProposedValue(value, ValueOrigin::Consensus);
            self.run(value, &BTreeSet::new(), None, &mut step)?;
        }
        let input = match input {
            Input::Checked(checked) if checked.set() != &set => Input::Message(checked.into_message()),
            Input::Checked(checked) if checked.message().height() > current => {
                if let Some(next) = current.next() {
                    self.early.offer_checked(&self.context, next, checked);
                }
                return Ok(step);
            }
            Input::Checked(checked) if checked.message().height() == current && !self.is_decided() => {
                self.run_checked(checked, &set, &BTreeSet::new(), &mut step)?;
                return Ok(step);
            }
            input => input,
        };
        if let Some(input) = self.translate(input, current, &set, &mut step) {
            self.run(input, &BTreeSet::new(), None, &mut step)?;
        }
        Ok(step)
    }

    /// Runs Malachite on a message of this height whose signatures are not checked again if `set` is what they were checked
    /// against.
    fn run_checked(
        &mut self,
        checked: CheckedMessage,
        set: &ValidatorSet,
        known: &BTreeSet<Vec<u8>>,
        step: &mut Step,
    ) -> Result<(), EngineFault> {
        let counts = checked.set() == set;
        let message = checked.into_message();
        let input = message_input(message.clone());
        self.run(input, known, Some(message).filter(|_| counts), step)
    }

    /// The engine's input, unless ours is of another height. Messages of the next are kept.
    fn translate(
        &mut self,
        input: Input,
        current: Height,
        set: &ValidatorSet,
        step: &mut Step,
    ) -> Option<consensus::Input<Context>> {
        let verdict = |height: Height, round: u32, block, validity| {
            (height == current).then(|| {
                let (height, round, block) = (EngineHeight(height), Round::new(round), BlockId(block));
                proposed_value(&self.context, set, height, round, block, validity)
            })
        };
        // After the decision nothing may be written any more: the log can be gone with the commit.
        let decided = self.is_decided();
        match input {
            // Of another height or set: see `step`.
            Input::Checked(_) => None,
            Input::Message(message) if message.height() > current => {
                if let Some(next) = current.next() {
                    self.early.offer(&self.context, set, next, message);
                }
                None
            }
            Input::TimerElapsed(timer) if timer.height != current => None,
            Input::TimerElapsed(timer) if timer.step == TimerStep::Rebroadcast => {
                Some(consensus::Input::TimeoutElapsed(timer.to_engine()))
            }
            _ if decided => None,
            Input::Message(message) if message.height() < current => None,
            Input::Message(message) => Some(message_input(message)),
            Input::Propose { height, round, block } => {
                if !self.is_asked(height, round) {
                    return None;
                }
                self.local.asked = None;
                let value = LocallyProposedValue::new(EngineHeight(height), Round::new(round), BlockId(block));
                Some(consensus::Input::Propose(value))
            }
            Input::Judged { height, round, block, validity } => {
                if !self.local.accepted.contains(&(Round::new(round), BlockId(block))) {
                    return None;
                }
                let value = verdict(height, round, block, validity)?;
                Some(consensus::Input::ProposedValue(value, ValueOrigin::Consensus))
            }
            Input::Synced { height, round, block, validity } => {
                let state = self.state.as_ref()?;
                state.driver.commit_certificate(Round::new(round), &BlockId(block))?;
                let value = verdict(height, round, block, validity)?;
                Some(consensus::Input::ProposedValue(value, ValueOrigin::Sync))
            }
            Input::TimerElapsed(timer) => Some(consensus::Input::TimeoutElapsed(timer.to_engine())),
            Input::Certificate(certificate) => {
                let response = if certificate.height() == current {
                    sync_response(&certificate, set)
                } else {
                    Err(CertificateError::OtherHeight { got: certificate.height(), wanted: current })
                };
                response.map_err(|error| step.push(Output::CertificateRejected(error))).ok()
            }
        }
    }

    /// Whether a block was asked for, for this round, and is still wanted.
    fn is_asked(&self, height: Height, round: u32) -> bool {
        let here = (Some(height), Some(round)) == (self.height(), self.round());
        here && self.local.asked == Some(round) && !self.is_decided()
    }

    /// Lifts the mark to the last message of ours in the log, in case only the log was written.
    fn raise_mark(&mut self, log: &[LogEntry], step: &mut Step) {
        let Some(signer) = &mut self.signer else { return };
        let chain = self.context.chain();
        let own = log.iter().filter(|entry| entry.own).filter_map(|entry| match &entry.entry {
            Entry::Vote(vote) => ToSign::vote(chain, &vote.message),
            Entry::Proposal(proposal) => ToSign::proposal(chain, &proposal.message),
            Entry::Polka(_) | Entry::Timer(_) | Entry::Certificate(_) | Entry::Verdict { .. } => None,
        });
        // A refusal says that the mark is above already.
        if let Some(sealed) = own.max_by_key(ToSign::position).and_then(|last| signer.sign(&last).ok()) {
            step.set_mark(sealed.open().1);
        }
    }

    /// Runs Malachite on one input. Entries that the log holds already are not written again, and the signatures of the
    /// message `checked` not checked.
    fn run(
        &mut self,
        input: consensus::Input<Context>,
        known: &BTreeSet<Vec<u8>>,
        checked: Option<Message>,
        step: &mut Step,
    ) -> Result<(), EngineFault> {
        let state = self.state.as_mut().ok_or(EngineFault::NotStarted)?;
        let mut effects = Effects::new(
            self.context,
            state.validator_set().clone(),
            &self.timeouts,
            self.signer.as_deref_mut(),
            &mut self.local,
            known,
            step,
        );
        effects.checked = checked;
        let result = catch_unwind(AssertUnwindSafe(|| -> Result<(), Box<consensus::Error<Context>>> {
            consensus::process!(input: input, state: state, metrics: &(), with: effect => effects.handle(effect))
        }));
        let outcome = match (effects.into_fault(), result) {
            (Some(fault), _) => Err(fault),
            (None, Err(_)) => Err(EngineFault::Aborted),
            (None, Ok(result)) => result.map_err(EngineFault::Engine),
        };
        self.stopped = outcome.is_err();
        outcome
    }
}

fn message_input(message: Message) -> consensus::Input<Context> {
    match message {
        Message::Vote(vote) => consensus::Input::Vote(vote),
        Message::Proposal(proposal) => consensus::Input::Proposal(proposal),
        Message::Polka(polka) => consensus::Input::PolkaCertificate(polka),
        Message::Round(certificate) => consensus::Input::RoundCertificate(certificate),
    }
}

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;
