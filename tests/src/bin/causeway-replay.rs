//! Opens a store and commits a file of blocks to it: the process that the crash tests kill.
//!
//! `causeway-replay HOME BLOCKS (with-block|later) [INDEX_BATCH]`. The indexes are built in writes of so many transactions, if
//! they are behind. Says every committed height on standard output, and ends with code 3
//! after a fault of the state.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use causeway_chainspec::ChainSpec;
use causeway_consensus::state::{CoinFlush, Index, Store, StoreOptions};
use causeway_tests::replay::{options, read_blocks, replay, workers};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, home, blocks, flush, batch @ ..] = arguments.as_slice() else { return ExitCode::from(2) };
    let defaults = options(Index::All);
    let options = match batch {
        [] => defaults,
        [batch] => match batch.parse() {
            Ok(index_batch_transactions) => StoreOptions { index_batch_transactions, ..defaults },
            Err(_) => return ExitCode::from(2),
        },
        _ => return ExitCode::from(2),
    };
    let flush = match flush.as_str() {
        "with-block" => CoinFlush::WithBlock,
        "later" => CoinFlush::Later,
        _ => return ExitCode::from(2),
    };
    match run(Path::new(home), Path::new(blocks), flush, options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut chain = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                chain += &format!(": {error}");
                cause = error.source();
            }
            let _ = writeln!(std::io::stderr(), "{chain}");
            ExitCode::from(3)
        }
    }
}

fn run(home: &Path, blocks: &Path, flush: CoinFlush, options: StoreOptions) -> Result<(), Box<dyn std::error::Error>> {
    let blocks = read_blocks(blocks)?;
    let spec = ChainSpec::built_in("devnet")?;
    let store = Store::open(home, &spec, options, &workers())?;
    replay(&store, &blocks, flush, std::io::stdout().lock())
}
