//! The OpenAPI document: all of the endpoints, nothing else, and what they really answer.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::hashes::{Hash, sha256};
use boon::{Compiler, SchemaIndex, Schemas};
use causeway_consensus::ChainView;
use causeway_consensus::peg::propose::Candidates;
use serde_json::{Value, json};
use warp::http::Method;

use super::bad_input::STREAM;
use super::examples::real;
use super::peg::DESTINATION;
use super::site::{Seen, Site, payment, spec};
use crate::rest::openapi::document;
use crate::rest::problem::Code;
use crate::rest::routes::{Endpoint, Place, Verb, endpoints, route};
use crate::testing::free_script;

/// Where the document stands for whoever resolves its references.
const URL: &str = "http://localhost/openapi.json";

/// The document's schemas, ready to check with.
struct Checker {
    document: Value,
    schemas: Schemas,
    compiler: Compiler,
}

impl Checker {
    fn new() -> Self {
        let document = document();
        let mut compiler = Compiler::new();
        compiler.add_resource(URL, document.clone()).unwrap();
        Self { document, schemas: Schemas::new(), compiler }
    }

    /// The schema at a place of the document.
    fn schema(&mut self, place: &[&str]) -> SchemaIndex {
        let pointer: Vec<String> = place.iter().map(|part| escaped(part)).collect();
        let location = format!("{URL}#/{}", pointer.join("/")).replace('{', "%7B").replace('}', "%7D");
        self.compiler.compile(&location, &mut self.schemas).unwrap_or_else(|error| panic!("{location}: {error:#}"))
    }

    fn check(&mut self, place: &[&str], value: &Value) {
        let schema = self.schema(place);
        let checked = self.schemas.validate(value, schema);
        checked.unwrap_or_else(|error| panic!("{}: {error:#}\n{value:#}", place.join(" ")));
    }

    /// Checks an answer with status 200.
    fn check_answer(&mut self, verb: &str, path: &str, seen: &Seen) {
        assert_eq!(seen.status, 200, "{path}: {}", String::from_utf8_lossy(&seen.body));
        let content = &self.document["paths"][path][verb]["responses"]["200"]["content"];
        let media_type: Vec<String> = content.as_object().unwrap().keys().cloned().collect();
        assert_eq!(media_type, [seen.headers["content-type"].clone()], "{path}");
        let place = ["paths", path, verb, "responses", "200", "content", media_type[0].as_str(), "schema"];
        match media_type[0].as_str() {
            "application/json" => self.check(&place, &seen.json()),
            "text/plain" => self.check(&place, &json!(seen.text())),
            _ => assert!(!seen.body.is_empty()),
        }
    }
}

fn escaped(part: &str) -> String {
    part.replace('~', "~0").replace('/', "~1")
}

fn verb(endpoint: &Endpoint) -> &'static str {
    match endpoint.verb {
        Verb::Get => "get",
        Verb::Post => "post",
    }
}

fn method(endpoint: &Endpoint) -> Method {
    match endpoint.verb {
        Verb::Get => Method::GET,
        Verb::Post => Method::POST,
    }
}

#[test]
fn the_document_has_every_endpoint_and_no_other() {
    let site = Site::new();
    let served = site.get("/v1/openapi.json").json();
    assert_eq!(served, document());
    assert_eq!(served["openapi"], "3.1.0");
    let listed: BTreeSet<(String, String)> =
        endpoints().map(|endpoint| (verb(endpoint).to_owned(), endpoint.path.to_owned())).collect();
    assert_eq!(listed.len(), endpoints().count(), "an endpoint is there twice");
    let mut documented = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for (path, operations) in served["paths"].as_object().unwrap() {
        for (verb, operation) in operations.as_object().unwrap() {
            documented.insert((verb.clone(), path.clone()));
            assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{path}");
        }
    }
    assert_eq!(listed, documented);
}

#[test]
fn the_document_is_sound() {
    let mut checker = Checker::new();
    let document = checker.document.clone();
    let places: BTreeMap<&str, &Place> = Place::ALL.iter().map(|place| (place.name, place)).collect();
    assert_eq!(places.len(), Place::ALL.len());
    let used: BTreeSet<&str> = endpoints().flat_map(Endpoint::places).collect();
    assert_eq!(used, places.keys().copied().collect(), "names of the list that no path has, or the other way round");
    let names: Vec<String> = document["components"]["schemas"].as_object().unwrap().keys().cloned().collect();
    assert!(names.len() > 40, "{names:?}");
    for name in &names {
        assert!(!name.ends_with(|c: char| c.is_ascii_digit()) && !name.ends_with("Json"), "{name} is no name");
        checker.schema(&["components", "schemas", name]);
    }
    for endpoint in endpoints() {
        let operation = &document["paths"][endpoint.path][verb(endpoint)];
        assert!(endpoint.summary.ends_with('.') && endpoint.summary.len() < 120, "{}", endpoint.path);
        let given = |kind: &str| -> BTreeSet<String> {
            let parameters = operation["parameters"].as_array().unwrap().iter().filter(|it| it["in"] == kind);
            parameters.map(|it| it["name"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(given("path"), endpoint.places().map(str::to_owned).collect(), "{}", endpoint.path);
        assert_eq!(given("query"), endpoint.query.iter().map(|it| it.name.to_owned()).collect(), "{}", endpoint.path);
        assert_eq!(operation["requestBody"].is_object(), endpoint.body.is_some(), "{}", endpoint.path);
        let codes: BTreeSet<Code> = endpoint.refusals.iter().copied().collect();
        assert_eq!(codes.len(), endpoint.refusals.len(), "{}: a reason is there twice", endpoint.path);
    }
    // Every code that the node sends can be read of somewhere.
    let told: BTreeSet<Code> =
        endpoints().flat_map(|it| it.refusals).chain(Endpoint::ALWAYS).chain(Endpoint::OF_BODY).copied().collect();
    let untold: Vec<&Code> = Code::ALL.iter().filter(|code| !told.contains(code)).collect();
    assert_eq!(untold, [&Code::UnknownPath]);
}

#[test]
fn every_documented_path_is_reached() {
    let site = Site::new();
    for endpoint in endpoints() {
        let real = real(&site, endpoint);
        let method = method(endpoint);
        let found = route(&method, &real.path, &real.query).unwrap_or_else(|refusal| {
            panic!("{} as {} {}: {refusal}", endpoint.path, real.path, real.query);
        });
        assert_eq!(found.takes_body(), endpoint.body.is_some(), "{}", endpoint.path);
        let segments: Vec<&str> = real.path.split('/').skip(1).collect();
        let matching = endpoints().filter(|it| it.matches(&method, &segments, &real.query).is_some());
        assert_eq!(matching.map(|it| it.path).collect::<Vec<_>>(), [endpoint.path]);
        let (api, slash) = (format!("/api{}", real.path), format!("{}/", real.path));
        assert_eq!(route(&method, &api, &real.query).unwrap(), found);
        assert_eq!(route(&method, &slash, &real.query).unwrap(), found);
        assert_eq!(route(&Method::HEAD, &real.path, &real.query).is_ok(), endpoint.verb == Verb::Get);
        assert!(route(&Method::PUT, &real.path, &real.query).is_err());
    }
}

#[test]
fn answers_are_what_the_document_says() {
    let (mut site, _bitcoin) = super::peg::site();
    site.commit(vec![payment(site.coin(0))]);
    let waiting = payment(site.coin(1));
    assert_eq!(site.post("/tx", bitcoin::consensus::encode::serialize_hex(&waiting)).status, 200);
    site.node.node().peers =
        vec![crate::machine::PeerStatus { peer: libp2p::PeerId::random(), height: None, score: 90 }];
    let mut checker = Checker::new();
    let mut unanswered = Vec::new();
    for endpoint in endpoints().filter(|endpoint| endpoint.answer.media_type != STREAM) {
        let real = real(&site, endpoint);
        let path = if real.query.is_empty() { real.path.clone() } else { format!("{}?{}", real.path, real.query) };
        let seen = match endpoint.verb {
            Verb::Get => site.get(&path),
            Verb::Post => site.post(&path, real.body),
        };
        if seen.status == 200 {
            checker.check_answer(verb(endpoint), endpoint.path, &seen);
        } else {
            unanswered.push(endpoint.path);
        }
    }
    // What takes a withdrawal to be answered, and what never is.
    assert_eq!(unanswered, ["/address-prefix/{prefix}", "/v1/peg-out/{request}", "/v1/batches/{number}"]);

    // The same endpoints in other states.
    let script = sha256::Hash::hash(free_script().as_bytes());
    let tip = site.store.tip().hash();
    let others = [
        ("/tx/{txid}", format!("/tx/{}", waiting.compute_txid())),
        ("/tx/{txid}", format!("/tx/{}", site.blocks[0].txdata[0].compute_txid())),
        ("/tx/{txid}/status", format!("/tx/{}/status", waiting.compute_txid())),
        ("/tx/{txid}/outspend/{vout}", format!("/tx/{}/outspend/0", waiting.compute_txid())),
        ("/tx/{txid}/outspend/{vout}", format!("/tx/{}/outspend/1", site.coin(1).txid)),
        ("/block/{hash}/status", format!("/block/{}/status", tip)),
        ("/block/{hash}/status", format!("/block/{}/status", "11".repeat(32))),
        ("/blocks/{start_height}", "/blocks/0".to_owned()),
        ("/scripthash/{scripthash}/utxo", format!("/scripthash/{script}/utxo")),
        ("/scripthash/{scripthash}", format!("/scripthash/{}", "11".repeat(32))),
        ("/v1/validators/{height}", "/v1/validators/5".to_owned()),
        ("/v1/finality/{block}", "/v1/finality/103".to_owned()),
        ("/v1/peg-in/{deposit}", format!("/v1/peg-in/{}", super::peg::DEPOSIT)),
    ];
    for (form, path) in others {
        checker.check_answer("get", form, &site.get(&path));
    }

    // A withdrawal, before it is in a batch and after.
    let asked_for = spec().peg_out_address(DESTINATION.parse().unwrap()).unwrap();
    let mut withdrawal = payment(site.coin(5));
    withdrawal.output[0].script_pubkey = asked_for.script_pubkey();
    let request = format!("{}:0", withdrawal.compute_txid());
    site.commit(vec![withdrawal]);
    for state in ["waiting", "batched"] {
        if state == "batched" {
            site.commit_peg(Candidates::default());
        }
        let seen = site.get(&format!("/v1/peg-out/{request}"));
        checker.check_answer("get", "/v1/peg-out/{request}", &seen);
        assert_eq!(seen.json()["state"], state);
    }
    for (form, path) in [
        ("/v1/batches/{number}", "/v1/batches/1"),
        ("/v1/batches", "/v1/batches"),
        ("/v1/batches", "/v1/batches?state=open"),
        ("/v1/peg-ins", "/v1/peg-ins"),
        ("/v1/reserves", "/v1/reserves"),
    ] {
        checker.check_answer("get", form, &site.get(path));
    }
    let batches = site.get("/v1/batches?state=open").json();
    assert_eq!(batches["batches"][0], site.get("/v1/batches/1").json());
    let credit = site.get("/v1/peg-ins").json()["peg_ins"][0]["deposit"].clone();
    let credited = site.get(&format!("/v1/peg-in/{}", credit.as_str().unwrap()));
    checker.check_answer("get", "/v1/peg-in/{deposit}", &credited);
}

#[test]
fn the_checker_finds_what_is_wrong() {
    let mut checker = Checker::new();
    let schema = checker.schema(&["components", "schemas", "BlockStatus"]);
    let good = json!({"in_best_chain": true, "height": 1, "next_best": null});
    assert!(checker.schemas.validate(&good, schema).is_ok());
    for bad in [
        json!({"in_best_chain": true, "height": 1}),
        json!({"in_best_chain": 1, "height": 1, "next_best": null}),
        json!({"in_best_chain": true, "height": -1, "next_best": null}),
        json!({"in_best_chain": true, "height": 1, "next_best": "xy"}),
    ] {
        assert!(checker.schemas.validate(&bad, schema).is_err(), "{bad}");
    }
}
