//! The threads that verify, and whether their work is still wanted.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

use crate::error::NotReady;

/// Pools that stay when nobody uses them: one for the block of another, one for our own beside it.
const POOLS_KEPT: usize = 2;

/// Says once and for all that the result of a job is not wanted any more.
#[derive(Debug, Default)]
pub struct Cancel(AtomicBool);

impl Cancel {
    /// Has the job begin nothing more. What it has begun is finished: a call into Bitcoin Core's interpreter cannot be
    /// interrupted.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Threads for CPU work: to each job a pool of its own while it runs.
///
/// So no job waits behind another's tasks, whatever holds those up. In one pool it would: rayon takes what comes from
/// outside when nothing is left of what came before, and a call into Bitcoin Core's interpreter ends when it ends. The
/// operating system shares the processors among the jobs. Pools are made when they are needed, so that who calls bounds
/// the threads by the number of its jobs; two of them stay.
///
/// Clones share the pools.
#[derive(Debug, Clone)]
pub struct Workers {
    pools: Arc<Pools>,
    cancel: Option<Arc<Cancel>>,
}

#[derive(Debug)]
struct Pools {
    /// Of a pool.
    threads: NonZeroUsize,
    idle: Mutex<Vec<ThreadPool>>,
    given_back: Condvar,
    /// Pools that are lent.
    running: AtomicUsize,
    /// Threads that there are.
    alive: Arc<AtomicUsize>,
}

impl Workers {
    /// Returns pools of `threads` threads each, of which one is made at once.
    ///
    /// # Panics
    /// If the operating system gives no thread.
    pub fn new(threads: NonZeroUsize) -> Self {
        let pools = Pools {
            threads,
            idle: Mutex::default(),
            given_back: Condvar::new(),
            running: AtomicUsize::new(0),
            alive: Arc::default(),
        };
        let first = pools.build().expect("the operating system gives threads at start");
        pools.idle().push(first);
        Self { pools: Arc::new(pools), cancel: None }
    }

    /// Returns the same threads for a job that is wanted until `cancel` says otherwise.
    #[must_use]
    pub fn until(&self, cancel: Arc<Cancel>) -> Self {
        Self { pools: Arc::clone(&self.pools), cancel: Some(cancel) }
    }

    /// Whether to begin another piece of the job.
    ///
    /// # Errors
    /// [`NotReady::Cancelled`] if it is not wanted any more.
    pub fn still_wanted(&self) -> Result<(), NotReady> {
        match &self.cancel {
            Some(cancel) if cancel.is_cancelled() => Err(NotReady::Cancelled),
            _ => Ok(()),
        }
    }

    /// Runs `work` on a pool that nobody else uses meanwhile, where rayon's parallel iterators use its threads, and waits
    /// for it.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        Lent::take(&self.pools).pool().install(work)
    }

    /// The number of jobs that run.
    pub fn running(&self) -> usize {
        self.pools.running.load(Ordering::Relaxed)
    }

    /// The number of threads that there are.
    pub fn threads(&self) -> usize {
        self.pools.alive.load(Ordering::Relaxed)
    }
}

impl Pools {
    fn build(&self) -> Result<ThreadPool, ThreadPoolBuildError> {
        let (started, ended) = (Arc::clone(&self.alive), Arc::clone(&self.alive));
        ThreadPoolBuilder::new()
            .num_threads(self.threads.get())
            .thread_name(|i| format!("causeway-verify-{i}"))
            .start_handler(move |_| {
                started.fetch_add(1, Ordering::Relaxed);
            })
            .exit_handler(move |_| {
                ended.fetch_sub(1, Ordering::Relaxed);
            })
            .build()
    }

    fn idle(&self) -> MutexGuard<'_, Vec<ThreadPool>> {
        // Nothing that is done under the lock leaves it half done.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A pool that nobody uses.
    fn take(&self) -> ThreadPool {
        let idle = self.idle().pop();
        if let Some(pool) = idle {
            return pool;
        }
        if let Ok(pool) = self.build() {
            return pool;
        }
        // The machine has no thread left. The first pool was made at the start, so somebody has one and gives it back.
        let mut idle = self.idle();
        loop {
            match idle.pop() {
                Some(pool) => return pool,
                None => idle = self.given_back.wait(idle).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn give_back(&self, pool: ThreadPool) {
        let mut idle = self.idle();
        if idle.len() < POOLS_KEPT {
            idle.push(pool);
        } else {
            // Its threads end by themselves.
            drop(idle);
            drop(pool);
        }
        self.given_back.notify_one();
    }
}

/// A pool that goes back where it came from, also if the work panics.
struct Lent<'a> {
    pools: &'a Pools,
    pool: Option<ThreadPool>,
}

impl<'a> Lent<'a> {
    fn take(pools: &'a Pools) -> Self {
        let pool = Some(pools.take());
        pools.running.fetch_add(1, Ordering::Relaxed);
        Self { pools, pool }
    }

    fn pool(&self) -> &ThreadPool {
        self.pool.as_ref().expect("it is there until this is dropped")
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.pools.running.fetch_sub(1, Ordering::Relaxed);
        if let Some(pool) = self.pool.take() {
            self.pools.give_back(pool);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::mpsc;
    use std::time::Duration;

    use rayon::prelude::*;

    use super::*;

    /// How long a test waits for what has to come.
    const DEADLINE: Duration = Duration::from_secs(60);

    fn wait_until(what: impl Fn() -> bool) {
        let pause = Duration::from_millis(1);
        let looks = DEADLINE.as_millis() / pause.as_millis();
        let come = (0..looks).any(|_| {
            std::thread::sleep(pause);
            what()
        });
        assert!(come, "it does not come");
    }

    #[test]
    fn a_job_does_not_wait_for_one_that_holds_every_thread_of_its_pool() {
        let workers = Workers::new(NonZeroUsize::new(2).unwrap());
        // Both threads of the pool and this one meet, and then the threads are held.
        let (all_held, released) = (Barrier::new(3), Barrier::new(3));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                workers.run(|| {
                    (0..2).into_par_iter().with_max_len(1).for_each(|_| {
                        all_held.wait();
                        released.wait();
                    });
                });
            });
            all_held.wait();
            let (done, result) = mpsc::channel();
            let other = workers.clone();
            scope.spawn(move || done.send(other.run(|| (0..100u64).into_par_iter().sum::<u64>())));
            let sum = result.recv_timeout(DEADLINE);
            assert_eq!(workers.running(), 1, "the first job still runs");
            released.wait();
            assert_eq!(sum, Ok(4_950));
        });
    }

    #[test]
    fn the_threads_of_many_jobs_at_once_come_back() {
        const JOBS: usize = 7;
        let workers = Workers::new(NonZeroUsize::new(3).unwrap());
        for _ in 0..3 {
            let all = Barrier::new(JOBS + 1);
            std::thread::scope(|scope| {
                for _ in 0..JOBS {
                    scope.spawn(|| workers.run(|| all.wait().is_leader()));
                }
                wait_until(|| workers.threads() == JOBS * 3 && workers.running() == JOBS);
                all.wait();
            });
            wait_until(|| workers.threads() == POOLS_KEPT * 3);
            assert_eq!(workers.running(), 0);
        }
    }

    #[test]
    fn a_job_that_panics_gives_its_threads_back() {
        let workers = Workers::new(NonZeroUsize::MIN);
        for _ in 0..5 {
            let work = std::panic::AssertUnwindSafe(|| workers.run(|| panic!("as a bug would")));
            assert!(std::panic::catch_unwind(work).is_err());
        }
        assert_eq!((workers.running(), workers.threads()), (0, 1));
    }

    #[test]
    fn only_the_job_that_is_cancelled_is_not_wanted() {
        let workers = Workers::new(NonZeroUsize::MIN);
        let (one, other) = (Arc::new(Cancel::default()), Arc::new(Cancel::default()));
        let (first, second) = (workers.until(Arc::clone(&one)), workers.until(other));
        assert_eq!(first.still_wanted(), Ok(()));
        one.cancel();
        assert_eq!(first.still_wanted(), Err(NotReady::Cancelled));
        assert_eq!((second.still_wanted(), workers.still_wanted()), (Ok(()), Ok(())));
    }
}
