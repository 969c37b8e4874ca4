//! What a watcher tells the rest of the program.

use std::sync::Arc;
use std::time::Instant;

use bitcoin::BlockHash;
use causeway_chainspec::{BitcoinHeight, SatPerKvb};

use super::facts::Facts;
use super::follower::{FollowError, Follower};
use super::window::HeaderWindow;
use crate::bitcoind::BitcoindError;

/// How far the view can be relied on.
#[derive(Clone, Debug)]
pub enum State {
    /// bitcoind was not asked yet.
    Starting,
    /// The view is bitcoind's best chain, and the facts are complete.
    Following,
    /// The watcher or bitcoind itself still has blocks to go through.
    Syncing {
        /// The tip of the view.
        at: BitcoinHeight,
        /// The best header that bitcoind knows.
        of: BitcoinHeight,
    },
    /// The tip is right, and blocks are scanned again for watches that came late.
    Rescanning {
        /// The next block to scan.
        next: BitcoinHeight,
        /// The tip.
        of: BitcoinHeight,
    },
    /// bitcoind follows a chain with less work than the view's, which it does not call invalid. It still has to sync.
    Behind {
        /// Its best block.
        at: BitcoinHeight,
    },
    /// No bitcoind answers. The error says what to do.
    Unavailable {
        /// Since when.
        since: Instant,
        /// What the last one tried said.
        error: Arc<BitcoindError>,
    },
    /// A block that has to be scanned was pruned away. The error says what to do.
    Pruned {
        /// The block's height.
        height: BitcoinHeight,
        /// Which block, of which bitcoind.
        error: Arc<BitcoindError>,
    },
    /// bitcoind served a block or header that is false, and there is no other one to ask.
    Distrusted {
        /// What it served.
        error: Arc<BitcoindError>,
    },
    /// The watcher cannot go on alone. The error says what to do.
    Stuck {
        /// Why.
        error: FollowError,
    },
}

impl State {
    /// Whether the view is bitcoind's best chain with complete facts.
    pub fn is_following(&self) -> bool {
        matches!(self, State::Following)
    }
}

/// What is known of Bitcoin. Clones are cheap.
///
/// Tip, headers and facts always belong together, whatever the state: in trouble they are the last good ones.
#[derive(Clone, Debug)]
pub struct BitcoinView {
    /// How far this can be relied on.
    pub state: State,
    /// Height and hash of the best block.
    pub tip: (BitcoinHeight, BlockHash),
    /// The end of the best chain.
    pub headers: Arc<HeaderWindow>,
    /// What was seen of what is watched.
    pub facts: Arc<Facts>,
    /// Facts of blocks from this height on may be missing for watches that came late; `None`: they are complete.
    pub rescan_next: Option<BitcoinHeight>,
    /// What a transaction should pay, between 1,000 sat/kvB and the configured maximum; `None` if bitcoind does not
    /// know.
    pub feerate: Option<SatPerKvb>,
    /// When a bitcoind last said that this is its best chain; `None` if none did yet.
    pub as_of: Option<Instant>,
    /// The last proof that a bitcoind lied.
    pub alarm: Option<Arc<BitcoindError>>,
}

impl BitcoinView {
    pub(super) fn starting(follower: &Follower) -> BitcoinView {
        BitcoinView {
            state: State::Starting,
            tip: follower.tip(),
            headers: Arc::clone(follower.headers()),
            facts: Arc::clone(follower.facts()),
            rescan_next: follower.rescan_next(),
            feerate: None,
            as_of: None,
            alarm: None,
        }
    }
}
