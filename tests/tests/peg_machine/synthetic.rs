//! States that no history reaches: written as records by hand, and restored. Only the headers are real.

use std::sync::{Arc, LazyLock};

use bitcoin::consensus::{Encodable, serialize};
use bitcoin::hashes::Hash;
use bitcoin::{Amount, OutPoint, Txid, VarInt};
use causeway_chainspec::{BitcoinHeight, ChainSpec, Height, PegOutDestination, SatPerKvb, tagged_hash};
use causeway_consensus::LtHash;
use causeway_consensus::peg::batch::{Batch, BatchKind, BatchVersion};
use causeway_consensus::peg::coin::{CoinKind, CoinPlace, PegCoin, PegOutRequest, RequestPlace};
use causeway_consensus::peg::record::RecordKey;
use causeway_consensus::peg::script::DepositTerms;
use causeway_consensus::peg::{PegNetwork, PegState};
use causeway_tests::chain::MemoryChain;
use causeway_tests::parent::{ParentChain, terms};
use causeway_tests::wallet::{Kind, Owner};
use rand::Rng;
use rand::rngs::StdRng;

use crate::oracle::Openings;

const SUPPLY: i128 = 2_100_000_000_000_000;

/// Records are encoded by hand, after the documentation of their layout.
type Record = (RecordKey, Vec<u8>);

/// What every synthetic state of a chainspec shares.
pub(crate) struct Base {
    pub(crate) network: Arc<PegNetwork>,
    headers: Vec<Record>,
    pub(crate) tip: BitcoinHeight,
}

impl Base {
    pub(crate) fn new(spec: &ChainSpec, blocks: u32) -> Self {
        let mut chain = MemoryChain::new(spec.clone());
        let mut parent = ParentChain::new(spec);
        parent.mine_empty(blocks);
        while chain.peg().headers().tip().height < parent.tip() {
            parent.follow(&mut chain);
        }
        let headers = chain.peg().records().filter(|(key, _)| key[0] < 0x10).collect();
        Self { network: chain.peg().network().clone(), headers, tip: parent.tip() }
    }
}

/// The shortest output that the peg pays: P2WPKH.
pub(crate) fn short_destination() -> PegOutDestination {
    DESTINATIONS[2].clone()
}

/// The parts of a state that are made up.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) free: Vec<PegCoin>,
    pub(crate) waiting: Vec<PegOutRequest>,
    pub(crate) open: Vec<Batch>,
    pub(crate) fee_account: i64,
    pub(crate) agreed: SatPerKvb,
    pub(crate) openings: Openings,
    /// The block that is planned for.
    pub(crate) height: Height,
    pub(crate) time: u32,
}

fn put(out: &mut Vec<u8>, value: &impl Encodable) {
    value.consensus_encode(out).expect("sound numbers");
}

fn outpoint(rng: &mut StdRng, vout: u32) -> OutPoint {
    OutPoint { txid: Txid::from_byte_array(rng.random()), vout }
}

/// A number of which every order of magnitude is equally likely.
pub(crate) fn spread(rng: &mut StdRng, from: u64, to: u64) -> u64 {
    let bits = rng.random_range(from.ilog2()..=to.ilog2());
    rng.random_range(1 << bits..2 << bits).clamp(from, to)
}

/// The five forms that are paid, and terms of a deposit. Made once: keys take time.
static DESTINATIONS: LazyLock<[PegOutDestination; 5]> = LazyLock::new(|| {
    let kinds = [Kind::P2pkh, Kind::P2sh, Kind::P2wpkh, Kind::P2wsh, Kind::P2trKey];
    kinds.map(|kind| PegOutDestination::from_bitcoin_script(&Owner::new(1).script_pubkey(kind)).expect("sound numbers"))
});
static TERMS: LazyLock<DepositTerms> = LazyLock::new(|| terms(DESTINATIONS[2].script().to_owned(), &Owner::new(3)));

fn coin(rng: &mut StdRng, base: &Base, rate: SatPerKvb, place: (u32, u32)) -> PegCoin {
    let epoch = base.network.current().epoch();
    let deposit = rng.random_bool(0.5);
    let kind = match deposit {
        true => CoinKind::Deposit(TERMS.clone()),
        false => CoinKind::Main { epoch: 1 },
    };
    let weight = if deposit { epoch.worst_deposit_input_weight() } else { epoch.worst_main_input_weight() };
    let cost = rate.fee(weight).expect("sound numbers").to_sat();
    let value = match rng.random_range(0..6) {
        // On both sides of what spending costs.
        0 => rng.random_range(cost.saturating_sub(2)..=cost + 2),
        1 => cost + rng.random_range(0..20_000),
        2 => spread(rng, 330, 100_000),
        3 => spread(rng, 100_000, 10_000_000_000),
        4 => 1_000_000,
        _ => spread(rng, 330, 1_000_000_000_000),
    };
    let place = CoinPlace { height: BitcoinHeight(place.0), index: place.1, vout: rng.random_range(0..4) };
    PegCoin { place, outpoint: outpoint(rng, place.vout), value: Amount::from_sat(value.max(1)), kind }
}

fn coins(rng: &mut StdRng, base: &Base, rate: SatPerKvb, count: usize, index: u32) -> Vec<PegCoin> {
    let tip = base.tip.to_u32();
    // All young, all ages, or many of one block.
    let least = [tip.saturating_sub(50), 1, tip][rng.random_range(0..3)];
    (0..count)
        .map(|number| {
            let place = (rng.random_range(least..=tip), index + u32::try_from(number).expect("sound numbers"));
            coin(rng, base, rate, place)
        })
        .collect()
}

fn request(rng: &mut StdRng, base: &Base, index: u32, before: u32) -> PegOutRequest {
    let params = base.network.params();
    let (min, max) = (params.peg_out_min.to_sat(), params.peg_out_max.to_sat());
    let amount = match rng.random_range(0..4) {
        0 => min,
        1 => spread(rng, min, min * 3),
        2 => spread(rng, min, (min * 1_000).min(max)),
        _ => spread(rng, min, max),
    };
    let place = RequestPlace { height: Height(rng.random_range(101..before)), index, vout: rng.random_range(0..4) };
    let destination = DESTINATIONS[rng.random_range(0..5)].clone();
    PegOutRequest { place, outpoint: outpoint(rng, place.vout), amount: Amount::from_sat(amount), destination }
}

/// A batch that stands open, with one version of whatever shape.
fn open_batch(rng: &mut StdRng, base: &Base, number: u32, rate: SatPerKvb, before: u32) -> Batch {
    let kind = [BatchKind::Payout, BatchKind::Refresh, BatchKind::Consolidation][rng.random_range(0..3)];
    let count = rng.random_range(1..=base.network.params().max_inputs as usize);
    let inputs = coins(rng, base, rate, count, 500_000 + number * 1_000);
    let mut left: u64 = inputs.iter().map(|coin| coin.value.to_sat()).sum();
    let mut payees = vec![];
    while kind == BatchKind::Payout && (payees.is_empty() || rng.random_bool(0.6)) && payees.len() < 20 {
        let mut payee =
            request(rng, base, 600_000 + number * 1_000 + u32::try_from(payees.len()).expect("sound numbers"), before);
        payee.amount = Amount::from_sat(payee.amount.to_sat().min(left));
        left -= payee.amount.to_sat();
        payees.push(payee);
    }
    let charge = rng.random_range(0..=left);
    let change = if left > charge { vec![Amount::from_sat(left - charge)] } else { vec![] };
    let version = BatchVersion {
        txid: Txid::all_zeros(),
        rate: SatPerKvb(spread(rng, 1_000, base.network.params().fee_rate_max.0)),
        shares: vec![Amount::ZERO; payees.len()],
        change,
        charge: Amount::from_sat(charge),
        fixed: Height(before - 1),
        fixed_at: BitcoinHeight(base.tip.0.saturating_sub(rng.random_range(0..20))),
    };
    let mut batch = Batch {
        number,
        kind,
        opened: Height(before - 1),
        inputs,
        payees,
        change_script: base.network.current().main_script().to_owned(),
        change_epoch: 1,
        versions: vec![version],
    };
    batch.versions[0].txid = batch.transaction(&batch.versions[0]).compute_txid();
    batch
}

impl Parts {
    pub(crate) fn random(rng: &mut StdRng, base: &Base) -> Self {
        let params = base.network.params();
        let max = params.fee_rate_max.0;
        let agreed = SatPerKvb([1_000, max, spread(rng, 1_000, max)][rng.random_range(0..3)]);
        let height = 10_000;
        let many = params.coins_max as usize;
        let count = [0, 1, 5, 13, 30, many / 2 - 1, many / 2, many][rng.random_range(0..8)];
        let free = coins(rng, base, agreed, count, 1);
        let old = rng.random_bool(0.3);
        let before = if old { height - params.request_max_wait.min(9_000) } else { height };
        let count = [0, 1, 2, 10, 100, 400][rng.random_range(0..6)];
        let mut waiting: Vec<_> = (1..=count).map(|index| request(rng, base, index, before)).collect();
        let batches = if rng.random_bool(0.6) { 0 } else { rng.random_range(1..6) };
        let open = (1..=batches).map(|number| open_batch(rng, base, number, agreed, height)).collect();
        let openings = Openings {
            last: rng.random_bool(0.7).then(|| height - rng.random_range(1..3 * params.batch_interval)),
            batched: match rng.random_range(0..3) {
                0 => vec![],
                // The day is full, or it is over.
                1 => vec![(1_800_000_000 - rng.random_range(86_399..=86_401), params.value_per_day_max.to_sat())],
                _ => (0..rng.random_range(1..4))
                    .map(|_| {
                        let value = spread(rng, 1, params.value_per_day_max.to_sat());
                        (1_800_000_000 - [0, 1, 86_399, 86_400, 86_401, 500][rng.random_range(0..6)], value)
                    })
                    .collect(),
            },
        };
        waiting.sort_by_key(|request| request.place);
        let mut parts =
            Self { free, waiting, open, fee_account: 0, agreed, openings, height: Height(height), time: 1_800_000_000 };
        if rng.random_bool(0.2) {
            parts.crowd(rng, base);
        }
        parts.settle_accounts(rng);
        parts
    }

    /// Many young coins of about one value, and first a request that takes more of them than a transaction may spend.
    fn crowd(&mut self, rng: &mut StdRng, base: &Base) {
        let params = base.network.params();
        let inputs = params.max_inputs as usize;
        let count = rng.random_range(inputs..(2 * inputs).min(params.coins_max as usize / 2));
        let cost = self
            .agreed
            .fee(base.network.current().epoch().worst_deposit_input_weight())
            .expect("sound numbers")
            .to_sat();
        let value = cost + [1, 20, 1_000, 10_000, 50_000, 1_000_000, 100_000_000][rng.random_range(0..7)];
        self.free = coins(rng, base, self.agreed, count, 1);
        for coin in &mut self.free {
            coin.value = Amount::from_sat(value + rng.random_range(0..3));
            coin.place.height = base.tip;
        }
        self.open.clear();
        self.openings = Openings::default();
        let all = value * count as u64;
        if let Some(first) = self.waiting.first_mut() {
            let amount = rng.random_range(all * 9 / 20..=all);
            first.amount = Amount::from_sat(amount).clamp(params.peg_out_min, params.peg_out_max);
        }
    }

    /// Chooses a fee account for which the accounts can add up, and drops requests that nobody could have made.
    pub(crate) fn settle_accounts(&mut self, rng: &mut StdRng) {
        let net = self.net();
        let mut made: i128 = 0;
        let room = SUPPLY - 1_000_000_000_000;
        self.waiting.retain(|request| {
            made += i128::from(request.amount.to_sat());
            made <= room
        });
        let made: i128 = self.waiting.iter().map(|request| i128::from(request.amount.to_sat())).sum();
        let (least, most) = (net - SUPPLY, net - made);
        let wanted = match rng.random_range(0..5) {
            0 => least,
            1 => most,
            2 => 0,
            3 => i128::from(spread(rng, 1, 10_000_000)),
            _ => -i128::from(spread(rng, 1, 10_000_000)),
        };
        self.fee_account = wanted.clamp(least, most).try_into().expect("sound numbers");
    }

    /// As much in the fee account as there can be.
    pub(crate) fn rich(&mut self) {
        let made: i128 = self.waiting.iter().map(|request| i128::from(request.amount.to_sat())).sum();
        self.fee_account = (self.net() - made).try_into().expect("sound numbers");
    }

    /// What is locked and neither being paid nor charged.
    fn net(&self) -> i128 {
        let free: u64 = self.free.iter().map(|coin| coin.value.to_sat()).sum();
        let open = |batch: &Batch| {
            i128::from(batch.input_value().to_sat())
                - i128::from(batch.gross().to_sat())
                - i128::from(batch.newest().charge.to_sat())
        };
        i128::from(free) + self.open.iter().map(open).sum::<i128>()
    }

    pub(crate) fn state(&self, base: &Base) -> PegState {
        let mut records = base.headers.clone();
        for coin in &self.free {
            let place = coin.place;
            records.push((place_key(0x10, place.height.0, place.index, place.vout), coin_bytes(coin)));
        }
        for request in &self.waiting {
            let place = request.place;
            records.push((place_key(0x12, place.height.0, place.index, place.vout), request_bytes(request)));
        }
        for batch in &self.open {
            records.push(([&[0x13], batch.number.to_be_bytes().as_slice()].concat(), batch.encode()));
        }
        let reserve = SUPPLY - self.net() + i128::from(self.fee_account);
        let mut summary = vec![];
        put(&mut summary, &OutPoint::default());
        put(&mut summary, &u64::try_from(reserve).expect("sound numbers"));
        put(&mut summary, &self.fee_account);
        put(&mut summary, &self.agreed.0);
        put(&mut summary, &self.open.iter().map(|batch| batch.number).max().unwrap_or(0));
        put(&mut summary, &self.openings.last.unwrap_or(0));
        put(&mut summary, &VarInt(self.openings.batched.len() as u64));
        for (time, value) in &self.openings.batched {
            put(&mut summary, time);
            put(&mut summary, value);
        }
        summary.push(0);
        records.push((vec![0x15], summary));
        let mut hash = LtHash::empty();
        records.iter().for_each(|(key, value)| hash.add_record(key, value));
        let digest = tagged_hash("causeway/peg-state/v1", &[&hash.digest()]);
        PegState::restore(base.network.clone(), digest, records).expect("sound records")
    }
}

fn place_key(kind: u8, height: u32, index: u32, vout: u32) -> Vec<u8> {
    let numbers = [height, index, vout].map(u32::to_be_bytes).concat();
    [&[kind], numbers.as_slice()].concat()
}

fn coin_bytes(coin: &PegCoin) -> Vec<u8> {
    let mut out = vec![];
    for number in [coin.place.height.0, coin.place.index, coin.place.vout] {
        put(&mut out, &number);
    }
    put(&mut out, &coin.outpoint.txid);
    put(&mut out, &coin.value.to_sat());
    put(&mut out, &1u32);
    match &coin.kind {
        CoinKind::Main { .. } => out.push(0),
        CoinKind::Deposit(terms) => {
            out.push(1);
            out.extend(serialize(&terms.destination));
            out.extend(terms.refund_key.serialize());
        }
    }
    out
}

fn request_bytes(request: &PegOutRequest) -> Vec<u8> {
    let mut out = vec![];
    for number in [request.place.height.0, request.place.index, request.place.vout] {
        put(&mut out, &number);
    }
    put(&mut out, &request.outpoint.txid);
    put(&mut out, &request.amount.to_sat());
    out.extend(serialize(&request.destination.script().to_owned()));
    out
}
