//! What spending the federation's coins weighs on Bitcoin, by every path.

use causeway_consensus::peg::script::{CoinScript, SpendPath};
use causeway_federation::spend::SpendError;
use serde::Serialize;

use super::federation::{Federation, deposit};

#[derive(Debug, Serialize)]
pub(super) struct Row {
    federation: String,
    /// `main` or `deposit`.
    coin: &'static str,
    path: &'static str,
    /// One input and one P2TR output, in whole virtual bytes, as fees are paid.
    transaction_vbytes: u64,
    /// What each further input adds, in virtual bytes: quarters are kept.
    input_vbytes: f64,
}

/// Prints and returns all paths of both coins. Of the subsets it is the one with the deepest leaf.
pub(super) fn measured(federation: &Federation) -> Result<Vec<Row>, SpendError> {
    let mut rows = Vec::new();
    for (coin, script) in [("main", CoinScript::Main), ("deposit", deposit())] {
        let output = federation.scripts.output(federation.chain, &script);
        let depth = |subset: &Vec<u16>| {
            let leaf = output.leaf(&SpendPath::Subset(subset.clone()));
            leaf.map(|leaf| leaf.control_block.merkle_branch.len())
        };
        let deepest = federation.scripts.subsets().map(|(subset, _)| subset).max_by_key(depth).unwrap_or_default();
        let mut paths = vec![
            ("key", SpendPath::Key),
            ("subset", SpendPath::Subset(deepest)),
            ("multi_a", SpendPath::MultiA),
            ("recovery", SpendPath::Recovery),
        ];
        if script != CoinScript::Main {
            paths.push(("refund", SpendPath::Refund));
        }
        for (name, path) in paths {
            let weight = |inputs| federation.spend(&script, inputs, &path)?.signed_weight(&path);
            let (one, two) = (weight(1)?, weight(2)?);
            let added = u32::try_from((two - one).to_wu()).unwrap_or(u32::MAX);
            let row = Row {
                federation: federation.name(),
                coin,
                path: name,
                transaction_vbytes: one.to_vbytes_ceil(),
                input_vbytes: f64::from(added) / 4.0,
            };
            println!(
                "  {:<9} {coin:<8} {name:<9} {:>5} vB, {:>8.2} vB each further input",
                row.federation, row.transaction_vbytes, row.input_vbytes
            );
            rows.push(row);
        }
    }
    Ok(rows)
}
