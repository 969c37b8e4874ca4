//! The directory of one node: its settings, its chain, its keys, and what it must remember.
//!
//! ```text
//! <home>/config.toml            settings of this node
//! <home>/chainspec.toml         what every node of the network shares
//! <home>/keys/validator.key     secret; only of a validator
//! <home>/keys/validator.mark    how far that key has signed; never copied, never restored
//! <home>/keys/node.key          secret; who the node is among its peers
//! <home>/data/store/            blocks, certificates and coins: can be fetched again
//! <home>/data/consensus.log     what a validator must not forget of the current height
//! <home>/data/follower.log      the same of a node that does not vote: can be lost
//! <home>/data/evidence/         proofs that validators contradicted themselves
//! <home>/data/peers.dat         where peers were when the node stopped: can be lost
//! <home>/data/mempool.dat       transactions that waited when the node stopped: can be lost
//! <home>/LOCK                   held by the process that runs on the home
//! ```

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use causeway_chainspec::ChainSpec;
use causeway_federation::files::{Lock, LockError, TextFileError, create_new, read_chainspec, sync_directory};

/// Permissions of every directory of a home.
const DIRECTORY_MODE: u32 = 0o700;

/// Permissions of files that are no secret.
const FILE_MODE: u32 = 0o644;

/// Why a home cannot be used.
#[expect(missing_docs, reason = "every variant is documented, and its message names its fields")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HomeError {
    /// It is there already.
    #[error("{} exists already and is not empty: nothing was changed; choose another directory with --home", path.display())]
    Exists { path: PathBuf },
    /// It is not there, or not complete.
    #[error("{} is no home of a node ({} is missing): make one with \"causeway init --home {}\"", path.display(), missing.display(), path.display())]
    NotAHome { path: PathBuf, missing: PathBuf },
    /// A file or directory cannot be read or made.
    #[error("{} cannot be {doing}: check the disk, its space, owner and permissions", path.display())]
    Io {
        path: PathBuf,
        doing: &'static str,
        #[source]
        source: io::Error,
    },
    /// Another process runs on it.
    #[error("another causeway runs on {} (pid {pid}): stop that one first, or choose another home", path.display())]
    Running { path: PathBuf, pid: String },
    /// The chainspec.
    #[error(transparent)]
    ChainSpec(#[from] TextFileError),
}

/// A node's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    path: PathBuf,
}

/// Says that no other process runs on the home, for as long as it is kept.
#[derive(Debug)]
pub struct HomeLock {
    _lock: Lock,
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
        self.path.join("config.toml")
    }

    /// The chainspec.
    pub fn chainspec(&self) -> PathBuf {
        self.path.join("chainspec.toml")
    }

    /// The directory of the keys.
    pub fn keys(&self) -> PathBuf {
        self.path.join("keys")
    }

    /// The validator's secret key.
    pub fn validator_key(&self) -> PathBuf {
        self.keys().join("validator.key")
    }

    /// The high-water mark of the validator's key.
    pub fn validator_mark(&self) -> PathBuf {
        self.keys().join("validator.mark")
    }

    /// The secret key among peers.
    pub fn node_key(&self) -> PathBuf {
        self.keys().join("node.key")
    }

    /// The directory of everything that the node writes by itself.
    pub fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// The directory of the store.
    pub fn store(&self) -> PathBuf {
        self.data().join("store")
    }

    /// The consensus log of a validator.
    pub fn consensus_log(&self) -> PathBuf {
        self.data().join("consensus.log")
    }

    /// The consensus log of a node that does not vote. Its own, so that following with a validator's home leaves the
    /// validator's log as it is.
    pub fn follower_log(&self) -> PathBuf {
        self.data().join("follower.log")
    }

    /// The proposed blocks of the height that is being decided.
    pub fn bodies(&self) -> PathBuf {
        self.data().join("bodies.dat")
    }

    /// The directory of evidence.
    pub fn evidence(&self) -> PathBuf {
        self.data().join("evidence")
    }

    /// What the watcher of Bitcoin knows: a cache.
    pub fn bitcoin(&self) -> PathBuf {
        self.data().join("bitcoin.dat")
    }

    /// The deposit addresses that were handed out here.
    pub fn deposits(&self) -> PathBuf {
        self.data().join("deposits")
    }

    /// The address book of the network.
    pub fn peers(&self) -> PathBuf {
        self.data().join("peers.dat")
    }

    /// The mempool as it was when the node stopped.
    pub fn mempool(&self) -> PathBuf {
        self.data().join("mempool.dat")
    }

    /// The file whose lock says that a process runs here.
    pub fn lock_file(&self) -> PathBuf {
        self.path.join("LOCK")
    }

    /// Checks that nothing is where a new home should be, or an empty directory.
    ///
    /// # Errors
    /// [`HomeError::Exists`], or the path cannot be looked at.
    pub fn check_absent(&self) -> Result<(), HomeError> {
        let exists = || HomeError::Exists { path: self.path.clone() };
        match std::fs::read_dir(&self.path) {
            Ok(mut entries) => entries.next().map_or(Ok(()), |_| Err(exists())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(exists()),
            Err(source) => Err(self.io(&self.path, "read", source)),
        }
    }

    /// Makes the directories of a new home, and its lock.
    ///
    /// # Errors
    /// There is something already, which is left as it is; or a directory cannot be made.
    pub fn create(&self) -> Result<HomeLock, HomeError> {
        self.check_absent()?;
        let make = |path: &Path, recursive| {
            let made = DirBuilder::new().recursive(recursive).mode(DIRECTORY_MODE).create(path);
            made.map_err(|source| self.io(path, "made", source))
        };
        make(&self.path, true)?;
        // Also if it was there, empty.
        std::fs::set_permissions(&self.path, Permissions::from_mode(DIRECTORY_MODE))
            .map_err(|source| self.io(&self.path, "made", source))?;
        let lock = self.lock()?;
        for directory in [self.keys(), self.data(), self.evidence()] {
            make(&directory, false)?;
        }
        for directory in [&self.data(), &self.path] {
            sync_directory(directory).map_err(|source| self.io(directory, "made", source))?;
        }
        Ok(lock)
    }

    /// Writes a new file that is no secret.
    ///
    /// # Errors
    /// There is one already, or it cannot be made.
    pub fn write_new(&self, path: &Path, text: &str) -> Result<(), HomeError> {
        create_new(path, FILE_MODE, text.as_bytes()).map_err(|source| self.io(path, "made", source))
    }

    /// Takes the home for this process.
    ///
    /// # Errors
    /// Another one runs on it, it is no home, or the lock cannot be had.
    pub fn lock(&self) -> Result<HomeLock, HomeError> {
        let path = self.lock_file();
        match Lock::take(&path, FILE_MODE) {
            Ok(lock) => Ok(HomeLock { _lock: lock }),
            Err(LockError::Held { pid }) => Err(HomeError::Running { path: self.path.clone(), pid }),
            Err(LockError::Io(error)) if error.kind() == io::ErrorKind::NotFound => Err(self.not_a_home(&self.path)),
            Err(LockError::Io(source)) => Err(self.io(&path, "locked", source)),
        }
    }

    /// Checks that this is a home: [`init`](crate::cli) writes the settings last.
    ///
    /// # Errors
    /// It is not.
    pub fn check_present(&self) -> Result<(), HomeError> {
        for path in [self.config(), self.chainspec(), self.keys(), self.data()] {
            if !path.exists() {
                return Err(self.not_a_home(&path));
            }
        }
        Ok(())
    }

    /// Reads the chainspec of the home.
    ///
    /// # Errors
    /// It is missing or refused.
    pub fn load_chainspec(&self) -> Result<ChainSpec, HomeError> {
        Ok(read_chainspec(&self.chainspec())?)
    }

    fn not_a_home(&self, missing: &Path) -> HomeError {
        HomeError::NotAHome { path: self.path.clone(), missing: missing.to_owned() }
    }

    fn io(&self, path: &Path, doing: &'static str, source: io::Error) -> HomeError {
        HomeError::Io { path: path.to_owned(), doing, source }
    }
}

#[cfg(test)]
mod tests;
