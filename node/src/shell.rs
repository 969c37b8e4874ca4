//! Tokio, libp2p, disk and timers: the thin layer that turns the world into events for [`Node`](crate::machine::Node) and
//! performs its actions. It decides nothing.

pub mod body_file;
pub mod desk;
pub mod evidence;
pub mod files;
pub mod handle;
mod helpers;
mod index;
pub mod log_file;
pub mod mark_file;
pub mod mempool_file;
pub mod p2p;
pub mod persistence;
mod prefetch;
mod progress;
pub mod recovery;
mod reports;
pub mod run;
pub mod service;

pub use handle::{Handle, Stopped};
