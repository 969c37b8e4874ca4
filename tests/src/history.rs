//! A chain's worth of blocks, the same ones for the same seed: a deposit, and then transfers, splits, merges, and spends
//! within a block.

use bitcoin::consensus::serialize;
use bitcoin::{Amount, Block, OutPoint, Transaction, TxOut};
use causeway_chainspec::ChainSpec;
use causeway_consensus::{ChainView, LtHash};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::chain::MemoryChain;
use crate::parent::fund;
use crate::wallet::{Kind, Owner, Spendable, spend};

/// What every transaction pays.
const FEE: Amount = Amount::from_sat(1_000);

/// A coin below this is not split any further.
const MIN_SPLIT: Amount = Amount::from_sat(100_000);

/// Blocks, and the state after each.
#[derive(Debug)]
pub struct History {
    /// Serialised blocks from height 101 on.
    pub blocks: Vec<Vec<u8>>,
    /// The coins' hash after each block.
    pub coins: Vec<LtHash>,
    /// How many coins there are after each block.
    pub coin_counts: Vec<usize>,
}

impl History {
    /// Returns `blocks` blocks of the devnet, at least two: those that peg in its funds, and then each with up to
    /// `transactions` transactions.
    pub fn new(seed: u64, blocks: usize, transactions: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut chain = MemoryChain::new(ChainSpec::built_in("devnet").expect("built in"));
        let (first, funds) = fund(&mut chain.clone());
        let mut purse = vec![funds];
        let mut history = Self { blocks: vec![], coins: vec![], coin_counts: vec![] };
        for block in first {
            history.add(&mut chain, &block);
        }
        while history.blocks.len() < blocks {
            let count = rng.random_range(0..=transactions);
            let transactions: Vec<Transaction> = (0..count).map(|_| transfer(&mut rng, &mut purse)).collect();
            let block = chain.next_block(FEE * transactions.len() as u64, transactions);
            history.add(&mut chain, &block);
        }
        history
    }

    fn add(&mut self, chain: &mut MemoryChain, block: &Block) {
        chain.accept(block).expect("the history is valid");
        self.blocks.push(serialize(block));
        self.coins.push(chain.tip().coins().clone());
        self.coin_counts.push(chain.coins_mut().len());
    }
}

/// Takes one or two coins out of the purse, and puts what they are spent to in. Later transactions of the same block may
/// spend it.
fn transfer(rng: &mut StdRng, purse: &mut Vec<Spendable>) -> Transaction {
    let merge = purse.len() > 40 && rng.random_bool(0.5);
    let coins: Vec<Spendable> =
        (0..if merge { 2 } else { 1 }).map(|_| purse.swap_remove(rng.random_range(0..purse.len()))).collect();
    let left = coins.iter().map(|coin| coin.output.value).sum::<Amount>() - FEE;
    let parts = if left < MIN_SPLIT { 1 } else { rng.random_range(1..=3u64) };
    let payees: Vec<(Owner, Kind)> = (0..parts)
        .map(|_| (Owner::new(rng.random_range(0..64)), Kind::ALL[rng.random_range(0..Kind::ALL.len())]))
        .collect();
    let mut outputs: Vec<TxOut> = payees
        .iter()
        .map(|(owner, kind)| TxOut { value: left / parts, script_pubkey: owner.script_pubkey(*kind) })
        .collect();
    outputs[0].value += left % parts;
    let transaction = spend(&coins, outputs);
    let txid = transaction.compute_txid();
    for ((vout, output), (owner, kind)) in (0u32..).zip(&transaction.output).zip(payees) {
        purse.push(Spendable { outpoint: OutPoint { txid, vout }, output: output.clone(), owner, kind });
    }
    transaction
}
