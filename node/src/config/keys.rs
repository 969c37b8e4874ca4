//! What every key of the settings means, what it may be, and what changing it risks.

use causeway_federation::bitcoind::ENDPOINTS_MAX;

/// A key of the settings.
#[derive(Clone, Copy, Debug)]
pub struct KeyDoc {
    /// The section that holds it.
    pub section: &'static str,
    /// Its name there.
    pub name: &'static str,
    /// What it may be.
    pub allowed: Allowed,
    /// What it means and what changing it risks, in lines.
    pub meaning: &'static [&'static str],
}

/// What a value may be, beyond its type.
#[derive(Clone, Copy, Debug)]
pub enum Allowed {
    /// A whole number within bounds.
    Number {
        /// Least.
        min: i64,
        /// Greatest.
        max: i64,
        /// Its unit; empty for a plain number.
        unit: &'static str,
    },
    /// True or false.
    Switch,
    /// One of these words.
    Words(&'static [&'static str]),
    /// A list of multiaddresses over TCP.
    Addresses(AddressForm),
    /// An IP address and a port.
    Socket,
    /// Where bitcoinds listen for RPC.
    Endpoints,
    /// A file.
    File,
    /// An address of the chain. Checked against the chainspec.
    Address,
    /// What to log.
    LogFilter,
}

/// What a multiaddress must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressForm {
    /// An IP address of this machine.
    Listen,
    /// An IP address or a name.
    External,
    /// An IP address and a peer id, or a name, behind which any peer may be.
    Seed,
    /// An IP address or a name, and a peer id.
    Peer,
}

impl AddressForm {
    /// The same in words.
    fn allows(self) -> &'static str {
        match self {
            Self::Listen => "a list of multiaddresses over TCP such as \"/ip4/0.0.0.0/tcp/29333\"",
            Self::External => {
                "a list of multiaddresses over TCP such as \"/ip4/192.0.2.1/tcp/29333\" or \"/dns4/a.example/tcp/29333\""
            }
            Self::Seed => {
                "a list of multiaddresses with a peer id such as \"/ip4/192.0.2.1/tcp/29333/p2p/12D3..\", or with a name such as \"/dns4/a.example/tcp/29333\""
            }
            Self::Peer => {
                "a list of multiaddresses with a peer id such as \"/ip4/192.0.2.1/tcp/29333/p2p/12D3..\" or \"/dns4/a.example/tcp/29333/p2p/12D3..\""
            }
        }
    }
}

impl KeyDoc {
    /// The key with its section.
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// What it may be, in words.
    pub fn allows(&self) -> String {
        match self.allowed {
            Allowed::Number { min, max, unit: "" } => format!("{min} to {max}"),
            Allowed::Number { min, max, unit } => format!("{min} to {max} {unit}"),
            Allowed::Switch => "true or false".to_owned(),
            Allowed::Words(words) => words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" or "),
            Allowed::Addresses(form) => form.allows().to_owned(),
            Allowed::Socket => "an IP address and a port such as \"127.0.0.1:29380\"".to_owned(),
            Allowed::Endpoints => {
                format!("a list of 1 to {ENDPOINTS_MAX} of IP:port or host:port such as \"127.0.0.1:8332\"")
            }
            Allowed::File => "the absolute path of a file".to_owned(),
            Allowed::Address => "an address of the chain, or \"\"".to_owned(),
            Allowed::LogFilter => {
                "error, warn, info, debug, trace, or such levels by module as in \"info,causeway_node=debug\""
                    .to_owned()
            }
        }
    }
}

/// The sections, in the order of the file, and what they are about.
pub const SECTIONS: &[(&str, &str)] = &[
    ("p2p", "The network of peers."),
    ("rest", "REST, for wallets and for \"causeway status\"."),
    (
        "metrics",
        "Prometheus metrics at /metrics, checks at /health/live and /health/ready, for the operator's machines.",
    ),
    ("consensus", "Agreement on blocks. A full node follows by the same timeouts and gets no fees."),
    ("mempool", "The transactions that wait for a block. Policy of this node alone: blocks may hold others."),
    ("store", "The chain on disk. The sizes are memory; too little is slow, too much and the system stops the node."),
    (
        "bitcoin",
        "This operator's own bitcoind (Bitcoin Core 30 or newer). Absent: a node without Bitcoin, as a full node may be.",
    ),
    ("log", "What the node tells on standard error."),
];

const MIB: &str = "MiB";
const MILLISECONDS: &str = "milliseconds";

/// Every key, in the order of the file.
pub const KEYS: &[KeyDoc] = &[
    KeyDoc {
        section: "p2p",
        name: "listen",
        allowed: Allowed::Addresses(AddressForm::Listen),
        meaning: &[
            "Where to listen for peers; /ip6/:: is left out on a machine without IPv6. With [] nobody can connect to this",
            "node: it only connects to others.",
        ],
    },
    KeyDoc {
        section: "p2p",
        name: "external",
        allowed: Allowed::Addresses(AddressForm::External),
        meaning: &[
            "Where others reach this node, if that is another address than it listens at, as behind a router. A wrong",
            "one sends peers away from this node. A name is looked up every ten minutes.",
        ],
    },
    KeyDoc {
        section: "p2p",
        name: "seeds",
        allowed: Allowed::Addresses(AddressForm::Seed),
        meaning: &[
            "Nodes to ask for more peers while there are too few. A name may stand for many nodes, one of which is asked",
            "each time. If all of them lie at the first start, this node sees only their network; later it knows others.",
        ],
    },
    KeyDoc {
        section: "p2p",
        name: "persistent_peers",
        allowed: Allowed::Addresses(AddressForm::Peer),
        meaning: &[
            "Nodes to stay connected to, beyond every limit below: the other validators, for a validator. They are told to",
            "nobody: a validator among them stays hidden behind this node.",
        ],
    },
    KeyDoc {
        section: "p2p",
        name: "only",
        allowed: Allowed::Addresses(AddressForm::Peer),
        meaning: &[
            "If any are named: this node dials and accepts them and nobody else, and tells nobody where it is. For a",
            "validator behind full nodes of its own (sentries), which have it in their persistent_peers; external, seeds",
            "and persistent_peers are empty here then, and listen may be []. With few, whoever stops them cuts it off.",
        ],
    },
    KeyDoc {
        section: "p2p",
        name: "max_connections",
        allowed: Allowed::Number { min: 1, max: 10_000, unit: "connections" },
        meaning: &[
            "Most connections at once. Each takes memory and bandwidth; too few and the node is easy to isolate.",
        ],
    },
    KeyDoc {
        section: "p2p",
        name: "max_connections_per_address",
        allowed: Allowed::Number { min: 1, max: 10_000, unit: "connections" },
        meaning: &[
            "Most connections of one IP address. More lets one stranger take the room of many; several nodes on one",
            "machine need more.",
        ],
    },
    KeyDoc {
        section: "p2p",
        name: "outbound",
        allowed: Allowed::Number { min: 0, max: 1_000, unit: "connections" },
        meaning: &[
            "Connections that this node makes by itself. Strangers choose the others: with too few of its own, they",
            "decide what this node hears.",
        ],
    },
    KeyDoc {
        section: "rest",
        name: "enabled",
        allowed: Allowed::Switch,
        meaning: &["Whether REST is served. Without it \"causeway status\" cannot ask a running node."],
    },
    KeyDoc {
        section: "rest",
        name: "bind",
        allowed: Allowed::Socket,
        meaning: &[
            "Where REST listens. It has no passwords: anything but 127.0.0.1 or [::1] lets others use it, so put a proxy",
            "with limits in front.",
        ],
    },
    KeyDoc {
        section: "rest",
        name: "max_connections",
        allowed: Allowed::Number { min: 1, max: 10_000, unit: "connections" },
        meaning: &[
            "Most connections at once; more are told so and closed. Each takes an open file (ulimit -n) and, while it",
            "sends, up to 64 KiB. Too few and a page with many users is slow.",
        ],
    },
    KeyDoc {
        section: "rest",
        name: "max_connections_per_address",
        allowed: Allowed::Number { min: 1, max: 10_000, unit: "connections" },
        meaning: &[
            "Most connections of one IP address (IPv6: of one /64); half of them may have a request under way. More lets",
            "one stranger take the room of many. A proxy on another machine needs as many as there are in all; one on",
            "this machine has them anyway: loopback addresses are not limited by this.",
        ],
    },
    KeyDoc {
        section: "metrics",
        name: "enabled",
        allowed: Allowed::Switch,
        meaning: &["Whether they are served. Without them nobody is told of a node that falls behind or stops."],
    },
    KeyDoc {
        section: "metrics",
        name: "bind",
        allowed: Allowed::Socket,
        meaning: &[
            "Where they are served. There are no passwords, and they tell much of this node: bind to an address that only",
            "your own machines reach. Each node on a machine needs a port of its own.",
        ],
    },
    KeyDoc {
        section: "consensus",
        name: "fee_address",
        allowed: Allowed::Address,
        meaning: &[
            "Who gets the fees of the blocks that this validator proposes. With \"\" they go to the taproot address (BIP86,",
            "no script) of the validator's own key: then whoever steals that key, which must be online, has the fees too.",
        ],
    },
    KeyDoc {
        section: "consensus",
        name: "propose_ms",
        allowed: Allowed::Number { min: 100, max: 60_000, unit: MILLISECONDS },
        meaning: &[
            "How long to wait for the proposal of a round before voting for none; 500 ms more in every further round. Too",
            "short and slow proposers never succeed; too long and an absent proposer holds the chain up.",
        ],
    },
    KeyDoc {
        section: "consensus",
        name: "prevote_ms",
        allowed: Allowed::Number { min: 100, max: 60_000, unit: MILLISECONDS },
        meaning: &["The same for prevotes that agree, once two thirds have prevoted anything."],
    },
    KeyDoc {
        section: "consensus",
        name: "precommit_ms",
        allowed: Allowed::Number { min: 100, max: 60_000, unit: MILLISECONDS },
        meaning: &["The same for precommits that agree, once two thirds have precommitted anything."],
    },
    KeyDoc {
        section: "mempool",
        name: "max_bytes",
        allowed: Allowed::Number { min: 5_000_000, max: 100_000_000_000, unit: "bytes" },
        meaning: &["Most memory that waiting transactions take. When it is full, those that pay least leave."],
    },
    KeyDoc {
        section: "mempool",
        name: "min_relay_sat_per_kvb",
        allowed: Allowed::Number { min: 1, max: 100_000_000, unit: "sat/kvB" },
        meaning: &[
            "Least feerate of a transaction that this node takes and passes on. Lower lets others fill the pool for less;",
            "higher and this node misses what its peers have.",
        ],
    },
    KeyDoc {
        section: "mempool",
        name: "expiry_s",
        allowed: Allowed::Number { min: 60, max: 31_536_000, unit: "seconds" },
        meaning: &["How long a transaction waits before it is dropped."],
    },
    KeyDoc {
        section: "mempool",
        name: "persist",
        allowed: Allowed::Switch,
        meaning: &["Whether waiting transactions are saved when the node stops, and checked again when it starts."],
    },
    KeyDoc {
        section: "store",
        name: "coin_cache_mb",
        allowed: Allowed::Number { min: 1, max: 1_048_576, unit: MIB },
        meaning: &["Memory for coins that were read or written lately. More makes blocks faster to check."],
    },
    KeyDoc {
        section: "store",
        name: "pending_coins_mb",
        allowed: Allowed::Number { min: 1, max: 1_048_576, unit: MIB },
        meaning: &["Memory for coins that wait to be written while the node is far behind; twice that while they are."],
    },
    KeyDoc {
        section: "store",
        name: "block_cache_mb",
        allowed: Allowed::Number { min: 1, max: 1_048_576, unit: MIB },
        meaning: &["Memory of the database for what it read lately."],
    },
    KeyDoc {
        section: "store",
        name: "write_buffer_mb",
        allowed: Allowed::Number { min: 1, max: 4_096, unit: MIB },
        meaning: &[
            "Memory that the database gathers writes in, for each of its twelve column families: 512 MiB together at most.",
        ],
    },
    KeyDoc {
        section: "store",
        name: "index",
        allowed: Allowed::Words(&["all", "none"]),
        meaning: &[
            "What is kept for wallets: where each transaction stands, what every address received and spent, who spent",
            "each output. It takes about as much disk as the blocks. A validator that serves no wallets needs none of it;",
            "REST then says so. Changed to \"all\", the node reads every block, beside its other work and from where it was",
            "stopped; that may take hours. Changed to \"none\", all of it is dropped at the next start. Where it is damaged, all",
            "else goes on, and the next start builds it again in the same way.",
        ],
    },
    KeyDoc {
        section: "bitcoin",
        name: "endpoints",
        allowed: Allowed::Endpoints,
        meaning: &[
            "Where bitcoind listens for RPC. The first is asked until it fails, then the next. What they say decides what",
            "this validator votes for: name only your own. It is plain HTTP: put a tunnel around it between machines.",
        ],
    },
    KeyDoc {
        section: "bitcoin",
        name: "cookie",
        allowed: Allowed::File,
        meaning: &[
            "A file with user:password on its first line: bitcoind's own .cookie, or one that you wrote for its rpcauth",
            "(for several bitcoinds, which then share it). It is read again for every connection.",
        ],
    },
    KeyDoc {
        section: "bitcoin",
        name: "header_delay_s",
        allowed: Allowed::Number { min: 0, max: 3_600, unit: "seconds" },
        meaning: &[
            "How long a Bitcoin block must have been known before this validator proposes its header. Less and the other",
            "validators' bitcoinds may not know it yet, which costs a round; more and deposits are credited later.",
        ],
    },
    KeyDoc {
        section: "bitcoin",
        name: "poll_ms",
        allowed: Allowed::Number { min: 50, max: 60_000, unit: MILLISECONDS },
        meaning: &["How often bitcoind is asked for its best block."],
    },
    KeyDoc {
        section: "log",
        name: "level",
        allowed: Allowed::LogFilter,
        meaning: &["How much is told. With error alone, a node that falls behind does so in silence."],
    },
];
