//! What validators send to each other: votes, proposals, and the certificates that bring a slow node to their round.
//!
//! A message is its kind (1 byte) and body. At most 33,837 bytes.
//!
//! | kind | body |
//! |---|---|
//! | 1 vote | signed vote, 138 bytes |
//! | 2 proposal | signed proposal, 140 bytes |
//! | 3 polka: more than two thirds prevoted a block | height (4), round (4), block hash (32), count (2), then of each signer: key (32), signature (64) |
//! | 4 round: why a round is over, or entered | height (4), round (4), type (1: 1 skip, 2 precommit), count (2), then of each signer: kind of vote (1), 1 and block hash or zeros (33), key (32), signature (64) |
//!
//! Signers are sorted by key, and none occurs twice. Keys and not positions: such a certificate is as good as the votes
//! in it, whatever set its reader knows.

use arc_malachitebft_core_types as types;
use causeway_chainspec::{ChainId, Height};
use types::{NilOrVal, PolkaSignature, RoundCertificateType, RoundSignature, VoteType};

use super::bytes::{DecodeError, Reader};
use super::certificate::CertificateError;
use super::context::{Address, Context, Signature};
use super::message::{
    SignedProposal, SignedVote, Vote, decode_block, decode_height, decode_kind, decode_round, decode_signature,
    decode_value, encode_kind, encode_round, encode_signed_proposal, encode_signed_vote, encode_value,
    read_signed_proposal, read_signed_vote,
};
use super::signer::Position;
use super::validator_set::{VALIDATORS_MAX, ValidatorSet};

/// Most bytes of an encoded message: a round certificate of 256 validators.
pub const MESSAGE_BYTES_MAX: usize = 1 + 4 + 4 + 1 + 2 + VALIDATORS_MAX * (1 + 33 + 32 + 64);

/// The first byte of an encoded vote.
pub const KIND_VOTE: u8 = 1;

/// A message between validators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A vote.
    Vote(SignedVote),
    /// A proposal. The block it names travels elsewhere.
    Proposal(SignedProposal),
    /// More than two thirds prevoted a block.
    Polka(types::PolkaCertificate<Context>),
    /// Why a round is over, or entered.
    Round(types::RoundCertificate<Context>),
}

impl Message {
    /// A polka certificate of the engine, its signers brought into order.
    pub(super) fn polka(mut polka: types::PolkaCertificate<Context>) -> Self {
        polka.polka_signatures.sort_by_key(|signed| signed.address);
        polka.polka_signatures.dedup_by_key(|signed| signed.address);
        Self::Polka(polka)
    }

    /// A round certificate of the engine, its signers brought into order.
    pub(super) fn round_certificate(mut certificate: types::RoundCertificate<Context>) -> Self {
        certificate.round_signatures.sort_by_key(|signed| signed.address);
        certificate.round_signatures.dedup_by_key(|signed| signed.address);
        Self::Round(certificate)
    }

    /// The height that the message is about.
    pub fn height(&self) -> Height {
        match self {
            Self::Vote(vote) => vote.message.height(),
            Self::Proposal(proposal) => proposal.message.height(),
            Self::Polka(polka) => polka.height.0,
            Self::Round(certificate) => certificate.height.0,
        }
    }

    /// Whether validators of this set signed what the message says, as many as it takes. Whoever sends on what is not has
    /// checked nothing.
    pub fn is_signed(&self, chain: ChainId, set: &ValidatorSet) -> bool {
        let context = Context::new(chain);
        match self {
            Self::Vote(vote) => is_signed_vote(&context, set, vote),
            Self::Proposal(proposal) => is_signed_proposal(&context, set, proposal),
            Self::Polka(polka) => verify_polka(&context, set, polka).is_ok(),
            Self::Round(certificate) => verify_round_certificate(&context, set, certificate).is_ok(),
        }
    }

    /// Checks the message against a set: 40 us a signature, on any thread.
    ///
    /// # Errors
    ///
    /// See [`Unsigned`]: only one of the two says something of whoever sent the message on.
    pub fn check(self, chain: ChainId, set: &ValidatorSet) -> Result<CheckedMessage, Unsigned> {
        let context = Context::new(chain);
        match &self {
            Self::Vote(vote) => check_signer(vote.message.validator(), set, || is_signed_vote(&context, set, vote)),
            Self::Proposal(proposal) => {
                check_signer(proposal.message.proposer(), set, || is_signed_proposal(&context, set, proposal))
            }
            Self::Polka(polka) => verify_polka(&context, set, polka).map_err(|error| Unsigned::of(&error)),
            Self::Round(certificate) => {
                verify_round_certificate(&context, set, certificate).map_err(|error| Unsigned::of(&error))
            }
        }?;
        Ok(CheckedMessage { message: self, set: set.clone() })
    }

    /// How many signatures the message has.
    pub fn signatures(&self) -> usize {
        match self {
            Self::Vote(_) | Self::Proposal(_) => 1,
            Self::Polka(polka) => polka.polka_signatures.len(),
            Self::Round(certificate) => certificate.round_signatures.len(),
        }
    }

    /// The validator that signed the message; `None` for a certificate, which has several signers.
    pub fn signer(&self) -> Option<Address> {
        match self {
            Self::Vote(vote) => Some(vote.message.validator()),
            Self::Proposal(proposal) => Some(proposal.message.proposer()),
            Self::Polka(_) | Self::Round(_) => None,
        }
    }

    /// Where a vote or proposal stands; `None` for a certificate.
    pub fn position(&self) -> Option<Position> {
        match self {
            Self::Vote(vote) => vote.message.position(),
            Self::Proposal(proposal) => proposal.message.position(),
            Self::Polka(_) | Self::Round(_) => None,
        }
    }

    /// The one encoding of the message.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Vote(vote) => [&[KIND_VOTE][..], &encode_signed_vote(vote)].concat(),
            Self::Proposal(proposal) => [&[2][..], &encode_signed_proposal(proposal)].concat(),
            Self::Polka(polka) => [&[3][..], &encode_polka(polka)].concat(),
            Self::Round(certificate) => [&[4][..], &encode_round_certificate(certificate)].concat(),
        }
    }

    /// The message of this encoding. Reads at most [`MESSAGE_BYTES_MAX`].
    ///
    /// # Errors
    ///
    /// The bytes are not what [`Message::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let message = match reader.u8("kind of message")? {
            KIND_VOTE => Self::Vote(read_signed_vote(&mut reader)?),
            2 => Self::Proposal(read_signed_proposal(&mut reader)?),
            3 => Self::Polka(read_polka(&mut reader)?),
            4 => Self::Round(read_round_certificate(&mut reader)?),
            got => return Err(DecodeError::Unknown { what: "kind of message", got }),
        };
        reader.finish()?;
        Ok(message)
    }
}

/// A message that members of a set signed, as many as it takes. Only [`Message::check`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedMessage {
    message: Message,
    set: ValidatorSet,
}

impl CheckedMessage {
    /// The message.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// The set that it was checked against.
    pub fn set(&self) -> &ValidatorSet {
        &self.set
    }

    /// The message, to be checked against another set.
    pub fn into_message(self) -> Message {
        self.message
    }
}

/// Why a message is not what members of a set signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsigned {
    /// A signer is no member, or the members are too few. Of another set it may be right: at a change of validators an
    /// honest node that is one height behind sends it on. Costs at most the signatures before the first stranger.
    #[error("the signers are not of this set of validators, or too few")]
    OtherSet,
    /// A signature is not of the key that it names, or a vote is of the wrong kind. No set makes it right, so whoever
    /// sends it on has not checked it.
    #[error("a signature is not of the key that it names")]
    Forged,
}

impl Unsigned {
    fn of(error: &CertificateError) -> Self {
        match error {
            CertificateError::WrongSignature { .. }
            | CertificateError::DuplicateSigner { .. }
            | CertificateError::NotAPrecommit { .. } => Self::Forged,
            _ => Self::OtherSet,
        }
    }
}

/// A stranger's signature is not even looked at.
fn check_signer(signer: Address, set: &ValidatorSet, is_signed: impl FnOnce() -> bool) -> Result<(), Unsigned> {
    match set.get(&signer) {
        None => Err(Unsigned::OtherSet),
        Some(_) if is_signed() => Ok(()),
        Some(_) => Err(Unsigned::Forged),
    }
}

pub(super) fn encode_polka(polka: &types::PolkaCertificate<Context>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(42 + 96 * polka.polka_signatures.len());
    bytes.extend_from_slice(&polka.height.0.to_u32().to_le_bytes());
    bytes.extend_from_slice(&encode_round(polka.round));
    bytes.extend_from_slice(&polka.value_id.to_bytes());
    bytes.extend_from_slice(&encode_count(polka.polka_signatures.len()));
    for signed in &polka.polka_signatures {
        bytes.extend_from_slice(&signed.address.0);
        bytes.extend_from_slice(&signed.signature.0);
    }
    bytes
}

pub(super) fn read_polka(reader: &mut Reader<'_>) -> Result<types::PolkaCertificate<Context>, DecodeError> {
    let height = decode_height(reader)?;
    let round = decode_round(reader)?;
    let value_id = decode_block(reader)?;
    let polka_signatures = (0..decode_count(reader)?)
        .map(|_| Ok(PolkaSignature::new(Address(reader.array("signer")?), decode_signature(reader)?)))
        .collect::<Result<Vec<_>, DecodeError>>()?;
    check_sorted(polka_signatures.iter().map(|signed| signed.address))?;
    Ok(types::PolkaCertificate { height, round, value_id, polka_signatures })
}

fn encode_round_certificate(certificate: &types::RoundCertificate<Context>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(11 + 130 * certificate.round_signatures.len());
    bytes.extend_from_slice(&certificate.height.0.to_u32().to_le_bytes());
    bytes.extend_from_slice(&encode_round(certificate.round));
    bytes.push(match certificate.cert_type {
        RoundCertificateType::Skip => 1,
        RoundCertificateType::Precommit => 2,
    });
    bytes.extend_from_slice(&encode_count(certificate.round_signatures.len()));
    for signed in &certificate.round_signatures {
        bytes.push(encode_kind(signed.vote_type));
        bytes.extend_from_slice(&encode_value(&signed.value_id));
        bytes.extend_from_slice(&signed.address.0);
        bytes.extend_from_slice(&signed.signature.0);
    }
    bytes
}

fn read_round_certificate(reader: &mut Reader<'_>) -> Result<types::RoundCertificate<Context>, DecodeError> {
    let height = decode_height(reader)?;
    let round = decode_round(reader)?;
    let cert_type = match reader.u8("type of round certificate")? {
        1 => RoundCertificateType::Skip,
        2 => RoundCertificateType::Precommit,
        got => return Err(DecodeError::Unknown { what: "type of round certificate", got }),
    };
    let round_signatures = (0..decode_count(reader)?)
        .map(|_| {
            let kind = decode_kind(reader)?;
            let value = decode_value(reader)?;
            let address = Address(reader.array("signer")?);
            Ok(RoundSignature::new(kind, value, address, decode_signature(reader)?))
        })
        .collect::<Result<Vec<_>, DecodeError>>()?;
    check_sorted(round_signatures.iter().map(|signed| signed.address))?;
    Ok(types::RoundCertificate { height, round, cert_type, round_signatures })
}

/// A certificate that the engine made has no more signers than its set.
fn encode_count(count: usize) -> [u8; 2] {
    u16::try_from(count).expect("a set has at most 256 validators").to_le_bytes()
}

fn decode_count(reader: &mut Reader<'_>) -> Result<usize, DecodeError> {
    let got = usize::from(reader.u16("number of signers")?);
    if got == 0 || got > VALIDATORS_MAX {
        return Err(DecodeError::Count { what: "number of signers", got, max: VALIDATORS_MAX });
    }
    Ok(got)
}

fn check_sorted(signers: impl Iterator<Item = Address>) -> Result<(), DecodeError> {
    if signers.is_sorted_by(|one, next| one < next) {
        return Ok(());
    }
    Err(DecodeError::NotCanonical { what: "order of the signers" })
}

/// Whether a member of the set signed this vote.
pub(super) fn is_signed_vote(context: &Context, set: &ValidatorSet, vote: &SignedVote) -> bool {
    let digest = vote.message.digest(context.chain());
    set.get(&vote.message.validator()).is_some_and(|member| vote.signature.verifies(&digest, member.key()))
}

/// Whether a member of the set signed this proposal. Whether it is its turn is not asked.
pub(super) fn is_signed_proposal(context: &Context, set: &ValidatorSet, proposal: &SignedProposal) -> bool {
    let digest = proposal.message.digest(context.chain());
    set.get(&proposal.message.proposer()).is_some_and(|member| proposal.signature.verifies(&digest, member.key()))
}

/// Checks a polka: prevotes for its block, of more than two thirds of the power.
pub(super) fn verify_polka(
    context: &Context,
    set: &ValidatorSet,
    polka: &types::PolkaCertificate<Context>,
) -> Result<(), CertificateError> {
    let vote = |signed: &PolkaSignature<Context>| {
        let value = NilOrVal::Val(polka.value_id);
        let (height, round, validator) = (polka.height, polka.round, signed.address);
        (Vote { kind: VoteType::Prevote, height, round, value, validator }, signed.signature)
    };
    let signed = power_of(context, set, polka.polka_signatures.iter().map(vote))?;
    require(set, signed, set.is_quorum(signed))
}

/// Checks a round certificate: precommits of more than two thirds, or votes of more than one third.
pub(super) fn verify_round_certificate(
    context: &Context,
    set: &ValidatorSet,
    certificate: &types::RoundCertificate<Context>,
) -> Result<(), CertificateError> {
    let precommits = certificate.cert_type == RoundCertificateType::Precommit;
    let mut signers = certificate.round_signatures.iter();
    if let Some(prevote) = signers.find(|signed| precommits && signed.vote_type == VoteType::Prevote) {
        return Err(CertificateError::NotAPrecommit { address: prevote.address });
    }
    let vote = |signed: &RoundSignature<Context>| {
        let (kind, value, validator) = (signed.vote_type, signed.value_id, signed.address);
        (Vote { kind, height: certificate.height, round: certificate.round, value, validator }, signed.signature)
    };
    let signed = power_of(context, set, certificate.round_signatures.iter().map(vote))?;
    require(set, signed, if precommits { set.is_quorum(signed) } else { set.is_honest(signed) })
}

/// The power of the signers, if they are known, different and have all signed.
fn power_of(
    context: &Context,
    set: &ValidatorSet,
    votes: impl Iterator<Item = (Vote, Signature)>,
) -> Result<u64, CertificateError> {
    let mut seen = vec![false; set.members().len()];
    let mut power = 0;
    for (vote, signature) in votes {
        let address = vote.validator;
        let index = set.index_of(&address).ok_or(CertificateError::UnknownValidator { address })?;
        if std::mem::replace(&mut seen[index], true) {
            return Err(CertificateError::DuplicateSigner { address });
        }
        let member = &set.members()[index];
        if !signature.verifies(&vote.digest(context.chain()), member.key()) {
            return Err(CertificateError::WrongSignature { address });
        }
        // Everybody counts once, so the sum is at most the set's.
        power += member.power();
    }
    Ok(power)
}

fn require(set: &ValidatorSet, signed: u64, enough: bool) -> Result<(), CertificateError> {
    if enough { Ok(()) } else { Err(CertificateError::NotEnoughPower { signed, total: set.total_power() }) }
}

#[cfg(test)]
mod tests;
