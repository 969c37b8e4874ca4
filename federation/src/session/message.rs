//! What members say to each other while they sign, as bytes. Numbers are little endian; every message has one encoding.
//!
//! A signed message: member (u16), signature (64), payload. The signature is BIP340 by the member's identity key over
//! `tagged_hash("causeway/federation-message/v1", chain id (32) || member (u16) || payload)`.
//!
//! Payload: kind (u8), task (32), round (u32), then by kind:
//!
//! | kind | what follows |
//! |---|---|
//! | 1 join | count of members (u16), the round that each was heard in plus 1, or 0 (u32 each), count (u16), names of messages (16 each) |
//! | 2 proposal | count (u16), signers (u16 each, ascending) |
//! | 3 nonces | attempt (32), count (u16), public nonces (66 each) |
//! | 4 partials | attempt (32), hash of the nonces they answer (32), count (u16), partial signatures (32 each) |
//! | 5 signatures | count (u16), signatures (64 each) |
//! | 6 result | count of signers (u16; 0 for the key path), signers (u16 each, ascending), count (u16), signatures (64 each) |
//!
//! Points and scalars are not looked at here: a member whose nonce is no point has signed that it sent it, and is named.

use bitcoin::secp256k1::{XOnlyPublicKey, schnorr};
use causeway_chainspec::{ChainId, tagged_hash};

use super::task::{AttemptId, INPUTS_MAX, MEMBERS_MAX, TaskId};
use crate::musig::{self, IdentityKey, PARTIAL_SIGNATURE_BYTES, PUBLIC_NONCE_BYTES};

const JOIN: u8 = 1;
const PROPOSAL: u8 = 2;
const NONCES: u8 = 3;
const PARTIALS: u8 = 4;
const SIGNATURES: u8 = 5;
const RESULT: u8 = 6;

const SIGNATURE_BYTES: usize = 64;
/// Member and signature.
const SEAL_BYTES: usize = 2 + SIGNATURE_BYTES;
/// Kind, task, round.
const HEAD_BYTES: usize = 1 + 32 + 4;

/// Names a message of a round. Two messages of one name would only be sent once.
pub type MessageName = [u8; 16];

/// Messages that a round has at most: a proposal, and of each member nonces, partial signatures and plain signatures.
const HAVE_MAX: usize = 1 + 3 * MEMBERS_MAX;

/// Most bytes of a signed message: the nonces of 1,000 inputs, or a result with 100 signers.
pub const MESSAGE_BYTES_MAX: usize = {
    let nonces = 32 + 2 + INPUTS_MAX * PUBLIC_NONCE_BYTES;
    let result = 2 + MEMBERS_MAX * 2 + 2 + INPUTS_MAX * SIGNATURE_BYTES;
    SEAL_BYTES + HEAD_BYTES + if nonces > result { nonces } else { result }
};

/// Why bytes are no message of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// More bytes than any message has.
    #[error("a message of more than {MESSAGE_BYTES_MAX} bytes")]
    TooLong,
    /// Too short to say who it is from.
    #[error("a message without a signature")]
    CutOff,
    /// No such member.
    #[error("a message of member {0}, who does not exist")]
    UnknownMember(u16),
    /// The signature is not the member's. Whoever passed it on made it up.
    #[error("a message that member {0} did not sign")]
    NotSigned(u16),
    /// The member signed something that is no message, which is the member's fault.
    #[error("member {0} signed a malformed message")]
    Malformed(u16),
}

/// What a member says about a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionMessage {
    /// The task.
    pub task: TaskId,
    /// The round it belongs to; 0 for a result.
    pub round: u32,
    /// What it says.
    pub body: Body,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// The member is there, in this round, and says what it has of it: others send what it lacks, and nothing else is
    /// said twice.
    Join {
        /// The round that it heard each member in last, plus 1; 0 for one that it has not heard.
        heard: Vec<u32>,
        /// Names of the messages of the round that it has ([`SessionMessage::name`]).
        have: Vec<MessageName>,
    },
    /// The coordinator of the round says who signs.
    Proposal {
        /// Indices of t members, ascending.
        signers: Vec<u16>,
    },
    /// The public nonces of a signer, one for each input.
    Nonces {
        /// Which attempt they are for.
        attempt: AttemptId,
        /// Two points each, not checked.
        nonces: Vec<[u8; PUBLIC_NONCE_BYTES]>,
    },
    /// The partial signatures of a signer, one for each input.
    Partials {
        /// Which attempt they are of.
        attempt: AttemptId,
        /// Hash of all signers' nonces as this signer has them.
        seen: [u8; 32],
        /// Scalars, not checked.
        partials: Vec<[u8; PARTIAL_SIGNATURE_BYTES]>,
    },
    /// Plain signatures of a member for `multi_a`, one for each input.
    Signatures(Vec<schnorr::Signature>),
    /// The task is signed: anyone can check that.
    Result {
        /// The subset whose leaf signs, ascending; none for the key path.
        signers: Vec<u16>,
        /// One for each input.
        signatures: Vec<schnorr::Signature>,
    },
}

impl SessionMessage {
    /// What names this message of a member in [`Body::Join`]: the start of a hash of both.
    pub fn name(&self, member: u16) -> MessageName {
        let hash = tagged_hash("causeway/federation-message-name/v1", &[&member.to_le_bytes(), &self.encode()]);
        *hash.first_chunk().expect("a hash has 32 bytes")
    }

    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES);
        bytes.push(match self.body {
            Body::Join { .. } => JOIN,
            Body::Proposal { .. } => PROPOSAL,
            Body::Nonces { .. } => NONCES,
            Body::Partials { .. } => PARTIALS,
            Body::Signatures(_) => SIGNATURES,
            Body::Result { .. } => RESULT,
        });
        bytes.extend_from_slice(&self.task.0);
        bytes.extend_from_slice(&self.round.to_le_bytes());
        match &self.body {
            Body::Join { heard, have } => {
                list(&mut bytes, heard, |round| round.to_le_bytes());
                list(&mut bytes, have, |name| *name);
            }
            Body::Proposal { signers } => list(&mut bytes, signers, |signer| signer.to_le_bytes()),
            Body::Nonces { attempt, nonces } => {
                bytes.extend_from_slice(&attempt.0);
                list(&mut bytes, nonces, |nonce| *nonce);
            }
            Body::Partials { attempt, seen, partials } => {
                bytes.extend_from_slice(&attempt.0);
                bytes.extend_from_slice(seen);
                list(&mut bytes, partials, |partial| *partial);
            }
            Body::Signatures(signatures) => list(&mut bytes, signatures, schnorr::Signature::serialize),
            Body::Result { signers, signatures } => {
                list(&mut bytes, signers, |signer| signer.to_le_bytes());
                list(&mut bytes, signatures, schnorr::Signature::serialize);
            }
        }
        bytes
    }

    /// The message of a payload; None if it is none, or not in its one encoding.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let [kind] = reader.array()?;
        let task = TaskId(reader.array()?);
        let round = u32::from_le_bytes(reader.array()?);
        let body = match kind {
            JOIN => Body::Join {
                heard: reader.list(0, MEMBERS_MAX)?.into_iter().map(u32::from_le_bytes).collect(),
                have: reader.list(0, HAVE_MAX)?,
            },
            PROPOSAL => Body::Proposal { signers: reader.signers(1)? },
            NONCES => Body::Nonces { attempt: AttemptId(reader.array()?), nonces: reader.list(1, INPUTS_MAX)? },
            PARTIALS => Body::Partials {
                attempt: AttemptId(reader.array()?),
                seen: reader.array()?,
                partials: reader.list(1, INPUTS_MAX)?,
            },
            SIGNATURES => Body::Signatures(reader.signatures()?),
            RESULT if round == 0 => Body::Result { signers: reader.signers(0)?, signatures: reader.signatures()? },
            _ => return None,
        };
        reader.0.is_empty().then_some(Self { task, round, body })
    }
}

fn list<T, const N: usize>(bytes: &mut Vec<u8>, items: &[T], encode: impl Fn(&T) -> [u8; N]) {
    let count = u16::try_from(items.len()).expect("a message lists at most 1,000 items");
    bytes.extend_from_slice(&count.to_le_bytes());
    items.iter().for_each(|item| bytes.extend_from_slice(&encode(item)));
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*array)
    }

    /// Items after their count. Nothing is reserved for what is not there.
    fn list<const N: usize>(&mut self, min: usize, max: usize) -> Option<Vec<[u8; N]>> {
        let count = usize::from(u16::from_le_bytes(self.array()?));
        if !(min..=max).contains(&count) || self.0.len() < count.checked_mul(N)? {
            return None;
        }
        (0..count).map(|_| self.array()).collect()
    }

    fn signers(&mut self, min: usize) -> Option<Vec<u16>> {
        let signers: Vec<u16> = self.list(min, MEMBERS_MAX)?.into_iter().map(u16::from_le_bytes).collect();
        signers.is_sorted_by(|one, two| one < two).then_some(signers)
    }

    fn signatures(&mut self) -> Option<Vec<schnorr::Signature>> {
        let signatures: Vec<[u8; SIGNATURE_BYTES]> = self.list(1, INPUTS_MAX)?;
        signatures.iter().map(|signature| schnorr::Signature::from_slice(signature).ok()).collect()
    }
}

/// A message and the member who signed it. There is no other way to one than signing, or checking the signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedMessage {
    member: u16,
    signature: schnorr::Signature,
    message: SessionMessage,
}

impl SignedMessage {
    /// Signs a message as a member. The same message gets the same signature each time.
    pub fn sign(chain: ChainId, member: u16, key: &IdentityKey, message: SessionMessage) -> Self {
        let signature = key.sign(&digest(chain, member, &message.encode()));
        Self { member, signature, message }
    }

    /// The message in bytes of anyone, checked against the identity keys of the members, in the order of their indices.
    ///
    /// # Errors
    /// [`MessageError`]. Only a malformed message is the fault of the member who is named.
    pub fn decode(bytes: &[u8], chain: ChainId, identities: &[XOnlyPublicKey]) -> Result<Self, MessageError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(MessageError::TooLong);
        }
        let (member, rest) = bytes.split_first_chunk::<2>().ok_or(MessageError::CutOff)?;
        let (signature, payload) = rest.split_first_chunk::<SIGNATURE_BYTES>().ok_or(MessageError::CutOff)?;
        let member = u16::from_le_bytes(*member);
        let identity = identities.get(usize::from(member)).ok_or(MessageError::UnknownMember(member))?;
        let not_signed = MessageError::NotSigned(member);
        let signature = schnorr::Signature::from_slice(signature).map_err(|_| not_signed)?;
        if !musig::verify(identity, &digest(chain, member, payload), &signature) {
            return Err(not_signed);
        }
        let message = SessionMessage::decode(payload).ok_or(MessageError::Malformed(member))?;
        Ok(Self { member, signature, message })
    }

    /// The bytes, at most [`MESSAGE_BYTES_MAX`].
    pub fn encode(&self) -> Vec<u8> {
        let member = self.member.to_le_bytes();
        [&member[..], &self.signature.serialize(), &self.message.encode()].concat()
    }

    /// Who signed it.
    pub fn member(&self) -> u16 {
        self.member
    }

    /// What it says.
    pub fn message(&self) -> &SessionMessage {
        &self.message
    }
}

fn digest(chain: ChainId, member: u16, payload: &[u8]) -> [u8; 32] {
    tagged_hash("causeway/federation-message/v1", &[&chain.to_byte_array(), &member.to_le_bytes(), payload])
}

#[cfg(test)]
mod tests;
