//! Runs whole nodes in virtual time, under faults and among liars, and checks what they do: `scripts/simulate`.

#![expect(clippy::print_stdout, reason = "the figures are what this program is for")]

mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use causeway_tests::sim::{Plan, SCENARIOS, Scenario, World, run};
use clap::Parser;

use table::Row;

#[derive(Debug, Parser)]
#[command(name = "causeway-simulate", about, disable_version_flag = true)]
struct Cli {
    /// Runs of each scenario.
    #[arg(long, value_name = "N", default_value_t = 10)]
    seeds: u64,
    /// The first seed.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    first: u64,
    /// Heights with trouble in each run [default: the scenario's own].
    #[arg(long, value_name = "H")]
    heights: Option<u32>,
    /// A scenario, several with commas between them, or all.
    #[arg(long, value_name = "NAME", default_value = "all", value_delimiter = ',')]
    scenario: Vec<String>,
    /// Writes the figures to this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Runs one scenario with this seed alone, and prints everything that happens.
    #[arg(long, value_name = "SEED")]
    trace: Option<u64>,
}

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let cli = Cli::parse();
    let scenarios = scenarios(&cli.scenario)?;
    if let Some(seed) = cli.trace {
        let [scenario] = scenarios[..] else { return Err("--trace needs one --scenario".into()) };
        return Ok(trace(scenario, seed, cli.heights));
    }
    let mut rows = Vec::new();
    for scenario in scenarios {
        let started = Instant::now();
        let mut row = Row::new(scenario);
        for seed in cli.first..cli.first.saturating_add(cli.seeds) {
            let outcome = run(scenario, seed, cli.heights);
            for violation in &outcome.violations {
                let (check, at) = (violation.check.name(), violation.at);
                println!("FAILED {} seed {seed} at {at:?}: {check}: {}", scenario.name(), violation.what);
            }
            row.add(&outcome);
        }
        row.seconds = started.elapsed().as_secs_f64();
        table::progress(&row);
        rows.push(row);
    }
    table::print(&rows);
    if let Some(file) = &cli.json {
        std::fs::write(file, serde_json::to_string_pretty(&rows)?)?;
    }
    Ok(if rows.iter().all(|row| row.violations == 0) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn scenarios(names: &[String]) -> Result<Vec<Scenario>, String> {
    if names.iter().any(|name| name == "all") {
        return Ok(SCENARIOS.to_vec());
    }
    let of_name = |name: &String| {
        let known = || SCENARIOS.map(Scenario::name).join(", ");
        Scenario::of_name(name).ok_or_else(|| format!("no scenario {name}; there are: {}", known()))
    };
    names.iter().map(of_name).collect()
}

fn trace(scenario: Scenario, seed: u64, heights: Option<u32>) -> ExitCode {
    let plan = Plan::new(scenario, seed, heights);
    println!("{plan:#?}");
    let outcome = World::new(plan).with_listener(Box::new(|line| println!("{line}"))).run();
    println!("{:#?}\ntrace {:016x}", outcome.stats, outcome.trace);
    for violation in &outcome.violations {
        println!("FAILED at {:?}: {}: {}", violation.at, violation.check.name(), violation.what);
    }
    if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
