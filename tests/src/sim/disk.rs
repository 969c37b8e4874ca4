//! What survives a crash: everything that was synced, and of what came after some first part.

use std::collections::BTreeMap;

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use bytes::Bytes;
use causeway_chainspec::{ChainId, Height};
use causeway_consensus::bft::{Address, HighWaterMark, LogEntry};
use causeway_node::machine::Restart;

use super::rng::Rng;

/// The files of a validator beside its chain.
#[derive(Debug, Default, Clone)]
pub struct Disk {
    logs: BTreeMap<Height, Log>,
    mark: Option<Vec<u8>>,
    /// What the sync at hand makes sure of: the log of a height, and a mark after it.
    syncing: Option<(Height, Option<Vec<u8>>)>,
}

/// The log of a height.
#[derive(Debug, Default, Clone)]
struct Log {
    records: Vec<Record>,
    /// How many records are certainly on disk.
    synced: usize,
}

#[derive(Debug, Clone)]
enum Record {
    Entry(Vec<u8>),
    Body(Bytes),
}

impl Disk {
    /// Appends an entry. The logs of heights before are dropped.
    pub fn append(&mut self, height: Height, entry: &LogEntry) {
        self.log(height).records.push(Record::Entry(entry.encode()));
    }

    /// Appends a block.
    pub fn append_body(&mut self, height: Height, bytes: Bytes) {
        self.log(height).records.push(Record::Body(bytes));
    }

    /// A sync begins.
    pub fn will_sync(&mut self, height: Height, mark: Option<&HighWaterMark>) {
        self.syncing = Some((height, mark.map(|mark| mark.encode().to_vec())));
    }

    /// Everything appended so far is on disk.
    pub fn sync_log(&mut self) {
        if let Some((height, _)) = self.syncing {
            let log = self.log(height);
            log.synced = log.records.len();
        }
    }

    /// The mark is on disk.
    pub fn sync_mark(&mut self) {
        if let Some((_, Some(mark))) = self.syncing.take() {
            self.mark = Some(mark);
        }
    }

    fn log(&mut self, height: Height) -> &mut Log {
        self.logs.retain(|of, _| *of >= height);
        self.logs.entry(height).or_default()
    }

    /// The end of a life. Of what was not synced, some first part survives.
    pub fn crash(&mut self, rng: &mut Rng) {
        self.syncing = None;
        for log in self.logs.values_mut() {
            let loose = log.records.len() - log.synced;
            let survive = log.synced + rng.index(loose + 1);
            log.records.truncate(survive);
            log.synced = survive;
        }
    }

    /// What the next life reads of the height above the tip.
    pub fn restart(&self, height: Height) -> Restart {
        let mut restart = Restart::default();
        for record in self.logs.get(&height).map(|log| &log.records[..]).unwrap_or_default() {
            match record {
                Record::Entry(bytes) => restart.log.push(LogEntry::decode(bytes).expect("it was encoded")),
                Record::Body(bytes) => restart.bodies.push(bytes.clone()),
            }
        }
        restart
    }

    /// The mark as it is on disk.
    pub fn mark(&self, chain: ChainId, address: Address) -> HighWaterMark {
        match &self.mark {
            Some(bytes) => HighWaterMark::decode(bytes).expect("it was encoded"),
            None => HighWaterMark::never_signed(chain, address),
        }
    }

    /// Whether an entry of this encoding is certainly on disk.
    pub fn has_entry(&self, height: Height, entry: &[u8]) -> bool {
        self.synced(height).any(|record| matches!(record, Record::Entry(bytes) if bytes == entry))
    }

    /// Whether a block is certainly on disk.
    pub fn has_body(&self, height: Height, hash: BlockHash) -> bool {
        self.synced(height).any(|record| match record {
            Record::Body(bytes) => bytes.get(..Header::SIZE).is_some_and(|header| BlockHash::hash(header) == hash),
            Record::Entry(_) => false,
        })
    }

    fn synced(&self, height: Height) -> impl Iterator<Item = &Record> {
        self.logs.get(&height).into_iter().flat_map(|log| &log.records[..log.synced])
    }
}

impl Disk {
    /// Every log is gone; the mark is not.
    pub fn lose_log(&mut self) {
        self.logs.clear();
    }
}
