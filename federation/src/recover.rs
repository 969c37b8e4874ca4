//! Taking coins by the recovery path: when the federation is dead and the timelock has passed (PEG section 5).
//!
//! A [`Recovery`] travels between the holders of recovery keys as a file: each adds signatures, and files with
//! different signatures are combined. Everything in a file is checked against the chainspec when it is read, and
//! every signature when it is added.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::secp256k1::{Keypair, Message, SECP256K1, SecretKey, XOnlyPublicKey, schnorr};
use bitcoin::{Amount, FeeRate, OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use causeway_chainspec::ChainId;
use causeway_consensus::peg::script::{CoinScript, DepositTerms, EpochScripts, SpendPath};
use serde::{Deserialize, Serialize};

use crate::spend::{Signatures, Signers, Spend, SpendError, SpentCoin};

/// Most weight of a transaction that Bitcoin nodes relay, with some room.
const WEIGHT_MAX: u64 = 390_000;

/// Most coins of one recovery.
pub const COINS_MAX: usize = 100_000;

/// Why coins cannot be recovered so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoveryError {
    /// No coins, or too many.
    #[error("{0} coins: give 1 to {COINS_MAX}")]
    Coins(usize),
    /// The coins cannot be spent so.
    #[error("the coins cannot be spent")]
    Spend(#[from] SpendError),
    /// A coin stands there twice.
    #[error("coin {0} stands there twice: leave one out")]
    Twice(OutPoint),
    /// A file is none.
    #[error("this is no recovery file of this version: use the file that \"recover plan\" wrote")]
    Malformed,
    /// It is of another chain.
    #[error("the recovery is of chain {got}, the chainspec is of {expected}: use those that belong together")]
    OtherChain {
        /// The file's.
        got: ChainId,
        /// The chainspec's.
        expected: ChainId,
    },
    /// A transaction does not spend its coins, or has other outputs than one.
    #[error(
        "transaction {txid} of the recovery file is not what its coins make: do not sign it, ask for the file again"
    )]
    OtherTransaction {
        /// Its id.
        txid: Txid,
    },
    /// It pays somebody else.
    #[error("transaction {txid} pays another script than the destination given: do not sign it")]
    OtherDestination {
        /// Its id.
        txid: Txid,
    },
    /// A signature is wrong.
    #[error("the signature of key {key} over input {input} is wrong: ask its holder again")]
    WrongSignature {
        /// Whose.
        key: XOnlyPublicKey,
        /// Of which input.
        input: usize,
    },
    /// The key is no recovery key.
    #[error("key {0} is no recovery key of this epoch: use the key whose public half the chainspec lists")]
    NotARecoveryKey(XOnlyPublicKey),
    /// Two files are not of one recovery.
    #[error("the two files are of different recoveries: combine those of one plan")]
    Different,
}

/// A coin to be recovered, as a list of coins holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoveryCoin {
    /// Which output it is, `txid:vout`.
    pub outpoint: OutPoint,
    /// Its value in satoshi.
    pub value: u64,
    /// Its terms, if it is a deposit that was never swept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deposit: Option<RecoveryDeposit>,
}

/// What a deposit's script commits to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoveryDeposit {
    /// The script on Causeway that was credited, in hex.
    pub destination: ScriptBuf,
    /// The depositor's key.
    pub refund_key: XOnlyPublicKey,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    /// In the order in which it is hashed.
    chain: String,
    epoch: u32,
    transactions: Vec<FileTransaction>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileTransaction {
    unsigned: String,
    coins: Vec<RecoveryCoin>,
    signatures: Vec<FileSignature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileSignature {
    key: XOnlyPublicKey,
    /// One for each input.
    signatures: Vec<schnorr::Signature>,
}

struct Part {
    spend: Spend,
    coins: Vec<RecoveryCoin>,
    /// One for each input, by the key's place.
    signatures: BTreeMap<u16, Vec<schnorr::Signature>>,
}

/// Transactions that take coins by the recovery path, and what is signed of them.
pub struct Recovery {
    chain: ChainId,
    scripts: Arc<EpochScripts>,
    parts: Vec<Part>,
}

/// What a transaction of a recovery does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoverySummary {
    /// Its id.
    pub txid: Txid,
    /// How many coins it takes.
    pub coins: usize,
    /// What it pays.
    pub output: TxOut,
    /// Its fee.
    pub fee: Amount,
    /// Keys that have signed.
    pub signed_by: Vec<XOnlyPublicKey>,
    /// Signatures that are still needed.
    pub missing: usize,
}

fn spent(scripts: &Arc<EpochScripts>, chain: ChainId, coin: &RecoveryCoin) -> SpentCoin {
    let kind = match &coin.deposit {
        None => CoinScript::Main,
        Some(RecoveryDeposit { destination, refund_key }) => CoinScript::Deposit(DepositTerms {
            epoch: scripts.epoch().number(),
            destination: destination.clone(),
            refund_key: *refund_key,
        }),
    };
    let script_pubkey = scripts.output(chain, &kind).script_pubkey();
    let prevout = TxOut { value: Amount::from_sat(coin.value), script_pubkey };
    SpentCoin { outpoint: coin.outpoint, scripts: Arc::clone(scripts), coin: kind, prevout }
}

/// The script that a coin of a list has.
pub fn coin_script(scripts: &Arc<EpochScripts>, chain: ChainId, coin: &RecoveryCoin) -> ScriptBuf {
    spent(scripts, chain, coin).prevout.script_pubkey
}

impl Recovery {
    /// Transactions that pay all of `coins` to one destination, as few as Bitcoin nodes relay.
    ///
    /// # Errors
    /// No coins, one twice, or too little value for the fee.
    pub fn plan(
        chain: ChainId,
        scripts: &Arc<EpochScripts>,
        coins: &[RecoveryCoin],
        destination: &ScriptBuf,
        fee_rate: FeeRate,
    ) -> Result<Self, RecoveryError> {
        if coins.is_empty() || coins.len() > COINS_MAX {
            return Err(RecoveryError::Coins(coins.len()));
        }
        let mut seen = std::collections::BTreeSet::new();
        if let Some(twice) = coins.iter().find(|coin| !seen.insert(coin.outpoint)) {
            return Err(RecoveryError::Twice(twice.outpoint));
        }
        let sweep = |coins: &[RecoveryCoin]| {
            let each = coins.iter().map(|coin| spent(scripts, chain, coin)).collect();
            Spend::sweep(chain, each, &SpendPath::Recovery, destination.clone(), fee_rate)
        };
        // A deposit weighs more than a main coin; each alone is a whole transaction.
        let worst = coins.iter().map(|coin| {
            let alone = Spend::sweep(
                chain,
                vec![spent(scripts, chain, coin)],
                &SpendPath::Recovery,
                destination.clone(),
                FeeRate::ZERO,
            )?;
            alone.signed_weight(&SpendPath::Recovery)
        });
        let worst = worst.collect::<Result<Vec<_>, _>>()?.into_iter().max().map_or(1, |weight| weight.to_wu());
        let together = usize::try_from((WEIGHT_MAX / worst.max(1)).max(1)).unwrap_or(1);
        let parts = coins
            .chunks(together)
            .map(|coins| Ok(Part { spend: sweep(coins)?, coins: coins.to_vec(), signatures: BTreeMap::new() }));
        let parts = parts.collect::<Result<Vec<_>, RecoveryError>>()?;
        Ok(Self { chain, scripts: Arc::clone(scripts), parts })
    }

    /// The recovery in a file. All of it is checked, the signatures too.
    ///
    /// # Errors
    /// It is none, of another chain, or not what its coins make.
    pub fn from_json(chain: ChainId, scripts: &Arc<EpochScripts>, text: &str) -> Result<Self, RecoveryError> {
        let file: File = serde_json::from_str(text).map_err(|_| RecoveryError::Malformed)?;
        if file.version != 1 || file.epoch != scripts.epoch().number() || file.transactions.len() > COINS_MAX {
            return Err(RecoveryError::Malformed);
        }
        if file.chain != chain.to_string() {
            let got: bitcoin::BlockHash = file.chain.parse().map_err(|_| RecoveryError::Malformed)?;
            let got = ChainId::from_byte_array(*AsRef::<[u8; 32]>::as_ref(&got));
            return Err(RecoveryError::OtherChain { got, expected: chain });
        }
        let mut recovery = Self { chain, scripts: Arc::clone(scripts), parts: Vec::new() };
        for FileTransaction { unsigned, coins, signatures } in file.transactions {
            let transaction: Transaction = deserialize_hex(&unsigned).map_err(|_| RecoveryError::Malformed)?;
            let txid = transaction.compute_txid();
            let other = || RecoveryError::OtherTransaction { txid };
            let outpoints = transaction.input.iter().map(|input| input.previous_output);
            if transaction.output.len() != 1 || !outpoints.eq(coins.iter().map(|coin| coin.outpoint)) {
                return Err(other());
            }
            let spent = coins.iter().map(|coin| spent(scripts, chain, coin)).collect();
            let spend = Spend::new(chain, transaction, spent).map_err(|_| other())?;
            spend.signed_weight(&SpendPath::Recovery).map_err(|_| other())?;
            let part = recovery.parts.len();
            recovery.parts.push(Part { spend, coins, signatures: BTreeMap::new() });
            for FileSignature { key, signatures } in signatures {
                recovery.add(part, key, signatures)?;
            }
        }
        if recovery.parts.is_empty() {
            return Err(RecoveryError::Malformed);
        }
        Ok(recovery)
    }

    /// The file.
    pub fn to_json(&self) -> String {
        let keys = self.scripts.epoch().recovery_keys();
        let transactions = self.parts.iter().map(|part| FileTransaction {
            unsigned: serialize_hex(part.spend.transaction()),
            coins: part.coins.clone(),
            signatures: part
                .signatures
                .iter()
                .map(|(key, signatures)| FileSignature { key: keys[usize::from(*key)], signatures: signatures.clone() })
                .collect(),
        });
        let file = File {
            version: 1,
            chain: self.chain.to_string(),
            epoch: self.scripts.epoch().number(),
            transactions: transactions.collect(),
        };
        serde_json::to_string_pretty(&file).expect("texts and numbers are JSON")
    }

    fn place(&self, key: &XOnlyPublicKey) -> Result<u16, RecoveryError> {
        let place = self.scripts.epoch().recovery_keys().iter().position(|recovery| recovery == key);
        place.and_then(|place| u16::try_from(place).ok()).ok_or(RecoveryError::NotARecoveryKey(*key))
    }

    fn add(
        &mut self,
        part: usize,
        key: XOnlyPublicKey,
        signatures: Vec<schnorr::Signature>,
    ) -> Result<(), RecoveryError> {
        let place = self.place(&key)?;
        let part = self.parts.get_mut(part).ok_or(RecoveryError::Malformed)?;
        if signatures.len() != part.coins.len() {
            return Err(RecoveryError::Malformed);
        }
        for (input, signature) in signatures.iter().enumerate() {
            if !part.spend.to_sign(input, &SpendPath::Recovery)?.is_signed_by(place, signature) {
                return Err(RecoveryError::WrongSignature { key, input });
            }
        }
        part.signatures.insert(place, signatures);
        Ok(())
    }

    /// Checks that every transaction pays everything to this script. Whoever signs must ask for it.
    ///
    /// # Errors
    /// [`RecoveryError::OtherDestination`].
    pub fn check_destination(&self, destination: &ScriptBuf) -> Result<(), RecoveryError> {
        let pays_other = |part: &&Part| part.spend.transaction().output[0].script_pubkey != *destination;
        match self.parts.iter().find(pays_other) {
            Some(part) => Err(RecoveryError::OtherDestination { txid: part.spend.transaction().compute_txid() }),
            None => Ok(()),
        }
    }

    /// Signs every input of every transaction.
    ///
    /// # Errors
    /// The key is no recovery key.
    pub fn sign(&mut self, key: &SecretKey) -> Result<(), RecoveryError> {
        let keypair = Keypair::from_secret_key(SECP256K1, key);
        let public = keypair.x_only_public_key().0;
        self.place(&public)?;
        for part in 0..self.parts.len() {
            let spend = &self.parts[part].spend;
            let sign = |input| {
                let sighash = spend.to_sign(input, &SpendPath::Recovery)?.sighash();
                Ok(SECP256K1.sign_schnorr_no_aux_rand(&Message::from(sighash), &keypair))
            };
            let signatures = (0..spend.coins().len()).map(sign).collect::<Result<Vec<_>, SpendError>>()?;
            self.add(part, public, signatures)?;
        }
        Ok(())
    }

    /// Takes the signatures of another copy.
    ///
    /// # Errors
    /// It is of another recovery.
    pub fn combine(&mut self, other: Self) -> Result<(), RecoveryError> {
        let same = |(own, other): (&Part, &Part)| own.spend.transaction() == other.spend.transaction();
        if self.parts.len() != other.parts.len() || !self.parts.iter().zip(&other.parts).all(same) {
            return Err(RecoveryError::Different);
        }
        for (own, other) in self.parts.iter_mut().zip(other.parts) {
            // Both were checked.
            own.signatures.extend(other.signatures);
        }
        Ok(())
    }

    /// What each transaction does and lacks.
    pub fn summaries(&self) -> Vec<RecoverySummary> {
        let epoch = self.scripts.epoch();
        let needed = usize::try_from(epoch.recovery_threshold()).unwrap_or(usize::MAX);
        let summary = |part: &Part| {
            let transaction = part.spend.transaction();
            let value: Amount = part.spend.coins().iter().map(|coin| coin.prevout.value).sum();
            let output = transaction.output[0].clone();
            RecoverySummary {
                txid: transaction.compute_txid(),
                coins: part.coins.len(),
                fee: value.checked_sub(output.value).unwrap_or(Amount::ZERO),
                output,
                signed_by: part.signatures.keys().map(|key| epoch.recovery_keys()[usize::from(*key)]).collect(),
                missing: needed.saturating_sub(part.signatures.len()),
            }
        };
        self.parts.iter().map(summary).collect()
    }

    /// The signed transactions, once enough keys have signed; None before.
    ///
    /// # Errors
    /// [`RecoveryError::Spend`].
    pub fn transactions(&self) -> Result<Option<Vec<Transaction>>, RecoveryError> {
        self.parts.iter().map(|part| self.transaction(part)).collect()
    }

    fn transaction(&self, part: &Part) -> Result<Option<Transaction>, RecoveryError> {
        let needed = usize::try_from(self.scripts.epoch().recovery_threshold()).unwrap_or(usize::MAX);
        if part.signatures.len() < needed {
            return Ok(None);
        }
        let witness = |input: usize| {
            let to_sign = part.spend.to_sign(input, &SpendPath::Recovery)?;
            debug_assert!(matches!(to_sign.signers(), Signers::Each { .. }));
            let each = part.signatures.iter().take(needed).map(|(key, signatures)| (*key, signatures[input])).collect();
            let witness = to_sign.witness(&Signatures::Each(each));
            witness.map_err(|_| RecoveryError::OtherTransaction { txid: part.spend.transaction().compute_txid() })
        };
        let witnesses = (0..part.coins.len()).map(witness).collect::<Result<Vec<_>, _>>()?;
        Ok(Some(part.spend.signed(witnesses)?))
    }
}

#[cfg(test)]
mod tests;
