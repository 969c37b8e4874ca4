//! Transactions of the mempool, with what they spend.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bitcoin::{OutPoint, Transaction, TxOut, Txid};
use causeway_consensus::ChainView;

use super::answer::Refusal;
use super::json::{StatusJson, TransactionJson};
use super::reader::Reader;
use crate::mempool::{Entry, Mempool};

/// Transactions of the mempool, as they were copied out of it.
#[derive(Default)]
pub(super) struct Waiting {
    pub(super) transactions: Vec<(Txid, Arc<Transaction>)>,
    /// Those whose outputs they spend.
    parents: HashMap<Txid, Arc<Transaction>>,
}

impl Waiting {
    /// Copies no more than references: the node stands still meanwhile.
    pub(super) fn of<'a>(pool: &'a Mempool, entries: impl Iterator<Item = &'a Entry>) -> Self {
        let mut waiting = Self::default();
        for entry in entries {
            let parents = entry.parents().iter().filter_map(|parent| pool.get(parent));
            waiting.parents.extend(parents.map(|parent| (parent.txid(), Arc::clone(parent.transaction()))));
            waiting.transactions.push((entry.txid(), Arc::clone(entry.transaction())));
        }
        waiting
    }

    /// Leaves out what is final by now.
    pub(super) fn without(mut self, is_final: impl Fn(&Txid) -> Result<bool, Refusal>) -> Result<Self, Refusal> {
        let mut kept = Vec::with_capacity(self.transactions.len());
        for (txid, transaction) in self.transactions {
            if !is_final(&txid)? {
                kept.push((txid, transaction));
            }
        }
        self.transactions = kept;
        Ok(self)
    }

    /// Adds what they spend of the chain.
    pub(super) fn resolve(self, reader: &Reader) -> Result<Resolved, Refusal> {
        let Self { transactions, parents } = self;
        let (mut spent, mut of_chain) = (HashMap::new(), Vec::new());
        for outpoint in transactions.iter().flat_map(|(_, it)| &it.input).map(|input| input.previous_output) {
            let vout = usize::try_from(outpoint.vout).ok();
            match parents.get(&outpoint.txid).zip(vout).and_then(|(parent, vout)| parent.output.get(vout)) {
                Some(output) => drop(spent.insert(outpoint, output.clone())),
                None => of_chain.push(outpoint),
            }
        }
        let coins = reader.store().coins(&of_chain)?;
        // A block may have spent some since.
        let mut gone = BTreeSet::new();
        for (outpoint, coin) in of_chain.into_iter().zip(coins) {
            match coin {
                Some(coin) => {
                    spent.insert(outpoint, coin.output);
                }
                None => {
                    gone.insert(outpoint);
                }
            }
        }
        if !gone.is_empty() {
            if !reader.store().has_index() {
                return Err(Refusal::NoIndex);
            }
            spent.extend(reader.outputs(gone)?);
        }
        Ok(Resolved { transactions, spent })
    }
}

/// The same with all that they spend.
pub(super) struct Resolved {
    transactions: Vec<(Txid, Arc<Transaction>)>,
    spent: HashMap<OutPoint, TxOut>,
}

impl Resolved {
    /// The objects that show them.
    pub(super) fn json<'a>(&'a self, reader: &Reader) -> impl Iterator<Item = TransactionJson<'a>> {
        let network = reader.network();
        self.transactions.iter().map(move |(txid, transaction)| {
            TransactionJson::new(transaction, *txid, &self.spent, network, StatusJson::UNCONFIRMED)
        })
    }
}
