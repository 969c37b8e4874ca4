//! A federation whose keys are all here.

use std::sync::Arc;

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{Keypair, PublicKey, SECP256K1, SecretKey};
use bitcoin::{Amount, FeeRate, OutPoint, ScriptBuf, TxOut, Txid};
use causeway_chainspec::{ChainId, ChainSpec, ChainSpecError, Epoch, EpochParts, devnet};
use causeway_consensus::peg::script::{CoinScript, DepositTerms, EpochScripts, SpendPath};
use causeway_federation::spend::{Spend, SpendError, SpentCoin};

/// What a coin is worth: enough for every fee here.
const COIN: Amount = Amount::from_sat(100_000_000);

/// An epoch, its scripts, and its secrets.
pub(super) struct Federation {
    pub(super) chain: ChainId,
    pub(super) scripts: Arc<EpochScripts>,
    /// Secret keys of the members, in the epoch's order.
    pub(super) secrets: Vec<SecretKey>,
}

impl Federation {
    /// Members and the threshold; 2 of 3 recovery keys, and the timelocks of devnet.
    pub(super) fn new(members: u32, threshold: u32) -> Result<Self, ChainSpecError> {
        let spec = ChainSpec::built_in("devnet")?;
        let mut secrets: Vec<SecretKey> = (0..members).map(|index| devnet::secret_key(devnet::MEMBER, index)).collect();
        secrets.sort_by_key(|secret| secret.public_key(SECP256K1).serialize());
        let epoch = Epoch::new(EpochParts {
            number: 1,
            members: secrets.iter().map(|secret| secret.public_key(SECP256K1)).collect(),
            threshold,
            recovery_keys: (0..3).map(|index| pair(devnet::RECOVERY, index).x_only_public_key().0).collect(),
            recovery_threshold: 2,
            timelocks: spec.federation().timelocks(),
        })?;
        Ok(Self { chain: spec.chain_id(), scripts: Arc::new(EpochScripts::build(&epoch)), secrets })
    }

    pub(super) fn epoch(&self) -> &Epoch {
        self.scripts.epoch()
    }

    pub(super) fn members(&self) -> &[PublicKey] {
        self.epoch().members()
    }

    /// For example "3-of-5".
    pub(super) fn name(&self) -> String {
        format!("{}-of-{}", self.epoch().threshold(), self.members().len())
    }

    /// Whether a look may do without its longest sessions.
    pub(super) fn is_large(&self) -> bool {
        self.members().len() > 5
    }

    /// A transaction that spends so many coins to one P2TR output.
    pub(super) fn spend(&self, coin: &CoinScript, inputs: u32, path: &SpendPath) -> Result<Spend, SpendError> {
        let script_pubkey = self.scripts.output(self.chain, coin).script_pubkey();
        let coins = (0..inputs).map(|vout| SpentCoin {
            outpoint: OutPoint { txid: Txid::hash(script_pubkey.as_bytes()), vout },
            scripts: Arc::clone(&self.scripts),
            coin: coin.clone(),
            prevout: TxOut { value: COIN, script_pubkey: script_pubkey.clone() },
        });
        Spend::sweep(self.chain, coins.collect(), path, destination(), FeeRate::from_sat_per_vb_u32(10))
    }
}

/// A deposit of epoch 1.
pub(super) fn deposit() -> CoinScript {
    let refund_key = pair("refund", 0).x_only_public_key().0;
    CoinScript::Deposit(DepositTerms { epoch: 1, destination: destination(), refund_key })
}

fn destination() -> ScriptBuf {
    ScriptBuf::new_p2tr(SECP256K1, pair("destination", 0).x_only_public_key().0, None)
}

/// A key that everyone knows.
pub(super) fn pair(role: &str, index: u32) -> Keypair {
    Keypair::from_secret_key(SECP256K1, &devnet::secret_key(role, index))
}

/// A count as a figure.
pub(super) fn figure(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
