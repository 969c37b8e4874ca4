//! Where wallets are in a history that they read page by page.
//!
//! A wallet asks for the page after the last transaction that it has seen. If that one was in the mempool, and a block has
//! taken it since, the block may hold others of the script below it in the answer and above it in the block, which the
//! wallet would never see: then it gets the first page of the chain. Seeing one twice does no harm.

use bitcoin::Txid;
use causeway_consensus::state::ScriptId;
use quick_cache::sync::Cache;

/// Wallets in the middle of a history that are remembered, some 100 bytes each.
const REMEMBERED: usize = 10_000;

/// Wallets that are remembered at one and the same place: others read the first page of the chain again and again.
const MAX_WALLETS: u32 = 8;

/// Which histories ended, for some wallet, with which transaction of the mempool.
pub(super) struct Trail {
    wallets: Cache<(ScriptId, Txid), u32>,
}

impl Trail {
    pub(super) fn new() -> Self {
        Self { wallets: Cache::new(REMEMBERED) }
    }

    /// A wallet has seen the mempool's part of a history up to a transaction, and nothing of the chain's.
    pub(super) fn leave(&self, id: ScriptId, last: Txid) {
        let wallets = self.wallets.get(&(id, last)).unwrap_or(0);
        self.wallets.insert((id, last), (wallets + 1).min(MAX_WALLETS));
    }

    /// Whether a wallet that asks for what comes after a transaction has seen it in the mempool. Each is told so once, so
    /// that all come to an end.
    pub(super) fn take(&self, id: ScriptId, last: Txid) -> bool {
        match self.wallets.get(&(id, last)) {
            None => false,
            Some(..=1) => {
                self.wallets.remove(&(id, last));
                true
            }
            Some(wallets) => {
                self.wallets.insert((id, last), wallets - 1);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::ScriptBuf;
    use bitcoin::hashes::Hash;

    #[test]
    fn each_wallet_is_told_once() {
        let trail = Trail::new();
        let (id, txid) = (ScriptId::of(&ScriptBuf::new()), Txid::all_zeros());
        assert!(!trail.take(id, txid));
        for _ in 0..100 {
            trail.leave(id, txid);
        }
        assert!(!trail.take(ScriptId::of(&ScriptBuf::from_bytes(vec![0x51])), txid));
        let told = (0..100).filter(|_| trail.take(id, txid)).count();
        assert_eq!(told, MAX_WALLETS as usize);
        trail.leave(id, txid);
        assert_eq!([trail.take(id, txid), trail.take(id, txid)], [true, false]);
    }
}
