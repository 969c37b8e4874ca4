//! Blocks 0 to 100, which are a pure function of the chainspec (DESIGN section 2, PEG section 1).
//!
//! Block 0 is the identity's genesis block, byte for byte. Block 1 creates the reserve coin, which holds the supply. The others are empty, so that
//! the reserve coin is mature when consensus starts at height 101. No certificate belongs to any of them.

use std::fmt;

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version as BlockVersion};
use bitcoin::constants::genesis_block;
use bitcoin::hashes::Hash;
use bitcoin::opcodes::all::OP_RETURN;
use bitcoin::script::Builder;
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Target, Transaction, TxIn, TxMerkleNode,
    TxOut, Witness,
};

use crate::canonical::ChainSpecHash;
use crate::peg_out_address::reserve_script;
use crate::spec::ChainSpecParts;
use crate::units::Height;

/// The last block that the chainspec fixes. Consensus decides those above.
pub const LAST_DERIVED_HEIGHT: Height = Height(100);

/// The `bits` of every header above block 0: half of all hashes meet this target. [`target_bits`] is the typed value.
pub const TARGET_BITS: u32 = 0x207f_ffff;

/// All coins: what the reserve, the circulation and nothing else add up to, in every block.
pub const SUPPLY: Amount = Amount::from_sat(SUPPLY_SAT);

/// [`SUPPLY`] in satoshi.
pub(crate) const SUPPLY_SAT: u64 = 21_000_000 * 100_000_000;

/// What the commitment of a coinbase starts with: `CWAY`.
pub const COMMITMENT_PREFIX: [u8; 4] = *b"CWAY";

/// Version of a commitment to the chainspec hash, in derived blocks. Decided blocks commit to the state with version 1.
pub const COMMITMENT_VERSION_CHAINSPEC: u8 = 0;

/// Every header's version: BIP9 with no bit set.
const HEADER_VERSION: BlockVersion = BlockVersion::from_consensus(0x2000_0000);

/// The identity of a chain: the hash of its block 1. Shown as block hashes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainId(BlockHash);

impl ChainId {
    /// The identity of the chain that starts with these blocks, of which there are at least two.
    pub(crate) fn of(derived: &[Block]) -> ChainId {
        ChainId(derived[1].block_hash())
    }

    /// The identity with these bytes, in the order of [`ChainId::to_byte_array`].
    pub fn from_byte_array(bytes: [u8; 32]) -> ChainId {
        ChainId(BlockHash::from_byte_array(bytes))
    }

    /// The 32 bytes in internal order (as hashed and signed), the reverse of what is shown.
    pub fn to_byte_array(self) -> [u8; 32] {
        self.0.to_byte_array()
    }

    /// The hash of block 1.
    pub fn block_hash(self) -> BlockHash {
        self.0
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// [`TARGET_BITS`] as a header holds them.
pub fn target_bits() -> CompactTarget {
    CompactTarget::from_consensus(TARGET_BITS)
}

/// The script of a coinbase's commitment: `OP_RETURN`, then one push of 37 bytes, `CWAY || version || commitment`.
pub fn commitment_script(version: u8, commitment: [u8; 32]) -> ScriptBuf {
    let mut push = [0; 37];
    push[..4].copy_from_slice(&COMMITMENT_PREFIX);
    push[4] = version;
    push[5..].copy_from_slice(&commitment);
    Builder::new().push_opcode(OP_RETURN).push_slice(push).into_script()
}

/// Blocks 0 to 100 of checked parts.
pub(crate) fn derive(parts: &ChainSpecParts, hash: ChainSpecHash) -> Vec<Block> {
    let mut blocks = vec![genesis_block(parts.params.identity)];
    for height in 1..=LAST_DERIVED_HEIGHT.to_u32() {
        let parent = blocks[blocks.len() - 1].block_hash();
        let coinbase = coinbase(height, hash);
        // genesis_time is at most 4,000,000,000.
        blocks.push(grind(parent, parts.genesis_time + (height - 1), coinbase));
    }
    blocks
}

fn coinbase(height: u32, hash: ChainSpecHash) -> Transaction {
    let mut output = Vec::new();
    if height == 1 {
        output.push(TxOut { value: SUPPLY, script_pubkey: reserve_script() });
    }
    output.push(TxOut {
        value: Amount::ZERO,
        script_pubkey: commitment_script(COMMITMENT_VERSION_CHAINSPEC, hash.to_byte_array()),
    });
    // BIP34 as Bitcoin Core writes it: heights 1 to 16 are opcodes, so the name follows to make two bytes of them.
    let script_sig = Builder::new().push_int(height.into()).push_slice(COMMITMENT_PREFIX).into_script();
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig,
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output,
    }
}

/// The block of one coinbase whose nonce is the least that meets the target.
fn grind(parent: BlockHash, time: u32, coinbase: Transaction) -> Block {
    let target = Target::from_compact(target_bits());
    let mut header = Header {
        version: HEADER_VERSION,
        prev_blockhash: parent,
        // The merkle root of one transaction is its txid.
        merkle_root: TxMerkleNode::from_raw_hash(coinbase.compute_txid().to_raw_hash()),
        time,
        bits: target_bits(),
        nonce: 0,
    };
    while !target.is_met_by(header.block_hash()) {
        header.nonce = header.nonce.checked_add(1).expect("of 2^32 hashes, half meet the target");
    }
    Block { header, txdata: vec![coinbase] }
}

#[cfg(test)]
mod tests;
