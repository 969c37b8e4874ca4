//! What the parts of the daemon know of each other, and what `status` shows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bitcoin::Txid;
use bitcoin::secp256k1::PublicKey;
use causeway_chainspec::ChainId;

use super::records::{self, AlarmRecord, SignedRecord};
use super::room::show_path;
use super::status::{Declined, NodeStatus, PastEvent, PeerStatus, Status, TaskStatus, TransactionStatus};
use crate::approve::{BlockPoint, DepositsMark};
use crate::home::Home;
use crate::transport::PeerAddress;

/// Past events that are kept.
const HISTORY_MAX: usize = 100;

pub(crate) struct Board {
    pub(crate) status: Status,
    signed: BTreeMap<Txid, Arc<SignedRecord>>,
    sent: BTreeMap<Txid, String>,
    connected: Arc<Mutex<Vec<bool>>>,
}

impl Board {
    pub(crate) fn new(home: &Home, network: &str, chain: ChainId, own: u16, key: &PublicKey, node_url: String) -> Self {
        let status = Status {
            network: network.to_owned(),
            chain_id: chain.to_string(),
            member: own,
            member_key: key.to_string(),
            alarm: records::load_alarm(home),
            node: NodeStatus { url: node_url, ..NodeStatus::default() },
            ..Status::default()
        };
        Self { status, signed: BTreeMap::new(), sent: BTreeMap::new(), connected: Arc::default() }
    }

    /// The peers in their order, which is that of the other members.
    pub(crate) fn set_peers(&mut self, peers: &[PeerAddress]) {
        let own = self.status.member;
        let others = (0..).filter(|member| *member != own);
        let status = |(member, peer): (u16, &PeerAddress)| PeerStatus {
            member,
            peer_id: peer.peer.to_string(),
            connected: false,
        };
        self.status.peers = others.zip(peers).map(status).collect();
    }

    /// Where the network says which of the peers are connected.
    pub(crate) fn watch(&mut self, connected: Arc<Mutex<Vec<bool>>>) {
        self.connected = connected;
    }

    pub(crate) fn add_signed(&mut self, record: &Arc<SignedRecord>) {
        self.signed.insert(record.txid, Arc::clone(record));
    }

    /// Forgets the transactions of batches that are closed.
    pub(crate) fn retain_signed(&mut self, open: &BTreeSet<u32>) {
        self.signed.retain(|_, record| open.contains(&record.batch));
        let signed = &self.signed;
        self.sent.retain(|txid, _| signed.contains_key(txid));
    }

    /// The newest signed version of a batch.
    pub(crate) fn newest_signed(&self, batch: u32) -> Option<Arc<SignedRecord>> {
        let of_batch = self.signed.values().filter(|record| record.batch == batch);
        of_batch.max_by_key(|record| record.version).cloned()
    }

    /// What bitcoind said to a transaction; true if that is new.
    pub(crate) fn set_sent(&mut self, txid: Txid, answer: &str) -> bool {
        self.sent.insert(txid, answer.to_owned()).as_deref() != Some(answer)
    }

    pub(crate) fn set_standing(
        &mut self,
        tasks: Vec<TaskStatus>,
        declined: Vec<Declined>,
        acted_on: Option<BlockPoint>,
        deposits: DepositsMark,
    ) {
        for now in &declined {
            if self.status.declined.contains(now) {
                continue;
            }
            let Declined { batch, txid, reason, refused } = now;
            if *refused {
                tracing::warn!(?batch, ?txid, %reason, "not signed");
            } else {
                tracing::info!(?batch, ?txid, %reason, "not signed yet");
            }
            let what = batch.map_or_else(|| reason.clone(), |batch| format!("batch {batch}: {reason}"));
            self.remember(what);
        }
        for task in &tasks {
            let known = self.status.tasks.iter().find(|known| known.txid == task.txid);
            let new: Vec<String> = task
                .faults
                .iter()
                .filter(|fault| known.is_none_or(|known| !known.faults.contains(fault)))
                .map(|(member, fault)| format!("batch {}: member {member} {fault}", task.batch))
                .collect();
            new.into_iter().for_each(|what| self.remember(what));
        }
        (self.status.tasks, self.status.declined) = (tasks, declined);
        (self.status.acted_on, self.status.deposits) = (acted_on, deposits);
    }

    pub(crate) fn set_alarm(&mut self, alarm: AlarmRecord) {
        self.remember(format!("ALARM: {}", alarm.reason));
        self.status.alarm = Some(alarm);
    }

    fn remember(&mut self, what: String) {
        let history = &mut self.status.history;
        if history.len() >= HISTORY_MAX {
            history.remove(0);
        }
        history.push(PastEvent { time: seconds_since_1970(), what });
    }

    /// The status as it is.
    pub(crate) fn status(&mut self, home: &Home, running: bool) -> Status {
        self.status.time = seconds_since_1970();
        self.status.running = running;
        self.status.paused = home.is_paused();
        self.status.alarm = records::load_alarm(home);
        let connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (peer, connected) in self.status.peers.iter_mut().zip(connected) {
            peer.connected = connected;
        }
        let transaction = |record: &Arc<SignedRecord>| {
            let newest = self.newest_signed(record.batch);
            let replaced = newest.filter(|newest| newest.version > record.version);
            let sent = match replaced {
                Some(newest) => Some(format!("replaced by {}", newest.txid)),
                None => self.sent.get(&record.txid).cloned(),
            };
            TransactionStatus {
                batch: record.batch,
                version: record.version,
                txid: record.txid,
                path: show_path(&record.path),
                sent,
            }
        };
        let transactions = self.signed.values().map(transaction).collect();
        self.status.transactions = transactions;
        self.status.clone()
    }
}

fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
