//! What must hold after every block.

use std::collections::{HashMap, HashSet};

use bitcoin::{Amount, OutPoint, TxOut, Txid};
use causeway_chainspec::PegScript;
use causeway_consensus::ConnectedBlock;
use causeway_consensus::peg::batch::Batch;
use causeway_consensus::peg::coin::CoinKind;
use causeway_consensus::peg::evidence::Evidence;
use causeway_consensus::peg::history::PegEvent;
use causeway_consensus::peg::{PegContext, PegState, Step};

use super::World;
use crate::oracle::{self, Plan};

impl World {
    /// Compares what the block fixed with the rules as the oracle reads them.
    pub(super) fn check_openings(&self, before: &PegState, context: PegContext, connected: &ConnectedBlock) {
        let evidence = connected.evidence().cloned().unwrap_or_default();
        let Evidence { headers, confirmed, spent, peg_ins, fee_rate, replace, open: _ } = evidence;
        let mut step = Step::new(before, context);
        headers.into_iter().for_each(|run| step.headers(run).expect("it applied"));
        confirmed.into_iter().for_each(|proof| step.confirm(proof).expect("it applied"));
        spent.into_iter().for_each(|proof| step.spent(proof).expect("it applied"));
        peg_ins.into_iter().for_each(|peg_in| step.peg_in(peg_in).expect("it applied"));
        fee_rate.into_iter().for_each(|quote| step.fee_rate(quote).expect("it applied"));
        step.agree();
        for batch in before.open_batches().map(|batch| batch.number) {
            let Some(open) = step.state().open_batch(batch).cloned() else { continue };
            let expected = oracle::replacement(step.state(), &open, context.height);
            let replaced = replace.contains(&batch);
            // A proposer replaces whatever it may.
            let frozen = step.state().frozen().is_some();
            assert_eq!(expected.is_some() && !frozen, replaced, "batch {batch}");
            if replaced {
                step.replace(batch).expect("it applied");
                let version = step.state().open_batch(batch).expect("open").newest();
                assert_eq!(Some(Plan::of(&open, version)), expected);
            }
        }
        let expected = oracle::plan(step.state(), context.height, context.time, &self.openings);
        let opened = connected.peg_events().iter().find_map(|event| match event {
            PegEvent::BatchFixed { batch } if batch.versions.len() == 1 => Some(Plan::of(batch, batch.newest())),
            _ => None,
        });
        assert_eq!(opened, expected);
    }

    /// PEG section 9, from the coins of both chains.
    pub(super) fn check_accounts(&mut self) {
        let peg = self.chain.peg().clone();
        let accounts = peg.accounts();
        let (mut reserve, mut waiting, mut others) = (Amount::ZERO, Amount::ZERO, Amount::ZERO);
        for coin in self.chain.coins_mut().values() {
            let sum = match PegScript::of(&coin.output.script_pubkey) {
                Some(Ok(PegScript::Reserve)) => &mut reserve,
                Some(Ok(PegScript::Request(_))) => &mut waiting,
                Some(Err(_)) => panic!("a coin of no known form"),
                None => &mut others,
            };
            *sum += coin.output.value;
        }
        assert_eq!(reserve + waiting + others, Amount::MAX_MONEY);
        assert_eq!((accounts.reserve, accounts.waiting, accounts.circulating()), (reserve, waiting, others));
        let sum = |amounts: &mut dyn Iterator<Item = Amount>| amounts.map(|a| i128::from(a.to_sat())).sum::<i128>();
        let locked = sum(&mut peg.coins().map(|coin| coin.value));
        let in_flight = sum(&mut peg.open_batches().map(Batch::gross));
        let charges = sum(&mut peg.open_batches().map(|batch| batch.newest().charge));
        let owed = sum(&mut [others, waiting].into_iter()) + in_flight;
        let account = i128::from(accounts.fee_account);
        assert_eq!(locked + (-account).max(0), owed + account.max(0) + charges);
        self.tally.deficits += u32::from(account < 0);
    }

    /// That the digest is right and the records are complete, that the peg's coins are where it thinks they are, and that
    /// nobody is paid twice on Bitcoin.
    pub(crate) fn check_deeply(&mut self) {
        let peg = self.chain.peg().clone();
        let records: Vec<_> = peg.records().collect();
        let restored =
            PegState::restore(peg.network().clone(), peg.digest(), records.clone()).expect("its own records");
        assert_eq!(restored, peg);
        assert_eq!(restored.accounts(), peg.accounts());
        assert!(restored.coins().eq(peg.coins()));
        assert!(restored.waiting().eq(peg.waiting()));
        assert!(restored.open_batches().eq(peg.open_batches()));
        assert_eq!(restored.headers(), peg.headers());
        let mut again: Vec<_> = restored.records().collect();
        let mut records = records;
        again.sort();
        records.sort();
        assert_eq!(again, records);

        if peg.frozen().is_none() {
            for coin in peg.free_coins() {
                let on_bitcoin = self.parent.coin(&coin.outpoint).expect("a free coin is unspent");
                let scripts = peg.network().scripts(coin.epoch()).expect("its epoch");
                let script = match &coin.kind {
                    CoinKind::Main { .. } => scripts.main_script().to_owned(),
                    CoinKind::Deposit(terms) => scripts.deposit_script(peg.network().chain(), terms),
                };
                assert_eq!(*on_bitcoin, TxOut { value: coin.value, script_pubkey: script });
                let place = self.parent.place(&coin.outpoint.txid);
                assert_eq!(place, Some((coin.place.height, coin.place.index as usize)));
            }
        }
        let mut paid: HashMap<OutPoint, Txid> = HashMap::new();
        for (txid, (number, _)) in &self.versions {
            if self.parent.place(txid).is_none() {
                continue;
            }
            for payee in &self.batches[number].payees {
                let earlier = paid.insert(payee.outpoint, *txid);
                assert_eq!(earlier, None, "{} is paid twice", payee.outpoint);
            }
        }
        // Accepted, so paid, in flight or waiting.
        let in_flight: HashSet<OutPoint> =
            peg.open_batches().flat_map(|batch| &batch.payees).map(|payee| payee.outpoint).collect();
        let waiting: HashSet<OutPoint> = peg.waiting().map(|request| request.outpoint).collect();
        for request in self.requests.keys() {
            let closed = self.paid_by.get(request).is_some_and(|number| self.closed.contains_key(number));
            let places = [closed, in_flight.contains(request), waiting.contains(request)];
            assert_eq!(places.iter().filter(|there| **there).count(), 1, "{request}: {places:?}");
        }
    }
}
