//! One block's step of the peg: its evidence is applied item by item, and at the end stand the peg transaction that it
//! demands and the state after it (PEG section 2).

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::absolute::LockTime;
use bitcoin::opcodes::all::OP_RETURN;
use bitcoin::script::Builder;
use bitcoin::secp256k1::{Message, SECP256K1};
use bitcoin::transaction::Version as TransactionVersion;
use bitcoin::{Amount, OutPoint, Script, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Weight, Witness};
use causeway_chainspec::{BitcoinHeight, Height, PegScript, SatPerKvb, reserve_script};

use super::batch::Batch;
use super::coin::{CoinKind, CoinPlace, PegCoin, PegOutRequest, RequestPlace};
use super::error::InvalidPeg;
use super::evidence::{Evidence, FeeRateQuote, PegIn};
use super::header_tree::HeaderRun;
use super::history::{Credit, PegEvent};
use super::plan::{plan_batch, plan_replacement};
use super::proof::{InclusionProof, ProvenTransaction};
use super::record::RecordChanges;
use super::state::{self, DAY_S, Freeze, PegState, Quote};

/// The least fee of a peg-in in satoshi.
const PEG_IN_FEE_MIN: Amount = Amount::from_sat(1_000);

/// Deposits below this are credited only while the peg holds less than three quarters of `coins_max`.
const SMALL_DEPOSIT: Amount = Amount::from_sat(1_000_000);

/// What an output that names a batch's version begins with, in an OP_RETURN before the txid.
pub const BATCH_MARK: [u8; 4] = *b"CWBA";

/// The least agreed feerate.
const RATE_MIN: SatPerKvb = SatPerKvb(1_000);

/// The block that a step is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PegContext {
    /// Its height.
    pub height: Height,
    /// Its time, in seconds of Unix time.
    pub time: u32,
}

/// A step in the making. Every item either applies whole, or is refused and leaves the step as it was.
pub struct Step {
    context: PegContext,
    /// Bitcoin's tip before this block: its headers make nothing deep.
    tip_before: BitcoinHeight,
    state: PegState,
    changes: RecordChanges,
    evidence: Evidence,
    /// The last batch confirmed in this block.
    last_confirmed: u32,
    last_deposit: Option<OutPoint>,
    /// Outputs after the reserve, in evidence order.
    payments: Vec<TxOut>,
    marks: Vec<Txid>,
    /// The requests of the batch that is opened.
    opened: Vec<PegOutRequest>,
    events: Vec<PegEvent>,
}

/// What a block does to the peg.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PegStep {
    /// The state after the block.
    pub state: PegState,
    /// The records that differ from the state before.
    pub changes: RecordChanges,
    /// What happened, for those who ask later.
    pub events: Vec<PegEvent>,
}

impl Step {
    /// A step on top of `state` that has no evidence yet.
    pub fn new(state: &PegState, context: PegContext) -> Self {
        Self {
            context,
            tip_before: state.headers().tip().height,
            state: state.clone(),
            changes: RecordChanges::default(),
            evidence: Evidence::default(),
            last_confirmed: 0,
            last_deposit: None,
            payments: Vec::new(),
            marks: Vec::new(),
            opened: Vec::new(),
            events: Vec::new(),
        }
    }

    /// The state as far as it has come.
    pub fn state(&self) -> &PegState {
        &self.state
    }

    /// The items applied so far.
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// Applies everything of `evidence`, and checks that a batch is opened exactly if one is due.
    ///
    /// # Errors
    /// The first rule broken, in the order of the items.
    pub fn apply(&mut self, evidence: Evidence) -> Result<(), InvalidPeg> {
        let Evidence { headers, confirmed, spent, peg_ins, fee_rate, replace, open } = evidence;
        headers.map_or(Ok(()), |run| self.headers(run))?;
        confirmed.into_iter().try_for_each(|proof| self.confirm(proof))?;
        spent.map_or(Ok(()), |proof| self.spent(proof))?;
        peg_ins.into_iter().try_for_each(|peg_in| self.peg_in(peg_in))?;
        fee_rate.map_or(Ok(()), |quote| self.fee_rate(quote))?;
        self.agree();
        replace.into_iter().try_for_each(|number| self.replace(number))?;
        match (open, self.open()) {
            (true, false) => Err(InvalidPeg::NothingToOpen),
            (false, true) => Err(InvalidPeg::BatchNotOpened),
            _ => Ok(()),
        }
    }

    fn thawed(&self) -> Result<(), InvalidPeg> {
        if self.state.frozen().is_some() { Err(InvalidPeg::Frozen) } else { Ok(()) }
    }

    /// New Bitcoin headers. They may freeze the peg.
    ///
    /// # Errors
    /// [`InvalidPeg::Headers`].
    pub fn headers(&mut self, run: HeaderRun) -> Result<(), InvalidPeg> {
        let mut headers = self.state.headers.clone();
        let mut changes = self.changes.clone();
        let extension = headers.extend(&run, self.context.time, &mut changes).map_err(InvalidPeg::Headers)?;
        self.state.headers = headers;
        self.changes = changes;
        let (fork_point, highest) = (extension.fork_point, extension.highest_before);
        let final_depth = self.state.network().params().final_depth;
        if extension.reaches_final(final_depth) {
            self.freeze(Freeze::Reorganisation { fork_point, highest, final_depth });
        }
        self.forget_credited();
        self.evidence.headers = Some(run);
        Ok(())
    }

    /// A version of an open batch that is deep on Bitcoin.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn confirm(&mut self, proof: InclusionProof) -> Result<(), InvalidPeg> {
        self.thawed()?;
        let proven = self.prove(&proof)?;
        self.check_depth(&proof, proven.txid())?;
        let txid = proven.txid();
        let found = self.state.open.values().find(|batch| batch.version(&txid).is_some());
        let batch = found.ok_or(InvalidPeg::NoSuchVersion { txid })?.clone();
        if batch.number <= self.last_confirmed {
            return Err(InvalidPeg::NotSorted);
        }
        self.last_confirmed = batch.number;
        let version = batch.version(&txid).expect("found by it");
        // The charge becomes that of the version that confirmed.
        self.move_account(|account| account + sat(batch.newest().charge) - sat(version.charge));
        for coin in batch.change_coins(version, proof.height, proof.index) {
            self.add_coin(coin);
        }
        self.put_batch(batch.number, None);
        let (height, index) = (proof.height, proof.index);
        self.events.push(PegEvent::BatchConfirmed { batch: Box::new(batch), txid, height, index });
        self.evidence.confirmed.push(proof);
        Ok(())
    }

    /// A deep foreign spend of one of the peg's coins. It freezes the peg.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn spent(&mut self, proof: InclusionProof) -> Result<(), InvalidPeg> {
        self.thawed()?;
        let proven = self.prove(&proof)?;
        self.check_depth(&proof, proven.txid())?;
        let txid = proven.txid();
        if self.state.open.values().any(|batch| batch.version(&txid).is_some()) {
            return Err(InvalidPeg::SpendIsBatch { txid });
        }
        // Tens of thousands of inputs may face as many coins.
        let spent: BTreeSet<OutPoint> = proof.transaction.input.iter().map(|input| input.previous_output).collect();
        let coin = self.state.coins().find(|coin| spent.contains(&coin.outpoint));
        let coin = coin.ok_or(InvalidPeg::NoPegCoinSpent { txid })?;
        let outpoint = coin.outpoint;
        self.freeze(Freeze::CoinSpent { outpoint, txid });
        self.evidence.spent = Some(proof);
        Ok(())
    }

    /// A deposit.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn peg_in(&mut self, peg_in: PegIn) -> Result<(), InvalidPeg> {
        self.thawed()?;
        let proven = self.prove(&peg_in.proof)?;
        let outpoint = OutPoint { txid: proven.txid(), vout: peg_in.vout };
        if self.last_deposit.is_some_and(|last| last >= outpoint) {
            return Err(InvalidPeg::NotSorted);
        }
        let (amount, fee) = self.check_peg_in(&peg_in, outpoint)?;
        // Last, so that a deposit that only has to get deeper is known for one.
        self.check_depth(&peg_in.proof, outpoint.txid)?;
        let credit = amount - fee;
        self.last_deposit = Some(outpoint);

        self.change_summary(|summary| {
            summary.reserve_value -= credit;
            summary.fee_account += sat(fee);
        });
        let place = CoinPlace { height: peg_in.proof.height, index: peg_in.proof.index, vout: peg_in.vout };
        let kind = CoinKind::Deposit(peg_in.terms.clone());
        self.add_coin(PegCoin { place, outpoint, value: amount, kind });
        let (key, value) = state::credited_record(&outpoint, place.height);
        self.changes.note(key, None, Some(value));
        Arc::make_mut(&mut self.state.credited).insert(outpoint, place.height);

        let script_pubkey = peg_in.terms.destination.clone();
        self.payments.push(TxOut { value: credit, script_pubkey });
        let vout = u32::try_from(self.payments.len()).expect("a block holds fewer outputs");
        let (bitcoin_height, bitcoin_index) = (place.height, place.index);
        let credit = Credit { height: self.context.height, vout, amount, fee, bitcoin_height, bitcoin_index };
        self.events.push(PegEvent::Credited { outpoint, credit });
        self.evidence.peg_ins.push(peg_in);
        Ok(())
    }

    /// What a deposit is worth, and the fee that the peg keeps, if it may be credited.
    fn check_peg_in(&self, peg_in: &PegIn, outpoint: OutPoint) -> Result<(Amount, Amount), InvalidPeg> {
        let (terms, height) = (&peg_in.terms, peg_in.proof.height);
        let (params, tip) = (self.state.network().params(), self.state.headers().tip());
        let unknown = InvalidPeg::UnknownEpoch { outpoint, epoch: terms.epoch };
        let scripts = self.state.network().scripts(terms.epoch).ok_or(unknown)?;
        let output = peg_in.proof.transaction.output.get(peg_in.vout as usize);
        let output = output.ok_or(InvalidPeg::NoSuchOutput { outpoint })?;
        if scripts.deposit_script(self.state.network().chain(), terms) != output.script_pubkey {
            return Err(InvalidPeg::WrongScript { outpoint });
        }
        let request = check_destination(&terms.destination).ok_or(InvalidPeg::DestinationForm { outpoint })?;

        let (time, max_age) = (self.context.time, params.header_freshness_s);
        if tip.time < time.saturating_sub(max_age) {
            return Err(InvalidPeg::StaleTip { outpoint, tip_time: tip.time, time, max_age });
        }
        let age = tip.height.blocks_since(height).unwrap_or(0);
        let max = u32::from(scripts.epoch().timelocks().claim_window);
        if age > max {
            return Err(InvalidPeg::ClaimWindowOver { outpoint, age, max });
        }
        if self.state.is_credited(&outpoint) {
            return Err(InvalidPeg::CreditedBefore { outpoint });
        }
        if peg_in.proof.transaction.is_coinbase() {
            return Err(InvalidPeg::CoinbaseDeposit { outpoint });
        }
        let (amount, held) = (output.value, self.state.held());
        let most =
            if amount < SMALL_DEPOSIT { u64::from(params.coins_max) * 3 } else { u64::from(params.coins_max) * 4 };
        if held as u64 * 4 >= most {
            let max = u32::try_from(most / 4).unwrap_or(params.coins_max);
            return Err(InvalidPeg::TooManyCoins { outpoint, held, max });
        }
        let fee = peg_in_fee(self.state.agreed_rate(), scripts.epoch().worst_deposit_input_weight());
        let min = params.peg_in_min.max(fee * 2);
        if amount < min {
            return Err(InvalidPeg::DepositTooSmall { outpoint, amount, min });
        }
        let (credit, reserve) = (amount - fee, self.state.summary.reserve_value);
        if credit > reserve || amount > Amount::MAX_MONEY {
            return Err(InvalidPeg::ReserveTooSmall { outpoint, reserve, credit });
        }
        let (min, max) = (params.peg_out_min, params.peg_out_max);
        if request && !(min..=max).contains(&credit) {
            return Err(InvalidPeg::RequestOutOfRange { outpoint, amount: credit, min, max });
        }
        Ok((amount, fee))
    }

    /// A validator's feerate. Allowed while the peg is frozen.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn fee_rate(&mut self, quote: FeeRateQuote) -> Result<(), InvalidPeg> {
        let key = quote.validator;
        if self.state.network().power(&key).is_none() {
            return Err(InvalidPeg::NotAValidator { key });
        }
        let digest = FeeRateQuote::digest(self.state.network().chain(), self.context.height, quote.rate);
        let verified = SECP256K1.verify_schnorr(&quote.signature, &Message::from_digest(digest), &key);
        if verified.is_err() {
            return Err(InvalidPeg::QuoteSignature { key, rate: quote.rate });
        }
        let new = Quote { height: self.context.height, rate: quote.rate };
        let old = Arc::make_mut(&mut self.state.quotes).insert(key, new);
        let (record, value) = state::quote_record(&key, new);
        self.changes.note(record, old.map(|old| state::quote_record(&key, old).1), Some(value));
        self.evidence.fee_rate = Some(quote);
        Ok(())
    }

    /// Brings the agreed feerate up to this block. Comes after the quote, in every block.
    pub fn agree(&mut self) {
        let agreed = agreed_rate(&self.state, self.context.height);
        if agreed != self.state.summary.agreed {
            self.change_summary(|summary| summary.agreed = agreed);
        }
    }

    /// A new version of an open batch, with a higher fee.
    ///
    /// # Errors
    /// The rule that forbids it.
    pub fn replace(&mut self, number: u32) -> Result<(), InvalidPeg> {
        self.thawed()?;
        if self.evidence.replace.last().is_some_and(|last| *last >= number) {
            return Err(InvalidPeg::NotSorted);
        }
        let version = plan_replacement(&self.state, number, self.context.height)?;
        let mut batch = self.state.open.get(&number).expect("it was just planned").clone();
        self.move_account(|account| account + sat(batch.newest().charge) - sat(version.charge));
        self.marks.push(version.txid);
        batch.versions.push(version);
        self.events.push(PegEvent::BatchFixed { batch: Box::new(batch.clone()) });
        self.put_batch(number, Some(batch));
        self.evidence.replace.push(number);
        Ok(())
    }

    /// Opens the batch that is due, if one is. Comes last.
    pub fn open(&mut self) -> bool {
        let Some(batch) = plan_batch(&self.state, self.context.height, self.context.time) else { return false };
        let PegContext { height, time } = self.context;
        let (charge, gross) = (batch.newest().charge, batch.gross());
        self.change_summary(|summary| {
            summary.reserve_value += gross;
            summary.fee_account -= sat(charge);
            summary.batches = batch.number;
            if batch.kind != super::batch::BatchKind::Refresh {
                summary.last_opening = Some(height);
            }
            // What is a day old binds nobody any more.
            summary.batched.retain(|(at, _)| u64::from(*at) + u64::from(DAY_S) > u64::from(time));
            if gross > Amount::ZERO {
                summary.batched.push((time, gross));
            }
        });
        for coin in &batch.inputs {
            Arc::make_mut(&mut self.state.free).remove(&coin.place);
            let (key, value) = state::coin_record(coin);
            self.changes.note(key, Some(value), None);
        }
        for request in &batch.payees {
            Arc::make_mut(&mut self.state.waiting).remove(&request.place);
            let (key, value) = state::request_record(request);
            self.changes.note(key, Some(value), None);
        }
        self.opened = batch.payees.clone();
        self.marks.push(batch.newest().txid);
        self.events.push(PegEvent::BatchFixed { batch: Box::new(batch.clone()) });
        self.put_batch(batch.number, Some(batch));
        self.evidence.open = true;
        true
    }

    /// Returns the peg transaction that the evidence demands; `None` if there is no evidence.
    pub fn transaction(&self) -> Option<Transaction> {
        if self.evidence.is_empty() {
            return None;
        }
        let spend = |previous_output, witness| TxIn {
            previous_output,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness,
        };
        let reserve = spend(self.state.summary.reserve, Witness::from_slice(&[self.evidence.encode()]));
        let requests = self.opened.iter().map(|request| spend(request.outpoint, Witness::new()));
        let first = TxOut { value: self.state.summary.reserve_value, script_pubkey: reserve_script() };
        let marks = self.marks.iter().map(|txid| TxOut { value: Amount::ZERO, script_pubkey: batch_mark(txid) });
        Some(Transaction {
            version: TransactionVersion::TWO,
            lock_time: LockTime::ZERO,
            input: std::iter::once(reserve).chain(requests).collect(),
            output: std::iter::once(first).chain(self.payments.iter().cloned()).chain(marks).collect(),
        })
    }

    /// Returns the step of the whole block, which has this peg transaction and makes these requests in its other
    /// transactions, in block order. The outputs of the peg transaction come first.
    pub fn finish(mut self, transaction: Option<(&Transaction, Txid)>, requests: Vec<PegOutRequest>) -> PegStep {
        if let Some((transaction, txid)) = transaction {
            self.change_summary(|summary| summary.reserve = OutPoint { txid, vout: 0 });
            for request in requests_of(transaction, txid, self.context.height, 1) {
                self.add_request(request);
            }
        }
        requests.into_iter().for_each(|request| self.add_request(request));
        self.state.hash_changes(&self.changes);
        PegStep { state: self.state, changes: self.changes, events: self.events }
    }

    /// What is proven, if its block is on the best chain.
    fn prove<'a>(&self, proof: &'a InclusionProof) -> Result<ProvenTransaction<'a>, InvalidPeg> {
        let (height, tree) = (proof.height, self.state.headers());
        let unknown = InvalidPeg::UnknownBlock { height, tip: tree.tip().height };
        let header = tree.best(height).ok_or(unknown)?;
        let source = |source| InvalidPeg::Proof { height, source };
        proof.verify(header.merkle_root).map_err(source)
    }

    /// Whether a block of the best chain is deep (PEG section 2).
    fn check_depth(&self, proof: &InclusionProof, txid: Txid) -> Result<(), InvalidPeg> {
        // A branch that won in this very block has none of these confirmations: where it leaves the old chain less than
        // `final_depth` below the highest tip, whatever was deep is below. Deeper, it froze the peg.
        let (got, min) = (proof.height.confirmations(self.tip_before), self.state.network().params().final_depth);
        if got < min {
            return Err(InvalidPeg::TooShallow { txid, got, min, tip: self.tip_before });
        }
        Ok(())
    }

    fn freeze(&mut self, why: Freeze) {
        if self.state.frozen().is_none() {
            self.change_summary(|summary| summary.frozen = Some(why));
            self.events.push(PegEvent::Frozen(why));
        }
    }

    /// Forgets credited deposits that no branch can bring back into the claim window.
    fn forget_credited(&mut self) {
        let params = self.state.network().params();
        let window = u32::from(self.state.network().longest_claim_window());
        let keep = window.saturating_add(params.fork_depth).saturating_add(params.final_depth);
        let highest = self.state.headers().highest();
        let old = |height: BitcoinHeight| highest.blocks_since(height).is_some_and(|age| age > keep);
        let gone: Vec<_> =
            self.state.credited.iter().filter(|(_, height)| old(**height)).map(|(o, h)| (*o, *h)).collect();
        for (outpoint, height) in gone {
            Arc::make_mut(&mut self.state.credited).remove(&outpoint);
            let (key, value) = state::credited_record(&outpoint, height);
            self.changes.note(key, Some(value), None);
        }
    }

    fn move_account(&mut self, to: impl FnOnce(i64) -> i64) {
        self.change_summary(|summary| summary.fee_account = to(summary.fee_account));
    }

    fn change_summary(&mut self, change: impl FnOnce(&mut state::Summary)) {
        let (key, before) = state::summary_record(&self.state.summary);
        change(&mut self.state.summary);
        self.changes.note(key, Some(before), Some(state::summary_record(&self.state.summary).1));
    }

    fn add_coin(&mut self, coin: PegCoin) {
        let (key, value) = state::coin_record(&coin);
        self.changes.note(key, None, Some(value));
        Arc::make_mut(&mut self.state.free).insert(coin.place, coin);
    }

    fn add_request(&mut self, request: PegOutRequest) {
        let (key, value) = state::request_record(&request);
        self.changes.note(key, None, Some(value));
        Arc::make_mut(&mut self.state.waiting).insert(request.place, request);
    }

    fn put_batch(&mut self, number: u32, batch: Option<Batch>) {
        let open = Arc::make_mut(&mut self.state.open);
        let before = match &batch {
            Some(batch) => open.insert(number, batch.clone()),
            None => open.remove(&number),
        };
        let record = batch.as_ref().or(before.as_ref()).map(state::batch_record);
        let Some((key, _)) = record else { return };
        let value = |batch: Batch| batch.encode();
        self.changes.note(key, before.map(value), batch.map(value));
    }
}

/// Returns the requests that a transaction makes, which is the `index`th of its block.
pub fn requests_of(transaction: &Transaction, txid: Txid, height: Height, index: u32) -> Vec<PegOutRequest> {
    let request = |(vout, output): (u32, &TxOut)| {
        let Some(Ok(PegScript::Request(destination))) = PegScript::of(&output.script_pubkey) else { return None };
        let (place, outpoint) = (RequestPlace { height, index, vout }, OutPoint { txid, vout });
        Some(PegOutRequest { place, outpoint, amount: output.value, destination })
    };
    (0..).zip(&transaction.output).filter_map(request).collect()
}

/// Returns what a deposit pays: `max(1,000, ceil(rate x weight / 4000))`.
pub fn peg_in_fee(rate: SatPerKvb, worst_deposit_input: Weight) -> Amount {
    // A bounded rate times the weight of one input fits.
    rate.fee(worst_deposit_input).unwrap_or(Amount::MAX_MONEY).max(PEG_IN_FEE_MIN)
}

/// Whether a destination on Causeway is a peg-out request; `None` if it has none of the permitted forms.
pub fn check_destination(script: &Script) -> Option<bool> {
    match PegScript::of(script) {
        Some(Ok(PegScript::Request(_))) => Some(true),
        Some(_) => None,
        None => {
            let ordinary =
                script.is_p2pkh() || script.is_p2sh() || script.is_p2wpkh() || script.is_p2wsh() || script.is_p2tr();
            ordinary.then_some(false)
        }
    }
}

/// `OP_RETURN`, then one push of `CWBA || txid`, in internal byte order.
fn batch_mark(txid: &Txid) -> ScriptBuf {
    let mut push = [0; 36];
    push[..4].copy_from_slice(&BATCH_MARK);
    push[4..].copy_from_slice(txid.as_ref());
    Builder::new().push_opcode(OP_RETURN).push_slice(push).into_script()
}

/// The smallest rate at which the recent quotes up to it have half of the power of all recent quotes, if those have more than
/// two thirds of all power; else the last agreed one.
fn agreed_rate(state: &PegState, height: Height) -> SatPerKvb {
    let params = state.network().params();
    let recent = |quote: &Quote| height.blocks_since(quote.height).is_some_and(|age| age < params.quote_age);
    let powered = state.quotes.iter().filter(|(_, quote)| recent(quote));
    let mut quotes: Vec<(SatPerKvb, u64)> =
        powered.filter_map(|(key, quote)| Some((quote.rate, state.network().power(key)?))).collect();
    // The sum over all validators is at most 2^60.
    let quoted: u64 = quotes.iter().map(|(_, power)| power).sum();
    if quoted * 3 <= state.network().total_power() * 2 {
        return state.agreed_rate();
    }
    quotes.sort_unstable();
    let mut cumulative = 0;
    let reached = quotes.iter().find(|(_, power)| {
        cumulative += power;
        cumulative * 2 >= quoted
    });
    let rate = reached.map_or(state.agreed_rate(), |(rate, _)| *rate);
    rate.clamp(RATE_MIN, params.fee_rate_max)
}

fn sat(amount: Amount) -> i64 {
    i64::try_from(amount.to_sat()).expect("amounts are at most 21,000,000 BTC")
}
