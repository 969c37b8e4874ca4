//! Events as they stand on the wire: `event:`, `id:`, one line of JSON in `data:`, an empty line (HTML, "Server-sent
//! events").

use std::fmt::{Display, Write};

use bitcoin::{BlockHash, Txid};
use serde::Serialize;

use super::query::Topic;

/// What a client is to wait before it connects again, in milliseconds.
const RETRY_MS: u32 = 2_000;

/// The first words of a stream. They say where it begins, so that a client that loses it before any event can go on from
/// there.
pub(super) fn hello(id: &impl Display) -> String {
    format!("retry: {RETRY_MS}\nid: {id}\n\n")
}

/// A sign of life, which also says how far the stream has come without any event for this client.
pub(super) fn heartbeat(id: &impl Display) -> String {
    format!(":\nid: {id}\n\n")
}

/// Appends an event, of which the JSON is one line.
pub(super) fn push(out: &mut String, topic: Topic, id: &impl Display, json: &str) {
    let name = topic.name();
    // Writing to a string does not fail.
    let _ = write!(out, "event: {name}\nid: {id}\ndata: {json}\n\n");
}

/// The JSON of a value, which has no map keys but strings.
pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain structs become JSON")
}

/// Where the stream goes on because what was missed is too much: the client asks REST for it, up to this height at least.
#[derive(Serialize)]
pub(super) struct ResetJson {
    /// The last event that it has.
    pub(super) after: String,
    pub(super) height: u32,
    pub(super) message: &'static str,
}

/// The event with which a client is told that there is a gap.
pub(super) fn reset(id: &impl Display, value: &ResetJson) -> String {
    format!("event: reset\nid: {id}\ndata: {}\n\n", json(value))
}

/// Why a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct LastJson {
    pub(super) code: &'static str,
    pub(super) message: &'static str,
    pub(super) hint: &'static str,
}

/// The last event of a stream. It has no id: the client goes on from the one before.
pub(super) fn last(value: &LastJson) -> String {
    format!("event: error\ndata: {}\n\n", json(value))
}

#[derive(Serialize)]
pub(super) struct BlockJson {
    pub(super) height: u32,
    pub(super) hash: BlockHash,
    pub(super) previousblockhash: BlockHash,
    /// Seconds of Unix time.
    pub(super) time: u32,
    pub(super) tx_count: usize,
    pub(super) size: usize,
    pub(super) weight: u64,
    /// The round of the certificate that this node has; null for a block that follows from the chainspec.
    pub(super) round: Option<u32>,
}

/// Where a transaction stands.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub(super) enum Standing {
    /// In this node's mempool.
    Mempool { fee: u64, vsize: u64, value: u64 },
    /// Out of it, and in no block.
    Removed {
        /// `evicted`, `replaced`, `conflicted`, `expired` or `peg_frozen`.
        reason: &'static str,
        /// The transaction that took its place, or an ancestor's.
        #[serde(skip_serializing_if = "Option::is_none")]
        by: Option<Txid>,
    },
    /// In a final block.
    Final { height: u32, hash: BlockHash, time: u32 },
}

#[derive(Serialize)]
pub(super) struct TxJson<'a> {
    pub(super) txid: Txid,
    #[serde(flatten)]
    pub(super) standing: &'a Standing,
}

#[derive(Serialize)]
pub(super) struct ScriptJson<'a> {
    pub(super) txid: Txid,
    /// Those of the client's scripts that it pays or spends from.
    pub(super) scripthashes: &'a [&'a str],
    #[serde(flatten)]
    pub(super) standing: &'a Standing,
}

#[derive(Default, Serialize)]
pub(super) struct PegInJson {
    pub(super) deposit: String,
    /// `claimed` at this node, or `credited`.
    pub(super) state: &'static str,
    /// What was deposited.
    pub(super) amount: u64,
    /// What the peg kept of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fee: Option<u64>,
    /// Who is credited: an address of Causeway.
    pub(super) destination: Option<String>,
    /// Of the deposit's block.
    pub(super) bitcoin_height: u32,
    /// The output that credits it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) txid: Option<Txid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) vout: Option<u32>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(super) block: Option<InBlock>,
}

#[derive(Default, Serialize)]
pub(super) struct PegOutJson {
    pub(super) request: String,
    /// `requested`, `batched` (again with each version), `paid` (this node's Bitcoin node has it in a block) or `confirmed`
    /// (deep on Bitcoin: the batch is closed).
    pub(super) state: &'static str,
    pub(super) amount: u64,
    pub(super) bitcoin_address: Option<String>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(super) payout: Option<PayoutJson>,
    /// Of the block that holds the payout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bitcoin_height: Option<u32>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(super) block: Option<InBlock>,
}

/// What a version of a batch pays to a request.
#[derive(Serialize)]
pub(super) struct PayoutJson {
    pub(super) batch: u32,
    /// From 1 on.
    pub(super) version: usize,
    /// The transaction on Bitcoin.
    pub(super) txid: Txid,
    pub(super) vout: usize,
    /// What arrives on Bitcoin.
    pub(super) payout: u64,
    pub(super) fee: u64,
}

/// The final block in which something happened.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct InBlock {
    pub(super) height: u32,
    pub(super) hash: BlockHash,
}
