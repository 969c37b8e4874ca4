//! Which inbound connection makes room for another when all slots are taken, by merit, as Bitcoin Core's
//! `SelectNodeToEvict`. Pure.
//!
//! Protected, one after the other, are those that an attacker cannot easily be among: of groups of networks chosen by a
//! secret key, those that answer fastest, those that lately brought new transactions and blocks, and half of the rest,
//! those that have been there longest. What remains loses the youngest of its largest group. So whoever comes from few
//! groups pushes out only itself, and who fills the slots first does not keep them.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Of a hundred slots, how many are protected for a reason; of few slots one.
const BY_GROUP: usize = 4;
const BY_PING: usize = 8;
const BY_TRANSACTIONS: usize = 4;
const BY_BLOCKS: usize = 4;

/// What counts for and against a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate<Id> {
    /// Its name.
    pub(super) id: Id,
    /// Its group of networks, hashed under a secret key.
    pub(super) group: u64,
    /// When it began.
    pub(super) since: Instant,
    /// The shortest time of a message there and back.
    pub(super) ping: Option<Duration>,
    /// When it last was the first with a good transaction.
    pub(super) transaction: Option<Instant>,
    /// When it last was the first with a good block, vote or claim.
    pub(super) block: Option<Instant>,
}

/// Returns who makes room; nobody if all are protected, as when there are few.
pub(super) fn select<Id: Copy>(mut candidates: Vec<Candidate<Id>>) -> Option<Id> {
    let slots = candidates.len();
    let share = |of_hundred: usize| (slots * of_hundred).div_ceil(100);
    // Of equals, the oldest.
    protect(&mut candidates, share(BY_GROUP), |it| (Reverse(it.group), it.since));
    protect(&mut candidates, share(BY_PING), |it| (it.ping.unwrap_or(Duration::MAX), it.since));
    protect(&mut candidates, share(BY_TRANSACTIONS), |it| (Reverse(it.transaction), it.since));
    protect(&mut candidates, share(BY_BLOCKS), |it| (Reverse(it.block), it.since));
    let half = candidates.len().div_ceil(2);
    protect(&mut candidates, half, |it| it.since);

    let mut groups: HashMap<u64, (usize, Instant)> = HashMap::new();
    for candidate in &candidates {
        let (count, youngest) = groups.entry(candidate.group).or_insert((0, candidate.since));
        *count += 1;
        *youngest = candidate.since.max(*youngest);
    }
    let (largest, _) = groups.into_iter().max_by_key(|(_, rank)| *rank)?;
    let of_it = candidates.into_iter().filter(|candidate| candidate.group == largest);
    of_it.max_by_key(|candidate| candidate.since).map(|candidate| candidate.id)
}

/// Takes out the first `count` in the order of `rank`.
fn protect<Id, R: Ord>(candidates: &mut Vec<Candidate<Id>>, count: usize, rank: impl Fn(&Candidate<Id>) -> R) {
    candidates.sort_by_key(rank);
    candidates.drain(..count.min(candidates.len()));
}

#[cfg(test)]
mod tests;
