//! Asking a server over HTTP/1.1, from a thread that waits for the answer: how commands and the wallet speak to a node.
//!
//! A request goes to the host of its URL and to nobody else: there are no redirects, and no proxy, whatever the environment
//! says. What is asked of a node on this machine never leaves it. Every answer is bounded in bytes, and every wait in time.
//!
//! What never enters: TLS, passwords, an environment variable, a meaning of a path.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use causeway_federation::bitcoind::Endpoint;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;

/// The port of a URL that names none.
const DEFAULT_PORT: u16 = 80;

/// Most bytes of the head of an answer, or twice as many: hyper reads into what its buffer has room for.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// A server, and the path before all others: `http://host:port/path`. The host is an IP address (IPv6 in brackets) or a
/// name; without a port it is 80.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    endpoint: Endpoint,
    /// Empty, or a slash and what follows it, without one at the end.
    prefix: String,
}

/// Text that is no [`BaseUrl`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BaseUrlError {
    /// `https://`.
    #[error("this program speaks no TLS; give http:// and a node on this machine, or a tunnel to one")]
    Tls,
    /// `user@host`.
    #[error("a node takes no user and no password; write http://host:port")]
    User,
    /// Anything else.
    #[error("write http://host:port, an IPv6 address in brackets")]
    Form,
}

impl FromStr for BaseUrl {
    type Err = BaseUrlError;

    fn from_str(text: &str) -> Result<Self, BaseUrlError> {
        let text = text.trim();
        let (scheme, rest) = text.split_once("://").ok_or(BaseUrlError::Form)?;
        match scheme.to_ascii_lowercase().as_str() {
            "http" => {}
            "https" => return Err(BaseUrlError::Tls),
            _ => return Err(BaseUrlError::Form),
        }
        let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        if authority.contains('@') {
            return Err(BaseUrlError::User);
        }
        if !path.bytes().all(|byte| byte.is_ascii_graphic()) || path.contains(['?', '#']) {
            return Err(BaseUrlError::Form);
        }
        // The last colon of an IPv6 address is no port's.
        let has_port = !authority.ends_with(']') && authority.contains(':');
        let with_port = if has_port { authority.to_owned() } else { format!("{authority}:{DEFAULT_PORT}") };
        let endpoint = with_port.parse().map_err(|_| BaseUrlError::Form)?;
        Ok(Self { endpoint, prefix: path.trim_end_matches('/').to_owned() })
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.endpoint, self.prefix)
    }
}

/// What an answer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of its body.
    pub bytes: u64,
    /// Without a byte of it; for the first one, the connection included.
    pub silence: Duration,
    /// All of it.
    pub total: Duration,
}

impl Bounds {
    /// So many bytes, within so many seconds.
    pub const fn within(bytes: u64, seconds: u64) -> Self {
        let time = Duration::from_secs(seconds);
        Self { bytes, silence: time, total: time }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No connection.
    #[error("no connection")]
    Connect(#[source] io::Error),
    /// The connection broke, or what comes is no HTTP.
    #[error("the connection broke, or no HTTP is spoken there")]
    Broken(#[source] hyper::Error),
    /// Nothing, or no end, in time.
    #[error("nothing came within {} s", .0.as_secs())]
    Late(Duration),
    /// More than may be.
    #[error("the answer has more than {max} bytes")]
    TooLarge {
        /// The bound.
        max: u64,
    },
    /// A path that is none.
    #[error("the path is none: this is a mistake of the program, please report it")]
    Path(#[source] hyper::http::Error),
    /// No event loop.
    #[error("the operating system has no room for a connection: end other programs and try again")]
    Thread(#[source] io::Error),
}

impl BaseUrl {
    /// Whether what is asked stays on this machine, as far as the text says.
    pub fn is_loopback(&self) -> bool {
        self.endpoint.is_loopback()
    }

    /// Asks for a path, which begins with a slash. The status may be any, and the body is still to come.
    ///
    /// # Errors
    /// There is no answer.
    pub fn get(&self, path: &str, bounds: Bounds) -> Result<Answer, AskError> {
        self.ask(Method::GET, path, "", Bytes::new(), bounds)
    }

    /// Sends a body of a type to a path, which begins with a slash. The status may be any, and the body is still to come.
    ///
    /// # Errors
    /// There is no answer.
    pub fn post(&self, path: &str, kind: &str, body: impl Into<Bytes>, bounds: Bounds) -> Result<Answer, AskError> {
        self.ask(Method::POST, path, kind, body.into(), bounds)
    }

    fn ask(&self, method: Method, path: &str, kind: &str, body: Bytes, bounds: Bounds) -> Result<Answer, AskError> {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.prefix));
        let request = request.header(HOST, self.endpoint.to_string());
        let request = if kind.is_empty() { request } else { request.header(CONTENT_TYPE, kind) };
        let request = request.body(Full::new(body)).map_err(AskError::Path)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AskError::Thread)?;
        let ending = Ending(Some(runtime));
        let until = Instant::now() + bounds.total;
        let wait = bounds.silence.min(bounds.total);
        let endpoint = self.endpoint.to_string();
        let sent = ending.block_on(async { timeout(wait, send(endpoint, request)).await });
        let response = sent.unwrap_or(Err(AskError::Late(wait)))?;
        let status = response.status().as_u16();
        Ok(Answer { body: response.into_body(), part: Bytes::new(), taken: 0, until, bounds, status, ending })
    }
}

async fn send(endpoint: String, request: Request<Full<Bytes>>) -> Result<hyper::Response<Incoming>, AskError> {
    let stream = TcpStream::connect(endpoint).await.map_err(AskError::Connect)?;
    stream.set_nodelay(true).map_err(AskError::Connect)?;
    let handshake = http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(AskError::Broken)?;
    tokio::spawn(async move {
        // Its error reaches the request, or the body.
        let _ = connection.await;
    });
    sender.send_request(request).await.map_err(AskError::Broken)
}

/// An answer, whose body is read as it comes.
#[derive(Debug)]
pub struct Answer {
    body: Incoming,
    /// What has come and was not read yet.
    part: Bytes,
    taken: u64,
    until: Instant,
    bounds: Bounds,
    status: u16,
    ending: Ending,
}

impl Answer {
    /// Its status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// All of its body.
    ///
    /// # Errors
    /// It does not come whole and in time, or is too large.
    pub fn bytes(mut self) -> Result<Vec<u8>, AskError> {
        let mut bytes = Vec::new();
        while let Some(part) = self.next()? {
            bytes.extend_from_slice(&part);
        }
        Ok(bytes)
    }

    /// The next part of the body; None after the last.
    fn next(&mut self) -> Result<Option<Bytes>, AskError> {
        loop {
            let left = self.until.saturating_duration_since(Instant::now()).min(self.bounds.silence);
            let body = &mut self.body;
            let frame = self.ending.block_on(async { timeout(left, body.frame()).await });
            let late = AskError::Late(if left < self.bounds.silence { self.bounds.total } else { left });
            let Some(frame) = frame.map_err(|_| late)? else { return Ok(None) };
            // What follows the body is nothing that is asked for.
            let Ok(part) = frame.map_err(AskError::Broken)?.into_data() else { continue };
            self.taken = self.taken.saturating_add(part.len() as u64);
            if self.taken > self.bounds.bytes {
                return Err(AskError::TooLarge { max: self.bounds.bytes });
            }
            return Ok(Some(part));
        }
    }
}

impl Read for Answer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.part.is_empty() {
            match self.next().map_err(io::Error::other)? {
                Some(part) => self.part = part,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.part.len());
        self.part.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

/// An event loop that is left without waiting for a name that is still being looked up.
#[derive(Debug)]
struct Ending(Option<Runtime>);

impl Ending {
    fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.0.as_ref().expect("there until it is dropped").block_on(future)
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests;
