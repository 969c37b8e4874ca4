//! Whatever bytes are given to `parse_block`, it ends in a block or in a named error, within memory and work that are
//! bounded by their number.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bitcoin::consensus::{deserialize, serialize};
use bitcoin::{Amount, Block, OutPoint, ScriptBuf, TxIn, TxOut, VarInt, Weight, Witness};
use causeway_chainspec::ChainSpec;
use causeway_consensus::block::MAX_BLOCK_BYTES;
use causeway_consensus::{InvalidBlock, InvalidTransaction, check_block, parse_block};
use causeway_tests::bends::{Bend, Seal, bent};
use causeway_tests::draft::{ballast, devnet, input, outpoint, transaction, varied_block};
use peak_alloc::PeakAlloc;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::FileFailurePersistence;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Bytes that parsing may use whatever its input is: what the decoder sets aside for numbers that it has only been told.
/// The most is 16 MB, for a witness of four million elements.
const MEMORY_AT_MOST: usize = 24 << 20;

/// Bytes that parsing may use for each byte of its input. The most is 12, for transactions of 12 bytes.
const MEMORY_PER_BYTE: usize = 12;

/// The memory is the process's, so one test runs at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Parses, asserts what must hold of the outcome and of the memory that it took, and returns whether it is a block.
fn parsed(bytes: &[u8]) -> bool {
    let owned = bytes.to_vec();
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let outcome = parse_block(owned);
    let used = MEMORY.peak_usage().saturating_sub(before);
    let bound = MEMORY_AT_MOST + MEMORY_PER_BYTE * bytes.len();
    assert!(used <= bound, "{used} bytes of memory for {} bytes", bytes.len());
    let theirs = deserialize::<Block>(bytes);
    match outcome {
        Ok(block) => {
            let theirs = theirs.expect("decoded by us");
            assert_eq!(block.bytes(), bytes);
            assert!(serialize(&theirs) == bytes, "one encoding");
            assert_eq!(*block.header(), theirs.header);
            assert_eq!(block.hash(), theirs.block_hash());
            assert_eq!(block.transactions().len(), theirs.txdata.len());
            for (index, (tx, theirs)) in block.transactions().iter().zip(&theirs.txdata).enumerate() {
                assert!(tx.transaction() == theirs, "the same transaction");
                assert_eq!(tx.txid(), theirs.compute_txid());
                assert_eq!(tx.wtxid(), theirs.compute_wtxid());
                assert_eq!(tx.weight(), theirs.weight().to_wu());
                assert_eq!(tx.base_size(), theirs.base_size());
                assert_eq!(tx.total_size(), theirs.total_size());
                assert!(block.transaction_bytes(index) == serialize(theirs), "its own bytes");
            }
            true
        }
        Err(InvalidBlock::TooManyBytes { bytes: counted, max }) => {
            assert_eq!((counted, max), (bytes.len(), MAX_BLOCK_BYTES));
            assert!(counted > max);
            false
        }
        Err(InvalidBlock::Malformed { offset }) => {
            assert!(offset <= bytes.len());
            assert!(theirs.is_err(), "only we refuse it");
            false
        }
        Err(other) => panic!("no rule of the bytes: {other:?}"),
    }
}

fn bases() -> Vec<Block> {
    let mut chain = devnet();
    vec![varied_block(&mut chain), chain.next_block(Amount::ZERO, vec![])]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("proptest-regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn arbitrary_bytes(bytes in vec(any::<u8>(), 0..3_000)) {
        let _alone = alone();
        parsed(&bytes);
    }

    #[test]
    fn arbitrary_bytes_behind_a_header(count in 0..4u8, bytes in vec(select(vec![0u8, 0, 0, 1, 1, 2, 5, 0x51, 0xfd, 0xff]), 0..300)) {
        let _alone = alone();
        let header = serialize(&bases()[1].header);
        parsed(&[header.as_slice(), &[count], &bytes].concat());
    }

    #[test]
    fn altered_blocks(
        base in select(bases()),
        bends in vec((select(Bend::ALL.into_iter().filter(|bend| !bend.is_large()).collect::<Vec<_>>()), any::<u32>()), 0..3),
        edits in vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 0..4),
    ) {
        let _alone = alone();
        let mut bytes = serialize(&bent(&base, &bends, Seal::Nothing));
        prop_assert!(parsed(&bytes));
        for (place, byte, kind) in edits {
            let place = place.index(bytes.len());
            match kind {
                0 => bytes[place] ^= byte,
                1 => bytes[place] = [0, 1, 0xfc, 0xfd, 0xfe, 0xff][usize::from(byte) % 6],
                2 => bytes.insert(place, byte),
                _ => drop(bytes.remove(place)),
            }
            parsed(&bytes);
        }
    }
}

#[test]
fn cut_short_anywhere() {
    let _alone = alone();
    for base in bases() {
        let bytes = serialize(&base);
        assert!(parsed(&bytes));
        assert!((0..bytes.len()).all(|length| !parsed(&bytes[..length])));
        assert!(!parsed(&[bytes.as_slice(), &[0]].concat()));
    }
}

/// A block of one transaction, from its parts as bytes; each number that says how much follows is a parameter.
struct Numbers {
    transactions: u64,
    inputs: u64,
    script_sig: u64,
    outputs: u64,
    script_pubkey: u64,
    elements: u64,
    element: u64,
}

impl Numbers {
    /// They are all right.
    const RIGHT: Self =
        Self { transactions: 1, inputs: 1, script_sig: 3, outputs: 1, script_pubkey: 2, elements: 2, element: 4 };

    fn bytes(&self) -> Vec<u8> {
        let number = |number: u64| serialize(&VarInt(number));
        [
            serialize(&bases()[1].header),
            number(self.transactions),
            vec![2, 0, 0, 0, 0, 1],
            number(self.inputs),
            vec![7; 36],
            number(self.script_sig),
            vec![0x51; 3],
            vec![0; 4],
            number(self.outputs),
            vec![0; 8],
            number(self.script_pubkey),
            vec![0x51; 2],
            number(self.elements),
            number(self.element),
            vec![9; 4],
            number(0),
            vec![0; 4],
        ]
        .concat()
    }
}

/// Numbers that promise more than there is, up to 2^64 - 1.
#[test]
fn numbers_that_promise_too_much() {
    let _alone = alone();
    assert!(parsed(&Numbers::RIGHT.bytes()));
    let promised = [
        0xfc,
        0xfd,
        0xffff,
        400_000,
        3_999_999,
        4_000_000,
        4_000_001,
        33_554_432,
        33_554_433,
        u32::MAX.into(),
        u64::MAX,
    ];
    // Followed by nothing, and by four million bytes: of zeros, of empty witnesses' sizes, of the longest numbers.
    for tail in [vec![], vec![0; 3_999_000], vec![1; 3_999_000], vec![0xff; 3_999_000]] {
        for number in promised {
            for numbers in [
                Numbers { transactions: number, ..Numbers::RIGHT },
                Numbers { inputs: number, ..Numbers::RIGHT },
                Numbers { script_sig: number, ..Numbers::RIGHT },
                Numbers { outputs: number, ..Numbers::RIGHT },
                Numbers { script_pubkey: number, ..Numbers::RIGHT },
                Numbers { elements: number, ..Numbers::RIGHT },
                Numbers { element: number, ..Numbers::RIGHT },
            ] {
                parsed(&[numbers.bytes(), tail.clone()].concat());
            }
        }
    }
}

/// Blocks each made of as many as possible of one thing. A byte of a witness takes one unit of `room`, every other `cost`.
fn shapes(room: usize, cost: usize) -> Vec<(&'static str, Block)> {
    let chain = devnet();
    let base = chain.next_block(Amount::ZERO, vec![transaction(&[outpoint(1)], vec![ballast(1)])]);
    let with = |edit: &dyn Fn(&mut bitcoin::Transaction)| {
        let mut block = base.clone();
        edit(&mut block.txdata[1]);
        bent(&block, &[], Seal::Commitments)
    };
    let numbered = |number: usize| OutPoint { vout: u32::try_from(number).expect("fits"), ..outpoint(1) };
    let empty_output = TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::new() };
    let with_witness = |number: usize, bytes: usize| TxIn {
        witness: Witness::from_slice(&[vec![0; bytes]]),
        ..input(numbered(number))
    };
    let mut transactions = base.clone();
    transactions
        .txdata
        .extend((0..room / (60 * cost)).map(|number| transaction(&[numbered(number)], vec![empty_output.clone()])));
    let mut smallest = base.clone();
    smallest.txdata.extend(vec![transaction(&[], vec![]); room / (10 * cost + 2)]);
    // An input takes 41 bytes; its witness two numbers and one element.
    let inputs = |bytes: usize| room / (41 * cost + 2 + bytes);
    let bytes = room / cost;
    vec![
        ("transactions", bent(&transactions, &[], Seal::Commitments)),
        ("smallest transactions", bent(&smallest, &[], Seal::Commitments)),
        ("inputs", with(&|tx| tx.input = (0..bytes / 41).map(|number| input(numbered(number))).collect())),
        ("equal inputs", with(&|tx| tx.input = vec![input(outpoint(1)); bytes / 41])),
        ("outputs", with(&|tx| tx.output = vec![empty_output.clone(); bytes / 9])),
        ("script", with(&|tx| tx.output[0] = ballast(bytes))),
        ("operations", with(&|tx| tx.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0xac; bytes]))),
        ("witness", with(&|tx| tx.input[0].witness = Witness::from_slice(&[vec![0; room]]))),
        ("witness elements", { with(&|tx| tx.input[0].witness = Witness::from_slice(&vec![[0u8; 0]; room])) }),
        ("empty witnesses", with(&|tx| tx.input = (0..inputs(0)).map(|number| with_witness(number, 0)).collect())),
        ("witnesses", with(&|tx| tx.input = (0..inputs(130)).map(|number| with_witness(number, 130)).collect())),
    ]
}

/// As many bytes as are decoded at all.
#[test]
fn the_longest_of_every_shape_is_parsed_within_bounds() {
    let _alone = alone();
    for (shape, block) in shapes(MAX_BLOCK_BYTES - 600, 1) {
        let bytes = serialize(&block);
        assert!((MAX_BLOCK_BYTES - 1_000..=MAX_BLOCK_BYTES).contains(&bytes.len()), "{shape}: {} bytes", bytes.len());
        assert!(parsed(&bytes), "{shape}");
    }
}

/// As much weight as is checked to the end: nothing in it takes more than linear work, or a test would not end.
#[test]
fn the_heaviest_of_every_shape_is_checked() {
    let _alone = alone();
    let spec = ChainSpec::built_in("devnet").expect("devnet is built in");
    for (shape, block) in shapes(3_997_500, 4) {
        assert!(block.weight() <= Weight::MAX_BLOCK, "{shape}: {}", block.weight());
        assert!(block.weight() > Weight::from_wu(3_990_000), "{shape}: {}", block.weight());
        let verdict = parse_block(serialize(&block)).and_then(|block| check_block(block, spec.params())).map(drop);
        match (shape, verdict) {
            ("smallest transactions", Err(InvalidBlock::MerkleMutated))
            | ("operations", Err(InvalidBlock::TooManySigops { .. }))
            | (
                "equal inputs",
                Err(InvalidBlock::Transaction { rule: InvalidTransaction::DuplicateInput { .. }, .. }),
            ) => {}
            (_, verdict) => assert_eq!(verdict, Ok(()), "{shape}"),
        }
    }
}
