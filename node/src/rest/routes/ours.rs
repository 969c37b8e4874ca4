//! The endpoints under `/v1`: what Esplora does not have.

use super::super::events::Wanted;
use super::super::peg::{
    AddressJson, AddressRequest, BatchFilter, BatchJson, BatchesJson, ClaimJson, ClaimRequest, FederationJson,
    PegInJson, PegInsJson, PegInsToJson, PegOutAddressJson, PegOutJson, ReservesJson,
};
use super::super::policy::PolicyJson;
use super::super::pool::RecommendedJson;
use super::super::problem::Code;
use super::super::v1::{ChainJson, EvidenceJson, FinalityJson, PeerJson, StatusJson, ValidatorsJson};
use super::endpoint::{Content, Endpoint, Parameter, schema_of};
use super::{Refusal, Route};

/// An object that the document does not describe further.
const DOCUMENT: Content =
    Content { media_type: "application/json", schema: |_| schemars::json_schema!({ "type": "object" }) };

const SINCE: &[Parameter] = &[Parameter {
    name: "since",
    description: "Deposits credited in blocks above this height; 0 without it.",
    required: false,
    schema: schema_of::<u32>,
}];

const STATE: &[Parameter] = &[Parameter {
    name: "state",
    description: "Only those that are open. Without it also the last 25 that closed.",
    required: false,
    schema: |_| schemars::json_schema!({ "type": "string", "enum": ["open"] }),
}];

/// Server-sent events.
const EVENTS: Content = Content { media_type: "text/event-stream", schema: schema_of::<String> };

const EVENTS_QUERY: &[Parameter] = &[
    Parameter {
        name: "topics",
        description: "What to tell of, separated by commas: block, tx, script, peg-in, peg-out. Without it and without \
                      scripts: block.",
        required: false,
        schema: schema_of::<String>,
    },
    Parameter {
        name: "script",
        description: "Up to 100 addresses or script hashes, separated by commas, for the topic script.",
        required: false,
        schema: schema_of::<String>,
    },
    Parameter {
        name: "last-event-id",
        description: "The id of the last event that the client has, or a height up to which it knows all; the header \
                      Last-Event-ID wins over it. What came after it in the chain is told first, up to 1,000 blocks.",
        required: false,
        schema: schema_of::<String>,
    },
];

const ADDRESS_REQUEST: Content = Content { media_type: "application/json", schema: schema_of::<AddressRequest> };
const CLAIM_REQUEST: Content = Content { media_type: "application/json", schema: schema_of::<ClaimRequest> };

/// Every one.
pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint::get("/v1/openapi.json", "This document.", |_| Ok(Route::OpenApi)).answers(DOCUMENT),
    Endpoint::get("/v1/chain", "What the chain is: identity, rule of finality, parameters.", |_| Ok(Route::Chain))
        .json::<ChainJson>(),
    Endpoint::get("/v1/status", "The node at this moment.", |_| Ok(Route::Status)).json::<StatusJson<'static>>(),
    Endpoint::get("/v1/peers", "The node's connected peers.", |_| Ok(Route::Peers)).json::<Vec<PeerJson>>(),
    Endpoint::get("/v1/validators", "The validators of the tip.", |_| Ok(Route::Validators(None)))
        .json::<ValidatorsJson>(),
    Endpoint::get("/v1/validators/{height}", "The validators of a height, up to one above the tip.", |given| {
        Ok(Route::Validators(Some(given.number(0)?)))
    })
    .json::<ValidatorsJson>()
    .refuses(&[Code::InvalidNumber, Code::HeightNotReached]),
    Endpoint::get("/v1/finality/{block}", "The proof that a block is final.", |given| {
        Ok(Route::Finality(given.block(0)?))
    })
    .json::<FinalityJson<'static>>()
    .refuses(&[Code::InvalidHex, Code::InvalidNumber, Code::BlockNotFound, Code::NoCertificate]),
    Endpoint::get("/v1/evidence", "The evidence against validators that this node keeps.", |_| Ok(Route::Evidence))
        .json::<Vec<EvidenceJson>>(),
    Endpoint::get("/v1/events", "What happens, as it happens.", |given| {
        Ok(Route::Events(Wanted::of_query(given.query)?))
    })
    .query(EVENTS_QUERY)
    .answers(EVENTS)
    .refuses(&[
        Code::InvalidParameter,
        Code::InvalidEventId,
        Code::EventIdAhead,
        Code::InvalidAddress,
        Code::OtherNetwork,
        Code::InvalidScriptHash,
        Code::NoIndex,
        Code::StreamsFull,
    ]),
    Endpoint::get("/v1/mempool/policy", "What this node's mempool takes.", |_| Ok(Route::MempoolPolicy))
        .json::<PolicyJson>(),
    Endpoint::get("/v1/fees/recommended", "Feerates in whole sat/vB, as mempool.space names them.", |_| {
        Ok(Route::RecommendedFees)
    })
    .json::<RecommendedJson>(),
    Endpoint::post("/v1/peg-in/address", "A Bitcoin address to deposit to.", ADDRESS_REQUEST, |_| {
        Ok(Route::NewPegInAddress)
    })
    .json::<AddressJson>()
    .refuses(&[
        Code::InvalidJson,
        Code::InvalidDestination,
        Code::InvalidRefundKey,
        Code::NoBitcoinNode,
        Code::Syncing,
        Code::BitcoinUnreliable,
        Code::BitcoinBehind,
        Code::PegFrozen,
    ]),
    Endpoint::get(
        "/v1/peg-in/address/{bitcoin_address}",
        "The deposits seen at an address that this node has handed out.",
        |given| Ok(Route::PegInsTo(given.text(0).to_owned())),
    )
    .json::<PegInsToJson>()
    .refuses(&[Code::InvalidBitcoinAddress, Code::NoBitcoinNode]),
    Endpoint::post("/v1/peg-in/claim", "Claims a deposit. At any node, by anybody.", CLAIM_REQUEST, |_| {
        Ok(Route::ClaimPegIn)
    })
    .json::<ClaimJson>()
    .refuses(&[
        Code::InvalidJson,
        Code::InvalidDestination,
        Code::InvalidRefundKey,
        Code::UnknownEpoch,
        Code::InvalidClaim,
        Code::IncompleteClaim,
        Code::NotInBlock,
        Code::ClaimRefused,
        Code::NoBitcoinNode,
        Code::BitcoinUnreliable,
        Code::ClaimTooEarly,
        Code::ClaimsFull,
    ]),
    Endpoint::get("/v1/peg-in/{deposit}", "What became of a deposit.", |given| Ok(Route::PegIn(given.outpoint(0)?)))
        .json::<PegInJson>()
        .refuses(&[Code::InvalidOutpoint, Code::DepositNotFound]),
    Endpoint::get("/v1/peg-ins", "A page of credited deposits, in their order.", |given| {
        given.only(SINCE)?;
        let since = given.parameter("since").map_or(Ok(0), str::parse);
        since.map(Route::PegIns).map_err(|_| Refusal::InvalidNumber)
    })
    .query(SINCE)
    .json::<PegInsJson>()
    .refuses(&[Code::InvalidNumber, Code::InvalidParameter]),
    Endpoint::get("/v1/peg-out/address/{bitcoin_address}", "The address to pay here to be paid on Bitcoin.", |given| {
        Ok(Route::PegOutAddress(given.text(0).to_owned()))
    })
    .json::<PegOutAddressJson>()
    .refuses(&[Code::InvalidPegOutAddress]),
    Endpoint::get("/v1/peg-out/{request}", "What became of a withdrawal.", |given| {
        Ok(Route::PegOut(given.outpoint(0)?))
    })
    .json::<PegOutJson>()
    .refuses(&[Code::InvalidOutpoint, Code::PegOutNotFound]),
    Endpoint::get("/v1/federation", "Who holds the coins on Bitcoin.", |_| Ok(Route::Federation))
        .json::<FederationJson>(),
    Endpoint::get("/v1/reserves", "The accounts of the peg.", |_| Ok(Route::Reserves)).json::<ReservesJson>(),
    Endpoint::get("/v1/batches", "The federation's transactions on Bitcoin.", |given| {
        given.only(STATE)?;
        match given.parameter("state") {
            None => Ok(Route::Batches(BatchFilter::All)),
            Some("open") => Ok(Route::Batches(BatchFilter::Open)),
            Some(_) => Err(Refusal::InvalidParameter { what: "state is not open" }),
        }
    })
    .query(STATE)
    .json::<BatchesJson>()
    .refuses(&[Code::InvalidParameter]),
    Endpoint::get("/v1/batches/{number}", "One of them, open or closed.", |given| Ok(Route::Batch(given.number(0)?)))
        .json::<BatchJson>()
        .refuses(&[Code::InvalidNumber, Code::NoSuchBatch]),
];
