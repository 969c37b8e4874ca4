//! Files that hold secrets, or what must not be lost.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::KeystoreError;

/// Permissions of a file that holds a secret: its owner reads and writes it, nobody else does anything.
pub(super) const SECRET_MODE: u32 = 0o600;

/// Opens a file that is this user's, and nobody else's.
pub(super) fn open_private(path: &Path, write: bool) -> Result<File, KeystoreError> {
    let failed = |source| KeystoreError::Io { path: path.to_owned(), doing: "read", source };
    let file = OpenOptions::new().read(true).write(write).open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => KeystoreError::Missing { path: path.to_owned() },
        io::ErrorKind::IsADirectory => KeystoreError::NotAFile { path: path.to_owned() },
        _ => failed(error),
    })?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(KeystoreError::NotAFile { path: path.to_owned() });
    }
    let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner != user {
        return Err(KeystoreError::OtherOwner { path: path.to_owned(), owner, user });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeystoreError::Exposed { path: path.to_owned(), mode });
    }
    Ok(file)
}

/// Makes a new file of mode 0600 with this content: after a crash at any moment it is whole or not there. On disk when this
/// returns.
pub(super) fn create_whole(path: &Path, bytes: &[u8]) -> Result<(), KeystoreError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    let made = write_whole(path, &temporary, bytes);
    // Only the name that was used on the way; the error above is the one to tell.
    let _ = std::fs::remove_file(&temporary);
    made.and_then(|()| sync_directory_of(path)).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => KeystoreError::Exists { path: path.to_owned() },
        _ => KeystoreError::Io { path: path.to_owned(), doing: "made", source },
    })
}

fn write_whole(path: &Path, temporary: &Path, bytes: &[u8]) -> io::Result<()> {
    match std::fs::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(SECRET_MODE).open(temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    // Unlike a rename, this never replaces what is there.
    std::fs::hard_link(temporary, path)
}

fn sync_directory_of(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

/// Returns all bytes of an open file from where it stands, or None if there are more than `max`.
pub(super) fn read_bounded(file: &File, max: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let read = file.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(u64::try_from(read).is_ok_and(|read| read <= max).then_some(bytes))
}
