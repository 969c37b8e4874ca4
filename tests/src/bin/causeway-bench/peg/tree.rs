//! The scripts of an epoch: made from its keys, and read from the cached form.

use causeway_consensus::peg::script::EpochScripts;
use rayon::ThreadPoolBuilder;
use serde::Serialize;

use super::federation::Federation;
use crate::measure::{Sample, Spread, measure};

#[derive(Debug, Serialize)]
pub(super) struct Row {
    federation: String,
    members: usize,
    threshold: u32,
    /// Subsets, and the leaves of `multi_a` and of the recovery keys.
    leaves: u64,
    /// The build in one thread, where CPU and wall are the same work.
    build_cpu_ms: Spread,
    build_wall_ms: Spread,
    /// The build on all cores.
    build_all_cores_wall_ms: Spread,
    /// The cached form.
    cached_bytes: usize,
    decode_cpu_ms: Spread,
    decode_wall_ms: Spread,
}

/// Measures and prints one federation's scripts.
pub(super) fn measured(federation: &Federation, runs: usize) -> Result<Row, Box<dyn std::error::Error>> {
    let epoch = federation.epoch();
    let one_thread = ThreadPoolBuilder::new().num_threads(1).build()?;
    let cached = federation.scripts.encode();
    let (mut build, mut all_cores, mut decode) = (Vec::new(), Vec::new(), Vec::new());
    // The first run warms up, and does not count.
    for run in 0..=runs {
        let (one, one_sample) = one_thread.install(|| measure(|| EpochScripts::build(epoch)));
        let (all, all_sample) = measure(|| EpochScripts::build(epoch));
        let (decoded, decode_sample) = one_thread.install(|| measure(|| EpochScripts::decode(epoch, &cached)));
        if one != *federation.scripts || all != one || decoded? != one {
            return Err("the scripts of one epoch differ: this is a bug".into());
        }
        if run > 0 {
            build.push(one_sample);
            all_cores.push(all_sample);
            decode.push(decode_sample);
        }
    }
    let cpu = |samples: &[Sample]| Spread::of(samples.iter().map(|sample| sample.cpu_ms));
    let wall = |samples: &[Sample]| Spread::of(samples.iter().map(|sample| sample.wall_ms));
    let row = Row {
        federation: federation.name(),
        members: epoch.members().len(),
        threshold: epoch.threshold(),
        leaves: epoch.subset_count() + 2,
        build_cpu_ms: cpu(&build),
        build_wall_ms: wall(&build),
        build_all_cores_wall_ms: wall(&all_cores),
        cached_bytes: cached.len(),
        decode_cpu_ms: cpu(&decode),
        decode_wall_ms: wall(&decode),
    };
    let text = |spread: &Spread| format!("{:.1} ms ({:.1} to {:.1})", spread.median, spread.min, spread.max);
    println!(
        "  {:<9} {:>4} leaves; build: CPU {}, wall {}, on all cores {}; {} bytes cached, decode: CPU {}, wall {}",
        row.federation,
        row.leaves,
        text(&row.build_cpu_ms),
        text(&row.build_wall_ms),
        text(&row.build_all_cores_wall_ms),
        row.cached_bytes,
        text(&row.decode_cpu_ms),
        text(&row.decode_wall_ms),
    );
    Ok(row)
}
