//! The proof that a block is final: precommits of more than two thirds of the power.
//!
//! | field | bytes |
//! |---|---|
//! | height, round | 4, 4, little endian |
//! | block hash | 32, internal order |
//! | validators of the set | 2, little endian, 1 to 256 |
//! | who signed | one bit a validator in the order of the set, least significant first, the last byte filled with zeros |
//! | signatures | 64 of each signer, in the same order |
//!
//! Signers have no other order and occur once, so that one certificate has one encoding. All sign one digest: that of a
//! precommit ([`Vote::digest`]). At most 16,458 bytes; of four validators that all signed, 299.

use arc_malachitebft_core_types as types;
use bitcoin::BlockHash;
use causeway_chainspec::{ChainId, Height};
use types::{CommitSignature, Round, VoteType};

use super::bytes::{DecodeError, Reader};
use super::context::{Address, BlockId, Context, EngineHeight, Signature};
use super::message::{Vote, decode_block, decode_height, decode_round, decode_signature, encode_round};
use super::validator_set::{VALIDATORS_MAX, ValidatorSet};

/// Why a certificate does not prove that a block is final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// It is for another height.
    #[error("the certificate is for height {got}, not {wanted}")]
    OtherHeight {
        /// Its height.
        got: Height,
        /// The height asked about.
        wanted: Height,
    },
    /// It is for another block.
    #[error("the certificate is for block {got}, not {wanted}")]
    OtherBlock {
        /// Its block.
        got: BlockHash,
        /// The block asked about.
        wanted: BlockHash,
    },
    /// It was made for a validator set of another size.
    #[error("the certificate is for a set of {got} validators, not {wanted}")]
    OtherSet {
        /// Validators of its set.
        got: usize,
        /// Validators of the height's set.
        wanted: usize,
    },
    /// The signers hold too little power: to commit, or for a polka, it takes more than two thirds.
    #[error("the certificate's signers have {signed} of {total} voting power, which is too little")]
    NotEnoughPower {
        /// Power of the signers.
        signed: u64,
        /// Power of the set.
        total: u64,
    },
    /// A signature is not of the precommit that the certificate claims.
    #[error("the certificate's signature of {address} is wrong")]
    WrongSignature {
        /// Whose signature.
        address: Address,
    },
    /// A signer is not in the set.
    #[error("{address} signed, which is not in the validator set")]
    UnknownValidator {
        /// The signer.
        address: Address,
    },
    /// A validator signed twice.
    #[error("{address} signed twice")]
    DuplicateSigner {
        /// The signer.
        address: Address,
    },
    /// A prevote stands among precommits.
    #[error("the certificate has a prevote of {address} among precommits")]
    NotAPrecommit {
        /// The signer.
        address: Address,
    },
    /// The round is none.
    #[error("the certificate has no round")]
    NoRound,
}

/// Precommits for one block in one round. Proves nothing until [`CommitCertificate::verify`] says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitCertificate {
    height: Height,
    round: u32,
    block: BlockHash,
    /// Validators of the set whose positions the signers have.
    validators: usize,
    /// Position in the set and signature, by position.
    signatures: Vec<(usize, Signature)>,
}

impl CommitCertificate {
    /// The certificate of these signatures, in any order. The round is below `u32::MAX`.
    ///
    /// # Errors
    ///
    /// A signer is not in the set, or occurs twice. The signatures and their power are not looked at.
    pub fn new(
        set: &ValidatorSet,
        height: Height,
        round: u32,
        block: BlockHash,
        signatures: impl IntoIterator<Item = (Address, Signature)>,
    ) -> Result<Self, CertificateError> {
        if round == u32::MAX {
            return Err(CertificateError::NoRound);
        }
        let mut found = Vec::new();
        for (address, signature) in signatures {
            let index = set.index_of(&address).ok_or(CertificateError::UnknownValidator { address })?;
            found.push((index, signature));
        }
        found.sort_by_key(|(index, _)| *index);
        if let Some(pair) = found.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(CertificateError::DuplicateSigner { address: set.members()[pair[0].0].address() });
        }
        Ok(Self { height, round, block, validators: set.members().len(), signatures: found })
    }

    /// Our form of the engine's certificate.
    pub(super) fn from_engine(
        certificate: &types::CommitCertificate<Context>,
        set: &ValidatorSet,
    ) -> Result<Self, CertificateError> {
        let round = certificate.round.as_u32().ok_or(CertificateError::NoRound)?;
        let signatures = certificate.commit_signatures.iter().map(|signed| (signed.address, signed.signature));
        Self::new(set, certificate.height.0, round, certificate.value_id.0, signatures)
    }

    /// The engine's form of this certificate.
    pub(super) fn to_engine(&self, set: &ValidatorSet) -> Result<types::CommitCertificate<Context>, CertificateError> {
        self.check_set(set)?;
        let commit_signatures = self
            .signatures
            .iter()
            .map(|(index, signature)| CommitSignature::new(set.members()[*index].address(), *signature))
            .collect();
        Ok(types::CommitCertificate {
            height: EngineHeight(self.height),
            round: Round::new(self.round),
            value_id: BlockId(self.block),
            commit_signatures,
        })
    }

    /// The height that the certificate makes final.
    pub fn height(&self) -> Height {
        self.height
    }

    /// The round of the precommits, which is that of the decided proposal.
    pub fn round(&self) -> u32 {
        self.round
    }

    /// The block that the certificate makes final.
    pub fn block(&self) -> BlockHash {
        self.block
    }

    /// Positions of the signers in the set of the height, and their signatures.
    pub fn signatures(&self) -> impl ExactSizeIterator<Item = (usize, Signature)> {
        self.signatures.iter().copied()
    }

    /// Checks that the certificate makes `block` final at `height` of the chain, where `set` decides. What is cheap comes
    /// first: no signature is looked at unless the signers hold the power.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn verify(
        &self,
        chain: ChainId,
        set: &ValidatorSet,
        height: Height,
        block: BlockHash,
    ) -> Result<(), CertificateError> {
        if self.height != height {
            return Err(CertificateError::OtherHeight { got: self.height, wanted: height });
        }
        if self.block != block {
            return Err(CertificateError::OtherBlock { got: self.block, wanted: block });
        }
        self.check_set(set)?;
        let signers = || self.signatures.iter().map(|(index, signature)| (&set.members()[*index], signature));
        // A signer counts once, so the sum is at most the set's.
        let signed = signers().map(|(member, _)| member.power()).sum();
        if !set.is_quorum(signed) {
            return Err(CertificateError::NotEnoughPower { signed, total: set.total_power() });
        }
        // The digest leaves the signer out: any address gives the same.
        let digest = Vote::new(VoteType::Precommit, height, self.round, Some(block), Address([0; 32])).digest(chain);
        for (member, signature) in signers() {
            if !signature.verifies(&digest, member.key()) {
                return Err(CertificateError::WrongSignature { address: member.address() });
            }
        }
        Ok(())
    }

    /// Positions are below the size of the certificate's set; so they are below that of a set of this size.
    fn check_set(&self, set: &ValidatorSet) -> Result<(), CertificateError> {
        let wanted = set.members().len();
        if self.validators != wanted {
            return Err(CertificateError::OtherSet { got: self.validators, wanted });
        }
        Ok(())
    }

    /// The one encoding of the certificate.
    pub fn encode(&self) -> Vec<u8> {
        let count = u16::try_from(self.validators).expect("a set has at most 256 validators");
        let mut signers = vec![0_u8; self.validators.div_ceil(8)];
        for (index, _) in &self.signatures {
            signers[index / 8] |= 1 << (index % 8);
        }
        let mut bytes = Vec::with_capacity(42 + signers.len() + 64 * self.signatures.len());
        bytes.extend_from_slice(&self.height.to_u32().to_le_bytes());
        bytes.extend_from_slice(&encode_round(Round::new(self.round)));
        bytes.extend_from_slice(&BlockId(self.block).to_bytes());
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(&signers);
        for (_, signature) in &self.signatures {
            bytes.extend_from_slice(&signature.0);
        }
        bytes
    }

    /// The certificate of this encoding. Reads at most 16,458 bytes.
    ///
    /// # Errors
    ///
    /// The bytes are not what [`CommitCertificate::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let certificate = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(certificate)
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let height = decode_height(reader)?.0;
        let round = decode_round(reader)?;
        let block = decode_block(reader)?.0;
        let validators = usize::from(reader.u16("validators")?);
        if validators == 0 || validators > VALIDATORS_MAX {
            return Err(DecodeError::Count { what: "number of validators", got: validators, max: VALIDATORS_MAX });
        }
        let signers = reader.take(validators.div_ceil(8), "signers")?;
        let is_set = |index: usize| signers[index / 8] >> (index % 8) & 1 == 1;
        if (validators..signers.len() * 8).any(is_set) {
            return Err(DecodeError::NotCanonical { what: "bits of the signers" });
        }
        let mut signatures = Vec::new();
        for index in (0..validators).filter(|index| is_set(*index)) {
            signatures.push((index, decode_signature(reader)?));
        }
        let round = round.as_u32().ok_or(DecodeError::NotCanonical { what: "round" })?;
        Ok(Self { height, round, block, validators, signatures })
    }
}

#[cfg(test)]
mod tests;
