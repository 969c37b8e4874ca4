//! The end of the best chain as headers, shared without copying.

use std::collections::{HashMap, VecDeque};

use bitcoin::BlockHash;
use bitcoin::block::Header;
use causeway_chainspec::BitcoinHeight;

/// A run of linked headers from a bottom to the tip. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderWindow {
    bottom: u32,
    headers: VecDeque<(BlockHash, Header)>,
    heights: HashMap<BlockHash, u32>,
}

impl HeaderWindow {
    /// The window that holds one header.
    pub(super) fn new(height: BitcoinHeight, header: Header) -> HeaderWindow {
        let hash = header.block_hash();
        HeaderWindow {
            bottom: height.0,
            headers: VecDeque::from([(hash, header)]),
            heights: HashMap::from([(hash, height.0)]),
        }
    }

    /// Height and hash of the last header.
    pub fn tip(&self) -> (BitcoinHeight, BlockHash) {
        let (hash, _) = self.headers.back().expect("never empty");
        let above = u32::try_from(self.headers.len() - 1).expect("heights are 32 bits");
        (BitcoinHeight(self.bottom + above), *hash)
    }

    /// Height and hash of the first header.
    pub fn bottom(&self) -> (BitcoinHeight, BlockHash) {
        let (hash, _) = self.headers.front().expect("never empty");
        (BitcoinHeight(self.bottom), *hash)
    }

    /// How many headers there are, at least 1.
    pub fn count(&self) -> usize {
        self.headers.len()
    }

    fn get(&self, height: BitcoinHeight) -> Option<&(BlockHash, Header)> {
        self.headers.get(usize::try_from(height.0.checked_sub(self.bottom)?).ok()?)
    }

    /// The header at this height; `None` outside the window.
    pub fn header(&self, height: BitcoinHeight) -> Option<&Header> {
        self.get(height).map(|(_, header)| header)
    }

    /// The hash of the header at this height; `None` outside the window.
    pub fn hash(&self, height: BitcoinHeight) -> Option<BlockHash> {
        self.get(height).map(|(hash, _)| *hash)
    }

    /// The height of a header of the window; `None` if it is not in it.
    pub fn height_of(&self, hash: &BlockHash) -> Option<BitcoinHeight> {
        self.heights.get(hash).copied().map(BitcoinHeight)
    }

    /// The headers from this height on, in their order, with their heights; none above the tip.
    pub fn from(&self, height: BitcoinHeight) -> impl Iterator<Item = (BitcoinHeight, &Header)> {
        let first = height.0.max(self.bottom);
        let skipped = usize::try_from(first - self.bottom).unwrap_or(usize::MAX);
        self.headers.iter().skip(skipped).zip(first..).map(|((_, header), height)| (BitcoinHeight(height), header))
    }

    /// Adds the header above the tip. The caller checked that it links.
    pub(super) fn push(&mut self, header: Header) {
        let hash = header.block_hash();
        let height = self.tip().0.0 + 1;
        self.headers.push_back((hash, header));
        self.heights.insert(hash, height);
    }

    /// Removes the tip, unless it is the only header.
    pub(super) fn pop(&mut self) -> bool {
        if self.headers.len() == 1 {
            return false;
        }
        if let Some((hash, _)) = self.headers.pop_back() {
            self.heights.remove(&hash);
        }
        true
    }

    /// Adds the header below the bottom. The caller checked that it links and that the bottom is above 0.
    pub(super) fn push_below(&mut self, header: Header) {
        let hash = header.block_hash();
        self.bottom -= 1;
        self.headers.push_front((hash, header));
        self.heights.insert(hash, self.bottom);
    }

    /// Removes what is below `height`, but never the tip.
    pub(super) fn trim_below(&mut self, height: BitcoinHeight) {
        while self.bottom < height.0 && self.headers.len() > 1 {
            if let Some((hash, _)) = self.headers.pop_front() {
                self.heights.remove(&hash);
            }
            self.bottom += 1;
        }
    }
}
