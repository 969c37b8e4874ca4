//! What a member checks before it signs (PEG section 8): pure, from facts that its own node and its own bitcoind gave.
//!
//! [`approve`] is the only way to an [`Approved`] transaction, and nothing else is ever signed. It says no in three
//! ways that never mix: *not ready* (something is missing: ask again), *refused* (a rule says no) and *breach* (what
//! can only happen if a chain or a key is broken: stop and call a person).

mod decline;
mod deposits;

use std::fmt;
use std::sync::Arc;

use bitcoin::{BlockHash, OutPoint, Transaction, TxOut, Txid};
use causeway_chainspec::{BitcoinHeight, ChainId, Height};
use causeway_consensus::bft::{CommitCertificate, ValidatorSet};
use causeway_consensus::peg::batch::{Batch, BatchKind};
use causeway_consensus::peg::coin::{CoinKind, PegCoin};
use causeway_consensus::peg::script::{CoinScript, EpochScripts};
use serde::{Deserialize, Serialize};

pub use self::decline::{Breach, Decline, NotReady, Refusal};
pub use self::deposits::{CreditedDeposit, DepositFacts, DepositsMark, check_deposits};

use crate::bitcoind::UnspentCoin;
use crate::session::INPUTS_MAX;
use crate::spend::{Spend, SpentCoin};

/// A block of the Causeway chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockPoint {
    /// Its height.
    pub height: u32,
    /// Its hash.
    pub hash: BlockHash,
}

impl fmt::Display for BlockPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {} at height {}", self.hash, self.height)
    }
}

/// A block of Bitcoin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BitcoinPoint {
    /// Its height on Bitcoin.
    pub height: u32,
    /// Its hash.
    pub hash: BlockHash,
}

impl fmt::Display for BitcoinPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bitcoin block {} at height {}", self.hash, self.height)
    }
}

/// What a member acted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActedOn {
    /// The block.
    pub block: BlockPoint,
    /// What made it final; None if an operator wrote the record.
    pub certificate: Option<CommitCertificate>,
}

/// What the member itself says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnFacts {
    /// Its operator has paused it.
    pub paused: bool,
    /// It stopped for this.
    pub alarm: Option<String>,
    /// What it last acted on.
    pub acted_on: Option<ActedOn>,
    /// How far credited deposits were found on Bitcoin.
    pub deposits: DepositsMark,
}

/// What the member's own node says, all of one state but for the last two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// The chain that it follows.
    pub chain: ChainId,
    /// Its last final block.
    pub tip: BlockPoint,
    /// Why the peg is frozen, if it is.
    pub frozen: Option<String>,
    /// The certificate that it shows for the tip; None if it was not asked, or has none.
    pub certificate: Option<CommitCertificate>,
    /// Its block at the height that the member had last acted on when the node was asked; None if it has none there,
    /// or the member never acted.
    pub at_acted_on: Option<BlockPoint>,
    /// The certificate that it shows there, if its block is another one than the member's.
    pub other: Option<CommitCertificate>,
}

/// What the member's own bitcoind says of one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BitcoinFacts {
    /// Height of its best block.
    pub height: BitcoinHeight,
    /// Its best block.
    pub best: BlockHash,
    /// It has not caught up with the headers that it knows.
    pub syncing: bool,
    /// The inputs of the batch in the coin set of its best chain, in order; None for one that is not there.
    pub coins: Vec<Option<UnspentCoin>>,
    /// The version of the batch whose outputs stand on its best chain.
    pub confirmed: Option<Txid>,
}

/// The scripts of the epochs that a member knows.
#[derive(Clone, Debug)]
pub struct Federation {
    /// The chain.
    pub chain: ChainId,
    /// Who decides what is final: one set for all heights, until the chain has a way to change it (PEG section 6).
    pub validators: ValidatorSet,
    /// Its epochs, by number.
    pub epochs: Vec<Arc<EpochScripts>>,
}

impl Federation {
    fn epoch(&self, number: u32) -> Option<&Arc<EpochScripts>> {
        self.epochs.iter().find(|scripts| scripts.epoch().number() == number)
    }

    /// Whether a certificate makes a block final.
    fn verify(&self, certificate: &CommitCertificate, block: BlockPoint) -> Result<(), Refusal> {
        let proven = certificate.verify(self.chain, &self.validators, Height(block.height), block.hash);
        proven.map_err(|problem| Refusal::FalseCertificate { block, problem })
    }
}

/// A transaction that this member may sign.
#[derive(Clone, Debug)]
pub struct Approved {
    batch: u32,
    kind: BatchKind,
    version: usize,
    txid: Txid,
    spend: Spend,
    acted_on: ActedOn,
}

impl Approved {
    /// The number of the batch.
    pub fn batch(&self) -> u32 {
        self.batch
    }

    /// What the batch is for.
    pub fn kind(&self) -> BatchKind {
        self.kind
    }

    /// Which version of the batch, from 0.
    pub fn version(&self) -> usize {
        self.version
    }

    /// The id of the transaction.
    pub fn txid(&self) -> Txid {
        self.txid
    }

    /// The transaction with the coins that it spends.
    pub fn spend(&self) -> &Spend {
        &self.spend
    }

    /// The block whose state this was approved from, with its certificate.
    pub fn acted_on(&self) -> &ActedOn {
        &self.acted_on
    }

    /// The coins that it spends.
    pub fn outpoints(&self) -> Vec<OutPoint> {
        self.spend.transaction().input.iter().map(|input| input.previous_output).collect()
    }
}

/// Checks what does not depend on a batch: rule 1 and rule 5.
///
/// # Errors
/// [`Decline`]. A breach comes before anything else, whether or not the member would sign.
pub fn check_chain(federation: &Federation, own: &OwnFacts, node: &NodeFacts) -> Result<(), Decline> {
    if node.chain != federation.chain {
        return Err(Refusal::OtherChain { got: node.chain, expected: federation.chain }.into());
    }
    if let Some(acted_on) = &own.acted_on {
        check_descends(federation, acted_on, node)?;
    }
    if let Some(certificate) = &node.certificate {
        federation.verify(certificate, node.tip)?;
    }
    if let Some(reason) = &own.alarm {
        return Err(Refusal::Alarmed { reason: reason.clone() }.into());
    }
    if own.paused {
        return Err(Refusal::Paused.into());
    }
    match &node.frozen {
        Some(reason) => Err(Refusal::Frozen { reason: reason.clone() }.into()),
        None => Ok(()),
    }
}

/// Whether the node's tip descends from what this member acted on. A chain of final blocks only grows, so that the
/// block at that height says it, whichever answer was first.
fn check_descends(federation: &Federation, acted_on: &ActedOn, node: &NodeFacts) -> Result<(), Decline> {
    let height = acted_on.block.height;
    let there = [Some(node.tip), node.at_acted_on].into_iter().flatten().filter(|block| block.height == height);
    let mut asked = false;
    for block in there {
        if block.hash != acted_on.block.hash {
            return Err(other_block(federation, acted_on, node, block));
        }
        asked = true;
    }
    if node.tip.height < height {
        return Err(NotReady::NodeBehind { height: node.tip.height, acted_on: height }.into());
    }
    if asked { Ok(()) } else { Err(NotReady::NotAsked { acted_on: height }.into()) }
}

/// What it is when the node shows another block where this member acted: a lie, unless the validators signed that block.
fn other_block(federation: &Federation, acted_on: &ActedOn, node: &NodeFacts, block: BlockPoint) -> Decline {
    let shown = [&node.other, &node.certificate].into_iter().flatten();
    let Some(other) = shown.clone().find(|shown| shown.height() == Height(block.height)) else {
        return Refusal::OtherBlock { acted_on: acted_on.block, got: block.hash }.into();
    };
    if let Err(refusal) = federation.verify(other, block) {
        return refusal.into();
    }
    let second = Box::new(other.clone());
    match &acted_on.certificate {
        Some(first) => Breach::TwoCertificates { first: Box::new(first.clone()), second }.into(),
        None => Breach::NotADescendant { acted_on: acted_on.block, other: second }.into(),
    }
}

/// Approves the newest version of an open batch (PEG section 8, rules 1 to 5). `earlier` says in which batch this
/// member signed for a coin before.
///
/// # Errors
/// [`Decline`]: the first rule that says no.
pub fn approve(
    federation: &Federation,
    own: &OwnFacts,
    node: &NodeFacts,
    batch: &Batch,
    bitcoin: &BitcoinFacts,
    earlier: impl Fn(&OutPoint) -> Option<u64>,
) -> Result<Approved, Decline> {
    check_chain(federation, own, node)?;
    let certificate = node.certificate.clone().ok_or(Refusal::NoCertificate { tip: node.tip })?;
    if own.deposits.height < node.tip.height {
        return Err(NotReady::DepositsUnchecked { checked: own.deposits.height, tip: node.tip.height }.into());
    }
    let transaction = rebuild(federation, node, batch)?;
    let coins = own_coins(federation, batch)?;
    check_bitcoin(batch, bitcoin, &coins)?;
    for coin in &batch.inputs {
        if let Some(earlier) = earlier(&coin.outpoint).filter(|earlier| *earlier != u64::from(batch.number)) {
            return Err(Refusal::OtherBatch { outpoint: coin.outpoint, earlier }.into());
        }
    }
    let txid = batch.newest().txid;
    // Every script was made from the coin's own terms, and the transaction is unsigned.
    let spend = Spend::new(federation.chain, transaction, coins)
        .map_err(|_| Refusal::OtherTransaction { rebuilt: txid, expected: txid })?;
    let version = batch.versions.len() - 1;
    let acted_on = ActedOn { block: node.tip, certificate: Some(certificate) };
    Ok(Approved { batch: batch.number, kind: batch.kind, version, txid, spend, acted_on })
}

/// The transaction of the newest version, made again by this member (rules 1 and 2).
fn rebuild(federation: &Federation, node: &NodeFacts, batch: &Batch) -> Result<Transaction, Refusal> {
    let newest = batch.newest();
    if newest.fixed.to_u32() > node.tip.height || batch.opened.to_u32() > node.tip.height {
        return Err(Refusal::NotFinal { fixed: newest.fixed, tip: node.tip.height });
    }
    if batch.inputs.is_empty() || batch.inputs.len() > INPUTS_MAX {
        return Err(Refusal::Inputs(batch.inputs.len()));
    }
    let transaction = batch.transaction(newest);
    let rebuilt = transaction.compute_txid();
    if rebuilt != newest.txid {
        return Err(Refusal::OtherTransaction { rebuilt, expected: newest.txid });
    }
    let epoch = batch.change_epoch;
    let comes_back = federation.epoch(epoch).is_some_and(|scripts| *scripts.main_script() == *batch.change_script);
    if !newest.change.is_empty() && !comes_back {
        return Err(Refusal::ForeignChange { epoch });
    }
    Ok(transaction)
}

/// The inputs, with scripts and values as this member makes them.
fn own_coins(federation: &Federation, batch: &Batch) -> Result<Vec<SpentCoin>, Refusal> {
    let own_coin = |input: &PegCoin| {
        let (outpoint, epoch) = (input.outpoint, input.epoch());
        // A task has one set of members: that of its first coin.
        let of_first = batch.inputs.first().is_some_and(|first| first.epoch() == epoch);
        let scripts = federation.epoch(epoch).filter(|_| of_first);
        let scripts = Arc::clone(scripts.ok_or(Refusal::UnknownEpoch { outpoint, epoch })?);
        let coin = match &input.kind {
            CoinKind::Main { .. } => CoinScript::Main,
            CoinKind::Deposit(terms) => CoinScript::Deposit(terms.clone()),
        };
        let script_pubkey = scripts.output(federation.chain, &coin).script_pubkey();
        Ok(SpentCoin { outpoint, scripts, coin, prevout: TxOut { value: input.value, script_pubkey } })
    };
    batch.inputs.iter().map(own_coin).collect()
}

/// Rule 3, but for the deposits that the batch does not spend: those are [`check_deposits`]'s.
fn check_bitcoin(batch: &Batch, bitcoin: &BitcoinFacts, coins: &[SpentCoin]) -> Result<(), Decline> {
    let height = bitcoin.height;
    if bitcoin.syncing {
        return Err(NotReady::BitcoinSyncing { height }.into());
    }
    let fixed_at = batch.newest().fixed_at;
    if height < fixed_at {
        return Err(NotReady::BitcoinBehind { height, fixed_at }.into());
    }
    if let Some(txid) = bitcoin.confirmed {
        return Err(NotReady::Confirmed { txid }.into());
    }
    if bitcoin.coins.len() != coins.len() {
        return Err(NotReady::BitcoinMoved.into());
    }
    for ((input, found), own) in batch.inputs.iter().zip(&bitcoin.coins).zip(coins) {
        let outpoint = input.outpoint;
        let Some(found) = found else {
            return Err(match input.kind {
                CoinKind::Deposit(_) => Refusal::DepositGone { outpoint },
                CoinKind::Main { .. } => Refusal::Spent { outpoint },
            }
            .into());
        };
        if found.as_of != bitcoin.best {
            return Err(NotReady::BitcoinMoved.into());
        }
        if found.value != own.prevout.value || found.script_pubkey != own.prevout.script_pubkey {
            return Err(Refusal::OtherCoin { outpoint, got: found.value, expected: own.prevout.value }.into());
        }
        if found.coinbase {
            return Err(Refusal::Coinbase { outpoint }.into());
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
