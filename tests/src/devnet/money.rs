//! Money on its way in, around, and out.

use bitcoin::{Address, Amount, Network, OutPoint, TxOut, Txid};
use causeway_node::devnet::DevnetError;
use causeway_node::devnet::client::{Credit, DepositAddress, PegOut, PegOutAddress};
use causeway_node::devnet::key::DevKey;
use causeway_node::devnet::purse::Purse;
use serde_json::json;

use super::audit::{Deposit, Request};
use super::{PegNetwork, regtest};

impl PegNetwork {
    /// Pays this to a deposit address on Bitcoin, where it waits for a block.
    ///
    /// # Panics
    /// If there is no deposit address, or bitcoind refuses the payment.
    pub fn deposit(&mut self, amount: Amount) -> OutPoint {
        let refund = DevKey::of("refund", Network::Regtest).x_only().to_string();
        let body = json!({ "destination": self.devnet.funds.address, "refund_key": refund });
        let address: DepositAddress =
            self.wait("a deposit address", |network| match network.node().post("/v1/peg-in/address", &body) {
                Ok(address) => Some(address),
                Err(DevnetError::Answer { status: 503, .. }) => None,
                Err(error) => panic!("{error}"),
            });
        let address = regtest(&address.address);
        let outpoint = self.miner.pay(&address, amount).unwrap_or_else(|error| panic!("{error}"));
        self.ledger.deposits.push(Deposit { outpoint, amount, address });
        outpoint
    }

    /// Waits until a deposit has so many confirmations.
    pub fn wait_confirmations(&mut self, deposit: OutPoint, confirmations: u32) {
        self.wait("a confirmation of the deposit", |network| {
            let peg_in = network.node().peg_in(deposit).unwrap_or_else(|error| panic!("{error}"))?;
            assert!(peg_in.credit.is_none(), "it is credited early");
            (peg_in.confirmations? == confirmations).then_some(())
        });
    }

    /// Waits until a deposit is credited.
    pub fn wait_credit(&mut self, deposit: OutPoint) -> Credit {
        self.wait("the credit", |network| {
            network.node().peg_in(deposit).unwrap_or_else(|error| panic!("{error}"))?.credit
        })
    }

    /// Pays on Causeway, and waits until that is final.
    ///
    /// # Errors
    /// The node's reason, if it refuses the payment.
    ///
    /// # Panics
    /// If it does not become final.
    pub fn pay(&self, address: &Address, value: Amount) -> Result<Txid, String> {
        let mut purse = Purse::open(self.directory(), &self.devnet).unwrap_or_else(|error| panic!("{error}"));
        let txid = match purse.pay(&[TxOut { value, script_pubkey: address.script_pubkey() }]) {
            Ok(txid) => txid,
            Err(DevnetError::Refused { answer, .. }) => return Err(answer),
            Err(error) => panic!("{error}"),
        };
        self.node().wait_final(txid).unwrap_or_else(|error| panic!("{error}\n{}", self.logs()));
        Ok(txid)
    }

    /// Asks for a payment on Bitcoin, and waits until the request is final.
    ///
    /// # Errors
    /// The node's reason, if it refuses the request.
    pub fn request(&mut self, payee: &Address, value: Amount) -> Result<OutPoint, String> {
        let address: PegOutAddress =
            self.node().json(&format!("/v1/peg-out/address/{payee}")).unwrap_or_else(|error| panic!("{error}"));
        let outpoint = OutPoint { txid: self.pay(&regtest(&address.address), value)?, vout: 0 };
        self.ledger.requests.push(Request { outpoint, payee: payee.clone(), value });
        Ok(outpoint)
    }

    /// What became of a request.
    ///
    /// # Panics
    /// If the node does not know it.
    pub fn peg_out(&self, request: OutPoint) -> PegOut {
        let peg_out = self.node().peg_out(request).unwrap_or_else(|error| panic!("{error}"));
        peg_out.unwrap_or_else(|| panic!("the request {request} is known"))
    }

    /// Waits until a request has a batch.
    pub fn wait_batch(&mut self, request: OutPoint) -> u32 {
        self.wait("a batch", |network| network.peg_out(request).batch)
    }

    /// Waits until a version of the request's batch is signed, and waits at bitcoind.
    pub fn wait_signed(&mut self, request: OutPoint) -> Txid {
        self.wait("the members' signatures", |network| {
            let versions = network.peg_out(request).versions;
            network.waiting().into_iter().find(|txid| versions.contains(txid))
        })
    }

    /// Waits until the newest of so many versions of the request's batch is signed, and waits at bitcoind.
    pub fn wait_version(&mut self, request: OutPoint, count: usize) -> Txid {
        self.wait("the signatures of a version", |network| {
            let versions = network.peg_out(request).versions;
            let newest = versions.last().copied().filter(|_| versions.len() >= count)?;
            network.waiting().contains(&newest).then_some(newest)
        })
    }

    /// Waits until the request's batch has so many versions, signed or not.
    pub fn wait_replaced(&mut self, request: OutPoint, count: usize) -> Vec<Txid> {
        self.wait("a version", |network| {
            Some(network.peg_out(request).versions).filter(|versions| versions.len() >= count)
        })
    }

    /// Waits until the request's payout has so many confirmations, below the number that closes it.
    pub fn wait_paid(&mut self, request: OutPoint, confirmations: u32) {
        self.wait("a confirmation of the payout", |network| {
            (network.peg_out(request).confirmations == Some(confirmations)).then_some(())
        });
    }

    /// Waits until the request's batch is closed, and checks what Bitcoin has of it: one coin of the payee.
    ///
    /// # Panics
    /// If the payee was not paid exactly once.
    pub fn wait_closed(&mut self, request: OutPoint, payee: &Address) {
        let closed = self.wait("the end of the batch", |network| {
            Some(network.peg_out(request)).filter(|peg_out| peg_out.state == "confirmed")
        });
        assert_eq!(self.coins(payee), [paid(&closed)], "{payee} is paid once");
    }
}

/// The output that pays a request, and what arrives there in satoshi.
///
/// # Panics
/// If the request is not confirmed.
pub(super) fn paid(closed: &PegOut) -> (OutPoint, u64) {
    assert_eq!(closed.state, "confirmed");
    let outpoint = OutPoint { txid: closed.txid.expect("it has one"), vout: closed.vout.expect("it has one") };
    (outpoint, closed.payout.expect("it has one"))
}
