//! Files of the homes of nodes and members: bounded reading, whole replacement, secrets that are their owner's alone, and
//! the lock that says whose process runs.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use causeway_chainspec::{ChainSpec, ChainSpecError};

/// Permissions of a file that holds a secret: its owner reads and writes it, nobody else does anything.
pub const SECRET_MODE: u32 = 0o600;

/// Most bytes of a chainspec file: the largest that is written has about 55 kB.
const CHAINSPEC_BYTES_MAX: u64 = 1 << 20;

/// Most bytes of a process number in a lock file.
const PID_BYTES_MAX: u64 = 32;

/// Why a file that must be its owner's alone cannot be used.
#[expect(missing_docs, reason = "every variant is documented, and its message names its fields")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrivateFileError {
    /// There is none.
    #[error("{} is missing: restore it from your backup; new keys are made by \"causeway init\" for a node, and by \"causeway-federation keygen\" for a member", path.display())]
    Missing { path: PathBuf },
    /// There is one already.
    #[error("{} exists already and was not changed: move it away first if it is really not needed", path.display())]
    Exists { path: PathBuf },
    /// It cannot be read or made.
    #[error("{} cannot be {doing}: check the disk, the owner and the permissions of the directory", path.display())]
    Io {
        path: PathBuf,
        doing: &'static str,
        #[source]
        source: io::Error,
    },
    /// Others than its owner can do something with it.
    #[error("{} is open to others (mode {mode:o}): run \"chmod 600 {}\"; if somebody may have read it, change the keys", path.display(), path.display())]
    Exposed { path: PathBuf, mode: u32 },
    /// It belongs to another user.
    #[error("{} belongs to user {owner}, and this process runs as user {user}: run it as that user, or change the owner", path.display())]
    OtherOwner { path: PathBuf, owner: u32, user: u32 },
    /// It is no file.
    #[error("{} is no regular file: put the file there", path.display())]
    NotAFile { path: PathBuf },
}

/// Why a text file cannot be used.
#[expect(missing_docs, reason = "every variant is documented, and its message names its fields")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextFileError {
    /// It cannot be read.
    #[error("{} cannot be read: check the path, the disk, the owner and the permissions", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// It is far too large to be what it should be.
    #[error("{} has more than {max} bytes: it is not the file that belongs there", path.display())]
    TooLarge { path: PathBuf, max: u64 },
    /// It is no text.
    #[error("{} is no UTF-8 text: it is not the file that belongs there", path.display())]
    NotText { path: PathBuf },
    /// It is no chainspec.
    #[error("{} is refused: use the chainspec that the network was made with", path.display())]
    ChainSpec {
        path: PathBuf,
        #[source]
        source: Box<ChainSpecError>,
    },
}

impl TextFileError {
    /// Whether there is no file.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Why a lock cannot be had.
#[derive(Debug)]
pub enum LockError {
    /// Another process holds it, of this number if it has told.
    Held {
        /// The number, or `unknown`.
        pid: String,
    },
    /// The disk's.
    Io(io::Error),
}

/// Says that no other process holds the same, for as long as it is kept.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes a lock file, which is made if there is none, and writes the number of this process into it.
    ///
    /// # Errors
    /// Another process holds it, or the disk's.
    pub fn take(path: &Path, mode: u32) -> Result<Self, LockError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(mode);
        let mut file = options.open(path).map_err(LockError::Io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = read_bounded(&file, PID_BYTES_MAX).ok().flatten();
                let pid = pid.and_then(|bytes| String::from_utf8(bytes).ok()).map(|text| text.trim().to_owned());
                let pid = pid.filter(|pid| !pid.is_empty()).unwrap_or_else(|| "unknown".to_owned());
                return Err(LockError::Held { pid });
            }
            Err(TryLockError::Error(error)) => return Err(LockError::Io(error)),
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(LockError::Io)?;
        Ok(Self { _file: file })
    }
}

/// Returns all bytes of an open file from where it stands, or None if there are more than `max`.
///
/// # Errors
/// The disk's.
pub fn read_bounded(file: &File, max: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let read = file.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(u64::try_from(read).is_ok_and(|read| read <= max).then_some(bytes))
}

/// Returns the bytes of a file, or None if there is none.
///
/// # Errors
/// The disk's, or more than `max` bytes (`InvalidData`).
pub fn read(path: &Path, max: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let too_large = || io::Error::new(io::ErrorKind::InvalidData, format!("more than {max} bytes"));
    read_bounded(&file, max)?.map(Some).ok_or_else(too_large)
}

/// Returns the text of a file of at most `max` bytes.
///
/// # Errors
/// It is missing, too large or no text.
pub fn read_text(path: &Path, max: u64) -> Result<String, TextFileError> {
    let bytes = File::open(path).and_then(|file| read_bounded(&file, max));
    let bytes = bytes.map_err(|source| TextFileError::Io { path: path.to_owned(), source })?;
    let bytes = bytes.ok_or_else(|| TextFileError::TooLarge { path: path.to_owned(), max })?;
    String::from_utf8(bytes).map_err(|_| TextFileError::NotText { path: path.to_owned() })
}

/// Returns the chainspec in a file.
///
/// # Errors
/// It is missing or refused.
pub fn read_chainspec(path: &Path) -> Result<ChainSpec, TextFileError> {
    let text = read_text(path, CHAINSPEC_BYTES_MAX)?;
    ChainSpec::from_toml(&text)
        .map_err(|source| TextFileError::ChainSpec { path: path.to_owned(), source: Box::new(source) })
}

/// Makes a new file of these permissions with this content, on disk when this returns.
///
/// # Errors
/// There is a file already, or the disk's.
pub fn create_new(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    sync_directory(directory_of(path))
}

/// Replaces a file by this content: after a crash at any moment it holds the old or the new one, whole.
///
/// # Errors
/// The disk's. The old content stays.
pub fn replace(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary_of(path);
    remove(&temporary)?;
    let written = create_new(&temporary, mode, bytes).and_then(|()| std::fs::rename(&temporary, path));
    if let Err(error) = written {
        // The error above is the one to tell.
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    sync_directory(directory_of(path))
}

/// Removes a file, if it is there.
///
/// # Errors
/// The disk's.
pub fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Ok(()) => sync_directory(directory_of(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Writes that a file was made, renamed or removed in this directory.
///
/// # Errors
/// The disk's.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// The directory that a file lies in.
pub fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Opens a file that is this user's, and nobody else's.
///
/// # Errors
/// It is not, or it is no file.
pub fn open_private(path: &Path, write: bool) -> Result<File, PrivateFileError> {
    let path_buf = || path.to_owned();
    let file = OpenOptions::new().read(true).write(write).open(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => PrivateFileError::Missing { path: path_buf() },
        io::ErrorKind::IsADirectory => PrivateFileError::NotAFile { path: path_buf() },
        _ => PrivateFileError::Io { path: path_buf(), doing: "read", source },
    })?;
    check_private(&file, path)?;
    Ok(file)
}

/// Checks that an open file is this user's, and nobody else's.
///
/// # Errors
/// It is not, or it is no file.
pub fn check_private(file: &File, path: &Path) -> Result<(), PrivateFileError> {
    let metadata = file.metadata();
    let metadata = metadata.map_err(|source| PrivateFileError::Io { path: path.to_owned(), doing: "read", source })?;
    if !metadata.is_file() {
        return Err(PrivateFileError::NotAFile { path: path.to_owned() });
    }
    let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner != user {
        return Err(PrivateFileError::OtherOwner { path: path.to_owned(), owner, user });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(PrivateFileError::Exposed { path: path.to_owned(), mode });
    }
    Ok(())
}

/// Makes a new file of [`SECRET_MODE`] with this content: after a crash at any moment it is whole or not there. On disk when
/// this returns.
///
/// # Errors
/// There is a file already, or it cannot be made.
pub fn create_private(path: &Path, bytes: &[u8]) -> Result<(), PrivateFileError> {
    let temporary = temporary_of(path);
    let made = remove(&temporary).and_then(|()| create_new(&temporary, SECRET_MODE, bytes));
    // Unlike a rename, this never replaces what is there.
    let made = made.and_then(|()| std::fs::hard_link(&temporary, path));
    // Only the name that was used on the way; the error above is the one to tell.
    let _ = std::fs::remove_file(&temporary);
    made.and_then(|()| sync_directory(directory_of(path))).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => PrivateFileError::Exists { path: path.to_owned() },
        _ => PrivateFileError::Io { path: path.to_owned(), doing: "made", source },
    })
}

fn temporary_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests;
