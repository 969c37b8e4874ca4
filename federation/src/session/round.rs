//! What was said in one round, and what it adds up to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bitcoin::secp256k1::{PublicKey, schnorr};
use causeway_chainspec::tagged_hash;

use super::event::{Fault, SessionAction};
use super::message::{Body, SessionMessage, SignedMessage};
use super::task::{Attempt, AttemptId};
use crate::musig::{AggregateNonce, PartialSignature, PublicNonce, SumError};

/// A message that is kept, to be repeated.
#[derive(Clone, Debug)]
pub(super) enum Kept {
    /// Ours: signed whenever it is sent.
    Own(SessionMessage),
    /// Another member's.
    Theirs(SignedMessage),
}

impl Kept {
    pub(super) fn message(&self) -> &SessionMessage {
        match self {
            Self::Own(message) => message,
            Self::Theirs(signed) => signed.message(),
        }
    }

    /// To one member.
    pub(super) fn send_to(&self, to: u16) -> SessionAction {
        match self {
            Self::Own(message) => SessionAction::SendTo { to, message: message.clone() },
            Self::Theirs(signed) => SessionAction::RelayTo { to, signed: signed.clone() },
        }
    }

    pub(super) fn repeat(&self) -> SessionAction {
        match self {
            Self::Own(message) => SessionAction::Send(message.clone()),
            Self::Theirs(signed) => SessionAction::Relay(signed.clone()),
        }
    }
}

/// What became of a message that was to be kept.
pub(super) enum Keeping {
    /// It is kept.
    New,
    /// It was known.
    Known,
    /// The member said something else before: this.
    Conflict(Box<Kept>),
}

/// All nonces of an attempt, added up.
#[derive(Clone, Debug)]
pub(super) struct Sums {
    /// For each input.
    pub(super) nonces: Vec<AggregateNonce>,
    /// Hash of the nonces that went in.
    pub(super) seen: [u8; 32],
}

/// What a look at a round's messages gave.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) faults: Vec<(u16, Fault)>,
    /// Signers have different nonces of somebody.
    pub(super) disputed: bool,
    /// The attempt is complete.
    pub(super) signatures: Option<Result<Vec<schnorr::Signature>, SumError>>,
}

/// One round of a task: at most one proposal, and of each member at most one message of each kind.
#[derive(Debug, Default)]
pub(super) struct Round {
    pub(super) proposal: Option<Kept>,
    pub(super) attempt: Option<Arc<Attempt>>,
    nonces: BTreeMap<u16, Kept>,
    partials: BTreeMap<u16, Kept>,
    parsed: BTreeMap<u16, Vec<PublicNonce>>,
    sums: Option<Sums>,
    checked: BTreeMap<u16, Vec<PartialSignature>>,
    refused: BTreeSet<u16>,
    /// Everything was passed on as evidence.
    pub(super) shown: bool,
}

impl Round {
    /// Keeps a message of a member, unless there is one.
    pub(super) fn keep(&mut self, member: u16, kept: Kept) -> Keeping {
        let earlier = match kept.message().body {
            Body::Proposal { .. } => self.proposal.as_ref(),
            Body::Nonces { .. } => self.nonces.get(&member),
            Body::Partials { .. } => self.partials.get(&member),
            Body::Join { .. } | Body::Signatures(_) | Body::Result { .. } => return Keeping::Known,
        };
        match earlier {
            Some(earlier) if earlier.message() == kept.message() => return Keeping::Known,
            Some(earlier) => return Keeping::Conflict(Box::new(earlier.clone())),
            None => {}
        }
        match kept.message().body {
            Body::Proposal { .. } => self.proposal = Some(kept),
            Body::Nonces { .. } => drop(self.nonces.insert(member, kept)),
            _ => drop(self.partials.insert(member, kept)),
        }
        Keeping::New
    }

    /// Everything that was said, to be repeated.
    pub(super) fn all(&self) -> impl Iterator<Item = &Kept> {
        self.proposal.iter().chain(self.nonces.values()).chain(self.partials.values())
    }

    /// The sum of all signers' nonces, once all are there.
    pub(super) fn sums(&self) -> Option<&Sums> {
        self.sums.as_ref()
    }

    /// Whether a signer's nonces are here.
    pub(super) fn has_nonces(&self, member: u16) -> bool {
        self.parsed.contains_key(&member)
    }

    /// Whether a signer's partial signatures are here and right.
    pub(super) fn has_partials(&self, member: u16) -> bool {
        self.checked.contains_key(&member)
    }

    /// Looks at what is new since the last time.
    pub(super) fn check(&mut self, members: &[PublicKey]) -> Findings {
        let mut findings = Findings::default();
        let Some(attempt) = self.attempt.clone() else { return findings };
        self.parse_nonces(&attempt, &mut findings);
        if self.sums.is_none() {
            self.sums = self.add_up(&attempt);
        }
        let Some(sums) = self.sums.clone() else { return findings };
        for signer in attempt.signers() {
            if self.checked.contains_key(signer) || self.refused.contains(signer) {
                continue;
            }
            let Some(Body::Partials { attempt: of, seen, partials }) =
                self.partials.get(signer).map(|kept| &kept.message().body)
            else {
                continue;
            };
            if *of != attempt.id() {
                continue;
            }
            if *seen != sums.seen {
                findings.disputed = true;
                continue;
            }
            match check_partials(&attempt, *signer, members, &self.parsed, &sums, partials) {
                Ok(partials) => drop(self.checked.insert(*signer, partials)),
                Err(fault) => {
                    self.refused.insert(*signer);
                    findings.faults.push((*signer, fault));
                }
            }
        }
        if attempt.signers().iter().all(|signer| self.checked.contains_key(signer)) {
            findings.signatures = Some(self.signatures(&attempt, &sums));
        }
        findings
    }

    fn parse_nonces(&mut self, attempt: &Attempt, findings: &mut Findings) {
        let round = attempt.round();
        for signer in attempt.signers() {
            if self.parsed.contains_key(signer) || self.refused.contains(signer) {
                continue;
            }
            let Some(nonces) = self.nonces.get(signer).and_then(|kept| nonces_for(kept, attempt.id())) else {
                continue;
            };
            let parsed = if nonces.len() == attempt.inputs().len() {
                let each = nonces.iter().enumerate();
                each.map(|(input, nonce)| PublicNonce::from_bytes(nonce).map_err(|_| Fault::BadNonce { round, input }))
                    .collect()
            } else {
                Err(Fault::WrongCount { round })
            };
            match parsed {
                Ok(parsed) => drop(self.parsed.insert(*signer, parsed)),
                Err(fault) => {
                    self.refused.insert(*signer);
                    findings.faults.push((*signer, fault));
                }
            }
        }
    }

    fn add_up(&self, attempt: &Attempt) -> Option<Sums> {
        let signers: Option<Vec<_>> = attempt.signers().iter().map(|signer| self.parsed.get(signer)).collect();
        let signers = signers?;
        let bytes: Vec<u8> = signers.iter().flat_map(|nonces| nonces.iter().flat_map(PublicNonce::to_bytes)).collect();
        let seen = tagged_hash("causeway/signing-nonces/v1", &[&attempt.id().0, &bytes]);
        let sum = |input: usize| AggregateNonce::sum(signers.iter().filter_map(|nonces| nonces.get(input)));
        Some(Sums { nonces: (0..attempt.inputs().len()).map(sum).collect(), seen })
    }

    fn signatures(&self, attempt: &Attempt, sums: &Sums) -> Result<Vec<schnorr::Signature>, SumError> {
        let inputs = attempt.inputs().iter().zip(&sums.nonces).enumerate();
        inputs
            .map(|(at, (input, nonces))| {
                let partials: Vec<_> = self.checked.values().filter_map(|partials| partials.get(at).copied()).collect();
                input.aggregate.sum(nonces, &input.message, &partials)
            })
            .collect()
    }
}

fn nonces_for(kept: &Kept, attempt: AttemptId) -> Option<&Vec<[u8; 66]>> {
    match &kept.message().body {
        Body::Nonces { attempt: of, nonces } if *of == attempt => Some(nonces),
        _ => None,
    }
}

fn check_partials(
    attempt: &Attempt,
    signer: u16,
    members: &[PublicKey],
    nonces: &BTreeMap<u16, Vec<PublicNonce>>,
    sums: &Sums,
    partials: &[[u8; 32]],
) -> Result<Vec<PartialSignature>, Fault> {
    let round = attempt.round();
    let wrong_count = Fault::WrongCount { round };
    if partials.len() != attempt.inputs().len() {
        return Err(wrong_count);
    }
    let key = members.get(usize::from(signer)).ok_or(wrong_count)?;
    let nonces = nonces.get(&signer).ok_or(wrong_count)?;
    let each = attempt.inputs().iter().zip(partials).zip(nonces.iter().zip(&sums.nonces)).enumerate();
    each.map(|(at, ((input, partial), (nonce, sum)))| {
        let bad = Fault::BadPartial { round, input: at };
        let partial = PartialSignature::from_bytes(partial).map_err(|_| bad)?;
        let checked = input.aggregate.check_partial(key, nonce, sum, &input.message, &partial);
        checked.map(|()| partial).map_err(|_| bad)
    })
    .collect()
}
