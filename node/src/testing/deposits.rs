//! Coins on a new chain by real peg-ins, from a Bitcoin of a few blocks.

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version as BlockVersion};
use bitcoin::hashes::{Hash, sha256};
use bitcoin::script::Builder;
use bitcoin::secp256k1::SECP256K1;
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, Block, OutPoint, ScriptBuf, Sequence, Target, Transaction, TxIn, TxMerkleNode, TxOut, Txid, Witness,
};
use causeway_chainspec::{BitcoinHeight, devnet};
use causeway_consensus::peg::PegState;
use causeway_consensus::peg::evidence::PegIn;
use causeway_consensus::peg::header_tree::HeaderRun;
use causeway_consensus::peg::proof::InclusionProof;
use causeway_consensus::peg::propose::Candidates;
use causeway_consensus::peg::script::DepositTerms;
use causeway_consensus::peg::step::peg_in_fee;

/// What the next two blocks of a new chain carry to peg in each of `outputs`: Bitcoin's headers up to `final_depth`, then
/// the deposits, which are all in the first block. `time` is that of the tip. The credits are outputs 1 and on of the second
/// peg transaction, in an order of their own.
pub(crate) fn deposits(peg: &PegState, time: u32, outputs: &[TxOut]) -> [Candidates; 2] {
    let network = peg.network();
    let refund_key = devnet::secret_key(devnet::FUNDS, 0).x_only_public_key(SECP256K1).0;
    let terms = |destination| DepositTerms { epoch: network.current().epoch().number(), destination, refund_key };
    let terms: Vec<DepositTerms> = outputs.iter().map(|output| terms(output.script_pubkey.clone())).collect();
    let fee = deposit_fee(peg);
    let deposit = |(number, (output, terms)): (u32, (&TxOut, &DepositTerms))| {
        let script_pubkey = network.current().deposit_script(network.chain(), terms);
        let txid = Txid::from_byte_array(sha256::Hash::hash(&number.to_le_bytes()).to_byte_array());
        let spent = OutPoint { txid, vout: 0 };
        transaction(spent, ScriptBuf::new(), TxOut { value: output.value + fee, script_pubkey })
    };
    let deposits = (0..).zip(outputs.iter().zip(&terms)).map(deposit).collect();

    let mut blocks = vec![block(*network.start().header(), 1, time, deposits)];
    for height in 2..=network.params().final_depth {
        blocks.push(block(blocks[blocks.len() - 1].header, height, time + height, vec![]));
    }
    let headers: Vec<Header> = blocks.iter().map(|block| block.header).collect();
    let height = BitcoinHeight(network.start().height().to_u32() + 1);
    let claim = |(place, terms): (usize, DepositTerms)| {
        let proof = InclusionProof::of_block(&blocks[0], height, place).expect("the deposit is there");
        PegIn { terms, vout: 0, proof }
    };
    let peg_ins = (1..).zip(terms).map(claim).collect();
    [
        Candidates { headers: HeaderRun::between(&headers), ..Candidates::default() },
        Candidates { peg_ins, ..Candidates::default() },
    ]
}

/// What the next two blocks of a chain carry so that a version of a batch is confirmed: Bitcoin's headers up to
/// `final_depth` above the block that holds it, then the proof.
pub(crate) fn burial(peg: &PegState, version: Transaction) -> [Candidates; 2] {
    let tip = peg.headers().tip();
    let parent = *peg.headers().best(tip.height).expect("the tip is on the best chain");
    let first = tip.height.to_u32() + 1;
    let mut blocks = vec![block(parent, first, tip.time + 1, vec![version])];
    for above in 1..peg.network().params().final_depth {
        blocks.push(block(blocks[blocks.len() - 1].header, first + above, tip.time + 1 + above, vec![]));
    }
    let headers: Vec<Header> = blocks.iter().map(|block| block.header).collect();
    let proof = InclusionProof::of_block(&blocks[0], BitcoinHeight(first), 1).expect("it is there");
    [
        Candidates { headers: HeaderRun::between(&headers), ..Candidates::default() },
        Candidates { confirmed: vec![proof], ..Candidates::default() },
    ]
}

/// What is kept of each deposit.
pub(crate) fn deposit_fee(peg: &PegState) -> Amount {
    peg_in_fee(peg.agreed_rate(), peg.network().current().epoch().worst_deposit_input_weight())
}

/// A block of regtest after another one, with the work that its header says.
fn block(parent: Header, height: u32, time: u32, transactions: Vec<Transaction>) -> Block {
    let script_sig = Builder::new().push_int(height.into()).push_slice(height.to_le_bytes()).into_script();
    let coinbase =
        transaction(OutPoint::null(), script_sig, TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::new() });
    let header = Header {
        version: BlockVersion::from_consensus(0x2000_0000),
        prev_blockhash: parent.block_hash(),
        merkle_root: TxMerkleNode::all_zeros(),
        time,
        bits: parent.bits,
        nonce: 0,
    };
    let mut block = Block { header, txdata: [vec![coinbase], transactions].concat() };
    block.header.merkle_root = block.compute_merkle_root().expect("it has transactions");
    while !Target::from_compact(block.header.bits).is_met_by(block.block_hash()) {
        block.header.nonce += 1;
    }
    block
}

/// Unsigned: the peg reads no witness.
fn transaction(spent: OutPoint, script_sig: ScriptBuf, output: TxOut) -> Transaction {
    let input = TxIn { previous_output: spent, script_sig, sequence: Sequence::MAX, witness: Witness::new() };
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![input], output: vec![output] }
}
