//! The list of all endpoints.

use std::str::FromStr;
use std::sync::Arc;

use bitcoin::{BlockHash, OutPoint, Txid};
use warp::http::Method;

use super::answer::{Answer, Keep, Refusal};
use super::events::Wanted;
use super::live::Live;
use super::package::PackageLimits;
use super::peg::BatchFilter;
use super::{App, events, package, peg, pool, scripts, spends, transactions, v1};

/// One endpoint with its arguments.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Route {
    TipHeight,
    TipHash,
    /// From this height down; None from the tip.
    Blocks(Option<u64>),
    BlockHeight(u64),
    Block(BlockHash, OfBlock),
    Transaction(Txid, OfTransaction),
    /// Who spends one output.
    Outspend(OutPoint),
    /// Who spends each output.
    Outspends(Txid),
    Script(Key, OfScript),
    AddressPrefix,
    Broadcast,
    /// The same of a transaction in the query, in hex.
    BroadcastQuery(String),
    Package(PackageLimits),
    Mempool,
    MempoolTxids,
    MempoolRecent,
    FeeEstimates,
    RecommendedFees,
    Health,
    Status,
    Peers,
    Validators,
    Finality(BlockId),
    Evidence,
    NewPegInAddress,
    ClaimPegIn,
    PegIn(OutPoint),
    /// Those credited above this height.
    PegIns(u64),
    PegInsTo(String),
    PegOut(OutPoint),
    PegOutAddress(String),
    Federation,
    Reserves,
    Batches(BatchFilter),
    Batch(u64),
    Events(Wanted),
}

/// What is asked of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OfBlock {
    Summary,
    Header,
    Raw,
    Status,
    Txids,
    Txid(u64),
    /// A page from this place on.
    Transactions(u64),
}

/// What is asked of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OfTransaction {
    Whole,
    Hex,
    Raw,
    Status,
    MerkleProof,
    MerkleBlockProof,
}

/// A script by one of its two names, as they were given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Address(String),
    ScriptHash(String),
}

/// What is asked of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OfScript {
    Summary,
    /// Of the mempool and the chain.
    Transactions,
    /// Those of the chain, after this one.
    Final(Option<String>),
    /// Those of the mempool.
    Waiting,
    Unspent,
}

/// A block by one of its two names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockId {
    Height(u64),
    Hash(BlockHash),
}

/// Returns what a request asks for. HEAD is GET: the server leaves the body out.
pub(super) fn route(method: &Method, path: &str, query: &str) -> Result<Route, Refusal> {
    let unknown = || Refusal::UnknownPath { path: path.to_owned() };
    // One trailing slash is as good as none: Esplora's web page asks for `/blocks/`.
    let trimmed = path.strip_suffix('/').unwrap_or(path);
    let mut segments: Vec<&str> = trimmed.split('/').skip(1).collect();
    if segments.first() == Some(&"api") {
        segments.remove(0);
    }
    let segments = segments.as_slice();
    if method == Method::POST {
        return match *segments {
            ["tx"] => Ok(Route::Broadcast),
            ["txs", "package"] => PackageLimits::of_query(query).map(Route::Package),
            ["v1", "peg-in", "address"] => Ok(Route::NewPegInAddress),
            ["v1", "peg-in", "claim"] => Ok(Route::ClaimPegIn),
            _ => Err(unknown()),
        };
    }
    if method != Method::GET && method != Method::HEAD {
        return Err(unknown());
    }
    Ok(match *segments {
        ["blocks", "tip", "height"] => Route::TipHeight,
        ["blocks", "tip", "hash"] => Route::TipHash,
        ["blocks"] => Route::Blocks(None),
        ["blocks", start] => Route::Blocks(start.parse().ok()),
        ["block-height", height] => Route::BlockHeight(number(height)?),
        ["block", hash] => Route::Block(hex(hash)?, OfBlock::Summary),
        ["block", hash, "header"] => Route::Block(hex(hash)?, OfBlock::Header),
        ["block", hash, "raw"] => Route::Block(hex(hash)?, OfBlock::Raw),
        ["block", hash, "status"] => Route::Block(hex(hash)?, OfBlock::Status),
        ["block", hash, "txids"] => Route::Block(hex(hash)?, OfBlock::Txids),
        ["block", hash, "txid", place] => Route::Block(hex(hash)?, OfBlock::Txid(number(place)?)),
        ["block", hash, "txs"] => Route::Block(hex(hash)?, OfBlock::Transactions(0)),
        ["block", hash, "txs", start] => {
            Route::Block(hex(hash)?, OfBlock::Transactions(start.parse().unwrap_or_default()))
        }
        ["tx", txid] => Route::Transaction(hex(txid)?, OfTransaction::Whole),
        ["tx", txid, "hex"] => Route::Transaction(hex(txid)?, OfTransaction::Hex),
        ["tx", txid, "raw"] => Route::Transaction(hex(txid)?, OfTransaction::Raw),
        ["tx", txid, "status"] => Route::Transaction(hex(txid)?, OfTransaction::Status),
        ["tx", txid, "merkle-proof"] => Route::Transaction(hex(txid)?, OfTransaction::MerkleProof),
        ["tx", txid, "merkleblock-proof"] => Route::Transaction(hex(txid)?, OfTransaction::MerkleBlockProof),
        ["tx", txid, "outspend", vout] => {
            let txid = hex(txid)?;
            Route::Outspend(OutPoint { txid, vout: vout.parse().map_err(|_| Refusal::InvalidNumber)? })
        }
        ["tx", txid, "outspends"] => Route::Outspends(hex(txid)?),
        ["address", address, ref what @ ..] => {
            Route::Script(Key::Address(address.to_owned()), of_script(what).ok_or_else(unknown)?)
        }
        ["scripthash", hash, ref what @ ..] => {
            Route::Script(Key::ScriptHash(hash.to_owned()), of_script(what).ok_or_else(unknown)?)
        }
        ["address-prefix", _] => Route::AddressPrefix,
        ["mempool"] => Route::Mempool,
        ["mempool", "txids"] => Route::MempoolTxids,
        ["mempool", "recent"] => Route::MempoolRecent,
        ["fee-estimates"] => Route::FeeEstimates,
        ["v1", "fees", "recommended"] => Route::RecommendedFees,
        ["broadcast"] => {
            let tx = query.split('&').find_map(|pair| pair.strip_prefix("tx="));
            Route::BroadcastQuery(tx.ok_or(Refusal::MissingTx)?.to_owned())
        }
        ["health"] => Route::Health,
        ["v1", "status"] => Route::Status,
        ["v1", "peers"] => Route::Peers,
        ["v1", "validators"] => Route::Validators,
        ["v1", "finality", block] => Route::Finality(block_id(block)?),
        ["v1", "evidence"] => Route::Evidence,
        ["v1", "events"] => Route::Events(Wanted::of_query(query)?),
        ["v1", "peg-ins"] => Route::PegIns(since(query)?),
        ["v1", "peg-in", "address", address] => Route::PegInsTo(address.to_owned()),
        ["v1", "peg-in", deposit] => Route::PegIn(outpoint(deposit)?),
        ["v1", "peg-out", "address", address] => Route::PegOutAddress(address.to_owned()),
        ["v1", "peg-out", request] => Route::PegOut(outpoint(request)?),
        ["v1", "federation"] => Route::Federation,
        ["v1", "reserves"] => Route::Reserves,
        ["v1", "batches"] if query == "state=open" => Route::Batches(BatchFilter::Open),
        ["v1", "batches"] => Route::Batches(BatchFilter::All),
        ["v1", "batches", batch] => Route::Batch(number(batch)?),
        _ => return Err(unknown()),
    })
}

fn of_script(segments: &[&str]) -> Option<OfScript> {
    Some(match *segments {
        [] => OfScript::Summary,
        ["txs"] => OfScript::Transactions,
        ["txs", "chain"] => OfScript::Final(None),
        ["txs", "chain", last] => OfScript::Final(Some(last.to_owned())),
        ["txs", "mempool"] => OfScript::Waiting,
        ["utxo"] => OfScript::Unspent,
        _ => return None,
    })
}

fn number(text: &str) -> Result<u64, Refusal> {
    text.parse().map_err(|_| Refusal::InvalidNumber)
}

/// A hash in its display order: 64 digits.
fn hex<T: FromStr>(text: &str) -> Result<T, Refusal> {
    text.parse().map_err(|_| Refusal::InvalidHex)
}

/// The height of `since=`; 0 without a query.
fn since(query: &str) -> Result<u64, Refusal> {
    if query.is_empty() { Ok(0) } else { query.strip_prefix("since=").map_or(Err(Refusal::InvalidNumber), number) }
}

fn outpoint(text: &str) -> Result<OutPoint, Refusal> {
    text.parse().map_err(|_| Refusal::InvalidOutpoint)
}

fn block_id(text: &str) -> Result<BlockId, Refusal> {
    if text.len() == 64 { hex(text).map(BlockId::Hash) } else { number(text).map(BlockId::Height) }
}

impl Route {
    /// Whether the request has a body.
    pub(super) fn takes_body(&self) -> bool {
        matches!(self, Self::Broadcast | Self::Package(_) | Self::NewPegInAddress | Self::ClaimPegIn)
    }

    /// Returns the answer. `body` is that of the request, empty unless it is a POST.
    pub(super) async fn answer<L: Live>(self, app: &Arc<App<L>>, body: Vec<u8>) -> Result<Answer, Refusal> {
        match self {
            Self::TipHeight => app.read(|reader| Ok(Answer::text(reader.tip().height(), Keep::Never))).await,
            Self::TipHash => app.read(|reader| Ok(Answer::text(reader.tip().hash(), Keep::Never))).await,
            Self::Blocks(start) => app.read(move |reader| reader.blocks(start)).await,
            Self::BlockHeight(height) => app.read(move |reader| reader.hash_at(height)).await,
            Self::Block(hash, what) => app.read(move |reader| reader.of_block(hash, what)).await,
            Self::Transaction(txid, what) => transactions::of_transaction(app, txid, what).await,
            Self::BroadcastQuery(hex) => transactions::broadcast(app, hex.into_bytes()).await,
            Self::RecommendedFees => pool::recommended_fees(app).await,
            Self::Outspend(outpoint) => spends::of_output(app, outpoint).await,
            Self::Outspends(txid) => spends::of_outputs(app, txid).await,
            Self::Script(key, what) => scripts::of_script(app, key, what).await,
            // It would take an index of all addresses by their letters.
            Self::AddressPrefix => Err(Refusal::NoAddressSearch),
            Self::Package(limits) => package::submit(app, limits, body).await,
            Self::Broadcast => transactions::broadcast(app, body).await,
            Self::Mempool => pool::summary(app).await,
            Self::MempoolTxids => pool::txids(app).await,
            Self::MempoolRecent => pool::recent(app).await,
            Self::FeeEstimates => pool::fee_estimates(app).await,
            Self::Health => v1::health(app).await,
            Self::Status => v1::status(app).await,
            Self::Peers => v1::peers(app).await,
            Self::Validators => v1::validators(app).await,
            Self::Finality(block) => v1::finality(app, block).await,
            Self::Evidence => v1::evidence(app).await,
            Self::NewPegInAddress => peg::new_address(app, body).await,
            Self::ClaimPegIn => peg::claim(app, body).await,
            Self::PegInsTo(address) => peg::peg_ins_to(app, &address),
            Self::PegIn(deposit) => peg::peg_in(app, deposit).await,
            Self::PegIns(since) => peg::peg_ins(app, since).await,
            Self::PegOut(request) => peg::peg_out(app, request).await,
            Self::PegOutAddress(address) => peg::peg_out_address(app, &address),
            Self::Federation => peg::federation(app).await,
            Self::Reserves => peg::reserves(app).await,
            Self::Batches(filter) => peg::batches(app, filter).await,
            Self::Batch(number) => peg::batch(app, number).await,
            Self::Events(wanted) => events::events(app, wanted).await,
        }
    }
}
