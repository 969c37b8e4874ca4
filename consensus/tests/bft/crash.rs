//! Nodes that end at any point of what they do and come back with whatever their disk has.

use crate::cluster::{Cluster, Faults};

const POWERS: [u64; 4] = [4, 3, 2, 3];

#[test]
fn a_crash_at_any_append_leads_to_no_second_signature() {
    // How many points there are: node 0 holds a third of the power, so that nothing is decided without it.
    let mut whole = Cluster::new(3, &POWERS, Faults { crash_at: Some((0, u64::MAX)), ..Faults::default() });
    whole.run(3);
    let points = whole.points(0);
    assert!(points > 100, "{points}");
    let (mut replayed, mut withheld) = (0, 0);
    for point in 0..points {
        let faults = Faults { crash_at: Some((0, point)), ..Faults::default() };
        let mut cluster = Cluster::new(3, &POWERS, faults);
        cluster.run(4);
        let seen = &cluster.seen;
        assert_eq!(seen.crashes, 1, "point {point}");
        assert!(seen.conflicts.is_empty(), "point {point}: {:?}", seen.conflicts);
        assert!(seen.evidence.is_empty(), "point {point}");
        assert_eq!(seen.elsewhere, 0, "point {point}: a node does not know its own signature");
        assert_eq!(seen.lost_logs, 0, "point {point}: the log is behind its mark");
        replayed += seen.replayed;
        withheld += seen.withheld;
    }
    assert!(replayed > 0);
    // A proposer that crashed after its block was logged but before its proposal was, assembles another block.
    assert!(withheld < points, "{withheld} of {points}");
}

#[test]
fn thirty_heights_with_crashes_everywhere() {
    for seed in 0..6 {
        let faults = Faults { loss_percent: 5, duplicate_percent: 10, crash_one_in: Some(150), ..Faults::default() };
        let mut cluster = Cluster::new(seed, &POWERS, faults);
        cluster.run(30);
        let seen = &cluster.seen;
        assert!(seen.crashes > 10 && seen.replayed > 100, "{} crashes, {} replayed", seen.crashes, seen.replayed);
        assert!(seen.conflicts.is_empty(), "seed {seed}: {:?}", seen.conflicts);
        assert!(seen.evidence.is_empty(), "seed {seed}");
        assert_eq!(seen.elsewhere, 0, "seed {seed}: a node does not know its own signature");
        assert_eq!(seen.lost_logs, 0, "seed {seed}: the log is behind its mark");
    }
}

#[test]
fn a_lost_log_makes_silent_and_not_two_faced() {
    let run = |seed, unguarded| {
        // Only one of them, so that the others' locks are enough.
        let faults = Faults {
            loss_percent: 5,
            crash_one_in: None,
            crash_at: Some((3, 40 + 13 * seed)),
            lose_log: true,
            unguarded,
            ..Faults::default()
        };
        let mut cluster = Cluster::new(seed, &POWERS, faults);
        cluster.run(6);
        (cluster.seen.conflicts.len(), cluster.seen.withheld, cluster.seen.lost_logs)
    };
    let guarded: Vec<_> = (0..30).map(|seed| run(seed, false)).collect();
    assert!(guarded.iter().all(|(conflicts, ..)| *conflicts == 0), "{guarded:?}");
    assert!(guarded.iter().any(|(_, withheld, _)| *withheld > 0), "the mark never had to refuse");
    assert!(guarded.iter().all(|(_, withheld, lost)| *withheld == 0 || *lost > 0), "the mark does not miss its log");
    // The test of the test: without the mark, some run shows what it prevents.
    let unguarded: Vec<_> = (0..30).map(|seed| run(seed, true)).collect();
    assert!(unguarded.iter().any(|(conflicts, ..)| *conflicts > 0), "{unguarded:?}");
}
