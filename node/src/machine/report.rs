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
    /// A block of ours breaks a rule of ours. It is not proposed.
    OwnBlockInvalid {
        /// Its height.
        height: Height,
        /// The rule.
        rule: InvalidBlock,
    },
}

/// What a peer did that it should not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offence {
    /// Bytes that are no message.
    Malformed,
    /// A vote, proposal or certificate whose signatures or signers are wrong.
    BadSignature,
    /// A block whose content does not belong to its header.
    AlteredBlock,
    /// A claim of a deposit that breaks a rule.
    InvalidClaim,
    /// A transaction that no node could ever take.
    InvalidTransaction,
    /// A wrong certificate, blocks that were not asked for, or not the blocks of their certificates.
    LyingSync,
    /// A promised answer that did not come in time.
    Stalled,
    /// An answer without any of the blocks that it had told of.
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
