//! Wallets that people have, unmodified, against real nodes: bdk with its Esplora client, and `causeway wallet`, which is
//! built on it. Whoever restores a wallet has what was there, whoever deposits is credited or gets it back.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod library;
mod program;
mod refund;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bitcoin::Txid;
use causeway_node::home::Home;
use causeway_tests::devnet::PegNetwork;
use rustix::process::{Pid, Signal, kill_process};

/// One network at a time, on two cores.
static ONE: Mutex<()> = Mutex::new(());

/// Replacements that may be too late.
const ATTEMPTS: u32 = 3;

fn alone() -> MutexGuard<'static, ()> {
    // Another test's failure is not this one's.
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A payment and the one in its place, which is final.
///
/// While `replace` makes them the validators stand still: a block that somebody has proposed with the first already is
/// not taken back. One that is made as they go on may hold it too, when it is here before the second: then again.
fn replace_in_time(network: &mut PegNetwork, mut replace: impl FnMut() -> (Txid, Txid)) -> (Txid, Txid) {
    for _ in 0..ATTEMPTS {
        let (first, second) = between_blocks(network, &mut replace);
        let is_replaced = network.wait("the payment or its replacement in a block", |network| {
            let is_final = |txid| network.node().is_final(txid).unwrap();
            is_final(second).then_some(true).or_else(|| is_final(first).then_some(false))
        });
        if is_replaced {
            return (first, second);
        }
    }
    panic!("{ATTEMPTS} replacements were all too late");
}

/// Does something while no block is made.
fn between_blocks<T>(network: &PegNetwork, doing: impl FnOnce() -> T) -> T {
    let validators = network.devnet.nodes.iter().filter(|node| node.validator.is_some());
    let pids: Vec<Pid> = validators.map(|node| pid_of(&node.home)).collect();
    let signal = |signal| pids.iter().for_each(|pid| kill_process(*pid, signal).expect("it runs"));
    signal(Signal::STOP);
    let done = doing();
    signal(Signal::CONT);
    done
}

/// The process that has taken a home.
fn pid_of(home: &Path) -> Pid {
    let text = std::fs::read_to_string(Home::at(home).lock_file()).expect("a running node has its pid there");
    text.trim().parse().ok().and_then(Pid::from_raw).expect("a pid")
}
