//! What the wallet asks of a node, over REST: plain HTTP/1.1, with bounded answers and deadlines.

use std::io::Read;
use std::net::IpAddr;

use bdk_esplora::esplora_client::{BlockingClient, Builder};
use bitcoin::consensus::encode::{deserialize, serialize_hex};
use bitcoin::{Address, Amount, BlockHash, FeeRate, OutPoint, Transaction, Txid};
use causeway_chainspec::ChainSpec;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::WalletError;
use super::amount::FeeRateArg;
use crate::devnet::client::{PegIn, PegOut};
use crate::rest::in_words;

/// The node that is asked if nothing else is said: where one listens by its default settings.
pub const DEFAULT_URL: &str = "http://127.0.0.1:29380";

/// How long an answer may take, in seconds.
const TIMEOUT_S: u64 = 30;

/// Most bytes of an answer.
const ANSWER_MAX: u64 = 8 << 20;

/// A feerate above this is asked for, not taken from the node.
const SUGGESTED_MAX: FeeRate = FeeRate::from_sat_per_kwu(500 * 250);

/// How often bdk asks again while a node is overloaded.
const RETRIES: usize = 3;

/// A node.
#[derive(Clone, Debug)]
pub struct Node {
    url: String,
}

/// The answer to `POST /v1/peg-in/address`, as far as the wallet cannot work it out by itself.
#[derive(Clone, Debug, Deserialize)]
pub struct DepositOffer {
    /// What the node says is to be paid.
    pub address: String,
    /// The epoch whose members hold what is paid.
    pub epoch: u32,
    /// Of less nothing is credited, at the feerate of this moment, in satoshi.
    pub min_amount: u64,
    /// What is kept of each deposit, at the feerate of this moment, in satoshi.
    pub fee: u64,
}

/// A deposit that a node's Bitcoin node has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenDeposit {
    /// Where it stands on Bitcoin.
    pub outpoint: OutPoint,
    /// Its value.
    pub amount: Amount,
}

/// Where a transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct TransactionStatus {
    /// Whether it is final.
    pub confirmed: bool,
    /// In which block.
    pub block_height: Option<u32>,
}

impl Node {
    /// The node at this URL, `http://host:port` with or without a path. One on another machine must be allowed: nothing
    /// protects what is asked and answered on the way.
    ///
    /// # Errors
    /// It is no such URL, or on another machine.
    pub fn new(url: &str, other_machine: bool) -> Result<Self, WalletError> {
        let wrong = |why| WalletError::NodeUrl { given: url.to_owned(), why };
        let url = url.trim().trim_end_matches('/');
        if url.starts_with("https://") {
            return Err(wrong(
                "this program speaks no TLS; give http:// and a node on this machine, or a tunnel to one",
            ));
        }
        let rest = url.strip_prefix("http://").ok_or_else(|| wrong("write http://host:port"))?;
        let authority = rest.split('/').next().unwrap_or_default();
        let plain = url.bytes().all(|byte| byte.is_ascii_graphic()) && !url.contains(['@', '?', '#']);
        let host = match authority.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
        };
        if !plain || host.is_empty() {
            return Err(wrong("write http://host:port"));
        }
        let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if !loopback && !other_machine {
            return Err(wrong(
                "it is on another machine, and plain HTTP shows everybody on the way what you have; use a tunnel (ssh -L), or give --plain-http",
            ));
        }
        Ok(Self { url: url.to_owned() })
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The client that bdk syncs with.
    pub(super) fn esplora(&self) -> BlockingClient {
        Builder::new(&self.url).timeout(TIMEOUT_S).max_retries(RETRIES).build_blocking()
    }

    /// Checks that the node is of this chain: its block 1 is the chain's identity.
    ///
    /// # Errors
    /// It is of another one, or does not answer.
    pub fn check_chain(&self, spec: &ChainSpec) -> Result<(), WalletError> {
        let path = "/block-height/1";
        let expected = spec.chain_id().block_hash();
        let got: BlockHash = self.text(path)?.parse().map_err(|_| self.unreadable(path))?;
        if got != expected {
            return Err(WalletError::OtherChain { url: self.url.clone(), got, expected });
        }
        Ok(())
    }

    /// A feerate for one of the next blocks, at least 1 sat/vB.
    ///
    /// # Errors
    /// No answer, or one that somebody should look at.
    pub fn fee_rate(&self) -> Result<FeeRate, WalletError> {
        let estimates: Value = self.json("/fee-estimates")?;
        let estimate = estimates.get("1").and_then(Value::as_f64).filter(|rate| *rate >= 1.0).unwrap_or(1.0);
        let shown = format!("{estimate:.3} sat/vB");
        let rate = shown.parse().map(|FeeRateArg(rate)| rate).unwrap_or(FeeRate::MAX);
        if rate > SUGGESTED_MAX {
            return Err(WalletError::FeeRateTooHigh { rate: shown });
        }
        Ok(rate)
    }

    /// Hands in a transaction.
    ///
    /// # Errors
    /// [`WalletError::Refused`] if the node does not take it, [`WalletError::Unknown`] if nobody knows.
    pub fn submit(&self, transaction: &Transaction) -> Result<(), WalletError> {
        let txid = transaction.compute_txid();
        let request = minreq::post(self.at("/tx")).with_body(serialize_hex(transaction));
        match self.ask(request, "/tx") {
            Ok(_) => Ok(()),
            Err(WalletError::Answer { status: 400, body, .. }) => Err(WalletError::Refused { reason: reason(&body) }),
            Err(source) => Err(WalletError::Unknown { txid, source: Box::new(source) }),
        }
    }

    /// Where a transaction stands; not confirmed if it is not known.
    ///
    /// # Errors
    /// No answer, or not that one.
    pub fn status(&self, txid: Txid) -> Result<TransactionStatus, WalletError> {
        self.json(&format!("/tx/{txid}/status"))
    }

    /// A transaction that the node knows.
    ///
    /// # Errors
    /// No answer, or another transaction.
    pub fn transaction(&self, txid: Txid) -> Result<Option<Transaction>, WalletError> {
        let path = format!("/tx/{txid}/raw");
        let bytes = match self.ask(minreq::get(self.at(&path)), &path) {
            Err(WalletError::Answer { status: 404, .. }) => return Ok(None),
            other => other?,
        };
        let transaction: Transaction = deserialize(&bytes).map_err(|_| self.unreadable(&path))?;
        if transaction.compute_txid() != txid {
            return Err(self.unreadable(&path));
        }
        Ok(Some(transaction))
    }

    /// Makes the node look for what is paid to the deposit address of these terms.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn deposit_offer(&self, destination: &Address, refund_key: &str) -> Result<DepositOffer, WalletError> {
        let path = "/v1/peg-in/address";
        let body = serde_json::json!({ "destination": destination, "refund_key": refund_key });
        let request = minreq::post(self.at(path)).with_header("Content-Type", "application/json");
        let answer = self.ask(request.with_body(body.to_string()), path)?;
        self.read(path, &answer)
    }

    /// What the node has seen at a deposit address, in blocks of Bitcoin.
    ///
    /// # Errors
    /// No answer, or not that one.
    pub fn deposits(&self, address: &Address) -> Result<Vec<SeenDeposit>, WalletError> {
        #[derive(Deserialize)]
        struct Answer {
            deposits: Vec<Seen>,
        }
        #[derive(Deserialize)]
        struct Seen {
            deposit: OutPoint,
            amount: u64,
        }
        let answer: Answer = self.json(&format!("/v1/peg-in/address/{address}"))?;
        let seen = |seen: Seen| SeenDeposit { outpoint: seen.deposit, amount: Amount::from_sat(seen.amount) };
        Ok(answer.deposits.into_iter().map(seen).collect())
    }

    /// What became of a deposit; None while it is not known.
    ///
    /// # Errors
    /// No answer, or not that one.
    pub fn peg_in(&self, deposit: OutPoint) -> Result<Option<PegIn>, WalletError> {
        self.json_if_any(&format!("/v1/peg-in/{deposit}"))
    }

    /// What became of a request; None while it is not known.
    ///
    /// # Errors
    /// No answer, or not that one.
    pub fn peg_out(&self, request: OutPoint) -> Result<Option<PegOut>, WalletError> {
        self.json_if_any(&format!("/v1/peg-out/{request}"))
    }

    /// Why nothing moves between the chains, if it does not.
    ///
    /// # Errors
    /// No answer, or not that one.
    pub fn frozen(&self) -> Result<Option<String>, WalletError> {
        let status: Value = self.json("/v1/status")?;
        Ok(status.pointer("/peg/frozen").and_then(Value::as_str).map(str::to_owned))
    }

    fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T, WalletError> {
        let answer = self.ask(minreq::get(self.at(path)), path)?;
        self.read(path, &answer)
    }

    fn json_if_any<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, WalletError> {
        match self.json(path) {
            Ok(answer) => Ok(Some(answer)),
            Err(WalletError::Answer { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn text(&self, path: &str) -> Result<String, WalletError> {
        let answer = self.ask(minreq::get(self.at(path)), path)?;
        String::from_utf8(answer).map_err(|_| self.unreadable(path))
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    fn unreadable(&self, path: &str) -> WalletError {
        WalletError::Unreadable { url: self.at(path), source: None }
    }

    fn read<T: DeserializeOwned>(&self, path: &str, body: &[u8]) -> Result<T, WalletError> {
        serde_json::from_slice(body)
            .map_err(|source| WalletError::Unreadable { url: self.at(path), source: Some(source) })
    }

    /// The body of an answer with status 200.
    fn ask(&self, request: minreq::Request, path: &str) -> Result<Vec<u8>, WalletError> {
        let url = || self.at(path);
        let request = request.with_timeout(TIMEOUT_S).with_follow_redirects(false);
        let response = request.send_lazy().map_err(|source| WalletError::NoAnswer { url: url(), source })?;
        let status = response.status_code;
        let mut body = Vec::new();
        let read = Read::take(response, ANSWER_MAX + 1).read_to_end(&mut body);
        read.map_err(|source| WalletError::Cut { url: url(), source })?;
        if body.len() as u64 > ANSWER_MAX {
            return Err(self.unreadable(path));
        }
        if status == 200 {
            return Ok(body);
        }
        let body = String::from_utf8_lossy(&body);
        let body = in_words(&body).unwrap_or_else(|| body.into_owned());
        // What is shown to people holds no control characters of somebody else.
        let body: String = body.trim().chars().filter(|c| !c.is_control()).take(300).collect();
        Err(WalletError::Answer { url: url(), status, body })
    }
}

/// The reason in a refusal as Esplora words it: the message of the JSON object in it, or all of it.
fn reason(body: &str) -> String {
    let json = body.find('{').and_then(|start| serde_json::from_str::<Value>(&body[start..]).ok());
    let message = json.as_ref().and_then(|json| json.get("message")).and_then(Value::as_str);
    message.unwrap_or(body).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nodes_on_this_machine_are_asked_without_more_ado() {
        for url in
            ["http://127.0.0.1:29380", "http://localhost:3000/", "http://[::1]:80/api", "http://127.9.9.9", DEFAULT_URL]
        {
            let node = Node::new(url, false).unwrap();
            assert!(!node.url().ends_with('/'), "{url}");
        }
        for url in [
            "http://10.0.0.1:29380",
            "http://example.org",
            "http://127.0.0.1.example.org:1",
            "http://localhost.example.org",
        ] {
            assert!(Node::new(url, false).unwrap_err().to_string().contains("--plain-http"), "{url}");
            Node::new(url, true).unwrap();
        }
        for url in [
            "https://127.0.0.1",
            "127.0.0.1:29380",
            "http://",
            "http://:80",
            "ftp://localhost",
            "",
            "http://u@localhost",
            "http://localhost/?x",
            "http://local host",
        ] {
            assert!(matches!(Node::new(url, true), Err(WalletError::NodeUrl { .. })), "{url}");
        }
    }

    #[test]
    fn a_refusal_is_told_in_its_own_words() {
        let body = r#"sendrawtransaction RPC error: {"code":-26,"message":"min relay fee not met, 14 < 141"}"#;
        assert_eq!(reason(body), "min relay fee not met, 14 < 141");
        assert_eq!(reason("no { json"), "no { json");
    }
}
