//! What a member ever signed, on disk before the signature leaves: which batch each coin went into, and which rounds of
//! which task were used.
//!
//! | part | bytes |
//! |---|---|
//! | header: magic `CWSL`, version 1, chain id, member's public key | 4, 4, 32, 33 |
//! | header: checksum | 4: the start of `tagged_hash("causeway/signing-log/v1", all before)` |
//! | frame: its offset in the file, length of the entry | 8, 4 |
//! | frame: entry | below |
//! | frame: checksum | 4: the start of `tagged_hash("causeway/signing-log-frame/v1", header, offset (8), entry)` |
//!
//! An entry is a kind and a body. 1, coins of a batch: batch (8), count (2), outpoints (36 each). 2, an attempt: task (32),
//! txid (32), round (4), attempt (32). Numbers are little endian.
//!
//! What a crash cut off has no whole frame behind it, and is dropped: nothing that depends on it has left. Damage in front
//! of a whole frame is no crash, nor is a frame that has moved, and the log is refused. It is never emptied and never restored from a copy: an older copy
//! has forgotten what was signed.
//!
//! It is never rewritten either. A batch of `c` coins takes 27 + 36 c bytes once, and every attempt at a version 117: 720
//! bytes for 16 coins that the key path signs at once. Nearly all of that must be kept for ever: each coin with its batch
//! (PEG section 8, rule 4), and the highest round of each task, which may come again. A compaction would save 117 bytes
//! for each attempt that failed, and could lose what must never be lost. With a batch every five minutes the log grows by
//! 76 MB a year: its bound is more than three years of that, and from three quarters on the member says so whenever it
//! starts.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{OutPoint, Txid};
use causeway_chainspec::{ChainId, tagged_hash};

use crate::files::{PrivateFileError, create_private, open_private, read_bounded};
use crate::session::{AttemptId, AttemptRecord, INPUTS_MAX, TaskId};

/// Most bytes of a log: some 200,000 batches of 16 coins and four attempts.
pub const LOG_BYTES_MAX: u64 = 256 << 20;

/// From here on a new key should be prepared, which starts a new log.
const LOG_BYTES_LARGE: u64 = LOG_BYTES_MAX / 4 * 3;

const MAGIC: [u8; 4] = *b"CWSL";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 4 + 4 + 32 + 33 + CHECKSUM_BYTES;
const CHECKSUM_BYTES: usize = 4;
/// Offset, length and checksum.
const FRAME_BYTES: usize = 8 + 4 + CHECKSUM_BYTES;
const OUTPOINT_BYTES: usize = 36;
const COINS: u8 = 1;
const ATTEMPT: u8 = 2;
/// Kind, batch, count, outpoints.
const ENTRY_BYTES_MAX: usize = 1 + 8 + 2 + INPUTS_MAX * OUTPOINT_BYTES;

const HEADER_TAG: &str = "causeway/signing-log/v1";
const FRAME_TAG: &str = "causeway/signing-log-frame/v1";

/// Why the signing log cannot be used, or refuses.
#[expect(missing_docs, reason = "every variant is documented, and its message names its fields")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SigningLogError {
    /// It is missing, there already, or not this user's alone.
    #[error(
        "the signing log cannot be opened: do not make a new one for a key that has signed; put the member's own log back, or change the key"
    )]
    Access(#[source] Box<PrivateFileError>),
    /// The disk does not read or write.
    #[error("the signing log {} cannot be {doing}: check the disk and its space, then start again; nothing left that is not in it", path.display())]
    Io {
        path: PathBuf,
        doing: &'static str,
        #[source]
        source: io::Error,
    },
    /// Another process has it open.
    #[error("the signing log {} is in use by another process: a member's key must run in one place only; stop the other one", path.display())]
    InUse { path: PathBuf },
    /// A byte that was once on disk is not what was written.
    #[error("the signing log {} is damaged at byte {offset}: do not remove it and do not sign; keep a copy, and change the key", path.display())]
    Damaged { path: PathBuf, offset: u64 },
    /// It was written by another version.
    #[error("the signing log {} has format {found}, this build knows {VERSION}: use the build that wrote it", path.display())]
    OtherFormat { path: PathBuf, found: u32 },
    /// It is of another chain.
    #[error("the signing log {} is of chain {found}, not {expected}: use the chainspec and the directory that belong together", path.display())]
    OtherChain { path: PathBuf, found: ChainId, expected: ChainId },
    /// It is of another key.
    #[error("the signing log {} is of another member's key: use the key and the log that belong together", path.display())]
    OtherKey { path: PathBuf },
    /// The coin was signed for in another batch (PEG section 8, rule 4).
    #[error(
        "coin {outpoint} was signed for in batch {earlier} and is in batch {batch} too: stop and find out why before anything else is signed"
    )]
    OtherBatch { outpoint: OutPoint, batch: u64, earlier: u64 },
    /// The round was used, for something else or in an earlier life.
    #[error("round {round} of {task:?} was used already: only a later round can sign")]
    RoundUsed { task: TaskId, round: u32 },
    /// More coins than any transaction that is signed.
    #[error("a batch of {0} coins: at most {INPUTS_MAX} can be signed")]
    TooManyCoins(usize),
    /// It is full.
    #[error("the signing log {} is full at {LOG_BYTES_MAX} bytes: change the member's key, which starts a new one", path.display())]
    Full { path: PathBuf },
    /// An earlier write failed; what is on disk since is unknown.
    #[error("the signing log {} has failed before: restart the member", path.display())]
    Stopped { path: PathBuf },
}

/// Where the log's bytes go.
trait Disk {
    /// Writes all bytes at an offset and returns when they are on disk.
    fn append(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
}

impl Disk for File {
    fn append(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)?;
        self.sync_data()
    }
}

/// The signing log of a member's key on one chain. Held open, no other process gets it.
#[derive(Debug)]
pub struct SigningLog {
    inner: Log<File>,
}

impl SigningLog {
    /// Makes the log of a key that has signed nothing.
    ///
    /// # Errors
    /// There is one already, or it cannot be made.
    pub fn create(path: &Path, chain: ChainId, member: PublicKey) -> Result<Self, SigningLogError> {
        create_private(path, &encode_header(chain, member))
            .map_err(|error| SigningLogError::Access(Box::new(error)))?;
        Self::open(path, chain, member)
    }

    /// Opens the log of a key. What a crash cut off is dropped.
    ///
    /// # Errors
    /// [`SigningLogError`]. The file is left as it is.
    pub fn open(path: &Path, chain: ChainId, member: PublicKey) -> Result<Self, SigningLogError> {
        let failed = |doing| move |source| SigningLogError::Io { path: path.to_owned(), doing, source };
        let file = open_private(path, true).map_err(|error| SigningLogError::Access(Box::new(error)))?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => SigningLogError::InUse { path: path.to_owned() },
            TryLockError::Error(source) => failed("locked")(source),
        })?;
        let bytes = read_bounded(&file, LOG_BYTES_MAX).map_err(failed("read"))?;
        let bytes = bytes.ok_or_else(|| SigningLogError::Full { path: path.to_owned() })?;
        let (content, end) = Content::parse(&bytes, path, chain, member)?;
        if end < bytes.len() {
            let cut = bytes.len() - end;
            tracing::warn!(path = %path.display(), bytes = cut, "dropping what a crash cut off in the signing log");
            file.set_len(end as u64).and_then(|()| file.sync_all()).map_err(failed("cut"))?;
        }
        if end as u64 >= LOG_BYTES_LARGE {
            tracing::warn!(path = %path.display(), bytes = end, max = LOG_BYTES_MAX, "the signing log is filling up: plan a new key for this member, with the next epoch; never shorten the log");
        }
        let header = encode_header(chain, member);
        let inner = Log { disk: file, path: path.to_owned(), header, end: end as u64, content, stopped: false };
        Ok(Self { inner })
    }

    /// The batch that a coin was signed for in, if it was.
    pub fn batch_of(&self, outpoint: &OutPoint) -> Option<u64> {
        self.inner.content.batches.get(outpoint).copied()
    }

    /// Writes that these coins are signed for in this batch, and returns when that is on disk. Before anything is signed:
    /// another batch is refused from then on. Does nothing if all are written already.
    ///
    /// # Errors
    /// A coin is in another batch, and nothing is written; or the disk's, and nothing may be signed from then on.
    pub fn claim(&mut self, batch: u64, outpoints: &[OutPoint]) -> Result<(), SigningLogError> {
        self.inner.claim(batch, outpoints)
    }

    /// The highest round of a task that is on disk: what [`Session::new`](crate::session::Session::new) is given.
    pub fn highest_round(&self, task: &TaskId) -> Option<u32> {
        self.inner.content.rounds.get(task).map(|record| record.round)
    }

    /// Writes what [`SessionAction::Persist`](crate::session::SessionAction::Persist) asks for, and returns when that is on
    /// disk. Does nothing if the very same record is the latest of its task.
    ///
    /// # Errors
    /// The round is not above those of the task on disk; or the disk's, and nothing may be signed from then on.
    pub fn record(&mut self, record: &AttemptRecord) -> Result<(), SigningLogError> {
        self.inner.record(record)
    }
}

#[derive(Debug)]
struct Log<D> {
    disk: D,
    path: PathBuf,
    header: [u8; HEADER_BYTES],
    end: u64,
    content: Content,
    /// A write failed.
    stopped: bool,
}

impl<D: Disk> Log<D> {
    fn claim(&mut self, batch: u64, outpoints: &[OutPoint]) -> Result<(), SigningLogError> {
        if outpoints.len() > INPUTS_MAX {
            return Err(SigningLogError::TooManyCoins(outpoints.len()));
        }
        let mut new = Vec::new();
        for outpoint in outpoints {
            match self.content.batches.get(outpoint) {
                None => new.push(*outpoint),
                Some(earlier) if *earlier == batch => {}
                Some(earlier) => {
                    return Err(SigningLogError::OtherBatch { outpoint: *outpoint, batch, earlier: *earlier });
                }
            }
        }
        if new.is_empty() && !self.stopped {
            return Ok(());
        }
        self.append(Entry::Coins { batch, outpoints: new })
    }

    fn record(&mut self, record: &AttemptRecord) -> Result<(), SigningLogError> {
        if let Some(latest) = self.content.rounds.get(&record.task) {
            if latest == record && !self.stopped {
                return Ok(());
            }
            if record.round <= latest.round {
                return Err(SigningLogError::RoundUsed { task: record.task, round: record.round });
            }
        }
        self.append(Entry::Attempt(record.clone()))
    }

    fn append(&mut self, entry: Entry) -> Result<(), SigningLogError> {
        if self.stopped {
            return Err(SigningLogError::Stopped { path: self.path.clone() });
        }
        let encoded = entry.encode();
        let mut frame = Vec::with_capacity(encoded.len() + FRAME_BYTES);
        let length = u32::try_from(encoded.len()).expect("entries are bounded");
        frame.extend_from_slice(&self.end.to_le_bytes());
        frame.extend_from_slice(&length.to_le_bytes());
        frame.extend_from_slice(&encoded);
        frame.extend_from_slice(&checksum(FRAME_TAG, &[&self.header, &self.end.to_le_bytes(), &encoded]));
        let end = self.end + frame.len() as u64;
        if end > LOG_BYTES_MAX {
            return Err(SigningLogError::Full { path: self.path.clone() });
        }
        if let Err(source) = self.disk.append(&frame, self.end) {
            self.stopped = true;
            return Err(SigningLogError::Io { path: self.path.clone(), doing: "written", source });
        }
        self.end = end;
        self.content.add(entry);
        Ok(())
    }
}

/// What a log says.
#[derive(Debug, Default)]
struct Content {
    batches: BTreeMap<OutPoint, u64>,
    /// The latest record of each task.
    rounds: BTreeMap<TaskId, AttemptRecord>,
}

impl Content {
    /// Returns the content and where the last whole frame ends.
    fn parse(bytes: &[u8], path: &Path, chain: ChainId, member: PublicKey) -> Result<(Self, usize), SigningLogError> {
        let path = || path.to_owned();
        let damaged = |offset: usize| SigningLogError::Damaged { path: path(), offset: offset as u64 };
        let header = bytes.first_chunk::<HEADER_BYTES>().ok_or_else(|| damaged(0))?;
        let (fields, stored) = header.split_last_chunk::<CHECKSUM_BYTES>().ok_or_else(|| damaged(0))?;
        if *stored != checksum(HEADER_TAG, &[fields]) {
            return Err(damaged(0));
        }
        let rest = fields.strip_prefix(&MAGIC).ok_or_else(|| damaged(0))?;
        let (version, rest) = rest.split_first_chunk::<4>().ok_or_else(|| damaged(0))?;
        let (found, key) = rest.split_first_chunk::<32>().ok_or_else(|| damaged(0))?;
        let version = u32::from_le_bytes(*version);
        if version != VERSION {
            return Err(SigningLogError::OtherFormat { path: path(), found: version });
        }
        let found = ChainId::from_byte_array(*found);
        if found != chain {
            return Err(SigningLogError::OtherChain { path: path(), found, expected: chain });
        }
        if key != member.serialize() {
            return Err(SigningLogError::OtherKey { path: path() });
        }
        let mut content = Self::default();
        let mut offset = HEADER_BYTES;
        while let Some((place, encoded)) = frame_at(bytes, header, offset) {
            let entry = Entry::decode(encoded).filter(|entry| place == offset as u64 && content.accepts(entry));
            content.add(entry.ok_or_else(|| damaged(offset))?);
            offset += FRAME_BYTES + encoded.len();
        }
        // Behind a cut there is nothing whole.
        if (offset + 1..bytes.len()).any(|later| frame_at(bytes, header, later).is_some()) {
            return Err(damaged(offset));
        }
        Ok((content, offset))
    }

    /// Whether the entry could have been written after the others.
    fn accepts(&self, entry: &Entry) -> bool {
        match entry {
            Entry::Coins { outpoints, .. } => outpoints.iter().all(|outpoint| !self.batches.contains_key(outpoint)),
            Entry::Attempt(record) => self.rounds.get(&record.task).is_none_or(|latest| latest.round < record.round),
        }
    }

    fn add(&mut self, entry: Entry) {
        match entry {
            Entry::Coins { batch, outpoints } => {
                self.batches.extend(outpoints.into_iter().map(|outpoint| (outpoint, batch)));
            }
            Entry::Attempt(record) => drop(self.rounds.insert(record.task, record)),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Coins { batch: u64, outpoints: Vec<OutPoint> },
    Attempt(AttemptRecord),
}

impl Entry {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Self::Coins { batch, outpoints } => {
                bytes.push(COINS);
                bytes.extend_from_slice(&batch.to_le_bytes());
                let count = u16::try_from(outpoints.len()).expect("a transaction has at most 1,000 inputs");
                bytes.extend_from_slice(&count.to_le_bytes());
                for outpoint in outpoints {
                    bytes.extend_from_slice(outpoint.txid.as_byte_array());
                    bytes.extend_from_slice(&outpoint.vout.to_le_bytes());
                }
            }
            Self::Attempt(AttemptRecord { task, txid, round, attempt }) => {
                bytes.push(ATTEMPT);
                bytes.extend_from_slice(&task.0);
                bytes.extend_from_slice(txid.as_byte_array());
                bytes.extend_from_slice(&round.to_le_bytes());
                bytes.extend_from_slice(&attempt.0);
            }
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        match *kind {
            COINS => {
                let (batch, rest) = rest.split_first_chunk::<8>()?;
                let (count, rest) = rest.split_first_chunk::<2>()?;
                let count = usize::from(u16::from_le_bytes(*count));
                if rest.len() != count * OUTPOINT_BYTES {
                    return None;
                }
                let (outpoints, _) = rest.as_chunks::<OUTPOINT_BYTES>();
                let outpoints: Option<Vec<_>> = outpoints.iter().map(outpoint).collect();
                Some(Self::Coins { batch: u64::from_le_bytes(*batch), outpoints: outpoints? })
            }
            ATTEMPT => {
                let (task, rest) = rest.split_first_chunk::<32>()?;
                let (txid, rest) = rest.split_first_chunk::<32>()?;
                let (round, rest) = rest.split_first_chunk::<4>()?;
                let attempt = AttemptId(*<&[u8; 32]>::try_from(rest).ok()?);
                let (task, txid) = (TaskId(*task), Txid::from_byte_array(*txid));
                Some(Self::Attempt(AttemptRecord { task, txid, round: u32::from_le_bytes(*round), attempt }))
            }
            _ => None,
        }
    }
}

fn outpoint(bytes: &[u8; OUTPOINT_BYTES]) -> Option<OutPoint> {
    let (txid, vout) = bytes.split_first_chunk::<32>()?;
    let vout = u32::from_le_bytes(*vout.first_chunk()?);
    Some(OutPoint { txid: Txid::from_byte_array(*txid), vout })
}

fn encode_header(chain: ChainId, member: PublicKey) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
    bytes[8..40].copy_from_slice(&chain.to_byte_array());
    bytes[40..73].copy_from_slice(&member.serialize());
    let checksum = checksum(HEADER_TAG, &[&bytes[..73]]);
    bytes[73..].copy_from_slice(&checksum);
    bytes
}

/// The place and the entry of the whole frame that starts at this offset, if there is one. It may have been written for
/// another place.
fn frame_at<'a>(bytes: &'a [u8], header: &[u8; HEADER_BYTES], offset: usize) -> Option<(u64, &'a [u8])> {
    let (place, rest) = bytes.get(offset..)?.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    if !(1..=ENTRY_BYTES_MAX).contains(&length) {
        return None;
    }
    let (entry, rest) = rest.split_at_checked(length)?;
    let (stored, _) = rest.split_first_chunk::<CHECKSUM_BYTES>()?;
    (*stored == checksum(FRAME_TAG, &[header, place, entry])).then(|| (u64::from_le_bytes(*place), entry))
}

fn checksum(tag: &str, parts: &[&[u8]]) -> [u8; CHECKSUM_BYTES] {
    let [a, b, c, d, ..] = tagged_hash(tag, parts);
    [a, b, c, d]
}

#[cfg(test)]
mod tests;
