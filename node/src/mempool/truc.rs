//! BIP-0431: version 3 and others do not mix, at most one parent and one child, both small.

use std::collections::BTreeSet;

use bitcoin::{Transaction, Txid};

use super::check::Subject;
use super::graph::Graph;
use super::policy::{TRUC_CHILD_MAX_VSIZE, TRUC_MAX_VSIZE};
use super::reject::{Named, PolicyReject, TrucViolation};

/// The version of TRUC transactions.
const VERSION: i32 = 3;

/// Whether a transaction is bound by these rules.
fn is_truc(transaction: &Transaction) -> bool {
    transaction.version.0 == VERSION
}

/// A transaction of a package, and what it spends.
pub(super) struct Member<'a> {
    pub(super) subject: &'a Subject,
    pub(super) vsize: u64,
    /// Its parents in the pool.
    pub(super) parents: &'a BTreeSet<Txid>,
    /// Its parents before it in the package, by place.
    pub(super) package_parents: &'a [usize],
}

/// Checks a transaction against its parents in the pool (Core: `SingleTRUCChecks`). Returns the other child of its parent,
/// if the transaction may take its place under the rules of replacement.
pub(super) fn check_single(
    graph: &Graph,
    subject: &Subject,
    vsize: u64,
    parents: &BTreeSet<Txid>,
    conflicts: &BTreeSet<Txid>,
) -> Result<Option<Txid>, PolicyReject> {
    let violation = |violation| Err(PolicyReject::Truc(Box::new(violation)));
    let truc = is_truc(&subject.transaction);
    let tx = subject.named();
    let mut entries = parents.iter().map(|parent| graph.entry(parent));
    if let Some(parent) = entries.find(|parent| is_truc(&parent.transaction) != truc) {
        return violation(versions_differ(truc, tx, parent.named()));
    }
    if !truc {
        return Ok(None);
    }
    if vsize > TRUC_MAX_VSIZE {
        return violation(TrucViolation::TooBig { tx, vsize, max: TRUC_MAX_VSIZE });
    }
    let Some(parent) = parents.first().map(|parent| graph.entry(parent)) else { return Ok(None) };
    if parents.len() > 1 || parent.ancestors.count > 1 {
        return violation(TrucViolation::Ancestors(tx));
    }
    if vsize > TRUC_CHILD_MAX_VSIZE {
        return violation(TrucViolation::ChildTooBig { tx, vsize, max: TRUC_CHILD_MAX_VSIZE });
    }
    // Its one child, which has none of its own: no TRUC transaction has got two ancestors.
    Ok(parent.children.first().copied().filter(|sibling| !conflicts.contains(sibling)))
}

/// Checks the transactions of a package against each other and the pool (Core: `PackageTRUCChecks`). Each has passed
/// [`check_single`].
pub(super) fn check_package(graph: &Graph, members: &[Member<'_>]) -> Result<(), Box<TrucViolation>> {
    members.iter().enumerate().try_for_each(|(place, member)| check_member(graph, members, place, member))
}

fn check_member(
    graph: &Graph,
    members: &[Member<'_>],
    place: usize,
    member: &Member<'_>,
) -> Result<(), Box<TrucViolation>> {
    let tx = member.subject.named();
    let truc = is_truc(&member.subject.transaction);
    let in_package = || member.package_parents.iter().map(|parent| members[*parent].subject);
    if let Some(parent) = in_package().find(|parent| is_truc(&parent.transaction) != truc) {
        return Err(versions_differ(truc, tx, parent.named()).into());
    }
    if !truc {
        return Ok(());
    }
    let in_pool = member.parents.first().map(|parent| graph.entry(parent));
    let ancestors = in_pool.map_or(0, |parent| parent.ancestors.count);
    if member.parents.len() > 1 || ancestors + member.package_parents.len() > 1 {
        return Err(TrucViolation::Ancestors(tx).into());
    }
    let Some(parent) = in_pool.map(|parent| parent.named()).or_else(|| in_package().next().map(Subject::named)) else {
        return Ok(());
    };
    if member.vsize > TRUC_CHILD_MAX_VSIZE {
        return Err(TrucViolation::ChildTooBig { tx, vsize: member.vsize, max: TRUC_CHILD_MAX_VSIZE }.into());
    }
    for (_, other) in members.iter().enumerate().filter(|(other, _)| *other != place) {
        let spends =
            |txid: Txid| other.subject.transaction.input.iter().any(|input| input.previous_output.txid == txid);
        if spends(parent.txid) {
            return Err(TrucViolation::Descendants(parent).into());
        }
        if spends(tx.txid) {
            return Err(TrucViolation::Ancestors(other.subject.named()).into());
        }
    }
    // The other child of a parent in the pool stays: whoever wants its place comes alone.
    match in_pool {
        Some(in_pool) if !in_pool.children.is_empty() => Err(TrucViolation::Descendants(parent).into()),
        _ => Ok(()),
    }
}

fn versions_differ(truc: bool, child: Named, parent: Named) -> TrucViolation {
    match truc {
        true => TrucViolation::SpendsOther { child, parent },
        false => TrucViolation::OtherSpends { child, parent },
    }
}
