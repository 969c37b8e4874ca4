//! The high-water mark on disk, beside its key: two slots, written in turn, each in a block of its own.
//!
//! | part of a slot | bytes |
//! |---|---|
//! | magic `CWMK`, version 1 | 4, 4 |
//! | sequence number | 8 |
//! | place of the mark file, place of the key file | 24, 24: inode, nanoseconds of its birth, device |
//! | machine | 32: `tagged_hash("causeway/machine/v1", /etc/machine-id)`, zeros if there is none |
//! | mark | 174, as [`HighWaterMark::encode`] writes it |
//! | checksum | 32: `tagged_hash("causeway/mark-file/v1", all before)` |
//!
//! Numbers are little endian; zeros fill a slot to 4,096 bytes. A write goes to the slot that does not hold the newest
//! mark: cut off, it leaves that one. A signature leaves the node after its mark is on disk, so nobody has seen one whose
//! mark is lost like this.
//!
//! The places say where mark and key live. A copy of a home lives elsewhere, and is refused.

mod place;

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use causeway_chainspec::{ChainId, Height, tagged_hash};
use causeway_consensus::bft::high_water::MARK_BYTES;
use causeway_consensus::bft::signer::Position;
use causeway_consensus::bft::{Address, HighWaterMark, MarkError};
use causeway_federation::files::{PrivateFileError, check_private, directory_of, read_bounded, sync_directory};

use super::files::Disk;
use place::{PLACES_BYTES, Places};

const SLOT_BYTES: usize = 4096;
const FILE_BYTES: usize = 2 * SLOT_BYTES;
const SLOT_LENGTH: u64 = 4096;
const FILE_LENGTH: u64 = 2 * SLOT_LENGTH;
const MAGIC: [u8; 4] = *b"CWMK";
const VERSION: u32 = 1;
const BODY: usize = 16 + PLACES_BYTES + MARK_BYTES;
const TAG: &str = "causeway/mark-file/v1";

/// Why there is no mark to sign behind. No signature may leave then.
#[expect(missing_docs, reason = "every variant is documented, and its message names its fields")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MarkFileError {
    /// The disk does not read or write.
    #[error("the high-water mark {} cannot be {doing}: check the disk, its space, owner and permissions, then start again", path.display())]
    Io {
        path: PathBuf,
        doing: &'static str,
        #[source]
        source: io::Error,
    },
    /// There is none for a key that may have signed.
    #[error("the high-water mark {} is missing: if the key has signed, \"causeway keys adopt\" makes a new one above a height that is decided; never sign without it", path.display())]
    Missing { path: PathBuf },
    /// There is one already.
    #[error("{} exists already: a high-water mark is made once, with its key", path.display())]
    Exists { path: PathBuf },
    /// Others can read or write it, or it belongs to somebody else.
    #[error(transparent)]
    Access(PrivateFileError),
    /// Another process has it open.
    #[error("the high-water mark {} is in use by another process: a validator key must run in one place only; stop the other one", path.display())]
    InUse { path: PathBuf },
    /// Neither slot holds a mark.
    #[error("both copies of the high-water mark in {} are damaged: do not delete the file; use \"causeway keys adopt\" with a height that is decided, or validate with a new key", path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        source: Option<MarkError>,
    },
    /// It was written by another version.
    #[error("the high-water mark {} has format {found}, this build knows {VERSION}: use the build that wrote it", path.display())]
    OtherFormat { path: PathBuf, found: u32 },
    /// It is of another chain.
    #[error("the high-water mark {} is of chain {found}, not {expected}: use the chainspec that the home was made with, or make another home with another key", path.display())]
    OtherChain { path: PathBuf, found: ChainId, expected: ChainId },
    /// It is of another key.
    #[error("the high-water mark {} is of another key", path.display())]
    OtherKey {
        path: PathBuf,
        #[source]
        source: MarkError,
    },
    /// It lives elsewhere than it was made.
    #[error("this home is a copy of another one ({what}): a validator key must run in one place only; if the original is off for good, run \"causeway keys adopt --home {} --above <height>\" with a height that the network has decided", home.display())]
    Copied { home: PathBuf, what: &'static str },
    /// The new barrier would permit what the mark refuses.
    #[error("the key has signed the {mark}: give a height of at least {}", mark.height)]
    BarrierTooLow { mark: Position },
    /// The caller lowers the mark, or writes another key's.
    #[error("the high-water mark {} was to be lowered: this is a bug, please report it", path.display())]
    GoesBack { path: PathBuf },
    /// An earlier write failed; what is on disk since is unknown.
    #[error("the high-water mark {} has failed before: restart the node", path.display())]
    Stopped { path: PathBuf },
}

/// The high-water mark of a validator's key on one chain, in its file. Held open, no other process gets it.
#[derive(Debug)]
pub struct MarkFile<D = File> {
    disk: D,
    path: PathBuf,
    places: Places,
    sequence: u64,
    mark: HighWaterMark,
    stopped: bool,
}

impl MarkFile {
    /// Makes the mark of a new key, which lies at `key` and has signed nothing on any machine.
    ///
    /// # Errors
    /// There is a file already, or the disk's.
    pub fn create(path: &Path, key: &Path, chain: ChainId, validator: Address) -> Result<Self, MarkFileError> {
        Self::create_with(path, key, HighWaterMark::never_signed(chain, validator))
    }

    /// Makes the mark of a key from elsewhere, which signs only above `above` from here on: see
    /// [`HighWaterMark::barrier`].
    ///
    /// # Errors
    /// There is a file already, or the disk's.
    pub fn create_above(
        path: &Path,
        key: &Path,
        chain: ChainId,
        validator: Address,
        above: Height,
    ) -> Result<Self, MarkFileError> {
        Self::create_with(path, key, HighWaterMark::barrier(chain, validator, above))
    }

    fn create_with(path: &Path, key: &Path, mark: HighWaterMark) -> Result<Self, MarkFileError> {
        let failed = |source| MarkFileError::Io { path: path.to_owned(), doing: "made", source };
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path);
        let mut file = file.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => MarkFileError::Exists { path: path.to_owned() },
            _ => failed(error),
        })?;
        lock(&file, path)?;
        let places = Places::of(&file, key).map_err(failed)?;
        Disk::set_len(&mut file, FILE_LENGTH).map_err(failed)?;
        // The first slot, so that the second is the one to be written next.
        let mut new =
            Self { disk: file, path: path.to_owned(), places, sequence: u64::MAX, mark: mark.clone(), stopped: false };
        new.write_slot(mark)?;
        new.disk.sync_all().and_then(|()| sync_directory(directory_of(path))).map_err(failed)?;
        Ok(new)
    }

    /// Opens the mark of the key at `key`.
    ///
    /// # Errors
    /// [`MarkFileError`]. The file is left as it is.
    pub fn open(path: &Path, key: &Path, chain: ChainId, validator: Address) -> Result<Self, MarkFileError> {
        let file = open(path, true)?;
        lock(&file, path)?;
        let slot = Slot::newest(&read(&file, path)?, path)?;
        slot.check(path, chain, validator)?;
        let here = Places::of(&file, key).map_err(|source| unreadable(path, source))?;
        if let Some(what) = slot.places.difference(&here) {
            let home = directory_of(directory_of(path)).to_owned();
            return Err(MarkFileError::Copied { home, what });
        }
        let Slot { sequence, places, mark } = slot;
        Ok(Self { disk: file, path: path.to_owned(), places, sequence, mark, stopped: false })
    }

    /// Returns the mark at `path` and changes nothing, also of a copied home and while a node runs on it.
    ///
    /// # Errors
    /// As [`MarkFile::open`], but for a copy.
    pub fn peek(path: &Path, chain: ChainId, validator: Address) -> Result<HighWaterMark, MarkFileError> {
        let slot = Slot::newest(&read(&open(path, false)?, path)?, path)?;
        slot.check(path, chain, validator)?;
        Ok(slot.mark)
    }

    /// Makes this the place of the key and lifts its mark, so that nothing at or below `above` is ever signed: the way to
    /// move a validator, and out of a damaged or lost mark. The key must have signed nothing above, and must run nowhere
    /// else, which nobody can check here.
    ///
    /// # Errors
    /// The mark stands above already, or is of another chain or key; or the disk's. The mark is left as it is.
    pub fn adopt(
        path: &Path,
        key: &Path,
        chain: ChainId,
        validator: Address,
        above: Height,
    ) -> Result<Self, MarkFileError> {
        let mark = HighWaterMark::barrier(chain, validator, above);
        let mut file = match open(path, true) {
            Ok(file) => file,
            Err(MarkFileError::Missing { .. }) => return Self::create_with(path, key, mark),
            Err(error) => return Err(error),
        };
        lock(&file, path)?;
        let failed = |source| MarkFileError::Io { path: path.to_owned(), doing: "written", source };
        let sequence = match read(&file, path).and_then(|bytes| Slot::newest(&bytes, path)) {
            Ok(slot) => {
                slot.check(path, chain, validator)?;
                match slot.mark.position() {
                    Some(position) if mark.position() < Some(position) => {
                        return Err(MarkFileError::BarrierTooLow { mark: position });
                    }
                    _ => slot.sequence,
                }
            }
            // Nothing is known, so all that is left is the operator's word.
            Err(MarkFileError::Damaged { .. }) => {
                Disk::write_at(&mut file, &[0; FILE_BYTES], 0).map_err(failed)?;
                Disk::set_len(&mut file, FILE_LENGTH).and_then(|()| file.sync_all()).map_err(failed)?;
                u64::MAX
            }
            Err(error) => return Err(error),
        };
        let places = Places::of(&file, key).map_err(failed)?;
        let mut adopted =
            Self { disk: file, path: path.to_owned(), places, sequence, mark: mark.clone(), stopped: false };
        adopted.write_slot(mark)?;
        adopted.disk.sync_all().map_err(failed)?;
        Ok(adopted)
    }
}

impl<D: Disk> MarkFile<D> {
    /// The mark that is on disk.
    pub fn mark(&self) -> &HighWaterMark {
        &self.mark
    }

    /// Replaces the mark, and returns when the new one is on disk. Append to the log first: see
    /// [`Persist`](causeway_consensus::bft::Persist).
    ///
    /// # Errors
    /// It was not written, or it is lower than the one on disk. Nothing is written from then on, and the signature behind
    /// the mark must not leave.
    pub fn write(&mut self, mark: &HighWaterMark) -> Result<(), MarkFileError> {
        if self.stopped {
            return Err(MarkFileError::Stopped { path: self.path.clone() });
        }
        if self.mark == *mark {
            return Ok(());
        }
        let same_key = (mark.chain(), mark.validator()) == (self.mark.chain(), self.mark.validator());
        if !same_key || mark.position() <= self.mark.position() {
            self.stopped = true;
            return Err(MarkFileError::GoesBack { path: self.path.clone() });
        }
        self.write_slot(mark.clone())
    }

    fn write_slot(&mut self, mark: HighWaterMark) -> Result<(), MarkFileError> {
        let sequence = self.sequence.wrapping_add(1);
        let slot = Slot { sequence, places: self.places, mark };
        let offset = if sequence.is_multiple_of(2) { 0 } else { SLOT_LENGTH };
        if let Err(source) = self.disk.write_at(&slot.encode(), offset).and_then(|()| self.disk.sync()) {
            self.stopped = true;
            return Err(MarkFileError::Io { path: self.path.clone(), doing: "written", source });
        }
        (self.sequence, self.mark) = (sequence, slot.mark);
        Ok(())
    }
}

fn unreadable(path: &Path, source: io::Error) -> MarkFileError {
    MarkFileError::Io { path: path.to_owned(), doing: "read", source }
}

fn open(path: &Path, write: bool) -> Result<File, MarkFileError> {
    let file = OpenOptions::new().read(true).write(write).open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => MarkFileError::Missing { path: path.to_owned() },
        _ => unreadable(path, error),
    })?;
    check_private(&file, path).map_err(MarkFileError::Access)?;
    Ok(file)
}

fn lock(file: &File, path: &Path) -> Result<(), MarkFileError> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => MarkFileError::InUse { path: path.to_owned() },
        TryLockError::Error(source) => MarkFileError::Io { path: path.to_owned(), doing: "locked", source },
    })
}

/// The bytes of the file.
fn read(file: &File, path: &Path) -> Result<Vec<u8>, MarkFileError> {
    let bytes = read_bounded(file, FILE_LENGTH);
    let bytes = bytes.map_err(|source| unreadable(path, source))?;
    bytes.ok_or_else(|| MarkFileError::Damaged { path: path.to_owned(), source: None })
}

/// What one slot says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Slot {
    sequence: u64,
    places: Places,
    mark: HighWaterMark,
}

/// Why a slot says nothing.
enum NoSlot {
    Damaged(Option<MarkError>),
    OtherFormat(u32),
}

impl Slot {
    fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut bytes = [0; SLOT_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..16 + PLACES_BYTES].copy_from_slice(&self.places.encode());
        bytes[16 + PLACES_BYTES..BODY].copy_from_slice(&self.mark.encode());
        let checksum = tagged_hash(TAG, &[&bytes[..BODY]]);
        bytes[BODY..BODY + 32].copy_from_slice(&checksum);
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, NoSlot> {
        let damaged = || NoSlot::Damaged(None);
        let (body, rest) = bytes.split_at_checked(BODY).ok_or_else(damaged)?;
        let (stored, padding) = rest.split_first_chunk::<32>().ok_or_else(damaged)?;
        if *stored != tagged_hash(TAG, &[body]) || padding.iter().any(|byte| *byte != 0) {
            return Err(damaged());
        }
        let rest = body.strip_prefix(&MAGIC).ok_or_else(damaged)?;
        let (version, rest) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
        let version = u32::from_le_bytes(*version);
        if version != VERSION {
            return Err(NoSlot::OtherFormat(version));
        }
        let (sequence, rest) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
        let (places, mark) = rest.split_first_chunk::<PLACES_BYTES>().ok_or_else(damaged)?;
        let mark = HighWaterMark::decode(mark).map_err(|error| NoSlot::Damaged(Some(error)))?;
        Ok(Self { sequence: u64::from_le_bytes(*sequence), places: Places::decode(places), mark })
    }

    /// The slot that was written last.
    fn newest(bytes: &[u8], path: &Path) -> Result<Self, MarkFileError> {
        // Its length never changes, whatever is cut off.
        if bytes.len() != FILE_BYTES {
            return Err(MarkFileError::Damaged { path: path.to_owned(), source: None });
        }
        let (first, second) = bytes.split_at(SLOT_BYTES);
        let never_written = second.iter().all(|byte| *byte == 0);
        let (slot, other) = match (Self::decode(first), Self::decode(second)) {
            (Ok(one), Ok(two)) if one.sequence < two.sequence => (two, Some(one)),
            (Ok(one), Ok(two)) => (one, Some(two)),
            (Ok(one), Err(_)) if one.sequence == 0 && never_written => (one, None),
            (Ok(slot), Err(NoSlot::Damaged(_))) | (Err(NoSlot::Damaged(_)), Ok(slot)) => {
                tracing::warn!(path = %path.display(), "one copy of the high-water mark was cut off; the other is used");
                (slot, None)
            }
            (Err(NoSlot::OtherFormat(found)), _) | (_, Err(NoSlot::OtherFormat(found))) => {
                return Err(MarkFileError::OtherFormat { path: path.to_owned(), found });
            }
            (Err(NoSlot::Damaged(source)), Err(NoSlot::Damaged(_))) => {
                return Err(MarkFileError::Damaged { path: path.to_owned(), source });
            }
        };
        // The sequence goes up with the mark, by one.
        if let Some(other) = other {
            let follows = slot.sequence.checked_sub(other.sequence) == Some(1);
            if !follows || other.mark.position() > slot.mark.position() {
                return Err(MarkFileError::Damaged { path: path.to_owned(), source: None });
            }
        }
        Ok(slot)
    }

    fn check(&self, path: &Path, chain: ChainId, validator: Address) -> Result<(), MarkFileError> {
        if self.mark.chain() != chain {
            let found = self.mark.chain();
            return Err(MarkFileError::OtherChain { path: path.to_owned(), found, expected: chain });
        }
        if self.mark.validator() != validator {
            let source = MarkError::OtherKey { mark: self.mark.validator(), key: validator };
            return Err(MarkFileError::OtherKey { path: path.to_owned(), source });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
