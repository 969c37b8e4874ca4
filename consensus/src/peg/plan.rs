//! Planning batches: total, pure functions of the state (PEG section 2, `plan_batch` and `ReplaceBatch`).

use bitcoin::{Amount, ScriptBuf, Weight};
use causeway_chainspec::{Height, Params, SatPerKvb};

use super::batch::{Batch, BatchKind, BatchVersion, sort_inputs, transaction, worst_weight};
use super::coin::{PegCoin, PegOutRequest};
use super::error::InvalidPeg;
use super::state::{DAY_S, PegState};

/// The least change of a batch in satoshi. Less joins the fee.
const CHANGE_MIN: Amount = Amount::from_sat(10_000);

/// What every payout leaves its payee: Bitcoin Core's dust limit of P2PKH, the greatest of the five forms.
const PAYOUT_MIN: Amount = Amount::from_sat(546);

/// Most change outputs of a batch.
const CHANGE_OUTPUTS_MAX: u64 = 8;

/// What a replacement pays more than its forerunner, per virtual byte and once: Core's incremental relay feerate of 1 sat/vB,
/// and as much to spare.
const REPLACEMENT_EXTRA: Amount = Amount::from_sat(1_000);

/// The least step of a replacement's feerate.
const RATE_STEP: u64 = 1_000;

/// Returns the batch that the block of this height and time must open on top of `state`, which the block's other evidence
/// has changed already; `None` if none is due.
///
/// Bounded by the parameters: at most `max_payees`² choices of at most `max_inputs` coins.
pub fn plan_batch(state: &PegState, height: Height, time: u32) -> Option<Batch> {
    if state.frozen().is_some() {
        return None;
    }
    let planner = Planner::new(state, height);
    planner.refresh().or_else(|| planner.payout(time))
}

struct Planner<'a> {
    state: &'a PegState,
    params: &'a Params,
    height: Height,
    rate: SatPerKvb,
    /// Free coins that are worth more than spending them costs, oldest first.
    economic: Vec<&'a PegCoin>,
}

/// How a batch without payees was chosen.
enum Unpaid {
    Refresh,
    Compaction,
    Consolidation,
}

impl<'a> Planner<'a> {
    fn new(state: &'a PegState, height: Height) -> Self {
        let rate = state.agreed_rate();
        let economic = state.free_coins().filter(|coin| coin.value > input_fee(state, coin, rate)).collect();
        Self { state, params: state.network().params(), height, rate, economic }
    }

    fn holds_many(&self) -> bool {
        2 * self.state.held() as u64 >= u64::from(self.params.coins_max)
    }

    fn max_inputs(&self) -> usize {
        self.params.max_inputs as usize
    }

    /// Step 1: old coins move to fresh outputs, many coins become one.
    fn refresh(&self) -> Option<Batch> {
        if self.state.open_slots().1 >= self.params.max_open_refreshes as usize {
            return None;
        }
        let tip = self.state.headers().tip().height;
        let older = |coin: &PegCoin, age: u32| tip.blocks_since(coin.place.height).is_some_and(|got| got > age);
        let limit = |coin: &PegCoin| {
            let sweep_age = self.state.network().epoch(coin.epoch()).timelocks().sweep_age;
            (u32::from(sweep_age), u32::from(sweep_age.saturating_sub(self.params.refresh_margin)))
        };
        if self.economic.iter().any(|coin| older(coin, limit(coin).0)) {
            let due = self.economic.iter().filter(|coin| older(coin, limit(coin).1)).take(self.max_inputs());
            return self.unpaid(Unpaid::Refresh, due.copied().cloned().collect());
        }
        if self.holds_many() && self.economic.len() >= self.max_inputs() {
            let oldest = self.economic.iter().take(self.max_inputs());
            return self.unpaid(Unpaid::Compaction, oldest.copied().cloned().collect());
        }
        None
    }

    /// A batch without payees: the fee account pays the whole fee, whatever is in it.
    fn unpaid(&self, why: Unpaid, mut inputs: Vec<PegCoin>) -> Option<Batch> {
        sort_inputs(&mut inputs);
        let value: Amount = inputs.iter().map(|coin| coin.value).sum();
        let outputs = match why {
            Unpaid::Refresh => self.change_outputs(value),
            Unpaid::Compaction | Unpaid::Consolidation => 1,
        };
        let script = self.change_script();
        let weight = worst_weight(self.input_weight(&inputs), &[], outputs, &script);
        let fee = self.rate.fee(weight)?;
        let change = value.checked_sub(fee).filter(|change| *change >= CHANGE_MIN)?;
        let kind = if matches!(why, Unpaid::Consolidation) { BatchKind::Consolidation } else { BatchKind::Refresh };
        Some(self.batch(
            kind,
            inputs,
            Vec::new(),
            Shape { shares: Vec::new(), change: split(change, outputs), charge: fee },
        ))
    }

    /// Steps 2 to 5: requests are paid.
    fn payout(&self, time: u32) -> Option<Batch> {
        let waited = self.state.summary.last_opening.is_none_or(|last| {
            self.height.blocks_since(last).is_some_and(|blocks| blocks >= self.params.batch_interval)
        });
        if !waited || self.state.open_slots().0 >= self.params.max_open_batches as usize {
            return None;
        }
        let mut payees = self.payees(time);
        loop {
            let funding = self.fund(&payees)?;
            let Some(Funded { count, inputs }) = (match funding {
                Funding::Payees(funded) => Some(funded),
                Funding::Consolidation(inputs) => match self.unpaid(Unpaid::Consolidation, inputs) {
                    Some(batch) => return Some(batch),
                    None => None,
                },
                Funding::Nothing => None,
            }) else {
                // The first cannot be paid, not even alone: those after it may be.
                payees.remove(0);
                continue;
            };
            payees.truncate(count);
            match self.shape(&payees, &inputs) {
                Ok(shape) => return Some(self.batch(BatchKind::Payout, inputs, payees, shape)),
                Err(TooDear { payable }) => {
                    let mut payable = payable.into_iter();
                    payees.retain(|_| payable.next().unwrap_or(false));
                }
            }
        }
    }

    /// Step 2: the requests whose turn it is, created before this block.
    fn payees(&self, time: u32) -> Vec<PegOutRequest> {
        let all: Amount = self.economic.iter().map(|coin| coin.value).sum();
        let day = batched_since(&self.state.summary.batched, time);
        let mut chosen = Vec::new();
        let mut value = Amount::ZERO;
        for request in self.state.waiting().filter(|request| request.amount <= all) {
            value += request.amount;
            let full = chosen.len() >= self.params.max_payees as usize
                || value > self.params.batch_value_max
                || day + value > self.params.value_per_day_max;
            if full {
                break;
            }
            chosen.push(request.clone());
        }
        chosen
    }

    /// Step 3: the coins for as many of the first payees as can be funded. `None` if there are no payees.
    fn fund(&self, payees: &[PegOutRequest]) -> Option<Funding> {
        let first = payees.first()?;
        let mut gross: Amount = payees.iter().map(|payee| payee.amount).sum();
        for count in (1..=payees.len()).rev() {
            if let Some(inputs) = self.choose(gross, self.economic.iter().copied()) {
                return Some(Funding::Payees(Funded { count, inputs }));
            }
            gross -= payees[count - 1].amount;
        }
        let mut largest = self.economic.clone();
        // Stable: of equal ones the oldest first.
        largest.sort_by_key(|coin| std::cmp::Reverse(coin.value));
        if let Some(inputs) = self.choose(first.amount, largest.iter().copied()) {
            return Some(Funding::Payees(Funded { count: 1, inputs }));
        }
        let all: Amount = largest.iter().map(|coin| coin.value).sum();
        if largest.len() > self.max_inputs() && all >= first.amount {
            let inputs = largest.into_iter().take(self.max_inputs()).cloned().collect();
            return Some(Funding::Consolidation(inputs));
        }
        Some(Funding::Nothing)
    }

    /// The first coins, at most `max_inputs`, that pay `gross` and the pot's part of the fee, and leave change if that is
    /// possible.
    fn choose(&self, gross: Amount, coins: impl Iterator<Item = &'a PegCoin>) -> Option<Vec<PegCoin>> {
        let mut inputs = Vec::new();
        let (mut value, mut weight) = (Amount::ZERO, Weight::ZERO);
        let mut needed = gross;
        for coin in coins.take(self.max_inputs()) {
            value += coin.value;
            weight += coin.worst_input_weight(self.state.network().epoch(coin.epoch()));
            inputs.push(coin.clone());
            needed = gross + self.pot(weight)?;
            if value >= needed + CHANGE_MIN {
                break;
            }
        }
        (!inputs.is_empty() && value >= needed).then(|| {
            sort_inputs(&mut inputs);
            inputs
        })
    }

    /// Steps 4 and 5: fee and change. The payees are at least one.
    fn shape(&self, payees: &[PegOutRequest], inputs: &[PegCoin]) -> Result<Shape, TooDear> {
        let value: Amount = inputs.iter().map(|coin| coin.value).sum();
        let gross: Amount = payees.iter().map(|payee| payee.amount).sum();
        let input_weight = self.input_weight(inputs);
        let script = self.change_script();
        let nobody = || TooDear { payable: Vec::new() };
        let pot = self.pot(input_weight).ok_or_else(nobody)?;
        // They were funded, so neither is negative.
        let left = value.checked_sub(gross).ok_or_else(nobody)?;
        let change = left.checked_sub(pot).ok_or_else(nobody)?;
        let outputs = if change < CHANGE_MIN { 0 } else { self.change_outputs(left) };
        let weight = worst_weight(input_weight, payees, outputs, &script);
        let fee = self.rate.fee(weight).and_then(|fee| fee.checked_sub(pot)).ok_or_else(nobody)?;
        let shares = shares(fee, payees.len());
        let payable: Vec<bool> = payees.iter().zip(&shares).map(|(payee, share)| *share <= self.cap(payee)).collect();
        if payable.contains(&false) {
            return Err(TooDear { payable });
        }
        let charge = if outputs == 0 { pot + change } else { pot };
        let change = if outputs == 0 { Vec::new() } else { split(change, outputs) };
        Ok(Shape { shares, change, charge })
    }

    /// The pot's part of a fee: what it holds, at most what the inputs cost.
    fn pot(&self, input_weight: Weight) -> Option<Amount> {
        Some(self.state.accounts_pot().min(self.rate.fee(input_weight)?))
    }

    fn cap(&self, payee: &PegOutRequest) -> Amount {
        cap(self.params, self.height, payee)
    }

    fn input_weight(&self, inputs: &[PegCoin]) -> Weight {
        input_weight(self.state, inputs)
    }

    /// How many change outputs share what the inputs hold beyond the payees' amounts.
    fn change_outputs(&self, left: Amount) -> usize {
        if self.holds_many() {
            return 1;
        }
        let outputs = (left.to_sat() / self.params.change_unit.to_sat()).clamp(1, CHANGE_OUTPUTS_MAX);
        usize::try_from(outputs).expect("at most eight")
    }

    fn change_script(&self) -> ScriptBuf {
        self.state.network().current().main_script().to_owned()
    }

    fn batch(&self, kind: BatchKind, inputs: Vec<PegCoin>, payees: Vec<PegOutRequest>, shape: Shape) -> Batch {
        let change_script = self.change_script();
        let version = version(self.state, self.height, self.rate, &inputs, &payees, &change_script, shape);
        Batch {
            number: self.state.batches() + 1,
            kind,
            opened: self.height,
            inputs,
            payees,
            change_script,
            change_epoch: self.state.network().current().epoch().number(),
            versions: vec![version],
        }
    }
}

/// What is funded.
enum Funding {
    Payees(Funded),
    /// A consolidation of these coins comes first, if it can be built.
    Consolidation(Vec<PegCoin>),
    /// Not even the first payee, alone.
    Nothing,
}

/// Coins for the first `count` payees.
struct Funded {
    count: usize,
    inputs: Vec<PegCoin>,
}

/// What a version pays to whom.
struct Shape {
    shares: Vec<Amount>,
    change: Vec<Amount>,
    charge: Amount,
}

/// Some payees would pay more than their cap.
struct TooDear {
    /// For each payee, whether it would not. Those who are missing would.
    payable: Vec<bool>,
}

/// Returns the version that replaces the newest one of an open batch, in the block of this height.
///
/// # Errors
/// The rule that forbids it.
pub fn plan_replacement(state: &PegState, number: u32, height: Height) -> Result<BatchVersion, InvalidPeg> {
    let batch = state.open_batch(number).ok_or(InvalidPeg::NoSuchBatch { number })?;
    let (params, tip) = (state.network().params(), state.headers().tip().height);
    let old = batch.newest();
    let from = old.fixed_at.checked_add(params.replace_after).unwrap_or(old.fixed_at);
    if tip < from {
        return Err(InvalidPeg::ReplacedTooEarly { number, from, tip });
    }
    let stepped = old.rate.0.saturating_add(RATE_STEP).max(old.rate.0.saturating_mul(5).div_ceil(4));
    let rate = SatPerKvb(stepped).max(state.agreed_rate()).min(params.fee_rate_max);
    if rate <= old.rate {
        return Err(InvalidPeg::FeeRateAtLimit { number, rate: old.rate });
    }
    let poor = InvalidPeg::CannotPayMore { number };
    let shape = replacement_shape(state, batch, rate, height).ok_or(poor)?;
    Ok(version(state, height, rate, &batch.inputs, &batch.payees, &batch.change_script, shape))
}

fn replacement_shape(state: &PegState, batch: &Batch, rate: SatPerKvb, height: Height) -> Option<Shape> {
    let old = batch.newest();
    let input_weight = input_weight(state, &batch.inputs);
    let fee = |outputs: usize| {
        let weight = worst_weight(input_weight, &batch.payees, outputs, &batch.change_script);
        let relay = Amount::from_sat(weight.to_wu().div_ceil(4)) + REPLACEMENT_EXTRA;
        Some(rate.fee(weight)?.max(batch.fee(old) + relay))
    };
    let value = batch.input_value();
    let outputs = old.change.len();
    if batch.payees.is_empty() {
        let fee = fee(outputs)?;
        let change = value.checked_sub(fee).filter(|change| *change >= CHANGE_MIN)?;
        return Some(Shape { shares: Vec::new(), change: split(change, outputs), charge: fee });
    }
    let left = value.checked_sub(batch.gross())?;
    let returned = state.summary.fee_account.checked_add(i64::try_from(old.charge.to_sat()).ok()?)?;
    let pot = Amount::from_sat(u64::try_from(returned).unwrap_or(0)).min(rate.fee(input_weight)?).min(left);
    // The payees' part up to their caps; what they cannot pay is the pot's.
    let paid = |fee: Amount| {
        let wanted = shares(fee.checked_sub(pot)?, batch.payees.len());
        let caps = batch.payees.iter().map(|payee| cap(state.network().params(), height, payee));
        let shares: Vec<Amount> = wanted.into_iter().zip(caps).map(|(share, cap)| share.min(cap)).collect();
        let rest = fee.checked_sub(shares.iter().copied().sum())?;
        Some((shares, rest))
    };
    if outputs > 0 {
        let (shares, pot) = paid(fee(outputs)?)?;
        if let Some(change) = left.checked_sub(pot).filter(|change| *change >= CHANGE_MIN) {
            return Some(Shape { shares, change: split(change, outputs), charge: pot });
        }
    }
    let (shares, pot) = paid(fee(0)?)?;
    // Whatever would be change joins the fee, and so the charge.
    let rest = left.checked_sub(pot)?;
    Some(Shape { shares, change: Vec::new(), charge: pot + rest })
}

fn version(
    state: &PegState,
    height: Height,
    rate: SatPerKvb,
    inputs: &[PegCoin],
    payees: &[PegOutRequest],
    change_script: &ScriptBuf,
    shape: Shape,
) -> BatchVersion {
    let Shape { shares, change, charge } = shape;
    let txid = transaction(inputs, payees, &shares, &change, change_script).compute_txid();
    BatchVersion { txid, rate, shares, change, charge, fixed: height, fixed_at: state.headers().tip().height }
}

fn input_fee(state: &PegState, coin: &PegCoin, rate: SatPerKvb) -> Amount {
    // A bounded rate times the weight of one input fits.
    rate.fee(coin.worst_input_weight(state.network().epoch(coin.epoch()))).unwrap_or(Amount::MAX_MONEY)
}

fn input_weight(state: &PegState, inputs: &[PegCoin]) -> Weight {
    inputs.iter().map(|coin| coin.worst_input_weight(state.network().epoch(coin.epoch()))).sum()
}

/// The most that a payee pays toward the fee of a version that the block of this height fixes.
fn cap(params: &Params, height: Height, payee: &PegOutRequest) -> Amount {
    let waited = height.blocks_since(payee.place.height).is_some_and(|blocks| blocks >= params.request_max_wait);
    if waited { payee.amount.checked_sub(PAYOUT_MIN).unwrap_or(Amount::ZERO) } else { params.peg_out_fee_max }
}

/// A fee in equal shares, rounded down. The first takes the remainder too.
fn shares(fee: Amount, payees: usize) -> Vec<Amount> {
    equal_parts(fee, payees)
}

/// Change in near-equal outputs. The first takes the remainder too.
fn split(change: Amount, outputs: usize) -> Vec<Amount> {
    equal_parts(change, outputs)
}

fn equal_parts(whole: Amount, parts: usize) -> Vec<Amount> {
    let count = parts.max(1) as u64;
    let part = whole / count;
    let mut all = vec![part; parts];
    if let Some(first) = all.first_mut() {
        *first = part + whole % count;
    }
    all
}

/// The value of the openings whose blocks' times are later than `time` - 86,400.
fn batched_since(batched: &[(u32, Amount)], time: u32) -> Amount {
    let recent = batched.iter().filter(|(at, _)| u64::from(*at) + u64::from(DAY_S) > u64::from(time));
    recent.map(|(_, value)| *value).sum()
}
