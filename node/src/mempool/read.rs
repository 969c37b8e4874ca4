//! What a transaction says by itself: its ids, its form. All that is hashed of it is hashed here, on any thread.

use std::sync::Arc;

use bitcoin::{Transaction, Txid, Weight, Wtxid};
use causeway_chainspec::Params;
use causeway_consensus::check::check_transaction;

use super::policy::Policy;
use super::reject::{Invalid, Reject};
use super::standard::check_form;

/// Reads transactions for a pool.
#[derive(Debug)]
pub struct Reader {
    policy: Policy,
    params: Params,
}

/// A transaction of a form that the pool takes, with its ids. Only [`Reader::read`] makes one.
#[derive(Debug, Clone)]
pub struct Read {
    pub(super) transaction: Arc<Transaction>,
    pub(super) txid: Txid,
    pub(super) wtxid: Wtxid,
    pub(super) weight: Weight,
}

impl Reader {
    pub(super) fn new(policy: Policy, params: Params) -> Self {
        Self { policy, params }
    }

    /// Reads a transaction.
    ///
    /// # Errors
    /// What can be said without the chain and the pool.
    pub fn read(&self, transaction: impl Into<Arc<Transaction>>) -> Result<Read, Reject> {
        let transaction: Arc<Transaction> = transaction.into();
        if transaction.is_coinbase() {
            return Err(Invalid::Coinbase.into());
        }
        let base_size = transaction.base_size();
        check_transaction(&transaction, base_size, &self.params)?;
        check_form(&transaction, base_size, &self.policy)?;
        let (txid, wtxid, weight) = (transaction.compute_txid(), transaction.compute_wtxid(), transaction.weight());
        Ok(Read { transaction, txid, wtxid, weight })
    }
}
