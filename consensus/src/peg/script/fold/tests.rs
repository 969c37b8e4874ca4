use std::collections::HashMap;

use bitcoin::script::Builder;
use bitcoin::taproot::{LeafVersion, NodeInfo};
use bitcoin::{Script, ScriptBuf};

use super::*;

fn script(index: usize) -> ScriptBuf {
    Builder::new().push_slice(u16::try_from(index).unwrap().to_le_bytes()).into_script()
}

/// The same tree by rust-bitcoin's own combination of nodes, which orders leaves by their hashes.
fn reference(leaves: &[ScriptBuf]) -> NodeInfo {
    if let [leaf] = leaves {
        return NodeInfo::new_leaf_with_ver(leaf.clone(), LeafVersion::TapScript);
    }
    let (left, right) = leaves.split_at(leaves.len() - leaves.len() / 2);
    NodeInfo::combine(reference(left), reference(right)).unwrap()
}

#[test]
fn roots_and_branches_are_those_of_another_fold() {
    for count in (1..=40).chain([1_365]) {
        let scripts: Vec<ScriptBuf> = (0..count).map(script).collect();
        let leaves: Vec<TapNodeHash> =
            scripts.iter().map(|script| TapNodeHash::from_script(script, LeafVersion::TapScript)).collect();
        let fold = Fold::new(&leaves);
        let reference = reference(&scripts);
        assert_eq!(fold.root(), reference.node_hash());
        assert_eq!(fold.nodes.len(), 2 * count - 1);
        let branches: HashMap<&Script, &[TapNodeHash]> =
            reference.leaf_nodes().map(|node| (node.script().unwrap(), node.merkle_branch().as_slice())).collect();
        assert_eq!(branches.len(), count);
        for (index, script) in scripts.iter().enumerate() {
            assert_eq!(fold.branch(index), branches[script.as_script()], "{index} of {count}");
        }
    }
}

#[test]
fn the_left_half_is_the_larger() {
    assert_eq!([2, 3, 4, 5, 10, 1_365].map(left_half), [1, 2, 2, 3, 5, 683]);
}
