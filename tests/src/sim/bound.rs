//! How long a healed network may take until every honest host has caught up and gone on.

use std::time::Duration;

use super::bitcoin::SIGNING;
use super::byzantine::Strategy;
use super::plan::round_time;
use super::world::{HEIGHTS_AFTER, World};

/// Until a host that is behind knows it, and asks: links come back, peers are asked for their tips every 2 s, and one
/// block is waited for 1.5 s and half a second.
const NOTICE: Duration = Duration::from_millis(100 + 2_000 + 1_500 + 500);

/// The same for a host that starts far behind: connections, the first tips, and until sync looks after itself.
const NOTICE_FAR: Duration = Duration::from_millis(100 + 200 + 500);

/// A request to somebody who does not answer.
const UNANSWERED: Duration = Duration::from_secs(10);

/// What is needed first is asked for again after this time.
const FIRST_SLOW: Duration = Duration::from_secs(2);

/// An engine that waits for sync in vain starts after this time.
const SYNC_STUCK: Duration = Duration::from_secs(5);

/// A validator that starts asks the others for their tips again after this time.
const TIPS_AGAIN: Duration = Duration::from_secs(4);

/// Until what fills thin lines when the trouble ends is through, and answers that came too late are asked for again.
const LINES_EMPTY: Duration = Duration::from_secs(20);

/// A desk looks twice a second.
const DESK: Duration = Duration::from_millis(500);

/// A node sends its own claims again after this time.
const CLAIMED_AGAIN: Duration = Duration::from_secs(30);

/// Batches that have to wait for each other's change.
const BATCHES: u32 = 3;

/// A Bitcoin node that spoke against a block is asked again after this time.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// A clock this far ahead of another proposes blocks that the other holds.
const APART_MS: i64 = 10_000;

impl World {
    /// The bound from the state at the end of the trouble.
    pub(super) fn healing_bound(&self) -> Duration {
        let faults = &self.plan.faults;
        // Jobs and messages that are on their way are as slow as before.
        let leftover = faults.validation + faults.disk * 2 + faults.delay;
        let hops = if self.plan.degree.is_some() { 4 } else { 1 };
        // Proposal and body, prevotes, precommits; judging; writing.
        let height = Duration::from_millis(self.plan.interval_ms.into())
            + self.plan.delay * 3 * hops
            + Duration::from_millis(40);
        leftover
            + self.starting()
            + self.catching_up()
            + self.meeting()
            + self.failing_rounds()
            + self.hidden_lock()
            + self.thin_lines()
            + if self.plan.peg.mining.is_some() { ASK_AGAIN } else { Duration::ZERO }
            + height * HEIGHTS_AFTER
    }

    /// How long it takes after the healing until the peg has nothing left to do, once nobody asks for more.
    pub(super) fn peg_bound(&self) -> Duration {
        let params = self.spec.params();
        let liars = if self.plan.byzantine.is_empty() { Duration::ZERO } else { round_time(0) + round_time(1) };
        let height = Duration::from_millis(self.plan.interval_ms.into()) + self.plan.delay * 12 + liars;
        let block = self.plan.peg.mining.unwrap_or_default() + self.plan.peg.header_delay + DESK;
        // Into a block, and until that is final here.
        let deep = block * (params.final_depth + 1) + height * 2;
        // A claim that got lost comes again, and all validators but liars have their turn.
        let turns = u32::try_from(self.plan.powers.len()).expect("few") + self.left_out();
        let credit = deep + CLAIMED_AGAIN + height * turns;
        let batch = height * params.batch_interval + SIGNING + deep;
        credit + batch * BATCHES
    }

    /// Heights that some honest validator still leaves out.
    fn left_out(&self) -> u32 {
        let left = |host: usize| {
            let until = self.hosts[host].life.as_ref().and_then(|life| life.left_out);
            until.map_or(0, |until| until.to_u32().saturating_sub(self.hosts[host].height().to_u32()))
        };
        self.honest().map(left).max().unwrap_or(0)
    }

    /// Until the last host has what the first has.
    fn catching_up(&self) -> Duration {
        let top = self.watch.height().to_u32();
        let missing = self.honest().map(|host| top - self.hosts[host].height().to_u32()).max().unwrap_or(0);
        let down = self.honest().any(|host| self.hosts[host].life.is_none());
        let cut = self.plan.faults.regroup_every.is_some();
        if missing == 0 && !down && !cut && self.plan.is_smooth() {
            return Duration::ZERO;
        }
        let faults = &self.plan.faults;
        let lost = cut && faults.silent || faults.request_loss_permille > 0;
        let stalling = |strategies: &[Strategy]| {
            strategies.iter().any(|strategy| matches!(strategy, Strategy::LyingSync | Strategy::Withhold))
        };
        let stalling = self.plan.byzantine.iter().filter(|(_, strategies)| stalling(strategies)).count();
        let stalling = u32::try_from(stalling).expect("few");
        let strangers =
            self.plan.byzantine.iter().filter(|(_, strategies)| strategies.contains(&Strategy::Stall)).count();
        let strangers = u32::try_from(strangers).expect("few");
        // Who is far behind does not wait for consensus to bring the next block.
        // The third and later ones have twice the time: the line may be thin.
        let slow = FIRST_SLOW * (strangers + strangers.saturating_sub(2));
        let notice = if strangers > 0 { NOTICE_FAR + slow } else { NOTICE };
        notice
            + if lost { UNANSWERED } else { Duration::ZERO }
            + (UNANSWERED + SYNC_STUCK) * stalling
            + (self.plan.work * 3) * missing
            // One question for so many blocks.
            + self.plan.delay * 2 * missing.div_ceil(32)
    }

    /// How long the bytes of the blocks take that the last host misses, beside as many others and what is sent meanwhile.
    fn thin_lines(&self) -> Duration {
        if self.plan.lines.is_empty() {
            return Duration::ZERO;
        }
        let of_host = |host: usize| self.hosts[host].blocks.iter().map(|block| block.block.len()).sum::<usize>();
        let most = self.honest().map(of_host).max().unwrap_or(0);
        let takes = |host: usize| (most - of_host(host).min(most)) as f64 / self.plan.lines[host] as f64;
        let longest = self.honest().map(takes).fold(0.0, f64::max);
        Duration::from_secs_f64(longest * 3.0) + LINES_EMPTY + round_time(0) * HEIGHTS_AFTER
    }

    /// Until the tips of validators that start are confirmed.
    fn starting(&self) -> Duration {
        let waits = |host: usize| self.hosts[host].life.as_ref().is_none_or(|life| life.node.status().awaits_tips);
        if self.honest().any(waits) { TIPS_AGAIN + self.plan.delay * 4 } else { Duration::ZERO }
    }

    /// Until all are in one round: the one at hand, and the next.
    fn meeting(&self) -> Duration {
        if self.plan.is_smooth() {
            return Duration::ZERO;
        }
        let rounds = self.honest().filter_map(|host| self.hosts[host].life.as_ref());
        let round = rounds.map(|life| life.node.status().round).max().unwrap_or(0);
        round_time(round) + round_time(round + 1)
    }

    /// Votes that only one validator was told can lock it on a block that nobody else knows to be locked on; then nothing
    /// is decided until its turn comes, and it proposes that block again.
    fn hidden_lock(&self) -> Duration {
        let two_faced = |(_, strategies): &(usize, Vec<Strategy>)| strategies.contains(&Strategy::Equivocate);
        if !self.plan.byzantine.iter().any(two_faced) {
            return Duration::ZERO;
        }
        let turns = u32::try_from(self.plan.powers.len()).expect("few") + 2;
        (0..turns).map(round_time).sum()
    }

    /// Rounds of proposers whose blocks do not come through. One that has few seats has few turns.
    fn failing_rounds(&self) -> Duration {
        let slowest = self.honest().map(|host| self.hosts[host].skew_ms).min().unwrap_or(0);
        let failing = |host: &usize| !self.plan.is_honest(*host) || self.hosts[*host].skew_ms - slowest > APART_MS;
        let failing = u32::try_from((0..self.plan.powers.len()).filter(failing).count()).expect("few");
        // At most two turns each in so many heights, in rounds 0 or 1 of them.
        (round_time(0) + round_time(1)) * failing
    }
}
