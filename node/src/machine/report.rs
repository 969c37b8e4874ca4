//! What an operator is told, and what a node looks like from outside.

use std::time::Duration;

use bitcoin::BlockHash;
use causeway_chainspec::Height;
use causeway_consensus::InvalidBlock;
use causeway_consensus::bft::signer::Position;
use causeway_consensus::bft::{Address, Equivocation, Refusal};
use causeway_consensus::peg::state::Freeze;
use libp2p::PeerId;

use super::peg::BitcoinAnswer;
use crate::wire::Topic;

/// A fact for the log.
#[derive(Debug)]
pub enum Report {
    /// A block is final.
    Committed {
        /// Its height.
        height: Height,
        /// Its id.
        hash: BlockHash,
        /// The round that decided it.
        round: u32,
        /// Its transactions, with the coinbase.
        transactions: usize,
        /// From the start of the height to the decision; `None` if it was fetched.
        decided_in: Option<Duration>,
    },
    /// A round after the first has begun: some validator is slow or silent.
    Round {
        /// The height.
        height: Height,
        /// The round.
        round: u32,
        /// Who proposes.
        proposer: Address,
    },
    /// Blocks are being fetched.
    Syncing {
        /// The tip.
        height: Height,
        /// The highest tip that peers tell of.
        target: Height,
    },
    /// The tip is the highest that peers tell of.
    Synced {
        /// The tip.
        height: Height,
    },
    /// A proposed block breaks a rule.
    InvalidProposal {
        /// Its height.
        height: Height,
        /// Its id.
        hash: BlockHash,
        /// Who proposed it.
        proposer: Address,
        /// The rule.
        rule: InvalidBlock,
    },
    /// No vote yet for a valid block: its time is ahead of this machine's clock.
    Held {
        /// Its height.
        height: Height,
        /// Its id.
        hash: BlockHash,
        /// How far ahead.
        ahead: Duration,
    },
    /// No vote yet for a valid block: this machine's Bitcoin node does not say the same.
    HeldByBitcoin {
        /// Its height.
        height: Height,
        /// Its id.
        hash: BlockHash,
        /// What it says.
        answer: BitcoinAnswer,
    },
    /// A round failed with what its block said of Bitcoin. This validator's blocks say nothing of it for a while.
    BitcoinLeftOut {
        /// The height of that round.
        height: Height,
        /// Who proposed the block.
        proposer: Address,
        /// The last height that is left out.
        until: Height,
    },
    /// The peg froze.
    PegFrozen {
        /// In which block.
        height: Height,
        /// Why.
        why: Freeze,
    },
    /// A validator signed two contradictory messages.
    Equivocation(Equivocation),
    /// The signer refused.
    Withheld {
        /// The message.
        position: Position,
        /// Why.
        refusal: Refusal,
    },
    /// This validator has started, and signs nothing before others have said that its tip is not old.
    TipUnconfirmed {
        /// The tip.
        height: Height,
        /// The power that has confirmed it, its own included. More than two thirds are needed, and the blocks that others have.
        power: u64,
        /// The power of all.
        total: u64,
    },
    /// The tip of a validator that was reported to wait is not old: it takes part from here on.
    TipConfirmed {
        /// The tip.
        height: Height,
    },
    /// Another machine signs with this node's key.
    SignedElsewhere {
        /// The height.
        height: Height,
    },
    /// A peer broke the protocol.
    Misbehaved {
        /// Who.
        peer: PeerId,
        /// How.
        offence: Offence,
        /// What is left of its score: at 0 it is banned.
        score: i32,
    },
    /// A peer is banned.
    Banned {
        /// Who.
        peer: PeerId,
        /// For how long.
        duration: Duration,
    },
    /// A peer was disconnected: for long it has sent far more than is of use.
    HungUp {
        /// Who.
        peer: PeerId,
        /// What it sent last.
        topic: Topic,
    },
    /// A block of ours breaks a rule of ours. It is not proposed.
    OwnBlockInvalid {
        /// Its height.
        height: Height,
        /// The rule.
        rule: InvalidBlock,
    },
}

/// What a peer did that it should not have.
///
/// Honest nodes pass on what others made, so each offence is one that no honest node can be made to commit: it is about
/// what the peer said for itself, or about what it must have checked before it sent it on. Whatever may look otherwise
/// from another tip, another pool or with other settings is none; it costs a little of the peer's allowance
/// (`machine::allowance`), which bans nobody. Peers that the operator has named are never banned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offence {
    /// Bytes that are no message. A node sends a message on only after it has read these very bytes, with the same code and
    /// the same bounds: nodes of another version of the protocol are not connected. An answer is its own.
    Malformed,
    /// A vote, proposal or certificate with a signature that is not of the key that it names. A node sends none on that it
    /// has not checked, and whether a signature is right depends on no tip. That signers are no validators, or too few, is
    /// no offence: at a change of validators the set of a neighbour is another for one height.
    BadSignature,
    /// A block whose content does not belong to its header. A node sends a body on only after it has compared the two, and
    /// answers with none that it has not.
    AlteredBlock,
    /// A claim of a deposit that breaks a rule. A node sends one on only after it has checked the proof. What depends on the
    /// tip is no offence: that Bitcoin's block is not known, a credit, the fee, ages, the reserve, a frozen peg.
    InvalidClaim,
    /// A transaction that no node could ever take: a wrong signature, a value or a form that no block may hold. A message is
    /// sent on only if the pool took, or has with the same witnesses, every one of its transactions; what is taken out of a
    /// message with others is sent in another. The verdict depends on outputs that the transaction names by hash, not on
    /// the tip or the pool; what depends on these (coins that are missing, locks, fees, conflicts) is no offence.
    InvalidTransaction,
    /// A wrong certificate, blocks that were not asked for, or not the blocks of their certificates. Answers come from the
    /// answerer's own disk, where nothing is that it has not verified.
    LyingSync,
    /// A promised answer that did not come in time. Never bans: the network may be at fault.
    Stalled,
    /// An answer without any of the blocks that it had told of. What a node tells of is on its disk; one that answers enough
    /// refuses, which is no offence.
    EmptyAnswer,
}

impl Offence {
    /// What it is called where offences are counted.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::BadSignature => "bad_signature",
            Self::AlteredBlock => "altered_block",
            Self::InvalidClaim => "invalid_claim",
            Self::InvalidTransaction => "invalid_transaction",
            Self::LyingSync => "lying_sync",
            Self::Stalled => "stalled",
            Self::EmptyAnswer => "empty_answer",
        }
    }

    /// What it costs of a score of 100.
    pub fn cost(self) -> i32 {
        match self {
            Self::Malformed | Self::BadSignature | Self::AlteredBlock => 50,
            Self::InvalidTransaction | Self::InvalidClaim => 20,
            Self::LyingSync => 100,
            Self::Stalled | Self::EmptyAnswer => 25,
        }
    }
}

/// A node at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Height of the last final block.
    pub height: Height,
    /// Its id.
    pub hash: BlockHash,
    /// Its time, in seconds of Unix time.
    pub time: u32,
    /// The round of the height above.
    pub round: u32,
    /// The highest tip that peers tell of, if it is above.
    pub sync_target: Option<Height>,
    /// The key that this node votes with.
    pub validator: Option<Address>,
    /// Peers of this chain.
    pub peers: usize,
    /// Whether this validator signs nothing yet, because others have not said that its tip is not old.
    pub awaits_tips: bool,
    /// Transactions that wait for a block.
    pub mempool_transactions: usize,
    /// Their virtual bytes.
    pub mempool_vsize: u64,
}

/// What a node has counted since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rounds that began.
    pub rounds: u64,
    /// Waits for a proposal that ran out: its proposer is slow or silent, or was not believed.
    pub propose_timeouts: u64,
    /// Waits for prevotes that agree that ran out.
    pub prevote_timeouts: u64,
    /// Waits for precommits that agree that ran out.
    pub precommit_timeouts: u64,
    /// Transactions.
    pub transactions: TransactionCounts,
}

/// What became of transactions since a node started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransactionCounts {
    /// Taken into the pool, those of an earlier run too.
    pub accepted: u64,
    /// Refused because they can never be valid.
    pub invalid: u64,
    /// Refused because they are not valid yet: a coin or a time is missing.
    pub not_yet: u64,
    /// Refused because the pool has them already.
    pub known: u64,
    /// Refused by the policy of this node.
    pub policy: u64,
    /// Left the pool for a block.
    pub confirmed: u64,
    /// Left the pool because a block contradicts them.
    pub conflicted: u64,
    /// Left the pool for one that pays more.
    pub replaced: u64,
    /// Left the pool because it was full.
    pub evicted: u64,
    /// Left the pool because they waited too long.
    pub expired: u64,
    /// Left the pool because the peg froze.
    pub peg_frozen: u64,
}

/// A peer at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Who.
    pub peer: PeerId,
    /// The tip that it last told of.
    pub height: Option<Height>,
    /// 100 for one that did nothing wrong; at 0 it is banned.
    pub score: i32,
}
