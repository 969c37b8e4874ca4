//! The client against servers that a test writes out, byte for byte.

use std::io::Write as _;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};

use super::*;

const SHORT: Bounds = Bounds::within(1_000, 5);

/// Gives every connection these bytes, and tells what was asked last. If they end with dots, these stand for silence.
fn serve(address: &str, answer: &'static [u8]) -> Option<(SocketAddr, std::sync::mpsc::Receiver<String>)> {
    let listener = TcpListener::bind(address).ok()?;
    let address = listener.local_addr().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                head.push(byte[0]);
            }
            // A connection that is closed over unread bytes is reset.
            let mut body = vec![0; if head.starts_with(b"POST") { 4 } else { 0 }];
            let _ = stream.read_exact(&mut body);
            let said = answer.strip_suffix(b"...");
            let _ = stream.write_all(said.unwrap_or(answer));
            if tell.send(String::from_utf8(head).unwrap()).is_err() {
                return;
            }
            if said.is_some() {
                std::thread::sleep(Duration::from_secs(20));
            }
        }
    });
    Some((address, told))
}

fn at(address: SocketAddr) -> BaseUrl {
    format!("http://{address}").parse().unwrap()
}

#[test]
fn a_url_names_a_host_of_any_kind() {
    for (text, shown, is_loopback) in [
        ("http://127.0.0.1:29380", "http://127.0.0.1:29380", true),
        ("http://127.0.0.1", "http://127.0.0.1:80", true),
        ("http://127.9.9.9:1/", "http://127.9.9.9:1", true),
        ("  http://localhost:3000/api/\n", "http://localhost:3000/api", true),
        ("HTTP://LocalHost:3000", "http://localhost:3000", true),
        ("http://[::1]:3000", "http://[::1]:3000", true),
        ("http://[::1]", "http://[::1]:80", true),
        ("http://[0:0:0:0:0:0:0:1]:3000//", "http://[::1]:3000", true),
        ("http://[2001:db8::7]:3000/api", "http://[2001:db8::7]:3000/api", false),
        ("http://10.0.0.1:1", "http://10.0.0.1:1", false),
        ("http://node-1.example.org", "http://node-1.example.org:80", false),
        ("http://localhost.example.org", "http://localhost.example.org:80", false),
    ] {
        let url: BaseUrl = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!((url.to_string().as_str(), url.is_loopback()), (shown, is_loopback), "{text}");
        assert_eq!(url.to_string().parse(), Ok(url), "{text}");
    }
    for text in [
        "",
        "http://",
        "http:///api",
        "http://:80",
        "127.0.0.1:29380",
        "ftp://localhost",
        "http://::1:3000",
        "http://::1",
        "http://[::1",
        "http://[::1]x:1",
        "http://[fe80::1%eth0]:1",
        "http://[fe80::1%3]:1",
        "http://[127.0.0.1]:1",
        "http://127.0.0.1:",
        "http://127.0.0.1:0",
        "http://127.0.0.1:65536",
        "http://127.0.0.1:+1",
        "http://127.1:80",
        "http://local host",
        "http://localhost/a b",
        "http://localhost/?x",
        "http://localhost?x",
        "http://localhost/#x",
        "http://localhost\r\nX: y",
        "http://xn--\u{e9}",
    ] {
        assert_eq!(text.parse::<BaseUrl>(), Err(BaseUrlError::Form), "{text:?}");
    }
    for text in ["http://u@localhost", "http://u:p@127.0.0.1:80/", "http://127.0.0.1:80@example.org"] {
        assert_eq!(text.parse::<BaseUrl>(), Err(BaseUrlError::User), "{text}");
    }
    assert_eq!("https://127.0.0.1".parse::<BaseUrl>(), Err(BaseUrlError::Tls));
}

#[test]
fn an_answer_is_read_in_every_form_of_its_body() {
    let forms: [&'static [u8]; 3] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
    ];
    for form in forms {
        let (address, told) = serve("127.0.0.1:0", form).unwrap();
        let answer = at(address).get("/x?y=z", SHORT).unwrap();
        assert_eq!((answer.status(), answer.bytes().unwrap()), (200, b"hello".to_vec()));
        let asked = told.recv().unwrap();
        assert!(asked.starts_with("GET /x?y=z HTTP/1.1\r\n"), "{asked}");
        assert!(asked.to_lowercase().contains(&format!("host: {address}\r\n")), "{asked}");
        let mut answer = at(address).post("/tx", "text/plain", "body", SHORT).unwrap();
        let mut text = String::new();
        answer.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        let asked = told.recv().unwrap().to_lowercase();
        assert!(asked.contains("content-length: 4\r\n") && asked.contains("content-type: text/plain\r\n"), "{asked}");
    }
}

#[test]
fn a_server_at_an_ipv6_address_is_asked() {
    // Some machines have no IPv6.
    let Some((address, told)) = serve("[::1]:0", b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n") else { return };
    assert_eq!(address.ip(), Ipv6Addr::LOCALHOST);
    let url: BaseUrl = format!("http://{address}/api/").parse().unwrap();
    assert_eq!(url.get("/x", SHORT).unwrap().status(), 404);
    let asked = told.recv().unwrap();
    assert!(asked.starts_with("GET /api/x HTTP/1.1\r\n") && asked.contains(&address.to_string()), "{asked}");
}

#[test]
fn nobody_is_followed_elsewhere() {
    let (trap, seen) = serve("127.0.0.1:0", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    let answer = format!("HTTP/1.1 302 X\r\nLocation: http://{trap}/\r\nContent-Length: 0\r\n\r\n").into_bytes();
    let (address, _told) = serve("127.0.0.1:0", Box::leak(answer.into_boxed_slice())).unwrap();
    assert_eq!(at(address).get("/", SHORT).unwrap().status(), 302);
    assert!(seen.try_recv().is_err());
}

#[test]
fn an_answer_ends_at_its_bounds() {
    let of = |answer: &'static [u8], bounds: Bounds| {
        let (address, _told) = serve("127.0.0.1:0", answer).unwrap();
        at(address).get("/", bounds).and_then(Answer::bytes)
    };
    let within = |bytes| Bounds::within(bytes, 5);
    let five = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(of(five, within(5)).unwrap(), b"hello");
    assert!(matches!(of(five, within(4)), Err(AskError::TooLarge { max: 4 })));
    let short = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello";
    assert!(matches!(of(short, within(9)), Err(AskError::Broken(_))));
    assert!(matches!(of(b"\x16\x03\x01 something else", within(9)), Err(AskError::Broken(_))));
    assert!(matches!(of(b"", within(9)), Err(AskError::Broken(_))));
    let head =
        [b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &vec![b'x'; 1_000_000], b"\r\nContent-Length: 0\r\n\r\n"].concat();
    assert!(matches!(of(Box::leak(head.into_boxed_slice()), within(9)), Err(AskError::Broken(_))));
    let second = Bounds::within(1_000, 1);
    for silent in [b"...".as_slice(), b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nand then..."] {
        let started = Instant::now();
        assert!(matches!(of(silent, second), Err(AskError::Late(_))));
        assert!(started.elapsed() < Duration::from_secs(10));
    }
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(matches!(at(closed).get("/", SHORT), Err(AskError::Connect(_))));
}
