//! The rooms of a Causeway node that decide and do nothing: the mempool and the choice of a block's transactions.
//!
//! ```text
//! begin(transaction)     -> CoinRequest   what can be said at once: form, standardness, limits, terms of a replacement
//! resolve(CoinRequest)   -> CheckJob      the only read: coins, tip, median times
//! run(CheckJob)          -> Checked       values, locks, policy about inputs, scripts: CPU work, on any thread
//! finish(Checked)        -> Accepted      into the pool, or Again if the tip has moved
//! Submission             -> these, for each transaction of a package, and for those together that need each other
//! select(Mempool)        -> Selection     the transactions of the next block
//! ```
//!
//! What never enters these rooms: a clock (`now_s` is an argument), a socket, a task, a disk, randomness. The same calls
//! give the same pool and the same block. Policy may be stricter than the rules of `causeway-consensus`, never looser,
//! and asks them instead of repeating them.

pub mod ask;
pub mod assemble;
mod bucket;
pub mod cli;
pub mod config;
pub mod devnet;
pub mod home;
pub mod http;
pub mod keys;
pub mod machine;
pub mod mempool;
pub mod metrics;
pub mod news;
pub mod rest;
pub mod shell;
pub mod wallet;
pub mod wire;

#[cfg(test)]
mod testing;
