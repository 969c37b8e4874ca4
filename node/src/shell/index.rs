//! The thread that builds the indexes for wallets, if opening the store has left them to be built.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use causeway_consensus::state::{IndexState, Store};

use super::reports::log_error;

/// How long the building waits for a block that is missing, before it looks again.
const AGAIN: Duration = Duration::from_secs(10);

/// The thread, if it is needed.
pub(super) struct IndexBuilder(Option<(Arc<AtomicBool>, JoinHandle<()>)>);

impl IndexBuilder {
    /// Starts the thread if there is something to build.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn start(store: &Arc<Store>) -> io::Result<Self> {
        if store.index_state() != IndexState::Building {
            return Ok(Self(None));
        }
        let (store, stop) = (Arc::clone(store), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let work = move || {
            while !stopped.load(Ordering::Relaxed) {
                match store.build_index(&stopped) {
                    Ok(IndexState::Building) => std::thread::park_timeout(AGAIN),
                    Ok(_) => return,
                    // The next commit fails too, and stops the node.
                    Err(error) => return log_error("the indexes cannot be written", &error),
                }
            }
        };
        let thread = std::thread::Builder::new().name("index".into()).spawn(work)?;
        Ok(Self(Some((stop, thread))))
    }

    /// Has the thread stop after the write that it is at, and waits for that. What is built stays.
    pub(super) fn stop(self) {
        if let Some((stop, thread)) = self.0 {
            stop.store(true, Ordering::Relaxed);
            thread.thread().unpark();
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}
