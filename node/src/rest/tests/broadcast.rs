//! Handing in transactions, and what the mempool says then.

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, ScriptBuf, Txid};
use serde_json::{Value, json};

use super::site::{COIN, Site, output, payment};
use crate::testing::{first_output, pay};

/// The code and the message of a refusal, as clients take them out of the text.
fn refusal(site: &Site, body: impl Into<Vec<u8>>) -> (i64, String) {
    let seen = site.post("/tx", body);
    assert_eq!((seen.status, seen.headers["access-control-allow-origin"].as_str()), (400, "*"), "{}", seen.text());
    let object = seen.text().strip_prefix("sendrawtransaction RPC error: ").expect("the JSON form");
    let object: Value = serde_json::from_str(object).unwrap();
    assert_eq!(object.as_object().unwrap().len(), 2);
    (object["code"].as_i64().unwrap(), object["message"].as_str().unwrap().to_owned())
}

#[test]
fn what_is_handed_in_is_seen_at_once_and_then_in_the_chain() {
    let mut site = Site::new();
    assert_eq!(site.get("/mempool").json(), json!({"count": 0, "vsize": 0, "total_fee": 0, "fee_histogram": []}));
    let parent = pay(&[site.coin(0)], &[COIN - 5_000]);
    let child = pay(&[first_output(&parent), site.coin(1)], &[COIN]);
    for (count, transaction) in [(1, &parent), (2, &child)] {
        let txid = transaction.compute_txid().to_string();
        let accepted = site.post("/tx", serialize_hex(transaction));
        assert_eq!((accepted.status, accepted.text(), accepted.keep()), (200, txid.as_str(), "no-store"));
        assert_eq!(accepted.headers["content-type"], "text/plain");
        let summary = site.get("/mempool").json();
        assert_eq!(summary["count"], count);
        assert!(site.get("/mempool/txids").json().as_array().unwrap().contains(&json!(txid)));
        let whole = site.get(&format!("/tx/{txid}"));
        assert_eq!(whole.keep(), "no-store");
        assert_eq!(whole.json()["status"], json!({"confirmed": false}));
        assert_eq!(site.get(&format!("/api/tx/{txid}/hex/")).text(), serialize_hex(transaction));
        assert_eq!(site.get(&format!("/tx/{txid}/raw")).body, bitcoin::consensus::serialize(transaction));
        assert_eq!(site.get(&format!("/tx/{txid}/status")).json(), json!({"confirmed": false}));
        assert_eq!(site.get(&format!("/tx/{txid}/merkle-proof")).status, 404);
        // And again, with the newline of a shell.
        let again = site.post("/api/tx", format!("{}\n", serialize_hex(transaction)));
        assert_eq!((again.status, again.text()), (200, txid.as_str()));
    }
    let spends = site.get(&format!("/tx/{}", child.compute_txid())).json();
    assert_eq!(spends["fee"], COIN - 5_000);
    assert_eq!(spends["vin"][0]["prevout"]["value"], COIN - 5_000);
    assert_eq!(spends["vin"][1]["prevout"]["value"], COIN);

    let vsize = (parent.vsize() + child.vsize()) as u64;
    let summary = site.get("/mempool").json();
    assert_eq!((&summary["vsize"], &summary["total_fee"]), (&json!(vsize), &json!(COIN)));
    assert_eq!(summary["fee_histogram"].as_array().unwrap().len(), 1);
    assert_eq!(summary["fee_histogram"][0][1], vsize);
    let recent = site.get("/mempool/recent");
    assert_eq!(recent.keep(), "public, max-age=5");
    let recent = recent.json();
    assert_eq!(recent.as_array().unwrap().len(), 2);
    for transaction in [&parent, &child] {
        let value: u64 = transaction.output.iter().map(|output| output.value.to_sat()).sum();
        let txid = transaction.compute_txid().to_string();
        let entry = recent.as_array().unwrap().iter().find(|entry| entry["txid"] == txid).unwrap();
        assert_eq!((&entry["vsize"], &entry["value"]), (&json!(transaction.vsize()), &json!(value)));
    }

    // Nothing was copied for that: the pool's list has one holder more than ours.
    let rows = site.node.node().pool.rows();
    assert_eq!(rows.holders(), 3, "the pool, this test, and REST");
    assert!(site.post("/tx", serialize_hex(&payment(site.coin(1)))).status == 400);
    site.get("/mempool");
    assert_eq!(rows.holders(), 3);

    let solo = payment(site.coin(2));
    site.post("/tx", serialize_hex(&solo));
    site.commit(vec![solo.clone()]);
    let status = site.get(&format!("/tx/{}/status", solo.compute_txid())).json();
    assert_eq!(status["block_height"], 103);
    assert!(!site.get("/mempool/txids").json().as_array().unwrap().contains(&json!(solo.compute_txid().to_string())));
    assert_eq!(site.get("/mempool").json()["count"], 2);
}

#[test]
fn refusals_have_the_codes_of_bitcoin_core() {
    let mut site = Site::new();
    let decode = (-22, "TX decode failed. Make sure the tx has at least one input.".to_owned());
    let good = serialize_hex(&payment(site.coin(0)));
    let bodies = ["", " ", "zz", "0", "00", &good[..good.len() - 2], &format!("{good}00"), &format!("0x{good}")];
    for body in bodies {
        assert_eq!(refusal(&site, body), decode, "{body}");
    }
    assert_eq!(refusal(&site, [0xff, 0xfe]), decode);

    let unknown = OutPoint { txid: Txid::from_byte_array([7; 32]), vout: 0 };
    let missing = (-25, "bad-txns-inputs-missingorspent".to_owned());
    assert_eq!(refusal(&site, serialize_hex(&pay(&[unknown], &[1_000]))), missing);

    let known = (-27, "Transaction outputs already in utxo set".to_owned());
    let first = payment(site.coin(1));
    site.commit(vec![first.clone()]);
    assert_eq!(refusal(&site, serialize_hex(&first)), known);
    // Also when none of its outputs is left.
    site.commit(vec![pay(&[first_output(&first)], &[COIN - 2_000])]);
    assert_eq!(refusal(&site, serialize_hex(&first)), known);
    // Another one that spends what is spent.
    assert_eq!(refusal(&site, serialize_hex(&pay(&[site.coin(1)], &[COIN - 3_000]))), missing);

    let cheap = pay(&[site.coin(2)], &[COIN]);
    let need = cheap.vsize().div_ceil(10);
    assert_eq!(refusal(&site, serialize_hex(&cheap)), (-26, format!("min relay fee not met, 0 < {need}")));
    let mut dust = payment(site.coin(2));
    dust.output.push(output(dust.output[0].script_pubkey.clone(), 1));
    dust.output[0].value -= bitcoin::Amount::from_sat(1_000);
    assert_eq!(refusal(&site, serialize_hex(&dust)), (-26, "dust, tx with dust output must be 0-fee".to_owned()));
    let mut wrong = payment(site.coin(2));
    wrong.input[0].witness = bitcoin::Witness::from_slice(&[[0x52]]);
    let (code, message) = refusal(&site, serialize_hex(&wrong));
    assert_eq!(code, -26);
    assert!(message.starts_with("mempool-script-verify-flag-failed ("), "{message}");
    let mut odd = payment(site.coin(2));
    odd.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x52]);
    assert_eq!(refusal(&site, serialize_hex(&odd)), (-26, "scriptpubkey".to_owned()));

    assert_eq!(site.post("/tx", serialize_hex(&payment(site.coin(3)))).status, 200);
    let (code, message) = refusal(&site, serialize_hex(&pay(&[site.coin(3)], &[COIN - 999])));
    assert_eq!(code, -26);
    assert!(message.starts_with("insufficient fee, rejecting replacement "), "{message}");
}

#[test]
fn a_long_body_is_refused_and_a_chunked_one_is_read() {
    let site = Site::new();
    let seen = site.post("/tx", vec![b'0'; 1_000_001]);
    assert_eq!((seen.status, seen.text()), (413, "Request body too large"));
    assert_eq!(seen.headers["access-control-allow-origin"], "*");
    assert_eq!(site.post("/tx", vec![b'0'; 1_000_000]).status, 400);
    let transaction = payment(site.coin(0));
    let hex = serialize_hex(&transaction);
    let (one, other) = hex.split_at(100);
    let request = format!(
        "POST /tx HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
         64\r\n{one}\r\n{:x}\r\n{other}\r\n0\r\n\r\n",
        other.len()
    );
    let answer = super::hostile::send(&site, request.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.ends_with(&transaction.compute_txid().to_string()), "{answer}");
}

#[test]
fn all_fee_estimates_are_there_and_never_grow() {
    let site = Site::new();
    for transactions in 0..2 {
        let estimates = site.get("/fee-estimates").json();
        let estimates = estimates.as_object().unwrap();
        assert_eq!(estimates.len(), 28);
        let targets = (1..=25).chain([144, 504, 1008]);
        let rates: Vec<f64> = targets.map(|target: u32| estimates[&target.to_string()].as_f64().unwrap()).collect();
        assert!(rates.is_sorted_by(|one, next| one >= next), "{rates:?}");
        assert!(rates.iter().all(|rate| *rate >= 1.0), "{transactions} {rates:?}");
        site.post("/tx", serialize_hex(&payment(site.coin(0))));
    }
}

#[test]
fn a_transaction_can_stand_in_the_query() {
    let site = Site::new();
    let transaction = payment(site.coin(0));
    let (hex, txid) = (serialize_hex(&transaction), transaction.compute_txid().to_string());
    for path in ["/broadcast", "/broadcast?", "/broadcast?ty=00", "/broadcast?mtx=00"] {
        let seen = site.get(path);
        assert_eq!((seen.status, seen.text()), (400, "Missing tx"), "{path}");
    }
    let seen = site.get("/broadcast?tx=zz");
    assert_eq!(seen.status, 400);
    assert!(seen.text().contains("\"code\":-22"), "{}", seen.text());
    for path in [format!("/broadcast?tx={hex}"), format!("/api/broadcast/?a=b&tx={hex}&c=d")] {
        let seen = site.get(&path);
        assert_eq!((seen.status, seen.text(), seen.keep()), (200, txid.as_str(), "no-store"));
    }
}

#[test]
fn recommended_feerates_are_whole_numbers_that_never_grow() {
    let site = Site::new();
    site.post("/tx", serialize_hex(&payment(site.coin(0))));
    let seen = site.get("/api/v1/fees/recommended").json();
    let names = ["fastestFee", "halfHourFee", "hourFee", "economyFee", "minimumFee"];
    let rates = names.map(|name| seen[name].as_f64().unwrap());
    assert!(rates.is_sorted_by(|one, next| one >= next), "{rates:?}");
    assert!(rates.iter().all(|rate| *rate >= 1.0 && rate.fract() == 0.0), "{rates:?}");
}

/// A block is on disk a moment before the mempool hears of it.
#[test]
fn what_is_final_is_confirmed_though_the_mempool_still_holds_it() {
    let mut site = Site::new();
    let transaction = payment(site.coin(0));
    let txid = transaction.compute_txid();
    let loser = pay(&[site.coin(1), site.coin(2)], &[COIN]);
    for waiting in [&transaction, &loser] {
        assert_eq!(site.post("/tx", serialize_hex(waiting)).status, 200);
    }
    site.commit_unnoticed(vec![transaction.clone(), payment(site.coin(1))]);
    assert!(site.node.node().pool.contains(&txid));
    assert_eq!(site.get(&format!("/tx/{txid}")).json()["status"]["block_height"], 103);
    assert_eq!(site.get(&format!("/tx/{txid}/status")).json()["confirmed"], true);
    // The loser still waits, and one of its coins is spent.
    let seen = site.get(&format!("/tx/{}", loser.compute_txid())).json();
    assert_eq!((&seen["fee"], &seen["status"]["confirmed"]), (&json!(COIN), &json!(false)));
}
