//! What happens to a node.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::Transaction;
use bytes::Bytes;
use causeway_chainspec::{Height, SatPerKvb};
use causeway_consensus::bft::{CertificateError, CheckedMessage, Unsigned};
use causeway_consensus::peg::evidence::PegIn;
use causeway_consensus::{ConnectedBlock, InvalidBlock, NotReady};
use libp2p::PeerId;

use super::jobs::ReadMessage;
use super::peg::{BitcoinAnswer, BitcoinOffer};
use crate::mempool::{Checked, Package, PackageAnswer, Reject};
use crate::wire::{Request, Response, Topic};

/// When something happens. The shell reads the clocks, nothing else does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Since the node was made. Never goes back.
    pub uptime: Duration,
    /// Since 1970, by this machine's clock, which may be wrong and may jump.
    pub unix: Duration,
}

impl Now {
    /// A number that no message of this node has had, unless its clock went back.
    pub(super) fn nonce(self) -> u64 {
        u64::try_from(self.unix.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Names a message of the gossip layer until the node has said what to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GossipId(pub u64);

/// Names a request of a peer until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InboundId(pub u64);

/// Names a request to a peer until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutboundId(pub u64);

/// Names a job until its result is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Names a transaction that somebody has handed in here until the verdict is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubmitId(pub u64);

/// One thing that happened.
#[derive(Debug)]
pub enum Event {
    /// Time has passed: [`Node::next_deadline`](super::Node::next_deadline) is over. Harmless at any time.
    Tick,
    /// A peer of this chain and protocol is connected.
    Connected {
        /// Who.
        peer: PeerId,
    },
    /// A peer has no connection any more. Answers to open requests may or may not follow.
    Disconnected {
        /// Who.
        peer: PeerId,
    },
    /// A gossip message arrived. Answered by one [`Action::Relay`](super::Action::Relay).
    Gossip {
        /// Who sent it on.
        peer: PeerId,
        /// Its name.
        id: GossipId,
        /// Its topic.
        topic: Topic,
        /// What it says, within the bound of the topic.
        bytes: Bytes,
    },
    /// A peer asks. Answered by [`Action::Respond`](super::Action::Respond) or
    /// [`Action::ServeBlocks`](super::Action::ServeBlocks), or not at all.
    Request {
        /// Who asks.
        peer: PeerId,
        /// Its name.
        id: InboundId,
        /// What.
        request: Request,
    },
    /// An answer to a request of ours, or the certainty that there will be none.
    Response {
        /// Who answers.
        peer: PeerId,
        /// The request.
        id: OutboundId,
        /// The answer.
        result: Result<Response, RequestFailure>,
    },
    /// The signatures of a consensus message were checked: the answer to [`Action::Verify`](super::Action::Verify).
    Verified {
        /// The job.
        ticket: Ticket,
        /// The message, or what is wrong with it.
        result: Result<CheckedMessage, Unsigned>,
    },
    /// A gossip message was read: the answer to [`Action::Read`](super::Action::Read).
    Read {
        /// The job.
        ticket: Ticket,
        /// What it says.
        message: ReadMessage,
    },
    /// The content of a block is that of its header, and of the right form: said of a job of
    /// [`Action::Validate`](super::Action::Validate) before its answer, if that is so.
    Matched {
        /// The job.
        ticket: Ticket,
    },
    /// A block was judged by the rules: the answer to [`Action::Validate`](super::Action::Validate).
    Validated {
        /// The job.
        ticket: Ticket,
        /// The verdict.
        verdict: Verdict,
    },
    /// Our own block is ready: the answer to [`Action::Assemble`](super::Action::Assemble).
    Assembled {
        /// The job.
        ticket: Ticket,
        /// The block; [`Verdict::NotReady`] if the chain has moved on meanwhile, or the job was cancelled.
        verdict: Verdict,
    },
    /// Transactions were checked: the answer to [`Action::Check`](super::Action::Check).
    Checked {
        /// The job.
        ticket: Ticket,
        /// Each of them for the pool, or why not, in the job's order.
        results: Vec<Result<Box<Checked>, Reject>>,
    },
    /// The disk lacks final blocks that it had. Comes again for as long as it does.
    Holes {
        /// Their heights.
        heights: Vec<Height>,
    },
    /// A fetched block was put back, or not: the answer to [`Action::Fill`](super::Action::Fill).
    Filled {
        /// The job.
        ticket: Ticket,
        /// What came of it.
        filled: Filled,
    },
    /// A package was checked: the answer to [`Action::CheckPackage`](super::Action::CheckPackage).
    PackageChecked {
        /// The job.
        ticket: Ticket,
        /// What was found.
        answer: PackageAnswer,
    },
    /// The block of [`Action::Commit`](super::Action::Commit) is on disk.
    Committed {
        /// Its height.
        height: Height,
    },
    /// What this machine's Bitcoin node says by now; `None` if there is none, or it cannot be relied on.
    Bitcoin {
        /// What it offers for the next blocks.
        offer: Option<Arc<BitcoinOffer>>,
    },
    /// What this machine's Bitcoin node says of a block: the answer to
    /// [`Action::AskBitcoin`](super::Action::AskBitcoin).
    BitcoinJudged {
        /// The question.
        ticket: Ticket,
        /// The answer.
        answer: BitcoinAnswer,
    },
    /// A deposit is claimed here. Answered by one [`Action::ClaimReply`](super::Action::ClaimReply) if it has a name.
    Claim {
        /// Its name, if somebody waits.
        id: Option<SubmitId>,
        /// The deposit.
        peg_in: Box<PegIn>,
    },
    /// Somebody hands in a transaction here. Answered by one [`Action::Reply`](super::Action::Reply).
    Submit {
        /// Its name.
        id: SubmitId,
        /// The transaction.
        transaction: Transaction,
    },
    /// Somebody hands in a package here. Answered by one [`Action::PackageReply`](super::Action::PackageReply).
    SubmitPackage {
        /// Its name.
        id: SubmitId,
        /// The package.
        package: Package,
        /// No transaction of it enters whose own feerate is higher.
        max_feerate: Option<SatPerKvb>,
    },
}

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestFailure {
    /// The connection ended, or never came to be.
    #[error("the connection ended")]
    Disconnected,
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// What came is no answer of this protocol, or to something else.
    #[error("the answer is malformed")]
    Malformed,
    /// The peer does not answer such requests.
    #[error("the peer refused the request")]
    Refused,
}

/// What came of a block that was to fill a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// It is back on disk.
    Whole,
    /// It is not the block of its certificate, or that proves nothing.
    Unproven,
    /// It is final, and not the block of this chain at its height.
    Another,
}

/// What the rules say of a block.
#[derive(Debug)]
pub enum Verdict {
    /// It breaks none, and stands on the tip.
    Valid {
        /// Its bytes.
        bytes: Bytes,
        /// What it does.
        connected: Arc<ConnectedBlock>,
    },
    /// It breaks one.
    Invalid(InvalidBlock),
    /// What was said to make it final does not.
    Unproven(CertificateError),
    /// Nothing: it does not stand on the tip that the store has now, or the job was cancelled.
    NotReady(NotReady),
}
