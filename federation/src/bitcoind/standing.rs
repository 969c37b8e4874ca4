//! What the local bitcoind thinks of headers that somebody else names (PEG section 7).

use std::collections::HashMap;

use bitcoin::BlockHash;
use causeway_chainspec::BitcoinHeight;

use super::{BATCH_MAX, Bitcoind, BitcoindError, ChainTip, HeaderPlace, Problem, TipStatus};

/// Most headers of branches that one judgement walks.
const WALK_MAX: usize = 4_096;

/// Where a block stands for a bitcoind, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// On the best chain, with so many confirmations.
    BestChain {
        /// 1 for the tip.
        confirmations: u32,
    },
    /// Off the best chain and fully validated.
    ValidFork,
    /// Off the best chain, its blocks there; their scripts were not checked, since the branch never had the most work.
    /// That is how the loser of a race for the tip stands: a valid block that came second.
    NotTried,
    /// Only the header is known so far.
    HeaderOnly,
    /// On a branch with an invalid block, perhaps this one.
    Invalid,
    /// Never heard of, or on a branch too long to look at.
    Unknown,
}

impl Standing {
    /// Whether the bitcoind knows the block and has no reason against it (PEG section 7: a valid fork of equal work is
    /// no reason).
    pub fn is_known(self) -> bool {
        matches!(self, Standing::BestChain { .. } | Standing::ValidFork | Standing::NotTried)
    }
}

impl Bitcoind {
    /// How each of these blocks stands, in their order.
    ///
    /// Blocks of the best chain cost one request for 200 of them; others need the branches of `getchaintips`, of which
    /// at most 4,096 headers are walked.
    pub async fn standings(&self, hashes: &[BlockHash]) -> Result<Vec<Standing>, BitcoindError> {
        let mut places = Vec::with_capacity(hashes.len());
        for chunk in hashes.chunks(BATCH_MAX) {
            places.extend(self.header_places(chunk).await?);
        }
        let off: Vec<(BlockHash, BitcoinHeight)> = hashes
            .iter()
            .zip(&places)
            .filter_map(|(hash, place)| match place {
                Some(HeaderPlace { height, confirmations: None }) => Some((*hash, *height)),
                _ => None,
            })
            .collect();
        let off = if off.is_empty() { HashMap::new() } else { self.branch_standings(&off).await? };
        let standing = |(hash, place): (&BlockHash, &Option<HeaderPlace>)| match place {
            None => Standing::Unknown,
            Some(HeaderPlace { confirmations: Some(confirmations), .. }) => {
                Standing::BestChain { confirmations: *confirmations }
            }
            Some(_) => off.get(hash).copied().unwrap_or(Standing::Unknown),
        };
        Ok(hashes.iter().zip(&places).map(standing).collect())
    }

    /// Walks the branches that can hold these blocks, from their tips.
    async fn branch_standings(
        &self,
        wanted: &[(BlockHash, BitcoinHeight)],
    ) -> Result<HashMap<BlockHash, Standing>, BitcoindError> {
        let mut tips = self.chain_tips().await?;
        tips.sort_by_key(|tip| std::cmp::Reverse(tip.height));
        let mut found: HashMap<BlockHash, Standing> = HashMap::new();
        let mut left = WALK_MAX;
        for tip in tips {
            let standing = standing_of(tip);
            let on_branch = |(_, height): &&(BlockHash, BitcoinHeight)| {
                *height <= tip.height && height.0.saturating_add(tip.branch_length) > tip.height.0
            };
            let Some(lowest) = wanted.iter().filter(on_branch).map(|(_, height)| *height).min() else {
                continue;
            };
            let (mut hash, mut height) = (tip.hash, tip.height);
            loop {
                if wanted.iter().any(|(wanted, _)| *wanted == hash) {
                    found.entry(hash).and_modify(|best| *best = standing.min(*best)).or_insert(standing);
                }
                if height <= lowest || left == 0 {
                    break;
                }
                left -= 1;
                hash = match self.header(hash).await {
                    Ok(header) => header.prev_blockhash,
                    // Another bitcoind answers by now.
                    Err(BitcoindError { problem: Problem::NoSuchBlock { .. }, .. }) => break,
                    Err(error) => return Err(error),
                };
                height = BitcoinHeight(height.0.saturating_sub(1));
            }
        }
        Ok(found)
    }
}

fn standing_of(tip: ChainTip) -> Standing {
    match tip.status {
        // Became the best chain since its place was asked for.
        TipStatus::Active => Standing::BestChain { confirmations: 1 },
        TipStatus::ValidFork => Standing::ValidFork,
        TipStatus::ValidHeaders => Standing::NotTried,
        TipStatus::HeadersOnly | TipStatus::Unknown => Standing::HeaderOnly,
        TipStatus::Invalid => Standing::Invalid,
    }
}
