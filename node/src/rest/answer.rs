//! What goes back: an answer, or why there is none.

use std::convert::Infallible;
use std::fmt::{self, Display};
use std::io::{self, Write};
use std::pin::Pin;

use bytes::Bytes;
use causeway_consensus::StateFault;
use causeway_consensus::bft::DecodeError;
use futures::Stream;
use serde::Serialize;
use tokio::sync::mpsc;
use warp::Reply;
use warp::http::StatusCode;
use warp::http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use warp::reply::Response;

use super::events::EventsRefusal;
use super::peg::PegInRefusal;
use super::problem::{ProblemJson, is_ours};
use super::transactions::RpcError;
use crate::shell::Stopped;

/// The longest JSON answer that is made in one piece, in bytes. Only scripts made for the purpose come near it. A page of a
/// history has no such bound: what is long of it goes out in parts.
pub(super) const MAX_JSON_BYTES: usize = 64 << 20;

/// Transactions on one page of a block's, or of a history in the chain.
pub(super) const PAGE: usize = 25;

const EVENT_STREAM: &str = "text/event-stream";

/// How long an answer stays true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// For ever: it follows from a final block.
    Final,
    /// For some seconds it does.
    FiveSeconds,
    /// It may be another one at once. A tip from a cache makes a wallet's sync inconsistent.
    Never,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    status: StatusCode,
    content_type: &'static str,
    keep: Keep,
    body: Body,
}

/// What an answer consists of.
enum Body {
    Bytes(Vec<u8>),
    /// Until it ends.
    Events(Events),
    /// As they are made.
    Parts(mpsc::Receiver<Part>),
}

/// A part of an answer; an error in its place breaks the connection off, so that nobody takes what came before for all.
pub(super) type Part = Result<Bytes, io::Error>;

/// A stream of events.
type Events = Pin<Box<dyn Stream<Item = Result<Bytes, Infallible>> + Send + Sync>>;

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Events(_) => f.write_str("events"),
            Self::Parts(_) => f.write_str("parts"),
        }
    }
}

impl Answer {
    /// Text without quotes or a newline, which clients parse as it is.
    pub(super) fn text(text: impl Display, keep: Keep) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: "text/plain",
            keep,
            body: Body::Bytes(text.to_string().into_bytes()),
        }
    }

    /// Bytes.
    pub(super) fn binary(body: Vec<u8>, keep: Keep) -> Self {
        Self { status: StatusCode::OK, content_type: "application/octet-stream", keep, body: Body::Bytes(body) }
    }

    /// A value as JSON.
    pub(super) fn json(value: &impl Serialize, keep: Keep) -> Result<Self, Refusal> {
        let mut body = Bounded(Vec::new());
        serde_json::to_writer(&mut body, value).map_err(|_| Refusal::AnswerTooLarge)?;
        Ok(Self { status: StatusCode::OK, content_type: "application/json", keep, body: Body::Bytes(body.0) })
    }

    /// A list that is written already.
    pub(super) fn json_list(list: JsonList, keep: Keep) -> Self {
        let body = Body::Bytes([b"[".as_slice(), &list.0.0, b"]"].concat());
        Self { status: StatusCode::OK, content_type: "application/json", keep, body }
    }

    /// JSON that comes in parts.
    pub(super) fn json_parts(parts: mpsc::Receiver<Part>, keep: Keep) -> Self {
        Self { status: StatusCode::OK, content_type: "application/json", keep, body: Body::Parts(parts) }
    }

    /// JSON that is written already.
    pub(super) fn written_json(json: &str, keep: Keep) -> Self {
        let body = Body::Bytes(json.as_bytes().to_vec());
        Self { status: StatusCode::OK, content_type: "application/json", keep, body }
    }

    /// Server-sent events.
    pub(super) fn events(events: impl Stream<Item = Result<Bytes, Infallible>> + Send + Sync + 'static) -> Self {
        let body = Body::Events(Box::pin(events));
        Self { status: StatusCode::OK, content_type: EVENT_STREAM, keep: Keep::Never, body }
    }

    /// The same with another status.
    pub(super) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    pub(super) fn into_response(self) -> Response {
        let mut response = match self.body {
            Body::Bytes(bytes) => Response::new(bytes.into()),
            Body::Events(events) => warp::reply::stream(events).into_response(),
            Body::Parts(mut parts) => {
                warp::reply::stream(futures::stream::poll_fn(move |cx| parts.poll_recv(cx))).into_response()
            }
        };
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        let keep = match self.keep {
            Keep::Final => "public, max-age=157784630",
            Keep::FiveSeconds => "public, max-age=5",
            Keep::Never => "no-store",
        };
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(keep));
        if self.content_type == EVENT_STREAM {
            // nginx, and what took the header from it, would gather events.
            headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        // Pages of any origin may read it.
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        response
    }
}

/// The items of a JSON list, with commas between them and no brackets around.
#[derive(Default)]
pub(super) struct JsonList(Bounded);

impl JsonList {
    /// Adds one at the end.
    pub(super) fn push(&mut self, item: &impl Serialize) -> Result<(), Refusal> {
        if !self.is_empty() {
            self.0.0.push(b',');
        }
        serde_json::to_writer(&mut self.0, item).map_err(|_| Refusal::AnswerTooLarge)
    }

    /// Whether it has none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.0.is_empty()
    }

    /// What is written of it.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0.0
    }
}

/// A vector that does not grow above [`MAX_JSON_BYTES`].
#[derive(Default)]
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_JSON_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Why there is no answer. The texts are electrs' where it has one: clients look into them.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    // ---- 400: the question is wrong ----
    #[error("Invalid hex string")]
    InvalidHex,
    #[error("Invalid number")]
    InvalidNumber,
    #[error("start index must be a multiple of {PAGE}")]
    StartNotOnPage,
    #[error("start index out of range")]
    StartOutOfRange,
    #[error("Missing tx")]
    MissingTx,
    #[error("Invalid scripthash")]
    InvalidScriptHash,
    #[error("{_0}")]
    InvalidAddress(String),
    #[error("Address on invalid network")]
    OtherNetwork,
    #[error("address search disabled")]
    NoAddressSearch,
    #[error("Too many unspent transaction outputs: more than {max}")]
    TooManyUnspent { max: usize },
    #[error("Too many transactions in the mempool: more than {max}")]
    TooManyWaiting { max: usize },
    #[error("Invalid package: {_0}")]
    InvalidPackage(String),
    #[error("Exceeded maximum of {max} transactions")]
    PackageTooLong { max: usize },
    #[error("Invalid transaction size for item {item}")]
    PackageItemSize { item: usize },
    #[error("Invalid transaction hex for item {item}")]
    PackageItemHex { item: usize },
    #[error("Invalid maxfeerate")]
    InvalidMaxFeerate,
    #[error("Invalid maxburnamount")]
    InvalidMaxBurn,
    #[error("submitpackage RPC error: {_0}")]
    RejectedPackage(RpcError),
    /// Not 404, which says that there is no such transaction, nor 500 and 503, after which clients ask again and again.
    #[error("this node keeps no index of transactions and addresses: ask another one")]
    NoIndex,
    #[error("Request body was cut off")]
    BodyCutOff,
    #[error("sendrawtransaction RPC error: {_0}")]
    Rejected(RpcError),
    #[error("The answer would be larger than {} MiB: fetch the block with /raw", MAX_JSON_BYTES >> 20)]
    AnswerTooLarge,

    #[error("not a Bitcoin address that the peg pays: {_0}")]
    PegOutAddress(String),
    #[error("not an outpoint, txid:vout")]
    InvalidOutpoint,
    #[error("the query's {what}")]
    InvalidParameter { what: &'static str },
    #[error(transparent)]
    PegIn(#[from] PegInRefusal),
    #[error(transparent)]
    Events(#[from] EventsRefusal),

    // ---- 404: there is nothing ----
    #[error("no such peg-out request is final")]
    PegOutNotFound,
    #[error("no such batch")]
    NoSuchBatch,
    #[error("endpoint does not exist {path:?}")]
    UnknownPath { path: String },
    #[error("Block not found")]
    BlockNotFound,
    #[error("height {height} is above the one that is being decided")]
    HeightNotReached { height: u64 },
    #[error("Transaction not found")]
    TransactionNotFound,
    #[error("Transaction not found or is unconfirmed")]
    NotConfirmed,
    #[error("tx index out of range")]
    NoSuchPlace,
    #[error("Block has no certificate: it follows from the chainspec")]
    NoCertificate,

    // ---- limits ----
    #[error("Request body too large")]
    BodyTooLarge,
    #[error("Request body did not arrive in time")]
    BodyTooSlow,
    #[error("Too many requests at once: try again")]
    Busy,
    #[error("The answer took too long: try again")]
    TooLate,
    #[error("The chain grew during the check: try again")]
    ChainMoved,
    #[error(transparent)]
    Stopped(#[from] Stopped),

    // ---- 500: we failed ----
    #[error("internal error")]
    Fault(#[from] StateFault),
    #[error("internal error")]
    Certificate(#[from] DecodeError),
    #[error("internal error")]
    Panicked,
}

impl Refusal {
    /// The answer that says so: JSON under `/v1`, elsewhere text. What is our own failure goes to the log, with its causes.
    pub(super) fn into_answer(self, path: &str) -> Answer {
        match &self {
            Self::Fault(fault) => tracing::error!(path, error = fault as &dyn std::error::Error, "REST cannot read"),
            Self::Certificate(error) => {
                tracing::error!(path, error = error as &dyn std::error::Error, "a stored certificate is damaged");
            }
            Self::Panicked => tracing::error!(path, "an answer panicked: this is a bug, please report it"),
            _ => {}
        }
        let answer = if is_ours(path) {
            Answer::json(&ProblemJson::of(&self), Keep::Never).unwrap_or_else(|_| Answer::text(&self, Keep::Never))
        } else {
            Answer::text(&self, Keep::Never)
        };
        answer.with_status(self.code().status())
    }
}
