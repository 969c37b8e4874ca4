//! What happens on Bitcoin, and who uses the peg.

use std::time::Duration;

use super::{Plan, Scenario, Strategy, powers};
use crate::sim::rng::Rng;

/// How long a Bitcoin node hears nothing of a block at most, on a good network.
pub(super) const LAG: Duration = Duration::from_millis(100);

/// How long a proposer waits so that the others know a block.
const HEADER_DELAY: Duration = Duration::from_millis(300);

/// Bitcoin in a run. By default there are a few blocks that everybody knows, and no more come.
#[derive(Debug, Clone, Default)]
pub struct PegPlan {
    /// The longest time between two blocks; none are mined if there is none.
    pub mining: Option<Duration>,
    /// The longest time until the Bitcoin node of each host hears of a block, until the network heals.
    pub lag: Vec<Duration>,
    /// How long after a desk first saw a header it is proposed, until the network heals.
    pub header_delay: Duration,
    /// Blocks that come with a reorganisation or a rival, of a hundred.
    pub fork_percent: u64,
    /// Hosts whose Bitcoin nodes fail and come back.
    pub failing: Vec<usize>,
    /// Hosts without a Bitcoin node.
    pub without: Vec<usize>,
    /// Hosts whose Bitcoin nodes are down until the network heals.
    pub down: Vec<usize>,
    /// Rounds of a height that may fail; any number if there is none.
    pub rounds: Option<u32>,
    /// Heights of which the first round may fail; any number if there is none.
    pub failed_heights: Option<u32>,
}

impl PegPlan {
    /// Bitcoin goes on, and nothing goes wrong.
    pub(super) fn used() -> Self {
        Self { mining: Some(Duration::from_secs(3)), header_delay: HEADER_DELAY, ..Self::default() }
    }

    /// Bitcoin is healthy from here on.
    pub(in crate::sim) fn heal(&mut self) {
        self.lag.fill(LAG);
        self.header_delay = HEADER_DELAY;
        self.fork_percent = 0;
        self.failing.clear();
        self.mining = self.mining.map(|every| every.min(Duration::from_secs(2)));
    }
}

impl Plan {
    pub(super) fn peg_scene(&mut self, rng: &mut Rng) {
        self.peg = PegPlan::used();
        self.heights *= 2;
        match self.scenario {
            Scenario::LateHeaders => {
                self.powers = powers(rng, 4, 7);
                self.peg.lag = (0..self.hosts()).map(|_| Duration::from_millis(rng.below(4_000))).collect();
                self.peg.header_delay = if rng.chance(50) { Duration::ZERO } else { HEADER_DELAY };
                self.peg.rounds = Some(1);
            }
            Scenario::DeadBitcoin => self.dead_bitcoin(rng),
            Scenario::BlindThird => self.blind_third(rng),
            Scenario::BitcoinReorg => {
                self.peg.fork_percent = 40;
                self.peg.lag = (0..self.hosts()).map(|_| Duration::from_millis(rng.below(2_500))).collect();
                self.peg.rounds = Some(1);
            }
            Scenario::CensoringProposers => self.liars(rng, &[Strategy::Censor]),
            Scenario::FalseEvidence => self.liars(rng, &[Strategy::FalseEvidence]),
            _ => {
                self.full_nodes = 2;
                self.peg.without = vec![self.powers.len() + 1];
            }
        }
    }

    /// The Bitcoin nodes of some validators fail: of less than a third, which nobody may notice, or of more.
    fn dead_bitcoin(&mut self, rng: &mut Rng) {
        self.powers = vec![1; 4 + rng.index(4)];
        let count = self.powers.len();
        let few = (count - 1) / 3;
        let failing = if rng.chance(50) { rng.index(few + 1) } else { few + 1 + rng.index(count - few) };
        let first = rng.index(count);
        self.peg.failing = (first..first + failing).map(|host| host % count).collect();
        self.peg.rounds = Some(u32::from(failing > few));
        // One of the others has none at all.
        if failing < few {
            self.peg.without = vec![(first + failing) % count];
        }
    }

    /// So many validators are without a Bitcoin node that no block with news of Bitcoin gets through.
    fn blind_third(&mut self, rng: &mut Rng) {
        self.powers = vec![1; 4 + rng.index(6)];
        self.full_nodes = rng.index(2);
        self.skew_ms = vec![0; self.hosts()];
        let (count, first) = (self.powers.len(), rng.index(self.powers.len()));
        let blind = (count - 1) / 3 + 1;
        self.peg.down = (first..first + blind).map(|host| host % count).collect();
        self.peg.rounds = Some(1);
        // The pauses are 1, 2, 4, 8, 16, 32 heights, and then 64; the first may come again until proposers of more than a third
        // have failed.
        self.peg.failed_heights = Some(10 + self.heights / 64);
    }

    /// All of it at once, among other troubles.
    pub(super) fn troubled_bitcoin(&mut self, rng: &mut Rng) {
        self.peg = PegPlan::used();
        self.peg.fork_percent = rng.below(40);
        self.peg.lag = (0..self.hosts()).map(|_| Duration::from_millis(rng.below(2_000))).collect();
        self.peg.header_delay = if rng.chance(50) { Duration::ZERO } else { HEADER_DELAY };
        self.peg.failing = (0..self.hosts()).filter(|_| rng.chance(30)).collect();
    }
}
