//! Votes and proposals: what is signed, and how it stands in bytes.
//!
//! A signature is BIP340 over `tagged_hash(tag, chain id (32) || body)`. The signer is not in the body: BIP340 binds the
//! key itself, so all precommits of a certificate sign one digest. Integers are little endian, hashes in internal order.
//!
//! | message | tag | body |
//! |---|---|---|
//! | vote | `causeway/vote/v1` | kind (1: 1 prevote, 2 precommit), height (4), round (4), 1 and block hash (33), or 33 zeros for nil |
//! | proposal | `causeway/proposal/v1` | height (4), round (4), proof-of-lock round (4, `ffffffff` for none), block hash (32) |
//!
//! Signed, a message is its body (42 or 44 bytes), the signer's x-only key (32) and the signature (64). A round is at
//! most 2^32 - 2, and a proof-of-lock round is below the proposal's.

use std::fmt;

use arc_malachitebft_core_types as types;
use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use causeway_chainspec::{ChainId, Height, tagged_hash};
use types::{NilOrVal, Round, VoteType};

use super::bytes::{DecodeError, Reader};
use super::context::{Address, BlockId, Context, EngineHeight, Signature};
use super::signer::{Position, SignStep};

/// The tag of what a vote's signature is of.
pub const VOTE_TAG: &str = "causeway/vote/v1";
const PROPOSAL_TAG: &str = "causeway/proposal/v1";

/// kind || height || round || block or nil
const VOTE_BODY: usize = 1 + 4 + 4 + 33;
/// height || round || proof-of-lock round || block
const PROPOSAL_BODY: usize = 4 + 4 + 4 + 32;

/// Bytes of an encoded signed vote: body, key, signature.
pub const SIGNED_VOTE_BYTES: usize = VOTE_BODY + 32 + 64;
/// Bytes of an encoded signed proposal: body, key, signature.
pub const SIGNED_PROPOSAL_BYTES: usize = PROPOSAL_BODY + 32 + 64;

/// Stands for "no round".
const NO_ROUND: u32 = u32::MAX;

/// A vote with its signature.
pub type SignedVote = types::SignedVote<Context>;

/// A proposal with its signature.
pub type SignedProposal = types::SignedProposal<Context>;

/// A prevote or precommit, for a block or for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vote {
    pub(super) kind: VoteType,
    pub(super) height: EngineHeight,
    pub(super) round: Round,
    pub(super) value: NilOrVal<BlockId>,
    pub(super) validator: Address,
}

/// A block hash, put forward by the proposer of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposal {
    pub(super) height: EngineHeight,
    pub(super) round: Round,
    pub(super) value: BlockId,
    pub(super) pol_round: Round,
    pub(super) proposer: Address,
}

impl Vote {
    /// A vote of this validator, for a block or for nil (`None`). The round is below `u32::MAX`.
    pub fn new(kind: VoteType, height: Height, round: u32, block: Option<BlockHash>, validator: Address) -> Self {
        let value = block.map_or(NilOrVal::Nil, |hash| NilOrVal::Val(BlockId(hash)));
        Self { kind, height: EngineHeight(height), round: Round::new(round), value, validator }
    }

    /// Prevote or precommit.
    pub fn kind(&self) -> VoteType {
        self.kind
    }

    /// The height voted on.
    pub fn height(&self) -> Height {
        self.height.0
    }

    /// The round of the vote; `None` is never signed.
    pub fn round(&self) -> Option<u32> {
        self.round.as_u32()
    }

    /// The block voted for; `None` for nil.
    pub fn block(&self) -> Option<BlockHash> {
        match self.value {
            NilOrVal::Nil => None,
            NilOrVal::Val(BlockId(hash)) => Some(hash),
        }
    }

    /// Who voted.
    pub fn validator(&self) -> Address {
        self.validator
    }

    /// Where the vote stands; `None` without a round.
    pub fn position(&self) -> Option<Position> {
        let step = match self.kind {
            VoteType::Prevote => SignStep::Prevote,
            VoteType::Precommit => SignStep::Precommit,
        };
        Some(Position { height: self.height(), round: self.round()?, step })
    }

    /// What the validator signs on this chain: BIP340's tagged hash, with [`VOTE_TAG`], of [`Vote::message`].
    pub fn digest(&self, chain: ChainId) -> [u8; 32] {
        tagged_hash(VOTE_TAG, &[&self.message(chain)])
    }

    /// The chain's identity and the body, 74 bytes.
    pub fn message(&self, chain: ChainId) -> Vec<u8> {
        [&chain.to_byte_array()[..], &self.body()].concat()
    }

    fn body(&self) -> [u8; VOTE_BODY] {
        let mut body = [0; VOTE_BODY];
        body[0] = encode_kind(self.kind);
        body[1..5].copy_from_slice(&self.height.0.to_u32().to_le_bytes());
        body[5..9].copy_from_slice(&encode_round(self.round));
        body[9..].copy_from_slice(&encode_value(&self.value));
        body
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let kind = decode_kind(reader)?;
        let height = decode_height(reader)?;
        let round = decode_round(reader)?;
        let value = decode_value(reader)?;
        let validator = Address(reader.array("validator")?);
        Ok(Self { kind, height, round, value, validator })
    }
}

impl Proposal {
    /// A proposal; `pol_round` is the round in which more than two thirds prevoted the block, for a block proposed again.
    /// Both rounds are below `u32::MAX`.
    pub fn new(height: Height, round: u32, block: BlockHash, pol_round: Option<u32>, proposer: Address) -> Self {
        Self {
            height: EngineHeight(height),
            round: Round::new(round),
            value: BlockId(block),
            pol_round: Round::from(pol_round),
            proposer,
        }
    }

    /// The height proposed for.
    pub fn height(&self) -> Height {
        self.height.0
    }

    /// The round proposed in; `None` is never signed.
    pub fn round(&self) -> Option<u32> {
        self.round.as_u32()
    }

    /// The block proposed.
    pub fn block(&self) -> BlockHash {
        self.value.0
    }

    /// The earlier round whose prevotes justify the proposal, if it needs any.
    pub fn pol_round(&self) -> Option<u32> {
        self.pol_round.as_u32()
    }

    /// Who proposed.
    pub fn proposer(&self) -> Address {
        self.proposer
    }

    /// Where the proposal stands; `None` without a round.
    pub fn position(&self) -> Option<Position> {
        Some(Position { height: self.height(), round: self.round()?, step: SignStep::Proposal })
    }

    /// What the proposer signs on this chain.
    pub fn digest(&self, chain: ChainId) -> [u8; 32] {
        tagged_hash(PROPOSAL_TAG, &[&chain.to_byte_array()[..], &self.body()])
    }

    fn body(&self) -> [u8; PROPOSAL_BODY] {
        let mut body = [0; PROPOSAL_BODY];
        body[..4].copy_from_slice(&self.height.0.to_u32().to_le_bytes());
        body[4..8].copy_from_slice(&encode_round(self.round));
        body[8..12].copy_from_slice(&encode_round(self.pol_round));
        body[12..].copy_from_slice(&self.value.to_bytes());
        body
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let height = decode_height(reader)?;
        let round = decode_round(reader)?;
        let pol_round = match reader.u32("proof-of-lock round")? {
            NO_ROUND => Round::Nil,
            // The engine reads a polka of the proposal's own round as one of an earlier round.
            earlier if Round::new(earlier) < round => Round::new(earlier),
            _ => return Err(DecodeError::NotCanonical { what: "proof-of-lock round" }),
        };
        let value = decode_block(reader)?;
        let proposer = Address(reader.array("proposer")?);
        Ok(Self { height, round, value, pol_round, proposer })
    }
}

impl fmt::Display for Vote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            VoteType::Prevote => "prevote",
            VoteType::Precommit => "precommit",
        };
        write!(f, "{kind} at height {}, round {}, for ", self.height, self.round)?;
        match self.value {
            NilOrVal::Nil => f.write_str("nil"),
            NilOrVal::Val(block) => block.fmt(f),
        }
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "proposal at height {}, round {}, of {}", self.height, self.round, self.value)
    }
}

/// Returns the bytes of a signed vote.
pub fn encode_signed_vote(vote: &SignedVote) -> [u8; SIGNED_VOTE_BYTES] {
    let mut bytes = [0; SIGNED_VOTE_BYTES];
    bytes[..VOTE_BODY].copy_from_slice(&vote.message.body());
    bytes[VOTE_BODY..VOTE_BODY + 32].copy_from_slice(&vote.message.validator.0);
    bytes[VOTE_BODY + 32..].copy_from_slice(&vote.signature.0);
    bytes
}

/// Returns the bytes of a signed proposal.
pub fn encode_signed_proposal(proposal: &SignedProposal) -> [u8; SIGNED_PROPOSAL_BYTES] {
    let mut bytes = [0; SIGNED_PROPOSAL_BYTES];
    bytes[..PROPOSAL_BODY].copy_from_slice(&proposal.message.body());
    bytes[PROPOSAL_BODY..PROPOSAL_BODY + 32].copy_from_slice(&proposal.message.proposer.0);
    bytes[PROPOSAL_BODY + 32..].copy_from_slice(&proposal.signature.0);
    bytes
}

pub(super) fn read_signed_vote(reader: &mut Reader<'_>) -> Result<SignedVote, DecodeError> {
    let vote = Vote::read(reader)?;
    Ok(SignedVote::new(vote, decode_signature(reader)?))
}

pub(super) fn read_signed_proposal(reader: &mut Reader<'_>) -> Result<SignedProposal, DecodeError> {
    let proposal = Proposal::read(reader)?;
    Ok(SignedProposal::new(proposal, decode_signature(reader)?))
}

pub(super) fn encode_kind(kind: VoteType) -> u8 {
    match kind {
        VoteType::Prevote => 1,
        VoteType::Precommit => 2,
    }
}

pub(super) fn decode_kind(reader: &mut Reader<'_>) -> Result<VoteType, DecodeError> {
    match reader.u8("kind of vote")? {
        1 => Ok(VoteType::Prevote),
        2 => Ok(VoteType::Precommit),
        got => Err(DecodeError::Unknown { what: "kind of vote", got }),
    }
}

pub(super) fn encode_round(round: Round) -> [u8; 4] {
    round.as_u32().unwrap_or(NO_ROUND).to_le_bytes()
}

pub(super) fn decode_round(reader: &mut Reader<'_>) -> Result<Round, DecodeError> {
    match reader.u32("round")? {
        NO_ROUND => Err(DecodeError::NotCanonical { what: "round" }),
        round => Ok(Round::new(round)),
    }
}

pub(super) fn decode_height(reader: &mut Reader<'_>) -> Result<EngineHeight, DecodeError> {
    reader.u32("height").map(|height| EngineHeight(Height(height)))
}

pub(super) fn decode_block(reader: &mut Reader<'_>) -> Result<BlockId, DecodeError> {
    reader.array("block hash").map(|hash| BlockId(BlockHash::from_byte_array(hash)))
}

pub(super) fn decode_signature(reader: &mut Reader<'_>) -> Result<Signature, DecodeError> {
    reader.array("signature").map(Signature)
}

/// A block hash behind a 1, or 33 zeros.
pub(super) fn encode_value(value: &NilOrVal<BlockId>) -> [u8; 33] {
    let mut bytes = [0; 33];
    if let NilOrVal::Val(block) = value {
        bytes[0] = 1;
        bytes[1..].copy_from_slice(&block.to_bytes());
    }
    bytes
}

pub(super) fn decode_value(reader: &mut Reader<'_>) -> Result<NilOrVal<BlockId>, DecodeError> {
    let present = reader.u8("value")?;
    let block = decode_block(reader)?;
    match present {
        1 => Ok(NilOrVal::Val(block)),
        0 if block.to_bytes() == [0; 32] => Ok(NilOrVal::Nil),
        0 => Err(DecodeError::NotCanonical { what: "nil" }),
        got => Err(DecodeError::Unknown { what: "value", got }),
    }
}

#[cfg(test)]
mod tests;
