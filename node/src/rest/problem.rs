//! How errors are told under `/v1`: a JSON object with a code, what is wrong, and what to do.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use warp::http::StatusCode;
use warp::reply::Response;

use super::answer::{Answer, Keep, Refusal};
use super::events::EventsRefusal;
use super::peg::PegInRefusal;
use crate::http;
use crate::machine::claims::ClaimRefusal;

/// Writes the list of codes once: name, status, text, what to do.
macro_rules! codes {
    ($($name:ident = $status:ident $text:literal: $hint:literal,)*) => {
        /// What programs tell errors by. A code never changes its meaning; new ones may come.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) enum Code { $($name,)* }

        impl Code {
            /// Every one.
            pub(super) const ALL: &[Self] = &[$(Self::$name,)*];

            /// The code as it is sent.
            pub(super) fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The status that goes with it.
            pub(super) fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            /// What to do.
            pub(super) fn hint(self) -> &'static str {
                match self { $(Self::$name => $hint,)* }
            }
        }
    };
}

codes! {
    // ---- the question is wrong ----
    InvalidHex = BAD_REQUEST "invalid_hex":
        "give the hash as 64 hexadecimal digits, in the order in which Bitcoin shows it",
    InvalidNumber = BAD_REQUEST "invalid_number": "give a whole decimal number that is not negative",
    InvalidOutpoint = BAD_REQUEST "invalid_outpoint": "give txid:vout, 64 hexadecimal digits and a number",
    InvalidParameter = BAD_REQUEST "invalid_parameter":
        "give each parameter of the query at most once, with one of the values in GET /v1/openapi.json",
    InvalidAddress = BAD_REQUEST "invalid_address": "give an address of this chain, as a wallet shows it",
    OtherNetwork = BAD_REQUEST "address_of_other_network":
        "give an address of the network that GET /v1/chain names as identity",
    InvalidScriptHash = BAD_REQUEST "invalid_scripthash":
        "give SHA-256 of the script pubkey as 64 hexadecimal digits, not reversed",
    NoAddressSearch = BAD_REQUEST "address_search_disabled": "give a whole address",
    StartNotOnPage = BAD_REQUEST "start_not_on_page": "start at 0 or a multiple of 25",
    StartOutOfRange = BAD_REQUEST "start_out_of_range": "start below the block's tx_count",
    MissingTx = BAD_REQUEST "missing_tx": "give the transaction in hex as the query parameter tx, or use POST /tx",
    TooManyUnspent = BAD_REQUEST "too_many_unspent": "read the history page by page at /txs/chain instead",
    TooManyWaiting = BAD_REQUEST "too_many_waiting": "wait for blocks to take them, or read the history at /txs",
    InvalidPackage = BAD_REQUEST "invalid_package": "send a JSON array of transactions in hex",
    PackageTooLong = BAD_REQUEST "package_too_long": "send fewer transactions at once",
    PackageItemSize = BAD_REQUEST "package_item_size": "send transactions of 60 to 400000 bytes, in hex",
    PackageItemHex = BAD_REQUEST "package_item_hex": "send transactions in hex",
    InvalidMaxFeerate = BAD_REQUEST "invalid_maxfeerate": "give a number of BTC/kvB that is not negative",
    InvalidMaxBurn = BAD_REQUEST "invalid_maxburnamount": "give a number of BTC that is not negative",
    PackageRejected = BAD_REQUEST "package_rejected": "change what the message names, and send it again",
    TransactionRejected = BAD_REQUEST "transaction_rejected": "change what the message names, and send it again",
    NoIndex = BAD_REQUEST "no_index":
        "ask a node whose config.toml does not set index to none, or wait while this one builds its index",
    BodyCutOff = BAD_REQUEST "body_cut_off": "send the request again, with all of its body",
    AnswerTooLarge = BAD_REQUEST "answer_too_large": "fetch the block with /block/:hash/raw, and take from it what you need",
    InvalidPegOutAddress = BAD_REQUEST "invalid_peg_out_address":
        "give a P2PKH, P2SH, P2WPKH, P2WSH or P2TR address of the Bitcoin network that GET /v1/chain names",
    InvalidJson = BAD_REQUEST "invalid_json": "send the JSON object that GET /v1/openapi.json describes",
    InvalidDestination = BAD_REQUEST "invalid_destination": "give an address of this chain as destination",
    InvalidBitcoinAddress = BAD_REQUEST "invalid_bitcoin_address":
        "give an address of the Bitcoin network that GET /v1/chain names",
    InvalidRefundKey = BAD_REQUEST "invalid_refund_key": "give the x-only public key (BIP340) as 64 hexadecimal digits",
    UnknownEpoch = BAD_REQUEST "unknown_epoch": "give the number of an epoch that GET /v1/federation lists",
    InvalidClaim = BAD_REQUEST "invalid_claim": "give the whole encoded claim in hex, or its parts without encoded",
    IncompleteClaim = BAD_REQUEST "incomplete_claim":
        "give destination, refund_key, txid, vout and block of the deposit, or encoded",
    NotInBlock = BAD_REQUEST "not_in_block": "give the hash of the Bitcoin block that holds the deposit",
    ClaimRefused = BAD_REQUEST "claim_refused":
        "check the deposit against the message; one that can never be credited goes back with the refund key",

    InvalidEventId = BAD_REQUEST "invalid_event_id":
        "give the id of the last event that you have, or a height up to which you know all",
    EventIdAhead = BAD_REQUEST "event_id_ahead": "ask a node that is in step, or leave the id out",

    // ---- there is nothing ----
    UnknownPath = NOT_FOUND "unknown_path": "GET /v1/openapi.json lists every method and path",
    BlockNotFound = NOT_FOUND "block_not_found": "ask for a block of this chain, up to the height of GET /v1/status",
    HeightNotReached = NOT_FOUND "height_not_reached": "ask for a height up to one above that of GET /v1/status",
    TransactionNotFound = NOT_FOUND "transaction_not_found": "hand it in with POST /tx if it should be known",
    NotConfirmed = NOT_FOUND "not_confirmed": "ask again once a block holds it",
    NoSuchPlace = NOT_FOUND "no_such_place": "ask for a place below the block's tx_count",
    NoCertificate = NOT_FOUND "no_certificate": "check its hash against the chainspec, which fixes blocks 0 to 100",
    PegOutNotFound = NOT_FOUND "peg_out_not_found":
        "ask with the outpoint of the output that paid the peg-out address, once its block is final",
    NoSuchBatch = NOT_FOUND "batch_not_found": "ask for a number that GET /v1/batches lists, or a lower one",
    DepositNotFound = NOT_FOUND "deposit_not_found": "if it is confirmed on Bitcoin, claim it with POST /v1/peg-in/claim",

    // ---- limits ----
    BodyTooLarge = PAYLOAD_TOO_LARGE "body_too_large": "send a body of at most 1000000 bytes",
    BodyTooSlow = REQUEST_TIMEOUT "body_too_slow": "send the request again, with its body at once",
    TooManyRequests = TOO_MANY_REQUESTS "too_many_requests": "wait for the answers to the others",
    StreamsFull = SERVICE_UNAVAILABLE "streams_full": "try again later, ask for fewer scripts, or ask another node",
    Busy = SERVICE_UNAVAILABLE "busy": "try again in a second",
    TooLate = SERVICE_UNAVAILABLE "too_late": "try again in a second",
    ChainMoved = SERVICE_UNAVAILABLE "chain_moved": "try again at once",
    Stopping = SERVICE_UNAVAILABLE "node_stopping": "ask another node, or this one once it is back",

    // ---- not here, not at this moment ----
    NoBitcoinNode = NOT_IMPLEMENTED "no_bitcoin_node": "ask another node",
    Syncing = SERVICE_UNAVAILABLE "syncing": "ask another node, or this one later",
    BitcoinUnreliable = SERVICE_UNAVAILABLE "bitcoin_unreliable": "ask another node, or this one later",
    BitcoinBehind = SERVICE_UNAVAILABLE "bitcoin_behind": "ask again in some minutes",
    PegFrozen = SERVICE_UNAVAILABLE "peg_frozen": "wait; payments on this chain go on",
    ClaimTooEarly = SERVICE_UNAVAILABLE "claim_too_early": "claim it again once the chain knows the deposit's block",
    ClaimsFull = SERVICE_UNAVAILABLE "claims_full": "claim it again later",

    // ---- we failed ----
    Internal = INTERNAL_SERVER_ERROR "internal": "ask another node; whoever runs this one finds the cause in its log",
}

impl Refusal {
    /// What programs tell it by.
    pub(super) fn code(&self) -> Code {
        match self {
            Self::InvalidHex => Code::InvalidHex,
            Self::InvalidNumber => Code::InvalidNumber,
            Self::InvalidOutpoint => Code::InvalidOutpoint,
            Self::InvalidParameter { .. } => Code::InvalidParameter,
            Self::InvalidAddress(_) => Code::InvalidAddress,
            Self::OtherNetwork => Code::OtherNetwork,
            Self::InvalidScriptHash => Code::InvalidScriptHash,
            Self::NoAddressSearch => Code::NoAddressSearch,
            Self::StartNotOnPage => Code::StartNotOnPage,
            Self::StartOutOfRange => Code::StartOutOfRange,
            Self::MissingTx => Code::MissingTx,
            Self::TooManyUnspent { .. } => Code::TooManyUnspent,
            Self::TooManyWaiting { .. } => Code::TooManyWaiting,
            Self::InvalidPackage(_) => Code::InvalidPackage,
            Self::PackageTooLong { .. } => Code::PackageTooLong,
            Self::PackageItemSize { .. } => Code::PackageItemSize,
            Self::PackageItemHex { .. } => Code::PackageItemHex,
            Self::InvalidMaxFeerate => Code::InvalidMaxFeerate,
            Self::InvalidMaxBurn => Code::InvalidMaxBurn,
            Self::RejectedPackage(_) => Code::PackageRejected,
            Self::Rejected(_) => Code::TransactionRejected,
            Self::NoIndex => Code::NoIndex,
            Self::BodyCutOff => Code::BodyCutOff,
            Self::AnswerTooLarge => Code::AnswerTooLarge,
            Self::PegOutAddress(_) => Code::InvalidPegOutAddress,
            Self::PegIn(refusal) => refusal.code(),
            Self::Events(refusal) => refusal.code(),
            Self::PegOutNotFound => Code::PegOutNotFound,
            Self::NoSuchBatch => Code::NoSuchBatch,
            Self::UnknownPath { .. } => Code::UnknownPath,
            Self::BlockNotFound => Code::BlockNotFound,
            Self::HeightNotReached { .. } => Code::HeightNotReached,
            Self::TransactionNotFound => Code::TransactionNotFound,
            Self::NotConfirmed => Code::NotConfirmed,
            Self::NoSuchPlace => Code::NoSuchPlace,
            Self::NoCertificate => Code::NoCertificate,
            Self::BodyTooLarge => Code::BodyTooLarge,
            Self::BodyTooSlow => Code::BodyTooSlow,
            Self::Busy => Code::Busy,
            Self::TooLate => Code::TooLate,
            Self::ChainMoved => Code::ChainMoved,
            Self::Stopped(_) => Code::Stopping,
            Self::Fault(_) | Self::Certificate(_) | Self::Panicked => Code::Internal,
        }
    }
}

impl EventsRefusal {
    fn code(&self) -> Code {
        match self {
            Self::QueryTooLong
            | Self::Encoding
            | Self::UnknownParameter(_)
            | Self::Twice(_)
            | Self::UnknownTopic(_)
            | Self::NoScripts
            | Self::TooManyScripts => Code::InvalidParameter,
            Self::InvalidId => Code::InvalidEventId,
            Self::Ahead { .. } => Code::EventIdAhead,
            Self::Full { .. } | Self::FullOfScripts { .. } => Code::StreamsFull,
        }
    }
}

impl PegInRefusal {
    fn code(&self) -> Code {
        match self {
            Self::Json(_) => Code::InvalidJson,
            Self::Destination(_) => Code::InvalidDestination,
            Self::Address(_) => Code::InvalidBitcoinAddress,
            Self::RefundKey => Code::InvalidRefundKey,
            Self::Epoch(_) => Code::UnknownEpoch,
            Self::Encoded => Code::InvalidClaim,
            Self::Incomplete => Code::IncompleteClaim,
            Self::NotInBlock => Code::NotInBlock,
            Self::Refused(refusal) => match **refusal {
                ClaimRefusal::Invalid(_) => Code::ClaimRefused,
                ClaimRefusal::NotYet(_) => Code::ClaimTooEarly,
                ClaimRefusal::Full => Code::ClaimsFull,
            },
            Self::Unknown => Code::DepositNotFound,
            Self::NoSource => Code::NoBitcoinNode,
            Self::Syncing { .. } => Code::Syncing,
            Self::Source(_) => Code::BitcoinUnreliable,
            Self::Behind { .. } => Code::BitcoinBehind,
            Self::Frozen(_) => Code::PegFrozen,
        }
    }
}

/// Why there is no answer.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub(super) struct ProblemJson {
    /// What programs tell it by. A code never changes its meaning; new ones may come.
    code: &'static str,
    /// What is wrong, in words that may change.
    message: String,
    /// What to do, in words that may change.
    hint: &'static str,
}

impl ProblemJson {
    pub(super) fn of(refusal: &Refusal) -> Self {
        let code = refusal.code();
        Self { code: code.text(), message: refusal.to_string(), hint: code.hint() }
    }
}

/// Answers a request that the server refuses before it is looked at.
pub(super) fn refuse(refusal: http::Refusal, path: &str) -> Response {
    if !is_ours(path) {
        return refusal.into_response();
    }
    let code = match refusal {
        http::Refusal::Requests => Code::TooManyRequests,
        http::Refusal::BodyTooLarge => Code::BodyTooLarge,
        http::Refusal::Connections | http::Refusal::ConnectionsOfAddress | http::Refusal::Answers => Code::Busy,
        http::Refusal::Failed => Code::Internal,
        // There is no path then.
        http::Refusal::HeadTooLarge | http::Refusal::Malformed => return refusal.into_response(),
    };
    let problem = ProblemJson { code: code.text(), message: refusal.to_string(), hint: code.hint() };
    let answer = Answer::json(&problem, Keep::Never).map(|answer| answer.with_status(code.status()));
    answer.map_or_else(|_| refusal.into_response(), Answer::into_response)
}

/// Whether errors of a path are told as JSON: what is Causeway's own, not what wallets of Esplora read.
pub(super) fn is_ours(path: &str) -> bool {
    let mut segments = path.split('/').skip(1);
    match segments.next() {
        Some("api") => segments.next() == Some("v1"),
        first => first == Some("v1"),
    }
}

/// The words of an error that a node told as JSON, for people: what is wrong, and what to do. None if it is no such object.
pub(crate) fn in_words(body: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Problem {
        message: String,
        hint: String,
    }
    let Problem { message, hint } = serde_json::from_str(body).ok()?;
    Some(format!("{message}: {hint}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_unique_and_say_what_to_do() {
        let texts: BTreeSet<&str> = Code::ALL.iter().map(|code| code.text()).collect();
        assert_eq!(texts.len(), Code::ALL.len());
        for code in Code::ALL {
            let (text, hint) = (code.text(), code.hint());
            assert!(text.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{text}");
            assert!(hint.len() > 5 && !hint.ends_with('.') && !hint.starts_with(char::is_whitespace), "{text}: {hint}");
            assert!(code.status().is_client_error() || code.status().is_server_error(), "{text}");
        }
    }

    /// Programs rely on them.
    #[test]
    fn codes_stay_what_they_are() {
        let texts: Vec<String> =
            Code::ALL.iter().map(|code| format!("{} {}", code.status().as_u16(), code.text())).collect();
        assert_eq!(
            texts.join(", "),
            "400 invalid_hex, 400 invalid_number, 400 invalid_outpoint, 400 invalid_parameter, 400 invalid_address, \
             400 address_of_other_network, 400 invalid_scripthash, 400 address_search_disabled, 400 start_not_on_page, \
             400 start_out_of_range, 400 missing_tx, 400 too_many_unspent, 400 too_many_waiting, 400 invalid_package, \
             400 package_too_long, 400 package_item_size, 400 package_item_hex, 400 invalid_maxfeerate, \
             400 invalid_maxburnamount, 400 package_rejected, 400 transaction_rejected, 400 no_index, 400 body_cut_off, \
             400 answer_too_large, 400 invalid_peg_out_address, 400 invalid_json, 400 invalid_destination, \
             400 invalid_bitcoin_address, 400 invalid_refund_key, 400 unknown_epoch, 400 invalid_claim, \
             400 incomplete_claim, 400 not_in_block, 400 claim_refused, 400 invalid_event_id, 400 event_id_ahead, \
             404 unknown_path, 404 block_not_found, 404 height_not_reached, 404 transaction_not_found, 404 not_confirmed, 404 no_such_place, \
             404 no_certificate, 404 peg_out_not_found, 404 batch_not_found, 404 deposit_not_found, \
             413 body_too_large, 408 body_too_slow, 429 too_many_requests, 503 streams_full, 503 busy, 503 too_late, 503 chain_moved, 503 node_stopping, \
             501 no_bitcoin_node, 503 syncing, 503 bitcoin_unreliable, 503 bitcoin_behind, 503 peg_frozen, \
             503 claim_too_early, 503 claims_full, 500 internal"
        );
    }

    #[test]
    fn only_our_own_paths_are_ours() {
        for path in ["/v1", "/v1/", "/v1/x", "/api/v1", "/api/v1/x/y"] {
            assert!(is_ours(path), "{path}");
        }
        for path in ["/", "", "/api", "/api/", "/v1x", "/api/api/v1", "//v1", "/tx/v1", "/health", "/V1"] {
            assert!(!is_ours(path), "{path}");
        }
    }

    #[test]
    fn the_words_of_an_error_are_read() {
        let json = serde_json::to_string(&ProblemJson::of(&Refusal::NoSuchBatch)).unwrap();
        let words = in_words(&json).unwrap();
        assert_eq!(words, format!("{}: {}", Refusal::NoSuchBatch, Code::NoSuchBatch.hint()));
        for body in ["", "no such batch", "{}", "{\"message\":1,\"hint\":\"x\"}"] {
            assert_eq!(in_words(body), None, "{body}");
        }
    }
}
