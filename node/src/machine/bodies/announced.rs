//! Which peers say that they have which proposed blocks.

use std::collections::{BTreeMap, VecDeque};

use bitcoin::BlockHash;
use causeway_chainspec::Height;
use libp2p::PeerId;

/// Blocks that one peer may say to have, of this height and the next: there is one for each round. Further ones take the
/// place of its oldest, so that nobody can push out what another says.
const BY_PEER: usize = 8;

/// What peers say that they have. Bounded by the peers.
#[derive(Debug, Default)]
pub(in crate::machine) struct Announced {
    by_peer: BTreeMap<PeerId, VecDeque<Announcement>>,
}

#[derive(Clone, Copy, Debug)]
struct Announcement {
    height: Height,
    hash: BlockHash,
    bytes: u32,
}

impl Announced {
    /// Takes note of a block that a peer has. Returns whether that is news, and no more than a peer needs to say.
    pub(in crate::machine) fn hear(&mut self, peer: PeerId, height: Height, hash: BlockHash, bytes: u32) -> bool {
        let of_peer = self.by_peer.entry(peer).or_default();
        if of_peer.iter().any(|known| known.hash == hash) {
            return false;
        }
        let is_full = of_peer.len() >= BY_PEER;
        if is_full {
            of_peer.pop_front();
        }
        of_peer.push_back(Announcement { height, hash, bytes });
        !is_full
    }

    /// How long a peer says that a block is, if it says that it has it.
    pub(in crate::machine) fn bytes(&self, peer: &PeerId, hash: &BlockHash) -> Option<u32> {
        let of_peer = self.by_peer.get(peer)?;
        of_peer.iter().find(|known| known.hash == *hash).map(|known| known.bytes)
    }

    /// The least that anybody says that a block has in bytes.
    pub(in crate::machine) fn least(&self, hash: &BlockHash) -> Option<u32> {
        let known = self.by_peer.values().flatten().filter(|known| known.hash == *hash);
        known.map(|known| known.bytes).min()
    }

    /// Forgets what a peer said that is gone.
    pub(in crate::machine) fn forget(&mut self, peer: &PeerId) {
        self.by_peer.remove(peer);
    }

    /// Forgets what is below a height.
    pub(in crate::machine) fn start(&mut self, next: Height) {
        self.by_peer.retain(|_, of_peer| {
            of_peer.retain(|known| known.height >= next);
            !of_peer.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;

    use super::*;

    fn block(fill: u8) -> BlockHash {
        BlockHash::from_byte_array([fill; 32])
    }

    #[test]
    fn a_peer_that_says_too_much_pushes_out_only_what_it_said_itself() {
        let (honest, liar) = (PeerId::random(), PeerId::random());
        let mut announced = Announced::default();
        assert!(announced.hear(honest, Height(5), block(0), 100));
        assert!(!announced.hear(honest, Height(5), block(0), 200), "known");
        let news = (1..=100).filter(|fill| announced.hear(liar, Height(5), block(*fill), 9)).count();
        assert_eq!(news, BY_PEER);
        assert_eq!(announced.by_peer[&liar].len(), BY_PEER);
        assert_eq!(announced.bytes(&honest, &block(0)), Some(100));
        assert_eq!(announced.bytes(&liar, &block(0)), None);
        assert_eq!(announced.bytes(&liar, &block(100)), Some(9));
    }

    #[test]
    fn what_is_final_is_forgotten_and_the_next_height_is_not() {
        let peer = PeerId::random();
        let mut announced = Announced::default();
        announced.hear(peer, Height(5), block(5), 1);
        announced.hear(peer, Height(6), block(6), 1);
        announced.start(Height(6));
        assert_eq!((announced.bytes(&peer, &block(5)), announced.bytes(&peer, &block(6))), (None, Some(1)));
        announced.start(Height(7));
        assert!(announced.by_peer.is_empty());
    }
}
