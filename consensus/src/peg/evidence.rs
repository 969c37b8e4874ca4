//! Evidence: what a peg transaction's first witness carries, in its one encoding (PEG section 2).
//!
//! Items one after the other, each a kind (u8) and its body, in the order in which they apply:
//!
//! | kind | item             | body                                                                                   |
//! |------|------------------|----------------------------------------------------------------------------------------|
//! | 1    | `Headers`        | a [`HeaderRun`]; at most one                                                            |
//! | 2    | `BatchConfirmed` | an [`InclusionProof`] of a version; sorted by batch                                     |
//! | 3    | `CoinSpent`      | an [`InclusionProof`] of the foreign transaction; at most one, since it freezes the peg |
//! | 4    | `PegIn`          | epoch (u32) \|\| destination (with its length) \|\| refund key (32) \|\| vout (u32) \|\| an [`InclusionProof`]; sorted by outpoint |
//! | 5    | `FeeRate`        | validator's key (32) \|\| sat/kvB (u64) \|\| signature (64); at most one                   |
//! | 6    | `ReplaceBatch`   | number (u32); sorted                                                                    |
//! | 7    | `OpenBatch`      | nothing; at most one                                                                    |
//!
//! Kinds 8 to 11 are reserved for `Resolve`, `NewEpoch`, `RevokeEpoch` and `ValidatorSet` (PEG sections 3 and 6).

use bitcoin::secp256k1::schnorr::Signature;
use bitcoin::{OutPoint, XOnlyPublicKey};
use causeway_chainspec::{ChainId, Height, SatPerKvb, tagged_hash};

use super::codec::{Reader, Write};
use super::header_tree::HeaderRun;
use super::proof::InclusionProof;
use super::script::DepositTerms;

/// The most that a peg transaction may have, in bytes.
pub const PEG_TRANSACTION_BYTES_MAX: usize = 100_000;

/// The most if its evidence holds exactly one `PegIn`, `BatchConfirmed` or `CoinSpent`: a large transaction or coinbase of
/// Bitcoin must stay provable.
pub const SINGLE_PROOF_BYTES_MAX: usize = 2_200_000;

const HEADERS: u8 = 1;
const BATCH_CONFIRMED: u8 = 2;
const COIN_SPENT: u8 = 3;
const PEG_IN: u8 = 4;
const FEE_RATE: u8 = 5;
const REPLACE_BATCH: u8 = 6;
const OPEN_BATCH: u8 = 7;

/// The evidence of a block. At least one item.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Bitcoin headers.
    pub headers: Option<HeaderRun>,
    /// Batches that confirmed.
    pub confirmed: Vec<InclusionProof>,
    /// A foreign spend.
    pub spent: Option<InclusionProof>,
    /// Deposits.
    pub peg_ins: Vec<PegIn>,
    /// A validator's view of Bitcoin's feerates.
    pub fee_rate: Option<FeeRateQuote>,
    /// Batches to replace, by number.
    pub replace: Vec<u32>,
    /// Whether a batch is opened.
    pub open: bool,
}

/// A deposit to credit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PegIn {
    /// What its address commits to.
    pub terms: DepositTerms,
    /// Its place among the outputs of the proven transaction.
    pub vout: u32,
    /// That its transaction stands on Bitcoin.
    pub proof: InclusionProof,
}

/// A validator's view of Bitcoin's feerates, for one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeeRateQuote {
    /// The validator.
    pub validator: XOnlyPublicKey,
    /// The rate.
    pub rate: SatPerKvb,
    /// BIP340, over [`FeeRateQuote::digest`].
    pub signature: Signature,
}

impl FeeRateQuote {
    /// What the validator signs: `tagged_hash("causeway/feerate/v1", chain id (32) || height (u32 LE) || rate (u64 LE))`.
    pub fn digest(chain: ChainId, height: Height, rate: SatPerKvb) -> [u8; 32] {
        let (height, rate) = (height.to_u32().to_le_bytes(), rate.0.to_le_bytes());
        tagged_hash("causeway/feerate/v1", &[&chain.to_byte_array(), &height, &rate])
    }
}

impl PegIn {
    /// The deposit. Its txid is computed anew.
    pub fn outpoint(&self) -> OutPoint {
        OutPoint { txid: self.proof.transaction.compute_txid(), vout: self.vout }
    }
}

impl Evidence {
    /// Whether there is no item: then there is no peg transaction.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// How many items carry a proof.
    pub fn proofs(&self) -> usize {
        self.confirmed.len() + usize::from(self.spent.is_some()) + self.peg_ins.len()
    }

    /// The most bytes that its peg transaction may have.
    pub fn bytes_max(&self) -> usize {
        if self.proofs() == 1 { SINGLE_PROOF_BYTES_MAX } else { PEG_TRANSACTION_BYTES_MAX }
    }

    /// Whether a validator may hold a block because of it: what it says is a matter of Bitcoin's chain (PEG section 7).
    pub fn speaks_of_bitcoin(&self) -> bool {
        self.headers.is_some() || self.proofs() > 0
    }

    /// Returns the encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(run) = &self.headers {
            out.push(HEADERS);
            run.encode(&mut out);
        }
        for proof in &self.confirmed {
            out.push(BATCH_CONFIRMED);
            proof.encode(&mut out);
        }
        if let Some(proof) = &self.spent {
            out.push(COIN_SPENT);
            proof.encode(&mut out);
        }
        for peg_in in &self.peg_ins {
            out.push(PEG_IN);
            peg_in.encode(&mut out);
        }
        if let Some(quote) = &self.fee_rate {
            out.push(FEE_RATE);
            out.extend_from_slice(&quote.validator.serialize());
            out.put(&quote.rate.0);
            out.extend_from_slice(quote.signature.as_ref());
        }
        for number in &self.replace {
            out.push(REPLACE_BATCH);
            out.put(number);
        }
        if self.open {
            out.push(OPEN_BATCH);
        }
        out
    }

    /// Returns the evidence that [`Evidence::encode`] gave; `None` for anything else, so that there is one encoding of each
    /// meaning. The order within a kind is a matter of the rules.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let mut evidence = Self::default();
        let mut last = 0;
        while let Some(kind) = reader.u8() {
            let repeats = matches!(kind, BATCH_CONFIRMED | PEG_IN | REPLACE_BATCH);
            if kind < last || (kind == last && !repeats) {
                return None;
            }
            last = kind;
            match kind {
                HEADERS => evidence.headers = Some(HeaderRun::decode(reader.rest()).ok()?),
                BATCH_CONFIRMED => evidence.confirmed.push(InclusionProof::decode(reader.rest()).ok()?),
                COIN_SPENT => evidence.spent = Some(InclusionProof::decode(reader.rest()).ok()?),
                PEG_IN => evidence.peg_ins.push(PegIn::read(&mut reader)?),
                FEE_RATE => {
                    evidence.fee_rate = Some(FeeRateQuote {
                        validator: XOnlyPublicKey::from_slice(reader.take(32)?).ok()?,
                        rate: SatPerKvb(reader.u64()?),
                        signature: Signature::from_slice(reader.take(64)?).ok()?,
                    });
                }
                REPLACE_BATCH => evidence.replace.push(reader.u32()?),
                OPEN_BATCH => evidence.open = true,
                _ => return None,
            }
        }
        (!evidence.is_empty()).then_some(evidence)
    }
}

impl PegIn {
    /// Returns the encoding of its body, which is also how claims travel.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put(&self.terms.epoch);
        out.put_bytes(self.terms.destination.as_bytes());
        out.extend_from_slice(&self.terms.refund_key.serialize());
        out.put(&self.vout);
        self.proof.encode(out);
    }

    /// Returns the deposit that [`PegIn::encode`] gave; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let peg_in = Self::read(&mut reader)?;
        reader.is_empty().then_some(peg_in)
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let epoch = reader.u32()?;
        let destination = reader.script()?;
        let refund_key = XOnlyPublicKey::from_slice(reader.take(32)?).ok()?;
        let vout = reader.u32()?;
        let proof = InclusionProof::decode(reader.rest()).ok()?;
        Some(Self { terms: DepositTerms { epoch, destination, refund_key }, vout, proof })
    }
}
