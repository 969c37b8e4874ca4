//! The pool as bytes, for restarts.
//!
//! `CWMP || version (u32 LE) || count (u32 LE) || entries || sha256d of all before (32)`; an entry is
//! `entered (u64 LE, Unix seconds) || length (u32 LE) || transaction with witnesses`. Parents stand before their children.
//! No verdict is kept: every transaction goes through the same checks again, so a file that someone has written can do no
//! more than a peer can.

use bitcoin::Transaction;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::{Hash, sha256d};

use super::Mempool;

const MAGIC: [u8; 4] = *b"CWMP";

/// The format that this build writes, and the only one that it reads.
pub const SNAPSHOT_VERSION: u32 = 1;

/// Magic, version, count.
const HEAD_BYTES: usize = 12;

const CHECKSUM_BYTES: usize = 32;

/// What a snapshot is longer than [`Mempool::memory`] at most: a reader that permits `max_memory_bytes` and this reads
/// every snapshot that was written under the same policy.
pub const SNAPSHOT_OVERHEAD_BYTES: usize = HEAD_BYTES + CHECKSUM_BYTES;

/// Time and length in front of a transaction of at least 10 bytes.
const MIN_ENTRY_BYTES: usize = 22;

/// A transaction of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotEntry {
    /// When it entered, in seconds of Unix time.
    pub entered_s: u64,
    /// The transaction.
    pub transaction: Transaction,
}

/// Why bytes are no snapshot. The pool starts empty then; nothing else is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Longer than the reader permits.
    #[error("mempool snapshot of {bytes} bytes, at most {max} are read")]
    TooLong {
        /// How long.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// Not the start of a snapshot.
    #[error("not a mempool snapshot")]
    NotASnapshot,
    /// Of another build.
    #[error("mempool snapshot of format {found}, this build reads {SNAPSHOT_VERSION}")]
    Version {
        /// Its format.
        found: u32,
    },
    /// Cut off or altered.
    #[error("mempool snapshot is damaged: the checksum does not match")]
    Checksum,
    /// The checksum matches and the entries do not decode.
    #[error("mempool snapshot is damaged at byte {offset}")]
    Malformed {
        /// Where.
        offset: usize,
    },
}

/// Returns the bytes of a pool's snapshot.
pub fn encode(pool: &Mempool) -> Vec<u8> {
    let mut entries: Vec<_> = pool.entries().collect();
    entries.sort_by_key(|entry| (entry.ancestors().count, entry.txid()));
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&SNAPSHOT_VERSION.to_le_bytes());
    // A pool of 2^32 entries would take more memory than a machine has.
    bytes.extend_from_slice(&u32::try_from(entries.len()).unwrap_or(u32::MAX).to_le_bytes());
    for entry in entries {
        let transaction = serialize(entry.transaction().as_ref());
        bytes.extend_from_slice(&entry.entered_s().to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(transaction.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&transaction);
    }
    let checksum = sha256d::Hash::hash(&bytes);
    bytes.extend_from_slice(checksum.as_ref());
    bytes
}

/// Returns the transactions of a snapshot of at most `max_bytes`, parents first. Give each to
/// [`Mempool::begin_again`] once those before it have finished.
///
/// # Errors
/// Whatever is wrong with the bytes. Linear in their length, and memory is bounded by a multiple of it.
pub fn decode(bytes: &[u8], max_bytes: usize) -> Result<Vec<SnapshotEntry>, SnapshotError> {
    if bytes.len() > max_bytes {
        return Err(SnapshotError::TooLong { bytes: bytes.len(), max: max_bytes });
    }
    let head = bytes.strip_prefix(&MAGIC).ok_or(SnapshotError::NotASnapshot)?;
    let (version, _) = head.split_first_chunk::<4>().ok_or(SnapshotError::NotASnapshot)?;
    let found = u32::from_le_bytes(*version);
    if found != SNAPSHOT_VERSION {
        return Err(SnapshotError::Version { found });
    }
    let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(SnapshotError::Checksum)?;
    if sha256d::Hash::hash(body).as_byte_array() != checksum {
        return Err(SnapshotError::Checksum);
    }
    let malformed = |rest: &[u8]| SnapshotError::Malformed { offset: body.len() - rest.len() };
    let entries = body.get(HEAD_BYTES..).ok_or(malformed(&[]))?;
    let count = body[8..HEAD_BYTES].iter().rev().fold(0usize, |count, byte| (count << 8) | usize::from(*byte));
    if count > entries.len() / MIN_ENTRY_BYTES {
        return Err(malformed(entries));
    }
    let mut rest = entries;
    let mut decoded = Vec::with_capacity(count);
    for _ in 0..count {
        let (entry, after) = decode_entry(rest).ok_or(malformed(rest))?;
        decoded.push(entry);
        rest = after;
    }
    if rest.is_empty() { Ok(decoded) } else { Err(malformed(rest)) }
}

fn decode_entry(bytes: &[u8]) -> Option<(SnapshotEntry, &[u8])> {
    let (entered, rest) = bytes.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (transaction, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    let transaction = deserialize(transaction).ok()?;
    Some((SnapshotEntry { entered_s: u64::from_le_bytes(*entered), transaction }, rest))
}
