//! Everything that is counted, by area. Names are `causeway_<area>_<noun>_<unit>` in base units, amounts in satoshi.
//!
//! What happens is counted when it happens, by whoever performs it: [`Metrics::report`] and the calls beside it. What is so at
//! one moment is set by a scrape from what it sees.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bitcoin::Amount;
use causeway_chainspec::ChainSpec;
use causeway_consensus::Block;
use causeway_consensus::state::{FamilyFigures, IndexState, StoreFigures};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::named::{Area, Level, Levels, Times, Total, Totals};
use super::seen::{NetworkSeen, NodeSeen, now_s};
use crate::machine::{Report, TransactionCounts};
use crate::rest::Meter;
use crate::rest::peg::SourceStanding;

/// Upper ends of the classes of block sizes, in bytes: up to four million, a block's weight limit.
const BLOCK_BYTES: [f64; 8] = [1e3, 1e4, 5e4, 1e5, 5e5, 1e6, 2e6, 4e6];

/// Upper ends of the classes of transactions in a block.
const BLOCK_TRANSACTIONS: [f64; 9] = [1.0, 2.0, 10.0, 50.0, 100.0, 500.0, 1e3, 5e3, 2e4];

/// Everything that is counted in one process. Cheap to clone: all clones count together.
#[derive(Clone)]
pub struct Metrics(Arc<Families>);

struct Families {
    registry: Registry,
    last_block: Mutex<LastBlock>,
    rest: Meter,
    node: NodeFamilies,
    consensus: Consensus,
    mempool: Mempool,
    peg: Peg,
    store: StoreFamilies,
    p2p: P2p,
}

/// The last block that became final here.
#[derive(Clone, Copy)]
struct LastBlock {
    /// When; the start of the process, if there was none.
    at: Instant,
    /// Whether this node saw it decided.
    decided: bool,
}

struct NodeFamilies {
    up: Gauge,
    ready: Gauge,
}

struct Consensus {
    height: Gauge,
    round: Gauge,
    rounds: Total,
    timeouts: Totals,
    blocks: Totals,
    decision: Times,
    vote_delay: Times,
    interval: Times,
    since_block: Level,
    validation: Times,
    assembly: Times,
    block_bytes: Times,
    block_transactions: Times,
    power: Gauge,
    total_power: Gauge,
    validators: Gauge,
    voting: Gauge,
    held: Totals,
    invalid: Total,
    withheld: Total,
    evidence: Total,
    signed_elsewhere: Total,
    body_bytes: Gauge,
}

struct Mempool {
    transactions: Gauge,
    vsize: Gauge,
    bytes: Gauge,
    bytes_max: Gauge,
    min_feerate: Gauge,
    arriving: Gauge,
    accepted: Total,
    rejected: Totals,
    departed: Totals,
    check: Times,
}

struct Peg {
    frozen: Gauge,
    bitcoin_height: Gauge,
    header_age: Level,
    source_configured: Gauge,
    source_reliable: Gauge,
    source_height: Gauge,
    accounts: Vec<(AccountOf, Gauge)>,
    feerate: Gauge,
    open_batches: Gauge,
    open_requests: Gauge,
    coins: Gauge,
    claims: Gauge,
}

/// One amount of the peg's accounts.
type AccountOf = fn(&causeway_consensus::peg::state::Accounts) -> Amount;

struct StoreFamilies {
    tip: Gauge,
    flushed: Gauge,
    coins: Gauge,
    holes: Gauge,
    index_damaged: Gauge,
    pending: Gauge,
    keys: Levels,
    tables: Levels,
    blobs: Levels,
    memtables: Levels,
    cache: Gauge,
    commit: Times,
    syncing: Gauge,
    sync_target: Gauge,
}

struct P2p {
    peers: Levels,
    bans: Total,
    hung_up: Total,
    offences: Totals,
    lost: Totals,
}

impl Metrics {
    /// Nothing counted yet, of a node of this chain.
    pub fn new(spec: &ChainSpec) -> Self {
        let mut registry = Registry::with_prefix("causeway");
        let node = NodeFamilies::new(&mut Area::of(&mut registry, "node"), spec);
        let consensus = Consensus::new(&mut Area::of(&mut registry, "consensus"));
        let mempool = Mempool::new(&mut Area::of(&mut registry, "mempool"));
        let peg = Peg::new(&mut Area::of(&mut registry, "peg"));
        let rest = Meter::default();
        rest.register(registry.sub_registry_with_prefix("rest"));
        let store = StoreFamilies::new(&mut Area::of(&mut registry, "store"));
        let p2p = P2p::new(&mut Area::of(&mut registry, "p2p"));
        let last_block = Mutex::new(LastBlock { at: Instant::now(), decided: false });
        Self(Arc::new(Families { registry, last_block, rest, node, consensus, mempool, peg, store, p2p }))
    }

    /// What REST counts with.
    pub fn rest(&self) -> &Meter {
        &self.0.rest
    }

    /// Counts what a node reports.
    pub fn report(&self, report: &Report) {
        let Families { consensus, p2p, .. } = &*self.0;
        match report {
            Report::Committed { decided_in, .. } => self.final_block(*decided_in),
            Report::InvalidProposal { .. } => drop(consensus.invalid.inc()),
            Report::Held { .. } => consensus.held.add("clock"),
            Report::HeldByBitcoin { .. } => consensus.held.add("bitcoin"),
            Report::Equivocation(_) => drop(consensus.evidence.inc()),
            Report::Withheld { .. } => drop(consensus.withheld.inc()),
            Report::SignedElsewhere { .. } => drop(consensus.signed_elsewhere.inc()),
            Report::Misbehaved { offence, .. } => p2p.offences.add(offence.name()),
            Report::Banned { .. } => drop(p2p.bans.inc()),
            Report::HungUp { .. } => drop(p2p.hung_up.inc()),
            // The node counts rounds itself; the rest is seen by a scrape, or belongs to the log.
            Report::Round { .. }
            | Report::TipUnconfirmed { .. }
            | Report::TipConfirmed { .. }
            | Report::Syncing { .. }
            | Report::Synced { .. }
            | Report::BitcoinLeftOut { .. }
            | Report::PegFrozen { .. }
            | Report::OwnBlockInvalid { .. } => {}
        }
    }

    fn final_block(&self, decided_in: Option<Duration>) {
        let (now, consensus) = (Instant::now(), &self.0.consensus);
        let decided = decided_in.is_some();
        let before = {
            let mut last = self.0.last_block.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *last, LastBlock { at: now, decided })
        };
        consensus.blocks.add(if decided { "consensus" } else { "sync" });
        if let Some(took) = decided_in {
            consensus.decision.observe(took.as_secs_f64());
            if before.decided {
                consensus.interval.observe(now.duration_since(before.at).as_secs_f64());
            }
        }
    }

    /// The node starts: from here on it is waited for blocks.
    pub(super) fn node_starts(&self) {
        let mut last = self.0.last_block.lock().unwrap_or_else(PoisonError::into_inner);
        *last = LastBlock { at: Instant::now(), decided: false };
    }

    /// How long ago the last block became final here; since the start, if there was none.
    pub(super) fn since_block(&self) -> Duration {
        self.0.last_block.lock().unwrap_or_else(PoisonError::into_inner).at.elapsed()
    }

    /// Counts a vote that was taken so long after it was sent.
    pub fn vote_heard(&self, delay: Duration) {
        self.0.consensus.vote_delay.observe(delay.as_secs_f64());
    }

    /// Counts a block that was judged by the rules.
    pub fn validated(&self, took: Duration) {
        self.0.consensus.validation.observe(took.as_secs_f64());
    }

    /// Counts a block that was assembled.
    pub fn assembled(&self, took: Duration) {
        self.0.consensus.assembly.observe(took.as_secs_f64());
    }

    /// Counts a job of transactions that were checked.
    pub fn checked(&self, took: Duration) {
        self.0.mempool.check.observe(took.as_secs_f64());
    }

    /// Counts a block that was written.
    pub fn committed(&self, block: &Block, took: Duration) {
        self.0.store.commit.observe(took.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "a block has at most four million bytes")]
        let (bytes, transactions) = (block.bytes().len() as f64, block.transactions().len() as f64);
        self.0.consensus.block_bytes.observe(bytes);
        self.0.consensus.block_transactions.observe(transactions);
    }

    pub(super) fn set_ready(&self, ready: bool) {
        self.0.node.ready.set(ready.into());
    }

    /// Takes in what is so at this moment; of a node that does not answer, that it does not.
    pub(super) fn set_node(&self, seen: Option<&NodeSeen>) {
        let Families { node, consensus, mempool, store, .. } = &*self.0;
        node.up.set(seen.is_some().into());
        consensus.since_block.set(self.since_block().as_secs_f64());
        let Some(seen) = seen else { return };
        let NodeSeen { status, counts, load, .. } = seen;
        consensus.height.set(status.height.to_u32().into());
        consensus.round.set(status.round.into());
        consensus.rounds.inner().store(counts.rounds, ORDER);
        consensus.timeouts.set("propose", counts.propose_timeouts);
        consensus.timeouts.set("prevote", counts.prevote_timeouts);
        consensus.timeouts.set("precommit", counts.precommit_timeouts);
        set(&consensus.power, seen.power);
        set(&consensus.total_power, seen.total_power);
        set(&consensus.validators, seen.validators);
        consensus.voting.set((seen.power > 0).into());
        set(&consensus.body_bytes, load.body_bytes);
        store.syncing.set(status.sync_target.is_some().into());
        store.sync_target.set(status.sync_target.unwrap_or(status.height).to_u32().into());
        set(&mempool.transactions, status.mempool_transactions);
        set(&mempool.vsize, status.mempool_vsize);
        set(&mempool.bytes, seen.mempool_bytes);
        set(&mempool.bytes_max, seen.mempool_bytes_max);
        set(&mempool.min_feerate, seen.min_feerate.0);
        set(&mempool.arriving, load.transactions);
        mempool.count(&counts.transactions);
        self.0.peg.set(seen);
    }

    pub(super) fn set_bitcoin(&self, source: Option<&SourceStanding>) {
        let Peg { source_configured, source_reliable, source_height, .. } = &self.0.peg;
        source_configured.set(source.is_some().into());
        source_reliable.set(source.is_some_and(|source| source.reliable).into());
        source_height.set(source.map_or(0, |source| source.tip.0.0.into()));
    }

    pub(super) fn set_disk(&self, figures: &StoreFigures) {
        let store = &self.0.store;
        store.tip.set(figures.tip.to_u32().into());
        store.flushed.set(figures.flushed.to_u32().into());
        set(&store.coins, figures.coins);
        set(&store.holes, figures.holes);
        store.index_damaged.set((figures.index == IndexState::Damaged).into());
        set(&store.pending, figures.pending_bytes);
        for FamilyFigures { name, keys, table_bytes, blob_bytes, memtable_bytes } in &figures.families {
            store.keys.set(name, *keys);
            store.tables.set(name, *table_bytes);
            store.blobs.set(name, *blob_bytes);
            store.memtables.set(name, *memtable_bytes);
        }
        set(&store.cache, figures.block_cache_bytes);
    }

    pub(super) fn set_network(&self, seen: NetworkSeen) {
        let p2p = &self.0.p2p;
        p2p.peers.set("inbound", seen.inbound);
        p2p.peers.set("outbound", seen.outbound);
        p2p.lost.set("commands", seen.lost_commands);
        p2p.lost.set("gossip", seen.lost_gossip);
    }

    /// Everything, as OpenMetrics.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.0.registry);
        text
    }
}

/// Counts that a node keeps itself are only copied, by one scrape after the other.
const ORDER: std::sync::atomic::Ordering = std::sync::atomic::Ordering::Relaxed;

fn set(gauge: &Gauge, value: impl TryInto<i64>) {
    gauge.set(value.try_into().unwrap_or(i64::MAX));
}

impl NodeFamilies {
    fn new(area: &mut Area<'_>, spec: &ChainSpec) -> Self {
        let labels = vec![
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("chain", spec.name().to_owned()),
            ("chain_id", spec.chain_id().to_string()),
        ];
        area.registry().register("build", "The program and its chain", Info::new(labels));
        let started = area.gauge_of("start_time", Unit::Seconds, "When the process started, in Unix time");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        set(&started, now.as_secs());
        Self {
            up: area
                .gauge("up", "1 if the running node answered this scrape; 0: what is told of it is of an earlier one"),
            ready: area.gauge("ready", "1 if GET /health/ready answered 200 at this scrape"),
        }
    }
}

impl Consensus {
    fn new(area: &mut Area<'_>) -> Self {
        Self {
            height: area.gauge("height", "Height of the last final block"),
            round: area.gauge("round", "Round of the height above the last final block"),
            rounds: area.total("rounds", "Rounds that began"),
            timeouts: area.totals("timeouts", "step", "Waits that ran out; propose: a proposal was missed"),
            blocks: area.totals("blocks", "by", "Blocks that became final here, by consensus or by sync"),
            decision: area.times("decision", "From the start of a height to its decision"),
            vote_delay: area.fine_times(
                "vote_delay",
                "From the sending of a vote, by its sender's clock, to its taking here, by this one's",
            ),
            interval: area.times("block_interval", "Between two blocks that this node saw decided"),
            since_block: area.level("since_block", Unit::Seconds, "Since the last block became final here"),
            validation: area.times("block_validation", "Judging a block by the rules"),
            assembly: area.times("block_assembly", "Assembling a block to propose"),
            block_bytes: area.sizes("block_size", Some(Unit::Bytes), &BLOCK_BYTES, "Final blocks"),
            block_transactions: area.sizes(
                "block_transactions",
                None,
                &BLOCK_TRANSACTIONS,
                "Transactions of final blocks, with the coinbase",
            ),
            power: area.gauge("validator_power", "Power that this node votes with; 0 if it does not vote"),
            total_power: area.gauge("total_power", "Power of all validators"),
            validators: area.gauge("validators", "Validators of the height that is being decided"),
            voting: area.gauge("validator_voting", "1 if this node votes"),
            held: area.totals(
                "held_blocks",
                "why",
                "Valid blocks that got no vote yet, because of the clock or Bitcoin",
            ),
            invalid: area.total("invalid_proposals", "Proposed blocks that break a rule"),
            withheld: area.total("withheld_messages", "Messages that the signer refused to sign"),
            evidence: area.total("evidence", "Proofs that a validator contradicted itself"),
            signed_elsewhere: area.total("signed_elsewhere", "Signs of another machine with this node's key: stop one"),
            body_bytes: area.gauge_of("bodies", Unit::Bytes, "Proposed blocks in memory"),
        }
    }
}

impl Mempool {
    fn new(area: &mut Area<'_>) -> Self {
        Self {
            transactions: area.gauge("transactions", "Transactions that wait for a block"),
            vsize: area.gauge_of("size", Unit::Other("vbytes".to_owned()), "Virtual bytes of them"),
            bytes: area.gauge_of("memory", Unit::Bytes, "Memory that they take"),
            bytes_max: area.gauge_of("memory_max", Unit::Bytes, "Memory that they may take"),
            min_feerate: area.gauge("min_feerate_sats_per_kvb", "Least feerate to enter"),
            arriving: area.gauge("arriving_transactions", "Transactions between arrival and the pool"),
            accepted: area.total("accepted_transactions", "Transactions that entered"),
            rejected: area.totals("rejected_transactions", "why", "Transactions that did not enter"),
            departed: area.totals("departed_transactions", "why", "Transactions that left"),
            check: area.times("check", "Checking up to 32 transactions"),
        }
    }

    fn count(&self, counts: &TransactionCounts) {
        let TransactionCounts { accepted, invalid, not_yet, known, policy, .. } = *counts;
        let TransactionCounts { confirmed, conflicted, replaced, evicted, expired, peg_frozen, .. } = *counts;
        self.accepted.inner().store(accepted, ORDER);
        for (why, count) in [("invalid", invalid), ("not_yet", not_yet), ("known", known), ("policy", policy)] {
            self.rejected.set(why, count);
        }
        for (why, count) in [
            ("confirmed", confirmed),
            ("conflicted", conflicted),
            ("replaced", replaced),
            ("evicted", evicted),
            ("expired", expired),
            ("peg_frozen", peg_frozen),
        ] {
            self.departed.set(why, count);
        }
    }
}

impl Peg {
    fn new(area: &mut Area<'_>) -> Self {
        let accounts: [(&str, &str, AccountOf); 9] = [
            ("locked", "What the federation holds on Bitcoin", |it| it.locked()),
            ("owed", "What the federation owes", |it| it.owed()),
            ("circulating", "What circulates on this chain", |it| it.circulating()),
            ("waiting", "Requests for payouts that are in no batch", |it| it.waiting),
            ("in_flight", "Requests for payouts that are in open batches", |it| it.in_flight),
            ("charges", "Fees of the newest versions of open batches", |it| it.charges),
            ("fee_pot", "What was taken for fees of Bitcoin and not spent", |it| it.fee_pot()),
            ("deficit", "Fees of Bitcoin beyond what was taken for them", |it| it.deficit()),
            ("reserve", "What the reserve coin holds", |it| it.reserve),
        ];
        let sats = || Unit::Other("sats".to_owned());
        let accounts = accounts.map(|(name, help, of)| (of, area.gauge_of(name, sats(), help)));
        Self {
            frozen: area.gauge("frozen", "1 if nothing moves between the chains until people resolve it"),
            bitcoin_height: area.gauge("bitcoin_height", "Height of Bitcoin as this chain knows it"),
            header_age: area.level(
                "header_age",
                Unit::Seconds,
                "Since the time of Bitcoin's tip as this chain knows it",
            ),
            source_configured: area.gauge("bitcoin_node_configured", "1 if this node has a Bitcoin node of its own"),
            source_reliable: area.gauge("bitcoin_node_reliable", "1 if that can be relied on"),
            source_height: area.gauge("bitcoin_node_height", "Height of Bitcoin as that knows it; 0 without one"),
            accounts: accounts.into(),
            feerate: area.gauge("feerate_sats_per_kvb", "Feerate on Bitcoin that the validators agree on"),
            open_batches: area.gauge("open_batches", "Batches of payouts that are not confirmed"),
            open_requests: area.gauge("open_requests", "Requests for payouts that are in no batch"),
            coins: area.gauge("coins", "Coins that the federation holds on Bitcoin"),
            claims: area.gauge("claims", "Deposits that were claimed here and wait to be credited"),
        }
    }

    fn set(&self, seen: &NodeSeen) {
        let peg = seen.tip.peg();
        let (accounts, bitcoin) = (peg.accounts(), peg.headers().tip());
        self.frozen.set(peg.frozen().is_some().into());
        self.bitcoin_height.set(bitcoin.height.0.into());
        let age = now_s().saturating_sub(bitcoin.time.into());
        self.header_age.set(Duration::from_secs(age).as_secs_f64());
        for (of, gauge) in &self.accounts {
            set(gauge, of(&accounts).to_sat());
        }
        set(&self.feerate, peg.agreed_rate().0);
        set(&self.open_batches, peg.open_batches().len());
        set(&self.open_requests, peg.waiting().len());
        set(&self.coins, peg.held());
        set(&self.claims, seen.load.claims);
    }
}

impl StoreFamilies {
    fn new(area: &mut Area<'_>) -> Self {
        Self {
            tip: area.gauge("tip_height", "Height of the last block on disk"),
            flushed: area.gauge("flushed_height", "Height whose coins are on disk; from there a start replays"),
            coins: area.gauge("coins", "Coins after the last block"),
            holes: area.gauge("holes", "Blocks or certificates that the disk has lost and peers are asked for"),
            index_damaged: area.gauge("index_damaged", "1 if the indexes are damaged: a restart builds them again"),
            pending: area.gauge_of("pending", Unit::Bytes, "Memory of coins that wait to be written"),
            keys: area.levels("keys", None, "family", "Keys by column family, as RocksDB estimates"),
            tables: area.levels("table", Some(Unit::Bytes), "family", "Table files by column family"),
            blobs: area.levels("blob", Some(Unit::Bytes), "family", "Large values by column family"),
            memtables: area.levels("memtable", Some(Unit::Bytes), "family", "Writes in memory by column family"),
            cache: area.gauge_of("block_cache", Unit::Bytes, "RocksDB's cache of what it read"),
            commit: area.times("commit", "Writing a block to disk"),
            syncing: area.gauge("syncing", "1 if a peer tells of a higher block"),
            sync_target: area.gauge("sync_target_height", "The highest block that peers tell of, or the own"),
        }
    }
}

impl P2p {
    fn new(area: &mut Area<'_>) -> Self {
        Self {
            peers: area.levels("peers", None, "direction", "Connected peers, by who called"),
            bans: area.total("bans", "Peers that were banned"),
            hung_up: area.total("hung_up", "Peers that were disconnected because they sent far more than was of use"),
            offences: area.totals("offences", "offence", "What peers did that they should not have"),
            lost: area.totals("lost_messages", "what", "Dropped because the network or the node was too busy"),
        }
    }
}
