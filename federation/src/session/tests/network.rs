//! A network of members in virtual time: delay, loss, repetition, crashes, and members that lie. Everything follows from
//! the seed. It knows every nonce that any member ever made, and fails when one signs twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bitcoin::Txid;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{PublicKey, XOnlyPublicKey};
use causeway_chainspec::{ChainId, tagged_hash};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::*;
use crate::musig::{IdentityKey, MemberKey, SessionId};

/// A transaction that is nothing but hashes.
#[derive(Clone, Debug)]
pub(super) struct PlainTask {
    pub(super) members: Vec<PublicKey>,
    pub(super) threshold: usize,
    pub(super) inputs: usize,
    pub(super) number: u64,
}

impl PlainTask {
    fn hash(&self, what: &str, input: usize, path: &Path) -> [u8; 32] {
        tagged_hash("test", &[format!("{what} {} {input} {path:?}", self.number).as_bytes()])
    }
}

impl SigningTask for PlainTask {
    fn task_id(&self) -> TaskId {
        TaskId(self.hash("task", 0, &Path::Key))
    }
    fn txid(&self) -> Txid {
        Txid::from_byte_array(self.hash("txid", 0, &Path::Key))
    }
    fn members(&self) -> &[PublicKey] {
        &self.members
    }
    fn threshold(&self) -> usize {
        self.threshold
    }
    fn input_count(&self) -> usize {
        self.inputs
    }
    fn merkle_root(&self, input: usize) -> [u8; 32] {
        self.hash("root", input, &Path::Key)
    }
    fn message(&self, input: usize, path: &Path) -> [u8; 32] {
        self.hash("sighash", input, path)
    }
}

pub(super) fn chain() -> ChainId {
    ChainId::from_byte_array([3; 32])
}

fn secret(kind: &str, seed: u64, index: usize) -> [u8; 32] {
    tagged_hash("test key", &[format!("{kind} {seed} {index}").as_bytes()])
}

/// The member keys of a federation, sorted, and their task.
pub(super) fn federation(n: usize, t: usize, inputs: usize, seed: u64) -> (Vec<MemberKey>, PlainTask) {
    let mut keys: Vec<_> = (0..n).map(|index| MemberKey::from_bytes(&secret("member", 0, index)).unwrap()).collect();
    keys.sort_by_key(|key| key.public_key().serialize());
    let members = keys.iter().map(MemberKey::public_key).collect();
    (keys, PlainTask { members, threshold: t, inputs, number: seed })
}

pub(super) fn identity(index: usize) -> IdentityKey {
    IdentityKey::from_bytes(&secret("identity", 0, index)).unwrap()
}

/// What a lying member does to a message that its honest code sends to one other member: it may send anything instead.
pub(super) type Lie = Box<dyn FnMut(&mut StdRng, &SessionMessage, usize) -> Vec<SessionMessage>>;

/// One member: what survives a crash, and what does not.
struct Node {
    session: Option<Session<PlainTask>>,
    signer: Option<Signer>,
    life: u32,
    /// The signing log: the highest round.
    disk: Option<u32>,
    wake: Option<Duration>,
    lie: Option<Lie>,
    /// Public nonces of this life, by session.
    made: BTreeMap<SessionId, [u8; 66]>,
    actions: usize,
    attempts: usize,
}

enum Happening {
    Bytes(Vec<u8>),
    Inner(u32, SessionEvent),
    /// The record of a round reaches the disk.
    Written(u32, u32),
    Wake(Duration),
    Start,
}

pub(super) struct Network {
    pub(super) task: PlainTask,
    nodes: Vec<Node>,
    identities: Vec<IdentityKey>,
    public_identities: Vec<XOnlyPublicKey>,
    queue: BTreeMap<(Duration, u64), (usize, Happening)>,
    sequence: u64,
    pub(super) now: Duration,
    pub(super) rng: StdRng,
    pub(super) timing: Timing,
    pub(super) loss: f64,
    pub(super) repeat: f64,
    pub(super) delay_ms: std::ops::Range<u64>,
    /// Kill this member before its action of this number, and start it again this much later.
    pub(super) kill: Option<(usize, usize, Option<Duration>)>,
    pub(super) outcomes: Vec<Option<Arc<Signed>>>,
    pub(super) alarms: Vec<(usize, Alarm)>,
    /// Every nonce that signed.
    signed_nonces: BTreeSet<[u8; 66]>,
    /// What every member said where it has one thing to say, over all its lives.
    said: BTreeMap<(usize, u32, u8), SessionMessage>,
    pub(super) malformed: usize,
    /// How often nonces and partial signatures were said again.
    pub(super) repeated: usize,
    /// Messages from one member to another, and their bytes.
    pub(super) sent: usize,
    pub(super) sent_bytes: usize,
}

impl Network {
    pub(super) fn new(n: usize, t: usize, inputs: usize, seed: u64) -> Self {
        let (_, task) = federation(n, t, inputs, seed);
        let node = |_| Node {
            session: None,
            signer: None,
            life: 0,
            disk: None,
            wake: None,
            lie: None,
            made: BTreeMap::new(),
            actions: 0,
            attempts: 0,
        };
        let mut network = Self {
            task,
            nodes: (0..n).map(node).collect(),
            identities: (0..n).map(identity).collect(),
            public_identities: (0..n).map(|index| identity(index).public_key()).collect(),
            queue: BTreeMap::new(),
            sequence: 0,
            now: Duration::ZERO,
            rng: StdRng::seed_from_u64(seed),
            timing: Timing::default(),
            loss: 0.0,
            repeat: 0.0,
            delay_ms: 10..100,
            kill: None,
            outcomes: vec![None; n],
            alarms: Vec::new(),
            signed_nonces: BTreeSet::new(),
            said: BTreeMap::new(),
            malformed: 0,
            repeated: 0,
            sent: 0,
            sent_bytes: 0,
        };
        for member in 0..n {
            let at = Duration::from_millis(network.rng.random_range(0..1_000));
            network.start(member, at);
        }
        network
    }

    pub(super) fn n(&self) -> usize {
        self.nodes.len()
    }

    /// Starts a member at this time, or again.
    pub(super) fn start(&mut self, member: usize, at: Duration) {
        self.push(at, member, Happening::Start);
    }

    /// The member never starts.
    pub(super) fn never(&mut self, member: usize) {
        self.queue.retain(|_, (to, _)| *to != member);
    }

    /// The member lies.
    pub(super) fn lie(
        &mut self,
        member: usize,
        lie: impl FnMut(&mut StdRng, &SessionMessage, usize) -> Vec<SessionMessage> + 'static,
    ) {
        self.nodes[member].lie = Some(Box::new(lie));
    }

    pub(super) fn is_liar(&self, member: usize) -> bool {
        self.nodes[member].lie.is_some()
    }

    pub(super) fn coordinator(&self, round: u32) -> usize {
        let session = Session::new(self.task.clone(), 0, self.timing, None).unwrap();
        usize::from(session.coordinator(round))
    }

    /// Subset attempts that a member made nonces for in its last life.
    pub(super) fn attempts(&self, member: usize) -> usize {
        self.nodes[member].attempts
    }

    pub(super) fn open_nonces(&self, member: usize) -> usize {
        self.nodes[member].signer.as_ref().map_or(0, Signer::open_nonces)
    }

    fn push(&mut self, at: Duration, member: usize, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), (member, happening));
    }

    fn soon(&mut self) -> Duration {
        self.now + Duration::from_millis(self.rng.random_range(self.delay_ms.clone()))
    }

    pub(super) fn crash(&mut self, member: usize) {
        let node = &mut self.nodes[member];
        (node.session, node.signer, node.wake) = (None, None, None);
        node.made.clear();
        node.life += 1;
    }

    /// Runs until all of these know the signatures.
    pub(super) fn run(&mut self, members: &[usize]) {
        let (n, t) = (self.n(), self.task.threshold);
        // Every round may run to its end, and each wait is seen a repetition late.
        let rounds = u32::try_from(2 * (n - t) + 2).unwrap();
        let Timing { key_path, propose, attempt, resend } = self.timing;
        let limit = self.now + key_path + rounds * (propose + attempt + 4 * resend) + Duration::from_secs(60);
        self.run_until(limit, |network| members.iter().all(|member| network.outcomes[*member].is_some()));
        let missing: Vec<_> = members.iter().filter(|member| self.outcomes[**member].is_none()).collect();
        let rounds: Vec<_> =
            self.nodes.iter().map(|node| node.session.as_ref().map(|session| session.round())).collect();
        assert!(missing.is_empty(), "members {missing:?} are not done after {:?}: rounds {rounds:?}", self.now);
        assert_eq!(self.alarms, [], "an honest member called for help");
        members.iter().for_each(|member| self.check(*member));
    }

    pub(super) fn run_until(&mut self, limit: Duration, stop: impl Fn(&Self) -> bool) {
        while !stop(self) {
            let Some(((at, _), (member, happening))) = self.queue.pop_first() else { return };
            self.now = self.now.max(at);
            if self.now > limit {
                return;
            }
            self.happen(member, happening);
        }
    }

    fn happen(&mut self, member: usize, happening: Happening) {
        let event = match happening {
            Happening::Start => {
                let (mut keys, task) = federation(self.n(), self.task.threshold, self.task.inputs, self.task.number);
                let node = &mut self.nodes[member];
                let index = u16::try_from(member).unwrap();
                node.session = Some(Session::new(task, index, self.timing, node.disk).unwrap());
                node.signer = Some(Signer::new(keys.swap_remove(member)));
                node.attempts = 0;
                SessionEvent::Started
            }
            Happening::Bytes(bytes) => match SignedMessage::decode(&bytes, chain(), &self.public_identities) {
                Ok(message) => SessionEvent::Received(message),
                Err(_) => {
                    self.malformed += 1;
                    return;
                }
            },
            Happening::Inner(life, event) if life == self.nodes[member].life => event,
            Happening::Written(life, round) if life == self.nodes[member].life => {
                let disk = &mut self.nodes[member].disk;
                *disk = (*disk).max(Some(round));
                SessionEvent::Persisted { round }
            }
            Happening::Wake(at) if self.nodes[member].wake == Some(at) => SessionEvent::Tick,
            _ => return,
        };
        self.feed(member, event);
    }

    pub(super) fn feed(&mut self, member: usize, event: SessionEvent) {
        let now = self.now;
        let Some(session) = &mut self.nodes[member].session else { return };
        for action in session.handle(now, event) {
            if let Some((victim, number, back)) = self.kill
                && victim == member
                && self.nodes[member].actions == number
            {
                self.kill = None;
                // What was being written may or may not be on disk.
                if let SessionAction::Persist(record) = &action
                    && self.rng.random_bool(0.5)
                {
                    let disk = &mut self.nodes[member].disk;
                    *disk = (*disk).max(Some(record.round));
                }
                self.crash(member);
                if let Some(back) = back {
                    self.start(member, now + back);
                }
                return;
            }
            self.nodes[member].actions += 1;
            self.perform(member, action);
        }
    }

    fn perform(&mut self, member: usize, action: SessionAction) {
        let soon = self.soon();
        let life = self.nodes[member].life;
        match action {
            SessionAction::Send(message) => {
                if !self.is_liar(member) {
                    self.check_said(member, &message);
                }
                (0..self.n()).filter(|to| *to != member).for_each(|to| self.say(member, &message, to));
            }
            SessionAction::SendTo { to, message } => {
                if !self.is_liar(member) {
                    self.check_said(member, &message);
                    assert!(!matches!(message.body, Body::Join { .. }), "what a member has is said to all");
                }
                assert_ne!(usize::from(to), member);
                self.say(member, &message, usize::from(to));
            }
            SessionAction::RelayTo { to, signed } => {
                let (author, to) = (usize::from(signed.member()), usize::from(to));
                if to != author || !self.is_liar(author) {
                    self.send(to, signed.encode());
                }
            }
            SessionAction::Relay(signed) => {
                let author = usize::from(signed.member());
                // A liar's own honest code would stop at what the liar made of its words.
                let skips_author = self.is_liar(author);
                for to in (0..self.n()).filter(|to| *to != member && !(*to == author && skips_author)) {
                    self.send(to, signed.encode());
                }
            }
            SessionAction::Persist(record) => {
                assert_eq!((record.task, record.txid), (self.task.task_id(), self.task.txid()));
                self.push(soon, member, Happening::Written(life, record.round));
            }
            SessionAction::MakeNonces(attempt) => {
                let node = &mut self.nodes[member];
                let nonces = node.signer.as_mut().unwrap().make_nonces(&attempt).unwrap();
                for (input, nonce) in attempt.inputs().iter().zip(&nonces) {
                    node.made.insert(input.session, nonce.to_bytes());
                }
                node.attempts += usize::from(*attempt.path() != Path::Key);
                self.push(
                    soon,
                    member,
                    Happening::Inner(life, SessionEvent::NoncesMade { round: attempt.round(), nonces }),
                );
            }
            SessionAction::MakePartials { attempt, nonces } => {
                let node = &mut self.nodes[member];
                let partials = node.signer.as_mut().unwrap().make_partials(&attempt, &nonces).unwrap();
                for input in attempt.inputs() {
                    let fresh = self.signed_nonces.insert(node.made[&input.session]);
                    assert!(fresh, "member {member} signed twice with one nonce");
                }
                let round = attempt.round();
                self.push(soon, member, Happening::Inner(life, SessionEvent::PartialsMade { round, partials }));
            }
            SessionAction::MakeSignatures(messages) => {
                let signatures = self.nodes[member].signer.as_ref().unwrap().make_signatures(&messages);
                self.push(soon, member, Happening::Inner(life, SessionEvent::SignaturesMade(signatures)));
            }
            SessionAction::Burn(attempt) => self.nodes[member].signer.as_mut().unwrap().burn(&attempt),
            SessionAction::WakeAt(at) => {
                self.nodes[member].wake = Some(at);
                self.push(at.max(self.now), member, Happening::Wake(at));
            }
            SessionAction::Blame { member: accused, fault } => {
                let honest = !self.is_liar(usize::from(accused)) || self.is_liar(member);
                assert!(
                    !honest || !fault.is_proven() || self.is_liar(member),
                    "{accused} is honest, and named: {fault}"
                );
            }
            SessionAction::Alarm(alarm) => {
                if !self.is_liar(member) {
                    self.alarms.push((member, alarm));
                }
            }
            SessionAction::Done(signed) => self.outcomes[member] = Some(signed),
        }
    }

    /// What a member says to another one, or a lie of it.
    fn say(&mut self, member: usize, message: &SessionMessage, to: usize) {
        let messages = match &mut self.nodes[member].lie {
            None => vec![message.clone()],
            Some(lie) => lie(&mut self.rng, message, to),
        };
        for said in messages {
            let index = u16::try_from(member).unwrap();
            self.send(to, SignedMessage::sign(chain(), index, &self.identities[member], said).encode());
        }
    }

    fn send(&mut self, to: usize, bytes: Vec<u8>) {
        self.sent += 1;
        self.sent_bytes += bytes.len();
        let copies = if self.rng.random_bool(self.loss) {
            0
        } else if self.rng.random_bool(self.repeat) {
            2
        } else {
            1
        };
        for _ in 0..copies {
            let at = self.soon();
            self.push(at, to, Happening::Bytes(bytes.clone()));
        }
    }

    /// Nonce rules 6 and 7, seen from outside: over all its lives, a member says one thing where it has one to say, and only
    /// when the round is on its disk.
    fn check_said(&mut self, member: usize, message: &SessionMessage) {
        let kind = match message.body {
            Body::Join { .. } | Body::Result { .. } => return,
            Body::Proposal { .. } => 0,
            Body::Nonces { .. } => 1,
            Body::Partials { .. } => 2,
            Body::Signatures(_) => 3,
        };
        // Evidence repeats a proposal that was right when it was made.
        let is_new = !self.said.contains_key(&(member, message.round, kind));
        if let (Body::Proposal { signers }, Some(session), true) = (&message.body, &self.nodes[member].session, is_new)
        {
            let proven = session.faults().iter().filter(|(_, fault)| fault.is_proven());
            let named: Vec<_> = proven.filter(|(named, _)| signers.contains(named)).collect();
            assert!(named.is_empty(), "member {member} proposes {named:?}");
        }
        let disk = self.nodes[member].disk;
        assert!(disk >= Some(message.round), "member {member} spoke in round {} with {disk:?} on disk", message.round);
        let earlier = self.said.insert((member, message.round, kind), message.clone());
        self.repeated += usize::from(earlier.is_some());
        assert!(earlier.is_none_or(|earlier| earlier == *message), "member {member} said two things");
    }

    /// Checks a member's outcome by itself.
    fn check(&self, member: usize) {
        let signed = self.outcomes[member].as_ref().unwrap();
        let keys = &self.task.members;
        let verify = |key: &XOnlyPublicKey, input: usize, signature| {
            assert!(crate::musig::verify(key, &self.task.message(input, &signed.path), signature));
        };
        match (&signed.path, &signed.signatures) {
            (Path::MultiA, Signatures::Each(each)) => {
                assert_eq!(each.len(), self.task.threshold);
                for (signer, signatures) in each {
                    assert_eq!(signatures.len(), self.task.inputs);
                    let key = keys[usize::from(*signer)].x_only_public_key().0;
                    signatures.iter().enumerate().for_each(|(input, signature)| verify(&key, input, signature));
                }
            }
            (path, Signatures::One(signatures)) => {
                assert_eq!(signatures.len(), self.task.inputs);
                let attempt = Attempt::new(&self.task, 0, path.clone()).unwrap();
                for (at, (input, signature)) in attempt.inputs().iter().zip(signatures).enumerate() {
                    verify(&input.aggregate.x_only(), at, signature);
                }
            }
            other => panic!("{other:?}"),
        }
    }
}
