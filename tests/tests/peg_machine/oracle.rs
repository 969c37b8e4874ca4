//! `plan_batch` and `ReplaceBatch` stated once more, from the text of PEG section 2 and with numbers only.

use bitcoin::OutPoint;
use causeway_chainspec::Height;
use causeway_consensus::peg::PegState;
use causeway_consensus::peg::batch::{Batch, BatchKind, BatchVersion};
use causeway_consensus::peg::coin::{CoinKind, PegCoin, PegOutRequest};

/// What the plan depends on beside the state: when batches were opened.
#[derive(Debug, Clone, Default)]
pub(crate) struct Openings {
    /// Height of the last opening that counts for `batch_interval`.
    pub(crate) last: Option<u32>,
    /// Time and gross value of every opening.
    pub(crate) batched: Vec<(u32, u64)>,
}

/// A plan in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) kind: BatchKind,
    /// Sorted as BIP69 says.
    pub(crate) inputs: Vec<OutPoint>,
    pub(crate) payees: Vec<OutPoint>,
    pub(crate) shares: Vec<u64>,
    pub(crate) change: Vec<u64>,
    pub(crate) charge: u64,
    pub(crate) rate: u64,
}

impl Plan {
    pub(crate) fn of(batch: &Batch, version: &BatchVersion) -> Self {
        Self {
            kind: batch.kind,
            inputs: batch.inputs.iter().map(|coin| coin.outpoint).collect(),
            payees: batch.payees.iter().map(|payee| payee.outpoint).collect(),
            shares: version.shares.iter().map(|share| share.to_sat()).collect(),
            change: version.change.iter().map(|value| value.to_sat()).collect(),
            charge: version.charge.to_sat(),
            rate: version.rate.0,
        }
    }
}

/// The numbers that every step needs.
struct Numbers<'a> {
    state: &'a PegState,
    height: u32,
    rate: i128,
    coins_max: i128,
    max_inputs: usize,
    held: i128,
    tip: i128,
}

fn input_weight(state: &PegState, coin: &PegCoin) -> i128 {
    let scripts = state.network().scripts(coin.epoch()).expect("its epoch is there");
    let weight = match coin.kind {
        CoinKind::Main { .. } => scripts.epoch().worst_main_input_weight(),
        CoinKind::Deposit(_) => scripts.epoch().worst_deposit_input_weight(),
    };
    weight.to_wu().into()
}

fn fee_of(rate: i128, weight: i128) -> i128 {
    (rate * weight + 3_999) / 4_000
}

/// 12 vB, the inputs, and the outputs of 9 bytes and their scripts; the change goes to P2TR.
fn weight_of(inputs: i128, payees: &[&PegOutRequest], change: i128) -> i128 {
    let payees: usize = payees.iter().map(|payee| 9 + payee.destination.script().len()).sum();
    48 + inputs + 4 * i128::try_from(payees).expect("sound numbers") + 4 * 43 * change
}

fn sat(amount: bitcoin::Amount) -> i128 {
    amount.to_sat().into()
}

fn bip69(mut coins: Vec<&PegCoin>) -> Vec<OutPoint> {
    // The id as it is shown is the one that is compared.
    coins.sort_by_key(|coin| (coin.outpoint.txid.to_string(), coin.outpoint.vout));
    coins.into_iter().map(|coin| coin.outpoint).collect()
}

fn near_equal(whole: i128, parts: i128) -> Vec<u64> {
    let mut all = vec![whole / parts; usize::try_from(parts).expect("sound numbers")];
    all[0] += whole % parts;
    all.into_iter().map(|part| part.try_into().expect("sound numbers")).collect()
}

impl<'a> Numbers<'a> {
    fn sum(coins: &[&PegCoin]) -> i128 {
        coins.iter().map(|coin| sat(coin.value)).sum()
    }

    fn weight(&self, coins: &[&PegCoin]) -> i128 {
        coins.iter().map(|coin| input_weight(self.state, coin)).sum()
    }

    fn pot(&self, inputs: &[&PegCoin]) -> i128 {
        i128::from(self.state.accounts().fee_account).max(0).min(fee_of(self.rate, self.weight(inputs)))
    }

    fn outputs(&self, left: i128) -> i128 {
        if 2 * self.held >= self.coins_max {
            return 1;
        }
        (left / sat(self.state.network().params().change_unit)).clamp(1, 8)
    }

    fn economic(&self) -> Vec<&'a PegCoin> {
        let worth = |coin: &&PegCoin| sat(coin.value) > fee_of(self.rate, input_weight(self.state, coin));
        let mut coins: Vec<&PegCoin> = self.state.free_coins().filter(worth).collect();
        coins.sort_by_key(|coin| (coin.place.height.0, coin.place.index, coin.place.vout));
        coins
    }

    /// A batch without payees.
    fn unpaid(&self, kind: BatchKind, inputs: Vec<&PegCoin>, outputs: i128) -> Option<Plan> {
        let fee = fee_of(self.rate, weight_of(self.weight(&inputs), &[], outputs));
        let change = Self::sum(&inputs) - fee;
        (change >= 10_000).then(|| Plan {
            kind,
            inputs: bip69(inputs),
            payees: vec![],
            shares: vec![],
            change: near_equal(change, outputs),
            charge: fee.try_into().expect("sound numbers"),
            rate: self.rate.try_into().expect("sound numbers"),
        })
    }

    fn refresh(&self, economic: &[&'a PegCoin]) -> Option<Plan> {
        let params = self.state.network().params();
        let open = self.state.open_batches().filter(|batch| batch.kind == BatchKind::Refresh).count();
        if open >= params.max_open_refreshes as usize {
            return None;
        }
        let age = |coin: &PegCoin| self.tip - i128::from(coin.place.height.0);
        let sweep_age = |coin: &PegCoin| {
            self.state.network().scripts(coin.epoch()).expect("sound numbers").epoch().timelocks().sweep_age
        };
        let due = economic.iter().any(|coin| age(coin) > i128::from(sweep_age(coin)));
        if due {
            let margin = i128::from(params.refresh_margin);
            let old = economic.iter().filter(|coin| age(coin) > i128::from(sweep_age(coin)) - margin);
            let inputs: Vec<_> = old.copied().take(self.max_inputs).collect();
            let outputs = self.outputs(Self::sum(&inputs));
            return self.unpaid(BatchKind::Refresh, inputs, outputs);
        }
        if 2 * self.held >= self.coins_max && economic.len() >= self.max_inputs {
            return self.unpaid(BatchKind::Refresh, economic[..self.max_inputs].to_vec(), 1);
        }
        None
    }

    /// Step 3: coins of this order for payees of so much; `None` if they do not suffice.
    fn choose(&self, gross: i128, order: &[&'a PegCoin]) -> Option<Vec<&'a PegCoin>> {
        let mut chosen: Vec<&PegCoin> = vec![];
        for coin in order {
            let enough = !chosen.is_empty() && Self::sum(&chosen) >= gross + self.pot(&chosen) + 10_000;
            if enough || chosen.len() == self.max_inputs {
                break;
            }
            chosen.push(coin);
        }
        (!chosen.is_empty() && Self::sum(&chosen) >= gross + self.pot(&chosen)).then_some(chosen)
    }

    fn payees(&self, economic: &[&'a PegCoin], time: u32, openings: &Openings) -> Vec<&'a PegOutRequest> {
        let params = self.state.network().params();
        let all = Self::sum(economic);
        let day: i128 = openings
            .batched
            .iter()
            .filter(|(at, _)| i64::from(*at) > i64::from(time) - 86_400)
            .map(|(_, value)| i128::from(*value))
            .sum();
        let mut payees = vec![];
        let mut value = 0;
        for request in self.state.waiting() {
            let amount = sat(request.amount);
            if amount > all {
                continue;
            }
            value += amount;
            if payees.len() == params.max_payees as usize
                || value > sat(params.batch_value_max)
                || day + value > sat(params.value_per_day_max)
            {
                break;
            }
            payees.push(request);
        }
        payees
    }

    fn payout(&self, economic: &[&'a PegCoin], time: u32, openings: &Openings) -> Option<Plan> {
        let params = self.state.network().params();
        let open = self.state.open_batches().filter(|batch| batch.kind != BatchKind::Refresh).count();
        let waited = openings.last.is_none_or(|last| self.height - last >= params.batch_interval);
        if open >= params.max_open_batches as usize || !waited {
            return None;
        }
        let mut payees = self.payees(economic, time, openings);
        'step_3: while !payees.is_empty() {
            for count in (1..=payees.len()).rev() {
                let gross = payees[..count].iter().map(|payee| sat(payee.amount)).sum();
                let mut inputs = self.choose(gross, economic);
                if inputs.is_none() && count == 1 {
                    let mut largest = economic.to_vec();
                    largest.sort_by_key(|coin| -sat(coin.value));
                    inputs = self.choose(gross, &largest);
                    if inputs.is_none() && largest.len() > self.max_inputs && Self::sum(&largest) >= gross {
                        let largest = largest[..self.max_inputs].to_vec();
                        if let Some(plan) = self.unpaid(BatchKind::Consolidation, largest, 1) {
                            return Some(plan);
                        }
                    }
                }
                let Some(inputs) = inputs else { continue };
                payees.truncate(count);
                match self.shape(&payees, &inputs) {
                    Ok(plan) => return Some(plan),
                    Err(affordable) => payees = affordable,
                }
                continue 'step_3;
            }
            payees.remove(0);
        }
        None
    }

    /// Steps 4 and 5; the payees whose caps are not below their shares, if that is not all of them.
    fn shape(&self, payees: &[&'a PegOutRequest], inputs: &[&PegCoin]) -> Result<Plan, Vec<&'a PegOutRequest>> {
        let gross: i128 = payees.iter().map(|payee| sat(payee.amount)).sum();
        let (value, pot) = (Self::sum(inputs), self.pot(inputs));
        let change = value - gross - pot;
        let outputs = if change < 10_000 { 0 } else { self.outputs(value - gross) };
        let fee = fee_of(self.rate, weight_of(self.weight(inputs), payees, outputs));
        let shares = near_equal(fee - pot, i128::try_from(payees.len()).expect("sound numbers"));
        let fits =
            |(payee, share): &(&&PegOutRequest, &u64)| i128::from(**share) <= cap(self.state, self.height, payee);
        let affordable: Vec<_> = payees.iter().zip(&shares).filter(fits).map(|(payee, _)| *payee).collect();
        if affordable.len() < payees.len() {
            return Err(affordable);
        }
        Ok(Plan {
            kind: BatchKind::Payout,
            inputs: bip69(inputs.to_vec()),
            payees: payees.iter().map(|payee| payee.outpoint).collect(),
            shares,
            change: if outputs == 0 { vec![] } else { near_equal(change, outputs) },
            charge: u64::try_from(if outputs == 0 { pot + change } else { pot }).expect("sound numbers"),
            rate: self.rate.try_into().expect("sound numbers"),
        })
    }
}

fn cap(state: &PegState, height: u32, payee: &PegOutRequest) -> i128 {
    let params = state.network().params();
    if height - payee.place.height.0 >= params.request_max_wait {
        sat(payee.amount) - 546
    } else {
        sat(params.peg_out_fee_max)
    }
}

/// What the block of this height and time must open.
pub(crate) fn plan(state: &PegState, height: Height, time: u32, openings: &Openings) -> Option<Plan> {
    if state.frozen().is_some() {
        return None;
    }
    let params = state.network().params();
    let in_batches: usize = state.open_batches().map(|batch| batch.inputs.len()).sum();
    let numbers = Numbers {
        state,
        height: height.0,
        rate: state.agreed_rate().0.into(),
        coins_max: params.coins_max.into(),
        max_inputs: params.max_inputs as usize,
        held: i128::try_from(state.free_coins().len() + in_batches).expect("sound numbers"),
        tip: state.headers().tip().height.0.into(),
    };
    let economic = numbers.economic();
    numbers.refresh(&economic).or_else(|| numbers.payout(&economic, time, openings))
}

/// What replaces the newest version of a batch in the block of this height; `None` if that is invalid.
pub(crate) fn replacement(state: &PegState, batch: &Batch, height: Height) -> Option<Plan> {
    let params = state.network().params();
    let old = batch.newest();
    if state.headers().tip().height.0 < old.fixed_at.0 + params.replace_after {
        return None;
    }
    let old_rate = i128::from(old.rate.0);
    let stepped = (old_rate + 1_000).max((old_rate * 5 + 3) / 4);
    let rate = i128::from(state.agreed_rate().0).max(stepped).min(params.fee_rate_max.0.into());
    if rate <= old_rate {
        return None;
    }
    let inputs: Vec<&PegCoin> = batch.inputs.iter().collect();
    let payees: Vec<&PegOutRequest> = batch.payees.iter().collect();
    let value = Numbers::sum(&inputs);
    let weight: i128 = inputs.iter().map(|coin| input_weight(state, coin)).sum();
    let old_shares: i128 = old.shares.iter().map(|share| sat(*share)).sum();
    let old_fee = old_shares + sat(old.charge);
    let fee_with = |outputs: i128| {
        let weight = weight_of(weight, &payees, outputs);
        fee_of(rate, weight).max(old_fee + (weight + 3) / 4 + 1_000)
    };
    let outputs = i128::try_from(old.change.len()).expect("sound numbers");
    let plan = |shares: Vec<u64>, change: Vec<u64>, charge: i128| Plan {
        kind: batch.kind,
        inputs: bip69(inputs.clone()),
        payees: payees.iter().map(|payee| payee.outpoint).collect(),
        shares,
        change,
        charge: charge.try_into().expect("sound numbers"),
        rate: rate.try_into().expect("sound numbers"),
    };
    if payees.is_empty() {
        let fee = fee_with(outputs);
        return (value - fee >= 10_000).then(|| plan(vec![], near_equal(value - fee, outputs), fee));
    }
    let gross: i128 = payees.iter().map(|payee| sat(payee.amount)).sum();
    let returned = i128::from(state.accounts().fee_account) + sat(old.charge);
    let pot = returned.max(0).min(fee_of(rate, weight)).min(value - gross);
    let shared = |outputs: i128| {
        let fee = fee_with(outputs);
        let wanted = near_equal(fee - pot, i128::try_from(payees.len()).expect("sound numbers"));
        let limited =
            wanted.iter().zip(&payees).map(|(share, payee)| i128::from(*share).min(cap(state, height.0, payee)));
        let shares: Vec<u64> = limited.map(|share| share.try_into().expect("sound numbers")).collect();
        let paid: i128 = shares.iter().map(|share| i128::from(*share)).sum();
        (shares, fee - paid)
    };
    if outputs > 0 {
        let (shares, pot) = shared(outputs);
        let change = value - gross - pot;
        if change >= 10_000 {
            return Some(plan(shares, near_equal(change, outputs), pot));
        }
    }
    let (shares, pot) = shared(0);
    let change = value - gross - pot;
    (change >= 0).then(|| plan(shares, vec![], pot + change))
}
