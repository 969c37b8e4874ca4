//! What every node of one Causeway network must share, as values: the chainspec, the blocks derived from it, the
//! federation's first epoch, and the two forms of witness version 16 that the peg gives a meaning to.
//!
//! A [`ChainSpec`] has passed every check of this crate: there is no other way to get one. It comes from a TOML file
//! ([`ChainSpec::from_toml`]; `specs/devnet.toml` is the commented example of every key), from a built-in name
//! ([`ChainSpec::built_in`]) or from typed parts ([`ChainSpec::new`]).
//!
//! What never enters this crate: files, sockets, clocks, environment variables, randomness, secrets (the devnet's keys
//! are public by design), and any setting that may differ between two nodes of one network.

mod bitcoin_start;
mod canonical;
mod derived;
pub mod devnet;
mod epoch;
mod error;
pub mod key;
mod params;
mod peg_out_address;
mod spec;
mod toml_read;
mod toml_write;
mod units;

pub use bitcoin_start::{BitcoinStart, PARENT_NETWORKS, RETARGET_INTERVAL};
pub use canonical::{ChainSpecHash, tagged_hash};
pub use derived::{
    COMMITMENT_PREFIX, COMMITMENT_VERSION_CHAINSPEC, ChainId, LAST_DERIVED_HEIGHT, SUPPLY, TARGET_BITS,
    commitment_script, target_bits,
};
pub use epoch::{BATCH_OVERHEAD_WEIGHT, Epoch, EpochParts, OUTPUT_WEIGHT, Timelocks};
pub use error::{BitcoinStartError, ChainSpecError, EpochError, PegParamsError};
pub use key::{KeyPath, NumberKey};
pub use params::Params;
pub use peg_out_address::{
    PegOutAddressError, PegOutDestination, PegScript, PegScriptError, REQUEST_PREFIX, RESERVE_PROGRAM, reserve_script,
    to_bitcoin_address, to_causeway_address,
};
pub use spec::{ChainSpec, ChainSpecParts, IDENTITIES, RULES, Validator};
pub use units::{BitcoinHeight, Height, SatPerKvb};
