//! A transaction's own form.

use bitcoin::{Amount, OutPoint, Weight, Witness};
use causeway_chainspec::Height;
use causeway_consensus::{InvalidBlock, InvalidTransaction};
use causeway_tests::draft::{
    COIN_VALUE, ballast, devnet, edited, free_coin, free_output, input, move_coins, put_coin, transaction,
};

use crate::verdicts::{accepted, accepted_alone, refused, refused_alone, refused_for};

/// What a transaction broke is said with its place and id; of several, the first counts.
pub(crate) fn names_the_transaction() {
    let mut chain = devnet();
    let coins = [1, 2, 3].map(|number| free_coin(&mut chain, number));
    let block = chain.next_block(Amount::ZERO, coins.iter().map(|coin| move_coins(&[*coin])).collect());
    accepted(&chain, &block);
    for index in [1, 2, 3] {
        let block = edited(&block, |block| block.txdata[index..].iter_mut().for_each(|tx| tx.output.clear()));
        let txid = block.txdata[index].compute_txid();
        refused(&chain, &block, InvalidBlock::Transaction { index, txid, rule: InvalidTransaction::NoOutputs });
    }
}

pub(crate) fn no_inputs() {
    let mut chain = devnet();
    let coin = free_coin(&mut chain, 1);
    let block = chain.next_block(Amount::ZERO, vec![move_coins(&[coin])]);
    accepted(&chain, &block);
    let without = edited(&block, |block| block.txdata[1].input.clear());
    refused_for(&chain, &without, 1, InvalidTransaction::NoInputs);
    refused_alone(&chain, &without.txdata[1], InvalidTransaction::NoInputs);
}

pub(crate) fn no_outputs() {
    let mut chain = devnet();
    let coin = free_coin(&mut chain, 1);
    let to_fees = transaction(&[coin], vec![free_output(Amount::ZERO)]);
    let block = chain.next_block(COIN_VALUE, vec![to_fees]);
    accepted(&chain, &block);
    let without = edited(&block, |block| block.txdata[1].output.clear());
    refused_for(&chain, &without, 1, InvalidTransaction::NoOutputs);
    refused_alone(&chain, &without.txdata[1], InvalidTransaction::NoOutputs);
}

/// A transaction alone: in a block, the block's weight is refused first.
pub(crate) fn too_large() {
    let mut chain = devnet();
    let coin = free_coin(&mut chain, 1);
    let of_size = |base_size: usize| {
        let mut large = transaction(&[coin], vec![ballast(900_000)]);
        let missing = base_size - large.base_size();
        large.output[0] = ballast(900_000 + missing);
        assert_eq!(large.base_size(), base_size);
        large
    };
    accepted_alone(&chain, &of_size(1_000_000));
    refused_alone(&chain, &of_size(1_000_001), InvalidTransaction::TooLarge);
    // Witnesses do not count here.
    let mut with_witness = of_size(1_000_000);
    with_witness.input[0].witness = Witness::from_slice(&[[0; 100]]);
    accepted_alone(&chain, &with_witness);

    let block = chain.next_block(COIN_VALUE, vec![of_size(1_000_001)]);
    refused(&chain, &block, InvalidBlock::TooHeavy { weight: block.weight(), max: Weight::MAX_BLOCK });
}

pub(crate) fn output_value_out_of_range() {
    let mut chain = devnet();
    let all = put_coin(&mut chain, 1, Height(1), free_output(Amount::MAX_MONEY));
    let block = chain.next_block(Amount::ZERO, vec![transaction(&[all], vec![free_output(Amount::MAX_MONEY)])]);
    accepted(&chain, &block);
    let max = Amount::MAX_MONEY.to_sat();
    for (vout, value) in [(0, max + 1), (0, 1 << 63), (0, u64::MAX), (1, max + 1)] {
        let with_value = edited(&block, |block| {
            let outputs = &mut block.txdata[1].output;
            outputs.insert(0, free_output(Amount::ZERO));
            outputs.truncate(2);
            outputs[1].value = Amount::ZERO;
            outputs[vout].value = Amount::from_sat(value);
        });
        refused_for(&chain, &with_value, 1, InvalidTransaction::OutputValueOutOfRange { vout });
    }
    // The coinbase too.
    let coinbase = edited(&block, |block| block.txdata[0].output.insert(0, free_output(Amount::from_sat(max + 1))));
    refused_for(&chain, &coinbase, 0, InvalidTransaction::OutputValueOutOfRange { vout: 0 });
}

pub(crate) fn output_sum_out_of_range() {
    let mut chain = devnet();
    let all = put_coin(&mut chain, 1, Height(1), free_output(Amount::MAX_MONEY));
    let half = free_output(Amount::MAX_MONEY / 2);
    let block = chain.next_block(Amount::ZERO, vec![transaction(&[all], vec![half; 2])]);
    accepted(&chain, &block);
    let above = edited(&block, |block| block.txdata[1].output[1].value += Amount::ONE_SAT);
    refused_for(&chain, &above, 1, InvalidTransaction::OutputSumOutOfRange);
    let above = edited(&block, |block| block.txdata[1].output.push(free_output(Amount::ONE_SAT)));
    refused_for(&chain, &above, 1, InvalidTransaction::OutputSumOutOfRange);
    // 2^64 satoshi, which would wrap to nothing (CVE-2010-5139), is refused long before.
    let wrapping = edited(&block, |block| block.txdata[1].output = vec![free_output(Amount::MAX_MONEY); 8_784]);
    refused_for(&chain, &wrapping, 1, InvalidTransaction::OutputSumOutOfRange);
    let coinbase = edited(&block, |block| {
        block.txdata[0].output.splice(..0, [free_output(Amount::MAX_MONEY), free_output(Amount::ONE_SAT)]);
    });
    refused_for(&chain, &coinbase, 0, InvalidTransaction::OutputSumOutOfRange);
}

/// CVE-2018-17144. Few inputs are compared in another way than many.
pub(crate) fn duplicate_input() {
    for count in [2, 7, 8, 9, 30] {
        let mut chain = devnet();
        let coins: Vec<OutPoint> = (0..count).map(|number| free_coin(&mut chain, number)).collect();
        let block = chain.next_block(Amount::ZERO, vec![move_coins(&coins)]);
        accepted(&chain, &block);
        for (from, to) in [(0, coins.len() - 1), (coins.len() - 1, 0), (0, 1)] {
            let outpoint = coins[from];
            let twice = edited(&block, |block| block.txdata[1].input[to].previous_output = outpoint);
            refused_for(&chain, &twice, 1, InvalidTransaction::DuplicateInput { outpoint });
            refused_alone(&chain, &twice.txdata[1], InvalidTransaction::DuplicateInput { outpoint });
        }
        // Another scriptSig, sequence or witness does not make it another coin.
        let differing = edited(&block, |block| {
            let mut again = input(coins[0]);
            again.sequence = bitcoin::Sequence::ZERO;
            again.witness = Witness::from_slice(&[[1]]);
            block.txdata[1].input.push(again);
        });
        refused_for(&chain, &differing, 1, InvalidTransaction::DuplicateInput { outpoint: coins[0] });
    }
}

pub(crate) fn null_outpoint() {
    let mut chain = devnet();
    let coins = [1, 2].map(|number| free_coin(&mut chain, number));
    let block = chain.next_block(Amount::ZERO, vec![move_coins(&coins)]);
    accepted(&chain, &block);
    for input in [0, 1] {
        let null = edited(&block, |block| block.txdata[1].input[input].previous_output = OutPoint::null());
        refused_for(&chain, &null, 1, InvalidTransaction::NullOutpoint { input });
    }
    // Only the null outpoint as a whole: half of it is a coin that does not exist.
    let halves = [OutPoint { vout: 0, ..OutPoint::null() }, OutPoint { vout: u32::MAX, ..coins[0] }];
    for outpoint in halves {
        let half = edited(&block, |block| block.txdata[1].input[1].previous_output = outpoint);
        refused_for(&chain, &half, 1, InvalidTransaction::MissingInput { outpoint });
    }
}
