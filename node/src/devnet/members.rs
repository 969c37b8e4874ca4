//! The members of the devnet's federation: homes and processes of `causeway-federation`.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use bitcoin::secp256k1::SECP256K1;
use causeway_chainspec::{ChainSpec, devnet};
use serde::{Deserialize, Serialize};

use super::bitcoind::DevBitcoin;
use super::process::Daemon;
use super::{DevNode, DevnetError, FreePorts, after_parent};
use crate::home::Home;

/// The program of a member, beside `causeway`.
const PROGRAM: &str = "causeway-federation";

/// Where a member that runs answers its operator, in its home.
const SOCKET: &str = "control.sock";

/// A member of a devnet's federation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DevMember {
    /// Its name.
    pub name: String,
    /// Its home: `causeway-federation status --home <home>`.
    pub home: PathBuf,
    /// Its public key, compressed, hex.
    pub key: String,
    /// The node whose REST it asks, by its name.
    pub node: String,
    /// What it says, line by line.
    pub log: PathBuf,
}

/// The members that a chain names, before their homes are made. Each asks a node of its own, if there are enough.
pub(super) fn plan(directory: &Path, spec: &ChainSpec, nodes: &[DevNode]) -> Vec<DevMember> {
    let count = u32::try_from(spec.federation().members().len()).expect("an epoch has at most 100 members");
    let member = |(index, node): (u32, &DevNode)| {
        let name = format!("member-{index}");
        let home = directory.join(&name);
        let key = devnet::secret_key(devnet::MEMBER, index).public_key(SECP256K1).to_string();
        DevMember { name, log: home.join("member.log"), home, key, node: node.name.clone() }
    };
    (0..count).zip(nodes.iter().cycle()).map(member).collect()
}

/// Makes the homes of the members: keys that everyone knows, settings, the chain. `causeway` is this program.
pub(super) fn create(
    causeway: &Path,
    members: &[DevMember],
    nodes: &[DevNode],
    bitcoin: &DevBitcoin,
    ports: &mut FreePorts,
) -> Result<(), DevnetError> {
    let program = program(causeway)?;
    let count = u16::try_from(members.len()).unwrap_or(u16::MAX);
    let port = ports.take_row(count)?;
    let failed = |member: &DevMember, said: String| DevnetError::Member { name: member.name.clone(), said };
    // All at once: each seals its keys, which takes a while on purpose.
    let mut started = Vec::new();
    for (index, member) in members.iter().enumerate() {
        let node = nodes.iter().find(|node| node.name == member.node);
        let node = node.ok_or_else(|| failed(member, format!("there is no node {}", member.node)))?;
        let mut command = Command::new(&program);
        command.arg("keygen").arg("--home").arg(&member.home).arg("--chain").arg(Home::at(&node.home).chainspec());
        command.arg("--devnet-index").arg(index.to_string()).arg("--devnet-port").arg(port.to_string());
        command.arg("--node").arg(&node.rest).arg("--bitcoind").arg(bitcoin.endpoint().to_string());
        command.arg("--credentials-file").arg(&bitcoin.cookie);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().map_err(|source| DevnetError::Start { program: program.clone(), source })?;
        started.push((member, child));
    }
    for (member, child) in started {
        let Output { status, stderr, .. } =
            child.wait_with_output().map_err(|error| failed(member, error.to_string()))?;
        if !status.success() {
            let said = String::from_utf8_lossy(&stderr);
            return Err(failed(member, said.lines().last().unwrap_or_default().to_owned()));
        }
    }
    Ok(())
}

impl DevMember {
    /// Starts it. `causeway` is this program.
    ///
    /// # Errors
    /// Its program is not there, or does not start.
    pub fn start(&self, causeway: &Path) -> Result<Daemon, DevnetError> {
        let mut command = after_parent(causeway, &program(causeway)?);
        command.arg("run").arg("--home").arg(&self.home);
        Daemon::start(&self.name, &self.log, command)
    }

    /// Waits until it answers its operator.
    ///
    /// # Errors
    /// It ends or stays silent.
    pub fn wait_ready(&self, daemon: &mut Daemon, timeout: Duration) -> Result<(), DevnetError> {
        let (started, socket) = (Instant::now(), self.home.join(SOCKET));
        while UnixStream::connect(&socket).is_err() {
            daemon.check()?;
            if started.elapsed() > timeout {
                let (name, seconds, log) = (self.name.clone(), timeout.as_secs(), self.log.clone());
                return Err(DevnetError::Silent { name, url: socket.display().to_string(), seconds, log });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

/// The program of a member.
fn program(causeway: &Path) -> Result<PathBuf, DevnetError> {
    let program = causeway.with_file_name(PROGRAM);
    if program.is_file() { Ok(program) } else { Err(DevnetError::NoMemberProgram { program }) }
}
