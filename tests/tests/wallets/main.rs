//! Wallets that people have, unmodified, against real nodes: bdk with its Esplora client, and `causeway wallet`, which is
//! built on it. Whoever restores a wallet has what was there, whoever deposits is credited or gets it back.

mod library;
mod program;
mod refund;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// One network at a time, on two cores.
static ONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    // Another test's failure is not this one's.
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}
