//! The address book on disk, so that a node that starts again does not depend on who is near its seeds then. It can be
//! lost: the seeds are asked again.
//!
//! ```text
//! "CWPEERS1" | chain id | key of the tables | number of peers | for each: flags, source, peer | SHA256 of all before
//! ```

use std::io;
use std::path::{Path, PathBuf};

use bitcoin::hashes::{Hash, sha256};
use causeway_chainspec::ChainId;
use causeway_federation::files;
use libp2p::PeerId;
use std::net::IpAddr;

use super::peer_list::{Malformed, PEER_BYTES_MAX, Reader, put_ip, put_peer};
use super::tables::KNOWN_MAX;

/// The form of the file.
const MAGIC: &[u8; 8] = b"CWPEERS1";

/// It holds the key of the tables.
const FILE_MODE: u32 = 0o600;

/// Bytes before the peers, and of the checksum.
const HEAD_BYTES: usize = 8 + 32 + 32 + 4;
const CHECKSUM_BYTES: usize = 32;

/// Most bytes of the file: some 830 kB.
const FILE_BYTES_MAX: usize = HEAD_BYTES + KNOWN_MAX * (1 + 17 + PEER_BYTES_MAX) + CHECKSUM_BYTES;

/// Flags of a peer.
const TRIED: u8 = 1;
const ANCHOR: u8 = 2;

/// What is kept of the book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Saved {
    /// The key of the tables: places are the same in the next run.
    pub(super) key: [u8; 32],
    /// The peers.
    pub(super) peers: Vec<SavedPeer>,
}

/// What is kept of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SavedPeer {
    /// Its name.
    pub(super) peer: PeerId,
    /// Where it is, the best first.
    pub(super) addresses: Vec<(IpAddr, u16)>,
    /// Who told of it.
    pub(super) source: IpAddr,
    /// Whether this node has reached it by itself.
    pub(super) is_tried: bool,
    /// Whether the next run dials it before all others.
    pub(super) is_anchor: bool,
}

impl Saved {
    /// An empty book under a new key.
    pub(super) fn fresh(key: [u8; 32]) -> Self {
        Self { key, peers: Vec::new() }
    }
}

/// Why the book of the last run is not used, or this one's not kept. The node goes on without.
#[derive(Debug, thiserror::Error)]
pub(super) enum BookFileError {
    /// The disk.
    #[error("the address book {} cannot be {doing}: check the disk, its space, owner and permissions", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// It is damaged.
    #[error("the address book {} is damaged and not used: this node asks its seeds again; if that happens often, check the disk", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// It is of another chain.
    #[error("the address book {} is of another chain and not used: this node asks its seeds", path.display())]
    OtherChain {
        /// The file.
        path: PathBuf,
    },
}

/// The bytes of a file for the peers of this chain.
pub(super) fn encode(chain: ChainId, saved: &Saved) -> Vec<u8> {
    let peers = &saved.peers[..saved.peers.len().min(KNOWN_MAX)];
    let mut bytes = MAGIC.to_vec();
    bytes.extend(chain.to_byte_array());
    bytes.extend(saved.key);
    bytes.extend(u32::try_from(peers.len()).expect("the tables are small").to_le_bytes());
    for peer in peers {
        bytes.push(if peer.is_tried { TRIED } else { 0 } | if peer.is_anchor { ANCHOR } else { 0 });
        put_ip(&mut bytes, peer.source);
        put_peer(&mut bytes, &peer.peer, &peer.addresses);
    }
    let checksum = sha256::Hash::hash(&bytes);
    bytes.extend(checksum.to_byte_array());
    bytes
}

/// What a file of this chain holds; None if it is of another one.
fn decode(chain: ChainId, bytes: &[u8]) -> Result<Option<Saved>, Malformed> {
    let (content, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(Malformed)?;
    if sha256::Hash::hash(content).to_byte_array() != *checksum {
        return Err(Malformed);
    }
    let mut reader = Reader(content);
    if reader.array()? != *MAGIC {
        return Err(Malformed);
    }
    if reader.array()? != chain.to_byte_array() {
        return Ok(None);
    }
    let key = reader.array()?;
    let count = usize::try_from(u32::from_le_bytes(reader.array()?)).map_err(|_| Malformed)?;
    if count > KNOWN_MAX {
        return Err(Malformed);
    }
    let mut peers = Vec::new();
    for _ in 0..count {
        let flags = reader.byte()?;
        if flags & !(TRIED | ANCHOR) != 0 {
            return Err(Malformed);
        }
        let source = reader.ip()?;
        let (peer, addresses) = reader.peer()?;
        let (is_tried, is_anchor) = (flags & TRIED != 0, flags & ANCHOR != 0);
        peers.push(SavedPeer { peer, addresses, source, is_tried, is_anchor });
    }
    if reader.0.is_empty() { Ok(Some(Saved { key, peers })) } else { Err(Malformed) }
}

/// What the last run kept; None if there is no file.
///
/// # Errors
/// It cannot be read, or is not usable.
pub(super) fn load(path: &Path, chain: ChainId) -> Result<Option<Saved>, BookFileError> {
    let path = path.to_owned();
    let bytes = match files::read(&path, u64::try_from(FILE_BYTES_MAX).unwrap_or(u64::MAX)) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(BookFileError::Damaged { path }),
        Err(source) => return Err(BookFileError::Io { path, doing: "read", source }),
    };
    match decode(chain, &bytes) {
        Ok(Some(saved)) => Ok(Some(saved)),
        Ok(None) => Err(BookFileError::OtherChain { path }),
        Err(Malformed) => Err(BookFileError::Damaged { path }),
    }
}

/// Writes the bytes of a book: after a crash at any moment the file holds the book of before or of now.
///
/// # Errors
/// It cannot be written.
pub(super) fn save(path: &Path, bytes: &[u8]) -> Result<(), BookFileError> {
    let failed = |source| BookFileError::Io { path: path.to_owned(), doing: "written", source };
    files::replace(path, FILE_MODE, bytes).map_err(failed)
}

#[cfg(test)]
mod tests;
