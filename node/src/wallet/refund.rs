//! Taking a deposit back on Bitcoin, alone, when it was not credited and the timelock has passed (PEG section 5).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bdk_wallet::KeychainKind;
use bitcoin::secp256k1::{Message, SECP256K1};
use bitcoin::{Amount, FeeRate, OutPoint, ScriptBuf, Transaction, TxOut};
use causeway_chainspec::BitcoinHeight;
use causeway_consensus::peg::script::{CoinScript, SpendPath};
use causeway_federation::bitcoind::FoundCoin;
use causeway_federation::spend::{Signatures, Spend, SpendError, SpentCoin};

use super::deposit::DepositAddress;
use super::open::GAP_MAX;
use super::{Wallet, WalletError};

/// A deposit on Bitcoin that can be taken back, now or later.
#[derive(Clone, Debug)]
pub struct UnclaimedDeposit {
    /// Whose it is.
    pub address: DepositAddress,
    /// Where it stands.
    pub outpoint: OutPoint,
    /// Its value.
    pub amount: Amount,
    /// The first Bitcoin height whose block may hold the refund; None if the height of the deposit is not known.
    pub from: Option<BitcoinHeight>,
}

impl Wallet {
    /// Every address that a deposit of this wallet may have been paid to, and those of the next `gap` numbers, at most
    /// [`GAP_MAX`]: a wallet that was restored does not know which it has shown.
    pub fn deposit_candidates(&self, gap: u32) -> Vec<DepositAddress> {
        let revealed = self.coins.derivation_index(KeychainKind::External).unwrap_or_default();
        let recorded = self.content.deposits.iter().map(|deposit| deposit.index).max().unwrap_or_default();
        (0..=revealed.max(recorded).saturating_add(gap.min(GAP_MAX))).map(|index| self.deposit_address(index)).collect()
    }

    /// The deposits among coins that were found on Bitcoin.
    pub fn deposits_among(&self, candidates: &[DepositAddress], found: &[FoundCoin]) -> Vec<UnclaimedDeposit> {
        let by_script: HashMap<ScriptBuf, &DepositAddress> =
            candidates.iter().map(|candidate| (candidate.address.script_pubkey(), candidate)).collect();
        let delay = u32::from(self.spec.federation().timelocks().refund_delay);
        let of_coin = |coin: &FoundCoin| {
            let address = (*by_script.get(&coin.script_pubkey)?).clone();
            let from = BitcoinHeight(coin.height.0.saturating_add(delay));
            Some(UnclaimedDeposit { address, outpoint: coin.outpoint, amount: coin.value, from: Some(from) })
        };
        found.iter().filter_map(of_coin).collect()
    }

    /// The signed transaction that pays these deposits to a script on Bitcoin. Bitcoin takes it once every deposit is old
    /// enough.
    ///
    /// # Errors
    /// They do not pay the fee.
    pub fn refund(
        &self,
        deposits: &[UnclaimedDeposit],
        destination: ScriptBuf,
        rate: FeeRate,
    ) -> Result<Transaction, WalletError> {
        let coins = deposits.iter().map(|deposit| SpentCoin {
            outpoint: deposit.outpoint,
            scripts: Arc::clone(self.scripts()),
            coin: CoinScript::Deposit(deposit.address.terms.clone()),
            prevout: TxOut { value: deposit.amount, script_pubkey: deposit.address.address.script_pubkey() },
        });
        let refused = |error: SpendError| WalletError::Refund(error);
        let spend = Spend::sweep(self.spec.chain_id(), coins.collect(), &SpendPath::Refund, destination, rate);
        let spend = spend.map_err(refused)?;
        let mut witnesses = Vec::with_capacity(deposits.len());
        for (input, deposit) in deposits.iter().enumerate() {
            let to_sign = spend.to_sign(input, &SpendPath::Refund).map_err(refused)?;
            let keypair = self.keys.refund_keypair(deposit.address.index);
            let signature = SECP256K1.sign_schnorr(&Message::from(to_sign.sighash()), &keypair);
            let signatures = Signatures::Each(BTreeMap::from([(0, signature)]));
            witnesses.push(to_sign.witness(&signatures).map_err(|_| WalletError::NotSigned)?);
        }
        spend.signed(witnesses).map_err(refused)
    }
}
