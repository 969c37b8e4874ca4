//! The coinbase: its script, its two commitments, its value.

use bitcoin::script::Builder;
use bitcoin::{Amount, Block, ScriptBuf, TxOut, Witness};
use causeway_chainspec::Height;
use causeway_consensus::assemble::commitment;
use causeway_consensus::check::{STATE_COMMITMENT_PREFIX, WITNESS_COMMITMENT_PREFIX};
use causeway_consensus::connect::height_push;
use causeway_consensus::{ChainView, InvalidBlock};
use causeway_tests::draft::{
    ballast, devnet, edited, edited_as_is, free_coin, free_output, move_coins, tampered, transaction, varied_block,
};

use crate::verdicts::{accepted, refused};

fn with_script(block: &Block, script: Vec<u8>) -> Block {
    edited(block, |block| block.txdata[0].input[0].script_sig = ScriptBuf::from_bytes(script))
}

pub(crate) fn script_length() {
    let chain = devnet();
    let block = chain.next_block(Amount::ZERO, vec![]);
    let height = height_push(Height(101)).to_bytes();
    assert_eq!(height.len(), 2);
    for bytes in [2, 3, 99, 100] {
        let mut script = height.clone();
        script.resize(bytes, 0);
        accepted(&chain, &with_script(&block, script));
    }
    for bytes in [0, 1, 101, 10_000] {
        let mut script = height.clone();
        script.resize(bytes, 0);
        refused(&chain, &with_script(&block, script), InvalidBlock::CoinbaseScriptLength { bytes });
    }
}

/// BIP-0034: the height in the one way that Core's `CScript() << nHeight` writes it.
pub(crate) fn height() {
    let mut chain = devnet();
    let block = chain.next_block(Amount::ZERO, vec![]);
    accepted(&chain, &with_script(&block, vec![1, 101]));
    accepted(&chain, &with_script(&block, vec![1, 101, 0xff, 0xff]));
    let others: [&[u8]; 8] =
        [&[1, 100], &[1, 102], &[2, 101, 0], &[0x4c, 1, 101], &[0x51, 101], &[101, 1], &[3, 101, 0, 0], &[1, 0xe5]];
    for script in others {
        let error = InvalidBlock::CoinbaseHeight { height: Height(101) };
        refused(&chain, &with_script(&block, script.to_vec()), error);
    }

    // From height 128 on the number needs a second byte, for its sign.
    chain.grow(27);
    let block = chain.next_block(Amount::ZERO, vec![]);
    accepted(&chain, &with_script(&block, vec![2, 128, 0]));
    let error = InvalidBlock::CoinbaseHeight { height: Height(128) };
    refused(&chain, &with_script(&block, vec![1, 128]), error);
}

pub(crate) fn witness_commitment_form() {
    let mut chain = devnet();
    let block = varied_block(&mut chain);
    accepted(&chain, &block);
    let outputs = block.txdata[0].output.len();
    let place = outputs - 2;

    // Outputs elsewhere are free, as long as none begins as a commitment does.
    let short = ScriptBuf::from_bytes(WITNESS_COMMITMENT_PREFIX[..5].to_vec());
    let almost = edited(&block, |block| block.txdata[0].output.insert(0, TxOut { script_pubkey: short, ..ballast(0) }));
    accepted(&chain, &almost);

    let real = block.txdata[0].output[place].clone();
    let bare = TxOut { script_pubkey: ScriptBuf::from_bytes(WITNESS_COMMITMENT_PREFIX.to_vec()), ..real.clone() };
    let other = commitment(&WITNESS_COMMITMENT_PREFIX, [7; 32]);
    let longer = [real.script_pubkey.as_bytes(), &[0]].concat();
    let shorter = real.script_pubkey.as_bytes()[..37].to_vec();
    let cases = [
        edited_as_is(&block, |block| drop(block.txdata[0].output.remove(place))),
        edited_as_is(&block, |block| block.txdata[0].output.truncate(1)),
        edited_as_is(&block, |block| block.txdata[0].output.clear()),
        // In another place: first, last.
        edited_as_is(&block, |block| block.txdata[0].output.swap(0, place)),
        edited_as_is(&block, |block| block.txdata[0].output.swap(place, place + 1)),
        edited_as_is(&block, |block| block.txdata[0].output.push(ballast(0))),
        // A second one, before or behind: the same, another, one without a hash.
        edited_as_is(&block, |block| block.txdata[0].output.insert(0, real.clone())),
        edited_as_is(&block, |block| block.txdata[0].output.push(real.clone())),
        edited_as_is(&block, |block| block.txdata[0].output.insert(place, other)),
        edited_as_is(&block, |block| block.txdata[0].output.insert(0, bare)),
        // With value, with a byte more, with a byte less.
        edited_as_is(&block, |block| block.txdata[0].output[place].value = Amount::ONE_SAT),
        edited_as_is(&block, |block| block.txdata[0].output[place].script_pubkey = ScriptBuf::from_bytes(longer)),
        edited_as_is(&block, |block| block.txdata[0].output[place].script_pubkey = ScriptBuf::from_bytes(shorter)),
    ];
    for case in cases {
        refused(&chain, &case, InvalidBlock::WitnessCommitmentForm);
    }
    // The commitment is there even in a block that holds no witness but the coinbase's.
    let block = chain.next_block(Amount::ZERO, vec![]);
    accepted(&chain, &block);
    let without = edited_as_is(&block, |block| drop(block.txdata[0].output.remove(0)));
    refused(&chain, &without, InvalidBlock::WitnessCommitmentForm);
}

pub(crate) fn witness_reserved_value() {
    let mut chain = devnet();
    let block = varied_block(&mut chain);
    let with_witness = |elements: &[Vec<u8>]| {
        tampered(&block, |block| block.txdata[0].input[0].witness = Witness::from_slice(elements))
    };
    accepted(&chain, &with_witness(&[vec![0; 32]]));
    for elements in [
        vec![],
        vec![vec![]],
        vec![vec![0; 31]],
        vec![vec![0; 33]],
        vec![vec![0; 32]; 2],
        vec![vec![], vec![0; 32]],
        vec![vec![0; 32], vec![]],
    ] {
        refused(&chain, &with_witness(&elements), InvalidBlock::WitnessReservedValue);
    }
}

pub(crate) fn witness_commitment_mismatch() {
    let mut chain = devnet();
    let block = varied_block(&mut chain);
    accepted(&chain, &block);
    // Any 32 bytes will do, if the commitment is over them.
    let reserved = edited(&block, |block| block.txdata[0].input[0].witness = Witness::from_slice(&[[9; 32]]));
    accepted(&chain, &reserved);

    let place = block.txdata[0].output.len() - 2;
    let of_another_body = commitment(&WITNESS_COMMITMENT_PREFIX, [0; 32]);
    let committed = edited_as_is(&block, |block| block.txdata[0].output[place] = of_another_body);
    refused(&chain, &committed, InvalidBlock::WitnessCommitmentMismatch);
    let reserved = tampered(&block, |block| block.txdata[0].input[0].witness = Witness::from_slice(&[[9; 32]]));
    refused(&chain, &reserved, InvalidBlock::WitnessCommitmentMismatch);
}

pub(crate) fn state_commitment_form() {
    let mut chain = devnet();
    let block = varied_block(&mut chain);
    accepted(&chain, &block);
    let last = block.txdata[0].output.len() - 1;
    let real = block.txdata[0].output[last].clone();

    // Another OP_RETURN beside it is free, unless it begins with the name.
    let name = |bytes: usize| TxOut {
        script_pubkey: ScriptBuf::from_bytes(real.script_pubkey.as_bytes()[..bytes].to_vec()),
        ..ballast(0)
    };
    accepted(&chain, &edited(&block, |block| block.txdata[0].output.insert(0, name(5))));

    let script = |change: fn(&mut Vec<u8>)| {
        let mut script = real.script_pubkey.to_bytes();
        change(&mut script);
        TxOut { script_pubkey: ScriptBuf::from_bytes(script), ..ballast(0) }
    };
    let cases = [
        // A second one, of this or any other version.
        edited(&block, |block| block.txdata[0].output.insert(0, real.clone())),
        edited(&block, |block| block.txdata[0].output.insert(0, name(6))),
        edited(&block, |block| block.txdata[0].output.insert(0, script(|script| script[6] = 0))),
        // Another version, another name, a byte more, a byte less, with value, none.
        edited(&block, |block| block.txdata[0].output[last] = script(|script| script[6] = 0)),
        edited(&block, |block| block.txdata[0].output[last] = script(|script| script[6] = 2)),
        edited(&block, |block| block.txdata[0].output[last] = script(|script| script[2] = b'c')),
        edited(&block, |block| block.txdata[0].output[last] = script(|script| script.push(0))),
        edited(&block, |block| block.txdata[0].output[last] = script(|script| script.truncate(38))),
        edited(&block, |block| block.txdata[0].output[last].value = Amount::ONE_SAT),
        edited(&block, |block| block.txdata[0].output[last] = ballast(38)),
        // In front of the witness commitment, which then is not the last but one: that rule comes first, unless
        // something stands behind it.
        edited(&block, |block| {
            let outputs = &mut block.txdata[0].output;
            outputs.rotate_right(1);
            outputs.push(ballast(38));
        }),
    ];
    for case in cases {
        refused(&chain, &case, InvalidBlock::StateCommitmentForm);
    }
}

pub(crate) fn state_commitment_mismatch() {
    let mut chain = devnet();
    let block = varied_block(&mut chain);
    accepted(&chain, &block);
    let last = block.txdata[0].output.len() - 1;
    let before = chain.tip().state_commitment();
    for committed in [[0; 32], {
        let mut near = before;
        near[31] ^= 1;
        near
    }] {
        let wrong =
            edited(&block, |block| block.txdata[0].output[last] = commitment(&STATE_COMMITMENT_PREFIX, committed));
        refused(&chain, &wrong, InvalidBlock::StateCommitmentMismatch { committed, actual: before });
    }

    // The state after the block is another one: its child commits to that.
    chain.accept(&block).expect("valid");
    let actual = chain.tip().state_commitment();
    assert_ne!(before, actual);
    let child = chain.next_block(Amount::ZERO, vec![]);
    accepted(&chain, &child);
    let stale = edited(&child, |block| block.txdata[0].output[1] = commitment(&STATE_COMMITMENT_PREFIX, before));
    refused(&chain, &stale, InvalidBlock::StateCommitmentMismatch { committed: before, actual });
}

/// No subsidy: exactly the fees, in any number of outputs.
pub(crate) fn value() {
    let mut chain = devnet();
    let [a, b] = [1, 2].map(|number| free_coin(&mut chain, number));
    let sat = Amount::from_sat;
    let paying = |coin, fee| transaction(&[coin], vec![free_output(causeway_tests::draft::COIN_VALUE - sat(fee))]);
    let block = chain.next_block(sat(1_300), vec![paying(a, 1_000), paying(b, 300)]);
    assert_eq!(accepted(&chain, &block).fees(), sat(1_300));
    let claiming = |values: &[u64]| {
        edited(&block, |block| {
            let outputs = values.iter().map(|value| free_output(sat(*value)));
            block.txdata[0].output.splice(..1, outputs);
        })
    };
    for values in [vec![1_300], vec![1_000, 300], vec![0, 1_299, 1]] {
        accepted(&chain, &claiming(&values));
    }
    for values in [vec![1_299], vec![1_301], vec![], vec![1_000], vec![1_300, 1], vec![5_000_000_000]] {
        let claimed = sat(values.iter().sum());
        refused(&chain, &claiming(&values), InvalidBlock::CoinbaseValue { claimed, fees: sat(1_300) });
    }

    let without_fees = chain.next_block(Amount::ZERO, vec![move_coins(&[a])]);
    accepted(&chain, &without_fees);
    let script = Builder::new().push_int(1).into_script();
    let one = edited(&without_fees, |block| {
        block.txdata[0].output.insert(0, TxOut { value: Amount::ONE_SAT, script_pubkey: script });
    });
    refused(&chain, &one, InvalidBlock::CoinbaseValue { claimed: Amount::ONE_SAT, fees: Amount::ZERO });
}
