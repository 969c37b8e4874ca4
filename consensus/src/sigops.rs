//! Signature operations: what they cost in a block, and how many a transaction may execute.
//!
//! They are counted as Bitcoin Core counts them, which bounds what checks in P2WSH cost to verify: 80,000 of them. It bounds
//! little else. Core counts an operation outside of witnesses where it is written, not where it runs, and each may hash the
//! whole transaction; tapscript has a purse of its own, the block's weight; and operations that check no signature are
//! free. On Bitcoin a block that makes use of it costs its miner the block's work; here it would cost a turn. So four parts
//! are added to the cost, all a soft fork of Bitcoin's rules (DESIGN section 2): the operations of *spent* scripts, what
//! they hash ([`HASHED_BYTES_PER_UNIT`]), the length of spent scripts ([`SCRIPT_BYTES_PER_UNIT`]), and tapscript
//! ([`TAPSCRIPT_BYTES_PER_UNIT`]). None of them keeps a coin from being spent, or a block from being filled with what is
//! standard on Bitcoin.
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

/// The most operations that a transaction may execute outside of witnesses (BIP-0054; Bitcoin Core:
/// `MAX_TX_LEGACY_SIGOPS`).
pub const MAX_TX_LEGACY_SIGOPS: usize = 2_500;

/// Bytes of a transaction, without its witnesses, for each of which an operation that it executes outside of witnesses costs
/// one unit more. Such an operation may hash all of the transaction, and no cache helps where OP_CODESEPARATOR makes every
/// hash another one.
///
/// 80,000 units pay for 1.3 GB, about a second of SHA-256 where the processor has instructions for it, and three where it
/// has none: no more than as many signatures. A transaction of 100 kB, the largest that is standard, pays six units an
/// input beside the four that a signature costs.
pub const HASHED_BYTES_PER_UNIT: usize = 16_384;

/// Bytes of a spent script, if it is neither a witness program nor a script hash, for each of which it costs one unit: it is
/// not part of the block that spends it, so the block's weight does not bound its length, nor what it hashes.
///
/// 80,000 units pay for 5 MB of such scripts, which keeps reading, copying and running them below what as many signatures
/// cost. P2PKH and P2PK with a compressed key are shorter, and a bare multisig of three keys costs one or two units.
pub const SCRIPT_BYTES_PER_UNIT: usize = 64;

/// Bytes of a witness that runs a tapscript, for each of which it costs one unit: what BIP-0342 asks for a signature. Its
/// signatures and its hashes are bounded by the block's weight as it is; but a block could hold as many again in other
/// scripts, which take little weight.
pub const TAPSCRIPT_BYTES_PER_UNIT: usize = 50;

/// The first byte of a Taproot annex (BIP-0341).
const ANNEX_TAG: u8 = 0x50;

/// What OP_CHECKMULTISIG counts when the number of its keys is not in front of it.
const MAX_KEYS_PER_MULTISIG: usize = 20;

/// Returns the operations in the transaction's own scripts, each multisig counted as 20 (Core: `GetLegacySigOpCount`).
pub fn legacy(transaction: &Transaction) -> usize {
    let inputs = transaction.input.iter().map(|input| count(&input.script_sig, Multisig::AtMost));
    let outputs = transaction.output.iter().map(|output| count(&output.script_pubkey, Multisig::AtMost));
    inputs.chain(outputs).sum()
}

/// Returns what the inputs of a transaction cost that spends `coins`, one for each in their order. `base_size` is its size
/// without witnesses, in bytes. Stops at the input that is more than a block may cost: spent scripts may be long.
pub fn inputs_cost<'a>(transaction: &Transaction, base_size: usize, coins: impl Iterator<Item = &'a Coin>) -> usize {
    let hashing = base_size / HASHED_BYTES_PER_UNIT;
    let mut cost = 0;
    for (input, coin) in transaction.input.iter().zip(coins) {
        cost += input_cost(input, coin) + executed(input, coin) * hashing;
        if cost > MAX_SIGOPS_COST {
            break;
        }
    }
    cost
}

/// Returns how many operations an input may execute outside of witnesses: in its scriptSig, the script that it spends and
/// the redeem script, each multisig behind its number of keys counted as that number (BIP-0054; Core:
/// `CheckSigopsBIP54`).
pub fn executed(input: &TxIn, coin: &Coin) -> usize {
    let script = coin.output.script_pubkey.as_script();
    let redeem = script.is_p2sh().then(|| last_push(&input.script_sig)).flatten();
    accurate(&input.script_sig) + accurate(script) + redeem.map_or(0, accurate)
}

/// Returns the cost of what an input spends: of a witness (Core: `CountWitnessSigOps`), of a redeem script (Core:
/// `GetP2SHSigOpCount` x 4), of a tapscript, or of a spent script that is neither program nor script hash: its operations
/// x 4, and its length.
fn input_cost(input: &TxIn, coin: &Coin) -> usize {
    let script = coin.output.script_pubkey.as_script();
    if script.is_p2tr() {
        return if is_script_path(&input.witness) { input.witness.size() / TAPSCRIPT_BYTES_PER_UNIT } else { 0 };
    }
    if script.is_witness_program() {
        return witness_program(script, &input.witness);
    }
    if !script.is_p2sh() {
        return accurate(script) * WITNESS_SCALE_FACTOR + script.len() / SCRIPT_BYTES_PER_UNIT;
    }
    let Some(redeem) = last_push(&input.script_sig) else { return 0 };
    count(redeem, Multisig::Exact) * WITNESS_SCALE_FACTOR + witness_program(redeem, &input.witness)
}

/// Whether a Taproot output is spent by a script (BIP-0341): with two elements or more, once an annex is taken off.
fn is_script_path(witness: &Witness) -> bool {
    let annex = witness.len() >= 2 && witness.last().is_some_and(|last| last.first() == Some(&ANNEX_TAG));
    witness.len() - usize::from(annex) >= 2
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
