//! The blocks that are proposed: which may be judged, and what is known of them.
//!
//! A body counts only after the engine accepted a proposal of its hash from the right proposer: without that, one node
//! that floods bodies slows the whole chain (DESIGN section 6). Bodies that come first wait, few and bounded, for their
//! proposal; some of them are of the next height. These are short ([`PUSHED_BYTES_MAX`](crate::wire::PUSHED_BYTES_MAX)): a
//! long one comes to whoever asks for it (`fetch`). What is admitted is bounded by the rounds of a height, as each round has
//! one proposer and the engine accepts one proposal of it.

mod announced;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bitcoin::BlockHash;
use bytes::Bytes;
use causeway_chainspec::Height;
use causeway_consensus::ConnectedBlock;
use causeway_consensus::bft::Address;
use libp2p::PeerId;

use super::event::{GossipId, Ticket};
use super::fetch::Fetches;
use announced::Announced;

/// Short bodies without a proposal. Whoever has most of them gives way. What comes from this node's own disk is not counted.
const WAITING_MAX: usize = 32;

/// Admitted bodies of a height whose bytes are kept. Older rounds give way to newer ones.
const ADMITTED_MAX: usize = 16;

/// The bodies of the height that is being decided, and of the next.
#[derive(Debug, Default)]
pub(super) struct Bodies {
    admitted: BTreeMap<BlockHash, Body>,
    /// The block of the height before, if it came as a proposal: whoever is late still asks for it.
    last: Option<(BlockHash, Body)>,
    /// By arrival.
    waiting: Vec<Waiting>,
    /// Whether a body had to give way in this height: one that is proposed may have been here, and not come again.
    crowded: bool,
    /// Who has which.
    pub(super) announced: Announced,
}

/// A block with an accepted proposal.
#[derive(Debug)]
pub(super) struct Body {
    /// The rounds in which it was proposed.
    pub(super) rounds: BTreeSet<u32>,
    /// Who proposed it first.
    pub(super) proposer: Address,
    pub(super) state: BodyState,
    /// Who was asked for it.
    pub(super) fetches: Fetches,
    /// How often it was sent to each peer that asked.
    pub(super) sent: BTreeMap<PeerId, u32>,
    /// Whether it is on disk.
    pub(super) kept: bool,
}

/// What is known of a block.
#[derive(Debug)]
pub(super) enum BodyState {
    /// Only its proposal.
    Missing,
    /// It is being judged by the rules. Whether what came `belongs` to the header is known first.
    Judging { ticket: Ticket, bytes: Bytes, source: Source, belongs: bool },
    /// Its round ended before there was a verdict. It is judged anew if it is proposed again, or decided after all.
    SetAside { bytes: Bytes, peer: Option<PeerId>, belongs: bool },
    /// It breaks no rule.
    Valid { bytes: Bytes, connected: Arc<ConnectedBlock>, told: Told },
    /// It breaks one.
    Invalid,
}

/// Whether the engine knows that a block is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// It does.
    Yes,
    /// Our own view speaks against it: nothing is said until the others have decided without us.
    Held,
}

/// Where a body came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) peer: Option<PeerId>,
    /// The gossip message that waits for the verdict.
    pub(super) gossip: Option<GossipId>,
}

/// What judges a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) ticket: Ticket,
    pub(super) source: Source,
}

/// A body whose proposal has not come.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) height: Height,
    pub(super) hash: BlockHash,
    /// What it stands on, as it says.
    pub(super) parent: BlockHash,
    pub(super) bytes: Bytes,
    pub(super) source: Source,
    /// Whether it is on disk: it comes from there.
    pub(super) kept: bool,
}

impl Bodies {
    /// Admits the block of an accepted proposal. Returns a body of it that was waiting, and what was being done about one
    /// that had to give way; never one that `may_be_decided`.
    pub(super) fn admit(
        &mut self,
        hash: BlockHash,
        round: u32,
        proposer: Address,
        may_be_decided: impl Fn(&BlockHash) -> bool,
    ) -> (Option<Waiting>, Option<Job>) {
        let waiting = self.waiting.iter().position(|waiting| waiting.hash == hash);
        let waiting = waiting.map(|index| self.waiting.remove(index));
        let full = !self.admitted.contains_key(&hash) && self.admitted.len() >= ADMITTED_MAX;
        let dropped = if full { self.forget_oldest(may_be_decided) } else { None };
        let body = self.admitted.entry(hash).or_insert_with(|| Body {
            rounds: BTreeSet::new(),
            proposer,
            state: BodyState::Missing,
            fetches: Fetches::default(),
            sent: BTreeMap::new(),
            kept: false,
        });
        body.rounds.insert(round);
        (waiting, dropped)
    }

    /// Forgets the block whose last round is the oldest. Returns its job if it is being judged.
    fn forget_oldest(&mut self, may_be_decided: impl Fn(&BlockHash) -> bool) -> Option<Job> {
        let open = self.admitted.iter().filter(|(hash, _)| !may_be_decided(hash));
        let oldest = open.min_by_key(|(_, body)| body.rounds.last().copied()).map(|(hash, _)| *hash);
        match self.admitted.remove(&oldest?)?.state {
            BodyState::Judging { ticket, source, .. } => Some(Job { ticket, source }),
            BodyState::Missing | BodyState::SetAside { .. } | BodyState::Valid { .. } | BodyState::Invalid => None,
        }
    }

    /// Sets aside what is being judged and `is_over`. Returns the jobs.
    pub(super) fn set_aside(&mut self, is_over: impl Fn(&BlockHash) -> bool) -> Vec<Job> {
        let mut jobs = Vec::new();
        for (hash, body) in &mut self.admitted {
            if let BodyState::Judging { ticket, bytes, source, belongs } = &body.state
                && is_over(hash)
            {
                jobs.push(Job { ticket: *ticket, source: *source });
                body.state = BodyState::SetAside { bytes: bytes.clone(), peer: source.peer, belongs: *belongs };
            }
        }
        jobs
    }

    /// The blocks that are being judged.
    pub(super) fn judging(&self) -> Vec<BlockHash> {
        let judging = |body: &&Body| matches!(body.state, BodyState::Judging { .. });
        self.admitted.iter().filter(|(_, body)| judging(body)).map(|(hash, _)| *hash).collect()
    }

    /// The blocks, and their bytes, that were proposed in a round by a validator.
    pub(super) fn proposed(&self, by: Address, round: u32) -> impl Iterator<Item = (BlockHash, usize)> {
        let of_round = move |body: &Body| body.proposer == by && body.rounds.contains(&round);
        let proposed = self.admitted.iter().filter(move |(_, body)| of_round(body));
        proposed.filter_map(|(hash, body)| Some((*hash, body.len()?)))
    }

    /// The blocks that were set aside.
    pub(super) fn aside(&self) -> Vec<BlockHash> {
        let aside = |body: &&Body| matches!(body.state, BodyState::SetAside { .. });
        self.admitted.iter().filter(|(_, body)| aside(body)).map(|(hash, _)| *hash).collect()
    }

    pub(super) fn get(&self, hash: &BlockHash) -> Option<&Body> {
        self.admitted.get(hash)
    }

    pub(super) fn get_mut(&mut self, hash: &BlockHash) -> Option<&mut Body> {
        self.admitted.get_mut(hash)
    }

    /// A block that a peer asks for: a proposed one, or the last of these that became final.
    pub(super) fn asked_for(&mut self, hash: &BlockHash) -> Option<&mut Body> {
        let last = self.last.as_mut().filter(|(last, _)| last == hash).map(|(_, body)| body);
        self.admitted.get_mut(hash).or(last)
    }

    /// A block of which only the proposal is here, and who has announced it.
    pub(super) fn missing(&mut self, hash: &BlockHash) -> Option<(&mut Body, &Announced)> {
        let body = self.admitted.get_mut(hash).filter(|body| matches!(body.state, BodyState::Missing))?;
        Some((body, &self.announced))
    }

    /// Whether a block is on its way here, and not late.
    pub(super) fn are_awaited(&self) -> bool {
        let missing = self.admitted.values().filter(|body| matches!(body.state, BodyState::Missing));
        missing.filter_map(|body| body.fetches.awaited()).next().is_some()
    }

    /// The block that a job judges.
    pub(super) fn by_ticket(&self, ticket: Ticket) -> Option<BlockHash> {
        let of_job = |body: &Body| matches!(body.state, BodyState::Judging { ticket: job, .. } if job == ticket);
        self.admitted.iter().find(|(_, body)| of_job(body)).map(|(hash, _)| *hash)
    }

    /// Who first proposed a block like that in a round before this one, if somebody did. Whether a block is like that is
    /// known of those that break no rule.
    pub(super) fn proposed_before(
        &self,
        round: u32,
        is_like_that: impl Fn(&ConnectedBlock) -> bool,
    ) -> Option<Address> {
        let like_that = |body: &&Body| match &body.state {
            BodyState::Valid { connected, .. } => is_like_that(connected),
            BodyState::Missing | BodyState::Judging { .. } | BodyState::SetAside { .. } | BodyState::Invalid => false,
        };
        let before = self.admitted.values().filter(|body| body.rounds.first().is_some_and(|first| *first < round));
        before.filter(like_that).min_by_key(|body| body.rounds.first().copied()).map(|body| body.proposer)
    }

    /// The blocks whose verdict is held back.
    pub(super) fn held(&self) -> Vec<BlockHash> {
        let held = |body: &&Body| matches!(body.state, BodyState::Valid { told: Told::Held, .. });
        self.admitted.iter().filter(|(_, body)| held(body)).map(|(hash, _)| *hash).collect()
    }

    /// Keeps a body for a proposal that may come. Gives back the sources of bodies that have no room.
    pub(super) fn wait(&mut self, new: Waiting) -> Vec<Source> {
        if self.waiting.iter().any(|waiting| waiting.hash == new.hash) {
            return vec![new.source];
        }
        self.waiting.push(new);
        let mut dropped = Vec::new();
        let peer = |waiting: &Waiting| waiting.source.peer;
        while self.waiting.iter().filter(|waiting| peer(waiting).is_some()).count() > WAITING_MAX {
            let count =
                |index: &usize| self.waiting.iter().filter(|it| peer(it) == peer(&self.waiting[*index])).count();
            // Of whoever has most, the oldest: a flood may come through a peer that also passes on what is proposed, and the
            // gossip layer shows nothing twice.
            let of_peers = (0..self.waiting.len()).rev().filter(|index| peer(&self.waiting[*index]).is_some());
            let Some(index) = of_peers.max_by_key(count) else { break };
            dropped.push(self.waiting.remove(index).source);
            self.crowded = true;
        }
        dropped
    }

    /// A body is not kept.
    pub(super) fn turn_away(&mut self) {
        self.crowded = true;
    }

    /// Whether a body had to give way in this height.
    pub(super) fn is_crowded(&self) -> bool {
        self.crowded
    }

    fn waiting_bytes(&self) -> usize {
        self.waiting.iter().map(|waiting| waiting.bytes.len()).sum()
    }

    /// Leaves only what may stand on the new tip, or above; nothing is being judged. Returns the sources of bodies that
    /// waited in vain.
    pub(super) fn start(&mut self, next: Height, tip: BlockHash) -> Vec<Source> {
        self.crowded = false;
        self.last = self.admitted.remove_entry(&tip);
        self.admitted.clear();
        self.announced.start(next);
        let mut sources = Vec::new();
        self.waiting.retain(|waiting| {
            let stays = waiting.height > next || waiting.height == next && waiting.parent == tip;
            if !stays {
                sources.push(waiting.source);
            }
            stays
        });
        sources
    }

    /// Bytes in memory.
    pub(super) fn memory(&self) -> usize {
        let admitted = self.admitted.values().map(|body| match &body.state {
            BodyState::Judging { bytes, .. } | BodyState::SetAside { bytes, .. } | BodyState::Valid { bytes, .. } => {
                bytes.len()
            }
            BodyState::Missing | BodyState::Invalid => 0,
        });
        let last = self.last.as_ref().and_then(|(_, body)| body.len()).unwrap_or(0);
        admitted.sum::<usize>() + self.waiting_bytes() + last
    }
}

impl Body {
    /// The bytes for others, once they are known to be those of the header: before that whoever passes them on is to blame.
    pub(super) fn bytes(&self) -> Option<&Bytes> {
        match &self.state {
            BodyState::Valid { bytes, .. }
            | BodyState::Judging { bytes, belongs: true, .. }
            | BodyState::SetAside { bytes, belongs: true, .. } => Some(bytes),
            BodyState::Missing | BodyState::Judging { .. } | BodyState::SetAside { .. } | BodyState::Invalid => None,
        }
    }

    /// How many bytes it has, once that is known for certain.
    pub(super) fn len(&self) -> Option<usize> {
        self.bytes().map(Bytes::len)
    }
}
