//! Who proposes: a function of the validator set, the height and the round alone, so that every node, a restarted one
//! too, knows it without any state.
//!
//! The powers lie end to end on a circle. Height `h` points at `h / phi` of a turn (phi is the golden ratio), each round
//! moves the point on by `sqrt(2) - 1` of a turn, and whoever's arc it hits proposes. Points `n / phi` spread as evenly
//! as points on a circle can: over any stretch of heights a validator gets its share of the power, give or take a few
//! blocks, and one of less than 38.1 % never gets two heights in a row, as two successive points are 0.3819 apart (of less
//! than 41.4 %, never two rounds in a row). Where two windows meet, chance decides.
//!
//! Every 256 heights, a window, the arcs are laid out in another order, drawn from a hash of the chain's identity. Otherwise a key
//! could be chosen so that its arc always follows a friend's, and two that are adjacent in time can do more than one
//! (push the time of blocks ahead). The order is public long before, but nobody chooses it.
//!
//! Rounds step by a length of their own for the same reason: if round 1 of a height had the proposer of the next height,
//! as in a rotation by `height + round`, a proposer that stays silent would hand its successor two heights in a row.
//!
//! Not chosen: a weighted draw by hash, in which a validator waits long by chance and gets neighbouring heights as often
//! as chance has it; and Tendermint's priorities, which are state that a light client does not have.

use bitcoin::hashes::{Hash, HashEngine, sha256};
use causeway_chainspec::{ChainId, Height, tagged_hash};

use super::validator_set::{Member, ValidatorSet};

const TAG: &str = "causeway/proposer/v1";

/// Heights of one order of the arcs.
const WINDOW: u32 = 256;

/// 2^64 / phi, odd: the fractional part of `n / phi` is this times `n`, modulo 2^64.
const HEIGHT_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// 2^64 x (sqrt(2) - 1), rounded.
const ROUND_STEP: u64 = 0x6a09_e667_f3bc_c909;

/// Returns the proposer of a height and round.
pub(super) fn select(set: &ValidatorSet, chain: ChainId, height: Height, round: u32) -> &Member {
    let members = set.members();
    let turn =
        u64::from(height.to_u32()).wrapping_mul(HEIGHT_STEP).wrapping_add(u64::from(round).wrapping_mul(ROUND_STEP));
    // Below the total power, which is at most 2^60: the product fits 124 bits.
    let mut point = scale(turn, set.total_power());
    let order = order(chain, height.to_u32() / WINDOW, members.len());
    for index in &order {
        let member = &members[*index];
        match point.checked_sub(member.power()) {
            Some(rest) => point = rest,
            None => return member,
        }
    }
    unreachable!("the point is below the sum of the powers")
}

/// Returns `turn / 2^64` of `whole`, rounded down.
fn scale(turn: u64, whole: u64) -> u64 {
    let product = u128::from(turn) * u128::from(whole);
    u64::try_from(product >> 64).expect("the upper half of 128 bits is 64 bits")
}

/// Returns the positions 0 to `count` - 1 in the order of a window: Fisher-Yates, with numbers hashed from a seed. A number
/// is scaled to its bound, which favours some by less than 2^-55.
fn order(chain: ChainId, window: u32, count: usize) -> Vec<usize> {
    let seed = tagged_hash(TAG, &[&chain.to_byte_array()[..], &window.to_le_bytes()]);
    let mut order: Vec<usize> = (0..count).collect();
    for (draw, last) in (0_u32..).zip((1..count).rev()) {
        let mut engine = sha256::Hash::engine();
        engine.input(&seed);
        engine.input(&draw.to_le_bytes());
        let hash = sha256::Hash::from_engine(engine).to_byte_array();
        let number = hash.first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
        let other = usize::try_from(scale(number, last as u64 + 1)).expect("at most a count of validators");
        order.swap(last, other);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bft::context::Address;
    use crate::bft::testing::{address, chain, set};
    use crate::bft::validator_set::TOTAL_POWER_MAX;
    use std::collections::BTreeMap;

    fn proposers(set: &ValidatorSet, heights: std::ops::Range<u32>) -> Vec<Address> {
        heights.map(|height| select(set, chain(1), Height(height), 0).address()).collect()
    }

    fn counts(proposers: &[Address]) -> BTreeMap<Address, u64> {
        let mut counts = BTreeMap::new();
        proposers.iter().for_each(|address| *counts.entry(*address).or_default() += 1);
        counts
    }

    #[test]
    fn the_rule_is_frozen() {
        let set = set(&[1, 2, 3, 4]);
        let line = |round: u32| -> String {
            (101..141)
                .map(|height| {
                    let proposer = select(&set, chain(1), Height(height), round).address();
                    let index = (0..4).find(|index| address(*index) == proposer).unwrap();
                    index.to_string()
                })
                .collect()
        };
        assert_eq!(line(0), "3123231230232312303123123231230312312303");
        assert_eq!(line(1), "2312303123123231230312312303123023231230");
    }

    #[test]
    fn shares_follow_power() {
        for powers in [&[1, 2, 3, 4][..], &[1, 1, 1, 1], &[100, 1, 1], &[7], &[5; 40]] {
            let set = set(powers);
            let heights = 50_000_u64;
            let counts = counts(&proposers(&set, 101..101 + 50_000));
            for (index, power) in (0..).zip(powers) {
                let wanted = heights * power / set.total_power();
                let got = counts[&address(index)];
                // 195 windows; each adds an error below 3, in either direction.
                assert!(got.abs_diff(wanted) <= 60, "{powers:?}: {got} of {wanted}");
            }
        }
    }

    #[test]
    fn short_stretches_are_fair() {
        let set = set(&[1, 1, 1, 1]);
        for start in (101..20_000).filter(|start| start % WINDOW <= WINDOW - 8) {
            let proposers = proposers(&set, start..start + 8);
            assert_eq!(counts(&proposers).len(), 4, "someone waits more than 8 heights at {start}");
            assert!(proposers.windows(2).all(|pair| pair[0] != pair[1]), "two in a row at {start}");
        }
    }

    #[test]
    fn a_silent_proposer_hands_nobody_two_heights() {
        let set = set(&[1; 10]);
        let handed = (0..10_000)
            .filter(|height| height % WINDOW != WINDOW - 1)
            .filter(|height| {
                let next_round = select(&set, chain(1), Height(*height), 1).address();
                next_round == select(&set, chain(1), Height(height + 1), 0).address()
            })
            .count();
        assert_eq!(handed, 0, "an arc of a tenth is shorter than the steps are apart");
    }

    #[test]
    fn rounds_reach_everyone_soon() {
        let set = set(&[3, 1, 2, 2, 2]);
        for height in 101..2_000 {
            let rounds: Vec<_> = (0..24).map(|round| select(&set, chain(1), Height(height), round).address()).collect();
            assert_eq!(counts(&rounds).len(), 5, "height {height}");
            assert!(rounds.windows(2).all(|pair| pair[0] != pair[1]), "height {height}");
        }
    }

    #[test]
    fn neighbours_change() {
        let set = set(&[1; 8]);
        // Who follows whom is no property of two keys: over many windows every pair is adjacent about equally often.
        let mut pairs: BTreeMap<_, u32> = BTreeMap::new();
        for window in 0..200 {
            let proposers = proposers(&set, window * WINDOW..(window + 1) * WINDOW);
            proposers.windows(2).for_each(|pair| *pairs.entry((pair[0], pair[1])).or_default() += 1);
        }
        let mean = 200 * WINDOW / (8 * 7);
        assert_eq!(pairs.len(), 8 * 7);
        assert!(pairs.values().all(|count| (mean / 2..mean * 2).contains(count)), "{pairs:?}");
    }

    #[test]
    fn the_greatest_powers_do_not_overflow() {
        let half = TOTAL_POWER_MAX / 2;
        let set = set(&[half, half - 1, 1]);
        for height in [0, 1, 101, u32::MAX - 1, u32::MAX] {
            for round in [0, 1, u32::MAX - 1, u32::MAX] {
                select(&set, chain(1), Height(height), round);
            }
        }
        let one = crate::bft::testing::set(&[TOTAL_POWER_MAX]);
        assert_eq!(select(&one, chain(1), Height(u32::MAX), 3).address(), address(0));
    }

    #[test]
    fn another_chain_has_another_order() {
        let set = set(&[1; 16]);
        let on = |chain| -> Vec<_> { (0..64).map(|height| select(&set, chain, Height(height), 0).address()).collect() };
        assert_ne!(on(chain(1)), on(chain(2)));
        assert_eq!(on(chain(1)), on(chain(1)));
    }
}
