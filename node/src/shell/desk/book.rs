//! The deposit addresses that were handed out here, on disk: whoever pays to one counts on being credited.
//!
//! One line for each: epoch, destination and refund key in hex, the Bitcoin height to look from, and the script in hex. A line
//! that a crash cut off was never shown to anybody.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use bitcoin::hex::DisplayHex;
use bitcoin::{Script, ScriptBuf, XOnlyPublicKey};
use causeway_chainspec::BitcoinHeight;
use causeway_consensus::peg::script::DepositTerms;
use causeway_federation::watcher::Watch;

/// Most addresses: about 40 MB in memory.
const ADDRESSES_MAX: usize = 200_000;

/// Why the book cannot be read or written.
#[expect(missing_docs, reason = "every variant is documented, and its message names its fields")]
#[derive(Debug, thiserror::Error)]
pub enum BookError {
    /// The disk.
    #[error("{} cannot be read or written: check its owner, its permissions and the disk", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A line is not what was written.
    #[error("line {line} of {} is damaged: restore the file from a copy; without it deposits to its addresses must be claimed one by one", path.display())]
    Damaged { path: PathBuf, line: usize },
    /// No room for more.
    #[error("{ADDRESSES_MAX} deposit addresses were handed out here already: ask another node")]
    Full,
}

#[derive(Debug)]
pub(super) struct Book {
    path: PathBuf,
    file: File,
    /// Bytes of whole lines.
    length: u64,
    addresses: HashMap<ScriptBuf, (DepositTerms, BitcoinHeight)>,
}

impl Book {
    pub(super) fn open(path: &Path) -> Result<Self, BookError> {
        let io = |source| BookError::Io { path: path.to_owned(), source };
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(io)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut addresses = HashMap::new();
        for (index, line) in text[..whole].lines().enumerate() {
            let damaged = BookError::Damaged { path: path.to_owned(), line: index + 1 };
            let (script, terms, from) = parse(line).ok_or(damaged)?;
            addresses.insert(script, (terms, from));
        }
        if whole < text.len() {
            file.set_len(whole as u64).map_err(io)?;
        }
        drop(file);
        let file = OpenOptions::new().append(true).open(path).map_err(io)?;
        Ok(Self { path: path.to_owned(), file, length: whole as u64, addresses })
    }

    pub(super) fn get(&self, script: &Script) -> Option<&(DepositTerms, BitcoinHeight)> {
        self.addresses.get(script)
    }

    pub(super) fn scripts(&self) -> Vec<(Watch, BitcoinHeight)> {
        self.addresses.iter().map(|(script, (_, from))| (Watch::Script(script.clone()), *from)).collect()
    }

    /// Writes an address down; it is on disk when this returns. One that is there already stays as it is.
    pub(super) fn add(&mut self, script: ScriptBuf, terms: DepositTerms, from: BitcoinHeight) -> Result<(), BookError> {
        if self.addresses.contains_key(&script) {
            return Ok(());
        }
        if self.addresses.len() >= ADDRESSES_MAX {
            return Err(BookError::Full);
        }
        let line = format!(
            "{} {} {} {} {}\n",
            terms.epoch,
            terms.destination.as_bytes().as_hex(),
            terms.refund_key,
            from,
            script.as_bytes().as_hex()
        );
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            // Half a line would spoil the next one. If this fails too, opening the book says so.
            let _ = self.file.set_len(self.length);
            return Err(BookError::Io { path: self.path.clone(), source });
        }
        self.length += line.len() as u64;
        self.addresses.insert(script, (terms, from));
        Ok(())
    }
}

fn parse(line: &str) -> Option<(ScriptBuf, DepositTerms, BitcoinHeight)> {
    let mut parts = line.split(' ');
    let epoch = parts.next()?.parse().ok()?;
    let destination = ScriptBuf::from_hex(parts.next()?).ok()?;
    let refund_key = XOnlyPublicKey::from_str(parts.next()?).ok()?;
    let from = BitcoinHeight(parts.next()?.parse().ok()?);
    let script = ScriptBuf::from_hex(parts.next()?).ok()?;
    parts.next().is_none().then_some((script, DepositTerms { epoch, destination, refund_key }, from))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(fill: u8) -> (ScriptBuf, DepositTerms) {
        let refund_key = "50929b74c1a04954b78b4b6035e97a5e078a5a0f28ec96d547bfee9ace803ac0".parse().unwrap();
        let destination = ScriptBuf::from_bytes(vec![fill; 22]);
        (ScriptBuf::from_bytes(vec![fill; 34]), DepositTerms { epoch: 1, destination, refund_key })
    }

    #[test]
    fn addresses_outlive_a_restart_and_a_line_cut_off() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("deposits");
        let mut book = Book::open(&path).unwrap();
        let ((one, one_terms), (two, two_terms)) = (terms(1), terms(2));
        book.add(one.clone(), one_terms.clone(), BitcoinHeight(7)).unwrap();
        book.add(two.clone(), two_terms, BitcoinHeight(8)).unwrap();
        book.add(one.clone(), one_terms.clone(), BitcoinHeight(9)).unwrap();
        drop(book);
        let text = std::fs::read(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 3]).unwrap();
        let mut book = Book::open(&path).unwrap();
        assert_eq!(book.get(&one), Some(&(one_terms, BitcoinHeight(7))));
        assert_eq!(book.get(&two), None);
        let (three, three_terms) = terms(3);
        book.add(three.clone(), three_terms, BitcoinHeight(9)).unwrap();
        drop(book);
        assert!(Book::open(&path).unwrap().get(&three).is_some());
    }

    #[test]
    fn a_damaged_line_is_named() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("deposits");
        std::fs::write(&path, "1 00 zz 7 00\n").unwrap();
        assert!(matches!(Book::open(&path), Err(BookError::Damaged { line: 1, .. })));
    }
}
