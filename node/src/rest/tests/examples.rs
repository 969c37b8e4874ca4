//! What endpoints understand, and what they do not.

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::hex::DisplayHex;
use bitcoin::{Address, Network};
use causeway_consensus::ChainView;
use serde_json::json;

use super::peg::{DEPOSIT, DESTINATION, REFUND_KEY};
use super::site::{Site, payment};
use crate::rest::routes::Endpoint;
use crate::testing::{deposits, free_output, free_script};

/// A request that an endpoint understands.
pub(super) struct Real {
    pub(super) path: String,
    pub(super) query: String,
    pub(super) body: String,
}

/// What an endpoint understands. Each call hands in another transaction, where it hands in one.
pub(super) fn real(site: &Site, endpoint: &Endpoint) -> Real {
    let mut path = endpoint.path.to_owned();
    for place in endpoint.places() {
        path = path.replace(&format!("{{{place}}}"), &real_place(site, place));
    }
    let query: Vec<String> =
        endpoint.query.iter().map(|it| format!("{}={}", it.name, real_parameter(site, it.name))).collect();
    let body = match endpoint.path {
        "/tx" => serialize_hex(&payment(site.coin(3))),
        "/txs/package" => json!([serialize_hex(&payment(site.coin(4)))]).to_string(),
        "/v1/peg-in/address" => json!({"destination": DESTINATION, "refund_key": REFUND_KEY}).to_string(),
        "/v1/peg-in/claim" => json!({"encoded": claim(site)}).to_string(),
        _ => String::new(),
    };
    assert_eq!(!body.is_empty(), endpoint.body.is_some(), "{}", endpoint.path);
    Real { path, query: query.join("&"), body }
}

pub(super) fn claim(site: &Site) -> String {
    let tip = site.store.tip();
    let [_, candidates] = deposits(tip.peg(), tip.time(), &[free_output(1_000_000)]);
    let mut bytes = Vec::new();
    candidates.peg_ins[0].encode(&mut bytes);
    bytes.to_lower_hex_string()
}

pub(super) fn real_place(site: &Site, place: &str) -> String {
    match place {
        "height" => "101".to_owned(),
        "start_height" => "50".to_owned(),
        "block" => "102".to_owned(),
        "hash" => site.blocks[1].block_hash().to_string(),
        "txid" | "last_seen_txid" => site.coin(0).txid.to_string(),
        "index" | "vout" => "1".to_owned(),
        "start_index" => "0".to_owned(),
        "address" => Address::from_script(&free_script(), Network::Regtest).unwrap().to_string(),
        "scripthash" => free_script_hash(),
        "prefix" => "bcrt1".to_owned(),
        "deposit" => DEPOSIT.to_owned(),
        "request" => format!("{}:1", "22".repeat(32)),
        "bitcoin_address" => DESTINATION.to_owned(),
        "number" => "1".to_owned(),
        _ => panic!("{place} has no example"),
    }
}

fn free_script_hash() -> String {
    sha256::Hash::hash(free_script().as_bytes()).to_string()
}

pub(super) fn real_parameter(site: &Site, name: &str) -> String {
    match name {
        "tx" => serialize_hex(&payment(site.coin(2))),
        "maxfeerate" => "0.1".to_owned(),
        "maxburnamount" => "0".to_owned(),
        "since" => "101".to_owned(),
        "topics" => "block,tx".to_owned(),
        "script" => free_script_hash(),
        "last-event-id" => "101".to_owned(),
        "state" => "open".to_owned(),
        _ => panic!("{name} has no example"),
    }
}

/// Values that are wrong at most places, and at some are just unknown.
pub(super) fn bad_values() -> Vec<String> {
    let given = [
        "",
        "x",
        "tip",
        "null",
        "true",
        "-1",
        "-0",
        "+1",
        "007",
        "00",
        "1.5",
        "1e9",
        "1e999",
        "NaN",
        "inf",
        "0x1",
        "1_000",
        "%31",
        "%20",
        "1%20",
        "%00",
        "%0d%0a",
        "%ff",
        "%ff%fe",
        "%c3%a9",
        "%C3%28",
        "%",
        "%2",
        "%zz",
        "%2e%2e",
        "..",
        ".",
        "a%2Fb",
        "%2F",
        "~",
        "*",
        "{}",
        "{hash}",
        "'",
        "\"",
        "<x>",
        "$(x)",
        ";",
        ",",
        ":",
        "::",
        "a:b",
        "@",
        "!",
        "[0]",
        "()",
        "é",
        "١",
        "\u{202e}",
        "😀",
        "4294967295",
        "4294967296",
        "18446744073709551615",
        "18446744073709551616",
        "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
        "bcrt1",
        "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx",
        "1BoatSLRHtKNngkdXEeobR76b53LETtpyT",
        "open%00",
        "OPEN",
        "closed",
    ];
    let hash = "ab".repeat(32);
    let made = [
        "1".repeat(31),
        format!("1{}", "0".repeat(30)),
        "9".repeat(10_000),
        "a".repeat(10_000),
        "%41".repeat(3_000),
        "/".repeat(300),
        hash.clone(),
        hash.to_uppercase(),
        hash[1..].to_owned(),
        format!("{hash}0"),
        format!("0x{}", &hash[2..]),
        "g".repeat(64),
        "0".repeat(64),
        format!("{hash}:0"),
        format!("{hash}%3A0"),
        format!("{hash}%3a0"),
        format!("{hash}:00"),
        format!("{hash}:+0"),
        format!("{hash}:-1"),
        format!("{hash}:4294967295"),
        format!("{hash}:4294967296"),
        format!("{hash}:"),
        format!("{hash}:0:0"),
        format!(":{hash}"),
    ];
    given.iter().map(|value| (*value).to_owned()).chain(made).collect()
}
