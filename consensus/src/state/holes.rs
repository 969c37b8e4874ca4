//! Blocks and certificates below the tip that the disk has lost.
//!
//! Nothing that is validated needs them again, so they stop nothing: whoever reads one notes it, the note outlives the
//! process, and the block is put back once a peer has sent it with its proof.

use std::collections::BTreeSet;
use std::sync::{MutexGuard, PoisonError};

use causeway_chainspec::{Height, LAST_DERIVED_HEIGHT};
use rocksdb::{Direction, IteratorMode, WriteBatch};

use super::schema;
use super::store::Store;
use crate::check::CheckedBlock;
use crate::error::StateFault;
use crate::resolve::ChainView;

/// Holes that are noted at once, 20 bytes each. More are found when these are filled.
const HOLES_MAX: usize = 10_000;

/// Blocks that are looked for when a store opens, from the tip down to the first that is there.
const LOST_MAX: u32 = 1_000;

impl Store {
    /// Returns the heights up to the tip, lowest first, at which a block or its certificate was found to be missing, at most
    /// 10,000 of them. What nobody has read is not known.
    pub fn holes(&self) -> Vec<Height> {
        self.lock_holes().iter().copied().collect()
    }

    /// Puts a block and its certificate, which the caller has verified, back to where they were. Returns `false`, and does
    /// nothing, if it is not the block of this height.
    ///
    /// # Errors
    /// If the store cannot be read or written.
    pub fn fill_hole(&self, height: Height, block: &CheckedBlock, certificate: &[u8]) -> Result<bool, StateFault> {
        let block = block.block();
        if self.header(height)?.as_ref() != Some(block.header()) {
            return Ok(false);
        }
        let key = schema::height_key(height);
        let mut batch = WriteBatch::default();
        batch.put_cf(self.family(schema::BLOCKS), key, block.bytes());
        batch.put_cf(self.family(schema::CERTIFICATES), key, certificate);
        batch.delete_cf(self.family(schema::META), schema::hole_key(height));
        self.write(batch)?;
        self.lock_holes().remove(&height);
        Ok(true)
    }

    /// What was read of a final block at a height up to the tip; if there is nothing that can be read, that is noted. What the
    /// chainspec fixes has no proof that peers could send.
    pub(super) fn or_hole(
        &self,
        height: Height,
        read: Result<Option<Vec<u8>>, StateFault>,
    ) -> Result<Option<Vec<u8>>, StateFault> {
        if height <= LAST_DERIVED_HEIGHT {
            return read;
        }
        match read {
            Ok(Some(bytes)) => Ok(Some(bytes)),
            Ok(None) => {
                tracing::warn!(%height, "a final block or its certificate is missing: fetching it again");
                self.note_hole(height)?;
                Ok(None)
            }
            Err(fault @ (StateFault::DamagedDatabase(_) | StateFault::Store(_))) => {
                let error = &fault as &dyn std::error::Error;
                tracing::error!(%height, error, "a final block or its certificate cannot be read: fetching it again");
                self.note_hole(height)?;
                Ok(None)
            }
            Err(fault) => Err(fault),
        }
    }

    /// Notes the blocks at the end of the chain that went with a table that was lost: it is the newest that may be.
    pub(super) fn note_lost(&self) -> Result<(), StateFault> {
        let mut height = self.tip().height();
        for _ in 0..LOST_MAX {
            let is_whole = self.certificate(height)?.is_some() && self.block_bytes(height)?.is_some();
            match height.prev().filter(|_| height > LAST_DERIVED_HEIGHT && !is_whole) {
                Some(below) => height = below,
                None => break,
            }
        }
        Ok(())
    }

    fn note_hole(&self, height: Height) -> Result<(), StateFault> {
        {
            let mut holes = self.lock_holes();
            if holes.len() >= HOLES_MAX || !holes.insert(height) {
                return Ok(());
            }
        }
        let mut batch = WriteBatch::default();
        batch.put_cf(self.family(schema::META), schema::hole_key(height), []);
        self.write(batch)
    }

    /// Reads what earlier runs have noted.
    pub(super) fn load_holes(&self) -> Result<(), StateFault> {
        let tip = self.tip().height();
        let mode = IteratorMode::From(schema::HOLE_TAG, Direction::Forward);
        let mut holes = BTreeSet::new();
        for entry in self.db.iterator_cf(self.family(schema::META), mode).take(HOLES_MAX) {
            let (key, _) = entry?;
            let Some(height) = schema::decode_hole_key(&key) else { break };
            if height <= tip {
                holes.insert(height);
            }
        }
        *self.lock_holes() = holes;
        Ok(())
    }

    fn lock_holes(&self) -> MutexGuard<'_, BTreeSet<Height>> {
        // A height is in it or not, whoever panicked.
        self.holes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
