//! What a connection is at, and until when it may be.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::Times;
use super::service::Held;

/// What a client must take within [`Times::stall`] while there is more for it, in bytes: 35 kB a second.
const TAKEN_MIN: usize = 1 << 20;

/// One connection, as its socket and its requests report it. One task does both.
pub(super) struct Line {
    times: Times,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    /// Since when the client has not taken all that is for it, and what it took since.
    waits: Option<(Instant, usize)>,
    /// Whether the client may still be sending when the connection is closed.
    sends_on: bool,
    /// What the answer holds that is complete, and waits in hyper's buffers.
    held: Held,
}

#[derive(Clone, Copy)]
enum Phase {
    /// Nothing of the next request has come.
    Idle(Instant),
    /// Some of it may have.
    Head(Instant),
    /// A request is under way.
    Asked,
    /// The answer is complete, and not all of it is with the system.
    Answered,
    /// Nothing more will be written.
    Closing(Instant),
}

impl Line {
    pub(super) fn new(times: Times) -> Self {
        let state = State { phase: Phase::Head(Instant::now()), waits: None, sends_on: false, held: Held::default() };
        Self { times, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes have come.
    pub(super) fn received(&self) {
        let mut state = self.state();
        if matches!(state.phase, Phase::Idle(_)) {
            state.phase = Phase::Head(Instant::now());
        }
    }

    /// A request has come, with or without a body.
    pub(super) fn asked(&self, has_body: bool) {
        let mut state = self.state();
        state.phase = Phase::Asked;
        state.sends_on = has_body;
    }

    /// Its answer is complete, and holds this until all of it is with the system.
    pub(super) fn answered(&self, held: Held) {
        let mut state = self.state();
        state.held = held;
        if matches!(state.phase, Phase::Asked) {
            state.phase = Phase::Answered;
        }
    }

    /// The client does not take more.
    pub(super) fn stalled(&self) {
        self.state().waits.get_or_insert((Instant::now(), 0));
    }

    /// The client took this many bytes.
    pub(super) fn taken(&self, bytes: usize) {
        let mut state = self.state();
        state.waits = match state.waits {
            Some((since, taken)) if taken.saturating_add(bytes) < TAKEN_MIN => Some((since, taken + bytes)),
            _ => None,
        };
    }

    /// All that was written is with the system.
    pub(super) fn flushed(&self) {
        let mut state = self.state();
        state.waits = None;
        // Also if the next request has come already: it is not answered before.
        state.held = Held::default();
        if matches!(state.phase, Phase::Answered) {
            state.phase = Phase::Idle(Instant::now());
        }
    }

    /// What has come is no request.
    pub(super) fn malformed(&self) {
        self.state().sends_on = true;
    }

    /// Nothing more will be written. Returns whether the client may still be sending.
    pub(super) fn closing(&self) -> bool {
        let mut state = self.state();
        if !matches!(state.phase, Phase::Closing(_)) {
            state.phase = Phase::Closing(Instant::now());
        }
        state.sends_on
    }

    /// Whether no request is under way.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.state().phase, Phase::Idle(_) | Phase::Head(_))
    }

    /// When the connection is closed unless something happens before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let state = self.state();
        let of_phase = match state.phase {
            Phase::Idle(since) => Some(since + self.times.idle),
            Phase::Head(since) => Some(since + self.times.head),
            Phase::Asked | Phase::Answered => None,
            Phase::Closing(since) => Some(since + self.times.linger),
        };
        let of_writing = state.waits.map(|(since, _)| since + self.times.stall);
        of_phase.into_iter().chain(of_writing).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_its_deadline() {
        let times = Times::default();
        let line = Line::new(times);
        let first = line.deadline();
        line.received();
        assert_eq!(line.deadline(), first, "bytes of a first head give no more time");
        line.asked(true);
        assert_eq!((line.deadline(), line.is_waiting()), (None, false));
        line.answered(Held::default());
        line.stalled();
        let stalled = line.deadline();
        assert!(stalled <= Some(Instant::now() + times.stall) && stalled > first);
        line.stalled();
        line.taken(TAKEN_MIN - 1);
        assert_eq!(line.deadline(), stalled, "a trickle gives no more time");
        line.taken(1);
        assert_eq!((line.deadline(), line.is_waiting()), (None, false));
        line.stalled();
        let before = Instant::now();
        line.flushed();
        let idle = line.deadline();
        assert!(idle >= Some(before + times.idle) && idle <= Some(Instant::now() + times.idle) && line.is_waiting());
        line.received();
        let head = line.deadline();
        assert!(head >= Some(before + times.head) && head <= Some(Instant::now() + times.head));
        line.received();
        assert_eq!(line.deadline(), head, "a trickle gives no more time");
        assert!(line.closing(), "the client may send on");
        let closing = line.deadline();
        assert!(closing <= Some(Instant::now() + times.linger));
        line.closing();
        line.answered(Held::default());
        assert_eq!((line.deadline(), line.is_waiting()), (closing, false));
    }
}
