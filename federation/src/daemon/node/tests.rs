use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::approve::tests::{batch, certificate, chain, federation, hash, point};
use bitcoin::hex::DisplayHex as _;

/// A node that answers with what `answer` says: status and body by path.
async fn serve(answer: impl Fn(&str) -> (u16, String) + Send + 'static) -> RestNode {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4_096];
            let read = stream.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..read]).into_owned();
            let path = request.split(' ').nth(1).unwrap_or_default();
            let (status, body) = answer(path);
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream.write_all((head + &body).as_bytes()).await;
        }
    });
    RestNode::new(url.parse().unwrap())
}

fn honest(path: &str) -> (u16, String) {
    let encoded = batch(&federation(3, 2), 5).encode();
    match path {
        "/v1/status" => (200, format!("{{\"chain_id\": \"{}\", \"height\": 180}}", chain())),
        "/v1/batches?state=open" => {
            let tip = format!("{{\"height\": 180, \"hash\": \"{}\"}}", hash(180));
            let batch = format!("{{\"number\": 5, \"state\": \"open\", \"encoded\": \"{}\"}}", encoded.as_hex());
            (200, format!("{{\"tip\": {tip}, \"frozen\": null, \"batches\": [{batch}]}}"))
        }
        "/v1/peg-ins?since=150" => {
            let tip = format!("{{\"height\": 180, \"hash\": \"{}\"}}", hash(180));
            let key = "5440fc2041285d35ce5d70ab960ddaef1985ed413d82e14e35c0ccc84e1f4e38";
            let terms = format!("{{\"epoch\": 1, \"destination\": \"0014\", \"refund_key\": \"{key}\"}}");
            let deposit = |txid: &str, height: u32, state: &str, terms: &str| {
                format!(
                    "{{\"deposit\": \"{}:1\", \"amount\": 7000, \"credited\": {height}, \"bitcoin_height\": 300, \"bitcoin_hash\": \"{}\", \"state\": \"{state}\", \"terms\": {terms}}}",
                    txid.repeat(64),
                    hash(300)
                )
            };
            let deposits = [
                deposit("1", 160, "swept", "null"),
                deposit("2", 160, "batched", &terms),
                deposit("3", 171, "credited", &terms),
            ];
            (200, format!("{{\"tip\": {tip}, \"since\": 150, \"to\": 175, \"peg_ins\": [{}]}}", deposits.join(", ")))
        }
        "/block-height/170" => (200, hash(170).to_string()),
        "/v1/finality/180" => {
            (200, format!("{{\"height\": 180, \"raw\": \"{}\"}}", certificate(point(180)).encode().as_hex()))
        }
        "/v1/finality/181" => (200, "{\"height\": 181, \"raw\": \"00\"}".to_owned()),
        _ => (404, "not found".to_owned()),
    }
}

#[tokio::test]
async fn a_node_is_asked_over_rest() {
    let node = serve(honest).await;
    assert_eq!(node.chain().await.unwrap(), chain());
    let open = node.open_batches().await.unwrap();
    assert_eq!((open.tip, open.frozen), (point(180), None));
    assert_eq!(open.batches, [batch(&federation(3, 2), 5)]);
    assert_eq!(node.block_hash(170).await.unwrap(), Some(hash(170)));
    assert_eq!(node.block_hash(999).await.unwrap(), None);
    assert_eq!(node.certificate(180).await.unwrap(), Some(certificate(point(180))));
    assert_eq!(node.certificate(1).await.unwrap(), None);
    assert!(matches!(node.certificate(181).await, Err(NodeError::Malformed { .. })));
}

#[tokio::test]
async fn credited_deposits_are_asked_for_page_by_page() {
    let node = serve(honest).await;
    let page = node.peg_ins(150).await.unwrap();
    assert_eq!((page.tip, page.to), (point(180), 175));
    let shown = page.peg_ins.iter().map(|deposit| (deposit.credited, deposit.in_batch, deposit.terms.is_some()));
    assert_eq!(shown.collect::<Vec<_>>(), [(160, true, false), (160, true, true), (171, false, true)]);
    assert_eq!(page.peg_ins[0].block, BitcoinPoint { height: 300, hash: hash(300) });
    // Deposits that are out of order, outside of what was asked for, or above the tip.
    let lies =
        [("\"credited\": 171", "\"credited\": 159"), ("171", "176"), ("\"to\": 175", "\"to\": 181"), ("160", "150")];
    for (right, wrong) in lies {
        let node = serve(move |path| {
            let (status, body) = honest(path);
            (status, body.replace(right, wrong))
        });
        let error = node.await.peg_ins(150).await.unwrap_err();
        assert!(matches!(error, NodeError::Malformed { .. }), "{wrong}: {error}");
    }
}

#[tokio::test]
async fn answers_that_are_none_are_named() {
    let node = serve(|_| (200, "<html>".to_owned())).await;
    assert!(matches!(node.chain().await, Err(NodeError::Malformed { .. })));
    assert!(matches!(node.open_batches().await, Err(NodeError::Malformed { .. })));
    assert!(matches!(node.block_hash(1).await, Err(NodeError::Malformed { .. })));
    let node = serve(|_| (503, String::new())).await;
    assert!(matches!(node.open_batches().await, Err(NodeError::Status { status: 503, .. })));
    let node = serve(|_| (404, String::new())).await;
    assert!(matches!(node.open_batches().await, Err(NodeError::Status { status: 404, .. })));
    // A batch whose transaction is not the one of its txid.
    let node = serve(|path| {
        let (status, body) = honest(path);
        let txid = batch(&federation(3, 2), 5).newest().txid;
        let bytes: &[u8; 32] = txid.as_ref();
        (status, body.replace(&bytes.to_lower_hex_string(), &"11".repeat(32)))
    })
    .await;
    assert!(matches!(node.open_batches().await, Err(NodeError::Malformed { .. })));
    let node = RestNode::new("http://127.0.0.1:1".parse().unwrap());
    let error = node.chain().await.unwrap_err();
    assert!(matches!(error, NodeError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("federation.toml"));
}

#[tokio::test]
async fn reasons_are_shown_short_and_clean() {
    let node = serve(|path| {
        let (status, body) = honest(path);
        (status, body.replace("null", &format!("\"{}\\n\\u0007\"", "x".repeat(400))))
    })
    .await;
    let frozen = node.open_batches().await.unwrap().frozen.unwrap();
    assert_eq!(frozen.chars().count(), 300);
    assert!(!frozen.chars().any(char::is_control));
}

#[test]
fn addresses_of_nodes() {
    for text in ["http://127.0.0.1:3000", "http://[::1]:3000", "http://node.example:80"] {
        assert_eq!(text.parse::<NodeUrl>().unwrap().to_string(), text);
    }
    for text in ["127.0.0.1:3000", "https://127.0.0.1:3000", "http://127.0.0.1", "http://127.0.0.1:3000/x", ""] {
        assert_eq!(text.parse::<NodeUrl>(), Err(NodeUrlError), "{text}");
    }
}
