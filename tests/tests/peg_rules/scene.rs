//! Two chains to try a rule on, and the record of what the running test has seen.

use std::cell::RefCell;

use bitcoin::consensus::serialize;
use bitcoin::{Amount, Block, OutPoint, ScriptBuf, Transaction, TxOut};
use causeway_chainspec::{ChainSpecParts, SatPerKvb};
use causeway_consensus::peg::evidence::{Evidence, PegIn};
use causeway_consensus::peg::propose::Candidates;
use causeway_consensus::peg::script::DepositTerms;
use causeway_consensus::peg::{InvalidPeg, PegState, Step};
use causeway_consensus::{ConnectedBlock, InvalidBlock};
use causeway_tests::chain::MemoryChain;
use causeway_tests::parent::{ParentChain, bury, peg_spec, quote, request_script, stub_peg_transaction, terms};
use causeway_tests::wallet::{Kind, Owner, Spendable, spend};

#[derive(Default)]
struct Record {
    accepted: usize,
    refused: Vec<String>,
}

thread_local! {
    /// Each test runs on a thread of its own.
    static RECORD: RefCell<Record> = RefCell::default();
}

/// Runs a test, and asserts that it saw a block accepted, and one refused with the variant that it is named for.
pub(crate) fn trips(variant: &str, test: fn()) {
    RECORD.take();
    test();
    let record = RECORD.take();
    assert!(record.accepted > 0, "nothing was accepted");
    assert!(record.refused.iter().any(|seen| seen == variant), "{variant} was not tripped");
}

/// Returns the letters that `text` starts with: the name of a variant.
pub(crate) fn leading_word(text: &str) -> String {
    text.chars().take_while(char::is_ascii_alphanumeric).collect()
}

/// A chain and its Bitcoin, of which it knows the first blocks.
pub(crate) struct Scene {
    pub(crate) chain: MemoryChain,
    pub(crate) parent: ParentChain,
}

/// One million satoshi: enough for any deposit, and not small.
pub(crate) const PLENTY: Amount = Amount::from_sat(1_000_000);

impl Scene {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(edit: impl FnOnce(&mut ChainSpecParts)) -> Self {
        let spec = peg_spec(edit);
        let (chain, parent) = (MemoryChain::new(spec.clone()), ParentChain::new(&spec));
        let mut scene = Self { chain, parent };
        scene.mine(vec![]);
        scene.bury();
        scene
    }

    pub(crate) fn peg(&self) -> &PegState {
        self.chain.peg()
    }

    /// A block of Bitcoin that the chain does not know yet.
    pub(crate) fn mine(&mut self, transactions: Vec<Transaction>) {
        self.parent.clock = self.parent.clock.max(self.chain.next_context().time);
        self.parent.mine(transactions);
    }

    /// Makes everything that was mined deep.
    pub(crate) fn bury(&mut self) {
        bury(&mut self.chain, &mut self.parent);
    }

    /// Terms that pay an owner.
    pub(crate) fn terms(&self) -> DepositTerms {
        terms(Owner::new(1).script_pubkey(Kind::P2wpkh), &Owner::new(2))
    }

    /// A deposit that is mined and not deep, in output 0.
    pub(crate) fn mined(&mut self, terms: &DepositTerms, amount: Amount) -> OutPoint {
        let network = self.peg().network().clone();
        let transaction = self.parent.deposit(&network, terms, amount);
        let outpoint = OutPoint { txid: transaction.compute_txid(), vout: 0 };
        self.mine(vec![transaction]);
        outpoint
    }

    /// The claim of a deposit that is deep.
    pub(crate) fn deep(&mut self, terms: &DepositTerms, amount: Amount) -> PegIn {
        let outpoint = self.mined(terms, amount);
        self.bury();
        self.parent.peg_in(terms, outpoint).expect("it is mined")
    }

    /// Credits a deposit to owner 1, and returns the coin.
    pub(crate) fn credited(&mut self, amount: Amount) -> Spendable {
        let terms = self.terms();
        let peg_in = self.deep(&terms, amount);
        let block = self.evidence(Evidence { peg_ins: vec![peg_in], ..Evidence::default() });
        self.take(&block);
        let outpoint = OutPoint { txid: block.txdata[1].compute_txid(), vout: 1 };
        Spendable { outpoint, output: block.txdata[1].output[1].clone(), owner: Owner::new(1), kind: Kind::P2wpkh }
    }

    /// A block that makes a request of `amount` out of a coin.
    pub(crate) fn request(&mut self, coin: Spendable, amount: Amount) {
        let left = coin.output.value - amount;
        let request = TxOut { value: amount, script_pubkey: request_script(&Owner::new(5)) };
        let change = TxOut { value: left, script_pubkey: ScriptBuf::from_bytes(vec![0x51]) };
        let outputs = [Some(request), (left > Amount::ZERO).then_some(change)].into_iter().flatten().collect();
        let block = self.chain.next_block(Amount::ZERO, vec![spend(&[coin], outputs)]);
        self.take(&block);
    }

    /// Opens a batch that pays one request of `amount`, out of one deposit, and returns its number.
    pub(crate) fn batch(&mut self, deposit: Amount, amount: Amount) -> u32 {
        let coin = self.credited(deposit);
        self.request(coin, amount);
        let block = self.chain.next_block(Amount::ZERO, vec![]);
        self.take(&block);
        self.peg().open_batches().last().expect("a batch is due").number
    }

    /// All validators quote this rate, one block after the other.
    pub(crate) fn agree(&mut self, rate: u64) {
        for validator in 0..4 {
            let height = self.chain.next_context().height;
            let fee_rate = Some(quote(&self.chain.spec, validator, height, SatPerKvb(rate)));
            self.propose(Candidates { fee_rate, ..Candidates::default() });
        }
        assert_eq!(self.peg().agreed_rate(), SatPerKvb(rate));
    }

    /// The block that has exactly this evidence, and the transaction that it demands, if it demands one.
    pub(crate) fn evidence(&self, evidence: Evidence) -> Block {
        let context = self.chain.next_context();
        self.evidence_at(context.time, evidence)
    }

    pub(crate) fn evidence_at(&self, time: u32, evidence: Evidence) -> Block {
        let mut step = Step::new(self.peg(), self.chain.context_at(time));
        let bytes = evidence.encode();
        let transaction = match step.apply(evidence) {
            Ok(()) => step.transaction().expect("there is evidence"),
            Err(_) => stub_peg_transaction(self.peg(), &bytes),
        };
        self.chain.raw_block_at(time, Amount::ZERO, vec![transaction])
    }

    pub(crate) fn propose(&mut self, candidates: Candidates) -> ConnectedBlock {
        let block = self.chain.next_block_with(candidates, Amount::ZERO, vec![]);
        self.take(&block)
    }

    /// Makes a valid block the tip.
    pub(crate) fn take(&mut self, block: &Block) -> ConnectedBlock {
        self.chain.accept(block).expect("a valid block")
    }

    /// A block that breaks no rule.
    pub(crate) fn accepted(&self, block: &Block) -> ConnectedBlock {
        let connected = self.chain.validate(serialize(block)).expect("a valid block");
        RECORD.with_borrow_mut(|record| record.accepted += 1);
        connected
    }

    /// A block that is refused with exactly this verdict.
    pub(crate) fn refused(&self, block: &Block, expected: InvalidPeg) {
        let verdict = self.chain.validate(serialize(block)).map(drop).expect_err("an invalid block");
        assert_eq!(verdict, InvalidBlock::Peg(expected.clone()));
        assert!(!verdict.is_mutation());
        RECORD.with_borrow_mut(|record| record.refused.push(leading_word(&format!("{expected:?}"))));
    }

    pub(crate) fn accepts(&self, evidence: Evidence) -> ConnectedBlock {
        self.accepted(&self.evidence(evidence))
    }

    pub(crate) fn refuses(&self, evidence: Evidence, expected: InvalidPeg) {
        self.refused(&self.evidence(evidence), expected);
    }
}

/// Evidence of one deposit.
pub(crate) fn peg_in(peg_in: PegIn) -> Evidence {
    Evidence { peg_ins: vec![peg_in], ..Evidence::default() }
}
