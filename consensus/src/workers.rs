//! The threads that verify.

use std::num::NonZeroUsize;

/// A pool of threads for CPU work, shared by every block that a node validates.
#[derive(Debug)]
pub struct Workers {
    pool: rayon::ThreadPool,
}

impl Workers {
    /// Returns a pool of `threads` threads.
    ///
    /// # Panics
    /// If the operating system gives no thread.
    pub fn new(threads: NonZeroUsize) -> Self {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.get())
            .thread_name(|i| format!("causeway-verify-{i}"))
            .build()
            .expect("the operating system gives threads at start");
        Self { pool }
    }

    /// Runs `work` on the pool, where rayon's parallel iterators use its threads, and waits for it.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.pool.install(work)
    }
}
