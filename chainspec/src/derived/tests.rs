use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::{Network, Script};

use super::*;
use crate::ChainSpec;

fn devnet() -> ChainSpec {
    ChainSpec::built_in("devnet").unwrap()
}

fn blocks(spec: &ChainSpec) -> Vec<Block> {
    (0..=100).map(|height| spec.derived_block(Height(height)).unwrap()).collect()
}

#[test]
fn block_0_is_the_genesis_block_of_the_identity() {
    let mut parts = devnet().to_parts();
    let regtest = devnet().derived_block(Height(0)).unwrap();
    // Bitcoin Core, src/kernel/chainparams.cpp.
    assert_eq!(regtest.block_hash().to_string(), "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206");
    assert_eq!(serialize(&regtest).len(), 285);

    parts.params.identity = Network::Signet;
    let signet = ChainSpec::new(parts).unwrap();
    assert_eq!(
        signet.derived_block(Height(0)).unwrap().block_hash().to_string(),
        "00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6"
    );
}

#[test]
fn the_first_blocks_of_devnet_are_pinned() {
    let spec = devnet();
    assert_eq!(spec.chain_id().to_string(), "1b6fd0df96bcbf1f33702c427dcbb6ac8871497476f100a65fd71441460d3334");
    assert_eq!(spec.derived_block(Height(1)).unwrap().block_hash(), spec.chain_id().block_hash());
    let last = spec.derived_block(LAST_DERIVED_HEIGHT).unwrap();
    assert_eq!(last.block_hash().to_string(), "39da9278ed18eb87a91bcaaf323b3fb3b5caadac04edb6c9aa240eb449b72c48");
}

#[test]
fn an_identity_of_signet_changes_block_1() {
    let mut parts = devnet().to_parts();
    parts.params.identity = Network::Signet;
    let spec = ChainSpec::new(parts).unwrap();
    assert_eq!(spec.chain_id().to_string(), "526af927a3808730bddea2ccaa0f53e264240d45b95836afa5539ee4f8effe1a");
    assert_eq!(spec.derived_block(Height(1)).unwrap().txdata[0].output[0].value, SUPPLY);
}

#[test]
fn derived_headers_are_a_chain() {
    let spec = devnet();
    let blocks = blocks(&spec);
    for (height, pair) in (1u32..).zip(blocks.windows(2)) {
        let [parent, block] = pair else { unreachable!() };
        let header = block.header;
        assert_eq!(header.version.to_consensus(), 0x2000_0000);
        assert_eq!(header.prev_blockhash, parent.block_hash());
        assert_eq!(header.time, spec.genesis_time() + height - 1);
        assert_eq!(header.bits, target_bits());
        assert!(header.validate_pow(Target::from_compact(target_bits())).is_ok());
        for nonce in 0..header.nonce {
            let earlier = Header { nonce, ..header };
            assert!(!header.target().is_met_by(earlier.block_hash()), "a smaller nonce at {height}");
        }
        assert!(block.check_merkle_root());
        // rust-bitcoin does not read heights 1 to 16, which are opcodes.
        assert!(height <= 16 || block.bip34_block_height() == Ok(u64::from(height)));
        assert_eq!(spec.derived_header(Height(height)), Some(header));
        assert_eq!(deserialize::<Block>(&serialize(block)).unwrap(), *block);
    }
    assert_eq!(spec.derived_block(Height(101)), None);
    assert_eq!(spec.derived_header(Height(101)), None);
    assert_eq!(spec.derived_block(Height(u32::MAX)), None);
}

#[test]
fn derived_coinbases_have_the_form_of_peg_section_1() {
    let spec = devnet();
    let mut commitment = vec![0x6a, 37];
    commitment.extend_from_slice(b"CWAY\0");
    commitment.extend_from_slice(&spec.hash().to_byte_array());
    for (height, block) in (0u32..).zip(blocks(&spec)).skip(1) {
        let [coinbase] = &block.txdata[..] else { panic!("one transaction") };
        assert_eq!(coinbase.version, Version::TWO);
        assert_eq!(coinbase.lock_time, LockTime::ZERO);
        let [input] = &coinbase.input[..] else { panic!("one input") };
        assert_eq!(input.previous_output, OutPoint::null());
        assert_eq!(input.sequence, Sequence::MAX);
        assert!(input.witness.is_empty());
        assert!((2..=100).contains(&input.script_sig.len()), "BIP34 and Bitcoin's bad-cb-length");
        let last = coinbase.output.last().unwrap();
        assert_eq!(last.value, Amount::ZERO);
        assert_eq!(last.script_pubkey.as_bytes(), commitment);
        assert_eq!(coinbase.output.len(), if height == 1 { 2 } else { 1 });
    }
}

#[test]
fn coinbases_push_the_height_as_bitcoin_core_does() {
    let spec = devnet();
    let script_sig = |height: usize| blocks(&spec)[height].txdata[0].input[0].script_sig.to_bytes();
    assert_eq!(script_sig(1), b"\x51\x04CWAY");
    assert_eq!(script_sig(16), b"\x60\x04CWAY");
    assert_eq!(script_sig(17), b"\x01\x11\x04CWAY");
    assert_eq!(script_sig(100), b"\x01\x64\x04CWAY");
}

#[test]
fn block_1_creates_the_supply_and_no_more() {
    let spec = devnet();
    let block = spec.derived_block(Height(1)).unwrap();
    let outputs = &block.txdata[0].output;
    assert_eq!(outputs[0].script_pubkey.as_bytes(), b"\x60\x04CWRS");
    assert_eq!(outputs[0].value, SUPPLY);
    assert_eq!(outputs.iter().map(|output| output.value).sum::<Amount>(), SUPPLY);
    assert_eq!(SUPPLY, Amount::MAX_MONEY);
}

#[test]
fn chain_ids_keep_their_bytes() {
    let id = devnet().chain_id();
    assert_eq!(ChainId::from_byte_array(id.to_byte_array()), id);
    assert_eq!(id.to_byte_array(), id.block_hash().to_byte_array());
    assert_eq!(id.to_string(), id.block_hash().to_string());
}

#[test]
fn a_commitment_is_one_push_of_37_bytes() {
    let script = commitment_script(1, [7; 32]);
    let mut expected = vec![0x6a, 0x25, b'C', b'W', b'A', b'Y', 1];
    expected.extend_from_slice(&[7; 32]);
    assert_eq!(script.as_script(), Script::from_bytes(&expected));
}
