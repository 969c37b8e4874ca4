//! Keys of a devnet, and payments from their P2WPKH coins: on Causeway and on Bitcoin alike.

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{Message, SECP256K1, SecretKey, XOnlyPublicKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{
    Address, Amount, CompressedPublicKey, Network, OutPoint, PrivateKey, ScriptBuf, Sequence, Transaction, TxIn, TxOut,
    Witness,
};
use causeway_chainspec::devnet;
use serde::{Deserialize, Serialize};

/// What a payment pays for each virtual byte, in satoshi: above the minimum of nodes and of bitcoind.
const FEERATE: u64 = 2;

/// What a transaction has besides inputs and outputs, in virtual bytes: version, counts, locktime, segwit's marker.
const BASE_VSIZE: u64 = 12;

/// What a P2WPKH input has in virtual bytes: 41 and a witness of at most 109 bytes.
const INPUT_VSIZE: u64 = 69;

/// Less change than this is left to the fee.
const CHANGE_MIN: Amount = Amount::from_sat(1_000);

/// Role of the key (index 0) that the first blocks of Bitcoin pay.
pub const MINER: &str = "miner";

/// Role of the key (index 0) that later blocks of Bitcoin pay: nobody counts its coins.
pub const SINK: &str = "sink";

/// A key of the devnet, **which everyone knows**.
#[derive(Clone, Debug)]
pub struct DevKey {
    secret: SecretKey,
    network: Network,
}

/// A key with coins, as `devnet.json` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Funds {
    /// The secret key, in Bitcoin's wallet import format.
    pub wif: String,
    /// Its P2WPKH address.
    pub address: String,
}

/// A coin of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coin {
    /// Where it stands.
    pub outpoint: OutPoint,
    /// Its value.
    pub value: Amount,
}

/// The coins together are worth this, which is too little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLittle {
    /// What they are worth.
    pub available: Amount,
}

impl DevKey {
    /// The key of a role.
    pub fn of(role: &str, network: Network) -> Self {
        Self { secret: devnet::secret_key(role, 0), network }
    }

    /// Its P2WPKH address.
    pub fn address(&self) -> Address {
        Address::p2wpkh(&self.public(), self.network)
    }

    /// The script pubkey of its address.
    pub fn script(&self) -> ScriptBuf {
        ScriptBuf::new_p2wpkh(&self.public().wpubkey_hash())
    }

    /// Its x coordinate, as a refund key.
    pub fn x_only(&self) -> XOnlyPublicKey {
        self.secret.x_only_public_key(SECP256K1).0
    }

    /// The key and its address, to show.
    pub fn funds(&self) -> Funds {
        Funds { wif: PrivateKey::new(self.secret, self.network).to_wif(), address: self.address().to_string() }
    }

    fn public(&self) -> CompressedPublicKey {
        CompressedPublicKey(self.secret.public_key(SECP256K1))
    }

    /// The signed payment of `outputs` from as few of `coins` as will do, the largest first, with change to the key as the
    /// last output. Sums of outputs are at most 21,000,000 BTC.
    ///
    /// # Errors
    /// All coins together are too little.
    pub fn pay(&self, coins: &[Coin], outputs: &[TxOut]) -> Result<Transaction, TooLittle> {
        let mut sorted = coins.to_vec();
        sorted.sort_by_key(|coin| std::cmp::Reverse((coin.value, coin.outpoint)));
        let change_script = self.script();
        let scripts = outputs.iter().map(|output| &output.script_pubkey).chain([&change_script]);
        let output_vsize: u64 = scripts.map(|script| 9 + script.len() as u64).sum();
        let amount: Amount = outputs.iter().map(|output| output.value).sum();
        let (mut used, mut value, mut fee) = (Vec::new(), Amount::ZERO, Amount::ZERO);
        for coin in sorted {
            used.push(coin);
            value += coin.value;
            fee = Amount::from_sat((BASE_VSIZE + output_vsize + INPUT_VSIZE * used.len() as u64) * FEERATE);
            if value >= amount + fee {
                break;
            }
        }
        let change = value.checked_sub(amount + fee).filter(|_| !used.is_empty());
        let change = change.ok_or(TooLittle { available: value })?;
        let mut outputs = outputs.to_vec();
        if change >= CHANGE_MIN {
            outputs.push(TxOut { value: change, script_pubkey: change_script });
        }
        Ok(self.sign(&used, outputs))
    }

    fn sign(&self, coins: &[Coin], output: Vec<TxOut>) -> Transaction {
        let input = |coin: &Coin| TxIn {
            previous_output: coin.outpoint,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness: Witness::new(),
        };
        let input = coins.iter().map(input).collect();
        let mut transaction = Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input, output };
        let (all, script) = (EcdsaSighashType::All, self.script());
        let mut cache = SighashCache::new(&transaction);
        let hashes: Vec<_> = (0..)
            .zip(coins)
            .map(|(index, coin)| {
                cache
                    .p2wpkh_signature_hash(index, &script, coin.value, all)
                    .expect("the script is P2WPKH, the input there")
            })
            .collect();
        for (input, hash) in transaction.input.iter_mut().zip(hashes) {
            let signature = SECP256K1.sign_ecdsa(&Message::from_digest(hash.to_byte_array()), &self.secret);
            let signature = bitcoin::ecdsa::Signature { signature, sighash_type: all };
            input.witness = Witness::p2wpkh(&signature, &self.secret.public_key(SECP256K1));
        }
        transaction
    }
}

#[cfg(test)]
mod tests;
