//! One machine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::secp256k1::Keypair;
use bytes::Bytes;
use causeway_chainspec::{Height, LAST_DERIVED_HEIGHT};
use causeway_consensus::bft::Address;
use causeway_consensus::{ChainView, ScriptCache};
use causeway_node::machine::{Action, Event, GossipId, InboundId, Node, Now, OutboundId, SubmitId, Ticket};
use causeway_node::wire::{FinalBlock, Topic};
use libp2p::PeerId;

use super::bitcoin::{BitcoinNode, Desk};
use super::byzantine::Byzantine;
use super::disk::Disk;
use super::rng::Rng;
use crate::chain::MemoryChain;

/// Unix time at the start of every run.
pub(super) const START: Duration = Duration::from_secs(1_900_000_000);

/// A machine: its disk, its clock, and the process that runs on it.
pub(super) struct Host {
    pub(super) peer: PeerId,
    pub(super) key: Option<Keypair>,
    pub(super) address: Option<Address>,
    /// By how much its clock is ahead.
    pub(super) skew_ms: i64,
    /// Whether its clock jumps.
    pub(super) jumping_clock: bool,
    /// What is final on disk.
    pub(super) chain: MemoryChain,
    /// The same as bytes, from height 101 on.
    pub(super) blocks: Vec<FinalBlock>,
    pub(super) disk: Disk,
    pub(super) bitcoin: BitcoinNode,
    /// The mempool as it was last written.
    pub(super) snapshot: Vec<u8>,
    pub(super) life: Option<Life>,
    pub(super) lives: u64,
    /// Peers that may not connect, and until when.
    pub(super) bans: BTreeMap<usize, Duration>,
    pub(super) byzantine: Option<Byzantine>,
    /// Its log, or the whole disk, was lost once: what it promised there is forgotten.
    pub(super) lost_log: bool,
    /// A copy of the whole disk, once it is made.
    pub(super) backup: Option<Backup>,
}

/// A copy of a host's disk.
pub(super) struct Backup {
    chain: MemoryChain,
    blocks: Vec<FinalBlock>,
    disk: Disk,
}

/// A process.
pub(super) struct Life {
    pub(super) number: u64,
    pub(super) booted: Duration,
    pub(super) node: Node,
    pub(super) scripts: Arc<ScriptCache>,
    /// What happened while the process was busy.
    pub(super) inbox: VecDeque<Event>,
    /// What the node said is to be done.
    pub(super) todo: VecDeque<Action>,
    /// It waits for the disk.
    pub(super) busy: bool,
    /// Since when it has not.
    pub(super) free_since: Duration,
    /// A block is decided, and not on disk.
    pub(super) committing: bool,
    /// When it comes back by itself.
    pub(super) wake: Option<Duration>,
    /// What the gossip layer has carried, and when.
    pub(super) carried: BTreeMap<u64, Duration>,
    pub(super) heard: BTreeMap<GossipId, Heard>,
    pub(super) inbound: BTreeMap<InboundId, Asker>,
    /// Requests without an answer.
    pub(super) asked: BTreeMap<OutboundId, usize>,
    pub(super) submitted: BTreeMap<SubmitId, bitcoin::Txid>,
    pub(super) desk: Desk,
    /// Proposed blocks that are being judged, and wanted.
    pub(super) judging: BTreeMap<Ticket, (Height, BlockHash)>,
    /// Jobs under way whose results are not wanted.
    pub(super) cancelled: BTreeSet<Ticket>,
    /// Its blocks say nothing of Bitcoin up to here.
    pub(super) left_out: Option<Height>,
    /// Actions until the end.
    pub(super) budget: Option<u64>,
    names: u64,
}

/// A gossip message that waits for the node's word.
pub(super) struct Heard {
    pub(super) from: usize,
    pub(super) topic: Topic,
    pub(super) bytes: Bytes,
    pub(super) at: Duration,
}

/// Who waits for an answer.
pub(super) struct Asker {
    pub(super) host: usize,
    pub(super) life: u64,
    pub(super) id: OutboundId,
}

impl Host {
    pub(super) fn height(&self) -> Height {
        self.chain.tip().height()
    }

    pub(super) fn chain_tip_hash(&self) -> BlockHash {
        self.chain.tip().hash()
    }

    /// Copies the whole disk at first, and puts the copy back from then on.
    pub(super) fn restore(&mut self) {
        match &self.backup {
            None => {
                let (chain, blocks, disk) = (self.chain.clone(), self.blocks.clone(), self.disk.clone());
                self.backup = Some(Backup { chain, blocks, disk });
            }
            Some(backup) => {
                (self.chain, self.blocks) = (backup.chain.clone(), backup.blocks.clone());
                self.disk = backup.disk.clone();
                self.snapshot.clear();
                self.lost_log = true;
            }
        }
    }

    /// This machine's clock.
    pub(super) fn unix(&self, now: Duration) -> Duration {
        let time = START + now;
        let skew = Duration::from_millis(self.skew_ms.unsigned_abs());
        if self.skew_ms < 0 { time - skew } else { time + skew }
    }

    /// Final blocks from a height on.
    pub(super) fn blocks_from(&self, from: Height) -> &[FinalBlock] {
        let first = LAST_DERIVED_HEIGHT.to_u32() + 1;
        let skip = from.to_u32().checked_sub(first).and_then(|skip| usize::try_from(skip).ok());
        skip.and_then(|skip| self.blocks.get(skip..)).unwrap_or_default()
    }
}

impl Life {
    pub(super) fn new(number: u64, booted: Duration, node: Node, scripts: Arc<ScriptCache>) -> Self {
        Self {
            number,
            booted,
            node,
            scripts,
            inbox: VecDeque::new(),
            todo: VecDeque::new(),
            busy: false,
            free_since: booted,
            committing: false,
            wake: None,
            carried: BTreeMap::new(),
            heard: BTreeMap::new(),
            inbound: BTreeMap::new(),
            asked: BTreeMap::new(),
            submitted: BTreeMap::new(),
            desk: Desk::default(),
            judging: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            left_out: None,
            budget: None,
            names: 0,
        }
    }

    pub(super) fn name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }

    pub(super) fn now(&self, now: Duration, unix: Duration) -> Now {
        Now { uptime: now - self.booted, unix }
    }

    /// One more action; `true` if it was the last.
    pub(super) fn spend(&mut self) -> bool {
        match &mut self.budget {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    /// How many actions until the end.
    pub(super) fn doom(&mut self, one_in: Option<u64>, rng: &mut Rng) {
        self.budget = one_in.map(|one_in| 1 + rng.below(2 * one_in));
    }
}
