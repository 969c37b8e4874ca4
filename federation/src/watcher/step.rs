//! One step of the watcher: asks bitcoind how its best chain differs, and goes there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::block::Header;
use bitcoin::{BlockHash, Work};
use causeway_chainspec::BitcoinHeight;

use super::follower::{FollowError, Follower};
use super::view::State;
use super::{FEERATE_MIN, Watcher};
use crate::bitcoind::{BATCH_MAX, Bitcoind, BitcoindError, ChainInfo, Problem, Standing};

/// A step ends after this long, with what it has, if there is more to do.
const STEP_TIME: Duration = Duration::from_secs(1);

/// Most headers of a branch that are looked at for its work.
const BRANCH_MAX: usize = 50_000;

/// Why a step did not get where it wanted.
enum StepError {
    Bitcoind(BitcoindError),
    /// A block that has to be scanned is gone.
    Pruned(BitcoinHeight, BitcoindError),
    /// bitcoind's chain has less work than ours.
    Behind(BitcoinHeight),
    /// The chain changed while we read it.
    Moved,
    Follow(FollowError),
}

impl From<BitcoindError> for StepError {
    fn from(error: BitcoindError) -> Self {
        StepError::Bitcoind(error)
    }
}

impl From<FollowError> for StepError {
    fn from(error: FollowError) -> Self {
        match error {
            FollowError::NotOnTip { .. } | FollowError::NotTip { .. } | FollowError::BlockWanted { .. } => {
                StepError::Moved
            }
            error => StepError::Follow(error),
        }
    }
}

/// What a step left to do.
enum Progress {
    Done,
    More {
        of: BitcoinHeight,
    },
    /// bitcoind itself has more to download.
    Downloading {
        of: BitcoinHeight,
    },
}

impl Watcher {
    /// Asks once and goes some way. Returns whether there is more to do at once.
    pub(super) async fn step(&mut self) -> bool {
        let outcome = self.advance().await;
        if outcome.is_ok() {
            self.ask_feerate().await;
        }
        let (state, more) = self.state_after(outcome);
        if let Some(state) = &state {
            self.report(state);
        }
        let (follower, feerate, alarm) = (&self.follower, self.feerate, self.client.alarm());
        let reached = state
            .as_ref()
            .is_some_and(|state| matches!(state, State::Following | State::Syncing { .. } | State::Rescanning { .. }));
        self.views.send_modify(|view| {
            view.tip = follower.tip();
            view.headers = Arc::clone(follower.headers());
            view.facts = Arc::clone(follower.facts());
            view.rescan_next = follower.rescan_next();
            view.feerate = feerate;
            view.alarm = alarm;
            if reached {
                view.as_of = Some(Instant::now());
            }
            if let Some(state) = state {
                view.state = state;
            }
        });
        more
    }

    /// Publishes what the follower has, in the same state.
    pub(super) fn publish_follower(&self) {
        let follower = &self.follower;
        self.views.send_modify(|view| {
            view.facts = Arc::clone(follower.facts());
            view.rescan_next = follower.rescan_next();
            if let (State::Following, Some(next)) = (&view.state, follower.rescan_next()) {
                view.state = State::Rescanning { next, of: follower.tip().0 };
            }
        });
    }

    /// The state that an outcome means (`None`: as before), and whether to go on at once.
    fn state_after(&self, outcome: Result<Progress, StepError>) -> (Option<State>, bool) {
        let at = self.follower.tip().0;
        let error = match outcome {
            Ok(Progress::More { of }) => return (Some(State::Syncing { at, of }), true),
            Ok(Progress::Downloading { of }) => return (Some(State::Syncing { at, of }), false),
            Ok(Progress::Done) => match self.follower.rescan_next() {
                Some(next) => return (Some(State::Rescanning { next, of: at }), true),
                None => return (Some(State::Following), false),
            },
            Err(error) => error,
        };
        let state = match error {
            StepError::Moved => return (None, false),
            StepError::Behind(at) => State::Behind { at },
            StepError::Follow(error) => State::Stuck { error },
            StepError::Pruned(height, error) => State::Pruned { height, error: Arc::new(error) },
            StepError::Bitcoind(error) => match error.problem {
                // Another bitcoind answers than a moment ago, or a block was reorganised away under our hands.
                Problem::NoSuchBlock { .. } => return (None, false),
                Problem::FalseBlock(_) => State::Distrusted { error: Arc::new(error) },
                _ => {
                    let since = match &self.views.borrow().state {
                        State::Unavailable { since, .. } => *since,
                        _ => Instant::now(),
                    };
                    State::Unavailable { since, error: Arc::new(error) }
                }
            },
        };
        (Some(state), false)
    }

    /// Logs a state when it begins.
    fn report(&self, state: &State) {
        let view = self.views.borrow();
        if std::mem::discriminant(&view.state) == std::mem::discriminant(state) {
            return;
        }
        let height = self.follower.tip().0;
        match state {
            State::Starting | State::Rescanning { .. } => {}
            State::Following => tracing::info!(%height, "Bitcoin is followed"),
            State::Syncing { at, of } => tracing::info!(%at, %of, "Bitcoin is being synced"),
            State::Behind { at } => {
                tracing::warn!(%height, %at, "bitcoind has less work than what was seen: wait for it")
            }
            State::Unavailable { error, .. } => tracing::warn!(%error, problem = %error.problem, "no Bitcoin"),
            State::Pruned { error, .. } => tracing::error!(%error, problem = %error.problem, "no Bitcoin block"),
            State::Distrusted { error } => tracing::error!(%error, problem = %error.problem, "a Bitcoin node lies"),
            State::Stuck { error } => tracing::error!(%error, "Bitcoin cannot be followed"),
        }
    }

    async fn ask_feerate(&mut self) {
        if self.feerate_asked.is_some_and(|asked| asked.elapsed() < self.config.feerate_poll) {
            return;
        }
        self.feerate_asked = Some(Instant::now());
        // A feerate that is not known is better than one of long ago.
        let estimate = self.client.estimate_feerate(self.config.feerate_blocks).await.ok().flatten();
        self.feerate = estimate.map(|rate| rate.min(self.config.feerate_max).max(FEERATE_MIN));
    }

    async fn advance(&mut self) -> Result<Progress, StepError> {
        let until = Instant::now() + STEP_TIME;
        let best = self.client.best_block_hash().await?;
        let (height, tip) = self.follower.tip();
        if best == tip {
            self.rescan(until).await?;
            // Cheap to ask, and what tells a node that is downloading from one that is done.
            let info = self.client.chain_info().await?;
            return Ok(if downloads(&info, &self.client) {
                Progress::Downloading { of: info.headers }
            } else {
                Progress::Done
            });
        }
        let info = self.client.chain_info().await?;
        let fork = self.fork_point(height.min(info.blocks)).await?;
        if fork == height {
            self.extend(&info, until).await?;
        } else {
            self.reorganise(fork, &info).await?;
        }
        let at = self.follower.tip().0;
        Ok(if at < info.blocks {
            Progress::More { of: info.headers.max(info.blocks) }
        } else if downloads(&info, &self.client) {
            Progress::Downloading { of: info.headers }
        } else {
            Progress::Done
        })
    }

    /// The highest block, at most at `height`, that our chain and bitcoind's have in common.
    async fn fork_point(&self, height: BitcoinHeight) -> Result<BitcoinHeight, StepError> {
        let window = self.follower.headers();
        let bottom = window.bottom().0;
        let below = StepError::Follow(FollowError::BelowWindow { bottom });
        if height < bottom {
            // What bitcoind has so far ends below all that we know.
            return Err(StepError::Behind(height));
        }
        let (mut top, mut count) = (height.0, 1_u32);
        loop {
            let low = top.saturating_sub(count - 1).max(bottom.0);
            let heights: Vec<_> = (low..=top).map(BitcoinHeight).collect();
            let hashes = self.client.block_hashes(&heights).await?;
            let same = heights.iter().zip(&hashes).rev().find(|(height, hash)| window.hash(**height) == Some(**hash));
            if let Some((height, _)) = same {
                return Ok(*height);
            }
            if low == bottom.0 {
                return Err(below);
            }
            top = low - 1;
            count = (count * 8).min(u32::try_from(BATCH_MAX).unwrap_or(u32::MAX));
        }
    }

    /// The next headers of bitcoind's best chain above `height`, which stand on `parent`: at most [`BATCH_MAX`], in
    /// their order, linked.
    async fn next_headers(
        &self,
        height: BitcoinHeight,
        parent: BlockHash,
        tip: BitcoinHeight,
    ) -> Result<Vec<Header>, StepError> {
        let heights: Vec<_> = (height.0..tip.0).take(BATCH_MAX).map(|below| BitcoinHeight(below + 1)).collect();
        let hashes = self.client.block_hashes(&heights).await?;
        let headers = self.client.headers(&hashes).await?;
        let mut parent = parent;
        for (header, hash) in headers.iter().zip(&hashes) {
            if header.prev_blockhash != parent {
                return Err(StepError::Moved);
            }
            parent = *hash;
        }
        Ok(headers)
    }

    /// Goes up bitcoind's chain, which stands on our tip.
    async fn extend(&mut self, info: &ChainInfo, until: Instant) -> Result<(), StepError> {
        let (height, tip) = self.follower.tip();
        for header in self.next_headers(height, tip, info.blocks).await? {
            connect(&self.client, &mut self.follower, header).await?;
            self.unsaved = true;
            if Instant::now() >= until {
                break;
            }
        }
        Ok(())
    }

    /// Leaves our chain above `fork` for bitcoind's, all at once, unless bitcoind's has less work for no reason.
    async fn reorganise(&mut self, fork: BitcoinHeight, info: &ChainInfo) -> Result<(), StepError> {
        let window = Arc::clone(self.follower.headers());
        let ours = window.from(BitcoinHeight(fork.0 + 1)).fold(no_work(), |sum, (_, header)| sum + header.work());
        let (mut height, Some(mut parent)) = (fork, window.hash(fork)) else { return Err(StepError::Moved) };
        let mut branch: Vec<Header> = Vec::new();
        let mut theirs = no_work();
        while theirs <= ours && height < info.blocks && branch.len() < BRANCH_MAX {
            let headers = self.next_headers(height, parent, info.blocks).await?;
            let Some(last) = headers.last() else { return Err(StepError::Moved) };
            parent = last.block_hash();
            theirs = headers.iter().fold(theirs, |sum, header| sum + header.work());
            height = height.checked_add(u32::try_from(headers.len()).unwrap_or(u32::MAX)).ok_or(StepError::Moved)?;
            branch.extend(headers);
        }
        let (_, tip) = self.follower.tip();
        if theirs < ours && self.client.standings(&[tip]).await?.first() != Some(&Standing::Invalid) {
            return Err(StepError::Behind(info.blocks));
        }
        let mut draft = self.follower.clone();
        while draft.tip().0 > fork {
            let (_, tip) = draft.tip();
            draft.disconnected(tip)?;
        }
        tracing::warn!(%fork, from = %tip, "Bitcoin reorganises");
        for header in branch {
            connect(&self.client, &mut draft, header).await?;
        }
        self.follower = draft;
        self.unsaved = true;
        Ok(())
    }

    /// Scans blocks again for watches that came late, for some time.
    async fn rescan(&mut self, until: Instant) -> Result<(), StepError> {
        while let Some(next) = self.follower.rescan_next() {
            let bottom = self.follower.headers().bottom().0;
            if next < bottom {
                self.extend_below(bottom).await?;
            } else {
                let hash = self.follower.headers().hash(next).ok_or(StepError::Moved)?;
                let block = self.client.block(hash).await.map_err(|error| at_height(error, next))?;
                self.follower.rescanned(&block)?;
                self.unsaved = true;
            }
            if Instant::now() >= until {
                break;
            }
        }
        Ok(())
    }

    /// Fetches headers below the window.
    async fn extend_below(&mut self, bottom: BitcoinHeight) -> Result<(), StepError> {
        let low = bottom.0.saturating_sub(u32::try_from(BATCH_MAX).unwrap_or(u32::MAX)).max(self.config.start.0.0);
        let heights: Vec<_> = (low..bottom.0).map(BitcoinHeight).collect();
        let hashes = self.client.block_hashes(&heights).await?;
        let headers = self.client.headers(&hashes).await?;
        if headers.len() != heights.len() || headers.is_empty() {
            return Err(StepError::Moved);
        }
        for header in headers.into_iter().rev() {
            self.follower.extend_below(header)?;
        }
        Ok(())
    }
}

/// Lets the follower's chain grow by the block of this header. It stays as it was if that fails.
async fn connect(client: &Bitcoind, follower: &mut Follower, header: Header) -> Result<(), StepError> {
    let height = follower.tip().0.next().ok_or(StepError::Moved)?;
    if follower.needs_block(height) {
        let block = client.block(header.block_hash()).await.map_err(|error| at_height(error, height))?;
        follower.connected(&block)?;
    } else {
        follower.connected_header(header)?;
    }
    Ok(())
}

/// Whether bitcoind knows more than it has. On regtest its own word is worth nothing: it says so of any chain that was
/// not mined today.
fn downloads(info: &ChainInfo, client: &Bitcoind) -> bool {
    let own_word = info.initial_block_download && client.network() != bitcoin::Network::Regtest;
    // One header ahead is a block on its way.
    own_word || info.headers.0 > info.blocks.0.saturating_add(1)
}

fn at_height(error: BitcoindError, height: BitcoinHeight) -> StepError {
    match error.problem {
        Problem::Pruned { .. } => StepError::Pruned(height, error),
        _ => StepError::Bitcoind(error),
    }
}

fn no_work() -> Work {
    Work::from_be_bytes([0; 32])
}
