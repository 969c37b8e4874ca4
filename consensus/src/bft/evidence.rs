//! Proof that a validator said two things at once: two votes of one kind, or two proposals, for one height and round.
//!
//! Encoded as 1 and two signed votes (277 bytes), or 2 and two signed proposals (281 bytes), the pair sorted by its bytes:
//! whoever finds it first, a pair has one encoding.

use std::fmt;

use bitcoin::secp256k1::XOnlyPublicKey;
use causeway_chainspec::{ChainId, Height};

use super::bytes::{DecodeError, Reader};
use super::context::Address;
use super::message::{
    SignedProposal, SignedVote, encode_signed_proposal, encode_signed_vote, read_signed_proposal, read_signed_vote,
};
use super::validator_set::ValidatorSet;

const VOTES: u8 = 1;
const PROPOSALS: u8 = 2;

/// Why two messages prove nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvidenceError {
    /// Both messages say the same, or they are of different validators, heights, rounds or kinds.
    #[error("the two messages do not contradict each other")]
    NoConflict,
    /// Their signer is not in the set.
    #[error("{address} is not in the validator set")]
    UnknownValidator {
        /// The signer.
        address: Address,
    },
    /// A signature is wrong.
    #[error("a signature of {address} is wrong")]
    WrongSignature {
        /// The signer.
        address: Address,
    },
}

/// Two messages that contradict each other. Proves nothing until [`Equivocation::verify`] says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Equivocation(Pair);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pair {
    Votes(SignedVote, SignedVote),
    Proposals(SignedProposal, SignedProposal),
}

impl Equivocation {
    /// The contradiction of two votes.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn of_votes(one: SignedVote, other: SignedVote) -> Result<Self, EvidenceError> {
        let place = |vote: &SignedVote| (vote.kind, vote.message.height, vote.message.round, vote.validator);
        if place(&one) != place(&other) || one.message == other.message {
            return Err(EvidenceError::NoConflict);
        }
        let ordered = encode_signed_vote(&one) < encode_signed_vote(&other);
        Ok(Self(if ordered { Pair::Votes(one, other) } else { Pair::Votes(other, one) }))
    }

    /// The contradiction of two proposals: another block, or another proof-of-lock round.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn of_proposals(one: SignedProposal, other: SignedProposal) -> Result<Self, EvidenceError> {
        let place = |proposal: &SignedProposal| (proposal.message.height, proposal.message.round, proposal.proposer);
        if place(&one) != place(&other) || one.message == other.message {
            return Err(EvidenceError::NoConflict);
        }
        let ordered = encode_signed_proposal(&one) < encode_signed_proposal(&other);
        Ok(Self(if ordered { Pair::Proposals(one, other) } else { Pair::Proposals(other, one) }))
    }

    /// The validator that it blames.
    pub fn validator(&self) -> Address {
        match &self.0 {
            Pair::Votes(vote, _) => vote.validator,
            Pair::Proposals(proposal, _) => proposal.proposer,
        }
    }

    /// The height of both messages, whose validator set judges them.
    pub fn height(&self) -> Height {
        match &self.0 {
            Pair::Votes(vote, _) => vote.message.height.0,
            Pair::Proposals(proposal, _) => proposal.message.height.0,
        }
    }

    /// Checks that the validator is in the set of that height and signed both on this chain.
    ///
    /// # Errors
    ///
    /// It is not, or did not.
    pub fn verify(&self, chain: ChainId, set: &ValidatorSet) -> Result<(), EvidenceError> {
        let address = self.validator();
        let member = set.get(&address).ok_or(EvidenceError::UnknownValidator { address })?;
        if !self.is_signed(chain, member.key()) {
            return Err(EvidenceError::WrongSignature { address });
        }
        Ok(())
    }

    fn is_signed(&self, chain: ChainId, key: &XOnlyPublicKey) -> bool {
        match &self.0 {
            Pair::Votes(one, other) => {
                [one, other].iter().all(|vote| vote.signature.verifies(&vote.message.digest(chain), key))
            }
            Pair::Proposals(one, other) => {
                [one, other].iter().all(|proposal| proposal.signature.verifies(&proposal.message.digest(chain), key))
            }
        }
    }

    /// The one encoding of the pair.
    pub fn encode(&self) -> Vec<u8> {
        match &self.0 {
            Pair::Votes(one, other) => [&[VOTES][..], &encode_signed_vote(one), &encode_signed_vote(other)].concat(),
            Pair::Proposals(one, other) => {
                [&[PROPOSALS][..], &encode_signed_proposal(one), &encode_signed_proposal(other)].concat()
            }
        }
    }

    /// The pair of this encoding.
    ///
    /// # Errors
    ///
    /// The bytes are not what [`Equivocation::encode`] writes: also if the two do not contradict each other.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let pair = match reader.u8("kind of evidence")? {
            VOTES => Self::of_votes(read_signed_vote(&mut reader)?, read_signed_vote(&mut reader)?),
            PROPOSALS => Self::of_proposals(read_signed_proposal(&mut reader)?, read_signed_proposal(&mut reader)?),
            got => return Err(DecodeError::Unknown { what: "kind of evidence", got }),
        };
        reader.finish()?;
        let not_canonical = DecodeError::NotCanonical { what: "pair of messages" };
        let pair = pair.map_err(|_| not_canonical)?;
        if pair.encode() == bytes { Ok(pair) } else { Err(not_canonical) }
    }
}

impl fmt::Display for Equivocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Pair::Votes(one, other) => {
                write!(f, "{} signed a {} and a {}", self.validator(), one.message, other.message)
            }
            Pair::Proposals(one, other) => {
                write!(f, "{} signed a {} and a {}", self.validator(), one.message, other.message)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bft::message::{Proposal, Vote};
    use crate::bft::testing::{address, block, chain, set, sign_proposal, sign_vote};
    use arc_malachitebft_core_types::VoteType;
    use bitcoin::hashes::{Hash, sha256};

    fn vote(kind: VoteType, height: u32, round: u32, fill: Option<u8>) -> SignedVote {
        sign_vote(1, Vote::new(kind, Height(height), round, fill.map(block), address(1)))
    }

    fn proposal(round: u32, fill: u8, pol_round: Option<u32>) -> SignedProposal {
        sign_proposal(1, Proposal::new(Height(101), round, block(fill), pol_round, address(1)))
    }

    #[test]
    fn only_contradictions_are_evidence() {
        let one = vote(VoteType::Prevote, 101, 0, Some(1));
        assert!(Equivocation::of_votes(one.clone(), vote(VoteType::Prevote, 101, 0, Some(2))).is_ok());
        assert!(Equivocation::of_votes(one.clone(), vote(VoteType::Prevote, 101, 0, None)).is_ok());
        let harmless = [
            one.clone(),
            vote(VoteType::Precommit, 101, 0, Some(2)),
            vote(VoteType::Prevote, 102, 0, Some(2)),
            vote(VoteType::Prevote, 101, 1, Some(2)),
            sign_vote(2, Vote::new(VoteType::Prevote, Height(101), 0, Some(block(2)), address(2))),
        ];
        for other in harmless {
            assert_eq!(Equivocation::of_votes(one.clone(), other), Err(EvidenceError::NoConflict));
        }
        let mut resigned = one.clone();
        resigned.signature.0[0] ^= 1;
        assert_eq!(Equivocation::of_votes(one, resigned), Err(EvidenceError::NoConflict));

        let one = proposal(2, 1, None);
        assert!(Equivocation::of_proposals(one.clone(), proposal(2, 1, Some(0))).is_ok());
        assert!(Equivocation::of_proposals(one.clone(), proposal(3, 2, None)).is_err());
        assert!(Equivocation::of_proposals(one.clone(), one).is_err());
    }

    #[test]
    fn evidence_blames_who_signed() {
        let votes =
            Equivocation::of_votes(vote(VoteType::Precommit, 101, 0, Some(1)), vote(VoteType::Precommit, 101, 0, None))
                .unwrap();
        let proposals = Equivocation::of_proposals(proposal(2, 1, None), proposal(2, 2, None)).unwrap();
        for evidence in [votes, proposals] {
            assert_eq!(evidence.validator(), address(1));
            assert_eq!(evidence.height(), Height(101));
            assert_eq!(evidence.verify(chain(1), &set(&[1, 1])), Ok(()));
            let wrong = Err(EvidenceError::WrongSignature { address: address(1) });
            assert_eq!(evidence.verify(chain(2), &set(&[1, 1])), wrong);
            let unknown = Err(EvidenceError::UnknownValidator { address: address(1) });
            assert_eq!(evidence.verify(chain(1), &set(&[1])), unknown);
            let bytes = evidence.encode();
            assert_eq!(Equivocation::decode(&bytes).as_ref(), Ok(&evidence));
            for bit in 0..bytes.len() * 8 {
                let mut changed = bytes.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                let verified =
                    Equivocation::decode(&changed).is_ok_and(|it| it.verify(chain(1), &set(&[1, 1])).is_ok());
                assert!(!verified, "bit {bit}");
            }
            for length in 0..bytes.len() {
                assert!(Equivocation::decode(&bytes[..length]).is_err());
            }
        }
    }

    #[test]
    fn a_pair_has_one_encoding() {
        let (one, other) = (vote(VoteType::Prevote, 101, 0, Some(1)), vote(VoteType::Prevote, 101, 0, Some(2)));
        let evidence = Equivocation::of_votes(one.clone(), other.clone()).unwrap();
        assert_eq!(Equivocation::of_votes(other.clone(), one.clone()).unwrap(), evidence);
        let bytes = evidence.encode();
        assert_eq!(bytes.len(), 277);
        assert_eq!(
            sha256::Hash::hash(&bytes).to_string(),
            "f0d4eceff6471be6fb8ac453fae3ece79b0a7163ba23bfde4af7d1decaaacbef"
        );
        let swapped = [&[VOTES][..], &bytes[139..], &bytes[1..139]].concat();
        assert_eq!(Equivocation::decode(&swapped), Err(DecodeError::NotCanonical { what: "pair of messages" }));
        let same = [&[VOTES][..], &bytes[1..139], &bytes[1..139]].concat();
        assert!(Equivocation::decode(&same).is_err());
    }
}
