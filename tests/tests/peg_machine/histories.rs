//! Histories in which nothing happens that should not.

use causeway_consensus::{ChainView, LtHash};

use crate::world::{Tally, World};
use crate::{for_seeds, full};

/// A number of a tally.
type Part = fn(&Tally) -> u32;

#[test]
fn random_histories_keep_every_promise() {
    let actions = if full() { 4_000 } else { 1_500 };
    let tallies = std::cell::RefCell::new(Vec::new());
    for_seeds(6, 40, |seed| {
        let mut world = World::new(seed);
        for action in 1..=actions {
            world.act();
            if action % 50 == 0 {
                world.check_deeply();
                let sum = world.chain.coins_mut().iter().fold(LtHash::empty(), |mut sum, (outpoint, coin)| {
                    sum.add(outpoint, coin);
                    sum
                });
                assert_eq!(*world.chain.tip().coins(), sum);
            }
        }
        assert_eq!(world.peg().frozen(), None);
        world.settle();
        eprintln!("{:?}", world.tally);
        tallies.borrow_mut().push(world.tally);
    });
    // Of each thing, something happened.
    let sum = |part: Part| tallies.borrow().iter().map(part).sum::<u32>();
    let parts: [(&str, Part); 11] = [
        ("credited", |tally| tally.credited),
        ("reorganisations", |tally| tally.reorganisations),
        ("payouts", |tally| tally.payouts),
        ("refreshes", |tally| tally.refreshes),
        ("consolidations", |tally| tally.consolidations),
        ("replacements", |tally| tally.replacements),
        ("older versions", |tally| tally.older_versions),
        ("without change", |tally| tally.without_change),
        ("confirmed", |tally| tally.confirmed),
        ("requests", |tally| tally.requests),
        ("deficits", |tally| tally.deficits),
    ];
    for (name, part) in parts {
        assert!(sum(part) > 0 || std::env::var_os("CAUSEWAY_TEST_SEED").is_some(), "no {name}");
    }
}
