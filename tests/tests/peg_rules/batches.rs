//! BatchConfirmed, CoinSpent, ReplaceBatch, OpenBatch (PEG section 2).

use bitcoin::{Amount, Transaction, TxOut};
use causeway_chainspec::{BitcoinHeight, SatPerKvb};
use causeway_consensus::peg::InvalidPeg;
use causeway_consensus::peg::evidence::Evidence;
use causeway_consensus::peg::proof::InclusionProof;
use causeway_tests::draft::free_output;
use causeway_tests::parent::spending;
use causeway_tests::wallet::{Kind, Owner};

use crate::scene::{PLENTY, Scene};

const DEPOSIT: Amount = Amount::from_sat(50_000_000);
const REQUEST: Amount = Amount::from_sat(500_000);

fn confirmed(proof: InclusionProof) -> Evidence {
    Evidence { confirmed: vec![proof], ..Evidence::default() }
}

fn spent(proof: InclusionProof) -> Evidence {
    Evidence { spent: Some(proof), ..Evidence::default() }
}

fn replace(numbers: &[u32]) -> Evidence {
    Evidence { replace: numbers.to_vec(), ..Evidence::default() }
}

/// The newest version of a batch.
fn newest(scene: &Scene, number: u32) -> Transaction {
    let batch = scene.peg().open_batch(number).expect("it is open");
    batch.transaction(batch.newest())
}

/// Mines a transaction and makes it deep.
fn deep(scene: &mut Scene, transaction: Transaction) -> InclusionProof {
    let txid = transaction.compute_txid();
    scene.mine(vec![transaction]);
    scene.bury();
    scene.parent.proof(&txid).expect("mined")
}

pub(crate) fn no_such_version() {
    let mut scene = Scene::new();
    let number = scene.batch(DEPOSIT, REQUEST);
    let payment = TxOut { value: PLENTY, script_pubkey: Owner::new(1).script_pubkey(Kind::P2wpkh) };
    let transaction = scene.parent.pay(vec![payment]);
    let txid = transaction.compute_txid();
    let other = deep(&mut scene, transaction);
    scene.refuses(confirmed(other), InvalidPeg::NoSuchVersion { txid });

    let transaction = newest(&scene, number);
    let txid = transaction.compute_txid();
    let proof = deep(&mut scene, transaction);
    scene.accepts(confirmed(proof.clone()));
    let block = scene.evidence(confirmed(proof.clone()));
    scene.take(&block);
    // Once closed, it is no open batch's.
    scene.refuses(confirmed(proof), InvalidPeg::NoSuchVersion { txid });
}

pub(crate) fn spend_is_batch() {
    let mut scene = Scene::new();
    let number = scene.batch(DEPOSIT, REQUEST);
    let transaction = newest(&scene, number);
    let txid = transaction.compute_txid();
    let proof = deep(&mut scene, transaction);
    scene.accepts(confirmed(proof.clone()));
    scene.refuses(spent(proof), InvalidPeg::SpendIsBatch { txid });
}

/// A free coin and a batch's input are coins of the peg; a deposit that nobody credited is none.
pub(crate) fn no_peg_coin_spent() {
    let mut scene = Scene::new();
    scene.batch(DEPOSIT, REQUEST);
    scene.credited(PLENTY);
    let terms = scene.terms();
    let uncredited = scene.mined(&terms, PLENTY);
    let [free, in_batch] = [0, 1].map(|index| {
        let coins: Vec<_> = scene.peg().coins().map(|coin| coin.outpoint).collect();
        coins[index]
    });
    let before = scene.parent.tip();
    for coin in [free, in_batch] {
        let mut scene = Scene { parent: scene.parent.clone(), chain: copy(&scene) };
        let proof = deep(&mut scene, spending(&[coin], vec![free_output(PLENTY)]));
        let connected = scene.accepts(spent(proof));
        assert!(connected.tip().peg().frozen().is_some());
    }
    assert_eq!(scene.parent.tip(), before);
    let theft = spending(&[uncredited], vec![free_output(PLENTY)]);
    let txid = theft.compute_txid();
    let proof = deep(&mut scene, theft);
    scene.refuses(spent(proof), InvalidPeg::NoPegCoinSpent { txid });
}

/// The same chain once more.
fn copy(scene: &Scene) -> causeway_tests::chain::MemoryChain {
    scene.chain.clone()
}

pub(crate) fn no_such_batch() {
    let mut scene = Scene::new();
    let number = scene.batch(DEPOSIT, REQUEST);
    scene.parent.mine_empty(3);
    scene.parent.follow(&mut scene.chain);
    let number = { scene.peg().open_batch(number).expect("open").number };
    let other = scene.peg().open_batch(number).expect("open").versions.len();
    assert_eq!(other, 2, "what may be replaced is replaced by who proposes");
    scene.parent.mine_empty(3);
    let headers = scene.parent.run_towards(scene.peg().headers(), scene.chain.next_context().time);
    let block = scene.evidence(Evidence { headers, ..Evidence::default() });
    scene.take(&block);
    scene.accepts(replace(&[number]));
    for number in [0, number + 1, u32::MAX] {
        scene.refuses(replace(&[number]), InvalidPeg::NoSuchBatch { number });
    }
}

/// Counted from the tip in the state when the newest version was fixed, and headers of the same block count.
pub(crate) fn replaced_too_early() {
    let mut scene = Scene::new();
    let number = scene.batch(DEPOSIT, REQUEST);
    let fixed_at = scene.peg().headers().tip().height;
    let from = BitcoinHeight(fixed_at.0 + 3);
    for above in 0..3 {
        let tip = BitcoinHeight(fixed_at.0 + above);
        assert_eq!(scene.peg().headers().tip().height, tip);
        scene.refuses(replace(&[number]), InvalidPeg::ReplacedTooEarly { number, from, tip });
        scene.parent.mine_empty(1);
        let headers = scene.parent.run_towards(scene.peg().headers(), scene.chain.next_context().time);
        let with_headers = Evidence { headers: headers.clone(), ..replace(&[number]) };
        if above == 2 {
            scene.accepts(with_headers);
        } else {
            let tip = BitcoinHeight(fixed_at.0 + above + 1);
            scene.refuses(with_headers, InvalidPeg::ReplacedTooEarly { number, from, tip });
        }
        let block = scene.evidence(Evidence { headers, ..Evidence::default() });
        scene.take(&block);
    }
    let block = scene.evidence(replace(&[number]));
    scene.accepted(&block);
    scene.take(&block);
    let tip = scene.peg().headers().tip().height;
    let from = BitcoinHeight(tip.0 + 3);
    scene.refuses(replace(&[number]), InvalidPeg::ReplacedTooEarly { number, from, tip });
}

pub(crate) fn fee_rate_at_limit() {
    let mut scene = Scene::new();
    let number = scene.batch(DEPOSIT, REQUEST);
    let limit = scene.chain.spec.params().fee_rate_max;
    scene.agree(limit.0);
    scene.parent.mine_empty(3);
    scene.parent.follow(&mut scene.chain);
    assert_eq!(scene.peg().open_batch(number).expect("open").newest().rate, limit);
    scene.parent.mine_empty(3);
    scene.parent.follow(&mut scene.chain);
    let height = scene.peg().headers().tip().height;
    assert!(height.0 >= scene.peg().open_batch(number).expect("open").newest().fixed_at.0 + 3);
    let refusal = InvalidPeg::FeeRateAtLimit { number, rate: limit };
    scene.refuses(replace(&[number]), refusal);

    // One step below it, the last one is taken.
    let mut scene = Scene::new();
    let number = scene.batch(DEPOSIT, REQUEST);
    scene.agree(limit.0 - 1);
    scene.parent.mine_empty(3);
    scene.parent.follow(&mut scene.chain);
    assert_eq!(scene.peg().open_batch(number).expect("open").newest().rate, SatPerKvb(limit.0 - 1));
    scene.parent.mine_empty(3);
    let headers = scene.parent.run_towards(scene.peg().headers(), scene.chain.next_context().time);
    scene.accepts(Evidence { headers, ..replace(&[number]) });
}

/// What a payee's cap leaves, the change has to pay; here there is none.
pub(crate) fn cannot_pay_more() {
    for (amount, can) in [(DEPOSIT - Amount::from_sat(1_000), false), (DEPOSIT - Amount::from_sat(200_000), true)] {
        let mut scene = Scene::new();
        let number = scene.batch(DEPOSIT, amount);
        scene.agree(scene.chain.spec.params().fee_rate_max.0);
        scene.parent.mine_empty(3);
        let headers = scene.parent.run_towards(scene.peg().headers(), scene.chain.next_context().time);
        let evidence = Evidence { headers, ..replace(&[number]) };
        if can {
            scene.accepts(evidence);
        } else {
            scene.refuses(evidence, InvalidPeg::CannotPayMore { number });
        }
    }
}

/// A scene in which a batch is due.
fn due() -> Scene {
    let mut scene = Scene::new();
    let coin = scene.credited(DEPOSIT);
    scene.request(coin, REQUEST);
    scene
}

const OPEN: Evidence = Evidence {
    headers: None,
    confirmed: vec![],
    spent: None,
    peg_ins: vec![],
    fee_rate: None,
    replace: vec![],
    open: true,
};

pub(crate) fn nothing_to_open() {
    let scene = due();
    let block = scene.evidence(OPEN);
    scene.accepted(&block);
    let mut scene = scene;
    scene.take(&block);
    scene.refuses(OPEN, InvalidPeg::NothingToOpen);
    Scene::new().refuses(OPEN, InvalidPeg::NothingToOpen);
}

/// Not in a block without a peg transaction, nor in one that has other evidence.
pub(crate) fn batch_not_opened() {
    let mut scene = due();
    scene.accepts(OPEN);
    let time = scene.chain.next_context().time;
    let without = scene.chain.raw_block_at(time, Amount::ZERO, vec![]);
    scene.refused(&without, InvalidPeg::BatchNotOpened);
    scene.parent.mine_empty(1);
    let headers = scene.parent.run_towards(scene.peg().headers(), time);
    scene.refuses(Evidence { headers: headers.clone(), ..Evidence::default() }, InvalidPeg::BatchNotOpened);
    scene.accepts(Evidence { headers, ..OPEN });
}
