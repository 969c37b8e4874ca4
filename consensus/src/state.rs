//! The chain on disk: blocks, certificates and coins in one RocksDB. The only I/O of this crate.
//!
//! Block, certificate, header and tip of every block are one synced write. Coins carry the height that they were last
//! written at: at the tip they go with the block, during sync they wait in memory, and opening a store whose coins are
//! behind its tip replays the blocks between. The indexes go with each block, if they are kept; opening a store
//! without them reads all blocks, at once or while others are added. Validation never looks into them, and goes on if they are damaged.

mod coins;
mod damage;
mod figures;
mod history;
mod holes;
mod index;
mod open;
mod reads;
mod schema;
mod store;
mod tail;

pub use figures::{FamilyFigures, StoreFigures};
pub use index::{Flow, Index, IndexState, IndexView, ScriptId, SpendPlace, Statistics, TxPlace, Unspent};
pub use open::OpenError;
pub use schema::{FAMILIES, FORMAT_VERSION, family_options};
pub use store::{CoinFlush, CommittedBlock, Store, StoreOptions};
