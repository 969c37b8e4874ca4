//! Bytes and clients that nobody should have to trust.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use causeway_consensus::ChainView;
use causeway_consensus::state::Index;

use super::site::{Seen, Site};
use crate::rest::server::Times;

/// Sends bytes, and returns what comes back until the server closes.
pub(super) fn send(site: &Site, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(site.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    // The server may close before it has read everything.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no answer: {answer:?}"))
}

#[test]
fn odd_requests_do_no_harm() {
    let site = Site::new();
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "a".repeat(60_000));
    let requests: [&[u8]; 8] = [
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET a:1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET http://other/blocks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /blocks HTTP/1.0\r\n\r\n",
        b"\x00\x01\x02\r\n\r\n",
        b"POST /tx HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n00000",
        long.as_bytes(),
    ];
    for request in requests {
        let code = status(&send(&site, request));
        assert!(code < 500, "{}", String::from_utf8_lossy(request));
    }
    // A body that ends early gets no answer at all, or one.
    let mut stream = TcpStream::connect(site.address).unwrap();
    stream.write_all(b"POST /tx HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n00").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(!String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 5"));
    assert_eq!(site.get("/blocks/tip/height").text(), "102");
}

#[test]
fn pages_of_any_origin_may_ask() {
    let site = Site::new();
    for path in ["/tx", "/api/tx", "/nothing"] {
        let seen = Seen::of(
            minreq::options(site.url(path))
                .with_header("Origin", "https://wallet.example")
                .with_header("Access-Control-Request-Method", "POST")
                .with_header("Access-Control-Request-Headers", "content-type"),
        );
        assert_eq!((seen.status, seen.text()), (200, ""));
        assert_eq!(seen.headers["access-control-allow-origin"], "*");
        assert!(seen.headers["access-control-allow-methods"].contains("POST"));
        assert_eq!(seen.headers["access-control-allow-headers"], "*");
    }
    let head = Seen::of(minreq::head(site.url("/blocks/tip/height")));
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.headers["content-length"], "3");
}

#[test]
fn more_requests_than_there_is_room_for_are_turned_away() {
    let site = Site::new();
    site.node.talks.send_replace(false);
    let ask = b"GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let mut waiting: Vec<TcpStream> = Vec::new();
    for _ in 0..256 {
        let mut stream = TcpStream::connect(site.address).unwrap();
        stream.write_all(ask).unwrap();
        waiting.push(stream);
    }
    let mut asked = site.node.asked.subscribe();
    let all = async { tokio::time::timeout(Duration::from_secs(20), asked.wait_for(|asked| *asked == 256)).await };
    site.runtime.block_on(async { all.await.map(drop) }).expect("all of them are in");
    let seen = site.get("/blocks/tip/height");
    assert_eq!((seen.status, seen.text()), (503, "Too many requests at once: try again"));
    assert_eq!(seen.headers["retry-after"], "1");
    assert_eq!(seen.headers["access-control-allow-origin"], "*");

    site.node.talks.send_replace(true);
    for mut stream in waiting {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert_eq!(site.get("/blocks/tip/height").status, 200);
}

#[test]
fn nobody_waits_for_ever() {
    let times = Times { body: Duration::from_millis(100), answer: Duration::from_millis(300), ..Times::default() };
    let site = Site::with(times, Index::All);
    let mut stream = TcpStream::connect(site.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(b"POST /tx HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n00").unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"HTTP/1.1 408");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("the connection ends, although the body does not");
    assert!(rest.to_lowercase().contains("access-control-allow-origin: *"), "{rest}");

    site.node.talks.send_replace(false);
    assert_eq!(site.get("/v1/status").problem(), (503, "too_late".to_owned()));
    let seen = site.get("/health");
    assert_eq!((seen.status, seen.text()), (503, "The answer took too long: try again"));
    assert_eq!(site.get("/blocks/tip/height").status, 200);
}

#[test]
fn slow_senders_keep_only_large_senders_waiting() {
    let site = Site::new();
    let large = "0".repeat(20_000);
    let begun = format!("POST /tx HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{large}");
    let mut slow: Vec<TcpStream> = Vec::new();
    for _ in 0..64 {
        let mut stream = TcpStream::connect(site.address).unwrap();
        stream.write_all(begun.as_bytes()).unwrap();
        slow.push(stream);
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while site.post("/tx", large.as_str()).status != 503 {
        assert!(Instant::now() < deadline, "there is room for all of them");
    }
    assert_eq!(site.get("/blocks/tip/height").status, 200);
    assert_eq!(site.post("/tx", "00").status, 400, "a small body finds room");
    drop(slow);
    while site.post("/tx", large.as_str()).status != 400 {
        assert!(Instant::now() < deadline, "there is no room although they have gone");
    }
}

#[test]
fn bodies_in_chunks_have_the_same_limit() {
    let site = Site::new();
    let begin = "POST /tx HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    // 1,000,000 bytes are read, and are no transaction.
    let chunk = format!("186a0\r\n{}\r\n", "z".repeat(100_000));
    let whole = format!("{begin}{}0\r\n\r\n", chunk.repeat(10)).replace("HTTP/1.1", "HTTP/1.1\r\nConnection: close");
    let answer = send(&site, whole.as_bytes());
    assert!(status(&answer) == 400 && answer.contains("TX decode failed"), "{answer}");

    // One more is not, nor is what comes after it: the server answers and closes while the client goes on.
    let mut stream = TcpStream::connect(site.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(format!("{begin}{}1\r\nz\r\n", chunk.repeat(10)).as_bytes()).unwrap();
    let mut sender = stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || while sender.write_all(chunk.as_bytes()).is_ok() {});
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).to_lowercase();
    assert!(status(&answer) == 413 && answer.ends_with("request body too large"), "{answer}");
    assert!(answer.contains("connection: close") && answer.contains("access-control-allow-origin: *"), "{answer}");
    sending.join().unwrap();

    // What is around the chunks is bounded too.
    for endless in [format!("1;{}", "a".repeat(100_000)), "1;aaaaaaaaaaaaaaaaaaaa\r\n0\r\n".repeat(10_000)] {
        let answer = send(&site, format!("{begin}{endless}").as_bytes());
        assert!(answer.is_empty() || status(&answer) == 400, "{answer}");
    }
    assert_eq!(site.get("/blocks/tip/height").status, 200);
}

#[test]
fn a_length_that_lies_is_not_believed() {
    let site = Site::new();
    // Longer than what comes: the client is asked no more than it has.
    let announced = |length: &str| format!("POST /tx HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n00");
    for (length, code) in [("1000001", 413), ("18446744073709551613", 413), ("99999999999999999999", 400)] {
        let answer = send(&site, announced(length).as_bytes());
        assert_eq!(status(&answer), code, "{answer}");
        assert!(answer.to_lowercase().contains("access-control-allow-origin: *"), "{answer}");
    }
    // Shorter: what is left over is the next request, and no good one.
    let answers = send(&site, &[announced("1").as_bytes(), b"\r\n\r\n"].concat());
    assert!(answers.contains("TX decode failed") && answers.ends_with("Not an HTTP/1.1 request"), "{answers}");
}

#[test]
fn compressed_answers_say_the_same() {
    let site = Site::new();
    let identity = site.get("/blocks");
    assert!(identity.body.len() >= 1_024 && !identity.headers.contains_key("content-encoding"));
    let zipped = Seen::of(minreq::get(site.url("/blocks")).with_header("Accept-Encoding", "gzip, br"));
    assert_eq!((zipped.status, zipped.headers["content-encoding"].as_str()), (200, "gzip"));
    assert!(zipped.body.len() < identity.body.len());
    let mut decoded = Vec::new();
    flate2::read::GzDecoder::new(zipped.body.as_slice()).read_to_end(&mut decoded).unwrap();
    assert_eq!(decoded, identity.body);
    for (name, value) in &zipped.headers {
        let own = ["content-encoding", "content-length", "date"].contains(&name.as_str());
        assert!(own || identity.headers.get(name) == Some(value), "{name}");
    }
    let block = format!("/block/{}/raw", site.store.tip().hash());
    let raw = Seen::of(minreq::get(site.url(&block)).with_header("Accept-Encoding", "gzip"));
    assert!(raw.status == 200 && !raw.headers.contains_key("content-encoding") && !raw.headers.contains_key("vary"));
}
