//! Real node processes on loopback: payments, kills, late and cut-off nodes. No fork, no lost final block, one tip.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bitcoin::Amount;
use causeway_node::home::Home;
use causeway_tests::nodes::{Nodes, config, copy, run_to_end, spec, split};
use causeway_tests::wallet::{Kind, Owner};
use rustix::process::{Pid, Signal, kill_process};

/// One network at a time, on two cores.
static ONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    // Another test's failure is not this one's.
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

const FEE: Amount = Amount::from_sat(10_000);

/// Milliseconds between blocks.
const INTERVAL: u32 = 300;

/// What every running node calls final.
fn finals(nodes: &Nodes) -> BTreeMap<usize, (u32, String)> {
    let tip = |index: &usize| {
        let height = nodes.height(*index)?;
        Some((*index, (height, nodes.hash(*index, height)?)))
    };
    nodes.alive().iter().filter_map(tip).collect()
}

/// Checks that nothing that was final is gone.
fn assert_kept(nodes: &Nodes, before: &BTreeMap<usize, (u32, String)>) {
    for (was, (height, hash)) in before {
        for index in nodes.alive() {
            let now = nodes.hash(index, *height);
            assert_eq!(now.as_ref(), Some(hash), "block {height} of node {was} at node {index}\n{}", nodes.logs());
        }
    }
}

#[test]
fn payments_are_final_at_every_node_and_kills_lose_nothing() {
    let _alone = alone();
    let mut nodes = Nodes::create_with_bitcoin(spec(4, INTERVAL), 1, config());
    nodes.start_all();
    let funds = nodes.fund();

    // A payment, handed in at the full node, and one that spends it before it is final.
    let owner = Owner::new(1);
    let (first, coins) = split(&funds, &owner, Kind::P2trKey, 10, FEE);
    let txid = nodes.submit(4, &first).unwrap();
    let (second, _) = split(&coins[0], &owner, Kind::P2trKey, 2, FEE);
    nodes.submit(4, &second).unwrap();
    nodes.wait_final(txid);
    nodes.wait_final(second.compute_txid());
    let (conflict, _) = split(&coins[0], &owner, Kind::P2wpkh, 1, FEE);
    let refusal = nodes.submit(0, &conflict).unwrap_err();
    assert!(refusal.contains("bad-txns-inputs-missingorspent"), "{refusal}");

    // One validator less: the others go on.
    let before = finals(&nodes);
    nodes.kill([0]);
    let height = nodes.best_height();
    nodes.wait_height(height + 6);
    assert_kept(&nodes, &before);

    // Two less: nothing becomes final, and nothing is lost.
    let before = finals(&nodes);
    nodes.kill([1]);
    let stuck = nodes.best_height();
    let (third, _) = split(&coins[1], &owner, Kind::P2trKey, 1, FEE);
    nodes.submit(4, &third).unwrap();
    // What waits is kept over a restart.
    nodes.stop([4]);
    nodes.start([4]);
    let waiting = third.compute_txid().to_string();
    nodes.wait("the mempool to be as it was", |nodes| {
        nodes.get(4, "/mempool/txids").is_some_and(|txids| txids.contains(&waiting))
    });
    nodes.start([0]);
    nodes.wait_height(stuck + 6);
    nodes.wait_final(third.compute_txid());
    nodes.start([1]);
    nodes.wait_height(stuck + 9);
    assert_kept(&nodes, &before);

    // All of them at once, several times.
    for _ in 0..3 {
        let before = finals(&nodes);
        let height = nodes.best_height();
        nodes.kill(0..5);
        nodes.start_all();
        nodes.wait_height(height + 3);
        assert_kept(&nodes, &before);
    }
    nodes.wait_final(third.compute_txid());
    let (from, to) = (101, nodes.best_height() - 2);
    nodes.wait_height(to);
    nodes.assert_one_chain(from, to);

    // An orderly stop and start goes on.
    let before = finals(&nodes);
    nodes.stop(0..5);
    nodes.start_all();
    nodes.wait_height(to + 6);
    assert_kept(&nodes, &before);
}

fn signal(nodes: &Nodes, index: usize, signal: Signal) {
    let id = nodes.process(index).expect("it runs").id();
    let id = i32::try_from(id).ok().and_then(Pid::from_raw).expect("an id");
    kill_process(id, signal).expect("it is ours");
}

#[test]
fn late_and_cut_off_nodes_catch_up() {
    let _alone = alone();
    let mut nodes = Nodes::create(spec(4, INTERVAL), 1);
    nodes.start(0..4);
    nodes.wait_height(101 + 70);
    // It fetches more than one stretch of blocks, and then follows.
    nodes.start([4]);
    nodes.wait_height(101 + 75);

    // Suspended, as by a network that is cut: the others go on, and it comes back.
    signal(&nodes, 3, Signal::STOP);
    let height = nodes.height(0).unwrap();
    nodes.wait("the others to go on", |nodes| [0, 1, 2].iter().all(|index| nodes.height(*index) >= Some(height + 8)));
    signal(&nodes, 3, Signal::CONT);
    nodes.wait_height(height + 12);
    let to = nodes.best_height() - 2;
    nodes.wait_height(to);
    nodes.assert_one_chain(101, to);
}

/// Bytes that mean nothing, the same in every run.
fn garbage(seed: u8, length: usize) -> Vec<u8> {
    let mut state = u32::from(seed).wrapping_mul(2_654_435_769) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn garbage_on_the_ports_harms_nothing() {
    let _alone = alone();
    let mut nodes = Nodes::create(spec(4, INTERVAL), 0);
    nodes.start_all();
    nodes.wait_height(103);
    let rest: SocketAddr = nodes.node(0).rest.trim_start_matches("http://").parse().unwrap();
    let p2p = nodes.node(0).p2p.to_string();
    let port = p2p.split("/tcp/").nth(1).and_then(|rest| rest.split('/').next()).unwrap().parse().unwrap();
    let p2p = SocketAddr::from(([127, 0, 0, 1], port));
    let mut silent = Vec::new();
    for seed in 0..40 {
        for address in [p2p, rest] {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            // The node may hang up in the middle of it.
            let _ = stream.write_all(&garbage(seed, 1 << (seed % 17)));
            let _ = stream.read(&mut [0; 1024]);
            if seed % 4 == 0 {
                silent.push(stream);
            }
        }
    }
    for path in ["/../../etc/passwd", "/block/zz", "/tx/%00%ff", "/blocks/99999999999999999999", "/v1/finality/-1"] {
        let answer = minreq::get(format!("{}{path}", nodes.node(0).rest)).with_timeout(10).send().unwrap();
        assert!(answer.status_code < 500, "{path}: {}", answer.status_code);
    }
    for body in [&b""[..], b"zz", &garbage(7, 300_000)] {
        let url = format!("{}/tx", nodes.node(0).rest);
        let answer = minreq::post(url).with_body(body).with_timeout(10).send().unwrap();
        assert_eq!(answer.status_code, 400);
    }
    let height = nodes.best_height();
    nodes.wait_height(height + 6);
    assert_eq!(nodes.json(0, "/v1/status")["peers"], 3);
}

#[test]
fn a_copied_home_and_a_restored_backup_do_not_vote() {
    let _alone = alone();
    let mut nodes = Nodes::create(spec(4, INTERVAL), 0);
    nodes.start_all();
    nodes.wait_height(104);

    // The whole home, keys and all.
    nodes.stop([3]);
    let home = Home::at(&nodes.node(3).home);
    let clone = nodes.directory().join("copy");
    copy(home.path(), &clone);
    let (well, line) = run_to_end(&["run", "--home", clone.to_str().unwrap()]);
    assert!(!well && line.starts_with("error: ") && line.contains("copy"), "{line}");

    // Data of a while ago beside the keys of today.
    let backup = nodes.directory().join("backup");
    copy(&home.data(), &backup);
    nodes.start([3]);
    let height = nodes.best_height();
    nodes.wait_height(height + 6);
    nodes.stop([3]);
    std::fs::remove_dir_all(home.data()).unwrap();
    copy(&backup, &home.data());
    let (well, line) = run_to_end(&["run", "--home", home.path().to_str().unwrap()]);
    assert!(!well && line.starts_with("error: ") && line.contains("--full-node"), "{line}");

    // The way out that it names.
    nodes.start_with([3], &["--full-node"]);
    let height = nodes.best_height();
    nodes.wait_height(height + 3);
    nodes.stop([3]);
    nodes.start([3]);
    // Its vote is needed.
    nodes.kill([0]);
    let height = nodes.best_height();
    nodes.wait_height(height + 5);
    nodes.start([0]);
    nodes.wait_height(height + 7);
    nodes.assert_one_chain(101, height + 5);
}

#[test]
fn a_foreign_chain_is_refused_and_bad_input_is_one_line() {
    let _alone = alone();
    let mut nodes = Nodes::create(spec(1, INTERVAL), 1);
    let home = Home::at(&nodes.node(1).home);
    let home_text = home.path().to_str().unwrap().to_owned();
    nodes.start_all();
    nodes.wait_height(103);
    let refused = |why: &str| {
        let (well, line) = run_to_end(&["run", "--home", &home_text]);
        assert!(!well && line.starts_with("error: ") && line.contains(why), "{why}: {line}");
    };
    refused("another causeway runs");
    nodes.stop([1]);

    // A port that is taken.
    let config = std::fs::read_to_string(home.config()).unwrap();
    let rest = |index: usize| nodes.node(index).rest.trim_start_matches("http://").to_owned();
    std::fs::write(home.config(), config.replace(&rest(1), &rest(0))).unwrap();
    refused("in use");
    std::fs::write(home.config(), config.replace("[rest]", "[rest]\nbindd = 1")).unwrap();
    refused("bindd");
    std::fs::write(home.config(), &config).unwrap();

    // Another chain's chainspec: the store is not of it.
    let chainspec = std::fs::read_to_string(home.chainspec()).unwrap();
    std::fs::write(home.chainspec(), spec(1, INTERVAL + 100).to_toml()).unwrap();
    refused("chain");

    // And with a store of its own, nobody talks to it.
    let store = nodes.directory().join("store");
    std::fs::rename(home.store(), &store).unwrap();
    nodes.start([1]);
    nodes.wait("the log to say why", |nodes| {
        std::fs::read_to_string(&nodes.node(0).log).is_ok_and(|log| log.contains("chain") && log.contains("WARN"))
    });
    assert_eq!(nodes.json(0, "/v1/status")["peers"], 0);
    assert_eq!(nodes.height(1), Some(100));
    nodes.stop([1]);
    std::fs::remove_dir_all(home.store()).unwrap();
    std::fs::rename(&store, home.store()).unwrap();
    std::fs::write(home.chainspec(), chainspec).unwrap();
    nodes.start([1]);
    let height = nodes.best_height();
    nodes.wait_height(height + 3);
}
