//! What validators say about their tips when one of them starts: a question that nobody could foresee, and the answers.
//!
//! A validator whose whole disk is older than what it has signed cannot know that by itself. So it asks the others, and
//! signs nothing for a height before enough of them have answered. Neither message is a vote: any number may be signed.
//!
//! A signature is BIP340 over `tagged_hash(tag, chain id (32) || body)`. Integers are little endian. A message is its kind
//! (1 byte), body, the signer's x-only key (32) and the signature (64): at most [`TIP_STATEMENT_BYTES_MAX`] bytes. The kinds
//! follow those of [`Message`](super::Message), beside which these messages travel.
//!
//! | kind | tag | body |
//! |---|---|---|
//! | 5 question | `causeway/tip-question/v1` | time (8), nonce (16) |
//! | 6 answer | `causeway/tip-answer/v1` | height (4) of the answerer's tip, count (2), that many times: nonce (16), position (9) |
//!
//! A position is where the highest message stands that the answerer knows of whoever asked: height (4), round (4), step
//! (1: 1 proposal, 2 prevote, 3 precommit); nine zeros for none.

use causeway_chainspec::{ChainId, Height, tagged_hash};

use super::bytes::{DecodeError, Reader};
use super::context::{Address, Signature};
use super::message::{decode_height, decode_signature};
use super::signer::{Position, SignStep};
use super::validator_set::VALIDATORS_MAX;

/// Most bytes of an encoded statement: an answer to a question of each of 256 validators.
pub const TIP_STATEMENT_BYTES_MAX: usize = 1 + 4 + 2 + TIP_ANSWERS_MAX * (16 + POSITION_BYTES) + 32 + 64;

/// Most questions that one answer names.
pub const TIP_ANSWERS_MAX: usize = VALIDATORS_MAX;

/// height || round || step
const POSITION_BYTES: usize = 4 + 4 + 1;

const QUESTION: u8 = 5;
const ANSWER: u8 = 6;

/// Names a question. Nobody could answer it before it was asked.
pub type TipNonce = [u8; 16];

/// A statement without its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TipStatement {
    /// A validator starts, and asks the others for their tips.
    Question {
        /// Rises with every question of the validator: milliseconds of Unix time by its clock, or more. What is not above the
        /// last one is a copy of an old question.
        time: u64,
        /// Its name.
        nonce: TipNonce,
    },
    /// A validator tells its tip.
    Answer {
        /// Its height.
        height: Height,
        /// The questions that it answers: sorted by nonce, different, one to [`TIP_ANSWERS_MAX`].
        answers: Vec<TipAnswer>,
    },
}

/// What a validator answers to one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TipAnswer {
    /// The question.
    pub nonce: TipNonce,
    /// Where the highest message stands that the answerer knows of whoever asked.
    pub signed: Option<Position>,
}

/// A statement with who makes it, and the signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedTipStatement {
    /// What is said.
    pub statement: TipStatement,
    /// Who says it.
    pub validator: Address,
    /// The signature over [`TipStatement::digest`].
    pub signature: Signature,
}

impl TipStatement {
    /// What the validator signs on this chain.
    pub fn digest(&self, chain: ChainId) -> [u8; 32] {
        let tag = match self {
            Self::Question { .. } => "causeway/tip-question/v1",
            Self::Answer { .. } => "causeway/tip-answer/v1",
        };
        tagged_hash(tag, &[&chain.to_byte_array(), &self.body()])
    }

    fn body(&self) -> Vec<u8> {
        match self {
            Self::Question { time, nonce } => [&time.to_le_bytes()[..], nonce].concat(),
            Self::Answer { height, answers } => {
                let count = u16::try_from(answers.len()).expect("an answer names at most 256 questions");
                let mut body = Vec::with_capacity(6 + (16 + POSITION_BYTES) * answers.len());
                body.extend_from_slice(&height.to_u32().to_le_bytes());
                body.extend_from_slice(&count.to_le_bytes());
                for answer in answers {
                    body.extend_from_slice(&answer.nonce);
                    body.extend_from_slice(&encode_position(answer.signed));
                }
                body
            }
        }
    }
}

impl SignedTipStatement {
    /// Whether bytes with this first one are a statement's, and no [`Message`](super::Message)'s.
    pub fn is_kind(kind: u8) -> bool {
        matches!(kind, QUESTION | ANSWER)
    }

    /// The one encoding of the statement.
    pub fn encode(&self) -> Vec<u8> {
        let kind = match self.statement {
            TipStatement::Question { .. } => QUESTION,
            TipStatement::Answer { .. } => ANSWER,
        };
        [&[kind][..], &self.statement.body(), &self.validator.0, &self.signature.0].concat()
    }

    /// The statement of this encoding. Reads at most [`TIP_STATEMENT_BYTES_MAX`]. The signature is not checked.
    ///
    /// # Errors
    ///
    /// The bytes are not what [`SignedTipStatement::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let statement = match reader.u8("kind of statement")? {
            QUESTION => {
                let time = u64::from_le_bytes(reader.array("time")?);
                TipStatement::Question { time, nonce: reader.array("nonce")? }
            }
            ANSWER => {
                let height = decode_height(&mut reader)?.0;
                let what = "number of questions";
                let got = usize::from(reader.u16(what)?);
                if got == 0 || got > TIP_ANSWERS_MAX {
                    return Err(DecodeError::Count { what, got, max: TIP_ANSWERS_MAX });
                }
                let answer = |_| Ok(TipAnswer { nonce: reader.array("nonce")?, signed: read_position(&mut reader)? });
                let answers = (0..got).map(answer).collect::<Result<Vec<_>, DecodeError>>()?;
                if !answers.is_sorted_by(|one, next| one.nonce < next.nonce) {
                    return Err(DecodeError::NotCanonical { what: "order of the questions" });
                }
                TipStatement::Answer { height, answers }
            }
            got => return Err(DecodeError::Unknown { what: "kind of statement", got }),
        };
        let validator = Address(reader.array("validator")?);
        let signature = decode_signature(&mut reader)?;
        reader.finish()?;
        Ok(Self { statement, validator, signature })
    }
}

fn encode_position(position: Option<Position>) -> [u8; POSITION_BYTES] {
    let mut bytes = [0; POSITION_BYTES];
    if let Some(Position { height, round, step }) = position {
        bytes[..4].copy_from_slice(&height.to_u32().to_le_bytes());
        bytes[4..8].copy_from_slice(&round.to_le_bytes());
        bytes[8] = match step {
            SignStep::Proposal => 1,
            SignStep::Prevote => 2,
            SignStep::Precommit => 3,
        };
    }
    bytes
}

fn read_position(reader: &mut Reader<'_>) -> Result<Option<Position>, DecodeError> {
    let height = decode_height(reader)?.0;
    let round = reader.u32("round")?;
    let step = match reader.u8("step")? {
        0 if height == Height(0) && round == 0 => return Ok(None),
        0 => return Err(DecodeError::NotCanonical { what: "position of nothing" }),
        1 => SignStep::Proposal,
        2 => SignStep::Prevote,
        3 => SignStep::Precommit,
        got => return Err(DecodeError::Unknown { what: "step", got }),
    };
    Ok(Some(Position { height, round, step }))
}

#[cfg(test)]
mod tests {
    use super::super::HighWaterMark;
    use super::super::gossip::Message;
    use super::super::signer::{Guarded, Signer};
    use super::super::testing::{address, chain, keypair};
    use super::*;

    fn signed(statement: TipStatement) -> SignedTipStatement {
        let signer = Guarded::new(keypair(0), HighWaterMark::never_signed(chain(1), address(0))).unwrap();
        signer.sign_tip_statement(chain(1), statement).unwrap()
    }

    fn question() -> TipStatement {
        TipStatement::Question { time: 1_900_000_000_123, nonce: [7; 16] }
    }

    fn answer(count: u16) -> TipStatement {
        let answer = |number: u16| {
            let mut nonce = [0; 16];
            nonce[..2].copy_from_slice(&number.to_be_bytes());
            let position = Position { height: Height(4_712), round: 3, step: SignStep::Prevote };
            TipAnswer { nonce, signed: (number % 2 == 1).then_some(position) }
        };
        TipStatement::Answer { height: Height(4_711), answers: (0..count).map(answer).collect() }
    }

    #[test]
    fn a_statement_is_what_it_was_after_encoding_and_within_its_bound() {
        for statement in [question(), answer(1), answer(256)] {
            let signed = signed(statement);
            let bytes = signed.encode();
            assert!(bytes.len() <= TIP_STATEMENT_BYTES_MAX);
            assert!(SignedTipStatement::is_kind(bytes[0]));
            assert_eq!(SignedTipStatement::decode(&bytes), Ok(signed));
        }
        assert_eq!(signed(answer(256)).encode().len(), TIP_STATEMENT_BYTES_MAX);
    }

    #[test]
    fn no_statement_is_a_message_of_the_engine() {
        for statement in [question(), answer(3)] {
            assert!(Message::decode(&signed(statement).encode()).is_err());
        }
        for kind in 1..=4 {
            assert!(!SignedTipStatement::is_kind(kind));
        }
    }

    #[test]
    fn a_signature_is_of_one_statement_on_one_chain() {
        let question = signed(question());
        let public = keypair(0).x_only_public_key().0;
        assert!(question.signature.verifies(&question.statement.digest(chain(1)), &public));
        assert!(!question.signature.verifies(&question.statement.digest(chain(2)), &public));
        let other = TipStatement::Question { time: 1_900_000_000_124, nonce: [7; 16] };
        assert!(!question.signature.verifies(&other.digest(chain(1)), &public));
    }

    #[test]
    fn what_no_encoder_writes_is_refused() {
        let whole = signed(answer(2)).encode();
        for end in 0..whole.len() {
            assert!(SignedTipStatement::decode(&whole[..end]).is_err(), "cut off at {end}");
        }
        assert!(SignedTipStatement::decode(&[&whole[..], &[0]].concat()).is_err());
        // No question, too many, one twice, the order of two, a position of nothing, an unknown step, an unknown kind.
        let mut none = whole.clone();
        none[5..7].copy_from_slice(&0u16.to_le_bytes());
        let mut many = whole.clone();
        many[5..7].copy_from_slice(&257u16.to_le_bytes());
        let mut twice = whole.clone();
        twice.copy_within(7..32, 32);
        let mut turned = whole.clone();
        turned[7] = 1;
        let mut nothing = whole.clone();
        nothing[23] = 1;
        let mut step = whole.clone();
        step[31] = 4;
        let mut unknown = whole.clone();
        unknown[0] = 7;
        for bytes in [none, many, twice, turned, nothing, step, unknown] {
            assert!(SignedTipStatement::decode(&bytes).is_err());
        }
    }
}
