//! Putting a block together: the layout of the coinbase, and the seal of commitments and nonce.
//!
//! Which transactions go in is the node's business.

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::transaction;
use bitcoin::{Amount, Block, OutPoint, ScriptBuf, Sequence, Target, Transaction, TxIn, TxMerkleNode, TxOut, Witness};
use causeway_chainspec::{Height, target_bits};

use crate::check::{STATE_COMMITMENT_PREFIX, WITNESS_COMMITMENT_PREFIX};
use crate::connect::height_push;
use crate::merkle::{merkle_root, witness_commitment};
use crate::tip::Tip;

/// Version of assembled headers: BIP-0009's base, no bit set.
const HEADER_VERSION: Version = Version::from_consensus(0x2000_0000);

/// BIP-0141's reserved value of assembled coinbases.
const WITNESS_RESERVED_VALUE: [u8; 32] = [0; 32];

/// Returns the block on top of `parent` with these transactions, sealed.
///
/// `time` must be later than the parent's median time past and not before the parent's time. `fees` is exactly what the
/// transactions pay; it goes to `fee_script`, in one output if it is not zero.
///
/// # Panics
/// If the parent has the last height of a chain.
pub fn assemble_block(
    parent: &Tip,
    time: u32,
    fees: Amount,
    fee_script: ScriptBuf,
    transactions: Vec<Transaction>,
) -> Block {
    let height = parent.height().next().expect("the chain has a height left");
    let mut txdata = vec![coinbase(height, parent.state_commitment(), fees, fee_script)];
    txdata.extend(transactions);
    let header = Header {
        version: HEADER_VERSION,
        prev_blockhash: parent.hash(),
        merkle_root: TxMerkleNode::all_zeros(),
        time,
        bits: target_bits(),
        nonce: 0,
    };
    let mut block = Block { header, txdata };
    seal(&mut block);
    block
}

/// Returns a coinbase in its layout (DESIGN section 2), with a witness commitment still to be filled in.
fn coinbase(height: Height, state_commitment: [u8; 32], fees: Amount, fee_script: ScriptBuf) -> Transaction {
    let fee_output = (fees > Amount::ZERO).then_some(TxOut { value: fees, script_pubkey: fee_script });
    let commitments =
        [commitment(&WITNESS_COMMITMENT_PREFIX, [0; 32]), commitment(&STATE_COMMITMENT_PREFIX, state_commitment)];
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: height_push(height),
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[WITNESS_RESERVED_VALUE]),
        }],
        output: fee_output.into_iter().chain(commitments).collect(),
    }
}

/// Returns the output without value that carries a commitment behind its prefix.
pub fn commitment(prefix: &[u8], hash: [u8; 32]) -> TxOut {
    let script_pubkey = ScriptBuf::from_bytes([prefix, &hash].concat());
    TxOut { value: Amount::ZERO, script_pubkey }
}

/// Fills in the witness commitment, the merkle root and a nonce that meets the target (two tries on average).
///
/// The witness commitment is the coinbase's last output but one, and its witness is the reserved value.
///
/// # Panics
/// If the block has no coinbase in the layout of DESIGN section 2.
pub fn seal(block: &mut Block) {
    let reserved = block.txdata[0].input[0].witness.nth(0).expect("the reserved value is there");
    let hash = witness_commitment(block.txdata.iter().map(Transaction::compute_wtxid), reserved);
    let outputs = &mut block.txdata[0].output;
    let place = outputs.len() - 2;
    outputs[place] = commitment(&WITNESS_COMMITMENT_PREFIX, hash);
    seal_header(block);
}

/// Fills in the merkle root and a nonce that meets the chain's target, and leaves the coinbase as it is.
pub fn seal_header(block: &mut Block) {
    let leaves = block.txdata.iter().map(|tx| tx.compute_txid().to_byte_array()).collect();
    block.header.merkle_root = TxMerkleNode::from_byte_array(merkle_root(leaves).root);
    block.header.nonce = 0;
    let target = Target::from_compact(target_bits());
    while !target.is_met_by(block.header.block_hash()) {
        block.header.nonce += 1;
    }
}
