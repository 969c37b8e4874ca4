//! A file of blocks, and a process that commits them to a store: what the crash tests kill.

use std::fs::File;
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::path::Path;

use bitcoin::consensus::encode::serialize_hex;
use causeway_chainspec::{ChainSpec, Height, LAST_DERIVED_HEIGHT};
use causeway_consensus::state::{CoinFlush, Index, OpenError, Store, StoreOptions};
use causeway_consensus::{
    ChainView, ConnectedBlock, StateFault, Workers, check_block, connect_block, parse_block, resolve,
};

/// Blocks between two flushes of the coins when they are flushed later.
const BLOCKS_PER_FLUSH: u32 = 7;

/// Writes blocks to a file, each after its length (u32 LE).
pub fn write_blocks(path: &Path, blocks: &[Vec<u8>]) -> io::Result<()> {
    let mut file = io::BufWriter::new(File::create(path)?);
    for block in blocks {
        let length = u32::try_from(block.len()).map_err(io::Error::other)?;
        file.write_all(&length.to_le_bytes())?;
        file.write_all(block)?;
    }
    file.flush()
}

/// Reads what [`write_blocks`] wrote.
pub fn read_blocks(path: &Path) -> io::Result<Vec<Vec<u8>>> {
    let mut file = io::BufReader::new(File::open(path)?);
    let mut blocks = Vec::new();
    let mut length = [0; 4];
    loop {
        match file.read_exact(&mut length) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(blocks),
            Err(error) => return Err(error),
        }
        let mut block = vec![0; u32::from_le_bytes(length) as usize];
        file.read_exact(&mut block)?;
        blocks.push(block);
    }
}

/// The store of a test: the devnet's, with one thread and little memory.
pub fn open_store(home: &Path) -> Result<Store, OpenError> {
    open_store_with(home, Index::All)
}

/// The same, with or without the indexes.
pub fn open_store_with(home: &Path, index: Index) -> Result<Store, OpenError> {
    let spec = ChainSpec::built_in("devnet").expect("built in");
    Store::open(home, &spec, options(index), &workers())
}

/// Little memory.
pub fn options(index: Index) -> StoreOptions {
    StoreOptions {
        coin_cache_bytes: 64 << 10,
        block_cache_bytes: 1 << 20,
        write_buffer_bytes: 64 << 10,
        index,
        ..StoreOptions::default()
    }
}

/// One thread that verifies.
pub fn workers() -> Workers {
    Workers::new(NonZeroUsize::MIN)
}

/// Takes a block that is valid on the store's tip up to connected.
pub fn connect(store: &Store, spec: &ChainSpec, workers: &Workers, bytes: Vec<u8>) -> ConnectedBlock {
    let checked = check_block(parse_block(bytes).expect("parses"), spec.params()).expect("passes the checks");
    let resolved = resolve(checked, store).expect("resolves");
    connect_block(resolved, workers, None).expect("connects")
}

/// The certificate that the tests commit a block with.
pub fn certificate(height: Height) -> Vec<u8> {
    format!("certificate of height {height}").into_bytes()
}

/// Commits the blocks that come after the store's tip, and says each committed height on `out` once it is on disk.
///
/// # Errors
/// The fault that stopped it.
pub fn replay(
    store: &Store,
    blocks: &[Vec<u8>],
    flush: CoinFlush,
    mut out: impl Write,
) -> Result<(), Box<dyn std::error::Error>> {
    let (spec, workers) = (ChainSpec::built_in("devnet")?, workers());
    let done = store.tip().height().to_u32() - LAST_DERIVED_HEIGHT.to_u32();
    for bytes in blocks.iter().skip(done as usize) {
        let connected = connect(store, &spec, &workers, bytes.clone());
        let height = connected.tip().height();
        let committed = store.commit(&connected, &certificate(height), flush);
        if committed.is_err() {
            // A store that failed once writes nothing more, whoever asks.
            let again = store.commit(&connected, &certificate(height), flush);
            if !matches!(again, Err(StateFault::Stopped)) {
                return Err(format!("commit after a failed one: {again:?}").into());
            }
        }
        committed?;
        if flush == CoinFlush::Later && height.to_u32().is_multiple_of(BLOCKS_PER_FLUSH) {
            store.flush_coins()?;
        }
        writeln!(out, "{height}")?;
        out.flush()?;
    }
    Ok(())
}

/// A tip in words, to compare two stores.
pub fn describe(store: &Store) -> String {
    let tip = store.tip();
    format!("{} {} {}", tip.height(), serialize_hex(&tip.hash()), serialize_hex(&tip.state_commitment().to_vec()))
}
