//! The two secret keys of a member: one that signs coins, one that says who speaks.

use std::fmt;

use bitcoin::secp256k1::{Keypair, Message, PublicKey, SECP256K1, SecretKey, XOnlyPublicKey, schnorr};
use rand::TryRngCore;
use rand::rngs::OsRng;
use zeroize::Zeroizing;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The operating system gives no random bytes.
    #[error("the operating system gives no random bytes: nothing can be signed")]
    Randomness(#[source] rand::rand_core::OsError),
    /// The bytes are zero or not below the order of the curve.
    #[error("these 32 bytes are no secret key: restore the key from a backup")]
    NoKey,
}

/// Fills fresh bytes from the operating system.
pub(super) fn random_bytes() -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let mut bytes = Zeroizing::new([0; 32]);
    OsRng.try_fill_bytes(&mut *bytes).map_err(KeyError::Randomness)?;
    Ok(bytes)
}

/// A secret key whose memory is wiped when it is dropped.
struct Secret(Keypair);

impl Secret {
    fn generate() -> Result<Self, KeyError> {
        loop {
            // One of 2^127 is no key.
            if let Ok(key) = Self::from_bytes(&*random_bytes()?) {
                return Ok(key);
            }
        }
    }

    fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        let mut secret = SecretKey::from_slice(bytes).map_err(|_| KeyError::NoKey)?;
        let key = Self(Keypair::from_secret_key(SECP256K1, &secret));
        secret.non_secure_erase();
        Ok(key)
    }

    fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.secret_bytes())
    }

    /// A BIP340 signature. Its nonce is derived from key and message, so that the same message gets the same signature.
    fn sign(&self, message: &[u8; 32]) -> schnorr::Signature {
        SECP256K1.sign_schnorr_no_aux_rand(&Message::from_digest(*message), &self.0)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.non_secure_erase();
    }
}

/// The key of a member in the federation's scripts. It signs what spends coins and nothing else.
pub struct MemberKey(Secret);

impl MemberKey {
    /// A new key, from the randomness of the operating system.
    ///
    /// # Errors
    /// [`KeyError::Randomness`].
    pub fn generate() -> Result<Self, KeyError> {
        Secret::generate().map(Self)
    }

    /// The key of these bytes.
    ///
    /// # Errors
    /// [`KeyError::NoKey`].
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        Secret::from_bytes(bytes).map(Self)
    }

    /// The secret itself, for the key store and for signing.
    pub(crate) fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        self.0.to_bytes()
    }

    /// The public key, as an epoch lists it.
    pub fn public_key(&self) -> PublicKey {
        self.0.0.public_key()
    }

    /// The public key as `multi_a` holds it.
    pub fn x_only(&self) -> XOnlyPublicKey {
        self.0.0.x_only_public_key().0
    }

    /// A plain signature (BIP340), for `multi_a`.
    pub fn sign(&self, message: &[u8; 32]) -> schnorr::Signature {
        self.0.sign(message)
    }
}

impl fmt::Debug for MemberKey {
    /// Shows the public key alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemberKey").field(&self.public_key()).finish()
    }
}

/// The key that a member signs its messages to other members with. It never signs anything that Bitcoin reads.
pub struct IdentityKey(Secret);

impl IdentityKey {
    /// A new key, from the randomness of the operating system.
    ///
    /// # Errors
    /// [`KeyError::Randomness`].
    pub fn generate() -> Result<Self, KeyError> {
        Secret::generate().map(Self)
    }

    /// The key of these bytes.
    ///
    /// # Errors
    /// [`KeyError::NoKey`].
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        Secret::from_bytes(bytes).map(Self)
    }

    /// The secret itself, for the key store.
    pub(crate) fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        self.0.to_bytes()
    }

    /// The public key, as the other members know it.
    pub fn public_key(&self) -> XOnlyPublicKey {
        self.0.0.x_only_public_key().0
    }

    /// The signature (BIP340) of a tagged hash.
    pub(crate) fn sign(&self, message: &[u8; 32]) -> schnorr::Signature {
        self.0.sign(message)
    }
}

impl fmt::Debug for IdentityKey {
    /// Shows the public key alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("IdentityKey").field(&self.public_key()).finish()
    }
}
