//! What REST serves: tip, transaction, histories and broadcast, over many connections, while the validators go on.
//!
//! The chain is made here, of real signatures and certificates, and written into the homes of four validators; then the
//! real programs run on them. The peer is a server in this process, of the same library, that answers a constant.

mod chain;
mod load;

use std::fs;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bitcoin::Txid;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Amount, Transaction};
use causeway_tests::nodes::{Nodes, spec};
use causeway_tests::wallet::{Spendable, output, spend};
use rand::Rng;
use rand::seq::IndexedRandom;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use warp::Filter;

use crate::Options;
use crate::measure::load_average;
use chain::{Made, Shape};
use load::{Answer, Figures, Next, Request, drive};

const VALIDATORS: u32 = 4;

/// Milliseconds between blocks, as on a devnet.
const INTERVAL_MS: u32 = 1_000;

/// Connections that ask, each one thing after the other.
const CONNECTIONS: usize = 64;

/// How long walks may take that were begun in time.
const WALK_MAX: Duration = Duration::from_secs(600);

/// Entries of a page of a history.
const PAGE: usize = 25;

/// What a transaction that is handed in pays.
const FEE: Amount = Amount::from_sat(1_000);

#[derive(Debug, Serialize)]
struct Report {
    bench: &'static str,
    quick: bool,
    cores: usize,
    connections: usize,
    seconds_per_route: u64,
    block_interval_ms: u32,
    /// Of the chain, before the validators go on.
    transactions: usize,
    height: u32,
    /// One-minute load averages before and after.
    load_average: [Option<f64>; 2],
    /// A route that does nothing, before and after the others.
    limit: [Figures; 2],
    routes: Vec<Route>,
    /// Whole walks through histories of 2,500 entries.
    walks: Walks,
}

#[derive(Debug, Serialize)]
struct Route {
    name: &'static str,
    #[serde(flatten)]
    figures: Figures,
    /// Requests a second over those of the route that does nothing.
    limit_ratio: f64,
    /// Blocks that became final meanwhile.
    blocks_meanwhile: u32,
}

#[derive(Debug, Serialize)]
struct Walks {
    walks: usize,
    pages: usize,
    median_ms: f64,
    p99_ms: f64,
}

/// Runs the bench and prints its table.
pub(crate) fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let cores = std::thread::available_parallelism()?.get();
    let before = load_average();
    let (shape, seconds) = if options.quick { (Shape::QUICK, 2) } else { (Shape::FULL, 10) };
    let time = Duration::from_secs(seconds);
    let mut nodes = Nodes::create(spec(VALIDATORS, INTERVAL_MS), 0);
    println!("making a chain of {} transactions ...", shape.transactions);
    let started = Instant::now();
    let made = chain::make(&nodes, shape)?;
    let broadcasts = sign(&made);
    println!("{} transactions up to height {}, made in {:.0?}", made.txids.len(), made.height, started.elapsed());
    nodes.start_all();
    let tip = nodes.best_height();
    nodes.wait_height(tip + 2);

    let rest = nodes.node(0).rest.trim_start_matches("http://").parse()?;
    let nothing = Nothing::start()?;
    let constant = |_: usize| -> Next<'static> { Box::new(|_| Some(Request::get("/nothing"))) };
    println!("{VALIDATORS} validators, {cores} cores, {CONNECTIONS} connections, {seconds} s each");
    let first = drive(nothing.address, CONNECTIONS, time, constant)?;
    print("nothing (the limit)", &first, None);

    let mut routes = Vec::new();
    let walks = Mutex::new(Vec::new());
    for (name, next) in questions(&made, &broadcasts, &walks, time) {
        let height = nodes.best_height();
        // Whoever walks stops at an end.
        let time = if name == "history_2500_walk" { WALK_MAX } else { time };
        let figures = drive(rest, CONNECTIONS, time, next)?;
        let blocks_meanwhile = nodes.best_height() - height;
        let limit_ratio = figures.requests_per_second / first.requests_per_second;
        print(name, &figures, Some(limit_ratio));
        routes.push(Route { name, figures, limit_ratio, blocks_meanwhile });
    }
    let last = drive(nothing.address, CONNECTIONS, time, constant)?;
    print("nothing, again", &last, None);
    nothing.stop();
    let limit_per_second = (first.requests_per_second + last.requests_per_second) / 2.0;
    for route in &mut routes {
        route.limit_ratio = route.figures.requests_per_second / limit_per_second;
    }
    let walks = Walks::of(walks.into_inner().map_err(|_| "a walk failed")?)?;
    println!(
        "{} whole walks of {} pages: {:.0} ms (median), {:.0} ms (99th percentile)",
        walks.walks, walks.pages, walks.median_ms, walks.p99_ms
    );
    nodes.stop(0..usize::try_from(VALIDATORS)?);

    let report = Report {
        bench: "rest",
        quick: options.quick,
        cores,
        connections: CONNECTIONS,
        seconds_per_route: seconds,
        block_interval_ms: INTERVAL_MS,
        transactions: made.txids.len(),
        height: made.height,
        load_average: [before, load_average()],
        limit: [first, last],
        routes,
        walks,
    };
    if let Some(path) = &options.json {
        fs::write(path, serde_json::to_string_pretty(&report)? + "\n")?;
        println!("figures written to {}", path.display());
    }
    let idle = report.routes.iter().find(|route| route.blocks_meanwhile == 0);
    if let Some(Route { name, .. }) = idle {
        return Err(format!("no block became final during {name}: the chain has to go on meanwhile").into());
    }
    let failed = report.routes.iter().find(|route| route.figures.errors > 0);
    match failed {
        Some(Route { name, figures, .. }) => Err(format!("{name}: {}", figures.first_error()).into()),
        None => Ok(()),
    }
}

/// What each connection asks, by its number.
type Question<'a> = Box<dyn Fn(usize) -> Next<'a> + Sync + 'a>;

/// How long whole walks took, and their pages.
type WalkTimes = Mutex<Vec<(Duration, usize)>>;

fn questions<'a>(
    made: &'a Made,
    broadcasts: &'a [String],
    walks: &'a WalkTimes,
    time: Duration,
) -> [(&'static str, Question<'a>); 6] {
    [
        ("tip", Box::new(|_| Box::new(|_| Some(Request::get("/blocks/tip/height"))))),
        ("transaction", Box::new(move |_| Box::new(move |_| Some(transaction(&made.txids))))),
        ("history_25", Box::new(move |_| Box::new(move |_| Some(first_page(&made.short))))),
        ("history_2500", Box::new(move |_| Box::new(move |_| Some(first_page(&made.long))))),
        ("history_2500_walk", Box::new(move |_| walk(&made.long, walks, Instant::now() + time))),
        (
            "broadcast",
            Box::new(move |connection| {
                let mut own = broadcasts.iter().skip(connection).step_by(CONNECTIONS);
                Box::new(move |_| own.next().map(|hex| Request::post("/tx", hex)))
            }),
        ),
    ]
}

/// The transactions that are handed in, each of a coin of its own.
fn sign(made: &Made) -> Vec<String> {
    let pay = |coin: &Spendable| -> Transaction {
        let value = coin.output.value - FEE;
        spend(std::slice::from_ref(coin), vec![output(value, coin.output.script_pubkey.clone())])
    };
    made.coins.par_iter().map(|coin| serialize_hex(&pay(coin))).collect()
}

fn transaction(txids: &[Txid]) -> Request {
    Request::get(&format!("/tx/{}", txids[rand::rng().random_range(0..txids.len())]))
}

fn first_page(scripts: &[String]) -> Request {
    Request::get(&format!("/scripthash/{}/txs", pick(scripts)))
}

fn pick(scripts: &[String]) -> &str {
    scripts.choose(&mut rand::rng()).expect("there are scripts")
}

#[derive(Deserialize)]
struct Entry {
    txid: Txid,
}

/// Reads histories from their first page to the last, one after the other, and begins none after `until`. What each took,
/// and its pages, goes to `done`.
fn walk<'a>(scripts: &'a [String], done: &'a WalkTimes, until: Instant) -> Next<'a> {
    let mut script = pick(scripts);
    let (mut started, mut pages) = (Instant::now(), 0);
    Box::new(move |answer: Option<&Answer>| {
        let entries: Vec<Entry> =
            answer.and_then(|answer| serde_json::from_slice(&answer.body).ok()).unwrap_or_default();
        pages += usize::from(!entries.is_empty());
        match entries.last() {
            Some(Entry { txid }) if entries.len() == PAGE => {
                return Some(Request::get(&format!("/scripthash/{script}/txs/chain/{txid}")));
            }
            _ if pages > 0 => done.lock().expect("nobody panics with it").push((started.elapsed(), pages)),
            _ => {}
        }
        if Instant::now() > until {
            return None;
        }
        script = pick(scripts);
        (started, pages) = (Instant::now(), 0);
        Some(Request::get(&format!("/scripthash/{script}/txs")))
    })
}

impl Walks {
    fn of(mut walks: Vec<(Duration, usize)>) -> Result<Self, Box<dyn std::error::Error>> {
        walks.sort();
        let ms = |part: usize| walks.get(walks.len() * part / 100).map_or(0.0, |(took, _)| took.as_secs_f64() * 1e3);
        let pages = chain::LONG / PAGE;
        if let Some((_, other)) = walks.iter().find(|(_, walked)| *walked != pages) {
            return Err(format!("a history of {} entries had {other} pages instead of {pages}", chain::LONG).into());
        }
        Ok(Self { walks: walks.len(), pages, median_ms: ms(50), p99_ms: ms(99) })
    }
}

/// A server that answers a constant.
struct Nothing {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    _runtime: tokio::runtime::Runtime,
}

impl Nothing {
    /// Starts it, on as many threads as a node has for REST.
    fn start() -> Result<Self, Box<dyn std::error::Error>> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let stopped = async move { stopped.await.unwrap_or_default() };
        runtime.spawn(warp::serve(warp::path("nothing").map(|| "1")).incoming(listener).graceful(stopped).run());
        Ok(Self { address, stop, _runtime: runtime })
    }

    fn stop(self) {
        // It ends with its runtime, otherwise.
        let _ = self.stop.send(());
    }
}

fn print(name: &str, figures: &Figures, limit_ratio: Option<f64>) {
    let Figures { requests_per_second, median_ms, p99_ms, errors, .. } = figures;
    let ratio = limit_ratio.map(|ratio| format!(", {ratio:.3} of the limit")).unwrap_or_default();
    println!(
        "  {name:<20} {requests_per_second:>8.0} a second{ratio}; {median_ms:.2} ms (median), {p99_ms:.2} ms (99th \
         percentile), {errors} errors"
    );
}
