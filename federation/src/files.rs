//! Files of a member's home: whole replacement, and reading within a bound.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Returns the bytes of a file, or None if there is none.
///
/// # Errors
/// The disk's, or more than `max` bytes (`InvalidData`).
pub(crate) fn read(path: &Path, max: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    let read = file.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(read).is_ok_and(|read| read <= max) {
        Ok(Some(bytes))
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, format!("more than {max} bytes")))
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
    sync_directory_of(path)
}

/// Replaces a file by this content: after a crash at any moment it holds the old or the new one, whole. Its mode is
/// 0600.
///
/// # Errors
/// The disk's. The old content stays.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    remove(&temporary)?;
    create_new(&temporary, 0o600, bytes)?;
    std::fs::rename(&temporary, path)?;
    sync_directory_of(path)
}

/// Removes a file, if it is there.
///
/// # Errors
/// The disk's.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Ok(()) => sync_directory_of(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn sync_directory_of(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}
