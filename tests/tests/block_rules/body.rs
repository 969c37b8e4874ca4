//! The body as a whole: merkle tree, coinbase, weight, one spender for each coin, the sum of the fees.

use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::{Amount, OutPoint, TxMerkleNode, Weight, Witness};
use causeway_chainspec::Height;
use causeway_consensus::InvalidBlock;
use causeway_tests::draft::{
    COIN_VALUE, any_witness, devnet, edited, edited_as_is, free_coin, free_output, ground, move_coins, put_coin,
    tampered, transaction,
};

use crate::verdicts::{accepted, refused};

pub(crate) fn no_transactions() {
    let chain = devnet();
    let block = chain.next_block(Amount::ZERO, vec![]);
    accepted(&chain, &block);
    // The merkle root of nothing is zero.
    let mut empty = tampered(&block, |block| block.txdata.clear());
    refused(&chain, &empty, InvalidBlock::MerkleRootMismatch);
    empty.header.merkle_root = TxMerkleNode::all_zeros();
    refused(&chain, &ground(&empty, true), InvalidBlock::NoTransactions);
}

pub(crate) fn merkle_root_mismatch() {
    let mut chain = devnet();
    let coins = [1, 2].map(|number| free_coin(&mut chain, number));
    let block = chain.next_block(Amount::ZERO, coins.iter().map(|coin| move_coins(&[*coin])).collect());
    accepted(&chain, &block);

    let mut other_root = block.clone();
    let mut root = other_root.header.merkle_root.to_byte_array();
    root[31] ^= 1;
    other_root.header.merkle_root = TxMerkleNode::from_byte_array(root);
    refused(&chain, &ground(&other_root, true), InvalidBlock::MerkleRootMismatch);

    let bodies = [
        tampered(&block, |block| block.txdata.swap(1, 2)),
        tampered(&block, |block| drop(block.txdata.pop())),
        tampered(&block, |block| block.txdata.push(move_coins(&[OutPoint::default()]))),
        tampered(&block, |block| block.txdata[1].output[0].value -= Amount::ONE_SAT),
        tampered(&block, |block| block.txdata[0].input[0].script_sig.push_opcode(bitcoin::opcodes::OP_0)),
    ];
    for body in bodies {
        refused(&chain, &body, InvalidBlock::MerkleRootMismatch);
    }
}

/// CVE-2012-2459: an odd level of the tree repeats its last node, so a body that repeats it has the same root.
pub(crate) fn merkle_mutated() {
    // (transactions, how many of the last are repeated)
    for (count, repeated) in [(3, 1), (5, 1), (6, 2), (7, 1), (9, 1), (10, 2), (12, 4)] {
        let mut chain = devnet();
        let coins = (1..count).map(|number| free_coin(&mut chain, number));
        let transactions = coins.collect::<Vec<_>>().iter().map(|coin| move_coins(&[*coin])).collect();
        let block = chain.next_block(Amount::ZERO, transactions);
        assert_eq!(block.txdata.len(), count as usize);
        accepted(&chain, &block);
        let mutated = tampered(&block, |block| {
            block.txdata.extend_from_within(block.txdata.len() - repeated..);
        });
        refused(&chain, &mutated, InvalidBlock::MerkleMutated);
        accepted(&chain, &block);
    }

    // A pair of equal transactions anywhere is one too, whoever made the header.
    let mut chain = devnet();
    let coin = free_coin(&mut chain, 1);
    let twice = chain.next_block(Amount::ZERO, vec![move_coins(&[coin]); 3]);
    refused(&chain, &twice, InvalidBlock::MerkleMutated);
}

pub(crate) fn coinbase_missing() {
    let mut chain = devnet();
    let coin = free_coin(&mut chain, 1);
    let block = chain.next_block(Amount::ZERO, vec![move_coins(&[coin])]);
    accepted(&chain, &block);

    let cases = [
        edited_as_is(&block, |block| drop(block.txdata.remove(0))),
        edited_as_is(&block, |block| block.txdata.swap(0, 1)),
        edited_as_is(&block, |block| block.txdata[0].input[0].previous_output.vout = 0),
        edited_as_is(&block, |block| {
            let second = block.txdata[0].input[0].clone();
            block.txdata[0].input.push(second);
        }),
    ];
    for case in cases {
        refused(&chain, &case, InvalidBlock::CoinbaseMissing);
    }
}

pub(crate) fn coinbase_repeated() {
    let mut chain = devnet();
    let coin = free_coin(&mut chain, 1);
    let block = chain.next_block(Amount::ZERO, vec![move_coins(&[coin])]);
    accepted(&chain, &block);
    for index in [1, 2] {
        let two = edited(&block, |block| {
            let mut second = block.txdata[0].clone();
            second.output[0].value = Amount::ZERO;
            second.input[0].script_sig.push_opcode(bitcoin::opcodes::OP_0);
            block.txdata.insert(index, second);
        });
        refused(&chain, &two, InvalidBlock::CoinbaseRepeated { index });
    }
}

pub(crate) fn too_heavy() {
    // 300 transactions, so that their count takes three bytes.
    let mut chain = devnet();
    let segwit = free_output(COIN_VALUE);
    let segwit = bitcoin::TxOut { script_pubkey: any_witness(), ..segwit };
    let coin = put_coin(&mut chain, 0, Height(1), segwit);
    let others: Vec<OutPoint> = (1..299).map(|number| free_coin(&mut chain, number)).collect();
    let with_witness = |bytes: usize| {
        let mut large = move_coins(&[coin]);
        large.input[0].witness = Witness::from_slice(&[vec![0; bytes]]);
        let mut transactions: Vec<_> = others.iter().map(|coin| move_coins(&[*coin])).collect();
        transactions.push(large);
        chain.next_block(Amount::ZERO, transactions)
    };
    let probe = with_witness(1_000_000);
    assert_eq!(probe.txdata.len(), 300);
    let room = usize::try_from((Weight::MAX_BLOCK - probe.weight()).to_wu()).expect("fits");
    let full = with_witness(1_000_000 + room);
    assert_eq!(full.weight(), Weight::MAX_BLOCK);
    accepted(&chain, &full);

    let over = with_witness(1_000_001 + room);
    assert_eq!(serialize(&over).len(), serialize(&full).len() + 1);
    let weight = Weight::MAX_BLOCK + Weight::from_wu(1);
    refused(&chain, &over, InvalidBlock::TooHeavy { weight, max: Weight::MAX_BLOCK });
}

pub(crate) fn double_spend() {
    let mut chain = devnet();
    let [a, b, c] = [1, 2, 3].map(|number| free_coin(&mut chain, number));
    let block = chain.next_block(Amount::ZERO, vec![move_coins(&[a, b]), move_coins(&[c])]);
    accepted(&chain, &block);

    let of_the_state = chain.next_block(Amount::ZERO, vec![move_coins(&[a, b]), move_coins(&[c, b])]);
    refused(&chain, &of_the_state, InvalidBlock::DoubleSpend { outpoint: b });

    // A transaction in the block twice, with another between, so that no two neighbours in the tree are equal.
    let repeated = chain.next_block(Amount::ZERO, vec![move_coins(&[a]), move_coins(&[c]), move_coins(&[a])]);
    refused(&chain, &repeated, InvalidBlock::DoubleSpend { outpoint: a });

    let first = move_coins(&[a]);
    let within = OutPoint { txid: first.compute_txid(), vout: 0 };
    let mut spenders = vec![first, move_coins(&[within]), move_coins(&[b])];
    accepted(&chain, &chain.next_block(Amount::ZERO, spenders.clone()));
    spenders[2] = move_coins(&[b, within]);
    refused(&chain, &chain.next_block(Amount::ZERO, spenders), InvalidBlock::DoubleSpend { outpoint: within });
}

/// Coins beyond the supply, which no block creates, are put in.
pub(crate) fn fees_out_of_range() {
    let mut chain = devnet();
    let all = put_coin(&mut chain, 1, Height(1), free_output(Amount::MAX_MONEY));
    let more = put_coin(&mut chain, 2, Height(1), free_output(Amount::ONE_SAT));
    let to_fees = |coin| transaction(&[coin], vec![free_output(Amount::ZERO)]);
    let block = chain.next_block(Amount::MAX_MONEY, vec![to_fees(all)]);
    assert_eq!(accepted(&chain, &block).fees(), Amount::MAX_MONEY);
    let block = chain.next_block(Amount::MAX_MONEY, vec![to_fees(all), to_fees(more)]);
    refused(&chain, &block, InvalidBlock::FeesOutOfRange);
}
