//! Bitcoin under a devnet: blocks, forks, mempools, and a second bitcoind that is told of the first.

use bitcoin::{Address, Amount, OutPoint, Txid};
use causeway_node::devnet::DevNode;
use serde_json::{Value, json};

use super::{PegNetwork, bitcoin_of, payee};
use crate::bitcoind::{Bitcoind, cli_call};

impl PegNetwork {
    /// Calls bitcoind.
    ///
    /// # Panics
    /// If the call fails.
    pub fn bitcoin(&self, method: &str, arguments: &[&str]) -> Value {
        self.try_bitcoin(method, arguments).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// Calls bitcoind, and returns its answer, or what it says went wrong.
    pub fn try_bitcoin(&self, method: &str, arguments: &[&str]) -> Result<Value, String> {
        let bitcoin = bitcoin_of(&self.devnet);
        let (_, port) = bitcoin.rpc.rsplit_once(':').expect("it has a port");
        let port = port.parse().expect("a port is a number");
        cli_call(&self.core_cli, &bitcoin.directory, port, method, arguments)
    }

    /// Waits until Causeway knows Bitcoin's last block, at every node.
    pub fn wait_followed(&mut self) {
        let tip = self.bitcoin("getbestblockhash", &[]);
        self.wait("Bitcoin's last block on Causeway", |network| {
            let at = |node: &DevNode| node.json::<Value>("/v1/status").is_ok_and(|it| it["peg"]["bitcoin_hash"] == tip);
            network.devnet.nodes.iter().all(at).then_some(())
        });
    }

    /// Mines blocks that hold what waits.
    ///
    /// # Panics
    /// If bitcoind refuses.
    pub fn mine(&self, blocks: u32) {
        self.miner.mine(blocks).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Mines blocks that hold nothing but their coinbase, whatever waits.
    ///
    /// # Panics
    /// If bitcoind refuses.
    pub fn mine_empty(&self, blocks: u32) {
        let address = payee("empty blocks").to_string();
        for _ in 0..blocks {
            self.bitcoin("generateblock", &[&address, "[]"]);
        }
    }

    /// Takes back the last blocks of Bitcoin, and mines so many others that hold nothing but their coinbase.
    ///
    /// # Panics
    /// If bitcoind refuses.
    pub fn reorganise(&self, depth: u64, blocks: u32) {
        let height = self.bitcoin("getblockcount", &[]).as_u64().expect("a number");
        let first = self.bitcoin("getblockhash", &[&(height + 1 - depth).to_string()]);
        self.bitcoin("invalidateblock", &[first.as_str().expect("a hash")]);
        self.mine_empty(blocks);
    }

    /// Transactions that wait at bitcoind.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn waiting(&self) -> Vec<Txid> {
        let txids = self.bitcoin("getrawmempool", &[]);
        serde_json::from_value(txids).expect("txids")
    }

    /// The coins of an address in Bitcoin's blocks: outpoint and satoshi.
    ///
    /// # Panics
    /// If bitcoind does not answer as it should.
    pub fn coins(&self, address: &Address) -> Vec<(OutPoint, u64)> {
        let what = json!([format!("addr({address})")]).to_string();
        let found = self.bitcoin("scantxoutset", &["start", &what]);
        let coin = |coin: &Value| {
            let txid: Txid = serde_json::from_value(coin["txid"].clone()).expect("a txid");
            let vout = serde_json::from_value(coin["vout"].clone()).expect("a number");
            let amount = Amount::from_btc(coin["amount"].as_f64().expect("a number")).expect("an amount");
            (OutPoint { txid, vout }, amount.to_sat())
        };
        found["unspents"].as_array().expect("coins").iter().map(coin).collect()
    }

    /// The second bitcoind.
    ///
    /// # Panics
    /// If the plan has none.
    pub fn second(&self) -> &Bitcoind {
        &self.second.as_ref().expect("the plan has a second bitcoind").0
    }

    /// Connects the two bitcoinds, and waits until both have one best block.
    pub fn connect_second(&mut self) {
        let port = self.second.as_ref().expect("the plan has a second bitcoind").1;
        self.second().call("setnetworkactive", &["true"]);
        // A peer that was cut off may still be on the list for a moment.
        self.wait("one best block of both bitcoinds", |network| {
            let peers = network.second().call("getconnectioncount", &[]);
            if peers == 0 {
                let _ = network.try_bitcoin("addnode", &[&format!("127.0.0.1:{port}"), "onetry"]);
            }
            let best = network.bitcoin("getbestblockhash", &[]);
            (network.second().call("getbestblockhash", &[]) == best).then_some(())
        });
    }

    /// Cuts the second bitcoind off: it hears and says nothing.
    pub fn cut_second(&mut self) {
        self.second().call("setnetworkactive", &["false"]);
        self.wait("the end of the connection of both bitcoinds", |network| {
            let alone = |peers: Value| (peers == 0).then_some(());
            alone(network.second().call("getconnectioncount", &[]))?;
            alone(network.bitcoin("getconnectioncount", &[]))
        });
    }

    /// Hands the blocks of the best chain to the second bitcoind, and nothing else.
    ///
    /// # Panics
    /// If it does not take them.
    pub fn feed_second(&self) {
        hand_over(&|method, arguments| self.try_bitcoin(method, arguments), &|method, arguments| {
            self.second().try_call(method, arguments)
        });
    }

    /// Hands the blocks of the second bitcoind's best chain to the first, and nothing else.
    ///
    /// # Panics
    /// If it does not take them.
    pub fn feed_first(&self) {
        hand_over(&|method, arguments| self.second().try_call(method, arguments), &|method, arguments| {
            self.try_bitcoin(method, arguments)
        });
    }
}

type Call<'a> = dyn Fn(&str, &[&str]) -> Result<Value, String> + 'a;

/// Hands over the blocks of a best chain that the other bitcoind lacks.
fn hand_over(from: &Call, to: &Call) {
    let text = |value: Value| value.as_str().expect("hex").to_owned();
    let must = |answer: Result<Value, String>| answer.unwrap_or_else(|error| panic!("{error}"));
    let mut hash = text(must(from("getbestblockhash", &[])));
    let mut blocks = Vec::new();
    while to("getblock", &[&hash, "0"]).is_err() {
        blocks.push(text(must(from("getblock", &[&hash, "0"]))));
        hash = text(must(from("getblockheader", &[&hash]))["previousblockhash"].take());
    }
    for block in blocks.iter().rev() {
        let refused = must(to("submitblock", &[block]));
        assert!(refused == "" || refused == "inconclusive", "{refused}");
    }
}
