//! The chain on disk: blocks, certificates and coins in one RocksDB. The only I/O of this crate.
//!
//! Block, certificate, header and tip of every block are one synced write. Coins carry the height that they were last
//! written at: at the tip they go with the block, during sync they wait in memory, and opening a store whose coins are
//! behind its tip replays the blocks between. The index of transactions goes with each block, if it is kept; opening a store
//! whose index is behind reads the blocks between. Validation never looks into it.

mod coins;
mod credits;
mod index;
mod open;
mod schema;
mod store;

pub use open::OpenError;
pub use schema::FORMAT_VERSION;
pub use store::{CoinFlush, CommittedBlock, Store, StoreOptions};
