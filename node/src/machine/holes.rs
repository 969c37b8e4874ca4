//! Final blocks that this node's disk has lost: asked of one peer after the other, and put back only with their proof.
//!
//! One at a time: they are few, and nobody waits for them. A peer that has not got one is asked for another later: it may
//! have lost it too. One that sends something else answers for it as in sync.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use causeway_chainspec::{Height, LAST_DERIVED_HEIGHT};
use causeway_consensus::bft::CommitCertificate;
use libp2p::PeerId;

use super::action::Action;
use super::event::{Filled, Now, RequestFailure, Ticket};
use super::jobs::{FillJob, Proof};
use super::report::Offence;
use super::{Asked, Node};
use crate::wire::{FinalBlock, Request, Response};

/// What is missing, and how far it is.
#[derive(Debug, Default)]
pub(super) struct Holes {
    wanted: BTreeSet<Height>,
    busy: Option<Busy>,
    /// Who could not send the block that is wanted next.
    failed: BTreeSet<PeerId>,
}

#[derive(Debug)]
enum Busy {
    Asked,
    Filling { ticket: Ticket, peer: PeerId, height: Height },
}

impl Node {
    /// The disk lacks these blocks.
    pub(super) fn found_holes(&mut self, heights: Vec<Height>) {
        let tip = self.tip.height();
        self.holes.wanted = heights.into_iter().filter(|it| *it > LAST_DERIVED_HEIGHT && *it <= tip).collect();
        self.fetch_hole();
    }

    /// Asks a peer for the lowest of them.
    fn fetch_hole(&mut self) {
        let Some(height) = self.holes.wanted.first().copied().filter(|_| self.holes.busy.is_none()) else { return };
        let has = |peer: &&PeerId| self.peers.height(peer).is_some_and(|tip| tip >= height);
        let can = self.peers.iter().filter(has).filter(|peer| !self.holes.failed.contains(peer));
        let Some(peer) = can.min_by_key(|peer| Reverse(self.peers.score(peer))).copied() else {
            // All over again with the next event.
            return self.holes.failed.clear();
        };
        self.holes.busy = Some(Busy::Asked);
        self.request(peer, Asked::Hole { height }, Request::Blocks { from: height, count: 1 });
    }

    /// A peer has answered, or does not.
    pub(super) fn hole_answered(
        &mut self,
        now: Now,
        peer: PeerId,
        height: Height,
        result: Result<Response, RequestFailure>,
    ) {
        self.holes.busy = None;
        let offence = match result {
            Ok(Response::Blocks(blocks)) => match <[FinalBlock; 1]>::try_from(blocks) {
                Ok([block]) => match CommitCertificate::decode(&block.certificate) {
                    Ok(certificate) => return self.fill_hole(peer, height, block, certificate),
                    Err(_) => Some(Offence::LyingSync),
                },
                Err(none) if none.is_empty() => None,
                Err(_) => Some(Offence::LyingSync),
            },
            Ok(_) | Err(RequestFailure::Malformed) => Some(Offence::Malformed),
            Err(RequestFailure::Timeout) => Some(Offence::Stalled),
            Err(RequestFailure::Disconnected | RequestFailure::Refused) => None,
        };
        self.hole_not_filled(now, peer, offence);
    }

    fn fill_hole(&mut self, peer: PeerId, height: Height, block: FinalBlock, certificate: CommitCertificate) {
        let ticket = self.ticket();
        self.holes.busy = Some(Busy::Filling { ticket, peer, height });
        // Every height has the validators of the chainspec.
        let proof = Proof { certificate, chain: self.chain, set: self.set.clone(), height };
        self.actions.push(Action::Fill { ticket, job: FillJob { block, proof } });
    }

    fn hole_not_filled(&mut self, now: Now, peer: PeerId, offence: Option<Offence>) {
        self.holes.failed.insert(peer);
        if let Some(offence) = offence {
            self.punish(now, peer, offence);
        }
        self.fetch_hole();
    }

    /// What came was put back, or is something else.
    pub(super) fn filled(&mut self, now: Now, ticket: Ticket, filled: Filled) {
        let is_job = |busy: &mut Busy| matches!(busy, Busy::Filling { ticket: job, .. } if *job == ticket);
        let Some(Busy::Filling { peer, height, .. }) = self.holes.busy.take_if(is_job) else { return };
        match filled {
            Filled::Whole => {
                self.holes.wanted.remove(&height);
                self.holes.failed.clear();
                self.fetch_hole();
            }
            Filled::Unproven => self.hole_not_filled(now, peer, Some(Offence::LyingSync)),
            // It is proven, so the peer is not to blame: another block of this height is final too.
            Filled::Another => self.hole_not_filled(now, peer, None),
        }
    }
}

#[cfg(test)]
mod tests;
