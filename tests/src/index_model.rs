//! What the indexes of a store should hold, worked out from whole blocks in the plainest way.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::{Amount, OutPoint, ScriptBuf, Txid};
use causeway_chainspec::Height;
use causeway_consensus::coin::is_unspendable;
use causeway_consensus::state::{IndexView, ScriptId, SpendPlace, Statistics, Store, TxPlace, Unspent};
use causeway_consensus::{Block, ChainView, StateFault, parse_block};

/// The histories of all scripts, and who spent what.
#[derive(Debug, Default)]
pub struct IndexModel {
    next: u32,
    places: BTreeMap<Txid, TxPlace>,
    outputs: BTreeMap<OutPoint, (ScriptBuf, Amount, Height)>,
    spends: BTreeMap<OutPoint, SpendPlace>,
    histories: BTreeMap<ScriptBuf, BTreeSet<TxPlace>>,
}

impl IndexModel {
    /// Takes in the blocks of a store that it does not know yet.
    ///
    /// # Errors
    /// A block cannot be read.
    pub fn follow(&mut self, store: &Store) -> Result<(), StateFault> {
        for height in (self.next..=store.tip().height().to_u32()).map(Height) {
            let bytes = store.block_bytes(height)?.expect("there are blocks up to the tip");
            self.add(height, &parse_block(bytes).map_err(|_| StateFault::Damaged { record: "block" })?);
        }
        Ok(())
    }

    fn add(&mut self, height: Height, block: &Block) {
        for (index, tx) in (0u32..).zip(block.transactions()) {
            let place = TxPlace { height, index };
            self.places.insert(tx.txid(), place);
            for (vin, input) in (0u32..).zip(&tx.transaction().input).filter(|_| index > 0) {
                let (script, ..) = &self.outputs[&input.previous_output];
                self.histories.entry(script.clone()).or_default().insert(place);
                let before = self.spends.insert(input.previous_output, SpendPlace { place, vin });
                assert_eq!(before, None, "spent twice");
            }
            for (vout, output) in (0u32..).zip(&tx.transaction().output) {
                if height > Height(0) && !is_unspendable(&output.script_pubkey) {
                    let script = output.script_pubkey.clone();
                    self.histories.entry(script.clone()).or_default().insert(place);
                    self.outputs.insert(OutPoint { txid: tx.txid(), vout }, (script, output.value, height));
                }
            }
        }
        self.next = height.to_u32() + 1;
    }

    /// Compares all that the index says with what it should say; histories in pages of `page` entries.
    ///
    /// # Errors
    /// The index cannot be read.
    ///
    /// # Panics
    /// If anything differs.
    pub fn compare(&self, view: &IndexView<'_>, page: usize) -> Result<(), StateFault> {
        assert_eq!(view.tip().height().to_u32() + 1, self.next);
        for (txid, place) in &self.places {
            assert_eq!(view.place(txid)?, Some(*place));
        }
        for outpoint in self.outputs.keys() {
            let found = view.spend_candidates(outpoint)?;
            assert_eq!(found, self.spends.get(outpoint).copied().into_iter().collect::<Vec<_>>(), "{outpoint}");
        }
        let mut statistics: BTreeMap<&ScriptBuf, (Statistics, BTreeSet<OutPoint>)> = BTreeMap::new();
        for (outpoint, (script, value, _)) in &self.outputs {
            let (sums, unspent) = statistics.entry(script).or_default();
            sums.funded.add(*value);
            if self.spends.contains_key(outpoint) {
                sums.spent.add(*value);
            } else {
                unspent.insert(*outpoint);
            }
        }
        assert_eq!(statistics.len(), self.histories.len());
        for (script, (mut sums, outpoints)) in statistics {
            let (id, history) = (ScriptId::of(script), &self.histories[script]);
            sums.transactions = history.len() as u64;
            assert_eq!(view.statistics(&id)?, sums, "{script}");
            assert_eq!(sums.unspent(), outpoints.len() as u64);
            let unspent: BTreeSet<_> = outpoints.iter().map(|outpoint| self.unspent(outpoint)).collect();
            let found = view.unspent(&id, usize::MAX)?;
            assert_eq!(found.iter().map(key).collect::<Vec<_>>(), unspent.into_iter().collect::<Vec<_>>(), "{script}");
            assert_eq!(view.unspent(&id, 2)?, found[..found.len().min(2)]);

            let mut pages = Vec::new();
            loop {
                let before = pages.last().copied();
                let found = view.history(&id, before, page)?;
                pages.extend_from_slice(&found);
                if found.len() < page {
                    break;
                }
            }
            assert_eq!(pages, history.iter().rev().copied().collect::<Vec<_>>(), "{script}");
        }
        let stranger = ScriptId::of(&ScriptBuf::from_bytes(vec![0x51; 9]));
        assert_eq!(view.statistics(&stranger)?, Statistics::default());
        assert_eq!(view.history(&stranger, None, page)?, []);
        assert_eq!(view.unspent(&stranger, page)?, []);
        let nothing = OutPoint { vout: 7, ..OutPoint::null() };
        assert_eq!(view.spend_candidates(&nothing)?, []);
        assert_eq!(view.place(&nothing.txid)?, None);
        Ok(())
    }

    fn unspent(&self, outpoint: &OutPoint) -> (OutPoint, Amount, Height) {
        let (_, value, height) = self.outputs[outpoint];
        (*outpoint, value, height)
    }

    /// How many inputs spend an output of their own block.
    pub fn spent_within(&self) -> usize {
        self.spends.iter().filter(|(outpoint, spend)| self.outputs[outpoint].2 == spend.place.height).count()
    }
}

fn key(unspent: &Unspent) -> (OutPoint, Amount, Height) {
    (unspent.outpoint, unspent.value, unspent.height)
}

/// Panics unless the indexes of a store hold exactly what its blocks say.
///
/// # Panics
/// As it says, and if there are none, or they cannot be read.
pub fn assert_indexed(store: &Store) {
    check_indexed(store).expect("blocks and indexes are readable");
}

/// The same, and says if they cannot be read.
///
/// # Errors
/// A block or the index cannot be read.
///
/// # Panics
/// As [`assert_indexed`].
pub fn check_indexed(store: &Store) -> Result<(), StateFault> {
    let mut model = IndexModel::default();
    model.follow(store)?;
    model.compare(&store.index_view().expect("there is an index"), 3)
}
