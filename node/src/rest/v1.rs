//! `/v1...` and `/health`: what no Bitcoin node has.

mod chain;
mod finality;
mod validators;

use std::sync::Arc;

use bitcoin::BlockHash;
use bitcoin::hex::DisplayHex;
use causeway_consensus::bft::Address;
use libp2p::{Multiaddr, PeerId};
use schemars::JsonSchema;
use serde::Serialize;
use warp::http::StatusCode;

pub(super) use chain::{ChainJson, chain};
pub(super) use finality::{FinalityJson, finality};
pub(super) use validators::{ValidatorsJson, validators};

use super::answer::{Answer, Keep, Refusal};
use super::json::display;
use super::live::Live;
use super::schema::{Hash, HexBytes, XOnlyKey};
use super::{App, Connection, Direction};

/// What an operator or a wallet may rely on.
const FINALITY: &str =
    "a block in the chain is final: more than two thirds of the voting power have signed it, and it is never replaced";

/// Whether the node answers.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Health")]
pub(super) struct HealthJson {
    /// `ok` or `stopping`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peers: Option<usize>,
    /// Whether peers are ahead.
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

/// The node at this moment.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "NodeStatus")]
pub(super) struct StatusJson<'a> {
    network: &'a str,
    /// The hash of block 1.
    #[schemars(with = "Hash")]
    chain_id: BlockHash,
    /// The Bitcoin test network whose block 0 and address prefixes the chain has.
    identity: String,
    version: &'static str,
    /// Of the last final block.
    height: u32,
    #[schemars(with = "Hash")]
    hash: BlockHash,
    /// Its time, in seconds since 1970.
    time: u32,
    /// Of the height above it.
    round: u32,
    /// Null if no peer is ahead.
    sync_target: Option<u32>,
    /// The key that it votes with; null if it does not vote.
    #[schemars(with = "Option<XOnlyKey>")]
    validator: Option<String>,
    peers: usize,
    mempool_transactions: usize,
    mempool_vsize: u64,
    /// What is final, in words.
    finality: &'static str,
    peg: PegJson,
}

/// The peg at this moment.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PegStatus")]
struct PegJson {
    /// Why nothing moves between the chains; null if it does.
    frozen: Option<String>,
    /// Bitcoin's tip as the chain knows it.
    bitcoin_height: u32,
    #[schemars(with = "Hash")]
    bitcoin_hash: BlockHash,
    /// What this node's own Bitcoin node is doing; null if it has none.
    source: Option<SourceJson>,
}

/// The node's own Bitcoin node.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "BitcoinSource")]
struct SourceJson {
    /// Whether its view is Bitcoin's best chain.
    reliable: bool,
    /// What it is doing, in words.
    state: String,
    /// Of its tip.
    height: u32,
    #[schemars(with = "Hash")]
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

/// A peer.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Peer")]
pub(super) struct PeerJson {
    /// Its libp2p identity.
    #[schemars(with = "String")]
    #[serde(serialize_with = "display")]
    peer: PeerId,
    /// Null until it tells.
    height: Option<u32>,
    /// 100 at first; at 0 it is cut off.
    score: i32,
    /// As this node sees it.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<Multiaddr>,
    /// `inbound` or `outbound`.
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

fn hex(bytes: &[u8]) -> String {
    bytes.to_lower_hex_string()
}

/// Evidence against a validator.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Evidence")]
pub(super) struct EvidenceJson {
    #[schemars(with = "XOnlyKey")]
    #[serde(serialize_with = "display")]
    validator: Address,
    height: u32,
    /// What was signed, in words.
    what: String,
    /// The encoded evidence.
    #[schemars(with = "HexBytes")]
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
