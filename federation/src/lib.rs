//! The federation: what holds the coins on Bitcoin, and what watches Bitcoin for the chain.
//!
//! The rules of the peg are not here: consensus decides what is credited, batched and paid. This crate reads Bitcoin,
//! builds what spends the federation's coins, and signs what is final.
//!
//! What never enters this crate: a rule of validity, or a decision about whom to pay.

pub mod approve;
pub mod bitcoind;
pub mod cli;
pub mod command;
pub mod config;
pub mod daemon;
pub mod descriptor;
pub mod files;
pub mod home;
pub mod keystore;
pub mod musig;
pub mod recover;
pub mod session;
pub mod spend;
pub mod text;
pub mod transport;
pub mod watcher;
