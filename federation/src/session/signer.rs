//! The secret side of a session: it holds the member's key and its nonces, and does what a session's actions ask.

use std::fmt;

use bitcoin::secp256k1::schnorr;

use super::task::Attempt;
use crate::musig::{AggregateNonce, MemberKey, NonceError, NonceStore, PartialSignature, PublicNonce};

/// A member's key with the nonces of its open sessions.
pub struct Signer {
    key: MemberKey,
    nonces: NonceStore,
}

impl Signer {
    /// A signer without open sessions.
    pub fn new(key: MemberKey) -> Self {
        Self { key, nonces: NonceStore::new() }
    }

    /// The key's public side.
    pub fn key(&self) -> &MemberKey {
        &self.key
    }

    /// Answers [`SessionAction::MakeNonces`](super::SessionAction::MakeNonces): one public nonce for each input.
    ///
    /// # Errors
    /// A nonce cannot be made. None of the attempt is left.
    pub fn make_nonces(&mut self, attempt: &Attempt) -> Result<Vec<PublicNonce>, NonceError> {
        let mut made = Vec::with_capacity(attempt.inputs().len());
        for (at, input) in attempt.inputs().iter().enumerate() {
            match self.nonces.open(input.session, &self.key, &input.aggregate, &input.message) {
                Ok(nonce) => made.push(nonce),
                Err(error) => {
                    // Those that were there before are not ours to keep either.
                    attempt.inputs()[..=at].iter().for_each(|input| self.nonces.burn(input.session));
                    return Err(error);
                }
            }
        }
        Ok(made)
    }

    /// Answers [`SessionAction::MakePartials`](super::SessionAction::MakePartials): one partial signature for each input.
    /// All nonces of the attempt are gone afterwards, whatever happens.
    ///
    /// # Errors
    /// An input cannot be signed. Nothing of the attempt may leave.
    pub fn make_partials(
        &mut self,
        attempt: &Attempt,
        nonces: &[AggregateNonce],
    ) -> Result<Vec<PartialSignature>, NonceError> {
        let signed: Result<Vec<_>, _> = attempt
            .inputs()
            .iter()
            .zip(nonces)
            .map(|(input, sum)| self.nonces.sign(input.session, &self.key, &input.aggregate, sum, &input.message))
            .collect();
        self.burn(attempt);
        signed
    }

    /// Answers [`SessionAction::MakeSignatures`](super::SessionAction::MakeSignatures): one plain signature for each
    /// message.
    pub fn make_signatures(&self, messages: &[[u8; 32]]) -> Vec<schnorr::Signature> {
        messages.iter().map(|message| self.key.sign(message)).collect()
    }

    /// Does [`SessionAction::Burn`](super::SessionAction::Burn).
    pub fn burn(&mut self, attempt: &Attempt) {
        attempt.inputs().iter().for_each(|input| self.nonces.burn(input.session));
    }

    /// Nonces that wait, of all sessions.
    pub fn open_nonces(&self) -> usize {
        self.nonces.len()
    }
}

impl fmt::Debug for Signer {
    /// Shows the public key and how many nonces wait.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("key", &self.key).field("nonces", &self.nonces).finish()
    }
}
