//! What the daemon keeps on disk beside the signing log: the block it last acted on, how far it has checked deposits, its
//! alarm, and signed transactions.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::hex::{DisplayHex as _, FromHex as _};
use bitcoin::secp256k1::schnorr;
use bitcoin::{BlockHash, Transaction, Txid};
use causeway_chainspec::Epoch;
use causeway_consensus::bft::CommitCertificate;
use causeway_consensus::peg::script::EpochScripts;
use serde::{Deserialize, Serialize};

use crate::approve::{ActedOn, BlockPoint, DepositsMark};
use crate::files;
use crate::home::{Home, HomeError};
use crate::session::{Path, Signatures, Signed};

/// Most bytes of a small file: two certificates of 16,458 bytes in hex, and some words.
const SMALL_BYTES_MAX: u64 = 128 << 10;

/// Most bytes of a signed transaction's file: 100,000 vB in hex.
const SIGNED_BYTES_MAX: u64 = 1 << 20;

/// Most files of signed transactions that are read.
const SIGNED_FILES_MAX: usize = 1_000;

/// Most bytes of an epoch's scripts: 5,000 keys.
const SCRIPTS_BYTES_MAX: u64 = 1 << 20;

/// Why the records cannot be read. What they say must not be guessed.
#[expect(missing_docs, reason = "every variant is documented, and its message names its fields")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The disk.
    #[error("{} cannot be {doing}: check the disk, its space, owner and permissions", path.display())]
    Io {
        path: PathBuf,
        doing: &'static str,
        #[source]
        source: io::Error,
    },
    /// Not what was written.
    #[error("{} is damaged: write into it the height and hash of a block that you know to be final, or restore the disk", path.display())]
    Damaged { path: PathBuf },
}

/// What the member last acted on, as it is written: an operator writes height and hash alone.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ActedOnFile {
    height: u32,
    hash: BlockHash,
    /// The encoded certificate, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
}

/// What the member last acted on; None if it never did.
///
/// # Errors
/// [`RecordError`].
pub(crate) fn load_acted_on(home: &Home) -> Result<Option<ActedOn>, RecordError> {
    let path = home.acted_on();
    let read = files::read(&path, SMALL_BYTES_MAX);
    let Some(bytes) = read.map_err(|source| RecordError::Io { path: path.clone(), doing: "read", source })? else {
        return Ok(None);
    };
    read_acted_on(&bytes).map(Some).ok_or(RecordError::Damaged { path })
}

fn read_acted_on(bytes: &[u8]) -> Option<ActedOn> {
    let ActedOnFile { height, hash, certificate } = serde_json::from_slice(bytes).ok()?;
    let certificate = match certificate {
        Some(hex) => Some(CommitCertificate::decode(&Vec::from_hex(&hex).ok()?).ok()?),
        None => None,
    };
    let is_its = |of: &CommitCertificate| of.height().to_u32() == height && of.block() == hash;
    certificate.as_ref().is_none_or(is_its).then_some(ActedOn { block: BlockPoint { height, hash }, certificate })
}

/// Writes what the member acts on, and returns when it is on disk.
pub(crate) fn store_acted_on(home: &Home, acted_on: &ActedOn) -> Result<(), RecordError> {
    let path = home.acted_on();
    let BlockPoint { height, hash } = acted_on.block;
    let certificate = acted_on.certificate.as_ref().map(|certificate| certificate.encode().to_lower_hex_string());
    let bytes = serde_json::to_vec(&ActedOnFile { height, hash, certificate }).expect("numbers and texts are JSON");
    files::replace(&path, files::SECRET_MODE, &bytes).map_err(|source| RecordError::Io {
        path,
        doing: "written",
        source,
    })
}

/// How far the member has found credited deposits on Bitcoin. Without a file that can be read it looks for all of them
/// again.
pub(crate) fn load_deposits(home: &Home) -> DepositsMark {
    let path = home.deposits();
    let read = files::read(&path, SMALL_BYTES_MAX).map(|bytes| bytes.map(|bytes| serde_json::from_slice(&bytes).ok()));
    match read {
        Ok(None) => DepositsMark::default(),
        Ok(Some(Some(mark))) => mark,
        _ => {
            tracing::warn!(path = %path.display(), "cannot be read: looking for every credited deposit again");
            DepositsMark::default()
        }
    }
}

/// Writes it, and returns when it is on disk.
pub(crate) fn store_deposits(home: &Home, mark: &DepositsMark) -> Result<(), RecordError> {
    let path = home.deposits();
    let bytes = serde_json::to_vec(mark).expect("numbers and a hash are JSON");
    files::replace(&path, files::SECRET_MODE, &bytes).map_err(|source| RecordError::Io {
        path,
        doing: "written",
        source,
    })
}

/// Why a member stopped for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmRecord {
    /// When, in seconds since 1970.
    pub time: u64,
    /// Why.
    pub reason: String,
    /// Encoded certificates that show it, hex.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proof: Vec<String>,
}

/// The alarm that stands; None if there is none. A file that cannot be read is an alarm.
pub(crate) fn load_alarm(home: &Home) -> Option<AlarmRecord> {
    let unknown =
        || AlarmRecord { time: 0, reason: format!("{} cannot be read", home.alarm().display()), proof: Vec::new() };
    match files::read(&home.alarm(), SMALL_BYTES_MAX) {
        Ok(None) => None,
        Ok(Some(bytes)) => Some(serde_json::from_slice(&bytes).unwrap_or_else(|_| unknown())),
        Err(_) => Some(unknown()),
    }
}

/// Writes an alarm. The first one stays.
pub(crate) fn store_alarm(home: &Home, alarm: &AlarmRecord) -> io::Result<()> {
    if home.alarm().try_exists().unwrap_or(false) {
        return Ok(());
    }
    files::replace(&home.alarm(), files::SECRET_MODE, &serde_json::to_vec_pretty(alarm)?)
}

/// A signed transaction of an open batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SignedRecord {
    pub(crate) batch: u32,
    /// Which version of the batch, from 0.
    pub(crate) version: usize,
    pub(crate) txid: Txid,
    pub(crate) path: Path,
    pub(crate) transaction: Transaction,
}

#[derive(Serialize, Deserialize)]
struct SignedFile {
    batch: u32,
    version: usize,
    txid: Txid,
    /// `key`, `multi_a`, or the members of a subset.
    path: PathFile,
    transaction: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PathFile {
    Key,
    Subset(Vec<u16>),
    MultiA,
}

impl SignedRecord {
    /// The signatures in its witnesses; None for `multi_a`, whose signers each say theirs.
    pub(crate) fn signed(&self) -> Option<Signed> {
        if self.path == Path::MultiA {
            return None;
        }
        let signature = |input: &bitcoin::TxIn| schnorr::Signature::from_slice(input.witness.nth(0)?).ok();
        let signatures = self.transaction.input.iter().map(signature).collect::<Option<Vec<_>>>()?;
        Some(Signed { path: self.path.clone(), signatures: Signatures::One(signatures), faults: Vec::new() })
    }

    fn file(home: &Home, txid: &Txid) -> PathBuf {
        home.signed().join(format!("{txid}.json"))
    }

    /// Writes it, and returns when it is on disk.
    pub(crate) fn store(&self, home: &Home) -> io::Result<()> {
        let path = match &self.path {
            Path::Key => PathFile::Key,
            Path::Subset(subset) => PathFile::Subset(subset.clone()),
            Path::MultiA => PathFile::MultiA,
        };
        let SignedRecord { batch, version, txid, .. } = *self;
        let file = SignedFile { batch, version, txid, path, transaction: serialize_hex(&self.transaction) };
        files::replace(&Self::file(home, &txid), files::SECRET_MODE, &serde_json::to_vec(&file)?)
    }

    /// Removes its file.
    pub(crate) fn remove(&self, home: &Home) -> io::Result<()> {
        files::remove(&Self::file(home, &self.txid))
    }

    /// Everything that is on disk and whole. What is not can be signed again.
    pub(crate) fn load_all(home: &Home) -> Vec<Arc<Self>> {
        let Ok(entries) = std::fs::read_dir(home.signed()) else { return Vec::new() };
        let paths = entries.filter_map(Result::ok).map(|entry| entry.path()).take(SIGNED_FILES_MAX);
        paths.filter_map(|path| Self::load(&path)).map(Arc::new).collect()
    }

    fn load(path: &std::path::Path) -> Option<Self> {
        let bytes = files::read(path, SIGNED_BYTES_MAX).ok().flatten()?;
        let SignedFile { batch, version, txid, path: kind, transaction } = serde_json::from_slice(&bytes).ok()?;
        let transaction: Transaction = deserialize_hex(&transaction).ok()?;
        let path = match kind {
            PathFile::Key => Path::Key,
            PathFile::Subset(subset) => Path::Subset(subset),
            PathFile::MultiA => Path::MultiA,
        };
        (transaction.compute_txid() == txid).then_some(Self { batch, version, txid, path, transaction })
    }
}

/// The scripts of an epoch, from the home if they are there, otherwise made and kept there.
///
/// # Errors
/// The disk's.
pub(crate) fn load_scripts(home: &Home, epoch: &Epoch) -> Result<Arc<EpochScripts>, HomeError> {
    let path = home.scripts().join(format!("epoch-{}.bin", epoch.number()));
    if let Ok(Some(bytes)) = files::read(&path, SCRIPTS_BYTES_MAX) {
        match EpochScripts::decode(epoch, &bytes) {
            Ok(scripts) => return Ok(Arc::new(scripts)),
            Err(error) => tracing::warn!(%error, "making the scripts of the epoch again"),
        }
    }
    let scripts = EpochScripts::build(epoch);
    files::replace(&path, files::SECRET_MODE, &scripts.encode()).map_err(|source| home.io(&path, "written", source))?;
    Ok(Arc::new(scripts))
}
