//! Coins by their scripts, without an index: for recovery, when nobody else knows them any more.

use bitcoin::{Amount, OutPoint, ScriptBuf, Txid};
use causeway_chainspec::BitcoinHeight;
use serde::Deserialize;

use super::Bitcoind;
use super::answers::Btc;
use super::error::{BitcoindError, Problem};

/// A coin that a scan found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundCoin {
    /// Which output it is.
    pub outpoint: OutPoint,
    /// Its value.
    pub value: Amount,
    /// What may spend it.
    pub script_pubkey: ScriptBuf,
    /// Height of its block.
    pub height: BitcoinHeight,
    /// Whether a coinbase made it.
    pub coinbase: bool,
}

#[derive(Deserialize)]
struct RawScan {
    success: bool,
    height: u32,
    unspents: Vec<RawFound>,
}

#[derive(Deserialize)]
struct RawFound {
    txid: Txid,
    vout: u32,
    #[serde(rename = "scriptPubKey")]
    script_pubkey: ScriptBuf,
    amount: Btc,
    height: u32,
    coinbase: bool,
}

impl Bitcoind {
    /// The coins of these scripts in the coin set of the best chain, and its height (`scantxoutset`). Reads the whole set:
    /// minutes on the main network, so that the deadlines must allow it.
    ///
    /// # Errors
    /// [`BitcoindError`].
    pub async fn scan(&self, scripts: &[ScriptBuf]) -> Result<(Vec<FoundCoin>, BitcoinHeight), BitcoindError> {
        let descriptors: Vec<String> =
            scripts.iter().map(|script| format!("raw({})", script.to_hex_string())).collect();
        let read = |scan: RawScan| {
            if !scan.success {
                return Err(Problem::UnexpectedAnswer);
            }
            let found =
                scan.unspents.into_iter().map(|RawFound { txid, vout, script_pubkey, amount, height, coinbase }| {
                    FoundCoin {
                        outpoint: OutPoint { txid, vout },
                        value: amount.0,
                        script_pubkey,
                        height: BitcoinHeight(height),
                        coinbase,
                    }
                });
            Ok((found.collect(), BitcoinHeight(scan.height)))
        };
        self.ask("scantxoutset", &("start", descriptors), read).await
    }
}
