//! What is Causeway's own: `/v1` and `/health`, and the life of the server.

use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::hashes::Hash;
use bitcoin::hex::DisplayHex;
use causeway_chainspec::Height;
use causeway_consensus::ChainView;
use causeway_consensus::bft::{Equivocation, Signature, SignedVote, ValidatorSet, Vote, VoteType};
use libp2p::PeerId;
use serde_json::{Value, json};

use super::site::{Site, certificate, config, serve_again, spec};
use crate::http::ListenError;
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
fn the_chain_in_numbers() {
    let site = Site::new();
    let chain = site.get("/v1/chain").json();
    let spec = spec();
    let (params, federation) = (spec.params(), spec.federation());
    let expected = [
        ("/network", json!("devnet")),
        ("/chain_id", json!(spec.chain_id().block_hash().to_string())),
        ("/chainspec_hash", json!(spec.hash().to_string())),
        ("/identity", json!("regtest")),
        ("/genesis_hash", json!(bitcoin::constants::genesis_block(bitcoin::Network::Regtest).block_hash().to_string())),
        ("/genesis_time_s", json!(spec.genesis_time())),
        ("/finality/first_certified_height", json!(101)),
        ("/finality/validators", json!(4)),
        ("/finality/total_power", json!(spec.total_power())),
        ("/finality/quorum_power", json!(2 * spec.total_power() / 3 + 1)),
        ("/blocks/interval_ms", json!(params.block_interval_ms)),
        ("/blocks/max_weight_wu", json!(4_000_000)),
        ("/blocks/coinbase_maturity_blocks", json!(100)),
        ("/bitcoin/network", json!("regtest")),
        ("/bitcoin/worthless", json!(true)),
        ("/bitcoin/start_hash", json!(spec.bitcoin().header().block_hash().to_string())),
        ("/peg/final_depth_bitcoin_blocks", json!(params.final_depth)),
        ("/peg/peg_in_min_sat", json!(params.peg_in_min.to_sat())),
        ("/peg/peg_out_min_sat", json!(params.peg_out_min.to_sat())),
        ("/peg/fee_rate_max_sat_per_kvb", json!(params.fee_rate_max.0)),
        ("/epochs/0/threshold", json!(federation.threshold())),
        ("/epochs/0/refund_delay", json!(federation.timelocks().refund_delay)),
        ("/epochs/0/deposit_input_weight_wu", json!(federation.worst_deposit_input_weight().to_wu())),
    ];
    for (place, value) in expected {
        assert_eq!(chain.pointer(place), Some(&value), "{place}");
    }
    assert_eq!(chain["epochs"], site.get("/v1/federation").json()["epochs"]);
}

#[test]
fn the_validators_of_each_height() {
    let mut site = Site::new();
    let set = ValidatorSet::new(spec().validators()).unwrap();
    let members: Vec<Value> = set
        .members()
        .iter()
        .map(|member| json!({"key": member.address().to_string(), "power": member.power()}))
        .collect();
    let expected = |height: u32| {
        let derived = height <= 100;
        let proposer = set.proposer(spec().chain_id(), Height(height), 0).address().to_string();
        json!({
            "height": height, "derived": derived, "validators": members, "total_power": set.total_power(),
            "quorum_power": 2 * set.total_power() / 3 + 1,
            "proposer_of_round_0": if derived { Value::Null } else { json!(proposer) },
        })
    };
    assert_eq!(site.get("/v1/validators").json(), expected(102));
    for height in [0, 100, 101, 102, 103] {
        let seen = site.get(&format!("/v1/validators/{height}"));
        assert_eq!(seen.json(), expected(height));
        assert_eq!(seen.keep().starts_with("public"), height <= 102, "{height}");
    }
    for (height, status, code) in [
        ("104", 404, "height_not_reached"),
        ("4294967296", 404, "height_not_reached"),
        ("18446744073709551616", 400, "invalid_number"),
        ("-1", 400, "invalid_number"),
        ("", 400, "invalid_number"),
    ] {
        // One slash at the end is as good as none.
        let seen = site.get(&format!("/v1/validators/{height}{}", if height.is_empty() { "/" } else { "" }));
        assert_eq!(seen.problem(), (status, code.to_owned()), "{height}");
    }
    site.commit(vec![]);
    assert_eq!(site.get("/v1/validators").json(), expected(103));
    assert_eq!(site.get("/v1/validators/104").json(), expected(104));
}

#[test]
fn what_the_validators_signed() {
    let mut site = Site::new();
    let set = ValidatorSet::new(spec().validators()).unwrap();
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
    let by_hash = site.get(&format!("/v1/finality/{hash}"));
    let by_height = site.get("/v1/finality/103");
    assert_eq!(by_hash.json(), by_height.json());
    assert!(by_hash.keep().starts_with("public") && by_height.keep().starts_with("public"));
    let answer = by_hash.json();
    let header = serialize_hex(&site.blocks[2].header);
    let expected = [
        ("height", json!(103)),
        ("round", json!(1)),
        ("block", json!(hash.to_string())),
        ("header", json!(header)),
        ("chain_id", json!(spec().chain_id().block_hash().to_string())),
        ("signatures", json!(signatures)),
        ("total_power", json!(set.total_power())),
        ("raw", json!(certificate.encode().to_lower_hex_string())),
        ("validators", site.get("/v1/validators").json()["validators"].clone()),
    ];
    for (name, value) in expected {
        assert_eq!(answer[name], value, "{name}");
    }
    let unknown = bitcoin::BlockHash::from_byte_array([7; 32]);
    for (block, status, code) in [
        ("100".to_owned(), 404, "no_certificate"),
        ("104".to_owned(), 404, "block_not_found"),
        (unknown.to_string(), 404, "block_not_found"),
        ("x".to_owned(), 400, "invalid_number"),
        ("z".repeat(64), 400, "invalid_hex"),
    ] {
        assert_eq!(site.get(&format!("/v1/finality/{block}")).problem(), (status, code.to_owned()), "{block}");
    }
}

#[test]
fn the_policy_of_the_mempool() {
    let site = Site::new();
    let policy = site.get("/v1/mempool/policy").json();
    let expected = [
        ("/mempool_min_feerate_sat_per_kvb", json!(100)),
        ("/min_relay_feerate_sat_per_kvb", json!(100)),
        ("/dust_relay_feerate_sat_per_kvb", json!(3_000)),
        // Bitcoin Core's.
        ("/dust_sat", json!({"p2pkh": 546, "p2sh": 540, "p2wpkh": 294, "p2wsh": 330, "p2tr": 330})),
        ("/transaction/max_weight_wu", json!(400_000)),
        ("/transaction/min_version", json!(1)),
        ("/transaction/max_version", json!(3)),
        ("/chain/max_ancestors", json!(25)),
        ("/chain/max_descendants_vsize_vb", json!(101_000)),
        ("/replacement/full_rbf", json!(true)),
        ("/replacement/max_replaced", json!(100)),
        ("/transaction/max_dust_outputs", json!(1)),
        ("/package/max_transactions", json!(25)),
        ("/package/max_weight_wu", json!(404_000)),
        ("/package/child_pays_for_parent", json!(true)),
        ("/max_memory_bytes", json!(300_000_000)),
        ("/expiry_s", json!(1_209_600)),
    ];
    for (place, value) in expected {
        assert_eq!(policy.pointer(place), Some(&value), "{place}");
    }
}

#[test]
fn errors_under_v1_are_json_and_elsewhere_text() {
    let site = Site::new();
    for path in ["/v1/nothing", "/api/v1/nothing", "/v1", "/v1/", "/v1/batches/1/x"] {
        let seen = site.get(path);
        assert_eq!(seen.problem(), (404, "unknown_path".to_owned()), "{path}");
        let text: Value = serde_json::from_slice(&seen.body).unwrap();
        assert_eq!(text["message"], format!("endpoint does not exist {path:?}"));
    }
    assert_eq!(site.post("/v1/status", "").problem(), (404, "unknown_path".to_owned()));
    for path in ["/nothing", "/api/nothing", "/", "/v1x"] {
        let seen = site.get(path);
        assert_eq!((seen.status, seen.headers["content-type"].as_str()), (404, "text/plain"), "{path}");
    }
    let seen = site.get("/tx/v1");
    assert_eq!((seen.status, seen.text()), (400, "Invalid hex string"));
    let nothing = site.get("/nothing");
    assert_eq!(nothing.text(), "endpoint does not exist \"/nothing\"");
}

#[test]
fn a_node_that_stops_says_so_and_the_chain_can_still_be_read() {
    let site = Site::new();
    site.node.node().stopped = true;
    let health = site.get("/health");
    assert_eq!((health.status, health.text()), (503, r#"{"status":"stopping"}"#));
    for path in ["/v1/status", "/v1/peers", "/v1/mempool/policy", "/mempool", "/fee-estimates"] {
        let seen = site.get(path);
        if path.starts_with("/v1") {
            assert_eq!(seen.problem(), (503, "node_stopping".to_owned()));
        } else {
            assert_eq!((seen.status, seen.text()), (503, "the node is stopping"));
        }
        assert_eq!(seen.headers["retry-after"], "1");
    }
    assert_eq!(site.get("/blocks/tip/height").text(), "102");
    assert_eq!(site.get(&format!("/tx/{}", site.coin(0).txid)).status, 200);
}

#[test]
fn an_address_in_use_is_named_with_what_to_do() {
    let site = Site::new();
    let error = serve_again(&site);
    assert!(matches!(error, RestError::Listen(ListenError::InUse { .. })));
    let text = error.to_string();
    assert!(text.starts_with(&site.address.to_string()), "{text}");
    assert!(text.contains("set `bind` in section [rest] of config.toml"), "{text}");
    let elsewhere = config("203.0.113.1:1".parse().unwrap());
    let parts = super::site::parts(&site.store, &site.node);
    let error = site.runtime.block_on(crate::rest::serve(elsewhere, parts, std::future::pending())).err().unwrap();
    assert!(matches!(error, RestError::Listen(ListenError::NotHere { .. })), "{error}");
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
