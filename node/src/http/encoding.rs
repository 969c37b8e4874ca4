//! Compressed answers for those who ask.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::BodyExt;
use hyper::body::Body;
use tokio::sync::Semaphore;
use warp::http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, VARY,
};
use warp::reply::Response;

use super::refusal::Refusal;

/// Bodies below this many bytes fit into one packet anyway.
const ENCODED_MIN: u64 = 1_024;

/// Bodies above this many bytes are compressed on a thread for blocking work; this many take about a tenth of a
/// millisecond.
const INLINE_MAX: usize = 16 << 10;

/// Large bodies that are compressed at once; beyond that they go out as they are.
pub(super) const AT_ONCE: usize = 2;

/// How a body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
}

impl Coding {
    /// Returns what a client wants, of what there is: RFC 9110 section 12.5.3. Without the header it wants no coding:
    /// small clients decode none. One that accepts neither is sent the body as it is.
    pub(super) fn wanted(headers: &HeaderMap) -> Self {
        let (mut gzip, mut identity, mut any) = (None, None, None);
        let values = headers.get_all(ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
        for item in values.flat_map(|value| value.split(',')) {
            let mut parts = item.split(';').map(str::trim);
            let Some(quality) = quality(parts.clone().skip(1)) else { continue };
            match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
                "gzip" | "x-gzip" => gzip = Some(quality),
                "identity" => identity = Some(quality),
                "*" => any = Some(quality),
                _ => {}
            }
        }
        let gzip = gzip.or(any).unwrap_or(0);
        // What is not named is accepted, after everything that is.
        if gzip > 0 && gzip >= identity.unwrap_or(0) { Self::Gzip } else { Self::Identity }
    }
}

/// The weight in thousandths, 1,000 without one; nothing if it is none.
fn quality<'a>(mut parameters: impl Iterator<Item = &'a str>) -> Option<u16> {
    let Some(weight) = parameters.find_map(|it| it.strip_prefix("q=").or_else(|| it.strip_prefix("Q="))) else {
        return Some(1_000);
    };
    let (whole, decimals) = weight.split_once('.').unwrap_or((weight, ""));
    if !matches!(whole, "0" | "1") || decimals.len() > 3 || !decimals.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let thousandths: u16 = format!("{whole}{decimals:0<3}").parse().ok()?;
    (thousandths <= 1_000).then_some(thousandths)
}

/// Returns the response in the coding, if it is worth it: text of a known length. Streams, bytes and short texts stay as
/// they are. `encoders` is how many large bodies may be compressed at once.
pub(super) async fn encode(
    mut response: Response,
    coding: Coding,
    encoders: &Arc<Semaphore>,
) -> Result<Response, Refusal> {
    let is_long = response.body().size_hint().exact().is_some_and(|bytes| bytes >= ENCODED_MIN);
    if !is_long || !is_text(response.headers()) || response.headers().contains_key(CONTENT_ENCODING) {
        return Ok(response);
    }
    response.headers_mut().append(VARY, HeaderValue::from_static("accept-encoding"));
    if coding == Coding::Identity {
        return Ok(response);
    }
    let (mut head, body) = response.into_parts();
    let body = body.collect().await.map_err(|_| Refusal::Failed)?.to_bytes();
    let encoded = if body.len() <= INLINE_MAX {
        gzip(&body)
    } else if let Ok(permit) = Arc::clone(encoders).try_acquire_owned() {
        let bytes = body.clone();
        let work = move || {
            let _permit = permit;
            gzip(&bytes)
        };
        tokio::task::spawn_blocking(work).await.ok().flatten()
    } else {
        None
    };
    let body = match encoded {
        Some(encoded) => {
            head.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            head.headers.remove(CONTENT_LENGTH);
            encoded
        }
        None => body,
    };
    Ok(Response::from_parts(head, body.into()))
}

fn is_text(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()) else { return false };
    let kind = kind.split(';').next().unwrap_or_default().trim();
    (kind.starts_with("text/") && kind != "text/event-stream")
        || matches!(kind, "application/json" | "application/openmetrics-text" | "application/problem+json")
}

/// Returns the body compressed, if that makes it shorter.
fn gzip(body: &[u8]) -> Option<Bytes> {
    // Half of the time of the usual level, for a few percent more bytes.
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 2), Compression::fast());
    // Writing to a vector does not fail.
    let encoded = encoder.write_all(body).and_then(|()| encoder.finish()).ok()?;
    (encoded.len() < body.len()).then(|| encoded.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coding_is_negotiated() {
        let gzip = [
            "gzip",
            "GZIP",
            "x-gzip",
            "br, gzip",
            "gzip;q=0.001",
            "gzip ; q=0.5 , identity;q=0.5",
            "*",
            "deflate, *;q=0.1",
            "identity;q=0, gzip",
            "gzip;q=1.000",
        ];
        let identity = [
            "",
            "identity",
            "br, zstd, deflate",
            "gzip;q=0",
            "gzip;q=0.000, *",
            "*;q=0",
            "gzip;q=0.4, identity;q=0.5",
            "gzip;q=2",
            "gzip;q=1.001",
            "gzip;q=0.0001",
            "gzip;q=-1",
            "gzip;q=",
            "gzipped",
            "\u{7f},;;;=,",
        ];
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(
                    ACCEPT_ENCODING,
                    HeaderValue::from_bytes(value.as_bytes()).unwrap_or(HeaderValue::from_static("")),
                );
            }
            Coding::wanted(&headers)
        };
        for value in gzip {
            assert_eq!(of(&[value]), Coding::Gzip, "{value}");
        }
        for value in identity {
            assert_eq!(of(&[value]), Coding::Identity, "{value}");
        }
        assert_eq!(of(&[]), Coding::Identity);
        assert_eq!(of(&["br", "gzip"]), Coding::Gzip);
    }

    #[test]
    fn only_text_is_compressed() {
        let is = |kind: &'static str| is_text(&HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]));
        for kind in ["text/plain", "application/json", "text/plain; version=0.0.4", "text/html"] {
            assert!(is(kind), "{kind}");
        }
        for kind in
            ["application/octet-stream", "text/event-stream", "text/event-stream;charset=utf-8", "image/png", ""]
        {
            assert!(!is(kind), "{kind}");
        }
        assert!(!is_text(&HeaderMap::new()));
    }
}
