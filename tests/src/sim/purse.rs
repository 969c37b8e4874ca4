//! Transactions: handed in to honest hosts, and looked for in the chain.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bitcoin::script::PushBytesBuf;
use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use causeway_consensus::Block;
use causeway_node::machine::{Event, SubmitId};
use causeway_node::mempool::Reject;

use super::check::Check;
use super::world::{What, World};
use crate::wallet::{Kind, Owner, Spendable, spend};

/// What every transaction pays.
const FEE: Amount = Amount::from_sat(2_000);

/// What a long transaction pays besides.
const LONG_PAYS: Amount = Amount::from_sat(100_000);

/// Coins below this are not split.
const MIN_SPLIT: Amount = Amount::from_sat(200_000);

/// After this time a transaction is handed in again, to another host.
const AGAIN: Duration = Duration::from_secs(25);

/// Coins to spend, and transactions on their way.
pub(super) struct Purse {
    coins: Vec<Spendable>,
    open: BTreeMap<Txid, Open>,
    last: BTreeSet<Txid>,
    closed: bool,
    pub(super) count: u64,
}

struct Open {
    transaction: Transaction,
    /// What comes of it.
    made: Vec<Spendable>,
    handed_in: Duration,
    /// The host that took it, if that has not crashed since.
    taken: Option<usize>,
}

impl Purse {
    /// One without money.
    pub(super) fn new() -> Self {
        Self { coins: Vec::new(), open: BTreeMap::new(), last: BTreeSet::new(), closed: false, count: 0 }
    }

    /// A deposit was credited.
    pub(super) fn credit(&mut self, coin: Spendable) {
        self.coins.push(coin);
    }

    /// Nothing new from here on.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Whether nothing new is handed in.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether some host has taken a transaction that is not final.
    pub(super) fn is_waiting(&self) -> bool {
        self.open.values().any(|open| open.taken.is_some())
    }

    /// What a host knew is gone.
    pub(super) fn crashed(&mut self, host: usize) {
        for open in self.open.values_mut().filter(|open| open.taken == Some(host)) {
            open.taken = None;
        }
    }

    /// An honest host has committed a block.
    pub(super) fn committed(&mut self, _now: Duration, block: &Block) {
        for transaction in block.transactions().iter().skip(1) {
            if let Some(open) = self.open.remove(&transaction.txid()) {
                self.count += 1;
                self.last.insert(transaction.txid());
                self.coins.extend(open.made);
            }
        }
    }
}

impl World {
    /// Hands in a transaction, or one again.
    pub(super) fn hand_in(&mut self) {
        let pause = self.rng.between(Duration::from_millis(300), Duration::from_millis(1_500));
        self.after(pause, What::Purse);
        let alive: Vec<usize> = self.honest().filter(|host| self.hosts[*host].life.is_some()).collect();
        let Some(host) = self.rng.pick(&alive).copied() else { return };
        let now = self.now;
        let late = self.purse.open.iter().find(|(_, open)| open.taken.is_none() && open.handed_in + AGAIN < now);
        if let Some(txid) = late.map(|(txid, _)| *txid) {
            return self.submit(host, txid);
        }
        if self.purse.closed || self.purse.coins.is_empty() {
            return;
        }
        let place = self.rng.index(self.purse.coins.len());
        let coin = self.purse.coins.swap_remove(place);
        let left = coin.output.value - FEE;
        let request = self.ask_for_bitcoin(left);
        let left = left - request.as_ref().map_or(Amount::ZERO, |request| request.value);
        let parts = if left < MIN_SPLIT { 1 } else { 1 + self.rng.below(3) };
        let payees: Vec<(Owner, Kind)> =
            (0..parts).map(|_| (Owner::new(self.rng.below(64)), Kind::ALL[self.rng.index(Kind::ALL.len())])).collect();
        let mut outputs: Vec<TxOut> = payees
            .iter()
            .map(|(owner, kind)| TxOut { value: left / parts, script_pubkey: owner.script_pubkey(*kind) })
            .collect();
        outputs[0].value += left % parts;
        // After those that are spent again.
        outputs.extend(request);
        if !self.plan.lines.is_empty() && outputs[0].value > LONG_PAYS * 2 {
            outputs[0].value -= LONG_PAYS;
            // By itself each fits into a block that is sent unasked.
            let data = vec![0x5a; 20_000 + self.rng.index(30_000)];
            let data = PushBytesBuf::try_from(data).expect("less than four gigabytes");
            outputs.push(TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::new_op_return(data) });
        }
        let transaction = spend(&[coin], outputs);
        let txid = transaction.compute_txid();
        let made = (0_u32..).zip(&transaction.output).zip(payees).map(|((vout, output), (owner, kind))| Spendable {
            outpoint: OutPoint { txid, vout },
            output: output.clone(),
            owner,
            kind,
        });
        let made = made.collect();
        self.purse.open.insert(txid, Open { transaction, made, handed_in: now, taken: None });
        self.submit(host, txid);
    }

    fn submit(&mut self, host: usize, txid: Txid) {
        let now = self.now;
        let Some(open) = self.purse.open.get_mut(&txid) else { return };
        open.handed_in = now;
        let transaction = open.transaction.clone();
        let Some(life) = &mut self.hosts[host].life else { return };
        let id = SubmitId(life.name());
        life.submitted.insert(id, txid);
        let number = life.number;
        self.deliver(host, number, Event::Submit { id, transaction });
    }

    /// A host says what it makes of a transaction.
    pub(super) fn replied(&mut self, host: usize, txid: Txid, result: &Result<Txid, Reject>) {
        let Some(open) = self.purse.open.get_mut(&txid) else { return };
        match result {
            Ok(_) => open.taken = Some(host),
            Err(Reject::Invalid(_)) => {
                let what = format!("host {host} calls {txid} invalid");
                self.fail(Check::Transactions, what);
            }
            Err(_) => {}
        }
    }

    /// What must hold at the end of a run.
    pub(super) fn last_checks(&mut self) {
        self.stats.transactions = self.purse.count;
        let open = self.purse.open.iter().filter(|(_, open)| open.taken.is_some());
        let open: Vec<(Txid, Option<usize>, Duration)> =
            open.map(|(txid, open)| (*txid, open.taken, open.handed_in)).collect();
        if !self.over && !self.watch.has_failed() {
            for (txid, taken, at) in open {
                self.fail(Check::Transactions, format!("{txid}, taken by {taken:?} at {at:?}, is not final"));
            }
        }
    }
}
