//! What the fuzz targets do with their input: one function each, which panics if a property does not hold.
//!
//! `scripts/fuzz TARGET SECONDS` runs a target under libFuzzer; `tests/corpus.rs` replays `corpus/TARGET/` as an ordinary
//! test. Beside what libFuzzer found, the corpus holds seeds, named for what they are: small blocks, each as it is, cut
//! short, lengthened and bent in every way of `causeway_tests::bends`, evidence of every kind in the same ways, and the
//! chainspecs of the repository with lines left out. `CAUSEWAY_WRITE_CORPUS=1 cargo test --release --workspace --test fuzz_corpus` writes the seeds again.
//!
//! What never enters this crate: files, and RocksDB.

use std::sync::{Arc, LazyLock};

use bitcoin::Transaction;
use bitcoin::consensus::serialize;
use bitcoinkernel::{BLOCK_CHECK_ALL, BlockCheckResult, ChainParams, ChainType};
use causeway_chainspec::{ChainSpec, Height, target_bits};
use causeway_consensus::InvalidBlock;
use causeway_consensus::assemble::{seal, seal_header};
use causeway_consensus::peg::{Evidence, PegContext, PegNetwork, PegState, Step};

static DEVNET: LazyLock<ChainSpec> = LazyLock::new(|| ChainSpec::built_in("devnet").expect("devnet is built in"));

static REGTEST: LazyLock<ChainParams> = LazyLock::new(|| ChainParams::new(ChainType::Regtest));

/// The peg of a new devnet.
static PEG: LazyLock<PegState> = LazyLock::new(|| PegState::new(Arc::new(PegNetwork::new(&DEVNET)), &DEVNET));

/// What became of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is what it should be.
    Accepted,
    /// It is refused with a named error.
    Refused,
}

/// Decodes a block.
///
/// # Panics
/// If a decoded block has other ids, sizes or bytes than `bitcoin` says, or one is refused that `bitcoin` decodes.
pub fn parse_block(data: &[u8]) -> Outcome {
    let theirs = bitcoin::consensus::deserialize::<bitcoin::Block>(data);
    let block = match causeway_consensus::parse_block(data.to_vec()) {
        Ok(block) => block,
        Err(InvalidBlock::TooManyBytes { bytes, max }) => {
            assert!(bytes == data.len() && bytes > max);
            return Outcome::Refused;
        }
        Err(InvalidBlock::Malformed { offset }) => {
            assert!(offset <= data.len() && theirs.is_err());
            return Outcome::Refused;
        }
        Err(other) => panic!("no rule of the bytes: {other:?}"),
    };
    let theirs = theirs.expect("decoded by us");
    assert_eq!(block.bytes(), data);
    assert_eq!(serialize(&theirs), data);
    assert_eq!(block.hash(), theirs.block_hash());
    assert_eq!(block.transactions().len(), theirs.txdata.len());
    for (index, (tx, theirs)) in block.transactions().iter().zip(&theirs.txdata).enumerate() {
        assert_eq!(tx.transaction(), theirs);
        assert_eq!(tx.txid(), theirs.compute_txid());
        assert_eq!(tx.wtxid(), theirs.compute_wtxid());
        assert_eq!(tx.weight(), theirs.weight().to_wu());
        assert_eq!((tx.base_size(), tx.total_size()), (theirs.base_size(), theirs.total_size()));
        assert_eq!(block.transaction_bytes(index), serialize(theirs));
    }
    Outcome::Accepted
}

/// Checks a block without its chain, on devnet's parameters: as it is, and with commitment, merkle root and work made
/// anew, without which hardly any change would get past the first rules. Returns what became of it as it is.
///
/// # Panics
/// If Bitcoin Core's library refuses a block that we accept.
pub fn check_block(data: &[u8]) -> Outcome {
    if let Ok(mut block) = bitcoin::consensus::deserialize::<bitcoin::Block>(data) {
        block.header.bits = target_bits();
        if block.txdata.first().is_some_and(has_place_for_commitment) {
            seal(&mut block);
        } else {
            seal_header(&mut block);
        }
        judge(&serialize(&block));
    }
    judge(data)
}

fn has_place_for_commitment(coinbase: &Transaction) -> bool {
    coinbase.output.len() >= 2 && coinbase.input.first().is_some_and(|input| !input.witness.is_empty())
}

fn judge(data: &[u8]) -> Outcome {
    let checked = causeway_consensus::parse_block(data.to_vec())
        .and_then(|block| causeway_consensus::check_block(block, DEVNET.params()));
    let Ok(checked) = checked else { return Outcome::Refused };
    assert_eq!(checked.block().bytes(), data);
    let core = bitcoinkernel::Block::new(data).expect("decoded by us");
    let verdict = core.check(&REGTEST, BLOCK_CHECK_ALL);
    assert!(matches!(verdict, BlockCheckResult::Valid), "Core refuses: {verdict:?}");
    Outcome::Accepted
}

/// Reads a chainspec.
///
/// # Panics
/// If one that is read does not come back when it is written and read again, or its first block is not its own.
pub fn chainspec_toml(data: &[u8]) -> Outcome {
    let Ok(text) = std::str::from_utf8(data) else { return Outcome::Refused };
    let Ok(spec) = ChainSpec::from_toml(text) else { return Outcome::Refused };
    let again = ChainSpec::from_toml(&spec.to_toml()).expect("written from a chainspec");
    assert_eq!(again.hash(), spec.hash());
    assert_eq!(again.to_toml(), spec.to_toml());
    let first = spec.derived_block(Height(1)).expect("block 1 is derived");
    assert_eq!(first.block_hash(), spec.chain_id().block_hash());
    Outcome::Accepted
}

/// Decodes evidence, and applies it to the peg of a new devnet.
///
/// # Panics
/// If decoded evidence encodes to other bytes, or the step panics or changes the peg without a transaction.
pub fn evidence(data: &[u8]) -> Outcome {
    let Some(evidence) = Evidence::decode(data) else { return Outcome::Refused };
    assert_eq!(evidence.encode(), data);
    assert!(!evidence.is_empty());
    // Whatever the evidence says: a time at which new headers are neither old nor too far ahead.
    let context = PegContext { height: Height(101), time: DEVNET.genesis_time() };
    let mut step = Step::new(&PEG, context);
    if step.apply(evidence.clone()).is_ok() {
        assert_eq!(step.evidence(), &evidence);
        let transaction = step.transaction().expect("there is evidence");
        let after = step.finish(Some((&transaction, transaction.compute_txid())), Vec::new());
        assert_ne!(after.state, *PEG);
    }
    Outcome::Accepted
}
