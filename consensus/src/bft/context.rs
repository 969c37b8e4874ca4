//! Malachite's `Context` over our types: what a height, an address, a value, a vote and a signature are.

use std::fmt;

use arc_malachitebft_core_types as types;
use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use bitcoin::hex::DisplayHex;
use bitcoin::secp256k1::{Keypair, Message, SECP256K1, XOnlyPublicKey, schnorr};
use causeway_chainspec::{ChainId, Height};
use types::{NilOrVal, Round, SignedMessage, VoteType};

use super::message::{Proposal, Vote};
use super::proposer;
use super::validator_set::{Member, ValidatorSet};

/// What the engine's types mean on one chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    chain: ChainId,
}

impl Context {
    /// The context of the chain with this identity.
    pub fn new(chain: ChainId) -> Self {
        Self { chain }
    }

    /// The identity of the chain: every signature commits to it.
    pub fn chain(&self) -> ChainId {
        self.chain
    }
}

impl types::Context for Context {
    type Address = Address;
    type Height = EngineHeight;
    type ProposalPart = NoPart;
    type Proposal = Proposal;
    type Validator = Member;
    type ValidatorSet = ValidatorSet;
    type Timeouts = types::LinearTimeouts;
    type Value = BlockId;
    type Vote = Vote;
    type Extension = ();
    type SigningScheme = Bip340;

    fn select_proposer<'a>(&self, set: &'a ValidatorSet, height: EngineHeight, round: Round) -> &'a Member {
        // The engine asks for no proposer before the first round.
        set.proposer(self.chain, height.0, round.as_u32().unwrap_or(0))
    }

    fn new_proposal(
        &self,
        height: EngineHeight,
        round: Round,
        value: BlockId,
        pol_round: Round,
        address: Address,
    ) -> Proposal {
        Proposal { height, round, value, pol_round, proposer: address }
    }

    fn new_prevote(&self, height: EngineHeight, round: Round, value: NilOrVal<BlockId>, address: Address) -> Vote {
        Vote { kind: VoteType::Prevote, height, round, value, validator: address }
    }

    fn new_precommit(&self, height: EngineHeight, round: Round, value: NilOrVal<BlockId>, address: Address) -> Vote {
        Vote { kind: VoteType::Precommit, height, round, value, validator: address }
    }
}

impl ValidatorSet {
    /// The validator that proposes at this height and round. The rule is in the module `proposer`.
    pub fn proposer(&self, chain: ChainId, height: Height, round: u32) -> &Member {
        proposer::select(self, chain, height, round)
    }
}

/// A height under the engine's trait. It stops at the last height instead of wrapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EngineHeight(pub Height);

impl fmt::Display for EngineHeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl types::Height for EngineHeight {
    const ZERO: Self = Self(Height(0));
    const INITIAL: Self = Self(Height(1));

    fn increment_by(&self, n: u64) -> Self {
        let n = u32::try_from(n).unwrap_or(u32::MAX);
        Self(self.0.checked_add(n).unwrap_or(Height(u32::MAX)))
    }

    fn decrement_by(&self, n: u64) -> Option<Self> {
        self.0.to_u32().checked_sub(u32::try_from(n).ok()?).map(|height| Self(Height(height)))
    }

    fn as_u64(&self) -> u64 {
        self.0.to_u32().into()
    }
}

/// The 32 bytes of a validator's x-only key, which name it. Not every value is a key: only those in a set matter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub [u8; 32]);

impl From<&XOnlyPublicKey> for Address {
    fn from(key: &XOnlyPublicKey) -> Self {
        Self(key.serialize())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.as_hex())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl types::Address for Address {}

/// A block hash as the value that is agreed on. Bodies travel elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub BlockHash);

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl types::Value for BlockId {
    type Id = BlockId;

    fn id(&self) -> BlockId {
        *self
    }
}

impl BlockId {
    /// The bytes in internal order, as hashed and signed.
    pub(super) fn to_bytes(self) -> [u8; 32] {
        self.0.to_byte_array()
    }
}

/// The part of a proposed value that the engine's own transport would carry. Bodies do not take that way, so there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPart {}

impl types::ProposalPart<Context> for NoPart {
    fn is_first(&self) -> bool {
        match *self {}
    }

    fn is_last(&self) -> bool {
        match *self {}
    }
}

/// The 64 bytes of a BIP340 signature, right or wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signature(pub [u8; 64]);

impl Signature {
    /// Stands where a signer refused to sign: it verifies under no key, because no point of the curve has x = 0.
    pub(super) const WITHHELD: Self = Self([0; 64]);

    /// Whether the key signed this digest (BIP340). False for bytes that are no signature.
    pub fn verifies(&self, digest: &[u8; 32], key: &XOnlyPublicKey) -> bool {
        schnorr::Signature::from_slice(&self.0)
            .is_ok_and(|signature| SECP256K1.verify_schnorr(&signature, &Message::from_digest(*digest), key).is_ok())
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.as_hex())
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// BIP340 under the engine's trait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bip340;

/// The bytes are no signature or no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a BIP340 key or signature")]
pub struct NotBip340;

impl types::SigningScheme for Bip340 {
    type DecodingError = NotBip340;
    type Signature = Signature;
    type PublicKey = XOnlyPublicKey;
    type PrivateKey = Keypair;

    fn decode_signature(bytes: &[u8]) -> Result<Signature, NotBip340> {
        bytes.try_into().map(Signature).map_err(|_| NotBip340)
    }

    fn encode_signature(signature: &Signature) -> Vec<u8> {
        signature.0.to_vec()
    }

    fn decode_public_key(bytes: &[u8]) -> Result<XOnlyPublicKey, NotBip340> {
        XOnlyPublicKey::from_slice(bytes).map_err(|_| NotBip340)
    }

    fn encode_public_key(key: &XOnlyPublicKey) -> Vec<u8> {
        key.serialize().to_vec()
    }
}

impl types::Proposal<Context> for Proposal {
    fn height(&self) -> EngineHeight {
        self.height
    }

    fn round(&self) -> Round {
        self.round
    }

    fn value(&self) -> &BlockId {
        &self.value
    }

    fn take_value(self) -> BlockId {
        self.value
    }

    fn pol_round(&self) -> Round {
        self.pol_round
    }

    fn validator_address(&self) -> &Address {
        &self.proposer
    }
}

impl types::Vote<Context> for Vote {
    fn height(&self) -> EngineHeight {
        self.height
    }

    fn round(&self) -> Round {
        self.round
    }

    fn value(&self) -> &NilOrVal<BlockId> {
        &self.value
    }

    fn take_value(self) -> NilOrVal<BlockId> {
        self.value
    }

    fn vote_type(&self) -> VoteType {
        self.kind
    }

    fn validator_address(&self) -> &Address {
        &self.validator
    }

    fn extension(&self) -> Option<&SignedMessage<Context, ()>> {
        None
    }

    fn take_extension(&mut self) -> Option<SignedMessage<Context, ()>> {
        None
    }

    fn extend(self, _: SignedMessage<Context, ()>) -> Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bft::testing::keypair;
    use types::Height as _;

    #[test]
    fn heights_saturate_under_the_engines_trait() {
        let height = EngineHeight(Height(7));
        assert_eq!(height.increment(), EngineHeight(Height(8)));
        assert_eq!(height.increment_by(u64::MAX), EngineHeight(Height(u32::MAX)));
        assert_eq!(height.decrement_by(7), Some(EngineHeight::ZERO));
        assert_eq!(height.decrement_by(8), None);
        assert_eq!(height.decrement_by(u64::MAX), None);
    }

    #[test]
    fn no_bytes_make_verification_panic() {
        let pair = keypair(0);
        let key = pair.x_only_public_key().0;
        let digest = [7; 32];
        let signature = Signature(*SECP256K1.sign_schnorr_no_aux_rand(&Message::from_digest(digest), &pair).as_ref());
        assert!(signature.verifies(&digest, &key));
        assert!(!signature.verifies(&[8; 32], &key));
        assert!(!signature.verifies(&digest, &keypair(1).x_only_public_key().0));
        for byte in 0..64 {
            let mut wrong = signature;
            wrong.0[byte] ^= 1;
            assert!(!wrong.verifies(&digest, &key));
        }
        for fill in [0, 1, 0x7f, 0xff] {
            assert!(!Signature([fill; 64]).verifies(&digest, &key));
        }
        assert!(!Signature::WITHHELD.verifies(&[0; 32], &key));
    }
}
