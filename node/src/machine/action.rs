//! What a node wants done.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::Txid;
use bytes::Bytes;
use causeway_chainspec::Height;
use causeway_consensus::ConnectedBlock;
use causeway_consensus::bft::{CommitCertificate, Equivocation, HighWaterMark, LogEntry, Writing};
use libp2p::PeerId;

use super::claims::{ClaimRefusal, Claimed};
use super::event::{GossipId, InboundId, OutboundId, SubmitId, Ticket};
use super::jobs::{AssembleJob, CheckJob, FillJob, ReadJob, ValidateJob, VerifyJob};
use super::peg::BitcoinQuestion;
use super::report::Report;
use crate::mempool::{NotYet, PackageCheck, PackageResult, Reject};
use crate::wire::{Request, Response, Topic};

/// One thing to do. The actions of an event are done in their order; if one cannot be done, none after it may be, and the
/// node stops.
#[derive(Debug)]
pub enum Action {
    /// Append to the log of this height, then replace the high-water mark, and return when that is on disk if `writing` is
    /// [`Writing::Now`]. The log of an earlier height is no longer needed.
    Log {
        /// The height.
        height: Height,
        /// What to append.
        entries: Vec<LogEntry>,
        /// The new mark.
        mark: Option<HighWaterMark>,
        /// Until when.
        writing: Writing,
    },
    /// Append a proposed block to the log of this height. It must be on disk no later than the next [`Action::Log`] that
    /// says [`Writing::Now`]: a validator votes only for what it can bring back after a crash.
    KeepBody {
        /// The height.
        height: Height,
        /// The block.
        bytes: Bytes,
    },
    /// Send this to everybody.
    Publish {
        /// The topic.
        topic: Topic,
        /// What to say, within the bound of the topic.
        bytes: Bytes,
    },
    /// What to do with a gossip message.
    Relay {
        /// Which.
        id: GossipId,
        /// Whether to send it on.
        verdict: RelayVerdict,
    },
    /// Ask a peer. Answered by one [`Event::Response`](super::Event::Response).
    Request {
        /// Whom.
        peer: PeerId,
        /// Its name.
        id: OutboundId,
        /// What.
        request: Request,
    },
    /// Answer a peer.
    Respond {
        /// Which request.
        id: InboundId,
        /// The answer.
        response: Response,
    },
    /// Answer a peer with final blocks from disk: at most `count`, at most [`ANSWER_BYTES_TARGET`](crate::wire::ANSWER_BYTES_TARGET)
    /// bytes but for the first, none above the tip.
    ServeBlocks {
        /// Which request.
        id: InboundId,
        /// Height of the first.
        from: Height,
        /// How many.
        count: u16,
    },
    /// Disconnect a peer, and let nobody with its identity or its address connect for a while.
    Ban {
        /// Whom.
        peer: PeerId,
        /// For how long.
        duration: Duration,
    },
    /// Disconnect a peer. It may come back.
    HangUp {
        /// Whom.
        peer: PeerId,
    },
    /// Check the signatures of a consensus message. Answered by one [`Event::Verified`](super::Event::Verified).
    Verify {
        /// Its name.
        ticket: Ticket,
        /// The work.
        job: VerifyJob,
    },
    /// Read a gossip message. Answered by one [`Event::Read`](super::Event::Read).
    Read {
        /// Its name.
        ticket: Ticket,
        /// The work.
        job: ReadJob,
    },
    /// Judge a block by the rules. Answered by one [`Event::Validated`](super::Event::Validated), and by one
    /// [`Event::Matched`](super::Event::Matched) before it if the block is of the right form.
    Validate {
        /// Its name.
        ticket: Ticket,
        /// The work.
        job: ValidateJob,
    },
    /// Read the coins that a block spends into memory, if there is nothing better to do: it is judged soon. Never answered.
    Prefetch {
        /// The block, unjudged.
        block: Bytes,
    },
    /// Assemble a block. Answered by one [`Event::Assembled`](super::Event::Assembled).
    Assemble {
        /// Its name.
        ticket: Ticket,
        /// The work.
        job: AssembleJob,
    },
    /// The result of a validation or an assembly is not wanted any more: begin nothing more of it. It is answered all the
    /// same, with [`NotReady::Cancelled`](causeway_consensus::NotReady::Cancelled) unless it was done before.
    Cancel {
        /// The job, which may have been answered by now.
        ticket: Ticket,
    },
    /// Read the coins of transactions and check them. Answered by one [`Event::Checked`](super::Event::Checked).
    Check {
        /// Its name.
        ticket: Ticket,
        /// The work.
        job: CheckJob,
    },
    /// Put a final block back that the disk has lost, if it is proven. Answered by one
    /// [`Event::Filled`](super::Event::Filled).
    Fill {
        /// Its name.
        ticket: Ticket,
        /// The work.
        job: FillJob,
    },
    /// Read the coins of a package and check it. Answered by one [`Event::PackageChecked`](super::Event::PackageChecked).
    CheckPackage {
        /// Its name.
        ticket: Ticket,
        /// The work.
        check: PackageCheck,
    },
    /// Make a block final on disk. Answered by one [`Event::Committed`](super::Event::Committed).
    Commit {
        /// The block.
        connected: Arc<ConnectedBlock>,
        /// What makes it final.
        certificate: CommitCertificate,
        /// Whether the node is far behind: then the coins may go to disk later.
        catching_up: bool,
    },
    /// Keep the proof that a validator contradicted itself. It may come more than once.
    KeepEvidence(Equivocation),
    /// Ask this machine's Bitcoin node. Answered by one [`Event::BitcoinJudged`](super::Event::BitcoinJudged).
    AskBitcoin {
        /// Its name.
        ticket: Ticket,
        /// What to ask.
        question: BitcoinQuestion,
    },
    /// Tell whoever claimed a deposit.
    ClaimReply {
        /// Which.
        id: SubmitId,
        /// The deposit, if it is taken.
        result: Result<Claimed, ClaimRefusal>,
    },
    /// Tell whoever handed in a transaction.
    Reply {
        /// Which.
        id: SubmitId,
        /// Its id if the pool has it.
        result: Result<Txid, Reject>,
    },
    /// Tell whoever handed in a package.
    PackageReply {
        /// Which.
        id: SubmitId,
        /// What became of it, if there was room for it.
        result: Result<PackageResult, NotYet>,
    },
    /// Tell the operator.
    Report(Report),
}

/// What to do with a gossip message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayVerdict {
    /// Send it on.
    Accept,
    /// Do not send it on: it was for this node alone, and of use.
    Used,
    /// Do not send it on; nobody is to blame.
    Ignore,
    /// Do not send it on; whoever sent it should have known.
    Reject,
}
