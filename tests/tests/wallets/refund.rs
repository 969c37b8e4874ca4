//! A federation that is gone: whoever paid to a deposit address gets it back on Bitcoin, with the words of the wallet alone.

use bitcoin::{Amount, Network};
use causeway_chainspec::ChainSpec;
use causeway_federation::keystore::Passphrase;
use causeway_node::devnet::key::{Coin, DevKey};
use causeway_node::wallet::Wallet;
use causeway_node::wallet::keys::parse_mnemonic;
use causeway_node::wallet::node::Node;
use causeway_tests::bitcoind::Bitcoind;
use serde_json::Value;

use super::alone;
use super::program::Cli;

const PAID: f64 = 0.4;

#[test]
fn a_depositor_gets_the_coins_back_from_a_dead_chain() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let spec = ChainSpec::built_in("devnet").unwrap();
    let chain = directory.path().join("chainspec.toml");
    std::fs::write(&chain, spec.to_toml()).unwrap();
    // Nobody listens there: the chain is dead.
    let cli = Cli::new(directory.path(), "wallet", "http://127.0.0.1:1");
    let mnemonic = cli.create(&chain);
    let refund_delay = u64::from(spec.federation().timelocks().refund_delay);

    // What the wallet had shown in better days, worked out anew.
    let deposit = {
        let passphrase = Passphrase::new("correct horse battery staple".to_owned().into()).unwrap();
        let node = Node::new("http://127.0.0.1:1", false).unwrap();
        let path = directory.path().join("same keys");
        let mnemonic = parse_mnemonic(&mnemonic).unwrap();
        let wallet = Wallet::create(&path, &passphrase, &mnemonic, spec, &node, false).unwrap();
        wallet.deposit_address(4).address.to_string()
    };

    let bitcoind = Bitcoind::start();
    let miner = DevKey::of("miner", Network::Regtest);
    let miner_address = miner.address().to_string();
    bitcoind.call("generatetoaddress", &["101", &miner_address]);
    let coinbase = coinbase_of(&bitcoind, 1);
    let paid = Amount::from_btc(PAID).unwrap();
    let script_pubkey = deposit.parse::<bitcoin::Address<_>>().unwrap().assume_checked().script_pubkey();
    let payment = miner.pay(&[coinbase], &[bitcoin::TxOut { value: paid, script_pubkey }]);
    let payment = payment.unwrap_or_else(|_| panic!("50 BTC are enough"));
    bitcoind.call("sendrawtransaction", &[&bitcoin::consensus::encode::serialize_hex(&payment)]);
    bitcoind.call("generatetoaddress", &["1", &miner_address]);

    let endpoint = format!("127.0.0.1:{}", bitcoind.rpc_port());
    let cookie = bitcoind.cookie_file();
    let to = DevKey::of("at last", Network::Regtest).address().to_string();
    let arguments = [
        "refund",
        "--to",
        &to,
        "--feerate",
        "3 sat/vB",
        "--bitcoind",
        &endpoint,
        "--credentials-file",
        cookie.to_str().unwrap(),
        "--broadcast",
        "--yes",
    ];
    let (_, error) = cli.fail(&arguments);
    assert!(error.contains("from Bitcoin block"), "{error}");

    // One block short of it is too early; the next may hold it.
    let blocks = (refund_delay - 2).to_string();
    bitcoind.call("generatetoaddress", &[&blocks, &miner_address]);
    let (_, error) = cli.fail(&arguments);
    assert!(error.contains("from Bitcoin block"), "{error}");
    bitcoind.call("generatetoaddress", &["1", &miner_address]);
    let refund = cli.json(&arguments);
    assert_eq!(refund["sent"], true);
    let waiting: Vec<String> = serde_json::from_value(bitcoind.call("getrawmempool", &[])).unwrap();
    assert_eq!(waiting, [refund["txid"].as_str().unwrap()]);
    bitcoind.call("generatetoaddress", &["1", &miner_address]);
    let coin = bitcoind.call("gettxout", &[refund["txid"].as_str().unwrap(), "0"]);
    let got = Amount::from_btc(coin["value"].as_f64().unwrap()).unwrap();
    assert_eq!(coin["scriptPubKey"]["address"], to);
    assert_eq!(got.to_sat(), refund["amount_sat"].as_u64().unwrap());
    assert_eq!(got.to_sat() + refund["fee_sat"].as_u64().unwrap(), paid.to_sat());
    let (_, error) = cli.fail(&arguments);
    assert!(error.contains("no coin"), "{error}");
}

/// The output of the coinbase at a height.
fn coinbase_of(bitcoind: &Bitcoind, height: u32) -> Coin {
    let hash = bitcoind.call("getblockhash", &[&height.to_string()]);
    let block: Value = bitcoind.call("getblock", &[hash.as_str().unwrap()]);
    let txid = block["tx"][0].as_str().unwrap().parse().unwrap();
    let outpoint = bitcoin::OutPoint { txid, vout: 0 };
    Coin { outpoint, value: Amount::from_sat(50 * 100_000_000) }
}
