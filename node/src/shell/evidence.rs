//! Proofs that validators contradicted themselves, one file each: `<height>-<validator>-<kind>.evidence`, the validator by
//! the first 16 hex digits of its key. One proof of a kind for a height and validator is enough.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use bitcoin::hex::{DisplayHex, FromHex};
use causeway_chainspec::Height;
use causeway_consensus::bft::{DecodeError, Equivocation};
use causeway_federation::files::{read_bounded, replace};

/// Most proofs that are kept against one validator: the first ones.
pub const PROOFS_OF_VALIDATOR_MAX: usize = 100;

/// Most proofs that are kept: every validator of the largest set.
pub const PROOFS_MAX: usize = 256 * PROOFS_OF_VALIDATOR_MAX;

/// Most bytes of a proof: two signed proposals have 281.
const PROOF_BYTES_MAX: u64 = 1024;

const EXTENSION: &str = ".evidence";
const FILE_MODE: u32 = 0o644;

/// Why a proof is not kept or not read.
#[expect(missing_docs, reason = "every variant is documented, and its message names its fields")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvidenceFileError {
    /// The disk does not read or write.
    #[error("evidence {} cannot be {doing}: check the disk, its space, owner and permissions", path.display())]
    Io {
        path: PathBuf,
        doing: &'static str,
        #[source]
        source: io::Error,
    },
    /// The file does not hold the proof that its name says.
    #[error("{} does not hold the evidence that its name says: move it away; a damaged proof proves nothing", path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        source: Option<DecodeError>,
    },
}

/// What two messages contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProofKind {
    /// Two votes.
    Votes,
    /// Two proposals.
    Proposals,
}

/// Which proof: its file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProofName {
    /// The height of both messages.
    pub height: Height,
    /// The first bytes of the validator's key.
    pub validator: [u8; 8],
    /// What they are.
    pub kind: ProofKind,
}

/// What became of a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is on disk now.
    New,
    /// One like it is on disk.
    Already,
    /// There are enough, of this validator or in all.
    Enough,
}

/// The directory of proofs.
#[derive(Debug)]
pub struct EvidenceStore {
    directory: PathBuf,
    kept: BTreeSet<ProofName>,
}

impl ProofName {
    /// The name of a proof.
    pub fn of(evidence: &Equivocation) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = evidence.validator().0;
        // The first byte of the encoding tells the kinds apart.
        let kind = if evidence.encode().first() == Some(&1) { ProofKind::Votes } else { ProofKind::Proposals };
        Self { height: evidence.height(), validator: [a, b, c, d, e, f, g, h], kind }
    }
}

impl fmt::Display for ProofName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ProofKind::Votes => "votes",
            ProofKind::Proposals => "proposals",
        };
        write!(f, "{}-{}-{kind}{EXTENSION}", self.height, self.validator.as_hex())
    }
}

/// The text is no name of a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a file with evidence")]
pub struct NotAProofName;

impl FromStr for ProofName {
    type Err = NotAProofName;

    fn from_str(name: &str) -> Result<Self, NotAProofName> {
        let mut parts = name.strip_suffix(EXTENSION).ok_or(NotAProofName)?.splitn(3, '-');
        let mut next = || parts.next().ok_or(NotAProofName);
        let height = Height(next()?.parse().map_err(|_| NotAProofName)?);
        let validator = FromHex::from_hex(next()?).map_err(|_| NotAProofName)?;
        let kind = match next()? {
            "votes" => ProofKind::Votes,
            "proposals" => ProofKind::Proposals,
            _ => return Err(NotAProofName),
        };
        Ok(Self { height, validator, kind })
    }
}

impl EvidenceStore {
    /// Opens the directory, or makes it. Files of other names are left alone.
    ///
    /// # Errors
    /// It cannot be made or read.
    pub fn open(directory: &Path) -> Result<Self, EvidenceFileError> {
        let failed = |source| EvidenceFileError::Io { path: directory.to_owned(), doing: "read", source };
        std::fs::create_dir_all(directory).map_err(failed)?;
        let mut kept = BTreeSet::new();
        for entry in std::fs::read_dir(directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if let Some(name) = name.to_str().and_then(|name| name.parse().ok()) {
                kept.insert(name);
            }
        }
        Ok(Self { directory: directory.to_owned(), kept })
    }

    /// Keeps a proof, which the caller has verified. It is on disk when this returns [`Kept::New`].
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep(&mut self, evidence: &Equivocation) -> Result<Kept, EvidenceFileError> {
        let name = ProofName::of(evidence);
        if self.kept.contains(&name) {
            return Ok(Kept::Already);
        }
        let of_validator = self.kept.iter().filter(|other| other.validator == name.validator).count();
        if of_validator >= PROOFS_OF_VALIDATOR_MAX || self.kept.len() >= PROOFS_MAX {
            return Ok(Kept::Enough);
        }
        let path = self.directory.join(name.to_string());
        replace(&path, FILE_MODE, &evidence.encode()).map_err(|source| EvidenceFileError::Io {
            path,
            doing: "written",
            source,
        })?;
        self.kept.insert(name);
        Ok(Kept::New)
    }

    /// The proofs that are kept, by height.
    pub fn list(&self) -> impl ExactSizeIterator<Item = ProofName> {
        self.kept.iter().copied()
    }

    /// Reads a proof. It proves nothing until [`Equivocation::verify`] says so.
    ///
    /// # Errors
    /// It cannot be read, or is not what its name says.
    pub fn load(&self, name: ProofName) -> Result<Equivocation, EvidenceFileError> {
        let path = self.directory.join(name.to_string());
        let bytes = match File::open(&path).and_then(|file| read_bounded(&file, PROOF_BYTES_MAX)) {
            Ok(bytes) => bytes.unwrap_or_default(),
            Err(source) => return Err(EvidenceFileError::Io { path, doing: "read", source }),
        };
        match Equivocation::decode(&bytes) {
            Ok(evidence) if ProofName::of(&evidence) == name => Ok(evidence),
            Ok(_) => Err(EvidenceFileError::Damaged { path, source: None }),
            Err(error) => Err(EvidenceFileError::Damaged { path, source: Some(error) }),
        }
    }
}

#[cfg(test)]
mod tests;
