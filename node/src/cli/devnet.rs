//! `causeway devnet`: a network of real processes on this machine.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use causeway_chainspec::ChainSpec;
use clap::Args;
use serde::Serialize;

use super::CliError;
use crate::config::Config;
use crate::devnet::payer::Payer;
use crate::devnet::{DevNode, Devnet, DevnetError, FILE, Process, Shape, get};
use crate::home::Home;

/// How long the nodes may take until they answer.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// How often the nodes are looked after.
const CHECK_EVERY: Duration = Duration::from_millis(500);

/// Payments and blocks of `--once`.
const ONCE_PAYMENTS: usize = 10;

/// What `causeway devnet` is told.
#[derive(Debug, Args)]
pub struct DevnetArgs {
    /// Where the homes are. Made if it is not there; otherwise its network goes on. With --once a temporary one by default.
    #[arg(long, value_name = "DIR", required_unless_present = "once")]
    pub dir: Option<PathBuf>,
    /// Full nodes beside the four validators, in a new directory.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=32))]
    pub full_nodes: u32,
    /// Milliseconds between blocks, in a new directory; by default those of the built-in chain.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(200..=600_000))]
    pub block_interval_ms: Option<u32>,
    /// Makes some payments, prints how long they took to be final, and stops.
    #[arg(long)]
    pub once: bool,
    /// With --once: also writes the figures to this file.
    #[arg(long, value_name = "FILE", requires = "once")]
    pub json: Option<PathBuf>,
}

/// What `--once` has measured.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Nodes that ran.
    pub nodes: usize,
    /// Milliseconds between blocks that the chain aims at.
    pub block_interval_ms: u32,
    /// From the start of the processes until all of them answered, in milliseconds.
    pub start_ms: u64,
    /// Payments that were made, one after the other.
    pub payments: usize,
    /// From handing in a payment until it was final at the full node, in milliseconds.
    pub final_ms_median: u64,
    /// The longest.
    pub final_ms_max: u64,
    /// Height in the end.
    pub height: u32,
}

/// Runs a devnet until it is told to stop, or once.
///
/// # Errors
/// It cannot be made or started, or a node ended.
pub fn devnet(args: &DevnetArgs, out: &mut impl Write) -> Result<(), CliError> {
    let temporary = std::env::temp_dir().join(format!("causeway-devnet-{}", std::process::id()));
    let directory = args.dir.as_deref().unwrap_or(&temporary);
    let result = run(args, directory, out);
    if args.dir.is_none() {
        // It may never have been made.
        let _ = std::fs::remove_dir_all(&temporary);
    }
    result
}

fn run(args: &DevnetArgs, directory: &Path, out: &mut impl Write) -> Result<(), CliError> {
    let stop = stop_signals();
    let devnet = match Devnet::load(directory)? {
        Some(devnet) => {
            writeln!(out, "going on with the network in {}", directory.display())?;
            devnet
        }
        None => Devnet::create(directory, &shape(args)?)?,
    };
    let program = std::env::current_exe()?;
    let started = Instant::now();
    let mut processes = Vec::new();
    for node in &devnet.nodes {
        processes.push(Process::start(&program, node)?);
    }
    for process in &mut processes {
        process.wait_ready(START_TIMEOUT)?;
    }
    let start_ms = millis(started.elapsed());
    let result = match args.once {
        true => once(args, &devnet, start_ms, out),
        false => {
            table(&devnet, directory, out)?;
            watch(&mut processes, &stop, out)
        }
    };
    processes.iter().for_each(Process::terminate);
    // Every one is waited for, whatever the others did.
    let killed = processes.into_iter().map(Process::wait).filter(|well| !well).count();
    result?;
    if killed > 0 {
        writeln!(out, "{killed} nodes did not stop by themselves and were killed; nothing final is lost")?;
    }
    if !args.once {
        writeln!(out, "stopped; to go on: causeway devnet --dir {}", directory.display())?;
    }
    Ok(())
}

fn shape(args: &DevnetArgs) -> Result<Shape, CliError> {
    let mut parts = ChainSpec::built_in("devnet").expect("it is built in").to_parts();
    if let Some(interval) = args.block_interval_ms {
        parts.params.block_interval_ms = interval;
    }
    let spec = ChainSpec::new(parts).map_err(|error| CliError::ChainSpec(Box::new(error)))?;
    let validators = (0..).take(spec.validators().len()).collect();
    let mut config = Config::default();
    config.consensus.propose_ms = 1_500;
    config.consensus.prevote_ms = 500;
    config.consensus.precommit_ms = 500;
    config.store.coin_cache_mb = 64;
    config.store.block_cache_mb = 16;
    config.store.write_buffer_mb = 16;
    Ok(Shape { spec, validators, full_nodes: args.full_nodes, config })
}

/// Prints where everything is.
fn table(devnet: &Devnet, directory: &Path, out: &mut impl Write) -> Result<(), CliError> {
    writeln!(out, "chain {} ({})\n", devnet.chain, devnet.chain_id)?;
    writeln!(out, "{:<14} {:<26} peer-to-peer", "node", "REST")?;
    for DevNode { name, rest, p2p, .. } in &devnet.nodes {
        writeln!(out, "{name:<14} {rest:<26} {p2p}")?;
    }
    let (url, funds) = (&devnet.nodes.last().unwrap_or(&devnet.nodes[0]).rest, &devnet.funds);
    writeln!(out, "\nfunds   {} (key {})", funds.address, funds.wif)?;
    writeln!(out, "files   {}; logs beside the homes, as node.log", directory.join(FILE).display())?;
    writeln!(out, "try     curl {url}/v1/status")?;
    writeln!(out, "\nThe keys of this network are public: nothing on it is worth anything. Ctrl-C stops it.")?;
    out.flush()?;
    Ok(())
}

/// Looks after the nodes until a signal comes.
fn watch(processes: &mut [Process], stop: &Receiver<()>, out: &mut impl Write) -> Result<(), CliError> {
    loop {
        for process in &mut *processes {
            process.check()?;
        }
        match stop.recv_timeout(CHECK_EVERY) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                writeln!(out, "stopping")?;
                out.flush()?;
                return Ok(());
            }
        }
    }
}

/// Makes payments and prints how long they took.
fn once(args: &DevnetArgs, devnet: &Devnet, start_ms: u64, out: &mut impl Write) -> Result<(), CliError> {
    let node = devnet.nodes.last().expect("a devnet has validators");
    let spec = Home::at(&node.home).load_chainspec()?;
    let mut payer = Payer::find(&spec, node)?;
    let mut times = Vec::new();
    for _ in 0..ONCE_PAYMENTS {
        times.push(millis(payer.pay(node)?));
    }
    times.sort_unstable();
    let height = get(&format!("{}/blocks/tip/height", node.rest)).and_then(|text| text.parse().ok());
    let figures = Figures {
        nodes: devnet.nodes.len(),
        block_interval_ms: spec.params().block_interval_ms,
        start_ms,
        payments: times.len(),
        final_ms_median: times[times.len() / 2],
        final_ms_max: times[times.len() - 1],
        height: height.unwrap_or(0),
    };
    let Figures { nodes, block_interval_ms, payments, final_ms_median, final_ms_max, height, .. } = figures;
    writeln!(out, "{nodes} nodes answered after {start_ms} ms; a block every {block_interval_ms} ms; height {height}")?;
    writeln!(out, "{payments} payments final after {final_ms_median} ms (median), {final_ms_max} ms (longest)")?;
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(&figures).expect("numbers are JSON") + "\n";
        let io = |source| DevnetError::Io { path: path.clone(), doing: "written", source };
        std::fs::write(path, json).map_err(io)?;
    }
    Ok(())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A channel that tells of SIGINT and SIGTERM.
fn stop_signals() -> Receiver<()> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        if let Ok(runtime) = runtime {
            runtime.block_on(super::run::stop_signal());
        }
        // Nobody listens if the devnet has ended.
        let _ = sender.send(());
    });
    receiver
}
