//! The federation, its accounts and its batches.

use std::sync::Arc;

use bitcoin::hex::DisplayHex;
use bitcoin::{Address, BlockHash, Txid};
use causeway_consensus::peg::PegState;
use causeway_consensus::peg::batch::{Batch, BatchKind, BatchVersion};
use causeway_consensus::peg::coin::CoinKind;
use causeway_consensus::peg::history::BatchRecord;
use schemars::JsonSchema;
use serde::Serialize;

use super::super::App;
use super::super::answer::{Answer, Keep, Refusal};
use super::super::live::Live;
use super::super::reader::Reader;
use super::super::schema::{Hash, HexBytes, Outpoint, PublicKey, XOnlyKey};
use super::show;

/// Closed batches in the list.
const CLOSED_MAX: usize = 25;

/// The block that an answer is as of.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Tip")]
pub(super) struct TipJson {
    height: u32,
    #[schemars(with = "Hash")]
    hash: BlockHash,
}

impl TipJson {
    pub(super) fn of(reader: &Reader) -> Self {
        Self { height: reader.tip().height().to_u32(), hash: reader.tip().hash() }
    }
}

/// Who holds the coins on Bitcoin.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Federation")]
pub(in super::super) struct FederationJson {
    tip: TipJson,
    #[schemars(with = "Hash")]
    chain_id: BlockHash,
    bitcoin_network: String,
    /// Whether coins of that network are worth nothing.
    worthless: bool,
    /// Why nothing moves; null if it does.
    frozen: Option<String>,
    epochs: Vec<EpochJson>,
}

/// An epoch of the federation. Delays in Bitcoin blocks.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Epoch")]
pub(in super::super) struct EpochJson {
    number: u32,
    #[schemars(with = "Vec<PublicKey>")]
    members: Vec<String>,
    threshold: u32,
    #[schemars(with = "Vec<XOnlyKey>")]
    recovery_keys: Vec<String>,
    recovery_threshold: u32,
    claim_window: u16,
    sweep_age: u16,
    recovery_delay: u16,
    refund_delay: u16,
    /// Where change and swept coins go.
    main_address: String,
    /// What spending a coin weighs at most: one of the main address, and a deposit.
    main_input_weight_wu: u64,
    deposit_input_weight_wu: u64,
}

impl EpochJson {
    /// The epoch that new coins go to.
    pub(in super::super) fn of(peg: &PegState) -> Self {
        let scripts = peg.network().current();
        let (epoch, timelocks) = (scripts.epoch(), scripts.epoch().timelocks());
        let main = Address::from_script(scripts.main_script(), peg.network().start().network());
        Self {
            number: epoch.number(),
            members: epoch.members().iter().map(|member| member.to_string()).collect(),
            threshold: epoch.threshold(),
            recovery_keys: epoch.recovery_keys().iter().map(|key| key.to_string()).collect(),
            recovery_threshold: epoch.recovery_threshold(),
            claim_window: timelocks.claim_window,
            sweep_age: timelocks.sweep_age,
            recovery_delay: timelocks.recovery_delay,
            refund_delay: timelocks.refund_delay,
            main_address: main.map_or_else(|_| String::new(), |address| address.to_string()),
            main_input_weight_wu: epoch.worst_main_input_weight().to_wu(),
            deposit_input_weight_wu: epoch.worst_deposit_input_weight().to_wu(),
        }
    }
}

/// `GET /v1/federation`.
pub(in super::super) async fn federation<L: Live>(app: &Arc<App<L>>) -> Result<Answer, Refusal> {
    app.read(|reader| {
        let peg = reader.tip().peg();
        let network = peg.network().start().network();
        let json = FederationJson {
            tip: TipJson::of(reader),
            chain_id: peg.network().chain().block_hash(),
            bitcoin_network: network.to_string(),
            worthless: network != bitcoin::Network::Bitcoin,
            frozen: frozen(peg),
            epochs: vec![EpochJson::of(peg)],
        };
        Answer::json(&json, Keep::Never)
    })
    .await
}

/// The accounts of the peg, in satoshi.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Reserves")]
pub(in super::super) struct ReservesJson {
    tip: TipJson,
    /// The Bitcoin block that the accounts are as of.
    bitcoin_height: u32,
    #[schemars(with = "Hash")]
    bitcoin_hash: BlockHash,
    frozen: Option<String>,
    locked: u64,
    free: u64,
    in_batches: u64,
    coins: usize,
    owed: u64,
    circulating: u64,
    waiting: u64,
    in_flight: u64,
    reserve: u64,
    fee_pot: u64,
    deficit: u64,
    charges: u64,
    /// `locked + deficit - owed - fee_pot - charges`: 0, always.
    difference: i64,
    feerate_sat_per_kvb: u64,
    /// How old the oldest coin is, in Bitcoin blocks.
    oldest_coin_age: Option<u32>,
    /// Whether it is half-way from `sweep_age` to the recovery keys: the federation is stuck.
    alarm: bool,
}

/// `GET /v1/reserves`.
pub(in super::super) async fn reserves<L: Live>(app: &Arc<App<L>>) -> Result<Answer, Refusal> {
    app.read(|reader| {
        let peg = reader.tip().peg();
        let (accounts, bitcoin) = (peg.accounts(), peg.headers().tip());
        let sum =
            |amounts: [bitcoin::Amount; 3]| amounts.iter().map(|amount| i128::from(amount.to_sat())).sum::<i128>();
        let have = sum([accounts.locked(), accounts.deficit(), bitcoin::Amount::ZERO]);
        let owe = sum([accounts.owed(), accounts.fee_pot(), accounts.charges]);
        let oldest = peg.coins().map(|coin| coin.place.height).min();
        let age = oldest.and_then(|height| bitcoin.height.blocks_since(height));
        let timelocks = peg.network().current().epoch().timelocks();
        let half = (u32::from(timelocks.sweep_age) + u32::from(timelocks.recovery_delay)) / 2;
        let json = ReservesJson {
            tip: TipJson::of(reader),
            bitcoin_height: bitcoin.height.0,
            bitcoin_hash: bitcoin.hash,
            frozen: frozen(peg),
            locked: accounts.locked().to_sat(),
            free: accounts.free.to_sat(),
            in_batches: accounts.in_batches.to_sat(),
            coins: peg.held(),
            owed: accounts.owed().to_sat(),
            circulating: accounts.circulating().to_sat(),
            waiting: accounts.waiting.to_sat(),
            in_flight: accounts.in_flight.to_sat(),
            reserve: accounts.reserve.to_sat(),
            fee_pot: accounts.fee_pot().to_sat(),
            deficit: accounts.deficit().to_sat(),
            charges: accounts.charges.to_sat(),
            difference: i64::try_from(have - owe).unwrap_or(i64::MAX),
            feerate_sat_per_kvb: peg.agreed_rate().0,
            oldest_coin_age: age,
            alarm: age.is_some_and(|age| age >= half),
        };
        Answer::json(&json, Keep::Never)
    })
    .await
}

/// Batches of one state.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Batches")]
pub(in super::super) struct BatchesJson {
    tip: TipJson,
    frozen: Option<String>,
    /// Open ones, then the last that closed.
    batches: Vec<BatchJson>,
}

/// A transaction of the federation on Bitcoin, in its versions.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Batch")]
pub(in super::super) struct BatchJson {
    number: u32,
    kind: &'static str,
    /// `open` or `confirmed`.
    state: &'static str,
    opened: u32,
    inputs: Vec<CoinJson>,
    payees: Vec<PayeeJson>,
    /// Oldest first.
    versions: Vec<VersionJson>,
    confirmed: Option<ConfirmedJson>,
    /// The whole batch as members read it, hex.
    #[schemars(with = "HexBytes")]
    encoded: String,
}

/// A coin of the federation.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PegCoin")]
struct CoinJson {
    #[schemars(with = "Outpoint")]
    outpoint: String,
    value: u64,
    bitcoin_height: u32,
    /// `main` or `deposit`.
    kind: &'static str,
}

/// A withdrawal that a batch pays.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Payee")]
struct PayeeJson {
    #[schemars(with = "Outpoint")]
    request: String,
    amount: u64,
    bitcoin_address: String,
}

/// A version of a batch: any of them may confirm.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "BatchVersion")]
struct VersionJson {
    #[schemars(with = "Hash")]
    txid: Txid,
    feerate_sat_per_kvb: u64,
    fee: u64,
    fixed: u32,
    fixed_at_bitcoin_height: u32,
    /// The unsigned transaction, hex.
    #[schemars(with = "HexBytes")]
    transaction: String,
}

/// The version that confirmed.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "BatchConfirmation")]
struct ConfirmedJson {
    #[schemars(with = "Hash")]
    txid: Txid,
    bitcoin_height: u32,
    closed: u32,
}

/// `GET /v1/batches`.
pub(in super::super) async fn batches<L: Live>(app: &Arc<App<L>>, filter: BatchFilter) -> Result<Answer, Refusal> {
    app.read(move |reader| {
        let peg = reader.tip().peg();
        let mut batches: Vec<BatchJson> = peg.open_batches().map(|batch| shown(peg, batch, None)).collect();
        if filter == BatchFilter::All {
            let closed = (1..=peg.batches()).rev().filter(|number| peg.open_batch(*number).is_none());
            for number in closed.take(CLOSED_MAX) {
                if let Some(record) = reader.batch_record(number)? {
                    batches.push(shown(peg, &record.batch, Some(&record)));
                }
            }
        }
        Answer::json(&BatchesJson { tip: TipJson::of(reader), frozen: frozen(peg), batches }, Keep::Never)
    })
    .await
}

/// Which batches are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum BatchFilter {
    /// `?state=open`.
    Open,
    /// Without it.
    All,
}

/// `GET /v1/batches/:number`.
pub(in super::super) async fn batch<L: Live>(app: &Arc<App<L>>, number: u64) -> Result<Answer, Refusal> {
    app.read(move |reader| {
        let peg = reader.tip().peg();
        let number =
            u32::try_from(number).ok().filter(|number| *number <= peg.batches()).ok_or(Refusal::NoSuchBatch)?;
        let json = match peg.open_batch(number) {
            Some(batch) => shown(peg, batch, None),
            None => {
                let record = reader.batch_record(number)?.ok_or(Refusal::NoSuchBatch)?;
                shown(peg, &record.batch, Some(&record))
            }
        };
        Answer::json(&json, Keep::Never)
    })
    .await
}

impl Reader {
    /// A batch that is closed in the state of this reader.
    fn batch_record(&self, number: u32) -> Result<Option<BatchRecord>, Refusal> {
        Ok(self.store().batch(number)?)
    }
}

fn frozen(peg: &PegState) -> Option<String> {
    peg.frozen().map(|why| why.to_string())
}

fn shown(peg: &PegState, batch: &Batch, record: Option<&BatchRecord>) -> BatchJson {
    let network = peg.network().start().network();
    let confirmed = record.and_then(|record| record.confirmed.as_ref());
    BatchJson {
        number: batch.number,
        kind: match batch.kind {
            BatchKind::Payout => "payout",
            BatchKind::Refresh => "refresh",
            BatchKind::Consolidation => "consolidation",
        },
        state: if confirmed.is_some() { "confirmed" } else { "open" },
        opened: batch.opened.to_u32(),
        inputs: batch
            .inputs
            .iter()
            .map(|coin| CoinJson {
                outpoint: show(&coin.outpoint),
                value: coin.value.to_sat(),
                bitcoin_height: coin.place.height.0,
                kind: match coin.kind {
                    CoinKind::Main { .. } => "main",
                    CoinKind::Deposit(_) => "deposit",
                },
            })
            .collect(),
        payees: batch
            .payees
            .iter()
            .map(|payee| PayeeJson {
                request: show(&payee.outpoint),
                amount: payee.amount.to_sat(),
                bitcoin_address: Address::from_script(payee.destination.script(), network)
                    .map_or_else(|_| String::new(), |address| address.to_string()),
            })
            .collect(),
        versions: batch.versions.iter().map(|version| shown_version(batch, version)).collect(),
        confirmed: confirmed.map(|confirmed| ConfirmedJson {
            txid: confirmed.txid,
            bitcoin_height: confirmed.height.0,
            closed: confirmed.closed.to_u32(),
        }),
        encoded: batch.encode().to_lower_hex_string(),
    }
}

fn shown_version(batch: &Batch, version: &BatchVersion) -> VersionJson {
    VersionJson {
        txid: version.txid,
        feerate_sat_per_kvb: version.rate.0,
        fee: batch.fee(version).to_sat(),
        fixed: version.fixed.to_u32(),
        fixed_at_bitcoin_height: version.fixed_at.0,
        transaction: bitcoin::consensus::encode::serialize_hex(&batch.transaction(version)),
    }
}
