//! For how long a proposer leaves out what other validators do not vote for.

use std::collections::BTreeSet;

use causeway_chainspec::Height;
use causeway_consensus::bft::{Address, ValidatorSet};

/// Heights that are left out at most after a failure: some minutes of blocks, where Bitcoin takes ten for one.
const HEIGHTS_MAX: u32 = 64;

/// How long evidence that speaks of Bitcoin is left out of our blocks after rounds that failed with it. A third of the
/// validators without a usable Bitcoin node fail every such round; leaving it out in the later rounds of a height alone would
/// cost every height a round.
///
/// One height after a failure, and twice as many after each that follows, up to [`HEIGHTS_MAX`]; none any more once such a
/// block is final. A failure may be the doing of its proposer, who can carry what nobody knows, or send its block to few.
/// So the time grows with proposers that failed, and with failures only when proposers of more than a third have: of the
/// validators that lie, one keeps evidence out for one height after its turn, two for two, three for four.
#[derive(Debug, Default)]
pub(super) struct BackOff {
    /// Who has failed since such a block was final.
    failed: BTreeSet<Address>,
    /// Heights that the last failure cost.
    heights: u32,
    /// The last height that is left out.
    until: Option<Height>,
}

impl BackOff {
    /// Whether a block of this height goes without.
    pub(super) fn leaves_out(&self, height: Height) -> bool {
        self.until.is_some_and(|until| height <= until)
    }

    /// A block that carries evidence is final.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// The round of this proposer, one of these validators, failed with evidence in a height that is final by now. Returns
    /// the last height that is left out, if that is news: who tries in the meantime proves nothing.
    pub(super) fn failed(&mut self, height: Height, proposer: Address, set: &ValidatorSet) -> Option<Height> {
        if self.leaves_out(height) {
            return None;
        }
        let another = self.failed.insert(proposer);
        let power = self.failed.iter().filter_map(|address| set.get(address)).map(|member| member.power()).sum();
        if another || set.is_honest(power) {
            self.heights = (2 * self.heights).clamp(1, HEIGHTS_MAX);
        }
        self.until = height.checked_add(self.heights);
        self.until
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::secp256k1::SECP256K1;
    use causeway_chainspec::devnet;

    use super::*;

    fn validators() -> ValidatorSet {
        let spec = causeway_chainspec::ChainSpec::built_in("devnet").unwrap();
        ValidatorSet::new(spec.validators()).unwrap()
    }

    fn proposer(index: u32) -> Address {
        Address::from(&devnet::secret_key(devnet::VALIDATOR, index).x_only_public_key(SECP256K1).0)
    }

    /// Heights of so many in which evidence goes in, and fails, if these propose by turns.
    fn tries(proposers: &[u32], heights: u32) -> Vec<u32> {
        let (set, mut back_off, mut turns) = (validators(), BackOff::default(), proposers.iter().cycle());
        let mut tried = Vec::new();
        for height in (0..heights).map(Height) {
            if !back_off.leaves_out(height) {
                tried.push(height.to_u32());
                back_off.failed(height, proposer(*turns.next().unwrap()), &set);
            }
        }
        tried
    }

    #[test]
    fn a_third_without_bitcoin_costs_fewer_and_fewer_heights_a_round() {
        assert_eq!(validators().members().len(), 4);
        assert_eq!(tries(&[0, 1], 400), [0, 2, 5, 10, 19, 36, 69, 134, 199, 264, 329, 394]);
    }

    #[test]
    fn one_proposer_alone_keeps_evidence_out_for_one_height_at_a_time() {
        assert!(tries(&[3], 100).into_iter().eq((0..100).step_by(2)));
    }

    #[test]
    fn a_failure_while_others_leave_it_out_costs_nothing_more() {
        let (set, mut back_off) = (validators(), BackOff::default());
        assert_eq!(back_off.failed(Height(200), proposer(0), &set), Some(Height(201)));
        assert_eq!(back_off.failed(Height(201), proposer(1), &set), None);
        assert!(!back_off.leaves_out(Height(202)));
    }

    #[test]
    fn once_a_block_carries_it_nothing_is_left_out() {
        let (set, mut back_off) = (validators(), BackOff::default());
        for (height, by) in [(200, 0), (202, 1), (205, 2)] {
            assert!(back_off.failed(Height(height), proposer(by), &set).is_some());
        }
        assert!(back_off.leaves_out(Height(209)));
        back_off.succeeded();
        assert!(!back_off.leaves_out(Height(206)));
        assert_eq!(back_off.failed(Height(206), proposer(0), &set), Some(Height(207)), "from the start again");
    }
}
