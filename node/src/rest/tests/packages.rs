//! Packages, as Bitcoin Core's `submitpackage` answers them.

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::transaction::Version;
use bitcoin::{OutPoint, Transaction, Witness};
use serde_json::{Value, json};

use super::site::{COIN, Seen, Site, payment};
use crate::testing::{anchor, first_output, pay, pay_padded};

fn submit(site: &Site, query: &str, package: &[&Transaction]) -> Seen {
    let package: Vec<String> = package.iter().map(|transaction| serialize_hex(*transaction)).collect();
    site.post(&format!("/txs/package{query}"), serde_json::to_vec(&package).unwrap())
}

fn result<'a>(answer: &'a Value, transaction: &Transaction) -> &'a Value {
    &answer["tx-results"][transaction.compute_wtxid().to_string()]
}

#[test]
fn parents_and_children_are_taken_together() {
    let site = Site::new();
    let parent = pay(&[site.coin(0)], &[COIN - 5_000]);
    let child = pay(&[first_output(&parent), site.coin(1)], &[2 * COIN - 9_000]);
    let seen = submit(&site, "", &[&parent, &child]);
    assert_eq!(seen.keep(), "no-store");
    let answer = seen.json();
    assert_eq!((&answer["package_msg"], &answer["replaced-transactions"]), (&json!("success"), &json!([])));
    assert_eq!(answer["tx-results"].as_object().unwrap().len(), 2);
    for (transaction, fee) in [(&parent, 5_000_u32), (&child, 4_000)] {
        let result = result(&answer, transaction);
        assert_eq!(result["txid"], transaction.compute_txid().to_string());
        assert_eq!(result["vsize"], transaction.vsize());
        let fees = &result["fees"];
        assert!((fees["base"].as_f64().unwrap() * 1e8 - f64::from(fee)).abs() < 1e-3);
        let rate = f64::from(fee) / 1e5 / transaction.vsize() as f64;
        // In whole satoshi for 1,000 virtual bytes.
        assert!((fees["effective-feerate"].as_f64().unwrap() - rate).abs() < 1e-8);
        assert_eq!(fees["effective-includes"], json!([transaction.compute_wtxid().to_string()]));
        assert!(result.get("error").is_none());
        assert_eq!(site.get(&format!("/tx/{}/raw", transaction.compute_txid())).status, 200);
    }
    // Once more.
    let answer = submit(&site, "/", &[&parent, &child]).json();
    assert_eq!(answer["package_msg"], "success");
    let again = result(&answer, &parent);
    assert_eq!((&again["vsize"], again["fees"].as_object().unwrap().len()), (&json!(parent.vsize()), 1));
    let mut malleated = parent.clone();
    malleated.input[0].witness = bitcoin::Witness::from_slice(&[vec![], vec![0x51]]);
    let answer = submit(&site, "", &[&malleated]).json();
    assert_eq!(result(&answer, &malleated)["other-wtxid"], parent.compute_wtxid().to_string());
}

/// What closes a Lightning channel whose commitments pay no fee.
#[test]
fn a_parent_without_fee_is_taken_with_its_child() {
    let site = Site::new();
    let commitment = Transaction { version: Version(3), ..pay(&[site.coin(0)], &[COIN]) };
    let commitment = {
        let mut commitment = commitment;
        commitment.output.push(anchor(0));
        commitment
    };
    let spends = |coin, fee| {
        let anchor = OutPoint { vout: 1, ..first_output(&commitment) };
        let mut child = Transaction { version: Version(3), ..pay(&[anchor, coin], &[COIN - fee]) };
        child.input[0].witness = Witness::new();
        child
    };
    let child = spends(site.coin(1), 3_000);
    let answer = submit(&site, "", &[&commitment, &child]).json();
    assert_eq!(answer["package_msg"], "success");
    let both = [&commitment, &child].map(|one| one.compute_wtxid().to_string());
    let rate = 3_000 * 1_000 / (commitment.vsize() + child.vsize());
    for transaction in [&commitment, &child] {
        let fees = &result(&answer, transaction)["fees"];
        assert_eq!(fees["effective-includes"], json!(both));
        assert!((fees["effective-feerate"].as_f64().unwrap() * 1e8 - rate as f64).abs() < 1e-3);
        assert_eq!(site.get(&format!("/tx/{}", transaction.compute_txid())).status, 200);
    }
    let bumped = spends(site.coin(2), 9_000);
    let answer = submit(&site, "", &[&commitment, &bumped]).json();
    assert_eq!(answer["package_msg"], "success");
    assert_eq!(answer["replaced-transactions"], json!([child.compute_txid().to_string()]));
    assert!(result(&answer, &commitment)["fees"].get("effective-feerate").is_none(), "it was there");
}

#[test]
fn each_is_told_its_own_fate() {
    let site = Site::new();
    let good = payment(site.coin(0));
    let cheap = pay(&[site.coin(1)], &[COIN]);
    let child = pay(&[first_output(&good), first_output(&cheap)], &[2 * COIN - 1_001]);
    let answer = submit(&site, "", &[&good, &cheap, &child]).json();
    assert_eq!(answer["package_msg"], "transaction failed");
    assert!(result(&answer, &good).get("error").is_none());
    let error = |transaction| result(&answer, transaction)["error"].as_str().unwrap();
    assert!(error(&cheap).starts_with("min relay fee not met, 0 < "), "{}", error(&cheap));
    assert!(error(&child).starts_with("min relay fee not met, 1 < "), "{}", error(&child));
    assert_eq!(result(&answer, &child)["txid"], child.compute_txid().to_string());

    let dear = pay(&[site.coin(0)], &[COIN - 100_000]);
    let answer = submit(&site, "", &[&dear]).json();
    assert_eq!(answer["replaced-transactions"], json!([good.compute_txid().to_string()]));
    assert_eq!(answer["package_msg"], "success");
}

#[test]
fn a_sender_can_limit_feerate_and_burning() {
    let site = Site::new();
    let dear = pay(&[site.coin(0)], &[COIN - 2_000_000]);
    let answer = submit(&site, "", &[&dear]).json();
    assert_eq!(result(&answer, &dear)["error"], "max feerate exceeded");
    assert_eq!(site.get("/mempool").json()["count"], 0);
    assert_eq!(submit(&site, "?maxfeerate=0", &[&dear]).json()["package_msg"], "success");
    let cheap = payment(site.coin(1));
    assert_eq!(
        result(&submit(&site, "?maxfeerate=0.00001", &[&cheap]).json(), &cheap)["error"],
        "max feerate exceeded"
    );
    assert_eq!(submit(&site, "?x=y&maxfeerate=0.2&maxburnamount=1", &[&cheap]).json()["package_msg"], "success");

    let mut burns = pay_padded(&[site.coin(2)], &[COIN - 10_000], 5);
    burns.output[1].value = bitcoin::Amount::from_sat(1_000);
    let seen = submit(&site, "", &[&burns]);
    let text = "submitpackage RPC error: {\"code\":-25,\"message\":\"Unspendable output exceeds maximum configured by user \
                (maxburnamount)\"}";
    assert_eq!((seen.status, seen.text()), (400, text));
    assert_eq!(submit(&site, "?maxburnamount=0.00001", &[&burns]).status, 200);
    for query in
        ["maxfeerate=x", "maxfeerate=", "maxfeerate=-1", "maxfeerate=NaN", "maxfeerate=inf", "maxfeerate=1e999"]
    {
        let seen = submit(&site, &format!("?{query}"), &[&cheap]);
        assert_eq!((seen.status, seen.text()), (400, "Invalid maxfeerate"), "{query}");
    }
    let seen = submit(&site, "?maxburnamount=x", &[&cheap]);
    assert_eq!((seen.status, seen.text()), (400, "Invalid maxburnamount"));
}

#[test]
fn what_is_no_package_is_refused() {
    let site = Site::new();
    let good = serialize_hex(&payment(site.coin(0)));
    let many = json!(vec![good.clone(); 26]).to_string();
    let missing = pay(&[OutPoint { vout: 99, ..site.coin(0) }], &[1_000]);
    for (body, text) in [
        (many.as_str(), "Exceeded maximum of 25 transactions"),
        (&json!([good, "00"]).to_string(), "Invalid transaction size for item 1"),
        (&json!(["0".repeat(800_000)]).to_string(), "Invalid transaction size for item 0"),
        (&json!([good, "zz".repeat(100)]).to_string(), "Invalid transaction hex for item 1"),
        (&json!(["0".repeat(121)]).to_string(), "Invalid transaction hex for item 0"),
    ] {
        let seen = site.post("/txs/package", body);
        assert_eq!((seen.status, seen.text()), (400, text));
    }
    for body in ["", "{}", "[1]", "[null]", "[", "[\"", "null", &good, "[[]]"] {
        let seen = site.post("/txs/package", body);
        assert_eq!(seen.status, 400, "{body}");
        assert!(seen.text().starts_with("Invalid package: "), "{}", seen.text());
    }
    assert_eq!(site.post("/txs/package", [0xff, 0xfe]).status, 400);
    let seen = site.post("/txs/package", "[]");
    let empty =
        "submitpackage RPC error: {\"code\":-8,\"message\":\"Array must contain between 1 and 25 transactions.\"}";
    assert_eq!((seen.status, seen.text()), (400, empty));
    let seen = site.post("/txs/package", json!(["00".repeat(100)]).to_string());
    let decode = "submitpackage RPC error: {\"code\":-22,\"message\":\"TX decode failed. Make sure the tx has at least one input.\"}";
    assert_eq!((seen.status, seen.text()), (400, decode));
    // No child with its parents: nothing is looked at.
    let (one, other) = (payment(site.coin(1)), payment(site.coin(2)));
    let topology = "submitpackage RPC error: {\"code\":-25,\"message\":\"package topology disallowed. not child-with-parents or \
                    parents depend on each other.\"}";
    for package in [[&one, &other], [&one, &one]] {
        let seen = submit(&site, "", &package);
        assert_eq!((seen.status, seen.text()), (400, topology));
    }
    let child = pay(&[first_output(&one)], &[COIN - 2_000]);
    let twice = pay(&[first_output(&one), site.coin(1)], &[COIN - 2_000]);
    for (package, message) in
        [(vec![&one, &one, &child], "package-contains-duplicates"), (vec![&one, &twice], "conflict-in-package")]
    {
        let answer = submit(&site, "", &package).json();
        assert_eq!(answer["package_msg"], message);
        assert!(package.iter().all(|one| result(&answer, one)["error"] == "package-not-validated"), "{answer}");
    }
    // Coins that nobody knows are no success, of one nor of two.
    let child = pay(&[first_output(&missing)], &[500]);
    let answer = submit(&site, "", &[&missing, &child]).json();
    assert_eq!(answer["package_msg"], "transaction failed");
    for transaction in [&missing, &child] {
        assert_eq!(result(&answer, transaction)["error"], "bad-txns-inputs-missingorspent");
    }
    let answer = submit(&site, "", &[&missing]).json();
    assert_eq!(answer["package_msg"], "transaction failed");
    assert!(result(&answer, &missing)["error"].as_str().unwrap().starts_with("bad-txns-inputs-missingorspent"));
    assert_eq!(site.get("/mempool").json()["count"], 0);
    assert_eq!(site.get("/txs/package").status, 404);
}
