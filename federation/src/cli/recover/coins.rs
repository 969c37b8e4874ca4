//! Which coins a recovery takes: what nodes and lists say, looked up in bitcoind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bitcoin::{OutPoint, ScriptBuf};
use causeway_chainspec::{BitcoinHeight, ChainId};
use causeway_consensus::peg::script::EpochScripts;

use super::RecoverError;
use crate::approve::BlockPoint;
use crate::bitcoind::FoundCoin;
use crate::daemon::{NodeUrl, NodeView as _, RestNode};
use crate::recover::{COINS_MAX, RecoveryCoin, RecoveryDeposit, coin_script};

/// Most pages that a node is asked for: fifty million deposits.
const PAGES_MAX: usize = 100_000;

/// The deposits of an epoch that no deep batch has spent, as a node says, and its tip.
///
/// # Errors
/// The node gives no answer, or follows another chain.
pub(super) async fn unswept(
    url: &NodeUrl,
    chain: ChainId,
    epoch: u32,
) -> Result<(Vec<RecoveryCoin>, BlockPoint), RecoverError> {
    let node = RestNode::new(url.clone());
    let got = node.chain().await?;
    if got != chain {
        return Err(RecoverError::OtherChain { url: url.clone(), got, expected: chain });
    }
    let (mut coins, mut since) = (Vec::new(), 0);
    for _ in 0..PAGES_MAX {
        let page = node.peg_ins(since).await?;
        for deposit in page.peg_ins {
            let Some(terms) = deposit.terms.filter(|terms| terms.epoch == epoch) else { continue };
            let terms = RecoveryDeposit { destination: terms.destination, refund_key: terms.refund_key };
            let value = deposit.value.to_sat();
            coins.push(RecoveryCoin { outpoint: deposit.outpoint, value, deposit: Some(terms) });
        }
        if page.to >= page.tip.height {
            return Ok((coins, page.tip));
        }
        if page.to <= since || coins.len() > COINS_MAX {
            break;
        }
        since = page.to;
    }
    Err(RecoverError::Endless { url: url.clone() })
}

/// The scripts to look for: those of the listed coins, and that of main outputs.
pub(super) fn wanted_scripts(chain: ChainId, scripts: &Arc<EpochScripts>, listed: &[RecoveryCoin]) -> Vec<ScriptBuf> {
    let listed = listed.iter().map(|coin| coin_script(scripts, chain, coin));
    let wanted: BTreeSet<ScriptBuf> = listed.chain([scripts.main_script().to_owned()]).collect();
    wanted.into_iter().collect()
}

/// What is left of a list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct There {
    /// Coins to be taken: listed ones, and main outputs.
    pub(super) coins: Vec<RecoveryCoin>,
    /// Listed coins that are not there.
    pub(super) gone: Vec<OutPoint>,
}

/// The coins that are there and old enough, of a list and of what was found at Bitcoin height `tip`.
///
/// # Errors
/// One is too young, and such are not to be left out.
pub(super) fn sort_out(
    chain: ChainId,
    scripts: &Arc<EpochScripts>,
    listed: Vec<RecoveryCoin>,
    found: &[FoundCoin],
    tip: BitcoinHeight,
    mature_only: bool,
) -> Result<There, RecoverError> {
    let at: BTreeMap<OutPoint, &FoundCoin> = found.iter().map(|found| (found.outpoint, found)).collect();
    let known: BTreeSet<OutPoint> = listed.iter().map(|coin| coin.outpoint).collect();
    let (mut there, mut gone) = (Vec::new(), Vec::new());
    for coin in listed {
        let script = coin_script(scripts, chain, &coin);
        let is_it = |found: &&&FoundCoin| found.value.to_sat() == coin.value && found.script_pubkey == script;
        match at.get(&coin.outpoint).filter(is_it) {
            Some(found) => there.push((coin, found.height)),
            None => gone.push(coin.outpoint),
        }
    }
    let is_main = |found: &&FoundCoin| *found.script_pubkey == *scripts.main_script();
    for found in found.iter().filter(|found| !known.contains(&found.outpoint)).filter(is_main) {
        let coin = RecoveryCoin { outpoint: found.outpoint, value: found.value.to_sat(), deposit: None };
        there.push((coin, found.height));
    }
    let needed = u32::from(scripts.epoch().timelocks().recovery_delay);
    let mut coins = Vec::new();
    for (coin, height) in there {
        let confirmations = height.confirmations(tip);
        if confirmations >= needed {
            coins.push(coin);
        } else if !mature_only {
            return Err(RecoverError::Immature { outpoint: coin.outpoint, confirmations, needed });
        }
    }
    Ok(There { coins, gone })
}

#[cfg(test)]
mod tests;
