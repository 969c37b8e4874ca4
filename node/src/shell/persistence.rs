//! Log and mark together, in the order that makes a crash harmless.

use causeway_chainspec::Height;
use causeway_consensus::bft::{HighWaterMark, LogEntry, Persist, Writing};

use super::files::Disk;
use super::log_file::{LogError, LogFile};
use super::mark_file::{MarkFile, MarkFileError};

/// Why something is not on disk. The node must stop: nothing may be acted on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PersistenceError {
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The mark.
    #[error(transparent)]
    Mark(#[from] MarkFileError),
    /// Something was signed by a node that has no key.
    #[error("a node without a validator's key was to write a high-water mark: this is a bug, please report it")]
    NoMark,
}

/// What a node remembers for consensus: its log, and the mark of its key if it votes.
#[derive(Debug)]
pub struct Persistence<L = std::fs::File, M = std::fs::File> {
    log: LogFile<L>,
    mark: Option<MarkFile<M>>,
}

impl<L: Disk, M: Disk> Persistence<L, M> {
    /// The log, and the mark of a validator.
    pub fn new(log: LogFile<L>, mark: Option<MarkFile<M>>) -> Self {
        Self { log, mark }
    }
}

impl<L: Disk, M: Disk> Persist for Persistence<L, M> {
    type Error = PersistenceError;

    fn persist(
        &mut self,
        height: Height,
        log: &[LogEntry],
        mark: Option<&HighWaterMark>,
        writing: Writing,
    ) -> Result<(), PersistenceError> {
        // A mark on disk says that the log is.
        let writing = if mark.is_some() { Writing::Now } else { writing };
        self.log.append(height, log, writing)?;
        match (mark, &mut self.mark) {
            (None, _) => Ok(()),
            (Some(mark), Some(file)) => Ok(file.write(mark)?),
            (Some(_), None) => Err(PersistenceError::NoMark),
        }
    }
}
