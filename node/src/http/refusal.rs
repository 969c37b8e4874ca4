//! What the server itself answers.

use std::fmt::Write as _;

use bytes::Bytes;
use warp::http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use warp::http::{HeaderName, HeaderValue, StatusCode};
use warp::reply::Response;

use super::{HEAD_BYTES_MAX, HEADERS_MAX};

/// Why a request is not handed on, or a connection not served. The text is the body of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// In all.
    #[error("Too many connections to this server: try again, and close those that you do not need")]
    Connections,
    /// Of one address.
    #[error("Too many connections of your address: close some, or use them for several requests")]
    ConnectionsOfAddress,
    /// Of one address.
    #[error("Too many requests of your address at once: wait for the answers to the others")]
    Requests,
    /// Clients have not read what they asked for.
    #[error("Too many large answers are on their way: try again")]
    Answers,
    /// It is announced so. The text is that of electrs.
    #[error("Request body too large")]
    BodyTooLarge,
    /// Or too many fields.
    #[error("Request head too large: at most {} KiB and {HEADERS_MAX} fields", HEAD_BYTES_MAX >> 10)]
    HeadTooLarge,
    /// What came is no request.
    #[error("Not an HTTP/1.1 request")]
    Malformed,
    /// The filter panicked.
    #[error("internal error")]
    Failed,
}

impl Refusal {
    /// The one for which hyper answers with this status by itself.
    pub(super) fn of_hyper(status: &[u8]) -> Self {
        match status {
            b"414" | b"431" => Self::HeadTooLarge,
            _ => Self::Malformed,
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::Connections | Self::ConnectionsOfAddress | Self::Answers => StatusCode::SERVICE_UNAVAILABLE,
            Self::Requests => StatusCode::TOO_MANY_REQUESTS,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn headers(self) -> impl Iterator<Item = (HeaderName, &'static str)> {
        let status = self.status();
        let wait = status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS;
        let all = [
            Some((CONTENT_TYPE, "text/plain")),
            Some((CACHE_CONTROL, "no-store")),
            // Pages of any origin may read it.
            Some((ACCESS_CONTROL_ALLOW_ORIGIN, "*")),
            wait.then_some((RETRY_AFTER, "1")),
        ];
        all.into_iter().flatten()
    }

    /// The answer, as text.
    pub fn into_response(self) -> Response {
        let mut response = Response::new(self.to_string().into());
        *response.status_mut() = self.status();
        response.headers_mut().extend(self.headers().map(|(name, value)| (name, HeaderValue::from_static(value))));
        response
    }

    /// A whole answer, after which the connection ends.
    pub(super) fn to_bytes(self) -> Bytes {
        let body = self.to_string();
        let mut text =
            format!("HTTP/1.1 {}\r\n{CONNECTION}: close\r\ncontent-length: {}\r\n", self.status(), body.len());
        for (name, value) in self.headers() {
            // Writing to a string does not fail.
            let _ = write!(text, "{name}: {value}\r\n");
        }
        text.push_str("\r\n");
        text.push_str(&body);
        text.into()
    }
}
