//! Coins on Causeway for tests, by real peg-ins.

use bitcoin::{Amount, Block, OutPoint, ScriptBuf, Transaction, TxOut};
use causeway_chainspec::{ChainSpec, ChainSpecParts, PegOutDestination, devnet};
use causeway_consensus::peg::propose::Candidates;
use causeway_consensus::peg::script::DepositTerms;
use causeway_consensus::peg::step::peg_in_fee;

use super::{ParentChain, terms};
use crate::chain::MemoryChain;
use crate::wallet::{Kind, Owner, Spendable, spend};

/// The owner of what is left over.
const FAUCET: u64 = u64::MAX;

/// What [`fund`] credits.
const FUNDS: Amount = Amount::from_int_btc(1_000_000);

/// Returns the devnet's chainspec after an edit.
pub fn peg_spec(edit: impl FnOnce(&mut ChainSpecParts)) -> ChainSpec {
    let mut parts = ChainSpec::built_in("devnet").expect("devnet is built in").to_parts();
    edit(&mut parts);
    ChainSpec::new(parts).expect("a sound chainspec")
}

/// Returns the script on Causeway of a request that pays an owner's P2WPKH output on Bitcoin.
pub fn request_script(payee: &Owner) -> ScriptBuf {
    let script = payee.script_pubkey(Kind::P2wpkh);
    PegOutDestination::from_bitcoin_script(&script).expect("P2WPKH is paid").to_script_pubkey()
}

/// Mines empty blocks until the tip is so deep that everything below is final, and lets the chain know, with the block that
/// is returned.
pub fn bury(chain: &mut MemoryChain, parent: &mut ParentChain) -> Block {
    parent.clock = parent.clock.max(chain.next_context().time);
    parent.mine_empty(chain.spec.params().final_depth - 1);
    parent.follow(chain)
}

/// Pegs in every one of `outputs`, whose scripts have a form that deposits are credited to, and returns the two blocks that
/// did it, with the coins in the same order. The deposits are mined in one block, with transactions of their own.
///
/// # Panics
/// If the peg is frozen or does not take the deposits.
pub fn credit_each(
    chain: &mut MemoryChain,
    parent: &mut ParentChain,
    outputs: &[TxOut],
) -> ([Block; 2], Vec<OutPoint>) {
    let network = chain.peg().network().clone();
    let fee = peg_in_fee(chain.peg().agreed_rate(), chain.spec.federation().worst_deposit_input_weight());
    let deposits: Vec<(DepositTerms, Transaction)> = outputs
        .iter()
        .map(|output| {
            let terms = terms(output.script_pubkey.clone(), &Owner::new(FAUCET));
            let transaction = parent.deposit(&network, &terms, output.value + fee);
            (terms, transaction)
        })
        .collect();
    parent.clock = parent.clock.max(chain.next_context().time);
    parent.mine(deposits.iter().map(|(_, transaction)| transaction.clone()).collect());
    let headers = bury(chain, parent);

    let claim = |(terms, transaction): &(DepositTerms, Transaction)| {
        let deposit = OutPoint { txid: transaction.compute_txid(), vout: 0 };
        parent.peg_in(terms, deposit).expect("it was mined")
    };
    let candidates = Candidates { peg_ins: deposits.iter().map(claim).collect(), ..Candidates::default() };
    let block = chain.next_block_with(candidates, Amount::ZERO, Vec::new());
    chain.accept(&block).expect("deposits can be credited");
    // Evidence has an order of its own.
    let peg = &block.txdata[1];
    let txid = peg.compute_txid();
    let mut credits: Vec<(u32, &TxOut)> = (0..).zip(&peg.output).skip(1).collect();
    let coins = outputs.iter().map(|output| {
        let found = credits.iter().position(|(_, credit)| *credit == output).expect("the deposit was credited");
        OutPoint { txid, vout: credits.remove(found).0 }
    });
    let coins = coins.collect();
    ([headers, block], coins)
}

/// Returns the coin of the devnet's funds, which everyone has the key of, after a deposit to it, and the blocks that came
/// with it.
///
/// # Panics
/// As [`credit_each`].
pub fn fund(chain: &mut MemoryChain) -> ([Block; 2], Spendable) {
    let (owner, kind) = (Owner::of_key(&devnet::secret_key(devnet::FUNDS, 0)), Kind::P2wpkh);
    let output = TxOut { value: FUNDS, script_pubkey: owner.script_pubkey(kind) };
    let mut parent = ParentChain::new(&chain.spec);
    let (blocks, coins) = credit_each(chain, &mut parent, std::slice::from_ref(&output));
    (blocks, Spendable { outpoint: coins[0], output, owner, kind })
}

/// Creates coins with these values and scripts, and returns their outpoints in the same order: a deposit of what they are
/// worth is credited to an owner of the faucet, and spent to `outputs`. Adds three blocks to the chain.
///
/// # Panics
/// As [`credit_each`].
pub fn credit(chain: &mut MemoryChain, parent: &mut ParentChain, outputs: Vec<TxOut>) -> Vec<OutPoint> {
    let (owner, kind) = (Owner::new(FAUCET), Kind::P2wpkh);
    let wanted: Amount = outputs.iter().map(|output| output.value).sum();
    let fee = peg_in_fee(chain.peg().agreed_rate(), chain.spec.federation().worst_deposit_input_weight());
    let value = wanted.max(chain.spec.params().peg_in_min - fee).max(fee);
    let output = TxOut { value, script_pubkey: owner.script_pubkey(kind) };
    let (_, coins) = credit_each(chain, parent, std::slice::from_ref(&output));

    let coin = Spendable { outpoint: coins[0], output: output.clone(), owner, kind };
    let count = outputs.len();
    let left = value - wanted;
    let change = (left > Amount::ZERO).then_some(TxOut { value: left, ..output });
    let transaction = spend(&[coin], outputs.into_iter().chain(change).collect());
    let txid = transaction.compute_txid();
    let block = chain.next_block(Amount::ZERO, vec![transaction]);
    chain.accept(&block).expect("the faucet's coins can be spent");
    (0u32..).take(count).map(|vout| OutPoint { txid, vout }).collect()
}
