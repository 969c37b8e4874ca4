//! The mempool on disk while the node is off. Losing it loses nothing that peers do not have.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::mempool::Mempool;
use crate::mempool::snapshot::{SNAPSHOT_OVERHEAD_BYTES, SnapshotEntry, SnapshotError, decode, encode};
use causeway_federation::files::{read_bounded, replace};

const FILE_MODE: u32 = 0o600;

/// Why the mempool was not saved or not read back. The node goes on without.
#[expect(missing_docs, reason = "every variant is documented, and its message names its fields")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MempoolFileError {
    /// The disk does not read or write.
    #[error("the saved mempool {} cannot be {doing}: check the disk, its space, owner and permissions", path.display())]
    Io {
        path: PathBuf,
        doing: &'static str,
        #[source]
        source: io::Error,
    },
    /// It is no snapshot, or larger than the pool may be.
    #[error("the saved mempool {} is not used: the pool starts empty", path.display())]
    Unusable {
        path: PathBuf,
        #[source]
        source: SnapshotError,
    },
}

/// Saves the pool: after a crash at any moment the file holds the pool of before or of now.
///
/// # Errors
/// It cannot be written.
pub fn save(path: &Path, pool: &Mempool) -> Result<(), MempoolFileError> {
    replace(path, FILE_MODE, &encode(pool)).map_err(|source| MempoolFileError::Io {
        path: path.to_owned(),
        doing: "written",
        source,
    })
}

/// Returns what was saved, parents first; nothing if there is no file. `max_memory_bytes` is the limit of the pool.
///
/// # Errors
/// It cannot be read, or is not usable.
pub fn load(path: &Path, max_memory_bytes: usize) -> Result<Vec<SnapshotEntry>, MempoolFileError> {
    let failed = |source| MempoolFileError::Io { path: path.to_owned(), doing: "read", source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let unusable = |source| MempoolFileError::Unusable { path: path.to_owned(), source };
    let max = max_memory_bytes.saturating_add(SNAPSHOT_OVERHEAD_BYTES);
    let bytes = read_bounded(&file, u64::try_from(max).unwrap_or(u64::MAX)).map_err(failed)?;
    let bytes = bytes.ok_or_else(|| unusable(SnapshotError::TooLong { bytes: max.saturating_add(1), max }))?;
    decode(&bytes, max).map_err(unusable)
}

#[cfg(test)]
mod tests;
