//! A network of real processes on this machine: homes, configuration, start and stop. For `causeway devnet` and for tests.
//!
//! Its keys are in the source of this program: nothing on it is worth anything.

pub mod amount;
pub mod bitcoind;
pub mod client;
mod error;
pub mod key;
pub mod members;
pub mod miner;
pub mod process;
pub mod purse;
pub mod signing;

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use causeway_chainspec::{ChainSpec, devnet};
use causeway_consensus::bft;
use causeway_consensus::bft::Key as _;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use serde::{Deserialize, Serialize};

use crate::ask::{BaseUrl, Bounds};
use crate::config::Config;
use crate::home::Home;
use crate::keys::{ValidatorKey, new_node_key};
use crate::shell::mark_file::MarkFile;

pub use bitcoind::DevBitcoin;
pub use error::DevnetError;
pub use key::Funds;
pub use members::DevMember;
pub use process::{Daemon, Process};

use error::io_error;

/// How often a row of free ports is looked for.
const ROW_TRIES: usize = 100;

/// Ports below those that systems give to outgoing connections (from 32768 on Linux): one of these is still free when its
/// process starts, and after it was killed.
const PORTS: RangeInclusive<u16> = 20_000..=32_000;

/// How many of them are tried.
const PORT_TRIES: usize = 100;

/// The file that describes a devnet, in its directory.
pub const FILE: &str = "devnet.json";

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
    /// The members of the federation; none without Bitcoin.
    #[serde(default)]
    pub members: Vec<DevMember>,
    /// The Bitcoin that its peg stands on; None without a peg, as in tests.
    #[serde(default)]
    pub bitcoin: Option<DevBitcoin>,
    /// The key that has coins, out of deposits.
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
    /// Base of its metrics and checks of health.
    pub metrics: String,
    /// Where it listens for peers, with its peer id.
    pub p2p: Multiaddr,
    /// The public key that it votes with; none for a full node.
    pub validator: Option<String>,
    /// What it says, line by line.
    pub log: PathBuf,
}

impl Devnet {
    /// Makes the homes of a devnet in a new directory, on ports of loopback that are free; without Bitcoin.
    ///
    /// # Errors
    /// [`DevnetError`].
    pub fn create(directory: &Path, shape: &Shape) -> Result<Self, DevnetError> {
        let directory = std::path::absolute(directory).map_err(|source| io_error(directory, "found", source))?;
        let devnet = Self::create_nodes(&directory, shape, &mut FreePorts::default())?;
        devnet.save(&directory)?;
        Ok(devnet)
    }

    /// The same with a Bitcoin Core and the members of the federation. `causeway` is this program; without it, nobody makes
    /// the members' homes.
    ///
    /// # Errors
    /// [`DevnetError`].
    pub fn create_with_peg(directory: &Path, shape: &Shape, causeway: Option<&Path>) -> Result<Self, DevnetError> {
        let directory = std::path::absolute(directory).map_err(|source| io_error(directory, "found", source))?;
        let mut ports = FreePorts::default();
        let bitcoin = DevBitcoin::create(&directory.join("bitcoind"), ports.take()?)?;
        let mut shape = shape.clone();
        shape.config.bitcoin = Some(bitcoin.node_config());
        let mut devnet = Self::create_nodes(&directory, &shape, &mut ports)?;
        devnet.members = members::plan(&directory, &shape.spec, &devnet.nodes);
        if let Some(causeway) = causeway {
            members::create(causeway, &devnet.members, &devnet.nodes, &bitcoin, &mut ports)?;
        }
        devnet.bitcoin = Some(bitcoin);
        devnet.save(&directory)?;
        Ok(devnet)
    }

    fn create_nodes(directory: &Path, shape: &Shape, ports: &mut FreePorts) -> Result<Self, DevnetError> {
        fs::create_dir_all(directory).map_err(|source| io_error(directory, "made", source))?;
        let names = shape.validators.iter().map(|index| (format!("validator-{index}"), Some(*index)));
        let names = names.chain((0..shape.full_nodes).map(|index| (format!("full-{index}"), None)));
        let mut nodes = Vec::new();
        for (name, validator) in names {
            let home = Home::at(directory.join(&name));
            let lock = home.create()?;
            let peer = new_node_key(&home.node_key())?.public().to_peer_id();
            let key = validator.map(|index| make_validator(&home, &shape.spec, index)).transpose()?;
            home.write_new(&home.chainspec(), &shape.spec.to_toml())?;
            drop(lock);
            let p2p = Multiaddr::from(Ipv4Addr::LOCALHOST).with(Protocol::Tcp(ports.take()?)).with(Protocol::P2p(peer));
            let rest = format!("http://127.0.0.1:{}", ports.take()?);
            let metrics = format!("http://127.0.0.1:{}", ports.take()?);
            let log = home.path().join("node.log");
            nodes.push(DevNode { name, home: home.path().to_owned(), rest, metrics, p2p, validator: key, log });
        }
        for node in &nodes {
            let mut config = shape.config.clone();
            config.p2p.listen = vec![node.p2p.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect()];
            let others = nodes.iter().filter(|other| other.name != node.name);
            config.p2p.persistent_peers = others.map(|other| other.p2p.clone()).collect();
            config.rest.bind = SocketAddr::from((Ipv4Addr::LOCALHOST, port_of(&node.rest)));
            config.metrics.bind = SocketAddr::from((Ipv4Addr::LOCALHOST, port_of(&node.metrics)));
            let home = Home::at(&node.home);
            home.write_new(&home.config(), &config.to_toml())?;
        }
        Ok(Self {
            chain: shape.spec.name().to_owned(),
            chain_id: shape.spec.chain_id().to_string(),
            nodes,
            members: Vec::new(),
            bitcoin: None,
            funds: purse::key().funds(),
        })
    }

    /// Writes the file, which holds the password of bitcoind's RPC. Last: a devnet without it is not complete.
    fn save(&self, directory: &Path) -> Result<(), DevnetError> {
        let path = directory.join(FILE);
        let json = serde_json::to_string_pretty(self).expect("names and texts are JSON") + "\n";
        let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&path);
        let written = file.and_then(|mut file| file.write_all(json.as_bytes()));
        written.map_err(|source| io_error(&path, "written", source))
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

    /// The node that clients ask: a full node, if there is one.
    pub fn client_node(&self) -> &DevNode {
        self.nodes.last().expect("a devnet has validators")
    }

    /// Its Bitcoin.
    ///
    /// # Errors
    /// There is none.
    pub fn bitcoin(&self) -> Result<&DevBitcoin, DevnetError> {
        self.bitcoin.as_ref().ok_or(DevnetError::NoBitcoin)
    }
}

fn port_of(url: &str) -> u16 {
    url.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(0)
}

fn make_validator(home: &Home, spec: &ChainSpec, index: u32) -> Result<String, DevnetError> {
    let secret = devnet::secret_key(devnet::VALIDATOR, index);
    let key = ValidatorKey::from_bytes(&secret.secret_bytes()).expect("a secret key is one");
    key.store_new(&home.validator_key())?;
    let address: bft::Address = key.address();
    MarkFile::create(&home.validator_mark(), &home.validator_key(), spec.chain_id(), address)?;
    Ok(key.public_key().to_string())
}

/// A command that runs `program` in the place of this program (`causeway`), told to end when this process has ended, however
/// that was. Arguments for `program` can be added.
fn after_parent(causeway: &Path, program: &Path) -> Command {
    let mut command = Command::new(causeway);
    command.arg("end-with-parent").arg(std::process::id().to_string()).arg(program);
    command
}

/// Ports of loopback that nobody uses. They are held until all are taken, so that none comes twice.
#[derive(Default)]
struct FreePorts(Vec<TcpListener>);

impl FreePorts {
    /// The first of `count` free ports in a row.
    fn take_row(&mut self, count: u16) -> Result<u16, DevnetError> {
        let mut last = DevnetError::NoPort(io::ErrorKind::AddrInUse.into());
        for _ in 0..ROW_TRIES {
            let first = self.take()?;
            let others = (1..count).map(|offset| {
                let port = first.checked_add(offset).ok_or(io::ErrorKind::AddrNotAvailable)?;
                TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            });
            match others.collect::<io::Result<Vec<_>>>() {
                Ok(others) => {
                    self.0.extend(others);
                    return Ok(first);
                }
                Err(error) => last = DevnetError::NoPort(error),
            }
        }
        Err(last)
    }

    /// One of [`PORTS`] if some tries find one, else whichever the system has.
    fn take(&mut self) -> Result<u16, DevnetError> {
        let listener = (0..PORT_TRIES)
            .find_map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, rand::random_range(PORTS))).ok())
            .map_or_else(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)), Ok)
            .map_err(DevnetError::NoPort)?;
        let port = listener.local_addr().map_err(DevnetError::NoPort)?.port();
        self.0.push(listener);
        Ok(port)
    }
}

/// The body of the answer to `GET path` at `http://host:port`, if its status is 200.
pub fn get(base: &str, path: &str) -> Option<String> {
    let base: BaseUrl = base.parse().ok()?;
    let answer = base.get(path, Bounds::within(64 << 20, 5)).ok()?;
    (answer.status() == 200).then(|| answer.bytes().ok()).flatten().and_then(|body| String::from_utf8(body).ok())
}

#[cfg(test)]
mod tests;
