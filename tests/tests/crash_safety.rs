//! A process that commits blocks is killed at any instant, or its disk refuses to write: what was committed stays.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use causeway_chainspec::{Height, LAST_DERIVED_HEIGHT};
use causeway_consensus::ChainView;
use causeway_consensus::state::Store;
use causeway_tests::history::History;
use causeway_tests::index_model::assert_indexed;
use causeway_tests::replay::{certificate, describe, open_store, replay, write_blocks};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;

const BLOCKS: u16 = 120;

/// Kills for each way of flushing; ten times as many with `scripts/test --full`.
fn kills() -> usize {
    if std::env::var_os("CAUSEWAY_TEST_FULL").is_some() { 300 } else { 30 }
}

fn start(home: &Path, blocks: &Path, flush: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_causeway-replay"));
    command.args([home.as_os_str(), blocks.as_os_str(), flush.as_ref()]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the process starts")
}

/// Reads the heights that a process says were committed, at most `lines` of them; returns the last.
fn read_heights(output: &mut BufReader<ChildStdout>, lines: usize) -> Option<u32> {
    output.lines().take(lines).map_while(Result::ok).filter_map(|line| line.parse().ok()).last()
}

/// Checks a store against the history, at whatever height it is; returns that height.
fn check(store: &Store, history: &History) -> u32 {
    let tip = store.tip();
    let height = tip.height().to_u32();
    assert_eq!(store.recompute_coins_hash().expect("readable"), *tip.coins(), "the coins are those of the hash");
    let Some(done) = height.checked_sub(LAST_DERIVED_HEIGHT.to_u32() + 1) else { return height };
    assert_eq!(*tip.coins(), history.coins[done as usize], "the hash is that of an undisturbed run");
    let mut coins = 0;
    store.for_each_coin(|_, _| coins += 1).expect("readable");
    assert_eq!(coins, history.coin_counts[done as usize]);
    assert_eq!(store.block_bytes(tip.height()).expect("readable").as_ref(), Some(&history.blocks[done as usize]));
    assert_eq!(store.certificate(tip.height()).expect("readable"), Some(certificate(tip.height())));
    assert_eq!(store.height_of(tip.hash()).expect("readable"), Some(tip.height()));
    assert_eq!(store.block_bytes(Height(height + 1)).expect("readable"), None);
    assert_indexed(store);
    height
}

fn kill_again_and_again(flush: &str, seed: u64) {
    let history = History::new(seed, BLOCKS.into(), 12);
    let directory = TempDir::new().expect("a temporary directory");
    let (mut home, blocks) = (directory.path().join("0"), directory.path().join("blocks"));
    write_blocks(&blocks, &history.blocks).expect("written");
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut rounds, mut midway, mut after_commit) = (0, 0, 0);
    let end = LAST_DERIVED_HEIGHT.to_u32() + u32::from(BLOCKS);
    for kill in 0..kills() {
        let mut child = start(&home, &blocks, flush);
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let mut said = None;
        if kill % 3 == 0 {
            // While it opens the store, or replays what the last one left.
            std::thread::sleep(Duration::from_micros(rng.random_range(0..100_000)));
        } else {
            // While it commits.
            said = read_heights(&mut output, rng.random_range(1..20));
            std::thread::sleep(Duration::from_micros(rng.random_range(0..20_000)));
        }
        child.kill().expect("the process is ours");
        child.wait().expect("it has ended");
        let said = read_heights(&mut output, usize::MAX).or(said).unwrap_or_default();

        let store = open_store(&home).expect("opens after a kill");
        let height = check(&store, &history);
        assert!(height >= said, "height {said} was committed, {height} is there");
        after_commit += usize::from(said > 0);
        midway += usize::from(height > LAST_DERIVED_HEIGHT.to_u32() && height < end);
        drop(store);
        if height == end {
            rounds += 1;
            home = directory.path().join(format!("{}", kill + 1));
        }
    }
    eprintln!(
        "{flush}: {} kills, {after_commit} of them after a commit, {midway} midway, {rounds} whole runs",
        kills()
    );
    assert!(midway >= kills() / 4, "kills must hit while blocks are being committed: {midway} of {}", kills());

    // Whatever happened, the rest goes in, and the end is that of a run that nobody disturbed.
    let mut child = start(&home, &blocks, flush);
    assert!(child.wait().expect("it ends").success());
    let undisturbed = open_store(&directory.path().join("undisturbed")).expect("opens");
    let flushing = causeway_consensus::state::CoinFlush::WithBlock;
    replay(&undisturbed, &history.blocks, flushing, std::io::sink()).expect("replays");
    let store = open_store(&home).expect("opens");
    assert_eq!(check(&store, &history), end);
    assert_eq!(describe(&store), describe(&undisturbed));
}

#[test]
fn killed_at_any_instant_with_coins_in_every_block() {
    kill_again_and_again("with-block", 1);
}

#[test]
fn killed_at_any_instant_with_coins_written_later() {
    kill_again_and_again("later", 2);
}

/// The limit on the size of files makes a write fail, as a full disk does.
#[test]
fn a_failed_write_stops_and_loses_nothing() {
    let history = History::new(3, BLOCKS.into(), 12);
    let directory = TempDir::new().expect("a temporary directory");
    let (home, blocks) = (directory.path().join("home"), directory.path().join("blocks"));
    write_blocks(&blocks, &history.blocks).expect("written");
    let mut failures = 0;
    // In units of 512 bytes, as `sh` counts. Below the first one not even the derived blocks fit.
    for limit in [10, 40, 60, 80, 100, 120, 1_000] {
        let script = format!("trap '' XFSZ; ulimit -f {limit}; exec \"$0\" \"$@\"");
        let mut child = Command::new("sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_causeway-replay")])
            .args([home.as_os_str(), blocks.as_os_str(), "with-block".as_ref()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("sh is there");
        let mut heights = BufReader::new(child.stdout.take().expect("piped"));
        let said = read_heights(&mut heights, usize::MAX).unwrap_or_default();
        let output = child.wait_with_output().expect("it ends");
        let errors = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            assert_eq!(output.status.code(), Some(3), "a state fault, not a crash: {errors}");
            assert!(errors.contains("File too large"), "the cause is named: {errors}");
            failures += 1;
        }
        let store = open_store(&home).expect("opens once there is room again");
        assert!(check(&store, &history) >= said, "what was committed is there");
    }
    println!("{failures} of 7 runs ended with a failed write");
    assert!(failures >= 3, "the limits are too generous to test anything: {failures}");
    let store = open_store(&home).expect("opens");
    replay(&store, &history.blocks, causeway_consensus::state::CoinFlush::Later, std::io::sink()).expect("goes on");
    assert_eq!(check(&store, &history), LAST_DERIVED_HEIGHT.to_u32() + u32::from(BLOCKS));
}
