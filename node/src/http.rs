//! An HTTP/1.1 server for filters that strangers may reach: it accepts, limits, hands requests on, and ends.
//!
//! ```text
//! http      the accept loop, and the end of it
//! listen    the address
//! hosts     who may connect, and have requests under way
//! line      what a connection is at, and until when it may be
//! socket    the bytes of a connection, reported to its line
//! service   one request to one answer: limits, panics
//! encoding  compressed answers for those who ask
//! refusal   what the server itself answers
//! ```
//!
//! Whatever a client does, it takes no more than its [`Limits`]: a head of 64 KiB and 64 fields, a place among the
//! connections until one of [`Times`] is over, one request at a time per connection (pipelined ones wait in the system's
//! buffers), and a part of 256 MiB for answers that it does not read. What is over a limit is refused at once; nothing
//! queues.
//!
//! What never enters: a meaning of a path or of a request, TLS (that is a proxy's).

mod encoding;
mod hosts;
mod line;
mod listen;
mod refusal;
mod service;
mod socket;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use warp::reply::{Reply, Response};
use warp::{Filter, Rejection};

pub use listen::{ListenError, listen};
pub use refusal::Refusal;

use hosts::{Hosts, Seat};
use line::Line;
use service::Answerer;
use socket::Socket;

/// The longest head of a request, in bytes: the longest path that hyper takes, nearly.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Header fields of a request. Browsers send two dozen.
const HEADERS_MAX: usize = 64;

/// Requests over one connection; the answer to the last one closes it.
const REQUESTS_PER_CONNECTION: u64 = 10_000;

/// Memory of large answers that clients have not read yet, in bytes.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Connections over a limit that are told so at once; more are closed without a word.
const FAREWELLS_MAX: usize = 64;

/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// What is read of a refused client's bytes, so that the system delivers the refusal before it resets the connection.
const FAREWELL_BYTES: u64 = 64 << 10;

/// How long to wait when the system has no room for another connection, and how often that is told.
const NO_ROOM: Duration = Duration::from_millis(200);
const TELL_EVERY: Duration = Duration::from_secs(30);

/// How much clients may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Connections of one address: IPv4, or IPv6 /64.
    pub connections_per_address: usize,
    /// The same of a loopback address, where a proxy or the operator's own programs are.
    pub connections_per_loopback_address: usize,
    /// Requests of one address that are under way, until the last byte of the answer is with the system. An answer
    /// without a known length counts until it begins.
    pub requests_per_address: usize,
    /// The same of a loopback address.
    pub requests_per_loopback_address: usize,
    /// Bytes of a request's body. One that announces more is refused before it is read; what arrives in chunks the
    /// filter must count itself.
    pub body_bytes: u64,
    /// How long things may take.
    pub times: Times,
}

/// How long a connection may be at what it is at. How long the body of a request and the making of an answer may take
/// is the filter's to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// The head of a request, from its first byte to its last; for the first request from the beginning.
    pub head: Duration,
    /// Without a request.
    pub idle: Duration,
    /// While the client does not take what is written to it: in this time it must take all that waits, or 1 MiB.
    pub stall: Duration,
    /// After the last answer, for a client that has not sent the whole body of its request.
    pub linger: Duration,
    /// The requests that are under way when the server stops.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            connections_per_address: 64,
            connections_per_loopback_address: 512,
            requests_per_address: 32,
            requests_per_loopback_address: 512,
            body_bytes: 1_000_000,
            times: Times::default(),
        }
    }
}

impl Limits {
    /// With this many connections in all and of one address. Half of those of an address may have a request under way.
    /// A loopback address may have all.
    pub fn of_connections(connections: usize, per_address: usize) -> Self {
        Self {
            connections,
            connections_per_address: per_address,
            connections_per_loopback_address: connections,
            requests_per_address: per_address.div_ceil(2),
            requests_per_loopback_address: connections,
            ..Self::default()
        }
    }
}

impl Default for Times {
    /// Clients keep idle connections for 15 to 90 seconds.
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            stall: Duration::from_secs(30),
            linger: Duration::from_secs(2),
            grace: Duration::from_secs(5),
        }
    }
}

/// Serves the filter on the listener until `stop` is true, or its sender is gone: then nobody is accepted, idle
/// connections are closed, and requests under way have [`Times::grace`]. All that it started has ended when it returns.
pub async fn serve<F, R>(listener: TcpListener, filter: F, limits: Limits, host: impl Host, stop: watch::Receiver<bool>)
where
    F: Filter<Extract = (R,), Error = Rejection> + Clone + Send + Sync + 'static,
    F::Future: Send,
    R: Reply + 'static,
{
    accept(listener, TowerToHyperService::new(warp::service(filter)), limits, Arc::new(host), stop).await;
}

/// Whose server it is.
pub trait Host: Send + Sync + 'static {
    /// Returns what is held while a connection is open.
    fn opened(&self) -> Box<dyn Send> {
        Box::new(())
    }

    /// Returns the answer to a request for a path that is refused before the filter sees it: by default the refusal's text.
    fn refuse(&self, refusal: Refusal, _path: &str) -> Response {
        refusal.into_response()
    }
}

/// A host that adds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain;

impl Host for Plain {}

/// Where connections come from.
trait Acceptor {
    fn accept(&self) -> impl Future<Output = io::Result<(TcpStream, SocketAddr)>> + Send;
}

impl Acceptor for TcpListener {
    fn accept(&self) -> impl Future<Output = io::Result<(TcpStream, SocketAddr)>> + Send {
        Self::accept(self)
    }
}

/// What the connections share.
struct Shared<S> {
    service: S,
    limits: Limits,
    host: Arc<dyn Host>,
    /// Large answers, in KiB.
    answers: Arc<Semaphore>,
    /// See [`encoding::encode`].
    encoders: Arc<Semaphore>,
}

async fn accept<A, S>(acceptor: A, service: S, limits: Limits, host: Arc<dyn Host>, mut stop: watch::Receiver<bool>)
where
    A: Acceptor,
    S: Service<Request<Incoming>, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let (answers, encoders) = (Semaphore::new(ANSWER_BYTES_MAX >> 10), Semaphore::new(encoding::AT_ONCE));
    let shared = Arc::new(Shared { service, limits, host, answers: Arc::new(answers), encoders: Arc::new(encoders) });
    let hosts = Arc::new(Hosts::new(limits));
    let mut connections = JoinSet::new();
    let mut farewells = JoinSet::new();
    let mut warned = None;
    loop {
        let accepted = tokio::select! {
            biased;
            () = told(&mut stop) => break,
            Some(ended) = connections.join_next() => { note(ended); continue }
            Some(ended) = farewells.join_next() => { note(ended); continue }
            accepted = acceptor.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => match hosts.admit(address.ip()) {
                Ok(seat) => {
                    connections.spawn(converse(stream, seat, Arc::clone(&shared), stop.clone()));
                }
                Err(refusal) if farewells.len() < FAREWELLS_MAX => {
                    farewells.spawn(turn_away(stream, refusal));
                }
                Err(_) => {}
            },
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if warned.is_none_or(|warned: Instant| warned.elapsed() >= TELL_EVERY) {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "no room for another HTTP connection: raise the limit of open files (ulimit -n) or lower \
                         max_connections"
                    );
                    warned = Some(Instant::now());
                }
                // Until a file is closed, the system would say the same at once.
                tokio::select! {
                    () = told(&mut stop) => break,
                    () = sleep(NO_ROOM) => {}
                }
            }
        }
    }
    drop((acceptor, farewells));
    let end = async {
        while let Some(ended) = connections.join_next().await {
            note(ended);
        }
    };
    if timeout(limits.times.grace, end).await.is_err() {
        tracing::debug!(connections = connections.len(), "requests were still under way when HTTP stopped");
    }
    connections.shutdown().await;
}

/// Whether accepting failed for a client that has gone, and can go on at once.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Waits until the server is to stop.
async fn told(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone says the same.
    let _ = stop.wait_for(|stop| *stop).await;
}

fn note(ended: Result<(), JoinError>) {
    if ended.is_err_and(|error| error.is_panic()) {
        tracing::error!("the body of an answer panicked: this is a bug, please report it");
    }
}

/// Serves one connection to its end.
async fn converse<S>(stream: TcpStream, seat: Seat, shared: Arc<Shared<S>>, mut stop: watch::Receiver<bool>)
where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let open = shared.host.opened();
    // Answers are written whole: waiting for more of them only delays. Without it they are slower, and right.
    let _ = stream.set_nodelay(true);
    let times = shared.limits.times;
    let line = Arc::new(Line::new(times));
    let socket = TokioIo::new(Socket::new(stream, Arc::clone(&line)));
    let answerer = Answerer::new(shared, &seat, Arc::clone(&line));
    let mut http = http1::Builder::new();
    // hyper's own deadline for heads needs a timer, which it is not given: the line keeps all deadlines.
    http.max_headers(HEADERS_MAX).max_header_size(HEAD_BYTES_MAX).max_buf_size(HEAD_BYTES_MAX);
    let mut connection = pin!(http.serve_connection(socket, answerer));
    let mut stopped = pin!(told(&mut stop));
    let mut is_stopping = false;
    let mut alarm = pin!(sleep_until(Instant::now() + times.head));
    std::future::poll_fn(|cx| {
        if !is_stopping && stopped.as_mut().poll(cx).is_ready() {
            is_stopping = true;
            connection.as_mut().graceful_shutdown();
        }
        if connection.as_mut().poll(cx).is_ready() || (is_stopping && line.is_waiting()) {
            return Poll::Ready(());
        }
        let Some(deadline) = line.deadline() else { return Poll::Pending };
        // An alarm that rings too early is set again: most deadlines are past business before they are due.
        if deadline < alarm.deadline() {
            alarm.as_mut().reset(deadline);
        }
        while alarm.as_mut().poll(cx).is_ready() {
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(deadline);
        }
        Poll::Pending
    })
    .await;
    drop((open, seat));
}

/// Says why a connection is not served, and closes it.
async fn turn_away(mut stream: TcpStream, refusal: Refusal) {
    let say = async {
        stream.write_all(&refusal.to_bytes()).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut (&mut stream).take(FAREWELL_BYTES), &mut tokio::io::sink()).await
    };
    // A client that has gone, or stays, misses nothing.
    let _ = timeout(FAREWELL, say).await;
}

#[cfg(test)]
mod tests;
