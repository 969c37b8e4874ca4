//! The run that a proposer puts into its block.

use bitcoin::block::Header;
use causeway_chainspec::BitcoinHeight;
use thiserror::Error;

use super::rules::{self, MAX_FUTURE_SECONDS};
use super::{HeaderRun, HeaderTree};

/// Why there is no run towards a node's chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NoRun {
    /// The node's chain has nothing that could be carried: it is known, too far ahead in time, or so far behind that it
    /// ends below where a branch may start.
    #[error("the Bitcoin node's chain ends at height {height} and has no header to add")]
    UpToDate {
        /// The node's tip.
        height: BitcoinHeight,
    },
    /// The node's chain is a branch that does not end with more work than the tip.
    #[error("the Bitcoin node's chain, at height {height}, is a branch without more work than the tip {tip}")]
    Weaker {
        /// The node's tip.
        height: BitcoinHeight,
        /// The tip of the best chain in state.
        tip: BitcoinHeight,
    },
    /// The node's chain leaves the best chain too deep for a branch.
    #[error("the Bitcoin node's chain leaves the best chain in state below height {min}: check which one is Bitcoin")]
    ForkTooDeep {
        /// The lowest height at which a branch may start.
        min: BitcoinHeight,
    },
    /// The node's chain is a branch of which more headers are needed than a run may have.
    #[error("the Bitcoin node's chain outweighs the tip with no {max} headers, which is all that a run may have")]
    TooLong {
        /// The most headers of a run.
        max: usize,
    },
    /// The node has no header at a height below its tip, or one that does not follow the last or has no proof of work.
    #[error("the Bitcoin node has no header at height {height} that could follow the one below: ask again")]
    Missing {
        /// The height.
        height: BitcoinHeight,
    },
}

impl HeaderTree {
    /// The run of at most `max` headers that brings the tree towards a Bitcoin node's best chain, of which `header` is the
    /// header at each height up to `tip`.
    ///
    /// Headers more than 2 h after `block_time`, and all that follow, are left for a later block. A run that only extends
    /// the tip may end anywhere, so a long way takes several blocks; a branch has to outweigh the tip within one run.
    ///
    /// Calls `header` about log2(`fork_depth`) times to find the fork, and once for each header above it.
    ///
    /// # Errors
    /// [`NoRun`].
    pub fn run_towards(
        &self,
        tip: BitcoinHeight,
        block_time: u32,
        max: usize,
        header: impl Fn(BitcoinHeight) -> Option<Header>,
    ) -> Result<HeaderRun, NoRun> {
        let fork = self.shared_height(tip, &header)?;
        let mut parent = self.chain.hash_at(fork).ok_or(NoRun::UpToDate { height: tip })?;
        let mut work = self.chain.get(fork).ok_or(NoRun::UpToDate { height: tip })?.work;
        let mut run = Vec::new();
        let latest = u64::from(block_time) + MAX_FUTURE_SECONDS;
        let mut ended = NoRun::Weaker { height: tip, tip: self.tip().height };
        for height in fork + 1..=tip.to_u32() {
            let missing = NoRun::Missing { height: BitcoinHeight(height) };
            let next = header(BitcoinHeight(height)).filter(|next| next.prev_blockhash == parent).ok_or(missing)?;
            parent = next.block_hash();
            if !rules::proves_its_bits(self.start.network(), &next, &parent) {
                return Err(missing);
            }
            if !(run.is_empty() && self.branches.contains_key(&parent)) {
                if run.len() == max {
                    ended = NoRun::TooLong { max };
                    break;
                }
                if u64::from(next.time) > latest {
                    break;
                }
                run.push(next);
            }
            work = work + next.work();
        }
        let extends = fork == self.chain.tip_height();
        match HeaderRun::between(&run) {
            Some(run) if extends || work > self.chain.tip().work => Ok(run),
            None if extends || fork == tip.to_u32() => Err(NoRun::UpToDate { height: tip }),
            _ => Err(ended),
        }
    }

    /// The greatest height up to which the best chain and the node's are the same.
    fn shared_height(
        &self,
        node_tip: BitcoinHeight,
        header: &impl Fn(BitcoinHeight) -> Option<Header>,
    ) -> Result<u32, NoRun> {
        let same = |height: u32| {
            let height = BitcoinHeight(height);
            let theirs = header(height).ok_or(NoRun::Missing { height })?;
            Ok(self.best(height) == Some(&theirs))
        };
        let mut low = self.lowest_fork_point();
        let mut high = self.chain.tip_height().min(node_tip.to_u32());
        // A node that is still catching up is no reason for an alarm.
        if high < low {
            return Err(NoRun::UpToDate { height: node_tip });
        }
        if same(high)? {
            return Ok(high);
        }
        if !same(low)? {
            return Err(NoRun::ForkTooDeep { min: BitcoinHeight(low) });
        }
        // The same at `low`, not at `high`.
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if same(middle)? {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }
}
