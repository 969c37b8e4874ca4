//! A light client: what it takes to be sure of a block, by the words of the OpenAPI document alone.

use bitcoin::BlockHash;
use bitcoin::hashes::{Hash, sha256, sha256d};
use bitcoin::hex::FromHex;
use bitcoin::secp256k1::schnorr::Signature;
use bitcoin::secp256k1::{Message, SECP256K1, XOnlyPublicKey};
use serde_json::{Value, json};

use super::site::{Site, spec};

fn bytes(hex: &Value) -> Option<Vec<u8>> {
    Vec::from_hex(hex.as_str()?).ok()
}

/// 32 bytes that are shown reversed.
fn reversed(hex: &Value) -> Option<Vec<u8>> {
    bytes(hex).map(|bytes| bytes.into_iter().rev().collect())
}

/// Returns the hash of the block that is final by this answer; None if it proves nothing. Knows the chain's identity, and
/// nothing of the crates here.
fn final_block(answer: &Value, chain_id: &str) -> Option<String> {
    let header = bytes(&answer["header"])?;
    let block = sha256d::Hash::hash(&header).to_byte_array().to_vec();
    if header.len() != 80 || block != reversed(&answer["block"])? || answer["chain_id"] != chain_id {
        return None;
    }
    let chain = reversed(&json!(chain_id))?;
    let height = u32::try_from(answer["height"].as_u64()?).ok()?.to_le_bytes();
    let round = u32::try_from(answer["round"].as_u64()?).ok()?.to_le_bytes();
    let message = [&chain[..], &[2], &height, &round, &[1], &block].concat();
    if message != bytes(&answer["signed"]["message"])? {
        return None;
    }
    let tag = sha256::Hash::hash(answer["signed"]["tag"].as_str()?.as_bytes()).to_byte_array();
    let digest = sha256::Hash::hash(&[&tag[..], &tag, &message].concat()).to_byte_array();

    let validators = answer["validators"].as_array()?;
    let power = |key: &str| validators.iter().find(|validator| validator["key"] == key)?["power"].as_u64();
    let total: u64 = validators.iter().map(|validator| validator["power"].as_u64()).sum::<Option<u64>>()?;
    let mut signed = 0;
    let mut seen = Vec::new();
    for signature in answer["signatures"].as_array()? {
        let key = signature["validator"].as_str()?;
        if seen.contains(&key) {
            return None;
        }
        seen.push(key);
        let public: XOnlyPublicKey = key.parse().ok()?;
        let signature = Signature::from_slice(&bytes(&signature["signature"])?).ok()?;
        SECP256K1.verify_schnorr(&signature, &Message::from_digest(digest), &public).ok()?;
        signed += power(key)?;
    }
    (3 * u128::from(signed) > 2 * u128::from(total)).then_some(answer["block"].as_str()?.to_owned())
}

#[test]
fn it_is_sure_of_a_block_from_one_answer() {
    let mut site = Site::new();
    let hash = site.commit(vec![]);
    let chain_id = spec().chain_id().block_hash().to_string();
    let answer = site.get(&format!("/v1/finality/{hash}")).json();
    assert_eq!(final_block(&answer, &chain_id), Some(hash.to_string()));
    assert_eq!(answer["validators"].as_array().unwrap().len(), spec().validators().len(), "those of the chainspec");
    for (validator, listed) in spec().validators().iter().zip(answer["validators"].as_array().unwrap()) {
        assert_eq!(*listed, json!({"key": validator.key.to_string(), "power": validator.power}));
    }
    for height in [101, 102, 103] {
        let answer = site.get(&format!("/v1/finality/{height}")).json();
        let block = site.get(&format!("/block-height/{height}"));
        assert_eq!(final_block(&answer, &chain_id).as_deref(), Some(block.text()), "{height}");
    }
}

#[test]
fn it_is_not_deceived() {
    let mut site = Site::new();
    let hash = site.commit(vec![]);
    let chain_id = spec().chain_id().block_hash().to_string();
    let honest = site.get(&format!("/v1/finality/{hash}")).json();
    let other = site.get("/v1/finality/102").json();
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut answer = honest.clone();
        change(&mut answer);
        final_block(&answer, &chain_id)
    };
    assert!(changed(&|_| {}).is_some());
    let first = |answer: &Value| answer["signatures"][0].clone();
    let lies: [&dyn Fn(&mut Value); 8] = [
        &|answer| answer["header"] = other["header"].clone(),
        &|answer| answer["block"] = other["block"].clone(),
        &|answer| answer["height"] = json!(104),
        &|answer| answer["round"] = json!(0),
        &|answer| answer["signatures"] = other["signatures"].clone(),
        &|answer| drop(answer["signatures"].as_array_mut().unwrap().pop()),
        &|answer| answer["signatures"][1] = first(answer),
        &|answer| answer["signed"]["tag"] = json!("causeway/proposal/v1"),
    ];
    for (number, lie) in lies.iter().enumerate() {
        assert_eq!(changed(lie), None, "lie {number}");
    }
    assert_eq!(final_block(&honest, &BlockHash::all_zeros().to_string()), None, "of another chain");
}
