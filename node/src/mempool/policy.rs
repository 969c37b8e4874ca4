//! What this node relays and keeps: Bitcoin Core's numbers (31.99), in names.

use bitcoin::Weight;
use causeway_chainspec::SatPerKvb;
use causeway_consensus::sigops::MAX_SIGOPS_COST;

/// The heaviest standard transaction (Core: `MAX_STANDARD_TX_WEIGHT`).
pub const MAX_STANDARD_TX_WEIGHT: Weight = Weight::from_wu(400_000);

/// The least size of a transaction without its witnesses, in bytes: one more than two hashes, which a merkle proof could
/// take for an inner node (CVE-2017-12842; Core: `MIN_STANDARD_TX_NONWITNESS_SIZE`).
pub const MIN_STANDARD_TX_BYTES: usize = 65;

/// Standard transaction versions (Core: `TX_MIN_STANDARD_VERSION`, `TX_MAX_STANDARD_VERSION`).
pub const STANDARD_VERSIONS: std::ops::RangeInclusive<i32> = 1..=3;

/// The largest standard scriptSig, in bytes (Core: `MAX_STANDARD_SCRIPTSIG_SIZE`).
pub const MAX_SCRIPTSIG_BYTES: usize = 1_650;

/// The largest standard P2WSH script, in bytes (Core: `MAX_STANDARD_P2WSH_SCRIPT_SIZE`).
pub const MAX_P2WSH_SCRIPT_BYTES: usize = 3_600;

/// The most witness elements in front of a P2WSH script (Core: `MAX_STANDARD_P2WSH_STACK_ITEMS`).
pub const MAX_P2WSH_STACK_ITEMS: usize = 100;

/// The largest such element, and the largest of a tapscript, in bytes (Core: `MAX_STANDARD_P2WSH_STACK_ITEM_SIZE`,
/// `MAX_STANDARD_TAPSCRIPT_STACK_ITEM_SIZE`).
pub const MAX_STACK_ITEM_BYTES: usize = 80;

/// The most signature operations in a P2SH script (Core: `MAX_P2SH_SIGOPS`).
pub const MAX_P2SH_SIGOPS: usize = 15;

/// The most that a transaction's signature operations may cost (Core: `MAX_STANDARD_TX_SIGOPS_COST`): 80,000 / 5.
pub const MAX_TX_SIGOPS_COST: usize = MAX_SIGOPS_COST / 5;

/// Weight units that one unit of signature operation cost counts as at least (Core: `DEFAULT_BYTES_PER_SIGOP`).
pub const WEIGHT_PER_SIGOP_COST: u64 = 20;

/// The largest TRUC transaction, in virtual bytes (BIP-0431; Core: `TRUC_MAX_VSIZE`).
pub const TRUC_MAX_VSIZE: u64 = 10_000;

/// The largest TRUC transaction with an unconfirmed parent, in virtual bytes (Core: `TRUC_CHILD_MAX_VSIZE`).
pub const TRUC_CHILD_MAX_VSIZE: u64 = 1_000;

/// The most dust outputs of a transaction. A transaction with one pays no fee, so that it enters, and is mined, only with
/// the child that spends it (Core: `MAX_DUST_OUTPUTS_PER_TX`).
pub const MAX_DUST_OUTPUTS: usize = 1;

/// The most transactions of a package (Core: `MAX_PACKAGE_COUNT`).
pub const MAX_PACKAGE_COUNT: usize = 25;

/// The heaviest package of several transactions (Core: `MAX_PACKAGE_WEIGHT`).
pub const MAX_PACKAGE_WEIGHT: Weight = Weight::from_wu(404_000);

/// The most transactions that one replacement may evict (Core up to 30; 31.99 counts clusters of 64 instead).
pub const MAX_REPLACED: usize = 100;

/// What an operator can set. [`Policy::default`] is Bitcoin Core's default of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The least feerate of a transaction (`-minrelaytxfee`).
    pub min_relay: SatPerKvb,
    /// The least feerate that a replacement adds, and that the pool's minimum grows by when it is full
    /// (`-incrementalrelayfee`).
    pub incremental_relay: SatPerKvb,
    /// The feerate that an output must be worth spending at (`-dustrelayfee`).
    pub dust_relay: SatPerKvb,
    /// The most bytes of OP_RETURN scripts in one transaction (`-datacarriersize`): 400,000 / 4, as good as no limit.
    pub max_datacarrier_bytes: usize,
    /// Whether bare multisig outputs, of up to three keys, are standard (`-permitbaremultisig`).
    pub bare_multisig: BareMultisig,
    /// Limits of the pool's graph.
    pub limits: Limits,
    /// The most memory that the pool may take by its own count, in bytes (`-maxmempool`): see
    /// [`Entry::memory`](super::Entry::memory).
    pub max_memory_bytes: usize,
    /// How long a transaction stays, in seconds (`-mempoolexpiry`): 336 hours.
    pub expiry_s: u64,
}

/// Whether bare multisig outputs are relayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BareMultisig {
    /// They are.
    Permitted,
    /// They are refused.
    Refused,
}

/// How far transactions of the pool may hang together, each transaction counting itself.
///
/// What wallets know: 25 transactions and 101,000 virtual bytes in each direction (Core up to 30). Core 31.99 bounds whole
/// clusters instead (64 transactions), which takes some chains that these limits refuse and the other way round; its wallet
/// still counts by these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Ancestors (`-limitancestorcount`).
    pub ancestors: usize,
    /// Their virtual bytes together.
    pub ancestors_vsize: u64,
    /// Descendants (`-limitdescendantcount`).
    pub descendants: usize,
    /// Their virtual bytes together.
    pub descendants_vsize: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { ancestors: 25, ancestors_vsize: 101_000, descendants: 25, descendants_vsize: 101_000 }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            min_relay: SatPerKvb(100),
            incremental_relay: SatPerKvb(100),
            dust_relay: SatPerKvb(3_000),
            max_datacarrier_bytes: 100_000,
            bare_multisig: BareMultisig::Permitted,
            limits: Limits::default(),
            max_memory_bytes: 300_000_000,
            expiry_s: 336 * 3_600,
        }
    }
}

/// Returns the virtual size in bytes that fees are counted for: weight / 4, or what the signature operations count as if
/// that is more, rounded up (Core: `GetVirtualTransactionSize`).
pub fn virtual_size(weight: Weight, sigops_cost: usize) -> u64 {
    adjusted_weight(weight, sigops_cost).to_wu().div_ceil(4)
}

/// Returns the weight, or what the signature operations count as if that is more (Core: `GetSigOpsAdjustedWeight`).
pub fn adjusted_weight(weight: Weight, sigops_cost: usize) -> Weight {
    weight.max(Weight::from_wu(sigops_cost as u64 * WEIGHT_PER_SIGOP_COST))
}
