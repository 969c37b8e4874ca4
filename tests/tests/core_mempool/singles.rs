//! Single transactions beside `testmempoolaccept`.

use std::collections::BTreeMap;

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxOut};
use causeway_tests::sim::rng::Rng;
use causeway_tests::wallet::{Kind, Spendable};

use super::draft::{Draft, Fee, Input, anchor, break_input, data};
use super::known::{Known, as_core, why};
use super::world::{Pool, World};
use super::{SHOWN, seeds};

/// Histories of a run.
const HISTORIES: u64 = 100;

/// Transactions of a history at most.
const STEPS: u64 = 8;

/// Coins of a history.
const COINS: usize = 5;

#[test]
fn single_transactions_get_cores_verdict() {
    let mut world = World::new(&Kind::ALL);
    let (mut accepted, mut refused, mut known) = (0, BTreeMap::<String, u32>::new(), BTreeMap::<Known, u32>::new());
    let mut wrong = Vec::new();
    for seed in seeds(HISTORIES) {
        let mut rng = Rng::new(seed);
        let (mut pool, coins) = world.history(COINS);
        // What may be spent, whether it was already or not.
        let mut outputs: Vec<Input> = coins.into_iter().map(Input::Coin).collect();
        let (mut spent, mut sent) = (Vec::new(), Vec::new());
        for _ in 0..rng.below(STEPS) + 1 {
            let draft = draft(&mut rng, &outputs, &spent);
            let mut transaction = draft.sign(world.owner());
            alter(&mut rng, &mut transaction);
            match compare(&world, &mut pool, &transaction) {
                Step::Accepted => {
                    accepted += 1;
                    spent.extend(transaction.input.iter().map(|input| input.previous_output));
                    outputs.extend(draft.coins(&transaction, world.owner()).into_iter().map(Input::Coin));
                    let anchors = anchors(&transaction);
                    outputs.extend(anchors.into_iter().map(|(outpoint, output)| Input::Anchor(outpoint, output)));
                    sent.push(transaction.compute_txid());
                }
                Step::Refused(reason) => *refused.entry(reason).or_default() += 1,
                Step::Differs(why) => {
                    *known.entry(why).or_default() += 1;
                    // Ours may have taken it, in the place of others.
                    sent.clear();
                    break;
                }
                Step::Wrong(how) => {
                    wrong.push(format!("seed {seed}: {how}\n{}", serialize_hex(&transaction)));
                    break;
                }
            }
        }
        let theirs = world.mempool();
        for txid in sent {
            if pool.contains(&txid) != theirs.contains(&txid) {
                wrong.push(format!("seed {seed}: {txid} is in one mempool only"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} histories differ:\n{}", wrong.len(), wrong[..wrong.len().min(SHOWN)].join("\n"));
    println!("accepted {accepted}, refused {refused:#?}, known differences {known:?}");
    assert!(accepted > 0 && refused.len() > 10, "too little was tried: {refused:#?}");
}

enum Step {
    Accepted,
    Refused(String),
    Differs(Known),
    Wrong(String),
}

/// Core's verdict and ours, which takes the transaction if both do.
fn compare(world: &World, pool: &mut Pool, transaction: &Transaction) -> Step {
    let theirs = world.test(transaction);
    let ours = world.ours(pool).submit(transaction);
    let core = theirs["reject-reason"].as_str().map(|reason| as_core(reason).into_owned());
    assert_eq!(theirs["allowed"].as_bool().unwrap(), core.is_none(), "{theirs}");
    match (&ours, core) {
        (Ok(()), None) => {
            let (vsize, fee) = pool.cost(&transaction.compute_txid());
            let base = Amount::from_btc(theirs["fees"]["base"].as_f64().unwrap()).unwrap();
            let legacy = transaction.input.iter().any(|input| !input.script_sig.is_empty());
            if legacy && base == fee && theirs["vsize"].as_u64().is_some_and(|theirs| theirs < vsize) {
                return Step::Differs(Known::SigopCost);
            }
            if theirs["vsize"] != vsize || base != fee {
                return Step::Wrong(format!("ours {vsize} vB, {fee}; Core {theirs}"));
            }
            world.send(transaction);
            Step::Accepted
        }
        (ours, core) => {
            let (reason, text) = match ours {
                Ok(()) => (None, None),
                Err(reject) => (Some(as_core(&reject.reason()).into_owned()), Some(reject.to_string())),
            };
            if let Some(reason) = reason.filter(|reason| Some(reason) == core.as_ref()) {
                return Step::Refused(reason);
            }
            match why(text.as_deref(), core.as_deref()) {
                Some(known) => Step::Differs(known),
                None => Step::Wrong(format!("ours {text:?}, Core {theirs}")),
            }
        }
    }
}

fn draft(rng: &mut Rng, outputs: &[Input], spent: &[OutPoint]) -> Draft {
    let fresh: Vec<Input> = outputs.iter().filter(|one| !spent.contains(&one.outpoint())).cloned().collect();
    let mut inputs: Vec<Input> = Vec::new();
    for _ in 0..[1, 1, 1, 2, 2, 3][rng.index(6)] {
        let from = if rng.chance(75) && !fresh.is_empty() { &fresh } else { outputs };
        let input = rng.pick(from).expect("there are coins").clone();
        // Twice the same is rare.
        if rng.chance(1) || inputs.iter().all(|other| other.outpoint() != input.outpoint()) {
            inputs.push(input);
        }
    }
    if rng.chance(3) {
        let Input::Coin(coin) = &outputs[0] else { unreachable!("coins come first") };
        inputs.push(Input::Coin(Spendable { outpoint: OutPoint { vout: 9_999, ..coin.outpoint }, ..coin.clone() }));
    }
    let payments: Vec<Kind> = (0..[1, 1, 2, 2, 3][rng.index(5)]).map(|_| *rng.pick(&Kind::ALL).unwrap()).collect();
    // SIGHASH_SINGLE signs an output for each input.
    let hash_types: &[u8] =
        if payments.len() < inputs.len() { &[0, 0, 1, 0x81, 2] } else { &[0, 0, 1, 0x81, 2, 3, 0x83] };
    let others = match rng.below(100) {
        0..6 => vec![anchor(rng.below(2) * rng.below(400))],
        6..10 => vec![dust(rng)],
        10..12 => vec![dust(rng), dust(rng)],
        12..18 => vec![data(rng.index(200))],
        18..20 => vec![data(rng.index(60_000))],
        20..22 => {
            vec![TxOut { value: Amount::from_sat(5_000), script_pubkey: ScriptBuf::from_bytes(vec![0x52, 0x93]) }]
        }
        22..24 => {
            let script_pubkey = ScriptBuf::from_bytes([&[0x53, 5][..], &[1; 5]].concat());
            vec![TxOut { value: Amount::from_sat(5_000), script_pubkey }]
        }
        _ => vec![],
    };
    let fee = match rng.below(10) {
        0 => Fee::Sat(0),
        1 => Fee::Sat(rng.below(20)),
        2..4 => Fee::Around { others_vsize: 0, others_fee: 0, more: [-1, 0, 1][rng.index(3)] },
        4..8 => Fee::Sat(rng.below(2_000)),
        8 => Fee::Sat(rng.below(200_000)),
        _ => Fee::Sat(1_000 + rng.below(10_000)),
    };
    Draft {
        version: [2, 2, 2, 2, 2, 3, 3, 3, 1, 1][rng.index(10)],
        lock_time: 0,
        sequence: [u32::MAX, 0xffff_fffd, 0xffff_fffe, 0x8000_0000][rng.index(4)],
        inputs,
        payments,
        others,
        fee,
        hash_type: *rng.pick(hash_types).unwrap(),
    }
}

fn dust(rng: &mut Rng) -> TxOut {
    let script_pubkey = causeway_tests::wallet::Owner::new(3).script_pubkey(*rng.pick(&Kind::ALL).unwrap());
    TxOut { value: Amount::from_sat(rng.below(700)), script_pubkey }
}

/// Makes a signed transaction wrong in some way, or not.
fn alter(rng: &mut Rng, transaction: &mut Transaction) {
    match rng.below(100) {
        0..8 => break_input(rng, transaction),
        8 => transaction.version = bitcoin::transaction::Version([0, 4, -1][rng.index(3)]),
        9 => transaction.output.clear(),
        10 => {
            transaction.lock_time = bitcoin::absolute::LockTime::from_consensus(400_000);
            transaction.input.iter_mut().for_each(|input| input.sequence = bitcoin::Sequence(0xffff_fffe));
        }
        11 => {
            transaction.version = bitcoin::transaction::Version::TWO;
            transaction.input[0].sequence = bitcoin::Sequence(0xffff);
        }
        12 => transaction.output[0].value += Amount::from_sat(20_000_000),
        _ => {}
    }
}

fn anchors(transaction: &Transaction) -> Vec<(OutPoint, TxOut)> {
    let txid = transaction.compute_txid();
    let is_anchor = |output: &TxOut| output.script_pubkey == anchor(0).script_pubkey;
    let outputs = (0..).zip(&transaction.output).filter(|(_, output)| is_anchor(output));
    outputs.map(|(vout, output)| (OutPoint { txid, vout }, output.clone())).collect()
}
