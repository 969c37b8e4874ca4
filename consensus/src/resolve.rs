//! The only read: what a block stands on and what it spends.

use std::collections::HashMap;
use std::sync::Arc;

use bitcoin::{BlockHash, OutPoint, Txid};
use causeway_chainspec::Height;

use crate::check::CheckedBlock;
use crate::coin::{Coin, is_unspendable};
use crate::error::{InvalidBlock, InvalidTransaction, NotReady, ResolveError, StateFault};
use crate::id_map::{IdMap, IdSet};
use crate::locks::{RelativeLock, relative_lock, time_base};
use crate::tip::{MAX_HEIGHT, Tip};

/// A final state that blocks can be resolved against.
pub trait ChainView {
    /// Returns the head of the chain.
    fn tip(&self) -> Arc<Tip>;

    /// Returns the coin of each outpoint, in the order asked, None where there is none; all of them from one state, which
    /// may be later than the [`ChainView::tip`] that was read before.
    ///
    /// # Errors
    /// If the state cannot be read.
    fn coins(&self, outpoints: &[OutPoint]) -> Result<Vec<Option<Coin>>, StateFault>;

    /// Returns the median time past of each height, the block of that height included, in the order asked.
    ///
    /// # Errors
    /// If the state cannot be read, a height above the tip included.
    fn median_times(&self, heights: &[Height]) -> Result<Vec<u32>, StateFault>;
}

/// A checked block with its parent's state and every coin that it spends.
#[derive(Debug, Clone)]
pub struct ResolvedBlock {
    checked: CheckedBlock,
    parent: Arc<Tip>,
    height: Height,
    /// One for each input after the coinbase's, in block order.
    spent: Vec<SpentCoin>,
    /// Median times that relative locks of this block count from.
    median_times: HashMap<Height, u32>,
}

/// A coin that an input spends.
#[derive(Debug, Clone)]
pub(crate) struct SpentCoin {
    pub(crate) coin: Coin,
    /// Whether this very block creates it, so that it never enters the state.
    pub(crate) within_block: bool,
}

impl ResolvedBlock {
    /// The checked block.
    pub fn checked(&self) -> &CheckedBlock {
        &self.checked
    }

    /// The height it stands at.
    pub fn height(&self) -> Height {
        self.height
    }

    /// The chain below it.
    pub fn parent(&self) -> &Tip {
        &self.parent
    }

    pub(crate) fn spent(&self) -> &[SpentCoin] {
        &self.spent
    }

    /// The median time past at a height that [`time_base`] named for one of this block's inputs.
    pub(crate) fn median_time(&self, height: Height) -> u32 {
        self.median_times[&height]
    }

    pub(crate) fn into_parts(self) -> (CheckedBlock, Arc<Tip>, Vec<SpentCoin>) {
        (self.checked, self.parent, self.spent)
    }
}

/// Returns the block with its parent's state and the coins that it spends: those of its own earlier transactions first,
/// all others with one look-up.
///
/// # Errors
/// [`NotReady`] if it does not stand on the tip; [`InvalidBlock`] if a coin does not exist or is spent twice.
pub fn resolve(checked: CheckedBlock, view: &impl ChainView) -> Result<ResolvedBlock, ResolveError> {
    let parent = view.tip();
    let block = checked.block();
    let prev = block.header().prev_blockhash;
    stands_on(prev, &parent)?;
    let height = parent.height().next().filter(|height| *height <= MAX_HEIGHT);
    let height = height.ok_or(StateFault::HeightExhausted { height: parent.height() })?;

    let sources = find_sources(&checked, height)?;
    let outside: Vec<OutPoint> = sources
        .iter()
        .filter_map(|source| match source {
            Source::Outside { outpoint, .. } => Some(*outpoint),
            Source::Within(_) => None,
        })
        .collect();
    let mut found = view.coins(&outside)?.into_iter();
    // A commit since the tip was read may have spent what this block spends. The tip never goes back, so the same tip now
    // means one state for both reads.
    stands_on(prev, &view.tip())?;
    let mut spent = Vec::with_capacity(sources.len());
    for source in sources {
        spent.push(match source {
            Source::Within(coin) => SpentCoin { coin, within_block: true },
            Source::Outside { outpoint, index } => {
                let coin = found.next().flatten();
                let coin =
                    coin.ok_or_else(|| invalid(&checked, index, InvalidTransaction::MissingInput { outpoint }))?;
                SpentCoin { coin, within_block: false }
            }
        });
    }
    let median_times = find_median_times(&checked, &spent, view, &parent)?;
    Ok(ResolvedBlock { checked, parent, height, spent, median_times })
}

fn stands_on(parent: BlockHash, tip: &Tip) -> Result<(), NotReady> {
    if parent != tip.hash() {
        return Err(NotReady::ParentNotTip { parent, tip: tip.hash(), height: tip.height() });
    }
    Ok(())
}

/// Where an input's coin comes from.
enum Source {
    /// An earlier transaction of the block.
    Within(Coin),
    /// The state; `index` is the spending transaction's.
    Outside { outpoint: OutPoint, index: usize },
}

/// Sorts the inputs by where their coins come from, and refuses a coin that the block spends twice.
fn find_sources(checked: &CheckedBlock, height: Height) -> Result<Vec<Source>, InvalidBlock> {
    let transactions = checked.block().transactions();
    let inputs = transactions.iter().skip(1).map(|tx| tx.transaction().input.len()).sum();
    let mut sources = Vec::with_capacity(inputs);
    let mut seen = IdSet::with_capacity_and_hasher(inputs, Default::default());
    let index_of: IdMap<Txid, usize> = transactions.iter().enumerate().map(|(i, tx)| (tx.txid(), i)).collect();
    for (index, tx) in transactions.iter().enumerate().skip(1) {
        for input in &tx.transaction().input {
            let outpoint = input.previous_output;
            if !seen.insert(outpoint) {
                return Err(InvalidBlock::DoubleSpend { outpoint });
            }
            let Some(&creator) = index_of.get(&outpoint.txid) else {
                sources.push(Source::Outside { outpoint, index });
                continue;
            };
            let output = transactions[creator].transaction().output.get(outpoint.vout as usize);
            let output = output.filter(|output| creator < index && !is_unspendable(&output.script_pubkey));
            let output =
                output.ok_or_else(|| invalid(checked, index, InvalidTransaction::MissingInput { outpoint }))?;
            sources.push(Source::Within(Coin { output: output.clone(), height, coinbase: creator == 0 }));
        }
    }
    Ok(sources)
}

fn invalid(checked: &CheckedBlock, index: usize, rule: InvalidTransaction) -> InvalidBlock {
    InvalidBlock::Transaction { index, txid: checked.block().transactions()[index].txid(), rule }
}

/// Reads the median times that this block's relative locks by time count from.
fn find_median_times(
    checked: &CheckedBlock,
    spent: &[SpentCoin],
    view: &impl ChainView,
    parent: &Tip,
) -> Result<HashMap<Height, u32>, StateFault> {
    let transactions = checked.block().transactions().iter().skip(1).map(|tx| tx.transaction());
    let inputs = transactions.flat_map(|transaction| transaction.input.iter().map(move |input| (transaction, input)));
    let mut times = HashMap::new();
    let mut heights: Vec<Height> = inputs
        .zip(spent)
        .filter(|((transaction, input), _)| matches!(relative_lock(transaction, input), RelativeLock::Seconds(_)))
        .map(|(_, spent)| time_base(spent.coin.height))
        .collect();
    heights.sort_unstable();
    heights.dedup();
    // Those of this block's own coins.
    if heights.pop_if(|height| *height == parent.height()).is_some() {
        times.insert(parent.height(), parent.median_time_past());
    }
    times.extend(heights.iter().copied().zip(view.median_times(&heights)?));
    Ok(times)
}
