//! What a member keeps on disk and must not lose: its two secret keys, sealed under a passphrase, and the log of what they
//! signed.
//!
//! A key file, 237 bytes, numbers little endian:
//!
//! | part | bytes |
//! |---|---|
//! | magic `CWMK`, version 1 | 4, 4 |
//! | Argon2id (RFC 9106): memory in KiB, passes, lanes, salt | 4, 4, 4, 16 |
//! | XChaCha20-Poly1305: nonce | 24 |
//! | public keys: member, identity | 33, 32 |
//! | sealed: member key, identity key, tag; all before is authenticated with it | 32, 32, 16 |
//! | checksum: `tagged_hash("causeway/member-key-file/v1", all before)` | 32 |
//!
//! The checksum tells a damaged file from a wrong passphrase. The public keys say whose file it is without the passphrase.

use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use bitcoin::secp256k1::{PublicKey, XOnlyPublicKey};
use causeway_chainspec::tagged_hash;
use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{KeyInit, Tag, XChaCha20Poly1305, XNonce};
use rand::TryRngCore;
use rand::rngs::OsRng;
use zeroize::Zeroizing;

use crate::files::{Lock, LockError, PrivateFileError, SECRET_MODE, create_private, open_private, read_bounded};
use crate::musig::{IdentityKey, KeyError, MemberKey};

mod passphrase;
mod sealed;
mod signing_log;

pub use passphrase::{Passphrase, PassphraseError, PassphraseSource};
pub use sealed::{SEALED_BYTES_MAX, SealedFile, SealedFileError};
pub use signing_log::{LOG_BYTES_MAX, SigningLog, SigningLogError};

const MAGIC: [u8; 4] = *b"CWMK";
const VERSION: u32 = 1;
const SALT_BYTES: usize = 16;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
const SECRET_BYTES: usize = 64;
/// Everything in the clear.
const HEADER_BYTES: usize = 8 + 12 + SALT_BYTES + NONCE_BYTES + 33 + 32;
/// Everything but the checksum.
const BODY_BYTES: usize = HEADER_BYTES + SECRET_BYTES + TAG_BYTES;
const FILE_BYTES: usize = BODY_BYTES + 32;

const CHECKSUM_TAG: &str = "causeway/member-key-file/v1";

/// What deriving a key from a passphrase costs. More memory and passes make guessing dearer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Cost {
    /// Four times the memory of RFC 9106's second recommendation; about a second.
    const DEFAULT: Self = Self { memory_kib: 256 << 10, passes: 3, lanes: 4 };
    /// Nothing dearer is read: a file must not take the machine's memory.
    const MAX: Self = Self { memory_kib: 1 << 20, passes: 64, lanes: 64 };

    fn is_bounded(self) -> bool {
        self.memory_kib <= Self::MAX.memory_kib && self.passes <= Self::MAX.passes && self.lanes <= Self::MAX.lanes
    }
}

/// Why a key file cannot be used.
#[expect(missing_docs, reason = "every variant is documented, and its message names its fields")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeystoreError {
    /// The file itself.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// It is no key file, or a byte of it is not what was written.
    #[error("the key file {} is damaged: restore it from your backup", path.display())]
    Damaged { path: PathBuf },
    /// It was written by another version.
    #[error("the key file {} has format {found}, this build knows {VERSION}: use the build that wrote it", path.display())]
    OtherFormat { path: PathBuf, found: u32 },
    /// It asks for more memory or time than any key file of this software.
    #[error("the key file {} asks for {memory_kib} KiB, {passes} passes and {lanes} lanes: it is not one of ours; restore it from your backup", path.display())]
    TooCostly { path: PathBuf, memory_kib: u32, passes: u32, lanes: u32 },
    /// The passphrase does not open it.
    #[error("the passphrase does not open {}: try again; without it the keys are lost, and the epoch must be changed", path.display())]
    WrongPassphrase { path: PathBuf },
    /// Another process uses the key (nonce rule 8).
    #[error("another process (pid {pid}) uses {}: a member's key must run in one place only; stop the other one", path.display())]
    InUse { path: PathBuf, pid: String },
    /// No key, or no randomness.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The key cannot be derived.
    #[error("the key of {} cannot be derived: free some memory and try again", path.display())]
    Derivation { path: PathBuf },
}

/// The public side of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKeys {
    /// The key in the federation's scripts.
    pub member: PublicKey,
    /// The key that signs messages to other members.
    pub identity: XOnlyPublicKey,
}

/// The secret keys of a member.
#[derive(Debug)]
pub struct MemberKeys {
    /// Signs coins.
    pub member: MemberKey,
    /// Signs messages.
    pub identity: IdentityKey,
}

impl MemberKeys {
    /// New keys, from the randomness of the operating system.
    ///
    /// # Errors
    /// [`KeyError::Randomness`].
    pub fn generate() -> Result<Self, KeyError> {
        Ok(Self { member: MemberKey::generate()?, identity: IdentityKey::generate()? })
    }

    /// The public keys.
    pub fn public(&self) -> PublicKeys {
        PublicKeys { member: self.member.public_key(), identity: self.identity.public_key() }
    }

    /// Writes the keys to a new file of mode 0600, whole and on disk when this returns.
    ///
    /// # Errors
    /// There is a file already, or it cannot be made.
    pub fn store_new(&self, path: &Path, passphrase: &Passphrase) -> Result<(), KeystoreError> {
        self.store_with(path, passphrase, Cost::DEFAULT)
    }

    fn store_with(&self, path: &Path, passphrase: &Passphrase, cost: Cost) -> Result<(), KeystoreError> {
        let bytes = self.seal(path, passphrase, cost)?;
        Ok(create_private(path, &bytes)?)
    }

    fn seal(&self, path: &Path, passphrase: &Passphrase, cost: Cost) -> Result<Vec<u8>, KeystoreError> {
        let mut random = [0; SALT_BYTES + NONCE_BYTES];
        OsRng.try_fill_bytes(&mut random).map_err(KeyError::Randomness)?;
        let (salt, nonce) = random.split_at(SALT_BYTES);
        let mut bytes = Vec::with_capacity(FILE_BYTES);
        bytes.extend_from_slice(&MAGIC);
        for number in [VERSION, cost.memory_kib, cost.passes, cost.lanes] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&random);
        bytes.extend_from_slice(&self.member.public_key().serialize());
        bytes.extend_from_slice(&self.identity.public_key().serialize());
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        secret[..32].copy_from_slice(&*self.member.to_bytes());
        secret[32..].copy_from_slice(&*self.identity.to_bytes());
        let tag = cipher(path, passphrase.as_bytes(), salt, cost)?
            .encrypt_in_place_detached(XNonce::from_slice(nonce), &bytes, &mut *secret)
            .map_err(|_| KeystoreError::Derivation { path: path.to_owned() })?;
        // What is in it is sealed from here on.
        bytes.extend_from_slice(&*secret);
        bytes.extend_from_slice(&tag);
        let checksum = tagged_hash(CHECKSUM_TAG, &[&bytes]);
        bytes.extend_from_slice(&checksum);
        Ok(bytes)
    }

    /// The keys in a file.
    fn load(path: &Path, passphrase: &Passphrase) -> Result<Self, KeystoreError> {
        let bytes = read(path)?;
        let damaged = || KeystoreError::Damaged { path: path.to_owned() };
        let sealed = Sealed::parse(&bytes).ok_or_else(damaged)?;
        let Cost { memory_kib, passes, lanes } = sealed.cost;
        if !sealed.cost.is_bounded() {
            return Err(KeystoreError::TooCostly { path: path.to_owned(), memory_kib, passes, lanes });
        }
        let opened = passphrase.forms().find_map(|form| sealed.open(path, form).transpose());
        let secret = opened.ok_or_else(|| KeystoreError::WrongPassphrase { path: path.to_owned() })??;
        let (member, identity) = secret.split_at(32);
        let key = |half: &[u8]| <[u8; 32]>::try_from(half).map(Zeroizing::new).map_err(|_| damaged());
        let member = MemberKey::from_bytes(&*key(member)?)?;
        let identity = IdentityKey::from_bytes(&*key(identity)?)?;
        let keys = Self { member, identity };
        if sealed.public() != Some(keys.public()) {
            return Err(damaged());
        }
        Ok(keys)
    }
}

/// The keys of a member, held by this process alone for as long as this is kept.
#[derive(Debug)]
pub struct OpenKeys {
    keys: MemberKeys,
    lock: KeyLock,
}

impl OpenKeys {
    /// Takes the key file for this process and opens it.
    ///
    /// # Errors
    /// Another process uses it, it cannot be read, or the passphrase is wrong.
    pub fn open(path: &Path, passphrase: &Passphrase) -> Result<Self, KeystoreError> {
        let lock = KeyLock::take(path)?;
        Ok(Self { keys: MemberKeys::load(path, passphrase)?, lock })
    }

    /// The keys.
    pub fn keys(&self) -> &MemberKeys {
        &self.keys
    }

    /// The keys, and the lock apart: no other process gets the keys while the lock is kept.
    pub fn into_parts(self) -> (MemberKeys, KeyLock) {
        (self.keys, self.lock)
    }
}

/// Says that no other process uses a key file, for as long as it is kept (nonce rule 8). It does not see copies of the file.
#[derive(Debug)]
pub struct KeyLock {
    _lock: Lock,
}

impl KeyLock {
    /// Locks `<path>.lock` beside the key file.
    fn take(path: &Path) -> Result<Self, KeystoreError> {
        let failed = |source| PrivateFileError::Io { path: path.to_owned(), doing: "locked", source };
        if !path.try_exists().map_err(failed)? {
            return Err(PrivateFileError::Missing { path: path.to_owned() }.into());
        }
        // The file itself, not a link to it: all names of a key share one lock.
        let path = path.canonicalize().map_err(failed)?;
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".lock");
        match Lock::take(&path.with_file_name(name), SECRET_MODE) {
            Ok(lock) => Ok(Self { _lock: lock }),
            Err(LockError::Held { pid }) => Err(KeystoreError::InUse { path, pid }),
            Err(LockError::Io(source)) => Err(failed(source).into()),
        }
    }
}

/// The public keys of a file that the passphrase opens: a backup that passes can be restored.
///
/// # Errors
/// It cannot be read, is damaged, or the passphrase is wrong.
pub fn verify_backup(path: &Path, passphrase: &Passphrase) -> Result<PublicKeys, KeystoreError> {
    Ok(MemberKeys::load(path, passphrase)?.public())
}

/// The public keys that a file says it holds, without the passphrase.
///
/// # Errors
/// It cannot be read or is damaged.
pub fn read_public_keys(path: &Path) -> Result<PublicKeys, KeystoreError> {
    let bytes = read(path)?;
    Sealed::parse(&bytes)
        .and_then(|sealed| sealed.public())
        .ok_or_else(|| KeystoreError::Damaged { path: path.to_owned() })
}

fn cipher(path: &Path, passphrase: &[u8], salt: &[u8], cost: Cost) -> Result<XChaCha20Poly1305, KeystoreError> {
    Ok(XChaCha20Poly1305::new((&*derive(path, passphrase, salt, cost)?).into()))
}

/// The key that a passphrase becomes.
fn derive(path: &Path, passphrase: &[u8], salt: &[u8], cost: Cost) -> Result<Zeroizing<[u8; 32]>, KeystoreError> {
    let mut key = Zeroizing::new([0; 32]);
    let derived = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32)).and_then(|params| {
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into(passphrase, salt, &mut *key)
    });
    derived.map_err(|_| KeystoreError::Derivation { path: path.to_owned() })?;
    Ok(key)
}

/// The bytes of a key file, whole and of this version.
fn read(path: &Path) -> Result<Vec<u8>, KeystoreError> {
    let file = open_private(path, false)?;
    let damaged = || KeystoreError::Damaged { path: path.to_owned() };
    let bytes = read_bounded(&file, 4096);
    let bytes = bytes.map_err(|source| PrivateFileError::Io { path: path.to_owned(), doing: "read", source })?;
    let bytes = bytes.ok_or_else(damaged)?;
    let (body, checksum) = bytes.split_last_chunk::<32>().ok_or_else(damaged)?;
    if *checksum != tagged_hash(CHECKSUM_TAG, &[body]) {
        return Err(damaged());
    }
    let version = body.strip_prefix(&MAGIC).and_then(|rest| rest.first_chunk::<4>()).ok_or_else(damaged)?;
    match u32::from_le_bytes(*version) {
        VERSION if bytes.len() == FILE_BYTES => Ok(bytes),
        VERSION => Err(damaged()),
        found => Err(KeystoreError::OtherFormat { path: path.to_owned(), found }),
    }
}

/// The parts of a key file.
struct Sealed<'a> {
    header: &'a [u8],
    cost: Cost,
    salt: &'a [u8; SALT_BYTES],
    nonce: &'a [u8; NONCE_BYTES],
    member: &'a [u8; 33],
    identity: &'a [u8; 32],
    secret: &'a [u8; SECRET_BYTES],
    tag: &'a [u8; TAG_BYTES],
}

impl<'a> Sealed<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header = bytes.get(..HEADER_BYTES)?;
        let (_, rest) = bytes.split_first_chunk::<8>()?;
        let (memory, rest) = rest.split_first_chunk::<4>()?;
        let (passes, rest) = rest.split_first_chunk::<4>()?;
        let (lanes, rest) = rest.split_first_chunk::<4>()?;
        let (salt, rest) = rest.split_first_chunk()?;
        let (nonce, rest) = rest.split_first_chunk()?;
        let (member, rest) = rest.split_first_chunk()?;
        let (identity, rest) = rest.split_first_chunk()?;
        let (secret, rest) = rest.split_first_chunk()?;
        let (tag, _) = rest.split_first_chunk()?;
        let cost = Cost {
            memory_kib: u32::from_le_bytes(*memory),
            passes: u32::from_le_bytes(*passes),
            lanes: u32::from_le_bytes(*lanes),
        };
        Some(Self { header, cost, salt, nonce, member, identity, secret, tag })
    }

    /// The secrets, if these bytes are the passphrase.
    fn open(&self, path: &Path, passphrase: &[u8]) -> Result<Option<Zeroizing<[u8; SECRET_BYTES]>>, KeystoreError> {
        let mut secret = Zeroizing::new(*self.secret);
        let opened = cipher(path, passphrase, self.salt, self.cost)?.decrypt_in_place_detached(
            XNonce::from_slice(self.nonce),
            self.header,
            &mut *secret,
            Tag::from_slice(self.tag),
        );
        Ok(opened.is_ok().then_some(secret))
    }

    fn public(&self) -> Option<PublicKeys> {
        let member = PublicKey::from_slice(self.member).ok()?;
        let identity = XOnlyPublicKey::from_slice(self.identity).ok()?;
        Some(PublicKeys { member, identity })
    }
}

#[cfg(test)]
mod tests;
