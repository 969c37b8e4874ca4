//! The cost of signature operations (BIP-0141): at most 80,000.

use bitcoin::opcodes::all::{OP_CHECKMULTISIG, OP_CHECKSIG, OP_CHECKSIGVERIFY, OP_ENDIF, OP_IF};
use bitcoin::script::Builder;
use bitcoin::{Amount, Block, OutPoint, ScriptBuf, TxOut, Witness};
use causeway_chainspec::Height;
use causeway_consensus::InvalidBlock;
use causeway_consensus::block::parse_block;
use causeway_consensus::check::check_block;
use causeway_tests::chain::MemoryChain;
use causeway_tests::draft::{
    COIN_VALUE, devnet, edited, free_coin, free_output, move_coins, push, put_coin, true_with_sigops,
};

use crate::verdicts::{accepted, refused};

const MAX: usize = 80_000;

/// What an operation in an output or a scriptSig costs.
const LEGACY: usize = 4;

fn too_many() -> InvalidBlock {
    InvalidBlock::TooManySigops { max: MAX }
}

fn operations(count: usize, opcode: bitcoin::Opcode) -> TxOut {
    TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(vec![opcode.to_u8(); count]) }
}

/// A block that spends `coin` and has `legacy` operations in an output.
fn block_with(chain: &MemoryChain, coin: OutPoint, legacy: usize) -> Block {
    let mut spender = move_coins(&[coin]);
    spender.output.push(operations(legacy, OP_CHECKSIG));
    chain.next_block(Amount::ZERO, vec![spender])
}

pub(crate) fn too_many_sigops() {
    in_own_scripts();
    in_redeem_scripts();
    in_witnesses();
    over_several_transactions();
}

/// Outputs, scriptSigs and the coinbase: known without the coins.
fn in_own_scripts() {
    let mut chain = devnet();
    let coin = free_coin(&mut chain, 1);
    let full = block_with(&chain, coin, MAX / LEGACY);
    accepted(&chain, &full);
    let over = edited(&full, |block| block.txdata[1].output.push(operations(1, OP_CHECKSIGVERIFY)));
    refused(&chain, &over, too_many());
    let parsed = parse_block(bitcoin::consensus::serialize(&over)).expect("well formed");
    assert_eq!(check_block(parsed, chain.spec.params()).expect_err("no coin is needed"), too_many());

    let in_coinbase = |legacy: usize| {
        edited(&block_with(&chain, coin, legacy), |block| {
            let mut script = block.txdata[0].input[0].script_sig.to_bytes();
            script.extend([OP_CHECKSIG.to_u8(); 2]);
            block.txdata[0].input[0].script_sig = ScriptBuf::from_bytes(script);
        })
    };
    accepted(&chain, &in_coinbase(MAX / LEGACY - 2));
    refused(&chain, &in_coinbase(MAX / LEGACY - 1), too_many());

    // In its own scripts a multisig counts 20, also behind a number.
    let multisigs = |count: usize, legacy: usize| {
        edited(&block_with(&chain, coin, legacy), |block| {
            let script =
                (0..count).fold(Builder::new(), |builder, _| builder.push_int(2).push_opcode(OP_CHECKMULTISIG));
            block.txdata[1].output.push(TxOut { value: Amount::ZERO, script_pubkey: script.into_script() });
        })
    };
    accepted(&chain, &multisigs(10, MAX / LEGACY - 200));
    refused(&chain, &multisigs(10, MAX / LEGACY - 199), too_many());
    // What stands behind a push that runs past the end, and within pushes, counts nothing.
    let hidden = edited(&full, |block| {
        let script = [&[OP_CHECKSIG.to_u8(), 3][..], &[0xac; 3], &[76, 200], &[0xac; 9]].concat();
        block.txdata[1].output[1] = operations(MAX / LEGACY - 1, OP_CHECKSIG);
        block.txdata[1].output.push(TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(script) });
    });
    accepted(&chain, &hidden);
}

/// BIP-0016: known with the coins, counted exactly, four units each.
fn in_redeem_scripts() {
    let mut chain = devnet();
    for sigops in [1, 3] {
        let redeem = true_with_sigops(sigops);
        let output = TxOut { value: COIN_VALUE, script_pubkey: redeem.to_p2sh() };
        let coin = put_coin(&mut chain, 1, Height(1), output);
        let with_redeem = |legacy: usize| {
            let block = block_with(&chain, coin, legacy);
            edited(&block, |block| block.txdata[1].input[0].script_sig = push(redeem.as_bytes()))
        };
        accepted(&chain, &with_redeem(MAX / LEGACY - sigops));
        refused(&chain, &with_redeem(MAX / LEGACY - sigops + 1), too_many());
    }

    // Three keys, as the number says, and not twenty.
    let skipped = Builder::new().push_int(0).push_opcode(OP_IF).push_int(3).push_opcode(OP_CHECKMULTISIG);
    let redeem = skipped.push_opcode(OP_ENDIF).push_int(1).into_script();
    let coin = put_coin(&mut chain, 1, Height(1), TxOut { value: COIN_VALUE, script_pubkey: redeem.to_p2sh() });
    let with_redeem = |legacy: usize| {
        let block = block_with(&chain, coin, legacy);
        edited(&block, |block| block.txdata[1].input[0].script_sig = push(redeem.as_bytes()))
    };
    accepted(&chain, &with_redeem(MAX / LEGACY - 3));
    refused(&chain, &with_redeem(MAX / LEGACY - 2), too_many());
}

/// BIP-0141: one unit each, native or in a script hash; so the limit is met to the unit.
fn in_witnesses() {
    let mut chain = devnet();
    for nested in [false, true] {
        let script_of = |sigops: usize| true_with_sigops(sigops);
        let block_of = |chain: &mut MemoryChain, sigops: usize| {
            let script = script_of(sigops);
            let program = script.to_p2wsh();
            let script_pubkey = if nested { program.to_p2sh() } else { program.clone() };
            let coin = put_coin(chain, 1, Height(1), TxOut { value: COIN_VALUE, script_pubkey });
            edited(&block_with(chain, coin, MAX / LEGACY - 2), |block| {
                let input = &mut block.txdata[1].input[0];
                input.witness = Witness::from_slice(&[script.as_bytes()]);
                if nested {
                    input.script_sig = push(program.as_bytes());
                }
            })
        };
        let full = block_of(&mut chain, 8);
        accepted(&chain, &full);
        let over = block_of(&mut chain, 9);
        refused(&chain, &over, too_many());
        // Without its coins nothing is wrong with it.
        let parsed = parse_block(bitcoin::consensus::serialize(&over)).expect("well formed");
        check_block(parsed, chain.spec.params()).expect("the witness is counted with the coin");
    }
}

fn over_several_transactions() {
    let mut chain = devnet();
    let coins: Vec<OutPoint> = (1..=4).map(|number| free_coin(&mut chain, number)).collect();
    let script = true_with_sigops(1);
    let coin =
        put_coin(&mut chain, 9, Height(1), TxOut { script_pubkey: script.to_p2wsh(), ..free_output(COIN_VALUE) });
    let block_of = |last: usize, witness: bool| {
        let mut transactions: Vec<_> = coins.iter().map(|coin| move_coins(&[*coin])).collect();
        for (transaction, count) in transactions.iter_mut().zip([5_000, 5_000, 5_000, last]) {
            transaction.output.push(operations(count, OP_CHECKSIG));
        }
        if witness {
            let mut spender = move_coins(&[coin]);
            spender.input[0].witness = Witness::from_slice(&[script.as_bytes()]);
            transactions.push(spender);
        }
        chain.next_block(Amount::ZERO, transactions)
    };
    accepted(&chain, &block_of(5_000, false));
    refused(&chain, &block_of(5_001, false), too_many());
    accepted(&chain, &block_of(4_999, true));
    refused(&chain, &block_of(5_000, true), too_many());
}
