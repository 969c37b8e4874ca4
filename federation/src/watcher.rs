//! Follows Bitcoin's best chain and tells what is seen of what the peg watches.
//!
//! [`Follower`] is the pure core: blocks in, facts out, facts of a block that leaves the best chain withdrawn.
//! [`Watcher`] drives it with what a [`Bitcoind`] says, and publishes a [`BitcoinView`] that everybody reads.
//!
//! The chain that is followed never has less work than one followed before, unless bitcoind calls that one invalid: a
//! second bitcoind that is behind withdraws nothing.

mod facts;
mod file;
mod follower;
mod step;
mod view;
mod window;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bitcoin::block::Header;
use causeway_chainspec::{BitcoinHeight, ChainSpec, SatPerKvb};
use tokio::sync::{mpsc, oneshot, watch};

use crate::bitcoind::{Bitcoind, BitcoindError, FullBlock};

pub use facts::{Deposit, Facts, Place, Spend};
pub use file::FileError;
pub use follower::{FollowError, Follower, Limits, Watch};
pub use view::{BitcoinView, State};
pub use window::HeaderWindow;

/// Requests that may wait for the watcher.
const REQUESTS_MAX: usize = 64;

/// While the chain is caught up with, the state is written this often.
const SAVE_INTERVAL: Duration = Duration::from_secs(30);

/// The least feerate that is ever quoted (PEG section 2, FeeRate).
const FEERATE_MIN: SatPerKvb = SatPerKvb(1_000);

/// What a watcher follows, and how.
#[derive(Clone, Debug)]
pub struct WatcherConfig {
    /// Where it keeps its state. Whoever removes it makes the watcher scan again.
    pub file: PathBuf,
    /// Where it starts without a file, and the lowest height that it ever scans: the chainspec's.
    pub start: (BitcoinHeight, Header),
    /// How often bitcoind is asked for its best block.
    pub poll: Duration,
    /// How often it is asked for a feerate.
    pub feerate_poll: Duration,
    /// A transaction at the feerate should confirm within so many blocks.
    pub feerate_blocks: u16,
    /// The greatest feerate that is told; the least is 1,000 sat/kvB.
    pub feerate_max: SatPerKvb,
    /// What bounds it.
    pub limits: Limits,
}

impl WatcherConfig {
    /// What a chain's rules ask for: headers from `fork_depth + final_depth + claim_window` below the tip (PEG
    /// section 2), polled once a second.
    pub fn new(spec: &ChainSpec, file: PathBuf) -> WatcherConfig {
        let params = spec.params();
        let claim_window = u32::from(spec.federation().timelocks().claim_window);
        let start = spec.bitcoin();
        WatcherConfig {
            file,
            start: (start.height(), *start.header()),
            poll: Duration::from_secs(1),
            feerate_poll: Duration::from_secs(30),
            feerate_blocks: 6,
            feerate_max: params.fee_rate_max,
            limits: Limits {
                window: params.fork_depth.saturating_add(params.final_depth).saturating_add(claim_window),
                watches: 1_000_000,
                facts: 1_000_000,
                deposit_min: params.peg_in_min,
            },
        }
    }
}

enum Request {
    Watch { watches: Vec<(Watch, BitcoinHeight)>, done: oneshot::Sender<Result<(), FollowError>> },
    Unwatch { watches: Vec<Watch>, done: oneshot::Sender<usize> },
}

/// Why a watcher did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// It refused.
    #[error("the watcher of Bitcoin refuses")]
    Refused(#[source] FollowError),
    /// It does not run.
    #[error("the watcher of Bitcoin has stopped")]
    Stopped,
}

/// The task that follows Bitcoin. See [`Watcher::run`].
#[derive(Debug)]
pub struct Watcher {
    client: Bitcoind,
    config: WatcherConfig,
    follower: Follower,
    views: watch::Sender<BitcoinView>,
    requests: mpsc::Receiver<Request>,
    feerate: Option<SatPerKvb>,
    feerate_asked: Option<Instant>,
    /// When the state was last written, or could not be.
    saved: Option<Instant>,
    save_failed: bool,
    unsaved: bool,
}

/// What the rest of the program has of a watcher. Clones are cheap; the watcher ends when the last one goes.
#[derive(Clone, Debug)]
pub struct WatcherHandle {
    client: Bitcoind,
    views: watch::Receiver<BitcoinView>,
    requests: mpsc::Sender<Request>,
}

impl Watcher {
    /// A watcher that goes on where its file ends, or starts anew. Reads the file, and asks bitcoind nothing yet.
    ///
    /// A file that is of no use is reported in the log and replaced.
    ///
    /// # Errors
    ///
    /// The file is there and cannot be read.
    pub fn open(client: Bitcoind, config: WatcherConfig) -> Result<(Watcher, WatcherHandle), FileError> {
        let (height, header) = config.start;
        let new = || Follower::new(config.limits, height, header);
        let follower = match file::load(&config.file, client.network(), config.limits) {
            Ok(Some(follower)) => follower,
            Ok(None) => new(),
            Err(error @ FileError::Io { .. }) => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "Bitcoin is scanned again");
                new()
            }
        };
        let (requests_in, requests) = mpsc::channel(REQUESTS_MAX);
        let (views, view) = watch::channel(BitcoinView::starting(&follower));
        let handle = WatcherHandle { client: client.clone(), views: view, requests: requests_in };
        let watcher = Watcher {
            client,
            config,
            follower,
            views,
            requests,
            feerate: None,
            feerate_asked: None,
            saved: None,
            save_failed: false,
            unsaved: false,
        };
        Ok((watcher, handle))
    }

    /// Follows Bitcoin until every [`WatcherHandle`] is gone. Trouble is a state of the view, never an end.
    pub async fn run(mut self) {
        loop {
            // First: they change what the step does.
            while let Ok(request) = self.requests.try_recv() {
                self.serve(request);
            }
            let more = self.step().await;
            self.save_if_due(!more).await;
            let wait = if more { Duration::ZERO } else { self.config.poll };
            tokio::select! {
                biased;
                request = self.requests.recv() => match request {
                    Some(request) => self.serve(request),
                    None => break,
                },
                () = tokio::time::sleep(wait) => {}
            }
        }
        self.save_if_due(true).await;
    }

    fn serve(&mut self, request: Request) {
        match request {
            Request::Watch { watches, done } => {
                let floor = self.config.start.0;
                let added = watches.into_iter().try_for_each(|(watch, from)| {
                    self.unsaved |= self.follower.watch(watch, from.max(floor))?;
                    Ok(())
                });
                self.publish_follower();
                // Whoever asked may have gone.
                let _ = done.send(added);
            }
            Request::Unwatch { watches, done } => {
                let gone = self.follower.unwatch(&watches);
                self.unsaved |= gone > 0;
                self.publish_follower();
                let _ = done.send(gone);
            }
        }
    }

    /// Writes the state if it changed: at once when the chain is caught up with, else now and then.
    async fn save_if_due(&mut self, idle: bool) {
        let due = self.saved.is_none_or(|saved| saved.elapsed() >= SAVE_INTERVAL);
        if !self.unsaved || !(due || idle && !self.save_failed) {
            return;
        }
        self.saved = Some(Instant::now());
        let (network, follower, path) = (self.client.network(), self.follower.clone(), self.config.file.clone());
        let written = tokio::task::spawn_blocking(move || {
            let bytes = file::encode(network, &follower);
            file::replace(&path, &bytes)
        });
        let written = written.await;
        self.save_failed = !matches!(written, Ok(Ok(())));
        match written {
            Ok(Ok(())) => self.unsaved = false,
            // It is a cache: a restart scans more, nothing else. Tried again later.
            Ok(Err(error)) => {
                tracing::warn!(%error, source = ?std::error::Error::source(&error), "the watcher's state")
            }
            Err(error) => tracing::warn!(%error, "the watcher's state"),
        }
    }
}

impl WatcherHandle {
    /// What is known of Bitcoin at this moment.
    pub fn view(&self) -> BitcoinView {
        self.views.borrow().clone()
    }

    /// A receiver that is told of every change.
    pub fn subscribe(&self) -> watch::Receiver<BitcoinView> {
        self.views.clone()
    }

    /// The client that the watcher uses, for `standings`, `coin` and everything else.
    pub fn client(&self) -> &Bitcoind {
        &self.client
    }

    /// Looks for these in blocks from their heights on; what is watched from there already costs nothing.
    ///
    /// Blocks that passed are scanned again: the facts are complete when the view's `rescan_next` is `None`. What is
    /// watched is kept in the watcher's file, which is a cache: whoever needs a watch asks for it again after a
    /// restart.
    ///
    /// # Errors
    ///
    /// Too many watches (those before the one too many are watched), or no watcher.
    pub async fn watch(&self, watches: Vec<(Watch, BitcoinHeight)>) -> Result<(), WatchError> {
        let (done, answer) = oneshot::channel();
        self.requests.send(Request::Watch { watches, done }).await.map_err(|_| WatchError::Stopped)?;
        answer.await.map_err(|_| WatchError::Stopped)?.map_err(WatchError::Refused)
    }

    /// Stops looking for these, and forgets what was seen of them. Returns how many were watched.
    ///
    /// # Errors
    ///
    /// No watcher.
    pub async fn unwatch(&self, watches: Vec<Watch>) -> Result<usize, WatchError> {
        let (done, answer) = oneshot::channel();
        self.requests.send(Request::Unwatch { watches, done }).await.map_err(|_| WatchError::Stopped)?;
        answer.await.map_err(|_| WatchError::Stopped)
    }

    /// The block that a fact was seen in, for its inclusion proof. Its transaction is at `place.index`.
    ///
    /// # Errors
    ///
    /// Those of [`Bitcoind::block`].
    pub async fn block_of(&self, place: &Place) -> Result<FullBlock, BitcoindError> {
        self.client.block(place.block).await
    }
}

#[cfg(test)]
mod tests;
