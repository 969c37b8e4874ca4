//! The pure core of the watcher: blocks of the best chain in, facts out. No clock, no socket.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bitcoin::block::Header;
use bitcoin::{Amount, BlockHash, OutPoint, ScriptBuf, Txid};
use causeway_chainspec::BitcoinHeight;

use super::facts::{Deposit, Facts, Place, Spend};
use super::window::HeaderWindow;
use crate::bitcoind::FullBlock;

/// Something to look for on Bitcoin.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Watch {
    /// Outputs that pay this script, and what spends them.
    Script(ScriptBuf),
    /// What spends this outpoint.
    Outpoint(OutPoint),
    /// The block of this transaction.
    Txid(Txid),
}

/// What bounds a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many headers are kept: nothing deeper can be reorganised away. At least 2.
    pub window: u32,
    /// Most things to look for.
    pub watches: usize,
    /// Most facts.
    pub facts: usize,
    /// Deposits of less are not seen.
    pub deposit_min: Amount,
}

/// Why a follower refuses what it is given. Nothing changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    /// The header does not stand on the tip.
    #[error("block {got} stands on {parent}, the tip is {tip}")]
    NotOnTip {
        /// The block.
        got: BlockHash,
        /// What it stands on.
        parent: BlockHash,
        /// The tip.
        tip: BlockHash,
    },
    /// The block is not the tip, so it cannot be disconnected.
    #[error("block {got} is not the tip {tip}")]
    NotTip {
        /// The block.
        got: BlockHash,
        /// The tip.
        tip: BlockHash,
    },
    /// The chain forks below the headers that are kept.
    #[error(
        "the best chain forks below height {bottom}: check the Bitcoin node, then delete the watcher's file to scan again"
    )]
    BelowWindow {
        /// The lowest height that is kept.
        bottom: BitcoinHeight,
    },
    /// A block has to be scanned and only its header was given, or another block was.
    #[error("block {wanted} has to be scanned")]
    BlockWanted {
        /// The block.
        wanted: BlockHash,
    },
    /// Too many facts to keep.
    #[error("{max} facts are kept: stop watching what is settled, or raise the limit of facts")]
    TooManyFacts {
        /// The limit.
        max: usize,
    },
    /// Too many things to look for.
    #[error("{max} things are watched: stop watching what is settled, or raise the limit of watches")]
    TooManyWatches {
        /// The limit.
        max: usize,
    },
}

/// What is watched, each from the lowest height at which it counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Watches {
    pub(super) scripts: HashMap<ScriptBuf, BitcoinHeight>,
    pub(super) outpoints: HashMap<OutPoint, BitcoinHeight>,
    pub(super) txids: HashMap<Txid, BitcoinHeight>,
}

impl Watches {
    fn count(&self) -> usize {
        self.scripts.len() + self.outpoints.len() + self.txids.len()
    }

    fn from(&self, watch: &Watch) -> Option<BitcoinHeight> {
        match watch {
            Watch::Script(script) => self.scripts.get(script),
            Watch::Outpoint(outpoint) => self.outpoints.get(outpoint),
            Watch::Txid(txid) => self.txids.get(txid),
        }
        .copied()
    }

    fn insert(&mut self, watch: Watch, from: BitcoinHeight) {
        match watch {
            Watch::Script(script) => self.scripts.insert(script, from),
            Watch::Outpoint(outpoint) => self.outpoints.insert(outpoint, from),
            Watch::Txid(txid) => self.txids.insert(txid, from),
        };
    }

    fn lowest(&self) -> Option<BitcoinHeight> {
        self.scripts.values().chain(self.outpoints.values()).chain(self.txids.values()).min().copied()
    }
}

/// Follows the best chain block by block and keeps the facts about what is watched.
///
/// Facts are complete for every watch from its height to the tip, except while [`Follower::rescan_next`] names a
/// height: then what is at or above it may be missing. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Follower {
    limits: Limits,
    window: Arc<HeaderWindow>,
    watches: Arc<Watches>,
    /// At or below the lowest height of a watch.
    lowest: Option<BitcoinHeight>,
    facts: Arc<Facts>,
    rescan: Option<BitcoinHeight>,
}

impl Follower {
    /// A follower whose chain is this one header so far, and which watches nothing.
    pub fn new(limits: Limits, height: BitcoinHeight, header: Header) -> Follower {
        Follower {
            limits,
            window: Arc::new(HeaderWindow::new(height, header)),
            watches: Arc::default(),
            lowest: None,
            facts: Arc::default(),
            rescan: None,
        }
    }

    /// A follower as it was when it was written down.
    pub(super) fn restore(
        limits: Limits,
        window: HeaderWindow,
        watches: Watches,
        facts: Facts,
        rescan: Option<BitcoinHeight>,
    ) -> Follower {
        let lowest = watches.lowest();
        Follower {
            limits,
            window: Arc::new(window),
            watches: Arc::new(watches),
            lowest,
            facts: Arc::new(facts),
            rescan,
        }
    }

    /// The headers of the best chain.
    pub fn headers(&self) -> &Arc<HeaderWindow> {
        &self.window
    }

    /// What was seen.
    pub fn facts(&self) -> &Arc<Facts> {
        &self.facts
    }

    pub(super) fn watches(&self) -> &Arc<Watches> {
        &self.watches
    }

    /// Height and hash of the tip.
    pub fn tip(&self) -> (BitcoinHeight, BlockHash) {
        self.window.tip()
    }

    /// The height of the next block to scan again, for watches that came late; `None` if facts are complete.
    ///
    /// It may be below the window: then [`Follower::extend_below`] comes first.
    pub fn rescan_next(&self) -> Option<BitcoinHeight> {
        self.rescan
    }

    /// Looks for `watch` in blocks from height `from` on. Blocks up to the tip are to be scanned again, unless it was
    /// watched from there already. Returns whether anything changed.
    ///
    /// # Errors
    ///
    /// Too many watches.
    pub fn watch(&mut self, watch: Watch, from: BitcoinHeight) -> Result<bool, FollowError> {
        let known = self.watches.from(&watch);
        if known.is_some_and(|known| known <= from) {
            return Ok(false);
        }
        if known.is_none() && self.watches.count() >= self.limits.watches {
            return Err(FollowError::TooManyWatches { max: self.limits.watches });
        }
        Arc::make_mut(&mut self.watches).insert(watch, from);
        self.lowest = Some(self.lowest.map_or(from, |lowest| lowest.min(from)));
        if from <= self.tip().0 {
            self.rescan = Some(self.rescan.map_or(from, |next| next.min(from)));
        }
        Ok(true)
    }

    /// Stops looking for these and forgets what was seen of them. Returns how many were watched.
    pub fn unwatch(&mut self, gone: &[Watch]) -> usize {
        let watches = Arc::make_mut(&mut self.watches);
        let facts = Arc::make_mut(&mut self.facts);
        let before = watches.count();
        let mut scripts = HashSet::new();
        for watch in gone {
            match watch {
                Watch::Script(script) => {
                    if watches.scripts.remove(script).is_some() {
                        scripts.insert(script);
                    }
                }
                Watch::Outpoint(outpoint) => {
                    if watches.outpoints.remove(outpoint).is_some() && !facts.deposits.contains_key(outpoint) {
                        facts.spends.remove(outpoint);
                    }
                }
                Watch::Txid(txid) => {
                    watches.txids.remove(txid);
                    facts.confirmed.remove(txid);
                }
            }
        }
        if !scripts.is_empty() {
            let Facts { deposits, spends, .. } = facts;
            deposits.retain(|outpoint, deposit| {
                let keep = !scripts.contains(&deposit.script_pubkey);
                // A watch of the outpoint itself keeps what it would have seen alone.
                let seen_alone = |from: &BitcoinHeight| spends.get(outpoint).is_some_and(|s| *from <= s.place.height);
                if !keep && !watches.outpoints.get(outpoint).is_some_and(seen_alone) {
                    spends.remove(outpoint);
                }
                keep
            });
        }
        if watches.count() == 0 {
            self.lowest = None;
            self.rescan = None;
        }
        before - watches.count()
    }

    /// Whether the block at this height has to be scanned. If not, its header is enough.
    pub fn needs_block(&self, height: BitcoinHeight) -> bool {
        self.lowest.is_some_and(|lowest| lowest <= height)
    }

    /// The chain grows by a block that stands on the tip.
    ///
    /// # Errors
    ///
    /// It does not stand on the tip, or there are too many facts.
    pub fn connected(&mut self, block: &FullBlock) -> Result<(), FollowError> {
        let header = block.block().header;
        let height = self.above_tip(&header)?;
        self.scan(height, block)?;
        self.push(header);
        Ok(())
    }

    /// The chain grows by a block that need not be scanned.
    ///
    /// # Errors
    ///
    /// It does not stand on the tip, or has to be scanned.
    pub fn connected_header(&mut self, header: Header) -> Result<(), FollowError> {
        let height = self.above_tip(&header)?;
        if self.needs_block(height) {
            return Err(FollowError::BlockWanted { wanted: header.block_hash() });
        }
        self.push(header);
        Ok(())
    }

    /// The tip leaves the best chain. What was seen in it is withdrawn.
    ///
    /// # Errors
    ///
    /// It is not the tip, or the only header left.
    pub fn disconnected(&mut self, hash: BlockHash) -> Result<(), FollowError> {
        let (_, tip) = self.tip();
        if hash != tip {
            return Err(FollowError::NotTip { got: hash, tip });
        }
        if self.window.count() == 1 {
            return Err(FollowError::BelowWindow { bottom: self.window.bottom().0 });
        }
        Arc::make_mut(&mut self.window).pop();
        let height = self.tip().0;
        if self.facts.count() > 0 {
            Arc::make_mut(&mut self.facts).withdraw_above(height);
        }
        // Blocks that are connected from here on are scanned for everything.
        self.rescan = self.rescan.filter(|next| *next <= height);
        Ok(())
    }

    /// The block at [`Follower::rescan_next`].
    ///
    /// # Errors
    ///
    /// It is another block, or there are too many facts.
    pub fn rescanned(&mut self, block: &FullBlock) -> Result<(), FollowError> {
        let Some(next) = self.rescan else { return Ok(()) };
        let Some(wanted) = self.window.hash(next) else {
            return Err(FollowError::BelowWindow { bottom: self.window.bottom().0 });
        };
        if block.hash() != wanted {
            return Err(FollowError::BlockWanted { wanted });
        }
        self.scan(next, block)?;
        self.rescan = next.next().filter(|next| *next <= self.tip().0);
        if self.rescan.is_none() {
            self.trim();
        }
        Ok(())
    }

    /// Adds the header below the window, for a scan that starts there.
    ///
    /// # Errors
    ///
    /// The window does not stand on it.
    pub fn extend_below(&mut self, header: Header) -> Result<(), FollowError> {
        let (bottom, hash) = self.window.bottom();
        let parent = self.window.header(bottom).map(|header| header.prev_blockhash);
        if bottom.0 == 0 || parent != Some(header.block_hash()) {
            let parent = parent.unwrap_or(hash);
            return Err(FollowError::NotOnTip { got: hash, parent, tip: header.block_hash() });
        }
        Arc::make_mut(&mut self.window).push_below(header);
        Ok(())
    }

    fn above_tip(&self, header: &Header) -> Result<BitcoinHeight, FollowError> {
        let (height, tip) = self.tip();
        match height.next() {
            Some(next) if header.prev_blockhash == tip => Ok(next),
            _ => {
                let parent = header.prev_blockhash;
                Err(FollowError::NotOnTip { got: header.block_hash(), parent, tip })
            }
        }
    }

    fn push(&mut self, header: Header) {
        Arc::make_mut(&mut self.window).push(header);
        self.trim();
    }

    /// Drops headers below the window, but none that a scan still needs.
    fn trim(&mut self) {
        let bottom = self.tip().0.0.saturating_sub(self.limits.window.max(2) - 1);
        let bottom = self.rescan.map_or(bottom, |next| bottom.min(next.0));
        if self.window.bottom().0.0 < bottom {
            Arc::make_mut(&mut self.window).trim_below(BitcoinHeight(bottom));
        }
    }

    /// Notes what the block says of what is watched. Scanning a block twice changes nothing.
    fn scan(&mut self, height: BitcoinHeight, block: &FullBlock) -> Result<(), FollowError> {
        let watches = &*self.watches;
        let wanted = |from: Option<&BitcoinHeight>| from.is_some_and(|from| *from <= height);
        let mut found = Facts::default();
        for ((transaction, txid), index) in block.block().txdata.iter().zip(block.txids()).zip(0_u32..) {
            let place = Place { block: block.hash(), height, index };
            if wanted(watches.txids.get(txid)) {
                found.confirmed.insert(*txid, place);
            }
            for (output, vout) in transaction.output.iter().zip(0_u32..) {
                if output.value >= self.limits.deposit_min && wanted(watches.scripts.get(&output.script_pubkey)) {
                    let deposit = Deposit { script_pubkey: output.script_pubkey.clone(), value: output.value, place };
                    found.deposits.insert(OutPoint { txid: *txid, vout }, deposit);
                }
            }
            for input in &transaction.input {
                let outpoint = &input.previous_output;
                if wanted(watches.outpoints.get(outpoint))
                    || self.facts.deposits.contains_key(outpoint)
                    || found.deposits.contains_key(outpoint)
                {
                    found.spends.insert(*outpoint, Spend { by: *txid, place });
                }
            }
        }
        if found.count() == 0 {
            return Ok(());
        }
        if self.facts.count() + found.count_new(&self.facts) > self.limits.facts {
            return Err(FollowError::TooManyFacts { max: self.limits.facts });
        }
        let facts = Arc::make_mut(&mut self.facts);
        facts.deposits.extend(found.deposits);
        facts.spends.extend(found.spends);
        facts.confirmed.extend(found.confirmed);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
