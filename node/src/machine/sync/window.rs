//! How much of the chain is asked for at once.
//!
//! | What | First | Least | Most |
//! |---|---|---|---|
//! | stretches asked for at once | 2 | 1 | 8 |
//! | blocks of a stretch | 16 | 1 | 64 |
//! | time until the first stretch is asked of a second peer | 2 s | 2 s | 20 s |
//!
//! An answer within a second adds a stretch and doubles their length. One that took more than four seconds halves the number
//! of stretches, or their length when there is one. An answer that its bound on bytes has cut short shortens them too: what
//! was asked beyond it would have to be asked again, out of order. The first stretch, for which all others wait, is asked of
//! a second peer when it takes three times as long as the slowest lately: on a thin line, which one answer fills, a second
//! copy would only take half of it.
//!
//! **Who can influence it.** Only answers that were used count. Whoever answers slowly is asked after those that did not
//! (`Served::is_slow`), so that it is asked less the smaller the window is, and the others' answers open it again. An answer
//! cut short counts only if it has the bytes that would cut it.

use std::time::Duration;

use crate::wire::ANSWER_BYTES_TARGET;

/// Stretches that are asked for or here: with answers of 8 MB at most, this bounds the memory.
pub(super) const STRETCHES_MAX: usize = 8;

const STRETCHES_FIRST: usize = 2;

const BLOCKS_MAX: u16 = 64;

const BLOCKS_FIRST: u16 = 16;

/// An answer within this time leaves room for more.
const QUICK: Duration = Duration::from_secs(1);

/// One that takes longer than this was too much.
pub(super) const SLOW: Duration = Duration::from_secs(4);

const PATIENCE_MIN: Duration = Duration::from_secs(2);

const PATIENCE_MAX: Duration = Duration::from_secs(20);

/// What is asked for at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    stretches: usize,
    blocks: u16,
    /// How long answers take, the slowest more than others.
    usual: Duration,
}

/// An answer that was used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) asked: u16,
    pub(super) blocks: u16,
    pub(super) bytes: usize,
    pub(super) took: Duration,
}

impl Default for Window {
    fn default() -> Self {
        Self { stretches: STRETCHES_FIRST, blocks: BLOCKS_FIRST, usual: Duration::ZERO }
    }
}

impl Window {
    /// Stretches that are asked for at once.
    pub(super) fn stretches(&self) -> usize {
        self.stretches
    }

    /// Blocks of a stretch.
    pub(super) fn blocks(&self) -> u16 {
        self.blocks
    }

    /// How long the first stretch may take until another peer is asked for it, when so many were.
    pub(super) fn patience(&self, asked: usize) -> Duration {
        let once = (self.usual * 3).clamp(PATIENCE_MIN, PATIENCE_MAX);
        if asked > 2 { once * 2 } else { once }
    }

    /// Takes note of an answer.
    pub(super) fn note(&mut self, answer: Answer) {
        let Answer { asked, blocks, bytes, took } = answer;
        self.usual = took.max((self.usual * 3 + took) / 4);
        let is_cut = blocks < asked && bytes >= ANSWER_BYTES_TARGET / 4;
        if took > SLOW {
            if self.stretches > 1 {
                self.stretches /= 2;
            } else {
                self.blocks = self.blocks.min(blocks).div_ceil(2);
            }
        } else if took < QUICK {
            self.stretches = (self.stretches + 1).min(STRETCHES_MAX);
            if blocks == asked {
                self.blocks = self.blocks.saturating_mul(2).min(BLOCKS_MAX);
            }
        }
        if is_cut {
            self.blocks = self.blocks.min(blocks.max(self.blocks / 2)).max(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(blocks: u16, took_ms: u64) -> Answer {
        Answer { asked: blocks, blocks, bytes: 1_000, took: Duration::from_millis(took_ms) }
    }

    fn after(answers: impl IntoIterator<Item = Answer>) -> Window {
        let mut window = Window::default();
        answers.into_iter().for_each(|answer| window.note(answer));
        window
    }

    #[test]
    fn on_a_fast_line_it_opens_wide_after_six_answers() {
        let window = after([answer(16, 50); 6]);
        assert_eq!((window.stretches(), window.blocks()), (8, 64));
        assert_eq!(window.patience(1), Duration::from_secs(2));
    }

    #[test]
    fn on_a_thin_line_one_stretch_is_asked_for_then_a_shorter_one_and_never_none() {
        let window = after([answer(16, 9_000); 1]);
        assert_eq!((window.stretches(), window.blocks()), (1, 16));
        let window = after([answer(16, 9_000); 2]);
        assert_eq!((window.stretches(), window.blocks()), (1, 8));
        let window = after([answer(1, 60_000); 20]);
        assert_eq!((window.stretches(), window.blocks()), (1, 1));
        assert_eq!(window.patience(1), PATIENCE_MAX);
    }

    #[test]
    fn the_first_stretch_has_three_times_what_the_slowest_took_and_forgets_it() {
        let mut window = after([answer(16, 5_000)]);
        assert_eq!((window.patience(2), window.patience(3)), (Duration::from_secs(15), Duration::from_secs(30)));
        (0..8).for_each(|_| window.note(answer(8, 50)));
        assert_eq!(window.patience(1), PATIENCE_MIN);
    }

    #[test]
    fn answers_that_are_cut_short_for_their_bytes_make_stretches_as_long_as_answers() {
        let full = Answer { asked: 16, blocks: 1, bytes: ANSWER_BYTES_TARGET, took: Duration::from_millis(300) };
        let window = after([full; 5]);
        assert_eq!((window.stretches(), window.blocks()), (7, 1));
        let short = Answer { bytes: 1_000, ..full };
        assert_eq!(after([short; 5]).blocks(), 16);
    }

    #[test]
    fn one_that_answers_slowly_is_outdone_by_two_that_do_not() {
        let mut window = Window::default();
        for _ in 0..20 {
            window.note(answer(16, 5_000));
            (0..6).for_each(|_| window.note(answer(16, 100)));
            assert!(window.stretches() >= 4 && window.blocks() == BLOCKS_MAX, "{window:?}");
        }
    }
}
