//! Thin lines: how long bytes take that share them.
//!
//! Each host has one line, up and down, for all its connections. Long messages go one after the other; short ones go between
//! their parts, as connections share a line, and take their bytes from it all the same. What is sent on is cut through: it
//! goes down the second line while it comes up the first.

use std::time::Duration;

use super::plan::Plan;

/// Messages up to this many bytes wait for no other.
const SHORT: usize = 16 << 10;

/// Gossip that would wait longer for the line of its sender or receiver is dropped, as by a queue that is full.
const QUEUE: Duration = Duration::from_secs(3);

/// Whoever has as much to send as takes this long refuses to send more blocks, as the network does.
const BUSY: Duration = Duration::from_secs(1);

/// The lines of all hosts, if they are thin.
pub(super) struct Lines(Vec<Line>);

struct Line {
    bytes_per_second: u64,
    /// When what was sent before is through.
    up: Duration,
    down: Duration,
}

impl Line {
    fn takes(&self, bytes: usize) -> Duration {
        Duration::from_micros(u64::try_from(bytes).expect("few").saturating_mul(1_000_000) / self.bytes_per_second)
    }
}

impl Lines {
    pub(super) fn new(plan: &Plan) -> Self {
        let line = |bytes_per_second: &u64| Line {
            bytes_per_second: *bytes_per_second,
            up: Duration::ZERO,
            down: Duration::ZERO,
        };
        Self(plan.lines.iter().map(line).collect())
    }

    /// Whether a message is long, and its line thin: then it is worth while to know who has it.
    pub(super) fn is_long(&self, bytes: usize) -> bool {
        !self.0.is_empty() && bytes > SHORT
    }

    /// How long gossip takes, besides its delay; `None` if it is dropped.
    pub(super) fn gossip(&mut self, now: Duration, from: usize, to: usize, bytes: usize) -> Option<Duration> {
        let queues = self.0.get(from).zip(self.0.get(to)).map(|(from, to)| from.up.max(to.down));
        if self.is_long(bytes) && queues.is_some_and(|free| free > now + QUEUE) {
            return None;
        }
        Some(self.carry(now, from, to, bytes))
    }

    /// Whether a host sends so much already that it refuses to send a long block, as the network does.
    pub(super) fn refuses(&self, now: Duration, host: usize, bytes: usize) -> bool {
        self.is_long(bytes) && self.0[host].up > now + BUSY
    }

    /// How long bytes take that are sent now, besides their delay.
    pub(super) fn carry(&mut self, now: Duration, from: usize, to: usize, bytes: usize) -> Duration {
        if self.0.is_empty() {
            return Duration::ZERO;
        }
        let (first, second) = (self.0[from].takes(bytes), self.0[to].takes(bytes));
        let starts = self.0[from].up.max(now);
        let through = starts + first;
        self.0[from].up = through;
        let down = &mut self.0[to].down;
        let comes = ((*down).max(starts) + second).max(through);
        if bytes <= SHORT {
            *down = (*down).max(now) + second;
            return first.max(second);
        }
        *down = comes;
        comes - now
    }
}
