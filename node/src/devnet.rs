//! A network of real processes on this machine: homes, configuration, start and stop. For `causeway devnet` and for tests.
//!
//! Its keys are in the source of this program: nothing on it is worth anything.

pub mod payer;

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bitcoin::{Address, CompressedPublicKey, PrivateKey, Txid};
use causeway_chainspec::{ChainSpec, devnet};
use causeway_consensus::bft;
use causeway_consensus::bft::Key as _;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use serde::{Deserialize, Serialize};

use crate::config::{Config, ConfigError};
use crate::home::{Home, HomeError};
use crate::keys::{KeyFileError, ValidatorKey, new_node_key};
use crate::shell::mark_file::{MarkFile, MarkFileError};

/// How long a node may take to stop before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// The file that describes a devnet, in its directory.
pub const FILE: &str = "devnet.json";

/// What went wrong with a devnet.
#[derive(Debug, thiserror::Error)]
pub enum DevnetError {
    /// A home could not be made or read.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// A key could not be made or read.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// A mark could not be made.
    #[error(transparent)]
    Mark(#[from] MarkFileError),
    /// Settings could not be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file of the devnet.
    #[error("{} cannot be {doing}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The directory holds something else.
    #[error("{} is no devnet of this version: choose another directory, or remove it", path.display())]
    NotADevnet {
        /// The file that says so.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// No port is free.
    #[error("no port is free on this machine")]
    NoPort(#[source] io::Error),
    /// A process could not be started.
    #[error("{} could not be started", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A node ended.
    #[error("{name} ended by itself: its last line is {last_line:?}; all of them are in {}", log.display())]
    Ended {
        /// Which node.
        name: String,
        /// What it said last.
        last_line: String,
        /// Its log.
        log: PathBuf,
    },
    /// A node does not answer.
    #[error("{name} does not answer at {url}: see its log")]
    NoAnswer {
        /// Which node.
        name: String,
        /// Its REST.
        url: String,
    },
    /// The chain has no funds to pay from.
    #[error("the chain allocates nothing to the devnet's key: use the built-in chain devnet")]
    NoFunds,
    /// A payment was refused.
    #[error("{name} refuses a payment: {answer}")]
    Refused {
        /// Which node.
        name: String,
        /// What it says.
        answer: String,
    },
    /// A payment is not final.
    #[error("payment {txid} is not final after {seconds} s: see the logs of the nodes")]
    NotFinal {
        /// The payment.
        txid: Txid,
        /// How long it was waited for.
        seconds: u64,
    },
    /// A node did not come up in time.
    #[error("{name} does not answer at {url} after {seconds} s: see {}", log.display())]
    Silent {
        /// Which node.
        name: String,
        /// Its REST.
        url: String,
        /// How long it was waited for.
        seconds: u64,
        /// Its log.
        log: PathBuf,
    },
}

/// What a devnet looks like.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The chain.
    pub spec: ChainSpec,
    /// The validators that run, by the index of their devnet key.
    pub validators: Vec<u32>,
    /// How many full nodes run.
    pub full_nodes: u32,
    /// What every node is configured with, but for its addresses.
    pub config: Config,
}

/// A devnet, as its file describes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Devnet {
    /// The chain's name.
    pub chain: String,
    /// Its id, in Bitcoin's order of hex.
    pub chain_id: String,
    /// Every node.
    pub nodes: Vec<DevNode>,
    /// The key that the allocation of block 1 pays.
    pub funds: Funds,
}

/// A node of a devnet.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DevNode {
    /// Its name.
    pub name: String,
    /// Its home.
    pub home: PathBuf,
    /// Base of its REST.
    pub rest: String,
    /// Where it listens for peers, with its peer id.
    pub p2p: Multiaddr,
    /// The public key that it votes with; none for a full node.
    pub validator: Option<String>,
    /// What it says, line by line.
    pub log: PathBuf,
}

/// A key with coins.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Funds {
    /// The secret key, in Bitcoin's wallet import format.
    pub wif: String,
    /// Its P2WPKH address.
    pub address: String,
}

impl Devnet {
    /// Makes the homes of a devnet in a new directory, on ports of loopback that are free.
    ///
    /// # Errors
    /// [`DevnetError`].
    pub fn create(directory: &Path, shape: &Shape) -> Result<Self, DevnetError> {
        let directory = std::path::absolute(directory).map_err(|source| io_error(directory, "found", source))?;
        fs::create_dir_all(&directory).map_err(|source| io_error(&directory, "made", source))?;
        let names = shape.validators.iter().map(|index| (format!("validator-{index}"), Some(*index)));
        let names = names.chain((0..shape.full_nodes).map(|index| (format!("full-{index}"), None)));
        let mut nodes = Vec::new();
        let mut ports = FreePorts::default();
        for (name, validator) in names {
            let home = Home::at(directory.join(&name));
            let lock = home.create()?;
            let peer = new_node_key(&home.node_key())?.public().to_peer_id();
            let key = validator.map(|index| make_validator(&home, &shape.spec, index)).transpose()?;
            home.write_new(&home.chainspec(), &shape.spec.to_toml())?;
            drop(lock);
            let p2p = Multiaddr::from(Ipv4Addr::LOCALHOST).with(Protocol::Tcp(ports.take()?)).with(Protocol::P2p(peer));
            let rest = format!("http://127.0.0.1:{}", ports.take()?);
            let log = home.path().join("node.log");
            nodes.push(DevNode { name, home: home.path().to_owned(), rest, p2p, validator: key, log });
        }
        for node in &nodes {
            let mut config = shape.config.clone();
            config.p2p.listen = vec![node.p2p.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect()];
            let others = nodes.iter().filter(|other| other.name != node.name);
            config.p2p.persistent_peers = others.map(|other| other.p2p.clone()).collect();
            config.rest.bind = SocketAddr::from((Ipv4Addr::LOCALHOST, node.rest_port()));
            let home = Home::at(&node.home);
            home.write_new(&home.config(), &config.to_toml())?;
        }
        let devnet = Self {
            chain: shape.spec.name().to_owned(),
            chain_id: shape.spec.chain_id().to_string(),
            nodes,
            funds: Funds::new(&shape.spec),
        };
        let path = directory.join(FILE);
        let json = serde_json::to_string_pretty(&devnet).expect("names and texts are JSON");
        fs::write(&path, json + "\n").map_err(|source| io_error(&path, "written", source))?;
        Ok(devnet)
    }

    /// The devnet of a directory; `None` if there is none.
    ///
    /// # Errors
    /// [`DevnetError`].
    pub fn load(directory: &Path) -> Result<Option<Self>, DevnetError> {
        let path = directory.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(io_error(&path, "read", source)),
        };
        serde_json::from_str(&text).map(Some).map_err(|source| DevnetError::NotADevnet { path, source })
    }
}

impl DevNode {
    fn rest_port(&self) -> u16 {
        self.rest.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(0)
    }
}

impl Funds {
    fn new(spec: &ChainSpec) -> Self {
        let key = PrivateKey::new(devnet::secret_key(devnet::FUNDS, 0), spec.identity());
        let public = CompressedPublicKey::from_private_key(bitcoin::secp256k1::SECP256K1, &key);
        let public = public.expect("a new private key is for compressed keys");
        let address = Address::p2wpkh(&public, spec.identity());
        Self { wif: key.to_wif(), address: address.to_string() }
    }
}

fn make_validator(home: &Home, spec: &ChainSpec, index: u32) -> Result<String, DevnetError> {
    let secret = devnet::secret_key(devnet::VALIDATOR, index);
    let key = ValidatorKey::from_bytes(&secret.secret_bytes()).expect("a secret key is one");
    key.store_new(&home.validator_key())?;
    let address: bft::Address = key.address();
    MarkFile::create(&home.validator_mark(), &home.validator_key(), spec.chain_id(), address)?;
    Ok(key.public_key().to_string())
}

/// Ports of loopback that nobody uses. They are held until all are taken, so that none comes twice.
#[derive(Default)]
struct FreePorts(Vec<TcpListener>);

impl FreePorts {
    fn take(&mut self) -> Result<u16, DevnetError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(DevnetError::NoPort)?;
        let port = listener.local_addr().map_err(DevnetError::NoPort)?.port();
        self.0.push(listener);
        Ok(port)
    }
}

/// A running node of a devnet. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    /// The node.
    pub node: DevNode,
    child: Child,
}

impl Process {
    /// Starts a node with this program, which is `causeway` itself.
    ///
    /// # Errors
    /// [`DevnetError::Start`], or its log cannot be opened.
    pub fn start(program: &Path, node: &DevNode) -> Result<Self, DevnetError> {
        Self::start_with(program, node, &[])
    }

    /// Starts a node with more arguments.
    ///
    /// # Errors
    /// As [`Process::start`].
    pub fn start_with(program: &Path, node: &DevNode, arguments: &[&str]) -> Result<Self, DevnetError> {
        let log = File::options().create(true).append(true).open(&node.log);
        let log = log.map_err(|source| io_error(&node.log, "opened", source))?;
        let errors = log.try_clone().map_err(|source| io_error(&node.log, "opened", source))?;
        let mut command = Command::new(program);
        command.arg("run").arg("--home").arg(&node.home).arg("--end-with-parent").args(arguments);
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        let child = command.spawn().map_err(|source| DevnetError::Start { program: program.to_owned(), source })?;
        Ok(Self { node: node.clone(), child })
    }

    /// The id of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Fails if the node has ended.
    ///
    /// # Errors
    /// [`DevnetError::Ended`].
    pub fn check(&mut self) -> Result<(), DevnetError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(_)) | Err(_) => Err(DevnetError::Ended {
                name: self.node.name.clone(),
                last_line: last_line(&self.node.log),
                log: self.node.log.clone(),
            }),
        }
    }

    /// Waits until the node answers.
    ///
    /// # Errors
    /// It ends or stays silent.
    pub fn wait_ready(&mut self, timeout: Duration) -> Result<(), DevnetError> {
        let (started, url) = (Instant::now(), format!("{}/v1/status", self.node.rest));
        loop {
            self.check()?;
            if get(&url).is_some() {
                return Ok(());
            }
            if started.elapsed() > timeout {
                let (name, seconds, log) = (self.node.name.clone(), timeout.as_secs(), self.node.log.clone());
                return Err(DevnetError::Silent { name, url, seconds, log });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Asks the node to stop.
    pub fn terminate(&self) {
        if let Some(id) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            // It may have ended already.
            let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        }
    }

    /// Waits until the node has stopped, and kills it if that takes too long. Returns whether it stopped well.
    pub fn wait(mut self) -> bool {
        let started = Instant::now();
        while started.elapsed() < STOP_TIMEOUT {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status.success();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// Kills the node at once (SIGKILL).
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// The body of an answer with status 200.
pub fn get(url: &str) -> Option<String> {
    let response = minreq::get(url).with_timeout(5).send().ok()?;
    (response.status_code == 200).then(|| response.as_str().ok().map(str::to_owned)).flatten()
}

fn last_line(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned()
}

fn io_error(path: &Path, doing: &'static str, source: io::Error) -> DevnetError {
    DevnetError::Io { path: path.to_owned(), doing, source }
}
