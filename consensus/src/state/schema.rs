//! Every column family, with the layout of its keys and values. A change of one is a new [`FORMAT_VERSION`]; one more is
//! not, if it can be filled from the others: builds that do not know it refuse to open it.
//!
//! | column family  | key                                  | value                                                        |
//! |----------------|--------------------------------------|--------------------------------------------------------------|
//! | `meta`         | `format`                             | [`FORMAT_VERSION`], u32 LE                                    |
//! | `meta`         | `chain`                              | chain id: hash of block 1, 32 bytes, internal order          |
//! | `meta`         | `tip`                                | height, u32 LE, then block hash, 32 bytes, internal order    |
//! | `headers`      | height, u32 BE                       | header, 80 bytes, then median time past, u32 LE              |
//! | `heights`      | block hash, 32 bytes, internal order | height, u32 LE                                               |
//! | `blocks`       | height, u32 BE                       | the block as serialised by Bitcoin                           |
//! | `certificates` | height, u32 BE                       | the encoded commit certificate; none for derived blocks      |
//! | `coins`        | txid, 32 bytes, internal order, then vout, u32 BE | height x 2 + coinbase, u32 LE, then value in sat, u64 LE, then script |
//! | `coins`        | `flushed`                            | height whose coins these are, u32 LE, their number, u64 LE, their LtHash, 2,048 bytes |
//! | `peg`          | a record's key ([`PegState::records`](crate::peg::PegState::records)) | the record's value     |
//! | `peg`          | `flushed`                            | height whose peg this is, u32 LE, then its digest, 32 bytes   |
//! | `peg-history`  | a key of [`PegEvent::records`](crate::peg::history::PegEvent::records) | its value          |
//! | `meta`         | `scripts-`, then epoch, u32 BE       | the scripts of the epoch, encoded                            |
//! | `transactions` | txid, 32 bytes, internal order       | height, u32 LE, then place in the block, u32 LE              |
//! | `transactions` | `indexed`                            | height up to which every transaction is here, u32 LE, their number, u64 LE |
//!
//! `flushed` stands among the coins so that the two can only be lost together, whatever happens to RocksDB's files: then the
//! blocks above it are replayed. The peg's `flushed` is written together with that of the coins. `indexed` stands among the transactions for the same reason. For the other column families the records of the tip say that nothing is missing.

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use causeway_chainspec::Height;
use rocksdb::{BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBRecoveryMode, Options};

use super::store::StoreOptions;
use crate::commitment::{LTHASH_BYTES, LtHash};
use crate::tip::Tip;

/// The version of everything on this page.
pub const FORMAT_VERSION: u32 = 3;

pub(super) const META: &str = "meta";
pub(super) const HEADERS: &str = "headers";
pub(super) const HEIGHTS: &str = "heights";
pub(super) const BLOCKS: &str = "blocks";
pub(super) const CERTIFICATES: &str = "certificates";
pub(super) const COINS: &str = "coins";
pub(super) const PEG: &str = "peg";
pub(super) const PEG_HISTORY: &str = "peg-history";
pub(super) const TRANSACTIONS: &str = "transactions";

pub(super) const META_FORMAT: &[u8] = b"format";
pub(super) const META_CHAIN: &[u8] = b"chain";
pub(super) const META_TIP: &[u8] = b"tip";
pub(super) const COINS_FLUSHED: &[u8] = b"flushed";
/// Records have keys whose first byte is below that of `f`.
pub(super) const PEG_FLUSHED: &[u8] = b"flushed";
pub(super) const TRANSACTIONS_INDEXED: &[u8] = b"indexed";

/// Write-ahead logs from this size on make RocksDB write its tables, so that opening never reads more of them.
const MAX_LOG_BYTES: u64 = 256 << 20;

/// Bits of the filter that says which table may hold a coin or a transaction: about 1 % of look-ups read one in vain.
const FILTER_BITS_PER_KEY: f64 = 10.0;

/// Values from this size on live outside of the tables, so that compaction does not copy blocks.
const MIN_BLOB_BYTES: u64 = 1024;

/// Log files of RocksDB itself that are kept.
const KEPT_LOG_FILES: usize = 4;

/// Returns RocksDB's options for the whole database.
pub(super) fn database_options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_paranoid_checks(true);
    // What was synced is never rolled back: only the tail that a crash cut off may be missing.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    // A log that is not the last one is missed when it is gone or cut short.
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_max_total_wal_size(MAX_LOG_BYTES);
    options.set_keep_log_file_num(KEPT_LOG_FILES);
    options
}

/// Returns every column family with its options; table blocks of all of them are cached together.
pub(super) fn column_families(store: StoreOptions) -> Vec<ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(store.block_cache_bytes);
    let family = |name: &str| {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&cache);
        let mut options = Options::default();
        options.set_write_buffer_size(store.write_buffer_bytes);
        match name {
            COINS | TRANSACTIONS => {
                table.set_bloom_filter(FILTER_BITS_PER_KEY, false);
            }
            BLOCKS => {
                options.set_enable_blob_files(true);
                options.set_min_blob_size(MIN_BLOB_BYTES);
            }
            _ => {}
        }
        options.set_block_based_table_factory(&table);
        ColumnFamilyDescriptor::new(name, options)
    };
    [META, HEADERS, HEIGHTS, BLOCKS, CERTIFICATES, COINS, PEG, PEG_HISTORY, TRANSACTIONS].map(family).into()
}

/// Key of the column families by height.
pub(super) fn height_key(height: Height) -> [u8; 4] {
    height.to_u32().to_be_bytes()
}

/// Value of a height.
pub(super) fn encode_height(height: Height) -> [u8; 4] {
    height.to_u32().to_le_bytes()
}

pub(super) fn decode_height(bytes: &[u8]) -> Option<Height> {
    Some(Height(u32::from_le_bytes(bytes.try_into().ok()?)))
}

/// Value of `meta` / `tip`.
pub(super) fn encode_tip(height: Height, hash: BlockHash) -> Vec<u8> {
    [encode_height(height).as_slice(), hash.as_ref()].concat()
}

pub(super) fn decode_tip(bytes: &[u8]) -> Option<(Height, BlockHash)> {
    let (height, hash) = bytes.split_at_checked(4)?;
    Some((decode_height(height)?, BlockHash::from_slice(hash).ok()?))
}

/// Value of `coins` / `flushed`.
pub(super) fn encode_flushed(tip: &Tip, coin_count: u64) -> Vec<u8> {
    [encode_height(tip.height()).as_slice(), &coin_count.to_le_bytes(), &tip.coins().encode()].concat()
}

pub(super) fn decode_flushed(bytes: &[u8]) -> Option<(Height, u64, LtHash)> {
    let (height, rest) = bytes.split_at_checked(4)?;
    let (count, coins) = rest.split_first_chunk::<8>()?;
    let coins: &[u8; LTHASH_BYTES] = coins.try_into().ok()?;
    Some((decode_height(height)?, u64::from_le_bytes(*count), LtHash::decode(coins)))
}

/// Value of `peg` / `flushed`.
pub(super) fn encode_peg_flushed(tip: &Tip) -> Vec<u8> {
    [encode_height(tip.height()).as_slice(), &tip.peg().digest()].concat()
}

pub(super) fn decode_peg_flushed(bytes: &[u8]) -> Option<(Height, [u8; 32])> {
    let (height, digest) = bytes.split_at_checked(4)?;
    Some((decode_height(height)?, digest.try_into().ok()?))
}

/// Key of the scripts of an epoch in `meta`.
pub(super) fn scripts_key(epoch: u32) -> Vec<u8> {
    [b"scripts-".as_slice(), &epoch.to_be_bytes()].concat()
}

/// Value of `transactions`: the height of the block, and the place in it.
pub(super) fn encode_place(height: Height, place: u32) -> [u8; 8] {
    let mut value = [0; 8];
    value[..4].copy_from_slice(&encode_height(height));
    value[4..].copy_from_slice(&place.to_le_bytes());
    value
}

pub(super) fn decode_place(bytes: &[u8]) -> Option<(Height, u32)> {
    let (height, place) = bytes.split_at_checked(4)?;
    Some((decode_height(height)?, u32::from_le_bytes(place.try_into().ok()?)))
}

/// Value of `transactions` / `indexed`.
pub(super) fn encode_indexed(height: Height, count: u64) -> Vec<u8> {
    [encode_height(height).as_slice(), &count.to_le_bytes()].concat()
}

pub(super) fn decode_indexed(bytes: &[u8]) -> Option<(Height, u64)> {
    let (height, count) = bytes.split_at_checked(4)?;
    Some((decode_height(height)?, u64::from_le_bytes(count.try_into().ok()?)))
}

/// Value of `headers`.
pub(super) fn encode_header(header: &Header, median_time_past: u32) -> Vec<u8> {
    [serialize(header).as_slice(), &median_time_past.to_le_bytes()].concat()
}

pub(super) fn decode_header(bytes: &[u8]) -> Option<(Header, u32)> {
    let (header, time) = bytes.split_at_checked(Header::SIZE)?;
    Some((deserialize(header).ok()?, u32::from_le_bytes(time.try_into().ok()?)))
}
