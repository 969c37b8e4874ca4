//! The seeds of the fuzzer's corpus, in `consensus/fuzz/corpus`. With `CAUSEWAY_WRITE_CORPUS` set they are written;
//! otherwise each must be there. `consensus/fuzz/tests/corpus.rs` replays them, with what the fuzzer has found since.

use std::path::Path;

use bitcoin::consensus::serialize;
use bitcoin::{Amount, Block, OutPoint};
use causeway_chainspec::{BitcoinHeight, ChainSpec, Height, SatPerKvb};
use causeway_consensus::peg::Evidence;
use causeway_tests::bends::{Bend, Seal, bent};
use causeway_tests::draft::{devnet, free_output, varied_block};
use causeway_tests::parent::{ParentChain, quote, terms};
use causeway_tests::wallet::{Kind, Owner};

/// (target, file name, bytes)
type Seed = (&'static str, String, Vec<u8>);

fn blocks() -> [(&'static str, Block); 2] {
    let mut chain = devnet();
    [("varied", varied_block(&mut chain)), ("empty", chain.next_block(Amount::ZERO, vec![]))]
}

fn parse_block_seeds() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let mut seed = |name: String, bytes: Vec<u8>| seeds.push(("parse_block", name, bytes));
    seed("nothing".to_owned(), vec![]);
    for (name, block) in blocks() {
        let bytes = serialize(&block);
        seed(name.to_owned(), bytes.clone());
        seed(format!("{name}-trailing"), [bytes.as_slice(), &[0]].concat());
        for length in [79, 80, 81, 85, 122, 160, bytes.len() - 5, bytes.len() - 1] {
            seed(format!("{name}-cut-at-{length}"), bytes[..length].to_vec());
        }
        for (size, number) in [("two", [0xfd].as_slice()), ("four", &[0xfe, 0xff]), ("eight", &[0xff; 5])] {
            let promising = [&bytes[..80], number, &bytes[81..]].concat();
            seed(format!("{name}-number-of-{size}-bytes"), promising);
        }
    }
    let [(_, varied), _] = blocks();
    for bend in [Bend::Empty, Bend::NoInputs, Bend::NoOutputs, Bend::Witness, Bend::ReservedValue, Bend::LargeValue] {
        seed(format!("bent-{}", kebab(bend)), serialize(&bent(&varied, &[(bend, 3)], Seal::Nothing)));
    }
    seeds
}

fn check_block_seeds() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let mut seed = |name: String, bytes: Vec<u8>| seeds.push(("check_block", name, bytes));
    let [(_, varied), (_, empty)] = blocks();
    // Three transactions: an odd level of the merkle tree.
    let three = bent(&varied, &[(Bend::Drop, 4), (Bend::Drop, 2)], Seal::Commitments);
    for (name, block) in [("varied", &varied), ("empty", &empty), ("three", &three)] {
        seed(name.to_owned(), serialize(block));
    }
    for bend in Bend::ALL.into_iter().filter(|bend| !bend.is_large()) {
        seed(format!("bent-{}", kebab(bend)), serialize(&bent(&three, &[(bend, 15)], Seal::Commitments)));
    }
    for bend in [Bend::Swap, Bend::RepeatTail, Bend::Witness, Bend::ReservedValue] {
        seed(format!("tampered-{}", kebab(bend)), serialize(&bent(&three, &[(bend, 16)], Seal::Nothing)));
    }
    let sigops = bent(&three, &[(Bend::Sigops, 10)], Seal::Commitments);
    seed("sigops-at-the-limit".to_owned(), serialize(&sigops));
    seeds
}

fn chainspec_seeds() -> Vec<Seed> {
    let text = ChainSpec::built_in("devnet").expect("devnet is built in").to_toml();
    let lines: Vec<&str> = text.lines().collect();
    let mut seeds = vec![
        ("chainspec_toml", "devnet".to_owned(), text.clone().into_bytes()),
        ("chainspec_toml", "nothing".to_owned(), vec![]),
        ("chainspec_toml", "not-utf-8".to_owned(), vec![0xff, 0xfe]),
        ("chainspec_toml", "signet".to_owned(), text.replace("identity = \"regtest\"", "identity = \"signet\"").into()),
        ("chainspec_toml", "unknown-section".to_owned(), format!("{text}\n[[coins]]\namount = 546\n").into()),
    ];
    let keys = lines.iter().enumerate().filter(|(_, line)| line.contains('=') && !line.starts_with('#'));
    for (number, _) in keys.step_by(4) {
        let without = [&lines[..number], &lines[number + 1..]].concat().join("\n");
        seeds.push(("chainspec_toml", format!("devnet-without-line-{}", number + 1), without.into_bytes()));
    }
    seeds
}

/// Evidence that a new devnet accepts, as far as it goes, each item by itself and all together; then cut short and changed.
fn evidence_seeds() -> Vec<Seed> {
    let spec = ChainSpec::built_in("devnet").expect("devnet is built in");
    let mut parent = ParentChain::new(&spec);
    let transaction = parent.pay(vec![free_output(Amount::from_sat(1)); 2]);
    let deposit = OutPoint { txid: transaction.compute_txid(), vout: 1 };
    parent.mine(vec![transaction]);
    parent.mine_empty(3);
    let terms = terms(Owner::new(1).script_pubkey(Kind::P2wpkh), &Owner::new(2));
    let proof = parent.proof(&deposit.txid).expect("mined");
    let all = Evidence {
        headers: Some(parent.run_above(BitcoinHeight(0))),
        confirmed: vec![proof.clone()],
        spent: Some(proof),
        peg_ins: vec![parent.peg_in(&terms, deposit).expect("mined")],
        fee_rate: Some(quote(&spec, 0, Height(101), SatPerKvb(3_000))),
        replace: vec![1, 2],
        open: true,
    };
    let none = Evidence::default;
    let items = [
        ("headers", Evidence { headers: all.headers.clone(), ..none() }),
        ("batch-confirmed", Evidence { confirmed: all.confirmed.clone(), ..none() }),
        ("coin-spent", Evidence { spent: all.spent.clone(), ..none() }),
        ("peg-in", Evidence { peg_ins: all.peg_ins.clone(), ..none() }),
        ("fee-rate", Evidence { fee_rate: all.fee_rate.clone(), ..none() }),
        ("replace-batch", Evidence { replace: all.replace.clone(), ..none() }),
        ("open-batch", Evidence { open: true, ..none() }),
        ("headers-and-fee-rate", Evidence { headers: all.headers.clone(), fee_rate: all.fee_rate.clone(), ..none() }),
        ("all", all),
    ];
    let mut seeds = vec![("evidence", "nothing".to_owned(), vec![])];
    for (name, evidence) in items {
        let bytes = evidence.encode();
        seeds.push(("evidence", format!("{name}-trailing"), [bytes.as_slice(), &[0]].concat()));
        seeds.push(("evidence", format!("{name}-short"), bytes[..bytes.len() - 1].to_vec()));
        seeds.push(("evidence", format!("{name}-reserved"), [bytes.as_slice(), &[8]].concat()));
        seeds.push(("evidence", name.to_owned(), bytes));
    }
    seeds
}

/// `RepeatTail` as `repeat-tail`.
fn kebab(bend: Bend) -> String {
    let mut name = String::new();
    for letter in format!("{bend:?}").chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

#[test]
fn the_seeds_are_there() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../consensus/fuzz/corpus");
    let seeds = [parse_block_seeds(), check_block_seeds(), chainspec_seeds(), evidence_seeds()].concat();
    let write = std::env::var_os("CAUSEWAY_WRITE_CORPUS").is_some();
    for (target, name, bytes) in seeds {
        let path = corpus.join(target).join(&name);
        if write {
            std::fs::create_dir_all(corpus.join(target)).expect("the directory can be made");
            std::fs::write(&path, bytes).expect("the seed can be written");
        }
        assert!(path.is_file(), "{target}/{name} is missing: set CAUSEWAY_WRITE_CORPUS and run this test again");
    }
}
