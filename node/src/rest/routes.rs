//! From a request to an answer, by the list of all endpoints.

mod endpoint;
mod esplora;
mod ours;

use std::sync::Arc;

use bitcoin::{BlockHash, OutPoint, Txid};
use warp::http::Method;

use super::answer::{Answer, Keep, Refusal};
use super::events::Wanted;
use super::live::Live;
use super::package::PackageLimits;
use super::peg::BatchFilter;
use super::{App, events, openapi, package, peg, policy, pool, scripts, spends, transactions, v1};

pub(super) use endpoint::{Content, Endpoint, Place, Verb};

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
    MempoolPolicy,
    OpenApi,
    Chain,
    Health,
    Status,
    Peers,
    /// Of the tip, or of a height.
    Validators(Option<u64>),
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

/// Every endpoint.
pub(super) fn endpoints() -> impl Iterator<Item = &'static Endpoint> {
    esplora::ENDPOINTS.iter().chain(ours::ENDPOINTS)
}

/// Returns what a request asks for. HEAD is GET: the server leaves the body out.
pub(super) fn route(method: &Method, path: &str, query: &str) -> Result<Route, Refusal> {
    // One trailing slash is as good as none: Esplora's web page asks for `/blocks/`.
    let trimmed = path.strip_suffix('/').unwrap_or(path);
    let mut segments: Vec<&str> = trimmed.split('/').skip(1).collect();
    if segments.first() == Some(&"api") {
        segments.remove(0);
    }
    let found = endpoints().find_map(|endpoint| Some((endpoint, endpoint.matches(method, &segments, query)?)));
    let (endpoint, given) = found.ok_or_else(|| Refusal::UnknownPath { path: path.to_owned() })?;
    endpoint.route(&given)
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
            Self::OpenApi => openapi::answer(),
            Self::Chain => v1::chain(app).await,
            Self::MempoolPolicy => policy::policy(app).await,
            Self::Validators(height) => v1::validators(app, height),
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
