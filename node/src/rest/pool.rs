//! `/mempool...` and `/fee-estimates`: from what the mempool says, at most a second old. The node's thread gives a reference
//! to a list; what is made of that is made elsewhere.

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
use crate::mempool::{FeeFraction, Mempool, Row, Rows};

/// How old a look at the mempool may be. It is taken again earlier when the tip moves, and when somebody hands in a
/// transaction here.
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

/// A look at the mempool.
pub(super) struct View {
    tip: BlockHash,
    seen: Instant,
    /// See [`App::handed_in`].
    handed_in: u64,
    figures: Arc<Figures>,
}

/// What is made of the mempool at one moment.
struct Figures {
    looked: Looked,
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
    Answer::json(&app.figures().await?.summary, Keep::Never)
}

/// `GET /mempool/txids`.
pub(super) async fn txids<L: Live>(app: &App<L>) -> Result<Answer, Refusal> {
    let figures = app.figures().await?;
    app.read(move |_| Answer::json(&figures.txids, Keep::Never)).await
}

/// `GET /mempool/recent`.
pub(super) async fn recent<L: Live>(app: &App<L>) -> Result<Answer, Refusal> {
    Answer::json(&app.figures().await?.recent, Keep::FiveSeconds)
}

/// `GET /fee-estimates`.
pub(super) async fn fee_estimates<L: Live>(app: &App<L>) -> Result<Answer, Refusal> {
    Answer::json(&app.figures().await?.estimates, Keep::Never)
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
    let figures = app.figures().await?;
    let within = |target: &str| figures.estimates.get(target).copied().unwrap_or(1.0).ceil();
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
    /// The mempool as it is, or was a moment ago. One caller at a time looks, for all who wait.
    async fn figures(&self) -> Result<Arc<Figures>, Refusal> {
        let mut kept = self.pool.lock().await;
        let handed_in = self.handed_in.load(Ordering::Acquire);
        let tip = self.read(|reader| Ok(reader.tip().hash())).await?;
        if let Some(view) =
            kept.as_ref().filter(|view| view.handed_in == handed_in && view.tip == tip && view.seen.elapsed() < MAX_AGE)
        {
            return Ok(Arc::clone(&view.figures));
        }
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let seen = Instant::now();
        let (tip, looked) = self.live.pool(move |pool| (pool.tip().hash, Looked::at(pool, now_s))).await?;
        let figures = match kept.as_ref().filter(|view| view.figures.looked.is(&looked)) {
            Some(view) => Arc::clone(&view.figures),
            None => self.read(move |_| Ok(Arc::new(Figures::of(looked)))).await?,
        };
        *kept = Some(View { tip, seen, handed_in, figures: Arc::clone(&figures) });
        Ok(figures)
    }
}

impl<L> App<L> {
    /// Makes the next look at the mempool a fresh one.
    pub(super) fn pool_changed(&self) {
        self.handed_in.fetch_add(1, Ordering::AcqRel);
    }
}

/// What is taken out of the pool while the node stands still: references.
struct Looked {
    min_feerate: SatPerKvb,
    rows: Rows,
}

impl Looked {
    fn at(pool: &Mempool, now_s: u64) -> Self {
        Self { min_feerate: pool.min_feerate(now_s), rows: pool.rows() }
    }

    /// Whether there is nothing new to say.
    fn is(&self, other: &Self) -> bool {
        self.min_feerate == other.min_feerate && self.rows.is(&other.rows)
    }
}

impl Figures {
    fn of(looked: Looked) -> Self {
        let mut rows: Vec<&Row> = looked.rows.iter().collect();
        rows.sort_unstable_by_key(|row| row.txid);
        let txids = rows.iter().map(|row| row.txid).collect();
        rows.sort_unstable_by_key(|row| (Reverse(row.entered_s), row.txid));
        let recent = rows.iter().take(RECENT).map(|row| RecentJson {
            txid: row.txid,
            fee: row.own.fee.to_sat(),
            vsize: row.own.vsize,
            value: row.value,
        });
        let recent = recent.collect();
        let summary = SummaryJson {
            count: rows.len(),
            vsize: rows.iter().map(|row| row.own.vsize).sum(),
            total_fee: rows.iter().map(|row| row.own.fee.to_sat()).sum(),
            fee_histogram: histogram(rows.iter().map(|row| row.own).collect()),
        };
        let mining = rows.iter().map(|row| (row.mining, row.own.vsize)).collect();
        let estimates = estimates(mining, looked.min_feerate.max(MIN_ESTIMATE));
        let estimates = TARGETS.iter().zip(estimates).map(|(target, rate)| (target.to_string(), sat_per_vb(rate)));
        let estimates = estimates.collect();
        Self { txids, recent, summary, estimates, looked }
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
