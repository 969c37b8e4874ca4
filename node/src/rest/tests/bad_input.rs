//! Every endpoint of the list with everything that nobody should send: the contract's error, whatever it is.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};
use serde_json::{Value, json};
use warp::http::{Method, Uri};

use super::examples::{bad_values, claim, real, real_parameter, real_place};
use super::peg::{DEPOSIT, DESTINATION, REFUND_KEY};
use super::site::{Site, payment};
use crate::rest::problem::Code;
use crate::rest::routes::{Endpoint, Verb, endpoints};

/// What an answer that does not end says of itself.
pub(super) const STREAM: &str = "text/event-stream";

/// An answer to bytes.
struct Answered {
    /// Whether they are HTTP. What is not is refused before anything of ours sees it.
    is_http: bool,
    status: u16,
    head: String,
    body: String,
}

/// Asks in raw bytes: what a client would never write is the point.
fn ask(site: &Site, method: &str, target: &str, body: &[u8]) -> Answered {
    let head =
        format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    let answer = exchange(site, &[head.as_bytes(), body].concat());
    let (head, body) =
        answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer to {}", shown(method, target)));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let is_http = target.parse::<Uri>().is_ok() && target.bytes().all(|byte| byte > b' ' && byte != 0x7f);
    Answered { is_http, status, head: head.to_lowercase(), body: body.to_owned() }
}

/// Sends bytes, and returns what comes back until the server closes; of a stream, how it begins.
fn exchange(site: &Site, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(site.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let mut chunk = [0; 8_192];
    while let Ok(length @ 1..) = stream.read(&mut chunk) {
        answer.extend_from_slice(&chunk[..length]);
        let text = String::from_utf8_lossy(&answer);
        if text.split_once("\r\n\r\n").is_some_and(|(head, _)| head.contains(STREAM)) {
            break;
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn shown(method: &str, target: &str) -> String {
    format!("{method} {}", target.chars().take(200).collect::<String>())
}

/// Checks that an answer is one that the contract has. `of` is the endpoint, if the request is one for it.
fn check(answered: &Answered, of: Option<&Endpoint>, is_ours: bool, what: &str) {
    let Answered { is_http, status, head, body } = answered;
    if !is_http {
        return assert_eq!(*status, 400, "{what}");
    }
    assert!(head.contains("access-control-allow-origin: *"), "{what}: {head}");
    assert!(*status < 500 || *status == 501, "{what}: {status} {body}");
    if *status == 200 {
        return assert!(of.is_some(), "{what}: answered {body}");
    }
    let of_body = of.filter(|endpoint| endpoint.body.is_some()).map_or(&[][..], |_| Endpoint::OF_BODY);
    let refusals = of.map_or(&[][..], |endpoint| endpoint.refusals);
    let may = || refusals.iter().chain(of_body).chain(&[Code::UnknownPath]);
    if !is_ours {
        assert!(head.contains("content-type: text/plain"), "{what}: {head}");
        return assert!(may().any(|code| code.status().as_u16() == *status), "{what}: {status} {body}");
    }
    assert!(head.contains("content-type: application/json"), "{what}: {head}");
    let problem: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{what}: {error}: {body}"));
    let code = may().find(|code| code.text() == problem["code"]);
    let code = code.unwrap_or_else(|| panic!("{what}: the document does not tell of {status} {body}"));
    assert_eq!(code.status().as_u16(), *status, "{what}: {body}");
    assert_eq!((&problem["hint"], problem["message"].is_string()), (&json!(code.hint()), true), "{what}: {body}");
}

/// The endpoint that a path without a query is for.
fn meant(method: &str, path: &str) -> Option<&'static Endpoint> {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let segments: Vec<&str> = path.strip_suffix('/').unwrap_or(path).split('/').skip(1).collect();
    endpoints().find(|endpoint| endpoint.matches(&method, &segments, "").is_some())
}

fn site() -> Site {
    super::peg::site().0
}

fn methods(endpoint: &Endpoint) -> (&'static str, &'static str) {
    match endpoint.verb {
        Verb::Get => ("GET", "POST"),
        Verb::Post => ("POST", "GET"),
    }
}

#[test]
fn bad_values_in_every_place_of_every_path() {
    let site = site();
    for endpoint in endpoints() {
        let real = real(&site, endpoint);
        let (method, _) = methods(endpoint);
        for place in endpoint.places() {
            for value in bad_values() {
                let forms = endpoint.path.split('/').skip(1).map(|form| {
                    let name = form.strip_prefix('{').and_then(|form| form.strip_suffix('}'));
                    match name {
                        Some(name) if name == place => value.clone(),
                        Some(name) => real_place(&site, name),
                        None => form.to_owned(),
                    }
                });
                let path: String = forms.map(|segment| format!("/{segment}")).collect();
                let answered = ask(&site, method, &path, real.body.as_bytes());
                check(&answered, meant(method, &path), endpoint.is_ours(), &shown(method, &path));
            }
        }
    }
    assert_eq!(site.get("/blocks/tip/height").text(), "102", "it works as before");
}

#[test]
fn bad_values_in_every_parameter_of_every_query() {
    let site = site();
    for endpoint in endpoints() {
        let real = real(&site, endpoint);
        let (method, _) = methods(endpoint);
        let mut queries = vec!["".to_owned(), "&&&".to_owned(), "=".to_owned(), "x=1".to_owned(), "%ff=%ff".to_owned()];
        queries.extend(["?".to_owned(), "a".repeat(10_000), "a=1&".repeat(2_000), "%00".to_owned(), "é=é".to_owned()]);
        for parameter in endpoint.query {
            let name = parameter.name;
            let value = real_parameter(&site, name);
            queries.extend(bad_values().iter().map(|value| format!("{name}={value}")));
            queries.extend([
                name.to_owned(),
                format!("{name}={value}&{name}={value}"),
                format!("{name}=x&{name}={value}"),
                format!("{name}={value}&x=1"),
                format!("{}={value}", name.to_uppercase()),
                format!("%{:x}{}={value}", name.as_bytes()[0], &name[1..]),
                format!("{name}[]={value}"),
                format!("&{name}={value}&"),
            ]);
        }
        for query in queries {
            let target = format!("{}?{query}", real.path);
            let answered = ask(&site, method, &target, real.body.as_bytes());
            check(&answered, Some(endpoint), endpoint.is_ours(), &shown(method, &target));
        }
    }
}

#[test]
fn bad_bodies_for_everything_that_takes_one() {
    let site = site();
    let deep = "[".repeat(200_000);
    let hash = "11".repeat(32);
    let texts = [
        "",
        " ",
        "x",
        "null",
        "true",
        "0",
        "-1",
        "1e999",
        "\"\"",
        "[]",
        "{}",
        "[[]]",
        "[null]",
        "[1]",
        "[\"\"]",
        "{\"x\":1}",
        "{\"\":{}}",
        "\u{feff}{}",
        "{\"destination\":",
        "{\"destination\":1,\"refund_key\":[]}",
        "{\"destination\":null,\"refund_key\":null}",
        "{\"destination\":\"\",\"refund_key\":\"\"}",
        "{\"destination\":\"x\",\"destination\":\"x\",\"refund_key\":\"x\"}",
        "{\"encoded\":\"\"}",
        "{\"encoded\":\"zz\"}",
        "{\"encoded\":\"0\"}",
        "{\"encoded\":1}",
        "{\"epoch\":-1}",
        "{\"epoch\":4294967296}",
        "{\"vout\":1e3}",
        "{\"txid\":\"x\"}",
        "\\u0000",
        "\u{0}",
        "00",
        "0x00",
        "zz",
        "%30%30",
        "é",
        "٣",
    ];
    let mut bodies: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    bodies.extend([
        deep.clone().into_bytes(),
        "{\"a\":".repeat(100_000).into_bytes(),
        format!("{{\"encoded\":{deep}").into_bytes(),
        vec![0xff; 100],
        vec![0; 100_000],
        b"0".repeat(999_999),
        b"f".repeat(1_000_000),
        b"0".repeat(1_000_001),
        format!("[\"{}\"]", "0".repeat(999_990)).into_bytes(),
        json!(vec!["00".repeat(60); 26]).to_string().into_bytes(),
        json!(["00".repeat(59), "zz".repeat(60), "00".repeat(399_999)]).to_string().into_bytes(),
        json!({"destination": DESTINATION, "refund_key": REFUND_KEY, "x": 1}).to_string().into_bytes(),
        json!({"destination": DESTINATION, "refund_key": "00".repeat(32)}).to_string().into_bytes(),
        json!({"destination": "a".repeat(100_000), "refund_key": REFUND_KEY}).to_string().into_bytes(),
        json!({"encoded": "00".repeat(100_000)}).to_string().into_bytes(),
        json!({"encoded": "ff".repeat(1_000)}).to_string().into_bytes(),
        json!({"encoded": format!("{}00", claim(&site))}).to_string().into_bytes(),
        json!({"destination": DESTINATION, "refund_key": REFUND_KEY, "txid": hash, "vout": 0, "block": hash,
            "epoch": 4_294_967_295_u32})
        .to_string()
        .into_bytes(),
        json!({"destination": DESTINATION, "refund_key": REFUND_KEY, "txid": hash, "vout": 0, "block": hash})
            .to_string()
            .into_bytes(),
    ]);
    let taking: Vec<&Endpoint> = endpoints().filter(|endpoint| endpoint.body.is_some()).collect();
    assert_eq!(taking.len(), 4);
    for endpoint in taking {
        for body in &bodies {
            let what = format!("POST {}: {}", endpoint.path, String::from_utf8_lossy(&body[..body.len().min(100)]));
            let answered = ask(&site, "POST", endpoint.path, body);
            assert_ne!(answered.status, 200, "{what}");
            check(&answered, Some(endpoint), endpoint.is_ours(), &what);
            if body.len() > 1_000_000 {
                assert_eq!(answered.status, 413, "{what}");
            }
        }
    }
}

#[test]
fn wrong_methods_are_for_nothing() {
    let site = site();
    for endpoint in endpoints() {
        let real = real(&site, endpoint);
        let (right, other) = methods(endpoint);
        for method in [other, "PUT", "DELETE", "PATCH", "BREW", "get"] {
            // Some paths take both, or have the form of another.
            let of = meant(method, &real.path);
            let answered = ask(&site, method, &real.path, b"");
            let what = shown(method, &real.path);
            check(&answered, of, endpoint.is_ours(), &what);
            assert!(answered.status == 404 || of.is_some(), "{what}: {}", answered.body);
        }
        let preflight = ask(&site, "OPTIONS", &real.path, b"");
        assert_eq!((preflight.status, preflight.body.as_str()), (200, ""), "{right}");
    }
}

#[test]
fn what_is_no_value_of_its_place_is_named() {
    let site = site();
    let hash = "11".repeat(32);
    // By the name of the place: what is malformed, and what is well formed and unknown.
    for endpoint in endpoints().filter(|endpoint| endpoint.verb == Verb::Get) {
        let first = endpoint.places().next();
        let (malformed, unknown) = match first {
            Some("height" | "number") => (Some(Code::InvalidNumber), Some("4000000000".to_owned())),
            Some("hash" | "txid") => (Some(Code::InvalidHex), Some(hash.clone())),
            Some("block") => (Some(Code::InvalidNumber), Some(hash.clone())),
            Some("deposit" | "request") => (Some(Code::InvalidOutpoint), Some(format!("{hash}:7"))),
            Some("address") => (Some(Code::InvalidAddress), None),
            Some("scripthash") => (Some(Code::InvalidScriptHash), None),
            Some("bitcoin_address") if endpoint.path.contains("peg-out") => (Some(Code::InvalidPegOutAddress), None),
            Some("bitcoin_address") => (Some(Code::InvalidBitcoinAddress), None),
            _ => (None, None),
        };
        let at = |value: &str| {
            let mut places = endpoint.places().map(|name| real_place(&site, name)).collect::<Vec<_>>();
            places[0] = value.to_owned();
            let mut path = endpoint.path.to_owned();
            for (name, value) in endpoint.places().zip(places) {
                path = path.replace(&format!("{{{name}}}"), &value);
            }
            site.get(&path)
        };
        if let Some(code) = malformed {
            let seen = at("x");
            assert_eq!(seen.status, i32::from(code.status().as_u16()), "{}", endpoint.path);
            if endpoint.is_ours() {
                assert_eq!(seen.problem().1, code.text(), "{}", endpoint.path);
            }
        }
        if let Some(value) = unknown {
            // Esplora's clients rely on the 200 of these three.
            let lenient = ["/block/{hash}/status", "/tx/{txid}/status", "/tx/{txid}/outspend/{vout}"];
            let expected = if lenient.contains(&endpoint.path) { 200 } else { 404 };
            assert_eq!(at(&value).status, expected, "{}", endpoint.path);
        }
    }
    for (path, code) in [
        ("/v1/peg-ins?since=x", Code::InvalidNumber),
        ("/v1/peg-ins?since=", Code::InvalidNumber),
        ("/v1/peg-ins?since", Code::InvalidNumber),
        ("/v1/peg-ins?since=1&since=1", Code::InvalidParameter),
        ("/v1/peg-ins?sinc=1", Code::InvalidParameter),
        ("/v1/batches?state=closed", Code::InvalidParameter),
        ("/v1/batches?state=open&state=open", Code::InvalidParameter),
        ("/v1/batches?state", Code::InvalidParameter),
    ] {
        assert_eq!(site.get(path).problem(), (400, code.text().to_owned()), "{path}");
    }
    let escaped = DEPOSIT.replace(':', "%3A");
    assert_eq!(site.get(&format!("/v1/peg-in/{escaped}")).json(), site.get(&format!("/v1/peg-in/{DEPOSIT}")).json());
}

#[test]
fn requests_by_chance() {
    let mut site = site();
    site.commit(vec![payment(site.coin(0))]);
    let all: Vec<&Endpoint> = endpoints().collect();
    let reals: Vec<String> = ["hash", "txid", "scripthash", "address", "height", "deposit"]
        .iter()
        .map(|place| real_place(&site, place))
        .collect();
    let value = prop_oneof![
        prop::sample::select(reals),
        prop::sample::select(bad_values()),
        "[0-9a-f]{64}",
        "[0-9a-f]{64}:[0-9]{1,12}",
        "[0-9a-fA-F]{0,130}",
        "[ -~]{0,20}",
        "\\PC{0,10}",
        "(%[0-9a-f]{2}){1,8}",
    ];
    let word = "[a-z0-9/{}-]{0,12}";
    let method = prop::sample::select(vec!["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"]);
    let body = prop_oneof![Just(Vec::new()), "[0-9a-f]{0,200}".prop_map(String::into_bytes), any::<Vec<u8>>()];
    let values = prop::collection::vec(value.clone(), 2);
    let prefix = prop::sample::select(vec!["", "/api", "/api/api", "/v1", "//", "/%61pi"]);
    let query = prop_oneof![Just(String::new()), (word, value).prop_map(|(name, value)| format!("?{name}={value}"))];
    let answered_by_us = Cell::new(0);
    let mut runner = TestRunner::new(Cases { cases: 1_500, failure_persistence: None, ..Cases::default() });
    runner
        .run(&(method, 0..all.len(), prefix, values, query, word, body), |case| {
            let (method, endpoint, prefix, values, query, tail, body) = case;
            let mut path = all[endpoint].path.to_owned();
            for (name, value) in all[endpoint].places().zip(&values) {
                path = path.replace(&format!("{{{name}}}"), value);
            }
            let target = format!("{prefix}{path}{}{query}", if tail.len() > 6 { tail.as_str() } else { "" });
            let answered = ask(&site, method, &target, &body);
            prop_assert!(answered.status < 500 || answered.status == 501, "{method} {target:?}: {}", answered.body);
            let by_us = answered.head.contains("access-control-allow-origin: *");
            prop_assert!(by_us || !answered.is_http, "{method} {target:?}");
            answered_by_us.set(answered_by_us.get() + usize::from(by_us));
            Ok(())
        })
        .unwrap();
    assert!(answered_by_us.get() > 1_000, "most of them reach the server: {}", answered_by_us.get());
    assert_eq!(site.get("/blocks/tip/height").text(), "103", "it works as before");
}
