use bitcoin::absolute::LockTime;
use bitcoin::opcodes::all::OP_RETURN;
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, TxOut};
use causeway_chainspec::Height;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const RESERVED: u8 = 0x50;
const NOP: u8 = 0x61;
const CHECKSIG: u8 = 0xac;
const CHECKSIGVERIFY: u8 = 0xad;
const CHECKMULTISIG: u8 = 0xae;
const CHECKMULTISIGVERIFY: u8 = 0xaf;
const CHECKSIGADD: u8 = 0xba;
const PUSHDATA1: u8 = 0x4c;
const PUSHDATA2: u8 = 0x4d;
const PUSHDATA4: u8 = 0x4e;
const NEGATIVE_ONE: u8 = 0x4f;

/// The operations that push 0 to 16.
fn small(number: u8) -> u8 {
    if number == 0 { 0 } else { 0x50 + number }
}

/// (each number of keys as it stands, each as 20)
fn counts(script: &[u8]) -> (usize, usize) {
    let script = Script::from_bytes(script);
    (count(script, Multisig::Exact), count(script, Multisig::AtMost))
}

fn script(bytes: &[u8]) -> ScriptBuf {
    ScriptBuf::from_bytes(bytes.to_vec())
}

fn pushes(elements: &[&[u8]]) -> ScriptBuf {
    let push = |builder: Builder, element: &&[u8]| {
        builder.push_slice(PushBytesBuf::try_from(element.to_vec()).expect("a short element"))
    };
    elements.iter().fold(Builder::new(), push).into_script()
}

fn input(script_sig: ScriptBuf, witness: &[&[u8]]) -> TxIn {
    let witness = Witness::from_slice(witness);
    TxIn { previous_output: OutPoint::default(), script_sig, sequence: Sequence::MAX, witness }
}

fn output(script_pubkey: ScriptBuf) -> TxOut {
    TxOut { value: Amount::ONE_SAT, script_pubkey }
}

/// The cost of an input that spends `script_pubkey`.
fn cost(script_pubkey: &Script, script_sig: ScriptBuf, witness: &[&[u8]]) -> usize {
    let coin = Coin { output: output(script_pubkey.to_owned()), height: Height(1), coinbase: false };
    input_cost(&input(script_sig, witness), &coin)
}

/// What `bitcoin` says of an input that spends `script_pubkey`.
fn bitcoin_cost(script_pubkey: &Script, script_sig: ScriptBuf) -> usize {
    transaction(vec![input(script_sig, &[])], vec![]).total_sigop_cost(|_| Some(output(script_pubkey.to_owned())))
}

fn transaction(input: Vec<TxIn>, output: Vec<TxOut>) -> Transaction {
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input, output }
}

#[test]
fn a_signature_operation_counts_one() {
    assert_eq!(counts(&[]), (0, 0));
    assert_eq!(counts(&[CHECKSIG]), (1, 1));
    assert_eq!(counts(&[CHECKSIGVERIFY, NOP, CHECKSIG]), (2, 2));
    // Tapscript's, which is limited within its witness.
    assert_eq!(counts(&[CHECKSIGADD]), (0, 0));
    // Behind OP_RETURN, or where it never runs.
    assert_eq!(counts(&[0x6a, CHECKSIG]), (1, 1));
    assert_eq!(counts(&[0, 0x63, CHECKSIG, 0x68]), (1, 1));
}

#[test]
fn a_multisig_counts_the_number_in_front() {
    for operation in [CHECKMULTISIG, CHECKMULTISIGVERIFY] {
        for keys in 1..=16 {
            assert_eq!(counts(&[small(keys), operation]), (usize::from(keys), 20));
        }
        assert_eq!(counts(&[operation]), (20, 20));
        for in_front in [small(0), NEGATIVE_ONE, RESERVED, NOP, CHECKSIGADD] {
            assert_eq!(counts(&[small(3), in_front, operation]), (20, 20), "{in_front:#x}");
        }
        // The number 3 as data.
        assert_eq!(counts(&[1, 3, operation]), (20, 20));
        assert_eq!(counts(&[PUSHDATA1, 1, 3, operation]), (20, 20));
    }
}

/// `bitcoin` lets the second operation see the number.
#[test]
fn a_number_is_used_up_by_the_operation_behind_it() {
    let script = [small(2), CHECKSIG, CHECKMULTISIG];
    assert_eq!(counts(&script), (1 + 20, 1 + 20));
    assert_eq!(Script::from_bytes(&script).count_sigops(), 1 + 2);

    let script = [small(3), CHECKMULTISIG, CHECKMULTISIGVERIFY];
    assert_eq!(counts(&script), (3 + 20, 20 + 20));
    assert_eq!(Script::from_bytes(&script).count_sigops(), 3 + 3);
}

#[test]
fn counting_skips_data_and_stops_at_a_push_cut_short() {
    assert_eq!(counts(&[2, CHECKSIG, CHECKSIG, CHECKSIG]), (1, 1));
    for cut in [
        &[3, CHECKSIG, CHECKSIG][..],
        &[75],
        &[PUSHDATA1],
        &[PUSHDATA1, 2, CHECKSIG],
        &[PUSHDATA2],
        &[PUSHDATA2, 1],
        &[PUSHDATA2, 2, 0, CHECKSIG],
        &[PUSHDATA4, 1, 0, 0],
        &[PUSHDATA4, 2, 0, 0, 0, CHECKSIG],
        &[PUSHDATA4, 0xff, 0xff, 0xff, 0xff, CHECKSIG],
    ] {
        assert_eq!(counts(&[&[CHECKSIG], cut].concat()), (1, 1), "{cut:?}");
    }
    assert_eq!(counts(&[PUSHDATA2, 1, 0, CHECKSIG, CHECKSIG]), (1, 1));
    assert_eq!(counts(&[PUSHDATA4, 0, 0, 0, 0, CHECKSIG]), (1, 1));
}

#[test]
fn own_scripts_count_each_multisig_as_twenty() {
    let transaction = transaction(
        vec![input(script(&[CHECKSIG]), &[&[CHECKSIG]]), input(script(&[small(2), CHECKMULTISIG]), &[])],
        vec![output(script(&[small(1), CHECKMULTISIG])), output(script(&[CHECKSIGVERIFY, 5, CHECKSIG]))],
    );
    assert_eq!(legacy(&transaction), 1 + 20 + 20 + 1);
}

#[test]
fn a_redeem_script_costs_four_for_each() {
    let redeem = [small(2), CHECKMULTISIGVERIFY, CHECKSIG];
    let p2sh = script(&redeem).to_p2sh();
    assert_eq!(cost(&p2sh, pushes(&[&[7], &redeem]), &[]), (2 + 1) * 4);
    // The last push is meant, whether or not its hash is right.
    assert_eq!(cost(&p2sh, pushes(&[&redeem, &[CHECKSIG]]), &[]), 4);
    assert_eq!(cost(&p2sh, pushes(&[&redeem, &[]]), &[]), 0);
    assert_eq!(cost(&p2sh, ScriptBuf::new(), &[]), 0);
    // A number's byte is no redeem script.
    assert_eq!(cost(&p2sh, script(&[1, CHECKSIG, small(3)]), &[]), 0);
    assert_eq!(cost(&p2sh, script(&[1, CHECKSIG, NEGATIVE_ONE]), &[]), 0);
    // OP_RESERVED is among the pushes.
    assert_eq!(cost(&p2sh, script(&[1, CHECKSIG, RESERVED]), &[]), 0);
    assert_eq!(cost(&p2sh, script(&[RESERVED, 1, CHECKSIG]), &[]), 4);
    // A push cut short.
    assert_eq!(cost(&p2sh, script(&[1, CHECKSIG, 2, CHECKSIG]), &[]), 0);
    // Whatever is not P2SH has no redeem script.
    assert_eq!(cost(&script(&[NOP]), pushes(&[&redeem]), &[]), 0);
}

/// `bitcoin` counts the redeem script all the same.
#[test]
fn behind_a_script_sig_that_does_more_than_push_nothing_counts() {
    let redeem = [CHECKSIG, CHECKSIG];
    let p2sh = script(&redeem).to_p2sh();
    for script_sig in [script(&[NOP, 2, CHECKSIG, CHECKSIG]), script(&[0x61, 0x75, 2, CHECKSIG, CHECKSIG])] {
        assert_eq!(cost(&p2sh, script_sig.clone(), &[]), 0);
        assert_eq!(bitcoin_cost(&p2sh, script_sig), 2 * 4);
    }
    assert_eq!(cost(&p2sh, script(&[2, CHECKSIG, CHECKSIG, NOP]), &[]), 0);
}

#[test]
fn witnesses_cost_one_for_each() {
    let key_hash = script(&[&[0, 20][..], &[7; 20]].concat());
    let script_hash = script(&[&[0, 32][..], &[7; 32]].concat());
    let multisig = [small(2), CHECKMULTISIG, CHECKSIG];
    assert_eq!(cost(&key_hash, ScriptBuf::new(), &[]), 1);
    assert_eq!(cost(&key_hash, ScriptBuf::new(), &[&multisig]), 1);
    assert_eq!(cost(&script_hash, ScriptBuf::new(), &[&[CHECKSIG; 9], &multisig]), 2 + 1);
    assert_eq!(cost(&script_hash, ScriptBuf::new(), &[]), 0);

    // In a script hash: the last push is the program, and costs nothing as a redeem script.
    let p2sh = key_hash.to_p2sh();
    assert_eq!(cost(&p2sh, pushes(&[key_hash.as_bytes()]), &[]), 1);
    assert_eq!(cost(&p2sh, pushes(&[&[1], key_hash.as_bytes()]), &[]), 1);
    assert_eq!(cost(&p2sh, pushes(&[script_hash.as_bytes()]), &[&multisig]), 2 + 1);
    let more_than_pushes = [&[NOP], pushes(&[script_hash.as_bytes()]).as_bytes()].concat();
    assert_eq!(cost(&p2sh, script(&more_than_pushes), &[&multisig]), 0);
}

#[test]
fn other_programs_cost_nothing() {
    let multisig = [small(2), CHECKMULTISIG];
    for (version, bytes) in [(0, 21), (0, 33), (0, 2), (1, 32), (1, 20), (2, 32), (16, 20)] {
        let program = script(&[&[small(version), bytes][..], &vec![7; usize::from(bytes)]].concat());
        assert_eq!(cost(&program, ScriptBuf::new(), &[&multisig]), 0, "{program}");
        assert_eq!(cost(&program.to_p2sh(), pushes(&[program.as_bytes()]), &[&multisig]), 0, "{program}");
    }
    // A witness on what takes none.
    assert_eq!(cost(&script(&[NOP]), ScriptBuf::new(), &[&multisig]), 0);
}

#[test]
fn a_tapscript_costs_one_for_50_bytes_of_its_witness() {
    let taproot = script(&[&[small(1), 32][..], &[7; 32]].concat());
    let spent = |witness: &[&[u8]]| cost(&taproot, ScriptBuf::new(), witness);
    // By its key, with an annex or without; and with nothing.
    let annex = [&[ANNEX_TAG][..], &[0; 500]].concat();
    let by_key: [&[&[u8]]; 4] = [&[], &[&[1; 64]], &[&[1; 64], &annex], &[&annex]];
    for witness in by_key {
        assert_eq!(spent(witness), 0);
    }
    // A count, and each element behind its length: 1 + (1 + 14) + (1 + 33) bytes, and then one less.
    assert_eq!(spent(&[&[NOP; 14], &[0xc0; 33]]), 1);
    assert_eq!(spent(&[&[NOP; 13], &[0xc0; 33]]), 0);
    assert_eq!(spent(&[&[NOP; 14], &[0xc0; 33], &[ANNEX_TAG; 49]]), 2);
    assert_eq!(spent(&[&[CHECKSIG; 960], &[0xc0; 33]]), (1 + 3 + 960 + 34) / 50);
    // In a script hash it is no Taproot.
    assert_eq!(cost(&taproot.to_p2sh(), pushes(&[taproot.as_bytes()]), &[&[NOP; 960], &[0xc0; 33]]), 0);
}

/// What the spending block executes, and Core counts only where the output is made.
#[test]
fn a_spent_script_costs_four_for_each_operation_and_one_for_64_bytes() {
    let spent = |bytes: &[u8]| cost(&script(bytes), pushes(&[&[CHECKSIG; 9]]), &[]);
    assert_eq!(spent(&[CHECKSIG]), 4);
    assert_eq!(spent(&[small(3), CHECKMULTISIG, CHECKSIGVERIFY]), 4 * 4);
    assert_eq!(spent(&[CHECKMULTISIG]), 20 * 4);
    // Where it never runs, and not behind a push cut short.
    assert_eq!(spent(&[0, 0x63, CHECKSIG, 0x68, CHECKSIG, 5, CHECKSIG]), 2 * 4);
    for (length, units) in [(0, 0), (63, 0), (64, 1), (127, 1), (128, 2), (10_000, 156)] {
        assert_eq!(spent(&vec![NOP; length]), units, "{length}");
    }
    // A key's script, and its hash's.
    assert_eq!(spent(&[&[33][..], &[2; 33], &[CHECKSIG]].concat()), 4);
    assert_eq!(spent(&[&[0x76, 0xa9, 20][..], &[7; 20], &[0x88, CHECKSIG]].concat()), 4);
}

#[test]
fn what_runs_outside_of_witnesses_is_counted_where_it_runs() {
    let executed = |script_pubkey: &Script, script_sig: ScriptBuf, witness: &[&[u8]]| {
        let coin = Coin { output: output(script_pubkey.to_owned()), height: Height(1), coinbase: false };
        executed(&input(script_sig, witness), &coin)
    };
    let bare = script(&[small(3), CHECKMULTISIG, CHECKSIG]);
    assert_eq!(executed(&bare, script(&[CHECKSIG, small(2), CHECKMULTISIG]), &[]), 3 + 1 + 1 + 2);
    assert_eq!(executed(&bare.to_p2sh(), pushes(&[bare.as_bytes()]), &[]), 3 + 1);
    // Without a redeem script that could run.
    assert_eq!(executed(&bare.to_p2sh(), ScriptBuf::new(), &[]), 0);
    let more_than_pushes = [&[CHECKSIG], pushes(&[bare.as_bytes()]).as_bytes()].concat();
    assert_eq!(executed(&bare.to_p2sh(), script(&more_than_pushes), &[]), 1);
    // In a witness.
    let program = bare.to_p2wsh();
    assert_eq!(executed(&program, ScriptBuf::new(), &[bare.as_bytes()]), 0);
    assert_eq!(executed(&program.to_p2sh(), pushes(&[program.as_bytes()]), &[bare.as_bytes()]), 0);
}

/// Outputs do not run, and witnesses do not hash the transaction anew.
#[test]
fn an_operation_outside_of_witnesses_costs_more_in_a_large_transaction() {
    let key_hash = script(&[&[0, 20][..], &[7; 20]].concat());
    let coins = [script(&[CHECKSIG, CHECKSIG]), key_hash].map(|script_pubkey| Coin {
        output: output(script_pubkey),
        height: Height(1),
        coinbase: false,
    });
    let inputs = vec![input(script(&[CHECKSIG]), &[]), input(ScriptBuf::new(), &[])];
    let transaction = transaction(inputs, vec![output(script(&[CHECKSIG]))]);
    let plain = 2 * 4 + 1;
    for (base_size, each) in [(60, 0), (16_383, 0), (16_384, 1), (32_767, 1), (100_000, 6), (1_000_000, 61)] {
        assert_eq!(inputs_cost(&transaction, base_size, coins.iter()), plain + 3 * each, "{base_size}");
    }
}

/// A script as wallets make them.
fn ordinary() -> impl Strategy<Value = ScriptBuf> {
    let key = || vec(any::<u8>(), 33);
    let hash = || vec(any::<u8>(), 20);
    prop_oneof![
        key().prop_map(|key| script(&[&[33], key.as_slice(), &[CHECKSIG]].concat())),
        hash().prop_map(|hash| script(&[&[0x76, 0xa9, 20], hash.as_slice(), &[0x88, CHECKSIG]].concat())),
        (1..=16u8, vec(key(), 1..=16)).prop_map(|(needed, keys)| {
            let count = u8::try_from(keys.len()).expect("at most 16");
            let keys = keys.iter().flat_map(|key| [&[33], key.as_slice()].concat()).collect::<Vec<u8>>();
            script(&[&[small(needed.min(count))], keys.as_slice(), &[small(count), CHECKMULTISIG]].concat())
        }),
        hash().prop_map(|hash| script(&[&[0, 20], hash.as_slice()].concat())),
        vec(any::<u8>(), 32).prop_map(|key| script(&[&[small(1), 32], key.as_slice()].concat())),
        vec(any::<u8>(), 0..80).prop_map(|data| {
            let data = PushBytesBuf::try_from(data).expect("short");
            Builder::new().push_opcode(OP_RETURN).push_slice(data).into_script()
        }),
    ]
}

/// A script as it is, in a script hash, a witness script hash, or both; and how it is spent.
fn spent_ordinary() -> impl Strategy<Value = (ScriptBuf, TxIn)> {
    (ordinary(), 0..4u8, vec(vec(any::<u8>(), 0..73), 0..4)).prop_map(|(inner, wrapping, elements)| {
        let elements: Vec<&[u8]> = elements.iter().map(Vec::as_slice).collect();
        let with_script = [elements.as_slice(), &[inner.as_bytes()]].concat();
        let program = inner.to_p2wsh();
        match wrapping {
            0 => (inner, input(pushes(&elements), &elements)),
            1 => (inner.to_p2sh(), input(pushes(&with_script), &elements)),
            2 => (program, input(ScriptBuf::new(), &with_script)),
            _ => (program.to_p2sh(), input(pushes(&[program.as_bytes()]), &with_script)),
        }
    })
}

proptest! {
    #[test]
    fn ordinary_scripts_cost_what_bitcoin_says_and_what_spent_scripts_add(
        spent in vec(spent_ordinary(), 1..5),
        outputs in vec(ordinary(), 0..5),
    ) {
        let (scripts, mut inputs): (Vec<ScriptBuf>, Vec<TxIn>) = spent.into_iter().unzip();
        for (vout, input) in (0..).zip(&mut inputs) {
            input.previous_output.vout = vout;
        }
        let transaction = transaction(inputs, outputs.into_iter().map(output).collect());
        let coin = |script: &ScriptBuf| Coin { output: output(script.clone()), height: Height(1), coinbase: false };
        let ours = legacy(&transaction) * WITNESS_SCALE_FACTOR
            + transaction.input.iter().zip(&scripts).map(|(input, script)| input_cost(input, &coin(script))).sum::<usize>();
        let index = |outpoint: &OutPoint| usize::try_from(outpoint.vout).expect("a few");
        let bare = scripts.iter().filter(|script| !script.is_p2sh() && !script.is_witness_program());
        let added: usize = bare.map(|script| script.count_sigops() * 4 + script.len() / 64).sum();
        let tapscripts = transaction.input.iter().zip(&scripts).filter(|(_, script)| script.is_p2tr());
        let tapscripts = tapscripts.filter(|(input, _)| is_script_path(&input.witness));
        let added = added + tapscripts.map(|(input, _)| input.witness.size() / 50).sum::<usize>();
        prop_assert_eq!(ours - added, transaction.total_sigop_cost(|outpoint| Some(output(scripts[index(outpoint)].clone()))));
    }
}
