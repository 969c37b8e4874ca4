//! What a verdict says of a hash. A body that was altered on its way condemns whoever sent it, never the block: the
//! honest body of the same hash is still accepted.

use bitcoin::absolute::LockTime;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::{Amount, BlockHash, OutPoint, ScriptBuf, Transaction, Witness};
use causeway_consensus::{InvalidBlock, NotReady, ResolveError, check_block, parse_block, resolve};
use causeway_tests::draft::{
    devnet, edited, free_coin, free_output, ground, move_coins, tampered, transaction, varied_block,
};

use crate::verdicts::{accepted, accepted_bytes, refused, refused_bytes};

/// Everything that a relay can do to a body without touching the header.
#[test]
fn an_altered_body_does_not_condemn_its_hash() {
    let mut chain = devnet();
    let block = varied_block(&mut chain);
    let bytes = serialize(&block);
    let witness = |index: usize, input: usize, elements: &[&[u8]]| {
        let elements = elements.iter().map(|element| element.to_vec()).collect::<Vec<_>>();
        tampered(&block, |block| block.txdata[index].input[input].witness = Witness::from_slice(&elements))
    };
    let mismatch = InvalidBlock::WitnessCommitmentMismatch;
    let cases = [
        (witness(3, 0, &[&[1]]), mismatch.clone()),
        (witness(3, 0, &[]), mismatch.clone()),
        (witness(3, 1, &[&[]]), mismatch.clone()),
        (witness(1, 0, &[&[0; 100_000]]), mismatch.clone()),
        (witness(0, 0, &[&[1; 32]]), mismatch),
        (witness(0, 0, &[]), InvalidBlock::WitnessReservedValue),
        (witness(0, 0, &[&[0; 32], &[0; 32]]), InvalidBlock::WitnessReservedValue),
        (tampered(&block, |block| block.txdata.clear()), InvalidBlock::MerkleRootMismatch),
        (tampered(&block, |block| block.txdata.truncate(1)), InvalidBlock::MerkleRootMismatch),
        (tampered(&block, |block| block.txdata.swap(1, 3)), InvalidBlock::MerkleRootMismatch),
        (tampered(&block, |block| block.txdata.extend_from_within(4..)), InvalidBlock::MerkleMutated),
    ];
    for (case, error) in cases {
        assert_eq!(case.block_hash(), block.block_hash());
        assert!(error.is_mutation());
        refused(&chain, &case, error);
        accepted(&chain, &block);
    }
    // Even one that is heavier than any block, by its witness.
    let heavy = witness(3, 0, &[&vec![0; 3_990_000]]);
    assert!(heavy.weight() < bitcoin::Weight::MAX_BLOCK);
    refused(&chain, &heavy, InvalidBlock::WitnessCommitmentMismatch);
    let heavy = witness(3, 0, &[&vec![0; 3_998_500]]);
    assert!(heavy.weight() > bitcoin::Weight::MAX_BLOCK);
    refused(&chain, &heavy, InvalidBlock::WitnessCommitmentMismatch);

    let mut long = bytes.clone();
    long.resize(4_000_001, 0);
    refused_bytes(&chain, long, InvalidBlock::TooManyBytes { bytes: 4_000_001, max: 4_000_000 });
    let trailing = [bytes.as_slice(), &[0]].concat();
    refused_bytes(&chain, trailing, InvalidBlock::Malformed { offset: bytes.len() });
    accepted_bytes(&chain, bytes);
}

/// Two ids side by side are 64 bytes, and can be made to decode as one transaction, whose id is their parent in the tree:
/// about 2^16 tries over the second id and 2^8 over the first. A body of that transaction alone has the honest block's
/// header. It has no coinbase, since that would take 2^224 tries (Bitcoin Core: `IsBlockMutated`).
#[test]
fn two_ids_that_decode_as_one_transaction_do_not_condemn_the_hash() {
    let as_one = |first: &[u8], second: &[u8]| deserialize::<Transaction>(&[first, second].concat());
    // version || one input: 32 bytes and an index, a script, a sequence || outputs, mostly none || lock time
    let any_first = [&[0; 4][..], &[1], &[0; 27]].concat();
    let mut chain = devnet();
    let mut spender = move_coins(&[free_coin(&mut chain, 1)]);
    let fits = |spender: &Transaction| as_one(&any_first, spender.compute_txid().as_ref()).is_ok();
    let mut lock_times = 0..;
    while !fits(&spender) {
        spender.lock_time = LockTime::from_consensus(lock_times.next().expect("one in 2^16 fits"));
    }
    let unfit = chain.next_block(Amount::ZERO, vec![spender]);
    let block = (0..=u16::MAX)
        .map(|extra| {
            edited(&unfit, |block| {
                let script = [block.txdata[0].input[0].script_sig.as_bytes(), &extra.to_le_bytes()].concat();
                block.txdata[0].input[0].script_sig = ScriptBuf::from_bytes(script);
            })
        })
        .find(|block| block.txdata[0].compute_txid().to_byte_array()[4] == 1)
        .expect("one in 256");
    accepted(&chain, &block);

    let [first, second] = [0, 1].map(|index| block.txdata[index].compute_txid());
    let one = as_one(first.as_ref(), second.as_ref()).expect("made to decode");
    let forged = tampered(&block, |block| block.txdata = vec![one]);
    assert_eq!((serialize(&forged.txdata[0]).len(), forged.block_hash()), (64, block.block_hash()));
    refused(&chain, &forged, InvalidBlock::CoinbaseMissing);
    assert!(InvalidBlock::CoinbaseMissing.is_mutation());
    accepted(&chain, &block);
}

/// A block on another parent is neither valid nor invalid.
#[test]
fn another_parent_is_not_ready() {
    let mut chain = devnet();
    let coin = free_coin(&mut chain, 1);
    // It even spends a coin that does not exist here.
    let nowhere = OutPoint { vout: coin.vout + 1, ..coin };
    let block = chain.next_block(Amount::ZERO, vec![transaction(&[nowhere], vec![free_output(Amount::ZERO)])]);
    let mut block = block;
    block.header.prev_blockhash = BlockHash::from_byte_array([7; 32]);
    let block = ground(&block, true);
    let parsed = parse_block(serialize(&block)).expect("well formed");
    let checked = check_block(parsed, chain.spec.params()).expect("right in itself");
    let tip = causeway_consensus::ChainView::tip(&chain);
    match resolve(checked, &chain) {
        Err(ResolveError::NotReady(NotReady::ParentNotTip { parent, tip: ours, height })) => {
            assert_eq!((parent, ours, height), (block.header.prev_blockhash, tip.hash(), tip.height()));
        }
        other => panic!("{other:?}"),
    }
}
