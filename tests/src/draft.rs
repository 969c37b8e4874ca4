//! Blocks to bend: coins that anyone can spend, transactions that spend them, and edits under a fresh seal.

use bitcoin::absolute::LockTime;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::opcodes::all::{OP_CHECKSIG, OP_ENDIF, OP_IF, OP_PUSHNUM_1, OP_RETURN};
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::transaction::Version;
use bitcoin::{Amount, Block, OutPoint, ScriptBuf, Sequence, Target, Transaction, TxIn, TxOut, Txid, Witness};
use causeway_chainspec::{ChainSpec, Height, target_bits};
use causeway_consensus::Coin;
use causeway_consensus::assemble::{seal, seal_header};

use crate::chain::MemoryChain;

/// What a coin of [`free_coin`] is worth.
pub const COIN_VALUE: Amount = Amount::from_sat(100_000);

/// Returns the chain of the built-in devnet, whose next block is the one of height 101.
pub fn devnet() -> MemoryChain {
    MemoryChain::new(ChainSpec::built_in("devnet").expect("devnet is built in"))
}

/// Returns the script that anyone can spend, with nothing: `1`.
pub fn op_true() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![OP_PUSHNUM_1.to_u8()])
}

/// Returns a script of witness version 2, which is spent with any witness.
pub fn any_witness() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x52, 2, 0xab, 0xcd])
}

/// Returns a script that is always true and holds `operations` signature operations that it skips.
pub fn true_with_sigops(operations: usize) -> ScriptBuf {
    let skipped = Builder::new().push_int(0).push_opcode(OP_IF);
    let skipped = (0..operations).fold(skipped, |builder, _| builder.push_opcode(OP_CHECKSIG));
    skipped.push_opcode(OP_ENDIF).push_int(1).into_script()
}

/// Returns an OP_RETURN output of no value with `bytes` bytes after the opcode, none of which pushes anything.
pub fn ballast(bytes: usize) -> TxOut {
    let mut script = vec![OP_RETURN.to_u8()];
    script.resize(1 + bytes, OP_PUSHNUM_1.to_u8());
    TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(script) }
}

/// Returns the outpoint of a coin that no block created.
pub fn outpoint(number: u32) -> OutPoint {
    let seed = [b"causeway test coin".as_slice(), &number.to_le_bytes()].concat();
    OutPoint { txid: Txid::from_byte_array(sha256::Hash::hash(&seed).to_byte_array()), vout: number % 3 }
}

/// Adds a coin to the state, under the outpoint of `number`, and returns that.
pub fn put_coin(chain: &mut MemoryChain, number: u32, height: Height, output: TxOut) -> OutPoint {
    let coin = Coin { output, height, coinbase: false };
    chain.coins_mut().insert(outpoint(number), coin);
    outpoint(number)
}

/// Adds a coin of [`COIN_VALUE`] and height 1 that anyone can spend.
pub fn free_coin(chain: &mut MemoryChain, number: u32) -> OutPoint {
    put_coin(chain, number, Height(1), TxOut { value: COIN_VALUE, script_pubkey: op_true() })
}

/// Returns an input without scriptSig, witness or lock.
pub fn input(previous_output: OutPoint) -> TxIn {
    TxIn { previous_output, script_sig: ScriptBuf::new(), sequence: Sequence::MAX, witness: Witness::new() }
}

/// Returns the transaction (version 2, no lock) of these inputs and outputs.
pub fn transaction(inputs: &[OutPoint], output: Vec<TxOut>) -> Transaction {
    let input = inputs.iter().map(|outpoint| input(*outpoint)).collect();
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input, output }
}

/// Returns an output that anyone can spend.
pub fn free_output(value: Amount) -> TxOut {
    TxOut { value, script_pubkey: op_true() }
}

/// Returns the transaction that spends coins of [`COIN_VALUE`] to as many outputs that anyone can spend, without a fee.
///
/// As many, because the tip's count of coins does not know of those that were put in, and must not fall below zero.
pub fn move_coins(inputs: &[OutPoint]) -> Transaction {
    transaction(inputs, vec![free_output(COIN_VALUE); inputs.len()])
}

/// Returns a scriptSig of one push.
pub fn push(bytes: &[u8]) -> ScriptBuf {
    let bytes = PushBytesBuf::try_from(bytes.to_vec()).expect("a short element");
    Builder::new().push_slice(bytes).into_script()
}

/// Returns the block after an edit, with commitment, merkle root and nonce made anew.
pub fn edited(block: &Block, edit: impl FnOnce(&mut Block)) -> Block {
    let mut block = block.clone();
    edit(&mut block);
    seal(&mut block);
    block
}

/// Returns the block after an edit, with merkle root and nonce made anew and the commitments left as they are.
pub fn edited_as_is(block: &Block, edit: impl FnOnce(&mut Block)) -> Block {
    let mut block = block.clone();
    edit(&mut block);
    seal_header(&mut block);
    block
}

/// Returns the block under its own header after an edit of its body.
pub fn tampered(block: &Block, edit: impl FnOnce(&mut Block)) -> Block {
    let mut tampered = block.clone();
    edit(&mut tampered);
    assert_eq!(tampered.header, block.header, "only the body is altered");
    tampered
}

/// Returns the block with another nonce, so that its hash meets the chain's target or, if `met` is false, misses it.
pub fn ground(block: &Block, met: bool) -> Block {
    let mut block = block.clone();
    let target = Target::from_compact(target_bits());
    while target.is_met_by(block.header.block_hash()) != met {
        block.header.nonce = block.header.nonce.wrapping_add(1);
    }
    block
}

/// Returns a block on the tip with the shapes that parsers care about: a chain of spends within the block, witnesses
/// with several elements (an empty one among them), a transaction without witness, and fees.
pub fn varied_block(chain: &mut MemoryChain) -> Block {
    let coins = [1, 2, 3, 4].map(|number| free_coin(chain, number));
    let segwit = TxOut { value: COIN_VALUE, script_pubkey: any_witness() };
    let witness_coins = [5, 6].map(|number| put_coin(chain, number, Height(1), segwit.clone()));

    let first = move_coins(&coins[..2]);
    let then = |before: &Transaction| OutPoint { txid: before.compute_txid(), vout: 0 };
    let second = move_coins(&[then(&first)]);
    let mut third =
        transaction(&[witness_coins[0], coins[2], witness_coins[1]], vec![free_output(COIN_VALUE), ballast(5)]);
    third.input[0].witness = Witness::from_slice(&[vec![], vec![7; 40], vec![1]]);
    third.input[2].witness = Witness::from_slice(&[vec![3; 300]]);
    let fourth = transaction(&[then(&third), coins[3]], vec![free_output(COIN_VALUE); 2]);
    let paid = COIN_VALUE * 2;
    chain.next_block(paid, vec![first, second, third, fourth])
}
