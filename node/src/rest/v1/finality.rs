//! `GET /v1/finality/:block`: why a block is final, for whoever trusts the chainspec and nobody else.

use std::sync::Arc;

use bitcoin::BlockHash;
use bitcoin::consensus::encode::serialize_hex;
use causeway_consensus::StateFault;
use causeway_consensus::bft::message::VOTE_TAG;
use causeway_consensus::bft::{Address, CommitCertificate, ValidatorSet, Vote, VoteType};
use schemars::JsonSchema;
use serde::Serialize;

use super::super::App;
use super::super::answer::{Answer, Keep, Refusal};
use super::super::json::{Hex, display};
use super::super::live::Live;
use super::super::routes::BlockId;
use super::super::schema::{Hash, HeaderHex, HexBytes, SignatureHex, XOnlyKey};
use super::hex;
use super::validators::{ValidatorJson, quorum_power};

/// The proof that a block is final.
///
/// Whoever checks it takes the chain's identity and the validators from the chainspec, not from here: the double SHA-256 of
/// header must be block, signed.message must be what its description says, every signature must be of another validator of
/// the set and verify by BIP340, and the signers together must have quorum_power or more.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Finality")]
pub(in super::super) struct FinalityJson<'a> {
    height: u32,
    /// The round in which it was decided.
    round: u32,
    #[schemars(with = "Hash")]
    block: BlockHash,
    /// The block's header.
    #[schemars(with = "HeaderHex")]
    header: String,
    /// The hash of block 1.
    #[schemars(with = "Hash")]
    chain_id: BlockHash,
    signed: SignedJson,
    signatures: Vec<SignatureJson>,
    /// The validators of this height, sorted by key.
    validators: Vec<ValidatorJson>,
    /// The power of all.
    total_power: u64,
    /// The least power that makes a block final: more than two thirds of all.
    quorum_power: u64,
    /// The certificate as nodes keep and exchange it.
    #[schemars(with = "HexBytes")]
    raw: Hex<'a>,
}

/// What each of the signatures is of: SHA256(SHA256(tag) || SHA256(tag) || message), BIP340's tagged hash.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "SignedMessage")]
struct SignedJson {
    tag: &'static str,
    /// 74 bytes: chain_id (32), 02, height (4), round (4), 01, block (32). Hashes are not reversed, that is, in the other
    /// order than they are shown in; numbers are little endian.
    #[schemars(with = "HexBytes")]
    message: String,
}

/// A validator's signature.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CommitSignature")]
struct SignatureJson {
    #[schemars(with = "XOnlyKey")]
    #[serde(serialize_with = "display")]
    validator: Address,
    #[schemars(with = "SignatureHex")]
    signature: String,
}

/// `GET /v1/finality/:block`.
pub(in super::super) async fn finality<L: Live>(app: &Arc<App<L>>, block: BlockId) -> Result<Answer, Refusal> {
    let validators = app.validators.clone();
    let chain = app.chain.spec.chain_id();
    app.read(move |reader| {
        let height = match block {
            BlockId::Height(height) => reader.height(height)?,
            BlockId::Hash(hash) => reader.height_of(hash)?.ok_or(Refusal::BlockNotFound)?,
        };
        let raw = reader.store().certificate(height)?.ok_or(Refusal::NoCertificate)?;
        let certificate = CommitCertificate::decode(&raw)?;
        // The digest leaves the signer out: any address gives the same.
        let (round, block) = (certificate.round(), certificate.block());
        let vote = Vote::new(VoteType::Precommit, height, round, Some(block), Address([0; 32]));
        let json = FinalityJson {
            height: certificate.height().to_u32(),
            round,
            block,
            header: serialize_hex(&reader.header(height)?),
            chain_id: chain.block_hash(),
            signed: SignedJson { tag: VOTE_TAG, message: hex(&vote.message(chain)) },
            signatures: signatures(&certificate, &validators)?,
            validators: ValidatorJson::all(&validators),
            total_power: validators.total_power(),
            quorum_power: quorum_power(validators.total_power()),
            raw: Hex(&raw),
        };
        Answer::json(&json, Keep::Final)
    })
    .await
}

fn signatures(certificate: &CommitCertificate, set: &ValidatorSet) -> Result<Vec<SignatureJson>, Refusal> {
    let signature = |(position, signature): (usize, causeway_consensus::bft::Signature)| {
        let member = set.members().get(position);
        let member = member.ok_or(Refusal::Fault(StateFault::Damaged { record: "certificate" }))?;
        Ok(SignatureJson { validator: member.address(), signature: hex(&signature.0) })
    };
    certificate.signatures().map(signature).collect()
}
