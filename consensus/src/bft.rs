//! Byzantine-fault-tolerant agreement on one block a height: Malachite's state machine (Tendermint) under our types.
//!
//! ```text
//! Input (message, timer, own block, verdict) -> Engine::step -> Step (log entries, mark, outputs)
//! Step::persist(disk)                        -> Vec<Output>  (send, timers, propose, decided)
//! CommitCertificate::verify(chain, set, height, hash)        (what a light client and a syncing node check)
//! ```
//!
//! Nothing that a step says to do can be reached before [`Step::persist`] has written what it says to remember: neither
//! a message nor a decision leaves a node that could forget it.
//!
//! What never enters this module: a clock, randomness, a task, a socket, a file, the body of a block. A value is a block
//! hash. Malachite itself reads `Instant::now` once a height, for a deadline that we never set and it then never reads;
//! its metrics, which also read clocks, are compiled out.

mod bytes;
pub mod certificate;
pub mod context;
mod early;
pub mod engine;
pub mod evidence;
pub mod gossip;
pub mod high_water;
mod io;
pub mod log;
pub mod message;
mod proposer;
pub mod signer;
#[cfg(test)]
pub(crate) mod testing;
pub mod tip_statement;
pub mod validator_set;

pub use bytes::DecodeError;
pub use certificate::{CertificateError, CommitCertificate};
pub use context::{Address, Context, Signature};
pub use engine::{Engine, EngineFault};
pub use evidence::{Equivocation, EvidenceError};
pub use gossip::{CheckedMessage, Message, Unsigned};
pub use high_water::{HighWaterMark, MarkError};
pub use io::{Input, Output, Persist, Role, Step, Timer, TimerStep, Writing};
pub use log::LogEntry;
pub use message::{Proposal, SignedProposal, SignedVote, Vote};
pub use signer::{Guarded, Key, Refusal, Sealed, Signer, ToSign};
pub use tip_statement::{SignedTipStatement, TipAnswer, TipNonce, TipStatement};
pub use validator_set::{ValidatorSet, ValidatorSetError};

pub use arc_malachitebft_core_types::{LinearTimeouts, RoundCertificateType, Validity, VoteType};
