//! What a session signs: one Bitcoin transaction, fixed before the session starts.

use std::fmt;
use std::sync::Arc;

use bitcoin::Txid;
use bitcoin::hex::DisplayHex;
use bitcoin::secp256k1::PublicKey;
use causeway_chainspec::tagged_hash;

use crate::musig::{AggregateError, KeyAggregate, SessionId};

/// Most inputs of a transaction that is signed.
pub const INPUTS_MAX: usize = 1_000;

/// Most members of a federation.
pub const MEMBERS_MAX: usize = 100;

/// Names a task among the members: the same for all of them, another one for another transaction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub [u8; 32]);

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskId({})", self.0.as_hex())
    }
}

/// Names an attempt: all its sessions, one for each input, in order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(pub [u8; 32]);

impl fmt::Debug for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AttemptId({})", self.0.as_hex())
    }
}

/// Which keys of an output sign. The signed transaction has the same txid whichever it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Path {
    /// The output key: all members, one signature.
    Key,
    /// The leaf of these t members, sorted by index: one signature.
    Subset(Vec<u16>),
    /// The `multi_a` leaf: a plain signature of each of t members.
    MultiA,
}

/// A transaction to be signed by the federation, and everything that its signatures depend on. Every member builds its own
/// from final state and its own chain; nothing of it comes from another member.
///
/// The answers never change. A path given to [`SigningTask::message`] is one of this federation: a subset has exactly t
/// sorted members.
pub trait SigningTask {
    /// The same at every member that builds the same task. Another transaction has another one.
    fn task_id(&self) -> TaskId;

    /// The transaction's id.
    fn txid(&self) -> Txid;

    /// Public keys of the members, sorted as BIP327 KeySort does. A member's index is its place here.
    fn members(&self) -> &[PublicKey];

    /// Members needed to sign: 1 to the number of members.
    fn threshold(&self) -> usize;

    /// Inputs of the transaction: 1 to [`INPUTS_MAX`].
    fn input_count(&self) -> usize;

    /// The merkle root of the output that an input spends, which tweaks the key path.
    fn merkle_root(&self, input: usize) -> [u8; 32];

    /// The sighash (BIP341, default hash type) of an input on a path.
    fn message(&self, input: usize, path: &Path) -> [u8; 32];
}

/// One signature of an attempt.
#[derive(Clone, Debug)]
pub struct AttemptInput {
    /// Whose nonce it takes.
    pub session: SessionId,
    /// The key that the signature is for.
    pub aggregate: Arc<KeyAggregate>,
    /// What is signed.
    pub message: [u8; 32],
}

/// One try to sign every input with one set of signers. Everything of it is fixed before a nonce exists.
#[derive(Clone, Debug)]
pub struct Attempt {
    task: TaskId,
    round: u32,
    path: Path,
    signers: Vec<u16>,
    inputs: Vec<AttemptInput>,
    id: AttemptId,
}

impl Attempt {
    /// The attempt of a round: on the key path or a subset's leaf.
    ///
    /// # Errors
    /// The members' keys do not aggregate, or the path has no nonces.
    pub(super) fn new(task: &impl SigningTask, round: u32, path: Path) -> Result<Self, AggregateError> {
        let members = task.members();
        let signers: Vec<u16> = match &path {
            Path::Key => (0..).take(members.len()).collect(),
            Path::Subset(signers) => signers.clone(),
            Path::MultiA => return Err(AggregateError::Empty),
        };
        let keys: Vec<_> = signers.iter().filter_map(|signer| members.get(usize::from(*signer)).copied()).collect();
        let untweaked = Arc::new(KeyAggregate::new(&keys)?);
        let inputs: Result<Vec<_>, _> = (0..task.input_count())
            .map(|input| {
                let aggregate = match path {
                    Path::Key => Arc::new(untweaked.tweaked(task.merkle_root(input))?),
                    _ => Arc::clone(&untweaked),
                };
                let message = task.message(input, &path);
                Ok(AttemptInput { session: SessionId::new(&message, &aggregate, round), aggregate, message })
            })
            .collect();
        let inputs = inputs?;
        let sessions: Vec<&[u8]> = inputs.iter().map(|input| &input.session.as_bytes()[..]).collect();
        let id = AttemptId(tagged_hash("causeway/signing-attempt/v1", &sessions));
        Ok(Self { task: task.task_id(), round, path, signers, inputs, id })
    }

    /// The task.
    pub fn task(&self) -> TaskId {
        self.task
    }

    /// The round of the task. A task has at most one attempt in a round.
    pub fn round(&self) -> u32 {
        self.round
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The members that sign, sorted by index.
    pub fn signers(&self) -> &[u16] {
        &self.signers
    }

    /// One for each input of the transaction, in order.
    pub fn inputs(&self) -> &[AttemptInput] {
        &self.inputs
    }

    /// Its name.
    pub fn id(&self) -> AttemptId {
        self.id
    }
}

/// What must be on disk before anything of a round that cannot be repeated leaves the member (nonce rule 7): the task, its
/// transaction, and the sessions by the attempt's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptRecord {
    /// The task.
    pub task: TaskId,
    /// The transaction.
    pub txid: Txid,
    /// The round. Rounds up to the highest one on disk are never taken part in again.
    pub round: u32,
    /// The attempt: a hash of its session ids. On the `multi_a` path, of what is signed.
    pub attempt: AttemptId,
}
