//! The consensus log on disk: what a validator must not forget of the height that is being decided.
//!
//! | part | bytes |
//! |---|---|
//! | header: magic `CWLG`, version 1, chain id, height | 4, 4, 32, 4 |
//! | header: checksum | 4: the start of `tagged_hash("causeway/log-file/v1", all before)` |
//! | frame: length of the entry | 4, 1 to [`ENTRY_BYTES_MAX`] |
//! | frame: entry | as [`LogEntry::encode`] writes it |
//! | frame: checksum | 4: the start of `tagged_hash("causeway/log-frame/v1", header, offset of the frame (8), entry)` |
//!
//! Numbers are little endian. A checksum holds for one height and one place in the file: no frame of an earlier height and
//! no frame that has moved passes. A new height starts the file anew.
//!
//! What a crash cut off has no whole frame behind it, and is dropped: nobody has heard of it. Damage in front of a whole
//! frame is no crash, and the log is refused.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use causeway_chainspec::{ChainId, Height, tagged_hash};
use causeway_consensus::bft::{DecodeError, LogEntry, Writing};
use causeway_federation::files::{directory_of, read_bounded, sync_directory};

use super::files::Disk;

/// Most bytes of a log: a height with 256 validators and some 3,500 rounds.
pub const LOG_BYTES_MAX: u64 = 256 << 20;

/// Most bytes of an entry: a certificate of 256 validators is a quarter of it.
pub const ENTRY_BYTES_MAX: usize = 1 << 16;

const MAGIC: [u8; 4] = *b"CWLG";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 48;
const CHECKSUM_BYTES: usize = 4;
/// Length and checksum.
const FRAME_BYTES: usize = 8;

const HEADER_TAG: &str = "causeway/log-file/v1";
const FRAME_TAG: &str = "causeway/log-frame/v1";

/// What a log remembers: a height and its entries, in their order.
pub type Remembered = Option<(Height, Vec<LogEntry>)>;

/// Why there is no consensus log to go on with.
#[expect(missing_docs, reason = "every variant is documented, and its message names its fields")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The disk does not read or write.
    #[error("the consensus log {} cannot be {doing}: check the disk, its space, owner and permissions, then start again; nothing that others know of is lost", path.display())]
    Io {
        path: PathBuf,
        doing: &'static str,
        #[source]
        source: io::Error,
    },
    /// A byte that was once on disk is not what was written.
    #[error("the consensus log {} is damaged at byte {offset}: do not remove it; \"causeway run\" goes on by itself if nothing depends on the log, and otherwise says what to do", path.display())]
    Damaged {
        path: PathBuf,
        offset: u64,
        #[source]
        source: Option<DecodeError>,
    },
    /// It is of another chain.
    #[error("the consensus log {} is of chain {found}, not {expected}: use the chainspec and the home that belong together", path.display())]
    OtherChain { path: PathBuf, found: ChainId, expected: ChainId },
    /// It was written by another version.
    #[error("the consensus log {} has format {found}, this build knows {VERSION}: use the build that wrote it", path.display())]
    OtherFormat { path: PathBuf, found: u32 },
    /// A height has gone on for longer than the log has room for.
    #[error("the consensus log {} of height {height} is full at {LOG_BYTES_MAX} bytes: the network has not agreed for thousands of rounds; find out why, then start with --full-node until the height is decided", path.display())]
    Full { path: PathBuf, height: Height },
    /// The caller goes back to an earlier height.
    #[error("the consensus log {} is at height {current}, and was given entries of height {got}: this is a bug, please report it", path.display())]
    GoesBack { path: PathBuf, current: Height, got: Height },
    /// An earlier write failed; what is on disk since is unknown.
    #[error("the consensus log {} has failed before: restart the node", path.display())]
    Stopped { path: PathBuf },
}

/// The consensus log, open for appending.
#[derive(Debug)]
pub struct LogFile<D = File> {
    disk: D,
    path: PathBuf,
    chain: ChainId,
    height: Option<Height>,
    header: [u8; HEADER_BYTES],
    end: u64,
    /// Something may not be on disk yet.
    dirty: bool,
    /// A write failed.
    stopped: bool,
}

impl LogFile {
    /// Opens the log of a chain, or makes an empty one, and returns what it remembers. What a crash cut off is dropped.
    ///
    /// # Errors
    /// [`LogError`]. The file is left as it is then.
    pub fn open(path: &Path, chain: ChainId) -> Result<(Self, Remembered), LogError> {
        let failed = |doing| move |source| LogError::Io { path: path.to_owned(), doing, source };
        let is_new = !path.exists();
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let mut file = file.map_err(failed("opened"))?;
        if is_new {
            sync_directory(directory_of(path)).map_err(failed("made"))?;
        }
        let bytes = read(&file, path)?;
        let content = Content::parse(&bytes, path, chain)?;
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if content.end < length {
            let cut = length - content.end;
            tracing::warn!(path = %path.display(), bytes = cut, "dropping what a crash cut off in the consensus log");
            Disk::set_len(&mut file, content.end).and_then(|()| file.sync()).map_err(failed("cut"))?;
        }
        let Content { remembered, end } = content;
        Ok((Self::with(file, path, chain, remembered.as_ref().map(|(height, _)| *height), end), remembered))
    }

    /// Returns what the log at `path` remembers and changes nothing; None also if there is no log.
    ///
    /// # Errors
    /// As [`LogFile::open`].
    pub fn peek(path: &Path, chain: ChainId) -> Result<Remembered, LogError> {
        match File::open(path) {
            Ok(file) => Ok(Content::parse(&read(&file, path)?, path, chain)?.remembered),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(LogError::Io { path: path.to_owned(), doing: "read", source }),
        }
    }

    /// Empties the log at `path`, whatever it holds. Only for a log that nobody needs: see
    /// [`recovery`](super::recovery).
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn discard(path: &Path, chain: ChainId) -> Result<(Self, Remembered), LogError> {
        let emptied = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
        emptied.and_then(|file| file.sync_all()).map_err(|source| LogError::Io {
            path: path.to_owned(),
            doing: "emptied",
            source,
        })?;
        Self::open(path, chain)
    }
}

impl<D: Disk> LogFile<D> {
    fn with(disk: D, path: &Path, chain: ChainId, height: Option<Height>, end: u64) -> Self {
        let header = height.map_or([0; HEADER_BYTES], |height| encode_header(chain, height));
        Self { disk, path: path.to_owned(), chain, height, header, end, dirty: false, stopped: false }
    }

    /// The file of the log.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends entries of a height; the first of a height above drops the log of the one before. With [`Writing::Now`] it
    /// returns when they are on disk, with everything appended before.
    ///
    /// # Errors
    /// Something was not written, or the height is below that of the log. Nothing is appended from then on.
    pub fn append(&mut self, height: Height, entries: &[LogEntry], writing: Writing) -> Result<(), LogError> {
        if self.stopped {
            return Err(LogError::Stopped { path: self.path.clone() });
        }
        let result = self.try_append(height, entries, writing);
        self.stopped = result.is_err();
        result
    }

    fn try_append(&mut self, height: Height, entries: &[LogEntry], writing: Writing) -> Result<(), LogError> {
        if let Some(current) = self.height.filter(|current| height < *current) {
            return Err(LogError::GoesBack { path: self.path.clone(), current, got: height });
        }
        let path = &self.path;
        let failed = |doing| move |source| LogError::Io { path: path.clone(), doing, source };
        if !entries.is_empty() {
            let mut bytes = Vec::new();
            if self.height != Some(height) {
                self.disk.set_len(0).map_err(failed("emptied"))?;
                self.header = encode_header(self.chain, height);
                self.height = Some(height);
                self.end = 0;
                bytes.extend_from_slice(&self.header);
            }
            for entry in entries {
                let offset = self.end.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
                encode_frame(&mut bytes, &self.header, offset, &entry.encode());
            }
            let end = self.end.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
            if end > LOG_BYTES_MAX {
                return Err(LogError::Full { path: self.path.clone(), height });
            }
            self.dirty = true;
            self.disk.write_at(&bytes, self.end).map_err(failed("written"))?;
            self.end = end;
        }
        if writing == Writing::Now && self.dirty {
            self.disk.sync().map_err(failed("written"))?;
            self.dirty = false;
        }
        Ok(())
    }
}

fn read(file: &File, path: &Path) -> Result<Vec<u8>, LogError> {
    let bytes = read_bounded(file, LOG_BYTES_MAX);
    let bytes = bytes.map_err(|source| LogError::Io { path: path.to_owned(), doing: "read", source })?;
    // Nobody writes so much.
    bytes.ok_or_else(|| LogError::Damaged { path: path.to_owned(), offset: LOG_BYTES_MAX, source: None })
}

/// What the bytes of a log say.
struct Content {
    remembered: Remembered,
    /// Where the last whole frame ends.
    end: u64,
}

impl Content {
    fn parse(bytes: &[u8], path: &Path, chain: ChainId) -> Result<Self, LogError> {
        let damaged = |offset: usize, source| {
            let offset = u64::try_from(offset).unwrap_or(u64::MAX);
            LogError::Damaged { path: path.to_owned(), offset, source }
        };
        // The first write to a file of length zero, cut off: in the middle of the header, or before its sector came.
        let Some((header, _)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(Self { remembered: None, end: 0 });
        };
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(Self { remembered: None, end: 0 });
        }
        let Header { version, chain: found, height } = decode_header(header).ok_or_else(|| damaged(0, None))?;
        if version != VERSION {
            return Err(LogError::OtherFormat { path: path.to_owned(), found: version });
        }
        if found != chain {
            return Err(LogError::OtherChain { path: path.to_owned(), found, expected: chain });
        }
        let mut entries = Vec::new();
        let mut offset = HEADER_BYTES;
        while let Some(entry) = frame_at(bytes, header, offset) {
            let decoded = LogEntry::decode(entry).map_err(|error| damaged(offset, Some(error)))?;
            if decoded.height().is_some_and(|other| other != height) {
                return Err(damaged(offset, None));
            }
            entries.push(decoded);
            offset += FRAME_BYTES + entry.len();
        }
        // Behind a cut there is nothing whole.
        if (offset + 1..bytes.len()).any(|later| frame_at(bytes, header, later).is_some()) {
            return Err(damaged(offset, None));
        }
        let end = u64::try_from(offset).unwrap_or(u64::MAX);
        Ok(Self { remembered: Some((height, entries)), end })
    }
}

struct Header {
    version: u32,
    chain: ChainId,
    height: Height,
}

fn encode_header(chain: ChainId, height: Height) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
    bytes[8..40].copy_from_slice(&chain.to_byte_array());
    bytes[40..44].copy_from_slice(&height.to_u32().to_le_bytes());
    let checksum = checksum(HEADER_TAG, &[&bytes[..44]]);
    bytes[44..].copy_from_slice(&checksum);
    bytes
}

fn decode_header(bytes: &[u8; HEADER_BYTES]) -> Option<Header> {
    let rest = bytes.strip_prefix(&MAGIC)?;
    let (version, rest) = rest.split_first_chunk::<4>()?;
    let (chain, rest) = rest.split_first_chunk::<32>()?;
    let (height, stored) = rest.split_first_chunk::<4>()?;
    (stored == checksum(HEADER_TAG, &[&bytes[..44]])).then(|| Header {
        version: u32::from_le_bytes(*version),
        chain: ChainId::from_byte_array(*chain),
        height: Height(u32::from_le_bytes(*height)),
    })
}

fn encode_frame(bytes: &mut Vec<u8>, header: &[u8; HEADER_BYTES], offset: u64, entry: &[u8]) {
    let length = u32::try_from(entry.len()).expect("entries are small");
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(entry);
    bytes.extend_from_slice(&checksum(FRAME_TAG, &[header, &offset.to_le_bytes(), entry]));
}

/// The entry of the whole frame that starts at this offset, if there is one.
fn frame_at<'a>(bytes: &'a [u8], header: &[u8; HEADER_BYTES], offset: usize) -> Option<&'a [u8]> {
    let (length, rest) = bytes.get(offset..)?.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    if !(1..=ENTRY_BYTES_MAX).contains(&length) {
        return None;
    }
    let (entry, rest) = rest.split_at_checked(length)?;
    let (stored, _) = rest.split_first_chunk::<CHECKSUM_BYTES>()?;
    let offset = u64::try_from(offset).ok()?;
    (*stored == checksum(FRAME_TAG, &[header, &offset.to_le_bytes(), entry])).then_some(entry)
}

fn checksum(tag: &str, parts: &[&[u8]]) -> [u8; CHECKSUM_BYTES] {
    let [a, b, c, d, ..] = tagged_hash(tag, parts);
    [a, b, c, d]
}

#[cfg(test)]
mod tests;
