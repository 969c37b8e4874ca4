//! What is Causeway's own: `/v1` and `/health`, and the life of the server.

use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use bitcoin::hex::DisplayHex;
use causeway_chainspec::Height;
use causeway_consensus::ChainView;
use causeway_consensus::bft::{Equivocation, Signature, SignedVote, ValidatorSet, Vote, VoteType};
use libp2p::PeerId;
use serde_json::{Value, json};

use super::site::{Site, certificate, config, serve_again, spec};
use crate::machine::PeerStatus;
use crate::rest::RestError;

#[test]
fn the_node_and_its_peers() {
    let site = Site::new();
    let health = site.get("/health");
    assert_eq!(health.json(), json!({"status": "ok", "height": 102, "peers": 0, "syncing": false}));
    assert_eq!(health.keep(), "no-store");
    let peer = PeerId::random();
    {
        let mut node = site.node.node();
        node.sync_target = Some(Height(500));
        node.peers = vec![PeerStatus { peer, height: None, score: 90 }];
    }
    assert_eq!(site.get("/health").json(), json!({"status": "ok", "height": 102, "peers": 1, "syncing": true}));
    let status = site.get("/v1/status").json();
    let tip = site.store.tip();
    let expected = [
        ("network", json!("devnet")),
        ("chain_id", json!(spec().chain_id().block_hash().to_string())),
        ("identity", json!("regtest")),
        ("version", json!(env!("CARGO_PKG_VERSION"))),
        ("height", json!(102)),
        ("hash", json!(tip.hash().to_string())),
        ("time", json!(tip.time())),
        ("round", json!(2)),
        ("sync_target", json!(500)),
        ("validator", Value::Null),
        ("peers", json!(1)),
        ("mempool_transactions", json!(0)),
        ("mempool_vsize", json!(0)),
    ];
    for (name, value) in expected {
        assert_eq!(status[name], value, "{name}");
    }
    assert!(status["finality"].as_str().unwrap().contains("final"));
    let peers = site.get("/v1/peers").json();
    assert_eq!(
        peers,
        json!([{
            "peer": peer.to_string(), "height": null, "score": 90, "address": "/ip4/10.0.0.1/tcp/4000",
            "direction": "inbound"
        }])
    );
}

#[test]
fn the_evidence_against_validators() {
    let site = Site::new();
    assert_eq!(site.get("/v1/evidence").json(), json!([]));
    let validator = ValidatorSet::new(spec().validators()).unwrap().members()[0].address();
    let vote = |block: Option<BlockHash>| {
        let vote = Vote::new(VoteType::Precommit, Height(101), 0, block, validator);
        SignedVote::new(vote, Signature([7; 64]))
    };
    let evidence = Equivocation::of_votes(vote(None), vote(Some(site.store.tip().hash()))).unwrap();
    site.node.node().evidence.push(evidence.clone());
    let expected = json!([{
        "validator": validator.to_string(), "height": 101, "what": evidence.to_string(),
        "raw": evidence.encode().to_lower_hex_string(),
    }]);
    assert_eq!(site.get("/v1/evidence").json(), expected);
}

#[test]
fn the_validators_and_what_they_signed() {
    let mut site = Site::new();
    let set = ValidatorSet::new(spec().validators()).unwrap();
    let validators = site.get("/v1/validators").json();
    let expected: Vec<Value> = set
        .members()
        .iter()
        .map(|member| json!({"key": member.address().to_string(), "power": member.power()}))
        .collect();
    assert_eq!(validators, json!(expected));

    let hash = site.commit(vec![]);
    let certificate = certificate(Height(103), hash);
    let signatures: Vec<Value> = certificate
        .signatures()
        .map(|(place, signature)| {
            let validator = set.members()[place].address().to_string();
            json!({"validator": validator, "signature": signature.0.to_lower_hex_string()})
        })
        .collect();
    assert_eq!(signatures.len(), 3);
    let expected = json!({
        "height": 103, "round": 1, "block": hash.to_string(), "signatures": signatures,
        "raw": certificate.encode().to_lower_hex_string(),
    });
    for block in ["103".to_owned(), hash.to_string()] {
        let seen = site.get(&format!("/v1/finality/{block}"));
        assert_eq!(seen.json(), expected);
        assert!(seen.keep().starts_with("public"));
    }
    let derived = site.get("/v1/finality/100");
    assert_eq!((derived.status, derived.text()), (404, "Block has no certificate: it follows from the chainspec"));
    let unknown = bitcoin::BlockHash::from_byte_array([7; 32]);
    for (block, status, text) in [
        ("104".to_owned(), 404, "Block not found"),
        (unknown.to_string(), 404, "Block not found"),
        ("x".to_owned(), 400, "Invalid number"),
        ("z".repeat(64), 400, "Invalid hex string"),
    ] {
        let seen = site.get(&format!("/v1/finality/{block}"));
        assert_eq!((seen.status, seen.text()), (status, text));
    }
}

#[test]
fn a_node_that_stops_says_so_and_the_chain_can_still_be_read() {
    let site = Site::new();
    site.node.node().stopped = true;
    let health = site.get("/health");
    assert_eq!((health.status, health.text()), (503, r#"{"status":"stopping"}"#));
    for path in ["/v1/status", "/v1/peers", "/mempool", "/fee-estimates"] {
        let seen = site.get(path);
        assert_eq!((seen.status, seen.text()), (503, "the node is stopping"));
        assert_eq!(seen.headers["retry-after"], "1");
    }
    assert_eq!(site.get("/blocks/tip/height").text(), "102");
    assert_eq!(site.get(&format!("/tx/{}", site.coin(0).txid)).status, 200);
}

#[test]
fn an_address_in_use_is_named_with_what_to_do() {
    let site = Site::new();
    let error = serve_again(&site);
    assert!(matches!(error, RestError::InUse { .. }));
    let text = error.to_string();
    assert!(text.starts_with(&site.address.to_string()), "{text}");
    assert!(text.contains("set `bind` in section [rest] of config.toml"), "{text}");
    let elsewhere = config("203.0.113.1:1".parse().unwrap());
    let parts = super::site::parts(&site.store, &site.node);
    let error = site.runtime.block_on(crate::rest::serve(elsewhere, parts, std::future::pending())).err().unwrap();
    assert!(matches!(error, RestError::NotHere { .. }), "{error}");
}

#[test]
fn told_to_stop_it_ends_although_a_client_stays() {
    let mut site = Site::new();
    let idle = std::net::TcpStream::connect(site.address).unwrap();
    assert_eq!(site.get("/blocks/tip/height").status, 200);
    site.stop.take().unwrap().send(()).unwrap();
    let server = site.server.take().unwrap();
    let ended = site.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), server).await });
    ended.expect("it ends in time").unwrap();
    assert!(std::net::TcpStream::connect(site.address).is_err(), "nobody listens any more");
    drop(idle);
}
