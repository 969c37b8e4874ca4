//! A list of Taproot leaves folded by halving.

use bitcoin::taproot::TapNodeHash;

/// Returns how many of `leaves` leaves, at least two, are the left half: the larger part of an odd count (PEG section 5).
pub fn left_half(leaves: usize) -> usize {
    leaves.div_ceil(2)
}

/// The hashes of a folded list: each node is followed by its left subtree and then by its right one, and a subtree of n
/// leaves has 2n - 1 nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fold {
    nodes: Vec<TapNodeHash>,
    leaves: usize,
}

impl Fold {
    /// `leaves` are at least one.
    pub(super) fn new(leaves: &[TapNodeHash]) -> Self {
        let mut nodes = Vec::with_capacity(2 * leaves.len());
        push(&mut nodes, leaves);
        Self { nodes, leaves: leaves.len() }
    }

    pub(super) fn root(&self) -> TapNodeHash {
        self.nodes[0]
    }

    /// The siblings from a leaf up to the root; `leaf` is a position in the list.
    pub(super) fn branch(&self, mut leaf: usize) -> Vec<TapNodeHash> {
        let (mut node, mut leaves) = (0, self.leaves);
        let mut branch = Vec::new();
        while leaves > 1 {
            let half = left_half(leaves);
            let (left, right) = (node + 1, node + 2 * half);
            if leaf < half {
                branch.push(self.nodes[right]);
                (node, leaves) = (left, half);
            } else {
                branch.push(self.nodes[left]);
                (node, leaves, leaf) = (right, leaves - half, leaf - half);
            }
        }
        branch.reverse();
        branch
    }
}

/// Appends the nodes of a list and returns its root.
fn push(nodes: &mut Vec<TapNodeHash>, leaves: &[TapNodeHash]) -> TapNodeHash {
    if let [leaf] = leaves {
        nodes.push(*leaf);
        return *leaf;
    }
    let at = nodes.len();
    // Replaced as soon as both subtrees are there.
    nodes.push(leaves[0]);
    let (left, right) = leaves.split_at(left_half(leaves.len()));
    let root = TapNodeHash::from_node_hashes(push(nodes, left), push(nodes, right));
    nodes[at] = root;
    root
}

#[cfg(test)]
mod tests;
