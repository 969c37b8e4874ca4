//! What a wallet reads of the final chain.

use bitcoin::consensus::encode::{deserialize, deserialize_hex, serialize, serialize_hex};
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::hex::FromHex;
use bitcoin::opcodes::all::{OP_CHECKSIG, OP_PUSHNUM_16, OP_RETURN};
use bitcoin::script::Builder;
use bitcoin::{
    Address, Amount, MerkleBlock, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness,
};
use causeway_chainspec::Height;
use causeway_consensus::ChainView;
use causeway_consensus::state::Index;
use serde_json::{Value, json};

use super::site::{COIN, COINS, Seen, Site, output, payments, spec};
use crate::rest::server::Times;
use crate::testing::{free_input, free_script, pay};

const FINAL: &str = "public, max-age=157784630";

#[test]
fn the_tip_and_the_blocks_below_it() {
    let mut site = Site::new();
    for _ in 0..12 {
        site.commit(vec![]);
    }
    let tip = site.store.tip();
    let height = site.get("/blocks/tip/height");
    assert_eq!((height.status, height.text(), height.keep()), (200, "113", "no-store"));
    assert_eq!(height.headers["content-type"], "text/plain");
    let hash = site.get("/blocks/tip/hash");
    assert_eq!((hash.status, hash.text()), (200, tip.hash().to_string().as_str()));

    let newest = site.get("/blocks");
    assert_eq!(newest.keep(), "no-store");
    let newest = newest.json();
    let heights = |blocks: &Value| -> Vec<u64> {
        blocks.as_array().unwrap().iter().map(|block| block["height"].as_u64().unwrap()).collect()
    };
    assert_eq!(heights(&newest), (104..=113).rev().collect::<Vec<_>>());
    for path in ["/blocks/", "/blocks/abc", "/blocks/-1", "/blocks/99999999999999999999", "/api/blocks", "/api/blocks/"]
    {
        assert_eq!(site.get(path).json(), newest, "{path}");
    }
    assert_eq!(heights(&site.get("/blocks/3").json()), [3, 2, 1, 0]);
    assert_eq!(heights(&site.get("/blocks/9").json()).len(), 10);
    assert_eq!(heights(&site.get("/blocks/0").json()), [0]);
    for path in ["/blocks/114", "/blocks/4294967296"] {
        let above = site.get(path);
        assert_eq!((above.status, above.text(), above.keep()), (404, "Block not found", "no-store"));
    }
}

#[test]
fn every_fact_of_a_block() {
    let mut site = Site::new();
    let hash = site.commit(payments(site.coin(0), 3));
    let block = site.blocks[1].clone();
    let above = site.commit(vec![]);
    let path = format!("/block/{hash}");

    let seen = site.get(&path);
    assert_eq!(seen.keep(), FINAL);
    // Its digits count, which reading them here would round.
    let facts = |seen: &Seen| {
        let mut facts = seen.json();
        assert!(facts.as_object_mut().unwrap().remove("difficulty").unwrap().is_f64());
        facts
    };
    let mut times: Vec<u32> =
        (92..=102).map(|height| site.store.header(Height(height)).unwrap().unwrap().time).collect();
    times.sort_unstable();
    let expected = json!({
        "id": hash.to_string(), "height": 102, "version": 0x2000_0000, "timestamp": block.header.time, "tx_count": 4,
        "size": block.total_size(), "weight": block.weight().to_wu(), "merkle_root": block.header.merkle_root.to_string(),
        "previousblockhash": block.header.prev_blockhash.to_string(), "mediantime": times[5],
        "nonce": block.header.nonce, "bits": 0x207f_ffff,
    });
    assert_eq!(facts(&seen), expected);
    // The same number as Core's 4.656542373906925e-10, with the digit that Core leaves out.
    assert!(seen.text().contains("\"difficulty\":4.6565423739069247e-10"), "{}", seen.text());
    assert_eq!(facts(&site.get(&format!("/api/block/{hash}/"))), expected);

    let genesis = spec().derived_block(Height(0)).unwrap();
    let of_genesis = site.get(&format!("/block/{}", genesis.block_hash())).json();
    assert_eq!(of_genesis["previousblockhash"], Value::Null);
    assert!(of_genesis.as_object().unwrap().contains_key("previousblockhash"));
    assert_eq!(of_genesis["weight"], genesis.weight().to_wu());

    assert_eq!(site.get(&format!("{path}/header")).text(), serialize_hex(&block.header));
    let raw = site.get(&format!("{path}/raw"));
    assert_eq!((raw.body, raw.headers["content-type"].as_str()), (serialize(&block), "application/octet-stream"));
    let txids: Vec<String> = block.txdata.iter().map(|tx| tx.compute_txid().to_string()).collect();
    assert_eq!(site.get(&format!("{path}/txids")).json(), json!(txids));
    assert_eq!(site.get(&format!("{path}/txid/2")).text(), txids[2]);
    assert_eq!(site.get("/block-height/102").text(), hash.to_string());
    assert_eq!(site.get("/block-height/0").text(), genesis.block_hash().to_string());

    let status = |hash: String| site.get(&format!("/block/{hash}/status"));
    let seen = status(hash.to_string());
    assert_eq!(seen.json(), json!({"in_best_chain": true, "height": 102, "next_best": above.to_string()}));
    assert_eq!(seen.keep(), FINAL);
    let seen = status(above.to_string());
    assert_eq!(seen.json(), json!({"in_best_chain": true, "height": 103, "next_best": null}));
    assert_eq!(seen.keep(), "no-store");
    let seen = status("ab".repeat(32));
    assert_eq!(seen.json(), json!({"in_best_chain": false, "height": null, "next_best": null}));
}

#[test]
fn what_is_not_there_and_what_is_no_question() {
    let site = Site::new();
    let unknown = "ab".repeat(32);
    let tip = site.store.tip().hash();
    let cases = [
        (404, "Block not found", "/block-height/102".to_owned()),
        (404, "Block not found", "/block-height/18446744073709551615".to_owned()),
        (400, "Invalid number", "/block-height/18446744073709551616".to_owned()),
        (400, "Invalid number", "/block-height/-1".to_owned()),
        (400, "Invalid number", "/block-height/x".to_owned()),
        (404, "Block not found", format!("/block/{unknown}")),
        (404, "Block not found", format!("/block/{unknown}/header")),
        (404, "Block not found", format!("/block/{unknown}/raw")),
        (404, "Block not found", format!("/block/{unknown}/txids")),
        (404, "Block not found", format!("/block/{unknown}/txid/0")),
        (404, "Block not found", format!("/block/{unknown}/txs")),
        (400, "Invalid hex string", "/block/zz".to_owned()),
        (400, "Invalid hex string", "/block/zz/status".to_owned()),
        (400, "Invalid hex string", format!("/block/{unknown}ab")),
        (404, "tx index out of range", format!("/block/{tip}/txid/2")),
        (400, "Invalid number", format!("/block/{tip}/txid/-1")),
        (400, "start index out of range", format!("/block/{tip}/txs/25")),
        (400, "start index must be a multiple of 25", format!("/block/{tip}/txs/1")),
        (404, "Transaction not found", format!("/tx/{unknown}")),
        (404, "Transaction not found", format!("/tx/{unknown}/hex")),
        (404, "Transaction not found", format!("/tx/{unknown}/raw")),
        (404, "Transaction not found or is unconfirmed", format!("/tx/{unknown}/merkle-proof")),
        (404, "Transaction not found or is unconfirmed", format!("/tx/{unknown}/merkleblock-proof")),
        (400, "Invalid hex string", "/tx/zz".to_owned()),
        (400, "Invalid hex string", "/tx/zz/status".to_owned()),
        (404, "endpoint does not exist \"/nothing\"", "/nothing".to_owned()),
        (404, "endpoint does not exist \"/api/nothing/\"", "/api/nothing/".to_owned()),
        (404, "endpoint does not exist \"/\"", "/".to_owned()),
        (404, "endpoint does not exist \"/blocks//tip\"", "/blocks//tip".to_owned()),
    ];
    for (status, body, path) in cases {
        let seen = site.get(&path);
        assert_eq!((seen.status, seen.text()), (status, body), "{path}");
        assert_eq!(seen.keep(), "no-store", "{path}");
        assert_eq!(seen.headers["content-type"], "text/plain", "{path}");
        assert_eq!(seen.headers["access-control-allow-origin"], "*", "{path}");
    }
    assert_eq!(site.get(&format!("/tx/{unknown}/status")).json(), json!({"confirmed": false}));
    let start_is_no_number = site.get(&format!("/block/{tip}/txs/abc"));
    assert_eq!(start_is_no_number.json().as_array().unwrap().len(), 2);
}

/// Rebuilds a transaction as wallets do.
fn rebuild(json: &Value) -> Transaction {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let number = |value: &Value| u32::try_from(value.as_u64().unwrap()).unwrap();
    let bytes = |value: &Value| Vec::<u8>::from_hex(value.as_str().unwrap()).unwrap();
    let input = json["vin"].as_array().unwrap().iter().map(|input| TxIn {
        previous_output: OutPoint { txid: text(&input["txid"]).parse().unwrap(), vout: number(&input["vout"]) },
        script_sig: bytes(&input["scriptsig"]).into(),
        sequence: Sequence(number(&input["sequence"])),
        witness: input.get("witness").map_or(Witness::new(), |witness| {
            Witness::from_slice(&witness.as_array().unwrap().iter().map(bytes).collect::<Vec<_>>())
        }),
    });
    let output = json["vout"].as_array().unwrap().iter().map(|output| TxOut {
        value: Amount::from_sat(output["value"].as_u64().unwrap()),
        script_pubkey: bytes(&output["scriptpubkey"]).into(),
    });
    Transaction {
        version: bitcoin::transaction::Version(i32::try_from(json["version"].as_i64().unwrap()).unwrap()),
        lock_time: bitcoin::absolute::LockTime::from_consensus(number(&json["locktime"])),
        input: input.collect(),
        output: output.collect(),
    }
}

#[test]
fn a_transaction_can_be_rebuilt_from_its_answer() {
    let mut site = Site::new();
    // Every form of a script, among them one that ends in the middle of a push.
    let key = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
    let key = bitcoin::PublicKey::from_slice(&Vec::from_hex(&format!("02{key}")).unwrap()).unwrap();
    let x_only = bitcoin::XOnlyPublicKey::from(key.inner);
    let request =
        Builder::new().push_opcode(OP_PUSHNUM_16).push_slice(*b"CWPO\x00\x14aaaaaaaaaaaaaaaaaaaa").into_script();
    let nested = free_script().to_p2sh();
    let forms = [
        ("empty", ScriptBuf::new(), 600),
        ("op_return", Builder::new().push_opcode(OP_RETURN).push_slice([1, 2]).into_script(), 0),
        ("p2pk", Builder::new().push_key(&key).push_opcode(OP_CHECKSIG).into_script(), 600),
        ("p2pkh", ScriptBuf::new_p2pkh(&key.pubkey_hash()), 600),
        ("p2sh", nested.clone(), 2_000),
        ("v0_p2wpkh", ScriptBuf::new_p2wpkh(&key.wpubkey_hash().unwrap()), 600),
        ("v0_p2wsh", free_script(), 600),
        ("v1_p2tr", ScriptBuf::new_p2tr(bitcoin::secp256k1::SECP256K1, x_only, None), 600),
        ("unknown", ScriptBuf::from_bytes(vec![0x51]), 600),
        ("unknown", ScriptBuf::from_bytes(vec![0x51, 0x4c, 0xff, 0x00]), 600),
    ];
    let mut odd = pay(&[site.coin(3)], &[]);
    odd.version = bitcoin::transaction::Version(-1);
    odd.output = forms.iter().map(|(_, script, sat)| output(script.clone(), *sat)).collect();
    let spent: u64 = odd.output.iter().map(|output| output.value.to_sat()).sum();
    odd.output.push(output(free_script(), COIN - spent - 1_000));
    let mut spends_nested = pay(&[OutPoint { txid: odd.compute_txid(), vout: 4 }], &[1_000]);
    let redeem_script = free_script();
    let redeem_push = <&bitcoin::script::PushBytes>::try_from(redeem_script.as_bytes()).unwrap().to_owned();
    spends_nested.input[0].script_sig = Builder::new().push_slice(redeem_push).into_script();
    let hash = site.commit(vec![odd.clone(), spends_nested.clone()]);
    let time = site.blocks[1].header.time;

    let whole = site.get(&format!("/tx/{}", odd.compute_txid()));
    assert_eq!(whole.keep(), FINAL);
    let json = whole.json();
    assert_eq!(rebuild(&json), odd);
    assert_eq!(json["version"], -1);
    assert_eq!(json["fee"], 1_000);
    assert_eq!(
        (json["size"].as_u64(), json["weight"].as_u64()),
        (Some(odd.total_size() as u64), Some(odd.weight().to_wu()))
    );
    let status = json!({
        "confirmed": true, "block_height": 102, "block_hash": hash.to_string(), "block_time": time
    });
    assert_eq!(json["status"], status);
    for ((name, script, sat), vout) in forms.iter().zip(json["vout"].as_array().unwrap()) {
        assert_eq!(vout["scriptpubkey_type"], *name);
        assert_eq!(vout["value"], *sat);
        assert_eq!(vout["scriptpubkey_asm"], script.to_asm_string());
        let address = Address::from_script(script, Network::Regtest).ok().map(|address| address.to_string());
        assert_eq!(vout.get("scriptpubkey_address").and_then(Value::as_str), address.as_deref());
    }
    assert!(json["vout"][5]["scriptpubkey_address"].as_str().unwrap().starts_with("bcrt1q"));
    assert!(json["vout"][5]["scriptpubkey_asm"].as_str().unwrap().starts_with("OP_0 OP_PUSHBYTES_20 "));
    assert!(Address::from_script(&request, Network::Regtest).is_ok(), "a request is an address too");
    let vin = &json["vin"][0];
    assert_eq!(vin["prevout"]["value"], COIN);
    assert_eq!(vin["prevout"]["scriptpubkey_type"], "v0_p2wsh");
    assert_eq!((&vin["scriptsig"], &vin["is_coinbase"]), (&json!(""), &json!(false)));
    assert_eq!(vin["inner_witnessscript_asm"], "OP_PUSHNUM_1");
    assert!(vin.get("inner_redeemscript_asm").is_none());

    let vin = site.get(&format!("/tx/{}", spends_nested.compute_txid())).json()["vin"][0].clone();
    assert_eq!(vin["inner_redeemscript_asm"], redeem_script.to_asm_string());
    assert_eq!(vin["inner_witnessscript_asm"], "OP_PUSHNUM_1");
    assert_eq!(vin["prevout"]["scriptpubkey_type"], "p2sh");

    for (index, transaction) in site.blocks[1].txdata.iter().enumerate() {
        let txid = transaction.compute_txid();
        assert_eq!(rebuild(&site.get(&format!("/tx/{txid}")).json()), *transaction);
        assert_eq!(site.get(&format!("/tx/{txid}/hex")).text(), serialize_hex(transaction));
        assert_eq!(deserialize::<Transaction>(&site.get(&format!("/tx/{txid}/raw")).body).unwrap(), *transaction);
        assert_eq!(site.get(&format!("/tx/{txid}/status")).json(), status, "{index}");
    }
    let coinbase = &site.get(&format!("/block/{hash}/txs")).json()[0];
    let vin = &coinbase["vin"][0];
    assert_eq!((&vin["vout"], &vin["is_coinbase"]), (&json!(4_294_967_295_u32), &json!(true)));
    assert_eq!((&vin["prevout"], &coinbase["fee"]), (&Value::Null, &json!(0)));
    assert!(vin.as_object().unwrap().contains_key("prevout"));
    // Block 1's coinbase, which is derived, is known as well.
    let allocation = spec().derived_block(Height(1)).unwrap().txdata[0].clone();
    assert_eq!(rebuild(&site.get(&format!("/tx/{}", allocation.compute_txid())).json()), allocation);
}

#[test]
fn the_transactions_of_a_block_come_in_pages() {
    let mut site = Site::new();
    let mut transactions = Vec::new();
    for coin in 0..COINS {
        transactions.extend(payments(site.coin(coin), 2));
    }
    let hash = site.commit(transactions);
    let block = &site.blocks[1];
    let mut seen = Vec::new();
    for start in (0..block.txdata.len()).step_by(25) {
        let page = site.get(&format!("/block/{hash}/txs/{start}")).json();
        let page = page.as_array().unwrap();
        assert_eq!(page.len(), 25.min(block.txdata.len() - start));
        for transaction in page.iter().skip(usize::from(start == 0)) {
            assert_eq!(transaction["fee"], 1_000);
            assert_eq!(transaction["status"]["block_hash"], hash.to_string());
        }
        seen.extend(page.iter().map(rebuild));
    }
    assert_eq!(seen, block.txdata);
    assert_eq!(site.get(&format!("/block/{hash}/txs")).json(), site.get(&format!("/block/{hash}/txs/0")).json());
    assert_eq!(site.get(&format!("/block/{hash}/txs/100")).text(), "start index out of range");
}

#[test]
fn proofs_lead_to_the_merkle_root() {
    let mut site = Site::new();
    // Odd numbers of nodes on some levels.
    for count in [0, 1, 2, 4, 6, 10] {
        let coin = site.coin(count);
        site.commit(payments(coin, count.into()));
        let block = site.blocks.last().unwrap();
        for (pos, transaction) in block.txdata.iter().enumerate() {
            let txid = transaction.compute_txid();
            let proof = site.get(&format!("/tx/{txid}/merkle-proof")).json();
            assert_eq!(proof["pos"], pos);
            assert_eq!(proof["block_height"], site.store.tip().height().to_u32());
            let mut node = txid.to_byte_array();
            let mut index = pos;
            for sibling in proof["merkle"].as_array().unwrap() {
                let sibling = sibling.as_str().unwrap().parse::<Txid>().unwrap().to_byte_array();
                let pair = if index % 2 == 0 { [node, sibling] } else { [sibling, node] };
                node = sha256d::Hash::hash(&pair.concat()).to_byte_array();
                index /= 2;
            }
            assert_eq!(index, 0);
            assert_eq!(node, block.header.merkle_root.to_byte_array(), "{count} {pos}");

            let proof = site.get(&format!("/tx/{txid}/merkleblock-proof"));
            let proof: MerkleBlock = deserialize_hex(proof.text()).unwrap();
            let (mut matches, mut places) = (vec![], vec![]);
            proof.extract_matches(&mut matches, &mut places).unwrap();
            assert_eq!((matches, places), (vec![txid], vec![u32::try_from(pos).unwrap()]));
            assert_eq!(proof.header, block.header);
        }
    }
}

#[test]
fn without_the_index_it_says_so() {
    let mut site = Site::with(Times::default(), Index::None);
    let waiting = pay(&[site.coin(0)], &[COIN - 1_000]);
    let hash = site.commit(payments(site.coin(1), 1));
    let txid = site.blocks[1].txdata[1].compute_txid();
    let paths = [
        format!("/tx/{txid}"),
        format!("/tx/{txid}/status"),
        format!("/tx/{txid}/hex"),
        format!("/tx/{txid}/merkle-proof"),
        format!("/block/{hash}/txs"),
    ];
    for path in paths {
        let seen = site.get(&path);
        assert_eq!(
            (seen.status, seen.text()),
            (400, "this node keeps no index of transactions and addresses: ask another one")
        );
    }
    // All else needs none.
    assert_eq!(site.get(&format!("/block/{hash}/txid/1")).text(), txid.to_string());
    assert_eq!(site.post("/tx", serialize_hex(&waiting)).text(), waiting.compute_txid().to_string());
    let seen = site.get(&format!("/tx/{}", waiting.compute_txid())).json();
    assert_eq!(seen["vin"][0]["prevout"]["value"], COIN);
    assert_eq!(free_input(site.coin(0)), rebuild(&seen).input[0]);
}
