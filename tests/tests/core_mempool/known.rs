//! Where this node means to differ from Bitcoin Core 31.99: see `mempool::policy` and `mempool::replace`.

use std::borrow::Cow;

/// A difference that is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Known {
    /// A replacement must have a higher feerate than each transaction that it conflicts with; Core compares feerate
    /// diagrams.
    ReplacementFeerate,
    /// What a package replaces has at most one relative; Core takes on whole clusters.
    PackageCluster,
    /// The operations of spent bare scripts, and what legacy ones hash, belong to the sigop cost here, and so to the virtual
    /// size of a transaction that is small for them.
    SigopCost,
    /// A transaction is wrong in two ways, and the other one is found first.
    Order,
}

/// What this node finds before it knows the coins.
const FOUND_FIRST: [&str; 2] = ["TRUC-violation", "bad-txns-spends-conflicting-tx"];

/// Core's words for a reason of ours, where they differ.
pub(crate) fn as_core(reason: &str) -> Cow<'_, str> {
    match reason {
        "bad-txns-inputs-missingorspent" => Cow::Borrowed("missing-inputs"),
        // The interpreter's words are known to us for the common forms only.
        reason if reason.starts_with("mempool-script-verify-flag-failed") => {
            Cow::Borrowed("mempool-script-verify-flag-failed")
        }
        reason => Cow::Borrowed(reason),
    }
}

/// Why two refusals, or a refusal and an acceptance (none), may differ.
pub(crate) fn why(ours: Option<&str>, core: Option<&str>) -> Option<Known> {
    let feerate = |reason: &str| reason.contains("; new feerate ");
    match (ours, core) {
        (Some(ours), None | Some("replacement-failed")) if feerate(ours) => Some(Known::ReplacementFeerate),
        (Some(ours), core) if ours.contains("in a cluster of more than 2") => {
            core.is_none_or(|core| core.contains("does not improve feerate diagram")).then_some(Known::PackageCluster)
        }
        (None, Some(core)) if core.contains("does not improve feerate diagram") || core == "replacement-failed" => {
            Some(Known::ReplacementFeerate)
        }
        // What needs no coins is looked at before what does, fees among it.
        (Some(ours), Some(_)) if FOUND_FIRST.iter().any(|reason| ours.starts_with(reason)) => Some(Known::Order),
        _ => None,
    }
}
