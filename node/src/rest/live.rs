//! What REST asks of the running node.

use bitcoin::{OutPoint, Transaction, Txid};
use causeway_chainspec::{BitcoinHeight, SatPerKvb};
use causeway_consensus::peg::evidence::PegIn;

use crate::machine::claims::{ClaimRefusal, Claimed};
use crate::machine::{Node, PeerStatus, Status};
use crate::mempool::{Mempool, NotYet, Package, PackageResult, Reject};
use crate::shell::{Handle, Stopped};

/// The running node. [`Handle`] is one.
pub trait Live: Clone + Send + Sync + 'static {
    /// Hands in a transaction, and returns the verdict.
    fn submit(&self, transaction: Transaction) -> impl Future<Output = Result<Result<Txid, Reject>, Stopped>> + Send;

    /// Hands in a package of which no transaction enters whose own feerate is above `max_feerate`, and returns what became
    /// of it.
    fn submit_package(
        &self,
        package: Package,
        max_feerate: Option<SatPerKvb>,
    ) -> impl Future<Output = Result<Result<PackageResult, NotYet>, Stopped>> + Send;

    /// Claims a deposit, and returns the verdict.
    fn claim(&self, peg_in: PegIn) -> impl Future<Output = Result<Result<Claimed, ClaimRefusal>, Stopped>> + Send;

    /// The height of the block of a deposit that is claimed and not credited.
    fn claim_height(&self, deposit: OutPoint) -> impl Future<Output = Result<Option<BitcoinHeight>, Stopped>> + Send;

    /// The node at this moment.
    fn status(&self) -> impl Future<Output = Result<Status, Stopped>> + Send;

    /// Its connected peers.
    fn peers(&self) -> impl Future<Output = Result<Vec<PeerStatus>, Stopped>> + Send;

    /// What `look` sees of the mempool. The node stands still meanwhile.
    fn pool<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Mempool) -> T + Send + 'static,
    ) -> impl Future<Output = Result<T, Stopped>> + Send;
}

impl Live for Handle {
    async fn submit(&self, transaction: Transaction) -> Result<Result<Txid, Reject>, Stopped> {
        Handle::submit(self, transaction).await
    }

    async fn submit_package(
        &self,
        package: Package,
        max_feerate: Option<SatPerKvb>,
    ) -> Result<Result<PackageResult, NotYet>, Stopped> {
        Handle::submit_package(self, package, max_feerate).await
    }

    async fn claim(&self, peg_in: PegIn) -> Result<Result<Claimed, ClaimRefusal>, Stopped> {
        Handle::claim(self, peg_in).await
    }

    async fn claim_height(&self, deposit: OutPoint) -> Result<Option<BitcoinHeight>, Stopped> {
        self.look(move |node| node.claim_height(&deposit)).await
    }

    async fn status(&self) -> Result<Status, Stopped> {
        self.look(Node::status).await
    }

    async fn peers(&self) -> Result<Vec<PeerStatus>, Stopped> {
        self.look(Node::peers).await
    }

    async fn pool<T: Send + 'static>(&self, look: impl FnOnce(&Mempool) -> T + Send + 'static) -> Result<T, Stopped> {
        self.look(|node| look(node.mempool())).await
    }
}
