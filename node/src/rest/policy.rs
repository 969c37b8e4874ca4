//! `GET /v1/mempool/policy`: what this node's mempool takes.

use std::time::{SystemTime, UNIX_EPOCH};

use bitcoin::hashes::Hash;
use bitcoin::{Amount, PubkeyHash, ScriptBuf, ScriptHash, TxOut, WPubkeyHash, WScriptHash};
use causeway_chainspec::SatPerKvb;
use causeway_consensus::sigops::MAX_TX_LEGACY_SIGOPS;
use schemars::JsonSchema;
use serde::Serialize;

use super::App;
use super::answer::{Answer, Keep, Refusal};
use super::live::Live;
use crate::mempool::Mempool;
use crate::mempool::policy::{
    BareMultisig, Limits, MAX_DUST_OUTPUTS, MAX_P2SH_SIGOPS, MAX_P2WSH_SCRIPT_BYTES, MAX_P2WSH_STACK_ITEMS,
    MAX_PACKAGE_COUNT, MAX_PACKAGE_WEIGHT, MAX_REPLACED, MAX_SCRIPTSIG_BYTES, MAX_STACK_ITEM_BYTES,
    MAX_STANDARD_TX_WEIGHT, MAX_TX_SIGOPS_COST, MIN_STANDARD_TX_BYTES, Policy, STANDARD_VERSIONS, TRUC_CHILD_MAX_VSIZE,
    TRUC_MAX_VSIZE, WEIGHT_PER_SIGOP_COST,
};
use crate::mempool::standard::dust_threshold;

/// What a transaction must be for this node to take and relay it. Other nodes may have other limits; blocks need not
/// respect them.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "MempoolPolicy")]
pub(super) struct PolicyJson {
    /// The least feerate at this moment: it rises while the mempool is full.
    mempool_min_feerate_sat_per_kvb: u64,
    /// The least feerate of all times.
    min_relay_feerate_sat_per_kvb: u64,
    /// What a replacement must add for its own size.
    incremental_relay_feerate_sat_per_kvb: u64,
    /// The feerate that an output must be worth spending at.
    dust_relay_feerate_sat_per_kvb: u64,
    /// The least value of an output by its form, in satoshi.
    dust_sat: DustJson,
    transaction: TransactionLimitsJson,
    /// How far transactions that wait may hang together, each counting itself.
    chain: ChainLimitsJson,
    replacement: ReplacementJson,
    package: PackageJson,
    /// What the mempool takes of memory at this moment, and at most. Above it, the lowest feerates leave.
    memory_bytes: usize,
    max_memory_bytes: usize,
    /// How long a transaction waits at most.
    expiry_s: u64,
}

/// See `dust_sat`.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "DustLimits")]
struct DustJson {
    p2pkh: u64,
    p2sh: u64,
    p2wpkh: u64,
    p2wsh: u64,
    p2tr: u64,
}

/// What one transaction may be.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "TransactionLimits")]
struct TransactionLimitsJson {
    min_version: i32,
    max_version: i32,
    max_weight_wu: u64,
    /// Without its witnesses.
    min_size_bytes: usize,
    max_scriptsig_bytes: usize,
    max_p2wsh_script_bytes: usize,
    max_p2wsh_stack_items: usize,
    /// Of P2WSH and of tapscript.
    max_stack_item_bytes: usize,
    max_p2sh_sigops: usize,
    max_legacy_sigops: usize,
    max_sigops_cost: usize,
    /// Weight that each unit of signature operation cost counts as at least.
    weight_per_sigop_cost_wu: u64,
    /// Of all OP_RETURN scripts together.
    max_datacarrier_bytes: usize,
    /// Outputs below `dust_sat`: only of a transaction without fee, and every transaction that spends from it spends it.
    max_dust_outputs: usize,
    permits_bare_multisig: bool,
    /// Of transactions of version 3 (TRUC, BIP-0431).
    truc_max_vsize_vb: u64,
    /// Of those with a parent that waits.
    truc_child_max_vsize_vb: u64,
}

/// See `chain`.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "MempoolChainLimits")]
struct ChainLimitsJson {
    max_ancestors: usize,
    max_ancestors_vsize_vb: u64,
    max_descendants: usize,
    max_descendants_vsize_vb: u64,
}

/// What may take the place of a transaction that waits.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ReplacementPolicy")]
struct ReplacementJson {
    /// Whether every transaction can be replaced, whatever its sequence numbers say.
    full_rbf: bool,
    /// The rule in words.
    rule: &'static str,
    /// Transactions that one replacement removes at most, descendants included.
    max_replaced: usize,
}

/// What `POST /txs/package` takes.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PackagePolicy")]
struct PackageJson {
    max_transactions: usize,
    max_weight_wu: u64,
    /// Whether a child can pay for a parent below the minimum.
    child_pays_for_parent: bool,
    /// What a package may replace, in words.
    replaces: &'static str,
}

const REPLACEMENT: &str = "a replacement pays more than all that it removes, by the incremental feerate for its own size, \
                           and has a higher feerate than each transaction that it conflicts with";

const PACKAGE_REPLACEMENT: &str = "a package of one parent and one child, without other unconfirmed parents, may replace \
                                   transactions that have at most one parent or child each, if a miner earns more by it";

/// `GET /v1/mempool/policy`.
pub(super) async fn policy<L: Live>(app: &App<L>) -> Result<Answer, Refusal> {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let look = move |pool: &Mempool| (pool.policy().clone(), pool.min_feerate(now_s), pool.memory());
    let (policy, minimum, memory) = app.live.pool(look).await?;
    Answer::json(&shown(policy, minimum, memory), Keep::Never)
}

fn shown(policy: Policy, minimum: SatPerKvb, memory_bytes: usize) -> PolicyJson {
    // Taken apart in full, so that a new field cannot be left out.
    let Policy {
        min_relay,
        incremental_relay,
        dust_relay,
        max_datacarrier_bytes,
        bare_multisig,
        limits: Limits { ancestors, ancestors_vsize, descendants, descendants_vsize },
        max_memory_bytes,
        expiry_s,
    } = policy;
    PolicyJson {
        mempool_min_feerate_sat_per_kvb: minimum.0,
        min_relay_feerate_sat_per_kvb: min_relay.0,
        incremental_relay_feerate_sat_per_kvb: incremental_relay.0,
        dust_relay_feerate_sat_per_kvb: dust_relay.0,
        dust_sat: DustJson {
            p2pkh: dust(ScriptBuf::new_p2pkh(&PubkeyHash::all_zeros()), dust_relay),
            p2sh: dust(ScriptBuf::new_p2sh(&ScriptHash::all_zeros()), dust_relay),
            p2wpkh: dust(ScriptBuf::new_p2wpkh(&WPubkeyHash::all_zeros()), dust_relay),
            p2wsh: dust(ScriptBuf::new_p2wsh(&WScriptHash::all_zeros()), dust_relay),
            // As long as P2WSH.
            p2tr: dust(ScriptBuf::new_p2wsh(&WScriptHash::all_zeros()), dust_relay),
        },
        transaction: TransactionLimitsJson {
            min_version: *STANDARD_VERSIONS.start(),
            max_version: *STANDARD_VERSIONS.end(),
            max_weight_wu: MAX_STANDARD_TX_WEIGHT.to_wu(),
            min_size_bytes: MIN_STANDARD_TX_BYTES,
            max_scriptsig_bytes: MAX_SCRIPTSIG_BYTES,
            max_p2wsh_script_bytes: MAX_P2WSH_SCRIPT_BYTES,
            max_p2wsh_stack_items: MAX_P2WSH_STACK_ITEMS,
            max_stack_item_bytes: MAX_STACK_ITEM_BYTES,
            max_p2sh_sigops: MAX_P2SH_SIGOPS,
            max_legacy_sigops: MAX_TX_LEGACY_SIGOPS,
            max_sigops_cost: MAX_TX_SIGOPS_COST,
            weight_per_sigop_cost_wu: WEIGHT_PER_SIGOP_COST,
            max_datacarrier_bytes,
            max_dust_outputs: MAX_DUST_OUTPUTS,
            permits_bare_multisig: bare_multisig == BareMultisig::Permitted,
            truc_max_vsize_vb: TRUC_MAX_VSIZE,
            truc_child_max_vsize_vb: TRUC_CHILD_MAX_VSIZE,
        },
        chain: ChainLimitsJson {
            max_ancestors: ancestors,
            max_ancestors_vsize_vb: ancestors_vsize,
            max_descendants: descendants,
            max_descendants_vsize_vb: descendants_vsize,
        },
        replacement: ReplacementJson { full_rbf: true, rule: REPLACEMENT, max_replaced: MAX_REPLACED },
        package: PackageJson {
            max_transactions: MAX_PACKAGE_COUNT,
            max_weight_wu: MAX_PACKAGE_WEIGHT.to_wu(),
            child_pays_for_parent: true,
            replaces: PACKAGE_REPLACEMENT,
        },
        memory_bytes,
        max_memory_bytes,
        expiry_s,
    }
}

fn dust(script_pubkey: ScriptBuf, dust_relay: SatPerKvb) -> u64 {
    dust_threshold(&TxOut { value: Amount::ZERO, script_pubkey }, dust_relay).to_sat()
}
