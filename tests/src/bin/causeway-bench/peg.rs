//! The peg: the scripts of an epoch, signing sessions, what inputs weigh, and the whole way on a devnet.
//!
//! The peer of a session is libsecp256k1 itself: a member has to check a signature of every signer for every input, so
//! that it could do no better than signers x inputs x one verification, if the rest cost nothing.

mod end_to_end;
mod federation;
mod session;
mod size;
mod tree;

use serde::Serialize;

use crate::Options;
use crate::measure::load_average;
use federation::Federation;

/// Members and threshold.
const FEDERATIONS: [(u32, u32); 2] = [(5, 3), (15, 11)];

/// Inputs of a transaction that is signed.
const INPUTS: [u32; 2] = [1, 16];

#[derive(Debug, Serialize)]
struct Report {
    bench: &'static str,
    quick: bool,
    cores: usize,
    /// Runs behind every figure of trees and sessions.
    runs: usize,
    /// One-minute load averages before and after.
    load_average: [Option<f64>; 2],
    trees: Vec<tree::Row>,
    sessions: Vec<session::Row>,
    sizes: Vec<size::Row>,
    /// None if there is no bitcoind, which `--quick` alone permits.
    end_to_end: Option<end_to_end::Figures>,
}

/// Runs the bench and prints its tables.
pub(crate) fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let quick = options.quick;
    // Known before the first minute has gone.
    let bitcoind = match causeway_node::devnet::bitcoind::find_program(None) {
        Ok(bitcoind) => Some(bitcoind),
        Err(error) if quick => {
            println!("end to end is skipped: {error}");
            None
        }
        // Its words, not its name.
        Err(error) => return Err(error.to_string().into()),
    };
    let before = load_average();
    let cores = std::thread::available_parallelism()?.get();
    let runs = if quick { 3 } else { 7 };
    println!("{cores} cores, {runs} runs each: medians (min to max)");

    let federations = FEDERATIONS.map(|(members, threshold)| Federation::new(members, threshold));
    let federations: Vec<Federation> = federations.into_iter().collect::<Result<_, _>>()?;

    println!("\nscripts of an epoch");
    let trees = federations.iter().map(|federation| tree::measured(federation, runs)).collect::<Result<_, _>>()?;

    println!(
        "\nsigning sessions, all members in one thread; messages arrive at once, and a write to disk takes no time"
    );
    println!("per member: CPU and wall time, virtual time in which it waited, messages received");
    println!("x: CPU over signers x inputs verifications (BIP340) of libsecp256k1; y: with one for each message, too");
    let mut sessions = Vec::new();
    for federation in &federations {
        for inputs in INPUTS {
            if quick && federation.is_large() && inputs > 1 {
                println!("  {}, {inputs} inputs: skipped (--quick)", federation.name());
                continue;
            }
            sessions.extend(session::measured(federation, inputs, runs)?);
        }
    }

    println!("\nsizes: a transaction of one input and one P2TR output, and each further input");
    let mut sizes = Vec::new();
    for federation in &federations {
        sizes.extend(size::measured(federation)?);
    }

    println!("\nend to end on a devnet: Bitcoin's blocks are mined as soon as the last one was seen");
    let end_to_end = match bitcoind {
        Some(bitcoind) => Some(end_to_end::measured(&bitcoind, if quick { 1 } else { 3 })?),
        None => {
            println!("  skipped: there is no bitcoind");
            None
        }
    };

    let load_average = [before, load_average()];
    let report = Report { bench: "peg", quick, cores, runs, load_average, trees, sessions, sizes, end_to_end };
    if let [Some(before), Some(after)] = load_average {
        println!("\nload average: {before} before, {after} after");
    }
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_string_pretty(&report)? + "\n")?;
        println!("figures written to {}", path.display());
    }
    Ok(())
}
