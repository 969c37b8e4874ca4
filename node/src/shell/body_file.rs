//! The proposed blocks of a height on disk, so that what was voted for can be brought back after a crash of every node.
//!
//! | part | bytes |
//! |---|---|
//! | magic `CWBD`, version 1, height | 4, 4, 4 |
//! | of each block: length, block | 4, as many |
//!
//! Numbers are little endian. There is no checksum: a block names itself by its hash, and goes through the pipeline before
//! anything is done with it. What a crash cut off is dropped. A new height starts the file anew.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use causeway_chainspec::Height;
use causeway_federation::files::{directory_of, sync_directory};

use crate::wire::BLOCK_BYTES_MAX;

/// Most bytes of the file: what a height with many rounds of full blocks leaves.
const FILE_BYTES_MAX: u64 = 256 << 20;

const MAGIC: [u8; 4] = *b"CWBD";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 12;

/// A body could not be kept.
#[derive(Debug, thiserror::Error)]
#[error("the file of proposed blocks {} cannot be {doing}: check the disk, then start again", path.display())]
pub struct BodyFileError {
    path: PathBuf,
    doing: &'static str,
    #[source]
    source: io::Error,
}

/// The bodies of one height.
#[derive(Debug)]
pub struct BodyFile {
    file: File,
    path: PathBuf,
    height: Option<Height>,
    bytes: u64,
    dirty: bool,
}

impl BodyFile {
    /// Opens the file, or makes it, and returns the blocks of `next` in it. Those of another height are dropped.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn open(path: &Path, next: Height) -> Result<(Self, Vec<Bytes>), BodyFileError> {
        let failed = |source| BodyFileError { path: path.to_owned(), doing: "read", source };
        let mut options = OpenOptions::new();
        let file =
            options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map_err(failed)?;
        sync_directory(directory_of(path)).map_err(failed)?;
        let mut bytes = Vec::new();
        (&file).take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
        let (blocks, end) = read(&bytes.into(), next);
        let mut opened = Self { file, path: path.to_owned(), height: None, bytes: 0, dirty: false };
        if end > 0 {
            // The rest is what a crash cut off.
            opened.file.set_len(end).and_then(|()| opened.file.seek(SeekFrom::Start(end))).map_err(failed)?;
            (opened.height, opened.bytes) = (Some(next), end);
        }
        Ok((opened, blocks))
    }

    /// Appends a block of a height. It is on disk after [`BodyFile::sync`].
    ///
    /// # Errors
    /// The disk's.
    pub fn append(&mut self, height: Height, block: &[u8]) -> Result<(), BodyFileError> {
        let length = u32::try_from(block.len()).expect("a block is within its bound");
        self.write(height, length, block).map_err(|source| self.failed("written", source))
    }

    fn write(&mut self, height: Height, length: u32, block: &[u8]) -> io::Result<()> {
        if self.height == Some(height) && self.bytes + 4 + u64::from(length) > FILE_BYTES_MAX {
            // After some sixty rounds with full blocks: what is kept of them has to do.
            return Ok(());
        }
        if self.height != Some(height) {
            self.file.set_len(0)?;
            self.file.seek(SeekFrom::Start(0))?;
            self.file.write_all(&[&MAGIC[..], &VERSION.to_le_bytes(), &height.to_u32().to_le_bytes()].concat())?;
            (self.height, self.bytes) = (Some(height), HEADER_BYTES as u64);
        }
        self.dirty = true;
        self.file.write_all(&length.to_le_bytes())?;
        self.file.write_all(block)?;
        self.bytes += 4 + u64::from(length);
        Ok(())
    }

    /// Waits until every block is on disk.
    ///
    /// # Errors
    /// The disk's.
    pub fn sync(&mut self) -> Result<(), BodyFileError> {
        if self.dirty {
            self.file.sync_data().map_err(|source| self.failed("written", source))?;
            self.dirty = false;
        }
        Ok(())
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> BodyFileError {
        BodyFileError { path: self.path.clone(), doing, source }
    }
}

/// The whole blocks of a height, and where the last one ends; 0 if the file is another height's.
fn read(bytes: &Bytes, next: Height) -> (Vec<Bytes>, u64) {
    let header = [&MAGIC[..], &VERSION.to_le_bytes(), &next.to_u32().to_le_bytes()].concat();
    if !bytes.starts_with(&header) {
        return (Vec::new(), 0);
    }
    let (mut blocks, mut at) = (Vec::new(), HEADER_BYTES);
    while let Some(length) = bytes.get(at..at + 4).and_then(|length| <[u8; 4]>::try_from(length).ok()) {
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        // A block has a header; zeros are what a crash leaves.
        if length == 0 || length > BLOCK_BYTES_MAX || bytes.len() < at + 4 + length {
            break;
        }
        blocks.push(bytes.slice(at + 4..at + 4 + length));
        at += 4 + length;
    }
    (blocks, at as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reopen(path: &Path, next: u32) -> Vec<Bytes> {
        BodyFile::open(path, Height(next)).unwrap().1
    }

    #[test]
    fn what_was_kept_of_the_height_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bodies");
        let (mut file, blocks) = BodyFile::open(&path, Height(101)).unwrap();
        assert!(blocks.is_empty());
        file.append(Height(101), b"one").unwrap();
        file.append(Height(101), b"two").unwrap();
        file.sync().unwrap();
        assert_eq!(reopen(&path, 101), [&b"one"[..], b"two"]);
        let (mut file, _) = BodyFile::open(&path, Height(101)).unwrap();
        file.append(Height(101), b"three").unwrap();
        assert_eq!(reopen(&path, 101), [&b"one"[..], b"two", b"three"]);
        file.append(Height(102), b"four").unwrap();
        assert_eq!(reopen(&path, 102), [&b"four"[..]]);
        assert!(reopen(&path, 103).is_empty());
    }

    #[test]
    fn what_a_crash_cut_off_is_dropped_and_the_rest_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bodies");
        let (mut file, _) = BodyFile::open(&path, Height(101)).unwrap();
        file.append(Height(101), b"one").unwrap();
        file.append(Height(101), b"two").unwrap();
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let (mut file, blocks) = BodyFile::open(&path, Height(101)).unwrap();
            let expected: &[&[u8]] = if length < 19 { &[] } else { &[b"one"] };
            assert_eq!(blocks, expected);
            file.append(Height(101), b"new").unwrap();
            assert_eq!(reopen(&path, 101), [expected, &[b"new"]].concat());
        }
    }
}
