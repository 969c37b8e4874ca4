//! What every file of a home needs: a disk that tests can make fail, whole replacement, and reading within a bound.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// One open file, as the consensus log and the high-water mark use it.
pub trait Disk {
    /// Writes all bytes at an offset.
    ///
    /// # Errors
    /// The disk's. Some of the bytes may have been written.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes the file this long.
    ///
    /// # Errors
    /// The disk's.
    fn set_len(&mut self, len: u64) -> io::Result<()>;

    /// Returns when everything written and the length are on the disk.
    ///
    /// # Errors
    /// The disk's. Whatever was not on the disk before may be lost, also if a later call succeeds.
    fn sync(&mut self) -> io::Result<()>;
}

impl Disk for File {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Returns all bytes of an open file from where it stands, or None if there are more than `max`.
///
/// # Errors
/// The disk's.
pub(crate) fn read_bounded(file: &File, max: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let read = file.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(u64::try_from(read).is_ok_and(|read| read <= max).then_some(bytes))
}

/// Writes that a file was made, renamed or removed in this directory.
///
/// # Errors
/// The disk's.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// The directory that a file lies in.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes a new file of these permissions with this content, on disk when this returns.
///
/// # Errors
/// There is a file already, or the disk's.
pub(crate) fn create_new(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    sync_directory(directory_of(path))
}

/// Replaces a file by this content: after a crash at any moment it holds the old or the new one, whole.
///
/// # Errors
/// The disk's. The old content stays.
pub(crate) fn replace(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = create_new(&temporary, mode, bytes).and_then(|()| std::fs::rename(&temporary, path));
    if let Err(error) = written {
        // The error above is the one to tell.
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    sync_directory(directory_of(path))
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A disk in memory that can fail, and that knows what would be left after a power loss.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct FakeDisk {
        /// What a reader sees.
        pub(crate) bytes: Vec<u8>,
        /// What is left for certain after a power loss.
        pub(crate) synced: Vec<u8>,
        /// Operations that still succeed; None if all do.
        pub(crate) lives: Option<usize>,
        /// Operations so far, the failed ones too.
        pub(crate) operations: usize,
    }

    impl FakeDisk {
        fn live(&mut self) -> io::Result<()> {
            self.operations += 1;
            match &mut self.lives {
                None => Ok(()),
                Some(0) => Err(io::ErrorKind::StorageFull.into()),
                Some(lives) => {
                    *lives -= 1;
                    Ok(())
                }
            }
        }
    }

    impl Disk for FakeDisk {
        fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
            let start = usize::try_from(offset).unwrap();
            let alive = self.live();
            // A failed write has written a part.
            let bytes = if alive.is_ok() { bytes } else { &bytes[..bytes.len() / 2] };
            self.bytes.resize(self.bytes.len().max(start + bytes.len()), 0);
            self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
            alive
        }

        fn set_len(&mut self, len: u64) -> io::Result<()> {
            self.live()?;
            self.bytes.resize(usize::try_from(len).unwrap(), 0);
            Ok(())
        }

        fn sync(&mut self) -> io::Result<()> {
            self.live()?;
            self.synced.clone_from(&self.bytes);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_replaced_file_is_old_or_new_and_leaves_nothing_behind() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("file");
        for content in [&b"one"[..], b"two"] {
            // What an earlier crash left is no hindrance.
            std::fs::write(home.path().join("file.new"), b"half").unwrap();
            replace(&path, 0o600, content).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), content);
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1);
        assert!(create_new(&path, 0o600, b"three").is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
    }

    #[test]
    fn reading_stops_at_the_bound() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("file");
        std::fs::write(&path, [7; 10]).unwrap();
        let read = |max| read_bounded(&File::open(&path).unwrap(), max).unwrap();
        assert_eq!(read(10), Some(vec![7; 10]));
        assert_eq!(read(9), None);
    }
}
