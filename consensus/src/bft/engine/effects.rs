//! Malachite's questions and orders, one after the other, turned into a [`Step`].

use std::collections::BTreeSet;
use std::convert::Infallible;

use arc_malachitebft_core_consensus as consensus;
use arc_malachitebft_core_types as types;
use consensus::{
    ConsensusMsg, Effect, LivenessMsg, MisbehaviorEvidence, Resumable, Resume, SignedConsensusMsg, VoteExtensionError,
};
use types::{BoxError, LinearTimeouts, Round, Timeout};

use super::{EngineFault, Local};
use crate::bft::certificate::{CertificateError, CommitCertificate};
use crate::bft::context::{Context, Signature};
use crate::bft::evidence::Equivocation;
use crate::bft::gossip::{Message, is_signed_proposal, is_signed_vote, verify_polka, verify_round_certificate};
use crate::bft::io::{Output, Role, Step, Timer};
use crate::bft::log::{Entry, LogEntry};
use crate::bft::message::{Proposal, SignedProposal, SignedVote, Vote};
use crate::bft::signer::{Refusal, Signer, ToSign};
use crate::bft::validator_set::ValidatorSet;

/// Collects what one run of the engine asks for.
pub(super) struct Effects<'a> {
    context: Context,
    set: ValidatorSet,
    timeouts: &'a LinearTimeouts,
    signer: Option<&'a mut dyn Signer>,
    local: &'a mut Local,
    known: &'a BTreeSet<Vec<u8>>,
    step: &'a mut Step,
    /// A message whose signatures are known to be those of this set.
    pub(super) checked: Option<Message>,
    /// Why the last commit certificate was refused.
    rejection: Option<CertificateError>,
    fault: Option<EngineFault>,
}

impl<'a> Effects<'a> {
    pub(super) fn new(
        context: Context,
        set: ValidatorSet,
        timeouts: &'a LinearTimeouts,
        signer: Option<&'a mut (dyn Signer + 'static)>,
        local: &'a mut Local,
        known: &'a BTreeSet<Vec<u8>>,
        step: &'a mut Step,
    ) -> Self {
        let signer = signer.map(|signer| signer as &mut dyn Signer);
        Self { context, set, timeouts, signer, local, known, step, checked: None, rejection: None, fault: None }
    }

    /// The first thing that should not have happened.
    pub(super) fn into_fault(self) -> Option<EngineFault> {
        self.fault
    }

    /// Does what the effect asks for. An error would be swallowed by the engine's loop, so there is none: faults are kept.
    pub(super) fn handle(&mut self, effect: Effect<Context>) -> Result<Resume<Context>, Infallible> {
        Ok(match effect {
            Effect::CancelAllTimeouts(r) => {
                self.step.push(Output::StopTimers);
                r.resume_with(())
            }
            Effect::CancelTimeout(timeout, r) => {
                self.stop_timer(timeout);
                r.resume_with(())
            }
            Effect::ScheduleTimeout(timeout, r) => {
                self.start_timer(timeout);
                r.resume_with(())
            }
            Effect::StartRound(height, round, proposer, role, r) => {
                let role = match role {
                    consensus::Role::Proposer => Role::Proposer,
                    consensus::Role::Validator => Role::Validator,
                    consensus::Role::None => Role::Follower,
                };
                let round = self.defined(round);
                self.step.push(Output::RoundStarted { height: height.0, round, proposer, role });
                r.resume_with(())
            }
            Effect::PublishConsensusMsg(message, r) => {
                self.send(message);
                r.resume_with(())
            }
            Effect::PublishLivenessMsg(message, r) => {
                match message {
                    LivenessMsg::Vote(vote) => self.send_again(vote),
                    LivenessMsg::PolkaCertificate(polka) => self.step.push(Output::Send(Message::polka(polka))),
                    LivenessMsg::SkipRoundCertificate(certificate) => {
                        self.step.push(Output::Send(Message::round_certificate(certificate)));
                    }
                }
                r.resume_with(())
            }
            Effect::RepublishVote(vote, r) => {
                self.send_again(vote);
                r.resume_with(())
            }
            Effect::RepublishRoundCertificate(certificate, r) => {
                self.step.push(Output::SendAgain(Message::round_certificate(certificate)));
                r.resume_with(())
            }
            Effect::GetValue(height, round, timeout, r) => {
                let round = self.defined(round);
                let within = self.timeouts.duration_for(timeout);
                self.local.asked = Some(round);
                self.step.push(Output::Propose { height: height.0, round, within });
                r.resume_with(())
            }
            Effect::RestreamProposal(height, round, _valid_round, _proposer, block, r) => {
                let round = self.defined(round);
                self.step.push(Output::Restream { height: height.0, round, block: block.0 });
                r.resume_with(())
            }
            Effect::CertVerifiedSyncValue(response, _proposer, r) => {
                let certificate = &response.certificate;
                let round = self.defined(certificate.round);
                let (height, block) = (certificate.height.0, certificate.value_id.0);
                self.step.push(Output::CertificateVerified { height, round, block });
                r.resume_with(())
            }
            Effect::CertRejectedSyncValue(_peer, _height, error, r) => {
                self.reject(error);
                r.resume_with(())
            }
            Effect::Decide(certificate, _extensions, r) => {
                if let Some(certificate) = self.certificate(&certificate) {
                    self.step.push(Output::Decided(certificate));
                }
                r.resume_with(())
            }
            Effect::Finalize(certificate, _extensions, evidence, r) => {
                if let Some(certificate) = self.certificate(&certificate) {
                    let evidence = self.evidence(evidence);
                    self.step.push(Output::Finalized { certificate, evidence });
                }
                r.resume_with(())
            }
            Effect::WalAppend(_height, input, r) => {
                self.log(&input);
                r.resume_with(())
            }
            Effect::SignVote(vote, r) => r.resume_with(self.sign_vote(vote)),
            Effect::SignProposal(proposal, r) => r.resume_with(self.sign_proposal(proposal)),
            Effect::VerifySignature(message, _key, r) => r.resume_with(match message.message {
                ConsensusMsg::Vote(vote) => {
                    let vote = SignedVote::new(vote, message.signature);
                    matches!(&self.checked, Some(Message::Vote(checked)) if *checked == vote)
                        || is_signed_vote(&self.context, &self.set, &vote)
                }
                ConsensusMsg::Proposal(proposal) => {
                    let proposal = SignedProposal::new(proposal, message.signature);
                    matches!(&self.checked, Some(Message::Proposal(checked)) if *checked == proposal)
                        || is_signed_proposal(&self.context, &self.set, &proposal)
                }
            }),
            Effect::VerifyCommitCertificate(certificate, _set, _thresholds, r) => {
                r.resume_with(self.verify(&certificate).map_err(refusal))
            }
            Effect::VerifyExtendedCommitCertificate(certificate, _set, _thresholds, _policy, r) => {
                let certificate = certificate.trim_vote_extensions();
                let verdict = self.verify(&certificate);
                if verdict.is_ok() {
                    self.log_certificate(&certificate);
                }
                r.resume_with(verdict.map_err(refusal))
            }
            Effect::VerifyPolkaCertificate(polka, _set, _thresholds, r) => {
                let known = matches!(&self.checked, Some(Message::Polka(checked)) if *checked == polka);
                let verdict = if known { Ok(()) } else { verify_polka(&self.context, &self.set, &polka) };
                r.resume_with(verdict.map_err(refusal))
            }
            Effect::VerifyRoundCertificate(certificate, _set, _thresholds, r) => {
                let known = matches!(&self.checked, Some(Message::Round(checked)) if *checked == certificate);
                let verdict =
                    if known { Ok(()) } else { verify_round_certificate(&self.context, &self.set, &certificate) };
                r.resume_with(verdict.map_err(refusal))
            }
            Effect::ExtendVote(.., r) => {
                self.fail(EngineFault::Unexpected { what: "a vote extension" });
                r.resume_with(None)
            }
            Effect::VerifyVoteExtension(.., r) => r.resume_with(Err(VoteExtensionError::InvalidVoteExtension)),
        })
    }

    fn fail(&mut self, fault: EngineFault) {
        self.fault.get_or_insert(fault);
    }

    fn defined(&mut self, round: Round) -> u32 {
        round.as_u32().unwrap_or_else(|| {
            self.fail(EngineFault::Unexpected { what: "the round before the first" });
            0
        })
    }

    fn timer(&mut self, timeout: Timeout) -> Option<Timer> {
        let timer = Timer::from_engine(self.step.height(), timeout);
        if timer.is_none() {
            self.fail(EngineFault::Unexpected { what: "an unknown timer" });
        }
        timer
    }

    fn start_timer(&mut self, timeout: Timeout) {
        if let Some(timer) = self.timer(timeout) {
            self.step.push(Output::StartTimer(timer, self.timeouts.duration_for(timeout)));
        }
    }

    fn stop_timer(&mut self, timeout: Timeout) {
        if let Some(timer) = self.timer(timeout) {
            self.step.push(Output::StopTimer(timer));
        }
    }

    /// A message that was not signed is not sent either.
    fn send(&mut self, message: SignedConsensusMsg<Context>) {
        if *message.signature() == Signature::WITHHELD {
            return;
        }
        self.step.push(Output::Send(match message {
            SignedConsensusMsg::Vote(vote) => Message::Vote(vote),
            SignedConsensusMsg::Proposal(proposal) => Message::Proposal(proposal),
        }));
    }

    fn send_again(&mut self, vote: SignedVote) {
        if vote.signature != Signature::WITHHELD {
            self.step.push(Output::SendAgain(Message::Vote(vote)));
        }
    }

    fn log(&mut self, input: &consensus::Input<Context>) {
        let Some(mut entry) = LogEntry::of(input, false) else {
            return self.fail(EngineFault::Unexpected { what: "an unknown log entry" });
        };
        if let Entry::Proposal(signed) = &entry.entry {
            let proposal = &signed.message;
            let round = self.defined(proposal.round);
            self.local.accepted.insert((proposal.round, proposal.value));
            if Some(proposal.proposer) == self.local.address && self.local.asked == Some(round) {
                self.local.asked = None;
            }
            self.step.push(Output::Accepted {
                height: proposal.height(),
                round,
                block: proposal.block(),
                pol_round: proposal.pol_round(),
                proposer: proposal.proposer(),
            });
        }
        if let Some((_, signature)) = entry.signed().filter(|(address, _)| Some(*address) == self.local.address) {
            entry.own = self.local.signatures.contains(&signature);
            if !entry.own && !self.local.elsewhere {
                self.local.elsewhere = true;
                self.step.push(Output::SignedElsewhere);
            }
        }
        self.append(entry);
    }

    /// A peer's certificate moves the engine to its round, so a replay needs it; the engine itself writes it nowhere.
    fn log_certificate(&mut self, certificate: &types::CommitCertificate<Context>) {
        if let Some(certificate) = self.certificate(certificate) {
            self.append(LogEntry { entry: Entry::Certificate(certificate), own: false });
        }
    }

    fn append(&mut self, entry: LogEntry) {
        if self.known.is_empty() || !self.known.contains(&entry.encode()) {
            self.step.log_mut().push(entry);
        }
    }

    fn sign_vote(&mut self, vote: Vote) -> SignedVote {
        SignedVote::new(vote, self.sign(ToSign::vote(self.context.chain(), &vote)))
    }

    fn sign_proposal(&mut self, proposal: Proposal) -> SignedProposal {
        let signature = self.sign(ToSign::proposal(self.context.chain(), &proposal));
        if signature == Signature::WITHHELD {
            // The engine stopped this timer when the block arrived: it expects to hear its own proposal.
            self.start_timer(Timeout::propose(proposal.round));
        }
        SignedProposal::new(proposal, signature)
    }

    /// The signature, or the one that is none. With it the engine's own check drops the message before it counts or is
    /// written, and everything else goes on: to others it looks like a message that got lost.
    fn sign(&mut self, message: Option<ToSign>) -> Signature {
        let (Some(signer), Some(message)) = (self.signer.as_mut(), message) else {
            self.fail(EngineFault::Unexpected { what: "a signature that nobody can give" });
            return Signature::WITHHELD;
        };
        let answer = if self.local.elsewhere { Err(Refusal::SignedElsewhere) } else { signer.sign(&message) };
        match answer {
            Ok(sealed) => {
                let (signature, mark) = sealed.open();
                self.step.set_mark(mark);
                self.local.signatures.insert(signature);
                signature
            }
            Err(refusal) => {
                self.step.push(Output::Withheld { position: message.position(), refusal });
                Signature::WITHHELD
            }
        }
    }

    /// Our form of a certificate by which the engine decides.
    fn certificate(&mut self, certificate: &types::CommitCertificate<Context>) -> Option<CommitCertificate> {
        CommitCertificate::from_engine(certificate, &self.set)
            .map_err(|error| self.fail(EngineFault::Certificate(error)))
            .ok()
    }

    /// One rule for all: what we hand out must pass what others check.
    fn verify(&mut self, certificate: &types::CommitCertificate<Context>) -> Result<(), CertificateError> {
        let verdict = CommitCertificate::from_engine(certificate, &self.set).and_then(|ours| {
            ours.verify(self.context.chain(), &self.set, certificate.height.0, certificate.value_id.0)
        });
        self.rejection = verdict.err();
        verdict
    }

    /// A peer's certificate failed: by its own fault, if we refused it.
    fn reject(&mut self, error: consensus::Error<Context>) {
        match (error, self.rejection.take()) {
            (consensus::Error::InvalidCommitCertificate(..), Some(rejection)) => {
                self.step.push(Output::CertificateRejected(rejection));
            }
            (error, _) => self.fail(EngineFault::Engine(Box::new(error))),
        }
    }

    /// The contradictions that the engine saw. It checked every signature; what is not a proof by our rules is left out.
    fn evidence(&self, evidence: MisbehaviorEvidence<Context>) -> Vec<Equivocation> {
        let votes = evidence.votes.into_iter().flat_map(|(_, pairs)| pairs);
        let votes = votes.filter_map(|(one, other)| Equivocation::of_votes(one, other).ok());
        let proposals = evidence.proposals.into_iter().flat_map(|(_, pairs)| pairs);
        let proposals = proposals.filter_map(|(one, other)| Equivocation::of_proposals(one, other).ok());
        votes.chain(proposals).filter(|evidence| evidence.verify(self.context.chain(), &self.set).is_ok()).collect()
    }
}

/// Our reason in the engine's words.
fn refusal(error: CertificateError) -> types::CertificateError<Context> {
    types::CertificateError::VerificationError(Some(BoxError::new(Box::new(error))))
}
