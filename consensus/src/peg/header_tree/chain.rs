//! The best chain as a list that is cheap to clone: full chunks are shared.

use std::sync::Arc;

use bitcoin::block::Header;
use bitcoin::{BlockHash, Work};

/// Headers in a shared chunk. A clone copies fewer than this, and one pointer once in so many headers for each chunk.
const CHUNK: usize = 256;

/// A header and the total work up to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) header: Header,
    pub(super) work: Work,
}

/// Headers at consecutive heights, each the parent of the next; never empty.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Chain {
    /// Height of the first header.
    start: u32,
    /// The headers in full chunks of [`CHUNK`].
    chunks: Arc<Vec<Arc<[Link]>>>,
    /// The headers above them, fewer than [`CHUNK`].
    tail: Vec<Link>,
    tip: Link,
    tip_hash: BlockHash,
}

impl Chain {
    pub(super) fn new(start: u32, link: Link) -> Self {
        let tip_hash = link.header.block_hash();
        Self { start, chunks: Arc::default(), tail: vec![link], tip: link, tip_hash }
    }

    pub(super) fn tip(&self) -> &Link {
        &self.tip
    }

    pub(super) fn tip_hash(&self) -> BlockHash {
        self.tip_hash
    }

    pub(super) fn tip_height(&self) -> u32 {
        let count = self.chunks.len() * CHUNK + self.tail.len();
        self.start + u32::try_from(count - 1).expect("a header takes proof of work: nobody makes 2^32 of them")
    }

    /// The header at `height`; `None` above the tip and below the start.
    pub(super) fn get(&self, height: u32) -> Option<&Link> {
        let index = height.checked_sub(self.start)? as usize;
        match self.chunks.get(index / CHUNK) {
            Some(chunk) => chunk.get(index % CHUNK),
            None => self.tail.get(index - self.chunks.len() * CHUNK),
        }
    }

    /// The hash of the header at `height`: what the header above it names, so that none has to be hashed.
    pub(super) fn hash_at(&self, height: u32) -> Option<BlockHash> {
        if height == self.tip_height() {
            return Some(self.tip_hash);
        }
        self.get(height)?;
        self.get(height.checked_add(1)?).map(|above| above.header.prev_blockhash)
    }

    /// Appends a header, which must name the tip as its parent.
    pub(super) fn push(&mut self, link: Link) {
        debug_assert_eq!(link.header.prev_blockhash, self.tip_hash);
        self.tip = link;
        self.tip_hash = link.header.block_hash();
        self.tail.push(link);
        if self.tail.len() == CHUNK {
            Arc::make_mut(&mut self.chunks).push(self.tail.as_slice().into());
            self.tail.clear();
        }
    }

    /// Removes every header above `height`, at which there is one.
    pub(super) fn truncate(&mut self, height: u32) {
        let (Some(tip), Some(tip_hash)) = (self.get(height).copied(), self.hash_at(height)) else { return };
        let count = (height - self.start) as usize + 1;
        if let Some(chunk) = self.chunks.get(count / CHUNK) {
            self.tail = chunk[..count % CHUNK].to_vec();
            Arc::make_mut(&mut self.chunks).truncate(count / CHUNK);
        } else {
            self.tail.truncate(count - self.chunks.len() * CHUNK);
        }
        (self.tip, self.tip_hash) = (tip, tip_hash);
    }

    /// Every header from the start on, with its height.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Link)> {
        (self.start..).zip(self.chunks.iter().flat_map(|chunk| chunk.iter()).chain(&self.tail))
    }
}
