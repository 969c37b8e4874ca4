//! The Bitcoin node of one host.

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::BlockHash;
use causeway_chainspec::BitcoinHeight;
use causeway_node::machine::peg::{BitcoinAnswer, BitcoinQuestion};

use super::Bitcoin;
use crate::parent::ParentChain;

/// What one host's Bitcoin node knows.
#[derive(Debug, Clone)]
pub(in crate::sim) struct BitcoinNode {
    pub(super) known: BTreeSet<BlockHash>,
    pub(super) tip: BlockHash,
    pub(super) state: NodeState,
}

/// How a host's Bitcoin node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NodeState {
    /// It hears of blocks, and answers.
    Running,
    /// It answers, and hears nothing.
    Stuck,
    /// Its process has ended.
    Down,
    /// It was started again, and has still to catch up.
    CatchingUp,
    /// There is none.
    None,
}

impl BitcoinNode {
    /// One that knows everything there is, if there is one.
    pub(in crate::sim) fn new(bitcoin: &Bitcoin, exists: bool) -> Self {
        let state = if exists { NodeState::Running } else { NodeState::None };
        Self { known: bitcoin.chains.keys().copied().collect(), tip: bitcoin.best, state }
    }

    /// Its process ends.
    pub(in crate::sim) fn end(&mut self) {
        self.state = NodeState::Down;
    }

    /// Whether it can be relied on.
    pub(super) fn answers(&self) -> bool {
        matches!(self.state, NodeState::Running | NodeState::Stuck)
    }

    /// Its best chain.
    pub(super) fn chain<'a>(&self, bitcoin: &'a Bitcoin) -> &'a Arc<ParentChain> {
        &bitcoin.chains[&self.tip]
    }

    /// A block and those below it are known; of two chains as long the first stays.
    pub(super) fn hear(&mut self, bitcoin: &Bitcoin, block: BlockHash) {
        let chain = &bitcoin.chains[&block];
        let below = (0..=chain.tip().0).rev().filter_map(|height| chain.header(BitcoinHeight(height)));
        for hash in below.map(|header| header.block_hash()) {
            if !self.known.insert(hash) && hash != block {
                break;
            }
        }
        if chain.tip() > self.chain(bitcoin).tip() {
            self.tip = block;
        }
    }

    /// What it says of a block, as the desk of a node does.
    pub(in crate::sim) fn answer(&self, bitcoin: &Bitcoin, question: &BitcoinQuestion) -> BitcoinAnswer {
        if !self.answers() {
            return BitcoinAnswer::Absent;
        }
        if let Some(unknown) = question.headers.iter().find(|hash| !self.known.contains(*hash)) {
            return BitcoinAnswer::UnknownHeader(*unknown);
        }
        let chain = self.chain(bitcoin);
        match question.deposits.iter().find(|deposit| !chain.is_unspent(deposit)) {
            Some(spent) => BitcoinAnswer::SpentDeposit(*spent),
            None => BitcoinAnswer::Agrees,
        }
    }
}
