//! The mempool's verdicts are Bitcoin Core's: histories of single transactions beside `testmempoolaccept`, and of packages
//! beside `submitpackage`, each on the same coins in a real node and in a pool of ours.
//!
//! Every difference that is meant is named in `known`, and nothing else may differ. `CAUSEWAY_TEST_FULL=1` makes twenty
//! times as many histories. The seed of a history that fails is in its message.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod draft;
mod known;
mod packages;
mod singles;
mod world;

/// How many times more a full run has.
const FULL: u64 = 20;

/// Histories that differ, of which a failure tells everything.
const SHOWN: usize = 12;

/// The seeds of a run.
fn seeds(count: u64) -> std::ops::Range<u64> {
    let full = std::env::var_os("CAUSEWAY_TEST_FULL").is_some();
    0..if full { count * FULL } else { count }
}
