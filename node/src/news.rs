//! What happens inside the running node, for those who listen.
//!
//! The mempool and the claims tell it, and never hear an answer: nothing that is decided depends on who listens. While
//! nobody does, telling costs a look at a counter.

use std::sync::{Arc, OnceLock};

use bitcoin::{Amount, OutPoint, ScriptBuf, Txid};
use causeway_chainspec::{BitcoinHeight, Height};
use causeway_consensus::state::ScriptId;
use tokio::sync::broadcast;

use crate::mempool::Departure;

/// News that a listener may leave waiting: some 100 bytes each, and 16 for each script that its transaction touches.
/// One that falls further behind is told that it did.
const WAITING_MAX: usize = 8_192;

/// One thing that happened, in the order in which it did.
#[derive(Clone, Debug)]
pub enum Change {
    /// The mempool took a transaction.
    Entered(Arc<Entered>),
    /// A transaction left the mempool without being final.
    Left {
        /// Which.
        txid: Txid,
        /// Why: not [`Departure::Confirmed`].
        why: Departure,
        /// The transaction that took its place, or an ancestor's.
        by: Option<Txid>,
        /// The scripts that it paid or spent from.
        scripts: Arc<[ScriptId]>,
    },
    /// A block is final, on disk, and known to the mempool: what it holds or contradicts is about to leave.
    Connected {
        /// Its height.
        height: Height,
    },
    /// A deposit waits to be credited.
    Claimed {
        /// The deposit.
        deposit: OutPoint,
        /// What it is worth.
        amount: Amount,
        /// The script on Causeway that is to be credited.
        destination: ScriptBuf,
        /// The height of its block on Bitcoin.
        bitcoin_height: BitcoinHeight,
    },
}

/// A transaction that the mempool took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entered {
    /// Which.
    pub txid: Txid,
    /// What it pays.
    pub fee: Amount,
    /// Virtual bytes that its fee is counted for.
    pub vsize: u64,
    /// The sum of its outputs.
    pub value: Amount,
    /// The scripts that it pays or spends from.
    pub scripts: Arc<[ScriptId]>,
}

/// Where changes are told.
#[derive(Debug, Default)]
pub struct News(OnceLock<broadcast::Sender<Change>>);

impl News {
    /// Returns all changes from here on.
    pub fn listen(&self) -> broadcast::Receiver<Change> {
        self.0.get_or_init(|| broadcast::Sender::new(WAITING_MAX)).subscribe()
    }

    /// Whether anybody listens.
    pub(crate) fn is_heard(&self) -> bool {
        self.0.get().is_some_and(|listeners| listeners.receiver_count() > 0)
    }

    /// Tells a change, which is not made unless somebody listens.
    pub(crate) fn tell(&self, change: impl FnOnce() -> Change) {
        if let Some(listeners) = self.0.get().filter(|listeners| listeners.receiver_count() > 0) {
            // The last of them may have gone this moment.
            let _ = listeners.send(change());
        }
    }
}
