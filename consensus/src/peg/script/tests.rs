use std::collections::HashMap;

use bitcoin::taproot::NodeInfo;
use bitcoin::{TxIn, Weight, Witness, consensus};
use causeway_chainspec::{ChainSpec, EpochParts, Timelocks, devnet};

use super::*;

const CHAIN: [u8; 32] = [7; 32];

fn chain() -> ChainId {
    ChainId::from_byte_array(CHAIN)
}

/// An epoch of `n` members, `t` of whom sign, with two of three recovery keys.
pub(super) fn epoch(n: u32, t: u32) -> Epoch {
    epoch_with_recovery(n, t, 3, 2)
}

fn epoch_with_recovery(n: u32, t: u32, m: u32, k: u32) -> Epoch {
    Epoch::new(EpochParts {
        number: 1,
        members: (0..n).map(|index| devnet::secret_key("script member", index).public_key(SECP256K1)).collect(),
        threshold: t,
        recovery_keys: (0..m).map(|index| x_only("script recovery", index)).collect(),
        recovery_threshold: k,
        timelocks: Timelocks { claim_window: 4_032, sweep_age: 12_960, recovery_delay: 17_280, refund_delay: 25_920 },
    })
    .unwrap()
}

fn x_only(role: &str, index: u32) -> XOnlyPublicKey {
    devnet::secret_key(role, index).x_only_public_key(SECP256K1).0
}

fn terms() -> DepositTerms {
    let destination = Builder::new().push_int(0).push_slice([9; 20]).into_script();
    DepositTerms { epoch: 1, destination, refund_key: x_only("refund", 0) }
}

fn coins() -> [CoinScript; 2] {
    [CoinScript::Main, CoinScript::Deposit(terms())]
}

fn every_leaf_path(scripts: &EpochScripts) -> Vec<SpendPath> {
    let subsets = scripts.subsets().map(|(subset, _)| SpendPath::Subset(subset));
    subsets.chain([SpendPath::MultiA, SpendPath::Recovery, SpendPath::Refund]).collect()
}

/// The tree of a main output from rust-bitcoin's nodes, with the leaves in order.
fn reference_tree(scripts: &EpochScripts) -> NodeInfo {
    fn fold(leaves: &[ScriptBuf]) -> NodeInfo {
        if let [leaf] = leaves {
            return NodeInfo::new_leaf_with_ver(leaf.clone(), LeafVersion::TapScript);
        }
        let (left, right) = leaves.split_at(leaves.len() - leaves.len() / 2);
        NodeInfo::combine(fold(left), fold(right)).unwrap()
    }
    let epoch = scripts.epoch();
    let members: Vec<XOnlyPublicKey> = epoch.members().iter().map(|key| key.x_only_public_key().0).collect();
    let count = |script: &mut Builder, keys: &[XOnlyPublicKey]| {
        for (index, key) in keys.iter().enumerate() {
            let check = if index == 0 { OP_CHECKSIG } else { OP_CHECKSIGADD };
            *script = std::mem::take(script).push_x_only_key(key).push_opcode(check);
        }
    };
    let mut multi_a = Builder::new();
    count(&mut multi_a, &members);
    let multi_a = multi_a.push_int(epoch.threshold().into()).push_opcode(OP_NUMEQUAL).into_script();
    let mut recovery = Builder::new();
    count(&mut recovery, epoch.recovery_keys());
    let recovery = recovery.push_int(epoch.recovery_threshold().into()).push_opcode(OP_NUMEQUALVERIFY);
    let recovery = recovery.push_int(epoch.timelocks().recovery_delay.into()).push_opcode(OP_CSV).into_script();

    let subsets: Vec<ScriptBuf> = scripts
        .subsets()
        .map(|(subset, _)| {
            let keys: Vec<PublicKey> = subset.iter().map(|index| epoch.members()[usize::from(*index)]).collect();
            let key = key_agg(&keys).unwrap().x_only_public_key().0;
            Builder::new().push_x_only_key(&key).push_opcode(OP_CHECKSIG).into_script()
        })
        .collect();
    NodeInfo::combine(fold(&subsets), fold(&[multi_a, recovery])).unwrap()
}

#[test]
fn trees_are_those_that_rust_bitcoin_builds() {
    for (n, t) in [(1, 1), (2, 1), (2, 2), (3, 2), (5, 3), (7, 4), (15, 11)] {
        let scripts = EpochScripts::build(&epoch(n, t));
        let reference = reference_tree(&scripts);
        assert_eq!(scripts.main_root(), reference.node_hash(), "{t} of {n}");
        let [main, deposit] = coins().map(|coin| scripts.output(chain(), &coin));
        assert_eq!(main.merkle_root(), scripts.main_root());
        assert_eq!(main.script_pubkey().as_script(), scripts.main_script());
        assert_eq!(
            ScriptBuf::new_p2tr(SECP256K1, scripts.internal_key(), Some(reference.node_hash())),
            main.script_pubkey()
        );
        assert_eq!(deposit.script_pubkey(), scripts.deposit_script(chain(), &terms()));

        // rust-bitcoin orders the leaves by their hashes.
        let branches: HashMap<&Script, _> =
            reference.leaf_nodes().map(|node| (node.script().unwrap(), node.merkle_branch())).collect();
        let paths = every_leaf_path(&scripts);
        assert_eq!(branches.len(), paths.len() - 1);
        for path in paths.into_iter().filter(|path| *path != SpendPath::Refund) {
            let leaf = main.leaf(&path).unwrap();
            assert_eq!(branches[leaf.script.as_script()], &leaf.control_block.merkle_branch, "{path:?}");
        }
    }
}

#[test]
fn every_leaf_is_committed_to_by_its_output() {
    for (n, t) in [(1, 1), (4, 4), (5, 3), (7, 3)] {
        let scripts = EpochScripts::build(&epoch(n, t));
        for coin in coins() {
            let output = scripts.output(chain(), &coin);
            for path in every_leaf_path(&scripts) {
                let Some(leaf) = output.leaf(&path) else {
                    assert_eq!((&path, &coin), (&SpendPath::Refund, &CoinScript::Main));
                    continue;
                };
                let committed = |key| leaf.control_block.verify_taproot_commitment(SECP256K1, key, &leaf.script);
                assert!(committed(output.output_key()), "{path:?}");
                assert!(!committed(scripts.internal_key()));
                let tweaked = output.tap_tweak().to_scalar();
                let tweaked = scripts.internal_key().add_tweak(SECP256K1, &tweaked).unwrap();
                assert_eq!(tweaked, (output.output_key(), output.output_key_parity()));
            }
        }
    }
}

#[test]
fn paths_that_an_output_lacks_have_no_leaf() {
    let scripts = EpochScripts::build(&epoch(5, 3));
    for coin in coins() {
        let output = scripts.output(chain(), &coin);
        assert_eq!(output.leaf(&SpendPath::Key), None);
        for wrong in [vec![], vec![0, 1], vec![0, 1, 2, 3], vec![0, 1, 5], vec![2, 1, 0], vec![0, 0, 1]] {
            assert_eq!(scripts.subset_key(&wrong), None, "{wrong:?}");
            assert_eq!(output.leaf(&SpendPath::Subset(wrong)), None);
        }
    }
    assert!(scripts.output(chain(), &CoinScript::Main).leaf(&SpendPath::Refund).is_none());
}

#[test]
fn a_deposit_script_depends_on_every_term() {
    let scripts = EpochScripts::build(&epoch(3, 2));
    let script = scripts.deposit_script(chain(), &terms());
    assert_eq!(script, scripts.deposit_script(chain(), &terms()));
    let other_destination = ScriptBuf::from_bytes([terms().destination.as_bytes(), &[0]].concat());
    let others = [
        DepositTerms { epoch: 2, ..terms() },
        DepositTerms { destination: other_destination, ..terms() },
        DepositTerms { destination: ScriptBuf::new(), ..terms() },
        DepositTerms { refund_key: x_only("refund", 1), ..terms() },
    ];
    let mut seen: Vec<ScriptBuf> = others.iter().map(|other| scripts.deposit_script(chain(), other)).collect();
    seen.push(scripts.deposit_script(ChainId::from_byte_array([8; 32]), &terms()));
    seen.push(script);
    seen.push(scripts.main_script().into());
    let all = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), all);
}

#[test]
fn the_commitment_is_the_hash_of_chain_epoch_and_destination() {
    // compact_size(len) is one byte below 253 and three from there on.
    for (length, size) in [(0, vec![0]), (22, vec![22]), (252, vec![252]), (253, vec![253, 253, 0])] {
        let terms = DepositTerms { epoch: 0x0102_0304, destination: ScriptBuf::from_bytes(vec![5; length]), ..terms() };
        let bytes = [&CHAIN[..], &[4, 3, 2, 1], &size, &vec![5; length]].concat();
        assert_eq!(terms.commitment(chain()), tagged_hash("causeway/peg-in/v1", &[&bytes]));
    }
}

/// The bytes that users pay to: a change of any is a change of the peg's rules.
#[test]
fn scripts_of_devnet_are_pinned() {
    let spec = ChainSpec::built_in("devnet").unwrap();
    let scripts = EpochScripts::build(spec.federation());
    assert_eq!(scripts.internal_key().to_string(), "e747c303052033cc8ea7713ed990710158750db19b4f0946023d605a50b73ba1");
    assert_eq!(
        scripts.main_script().to_hex_string(),
        "5120e77a5ad13134bf3bd4acb5219f80955e950e094db3681e8f625975e70c1b6c81"
    );
    assert_eq!(
        scripts.deposit_script(chain(), &terms()).to_hex_string(),
        "5120e4a28015020498872ff38bfe7a7c0fd302bba36e203c4ccf77d860b1ff9522e6"
    );
}

/// What an input weighs with signatures of full size.
fn input_weight(output: &CoinOutput<'_>, path: &SpendPath) -> Weight {
    let epoch = output.scripts.epoch();
    let mut elements: Vec<Vec<u8>> = match path {
        SpendPath::Key | SpendPath::Subset(_) | SpendPath::Refund => vec![vec![1; 64]],
        SpendPath::MultiA => signatures(epoch.threshold(), epoch.members().len()),
        SpendPath::Recovery => signatures(epoch.recovery_threshold(), epoch.recovery_keys().len()),
    };
    if let Some(leaf) = output.leaf(path) {
        elements.extend([leaf.script.to_bytes(), leaf.control_block.serialize()]);
    }
    let input = TxIn { witness: Witness::from_slice(&elements), ..TxIn::default() };
    let base = consensus::serialize(&input).len();
    Weight::from_wu((4 * base + consensus::serialize(&input.witness).len()).try_into().unwrap())
}

fn signatures(signed: u32, keys: usize) -> Vec<Vec<u8>> {
    (0..keys).map(|index| if index < signed as usize { vec![1; 64] } else { vec![] }).collect()
}

#[test]
fn worst_weights_of_an_epoch_are_those_of_its_heaviest_witness() {
    let small = (1..=7).flat_map(|n| (1..=n).map(move |t| (n, t)));
    for (n, t) in small.chain([(15, 11)]) {
        let scripts = EpochScripts::build(&epoch(n, t));
        let worst = coins().map(|coin| {
            let output = scripts.output(chain(), &coin);
            let members = every_leaf_path(&scripts)
                .into_iter()
                .filter(|path| matches!(path, SpendPath::Subset(_) | SpendPath::MultiA));
            members.chain([SpendPath::Key]).map(|path| input_weight(&output, &path)).max().unwrap()
        });
        let epoch = scripts.epoch();
        assert_eq!(worst, [epoch.worst_main_input_weight(), epoch.worst_deposit_input_weight()], "{t} of {n}");
    }
}

#[test]
fn the_widest_federation_has_scripts() {
    // 4,950 leaves, and as many keys as an epoch may have.
    let scripts = EpochScripts::build(&epoch_with_recovery(100, 2, 100, 60));
    assert_eq!(scripts.subsets().count(), 4_950);
    let [main, deposit] = coins().map(|coin| scripts.output(chain(), &coin));
    for path in [SpendPath::Subset(vec![98, 99]), SpendPath::MultiA, SpendPath::Recovery] {
        for output in [&main, &deposit] {
            let leaf = output.leaf(&path).unwrap();
            assert!(leaf.control_block.verify_taproot_commitment(SECP256K1, output.output_key(), &leaf.script));
        }
    }
}
