//! The end of the server.

use std::net::TcpStream;

use super::*;

#[test]
fn idle_connections_end_at_once_and_requests_under_way_are_answered() {
    // Nothing but the stop can end them in time.
    let day = Duration::from_secs(86_400);
    let mut site = Site::with(Times { head: day, idle: day, stall: day, linger: day, grace: day });
    let (mut silent, mut idle, mut half, mut waits) = (site.client(), site.client(), site.client(), site.client());
    assert_eq!(idle.get("/").status, 200);
    half.send("GET / HT");
    waits.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
    site.wait_for(1);
    // All of them are accepted: in the order of their connecting.
    assert_eq!(site.client().get("/").status, 200);
    site.stop.send_replace(true);
    assert!(silent.is_closed() && idle.is_closed() && half.is_closed());
    until("nobody listens any more", || TcpStream::connect(site.address).is_err());
    assert!(!site.server.is_finished(), "a request is under way");
    site.backstage.gate.send_replace(true);
    assert_eq!(waits.answer().text(), "waited");
    assert!(waits.is_closed());
    site.ended();
}

#[test]
fn it_ends_although_clients_do_not_read_or_wait_for_ever() {
    let mut site = Site::with(Times { grace: 3 * short(), ..Times::default() });
    let asked = ["/wait", "/large", "/stream"].map(|path| {
        let mut client = site.client();
        client.send(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        client
    });
    site.wait_for(1);
    let start = Instant::now();
    site.stop.send_replace(true);
    site.ended();
    assert!(start.elapsed() >= 3 * short(), "they have the time that they are given");
    for mut client in asked {
        until("it is closed", || client.read(true).is_err());
    }
}

#[test]
fn a_sender_that_is_gone_ends_it_too() {
    let mut site = Site::new(Limits::default());
    let (gone, _) = watch::channel(true);
    assert_eq!(site.client().get("/").status, 200);
    drop(std::mem::replace(&mut site.stop, gone));
    site.ended();
}
