//! What the wallet asks of a node, over REST: plain HTTP/1.1, with bounded answers and deadlines.

use std::io;

use bitcoin::consensus::encode::{deserialize, serialize_hex};
use bitcoin::{Address, Amount, BlockHash, FeeRate, OutPoint, Transaction, Txid};
use causeway_chainspec::ChainSpec;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::WalletError;
use super::amount::FeeRateArg;
use crate::ask::{Answer, AskError, BaseUrl, BaseUrlError, Bounds};
use crate::devnet::client::{PegIn, PegOut};
use crate::rest::in_words;

/// The node that is asked if nothing else is said: where one listens by its default settings.
pub const DEFAULT_URL: &str = "http://127.0.0.1:29380";

/// What an answer may take.
const BOUNDS: Bounds = Bounds::within(8 << 20, 30);

/// A feerate above this is asked for, not taken from the node.
const SUGGESTED_MAX: FeeRate = FeeRate::from_sat_per_kwu(500 * 250);

/// A node.
#[derive(Clone, Debug)]
pub struct Node {
    base: BaseUrl,
    /// The same in words.
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

/// Why a URL is no node's that is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeUrlError {
    /// It is none.
    #[error(transparent)]
    Form(BaseUrlError),
    /// It is elsewhere.
    #[error(
        "it is on another machine, and plain HTTP shows everybody on the way what you have; use a tunnel (ssh -L), or give --plain-http"
    )]
    OtherMachine,
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
        let base: BaseUrl = url.parse().map_err(|why| wrong(NodeUrlError::Form(why)))?;
        if !base.is_loopback() && !other_machine {
            return Err(wrong(NodeUrlError::OtherMachine));
        }
        Ok(Self { url: base.to_string(), base })
    }

    /// Its URL, to ask with.
    pub(super) fn base(&self) -> &BaseUrl {
        &self.base
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Checks that the node is of this chain: its block 1 is the chain's identity.
    ///
    /// # Errors
    /// It is of another one, or does not answer.
    pub fn check_chain(&self, spec: &ChainSpec) -> Result<(), WalletError> {
        let expected = spec.chain_id().block_hash();
        let got = self.block_hash(1)?;
        if got != expected {
            return Err(WalletError::OtherChain { url: self.url.clone(), got, expected });
        }
        Ok(())
    }

    /// The block at a height that the node has.
    pub(super) fn block_hash(&self, height: u32) -> Result<BlockHash, WalletError> {
        let path = format!("/block-height/{height}");
        self.text(&path)?.parse().map_err(|_| self.unreadable(&path))
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
        match self.post("/tx", "text/plain", serialize_hex(transaction)) {
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
        let bytes = match self.get(&path) {
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
        let answer = self.post(path, "application/json", body.to_string())?;
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

    pub(super) fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T, WalletError> {
        let answer = self.get(path)?;
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
        let answer = self.get(path)?;
        String::from_utf8(answer).map_err(|_| self.unreadable(path))
    }

    pub(super) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    pub(super) fn unreadable(&self, path: &str) -> WalletError {
        WalletError::Unreadable { url: self.at(path), source: None }
    }

    fn read<T: DeserializeOwned>(&self, path: &str, body: &[u8]) -> Result<T, WalletError> {
        serde_json::from_slice(body)
            .map_err(|source| WalletError::Unreadable { url: self.at(path), source: Some(source) })
    }

    fn get(&self, path: &str) -> Result<Vec<u8>, WalletError> {
        self.body(path, self.base.get(path, BOUNDS))
    }

    fn post(&self, path: &str, kind: &str, body: String) -> Result<Vec<u8>, WalletError> {
        self.body(path, self.base.post(path, kind, body, BOUNDS))
    }

    /// The body of an answer with status 200.
    fn body(&self, path: &str, answer: Result<Answer, AskError>) -> Result<Vec<u8>, WalletError> {
        self.answer(path, answer)?.bytes().map_err(|source| self.cut(path, io::Error::other(source)))
    }

    /// An answer with status 200.
    pub(super) fn answer(&self, path: &str, answer: Result<Answer, AskError>) -> Result<Answer, WalletError> {
        let answer = answer.map_err(|source| WalletError::NoAnswer { url: self.at(path), source })?;
        let status = answer.status();
        if status == 200 {
            return Ok(answer);
        }
        let body = answer.bytes().map_err(|source| self.cut(path, io::Error::other(source)))?;
        let body = String::from_utf8_lossy(&body);
        let body = in_words(&body).unwrap_or_else(|| body.into_owned());
        // What is shown to people holds no control characters of somebody else.
        let body: String = body.trim().chars().filter(|c| !c.is_control()).take(300).collect();
        Err(WalletError::Answer { url: self.at(path), status, body })
    }

    /// Why the body of an answer cannot be had.
    pub(super) fn cut(&self, path: &str, source: io::Error) -> WalletError {
        let asked = source.get_ref().and_then(|source| source.downcast_ref::<AskError>());
        if matches!(asked, Some(AskError::TooLarge { .. })) {
            return self.unreadable(path);
        }
        WalletError::Cut { url: self.at(path), source }
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
