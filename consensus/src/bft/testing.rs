//! Keys, sets and messages for the tests of this module.

use bitcoin::BlockHash;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{Keypair, Message, SECP256K1};
use causeway_chainspec::{ChainId, Validator};

use super::context::{Address, Signature};
use super::message::{Proposal, SignedProposal, SignedVote, Vote};
use super::validator_set::ValidatorSet;

pub(crate) fn chain(fill: u8) -> ChainId {
    ChainId::from_byte_array([fill; 32])
}

pub(crate) fn block(fill: u8) -> BlockHash {
    BlockHash::from_byte_array([fill; 32])
}

pub(crate) fn keypair(index: u32) -> Keypair {
    let secret = sha256::Hash::hash(format!("causeway bft test key {index}").as_bytes());
    Keypair::from_seckey_slice(SECP256K1, secret.as_byte_array()).unwrap()
}

pub(crate) fn address(index: u32) -> Address {
    Address::from(&keypair(index).x_only_public_key().0)
}

pub(crate) fn validator(index: u32, power: u64) -> Validator {
    Validator { key: keypair(index).x_only_public_key().0, power }
}

/// The set of the keys 0, 1, .. with these powers.
pub(crate) fn set(powers: &[u64]) -> ValidatorSet {
    let validators: Vec<_> = (0..).zip(powers).map(|(index, power)| validator(index, *power)).collect();
    ValidatorSet::new(&validators).unwrap()
}

pub(crate) fn sign(index: u32, digest: [u8; 32]) -> Signature {
    Signature(*SECP256K1.sign_schnorr_no_aux_rand(&Message::from_digest(digest), &keypair(index)).as_ref())
}

/// Signed on chain 1.
pub(crate) fn sign_vote(index: u32, vote: Vote) -> SignedVote {
    SignedVote::new(vote, sign(index, vote.digest(chain(1))))
}

/// Signed on chain 1.
pub(crate) fn sign_proposal(index: u32, proposal: Proposal) -> SignedProposal {
    SignedProposal::new(proposal, sign(index, proposal.digest(chain(1))))
}
