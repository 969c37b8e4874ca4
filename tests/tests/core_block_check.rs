//! Bitcoin Core's own `CheckBlock` and `CheckTransaction`, through `bitcoinkernel`, as second opinion on the rules that
//! need no chain.
//!
//! What we accept, Core accepts; what Core refuses, we refuse. What only we refuse is named: Core checks it elsewhere
//! (versions, witness commitment, weight with witnesses, the difficulty of this chain), or it is no rule of Bitcoin's.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use bitcoin::absolute::LockTime;
use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{Amount, Block, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use bitcoinkernel::core::transaction::TxValidationResult;
use bitcoinkernel::prelude::*;
use bitcoinkernel::{BLOCK_CHECK_ALL, BlockCheckResult, BlockValidationResult, ChainParams, ChainType, TxCheckResult};
use causeway_chainspec::Params;
use causeway_consensus::block::MAX_BLOCK_BYTES;
use causeway_consensus::check::check_transaction;
use causeway_consensus::{InvalidBlock, InvalidTransaction, check_block, parse_block};
use causeway_tests::bends::{Bend, Seal, bent};
use causeway_tests::chain::MemoryChain;
use causeway_tests::draft::{ballast, devnet, outpoint, varied_block};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{FileFailurePersistence, TestRunner};

/// What Core accepts in `CheckBlock` and we do not.
const ONLY_OURS: [&str; 13] = [
    // Core decodes as much as it needs and leaves the rest.
    "Malformed",
    // Core's limit of a message, and its rule about weight, are elsewhere.
    "TooManyBytes",
    "TooHeavy",
    // ContextualCheckBlockHeader.
    "VersionTooLow",
    "WrongBits",
    // ContextualCheckBlock; and its place, DESIGN section 2.
    "WitnessCommitmentForm",
    "WitnessReservedValue",
    "WitnessCommitmentMismatch",
    // DESIGN section 2.
    "StateCommitmentForm",
    // PEG section 1.
    "PegScript",
    "CreatesReserve",
    "CoinbaseCreatesRequest",
    "RequestOutOfRange",
];

/// What both refuse.
const BOTH: [&str; 16] = [
    "Malformed",
    "HashAboveTarget",
    "MerkleRootMismatch",
    "MerkleMutated",
    "NoTransactions",
    "CoinbaseMissing",
    "CoinbaseRepeated",
    "TooHeavy",
    "TooManySigops",
    "CoinbaseScriptLength",
    "NoInputs",
    "NoOutputs",
    "OutputValueOutOfRange",
    "OutputSumOutOfRange",
    "DuplicateInput",
    "NullOutpoint",
];

/// Who said no, and our name for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    BothAccept,
    BothRefuse(String),
    OnlyOursRefuses(String),
}

/// Judges blocks with both, and counts.
struct Judges {
    params: Params,
    core: ChainParams,
    counts: RefCell<BTreeMap<Class, usize>>,
}

impl Judges {
    fn new(chain: &MemoryChain) -> Self {
        let core = ChainParams::new(ChainType::Regtest);
        Self { params: chain.spec.params().clone(), core, counts: RefCell::default() }
    }

    /// Asserts that we are as strict as Core, and stricter only where it is named.
    fn judge(&self, bytes: &[u8]) {
        let ours = parse_block(bytes.to_vec()).and_then(|block| check_block(block, &self.params)).map(drop);
        let core = bitcoinkernel::Block::new(bytes).map(|block| block.check(&self.core, BLOCK_CHECK_ALL));
        let class = match (ours, core) {
            (Ok(()), Ok(BlockCheckResult::Valid)) => Class::BothAccept,
            (Ok(()), core) => panic!("only Core refuses: {core:?}"),
            (Err(error), Ok(BlockCheckResult::Valid)) => Class::OnlyOursRefuses(name(&error)),
            (Err(error), Ok(BlockCheckResult::Invalid(state))) => {
                // What Core takes for an altered body is no verdict on the hash. A header that is wrong in itself is.
                let header = matches!(error, InvalidBlock::VersionTooLow { .. } | InvalidBlock::WrongBits { .. });
                if state.result() == BlockValidationResult::Mutated && !header {
                    assert!(error.is_mutation(), "{error:?}");
                }
                Class::BothRefuse(name(&error))
            }
            (Err(error), Err(_)) => Class::BothRefuse(name(&error)),
        };
        *self.counts.borrow_mut().entry(class).or_default() += 1;
    }

    fn counted(&self) -> BTreeMap<Class, usize> {
        let counts = self.counts.take();
        for (class, count) in &counts {
            eprintln!("{count:7} {class:?}");
        }
        counts
    }
}

/// Cases that failed once are kept beside this file and tried first.
fn runner(cases: u32) -> TestRunner {
    let kept = FileFailurePersistence::WithSource("proptest-regressions");
    TestRunner::new(ProptestConfig {
        cases,
        failure_persistence: Some(Box::new(kept)),
        ..ProptestConfig::with_source_file(file!())
    })
}

/// The rule's name: the transaction's rule where there is one.
fn name(error: &InvalidBlock) -> String {
    let debug = match error {
        InvalidBlock::Transaction { rule, .. } => format!("{rule:?}"),
        other => format!("{other:?}"),
    };
    debug.chars().take_while(char::is_ascii_alphanumeric).collect()
}

fn bases(chain: &mut MemoryChain) -> Vec<Block> {
    let varied = varied_block(chain);
    let empty = chain.next_block(Amount::ZERO, vec![]);
    // Three transactions, so that the last can be repeated.
    let three = bent(&varied, &[(Bend::Drop, 4), (Bend::Drop, 2)], Seal::Commitments);
    vec![varied, empty, three]
}

/// Every edit alone, in several variations and under every seal, and every way to cut or lengthen the bytes: each class
/// is reached.
#[test]
fn every_edit_is_judged_as_core_judges_it() {
    let mut chain = devnet();
    let bases = bases(&mut chain);
    let judges = Judges::new(&chain);
    for base in &bases {
        let bytes = serialize(base);
        judges.judge(&bytes);
        judges.judge(&[bytes.as_slice(), &[0]].concat());
        (0..bytes.len()).for_each(|length| judges.judge(&bytes[..length]));
        for bend in Bend::ALL {
            let salts = if bend.is_large() { 0..12 } else { 0..44 };
            for (salt, seal) in salts.flat_map(|salt| Seal::ALL.map(|seal| (salt, seal))) {
                judges.judge(&serialize(&bent(base, &[(bend, salt)], seal)));
            }
        }
    }
    let counts = judges.counted();
    let both = ["VersionTooLow", "WrongBits"].into_iter().chain(BOTH).chain(ONLY_OURS).collect::<BTreeSet<_>>();
    for class in counts.keys() {
        match class {
            Class::BothAccept => {}
            Class::BothRefuse(rule) => assert!(both.contains(rule.as_str()), "{class:?}"),
            Class::OnlyOursRefuses(rule) => assert!(ONLY_OURS.contains(&rule.as_str()), "{class:?}"),
        }
    }
    assert!(counts[&Class::BothAccept] > 100);
    for rule in BOTH {
        assert!(counts.contains_key(&Class::BothRefuse(rule.to_owned())), "{rule} by both");
    }
    for rule in ONLY_OURS {
        assert!(counts.contains_key(&Class::OnlyOursRefuses(rule.to_owned())), "{rule} by us only");
    }
}

/// A block, edits, what is made anew after them, and bytes (place, bits) changed in the end.
type Case = (Block, Vec<(Bend, u32)>, Seal, Vec<(u32, u8)>);

/// Some edits at once, at random.
#[test]
fn edits_together_are_judged_as_core_judges_them() {
    let mut chain = devnet();
    let bases = bases(&mut chain);
    let judges = Judges::new(&chain);
    let small: Vec<Bend> = Bend::ALL.into_iter().filter(|bend| !bend.is_large()).collect();
    let bends = vec((select(small), any::<u32>()), 0..4);
    let strategy = (select(bases), bends, select(Seal::ALL.to_vec()), vec((any::<u32>(), any::<u8>()), 0..3));
    let mut runner = runner(4_000);
    let property = |(base, bends, seal, flips): Case| {
        let mut bytes = serialize(&bent(&base, &bends, seal));
        judges.judge(&bytes);
        if !flips.is_empty() {
            for (place, flip) in flips {
                let place = place as usize % bytes.len();
                bytes[place] ^= flip;
            }
            judges.judge(&bytes);
        }
        Ok(())
    };
    runner.run(&strategy, property).expect("we are as strict as Core");
    let named = judges.counted().into_keys().filter_map(|class| match class {
        Class::OnlyOursRefuses(rule) => Some(rule),
        Class::BothAccept | Class::BothRefuse(_) => None,
    });
    for rule in named {
        assert!(ONLY_OURS.contains(&rule.as_str()), "{rule}");
    }
}

/// How the two decoders differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Decoding {
    /// The same block: ids, number of transactions, and bytes when written again.
    Same,
    Neither,
    /// Core stops after the last transaction, and does not say that bytes follow.
    CoreIgnoresTrailingBytes,
    /// Core reads `00 00` as no inputs and no outputs; `bitcoin` as a flag that it does not know.
    CoreReadsEmptyTransaction,
    /// Core has no limit of its own for a block's bytes.
    CoreReadsMoreBytes,
    /// `bitcoin` writes a transaction without inputs with the segwit marker; Core refuses a marker without witnesses.
    OursReadsTransactionWithoutInputs,
}

fn compare_decoding(bytes: &[u8]) -> Decoding {
    let ours = parse_block(bytes.to_vec());
    let core = bitcoinkernel::Block::new(bytes);
    match (ours, core) {
        (Ok(ours), Ok(core)) => {
            assert_eq!(core.hash().to_bytes(), ours.hash().to_byte_array());
            assert_eq!(core.transaction_count(), ours.transactions().len());
            for (index, tx) in ours.transactions().iter().enumerate() {
                let core = core.transaction(index).expect("in range");
                assert_eq!(core.txid().to_bytes(), tx.txid().to_byte_array());
            }
            assert_eq!(core.consensus_encode().expect("Core writes it"), bytes);
            Decoding::Same
        }
        (Err(_), Err(_)) => Decoding::Neither,
        (Err(InvalidBlock::TooManyBytes { .. }), Ok(_)) => Decoding::CoreReadsMoreBytes,
        (Err(error), Ok(core)) => {
            let transactions = (0..core.transaction_count()).map(|index| core.transaction(index).expect("in range"));
            if transactions.into_iter().any(|tx| tx.input_count() == 0 && tx.output_count() == 0) {
                return Decoding::CoreReadsEmptyTransaction;
            }
            let length = core.consensus_encode().expect("Core writes it").len();
            assert!(length < bytes.len(), "{error:?}");
            assert_eq!(error, InvalidBlock::Malformed { offset: length });
            Decoding::CoreIgnoresTrailingBytes
        }
        (Ok(ours), Err(_)) => {
            let without = ours.transactions().iter().any(|tx| tx.transaction().input.is_empty());
            assert!(without, "only we decode it");
            Decoding::OursReadsTransactionWithoutInputs
        }
    }
}

#[test]
fn decoding_differs_from_core_only_as_named() {
    let mut chain = devnet();
    let bases = bases(&mut chain);
    let bytes = serialize(&bases[0]);
    let empty_transaction = [&bytes[..80], &[6], &bytes[81..], &[2, 0, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
    let without_inputs = serialize(&bent(&bases[0], &[(Bend::NoInputs, 1)], Seal::Commitments));
    let mut long = bytes.clone();
    long.resize(MAX_BLOCK_BYTES + 1, 0);
    let named = [
        (bytes.clone(), Decoding::Same),
        (bytes[..bytes.len() - 1].to_vec(), Decoding::Neither),
        ([bytes.as_slice(), &[0]].concat(), Decoding::CoreIgnoresTrailingBytes),
        (empty_transaction, Decoding::CoreReadsEmptyTransaction),
        (long, Decoding::CoreReadsMoreBytes),
        (without_inputs, Decoding::OursReadsTransactionWithoutInputs),
    ];
    for (bytes, decoding) in named {
        assert_eq!(compare_decoding(&bytes), decoding);
    }

    // A byte changed, put in or taken out, some times over; numbers that say how much follows are hit often.
    let counts = RefCell::new(BTreeMap::<Decoding, usize>::new());
    let edits = vec((any::<u32>(), any::<u8>(), 0..4u8), 1..4);
    let mut runner = runner(20_000);
    let property = |(base, edits): (Block, Vec<(u32, u8, u8)>)| {
        let mut bytes = serialize(&base);
        for (place, byte, kind) in edits {
            let place = place as usize % bytes.len();
            match kind {
                0 => bytes[place] ^= byte,
                1 => bytes[place] = [0, 1, 0xfc, 0xfd, 0xfe, 0xff][usize::from(byte) % 6],
                2 => bytes.insert(place, byte),
                _ => drop(bytes.drain(place..(place + usize::from(byte % 3)).min(bytes.len()))),
            }
        }
        *counts.borrow_mut().entry(compare_decoding(&bytes)).or_default() += 1;
        Ok(())
    };
    runner.run(&(select(bases), edits), property).expect("only as named");
    eprintln!("{:?}", counts.borrow());
    for decoding in [Decoding::Same, Decoding::Neither, Decoding::CoreIgnoresTrailingBytes] {
        assert!(counts.borrow().contains_key(&decoding), "{decoding:?}");
    }
}

/// Inputs from few outpoints, values around the limits, scripts of any kind.
fn transactions() -> impl Strategy<Value = Transaction> {
    let outpoints = prop_oneof![
        8 => (0..20u32).prop_map(outpoint),
        1 => Just(OutPoint::null()),
        1 => Just(OutPoint { vout: 0, ..OutPoint::null() }),
    ];
    let script = vec(any::<u8>(), 0..110).prop_map(ScriptBuf::from_bytes);
    let witness = vec(vec(any::<u8>(), 0..40), 0..3).prop_map(|elements| Witness::from_slice(&elements));
    let input = (outpoints, script.clone(), any::<u32>(), witness).prop_map(
        |(previous_output, script_sig, sequence, witness)| TxIn {
            previous_output,
            script_sig,
            sequence: Sequence(sequence),
            witness,
        },
    );
    let max = Amount::MAX_MONEY.to_sat();
    let value =
        prop_oneof![6 => 0..1_000_000u64, 1 => max / 2 - 2..max / 2 + 2, 1 => max - 2..max + 2, 1 => any::<u64>()];
    let peg = vec(any::<u8>(), 2..41).prop_map(|program| {
        let length = u8::try_from(program.len()).expect("short");
        ScriptBuf::from_bytes([&[0x60, length], program.as_slice()].concat())
    });
    let script = prop_oneof![9 => script, 1 => peg];
    let output =
        (value, script).prop_map(|(value, script_pubkey)| TxOut { value: Amount::from_sat(value), script_pubkey });
    let inputs = prop_oneof![4 => vec(input.clone(), 0..4), 1 => vec(input, 4..14)];
    (any::<i32>(), any::<u32>(), inputs, vec(output, 0..4)).prop_map(|(version, lock_time, input, output)| {
        Transaction { version: Version(version), lock_time: LockTime::from_consensus(lock_time), input, output }
    })
}

/// Compares verdicts on a transaction alone. The length of a coinbase's script is among Core's rules for transactions
/// and among ours for blocks.
fn compare_transaction(transaction: &Transaction, params: &Params) -> Class {
    let ours = check_transaction(transaction, transaction.base_size(), params);
    let script = transaction.input.first().map_or(0, |input| input.script_sig.len());
    let script_length = transaction.is_coinbase() && !(2..=100).contains(&script);
    let ours = match ours {
        Ok(()) | Err(InvalidTransaction::PegScript { .. }) if script_length => Err("CoinbaseScriptLength".to_owned()),
        Ok(()) => Ok(()),
        Err(rule) => Err(format!("{rule:?}").chars().take_while(char::is_ascii_alphanumeric).collect()),
    };
    let core = bitcoinkernel::Transaction::new(&serialize(transaction)).map(|transaction| transaction.check());
    match (ours, core) {
        (Ok(()), Ok(TxCheckResult::Valid)) => Class::BothAccept,
        (Ok(()), core) => panic!("only Core refuses {transaction:?}: {:?}", core.map(|_| ())),
        (Err(rule), Ok(TxCheckResult::Valid)) => Class::OnlyOursRefuses(rule),
        (Err(rule), Ok(TxCheckResult::Invalid(result))) => {
            assert_eq!(result, TxValidationResult::Consensus);
            Class::BothRefuse(rule)
        }
        // Core does not decode a segwit marker without witnesses, which is how `bitcoin` writes no inputs.
        (Err(rule), Err(_)) => {
            assert_eq!(rule, "NoInputs");
            Class::BothRefuse(rule)
        }
    }
}

#[test]
fn transactions_are_judged_as_core_judges_them() {
    let params = devnet().spec.params().clone();
    let counts = RefCell::new(BTreeMap::<Class, usize>::new());
    let count = |transaction: &Transaction| {
        *counts.borrow_mut().entry(compare_transaction(transaction, &params)).or_default() += 1;
    };
    // Around the limit of size, which is too long to generate.
    for bytes in 999_900..1_000_000 {
        let mut large = causeway_tests::draft::move_coins(&[outpoint(1)]);
        large.output.push(ballast(bytes));
        count(&large);
    }
    let mut runner = runner(20_000);
    let property = |transaction| {
        count(&transaction);
        Ok(())
    };
    runner.run(&transactions(), property).expect("as Core does");

    let counts = counts.into_inner();
    counts.iter().for_each(|(class, count)| eprintln!("{count:7} {class:?}"));
    let both = [
        "NoInputs",
        "NoOutputs",
        "TooLarge",
        "OutputValueOutOfRange",
        "OutputSumOutOfRange",
        "DuplicateInput",
        "NullOutpoint",
        "CoinbaseScriptLength",
    ];
    let expected = both.map(|rule| Class::BothRefuse(rule.to_owned()));
    let reached: BTreeSet<Class> = counts.keys().cloned().collect();
    let mut classes: BTreeSet<Class> = expected.into_iter().collect();
    classes.insert(Class::BothAccept);
    classes.insert(Class::OnlyOursRefuses("PegScript".to_owned()));
    assert_eq!(reached, classes);
}
