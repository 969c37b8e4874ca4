//! A token bucket: what somebody may use in the long run, and at once after a silence; and for how long it is borne that
//! somebody wants more. Pure: the caller has the clock.

use std::time::Duration;

/// Parts of a token that are counted: what fills in a microsecond at one token a second.
const MICROS: i64 = 1_000_000;

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Tokens that come back in a second.
    pub(crate) per_second: u32,
    /// Tokens of a full bucket.
    pub(crate) burst: u32,
}

/// A bucket of tokens.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    rate: Rate,
    /// In millionths. Below zero is debt, at most as much as the bucket holds.
    level: i64,
    /// When it was at that level, by the caller's clock.
    at: Duration,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn full(rate: Rate, now: Duration) -> Self {
        Self { rate, level: i64::from(rate.burst) * MICROS, at: now }
    }

    /// Takes so many tokens if they are there.
    pub(crate) fn take(&mut self, now: Duration, count: u32) -> bool {
        self.fill(now);
        let cost = i64::from(count) * MICROS;
        let there = self.level >= cost;
        if there {
            self.level -= cost;
        }
        there
    }

    /// Whether there is at least one token.
    pub(crate) fn is_open(&mut self, now: Duration) -> bool {
        self.fill(now);
        self.level >= MICROS
    }

    /// Takes so many tokens, there or not: what is missing is debt.
    pub(crate) fn spend(&mut self, now: Duration, count: u32) {
        self.fill(now);
        self.level = (self.level - i64::from(count) * MICROS).max(-i64::from(self.rate.burst) * MICROS);
    }

    /// Gives tokens back that were taken for nothing.
    pub(crate) fn give_back(&mut self, count: u32) {
        self.level = (self.level + i64::from(count) * MICROS).min(i64::from(self.rate.burst) * MICROS);
    }

    /// Whether nothing of it is used.
    pub(crate) fn is_full(&mut self, now: Duration) -> bool {
        self.fill(now);
        self.level >= i64::from(self.rate.burst) * MICROS
    }

    fn fill(&mut self, now: Duration) {
        let micros = i64::try_from(now.saturating_sub(self.at).as_micros()).unwrap_or(i64::MAX);
        let gained = micros.saturating_mul(self.rate.per_second.into());
        self.level = self.level.saturating_add(gained).min(i64::from(self.rate.burst) * MICROS);
        self.at = self.at.max(now);
    }
}

/// Whoever wants more than there is for so long is borne no longer..
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// .. if it makes no pause of so long.
const CALM: Duration = Duration::from_secs(10);

/// How long somebody has wanted more than there is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Patience {
    /// Since when, and the last time.
    over: Option<(Duration, Duration)>,
}

impl Patience {
    /// Somebody is turned away. Returns whether it is enough.
    pub(crate) fn try_on(&mut self, now: Duration) -> bool {
        let since = match self.over {
            Some((since, last)) if now < last + CALM => since,
            _ => now,
        };
        let enough = now >= since + PATIENCE;
        self.over = (!enough).then_some((since, now));
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_second: 4, burst: 10 };

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_bucket_lets_a_burst_through_and_then_its_rate() {
        let mut bucket = Bucket::full(RATE, at(0));
        assert!(bucket.is_full(at(0)));
        assert!(!bucket.take(at(0), 11));
        assert_eq!((0..20).filter(|_| bucket.take(at(0), 1)).count(), 10);
        let through = (0..100).filter(|step| bucket.take(at(100 * step), 1)).count();
        assert_eq!(through, 39, "four a second, for 9.9 seconds");
        assert!(bucket.take(at(1_000_000), 10), "no more than a burst after a silence");
        assert!(!bucket.take(at(1_000_000), 1));
        // A clock that goes back gives nothing.
        assert!(!bucket.take(at(0), 1));
        assert!(!bucket.take(at(1_000_000), 1));
    }

    #[test]
    fn debt_is_paid_before_anything_is_let_through() {
        let mut bucket = Bucket::full(RATE, at(0));
        bucket.spend(at(0), 14);
        assert!(!bucket.is_open(at(1_000)));
        assert!(bucket.is_open(at(1_250)));
        bucket.spend(at(1_250), u32::MAX);
        assert!(!bucket.is_open(at(3_749)), "never more than a burst of debt");
        assert!(bucket.is_open(at(1_250 + 2_750)));
        bucket.give_back(100);
        assert!(bucket.is_full(at(4_000)));
    }
}
