//! What a transaction spends: coins that exist, are mature, are worth enough, and are signed for.

use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxOut, Witness};
use causeway_chainspec::Height;
use causeway_consensus::connect::COINBASE_MATURITY;
use causeway_consensus::{ChainView, Coin, InvalidTransaction};
use causeway_tests::draft::{
    COIN_VALUE, ballast, devnet, edited, free_coin, free_output, move_coins, outpoint, put_coin, transaction,
};
use causeway_tests::wallet::{Kind, Owner, Spendable, spend};

use crate::verdicts::{accepted, refused_for};

pub(crate) fn missing_input() {
    let mut chain = devnet();
    let [a, b] = [1, 2].map(|number| free_coin(&mut chain, number));
    let first = transaction(&[a], vec![free_output(COIN_VALUE), ballast(1), long_output()]);
    let within = |vout| OutPoint { txid: first.compute_txid(), vout };
    let spender = move_coins(&[b, within(0)]);
    let missing = |outpoint| InvalidTransaction::MissingInput { outpoint };

    // Within the block: after its creator, never before it and never by itself.
    let block = chain.next_block(Amount::ZERO, vec![first.clone(), spender.clone()]);
    accepted(&chain, &block);
    let reversed = chain.next_block(Amount::ZERO, vec![spender, first.clone()]);
    refused_for(&chain, &reversed, 1, missing(within(0)));
    // Outputs that can never be spent are no coins, nor are outputs that are not there.
    for vout in [1, 2, 3, u32::MAX] {
        let block = chain.next_block(Amount::ZERO, vec![first.clone(), move_coins(&[b, within(vout)])]);
        refused_for(&chain, &block, 2, missing(within(vout)));
    }
    let nowhere = outpoint(99);
    refused_for(&chain, &chain.next_block(Amount::ZERO, vec![move_coins(&[nowhere])]), 1, missing(nowhere));
    let other_vout = OutPoint { vout: a.vout + 1, ..a };
    refused_for(&chain, &chain.next_block(Amount::ZERO, vec![move_coins(&[other_vout])]), 1, missing(other_vout));

    // Once the block is final, what it spent is gone and what it created is there, except for what it spent itself.
    chain.accept(&block).expect("valid");
    for spent in [a, b, within(0), within(1), within(2)] {
        let block = chain.next_block(Amount::ZERO, vec![move_coins(&[spent])]);
        refused_for(&chain, &block, 1, missing(spent));
    }
    let left = OutPoint { txid: block.txdata[2].compute_txid(), vout: 0 };
    accepted(&chain, &chain.next_block(Amount::ZERO, vec![move_coins(&[left])]));
}

/// An output whose script is one byte longer than any that can be spent.
fn long_output() -> TxOut {
    TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(vec![0x51; 10_001]) }
}

pub(crate) fn immature_coinbase() {
    // A block of height 101 pays its fees to anyone.
    let mut chain = devnet();
    let coin = free_coin(&mut chain, 1);
    let paying = transaction(&[coin], vec![free_output(Amount::ZERO)]);
    let block = chain.next_block(COIN_VALUE, vec![paying]);
    chain.accept(&block).expect("valid");
    let fees = OutPoint { txid: block.txdata[0].compute_txid(), vout: 0 };
    let spender = move_coins(&[fees]);
    let immature = |outpoint, created| InvalidTransaction::ImmatureCoinbase {
        outpoint,
        created: Height(created),
        needs: COINBASE_MATURITY,
    };

    refused_for(&chain, &chain.next_block(Amount::ZERO, vec![spender.clone()]), 1, immature(fees, 101));
    chain.grow(98);
    assert_eq!(chain.tip().height(), Height(199));
    refused_for(&chain, &chain.next_block(Amount::ZERO, vec![spender.clone()]), 1, immature(fees, 101));
    chain.grow(1);
    accepted(&chain, &chain.next_block(Amount::ZERO, vec![spender]));

    // In the coinbase's own block it cannot be named: the coinbase commits to the spender's id.

    // A coinbase of block 1 is mature at once: with 99 blocks on top it would not do.
    for created in [1, 2] {
        let mut chain = devnet();
        let coin = Coin { output: free_output(COIN_VALUE), height: Height(created), coinbase: true };
        let outpoint = outpoint(created);
        chain.coins_mut().insert(outpoint, coin);
        let block = chain.next_block(Amount::ZERO, vec![move_coins(&[outpoint])]);
        if created == 1 {
            accepted(&chain, &block);
        } else {
            refused_for(&chain, &block, 1, immature(outpoint, created));
        }
    }
}

/// Coins beyond the supply, which no block creates, are put in.
pub(crate) fn input_sum_out_of_range() {
    let mut chain = devnet();
    let all = put_coin(&mut chain, 1, Height(1), free_output(Amount::MAX_MONEY));
    let one = put_coin(&mut chain, 2, Height(1), free_output(Amount::ONE_SAT));
    let nothing = put_coin(&mut chain, 3, Height(1), free_output(Amount::ZERO));
    let to_all = |coins: &[OutPoint]| transaction(coins, vec![free_output(Amount::MAX_MONEY)]);
    accepted(&chain, &chain.next_block(Amount::ZERO, vec![to_all(&[all, nothing])]));
    let block = chain.next_block(Amount::ONE_SAT, vec![to_all(&[all, one])]);
    refused_for(&chain, &block, 1, InvalidTransaction::InputSumOutOfRange);
    // A coin that is out of range by itself.
    let above = put_coin(&mut chain, 4, Height(1), free_output(Amount::MAX_MONEY + Amount::ONE_SAT));
    let block = chain.next_block(Amount::ONE_SAT, vec![to_all(&[above])]);
    refused_for(&chain, &block, 1, InvalidTransaction::InputSumOutOfRange);
}

pub(crate) fn outputs_exceed_inputs() {
    let mut chain = devnet();
    let [a, b] = [1, 2].map(|number| free_coin(&mut chain, number));
    let block = chain.next_block(Amount::ZERO, vec![move_coins(&[a, b])]);
    accepted(&chain, &block);
    let more = edited(&block, |block| block.txdata[1].output[0].value += Amount::ONE_SAT);
    let inputs = COIN_VALUE * 2;
    let outputs = inputs + Amount::ONE_SAT;
    refused_for(&chain, &more, 1, InvalidTransaction::OutputsExceedInputs { inputs, outputs });
    // What one transaction lacks, another's fee does not make up for.
    let [a, b] = [a, b].map(|coin| transaction(&[coin], vec![free_output(COIN_VALUE)]));
    let block = chain.next_block(Amount::ZERO, vec![a, b]);
    accepted(&chain, &block);
    let uneven = edited(&block, |block| {
        block.txdata[1].output[0].value -= Amount::ONE_SAT;
        block.txdata[2].output[0].value += Amount::ONE_SAT;
    });
    let (inputs, outputs) = (COIN_VALUE, COIN_VALUE + Amount::ONE_SAT);
    refused_for(&chain, &uneven, 2, InvalidTransaction::OutputsExceedInputs { inputs, outputs });
}

/// Every kind of output, with a signature over something else; the first failing input of the block is named.
pub(crate) fn script() {
    let mut chain = devnet();
    let coins: Vec<Spendable> = (0..)
        .zip(Kind::ALL)
        .map(|(number, kind)| {
            let owner = Owner::new(number.into());
            let output = TxOut { value: COIN_VALUE, script_pubkey: owner.script_pubkey(kind) };
            Spendable { outpoint: put_coin(&mut chain, number, Height(1), output.clone()), output, owner, kind }
        })
        .collect();
    let block = chain.next_block(Amount::ZERO, vec![spend(&coins, vec![free_output(COIN_VALUE); coins.len()])]);
    accepted(&chain, &block);
    let to_other = edited(&block, |block| block.txdata[1].output[0] = TxOut { value: COIN_VALUE, ..ballast(1) });
    refused_for(&chain, &to_other, 1, InvalidTransaction::Script { input: 0 });
    for input in 0..coins.len() {
        let unsigned = edited(&block, |block| {
            // From this input on; the ones before sign the same message as ever, since none signs scriptSigs.
            for signed in &mut block.txdata[1].input[input..] {
                signed.script_sig = ScriptBuf::new();
                signed.witness = Witness::new();
            }
        });
        refused_for(&chain, &unsigned, 1, InvalidTransaction::Script { input });
    }
    // Two transactions.
    let two: Vec<Transaction> =
        coins.iter().take(2).map(|coin| spend(std::slice::from_ref(coin), vec![free_output(COIN_VALUE)])).collect();
    let block = chain.next_block(Amount::ZERO, two);
    accepted(&chain, &block);
    let second = edited(&block, |block| block.txdata[2].output[0] = TxOut { value: COIN_VALUE, ..ballast(1) });
    refused_for(&chain, &second, 2, InvalidTransaction::Script { input: 0 });
}
