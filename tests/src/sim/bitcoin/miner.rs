//! Blocks of Bitcoin, and their way to the hosts.

use std::time::Duration;

use bitcoin::{BlockHash, Transaction};
use causeway_chainspec::{BitcoinHeight, SatPerKvb};

use super::node::NodeState;
use crate::sim::host::START;
use crate::sim::world::{What, World};

/// Of a hundred deposits that a reorganisation takes off, so many are spent otherwise and never come back.
const LOST_PERCENT: u64 = 15;

impl World {
    /// Somebody finds a block.
    pub(in crate::sim) fn mine_bitcoin(&mut self) {
        let Some(every) = self.plan.peg.mining else { return };
        let pause = self.rng.between(every / 2, every);
        self.after(pause, What::Mine);
        self.bitcoin.rate = SatPerKvb(1_000 + self.rng.below(if self.rng.clone().chance(80) { 4_000 } else { 20_000 }));
        if self.rng.chance(self.plan.peg.fork_percent) {
            if self.rng.chance(50) { self.reorganise() } else { self.race() }
        } else {
            let block = self.mine_on(self.bitcoin.best);
            self.bitcoin.best = block;
        }
    }

    /// A branch comes out that is longer by one.
    fn reorganise(&mut self) {
        let best = self.bitcoin.best().clone();
        let deepest = u64::from(self.bitcoin.network.params().final_depth) - 1;
        let depth = 1 + u32::try_from(self.rng.below(deepest)).expect("small");
        let fork = BitcoinHeight(best.tip().0 - depth);
        let mut parent = best.header(fork).expect("there are enough blocks").block_hash();
        for deposit in &mut self.bitcoin.deposits {
            let undone = best.place(&deposit.outpoint.txid).is_some_and(|(height, _)| height > fork);
            deposit.lost |= undone && self.rng.chance(LOST_PERCENT);
        }
        for _ in 0..=depth {
            parent = self.mine_on(parent);
        }
        self.bitcoin.best = parent;
        self.stats.reorganisations += 1;
    }

    /// Two blocks at once: either may be the one that the next stands on.
    fn race(&mut self) {
        let parent = self.bitcoin.best;
        let rivals = [self.mine_on(parent), self.mine_on(parent)];
        self.bitcoin.best = rivals[self.rng.index(2)];
        self.stats.reorganisations += 1;
    }

    fn mine_on(&mut self, parent: BlockHash) -> BlockHash {
        let transactions = self.transactions_on(parent);
        let block = self.bitcoin.mine(parent, START + self.now, transactions);
        self.stats.bitcoin_blocks += 1;
        self.say(|| format!("BITCOIN {block} on {parent}"));
        for host in 0..self.hosts.len() {
            let delay = self.rng.between(Duration::ZERO, self.plan.peg.lag[host]);
            self.after(delay, What::BitcoinBlock { host, block });
        }
        block
    }

    /// What a miner puts in: of each batch one version, whichever it has.
    fn transactions_on(&mut self, parent: BlockHash) -> Vec<Transaction> {
        let (rng, bitcoin, now, all) = (&mut self.rng, &self.bitcoin, self.now, self.healed);
        let chain = &bitcoin.chains[&parent];
        let deposits = bitcoin.deposits.iter().filter(|deposit| !deposit.lost);
        let deposits = deposits.filter(|deposit| chain.place(&deposit.outpoint.txid).is_none());
        let mut chosen: Vec<Transaction> =
            deposits.filter(|_| all || rng.chance(70)).map(|deposit| deposit.transaction.clone()).collect();
        for number in bitcoin.batches.keys() {
            let versions = bitcoin.versions.values().filter(|version| {
                version.batch == *number
                    && version.signed.is_some_and(|at| at <= now)
                    && chain.is_spendable(&version.transaction)
            });
            let versions: Vec<_> = versions.collect();
            if let Some(version) = rng.pick(&versions)
                && (all || rng.chance(50))
            {
                chosen.push(version.transaction.clone());
            }
        }
        chosen
    }

    /// A host's Bitcoin node hears of a block, and with it of those below.
    pub(in crate::sim) fn bitcoin_block(&mut self, index: usize, block: BlockHash) {
        if self.hosts[index].bitcoin.state != NodeState::Running {
            return;
        }
        self.hosts[index].bitcoin.hear(&self.bitcoin, block);
        self.look(index);
    }

    /// A host's Bitcoin node fails, or comes back step by step.
    pub(in crate::sim) fn bitcoin_fails(&mut self, index: usize) {
        if self.healed {
            return;
        }
        let state = match self.hosts[index].bitcoin.state {
            NodeState::Running if self.rng.chance(40) => NodeState::Stuck,
            NodeState::Running => NodeState::Down,
            NodeState::Down => NodeState::CatchingUp,
            NodeState::Stuck | NodeState::CatchingUp => NodeState::Running,
            NodeState::None => return,
        };
        self.set_bitcoin(index, state);
        let longest = if state == NodeState::CatchingUp { 2_000 } else { 9_000 };
        let pause = self.rng.between(Duration::from_millis(500), Duration::from_millis(longest));
        self.after(pause, What::BitcoinFails { host: index });
    }

    fn set_bitcoin(&mut self, index: usize, state: NodeState) {
        self.say(|| format!("{index:2} BITCOIN {state:?}"));
        let best = self.bitcoin.best;
        let node = &mut self.hosts[index].bitcoin;
        node.state = state;
        if state == NodeState::Running {
            node.known.extend(self.bitcoin.chains.keys());
            node.hear(&self.bitcoin, best);
        }
        self.look(index);
    }

    /// Every Bitcoin node is there, and knows everything.
    pub(in crate::sim) fn heal_bitcoin(&mut self) {
        self.plan.peg.heal();
        for index in 0..self.hosts.len() {
            if self.hosts[index].bitcoin.state != NodeState::None {
                self.set_bitcoin(index, NodeState::Running);
            }
        }
    }
}
