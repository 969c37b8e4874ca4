//! The file that keeps a watcher's state over a restart.
//!
//! It is a cache: everything in it can be scanned again from Bitcoin's blocks, so a file that is missing, broken or of
//! another network costs time and nothing else. It is replaced as a whole and synced.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use bitcoin::block::Header;
use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::hashes::{Hash as _, sha256d};
use bitcoin::{BlockHash, Network, OutPoint, ScriptBuf, Txid};
use causeway_chainspec::BitcoinHeight;
use serde::{Deserialize, Serialize};

use super::facts::{Deposit, Facts, Place, Spend};
use super::follower::{Follower, Limits, Watches};
use super::window::HeaderWindow;
use crate::bitcoind::has_proof_of_work;

/// Most bytes of the file. A million facts take about 400 MB.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// How the file begins, with the version of its form. A space and the sha256d of the rest follow.
const MAGIC: &str = "causeway-watcher 1";

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It cannot be read or written.
    #[error("{} cannot be read or written: check the disk and whose it is", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not what was written.
    #[error("{} is broken or of another version", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
    },
    /// Of another chain.
    #[error("{} is of another Bitcoin network", path.display())]
    OtherNetwork {
        /// The file.
        path: PathBuf,
    },
}

#[derive(Serialize, Deserialize)]
pub(super) struct Content {
    network: Network,
    bottom: u32,
    headers: Vec<String>,
    rescan: Option<u32>,
    scripts: Vec<(ScriptBuf, u32)>,
    outpoints: Vec<(OutPoint, u32)>,
    txids: Vec<(Txid, u32)>,
    deposits: Vec<(OutPoint, Deposit)>,
    spends: Vec<(OutPoint, Spend)>,
    confirmed: Vec<(Txid, Place)>,
}

/// The bytes of a file that holds the follower's state.
pub(super) fn encode(network: Network, follower: &Follower) -> Vec<u8> {
    let (bottom, _) = follower.headers().bottom();
    let watches = follower.watches();
    let facts = follower.facts();
    let content = Content {
        network,
        bottom: bottom.0,
        headers: follower.headers().from(bottom).map(|(_, header)| serialize_hex(header)).collect(),
        rescan: follower.rescan_next().map(|next| next.0),
        scripts: watches.scripts.iter().map(|(script, from)| (script.clone(), from.0)).collect(),
        outpoints: watches.outpoints.iter().map(|(outpoint, from)| (*outpoint, from.0)).collect(),
        txids: watches.txids.iter().map(|(txid, from)| (*txid, from.0)).collect(),
        deposits: facts.deposits.iter().map(|(outpoint, deposit)| (*outpoint, deposit.clone())).collect(),
        spends: facts.spends.iter().map(|(outpoint, spend)| (*outpoint, *spend)).collect(),
        confirmed: facts.confirmed.iter().map(|(txid, place)| (*txid, *place)).collect(),
    };
    let body = serde_json::to_vec(&content).expect("texts and numbers are JSON");
    let mut bytes = format!("{MAGIC} {}\n", sha256d::Hash::hash(&body)).into_bytes();
    bytes.extend(body);
    bytes
}

/// The follower whose state the file holds; `None` if there is no file.
pub(super) fn load(path: &Path, network: Network, limits: Limits) -> Result<Option<Follower>, FileError> {
    let failed = |source| FileError::Io { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    let content = parse(&bytes).ok_or_else(|| FileError::Broken { path: path.to_owned() })?;
    if content.network != network {
        return Err(FileError::OtherNetwork { path: path.to_owned() });
    }
    restore(content, |header| has_proof_of_work(network, header), limits)
        .ok_or_else(|| FileError::Broken { path: path.to_owned() })
        .map(Some)
}

pub(super) fn parse(bytes: &[u8]) -> Option<Content> {
    let rest = bytes.strip_prefix(MAGIC.as_bytes())?.strip_prefix(b" ")?;
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let (sum, body) = (&rest[..end], &rest[end + 1..]);
    let expected = sha256d::Hash::hash(body).to_string();
    if sum != expected.as_bytes() {
        return None;
    }
    serde_json::from_slice(body).ok()
}

pub(super) fn restore(content: Content, proven: impl Fn(&Header) -> bool, limits: Limits) -> Option<Follower> {
    let Content { bottom, headers, rescan, scripts, outpoints, txids, deposits, spends, confirmed, .. } = content;
    bottom.checked_add(u32::try_from(headers.len()).ok()?)?;
    let mut window: Option<HeaderWindow> = None;
    for hex in &headers {
        let header: Header = deserialize_hex(hex).ok()?;
        if !proven(&header) {
            return None;
        }
        match &mut window {
            None => window = Some(HeaderWindow::new(BitcoinHeight(bottom), header)),
            Some(window) if window.tip().1 == header.prev_blockhash => window.push(header),
            Some(_) => return None,
        }
    }
    let window = window?;
    let on_chain = |place: &Place| {
        let hash: Option<BlockHash> = window.hash(place.height);
        place.height <= window.tip().0 && hash.is_none_or(|hash| hash == place.block)
    };
    let places = deposits.iter().map(|(_, deposit)| &deposit.place);
    let places =
        places.chain(spends.iter().map(|(_, spend)| &spend.place)).chain(confirmed.iter().map(|(_, place)| place));
    if !places.into_iter().all(on_chain) || rescan.is_some_and(|next| next > window.tip().0.0) {
        return None;
    }
    let at = BitcoinHeight;
    let watches = Watches {
        scripts: scripts.into_iter().map(|(script, from)| (script, at(from))).collect(),
        outpoints: outpoints.into_iter().map(|(outpoint, from)| (outpoint, at(from))).collect(),
        txids: txids.into_iter().map(|(txid, from)| (txid, at(from))).collect(),
    };
    let facts = Facts {
        deposits: deposits.into_iter().collect(),
        spends: spends.into_iter().collect(),
        confirmed: confirmed.into_iter().collect(),
    };
    Some(Follower::restore(limits, window, watches, facts, rescan.map(at)))
}

/// Puts `bytes` in the place of the file, durably: a crash leaves the old file or the new one.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let failed = |source| FileError::Io { path: path.to_owned(), source };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    let written =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()?;
            std::fs::rename(&temporary, path)?;
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(directory)?.sync_all()
        });
    written.map_err(failed)
}
