//! A validator that tells each peer something else.

use std::collections::BTreeSet;

use crate::cluster::{Cluster, Faults, address};

#[test]
fn it_is_proven_guilty_and_forks_nothing() {
    let (mut votes, mut proposals) = (0, 0);
    for seed in 0..6 {
        let faults = Faults { loss_percent: 5, equivocator: Some(3), ..Faults::default() };
        let mut cluster = Cluster::new(seed, &[4, 3, 2, 3], faults);
        cluster.run(30);
        let seen = &cluster.seen;
        let blamed: BTreeSet<_> = seen.evidence.iter().map(|evidence| evidence.validator()).collect();
        assert!(blamed.is_subset(&BTreeSet::from([address(3)])), "seed {seed}: the innocent are blamed");
        assert!(seen.conflicts.is_empty(), "seed {seed}");
        let of_votes = seen.evidence.iter().filter(|evidence| evidence.to_string().contains("vote")).count();
        votes += of_votes;
        proposals += seen.evidence.len() - of_votes;
    }
    assert!(votes > 20 && proposals > 5, "{votes} of votes, {proposals} of proposals");
}
