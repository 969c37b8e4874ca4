//! Feerate diagrams: what a miner would earn with each amount of weight, to tell whether a replacement is worth more.

use bitcoin::{Amount, Weight};

/// Transactions that a miner would take together: what they pay, and the weight that their fee counts for, not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) fee: Amount,
    pub(super) weight: Weight,
}

impl Chunk {
    /// The chunks of a transaction and its only child, if they are each other's only relatives: one if the child pays more.
    pub(super) fn of_pair(parent: Self, child: Self) -> Vec<Self> {
        if parent.pays_less_than(&child) { vec![parent.with(child)] } else { vec![parent, child] }
    }

    fn with(self, other: Self) -> Self {
        Self { fee: self.fee + other.fee, weight: self.weight + other.weight }
    }

    fn pays_less_than(&self, other: &Self) -> bool {
        product(self.fee, other.weight) < product(other.fee, self.weight)
    }
}

fn product(fee: Amount, weight: Weight) -> u128 {
    u128::from(fee.to_sat()) * u128::from(weight.to_wu())
}

/// Whether the first chunks earn as much as the second ones at every weight, and more at some (Core: `CompareChunks`).
/// Beyond the last chunk a diagram is flat.
pub(super) fn is_better(new: &[Chunk], old: &[Chunk]) -> bool {
    let (new, old) = (sorted(new), sorted(old));
    let mut better = false;
    for at in corners(&new).chain(corners(&old)) {
        // Fractions of the same sign, compared across: fees of at most 2^51, weights of at most 2^25.
        let (new_top, new_bottom) = earned(&new, at);
        let (old_top, old_bottom) = earned(&old, at);
        match (new_top * old_bottom).cmp(&(old_top * new_bottom)) {
            std::cmp::Ordering::Less => return false,
            std::cmp::Ordering::Greater => better = true,
            std::cmp::Ordering::Equal => {}
        }
    }
    better
}

/// Best first.
fn sorted(chunks: &[Chunk]) -> Vec<Chunk> {
    let mut chunks = chunks.to_vec();
    chunks.sort_by(|one, other| product(other.fee, one.weight).cmp(&product(one.fee, other.weight)));
    chunks
}

/// The weights at which a diagram has its corners.
fn corners(chunks: &[Chunk]) -> impl Iterator<Item = u64> {
    chunks.iter().scan(0, |sum, chunk| {
        *sum += chunk.weight.to_wu();
        Some(*sum)
    })
}

/// What is earned with so much weight, as a fraction.
fn earned(chunks: &[Chunk], at: u64) -> (u128, u128) {
    let (mut fees, mut left) = (0, at);
    for chunk in chunks {
        let (fee, weight) = (u128::from(chunk.fee.to_sat()), chunk.weight.to_wu());
        if left < weight {
            let weight = u128::from(weight);
            return (fees * weight + fee * u128::from(left), weight);
        }
        fees += fee;
        left -= weight;
    }
    (fees, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(fee: u64, weight: u64) -> Chunk {
        Chunk { fee: Amount::from_sat(fee), weight: Weight::from_wu(weight) }
    }

    #[test]
    fn a_diagram_is_better_only_if_it_is_nowhere_below() {
        let old = [chunk(100, 100)];
        assert!(!is_better(&old, &old));
        assert!(is_better(&[chunk(101, 100)], &old));
        assert!(is_better(&[chunk(100, 99)], &old));
        assert!(is_better(&[chunk(200, 150)], &old));
        // More fees, and less at the start.
        assert!(!is_better(&[chunk(200, 201)], &old));
        assert!(is_better(&[chunk(200, 200)], &old), "as much at 100, and more beyond");
        // Fewer fees in the end.
        assert!(!is_better(&[chunk(99, 10)], &old));
        // What is left of the old ones counts on both sides.
        assert!(is_better(&[chunk(5, 100), chunk(300, 100)], &[chunk(105, 200)]));
        assert!(!is_better(&[chunk(5, 100), chunk(98, 50)], &[chunk(100, 100), chunk(5, 100)]));
        assert!(is_better(&[chunk(1, 1)], &[]) && !is_better(&[], &[chunk(1, 1)]));
    }

    #[test]
    fn a_child_that_pays_more_is_one_chunk_with_its_parent() {
        assert_eq!(Chunk::of_pair(chunk(0, 100), chunk(50, 100)), [chunk(50, 200)]);
        assert_eq!(Chunk::of_pair(chunk(50, 100), chunk(50, 100)), [chunk(50, 100); 2]);
    }
}
