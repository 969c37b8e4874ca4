//! The secret keys of a node, and the files that hold them: one line of hex under a comment, for their owner alone.
//!
//! A key file is made once and never written again. No key is ever printed; its memory is wiped where that is possible.

use std::fmt;
use std::path::{Path, PathBuf};

use bitcoin::hex::{DisplayHex, FromHex};
use bitcoin::secp256k1::{Keypair, SECP256K1, SecretKey, XOnlyPublicKey};
use causeway_consensus::bft::{Address, Key, Signature};
use causeway_federation::files::{PrivateFileError, create_private, open_private, read_bounded};
use libp2p::identity;
use rand::TryRngCore;
use rand::rngs::OsRng;
use zeroize::Zeroizing;

/// Most bytes of a key file: a line of hex and some comment.
const KEY_FILE_BYTES_MAX: u64 = 4096;

const VALIDATOR_COMMENT: &str = "\
# The secret key of a Causeway validator (secp256k1, hex). Whoever has it can vote as this validator.
# It must run in one place only: two nodes with it sign contradictory votes. Keep one copy offline.
";

const NODE_COMMENT: &str = "\
# The secret key of a Causeway node on its network of peers (ed25519, hex). It says who the node is, and guards no money.
";

/// Why a key file cannot be used.
#[expect(missing_docs, reason = "every variant is documented, and its message names its fields")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The file itself.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// It does not hold a key. What it holds is not told.
    #[error("{} holds no key: it must be one line of 64 hex digits, a valid key, beside lines that start with #; restore it from your backup", path.display())]
    Malformed { path: PathBuf },
    /// The operating system gives no random bytes.
    #[error("the operating system gives no random bytes: a key cannot be made")]
    Randomness(#[source] rand::rand_core::OsError),
}

/// The key that a validator signs its votes and proposals with.
pub struct ValidatorKey(Keypair);

impl ValidatorKey {
    /// A new key, from the randomness of the operating system.
    ///
    /// # Errors
    /// [`KeyFileError::Randomness`].
    pub fn generate() -> Result<Self, KeyFileError> {
        loop {
            // One of 2^127 is no key.
            if let Some(key) = Self::from_bytes(&*random_secret()?) {
                return Ok(key);
            }
        }
    }

    /// The key of these bytes, if they are one.
    pub fn from_bytes(bytes: &[u8; 32]) -> Option<Self> {
        let mut secret = SecretKey::from_slice(bytes).ok()?;
        let key = Self(Keypair::from_secret_key(SECP256K1, &secret));
        secret.non_secure_erase();
        Some(key)
    }

    /// The key in a file.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        Self::from_bytes(&*load_secret(path)?).ok_or_else(|| KeyFileError::Malformed { path: path.to_owned() })
    }

    /// Writes the key to a new file.
    ///
    /// # Errors
    /// There is one already, or it cannot be made.
    pub fn store_new(&self, path: &Path) -> Result<(), KeyFileError> {
        let secret = Zeroizing::new(self.0.secret_bytes());
        store_secret(path, VALIDATOR_COMMENT, &secret)
    }

    /// The public key, as a chainspec holds it.
    pub fn public_key(&self) -> XOnlyPublicKey {
        self.0.x_only_public_key().0
    }
}

impl Key for ValidatorKey {
    fn address(&self) -> Address {
        Key::address(&self.0)
    }

    fn sign(&self, digest: &[u8; 32]) -> Option<Signature> {
        Key::sign(&self.0, digest)
    }
}

impl Drop for ValidatorKey {
    fn drop(&mut self) {
        self.0.non_secure_erase();
    }
}

impl fmt::Debug for ValidatorKey {
    /// Shows the public key alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ValidatorKey").field(&Key::address(&self.0)).finish()
    }
}

/// Makes a new key for the network of peers in a new file.
///
/// # Errors
/// There is one already, or it cannot be made.
pub fn new_node_key(path: &Path) -> Result<identity::Keypair, KeyFileError> {
    let secret = random_secret()?;
    store_secret(path, NODE_COMMENT, &secret)?;
    node_key(path, secret)
}

/// The key for the network of peers in a file.
///
/// # Errors
/// [`KeyFileError`].
pub fn load_node_key(path: &Path) -> Result<identity::Keypair, KeyFileError> {
    node_key(path, load_secret(path)?)
}

fn node_key(path: &Path, mut secret: Zeroizing<[u8; 32]>) -> Result<identity::Keypair, KeyFileError> {
    // It wipes the bytes that it is given.
    identity::Keypair::ed25519_from_bytes(&mut *secret).map_err(|_| KeyFileError::Malformed { path: path.to_owned() })
}

/// Random bytes of the operating system.
///
/// # Errors
/// [`KeyFileError::Randomness`].
pub(crate) fn random_secret() -> Result<Zeroizing<[u8; 32]>, KeyFileError> {
    let mut bytes = Zeroizing::new([0; 32]);
    OsRng.try_fill_bytes(&mut *bytes).map_err(KeyFileError::Randomness)?;
    Ok(bytes)
}

fn store_secret(path: &Path, comment: &str, secret: &[u8; 32]) -> Result<(), KeyFileError> {
    let hex = Zeroizing::new(secret.to_lower_hex_string());
    let text = Zeroizing::new([comment, hex.as_str(), "\n"].concat());
    Ok(create_private(path, text.as_bytes())?)
}

fn load_secret(path: &Path) -> Result<Zeroizing<[u8; 32]>, KeyFileError> {
    let file = open_private(path, false)?;
    let malformed = || KeyFileError::Malformed { path: path.to_owned() };
    let bytes = read_bounded(&file, KEY_FILE_BYTES_MAX);
    let bytes = bytes.map_err(|source| PrivateFileError::Io { path: path.to_owned(), doing: "read", source })?;
    let bytes = Zeroizing::new(bytes.ok_or_else(malformed)?);
    let text = std::str::from_utf8(&bytes).map_err(|_| malformed())?;
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (Some(line), None) = (lines.next(), lines.next()) else { return Err(malformed()) };
    <[u8; 32]>::from_hex(line).map(Zeroizing::new).map_err(|_| malformed())
}

#[cfg(test)]
mod tests;
