//! What happens to a session, what it asks for, and what comes out of it.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::secp256k1::schnorr;

use super::message::{SessionMessage, SignedMessage};
use super::task::{Attempt, AttemptRecord, Path};
use crate::musig::{AggregateNonce, PartialSignature, PublicNonce};

/// How long a session waits for others. Every member may have its own, but much shorter ones than the others' waste rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// For all members to answer, from when t have: after that the key path is given up.
    pub key_path: Duration,
    /// For the coordinator of a round to propose signers, from when t members are in the round.
    pub propose: Duration,
    /// For nonces and partial signatures, from when the signers are known.
    pub attempt: Duration,
    /// Between two times that a member says what it has of a round, and so asks for what it lacks.
    pub resend: Duration,
}

impl Default for Timing {
    /// For members that reach each other within a second.
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { key_path: seconds(10), propose: seconds(6), attempt: seconds(10), resend: seconds(2) }
    }
}

/// What happens to a session.
#[derive(Debug)]
pub enum SessionEvent {
    /// It begins, as with any other event that comes first.
    Started,
    /// A member's message arrived.
    Received(SignedMessage),
    /// The record that [`SessionAction::Persist`] gave for this round is on disk, synced.
    Persisted {
        /// The round of the record.
        round: u32,
    },
    /// [`SessionAction::MakeNonces`] is done.
    NoncesMade {
        /// The round of the attempt.
        round: u32,
        /// One for each input.
        nonces: Vec<PublicNonce>,
    },
    /// [`SessionAction::MakePartials`] is done.
    PartialsMade {
        /// The round of the attempt.
        round: u32,
        /// One for each input.
        partials: Vec<PartialSignature>,
    },
    /// [`SessionAction::MakeSignatures`] is done: one for each input.
    SignaturesMade(Vec<schnorr::Signature>),
    /// Time has passed.
    Tick,
}

/// What a session asks for. What cannot be done is not answered: the session goes on without this member.
#[derive(Debug)]
pub enum SessionAction {
    /// Sign with the identity key and send to every other member.
    Send(SessionMessage),
    /// Pass another member's message on to every other member.
    Relay(SignedMessage),
    /// Sign with the identity key and send to this member.
    SendTo {
        /// The index of the member.
        to: u16,
        /// Something that was said before, the same to the bit.
        message: SessionMessage,
    },
    /// Pass another member's message on to this member.
    RelayTo {
        /// The index of the member.
        to: u16,
        /// The message.
        signed: SignedMessage,
    },
    /// Write to disk and sync, then answer with [`SessionEvent::Persisted`]. Nothing of the round leaves before.
    Persist(AttemptRecord),
    /// Make the nonces of an attempt: [`Signer::make_nonces`](super::Signer::make_nonces).
    MakeNonces(Arc<Attempt>),
    /// Sign with them, which consumes them: [`Signer::make_partials`](super::Signer::make_partials).
    MakePartials {
        /// The attempt.
        attempt: Arc<Attempt>,
        /// The sum of all signers' nonces, for each input.
        nonces: Vec<AggregateNonce>,
    },
    /// Make plain signatures: [`Signer::make_signatures`](super::Signer::make_signatures).
    MakeSignatures(Vec<[u8; 32]>),
    /// Burn the nonces of an attempt that is given up: [`Signer::burn`](super::Signer::burn).
    Burn(Arc<Attempt>),
    /// Answer with [`SessionEvent::Tick`] at this time. It replaces the one asked for before.
    WakeAt(Duration),
    /// A member is at fault. Log it.
    Blame {
        /// The index of the member.
        member: u16,
        /// What it did.
        fault: Fault,
    },
    /// Stop signing with this key at once, and call a person (nonce rule 10). The session does nothing any more.
    Alarm(Alarm),
    /// The task is signed. The session goes on answering members that do not know yet.
    Done(Arc<Signed>),
}

/// What a member did wrong in a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "every variant is documented, and its message names its fields")]
#[non_exhaustive]
pub enum Fault {
    /// Something that was its turn to say did not come in time. Later attempts prefer others, and take it if they must.
    #[error("silent in round {round}")]
    Silent { round: u32 },
    /// It coordinated a round and proposed nothing in time. As forgivable as silence.
    #[error("proposed no signers in round {round}")]
    NoProposal { round: u32 },
    /// It proposed what breaks the rules, or where another member coordinates.
    #[error("signed a proposal against the rules in round {round}")]
    BadProposal { round: u32 },
    /// It sent something for another number of inputs.
    #[error("signed a message with a wrong number of inputs in round {round}")]
    WrongCount { round: u32 },
    /// A public nonce is no two points.
    #[error("sent a public nonce that is no point in round {round}, input {input}")]
    BadNonce { round: u32, input: usize },
    /// It showed one public nonce twice. Its key may be lost already.
    #[error("used a nonce twice, in round {round}: its key must be replaced")]
    ReusedNonce { round: u32 },
    /// A partial signature does not fit its nonce.
    #[error("sent a wrong partial signature in round {round}, input {input}")]
    BadPartial { round: u32, input: usize },
    /// A plain signature is wrong.
    #[error("sent a wrong signature of input {input}")]
    BadSignature { input: usize },
    /// It said two different things where it has one to say.
    #[error("signed two different messages in round {round}")]
    Equivocation { round: u32 },
    /// It claimed a result that is none.
    #[error("signed a result whose signatures are wrong")]
    BadResult,
}

impl Fault {
    /// Whether the member's own signed messages show it. If not, it may be the network's fault.
    pub fn is_proven(self) -> bool {
        !matches!(self, Self::Silent { .. } | Self::NoProposal { .. })
    }
}

/// Why a session stops for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Alarm {
    /// Others have messages of this member that this process did not send.
    #[error(
        "another process signs messages with this member's identity key: stop both, find out why, and replace the keys"
    )]
    KeyInUseElsewhere,
    /// This member's own messages show a fault.
    #[error("this member's own messages show a fault ({0}): stop signing with this key and find out why")]
    OwnFault(Fault),
    /// Checked partial signatures do not add up.
    #[error("checked partial signatures add up to no signature: this is a bug, please report it; nothing was sent")]
    Sum,
}

/// A task that is signed, every signature checked against its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Which keys signed.
    pub path: Path,
    /// The signatures.
    pub signatures: Signatures,
    /// Who was at fault on the way, in the order it was found.
    pub faults: Vec<(u16, Fault)>,
}

/// The signatures of a signed task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signatures {
    /// One for each input: of the key path or a subset's leaf.
    One(Vec<schnorr::Signature>),
    /// Of t members, by index, one for each input: of the `multi_a` leaf.
    Each(Vec<(u16, Vec<schnorr::Signature>)>),
}
