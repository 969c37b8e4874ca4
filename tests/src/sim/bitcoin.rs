//! Bitcoin under the peg: one tree of blocks for the whole world, of which the node on each host knows a part.

mod audit;
mod desk;
mod miner;
mod node;
mod users;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::{Amount, BlockHash, OutPoint, Transaction, TxOut, Txid};
use causeway_chainspec::{ChainSpec, Height, SatPerKvb};
use causeway_consensus::peg::PegNetwork;
use causeway_consensus::peg::batch::Batch;

use super::host::START;
use crate::parent::ParentChain;
use crate::wallet::{Kind, Owner};

pub(super) use audit::Audit;
pub(super) use desk::Desk;
pub(super) use node::BitcoinNode;
pub(super) use users::SIGNING;
use users::{Deposit, Version};

/// Deposits that Bitcoin's first block has, and what each is worth.
const FIRST_DEPOSITS: u64 = 3;
const FIRST_AMOUNT: Amount = Amount::from_sat(2_000_000_000);

/// How long before the start of a run that block was mined, and the time between the next ones.
const EARLIER: Duration = Duration::from_secs(1_800);
const EARLY_SPACING: Duration = Duration::from_secs(300);

/// Every block, and what the users of Bitcoin have done.
pub(super) struct Bitcoin {
    network: Arc<PegNetwork>,
    /// The chain up to each block that was ever mined.
    chains: BTreeMap<BlockHash, Arc<ParentChain>>,
    /// The end of the best chain.
    best: BlockHash,
    /// Makes the payments of the users; no block is mined on it.
    bank: ParentChain,
    deposits: Vec<Deposit>,
    /// Transactions of batches, by id.
    versions: BTreeMap<Txid, Version>,
    /// Batches as they were last seen.
    batches: BTreeMap<u32, Batch>,
    /// Requests in blocks of Causeway, and those whose batch is closed.
    requests: BTreeMap<OutPoint, TxOut>,
    paid: BTreeSet<OutPoint>,
    /// What a transaction should pay.
    rate: SatPerKvb,
    /// The last Causeway block that was looked at.
    seen: Height,
    serial: u64,
}

impl Bitcoin {
    /// Bitcoin with a few blocks, so that the deposits of the first are final. `desks` have handed out their addresses.
    pub(super) fn new(spec: &ChainSpec, network: Arc<PegNetwork>, desks: &[usize]) -> Self {
        let start = ParentChain::new(spec);
        let mut world = Self {
            network,
            best: start.tip_hash(),
            bank: start.clone(),
            chains: BTreeMap::from([(start.tip_hash(), Arc::new(start))]),
            deposits: Vec::new(),
            versions: BTreeMap::new(),
            batches: BTreeMap::new(),
            requests: BTreeMap::new(),
            paid: BTreeSet::new(),
            rate: SatPerKvb(2_000),
            seen: Height(0),
            serial: 0,
        };
        let kind = Kind::P2wpkh;
        let deposits = (0..FIRST_DEPOSITS)
            .map(|number| {
                let owner = Owner::new(number);
                let destination = owner.script_pubkey(kind);
                world.make_deposit(owner, Some(kind), destination, FIRST_AMOUNT, desks.to_vec())
            })
            .collect();
        let mut time = START - EARLIER;
        world.best = world.mine(world.best, time, deposits);
        for _ in 1..spec.params().final_depth {
            time += EARLY_SPACING;
            world.best = world.mine(world.best, time, Vec::new());
        }
        world
    }

    /// Mines a block of these transactions, at this Unix time, and returns it.
    fn mine(&mut self, parent: BlockHash, unix: Duration, transactions: Vec<Transaction>) -> BlockHash {
        let mut chain = ParentChain::clone(&self.chains[&parent]);
        self.serial += 1;
        (chain.serial, chain.clock) = (self.serial, u32::try_from(unix.as_secs()).expect("before 2106"));
        for deposit in &self.deposits {
            chain.endow(&deposit.transaction);
        }
        chain.mine(transactions);
        let hash = chain.tip_hash();
        self.chains.insert(hash, Arc::new(chain));
        hash
    }

    fn best(&self) -> &Arc<ParentChain> {
        &self.chains[&self.best]
    }
}
