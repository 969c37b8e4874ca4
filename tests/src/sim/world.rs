//! The queue of events.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::{Amount, BlockHash};
use bytes::Bytes;
use causeway_chainspec::{ChainSpec, Height, LAST_DERIVED_HEIGHT};
use causeway_consensus::bft::{CommitCertificate, Key, Vote, VoteType};
use causeway_consensus::{ConnectedBlock, Workers};
use causeway_node::machine::{Event, OutboundId, RequestFailure, Ticket};
use causeway_node::wire::{FinalBlock, Topic};
use libp2p::PeerId;

use super::bitcoin::{Audit, Bitcoin, BitcoinNode};
use super::byzantine::Byzantine;
use super::check::{Check, Violation};
use super::disk::Disk;
use super::host::Host;
use super::lines::Lines;
use super::network::Links;
use super::perform::Job;
use super::plan::Plan;
use super::purse::Purse;
use super::rng::Rng;
use super::schedule::Schedule;
use super::watch::Watch;
use crate::chain::MemoryChain;
use crate::parent::peg_spec;

/// How often links are looked after and dishonest hosts get to speak.
const NETWORK_TICK: Duration = Duration::from_millis(100);

/// Heights that every honest host has to reach after the healing, above the highest then.
pub(super) const HEIGHTS_AFTER: u32 = 5;

/// What is going to happen.
pub(super) enum What {
    Gossip { from: usize, to: usize, topic: Topic, bytes: Bytes },
    Request { from: usize, life: u64, to: usize, id: OutboundId, bytes: Bytes },
    Answer { from: usize, to: usize, life: u64, id: OutboundId, result: Result<Bytes, RequestFailure> },
    Event { host: usize, life: u64, event: Box<Event> },
    Job { host: usize, life: u64, ticket: Ticket, job: Box<Job> },
    Committed { host: usize, life: u64, connected: Arc<ConnectedBlock>, certificate: Box<CommitCertificate> },
    Synced { host: usize, life: u64 },
    Wake { host: usize, life: u64 },
    Boot { host: usize },
    CrashAll,
    Regroup,
    Desk { host: usize, life: u64 },
    Mine,
    BitcoinBlock { host: usize, block: BlockHash },
    BitcoinFails { host: usize },
    Deposit,
    Network,
    Purse,
}

/// What a run was like.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// Blocks that became final.
    pub heights: u64,
    /// Virtual time.
    pub time: Duration,
    /// Processes that ended.
    pub crashes: u64,
    /// Those of them with a block decided and not committed.
    pub crashes_before_commit: u64,
    /// Entries of logs that later lives read.
    pub replayed: u64,
    /// Rounds after the first, as hosts entered them.
    pub later_rounds: u64,
    /// Blocks that were fetched.
    pub synced: u64,
    /// Messages that a signer refused to sign.
    pub withheld: u64,
    /// Proofs of contradictions.
    pub evidence: u64,
    /// Blocks whose vote was held back.
    pub held: u64,
    /// Blocks of Bitcoin, on every branch.
    pub bitcoin_blocks: u64,
    /// Reorganisations of Bitcoin, and blocks that had a rival.
    pub reorganisations: u64,
    /// Answers of Bitcoin nodes that held a vote back.
    pub held_by_bitcoin: u64,
    /// Deposits that were credited.
    pub credited: u64,
    /// Requests that were paid.
    pub paid: u64,
    /// Peers that were banned.
    pub bans: u64,
    /// Transactions that became final.
    pub transactions: u64,
    /// Gossip messages that arrived.
    pub messages: u64,
    /// From the healing until every honest host had caught up and gone on.
    pub healed_in: Duration,
    /// How long that may take.
    pub healing_bound: Duration,
    /// From then until the peg has nothing left to do, as a part of how long that may take.
    pub settling: f64,
}

/// The end of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The plan.
    pub plan: Plan,
    /// Figures.
    pub stats: Stats,
    /// Hash of everything that was sent and committed.
    pub trace: u64,
    /// The checks that failed; the first few of each.
    pub violations: Vec<Violation>,
}

/// A network.
pub struct World {
    pub(super) plan: Plan,
    pub(super) rng: Rng,
    pub(super) spec: ChainSpec,
    pub(super) schedule: Arc<Schedule>,
    pub(super) workers: Arc<Workers>,
    pub(super) hosts: Vec<Host>,
    pub(super) links: Links,
    pub(super) lines: Lines,
    pub(super) now: Duration,
    pub(super) healed: bool,
    queue: BTreeMap<(Duration, u64), What>,
    count: u64,
    /// Events since the clock last moved.
    at_once: u32,
    pub(super) watch: Watch,
    pub(super) purse: Purse,
    pub(super) bitcoin: Bitcoin,
    pub(super) audit: Audit,
    pub(super) stats: Stats,
    /// Heights that an honest validator saw a second round of before the healing.
    pub(super) failed_heights: BTreeSet<Height>,
    pub(super) over: bool,
    pub(super) listener: Option<Listener>,
}

/// Takes a line for everything that happens.
pub type Listener = Box<dyn FnMut(String)>;

impl World {
    /// The network of a plan, at its start.
    pub fn new(plan: Plan) -> Self {
        let mut rng = Rng::new(plan.seed);
        let schedule = Arc::new(Schedule::new(&plan.powers, plan.changes_every));
        let spec = spec(&plan, &schedule);
        let workers = Arc::new(Workers::new(NonZeroUsize::MIN));
        let chain = || MemoryChain::with_workers(spec.clone(), Arc::clone(&workers));
        let honest: BTreeSet<usize> = (0..plan.hosts()).filter(|host| plan.is_honest(*host)).collect();
        let desks: Vec<usize> = honest.iter().copied().filter(|host| !plan.peg.without.contains(host)).collect();
        let reference = chain();
        let bitcoin = Bitcoin::new(&spec, Arc::clone(reference.peg().network()), &desks);
        let hosts: Vec<Host> = (0..plan.hosts())
            .map(|index| Host {
                peer: peer_id(index),
                key: (index < plan.powers.len()).then(|| schedule.key(index)),
                address: (index < plan.powers.len()).then(|| schedule.address(index)),
                skew_ms: plan.skew_ms[index],
                backup: None,
                jumping_clock: plan.faults.jumping_clock == Some(index),
                chain: chain(),
                blocks: Vec::new(),
                disk: Disk::default(),
                bitcoin: BitcoinNode::new(&bitcoin, !plan.peg.without.contains(&index)),
                snapshot: Vec::new(),
                life: None,
                lives: 0,
                bans: BTreeMap::new(),
                byzantine: None,
                lost_log: false,
            })
            .collect();
        let watch =
            Watch::new(plan.seed, spec.chain_id(), Arc::clone(&schedule), honest, reference, spec.params().clone());
        let links = Links::new(&plan, &mut rng);
        let lines = Lines::new(&plan);
        let purse = Purse::new();
        let mut world = Self {
            rng,
            spec,
            schedule,
            workers,
            hosts,
            links,
            lines,
            now: Duration::ZERO,
            healed: false,
            queue: BTreeMap::new(),
            count: 0,
            at_once: 0,
            watch,
            purse,
            bitcoin,
            audit: Audit::default(),
            stats: Stats::default(),
            failed_heights: BTreeSet::new(),
            over: false,
            listener: None,
            plan,
        };
        world.grow();
        for (liar, strategies) in world.plan.byzantine.clone() {
            world.hosts[liar].byzantine = Some(Byzantine::new(strategies));
        }
        let late = world.plan.late.clone();
        for host in (0..world.hosts.len()).filter(|host| !late.contains(host)) {
            let spread = if world.plan.is_smooth() || world.plan.peg.rounds.is_some() { 0 } else { 300 };
            let delay = world.rng.between(Duration::ZERO, Duration::from_millis(spread));
            world.after(delay, What::Boot { host });
        }
        world.after(NETWORK_TICK, What::Network);
        if world.plan.transactions {
            world.after(Duration::from_secs(2), What::Purse);
        }
        if let Some(every) = world.plan.peg.mining {
            world.after(every, What::Mine);
            world.after(every, What::Deposit);
        }
        for host in world.plan.peg.down.clone() {
            world.hosts[host].bitcoin.end();
        }
        for host in world.plan.peg.failing.clone() {
            let delay = world.rng.between(Duration::ZERO, Duration::from_secs(6));
            world.after(delay, What::BitcoinFails { host });
        }
        if let Some(every) = world.plan.faults.regroup_every {
            world.after(every, What::Regroup);
        }
        if let Some(every) = world.plan.faults.crash_all_every {
            world.after(every, What::CrashAll);
        }
        world
    }

    /// Gives the hosts that are there from the start their first blocks, which nobody voted on.
    fn grow(&mut self) {
        let mut chain = MemoryChain::with_workers(self.spec.clone(), Arc::clone(&self.workers));
        for _ in 0..self.plan.history {
            let block = chain.next_block(Amount::ZERO, vec![]);
            let connected = chain.accept(&block).expect("an empty block is valid");
            let (height, hash) = (connected.tip().height(), connected.tip().hash());
            let set = self.schedule.set(height);
            let signers = (0..self.schedule.len()).filter(|signer| set.get(&self.schedule.address(*signer)).is_some());
            let signatures: Vec<_> = signers
                .map(|signer| {
                    let key = self.schedule.key(signer);
                    let vote = Vote::new(VoteType::Precommit, height, 0, Some(hash), Key::address(&key));
                    let signature = Key::sign(&key, &vote.digest(self.spec.chain_id())).expect("the key is here");
                    (Key::address(&key), signature)
                })
                .collect();
            let certificate = CommitCertificate::new(&set, height, 0, hash, signatures).expect("they are in the set");
            let block = Bytes::copy_from_slice(connected.block().bytes());
            let stored = FinalBlock { certificate: certificate.encode().into(), block };
            for (index, host) in self.hosts.iter_mut().enumerate() {
                if !self.plan.late.contains(&index) {
                    host.chain.apply(&connected);
                    host.blocks.push(stored.clone());
                }
            }
            self.watch.grown(&connected);
        }
    }

    /// Has everything told that happens: for a look at one run.
    #[must_use]
    pub fn with_listener(mut self, listener: Listener) -> Self {
        self.listener = Some(listener);
        self
    }

    pub(super) fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(listener) = &mut self.listener {
            listener(format!("{:>12.6} {}", self.now.as_secs_f64(), line()));
        }
    }

    /// Runs to the end.
    pub fn run(mut self) -> Outcome {
        let first = LAST_DERIVED_HEIGHT.to_u32() + self.plan.history;
        let last = Height(first + self.plan.heights);
        while !self.over && self.watch.height() < last && self.now < self.plan.trouble {
            self.step();
        }
        let bound = self.healing_bound();
        self.heal();
        let target = Height(self.watch.height().to_u32() + HEIGHTS_AFTER);
        let (healed_at, deadline) = (self.now, self.now + bound);
        let settled_by = deadline + Duration::from_secs(160);
        let behind = |world: &Self| world.honest().filter(|host| world.hosts[*host].height() < target).count();
        while !self.over && behind(&self) > 0 {
            if self.now > deadline {
                let heights: Vec<u32> = self.hosts.iter().map(|host| host.height().to_u32()).collect();
                let what =
                    format!("healed at {healed_at:?}, wanted {target} in {bound:?}, the hosts are at {heights:?}");
                self.fail(Check::Liveness, what);
                break;
            }
            self.step();
        }
        self.stats.healed_in = self.now - healed_at;
        self.stats.healing_bound = bound;
        // Nothing new is handed in: what was accepted gets final.
        self.purse.close();
        while !self.over && !self.watch.has_failed() && self.purse.is_waiting() && self.now < settled_by {
            self.step();
        }
        let peg_bound = self.peg_bound();
        let settled_by = self.now + peg_bound;
        let is_settled = |world: &Self| world.is_peg_settled() && !world.purse.is_waiting();
        while !self.over && !self.watch.has_failed() && !is_settled(&self) && self.now < settled_by {
            self.step();
        }
        self.last_checks();
        self.last_audit(peg_bound);
        self.stats.settling = (self.now + peg_bound).saturating_sub(settled_by).as_secs_f64() / peg_bound.as_secs_f64();
        self.stats.time = self.now;
        self.stats.heights = u64::from(self.watch.height().to_u32() - first);
        Outcome {
            plan: self.plan,
            stats: self.stats,
            trace: self.watch.trace(),
            violations: self.watch.into_violations(),
        }
    }

    pub(super) fn honest(&self) -> impl Iterator<Item = usize> {
        (0..self.hosts.len()).filter(|host| self.plan.is_honest(*host))
    }

    pub(super) fn after(&mut self, delay: Duration, what: What) {
        self.count += 1;
        self.queue.insert((self.now + delay, self.count), what);
    }

    pub(super) fn fail(&mut self, check: Check, what: impl Into<String>) {
        let what = what.into();
        self.say(|| format!("FAILED {}: {what}", check.name()));
        self.watch.fail(self.now, check, what);
    }

    fn heal(&mut self) {
        self.healed = true;
        let faults = &mut self.plan.faults;
        faults.loss_percent = 0;
        faults.request_loss_permille = 0;
        faults.crash_one_in = None;
        faults.disk = Duration::ZERO;
        faults.validation = Duration::ZERO;
        faults.delay = self.plan.delay;
        self.links.heal();
        self.heal_bitcoin();
        for host in 0..self.hosts.len() {
            match &mut self.hosts[host].life {
                Some(life) => life.budget = None,
                None => self.after(Duration::ZERO, What::Boot { host }),
            }
        }
    }

    fn step(&mut self) {
        let Some(((at, _), what)) = self.queue.pop_first() else {
            self.over = true;
            return;
        };
        self.at_once = if at == self.now { self.at_once + 1 } else { 0 };
        if self.at_once > 200_000 {
            self.fail(Check::BoundedQueues, "time stands still: some node wants to be woken again and again");
            self.over = true;
        }
        self.now = at;
        match what {
            What::Gossip { from, to, topic, bytes } => self.gossip_arrives(from, to, topic, bytes),
            What::Request { from, life, to, id, bytes } => self.request_arrives(from, life, to, id, &bytes),
            What::Answer { from, to, life, id, result } => self.answer_arrives(from, to, life, id, result),
            What::Event { host, life, event } => self.deliver(host, life, *event),
            What::Job { host, life, ticket, job } => self.job_done(host, life, ticket, *job),
            What::Committed { host, life, connected, certificate } => {
                self.commit_done(host, life, &connected, &certificate);
            }
            What::Synced { host, life } => self.synced(host, life),
            What::Wake { host, life } => self.wake(host, life),
            What::Boot { host } => self.boot(host),
            What::CrashAll => self.crash_all(),
            What::Regroup => self.regroup(),
            What::Desk { host, life } => self.look_at_desk(host, life),
            What::Mine => self.mine_bitcoin(),
            What::BitcoinBlock { host, block } => self.bitcoin_block(host, block),
            What::BitcoinFails { host } => self.bitcoin_fails(host),
            What::Deposit => self.use_bitcoin(),
            What::Network => {
                self.set_clocks();
                self.look_after_links();
                self.let_liars_speak();
                self.look_at_queues();
                self.audit_held();
                self.after(NETWORK_TICK, What::Network);
            }
            What::Purse => self.hand_in(),
        }
    }
}

/// The devnet with other validators and another interval.
fn spec(plan: &Plan, schedule: &Schedule) -> ChainSpec {
    peg_spec(|parts| {
        parts.validators = schedule.validators(Height(LAST_DERIVED_HEIGHT.to_u32() + 1));
        parts.params.block_interval_ms = plan.interval_ms;
    })
}

/// An identity multihash, short and in the order of the hosts.
fn peer_id(index: usize) -> PeerId {
    PeerId::from_bytes(&[0, 2, 0x80, u8::try_from(index).expect("few hosts")])
        .expect("an identity multihash may be short")
}
