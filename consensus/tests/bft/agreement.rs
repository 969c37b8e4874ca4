//! Nodes that lose messages, get them twice and late, and in any order.

use crate::cluster::{Cluster, FIRST, Faults};

const POWERS: [u64; 4] = [4, 3, 2, 3];

#[test]
fn thirty_heights_on_a_good_network() {
    let mut cluster = Cluster::new(1, &POWERS, Faults::default());
    cluster.run(30);
    let seen = &cluster.seen;
    assert!(seen.decided.len() >= 30);
    assert!(seen.decided.keys().zip(FIRST.to_u32()..).all(|(height, wanted)| height.to_u32() == wanted));
    assert_eq!(seen.later_rounds, 0, "nothing went wrong, so round 0 always decides");
    assert_eq!((seen.withheld, seen.evidence.len(), seen.conflicts.len()), (0, 0, 0));
}

#[test]
fn thirty_heights_with_loss_and_duplicates() {
    let mut later_rounds = 0;
    for seed in 0..8 {
        let faults = Faults { loss_percent: 15, duplicate_percent: 20, ..Faults::default() };
        let mut cluster = Cluster::new(seed, &POWERS, faults);
        cluster.run(30);
        let seen = &cluster.seen;
        assert_eq!((seen.withheld, seen.evidence.len(), seen.conflicts.len()), (0, 0, 0));
        assert_eq!(seen.elsewhere, 0);
        later_rounds += seen.later_rounds;
    }
    assert!(later_rounds > 0, "the network was too good to test anything");
}

#[test]
fn one_validator_is_enough_for_a_chain() {
    let mut cluster = Cluster::new(1, &[1], Faults::default());
    cluster.run(10);
    assert!(cluster.seen.synced > 0, "the node without a key follows");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let faults = Faults { loss_percent: 10, duplicate_percent: 10, crash_one_in: Some(300), ..Faults::default() };
        let mut cluster = Cluster::new(seed, &POWERS, faults);
        cluster.run(10);
        cluster.seen.trace
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}
