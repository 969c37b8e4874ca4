//! Many connections that ask one thing after the other, and what that took.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde::Serialize;

/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A request as it is sent.
pub(super) struct Request(Vec<u8>);

/// An answer with status 200.
pub(super) struct Answer {
    pub(super) body: Vec<u8>,
}

/// What a connection asks next, after its last answer; None if it has nothing more to ask.
pub(super) type Next<'a> = Box<dyn FnMut(Option<&Answer>) -> Option<Request> + 'a>;

/// What came of it.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    pub(super) requests: usize,
    pub(super) seconds: f64,
    pub(super) requests_per_second: f64,
    pub(super) median_ms: f64,
    pub(super) p99_ms: f64,
    /// Answers with another status than 200, and connections that were lost.
    pub(super) errors: usize,
    #[serde(skip)]
    first_error: Option<String>,
}

impl Figures {
    pub(super) fn first_error(&self) -> &str {
        self.first_error.as_deref().unwrap_or("no error")
    }
}

impl Request {
    pub(super) fn get(path: &str) -> Self {
        Self(format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n").into_bytes())
    }

    pub(super) fn post(path: &str, body: &str) -> Self {
        let length = body.len();
        Self(format!("POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes())
    }
}

/// Asks over this many connections, for this long or until nobody has anything more to ask.
///
/// # Errors
/// A connection cannot be opened.
pub(super) fn drive<'a>(
    address: SocketAddr,
    connections: usize,
    time: Duration,
    next: impl Fn(usize) -> Next<'a> + Sync,
) -> Result<Figures, Box<dyn std::error::Error>> {
    let streams = (0..connections).map(|_| Connection::open(address)).collect::<io::Result<Vec<_>>>()?;
    let started = Instant::now();
    let (mut times, mut errors) = (Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        let next = &next;
        let ask = |(index, connection)| scope.spawn(move || ask(connection, address, started + time, next(index)));
        let askers: Vec<_> = streams.into_iter().enumerate().map(ask).collect();
        for asker in askers {
            let (took, failed) = asker.join().map_err(|_| "a connection's thread failed")?;
            times.extend(took);
            errors.extend(failed);
        }
        Ok::<_, &str>(())
    })?;
    let seconds = started.elapsed().as_secs_f64();
    times.sort_unstable();
    let ms = |part: usize| times.get(times.len() * part / 100).map_or(0.0, |took: &Duration| took.as_secs_f64() * 1e3);
    Ok(Figures {
        requests: times.len(),
        seconds,
        requests_per_second: f64::from(u32::try_from(times.len())?) / seconds,
        median_ms: ms(50),
        p99_ms: ms(99),
        errors: errors.len(),
        first_error: errors.into_iter().next(),
    })
}

/// Returns what each answer took, and what went wrong.
fn ask(
    mut connection: Connection,
    address: SocketAddr,
    until: Instant,
    mut next: Next<'_>,
) -> (Vec<Duration>, Vec<String>) {
    let (mut times, mut errors) = (Vec::new(), Vec::new());
    let mut last = None;
    while Instant::now() < until {
        let Some(request) = next(last.as_ref()) else { break };
        let since = Instant::now();
        match connection.ask(&request) {
            Ok((200, body)) => {
                times.push(since.elapsed());
                last = Some(Answer { body });
            }
            Ok((status, body)) => {
                errors.push(format!("status {status}: {}", String::from_utf8_lossy(&body)));
                last = None;
            }
            Err(error) => {
                errors.push(error.to_string());
                last = None;
                match Connection::open(address) {
                    Ok(another) => connection = another,
                    Err(_) => break,
                }
            }
        }
    }
    (times, errors)
}

/// A connection that is kept.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(Self(BufReader::new(stream)))
    }

    fn ask(&mut self, Request(bytes): &Request) -> io::Result<(u16, Vec<u8>)> {
        self.0.get_mut().write_all(bytes)?;
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| io::Error::other("the connection was closed"))?;
        let mut length = None;
        loop {
            line.clear();
            if self.0.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let Some((name, value)) = line.split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().ok();
            }
        }
        let mut body = vec![0; length.ok_or_else(|| io::Error::other("an answer without a length"))?];
        self.0.read_exact(&mut body)?;
        Ok((status, body))
    }
}
