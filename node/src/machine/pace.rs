//! How many bytes a block of ours has at most: what has reached the others in time lately, and twice as much at most.
//!
//! ```text
//! decided in round 0 within half of the wait for a proposal   that much reaches them: the next may have twice as much
//! decided in round 0, but it took longer                      so much and no more; beyond three quarters, a quarter less
//! a block of ours was not decided in its round                half of it; each of ours that is decided in time adds an
//!                                                             eighth, one that is nearly as long and quick doubles it
//! another's came after its round                              half of what was thought to reach them, at most
//! ```
//!
//! **Who can influence it.** What is decided has the votes of more than two thirds. What fails shrinks this node's own blocks
//! only if they are its own; a proposer whose blocks come late on purpose halves what others try, once in its turn, and the
//! next full block that is decided doubles it again. Blocks up to [`FLOOR`] are sent unasked and never the reason.

use std::time::Duration;

use crate::wire::{BLOCK_BYTES_MAX, PUSHED_BYTES_MAX};

/// What a block may have at least, whatever happened.
const FLOOR: usize = PUSHED_BYTES_MAX;

/// What is tried first: a quarter of a full block.
const FIRST: usize = BLOCK_BYTES_MAX / 4;

/// With each block that is smaller, what was reached before counts less by this part of it.
const FADES: usize = 64;

/// What is known of the size of blocks.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    /// How long the engine waits for a proposal in round 0.
    wait: Duration,
    /// Bytes that reached the others in time.
    reached: usize,
    /// Bytes that blocks of ours may have, as the last of them went.
    own: usize,
}

impl Pace {
    pub(super) fn new(wait: Duration) -> Self {
        Self { wait, reached: FIRST / 2, own: BLOCK_BYTES_MAX }
    }

    /// Bytes that the next block of ours may have.
    pub(super) fn limit(&self) -> usize {
        self.reached.saturating_mul(2).min(self.own).clamp(FLOOR, BLOCK_BYTES_MAX)
    }

    /// A block of so many bytes was decided in round 0, so long after its height began.
    pub(super) fn decided(&mut self, bytes: usize, took: Duration, is_ours: bool) {
        if took > self.wait / 2 {
            // What is far from the limit is late for another reason.
            if bytes >= self.limit() / 2 {
                let next = if took > self.wait / 4 * 3 { bytes / 4 * 3 } else { bytes };
                self.reached = self.reached.min(next / 2).max(FLOOR / 2);
            }
            return;
        }
        // What was long ago counts less and less, a failure too: a long transaction waits until blocks are long enough.
        let faded = match self.reached.checked_sub(FIRST / 2) {
            Some(above) => self.reached - above / FADES,
            None => self.reached + (FIRST / 2 - self.reached) / 8,
        };
        self.reached = faded.max(bytes);
        if is_ours {
            let doubles = bytes >= self.own / 2 && took <= self.wait / 4;
            let more = if doubles { self.own } else { self.own / 8 };
            self.own = self.own.saturating_add(more).min(BLOCK_BYTES_MAX);
        }
    }

    /// A block of ours of so many bytes was not decided in its round.
    pub(super) fn failed(&mut self, bytes: usize) {
        self.own = (bytes / 2).clamp(FLOOR, self.own.max(FLOOR));
    }

    /// A block of another came when its round was over.
    pub(super) fn came_late(&mut self, bytes: usize) {
        self.reached = self.reached.min((self.reached / 2).max(bytes / 4)).max(FLOOR / 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(3);
    const SOON: Duration = Duration::from_millis(300);
    const CLOSE: Duration = Duration::from_millis(2_000);

    #[test]
    fn on_a_fast_network_full_blocks_come_after_two_more() {
        let mut pace = Pace::new(WAIT);
        let mut sizes = Vec::new();
        for _ in 0..4 {
            sizes.push(pace.limit());
            pace.decided(pace.limit(), SOON, false);
        }
        assert_eq!(sizes, [1_000_000, 2_000_000, 4_000_000, 4_000_000]);
    }

    #[test]
    fn a_failure_halves_our_own_until_they_are_decided_in_time() {
        let mut pace = Pace::new(WAIT);
        (0..3).for_each(|_| pace.decided(pace.limit(), SOON, true));
        pace.failed(4_000_000);
        pace.failed(2_000_000);
        assert_eq!(pace.limit(), 1_000_000);
        // What others get through says nothing of this node's line.
        pace.decided(4_000_000, SOON, false);
        assert_eq!(pace.limit(), 1_000_000);
        pace.decided(1_000_000, WAIT / 2, true);
        assert_eq!(pace.limit(), 1_125_000);
        pace.decided(1_125_000, SOON, true);
        assert_eq!(pace.limit(), 2_250_000);
    }

    #[test]
    fn what_was_close_grows_no_further() {
        let mut pace = Pace::new(WAIT);
        pace.decided(1_000_000, SOON, false);
        pace.decided(2_000_000, CLOSE, false);
        assert_eq!(pace.limit(), 2_000_000, "so much and no more");
        pace.decided(600_000, CLOSE, false);
        assert_eq!(pace.limit(), 2_000_000, "what is far from the limit is late for another reason");
        pace.decided(2_000_000, WAIT, false);
        assert_eq!(pace.limit(), 1_500_000);
    }

    #[test]
    fn no_failure_brings_a_block_below_what_is_sent_unasked() {
        let mut pace = Pace::new(WAIT);
        for _ in 0..40 {
            pace.failed(pace.limit());
            pace.came_late(4_000_000);
            pace.came_late(0);
        }
        assert_eq!(pace.limit(), PUSHED_BYTES_MAX);
        let mut heights = 0;
        pace.reached = FLOOR / 2;
        while pace.limit() < BLOCK_BYTES_MAX {
            pace.decided(pace.limit(), SOON, true);
            heights += 1;
        }
        assert_eq!(heights, 6, "64 KiB doubles to 4 MB");
    }

    #[test]
    fn a_long_transaction_does_not_wait_for_ever_behind_a_failure() {
        let mut pace = Pace::new(WAIT);
        while pace.limit() > FLOOR {
            pace.failed(pace.limit());
            pace.came_late(0);
        }
        let mut heights = 0;
        while pace.limit() < 500_000 {
            pace.decided(300, SOON, true);
            heights += 1;
        }
        assert!(heights < 30, "{heights}");
    }

    #[test]
    fn one_proposer_that_is_late_in_each_of_its_turns_costs_a_doubling() {
        let mut pace = Pace::new(WAIT);
        for _ in 0..20 {
            (0..6).for_each(|_| pace.decided(pace.limit(), SOON, false));
            assert_eq!(pace.limit(), BLOCK_BYTES_MAX);
            pace.came_late(1_000);
        }
    }

    #[test]
    fn what_was_reached_long_ago_is_tried_in_steps_again() {
        let mut pace = Pace::new(WAIT);
        (0..3).for_each(|_| pace.decided(pace.limit(), SOON, false));
        (0..1_000).for_each(|_| pace.decided(300, SOON, false));
        assert!((FIRST..=FIRST + 200).contains(&pace.limit()), "{}", pace.limit());
    }
}
