//! A stranger who pays a script by transactions as long as policy lets them be.

use std::collections::HashSet;

use bdk_esplora::EsploraExt as _;
use bdk_esplora::esplora_client::Builder;
use bdk_wallet::chain::spk_client::SyncRequest;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::hashes::{Hash as _, sha256};
use bitcoin::opcodes::all::{OP_NOP, OP_PUSHNUM_1};
use bitcoin::secp256k1::SECP256K1;
use bitcoin::taproot::{LeafVersion, TaprootBuilder};
use bitcoin::{OutPoint, ScriptBuf, Transaction, Txid, Witness};
use causeway_federation::keystore::Passphrase;
use serde_json::Value;

use super::site::{COIN, Seen, Site, output, spec};
use crate::testing::pay;
use crate::wallet::Wallet;
use crate::wallet::keys::parse_mnemonic;
use crate::wallet::node::Node;
use crate::wallet::open::Look;

/// Bytes of a script in a witness: with it a transaction has nearly the 400,000 weight units of a standard one.
const LONG: usize = 388_000;

/// Of these, a block holds so many.
const IN_A_BLOCK: usize = 10;

/// A coin that whoever knows a long script may spend, and that script.
struct Long {
    script: ScriptBuf,
    script_pubkey: ScriptBuf,
    control: Vec<u8>,
}

impl Long {
    fn new() -> Self {
        let nobodys = "50929b74c1a04954b78b4b6035e97a5e078a5a0f28ec96d547bfee9ace803ac0".parse().unwrap();
        let mut script = vec![OP_NOP.to_u8(); LONG - 1];
        script.push(OP_PUSHNUM_1.to_u8());
        let script = ScriptBuf::from_bytes(script);
        let tree = TaprootBuilder::new().add_leaf(0, script.clone()).unwrap().finalize(SECP256K1, nobodys).unwrap();
        let control = tree.control_block(&(script.clone(), LeafVersion::TapScript)).unwrap().serialize();
        Self { script, script_pubkey: ScriptBuf::new_p2tr_tweaked(tree.output_key()), control }
    }

    /// Pays a script from one of these coins.
    fn pay(&self, coin: OutPoint, to: &ScriptBuf, sat: u64) -> Transaction {
        let mut transaction = pay(&[coin], &[sat]);
        transaction.input[0].witness = Witness::from_slice(&[self.script.as_bytes(), &self.control]);
        transaction.output = vec![output(to.clone(), sat)];
        transaction
    }

    /// So many of these coins, final, and what each is worth. Every final transaction pays a fee of 1,000 sat.
    fn coins(&self, site: &mut Site, count: u32) -> (Vec<OutPoint>, u64) {
        let each = (COIN - 1_000) / u64::from(count);
        assert_eq!(each * u64::from(count), COIN - 1_000);
        let mut transaction = pay(&[site.coin(0)], &[]);
        transaction.output = (0..count).map(|_| output(self.script_pubkey.clone(), each)).collect();
        site.commit(vec![transaction.clone()]);
        let txid = transaction.compute_txid();
        ((0..count).map(|vout| OutPoint { txid, vout }).collect(), each)
    }
}

fn base(script: &ScriptBuf) -> String {
    format!("/scripthash/{}", sha256::Hash::hash(script.as_bytes()))
}

fn txids(page: &Value) -> Vec<Txid> {
    page.as_array().unwrap().iter().map(|entry| entry["txid"].as_str().unwrap().parse().unwrap()).collect()
}

#[test]
fn every_client_reads_all_of_a_history_of_long_transactions() {
    let mut site = Site::new();
    let directory = tempfile::tempdir().unwrap();
    let url = site.url("");
    let path = directory.path().join("wallet");
    let passphrase = Passphrase::new("a passphrase of tests".to_owned().into()).unwrap();
    let words = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
    let node = Node::new(&url, false).unwrap();
    let mut wallet = Wallet::create(&path, &passphrase, &parse_mnemonic(words).unwrap(), spec(), &node, false).unwrap();
    let victim = wallet.address(false).unwrap().1.script_pubkey();

    let long = Long::new();
    let (coins, each) = long.coins(&mut site, 30);
    let payments: Vec<Transaction> = coins.iter().map(|coin| long.pay(*coin, &victim, each - 1_000)).collect();
    for block in payments.chunks(IN_A_BLOCK) {
        site.commit(block.to_vec());
    }
    let expected: Vec<Txid> = payments.iter().rev().map(Transaction::compute_txid).collect();

    // As anybody reads it: full pages, whatever their length.
    let base = base(&victim);
    let first = site.get(&format!("{base}/txs"));
    assert!(first.body.len() > 25 * 2 * LONG);
    let first = first.json();
    assert_eq!(txids(&first), expected[..25]);
    assert_eq!(site.get(&format!("{base}/txs/chain")).json(), first);
    let second = site.get(&format!("{base}/txs/chain/{}", expected[24])).json();
    assert_eq!(txids(&second), expected[25..]);
    assert_eq!(site.get(&format!("{base}/txs/chain/{}", expected[29])).json(), serde_json::json!([]));
    // Each is what it is by itself, all of its witness and no word of its scripts.
    let entry = &first[7];
    assert_eq!(*entry, site.get(&format!("/tx/{}", expected[7])).json());
    assert_eq!(entry["vin"][0]["witness"][0].as_str().unwrap().len(), 2 * LONG);
    for absent in ["scriptsig_asm", "inner_witnessscript_asm"] {
        assert!(entry["vin"][0].get(absent).is_none());
    }
    assert!(entry["vout"][0].get("scriptpubkey_asm").is_none());

    // bdk, as any application uses it.
    let client = Builder::new(&url).build_blocking();
    let request: SyncRequest<()> = SyncRequest::builder().spks([victim.clone()]).build();
    let found: HashSet<Txid> =
        client.sync(request, 1).unwrap().tx_update.txs.iter().map(|it| it.compute_txid()).collect();
    assert_eq!(found, expected.iter().copied().collect());

    // Our own wallet, whose file has no room for strangers' witnesses.
    wallet.sync(&node, Look::Shown).unwrap();
    assert_eq!((wallet.history().len(), wallet.balance().confirmed.to_sat()), (30, 30 * (each - 1_000)));
    assert!(std::fs::metadata(&path).unwrap().len() < 200_000);
    wallet.sync(&node, Look::Shown).unwrap();
    assert_eq!(wallet.history().len(), 30);
}

#[test]
fn what_waits_takes_its_part_of_a_page_and_no_more() {
    let mut site = Site::new();
    let victim = ScriptBuf::new_p2wpkh(&bitcoin::WPubkeyHash::from_byte_array([5; 20]));
    let long = Long::new();
    let (coins, each) = long.coins(&mut site, 15);
    site.commit(vec![long.pay(coins[12], &victim, each - 1_000)]);
    let mut waiting = Vec::new();
    for coin in &coins[..12] {
        let payment = long.pay(*coin, &victim, 20_000);
        let seen = site.post("/tx", serialize_hex(&payment));
        assert_eq!(seen.status, 200, "{}", seen.text());
        waiting.insert(0, payment.compute_txid());
    }
    let base = base(&victim);
    let shown = txids(&site.get(&format!("{base}/txs/mempool")).json());
    assert_eq!(shown, waiting[..10], "of 4 MiB");
    let all: Seen = site.get(&format!("{base}/txs"));
    assert_eq!(txids(&all.json())[..10], waiting[..10]);
    assert_eq!(all.json().as_array().unwrap().len(), 11, "the chain's part is whole");
}
