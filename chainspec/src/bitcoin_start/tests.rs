use bitcoin::consensus::deserialize;
use bitcoin::hex::FromHex;

use super::*;

fn genesis(network: Network) -> Header {
    genesis_block(network).header
}

/// A regtest header with enough work, as it could stand at any height.
fn mined() -> Header {
    let mut header = Header { prev_blockhash: genesis(Network::Regtest).block_hash(), ..genesis(Network::Regtest) };
    while !header.target().is_met_by(header.block_hash()) {
        header.nonce += 1;
    }
    header
}

fn start(height: u32, header: Header, chainwork: u128, times: usize) -> Result<BitcoinStart, BitcoinStartError> {
    let times = vec![1_700_000_000; times];
    match BitcoinStart::new(Network::Regtest, BitcoinHeight(height), header, work(chainwork), times) {
        Ok(start) => Ok(start),
        Err(ChainSpecError::Bitcoin(error)) => Err(error),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn every_parent_can_start_at_its_genesis() {
    for network in PARENT_NETWORKS {
        let header = genesis(network);
        let start = BitcoinStart::new(network, BitcoinHeight(0), header, header.work(), vec![]).unwrap();
        assert_eq!((start.network(), start.height(), *start.header()), (network, BitcoinHeight(0), header));
        assert_eq!(start.chainwork(), header.work());
        assert!(start.earlier_times().is_empty());
    }
}

#[test]
fn testnet3_is_no_parent() {
    let header = genesis(Network::Testnet);
    let error = BitcoinStart::new(Network::Testnet, BitcoinHeight(0), header, header.work(), vec![]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "bitcoin.network is testnet, which must be one of: bitcoin, testnet4, signet, regtest"
    );
}

#[test]
fn a_start_lies_on_a_retarget_boundary() {
    assert!(start(2_016, mined(), 2 * 2_017, 10).is_ok());
    assert_eq!(
        start(2_017, mined(), 2 * 2_018, 10).unwrap_err().to_string(),
        "bitcoin.height is 2017, which must be a multiple of 2016 (on regtest too)"
    );
    assert_eq!(start(1, mined(), 4, 1), Err(BitcoinStartError::NotOnRetargetBoundary { got: BitcoinHeight(1) }));
    let error = BitcoinStart::new(Network::Regtest, BitcoinHeight(10_000_001), mined(), work(4), vec![]).unwrap_err();
    assert!(matches!(error, ChainSpecError::OutOfRange { .. }));
}

#[test]
fn at_height_0_only_the_genesis_block_will_do() {
    let error = start(0, mined(), 2, 0).unwrap_err();
    assert!(matches!(error, BitcoinStartError::NotGenesis { .. }));
    assert!(error.to_string().contains("must be the genesis block, 0f9188f13cb7"), "{error}");
    let header = genesis(Network::Signet);
    let error = BitcoinStart::new(Network::Testnet4, BitcoinHeight(0), header, header.work(), vec![]).unwrap_err();
    assert!(matches!(error, ChainSpecError::Bitcoin(BitcoinStartError::Bits { .. })), "{error}");
}

#[test]
fn a_start_has_proof_of_work() {
    let mut header = mined();
    while header.target().is_met_by(header.block_hash()) {
        header.nonce += 1;
    }
    let error = start(2_016, header, 2 * 2_017, 10).unwrap_err();
    assert!(matches!(error, BitcoinStartError::ProofOfWork { .. }));
    assert!(error.to_string().ends_with("which does not meet its target (bits 207fffff)"), "{error}");
}

#[test]
fn targets_are_canonical_and_within_the_limit() {
    // Zero, negative, over the limit, another spelling of 1f7fff00, and shifts past 256 bits.
    for bits in [0, 0x2000_0000, 0x20ff_ffff, 0x2080_0000, 0x2100_ffff, 0x2100_7fff, 0x2000_7fff, 0xff7f_ffff, u32::MAX]
    {
        let header = Header { bits: bitcoin::CompactTarget::from_consensus(bits), ..mined() };
        let error = start(2_016, header, 2 * 2_017, 10).unwrap_err();
        assert!(matches!(error, BitcoinStartError::Bits { .. }), "{bits:08x}: {error}");
        assert!(error.to_string().contains(&format!("has bits {bits:08x}")), "{error}");
    }
    // A regtest header is far too easy for the main network.
    let error = BitcoinStart::new(Network::Bitcoin, BitcoinHeight(2_016), mined(), work(4), vec![1; 10]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "bitcoin.header has bits 207fffff, which must be a target in canonical form, at most 1d00ffff on bitcoin"
    );
}

#[test]
fn chainwork_is_what_a_chain_of_this_height_can_have() {
    // Regtest: every block has at least a work of 2, and there are 2,017 up to height 2,016.
    assert!(start(2_016, mined(), 4_034, 10).is_ok());
    assert!(start(2_016, mined(), 1_000_000, 10).is_ok());
    assert!(start(2_016, mined(), u128::MAX, 10).is_ok());
    for wrong in [0, 1, 4_033] {
        let error = start(2_016, mined(), wrong, 10).unwrap_err();
        assert!(matches!(error, BitcoinStartError::Chainwork { .. }), "{error}");
    }
    let genesis = genesis(Network::Regtest);
    assert!(start(0, genesis, 2, 0).is_ok());
    assert!(matches!(start(0, genesis, 3, 0), Err(BitcoinStartError::Chainwork { .. })));

    let mut bytes = [0; 32];
    bytes[15] = 1;
    let huge = Work::from_be_bytes(bytes);
    let error = BitcoinStart::new(Network::Regtest, BitcoinHeight(2_016), mined(), huge, vec![1; 10]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "bitcoin.chainwork is 0000000000000000000000000000000100000000000000000000000000000000, which at height 2016 must be at least 0000000000000000000000000000000000000000000000000000000000000fc2 (exactly that at height 0) and below 2^128"
    );
}

#[test]
fn ten_earlier_times_are_given() {
    assert!(start(2_016, mined(), 4_034, 10).is_ok());
    for wrong in [0, 9, 11] {
        assert_eq!(start(2_016, mined(), 4_034, wrong), Err(BitcoinStartError::EarlierTimes { got: wrong, count: 10 }));
    }
    assert_eq!(
        start(0, genesis(Network::Regtest), 2, 10).unwrap_err().to_string(),
        "bitcoin.earlier_times holds 10 times, which must be 0: those of the blocks before the header, oldest first"
    );
    let mut times = vec![1; 10];
    times[3] = 0;
    let error = BitcoinStart::new(Network::Regtest, BitcoinHeight(2_016), mined(), work(4_034), times).unwrap_err();
    assert_eq!(error.to_string(), "bitcoin.earlier_times[3] is 0, which must be 1 to 4294967295 seconds since 1970");
}

#[test]
fn a_start_may_be_a_real_header() {
    // Block 1 of the main network, in the place of one on a boundary: nothing in a header tells its height.
    let bytes = Vec::from_hex(concat!(
        "010000006fe28c0ab6f1b372c1a6a246ae63f74f931e8365e15a089c68d6190000000000982051fd1e4ba744bbbe680e1fee14677ba1a3c3",
        "540bf7b1cdb606e857233e0e61bc6649ffff001d01e36299"
    ))
    .unwrap();
    let header: Header = deserialize(&bytes).unwrap();
    assert_eq!(header.block_hash().to_string(), "00000000839a8e6886ab5951d76f411475428afc90947ee320161bbf18eb6048");
    let least = work(4_295_032_833 * 2_017);
    let with = |chainwork| {
        BitcoinStart::new(Network::Bitcoin, BitcoinHeight(2_016), header, chainwork, vec![1_231_469_665; 10])
    };
    assert!(with(least).is_ok());
    assert!(with(work(4_295_032_833 * 2_017 - 1)).is_err());
}
