//! Proofs that were built, so that no block is fetched twice.

use std::collections::HashMap;

use bitcoin::{BlockHash, Txid};
use causeway_consensus::peg::proof::InclusionProof;
use causeway_federation::bitcoind::{Bitcoind, BitcoindError};
use causeway_federation::watcher::Place;

/// Proofs in memory. All go when there are more: they can be built again.
const PROOFS_MAX: usize = 1_000;

#[derive(Default)]
pub(super) struct Proofs {
    known: HashMap<(Txid, BlockHash), InclusionProof>,
}

impl Proofs {
    /// The proof of a transaction that stands there; `None` if another one does.
    ///
    /// # Errors
    /// Its block cannot be had.
    pub(super) async fn get(
        &mut self,
        client: &Bitcoind,
        txid: Txid,
        place: Place,
    ) -> Result<Option<InclusionProof>, BitcoindError> {
        let key = (txid, place.block);
        if let Some(proof) = self.known.get(&key) {
            return Ok(Some(proof.clone()));
        }
        let block = client.block(place.block).await?;
        let index = usize::try_from(place.index).unwrap_or(usize::MAX);
        let proof = InclusionProof::of_block(block.block(), place.height, index);
        let proof = proof.filter(|proof| proof.transaction.compute_txid() == txid);
        if let Some(proof) = &proof {
            if self.known.len() >= PROOFS_MAX {
                self.known.clear();
            }
            self.known.insert(key, proof.clone());
        }
        Ok(proof)
    }
}
