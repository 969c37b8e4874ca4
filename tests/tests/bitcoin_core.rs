//! What a real Bitcoin Core says of our blocks, transactions and addresses.

use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::{Amount, Block, BlockHash, Network};
use causeway_chainspec::{ChainSpec, Height, PegOutDestination, to_causeway_address};
use causeway_consensus::assemble::seal;
use causeway_consensus::parse_block;
use causeway_tests::bitcoind::Bitcoind;
use causeway_tests::chain::MemoryChain;
use causeway_tests::parent::fund;
use causeway_tests::wallet::{Kind, Owner, output, spend};

#[test]
fn bitcoin_core_knows_our_formats() {
    let core = Bitcoind::start();
    let spec = ChainSpec::built_in("devnet").expect("built in");

    // Block 0 is regtest's.
    let genesis = spec.derived_block(Height(0)).expect("derived");
    assert_eq!(core.call("getblockhash", &["0"]), genesis.block_hash().to_string());
    assert_eq!(core.call("getblock", &[&genesis.block_hash().to_string(), "0"]), serialize_hex(&genesis));

    // A transaction in every kind of output.
    let mut chain = MemoryChain::new(spec.clone());
    let (_, coin) = fund(&mut chain);
    let owner = Owner::new(7);
    let outputs = Kind::ALL.map(|kind| output(Amount::from_sat(10_000), owner.script_pubkey(kind)));
    let fee = coin.output.value - Amount::from_sat(10_000 * Kind::ALL.len() as u64);
    let transaction = spend(&[coin], outputs.to_vec());
    let decoded = core.call("decoderawtransaction", &[&serialize_hex(&transaction)]);
    assert_eq!(decoded["txid"], transaction.compute_txid().to_string());
    assert_eq!(decoded["hash"], transaction.compute_wtxid().to_string());
    assert_eq!(decoded["weight"], transaction.weight().to_wu());

    // Our block is valid here, and there only its parent is unknown.
    let block = chain.next_block(fee, vec![transaction]);
    chain.accept(&block).expect("valid");
    assert_eq!(core.call("submitblock", &[&serialize_hex(&block)]), "prev-blk-not-found");

    // On Core's own chain a block with our coinbase is accepted, and comes back byte for byte.
    let mut ours = chain.next_block(Amount::ZERO, vec![]);
    ours.header.prev_blockhash = genesis.block_hash();
    ours.header.time = genesis.header.time + 1;
    ours.txdata[0].input[0].script_sig = causeway_consensus::connect::height_push(Height(1));
    ours.txdata[0].input[0].script_sig.push_opcode(bitcoin::opcodes::OP_0);
    seal(&mut ours);
    assert_eq!(core.call("submitblock", &[&serialize_hex(&ours)]), "");
    let hash: BlockHash = ours.block_hash();
    assert_eq!(core.call("getbestblockhash", &[]), hash.to_string());
    let returned = core.call("getblock", &[&hash.to_string(), "0"]);
    let returned: Block = deserialize_hex(returned.as_str().expect("hex")).expect("a block");
    assert_eq!(returned, ours);
    assert_eq!(parse_block(bitcoin::consensus::serialize(&returned)).expect("parses").hash(), hash);
}

#[test]
fn bitcoin_core_takes_a_peg_out_address_for_a_future_segwit_version() {
    let core = Bitcoind::start();
    for kind in [Kind::P2pkh, Kind::P2sh, Kind::P2wpkh, Kind::P2wsh, Kind::P2trKey] {
        let script = Owner::new(8).script_pubkey(kind);
        let bitcoin_address = bitcoin::Address::from_script(&script, Network::Regtest).expect("an address");
        let address = to_causeway_address(&bitcoin_address, Network::Regtest).expect("a destination");
        let request = PegOutDestination::from_bitcoin_script(&script).expect("a destination").to_script_pubkey();
        let answer = core.call("validateaddress", &[&address.to_string()]);
        assert_eq!(answer["isvalid"], true, "{kind:?} {address}: {answer}");
        assert_eq!(answer["witness_version"], 16);
        assert_eq!(answer["scriptPubKey"], request.to_hex_string());
    }
}
