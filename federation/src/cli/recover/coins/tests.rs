use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use bitcoin::hashes::Hash as _;
use bitcoin::{Amount, Txid, WPubkeyHash};

use super::*;
use crate::approve::tests::{chain, federation, hash};

const KEY: &str = "5440fc2041285d35ce5d70ab960ddaef1985ed413d82e14e35c0ccc84e1f4e38";

fn scripts() -> Arc<EpochScripts> {
    Arc::clone(&federation(3, 2).epochs[0])
}

fn outpoint(number: u8) -> OutPoint {
    OutPoint { txid: Txid::from_byte_array([number; 32]), vout: 1 }
}

fn deposit(number: u8) -> RecoveryCoin {
    let destination = ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([8; 20]));
    let deposit = Some(RecoveryDeposit { destination, refund_key: KEY.parse().unwrap() });
    RecoveryCoin { outpoint: outpoint(number), value: 70_000, deposit }
}

fn main_output(number: u8) -> RecoveryCoin {
    RecoveryCoin { deposit: None, ..deposit(number) }
}

fn found(coin: &RecoveryCoin, height: u32) -> FoundCoin {
    FoundCoin {
        outpoint: coin.outpoint,
        value: Amount::from_sat(coin.value),
        script_pubkey: coin_script(&scripts(), chain(), coin),
        height: BitcoinHeight(height),
        coinbase: false,
    }
}

fn sorted(listed: &[RecoveryCoin], found: &[FoundCoin], mature_only: bool) -> Result<There, RecoverError> {
    // The recovery path opens after 864 blocks.
    sort_out(chain(), &scripts(), listed.to_vec(), found, BitcoinHeight(1_000), mature_only)
}

#[test]
fn a_list_that_is_old_is_as_good_as_what_is_left_of_it() {
    let (left, swept, main) = (deposit(1), deposit(2), main_output(3));
    // What was swept since is in a main output. Somebody paid to the same address again, which was never credited.
    let again = FoundCoin { outpoint: outpoint(4), ..found(&left, 50) };
    let coins = [found(&left, 100), found(&main, 137), again];
    let there = sorted(&[left.clone(), swept.clone()], &coins, false).unwrap();
    assert_eq!(there, There { coins: vec![left.clone(), main], gone: vec![swept.outpoint] });
    let wanted = wanted_scripts(chain(), &scripts(), &[left.clone(), swept]);
    assert_eq!(wanted.len(), 2, "two deposits of the same terms have one script");
    // A wrong value or wrong terms are not the coin.
    let wrong = [RecoveryCoin { value: 1, ..left.clone() }, RecoveryCoin { deposit: None, ..left }];
    for wrong in wrong {
        assert_eq!(sorted(&[wrong], &coins[..1], false).unwrap().gone, [outpoint(1)]);
    }
}

#[test]
fn young_coins_are_an_error_or_left_out() {
    let (old, young) = (deposit(1), deposit(2));
    let coins = [found(&old, 137), found(&young, 138)];
    let listed = [old.clone(), young.clone()];
    let error = sorted(&listed, &coins, false).unwrap_err();
    assert!(
        matches!(error, RecoverError::Immature { outpoint, confirmations: 863, needed: 864 } if outpoint == young.outpoint)
    );
    assert_eq!(sorted(&listed, &coins, true).unwrap(), There { coins: vec![old], gone: vec![] });
}

/// A node with two deposits on two pages, of which the second was swept, and a third.
fn node() -> NodeUrl {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = vec![0; 4_096];
            let read = stream.read(&mut request).unwrap();
            let request = String::from_utf8_lossy(&request[..read]).into_owned();
            let body = answer(request.split(' ').nth(1).unwrap_or_default());
            let head = format!("HTTP/1.1 200 X\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream.write_all((head + &body).as_bytes());
        }
    });
    url.parse().unwrap()
}

fn answer(path: &str) -> String {
    let tip = format!("{{\"height\": 180, \"hash\": \"{}\"}}", hash(180));
    let destination = deposit(1).deposit.unwrap().destination.to_hex_string();
    let terms = format!("{{\"epoch\": 1, \"destination\": \"{destination}\", \"refund_key\": \"{KEY}\"}}");
    let shown = |number: u8, credited: u32, state: &str, terms: &str| {
        format!(
            "{{\"deposit\": \"{}\", \"amount\": 70000, \"credited\": {credited}, \"bitcoin_height\": 300, \"bitcoin_hash\": null, \"state\": \"{state}\", \"terms\": {terms}}}",
            outpoint(number)
        )
    };
    let page = |to: u32, deposits: &[String]| {
        format!("{{\"tip\": {tip}, \"to\": {to}, \"peg_ins\": [{}]}}", deposits.join(", "))
    };
    match path {
        "/v1/peg-ins?since=0" => page(160, &[shown(1, 150, "credited", &terms), shown(2, 160, "swept", "null")]),
        "/v1/peg-ins?since=160" => page(180, &[shown(3, 170, "batched", &terms)]),
        _ => format!("{{\"chain_id\": \"{}\"}}", chain()),
    }
}

#[tokio::test]
async fn a_node_lists_what_was_never_swept() {
    let url = node();
    let (coins, tip) = unswept(&url, chain(), 1).await.unwrap();
    assert_eq!((coins, tip.height), (vec![deposit(1), deposit(3)], 180));
    // What it writes is what it reads.
    let text = serde_json::to_string(&[deposit(1)]).unwrap();
    assert_eq!(serde_json::from_str::<Vec<RecoveryCoin>>(&text).unwrap(), [deposit(1)]);
    assert!(unswept(&url, chain(), 2).await.unwrap().0.is_empty());
    let other = unswept(&url, ChainId::from_byte_array([9; 32]), 1).await.unwrap_err();
    assert!(matches!(other, RecoverError::OtherChain { .. }), "{other}");
}
