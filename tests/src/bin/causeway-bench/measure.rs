//! CPU and wall time of a piece of work, and what several of them say together.

use std::time::Instant;

use bitcoin::secp256k1::{Keypair, Message, SECP256K1, XOnlyPublicKey};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// What one run took, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// CPU time of all threads of the process.
    pub(crate) cpu_ms: f64,
    /// Time by the clock.
    pub(crate) wall_ms: f64,
}

impl Sample {
    /// What both took, one after the other.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self { cpu_ms: self.cpu_ms + other.cpu_ms, wall_ms: self.wall_ms + other.wall_ms }
    }
}

/// Runs `work` and returns what it took.
pub(crate) fn measure<T>(work: impl FnOnce() -> T) -> (T, Sample) {
    let (cpu, wall) = (cpu_ms(), Instant::now());
    let result = work();
    let sample = Sample { cpu_ms: cpu_ms() - cpu, wall_ms: wall.elapsed().as_secs_f64() * 1e3 };
    (result, sample)
}

/// What one Schnorr verification by libsecp256k1 takes here. All of BIP340's: the key is 32 bytes, as in a script, which
/// have to become a point first.
///
/// # Panics
/// If libsecp256k1 refuses its own signatures.
pub(crate) fn verification(pair: &Keypair) -> Sample {
    const COUNT: u32 = 10_000;
    let messages = (0..COUNT).map(|number| {
        let mut digest = [7; 32];
        digest[..4].copy_from_slice(&number.to_le_bytes());
        Message::from_digest(digest)
    });
    let key = pair.x_only_public_key().0.serialize();
    let signed: Vec<_> =
        messages.map(|message| (message, SECP256K1.sign_schnorr_no_aux_rand(&message, pair))).collect();
    let is_right = |(message, signature): &(_, _)| {
        let key = XOnlyPublicKey::from_slice(&key).expect("a key's own bytes");
        SECP256K1.verify_schnorr(signature, message, &key).is_ok()
    };
    let (right, Sample { cpu_ms, wall_ms }) = measure(|| signed.iter().all(is_right));
    assert!(right, "signatures that were just made are valid");
    Sample { cpu_ms: cpu_ms / f64::from(COUNT), wall_ms: wall_ms / f64::from(COUNT) }
}

fn cpu_ms() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

/// The middle and the ends of several figures.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Returns the spread of `figures`.
    ///
    /// # Panics
    /// If there are none.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let (min, max) = (figures[0], figures[figures.len() - 1]);
        let median = (figures[(figures.len() - 1) / 2] + figures[figures.len() / 2]) / 2.0;
        Self { median, min, max }
    }
}

/// Returns the machine's load average over one minute, or None where the system does not tell.
pub(crate) fn load_average() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}
