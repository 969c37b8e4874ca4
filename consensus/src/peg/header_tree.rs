//! Bitcoin's headers as Causeway knows them: the best chain since the chainspec's start, and the branches that lost
//! (PEG section 2, Headers).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bitcoin::block::Header;
use bitcoin::{BlockHash, CompactTarget, Work};
use causeway_chainspec::{BitcoinHeight, BitcoinStart};
use thiserror::Error;

use self::chain::{Chain, Link};
use self::rules::{MAX_FUTURE_SECONDS, Past};
use super::record::RecordChanges;

mod chain;
mod propose;
mod records;
mod rules;
mod run;

pub use propose::NoRun;
pub use records::{DamagedHeaders, KIND_BEST, KIND_BRANCH, KIND_HIGHEST};
pub use rules::MIN_VERSION;
pub use run::{BareHeader, HeaderRun, MalformedRun};

/// The best chain of Bitcoin headers from the chainspec's start on, and the headers that left it.
///
/// A header enters only as part of a run that ends on the best chain, so every header off the best chain was once on it
/// and has the proof of work that its place required. Those are kept while they are at most `fork_depth` below the highest
/// tip ever held; so what they take is bounded by the work that was spent in that window, and by what fits into blocks.
///
/// Cloning shares all but the last few hundred headers, and branches are copied only by what changes them.
#[derive(Clone, PartialEq, Eq)]
pub struct HeaderTree {
    start: Arc<BitcoinStart>,
    fork_depth: u32,
    chain: Chain,
    /// Headers off the best chain, by hash.
    branches: Arc<BTreeMap<BlockHash, Branch>>,
    /// The highest tip ever held.
    highest: u32,
}

/// A header off the best chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Branch {
    height: u32,
    header: Header,
}

/// The best Bitcoin header in state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BitcoinTip {
    /// Its height.
    pub height: BitcoinHeight,
    /// Its hash.
    pub hash: BlockHash,
    /// Its time, in seconds of Unix time.
    pub time: u32,
}

/// What a run of headers did to the best chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extension {
    /// The tip after the run.
    pub tip: BitcoinTip,
    /// The last header that the best chains before and after the run share: the old tip if the run only extends it.
    pub fork_point: BitcoinHeight,
    /// Headers above the fork point left the best chain.
    pub replaced: bool,
    /// The highest tip ever held before the run.
    pub highest_before: BitcoinHeight,
}

impl Extension {
    /// Whether the best chain switched at a fork point `final_depth` or more below the highest tip held before, which
    /// freezes the peg (PEG section 3(a)).
    ///
    /// A block with `final_depth` confirmations under some tip lies `final_depth - 1` below it, so at or below every
    /// shallower fork point: what was recorded of it stands.
    pub fn reaches_final(&self, final_depth: u32) -> bool {
        self.replaced && self.highest_before.blocks_since(self.fork_point).is_some_and(|depth| depth >= final_depth)
    }
}

/// The rule that a run of headers breaks.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidHeaders {
    /// The run has no header.
    #[error("the run of headers is empty")]
    Empty,
    /// The header that the run starts from is not known, or lies on the best chain too deep for a branch.
    #[error("the run starts from {parent}, which is no branch and not on the best chain at height {min} or above")]
    UnknownParent {
        /// The header that the run starts from.
        parent: BlockHash,
        /// The lowest height at which a branch may start.
        min: BitcoinHeight,
    },
    /// The run continues a branch that started too deep.
    #[error(
        "the run continues the branch of {parent}, which left the best chain more than {max} below the highest tip, {highest}"
    )]
    ForkTooDeep {
        /// The header that the run starts from.
        parent: BlockHash,
        /// The chainspec's `fork_depth`.
        max: u32,
        /// The highest tip ever held.
        highest: BitcoinHeight,
    },
    /// The run's first header is known, so the run could start later.
    #[error("the run's first header {hash} is known already")]
    Known {
        /// Its hash.
        hash: BlockHash,
    },
    /// The run does not extend the tip and does not end with more work.
    #[error("the run ends with a chainwork of {got:x}, which must be more than the tip's, {tip:x}")]
    NotMoreWork {
        /// The total work up to the run's last header.
        got: Work,
        /// The total work up to the tip.
        tip: Work,
    },
    /// Not the target that Bitcoin's difficulty adjustment requires.
    #[error("header {height} has bits {got:08x}, which must be {required:08x}")]
    Bits {
        /// The header's height.
        height: BitcoinHeight,
        /// Its bits.
        got: CompactTarget,
        /// The bits that it must have.
        required: CompactTarget,
    },
    /// The hash is above the target.
    #[error("header {height} has hash {hash}, which does not meet its target (bits {bits:08x})")]
    ProofOfWork {
        /// The header's height.
        height: BitcoinHeight,
        /// Its hash.
        hash: BlockHash,
        /// Its bits.
        bits: CompactTarget,
    },
    /// Not later than the median of the eleven headers before (BIP-0113).
    #[error("header {height} has time {got}, which must be later than {median}, the median of the last 11")]
    TimeTooOld {
        /// The header's height.
        height: BitcoinHeight,
        /// Its time.
        got: u32,
        /// The median.
        median: u32,
    },
    /// The first header of a period is too far before its parent (BIP-0094).
    #[error("header {height} opens a difficulty period with time {got}, which must be at least {min}")]
    TimeWarp {
        /// The header's height.
        height: BitcoinHeight,
        /// Its time.
        got: u32,
        /// Its parent's time - 600.
        min: u32,
    },
    /// Too far after the Causeway block.
    #[error("header {height} has time {got}, which may be at most {max}: the block's time + 2 h")]
    TimeTooNew {
        /// The header's height.
        height: BitcoinHeight,
        /// Its time.
        got: u32,
        /// The latest time allowed.
        max: u64,
    },
    /// A version that BIP-0065 ended.
    #[error("header {height} has version {got}, which must be at least {MIN_VERSION}")]
    Version {
        /// The header's height.
        height: BitcoinHeight,
        /// Its version.
        got: i32,
    },
}

/// Where a run starts: its parent's place in the tree.
struct Fork {
    /// Height of the last best-chain header below the run.
    point: u32,
    /// The branch from above the fork point up to the run's parent, lowest first.
    side: Vec<(BlockHash, Header)>,
}

impl HeaderTree {
    /// The tree that holds the starting header only.
    pub fn new(start: &BitcoinStart, fork_depth: u32) -> Self {
        let link = Link { header: *start.header(), work: start.chainwork() };
        Self {
            start: Arc::new(start.clone()),
            fork_depth,
            chain: Chain::new(start.height().to_u32(), link),
            branches: Arc::default(),
            highest: start.height().to_u32(),
        }
    }

    /// The best header.
    pub fn tip(&self) -> BitcoinTip {
        BitcoinTip {
            height: BitcoinHeight(self.chain.tip_height()),
            hash: self.chain.tip_hash(),
            time: self.chain.tip().header.time,
        }
    }

    /// The total work of the best chain, the work below the start included.
    pub fn chainwork(&self) -> Work {
        self.chain.tip().work
    }

    /// The height of the highest tip ever held. The tip itself may be lower: a stronger branch can be shorter.
    pub fn highest(&self) -> BitcoinHeight {
        BitcoinHeight(self.highest)
    }

    /// The height of the starting header.
    pub fn start_height(&self) -> BitcoinHeight {
        self.start.height()
    }

    /// The header of the best chain at `height`; `None` above the tip and below the start.
    pub fn best(&self, height: BitcoinHeight) -> Option<&Header> {
        self.chain.get(height.to_u32()).map(|link| &link.header)
    }

    /// The hash of the best chain's header at `height`; `None` above the tip and below the start.
    pub fn best_hash(&self, height: BitcoinHeight) -> Option<BlockHash> {
        self.chain.hash_at(height.to_u32())
    }

    /// The height of a best-chain header that is at most `fork_depth` below the highest tip ever held; `None` for every
    /// other hash.
    ///
    /// Compares with each of those, from the tip down: at most `fork_depth + 1` comparisons.
    pub fn best_height(&self, hash: &BlockHash) -> Option<BitcoinHeight> {
        let lowest = self.lowest_fork_point();
        (lowest..=self.chain.tip_height())
            .rev()
            .find(|height| self.chain.hash_at(*height) == Some(*hash))
            .map(BitcoinHeight)
    }

    /// Whether this is a branch's header, or one of the best chain at most `fork_depth` below the highest tip ever held.
    ///
    /// Costs as much as [`Self::best_height`].
    pub fn knows(&self, hash: &BlockHash) -> bool {
        self.branches.contains_key(hash) || self.best_height(hash).is_some()
    }

    /// Applies a run of headers, and notes the records that it changes. The tree stays as it is if the run is invalid.
    ///
    /// `block_time` is the time of the Causeway block that carries the run, in seconds of Unix time.
    ///
    /// # Errors
    /// [`InvalidHeaders`], one variant for each rule (PEG section 2, Headers).
    pub fn extend(
        &mut self,
        run: &HeaderRun,
        block_time: u32,
        changes: &mut RecordChanges,
    ) -> Result<Extension, InvalidHeaders> {
        let fork = self.find_fork(&run.parent)?;
        let links = self.check_run(&fork, run, block_time)?;
        let highest_before = self.highest();
        let replaced = fork.point < self.chain.tip_height();
        self.switch(&fork, links, changes);
        Ok(Extension { tip: self.tip(), fork_point: BitcoinHeight(fork.point), replaced, highest_before })
    }

    /// The lowest height at which a branch may leave the best chain.
    fn lowest_fork_point(&self) -> u32 {
        self.highest.saturating_sub(self.fork_depth).max(self.start.height().to_u32())
    }

    fn find_fork(&self, parent: &BlockHash) -> Result<Fork, InvalidHeaders> {
        if let Some(BitcoinHeight(point)) = self.best_height(parent) {
            return Ok(Fork { point, side: Vec::new() });
        }
        let lowest = self.lowest_fork_point();
        let Some(mut branch) = self.branches.get(parent) else {
            return Err(InvalidHeaders::UnknownParent { parent: *parent, min: BitcoinHeight(lowest) });
        };
        let mut side = vec![(*parent, branch.header)];
        // Heights fall with every step.
        let point = loop {
            let below = branch.header.prev_blockhash;
            let height = branch.height - 1;
            if self.chain.hash_at(height) == Some(below) {
                break Some(height);
            }
            match self.branches.get(&below) {
                Some(next) => branch = next,
                None => break None,
            }
            side.push((below, branch.header));
        };
        // A branch is dropped from below, so the rest of one that started too deep may still be here.
        let Some(point) = point.filter(|point| *point >= lowest) else {
            return Err(InvalidHeaders::ForkTooDeep { parent: *parent, max: self.fork_depth, highest: self.highest() });
        };
        side.reverse();
        Ok(Fork { point, side })
    }

    /// Checks every rule, and returns the new best chain above the fork point: the branch below the run, and the run.
    fn check_run(&self, fork: &Fork, run: &HeaderRun, block_time: u32) -> Result<Vec<Link>, InvalidHeaders> {
        let mut past = Past::new(&self.start, &self.chain, fork.point);
        let mut work = self.chain.get(fork.point).expect("a fork point is on the best chain").work;
        let mut links = Vec::new();
        for (_, header) in &fork.side {
            work = work + header.work();
            links.push(Link { header: *header, work });
            past.push(*header);
        }
        let max_time = u64::from(block_time) + MAX_FUTURE_SECONDS;
        let mut parent = run.parent;
        for (index, bare) in run.headers.iter().enumerate() {
            let header = bare.after(parent);
            let hash = header.block_hash();
            // With the first one unknown, all are: the parent of a known header is known as well.
            if index == 0 && self.knows(&hash) {
                return Err(InvalidHeaders::Known { hash });
            }
            rules::check(&past, &header, &hash)?;
            if u64::from(header.time) > max_time {
                let height = BitcoinHeight(past.next_height());
                return Err(InvalidHeaders::TimeTooNew { height, got: header.time, max: max_time });
            }
            // The start's chainwork is below 2^128, and a header with a work of w takes about w hashes to make.
            work = work + header.work();
            links.push(Link { header, work });
            past.push(header);
            parent = hash;
        }
        if run.headers.is_empty() {
            return Err(InvalidHeaders::Empty);
        }
        let tip = self.chain.tip().work;
        if run.parent != self.chain.tip_hash() && work <= tip {
            return Err(InvalidHeaders::NotMoreWork { got: work, tip });
        }
        Ok(links)
    }

    /// Makes `links` the best chain above the fork point, keeps what they replace as a branch, and drops what is too deep.
    fn switch(&mut self, fork: &Fork, links: Vec<Link>, changes: &mut RecordChanges) {
        let old_tip = self.chain.tip_height();
        let replaced: Vec<(BlockHash, Branch)> = (fork.point + 1..=old_tip)
            .map(|height| {
                let link = self.chain.get(height).expect("from the fork point to the tip there is no gap");
                let hash = self.chain.hash_at(height).expect("it has a header there");
                (hash, Branch { height, header: link.header })
            })
            .collect();

        self.chain.truncate(fork.point);
        for link in links {
            self.chain.push(link);
        }
        let new_tip = self.chain.tip_height();
        for height in fork.point + 1..=old_tip.max(new_tip) {
            let index = (height - fork.point - 1) as usize;
            let before = replaced.get(index).map(|(_, branch)| records::header_value(&branch.header));
            let after = self.chain.get(height).map(|link| records::header_value(&link.header));
            changes.note(records::best_key(height), before, after);
        }

        if new_tip > self.highest {
            let before = records::highest_value(self.highest);
            changes.note(vec![KIND_HIGHEST], Some(before), Some(records::highest_value(new_tip)));
            self.highest = new_tip;
        }

        let lowest = self.highest.saturating_sub(self.fork_depth);
        let dropped = self.branches.iter().filter(|(_, branch)| branch.height < lowest).map(|(hash, _)| *hash);
        let removed: Vec<BlockHash> = fork.side.iter().map(|(hash, _)| *hash).chain(dropped).collect();
        if removed.is_empty() && replaced.is_empty() {
            return;
        }
        let branches = Arc::make_mut(&mut self.branches);
        for hash in removed {
            if let Some(branch) = branches.remove(&hash) {
                changes.note(records::branch_key(&hash), Some(records::branch_value(&branch)), None);
            }
        }
        for (hash, branch) in replaced.into_iter().filter(|(_, branch)| branch.height >= lowest) {
            changes.note(records::branch_key(&hash), None, Some(records::branch_value(&branch)));
            branches.insert(hash, branch);
        }
    }
}

impl fmt::Debug for HeaderTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeaderTree")
            .field("start", &self.start_height())
            .field("tip", &self.tip())
            .field("highest", &self.highest)
            .field("branches", &self.branches.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
