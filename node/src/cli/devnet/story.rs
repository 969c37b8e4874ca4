//! What happens on a devnet, step by step, with the time of each.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use serde::Serialize;

/// A step that was done.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// Its name, which stays the same from version to version.
    pub step: &'static str,
    /// When it was done, in milliseconds since the start.
    pub at_ms: u64,
    /// How long it took since the step before, in milliseconds.
    pub took_ms: u64,
    /// What happened, in words.
    pub text: String,
}

/// The steps so far.
pub(super) struct Story<'a, W> {
    out: &'a mut W,
    started: Instant,
    last: Duration,
    steps: Vec<Step>,
}

impl<'a, W: Write> Story<'a, W> {
    pub(super) fn new(out: &'a mut W) -> Self {
        Self { out, started: Instant::now(), last: Duration::ZERO, steps: Vec::new() }
    }

    /// Notes and prints a step: when, how long it took, what.
    pub(super) fn tell(&mut self, step: &'static str, text: String) -> io::Result<()> {
        let at = self.started.elapsed();
        let took = at.saturating_sub(self.last);
        self.last = at;
        writeln!(self.out, "{:>7.2} s  (+{:>5.2} s)  {text}", at.as_secs_f64(), took.as_secs_f64())?;
        self.out.flush()?;
        self.steps.push(Step { step, at_ms: millis(at), took_ms: millis(took), text });
        Ok(())
    }

    pub(super) fn out(&mut self) -> &mut W {
        self.out
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }
}

/// Whole milliseconds.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
