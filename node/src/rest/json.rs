//! The objects of the Esplora interface. They borrow what they show; scripts turn into words only while they are written.

use std::collections::HashMap;

use bitcoin::hex::DisplayHex;
use bitcoin::script::Instruction;
use bitcoin::{Address, Amount, BlockHash, Network, OutPoint, Script, Transaction, TxIn, TxMerkleNode, TxOut, Txid};
use causeway_consensus::state::Statistics;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use super::reader::Place;
use super::routes::Key;
use super::schema::{Hash, HexBytes};

/// Bytes of scripts up to which a transaction shows them in words too, those of what it spends included: words may take 25
/// times as many bytes, and nobody reads that many.
pub(super) const WORDS_SCRIPT_BYTES_MAX: usize = 20_000;

/// A block.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Block")]
pub(super) struct BlockJson {
    #[schemars(with = "Hash")]
    pub(super) id: BlockHash,
    pub(super) height: u32,
    pub(super) version: i32,
    pub(super) timestamp: u32,
    pub(super) tx_count: usize,
    pub(super) size: usize,
    pub(super) weight: u64,
    #[schemars(with = "Hash")]
    pub(super) merkle_root: TxMerkleNode,
    /// Null for block 0.
    #[schemars(with = "Option<Hash>")]
    pub(super) previousblockhash: Option<BlockHash>,
    pub(super) mediantime: u32,
    pub(super) nonce: u32,
    pub(super) bits: u32,
    pub(super) difficulty: f64,
}

/// Whether a block is final, and what stands on it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "BlockStatus")]
pub(super) struct BlockStatusJson {
    pub(super) in_best_chain: bool,
    pub(super) height: Option<u32>,
    #[schemars(with = "Option<Hash>")]
    pub(super) next_best: Option<BlockHash>,
}

/// Whether a transaction is final, and where.
#[derive(Clone, Copy, Serialize, JsonSchema)]
#[schemars(rename = "TransactionStatus")]
pub(super) struct StatusJson {
    confirmed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    block_height: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Hash>")]
    block_hash: Option<BlockHash>,
    #[serde(skip_serializing_if = "Option::is_none")]
    block_time: Option<u32>,
}

impl StatusJson {
    pub(super) const UNCONFIRMED: Self =
        Self { confirmed: false, block_height: None, block_hash: None, block_time: None };

    pub(super) fn confirmed(place: &Place) -> Self {
        Self {
            confirmed: true,
            block_height: Some(place.height.to_u32()),
            block_hash: Some(place.hash),
            block_time: Some(place.time),
        }
    }
}

/// A transaction.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Transaction")]
pub(super) struct TransactionJson<'a> {
    #[schemars(with = "Hash")]
    txid: Txid,
    /// Signed, as clients read it.
    version: i32,
    locktime: u32,
    vin: Vec<InputJson<'a>>,
    vout: Vec<OutputJson<'a>>,
    size: usize,
    weight: u64,
    fee: u64,
    status: StatusJson,
}

impl<'a> TransactionJson<'a> {
    /// Returns a transaction with the outputs that it spends, all of them. Those of a coinbase are none.
    pub(super) fn new(
        transaction: &'a Transaction,
        txid: Txid,
        spent: &'a HashMap<OutPoint, TxOut>,
        network: Network,
        status: StatusJson,
    ) -> Self {
        let prevout = |input: &TxIn| spent.get(&input.previous_output);
        let of_inputs = transaction.input.iter().map(|input| script_bytes(input, prevout(input)));
        let of_outputs = transaction.output.iter().map(|output| output.script_pubkey.len());
        let words = of_inputs.chain(of_outputs).sum::<usize>() <= WORDS_SCRIPT_BYTES_MAX;
        let value_in: u64 = transaction.input.iter().filter_map(prevout).map(|output| output.value.to_sat()).sum();
        let value_out: u64 = transaction.output.iter().map(|output| output.value.to_sat()).sum();
        Self {
            txid,
            version: transaction.version.0,
            locktime: transaction.lock_time.to_consensus_u32(),
            vin: transaction.input.iter().map(|input| InputJson::new(input, prevout(input), network, words)).collect(),
            vout: transaction.output.iter().map(|output| OutputJson::new(output, network, words)).collect(),
            size: transaction.total_size(),
            weight: transaction.weight().to_wu(),
            // A coinbase takes in nothing.
            fee: value_in.saturating_sub(value_out),
            status,
        }
    }
}

/// An input.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Input")]
struct InputJson<'a> {
    #[schemars(with = "Hash")]
    txid: Txid,
    vout: u32,
    /// Null for a coinbase.
    prevout: Option<OutputJson<'a>>,
    #[schemars(with = "HexBytes")]
    scriptsig: Hex<'a>,
    /// Absent, as all words of the transaction, if its scripts are long.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    scriptsig_asm: Option<Asm<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<HexBytes>")]
    witness: Vec<Hex<'a>>,
    is_coinbase: bool,
    sequence: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    inner_redeemscript_asm: Option<Asm<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    inner_witnessscript_asm: Option<Asm<'a>>,
}

impl<'a> InputJson<'a> {
    /// Returns an input, with its scripts in words or without.
    fn new(input: &'a TxIn, prevout: Option<&'a TxOut>, network: Network, words: bool) -> Self {
        let (redeem_script, witness_script) = inner_scripts(input, prevout);
        let in_words = |script: &'a Script| words.then_some(Asm(script));
        Self {
            txid: input.previous_output.txid,
            vout: input.previous_output.vout,
            prevout: prevout.map(|output| OutputJson::new(output, network, words)),
            scriptsig: Hex(input.script_sig.as_bytes()),
            scriptsig_asm: in_words(&input.script_sig),
            witness: input.witness.iter().map(Hex).collect(),
            is_coinbase: input.previous_output.is_null(),
            sequence: input.sequence.to_consensus_u32(),
            inner_redeemscript_asm: redeem_script.and_then(in_words),
            inner_witnessscript_asm: witness_script.and_then(in_words),
        }
    }
}

/// The scripts inside an input: the one that P2SH pushes, and the one in the witness.
fn inner_scripts<'a>(input: &'a TxIn, prevout: Option<&TxOut>) -> (Option<&'a Script>, Option<&'a Script>) {
    let redeem_script = prevout.and_then(|prevout| redeem_script(input, prevout));
    (redeem_script, prevout.and_then(|prevout| witness_script(input, prevout, redeem_script)))
}

/// Bytes of all scripts of an input, and of what it spends.
fn script_bytes(input: &TxIn, prevout: Option<&TxOut>) -> usize {
    let (redeem_script, witness_script) = inner_scripts(input, prevout);
    let inner = redeem_script.map_or(0, Script::len) + witness_script.map_or(0, Script::len);
    input.script_sig.len() + inner + prevout.map_or(0, |prevout| prevout.script_pubkey.len())
}

/// The script that a P2SH input pushes last.
fn redeem_script<'a>(input: &'a TxIn, prevout: &TxOut) -> Option<&'a Script> {
    if !prevout.script_pubkey.is_p2sh() {
        return None;
    }
    match input.script_sig.instructions().last() {
        Some(Ok(Instruction::PushBytes(script))) => Some(Script::from_bytes(script.as_bytes())),
        _ => None,
    }
}

/// The script in a witness of P2WSH, also within P2SH, or of a Taproot leaf.
fn witness_script<'a>(input: &'a TxIn, prevout: &TxOut, redeem_script: Option<&Script>) -> Option<&'a Script> {
    if prevout.script_pubkey.is_p2tr() {
        // Of whatever leaf version.
        let has_annex = input.witness.taproot_annex().is_some();
        let place = input.witness.len().checked_sub(if has_annex { 3 } else { 2 })?;
        return input.witness.nth(place).map(Script::from_bytes);
    }
    if prevout.script_pubkey.is_p2wsh() || redeem_script.is_some_and(Script::is_p2wsh) {
        return input.witness.last().map(Script::from_bytes);
    }
    None
}

/// An output.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Output")]
struct OutputJson<'a> {
    #[schemars(with = "HexBytes")]
    scriptpubkey: Hex<'a>,
    /// Absent, as all words of the transaction, if its scripts are long.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    scriptpubkey_asm: Option<Asm<'a>>,
    scriptpubkey_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    scriptpubkey_address: Option<Address>,
    value: u64,
}

impl<'a> OutputJson<'a> {
    /// Returns an output, with its script in words or without.
    fn new(output: &'a TxOut, network: Network, words: bool) -> Self {
        let script = &output.script_pubkey;
        Self {
            scriptpubkey: Hex(script.as_bytes()),
            scriptpubkey_asm: words.then_some(Asm(script)),
            scriptpubkey_type: script_type(script),
            scriptpubkey_address: Address::from_script(script, network).ok(),
            value: output.value.to_sat(),
        }
    }
}

/// Esplora's name for the form of a script.
fn script_type(script: &Script) -> &'static str {
    if script.is_empty() {
        "empty"
    } else if script.is_op_return() {
        "op_return"
    } else if script.is_p2pk() {
        "p2pk"
    } else if script.is_p2pkh() {
        "p2pkh"
    } else if script.is_p2sh() {
        "p2sh"
    } else if script.is_p2wpkh() {
        "v0_p2wpkh"
    } else if script.is_p2wsh() {
        "v0_p2wsh"
    } else if script.is_p2tr() {
        "v1_p2tr"
    } else {
        "unknown"
    }
}

/// Who spends an output.
#[derive(Clone, Copy, Serialize, JsonSchema)]
#[schemars(rename = "Spend")]
pub(super) struct SpendJson {
    spent: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Hash>")]
    txid: Option<Txid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vin: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<StatusJson>,
}

impl SpendJson {
    pub(super) const UNSPENT: Self = Self { spent: false, txid: None, vin: None, status: None };

    pub(super) fn new(txid: Txid, vin: u32, status: StatusJson) -> Self {
        Self { spent: true, txid: Some(txid), vin: Some(vin), status: Some(status) }
    }
}

/// What a script received and spent.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ScriptSums")]
pub(super) struct ScriptJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scripthash: Option<&'a str>,
    chain_stats: StatisticsJson,
    mempool_stats: StatisticsJson,
}

impl<'a> ScriptJson<'a> {
    /// Returns the sums of a script under the name that it was asked for by.
    pub(super) fn new(key: &'a Key, chain_stats: StatisticsJson, mempool_stats: StatisticsJson) -> Self {
        let (address, scripthash) = match key {
            Key::Address(address) => (Some(address.as_str()), None),
            Key::ScriptHash(hash) => (None, Some(hash.as_str())),
        };
        Self { address, scripthash, chain_stats, mempool_stats }
    }
}

/// Sums over transactions.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Sums")]
pub(super) struct StatisticsJson {
    tx_count: u64,
    funded_txo_count: u64,
    funded_txo_sum: u128,
    spent_txo_count: u64,
    spent_txo_sum: u128,
}

impl StatisticsJson {
    pub(super) fn of(sums: &Statistics) -> Self {
        Self {
            tx_count: sums.transactions,
            funded_txo_count: sums.funded.count,
            funded_txo_sum: sums.funded.sat,
            spent_txo_count: sums.spent.count,
            spent_txo_sum: sums.spent.sat,
        }
    }
}

/// An output that nobody spends.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "UnspentOutput")]
pub(super) struct UnspentJson {
    #[schemars(with = "Hash")]
    txid: Txid,
    vout: u32,
    value: u64,
    status: StatusJson,
}

impl UnspentJson {
    pub(super) fn new(OutPoint { txid, vout }: OutPoint, value: Amount, status: StatusJson) -> Self {
        Self { txid, vout, value: value.to_sat(), status }
    }
}

/// Bytes as lower hex.
#[derive(Clone, Copy)]
pub(super) struct Hex<'a>(pub(super) &'a [u8]);

impl Serialize for Hex<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0.as_hex())
    }
}

/// A script in words: `OP_0 OP_PUSHBYTES_20 ...`.
#[derive(Clone, Copy)]
struct Asm<'a>(&'a Script);

impl Serialize for Asm<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self.0)
    }
}

/// A value in words.
pub(super) fn display<S: Serializer>(value: &impl std::fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// What proves that a transaction stands in its block.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "MerkleProof")]
pub(super) struct MerkleProofJson {
    pub(super) block_height: u32,
    /// The other node of each pair, from the leaf up.
    #[schemars(with = "Vec<Hash>")]
    pub(super) merkle: Vec<Txid>,
    pub(super) pos: u32,
}
