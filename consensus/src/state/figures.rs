//! How far a store is and how much it holds, for whoever watches it.

use std::ffi::CStr;

use causeway_chainspec::Height;
use rocksdb::properties::{self, PropName};

use super::index::IndexState;
use super::schema::{COINS, FAMILIES};
use super::store::Store;

/// How far a store is and how much it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreFigures {
    /// Height of the last final block.
    pub tip: Height,
    /// The height whose coins are on disk: up to the tip it is replayed when the store is opened.
    pub flushed: Height,
    /// Coins after the tip.
    pub coins: u64,
    /// Heights at which a block or its certificate was found to be missing.
    pub holes: usize,
    /// What there is of the indexes.
    pub index: IndexState,
    /// Bytes of memory that wait to be written with the coins.
    pub pending_bytes: usize,
    /// Of each column family.
    pub families: Vec<FamilyFigures>,
    /// Bytes of RocksDB's cache of table blocks that are in use. All column families share it.
    pub block_cache_bytes: u64,
}

/// What RocksDB tells of a column family. Of a figure that it does not tell there is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FamilyFigures {
    /// Its name.
    pub name: &'static str,
    /// Keys, by RocksDB's estimate.
    pub keys: u64,
    /// Bytes of table files.
    pub table_bytes: u64,
    /// Bytes of large values beside the tables.
    pub blob_bytes: u64,
    /// Bytes of writes in memory.
    pub memtable_bytes: u64,
}

/// What RocksDB's own list of properties leaves out.
const BLOB_BYTES: &CStr = c"rocksdb.total-blob-file-size";

impl Store {
    /// Returns how far the store is and how much it holds. Reads counters, and no data.
    pub fn figures(&self) -> StoreFigures {
        let (tip, flushed, coins, pending_bytes) = {
            let state = self.read_state();
            (state.tip.height(), state.flushed, state.coin_count, state.coins.pending_bytes())
        };
        let (holes, index) = (self.holes().len(), self.index_state());
        let told = |family: &str, property: &PropName| self.figure(family, property.as_c_str());
        let families = FAMILIES.iter().map(|name| FamilyFigures {
            name,
            keys: told(name, properties::ESTIMATE_NUM_KEYS),
            table_bytes: told(name, properties::LIVE_SST_FILES_SIZE),
            blob_bytes: self.figure(name, BLOB_BYTES),
            memtable_bytes: told(name, properties::SIZE_ALL_MEM_TABLES),
        });
        let families = families.collect();
        let block_cache_bytes = told(COINS, properties::BLOCK_CACHE_USAGE);
        StoreFigures { tip, flushed, coins, holes, index, pending_bytes, families, block_cache_bytes }
    }

    fn figure(&self, family: &str, property: &CStr) -> u64 {
        self.db.property_int_value_cf(self.family(family), property).ok().flatten().unwrap_or(0)
    }
}
