//! The members' own network: a libp2p swarm (TCP, noise, yamux) of those who are on the list, and nobody else.
//!
//! ```text
//! Transport::start(config) -> (Transport, incoming)     the swarm runs as a task from here on
//! Transport::broadcast(bytes)  ->  every other member   never waits; sessions repeat what is lost
//! incoming: Incoming  ->  what members sent, of anyone's making: the messages are signed, the frames are not
//! ```
//!
//! Every message goes to every member directly. Messages that wait for a member travel together, at most one frame is
//! under way to each, and the oldest make room when too many wait. What comes in is bounded by member: bytes and
//! messages a second, and a queue that drops when the daemon is slow.
//!
//! A member's name here follows from its identity key ([`transport_key`]); others cannot compute it from the public
//! half, so that the list of peers holds it beside the identity.

mod codec;
mod swarm;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use causeway_chainspec::{ChainId, tagged_hash};
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::musig::IdentityKey;
use crate::session::MESSAGE_BYTES_MAX;
use swarm::{Command, SwarmTask};

/// Most bytes of a frame.
pub const FRAME_BYTES_MAX: usize = 256 * 1_024;

const _: () = assert!(FRAME_BYTES_MAX > 2 * MESSAGE_BYTES_MAX);

/// Commands that may wait for the swarm.
const COMMANDS_MAX: usize = 4_096;

/// Frames that may wait for the daemon.
const INCOMING_MAX: usize = 256;

/// How long a listener may take until it is bound.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no network of members.
#[expect(missing_docs, reason = "every variant is documented, and its message names its fields")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The address cannot be listened on.
    #[error(
        "cannot listen on {address}: choose another address under [transport] listen in federation.toml, or stop what uses it"
    )]
    Listen { address: Multiaddr, problem: String },
    /// The swarm cannot be made.
    #[error("the network of members cannot start ({problem}): this is a bug, please report it")]
    Start { problem: String },
}

/// Where another member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// Its name.
    pub peer: PeerId,
    /// Where it listens, without its name.
    pub address: Multiaddr,
}

/// What the network must know.
#[derive(Clone, Debug)]
pub struct TransportConfig {
    /// This member's key here.
    pub key: Keypair,
    /// The chain: members of another one are not understood.
    pub chain: ChainId,
    /// Where to listen: port 0 is any free one.
    pub listen: Multiaddr,
    /// The other members; they are numbered by their place here.
    pub peers: Vec<PeerAddress>,
    /// What members may use.
    pub limits: Limits,
}

/// What one member may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes a second that are taken from a member; four times as many at once.
    pub bytes_per_second: u32,
    /// Messages a second that are taken from a member; four times as many at once.
    pub messages_per_second: u32,
    /// Bytes that wait for a member at most.
    pub queue_bytes: usize,
    /// The first wait before a member is dialled again; it doubles up to `redial_max`.
    pub redial_min: Duration,
    /// The longest wait.
    pub redial_max: Duration,
    /// How long a frame may take.
    pub frame_timeout: Duration,
}

impl Default for Limits {
    /// Room for a member that lacks everything: of fifteen that sign six transactions of 16 inputs, each has some 240 kB and
    /// 270 messages for it. When nobody lacks anything, each says three messages a second.
    fn default() -> Self {
        Self {
            bytes_per_second: 2 << 20,
            messages_per_second: 500,
            queue_bytes: 4 << 20,
            redial_min: Duration::from_millis(500),
            redial_max: Duration::from_secs(30),
            frame_timeout: Duration::from_secs(10),
        }
    }
}

/// What a member sent.
#[derive(Debug)]
pub struct Incoming {
    /// Its place in [`TransportConfig::peers`].
    pub from: usize,
    /// Messages, each of at most [`MESSAGE_BYTES_MAX`]. Nothing about them was checked.
    pub messages: Vec<Vec<u8>>,
}

/// The key that names a member on the network: ed25519, from `tagged_hash("causeway/federation-transport/v1", identity
/// key)`.
pub fn transport_key(identity: &IdentityKey) -> Keypair {
    let secret = identity.to_bytes();
    let mut seed = tagged_hash("causeway/federation-transport/v1", &[&*secret]);
    // libp2p wipes the seed.
    Keypair::ed25519_from_bytes(&mut seed[..]).expect("any 32 bytes are a seed")
}

/// The running network. Dropping it stops the swarm.
#[derive(Debug)]
pub struct Transport {
    commands: mpsc::Sender<Command>,
    connected: Arc<Mutex<Vec<bool>>>,
    listening: Multiaddr,
    task: JoinHandle<()>,
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Transport {
    /// Starts the swarm, and returns once it listens.
    ///
    /// # Errors
    /// [`TransportError`].
    pub async fn start(config: TransportConfig) -> Result<(Self, mpsc::Receiver<Incoming>), TransportError> {
        let (commands, command_receiver) = mpsc::channel(COMMANDS_MAX);
        let (incoming, incoming_receiver) = mpsc::channel(INCOMING_MAX);
        let (bound, listening) = oneshot::channel();
        let connected = Arc::new(Mutex::new(vec![false; config.peers.len()]));
        let address = config.listen.clone();
        let listen_error = |problem: String| TransportError::Listen { address: address.clone(), problem };
        let swarm = SwarmTask::new(config, command_receiver, incoming, Arc::clone(&connected), bound)?;
        let task = tokio::spawn(swarm.run());
        let listening = match tokio::time::timeout(LISTEN_TIMEOUT, listening).await {
            Ok(Ok(Ok(address))) => address,
            Ok(Ok(Err(problem))) => return Err(listen_error(problem)),
            Ok(Err(_)) => return Err(listen_error("the swarm ended".to_owned())),
            Err(_) => return Err(listen_error("no answer of the system".to_owned())),
        };
        Ok((Self { commands, connected, listening, task }, incoming_receiver))
    }

    /// Where it listens.
    pub fn listening(&self) -> &Multiaddr {
        &self.listening
    }

    /// Sends a message of at most [`MESSAGE_BYTES_MAX`] to every other member that is connected or comes soon. Never
    /// waits.
    pub fn broadcast(&self, message: Vec<u8>) {
        if message.len() > MESSAGE_BYTES_MAX
            || self.commands.try_send(Command::Broadcast(Bytes::from(message))).is_err()
        {
            tracing::warn!("a message to the other members is dropped: the network is slow, it will be repeated");
        }
    }

    /// Sends a message of at most [`MESSAGE_BYTES_MAX`] to one member, by its place, if it is connected or comes soon.
    /// Never waits.
    pub fn send(&self, peer: usize, message: Vec<u8>) {
        let message = Bytes::from(message);
        if message.len() > MESSAGE_BYTES_MAX || self.commands.try_send(Command::Send { peer, message }).is_err() {
            tracing::warn!("a message to a member is dropped: the network is slow, it will be repeated");
        }
    }

    /// Takes nothing from a member for this long: it passes on what nobody signed.
    pub fn distrust(&self, peer: usize, wait: Duration) {
        // It will be found out again.
        let _ = self.commands.try_send(Command::Distrust { peer, wait });
    }

    /// Where it says which of the members are connected.
    pub(crate) fn connected_cell(&self) -> Arc<Mutex<Vec<bool>>> {
        Arc::clone(&self.connected)
    }

    /// Which of the members are connected, by their place.
    pub fn connected(&self) -> Vec<bool> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests;
