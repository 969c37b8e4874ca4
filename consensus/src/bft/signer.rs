//! The seam to the key: the engine asks, a signer answers or refuses, and its answer stays sealed until it is written down.

use std::fmt;

use bitcoin::XOnlyPublicKey;
use bitcoin::secp256k1::{Keypair, Message, SECP256K1, schnorr};
use causeway_chainspec::{ChainId, Height, SatPerKvb};

use super::context::{Address, Signature};
use super::high_water::{HighWaterMark, MarkError, Permit};
use super::message::{Proposal, Vote};
use super::tip_statement::{SignedTipStatement, TipStatement};
use crate::peg::evidence::FeeRateQuote;

/// Where in the agreement a message stands. Honest signers only move up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The height, before all else.
    pub height: Height,
    /// The round of the height.
    pub round: u32,
    /// The step of the round.
    pub step: SignStep,
}

/// The three messages that a validator may sign in a round, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SignStep {
    /// The proposal.
    Proposal,
    /// The prevote.
    Prevote,
    /// The precommit.
    Precommit,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = match self.step {
            SignStep::Proposal => "proposal",
            SignStep::Prevote => "prevote",
            SignStep::Precommit => "precommit",
        };
        write!(f, "{step} of height {}, round {}", self.height, self.round)
    }
}

/// A message that the engine wants signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToSign {
    chain: ChainId,
    position: Position,
    digest: [u8; 32],
}

impl ToSign {
    /// A vote on this chain; `None` if it has no round.
    pub fn vote(chain: ChainId, vote: &Vote) -> Option<Self> {
        Some(Self { chain, position: vote.position()?, digest: vote.digest(chain) })
    }

    /// A proposal on this chain; `None` if it has no round.
    pub fn proposal(chain: ChainId, proposal: &Proposal) -> Option<Self> {
        Some(Self { chain, position: proposal.position()?, digest: proposal.digest(chain) })
    }

    /// The chain that the digest commits to.
    pub fn chain(&self) -> ChainId {
        self.chain
    }

    /// Where the message stands.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The 32 bytes to sign (BIP340).
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

/// Why a signer does not sign. The validator then keeps silent for that message and goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Something above it is signed already.
    #[error("{position} is not above the last one signed, the {mark}")]
    Below {
        /// The message.
        position: Position,
        /// The last one signed.
        mark: Position,
    },
    /// Another message is signed in its place.
    #[error("another {position} is signed already")]
    Conflict {
        /// The message.
        position: Position,
    },
    /// The message is of another chain.
    #[error("the message is of chain {got}, the key signs for {wanted}")]
    OtherChain {
        /// Chain of the message.
        got: ChainId,
        /// Chain of the key.
        wanted: ChainId,
    },
    /// Another machine signs with the same key, or this one lost its log: the engine does not even ask.
    #[error("the key has signed something in this height that is not in the log")]
    SignedElsewhere,
    /// The key cannot be reached.
    #[error("the key cannot be reached")]
    Unavailable,
}

/// A signature that must be written down before anybody sees it. The engine takes it into a [`Step`](super::Step), which
/// opens on [`Step::persist`](super::Step::persist).
#[derive(Debug)]
#[must_use]
pub struct Sealed {
    signature: Signature,
    mark: Option<HighWaterMark>,
}

impl Sealed {
    /// Seals a signature behind the mark that must be on disk first; `None` if the signer keeps its own mark, and has
    /// written it.
    pub fn new(signature: Signature, mark: Option<HighWaterMark>) -> Self {
        Self { signature, mark }
    }

    /// For the engine alone: it passes both on together.
    pub(super) fn open(self) -> (Signature, Option<HighWaterMark>) {
        (self.signature, self.mark)
    }
}

/// Who signs for a validator, and may refuse.
pub trait Signer: Send {
    /// The validator that it signs for.
    fn address(&self) -> Address;

    /// Where the last message stands that the key has signed, as far as the signer knows; `None` if that is nothing, or it does
    /// not say.
    fn position(&self) -> Option<Position> {
        None
    }

    /// Signs a message, or refuses. The same message again gives the same answer.
    ///
    /// # Errors
    ///
    /// The reason for not signing.
    fn sign(&mut self, message: &ToSign) -> Result<Sealed, Refusal>;

    /// Signs a feerate for the block of this height (PEG section 2, `FeeRate`); `None` if this signer only votes, or its key
    /// cannot be reached. It is no vote: any number of them may be signed.
    fn sign_fee_rate(&self, _chain: ChainId, _height: Height, _rate: SatPerKvb) -> Option<FeeRateQuote> {
        None
    }

    /// Signs a statement about a tip; `None` if this signer only votes, or its key cannot be reached. It is no vote: any number
    /// of them may be signed.
    fn sign_tip_statement(&self, _chain: ChainId, _statement: TipStatement) -> Option<SignedTipStatement> {
        None
    }
}

/// A key that signs whatever it is given. [`Guarded`] stands in front of it.
pub trait Key: Send {
    /// The x-only public key.
    fn address(&self) -> Address;

    /// Signs the digest (BIP340); `None` if the key cannot be reached. No randomness: equal digests, equal signatures.
    fn sign(&self, digest: &[u8; 32]) -> Option<Signature>;
}

impl Key for Keypair {
    fn address(&self) -> Address {
        Address::from(&self.x_only_public_key().0)
    }

    fn sign(&self, digest: &[u8; 32]) -> Option<Signature> {
        Some(Signature(*SECP256K1.sign_schnorr_no_aux_rand(&Message::from_digest(*digest), self).as_ref()))
    }
}

/// A key behind its high-water mark: the only way from a [`Key`] to a [`Signer`].
pub struct Guarded<K> {
    key: K,
    mark: HighWaterMark,
}

impl<K: Key> Guarded<K> {
    /// The key behind its mark, as it was last written.
    ///
    /// # Errors
    ///
    /// The mark is another key's.
    pub fn new(key: K, mark: HighWaterMark) -> Result<Self, MarkError> {
        if mark.validator() != key.address() {
            return Err(MarkError::OtherKey { mark: mark.validator(), key: key.address() });
        }
        Ok(Self { key, mark })
    }
}

impl<K: Key> Signer for Guarded<K> {
    fn address(&self) -> Address {
        self.mark.validator()
    }

    fn position(&self) -> Option<Position> {
        self.mark.position()
    }

    fn sign(&mut self, message: &ToSign) -> Result<Sealed, Refusal> {
        let signature = match self.mark.permit(message)? {
            Permit::Again(signature) => signature,
            Permit::New => {
                let signature = self.key.sign(message.digest()).ok_or(Refusal::Unavailable)?;
                // The mark in memory is ahead of the disk from here on, never behind it.
                self.mark = self.mark.raised(message, signature);
                signature
            }
        };
        // With the same message again too: the disk may not have it yet.
        Ok(Sealed::new(signature, Some(self.mark.clone())))
    }

    fn sign_fee_rate(&self, chain: ChainId, height: Height, rate: SatPerKvb) -> Option<FeeRateQuote> {
        let signature = self.key.sign(&FeeRateQuote::digest(chain, height, rate))?;
        let validator = XOnlyPublicKey::from_slice(&self.mark.validator().0).ok()?;
        Some(FeeRateQuote { validator, rate, signature: schnorr::Signature::from_slice(&signature.0).ok()? })
    }
    fn sign_tip_statement(&self, chain: ChainId, statement: TipStatement) -> Option<SignedTipStatement> {
        let signature = self.key.sign(&statement.digest(chain))?;
        Some(SignedTipStatement { statement, validator: self.mark.validator(), signature })
    }
}
