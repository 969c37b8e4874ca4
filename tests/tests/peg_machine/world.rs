//! Two chains and everyone who acts on them, at random.

mod checks;

use std::collections::{BTreeMap, HashMap, HashSet};

use bitcoin::consensus::serialize;
use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use causeway_chainspec::{BitcoinHeight, ChainSpec, PegOutDestination, PegScript, SatPerKvb};
use causeway_consensus::peg::PegState;
use causeway_consensus::peg::batch::{Batch, BatchKind};
use causeway_consensus::peg::evidence::PegIn;
use causeway_consensus::peg::history::PegEvent;
use causeway_consensus::peg::propose::Candidates;
use causeway_consensus::peg::script::DepositTerms;
use causeway_consensus::{ChainView, ConnectedBlock};
use causeway_tests::chain::MemoryChain;
use causeway_tests::parent::{ParentChain, peg_spec, quote, request_script, terms};
use causeway_tests::wallet::{Kind, Owner, Spendable, spend};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

use crate::oracle::Openings;
use crate::synthetic::spread;

/// A deposit that somebody made on Bitcoin.
#[derive(Debug, Clone)]
pub(crate) struct Deposit {
    pub(crate) terms: DepositTerms,
    pub(crate) outpoint: OutPoint,
    pub(crate) owner: Option<Owner>,
}

/// How often things happened: a history that never did something proves nothing about it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) credited: u32,
    pub(crate) reorganisations: u32,
    pub(crate) payouts: u32,
    pub(crate) refreshes: u32,
    pub(crate) consolidations: u32,
    pub(crate) replacements: u32,
    /// Batches of which another version than the newest confirmed.
    pub(crate) older_versions: u32,
    pub(crate) without_change: u32,
    pub(crate) confirmed: u32,
    pub(crate) requests: u32,
    pub(crate) deficits: u32,
}

pub(crate) struct World {
    pub(crate) chain: MemoryChain,
    pub(crate) parent: ParentChain,
    pub(crate) rng: StdRng,
    pub(crate) tally: Tally,
    /// Every block above the derived ones, serialised.
    pub(crate) blocks: Vec<Vec<u8>>,
    deposits: Vec<Deposit>,
    /// Deposits that no block of Bitcoin's best chain has.
    mempool: Vec<Transaction>,
    /// What the users hold on Causeway.
    purse: Vec<Spendable>,
    /// Every version ever fixed, with its batch.
    versions: BTreeMap<Txid, (u32, Transaction)>,
    /// Every batch ever opened, as it was last seen.
    pub(crate) batches: BTreeMap<u32, Batch>,
    /// Every request ever made.
    requests: HashMap<OutPoint, TxOut>,
    /// The batch that pays a request.
    pub(crate) paid_by: HashMap<OutPoint, u32>,
    pub(crate) credited: HashSet<OutPoint>,
    pub(crate) closed: HashMap<u32, Txid>,
    openings: Openings,
    owners: u64,
    /// Satoshi per 1,000 virtual bytes, about which validators quote.
    market: u64,
}

/// Limits so small that every rule of them is met within some hundred blocks.
pub(crate) fn small_spec(rng: &mut StdRng) -> ChainSpec {
    peg_spec(|parts| {
        let mut federation = parts.federation.to_parts();
        federation.timelocks.claim_window = 40;
        federation.timelocks.sweep_age = 60;
        federation.timelocks.recovery_delay = 180;
        federation.timelocks.refund_delay = 240;
        parts.federation = causeway_chainspec::Epoch::new(federation).expect("a sound epoch");
        parts.launch = rng.random();
        let params = &mut parts.params;
        params.refresh_margin = 15;
        params.coins_max = [40, 80, 400][rng.random_range(0..3)];
        params.max_inputs = 12;
        params.max_payees = [3, 10, 82][rng.random_range(0..3)];
        params.batch_interval = rng.random_range(1..6);
        params.request_max_wait = rng.random_range(20..80);
        params.replace_after = rng.random_range(1..4);
        params.quote_age = rng.random_range(10..60);
        params.change_unit = Amount::from_sat([10_000, 1_000_000, 1_000_000_000][rng.random_range(0..3)]);
        params.value_per_day_max = params.batch_value_max;
    })
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let spec = small_spec(&mut rng);
        Self {
            parent: ParentChain::new(&spec),
            chain: MemoryChain::new(spec),
            rng,
            tally: Tally::default(),
            blocks: vec![],
            deposits: vec![],
            mempool: vec![],
            purse: vec![],
            versions: BTreeMap::new(),
            batches: BTreeMap::new(),
            requests: HashMap::new(),
            paid_by: HashMap::new(),
            credited: HashSet::new(),
            closed: HashMap::new(),
            openings: Openings::default(),
            owners: 0,
            market: 2_000,
        }
    }

    pub(crate) fn peg(&self) -> &PegState {
        self.chain.peg()
    }

    /// One thing happens, at random.
    pub(crate) fn act(&mut self) {
        match self.rng.random_range(0..20) {
            0..=3 => self.deposit(),
            4..=8 => self.mine(),
            9 => self.reorganise(),
            10 => self.market = self.log_uniform(500, 150_000),
            _ => self.block(),
        }
    }

    fn log_uniform(&mut self, from: u64, to: u64) -> u64 {
        spread(&mut self.rng, from, to)
    }

    fn owner(&mut self) -> Owner {
        self.owners += 1;
        Owner::new(self.owners % 50)
    }

    fn deposit(&mut self) {
        let request = self.rng.random_bool(0.1);
        let amount = match self.rng.random_range(0..6) {
            0 => self.rng.random_range(49_000..60_000),
            1 => self.log_uniform(1_000_000_000, 9_000_000_000),
            _ => self.log_uniform(50_000, 500_000_000),
        };
        self.deposit_of(Amount::from_sat(amount), request);
    }

    /// To somebody, or as a request.
    fn deposit_of(&mut self, amount: Amount, request: bool) {
        let owner = self.owner();
        let destination = if request { request_script(&owner) } else { owner.script_pubkey(Kind::P2wpkh) };
        let terms = terms(destination, &owner);
        let network = self.peg().network().clone();
        let transaction = self.parent.deposit(&network, &terms, amount);
        let outpoint = OutPoint { txid: transaction.compute_txid(), vout: 0 };
        self.deposits.push(Deposit { terms, outpoint, owner: (!request).then_some(owner) });
        self.mempool.push(transaction);
    }

    /// A block of Bitcoin, with some of the deposits that wait and any versions of some batches.
    pub(crate) fn mine(&mut self) {
        self.parent.clock = self.parent.clock.max(self.chain.next_context().time);
        let mut block = Vec::new();
        for transaction in std::mem::take(&mut self.mempool) {
            let list = if self.rng.random_bool(0.7) { &mut block } else { &mut self.mempool };
            list.push(transaction);
        }
        let mut batches: Vec<Vec<Transaction>> = self
            .peg()
            .open_batches()
            .map(|batch| batch.versions.iter().map(|v| batch.transaction(v)).collect())
            .collect();
        batches.shuffle(&mut self.rng);
        for versions in batches {
            // What a low fee keeps out may still confirm one day.
            let transaction = versions.choose(&mut self.rng).expect("a batch has a version");
            if self.rng.random_bool(0.2) && self.parent.is_spendable(transaction) {
                block.push(transaction.clone());
            }
        }
        self.parent.mine(block);
    }

    /// Another branch wins that leaves what is final alone.
    fn reorganise(&mut self) {
        let most = self.chain.spec.params().final_depth - 1;
        let depth = self.rng.random_range(1..=most);
        let tip = self.parent.tip().to_u32();
        let Some(fork) = tip.checked_sub(depth) else { return };
        self.replace_branch(BitcoinHeight(fork), depth + 1);
        self.tally.reorganisations += 1;
    }

    /// Takes the blocks above `fork` off and mines others. Versions of batches are chosen anew.
    pub(crate) fn replace_branch(&mut self, fork: BitcoinHeight, blocks: u32) {
        let undone = self.parent.rewind(fork);
        let deposits =
            undone.into_iter().filter(|transaction| !self.versions.contains_key(&transaction.compute_txid()));
        self.mempool.extend(deposits);
        for _ in 0..blocks {
            self.mine();
        }
    }

    /// The claims of deposits that stand on Bitcoin's best chain.
    pub(crate) fn claims(&self) -> Vec<PegIn> {
        let waiting = self.deposits.iter().filter(|deposit| !self.credited.contains(&deposit.outpoint));
        waiting.filter_map(|deposit| self.parent.peg_in(&deposit.terms, deposit.outpoint)).collect()
    }

    /// A block of Causeway: of everything there is, a proposer at random puts in some.
    fn block(&mut self) {
        let spacing = match self.rng.random_range(0..40) {
            0 => 100_000,
            1..=3 => self.rng.random_range(1_000..20_000),
            _ => self.rng.random_range(1..200),
        };
        let time = self.chain.tip().time() + spacing;
        let mut candidates = self.parent.candidates(self.peg(), time);
        if self.rng.random_bool(0.2) {
            candidates.headers = None;
        }
        if self.rng.random_bool(0.3) {
            candidates.confirmed.clear();
        }
        candidates.confirmed.shuffle(&mut self.rng);
        if self.rng.random_bool(0.7) {
            candidates.peg_ins = self.claims();
            candidates.peg_ins.shuffle(&mut self.rng);
        }
        if self.rng.random_bool(0.6) {
            let rate = self.rng.random_range(self.market * 4 / 5..=self.market * 5 / 4);
            let rate = if self.rng.random_bool(0.02) { [0, u64::MAX][self.rng.random_range(0..2)] } else { rate };
            let (validator, height) = (self.rng.random_range(0..4), self.chain.context_at(time).height);
            candidates.fee_rate = Some(quote(&self.chain.spec, validator, height, SatPerKvb(rate)));
        }
        let (fees, transactions) = self.transactions();
        self.add(time, candidates, fees, transactions);
    }

    /// The amount of a deposit that stands on Bitcoin.
    pub(crate) fn deposited(&self, deposit: &OutPoint) -> Amount {
        let transaction = self.parent.transaction(&deposit.txid).expect("it stands on the best chain");
        transaction.output[deposit.vout as usize].value
    }

    /// Blocks until the chain knows all of Bitcoin's headers.
    pub(crate) fn catch_up(&mut self) {
        while self.peg().headers().tip().hash != self.parent.tip_hash() {
            let time = self.chain.tip().time() + 1;
            let headers = self.parent.run_towards(self.peg().headers(), time);
            self.add(time, Candidates { headers, ..Candidates::default() }, Amount::ZERO, vec![]);
        }
    }

    /// Transfers and requests.
    fn transactions(&mut self) -> (Amount, Vec<Transaction>) {
        let mut fees = Amount::ZERO;
        let mut transactions = Vec::new();
        for _ in 0..self.rng.random_range(0..3) {
            if self.purse.is_empty() {
                break;
            }
            // Now and then somebody wants almost everything at once.
            let everything = self.rng.random_bool(0.02);
            let coins = match everything {
                true => std::mem::take(&mut self.purse),
                false => vec![self.purse.swap_remove(self.rng.random_range(0..self.purse.len()))],
            };
            let value: Amount = coins.iter().map(|coin| coin.output.value).sum();
            let fee = Amount::from_sat(self.rng.random_range(0..2_000)).min(value);
            let mut left = value - fee;
            fees += fee;
            let mut outputs = Vec::new();
            let (min, max) = (self.chain.spec.params().peg_out_min, self.chain.spec.params().peg_out_max);
            let most = (left * 9 / 10).min(max);
            if everything && most >= min {
                outputs.push(TxOut { value: most, script_pubkey: self.payee() });
                left -= most;
            } else if self.rng.random_bool(0.5) {
                for _ in 0..self.rng.random_range(1..4) {
                    if left < min {
                        break;
                    }
                    let amount = Amount::from_sat(self.log_uniform(min.to_sat(), left.min(max).to_sat()));
                    let amount = amount.max(min).min(left);
                    outputs.push(TxOut { value: amount, script_pubkey: self.payee() });
                    left -= amount;
                }
            }
            let owner = self.owner();
            outputs.push(TxOut { value: left, script_pubkey: owner.script_pubkey(Kind::P2wpkh) });
            let transaction = spend(&coins, outputs);
            let vout = u32::try_from(transaction.output.len() - 1).expect("few outputs");
            let outpoint = OutPoint { txid: transaction.compute_txid(), vout };
            let output = transaction.output[vout as usize].clone();
            if left > Amount::from_sat(1_000) {
                self.purse.push(Spendable { outpoint, output, owner, kind: Kind::P2wpkh });
            }
            transactions.push(transaction);
        }
        (fees, transactions)
    }

    /// A request to any of the five forms.
    fn payee(&mut self) -> ScriptBuf {
        let owner = self.owner();
        let kinds = [Kind::P2pkh, Kind::P2sh, Kind::P2wpkh, Kind::P2wsh, Kind::P2trKey];
        let script = owner.script_pubkey(*kinds.choose(&mut self.rng).expect("five"));
        PegOutDestination::from_bitcoin_script(&script).expect("one of the five").to_script_pubkey()
    }

    /// Adds a block that `propose` builds, and checks everything that must hold after it.
    pub(crate) fn add(
        &mut self,
        time: u32,
        candidates: Candidates,
        fees: Amount,
        transactions: Vec<Transaction>,
    ) -> ConnectedBlock {
        let before = self.peg().clone();
        let context = self.chain.context_at(time);
        let block = self.chain.block_at(time, candidates, fees, transactions);
        let connected = self.chain.accept(&block).expect("what is proposed is valid");
        self.check_openings(&before, context, &connected);
        for event in connected.peg_events() {
            self.note(time, event, &block.txdata);
        }
        for transaction in block.txdata.iter().skip(1) {
            let txid = transaction.compute_txid();
            for (vout, output) in (0u32..).zip(&transaction.output) {
                if matches!(PegScript::of(&output.script_pubkey), Some(Ok(PegScript::Request(_)))) {
                    self.requests.insert(OutPoint { txid, vout }, output.clone());
                    self.tally.requests += 1;
                }
            }
        }
        self.check_accounts();
        self.blocks.push(serialize(&block));
        connected
    }

    fn note(&mut self, time: u32, event: &PegEvent, txdata: &[Transaction]) {
        match event {
            PegEvent::Credited { outpoint, credit } => {
                assert!(self.credited.insert(*outpoint), "{outpoint} was credited twice");
                self.tally.credited += 1;
                let deposit = self.deposits.iter().find(|deposit| deposit.outpoint == *outpoint).expect("it was made");
                let output = txdata[1].output[credit.vout as usize].clone();
                assert_eq!(output.script_pubkey, deposit.terms.destination);
                assert_eq!(output.value + credit.fee, credit.amount);
                if let Some(owner) = deposit.owner.clone() {
                    let outpoint = OutPoint { txid: txdata[1].compute_txid(), vout: credit.vout };
                    self.purse.push(Spendable { outpoint, output, owner, kind: Kind::P2wpkh });
                }
            }
            PegEvent::BatchFixed { batch } => self.fixed(time, batch),
            PegEvent::BatchConfirmed { batch, txid, height, index } => {
                assert_eq!(self.parent.place(txid), Some((*height, *index as usize)));
                assert!(self.closed.insert(batch.number, *txid).is_none(), "closed twice");
                self.tally.confirmed += 1;
                self.tally.older_versions += u32::from(batch.newest().txid != *txid);
            }
            PegEvent::Frozen(_) => {}
        }
    }

    fn fixed(&mut self, time: u32, batch: &Batch) {
        let version = batch.newest();
        let transaction = batch.transaction(version);
        crate::plans::check_version(self.peg(), batch, version);
        assert_eq!(transaction.compute_txid(), version.txid);
        self.versions.insert(version.txid, (batch.number, transaction));
        if batch.versions.len() == 1 {
            match batch.kind {
                BatchKind::Payout => self.tally.payouts += 1,
                BatchKind::Refresh => self.tally.refreshes += 1,
                BatchKind::Consolidation => self.tally.consolidations += 1,
            }
            if batch.kind != BatchKind::Refresh {
                self.openings.last = Some(batch.opened.0);
            }
            self.openings.batched.push((time, batch.gross().to_sat()));
            for payee in &batch.payees {
                let earlier = self.paid_by.insert(payee.outpoint, batch.number);
                assert_eq!(earlier, None, "{} is paid by two batches", payee.outpoint);
                assert_eq!(self.requests[&payee.outpoint].value, payee.amount);
            }
        } else {
            self.tally.replacements += 1;
        }
        self.tally.without_change += u32::from(version.change.is_empty());
        self.batches.insert(batch.number, batch.clone());
    }

    /// Fees are what they should be, batches confirm, and nobody asks for more: everyone is paid.
    ///
    /// What refreshes cost is missing when all that circulates is requested at once (PEG 9: locked + deficit = owed): then, and
    /// only then, a request waits for the next deposit.
    pub(crate) fn settle(&mut self) {
        self.mempool.clear();
        let mut paid_in = false;
        for _ in 0..2_000 {
            if self.peg().waiting().len() == 0 && self.peg().open_batches().len() == 0 {
                break;
            }
            let accounts = self.peg().accounts();
            if !paid_in && accounts.in_batches == Amount::ZERO && accounts.waiting > accounts.free {
                assert!(accounts.fee_account < 0, "{accounts:?}");
                self.deposit_of(accounts.waiting - accounts.free + Amount::ONE_BTC, false);
                paid_in = true;
            }
            self.parent.clock = self.parent.clock.max(self.chain.next_context().time);
            let newest = self.peg().open_batches().map(|batch| batch.transaction(batch.newest()));
            let mut block: Vec<_> = newest.filter(|transaction| self.parent.is_spendable(transaction)).collect();
            block.append(&mut self.mempool);
            self.parent.mine(block);
            let time = self.chain.tip().time() + 4_000;
            let mut candidates = self.parent.candidates(self.peg(), time);
            let context = self.chain.context_at(time);
            let validator = context.height.0 % 4;
            candidates.fee_rate = Some(quote(&self.chain.spec, validator, context.height, SatPerKvb(1_500)));
            self.add(time, candidates, Amount::ZERO, vec![]);
        }
        self.check_deeply();
        let state = self.peg();
        let waiting: Vec<_> = state.waiting().map(|request| request.amount).collect();
        assert!(waiting.is_empty(), "{waiting:?} wait, {:?}", state.accounts());
        assert_eq!(state.open_batches().len(), 0);
        for (request, output) in &self.requests {
            let number = self.paid_by[request];
            let (batch, txid) = (&self.batches[&number], self.closed[&number]);
            let place = batch.payees.iter().position(|payee| payee.outpoint == *request).expect("its batch pays it");
            let version = batch.version(&txid).expect("its own version");
            let paid = &self.parent.transaction(&txid).expect("on the best chain").output[place];
            assert_eq!(paid.value + version.shares[place], output.value);
            let to = PegOutDestination::from_bitcoin_script(&paid.script_pubkey).expect("one of the five");
            assert_eq!(to.to_script_pubkey(), output.script_pubkey);
        }
    }
}
