//! A disk that tests can make fail.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

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
