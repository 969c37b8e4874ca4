//! A devnet with its peg: real nodes, members and a Bitcoin Core on regtest, which a test kills and starts one by one.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bitcoin::address::NetworkUnchecked;
use bitcoin::{Address, Amount, Network, OutPoint, TxOut, Txid};
use causeway_chainspec::ChainSpec;
use causeway_node::devnet::client::{Credit, DepositAddress, Federation, PegOut, PegOutAddress, Reserves};
use causeway_node::devnet::key::DevKey;
use causeway_node::devnet::miner::Miner;
use causeway_node::devnet::purse::Purse;
use causeway_node::devnet::{Daemon, DevNode, Devnet, DevnetError, Process, Shape};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::bitcoind::{cli_call, program as core_program};
use crate::nodes::{config, program};

/// How long anything may take before a test gives up: a signing session tries several paths, each with its deadline.
const DEADLINE: Duration = Duration::from_secs(150);

/// How often something is looked for.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// What a new network has on Causeway, through a deposit.
pub const ENDOWMENT: Amount = Amount::from_sat(50 * 100_000_000);

/// A devnet of four validators, a full node, and the members of the chain's federation. All that runs is killed when this is
/// dropped.
pub struct PegNetwork {
    /// What it looks like.
    pub devnet: Devnet,
    /// Who mines its Bitcoin.
    pub miner: Miner,
    members: Vec<Option<Daemon>>,
    nodes: Vec<Option<Process>>,
    core: Option<Daemon>,
    core_program: PathBuf,
    core_cli: PathBuf,
    deposits: Vec<Address>,
    directory: TempDir,
}

impl PegNetwork {
    /// Makes and starts a network, and gives it its first coins.
    ///
    /// # Panics
    /// If something does not start, or the deposit is not credited.
    pub fn start() -> Self {
        let spec = ChainSpec::built_in("devnet").expect("built in");
        let validators = (0..).take(spec.validators().len()).collect();
        let shape = Shape { spec, validators, full_nodes: 1, config: config() };
        let directory = TempDir::new().expect("a temporary directory");
        let devnet = Devnet::create_with_peg(directory.path(), &shape, Some(&program()));
        let devnet = devnet.unwrap_or_else(|error| panic!("{error}"));
        let miner = Miner::new(bitcoin_of(&devnet)).expect("a thread");
        let mut network = Self {
            members: devnet.members.iter().map(|_| None).collect(),
            nodes: devnet.nodes.iter().map(|_| None).collect(),
            core: None,
            core_program: core_program(&[]),
            core_cli: core_program(&["--cli"]),
            deposits: Vec::new(),
            devnet,
            miner,
            directory,
        };
        network.start_bitcoind();
        network.miner.prepare().expect("first blocks");
        network.start_nodes();
        network.start_members(0..network.members.len());
        let deposit = network.deposit(ENDOWMENT);
        network.mine(3);
        network.wait_credit(deposit);
        network
    }

    /// Starts bitcoind, and waits until it answers.
    ///
    /// # Panics
    /// If it does not.
    pub fn start_bitcoind(&mut self) {
        let daemon = bitcoin_of(&self.devnet).start(&program(), &self.core_program);
        let mut daemon = daemon.unwrap_or_else(|error| panic!("{error}"));
        self.miner.wait_ready(&mut daemon, DEADLINE).unwrap_or_else(|error| panic!("{error}"));
        self.core = Some(daemon);
    }

    /// Kills bitcoind (SIGKILL).
    pub fn kill_bitcoind(&mut self) {
        self.core = None;
    }

    fn start_nodes(&mut self) {
        for (node, process) in self.devnet.nodes.iter().zip(&mut self.nodes) {
            *process = Some(Process::start(&program(), node).expect("the program starts"));
        }
        for process in self.nodes.iter_mut().flatten() {
            process.wait_ready(DEADLINE).unwrap_or_else(|error| panic!("{error}"));
        }
    }

    /// Starts members, and waits until they answer their operators.
    ///
    /// # Panics
    /// If one does not.
    pub fn start_members(&mut self, members: impl IntoIterator<Item = usize>) {
        let members: Vec<usize> = members.into_iter().collect();
        for index in &members {
            let daemon = self.devnet.members[*index].start(&program());
            self.members[*index] = Some(daemon.unwrap_or_else(|error| panic!("{error}")));
        }
        for index in members {
            let daemon = self.members[index].as_mut().expect("it was started");
            let ready = self.devnet.members[index].wait_ready(daemon, DEADLINE);
            ready.unwrap_or_else(|error| panic!("{error}"));
        }
    }

    /// Kills members (SIGKILL).
    pub fn kill_members(&mut self, members: impl IntoIterator<Item = usize>) {
        members.into_iter().for_each(|index| self.members[index] = None);
    }

    /// What a member tells its operator, as JSON.
    ///
    /// # Panics
    /// If it tells nothing.
    pub fn member_status(&self, index: usize) -> Value {
        let mut command = Command::new(program().with_file_name("causeway-federation"));
        command.args(["status", "--json", "--home"]).arg(&self.devnet.members[index].home).stdin(Stdio::null());
        let output = command.output().expect("the program starts");
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("member {index}: {error}: {text}"))
    }

    /// Waits until every running member has a connection to all others that run, and to no other.
    pub fn wait_connected(&mut self) {
        let alive: Vec<usize> = (0..self.members.len()).filter(|index| self.members[*index].is_some()).collect();
        self.wait("the members' connections", |network| {
            let connected = |index: &usize| {
                let status = network.member_status(*index);
                let peers = status["peers"].as_array().cloned().unwrap_or_default();
                status["running"] == true
                    && peers.iter().filter(|peer| peer["connected"] == true).count() == alive.len() - 1
            };
            alive.iter().all(connected).then_some(())
        });
    }

    /// The node that clients ask.
    pub fn node(&self) -> &DevNode {
        self.devnet.client_node()
    }

    /// The JSON of a path of that node.
    ///
    /// # Panics
    /// If there is none.
    pub fn json(&self, path: &str) -> Value {
        self.node().json(path).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Why the peg is frozen, at every node.
    pub fn frozen(&self) -> Vec<Option<String>> {
        let of = |node: &DevNode| {
            let status: Value = node.json("/v1/status").unwrap_or_else(|error| panic!("{error}"));
            status["peg"]["frozen"].as_str().map(str::to_owned)
        };
        self.devnet.nodes.iter().map(of).collect()
    }

    /// Waits until Causeway knows Bitcoin's last block.
    pub fn wait_followed(&mut self) {
        let tip = self.bitcoin("getbestblockhash", &[]);
        self.wait("Bitcoin's last block on Causeway", |network| {
            let at = |node: &DevNode| node.json::<Value>("/v1/status").is_ok_and(|it| it["peg"]["bitcoin_hash"] == tip);
            network.devnet.nodes.iter().all(at).then_some(())
        });
    }

    /// Waits until something is there.
    ///
    /// # Panics
    /// If that takes too long or a process has ended, with the last lines of every log.
    pub fn wait<T>(&mut self, what: &str, mut ask: impl FnMut(&Self) -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(answer) = ask(self) {
                return answer;
            }
            let checked = self.core.iter_mut().chain(self.members.iter_mut().flatten()).try_for_each(Daemon::check);
            let checked = checked.and_then(|()| self.nodes.iter_mut().flatten().try_for_each(Process::check));
            checked.unwrap_or_else(|error| panic!("waiting for {what}: {error}"));
            assert!(started.elapsed() < DEADLINE, "waited too long for {what}\n{}", self.logs());
            std::thread::sleep(ASK_EVERY);
        }
    }

    /// The end of every log.
    pub fn logs(&self) -> String {
        let nodes = self.devnet.nodes.iter().map(|node| (&node.name, &node.log));
        let members = self.devnet.members.iter().map(|member| (&member.name, &member.log));
        let log = |(name, path): (&String, &PathBuf)| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!("--- {name}\n{}\n", lines[lines.len().saturating_sub(15)..].join("\n"))
        };
        nodes.chain(members).map(log).collect()
    }

    /// Calls bitcoind.
    ///
    /// # Panics
    /// If the call fails.
    pub fn bitcoin(&self, method: &str, arguments: &[&str]) -> Value {
        let bitcoin = bitcoin_of(&self.devnet);
        let (_, port) = bitcoin.rpc.rsplit_once(':').expect("it has a port");
        let port = port.parse().expect("a port is a number");
        let answer = cli_call(&self.core_cli, &bitcoin.directory, port, method, arguments);
        answer.unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// Mines blocks that hold what waits.
    ///
    /// # Panics
    /// If bitcoind refuses.
    pub fn mine(&self, blocks: u32) {
        self.miner.mine(blocks).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Takes back the last blocks of Bitcoin, and mines so many others that hold nothing but their coinbase.
    ///
    /// # Panics
    /// If bitcoind refuses.
    pub fn reorganise(&self, depth: u64, blocks: u32) {
        let height = self.bitcoin("getblockcount", &[]).as_u64().expect("a number");
        let first = self.bitcoin("getblockhash", &[&(height + 1 - depth).to_string()]);
        self.bitcoin("invalidateblock", &[first.as_str().expect("a hash")]);
        let address = payee("another branch").to_string();
        for _ in 0..blocks {
            self.bitcoin("generateblock", &[&address, "[]"]);
        }
    }

    /// Transactions that wait at bitcoind.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn waiting(&self) -> Vec<Txid> {
        let txids = self.bitcoin("getrawmempool", &[]);
        serde_json::from_value(txids).expect("txids")
    }

    /// Pays this to a deposit address on Bitcoin, where it waits for a block.
    ///
    /// # Panics
    /// If there is no deposit address, or bitcoind refuses the payment.
    pub fn deposit(&mut self, amount: Amount) -> OutPoint {
        let refund = DevKey::of("refund", Network::Regtest).x_only().to_string();
        let body = json!({ "destination": self.devnet.funds.address, "refund_key": refund });
        let address: DepositAddress =
            self.wait("a deposit address", |network| match network.node().post("/v1/peg-in/address", &body) {
                Ok(address) => Some(address),
                Err(DevnetError::Answer { status: 503, .. }) => None,
                Err(error) => panic!("{error}"),
            });
        let address = regtest(&address.address);
        let outpoint = self.miner.pay(&address, amount).unwrap_or_else(|error| panic!("{error}"));
        self.deposits.push(address);
        outpoint
    }

    /// Waits until a deposit has so many confirmations.
    pub fn wait_confirmations(&mut self, deposit: OutPoint, confirmations: u32) {
        self.wait("a confirmation of the deposit", |network| {
            let peg_in = network.node().peg_in(deposit).unwrap_or_else(|error| panic!("{error}"))?;
            assert!(peg_in.credit.is_none(), "it is credited early");
            (peg_in.confirmations? == confirmations).then_some(())
        });
    }

    /// Waits until a deposit is credited.
    pub fn wait_credit(&mut self, deposit: OutPoint) -> Credit {
        self.wait("the credit", |network| {
            network.node().peg_in(deposit).unwrap_or_else(|error| panic!("{error}"))?.credit
        })
    }

    /// Pays on Causeway, and waits until that is final.
    ///
    /// # Errors
    /// The node's reason, if it refuses the payment.
    ///
    /// # Panics
    /// If it does not become final.
    pub fn pay(&self, address: &Address, value: Amount) -> Result<Txid, String> {
        let mut purse = Purse::open(self.directory(), &self.devnet).unwrap_or_else(|error| panic!("{error}"));
        let txid = match purse.pay(&[TxOut { value, script_pubkey: address.script_pubkey() }]) {
            Ok(txid) => txid,
            Err(DevnetError::Refused { answer, .. }) => return Err(answer),
            Err(error) => panic!("{error}"),
        };
        self.node().wait_final(txid).unwrap_or_else(|error| panic!("{error}\n{}", self.logs()));
        Ok(txid)
    }

    /// Asks for a payment on Bitcoin, and waits until the request is final.
    ///
    /// # Errors
    /// The node's reason, if it refuses the request.
    pub fn request(&self, payee: &Address, value: Amount) -> Result<OutPoint, String> {
        let address: PegOutAddress =
            self.node().json(&format!("/v1/peg-out/address/{payee}")).unwrap_or_else(|error| panic!("{error}"));
        Ok(OutPoint { txid: self.pay(&regtest(&address.address), value)?, vout: 0 })
    }

    /// What became of a request.
    ///
    /// # Panics
    /// If the node does not know it.
    pub fn peg_out(&self, request: OutPoint) -> PegOut {
        let peg_out = self.node().peg_out(request).unwrap_or_else(|error| panic!("{error}"));
        peg_out.unwrap_or_else(|| panic!("the request {request} is known"))
    }

    /// Waits until a request has a batch.
    pub fn wait_batch(&mut self, request: OutPoint) -> u32 {
        self.wait("a batch", |network| network.peg_out(request).batch)
    }

    /// Waits until a version of the request's batch is signed, and waits at bitcoind.
    pub fn wait_signed(&mut self, request: OutPoint) -> Txid {
        self.wait("the members' signatures", |network| {
            let versions = network.peg_out(request).versions;
            network.waiting().into_iter().find(|txid| versions.contains(txid))
        })
    }

    /// Waits until the request's payout has so many confirmations, below the number that closes it.
    pub fn wait_paid(&mut self, request: OutPoint, confirmations: u32) {
        self.wait("a confirmation of the payout", |network| {
            (network.peg_out(request).confirmations == Some(confirmations)).then_some(())
        });
    }

    /// Waits until the request's batch is closed, and checks what Bitcoin has of it: one coin of the payee.
    ///
    /// # Panics
    /// If the payee was not paid exactly once.
    pub fn wait_closed(&mut self, request: OutPoint, payee: &Address) {
        let closed = self.wait("the end of the batch", |network| {
            Some(network.peg_out(request)).filter(|peg_out| peg_out.state == "confirmed")
        });
        let found = self.coins(payee);
        let outpoint = OutPoint { txid: closed.txid.expect("it has one"), vout: closed.vout.expect("it has one") };
        assert_eq!(found, [(outpoint, closed.payout.expect("it has one"))], "{payee} is paid once");
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

    /// The accounts of every node: each adds up.
    ///
    /// # Panics
    /// If one does not.
    pub fn accounts(&self) -> Vec<Reserves> {
        let of = |node: &DevNode| {
            let reserves: Reserves = node.json("/v1/reserves").unwrap_or_else(|error| panic!("{error}"));
            assert_eq!((reserves.difference, reserves.reckon()), (0, 0), "{}: {reserves:?}", node.name);
            reserves
        };
        self.devnet.nodes.iter().map(of).collect()
    }

    /// Checks that the accounts add up, that Bitcoin has what is locked (nothing may be open), and that payments go on.
    ///
    /// # Panics
    /// If not.
    pub fn audit(&mut self) {
        let federation: Federation = self.node().json("/v1/federation").unwrap_or_else(|error| panic!("{error}"));
        let main = federation.epochs.iter().map(|epoch| regtest(&epoch.main_address));
        let addresses: Vec<Address> = main.chain(self.deposits.iter().cloned()).collect();
        self.wait("as much on Bitcoin as the accounts say", |network| {
            let mut distinct = addresses.clone();
            distinct.sort();
            distinct.dedup();
            let found: u64 = distinct.iter().flat_map(|address| network.coins(address)).map(|(_, value)| value).sum();
            network.accounts().iter().all(|reserves| reserves.locked == found).then_some(())
        });
        let paid = self.pay(&payee("shop"), Amount::from_sat(100_000));
        paid.unwrap_or_else(|reason| panic!("a payment is refused: {reason}"));
    }

    /// Where everything is.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// The address of somebody on Bitcoin, and on Causeway.
pub fn payee(role: &str) -> Address {
    DevKey::of(role, Network::Regtest).address()
}

fn regtest(text: &str) -> Address {
    let address: Address<NetworkUnchecked> = text.parse().expect("an address");
    address.require_network(Network::Regtest).expect("an address of regtest")
}

fn bitcoin_of(devnet: &Devnet) -> &causeway_node::devnet::DevBitcoin {
    devnet.bitcoin().expect("it was made with one")
}
