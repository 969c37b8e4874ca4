//! The highest message that a key has signed. It refuses everything at or below but that same message: a restored backup,
//! a lost log or a bug above must not make a validator say two things at once.
//!
//! It does not remember locks. A validator that loses its log may vote in a later round as if it had never been locked:
//! the log is what prevents that, so it is as precious as the mark. Nor does it help against a second machine with a copy
//! of the key *and* of the mark: the mark belongs beside the key and nowhere else, and into no backup.
//!
//! | field | bytes |
//! |---|---|
//! | version | 1: 1 |
//! | chain id, validator's key | 32, 32 |
//! | height, round | 4, 4, little endian |
//! | step | 1: 0 nothing signed, 1 proposal, 2 prevote, 3 precommit |
//! | digest, signature | 32, 64 |
//! | checksum | 4: the start of `tagged_hash("causeway/high-water-mark/v1", all before)` |
//!
//! Always 174 bytes. Everything from the height to the signature is zero while nothing is signed. A barrier has the last
//! step of round 2^32 - 1, in which no message stands, and zeros for digest and signature.

use causeway_chainspec::{ChainId, Height, tagged_hash};

use super::bytes::{DecodeError, Reader};
use super::context::{Address, Signature};
use super::log::LogEntry;
use super::signer::{Position, Refusal, SignStep, ToSign};

/// Bytes of an encoded mark.
pub const MARK_BYTES: usize = BODY + 4;

const BODY: usize = 1 + 32 + 32 + 4 + 4 + 1 + 32 + 64;
const VERSION: u8 = 1;

/// The round of a barrier: the encoding of "no round", which no signed message has.
const BARRIER_ROUND: u32 = u32::MAX;

const TAG: &str = "causeway/high-water-mark/v1";

/// Why a mark cannot be used. A mark must never be made anew for a key that has signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MarkError {
    /// The bytes are not a mark's.
    #[error(
        "the high-water mark is damaged: do not delete it; validate with a new key, or restore the file from this disk"
    )]
    Damaged(#[source] DecodeError),
    /// The checksum does not match the bytes.
    #[error(
        "the high-water mark's checksum is wrong: do not delete it; validate with a new key, or restore the file from this disk"
    )]
    Checksum,
    /// The mark is of a later version of this program.
    #[error("the high-water mark has version {got}, this build knows {VERSION}: use the newer build")]
    Version {
        /// Its version.
        got: u8,
    },
    /// The mark is of another key.
    #[error("the high-water mark is of key {mark}, not {key}: put each key beside its own mark")]
    OtherKey {
        /// Key of the mark.
        mark: Address,
        /// Key at hand.
        key: Address,
    },
}

/// What a key last signed on one chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HighWaterMark {
    chain: ChainId,
    validator: Address,
    last: Option<Last>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Last {
    position: Position,
    digest: [u8; 32],
    signature: Signature,
}

/// What a mark says of a message that it does not refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// It is above the mark.
    New,
    /// It is what was signed last, and this is the signature.
    Again(Signature),
}

impl HighWaterMark {
    /// The mark of a new key, which has signed nothing. Never for a key that may have.
    pub fn never_signed(chain: ChainId, validator: Address) -> Self {
        Self { chain, validator, last: None }
    }

    /// The mark of a key that has signed nobody knows what, up to this height: it permits nothing at or below.
    ///
    /// Such a key cannot contradict what it said before, and no lock that it forgot matters above: locks end with their
    /// height. It is safe if the key has signed nothing above `height` and nothing else signs with it from here on, which
    /// only the operator can know.
    pub fn barrier(chain: ChainId, validator: Address, height: Height) -> Self {
        let position = Position { height, round: BARRIER_ROUND, step: SignStep::Precommit };
        Self { chain, validator, last: Some(Last { position, digest: [0; 32], signature: Signature::WITHHELD }) }
    }

    /// Whether the mark is a [`HighWaterMark::barrier`].
    pub fn is_barrier(&self) -> bool {
        self.last.is_some_and(|last| last.position.round == BARRIER_ROUND)
    }

    /// Whether a log of its height still has what was signed last, and with it everything signed before: a log is written
    /// ahead of the mark, in order. True if nothing is signed, and for a barrier, which needs no log.
    pub fn stands_in(&self, log: &[LogEntry]) -> bool {
        let Some(last) = self.last.filter(|_| !self.is_barrier()) else { return true };
        log.iter().any(|entry| entry.own && entry.signed() == Some((self.validator, last.signature)))
    }

    /// The chain that the key signs for.
    pub fn chain(&self) -> ChainId {
        self.chain
    }

    /// The key's validator.
    pub fn validator(&self) -> Address {
        self.validator
    }

    /// Where the last signed message stands; `None` if nothing is signed.
    pub fn position(&self) -> Option<Position> {
        self.last.map(|last| last.position)
    }

    /// Whether the message may be signed.
    ///
    /// # Errors
    ///
    /// It is of another chain, below the mark, or at the mark but another message.
    pub fn permit(&self, message: &ToSign) -> Result<Permit, Refusal> {
        if message.chain() != self.chain {
            return Err(Refusal::OtherChain { got: message.chain(), wanted: self.chain });
        }
        let position = message.position();
        match &self.last {
            Some(last) if position < last.position => Err(Refusal::Below { position, mark: last.position }),
            Some(last) if position == last.position && *message.digest() == last.digest => {
                Ok(Permit::Again(last.signature))
            }
            Some(last) if position == last.position => Err(Refusal::Conflict { position }),
            _ => Ok(Permit::New),
        }
    }

    /// The mark after this message, which it permits.
    pub(super) fn raised(&self, message: &ToSign, signature: Signature) -> Self {
        let last = Last { position: message.position(), digest: *message.digest(), signature };
        Self { last: Some(last), ..self.clone() }
    }

    /// The one encoding of the mark.
    pub fn encode(&self) -> [u8; MARK_BYTES] {
        let mut bytes = [0; MARK_BYTES];
        bytes[0] = VERSION;
        bytes[1..33].copy_from_slice(&self.chain.to_byte_array());
        bytes[33..65].copy_from_slice(&self.validator.0);
        if let Some(last) = &self.last {
            bytes[65..69].copy_from_slice(&last.position.height.to_u32().to_le_bytes());
            bytes[69..73].copy_from_slice(&last.position.round.to_le_bytes());
            bytes[73] = match last.position.step {
                SignStep::Proposal => 1,
                SignStep::Prevote => 2,
                SignStep::Precommit => 3,
            };
            bytes[74..106].copy_from_slice(&last.digest);
            bytes[106..170].copy_from_slice(&last.signature.0);
        }
        let checksum = checksum(&bytes[..BODY]);
        bytes[BODY..].copy_from_slice(&checksum);
        bytes
    }

    /// The mark of this encoding.
    ///
    /// # Errors
    ///
    /// The bytes are not what [`HighWaterMark::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, MarkError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8("version").map_err(MarkError::Damaged)?;
        if version != VERSION {
            return Err(MarkError::Version { got: version });
        }
        let mark = Self::read(&mut reader).map_err(MarkError::Damaged)?;
        let stored: [u8; 4] = reader.array("checksum").map_err(MarkError::Damaged)?;
        reader.finish().map_err(MarkError::Damaged)?;
        if stored != checksum(&bytes[..BODY]) {
            return Err(MarkError::Checksum);
        }
        if mark.encode() != bytes {
            return Err(MarkError::Damaged(DecodeError::NotCanonical { what: "mark" }));
        }
        Ok(mark)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let chain = ChainId::from_byte_array(reader.array("chain id")?);
        let validator = Address(reader.array("validator")?);
        let height = Height(reader.u32("height")?);
        let round = reader.u32("round")?;
        let step = match reader.u8("step")? {
            0 => None,
            1 => Some(SignStep::Proposal),
            2 => Some(SignStep::Prevote),
            3 => Some(SignStep::Precommit),
            got => return Err(DecodeError::Unknown { what: "step", got }),
        };
        let digest = reader.array("digest")?;
        let signature = Signature(reader.array("signature")?);
        let last = step.map(|step| Last { position: Position { height, round, step }, digest, signature });
        Ok(Self { chain, validator, last })
    }
}

fn checksum(bytes: &[u8]) -> [u8; 4] {
    let [a, b, c, d, ..] = tagged_hash(TAG, &[bytes]);
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bft::message::{Proposal, Vote};
    use crate::bft::signer::{Guarded, Signer};
    use crate::bft::testing::{address, block, chain, keypair};
    use arc_malachitebft_core_types::VoteType;
    use bitcoin::hashes::{Hash, sha256};

    fn vote(kind: VoteType, height: u32, round: u32, fill: Option<u8>) -> ToSign {
        let vote = Vote::new(kind, Height(height), round, fill.map(block), address(0));
        ToSign::vote(chain(1), &vote).unwrap()
    }

    fn proposal(height: u32, round: u32, fill: u8) -> ToSign {
        ToSign::proposal(chain(1), &Proposal::new(Height(height), round, block(fill), None, address(0))).unwrap()
    }

    fn guarded() -> Guarded<bitcoin::secp256k1::Keypair> {
        Guarded::new(keypair(0), HighWaterMark::never_signed(chain(1), address(0))).unwrap()
    }

    #[test]
    fn it_only_moves_up() {
        let mut signer = guarded();
        let messages = [
            proposal(101, 0, 1),
            vote(VoteType::Prevote, 101, 0, Some(1)),
            vote(VoteType::Precommit, 101, 0, Some(1)),
            vote(VoteType::Prevote, 101, 1, None),
            proposal(101, 2, 1),
            proposal(102, 0, 1),
        ];
        for (index, message) in messages.iter().enumerate() {
            let (signature, mark) = signer.sign(message).unwrap().open();
            assert!(signature.verifies(message.digest(), &keypair(0).x_only_public_key().0));
            assert_eq!(mark.unwrap().position(), Some(message.position()));
            for earlier in &messages[..index] {
                let refusal = Refusal::Below { position: earlier.position(), mark: message.position() };
                assert_eq!(signer.sign(earlier).unwrap_err(), refusal);
            }
        }
    }

    #[test]
    fn the_same_message_again_is_no_other() {
        let mut signer = guarded();
        let message = vote(VoteType::Prevote, 101, 0, Some(1));
        let (signature, mark) = signer.sign(&message).unwrap().open();
        let (again, mark_again) = signer.sign(&message).unwrap().open();
        assert_eq!((signature, &mark), (again, &mark_again));
        for other in [vote(VoteType::Prevote, 101, 0, Some(2)), vote(VoteType::Prevote, 101, 0, None)] {
            let refusal = Refusal::Conflict { position: other.position() };
            assert_eq!(signer.sign(&other).unwrap_err(), refusal);
        }

        // After a restart it knows what it has signed.
        let mark = HighWaterMark::decode(&mark.unwrap().encode()).unwrap();
        let mut restarted = Guarded::new(keypair(0), mark).unwrap();
        assert_eq!(restarted.sign(&message).unwrap().open().0, signature);
        assert!(restarted.sign(&vote(VoteType::Prevote, 101, 0, None)).is_err());
        assert!(restarted.sign(&proposal(101, 0, 1)).is_err());
        assert!(restarted.sign(&vote(VoteType::Precommit, 101, 0, None)).is_ok());
    }

    #[test]
    fn it_is_bound_to_one_chain_and_key() {
        let foreign = Vote::new(VoteType::Prevote, Height(900), 0, None, address(0));
        let foreign = ToSign::vote(chain(2), &foreign).unwrap();
        let refusal = Refusal::OtherChain { got: chain(2), wanted: chain(1) };
        assert_eq!(guarded().sign(&foreign).unwrap_err(), refusal);
        let mark = HighWaterMark::never_signed(chain(1), address(1));
        assert!(matches!(Guarded::new(keypair(0), mark), Err(MarkError::OtherKey { .. })));
    }

    #[test]
    fn a_barrier_permits_what_is_above_its_height_and_nothing_else() {
        let barrier = HighWaterMark::barrier(chain(1), address(0), Height(101));
        assert!(barrier.is_barrier());
        assert_eq!(HighWaterMark::decode(&barrier.encode()), Ok(barrier.clone()));
        let mut signer = Guarded::new(keypair(0), barrier.clone()).unwrap();
        let mark = barrier.position().unwrap();
        for round in [0, 7, u32::MAX - 1] {
            for message in [
                proposal(101, round, 1),
                vote(VoteType::Precommit, 101, round, None),
                vote(VoteType::Precommit, 100, round, Some(1)),
            ] {
                let refusal = Refusal::Below { position: message.position(), mark };
                assert_eq!(signer.sign(&message).unwrap_err(), refusal);
            }
        }
        let (_, mark) = signer.sign(&proposal(102, 0, 1)).unwrap().open();
        let mark = mark.unwrap();
        assert!(!mark.is_barrier());
        assert!(mark.position() > barrier.position());
    }

    #[test]
    fn a_mark_stands_in_the_log_that_was_written_ahead_of_it() {
        use crate::bft::log::Entry;
        use crate::bft::message::SignedVote;

        let mut signer = guarded();
        let mut log = Vec::new();
        let mut marks = vec![HighWaterMark::never_signed(chain(1), address(0))];
        for kind in [VoteType::Prevote, VoteType::Precommit] {
            let vote = Vote::new(kind, Height(101), 0, Some(block(1)), address(0));
            let (signature, mark) = signer.sign(&ToSign::vote(chain(1), &vote).unwrap()).unwrap().open();
            log.push(LogEntry { entry: Entry::Vote(SignedVote::new(vote, signature)), own: true });
            marks.push(mark.unwrap());
        }
        for (signed, mark) in marks.iter().enumerate() {
            for length in 0..=log.len() {
                assert_eq!(mark.stands_in(&log[..length]), signed <= length, "{signed} of {length}");
            }
        }
        // What came back from others was not said here.
        log.iter_mut().for_each(|entry| entry.own = false);
        assert!(!marks[2].stands_in(&log));
        assert!(HighWaterMark::barrier(chain(1), address(0), Height(101)).stands_in(&[]));
    }

    #[test]
    fn an_unreachable_key_leaves_the_mark_alone() {
        struct Gone;
        impl crate::bft::signer::Key for Gone {
            fn address(&self) -> Address {
                address(0)
            }
            fn sign(&self, _: &[u8; 32]) -> Option<Signature> {
                None
            }
        }
        let mut signer = Guarded::new(Gone, HighWaterMark::never_signed(chain(1), address(0))).unwrap();
        assert_eq!(signer.sign(&proposal(101, 0, 1)).unwrap_err(), Refusal::Unavailable);
        assert_eq!(signer.sign(&proposal(101, 0, 2)).unwrap_err(), Refusal::Unavailable);
    }

    #[test]
    fn the_encoding_is_frozen_and_damage_is_seen() {
        let fresh = HighWaterMark::never_signed(chain(1), address(0));
        assert_eq!(HighWaterMark::decode(&fresh.encode()), Ok(fresh));
        let (_, mark) = guarded().sign(&vote(VoteType::Precommit, 101, 7, Some(1))).unwrap().open();
        let mark = mark.unwrap();
        let bytes = mark.encode();
        assert_eq!(HighWaterMark::decode(&bytes), Ok(mark));
        assert_eq!(
            sha256::Hash::hash(&bytes).to_string(),
            "04daa1d91b87406949ce4fb2a845a6b4e1e04b25f757fd36c18c6f327caee14b"
        );
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(HighWaterMark::decode(&changed).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(HighWaterMark::decode(&bytes[..length]).is_err());
        }
        assert!(HighWaterMark::decode(&[&bytes[..], &[0]].concat()).is_err());
        assert_eq!(HighWaterMark::decode(&[2; MARK_BYTES]), Err(MarkError::Version { got: 2 }));
    }
}
