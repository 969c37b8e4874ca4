//! What nodes send to each other, as bytes. Numbers are little endian.
//!
//! Gossip, by topic:
//!
//! | topic | body | at most |
//! |---|---|---|
//! | consensus | nonce (8), [`bft::Message`] or [`bft::SignedTipStatement`] | [`CONSENSUS_BYTES_MAX`] |
//! | bodies | 0, nonce (8), height (4), block hash (32), length of the block (4): the sender has it | |
//! | | 1, height (4), block of at most [`PUSHED_BYTES_MAX`] bytes | [`BODY_BYTES_MAX`] |
//! | claims | nonce (8), [`PegIn`] | [`CLAIM_BYTES_MAX`] |
//! | transactions | nonce (8), of each: length (4), transaction with witnesses | [`TRANSACTIONS_BYTES_MAX`], [`TRANSACTIONS_MAX`] of them |
//!
//! A gossip layer drops what it has carried before: the nonce tells a message that is sent again from its first sending.
//!
//! Request and answer are a kind (1 byte) and a body:
//!
//! | kind | request | answer |
//! |---|---|---|
//! | 1 status | height (4) of the asker's tip | height (4), block hash (32) of the answerer's tip |
//! | 2 blocks | first height (4), count (2) | count (2), of each: length (4), certificate, length (4), block |
//! | 3 body | height (4), block hash (32) | 0, or 1 and the block |

use bitcoin::consensus::Encodable;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Transaction};
use bytes::Bytes;
use causeway_chainspec::Height;
use causeway_consensus::bft;
use causeway_consensus::peg::evidence::PegIn;

/// The version of everything here. Nodes of other versions are refused when they connect.
pub const PROTOCOL_VERSION: u32 = 2;

/// Most bytes of a block: its weight limit, all of it witness.
pub const BLOCK_BYTES_MAX: usize = 4_000_000;

/// Most bytes of a message on the consensus topic.
pub const CONSENSUS_BYTES_MAX: usize = 8 + bft::gossip::MESSAGE_BYTES_MAX;

/// Most bytes of a block that is sent to peers unasked. A longer one is announced, and whoever wants it fetches it, of one
/// peer at a time: over a line of 50 Mbit/s 4 MB to eight peers at once take five seconds, 64 KiB take 84 ms.
pub const PUSHED_BYTES_MAX: usize = 64 << 10;

/// Most bytes of a message on the topic of block bodies.
pub const BODY_BYTES_MAX: usize = 1 + 4 + PUSHED_BYTES_MAX;

/// Most bytes of a message on the topic of transactions: one of the standard weight limit, all of it witness.
pub const TRANSACTIONS_BYTES_MAX: usize = 8 + 4 + 400_000;

/// Most bytes of a message on the topic of claims: a deposit whose proof fits into a peg transaction.
pub const CLAIM_BYTES_MAX: usize = 8 + causeway_consensus::peg::evidence::SINGLE_PROOF_BYTES_MAX;

/// Most transactions of such a message.
pub const TRANSACTIONS_MAX: usize = 256;

/// Most bytes of a request.
pub const REQUEST_BYTES_MAX: usize = 1 + 4 + 32;

/// Most blocks of an answer.
pub const ANSWER_BLOCKS_MAX: u16 = 128;

/// An answer with blocks ends before it gets longer than this, unless it is a single block.
pub const ANSWER_BYTES_TARGET: usize = 4 << 20;

/// Most bytes of a certificate in an answer: 256 validators of 64 bytes and their positions.
pub const CERTIFICATE_BYTES_MAX: usize = 20_000;

/// Most bytes of an answer.
pub const RESPONSE_BYTES_MAX: usize =
    3 + ANSWER_BYTES_TARGET + BLOCK_BYTES_MAX + CERTIFICATE_BYTES_MAX + 8 * ANSWER_BLOCKS_MAX as usize;

/// What a gossip message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Votes, proposals and certificates of rounds.
    Consensus,
    /// Blocks that are proposed, or word of who has them.
    Bodies,
    /// Transactions for the mempool.
    Transactions,
    /// Deposits to be credited.
    Claims,
}

impl Topic {
    /// Every topic.
    pub const ALL: [Self; 4] = [Self::Consensus, Self::Bodies, Self::Transactions, Self::Claims];

    /// The topic's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Consensus => "consensus",
            Self::Bodies => "bodies",
            Self::Transactions => "transactions",
            Self::Claims => "claims",
        }
    }

    /// Most bytes of a message.
    pub fn max_bytes(self) -> usize {
        match self {
            Self::Consensus => CONSENSUS_BYTES_MAX,
            Self::Bodies => BODY_BYTES_MAX,
            Self::Transactions => TRANSACTIONS_BYTES_MAX,
            Self::Claims => CLAIM_BYTES_MAX,
        }
    }
}

/// What one node asks another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Which tip have you? This is mine.
    Status {
        /// Height of the asker's tip.
        height: Height,
    },
    /// Final blocks with their certificates.
    Blocks {
        /// Height of the first.
        from: Height,
        /// How many, at most. At least one, at most [`ANSWER_BLOCKS_MAX`].
        count: u16,
    },
    /// A block that is proposed and not final yet.
    Body {
        /// Its height.
        height: Height,
        /// Its id.
        hash: BlockHash,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// The answerer's tip.
    Status {
        /// Its height.
        height: Height,
        /// Its id.
        hash: BlockHash,
    },
    /// Final blocks, from the height asked for, without a gap; none if the answerer has not the first.
    Blocks(Vec<FinalBlock>),
    /// The block, if the answerer has it.
    Body(Option<Bytes>),
}

/// A message on the topic of block bodies. Nothing of it is checked but its bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyMessage {
    /// The sender has this block, and hands it out.
    Announced {
        /// Its height.
        height: Height,
        /// Its id.
        hash: BlockHash,
        /// Its length, at most [`BLOCK_BYTES_MAX`].
        bytes: u32,
    },
    /// A short block.
    Pushed {
        /// Its height, as the sender says.
        height: Height,
        /// The serialised block.
        block: Bytes,
    },
}

/// A block with what makes it final. Nothing of it is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinalBlock {
    /// The encoded commit certificate.
    pub certificate: Bytes,
    /// The serialised block.
    pub block: Bytes,
}

/// Bytes that are no message of this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// They end too early.
    #[error("the message is cut off")]
    CutOff,
    /// Something follows the message.
    #[error("{bytes} bytes follow the message")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// No such kind of message.
    #[error("unknown kind of message {got}")]
    UnknownKind {
        /// The kind.
        got: u8,
    },
    /// A number or a length is out of its bounds.
    #[error("{what} is {got}, at most {max}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        got: usize,
        /// The limit.
        max: usize,
    },
    /// None, where there must be one.
    #[error("no {what}")]
    None {
        /// Of what.
        what: &'static str,
    },
}

impl Request {
    /// The one encoding of the request.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Status { height } => [&[1][..], &height.to_u32().to_le_bytes()].concat(),
            Self::Blocks { from, count } => [&[2][..], &from.to_u32().to_le_bytes(), &count.to_le_bytes()].concat(),
            Self::Body { height, hash } => [&[3][..], &height.to_u32().to_le_bytes(), &hash.to_byte_array()].concat(),
        }
    }

    /// The request of this encoding.
    ///
    /// # Errors
    /// The bytes are not what [`Request::encode`] writes, or the count is out of its bounds.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader(Bytes::copy_from_slice(bytes));
        let request = match reader.u8()? {
            1 => Self::Status { height: reader.height()? },
            2 => {
                let (from, count) = (reader.height()?, reader.u16()?);
                bounded("count of blocks", count.into(), ANSWER_BLOCKS_MAX.into())?;
                Self::Blocks { from, count }
            }
            3 => Self::Body { height: reader.height()?, hash: reader.hash()? },
            got => return Err(WireError::UnknownKind { got }),
        };
        reader.finish()?;
        Ok(request)
    }
}

impl Response {
    /// The one encoding of the answer.
    ///
    /// # Panics
    /// If there are more than [`ANSWER_BLOCKS_MAX`] blocks, or one is beyond its bound.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Status { height, hash } => [&[1][..], &height.to_u32().to_le_bytes(), &hash.to_byte_array()].concat(),
            Self::Blocks(blocks) => {
                let count = u16::try_from(blocks.len()).expect("an answer has few blocks");
                assert!(count <= ANSWER_BLOCKS_MAX, "an answer has few blocks");
                let size: usize = blocks.iter().map(|block| 8 + block.certificate.len() + block.block.len()).sum();
                let mut bytes = Vec::with_capacity(3 + size);
                bytes.push(2);
                bytes.extend_from_slice(&count.to_le_bytes());
                for part in blocks.iter().flat_map(|block| [&block.certificate, &block.block]) {
                    let length = u32::try_from(part.len()).expect("a block is within its bound");
                    bytes.extend_from_slice(&length.to_le_bytes());
                    bytes.extend_from_slice(part);
                }
                bytes
            }
            Self::Body(None) => vec![3, 0],
            Self::Body(Some(block)) => [&[3, 1][..], block].concat(),
        }
    }

    /// The answer of this encoding. The blocks share the memory of `bytes`.
    ///
    /// # Errors
    /// The bytes are not what [`Response::encode`] writes, or a bound is passed.
    pub fn decode(bytes: Bytes) -> Result<Self, WireError> {
        let mut reader = Reader(bytes);
        let response = match reader.u8()? {
            1 => Self::Status { height: reader.height()?, hash: reader.hash()? },
            2 => {
                let count = reader.u16()?;
                bounded_or_none("count of blocks", count.into(), ANSWER_BLOCKS_MAX.into())?;
                let mut blocks = Vec::with_capacity(count.into());
                for _ in 0..count {
                    let certificate = reader.part("bytes of a certificate", CERTIFICATE_BYTES_MAX)?;
                    let block = reader.part("bytes of a block", BLOCK_BYTES_MAX)?;
                    blocks.push(FinalBlock { certificate, block });
                }
                Self::Blocks(blocks)
            }
            3 => match reader.u8()? {
                0 => Self::Body(None),
                1 => Self::Body(Some(reader.rest("bytes of a block", BLOCK_BYTES_MAX)?)),
                got => return Err(WireError::UnknownKind { got }),
            },
            got => return Err(WireError::UnknownKind { got }),
        };
        reader.finish()?;
        Ok(response)
    }
}

/// Returns a message for the consensus topic.
pub fn encode_consensus(message: &bft::Message, nonce: u64) -> Bytes {
    [&nonce.to_le_bytes()[..], &message.encode()].concat().into()
}

/// Returns a statement about a tip for the consensus topic.
pub fn encode_tip_statement(statement: &bft::SignedTipStatement, nonce: u64) -> Bytes {
    [&nonce.to_le_bytes()[..], &statement.encode()].concat().into()
}

/// Returns the encoded [`bft::Message`] or [`bft::SignedTipStatement`] of a message of the consensus topic.
///
/// # Errors
/// It is shorter than its nonce.
pub fn decode_consensus(bytes: &[u8]) -> Result<&[u8], WireError> {
    bytes.split_at_checked(8).map(|(_, message)| message).ok_or(WireError::CutOff)
}

/// Returns the nonce of a vote on the consensus topic: the Unix time at which it was sent, in nanoseconds, if its sender
/// says the truth; `None` for any other message.
pub fn vote_nonce(bytes: &[u8]) -> Option<u64> {
    let (nonce, message) = bytes.split_first_chunk::<8>()?;
    (message.first() == Some(&bft::gossip::KIND_VOTE)).then(|| u64::from_le_bytes(*nonce))
}

/// Returns a message for the topic of claims.
pub fn encode_claim(peg_in: &PegIn, nonce: u64) -> Bytes {
    let mut bytes = nonce.to_le_bytes().to_vec();
    peg_in.encode(&mut bytes);
    bytes.into()
}

/// Returns the deposit of a message of the topic of claims; `None` for anything else.
pub fn decode_claim(bytes: &[u8]) -> Option<PegIn> {
    PegIn::decode(bytes.get(8..)?)
}

/// Returns a message for the topic of block bodies that says: this node has the block.
pub fn encode_announcement(height: Height, hash: BlockHash, bytes: u32, nonce: u64) -> Bytes {
    let head = [&[0][..], &nonce.to_le_bytes(), &height.to_u32().to_le_bytes()].concat();
    [&head[..], &hash.to_byte_array(), &bytes.to_le_bytes()].concat().into()
}

/// Returns a message for the topic of block bodies that holds the block: at most [`PUSHED_BYTES_MAX`] bytes.
pub fn encode_body(height: Height, block: &[u8]) -> Bytes {
    [&[1][..], &height.to_u32().to_le_bytes(), block].concat().into()
}

/// Returns what a message of the topic of block bodies says. Whether a block has that height is not checked.
///
/// # Errors
/// It is neither what [`encode_announcement`] nor what [`encode_body`] writes, or a bound is passed.
pub fn decode_body(bytes: Bytes) -> Result<BodyMessage, WireError> {
    let mut reader = Reader(bytes);
    let message = match reader.u8()? {
        0 => {
            reader.take(8)?;
            let (height, hash) = (reader.height()?, reader.hash()?);
            let bytes = u32::from_le_bytes(reader.array()?);
            bounded("bytes of a block", usize::try_from(bytes).unwrap_or(usize::MAX), BLOCK_BYTES_MAX)?;
            BodyMessage::Announced { height, hash, bytes }
        }
        1 => {
            BodyMessage::Pushed { height: reader.height()?, block: reader.rest("bytes of a block", PUSHED_BYTES_MAX)? }
        }
        got => return Err(WireError::UnknownKind { got }),
    };
    reader.finish()?;
    Ok(message)
}

/// Returns a serialised transaction, with witnesses, in one allocation.
pub fn encode_transaction(transaction: &Transaction) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(transaction.total_size());
    transaction.consensus_encode(&mut bytes).expect("a vector takes all");
    bytes
}

/// Returns a message for the topic of transactions.
///
/// # Panics
/// If a transaction is beyond 4 GiB.
pub fn encode_transactions(transactions: &[Bytes], nonce: u64) -> Bytes {
    let size: usize = transactions.iter().map(|transaction| 4 + transaction.len()).sum();
    let mut bytes = Vec::with_capacity(8 + size);
    bytes.extend_from_slice(&nonce.to_le_bytes());
    for transaction in transactions {
        let length = u32::try_from(transaction.len()).expect("a transaction is within its bound");
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(transaction);
    }
    bytes.into()
}

/// Returns the serialised transactions of a message of their topic: at least one.
///
/// # Errors
/// The bytes are not what [`encode_transactions`] writes, or there are none, or too many.
pub fn decode_transactions(bytes: Bytes) -> Result<Vec<Bytes>, WireError> {
    let mut reader = Reader(bytes);
    reader.take(8)?;
    let mut transactions = Vec::new();
    while !reader.0.is_empty() {
        transactions.push(reader.part("bytes of a transaction", TRANSACTIONS_BYTES_MAX)?);
        bounded("count of transactions", transactions.len(), TRANSACTIONS_MAX)?;
    }
    bounded("count of transactions", transactions.len(), TRANSACTIONS_MAX)?;
    Ok(transactions)
}

struct Reader(Bytes);

impl Reader {
    fn take(&mut self, count: usize) -> Result<Bytes, WireError> {
        if self.0.len() < count { Err(WireError::CutOff) } else { Ok(self.0.split_to(count)) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let bytes = self.take(N)?;
        Ok(bytes[..].try_into().expect("as many were taken"))
    }

    fn u8(&mut self) -> Result<u8, WireError> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_le_bytes)
    }

    fn height(&mut self) -> Result<Height, WireError> {
        self.array().map(|bytes| Height(u32::from_le_bytes(bytes)))
    }

    fn hash(&mut self) -> Result<BlockHash, WireError> {
        self.array().map(BlockHash::from_byte_array)
    }

    fn part(&mut self, what: &'static str, max: usize) -> Result<Bytes, WireError> {
        let length = u32::from_le_bytes(self.array()?);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        bounded_or_none(what, length, max)?;
        self.take(length)
    }

    fn rest(&mut self, what: &'static str, max: usize) -> Result<Bytes, WireError> {
        bounded_or_none(what, self.0.len(), max)?;
        Ok(std::mem::take(&mut self.0))
    }

    fn finish(self) -> Result<(), WireError> {
        if self.0.is_empty() { Ok(()) } else { Err(WireError::Trailing { bytes: self.0.len() }) }
    }
}

fn bounded(what: &'static str, got: usize, max: usize) -> Result<(), WireError> {
    if got == 0 { Err(WireError::None { what }) } else { bounded_or_none(what, got, max) }
}

fn bounded_or_none(what: &'static str, got: usize, max: usize) -> Result<(), WireError> {
    if got > max { Err(WireError::TooMany { what, got, max }) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
