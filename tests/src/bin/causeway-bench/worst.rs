//! `worst`: valid blocks that are dear to verify and cheap to make, each beside the dearest that Bitcoin's own limits allow.

mod scripts;
mod shapes;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use bitcoin::consensus::{deserialize, serialize};
use bitcoin::{Block, OutPoint, TxOut};
use causeway_chainspec::{ChainSpec, PegScript};
use causeway_consensus::script::{PreparedTransaction, Verdict};
use causeway_consensus::state::{CoinFlush, Store, StoreOptions};
use causeway_consensus::{
    ChainView, ConnectedBlock, SerializedTransaction, Workers, check_block, connect_block, parse_block, resolve,
};
use causeway_tests::chain::MemoryChain;
use causeway_tests::parent::fund;
use serde::Serialize;
use tempfile::TempDir;

use crate::Options;
use crate::measure::{Sample, Spread, load_average, measure};
use shapes::{REFERENCE, SHAPES, Scene, Shape, Stage};

/// Measurements of each block.
const ROUNDS: usize = 3;

/// A quick block has one part of so many of a full one.
const QUICK_SHARE: usize = 8;

/// What no block may cost more than, in CPU time of the reference.
const LIMIT: f64 = 1.5;

#[derive(Debug, Serialize)]
struct Report {
    bench: &'static str,
    quick: bool,
    rounds: usize,
    /// The processor's name, and whether it has instructions for SHA-256, which the hashing blocks depend on.
    processor: Option<String>,
    sha_instructions: Option<bool>,
    /// One-minute load averages before and after.
    load_average: [Option<f64>; 2],
    limit: f64,
    /// Whether no block costs more than `limit` times the reference.
    within_limit: bool,
    reference: Row,
    results: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    title: &'static str,
    weight: u64,
    transactions: usize,
    inputs: usize,
    /// From bytes to connected, and committed where `committed` says so, on one thread.
    cpu_ms: Spread,
    /// The same over the CPU time of the reference, taken in turn with it.
    cpu_over_reference: Spread,
    committed: bool,
    /// The input that takes longest by itself.
    dearest_input_ms: f64,
    /// Wall time on one thread of verification, and on two.
    seconds_1_thread: Spread,
    seconds_2_threads: Spread,
}

/// Runs the bench and prints its table.
pub(crate) fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    bitcoinkernel::disable_logging();
    let before = load_average();
    let (share, rounds) = if options.quick { (QUICK_SHARE, 1) } else { (1, ROUNDS) };
    let (processor, sha_instructions) = processor();
    println!(
        "Valid blocks that are dear to verify, from bytes to connected (c: and committed), nothing known of them before."
    );
    println!("ratio: CPU time over that of the first, which is the dearest that Bitcoin's own limits allow.");
    println!("processor: {}", processor.as_deref().unwrap_or("unknown"));
    if sha_instructions == Some(false) {
        println!("It has no instructions for SHA-256.");
    }
    println!("\n{:58} {:>6} {:>9} {:>9} {:>9} {:>9}", "block", "ratio", "CPU ms", "input ms", "s, 1 thr", "s, 2 thr");
    let bench = Bench::new(share)?;
    let reference = bench.reference()?;
    print_row(&reference);
    let mut results = Vec::new();
    for shape in &SHAPES {
        let row = match shape.stage {
            Stage::Cold => bench.measure_cold(shape)?,
            Stage::Connected | Stage::Committed => bench.measure(shape, rounds)?,
        };
        print_row(&row);
        results.push(row);
    }
    let within_limit = results.iter().all(|row| row.cpu_over_reference.median <= LIMIT);
    println!(
        "\n{} of {LIMIT}",
        if within_limit { "no block is above the limit" } else { "A BLOCK IS ABOVE THE LIMIT" }
    );
    let load_average = [before, load_average()];
    if let [Some(before), Some(after)] = load_average {
        println!("load average: {before} before, {after} after");
    }
    let report = Report {
        bench: "worst",
        quick: options.quick,
        rounds,
        processor,
        sha_instructions,
        load_average,
        limit: LIMIT,
        within_limit,
        reference,
        results,
    };
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)?;
        println!("figures written to {}", path.display());
    }
    Ok(())
}

struct Bench {
    spec: ChainSpec,
    /// One thread, and two.
    workers: [Arc<Workers>; 2],
    share: usize,
    /// The reference, which every block is measured in turn with.
    scene: Scene,
    block: Vec<u8>,
}

impl Bench {
    fn new(share: usize) -> Result<Self, Box<dyn std::error::Error>> {
        let spec = ChainSpec::built_in("devnet")?;
        let threads = |count| NonZeroUsize::new(count).map(|count| Arc::new(Workers::new(count)));
        let workers = [threads(1).ok_or("no threads")?, threads(2).ok_or("no threads")?];
        let mut scene = Scene::new(&spec, &workers[0], share);
        let block = (REFERENCE.make)(&mut scene);
        let bench = Self { spec, workers, share, scene, block };
        // The first run warms up, and has Core's library look for its instructions.
        bench.run_reference()?;
        Ok(bench)
    }

    /// Validates the reference with one thread.
    fn run_reference(&self) -> Result<Sample, Box<dyn std::error::Error>> {
        self.run_reference_on(&self.workers[0])
    }

    fn run_reference_on(&self, workers: &Workers) -> Result<Sample, Box<dyn std::error::Error>> {
        let (connected, sample) = measure(|| connect(&self.scene.chain, &self.spec, &self.block, workers));
        connected?;
        Ok(sample)
    }

    fn reference(&self) -> Result<Row, Box<dyn std::error::Error>> {
        let (one, two, again) =
            (self.run_reference()?, self.run_reference_on(&self.workers[1])?, self.run_reference()?);
        row(&REFERENCE, &self.scene.chain, &self.block, &[(again, one)], &[two])
    }

    /// Makes the block of a shape and measures it so many times, each time beside the reference.
    fn measure(&self, shape: &Shape, rounds: usize) -> Result<Row, Box<dyn std::error::Error>> {
        let mut scene = Scene::new(&self.spec, &self.workers[0], self.share);
        let home = TempDir::new()?;
        let store = (shape.stage == Stage::Committed).then(|| self.open(&home)).transpose()?;
        let mut block = (shape.make)(&mut scene);
        let (mut pairs, mut on_two) = (Vec::new(), Vec::new());
        for round in 1..=rounds {
            let run = |workers: &Workers| connect(&scene.chain, &self.spec, &block, workers);
            let (again, mut two) = measure(|| run(&self.workers[1]));
            again?;
            let reference = self.run_reference()?;
            let (connected, mut one) = measure(|| run(&self.workers[0]));
            let connected = connected?;
            if let Some(store) = &store {
                let (committed, commit) = measure(|| store.commit(&connected, b"certificate", CoinFlush::WithBlock));
                committed?;
                (one, two) = (one.plus(commit), two.plus(commit));
            }
            pairs.push((reference, one));
            on_two.push(two);
            if store.is_some() && round < rounds {
                scene.chain.apply(&connected);
                block = (shape.make)(&mut scene);
            }
        }
        row(shape, &scene.chain, &block, &pairs, &on_two)
    }

    /// Makes the block whose coins are spent, puts it on disk, and measures the block that spends them in a store that was
    /// opened just before. Once: the coins of a second time would have to be paid for.
    fn measure_cold(&self, shape: &Shape) -> Result<Row, Box<dyn std::error::Error>> {
        let mut scene = Scene::new(&self.spec, &self.workers[0], self.share);
        let home = TempDir::new()?;
        let store = self.open(&home)?;
        // Coins that the store knows, since it counts them when it is opened.
        let (funding, funds) = fund(&mut scene.chain.clone());
        let put = |scene: &mut Scene, block: &[u8]| -> Result<(), Box<dyn std::error::Error>> {
            let connected = connect(&scene.chain, &self.spec, block, &self.workers[0])?;
            store.commit(&connected, b"certificate", CoinFlush::WithBlock)?;
            scene.chain.apply(&connected);
            Ok(())
        };
        for block in &funding {
            put(&mut scene, &serialize(block))?;
        }
        scene.funds = Some(funds);
        let made = (shape.make)(&mut scene);
        put(&mut scene, &made)?;
        drop(store);
        let block = scene.spend_all(&deserialize(&made)?);

        let store = self.open(&home)?;
        let (again, two) = measure(|| connect(&store, &self.spec, &block, &self.workers[1]));
        again?;
        drop(store);
        let store = self.open(&home)?;
        let reference = self.run_reference()?;
        let (connected, one) = measure(|| connect(&store, &self.spec, &block, &self.workers[0]));
        let connected = connected?;
        let (committed, commit) = measure(|| store.commit(&connected, b"certificate", CoinFlush::WithBlock));
        committed?;
        row(shape, &scene.chain, &block, &[(reference, one.plus(commit))], &[two.plus(commit)])
    }

    fn open(&self, home: &TempDir) -> Result<Store, Box<dyn std::error::Error>> {
        Ok(Store::open(home.path(), &self.spec, StoreOptions::default(), &self.workers[0])?)
    }
}

/// Takes a block from bytes to connected.
fn connect(
    view: &impl ChainView,
    spec: &ChainSpec,
    block: &[u8],
    workers: &Workers,
) -> Result<ConnectedBlock, Box<dyn std::error::Error>> {
    let checked = check_block(parse_block(block.to_vec())?, spec.params())?;
    Ok(connect_block(resolve(checked, view)?, workers, None)?)
}

/// The figures of a block, which stands on the chain's tip, from pairs of the reference and it.
fn row(
    shape: &Shape,
    chain: &MemoryChain,
    block: &[u8],
    pairs: &[(Sample, Sample)],
    on_two: &[Sample],
) -> Result<Row, Box<dyn std::error::Error>> {
    let decoded: Block = deserialize(block)?;
    Ok(Row {
        name: shape.name,
        title: shape.title,
        weight: decoded.weight().to_wu(),
        transactions: decoded.txdata.len(),
        inputs: decoded.txdata.iter().skip(1).map(|transaction| transaction.input.len()).sum(),
        cpu_ms: Spread::of(pairs.iter().map(|(_, sample)| sample.cpu_ms)),
        cpu_over_reference: Spread::of(pairs.iter().map(|(reference, sample)| sample.cpu_ms / reference.cpu_ms)),
        committed: shape.stage != Stage::Connected,
        dearest_input_ms: dearest_input_ms(chain, &decoded)?,
        seconds_1_thread: Spread::of(pairs.iter().map(|(_, sample)| sample.wall_ms / 1e3)),
        seconds_2_threads: Spread::of(on_two.iter().map(|sample| sample.wall_ms / 1e3)),
    })
}

/// What the input takes that takes longest by itself; 0 if none is verified.
fn dearest_input_ms(chain: &MemoryChain, block: &Block) -> Result<f64, Box<dyn std::error::Error>> {
    let mut dearest = 0.0f64;
    for transaction in block.txdata.iter().skip(1) {
        let outpoints: Vec<OutPoint> = transaction.input.iter().map(|input| input.previous_output).collect();
        let coins: Option<Vec<TxOut>> =
            chain.coins(&outpoints)?.into_iter().map(|coin| coin.map(|coin| coin.output)).collect();
        let coins = coins.ok_or("a coin of the block is not there")?;
        if coins.iter().any(|coin| PegScript::of(&coin.script_pubkey).is_some()) {
            continue;
        }
        let prepared = PreparedTransaction::new(SerializedTransaction::of(transaction), coins.iter().collect());
        for input in 0..coins.len() {
            let start = Instant::now();
            let (verdict, _) = prepared.verify_input(input)?;
            dearest = dearest.max(start.elapsed().as_secs_f64() * 1e3);
            assert_eq!(verdict, Verdict::Valid, "the block is valid");
        }
    }
    Ok(dearest)
}

fn print_row(row: &Row) {
    let mark = if row.committed { "c" } else { " " };
    println!(
        "{mark} {:56} {:6.2} {:9.0} {:9.1} {:9.2} {:9.2}",
        row.title,
        row.cpu_over_reference.median,
        row.cpu_ms.median,
        row.dearest_input_ms,
        row.seconds_1_thread.median,
        row.seconds_2_threads.median
    );
}

/// The processor's name, and whether it has instructions for SHA-256, where the system tells.
fn processor() -> (Option<String>, Option<bool>) {
    let Ok(text) = std::fs::read_to_string("/proc/cpuinfo") else { return (None, None) };
    let value = |key: &str| {
        let line = text.lines().find(|line| line.split(':').next().is_some_and(|name| name.trim() == key))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    // x86 and Arm, in this order.
    let flags = value("flags").or_else(|| value("Features"));
    let sha = flags.map(|flags| flags.split_whitespace().any(|flag| flag == "sha_ni" || flag == "sha2"));
    (value("model name"), sha)
}
