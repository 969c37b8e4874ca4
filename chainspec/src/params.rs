//! The constants of the network that the validity rules read, and the rules that hold between them.

use bitcoin::{Amount, Network, Weight};

use crate::epoch::{BATCH_OVERHEAD_WEIGHT, Epoch, OUTPUT_WEIGHT};
use crate::error::{ChainSpecError, PegParamsError};
use crate::key::{self, NumberKey};
use crate::units::SatPerKvb;

/// The least payout in satoshi: Bitcoin Core's dust limit of P2PKH, the largest of the five forms.
pub(crate) const DUST: u64 = 546;

/// Slots for change in the batch transaction with the most payees (PEG section 2: at most 8 change outputs).
const CHANGE_OUTPUTS_MAX: u64 = 8;

/// 10,000 vB, the most that a TRUC transaction may have (BIP431).
const BATCH_WEIGHT_MAX: Weight = Weight::from_wu(40_000);

/// The least change of a batch in satoshi, and what `peg_in_min` leaves after a deposit is swept alone.
const CHANGE_MIN: u64 = 10_000;

/// The constants of the network that the validity rules read.
///
/// The fields are public for reading where the rule is. The values that count are those of
/// [`ChainSpec::params`](crate::ChainSpec::params), which have passed every check; a value made otherwise has passed
/// none. Bounds of each field: the constant of the same name in [`key`]. Rules between them: [`PegParamsError`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    /// The Bitcoin test network whose genesis block and address prefixes the chain has: regtest or signet.
    pub identity: Network,
    /// Target time between blocks in milliseconds.
    pub block_interval_ms: u32,
    /// Least amount of a peg-out request.
    pub peg_out_min: Amount,
    /// Greatest amount of a peg-out request.
    pub peg_out_max: Amount,
    /// Most that a request pays toward the fee of its batch, until it has waited `request_max_wait`.
    pub peg_out_fee_max: Amount,
    /// Least amount of a deposit.
    pub peg_in_min: Amount,
    /// Most value in one batch.
    pub batch_value_max: Amount,
    /// Most value batched in 86,400 seconds of block time.
    pub value_per_day_max: Amount,
    /// Change is split into one output for each such amount, 1 to 8.
    pub change_unit: Amount,
    /// The agreed feerate until the validators first agree on one.
    pub fee_rate_default: SatPerKvb,
    /// Greatest feerate of a batch.
    pub fee_rate_max: SatPerKvb,
    /// Confirmations before anything on Bitcoin is recorded, in Bitcoin blocks.
    pub final_depth: u32,
    /// No branch starts deeper than this below the highest Bitcoin tip ever held, in Bitcoin blocks.
    pub fork_depth: u32,
    /// A deposit is credited only while the Bitcoin tip is at most this much older than the block, in seconds.
    pub header_freshness_s: u32,
    /// Most coins that the peg holds.
    pub coins_max: u32,
    /// A refresh also takes the coins that are within this many Bitcoin blocks of `sweep_age` (PEG: 1,008).
    pub refresh_margin: u16,
    /// Most refreshes open at once.
    pub max_open_refreshes: u32,
    /// Most batches with payees, consolidations included, open at once.
    pub max_open_batches: u32,
    /// Most coins that one batch spends.
    pub max_inputs: u32,
    /// Most requests that one batch pays.
    pub max_payees: u32,
    /// Least distance between the openings of two batches with payees, in Causeway blocks.
    pub batch_interval: u32,
    /// A request that has waited this many Causeway blocks may pay any fee that leaves it 546 sat.
    pub request_max_wait: u32,
    /// A batch can be replaced this many Bitcoin blocks after its newest version was fixed.
    pub replace_after: u32,
    /// A feerate quote counts for this many Causeway blocks.
    pub quote_age: u32,
    /// Deposits to an ended epoch are still credited if mined at most this many Bitcoin blocks after its end.
    pub epoch_grace: u16,
}

impl Params {
    /// The number of keys in `[peg]`.
    pub(crate) const PEG_NUMBERS: usize = 23;

    /// Every number of `[peg]` with its key, in the order of the canonical encoding and of the file.
    pub(crate) fn peg_numbers(&self) -> [(&'static NumberKey, u64); Self::PEG_NUMBERS] {
        // Taken apart in full, so that a new field cannot be left out of the file, the checks or the hash.
        let Params {
            identity: _,
            block_interval_ms: _,
            peg_out_min,
            peg_out_max,
            peg_out_fee_max,
            peg_in_min,
            batch_value_max,
            value_per_day_max,
            change_unit,
            fee_rate_default,
            fee_rate_max,
            final_depth,
            fork_depth,
            header_freshness_s,
            coins_max,
            refresh_margin,
            max_open_refreshes,
            max_open_batches,
            max_inputs,
            max_payees,
            batch_interval,
            request_max_wait,
            replace_after,
            quote_age,
            epoch_grace,
        } = *self;
        [
            (&key::PEG_OUT_MIN, peg_out_min.to_sat()),
            (&key::PEG_OUT_MAX, peg_out_max.to_sat()),
            (&key::PEG_OUT_FEE_MAX, peg_out_fee_max.to_sat()),
            (&key::PEG_IN_MIN, peg_in_min.to_sat()),
            (&key::BATCH_VALUE_MAX, batch_value_max.to_sat()),
            (&key::VALUE_PER_DAY_MAX, value_per_day_max.to_sat()),
            (&key::CHANGE_UNIT, change_unit.to_sat()),
            (&key::FEE_RATE_DEFAULT, fee_rate_default.0),
            (&key::FEE_RATE_MAX, fee_rate_max.0),
            (&key::FINAL_DEPTH, final_depth.into()),
            (&key::FORK_DEPTH, fork_depth.into()),
            (&key::HEADER_FRESHNESS_S, header_freshness_s.into()),
            (&key::COINS_MAX, coins_max.into()),
            (&key::REFRESH_MARGIN, refresh_margin.into()),
            (&key::MAX_OPEN_REFRESHES, max_open_refreshes.into()),
            (&key::MAX_OPEN_BATCHES, max_open_batches.into()),
            (&key::MAX_INPUTS, max_inputs.into()),
            (&key::MAX_PAYEES, max_payees.into()),
            (&key::BATCH_INTERVAL, batch_interval.into()),
            (&key::REQUEST_MAX_WAIT, request_max_wait.into()),
            (&key::REPLACE_AFTER, replace_after.into()),
            (&key::QUOTE_AGE, quote_age.into()),
            (&key::EPOCH_GRACE, epoch_grace.into()),
        ]
    }

    /// Checks the bounds of every value and every rule between them and the federation that can be checked at load
    /// (PEG sections 1, 2 and 5).
    pub(crate) fn check(&self, federation: &Epoch) -> Result<(), ChainSpecError> {
        key::BLOCK_INTERVAL_MS.check(self.block_interval_ms.into())?;
        for (number, value) in self.peg_numbers() {
            number.check(value)?;
        }
        self.check_amounts(federation)?;
        self.check_depths(federation)?;
        self.check_batch_size(federation)?;
        Ok(())
    }

    fn check_amounts(&self, federation: &Epoch) -> Result<(), PegParamsError> {
        // Every amount is bounded by the supply, so these sums cannot overflow.
        let min = self.peg_out_fee_max + Amount::from_sat(DUST);
        if self.peg_out_min < min {
            return Err(PegParamsError::PegOutMinTooSmall { got: self.peg_out_min, min });
        }
        if self.peg_out_max < self.peg_out_min {
            return Err(PegParamsError::PegOutMaxBelowMin { got: self.peg_out_max, min: self.peg_out_min });
        }
        if self.batch_value_max < self.peg_out_max {
            return Err(PegParamsError::BatchValueTooSmall { got: self.batch_value_max, min: self.peg_out_max });
        }
        if self.value_per_day_max < self.batch_value_max {
            return Err(PegParamsError::DayValueTooSmall { got: self.value_per_day_max, min: self.batch_value_max });
        }
        if self.fee_rate_default > self.fee_rate_max {
            return Err(PegParamsError::FeeRateDefaultTooHigh { got: self.fee_rate_default, max: self.fee_rate_max });
        }
        let min = self.peg_in_min_least(federation);
        if self.peg_in_min < min {
            return Err(PegParamsError::PegInMinTooSmall {
                got: self.peg_in_min,
                min,
                fee_rate_max: self.fee_rate_max,
            });
        }
        Ok(())
    }

    /// The least `peg_in_min`: what a deposit needs to be swept alone at the greatest feerate and leave 10,000 sat.
    fn peg_in_min_least(&self, federation: &Epoch) -> Amount {
        let weight = BATCH_OVERHEAD_WEIGHT + federation.worst_deposit_input_weight() + OUTPUT_WEIGHT;
        let fee = self.fee_rate_max.fee(weight).expect("a bounded feerate times the weight of one input fits");
        Amount::from_sat(CHANGE_MIN) + fee
    }

    fn check_depths(&self, federation: &Epoch) -> Result<(), PegParamsError> {
        let timelocks = federation.timelocks();
        if self.fork_depth < self.final_depth {
            return Err(PegParamsError::ForkDepthTooSmall { got: self.fork_depth, min: self.final_depth });
        }
        if u32::from(timelocks.claim_window) <= self.final_depth {
            return Err(PegParamsError::ClaimWindowTooShort {
                got: timelocks.claim_window,
                final_depth: self.final_depth,
            });
        }
        if self.refresh_margin >= timelocks.sweep_age {
            return Err(PegParamsError::RefreshMarginTooLong {
                got: self.refresh_margin,
                sweep_age: timelocks.sweep_age,
            });
        }
        // What can be refreshed between sweep_age and recovery, with half of the time to spare.
        let window = u64::from(timelocks.recovery_delay - timelocks.sweep_age);
        let max = u64::from(self.max_open_refreshes) * u64::from(self.max_inputs) * window
            / (2 * u64::from(self.final_depth));
        if u64::from(self.coins_max) > max {
            return Err(PegParamsError::CoinsMaxTooLarge { got: self.coins_max, max });
        }
        Ok(())
    }

    /// The largest batch stays within what a TRUC transaction may have.
    fn check_batch_size(&self, federation: &Epoch) -> Result<(), PegParamsError> {
        let inputs = federation.worst_deposit_input_weight() * u64::from(self.max_inputs);
        let outputs = OUTPUT_WEIGHT * (u64::from(self.max_payees) + CHANGE_OUTPUTS_MAX);
        let got = BATCH_OVERHEAD_WEIGHT + inputs + outputs;
        if got > BATCH_WEIGHT_MAX {
            return Err(PegParamsError::BatchTooLarge {
                max_inputs: self.max_inputs,
                max_payees: self.max_payees,
                input: federation.worst_deposit_input_weight(),
                got,
                max: BATCH_WEIGHT_MAX,
            });
        }
        Ok(())
    }
}
