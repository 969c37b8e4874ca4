//! Inclusion proofs and depth (PEG sections 2 and 4).

use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, Transaction, TxMerkleNode};
use causeway_chainspec::BitcoinHeight;
use causeway_consensus::peg::InvalidPeg;
use causeway_consensus::peg::evidence::{Evidence, PegIn};
use causeway_consensus::peg::proof::InvalidProof;

use crate::scene::{PLENTY, Scene, peg_in};

pub(crate) fn unknown_block() {
    let mut scene = Scene::new();
    let terms = scene.terms();
    let claim = scene.deep(&terms, PLENTY);
    scene.accepts(peg_in(claim.clone()));
    let tip = scene.peg().headers().tip().height;
    for height in [tip.0 + 1, u32::MAX] {
        let mut other = claim.clone();
        other.proof.height = BitcoinHeight(height);
        let height = BitcoinHeight(height);
        scene.refuses(peg_in(other), InvalidPeg::UnknownBlock { height, tip });
    }
}

pub(crate) fn proof() {
    let mut scene = Scene::new();
    let terms = scene.terms();
    let network = scene.peg().network().clone();
    let transaction = scene.parent.deposit(&network, &terms, PLENTY);
    let outpoint = OutPoint { txid: transaction.compute_txid(), vout: 0 };
    let others: Vec<Transaction> = (0..3).map(|_| scene.parent.pay(vec![])).map(with_an_output).collect();
    scene.mine([vec![transaction], others].concat());
    scene.bury();
    let claim = scene.parent.peg_in(&terms, outpoint).expect("mined");
    scene.accepts(peg_in(claim.clone()));
    let height = claim.proof.height;
    let root = scene.peg().headers().best(height).expect("known").merkle_root;
    let refused = |edit: &dyn Fn(&mut PegIn), expected: &dyn Fn(&InvalidProof) -> bool| {
        let mut other = claim.clone();
        edit(&mut other);
        let source = other.proof.verify(root).expect_err("the edit breaks it");
        assert!(expected(&source), "{source:?}");
        scene.refuses(peg_in(other), InvalidPeg::Proof { height, source });
    };
    let is_root = |source: &InvalidProof| matches!(source, InvalidProof::Root { .. });
    let flip = |node: &mut TxMerkleNode| *node = TxMerkleNode::from_byte_array([7; 32]);
    assert_eq!(claim.proof.branch.len(), 3);
    for level in 0..3 {
        refused(&|claim| flip(&mut claim.proof.branch[level]), &is_root);
        refused(&|claim| flip(&mut claim.proof.coinbase_branch[level]), &is_root);
    }
    refused(&|claim| claim.proof.index = 2, &is_root);
    refused(&|claim| claim.proof.transaction.version.0 += 1, &is_root);
    refused(&|claim| claim.proof.coinbase.version.0 += 1, &is_root);
    refused(&|claim| claim.proof.index = 8, &|source| matches!(source, InvalidProof::Index { index: 8, levels: 3 }));
    refused(&|claim| claim.proof.coinbase.input[0].previous_output.vout = 0, &|source| {
        matches!(source, InvalidProof::NotCoinbase)
    });
    // The fifth of five transactions stands again at places 5, 6 and 7 of the tree.
    let last = scene.parent.block(height).expect("mined").txdata[4].compute_txid();
    let proof = scene.parent.proof(&last).expect("mined");
    let mut repeated = claim.clone();
    repeated.proof = proof;
    repeated.proof.index = 5;
    let source = InvalidProof::RepeatedNode { level: 0 };
    scene.refuses(peg_in(repeated), InvalidPeg::Proof { height, source });
}

fn with_an_output(mut transaction: Transaction) -> Transaction {
    transaction.output.push(bitcoin::TxOut { value: bitcoin::Amount::ZERO, script_pubkey: bitcoin::ScriptBuf::new() });
    transaction
}

/// The block that holds it counts as one confirmation, and headers of the same block count for nothing.
pub(crate) fn too_shallow() {
    let mut scene = Scene::new();
    let terms = scene.terms();
    let outpoint = scene.mined(&terms, PLENTY);
    let height = scene.parent.tip();
    scene.parent.follow(&mut scene.chain);
    let claim = scene.parent.peg_in(&terms, outpoint).expect("mined");
    for got in 1..3 {
        let tip = scene.peg().headers().tip().height;
        assert_eq!(tip.0 + 1 - height.0, got);
        let shallow = InvalidPeg::TooShallow { txid: outpoint.txid, got, min: 3, tip };
        scene.refuses(peg_in(claim.clone()), shallow.clone());
        scene.parent.mine_empty(1);
        let headers = scene.parent.run_towards(scene.peg().headers(), scene.chain.next_context().time);
        scene.refuses(Evidence { headers, ..peg_in(claim.clone()) }, shallow);
        scene.parent.follow(&mut scene.chain);
    }
    scene.accepts(peg_in(claim));
}
