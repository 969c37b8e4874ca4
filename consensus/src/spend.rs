//! What one transaction may spend, and when: the rules that a block and the mempool share.

use bitcoin::{Amount, Transaction, TxIn};
use causeway_chainspec::{Height, PegScript};

use crate::coin::Coin;
use crate::error::InvalidTransaction;
use crate::locks::{RelativeLock, is_final, relative_lock, time_base};
use crate::sigops::{self, MAX_TX_LEGACY_SIGOPS, WITNESS_SCALE_FACTOR};
use crate::tip::Tip;

/// Blocks after which a coinbase's outputs can be spent (Bitcoin's `COINBASE_MATURITY`).
pub const COINBASE_MATURITY: u32 = 100;

/// The block that a transaction is to stand in, as far as the rules about spending ask.
///
/// Both numbers only grow along a chain, so what may be spent in a block may be spent in every later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpendContext {
    /// The block's height.
    pub height: Height,
    /// Median time past of the block's parent (BIP-0113), in seconds of Unix time.
    pub median_time: u32,
}

impl SpendContext {
    /// Returns the context of the block on top of `tip`, or None if the chain has no height left.
    pub fn after(tip: &Tip) -> Option<Self> {
        Some(Self { height: tip.height().next()?, median_time: tip.median_time_past() })
    }
}

/// Checks the absolute lock time of a transaction (BIP-0113).
///
/// # Errors
/// [`InvalidTransaction::LockTime`].
pub fn check_lock_time(transaction: &Transaction, context: SpendContext) -> Result<(), InvalidTransaction> {
    if !is_final(transaction, context.height, context.median_time) {
        return Err(InvalidTransaction::LockTime);
    }
    Ok(())
}

/// Returns the fee of a transaction that may spend `coins`, one for each input in their order, as far as maturity,
/// values and relative locks say. Scripts are another matter.
///
/// `median_time_at` gives the median time past at each height of [`lock_heights`]. The transaction has passed
/// [`check_transaction`](crate::check::check_transaction).
///
/// # Errors
/// The first rule broken, in the order of the code.
pub fn check_spends<'a>(
    transaction: &Transaction,
    coins: impl Iterator<Item = &'a Coin> + Clone,
    context: SpendContext,
    median_time_at: impl Fn(Height) -> u32,
) -> Result<Amount, InvalidTransaction> {
    let mut inputs = Amount::ZERO;
    for (input, coin) in transaction.input.iter().zip(coins.clone()) {
        check_coin(input, coin, context.height)?;
        inputs += coin.output.value;
        if inputs > Amount::MAX_MONEY {
            return Err(InvalidTransaction::InputSumOutOfRange);
        }
    }
    let outputs = transaction.output.iter().map(|output| output.value).sum();
    let fee = inputs.checked_sub(outputs).ok_or(InvalidTransaction::OutputsExceedInputs { inputs, outputs })?;

    for (input, coin) in transaction.input.iter().zip(coins) {
        // BIP-0068: locked until so many blocks, or so much median time, after the coin's own.
        let locked = match relative_lock(transaction, input) {
            RelativeLock::None => false,
            RelativeLock::Blocks(blocks) => {
                u64::from(coin.height.to_u32()) + u64::from(blocks) > u64::from(context.height.to_u32())
            }
            RelativeLock::Seconds(seconds) => {
                u64::from(median_time_at(time_base(coin.height))) + seconds > u64::from(context.median_time)
            }
        };
        if locked {
            return Err(InvalidTransaction::SequenceLock);
        }
    }
    Ok(fee)
}

fn check_coin(input: &TxIn, coin: &Coin, height: Height) -> Result<(), InvalidTransaction> {
    let outpoint = input.previous_output;
    let age = height.to_u32() - coin.height.to_u32();
    if coin.coinbase && age < COINBASE_MATURITY {
        let needs = COINBASE_MATURITY;
        return Err(InvalidTransaction::ImmatureCoinbase { outpoint, created: coin.height, needs });
    }
    if PegScript::of(&coin.output.script_pubkey).is_some() {
        return Err(InvalidTransaction::SpendsPegCoin { outpoint });
    }
    Ok(())
}

/// Returns the heights whose median times the relative locks of a transaction count from, sorted, each once.
pub fn lock_heights<'a>(transaction: &Transaction, coins: impl Iterator<Item = &'a Coin>) -> Vec<Height> {
    let mut heights: Vec<Height> = (transaction.input.iter().zip(coins))
        .filter(|(input, _)| matches!(relative_lock(transaction, input), RelativeLock::Seconds(_)))
        .map(|(_, coin)| time_base(coin.height))
        .collect();
    heights.sort_unstable();
    heights.dedup();
    heights
}

/// Checks how many signature operations a transaction may execute outside of witnesses (BIP-0054).
///
/// # Errors
/// [`InvalidTransaction::TooManyLegacySigops`].
pub fn check_legacy_sigops<'a>(
    transaction: &Transaction,
    coins: impl Iterator<Item = &'a Coin>,
) -> Result<(), InvalidTransaction> {
    let executed = transaction.input.iter().zip(coins).map(|(input, coin)| sigops::executed(input, coin));
    let (count, max) = (executed.sum(), MAX_TX_LEGACY_SIGOPS);
    if count > max { Err(InvalidTransaction::TooManyLegacySigops { count, max }) } else { Ok(()) }
}

/// Returns what the signature operations of a transaction cost in a block (BIP-0141; Bitcoin Core:
/// `GetTransactionSigOpCost`; and what [`sigops`] adds).
pub fn sigops_cost<'a>(transaction: &Transaction, coins: impl Iterator<Item = &'a Coin>) -> usize {
    sigops::legacy(transaction) * WITNESS_SCALE_FACTOR
        + sigops::inputs_cost(transaction, transaction.base_size(), coins)
}
