//! The member's own Causeway node: what the daemon asks it, over REST.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::hashes::Hash as _;
use bitcoin::hex::FromHex;
use bitcoin::{Amount, BlockHash, OutPoint, ScriptBuf, XOnlyPublicKey};
use bytes::Bytes;
use causeway_chainspec::ChainId;
use causeway_consensus::bft::CommitCertificate;
use causeway_consensus::peg::batch::Batch;
use causeway_consensus::peg::script::DepositTerms;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::StatusCode;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

use crate::approve::{BitcoinPoint, BlockPoint};
use crate::bitcoind::Endpoint;

/// Most bytes of an answer: ten open batches of 16 inputs, 82 payees and many versions have about a megabyte.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Most open batches: the bounds of a chainspec on refreshes and payouts together.
const BATCHES_MAX: usize = 200;

/// Most deposits of one answer: a page, and what more a block can credit.
const PEG_INS_MAX: usize = 5_000;

/// Most characters of a reason that is shown.
const TEXT_CHARS_MAX: usize = 300;

/// Why the node gave no answer.
#[expect(missing_docs, reason = "every variant is documented, and its message names its fields")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// No connection.
    #[error("the node at {url} cannot be reached: start it, or correct url under [node] in federation.toml")]
    Unreachable {
        url: NodeUrl,
        #[source]
        source: std::io::Error,
    },
    /// The connection broke, or it speaks no HTTP.
    #[error("the node at {url} broke off its answer: check that a Causeway node listens there")]
    Broken {
        url: NodeUrl,
        #[source]
        source: Option<hyper::Error>,
    },
    /// No answer in time.
    #[error("the node at {url} gave no answer within {} s: it is overloaded or hangs", after.as_secs())]
    Deadline { url: NodeUrl, after: Duration },
    /// Another status than 200.
    #[error("the node at {url} answers {path} with HTTP status {status}: use a node of this version, with the peg")]
    Status { url: NodeUrl, path: &'static str, status: u16 },
    /// Too many bytes, or not what this path answers.
    #[error("the node at {url} answers {path} with something else: use a node of this version")]
    Malformed { url: NodeUrl, path: &'static str },
}

/// Where the node's REST listens: `http://host:port`, without a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeUrl(Endpoint);

/// Text that is no [`NodeUrl`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not the address of a node: write http://IP:port, without a path; HTTPS is not spoken, the node belongs on this machine"
)]
pub struct NodeUrlError;

impl FromStr for NodeUrl {
    type Err = NodeUrlError;

    fn from_str(text: &str) -> Result<Self, NodeUrlError> {
        let rest = text.strip_prefix("http://").ok_or(NodeUrlError)?;
        rest.strip_suffix('/').unwrap_or(rest).parse().map(Self).map_err(|_| NodeUrlError)
    }
}

impl fmt::Display for NodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.0)
    }
}

impl NodeUrl {
    /// Whether what is asked stays on this machine, as far as the text says.
    pub fn is_loopback(&self) -> bool {
        self.0.is_loopback()
    }
}

/// The open batches, of one state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenBatches {
    /// The last final block.
    pub tip: BlockPoint,
    /// Why the peg is frozen, if it is.
    pub frozen: Option<String>,
    /// The batches, by number.
    pub batches: Vec<Batch>,
}

/// Deposits that were credited, of one state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PegIns {
    /// The last final block.
    pub tip: BlockPoint,
    /// Up to this block, none is missing.
    pub to: u32,
    /// Those above the block that was asked for, in the order of their credits.
    pub peg_ins: Vec<NodeDeposit>,
}

/// A deposit that was credited, as a node says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeDeposit {
    /// Which output on Bitcoin it is.
    pub outpoint: OutPoint,
    /// Its value.
    pub value: Amount,
    /// The height of the Causeway block that credited it.
    pub credited: u32,
    /// Its block on Bitcoin. The hash is zero, which is no block's, if the node knows of none there.
    pub block: BitcoinPoint,
    /// What its script commits to; None once a batch that spends it is deep.
    pub terms: Option<DepositTerms>,
    /// Whether a batch spends it, open or closed.
    pub in_batch: bool,
}

/// What the daemon asks its own node.
#[async_trait]
pub trait NodeView: Send + Sync {
    /// The chain that the node follows.
    async fn chain(&self) -> Result<ChainId, NodeError>;

    /// The open batches.
    async fn open_batches(&self) -> Result<OpenBatches, NodeError>;

    /// The deposits credited above this height: all of them, or those of the next blocks.
    async fn peg_ins(&self, since: u32) -> Result<PegIns, NodeError>;

    /// The block at this height; None above the tip.
    async fn block_hash(&self, height: u32) -> Result<Option<BlockHash>, NodeError>;

    /// The certificate of this height, not verified; None if the height has none.
    async fn certificate(&self, height: u32) -> Result<Option<CommitCertificate>, NodeError>;
}

/// A node over REST.
#[derive(Debug)]
pub struct RestNode {
    url: NodeUrl,
    deadline: Duration,
    /// The chain must be asked for again: the node may be another one.
    unknown: AtomicBool,
    chain: std::sync::Mutex<Option<ChainId>>,
}

#[derive(Deserialize)]
struct StatusJson {
    chain_id: BlockHash,
}

#[derive(Deserialize)]
struct BatchesJson {
    tip: BlockPoint,
    frozen: Option<String>,
    batches: Vec<BatchJson>,
}

#[derive(Deserialize)]
struct BatchJson {
    encoded: String,
}

#[derive(Deserialize)]
struct PegInsJson {
    tip: BlockPoint,
    to: u32,
    peg_ins: Vec<PegInJson>,
}

#[derive(Deserialize)]
struct PegInJson {
    deposit: OutPoint,
    amount: u64,
    credited: u32,
    bitcoin_height: u32,
    bitcoin_hash: Option<BlockHash>,
    state: PegInState,
    terms: Option<TermsJson>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PegInState {
    Credited,
    Batched,
    Swept,
}

#[derive(Deserialize)]
struct TermsJson {
    epoch: u32,
    destination: ScriptBuf,
    refund_key: XOnlyPublicKey,
}

impl From<PegInJson> for NodeDeposit {
    fn from(json: PegInJson) -> Self {
        let terms = |TermsJson { epoch, destination, refund_key }| DepositTerms { epoch, destination, refund_key };
        Self {
            outpoint: json.deposit,
            value: Amount::from_sat(json.amount),
            credited: json.credited,
            block: BitcoinPoint {
                height: json.bitcoin_height,
                hash: json.bitcoin_hash.unwrap_or_else(BlockHash::all_zeros),
            },
            terms: json.terms.map(terms),
            in_batch: json.state != PegInState::Credited,
        }
    }
}

#[derive(Deserialize)]
struct FinalityJson {
    raw: String,
}

impl RestNode {
    /// The node at this address. Connects when it is first used.
    pub fn new(url: NodeUrl) -> Self {
        Self {
            url,
            deadline: Duration::from_secs(5),
            unknown: AtomicBool::new(true),
            chain: std::sync::Mutex::default(),
        }
    }

    /// The body of an answer; None for 404.
    async fn get(&self, name: &'static str, path: &str) -> Result<Option<Bytes>, NodeError> {
        let (url, after) = (self.url.clone(), self.deadline);
        let asked = tokio::time::timeout(after, self.ask(name, path)).await;
        let answer = asked.unwrap_or(Err(NodeError::Deadline { url, after }));
        if answer.is_err() {
            self.unknown.store(true, Ordering::SeqCst);
        }
        answer
    }

    async fn ask(&self, name: &'static str, path: &str) -> Result<Option<Bytes>, NodeError> {
        let url = || self.url.clone();
        let broken = |source| NodeError::Broken { url: url(), source: Some(source) };
        let unreachable = |source| NodeError::Unreachable { url: url(), source };
        let stream = TcpStream::connect(self.url.0.to_string()).await.map_err(unreachable)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let driver = tokio::spawn(async move {
            // Its error reaches the request.
            let _ = connection.await;
        });
        let request = hyper::Request::get(path)
            .header(HOST, self.url.0.to_string())
            .body(Empty::<Bytes>::new())
            .map_err(|_| NodeError::Broken { url: url(), source: None })?;
        let answer = sender.send_request(request).await.map_err(broken);
        let read = async {
            let answer = answer?;
            match answer.status() {
                StatusCode::OK => {}
                StatusCode::NOT_FOUND => return Ok(None),
                status => return Err(NodeError::Status { url: url(), path: name, status: status.as_u16() }),
            }
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            body.map(|body| Some(body.to_bytes())).map_err(|_| NodeError::Broken { url: url(), source: None })
        };
        let read = read.await;
        driver.abort();
        read
    }

    async fn json<T: DeserializeOwned>(&self, name: &'static str, path: &str) -> Result<Option<T>, NodeError> {
        let Some(bytes) = self.get(name, path).await? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|_| self.malformed(name))
    }

    async fn must<T: DeserializeOwned>(&self, name: &'static str) -> Result<T, NodeError> {
        let missing = || NodeError::Status { url: self.url.clone(), path: name, status: 404 };
        self.json(name, name).await?.ok_or_else(missing)
    }

    fn malformed(&self, path: &'static str) -> NodeError {
        NodeError::Malformed { url: self.url.clone(), path }
    }
}

#[async_trait]
impl NodeView for RestNode {
    async fn chain(&self) -> Result<ChainId, NodeError> {
        let known = *self.chain.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(chain) = known.filter(|_| !self.unknown.load(Ordering::SeqCst)) {
            return Ok(chain);
        }
        let status: StatusJson = self.must("/v1/status").await?;
        let chain = ChainId::from_byte_array(*AsRef::<[u8; 32]>::as_ref(&status.chain_id));
        *self.chain.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(chain);
        self.unknown.store(false, Ordering::SeqCst);
        Ok(chain)
    }

    async fn open_batches(&self) -> Result<OpenBatches, NodeError> {
        const PATH: &str = "/v1/batches?state=open";
        let answer: BatchesJson = self.must(PATH).await?;
        if answer.batches.len() > BATCHES_MAX {
            return Err(self.malformed(PATH));
        }
        let decode = |batch: &BatchJson| Batch::decode(&Vec::from_hex(&batch.encoded).ok()?);
        let batches: Option<Vec<Batch>> = answer.batches.iter().map(decode).collect();
        let batches = batches.ok_or_else(|| self.malformed(PATH))?;
        Ok(OpenBatches { tip: answer.tip, frozen: answer.frozen.map(|text| cut(&text)), batches })
    }

    async fn peg_ins(&self, since: u32) -> Result<PegIns, NodeError> {
        const PATH: &str = "/v1/peg-ins";
        let missing = || NodeError::Status { url: self.url.clone(), path: PATH, status: 404 };
        let answer: Option<PegInsJson> = self.json(PATH, &format!("{PATH}?since={since}")).await?;
        let PegInsJson { tip, to, peg_ins } = answer.ok_or_else(missing)?;
        let heights = || peg_ins.iter().map(|peg_in| peg_in.credited);
        let in_order = heights().is_sorted() && heights().all(|height| since < height && height <= to);
        if peg_ins.len() > PEG_INS_MAX || to > tip.height || !in_order {
            return Err(self.malformed(PATH));
        }
        Ok(PegIns { tip, to, peg_ins: peg_ins.into_iter().map(NodeDeposit::from).collect() })
    }

    async fn block_hash(&self, height: u32) -> Result<Option<BlockHash>, NodeError> {
        const PATH: &str = "/block-height/:height";
        let Some(bytes) = self.get(PATH, &format!("/block-height/{height}")).await? else { return Ok(None) };
        let hash = std::str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse().ok());
        hash.map(Some).ok_or_else(|| self.malformed(PATH))
    }

    async fn certificate(&self, height: u32) -> Result<Option<CommitCertificate>, NodeError> {
        const PATH: &str = "/v1/finality/:height";
        let answer: Option<FinalityJson> = self.json(PATH, &format!("/v1/finality/{height}")).await?;
        let Some(FinalityJson { raw }) = answer else { return Ok(None) };
        let bytes = Vec::from_hex(&raw).map_err(|_| self.malformed(PATH))?;
        CommitCertificate::decode(&bytes).map(Some).map_err(|_| self.malformed(PATH))
    }
}

/// Text of another program, short and without control characters.
fn cut(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests;
