//! Deposits: an address on Bitcoin that the wallet worked out by itself, and what becomes of what is paid to it.

use bitcoin::{Address, OutPoint, ScriptBuf};
use causeway_consensus::peg::script::DepositTerms;

pub use super::content::DepositRecord;
use super::node::{DepositOffer, Node};
use super::open::Look;
use super::{Wallet, WalletError};
use crate::devnet::client::Credit;

/// A deposit address, without any secret: what watching it takes.
#[derive(Clone, Debug)]
pub struct DepositAddress {
    /// The number of the address that is credited, and of the refund key.
    pub index: u32,
    /// What to pay on Bitcoin.
    pub address: Address,
    /// What it credits on Causeway.
    pub destination: Address,
    /// What it commits to.
    pub terms: DepositTerms,
}

impl DepositAddress {
    /// Makes the node look for what is paid to it, and checks that it means the same address.
    ///
    /// # Errors
    /// The node refuses, does not answer, or answers with another address.
    pub fn register(&self, node: &Node) -> Result<DepositOffer, WalletError> {
        let offer = node.deposit_offer(&self.destination, &self.terms.refund_key.to_string())?;
        if offer.epoch != self.terms.epoch {
            let url = node.url().to_owned();
            return Err(WalletError::OtherEpoch { url, got: offer.epoch, known: self.terms.epoch });
        }
        if offer.address != self.address.to_string() {
            let (url, expected) = (node.url().to_owned(), self.address.clone());
            // An address of the node is shown so that nobody pays to it: without what a terminal would obey.
            let got = offer.address.chars().filter(char::is_ascii_alphanumeric).take(100).collect();
            return Err(WalletError::WrongDepositAddress { url, got, expected });
        }
        Ok(offer)
    }

    /// Checks that a credit is what it says: a payment to the wallet.
    ///
    /// # Errors
    /// It is not.
    pub fn check_credit(&self, node: &Node, credit: &Credit) -> Result<(), WalletError> {
        let outpoint = OutPoint { txid: credit.txid, vout: credit.vout };
        let transaction = node.transaction(credit.txid)?;
        let output = transaction
            .as_ref()
            .and_then(|transaction| usize::try_from(credit.vout).ok().and_then(|vout| transaction.output.get(vout)));
        let right = output.is_some_and(|output| {
            output.script_pubkey == self.terms.destination && output.value.to_sat() == credit.amount
        });
        if right {
            return Ok(());
        }
        Err(WalletError::WrongCredit { url: node.url().to_owned(), credit: outpoint.to_string() })
    }
}

impl Wallet {
    /// The deposit address of this number, worked out from the chainspec's federation and the wallet's keys.
    pub fn deposit_address(&self, index: u32) -> DepositAddress {
        let destination = self.address_at(index);
        let terms = DepositTerms {
            epoch: self.spec.federation().number(),
            destination: destination.script_pubkey(),
            refund_key: self.keys.refund_key(index),
        };
        let script: ScriptBuf = self.scripts().deposit_script(self.spec.chain_id(), &terms);
        let address = Address::from_script(&script, self.spec.bitcoin().network()).expect("P2TR has an address");
        DepositAddress { index, address, destination, terms }
    }

    /// A new deposit address, which the node looks at, and which is in the file.
    ///
    /// # Errors
    /// The node is of another chain, refuses, or answers with another address; too many addresses were not paid; or the
    /// disk's. Then nothing may be paid to it.
    pub fn new_deposit(&mut self, node: &Node) -> Result<(DepositAddress, DepositOffer), WalletError> {
        node.check_chain(&self.spec)?;
        // A refusal takes no number: the file is written once the node has agreed.
        if self.is_gap_full() {
            self.sync(node, Look::Shown)?;
        }
        let index = self.reveal()?.index;
        let deposit = self.deposit_address(index);
        let offer = deposit.register(node)?;
        let record = DepositRecord { index, epoch: deposit.terms.epoch, address: deposit.address.to_string() };
        self.content.deposits.push(record);
        self.save()?;
        Ok((deposit, offer))
    }

    /// The deposit addresses that were shown, oldest first.
    pub fn deposits(&self) -> &[DepositRecord] {
        &self.content.deposits
    }

    /// The deposit address that was shown as this.
    ///
    /// # Errors
    /// None was.
    pub fn find_deposit(&self, given: &str) -> Result<DepositAddress, WalletError> {
        let record = self.content.deposits.iter().find(|deposit| deposit.address == given.trim());
        let record = record.ok_or_else(|| WalletError::NoDeposit { given: given.to_owned() })?;
        Ok(self.deposit_address(record.index))
    }
}
