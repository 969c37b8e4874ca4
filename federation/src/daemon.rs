//! The member's process: it looks at its own node and its own bitcoind, has approved transactions signed, and puts
//! signed ones on Bitcoin until they are deep.
//!
//! ```text
//! survey     a task: asks node and bitcoind every half second, sends signed transactions   (waits for others)
//! room       a thread: approves, signs, keeps the signing log                 (computes, waits for the disk)
//! transport  a task: the other members
//! control    a task: answers the operator on a Unix socket
//! run        joins them; holds nothing but the board, which `status` reads
//! ```
//!
//! Facts flow from survey to room, signatures from room to board, transactions from board to bitcoind. No signature
//! is made from anything else than the facts of the member's own machines.

mod board;
mod coins;
mod control;
mod node;
mod records;
mod room;
mod status;
mod survey;
mod task;

use std::future::Future;
use std::sync::mpsc as std_mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bitcoin::secp256k1::XOnlyPublicKey;
use tokio::sync::{Notify, mpsc};
use tokio::time::MissedTickBehavior;

pub use self::coins::{BitcoinAccess, BitcoinTip};
pub use self::control::{ControlError, ask_status, nudge};
pub use self::node::{NodeDeposit, NodeError, NodeUrl, NodeUrlError, NodeView, OpenBatches, PegIns, RestNode};
pub use self::records::{AlarmRecord, RecordError};
pub use self::status::{
    BitcoinStatus, Declined, NodeStatus, PastEvent, PeerStatus, Status, TaskState, TaskStatus, TransactionStatus,
};
pub use self::task::{AssembleError, BatchTask};

pub(crate) use self::records::{load_alarm, load_scripts};

use crate::approve::Federation;
use crate::home::Home;
use crate::keystore::{MemberKeys, SigningLog};
use crate::session::{SignedMessage, Timing};
use crate::transport::{Incoming, Transport, TransportConfig, TransportError};
use board::Board;
use records::SignedRecord;
use room::{Order, Report, Room, RoomParts};
use survey::Surveyor;

/// Orders that may wait for the room. What members sent is dropped beyond it, and repeated by them.
const ORDERS_MAX: usize = 1_024;

/// Reports that may wait for the daemon before the room waits.
const REPORTS_MAX: usize = 1_024;

/// How long a member that passes on what nobody signed is not listened to.
const DISTRUST: Duration = Duration::from_secs(60);

/// How often the status is written down.
const STATUS_EVERY: Duration = Duration::from_secs(5);

/// Why the daemon stopped, or did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// The network of members.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The records.
    #[error(transparent)]
    Records(#[from] RecordError),
    /// The operator's socket.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A thread cannot be started.
    #[error("the system gives no thread to sign on: free some memory and start again")]
    Thread(#[source] std::io::Error),
    /// The signing thread ended.
    #[error("the signing thread ended: this is a bug, please report it with the log; nothing was lost")]
    Room,
}

/// How often the daemon does what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tempo {
    /// Between two looks at node and bitcoind.
    pub poll: Duration,
    /// After this long without an answer of the node, signing is given up until it answers.
    pub stale_after: Duration,
    /// Between two times that a transaction is sent while the best block stays.
    pub resend: Duration,
}

impl Default for Tempo {
    /// Half a second, half a minute, half a minute.
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { poll: Duration::from_millis(500), stale_after: seconds(30), resend: seconds(30) }
    }
}

/// Everything that a member runs with.
pub struct DaemonParts {
    /// Its directory.
    pub home: Home,
    /// The network's name.
    pub network: String,
    /// The chain and its epochs.
    pub federation: Federation,
    /// The member's place among the members.
    pub own: u16,
    /// Identity keys of all members, in their order.
    pub identities: Vec<XOnlyPublicKey>,
    /// Its secret keys.
    pub keys: MemberKeys,
    /// What they signed.
    pub log: SigningLog,
    /// Its own node.
    pub node: Arc<dyn NodeView>,
    /// Where that is, for the status.
    pub node_url: String,
    /// Its own bitcoind.
    pub bitcoin: Arc<dyn BitcoinAccess>,
    /// The network of members: its peers are the other members in their order.
    pub transport: TransportConfig,
    /// How long sessions wait.
    pub timing: Timing,
    /// How often it does what.
    pub tempo: Tempo,
}

/// Runs a member until `stop` is ready.
///
/// # Errors
/// It cannot start, or has failed.
pub async fn run(parts: DaemonParts, stop: impl Future<Output = ()>) -> Result<(), DaemonError> {
    let DaemonParts { home, network, federation, own, identities, keys, log, node, node_url, bitcoin, .. } = parts;
    let (timing, tempo, config) = (parts.timing, parts.tempo, parts.transport);
    let chain = federation.chain;
    let acted_on = records::load_acted_on(&home)?;
    let deposits = records::load_deposits(&home);
    let signed = SignedRecord::load_all(&home);
    let MemberKeys { member, identity } = keys;
    let identity = Arc::new(identity);

    let mut first = Board::new(&home, &network, chain, own, &member.public_key(), node_url);
    first.set_peers(&config.peers);
    first.status.acted_on = acted_on.as_ref().map(|acted_on| acted_on.block);
    first.status.deposits = deposits;
    signed.iter().for_each(|record| first.add_signed(record));
    let board = Arc::new(Mutex::new(first));
    let nudged = Arc::new(Notify::new());

    let (transport, incoming) = Transport::start(config).await?;
    board.lock().unwrap_or_else(PoisonError::into_inner).watch(transport.connected_cell());
    tracing::info!(member = own, listening = %transport.listening(), %chain, "the member runs");
    let parts = RoomParts {
        federation,
        own,
        identities,
        identity: Arc::clone(&identity),
        member,
        log,
        timing,
        home: home.clone(),
        acted_on,
        deposits,
        signed,
    };
    let (orders, order_receiver) = std_mpsc::sync_channel(ORDERS_MAX);
    let (report_sender, reports) = mpsc::channel(REPORTS_MAX);
    let thread = std::thread::Builder::new().name("signing".to_owned());
    let thread = thread
        .spawn(move || run_room(Room::new(parts), &order_receiver, &report_sender))
        .map_err(DaemonError::Thread)?;
    let surveyor = Surveyor::new(node, bitcoin, orders.clone(), Arc::clone(&board), Arc::clone(&nudged), tempo);
    let surveyor = tokio::spawn(surveyor.run());
    let control = control::serve(&home, Arc::clone(&board), Arc::clone(&nudged), orders.clone())?;

    let daemon = Daemon { home: home.clone(), chain, own, identity, transport, orders, board, nudged };
    let ended = daemon.serve(reports, incoming, stop).await;
    // Nothing is half done in these: what a room does is on disk before it matters.
    surveyor.abort();
    control.abort();
    // Both hold a way to the room, which ends when there is none.
    let _ = surveyor.await;
    let _ = control.await;
    let joined = tokio::task::spawn_blocking(move || thread.join()).await;
    control::remove(&home);
    match (ended, joined) {
        (Ok(()), Ok(Ok(()))) => Ok(()),
        (Err(error), _) => Err(error),
        _ => Err(DaemonError::Room),
    }
}

fn run_room(mut room: Room, orders: &std_mpsc::Receiver<Order>, reports: &mpsc::Sender<Report>) {
    let start = Instant::now();
    let longest = Duration::from_secs(1);
    loop {
        let wait = room.next_wake().map_or(longest, |wake| wake.saturating_sub(start.elapsed())).min(longest);
        let mut said = match orders.recv_timeout(wait) {
            Ok(order) => room.handle(start.elapsed(), order),
            Err(std_mpsc::RecvTimeoutError::Timeout) => Vec::new(),
            Err(std_mpsc::RecvTimeoutError::Disconnected) => return,
        };
        said.extend(room.tick(start.elapsed()));
        for report in said {
            if reports.blocking_send(report).is_err() {
                return;
            }
        }
    }
}

struct Daemon {
    home: Home,
    chain: causeway_chainspec::ChainId,
    own: u16,
    identity: Arc<crate::musig::IdentityKey>,
    transport: Transport,
    orders: std_mpsc::SyncSender<Order>,
    board: Arc<Mutex<Board>>,
    nudged: Arc<Notify>,
}

impl Daemon {
    /// Passes on what comes until it is told to stop. Drops the ways to the room when it returns.
    async fn serve(
        self,
        mut reports: mpsc::Receiver<Report>,
        mut incoming: mpsc::Receiver<Incoming>,
        stop: impl Future<Output = ()>,
    ) -> Result<(), DaemonError> {
        let mut writes = tokio::time::interval(STATUS_EVERY);
        writes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::pin!(stop);
        let ended = loop {
            tokio::select! {
                () = &mut stop => break Ok(()),
                report = reports.recv() => match report {
                    Some(report) => self.reported(report),
                    None => break Err(DaemonError::Room),
                },
                frame = incoming.recv() => {
                    if let Some(Incoming { from, messages }) = frame {
                        for bytes in messages {
                            // A room that is busy hears it again.
                            let _ = self.orders.try_send(Order::Received { from, bytes });
                        }
                    }
                }
                _ = writes.tick() => self.write_status(true).await,
            }
        };
        self.write_status(false).await;
        tracing::info!("the member stops");
        ended
    }

    fn board(&self) -> std::sync::MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reported(&self, report: Report) {
        match report {
            Report::Say { to, message } => {
                self.send(to, SignedMessage::sign(self.chain, self.own, &self.identity, message).encode());
            }
            Report::Relay { to, bytes } => self.send(to, bytes),
            Report::BadPeer { peer, error } => {
                tracing::warn!(peer, %error, "a member passes on what nobody signed: it is not listened to for a minute");
                self.transport.distrust(peer, DISTRUST);
            }
            Report::Signed(record) => {
                self.board().add_signed(&record);
                self.nudged.notify_one();
            }
            Report::Standing { tasks, declined, acted_on, deposits } => {
                self.board().set_standing(tasks, declined, acted_on, deposits);
            }
            Report::Open(open) => self.board().retain_signed(&open),
            Report::Alarm(alarm) => self.board().set_alarm(alarm),
        }
    }

    fn send(&self, to: Option<u16>, bytes: Vec<u8>) {
        match to {
            None => self.transport.broadcast(bytes),
            // Peers are the other members in their order.
            Some(to) if to != self.own => self.transport.send(usize::from(to) - usize::from(to > self.own), bytes),
            Some(_) => {}
        }
    }

    async fn write_status(&self, running: bool) {
        let status = self.board().status(&self.home, running);
        let home = self.home.clone();
        let written = tokio::task::spawn_blocking(move || control::write_status(&home, &status)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "the status cannot be written: check the disk");
        }
    }
}

#[cfg(test)]
mod tests;
