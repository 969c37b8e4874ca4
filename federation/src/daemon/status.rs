//! What a member tells its operator.

use bitcoin::Txid;
use serde::{Deserialize, Serialize};

use super::records::AlarmRecord;
use crate::approve::{BlockPoint, DepositsMark};

/// Where a member stands. Numbers of blocks are heights; times are seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The network's name.
    pub network: String,
    /// The hash of block 1.
    pub chain_id: String,
    /// The member's place among the members, from 0.
    pub member: u16,
    /// Its public key.
    pub member_key: String,
    /// Whether the process runs. False in what is left of a stopped one.
    pub running: bool,
    /// When this was written.
    pub time: u64,
    /// The operator has paused it.
    pub paused: bool,
    /// Why it stopped for good, if it did.
    pub alarm: Option<AlarmRecord>,
    /// The member's own node.
    pub node: NodeStatus,
    /// The member's own bitcoind.
    pub bitcoin: BitcoinStatus,
    /// The block that it last acted on.
    pub acted_on: Option<BlockPoint>,
    /// How far it has found credited deposits on Bitcoin.
    #[serde(default)]
    pub deposits: DepositsMark,
    /// The other members.
    pub peers: Vec<PeerStatus>,
    /// Transactions that are being signed, or are signed and not deep yet.
    pub tasks: Vec<TaskStatus>,
    /// What it does not sign, and why.
    pub declined: Vec<Declined>,
    /// What it declined or suffered before, newest last.
    pub history: Vec<PastEvent>,
    /// Signed transactions and what became of them.
    pub transactions: Vec<TransactionStatus>,
}

/// The member's own node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Where it is.
    pub url: String,
    /// Its last final block, when it last answered.
    pub tip: Option<BlockPoint>,
    /// Why the peg is frozen, if it is.
    pub frozen: Option<String>,
    /// Why it does not answer.
    pub error: Option<String>,
}

/// The member's own bitcoind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BitcoinStatus {
    /// Height of its best block, when it last answered.
    pub height: Option<u32>,
    /// It is catching up.
    pub syncing: bool,
    /// Why it does not answer.
    pub error: Option<String>,
}

/// Another member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its place among the members.
    pub member: u16,
    /// Its name on the network.
    pub peer_id: String,
    /// Whether there is a connection.
    pub connected: bool,
}

/// How far a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Members are at it.
    Signing,
    /// It is signed.
    Signed,
}

/// A transaction that is being signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStatus {
    /// Its batch.
    pub batch: u32,
    /// What the batch is for.
    pub kind: String,
    /// Which version of the batch, from 0.
    pub version: usize,
    /// Its id.
    pub txid: Txid,
    /// Its inputs.
    pub inputs: usize,
    /// How far it is.
    pub state: TaskState,
    /// What signs, or is tried: `key`, `subset [..]` or `multi_a`.
    pub path: Option<String>,
    /// The round of the session.
    pub round: u32,
    /// The last round, that of `multi_a`.
    pub last_round: u32,
    /// Members not heard of in this round.
    pub missing: Vec<u16>,
    /// Members at fault, and what they did.
    pub faults: Vec<(u16, String)>,
    /// How long it took, or has taken so far.
    pub took_ms: u64,
}

/// What is not signed, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declined {
    /// The batch; None if it is all of them.
    pub batch: Option<u32>,
    /// Its newest version.
    pub txid: Option<Txid>,
    /// Why.
    pub reason: String,
    /// Whether a rule says no. Otherwise something is missing, and it is asked for again.
    pub refused: bool,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastEvent {
    /// When.
    pub time: u64,
    /// What.
    pub what: String,
}

/// A signed transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionStatus {
    /// Its batch.
    pub batch: u32,
    /// Which version of the batch, from 0.
    pub version: usize,
    /// Its id.
    pub txid: Txid,
    /// What signed.
    pub path: String,
    /// What bitcoind last said to it; None if it was not sent yet.
    pub sent: Option<String>,
}
