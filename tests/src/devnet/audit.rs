//! Whether everything that was paid in or asked for is on both chains as it should be: once.

use std::collections::BTreeSet;

use bitcoin::{Address, Amount, OutPoint};
use causeway_node::devnet::DevNode;
use causeway_node::devnet::client::{Federation, Reserves};

use super::money::paid;
use super::{PegNetwork, payee, regtest};

/// What a test paid in, and what it asked for.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) deposits: Vec<Deposit>,
    pub(super) requests: Vec<Request>,
}

/// A payment to a deposit address.
#[derive(Debug)]
pub(super) struct Deposit {
    pub(super) outpoint: OutPoint,
    pub(super) amount: Amount,
    pub(super) address: Address,
}

/// A request that became final.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) outpoint: OutPoint,
    pub(super) payee: Address,
    pub(super) value: Amount,
}

impl PegNetwork {
    /// The accounts of every node: each adds up.
    ///
    /// # Panics
    /// If one does not.
    pub fn accounts(&self) -> Vec<Reserves> {
        let of = |node: &DevNode| {
            let reserves: Reserves = node.json("/v1/reserves").unwrap_or_else(|error| panic!("{error}"));
            assert_eq!((reserves.difference, reserves.reckon()), (0, 0), "{}: {reserves:?}", node.name);
            reserves
        };
        self.devnet.nodes.iter().map(of).collect()
    }

    /// Checks that every deposit was credited once and every request paid once, that what is owed is what came in less what
    /// went out, that Bitcoin has what the accounts say is locked, that nothing is frozen, and that payments go on. Nothing
    /// may be on its way.
    ///
    /// # Panics
    /// If not.
    pub fn audit(&mut self) {
        let credited: u64 = self.ledger.deposits.iter().map(|deposit| self.credited(deposit)).sum();
        self.ledger.requests.iter().for_each(|request| self.check_paid(request));
        let asked: Amount = self.ledger.requests.iter().map(|request| request.value).sum();
        let owed = credited - asked.to_sat();

        let federation: Federation = self.node().json("/v1/federation").unwrap_or_else(|error| panic!("{error}"));
        let main = federation.epochs.iter().map(|epoch| regtest(&epoch.main_address));
        let deposits = self.ledger.deposits.iter().map(|deposit| deposit.address.clone());
        let addresses: BTreeSet<Address> = main.chain(deposits).collect();
        let found: u64 = addresses.iter().flat_map(|address| self.coins(address)).map(|(_, value)| value).sum();
        self.wait("as much on Bitcoin as the accounts say, and as much owed as is left", |network| {
            let mut accounts = network.accounts().into_iter();
            accounts.all(|reserves| reserves.locked == found && reserves.owed == owed).then_some(())
        });
        assert!(self.frozen().iter().all(Option::is_none), "the peg is frozen");
        let payment = self.pay(&payee("shop"), Amount::from_sat(100_000));
        payment.unwrap_or_else(|reason| panic!("a payment is refused: {reason}"));
    }

    /// What a deposit was credited with.
    fn credited(&self, deposit: &Deposit) -> u64 {
        let Deposit { outpoint, amount, .. } = deposit;
        let peg_in = self.node().peg_in(*outpoint).unwrap_or_else(|error| panic!("{error}"));
        let credit = peg_in.and_then(|peg_in| peg_in.credit).unwrap_or_else(|| panic!("{outpoint} is credited"));
        assert_eq!(credit.amount + credit.fee, amount.to_sat(), "{outpoint}");
        credit.amount
    }

    /// Checks that a payee has one coin for each request.
    fn check_paid(&self, request: &Request) {
        let of_payee = self.ledger.requests.iter().filter(|other| other.payee == request.payee);
        let expected = of_payee.map(|request| {
            let closed = self.peg_out(request.outpoint);
            let (outpoint, payout) = paid(&closed);
            assert_eq!(closed.fee.map(|fee| payout + fee), Some(request.value.to_sat()), "{outpoint}");
            (outpoint, payout)
        });
        let found = self.coins(&request.payee);
        let distinct: BTreeSet<_> = found.iter().copied().collect();
        assert_eq!((distinct.len(), &distinct), (found.len(), &expected.collect()), "{} is paid once", request.payee);
    }
}
