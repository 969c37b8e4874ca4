//! Where a transaction would stand: what it replaces, what it hangs on, and what it has to pay for that.
//!
//! Full replacement by fee: every transaction may be replaced, whatever its sequence numbers say. The rules are Core's,
//! with two differences. Core 31.99 asks that a replacement improve the feerate diagram of the clusters it touches. Here,
//! as in Core up to 30, its feerate must be above that of each transaction it conflicts with; and if it brings in
//! unconfirmed parents that none of those had (which Core up to 30 forbade and 31.99 permits), so must its feerate
//! together with all its unconfirmed ancestors. And the limit of 100 counts evicted transactions, as in Core up to 30,
//! where 31.99 counts clusters of up to 64.

use std::collections::BTreeSet;

use bitcoin::{Amount, Transaction, Txid};
use causeway_chainspec::SatPerKvb;

use super::entry::Family;
use super::feerate::{FeeFraction, fee_at};
use super::graph::Graph;
use super::policy::{Limits, MAX_REPLACED, Policy, TRUC_CHILD_MAX_VSIZE, TRUC_MAX_VSIZE};
use super::reject::{InsufficientFee, Invalid, PolicyReject, Reject, TooLongChain, TrucViolation};

/// The version of TRUC transactions (BIP-0431).
const TRUC_VERSION: i32 = 3;

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

/// What a transaction has to pay to enter.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    pool_min: SatPerKvb,
    min_relay: SatPerKvb,
    replacement: Option<Replacement>,
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
    /// Checks a fee against the terms.
    pub(super) fn check(&self, txid: Txid, fee: Amount, vsize: u64) -> Result<(), PolicyReject> {
        let need = fee_at(self.pool_min, vsize);
        if fee < need {
            return Err(PolicyReject::MempoolMinFee { fee, need });
        }
        let need = fee_at(self.min_relay, vsize);
        if fee < need {
            return Err(PolicyReject::MinRelayFee { fee, need });
        }
        let Some(replacement) = &self.replacement else { return Ok(()) };
        replacement.check(fee, vsize).map_err(|reason| PolicyReject::InsufficientFee {
            txid,
            sibling: replacement.sibling,
            reason,
        })
    }
}

impl Replacement {
    fn check(&self, fee: Amount, vsize: u64) -> Result<(), InsufficientFee> {
        let additional = fee.checked_sub(self.fees).ok_or(InsufficientFee::Total { fee, replaced: self.fees })?;
        let need = fee_at(self.incremental, vsize);
        if additional < need {
            return Err(InsufficientFee::Relay { additional, need });
        }
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

/// Returns where a transaction of `vsize` virtual bytes would stand. A lower bound of them does for a first look.
pub(super) fn place(
    graph: &Graph,
    policy: &Policy,
    pool_min: SatPerKvb,
    transaction: &Transaction,
    txid: Txid,
    vsize: u64,
) -> Result<Place, Reject> {
    let outpoints = || transaction.input.iter().map(|input| input.previous_output);
    let parents: BTreeSet<Txid> =
        outpoints().map(|outpoint| outpoint.txid).filter(|txid| graph.get(txid).is_some()).collect();
    let mut conflicts: BTreeSet<Txid> = outpoints().filter_map(|outpoint| graph.spender(&outpoint)).collect();
    let sibling = check_truc(graph, transaction, txid, vsize, &parents, &conflicts)?;
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
    let terms = Terms { pool_min, min_relay: policy.min_relay, replacement };
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

/// BIP-0431 (Core: `SingleTRUCChecks`): version 3 and others do not mix, at most one parent and one child, both small.
/// Returns the other child of the parent, if the transaction may take its place under the rules of replacement.
fn check_truc(
    graph: &Graph,
    transaction: &Transaction,
    txid: Txid,
    vsize: u64,
    parents: &BTreeSet<Txid>,
    conflicts: &BTreeSet<Txid>,
) -> Result<Option<Txid>, PolicyReject> {
    let is_truc = |transaction: &Transaction| transaction.version.0 == TRUC_VERSION;
    let truc = is_truc(transaction);
    if let Some(parent) = parents.iter().find(|parent| is_truc(&graph.entry(parent).transaction) != truc) {
        return Err(PolicyReject::Truc(match truc {
            true => TrucViolation::SpendsOther { txid, parent: *parent },
            false => TrucViolation::OtherSpends { txid, parent: *parent },
        }));
    }
    if !truc {
        return Ok(None);
    }
    let max = if parents.is_empty() { TRUC_MAX_VSIZE } else { TRUC_CHILD_MAX_VSIZE };
    if vsize > max {
        return Err(PolicyReject::Truc(TrucViolation::TooBig { txid, vsize, max }));
    }
    let Some(parent) = parents.first().map(|parent| graph.entry(parent)) else { return Ok(None) };
    if parents.len() > 1 || parent.ancestors.count > 1 {
        return Err(PolicyReject::Truc(TrucViolation::Ancestors { txid }));
    }
    // Its one child, which has none of its own: no TRUC transaction has got two ancestors.
    Ok(parent.children.first().copied().filter(|sibling| !conflicts.contains(sibling)))
}
