//! Whole nodes in virtual time: a short run of every scenario. `scripts/simulate` runs more seeds.

use causeway_tests::sim::byzantine::Strategy;
use causeway_tests::sim::{Check, Outcome, Plan, SCENARIOS, Scenario, World, run};

const HEIGHTS: u32 = 10;

fn assert_kept(outcome: &Outcome) {
    let failed: Vec<String> = outcome
        .violations
        .iter()
        .map(|violation| format!("{} at {:?}: {}", violation.check.name(), violation.at, violation.what))
        .collect();
    let (scenario, seed) = (outcome.plan.scenario.name(), outcome.plan.seed);
    assert!(failed.is_empty(), "scenario {scenario}, seed {seed}:\n{}", failed.join("\n"));
}

#[test]
fn every_scenario_keeps_every_check() {
    for scenario in SCENARIOS {
        for seed in 1..=2 {
            assert_kept(&run(scenario, seed, Some(HEIGHTS)));
        }
    }
}

#[test]
fn trouble_is_trouble() {
    let sum = |scenario, of: fn(&Outcome) -> u64| -> u64 {
        (1..=3).map(|seed| of(&run(scenario, seed, Some(HEIGHTS)))).sum()
    };
    assert!(sum(Scenario::Crashes, |outcome| outcome.stats.crashes) > 10);
    assert!(sum(Scenario::Crashes, |outcome| outcome.stats.replayed) > 50);
    // A narrow window: some seed hits it.
    let before_commit = |seed| run(Scenario::Crashes, seed, Some(HEIGHTS)).stats.crashes_before_commit > 0;
    assert!((1..=40).any(before_commit));
    assert!(sum(Scenario::Partitions, |outcome| outcome.stats.later_rounds) > 5);
    assert!(sum(Scenario::LateJoiners, |outcome| outcome.stats.synced) > 100);
    assert!(sum(Scenario::FutureBlocks, |outcome| outcome.stats.held) > 5);
    assert!(sum(Scenario::Equivocation, |outcome| outcome.stats.evidence) > 5);
    assert!(sum(Scenario::LyingSync, |outcome| outcome.stats.bans) > 0);
    assert!(sum(Scenario::Peg, |outcome| outcome.stats.credited) > 20);
    assert!(sum(Scenario::Peg, |outcome| outcome.stats.paid) > 10);
    assert!(sum(Scenario::LateHeaders, |outcome| outcome.stats.held_by_bitcoin) > 3);
    assert!(sum(Scenario::DeadBitcoin, |outcome| outcome.stats.held_by_bitcoin) > 10);
    assert!(sum(Scenario::BitcoinReorg, |outcome| outcome.stats.reorganisations) > 3);
    assert!(sum(Scenario::FalseEvidence, |outcome| outcome.stats.held_by_bitcoin) > 100);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for scenario in [Scenario::Chaos, Scenario::Crashes, Scenario::LateJoinersAmongLiars] {
        let trace = |seed| run(scenario, seed, Some(HEIGHTS)).trace;
        assert_eq!(trace(7), trace(7));
        assert_ne!(trace(7), trace(8));
    }
}

/// The checks can fail: half of the power is no third.
#[test]
fn too_many_liars_are_noticed() {
    let noticed = (1..=200).any(|seed| {
        let mut plan = Plan::new(Scenario::Equivocation, seed, Some(HEIGHTS));
        plan.powers = vec![1; 4];
        plan.skew_ms = vec![0; 5];
        plan.byzantine = vec![(0, vec![Strategy::Equivocate]), (1, vec![Strategy::Equivocate])];
        let outcome = World::new(plan).run();
        outcome.violations.iter().any(|violation| violation.check == Check::Agreement)
    });
    assert!(noticed, "two of four lied, and nobody forked");
}
