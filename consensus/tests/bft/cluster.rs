//! Several engines in one thread: virtual time, seeded delivery with loss, delay and duplicates, crashes at any point.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{Keypair, SECP256K1};
use causeway_chainspec::{ChainId, Height, Validator};
use causeway_consensus::bft::signer::Position;
use causeway_consensus::bft::{
    Address, CommitCertificate, Engine, Equivocation, Guarded, HighWaterMark, Input, Key, LinearTimeouts, LogEntry,
    Message, Output, Persist, Proposal, Refusal, Sealed, SignedProposal, SignedVote, Signer, Step, Timer, ToSign,
    ValidatorSet, Validity, Vote, Writing,
};

pub(crate) const FIRST: Height = Height(101);

pub(crate) fn chain() -> ChainId {
    ChainId::from_byte_array([0xc5; 32])
}

pub(crate) fn keypair(index: usize) -> Keypair {
    let secret = sha256::Hash::hash(format!("causeway cluster key {index}").as_bytes());
    Keypair::from_seckey_slice(SECP256K1, secret.as_byte_array()).unwrap()
}

pub(crate) fn address(index: usize) -> Address {
    Key::address(&keypair(index))
}

pub(crate) fn set_of(powers: &[u64]) -> ValidatorSet {
    let validators: Vec<_> = powers
        .iter()
        .enumerate()
        .map(|(index, power)| Validator { key: keypair(index).x_only_public_key().0, power: *power })
        .collect();
    ValidatorSet::new(&validators).unwrap()
}

/// SplitMix64.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Default)]
pub(crate) struct Faults {
    pub(crate) loss_percent: u64,
    pub(crate) duplicate_percent: u64,
    /// The n-th append, write of the mark or output of this node is its last before a crash.
    pub(crate) crash_at: Option<(usize, u64)>,
    /// One in so many appends, writes and outputs of any honest node is its last before a crash.
    pub(crate) crash_one_in: Option<u64>,
    /// A crash takes the whole log along.
    pub(crate) lose_log: bool,
    /// Signers sign whatever they are asked to.
    pub(crate) unguarded: bool,
    /// This validator says two things at once.
    pub(crate) equivocator: Option<usize>,
}

enum Event {
    Message { to: usize, message: Message },
    Timer { node: usize, run: u64, timer: Timer, started: u64 },
    Input { node: usize, run: u64, input: Input },
    Start { node: usize, run: u64 },
    Restart { node: usize },
    Sync { node: usize },
}

/// What survives a crash.
#[derive(Default)]
struct Disk {
    log: Vec<Vec<u8>>,
    /// Entries that are certainly on the disk.
    synced: usize,
    mark: Option<Vec<u8>>,
    chain: Vec<CommitCertificate>,
    /// Points until the crash.
    budget: Option<u64>,
}

struct Crash;

impl Disk {
    /// One more point at which the node may end.
    fn spend(&mut self) -> Result<(), Crash> {
        match &mut self.budget {
            Some(0) => Err(Crash),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Persist for Disk {
    type Error = Crash;

    fn persist(
        &mut self,
        height: Height,
        log: &[LogEntry],
        mark: Option<&HighWaterMark>,
        writing: Writing,
    ) -> Result<(), Crash> {
        assert_eq!(height.to_u32(), FIRST.to_u32() + self.chain.len() as u32);
        for entry in log {
            self.spend()?;
            self.log.push(entry.encode());
        }
        if let Some(mark) = mark {
            self.spend()?;
            self.mark = Some(mark.encode().to_vec());
        }
        if writing == Writing::Now {
            self.synced = self.log.len();
        }
        self.spend()
    }
}

/// Signs everything, twice too: what the high-water mark is there to prevent.
struct Unguarded(Keypair);

impl Signer for Unguarded {
    fn address(&self) -> Address {
        Key::address(&self.0)
    }

    fn sign(&mut self, message: &ToSign) -> Result<Sealed, Refusal> {
        Ok(Sealed::new(Key::sign(&self.0, message.digest()).unwrap(), None))
    }
}

struct Node {
    engine: Option<Engine>,
    disk: Disk,
    /// Counts runs of the process: what was meant for an earlier one is void.
    run: u64,
    timers: BTreeMap<Timer, u64>,
}

/// What a run has shown.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) decided: BTreeMap<Height, BlockHash>,
    pub(crate) evidence: Vec<Equivocation>,
    pub(crate) crashes: u64,
    pub(crate) replayed: usize,
    /// Starts from a log that has not what the mark says was signed.
    pub(crate) lost_logs: u64,
    pub(crate) withheld: u64,
    /// How often a node heard of a message with its own signature that it did not know.
    pub(crate) elsewhere: u64,
    pub(crate) synced: u64,
    pub(crate) later_rounds: u64,
    /// Positions at which a node that should be honest sent two different messages.
    pub(crate) conflicts: BTreeSet<(Address, String)>,
    /// A running hash of everything that was sent and decided.
    pub(crate) trace: u64,
}

pub(crate) struct Cluster {
    rng: Rng,
    faults: Faults,
    set: ValidatorSet,
    validators: usize,
    nodes: Vec<Node>,
    now: u64,
    queue: BTreeMap<(u64, u64), Event>,
    count: u64,
    sent: BTreeMap<(Address, Position), [u8; 32]>,
    pub(crate) seen: Seen,
}

impl Cluster {
    /// Validators of these powers and one node without a key.
    pub(crate) fn new(seed: u64, powers: &[u64], faults: Faults) -> Self {
        let mut cluster = Self {
            rng: Rng(seed),
            faults,
            set: set_of(powers),
            validators: powers.len(),
            nodes: Vec::new(),
            now: 0,
            queue: BTreeMap::new(),
            count: 0,
            sent: BTreeMap::new(),
            seen: Seen::default(),
        };
        for node in 0..=powers.len() {
            let disk = Disk::default();
            cluster.nodes.push(Node { engine: None, disk, run: 0, timers: BTreeMap::new() });
            cluster.at(node as u64, Event::Restart { node });
            cluster.at(500, Event::Sync { node });
        }
        cluster
    }

    /// Runs until every node has this many heights.
    pub(crate) fn run(&mut self, heights: usize) {
        while self.nodes.iter().any(|node| node.disk.chain.len() < heights) {
            let ((now, _), event) = self.queue.pop_first().expect("there is always a next sync");
            assert!(
                now < 3_600_000,
                "stuck at {:?}",
                self.nodes.iter().map(|n| n.disk.chain.len()).collect::<Vec<_>>()
            );
            self.now = now;
            self.handle(event);
        }
    }

    /// How many points at which it can crash a node has passed.
    pub(crate) fn points(&self, node: usize) -> u64 {
        u64::MAX - self.nodes[node].disk.budget.unwrap_or(u64::MAX)
    }

    fn at(&mut self, delay: u64, event: Event) {
        self.count += 1;
        self.queue.insert((self.now + delay, self.count), event);
    }

    fn is_honest(&self, node: usize) -> bool {
        self.faults.equivocator != Some(node)
    }

    fn height(&self, node: usize) -> Height {
        Height(FIRST.to_u32() + self.nodes[node].disk.chain.len() as u32)
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Message { to, message } => {
                // Everything travels as bytes.
                let message = Message::decode(&message.encode()).unwrap();
                self.input(to, Input::Message(message));
            }
            Event::Timer { node, run, timer, started } => {
                if self.nodes[node].run == run && self.nodes[node].timers.get(&timer) == Some(&started) {
                    self.nodes[node].timers.remove(&timer);
                    self.input(node, Input::TimerElapsed(timer));
                }
            }
            Event::Input { node, run, input } if self.nodes[node].run == run => self.input(node, input),
            Event::Start { node, run } if self.nodes[node].run == run => self.start(node),
            Event::Input { .. } | Event::Start { .. } => {}
            Event::Restart { node } => self.restart(node),
            Event::Sync { node } => self.sync(node),
        }
    }

    fn restart(&mut self, node: usize) {
        let mark = match &self.nodes[node].disk.mark {
            Some(bytes) => HighWaterMark::decode(bytes).unwrap(),
            None => HighWaterMark::never_signed(chain(), address(node)),
        };
        let signer: Option<Box<dyn Signer>> = if node >= self.validators {
            None
        } else if self.faults.unguarded || !self.is_honest(node) {
            Some(Box::new(Unguarded(keypair(node))))
        } else {
            Some(Box::new(Guarded::new(keypair(node), mark).unwrap()))
        };
        let timeouts = LinearTimeouts {
            propose: Duration::from_millis(400),
            propose_delta: Duration::from_millis(100),
            prevote: Duration::from_millis(200),
            prevote_delta: Duration::from_millis(100),
            precommit: Duration::from_millis(200),
            precommit_delta: Duration::from_millis(100),
            rebroadcast: Duration::from_millis(600),
            max_timeout: Duration::from_secs(5),
        };
        let budget = match (self.faults.crash_at, self.faults.crash_one_in) {
            (Some((crashing, points)), _) if crashing == node && self.nodes[node].run == 0 => Some(points),
            (Some((crashing, _)), _) if crashing == node => Some(u64::MAX),
            (None, Some(one_in)) if self.is_honest(node) => Some(1 + self.rng.below(2 * one_in)),
            _ => None,
        };
        let this = &mut self.nodes[node];
        this.engine = Some(Engine::new(chain(), timeouts, signer));
        this.disk.budget = budget;
        self.start(node);
    }

    fn start(&mut self, node: usize) {
        let (height, set) = (self.height(node), self.set.clone());
        let this = &mut self.nodes[node];
        let log: Vec<_> = this.disk.log.iter().map(|bytes| LogEntry::decode(bytes).unwrap()).collect();
        self.seen.replayed += log.len();
        let mark = this.disk.mark.as_ref().map(|bytes| HighWaterMark::decode(bytes).unwrap());
        let of_height = |mark: &HighWaterMark| mark.position().is_some_and(|position| position.height == height);
        self.seen.lost_logs += u64::from(mark.is_some_and(|mark| of_height(&mark) && !mark.stands_in(&log)));
        let step = this.engine.as_mut().unwrap().start(height, set, &log).unwrap();
        self.perform(node, step);
    }

    fn input(&mut self, node: usize, input: Input) {
        let Some(engine) = self.nodes[node].engine.as_mut() else { return };
        let step = engine.step(input).unwrap();
        self.perform(node, step);
    }

    fn perform(&mut self, node: usize, step: Step) {
        let Ok(outputs) = step.persist(&mut self.nodes[node].disk) else { return self.crash(node) };
        for output in outputs {
            if self.nodes[node].disk.spend().is_err() {
                return self.crash(node);
            }
            self.act(node, output);
        }
    }

    fn crash(&mut self, node: usize) {
        self.seen.crashes += 1;
        let this = &mut self.nodes[node];
        this.engine = None;
        this.run += 1;
        this.timers.clear();
        // What was not synced may or may not be there, up to some entry.
        let lost = self.rng.below((this.disk.log.len() - this.disk.synced) as u64 + 1) as usize;
        let kept = if self.faults.lose_log { 0 } else { this.disk.log.len() - lost };
        this.disk.log.truncate(kept);
        this.disk.synced = kept;
        let delay = 10 + self.rng.below(1_500);
        self.at(delay, Event::Restart { node });
    }

    fn act(&mut self, node: usize, output: Output) {
        let run = self.nodes[node].run;
        match output {
            Output::Send(message) | Output::SendAgain(message) => self.send(node, message),
            Output::StartTimer(timer, delay) => {
                self.count += 1;
                let started = self.count;
                self.nodes[node].timers.insert(timer, started);
                self.at(delay.as_millis() as u64, Event::Timer { node, run, timer, started });
            }
            Output::StopTimer(timer) => drop(self.nodes[node].timers.remove(&timer)),
            Output::StopTimers => self.nodes[node].timers.clear(),
            Output::RoundStarted { round, .. } => self.seen.later_rounds += u64::from(round > 0),
            Output::Propose { height, round, .. } => {
                let block = block_of(height, round, node, self.nodes[node].run);
                let delay = 1 + self.rng.below(20);
                self.at(delay, Event::Input { node, run, input: Input::Propose { height, round, block } });
            }
            Output::Accepted { height, round, block, proposer, .. } => {
                assert_eq!(proposer, self.set.proposer(chain(), height, round).address());
                let input = Input::Judged { height, round, block, validity: Validity::Valid };
                let delay = 1 + self.rng.below(40);
                self.at(delay, Event::Input { node, run, input });
            }
            Output::Restream { .. } => {}
            Output::CertificateVerified { height, round, block } => {
                self.seen.synced += 1;
                let input = Input::Synced { height, round, block, validity: Validity::Valid };
                self.at(5, Event::Input { node, run, input });
            }
            Output::CertificateRejected(error) => panic!("an honest certificate was rejected: {error}"),
            Output::Decided(certificate) => self.decide(node, certificate),
            Output::Finalized { evidence, .. } => {
                for evidence in evidence {
                    evidence.verify(chain(), &self.set).unwrap();
                    assert_eq!(Equivocation::decode(&evidence.encode()).unwrap(), evidence);
                    self.seen.evidence.push(evidence);
                }
                self.at(5, Event::Start { node, run });
            }
            Output::Withheld { .. } => self.seen.withheld += 1,
            Output::SignedElsewhere => self.seen.elsewhere += 1,
        }
    }

    fn decide(&mut self, node: usize, certificate: CommitCertificate) {
        let (height, block) = (certificate.height(), certificate.block());
        assert_eq!(height, self.height(node), "every height once");
        let decoded = CommitCertificate::decode(&certificate.encode()).unwrap();
        assert_eq!(decoded, certificate);
        decoded.verify(chain(), &self.set, height, block).unwrap();
        let first = *self.seen.decided.entry(height).or_insert(block);
        assert_eq!(first, block, "two blocks are final at height {height}");
        self.note(u64::from(height.to_u32()) << 8 | node as u64);
        let disk = &mut self.nodes[node].disk;
        disk.chain.push(certificate);
        disk.log.clear();
        disk.synced = 0;
    }

    fn note(&mut self, what: u64) {
        self.seen.trace = (self.seen.trace ^ what ^ self.now << 24).wrapping_mul(0x0100_0000_01b3);
    }

    fn send(&mut self, from: usize, message: Message) {
        if self.is_honest(from) {
            self.watch(from, &message);
        }
        for to in (0..self.nodes.len()).filter(|to| *to != from) {
            let versions = match self.is_honest(from) {
                true => vec![message.clone()],
                false => self.two_faces(from, &message),
            };
            for version in versions {
                for _ in 0..1 + u64::from(self.rng.chance(self.faults.duplicate_percent)) {
                    if !self.rng.chance(self.faults.loss_percent) {
                        let delay = 5 + self.rng.below(60);
                        self.at(delay, Event::Message { to, message: version.clone() });
                    }
                }
            }
        }
    }

    /// Remembers what a node signed and notices when it contradicts itself.
    fn watch(&mut self, from: usize, message: &Message) {
        let signed = match message {
            Message::Vote(vote) => ToSign::vote(chain(), &vote.message),
            Message::Proposal(proposal) => ToSign::proposal(chain(), &proposal.message),
            Message::Polka(_) | Message::Round(_) => None,
        };
        let Some(signed) = signed else { return };
        self.note(u64::from(signed.digest()[0]));
        let first = *self.sent.entry((address(from), signed.position())).or_insert(*signed.digest());
        if first != *signed.digest() {
            self.seen.conflicts.insert((address(from), signed.position().to_string()));
        }
    }

    /// What the equivocator tells one peer: the truth, a lie, both or nothing.
    fn two_faces(&mut self, from: usize, message: &Message) -> Vec<Message> {
        let lie = match message {
            Message::Vote(vote) => {
                let vote = vote.message;
                let (height, round) = (vote.height(), vote.round().unwrap());
                let other = vote.block().is_none().then(|| block_of(height, round, from, u64::MAX));
                let lie = Vote::new(vote.kind(), height, round, other, vote.validator());
                let signature = Key::sign(&keypair(from), &lie.digest(chain())).unwrap();
                Message::Vote(SignedVote::new(lie, signature))
            }
            Message::Proposal(proposal) => {
                let truth = proposal.message;
                let (height, round) = (truth.height(), truth.round().unwrap());
                let other = block_of(height, round, from, u64::MAX);
                let lie = Proposal::new(height, round, other, truth.pol_round(), truth.proposer());
                let signature = Key::sign(&keypair(from), &lie.digest(chain())).unwrap();
                Message::Proposal(SignedProposal::new(lie, signature))
            }
            Message::Polka(_) | Message::Round(_) => return vec![message.clone()],
        };
        match self.rng.below(4) {
            0 => vec![message.clone()],
            1 => vec![lie],
            2 => vec![lie, message.clone()],
            _ => vec![],
        }
    }

    /// Asks a peer for the certificate of the next height.
    fn sync(&mut self, node: usize) {
        self.at(700, Event::Sync { node });
        let peer = self.rng.below(self.nodes.len() as u64) as usize;
        let next = self.nodes[node].disk.chain.len();
        let certificate = self.nodes[peer].disk.chain.get(next).map(CommitCertificate::encode);
        if let Some(bytes) = certificate.filter(|_| !self.rng.chance(self.faults.loss_percent)) {
            self.input(node, Input::Certificate(CommitCertificate::decode(&bytes).unwrap()));
        }
    }
}

/// A block of its own for each proposer, round and run of its process: a restarted proposer assembles another one.
fn block_of(height: Height, round: u32, node: usize, run: u64) -> BlockHash {
    let text = format!("block {height} {round} {node} {run}");
    BlockHash::from_byte_array(sha256::Hash::hash(text.as_bytes()).to_byte_array())
}
