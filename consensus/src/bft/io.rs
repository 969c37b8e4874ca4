//! What goes into the engine, and what comes out.

use std::time::Duration;

use arc_malachitebft_core_types as types;
use bitcoin::BlockHash;
use causeway_chainspec::Height;
use types::{Round, Timeout, TimeoutKind, Validity};

use super::certificate::{CertificateError, CommitCertificate};
use super::context::Address;
use super::evidence::Equivocation;
use super::gossip::{CheckedMessage, Message};
use super::high_water::HighWaterMark;
use super::log::LogEntry;
use super::signer::{Position, Refusal};

/// One thing that happened. What is of another height, or makes no sense now, changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A message arrived, from anyone: the engine checks it.
    Message(Message),
    /// The same, of which the caller has checked the signatures: against the set of its height they are not checked again.
    Checked(CheckedMessage),
    /// The block asked for by [`Output::Propose`] is assembled. Too late or in another round it changes nothing.
    Propose {
        /// The height asked for.
        height: Height,
        /// The round asked for.
        round: u32,
        /// The block.
        block: BlockHash,
    },
    /// The block of an accepted proposal ([`Output::Accepted`], height and round as there) was judged. There is no verdict for "hold": nothing is said until there is
    /// reason to ([`Engine::has_polka`](super::Engine::has_polka), or a certificate), and then that it is valid.
    Judged {
        /// The height of the proposal.
        height: Height,
        /// The round of the proposal. A later proposal of the same block needs no second verdict.
        round: u32,
        /// The block.
        block: BlockHash,
        /// Whether it keeps the rules. A block reported as invalid is never decided, not even by a certificate.
        validity: Validity,
    },
    /// A timer that was asked for has run out.
    TimerElapsed(Timer),
    /// A peer says that a block is final. Answered in the same step by [`Output::CertificateVerified`],
    /// [`Output::CertificateRejected`] or [`Output::Decided`].
    Certificate(CommitCertificate),
    /// The block of a verified certificate was judged, by the rules alone.
    Synced {
        /// The height of the certificate.
        height: Height,
        /// The round of the certificate.
        round: u32,
        /// The block.
        block: BlockHash,
        /// Whether it keeps the rules.
        validity: Validity,
    },
}

/// One thing to do, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this to every validator.
    Send(Message),
    /// Send this again: some have not heard it. (A gossip layer that drops repeated content must not drop this.)
    SendAgain(Message),
    /// Start this timer, instead of a running one of the same name.
    StartTimer(Timer, Duration),
    /// Stop this timer, if it runs.
    StopTimer(Timer),
    /// Stop all timers.
    StopTimers,
    /// A round has begun.
    RoundStarted {
        /// The height.
        height: Height,
        /// The round.
        round: u32,
        /// Who proposes in it.
        proposer: Address,
        /// What this node does in it.
        role: Role,
    },
    /// Assemble a block and answer with [`Input::Propose`]; the round gives up on it after this time.
    Propose {
        /// The height to propose for.
        height: Height,
        /// The round to propose in.
        round: u32,
        /// When the propose timer runs out.
        within: Duration,
    },
    /// A proposal was accepted: it is signed by the proposer of its round. Its block may be fetched and judged, and no
    /// other block. Said again after a restart.
    Accepted {
        /// The height of the proposal.
        height: Height,
        /// Its round.
        round: u32,
        /// Its block.
        block: BlockHash,
        /// The earlier round whose prevotes justify it, if it is proposed again.
        pol_round: Option<u32>,
        /// Who proposed.
        proposer: Address,
    },
    /// Send the body of this block again, which is proposed again.
    Restream {
        /// The height of the block.
        height: Height,
        /// The round in which it is proposed again.
        round: u32,
        /// The block.
        block: BlockHash,
    },
    /// A certificate from a peer is right. Get the block, judge it by the rules alone, and answer with [`Input::Synced`].
    CertificateVerified {
        /// The height.
        height: Height,
        /// The round of the certificate.
        round: u32,
        /// The final block.
        block: BlockHash,
    },
    /// A certificate from a peer is wrong: the peer lies.
    CertificateRejected(CertificateError),
    /// The block is final. Commit it with this certificate.
    Decided(CommitCertificate),
    /// The height is over. Start the next one once the block is committed.
    Finalized {
        /// The certificate of the height.
        certificate: CommitCertificate,
        /// Contradictions of validators that were seen in this height, each verified.
        evidence: Vec<Equivocation>,
    },
    /// Somebody sent a message with the signature of this node's key that this node has not signed, by its log: another
    /// machine has the key, or the log was lost. For the rest of the height it signs nothing. Raise an alarm.
    SignedElsewhere,
    /// The signer refused, and this validator keeps silent for that message. Ordinary after a crash between signing and
    /// writing; otherwise a sign of a second machine with the same key, or of a lost log.
    Withheld {
        /// The message that was not signed.
        position: Position,
        /// Why.
        refusal: Refusal,
    },
}

impl Output {
    /// Whether the outside learns something from this that the node must not forget.
    fn is_public(&self) -> bool {
        match self {
            Self::Send(_) | Self::SendAgain(_) | Self::Restream { .. } | Self::Decided(_) | Self::Finalized { .. } => {
                true
            }
            Self::StartTimer(..)
            | Self::StopTimer(_)
            | Self::StopTimers
            | Self::RoundStarted { .. }
            | Self::Propose { .. }
            | Self::Accepted { .. }
            | Self::CertificateVerified { .. }
            | Self::CertificateRejected(_)
            | Self::SignedElsewhere
            | Self::Withheld { .. } => false,
        }
    }
}

/// What a node does in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It proposes, and votes.
    Proposer,
    /// It votes.
    Validator,
    /// It follows.
    Follower,
}

/// A timer. This is its name: starting it again moves it. One of an earlier height that runs out late changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timer {
    /// The height that it belongs to.
    pub height: Height,
    /// What is waited for.
    pub step: TimerStep,
    /// The round of it.
    pub round: u32,
}

/// What a timer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimerStep {
    /// The proposal.
    Propose,
    /// Prevotes that agree.
    Prevote,
    /// Precommits that agree.
    Precommit,
    /// Sending the last votes again.
    Rebroadcast,
}

impl Timer {
    /// The engine's timer; `None` for one that this chain never uses: it sets no target time.
    pub(super) fn from_engine(height: Height, timeout: Timeout) -> Option<Self> {
        let step = match timeout.kind {
            TimeoutKind::Propose => TimerStep::Propose,
            TimeoutKind::Prevote => TimerStep::Prevote,
            TimeoutKind::Precommit => TimerStep::Precommit,
            TimeoutKind::Rebroadcast => TimerStep::Rebroadcast,
            TimeoutKind::FinalizeHeight(_) => return None,
        };
        Some(Self { height, step, round: timeout.round.as_u32()? })
    }

    pub(super) fn to_engine(self) -> Timeout {
        let kind = match self.step {
            TimerStep::Propose => TimeoutKind::Propose,
            TimerStep::Prevote => TimeoutKind::Prevote,
            TimerStep::Precommit => TimeoutKind::Precommit,
            TimerStep::Rebroadcast => TimeoutKind::Rebroadcast,
        };
        Timeout::new(Round::new(self.round), kind)
    }
}

/// What one input led to: first what to write down, then, sealed behind it, what to do.
#[derive(Debug)]
#[must_use]
pub struct Step {
    height: Height,
    /// Everything of the height was written with its decision.
    settled: bool,
    log: Vec<LogEntry>,
    mark: Option<HighWaterMark>,
    outputs: Vec<Output>,
}

/// Until when a write must have reached the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// Before [`Persist::persist`] returns, with everything written before: others are about to learn of it.
    Now,
    /// With the next write that says `Now`. Lost in a crash, it is as if the input had never come.
    Later,
}

/// A disk that remembers for the engine.
pub trait Persist {
    /// Why it cannot.
    type Error;

    /// Appends the entries to the log of this height, then replaces the high-water mark, if there is one: in this order,
    /// as a log behind its mark makes a validator keep silent, while a mark behind its log costs nothing. There may be
    /// nothing to append, only what was appended before to sync. The log of a height may be dropped when its block is
    /// committed: after [`Output::Decided`] nothing of the height is written any more.
    ///
    /// # Errors
    ///
    /// Something was not written. Stop the node: nothing of the step may be acted on.
    fn persist(
        &mut self,
        height: Height,
        log: &[LogEntry],
        mark: Option<&HighWaterMark>,
        writing: Writing,
    ) -> Result<(), Self::Error>;
}

impl Step {
    pub(super) fn new(height: Height, settled: bool) -> Self {
        Self { height, settled, log: Vec::new(), mark: None, outputs: Vec::new() }
    }

    /// Drops every request for a block but that of this round: a replay repeats those that were answered.
    pub(super) fn keep_propose(&mut self, asked: Option<u32>) {
        self.outputs.retain(|output| !matches!(output, Output::Propose { round, .. } if Some(*round) != asked));
    }

    /// The height that the step is of.
    pub fn height(&self) -> Height {
        self.height
    }

    pub(super) fn log_mut(&mut self) -> &mut Vec<LogEntry> {
        &mut self.log
    }

    pub(super) fn set_mark(&mut self, mark: Option<HighWaterMark>) {
        if mark.is_some() {
            self.mark = mark;
        }
    }

    pub(super) fn push(&mut self, output: Output) {
        self.outputs.push(output);
    }

    /// Writes down what must be remembered, and then tells what to do.
    ///
    /// # Errors
    ///
    /// The disk's. Nothing is to be done then, and the node must stop.
    pub fn persist<P: Persist>(self, disk: &mut P) -> Result<Vec<Output>, P::Error> {
        let public = self.mark.is_some() || self.outputs.iter().any(Output::is_public);
        // With nothing to append, entries of earlier steps may still be on their way.
        if public && !self.settled || !self.log.is_empty() {
            let writing = if public { Writing::Now } else { Writing::Later };
            disk.persist(self.height, &self.log, self.mark.as_ref(), writing)?;
        }
        Ok(self.outputs)
    }
}
