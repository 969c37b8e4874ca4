use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::approve::tests::{batch, chain, federation, hash, point};
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
        "/block-height/170" => (200, hash(170).to_string()),
        "/v1/finality/180" => (200, format!("{{\"height\": 180, \"block\": \"{}\"}}", hash(180))),
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
    assert_eq!(node.certified(180).await.unwrap(), Some(hash(180)));
    assert_eq!(node.certified(1).await.unwrap(), None);
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
