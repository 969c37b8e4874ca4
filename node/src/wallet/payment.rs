//! Payments: made and signed, shown, and only then sent.

use bdk_wallet::error::CreateTxError;
use bdk_wallet::{KeychainKind, TxBuilder};
use bitcoin::{Address, Amount, FeeRate, OutPoint, Psbt, ScriptBuf, Transaction, Txid, Witness};

use super::amount::ShownFeeRate;
use super::node::Node;
use super::open::now_s;
use super::{Wallet, WalletError};

/// What a replacement's feerate is above that of what it replaces, at least: what nodes ask for, 1 sat/vB, and a little for
/// rounding.
const BUMP_STEP_SAT_PER_KWU: u64 = 251;

/// A signed payment that was not sent.
#[derive(Clone, Debug)]
pub struct Draft {
    transaction: Transaction,
    /// Whom it pays, change apart.
    pub payments: Vec<Payment>,
    /// Its fee.
    pub fee: Amount,
    /// Its fee by its size.
    pub fee_rate: FeeRate,
    /// What comes back to the wallet.
    pub change: Amount,
    /// What it replaces.
    pub replaces: Option<Txid>,
}

/// One output that is not change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    /// Whom it pays, on Causeway.
    pub address: Address,
    /// The Bitcoin address that it asks the peg to pay, if it is a request.
    pub bitcoin_address: Option<Address>,
    /// How much.
    pub amount: Amount,
    /// Which output it is.
    pub vout: u32,
}

impl Draft {
    /// The id of the transaction.
    pub fn txid(&self) -> Txid {
        self.transaction.compute_txid()
    }

    /// The first payment as an outpoint: the request, if it is a peg-out.
    pub fn outpoint(&self) -> Option<OutPoint> {
        self.payments.first().map(|payment| OutPoint { txid: self.txid(), vout: payment.vout })
    }
}

impl Wallet {
    /// The address to pay on this chain so that the peg pays a Bitcoin address this much.
    ///
    /// # Errors
    /// The peg never pays that address, or not that much.
    pub fn peg_out_address(&self, given: &str, amount: Amount) -> Result<Address, WalletError> {
        let bitcoin = self.parse_bitcoin_address(given)?;
        let refused = |source| WalletError::PegOutAddress { given: given.to_owned(), source };
        let address = self.spec.peg_out_address(bitcoin.into_unchecked()).map_err(refused)?;
        let (min, max) = (self.spec.params().peg_out_min, self.spec.params().peg_out_max);
        if amount < min || amount > max {
            return Err(WalletError::PegOutAmount { amount, min, max });
        }
        Ok(address)
    }

    /// A signed payment. Coins that others have sent and that are not final yet are not spent.
    ///
    /// # Errors
    /// There are too few coins, or the amount is too small.
    pub fn draft(&mut self, payee: &Address, amount: Amount, rate: FeeRate) -> Result<Draft, WalletError> {
        let unsure = self.unsure();
        let mut builder = self.coins.build_tx();
        builder.add_recipient(payee.script_pubkey(), amount).fee_rate(rate).unspendable(unsure);
        let psbt = finish(builder, amount)?;
        self.sign(psbt, Some(&payee.script_pubkey()), None)
    }

    /// A signed payment that replaces one that is not final, by a higher fee. Without a feerate, by the least that nodes
    /// take, or what the node suggests if that is more.
    ///
    /// # Errors
    /// The transaction is none of the wallet's, or final; or the feerate is too low.
    pub fn replace(&mut self, txid: Txid, rate: Option<FeeRate>, suggested: FeeRate) -> Result<Draft, WalletError> {
        let old = self.coins.get_tx(txid).map(|transaction| transaction.tx_node.tx);
        let old_rate = old.and_then(|transaction| self.coins.calculate_fee_rate(&transaction).ok());
        let old_rate = old_rate.map_or(0, FeeRate::to_sat_per_kwu);
        let least = FeeRate::from_sat_per_kwu(old_rate.saturating_add(BUMP_STEP_SAT_PER_KWU));
        let unsure = self.unsure();
        let bumped = self.coins.build_fee_bump(txid);
        let mut builder = bumped.map_err(|source| WalletError::Bump { txid, source })?;
        builder.fee_rate(rate.unwrap_or(least.max(suggested))).unspendable(unsure);
        let psbt = finish(builder, Amount::ZERO)?;
        self.sign(psbt, None, Some(txid))
    }

    /// Coins that somebody else has sent and that are not final: their sender may still replace them.
    fn unsure(&self) -> Vec<OutPoint> {
        let of_others = |coin: &bdk_wallet::LocalOutput| {
            coin.keychain == KeychainKind::External && !coin.chain_position.is_confirmed()
        };
        self.coins.list_unspent().filter(of_others).map(|coin| coin.outpoint).collect()
    }

    /// Signs, and says what was signed. The outputs to `payee`, or without one all that are not change, are the payments.
    fn sign(&self, mut psbt: Psbt, payee: Option<&ScriptBuf>, replaces: Option<Txid>) -> Result<Draft, WalletError> {
        let fee = psbt.fee().map_err(|_| WalletError::NotSigned)?;
        psbt.sign(self.keys.master(), self.keys.secp()).map_err(|_| WalletError::NotSigned)?;
        for input in &mut psbt.inputs {
            let signature = input.tap_key_sig.take().ok_or(WalletError::NotSigned)?;
            input.final_script_witness = Some(Witness::p2tr_key_spend(&signature));
        }
        let transaction = psbt.extract_tx_unchecked_fee_rate();
        let is_payment = |script: &ScriptBuf| match payee {
            Some(payee) => script == payee,
            None => !matches!(self.coins.derivation_of_spk(script.clone()), Some((KeychainKind::Internal, _))),
        };
        let (mut payments, mut change) = (Vec::new(), Amount::ZERO);
        for (vout, output) in (0_u32..).zip(&transaction.output) {
            if is_payment(&output.script_pubkey) {
                payments.push(self.payment(vout, &output.script_pubkey, output.value)?);
            } else {
                change = change.checked_add(output.value).ok_or(WalletError::NotSigned)?;
            }
        }
        let fee_rate = fee / transaction.weight();
        Ok(Draft { transaction, payments, fee, fee_rate, change, replaces })
    }

    fn payment(&self, vout: u32, script: &ScriptBuf, amount: Amount) -> Result<Payment, WalletError> {
        let address = Address::from_script(script, self.spec.identity()).map_err(|_| WalletError::NotSigned)?;
        let bitcoin_address = self.spec.peg_out_payee(address.as_unchecked().clone()).ok();
        Ok(Payment { address, bitcoin_address, amount, vout })
    }

    /// Sends a payment. Its change is on disk before anybody else knows of it.
    ///
    /// # Errors
    /// The node does not take it, or does not answer; or the disk's.
    pub fn send(&mut self, node: &Node, draft: &Draft) -> Result<Txid, WalletError> {
        self.save()?;
        node.submit(&draft.transaction)?;
        let now = now_s();
        if let Some(replaced) = draft.replaces {
            self.coins.apply_evicted_txs([(replaced, now)]);
        }
        self.coins.apply_unconfirmed_txs([(draft.transaction.clone(), now)]);
        self.save()?;
        Ok(draft.txid())
    }
}

fn finish<C: bdk_wallet::coin_selection::CoinSelectionAlgorithm>(
    builder: TxBuilder<'_, C>,
    amount: Amount,
) -> Result<Psbt, WalletError> {
    builder.finish().map_err(|error| match error {
        CreateTxError::CoinSelection(missing) => {
            WalletError::TooLittle { needed: missing.needed, available: missing.available }
        }
        CreateTxError::OutputBelowDustLimit(_) => WalletError::Dust { amount },
        CreateTxError::FeeRateTooLow { required } => {
            WalletError::FeeRateTooLow { least: ShownFeeRate(required).to_string() }
        }
        CreateTxError::FeeTooLow { required } => WalletError::FeeRateTooLow { least: required.to_string() },
        other => WalletError::Draft(Box::new(other)),
    })
}
