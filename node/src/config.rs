//! The settings of one node. Nothing here changes what is valid: that is the chainspec's.
//!
//! [`keys::KEYS`] documents every key, with bounds; [`Config::to_toml`] writes them all.

pub mod keys;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bitcoin::address::NetworkUnchecked;
use bitcoin::{Address, Network, ScriptBuf, WitnessVersion};
use causeway_chainspec::SatPerKvb;
use causeway_consensus::bft::LinearTimeouts;
use causeway_consensus::state::{Index, StoreOptions};
use causeway_federation::bitcoind::{BitcoindConfig, ENDPOINTS_MAX, Endpoint, EndpointConfig};
use causeway_federation::files::{TextFileError, read_text};
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::mempool::Policy;
use crate::rest;
use keys::{AddressForm, Allowed, KEYS, KeyDoc, SECTIONS};

/// Most bytes of a settings file.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

const HEAD: &str = "\
# The settings of one Causeway node. Every key stands here with what it may be and what changing it risks.
# A key that is left out has its default. What every node of the network shares is in chainspec.toml.
";

/// Why settings are refused. One line, with file and key.
#[expect(missing_docs, reason = "every variant is documented, and its message names its fields")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the settings cannot be read")]
    Read(#[source] TextFileError),
    /// Not TOML, an unknown key, or a value of the wrong type.
    #[error("{} line {line}{}: {problem}{}", path.display(), named(key), allowed(allows))]
    Syntax { path: PathBuf, line: usize, key: String, problem: String, allows: String },
    /// A value that its key does not allow.
    #[error("{}, key {key}: {got} is not allowed; allowed: {allows}", path.display())]
    NotAllowed { path: PathBuf, key: String, got: String, allows: String },
}

fn named(key: &str) -> String {
    if key.is_empty() { String::new() } else { format!(", key {key}") }
}

fn allowed(allows: &str) -> String {
    if allows.is_empty() { String::new() } else { format!("; allowed: {allows}") }
}

/// The settings of one node. [`Config::default`] is what a key that is left out means.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The network of peers.
    pub p2p: P2pConfig,
    /// REST.
    pub rest: RestConfig,
    /// Metrics and health.
    pub metrics: MetricsConfig,
    /// Agreement.
    pub consensus: ConsensusConfig,
    /// Transactions that wait.
    pub mempool: MempoolConfig,
    /// The chain on disk.
    pub store: StoreConfig,
    /// The operator's own bitcoind; None for a node that does not ask Bitcoin.
    pub bitcoin: Option<BitcoinConfig>,
    /// What the operator reads.
    pub log: LogConfig,
}

/// The network of peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct P2pConfig {
    /// Where to listen.
    pub listen: Vec<Multiaddr>,
    /// Where others reach this node.
    pub external: Vec<Multiaddr>,
    /// Whom to ask for peers. Each ends in a peer id; a name may stand for any.
    pub seeds: Vec<Multiaddr>,
    /// Whom to stay connected to. Each ends in a peer id.
    pub persistent_peers: Vec<Multiaddr>,
    /// Whom to be connected to and nobody else, if there are any. Each ends in a peer id.
    pub only: Vec<Multiaddr>,
    /// Most connections.
    pub max_connections: u32,
    /// Most connections of one IP address.
    pub max_connections_per_address: u32,
    /// Connections that this node makes by itself.
    pub outbound: u32,
}

/// REST.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RestConfig {
    /// Whether it is served.
    pub enabled: bool,
    /// Where.
    pub bind: SocketAddr,
    /// Most connections.
    pub max_connections: u32,
    /// Most connections of one IP address.
    pub max_connections_per_address: u32,
}

/// Metrics and health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// Whether they are served.
    pub enabled: bool,
    /// Where.
    pub bind: SocketAddr,
}

/// Agreement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConsensusConfig {
    /// Who gets the fees of this node's blocks: an address of the chain, or nothing for the validator's own key.
    pub fee_address: String,
    /// How long to wait for a proposal.
    pub propose_ms: u64,
    /// How long to wait for prevotes that agree.
    pub prevote_ms: u64,
    /// How long to wait for precommits that agree.
    pub precommit_ms: u64,
}

/// Transactions that wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MempoolConfig {
    /// Most memory.
    pub max_bytes: usize,
    /// Least feerate.
    pub min_relay_sat_per_kvb: u64,
    /// How long a transaction stays.
    pub expiry_s: u64,
    /// Whether they are saved when the node stops.
    pub persist: bool,
}

/// The chain on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// Memory for coins, in MiB.
    pub coin_cache_mb: usize,
    /// Memory for coins that wait to be written, in MiB.
    pub pending_coins_mb: usize,
    /// Memory for table blocks, in MiB.
    pub block_cache_mb: usize,
    /// Memory for writes of one column family, in MiB.
    pub write_buffer_mb: usize,
    /// What is kept for wallets.
    pub index: IndexConfig,
}

/// What is kept for wallets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IndexConfig {
    /// Where transactions stand, histories of scripts, who spent what.
    #[default]
    All,
    /// Nothing.
    None,
}

/// The operator's own bitcoind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BitcoinConfig {
    /// Where it listens for RPC; several in the order of preference.
    #[serde(with = "endpoint_texts")]
    pub endpoints: Vec<Endpoint>,
    /// A file with `user:password` for all of them.
    pub cookie: PathBuf,
    /// How long a Bitcoin block must have been seen before this validator proposes its header.
    pub header_delay_s: u64,
    /// How often its best block is asked for.
    pub poll_ms: u64,
}

/// Endpoints as the texts that they are written as.
mod endpoint_texts {
    use causeway_federation::bitcoind::Endpoint;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(endpoints: &[Endpoint], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(endpoints.iter().map(ToString::to_string))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Endpoint>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.iter().map(|text| text.parse().map_err(|error| de::Error::custom(format!("{text:?}: {error}")))).collect()
    }
}

/// What the operator reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// What is told: a level, or directives of `tracing_subscriber`.
    pub level: String,
}

impl Default for P2pConfig {
    fn default() -> Self {
        Self {
            listen: ["/ip4/0.0.0.0/tcp/29333", "/ip6/::/tcp/29333"].map(|at| at.parse().expect("a multiaddr")).into(),
            external: Vec::new(),
            seeds: Vec::new(),
            persistent_peers: Vec::new(),
            only: Vec::new(),
            max_connections: 128,
            max_connections_per_address: 8,
            outbound: 12,
        }
    }
}

impl Default for RestConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            bind: SocketAddr::from(([127, 0, 0, 1], 29380)),
            max_connections: 512,
            max_connections_per_address: 64,
        }
    }
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { enabled: true, bind: SocketAddr::from(([127, 0, 0, 1], 29390)) }
    }
}

impl Default for ConsensusConfig {
    fn default() -> Self {
        Self { fee_address: String::new(), propose_ms: 3_000, prevote_ms: 1_000, precommit_ms: 1_000 }
    }
}

impl Default for MempoolConfig {
    fn default() -> Self {
        let policy = Policy::default();
        Self {
            max_bytes: policy.max_memory_bytes,
            min_relay_sat_per_kvb: policy.min_relay.0,
            expiry_s: policy.expiry_s,
            persist: true,
        }
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            coin_cache_mb: 256,
            pending_coins_mb: 512,
            block_cache_mb: 64,
            write_buffer_mb: 64,
            index: IndexConfig::All,
        }
    }
}

impl Default for BitcoinConfig {
    fn default() -> Self {
        Self {
            endpoints: vec![Endpoint::default_of(Network::Bitcoin)],
            // As the service files that come with Bitcoin Core have it.
            cookie: "/var/lib/bitcoind/.cookie".into(),
            header_delay_s: 30,
            poll_ms: 1_000,
        }
    }
}

impl BitcoinConfig {
    /// How long a Bitcoin block must have been seen before this validator proposes its header (PEG section 7).
    pub fn header_delay(&self) -> Duration {
        Duration::from_secs(self.header_delay_s)
    }

    /// How often the best block is asked for.
    pub fn poll(&self) -> Duration {
        Duration::from_millis(self.poll_ms)
    }

    /// The client's settings on the Bitcoin network that the chain's peg stands on.
    pub fn client(&self, network: Network) -> BitcoindConfig {
        let credentials =
            |endpoint: &Endpoint| EndpointConfig { endpoint: endpoint.clone(), credentials_file: self.cookie.clone() };
        BitcoindConfig::new(network, self.endpoints.iter().map(credentials).collect())
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level:
                "info,arc_malachitebft_core_consensus=warn,libp2p=warn,libp2p_swarm=warn,libp2p_identify=error,warp=off"
                    .to_owned(),
        }
    }
}

impl Config {
    /// The settings in a file.
    ///
    /// # Errors
    /// The first thing that is wrong, in one line with file and key.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::from_toml(&read_text(path, CONFIG_BYTES_MAX).map_err(ConfigError::Read)?, path)
    }

    /// The settings in a text; `path` is for the errors.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_toml(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| syntax_error(text, path, &error))?;
        config.check(path)?;
        Ok(config)
    }

    /// Checks what the types leave open; `path` is for the errors.
    ///
    /// # Errors
    /// The first key whose value is not allowed.
    pub fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let table = self.to_table();
        for doc in KEYS {
            let Some(value) = table.get(doc.section).and_then(|section| section.get(doc.name)) else { continue };
            if let Some(got) = refused(doc, value) {
                let (key, allows) = (doc.path(), doc.allows());
                return Err(ConfigError::NotAllowed { path: path.to_owned(), key, got, allows });
            }
        }
        self.check_only(path)
    }

    /// Who has only some peers neither looks for others nor tells them where it is.
    fn check_only(&self, path: &Path) -> Result<(), ConfigError> {
        let P2pConfig { external, seeds, persistent_peers, only, .. } = &self.p2p;
        let others = [("external", external), ("seeds", seeds), ("persistent_peers", persistent_peers)];
        match others.into_iter().find(|(_, list)| !only.is_empty() && !list.is_empty()) {
            None => Ok(()),
            Some((name, list)) => Err(ConfigError::NotAllowed {
                path: path.to_owned(),
                key: format!("p2p.{name}"),
                got: format!("{:?}", list.iter().map(ToString::to_string).collect::<Vec<_>>()),
                allows: "[] where p2p.only names the only peers".to_owned(),
            }),
        }
    }

    /// The settings as a file with every key and its documentation. It reads back as the same settings: a section that is
    /// absent stands there commented out.
    pub fn to_toml(&self) -> String {
        let table = self.to_table();
        let mut text = HEAD.to_owned();
        for (section, meaning) in SECTIONS {
            // Writing to a string does not fail.
            let mark = if table.contains_key(*section) { "" } else { "#" };
            let _ = writeln!(text, "\n# {meaning}\n{mark}[{section}]");
            for doc in KEYS.iter().filter(|doc| doc.section == *section) {
                let value = table.get(*section).and_then(|table| table.get(doc.name));
                let value = value.map_or_else(|| default_of(doc), Value::to_string);
                for line in doc.meaning {
                    let _ = writeln!(text, "# {line}");
                }
                let _ = writeln!(text, "# Allowed: {}. Default: {}.", doc.allows(), default_of(doc));
                let _ = writeln!(text, "{mark}{} = {value}", doc.name);
            }
        }
        text
    }

    /// How long the engine waits: half a second more with every round, up to a minute.
    pub fn timeouts(&self) -> LinearTimeouts {
        let ConsensusConfig { propose_ms, prevote_ms, precommit_ms, .. } = self.consensus;
        let [propose, prevote, precommit] = [propose_ms, prevote_ms, precommit_ms].map(Duration::from_millis);
        LinearTimeouts { propose, prevote, precommit, rebroadcast: propose + prevote + precommit, ..Default::default() }
    }

    /// The policy of the mempool.
    pub fn mempool_policy(&self) -> Policy {
        Policy {
            min_relay: SatPerKvb(self.mempool.min_relay_sat_per_kvb),
            max_memory_bytes: self.mempool.max_bytes,
            expiry_s: self.mempool.expiry_s,
            ..Policy::default()
        }
    }

    /// What REST is served with.
    pub fn rest_config(&self) -> rest::Config {
        let RestConfig { bind, max_connections, max_connections_per_address, .. } = self.rest;
        let count = |limit| usize::try_from(limit).unwrap_or(usize::MAX);
        rest::Config {
            bind,
            max_connections: count(max_connections),
            max_connections_per_address: count(max_connections_per_address),
        }
    }

    /// The memory of the store.
    pub fn store_options(&self) -> StoreOptions {
        let bytes = |mb: usize| mb.saturating_mul(1 << 20);
        StoreOptions {
            coin_cache_bytes: bytes(self.store.coin_cache_mb),
            pending_coin_bytes: bytes(self.store.pending_coins_mb),
            block_cache_bytes: bytes(self.store.block_cache_mb),
            write_buffer_bytes: bytes(self.store.write_buffer_mb),
            index: match self.store.index {
                IndexConfig::All => Index::All,
                IndexConfig::None => Index::None,
            },
            // A node has more to do meanwhile.
            build_index_later: true,
            ..StoreOptions::default()
        }
    }

    /// The script of `consensus.fee_address` on a chain of this identity; None if none is set. `path` is for the errors.
    ///
    /// # Errors
    /// It is no address of the chain, or one that a block's fees cannot be paid to.
    pub fn fee_script(&self, identity: Network, path: &Path) -> Result<Option<ScriptBuf>, ConfigError> {
        let text = &self.consensus.fee_address;
        if text.is_empty() {
            return Ok(None);
        }
        let address: Option<Address<NetworkUnchecked>> = text.parse().ok();
        let script = address.and_then(|it| it.require_network(identity).ok()).map(|it| it.script_pubkey());
        // The peg gives version 16 its meanings; a block pays no fees there.
        let script = script.filter(|script| script.witness_version() != Some(WitnessVersion::V16));
        script.map(Some).ok_or_else(|| ConfigError::NotAllowed {
            path: path.to_owned(),
            key: "consensus.fee_address".to_owned(),
            got: format!("{text:?}"),
            allows: format!("an address of {identity} that is no peg-out address, or \"\""),
        })
    }

    fn to_table(&self) -> Table {
        Table::try_from(self).expect("settings are numbers, texts and lists of texts")
    }
}

fn default_of(doc: &KeyDoc) -> String {
    let table = Config { bitcoin: Some(BitcoinConfig::default()), ..Config::default() }.to_table();
    table.get(doc.section).and_then(|table| table.get(doc.name)).map(Value::to_string).unwrap_or_default()
}

/// What of a value the key does not allow.
fn refused(doc: &KeyDoc, value: &Value) -> Option<String> {
    let shown = || Some(value.to_string());
    match (doc.allowed, value) {
        (Allowed::Number { min, max, .. }, Value::Integer(got)) if !(min..=max).contains(got) => shown(),
        (Allowed::Words(words), Value::String(word)) if !words.contains(&word.as_str()) => shown(),
        (Allowed::LogFilter, Value::String(filter)) if !is_log_filter(filter) => shown(),
        (Allowed::Endpoints, Value::Array(list)) if list.is_empty() || list.len() > ENDPOINTS_MAX => shown(),
        // What a relative path means depends on where the node is started.
        (Allowed::File, Value::String(path)) if !Path::new(path).is_absolute() => shown(),
        (Allowed::Addresses(form), Value::Array(list)) => {
            let wrong = list.iter().filter_map(Value::as_str).find(|address| !is_of_form(address, form));
            wrong.map(|address| format!("{address:?}"))
        }
        _ => None,
    }
}

/// Whether a text is a multiaddress over TCP with what the form asks for, and nothing else.
fn is_of_form(text: &str, form: AddressForm) -> bool {
    let Ok(address) = text.parse::<Multiaddr>() else { return false };
    let mut parts = address.iter();
    let is_named = match parts.next() {
        Some(Protocol::Ip4(_) | Protocol::Ip6(_)) => false,
        Some(Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_)) => true,
        _ => return false,
    };
    let is_tcp = matches!(parts.next(), Some(Protocol::Tcp(_)));
    let peer = parts.next();
    let has_peer = matches!(peer, Some(Protocol::P2p(_)));
    let fits = match form {
        AddressForm::Listen => !is_named,
        AddressForm::External => true,
        AddressForm::Seed => is_named || has_peer,
        AddressForm::Peer => has_peer,
    };
    is_tcp && fits && (peer.is_none() || has_peer) && parts.next().is_none()
}

/// A word that is no level would be taken for the name of a module.
fn is_log_filter(filter: &str) -> bool {
    let level = |word: &str| word.parse::<LevelFilter>().is_ok();
    filter
        .split(',')
        .all(|part| part.split_once('=').map_or_else(|| level(part.trim()), |(_, word)| level(word.trim())))
        && EnvFilter::try_new(filter).is_ok()
}

/// One line for what the parser says on many: where it is, in which key, and what that key allows.
fn syntax_error(text: &str, path: &Path, error: &toml::de::Error) -> ConfigError {
    let at = error.span().map_or(0, |span| span.start).min(text.len());
    let before = text.get(..at).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line_text = text.get(line_start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
    let header = |line: &str| line.trim().strip_prefix('[')?.split_once(']').map(|(name, _)| name.trim().to_owned());
    let section = text.get(..line_start).unwrap_or_default().lines().rev().find_map(header);
    let name = line_text.split_once('=').map(|(name, _)| name.trim());
    let key = match (&section, name) {
        (Some(section), Some(name)) => format!("{section}.{name}"),
        (None, Some(name)) => name.to_owned(),
        (_, None) => String::new(),
    };
    let doc = KEYS.iter().find(|doc| doc.path() == key);
    ConfigError::Syntax {
        path: path.to_owned(),
        line: before.matches('\n').count() + 1,
        key,
        problem: error.message().replace('\n', " "),
        allows: doc.map(KeyDoc::allows).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
