//! A chain in memory: the same stages as the store's, without a disk.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use bitcoin::consensus::serialize;
use bitcoin::{Amount, Block, OutPoint, ScriptBuf, Transaction};
use causeway_chainspec::{ChainSpec, Height, LAST_DERIVED_HEIGHT};
use causeway_consensus::assemble::assemble_block;
use causeway_consensus::peg::propose::{Candidates, propose};
use causeway_consensus::peg::{PegContext, PegState};
use causeway_consensus::{
    ChainView, Coin, ConnectError, ConnectedBlock, InvalidBlock, ResolveError, StateFault, Tip, Workers, check_block,
    connect_block, parse_block, resolve,
};

/// A final state held in maps.
#[derive(Clone)]
pub struct MemoryChain {
    /// The chain's parameters.
    pub spec: ChainSpec,
    /// The threads that verify.
    pub workers: Arc<Workers>,
    tip: Arc<Tip>,
    coins: HashMap<OutPoint, Coin>,
    /// Median time past of every height.
    median_times: Vec<u32>,
}

impl MemoryChain {
    /// Returns the chain of `spec` after its derived blocks, which verifies with two threads.
    pub fn new(spec: ChainSpec) -> Self {
        Self::with_workers(spec, Arc::new(Workers::new(NonZeroUsize::new(2).expect("not zero"))))
    }

    /// Returns the same, which verifies with these threads.
    pub fn with_workers(spec: ChainSpec, workers: Arc<Workers>) -> Self {
        let (tip, coins) = Tip::after_derived_blocks(&spec);
        let times: Vec<u32> = (0..=LAST_DERIVED_HEIGHT.to_u32())
            .map(|height| spec.derived_block(Height(height)).expect("derived").header.time)
            .collect();
        let median_times = (0..times.len())
            .map(|height| {
                let mut window = times[height.saturating_sub(10)..=height].to_vec();
                window.sort_unstable();
                window[window.len() / 2]
            })
            .collect();
        Self { spec, workers, tip: Arc::new(tip), coins: coins.into_iter().collect(), median_times }
    }

    /// The coins, to look at or to add some that no block created.
    pub fn coins_mut(&mut self) -> &mut HashMap<OutPoint, Coin> {
        &mut self.coins
    }

    /// The peg after the tip.
    pub fn peg(&self) -> &PegState {
        self.tip.peg()
    }

    /// The block that comes one second after the tip, as the peg's rules see it.
    pub fn next_context(&self) -> PegContext {
        self.context_at(self.tip.time() + 1)
    }

    /// The block that comes next with this time, as the peg's rules see it.
    pub fn context_at(&self, time: u32) -> PegContext {
        PegContext { height: self.tip.height().next().expect("there is a height left"), time }
    }

    /// Returns a block on the tip, one second after it, with transactions that pay `fees` together. It has a peg
    /// transaction if a batch is due.
    pub fn next_block(&self, fees: Amount, transactions: Vec<Transaction>) -> Block {
        self.next_block_with(Candidates::default(), fees, transactions)
    }

    /// Returns the same, with a peg transaction of what the rules permit of `candidates`.
    pub fn next_block_with(&self, candidates: Candidates, fees: Amount, transactions: Vec<Transaction>) -> Block {
        self.block_at(self.tip.time() + 1, candidates, fees, transactions)
    }

    /// Returns the same, with this time.
    pub fn block_at(&self, time: u32, candidates: Candidates, fees: Amount, transactions: Vec<Transaction>) -> Block {
        let peg = propose(self.peg(), self.context_at(time), candidates);
        self.raw_block_at(time, fees, peg.into_iter().chain(transactions).collect())
    }

    /// Returns a block on the tip with exactly these transactions after its coinbase.
    pub fn raw_block_at(&self, time: u32, fees: Amount, transactions: Vec<Transaction>) -> Block {
        let script = ScriptBuf::from_bytes(vec![0x51]);
        assemble_block(&self.tip, time, fees, script, transactions)
    }

    /// Takes a block through every stage up to connected.
    pub fn validate(&self, bytes: Vec<u8>) -> Result<ConnectedBlock, InvalidBlock> {
        let checked = check_block(parse_block(bytes)?, self.spec.params())?;
        let resolved = resolve(checked, self).map_err(|error| match error {
            ResolveError::Invalid(invalid) => invalid,
            other => panic!("{other}"),
        })?;
        connect_block(resolved, &self.workers, None).map_err(|error| match error {
            ConnectError::Invalid(invalid) => invalid,
            other => panic!("{other}"),
        })
    }

    /// Makes a connected block the tip.
    pub fn apply(&mut self, connected: &ConnectedBlock) {
        for (outpoint, coin) in &connected.delta().created {
            self.coins.insert(*outpoint, coin.clone());
        }
        for (outpoint, _) in &connected.delta().spent {
            self.coins.remove(outpoint);
        }
        self.tip = Arc::clone(connected.tip());
        self.median_times.push(self.tip.median_time_past());
    }

    /// Validates a block and makes it the tip.
    pub fn accept(&mut self, block: &Block) -> Result<ConnectedBlock, InvalidBlock> {
        let connected = self.validate(serialize(block))?;
        self.apply(&connected);
        Ok(connected)
    }

    /// Adds empty blocks.
    pub fn grow(&mut self, blocks: u32) {
        for _ in 0..blocks {
            let block = self.next_block(Amount::ZERO, vec![]);
            self.accept(&block).expect("an empty block is valid");
        }
    }
}

impl ChainView for MemoryChain {
    fn tip(&self) -> Arc<Tip> {
        Arc::clone(&self.tip)
    }

    fn coins(&self, outpoints: &[OutPoint]) -> Result<Vec<Option<Coin>>, StateFault> {
        Ok(outpoints.iter().map(|outpoint| self.coins.get(outpoint).cloned()).collect())
    }

    fn median_times(&self, heights: &[Height]) -> Result<Vec<u32>, StateFault> {
        Ok(heights.iter().map(|height| self.median_times[height.to_u32() as usize]).collect())
    }
}
