//! Where the checks are made: what no honest host may ever say or commit, whatever happens to it.
//!
//! They see what leaves a host and what it has on disk, and nothing of what a node thinks.

mod relay;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use bytes::Bytes;
use causeway_chainspec::{ChainId, Height, LAST_DERIVED_HEIGHT, Params};
use causeway_consensus::bft::signer::{Position, SignStep};
use causeway_consensus::bft::{
    Address, CommitCertificate, Equivocation, LogEntry, Message, SignedTipStatement, SignedVote, ToSign, ValidatorSet,
    VoteType,
};
use causeway_consensus::{ChainView, ConnectedBlock};
use causeway_node::machine::blocks::CLOCK_AHEAD_MAX;
use causeway_node::machine::jobs::ValidateJob;
use causeway_node::machine::{Event, Offence, Verdict};
use causeway_node::wire::{Topic, decode_consensus};

use super::byzantine::pushed;
use super::check::{Check, Violation};
use super::host::{Host, Life};
use super::schedule::Schedule;
use crate::chain::MemoryChain;

/// Violations of a check that are kept.
const KEPT: usize = 3;

/// Votes of a round: who prevoted a block.
type Votes = BTreeMap<(Height, u32, BlockHash), BTreeSet<Address>>;

/// What was seen of a run.
pub(super) struct Watch {
    seed: u64,
    chain: ChainId,
    schedule: Arc<Schedule>,
    sets: BTreeMap<Height, Arc<ValidatorSet>>,
    honest: BTreeSet<usize>,
    /// A chain of our own.
    reference: MemoryChain,
    params: Params,
    committed: BTreeMap<Height, BlockHash>,
    /// Digests of what honest validators signed.
    signed: BTreeMap<(Address, Position), [u8; 32]>,
    /// Where messages stand that reached an honest validator.
    reached: BTreeSet<(Address, Position)>,
    prevotes: Votes,
    precommits: Votes,
    /// The last precommit for a block of each honest validator in a height.
    locks: BTreeMap<(Address, Height), (u32, BlockHash)>,
    /// Blocks that a proposer of their round has proposed, and the last such round.
    proposed: BTreeMap<(Height, BlockHash), u32>,
    /// Times of blocks that were on the wire.
    times: BTreeMap<BlockHash, u32>,
    /// Blocks and transactions that each host knows to be valid.
    valid: BTreeMap<usize, BTreeSet<BlockHash>>,
    /// Messages whose signatures are right.
    signatures: BTreeMap<Vec<u8>, bool>,
    /// Certificates that a host sent on in a height, by whom they came from.
    certificates: BTreeMap<(Height, usize, usize), usize>,
    /// When each host last committed.
    since: BTreeMap<usize, Duration>,
    /// Bytes of the longest body that was on the wire.
    longest_body: usize,
    trace: u64,
    violations: Vec<Violation>,
}

impl Watch {
    pub(super) fn new(
        seed: u64,
        chain: ChainId,
        schedule: Arc<Schedule>,
        honest: BTreeSet<usize>,
        reference: MemoryChain,
        params: Params,
    ) -> Self {
        Self {
            seed,
            chain,
            schedule,
            sets: BTreeMap::new(),
            honest,
            reference,
            params,
            committed: BTreeMap::new(),
            signed: BTreeMap::new(),
            reached: BTreeSet::new(),
            prevotes: Votes::new(),
            precommits: Votes::new(),
            locks: BTreeMap::new(),
            proposed: BTreeMap::new(),
            times: BTreeMap::new(),
            valid: BTreeMap::new(),
            signatures: BTreeMap::new(),
            certificates: BTreeMap::new(),
            since: BTreeMap::new(),
            // One that was assembled and not sent yet is about as long as an empty block.
            longest_body: 1_000,
            trace: 0xcbf2_9ce4_8422_2325,
            violations: Vec::new(),
        }
    }

    pub(super) fn fail(&mut self, at: Duration, check: Check, what: String) {
        if self.violations.iter().filter(|violation| violation.check == check).count() < KEPT {
            self.violations.push(Violation { check, seed: self.seed, at, what });
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        !self.violations.is_empty()
    }

    /// Whether there are two chains: then there is no more to see.
    pub(super) fn has_forked(&self) -> bool {
        self.violations.iter().any(|violation| violation.check == Check::Agreement)
    }

    pub(super) fn into_violations(self) -> Vec<Violation> {
        self.violations
    }

    pub(super) fn trace(&self) -> u64 {
        self.trace
    }

    /// The highest height that an honest host has committed.
    pub(super) fn height(&self) -> Height {
        self.reference.tip().height()
    }

    /// Mixes something into the trace.
    pub(super) fn note(&mut self, at: Duration, host: usize, bytes: &[u8]) {
        let head = [&at.as_nanos().to_le_bytes()[..8], &host.to_le_bytes()[..]].concat();
        for byte in head.iter().chain(bytes) {
            self.trace = (self.trace ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn set(&mut self, height: Height) -> Arc<ValidatorSet> {
        let schedule = &self.schedule;
        Arc::clone(self.sets.entry(height).or_insert_with(|| Arc::new(schedule.set(height))))
    }

    /// A host's jobs, between two events: none for a block that nobody votes for any more because of its proposal.
    pub(super) fn jobs(&mut self, now: Duration, index: usize, life: &Life) {
        let status = life.node.status();
        for (height, block) in life.judging.values() {
            let last = self.proposed.get(&(*height, *block));
            let past = last.is_some_and(|last| *last < status.round) && !self.has_polka(*height, *block);
            if *height <= status.height || past {
                let (tip, round) = (status.height, status.round);
                let what = format!("host {index} judges {block} of height {height} on tip {tip} in round {round}");
                self.fail(now, Check::StaleJobs, what);
            }
        }
    }

    /// Something that anybody put on the wire.
    pub(super) fn wire(&mut self, topic: Topic, bytes: &Bytes) {
        match topic {
            Topic::Consensus => {
                let content = decode_consensus(bytes).ok();
                match content.and_then(|content| Message::decode(content).ok()) {
                    Some(Message::Vote(vote)) => self.wire_vote(&vote),
                    Some(Message::Proposal(signed)) => {
                        let proposal = &signed.message;
                        let (height, round) = (proposal.height(), proposal.round().unwrap_or(0));
                        if height <= LAST_DERIVED_HEIGHT {
                            return;
                        }
                        let set = self.set(height);
                        let proposer = set.proposer(self.chain, height, round);
                        let digest = proposal.digest(self.chain);
                        if proposer.address() == proposal.proposer()
                            && signed.signature.verifies(&digest, proposer.key())
                        {
                            let last = self.proposed.entry((height, proposal.block())).or_insert(round);
                            *last = round.max(*last);
                        }
                    }
                    _ => {}
                }
            }
            Topic::Bodies => {
                if let Some((_, block)) = pushed(bytes) {
                    self.body(&block);
                }
            }
            Topic::Transactions | Topic::Claims => {}
        }
    }

    /// Somebody sends a proposed block, in whatever way.
    pub(super) fn body(&mut self, block: &[u8]) {
        self.longest_body = self.longest_body.max(block.len());
        if let Some(header) = block.get(..Header::SIZE) {
            let time = u32::from_le_bytes(header[68..72].try_into().expect("four bytes"));
            self.times.insert(BlockHash::hash(header), time);
        }
    }

    fn wire_vote(&mut self, signed: &SignedVote) {
        let vote = &signed.message;
        let (Some(round), Some(block)) = (vote.round(), vote.block()) else { return };
        let height = vote.height();
        if height <= LAST_DERIVED_HEIGHT || height.to_u32() > self.height().to_u32() + 3 {
            return;
        }
        let set = self.set(height);
        let known = set.get(&vote.validator());
        if known.is_some_and(|member| signed.signature.verifies(&vote.digest(self.chain), member.key())) {
            let votes = if vote.kind() == VoteType::Prevote { &mut self.prevotes } else { &mut self.precommits };
            votes.entry((height, round, block)).or_default().insert(vote.validator());
        }
    }

    fn is_quorum(set: &ValidatorSet, voters: &BTreeSet<Address>) -> bool {
        set.is_quorum(voters.iter().filter_map(|voter| set.get(voter)).map(|member| member.power()).sum())
    }

    /// Whether two thirds prevoted a block in one of these rounds.
    fn polka(&self, set: &ValidatorSet, height: Height, block: BlockHash, rounds: Range<u32>) -> bool {
        let from = (height, rounds.start, BlockHash::all_zeros());
        let voted = self.prevotes.range(from..(height, rounds.end, BlockHash::all_zeros()));
        voted.filter(|((_, _, of), _)| *of == block).any(|(_, voters)| Self::is_quorum(set, voters))
    }

    /// Whether two thirds have prevoted or precommitted a block, as far as anybody has said.
    pub(super) fn has_polka(&self, height: Height, block: BlockHash) -> bool {
        let set = self.schedule.set(height);
        self.polka(&set, height, block, 0..u32::MAX) || self.precommitted(&set, height, block)
    }

    /// The chain of the honest hosts.
    pub(super) fn reference(&mut self) -> &mut MemoryChain {
        &mut self.reference
    }

    fn precommitted(&self, set: &ValidatorSet, height: Height, block: BlockHash) -> bool {
        let from = (height, 0, BlockHash::all_zeros());
        let voted = self.precommits.range(from..).take_while(|((of, _, _), _)| *of == height);
        voted.filter(|((_, _, of), _)| *of == block).any(|(_, voters)| Self::is_quorum(set, voters))
    }

    /// A message of the consensus topic has come to an honest validator.
    pub(super) fn reached(&mut self, bytes: &[u8]) {
        let message = decode_consensus(bytes).ok().and_then(|content| Message::decode(content).ok());
        let Some(message) = message else { return };
        self.reached.extend(message.signer().zip(message.position()));
    }

    /// A validator's disk was put back to an old copy: what it has signed and nobody has received, nobody can tell it.
    pub(super) fn restored(&mut self, validator: Option<Address>) {
        let Some(validator) = validator else { return };
        let reached = &self.reached;
        self.signed.retain(|at, _| at.0 != validator || reached.contains(at));
        self.locks.retain(|(by, height), (round, _)| {
            let at = Position { height: *height, round: *round, step: SignStep::Precommit };
            *by != validator || reached.contains(&(*by, at))
        });
    }

    /// What an honest host publishes on the consensus topic.
    pub(super) fn published(&mut self, now: Duration, index: usize, host: &Host, unix: Duration, bytes: &[u8]) {
        let message = decode_consensus(bytes).ok().and_then(|content| Message::decode(content).ok());
        let Some(message) = message else {
            if decode_consensus(bytes).is_ok_and(|content| SignedTipStatement::decode(content).is_ok()) {
                return;
            }
            return self.fail(now, Check::RelayAfterCheck, format!("host {index} publishes what is no message"));
        };
        let (to_sign, entry) = match &message {
            Message::Vote(vote) => (ToSign::vote(self.chain, &vote.message), 6),
            Message::Proposal(proposal) => (ToSign::proposal(self.chain, &proposal.message), 7),
            Message::Polka(_) | Message::Round(_) => return,
        };
        if message.signer() != host.address {
            return;
        }
        let (Some(to_sign), Some(address)) = (to_sign, host.address) else { return };
        let position = to_sign.position();
        let first = *self.signed.entry((address, position)).or_insert(*to_sign.digest());
        if first != *to_sign.digest() {
            self.fail(now, Check::NoEquivocation, format!("host {index} signed two messages: {position}"));
        }
        self.written(now, index, host, &message, position, entry);
        match &message {
            Message::Vote(vote) => self.voted(now, index, host, unix, vote),
            Message::Proposal(proposal) => {
                let set = self.set(position.height);
                if set.proposer(self.chain, position.height, position.round).address() != proposal.message.proposer() {
                    self.fail(now, Check::Turn, format!("host {index} proposes out of turn: {position}"));
                }
                let block = proposal.message.block();
                if !host.disk.has_body(position.height, block) && position.height > host.height() {
                    self.fail(now, Check::BodyBeforeVote, format!("host {index} proposes a block that is not on disk"));
                }
            }
            Message::Polka(_) | Message::Round(_) => {}
        }
    }

    fn written(&mut self, now: Duration, index: usize, host: &Host, message: &Message, position: Position, kind: u8) {
        let mark = host.address.and_then(|address| host.disk.mark(self.chain, address).position());
        if mark.is_none_or(|mark| mark < position) {
            self.fail(now, Check::WrittenBeforeSent, format!("host {index}: the mark is below the {position}"));
        }
        let mut entry = message.encode();
        entry[0] = kind;
        debug_assert!(LogEntry::decode(&entry).is_ok());
        if position.height > host.height() && !host.lost_log && !host.disk.has_entry(position.height, &entry) {
            self.fail(now, Check::WrittenBeforeSent, format!("host {index}: the log has no {position}"));
        }
    }

    /// A vote of an honest validator.
    fn voted(&mut self, now: Duration, index: usize, host: &Host, unix: Duration, signed: &SignedVote) {
        let vote = &signed.message;
        let (Some(round), Some(block)) = (vote.round(), vote.block()) else { return };
        let (height, address) = (vote.height(), vote.validator());
        let set = self.set(height);
        let kind = if vote.kind() == VoteType::Prevote { "prevotes" } else { "precommits" };
        let what = || format!("host {index} {kind} {block} in height {height}, round {round}");
        if !self.valid.get(&index).is_some_and(|valid| valid.contains(&block)) {
            self.fail(now, Check::VoteAfterVerdict, format!("{} without a verdict", what()));
        }
        if height > host.height() && !host.lost_log && !host.disk.has_body(height, block) {
            self.fail(now, Check::BodyBeforeVote, format!("{}, which is not on disk", what()));
        }
        if vote.kind() == VoteType::Precommit {
            // Its own prevote may be what makes it, and be sent right after.
            let mut voters = self.prevotes.get(&(height, round, block)).cloned().unwrap_or_default();
            voters.insert(address);
            if !Self::is_quorum(&set, &voters) {
                self.fail(now, Check::Polka, format!("{} without a polka", what()));
            }
            let lock = self.locks.entry((address, height)).or_insert((round, block));
            if round >= lock.0 {
                *lock = (round, block);
            }
            return;
        }
        if let Some((locked, other)) = self.locks.get(&(address, height)).copied()
            && other != block
            && round > locked
            && !host.lost_log
            && !self.polka(&set, height, block, locked..round)
        {
            self.fail(now, Check::Lock, format!("{}, precommitted {other} in round {locked}", what()));
        }
        let ahead = self.times.get(&block).map(|time| Duration::from_secs((*time).into()).saturating_sub(unix));
        // A vote that is sent again was right by another clock.
        if !host.jumping_clock
            && ahead.is_some_and(|ahead| ahead > CLOCK_AHEAD_MAX)
            && !self.polka(&set, height, block, 0..u32::MAX)
            && !self.precommitted(&set, height, block)
        {
            self.fail(now, Check::Hold, format!("{}, which is {ahead:?} ahead of its clock", what()));
        }
    }

    /// Something that a node is told.
    pub(super) fn told(&mut self, index: usize, event: &Event) {
        if let Event::Validated { verdict: Verdict::Valid { connected, .. }, .. }
        | Event::Assembled { verdict: Verdict::Valid { connected, .. }, .. } = event
        {
            self.valid.entry(index).or_default().insert(connected.tip().hash());
        }
    }

    /// A node has a block judged.
    pub(super) fn judging(&mut self, now: Duration, index: usize, host: &Host, job: &ValidateJob) {
        if !self.honest.contains(&index) || job.proof.is_some() {
            return;
        }
        let hash = job.bytes.get(..Header::SIZE).map(BlockHash::hash);
        let (Some(hash), Some(height)) = (hash, host.height().next()) else { return };
        // Of what comes back from its own disk, the proposal may never have left it.
        let own = host.disk.has_body(height, hash);
        if !own && !self.proposed.keys().any(|(_, block)| *block == hash) {
            self.fail(now, Check::Admission, format!("host {index} judges {hash}, which nobody has proposed"));
        }
    }

    /// A host is about to commit.
    pub(super) fn decided(
        &mut self,
        now: Duration,
        index: usize,
        connected: &ConnectedBlock,
        certificate: &CommitCertificate,
    ) {
        if !self.honest.contains(&index) {
            return;
        }
        let (height, hash) = (connected.tip().height(), connected.tip().hash());
        let set = self.set(height);
        let encoded = CommitCertificate::decode(&certificate.encode());
        let verdict = encoded.map_err(|error| error.to_string());
        let verdict =
            verdict.and_then(|read| read.verify(self.chain, &set, height, hash).map_err(|error| error.to_string()));
        if let Err(error) = verdict {
            self.fail(now, Check::Certificate, format!("host {index}, height {height}: {error}"));
        }
    }

    /// A host has committed a block. `highest` is the time of the fastest honest clock.
    pub(super) fn committed(
        &mut self,
        now: Duration,
        index: usize,
        connected: &ConnectedBlock,
        highest: Option<Duration>,
    ) {
        let (height, hash) = (connected.tip().height(), connected.tip().hash());
        self.note(now, index, &hash.to_byte_array());
        self.since.insert(index, now);
        let Some(highest) = highest else { return };
        let first = *self.committed.entry(height).or_insert(hash);
        if first != hash {
            self.fail(now, Check::Agreement, format!("height {height}: host {index} has {hash}, another {first}"));
        }
        if self.height().next() != Some(height) || self.reference.tip().hash() != connected.parent().hash() {
            return;
        }
        let time = Duration::from_secs(connected.tip().time().into());
        if time > highest + CLOCK_AHEAD_MAX {
            let ahead = time - highest;
            self.fail(now, Check::Time, format!("block {height} is {ahead:?} ahead of every honest clock"));
        }
        match self.reference.validate(connected.block().bytes().to_vec()) {
            Ok(checked) if checked.delta() == connected.delta() => self.reference.apply(&checked),
            Ok(_) => self.fail(now, Check::Validity, format!("height {height}: another change of the state")),
            Err(error) => self.fail(now, Check::Validity, format!("height {height}: {error}")),
        }
        self.sets.retain(|of, _| of.to_u32() + 8 > height.to_u32());
        self.signatures.clear();
    }

    /// Every honest host has this height: nobody votes below it any more.
    pub(super) fn passed(&mut self, lowest: Height) {
        self.prevotes.retain(|(of, _, _), _| *of >= lowest);
        self.precommits.retain(|(of, _, _), _| *of >= lowest);
        self.locks.retain(|(_, of), _| *of >= lowest);
        self.proposed.retain(|(of, _), _| *of >= lowest);
        self.certificates.retain(|(of, _, _), _| *of >= lowest);
    }

    /// A block of the start.
    pub(super) fn grown(&mut self, connected: &ConnectedBlock) {
        self.committed.insert(connected.tip().height(), connected.tip().hash());
        self.reference.apply(connected);
    }

    /// A proof that a validator contradicted itself.
    pub(super) fn evidence(&mut self, now: Duration, index: usize, evidence: &Equivocation) {
        let set = self.set(evidence.height());
        let encoded = Equivocation::decode(&evidence.encode());
        if encoded.as_ref() != Ok(evidence) || evidence.verify(self.chain, &set).is_err() {
            self.fail(now, Check::Evidence, format!("host {index}: the proof is none"));
        }
        let accused = evidence.validator();
        if self.honest.iter().any(|honest| *honest < self.schedule.len() && self.schedule.address(*honest) == accused) {
            self.fail(now, Check::Evidence, format!("host {index} proves that an honest validator lied"));
        }
    }

    /// An honest host holds something against another.
    pub(super) fn blamed(&mut self, now: Duration, offence: Offence, what: String) {
        if offence != Offence::Stalled {
            self.fail(now, Check::NoHonestBlame, what);
        }
    }

    /// What a host holds at this moment.
    pub(super) fn queues(
        &mut self,
        now: Duration,
        index: usize,
        tip: Height,
        life: Option<&Life>,
        peers: usize,
        members: usize,
    ) {
        let Some(life) = life else { return };
        let load = life.node.load();
        let seconds = usize::try_from((now - life.booted).as_secs()).unwrap_or(usize::MAX);
        // Waiting, and of the log; admitted.
        let bodies = (32 + 16 + 16) * self.longest_body;
        let undecided = life.heard.values().filter(|heard| heard.topic == Topic::Bodies).count();
        let checking = 512 * peers;
        let messages = (members + 4) * (128 + 16 * seconds) + 512 + 16 * seconds + checking;
        let bounds = [
            ("bytes of bodies", load.body_bytes, bodies),
            ("messages", load.messages, messages),
            ("transactions", load.transactions, 4_096 + 2 * 64 + 128 + 128 + 2 * 16),
            ("fetched blocks", load.fetched_blocks, 8 * 64),
            ("requests", load.requests, 20 * (peers + 1)),
            ("undecided messages", life.heard.len(), 4_096 + 64 + 64 + 8 + 16),
            ("undecided bodies", undecided, 32 + 16),
            ("unanswered requests", life.inbound.len(), 0),
            ("waiting events", life.inbox.len(), 20_000),
        ];
        for (name, got, max) in bounds {
            if got > max && !life.busy {
                self.fail(now, Check::BoundedQueues, format!("host {index}: {got} {name}, at most {max}"));
            }
        }
        for heard in life.heard.values() {
            let limit = match heard.topic {
                // Until signatures are checked, and once more if the validators have changed; until it is read.
                Topic::Consensus | Topic::Claims => Duration::from_millis(5),
                Topic::Transactions => Duration::from_secs(2),
                // Until its height is over.
                Topic::Bodies => match pushed(&heard.bytes) {
                    Some((height, _)) if height > tip => Duration::MAX,
                    _ => Duration::ZERO,
                },
            };
            // What came while the process waited for its disk begins when that is over.
            let since = if heard.topic == Topic::Bodies { heard.at } else { heard.at.max(life.free_since) };
            if now.saturating_sub(since) > limit && !life.busy && life.inbox.is_empty() {
                let topic = heard.topic.name();
                let age = now - heard.at;
                self.fail(now, Check::OneRelay, format!("host {index}: no word on one of {topic} after {age:?}"));
                break;
            }
        }
    }
}
