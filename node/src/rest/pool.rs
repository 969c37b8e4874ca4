//! `/mempool...` and `/fee-estimates`: from a copy of what the mempool says, at most a second old.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bitcoin::{BlockHash, Txid};
use causeway_chainspec::SatPerKvb;
use causeway_consensus::block::MAX_BLOCK_WEIGHT;
use schemars::JsonSchema;
use serde::Serialize;

use super::App;
use super::answer::{Answer, Keep, Refusal};
use super::live::Live;
use super::schema::Hash;
use crate::mempool::{Entry, FeeFraction, Mempool};

/// How old a copy may be. It is dropped earlier when the tip moves, and when somebody hands in a transaction here.
const MAX_AGE: Duration = Duration::from_secs(1);

/// Virtual bytes of one bin of the histogram (electrs: `VSIZE_BIN_WIDTH`).
const BIN_VSIZE: u64 = 50_000;

/// Transactions in `/mempool/recent`.
const RECENT: usize = 10;

/// The confirmation targets, in blocks, that Esplora estimates for.
const TARGETS: [u64; 28] =
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 144, 504, 1008];

/// The least estimate: 1 sat/vB, though less may be relayed, because wallets count in whole sat/vB.
const MIN_ESTIMATE: SatPerKvb = SatPerKvb(1_000);

/// The mempool at one moment.
pub(super) struct View {
    tip: BlockHash,
    seen: Instant,
    /// See [`App::handed_in`].
    handed_in: u64,
    txids: Vec<Txid>,
    recent: Vec<RecentJson>,
    summary: SummaryJson,
    estimates: BTreeMap<String, f64>,
}

/// A transaction that entered the mempool lately.
#[derive(Clone, Serialize, JsonSchema)]
#[schemars(rename = "RecentTransaction")]
pub(super) struct RecentJson {
    #[schemars(with = "Hash")]
    txid: Txid,
    fee: u64,
    vsize: u64,
    value: u64,
}

/// The mempool in sums.
#[derive(Clone, Serialize, JsonSchema)]
#[schemars(rename = "MempoolSummary")]
pub(super) struct SummaryJson {
    count: usize,
    vsize: u64,
    total_fee: u64,
    /// Feerate in sat/vB and virtual bytes that pay it or more, and less than the bin before.
    fee_histogram: Vec<(f64, u64)>,
}

/// `GET /mempool`.
pub(super) async fn summary<L: Live>(app: &App<L>) -> Result<Answer, Refusal> {
    Answer::json(&app.view().await?.summary, Keep::Never)
}

/// `GET /mempool/txids`.
pub(super) async fn txids<L: Live>(app: &App<L>) -> Result<Answer, Refusal> {
    let view = app.view().await?;
    app.read(move |_| Answer::json(&view.txids, Keep::Never)).await
}

/// `GET /mempool/recent`.
pub(super) async fn recent<L: Live>(app: &App<L>) -> Result<Answer, Refusal> {
    Answer::json(&app.view().await?.recent, Keep::FiveSeconds)
}

/// `GET /fee-estimates`.
pub(super) async fn fee_estimates<L: Live>(app: &App<L>) -> Result<Answer, Refusal> {
    Answer::json(&app.view().await?.estimates, Keep::Never)
}

/// Feerates in whole sat/vB, as mempool.space names them.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "RecommendedFees")]
pub(super) struct RecommendedJson {
    fastest_fee: f64,
    half_hour_fee: f64,
    hour_fee: f64,
    economy_fee: f64,
    minimum_fee: f64,
}

/// `GET /v1/fees/recommended`, which mempool.js asks for: the estimates for 1, 3, 6, 144 and 1008 blocks.
pub(super) async fn recommended_fees<L: Live>(app: &App<L>) -> Result<Answer, Refusal> {
    let view = app.view().await?;
    let within = |target: &str| view.estimates.get(target).copied().unwrap_or(1.0).ceil();
    let json = RecommendedJson {
        fastest_fee: within("1"),
        half_hour_fee: within("3"),
        hour_fee: within("6"),
        economy_fee: within("144"),
        minimum_fee: within("1008"),
    };
    Answer::json(&json, Keep::Never)
}

impl<L: Live> App<L> {
    /// The mempool as it is, or was a moment ago. One caller at a time takes a copy, for all who wait.
    async fn view(&self) -> Result<Arc<View>, Refusal> {
        let mut kept = self.pool.lock().await;
        let handed_in = self.handed_in.load(Ordering::Acquire);
        let tip = self.read(|reader| Ok(reader.tip().hash())).await?;
        if let Some(view) =
            kept.as_ref().filter(|view| view.handed_in == handed_in && view.tip == tip && view.seen.elapsed() < MAX_AGE)
        {
            return Ok(Arc::clone(view));
        }
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let seen = Instant::now();
        let copy = self.live.pool(move |pool| Copied::of(pool, now_s)).await?;
        let view = self.read(move |_| Ok(Arc::new(View::new(copy, seen, handed_in)))).await?;
        *kept = Some(Arc::clone(&view));
        Ok(view)
    }
}

impl<L> App<L> {
    /// Makes the next look at the mempool a fresh one.
    pub(super) fn pool_changed(&self) {
        self.handed_in.fetch_add(1, Ordering::AcqRel);
    }
}

/// What is copied out of the pool while the node stands still: as little as will do.
struct Copied {
    tip: BlockHash,
    min_feerate: SatPerKvb,
    entries: Vec<CopiedEntry>,
}

struct CopiedEntry {
    txid: Txid,
    own: FeeFraction,
    mining: FeeFraction,
    value: u64,
    entered_s: u64,
}

impl Copied {
    fn of(pool: &Mempool, now_s: u64) -> Self {
        let copy = |entry: &Entry| CopiedEntry {
            txid: entry.txid(),
            own: entry.feerate(),
            mining: entry.mining_score(),
            value: entry.transaction().output.iter().map(|output| output.value.to_sat()).sum(),
            entered_s: entry.entered_s(),
        };
        Self { tip: pool.tip().hash, min_feerate: pool.min_feerate(now_s), entries: pool.entries().map(copy).collect() }
    }
}

impl View {
    fn new(copied: Copied, seen: Instant, handed_in: u64) -> Self {
        let Copied { tip, min_feerate, mut entries } = copied;
        entries.sort_unstable_by_key(|entry| entry.txid);
        let txids = entries.iter().map(|entry| entry.txid).collect();
        entries.sort_unstable_by_key(|entry| (Reverse(entry.entered_s), entry.txid));
        let recent = entries.iter().take(RECENT).map(|entry| RecentJson {
            txid: entry.txid,
            fee: entry.own.fee.to_sat(),
            vsize: entry.own.vsize,
            value: entry.value,
        });
        let recent = recent.collect();
        let summary = SummaryJson {
            count: entries.len(),
            vsize: entries.iter().map(|entry| entry.own.vsize).sum(),
            total_fee: entries.iter().map(|entry| entry.own.fee.to_sat()).sum(),
            fee_histogram: histogram(entries.iter().map(|entry| entry.own).collect()),
        };
        let mining = entries.iter().map(|entry| (entry.mining, entry.own.vsize)).collect();
        let estimates = estimates(mining, min_feerate.max(MIN_ESTIMATE));
        let estimates = TARGETS.iter().zip(estimates).map(|(target, rate)| (target.to_string(), sat_per_vb(rate)));
        Self { tip, seen, handed_in, txids, recent, summary, estimates: estimates.collect() }
    }
}

/// Returns bins of at least 50,000 virtual bytes but for the last, highest feerate first. Equal feerates share a bin.
fn histogram(mut entries: Vec<FeeFraction>) -> Vec<(f64, u64)> {
    entries.sort_unstable_by_key(|entry| Reverse(*entry));
    let mut bins = Vec::new();
    let mut open: Option<(FeeFraction, u64)> = None;
    for entry in entries {
        let vsize = match open {
            Some((lowest, vsize)) if vsize > BIN_VSIZE && lowest != entry => {
                bins.push((sat_per_vb(lowest.rate()), vsize));
                0
            }
            Some((_, vsize)) => vsize,
            None => 0,
        };
        open = Some((entry, vsize + entry.vsize));
    }
    bins.extend(open.map(|(lowest, vsize)| (sat_per_vb(lowest.rate()), vsize)));
    bins
}

/// Returns for each target the feerate that a transaction of the mempool must have to stand in one of so many blocks, if
/// nothing else arrives: that of the first transaction that has no room in them, and at least `floor`. It never grows from
/// one target to the next.
///
/// `entries` are what blocks choose by, with the virtual bytes of each.
fn estimates(mut entries: Vec<(FeeFraction, u64)>, floor: SatPerKvb) -> Vec<SatPerKvb> {
    entries.sort_unstable_by_key(|(score, _)| Reverse(*score));
    let block_vsize = MAX_BLOCK_WEIGHT.to_wu() / 4;
    let mut entries = entries.into_iter();
    let mut filled = 0;
    let mut estimates = Vec::with_capacity(TARGETS.len());
    let mut first_out = entries.next();
    for target in TARGETS {
        while let Some((_, vsize)) = first_out.filter(|(_, vsize)| filled + vsize <= target * block_vsize) {
            filled += vsize;
            first_out = entries.next();
        }
        // To be chosen before it takes a little more.
        let boundary = first_out.map_or(SatPerKvb(0), |(score, _)| SatPerKvb(score.rate().0.saturating_add(1)));
        estimates.push(boundary.max(floor));
    }
    estimates
}

/// A feerate as clients read it.
fn sat_per_vb(SatPerKvb(rate): SatPerKvb) -> f64 {
    // Exact up to 2^53, which no feerate comes near.
    rate as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::Amount;

    fn rate(fee: u64, vsize: u64) -> FeeFraction {
        FeeFraction { fee: Amount::from_sat(fee), vsize }
    }

    #[test]
    fn an_empty_mempool_asks_for_the_floor() {
        assert_eq!(estimates(vec![], SatPerKvb(1_000)), vec![SatPerKvb(1_000); 28]);
        assert_eq!(histogram(vec![]), vec![]);
    }

    #[test]
    fn estimates_are_the_feerates_at_the_ends_of_blocks() {
        // Two and a half blocks: at 30, 20 and 10 sat/vB.
        let entries = [(30, 10), (20, 10), (10, 5)]
            .iter()
            .flat_map(|(sat, count)| vec![(rate(sat * 100_000, 100_000), 100_000); *count])
            .collect();
        let estimates = estimates(entries, SatPerKvb(1_000));
        assert_eq!(estimates[..3], [SatPerKvb(20_001), SatPerKvb(10_001), SatPerKvb(1_000)]);
        assert!(estimates.is_sorted_by(|one, next| one >= next));
        assert_eq!(estimates.len(), TARGETS.len());
    }

    #[test]
    fn bins_are_full_before_the_next_one_begins() {
        let entries = vec![rate(30_000, 30_000), rate(90_000, 30_000), rate(90_000, 30_000), rate(90_000, 30_000)];
        assert_eq!(histogram(entries), vec![(3.0, 90_000), (1.0, 30_000)]);
    }
}
