//! A verdict that is kept must stand for exactly what was verified: a block of known transactions is not verified
//! again, and nothing else is ever skipped.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use bitcoin::absolute::LockTime;
use bitcoin::consensus::serialize;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use causeway_chainspec::{ChainSpec, Height};
use causeway_consensus::assemble::assemble_block;
use causeway_consensus::script::{PreparedTransaction, ScriptError, VerifiedScripts};
use causeway_consensus::{
    ChainView, Coin, ConnectError, InvalidBlock, InvalidTransaction, ScriptCache, StateFault, Tip, Workers,
    check_block, connect_block, parse_block, resolve,
};

/// `EQUAL` with 1: the witness decides.
const IS_ONE: [u8; 2] = [0x51, 0x87];

struct View {
    spec: ChainSpec,
    tip: Arc<Tip>,
    coins: HashMap<OutPoint, Coin>,
}

impl ChainView for View {
    fn tip(&self) -> Arc<Tip> {
        Arc::clone(&self.tip)
    }

    fn coins(&self, outpoints: &[OutPoint]) -> Result<Vec<Option<Coin>>, StateFault> {
        Ok(outpoints.iter().map(|outpoint| self.coins.get(outpoint).cloned()).collect())
    }

    fn median_times(&self, heights: &[Height]) -> Result<Vec<u32>, StateFault> {
        Ok(vec![0; heights.len()])
    }
}

/// The devnet with eight coins that a witness of 1 spends.
fn view() -> View {
    let spec = ChainSpec::built_in("devnet").expect("built in");
    let tip = Arc::new(Tip::after_derived_blocks(&spec).0);
    let coin = Coin { output: output(), height: Height(1), coinbase: false };
    let coins = (0..8).map(|number| (outpoint(number), coin.clone())).collect();
    View { spec, tip, coins }
}

fn output() -> TxOut {
    let script_pubkey = ScriptBuf::from_bytes(IS_ONE.to_vec()).to_p2wsh();
    TxOut { value: Amount::from_sat(10_000), script_pubkey }
}

fn outpoint(number: u8) -> OutPoint {
    OutPoint { txid: Txid::from_byte_array(sha256::Hash::hash(&[number]).to_byte_array()), vout: 0 }
}

/// The transaction that moves a coin with a witness of 1 (valid) or another number.
fn moves(number: u8, witness: u8) -> Transaction {
    let input = TxIn {
        previous_output: outpoint(number),
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::from_slice(&[vec![witness], IS_ONE.to_vec()]),
    };
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![input], output: vec![output()] }
}

fn verified(transaction: &Transaction) -> Result<VerifiedScripts, ScriptError> {
    let spent = output();
    PreparedTransaction::new(transaction, &serialize(transaction), vec![&spent]).verify()
}

fn connect(view: &View, transactions: &[Transaction], known: Option<&ScriptCache>) -> Result<(), InvalidBlock> {
    let block = assemble_block(&view.tip, view.tip.time() + 1, Amount::ZERO, ScriptBuf::new(), transactions.to_vec());
    let checked = check_block(parse_block(serialize(&block)).expect("parses"), view.spec.params()).expect("right");
    let resolved = resolve(checked, view).expect("stands on the tip");
    match connect_block(resolved, &Workers::new(NonZeroUsize::MIN), known) {
        Ok(_) => Ok(()),
        Err(ConnectError::Invalid(invalid)) => Err(invalid),
        Err(error) => panic!("{error}"),
    }
}

/// Evidence for a transaction that is not valid, so that skipping shows: it was "verified" against an output that anyone
/// can spend, which is not the one of its coin.
fn false_evidence(transaction: &Transaction) -> VerifiedScripts {
    let anyone = TxOut { script_pubkey: ScriptBuf::from_bytes(vec![0x52, 2, 1, 1]), ..output() };
    PreparedTransaction::new(transaction, &serialize(transaction), vec![&anyone]).verify().expect("anyone can")
}

fn failure(index: usize, transaction: &Transaction) -> Result<(), InvalidBlock> {
    let rule = InvalidTransaction::Script { input: 0 };
    Err(InvalidBlock::Transaction { index, txid: transaction.compute_txid(), rule })
}

#[test]
fn known_transactions_are_skipped_and_no_others() {
    let view = view();
    let block = [moves(0, 1), moves(1, 2), moves(2, 1), moves(3, 2)];
    assert_eq!(connect(&view, &block, None), failure(2, &block[1]));
    let with = |known: &[usize]| {
        let cache = ScriptCache::new(100);
        known.iter().for_each(|index| cache.insert(&false_evidence(&block[*index])));
        connect(&view, &block, Some(&cache))
    };
    assert_eq!(with(&[0, 1, 2, 3]), Ok(()));
    assert_eq!(with(&[1, 3]), Ok(()));
    // The place of what fails is its place in the block, whatever is skipped before it.
    assert_eq!(with(&[]), failure(2, &block[1]));
    assert_eq!(with(&[0, 2, 3]), failure(2, &block[1]));
    assert_eq!(with(&[0, 1, 2]), failure(4, &block[3]));
    assert_eq!(with(&[1]), failure(4, &block[3]));
}

#[test]
fn a_block_of_cached_transactions_connects_and_what_failed_never_enters_the_cache() {
    let view = view();
    let cache = ScriptCache::new(100);
    let good = [moves(0, 1), moves(1, 1)];
    for transaction in &good {
        let evidence = verified(transaction).expect("valid");
        assert_eq!(evidence.wtxid(), transaction.compute_wtxid());
        cache.insert(&evidence);
    }
    assert_eq!(connect(&view, &good, Some(&cache)), Ok(()));

    let bad = moves(2, 2);
    assert!(matches!(verified(&bad), Err(ScriptError::Invalid { input: 0 })));
    let block = [good[0].clone(), bad.clone(), good[1].clone()];
    assert_eq!(connect(&view, &block, Some(&cache)), failure(2, &bad));
}

#[test]
fn another_witness_of_a_known_txid_is_verified() {
    let view = view();
    let cache = ScriptCache::new(100);
    cache.insert(&verified(&moves(0, 1)).expect("valid"));
    let altered = moves(0, 2);
    assert_eq!(altered.compute_txid(), moves(0, 1).compute_txid());
    assert_eq!(connect(&view, std::slice::from_ref(&altered), Some(&cache)), failure(1, &altered));
}
