//! `chain`: full blocks, from bytes to connected; and what the indexes add to a commit.

mod index;

use std::num::NonZeroUsize;
use std::sync::Arc;

use bitcoin::{Amount, OutPoint, Transaction, TxOut};
use causeway_chainspec::{ChainSpec, Height};
use causeway_consensus::{ChainView, Coin, Workers};
use causeway_tests::chain::MemoryChain;
use causeway_tests::wallet::{Kind, Owner, Signature, Spendable, spend};
use rayon::prelude::*;
use secp256k1::SECP256K1;
use serde::Serialize;

use crate::Options;
use crate::blocks::{BlockKind, COIN_SAT, KINDS, Workload, coin_outputs, owners, workload};
use crate::core_chain::{CoreChain, CoreMiner, bytes};
use crate::measure::{Sample, Spread, load_average, measure};

/// Pairs of runs that count, after one that does not.
const PAIRS: usize = 7;

/// Blocks in front of the measured ones, so that coinbases can be spent.
const MATURITY_BLOCKS: usize = 100 + PAIRS + 1;

const THREADS: [usize; 2] = [1, 2];

#[derive(Debug, Serialize)]
struct Report {
    bench: &'static str,
    quick: bool,
    pairs: usize,
    /// One-minute load averages before and after.
    load_average: [Option<f64>; 2],
    results: Vec<Row>,
    index: index::IndexRow,
}

#[derive(Debug, Serialize)]
struct Row {
    kind: &'static str,
    threads: usize,
    weight: u64,
    transactions: usize,
    inputs: usize,
    signatures: usize,
    causeway: Times,
    core: Times,
    secp256k1: Times,
    /// Core's time over ours: above 1, we are faster.
    core_over_causeway_cpu: Spread,
    core_over_causeway_wall: Spread,
    /// Our time over that of the bare signatures.
    causeway_over_secp256k1_cpu: Spread,
}

#[derive(Debug, Serialize)]
struct Times {
    cpu_ms: Spread,
    wall_ms: Spread,
}

impl Times {
    fn of(samples: &[Sample]) -> Self {
        let cpu_ms = Spread::of(samples.iter().map(|sample| sample.cpu_ms));
        let wall_ms = Spread::of(samples.iter().map(|sample| sample.wall_ms));
        Self { cpu_ms, wall_ms }
    }
}

/// Blocks for one kind, to be run with any number of threads.
struct Prepared {
    /// What Core needs first.
    prelude: Vec<Vec<u8>>,
    rounds: Vec<Round>,
}

struct Round {
    /// Core's block that creates the coins.
    funding: Vec<u8>,
    coins: Vec<(OutPoint, TxOut)>,
    workload: Workload,
    core_block: Vec<u8>,
}

/// Runs the bench and prints its table.
pub(crate) fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    bitcoinkernel::disable_logging();
    let before = load_average();
    println!(
        "Blocks from bytes to connected: coins in memory, no signature cache. {PAIRS} pairs each, medians (min to max)."
    );
    println!(
        "core: Bitcoin Core's engine, process_block. secp256k1: the block's signatures alone, as libsecp256k1 verifies them."
    );
    let mut results = Vec::new();
    for kind in &KINDS {
        println!("\n{}: making blocks ...", kind.title);
        let prepared = prepare(kind, options.quick);
        for threads in THREADS {
            let row = run_one(kind, &prepared, threads)?;
            print_row(&row);
            results.push(row);
        }
    }
    let index = index::run(options.quick)?;
    index::print(&index);
    let load_average = [before, load_average()];
    let report = Report { bench: "chain", quick: options.quick, pairs: PAIRS, load_average, results, index };
    if let [Some(before), Some(after)] = report.load_average {
        println!("\nload average: {before} before, {after} after");
    }
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)?;
        println!("figures written to {}", path.display());
    }
    Ok(())
}

fn prepare(kind: &BlockKind, quick: bool) -> Prepared {
    let owners = owners();
    let mut miner = CoreMiner::new();
    let treasurer = &owners[0];
    let script = treasurer.script_pubkey(Kind::P2wpkh);
    let coinbases: Vec<_> = (0..MATURITY_BLOCKS).map(|_| miner.mine(script.clone(), vec![])).collect();
    let rounds = (0..=PAIRS)
        .map(|round| {
            let funding =
                funding_transaction(&coinbases[round].txdata[0], treasurer, coin_outputs(kind, &owners, quick));
            let funding_block = miner.mine(script.clone(), vec![funding.clone()]);
            let workload = workload(kind, &owners, &funding);
            let core_block = miner.mine(script.clone(), workload.transactions.clone());
            let txid = funding.compute_txid();
            let coins = (0u32..).zip(funding.output).map(|(vout, output)| (OutPoint { txid, vout }, output)).collect();
            Round { funding: bytes(&funding_block), coins, workload, core_block: bytes(&core_block) }
        })
        .collect();
    Prepared { prelude: coinbases.iter().map(bytes).collect(), rounds }
}

/// Spends a coinbase to the coins of one round; what is left is its fee.
fn funding_transaction(coinbase: &Transaction, owner: &Owner, outputs: Vec<TxOut>) -> Transaction {
    let outpoint = OutPoint { txid: coinbase.compute_txid(), vout: 0 };
    let output = coinbase.output[0].clone();
    assert!(output.value >= Amount::from_sat(COIN_SAT) * outputs.len() as u64, "one coinbase pays for a round");
    spend(&[Spendable { outpoint, output, owner: owner.clone(), kind: Kind::P2wpkh }], outputs)
}

fn run_one(kind: &BlockKind, prepared: &Prepared, threads: usize) -> Result<Row, Box<dyn std::error::Error>> {
    let core = CoreChain::new(threads)?;
    for block in &prepared.prelude {
        core.process(block)?;
    }
    let mut chain = MemoryChain::new(ChainSpec::built_in("devnet")?);
    chain.workers = Arc::new(Workers::new(NonZeroUsize::new(threads).ok_or("no threads")?));
    let mut samples = [const { Vec::new() }; 3];
    let mut shape = (0, 0);
    for (index, round) in prepared.rounds.iter().enumerate() {
        core.process(&round.funding)?;
        for (outpoint, output) in &round.coins {
            let coin = Coin { output: output.clone(), height: Height(1), coinbase: false };
            chain.coins_mut().insert(*outpoint, coin);
        }
        let block = chain.next_block(round.workload.fees, round.workload.transactions.clone());
        shape = (block.weight().to_wu(), block.txdata.len());
        let block = bytes(&block);

        // Whoever goes first warms the caches for nobody: the other goes first next time.
        let run_core = || measure(|| core.process(&round.core_block));
        let run_ours = || measure(|| chain.validate(block));
        let (core_sample, ours) = if index % 2 == 0 {
            let (result, sample) = run_core();
            result?;
            (sample, run_ours())
        } else {
            let ours = run_ours();
            let (result, sample) = run_core();
            result?;
            (sample, ours)
        };
        let (connected, our_sample) = ours;
        let connected = connected?;
        assert_eq!(connected.tip().height().to_u32(), chain.tip().height().to_u32() + 1);
        let (valid, bare_sample) = measure(|| chain.workers.run(|| verify_all(&round.workload.signatures)));
        assert!(valid, "the block's own signatures are valid");
        if index > 0 {
            for (samples, sample) in samples.iter_mut().zip([our_sample, core_sample, bare_sample]) {
                samples.push(sample);
            }
        }
    }
    let [ours, core, bare] = samples;
    let ratio =
        |a: &[Sample], b: &[Sample], of: fn(&Sample) -> f64| Spread::of(a.iter().zip(b).map(|(a, b)| of(a) / of(b)));
    let round = &prepared.rounds[0];
    Ok(Row {
        kind: kind.name,
        threads,
        weight: shape.0,
        transactions: shape.1,
        inputs: round.coins.len(),
        signatures: round.workload.signatures.len(),
        core_over_causeway_cpu: ratio(&core, &ours, |sample| sample.cpu_ms),
        core_over_causeway_wall: ratio(&core, &ours, |sample| sample.wall_ms),
        causeway_over_secp256k1_cpu: ratio(&ours, &bare, |sample| sample.cpu_ms),
        causeway: Times::of(&ours),
        core: Times::of(&core),
        secp256k1: Times::of(&bare),
    })
}

/// Whether all signatures are valid, verified on rayon's current threads.
fn verify_all(signatures: &[Signature]) -> bool {
    signatures.par_iter().all(|signature| match signature {
        Signature::Schnorr(signature, message, key) => {
            let key = secp256k1::XOnlyPublicKey::from_slice(&key.serialize());
            key.is_ok_and(|key| SECP256K1.verify_schnorr(signature, message, &key).is_ok())
        }
        Signature::Ecdsa(signature, message, key) => {
            let key = secp256k1::PublicKey::from_slice(&key.serialize());
            key.is_ok_and(|key| SECP256K1.verify_ecdsa(message, signature, &key).is_ok())
        }
    })
}

fn print_row(row: &Row) {
    let Row { threads, weight, transactions, inputs, signatures, .. } = row;
    if *threads == THREADS[0] {
        println!("  {weight} weight units, {transactions} transactions, {inputs} inputs, {signatures} signatures");
    }
    let times = |times: &Times| {
        let Times { cpu_ms, wall_ms } = times;
        format!("CPU {:6.1} ms ({:.1} to {:.1}), wall {:6.1} ms", cpu_ms.median, cpu_ms.min, cpu_ms.max, wall_ms.median)
    };
    println!("  {threads} thread{}", if *threads == 1 { "" } else { "s" });
    println!("    causeway   {}", times(&row.causeway));
    println!("    core       {}", times(&row.core));
    println!("    secp256k1  {}", times(&row.secp256k1));
    let ratio = |ratio: &Spread| format!("{:.3} ({:.3} to {:.3})", ratio.median, ratio.min, ratio.max);
    println!(
        "    core / causeway: CPU {}, wall {}",
        ratio(&row.core_over_causeway_cpu),
        ratio(&row.core_over_causeway_wall)
    );
    println!("    causeway / secp256k1: CPU {}", ratio(&row.causeway_over_secp256k1_cpu));
}
