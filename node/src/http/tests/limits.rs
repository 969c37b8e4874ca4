//! Clients that take more than their part.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{io, thread};

use super::*;
use crate::http::{Acceptor, NO_ROOM, accept};
use hyper_util::service::TowerToHyperService;

#[test]
fn a_head_has_a_deadline_however_it_trickles() {
    let site = Site::with(Times { head: short(), ..Times::default() });
    let mut silent = site.client();
    let mut half = site.client();
    half.send("GET / HTTP/1.1\r\nHost");
    assert!(silent.is_closed() && half.is_closed());
    let mut trickle = site.client();
    trickle.send("GET / HTTP/1.1\r\nx: ");
    until("it is closed although bytes come", || {
        thread::sleep(short() / 10);
        trickle.try_send("a").is_err()
    });
    // The next head has the same time, from its first byte on.
    let mut second = site.client();
    assert_eq!(second.get("/").status, 200);
    second.send("G");
    assert!(second.is_closed());
}

#[test]
fn an_idle_connection_ends() {
    let site = Site::with(Times { idle: short(), ..Times::default() });
    let mut client = site.client();
    assert_eq!(client.get("/").status, 200);
    assert!(client.is_closed());
    // One whose request is under way is not idle.
    let mut waits = site.client();
    waits.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
    site.wait_for(1);
    thread::sleep(3 * short());
    site.backstage.gate.send_replace(true);
    assert_eq!(waits.answer().text(), "waited");
}

#[test]
fn a_client_that_does_not_read_is_closed() {
    for path in ["/large", "/stream"] {
        let times = Times { stall: 2 * short(), ..Times::default() };
        let site = Site::new(Limits { connections: 1, times, ..Limits::default() });
        let mut client = site.client();
        client.send(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        until("its place is free", || site.client().get("/").status == 200);
        drop(client);
    }
}

#[test]
fn one_address_takes_its_part_of_the_connections() {
    let limits = Limits { connections: 5, connections_per_loopback_address: 3, ..Limits::default() };
    let site = Site::new(limits);
    let from = |last| site.runtime.block_on(Client::from([127, 0, 0, last].into(), site.address));
    let mut inside: Vec<_> = [1, 1, 1, 2, 2].map(from).into();
    // One after the other: a connection counts once it is accepted.
    assert!(inside.iter_mut().all(|client| client.get("/").status == 200));
    let of_address = "Too many connections of your address: close some, or use them for several requests";
    let of_all = "Too many connections to this server: try again, and close those that you do not need";
    for (last, text) in [(1, of_address), (3, of_all)] {
        let mut outside = from(last);
        let answer = outside.answer();
        assert_eq!((answer.status, answer.text()), (503, text));
        assert_eq!(
            (answer.header("access-control-allow-origin"), answer.header("retry-after")),
            (Some("*"), Some("1"))
        );
        outside.finish();
        assert!(outside.is_closed());
    }
    inside.remove(4);
    until("its place is free", || from(2).is_served());
    let answer = from(1).answer();
    assert_eq!((answer.status, answer.text()), (503, of_address));

    // A flood is turned away, and disturbs nobody.
    let flood: Vec<_> = (0..300).map(|_| TcpStream::connect(site.address).unwrap()).collect();
    assert!(inside.iter_mut().all(|client| client.get("/").status == 200));
    drop(flood);
    inside.clear();
    until("there is room again", || from(1).is_served());
}

#[test]
fn one_address_takes_its_part_of_the_requests() {
    let site = Site::new(Limits { requests_per_loopback_address: 2, ..Limits::default() });
    let mut waiting = [site.client(), site.client()];
    for client in &mut waiting {
        client.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    site.wait_for(2);
    let mut client = site.client();
    let answer = client.get("/");
    let text = "Too many requests of your address at once: wait for the answers to the others";
    assert_eq!((answer.status, answer.text()), (429, text));
    assert_eq!((answer.header("access-control-allow-origin"), answer.header("retry-after")), (Some("*"), Some("1")));
    let mut other = site.runtime.block_on(Client::from([127, 0, 0, 2].into(), site.address));
    assert_eq!(other.get("/").status, 200);
    site.backstage.gate.send_replace(true);
    assert!(waiting.iter_mut().all(|client| client.answer().status == 200));
    until("there is room again", || client.get("/").status == 200);
}

#[test]
fn a_request_is_under_way_until_its_answer_has_left() {
    let site = Site::new(Limits { requests_per_loopback_address: 1, ..Limits::default() });
    let mut slow = site.client();
    slow.send("GET /large HTTP/1.1\r\nHost: x\r\n\r\n");
    // It reads no further.
    assert_eq!(slow.read(false).unwrap().status, 200);
    let mut client = site.client();
    assert_eq!(client.get("/").status, 429);
    drop(slow);
    until("there is room again", || client.get("/").status == 200);
}

#[test]
fn streams_and_the_requests_of_an_address_do_not_share() {
    let site = Site::new(Limits { requests_per_loopback_address: 1, ..Limits::default() });
    let mut stream = site.client();
    stream.send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    until("the stream has begun", || site.client().get("/").status == 200);
    drop(stream);
}

#[test]
fn large_answers_that_nobody_reads_are_bounded() {
    let site = Site::new(Limits::default());
    let mut slow: Vec<_> = (0..4).map(|_| site.client()).collect();
    for client in &mut slow {
        client.send("GET /large HTTP/1.1\r\nHost: x\r\n\r\n");
        // It reads no further.
        assert_eq!(client.read(false).unwrap().status, 200);
    }
    let mut client = site.client();
    let large = |client: &mut Client| client.ask("HEAD", "/large", "").status;
    assert_eq!(large(&mut client), 503);
    assert_eq!(client.get("/").status, 200, "small answers need none");
    let answer = client.get("/large");
    assert_eq!(
        (answer.text(), answer.header("retry-after")),
        ("Too many large answers are on their way: try again", Some("1"))
    );
    slow.pop();
    until("it is free again", || large(&mut site.client()) == 200);
}

#[test]
fn a_body_that_is_announced_too_long_is_not_awaited() {
    let site = Site::new(Limits { body_bytes: 10, ..Limits::default() });
    let mut client = site.client();
    client.send("POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n0123456789");
    assert_eq!(client.answer().text(), "10");
    let mut sender = client.second();
    // It asks before it sends, and then sends without an answer.
    client.send("POST /body HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2000000\r\n\r\n");
    let sending = thread::spawn(move || sender.try_send(&"0".repeat(2_000_000)));
    let answer = client.answer();
    assert_eq!((answer.status, answer.text()), (413, "Request body too large"));
    assert_eq!((answer.header("connection"), answer.header("access-control-allow-origin")), (Some("close"), Some("*")));
    sending.join().unwrap().expect("it may send a while, so that it hears of the answer");
    client.finish();
    assert!(client.is_closed());
}

#[test]
fn a_client_that_sends_on_after_the_answer_is_closed() {
    let site = Site::new(Limits { body_bytes: 10, ..Limits::default() });
    let mut client = site.client();
    client.send("POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551613\r\n\r\n");
    let mut sender = client.second();
    let sending = thread::spawn(move || while sender.try_send(&"0".repeat(100_000)).is_ok() {});
    assert_eq!(client.answer().status, 413);
    sending.join().unwrap();

    let site =
        Site::new(Limits { body_bytes: 10, times: Times { linger: short(), ..Times::default() }, ..Limits::default() });
    let mut client = site.client();
    client.send("POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n");
    assert_eq!(client.answer().status, 413);
    let mut sender = client.second();
    until("it is closed although nothing comes", || {
        thread::sleep(short() / 10);
        sender.try_send("0").is_err()
    });
}

#[test]
fn bodies_in_chunks_are_bounded_in_what_is_no_body() {
    let site = Site::new(Limits::default());
    let begin = "POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut client = site.client();
    client.send(&format!("{begin}5;name=value\r\n01234\r\n0\r\nTrailer: x\r\n\r\n"));
    assert_eq!(client.answer().text(), "5");
    let endless = [format!("5;{}", "a".repeat(100_000)), "1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n0\r\n".repeat(3_000)];
    for body in endless.into_iter().chain([format!("0\r\n{}", "x: y\r\n".repeat(30_000))]) {
        let mut client = site.client();
        client.send(&format!("{begin}{body}"));
        let answer = client.read(true);
        assert!(answer.is_err() || answer.is_ok_and(|it| it.text() == "cut off"), "{:.40}", body);
    }
    assert_eq!(site.client().get("/").status, 200);
}

/// A listener that fails some times.
struct Failing {
    listener: TcpListener,
    failures: AtomicUsize,
    kind: Failure,
}

type Failure = fn() -> io::Error;

impl Acceptor for Failing {
    async fn accept(&self) -> io::Result<(tokio::net::TcpStream, SocketAddr)> {
        match self.failures.load(Ordering::SeqCst) {
            0 => self.listener.accept().await,
            left => {
                self.failures.store(left - 1, Ordering::SeqCst);
                Err((self.kind)())
            }
        }
    }
}

#[test]
fn accepting_goes_on_after_failures() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    // EMFILE of Linux.
    let cases: [(Failure, usize); 2] =
        [(|| io::Error::from_raw_os_error(24), 3), (|| io::ErrorKind::ConnectionAborted.into(), 1_000)];
    for (kind, failures) in cases {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = watch::Sender::new(false);
        let failing = Failing { listener, failures: AtomicUsize::new(failures), kind };
        let filter = warp::any().and(warp::path::end()).map(|| "ok");
        let service = TowerToHyperService::new(warp::service(filter));
        let start = Instant::now();
        let server = runtime.spawn(accept(failing, service, Limits::default(), Arc::new(Plain), stop.subscribe()));
        assert_eq!(Client::new(address).get("/").text(), "ok");
        if failures == 3 {
            assert!(start.elapsed() >= 3 * NO_ROOM, "it does not spin");
        }
        stop.send_replace(true);
        runtime.block_on(async { tokio::time::timeout(PATIENCE, server).await }).expect("it ends").unwrap();
    }
}
