//! Whether a node lives, and whether it is ready: the judgement, from what was seen.
//!
//! | check | 200 | 503 |
//! |---|---|---|
//! | live | the node's thread answers, or the process still opens its disk | it does not answer in time: start it again |
//! | ready | the node may be sent requests | one of [`Reason`] |
//!
//! A node that is ready can be worse than it should be: it answers 200 and names what is wrong under `degraded`. Bitcoin is
//! why the two differ. A full node whose Bitcoin node cannot be relied on serves the chain as well as any, so that one
//! bitcoind that starts again does not take every node behind a balancer away. A validator in that state holds blocks that
//! speak of Bitcoin, and deposits stop if a third of the power does: it is not ready, so that whoever restarts validators
//! one by one waits for it.

use std::time::Duration;

use serde::Serialize;

use super::seen::{NodeSeen, Unseen};
use crate::rest::peg::SourceStanding;

/// Blocks that a ready node may be behind what peers tell of: a block takes a moment to arrive everywhere.
pub(super) const BEHIND_MAX: u32 = 2;

/// A chain is stalled when no block became final for so many of its intervals, and for so long.
const STALLED_INTERVALS: u32 = 20;
const STALLED_MIN: Duration = Duration::from_secs(60);

/// Why a node is not ready, or worse than it should be. The codes are fixed: operators' alarms name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The process opens its disk: it replays blocks, or builds indexes.
    Starting,
    /// The process was told to stop.
    NodeStopping,
    /// The node's thread does not answer in time.
    NodeNotAnswering,
    /// Blocks are being fetched: more than two are missing.
    Syncing,
    /// A validator that has started waits for others to say that its tip is not old, and signs nothing.
    TipUnconfirmed,
    /// Nobody is connected, and the node does not decide alone.
    NoPeers,
    /// No block became final for twenty intervals, and for a minute.
    Stalled,
    /// The Bitcoin node cannot be relied on. Of a full node it is no reason against being ready.
    BitcoinUnreliable,
    /// A validator has no Bitcoin node: it votes for no block that speaks of Bitcoin. Never against being ready.
    NoBitcoin,
    /// Nothing moves between the chains. Never against being ready.
    PegFrozen,
}

impl Reason {
    /// What an operator does about it.
    fn hint(self) -> &'static str {
        match self {
            Self::Starting => "wait; the log says how far it is",
            Self::NodeStopping => "send requests to another node",
            Self::NodeNotAnswering => {
                "look at the load of the machine and of its disk; if it lasts, start the node again, and report it"
            }
            Self::Syncing => "wait; causeway_store_sync_target_height and causeway_consensus_height say how far it is",
            Self::TipUnconfirmed => {
                "look whether two thirds of the validators run and are reached; it goes on by itself"
            }
            Self::NoPeers => "check p2p.seeds, p2p.persistent_peers and the firewall",
            Self::Stalled => {
                "look whether two thirds of the validators run and reach each other; the log names who is silent"
            }
            Self::BitcoinUnreliable => {
                "look whether bitcoind runs, is synced, and is what [bitcoin] in config.toml names"
            }
            Self::NoBitcoin => "add the section [bitcoin] to config.toml, as every validator should have it",
            Self::PegFrozen => "payments go on; people have to resolve what froze the peg",
        }
    }
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Trouble {
    pub(super) reason: Reason,
    pub(super) message: String,
    pub(super) hint: &'static str,
}

impl Trouble {
    pub(super) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), hint: reason.hint() }
    }
}

impl From<Unseen> for Trouble {
    fn from(why: Unseen) -> Self {
        match why {
            Unseen::Stopping => Self::new(Reason::NodeStopping, "the node is stopping"),
            Unseen::NotAnswering => Self::new(Reason::NodeNotAnswering, "the node has not answered in time"),
        }
    }
}

/// What a check says: who may be ready may still be degraded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Readiness {
    /// Why not, the worst first; None if it is ready.
    pub(super) against: Option<Trouble>,
    pub(super) degraded: Vec<Trouble>,
}

/// What is known of a node besides itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    pub(super) bitcoin: Option<&'a SourceStanding>,
    pub(super) since_block: Duration,
    /// How old the last block's time is.
    pub(super) tip_age: Duration,
    /// The least time between two blocks.
    pub(super) interval: Duration,
}

/// Judges a node that answered.
pub(super) fn judge(seen: &NodeSeen, facts: Facts<'_>) -> Readiness {
    let Facts { bitcoin, since_block, tip_age, interval } = facts;
    let (mut against, mut degraded) = (Vec::new(), Vec::new());
    let status = &seen.status;
    if status.peers == 0 && !seen.decides_alone {
        against.push(Trouble::new(Reason::NoPeers, "no peer is connected"));
    }
    let height = status.height.to_u32();
    let stalled_after = (interval * STALLED_INTERVALS).max(STALLED_MIN);
    let behind = status.sync_target.map_or(0, |target| target.to_u32().saturating_sub(height));
    if behind > BEHIND_MAX {
        let message = format!("at height {height}, {behind} blocks behind what peers say");
        // A height that a peer claims makes no node unready whose blocks are of this moment.
        let to = if tip_age > stalled_after { &mut against } else { &mut degraded };
        to.push(Trouble::new(Reason::Syncing, message));
    }
    if status.awaits_tips {
        let message = "a validator that signs nothing before others have confirmed its tip";
        against.push(Trouble::new(Reason::TipUnconfirmed, message));
    }
    if since_block > stalled_after {
        let message = format!("no block after height {height} for {} seconds", since_block.as_secs());
        against.push(Trouble::new(Reason::Stalled, message));
    }
    let votes = seen.power > 0;
    match bitcoin {
        Some(source) if !source.reliable => {
            let trouble = Trouble::new(Reason::BitcoinUnreliable, format!("Bitcoin node: {}", source.words));
            if votes { against.push(trouble) } else { degraded.push(trouble) }
        }
        None if votes => {
            degraded.push(Trouble::new(Reason::NoBitcoin, "a validator without a Bitcoin node"));
        }
        Some(_) | None => {}
    }
    if let Some(why) = seen.tip.peg().frozen() {
        degraded.push(Trouble::new(Reason::PegFrozen, format!("the peg is frozen: {why}")));
    }
    let mut against = against.into_iter();
    let first = against.next();
    // Whatever else is wrong is told too.
    degraded.splice(0..0, against);
    Readiness { against: first, degraded }
}
