//! The peg transaction itself, and what stands above its items (PEG sections 2 and 3).

use bitcoin::absolute::LockTime;
use bitcoin::consensus::serialize;
use bitcoin::transaction::Version;
use bitcoin::{Amount, Block, OutPoint, ScriptBuf, Sequence, Transaction, TxOut, Witness};
use causeway_chainspec::{Epoch, SatPerKvb};
use causeway_consensus::peg::InvalidPeg;
use causeway_consensus::peg::evidence::{Evidence, PegIn};
use causeway_tests::draft::{edited, free_output, input};
use causeway_tests::parent::{quote, spending, stub_peg_transaction};

use crate::scene::{PLENTY, Scene, peg_in};

/// Evidence of new headers, which any chain takes.
fn headers(scene: &mut Scene) -> Evidence {
    scene.parent.mine_empty(1);
    let headers = scene.parent.run_towards(scene.peg().headers(), scene.chain.next_context().time);
    Evidence { headers, ..Evidence::default() }
}

pub(crate) fn evidence_form() {
    let mut scene = Scene::new();
    let evidence = headers(&mut scene);
    let block = scene.evidence(evidence.clone());
    scene.accepted(&block);
    let bytes = evidence.encode();
    let with = |witness: Vec<Vec<u8>>| {
        edited(&block, |block| block.txdata[1].input[0].witness = Witness::from_slice(&witness))
    };
    let malformed = [
        vec![],
        vec![vec![]],
        vec![bytes.clone(), vec![]],
        vec![vec![], bytes.clone()],
        vec![bytes.clone(), bytes.clone()],
        vec![[bytes.as_slice(), &[0]].concat()],
        vec![[bytes.as_slice(), &bytes].concat()],
        vec![bytes[..bytes.len() - 1].to_vec()],
        vec![bytes[1..].to_vec()],
    ];
    for witness in malformed {
        scene.refused(&with(witness), InvalidPeg::EvidenceForm);
    }
    // No such kind, and those that are reserved.
    for kind in std::iter::once(0).chain(8..=255) {
        scene.refused(&with(vec![vec![kind]]), InvalidPeg::EvidenceForm);
        scene.refused(&with(vec![[bytes.as_slice(), &[kind]].concat()]), InvalidPeg::EvidenceForm);
    }
}

/// Padding of which so many bytes are to be added or left out.
fn padded(scene: &Scene, deposits: u32, headers: u32, pad: usize) -> (Scene, Evidence) {
    let mut scene = Scene { chain: scene.chain.clone(), parent: scene.parent.clone() };
    let terms = scene.terms();
    let network = scene.peg().network().clone();
    let mut transactions: Vec<Transaction> =
        (0..deposits).map(|_| scene.parent.deposit(&network, &terms, PLENTY)).collect();
    let script_pubkey = ScriptBuf::from_bytes(vec![0x6a; pad]);
    transactions[0].output.push(TxOut { value: Amount::ZERO, script_pubkey });
    let outpoints: Vec<_> = transactions.iter().map(|tx| OutPoint { txid: tx.compute_txid(), vout: 0 }).collect();
    scene.mine(transactions);
    scene.bury();
    let mut peg_ins: Vec<PegIn> =
        outpoints.iter().map(|outpoint| scene.parent.peg_in(&terms, *outpoint).expect("mined")).collect();
    peg_ins.sort_by_key(PegIn::outpoint);
    let tip = scene.parent.tip();
    scene.parent.mine_empty(headers);
    let headers = (headers > 0).then(|| scene.parent.run_above(tip));
    (scene, Evidence { headers, peg_ins, ..Evidence::default() })
}

/// At the limit and one above it; for one proof and for two.
pub(crate) fn too_large() {
    let scene = Scene::with(|parts| {
        let mut federation = parts.federation.to_parts();
        federation.timelocks.claim_window = 40_000;
        federation.timelocks.sweep_age = 50_000;
        federation.timelocks.recovery_delay = 60_000;
        federation.timelocks.refund_delay = 65_000;
        parts.federation = Epoch::new(federation).expect("sound");
    });
    let bytes = |block: &Block| serialize(&block.txdata[1]).len();
    for (deposits, headers, first, max) in [(2, 0, 90_000, 100_000), (1, 25_100, 990_000, 2_200_000)] {
        let (probe, evidence) = padded(&scene, deposits, headers, first);
        let got = bytes(&probe.evidence(evidence));
        let pad = first + max - got;
        let (full, evidence) = padded(&scene, deposits, headers, pad);
        let block = full.evidence(evidence);
        assert_eq!(bytes(&block), max);
        full.accepted(&block);
        let (over, evidence) = padded(&scene, deposits, headers, pad + 1);
        let block = over.evidence(evidence);
        over.refused(&block, InvalidPeg::TooLarge { bytes: max + 1, max });
    }
}

pub(crate) fn wrong_transaction() {
    let mut scene = Scene::new();
    let coin = scene.credited(PLENTY).outpoint;
    let terms = scene.terms();
    let claim = scene.deep(&terms, PLENTY);
    let block = scene.evidence(peg_in(claim));
    scene.accepted(&block);
    let expected = block.txdata[1].compute_txid();
    let edits: [&dyn Fn(&mut Transaction); 12] = [
        &|tx| tx.version = Version::ONE,
        &|tx| tx.version = Version(3),
        &|tx| tx.lock_time = LockTime::from_consensus(1),
        &|tx| tx.input[0].sequence = Sequence::ZERO,
        &|tx| tx.input[0].sequence = Sequence(0xffff_fffe),
        &|tx| tx.input.push(input(coin)),
        &|tx| tx.output[0].value -= Amount::ONE_SAT,
        &|tx| {
            tx.output[0].value -= Amount::ONE_SAT;
            tx.output[1].value += Amount::ONE_SAT;
        },
        &|tx| tx.output[1].script_pubkey = ScriptBuf::from_bytes(vec![0x51]),
        &|tx| drop(tx.output.pop()),
        &|tx| tx.output.push(free_output(Amount::ZERO)),
        &|tx| tx.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x51]),
    ];
    for edit in edits {
        let other = edited(&block, |block| edit(&mut block.txdata[1]));
        let got = other.txdata[1].compute_txid();
        assert_ne!(got, expected);
        scene.refused(&other, InvalidPeg::WrongTransaction { got, expected });
    }
}

pub(crate) fn stray_data() {
    let mut scene = Scene::new();
    let coin = scene.credited(PLENTY * 50);
    scene.request(coin, PLENTY);
    let block = scene.evidence(Evidence { open: true, ..Evidence::default() });
    scene.accepted(&block);
    assert_eq!(block.txdata[1].input.len(), 2);
    for witness in [vec![vec![]], vec![vec![1]]] {
        let stray = edited(&block, |block| block.txdata[1].input[1].witness = Witness::from_slice(&witness));
        scene.refused(&stray, InvalidPeg::StrayData { input: 1 });
    }
    for input in [0, 1] {
        let script = ScriptBuf::from_bytes(vec![0x51]);
        let stray = edited(&block, |block| block.txdata[1].input[input].script_sig = script);
        scene.refused(&stray, InvalidPeg::StrayData { input });
    }
}

pub(crate) fn not_sorted() {
    let mut scene = Scene::new();
    let terms = scene.terms();
    // Two outputs of one transaction, and another transaction.
    let network = scene.peg().network().clone();
    let script_pubkey = network.current().deposit_script(network.chain(), &terms);
    let output = TxOut { value: PLENTY, script_pubkey };
    let both = scene.parent.pay(vec![output.clone(), output]);
    let one = scene.parent.deposit(&network, &terms, PLENTY);
    let at = |tx: &Transaction, vout| OutPoint { txid: tx.compute_txid(), vout };
    let mut outpoints = [at(&both, 0), at(&both, 1), at(&one, 0)];
    outpoints.sort();
    scene.mine(vec![both, one]);
    scene.bury();
    let [a, b, c] = outpoints.map(|outpoint| scene.parent.peg_in(&terms, outpoint).expect("mined"));
    let of = |claims: &[&PegIn]| Evidence { peg_ins: claims.iter().copied().cloned().collect(), ..Evidence::default() };
    scene.accepts(of(&[&a, &b, &c]));
    for claims in [[&a, &c, &b], [&b, &a, &c], [&c, &b, &a], [&a, &a, &b], [&a, &b, &b]] {
        scene.refuses(of(&claims), InvalidPeg::NotSorted);
    }

    // Batches by their numbers, whatever their transactions are called.
    let first = scene.batch(PLENTY * 50, PLENTY);
    scene.chain.grow(10);
    let second = scene.batch(PLENTY * 50, PLENTY);
    let versions = [first, second].map(|number| {
        let batch = scene.peg().open_batch(number).expect("open");
        batch.transaction(batch.newest())
    });
    let mut replacing = Scene { chain: scene.chain.clone(), parent: scene.parent.clone() };
    scene.mine(versions.to_vec());
    scene.bury();
    let [x, y] = versions.map(|tx| scene.parent.proof(&tx.compute_txid()).expect("mined"));
    let of = |proofs: &[_]| Evidence { confirmed: proofs.to_vec(), ..Evidence::default() };
    scene.accepts(of(&[x.clone(), y.clone()]));
    scene.refuses(of(&[y.clone(), x.clone()]), InvalidPeg::NotSorted);
    scene.refuses(of(&[x.clone(), x.clone()]), InvalidPeg::NoSuchVersion { txid: x.transaction.compute_txid() });

    replacing.parent.mine_empty(3);
    let headers = replacing.parent.run_towards(replacing.peg().headers(), replacing.chain.next_context().time);
    let of = |numbers: &[u32]| Evidence { headers: headers.clone(), replace: numbers.to_vec(), ..Evidence::default() };
    replacing.accepts(of(&[first, second]));
    for numbers in [[second, first], [first, first], [second, second]] {
        replacing.refuses(of(&numbers), InvalidPeg::NotSorted);
    }
}

/// Only headers and feerates, from the freezing item on.
pub(crate) fn frozen() {
    let mut scene = Scene::new();
    scene.batch(PLENTY * 50, PLENTY);
    let terms = scene.terms();
    let claim = scene.deep(&terms, PLENTY);
    let coin = scene.peg().coins().next().expect("the peg has coins").outpoint;
    let theft = spending(&[coin], vec![free_output(PLENTY)]);
    let txid = theft.compute_txid();
    scene.mine(vec![theft]);
    scene.bury();
    let spent = scene.parent.proof(&txid);
    let theft = Evidence { spent: spent.clone(), ..Evidence::default() };
    scene.refuses(Evidence { peg_ins: vec![claim.clone()], ..theft.clone() }, InvalidPeg::Frozen);
    scene.refuses(Evidence { replace: vec![1], ..theft.clone() }, InvalidPeg::Frozen);
    let height = scene.chain.next_context().height;
    let fee_rate = Some(quote(&scene.chain.spec, 0, height, SatPerKvb(3_000)));
    scene.accepts(Evidence { fee_rate, ..theft.clone() });
    let block = scene.evidence(theft.clone());
    scene.take(&block);
    assert!(scene.peg().frozen().is_some());

    for evidence in [peg_in(claim), theft, Evidence { replace: vec![1], ..Evidence::default() }] {
        scene.refuses(evidence, InvalidPeg::Frozen);
    }
    scene.refuses(Evidence { open: true, ..Evidence::default() }, InvalidPeg::NothingToOpen);
    let confirmed = scene.peg().open_batch(1).map(|batch| batch.transaction(batch.newest())).expect("open");
    let proof = spent.expect("mined");
    let other = causeway_consensus::peg::proof::InclusionProof { transaction: confirmed, ..proof };
    scene.refuses(Evidence { confirmed: vec![other], ..Evidence::default() }, InvalidPeg::Frozen);
    let height = scene.chain.next_context().height;
    let fee_rate = Some(quote(&scene.chain.spec, 0, height, SatPerKvb(3_000)));
    let headers = headers(&mut scene).headers;
    scene.accepts(Evidence { headers, fee_rate, ..Evidence::default() });
}

/// A peg transaction stands at index 1 and nowhere else, and without one nobody touches the reserve.
#[test]
fn the_peg_transaction_stands_first() {
    let mut scene = Scene::new();
    let evidence = headers(&mut scene);
    let block = scene.evidence(evidence);
    scene.accepted(&block);
    let coin = scene.credited(PLENTY);
    let evidence = headers(&mut scene);
    let peg = scene.evidence(evidence.clone()).txdata[1].clone();
    let transfer = causeway_tests::wallet::spend(&[coin], vec![free_output(Amount::from_sat(999_000))]);
    let time = scene.chain.next_context().time;
    let right = scene.chain.raw_block_at(time, Amount::ZERO, vec![peg.clone(), transfer.clone()]);
    scene.accepted(&right);
    let late = scene.chain.raw_block_at(time, Amount::ZERO, vec![transfer, peg]);
    scene.chain.validate(serialize(&late)).map(drop).expect_err("it stands at index 2");
    let stub = stub_peg_transaction(scene.peg(), &evidence.encode());
    let twice = scene.chain.raw_block_at(time, Amount::ZERO, vec![stub.clone(), stub]);
    scene.chain.validate(serialize(&twice)).map(drop).expect_err("two of them");
}
