//! A real Bitcoin Core on regtest, by itself: no peers, everything on loopback.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// How long a node may take until it answers.
const DEADLINE: Duration = Duration::from_secs(60);

/// A node. It ends, and its directory goes, when this is dropped.
pub struct Bitcoind {
    /// `None` while it is down.
    process: Option<Child>,
    daemon: PathBuf,
    cli: PathBuf,
    directory: TempDir,
    rpc_port: u16,
    extra: Vec<String>,
}

impl Bitcoind {
    /// Starts a node and waits until it answers. `scripts/bitcoind` finds or builds the program.
    ///
    /// # Panics
    /// If there is no such program, or it does not come up.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a node with more arguments, as on its command line.
    ///
    /// # Panics
    /// If there is no such program, or it does not come up.
    pub fn start_with(extra: &[&str]) -> Self {
        let (daemon, cli) = (program(&[]), program(&["--cli"]));
        // Somebody else may take the free port before the node does: then it ends, and another port is tried.
        (0..3).find_map(|_| Self::try_start(&daemon, &cli, extra)).expect("bitcoind comes up")
    }

    /// Starts a node that listens for other nodes at a port of 127.0.0.1, and returns that too.
    ///
    /// # Panics
    /// If there is no such program, or it does not come up.
    pub fn start_listening() -> (Self, u16) {
        let (daemon, cli) = (program(&[]), program(&["--cli"]));
        let start = |_| {
            let port = free_port();
            let node = Self::try_start(&daemon, &cli, &["-listen=1", &format!("-bind=127.0.0.1:{port}")])?;
            Some((node, port))
        };
        (0..3).find_map(start).expect("bitcoind comes up")
    }

    fn try_start(daemon: &Path, cli: &Path, extra: &[&str]) -> Option<Self> {
        let mut node = Self {
            process: None,
            daemon: daemon.to_owned(),
            cli: cli.to_owned(),
            directory: TempDir::new().expect("a temporary directory"),
            rpc_port: free_port(),
            extra: extra.iter().map(|argument| (*argument).to_owned()).collect(),
        };
        node.spawn().then_some(node)
    }

    /// Starts the program in its directory; says whether it came up.
    fn spawn(&mut self) -> bool {
        let process = Command::new(&self.daemon)
            .arg(format!("-datadir={}", self.directory.path().display()))
            .arg(format!("-rpcport={}", self.rpc_port))
            .args(["-regtest", "-server", "-listen=0", "-connect=0", "-dnsseed=0", "-printtoconsole=0"])
            .args(["-rpcbind=127.0.0.1", "-rpcallowip=127.0.0.1"])
            .args(&self.extra)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("bitcoind starts");
        let process = self.process.insert(process);
        let started = Instant::now();
        loop {
            if process.try_wait().expect("ours").is_some() || started.elapsed() > DEADLINE {
                return false;
            }
            if cli_call(&self.cli, self.directory.path(), self.rpc_port, "getblockcount", &[]).is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends the node in order: what it knows is on its disk.
    ///
    /// # Panics
    /// If it is down, or does not end.
    pub fn stop(&mut self) {
        self.call("stop", &[]);
        let mut process = self.process.take().expect("it was up");
        let started = Instant::now();
        while process.try_wait().expect("ours").is_none() {
            assert!(started.elapsed() < DEADLINE, "bitcoind does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the node as a power loss does.
    ///
    /// # Panics
    /// If it is down.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("it was up");
        process.kill().expect("ours");
        process.wait().expect("ours");
    }

    /// Starts the node again after [`Bitcoind::stop`] or [`Bitcoind::kill`]: same directory, same port, another cookie.
    ///
    /// # Panics
    /// If it is up, or does not come up.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "it is up");
        assert!(self.spawn(), "bitcoind comes up again");
    }

    /// Ends the node in order and starts it again.
    ///
    /// # Panics
    /// If it is down, or does not come up again.
    pub fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// The port of its RPC, on 127.0.0.1.
    pub fn rpc_port(&self) -> u16 {
        self.rpc_port
    }

    /// The file with user and password for its RPC, written anew whenever it starts.
    pub fn cookie_file(&self) -> PathBuf {
        self.directory.path().join("regtest/.cookie")
    }

    /// Calls a method by `bitcoin-cli`, with arguments as on its command line; an answer that is no JSON is a string.
    ///
    /// Arguments may be long (the descriptor of an 11-of-15 federation has 1 MB), but of one line each.
    ///
    /// # Panics
    /// If the call fails.
    pub fn call(&self, method: &str, arguments: &[&str]) -> Value {
        self.try_call(method, arguments).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// Returns what [`Bitcoind::call`] returns, or what the program says went wrong.
    pub fn try_call(&self, method: &str, arguments: &[&str]) -> Result<Value, String> {
        cli_call(&self.cli, self.directory.path(), self.rpc_port, method, arguments)
    }
}

/// Arguments go in by standard input, one line each: a command line is too short for some.
pub(crate) fn cli_call(
    cli: &Path,
    directory: &Path,
    rpc_port: u16,
    method: &str,
    arguments: &[&str],
) -> Result<Value, String> {
    let mut process = Command::new(cli)
        .arg(format!("-datadir={}", directory.display()))
        .arg(format!("-rpcport={rpc_port}"))
        .args(["-regtest", "-stdin", method])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let lines: String = arguments.iter().map(|argument| format!("{argument}\n")).collect();
    // The program reads all of them before it answers; its end closes them.
    let written = process.stdin.take().expect("piped").write_all(lines.as_bytes());
    let output = process.wait_with_output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    written.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok(serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

impl Drop for Bitcoind {
    fn drop(&mut self) {
        // Its directory goes anyway: no need to let it write anything.
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// What `scripts/bitcoind` prints.
pub(crate) fn program(arguments: &[&str]) -> PathBuf {
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
