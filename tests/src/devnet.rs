//! A devnet with its peg: real nodes, members and Bitcoin Cores on regtest, which a test kills and starts one by one.
//!
//! ```text
//! Plan -> PegNetwork   processes: start, kill, logs            (this file)
//! bitcoin              blocks, forks, mempools, a second bitcoind
//! money                deposits, payments, requests, and waiting for what becomes of them
//! audit                everything that was paid in or asked for, held against both chains
//! ```

mod audit;
mod bitcoin;
mod money;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ::bitcoin::address::NetworkUnchecked;
use ::bitcoin::{Address, Amount, Network};
use causeway_chainspec::ChainSpec;
use causeway_federation::bitcoind::Endpoint;
use causeway_node::config::Config;
use causeway_node::devnet::key::DevKey;
use causeway_node::devnet::miner::Miner;
use causeway_node::devnet::{Daemon, DevBitcoin, DevMember, DevNode, Devnet, Process, Shape};
use causeway_node::home::Home;
use serde_json::Value;
use tempfile::TempDir;

use crate::bitcoind::{Bitcoind, program as core_program};
use crate::nodes::{config, program};
use audit::Ledger;

/// How long anything may take before a test gives up: a signing session tries several paths, each with its deadline.
const DEADLINE: Duration = Duration::from_secs(150);

/// How often something is looked for.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// What a new network has on Causeway, through a deposit.
pub const ENDOWMENT: Amount = Amount::from_sat(50 * 100_000_000);

/// One network at a time, on two cores.
static ONE: Mutex<()> = Mutex::new(());

/// Whether the long matrices run: `CAUSEWAY_TEST_FULL`.
pub fn full() -> bool {
    std::env::var_os("CAUSEWAY_TEST_FULL").is_some()
}

/// How a network differs from the usual one, in which all processes share one bitcoind.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// A second bitcoind, which hears of the first only when a test says so.
    pub second_bitcoind: bool,
    /// Validators whose bitcoind is the second one.
    pub apart: Vec<usize>,
    /// A full node without Bitcoin stands before the one that clients ask.
    pub without_bitcoin: bool,
    /// Members that do not run as processes from the start.
    pub absent: Vec<usize>,
}

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
    second: Option<(Bitcoind, u16)>,
    core_program: PathBuf,
    core_cli: PathBuf,
    ledger: Ledger,
    directory: TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl PegNetwork {
    /// Makes and starts a network, and gives it its first coins. One runs at a time: others wait here.
    ///
    /// # Panics
    /// If something does not start, or the deposit is not credited.
    pub fn start() -> Self {
        Self::start_with(&Plan::default())
    }

    /// The same by a plan.
    ///
    /// # Panics
    /// If something does not start, or the deposit is not credited.
    pub fn start_with(plan: &Plan) -> Self {
        // Another test's failure is not this one's.
        let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let spec = ChainSpec::built_in("devnet").expect("built in");
        let validators: Vec<u32> = (0..).take(spec.validators().len()).collect();
        let first_full = validators.len();
        let full_nodes = if plan.without_bitcoin { 2 } else { 1 };
        let shape = Shape { spec, validators, full_nodes, config: config() };
        let directory = TempDir::new().expect("a temporary directory");
        let devnet = Devnet::create_with_peg(directory.path(), &shape, Some(&program()));
        let devnet = devnet.unwrap_or_else(|error| panic!("{error}"));
        let miner = Miner::new(bitcoin_of(&devnet)).expect("a thread");
        let mut network = Self {
            members: devnet.members.iter().map(|_| None).collect(),
            nodes: devnet.nodes.iter().map(|_| None).collect(),
            core: None,
            second: None,
            core_program: core_program(&[]),
            core_cli: core_program(&["--cli"]),
            ledger: Ledger::default(),
            devnet,
            miner,
            directory,
            _alone: alone,
        };
        network.start_bitcoind();
        network.miner.prepare().expect("first blocks");
        if plan.second_bitcoind {
            network.start_second();
        }
        for index in &plan.apart {
            network.move_apart(*index);
        }
        if plan.without_bitcoin {
            set_bitcoin(&network.devnet.nodes[first_full], |config| config.bitcoin = None);
        }
        network.start_nodes(0..network.nodes.len());
        network.start_members((0..network.members.len()).filter(|index| !plan.absent.contains(index)));
        let deposit = network.deposit(ENDOWMENT);
        network.mine(3);
        network.wait_credit(deposit);
        if plan.second_bitcoind {
            network.connect_second();
            network.cut_second();
        }
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

    /// Adds a line to bitcoind's settings, for its next start.
    ///
    /// # Panics
    /// If they cannot be written.
    pub fn set_bitcoind(&self, line: &str) {
        let path = bitcoin_of(&self.devnet).directory.join("bitcoin.conf");
        let text = std::fs::read_to_string(&path).expect("its settings");
        std::fs::write(&path, format!("{text}{line}\n")).expect("its settings");
    }

    fn start_second(&mut self) {
        self.second = Some(Bitcoind::start_listening());
        self.connect_second();
        self.cut_second();
    }

    /// Has a validator, before it starts, ask the second bitcoind.
    fn move_apart(&self, index: usize) {
        let (second, _) = self.second.as_ref().expect("the plan has a second bitcoind");
        set_bitcoin(&self.devnet.nodes[index], |config| {
            let bitcoin = config.bitcoin.as_mut().expect("it has a bitcoind");
            bitcoin.endpoints = vec![Endpoint::loopback(second.rpc_port())];
            bitcoin.cookie = second.cookie_file();
        });
    }

    /// Starts nodes, and waits until they answer.
    ///
    /// # Panics
    /// If one does not.
    pub fn start_nodes(&mut self, nodes: impl IntoIterator<Item = usize>) {
        let nodes: Vec<usize> = nodes.into_iter().collect();
        for index in &nodes {
            let process = Process::start(&program(), &self.devnet.nodes[*index]);
            self.nodes[*index] = Some(process.expect("the program starts"));
        }
        for index in nodes {
            let process = self.nodes[index].as_mut().expect("it was started");
            process.wait_ready(DEADLINE).unwrap_or_else(|error| panic!("{error}"));
        }
    }

    /// Kills nodes (SIGKILL): the validators come first, the node that clients ask is the last.
    pub fn kill_nodes(&mut self, nodes: impl IntoIterator<Item = usize>) {
        nodes.into_iter().for_each(|index| self.nodes[index] = None);
    }

    /// How many nodes there are.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
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

    /// Starts another program in a member's place, with the member's home as its only argument.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_instead(&mut self, index: usize, other: &Path) {
        let member = &self.devnet.members[index];
        let mut command = Command::new(program());
        command.arg("end-with-parent").arg(std::process::id().to_string()).arg(other).arg(&member.home);
        let daemon = Daemon::start(&member.name, &member.log, command);
        self.members[index] = Some(daemon.unwrap_or_else(|error| panic!("{error}")));
    }

    /// Kills members (SIGKILL).
    pub fn kill_members(&mut self, members: impl IntoIterator<Item = usize>) {
        members.into_iter().for_each(|index| self.members[index] = None);
    }

    /// How many members there are.
    pub fn member_count(&self) -> usize {
        self.members.len()
    }

    /// A member's home, keys and name.
    pub fn member(&self, index: usize) -> &DevMember {
        &self.devnet.members[index]
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
        self.wait_peers(&alive, alive.len() - 1);
    }

    /// Waits until these members have connections to so many others each.
    pub fn wait_peers(&mut self, members: &[usize], peers: usize) {
        self.wait("the members' connections", |network| {
            let connected = |index: &usize| {
                let status = network.member_status(*index);
                let all = status["peers"].as_array().cloned().unwrap_or_default();
                status["running"] == true && all.iter().filter(|peer| peer["connected"] == true).count() == peers
            };
            members.iter().all(connected).then_some(())
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
        json_of(self.node(), path)
    }

    /// What every node says of itself.
    pub fn statuses(&self) -> Vec<Value> {
        self.devnet.nodes.iter().map(|node| json_of(node, "/v1/status")).collect()
    }

    /// Why the peg is frozen, at every node.
    pub fn frozen(&self) -> Vec<Option<String>> {
        self.statuses().iter().map(|status| status["peg"]["frozen"].as_str().map(str::to_owned)).collect()
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

    /// Where everything is.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// The address of somebody on Bitcoin, and on Causeway.
pub fn payee(role: &str) -> Address {
    DevKey::of(role, Network::Regtest).address()
}

fn json_of(node: &DevNode, path: &str) -> Value {
    node.json(path).unwrap_or_else(|error| panic!("{error}"))
}

fn regtest(text: &str) -> Address {
    let address: Address<NetworkUnchecked> = text.parse().expect("an address");
    address.require_network(Network::Regtest).expect("an address of regtest")
}

fn bitcoin_of(devnet: &Devnet) -> &DevBitcoin {
    devnet.bitcoin().expect("it was made with one")
}

/// Changes the settings of a node that does not run.
fn set_bitcoin(node: &DevNode, change: impl FnOnce(&mut Config)) {
    let path = Home::at(&node.home).config();
    let mut config = Config::load(&path).expect("its settings");
    change(&mut config);
    std::fs::write(&path, config.to_toml()).expect("its settings");
}
