//! The devnet's Bitcoin Core: which program, its directory, its process.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bitcoin::Network;
use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use bitcoin::hex::DisplayHex;
use causeway_federation::bitcoind::Endpoint;
use serde::{Deserialize, Serialize};

use super::error::{OLDEST_MAJOR, io_error};
use super::key::{DevKey, Funds, MINER};
use super::process::Daemon;
use super::{DevnetError, after_parent};
use crate::config::BitcoinConfig;

/// What names a bitcoind, if the command line does not.
pub const VARIABLE: &str = "CAUSEWAY_BITCOIND";

/// How long a program may take to tell its version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(20);

/// How long the port may be taken.
const PORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Most bytes of what it says then.
const VERSION_BYTES_MAX: u64 = 4_096;

/// The user of the devnet's RPC password.
const USER: &str = "devnet";

/// The Bitcoin Core of a devnet.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DevBitcoin {
    /// Bitcoin's network: regtest.
    pub network: String,
    /// Its directory: `bitcoin-cli -datadir=<directory>` talks to it.
    pub directory: PathBuf,
    /// Base of its RPC.
    pub rpc: String,
    /// User of its RPC.
    pub rpc_user: String,
    /// Password of its RPC.
    pub rpc_password: String,
    /// The file with user and password that it writes at every start.
    pub cookie: PathBuf,
    /// What it says, line by line.
    pub log: PathBuf,
    /// The key that the first blocks pay: P2WPKH.
    pub miner: Funds,
}

impl DevBitcoin {
    /// Makes its directory, for this port of loopback.
    pub(super) fn create(directory: &Path, port: u16) -> Result<Self, DevnetError> {
        let bitcoin = Self::new(directory, port);
        fs::create_dir_all(directory).map_err(|source| io_error(directory, "made", source))?;
        let mode = fs::Permissions::from_mode(0o700);
        fs::set_permissions(directory, mode).map_err(|source| io_error(directory, "made", source))?;
        let path = directory.join("bitcoin.conf");
        let salt: [u8; 16] = rand::random();
        let text = configuration(port, &rpcauth(USER, &bitcoin.rpc_password, &salt.to_lower_hex_string()));
        fs::write(&path, text).map_err(|source| io_error(&path, "written", source))?;
        Ok(bitcoin)
    }

    fn new(directory: &Path, port: u16) -> Self {
        let password: [u8; 16] = rand::random();
        Self {
            network: Network::Regtest.to_string(),
            directory: directory.to_owned(),
            rpc: format!("http://{}", Endpoint::loopback(port)),
            rpc_user: USER.to_owned(),
            rpc_password: password.to_lower_hex_string(),
            cookie: directory.join("regtest/.cookie"),
            log: directory.join("bitcoind.log"),
            miner: DevKey::of(MINER, Network::Regtest).funds(),
        }
    }

    /// Where it listens for RPC.
    pub fn endpoint(&self) -> Endpoint {
        let port = self.rpc.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        Endpoint::loopback(port.unwrap_or(0))
    }

    /// What a node is told of it. Its blocks come as fast as somebody likes, and nobody else's can race them.
    pub fn node_config(&self) -> BitcoinConfig {
        BitcoinConfig { endpoints: vec![self.endpoint()], cookie: self.cookie.clone(), header_delay_s: 0, poll_ms: 200 }
    }

    /// Starts it. `causeway` is this program, in whose place bitcoind runs, so that it ends with the devnet.
    ///
    /// # Errors
    /// It does not start, or its port is taken.
    pub fn start(&self, causeway: &Path, bitcoind: &Path) -> Result<Daemon, DevnetError> {
        self.wait_for_port()?;
        let mut command = after_parent(causeway, bitcoind);
        command.arg(format!("-datadir={}", self.directory.display())).arg("-printtoconsole=0");
        Daemon::start("bitcoind", &self.log, command)
    }
}

impl DevBitcoin {
    /// Waits until nobody listens at its port: the bitcoind of a devnet that was killed stops a moment later.
    fn wait_for_port(&self) -> Result<(), DevnetError> {
        let endpoint = self.endpoint().to_string();
        let started = Instant::now();
        while TcpListener::bind(&endpoint).is_err() {
            if started.elapsed() > PORT_TIMEOUT {
                return Err(DevnetError::PortTaken { endpoint });
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

/// The settings of bitcoind and bitcoin-cli: regtest, loopback, no peers.
fn configuration(port: u16, rpcauth: &str) -> String {
    format!(
        "# Written by \"causeway devnet\". bitcoin-cli -datadir=<this directory> talks to it while the devnet runs.\n\
         regtest=1\n\
         [regtest]\n\
         server=1\n\
         rpcbind=127.0.0.1\n\
         rpcallowip=127.0.0.1\n\
         rpcport={port}\n\
         rpcauth={rpcauth}\n\
         listen=0\n\
         connect=0\n\
         dnsseed=0\n\
         txindex=1\n"
    )
}

/// A user and the salted hash of its password, as Bitcoin Core's `share/rpcauth` makes it.
fn rpcauth(user: &str, password: &str, salt: &str) -> String {
    let mut engine = HmacEngine::<sha256::Hash>::new(salt.as_bytes());
    engine.input(password.as_bytes());
    format!("{user}:{salt}${}", Hmac::<sha256::Hash>::from_engine(engine).to_byte_array().to_lower_hex_string())
}

/// The bitcoind to run: the one given, else that of [`VARIABLE`], else the first on PATH; Bitcoin Core 30 or newer.
///
/// # Errors
/// There is none, or it is something else or too old.
pub fn find_program(given: Option<&Path>) -> Result<PathBuf, DevnetError> {
    let variable = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
    let program = given.map(Path::to_owned).or(variable);
    let program = program.or_else(|| on_path("bitcoind", &std::env::var_os("PATH")?)).ok_or(DevnetError::NoBitcoind)?;
    // The process that runs it may have another working directory.
    let program = std::path::absolute(&program).map_err(|source| io_error(&program, "found", source))?;
    let said = version_text(&program)?;
    let first = said.lines().next().unwrap_or_default().to_owned();
    match major_version(&first) {
        Some(version) if version >= OLDEST_MAJOR => Ok(program),
        Some(version) => Err(DevnetError::OldBitcoind { program, version }),
        None => Err(DevnetError::NotBitcoind { program, said: first }),
    }
}

fn on_path(name: &str, path: &OsStr) -> Option<PathBuf> {
    let is_program = |file: &PathBuf| {
        fs::metadata(file).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(path).map(|directory| directory.join(name)).find(is_program)
}

/// What a program says to `--version`; it is killed if that takes too long.
fn version_text(program: &Path) -> Result<String, DevnetError> {
    let start = |source| DevnetError::Start { program: program.to_owned(), source };
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(start)?;
    let started = Instant::now();
    while matches!(child.try_wait(), Ok(None)) && started.elapsed() < VERSION_TIMEOUT {
        std::thread::sleep(Duration::from_millis(10));
    }
    // It may have ended already.
    let _ = child.kill();
    let _ = child.wait();
    let mut bytes = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(VERSION_BYTES_MAX).read_to_end(&mut bytes).map_err(start)?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// 30 of "Bitcoin Core daemon version v30.2.0"; None if it is not Bitcoin Core.
fn major_version(line: &str) -> Option<u64> {
    let (_, version) = line.strip_prefix("Bitcoin Core ")?.split_once("version v")?;
    version.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests;
