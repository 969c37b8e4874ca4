//! What one block does to the histories of scripts.

use std::cmp::Reverse;

use bitcoin::{Amount, OutPoint, TxIn, Txid};
use causeway_chainspec::Height;

use super::{ScriptId, SpentOutput, is_indexed};
use crate::block::{Block, Tx};
use crate::coin::Coin;
use crate::connect::ConnectedBlock;
use crate::id_map::IdMap;

/// One output or input of a transaction, at the script that it belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Touch {
    pub(super) id: ScriptId,
    /// The transaction's place in the block.
    pub(super) index: u32,
    pub(super) value: Amount,
    pub(super) entry: Entry,
}

/// What happens there.
#[derive(Debug, Clone, Copy)]
pub(super) enum Entry {
    /// An output; `spent` in the same block or not.
    Created { outpoint: OutPoint, spent: bool },
    /// An input; the output that it spends was `created` in the same block or not.
    Spent { outpoint: OutPoint, created: bool },
}

impl Touch {
    /// By script, then newest first.
    pub(super) fn order(&self) -> (ScriptId, Reverse<u32>) {
        (self.id, Reverse(self.index))
    }
}

/// Returns all that a block does, in no order. `spent` are the outputs that the inputs after the coinbase's spend.
pub(super) fn entries(height: Height, block: &Block, spent: &[SpentOutput]) -> Vec<Touch> {
    let transactions = block.transactions();
    let first_spent = spends_within(block);
    let is_within = |outpoint: &OutPoint| first_spent.contains_key(outpoint);
    let mut touches = Vec::with_capacity(2 * spent.len() + transactions.len());
    let mut spent = spent.iter();
    for (index, tx) in (0u32..).zip(transactions) {
        if index > 0 {
            for (input, spent) in tx.transaction().input.iter().zip(&mut spent) {
                let outpoint = input.previous_output;
                let entry = Entry::Spent { outpoint, created: is_within(&outpoint) };
                touches.push(Touch { id: spent.id, index, value: spent.value, entry });
            }
        }
        for (vout, output) in (0u32..).zip(&tx.transaction().output) {
            if is_indexed(height, &output.script_pubkey) {
                let outpoint = OutPoint { txid: tx.txid(), vout };
                let entry = Entry::Created { outpoint, spent: is_within(&outpoint) };
                touches.push(Touch { id: ScriptId::of(&output.script_pubkey), index, value: output.value, entry });
            }
        }
    }
    touches
}

/// The outputs that a block creates and spends, with the transaction that creates each.
fn spends_within(block: &Block) -> IdMap<OutPoint, usize> {
    let index_of: IdMap<Txid, usize> = block.transactions().iter().map(Tx::txid).zip(0..).collect();
    let within = |input: &TxIn| {
        let creator = index_of.get(&input.previous_output.txid)?;
        Some((input.previous_output, *creator))
    };
    inputs(block).filter_map(within).collect()
}

/// The inputs of a block that spend outputs: all but the coinbase's, in block order.
pub(super) fn inputs(block: &Block) -> impl Iterator<Item = &TxIn> {
    block.transactions().iter().skip(1).flat_map(|tx| &tx.transaction().input)
}

/// The outputs that the inputs of a block spend, in block order.
pub(super) struct SpentOutputs(pub(super) Vec<SpentOutput>);

impl SpentOutputs {
    /// Those of a block that is connected.
    pub(super) fn of(connected: &ConnectedBlock) -> Self {
        let block = connected.block();
        let within = spends_within(block);
        let mut outside = connected.delta().spent.iter();
        let spent = |input: &TxIn| {
            let (script, value) = match within.get(&input.previous_output) {
                Some(&creator) => {
                    let vout = usize::try_from(input.previous_output.vout).expect("the output exists");
                    let output = &block.transactions()[creator].transaction().output[vout];
                    (&output.script_pubkey, output.value)
                }
                None => {
                    let (_, Coin { output, .. }) = outside.next().expect("a connected block has all of its coins");
                    (&output.script_pubkey, output.value)
                }
            };
            SpentOutput { id: ScriptId::of(script), value }
        };
        Self(inputs(block).map(spent).collect())
    }
}
