//! The harness of Causeway's integration tests and benches: a chain in memory, a wallet that spends every kind of
//! output, Bitcoin Core as a library and as a process, networks
//! of real node processes.

pub mod bends;
pub mod bitcoind;
pub mod chain;
pub mod core_source;
pub mod draft;
pub mod history;
pub mod nodes;
pub mod oracle;
pub mod replay;
pub mod sim;
pub mod wallet;
