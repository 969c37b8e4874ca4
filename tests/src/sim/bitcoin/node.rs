//! The Bitcoin node of one host.

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::BlockHash;
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
}

impl BitcoinNode {
    /// One that knows everything there is.
    pub(in crate::sim) fn new(bitcoin: &Bitcoin) -> Self {
        Self { known: bitcoin.chains.keys().copied().collect(), tip: bitcoin.best, state: NodeState::Running }
    }

    /// Whether it can be relied on.
    pub(super) fn answers(&self) -> bool {
        matches!(self.state, NodeState::Running)
    }

    /// Its best chain.
    pub(super) fn chain<'a>(&self, bitcoin: &'a Bitcoin) -> &'a Arc<ParentChain> {
        &bitcoin.chains[&self.tip]
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
