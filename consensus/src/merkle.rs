//! Bitcoin's merkle tree: an odd level repeats its last node.

use bitcoin::Wtxid;
use bitcoin::hashes::{Hash, HashEngine, sha256d};

/// The root of a tree, and whether the tree could stand for another list of leaves too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MerkleRoot {
    /// The root, in internal byte order; all zeros without leaves.
    pub root: [u8; 32],
    /// Two neighbours that are hashed together are equal, so the list without the second one has the same root
    /// (CVE-2012-2459).
    pub mutated: bool,
}

/// Returns the merkle root of `leaves`, in internal byte order.
pub fn merkle_root(mut nodes: Vec<[u8; 32]>) -> MerkleRoot {
    let mut mutated = false;
    while nodes.len() > 1 {
        mutated |= nodes.chunks_exact(2).any(|pair| pair[0] == pair[1]);
        for i in 0..nodes.len().div_ceil(2) {
            let left = nodes[2 * i];
            let right = *nodes.get(2 * i + 1).unwrap_or(&left);
            nodes[i] = hash_pair(&left, &right);
        }
        nodes.truncate(nodes.len().div_ceil(2));
    }
    MerkleRoot { root: nodes.first().copied().unwrap_or_default(), mutated }
}

/// Returns what a coinbase commits to with `reserved` as its witness (BIP-0141): sha256d of the root over all wtxids, with
/// zeros in the coinbase's place, and the reserved value.
pub(crate) fn witness_commitment(wtxids: impl Iterator<Item = Wtxid>, reserved: &[u8]) -> [u8; 32] {
    let leaves = wtxids.enumerate().map(|(index, wtxid)| if index == 0 { [0; 32] } else { wtxid.to_byte_array() });
    let mut engine = sha256d::Hash::engine();
    engine.input(&merkle_root(leaves.collect()).root);
    engine.input(reserved);
    sha256d::Hash::from_engine(engine).to_byte_array()
}

/// Returns sha256d of two nodes.
fn hash_pair(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    let mut engine = sha256d::Hash::engine();
    engine.input(left);
    engine.input(right);
    sha256d::Hash::from_engine(engine).to_byte_array()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::Txid;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_rust_bitcoin(leaves in proptest::collection::vec(any::<[u8; 32]>(), 1..70)) {
            let theirs = bitcoin::merkle_tree::calculate_root(leaves.iter().map(|l| Txid::from_byte_array(*l)));
            prop_assert_eq!(merkle_root(leaves).root, theirs.expect("not empty").to_byte_array());
        }
    }

    #[test]
    fn repeated_tail_keeps_the_root_and_is_seen() {
        let leaf = |n: u8| [n; 32];
        let honest = merkle_root(vec![leaf(1), leaf(2), leaf(3)]);
        let mutated = merkle_root(vec![leaf(1), leaf(2), leaf(3), leaf(3)]);
        assert_eq!(honest.root, mutated.root);
        assert!(!honest.mutated);
        assert!(mutated.mutated);
        let deeper = merkle_root([1, 2, 3, 4, 5, 6, 5, 6].map(leaf).to_vec());
        assert_eq!(deeper.root, merkle_root([1, 2, 3, 4, 5, 6].map(leaf).to_vec()).root);
        assert!(deeper.mutated);
    }

    #[test]
    fn no_leaves_is_zero() {
        assert_eq!(merkle_root(vec![]), MerkleRoot { root: [0; 32], mutated: false });
    }
}
