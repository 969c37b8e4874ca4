//! The list of the checks.

use std::time::Duration;

/// A check, by what holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// All honest hosts commit the same block at a height.
    Agreement,
    /// A committed block passes the whole pipeline on a chain of its own, without known scripts.
    Validity,
    /// A committed block has a certificate of the validators of its height.
    Certificate,
    /// A validator signs one message for a position, over all its lives.
    NoEquivocation,
    /// A validator that precommitted a block prevotes another one only after a later polka for it.
    Lock,
    /// A validator precommits a block only after a polka for it in that round.
    Polka,
    /// A vote for a block follows the verdict that it is valid.
    VoteAfterVerdict,
    /// A vote for a block follows its writing.
    BodyBeforeVote,
    /// A message is in the log and below the mark before it is sent.
    WrittenBeforeSent,
    /// A validator proposes in its turn.
    Turn,
    /// A block far ahead of the clock is not prevoted before two thirds have.
    Hold,
    /// The time of the chain is not further ahead than that of the fastest honest clock may be.
    Time,
    /// Only blocks that their proposer has proposed are judged.
    Admission,
    /// Nothing is judged for a round or a height that has ended.
    StaleJobs,
    /// Only what was checked is sent on.
    RelayAfterCheck,
    /// A gossip message or request gets one answer, in time.
    OneRelay,
    /// Only liars are proven to contradict themselves.
    Evidence,
    /// A validator knows the messages that it has signed.
    OwnMessages,
    /// Honest proposers propose valid blocks.
    ValidProposals,
    /// Honest hosts hold nothing against each other but slowness.
    NoHonestBlame,
    /// Honest hosts do not ban each other.
    NoHonestBan,
    /// An accepted transaction gets final, once.
    Transactions,
    /// The accounts of the peg add up at every honest host after every block, and are those of its coins.
    Accounts,
    /// A deposit is credited once, as its terms say, and only if Bitcoin has it.
    PegIns,
    /// A request is paid once, and what it asks for.
    PegOuts,
    /// What is final of Bitcoin is Bitcoin's.
    FalseEvidence,
    /// A block that speaks of Bitcoin is prevoted if the host's Bitcoin node or two thirds have said the same, and soon then.
    BitcoinVote,
    /// Every deposit is credited and every request paid, soon after the healing.
    PegLiveness,
    /// Nothing grows without bound.
    BoundedQueues,
    /// No node stops.
    NoFault,
    /// A healed network goes on, soon.
    Liveness,
}

impl Check {
    /// The name of the check.
    pub fn name(self) -> &'static str {
        match self {
            Self::Agreement => "agreement",
            Self::Validity => "validity",
            Self::Certificate => "certificate",
            Self::NoEquivocation => "no-equivocation",
            Self::Lock => "lock",
            Self::Polka => "polka",
            Self::VoteAfterVerdict => "vote-after-verdict",
            Self::BodyBeforeVote => "body-before-vote",
            Self::WrittenBeforeSent => "written-before-sent",
            Self::Turn => "turn",
            Self::Hold => "hold",
            Self::Time => "time",
            Self::Admission => "admission",
            Self::StaleJobs => "stale-jobs",
            Self::RelayAfterCheck => "relay-after-check",
            Self::OneRelay => "one-relay",
            Self::Evidence => "evidence",
            Self::OwnMessages => "own-messages",
            Self::ValidProposals => "valid-proposals",
            Self::NoHonestBlame => "no-honest-blame",
            Self::NoHonestBan => "no-honest-ban",
            Self::Transactions => "transactions",
            Self::Accounts => "accounts",
            Self::PegIns => "peg-ins",
            Self::PegOuts => "peg-outs",
            Self::FalseEvidence => "false-evidence",
            Self::BitcoinVote => "bitcoin-vote",
            Self::PegLiveness => "peg-liveness",
            Self::BoundedQueues => "bounded-queues",
            Self::NoFault => "no-fault",
            Self::Liveness => "liveness",
        }
    }
}

/// A check that failed.
#[derive(Debug, Clone)]
pub struct Violation {
    /// Which.
    pub check: Check,
    /// Seed of the run.
    pub seed: u64,
    /// Virtual time.
    pub at: Duration,
    /// What happened.
    pub what: String,
}
