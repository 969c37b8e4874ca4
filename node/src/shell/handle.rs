//! How the rest of the process talks to the running node.

use std::sync::Arc;

use bitcoin::{Transaction, Txid};
use causeway_chainspec::SatPerKvb;
use causeway_consensus::peg::evidence::PegIn;
use tokio::sync::{mpsc, oneshot};

use crate::machine::Node;
use crate::machine::claims::{ClaimRefusal, Claimed};
use crate::machine::peg::BitcoinOffer;
use crate::mempool::{NotYet, Package, PackageResult, Reject};

/// A question to the running node, answered on its own thread between two events: it must be quick.
pub type Look = Box<dyn FnOnce(&Node) + Send>;

/// What the rest of the process sends to the node.
pub enum Call {
    /// Look at it.
    Look(Look),
    /// Hand in a transaction.
    Submit {
        /// The transaction.
        transaction: Transaction,
        /// Where the verdict goes.
        reply: oneshot::Sender<Result<Txid, Reject>>,
    },
    /// Hand in a package.
    SubmitPackage {
        /// The package.
        package: Package,
        /// No transaction of it enters whose own feerate is higher.
        max_feerate: Option<SatPerKvb>,
        /// Where the result goes.
        reply: oneshot::Sender<Result<PackageResult, NotYet>>,
    },
    /// Claim a deposit.
    Claim {
        /// The deposit.
        peg_in: Box<PegIn>,
        /// Where the verdict goes.
        reply: oneshot::Sender<Result<Claimed, ClaimRefusal>>,
    },
    /// Take what the Bitcoin node offers.
    Bitcoin(Option<Arc<BitcoinOffer>>),
}

/// The running node, for REST and for tests. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    calls: mpsc::Sender<Call>,
}

/// The node has stopped, or is stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node is stopping")]
pub struct Stopped;

impl Handle {
    /// A handle that sends here.
    pub fn new(calls: mpsc::Sender<Call>) -> Self {
        Self { calls }
    }

    /// Hands in a transaction. Waits while the node is busy.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn submit(&self, transaction: Transaction) -> Result<Result<Txid, Reject>, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.calls.send(Call::Submit { transaction, reply }).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// Hands in a package of which no transaction enters whose own feerate is above `max_feerate`. Waits while the node is
    /// busy.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn submit_package(
        &self,
        package: Package,
        max_feerate: Option<SatPerKvb>,
    ) -> Result<Result<PackageResult, NotYet>, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.calls.send(Call::SubmitPackage { package, max_feerate, reply }).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// Claims a deposit. Waits while the node is busy.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn claim(&self, peg_in: PegIn) -> Result<Result<Claimed, ClaimRefusal>, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.calls.send(Call::Claim { peg_in: Box::new(peg_in), reply }).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// Tells the node what its Bitcoin node offers by now; `None` if that cannot be relied on.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn bitcoin(&self, offer: Option<Arc<BitcoinOffer>>) -> Result<(), Stopped> {
        self.calls.send(Call::Bitcoin(offer)).await.map_err(|_| Stopped)
    }

    /// Returns what `look` sees of the node.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn look<T: Send + 'static>(&self, look: impl FnOnce(&Node) -> T + Send + 'static) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        let look = Box::new(move |node: &Node| {
            // Whoever asked may have gone away.
            let _ = reply.send(look(node));
        });
        self.calls.send(Call::Look(look)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }
}
