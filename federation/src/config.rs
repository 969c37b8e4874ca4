//! The settings of one member. Nothing here changes what is signed: that is the chain's.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bitcoin::secp256k1::{PublicKey, XOnlyPublicKey};
use causeway_chainspec::Epoch;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use serde::Deserialize;
use tracing_subscriber::EnvFilter;

use crate::bitcoind::{ENDPOINTS_MAX, Endpoint, EndpointConfig};
use crate::daemon::NodeUrl;
use crate::files;
use crate::session::Timing;
use crate::transport::PeerAddress;

/// Most bytes of a settings file: 100 members have 30 kB.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// Bounds of the waits of a session.
const WAIT_MS: std::ops::RangeInclusive<u64> = 100..=600_000;

/// Why settings are refused. One line, with file and key.
#[expect(missing_docs, reason = "every variant is documented, and its message names its fields")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the settings {} cannot be read: make them with \"causeway-federation keygen\", or check the permissions", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: Option<std::io::Error>,
    },
    /// Not TOML, an unknown key, or a value of the wrong type.
    #[error("{} line {line}: {problem}; correct it, every key is explained where \"keygen\" wrote it", path.display())]
    Syntax { path: PathBuf, line: usize, problem: String },
    /// A value that its key does not allow.
    #[error("{}, key {key}: {got:?} is not allowed; allowed: {allows}", path.display())]
    NotAllowed { path: PathBuf, key: String, got: String, allows: String },
    /// The list of peers is not the other members.
    #[error("{}: {problem}; write one [[peers]] for each other member of the federation, as its operator's \"keygen\" printed it", path.display())]
    Peers { path: PathBuf, problem: String },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    keys: KeysFile,
    node: NodeFile,
    bitcoin: BitcoinFile,
    transport: TransportFile,
    #[serde(default)]
    session: SessionFile,
    #[serde(default)]
    log: LogFile,
    #[serde(default)]
    peers: Vec<PeerFile>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysFile {
    passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeFile {
    url: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BitcoinFile {
    endpoints: Vec<String>,
    credentials_file: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TransportFile {
    listen: String,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SessionFile {
    key_path_ms: u64,
    propose_ms: u64,
    attempt_ms: u64,
    resend_ms: u64,
}

impl Default for SessionFile {
    fn default() -> Self {
        let ms = |wait: Duration| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let Timing { key_path, propose, attempt, resend } = Timing::default();
        Self { key_path_ms: ms(key_path), propose_ms: ms(propose), attempt_ms: ms(attempt), resend_ms: ms(resend) }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LogFile {
    level: String,
}

impl Default for LogFile {
    fn default() -> Self {
        Self { level: "info".to_owned() }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PeerFile {
    member: String,
    identity: String,
    address: String,
}

/// Another member, as its operator says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Its key in the federation's scripts.
    pub member: PublicKey,
    /// The key that signs its messages.
    pub identity: XOnlyPublicKey,
    /// Where it listens, and its name there.
    pub address: PeerAddress,
}

/// The settings of one member, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the passphrase is, if it is not asked for.
    pub passphrase_file: Option<PathBuf>,
    /// The member's own node.
    pub node: NodeUrl,
    /// The member's own bitcoinds.
    pub bitcoin: Vec<EndpointConfig>,
    /// Where to listen for the other members.
    pub listen: Multiaddr,
    /// How long sessions wait.
    pub timing: Timing,
    /// What is logged.
    pub log_level: String,
    /// The other members.
    pub peers: Vec<PeerConfig>,
}

impl Config {
    /// The settings in a file. Paths in it that are not absolute start at its directory.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let failed = |source| ConfigError::Read { path: path.to_owned(), source };
        let bytes = files::read(path, CONFIG_BYTES_MAX).map_err(|error| failed(Some(error)))?;
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(|| failed(None))?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let file: File = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start).min(text.len());
            let line = text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
            let problem = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
            ConfigError::Syntax { path: path.to_owned(), line, problem }
        })?;
        let check = Check { path };
        let directory = path.parent().unwrap_or(Path::new("."));
        let node = check.parse("node.url", &file.node.url, "http://IP:port of your own node")?;
        if file.bitcoin.endpoints.is_empty() || file.bitcoin.endpoints.len() > ENDPOINTS_MAX {
            let got = format!("{} endpoints", file.bitcoin.endpoints.len());
            return Err(check.no("bitcoin.endpoints", &got, &format!("1 to {ENDPOINTS_MAX} of IP:port")));
        }
        let credentials_file = directory.join(&file.bitcoin.credentials_file);
        let bitcoin = file.bitcoin.endpoints.iter().map(|endpoint| {
            let endpoint: Endpoint =
                check.parse("bitcoin.endpoints", endpoint, "IP:port or host:port, without http://")?;
            Ok(EndpointConfig { endpoint, credentials_file: credentials_file.clone() })
        });
        let bitcoin = bitcoin.collect::<Result<Vec<_>, _>>()?;
        let listen: Multiaddr = check.parse("transport.listen", &file.transport.listen, "/ip4/../tcp/..")?;
        if !is_tcp(&listen) {
            return Err(check.no("transport.listen", &file.transport.listen, "/ip4/../tcp/.. or /ip6/../tcp/.."));
        }
        let SessionFile { key_path_ms, propose_ms, attempt_ms, resend_ms } = file.session;
        let waits = [
            ("session.key_path_ms", key_path_ms),
            ("session.propose_ms", propose_ms),
            ("session.attempt_ms", attempt_ms),
            ("session.resend_ms", resend_ms),
        ];
        for (key, wait) in waits {
            if !WAIT_MS.contains(&wait) {
                let allows = format!("{} to {} ms", WAIT_MS.start(), WAIT_MS.end());
                return Err(check.no(key, &wait.to_string(), &allows));
            }
        }
        let ms = Duration::from_millis;
        let timing = Timing {
            key_path: ms(key_path_ms),
            propose: ms(propose_ms),
            attempt: ms(attempt_ms),
            resend: ms(resend_ms),
        };
        if EnvFilter::try_new(&file.log.level).is_err() {
            return Err(check.no("log.level", &file.log.level, "error, warn, info, debug, or filters as of tracing"));
        }
        let peers = file.peers.iter().map(|peer| check.peer(peer)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            passphrase_file: file.keys.passphrase_file.map(|file| directory.join(file)),
            node,
            bitcoin,
            listen,
            timing,
            log_level: file.log.level,
            peers,
        })
    }

    /// The other members of an epoch in their order, with the identities of all; `own` is this member.
    ///
    /// # Errors
    /// [`ConfigError::Peers`]: somebody is missing, twice there, or no member.
    pub fn members(
        &self,
        path: &Path,
        epoch: &Epoch,
        own: PublicKey,
        own_identity: XOnlyPublicKey,
    ) -> Result<(Vec<PeerAddress>, Vec<XOnlyPublicKey>), ConfigError> {
        let wrong = |problem: String| ConfigError::Peers { path: path.to_owned(), problem };
        for (at, peer) in self.peers.iter().enumerate() {
            if peer.member == own {
                return Err(wrong(format!("peer {} is this member itself", peer.member)));
            }
            if !epoch.members().contains(&peer.member) {
                return Err(wrong(format!("peer {} is no member of epoch {}", peer.member, epoch.number())));
            }
            let same = |other: &PeerConfig| {
                other.member == peer.member
                    || other.identity == peer.identity
                    || other.address.peer == peer.address.peer
            };
            if self.peers[..at].iter().any(same) || peer.identity == own_identity {
                return Err(wrong(format!("peer {} shares a key with another member", peer.member)));
            }
        }
        let mut addresses = Vec::new();
        let mut identities = Vec::new();
        for member in epoch.members() {
            if *member == own {
                identities.push(own_identity);
                continue;
            }
            let peer = self.peers.iter().find(|peer| peer.member == *member);
            let peer = peer.ok_or_else(|| wrong(format!("member {member} is missing")))?;
            identities.push(peer.identity);
            addresses.push(peer.address.clone());
        }
        Ok((addresses, identities))
    }
}

struct Check<'a> {
    path: &'a Path,
}

impl Check<'_> {
    fn no(&self, key: &str, got: &str, allows: &str) -> ConfigError {
        let got = got.chars().take(100).collect();
        ConfigError::NotAllowed { path: self.path.to_owned(), key: key.to_owned(), got, allows: allows.to_owned() }
    }

    fn parse<T: FromStr>(&self, key: &str, text: &str, allows: &str) -> Result<T, ConfigError> {
        text.parse().map_err(|_| self.no(key, text, allows))
    }

    fn peer(&self, file: &PeerFile) -> Result<PeerConfig, ConfigError> {
        let member = self.parse("peers.member", &file.member, "66 hex digits")?;
        let identity = self.parse("peers.identity", &file.identity, "64 hex digits")?;
        let allows = "/ip4/../tcp/../p2p/.. or /dns4/../tcp/../p2p/.., ending in the peer id";
        let mut address: Multiaddr = self.parse("peers.address", &file.address, allows)?;
        match address.pop() {
            Some(Protocol::P2p(peer)) if is_tcp(&address) => {
                Ok(PeerConfig { member, identity, address: PeerAddress { peer, address } })
            }
            _ => Err(self.no("peers.address", &file.address, allows)),
        }
    }
}

fn is_tcp(address: &Multiaddr) -> bool {
    let parts: Vec<Protocol<'_>> = address.iter().collect();
    let host =
        matches!(parts.first(), Some(Protocol::Ip4(_) | Protocol::Ip6(_) | Protocol::Dns4(_) | Protocol::Dns6(_)));
    host && parts.len() == 2 && matches!(parts[1], Protocol::Tcp(_))
}

/// What a new settings file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Where the passphrase is.
    pub passphrase_file: Option<PathBuf>,
    /// The member's own node.
    pub node: String,
    /// The member's own bitcoinds.
    pub bitcoin: Vec<String>,
    /// The file with bitcoind's user and password.
    pub credentials_file: PathBuf,
    /// Where to listen.
    pub listen: Multiaddr,
    /// Waits of sessions, where they are not the default.
    pub timing: Timing,
    /// The other members.
    pub peers: Vec<PeerConfig>,
}

impl Template {
    /// A settings file, with every key explained.
    pub fn to_toml(&self) -> String {
        let text = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let list = |items: &[String]| items.iter().map(|item| text(item)).collect::<Vec<_>>().join(", ");
        let path = |path: &Path| text(&path.display().to_string());
        let passphrase = match &self.passphrase_file {
            Some(file) => format!("passphrase_file = {}", path(file)),
            None => "# passphrase_file = \"/run/credentials/member-passphrase\"".to_owned(),
        };
        let Timing { key_path, propose, attempt, resend } = self.timing;
        let mut out = format!(
            "\
# The settings of one member of a Causeway federation. What every node of the network shares is in chainspec.toml.
# Paths that are not absolute start at this file's directory.

[keys]
# A file of mode 0600 whose first line is the passphrase of member.key. Left out: --passphrase-file, the environment
# variable CAUSEWAY_MEMBER_PASSPHRASE, or the terminal. Keep it on another disk than the key, or it protects nothing.
{passphrase}

[node]
# REST of this member's OWN validating Causeway node, http://IP:port. Whoever controls that node decides what this member
# signs: never another operator's.
url = {node}

[bitcoin]
# This member's OWN bitcoind (Bitcoin Core 30 or newer, not pruned away below the oldest coin), IP:port; the first that
# answers is asked. Plain HTTP: loopback, or through a tunnel.
endpoints = [{bitcoin}]
# bitcoind's .cookie, or a file with user:password on its first line.
credentials_file = {credentials}

[transport]
# Where the other members reach this one: /ip4/../tcp/.. Only they can connect.
listen = {listen}

[session]
# How long a signing session waits, 100 to 600000 ms. Much shorter waits than the other members' waste attempts.
# For all members, before the key path is given up.
key_path_ms = {key_path}
# For a coordinator to say who signs.
propose_ms = {propose}
# For nonces and partial signatures.
attempt_ms = {attempt}
# Between repetitions.
resend_ms = {resend}

[log]
# error, warn, info, debug, or filters as of the tracing crate. Secrets are never logged.
level = \"info\"

# Every other member: the three lines that its operator's \"keygen\" printed, with the address that is reachable from here.
# Compare the keys over a second channel.
",
            node = text(&self.node),
            bitcoin = list(&self.bitcoin),
            credentials = path(&self.credentials_file),
            listen = text(&self.listen.to_string()),
            key_path = key_path.as_millis(),
            propose = propose.as_millis(),
            attempt = attempt.as_millis(),
            resend = resend.as_millis(),
        );
        for PeerConfig { member, identity, address } in &self.peers {
            out.push_str(&peer_toml(member, identity, &address.address, &address.peer));
        }
        out
    }
}

/// What the other members write into their settings for this one.
pub fn peer_toml(member: &PublicKey, identity: &XOnlyPublicKey, address: &Multiaddr, peer: &PeerId) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write!(
        out,
        "\n[[peers]]\nmember = \"{member}\"\nidentity = \"{identity}\"\naddress = \"{address}/p2p/{peer}\"\n"
    );
    out
}

#[cfg(test)]
mod tests;
