//! JSON-RPC over HTTP/1.1 on connections of our own: every answer is bounded in size and in time.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use jsonrpc::client_async::{BoxFuture, Transport};
use jsonrpc::{Request, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::endpoint::{Endpoint, read_authorization};
use super::error::Problem;

/// Calls under way at once to one bitcoind, which has 16 threads for them.
const CALLS_MAX: usize = 8;

/// Most bytes of the headers of an answer.
const HEADER_BYTES_MAX: usize = 16 * 1_024;

/// Most bytes of a block (BIP-0141: no byte weighs less than 1 of 4,000,000).
const BLOCK_BYTES_MAX: usize = 4_000_000;

/// Room for what stands around a result.
const ENVELOPE_BYTES_MAX: usize = 1_024;

/// How long calls may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// For a connection.
    pub connect: Duration,
    /// For a call, its connection included. Calls that answer a block get three times as long, generating blocks twelve
    /// times.
    pub call: Duration,
}

impl Default for Deadlines {
    /// 5 s and 15 s: bitcoind answers nothing while it connects a block.
    fn default() -> Self {
        Deadlines { connect: Duration::from_secs(5), call: Duration::from_secs(15) }
    }
}

/// What an answer to a method may take.
struct Limits {
    bytes: usize,
    deadline: Duration,
}

impl Deadlines {
    fn limits(self, method: &str) -> Limits {
        let (bytes, times) = match method {
            "getblock" | "getrawtransaction" => (2 * BLOCK_BYTES_MAX + ENVELOPE_BYTES_MAX, 3),
            // 200 bytes a branch; a node keeps every branch that it ever saw.
            "getchaintips" => (4_000_000, 1),
            // 400 bytes a coin.
            "scantxoutset" => (64_000_000, 12),
            "generatetoaddress" => (256 * 1_024, 12),
            _ => (256 * 1_024, 1),
        };
        Limits { bytes, deadline: self.call.saturating_mul(times) }
    }
}

/// The HTTP side of one bitcoind.
pub(super) struct HttpTransport {
    endpoint: Endpoint,
    host: HeaderValue,
    credentials_file: PathBuf,
    deadlines: Deadlines,
    permits: Semaphore,
    idle: Mutex<Vec<Connection>>,
    /// How many connections were ever opened: behind a new one may be another bitcoind.
    opened: std::sync::Arc<AtomicU64>,
}

/// An open connection and the credentials it was opened with. Closed when dropped.
struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    authorization: HeaderValue,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl HttpTransport {
    pub(super) fn new(
        endpoint: Endpoint,
        credentials_file: PathBuf,
        deadlines: Deadlines,
        opened: std::sync::Arc<AtomicU64>,
    ) -> HttpTransport {
        let host = HeaderValue::from_str(&endpoint.to_string()).expect("an endpoint is visible ASCII");
        let permits = Semaphore::new(CALLS_MAX);
        HttpTransport { endpoint, host, credentials_file, deadlines, permits, idle: Mutex::default(), opened }
    }

    /// Sends `body` and returns what came back, parsed.
    async fn exchange<R: DeserializeOwned>(&self, method: &str, body: Vec<u8>) -> Result<R, Problem> {
        let limits = self.deadlines.limits(method);
        let bounded = tokio::time::timeout(limits.deadline, async {
            let _permit = self.permits.acquire().await.expect("never closed");
            self.ask(method, Bytes::from(body), limits.bytes).await
        });
        let (status, answer) = bounded.await.unwrap_or(Err(Problem::Deadline { after: limits.deadline }))?;
        serde_json::from_slice(&answer).map_err(|_| Problem::NotJsonRpc { status: status.as_u16() })
    }

    async fn ask(&self, method: &str, body: Bytes, bytes_max: usize) -> Result<(StatusCode, Bytes), Problem> {
        // bitcoind closes connections that it has not heard from, at the moment we use one again perhaps. Then a call
        // is sent again over a new connection, unless doing it twice differs from doing it once.
        let repeatable = method != "generatetoaddress";
        if repeatable && let Some(connection) = self.take_idle() {
            match self.ask_over(connection, body.clone(), bytes_max).await {
                Err(Problem::ConnectionLost(_) | Problem::Unauthorised { .. }) => self.forget_idle(),
                answer => return answer,
            }
        }
        let connection = self.connect().await?;
        self.ask_over(connection, body, bytes_max).await
    }

    async fn ask_over(
        &self,
        mut connection: Connection,
        body: Bytes,
        bytes_max: usize,
    ) -> Result<(StatusCode, Bytes), Problem> {
        let request = hyper::Request::builder()
            .method(Method::POST)
            .uri("/")
            .header(HOST, &self.host)
            .header(AUTHORIZATION, &connection.authorization)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .expect("every part is valid");
        connection.sender.ready().await.map_err(Problem::ConnectionLost)?;
        let answer = connection.sender.send_request(request).await.map_err(Problem::ConnectionLost)?;
        let status = answer.status();
        match status {
            // Errors of JSON-RPC 1 have one of the last three.
            StatusCode::OK | StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::INTERNAL_SERVER_ERROR => {}
            StatusCode::UNAUTHORIZED => return Err(Problem::Unauthorised { path: self.credentials_file.clone() }),
            StatusCode::FORBIDDEN => return Err(Problem::Forbidden),
            StatusCode::SERVICE_UNAVAILABLE => return Err(Problem::Busy),
            _ => return Err(Problem::NotJsonRpc { status: status.as_u16() }),
        }
        let answer = read_bounded(answer.into_body(), bytes_max, status).await?;
        if connection.sender.ready().await.is_ok() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        Ok((status, answer))
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(connection) = idle.pop() {
            if !connection.sender.is_closed() {
                return Some(connection);
            }
        }
        None
    }

    /// Closes the idle connections: what made one useless did so to all.
    fn forget_idle(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    async fn connect(&self) -> Result<Connection, Problem> {
        let deadline = self.deadlines.connect;
        let connected = async {
            let stream = TcpStream::connect(self.endpoint.to_host_and_port()).await.map_err(Problem::Unreachable)?;
            stream.set_nodelay(true).map_err(Problem::Unreachable)?;
            // After connecting: a bitcoind that listens has written its cookie.
            let authorization = self.authorization().await?;
            let (sender, connection) = http1::Builder::new()
                .max_buf_size(HEADER_BYTES_MAX)
                .handshake(TokioIo::new(stream))
                .await
                .map_err(Problem::ConnectionLost)?;
            let driver = tokio::spawn(async move {
                // Its error reaches the call that waits for it.
                let _ = connection.await;
            });
            self.opened.fetch_add(1, Ordering::SeqCst);
            Ok(Connection { sender, authorization, driver })
        };
        tokio::time::timeout(deadline, connected).await.unwrap_or(Err(Problem::Deadline { after: deadline }))
    }

    async fn authorization(&self) -> Result<HeaderValue, Problem> {
        let path = self.credentials_file.clone();
        let read = tokio::task::spawn_blocking(move || read_authorization(&path)).await;
        let text = match read {
            Ok(Ok(text)) => text,
            Ok(Err(source)) => return Err(Problem::Credentials { path: self.credentials_file.clone(), source }),
            Err(stopped) => return Err(Problem::Unreachable(std::io::Error::other(stopped))),
        };
        let mut value = HeaderValue::from_str(&text).expect("base64 is visible ASCII");
        value.set_sensitive(true);
        Ok(value)
    }
}

async fn read_bounded(body: Incoming, limit: usize, status: StatusCode) -> Result<Bytes, Problem> {
    if body.size_hint().lower() > limit as u64 {
        return Err(Problem::TooLarge { limit });
    }
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Problem::TooLarge { limit }),
        Err(error) => Err(match error.downcast::<hyper::Error>() {
            Ok(error) => Problem::ConnectionLost(*error),
            Err(_) => Problem::NotJsonRpc { status: status.as_u16() },
        }),
    }
}

fn encode(request: &(impl Serialize + ?Sized)) -> Result<Vec<u8>, jsonrpc::Error> {
    serde_json::to_vec(request).map_err(jsonrpc::Error::Json)
}

fn transport_error(problem: Problem) -> jsonrpc::Error {
    jsonrpc::Error::Transport(Box::new(problem))
}

impl Transport for HttpTransport {
    fn send_request<'a>(&'a self, request: Request<'a>) -> BoxFuture<'a, Result<Response, jsonrpc::Error>> {
        Box::pin(async move { self.exchange(request.method, encode(&request)?).await.map_err(transport_error) })
    }

    /// All requests are of one method, whose limits hold for the whole answer.
    fn send_batch<'a>(&'a self, requests: &'a [Request<'a>]) -> BoxFuture<'a, Result<Vec<Response>, jsonrpc::Error>> {
        Box::pin(async move {
            let method = requests.first().map_or("", |request| request.method);
            self.exchange(method, encode(requests)?).await.map_err(transport_error)
        })
    }

    fn fmt_target(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self.endpoint)
    }
}
