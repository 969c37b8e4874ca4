use std::cell::Cell;

use bitcoin::absolute::LockTime;
use bitcoin::consensus::serialize;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, TxIn, Witness};

use super::*;

/// `OP_1`, `OP_0`, and Taproot's key path with a signature that is none.
const TRUE: &[u8] = &[0x51];
const FALSE: &[u8] = &[0x00];

fn key_path() -> Vec<u8> {
    [&[0x51, 0x20][..], &[7; 32]].concat()
}

/// A transaction that spends outputs with these scripts.
fn spend(scripts: &[&[u8]]) -> (Transaction, Vec<TxOut>) {
    let spent =
        |script: &&[u8]| TxOut { value: Amount::from_sat(1), script_pubkey: ScriptBuf::from_bytes(script.to_vec()) };
    let spent: Vec<TxOut> = scripts.iter().map(spent).collect();
    let input = |output: &TxOut| TxIn {
        previous_output: OutPoint::null(),
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: if output.script_pubkey.is_p2tr() { Witness::from_slice(&[[1; 64]]) } else { Witness::new() },
    };
    let input = spent.iter().map(input).collect();
    (Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input, output: vec![] }, spent)
}

/// What comes of a task of these inputs that may go on so often.
fn verify_up_to(often: usize, scripts: &[&[u8]]) -> Result<Option<usize>, NotReady> {
    let (transaction, spent) = spend(scripts);
    let bytes = serialize(&transaction);
    let prepared = PreparedTransaction::new(&transaction, &bytes, spent.iter().collect());
    let task: Vec<Input<'_>> = (0..scripts.len()).map(|input| (&prepared, 0, input)).collect();
    let left = Cell::new(often);
    let may_go_on = || match left.get().checked_sub(1) {
        Some(rest) => {
            left.set(rest);
            Ok(())
        }
        None => Err(ConnectError::from(NotReady::Cancelled)),
    };
    match verify_task(&task, may_go_on) {
        Ok(failed) => Ok(failed.map(|(_, input)| input)),
        Err(ConnectError::NotReady(not_ready)) => Err(not_ready),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_cancelled_task_begins_no_further_input() {
    let scripts = [TRUE, TRUE, FALSE, TRUE];
    for begun in 0..3 {
        // The third input would have failed.
        assert_eq!(verify_up_to(begun, &scripts), Err(NotReady::Cancelled), "{begun} inputs");
    }
    assert_eq!(verify_up_to(3, &scripts), Ok(Some(2)));
    assert_eq!(verify_up_to(4, &[TRUE; 4]), Ok(None));
}

#[test]
fn a_cancelled_task_verifies_no_further_signature() {
    let key_path = key_path();
    // Both are looked at before the first is verified.
    let scripts = [&key_path[..], &key_path];
    for begun in 0..3 {
        assert_eq!(verify_up_to(begun, &scripts), Err(NotReady::Cancelled), "{begun} steps");
    }
    assert_eq!(verify_up_to(3, &scripts), Ok(Some(0)));
}

#[test]
fn a_slow_input_is_a_task_of_its_own() {
    let key_path = key_path();
    let mut scripts = vec![&key_path[..]; INPUTS_PER_TASK + 2];
    scripts.extend([TRUE, TRUE, &key_path, FALSE]);
    let (mut transaction, spent) = spend(&scripts);
    // A script and its control block; and a signature with an annex.
    transaction.input[0].witness = Witness::from_slice(&[&[0x51][..], &[0xc0; 33]]);
    transaction.input[1].witness.push([0x50]);
    let bytes = serialize(&transaction);
    let prepared = PreparedTransaction::new(&transaction, &bytes, spent.iter().collect());
    let inputs: Vec<Input<'_>> = (0..scripts.len()).map(|input| (&prepared, 0, input)).collect();
    let lengths: Vec<usize> = tasks(&inputs).map(<[_]>::len).collect();
    assert_eq!(lengths, [1, INPUTS_PER_TASK, 1, 1, 1, 1, 1]);
    assert!(tasks(&inputs).flatten().map(|(_, _, input)| *input).eq(0..scripts.len()));
}
