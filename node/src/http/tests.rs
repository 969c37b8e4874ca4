//! Clients over real sockets, against a filter that does what they ask for.

mod client;
mod limits;
mod stop;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use warp::path::FullPath;
use warp::reply::Response;
use warp::{Buf, Filter, Rejection};

use super::{Limits, Plain, Times, serve};
use client::Client;

/// How long a test waits for what is to happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// The length of `/large`.
const LARGE: usize = 64 << 20;

/// What the filter does and sees.
#[derive(Clone)]
struct Backstage {
    /// While false, nobody is answered at `/wait`.
    gate: watch::Sender<bool>,
    /// Requests that have come to `/wait`, and those of them that are there.
    waiting: watch::Sender<(usize, usize)>,
    large: Bytes,
}

/// A server.
struct Site {
    address: SocketAddr,
    runtime: Runtime,
    backstage: Backstage,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
}

impl Site {
    fn new(limits: Limits) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let backstage = Backstage {
            gate: watch::Sender::new(false),
            waiting: watch::Sender::new((0, 0)),
            large: vec![7; LARGE].into(),
        };
        let stop = watch::Sender::new(false);
        let server = runtime.spawn(serve(listener, filter(backstage.clone()), limits, Plain, stop.subscribe()));
        Self { address, runtime, backstage, stop, server }
    }

    /// A server with all limits at their defaults, and these times.
    fn with(times: Times) -> Self {
        Self::new(Limits { times, ..Limits::default() })
    }

    fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// Waits until this many requests have come to `/wait`.
    fn wait_for(&self, asked: usize) {
        let mut waiting = self.backstage.waiting.subscribe();
        let come = async { tokio::time::timeout(PATIENCE, waiting.wait_for(|it| it.0 >= asked)).await.map(drop) };
        self.runtime.block_on(come).expect("the requests come");
    }

    /// Waits until the server has ended.
    fn ended(&mut self) {
        let server = &mut self.server;
        let ended = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, server).await });
        ended.expect("it ends in time").unwrap();
    }
}

/// Waits until something is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
    }
}

fn filter(backstage: Backstage) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone + Send + Sync {
    warp::path::full().and(warp::body::stream()).and_then(move |path: FullPath, body| {
        let backstage = backstage.clone();
        async move { Ok::<_, Rejection>(respond(backstage, path.as_str(), body).await) }
    })
}

async fn respond<B: Buf>(
    backstage: Backstage,
    path: &str,
    body: impl Stream<Item = Result<B, warp::Error>> + Send,
) -> Response {
    let of = |kind: &'static str, body: Bytes| {
        let mut response = Response::new(body.into());
        response.headers_mut().insert("content-type", kind.parse().unwrap());
        response
    };
    match path {
        "/wait" => {
            backstage.waiting.send_modify(|waiting| *waiting = (waiting.0 + 1, waiting.1 + 1));
            let mut gate = backstage.gate.subscribe();
            let _ = gate.wait_for(|open| *open).await;
            backstage.waiting.send_modify(|waiting| waiting.1 -= 1);
            of("text/plain", "waited".into())
        }
        "/panic" => panic!("as the test wants it"),
        "/large" => of("application/octet-stream", backstage.large),
        "/text" => of("text/plain", text(10_000).into()),
        "/long-text" => of("application/json", text(1 << 20).into()),
        "/body" => {
            let body = body.map(|part| part.map(|part| part.remaining()));
            let lengths: Vec<_> = body.collect().await;
            let length: Result<usize, _> = lengths.into_iter().sum();
            of("text/plain", length.map_or("cut off".into(), |length| length.to_string().into()))
        }
        "/stream" => {
            let drops = futures::stream::unfold((), |()| async {
                tokio::task::yield_now().await;
                Some((Ok::<_, Infallible>(Bytes::from_static(b"drop\n")), ()))
            });
            warp::Reply::into_response(warp::reply::stream(drops))
        }
        "/events" => {
            let mut response = warp::Reply::into_response(warp::reply::stream(futures::stream::once(async {
                Ok::<_, Infallible>(Bytes::from(text(10_000)))
            })));
            response.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
            response
        }
        _ => of("text/plain", "ok".into()),
    }
}

/// Text of a length, of which no two lines are the same.
fn text(length: usize) -> String {
    let mut text: String = (0..length / 8 + 1).map(|line| format!("{line:07x}\n")).collect();
    text.truncate(length);
    text
}

fn short() -> Duration {
    Duration::from_millis(100)
}

#[test]
fn requests_are_answered_one_after_the_other() {
    let site = Site::new(Limits::default());
    let mut client = site.client();
    for _ in 0..3 {
        let answer = client.get("/");
        assert_eq!((answer.status, answer.text()), (200, "ok"));
    }
    client.send(
        "GET /wait HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\nGET /wait HTTP/1.1\r\nHost: x\r\n\r\n",
    );
    site.wait_for(1);
    assert_eq!(site.client().get("/").status, 200, "others do not wait");
    assert_eq!(*site.backstage.waiting.borrow(), (1, 1), "the next request waits");
    site.backstage.gate.send_replace(true);
    for expected in ["waited", "ok", "waited"] {
        assert_eq!(client.answer().text(), expected);
    }
    let head = client.ask("HEAD", "/text", "");
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("10000"), 0));
    let large = client.get("/large");
    assert!(large.body == site.backstage.large);
}

#[test]
fn a_connection_ends_after_many_requests() {
    let site = Site::new(Limits::default());
    let mut client = site.client();
    let mut sender = client.second();
    let sending = std::thread::spawn(move || {
        for _ in 0..100 {
            sender.send(&"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100));
        }
    });
    for number in 1..=10_000 {
        let answer = client.answer();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("connection"), (number == 10_000).then_some("close"), "{number}");
    }
    assert!(client.is_closed());
    sending.join().unwrap();
}

#[test]
fn what_is_no_request_is_told_so() {
    let site = Site::new(Limits::default());
    let many: String = (0..65).map(|number| format!("x-{number}: 1\r\n")).collect();
    let cases = [
        ("\0\0\0\r\n\r\n".to_owned(), 400, "Not an HTTP/1.1 request"),
        ("\u{16}\u{3}\u{1}\u{2}\0\u{1}\0".to_owned(), 400, "Not an HTTP/1.1 request"),
        ("GET / HTTP/3.0\r\n\r\n".to_owned(), 400, "Not an HTTP/1.1 request"),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n".to_owned(), 400, "Not an HTTP/1.1 request"),
        (
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_owned(),
            400,
            "Not an HTTP/1.1 request",
        ),
        ("POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n".to_owned(), 400, "Not an HTTP/1.1 request"),
        (format!("GET / HTTP/1.1\r\n{many}\r\n"), 431, "Request head too large: at most 64 KiB and 64 fields"),
        (format!("GET / HTTP/1.1\r\nx: {}", "a".repeat(70_000)), 431, "Request head too large"),
        (format!("GET /{}", "a".repeat(1_000_000)), 431, "Request head too large"),
    ];
    for (bytes, status, text) in cases {
        for requests_before in 0..2 {
            let mut client = site.client();
            for _ in 0..requests_before {
                assert_eq!(client.get("/").status, 200);
            }
            client.send(&bytes);
            let answer = client.answer();
            let shown: String = bytes.chars().take(80).collect();
            assert_eq!(answer.status, status, "{shown:?}");
            assert!(answer.text().starts_with(text), "{shown:?}: {}", answer.text());
            assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
            assert_eq!(answer.header("connection"), Some("close"));
            client.finish();
            assert!(client.is_closed(), "{shown:?}");
        }
    }
    // Who speaks HTTP/2 without asking is not understood.
    let mut client = site.client();
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert!(client.is_closed());
    assert_eq!(site.client().get("/").status, 200);
}

#[test]
fn a_panic_is_an_answer() {
    let site = Site::new(Limits::default());
    let mut client = site.client();
    for _ in 0..2 {
        let answer = client.get("/panic");
        assert_eq!((answer.status, answer.text()), (500, "internal error"));
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        assert_eq!(client.get("/").status, 200, "the same connection goes on");
    }
}

#[test]
fn answers_are_compressed_for_those_who_ask() {
    let site = Site::new(Limits::default());
    let mut client = site.client();
    for (path, plain) in [("/text", text(10_000)), ("/long-text", text(1 << 20))] {
        let identity = client.get(path);
        assert_eq!((identity.text(), identity.header("content-encoding")), (plain.as_str(), None));
        assert_eq!(identity.header("vary"), Some("accept-encoding"));
        let length = |answer: &client::Answer| answer.header("content-length").unwrap().parse::<usize>().unwrap();
        let zipped = client.ask("GET", path, "Accept-Encoding: deflate, gzip;q=0.5\r\n");
        assert_eq!(zipped.header("content-encoding"), Some("gzip"));
        assert_eq!(zipped.header("vary"), Some("accept-encoding"));
        assert!(length(&zipped) == zipped.body.len() && zipped.body.len() < plain.len() / 2);
        let mut decoded = String::new();
        std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(zipped.body.as_slice()), &mut decoded).unwrap();
        assert_eq!(decoded, plain);
        let head = client.ask("HEAD", path, "Accept-Encoding: gzip\r\n");
        assert_eq!((head.header("content-encoding"), length(&head)), (Some("gzip"), length(&zipped)));
        for refused in ["gzip;q=0", "br", "identity, gzip;q=0.9"] {
            let answer = client.ask("GET", path, &format!("Accept-Encoding: {refused}\r\n"));
            assert_eq!((answer.header("content-encoding"), answer.text()), (None, plain.as_str()), "{refused}");
        }
    }
    for path in ["/", "/large", "/events"] {
        let answer = client.ask("GET", path, "Accept-Encoding: gzip\r\n");
        assert_eq!(
            (answer.status, answer.header("content-encoding"), answer.header("vary")),
            (200, None, None),
            "{path}"
        );
    }
}
