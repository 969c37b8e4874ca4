//! `/v1...` and `/health`: what no Bitcoin node has.

use std::sync::Arc;

use bitcoin::BlockHash;
use bitcoin::hex::DisplayHex;
use causeway_consensus::StateFault;
use causeway_consensus::bft::{Address, CommitCertificate, ValidatorSet};
use libp2p::{Multiaddr, PeerId};
use serde::Serialize;
use warp::http::StatusCode;

use super::answer::{Answer, Keep, Refusal};
use super::json::{Hex, display};
use super::live::Live;
use super::reader::Reader;
use super::routes::BlockId;
use super::{App, Connection, Direction};

/// What an operator or a wallet may rely on.
const FINALITY: &str =
    "a block in the chain is final: more than two thirds of the voting power have signed it, and it is never replaced";

#[derive(Serialize)]
struct HealthJson {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peers: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    syncing: Option<bool>,
}

/// `GET /health`: 200 if the node can answer, 503 while it stops.
pub(super) async fn health<L: Live>(app: &App<L>) -> Result<Answer, Refusal> {
    match app.live.status().await {
        Ok(status) => {
            let health = HealthJson {
                status: "ok",
                height: Some(status.height.to_u32()),
                peers: Some(status.peers),
                syncing: Some(status.sync_target.is_some()),
            };
            Answer::json(&health, Keep::Never)
        }
        Err(_) => {
            let health = HealthJson { status: "stopping", height: None, peers: None, syncing: None };
            Ok(Answer::json(&health, Keep::Never)?.with_status(StatusCode::SERVICE_UNAVAILABLE))
        }
    }
}

#[derive(Serialize)]
struct StatusJson<'a> {
    network: &'a str,
    /// The hash of block 1.
    chain_id: BlockHash,
    /// The Bitcoin test network whose block 0 and address prefixes the chain has.
    identity: String,
    version: &'static str,
    height: u32,
    hash: BlockHash,
    time: u32,
    /// Of the height above.
    round: u32,
    /// Null if no peer is ahead.
    sync_target: Option<u32>,
    /// Null if this node does not vote.
    validator: Option<String>,
    peers: usize,
    mempool_transactions: usize,
    mempool_vsize: u64,
    finality: &'static str,
    peg: PegJson,
}

#[derive(Serialize)]
struct PegJson {
    /// Why nothing moves between the chains; null if it does.
    frozen: Option<String>,
    /// Bitcoin's tip as the chain knows it.
    bitcoin_height: u32,
    bitcoin_hash: BlockHash,
    /// What this node's own Bitcoin node is doing; null if it has none.
    source: Option<SourceJson>,
}

#[derive(Serialize)]
struct SourceJson {
    reliable: bool,
    state: String,
    height: u32,
    hash: BlockHash,
}

fn peg<L: Live>(app: &App<L>) -> PegJson {
    let tip = app.chain.store_tip();
    let bitcoin = tip.peg().headers().tip();
    let source = app.bitcoin.as_ref().map(|source| source.standing());
    PegJson {
        frozen: tip.peg().frozen().map(|why| why.to_string()),
        bitcoin_height: bitcoin.height.0,
        bitcoin_hash: bitcoin.hash,
        source: source.map(|standing| SourceJson {
            reliable: standing.reliable,
            state: standing.words,
            height: standing.tip.0.0,
            hash: standing.tip.1,
        }),
    }
}

/// `GET /v1/status`.
pub(super) async fn status<L: Live>(app: &App<L>) -> Result<Answer, Refusal> {
    let status = app.live.status().await?;
    let spec = &app.chain.spec;
    let json = StatusJson {
        network: spec.name(),
        chain_id: spec.chain_id().block_hash(),
        identity: spec.identity().to_string(),
        version: env!("CARGO_PKG_VERSION"),
        height: status.height.to_u32(),
        hash: status.hash,
        time: status.time,
        round: status.round,
        sync_target: status.sync_target.map(|height| height.to_u32()),
        validator: status.validator.map(|address| address.to_string()),
        peers: status.peers,
        mempool_transactions: status.mempool_transactions,
        mempool_vsize: status.mempool_vsize,
        finality: FINALITY,
        peg: peg(app),
    };
    Answer::json(&json, Keep::Never)
}

#[derive(Serialize)]
struct PeerJson {
    #[serde(serialize_with = "display")]
    peer: PeerId,
    /// Null until it tells.
    height: Option<u32>,
    score: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<Multiaddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    direction: Option<String>,
}

/// `GET /v1/peers`.
pub(super) async fn peers<L: Live>(app: &App<L>) -> Result<Answer, Refusal> {
    let peers: Vec<PeerJson> = app
        .live
        .peers()
        .await?
        .into_iter()
        .map(|status| {
            let connection = (app.connection)(&status.peer);
            let (address, direction) = match connection {
                Some(Connection { address, direction }) => (Some(address), Some(direction)),
                None => (None, None),
            };
            PeerJson {
                peer: status.peer,
                height: status.height.map(|height| height.to_u32()),
                score: status.score,
                address,
                direction: direction.map(|direction: Direction| direction.to_string()),
            }
        })
        .collect();
    Answer::json(&peers, Keep::Never)
}

#[derive(Serialize)]
struct ValidatorJson {
    #[serde(serialize_with = "display")]
    key: Address,
    power: u64,
}

/// `GET /v1/validators`.
pub(super) async fn validators<L: Live>(app: &App<L>) -> Result<Answer, Refusal> {
    let set = app.live.validators().await?;
    let members = set.members().iter().map(|member| ValidatorJson { key: member.address(), power: member.power() });
    Answer::json(&members.collect::<Vec<_>>(), Keep::Never)
}

#[derive(Serialize)]
struct FinalityJson<'a> {
    height: u32,
    round: u32,
    block: BlockHash,
    signatures: Vec<SignatureJson>,
    /// The certificate as this node keeps it.
    raw: Hex<'a>,
}

#[derive(Serialize)]
struct SignatureJson {
    #[serde(serialize_with = "display")]
    validator: Address,
    signature: String,
}

/// `GET /v1/finality/:block`.
pub(super) async fn finality<L: Live>(app: &Arc<App<L>>, block: BlockId) -> Result<Answer, Refusal> {
    let validators = app.validators.clone();
    app.read(move |reader| reader.finality(block, &validators)).await
}

impl Reader {
    fn finality(&self, block: BlockId, validators: &ValidatorSet) -> Result<Answer, Refusal> {
        let height = match block {
            BlockId::Height(height) => self.height(height)?,
            BlockId::Hash(hash) => self.height_of(hash)?.ok_or(Refusal::BlockNotFound)?,
        };
        let raw = self.store().certificate(height)?.ok_or(Refusal::NoCertificate)?;
        let certificate = CommitCertificate::decode(&raw)?;
        let mut signatures = Vec::new();
        for (position, signature) in certificate.signatures() {
            let member = validators.members().get(position);
            let member = member.ok_or(Refusal::Fault(StateFault::Damaged { record: "certificate" }))?;
            let signature = hex(&signature.0);
            signatures.push(SignatureJson { validator: member.address(), signature });
        }
        let json = FinalityJson {
            height: certificate.height().to_u32(),
            round: certificate.round(),
            block: certificate.block(),
            signatures,
            raw: Hex(&raw),
        };
        Answer::json(&json, Keep::Final)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.to_lower_hex_string()
}

#[derive(Serialize)]
struct EvidenceJson {
    #[serde(serialize_with = "display")]
    validator: Address,
    height: u32,
    /// What was signed, in words.
    what: String,
    /// The encoded evidence.
    raw: String,
}

/// `GET /v1/evidence`.
pub(super) async fn evidence<L: Live>(app: &App<L>) -> Result<Answer, Refusal> {
    let list = Arc::clone(&app.evidence);
    app.read(move |_| {
        let evidence = list().into_iter().map(|evidence| EvidenceJson {
            validator: evidence.validator(),
            height: evidence.height().to_u32(),
            what: evidence.to_string(),
            raw: hex(&evidence.encode()),
        });
        Answer::json(&evidence.collect::<Vec<_>>(), Keep::Never)
    })
    .await
}
