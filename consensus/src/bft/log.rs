//! What a node writes down of a height before it acts, and reads back after a crash.
//!
//! An entry is its kind (1 byte) and body. The writer frames entries; nothing here says where one ends but its kind.
//!
//! | kind | body |
//! |---|---|
//! | 1 vote | signed vote, 138 bytes |
//! | 2 proposal | signed proposal, 140 bytes |
//! | 3 polka | as sent to other nodes |
//! | 4 timer | step (1: 1 propose, 2 prevote, 3 precommit), round (4) |
//! | 5 verdict | height (4), round (4), block hash (32), 1 if valid or 0, 1 if synced or 0 |
//! | 6 own vote, 7 own proposal | as 1 and 2 |
//! | 8 certificate | commit certificate of a peer, verified |
//!
//! Own are the messages that this node's signer signed. What came back from others with this key's signature is not: a
//! replay must not take it for something that was said here.

use arc_malachitebft_core_consensus as consensus;
use arc_malachitebft_core_types as types;
use causeway_chainspec::Height;
use types::{
    ExtendedCommitCertificate, Round, Timeout, TimeoutKind, Validity, ValueOrigin, ValueResponse, VoteExtensions,
};

use super::bytes::{DecodeError, Reader};
use super::certificate::{CertificateError, CommitCertificate};
use super::context::{Address, BlockId, Context, EngineHeight, Signature};
use super::gossip::{encode_polka, read_polka};
use super::message::{
    SignedProposal, SignedVote, decode_block, decode_height, decode_round, encode_round, encode_signed_proposal,
    encode_signed_vote, read_signed_proposal, read_signed_vote,
};
use super::signer::Position;
use super::validator_set::ValidatorSet;

/// One thing to remember of a height. In their order, entries bring an engine back to where it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    pub(super) entry: Entry,
    /// This node signed it. Only for votes and proposals.
    pub(super) own: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Vote(SignedVote),
    Proposal(SignedProposal),
    Polka(types::PolkaCertificate<Context>),
    Timer(Timeout),
    Certificate(CommitCertificate),
    Verdict { height: EngineHeight, round: Round, block: BlockId, validity: Validity, origin: ValueOrigin },
}

impl LogEntry {
    /// The entry of an input that the engine wants remembered; `None` for those that it never does.
    pub(super) fn of(input: &consensus::Input<Context>, own: bool) -> Option<Self> {
        use consensus::Input;
        let entry = match input {
            Input::Vote(vote) => Some(Entry::Vote(vote.clone())),
            Input::Proposal(proposal) => Some(Entry::Proposal(proposal.clone())),
            Input::PolkaCertificate(polka) => Some(Entry::Polka(polka.clone())),
            Input::TimeoutElapsed(timeout) => match timeout.kind {
                TimeoutKind::Propose | TimeoutKind::Prevote | TimeoutKind::Precommit => Some(Entry::Timer(*timeout)),
                TimeoutKind::Rebroadcast | TimeoutKind::FinalizeHeight(_) => None,
            },
            Input::ProposedValue(value, origin) => Some(Entry::Verdict {
                height: value.height,
                round: value.round,
                block: value.value,
                validity: value.validity,
                origin: *origin,
            }),
            Input::StartHeight(..) | Input::RoundCertificate(_) | Input::Propose(_) | Input::SyncValueResponse(_) => {
                None
            }
        };
        entry.map(|entry| Self { entry, own })
    }

    /// The input that was remembered.
    ///
    /// # Errors
    ///
    /// A certificate is of another set.
    pub(super) fn into_input(
        self,
        context: &Context,
        set: &ValidatorSet,
    ) -> Result<consensus::Input<Context>, CertificateError> {
        use consensus::Input;
        Ok(match self.entry {
            Entry::Certificate(certificate) => sync_response(&certificate, set)?,
            Entry::Vote(vote) => Input::Vote(vote),
            Entry::Proposal(proposal) => Input::Proposal(proposal),
            Entry::Polka(polka) => Input::PolkaCertificate(polka),
            Entry::Timer(timeout) => Input::TimeoutElapsed(timeout),
            Entry::Verdict { height, round, block, validity, origin } => {
                let value = proposed_value(context, set, height, round, block, validity);
                Input::ProposedValue(value, origin)
            }
        })
    }

    /// The height that the entry is of; `None` for a timer, which does not say.
    pub fn height(&self) -> Option<Height> {
        match &self.entry {
            Entry::Vote(vote) => Some(vote.message.height.0),
            Entry::Proposal(proposal) => Some(proposal.message.height.0),
            Entry::Polka(polka) => Some(polka.height.0),
            Entry::Timer(_) => None,
            Entry::Certificate(certificate) => Some(certificate.height()),
            Entry::Verdict { height, .. } => Some(height.0),
        }
    }

    /// Who signed the vote or proposal of the entry, and where it stands; `None` for any other entry.
    pub fn position(&self) -> Option<(Address, Position)> {
        match &self.entry {
            Entry::Vote(vote) => Some((vote.message.validator(), vote.message.position()?)),
            Entry::Proposal(proposal) => Some((proposal.message.proposer(), proposal.message.position()?)),
            Entry::Polka(_) | Entry::Timer(_) | Entry::Certificate(_) | Entry::Verdict { .. } => None,
        }
    }

    /// Whether this node's signer signed the message of the entry.
    pub fn is_own(&self) -> bool {
        self.own
    }

    /// The signature of a message, if the entry is one.
    pub(super) fn signed(&self) -> Option<(Address, Signature)> {
        match &self.entry {
            Entry::Vote(vote) => Some((vote.message.validator(), vote.signature)),
            Entry::Proposal(proposal) => Some((proposal.message.proposer(), proposal.signature)),
            Entry::Polka(_) | Entry::Timer(_) | Entry::Certificate(_) | Entry::Verdict { .. } => None,
        }
    }

    /// The one encoding of the entry.
    pub fn encode(&self) -> Vec<u8> {
        match &self.entry {
            Entry::Vote(vote) => [&[if self.own { 6 } else { 1 }][..], &encode_signed_vote(vote)].concat(),
            Entry::Proposal(proposal) => {
                [&[if self.own { 7 } else { 2 }][..], &encode_signed_proposal(proposal)].concat()
            }
            Entry::Polka(polka) => [&[3][..], &encode_polka(polka)].concat(),
            Entry::Certificate(certificate) => [&[8][..], &certificate.encode()].concat(),
            Entry::Timer(timeout) => {
                let step = match timeout.kind {
                    TimeoutKind::Propose => 1,
                    TimeoutKind::Prevote => 2,
                    _ => 3,
                };
                [&[4, step][..], &encode_round(timeout.round)].concat()
            }
            Entry::Verdict { height, round, block, validity, origin } => [
                &[5][..],
                &height.0.to_u32().to_le_bytes(),
                &encode_round(*round),
                &block.to_bytes(),
                &[u8::from(validity.is_valid()), u8::from(origin.is_sync())],
            ]
            .concat(),
        }
    }

    /// The entry of this encoding.
    ///
    /// # Errors
    ///
    /// The bytes are not what [`LogEntry::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let kind = reader.u8("kind of log entry")?;
        let entry = match kind {
            1 | 6 => Entry::Vote(read_signed_vote(&mut reader)?),
            2 | 7 => Entry::Proposal(read_signed_proposal(&mut reader)?),
            3 => Entry::Polka(read_polka(&mut reader)?),
            4 => {
                let kind = match reader.u8("step of the timer")? {
                    1 => TimeoutKind::Propose,
                    2 => TimeoutKind::Prevote,
                    3 => TimeoutKind::Precommit,
                    got => return Err(DecodeError::Unknown { what: "step of the timer", got }),
                };
                Entry::Timer(Timeout::new(decode_round(&mut reader)?, kind))
            }
            5 => Entry::Verdict {
                height: decode_height(&mut reader)?,
                round: decode_round(&mut reader)?,
                block: decode_block(&mut reader)?,
                validity: Validity::from_bool(decode_bool(&mut reader, "verdict")?),
                origin: match decode_bool(&mut reader, "origin")? {
                    true => ValueOrigin::Sync,
                    false => ValueOrigin::Consensus,
                },
            },
            8 => Entry::Certificate(CommitCertificate::read(&mut reader)?),
            got => return Err(DecodeError::Unknown { what: "kind of log entry", got }),
        };
        reader.finish()?;
        Ok(Self { entry, own: matches!(kind, 6 | 7) })
    }
}

fn decode_bool(reader: &mut Reader<'_>, what: &'static str) -> Result<bool, DecodeError> {
    match reader.u8(what)? {
        0 => Ok(false),
        1 => Ok(true),
        got => Err(DecodeError::Unknown { what, got }),
    }
}

/// A certificate of a peer in the engine's form. It wants to hand on a peer and a body, which our caller knows by itself.
pub(super) fn sync_response(
    certificate: &CommitCertificate,
    set: &ValidatorSet,
) -> Result<consensus::Input<Context>, CertificateError> {
    let certificate = ExtendedCommitCertificate::from_commit_certificate_and_extensions(
        certificate.to_engine(set)?,
        VoteExtensions::default(),
    );
    // A multihash of no bytes.
    let nobody = consensus::PeerId::from_bytes(&[0, 0]).expect("an identity multihash may be empty");
    Ok(consensus::Input::SyncValueResponse(ValueResponse::new(nobody, Default::default(), certificate)))
}

/// The verdict on a block in the engine's form. The proposer is that of the round: the engine aborts on another.
pub(super) fn proposed_value(
    context: &Context,
    set: &ValidatorSet,
    height: EngineHeight,
    round: Round,
    block: BlockId,
    validity: Validity,
) -> consensus::ProposedValue<Context> {
    let proposer = set.proposer(context.chain(), height.0, round.as_u32().unwrap_or(0)).address();
    consensus::ProposedValue { height, round, valid_round: Round::Nil, proposer, value: block, validity }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bft::message::{Proposal, Vote};
    use crate::bft::testing::{address, block, chain, set, sign_proposal, sign_vote};
    use bitcoin::hashes::{Hash, sha256};
    use types::VoteType;

    fn entries() -> Vec<LogEntry> {
        let prevote =
            |index| sign_vote(index, Vote::new(VoteType::Prevote, Height(101), 0, Some(block(1)), address(index)));
        let mut votes = vec![prevote(0), prevote(1)];
        votes.sort_by_key(|vote| vote.validator());
        let polka = types::PolkaCertificate::new(EngineHeight(Height(101)), Round::new(0), BlockId(block(1)), votes);
        let verdict = |validity, origin| Entry::Verdict {
            height: EngineHeight(Height(101)),
            round: Round::new(3),
            block: BlockId(block(1)),
            validity,
            origin,
        };
        [
            Entry::Vote(prevote(0)),
            Entry::Proposal(sign_proposal(0, Proposal::new(Height(101), 2, block(1), Some(1), address(0)))),
            Entry::Polka(polka),
            Entry::Certificate(CommitCertificate::new(&set(&[1, 2, 3]), Height(101), 0, block(1), []).unwrap()),
            Entry::Timer(Timeout::propose(Round::new(1))),
            Entry::Timer(Timeout::prevote(Round::new(2))),
            Entry::Timer(Timeout::precommit(Round::new(3))),
            verdict(Validity::Valid, ValueOrigin::Consensus),
            verdict(Validity::Invalid, ValueOrigin::Sync),
        ]
        .into_iter()
        .flat_map(|entry| {
            let own = matches!(entry, Entry::Vote(_) | Entry::Proposal(_));
            [LogEntry { entry: entry.clone(), own: false }, LogEntry { entry, own }]
        })
        .collect()
    }

    #[test]
    fn decode_of_encode_is_the_identity() {
        for entry in entries() {
            let bytes = entry.encode();
            assert_eq!(LogEntry::decode(&bytes), Ok(entry));
            for length in 0..bytes.len() {
                assert!(LogEntry::decode(&bytes[..length]).is_err());
            }
            for bit in 0..bytes.len() * 8 {
                let mut changed = bytes.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                if let Ok(other) = LogEntry::decode(&changed) {
                    assert_eq!(other.encode(), changed);
                }
            }
        }
    }

    #[test]
    fn inputs_survive_the_log() {
        let (context, set) = (Context::new(chain(1)), set(&[1, 2, 3]));
        for entry in entries() {
            let input = entry.clone().into_input(&context, &set).unwrap();
            match &entry.entry {
                // Written when it is verified, not when the engine says so.
                Entry::Certificate(_) => assert_eq!(LogEntry::of(&input, false), None),
                _ => assert_eq!(LogEntry::of(&input, entry.own), Some(entry)),
            }
        }
    }

    #[test]
    fn the_encoding_is_frozen() {
        let all: Vec<u8> = entries().iter().flat_map(LogEntry::encode).collect();
        assert_eq!(
            sha256::Hash::hash(&all).to_string(),
            "7929f02c4bb9a2d2a8cf9383c0bbf3d0cdf0c0230dadce0996682fadddc04731"
        );
    }
}
