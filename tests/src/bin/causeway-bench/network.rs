//! Four validator processes on this machine: how fast they agree, and how much they carry.
//!
//! The peer of the throughput is libsecp256k1 itself: every validator has to check every signature once, so that a
//! machine with c cores could do no more than c / (4 x one check) transactions a second, if nothing else cost anything.

pub(crate) mod flood;
pub(crate) mod flooder;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Amount, Transaction, Txid};
use causeway_node::config::{Config, IndexConfig, StoreConfig};
use causeway_tests::nodes::{Nodes, config, spec, split};
use causeway_tests::wallet::{Kind, Owner, Spendable, output, spend};
use serde::Serialize;

use crate::Options;
use crate::measure::verification;

/// Milliseconds between blocks: the least that the chain permits, so that decisions are what takes time.
const INTERVAL_MS: u32 = 200;

const VALIDATORS: usize = 4;

/// Connections that hand in transactions, one after the other on each.
const SENDERS: usize = 32;

const FEE: Amount = Amount::from_sat(1_000);

/// Outputs of a transaction that funds others.
const FAN_OUT: u64 = 2_000;

/// Bytes of a transaction that fills blocks, and how many make a megabyte.
const FILLER_BYTES: usize = 98_000;
const FILLERS: usize = 10;

#[derive(Debug, Serialize)]
struct Report {
    cores: usize,
    block_interval_ms: u32,
    empty: Decisions,
    megabyte: Decisions,
    final_ms_median: f64,
    final_ms_max: f64,
    throughput: Throughput,
    /// Of validators that serve no wallets: `index = "none"`.
    throughput_without_indexes: Throughput,
}

/// From the start of a height to its decision, at every validator.
#[derive(Debug, Serialize)]
struct Decisions {
    blocks: usize,
    block_bytes_median: usize,
    decision_ms_median: f64,
    decision_ms_p99: f64,
    /// CPU time of one node for one height, in milliseconds.
    cpu_ms_per_node_and_height: f64,
}

#[derive(Debug, Serialize)]
struct Throughput {
    transactions: usize,
    seconds: f64,
    transactions_per_second: f64,
    /// One Schnorr verification by libsecp256k1 while all cores verify: right before this run and right after it, together.
    verification_us: f64,
    /// What the machine could do if only the four validators' signature checks took time.
    limit_per_second: f64,
    ratio: f64,
    /// CPU time of all nodes for one transaction, over that of its four verifications.
    cpu_ratio: f64,
}

pub(crate) fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let cores = std::thread::available_parallelism()?.get();
    let (heights, payments, transactions) = if options.quick { (25, 5, 2_000) } else { (150, 20, 80_000) };
    let mut nodes = start(IndexConfig::All);
    let empty = decisions(&mut nodes, heights, |_, _| Ok(()))?;
    println!("{VALIDATORS} validators, {cores} cores, a block every {INTERVAL_MS} ms");
    print_decisions("empty blocks", &empty);

    let owner = Owner::new(1);
    let purse = fund(&mut nodes, &owner, transactions)?;
    let (fillers, coins) = purse.split_at(heights * FILLERS.min(purse.len() / heights / 4).max(1));
    let per_block = fillers.len() / heights;
    let megabyte = decisions(&mut nodes, heights, |nodes, height| {
        let batch = &fillers[height * per_block..(height + 1) * per_block];
        batch.iter().enumerate().try_for_each(|(index, coin)| post(nodes, index % VALIDATORS, &filler(coin)).map(drop))
    })?;
    print_decisions("1 MB blocks", &megabyte);

    let (singles, coins) = coins.split_at(payments);
    let mut times = Vec::new();
    for coin in singles {
        let started = Instant::now();
        let txid = post(&nodes, 0, &pay(coin, &owner))?;
        let path = format!("/tx/{txid}/status");
        while !nodes.get(0, &path).is_some_and(|status| status.contains("\"confirmed\":true")) {
            std::thread::sleep(Duration::from_millis(2));
        }
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let (final_ms_median, final_ms_max) = (times[times.len() / 2], times[times.len() - 1]);
    println!("a payment is final after {final_ms_median:.0} ms (median), {final_ms_max:.0} ms (longest)");

    let throughput = measure_throughput(&nodes, coins, &owner, cores)?;
    print_throughput("with the indexes of wallets", &throughput);
    nodes.stop(0..VALIDATORS);

    let mut nodes = start(IndexConfig::None);
    let coins = fund(&mut nodes, &owner, transactions)?;
    let throughput_without_indexes = measure_throughput(&nodes, &coins[..throughput.transactions], &owner, cores)?;
    print_throughput("without them", &throughput_without_indexes);
    nodes.stop(0..VALIDATORS);

    if let Some(path) = &options.json {
        let report = Report {
            cores,
            block_interval_ms: INTERVAL_MS,
            empty,
            megabyte,
            final_ms_median,
            final_ms_max,
            throughput,
            throughput_without_indexes,
        };
        fs::write(path, serde_json::to_string_pretty(&report)? + "\n")?;
    }
    Ok(())
}

/// A network of four validators that have a few blocks. Their store is that of a validator, not of a test.
fn start(index: IndexConfig) -> Nodes {
    let config = Config { store: StoreConfig { index, ..StoreConfig::default() }, ..config() };
    let mut nodes = Nodes::create_with_bitcoin(spec(4, INTERVAL_MS), 0, config);
    nodes.start_all();
    nodes.wait_height(105);
    nodes
}

fn print_throughput(indexes: &str, throughput: &Throughput) {
    let Throughput { transactions, transactions_per_second, limit_per_second, ratio, cpu_ratio, .. } = throughput;
    println!(
        "{transactions} P2TR transactions of one input and two outputs, {indexes}: {transactions_per_second:.0} final per \
         second, {ratio:.2} of the {limit_per_second:.0} that signature checks alone permit; CPU {cpu_ratio:.2} x of these \
         checks"
    );
}

fn print_decisions(what: &str, decisions: &Decisions) {
    let Decisions { blocks, block_bytes_median, decision_ms_median, decision_ms_p99, cpu_ms_per_node_and_height } =
        decisions;
    println!(
        "{what} ({block_bytes_median} bytes): decided after {decision_ms_median:.1} ms (median), {decision_ms_p99:.1} ms \
         (99th percentile of {blocks}); {cpu_ms_per_node_and_height:.1} ms of CPU a node and height"
    );
}

/// Lets this many heights pass, with something done before each, and reads what the validators say of them.
fn decisions(
    nodes: &mut Nodes,
    heights: usize,
    mut before: impl FnMut(&Nodes, usize) -> Result<(), Box<dyn std::error::Error>>,
) -> Result<Decisions, Box<dyn std::error::Error>> {
    let first = nodes.best_height() + 2;
    nodes.wait_height(first);
    let cpu = cpu_seconds(nodes)?;
    for index in 0..heights {
        before(nodes, index)?;
        let next = nodes.best_height() + 1;
        nodes.wait("the next height", |nodes| nodes.best_height() >= next);
    }
    let last = nodes.best_height();
    nodes.wait_height(last);
    let cpu = cpu_seconds(nodes)? - cpu;
    let times = decision_times(nodes, first, last)?;
    let mut sizes = Vec::new();
    for height in first..=last {
        let hash = nodes.hash(0, height).ok_or("a block")?;
        let size = nodes.json(0, &format!("/block/{hash}"))["size"].as_u64().ok_or("a size")?;
        sizes.push(usize::try_from(size)?);
    }
    sizes.sort_unstable();
    Ok(Decisions {
        blocks: times.len(),
        block_bytes_median: sizes[sizes.len() / 2],
        decision_ms_median: times[times.len() / 2],
        decision_ms_p99: times[times.len() * 99 / 100],
        cpu_ms_per_node_and_height: cpu * 1e3 / f64::from(last - first + 1) / f64::from(4u32),
    })
}

/// How long all validators took to decide these heights, by their logs, in milliseconds, the shortest first.
fn decision_times(nodes: &Nodes, first: u32, last: u32) -> Result<Vec<f64>, Box<dyn std::error::Error>> {
    let mut times = Vec::new();
    for index in 0..VALIDATORS {
        for line in fs::read_to_string(&nodes.node(index).log)?.lines().filter(|line| line.contains("block is final")) {
            let field = |name: &str| line.split(name).nth(1).and_then(|rest| rest.split(' ').next());
            let height: u32 = field(" height=").ok_or("a height")?.parse()?;
            if (first..=last).contains(&height) {
                times.push(field(" ms=").ok_or("a time")?.trim_matches('"').parse::<f64>()?);
            }
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// CPU time of all validators.
fn cpu_seconds(nodes: &Nodes) -> Result<f64, Box<dyn std::error::Error>> {
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    let mut ticks = 0;
    for index in 0..VALIDATORS {
        let id = nodes.process(index).ok_or("it runs")?.id();
        let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
        // proc_pid_stat(5): fields 14 and 15, counted from behind the name.
        let fields = stat.rsplit(')').next().ok_or("fields")?.split_whitespace();
        ticks += fields.skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    }
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    Ok(ticks as f64 / ticks_per_second as f64)
}

/// Makes at least this many final coins of an owner, and some more, out of one deposit.
fn fund(nodes: &mut Nodes, owner: &Owner, count: usize) -> Result<Vec<Spendable>, Box<dyn std::error::Error>> {
    let more = count + count / 4 + 2_000;
    let branches = u64::try_from(more)?.div_ceil(FAN_OUT);
    let (root, coins) = split(&nodes.fund(), owner, Kind::P2trKey, branches, Amount::from_sat(100_000));
    post_and_wait(nodes, &root)?;
    let mut all = Vec::new();
    for coin in &coins {
        let (transaction, coins) = split(coin, owner, Kind::P2trKey, FAN_OUT, Amount::from_sat(200_000));
        post_and_wait(nodes, &transaction)?;
        all.extend(coins);
    }
    Ok(all)
}

/// Hands in a transaction, and waits until every validator has it in a block; also where there is no index to ask.
fn post_and_wait(nodes: &mut Nodes, transaction: &Transaction) -> Result<(), Box<dyn std::error::Error>> {
    let mut height = nodes.best_height();
    let txid = post(nodes, 0, transaction)?;
    nodes.wait("a block with the transaction", |nodes| {
        while let Some(hash) = nodes.hash(0, height) {
            if txids(nodes, &hash).contains(&txid) {
                return true;
            }
            height += 1;
        }
        false
    });
    nodes.wait_height(height);
    Ok(())
}

/// The transactions of a block.
fn txids(nodes: &Nodes, hash: &str) -> Vec<Txid> {
    let txids = nodes.json(0, &format!("/block/{hash}/txids"));
    serde_json::from_value(txids).expect("a list of txids")
}

/// One input, two outputs.
fn pay(coin: &Spendable, owner: &Owner) -> Transaction {
    let value = (coin.output.value - FEE) / 2;
    let script = owner.script_pubkey(Kind::P2trKey);
    spend(std::slice::from_ref(coin), vec![output(value, script.clone()), output(value, script)])
}

/// A transaction of many bytes and one signature.
fn filler(coin: &Spendable) -> Transaction {
    let mut data = vec![0x51; FILLER_BYTES];
    data[0] = 0x6a;
    let change = output(coin.output.value - Amount::from_sat(100_000), coin.output.script_pubkey.clone());
    spend(std::slice::from_ref(coin), vec![change, output(Amount::ZERO, data.into())])
}

fn post(nodes: &Nodes, index: usize, transaction: &Transaction) -> Result<Txid, Box<dyn std::error::Error>> {
    Ok(nodes.submit(index, transaction).map_err(|answer| format!("refused: {answer}"))?)
}

fn measure_throughput(
    nodes: &Nodes,
    coins: &[Spendable],
    owner: &Owner,
    cores: usize,
) -> Result<Throughput, Box<dyn std::error::Error>> {
    let transactions: Vec<Transaction> = coins.iter().map(|coin| pay(coin, owner)).collect();
    let mut open: BTreeSet<Txid> = transactions.iter().map(Transaction::compute_txid).collect();
    let before_us = verification_us(owner, cores)?;
    let parts = transactions.chunks(transactions.len().div_ceil(SENDERS)).enumerate();
    let rest = |index: usize| nodes.node(index % VALIDATORS).rest.clone();
    let parts: Vec<(String, Vec<String>)> =
        parts.map(|(index, part)| (rest(index), part.iter().map(serialize_hex).collect())).collect();
    let (cpu, started) = (cpu_seconds(nodes)?, Instant::now());
    let senders: Vec<_> =
        parts.into_iter().map(|(rest, part)| std::thread::spawn(move || send(&rest, &part))).collect();
    let mut height = nodes.best_height() - 1;
    while !open.is_empty() {
        if started.elapsed() > Duration::from_secs(600) {
            return Err(format!("{} transactions are not final after ten minutes", open.len()).into());
        }
        match nodes.hash(0, height + 1) {
            Some(hash) => {
                height += 1;
                for txid in txids(nodes, &hash) {
                    open.remove(&txid);
                }
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds(nodes)? - cpu);
    for sender in senders {
        sender.join().map_err(|_| "a sender failed")?.map_err(|error| format!("a sender failed: {error}"))?;
    }
    let verification_us = (before_us + verification_us(owner, cores)?) / 2.0;
    let count = f64::from(u32::try_from(transactions.len())?);
    let limit_per_second = f64::from(u32::try_from(cores)?) / (4.0 * verification_us * 1e-6);
    Ok(Throughput {
        transactions: transactions.len(),
        seconds,
        transactions_per_second: count / seconds,
        verification_us,
        limit_per_second,
        ratio: count / seconds / limit_per_second,
        cpu_ratio: cpu / count / (4.0 * verification_us * 1e-6),
    })
}

/// The time of one verification while all cores verify, as they do for the validators: on shared cores one alone is faster.
fn verification_us(owner: &Owner, cores: usize) -> Result<f64, Box<dyn std::error::Error>> {
    let times: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(|| verification(owner.keypair()).wall_ms)).collect();
        threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    });
    let times = times.into_iter().collect::<Result<Vec<f64>, _>>().map_err(|_| "a verifier failed")?;
    Ok(times.iter().sum::<f64>() * 1e3 / f64::from(u32::try_from(times.len())?))
}

/// Hands in transactions over one connection, one after the other.
fn send(rest: &str, transactions: &[String]) -> Result<(), String> {
    let host = rest.trim_start_matches("http://");
    let stream = TcpStream::connect(host).map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let mut reader = BufReader::new(stream.try_clone().map_err(|error| error.to_string())?);
    let mut writer = stream;
    for hex in transactions {
        let request = format!("POST /tx HTTP/1.1\r\nhost: {host}\r\ncontent-length: {}\r\n\r\n{hex}", hex.len());
        writer.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
        let (mut status, mut length) = (String::new(), 0);
        reader.read_line(&mut status).map_err(|error| error.to_string())?;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).map_err(|error| error.to_string())?;
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().map_err(|_| "a length".to_owned())?;
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).map_err(|error| error.to_string())?;
        if !status.contains(" 200 ") {
            return Err(format!("{}: {}", status.trim(), String::from_utf8_lossy(&body)));
        }
    }
    Ok(())
}
