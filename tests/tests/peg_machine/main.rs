//! The peg as a state machine, over random histories of two chains: deposits, transfers, requests, feerates, shallow
//! reorganisations of Bitcoin, batches of which any version may confirm, and stalls.
//!
//! Every block is built by `propose` and goes through the whole pipeline. Seeds are printed; `CAUSEWAY_TEST_FULL=1` runs many
//! more histories, and `CAUSEWAY_TEST_SEED=n` one.

mod catastrophe;
mod histories;
mod oracle;
mod plans;
mod stored;
mod synthetic;
mod world;

/// Whether the long selection is asked for.
fn full() -> bool {
    std::env::var_os("CAUSEWAY_TEST_FULL").is_some()
}

/// Runs `test` for each seed, or for the one that `CAUSEWAY_TEST_SEED` names. The seed of a failure is printed.
fn for_seeds(quick: u64, long: u64, test: impl Fn(u64)) {
    let named = std::env::var("CAUSEWAY_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = match named {
        Some(seed) => seed..seed + 1,
        None => 0..if full() { long } else { quick },
    };
    for seed in seeds {
        eprintln!("seed {seed}");
        test(seed);
    }
}
