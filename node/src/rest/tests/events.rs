//! `/v1/events`: what is told, in which order, and what comes again.

mod bounds;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::{Address, Amount, BlockHash, Network, OutPoint, Script, ScriptBuf, Transaction, Txid};
use causeway_chainspec::{BitcoinHeight, Height};
use causeway_consensus::ChainView;
use causeway_consensus::peg::proof::InclusionProof;
use causeway_consensus::peg::propose::Candidates;
use causeway_consensus::peg::script::DepositTerms;
use causeway_consensus::state::Index;
use futures::StreamExt;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::site::{COIN, COINS, Site, output, parts, payment, spec};
use crate::mempool::Departure;
use crate::news::Change;
use crate::rest::App;
use crate::rest::answer::Refusal;
use crate::rest::events::{EventsRefusal, Limits, Wanted, open};
use crate::rest::peg::{BitcoinSource, SourceStanding};
use crate::rest::server::Times;
use crate::testing::{burial, deposit_fee, free_script, pay};

const DESTINATION: &str = "bcrt1qwhut48lywz7dlwyenq2fnlztc8eq88qq36sr3y";

/// An event as a client sees it.
#[derive(Clone, Debug, PartialEq)]
struct Heard {
    event: String,
    id: Option<String>,
    data: Value,
}

impl Heard {
    fn id(&self) -> &str {
        self.id.as_deref().unwrap_or_default()
    }
}

/// A client of a stream.
struct Ears {
    stream: BufReader<TcpStream>,
    head: String,
    /// The last id, also of what is no event.
    last_id: String,
    heartbeats: usize,
}

impl Ears {
    /// A client that is heard: what happens from here on is told to it.
    fn open(site: &Site, query: &str, id: Option<&str>) -> Self {
        let mut ears = Self::ask(site, query, id);
        assert!(ears.head.starts_with("HTTP/1.0 200"), "{}", ears.head);
        let hello = ears.group().unwrap();
        assert_eq!(hello[0].0, "retry", "{hello:?}");
        ears
    }

    /// The answer up to its body, which ends with the connection.
    fn ask(site: &Site, query: &str, id: Option<&str>) -> Self {
        let mut stream = TcpStream::connect(site.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let id = id.map_or_else(String::new, |id| format!("Last-Event-ID: {id}\r\n"));
        stream.write_all(format!("GET /v1/events{query} HTTP/1.0\r\n{id}\r\n").as_bytes()).unwrap();
        let mut stream = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(stream.read_line(&mut head).unwrap(), 0, "{head}");
        }
        Self { stream, head, last_id: String::new(), heartbeats: 0 }
    }

    /// Lines up to an empty one; None at the end.
    fn group(&mut self) -> Option<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).unwrap() == 0 {
                assert!(fields.is_empty(), "cut off: {fields:?}");
                return None;
            }
            let line = line.strip_suffix('\n').unwrap();
            if line.is_empty() {
                if let Some((_, id)) = fields.iter().find(|(name, _)| name == "id") {
                    self.last_id.clone_from(id);
                }
                return Some(fields);
            }
            let (name, value) = line.split_once(':').unwrap();
            fields.push((name.to_owned(), value.trim_start().to_owned()));
        }
    }

    fn next(&mut self) -> Option<Heard> {
        loop {
            let fields: HashMap<_, _> = self.group()?.into_iter().collect();
            if let Some(event) = fields.get("event") {
                let data = serde_json::from_str(&fields["data"]).unwrap();
                return Some(Heard { event: event.clone(), id: fields.get("id").cloned(), data });
            }
            self.heartbeats += 1;
        }
    }

    fn hear(&mut self) -> Heard {
        self.next().expect("the stream goes on")
    }

    /// All up to the block at this height.
    fn up_to_block(&mut self, height: u32) -> Vec<Heard> {
        let mut heard = Vec::new();
        while heard.last().is_none_or(|last: &Heard| last.id() != height.to_string() || last.event != "block") {
            heard.push(self.hear());
        }
        heard
    }
}

/// The answer where there is no stream.
fn refused(site: &Site, query: &str, id: Option<&str>) -> (String, String) {
    let mut ears = Ears::ask(site, query, id);
    assert!(!ears.head.starts_with("HTTP/1.0 200"), "a stream: {query} {id:?}");
    let mut body = String::new();
    ears.stream.read_to_string(&mut body).unwrap();
    let code = ears.head.split(' ').nth(1).unwrap().to_owned();
    assert!(ears.head.contains("access-control-allow-origin: *"), "{}", ears.head);
    (code, body)
}

fn limits(limits: Limits) -> Site {
    Site::with(Times { events: limits, ..Times::default() }, Index::All)
}

fn script_hash() -> String {
    sha256::Hash::hash(free_script().as_bytes()).to_string()
}

fn submit(site: &Site, transaction: &Transaction) {
    let seen = site.post("/tx", serialize_hex(transaction));
    assert_eq!(seen.status, 200, "{}", seen.text());
}

/// A payment of a free coin, all but 1,000 sat, to the peg.
fn request(coin: OutPoint) -> Transaction {
    let script = spec().peg_out_address(DESTINATION.parse().unwrap()).unwrap().script_pubkey();
    let mut transaction = pay(&[coin], &[COIN - 1_000]);
    transaction.output = vec![output(script, COIN - 1_000)];
    transaction
}

#[test]
fn a_block_is_told_once_rest_shows_it() {
    let mut site = Site::new();
    let mut ears = Ears::open(&site, "", None);
    assert_eq!(ears.last_id, "102");
    for name in [
        "content-type: text/event-stream",
        "cache-control: no-store",
        "access-control-allow-origin: *",
        "x-accel-buffering: no",
    ] {
        assert!(ears.head.to_lowercase().contains(name), "{}", ears.head);
    }
    for height in 103..106 {
        let before = site.store.tip().hash();
        let hash = site.commit(vec![payment(site.coin(height - 103))]);
        let heard = ears.hear();
        assert_eq!((heard.event.as_str(), heard.id()), ("block", height.to_string().as_str()));
        let shown = site.get(&format!("/block/{hash}")).json();
        let expected = json!({
            "height": height, "hash": hash.to_string(), "previousblockhash": before.to_string(),
            "time": shown["timestamp"], "tx_count": 2, "size": shown["size"], "weight": shown["weight"], "round": 1,
        });
        assert_eq!(heard.data, expected);
        assert_eq!(site.get("/blocks/tip/height").text(), height.to_string());
    }
}

#[test]
fn a_transaction_from_the_mempool_to_its_block() {
    let mut site = Site::new();
    let mut ears = Ears::open(&site, "?topics=tx", None);
    let (paid, child) = (payment(site.coin(0)), payment(site.coin(1)));
    submit(&site, &paid);
    let heard = ears.hear();
    let vsize = paid.vsize();
    let txid = paid.compute_txid().to_string();
    let expected = json!({"txid": txid, "status": "mempool", "fee": 1_000, "vsize": vsize, "value": COIN - 1_000});
    assert_eq!(heard, Heard { event: "tx".to_owned(), id: Some("102".to_owned()), data: expected });

    // Replaced, and then a block holds something else.
    submit(&site, &child);
    ears.hear();
    let better = pay(&[site.coin(1)], &[COIN - 50_000]);
    submit(&site, &better);
    let removed = ears.hear().data;
    let (child, better) = (child.compute_txid().to_string(), better.compute_txid().to_string());
    assert_eq!(removed, json!({"txid": child, "status": "removed", "reason": "replaced", "by": better}));
    assert_eq!(ears.hear().data["txid"], better);
    let other = pay(&[site.coin(1)], &[COIN - 2_000, 1_000]);
    let hash = site.commit(vec![paid, other.clone()]).to_string();
    let time = site.store.tip().time();
    let is_final = |txid: String| json!({"txid": txid, "status": "final", "height": 103, "hash": hash, "time": time});
    for (index, tx) in site.blocks[2].txdata.iter().enumerate() {
        let heard = ears.hear();
        assert_eq!(
            (heard.id(), heard.data.clone()),
            (format!("103-{index}").as_str(), is_final(tx.compute_txid().to_string()))
        );
    }
    let heard = ears.hear();
    let expected =
        json!({"txid": better, "status": "removed", "reason": "conflicted", "by": other.compute_txid().to_string()});
    assert_eq!((heard.id(), &heard.data), ("103", &expected));
}

#[test]
fn scripts_are_followed_by_hash_and_by_address() {
    let mut site = Site::new();
    let mine = ScriptBuf::from_bytes(vec![0x52]).to_p2wsh();
    let address = Address::from_script(&mine, Network::Regtest).unwrap();
    let hash = sha256::Hash::hash(mine.as_bytes()).to_string();
    let mut by_address = Ears::open(&site, &format!("?script={address}"), None);
    let mut by_hash = Ears::open(&site, &format!("?topics=script&script={hash}"), None);
    let mut by_both = Ears::open(&site, &format!("?script={}%2C{address}", script_hash()), None);

    submit(&site, &payment(site.coin(0)));
    let mut to_me = pay(&[site.coin(1)], &[COIN - 1_000]);
    to_me.output[0].script_pubkey = mine;
    submit(&site, &to_me);
    let txid = to_me.compute_txid().to_string();
    for ears in [&mut by_address, &mut by_hash] {
        let heard = ears.hear();
        assert_eq!((heard.event.as_str(), heard.id()), ("script", "102"));
        assert_eq!((&heard.data["txid"], &heard.data["scripthashes"]), (&json!(txid), &json!([hash])));
        assert_eq!((&heard.data["status"], &heard.data["fee"]), (&json!("mempool"), &json!(1_000)));
    }
    assert_eq!(by_both.hear().data["scripthashes"], json!([script_hash()]));
    let both = by_both.hear();
    assert_eq!((both.data["txid"].as_str(), both.data["scripthashes"].as_array().unwrap().len()), (Some(&*txid), 2));

    let block = site.commit(vec![payment(site.coin(0)), to_me]).to_string();
    let time = site.store.tip().time();
    for ears in [&mut by_address, &mut by_hash] {
        let heard = ears.hear();
        // Three transactions, and it is the last.
        assert_eq!(heard.id(), "103-5");
        let expected = json!({
            "txid": txid, "scripthashes": [hash], "status": "final", "height": 103, "hash": block, "time": time,
        });
        assert_eq!(heard.data, expected);
    }
    let ids: Vec<String> = (0..3).map(|_| by_both.hear().id.unwrap()).collect();
    assert_eq!(ids, ["103-3", "103-4", "103-5"]);
}

#[test]
fn deposits_are_claimed_and_credited() {
    let site = Site::new();
    let mut ears = Ears::open(&site, "?topics=peg-in", Some("101"));
    let credits: Vec<Heard> = (0..COINS).map(|_| ears.hear()).collect();
    let tip = site.store.tip();
    let txid = site.blocks[1].txdata[1].compute_txid().to_string();
    let fee = deposit_fee(tip.peg()).to_sat();
    let address = Address::from_script(&free_script(), Network::Regtest).unwrap().to_string();
    for (number, heard) in (0..).zip(&credits) {
        // The block has two transactions.
        assert_eq!((heard.event.as_str(), heard.id()), ("peg-in", format!("102-{}", 4 + number).as_str()));
        let data = &heard.data;
        let expected = json!({
            "deposit": data["deposit"], "state": "credited", "amount": COIN + fee, "fee": fee, "destination": address,
            "bitcoin_height": data["bitcoin_height"], "txid": txid, "vout": 1 + number, "height": 102,
            "hash": tip.hash().to_string(),
        });
        assert_eq!(*data, expected);
        let deposit = data["deposit"].as_str().unwrap();
        assert_eq!(site.get(&format!("/v1/peg-in/{deposit}")).json()["credit"]["vout"], 1 + number);
    }
    let deposit = OutPoint { txid: Txid::all_zeros(), vout: 3 };
    let claimed = || Change::Claimed {
        deposit,
        amount: Amount::from_sat(70_000),
        destination: free_script(),
        bitcoin_height: BitcoinHeight(7),
    };
    site.node.node().pool.news().tell(claimed);
    let heard = ears.hear();
    let expected = json!({
        "deposit": deposit.to_string(), "state": "claimed", "amount": 70_000, "destination": address,
        "bitcoin_height": 7,
    });
    assert_eq!((heard.id(), &heard.data), ("102", &expected));
}

/// A Bitcoin node that has some transactions in blocks.
#[derive(Default)]
struct Fake(Mutex<HashMap<Txid, BitcoinHeight>>);

#[async_trait::async_trait]
impl BitcoinSource for Fake {
    fn standing(&self) -> SourceStanding {
        let tip = (BitcoinHeight(0), spec().bitcoin().header().block_hash());
        SourceStanding { reliable: true, words: "it is followed".to_owned(), tip }
    }

    async fn register(&self, _: ScriptBuf, _: DepositTerms) -> Result<(), String> {
        Ok(())
    }

    fn deposit(&self, _: &OutPoint) -> Option<(BitcoinHeight, Amount)> {
        None
    }

    fn deposits_to(&self, _: &Script) -> Vec<(OutPoint, BitcoinHeight, Amount)> {
        Vec::new()
    }

    fn confirmed(&self, txid: &Txid) -> Option<BitcoinHeight> {
        self.0.lock().unwrap().get(txid).copied()
    }

    async fn prove(&self, _: BlockHash, _: Txid) -> Result<Option<InclusionProof>, String> {
        Ok(None)
    }
}

/// Takes requests to their batch, and its first version into a block of Bitcoin. Returns that, and its proof for the next
/// block.
fn pay_out(site: &mut Site, requests: Vec<Transaction>, in_a_block: impl FnOnce(Txid)) -> (Transaction, Candidates) {
    site.commit(requests);
    site.commit_peg(Candidates::default());
    let tip = site.store.tip();
    let batch = tip.peg().open_batches().next().unwrap();
    let version = batch.transaction(batch.newest());
    let [headers, proof] = burial(tip.peg(), version.clone());
    in_a_block(version.compute_txid());
    site.commit_peg(headers);
    (version, proof)
}

#[test]
fn a_peg_out_from_its_request_to_its_confirmation() {
    let fake = Arc::new(Fake::default());
    let source = Arc::clone(&fake) as Arc<dyn BitcoinSource>;
    let mut site = Site::beside(Some(source), Times::default(), Index::All);
    let mut ears = Ears::open(&site, "?topics=peg-out", None);
    let requests = vec![request(site.coin(0)), request(site.coin(1))];
    let outpoints: Vec<String> = requests.iter().map(|it| format!("{}:0", it.compute_txid())).collect();
    let (version, proof) = pay_out(&mut site, requests, |txid| {
        fake.0.lock().unwrap().insert(txid, BitcoinHeight(9));
    });
    let txid = version.compute_txid().to_string();
    let store = Arc::clone(&site.store);
    let hash = |height| store.header(Height(height)).unwrap().unwrap().block_hash().to_string();
    let mut states = Vec::new();
    let mut proof = Some(proof);
    while states.iter().filter(|(state, _)| state == "confirmed").count() < 2 {
        let Heard { event, data, .. } = ears.hear();
        assert_eq!(
            (event.as_str(), &data["amount"], &data["bitcoin_address"]),
            ("peg-out", &json!(COIN - 1_000), &json!(DESTINATION))
        );
        let state = data["state"].as_str().unwrap().to_owned();
        let place = outpoints.iter().position(|outpoint| data["request"] == **outpoint).unwrap();
        if state != "requested" {
            let first = &version.output[place];
            let is_first = data["version"] == 1;
            assert_eq!((&data["batch"], &data["vout"]), (&json!(1), &json!(place)));
            assert_eq!(data["payout"].as_u64().unwrap() + data["fee"].as_u64().unwrap(), COIN - 1_000);
            assert_eq!(is_first, data["txid"] == *txid);
            assert!(!is_first || data["payout"] == first.value.to_sat());
        }
        if let Some(height) = data["height"].as_u64() {
            assert_eq!(data["hash"], hash(u32::try_from(height).unwrap()));
        }
        states.push((state, data));
        if states.iter().filter(|(state, _)| state == "paid").count() == 2
            && let Some(proof) = proof.take()
        {
            site.commit_peg(proof);
        }
    }
    let of = |state: &str, name: &str| -> Vec<Value> {
        states.iter().filter(|(is, _)| is == state).map(|(_, data)| data[name].clone()).collect()
    };
    assert_eq!(of("requested", "height"), [json!(103), json!(103)]);
    assert_eq!(of("batched", "height")[..2], [json!(104), json!(104)]);
    assert_eq!(of("batched", "version")[..2], [json!(1), json!(1)]);
    assert_eq!(of("paid", "bitcoin_height"), [json!(9), json!(9)]);
    assert_eq!(of("confirmed", "height"), [json!(106), json!(106)]);
    assert_eq!(of("confirmed", "version"), [json!(1), json!(1)]);
    let record = site.store.batch(1).unwrap().unwrap();
    let replaced: Vec<Value> = record
        .batch
        .versions
        .iter()
        .flat_map(|version| [json!(version.fixed.to_u32()), json!(version.fixed.to_u32())])
        .collect();
    assert_eq!(of("batched", "height"), replaced);
}

#[test]
fn what_comes_again_is_what_was_told_here_and_on_another_node() {
    let mut site = Site::new();
    let query = format!("?topics=block,tx,peg-in,peg-out&script={}", script_hash());
    let mut ears = Ears::open(&site, &query, Some("100"));
    site.commit(vec![payment(site.coin(5)), payment(site.coin(6))]);
    let requests = vec![request(site.coin(0)), request(site.coin(1))];
    let (_, proof) = pay_out(&mut site, requests, |_| ());
    site.commit_peg(proof);
    site.commit(vec![payment(site.coin(7))]);
    let told = ears.up_to_block(108);
    assert_eq!(told[0].id(), "101-0");
    let ids: std::collections::HashSet<&str> = told.iter().map(Heard::id).collect();
    assert_eq!(ids.len(), told.len(), "each has an id of its own");

    let mut twin = Site::new();
    for block in &site.blocks[2..] {
        twin.adopt(block.clone());
    }
    for (cut, last) in told.iter().enumerate().filter(|(cut, heard)| cut % 5 == 0 || !heard.id().starts_with("102")) {
        for node in [&site, &twin] {
            let again = if cut + 1 == told.len() {
                Vec::new()
            } else {
                Ears::open(node, &query, last.id.as_deref()).up_to_block(108)
            };
            assert_eq!(again, told[cut + 1..], "after {}", last.id());
        }
    }
    // Also by the query, and the header wins.
    let mut again = Ears::open(&site, "?last-event-id=106", None);
    assert_eq!(again.hear().id(), "107");
    let mut again = Ears::open(&site, "?last-event-id=106", Some("107"));
    assert_eq!(again.hear().id(), "108");
    // What comes after goes on without a gap.
    site.commit(vec![payment(site.coin(8))]);
    assert_eq!(again.hear().id(), "109");
    // It is the same once it lies deep below the tip.
    for _ in 0..20 {
        site.commit(vec![]);
    }
    let deep = Ears::open(&site, &query, Some("100")).up_to_block(129);
    assert_eq!(deep[..told.len()], told);
    let blocks: Vec<&str> = deep.iter().filter(|heard| heard.event == "block").map(Heard::id).collect();
    let expected: Vec<String> = (101..=129).map(|height| height.to_string()).collect();
    assert_eq!(blocks, expected);
}

#[test]
fn a_node_that_is_behind_waits_for_what_comes_after_the_id() {
    let mut site = Site::new();
    let mut ears = Ears::open(&site, "?topics=block,tx", Some("104-0"));
    submit(&site, &payment(site.coin(9)));
    assert_eq!(ears.hear().id(), "104-0", "an event without a place does not go back");
    for number in 0..3 {
        site.commit(vec![payment(site.coin(number))]);
    }
    let ids: Vec<String> = ears.up_to_block(105).into_iter().filter_map(|heard| heard.id).collect();
    assert_eq!(ids, ["104-1", "104", "105-0", "105-1", "105"]);
}

#[test]
fn who_has_missed_too_much_is_told_so() {
    let mut site = limits(Limits { replay: 2, ..Limits::default() });
    let mut ears = Ears::open(&site, "", Some("100"));
    assert_eq!((ears.hear().id(), ears.hear().id()), ("101", "102"));
    let mut ears = Ears::open(&site, "", Some("99-7"));
    let heard = ears.hear();
    assert_eq!((heard.event.as_str(), heard.id()), ("reset", "102"));
    assert_eq!((&heard.data["after"], &heard.data["height"]), (&json!("99-7"), &json!(102)));
    site.commit(vec![]);
    assert_eq!(ears.hear().id(), "103");
    let (code, text) = refused(&site, "", Some("106"));
    assert_eq!(code, "400");
    assert!(text.contains("106") && text.contains("103"), "{text}");
}
