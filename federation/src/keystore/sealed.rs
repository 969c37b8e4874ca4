//! Secrets of any length in one file, sealed as a member's key file is.
//!
//! Numbers little endian:
//!
//! | part | bytes |
//! |---|---|
//! | magic of the kind of file, version 1 | 4, 4 |
//! | Argon2id (RFC 9106): memory in KiB, passes, lanes, salt | 4, 4, 4, 16 |
//! | XChaCha20-Poly1305: nonce | 24 |
//! | sealed: content, tag; all before is authenticated with it | any, 16 |
//! | checksum: `tagged_hash("causeway/sealed-file/v1", all before)` | 32 |
//!
//! The checksum tells a damaged file from a wrong passphrase. Every saving draws a new nonce at random.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use causeway_chainspec::tagged_hash;
use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{KeyInit, Tag, XChaCha20Poly1305, XNonce};
use rand::TryRngCore;
use rand::rngs::OsRng;
use zeroize::Zeroizing;

use super::{Cost, KeyLock, KeystoreError, NONCE_BYTES, Passphrase, SALT_BYTES, TAG_BYTES, derive};
use crate::files::{self, PrivateFileError, SECRET_MODE};

const VERSION: u32 = 1;
/// Everything before the sealed content.
const HEADER_BYTES: usize = 8 + 12 + SALT_BYTES + NONCE_BYTES;
const CHECKSUM_BYTES: usize = 32;
const CHECKSUM_TAG: &str = "causeway/sealed-file/v1";

/// Most bytes of a sealed file: 256 MiB.
pub const SEALED_BYTES_MAX: u64 = 256 << 20;

/// Why a sealed file cannot be used.
#[expect(missing_docs, reason = "every variant is documented, and its message names its fields")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealedFileError {
    /// There is none.
    #[error("{} is missing: give the right path, or restore it from your backup", path.display())]
    Missing { path: PathBuf },
    /// There is one already.
    #[error("{} exists already and was not changed: give another path, or move it away first", path.display())]
    Exists { path: PathBuf },
    /// It cannot be read or made, or others can read it.
    #[error("{} cannot be used", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: Box<KeystoreError>,
    },
    /// It is another kind of file, or a byte of it is not what was written.
    #[error("{} is damaged or of another kind: give the right path, or restore it from your backup", path.display())]
    Damaged { path: PathBuf },
    /// It was written by another version.
    #[error("{} has format {found}, this build knows {VERSION}: use the build that wrote it", path.display())]
    OtherFormat { path: PathBuf, found: u32 },
    /// The passphrase does not open it.
    #[error("the passphrase does not open {}: try again", path.display())]
    WrongPassphrase { path: PathBuf },
    /// Another process uses it.
    #[error("another process (pid {pid}) uses {}: wait until it has ended, or end it", path.display())]
    InUse { path: PathBuf, pid: String },
    /// There is too much to be kept.
    #[error("{} would have more than {SEALED_BYTES_MAX} bytes: nothing was changed", path.display())]
    TooLarge { path: PathBuf },
    /// It could not be replaced.
    #[error("{} cannot be written, and is as it was: check the disk, the owner and the permissions of the directory", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A sealed file that this process alone uses, for as long as this is kept. Its key stays in memory.
pub struct SealedFile {
    path: PathBuf,
    magic: [u8; 4],
    cost: Cost,
    salt: [u8; SALT_BYTES],
    key: Zeroizing<[u8; 32]>,
    _lock: KeyLock,
}

impl fmt::Debug for SealedFile {
    /// Shows no key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl SealedFile {
    /// Makes a new file of mode 0600 that holds this, whole and on disk when this returns.
    ///
    /// # Errors
    /// There is a file already, or it cannot be made.
    pub fn create(
        path: &Path,
        magic: [u8; 4],
        passphrase: &Passphrase,
        content: &[u8],
    ) -> Result<Self, SealedFileError> {
        Self::create_with(path, magic, passphrase, content, Cost::DEFAULT)
    }

    fn create_with(
        path: &Path,
        magic: [u8; 4],
        passphrase: &Passphrase,
        content: &[u8],
        cost: Cost,
    ) -> Result<Self, SealedFileError> {
        if path.exists() {
            return Err(SealedFileError::Exists { path: path.to_owned() });
        }
        let mut salt = [0; SALT_BYTES];
        OsRng
            .try_fill_bytes(&mut salt)
            .map_err(|error| of_keystore(path, super::KeyError::Randomness(error).into()))?;
        let key = derive(path, passphrase.as_bytes(), &salt, cost).map_err(|error| of_keystore(path, error))?;
        let bytes = seal(path, magic, cost, &salt, &key, content)?;
        files::create_private(path, &bytes).map_err(|error| of_file(path, error))?;
        let lock = KeyLock::take(path).map_err(|error| of_keystore(path, error))?;
        Ok(Self { path: real(path)?, magic, cost, salt, key, _lock: lock })
    }

    /// Takes the file for this process and opens it; with its content.
    ///
    /// # Errors
    /// Another process uses it, it cannot be read, or the passphrase is wrong.
    pub fn open(
        path: &Path,
        magic: [u8; 4],
        passphrase: &Passphrase,
    ) -> Result<(Self, Zeroizing<Vec<u8>>), SealedFileError> {
        let lock = KeyLock::take(path).map_err(|error| of_keystore(path, error))?;
        let bytes = read(path)?;
        let damaged = || SealedFileError::Damaged { path: path.to_owned() };
        let parts = Parts::parse(&bytes, magic, path)?;
        if !parts.cost.is_bounded() {
            return Err(damaged());
        }
        let opened = passphrase.forms().find_map(|form| parts.open(path, form).transpose());
        let (key, content) = opened.ok_or_else(|| SealedFileError::WrongPassphrase { path: path.to_owned() })??;
        let file = Self { path: real(path)?, magic, cost: parts.cost, salt: *parts.salt, key, _lock: lock };
        Ok((file, content))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the content: after a crash at any moment the file holds the old or the new one, whole. On disk when this
    /// returns.
    ///
    /// # Errors
    /// The disk's, or too much content. The old content stays.
    pub fn save(&self, content: &[u8]) -> Result<(), SealedFileError> {
        let bytes = seal(&self.path, self.magic, self.cost, &self.salt, &self.key, content)?;
        let write = |source| SealedFileError::Write { path: self.path.clone(), source };
        files::replace(&self.path, SECRET_MODE, &bytes).map_err(write)
    }
}

/// The file itself, not a link to it, which saving would replace.
fn real(path: &Path) -> Result<PathBuf, SealedFileError> {
    let io = |source| of_file(path, PrivateFileError::Io { path: path.to_owned(), doing: "found", source });
    path.canonicalize().map_err(io)
}

fn seal(
    path: &Path,
    magic: [u8; 4],
    cost: Cost,
    salt: &[u8; SALT_BYTES],
    key: &[u8; 32],
    content: &[u8],
) -> Result<Vec<u8>, SealedFileError> {
    let length = HEADER_BYTES + content.len() + TAG_BYTES + CHECKSUM_BYTES;
    if u64::try_from(length).map_or(true, |length| length > SEALED_BYTES_MAX) {
        return Err(SealedFileError::TooLarge { path: path.to_owned() });
    }
    let mut nonce = [0; NONCE_BYTES];
    OsRng.try_fill_bytes(&mut nonce).map_err(|error| of_keystore(path, super::KeyError::Randomness(error).into()))?;
    let mut bytes = Vec::with_capacity(length);
    bytes.extend_from_slice(&magic);
    for number in [VERSION, cost.memory_kib, cost.passes, cost.lanes] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(salt);
    bytes.extend_from_slice(&nonce);
    // The buffer never holds the content in the clear outside of this one, which is wiped.
    let mut sealed = Zeroizing::new(content.to_vec());
    let tag = XChaCha20Poly1305::new(key.into())
        .encrypt_in_place_detached(XNonce::from_slice(&nonce), &bytes, &mut sealed)
        .map_err(|_| SealedFileError::TooLarge { path: path.to_owned() })?;
    bytes.extend_from_slice(&sealed);
    bytes.extend_from_slice(&tag);
    let checksum = tagged_hash(CHECKSUM_TAG, &[&bytes]);
    bytes.extend_from_slice(&checksum);
    Ok(bytes)
}

fn read(path: &Path) -> Result<Vec<u8>, SealedFileError> {
    let file = files::open_private(path, false).map_err(|error| of_file(path, error))?;
    let io = |source| of_file(path, PrivateFileError::Io { path: path.to_owned(), doing: "read", source });
    files::read_bounded(&file, SEALED_BYTES_MAX)
        .map_err(io)?
        .ok_or_else(|| SealedFileError::Damaged { path: path.to_owned() })
}

fn of_file(path: &Path, error: PrivateFileError) -> SealedFileError {
    of_keystore(path, error.into())
}

fn of_keystore(path: &Path, error: KeystoreError) -> SealedFileError {
    match error {
        KeystoreError::File(PrivateFileError::Missing { path }) => SealedFileError::Missing { path },
        KeystoreError::File(PrivateFileError::Exists { path }) => SealedFileError::Exists { path },
        KeystoreError::InUse { path, pid } => SealedFileError::InUse { path, pid },
        source => SealedFileError::File { path: path.to_owned(), source: Box::new(source) },
    }
}

/// The key of a sealed file, and its content.
type Opened = (Zeroizing<[u8; 32]>, Zeroizing<Vec<u8>>);

/// The parts of a sealed file.
struct Parts<'a> {
    header: &'a [u8],
    cost: Cost,
    salt: &'a [u8; SALT_BYTES],
    nonce: &'a [u8; NONCE_BYTES],
    sealed: &'a [u8],
    tag: &'a [u8; TAG_BYTES],
}

impl<'a> Parts<'a> {
    fn parse(bytes: &'a [u8], magic: [u8; 4], path: &Path) -> Result<Self, SealedFileError> {
        let damaged = || SealedFileError::Damaged { path: path.to_owned() };
        let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or_else(damaged)?;
        if *checksum != tagged_hash(CHECKSUM_TAG, &[body]) {
            return Err(damaged());
        }
        let rest = body.strip_prefix(&magic).ok_or_else(damaged)?;
        let (version, _) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
        match u32::from_le_bytes(*version) {
            VERSION => Self::of_body(body).ok_or_else(damaged),
            found => Err(SealedFileError::OtherFormat { path: path.to_owned(), found }),
        }
    }

    /// The key and the content, if these bytes are the passphrase.
    fn open(&self, path: &Path, passphrase: &[u8]) -> Result<Option<Opened>, SealedFileError> {
        let key = derive(path, passphrase, self.salt, self.cost).map_err(|error| of_keystore(path, error))?;
        let mut content = Zeroizing::new(self.sealed.to_vec());
        let opened = XChaCha20Poly1305::new((&*key).into()).decrypt_in_place_detached(
            XNonce::from_slice(self.nonce),
            self.header,
            &mut content,
            Tag::from_slice(self.tag),
        );
        Ok(opened.is_ok().then_some((key, content)))
    }

    fn of_body(body: &'a [u8]) -> Option<Self> {
        let (header, sealed) = body.split_at_checked(HEADER_BYTES)?;
        let (sealed, tag) = sealed.split_last_chunk()?;
        let (_, rest) = header.split_first_chunk::<8>()?;
        let (memory, rest) = rest.split_first_chunk::<4>()?;
        let (passes, rest) = rest.split_first_chunk::<4>()?;
        let (lanes, rest) = rest.split_first_chunk::<4>()?;
        let (salt, rest) = rest.split_first_chunk()?;
        let (nonce, _) = rest.split_first_chunk()?;
        let cost = Cost {
            memory_kib: u32::from_le_bytes(*memory),
            passes: u32::from_le_bytes(*passes),
            lanes: u32::from_le_bytes(*lanes),
        };
        Some(Self { header, cost, salt, nonce, sealed, tag })
    }
}

#[cfg(test)]
mod tests;
