//! A real Bitcoin Core on regtest, by itself: no peers, everything on loopback.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// How long a node may take until it answers.
const DEADLINE: Duration = Duration::from_secs(60);

/// A running node. It ends, and its directory goes, when this is dropped.
pub struct Bitcoind {
    process: Child,
    cli: PathBuf,
    directory: TempDir,
    rpc_port: u16,
}

impl Bitcoind {
    /// Starts a node and waits until it answers. `scripts/bitcoind` finds or builds the program.
    ///
    /// # Panics
    /// If there is no such program, or it does not come up.
    pub fn start() -> Self {
        let (daemon, cli) = (program(&[]), program(&["--cli"]));
        // Somebody else may take the free port before the node does: then it ends, and another port is tried.
        (0..3).find_map(|_| Self::try_start(&daemon, &cli)).expect("bitcoind comes up")
    }

    fn try_start(daemon: &Path, cli: &Path) -> Option<Self> {
        let directory = TempDir::new().expect("a temporary directory");
        let rpc_port = free_port();
        let process = Command::new(daemon)
            .arg(format!("-datadir={}", directory.path().display()))
            .arg(format!("-rpcport={rpc_port}"))
            .args(["-regtest", "-server", "-listen=0", "-connect=0", "-dnsseed=0", "-printtoconsole=0"])
            .args(["-rpcbind=127.0.0.1", "-rpcallowip=127.0.0.1"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("bitcoind starts");
        let mut node = Self { process, cli: cli.to_owned(), directory, rpc_port };
        let started = Instant::now();
        while node.try_call("getblockcount", &[]).is_err() {
            if node.process.try_wait().expect("ours").is_some() || started.elapsed() > DEADLINE {
                return None;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(node)
    }

    /// Calls a method by `bitcoin-cli`, with arguments as on its command line; an answer that is no JSON is a string.
    ///
    /// # Panics
    /// If the call fails.
    pub fn call(&self, method: &str, arguments: &[&str]) -> Value {
        self.try_call(method, arguments).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// Returns what [`Bitcoind::call`] returns, or what the program says went wrong.
    pub fn try_call(&self, method: &str, arguments: &[&str]) -> Result<Value, String> {
        let output = Command::new(&self.cli)
            .arg(format!("-datadir={}", self.directory.path().display()))
            .arg(format!("-rpcport={}", self.rpc_port))
            .args(["-regtest", method])
            .args(arguments)
            .output()
            .map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }
}

impl Drop for Bitcoind {
    fn drop(&mut self) {
        // Its directory goes anyway: no need to let it write anything.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What `scripts/bitcoind` prints.
fn program(arguments: &[&str]) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/bitcoind");
    let output = Command::new(script).args(arguments).stderr(Stdio::inherit()).output().expect("the script is there");
    assert!(output.status.success(), "scripts/bitcoind neither finds nor builds Bitcoin Core");
    PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim())
}

/// A port that nobody listens on.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    listener.local_addr().expect("bound").port()
}
