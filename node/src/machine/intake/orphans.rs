//! Transactions that wait for a parent. Bounded in all and for each peer, so that nobody's crowd out another's.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::{Transaction, Txid};
use libp2p::PeerId;

/// Orphans, the most bytes of one, and how long they stay.
const ORPHANS_MAX: usize = 128;
pub(super) const ORPHAN_BYTES_MAX: usize = 100_000;
pub(super) const ORPHAN_FOR: Duration = Duration::from_secs(60);

/// Orphans that one peer sent: 1.6 MB of the 12.8 MB that all take at most.
const ORPHANS_PER_PEER: usize = 16;

/// A transaction whose parent is not known.
#[derive(Debug)]
pub(super) struct Orphan {
    /// The transaction.
    pub(super) transaction: Arc<Transaction>,
    /// Who sent it.
    pub(super) peer: PeerId,
    missing: Txid,
    until: Duration,
}

/// The orphans, by arrival.
#[derive(Debug, Default)]
pub(super) struct Orphans(VecDeque<Orphan>);

impl Orphans {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keeps a transaction of a peer until its parent comes, or a minute has passed. A peer that has as many as it may
    /// loses its oldest; when all have as many as there may be, the peer with most does.
    pub(super) fn keep(&mut self, uptime: Duration, peer: PeerId, transaction: Arc<Transaction>, missing: Txid) {
        if transaction.total_size() > ORPHAN_BYTES_MAX {
            return;
        }
        self.0.retain(|orphan| orphan.until > uptime);
        let mut counts: BTreeMap<PeerId, usize> = BTreeMap::new();
        self.0.iter().for_each(|orphan| *counts.entry(orphan.peer).or_default() += 1);
        let own = counts.get(&peer).copied().unwrap_or(0);
        let most = counts.into_iter().max_by_key(|(_, count)| *count);
        let loser = match most {
            _ if own >= ORPHANS_PER_PEER => Some(peer),
            Some((most, _)) if self.0.len() >= ORPHANS_MAX => Some(most),
            _ => None,
        };
        if let Some(oldest) = loser.and_then(|loser| self.0.iter().position(|orphan| orphan.peer == loser)) {
            self.0.remove(oldest);
        }
        self.0.push_back(Orphan { transaction, peer, missing, until: uptime + ORPHAN_FOR });
    }

    /// Takes out the newest whose missing parent is this one.
    pub(super) fn take_newest(&mut self, parent: &Txid) -> Option<Orphan> {
        let place = self.0.iter().rposition(|orphan| orphan.missing == *parent)?;
        self.0.remove(place)
    }

    /// Takes out those whose missing parent is here.
    pub(super) fn take(&mut self, is_here: impl Fn(&Txid) -> bool) -> Vec<Orphan> {
        let (children, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.0).into_iter().partition(|orphan| is_here(&orphan.missing));
        self.0 = rest.into();
        children
    }
}

#[cfg(test)]
mod tests;
