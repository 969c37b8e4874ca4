//! The way in: an address to pay to, a claim of what was paid, and what became of it.

use std::str::FromStr;
use std::sync::Arc;

use bitcoin::address::NetworkUnchecked;
use bitcoin::hex::{DisplayHex, FromHex};
use bitcoin::{Address, BlockHash, OutPoint, ScriptBuf, Txid, XOnlyPublicKey};
use causeway_chainspec::BitcoinHeight;
use causeway_consensus::peg::PegState;
use causeway_consensus::peg::evidence::PegIn;
use causeway_consensus::peg::script::DepositTerms;
use causeway_consensus::peg::step::{check_destination, peg_in_fee};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::App;
use super::super::answer::{Answer, Keep, Refusal};
use super::super::live::Live;
use super::super::reader::Reader;
use super::super::schema::{Hash, HexBytes, Outpoint, XOnlyKey};
use super::{ConfirmationsJson, Source, no_block, seconds, show};
use crate::machine::claims::ClaimRefusal;

/// Blocks of Bitcoin that the chain may lack before this node hands out no deposit address any more.
const LAG_MAX: u32 = 12;

/// Why no deposit address is handed out, or no claim is taken. What to do about it: [`Code::hint`](super::super::problem::Code::hint).
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum PegInRefusal {
    // ---- 400 ----
    #[error("the body is not the JSON object that is asked for: {0}")]
    Json(String),
    #[error("destination: {0}")]
    Destination(String),
    #[error("address: {0}")]
    Address(String),
    #[error("refund_key: not 64 hex digits of an x-only public key (BIP340)")]
    RefundKey,
    #[error("epoch: there is no epoch {0}")]
    Epoch(u32),
    #[error("encoded: not the hex of an encoded claim")]
    Encoded,
    #[error("txid and block, or encoded, must be given")]
    Incomplete,
    #[error("the block does not hold this transaction")]
    NotInBlock,
    #[error("{}", chain(&**.0))]
    Refused(Box<ClaimRefusal>),

    // ---- 404 ----
    #[error("this deposit is not known here")]
    Unknown,

    // ---- 501 ----
    #[error("this node has no Bitcoin node")]
    NoSource,

    // ---- 503 ----
    #[error("this node is still fetching blocks (at {height} of {target})")]
    Syncing { height: u32, target: u32 },
    #[error("this node's Bitcoin node cannot be relied on: {0}")]
    Source(String),
    #[error("the chain's view of Bitcoin ends at {chain}, Bitcoin is at {bitcoin}")]
    Behind { chain: BitcoinHeight, bitcoin: BitcoinHeight },
    #[error("the peg is frozen: {0}")]
    Frozen(String),
}

/// An error with everything that led to it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// What a deposit is credited to.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "DepositAddressRequest")]
#[serde(deny_unknown_fields)]
pub(in super::super) struct AddressRequest {
    /// A Causeway address; one that asks for a peg-out is one too.
    destination: String,
    /// Who gets the deposit back if it is never credited.
    #[schemars(with = "XOnlyKey")]
    refund_key: String,
}

/// A Bitcoin address to deposit to. Amounts in satoshi.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "DepositAddress")]
pub(in super::super) struct AddressJson {
    address: String,
    #[schemars(with = "HexBytes")]
    script_pubkey: String,
    epoch: u32,
    destination: String,
    #[schemars(with = "HexBytes")]
    destination_script: String,
    #[schemars(with = "XOnlyKey")]
    refund_key: String,
    bitcoin_network: String,
    /// Whether coins of that network are worth nothing.
    worthless: bool,
    /// Of less nothing is credited, at the feerate of this moment.
    min_amount: u64,
    /// What is kept of each deposit, at the feerate of this moment.
    fee: u64,
    confirmations_needed: u32,
    /// From the deposit to the credit, at ten minutes a block; null on regtest.
    estimated_seconds: Option<u64>,
    /// Bitcoin blocks after a deposit in which it can be credited.
    claim_window: u16,
    /// Bitcoin blocks after a deposit from which on the refund key can take it back, if the federation has not moved it.
    refund_delay: u16,
}

/// `POST /v1/peg-in/address`.
pub(in super::super) async fn new_address<L: Live>(app: &Arc<App<L>>, body: Vec<u8>) -> Result<Answer, Refusal> {
    let request: AddressRequest = parse(&body)?;
    let destination = destination(&request.destination, app)?;
    let refund_key = refund_key(&request.refund_key)?;
    let source = app.bitcoin.clone().ok_or(PegInRefusal::NoSource)?;
    let status = app.live.status().await?;
    if let Some(target) = status.sync_target {
        return Err(PegInRefusal::Syncing { height: status.height.to_u32(), target: target.to_u32() }.into());
    }
    let standing = source.standing();
    if !standing.reliable {
        return Err(PegInRefusal::Source(standing.words).into());
    }
    let peg = app.chain.store_tip().peg().clone();
    if let Some(why) = peg.frozen() {
        return Err(PegInRefusal::Frozen(why.to_string()).into());
    }
    let (chain, bitcoin) = (peg.headers().tip().height, standing.tip.0);
    if bitcoin.blocks_since(chain).is_some_and(|lag| lag > LAG_MAX) {
        return Err(PegInRefusal::Behind { chain, bitcoin }.into());
    }
    let scripts = Arc::clone(peg.network().current());
    let terms = DepositTerms { epoch: scripts.epoch().number(), destination: destination.clone(), refund_key };
    let script = scripts.deposit_script(peg.network().chain(), &terms);
    source.register(script.clone(), terms.clone()).await.map_err(PegInRefusal::Source)?;

    let params = peg.network().params();
    let fee = peg_in_fee(peg.agreed_rate(), scripts.epoch().worst_deposit_input_weight());
    let network = peg.network().start().network();
    let timelocks = scripts.epoch().timelocks();
    let address = Address::from_script(&script, network).map_err(|_| Refusal::Panicked)?;
    let json = AddressJson {
        address: address.to_string(),
        script_pubkey: script.as_bytes().to_lower_hex_string(),
        epoch: terms.epoch,
        destination: request.destination,
        destination_script: destination.as_bytes().to_lower_hex_string(),
        refund_key: terms.refund_key.to_string(),
        bitcoin_network: network.to_string(),
        worthless: network != bitcoin::Network::Bitcoin,
        min_amount: params.peg_in_min.max(fee * 2).to_sat(),
        fee: fee.to_sat(),
        confirmations_needed: params.final_depth,
        estimated_seconds: seconds(params.final_depth.saturating_add(1), network),
        claim_window: timelocks.claim_window,
        refund_delay: timelocks.refund_delay,
    };
    Answer::json(&json, Keep::Never)
}

/// A claim: the terms of the address with txid, vout and block of the deposit, which this node's Bitcoin node proves; or the
/// whole of it in encoded, with its proof.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "ClaimRequest")]
#[serde(deny_unknown_fields)]
pub(in super::super) struct ClaimRequest {
    destination: Option<String>,
    #[schemars(with = "Option<XOnlyKey>")]
    refund_key: Option<String>,
    /// The epoch of the deposit's address; without it the one that new coins go to.
    epoch: Option<u32>,
    #[schemars(with = "Option<Hash>")]
    txid: Option<Txid>,
    vout: Option<u32>,
    /// The hash of the deposit's block.
    #[schemars(with = "Option<Hash>")]
    block: Option<BlockHash>,
    /// As `PegIn::encode` of the crate causeway-consensus writes it, in hex.
    #[schemars(with = "Option<HexBytes>")]
    encoded: Option<String>,
}

/// What became of a claim.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Claim")]
pub(in super::super) struct ClaimJson {
    #[schemars(with = "Outpoint")]
    deposit: String,
    /// `ready` for one of the next blocks, or `waiting`.
    state: &'static str,
    /// Why it waits.
    reason: Option<String>,
}

/// `POST /v1/peg-in/claim`.
pub(in super::super) async fn claim<L: Live>(app: &Arc<App<L>>, body: Vec<u8>) -> Result<Answer, Refusal> {
    let request: ClaimRequest = parse(&body)?;
    let peg_in = match request.encoded {
        Some(encoded) => {
            let bytes = Vec::from_hex(&encoded).map_err(|_| PegInRefusal::Encoded)?;
            PegIn::decode(&bytes).ok_or(PegInRefusal::Encoded)?
        }
        None => prove(app, request).await?,
    };
    let claimed = app.live.claim(peg_in).await?.map_err(|refusal| PegInRefusal::Refused(Box::new(refusal)))?;
    let json = ClaimJson {
        deposit: show(&claimed.outpoint),
        state: if claimed.waits.is_none() { "ready" } else { "waiting" },
        reason: claimed.waits.map(|why| chain(&why)),
    };
    Answer::json(&json, Keep::Never)
}

async fn prove<L: Live>(app: &Arc<App<L>>, request: ClaimRequest) -> Result<PegIn, Refusal> {
    let ClaimRequest { destination: text, refund_key: key, epoch, txid, vout, block, encoded: _ } = request;
    let (Some(text), Some(key), Some(txid), Some(vout), Some(block)) = (text, key, txid, vout, block) else {
        return Err(PegInRefusal::Incomplete.into());
    };
    let peg = app.chain.store_tip().peg().clone();
    let epoch = epoch.unwrap_or(peg.network().current().epoch().number());
    if peg.network().scripts(epoch).is_none() {
        return Err(PegInRefusal::Epoch(epoch).into());
    }
    let terms = DepositTerms { epoch, destination: destination(&text, app)?, refund_key: refund_key(&key)? };
    let source = app.bitcoin.clone().ok_or(PegInRefusal::NoSource)?;
    let proof = source.prove(block, txid).await.map_err(PegInRefusal::Source)?;
    let proof = proof.ok_or(PegInRefusal::NotInBlock)?;
    Ok(PegIn { terms, vout, proof })
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| PegInRefusal::Json(error.to_string()).into())
}

/// A destination: an address of the chain.
fn destination<L>(text: &str, app: &App<L>) -> Result<ScriptBuf, Refusal> {
    let wrong = |why: String| Refusal::from(PegInRefusal::Destination(why));
    let address = Address::<NetworkUnchecked>::from_str(text).map_err(|error| wrong(error.to_string()))?;
    let address = address.require_network(app.chain.network()).map_err(|error| wrong(error.to_string()))?;
    let script = address.script_pubkey();
    match check_destination(&script) {
        Some(_) => Ok(script),
        None => Err(wrong("only P2PKH, P2SH, P2WPKH, P2WSH, P2TR and peg-out addresses are credited".to_owned())),
    }
}

fn refund_key(text: &str) -> Result<XOnlyPublicKey, Refusal> {
    XOnlyPublicKey::from_str(text).map_err(|_| PegInRefusal::RefundKey.into())
}

/// The deposits seen at an address.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "SeenDeposits")]
pub(in super::super) struct PegInsToJson {
    address: String,
    /// What this node's Bitcoin node has seen in blocks, by outpoint.
    deposits: Vec<SeenJson>,
}

/// A deposit that was seen in a block.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "SeenDeposit")]
struct SeenJson {
    #[schemars(with = "Outpoint")]
    deposit: String,
    amount: u64,
    bitcoin_height: u32,
}

/// Deposits to one address that are listed.
const SEEN_MAX: usize = 1_000;

/// `GET /v1/peg-in/address/:address`: the deposits to an address that this node has handed out.
pub(in super::super) fn peg_ins_to<L>(app: &App<L>, text: &str) -> Result<Answer, Refusal> {
    let wrong = |why: String| Refusal::from(PegInRefusal::Address(why));
    let network = app.chain.spec.bitcoin().network();
    let address = Address::<NetworkUnchecked>::from_str(text).map_err(|error| wrong(error.to_string()))?;
    let address = address.require_network(network).map_err(|error| wrong(error.to_string()))?;
    let source = app.bitcoin.as_ref().ok_or(PegInRefusal::NoSource)?;
    let seen = source.deposits_to(&address.script_pubkey()).into_iter().take(SEEN_MAX);
    let deposits = seen.map(|(outpoint, height, amount)| SeenJson {
        deposit: show(&outpoint),
        amount: amount.to_sat(),
        bitcoin_height: height.0,
    });
    Answer::json(&PegInsToJson { address: text.to_owned(), deposits: deposits.collect() }, Keep::Never)
}

/// What became of a deposit. Amounts in satoshi.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PegIn")]
pub(in super::super) struct PegInJson {
    #[schemars(with = "Outpoint")]
    deposit: String,
    /// `confirming`, `credited` or `swept`.
    state: &'static str,
    amount: Option<u64>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    confirming: Option<ConfirmationsJson>,
    credit: Option<CreditJson>,
    /// The batch that moved or moves the coin.
    swept: Option<SweptJson>,
}

/// The output on this chain that credits a deposit.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Credit")]
struct CreditJson {
    #[schemars(with = "Hash")]
    txid: Txid,
    vout: u32,
    height: u32,
    #[schemars(with = "Hash")]
    block: BlockHash,
    amount: u64,
    fee: u64,
}

/// The batch that moved or moves a coin.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Sweep")]
struct SweptJson {
    batch: u32,
    #[schemars(with = "Hash")]
    txid: Txid,
    /// Null until it is deep.
    bitcoin_height: Option<u32>,
}

/// `GET /v1/peg-in/:outpoint`.
pub(in super::super) async fn peg_in<L: Live>(app: &Arc<App<L>>, deposit: OutPoint) -> Result<Answer, Refusal> {
    let claimed = app.live.claim_height(deposit).await?;
    let source = app.bitcoin.clone();
    app.read(move |reader| reader.peg_in(deposit, claimed, &source)).await
}

impl Reader {
    fn peg_in(&self, deposit: OutPoint, claimed: Option<BitcoinHeight>, source: &Source) -> Result<Answer, Refusal> {
        let Some(credit) = self.store().peg_in(&deposit)?.filter(|credit| credit.height <= self.tip().height()) else {
            return self.confirming(deposit, claimed, source);
        };
        let block = self.block(credit.height)?;
        let txid = block.transactions().get(1).map_or_else(|| Err(Refusal::BlockNotFound), |tx| Ok(tx.txid()))?;
        let number = self.store().batch_of_coin(&deposit)?;
        let record = match number {
            Some(number) => self.store().batch(number)?,
            None => None,
        };
        let swept = record.map(|record| SweptJson {
            batch: record.batch.number,
            txid: record.confirmed.map_or(record.batch.newest().txid, |confirmed| confirmed.txid),
            bitcoin_height: record.confirmed.map(|confirmed| confirmed.height.0),
        });
        let done = swept.as_ref().is_some_and(|swept| swept.bitcoin_height.is_some());
        let json = PegInJson {
            deposit: show(&deposit),
            state: if done { "swept" } else { "credited" },
            amount: Some(credit.amount.to_sat()),
            confirming: None,
            credit: Some(CreditJson {
                txid,
                vout: credit.vout,
                height: credit.height.to_u32(),
                block: block.hash(),
                amount: credit.amount.checked_sub(credit.fee).map_or(0, |amount| amount.to_sat()),
                fee: credit.fee.to_sat(),
            }),
            swept,
        };
        Answer::json(&json, Keep::Never)
    }

    /// A deposit that is not credited: what this node's Bitcoin node, or a claim, says of it.
    fn confirming(
        &self,
        deposit: OutPoint,
        claimed: Option<BitcoinHeight>,
        source: &Source,
    ) -> Result<Answer, Refusal> {
        let peg: &PegState = self.tip().peg();
        let standing = source.as_ref().map(|source| source.standing());
        let seen = source.as_ref().and_then(|source| source.deposit(&deposit));
        let height = seen.map(|(height, _)| height).or(claimed).ok_or(PegInRefusal::Unknown)?;
        let chain = peg.headers().tip().height;
        let bitcoin = standing.map_or((chain, no_block()), |standing| standing.tip).0;
        let json = PegInJson {
            deposit: show(&deposit),
            state: "confirming",
            amount: seen.map(|(_, amount)| amount.to_sat()),
            confirming: Some(ConfirmationsJson::new(peg, height, bitcoin.max(chain))),
            credit: None,
            swept: None,
        };
        Answer::json(&json, Keep::Never)
    }
}
