//! The passphrase of a key file, and where it comes from.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::files::{PrivateFileError, open_private, read_bounded};
use crate::text::{decode, nfc, nfd, nfkd, without_mark};

/// Most bytes of a passphrase.
const BYTES_MAX: usize = 1_024;

/// Least characters of a new passphrase.
const CHARACTERS_MIN: usize = 12;

/// Why there is no passphrase.
#[expect(missing_docs, reason = "every variant is documented, and its message names its fields")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PassphraseError {
    /// It is empty.
    #[error("the passphrase is empty: give one")]
    Empty,
    /// It is too long.
    #[error("the passphrase has more than {BYTES_MAX} bytes: it is not the one")]
    TooLong,
    /// It is too short for a new key file.
    #[error("a new passphrase needs at least {CHARACTERS_MIN} characters: several random words are good")]
    TooShort,
    /// Typed twice, not the same.
    #[error("the two passphrases differ: nothing was changed, try again")]
    Differ,
    /// It is no text.
    #[error("the passphrase is no text: write it as UTF-8, or as UTF-16 with a byte-order mark")]
    NotText,
    /// The variable is not set.
    #[error("the environment variable {name} is not set: set it to the passphrase, or name a passphrase file")]
    NoVariable { name: String },
    /// The file cannot be used.
    #[error("the passphrase file cannot be used")]
    File(#[source] Box<PrivateFileError>),
    /// There is no terminal.
    #[error("the passphrase cannot be asked for: run on a terminal, or name a passphrase file")]
    Prompt(#[source] io::Error),
}

/// Where a passphrase comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PassphraseSource {
    /// The first line of a file that nobody else can read.
    File(PathBuf),
    /// An environment variable. Other processes of the same user can read it: a file is better.
    Variable(String),
    /// The terminal, without showing it.
    Prompt,
}

/// A passphrase. It is never shown, and its memory is wiped.
///
/// New files are sealed with its normal form (BIP39's: NFKD), so that it opens them however a keyboard composes its letters.
pub struct Passphrase {
    normal: Zeroizing<String>,
    /// Its other forms, by which builds without a normal form may have sealed a file: as it was given, composed, decomposed.
    others: Vec<Zeroizing<String>>,
}

impl Passphrase {
    /// This passphrase, without the byte-order mark that it may begin with.
    ///
    /// # Errors
    /// It is empty or too long.
    pub fn new(text: Zeroizing<String>) -> Result<Self, PassphraseError> {
        let plain = without_mark(&text);
        match text.len() {
            _ if plain.is_empty() => return Err(PassphraseError::Empty),
            0..=BYTES_MAX => {}
            _ => return Err(PassphraseError::TooLong),
        }
        let normal = nfkd(plain);
        let mut others: Vec<Zeroizing<String>> = Vec::with_capacity(4);
        for form in [nfc(plain), nfd(plain), Zeroizing::new(plain.to_owned()), text] {
            if *form != *normal && others.iter().all(|other| **other != *form) {
                others.push(form);
            }
        }
        Ok(Self { normal, others })
    }

    /// Gets that of the member's keys from its source.
    ///
    /// # Errors
    /// [`PassphraseError`].
    pub fn get(source: &PassphraseSource) -> Result<Self, PassphraseError> {
        Self::get_of(source, "the member's keys")
    }

    /// Gets it from its source; a prompt names what it is of.
    ///
    /// # Errors
    /// [`PassphraseError`].
    pub fn get_of(source: &PassphraseSource, what: &str) -> Result<Self, PassphraseError> {
        match source {
            PassphraseSource::File(path) => Self::from_file(path),
            PassphraseSource::Variable(name) => match std::env::var(name) {
                Ok(text) => Self::new(Zeroizing::new(text)),
                Err(std::env::VarError::NotPresent) => Err(PassphraseError::NoVariable { name: name.clone() }),
                Err(std::env::VarError::NotUnicode(_)) => Err(PassphraseError::NotText),
            },
            PassphraseSource::Prompt => Self::prompt(&format!("Passphrase of {what}: ")),
        }
    }

    /// Gets one for a new key file, from the terminal twice.
    ///
    /// # Errors
    /// [`PassphraseError`], also if it is too short.
    pub fn get_new(source: &PassphraseSource) -> Result<Self, PassphraseError> {
        Self::get_new_for(source, "the member's keys")
    }

    /// Gets one for a new file, from the terminal twice; a prompt names what it is for.
    ///
    /// # Errors
    /// [`PassphraseError`], also if it is too short.
    pub fn get_new_for(source: &PassphraseSource, what: &str) -> Result<Self, PassphraseError> {
        let first = match source {
            PassphraseSource::Prompt => Self::prompt(&format!("New passphrase for {what}: "))?,
            other => Self::get_of(other, what)?,
        };
        // An accent is no character of its own.
        if nfc(&first.normal).chars().count() < CHARACTERS_MIN {
            return Err(PassphraseError::TooShort);
        }
        if *source == PassphraseSource::Prompt && *Self::prompt("The same again: ")?.normal != *first.normal {
            return Err(PassphraseError::Differ);
        }
        Ok(first)
    }

    fn from_file(path: &Path) -> Result<Self, PassphraseError> {
        let failed = |error| PassphraseError::File(Box::new(error));
        let file = open_private(path, false).map_err(failed)?;
        let bytes = read_bounded(&file, 4 * BYTES_MAX as u64)
            .map_err(|source| failed(PrivateFileError::Io { path: path.to_owned(), doing: "read", source }))?;
        let bytes = Zeroizing::new(bytes.ok_or(PassphraseError::TooLong)?);
        // In UTF-8 the mark is part of what is given: builds that did not know it took it for part of the passphrase.
        if let Ok(text) = std::str::from_utf8(&bytes) {
            return Self::new(Zeroizing::new(text.lines().next().unwrap_or_default().to_owned()));
        }
        let text = decode(&bytes).ok_or(PassphraseError::NotText)?;
        Self::new(Zeroizing::new(text.lines().next().unwrap_or_default().to_owned()))
    }

    fn prompt(text: &str) -> Result<Self, PassphraseError> {
        Self::new(Zeroizing::new(rpassword::prompt_password(text).map_err(PassphraseError::Prompt)?))
    }

    /// As builds without a normal form took it.
    #[cfg(test)]
    pub(super) fn as_given(text: &str) -> Self {
        Self { normal: Zeroizing::new(text.to_owned()), others: Vec::new() }
    }

    /// What new files are sealed with.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.normal.as_bytes()
    }

    /// What a file may have been sealed with, the likeliest first. One form for ASCII, at most five.
    pub(super) fn forms(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(&self.normal).chain(&self.others).map(|form| form.as_bytes())
    }
}

impl fmt::Debug for Passphrase {
    /// Shows nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase")
    }
}

#[cfg(test)]
mod tests;
