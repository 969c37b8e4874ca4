//! A network of real node processes on loopback, driven through REST.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bitcoin::address::NetworkUnchecked;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Address, Amount, OutPoint, Transaction, Txid};
use causeway_chainspec::{ChainSpec, devnet};
use causeway_node::ask::{BaseUrl, Bounds};
use causeway_node::config::Config;
use causeway_node::devnet::bitcoind::VARIABLE;
use causeway_node::devnet::client::{Credit, DepositAddress};
use causeway_node::devnet::miner::Miner;
use causeway_node::devnet::{Daemon, DevBitcoin, DevNode, Devnet, DevnetError, Process, Shape, get};
use causeway_node::home::Home;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::bitcoind::program as core_program;
use crate::lines::Lines;
use crate::wallet::{Kind, Owner, Spendable, output, spend};

/// How long anything may take before a test gives up.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// What [`Nodes::fund`] deposits.
const FUNDS: Amount = Amount::from_int_btc(500);

/// The nodes of a devnet, some of them running.
pub struct Nodes {
    /// What they look like.
    pub devnet: Devnet,
    /// Their chain.
    pub spec: ChainSpec,
    running: Vec<Option<Process>>,
    bitcoin: Option<Bitcoin>,
    _directory: TempDir,
}

/// The Bitcoin of a network, and who mines it.
struct Bitcoin {
    miner: Miner,
    _daemon: Daemon,
}

impl Bitcoin {
    /// Starts it, and mines its first blocks.
    fn start(bitcoin: &DevBitcoin) -> Result<Self, DevnetError> {
        let miner = Miner::new(bitcoin)?;
        let core = std::env::var_os(VARIABLE).map_or_else(|| core_program(&[]), PathBuf::from);
        let mut daemon = bitcoin.start(&program(), &core)?;
        miner.wait_ready(&mut daemon, DEADLINE)?;
        miner.prepare()?;
        Ok(Self { miner, _daemon: daemon })
    }
}

/// The program under test, which is built with the tests.
///
/// # Panics
/// If it is not there.
pub fn program() -> PathBuf {
    let this = std::env::current_exe().expect("a program has a path");
    // Programs lie in release, tests in release/deps.
    let built =
        this.ancestors().skip(1).take(2).map(|directory| directory.join("causeway")).find(|path| path.is_file());
    built.expect("the program causeway is not there: build the workspace first")
}

/// The built-in devnet with this many validators of equal power, and so long between two blocks.
///
/// # Panics
/// If the chainspec refuses it.
pub fn spec(validators: u32, block_interval_ms: u32) -> ChainSpec {
    let mut parts = ChainSpec::built_in("devnet").expect("built in").to_parts();
    let key = |index| devnet::secret_key(devnet::VALIDATOR, index).x_only_public_key(bitcoin::secp256k1::SECP256K1).0;
    parts.validators =
        (0..validators).map(|index| causeway_chainspec::Validator { key: key(index), power: 1 }).collect();
    parts.params.block_interval_ms = block_interval_ms;
    ChainSpec::new(parts).expect("a right chainspec")
}

/// Settings for a small and fast network.
pub fn config() -> Config {
    let mut config = Config::default();
    config.p2p.max_connections_per_address = 64;
    config.consensus.propose_ms = 1_000;
    config.consensus.prevote_ms = 400;
    config.consensus.precommit_ms = 400;
    config.store.coin_cache_mb = 16;
    config.store.block_cache_mb = 8;
    config.store.write_buffer_mb = 8;
    config
}

impl Nodes {
    /// Makes the homes of a network without a Bitcoin, and starts nothing.
    ///
    /// # Panics
    /// If the homes cannot be made.
    pub fn create(spec: ChainSpec, full_nodes: u32) -> Self {
        Self::create_by(spec, full_nodes, config(), Devnet::create)
    }

    /// Makes the homes of a network whose nodes have these settings and follow a Bitcoin Core on regtest, and starts that
    /// alone.
    ///
    /// # Panics
    /// If the homes cannot be made, or bitcoind does not start.
    pub fn create_with_bitcoin(spec: ChainSpec, full_nodes: u32, config: Config) -> Self {
        let create = |directory: &Path, shape: &Shape| Devnet::create_with_peg(directory, shape, None);
        let mut nodes = Self::create_by(spec, full_nodes, config, create);
        let bitcoin = nodes.devnet.bitcoin().and_then(Bitcoin::start);
        nodes.bitcoin = Some(bitcoin.unwrap_or_else(|error| panic!("{error}")));
        nodes
    }

    fn create_by(
        spec: ChainSpec,
        full_nodes: u32,
        config: Config,
        create: impl FnOnce(&Path, &Shape) -> Result<Devnet, DevnetError>,
    ) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let validators = (0..u32::try_from(spec.validators().len()).expect("few")).collect();
        let shape = Shape { spec: spec.clone(), validators, full_nodes, config };
        let devnet = create(&directory.path().join("devnet"), &shape).expect("homes can be made");
        let running = devnet.nodes.iter().map(|_| None).collect();
        Self { devnet, spec, running, bitcoin: None, _directory: directory }
    }

    /// Puts every node behind a line of its own, before any is started. Pairs of nodes that `may_connect` reach each other
    /// through the relays on their lines, and nobody else.
    ///
    /// # Panics
    /// If a home cannot be written.
    pub fn put_behind(&self, lines: &Lines, may_connect: impl Fn(usize, usize) -> bool) {
        let nodes = &self.devnet.nodes;
        for (from, node) in nodes.iter().enumerate() {
            let path = Home::at(&node.home).config();
            let mut config = Config::load(&path).expect("the home was just made");
            config.p2p.persistent_peers.clear();
            config.p2p.only = (0..nodes.len())
                .filter(|to| *to != from && may_connect(from, *to))
                .map(|to| {
                    let (port, peer) = port_and_peer(&nodes[to].p2p);
                    let relay = lines.relay(from, to, (Ipv4Addr::LOCALHOST, port).into());
                    Multiaddr::from(Ipv4Addr::LOCALHOST).with(Protocol::Tcp(relay.port())).with(peer)
                })
                .collect();
            std::fs::write(&path, config.to_toml()).expect("the home is ours");
        }
    }

    /// Where the homes are.
    pub fn directory(&self) -> &Path {
        self._directory.path()
    }

    /// Starts nodes, and waits until they answer.
    ///
    /// # Panics
    /// If one does not.
    pub fn start(&mut self, nodes: impl IntoIterator<Item = usize>) {
        self.start_with(nodes, &[]);
    }

    /// Starts nodes with more arguments, and waits until they answer.
    ///
    /// # Panics
    /// If one does not.
    pub fn start_with(&mut self, nodes: impl IntoIterator<Item = usize>, arguments: &[&str]) {
        let nodes: Vec<usize> = nodes.into_iter().collect();
        for index in &nodes {
            let process =
                Process::start_with(&program(), &self.devnet.nodes[*index], arguments).expect("the program starts");
            self.running[*index] = Some(process);
        }
        for index in nodes {
            let process = self.running[index].as_mut().expect("it was started");
            process.wait_ready(DEADLINE).unwrap_or_else(|error| panic!("{error}"));
        }
    }

    /// Starts all.
    pub fn start_all(&mut self) {
        self.start(0..self.running.len());
    }

    /// Kills nodes at once (SIGKILL).
    pub fn kill(&mut self, nodes: impl IntoIterator<Item = usize>) {
        let processes: Vec<Process> = nodes.into_iter().filter_map(|index| self.running[index].take()).collect();
        processes.into_iter().for_each(Process::kill);
    }

    /// Stops nodes as an operator does (SIGTERM).
    ///
    /// # Panics
    /// If one does not stop well.
    pub fn stop(&mut self, nodes: impl IntoIterator<Item = usize>) {
        let processes: Vec<Process> = nodes.into_iter().filter_map(|index| self.running[index].take()).collect();
        processes.iter().for_each(Process::terminate);
        for process in processes {
            let name = process.node.name.clone();
            assert!(process.wait(), "{name} does not stop well");
        }
    }

    /// The process of a running node.
    pub fn process(&self, index: usize) -> Option<&Process> {
        self.running[index].as_ref()
    }

    /// A node.
    pub fn node(&self, index: usize) -> &DevNode {
        &self.devnet.nodes[index]
    }

    /// The nodes that run.
    pub fn alive(&self) -> Vec<usize> {
        (0..self.running.len()).filter(|index| self.running[*index].is_some()).collect()
    }

    /// The body of `GET path` with status 200 at a node.
    pub fn get(&self, index: usize, path: &str) -> Option<String> {
        get(&self.node(index).rest, path)
    }

    /// The JSON of `GET path` at a node.
    ///
    /// # Panics
    /// If there is none.
    pub fn json(&self, index: usize, path: &str) -> Value {
        let body = self.get(index, path).unwrap_or_else(|| panic!("{} answers {path}", self.node(index).name));
        serde_json::from_str(&body).expect("JSON")
    }

    /// The height of a node's tip.
    pub fn height(&self, index: usize) -> Option<u32> {
        self.get(index, "/blocks/tip/height")?.parse().ok()
    }

    /// The id of a node's block at a height.
    pub fn hash(&self, index: usize, height: u32) -> Option<String> {
        self.get(index, &format!("/block-height/{height}"))
    }

    /// Waits until something is true.
    ///
    /// # Panics
    /// If that takes too long, with the last lines of every log.
    pub fn wait(&mut self, what: &str, mut is: impl FnMut(&Self) -> bool) {
        self.wait_some(what, |nodes| is(nodes).then_some(()));
    }

    fn wait_some<T>(&mut self, what: &str, mut ask: impl FnMut(&Self) -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(answer) = ask(self) {
                return answer;
            }
            for process in self.running.iter_mut().flatten() {
                process.check().unwrap_or_else(|error| panic!("waiting for {what}: {error}"));
            }
            assert!(started.elapsed() < DEADLINE, "waited too long for {what}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until every running node has this height.
    pub fn wait_height(&mut self, height: u32) {
        let what = format!("height {height} at every node");
        self.wait(&what, |nodes| nodes.alive().iter().all(|index| nodes.height(*index).is_some_and(|it| it >= height)));
    }

    /// The highest tip.
    pub fn best_height(&self) -> u32 {
        self.alive().iter().filter_map(|index| self.height(*index)).max().unwrap_or(0)
    }

    /// Checks that all running nodes have the same blocks up to a height that all of them have.
    ///
    /// # Panics
    /// If two differ.
    pub fn assert_one_chain(&self, from: u32, to: u32) {
        for height in from..=to {
            let hashes: BTreeSet<_> = self.alive().iter().map(|index| self.hash(*index, height)).collect();
            assert_eq!(hashes.len(), 1, "two blocks at height {height}: {hashes:?}");
            assert!(!hashes.contains(&None), "no block at height {height}");
        }
    }

    /// The end of every node's log.
    pub fn logs(&self) -> String {
        let log = |node: &DevNode| {
            let text = std::fs::read_to_string(&node.log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let last = lines[lines.len().saturating_sub(25)..].join("\n");
            format!("--- {}\n{last}\n", node.name)
        };
        self.devnet.nodes.iter().map(log).collect()
    }

    /// Hands in a transaction at a node.
    ///
    /// # Errors
    /// The node's answer, if it does not take it.
    ///
    /// # Panics
    /// If the node does not answer.
    pub fn submit(&self, index: usize, transaction: &Transaction) -> Result<Txid, String> {
        let base: BaseUrl = self.node(index).rest.parse().expect("the node's URL");
        let answer = base.post("/tx", "text/plain", serialize_hex(transaction), Bounds::within(1 << 20, 30));
        let answer = answer.expect("the node answers");
        let status = answer.status();
        let body = String::from_utf8(answer.bytes().expect("an answer")).expect("text");
        if status == 200 { Ok(body.parse().expect("a txid")) } else { Err(body) }
    }

    /// Waits until a transaction is final at every running node.
    pub fn wait_final(&mut self, txid: Txid) {
        let path = format!("/tx/{txid}/status");
        self.wait(&format!("transaction {txid} to be final"), |nodes| {
            let confirmed = |index: &usize| {
                let status: Option<Value> = nodes.get(*index, &path).and_then(|body| serde_json::from_str(&body).ok());
                status.is_some_and(|status| status["confirmed"] == true)
            };
            nodes.alive().iter().all(confirmed)
        });
    }

    /// Deposits bitcoins, and returns the coin of the devnet's funds that they become, at every running node. For networks
    /// of [`Nodes::create_with_bitcoin`].
    ///
    /// # Panics
    /// If there is no Bitcoin, or no credit.
    pub fn fund(&mut self) -> Spendable {
        let node = self.node(self.alive()[0]).clone();
        let secret = devnet::secret_key(devnet::FUNDS, 0);
        let owner = Owner::of_key(&secret);
        let refund_key = owner.keypair().x_only_public_key().0.to_string();
        let body = json!({ "destination": self.devnet.funds.address, "refund_key": refund_key });
        // A node that has just started follows Bitcoin a moment later.
        let address: DepositAddress =
            self.wait_some("a deposit address", |_| match node.post("/v1/peg-in/address", &body) {
                Ok(address) => Some(address),
                Err(DevnetError::Answer { status: 503, .. }) => None,
                Err(error) => panic!("{error}"),
            });
        let address: Address<NetworkUnchecked> = address.address.parse().expect("an address");
        let miner = &self.bitcoin.as_ref().expect("the network was made with a Bitcoin").miner;
        let deposit = miner.pay(&address.assume_checked(), FUNDS).unwrap_or_else(|error| panic!("{error}"));
        miner.mine(self.spec.params().final_depth).unwrap_or_else(|error| panic!("{error}"));
        let credit: Credit = self.wait_some("the credit", |_| {
            let peg_in = node.peg_in(deposit).unwrap_or_else(|error| panic!("{error}"));
            peg_in.and_then(|peg_in| peg_in.credit)
        });
        self.wait_height(credit.height);
        Spendable {
            outpoint: OutPoint { txid: credit.txid, vout: credit.vout },
            output: output(Amount::from_sat(credit.amount), owner.script_pubkey(Kind::P2wpkh)),
            owner,
            kind: Kind::P2wpkh,
        }
    }
}

/// The parts of a node's address.
fn port_and_peer(address: &Multiaddr) -> (u16, Protocol<'static>) {
    let parts: Vec<Protocol<'_>> = address.iter().collect();
    let [_, Protocol::Tcp(port), Protocol::P2p(peer)] = parts[..] else { panic!("{address} has another form") };
    (port, Protocol::P2p(peer))
}

/// Spends a coin to as many coins of an owner, of equal value, and pays this fee.
pub fn split(coin: &Spendable, owner: &Owner, kind: Kind, count: u64, fee: Amount) -> (Transaction, Vec<Spendable>) {
    let value = (coin.output.value - fee) / count;
    let outputs = (0..count).map(|_| output(value, owner.script_pubkey(kind))).collect();
    let transaction = spend(std::slice::from_ref(coin), outputs);
    let txid = transaction.compute_txid();
    let coins = (0u32..).zip(&transaction.output).map(|(vout, output)| Spendable {
        outpoint: OutPoint { txid, vout },
        output: output.clone(),
        owner: owner.clone(),
        kind,
    });
    let coins = coins.collect();
    (transaction, coins)
}

/// Runs the program until it ends, and returns whether it did well and the last line that it said.
///
/// # Panics
/// If it cannot be started, or does not end by itself.
pub fn run_to_end(arguments: &[&str]) -> (bool, String) {
    let mut child = std::process::Command::new(program())
        .args(arguments)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the program starts");
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("ours") {
            break status;
        }
        if started.elapsed() > DEADLINE {
            // It is ours, and has not ended.
            let _ = child.kill();
            panic!("causeway {} does not end", arguments.join(" "));
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let mut text = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().expect("piped"), &mut text).expect("text");
    (status.success(), text.lines().last().unwrap_or_default().to_owned())
}

/// Copies a directory with all that is in it.
///
/// # Panics
/// If it cannot be read, or the copy cannot be written.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a copy");
        }
    }
}
