//! Who uses the peg: depositors, those who ask to be paid out, and the federation that signs.

use std::collections::BTreeSet;
use std::time::Duration;

use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxOut};
use causeway_chainspec::{Height, PegScript};
use causeway_consensus::ConnectedBlock;
use causeway_consensus::peg::batch::Batch;
use causeway_consensus::peg::history::PegEvent;
use causeway_consensus::peg::script::DepositTerms;

use super::Bitcoin;
use crate::parent::{request_script, terms};
use crate::sim::world::{What, World};
use crate::wallet::{Kind, Owner, Spendable};

/// Outputs that a deposit may become.
const DESTINATIONS: [Kind; 5] = [Kind::P2pkh, Kind::P2sh, Kind::P2wpkh, Kind::P2wsh, Kind::P2trKey];

/// Of a hundred deposits so many are requests at once, and of a hundred transactions so many make one.
const REQUEST_PERCENT: u64 = 15;
const PAY_OUT_PERCENT: u64 = 35;

/// Of a hundred deposits so many are claimed too early.
const EARLY_PERCENT: u64 = 40;

/// How long the federation takes to sign at most.
pub(in crate::sim) const SIGNING: Duration = Duration::from_secs(2);

/// A deposit that somebody made.
pub(super) struct Deposit {
    pub(super) terms: DepositTerms,
    pub(super) transaction: Transaction,
    pub(super) outpoint: OutPoint,
    owner: Owner,
    /// The form of its coin; `None` if it becomes a request.
    kind: Option<Kind>,
    /// The hosts that handed out its address.
    pub(super) desks: Vec<usize>,
    /// Whether it is claimed as soon as its block is known, not when it is final.
    pub(super) early: bool,
    /// A reorganisation took it off, and its money was spent otherwise.
    pub(super) lost: bool,
    /// The Causeway block that credited it.
    pub(super) credited: Option<Height>,
}

/// A version of a batch.
pub(super) struct Version {
    pub(super) batch: u32,
    pub(super) transaction: Transaction,
    /// The honest hosts where it is final.
    final_at: BTreeSet<usize>,
    /// When the federation has signed it.
    pub(super) signed: Option<Duration>,
}

impl Bitcoin {
    /// Pays to the address of an owner's deposit. The transaction is in no block yet.
    pub(super) fn make_deposit(
        &mut self,
        owner: Owner,
        kind: Option<Kind>,
        destination: ScriptBuf,
        amount: Amount,
        desks: Vec<usize>,
    ) -> Transaction {
        let terms = terms(destination, &owner);
        let transaction = self.bank.deposit(&self.network, &terms, amount);
        let outpoint = OutPoint { txid: transaction.compute_txid(), vout: 0 };
        let made = transaction.clone();
        let deposit =
            Deposit { terms, transaction, outpoint, owner, kind, desks, early: false, lost: false, credited: None };
        self.deposits.push(deposit);
        made
    }

    /// A batch as of its newest version, which is final at a host; returns whether it is at half of `hosts` just so.
    fn fixed(&mut self, index: usize, batch: &Batch, hosts: usize) -> Option<&mut Version> {
        let newest = batch.newest();
        let known = self.batches.get(&batch.number).map_or(0, |known| known.versions.len());
        if batch.versions.len() > known {
            self.batches.insert(batch.number, batch.clone());
        }
        let version = self.versions.entry(newest.txid).or_insert_with(|| Version {
            batch: batch.number,
            transaction: batch.transaction(newest),
            final_at: BTreeSet::new(),
            signed: None,
        });
        version.final_at.insert(index);
        (version.signed.is_none() && version.final_at.len() * 2 > hosts).then_some(version)
    }
}

impl World {
    /// Somebody makes a deposit.
    pub(in crate::sim) fn use_bitcoin(&mut self) {
        if self.purse.is_closed() {
            return;
        }
        let pause = self.rng.between(Duration::from_millis(500), Duration::from_millis(3_000));
        self.after(pause, What::Deposit);
        let owner = Owner::new(self.rng.below(64));
        let kind = (!self.rng.chance(REQUEST_PERCENT)).then(|| DESTINATIONS[self.rng.index(DESTINATIONS.len())]);
        let destination = match kind {
            Some(kind) => owner.script_pubkey(kind),
            None => request_script(&owner),
        };
        let amount = Amount::from_sat((60_000 << self.rng.below(14)) + self.rng.below(60_000));
        let peg = &self.plan.peg;
        let desks: Vec<usize> = self.honest().filter(|host| !peg.without.contains(host)).collect();
        let desks = (0..1 + self.rng.below(2)).filter_map(|_| self.rng.pick(&desks).copied()).collect();
        let _ = self.bitcoin.make_deposit(owner, kind, destination, amount, desks);
        let early = self.rng.chance(EARLY_PERCENT);
        if let Some(deposit) = self.bitcoin.deposits.last_mut() {
            deposit.early = early;
        }
    }

    /// An output that asks to be paid out on Bitcoin, of a coin that is worth `left`.
    pub(in crate::sim) fn ask_for_bitcoin(&mut self, left: Amount) -> Option<TxOut> {
        let params = self.spec.params();
        let (least, most) = (params.peg_out_min, params.peg_out_max.min(left / 2));
        if self.plan.peg.mining.is_none() || most <= least || !self.rng.chance(PAY_OUT_PERCENT) {
            return None;
        }
        // Mostly small ones.
        let range = (most - least).to_sat() >> self.rng.below(12);
        let value = least + Amount::from_sat(self.rng.below(range + 1));
        let payee = Owner::new(self.rng.below(64));
        Some(TxOut { value, script_pubkey: request_script(&payee) })
    }

    /// An honest host has committed a block.
    pub(in crate::sim) fn peg_committed(&mut self, index: usize, connected: &ConnectedBlock) {
        self.audit_commit(index, connected);
        let height = connected.tip().height();
        let hosts = self.honest().count();
        let delay = self.rng.between(Duration::from_millis(100), SIGNING);
        for event in connected.peg_events() {
            if let PegEvent::BatchFixed { batch } = event
                && let Some(version) = self.bitcoin.fixed(index, batch, hosts)
            {
                version.signed = Some(self.now + delay);
            }
        }
        if height <= self.bitcoin.seen {
            return;
        }
        self.bitcoin.seen = height;
        self.audit_block(connected);
        for event in connected.peg_events() {
            match event {
                PegEvent::Credited { outpoint, credit } => {
                    self.stats.credited += 1;
                    let vout = credit.vout;
                    self.credited(connected, outpoint, vout);
                }
                PegEvent::BatchConfirmed { batch, .. } => {
                    self.stats.paid += batch.payees.len() as u64;
                    self.bitcoin.paid.extend(batch.payees.iter().map(|payee| payee.outpoint));
                }
                PegEvent::BatchFixed { .. } | PegEvent::Frozen(_) => {}
            }
        }
        for transaction in connected.block().transactions().iter().skip(1) {
            for (vout, output) in (0..).zip(&transaction.transaction().output) {
                if let Some(Ok(PegScript::Request(_))) = PegScript::of(&output.script_pubkey) {
                    self.bitcoin.requests.insert(OutPoint { txid: transaction.txid(), vout }, output.clone());
                }
            }
        }
    }

    /// A deposit became a coin, which is spent from here on, or a request.
    fn credited(&mut self, connected: &ConnectedBlock, outpoint: &OutPoint, vout: u32) {
        let deposit = self.bitcoin.deposits.iter_mut().find(|deposit| deposit.outpoint == *outpoint);
        let (Some(deposit), Some(transaction)) = (deposit, connected.block().transactions().get(1)) else { return };
        deposit.credited = Some(connected.tip().height());
        let output = usize::try_from(vout).ok().and_then(|vout| transaction.transaction().output.get(vout));
        if let (Some(kind), Some(output)) = (deposit.kind, output) {
            let outpoint = OutPoint { txid: transaction.txid(), vout };
            self.purse.credit(Spendable { outpoint, output: output.clone(), owner: deposit.owner.clone(), kind });
        }
    }
}
