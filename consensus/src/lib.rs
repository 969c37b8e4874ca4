//! The rules of a Causeway chain: a block's bytes go in, and either a committed block or the name of the rule it broke
//! comes out.
//!
//! ```text
//! parse_block(bytes)      -> Block            bounded decode, ids computed on the way
//! check_block(Block)      -> CheckedBlock     everything that needs no chain: work, merkle, witness commitment, forms
//! resolve(CheckedBlock)   -> ResolvedBlock    the only read: parent, spent coins, median times
//! connect_block(Resolved) -> ConnectedBlock   pure: values, locks, maturity, sigops, scripts; yields a StateDelta
//! Store::commit(Connected, certificate) -> CommittedBlock   the only write
//! ```
//!
//! `bft` is how validators agree on the next block, and the certificate that proves it.
//!
//! Each stage is a type with private fields and one constructor: the check that earns it.
//!
//! What never enters this crate: a clock, a socket, a configuration file, an environment variable, randomness, mempool
//! policy, peer scores, private keys of the peg. Only [`state`] touches a disk.

pub mod assemble;
#[cfg(feature = "bft")]
pub mod bft;
pub mod block;
pub mod check;
pub mod coin;
pub mod commitment;
pub mod connect;
pub mod error;
pub mod id_map;
mod locks;
pub mod merkle;
pub mod peg;
pub mod resolve;
pub mod script;
pub mod sigops;
pub mod spend;
#[cfg(feature = "store")]
pub mod state;
pub mod tip;
pub mod workers;

pub use block::{Block, Tx, parse_block};
pub use check::{CheckedBlock, check_block};
pub use coin::Coin;
pub use commitment::LtHash;
pub use connect::{ConnectedBlock, StateDelta, connect_block};
pub use error::{ConnectError, InvalidBlock, InvalidTransaction, NotReady, ResolveError, StateFault};
pub use resolve::{ChainView, ResolvedBlock, resolve};
pub use script::ScriptCache;
pub use spend::SpendContext;
pub use tip::Tip;
pub use workers::{Cancel, Workers};
