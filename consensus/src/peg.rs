//! The peg, as a pure state machine inside consensus (PEG): what is deposited, credited, requested, batched, paid and
//! confirmed is a function of final blocks.
//!
//! [`PegState`] is the peg after a block, part of every [`Tip`](crate::Tip). A [`Step`] takes it over one block: it applies
//! the evidence that the block's peg transaction carries, and knows the peg transaction that this evidence demands.
//! [`propose()`] builds one from what a proposer has found; [`connect_block`](crate::connect_block) checks one.

pub mod batch;
mod codec;
pub mod coin;
pub mod error;
pub mod evidence;
pub mod header_tree;
pub mod history;
pub mod network;
pub mod plan;
pub mod proof;
pub mod propose;
pub mod record;
pub mod script;
pub mod state;
pub mod step;

pub use error::InvalidPeg;
pub use evidence::Evidence;
pub use network::PegNetwork;
pub use propose::propose;
pub use state::PegState;
pub use step::{PegContext, PegStep, Step};
