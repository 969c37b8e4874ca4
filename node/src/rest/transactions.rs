//! `/tx...`: from the final chain, or else from the mempool.

use std::fmt;

use bitcoin::consensus::encode::{deserialize_hex, serialize, serialize_hex};
use bitcoin::hashes::{Hash, HashEngine, sha256d};
use bitcoin::hex::DisplayHex;
use bitcoin::merkle_tree::MerkleBlock;
use bitcoin::{Transaction, Txid};
use causeway_consensus::Tx;

use super::App;
use super::answer::{Answer, Keep, Refusal};
use super::json::{MerkleProofJson, StatusJson, TransactionJson};
use super::live::Live;
use super::reader::{Place, Reader};
use super::routes::OfTransaction;
use super::waiting::Waiting;
use crate::mempool::{Mempool, NotYet, PackageForm, PolicyReject, Reject};

/// Bytes of a body that are decoded where they arrive: to wake another thread costs more.
const DECODED_AT_ONCE_BYTES: usize = 16_384;

/// Why a transaction is not taken, with the codes of Bitcoin Core's `sendrawtransaction`.
#[derive(Debug, thiserror::Error)]
pub(super) enum RpcError {
    /// Not hex, or not a transaction.
    Decode,
    /// It spends what is unknown or spent.
    Missing,
    /// There is nothing in the package.
    EmptyPackage { max: usize },
    /// The package is no child with its parents.
    Topology,
    /// It makes coins unspendable, more of them than the sender permits.
    Burns,
    /// A final block holds it.
    AlreadyFinal,
    /// The mempool does not take it.
    Refused(Reject),
}

impl fmt::Display for RpcError {
    /// The object that clients look for in the text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, message) = match self {
            Self::Decode => (-22, "TX decode failed. Make sure the tx has at least one input.".to_owned()),
            Self::Missing => (-25, "bad-txns-inputs-missingorspent".to_owned()),
            Self::EmptyPackage { max } => (-8, format!("Array must contain between 1 and {max} transactions.")),
            Self::Topology => (-25, PackageForm::Topology.to_string()),
            Self::Burns => (-25, "Unspendable output exceeds maximum configured by user (maxburnamount)".to_owned()),
            Self::AlreadyFinal => (-27, "Transaction outputs already in utxo set".to_owned()),
            Self::Refused(reject) => (-26, reject.to_string()),
        };
        let message = serde_json::Value::from(message);
        write!(f, r#"{{"code":{code},"message":{message}}}"#)
    }
}

/// Takes a transaction, in hex, and returns its id. One that is in the mempool is taken again.
pub(super) async fn broadcast<L: Live>(app: &App<L>, body: Vec<u8>) -> Result<Answer, Refusal> {
    let at_once = body.len() <= DECODED_AT_ONCE_BYTES;
    let decode = move || decode(&body).ok_or(Refusal::Rejected(RpcError::Decode));
    let decoded = if at_once { decode()? } else { app.read(move |_| decode()).await? };
    let txid = decoded.compute_txid();
    let reject = match app.live.submit(decoded).await? {
        Ok(_) => {
            // Whoever looks next sees it.
            app.pool_changed();
            return Ok(Answer::text(txid, Keep::Never));
        }
        Err(reject) => reject,
    };
    Err(match reject {
        Reject::Policy(PolicyReject::AlreadyInMempool | PolicyReject::SameTxidInMempool) => {
            return Ok(Answer::text(txid, Keep::Never));
        }
        Reject::Policy(PolicyReject::AlreadyKnown) => Refusal::Rejected(RpcError::AlreadyFinal),
        Reject::NotYet(NotYet::MissingInput { .. }) => {
            // Its own coins are spent, if it is final.
            let is_final = app.read(move |reader| reader.place(&txid)).await;
            match is_final {
                Ok(Some(_)) => Refusal::Rejected(RpcError::AlreadyFinal),
                Ok(None) | Err(Refusal::NoIndex) => Refusal::Rejected(RpcError::Missing),
                Err(refusal) => refusal,
            }
        }
        Reject::NotYet(NotYet::ChainMoved) => Refusal::ChainMoved,
        Reject::NotYet(NotYet::Busy) => Refusal::Busy,
        reject => Refusal::Rejected(RpcError::Refused(reject)),
    })
}

fn decode(body: &[u8]) -> Option<Transaction> {
    deserialize_hex(std::str::from_utf8(body).ok()?.trim_ascii()).ok()
}

/// What is asked of a transaction.
pub(super) async fn of_transaction<L: Live>(app: &App<L>, txid: Txid, what: OfTransaction) -> Result<Answer, Refusal> {
    match app.read(move |reader| reader.of_transaction(&txid, what)).await {
        Ok(Some(answer)) => return Ok(answer),
        Ok(None) | Err(Refusal::NoIndex) => {}
        Err(refusal) => return Err(refusal),
    }
    let waiting = match what {
        OfTransaction::Whole | OfTransaction::Hex | OfTransaction::Raw => {
            let copy = move |pool: &Mempool| pool.get(&txid).map(|entry| Waiting::of(pool, std::iter::once(entry)));
            app.live.pool(copy).await?
        }
        OfTransaction::Status | OfTransaction::MerkleProof | OfTransaction::MerkleBlockProof => None,
    };
    app.read(move |reader| {
        // A block may have taken it since. The chain has the last word.
        let in_chain = reader.of_transaction(&txid, what);
        match (in_chain, waiting) {
            (Ok(Some(answer)), _) => Ok(answer),
            (Ok(None) | Err(Refusal::NoIndex), Some(waiting)) => of_waiting(reader, waiting, what),
            (Err(refusal), _) => Err(refusal),
            (Ok(None), None) => match what {
                OfTransaction::Status => Answer::json(&StatusJson::UNCONFIRMED, Keep::Never),
                OfTransaction::MerkleProof | OfTransaction::MerkleBlockProof => Err(Refusal::NotConfirmed),
                _ => Err(Refusal::TransactionNotFound),
            },
        }
    })
    .await
}

/// The same of one in the mempool.
fn of_waiting(reader: &Reader, waiting: Waiting, what: OfTransaction) -> Result<Answer, Refusal> {
    let transaction = waiting.transactions.first().map(|(_, transaction)| transaction.as_ref());
    let transaction = transaction.ok_or(Refusal::TransactionNotFound)?;
    match what {
        OfTransaction::Hex => Ok(Answer::text(serialize_hex(transaction), Keep::Never)),
        OfTransaction::Raw => Ok(Answer::binary(serialize(transaction), Keep::Never)),
        _ => {
            let waiting = waiting.resolve(reader)?;
            Answer::json(&waiting.json(reader).next(), Keep::Never)
        }
    }
}

impl Reader {
    /// The same of a final one; None if no final block holds it.
    fn of_transaction(&self, txid: &Txid, what: OfTransaction) -> Result<Option<Answer>, Refusal> {
        let Some(place) = self.place(txid)? else { return Ok(None) };
        let status = StatusJson::confirmed(&place);
        let answer = match what {
            OfTransaction::Whole => {
                let transaction = self.transaction(&place)?;
                let spent = self.spent_outputs(std::iter::once(&transaction))?;
                let json = TransactionJson::new(&transaction, *txid, &spent, self.network(), status);
                Answer::json(&json, Keep::Final)?
            }
            OfTransaction::Hex => Answer::text(self.raw_transaction(&place)?.to_lower_hex_string(), Keep::Final),
            OfTransaction::Raw => Answer::binary(self.raw_transaction(&place)?, Keep::Final),
            OfTransaction::Status => Answer::json(&status, Keep::Final)?,
            OfTransaction::MerkleProof => self.merkle_proof(&place)?,
            OfTransaction::MerkleBlockProof => self.merkle_block_proof(txid, &place)?,
        };
        Ok(Some(answer))
    }

    fn txids(&self, place: &Place) -> Result<Vec<Txid>, Refusal> {
        Ok(self.block(place.height)?.transactions().iter().map(Tx::txid).collect())
    }

    fn merkle_proof(&self, place: &Place) -> Result<Answer, Refusal> {
        let proof = MerkleProofJson {
            block_height: place.height.to_u32(),
            merkle: merkle_branch(self.txids(place)?, place.index),
            pos: place.index,
        };
        Answer::json(&proof, Keep::Final)
    }

    /// BIP-0037's partial tree with one match.
    fn merkle_block_proof(&self, txid: &Txid, place: &Place) -> Result<Answer, Refusal> {
        let header = self.header(place.height)?;
        let proof = MerkleBlock::from_header_txids_with_predicate(&header, &self.txids(place)?, |leaf| leaf == txid);
        Ok(Answer::text(serialize_hex(&proof), Keep::Final))
    }
}

/// Returns the neighbour at each level of Bitcoin's merkle tree, from the leaf at `index` up.
fn merkle_branch(mut nodes: Vec<Txid>, index: u32) -> Vec<Txid> {
    let mut branch = Vec::new();
    let mut index = usize::try_from(index).expect("a block has fewer transactions than addresses");
    while nodes.len() > 1 {
        // The last node of an odd level is its own neighbour.
        branch.push(nodes[(index ^ 1).min(nodes.len() - 1)]);
        let parent = |pair: &[Txid]| {
            let mut engine = sha256d::Hash::engine();
            engine.input(pair[0].as_ref());
            engine.input(pair[pair.len() - 1].as_ref());
            Txid::from_raw_hash(sha256d::Hash::from_engine(engine))
        };
        nodes = nodes.chunks(2).map(parent).collect();
        index /= 2;
    }
    branch
}
