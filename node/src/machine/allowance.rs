//! What a peer may cost this node: a bucket for each kind of work, paid with what came to nothing.
//!
//! A message is let in if its kind has a token left and not too much of the same peer's is under way; this is asked
//! before anything is done for it. Work that was worth it (a message that is sent on, a transaction that the pool takes or
//! has) costs nothing: validators' signatures, fees and deposits bound it. What came to nothing is taken from the bucket
//! afterwards, into debt if need be.
//!
//! | kind | unit | wasted at once | wasted each second | under way |
//! |---|---|---|---|---|
//! | each | a message that is old, known, or of no use | 4,096 | 512 | |
//! | consensus | a signature, 40 us of a worker | 256 | 32 | 512 |
//! | transactions | 256 bytes of one, begun | 2,048 | 128 | 2,048 |
//! | bodies | 1,024 bytes of a short one that nobody has proposed | 4,096 | 256 | |
//! | claims | a proof, some 640 us of a worker | 256 | 4 | 128 |
//!
//! **An honest peer stays below.** It sends on only what it has verified itself: a vote whose signature fails here failed
//! there; of another validator set it is for one height at most; a body is sent on when it is judged or proposed. What is late
//! or twice costs a token of the first row: a third of 256 validators that are late at five blocks a second are 427. Of
//! transactions it sends on what its pool took: what this pool refuses all the same (another took the coin first, another
//! policy) is refused here a little later, and a peer of which this is all that comes for a minute is of no use. So a peer
//! that has no token left loses nothing but what it sends then; its score, which bans, is not touched. Only one that goes
//! on for a minute is disconnected, and may come back, its buckets as they were.

use std::time::Duration;

use crate::bucket::{Bucket, Patience, Rate};
use crate::wire::Topic;

/// Messages that tell nothing new.
const IDLE: Rate = Rate { per_second: 512, burst: 4_096 };

/// What may be wasted of a kind of work.
fn waste(topic: Topic) -> Rate {
    match topic {
        Topic::Consensus => Rate { per_second: 32, burst: 256 },
        Topic::Transactions => Rate { per_second: 128, burst: 2_048 },
        Topic::Bodies => Rate { per_second: 256, burst: 4_096 },
        Topic::Claims => Rate { per_second: 4, burst: 256 },
    }
}

/// Work of a kind that may be under way for one peer, unless it is a single message.
fn under_way(topic: Topic) -> u32 {
    match topic {
        Topic::Consensus => 512,
        Topic::Transactions => 2_048,
        // What waits for its proposal is bounded by itself.
        Topic::Bodies => u32::MAX,
        Topic::Claims => 128,
    }
}

/// What a transaction of so many bytes costs.
pub(super) fn transaction_cost(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(256)).unwrap_or(u32::MAX)
}

/// What a body of so many bytes costs.
pub(super) fn body_cost(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1_024)).unwrap_or(u32::MAX)
}

/// Whether a peer's message is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is.
    Yes,
    /// It is not: drop it.
    No,
    /// It is not, and has not been for long.
    HangUp,
}

/// The allowance of one peer.
#[derive(Clone, Debug)]
pub(super) struct Allowance {
    /// In the order of [`Topic::ALL`].
    lanes: [Lane; Topic::ALL.len()],
    patience: Patience,
}

#[derive(Clone, Debug)]
struct Lane {
    /// Messages that tell nothing new.
    idle: Bucket,
    waste: Bucket,
    under_way: u32,
}

impl Allowance {
    /// That of a new peer.
    pub(super) fn new(now: Duration) -> Self {
        let lane = |topic| Lane { idle: Bucket::full(IDLE, now), waste: Bucket::full(waste(topic), now), under_way: 0 };
        Self { lanes: Topic::ALL.map(lane), patience: Patience::default() }
    }

    /// Whether a message is let in, before a look at it.
    pub(super) fn knock(&mut self, now: Duration, topic: Topic) -> Admission {
        if self.is_open(now, topic) { Admission::Yes } else { self.turn_away(now) }
    }

    /// The same, without a consequence.
    pub(super) fn is_open(&mut self, now: Duration, topic: Topic) -> bool {
        let lane = self.lane(topic);
        lane.idle.is_open(now) && lane.waste.is_open(now)
    }

    /// Begins work of this cost, unless too much is under way.
    pub(super) fn begin(&mut self, topic: Topic, cost: u32) -> bool {
        let lane = self.lane(topic);
        let all = lane.under_way.saturating_add(cost);
        let fits = lane.under_way == 0 || all <= under_way(topic);
        if fits {
            lane.under_way = all;
        }
        fits
    }

    /// Work of this cost has ended, and so much of it came to nothing.
    pub(super) fn end(&mut self, now: Duration, topic: Topic, cost: u32, wasted: u32) {
        let lane = self.lane(topic);
        lane.under_way = lane.under_way.saturating_sub(cost);
        lane.waste.spend(now, wasted);
    }

    /// What was wasted was not.
    pub(super) fn forgive(&mut self, topic: Topic, cost: u32) {
        self.lane(topic).waste.give_back(cost);
    }

    /// A message told nothing new.
    pub(super) fn idle(&mut self, now: Duration, topic: Topic) {
        self.lane(topic).idle.spend(now, 1);
    }

    /// Whether nothing of it is used.
    pub(super) fn is_whole(&mut self, now: Duration) -> bool {
        let mut whole = true;
        for lane in &mut self.lanes {
            whole &= lane.under_way == 0 && lane.idle.is_full(now) && lane.waste.is_full(now);
        }
        whole
    }

    fn turn_away(&mut self, now: Duration) -> Admission {
        if self.patience.try_on(now) { Admission::HangUp } else { Admission::No }
    }

    fn lane(&mut self, topic: Topic) -> &mut Lane {
        let place = match topic {
            Topic::Consensus => 0,
            Topic::Bodies => 1,
            Topic::Transactions => 2,
            Topic::Claims => 3,
        };
        &mut self.lanes[place]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Sends a signature every millisecond, all of them wrong, for so long. Returns how many were looked at.
    fn forge(allowance: &mut Allowance, from_ms: u64, to_ms: u64) -> (u32, Option<u64>) {
        let mut looked_at = 0;
        for ms in from_ms..to_ms {
            match allowance.knock(at(ms), Topic::Consensus) {
                Admission::Yes if allowance.begin(Topic::Consensus, 1) => {
                    looked_at += 1;
                    allowance.end(at(ms), Topic::Consensus, 1, 1);
                }
                Admission::HangUp => return (looked_at, Some(ms)),
                Admission::Yes | Admission::No => {}
            }
        }
        (looked_at, None)
    }

    #[test]
    fn what_comes_to_nothing_is_let_through_at_its_rate_and_ends_after_a_minute() {
        let mut allowance = Allowance::new(at(0));
        let (looked_at, end) = forge(&mut allowance, 0, 100_000);
        let end = end.expect("it ends");
        assert!((60_000..60_600).contains(&end), "{end}");
        assert!((2_150..2_200).contains(&looked_at), "256, and 32 a second: {looked_at}");
    }

    #[test]
    fn whoever_pauses_stays() {
        let mut allowance = Allowance::new(at(0));
        for round in 0..10 {
            assert_eq!(forge(&mut allowance, round * 70_000, round * 70_000 + 55_000).1, None);
        }
    }

    #[test]
    fn what_is_of_use_costs_nothing() {
        let mut allowance = Allowance::new(at(0));
        for ms in 0..10_000 {
            assert_eq!(allowance.knock(at(ms), Topic::Consensus), Admission::Yes);
            assert!(allowance.begin(Topic::Consensus, 171));
            allowance.end(at(ms), Topic::Consensus, 171, 0);
        }
        assert!(allowance.is_whole(at(10_000)));
    }

    #[test]
    fn so_much_is_under_way_at_once() {
        let mut allowance = Allowance::new(at(0));
        let begun = (0..5_000).filter(|_| allowance.begin(Topic::Consensus, 1)).count();
        assert_eq!(begun, 512);
        assert!(!allowance.begin(Topic::Consensus, 1));
        assert!(allowance.begin(Topic::Transactions, 10_000), "a single message always fits");
        assert!(!allowance.begin(Topic::Transactions, 1));
        assert!(!allowance.is_whole(at(0)));
    }

    #[test]
    fn one_kind_does_not_close_another() {
        let mut allowance = Allowance::new(at(0));
        allowance.end(at(0), Topic::Transactions, 0, u32::MAX);
        assert_eq!(allowance.knock(at(0), Topic::Transactions), Admission::No);
        assert_eq!(allowance.knock(at(0), Topic::Consensus), Admission::Yes);
        allowance.end(at(0), Topic::Bodies, 0, 4_096);
        assert_eq!(allowance.knock(at(0), Topic::Bodies), Admission::No);
        allowance.forgive(Topic::Bodies, 4_096);
        assert_eq!(allowance.knock(at(0), Topic::Bodies), Admission::Yes);
    }
}
