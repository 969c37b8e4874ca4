use bitcoin::secp256k1::Secp256k1;

use super::*;
use crate::devnet::secret_key;

const TIMELOCKS: Timelocks =
    Timelocks { claim_window: 4_032, sweep_age: 12_960, recovery_delay: 17_280, refund_delay: 25_920 };

fn members(n: u32) -> Vec<PublicKey> {
    let secp = Secp256k1::new();
    (0..n).map(|index| secret_key("test member", index).public_key(&secp)).collect()
}

fn recovery_keys(n: u32) -> Vec<XOnlyPublicKey> {
    let secp = Secp256k1::new();
    (0..n).map(|index| secret_key("test recovery", index).x_only_public_key(&secp).0).collect()
}

fn parts() -> EpochParts {
    EpochParts {
        number: 1,
        members: members(5),
        threshold: 3,
        recovery_keys: recovery_keys(3),
        recovery_threshold: 2,
        timelocks: TIMELOCKS,
    }
}

fn epoch(n: u32, t: u32) -> Result<Epoch, ChainSpecError> {
    Epoch::new(EpochParts { members: members(n), threshold: t, ..parts() })
}

#[track_caller]
fn refused(result: Result<Epoch, ChainSpecError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn weights_of_11_of_15_are_those_of_the_peg_document() {
    // PEG section 5, measured on Bitcoin Core with the prototype's scripts: in quarters of a virtual byte.
    assert_eq!(key_path_weight(), Weight::from_wu(230)); // 57.5
    assert_eq!(subset_path_weight(12), Weight::from_wu(685)); // 171.25, main
    assert_eq!(subset_path_weight(13), Weight::from_wu(717)); // 179.25, deposit
    assert_eq!(multi_a_weight(15, 11, 2), Weight::from_wu(1_497)); // 374.25, main
    assert_eq!(multi_a_weight(15, 11, 3), Weight::from_wu(1_529)); // 382.25, deposit

    let epoch = epoch(15, 11).unwrap();
    assert_eq!(epoch.subset_count(), 1_365);
    assert_eq!(epoch.worst_main_input_weight(), Weight::from_wu(1_497));
    assert_eq!(epoch.worst_deposit_input_weight(), Weight::from_wu(1_529));
}

#[test]
fn multi_a_is_the_worst_path_of_every_federation() {
    let mut federations = 0;
    for n in 1..=KEYS_MAX {
        for t in 1..=u32::try_from(n).unwrap() {
            let Some(subsets) = subsets(n, t) else { continue };
            for root in [0, 1] {
                let worst = multi_a_weight(n as u64, t.into(), root + 2);
                assert!(worst > subset_path_weight(root + 1 + u64::from(ceil_log2(subsets))), "{t} of {n}");
                assert!(worst > key_path_weight());
            }
            federations += 1;
        }
    }
    assert!(federations > 500);
    let one = epoch(1, 1).unwrap();
    assert_eq!(one.worst_main_input_weight(), multi_a_weight(1, 1, 2));
    assert_eq!(one.worst_deposit_input_weight(), multi_a_weight(1, 1, 3));
    let wide = epoch(100, 2).unwrap();
    assert_eq!(wide.worst_deposit_input_weight(), multi_a_weight(100, 2, 3));
}

#[test]
fn weights_match_serialised_witnesses() {
    use bitcoin::consensus::serialize;
    use bitcoin::script::Builder;
    use bitcoin::{Sequence, TxIn, Witness, opcodes::all as op};

    // Any keys do: only sizes count.
    for (n, t) in [(1, 1), (3, 2), (5, 3), (15, 11), (18, 16), (18, 17), (40, 39)] {
        for depth in [1, 2, 3, 7, 8, 13u16] {
            let mut script = Builder::new();
            for (index, key) in recovery_keys(n).iter().enumerate() {
                let check = if index == 0 { op::OP_CHECKSIG } else { op::OP_CHECKSIGADD };
                script = script.push_x_only_key(key).push_opcode(check);
            }
            let script = script.push_int(t.into()).push_opcode(op::OP_NUMEQUAL).into_script();
            let mut witness = Witness::new();
            for index in 0..n {
                witness.push(if index < t { vec![0; 64] } else { vec![] });
            }
            witness.push(script.as_bytes());
            witness.push(vec![0; 33 + 32 * usize::from(depth)]);
            let mut input = TxIn { sequence: Sequence::MAX, witness, ..TxIn::default() };
            let weight = |input: &TxIn| serialize(input).len() as u64 * 4 + serialize(&input.witness).len() as u64;
            assert_eq!(
                multi_a_weight(n.into(), t.into(), depth.into()).to_wu(),
                weight(&input),
                "{t} of {n} at {depth}"
            );

            let pk = Builder::new().push_x_only_key(&recovery_keys(1)[0]).push_opcode(op::OP_CHECKSIG).into_script();
            input.witness = Witness::from_slice(&[vec![0; 64], pk.to_bytes(), vec![0; 33 + 32 * usize::from(depth)]]);
            assert_eq!(subset_path_weight(depth.into()).to_wu(), weight(&input));
            input.witness = Witness::from_slice(&[[0; 64]]);
            assert_eq!(key_path_weight().to_wu(), weight(&input));
        }
    }
}

#[test]
fn subsets_are_counted_up_to_5000() {
    assert_eq!(subsets(5, 3), Some(10));
    assert_eq!(subsets(15, 11), Some(1_365));
    assert_eq!(subsets(15, 4), Some(1_365));
    assert_eq!(subsets(100, 2), Some(4_950));
    assert_eq!(subsets(100, 100), Some(1));
    assert_eq!(subsets(16, 8), None);
    assert_eq!(subsets(100, 50), None);
    assert_eq!([1, 2, 3, 4, 5, 1_365, 4_950].map(ceil_log2), [0, 1, 2, 2, 3, 11, 13]);
}

#[test]
fn keys_are_sorted_whatever_their_order() {
    let sorted = epoch(5, 3).unwrap();
    assert!(sorted.members().windows(2).all(|pair| pair[0].serialize() < pair[1].serialize()));
    assert!(sorted.recovery_keys().windows(2).all(|pair| pair[0].serialize() < pair[1].serialize()));
    let (mut members, mut recovery_keys) = (members(5), recovery_keys(3));
    members.reverse();
    recovery_keys.rotate_left(1);
    assert_eq!(Epoch::new(EpochParts { members, recovery_keys, ..parts() }), Ok(sorted));
}

#[test]
fn thresholds_are_1_to_the_number_of_keys() {
    assert!(epoch(5, 1).is_ok());
    assert!(epoch(5, 5).is_ok());
    assert_eq!(refused(epoch(5, 0)), "federation.threshold is 0, which must be 1 to 5, the number of keys");
    assert_eq!(refused(epoch(5, 6)), "federation.threshold is 6, which must be 1 to 5, the number of keys");
    let recovery = |k| Epoch::new(EpochParts { recovery_threshold: k, ..parts() });
    assert!(recovery(3).is_ok());
    assert_eq!(refused(recovery(4)), "federation.recovery_threshold is 4, which must be 1 to 3, the number of keys");
    assert_eq!(refused(recovery(0)), "federation.recovery_threshold is 0, which must be 1 to 3, the number of keys");
}

#[test]
fn federations_have_1_to_100_members_and_at_most_5000_subsets() {
    assert_eq!(refused(epoch(0, 1)), "federation.members holds 0 keys, which must be 1 to 100");
    assert_eq!(refused(epoch(101, 1)), "federation.members holds 101 keys, which must be 1 to 100");
    let no_recovery = Epoch::new(EpochParts { recovery_keys: vec![], ..parts() });
    assert_eq!(refused(no_recovery), "federation.recovery_keys holds 0 keys, which must be 1 to 100");
    assert!(epoch(14, 7).is_ok());
    assert_eq!(
        refused(epoch(16, 8)),
        "federation.threshold is 8 of 16 members, which makes more than the 5000 subsets allowed: use fewer members"
    );
}

#[test]
fn no_key_stands_twice() {
    let mut twice = members(5);
    // The same x coordinate with the other parity: the same key in every leaf.
    twice[4] = twice[1].negate(&Secp256k1::new());
    let same_x = Epoch::new(EpochParts { members: twice, ..parts() });
    assert_eq!(
        refused(same_x),
        "federation.members[4] repeats federation.members[1]: every key may stand once (keys of members and recovery are compared by x coordinate)"
    );
    let mut twice = recovery_keys(3);
    twice[1] = twice[0];
    let error = Epoch::new(EpochParts { recovery_keys: twice, ..parts() }).unwrap_err();
    assert!(matches!(error, ChainSpecError::DuplicateKey { .. }));
    let mut shared = recovery_keys(3);
    shared[2] = members(5)[3].x_only_public_key().0;
    assert_eq!(
        refused(Epoch::new(EpochParts { recovery_keys: shared, ..parts() })),
        "federation.recovery_keys[2] is the key of federation.members[3]: recovery must not depend on a member's key"
    );
}

#[test]
fn timelocks_strictly_increase() {
    let with = |timelocks| Epoch::new(EpochParts { timelocks, ..parts() });
    assert_eq!(
        refused(with(Timelocks { sweep_age: 4_032, ..TIMELOCKS })),
        "federation.sweep_age is 4032 Bitcoin blocks, which must be greater than federation.claim_window (4032): claim_window < sweep_age < recovery_delay < refund_delay"
    );
    for wrong in [
        Timelocks { claim_window: 12_960, ..TIMELOCKS },
        Timelocks { sweep_age: 17_280, ..TIMELOCKS },
        Timelocks { recovery_delay: 25_920, ..TIMELOCKS },
        Timelocks { refund_delay: 17_280, ..TIMELOCKS },
    ] {
        let error = with(wrong).unwrap_err();
        assert!(matches!(error, ChainSpecError::Federation(EpochError::TimelockOrder { .. })), "{error}");
    }
    assert!(with(Timelocks { claim_window: 1, sweep_age: 2, recovery_delay: 3, refund_delay: 4 }).is_ok());
}
