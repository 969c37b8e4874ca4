//! The way in and the way out over REST: what is handed out, and what is refused and why.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use bitcoin::{Address, Amount, BlockHash, Network, OutPoint, Script, ScriptBuf, Txid};
use causeway_chainspec::{BitcoinHeight, Height};
use causeway_consensus::ChainView;
use causeway_consensus::peg::proof::InclusionProof;
use causeway_consensus::peg::script::{DepositTerms, EpochScripts};
use causeway_consensus::state::Index;
use serde_json::json;

use super::site::{COIN, COINS, Site, spec};
use crate::rest::peg::{BitcoinSource, SourceStanding};
use crate::rest::server::Times;
use crate::testing::deposit_fee;

pub(super) const DESTINATION: &str = "bcrt1qwhut48lywz7dlwyenq2fnlztc8eq88qq36sr3y";
pub(super) const REFUND_KEY: &str = "5440fc2041285d35ce5d70ab960ddaef1985ed413d82e14e35c0ccc84e1f4e38";
pub(super) const DEPOSIT: &str = "1111111111111111111111111111111111111111111111111111111111111111:0";

/// The last block of Bitcoin that the chain knows.
const SEEN: BitcoinHeight = BitcoinHeight(3);

/// A Bitcoin node that says what it is told to say.
pub(super) struct Fake {
    standing: Mutex<SourceStanding>,
    registered: Mutex<Vec<(ScriptBuf, DepositTerms)>>,
}

impl Fake {
    fn new() -> Arc<Self> {
        let tip = (SEEN, spec().bitcoin().header().block_hash());
        let standing = SourceStanding { reliable: true, words: "it is followed".to_owned(), tip };
        Arc::new(Self { standing: Mutex::new(standing), registered: Mutex::default() })
    }
}

#[async_trait::async_trait]
impl BitcoinSource for Fake {
    fn standing(&self) -> SourceStanding {
        self.standing.lock().unwrap().clone()
    }

    async fn register(&self, script: ScriptBuf, terms: DepositTerms) -> Result<(), String> {
        self.registered.lock().unwrap().push((script, terms));
        Ok(())
    }

    fn deposit(&self, outpoint: &OutPoint) -> Option<(BitcoinHeight, Amount)> {
        (outpoint.to_string() == DEPOSIT).then_some((SEEN, Amount::from_sat(70_000)))
    }

    fn deposits_to(&self, script: &Script) -> Vec<(OutPoint, BitcoinHeight, Amount)> {
        let registered = self.registered.lock().unwrap().iter().any(|(known, _)| **known == *script);
        let seen = (DEPOSIT.parse().unwrap(), BitcoinHeight(0), Amount::from_sat(70_000));
        registered.then_some(seen).into_iter().collect()
    }

    fn confirmed(&self, _: &Txid) -> Option<BitcoinHeight> {
        None
    }

    async fn prove(&self, _: BlockHash, _: Txid) -> Result<Option<InclusionProof>, String> {
        Ok(None)
    }
}

pub(super) fn site() -> (Site, Arc<Fake>) {
    let fake = Fake::new();
    (Site::beside(Some(Arc::clone(&fake) as Arc<dyn BitcoinSource>), Times::default(), Index::All), fake)
}

fn address_request() -> String {
    json!({"destination": DESTINATION, "refund_key": REFUND_KEY}).to_string()
}

#[test]
fn a_deposit_address_is_that_of_its_terms_and_is_watched_before_it_is_shown() {
    let (site, fake) = site();
    let answer = site.post("/v1/peg-in/address", address_request()).json();
    let registered = fake.registered.lock().unwrap();
    let (script, terms) = registered.first().unwrap();
    let expected = EpochScripts::build(spec().federation()).deposit_script(spec().chain_id(), terms);
    assert_eq!(*script, expected);
    assert_eq!(answer["script_pubkey"], expected.to_hex_string());
    assert_eq!(answer["epoch"], 1);
    assert_eq!(answer["worthless"], true);
    assert_eq!(answer["min_amount"], spec().params().peg_in_min.to_sat());
    assert_eq!(answer["confirmations_needed"], spec().params().final_depth);
    assert_eq!(answer["estimated_seconds"], serde_json::Value::Null);
    assert_eq!(terms.refund_key.to_string(), REFUND_KEY);
}

#[test]
fn no_address_is_handed_out_that_nobody_would_watch() {
    let without = Site::new();
    let refused = without.post("/v1/peg-in/address", address_request());
    assert_eq!(refused.status, 501);
    assert!(refused.text().contains("no Bitcoin node"), "{}", refused.text());

    let (site, fake) = site();
    site.node.node().sync_target = Some(Height(500));
    let refused = site.post("/v1/peg-in/address", address_request());
    assert_eq!((refused.status, refused.text().contains("102 of 500")), (503, true), "{}", refused.text());
    site.node.node().sync_target = None;

    fake.standing.lock().unwrap().reliable = false;
    fake.standing.lock().unwrap().words = "block 5 of 9 is done".to_owned();
    let refused = site.post("/v1/peg-in/address", address_request());
    assert_eq!((refused.status, refused.text().contains("block 5 of 9")), (503, true), "{}", refused.text());
    fake.standing.lock().unwrap().reliable = true;

    fake.standing.lock().unwrap().tip.0 = BitcoinHeight(100);
    let refused = site.post("/v1/peg-in/address", address_request());
    assert_eq!((refused.status, refused.text().contains("Bitcoin is at 100")), (503, true), "{}", refused.text());
    assert!(fake.registered.lock().unwrap().is_empty());
}

#[test]
fn what_is_malformed_is_named() {
    let (site, _) = site();
    let cases = [
        ("/v1/peg-in/address", "{".to_owned(), "JSON"),
        ("/v1/peg-in/address", json!({"destination": DESTINATION}).to_string(), "refund_key"),
        ("/v1/peg-in/address", json!({"destination": "x", "refund_key": REFUND_KEY}).to_string(), "destination"),
        ("/v1/peg-in/address", json!({"destination": DESTINATION, "refund_key": "00"}).to_string(), "refund_key"),
        (
            "/v1/peg-in/address",
            json!({"destination": "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "refund_key": REFUND_KEY}).to_string(),
            "destination",
        ),
        ("/v1/peg-in/address", json!({"destination": DESTINATION, "refund_key": REFUND_KEY, "x": 1}).to_string(), "x"),
        ("/v1/peg-in/claim", json!({"encoded": "zz"}).to_string(), "encoded"),
        ("/v1/peg-in/claim", json!({"encoded": "00"}).to_string(), "encoded"),
        ("/v1/peg-in/claim", json!({"destination": DESTINATION}).to_string(), "txid"),
    ];
    for (path, body, word) in cases {
        let refused = site.post(path, body.clone());
        assert_eq!(refused.status, 400, "{body}: {}", refused.text());
        assert!(refused.text().contains(word), "{body}: {}", refused.text());
    }
    for path in ["/v1/peg-in/xy", "/v1/peg-out/1:2:3", "/v1/peg-out/address/nothing", "/v1/batches/x"] {
        assert_eq!(site.get(path).status, 400, "{path}");
    }
    let other = "2222222222222222222222222222222222222222222222222222222222222222:1";
    for path in [format!("/v1/peg-in/{other}"), format!("/v1/peg-out/{other}"), "/v1/batches/1".to_owned()] {
        assert_eq!(site.get(&path).status, 404, "{path}");
    }
}

#[test]
fn a_deposit_that_was_seen_is_on_its_way() {
    let (site, _) = site();
    let answer = site.get(&format!("/v1/peg-in/{DEPOSIT}")).json();
    assert_eq!(answer["state"], "confirming");
    assert_eq!(answer["amount"], 70_000);
    assert_eq!(answer["confirmations"], 1);
    assert_eq!(answer["confirmations_needed"], spec().params().final_depth);
}

#[test]
fn deposits_to_an_address_are_listed_by_who_handed_it_out() {
    let (site, _) = site();
    let scripts = EpochScripts::build(spec().federation());
    let other = Address::from_script(scripts.main_script(), Network::Regtest).unwrap();
    assert_eq!(site.get(&format!("/v1/peg-in/address/{other}")).json()["deposits"], json!([]));
    let address = site.post("/v1/peg-in/address", address_request()).json()["address"].clone();
    let answer = site.get(&format!("/v1/peg-in/address/{}", address.as_str().unwrap())).json();
    assert_eq!(answer["address"], address);
    assert_eq!(answer["deposits"], json!([{ "deposit": DEPOSIT, "amount": 70_000, "bitcoin_height": 0 }]));
    let refused = site.get("/v1/peg-in/address/bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4");
    assert_eq!((refused.status, refused.text().contains("address")), (400, true), "{}", refused.text());
    assert_eq!(Site::new().get(&format!("/v1/peg-in/address/{other}")).status, 501);
}

#[test]
fn credited_deposits_are_listed_up_to_the_tip() {
    let (site, _) = site();
    let tip = json!({"height": 102, "hash": site.store.tip().hash().to_string()});
    for (path, since) in [("/v1/peg-ins", 0), ("/v1/peg-ins?since=101", 101)] {
        let answer = site.get(path).json();
        assert_eq!((&answer["tip"], &answer["since"], &answer["to"]), (&tip, &json!(since), &json!(102)), "{path}");
        let listed = answer["peg_ins"].as_array().unwrap();
        assert_eq!(listed.len(), COINS as usize, "{path}");
        let deposits: HashSet<_> = listed.iter().map(|listed| listed["deposit"].as_str().unwrap()).collect();
        assert_eq!(deposits.len(), listed.len(), "{path}");
        for listed in listed {
            assert_eq!((&listed["credited"], &listed["state"]), (&json!(102), &json!("credited")));
            assert_eq!(listed["terms"]["epoch"], 1);
        }
    }
    for (path, since) in [("/v1/peg-ins?since=102", 102), ("/v1/peg-ins?since=500", 500)] {
        let expected = json!({"tip": tip, "since": since, "to": 102, "peg_ins": []});
        assert_eq!(site.get(path).json(), expected, "{path}");
    }
    for path in ["/v1/peg-ins?since=x", "/v1/peg-ins?since=-1", "/v1/peg-ins?since=4294967296", "/v1/peg-ins?from=1"] {
        assert_eq!(site.get(path).status, 400, "{path}");
    }
}

#[test]
fn the_federation_and_its_accounts() {
    let (site, _) = site();
    let federation = site.get("/v1/federation").json();
    assert_eq!(federation["chain_id"], spec().chain_id().block_hash().to_string());
    assert_eq!(federation["epochs"][0]["members"].as_array().unwrap().len(), spec().federation().members().len());
    assert_eq!(federation["epochs"][0]["threshold"], spec().federation().threshold());
    let reserves = site.get("/v1/reserves").json();
    let fee = deposit_fee(site.store.tip().peg()).to_sat();
    let coins = u64::from(COINS);
    for (name, value) in [("locked", COIN + fee), ("owed", COIN), ("circulating", COIN), ("fee_pot", fee)] {
        assert_eq!(reserves[name], coins * value, "{name}");
    }
    for name in ["waiting", "in_flight", "deficit", "charges", "difference"] {
        assert_eq!(reserves[name], 0, "{name}");
    }
    assert_eq!(site.get("/v1/batches?state=open").json()["batches"], json!([]));
    assert_eq!(site.get("/v1/batches").json()["batches"], json!([]));
    let address = site.get(&format!("/v1/peg-out/address/{DESTINATION}")).json();
    let expected = spec().peg_out_address(DESTINATION.parse().unwrap()).unwrap();
    assert_eq!(address["address"], expected.to_string());
    assert_eq!(address["min_amount"], spec().params().peg_out_min.to_sat());
}
