//! MuSig2 (BIP327) behind a wall: the only module that names the signing library, whose curve types differ from those of
//! `bitcoin` and are converted by bytes here.
//!
//! A secret nonce exists in [`NonceStore`] alone: made from the randomness of the operating system, bound to one session,
//! and gone before anything is checked or signed with it. Whoever signs with one nonce twice gives the secret key away.

use std::fmt;

use bitcoin::secp256k1::{Message, PublicKey, SECP256K1, XOnlyPublicKey, schnorr};
use musig2::secp::{MaybeScalar, Point};
use musig2::{AggNonce, KeyAggContext, PubNonce};

mod key;
mod nonce;

pub use key::{IdentityKey, KeyError, MemberKey};
pub use nonce::{NONCES_MAX, NonceError, NonceStore, SecretNonce, SessionId};

/// Bytes of a public nonce, one member's or the sum: two points.
pub const PUBLIC_NONCE_BYTES: usize = 66;

/// Bytes of a partial signature: a scalar.
pub const PARTIAL_SIGNATURE_BYTES: usize = 32;

/// Why keys do not aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AggregateError {
    /// No key at all.
    #[error("no key to aggregate")]
    Empty,
    /// Not in the order of BIP327 KeySort, or one key stands twice.
    #[error("the keys are not sorted and distinct")]
    NotSorted,
    /// The sum or its tweak is no key: no honest set of keys gives that.
    #[error("the keys add up to no key")]
    NoKey,
}

/// Why what a signer contributed is refused. It is the signer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContributionError {
    /// The bytes are no two points.
    #[error("a public nonce is no two points")]
    Nonce,
    /// The bytes are no scalar, or the scalar does not fit the signer's nonce and key.
    #[error("a partial signature is wrong")]
    Partial,
    /// The key is not in the aggregate.
    #[error("the signer is not part of the aggregate key")]
    UnknownSigner,
}

/// The partial signatures, each checked, do not add up to a signature of the aggregate key: a bug, and nothing leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sum of checked partial signatures is no signature: this is a bug, please report it")]
pub struct SumError;

/// An aggregate key: that of a leaf, or the output key that a merkle root tweaks.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyAggregate {
    context: KeyAggContext,
    keys: Vec<PublicKey>,
    x_only: XOnlyPublicKey,
}

impl KeyAggregate {
    /// The key `musig(keys)`, as the subset leaves hold it.
    ///
    /// # Errors
    /// [`AggregateError`]: the keys must be sorted as BIP327 KeySort does and distinct.
    pub fn new(keys: &[PublicKey]) -> Result<Self, AggregateError> {
        if !keys.is_sorted_by(|one, two| one.serialize() < two.serialize()) {
            return Err(AggregateError::NotSorted);
        }
        Self::in_order(keys)
    }

    /// The output key of an output whose internal key this is, under a merkle root (BIP341).
    ///
    /// # Errors
    /// [`AggregateError::NoKey`].
    pub fn tweaked(&self, merkle_root: [u8; 32]) -> Result<Self, AggregateError> {
        let context = self.context.clone().with_taproot_tweak(&merkle_root).map_err(|_| AggregateError::NoKey)?;
        Self::of(context, self.keys.clone())
    }

    /// BIP327's KeyAgg, which takes keys in any order and more than once.
    fn in_order(keys: &[PublicKey]) -> Result<Self, AggregateError> {
        if keys.is_empty() {
            return Err(AggregateError::Empty);
        }
        let points: Result<Vec<_>, _> = keys.iter().map(|key| Point::from_slice(&key.serialize())).collect();
        let points = points.map_err(|_| AggregateError::NoKey)?;
        let context = KeyAggContext::new(points).map_err(|_| AggregateError::NoKey)?;
        Self::of(context, keys.to_vec())
    }

    fn of(context: KeyAggContext, keys: Vec<PublicKey>) -> Result<Self, AggregateError> {
        let point: Point = context.aggregated_pubkey();
        let x_only = XOnlyPublicKey::from_slice(&point.serialize_xonly()).map_err(|_| AggregateError::NoKey)?;
        Ok(Self { context, keys, x_only })
    }

    /// The key that the signature is checked against.
    pub fn x_only(&self) -> XOnlyPublicKey {
        self.x_only
    }

    /// The keys that sign, in their order.
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// Checks one signer's partial signature (BIP327 PartialSigVerify). `nonces` must be the sum of all signers' nonces.
    ///
    /// # Errors
    /// It is wrong, or the signer is not one of the keys.
    pub fn check_partial(
        &self,
        signer: &PublicKey,
        nonce: &PublicNonce,
        nonces: &AggregateNonce,
        message: &[u8; 32],
        partial: &PartialSignature,
    ) -> Result<(), ContributionError> {
        let point = Point::from_slice(&signer.serialize()).map_err(|_| ContributionError::UnknownSigner)?;
        if self.context.pubkey_index(point).is_none() {
            return Err(ContributionError::UnknownSigner);
        }
        musig2::verify_partial(&self.context, partial.0, &nonces.0, point, &nonce.0, message)
            .map_err(|_| ContributionError::Partial)
    }

    /// The signature that the partial signatures of all signers add up to, checked against the aggregate key by
    /// libsecp256k1.
    ///
    /// # Errors
    /// [`SumError`].
    pub fn sum(
        &self,
        nonces: &AggregateNonce,
        message: &[u8; 32],
        partials: &[PartialSignature],
    ) -> Result<schnorr::Signature, SumError> {
        let partials = partials.iter().map(|partial| partial.0);
        let signature: musig2::CompactSignature =
            musig2::aggregate_partial_signatures(&self.context, &nonces.0, partials, message).map_err(|_| SumError)?;
        let signature = schnorr::Signature::from_slice(&signature.serialize()).map_err(|_| SumError)?;
        self.verify(message, &signature).then_some(signature).ok_or(SumError)
    }

    /// Whether this is a signature of the aggregate key (BIP340).
    pub fn verify(&self, message: &[u8; 32], signature: &schnorr::Signature) -> bool {
        verify(&self.x_only, message, signature)
    }
}

impl fmt::Debug for KeyAggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyAggregate").field("key", &self.x_only).field("keys", &self.keys.len()).finish()
    }
}

/// Whether this is a signature of a key (BIP340).
pub fn verify(key: &XOnlyPublicKey, message: &[u8; 32], signature: &schnorr::Signature) -> bool {
    SECP256K1.verify_schnorr(signature, &Message::from_digest(*message), key).is_ok()
}

/// What a signer shows of its nonce: two points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicNonce(PubNonce);

impl PublicNonce {
    /// The nonce of these bytes: two compressed points.
    ///
    /// # Errors
    /// [`ContributionError::Nonce`].
    pub fn from_bytes(bytes: &[u8; PUBLIC_NONCE_BYTES]) -> Result<Self, ContributionError> {
        PubNonce::from_bytes(bytes).map(Self).map_err(|_| ContributionError::Nonce)
    }

    /// The bytes.
    pub fn to_bytes(&self) -> [u8; PUBLIC_NONCE_BYTES] {
        self.0.serialize()
    }
}

/// The sum of all signers' public nonces. Either point may be infinity, 33 zero bytes: whoever caused that shows with its
/// partial signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AggregateNonce(AggNonce);

impl AggregateNonce {
    /// The sum.
    pub fn sum<'a>(nonces: impl IntoIterator<Item = &'a PublicNonce>) -> Self {
        Self(AggNonce::sum(nonces.into_iter().map(|nonce| &nonce.0)))
    }

    /// The sum of these bytes.
    ///
    /// # Errors
    /// [`ContributionError::Nonce`].
    pub fn from_bytes(bytes: &[u8; PUBLIC_NONCE_BYTES]) -> Result<Self, ContributionError> {
        AggNonce::from_bytes(bytes).map(Self).map_err(|_| ContributionError::Nonce)
    }

    /// The bytes.
    pub fn to_bytes(&self) -> [u8; PUBLIC_NONCE_BYTES] {
        self.0.serialize()
    }
}

/// One signer's part of a signature. It is no proof that the signer signed: only the sum is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialSignature(MaybeScalar);

impl PartialSignature {
    /// The partial signature of these bytes: a scalar, big endian.
    ///
    /// # Errors
    /// [`ContributionError::Partial`]: the scalar is not below the order of the curve.
    pub fn from_bytes(bytes: &[u8; PARTIAL_SIGNATURE_BYTES]) -> Result<Self, ContributionError> {
        MaybeScalar::try_from(bytes).map(Self).map_err(|_| ContributionError::Partial)
    }

    /// The bytes.
    pub fn to_bytes(&self) -> [u8; PARTIAL_SIGNATURE_BYTES] {
        self.0.serialize()
    }
}

#[cfg(test)]
mod tests;
