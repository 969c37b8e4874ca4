//! Coins on Causeway for tests, by real peg-ins.

use bitcoin::{Amount, OutPoint, ScriptBuf, TxOut};
use causeway_chainspec::{ChainSpec, ChainSpecParts, PegOutDestination};
use causeway_consensus::peg::propose::Candidates;
use causeway_consensus::peg::step::peg_in_fee;

use super::{ParentChain, terms};
use crate::chain::MemoryChain;
use crate::wallet::{Kind, Owner, Spendable, spend};

/// The owner of what is left over.
const FAUCET: u64 = u64::MAX;

/// Returns the devnet's chainspec without allocations, after an edit: with bitcoins out of nowhere its accounts could not
/// add up.
pub fn peg_spec(edit: impl FnOnce(&mut ChainSpecParts)) -> ChainSpec {
    let mut parts = ChainSpec::built_in("devnet").expect("devnet is built in").to_parts();
    parts.allocations.clear();
    edit(&mut parts);
    ChainSpec::new(parts).expect("a sound chainspec")
}

/// Returns the script on Causeway of a request that pays an owner's P2WPKH output on Bitcoin.
pub fn request_script(payee: &Owner) -> ScriptBuf {
    let script = payee.script_pubkey(Kind::P2wpkh);
    PegOutDestination::from_bitcoin_script(&script).expect("P2WPKH is paid").to_script_pubkey()
}

/// Mines empty blocks until the tip is so deep that everything below is final, and lets the chain know.
pub fn bury(chain: &mut MemoryChain, parent: &mut ParentChain) {
    parent.clock = parent.clock.max(chain.next_context().time);
    parent.mine_empty(chain.spec.params().final_depth - 1);
    parent.follow(chain);
}

/// Creates coins with these values and scripts, and returns their outpoints in the same order: a deposit of what they are
/// worth is mined, buried, credited to an owner of the faucet, and spent to `outputs`. Adds three blocks to the chain.
///
/// # Panics
/// If the peg is frozen or cannot take another deposit.
pub fn credit(chain: &mut MemoryChain, parent: &mut ParentChain, outputs: Vec<TxOut>) -> Vec<OutPoint> {
    let owner = Owner::new(FAUCET);
    let kind = Kind::P2wpkh;
    let wanted: Amount = outputs.iter().map(|output| output.value).sum();
    let fee = peg_in_fee(chain.peg().agreed_rate(), chain.spec.federation().worst_deposit_input_weight());
    let amount = (wanted + fee).max(chain.spec.params().peg_in_min).max(fee * 2);

    let terms = terms(owner.script_pubkey(kind), &owner);
    let network = chain.peg().network().clone();
    let transaction = parent.deposit(&network, &terms, amount);
    let deposit = OutPoint { txid: transaction.compute_txid(), vout: 0 };
    parent.clock = parent.clock.max(chain.next_context().time);
    parent.mine(vec![transaction]);
    bury(chain, parent);

    let peg_in = parent.peg_in(&terms, deposit).expect("it was mined");
    let candidates = Candidates { peg_ins: vec![peg_in], ..Candidates::default() };
    let block = chain.next_block_with(candidates, Amount::ZERO, Vec::new());
    let connected = chain.accept(&block).expect("a deposit can be credited");
    assert_eq!(connected.evidence().map_or(0, |evidence| evidence.peg_ins.len()), 1, "the deposit was not credited");
    let credited = block.txdata[1].output[1].clone();
    let left = credited.value - wanted;
    let outpoint = OutPoint { txid: block.txdata[1].compute_txid(), vout: 1 };

    let coin = Spendable { outpoint, output: credited, owner: owner.clone(), kind };
    let count = outputs.len();
    let change = TxOut { value: left, script_pubkey: owner.script_pubkey(kind) };
    let transaction = spend(&[coin], outputs.into_iter().chain((left > Amount::ZERO).then_some(change)).collect());
    let txid = transaction.compute_txid();
    let block = chain.next_block(Amount::ZERO, vec![transaction]);
    chain.accept(&block).expect("the faucet's coins can be spent");
    (0u32..).take(count).map(|vout| OutPoint { txid, vout }).collect()
}
