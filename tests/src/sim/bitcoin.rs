//! Bitcoin under the peg: one tree of blocks for the whole world, of which the node on each host knows a part.

mod desk;
mod node;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::{Amount, BlockHash, OutPoint, Transaction};
use causeway_chainspec::{ChainSpec, Height, SatPerKvb};
use causeway_consensus::ConnectedBlock;
use causeway_consensus::peg::PegNetwork;
use causeway_consensus::peg::history::PegEvent;
use causeway_consensus::peg::script::DepositTerms;

use super::host::START;
use super::world::World;
use crate::parent::{ParentChain, terms};
use crate::wallet::{Kind, Owner, Spendable};

pub(super) use desk::Desk;
pub(super) use node::BitcoinNode;

/// Deposits that Bitcoin's first block has, and what each is worth.
const FIRST_DEPOSITS: u64 = 3;
const FIRST_AMOUNT: Amount = Amount::from_sat(2_000_000_000);

/// How long before the start of a run that block was mined.
const EARLIER: Duration = Duration::from_secs(1_800);

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
    /// What a transaction should pay.
    rate: SatPerKvb,
    /// The last Causeway block that was looked at.
    seen: Height,
    serial: u64,
}

/// A deposit that somebody made.
struct Deposit {
    terms: DepositTerms,
    transaction: Transaction,
    outpoint: OutPoint,
    owner: Owner,
    kind: Kind,
    /// The hosts that handed out its address.
    desks: Vec<usize>,
    /// The Causeway block that credited it.
    credited: Option<Height>,
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
            rate: SatPerKvb(2_000),
            seen: Height(0),
            serial: 0,
        };
        let deposits = (0..FIRST_DEPOSITS)
            .map(|number| world.make_deposit(Owner::new(number), Kind::P2wpkh, FIRST_AMOUNT, desks.to_vec()))
            .collect();
        let mut time = START - EARLIER;
        world.best = world.mine(world.best, time, deposits);
        for _ in 1..spec.params().final_depth {
            time += Duration::from_secs(300);
            world.best = world.mine(world.best, time, Vec::new());
        }
        world
    }

    /// Pays to the address of an owner's deposit. The transaction is in no block yet.
    fn make_deposit(&mut self, owner: Owner, kind: Kind, amount: Amount, desks: Vec<usize>) -> Transaction {
        let terms = terms(owner.script_pubkey(kind), &owner);
        let transaction = self.bank.deposit(&self.network, &terms, amount);
        let outpoint = OutPoint { txid: transaction.compute_txid(), vout: 0 };
        let made = transaction.clone();
        self.deposits.push(Deposit { terms, transaction, outpoint, owner, kind, desks, credited: None });
        made
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
}

impl World {
    /// An honest host has committed a block: its credits are in the purse the first time.
    pub(super) fn peg_committed(&mut self, connected: &ConnectedBlock) {
        let height = connected.tip().height();
        if height <= self.bitcoin.seen {
            return;
        }
        self.bitcoin.seen = height;
        for event in connected.peg_events() {
            let PegEvent::Credited { outpoint, credit } = event else { continue };
            let Some(deposit) = self.bitcoin.deposits.iter_mut().find(|deposit| deposit.outpoint == *outpoint) else {
                continue;
            };
            deposit.credited = Some(height);
            let Some(transaction) = connected.block().transactions().get(1) else { continue };
            let Some(output) = transaction.transaction().output.get(credit.vout as usize) else { continue };
            self.purse.credit(Spendable {
                outpoint: OutPoint { txid: transaction.txid(), vout: credit.vout },
                output: output.clone(),
                owner: deposit.owner.clone(),
                kind: deposit.kind,
            });
        }
    }
}
