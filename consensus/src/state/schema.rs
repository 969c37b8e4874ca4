//! Every column family, with the layout of its keys and values. A change of one is a new [`FORMAT_VERSION`]; one more is
//! not, if it can be filled from the others: builds that do not know it refuse to open it.
//!
//! | column family  | key                                  | value                                                        |
//! |----------------|--------------------------------------|--------------------------------------------------------------|
//! | `meta`         | `format`                             | [`FORMAT_VERSION`], u32 LE                                    |
//! | `meta`         | `chain`                              | chain id: hash of block 1, 32 bytes, internal order          |
//! | `meta`         | `tip`                                | height, u32 LE, then block hash, 32 bytes, internal order    |
//! | `meta`         | `hole-`, then height, u32 BE         | none: the block of this height or its certificate is missing |
//! | `headers`      | height, u32 BE                       | header, 80 bytes, then median time past, u32 LE              |
//! | `heights`      | block hash, 32 bytes, internal order | height, u32 LE                                               |
//! | `blocks`       | height, u32 BE                       | the block as serialised by Bitcoin                           |
//! | `certificates` | height, u32 BE                       | the encoded commit certificate; none for derived blocks      |
//! | `coins`        | txid, 32 bytes, internal order, then vout, u32 BE | height x 2 + coinbase, u32 LE, then value in sat, u64 LE, then script |
//! | `coins`        | `flushed`                            | height whose coins these are, u32 LE, their number, u64 LE, their LtHash, 2,048 bytes |
//! | `coins`        | `flush`, then height, u32 BE         | the coins were written at this height; at which one before, u32 LE, or the same for the first time |
//! | `peg`          | a record's key ([`PegState::records`](crate::peg::PegState::records)) | the record's value     |
//! | `peg`          | `flushed`                            | height whose peg this is, u32 LE, then its digest, 32 bytes   |
//! | `peg-history`  | a key of [`PegEvent::records`](crate::peg::history::PegEvent::records) | its value          |
//! | `meta`         | `scripts-`, then epoch, u32 BE       | the scripts of the epoch, encoded                            |
//! | `transactions` | txid, 32 bytes, internal order       | height, u32 LE, then place in the block, u32 LE              |
//! | `transactions` | `indexed`                            | height up to which the index goes, u32 LE, number of transactions, u64 LE |
//! | `scripts`      | script id, 16 bytes, then 0          | [`Statistics`](super::index::Statistics): five numbers, seven bits in a byte |
//! | `scripts`      | script id, then 1, then height and place in the block of a transaction, each 2^32 - 1 less itself, u32 BE | none |
//! | `scripts`      | script id, then 2, then outpoint as in `coins` | height, u32 LE, then value in sat, u64 LE, of an unspent output |
//! | `spends`       | first 8 bytes of the spent txid, vout, height and place of the spending transaction, its input, each u32 BE | none |
//! | `transactions`, `scripts`, `spends` | `block`, then height, u32 BE | none: the block's records are here              |
//! | `building`     | outpoint as in `coins`               | script id, 16 bytes, then value in sat, u64 LE               |
//! | `building`     | `height`                             | height whose unspent outputs these are, u32 LE               |
//!
//! `flushed` stands among the coins so that the two can only be lost together, whatever happens to RocksDB's files: then the
//! blocks above it are replayed. The peg's `flushed` is written together with that of the coins. The records of writes among
//! the coins and those of blocks in the indexes say, when a store is opened, that none of the last ones is missing: counts
//! are kept, and only `causeway check` counts again. `building` is empty but while the indexes are built from blocks, which
//! name what they spend by outpoints only. For the other column families the records of the tip say that nothing is missing,
//! and who reads a block or certificate that is missing says so.

use bitcoin::block::Header;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::{Amount, BlockHash, OutPoint, Txid};
use causeway_chainspec::Height;
use rocksdb::{BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBRecoveryMode, Options, SliceTransform};

use super::index::{self, SCRIPT_ID_BYTES, ScriptId, SpendPlace, SpentOutput, TxPlace};
use super::store::StoreOptions;
use crate::coin::{OUTPOINT_BYTES, encode_outpoint};
use crate::commitment::{LTHASH_BYTES, LtHash};
use crate::tip::Tip;

/// The version of everything on this page.
pub const FORMAT_VERSION: u32 = 4;

pub(super) const META: &str = "meta";
pub(super) const HEADERS: &str = "headers";
pub(super) const HEIGHTS: &str = "heights";
pub(super) const BLOCKS: &str = "blocks";
pub(super) const CERTIFICATES: &str = "certificates";
pub(super) const COINS: &str = "coins";
pub(super) const PEG: &str = "peg";
pub(super) const PEG_HISTORY: &str = "peg-history";
pub(super) const TRANSACTIONS: &str = "transactions";
pub(super) const SCRIPTS: &str = "scripts";
pub(super) const SPENDS: &str = "spends";
pub(super) const BUILDING: &str = "building";

pub(super) const META_FORMAT: &[u8] = b"format";
pub(super) const META_CHAIN: &[u8] = b"chain";
pub(super) const META_TIP: &[u8] = b"tip";
/// What the keys of holes begin with.
pub(super) const HOLE_TAG: &[u8; 5] = b"hole-";
pub(super) const COINS_FLUSHED: &[u8] = b"flushed";
/// What the keys of writes of coins begin with. They are shorter than those of coins.
pub(super) const FLUSH_TAG: &[u8; 5] = b"flush";
/// Records have keys whose first byte is below that of `f`.
pub(super) const PEG_FLUSHED: &[u8] = b"flushed";
pub(super) const TRANSACTIONS_INDEXED: &[u8] = b"indexed";
pub(super) const BUILDING_HEIGHT: &[u8] = b"height";

/// What stands behind a script id in the keys of `scripts`.
const STATISTICS_TAG: u8 = 0;
const HISTORY_TAG: u8 = 1;
const UNSPENT_TAG: u8 = 2;

/// What the keys of blocks begin with. They are shorter than all other keys of their column families.
const BLOCK_TAG: &[u8; 5] = b"block";

/// Bytes of a txid in the keys of `spends`. Two that have them in common are told apart by the spending transactions.
const SPENT_TXID_BYTES: usize = 8;

/// Bytes that the records of one output have in common in `spends`.
const SPEND_PREFIX_BYTES: usize = SPENT_TXID_BYTES + 4;

/// Write-ahead logs from this size on make RocksDB write its tables, so that opening never reads more of them.
pub(super) const MAX_LOG_BYTES: u64 = 256 << 20;

/// Tables and files of large values that RocksDB keeps open, below the usual limit of 1,024 of a process. It opens a few of them with the database, and
/// the others when they are read: opening takes as long for a large database as for a small one.
const MAX_OPEN_FILES: i32 = 512;

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
    options.set_max_open_files(MAX_OPEN_FILES);
    options.set_skip_stats_update_on_db_open(true);
    options.set_keep_log_file_num(KEPT_LOG_FILES);
    options
}

/// Returns every column family with its options; table blocks of all of them are cached together.
pub(super) fn column_families(store: StoreOptions) -> Vec<ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(store.block_cache_bytes);
    let family = |name: &str| {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&cache);
        let mut options = family_options(name);
        options.set_write_buffer_size(store.write_buffer_bytes);
        match name {
            COINS | TRANSACTIONS | BUILDING => {
                table.set_bloom_filter(FILTER_BITS_PER_KEY, false);
            }
            // Of the prefixes of keys: most look-ups are for scripts and outputs of which there is nothing.
            SCRIPTS | SPENDS => {
                table.set_bloom_filter(FILTER_BITS_PER_KEY, false);
                table.set_whole_key_filtering(false);
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
    FAMILIES.map(family).into()
}

/// Every column family.
pub const FAMILIES: [&str; 12] =
    [META, HEADERS, HEIGHTS, BLOCKS, CERTIFICATES, COINS, PEG, PEG_HISTORY, TRANSACTIONS, SCRIPTS, SPENDS, BUILDING];

/// The column families of the indexes: what is in them follows from the blocks, and validation never reads it.
pub(super) const INDEX_FAMILIES: [&str; 4] = [TRANSACTIONS, SCRIPTS, SPENDS, BUILDING];

/// Returns what a program must set to read a column family of [`FAMILIES`] without this crate.
pub fn family_options(name: &str) -> Options {
    let mut options = Options::default();
    match name {
        SCRIPTS => {
            options.set_prefix_extractor(SliceTransform::create_fixed_prefix(SCRIPT_ID_BYTES));
            options.set_merge_operator_associative("causeway.statistics", index::merge);
        }
        SPENDS => options.set_prefix_extractor(SliceTransform::create_fixed_prefix(SPEND_PREFIX_BYTES)),
        _ => {}
    }
    options
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

/// Key of the record that says that the coins were written at a height.
pub(super) fn flush_key(height: Height) -> [u8; 9] {
    tagged_key(FLUSH_TAG, height)
}

pub(super) fn decode_flush_key(key: &[u8]) -> Option<Height> {
    let height = key.strip_prefix(FLUSH_TAG)?;
    Some(Height(u32::from_be_bytes(height.try_into().ok()?)))
}

/// Key of the record that says that a block is missing.
pub(super) fn hole_key(height: Height) -> [u8; 9] {
    tagged_key(HOLE_TAG, height)
}

pub(super) fn decode_hole_key(key: &[u8]) -> Option<Height> {
    let height = key.strip_prefix(HOLE_TAG)?;
    Some(Height(u32::from_be_bytes(height.try_into().ok()?)))
}

fn tagged_key(tag: &[u8; 5], height: Height) -> [u8; 9] {
    let mut key = [0; 9];
    key[..5].copy_from_slice(tag);
    key[5..].copy_from_slice(&height_key(height));
    key
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

/// Value of `transactions`.
pub(super) fn encode_place(place: TxPlace) -> [u8; 8] {
    let mut value = [0; 8];
    value[..4].copy_from_slice(&encode_height(place.height));
    value[4..].copy_from_slice(&place.index.to_le_bytes());
    value
}

pub(super) fn decode_place(bytes: &[u8]) -> Option<TxPlace> {
    let (height, index) = bytes.split_at_checked(4)?;
    Some(TxPlace { height: decode_height(height)?, index: u32::from_le_bytes(index.try_into().ok()?) })
}

/// Key of the record that says that a block is in a column family of the indexes.
pub(super) fn block_key(height: Height) -> [u8; 9] {
    tagged_key(BLOCK_TAG, height)
}

/// Whether a key is one of [`block_key`].
pub(super) fn is_block_key(key: &[u8]) -> bool {
    key.len() == 9 && key.starts_with(BLOCK_TAG)
}

fn script_key<const N: usize>(id: &ScriptId, tag: u8) -> [u8; N] {
    let mut key = [0; N];
    key[..SCRIPT_ID_BYTES].copy_from_slice(id.as_bytes());
    key[SCRIPT_ID_BYTES] = tag;
    key
}

/// What stands behind a script id and a tag.
fn behind_tag(key: &[u8]) -> Option<&[u8]> {
    key.get(SCRIPT_ID_BYTES + 1..)
}

/// Key of a script's statistics.
pub(super) fn statistics_key(id: &ScriptId) -> [u8; SCRIPT_ID_BYTES + 1] {
    script_key(id, STATISTICS_TAG)
}

/// What the keys of a script's history begin with.
pub(super) fn history_prefix(id: &ScriptId) -> [u8; SCRIPT_ID_BYTES + 1] {
    script_key(id, HISTORY_TAG)
}

/// Key of a transaction in a script's history. Newer ones come first.
pub(super) fn history_key(id: &ScriptId, place: TxPlace) -> [u8; SCRIPT_ID_BYTES + 9] {
    let mut key: [u8; SCRIPT_ID_BYTES + 9] = script_key(id, HISTORY_TAG);
    key[SCRIPT_ID_BYTES + 1..SCRIPT_ID_BYTES + 5].copy_from_slice(&(!place.height.to_u32()).to_be_bytes());
    key[SCRIPT_ID_BYTES + 5..].copy_from_slice(&(!place.index).to_be_bytes());
    key
}

pub(super) fn decode_history_key(key: &[u8]) -> Option<TxPlace> {
    let (height, index) = behind_tag(key)?.split_first_chunk::<4>()?;
    let height = Height(!u32::from_be_bytes(*height));
    Some(TxPlace { height, index: !u32::from_be_bytes(index.try_into().ok()?) })
}

/// What the keys of a script's unspent outputs begin with.
pub(super) fn unspent_prefix(id: &ScriptId) -> [u8; SCRIPT_ID_BYTES + 1] {
    script_key(id, UNSPENT_TAG)
}

/// Key of an unspent output of a script.
pub(super) fn unspent_key(id: &ScriptId, outpoint: &OutPoint) -> [u8; SCRIPT_ID_BYTES + 1 + OUTPOINT_BYTES] {
    let mut key: [u8; SCRIPT_ID_BYTES + 1 + OUTPOINT_BYTES] = script_key(id, UNSPENT_TAG);
    key[SCRIPT_ID_BYTES + 1..].copy_from_slice(&encode_outpoint(outpoint));
    key
}

pub(super) fn decode_unspent_key(key: &[u8]) -> Option<OutPoint> {
    decode_outpoint(behind_tag(key)?)
}

/// Value of an unspent output.
pub(super) fn encode_unspent(height: Height, value: Amount) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&encode_height(height));
    bytes[4..].copy_from_slice(&value.to_sat().to_le_bytes());
    bytes
}

pub(super) fn decode_unspent(bytes: &[u8]) -> Option<(Height, Amount)> {
    let (height, value) = bytes.split_at_checked(4)?;
    Some((decode_height(height)?, Amount::from_sat(u64::from_le_bytes(value.try_into().ok()?))))
}

/// What the keys of the inputs that may spend an output begin with.
pub(super) fn spend_prefix(outpoint: &OutPoint) -> [u8; SPEND_PREFIX_BYTES] {
    let mut key = [0; SPEND_PREFIX_BYTES];
    key[..SPENT_TXID_BYTES].copy_from_slice(&outpoint.txid.to_byte_array()[..SPENT_TXID_BYTES]);
    key[SPENT_TXID_BYTES..].copy_from_slice(&outpoint.vout.to_be_bytes());
    key
}

/// Key of an input that spends an output.
pub(super) fn spend_key(outpoint: &OutPoint, spend: SpendPlace) -> [u8; SPEND_PREFIX_BYTES + 12] {
    let mut key = [0; SPEND_PREFIX_BYTES + 12];
    key[..SPEND_PREFIX_BYTES].copy_from_slice(&spend_prefix(outpoint));
    key[SPEND_PREFIX_BYTES..SPEND_PREFIX_BYTES + 4].copy_from_slice(&height_key(spend.place.height));
    key[SPEND_PREFIX_BYTES + 4..SPEND_PREFIX_BYTES + 8].copy_from_slice(&spend.place.index.to_be_bytes());
    key[SPEND_PREFIX_BYTES + 8..].copy_from_slice(&spend.vin.to_be_bytes());
    key
}

pub(super) fn decode_spend_key(key: &[u8]) -> Option<SpendPlace> {
    let (height, rest) = key.get(SPEND_PREFIX_BYTES..)?.split_first_chunk::<4>()?;
    let (index, vin) = rest.split_first_chunk::<4>()?;
    let place = TxPlace { height: Height(u32::from_be_bytes(*height)), index: u32::from_be_bytes(*index) };
    Some(SpendPlace { place, vin: u32::from_be_bytes(vin.try_into().ok()?) })
}

/// Value of `building`.
pub(super) fn encode_spent_output(output: &SpentOutput) -> Vec<u8> {
    [output.id.as_bytes().as_slice(), &output.value.to_sat().to_le_bytes()].concat()
}

pub(super) fn decode_spent_output(bytes: &[u8]) -> Option<SpentOutput> {
    let (id, value) = bytes.split_first_chunk::<SCRIPT_ID_BYTES>()?;
    let value = Amount::from_sat(u64::from_le_bytes(value.try_into().ok()?));
    Some(SpentOutput { id: ScriptId::of_bytes(*id), value })
}

/// An outpoint from its key.
pub(super) fn decode_outpoint(key: &[u8]) -> Option<OutPoint> {
    let key: &[u8; OUTPOINT_BYTES] = key.try_into().ok()?;
    let (txid, vout) = key.split_first_chunk::<32>()?;
    Some(OutPoint { txid: Txid::from_byte_array(*txid), vout: u32::from_be_bytes(vout.try_into().ok()?) })
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
