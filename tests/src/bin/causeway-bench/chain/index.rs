//! What the indexes cost: the commit of a full block with them and without, beside its validation.

use std::num::NonZeroUsize;
use std::sync::Arc;

use bitcoin::consensus::serialize;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use causeway_chainspec::{ChainSpec, Height};
use causeway_consensus::state::{CoinFlush, Index, Store, StoreOptions};
use causeway_consensus::{Coin, Workers};
use causeway_tests::chain::MemoryChain;
use causeway_tests::wallet::{Kind, Owner, Spendable, spend};
use serde::Serialize;
use tempfile::TempDir;

use super::{PAIRS, Times};
use crate::blocks::COIN_SAT;
use crate::measure::{Spread, measure};

/// Inputs and outputs of a full block of two-in-two-out transactions.
const INPUTS: u64 = 9_000;

/// What each transaction pays for two coins.
const FEE: Amount = Amount::from_sat(2 * COIN_SAT - 2 * OUTPUT_SAT);
const OUTPUT_SAT: u64 = 1_000;

/// The indexes on two-in-two-out blocks, whose every input and output has a script of its own, with one thread.
#[derive(Debug, Serialize)]
pub(super) struct IndexRow {
    kind: &'static str,
    transactions: usize,
    inputs: u64,
    /// From bytes to connected, with coins in memory and no signature cache.
    validation: Times,
    commit_without_index: Times,
    commit_with_index: Times,
    /// The difference of the commits over the validation.
    index_over_validation_cpu: Spread,
    index_over_validation_wall: Spread,
}

/// Measures them.
pub(super) fn run(quick: bool) -> Result<IndexRow, Box<dyn std::error::Error>> {
    let inputs = if quick { INPUTS / 8 / 2 * 2 } else { INPUTS };
    let spec = ChainSpec::built_in("devnet")?;
    let workers = Arc::new(Workers::new(NonZeroUsize::MIN));
    let homes = [TempDir::new()?, TempDir::new()?];
    let open = |home: &TempDir, index| {
        let options = StoreOptions { index, ..StoreOptions::default() };
        Store::open(home.path(), &spec, options, &workers)
    };
    let stores = [open(&homes[0], Index::None)?, open(&homes[1], Index::All)?];
    let mut chain = MemoryChain::with_workers(spec.clone(), Arc::clone(&workers));
    let mut samples = [const { Vec::new() }; 3];
    for round in 0..=PAIRS as u64 {
        let coins: Vec<Spendable> = (0..inputs).map(|number| coin(round * INPUTS + number)).collect();
        for coin in &coins {
            let known = Coin { output: coin.output.clone(), height: Height(1), coinbase: false };
            chain.coins_mut().insert(coin.outpoint, known);
        }
        let transactions: Vec<Transaction> = coins.chunks(2).map(|pair| spend(pair, outputs(&pair[0]))).collect();
        let fees = FEE * transactions.len() as u64;
        let block = serialize(&chain.next_block(fees, transactions));
        let (connected, validation) = measure(|| chain.validate(block));
        let connected = connected?;
        let commit = |store: &Store| {
            let (committed, sample) = measure(|| store.commit(&connected, b"certificate", CoinFlush::WithBlock));
            committed.map(|_| sample)
        };
        // Whoever goes first warms the caches for the other.
        let (without, with) = if round % 2 == 0 {
            let without = commit(&stores[0])?;
            (without, commit(&stores[1])?)
        } else {
            let with = commit(&stores[1])?;
            (commit(&stores[0])?, with)
        };
        if round > 0 {
            for (samples, sample) in samples.iter_mut().zip([validation, without, with]) {
                samples.push(sample);
            }
        }
        chain.apply(&connected);
    }
    let [validation, without, with] = &samples;
    let pairs = || validation.iter().zip(without).zip(with);
    Ok(IndexRow {
        kind: "p2tr_two_in_two_out",
        transactions: usize::try_from(inputs / 2 + 1)?,
        inputs,
        index_over_validation_cpu: Spread::of(pairs().map(|((v, a), b)| (b.cpu_ms - a.cpu_ms) / v.cpu_ms)),
        index_over_validation_wall: Spread::of(pairs().map(|((v, a), b)| (b.wall_ms - a.wall_ms) / v.wall_ms)),
        validation: Times::of(validation),
        commit_without_index: Times::of(without),
        commit_with_index: Times::of(with),
    })
}

/// A coin of an own transaction and an own owner.
fn coin(number: u64) -> Spendable {
    let owner = Owner::new(1 << 32 | number);
    let txid = Txid::from_byte_array(sha256::Hash::hash(&number.to_le_bytes()).to_byte_array());
    let output = TxOut { value: Amount::from_sat(COIN_SAT), script_pubkey: owner.script_pubkey(Kind::P2trKey) };
    Spendable { outpoint: OutPoint { txid, vout: 0 }, output, owner, kind: Kind::P2trKey }
}

/// Two outputs with scripts that were never used.
fn outputs(coin: &Spendable) -> Vec<TxOut> {
    let output = |vout: u8| {
        let key = sha256::Hash::hash(&[coin.outpoint.txid.as_ref(), [vout].as_slice()].concat());
        let script_pubkey = ScriptBuf::from_bytes([&[0x51, 0x20], key.as_byte_array().as_slice()].concat());
        TxOut { value: Amount::from_sat(OUTPUT_SAT), script_pubkey }
    };
    vec![output(0), output(1)]
}

pub(super) fn print(row: &IndexRow) {
    let ms = |times: &Times| format!("CPU {:6.1} ms, wall {:6.1} ms", times.cpu_ms.median, times.wall_ms.median);
    println!("\nIndexes, P2TR two-in-two-out, {} inputs, each script used once: 1 thread", row.inputs);
    println!("    validation              {}", ms(&row.validation));
    println!("    commit without indexes  {}", ms(&row.commit_without_index));
    println!("    commit with indexes     {}", ms(&row.commit_with_index));
    let Spread { median, min, max } = row.index_over_validation_cpu;
    println!("    indexes / validation: CPU {median:.3} ({min:.3} to {max:.3})");
}
