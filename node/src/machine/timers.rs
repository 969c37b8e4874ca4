//! What the node waits for, by time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bitcoin::BlockHash;
use causeway_consensus::bft::Timer;

/// Something to do at some time. This is its name: setting it again moves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Alarm {
    /// The engine's.
    Engine(Timer),
    /// Start the next height.
    StartHeight,
    /// Propose: the clock has come to the earliest time that the next block may have.
    Propose,
    /// Look again at the blocks that the clock or Bitcoin held up.
    Judge,
    /// Ask for a block whose proposal is here.
    FetchBody(BlockHash),
    /// Look after sync: requests that take too long, peers that are ahead.
    Sync,
    /// Ask the peers for their tips.
    AskStatus,
    /// Ask the other validators for their tips, until enough have said that ours is not old.
    AskTips,
    /// Answer the validators that have asked for our tip.
    AnswerTips,
    /// Send the transactions that have gathered.
    Transactions,
    /// Send this node's own transactions and claims again.
    Rebroadcast,
}

/// The alarms that are set.
#[derive(Debug, Default)]
pub(super) struct Timers {
    times: BTreeMap<Alarm, Duration>,
    queue: BTreeSet<(Duration, Alarm)>,
}

impl Timers {
    /// Sets an alarm, at this uptime.
    pub(super) fn set(&mut self, alarm: Alarm, at: Duration) {
        self.stop(alarm);
        self.times.insert(alarm, at);
        self.queue.insert((at, alarm));
    }

    /// Sets an alarm, unless it is set to go off before.
    pub(super) fn set_at_latest(&mut self, alarm: Alarm, at: Duration) {
        if self.times.get(&alarm).is_none_or(|set| *set > at) {
            self.set(alarm, at);
        }
    }

    /// Lets an alarm go off no later than this, if it is set.
    pub(super) fn hasten(&mut self, alarm: Alarm, at: Duration) {
        if self.times.contains_key(&alarm) {
            self.set_at_latest(alarm, at);
        }
    }

    /// Forgets an alarm.
    pub(super) fn stop(&mut self, alarm: Alarm) {
        if let Some(at) = self.times.remove(&alarm) {
            self.queue.remove(&(at, alarm));
        }
    }

    /// Forgets every alarm that `which` names.
    pub(super) fn stop_all(&mut self, which: impl Fn(&Alarm) -> bool) {
        self.times.retain(|alarm, _| !which(alarm));
        self.queue.retain(|(_, alarm)| !which(alarm));
    }

    /// Takes the next alarm that is due.
    pub(super) fn due(&mut self, uptime: Duration) -> Option<Alarm> {
        let (_, alarm) = self.queue.first().filter(|(at, _)| *at <= uptime).copied()?;
        self.stop(alarm);
        Some(alarm)
    }

    /// When the next alarm goes off.
    pub(super) fn next(&self) -> Option<Duration> {
        self.queue.first().map(|(at, _)| *at)
    }
}
