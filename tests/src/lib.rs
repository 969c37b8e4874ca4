//! The harness of Causeway's integration tests and benches: a chain in memory, a wallet that spends every kind of
//! output, a Bitcoin in memory under its peg, Bitcoin Core as a library and as a process, networks of real node
//! processes, with and without a peg, and thin lines between them.

pub mod bends;
pub mod bitcoind;
pub mod chain;
pub mod core_source;
pub mod devnet;
pub mod draft;
pub mod history;
pub mod index_model;
pub mod lines;
pub mod nodes;
pub mod oracle;
pub mod parent;
pub mod replay;
pub mod seat;
pub mod sim;
pub mod wallet;
