//! Payments from a devnet's funds, through REST.

use std::time::{Duration, Instant};

use bitcoin::absolute::LockTime;
use bitcoin::consensus::deserialize;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{Message, SECP256K1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, Block, CompressedPublicKey, OutPoint, PrivateKey, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid,
    Witness,
};
use causeway_chainspec::{ChainSpec, Height, devnet};

use super::{DevNode, DevnetError, get};

/// What a payment costs: above the minimum feerate.
const FEE: Amount = Amount::from_sat(500);

/// How long a payment may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Spends the funds of block 1 to themselves, again and again.
#[derive(Debug)]
pub struct Payer {
    key: SecretKey,
    script: ScriptBuf,
    coin: (OutPoint, TxOut),
}

impl Payer {
    /// The payer of a chain whose funds are where the node says that they are.
    ///
    /// # Errors
    /// The chain has no funds, or the node does not answer.
    pub fn find(spec: &ChainSpec, node: &DevNode) -> Result<Self, DevnetError> {
        let key = devnet::secret_key(devnet::FUNDS, 0);
        let public = CompressedPublicKey::from_private_key(SECP256K1, &PrivateKey::new(key, spec.identity()));
        let script = ScriptBuf::new_p2wpkh(&public.expect("a new private key is for compressed keys").wpubkey_hash());
        let first = spec.derived_block(Height(1)).expect("block 1 is derived");
        let coin = output_to(&first, &script).ok_or(DevnetError::NoFunds)?;
        let mut payer = Self { key, script, coin };
        let no_answer = || DevnetError::NoAnswer { name: node.name.clone(), url: node.rest.clone() };
        let tip = get(&format!("{}/blocks/tip/height", node.rest)).and_then(|text| text.parse::<u32>().ok());
        for height in 101..=tip.ok_or_else(no_answer)? {
            let block = block_at(node, height).ok_or_else(no_answer)?;
            payer.follow(&block);
        }
        Ok(payer)
    }

    /// Goes on from where a block leaves the coin.
    fn follow(&mut self, block: &Block) {
        for transaction in &block.txdata {
            if transaction.input.iter().any(|input| input.previous_output == self.coin.0) {
                let outpoint = OutPoint { txid: transaction.compute_txid(), vout: 0 };
                self.coin = (outpoint, transaction.output[0].clone());
            }
        }
    }

    /// The next payment: the whole coin to itself.
    pub fn next_payment(&mut self) -> Transaction {
        let (previous_output, spent) = self.coin.clone();
        let output = TxOut { value: spent.value - FEE, script_pubkey: self.script.clone() };
        let input = TxIn {
            previous_output,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness: Witness::new(),
        };
        let mut transaction = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![input],
            output: vec![output.clone()],
        };
        let all = EcdsaSighashType::All;
        let hash = SighashCache::new(&transaction).p2wpkh_signature_hash(0, &spent.script_pubkey, spent.value, all);
        let message = Message::from_digest(hash.expect("there is an input 0").to_byte_array());
        let signature = SECP256K1.sign_ecdsa(&message, &self.key);
        let signature = bitcoin::ecdsa::Signature { signature, sighash_type: all };
        transaction.input[0].witness = Witness::p2wpkh(&signature, &self.key.public_key(SECP256K1));
        self.coin = (OutPoint { txid: transaction.compute_txid(), vout: 0 }, output);
        transaction
    }

    /// Pays once, and returns how long it took until the payment was final at the node.
    ///
    /// # Errors
    /// The node refuses it, or it does not become final.
    pub fn pay(&mut self, node: &DevNode) -> Result<Duration, DevnetError> {
        let transaction = self.next_payment();
        let started = Instant::now();
        let txid = submit(node, &transaction)?;
        let url = format!("{}/tx/{txid}/status", node.rest);
        while !get(&url).is_some_and(|status| status.contains("\"confirmed\":true")) {
            if started.elapsed() > TIMEOUT {
                return Err(DevnetError::NotFinal { txid, seconds: TIMEOUT.as_secs() });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(started.elapsed())
    }
}

/// Hands in a transaction at a node.
///
/// # Errors
/// The node does not take it, or does not answer.
pub fn submit(node: &DevNode, transaction: &Transaction) -> Result<Txid, DevnetError> {
    let request = minreq::post(format!("{}/tx", node.rest)).with_body(serialize_hex(transaction)).with_timeout(30);
    let no_answer = || DevnetError::NoAnswer { name: node.name.clone(), url: node.rest.clone() };
    let response = request.send().map_err(|_| no_answer())?;
    let body = response.as_str().map_err(|_| no_answer())?;
    match body.parse() {
        Ok(txid) if response.status_code == 200 => Ok(txid),
        _ => Err(DevnetError::Refused { name: node.name.clone(), answer: body.to_owned() }),
    }
}

fn output_to(block: &Block, script: &ScriptBuf) -> Option<(OutPoint, TxOut)> {
    block.txdata.iter().find_map(|transaction| {
        let place = transaction.output.iter().position(|output| output.script_pubkey == *script)?;
        let outpoint = OutPoint { txid: transaction.compute_txid(), vout: u32::try_from(place).ok()? };
        Some((outpoint, transaction.output[place].clone()))
    })
}

fn block_at(node: &DevNode, height: u32) -> Option<Block> {
    let hash = get(&format!("{}/block-height/{height}", node.rest))?;
    let response = minreq::get(format!("{}/block/{hash}/raw", node.rest)).with_timeout(30).send().ok()?;
    deserialize(response.as_bytes()).ok()
}
