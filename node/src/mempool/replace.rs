//! Where a transaction would stand: what it replaces, what it hangs on, and what it has to pay for that.
//!
//! Full replacement by fee: every transaction may be replaced, whatever its sequence numbers say. The rules are Core's,
//! with two differences. Core 31.99 asks that a replacement improve the feerate diagram of the clusters it touches. Here,
//! as in Core up to 30, its feerate must be above that of each transaction it conflicts with; and if it brings in
//! unconfirmed parents that none of those had (which Core up to 30 forbade and 31.99 permits), so must its feerate
//! together with all its unconfirmed ancestors. And the limit of 100 counts evicted transactions, as in Core up to 30,
//! where 31.99 counts clusters of up to 64.

use std::collections::BTreeSet;

use bitcoin::{Amount, OutPoint, Transaction, Txid};
use causeway_chainspec::SatPerKvb;

use super::check::Subject;
use super::entry::{Entry, Family};
use super::feerate::{FeeFraction, fee_at};
use super::graph::Graph;
use super::policy::{Limits, MAX_REPLACED, Policy};
use super::reject::{InsufficientFee, Invalid, Named, PolicyReject, Reject, TooLongChain};
use super::truc;

/// Where a transaction would stand in the pool as it is.
#[derive(Debug)]
pub(super) struct Place {
    /// The transactions of the pool whose outputs it spends.
    pub(super) parents: BTreeSet<Txid>,
    /// What it would evict, descendants included.
    pub(super) replaced: BTreeSet<Txid>,
    /// What it has to pay.
    pub(super) terms: Terms,
}

/// Whom a transaction would meet in the pool.
#[derive(Debug)]
pub(super) struct Standing {
    /// The transactions whose outputs it spends.
    pub(super) parents: BTreeSet<Txid>,
    /// The transactions that spend what it spends.
    pub(super) conflicts: BTreeSet<Txid>,
}

impl Standing {
    pub(super) fn of(graph: &Graph, transaction: &Transaction) -> Self {
        let outpoints = || transaction.input.iter().map(|input| input.previous_output);
        Self {
            parents: outpoints().map(|outpoint| outpoint.txid).filter(|txid| graph.get(txid).is_some()).collect(),
            conflicts: outpoints().filter_map(|outpoint| graph.spender(&outpoint)).collect(),
        }
    }
}

/// What a transaction has to pay to enter, and to spend.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    least: Least,
    replacement: Option<Replacement>,
    /// What its sender permits at most.
    max_feerate: Option<SatPerKvb>,
    leaves_dust: bool,
}

/// The least feerates.
#[derive(Debug, Clone)]
pub(super) struct Least {
    /// What the full pool asks for at the moment.
    pub(super) pool: SatPerKvb,
    /// What this node relays.
    pub(super) relay: SatPerKvb,
}

impl Least {
    pub(super) fn check(&self, fee: Amount, vsize: u64) -> Result<(), PolicyReject> {
        let need = fee_at(self.pool, vsize);
        if fee < need {
            return Err(PolicyReject::MempoolMinFee { fee, need });
        }
        let need = fee_at(self.relay, vsize);
        if fee < need {
            return Err(PolicyReject::MinRelayFee { fee, need });
        }
        Ok(())
    }
}

#[derive(Debug, Clone)]
struct Replacement {
    /// What it evicts pays, together.
    fees: Amount,
    /// The best feerate among what it conflicts with directly.
    best: FeeFraction,
    incremental: SatPerKvb,
    /// Its unconfirmed ancestors, if it brings new ones in.
    new_ancestors: Option<Family>,
    sibling: bool,
}

impl Terms {
    /// The terms of a transaction whose fee counts with others': only the sender's.
    pub(super) fn of_member(subject: &Subject) -> Self {
        let least = Least { pool: SatPerKvb(0), relay: SatPerKvb(0) };
        Self { least, replacement: None, max_feerate: subject.max_feerate, leaves_dust: false }
    }

    /// Checks a fee against the terms.
    pub(super) fn check(&self, name: Named, fee: Amount, vsize: u64) -> Result<(), PolicyReject> {
        self.least.check(fee, vsize)?;
        if let Some(replacement) = &self.replacement {
            let sibling = replacement.sibling;
            let refused = |reason| PolicyReject::InsufficientFee { txid: name.txid, sibling, reason };
            replacement.check(fee, vsize).map_err(refused)?;
        }
        let max = self.max_feerate.map(|SatPerKvb(max)| FeeFraction { fee: Amount::from_sat(max), vsize: 1_000 });
        if max.is_some_and(|max| FeeFraction { fee, vsize } > max) {
            return Err(PolicyReject::MaxFeerate);
        }
        if self.leaves_dust { Err(PolicyReject::LeavesDust(name)) } else { Ok(()) }
    }
}

impl Replacement {
    fn check(&self, fee: Amount, vsize: u64) -> Result<(), InsufficientFee> {
        pays_for(self.fees, self.incremental, fee, vsize)?;
        let own = FeeFraction { fee, vsize };
        let with_ancestors = self
            .new_ancestors
            .as_ref()
            .map(|ancestors| FeeFraction { fee: fee + ancestors.fee, vsize: vsize + ancestors.vsize });
        let new = with_ancestors.map_or(own, |all| own.min(all));
        if new <= self.best {
            return Err(InsufficientFee::Feerate { new: new.rate(), old: self.best.rate() });
        }
        Ok(())
    }
}

/// Checks that a fee is that of what is replaced, and more for its own relay (BIP-0125 rules 3 and 4; Core: `PaysForRBF`).
pub(super) fn pays_for(
    replaced: Amount,
    incremental: SatPerKvb,
    fee: Amount,
    vsize: u64,
) -> Result<(), InsufficientFee> {
    let additional = fee.checked_sub(replaced).ok_or(InsufficientFee::Total { fee, replaced })?;
    let need = fee_at(incremental, vsize);
    if additional < need { Err(InsufficientFee::Relay { additional, need }) } else { Ok(()) }
}

/// Whether a transaction spends an output of the parent and leaves its dust.
pub(super) fn leaves_dust(transaction: &Transaction, parent: &Entry) -> bool {
    let spends = |vout: u32| {
        let is_it = |outpoint: OutPoint| outpoint.txid == parent.txid && outpoint.vout == vout;
        transaction.input.iter().any(|input| is_it(input.previous_output))
    };
    parent.dust.is_some_and(|vout| !spends(vout))
}

/// Returns where a transaction of `vsize` virtual bytes would stand. A lower bound of them does for a first look.
pub(super) fn place(
    graph: &Graph,
    policy: &Policy,
    pool_min: SatPerKvb,
    subject: &Subject,
    vsize: u64,
) -> Result<Place, Reject> {
    let (transaction, txid) = (&subject.transaction, subject.txid);
    let Standing { parents, mut conflicts } = Standing::of(graph, transaction);
    let sibling = truc::check_single(graph, subject, vsize, &parents, &conflicts)?;
    conflicts.extend(sibling);

    let replaced = graph.descendants(&conflicts, MAX_REPLACED).ok_or(PolicyReject::TooManyReplaced {
        txid,
        count: MAX_REPLACED + 1,
        max: MAX_REPLACED,
    })?;
    let limit = policy.limits.ancestors;
    let ancestors = graph.ancestors(&parents, limit.saturating_sub(1));
    let ancestors = ancestors.ok_or(too_long(TooLongChain::Ancestors { limit }))?;
    if let Some(conflict) = ancestors.intersection(&conflicts).next() {
        return Err(Invalid::SpendsConflict { txid, conflict: *conflict }.into());
    }
    let mut family = Family::NONE;
    ancestors.iter().for_each(|ancestor| family.add(graph.entry(ancestor)));
    check_limits(graph, &policy.limits, vsize, &ancestors, &family, &replaced)?;

    let best = conflicts.iter().map(|conflict| graph.entry(conflict).feerate()).max();
    let replacement = best.map(|best| {
        let old_parents = |parent: &Txid| conflicts.iter().any(|conflict| spends_from(graph, conflict, parent));
        Replacement {
            fees: replaced.iter().map(|txid| graph.entry(txid).fee).sum(),
            best,
            incremental: policy.incremental_relay,
            new_ancestors: (!parents.iter().all(old_parents)).then_some(family),
            sibling: sibling.is_some(),
        }
    });
    let terms = Terms {
        least: Least { pool: pool_min, relay: policy.min_relay },
        replacement,
        max_feerate: subject.max_feerate,
        leaves_dust: parents.iter().any(|parent| leaves_dust(transaction, graph.entry(parent))),
    };
    Ok(Place { parents, replaced, terms })
}

fn spends_from(graph: &Graph, txid: &Txid, parent: &Txid) -> bool {
    graph.entry(txid).parents.contains(parent)
}

fn too_long(reason: TooLongChain) -> PolicyReject {
    PolicyReject::TooLongChain(reason)
}

/// Checks the limits of the graph as it would be after the replacement. Core up to 30 counted with what is replaced still
/// there, and made exceptions.
fn check_limits(
    graph: &Graph,
    limits: &Limits,
    vsize: u64,
    ancestors: &BTreeSet<Txid>,
    family: &Family,
    replaced: &BTreeSet<Txid>,
) -> Result<(), PolicyReject> {
    if family.vsize + vsize > limits.ancestors_vsize {
        return Err(too_long(TooLongChain::AncestorsSize { limit: limits.ancestors_vsize }));
    }
    for txid in ancestors {
        let ancestor = graph.entry(txid);
        let mut after = ancestor.descendants;
        if !replaced.is_empty() {
            let descendants = graph.descendants(&ancestor.children, usize::MAX).expect("no limit");
            descendants.intersection(replaced).for_each(|gone| after.remove(graph.entry(gone)));
        }
        if after.count + 1 > limits.descendants {
            return Err(too_long(TooLongChain::Descendants { txid: *txid, limit: limits.descendants }));
        }
        if after.vsize + vsize > limits.descendants_vsize {
            return Err(too_long(TooLongChain::DescendantsSize { txid: *txid, limit: limits.descendants_vsize }));
        }
    }
    Ok(())
}
