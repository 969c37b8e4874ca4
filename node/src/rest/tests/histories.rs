//! Addresses and scripts: histories, statistics, unspent outputs, and who spent what.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::{Address, Network, OutPoint, ScriptBuf, Transaction, Txid};
use causeway_consensus::ChainView;
use causeway_consensus::state::Index;
use serde_json::{Value, json};

use super::site::{COIN, COINS, Site, output, payment};
use crate::rest::server::Times;
use crate::testing::{first_output, free_script, pay};

/// A script that is only paid.
fn receiver(number: u8) -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&bitcoin::WPubkeyHash::from_byte_array([number; 20]))
}

/// In natural order, as SHA-256 shows itself.
fn script_hash(script: &ScriptBuf) -> String {
    sha256::Hash::hash(script.as_bytes()).to_string()
}

fn address(script: &ScriptBuf) -> String {
    Address::from_script(script, Network::Regtest).unwrap().to_string()
}

/// Pays a receiver some of a coin, for a fee of 1,000 sat.
fn pay_to(coin: OutPoint, script: &ScriptBuf, sat: u64) -> Transaction {
    let mut transaction = pay(&[coin], &[COIN - sat - 1_000]);
    transaction.output.push(output(script.clone(), sat));
    transaction
}

fn post(site: &Site, transaction: &Transaction) {
    let seen = site.post("/tx", serialize_hex(transaction));
    assert_eq!(seen.status, 200, "{}", seen.text());
}

fn txids(answer: &Value) -> Vec<String> {
    answer.as_array().unwrap().iter().map(|transaction| transaction["txid"].as_str().unwrap().to_owned()).collect()
}

/// All of a history, as wallets read it: pages until one has fewer than 25.
fn read_all(site: &Site, base: &str) -> Vec<String> {
    let mut page = txids(&site.get(&format!("{base}/txs")).json());
    let mut all = page.clone();
    while page.len() >= 25 {
        page = txids(&site.get(&format!("{base}/txs/chain/{}", all.last().unwrap())).json());
        all.extend(page.iter().cloned());
    }
    all
}

/// What a script should show of the blocks, newest first, and its sums.
fn expected(site: &Site, script: &ScriptBuf) -> (Vec<String>, Value, BTreeMap<OutPoint, u64>) {
    let mut outputs: HashMap<OutPoint, u64> = HashMap::new();
    let (mut history, mut unspent) = (Vec::new(), BTreeMap::new());
    let mut sums = [0u64; 5];
    for transaction in site.blocks.iter().flat_map(|block| &block.txdata) {
        let txid = transaction.compute_txid();
        let mut is_touched = false;
        for input in &transaction.input {
            if let Some(value) = outputs.get(&input.previous_output) {
                (sums[3], sums[4], is_touched) = (sums[3] + 1, sums[4] + value, true);
                unspent.remove(&input.previous_output);
            }
        }
        for (vout, output) in (0u32..).zip(&transaction.output).filter(|(_, output)| output.script_pubkey == *script) {
            let outpoint = OutPoint { txid, vout };
            let value = output.value.to_sat();
            (sums[1], sums[2], is_touched) = (sums[1] + 1, sums[2] + value, true);
            outputs.insert(outpoint, value);
            unspent.insert(outpoint, value);
        }
        if is_touched {
            sums[0] += 1;
            history.push(txid.to_string());
        }
    }
    history.reverse();
    (history, sums_json(sums), unspent)
}

fn sums_json([tx_count, funded, funded_sum, spent, spent_sum]: [u64; 5]) -> Value {
    json!({
        "tx_count": tx_count, "funded_txo_count": funded, "funded_txo_sum": funded_sum, "spent_txo_count": spent,
        "spent_txo_sum": spent_sum,
    })
}

#[test]
fn a_history_is_read_in_pages_by_its_hash_and_by_its_address() {
    let mut site = Site::new();
    let one = receiver(1);
    for block in 0..4 {
        let coins = (block * 10..(block + 1) * 10).map(|vout| site.coin(vout));
        let mut transactions = Vec::new();
        for coin in coins {
            let payment = pay_to(coin, &one, 20_000);
            // Spent in the same block.
            transactions.push(pay(&[first_output(&payment)], &[COIN - 22_000]));
            transactions.insert(transactions.len() - 1, payment);
        }
        site.commit(transactions);
    }
    for script in [&one, &free_script()] {
        let (history, sums, unspent) = expected(&site, script);
        assert!(history.len() >= 40);
        let hashed = format!("/scripthash/{}", script_hash(script));
        let addressed = format!("/address/{}", address(script));
        for base in [&hashed, &addressed, &format!("/api{hashed}")] {
            assert_eq!(read_all(&site, base), history, "{base}");
            let first = site.get(&format!("{base}/txs"));
            assert_eq!(first.keep(), "no-store");
            let first = first.json();
            assert_eq!(first.as_array().unwrap().len(), 25);
            for path in [format!("{base}/txs/chain"), format!("{base}/txs/chain/"), format!("{base}/txs/")] {
                assert_eq!(site.get(&path).json(), first, "{path}");
            }
            // What is no txid, or one of no block, is left out.
            for last in ["zz", "0", &"ab".repeat(32)] {
                assert_eq!(site.get(&format!("{base}/txs/chain/{last}")).json(), first, "{last}");
            }
            assert_eq!(site.get(&format!("{base}/txs/mempool")).json(), json!([]));
            let oldest = history.last().unwrap();
            assert_eq!(site.get(&format!("{base}/txs/chain/{oldest}")).json(), json!([]));
            for transaction in first.as_array().unwrap() {
                let txid = transaction["txid"].as_str().unwrap();
                assert_eq!(site.get(&format!("/tx/{txid}")).json(), *transaction);
            }
            let seen = site.get(base).json();
            assert_eq!((&seen["chain_stats"], &seen["mempool_stats"]), (&sums, &sums_json([0; 5])));

            let listed = site.get(&format!("{base}/utxo")).json();
            let listed: BTreeMap<OutPoint, u64> = listed.as_array().unwrap().iter().map(unspent_of).collect();
            assert_eq!(listed, unspent);
        }
        assert_eq!(site.get(&hashed).json()["scripthash"], script_hash(script));
        assert_eq!(site.get(&addressed).json()["address"], address(script));
        assert_eq!(site.get(&hashed).json().as_object().unwrap().len(), 3);
    }
    let utxo = &site.get(&format!("/address/{}/utxo", address(&one))).json()[0];
    let txid = utxo["txid"].as_str().unwrap();
    assert_eq!(utxo["status"], site.get(&format!("/tx/{txid}/status")).json());
    assert_eq!(utxo.as_object().unwrap().len(), 4);
}

fn unspent_of(json: &Value) -> (OutPoint, u64) {
    let vout = u32::try_from(json["vout"].as_u64().unwrap()).unwrap();
    let outpoint = OutPoint { txid: json["txid"].as_str().unwrap().parse().unwrap(), vout };
    (outpoint, json["value"].as_u64().unwrap())
}

#[test]
fn a_script_that_was_never_used_is_empty() {
    let site = Site::new();
    for base in [format!("/address/{}", address(&receiver(9))), format!("/scripthash/{}", "0f".repeat(32))] {
        let seen = site.get(&base).json();
        assert_eq!((&seen["chain_stats"], &seen["mempool_stats"]), (&sums_json([0; 5]), &sums_json([0; 5])));
        for path in ["/txs", "/txs/chain", "/txs/mempool", "/utxo"] {
            assert_eq!(site.get(&format!("{base}{path}")).json(), json!([]));
        }
    }
    // Block 0's coinbase is no coin; block 1's is the reserve, which each peg transaction makes anew.
    let derived = |height| super::site::spec().derived_block(causeway_chainspec::Height(height)).unwrap();
    for (height, count) in [(0, 0), (1, 3)] {
        let script = derived(height).txdata[0].output[0].script_pubkey.clone();
        let seen = site.get(&format!("/scripthash/{}", script_hash(&script))).json();
        assert_eq!(seen["chain_stats"]["funded_txo_count"], count);
    }
}

#[test]
fn what_is_no_script_is_refused() {
    let site = Site::new();
    let mainnet = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4";
    for what in ["", "/txs", "/txs/chain", "/txs/chain/x", "/txs/mempool", "/utxo"] {
        for (path, body) in [
            ("/scripthash/zz", "Invalid scripthash"),
            ("/scripthash/abcd", "Invalid scripthash"),
            (&format!("/scripthash/{}", "ab".repeat(33)), "Invalid scripthash"),
            (&format!("/address/{mainnet}"), "Address on invalid network"),
        ] {
            let seen = site.get(&format!("{path}{what}"));
            assert_eq!((seen.status, seen.text(), seen.keep()), (400, body, "no-store"), "{path}{what}");
        }
        let seen = site.get(&format!("/address/bcrt1qnonsense{what}"));
        assert_eq!(seen.status, 400);
        assert!(!seen.text().is_empty() && !seen.text().contains('\n'));
    }
    let seen = site.get("/address-prefix/bcrt1q");
    assert_eq!((seen.status, seen.text()), (400, "address search disabled"));
    for path in [
        "/address",
        "/scripthash",
        "/address-prefix",
        "/address/x/y",
        "/scripthash/x/txs/y",
        "/address/x/txs/chain/y/z",
    ] {
        assert_eq!(site.get(path).status, 404, "{path}");
    }
}

#[test]
fn what_waits_is_in_the_history_at_once_and_never_twice() {
    let mut site = Site::new();
    let script = receiver(2);
    let base = format!("/address/{}", address(&script));
    let first = pay_to(site.coin(0), &script, 10_000);
    let second = pay_to(first_output(&first), &script, 20_000);
    // It has less than the coin that `pay_to` reckons with.
    let second = Transaction { output: vec![output(free_script(), COIN - 40_000), second.output[1].clone()], ..second };
    for (count, transaction) in [(1, &first), (2, &second)] {
        post(&site, transaction);
        assert_eq!(site.get(&base).json()["mempool_stats"]["tx_count"], count);
        let txs = site.get(&format!("{base}/txs")).json();
        assert_eq!(txids(&txs)[0], transaction.compute_txid().to_string(), "newest first");
        assert_eq!(txs[0]["status"], json!({"confirmed": false}));
        assert_eq!(site.get(&format!("{base}/txs/mempool")).json(), txs);
        assert_eq!(site.get(&format!("{base}/txs/chain")).json(), json!([]));
        assert_eq!(site.get(&format!("/tx/{}", transaction.compute_txid())).json(), txs[0]);
    }
    let seen = site.get(&base).json();
    assert_eq!(seen["chain_stats"], sums_json([0; 5]));
    assert_eq!(seen["mempool_stats"], sums_json([2, 2, 30_000, 0, 0]));
    let utxo = site.get(&format!("{base}/utxo")).json();
    assert_eq!(utxo.as_array().unwrap().len(), 2);
    assert!(utxo.as_array().unwrap().iter().all(|utxo| utxo["status"] == json!({"confirmed": false})));

    // The free script: coin 0 is spent by the mempool, which makes two others and spends one of them.
    let free = format!("/scripthash/{}", script_hash(&free_script()));
    let seen = site.get(&free).json();
    let rest = first.output[0].value.to_sat();
    assert_eq!(seen["mempool_stats"], sums_json([2, 2, rest + COIN - 40_000, 2, COIN + rest]));
    let utxo = site.get(&format!("{free}/utxo")).json();
    let listed: BTreeMap<OutPoint, u64> = utxo.as_array().unwrap().iter().map(unspent_of).collect();
    assert!(!listed.contains_key(&site.coin(0)) && !listed.contains_key(&first_output(&first)));
    assert_eq!(listed[&first_output(&second)], COIN - 40_000);

    // On disk, and the mempool has not heard of it yet.
    let fee = COIN - rest - 10_000;
    assert_eq!(fee, 1_000);
    let connected = site.commit_unnoticed(vec![first.clone()]);
    for heard in [false, true] {
        if heard {
            site.node.node().pool.connected(connected.block(), connected.tip(), crate::testing::START_S);
            assert_eq!(site.get(&base).json()["mempool_stats"], sums_json([1, 1, 20_000, 0, 0]));
        }
        assert_eq!(site.get(&base).json()["chain_stats"], sums_json([1, 1, 10_000, 0, 0]));
        let both = [second.compute_txid().to_string(), first.compute_txid().to_string()];
        assert_eq!(txids(&site.get(&format!("{base}/txs")).json()), both);
        assert_eq!(txids(&site.get(&format!("{base}/txs/mempool")).json()), both[..1]);
        assert_eq!(txids(&site.get(&format!("{base}/txs/chain")).json()), both[1..]);
        assert_eq!(site.get(&format!("{base}/utxo")).json().as_array().unwrap().len(), 2);
    }
}

/// A page of the mempool that is full, and then a block takes all of it.
#[test]
fn a_wallet_misses_nothing_when_a_block_comes_between_two_pages() {
    let mut site = Site::new();
    let script = receiver(3);
    let base = format!("/scripthash/{}", script_hash(&script));
    let payments: Vec<Transaction> = (0..30).map(|vout| pay_to(site.coin(vout), &script, 10_000)).collect();
    payments.iter().for_each(|payment| post(&site, payment));
    let first = txids(&site.get(&format!("{base}/txs")).json());
    let newest_first: Vec<String> = payments.iter().rev().map(|payment| payment.compute_txid().to_string()).collect();
    assert_eq!(first, newest_first);
    // While it still waits, what comes after it is the chain's first page.
    let last = first.last().unwrap();
    for _ in 0..3 {
        assert_eq!(site.get(&format!("{base}/txs/chain/{last}")).json(), json!([]));
    }
    // Another order: the last one that was seen is the newest, but for one that nobody has seen.
    let unseen = pay_to(site.coin(30), &script, 10_000);
    site.commit(payments.iter().rev().cloned().chain([unseen.clone()]).collect());
    let mut seen: BTreeSet<String> = first.iter().cloned().collect();
    let mut after = last.clone();
    let mut pages = 0;
    loop {
        let page = txids(&site.get(&format!("{base}/txs/chain/{after}")).json());
        seen.extend(page.iter().cloned());
        pages += 1;
        if page.len() < 25 {
            break;
        }
        after = page.last().unwrap().clone();
    }
    assert!(seen.contains(&unseen.compute_txid().to_string()));
    assert_eq!((seen.len(), pages), (31, 2));
    // From now on it is a place like any other.
    let older = txids(&site.get(&format!("{base}/txs/chain/{last}")).json());
    assert_eq!(older.len(), 25);
    assert_eq!(
        site.get(&format!("{base}/txs/chain/{last}")).json(),
        site.get(&format!("{base}/txs/chain/{last}")).json()
    );
    assert_eq!(read_all(&site, &base).len(), 31);
}

#[test]
fn at_most_fifty_of_the_mempool_come_before_the_chain() {
    let mut site = Site::new();
    let script = receiver(4);
    let base = format!("/scripthash/{}", script_hash(&script));
    site.commit(vec![pay_to(site.coin(0), &script, 10_000)]);
    let mut waiting = Vec::new();
    for vout in 1..COINS {
        let one = pay_to(site.coin(vout), &script, 10_000);
        let mut two = pay(&[first_output(&one)], &[COIN - 30_000]);
        two.output.push(output(script.clone(), 10_000));
        waiting.extend([one, two]);
    }
    waiting.iter().for_each(|transaction| post(&site, transaction));
    assert!(waiting.len() > 60);
    let txs = site.get(&format!("{base}/txs")).json();
    assert_eq!(txs.as_array().unwrap().len(), 51);
    assert_eq!(txs[50]["status"]["confirmed"], true);
    let newest: Vec<String> = waiting.iter().rev().take(50).map(|it| it.compute_txid().to_string()).collect();
    assert_eq!(txids(&txs)[..50], newest);
    assert_eq!(txids(&site.get(&format!("{base}/txs/mempool")).json()), newest);
    assert_eq!(site.get(&base).json()["mempool_stats"]["tx_count"], waiting.len());
}

#[test]
fn more_unspent_outputs_than_are_listed_are_refused() {
    let mut site = Site::new();
    let script = receiver(5);
    let path = format!("/address/{}/utxo", address(&script));
    let mut many = pay(&[site.coin(0)], &[COIN - 501_000]);
    many.output.extend((0..500).map(|_| output(script.clone(), 1_000)));
    site.commit(vec![many]);
    assert_eq!(site.get(&path).json().as_array().unwrap().len(), 500);
    let one_more = pay_to(site.coin(1), &script, 1_000);
    post(&site, &one_more);
    let too_many = |site: &Site| {
        let seen = site.get(&path);
        assert_eq!(seen.status, 400);
        assert!(seen.text().starts_with("Too many "), "{}", seen.text());
    };
    too_many(&site);
    site.commit(vec![one_more]);
    too_many(&site);
    assert_eq!(site.get(&path.replace("/utxo", "")).json()["chain_stats"]["funded_txo_count"], 501);
}

#[test]
fn who_spends_an_output() {
    let mut site = Site::new();
    let spender = pay(&[site.coin(1), site.coin(0)], &[2 * COIN - 1_000]);
    let hash = site.commit(vec![spender.clone()]);
    let waiting = pay(&[first_output(&spender), site.coin(2)], &[COIN, 2 * COIN - 5_000]);
    post(&site, &waiting);
    let split = site.coin(0).txid;
    let confirmed = json!({
        "confirmed": true, "block_height": 103, "block_hash": hash.to_string(), "block_time": site.blocks[2].header.time,
    });
    let by = |transaction: &Transaction, vin: u32, status: &Value| {
        let txid = transaction.compute_txid().to_string();
        json!({"spent": true, "txid": txid, "vin": vin, "status": status})
    };
    let unconfirmed = json!({"confirmed": false});
    let unspent = json!({"spent": false});
    let unknown = "ab".repeat(32);
    let of_spender = spender.compute_txid();
    for (path, expected, keep) in [
        (format!("/tx/{split}/outspend/1"), by(&spender, 1, &confirmed), "public, max-age=157784630"),
        (format!("/tx/{split}/outspend/2"), by(&spender, 0, &confirmed), "public, max-age=157784630"),
        (format!("/tx/{split}/outspend/3"), by(&waiting, 1, &unconfirmed), "no-store"),
        (format!("/tx/{split}/outspend/4"), unspent.clone(), "no-store"),
        (format!("/tx/{split}/outspend/4294967295"), unspent.clone(), "no-store"),
        (format!("/tx/{of_spender}/outspend/0"), by(&waiting, 0, &unconfirmed), "no-store"),
        (format!("/tx/{unknown}/outspend/0"), unspent.clone(), "no-store"),
        (format!("/tx/{of_spender}/outspends"), json!([by(&waiting, 0, &unconfirmed)]), "no-store"),
        (format!("/tx/{}/outspends", waiting.compute_txid()), json!([unspent, unspent]), "no-store"),
    ] {
        let seen = site.get(&path);
        assert_eq!((seen.json(), seen.keep()), (expected, keep), "{path}");
    }
    let all = site.get(&format!("/tx/{split}/outspends")).json();
    let all = all.as_array().unwrap();
    assert_eq!(all.len(), COINS as usize + 1);
    for (vout, one) in all.iter().enumerate() {
        assert_eq!(*one, site.get(&format!("/tx/{split}/outspend/{vout}")).json());
    }
    let refused = [
        (400, "Invalid number", format!("/tx/{split}/outspend/-1")),
        (400, "Invalid number", format!("/tx/{split}/outspend/4294967296")),
        (400, "Invalid number", format!("/tx/{split}/outspend/x")),
        (400, "Invalid hex string", "/tx/zz/outspend/0".to_owned()),
        (400, "Invalid hex string", "/tx/zz/outspends".to_owned()),
        (404, "Transaction not found", format!("/tx/{unknown}/outspends")),
    ];
    for (status, body, path) in refused {
        let seen = site.get(&path);
        assert_eq!((seen.status, seen.text()), (status, body), "{path}");
    }
    // A block takes it, and the mempool has not heard.
    let fees = 3 * COIN - 1_000 - (3 * COIN - 5_000);
    assert_eq!(fees, 4_000);
    let final_spend = payment(site.coin(3));
    post(&site, &final_spend);
    site.commit_unnoticed(vec![final_spend.clone()]);
    let seen = site.get(&format!("/tx/{split}/outspend/4")).json();
    assert_eq!(
        (&seen["txid"], &seen["status"]["block_height"]),
        (&json!(final_spend.compute_txid().to_string()), &json!(104))
    );
}

#[test]
fn without_the_index_histories_are_refused() {
    let site = Site::with(Times::default(), Index::None);
    let txid: Txid = site.coin(0).txid;
    let base = format!("/address/{}", address(&free_script()));
    let paths = ["", "/txs", "/txs/chain", "/txs/chain/x", "/txs/mempool", "/utxo"].map(|what| format!("{base}{what}"));
    let others = [format!("/tx/{txid}/outspends"), format!("/tx/{txid}/outspend/0")];
    for path in paths.iter().chain(&others) {
        let seen = site.get(path);
        let text = "this node keeps no index of transactions and addresses: ask another one";
        assert_eq!((seen.status, seen.text()), (400, text), "{path}");
    }
    // What is wrong with the question comes first.
    assert_eq!(site.get("/scripthash/zz").text(), "Invalid scripthash");
    assert_eq!(site.store.tip().height().to_u32(), 102);
}
