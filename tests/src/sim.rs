//! A network of nodes in one thread and in virtual time: the real [`Node`](causeway_node::machine::Node) under loss,
//! delay, partitions, crashes, wrong clocks and validators that lie.
//!
//! ```text
//! plan(scenario, seed) -> Plan       what goes wrong, and until when
//! World::new(plan).run() -> Outcome  figures, the hash of the trace, and the first check that failed
//! ```
//!
//! | room | what it plays |
//! |---|---|
//! | `world`, `lives` | the queue of events; lives and deaths of hosts |
//! | `host`, `disk` | one machine: a node, its chain, what survives a crash |
//! | `perform` | doing what a node says, in order, up to a crash |
//! | `network` | links, gossip, requests |
//! | `bitcoin` | Bitcoin under the peg: its blocks, and the node on each host |
//! | `byzantine` | what dishonest validators say instead, and besides |
//! | `check`, `watch` | the checks: everything that honest hosts say and commit passes here |
//! | `purse` | transactions, and whether they get final |
//! | `tale` | a run in words |
//! | `plan` | the scenarios |
//! | `bound` | how long a healed network may take |
//!
//! The same plan gives the same trace: there is one source of randomness, and no clock.

mod bitcoin;
mod bound;
pub mod byzantine;
mod check;
pub mod disk;
mod host;
mod lines;
mod lives;
mod network;
mod perform;
pub mod plan;
mod purse;
pub mod rng;
mod schedule;
mod tale;
mod watch;
mod world;

pub use check::{Check, Violation};
pub use plan::{Plan, SCENARIOS, Scenario};
pub use world::{Listener, Outcome, Stats, World};

/// Runs a scenario with a seed. A panic of the node counts as a failed check.
pub fn run(scenario: Scenario, seed: u64, heights: Option<u32>) -> Outcome {
    World::new(Plan::new(scenario, seed, heights)).run()
}
