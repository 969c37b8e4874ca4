use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bitcoin::hashes::Hash;
use causeway_chainspec::Height;
use futures::io::Cursor;
use libp2p::request_response::Codec as _;
use tokio::time::{Sleep, sleep};

use super::*;

const CODEC: Codec = Codec { idle: Duration::from_secs(10) };

/// One with little patience.
const HASTY: Codec = Codec { idle: Duration::from_millis(500) };

fn name() -> StreamProtocol {
    StreamProtocol::new("/test")
}

async fn request(bytes: Vec<u8>) -> io::Result<Option<Request>> {
    CODEC.clone().read_request(&name(), &mut Cursor::new(bytes)).await
}

async fn response(bytes: Vec<u8>) -> io::Result<Response> {
    CODEC.clone().read_response(&name(), &mut Cursor::new(bytes)).await
}

#[tokio::test]
async fn what_is_written_is_read() {
    let asked = Request::Body { height: Height(7), hash: bitcoin::BlockHash::from_byte_array([1; 32]) };
    let mut stream = Cursor::new(Vec::new());
    CODEC.clone().write_request(&name(), &mut stream, Some(asked)).await.unwrap();
    assert_eq!(request(stream.into_inner()).await.unwrap(), Some(asked));
    let answer = Response::Body(Some(vec![1, 2, 3].into()));
    let mut stream = Cursor::new(Vec::new());
    CODEC.clone().write_response(&name(), &mut stream, answer.clone()).await.unwrap();
    assert_eq!(response(stream.into_inner()).await.unwrap(), answer);
}

#[tokio::test]
async fn too_much_is_invalid_and_nothing_is_an_early_end() {
    for length in [REQUEST_BYTES_MAX + 1, 1 << 20] {
        assert_eq!(request(vec![1; length]).await.unwrap(), None);
    }
    assert_eq!(response(vec![1; RESPONSE_BYTES_MAX + 1]).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert_eq!(response(vec![9]).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert_eq!(request(Vec::new()).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(response(Vec::new()).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn no_more_is_read_than_the_bound() {
    let mut stream = Cursor::new(vec![1; 1 << 20]);
    assert_eq!(CODEC.clone().read_request(&name(), &mut stream).await.unwrap(), None);
    assert_eq!(stream.position(), u64::try_from(REQUEST_BYTES_MAX).unwrap() + 1);
}

/// A stream that moves at most so many bytes at once, each time after a pause, and nothing any more after `until`.
struct Slow {
    part: usize,
    pause: Duration,
    until: usize,
    bytes: Cursor<Vec<u8>>,
    moved: usize,
    rest: Option<Pin<Box<Sleep>>>,
}

impl Slow {
    fn new(bytes: Vec<u8>, part: usize, pause: Duration) -> Self {
        Self { part, pause, until: usize::MAX, bytes: Cursor::new(bytes), moved: 0, rest: None }
    }

    /// Waits for the next time that something moves, and returns how much may.
    fn poll_move(&mut self, context: &mut Context<'_>, wanted: usize) -> Poll<usize> {
        if self.moved >= self.until {
            return Poll::Pending;
        }
        let rest = self.rest.get_or_insert_with(|| Box::pin(sleep(self.pause)));
        ready!(rest.as_mut().poll(context));
        self.rest = None;
        let count = wanted.min(self.part).min(self.until - self.moved);
        self.moved += count;
        Poll::Ready(count)
    }
}

impl AsyncRead for Slow {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut [u8]) -> Poll<io::Result<usize>> {
        let count = ready!(self.poll_move(context, to.len()));
        Pin::new(&mut self.bytes).poll_read(context, &mut to[..count])
    }
}

impl AsyncWrite for Slow {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(self.poll_move(context, from.len()));
        Pin::new(&mut self.bytes).poll_write(context, &from[..count])
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn body(bytes: usize) -> Response {
    Response::Body(Some(vec![5; bytes].into()))
}

async fn read_slowly(mut stream: Slow) -> io::Result<Response> {
    HASTY.clone().read_response(&name(), &mut stream).await
}

async fn write_slowly(mut stream: Slow) -> io::Result<()> {
    HASTY.clone().write_response(&name(), &mut stream, body(1_000_000)).await
}

#[tokio::test]
async fn an_answer_that_moves_may_take_longer_than_one_that_does_not() {
    // Four times as fast as it must be.
    let began = Instant::now();
    let answer = read_slowly(Slow::new(body(200_000).encode(), 13_000, Duration::from_millis(100))).await;
    assert!(answer.unwrap() == body(200_000));
    assert!(began.elapsed() >= HASTY.idle * 2);
    let (part, pause) = (65_000, Duration::from_millis(100));
    let began = Instant::now();
    write_slowly(Slow::new(Vec::new(), part, pause)).await.unwrap();
    assert!(began.elapsed() >= HASTY.idle * 2);
}

#[tokio::test]
async fn one_that_does_not_move_fails_even_if_it_moved_well_before() {
    let whole = body(1_000_000).encode();
    for until in [0, 999_000] {
        let began = Instant::now();
        let stream = Slow { until, ..Slow::new(whole.clone(), usize::MAX, Duration::ZERO) };
        assert_eq!(read_slowly(stream).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let stream = Slow { until, ..Slow::new(Vec::new(), usize::MAX, Duration::ZERO) };
        assert_eq!(write_slowly(stream).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= HASTY.idle * 2);
    }
}

#[tokio::test]
async fn one_that_moves_too_little_fails() {
    // It would take hours.
    let stream = Slow::new(body(1_000_000).encode(), 9, Duration::from_millis(50));
    assert_eq!(read_slowly(stream).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    let stream = Slow::new(Vec::new(), 9, Duration::from_millis(50));
    assert_eq!(write_slowly(stream).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
}

#[test]
fn the_longest_answer_takes_less_than_five_minutes() {
    let longest = total(Duration::from_secs(10), RESPONSE_BYTES_MAX);
    assert!(Duration::from_secs(250) < longest && longest < Duration::from_secs(300), "{longest:?}");
}
