//! `plan_batch` and `plan_replacement` over states that no history reaches, and what every version of a batch obeys.

use std::time::{Duration, Instant};

use bitcoin::{Amount, Weight};
use causeway_chainspec::{BitcoinHeight, ChainSpec, ChainSpecParts, Epoch, Height, SatPerKvb, Timelocks};
use causeway_consensus::peg::batch::{Batch, BatchKind, BatchVersion};
use causeway_consensus::peg::coin::{CoinKind, CoinPlace, PegCoin, PegOutRequest, RequestPlace};
use causeway_consensus::peg::plan::{plan_batch, plan_replacement};
use causeway_consensus::peg::{PegContext, PegState, Step};
use causeway_tests::parent::peg_spec;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::for_seeds;
use crate::oracle::{self, Plan};
use crate::synthetic::{Base, Parts, short_destination, spread};
use crate::world::small_spec;

/// Far more than any plan takes, on a machine that has other things to do.
const PLAN_TIME: Duration = Duration::from_secs(2);

/// Chainspecs of which each drives something to its limit.
fn bases() -> Vec<Base> {
    let btc = |btc: u64| Amount::from_sat(btc * 100_000_000);
    let specs = [
        small_spec(&mut StdRng::seed_from_u64(1)),
        young_spec(|_| {}),
        // The greatest feerate.
        young_spec(|parts| {
            parts.params.fee_rate_max = SatPerKvb(10_000_000);
            parts.params.peg_in_min = Amount::from_sat(10_000_000);
            parts.params.coins_max = 100;
        }),
        // Amounts as large as they can be, and change as small.
        young_spec(|parts| {
            parts.params.peg_out_max = btc(21_000_000);
            parts.params.batch_value_max = btc(21_000_000);
            parts.params.value_per_day_max = btc(21_000_000);
            parts.params.change_unit = Amount::from_sat(10_000);
            parts.params.peg_out_fee_max = Amount::from_sat(1);
            parts.params.peg_out_min = Amount::from_sat(547);
        }),
        // One key and everything for payees.
        young_spec(|parts| {
            let mut federation = parts.federation.to_parts();
            federation.members.truncate(1);
            federation.threshold = 1;
            parts.federation = Epoch::new(federation).expect("sound");
            parts.params.max_inputs = 12;
            parts.params.coins_max = 400;
            parts.params.max_payees = 190;
            parts.params.peg_out_fee_max = btc(1);
            parts.params.peg_out_min = btc(2);
        }),
    ];
    specs.iter().map(|spec| Base::new(spec, 200)).collect()
}

/// A chainspec whose coins grow old soon, so that few headers are enough.
fn young_spec(edit: impl FnOnce(&mut ChainSpecParts)) -> ChainSpec {
    peg_spec(|parts| {
        let mut federation = parts.federation.to_parts();
        let timelocks = Timelocks { claim_window: 40, sweep_age: 60, recovery_delay: 180, refund_delay: 240 };
        federation.timelocks = timelocks;
        parts.federation = Epoch::new(federation).expect("sound");
        parts.params.refresh_margin = 15;
        parts.params.coins_max = 600;
        edit(parts);
    })
}

/// How many plans of each kind were compared.
#[derive(Debug, Default)]
struct Kinds {
    none: u32,
    payouts: u32,
    without_change: u32,
    refreshes: u32,
    consolidations: u32,
    replacements: u32,
}

#[test]
fn plans_of_any_state_are_those_of_the_rules() {
    let bases = bases();
    let kinds = std::cell::RefCell::new(Kinds::default());
    for_seeds(1_000, 20_000, |seed| {
        let mut rng = StdRng::seed_from_u64(seed);
        let base = &bases[rng.random_range(0..bases.len())];
        let parts = Parts::random(&mut rng, base);
        let state = parts.state(base);
        let before = Instant::now();
        let planned = plan_batch(&state, parts.height, parts.time);
        assert!(before.elapsed() < PLAN_TIME, "{:?}", before.elapsed());
        let expected = oracle::plan(&state, parts.height, parts.time, &parts.openings);
        assert_eq!(planned.as_ref().map(|batch| Plan::of(batch, batch.newest())), expected, "{parts:?}");

        let mut kinds = kinds.borrow_mut();
        let mut step = Step::new(&state, PegContext { height: parts.height, time: parts.time });
        assert_eq!(step.open(), planned.is_some());
        let opened = step.transaction().expect_or_none(planned.is_some());
        let after = step.finish(opened.as_ref().map(|tx| (tx, tx.compute_txid())), vec![]);
        assert!(after.state.accounts().balance());
        let Some(batch) = planned else {
            kinds.none += 1;
            return;
        };
        assert_eq!(after.state.open_batch(batch.number), Some(&batch));
        check_version(&state, &batch, batch.newest());
        assert_eq!(batch.number, state.batches() + 1);
        match batch.kind {
            BatchKind::Payout => kinds.payouts += 1,
            BatchKind::Refresh => kinds.refreshes += 1,
            BatchKind::Consolidation => kinds.consolidations += 1,
        }
        kinds.without_change += u32::from(batch.newest().change.is_empty());
        kinds.replacements += replace_on(&mut rng, base, parts, batch);
    });
    let kinds = kinds.into_inner();
    eprintln!("{kinds:?}");
    let Kinds { none, payouts, without_change, refreshes, consolidations, replacements } = kinds;
    let least = [none, payouts, without_change, refreshes, consolidations, replacements].into_iter().min();
    assert!(least > Some(0) || std::env::var_os("CAUSEWAY_TEST_SEED").is_some(), "{kinds:?}");
}

/// The first request needs a consolidation, which would leave no change at this feerate; the second can be paid.
#[test]
fn a_consolidation_that_cannot_be_built_stops_nobody() {
    let mut rng = StdRng::seed_from_u64(7);
    let base = &bases()[2];
    let mut parts = Parts::random(&mut rng, base);
    let request = (0..100).find_map(|_| Parts::random(&mut rng, base).waiting.first().cloned()).expect("some have one");
    parts.agreed = base.network.params().fee_rate_max;
    parts.openings = crate::oracle::Openings::default();
    parts.open.clear();
    let cost = parts.agreed.fee(base.network.current().epoch().worst_main_input_weight()).expect("fits");
    let inputs = base.network.params().max_inputs;
    let rich = Amount::from_sat(30_000);
    // As many again are not worth spending, but let the fee account hold what spending the others costs.
    parts.free = (0..2 * inputs + 2)
        .map(|index| PegCoin {
            place: CoinPlace { height: base.tip, index, vout: 0 },
            outpoint: bitcoin::OutPoint { vout: index, ..request.outpoint },
            value: if index < inputs { cost } else { cost + rich },
            kind: CoinKind::Main { epoch: 1 },
        })
        .collect();
    let inputs = u64::from(inputs);
    let large = (cost + rich) * inputs;
    // Little enough change joins the fee, and the share leaves 546 sat to one who has waited.
    let small = rich * inputs - Amount::from_sat(1_000);
    parts.waiting = [(1, large), (2, small)]
        .map(|(vout, amount)| PegOutRequest {
            place: RequestPlace { height: Height(101), index: 1, vout },
            outpoint: bitcoin::OutPoint { vout, ..request.outpoint },
            amount,
            destination: short_destination(),
        })
        .to_vec();
    parts.rich();
    let state = parts.state(base);
    let planned = plan_batch(&state, parts.height, parts.time).expect("the second is paid");
    assert_eq!(planned.payees, parts.waiting[1..]);
    let expected = oracle::plan(&state, parts.height, parts.time, &parts.openings);
    assert_eq!(Some(Plan::of(&planned, planned.newest())), expected);
}

/// Replaces a batch as often as it can be, each time with another agreed feerate and fee account.
fn replace_on(rng: &mut StdRng, base: &Base, mut parts: Parts, mut batch: Batch) -> u32 {
    parts.free.retain(|coin| !batch.inputs.contains(coin));
    parts.waiting.retain(|request| !batch.payees.contains(request));
    let replace_after = base.network.params().replace_after;
    let max = base.network.params().fee_rate_max.0;
    for count in 0..8 {
        parts.agreed = SatPerKvb(spread(rng, 1_000, max));
        parts.height = Height(parts.height.0 + rng.random_range(1..2_000));
        batch.versions.last_mut().expect("a version").fixed_at = BitcoinHeight(base.tip.0 - replace_after);
        parts.open.retain(|open| open.number != batch.number);
        parts.open.push(batch.clone());
        parts.settle_accounts(rng);
        let state = parts.state(base);
        let planned = plan_replacement(&state, batch.number, parts.height);
        let expected = oracle::replacement(&state, &batch, parts.height);
        assert_eq!(planned.as_ref().ok().map(|version| Plan::of(&batch, version)), expected, "{planned:?} {parts:?}");
        let Ok(version) = planned else { return count };
        check_version(&state, &batch, &version);
        // BIP125: more than the old fee, by the relay fee of its size at least.
        let old = batch.newest();
        let size = batch.transaction(&version).weight() + Weight::from_wu(2);
        assert!(batch.fee(&version) >= batch.fee(old) + Amount::from_sat(size.to_wu().div_ceil(4)));
        assert!(version.rate > old.rate);
        batch.versions.push(version);
    }
    8
}

/// A transaction exists exactly if there is evidence.
trait ExpectOrNone {
    fn expect_or_none(self, expected: bool) -> Self;
}

impl<T> ExpectOrNone for Option<T> {
    fn expect_or_none(self, expected: bool) -> Self {
        assert_eq!(self.is_some(), expected);
        self
    }
}

/// The rules that Bitcoin's nodes and the payees ask of a transaction, from its bytes.
pub(crate) fn check_version(state: &PegState, batch: &Batch, version: &BatchVersion) {
    let transaction = batch.transaction(version);
    assert_eq!(transaction.version.0, 3);
    assert_eq!(transaction.lock_time.to_consensus_u32(), 0);
    assert!(transaction.input.iter().all(|input| input.sequence.0 == 0xffff_fffd));
    assert!(!transaction.input.is_empty() && !transaction.output.is_empty());
    let params = state.network().params();
    assert!(transaction.input.len() <= params.max_inputs as usize);
    assert!(batch.payees.len() <= params.max_payees as usize);
    assert_eq!(transaction.output.len(), batch.payees.len() + version.change.len());

    // An unsigned input weighs 4 x 41 of what its worst path does.
    let unsigned = |coin: &PegCoin| {
        let epoch = state.network().scripts(coin.epoch()).expect("sound numbers").epoch().clone();
        let worst = match coin.kind {
            CoinKind::Main { .. } => epoch.worst_main_input_weight(),
            CoinKind::Deposit(_) => epoch.worst_deposit_input_weight(),
        };
        worst.to_wu() - 4 * 41
    };
    let weight = transaction.weight().to_wu() + 2 + batch.inputs.iter().map(unsigned).sum::<u64>();
    assert!(weight <= 40_000, "{weight}");
    let outputs: Amount = transaction.output.iter().map(|output| output.value).sum();
    let fee = batch.input_value() - outputs;
    assert_eq!(fee, batch.fee(version));
    assert!(fee >= version.rate.fee(Weight::from_wu(weight)).expect("sound numbers"));
    assert!(version.rate <= params.fee_rate_max && version.rate.0 >= 1_000);
    for (index, (output, payee)) in transaction.output.iter().zip(&batch.payees).enumerate() {
        assert!(output.value >= Amount::from_sat(546), "{}", output.value);
        assert_eq!(output.value + version.shares[index], payee.amount);
        assert_eq!(output.script_pubkey, *payee.destination.script());
    }
    for output in &transaction.output[batch.payees.len()..] {
        assert_eq!(output.script_pubkey, *state.network().current().main_script());
        assert!(output.value >= Amount::from_sat(330), "{}", output.value);
    }
    if !version.change.is_empty() {
        assert!(version.change.iter().copied().sum::<Amount>() >= Amount::from_sat(10_000));
        let (most, least) =
            (version.change.iter().max().expect("sound numbers"), version.change.iter().min().expect("sound numbers"));
        assert!(*most - *least < Amount::from_sat(8));
    }
}
