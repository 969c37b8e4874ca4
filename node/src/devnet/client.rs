//! What a client asks of a node's REST.

use std::time::Duration;

use bitcoin::consensus::encode::{deserialize, serialize_hex};
use bitcoin::{Block, OutPoint, Transaction, Txid};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{DevNode, DevnetError};
use crate::ask::{Answer, AskError, BaseUrl, Bounds};
use crate::rest::in_words;

/// What an answer of a node may take: as much as the longest has.
const BOUNDS: Bounds = Bounds::within(64 << 20, 30);

/// How long a payment may take until it is final.
const FINAL_TIMEOUT: Duration = Duration::from_secs(60);

/// How often it is looked for.
const FINAL_EVERY: Duration = Duration::from_millis(5);

/// The answer to `POST /v1/peg-in/address`, as far as it is used.
#[derive(Clone, Debug, Deserialize)]
pub struct DepositAddress {
    /// What to pay on Bitcoin.
    pub address: String,
    /// The epoch whose members hold what is paid.
    pub epoch: u32,
    /// What is kept of each deposit, in satoshi.
    pub fee: u64,
    /// Confirmations until the credit.
    pub confirmations_needed: u32,
}

/// The answer to `GET /v1/peg-in/:outpoint`, as far as it is used.
#[derive(Clone, Debug, Deserialize)]
pub struct PegIn {
    /// `confirming`, `credited` or `swept`.
    pub state: String,
    /// Confirmations, while it is confirming.
    pub confirmations: Option<u32>,
    /// The credit.
    pub credit: Option<Credit>,
}

/// What a deposit became on Causeway.
#[derive(Clone, Debug, Deserialize)]
pub struct Credit {
    /// The peg transaction.
    pub txid: Txid,
    /// Its output.
    pub vout: u32,
    /// The Causeway block.
    pub height: u32,
    /// What was credited, in satoshi.
    pub amount: u64,
    /// What was kept, in satoshi.
    pub fee: u64,
}

/// The answer to `GET /v1/peg-out/address/:address`, as far as it is used.
#[derive(Clone, Debug, Deserialize)]
pub struct PegOutAddress {
    /// What to pay on Causeway.
    pub address: String,
}

/// The answer to `GET /v1/peg-out/:outpoint`, as far as it is used.
#[derive(Clone, Debug, Deserialize)]
pub struct PegOut {
    /// `waiting`, `batched`, `replaced` or `confirmed`.
    pub state: String,
    /// The batch that pays it.
    pub batch: Option<u32>,
    /// The version of the batch that confirmed, or the newest.
    pub txid: Option<Txid>,
    /// Every version, oldest first.
    #[serde(default)]
    pub versions: Vec<Txid>,
    /// The output that pays it.
    pub vout: Option<u32>,
    /// What arrives on Bitcoin, in satoshi.
    pub payout: Option<u64>,
    /// What the payout's transaction costs it, in satoshi.
    pub fee: Option<u64>,
    /// Confirmations of the payout on Bitcoin.
    pub confirmations: Option<u32>,
    /// The Bitcoin block that holds the payout.
    pub bitcoin_height: Option<u32>,
    /// Why nothing moves.
    pub frozen: Option<String>,
}

/// The answer to `GET /v1/reserves`, as far as it is used. Amounts in satoshi.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the accounts of PEG section 9")]
pub struct Reserves {
    pub bitcoin_height: u32,
    pub locked: u64,
    pub owed: u64,
    pub circulating: u64,
    pub waiting: u64,
    pub in_flight: u64,
    pub fee_pot: u64,
    pub deficit: u64,
    pub charges: u64,
    /// `locked + deficit - owed - fee_pot - charges`, as the node says.
    pub difference: i64,
}

impl Reserves {
    /// `locked + deficit - owed - fee_pot - charges`, reckoned anew.
    pub fn reckon(&self) -> i128 {
        let [locked, deficit] = [self.locked, self.deficit].map(i128::from);
        let [owed, fee_pot, charges] = [self.owed, self.fee_pot, self.charges].map(i128::from);
        locked + deficit - owed - fee_pot - charges
    }
}

/// The answer to `GET /v1/federation`, as far as it is used.
#[derive(Clone, Debug, Deserialize)]
pub struct Federation {
    /// Every epoch.
    pub epochs: Vec<EpochKeys>,
}

/// The keys of an epoch.
#[derive(Clone, Debug, Deserialize)]
pub struct EpochKeys {
    /// Where change and swept coins go.
    pub main_address: String,
}

#[derive(Deserialize)]
struct Status {
    confirmed: bool,
}

impl DevNode {
    /// The JSON of `GET path`.
    ///
    /// # Errors
    /// No answer, or not that one.
    pub fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T, DevnetError> {
        self.read(path, &self.get(path)?)
    }

    /// The JSON of `GET path`; None with status 404.
    ///
    /// # Errors
    /// No answer, or not that one.
    pub fn json_if_any<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, DevnetError> {
        match self.get(path) {
            Ok(body) => self.read(path, &body).map(Some),
            Err(DevnetError::Answer { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The JSON of `POST path` with a JSON body.
    ///
    /// # Errors
    /// No answer, or not that one.
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &serde_json::Value) -> Result<T, DevnetError> {
        let answer = self.at(path, |base| base.post(path, "application/json", body.to_string(), BOUNDS));
        self.read(path, &answer?)
    }

    /// The height of its tip.
    ///
    /// # Errors
    /// No answer, or not that one.
    pub fn height(&self) -> Result<u32, DevnetError> {
        self.json("/blocks/tip/height")
    }

    /// The block of its chain at a height that it has.
    ///
    /// # Errors
    /// No answer, or not that one.
    pub fn block(&self, height: u32) -> Result<Block, DevnetError> {
        let path = format!("/block-height/{height}");
        let hash = self.get(&path)?;
        let path = format!("/block/{}/raw", String::from_utf8_lossy(&hash));
        let bytes = self.get(&path)?;
        deserialize(&bytes).map_err(|_| self.no_answer(&path))
    }

    /// Whether a transaction is final here.
    ///
    /// # Errors
    /// No answer, or not that one.
    pub fn is_final(&self, txid: Txid) -> Result<bool, DevnetError> {
        Ok(self.json::<Status>(&format!("/tx/{txid}/status"))?.confirmed)
    }

    /// Whether a transaction is final here, or waits.
    ///
    /// # Errors
    /// No answer.
    pub fn is_known(&self, txid: Txid) -> Result<bool, DevnetError> {
        let path = format!("/tx/{txid}/raw");
        match self.get(&path) {
            Ok(_) => Ok(true),
            Err(DevnetError::Answer { status: 404, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Hands in a transaction.
    ///
    /// # Errors
    /// The node does not take it, or does not answer.
    pub fn submit(&self, transaction: &Transaction) -> Result<Txid, DevnetError> {
        match self.at("/tx", |base| base.post("/tx", "text/plain", serialize_hex(transaction), BOUNDS)) {
            Ok(_) => Ok(transaction.compute_txid()),
            Err(DevnetError::Answer { name, body, .. }) => Err(DevnetError::Refused { name, answer: body }),
            Err(error) => Err(error),
        }
    }

    /// Waits until a payment is final here.
    ///
    /// # Errors
    /// It does not become final.
    pub fn wait_final(&self, txid: Txid) -> Result<(), DevnetError> {
        let is_final = || Ok(self.is_final(txid)?.then_some(()));
        wait_for("", FINAL_TIMEOUT, FINAL_EVERY, is_final).map_err(|error| match error {
            DevnetError::Waited { seconds, .. } => DevnetError::NotFinal { txid, seconds },
            other => other,
        })
    }

    /// What became of a deposit; None while it is not known.
    ///
    /// # Errors
    /// No answer, or not that one.
    pub fn peg_in(&self, deposit: OutPoint) -> Result<Option<PegIn>, DevnetError> {
        self.json_if_any(&format!("/v1/peg-in/{deposit}"))
    }

    /// What became of a request; None while it is not known.
    ///
    /// # Errors
    /// No answer, or not that one.
    pub fn peg_out(&self, request: OutPoint) -> Result<Option<PegOut>, DevnetError> {
        self.json_if_any(&format!("/v1/peg-out/{request}"))
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.rest)
    }

    fn no_answer(&self, path: &str) -> DevnetError {
        DevnetError::NoAnswer { name: self.name.clone(), url: self.url(path) }
    }

    fn get(&self, path: &str) -> Result<Vec<u8>, DevnetError> {
        self.at(path, |base| base.get(path, BOUNDS))
    }

    /// The body of an answer with status 200.
    fn at(&self, path: &str, ask: impl FnOnce(&BaseUrl) -> Result<Answer, AskError>) -> Result<Vec<u8>, DevnetError> {
        let base: BaseUrl = self.rest.parse().map_err(|_| self.no_answer(path))?;
        let answer = ask(&base).and_then(|answer| Ok((answer.status(), answer.bytes()?)));
        let (status, body) = answer.map_err(|_| self.no_answer(path))?;
        if status == 200 {
            return Ok(body);
        }
        let body = String::from_utf8_lossy(&body);
        let body = in_words(&body).unwrap_or_else(|| body.into_owned());
        let body = body.trim().chars().take(300).collect();
        Err(DevnetError::Answer { name: self.name.clone(), url: self.url(path), status, body })
    }

    fn read<T: DeserializeOwned>(&self, path: &str, body: &[u8]) -> Result<T, DevnetError> {
        let unreadable = |source| DevnetError::Unreadable { name: self.name.clone(), url: self.url(path), source };
        serde_json::from_slice(body).map_err(unreadable)
    }
}

/// Asks again and again until there is an answer.
///
/// # Errors
/// There is none after so long, or asking fails.
pub fn wait_for<T>(
    what: &str,
    timeout: Duration,
    every: Duration,
    mut ask: impl FnMut() -> Result<Option<T>, DevnetError>,
) -> Result<T, DevnetError> {
    let started = std::time::Instant::now();
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if started.elapsed() > timeout {
            return Err(DevnetError::Waited { what: what.to_owned(), seconds: timeout.as_secs() });
        }
        std::thread::sleep(every);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_with_more_fields_are_read() {
        let text = r#"{"deposit":"x","state":"confirming","amount":5,"confirmations":2,"confirmations_needed":3,
            "estimated_seconds":null,"credit":null,"swept":null}"#;
        let peg_in: PegIn = serde_json::from_str(text).unwrap();
        assert_eq!((peg_in.state.as_str(), peg_in.confirmations), ("confirming", Some(2)));
        let text = r#"{"request":"x","state":"waiting","amount":5,"versions":[],"frozen":null,"position":0}"#;
        let peg_out: PegOut = serde_json::from_str(text).unwrap();
        assert!(peg_out.batch.is_none() && peg_out.versions.is_empty());
    }

    #[test]
    fn the_accounts_are_reckoned_anew() {
        let reserves = |locked, owed, deficit| Reserves {
            bitcoin_height: 1,
            locked,
            owed,
            circulating: 0,
            waiting: 0,
            in_flight: 0,
            fee_pot: 3,
            deficit,
            charges: 2,
            difference: 0,
        };
        assert_eq!(reserves(10, 5, 0).reckon(), 0);
        assert_eq!(reserves(10, 6, 0).reckon(), -1);
        assert_eq!(reserves(u64::MAX, 0, u64::MAX).reckon(), 2 * i128::from(u64::MAX) - 5);
    }
}
