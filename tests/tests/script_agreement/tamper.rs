//! What is done to a signed transaction, or to the outputs it spends.

use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{Amount, ScriptBuf, Sequence, Transaction, TxOut, Witness};
use proptest::sample::Index;

use crate::plan::Alteration;

/// Does one alteration, or nothing if there is nothing to alter.
pub(crate) fn alter(transaction: &mut Transaction, spent: &mut [TxOut], alteration: &Alteration) {
    let Transaction { version, lock_time, input: inputs, output: outputs } = transaction;
    let count = inputs.len();
    match alteration {
        Alteration::ScriptSig { input, at, bit } => flip_script(&mut input.get_mut(inputs).script_sig, at, *bit),
        Alteration::Witness { input, element, at, bit } => {
            let mut elements = input.get(inputs).witness.to_vec();
            if !elements.is_empty() {
                let chosen: &mut Vec<u8> = element.get_mut(&mut elements);
                flip(chosen, at, *bit);
            }
            input.get_mut(inputs).witness = Witness::from_slice(&elements);
        }
        Alteration::SpentScript { input, at, bit } => flip_script(&mut input.get_mut(spent).script_pubkey, at, *bit),
        Alteration::SpentValue { input, bit } => flip_value(&mut input.get_mut(spent).value, *bit),
        Alteration::Sequence { input, bit } => {
            let sequence = &mut input.get_mut(inputs).sequence;
            *sequence = Sequence(sequence.0 ^ (1 << bit));
        }
        Alteration::OutputValue { output, bit } if !outputs.is_empty() => {
            flip_value(&mut output.get_mut(outputs).value, *bit);
        }
        Alteration::OutputScript { output, bytes } if !outputs.is_empty() => {
            output.get_mut(outputs).script_pubkey = ScriptBuf::from_bytes(bytes.clone());
        }
        Alteration::OutputValue { .. } | Alteration::OutputScript { .. } => {}
        Alteration::DropOutput => drop(outputs.pop()),
        Alteration::AddOutput => outputs.push(TxOut { value: Amount::ONE_SAT, script_pubkey: ScriptBuf::new() }),
        Alteration::SwapInputs { first, second } => inputs.swap(first.index(count), second.index(count)),
        Alteration::SwapSpent { first, second } => spent.swap(first.index(count), second.index(count)),
        Alteration::SwapWitnesses { first, second } => {
            let (first, second) = (first.index(count), second.index(count));
            let witness = std::mem::take(&mut inputs[first].witness);
            inputs[first].witness = std::mem::replace(&mut inputs[second].witness, witness.clone());
            if first == second {
                inputs[first].witness = witness;
            }
        }
        Alteration::PushWitness { input, element } => input.get_mut(inputs).witness.push(element),
        Alteration::PopWitness { input } => {
            let mut elements = input.get(inputs).witness.to_vec();
            elements.pop();
            input.get_mut(inputs).witness = Witness::from_slice(&elements);
        }
        Alteration::ReplaceScriptSig { input, bytes } => {
            input.get_mut(inputs).script_sig = ScriptBuf::from_bytes(bytes.clone());
        }
        Alteration::Version { bit } => *version = Version(version.0 ^ (1 << bit)),
        Alteration::LockTime { bit } => {
            *lock_time = LockTime::from_consensus(lock_time.to_consensus_u32() ^ (1 << bit))
        }
    }
}

/// Flips a bit of the byte at a place, if there is a byte.
pub(crate) fn flip(bytes: &mut [u8], at: &Index, bit: u8) {
    if !bytes.is_empty() {
        *at.get_mut(bytes) ^= 1 << bit;
    }
}

fn flip_script(script: &mut ScriptBuf, at: &Index, bit: u8) {
    let mut bytes = std::mem::take(script).into_bytes();
    flip(&mut bytes, at, bit);
    *script = ScriptBuf::from_bytes(bytes);
}

fn flip_value(value: &mut Amount, bit: u8) {
    *value = Amount::from_sat(value.to_sat() ^ (1 << bit));
}
