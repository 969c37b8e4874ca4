//! `GET /v1/chain`: what does not change while the chain lives, as the chainspec has it.

use std::sync::Arc;

use bitcoin::{BlockHash, Network};
use causeway_chainspec::{BATCH_OVERHEAD_WEIGHT, ChainSpec, Height, LAST_DERIVED_HEIGHT, OUTPUT_WEIGHT, Params};
use causeway_consensus::block::MAX_BLOCK_WEIGHT;
use causeway_consensus::connect::COINBASE_MATURITY;
use schemars::JsonSchema;
use serde::Serialize;

use super::super::App;
use super::super::answer::{Answer, Keep, Refusal};
use super::super::live::Live;
use super::super::peg::EpochJson;
use super::super::schema::Hash;
use super::FINALITY;
use super::validators::quorum_power;

/// What a chain is.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Chain")]
pub(in super::super) struct ChainJson {
    /// The network's name, for people.
    network: String,
    /// The hash of block 1, which tells chains apart. Every signature of validators commits to it.
    #[schemars(with = "Hash")]
    chain_id: BlockHash,
    /// The hash of the chainspec, to which block 1 commits. Hexadecimal, not reversed.
    #[schemars(with = "Hash")]
    chainspec_hash: String,
    /// The Bitcoin test network whose block 0 and address prefixes the chain has.
    identity: String,
    /// The hash of block 0: that of the identity.
    #[schemars(with = "Hash")]
    genesis_hash: BlockHash,
    /// Time of block 1, in seconds since 1970.
    genesis_time_s: u32,
    finality: FinalityRuleJson,
    blocks: BlockRulesJson,
    bitcoin: BitcoinJson,
    peg: PegParamsJson,
    /// The federation's epochs that can receive coins.
    epochs: Vec<EpochJson>,
}

/// When a block is final.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "FinalityRule")]
struct FinalityRuleJson {
    /// The rule in words.
    rule: &'static str,
    /// Confirmations after which a transaction is final.
    confirmations_needed: u32,
    /// The first height that validators sign. Those below follow from the chainspec.
    first_certified_height: u32,
    validators: usize,
    /// The voting power of all validators, at most 2^60.
    total_power: u64,
    /// The least power that makes a block final: more than two thirds of the total.
    quorum_power: u64,
}

/// Blocks of this chain.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "BlockRules")]
struct BlockRulesJson {
    /// Target time between blocks, in milliseconds.
    interval_ms: u32,
    max_weight_wu: u64,
    /// Blocks after which a coinbase can be spent.
    coinbase_maturity_blocks: u32,
}

/// The Bitcoin network that the peg stands on.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ParentChain")]
struct BitcoinJson {
    network: String,
    /// Whether coins of that network are worth nothing.
    worthless: bool,
    /// Where the chain's view of Bitcoin starts.
    start_height: u32,
    #[schemars(with = "Hash")]
    start_hash: BlockHash,
}

/// The constants of the peg. Amounts in satoshi, feerates in satoshi per 1,000 virtual bytes.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PegParams")]
struct PegParamsJson {
    /// Confirmations before anything on Bitcoin counts: a deposit is credited then, in Bitcoin blocks.
    final_depth_bitcoin_blocks: u32,
    /// No branch of Bitcoin starts deeper than this below its highest tip.
    fork_depth_bitcoin_blocks: u32,
    /// Least deposit. At high feerates the address's own min_amount is more.
    peg_in_min_sat: u64,
    /// Least withdrawal.
    peg_out_min_sat: u64,
    /// Greatest withdrawal.
    peg_out_max_sat: u64,
    /// Most that a withdrawal pays of its batch's fee, until it has waited request_max_wait_blocks.
    peg_out_fee_max_sat: u64,
    /// Most value in one batch.
    batch_value_max_sat: u64,
    /// Most value batched in 86,400 seconds of block time.
    value_per_day_max_sat: u64,
    /// Change is split into one output for each such amount.
    change_unit_sat: u64,
    /// The feerate until the validators agree on one.
    fee_rate_default_sat_per_kvb: u64,
    /// Greatest feerate of a batch.
    fee_rate_max_sat_per_kvb: u64,
    /// Deposits are credited only while the chain's view of Bitcoin is at most this old.
    header_freshness_s: u32,
    /// Most coins that the peg holds.
    coins_max: u32,
    /// A refresh takes coins this many Bitcoin blocks before sweep_age.
    refresh_margin_bitcoin_blocks: u16,
    max_open_refreshes: u32,
    max_open_batches: u32,
    /// Most coins that one batch spends.
    max_inputs: u32,
    /// Most withdrawals that one batch pays.
    max_payees: u32,
    /// Least distance between two batches, in blocks of this chain.
    batch_interval_blocks: u32,
    /// A withdrawal that has waited so many blocks of this chain may pay any fee that leaves it 546 sat.
    request_max_wait_blocks: u32,
    /// A batch can be replaced so many Bitcoin blocks after its newest version was fixed.
    replace_after_bitcoin_blocks: u32,
    /// A feerate quote counts for so many blocks of this chain.
    quote_age_blocks: u32,
    /// Deposits to an ended epoch are credited if mined at most this many Bitcoin blocks after its end.
    epoch_grace_bitcoin_blocks: u16,
    /// What a batch weighs without inputs and outputs.
    batch_overhead_weight_wu: u64,
    /// What the largest output of a batch weighs.
    output_weight_wu: u64,
}

/// `GET /v1/chain`.
pub(in super::super) async fn chain<L: Live>(app: &Arc<App<L>>) -> Result<Answer, Refusal> {
    let set = app.validators.clone();
    let spec = Arc::clone(&app.chain.spec);
    app.read(move |reader| {
        let total = set.total_power();
        let json = ChainJson {
            network: spec.name().to_owned(),
            chain_id: spec.chain_id().block_hash(),
            chainspec_hash: spec.hash().to_string(),
            identity: spec.identity().to_string(),
            genesis_hash: reader.header(Height(0))?.block_hash(),
            genesis_time_s: spec.genesis_time(),
            finality: FinalityRuleJson {
                rule: FINALITY,
                confirmations_needed: 1,
                first_certified_height: LAST_DERIVED_HEIGHT.to_u32() + 1,
                validators: set.members().len(),
                total_power: total,
                quorum_power: quorum_power(total),
            },
            blocks: BlockRulesJson {
                interval_ms: spec.params().block_interval_ms,
                max_weight_wu: MAX_BLOCK_WEIGHT.to_wu(),
                coinbase_maturity_blocks: COINBASE_MATURITY,
            },
            bitcoin: bitcoin(&spec),
            peg: peg(spec.params()),
            epochs: vec![EpochJson::of(reader.tip().peg())],
        };
        Answer::json(&json, Keep::Never)
    })
    .await
}

fn bitcoin(spec: &ChainSpec) -> BitcoinJson {
    let start = spec.bitcoin();
    BitcoinJson {
        network: start.network().to_string(),
        worthless: start.network() != Network::Bitcoin,
        start_height: start.height().0,
        start_hash: start.header().block_hash(),
    }
}

fn peg(params: &Params) -> PegParamsJson {
    // Taken apart in full, so that a new field cannot be left out.
    let Params {
        identity: _,
        block_interval_ms: _,
        peg_out_min,
        peg_out_max,
        peg_out_fee_max,
        peg_in_min,
        batch_value_max,
        value_per_day_max,
        change_unit,
        fee_rate_default,
        fee_rate_max,
        final_depth,
        fork_depth,
        header_freshness_s,
        coins_max,
        refresh_margin,
        max_open_refreshes,
        max_open_batches,
        max_inputs,
        max_payees,
        batch_interval,
        request_max_wait,
        replace_after,
        quote_age,
        epoch_grace,
    } = *params;
    PegParamsJson {
        final_depth_bitcoin_blocks: final_depth,
        fork_depth_bitcoin_blocks: fork_depth,
        peg_in_min_sat: peg_in_min.to_sat(),
        peg_out_min_sat: peg_out_min.to_sat(),
        peg_out_max_sat: peg_out_max.to_sat(),
        peg_out_fee_max_sat: peg_out_fee_max.to_sat(),
        batch_value_max_sat: batch_value_max.to_sat(),
        value_per_day_max_sat: value_per_day_max.to_sat(),
        change_unit_sat: change_unit.to_sat(),
        fee_rate_default_sat_per_kvb: fee_rate_default.0,
        fee_rate_max_sat_per_kvb: fee_rate_max.0,
        header_freshness_s,
        coins_max,
        refresh_margin_bitcoin_blocks: refresh_margin,
        max_open_refreshes,
        max_open_batches,
        max_inputs,
        max_payees,
        batch_interval_blocks: batch_interval,
        request_max_wait_blocks: request_max_wait,
        replace_after_bitcoin_blocks: replace_after,
        quote_age_blocks: quote_age,
        epoch_grace_bitcoin_blocks: epoch_grace,
        batch_overhead_weight_wu: BATCH_OVERHEAD_WEIGHT.to_wu(),
        output_weight_wu: OUTPUT_WEIGHT.to_wu(),
    }
}
