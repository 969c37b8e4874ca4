//! `causeway devnet`: a network of real processes on this machine, with a Bitcoin of its own.

mod once;
mod story;
mod tools;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use causeway_chainspec::ChainSpec;
use causeway_federation::command::one_line;
use clap::{Args, Subcommand};

use super::CliError;
use crate::config::Config;
use crate::devnet::bitcoind::find_program;
use crate::devnet::miner::Miner;
use crate::devnet::purse::Purse;
use crate::devnet::{Daemon, DevNode, Devnet, DevnetError, FILE, Process, Shape};
use story::Story;
use tools::{DepositArgs, FundArgs, MineArgs};

pub use once::Figures;

/// How long the processes may take until they answer.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// How often the processes are looked after.
const CHECK_EVERY: Duration = Duration::from_millis(500);

/// How often the file of the funds is brought up to date, so that a payment needs to read few blocks.
const FUNDS_EVERY: Duration = Duration::from_secs(60);

/// What `causeway devnet` is told.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct DevnetArgs {
    /// What to do with a devnet that runs.
    #[command(subcommand)]
    pub command: Option<DevnetCommand>,
    /// Where everything is. Made if it is not there; otherwise its network goes on. With --once a temporary one by default.
    #[arg(long, value_name = "DIR", required_unless_present = "once")]
    pub dir: Option<PathBuf>,
    /// Full nodes beside the four validators, in a new directory.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=32))]
    pub full_nodes: u32,
    /// Milliseconds between blocks, in a new directory; by default those of the built-in chain.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(200..=600_000))]
    pub block_interval_ms: Option<u32>,
    /// The bitcoind to run, Bitcoin Core 30 or newer. By default that of CAUSEWAY_BITCOIND, or the one on PATH.
    #[arg(long, value_name = "FILE")]
    pub bitcoind: Option<PathBuf>,
    /// Seconds between two blocks of Bitcoin; with 0 only "causeway devnet mine" mines.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=3_600))]
    pub mine_every: u32,
    /// Goes the whole way once, from a deposit on Bitcoin to a payout there, prints every step with its time, and stops.
    #[arg(long)]
    pub once: bool,
    /// With --once: also writes the figures to this file.
    #[arg(long, value_name = "FILE", requires = "once")]
    pub json: Option<PathBuf>,
}

/// What to do with a devnet that runs.
#[derive(Debug, Subcommand)]
pub enum DevnetCommand {
    /// Pays a Causeway address from the devnet's coins, and prints the txid once the payment is final.
    Fund(FundArgs),
    /// Mines blocks of Bitcoin, and prints the height of the last.
    Mine(MineArgs),
    /// Pays a Bitcoin address, such as a deposit address, and prints the output: txid and number. The next block of
    /// Bitcoin confirms it.
    Deposit(DepositArgs),
}

/// Runs a devnet until it is told to stop, or once, or does something with one that runs.
///
/// # Errors
/// It cannot be made or started, a process ended, or what was asked for did not happen.
pub fn devnet(args: &DevnetArgs, out: &mut impl Write) -> Result<(), CliError> {
    match &args.command {
        Some(DevnetCommand::Fund(args)) => return tools::fund(args, out),
        Some(DevnetCommand::Mine(args)) => return tools::mine(args, out),
        Some(DevnetCommand::Deposit(args)) => return tools::deposit(args, out),
        None => {}
    }
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
    let bitcoind = find_program(args.bitcoind.as_deref())?;
    let stop = stop_signals();
    let devnet = match Devnet::load(directory)? {
        Some(devnet) => {
            writeln!(out, "going on with the network in {}", directory.display())?;
            devnet
        }
        None => Devnet::create_with_peg(directory, &shape(args)?, Some(&std::env::current_exe()?))?,
    };
    let mut story = Story::new(out);
    let mut running = Running::start(&devnet, &bitcoind, &mut story)?;
    let result = match args.once {
        true => once::once(args, &devnet, directory, &running.miner, &mut story),
        false => stay(args, &devnet, directory, &mut running, &stop, &mut story),
    };
    // A process that has ended explains more than what did not happen because of it.
    let result = result.or_else(|error| running.check().map_err(CliError::from).and(Err(error)));
    let killed = running.stop();
    result?;
    if killed > 0 {
        writeln!(out, "{killed} processes did not stop by themselves and were killed; nothing final is lost")?;
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

/// The processes of a devnet. They are stopped when this is dropped.
struct Running {
    miner: Miner,
    members: Vec<Daemon>,
    nodes: Vec<Process>,
    bitcoind: Option<Daemon>,
}

impl Running {
    /// Starts everything, and waits until it answers.
    fn start(devnet: &Devnet, bitcoind: &Path, story: &mut Story<impl Write>) -> Result<Self, CliError> {
        let causeway = std::env::current_exe()?;
        let bitcoin = devnet.bitcoin()?;
        let miner = Miner::new(bitcoin)?;
        let mut running = Self { miner, members: Vec::new(), nodes: Vec::new(), bitcoind: None };
        let mut daemon = bitcoin.start(&causeway, bitcoind)?;
        let ready = running.miner.wait_ready(&mut daemon, START_TIMEOUT);
        running.bitcoind = Some(daemon);
        ready?;
        let height = running.miner.prepare()?;
        let agent = running.miner.user_agent()?;
        story.tell("bitcoind", format!("bitcoind {agent} on regtest, at block {height}"))?;
        for node in &devnet.nodes {
            running.nodes.push(Process::start(&causeway, node)?);
        }
        for process in &mut running.nodes {
            process.wait_ready(START_TIMEOUT)?;
        }
        let validators = devnet.nodes.iter().filter(|node| node.validator.is_some()).count();
        let others = devnet.nodes.len() - validators;
        story.tell("nodes", format!("{validators} validators and {others} other nodes answer"))?;
        for member in &devnet.members {
            running.members.push(member.start(&causeway)?);
        }
        for (member, daemon) in devnet.members.iter().zip(&mut running.members) {
            member.wait_ready(daemon, START_TIMEOUT)?;
        }
        story.tell("members", format!("{} members of the federation answer", devnet.members.len()))?;
        Ok(running)
    }

    /// Fails if one has ended.
    fn check(&mut self) -> Result<(), DevnetError> {
        self.bitcoind.iter_mut().chain(&mut self.members).try_for_each(Daemon::check)?;
        self.nodes.iter_mut().try_for_each(Process::check)
    }

    /// Stops all, bitcoind last, and returns how many had to be killed.
    fn stop(&mut self) -> usize {
        let others: Vec<Daemon> =
            self.members.drain(..).chain(self.nodes.drain(..).map(Process::into_daemon)).collect();
        let bitcoind: Vec<Daemon> = self.bitcoind.take().into_iter().collect();
        let mut killed = 0;
        for daemons in [others, bitcoind] {
            daemons.iter().for_each(Daemon::terminate);
            // Every one is waited for, whatever the others did.
            killed += daemons.into_iter().map(Daemon::wait).filter(|well| !well).count();
        }
        killed
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Gives a new network its first coins, prints where everything is, and looks after it until a signal comes.
fn stay(
    args: &DevnetArgs,
    devnet: &Devnet,
    directory: &Path,
    running: &mut Running,
    stop: &Receiver<()>,
    story: &mut Story<impl Write>,
) -> Result<(), CliError> {
    once::endow(devnet, directory, &running.miner, story)?;
    table(devnet, directory, story.out())?;
    let (mut mined, mut counted) = (Instant::now(), Instant::now());
    let mine_every = Duration::from_secs(args.mine_every.into());
    let mut trouble = None;
    loop {
        running.check()?;
        if !mine_every.is_zero() && mined.elapsed() >= mine_every {
            mined = Instant::now();
            // It says so once, and goes on: bitcoind may be busy.
            let error = running.miner.mine(1).err().map(|error| one_line(&error));
            if error.is_some() && error != trouble {
                writeln!(story.out(), "no block was mined: {}", error.as_deref().unwrap_or_default())?;
            }
            trouble = error;
        }
        if counted.elapsed() >= FUNDS_EVERY {
            counted = Instant::now();
            // Whoever pays from the funds next reads what is missing.
            let _ = Purse::open(directory, devnet);
        }
        match stop.recv_timeout(CHECK_EVERY) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                writeln!(story.out(), "stopping")?;
                story.out().flush()?;
                return Ok(());
            }
        }
    }
}

/// Prints where everything is.
fn table(devnet: &Devnet, directory: &Path, out: &mut impl Write) -> Result<(), CliError> {
    let bitcoin = devnet.bitcoin()?;
    writeln!(out, "\nchain {} ({})\n", devnet.chain, devnet.chain_id)?;
    writeln!(out, "{:<14} {:<26} {:<26} peer-to-peer", "node", "REST", "metrics and health")?;
    for DevNode { name, rest, metrics, p2p, .. } in &devnet.nodes {
        writeln!(out, "{name:<14} {rest:<26} {metrics:<26} {p2p}")?;
    }
    writeln!(out, "\n{:<14} {:<26} bitcoin-cli -datadir={}", "bitcoind", bitcoin.rpc, bitcoin.directory.display())?;
    let (url, funds, dir) = (&devnet.client_node().rest, &devnet.funds, directory.display());
    let causeway = std::env::current_exe()?.display().to_string();
    writeln!(out, "\nfunds   {} (key {})", funds.address, funds.wif)?;
    writeln!(out, "files   {}; logs beside the homes", directory.join(FILE).display())?;
    writeln!(out, "try     curl {url}/v1/reserves")?;
    for what in
        ["fund --dir DIR <Causeway address> <BTC>", "deposit --dir DIR <Bitcoin address> <BTC>", "mine --dir DIR <n>"]
    {
        writeln!(out, "        {causeway} devnet {}", what.replace("DIR", &dir.to_string()))?;
    }
    writeln!(out, "\nThe keys of this network are public: nothing on it is worth anything. Ctrl-C stops it.")?;
    out.flush()?;
    Ok(())
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
