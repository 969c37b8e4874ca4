//! `causeway check`: everything on the disk of a stopped node, held against what proves it.

use std::io::{IsTerminal, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use bitcoin::BlockHash;
use causeway_chainspec::{ChainSpec, Height, LAST_DERIVED_HEIGHT};
use causeway_consensus::bft::{CertificateError, CommitCertificate, DecodeError, Key, ValidatorSet, ValidatorSetError};
use causeway_consensus::state::Store;
use causeway_consensus::{ChainView, InvalidBlock, LtHash, StateFault, Workers, check_block, parse_block};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::CliError;
use super::keys::{describe, validator_key};
use crate::config::Config;
use crate::home::Home;
use crate::keys::load_node_key;
use crate::shell::mark_file::MarkFile;
use crate::shell::recovery::{LogVerdict, judge_log};

/// Blocks between two lines in the log.
const LOG_BLOCKS: u32 = 10_000;

const BAR: &str = "{msg} {wide_bar} {pos}/{len} {eta}";

/// What `causeway check` is told.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The directory of the stopped node.
    #[arg(long, value_name = "DIR")]
    pub home: PathBuf,
}

/// What is wrong with a store.
#[expect(missing_docs, reason = "every variant is documented, and its message names its fields")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// A record is not there.
    #[error("the {what} of height {height} is missing")]
    Missing { what: &'static str, height: Height },
    /// A header does not follow the one before.
    #[error("the header of height {height} does not stand on that of the height before")]
    Unlinked { height: Height },
    /// A block that the chainspec fixes is another one.
    #[error("block {height} is not the one that the chainspec fixes")]
    OtherDerivedBlock { height: Height },
    /// The body does not keep the rules that need no other block.
    #[error("block {height} is not the block that was committed")]
    Block {
        height: Height,
        #[source]
        source: Option<InvalidBlock>,
    },
    /// The certificate is unreadable.
    #[error("the certificate of height {height} is unreadable")]
    Certificate {
        height: Height,
        #[source]
        source: DecodeError,
    },
    /// The certificate does not prove the block.
    #[error("the certificate of height {height} does not prove its block")]
    Unproven {
        height: Height,
        #[source]
        source: CertificateError,
    },
    /// The chainspec's validators are no set.
    #[error("the chainspec's validators are no set")]
    ValidatorSet(#[source] ValidatorSetError),
    /// The last header is not the tip.
    #[error("the last block is not the tip")]
    OtherTip,
    /// The coins are not those of the blocks.
    #[error("the coins are not those that the blocks leave: their hash is another one")]
    Coins,
    /// There are more or fewer coins than the store says.
    #[error("there are {found} coins, and the store says that there are {kept}")]
    CoinCount { found: u64, kept: u64 },
}

/// Checks keys, mark, log, blocks, certificates, coins and indexes of a stopped node. Damaged indexes are no failure: they
/// are built again.
///
/// # Errors
/// The node runs, a file is refused, or the store is damaged.
pub fn check(args: &CheckArgs, out: &mut impl Write) -> Result<(), CliError> {
    let home = Home::at(&args.home);
    home.check_present()?;
    let config = Config::load(&home.config())?;
    let spec = home.load_chainspec()?;
    config.fee_script(spec.identity(), &home.config())?;
    let _lock = home.lock()?;
    load_node_key(&home.node_key())?;
    let mark = |key| {
        let (path, key_path) = (home.validator_mark(), home.validator_key());
        MarkFile::open(&path, &key_path, spec.chain_id(), Key::address(&key))
    };
    let mark = validator_key(&home)?.map(mark).transpose()?;
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let store = Store::open(&home.store(), &spec, config.store_options(), &Workers::new(threads))?;
    let tip = store.tip();
    if let Some(mark) = &mark {
        writeln!(out, "mark          {}", describe(mark.mark()))?;
        let log = match judge_log(&home, spec.chain_id(), tip.height(), Some(mark.mark()))? {
            LogVerdict::Replay => "of the height above the tip, whole",
            LogVerdict::Drop => "of no height that matters",
        };
        writeln!(out, "log           {log}")?;
    }
    check_blocks(&store, &spec)?;
    let missing = store.holes();
    match missing.first() {
        None => writeln!(out, "blocks        0 to {}, each proven", tip.height())?,
        Some(_) => writeln!(out, "blocks        0 to {}, each proven but {}", tip.height(), missing.len())?,
    }
    check_coins(&store)?;
    writeln!(out, "coins         as the blocks leave them")?;
    tracing::info!("counting the indexes");
    writeln!(out, "index         {}", super::status::describe_index(store.check_index()?))?;
    match missing.first() {
        None => Ok(()),
        Some(first) => Err(CliError::Missing { path: store.path().to_owned(), count: missing.len(), first: *first }),
    }
}

fn damaged(store: &Store, source: Damage) -> CliError {
    CliError::Damaged { path: store.path().to_owned(), source: Box::new(source) }
}

/// Checks every block up to the tip, its place in the chain, and what makes it final.
fn check_blocks(store: &Store, spec: &ChainSpec) -> Result<(), CliError> {
    let set = ValidatorSet::new(spec.validators()).map_err(|error| damaged(store, Damage::ValidatorSet(error)))?;
    let tip = store.tip();
    let progress = Progress::new("blocks", tip.height());
    let mut parent = None;
    for height in (0..=tip.height().to_u32()).map(Height) {
        let hash = check_block_at(store, spec, &set, height, parent)?;
        parent = Some(hash);
        progress.done(height);
    }
    progress.bar.finish_and_clear();
    if parent != Some(tip.hash()) { Err(damaged(store, Damage::OtherTip)) } else { Ok(()) }
}

fn check_block_at(
    store: &Store,
    spec: &ChainSpec,
    set: &ValidatorSet,
    height: Height,
    parent: Option<BlockHash>,
) -> Result<BlockHash, CliError> {
    let fail = |damage| damaged(store, damage);
    let missing = |what| fail(Damage::Missing { what, height });
    let header = store.header(height)?.ok_or_else(|| missing("header"))?;
    let hash = header.block_hash();
    if parent.is_some_and(|parent| header.prev_blockhash != parent) {
        return Err(fail(Damage::Unlinked { height }));
    }
    if store.height_of(hash)? != Some(height) {
        return Err(missing("entry in the index of block hashes"));
    }
    let Some(bytes) = store.block_bytes(height)? else {
        // The store has noted it: it comes back from peers.
        return if height <= LAST_DERIVED_HEIGHT { Err(missing("block")) } else { Ok(hash) };
    };
    if height <= LAST_DERIVED_HEIGHT {
        let derived = spec.derived_block(height).map(|block| bitcoin::consensus::serialize(&block));
        return if derived.as_ref() == Some(&bytes) {
            Ok(hash)
        } else {
            Err(fail(Damage::OtherDerivedBlock { height }))
        };
    }
    let checked = parse_block(bytes).and_then(|block| check_block(block, spec.params()));
    let checked = checked.map_err(|error| fail(Damage::Block { height, source: Some(error) }))?;
    if checked.block().hash() != hash {
        return Err(fail(Damage::Block { height, source: None }));
    }
    // As a missing block.
    let Some(certificate) = store.certificate(height)? else { return Ok(hash) };
    let certificate = CommitCertificate::decode(&certificate);
    let certificate = certificate.map_err(|source| fail(Damage::Certificate { height, source }))?;
    let proven = certificate.verify(spec.chain_id(), set, height, hash);
    proven.map_err(|source| fail(Damage::Unproven { height, source }))?;
    Ok(hash)
}

fn check_coins(store: &Store) -> Result<(), CliError> {
    let bar = ProgressBar::new_spinner().with_message("coins");
    bar.enable_steady_tick(Duration::from_millis(200));
    tracing::info!("hashing the coins");
    let (mut computed, mut found) = (LtHash::empty(), 0);
    let each = |outpoint: &_, coin: &_| {
        computed.add(outpoint, coin);
        found += 1;
    };
    store.for_each_coin(each).map_err(|fault| match fault {
        StateFault::Damaged { .. } => damaged(store, Damage::Coins),
        other => other.into(),
    })?;
    bar.finish_and_clear();
    if computed != *store.tip().coins() {
        return Err(damaged(store, Damage::Coins));
    }
    let kept = store.figures().coins;
    if found == kept { Ok(()) } else { Err(damaged(store, Damage::CoinCount { found, kept })) }
}

/// A bar on a terminal, lines in the log otherwise.
struct Progress {
    bar: ProgressBar,
    end: Height,
}

impl Progress {
    fn new(what: &'static str, end: Height) -> Self {
        let bar = ProgressBar::with_draw_target(Some(u64::from(end.to_u32()) + 1), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar());
        Self { bar: bar.with_style(style).with_message(what), end }
    }

    fn done(&self, height: Height) {
        self.bar.inc(1);
        let due = height.to_u32().is_multiple_of(LOG_BLOCKS) || height == self.end;
        if due && !std::io::stderr().is_terminal() {
            tracing::info!(%height, end = %self.end, "checked blocks");
        }
    }
}
