//! What can go wrong between us and a bitcoind, each with what to do.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bitcoin::BlockHash;

use super::block::BlockFault;
use super::endpoint::{CredentialsError, Endpoint};

/// Most characters kept of a text that bitcoind sends.
const TEXT_CHARS_MAX: usize = 300;

/// A call that gave no answer to rely on.
#[derive(Debug, thiserror::Error)]
#[error("bitcoind at {endpoint}, {method}")]
pub struct BitcoindError {
    /// The bitcoind that was asked last.
    pub endpoint: Endpoint,
    /// What it was asked.
    pub method: &'static str,
    /// What went wrong.
    #[source]
    pub problem: Problem,
}

/// What went wrong with a call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// No connection.
    #[error("it cannot be reached: start it, or correct its address")]
    Unreachable(#[source] std::io::Error),
    /// The connection broke before the answer was complete.
    #[error("it closed the connection: look in its debug.log if that goes on")]
    ConnectionLost(#[source] hyper::Error),
    /// User and password cannot be had.
    #[error("no user and password in {}", path.display())]
    Credentials {
        /// The file that should hold them.
        path: PathBuf,
        /// Why it does not.
        source: CredentialsError,
    },
    /// HTTP 401, with what the file held a moment ago.
    #[error(
        "it refuses user and password of {}: name the .cookie of this bitcoind, or what fits its -rpcauth",
        path.display()
    )]
    Unauthorised {
        /// The file that holds them.
        path: PathBuf,
    },
    /// HTTP 403.
    #[error("it refuses our address or this call: correct its -rpcallowip and -rpcwhitelist")]
    Forbidden,
    /// HTTP 503.
    #[error("it has too many calls to answer: raise its -rpcworkqueue and -rpcthreads")]
    Busy,
    /// No complete answer in time.
    #[error("no answer within {} ms: it is overloaded, or no bitcoind", after.as_millis())]
    Deadline {
        /// How long we waited.
        after: Duration,
    },
    /// The answer is larger than any honest one.
    #[error("its answer has more than {limit} bytes: it is no bitcoind, check the address")]
    TooLarge {
        /// Most bytes of such an answer.
        limit: usize,
    },
    /// Not the answer of a JSON-RPC server to this request.
    #[error("no JSON-RPC answer (HTTP status {status}): it is no bitcoind, check address and port")]
    NotJsonRpc {
        /// The HTTP status.
        status: u16,
    },
    /// JSON-RPC, but not what this call returns.
    #[error("its answer is not what this call returns: check that it is Bitcoin Core")]
    UnexpectedAnswer,
    /// An error that bitcoind reports, which has no variant of its own.
    #[error("it says: {0}")]
    Rpc(RpcError),
    /// RPC error -28.
    #[error("it is starting ({0}): wait")]
    WarmingUp(Text),
    /// A block that was pruned away.
    #[error("it has pruned block {block}: use a bitcoind with -prune=0, or a larger -prune, synced anew")]
    Pruned {
        /// The block.
        block: BlockHash,
    },
    /// A block that it does not have: never heard of, or only the header so far.
    #[error("it does not have block {block}: wait until it is synced")]
    NoSuchBlock {
        /// The block.
        block: BlockHash,
    },
    /// Older than [`OLDEST_VERSION`](super::OLDEST_VERSION).
    #[error("its version is {version}, needs {} (Bitcoin Core 30): upgrade it", super::OLDEST_VERSION)]
    TooOld {
        /// Its version, as 10,000 times the major one.
        version: u64,
    },
    /// Another Bitcoin network.
    #[error("its block 0 is {got}, our network's is {expected}: point at a bitcoind of the right network")]
    WrongNetwork {
        /// The genesis block of the chainspec's Bitcoin network.
        expected: BlockHash,
        /// Its genesis block.
        got: BlockHash,
    },
    /// A block or header that is not what was asked for, or proves nothing.
    #[error("it served a false block: take it out of service and look at its disk")]
    FalseBlock(#[source] BlockFault),
    /// Mining on demand is for regtest.
    #[error("blocks are generated on regtest only")]
    NotRegtest,
}

impl Problem {
    /// Whether another bitcoind may know better. The others are this network's answer.
    pub(super) fn is_of_endpoint(&self) -> bool {
        !matches!(self, Problem::Rpc(_) | Problem::NoSuchBlock { .. } | Problem::NotRegtest)
    }

    /// Whether a bitcoind that says this is of no use for other calls either.
    pub(super) fn sets_aside(&self) -> bool {
        self.is_of_endpoint() && !matches!(self, Problem::Pruned { .. })
    }
}

/// An error that bitcoind reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcError {
    /// Its code (Bitcoin Core, `src/rpc/protocol.h`).
    pub code: i32,
    /// Its message.
    pub message: Text,
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {})", self.message, self.code)
    }
}

/// Text that bitcoind sent: at most 300 characters of one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(Box<str>);

impl Text {
    /// The text, cut and with control characters replaced.
    pub(super) fn of(text: &str) -> Text {
        Text(text.chars().take(TEXT_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
