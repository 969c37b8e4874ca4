//! Signature operations, counted as Bitcoin Core does.
//!
//! `bitcoin::Transaction::total_sigop_cost` is not used: it lets OP_CHECKMULTISIG see a number push that another
//! operation has already used up (`2 CHECKSIG CHECKMULTISIG`), and counts a P2SH script behind a scriptSig that does
//! more than push. Both differ from Core's verdict.

use bitcoin::blockdata::script::Instruction;
use bitcoin::opcodes::all::{
    OP_CHECKMULTISIG, OP_CHECKMULTISIGVERIFY, OP_CHECKSIG, OP_CHECKSIGVERIFY, OP_PUSHNUM_1, OP_PUSHNUM_16,
};
use bitcoin::{Script, Transaction, TxIn, Witness};

use crate::coin::Coin;

/// Cost limit of a block (BIP-0141).
pub const MAX_SIGOPS_COST: usize = 80_000;

/// What an operation outside of witnesses counts (BIP-0141).
pub const WITNESS_SCALE_FACTOR: usize = 4;

/// What OP_CHECKMULTISIG counts when the number of its keys is not in front of it.
const MAX_KEYS_PER_MULTISIG: usize = 20;

/// Returns the operations in the transaction's own scripts, each multisig counted as 20 (Core: `GetLegacySigOpCount`).
pub fn legacy(transaction: &Transaction) -> usize {
    let inputs = transaction.input.iter().map(|input| count(&input.script_sig, Multisig::AtMost));
    let outputs = transaction.output.iter().map(|output| count(&output.script_pubkey, Multisig::AtMost));
    inputs.chain(outputs).sum()
}

/// Returns the cost of an input's redeem script and witness (Core: `GetP2SHSigOpCount` x 4 + `CountWitnessSigOps`).
pub fn input_cost(input: &TxIn, coin: &Coin) -> usize {
    let script = coin.output.script_pubkey.as_script();
    if script.is_witness_program() {
        return witness_program(script, &input.witness);
    }
    if !script.is_p2sh() {
        return 0;
    }
    let Some(redeem) = last_push(&input.script_sig) else { return 0 };
    count(redeem, Multisig::Exact) * WITNESS_SCALE_FACTOR + witness_program(redeem, &input.witness)
}

fn witness_program(program: &Script, witness: &Witness) -> usize {
    if program.is_p2wpkh() {
        1
    } else if program.is_p2wsh() {
        witness.last().map_or(0, |script| count(Script::from_bytes(script), Multisig::Exact))
    } else {
        0
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Multisig {
    /// Every one counts 20.
    AtMost,
    /// The number in front counts.
    Exact,
}

fn count(script: &Script, multisig: Multisig) -> usize {
    let mut operations = 0usize;
    let mut before = None;
    for instruction in script.instructions() {
        // Core stops at the first byte that is no instruction.
        let Ok(instruction) = instruction else { break };
        let opcode = match instruction {
            Instruction::Op(opcode) => Some(opcode),
            Instruction::PushBytes(_) => None,
        };
        match opcode {
            Some(OP_CHECKSIG | OP_CHECKSIGVERIFY) => operations += 1,
            Some(OP_CHECKMULTISIG | OP_CHECKMULTISIGVERIFY) => {
                let keys = before.filter(|_| multisig == Multisig::Exact).and_then(small_number);
                operations += keys.unwrap_or(MAX_KEYS_PER_MULTISIG);
            }
            _ => {}
        }
        before = opcode;
    }
    operations
}

/// The number that OP_1 to OP_16 push.
fn small_number(opcode: bitcoin::Opcode) -> Option<usize> {
    let number = (OP_PUSHNUM_1.to_u8()..=OP_PUSHNUM_16.to_u8()).contains(&opcode.to_u8());
    number.then(|| usize::from(opcode.to_u8() - OP_PUSHNUM_1.to_u8()) + 1)
}

/// Returns the operations in one script, a multisig behind its number of keys counted as that number (Core:
/// `CScript::GetSigOpCount(fAccurate = true)`).
pub fn accurate(script: &Script) -> usize {
    count(script, Multisig::Exact)
}

/// Returns the redeem script: the last bytes that a scriptSig pushes, if it does nothing but push; a number or nothing
/// at all is no bytes.
pub fn last_push(script_sig: &Script) -> Option<&Script> {
    let mut last = Script::from_bytes(&[]);
    for instruction in script_sig.instructions() {
        last = match instruction.ok()? {
            Instruction::PushBytes(bytes) => Script::from_bytes(bytes.as_bytes()),
            Instruction::Op(opcode) if opcode.to_u8() <= OP_PUSHNUM_16.to_u8() => Script::from_bytes(&[]),
            Instruction::Op(_) => return None,
        };
    }
    Some(last)
}

#[cfg(test)]
mod tests;
