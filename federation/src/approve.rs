//! What a member checks before it signs (PEG section 8): pure, from facts that its own node and its own bitcoind gave.
//!
//! [`approve`] is the only way to an [`Approved`] transaction, and nothing else is ever signed. It says no in three
//! ways that never mix: *not ready* (something is missing: ask again), *refused* (a rule says no) and *breach* (what
//! can only happen if a chain or a key is broken: stop and call a person).

use std::fmt;
use std::sync::Arc;

use bitcoin::{Amount, BlockHash, OutPoint, Transaction, TxOut, Txid};
use causeway_chainspec::{BitcoinHeight, ChainId, Height};
use causeway_consensus::peg::batch::{Batch, BatchKind};
use causeway_consensus::peg::coin::{CoinKind, PegCoin};
use causeway_consensus::peg::script::{CoinScript, EpochScripts};
use serde::{Deserialize, Serialize};

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

/// What the member itself says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnFacts {
    /// Its operator has paused it.
    pub paused: bool,
    /// It stopped for this.
    pub alarm: Option<String>,
    /// The block that it last acted on.
    pub acted_on: Option<BlockPoint>,
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
    /// The block that the certificate of the tip's height is for; None for a height without one.
    pub certified: Option<BlockHash>,
    /// Its block at the height that the member had last acted on when the node was asked; None if it has none there,
    /// or the member never acted.
    pub at_acted_on: Option<BlockPoint>,
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

/// Something is missing. Ask again later.
#[expect(missing_docs, reason = "every variant is documented, and its message names its fields")]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotReady {
    /// The node is behind what this member has acted on.
    #[error(
        "the node is at height {height}, this member acted on height {acted_on}: wait until the node has caught up"
    )]
    NodeBehind { height: u32, acted_on: u32 },
    /// The member has acted since the node was asked for its block there.
    #[error("the node was not asked for its block at height {acted_on} yet: asking")]
    NotAsked { acted_on: u32 },
    /// bitcoind is behind.
    #[error("bitcoind is at height {height} and still syncing: wait")]
    BitcoinSyncing { height: BitcoinHeight },
    /// bitcoind is behind what the chain knew when it fixed the transaction.
    #[error("bitcoind is at height {height}, the transaction was fixed at Bitcoin height {fixed_at}: wait")]
    BitcoinBehind { height: BitcoinHeight, fixed_at: BitcoinHeight },
    /// Bitcoin's best chain changed between two answers.
    #[error("Bitcoin's best block changed while its coins were asked for: asking again")]
    BitcoinMoved,
    /// A version of the batch is in a block already (PEG section 8, rule 3).
    #[error(
        "version {txid} is in a Bitcoin block: nothing is left to sign, the chain closes the batch once it is deep"
    )]
    Confirmed { txid: Txid },
}

/// A rule says no.
#[expect(missing_docs, reason = "every variant is documented, and its message names its fields")]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Rule 5.
    #[error("this member is paused: run \"causeway-federation resume\" when it may sign again")]
    Paused,
    /// The node follows another chain.
    #[error("the node follows chain {got}, this member's is {expected}: correct url under [node] in federation.toml")]
    OtherChain { got: ChainId, expected: ChainId },
    /// It stopped before.
    #[error("this member has stopped ({reason}): find out why, then run \"causeway-federation resume --clear-alarm\"")]
    Alarmed { reason: String },
    /// Rule 1: the peg is frozen.
    #[error("the peg is frozen ({reason}): members sign nothing until the validators resolve it")]
    Frozen { reason: String },
    /// Rule 1: not of a final block.
    #[error("the version was fixed at height {fixed}, above the final height {tip}: check the node")]
    NotFinal { fixed: Height, tip: u32 },
    /// Rule 2: not the transaction of the version.
    #[error("the rebuilt transaction is {rebuilt}, the version's is {expected}: check the node")]
    OtherTransaction { rebuilt: Txid, expected: Txid },
    /// Rule 2: the change does not come back to the federation.
    #[error("the change of the batch does not go to the main output of epoch {epoch}: check the node")]
    ForeignChange { epoch: u32 },
    /// The epoch is not known.
    #[error(
        "input {outpoint} is of epoch {epoch}, which this member does not know: use the build and chainspec of the network"
    )]
    UnknownEpoch { outpoint: OutPoint, epoch: u32 },
    /// No inputs, or too many.
    #[error("the batch has {0} inputs, at most {INPUTS_MAX} can be signed")]
    Inputs(usize),
    /// Rule 3: spent, or never there.
    #[error(
        "input {outpoint} is not unspent on Bitcoin's best chain and no version of the batch has confirmed: look for what spent it"
    )]
    Spent { outpoint: OutPoint },
    /// Rule 3: a deposit that is not on the best chain.
    #[error(
        "deposit {outpoint} was credited and is not on Bitcoin's best chain: look for a deep reorganisation or a double payment"
    )]
    DepositGone { outpoint: OutPoint },
    /// What bitcoind shows is not what the chain recorded.
    #[error(
        "input {outpoint} has value {got} or a script on Bitcoin that the chain does not record ({expected}): check node and bitcoind"
    )]
    OtherCoin { outpoint: OutPoint, got: Amount, expected: Amount },
    /// A coin that cannot be mined yet.
    #[error("input {outpoint} is of a coinbase: the peg holds no such coins, check the node")]
    Coinbase { outpoint: OutPoint },
    /// Rule 4.
    #[error(
        "coin {outpoint} was signed for in batch {earlier}: no other batch may spend it; find out why the chain says so"
    )]
    OtherBatch { outpoint: OutPoint, earlier: u64 },
}

/// A chain or a key is broken. Stop and call a person.
#[expect(missing_docs, reason = "every variant is documented, and its message names its fields")]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Breach {
    /// Rule 1: the node's chain does not descend from what this member acted on.
    #[error(
        "this member acted on {acted_on}, and the node shows {got} there: two blocks were final at one height, or the node's store was replaced; sign nothing"
    )]
    NotADescendant { acted_on: BlockPoint, got: BlockHash },
    /// Rule 1: two certificates.
    #[error(
        "the node's tip is {tip}, and its certificate is for {certified}: two blocks are final at one height; sign nothing"
    )]
    TwoCertificates { tip: BlockPoint, certified: BlockHash },
}

/// Why a member does not sign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Decline {
    /// Something is missing.
    #[error(transparent)]
    NotReady(#[from] NotReady),
    /// A rule says no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Something is broken.
    #[error(transparent)]
    Breach(#[from] Breach),
}

/// The scripts of the epochs that a member knows.
#[derive(Clone, Debug)]
pub struct Federation {
    /// The chain.
    pub chain: ChainId,
    /// Its epochs, by number.
    pub epochs: Vec<Arc<EpochScripts>>,
}

impl Federation {
    fn epoch(&self, number: u32) -> Option<&Arc<EpochScripts>> {
        self.epochs.iter().find(|scripts| scripts.epoch().number() == number)
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
    acted_on: BlockPoint,
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

    /// The block whose state this was approved from.
    pub fn acted_on(&self) -> BlockPoint {
        self.acted_on
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
pub fn check_chain(chain: ChainId, own: &OwnFacts, node: &NodeFacts) -> Result<(), Decline> {
    if node.chain != chain {
        return Err(Refusal::OtherChain { got: node.chain, expected: chain }.into());
    }
    if let Some(certified) = node.certified.filter(|certified| *certified != node.tip.hash) {
        return Err(Breach::TwoCertificates { tip: node.tip, certified }.into());
    }
    if let Some(acted_on) = own.acted_on {
        check_descends(acted_on, node)?;
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
fn check_descends(acted_on: BlockPoint, node: &NodeFacts) -> Result<(), Decline> {
    let there =
        [Some(node.tip), node.at_acted_on].into_iter().flatten().filter(|block| block.height == acted_on.height);
    let mut asked = false;
    for block in there {
        if block.hash != acted_on.hash {
            return Err(Breach::NotADescendant { acted_on, got: block.hash }.into());
        }
        asked = true;
    }
    if node.tip.height < acted_on.height {
        return Err(NotReady::NodeBehind { height: node.tip.height, acted_on: acted_on.height }.into());
    }
    if asked { Ok(()) } else { Err(NotReady::NotAsked { acted_on: acted_on.height }.into()) }
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
    check_chain(federation.chain, own, node)?;
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
    Ok(Approved { batch: batch.number, kind: batch.kind, version, txid, spend, acted_on: node.tip })
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

/// Rule 3.
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
