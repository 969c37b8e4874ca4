//! The member's own bitcoind: what the daemon asks it about a batch.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bitcoin::{BlockHash, Network, OutPoint, Transaction, Txid};
use causeway_chainspec::BitcoinHeight;
use causeway_consensus::peg::batch::Batch;

use super::node::{NodeDeposit, PegIns};
use crate::approve::{BitcoinFacts, CreditedDeposit, DepositFacts, DepositsMark};
use crate::bitcoind::{Bitcoind, BitcoindError, Sent, UnspentCoin};

/// Where bitcoind stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BitcoinTip {
    /// Height of its best block.
    pub height: BitcoinHeight,
    /// Its best block.
    pub best: BlockHash,
    /// It has not caught up with the headers that it knows.
    pub syncing: bool,
}

/// What the daemon asks its own bitcoind.
#[async_trait]
pub trait BitcoinAccess: Send + Sync {
    /// Where its best chain stands.
    async fn tip(&self) -> Result<BitcoinTip, BitcoindError>;

    /// The block of its best chain at this height; None above its tip.
    async fn block_hash(&self, height: BitcoinHeight) -> Result<Option<BlockHash>, BitcoindError>;

    /// The coin in the coin set of its best chain, whatever the mempool does with it.
    async fn coin(&self, outpoint: OutPoint) -> Result<Option<UnspentCoin>, BitcoindError>;

    /// Puts a transaction into its mempool and announces it.
    async fn send(&self, transaction: &Transaction) -> Result<Sent, BitcoindError>;
}

#[async_trait]
impl BitcoinAccess for Bitcoind {
    async fn tip(&self) -> Result<BitcoinTip, BitcoindError> {
        let info = self.chain_info().await?;
        // A regtest chain without recent blocks never ends its initial download.
        let downloading = info.initial_block_download && self.network() != Network::Regtest;
        let behind = info.headers.to_u32() > info.blocks.to_u32().saturating_add(1);
        Ok(BitcoinTip { height: info.blocks, best: info.best, syncing: downloading || behind })
    }

    async fn block_hash(&self, height: BitcoinHeight) -> Result<Option<BlockHash>, BitcoindError> {
        Bitcoind::block_hash(self, height).await
    }

    async fn coin(&self, outpoint: OutPoint) -> Result<Option<UnspentCoin>, BitcoindError> {
        Bitcoind::coin(self, outpoint).await
    }

    async fn send(&self, transaction: &Transaction) -> Result<Sent, BitcoindError> {
        Bitcoind::send(self, transaction).await
    }
}

/// Asks where Bitcoin has the deposits that the node says were credited since the mark.
///
/// # Errors
/// bitcoind gives no answer.
pub(super) async fn deposit_facts(
    bitcoin: &dyn BitcoinAccess,
    tip: &BitcoinTip,
    mark: &DepositsMark,
    page: PegIns,
) -> Result<DepositFacts, BitcoindError> {
    let mut blocks = BTreeMap::new();
    let mut deposits = Vec::with_capacity(page.peg_ins.len());
    for NodeDeposit { outpoint, credited, block, in_batch, .. } in page.peg_ins {
        let found = match blocks.get(&block.height) {
            Some(found) => *found,
            None => *blocks.entry(block.height).or_insert(bitcoin.block_hash(BitcoinHeight(block.height)).await?),
        };
        // What a batch spends may be spent.
        let unspent = !in_batch && bitcoin.coin(outpoint).await?.is_some();
        deposits.push(CreditedDeposit { outpoint, credited, block, in_batch, found, unspent });
    }
    // Last: what was found above is on a chain that still has the older ones.
    let newest = match mark.newest {
        Some(block) => Some((block, bitcoin.block_hash(BitcoinHeight(block.height)).await?)),
        None => None,
    };
    let BitcoinTip { height: bitcoin_height, syncing, .. } = *tip;
    Ok(DepositFacts { since: mark.height, to: page.to, deposits, newest, bitcoin_height, syncing })
}

/// Asks what [`approve`](crate::approve::approve) must know of Bitcoin for a batch.
///
/// # Errors
/// bitcoind gives no answer.
pub(super) async fn facts(
    bitcoin: &dyn BitcoinAccess,
    tip: &BitcoinTip,
    batch: &Batch,
) -> Result<BitcoinFacts, BitcoindError> {
    let mut coins = Vec::with_capacity(batch.inputs.len());
    for input in &batch.inputs {
        coins.push(bitcoin.coin(input.outpoint).await?);
    }
    let confirmed = if coins.iter().any(Option::is_none) { confirmed(bitcoin, batch).await? } else { None };
    let BitcoinTip { height, best, syncing } = *tip;
    Ok(BitcoinFacts { height, best, syncing, coins, confirmed })
}

/// The version of a batch that has an unspent output on the best chain. Its change can only be spent once the chain has
/// recorded it, so that a version with change is found until then.
async fn confirmed(bitcoin: &dyn BitcoinAccess, batch: &Batch) -> Result<Option<Txid>, BitcoindError> {
    for version in batch.versions.iter().rev() {
        let outputs = batch.payees.len() + version.change.len();
        // The change stands last.
        for vout in (0..u32::try_from(outputs).unwrap_or(u32::MAX)).rev() {
            if bitcoin.coin(OutPoint { txid: version.txid, vout }).await?.is_some() {
                return Ok(Some(version.txid));
            }
        }
    }
    Ok(None)
}
