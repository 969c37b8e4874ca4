//! The figures.

use std::collections::BTreeMap;
use std::io::Write;

use causeway_tests::sim::{Outcome, Scenario};
use serde::Serialize;

/// The runs of a scenario.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) scenario: &'static str,
    pub(crate) runs: u64,
    pub(crate) heights: u64,
    pub(crate) virtual_seconds: f64,
    pub(crate) crashes: u64,
    pub(crate) crashes_before_commit: u64,
    pub(crate) log_entries_replayed: u64,
    pub(crate) rounds_after_first: u64,
    pub(crate) blocks_fetched: u64,
    pub(crate) votes_held: u64,
    pub(crate) signatures_withheld: u64,
    pub(crate) contradictions_proven: u64,
    pub(crate) bans: u64,
    pub(crate) transactions: u64,
    pub(crate) messages: u64,
    pub(crate) bitcoin_blocks: u64,
    pub(crate) bitcoin_reorganisations: u64,
    pub(crate) held_by_bitcoin: u64,
    pub(crate) deposits_credited: u64,
    pub(crate) requests_paid: u64,
    /// The longest time to heal, as a part of its bound.
    pub(crate) worst_healing: f64,
    /// The same of the time until the peg has nothing left to do.
    pub(crate) worst_settling: f64,
    pub(crate) violations: u64,
    /// Runs in which a check failed, by check.
    pub(crate) failed_checks: BTreeMap<&'static str, u64>,
    /// Hash over the traces of all runs.
    pub(crate) trace: String,
    pub(crate) seconds: f64,
    #[serde(skip)]
    hash: u64,
}

impl Row {
    pub(crate) fn new(scenario: Scenario) -> Self {
        Self {
            scenario: scenario.name(),
            runs: 0,
            heights: 0,
            virtual_seconds: 0.0,
            crashes: 0,
            crashes_before_commit: 0,
            log_entries_replayed: 0,
            rounds_after_first: 0,
            blocks_fetched: 0,
            votes_held: 0,
            signatures_withheld: 0,
            contradictions_proven: 0,
            bans: 0,
            transactions: 0,
            messages: 0,
            bitcoin_blocks: 0,
            bitcoin_reorganisations: 0,
            held_by_bitcoin: 0,
            deposits_credited: 0,
            requests_paid: 0,
            worst_healing: 0.0,
            worst_settling: 0.0,
            violations: 0,
            failed_checks: BTreeMap::new(),
            trace: String::new(),
            seconds: 0.0,
            hash: 0,
        }
    }

    pub(crate) fn add(&mut self, outcome: &Outcome) {
        let stats = &outcome.stats;
        self.runs += 1;
        self.heights += stats.heights;
        self.virtual_seconds += stats.time.as_secs_f64();
        self.crashes += stats.crashes;
        self.crashes_before_commit += stats.crashes_before_commit;
        self.log_entries_replayed += stats.replayed;
        self.rounds_after_first += stats.later_rounds;
        self.blocks_fetched += stats.synced;
        self.votes_held += stats.held;
        self.signatures_withheld += stats.withheld;
        self.contradictions_proven += stats.evidence;
        self.bans += stats.bans;
        self.transactions += stats.transactions;
        self.messages += stats.messages;
        self.bitcoin_blocks += stats.bitcoin_blocks;
        self.bitcoin_reorganisations += stats.reorganisations;
        self.held_by_bitcoin += stats.held_by_bitcoin;
        self.deposits_credited += stats.credited;
        self.requests_paid += stats.paid;
        let healing = stats.healed_in.as_secs_f64() / stats.healing_bound.as_secs_f64();
        self.worst_healing = self.worst_healing.max(healing);
        self.worst_settling = self.worst_settling.max(stats.settling);
        self.violations += outcome.violations.len() as u64;
        let mut checks: Vec<_> = outcome.violations.iter().map(|violation| violation.check.name()).collect();
        checks.dedup();
        checks.into_iter().for_each(|check| *self.failed_checks.entry(check).or_default() += 1);
        self.hash = (self.hash ^ outcome.trace).wrapping_mul(0x0100_0000_01b3);
        self.trace = format!("{:016x}", self.hash);
    }
}

/// Says on standard error that a scenario is done.
pub(crate) fn progress(row: &Row) {
    let line =
        format!("==> {}: {} runs, {:.1} s, {} failed checks", row.scenario, row.runs, row.seconds, row.violations);
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The table of all.
pub(crate) fn print(rows: &[Row]) {
    println!(
        "{:<20} {:>4} {:>7} {:>9} {:>7} {:>8} {:>8} {:>8} {:>6} {:>8} {:>6} {:>5} {:>7} {:>8} {:>5} {:>6} {:>7} {:>7} {:>5} {:>7} {:>8} {:>6} {:>7}",
        "scenario",
        "runs",
        "heights",
        "virtual s",
        "crashes",
        "replayed",
        "rounds>0",
        "fetched",
        "held",
        "withheld",
        "proofs",
        "bans",
        "txs",
        "messages",
        "btc",
        "reorgs",
        "btcheld",
        "credits",
        "paid",
        "healing",
        "settling",
        "failed",
        "seconds"
    );
    for row in rows {
        println!(
            "{:<20} {:>4} {:>7} {:>9.0} {:>7} {:>8} {:>8} {:>8} {:>6} {:>8} {:>6} {:>5} {:>7} {:>8} {:>5} {:>6} {:>7} {:>7} {:>5} {:>6.0}% {:>7.0}% {:>6} {:>7.1}",
            row.scenario,
            row.runs,
            row.heights,
            row.virtual_seconds,
            row.crashes,
            row.log_entries_replayed,
            row.rounds_after_first,
            row.blocks_fetched,
            row.votes_held,
            row.signatures_withheld,
            row.contradictions_proven,
            row.bans,
            row.transactions,
            row.messages,
            row.bitcoin_blocks,
            row.bitcoin_reorganisations,
            row.held_by_bitcoin,
            row.deposits_credited,
            row.requests_paid,
            row.worst_healing * 100.0,
            row.worst_settling * 100.0,
            row.violations,
            row.seconds
        );
    }
    let sum = |of: fn(&Row) -> u64| rows.iter().map(of).sum::<u64>();
    let seconds: f64 = rows.iter().map(|row| row.seconds).sum();
    let (runs, heights, crashes) = (sum(|row| row.runs), sum(|row| row.heights), sum(|row| row.crashes));
    let failed = sum(|row| row.violations);
    println!("{runs} runs, {heights} heights, {crashes} crashes, {failed} failed checks, {seconds:.0} s");
}
