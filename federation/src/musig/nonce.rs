//! Secret nonces: made once for a session, held in memory alone, gone when they are used or burned.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use bitcoin::hex::DisplayHex;
use causeway_chainspec::tagged_hash;
use musig2::secp::{Point, Scalar};
use musig2::{SecNonce, SecNonceBuilder};
use zeroize::Zeroizing;

use super::key::{KeyError, MemberKey, random_bytes};
use super::{AggregateNonce, KeyAggregate, PartialSignature, PublicNonce};

/// Most nonces that a store holds at once: 16 inputs of 256 attempts.
pub const NONCES_MAX: usize = 4_096;

/// Sessions that a store remembers after their nonce is gone. The oldest are forgotten first: what outlives the process is
/// the signing log.
const SPENT_MAX: usize = 65_536;

/// Two secret scalars, and the signer's public key.
const SECRET_BYTES: usize = musig2::SEC_NONCE_SIZE;

/// One signature of one attempt: what it signs, the key it is for, who signs and which attempt it is. A nonce belongs to
/// exactly one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId([u8; 32]);

impl SessionId {
    /// The id of a session: `tagged_hash("causeway/signing-session/v1", sighash (32) || output or leaf key (32) ||
    /// signers (u16) || their keys in order (33 each) || attempt (u32))`, numbers little endian.
    pub fn new(sighash: &[u8; 32], aggregate: &KeyAggregate, attempt: u32) -> Self {
        let count = u16::try_from(aggregate.keys().len()).unwrap_or(u16::MAX);
        let keys: Vec<u8> = aggregate.keys().iter().flat_map(|key| key.serialize()).collect();
        let key = aggregate.x_only().serialize();
        let parts: [&[u8]; 5] = [sighash, &key, &count.to_le_bytes(), &keys, &attempt.to_le_bytes()];
        Self(tagged_hash("causeway/signing-session/v1", &parts))
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({})", self.0.as_hex())
    }
}

/// Why a nonce is not made or does not sign. Whatever it is, no nonce is left that was tried.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NonceError {
    /// The session has a nonce or had one. Asking twice is a bug or an attack: see nonce rule 10.
    #[error("session {0:?} had a nonce already: stop signing with this key and find out who asked twice")]
    Duplicate(SessionId),
    /// Too many nonces wait.
    #[error("{NONCES_MAX} nonces wait to be used: sessions are opened and not closed, please report it")]
    Full,
    /// There is no nonce: the process was restarted, or the nonce is used or burned. A new attempt is needed.
    #[error("session {0:?} has no nonce: only a new attempt can sign")]
    Missing(SessionId),
    /// What is to be signed is not what the nonce was made for. The nonce is burned.
    #[error("session {0:?} was opened for something else: its nonce is burned")]
    OtherSession(SessionId),
    /// The key is not among the signers. The nonce is burned.
    #[error("the member is not among the signers of session {0:?}: its nonce is burned")]
    NotASigner(SessionId),
    /// The library refuses: its own check of the result failed. The nonce is burned.
    #[error("session {0:?} does not sign: its nonce is burned")]
    Refused(SessionId),
    /// No randomness.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// A secret nonce. It cannot be copied, written or shown, its memory is wiped, and signing consumes it.
///
/// The signing library keeps copies of the scalars on the stack while it computes; those are out of reach.
pub struct SecretNonce {
    secret: Zeroizing<[u8; SECRET_BYTES]>,
    public: PublicNonce,
}

impl SecretNonce {
    /// A nonce of fresh randomness, into which key, aggregate key, message and session are mixed (BIP327 NonceGen).
    ///
    /// # Errors
    /// [`NonceError::Key`].
    pub fn generate(
        key: &MemberKey,
        aggregate: &KeyAggregate,
        message: &[u8; 32],
        session: SessionId,
    ) -> Result<Self, NonceError> {
        let seed = random_bytes()?;
        let aggregate_key = Point::lift_x(aggregate.x_only().serialize()).map_err(|_| KeyError::NoKey)?;
        Self::from_seed(&seed, key, aggregate_key, message, &session.0)
    }

    fn from_seed(
        seed: &[u8; 32],
        key: &MemberKey,
        aggregate_key: Point,
        message: &[u8; 32],
        extra: &[u8; 32],
    ) -> Result<Self, NonceError> {
        let secret = key.to_bytes();
        let scalar = Scalar::from_slice(&*secret).map_err(|_| KeyError::NoKey)?;
        let nonce = SecNonceBuilder::from_seckey(seed, scalar)
            .with_aggregated_pubkey(aggregate_key)
            .with_message(message)
            .with_extra_input(extra)
            .build();
        Ok(Self { secret: Zeroizing::new(nonce.serialize()), public: PublicNonce(nonce.public_nonce()) })
    }

    /// What the other signers see.
    pub fn public(&self) -> &PublicNonce {
        &self.public
    }

    /// The partial signature. The nonce is gone whether or not this succeeds.
    pub(super) fn sign(
        self,
        key: &MemberKey,
        aggregate: &KeyAggregate,
        nonces: &AggregateNonce,
        message: &[u8; 32],
    ) -> Option<PartialSignature> {
        let secret = key.to_bytes();
        let scalar = Scalar::from_slice(&*secret).ok()?;
        let nonce = SecNonce::from_bytes(&*self.secret).ok()?;
        musig2::sign_partial(&aggregate.context, scalar, nonce, &nonces.0, message).ok().map(PartialSignature)
    }

    /// A nonce of known bytes, for published vectors.
    #[cfg(test)]
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let nonce = SecNonce::from_bytes(bytes).ok()?;
        Some(Self { secret: Zeroizing::new(nonce.serialize()), public: PublicNonce(nonce.public_nonce()) })
    }
}

impl fmt::Debug for SecretNonce {
    /// Shows nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretNonce")
    }
}

/// A nonce and what it may sign.
struct Held {
    nonce: SecretNonce,
    message: [u8; 32],
    aggregate: KeyAggregate,
}

/// The secret nonces of open sessions, at most [`NONCES_MAX`]. In memory alone: a restart loses them, and with them every
/// open session, on purpose.
#[derive(Default)]
pub struct NonceStore {
    held: BTreeMap<SessionId, Held>,
    spent: BTreeSet<SessionId>,
    spent_order: VecDeque<SessionId>,
}

impl NonceStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the one nonce of a session for this message under this key, and returns its public part.
    ///
    /// # Errors
    /// The session has or had a nonce, the key is not among the signers, the store is full, or there is no randomness.
    /// No nonce is made.
    pub fn open(
        &mut self,
        session: SessionId,
        key: &MemberKey,
        aggregate: &KeyAggregate,
        message: &[u8; 32],
    ) -> Result<PublicNonce, NonceError> {
        if self.held.contains_key(&session) || self.spent.contains(&session) {
            return Err(NonceError::Duplicate(session));
        }
        if self.held.len() >= NONCES_MAX {
            return Err(NonceError::Full);
        }
        if !aggregate.keys().contains(&key.public_key()) {
            return Err(NonceError::NotASigner(session));
        }
        let nonce = SecretNonce::generate(key, aggregate, message, session)?;
        let public = nonce.public().clone();
        self.held.insert(session, Held { nonce, message: *message, aggregate: aggregate.clone() });
        Ok(public)
    }

    /// Signs with the nonce of a session, which leaves the store before anything is looked at: whatever goes wrong, it is
    /// burned. The library checks the result against the signer's own public nonce.
    ///
    /// # Errors
    /// [`NonceError`].
    pub fn sign(
        &mut self,
        session: SessionId,
        key: &MemberKey,
        aggregate: &KeyAggregate,
        nonces: &AggregateNonce,
        message: &[u8; 32],
    ) -> Result<PartialSignature, NonceError> {
        let held = self.take(session).ok_or(NonceError::Missing(session))?;
        if held.message != *message || held.aggregate != *aggregate {
            return Err(NonceError::OtherSession(session));
        }
        if !aggregate.keys().contains(&key.public_key()) {
            return Err(NonceError::NotASigner(session));
        }
        held.nonce.sign(key, aggregate, nonces, message).ok_or(NonceError::Refused(session))
    }

    /// Forgets the nonce of a session that is given up. The session never gets another one.
    pub fn burn(&mut self, session: SessionId) {
        drop(self.take(session));
    }

    /// Nonces that wait.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether no nonce waits.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    fn take(&mut self, session: SessionId) -> Option<Held> {
        let held = self.held.remove(&session)?;
        if self.spent.insert(session) {
            self.spent_order.push_back(session);
        }
        if self.spent_order.len() > SPENT_MAX
            && let Some(oldest) = self.spent_order.pop_front()
        {
            self.spent.remove(&oldest);
        }
        Some(held)
    }
}

impl fmt::Debug for NonceStore {
    /// Shows how many there are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NonceStore").field("held", &self.held.len()).finish()
    }
}

#[cfg(test)]
mod tests;
