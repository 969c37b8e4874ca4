//! What the pool asks for when it has been full: a minimum feerate that rises with each eviction and falls with time.

use causeway_chainspec::SatPerKvb;

/// Time after which the minimum has halved, in seconds (Core: `ROLLING_FEE_HALFLIFE`): 12 hours.
const HALF_LIFE_S: u64 = 12 * 3_600;

/// Time between two steps of the decay, in seconds.
const STEP_S: u64 = 10;

/// Bits behind the point of what is counted with fractions.
const FRACTION_BITS: u32 = 32;

/// `ln(2)^k / k!` for k = 1 to 6, times 2^32: the series of 2^-x, exact to 2^-15 for x below 1.
const SERIES: [u128; 6] = [2_977_044_472, 1_031_764_991, 238_388_332, 41_309_550, 5_726_720, 661_577];

/// The minimum feerate of a pool that has been full (Core: `CTxMemPool::GetMinFee`).
///
/// It stays until a block has come since the last eviction, then halves every 12 hours, or every 6 or 3 while the pool is
/// less than half or a quarter full. Counted in whole numbers, so that it is the same on every machine.
#[derive(Debug, Clone, Default)]
pub(super) struct RollingMinimum {
    /// In 2^-32 sat/kvB.
    rate: u128,
    updated_s: u64,
    block_since_bump: bool,
}

impl RollingMinimum {
    /// Transactions were evicted, so that this feerate is now the least.
    pub(super) fn bump(&mut self, rate: SatPerKvb, now_s: u64) {
        let rate = u128::from(rate.0) << FRACTION_BITS;
        if rate > self.rate {
            *self = Self { rate, updated_s: now_s, block_since_bump: false };
        }
    }

    /// A block came.
    pub(super) fn block(&mut self, now_s: u64) {
        if !self.block_since_bump {
            self.block_since_bump = true;
            self.updated_s = now_s;
        }
    }

    /// Returns the minimum at `now_s`, zero if there is none.
    pub(super) fn at(&self, now_s: u64, memory: usize, max_memory: usize, incremental: SatPerKvb) -> SatPerKvb {
        let rate = self.decayed(now_s, memory, max_memory, incremental);
        let rounded = (rate + (1 << (FRACTION_BITS - 1))) >> FRACTION_BITS;
        let rate = u64::try_from(rounded).unwrap_or(u64::MAX);
        SatPerKvb(if rate > 0 && self.block_since_bump { rate.max(incremental.0) } else { rate })
    }

    /// Makes the decay so far the new start, before the pool's fill changes its speed.
    pub(super) fn settle(&mut self, now_s: u64, memory: usize, max_memory: usize, incremental: SatPerKvb) {
        if self.block_since_bump && now_s.saturating_sub(self.updated_s) > STEP_S {
            self.rate = self.decayed(now_s, memory, max_memory, incremental);
            self.updated_s = now_s;
        }
    }

    fn decayed(&self, now_s: u64, memory: usize, max_memory: usize, incremental: SatPerKvb) -> u128 {
        let passed = now_s.saturating_sub(self.updated_s);
        if !self.block_since_bump || passed <= STEP_S {
            return self.rate;
        }
        let half_life = match memory {
            memory if memory < max_memory / 4 => HALF_LIFE_S / 4,
            memory if memory < max_memory / 2 => HALF_LIFE_S / 2,
            _ => HALF_LIFE_S,
        };
        let halvings = u32::try_from(passed / half_life).unwrap_or(u32::MAX);
        let halved = self.rate.checked_shr(halvings).unwrap_or(0);
        let x = (u128::from(passed % half_life) << FRACTION_BITS) / u128::from(half_life);
        // At most 2^64 sat/kvB x 2^32, and a factor of at most 2^32.
        let rate = (halved >> FRACTION_BITS) * two_to_minus(x)
            + (((halved & ((1 << FRACTION_BITS) - 1)) * two_to_minus(x)) >> FRACTION_BITS);
        // Core: below half of the increment there is no minimum.
        if rate < (u128::from(incremental.0) << FRACTION_BITS) / 2 { 0 } else { rate }
    }
}

/// Returns 2^-x, both times 2^32, for x below 1.
fn two_to_minus(x: u128) -> u128 {
    let sum = SERIES.iter().rev().fold(0, |sum, coefficient| coefficient - ((sum * x) >> FRACTION_BITS));
    (1 << FRACTION_BITS) - ((sum * x) >> FRACTION_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INCREMENTAL: SatPerKvb = SatPerKvb(100);

    fn at(minimum: &RollingMinimum, now_s: u64, memory: usize) -> u64 {
        minimum.at(now_s, memory, 1_000, INCREMENTAL).0
    }

    #[test]
    fn the_minimum_waits_for_a_block_then_halves_in_half_a_day() {
        let mut minimum = RollingMinimum::default();
        assert_eq!(at(&minimum, 0, 900), 0);
        minimum.bump(SatPerKvb(8_000), 50);
        minimum.bump(SatPerKvb(7_000), 60);
        assert_eq!(at(&minimum, 10_000_000, 900), 8_000);
        minimum.block(1_000);
        assert_eq!(at(&minimum, 1_000, 900), 8_000);
        assert_eq!(at(&minimum, 1_000 + HALF_LIFE_S, 900), 4_000);
        // 8,000 / 2^1.5
        assert_eq!(at(&minimum, 1_000 + HALF_LIFE_S * 3 / 2, 900), 2_828);
        assert_eq!(at(&minimum, 1_000 + HALF_LIFE_S, 499), 2_000);
        assert_eq!(at(&minimum, 1_000 + HALF_LIFE_S, 249), 500);
        // Below half of the increment it is gone.
        assert_eq!(at(&minimum, 1_000 + HALF_LIFE_S * 7, 900), 100);
        assert_eq!(at(&minimum, 1_000 + HALF_LIFE_S * 8, 900), 0);
        assert_eq!(at(&minimum, u64::MAX, 900), 0);
    }

    #[test]
    fn settling_keeps_the_course() {
        let mut minimum = RollingMinimum::default();
        minimum.bump(SatPerKvb(8_000), 0);
        minimum.block(0);
        for step in 1..=24 * 60 {
            minimum.settle(step * 60, 900, 1_000, INCREMENTAL);
        }
        let settled = at(&minimum, 24 * 3_600, 900);
        assert_eq!(settled, 2_000);
        // A clock that jumps back changes nothing.
        assert_eq!(at(&minimum, 0, 900), settled);
    }
}
