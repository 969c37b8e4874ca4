//! The cost of signature operations (BIP-0141, DESIGN section 2): at most 80,000; and how many a transaction may execute
//! outside of witnesses (BIP-0054): at most 2,500.

use bitcoin::opcodes::all::{OP_CHECKMULTISIG, OP_CHECKSIG, OP_CHECKSIGVERIFY, OP_ENDIF, OP_IF, OP_PUSHNUM_1};
use bitcoin::script::Builder;
use bitcoin::secp256k1::SECP256K1;
use bitcoin::taproot::{LeafVersion, TaprootBuilder};
use bitcoin::{Amount, Block, OutPoint, ScriptBuf, TxOut, Witness};
use causeway_chainspec::Height;
use causeway_consensus::block::parse_block;
use causeway_consensus::check::check_block;
use causeway_consensus::{InvalidBlock, InvalidTransaction};
use causeway_tests::chain::MemoryChain;
use causeway_tests::draft::{
    COIN_VALUE, any_witness, ballast, devnet, edited, free_coin, free_output, move_coins, op_true, push, put_coin,
    true_with_sigops,
};
use causeway_tests::wallet::{Kind, Owner, Spendable, spend};

use crate::verdicts::{accepted, refused, refused_for};

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

/// The same, with the operations in a transaction of their own, so that the one that spends `coin` is small.
fn block_beside(chain: &mut MemoryChain, coin: OutPoint, legacy: usize) -> Block {
    let mut holder = move_coins(&[free_coin(chain, 1_000)]);
    holder.output.push(operations(legacy, OP_CHECKSIG));
    chain.next_block(Amount::ZERO, vec![move_coins(&[coin]), holder])
}

pub(crate) fn too_many_sigops() {
    in_own_scripts();
    in_redeem_scripts();
    in_spent_scripts();
    in_large_transactions();
    in_witnesses();
    in_tapscripts();
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
        let mut with_redeem = |legacy: usize| {
            let block = block_beside(&mut chain, coin, legacy);
            edited(&block, |block| block.txdata[1].input[0].script_sig = push(redeem.as_bytes()))
        };
        let (within, beyond) = (with_redeem(MAX / LEGACY - sigops), with_redeem(MAX / LEGACY - sigops + 1));
        accepted(&chain, &within);
        refused(&chain, &beyond, too_many());
    }

    // Three keys, as the number says, and not twenty.
    let skipped = Builder::new().push_int(0).push_opcode(OP_IF).push_int(3).push_opcode(OP_CHECKMULTISIG);
    let redeem = skipped.push_opcode(OP_ENDIF).push_int(1).into_script();
    let coin = put_coin(&mut chain, 1, Height(1), TxOut { value: COIN_VALUE, script_pubkey: redeem.to_p2sh() });
    let mut with_redeem = |legacy: usize| {
        let block = block_beside(&mut chain, coin, legacy);
        edited(&block, |block| block.txdata[1].input[0].script_sig = push(redeem.as_bytes()))
    };
    let (within, beyond) = (with_redeem(MAX / LEGACY - 3), with_redeem(MAX / LEGACY - 2));
    accepted(&chain, &within);
    refused(&chain, &beyond, too_many());
}

/// DESIGN section 2: where they are spent too, counted exactly, four units each; and a unit for every 64 bytes.
fn in_spent_scripts() {
    let mut chain = devnet();
    let multisig = Builder::new().push_int(0).push_opcode(OP_IF).push_int(3).push_opcode(OP_CHECKMULTISIG);
    let multisig = multisig.push_opcode(OP_ENDIF).push_int(1).into_script();
    let long = |script: ScriptBuf, bytes: usize| {
        let mut script = script.into_bytes();
        script.resize(bytes, OP_PUSHNUM_1.to_u8());
        ScriptBuf::from_bytes(script)
    };
    for (script, units) in [
        (true_with_sigops(1), 4),
        (true_with_sigops(100), 4 * 100 + 1),
        (multisig, 4 * 3),
        (long(op_true(), 63), 0),
        (long(op_true(), 64), 1),
        (long(true_with_sigops(10), 900), 4 * 10 + 14),
    ] {
        let coin = put_coin(&mut chain, 1, Height(1), TxOut { value: COIN_VALUE, script_pubkey: script });
        // To the unit: what four do not divide is left to a witness.
        let one = true_with_sigops(1);
        let witnessed = (MAX - units) % LEGACY;
        let extra: Vec<OutPoint> = (0..=4)
            .map(|n| {
                put_coin(&mut chain, 10 + n, Height(1), TxOut { value: COIN_VALUE, script_pubkey: one.to_p2wsh() })
            })
            .collect();
        let mut block = |witnessed: usize| {
            let block = block_beside(&mut chain, coin, (MAX - units) / LEGACY);
            edited(&block, |block| {
                let mut spender = move_coins(&extra[..witnessed]);
                spender.input.iter_mut().for_each(|input| input.witness = Witness::from_slice(&[one.as_bytes()]));
                block.txdata.extend((witnessed > 0).then_some(spender));
            })
        };
        let (within, beyond) = (block(witnessed), block(witnessed + 1));
        accepted(&chain, &within);
        refused(&chain, &beyond, too_many());
    }
    // Programs and script hashes have other bounds.
    let coins = [any_witness(), op_true().to_p2sh()]
        .map(|script_pubkey| TxOut { value: COIN_VALUE, script_pubkey })
        .into_iter()
        .zip(1..)
        .map(|(output, number)| put_coin(&mut chain, number, Height(1), output));
    let coins: Vec<OutPoint> = coins.collect();
    for (coin, script_sig) in coins.into_iter().zip([ScriptBuf::new(), push(op_true().as_bytes())]) {
        let block = block_beside(&mut chain, coin, MAX / LEGACY);
        accepted(&chain, &edited(&block, |block| block.txdata[1].input[0].script_sig = script_sig));
    }
}

/// DESIGN section 2: what an operation outside of witnesses may hash, a unit for every 16,384 bytes of its transaction.
fn in_large_transactions() {
    let mut chain = devnet();
    let coins: Vec<OutPoint> = (1..=20)
        .map(|number| {
            let output = TxOut { value: COIN_VALUE, script_pubkey: true_with_sigops(100) };
            put_coin(&mut chain, number, Height(1), output)
        })
        .collect();
    let block_of = |bytes: usize, legacy: usize| {
        let mut spender = move_coins(&coins);
        spender.output.extend([operations(legacy, OP_CHECKSIG), ballast(1)]);
        let padding = bytes - spender.base_size();
        // The length of its script takes four bytes more.
        spender.output[21] = ballast(1 + padding - 4);
        assert_eq!(spender.base_size(), bytes);
        chain.next_block(Amount::ZERO, vec![spender])
    };
    // 2,000 operations of 4 + 25 units, 20 scripts of a unit, and operations in outputs of 4.
    let left = MAX - 2_000 * (4 + 25) - 20;
    let bytes = 26 * 16_384 - 1;
    accepted(&chain, &block_of(bytes, left / LEGACY));
    refused(&chain, &block_of(bytes, left / LEGACY + 1), too_many());
    refused(&chain, &block_of(bytes + 1, left / LEGACY), too_many());
    // By themselves.
    refused(&chain, &block_of(39 * 16_384, 0), too_many());
    accepted(&chain, &block_of(36 * 16_384 - 1, 0));
}

/// BIP-0054: in the scriptSig, the spent script and the redeem script of all inputs together.
pub(crate) fn too_many_legacy_sigops() {
    let mut chain = devnet();
    let too_many = |count| InvalidTransaction::TooManyLegacySigops { count, max: 2_500 };
    let mut spend_of = |scripts: &[ScriptBuf], script_sig: &dyn Fn(usize) -> ScriptBuf| {
        let outputs = scripts.iter().map(|script| TxOut { value: COIN_VALUE, script_pubkey: script.clone() });
        let coins: Vec<OutPoint> =
            (0..).zip(outputs).map(|(n, output)| put_coin(&mut chain, n, Height(1), output)).collect();
        let mut spender = move_coins(&coins);
        (0..).zip(&mut spender.input).for_each(|(index, input)| input.script_sig = script_sig(index));
        (chain.clone(), chain.next_block(Amount::ZERO, vec![spender]))
    };
    let none: &dyn Fn(usize) -> ScriptBuf = &|_| ScriptBuf::new();
    let of_hundreds = |last: usize| -> Vec<ScriptBuf> {
        (0..25).map(|n| true_with_sigops(if n == 24 { last } else { 100 })).collect()
    };
    let (chain_within, within) = spend_of(&of_hundreds(100), none);
    accepted(&chain_within, &within);
    let (chain_beyond, beyond) = spend_of(&of_hundreds(101), none);
    refused_for(&chain_beyond, &beyond, 1, too_many(2_501));

    // In redeem scripts.
    let hashed: Vec<ScriptBuf> = of_hundreds(101).iter().map(|script| script.to_p2sh()).collect();
    let (chain_beyond, beyond) =
        spend_of(&hashed, &|index| push(true_with_sigops(if index == 24 { 101 } else { 100 }).as_bytes()));
    refused_for(&chain_beyond, &beyond, 1, too_many(2_501));
    let hashed: Vec<ScriptBuf> = of_hundreds(100).iter().map(|script| script.to_p2sh()).collect();
    let (chain_within, within) = spend_of(&hashed, &|_| push(true_with_sigops(100).as_bytes()));
    accepted(&chain_within, &within);

    // In a scriptSig, where a multisig of three keys counts three.
    let skipped = |operations: &[u8]| ScriptBuf::from_bytes([&[0, 0x63], operations, &[0x68]].concat());
    let three = [0x53, OP_CHECKMULTISIG.to_u8()];
    let (chain_within, within) =
        spend_of(&of_hundreds(97), &|index| if index == 0 { skipped(&three) } else { ScriptBuf::new() });
    accepted(&chain_within, &within);
    let (chain_beyond, beyond) =
        spend_of(&of_hundreds(98), &|index| if index == 0 { skipped(&three) } else { ScriptBuf::new() });
    refused_for(&chain_beyond, &beyond, 1, too_many(2_501));

    // Not in witnesses, where they are cheaper, nor in outputs, which do not run.
    let programs: Vec<ScriptBuf> = of_hundreds(199).iter().map(|script| script.to_p2wsh()).collect();
    let (chain_within, within) = spend_of(&programs, none);
    let with_witnesses = edited(&within, |block| {
        for (input, script) in block.txdata[1].input.iter_mut().zip(of_hundreds(199)) {
            input.witness = Witness::from_slice(&[script.as_bytes()]);
        }
        block.txdata[1].output.push(operations(2_501, OP_CHECKSIG));
    });
    accepted(&chain_within, &with_witnesses);

    // Each transaction by itself.
    let mut chain = devnet();
    let transactions: Vec<_> = (0..2)
        .map(|half| {
            let coins: Vec<OutPoint> = (0..)
                .zip(of_hundreds(100))
                .map(|(n, script_pubkey)| {
                    put_coin(&mut chain, 100 * half + n, Height(1), TxOut { value: COIN_VALUE, script_pubkey })
                })
                .collect();
            move_coins(&coins)
        })
        .collect();
    accepted(&chain, &chain.next_block(Amount::ZERO, transactions));
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

/// DESIGN section 2: a unit for every 50 bytes of a witness that runs a tapscript, and none for a key's.
fn in_tapscripts() {
    let mut chain = devnet();
    let skipped = [&[0, OP_IF.to_u8()][..], &[OP_PUSHNUM_1.to_u8(); 1_000], &[OP_ENDIF.to_u8(), OP_PUSHNUM_1.to_u8()]];
    let leaf = ScriptBuf::from_bytes(skipped.concat());
    let builder = TaprootBuilder::new().add_leaf(0, leaf.clone()).expect("one leaf");
    let key = Owner::new(1).keypair().x_only_public_key().0;
    let info = builder.finalize(SECP256K1, key).expect("complete");
    let control = info.control_block(&(leaf.clone(), LeafVersion::TapScript)).expect("the leaf is there").serialize();
    let witness = Witness::from_slice(&[leaf.as_bytes(), &control]);
    // 1 + 3 + 1,004 + 1 + 33 bytes.
    let units = 20;
    assert_eq!(witness.size() / 50, units);
    let script_pubkey = ScriptBuf::new_p2tr_tweaked(info.output_key());
    let coin = put_coin(&mut chain, 1, Height(1), TxOut { value: COIN_VALUE, script_pubkey });
    let mut block_of = |legacy: usize| {
        let block = block_beside(&mut chain, coin, legacy);
        edited(&block, |block| block.txdata[1].input[0].witness = witness.clone())
    };
    let (within, beyond) = (block_of((MAX - units) / LEGACY), block_of((MAX - units) / LEGACY + 1));
    accepted(&chain, &within);
    refused(&chain, &beyond, too_many());

    let (owner, kind) = (Owner::new(2), Kind::P2trKey);
    let output = TxOut { value: COIN_VALUE, script_pubkey: owner.script_pubkey(kind) };
    let outpoint = put_coin(&mut chain, 2, Height(1), output.clone());
    let signed = spend(&[Spendable { outpoint, output, owner, kind }], vec![free_output(COIN_VALUE)]);
    let block = block_beside(&mut chain, coin, MAX / LEGACY);
    accepted(&chain, &edited(&block, |block| block.txdata[1] = signed));
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
