//! The directory of one member.
//!
//! ```text
//! <home>/federation.toml    settings of this member
//! <home>/chainspec.toml     what every node of the network shares
//! <home>/member.key         secret, sealed under the passphrase: the one thing to back up
//! <home>/signing.log        what the key has signed: never copied back, never removed
//! <home>/acted-on.json      the last block of Causeway that the member acted on
//! <home>/deposits.json      up to which block credited deposits were found on Bitcoin: can be lost
//! <home>/paused             present while the operator has paused the member
//! <home>/alarm.json         present after what should never happen, until the operator has looked
//! <home>/signed/            signed transactions of open batches, to be sent again: can be lost
//! <home>/scripts/           trees of the epochs: can be made again
//! <home>/status.json        the last status, for when the member is stopped
//! <home>/control.sock       where the running member answers its operator
//! ```

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use causeway_chainspec::ChainSpec;

use crate::files::{self, TextFileError};

/// Permissions of every directory of a home.
const DIRECTORY_MODE: u32 = 0o700;

/// Why a home cannot be used.
#[expect(missing_docs, reason = "every variant is documented, and its message names its fields")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HomeError {
    /// It is not there, or not complete.
    #[error("{} is no home of a member that can run ({} is missing): make the keys with \"causeway-federation keygen --home {}\" and give the network with --chain", path.display(), missing.display(), path.display())]
    Incomplete { path: PathBuf, missing: PathBuf },
    /// A file or directory cannot be read or made.
    #[error("{} cannot be {doing}: check the disk, its space, owner and permissions", path.display())]
    Io {
        path: PathBuf,
        doing: &'static str,
        #[source]
        source: io::Error,
    },
    /// There already.
    #[error("{} exists already and was not changed: choose another directory with --home", path.display())]
    Exists { path: PathBuf },
    /// The chainspec.
    #[error(transparent)]
    ChainSpec(#[from] TextFileError),
    /// It is a chainspec of another network.
    #[error("{} is of another chain than {given}: one home holds one chain, choose another directory", path.display())]
    OtherChain { path: PathBuf, given: String },
}

/// A member's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    path: PathBuf,
}

impl Home {
    /// The home at `path`, which is not looked at.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The settings.
    pub fn config(&self) -> PathBuf {
        self.path.join("federation.toml")
    }

    /// The chainspec.
    pub fn chainspec(&self) -> PathBuf {
        self.path.join("chainspec.toml")
    }

    /// The sealed keys.
    pub fn key(&self) -> PathBuf {
        self.path.join("member.key")
    }

    /// The signing log.
    pub fn signing_log(&self) -> PathBuf {
        self.path.join("signing.log")
    }

    /// The block that the member last acted on.
    pub fn acted_on(&self) -> PathBuf {
        self.path.join("acted-on.json")
    }

    /// How far credited deposits were checked.
    pub fn deposits(&self) -> PathBuf {
        self.path.join("deposits.json")
    }

    /// Present while the member is paused.
    pub fn paused(&self) -> PathBuf {
        self.path.join("paused")
    }

    /// Present after an alarm.
    pub fn alarm(&self) -> PathBuf {
        self.path.join("alarm.json")
    }

    /// The directory of signed transactions.
    pub fn signed(&self) -> PathBuf {
        self.path.join("signed")
    }

    /// The directory of the epochs' trees.
    pub fn scripts(&self) -> PathBuf {
        self.path.join("scripts")
    }

    /// The last status.
    pub fn status(&self) -> PathBuf {
        self.path.join("status.json")
    }

    /// Where the running member answers.
    pub fn control(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    /// Makes the directories that are missing, all of mode 0700.
    ///
    /// # Errors
    /// The disk's.
    pub fn create(&self) -> Result<(), HomeError> {
        for directory in [&self.path, &self.signed(), &self.scripts()] {
            let failed = |source| self.io(directory, "made", source);
            DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory).map_err(failed)?;
            std::fs::set_permissions(directory, Permissions::from_mode(DIRECTORY_MODE)).map_err(failed)?;
        }
        Ok(())
    }

    /// Checks that everything is there that a member runs with.
    ///
    /// # Errors
    /// [`HomeError::Incomplete`], with the first thing that is missing.
    pub fn check_complete(&self) -> Result<(), HomeError> {
        for missing in [self.key(), self.chainspec(), self.config(), self.signing_log()] {
            if !missing.exists() {
                return Err(HomeError::Incomplete { path: self.path.clone(), missing });
            }
        }
        self.create()
    }

    /// The chainspec.
    ///
    /// # Errors
    /// It is missing or refused.
    pub fn load_chainspec(&self) -> Result<ChainSpec, HomeError> {
        Ok(files::read_chainspec(&self.chainspec())?)
    }

    pub(crate) fn io(&self, path: &Path, doing: &'static str, source: io::Error) -> HomeError {
        HomeError::Io { path: path.to_owned(), doing, source }
    }

    /// Whether the operator has paused the member. Also when that cannot be told.
    pub fn is_paused(&self) -> bool {
        self.paused().try_exists().unwrap_or(true)
    }
}

/// The chainspec in a file; None if there is no file.
///
/// # Errors
/// It cannot be read, or is none.
pub fn find_chainspec(path: &Path) -> Result<Option<ChainSpec>, HomeError> {
    match files::read_chainspec(path) {
        Err(error) if error.is_missing() => Ok(None),
        found => Ok(Some(found?)),
    }
}
