//! A run of headers, as evidence carries it.

use bitcoin::block::{Header, Version};
use bitcoin::consensus::encode::{Decodable, Encodable, VarInt};
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, CompactTarget, TxMerkleNode};
use thiserror::Error;

/// Headers that follow each other, without the hashes that link them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderRun {
    /// The known header that the first one follows.
    pub parent: BlockHash,
    /// The headers, lowest first.
    pub headers: Vec<BareHeader>,
}

/// A header without its previous-hash field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BareHeader {
    /// The block's version.
    pub version: Version,
    /// The root of the block's transactions.
    pub merkle_root: TxMerkleNode,
    /// Seconds of Unix time.
    pub time: u32,
    /// The target, in compact form.
    pub bits: CompactTarget,
    /// What the miner varied.
    pub nonce: u32,
}

/// Why bytes are no [`HeaderRun`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MalformedRun {
    /// The bytes end inside the run's head, or its count is longer than needed.
    #[error("the run of headers does not begin with a hash and a count in its shortest form")]
    Head,
    /// A run without headers.
    #[error("the run of headers is empty")]
    Empty,
    /// More headers than the bytes hold.
    #[error("the run has {count} headers of 48 bytes, but {bytes} bytes are left")]
    Short {
        /// The count that the run states.
        count: u64,
        /// The bytes after it.
        bytes: usize,
    },
}

impl HeaderRun {
    /// The run of `headers`; `None` without any, or if one does not name the one before it as its parent.
    pub fn between(headers: &[Header]) -> Option<Self> {
        let first = headers.first()?;
        let linked = headers.windows(2).all(|pair| pair[1].prev_blockhash == pair[0].block_hash());
        linked.then(|| Self { parent: first.prev_blockhash, headers: headers.iter().map(BareHeader::from).collect() })
    }

    /// The hash of each header, in their order.
    pub fn hashes(&self) -> impl Iterator<Item = BlockHash> {
        self.headers.iter().scan(self.parent, |parent, header| {
            *parent = header.after(*parent).block_hash();
            Some(*parent)
        })
    }

    /// Appends parent (32, internal byte order) || compact size of the count || 48 bytes for each header.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.parent.as_byte_array());
        write(&VarInt::from(self.headers.len()), out);
        self.headers.iter().for_each(|header| header.encode(out));
    }

    /// Takes a run off the front of `bytes`. It has one encoding only, and memory is allocated for what is there.
    ///
    /// # Errors
    /// [`MalformedRun`]; then `bytes` may have been moved.
    pub fn decode(bytes: &mut &[u8]) -> Result<Self, MalformedRun> {
        let parent = BlockHash::consensus_decode(bytes).map_err(|_| MalformedRun::Head)?;
        let VarInt(count) = VarInt::consensus_decode(bytes).map_err(|_| MalformedRun::Head)?;
        if count == 0 {
            return Err(MalformedRun::Empty);
        }
        let short = MalformedRun::Short { count, bytes: bytes.len() };
        let wanted = usize::try_from(count).ok().and_then(|count| count.checked_mul(BareHeader::SIZE));
        let (headers, rest) = wanted.and_then(|wanted| bytes.split_at_checked(wanted)).ok_or(short)?;
        *bytes = rest;
        let (headers, _) = headers.as_chunks::<{ BareHeader::SIZE }>();
        Ok(Self { parent, headers: headers.iter().map(BareHeader::decode).collect() })
    }
}

impl BareHeader {
    /// Bytes of an encoded bare header: version (4), merkle root (32), time (4), bits (4), nonce (4).
    pub const SIZE: usize = 48;

    /// The header with its parent's hash.
    pub fn after(&self, parent: BlockHash) -> Header {
        let Self { version, merkle_root, time, bits, nonce } = *self;
        Header { version, prev_blockhash: parent, merkle_root, time, bits, nonce }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.version.to_consensus().to_le_bytes());
        out.extend_from_slice(self.merkle_root.as_byte_array());
        out.extend_from_slice(&self.time.to_le_bytes());
        out.extend_from_slice(&self.bits.to_consensus().to_le_bytes());
        out.extend_from_slice(&self.nonce.to_le_bytes());
    }

    fn decode(bytes: &[u8; Self::SIZE]) -> Self {
        let (version, rest) = bytes.split_first_chunk().expect("48 bytes hold 4");
        let (merkle_root, rest) = rest.split_first_chunk().expect("44 bytes hold 32");
        let (time, rest) = rest.split_first_chunk().expect("12 bytes hold 4");
        let (bits, rest) = rest.split_first_chunk().expect("8 bytes hold 4");
        Self {
            version: Version::from_consensus(i32::from_le_bytes(*version)),
            merkle_root: TxMerkleNode::from_byte_array(*merkle_root),
            time: u32::from_le_bytes(*time),
            bits: CompactTarget::from_consensus(u32::from_le_bytes(*bits)),
            nonce: u32::from_le_bytes(*rest.first_chunk().expect("4 bytes are left")),
        }
    }
}

impl From<&Header> for BareHeader {
    fn from(header: &Header) -> Self {
        let Header { version, prev_blockhash: _, merkle_root, time, bits, nonce } = *header;
        Self { version, merkle_root, time, bits, nonce }
    }
}

/// Appends Bitcoin's serialisation.
fn write(value: &impl Encodable, out: &mut Vec<u8>) {
    value.consensus_encode(out).expect("writing to a vector does not fail");
}
