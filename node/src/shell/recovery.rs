//! Whether a node may go on from what is on disk: log, high-water mark and tip, held against each other.
//!
//! A mark keeps a validator from contradicting a message. It does not keep it from forgetting a lock, and votes against a
//! lock can make two blocks final. So a key that has signed in a height goes on in that height only with the log that has
//! its last message in it. Once the height is decided, nothing of it matters any more.

use std::path::PathBuf;

use causeway_chainspec::{ChainId, Height};
use causeway_consensus::bft::HighWaterMark;

use super::log_file::{LogError, LogFile, Remembered};
use crate::home::Home;

/// Why a validator must not vote from here on.
#[expect(missing_docs, reason = "every variant is documented, and its message names its fields")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoveryError {
    /// The log is damaged, and the key has signed in a height that is not decided here.
    #[error(
        "the consensus log is damaged, and this key has signed in height {height}, which is not decided yet: the node must not vote from a damaged log; do not remove it, start with --full-node until the tip is at or above height {height}, then start again"
    )]
    DamagedLog {
        height: Height,
        #[source]
        source: LogError,
    },
    /// The log has not what the key has signed.
    #[error("the consensus log {} has not what this key has signed in height {height}, and that height is not decided here (the tip is at {tip}): the node must not vote without that log; bring the log back if it was moved, or start with --full-node until the tip is at or above height {height}, then start again", path.display())]
    LostLog { path: PathBuf, height: Height, tip: Height },
    /// The log cannot be used for another reason.
    #[error(transparent)]
    Log(LogError),
}

/// What a log on disk is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogVerdict {
    /// To go on with: it is of the height above the tip, or empty.
    Replay,
    /// For nothing: nobody depends on what it says.
    Drop,
}

/// Opens the log of a node whose tip is at `tip`, and returns what it remembers of the height above; `mark` is that of
/// the key that it votes with, if it does. A log that nobody needs is dropped: see [`judge_log`].
///
/// # Errors
/// [`RecoveryError`]. The file is left as it is.
pub fn open_log(
    home: &Home,
    chain: ChainId,
    tip: Height,
    mark: Option<&HighWaterMark>,
) -> Result<(LogFile, Remembered), RecoveryError> {
    let path = log_path(home, mark);
    let opened = match judge_log(home, chain, tip, mark)? {
        LogVerdict::Replay => LogFile::open(&path, chain),
        LogVerdict::Drop => LogFile::discard(&path, chain),
    };
    opened.map_err(RecoveryError::Log)
}

/// Says what the log of a node is good for, and changes nothing. Nobody needs the log of a decided height, of a later one
/// than the next in which the key has signed nothing, or a damaged one if the key has signed nothing that is not decided.
///
/// # Errors
/// The key has signed in a height that is not decided here, and the log has not the whole of it; or the log is of another
/// chain or format, or cannot be read.
pub fn judge_log(
    home: &Home,
    chain: ChainId,
    tip: Height,
    mark: Option<&HighWaterMark>,
) -> Result<LogVerdict, RecoveryError> {
    let path = log_path(home, mark);
    // The mark of a height that is not decided here. A barrier needs no log: nothing at or below it can be signed.
    let open = mark.filter(|mark| !mark.is_barrier()).and_then(|mark| Some((mark, mark.position()?.height)));
    let open = open.filter(|(_, height)| *height > tip);
    let remembered = match LogFile::peek(&path, chain) {
        Ok(remembered) => remembered,
        Err(source @ LogError::Damaged { .. }) => match open {
            Some((_, height)) => return Err(RecoveryError::DamagedLog { height, source }),
            None => {
                tracing::warn!(%source, "nothing depends on the damaged consensus log");
                return Ok(LogVerdict::Drop);
            }
        },
        Err(error) => return Err(RecoveryError::Log(error)),
    };
    let is_next = |height: Height| Some(height) == tip.next();
    if let Some((mark, height)) = open {
        let whole = is_next(height)
            && remembered.as_ref().is_some_and(|(of, entries)| *of == height && mark.stands_in(entries));
        if !whole {
            return Err(RecoveryError::LostLog { path, height, tip });
        }
    }
    Ok(if remembered.is_none_or(|(height, _)| is_next(height)) { LogVerdict::Replay } else { LogVerdict::Drop })
}

fn log_path(home: &Home, mark: Option<&HighWaterMark>) -> PathBuf {
    if mark.is_some() { home.consensus_log() } else { home.follower_log() }
}

#[cfg(test)]
mod tests;
