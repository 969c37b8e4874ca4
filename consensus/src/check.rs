//! Everything about a block that can be said without its chain.

use bitcoin::hashes::Hash;
use bitcoin::{Amount, OutPoint, Script, Transaction, TxOut, Weight};
use causeway_chainspec::{Params, PegScript, TARGET_BITS};

use crate::block::{Block, MAX_BLOCK_WEIGHT, Tx};
use crate::error::{InvalidBlock, InvalidTransaction};
use crate::merkle::{merkle_root, witness_commitment};
use crate::sigops::{self, MAX_SIGOPS_COST, WITNESS_SCALE_FACTOR};

/// The least header version (BIP-0065).
const MIN_BLOCK_VERSION: i32 = 4;

/// Bytes in front of a witness commitment: OP_RETURN, a push of 36 bytes, and BIP-0141's magic.
pub const WITNESS_COMMITMENT_PREFIX: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];

/// Bytes in front of a state commitment: OP_RETURN, a push of 37 bytes, `CWAY` and version 1 (DESIGN section 2).
pub const STATE_COMMITMENT_PREFIX: [u8; 7] = [0x6a, 0x25, b'C', b'W', b'A', b'Y', 0x01];

/// The peg transaction's place in a block that has one (PEG section 2).
pub(crate) const PEG_TRANSACTION_INDEX: usize = 1;

/// Inputs up to which comparing each with each is quicker than sorting them.
const FEW_INPUTS: usize = 8;

/// A block that is right in itself. What it spends, and on which chain it stands, is not known yet.
#[derive(Debug, Clone)]
pub struct CheckedBlock {
    block: Block,
    state_commitment: [u8; 32],
    legacy_sigops: Vec<usize>,
}

impl CheckedBlock {
    /// The block.
    pub fn block(&self) -> &Block {
        &self.block
    }

    /// What the coinbase says about the state before this block.
    pub(crate) fn state_commitment(&self) -> [u8; 32] {
        self.state_commitment
    }

    /// Operations in each transaction's own scripts, in block order.
    pub(crate) fn legacy_sigops(&self) -> &[usize] {
        &self.legacy_sigops
    }

    /// Gives the block back.
    pub(crate) fn into_block(self) -> Block {
        self.block
    }
}

/// Returns the block as a checked one, if it breaks no rule that needs no chain.
///
/// What can be altered without changing the block's hash is checked first, right after the header: see
/// [`InvalidBlock::is_mutation`].
///
/// # Errors
/// The first rule broken, in the order of the code.
pub fn check_block(block: Block, params: &Params) -> Result<CheckedBlock, InvalidBlock> {
    check_header(&block)?;
    check_merkle_root(&block)?;
    let (coinbase, others) = block.transactions().split_first().ok_or(InvalidBlock::NoTransactions)?;
    if !coinbase.transaction().is_coinbase() {
        return Err(InvalidBlock::CoinbaseMissing);
    }
    check_witness_commitment(&block, coinbase)?;
    let state_commitment = check_state_commitment(coinbase.transaction())?;
    check_weight(&block)?;

    for (index, tx) in (1..).zip(others) {
        if tx.transaction().is_coinbase() {
            return Err(InvalidBlock::CoinbaseRepeated { index });
        }
    }
    let script = coinbase.transaction().input[0].script_sig.len();
    if !(2..=100).contains(&script) {
        return Err(InvalidBlock::CoinbaseScriptLength { bytes: script });
    }
    for (index, tx) in block.transactions().iter().enumerate() {
        let place = if index == PEG_TRANSACTION_INDEX { Place::PegTransaction } else { Place::Ordinary };
        check_transaction_at(tx.transaction(), tx.base_size(), params, place)
            .map_err(|rule| InvalidBlock::Transaction { index, txid: tx.txid(), rule })?;
    }
    let legacy_sigops: Vec<usize> = block.transactions().iter().map(|tx| sigops::legacy(tx.transaction())).collect();
    if legacy_sigops.iter().sum::<usize>() * WITNESS_SCALE_FACTOR > MAX_SIGOPS_COST {
        return Err(InvalidBlock::TooManySigops { max: MAX_SIGOPS_COST });
    }
    Ok(CheckedBlock { block, state_commitment, legacy_sigops })
}

fn check_header(block: &Block) -> Result<(), InvalidBlock> {
    let header = block.header();
    let version = header.version.to_consensus();
    if version < MIN_BLOCK_VERSION {
        return Err(InvalidBlock::VersionTooLow { version });
    }
    let bits = header.bits.to_consensus();
    if bits != TARGET_BITS {
        return Err(InvalidBlock::WrongBits { bits, required: TARGET_BITS });
    }
    if !header.target().is_met_by(block.hash()) {
        return Err(InvalidBlock::HashAboveTarget { hash: block.hash() });
    }
    Ok(())
}

fn check_merkle_root(block: &Block) -> Result<(), InvalidBlock> {
    let tree = merkle_root(block.transactions().iter().map(|tx| tx.txid().to_byte_array()).collect());
    if tree.root != block.header().merkle_root.to_byte_array() {
        return Err(InvalidBlock::MerkleRootMismatch);
    }
    if tree.mutated {
        return Err(InvalidBlock::MerkleMutated);
    }
    Ok(())
}

/// BIP-0141, and DESIGN section 2: exactly one commitment, always, in the last output but one.
fn check_witness_commitment(block: &Block, coinbase: &Tx) -> Result<(), InvalidBlock> {
    let outputs = &coinbase.transaction().output;
    let place = outputs.len().checked_sub(2).ok_or(InvalidBlock::WitnessCommitmentForm)?;
    let committed: [u8; 32] = sole_commitment(outputs, place, &WITNESS_COMMITMENT_PREFIX, &WITNESS_COMMITMENT_PREFIX)
        .ok_or(InvalidBlock::WitnessCommitmentForm)?;

    let witness = &coinbase.transaction().input[0].witness;
    let reserved = witness.nth(0).filter(|value| witness.len() == 1 && value.len() == 32);
    let reserved = reserved.ok_or(InvalidBlock::WitnessReservedValue)?;

    if witness_commitment(block.transactions().iter().map(Tx::wtxid), reserved) != committed {
        return Err(InvalidBlock::WitnessCommitmentMismatch);
    }
    Ok(())
}

/// DESIGN section 2: `CWAY || 1 || commitment` in the last output, and nowhere else.
fn check_state_commitment(coinbase: &Transaction) -> Result<[u8; 32], InvalidBlock> {
    let place = coinbase.output.len() - 1;
    sole_commitment(&coinbase.output, place, &STATE_COMMITMENT_PREFIX, &STATE_COMMITMENT_PREFIX[..6])
        .ok_or(InvalidBlock::StateCommitmentForm)
}

/// Returns the 32 bytes after `prefix` in the output at `place`, if that output has no value and nothing more, and no
/// other output begins with `reserved`.
fn sole_commitment(outputs: &[TxOut], place: usize, prefix: &[u8], reserved: &[u8]) -> Option<[u8; 32]> {
    let repeated = |(vout, output): (usize, &TxOut)| vout != place && starts_with(&output.script_pubkey, reserved);
    if outputs[place].value != Amount::ZERO || outputs.iter().enumerate().any(repeated) {
        return None;
    }
    outputs[place].script_pubkey.as_bytes().strip_prefix(prefix)?.try_into().ok()
}

fn starts_with(script: &Script, prefix: &[u8]) -> bool {
    script.as_bytes().starts_with(prefix)
}

fn check_weight(block: &Block) -> Result<(), InvalidBlock> {
    let count = block.transactions().len() as u64;
    let head = 80 + bitcoin::VarInt(count).size() as u64;
    let weight = head * 4 + block.transactions().iter().map(Tx::weight).sum::<u64>();
    let weight = Weight::from_wu(weight);
    if weight > MAX_BLOCK_WEIGHT {
        return Err(InvalidBlock::TooHeavy { weight, max: MAX_BLOCK_WEIGHT });
    }
    Ok(())
}

/// Checks a transaction alone, on its way into a block. `base_size` is its size without witnesses, in bytes.
///
/// # Errors
/// The first rule broken, in the order of the code.
pub fn check_transaction(
    transaction: &Transaction,
    base_size: usize,
    params: &Params,
) -> Result<(), InvalidTransaction> {
    check_transaction_at(transaction, base_size, params, Place::Ordinary)
}

/// Where a transaction stands in its block.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Where a peg transaction stands if the block has one. It may create the reserve coin anew.
    PegTransaction,
    /// Anywhere else, or not known.
    Ordinary,
}

fn check_transaction_at(
    transaction: &Transaction,
    base_size: usize,
    params: &Params,
    place: Place,
) -> Result<(), InvalidTransaction> {
    if transaction.input.is_empty() {
        return Err(InvalidTransaction::NoInputs);
    }
    if transaction.output.is_empty() {
        return Err(InvalidTransaction::NoOutputs);
    }
    if Weight::from_wu(base_size as u64 * 4) > MAX_BLOCK_WEIGHT {
        return Err(InvalidTransaction::TooLarge);
    }
    let mut sum = Amount::ZERO;
    for (vout, output) in transaction.output.iter().enumerate() {
        if output.value > Amount::MAX_MONEY {
            return Err(InvalidTransaction::OutputValueOutOfRange { vout });
        }
        sum += output.value;
        if sum > Amount::MAX_MONEY {
            return Err(InvalidTransaction::OutputSumOutOfRange);
        }
    }
    if let Some(outpoint) = repeated_input(transaction) {
        return Err(InvalidTransaction::DuplicateInput { outpoint });
    }
    if !transaction.is_coinbase() {
        for (input, txin) in transaction.input.iter().enumerate() {
            if txin.previous_output.is_null() {
                return Err(InvalidTransaction::NullOutpoint { input });
            }
        }
    }
    check_peg_outputs(transaction, params, place)
}

fn repeated_input(transaction: &Transaction) -> Option<OutPoint> {
    let inputs = &transaction.input;
    if inputs.len() <= FEW_INPUTS {
        let repeated = |(i, input): (usize, &bitcoin::TxIn)| {
            inputs[..i].iter().any(|earlier| earlier.previous_output == input.previous_output)
        };
        return inputs
            .iter()
            .enumerate()
            .find(|&(i, input)| repeated((i, input)))
            .map(|(_, input)| input.previous_output);
    }
    let mut sorted: Vec<&OutPoint> = inputs.iter().map(|input| &input.previous_output).collect();
    sorted.sort_unstable();
    sorted.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| *pair[0])
}

/// PEG section 1. A reserve output stands only in block 1, which is derived, and as the first of a peg transaction.
fn check_peg_outputs(transaction: &Transaction, params: &Params, place: Place) -> Result<(), InvalidTransaction> {
    for (vout, output) in transaction.output.iter().enumerate() {
        let Some(script) = PegScript::of(&output.script_pubkey) else { continue };
        match script.map_err(|source| InvalidTransaction::PegScript { vout, source })? {
            PegScript::Reserve if place == Place::PegTransaction && vout == 0 => {}
            PegScript::Reserve => return Err(InvalidTransaction::CreatesReserve { vout }),
            PegScript::Request(_) if transaction.is_coinbase() => {
                return Err(InvalidTransaction::CoinbaseCreatesRequest { vout });
            }
            PegScript::Request(_) => {
                let (value, min, max) = (output.value, params.peg_out_min, params.peg_out_max);
                if !(min..=max).contains(&value) {
                    return Err(InvalidTransaction::RequestOutOfRange { vout, value, min, max });
                }
            }
        }
    }
    Ok(())
}
