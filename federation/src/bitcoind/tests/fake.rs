//! A bitcoind that answers as a test tells it to.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitcoin::Network;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::bitcoind::{Bitcoind, BitcoindConfig, Deadlines, Endpoint, EndpointConfig};

/// A request as it came: one call, or a batch.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) body: Value,
    pub(crate) authorization: String,
    /// The number of the connection, from 0.
    pub(crate) connection: usize,
}

impl Asked {
    pub(crate) fn method(&self) -> &str {
        let first = if self.body.is_array() { &self.body[0] } else { &self.body };
        first["method"].as_str().unwrap()
    }
}

/// What comes back.
pub(crate) enum Reply {
    /// What an honest regtest node of version 30 says: for block 0, the version and a few others.
    Honest,
    /// This result, or for a batch this list of results.
    Result(Value),
    /// A JSON-RPC error.
    Error(i32, String),
    /// This body, status 200.
    Body(Vec<u8>),
    /// This status with this header and no body.
    Status(u16, &'static str),
    /// These bytes, then the end of the connection.
    Raw(Vec<u8>),
    /// These bytes, then this again and again with pauses.
    Endless(Vec<u8>, Vec<u8>, Duration),
    /// Nothing, and the connection stays.
    Silence,
    /// An honest answer, after which the connection closes without a word of it.
    LastHonest,
}

/// The fake: listens on loopback until it is dropped.
pub(crate) struct Fake {
    pub(crate) endpoint: Endpoint,
    pub(crate) asked: Arc<Mutex<Vec<Asked>>>,
    directory: TempDir,
    task: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    pub(crate) async fn start(reply: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Fake {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(".cookie"), "__cookie__:one").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::loopback(listener.local_addr().unwrap().port());
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (log, reply) = (Arc::clone(&asked), Arc::new(reply));
        let task = tokio::spawn(async move {
            // Dropped with this task, and so are the connections.
            let mut connections = tokio::task::JoinSet::new();
            for connection in 0.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                connections.spawn(serve(stream, connection, Arc::clone(&log), Arc::clone(&reply)));
            }
        });
        Fake { endpoint, asked, directory, task }
    }

    pub(crate) fn cookie_file(&self) -> PathBuf {
        self.directory.path().join(".cookie")
    }

    pub(crate) fn config(&self) -> EndpointConfig {
        EndpointConfig { endpoint: self.endpoint.clone(), credentials_file: self.cookie_file() }
    }

    pub(crate) fn methods(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|asked| asked.method().to_owned()).collect()
    }

    pub(crate) fn count(&self, method: &str) -> usize {
        self.methods().iter().filter(|asked| *asked == method).count()
    }
}

/// A client with short deadlines.
pub(crate) fn client(endpoints: Vec<EndpointConfig>) -> Bitcoind {
    let mut config = BitcoindConfig::new(Network::Regtest, endpoints);
    config.deadlines = Deadlines { connect: Duration::from_secs(5), call: Duration::from_millis(400) };
    config.retry_after = Duration::from_secs(3_600);
    Bitcoind::new(config).unwrap()
}

async fn read(stream: &mut TcpStream) -> Option<(Value, String)> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        let mut chunk = [0; 4_096];
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let field = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).unwrap()
    };
    let length: usize = field("content-length").parse().unwrap();
    let mut body = bytes.split_off(end);
    while body.len() < length {
        let mut chunk = vec![0; length - body.len()];
        let count = stream.read(&mut chunk).await.unwrap();
        body.extend_from_slice(&chunk[..count]);
    }
    Some((serde_json::from_slice(&body).unwrap(), field("authorization")))
}

fn honest(call: &Value) -> Value {
    let genesis = bitcoin::constants::genesis_block(Network::Regtest).block_hash().to_string();
    match call["method"].as_str().unwrap() {
        "getblockhash" | "getbestblockhash" => json!(genesis),
        "getnetworkinfo" => json!({"version": 310_000, "subversion": "/Satoshi:31.0.0/", "connections": 3}),
        "getmempoolinfo" => serde_json::from_str(
            r#"{"loaded": true, "size": 1, "mempoolminfee": 0.00000100, "incrementalrelayfee": 0.00001}"#,
        )
        .unwrap(),
        method => panic!("no honest answer to {method}"),
    }
}

fn envelope(call: &Value, result: &Value) -> Value {
    json!({"jsonrpc": "2.0", "result": result, "id": call["id"]})
}

fn with_length(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

async fn serve(
    mut stream: TcpStream,
    connection: usize,
    log: Arc<Mutex<Vec<Asked>>>,
    reply: Arc<impl Fn(&Asked) -> Reply>,
) {
    while let Some((body, authorization)) = read(&mut stream).await {
        let asked = Asked { body, authorization, connection };
        log.lock().unwrap().push(asked.clone());
        let calls = |body: &Value| body.as_array().cloned();
        let (bytes, stays) = match reply(&asked) {
            reply @ (Reply::Honest | Reply::LastHonest) => {
                let answer = match calls(&asked.body) {
                    None => envelope(&asked.body, &honest(&asked.body)),
                    Some(calls) => calls.iter().map(|call| envelope(call, &honest(call))).collect(),
                };
                (with_length(answer.to_string().as_bytes()), matches!(reply, Reply::Honest))
            }
            Reply::Result(result) => {
                let answer = match calls(&asked.body) {
                    None => envelope(&asked.body, &result),
                    Some(calls) => {
                        calls.iter().zip(result.as_array().unwrap()).map(|(call, one)| envelope(call, one)).collect()
                    }
                };
                (with_length(answer.to_string().as_bytes()), true)
            }
            Reply::Error(code, message) => {
                let error = |call: &Value| json!({"jsonrpc": "2.0", "error": {"code": code, "message": message}, "id": call["id"]});
                let answer = match calls(&asked.body) {
                    None => error(&asked.body),
                    Some(calls) => calls.iter().map(error).collect(),
                };
                (with_length(answer.to_string().as_bytes()), true)
            }
            Reply::Body(body) => (with_length(&body), true),
            Reply::Status(status, header) => {
                (format!("HTTP/1.1 {status} Word\r\n{header}Content-Length: 0\r\n\r\n").into_bytes(), true)
            }
            Reply::Raw(bytes) => (bytes, false),
            Reply::Endless(first, again, pause) => {
                let mut sent = stream.write_all(&first).await;
                while sent.is_ok() {
                    tokio::time::sleep(pause).await;
                    sent = stream.write_all(&again).await;
                }
                return;
            }
            Reply::Silence => {
                std::future::pending::<()>().await;
                return;
            }
        };
        if stream.write_all(&bytes).await.is_err() || !stays {
            return;
        }
    }
}
