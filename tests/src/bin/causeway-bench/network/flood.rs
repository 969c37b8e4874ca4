//! How long votes take while strangers flood the validators, over how long they take without: idle and flooded phases take
//! turns in one run.
//!
//! A vote's latency is what the validators measure themselves: from the moment at which its signer's node hands it out to
//! the moment at which another validator's node has verified it and given it to its engine. One machine has one clock.

use std::fs;
use std::io::Read;
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use causeway_node::devnet::get;
use causeway_tests::nodes::{Nodes, spec};
use libp2p::multiaddr::Protocol;
use serde::Serialize;

use super::flooder::Sent;
use super::{VALIDATORS, cpu_seconds, decision_times};
use crate::Options;

/// Milliseconds between blocks.
const INTERVAL_MS: u32 = 200;

/// Where the flood comes from. A node counts connections by address.
const ADDRESSES: [Ipv4Addr; 4] = [
    Ipv4Addr::new(127, 0, 0, 2),
    Ipv4Addr::new(127, 0, 0, 3),
    Ipv4Addr::new(127, 0, 0, 4),
    Ipv4Addr::new(127, 0, 0, 5),
];

/// Transactions a second from each address, and as many votes.
const RATE: u32 = 10_000;

/// How long a flood, or the quiet after it, lasts before anything counts.
const SETTLE: Duration = Duration::from_secs(2);

/// How long a flooder may take to end when it is told to.
const END_WITHIN: Duration = Duration::from_secs(5);

/// The most that the flood may make of a vote's latency.
const RATIO_MAX: f64 = 2.0;

#[derive(Debug, Serialize)]
struct Report {
    cores: usize,
    validators: usize,
    block_interval_ms: u32,
    addresses: usize,
    /// What each address offers, if the validators take it.
    transactions_per_second_offered: u32,
    votes_per_second_offered: u32,
    idle: Figures,
    flooded: Figures,
    vote_ms_ratio_of_medians: f64,
    vote_ms_ratio_of_p99s: f64,
}

/// All phases of a kind together.
#[derive(Debug, Default, Serialize)]
struct Figures {
    phases: usize,
    seconds: f64,
    blocks: u32,
    votes: u64,
    vote_ms_median: f64,
    vote_ms_p99: f64,
    /// Of each phase by itself.
    vote_ms_medians: Vec<f64>,
    decision_ms_median: f64,
    decision_ms_p99: f64,
    cpu_ms_per_node_and_second: f64,
    /// Of strangers, to all validators.
    transactions_sent: u64,
    votes_sent: u64,
    connections_let_in: u64,
}

/// What is added up over the phases of a kind.
#[derive(Default)]
struct Sums {
    figures: Figures,
    delays: Delays,
    decisions: Vec<f64>,
    cpu: f64,
}

pub(crate) fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let cores = std::thread::available_parallelism()?.get();
    let (pairs, phase) = if options.quick { (2, Duration::from_secs(8)) } else { (6, Duration::from_secs(20)) };
    let mut nodes = Nodes::create(spec(4, INTERVAL_MS), 0);
    nodes.start_all();
    nodes.wait_height(105);
    println!(
        "{VALIDATORS} validators, {cores} cores, a block every {INTERVAL_MS} ms; flooded: {} addresses offer {RATE} junk \
         transactions and {RATE} forged votes a second each, at nice 19",
        ADDRESSES.len()
    );
    let (mut idle, mut flooded) = (Sums::default(), Sums::default());
    for _ in 0..pairs {
        idle.add(&mut nodes, phase)?;
        print_phase("idle", &idle.figures);
        let flood = Flood::start(&nodes, phase + SETTLE + END_WITHIN)?;
        std::thread::sleep(SETTLE);
        flooded.add(&mut nodes, phase)?;
        let Sent { transactions, votes, connections } = flood.end()?;
        flooded.figures.transactions_sent += transactions;
        flooded.figures.votes_sent += votes;
        flooded.figures.connections_let_in += connections;
        print_phase("flooded", &flooded.figures);
        std::thread::sleep(SETTLE);
    }
    nodes.stop(0..VALIDATORS);
    let (idle, flooded) = (idle.finish(), flooded.finish());
    print_figures("idle", &idle);
    print_figures("flooded", &flooded);
    let ratio = flooded.vote_ms_median / idle.vote_ms_median;
    println!("a vote's median latency under the flood is {ratio:.2} of that without (at most {RATIO_MAX})");
    let blocks = flooded.blocks;
    if let Some(path) = &options.json {
        let report = Report {
            cores,
            validators: VALIDATORS,
            block_interval_ms: INTERVAL_MS,
            addresses: ADDRESSES.len(),
            transactions_per_second_offered: RATE,
            votes_per_second_offered: RATE,
            vote_ms_ratio_of_medians: ratio,
            vote_ms_ratio_of_p99s: flooded.vote_ms_p99 / idle.vote_ms_p99,
            idle,
            flooded,
        };
        fs::write(path, serde_json::to_string_pretty(&report)? + "\n")?;
    }
    if blocks == 0 {
        return Err("no block became final under the flood".into());
    }
    Ok(())
}

fn print_phase(kind: &str, figures: &Figures) {
    let median = figures.vote_ms_medians.last().copied().unwrap_or_default();
    println!("{kind}: phase {}, a vote takes {median:.2} ms (median)", figures.phases);
}

fn print_figures(kind: &str, figures: &Figures) {
    let Figures { seconds, blocks, votes, vote_ms_median, vote_ms_p99, decision_ms_median, decision_ms_p99, .. } =
        figures;
    let Figures { cpu_ms_per_node_and_second, transactions_sent, votes_sent, connections_let_in, .. } = figures;
    println!(
        "{kind}: {votes} votes took {vote_ms_median:.2} ms (median), {vote_ms_p99:.2} ms (99th percentile); {blocks} blocks in \
         {seconds:.0} s, decided after {decision_ms_median:.1} ms (median), {decision_ms_p99:.1} ms (99th percentile); \
         {cpu_ms_per_node_and_second:.0} ms of CPU a node and second"
    );
    if *connections_let_in > 0 {
        println!(
            "{kind}: {:.0} junk transactions and {:.0} forged votes a second were taken off the strangers' hands, over \
             {connections_let_in} connections",
            per_second(*transactions_sent, *seconds),
            per_second(*votes_sent, *seconds)
        );
    }
}

#[expect(clippy::cast_precision_loss, reason = "millions")]
fn per_second(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds
}

impl Sums {
    /// Lets a phase pass, and adds what it was like.
    fn add(&mut self, nodes: &mut Nodes, phase: Duration) -> Result<(), Box<dyn std::error::Error>> {
        let (delays, cpu, first, started) =
            (Delays::read(nodes)?, cpu_seconds(nodes)?, nodes.best_height(), Instant::now());
        std::thread::sleep(phase);
        let (seconds, last) = (started.elapsed().as_secs_f64(), nodes.best_height());
        self.cpu += cpu_seconds(nodes)? - cpu;
        let delays = Delays::read(nodes)?.since(&delays);
        let figures = &mut self.figures;
        figures.phases += 1;
        figures.seconds += seconds;
        figures.blocks += last - first;
        figures.vote_ms_medians.push(delays.quantile(0.5) * 1e3);
        self.delays.add(&delays);
        self.decisions.extend(decision_times(nodes, first + 1, last)?);
        Ok(())
    }

    fn finish(mut self) -> Figures {
        self.decisions.sort_by(f64::total_cmp);
        let decision = |part: usize| self.decisions.get(self.decisions.len() * part / 100).copied().unwrap_or(f64::NAN);
        Figures {
            votes: self.delays.count(),
            vote_ms_median: self.delays.quantile(0.5) * 1e3,
            vote_ms_p99: self.delays.quantile(0.99) * 1e3,
            decision_ms_median: decision(50),
            decision_ms_p99: decision(99),
            cpu_ms_per_node_and_second: self.cpu * 1e3 / self.figures.seconds / f64::from(4u32),
            ..self.figures
        }
    }
}

/// How many votes took at most so many seconds, at all validators: what Prometheus calls a histogram.
#[derive(Clone, Debug, Default)]
struct Delays(Vec<(f64, u64)>);

impl Delays {
    fn read(nodes: &Nodes) -> Result<Self, Box<dyn std::error::Error>> {
        let mut all = Self::default();
        for index in 0..VALIDATORS {
            let text = get(&nodes.node(index).metrics, "/metrics").ok_or("metrics")?;
            let mut delays = Self::default();
            for line in text.lines() {
                let Some(class) = line.strip_prefix("causeway_consensus_vote_delay_seconds_bucket{le=\"") else {
                    continue;
                };
                let (end, count) = class.split_once("\"} ").ok_or("a class and its count")?;
                delays.0.push((if end == "+Inf" { f64::INFINITY } else { end.parse()? }, count.parse()?));
            }
            all.add(&delays);
        }
        Ok(all)
    }

    /// Adds those of another, which has the same classes.
    fn add(&mut self, other: &Self) {
        if self.0.is_empty() {
            self.0 = other.0.iter().map(|(end, _)| (*end, 0)).collect();
        }
        self.0.iter_mut().zip(&other.0).for_each(|(own, other)| own.1 += other.1);
    }

    fn since(&self, before: &Self) -> Self {
        Self(self.0.iter().zip(&before.0).map(|(now, before)| (now.0, now.1 - before.1)).collect())
    }

    fn count(&self) -> u64 {
        self.0.last().map_or(0, |class| class.1)
    }

    /// Seconds that this part of all votes took at most, as if those of a class were spread over it evenly; not a number of
    /// no votes.
    #[expect(clippy::cast_precision_loss, reason = "millions")]
    fn quantile(&self, part: f64) -> f64 {
        let wanted = part * self.count() as f64;
        let (mut start, mut below) = (0.0, 0.0);
        for (end, count) in &self.0 {
            let count = *count as f64;
            if count >= wanted && count > below {
                return if end.is_finite() {
                    start + (end - start) * (wanted - below) / (count - below)
                } else {
                    start
                };
            }
            (start, below) = (*end, count);
        }
        f64::NAN
    }
}

/// The processes that flood. They end when this is dropped, and by themselves.
struct Flood(Vec<Child>);

impl Flood {
    fn start(nodes: &Nodes, longest: Duration) -> Result<Self, Box<dyn std::error::Error>> {
        let mut flood = Self(Vec::new());
        for from in ADDRESSES {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("flooder").arg("--from").arg(from.to_string());
            command.arg("--chain").arg(nodes.spec.chain_id().to_string());
            command.arg("--rest").arg(&nodes.node(0).rest);
            command.arg("--rate").arg(RATE.to_string()).arg("--seconds").arg(longest.as_secs().to_string());
            for node in &nodes.devnet.nodes {
                let address = node.p2p.iter().filter(|part| !matches!(part, Protocol::P2p(_)));
                command.arg("--to").arg(address.collect::<libp2p::Multiaddr>().to_string());
                command.args(node.validator.iter().flat_map(|key| ["--validator", key]));
            }
            flood.0.push(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?);
        }
        Ok(flood)
    }

    /// Ends the flood, and returns what it was.
    fn end(mut self) -> Result<Sent, Box<dyn std::error::Error>> {
        let mut all = Sent::default();
        for child in &mut self.0 {
            // It hears that nobody is there any more.
            drop(child.stdin.take());
        }
        for mut child in std::mem::take(&mut self.0) {
            let told = Instant::now();
            while child.try_wait()?.is_none() {
                if told.elapsed() > END_WITHIN {
                    child.kill()?;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let mut said = String::new();
            child.stdout.take().ok_or("what it said")?.read_to_string(&mut said)?;
            let sent: Sent = serde_json::from_str(&said).map_err(|_| format!("a flooder failed: {said}"))?;
            all.transactions += sent.transactions;
            all.votes += sent.votes;
            all.connections += sent.connections;
        }
        Ok(all)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
