//! Causeway's benches: ratios in one run against named peers. `scripts/bench NAME [--quick] [--json FILE]` runs them.

#![expect(clippy::print_stdout, reason = "the figures are what this program is for")]

mod blocks;
mod chain;
mod core_chain;
mod measure;
mod network;
mod peg;
mod rest;
mod worst;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "causeway-bench", about, disable_version_flag = true)]
struct Cli {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Validates full blocks from bytes to connected, beside Bitcoin Core's engine and libsecp256k1 alone.
    Chain(Options),
    /// Four validator processes: time to decide, time to be final, transactions a second, CPU.
    Network {
        #[command(flatten)]
        options: Options,
        /// Instead: how long votes take while strangers flood the validators with transactions and forged votes, over how
        /// long they take without.
        #[arg(long)]
        flood: bool,
    },
    /// The peg: scripts, signing sessions, sizes of inputs, and the whole way on a devnet.
    Peg(Options),
    /// REST: requests a second and their times, on a long chain while blocks arrive.
    Rest(Options),
    /// The dearest valid blocks, beside one with 80,000 distinct checks in P2WSH.
    Worst(Options),
    /// One of the processes that flood.
    #[command(hide = true)]
    Flooder(network::flooder::Arguments),
}

/// What every bench takes.
#[derive(Debug, Args)]
struct Options {
    /// Smaller blocks, or fewer: for a look, not for a claim.
    #[arg(long)]
    quick: bool,
    /// Writes the figures to this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    match Cli::parse().bench {
        Bench::Chain(options) => chain::run(&options),
        Bench::Network { options, flood: false } => network::run(&options),
        Bench::Network { options, flood: true } => network::flood::run(&options),
        Bench::Peg(options) => peg::run(&options),
        Bench::Rest(options) => rest::run(&options),
        Bench::Worst(options) => worst::run(&options),
        Bench::Flooder(arguments) => network::flooder::run(arguments),
    }
}
