//! The devnet's coins on Causeway: which there are, and payments from them through a node's REST.
//!
//! A node has no index of addresses, so what blocks did to the key's coins is kept in a file of the devnet's directory,
//! which goes on from block to block. It is a cache: whoever removes it makes the next payment read every block.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::{Amount, Block, Network, OutPoint, Script, Transaction, TxOut, Txid};
use causeway_chainspec::{LAST_DERIVED_HEIGHT, devnet};
use serde::{Deserialize, Serialize};

use super::error::io_error;
use super::key::{Coin, DevKey, TooLittle};
use super::{DevNode, Devnet, DevnetError};

/// The devnet's coins. Whoever has this pays alone: a lock holds others back.
#[derive(Debug)]
pub struct Purse {
    node: DevNode,
    key: DevKey,
    path: PathBuf,
    book: Book,
    _lock: File,
}

/// What is known of the coins: the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Book {
    /// The chain.
    chain_id: String,
    /// The block up to which it holds.
    height: u32,
    /// Coins of that block's state, and their values in satoshi.
    coins: BTreeMap<OutPoint, u64>,
    /// Payments that are not in blocks up to there, oldest first: txid and hex.
    pending: Vec<(Txid, String)>,
}

impl Purse {
    /// The purse of the devnet in a directory, whose blocks the last node is asked for.
    ///
    /// # Errors
    /// The file cannot be used, or the node does not answer.
    pub fn open(directory: &Path, devnet: &Devnet) -> Result<Self, DevnetError> {
        let lock_path = directory.join("funds.lock");
        let lock = File::options().create(true).append(true).open(&lock_path);
        let lock = lock.map_err(|source| io_error(&lock_path, "opened", source))?;
        lock.lock().map_err(|source| io_error(&lock_path, "locked", source))?;
        let path = directory.join("funds.json");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(io_error(&path, "read", source)),
        };
        let new = Book { chain_id: devnet.chain_id.clone(), height: LAST_DERIVED_HEIGHT.0, ..Book::default() };
        // It is a cache, and one that was cut off or is of another chain is made again.
        let book = serde_json::from_str(&text).ok().filter(|book: &Book| book.chain_id == devnet.chain_id);
        let node = devnet.client_node().clone();
        let mut purse = Self { node, key: key(), path, book: book.unwrap_or(new), _lock: lock };
        purse.catch_up()?;
        Ok(purse)
    }

    /// Reads the blocks that came since.
    ///
    /// # Errors
    /// The node does not answer, or the file cannot be written.
    pub fn catch_up(&mut self) -> Result<(), DevnetError> {
        let (tip, script) = (self.node.height()?, self.key.script());
        while self.book.height < tip {
            let height = self.book.height + 1;
            let block = self.node.block(height)?;
            self.book.read(&block, &script);
            self.book.height = height;
        }
        for (txid, _) in self.book.pending.clone() {
            if self.node.is_known(txid)? {
                continue;
            }
            // What spends its change is gone too, and found in the next turns.
            self.book.pending.retain(|(pending, _)| *pending != txid);
        }
        self.save()
    }

    /// What can be spent.
    pub fn balance(&self) -> Amount {
        self.book.spendable(&self.key.script()).iter().map(|coin| coin.value).sum()
    }

    /// Makes a payment and hands it in.
    ///
    /// # Errors
    /// There is too little, or the node refuses it.
    pub fn pay(&mut self, outputs: &[TxOut]) -> Result<Txid, DevnetError> {
        let coins = self.book.spendable(&self.key.script());
        let transaction = self.key.pay(&coins, outputs).map_err(|TooLittle { available }| DevnetError::TooLittle {
            needed: outputs.iter().map(|output| output.value).sum(),
            available,
            advice: "amounts are in BTC, or in satoshi with \"sat\" behind; more comes with a deposit to the funds' address",
        })?;
        let txid = self.node.submit(&transaction)?;
        self.book.pending.push((txid, serialize_hex(&transaction)));
        self.save()?;
        Ok(txid)
    }

    fn save(&self) -> Result<(), DevnetError> {
        let text = serde_json::to_string(&self.book).expect("numbers and texts are JSON");
        let new = self.path.with_extension("json.new");
        let written = fs::write(&new, text).and_then(|()| fs::rename(&new, &self.path));
        written.map_err(|source| io_error(&self.path, "written", source))
    }
}

/// The key of the devnet's coins.
pub(crate) fn key() -> DevKey {
    DevKey::of(devnet::FUNDS, Network::Regtest)
}

impl Book {
    /// Takes in the block above.
    fn read(&mut self, block: &Block, script: &Script) {
        for transaction in &block.txdata {
            let txid = transaction.compute_txid();
            for input in &transaction.input {
                self.coins.remove(&input.previous_output);
            }
            // The fees of a block cannot be spent for a while, and go to its validator.
            if !transaction.is_coinbase() {
                let own = outputs_to(transaction, txid, script);
                self.coins.extend(own.map(|coin| (coin.outpoint, coin.value.to_sat())));
            }
            self.pending.retain(|(pending, _)| *pending != txid);
        }
    }

    /// The coins that the next payment may spend: also the change of those that are not final yet.
    fn spendable(&self, script: &Script) -> Vec<Coin> {
        let mut coins = self.coins.clone();
        for (txid, hex) in &self.pending {
            let Ok(transaction) = deserialize_hex::<Transaction>(hex) else { continue };
            for input in &transaction.input {
                coins.remove(&input.previous_output);
            }
            coins.extend(outputs_to(&transaction, *txid, script).map(|coin| (coin.outpoint, coin.value.to_sat())));
        }
        coins.into_iter().map(|(outpoint, value)| Coin { outpoint, value: Amount::from_sat(value) }).collect()
    }
}

fn outputs_to(transaction: &Transaction, txid: Txid, script: &Script) -> impl Iterator<Item = Coin> {
    let outputs = (0..).zip(&transaction.output).filter(|(_, output)| *output.script_pubkey == *script);
    outputs.map(move |(vout, output)| Coin { outpoint: OutPoint { txid, vout }, value: output.value })
}

#[cfg(test)]
mod tests;
