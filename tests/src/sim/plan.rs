//! The scenarios: what goes wrong in each, drawn from a seed, and how long a network may take once it is healed.

mod peg;
mod scenario;

use std::time::Duration;

use causeway_consensus::bft::LinearTimeouts;
use causeway_node::wire::PUSHED_BYTES_MAX;

use super::byzantine::Strategy;
use super::rng::Rng;

pub use peg::PegPlan;
pub use scenario::{SCENARIOS, Scenario};

/// What goes wrong until the network heals.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Gossip messages lost on a link, of a hundred.
    pub loss_percent: u64,
    /// Gossip messages that arrive twice.
    pub duplicate_percent: u64,
    /// Requests and answers that get lost, of a thousand.
    pub request_loss_permille: u64,
    /// One in so many actions of a host is its last.
    pub crash_one_in: Option<u64>,
    /// All hosts end at once, about this often.
    pub crash_all_every: Option<Duration>,
    /// This host's first crash takes its log along.
    pub lose_log: Option<usize>,
    /// Only this host crashes, and its whole disk is after every later crash as it was at the first.
    pub restore_disk: Option<usize>,
    /// The hosts fall into other groups, about this often.
    pub regroup_every: Option<Duration>,
    /// The clock of this host jumps, back and forth.
    pub jumping_clock: Option<usize>,
    /// Connections between groups stay, and carry nothing.
    pub silent: bool,
    /// The longest time that a sync of the log takes.
    pub disk: Duration,
    /// The longest time that judging a block takes.
    pub validation: Duration,
    /// The longest delay of a message.
    pub delay: Duration,
}

/// A run: drawn from a scenario and a seed, and all that decides it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What kind of trouble.
    pub scenario: Scenario,
    /// The seed of everything that is left to chance.
    pub seed: u64,
    /// Powers of the validators, which are the first hosts.
    pub powers: Vec<u64>,
    /// The set changes after so many heights.
    pub changes_every: Option<u32>,
    /// Hosts without a key, after the validators.
    pub full_nodes: usize,
    /// Heights with trouble.
    pub heights: u32,
    /// The longest time with trouble.
    pub trouble: Duration,
    /// Milliseconds between blocks.
    pub interval_ms: u32,
    /// Links of a host at least; all if there is none.
    pub degree: Option<usize>,
    /// What goes wrong, until the network heals.
    pub faults: Faults,
    /// By how many milliseconds each host's clock is ahead.
    pub skew_ms: Vec<i64>,
    /// Hosts that start when the trouble is over.
    pub late: Vec<usize>,
    /// Dishonest hosts.
    pub byzantine: Vec<(usize, Vec<Strategy>)>,
    /// Blocks that there are at the start.
    pub history: u32,
    /// The longest time that judging, assembling or committing a block takes by itself.
    pub work: Duration,
    /// The longest delay of a message once the network is healed.
    pub delay: Duration,
    /// Whether transactions are handed in.
    pub transactions: bool,
    /// Bytes of a block up to which honest hosts send it unasked.
    pub pushed_max: usize,
    /// Bytes a second that each host's line carries in each direction; any number if there is none.
    pub lines: Vec<u64>,
    /// What happens on Bitcoin.
    pub peg: PegPlan,
}

/// The longest delay of a message on a good network.
pub const DELAY: Duration = Duration::from_millis(60);

/// How long the engine waits.
pub fn timeouts() -> LinearTimeouts {
    LinearTimeouts {
        propose: Duration::from_millis(1_000),
        propose_delta: Duration::from_millis(500),
        prevote: Duration::from_millis(500),
        prevote_delta: Duration::from_millis(250),
        precommit: Duration::from_millis(500),
        precommit_delta: Duration::from_millis(250),
        rebroadcast: Duration::from_millis(1_000),
        max_timeout: Duration::from_secs(8),
    }
}

/// The longest that a round lasts which everybody is in.
pub fn round_time(round: u32) -> Duration {
    let timeouts = timeouts();
    let one = |first: Duration, delta: Duration| (first + delta * round).min(timeouts.max_timeout);
    one(timeouts.propose, timeouts.propose_delta)
        + one(timeouts.prevote, timeouts.prevote_delta)
        + one(timeouts.precommit, timeouts.precommit_delta)
}

impl Plan {
    /// The run of a seed. `heights` takes the place of the scenario's own.
    pub fn new(scenario: Scenario, seed: u64, heights: Option<u32>) -> Self {
        let mut rng = Rng::new(seed ^ 0x706c_616e);
        let mut plan = Self {
            scenario,
            seed,
            powers: vec![1, 1, 1, 1],
            changes_every: None,
            full_nodes: 1,
            heights: heights.unwrap_or(20),
            trouble: Duration::ZERO,
            interval_ms: if rng.chance(50) { 1_000 } else { 200 },
            degree: None,
            faults: Faults { delay: DELAY, ..Faults::default() },
            skew_ms: Vec::new(),
            late: Vec::new(),
            byzantine: Vec::new(),
            history: 0,
            work: Duration::from_millis(15),
            delay: DELAY,
            transactions: true,
            // Blocks here are short: in every other run they are announced all the same.
            pushed_max: if seed.is_multiple_of(2) { 0 } else { PUSHED_BYTES_MAX },
            lines: Vec::new(),
            peg: PegPlan::default(),
        };
        plan.scene(&mut rng);
        plan.peg.lag.resize(plan.hosts(), peg::LAG);
        // As long as it takes if a third of the rounds fails; then it was trouble enough.
        plan.trouble = Duration::from_millis(u64::from(plan.interval_ms) * u64::from(plan.heights))
            + Duration::from_millis(1_500) * plan.heights
            + Duration::from_secs(20);
        if plan.skew_ms.is_empty() {
            plan.skew_ms = (0..plan.hosts()).map(|_| signed(&mut rng, 1_000)).collect();
        }
        plan
    }

    /// Validators and full nodes.
    pub fn hosts(&self) -> usize {
        self.powers.len() + self.full_nodes
    }

    /// Whether nothing goes wrong among the validators: then round 0 decides every height, whatever strangers do.
    pub fn is_smooth(&self) -> bool {
        matches!(
            self.scenario,
            Scenario::Healthy
                | Scenario::JunkBodies
                | Scenario::StalledSync
                | Scenario::Decoys
                | Scenario::Certificates
                | Scenario::Peg
        )
    }

    /// Whether a host keeps the rules.
    pub fn is_honest(&self, host: usize) -> bool {
        self.byzantine.iter().all(|(liar, _)| *liar != host)
    }

    fn scene(&mut self, rng: &mut Rng) {
        match self.scenario {
            Scenario::Healthy => {}
            Scenario::Sizes => {
                let count = 1 + rng.index(16);
                self.powers = (0..count).map(|_| 1 + rng.below(if rng.clone().chance(50) { 3 } else { 100 })).collect();
                self.full_nodes = rng.index(3);
            }
            Scenario::Sparse => {
                self.powers = vec![1; 7 + rng.index(4)];
                self.full_nodes = 4;
                self.degree = Some(2 + rng.index(2));
            }
            Scenario::Lossy => self.lossy(rng),
            Scenario::Partitions | Scenario::SilentPartitions => {
                self.powers = powers(rng, 4, 7);
                self.faults.regroup_every =
                    Some(Duration::from_secs(3 + rng.below(if rng.clone().chance(50) { 12 } else { 50 })));
                self.faults.silent = self.scenario == Scenario::SilentPartitions;
            }
            Scenario::Crashes => {
                self.powers = powers(rng, 3, 6);
                self.faults.crash_one_in = Some(150 + rng.below(600));
                self.faults.loss_percent = rng.below(6);
                self.faults.disk = Duration::from_millis(rng.below(30));
            }
            Scenario::CrashAll => {
                self.powers = powers(rng, 3, 6);
                self.faults.crash_all_every = Some(Duration::from_millis(1_500 + rng.below(8_000)));
                self.faults.crash_one_in = rng.chance(50).then_some(400);
                self.faults.disk = Duration::from_millis(rng.below(200));
            }
            Scenario::LostLog => {
                self.powers = vec![1; 4 + rng.index(4)];
                self.faults.crash_one_in = Some(100 + rng.below(300));
                self.faults.lose_log = Some(rng.index(self.powers.len()));
                self.faults.loss_percent = 5;
            }
            Scenario::RestoredDisk => {
                self.powers = vec![1; 4 + rng.index(4)];
                self.faults.crash_one_in = Some(100 + rng.below(300));
                self.faults.restore_disk = Some(rng.index(self.powers.len()));
                self.faults.loss_percent = rng.below(5);
            }
            Scenario::SlowDisk => self.faults.disk = Duration::from_millis(50 + rng.below(950)),
            Scenario::SlowValidation => self.faults.validation = Duration::from_millis(300 + rng.below(2_700)),
            Scenario::Skew => {
                self.powers = powers(rng, 4, 7);
                self.skew_ms = (0..self.hosts()).map(|_| signed(rng, 8_000)).collect();
            }
            Scenario::WrongClock => {
                self.skew_ms = (0..self.hosts()).map(|_| signed(rng, 1_000)).collect();
                let wrong = rng.index(self.powers.len());
                self.skew_ms[wrong] = signed(rng, 4_000_000);
                self.faults.jumping_clock = rng.chance(50).then_some(wrong);
            }
            Scenario::LateJoiners => {
                // A validator, and a host without a key.
                self.powers = vec![1; 5];
                self.heights = self.heights.max(40) * 2;
                self.late = vec![4, 5];
                self.interval_ms = 200;
            }
            Scenario::LateJoinersAmongLiars => {
                self.powers = vec![1; 7];
                self.full_nodes = 2;
                self.heights = self.heights.max(40) * 2;
                self.interval_ms = 200;
                self.late = vec![7, 8];
                self.byzantine = vec![(0, vec![Strategy::LyingSync]), (1, vec![Strategy::LyingSync])];
            }
            Scenario::FastSync => {
                self.powers = vec![1];
                self.full_nodes = 1;
                self.late = vec![1];
                self.history = 8_000;
                self.heights = 3;
                self.interval_ms = 1_000;
                self.work = Duration::from_micros(300);
                self.delay = Duration::from_millis(2);
            }
            Scenario::ChangingSets => {
                self.powers = powers(rng, 5, 8);
                self.changes_every = Some(1 + u32::try_from(rng.below(6)).expect("small"));
                self.faults.loss_percent = rng.below(5);
            }
            Scenario::Equivocation => self.liars(rng, &[Strategy::Equivocate]),
            Scenario::BodyFlood => self.liars(rng, &[Strategy::FloodBodies]),
            Scenario::Withholding => self.liars(rng, &[Strategy::Withhold]),
            Scenario::InvalidBlocks => self.liars(rng, &[Strategy::InvalidBlocks]),
            Scenario::WrongProposer => self.liars(rng, &[Strategy::WrongProposer]),
            Scenario::StaleRounds => self.liars(rng, &[Strategy::StaleRounds]),
            Scenario::FutureBlocks => {
                self.powers = vec![1; 7];
                self.byzantine = (0..2).map(|place| (place, vec![Strategy::FutureBlocks])).collect();
            }
            Scenario::LyingSync => self.liars(rng, &[Strategy::LyingSync]),
            Scenario::Spam => self.liars(rng, &[Strategy::Spam]),
            Scenario::JunkBodies => self.strangers(3, Strategy::JunkBodies),
            Scenario::FalseAnnouncements => {
                self.strangers(3, Strategy::Announce);
                self.pushed_max = 0;
                // Until each node has had a block of an honest one.
                self.peg.failed_heights = Some(6);
            }
            Scenario::ThinLines => {
                self.powers = vec![1; 7];
                self.full_nodes = 2;
                self.late = vec![7];
                self.degree = Some(2 + rng.index(2));
                self.heights = self.heights.max(40);
                self.interval_ms = 1_000;
                self.pushed_max = PUSHED_BYTES_MAX;
                // Validators, and full nodes on a quarter of that.
                let rate = 200_000 + rng.below(300_000);
                self.lines = (0..self.hosts()).map(|host| if host < 7 { rate } else { rate / 4 }).collect();
            }
            Scenario::StalledSync => {
                self.strangers(4, Strategy::Stall);
                self.heights = self.heights.max(40) * 2;
                self.interval_ms = 200;
                self.late = vec![self.powers.len()];
            }
            Scenario::Decoys => {
                self.strangers(6, Strategy::Decoy);
                // Somebody has to be believed when those that lied are sent away.
                for (_, strategies) in self.byzantine.iter_mut().step_by(2) {
                    *strategies = vec![Strategy::Stall];
                }
            }
            Scenario::Certificates => {
                self.powers = vec![1; 7];
                self.strangers(1, Strategy::Certificates);
            }
            Scenario::Riders => {
                self.powers = vec![1; 7];
                self.strangers(3, Strategy::Riders);
                self.degree = Some(2);
                self.peg = PegPlan::used();
                self.heights *= 2;
            }
            Scenario::Peg
            | Scenario::LateHeaders
            | Scenario::DeadBitcoin
            | Scenario::BlindThird
            | Scenario::BitcoinReorg
            | Scenario::CensoringProposers
            | Scenario::FalseEvidence => self.peg_scene(rng),
            Scenario::Storm => self.storm(rng),
            Scenario::Chaos => self.chaos(rng),
        }
    }

    fn lossy(&mut self, rng: &mut Rng) {
        self.powers = powers(rng, 4, 7);
        self.faults.loss_percent = 5 + rng.below(20);
        self.faults.duplicate_percent = rng.below(30);
        self.faults.request_loss_permille = rng.below(10);
        self.faults.delay = Duration::from_millis(60 + rng.below(400));
    }

    /// One or two of seven, or one of four.
    fn liars(&mut self, rng: &mut Rng, strategies: &[Strategy]) {
        let two = rng.chance(50);
        self.powers = vec![1; if two { 7 } else { 4 }];
        let first = rng.index(self.powers.len());
        let second = (first + 1 + rng.index(self.powers.len() - 1)) % self.powers.len();
        self.byzantine = vec![(first, strategies.to_vec())];
        if two {
            self.byzantine.push((second, strategies.to_vec()));
        }
    }

    /// Dishonest hosts without a key, after an honest one.
    fn strangers(&mut self, count: usize, strategy: Strategy) {
        self.full_nodes = 1 + count;
        let first = self.powers.len() + 1;
        self.byzantine = (first..first + count).map(|stranger| (stranger, vec![strategy])).collect();
    }

    fn storm(&mut self, rng: &mut Rng) {
        self.lossy(rng);
        self.powers = powers(rng, 1, 8);
        self.full_nodes = 1 + rng.index(2);
        let changes = self.powers.len() > 3 && rng.chance(60);
        self.changes_every = changes.then(|| 1 + u32::try_from(rng.below(4)).expect("small"));
        self.faults.crash_one_in = rng.chance(80).then(|| 200 + rng.below(800));
        self.faults.crash_all_every = rng.chance(20).then_some(Duration::from_secs(7));
        self.faults.regroup_every = rng.chance(50).then(|| Duration::from_secs(2 + rng.below(10)));
        self.faults.silent = rng.chance(50);
        self.faults.disk = Duration::from_millis(rng.below(200));
        self.faults.validation = Duration::from_millis(rng.below(800));
        self.skew_ms = (0..self.hosts()).map(|_| signed(rng, 3_000)).collect();
        self.degree = rng.chance(30).then_some(3);
        self.late = if rng.chance(30) { vec![self.powers.len()] } else { Vec::new() };
        self.troubled_bitcoin(rng);
    }

    fn chaos(&mut self, rng: &mut Rng) {
        self.lossy(rng);
        let first = 1 + rng.index(Strategy::ALL.len());
        let some = |rng: &mut Rng| -> Vec<Strategy> {
            let chosen = (0..1 + rng.index(3))
                .map(|_| Strategy::ALL[(first + rng.index(Strategy::ALL.len() + 1)) % Strategy::ALL.len()]);
            chosen.collect()
        };
        self.powers = vec![1; 7];
        self.byzantine = vec![(rng.index(3), some(rng)), (3 + rng.index(4), some(rng))];
        self.faults.crash_one_in = rng.chance(60).then_some(800);
        self.faults.regroup_every = rng.chance(40).then_some(Duration::from_secs(6));
        self.faults.disk = Duration::from_millis(rng.below(40));
        self.faults.validation = Duration::from_millis(rng.below(300));
        self.changes_every = None;
        self.skew_ms = (0..self.hosts()).map(|_| signed(rng, 3_000)).collect();
        self.degree = rng.chance(30).then_some(4);
        self.troubled_bitcoin(rng);
    }
}

fn signed(rng: &mut Rng, max_ms: u64) -> i64 {
    let offset = i64::try_from(rng.below(2 * max_ms + 1)).expect("small");
    offset - i64::try_from(max_ms).expect("small")
}

fn powers(rng: &mut Rng, from: usize, to: usize) -> Vec<u64> {
    let count = from + rng.index(to - from + 1);
    (0..count).map(|_| 2 + rng.below(3)).collect()
}
