//! Rule 3 for deposits: every one that was credited since the member last signed is on Bitcoin's best chain, whether or
//! not a batch spends it.
//!
//! The member keeps a mark of how far it has looked. Blocks are a chain: while the highest Bitcoin block that holds a
//! deposit below the mark is on the best chain, the blocks of all the others are too, so that one question answers for
//! them all.

use bitcoin::{BlockHash, OutPoint};
use causeway_chainspec::BitcoinHeight;
use serde::{Deserialize, Serialize};

use super::{BitcoinPoint, Decline, NotReady, Refusal};

/// How far credited deposits were found on Bitcoin's best chain. The default is that none was looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DepositsMark {
    /// All that were credited up to this Causeway block.
    pub height: u32,
    /// The highest of their blocks on Bitcoin; None as long as there is none.
    pub newest: Option<BitcoinPoint>,
}

/// A deposit that was credited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreditedDeposit {
    /// Which output on Bitcoin it is.
    pub outpoint: OutPoint,
    /// The height of the Causeway block that credited it.
    pub credited: u32,
    /// Its block, as the chain proved it.
    pub block: BitcoinPoint,
    /// Whether a batch spends it, open or closed, as the member's node says.
    pub in_batch: bool,
    /// The block of bitcoind's best chain at that height; None above its tip.
    pub found: Option<BlockHash>,
    /// Whether bitcoind has it in the coin set of its best chain.
    pub unspent: bool,
}

/// What the member's own node and bitcoind say of deposits that were credited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DepositFacts {
    /// Those credited in blocks above this one..
    pub since: u32,
    /// .. up to this one.
    pub to: u32,
    /// In the order of their credits.
    pub deposits: Vec<CreditedDeposit>,
    /// [`DepositsMark::newest`] of the mark that was asked with, and bitcoind's block at its height.
    pub newest: Option<(BitcoinPoint, Option<BlockHash>)>,
    /// Height of bitcoind's best block.
    pub bitcoin_height: BitcoinHeight,
    /// It has not caught up with the headers that it knows.
    pub syncing: bool,
}

/// Moves the mark to what the facts show.
///
/// # Errors
/// [`Decline`]: bitcoind cannot say, or a deposit is not there. The mark stays.
pub fn check_deposits(mark: &DepositsMark, facts: &DepositFacts) -> Result<DepositsMark, Decline> {
    let height = facts.bitcoin_height;
    if facts.syncing {
        return Err(NotReady::BitcoinSyncing { height }.into());
    }
    if facts.since > mark.height {
        return Err(NotReady::DepositsUnchecked { checked: mark.height, tip: facts.to }.into());
    }
    let mut newest = mark.newest;
    if let Some((block, found)) = facts.newest {
        let found = found.ok_or(NotReady::DepositAhead { height, block: block.height })?;
        if found != block.hash {
            return Err(Refusal::CreditsReorganised { block }.into());
        }
    }
    for deposit in &facts.deposits {
        let CreditedDeposit { outpoint, credited, block, .. } = *deposit;
        let found = deposit.found.ok_or(NotReady::DepositAhead { height, block: block.height })?;
        if found != block.hash {
            return Err(Refusal::CreditedOffChain { outpoint, credited, block }.into());
        }
        if !deposit.unspent && !deposit.in_batch {
            return Err(Refusal::CreditedSpent { outpoint, credited }.into());
        }
        if newest.is_none_or(|newest| newest.height < block.height) {
            newest = Some(block);
        }
    }
    Ok(DepositsMark { height: mark.height.max(facts.to), newest })
}

#[cfg(test)]
mod tests;
