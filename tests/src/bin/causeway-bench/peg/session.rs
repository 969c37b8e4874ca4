//! Signing sessions of a whole federation in one thread, in virtual time.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::Txid;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{PublicKey, XOnlyPublicKey};
use causeway_chainspec::{ChainId, devnet, tagged_hash};
use causeway_consensus::peg::script::{CoinScript, SpendPath};
use causeway_federation::musig::{IdentityKey, MemberKey};
use causeway_federation::session::{
    Body, Path, Session, SessionAction, SessionEvent, SignedMessage, Signer, SigningTask, TaskId, Timing,
};
use causeway_federation::spend::{Spend, SpendError};
use serde::Serialize;

use super::federation::{Federation, figure, pair};
use crate::measure::{Spread, measure, verification};

type Failure = Box<dyn std::error::Error>;

/// Virtual time after which something is wrong.
const LIMIT: Duration = Duration::from_secs(3_600);

/// What goes wrong in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// Nothing: all members sign by the key path.
    None,
    /// So many members never start. The coordinator of the first subset is there.
    Silent(usize),
    /// All members were restarted in the round before the last.
    Restarted,
    /// No nonces arrive, ever: all rounds run to their end, and `multi_a` signs.
    NoNonces,
}

#[derive(Debug, Serialize)]
pub(super) struct Row {
    federation: String,
    members: usize,
    threshold: u32,
    inputs: u32,
    /// What signed: `key`, `subset` or `multi_a`.
    path: &'static str,
    /// What went wrong before.
    trouble: String,
    live_members: usize,
    /// CPU time of a member for the whole task, checks of all messages included; the mean of the live members.
    cpu_ms_per_member: Spread,
    wall_ms_per_member: Spread,
    /// What a member waited for others, in virtual time: no part of the times above.
    waiting_seconds: f64,
    /// Messages that a member received and checked.
    messages_per_member: f64,
    bytes_per_member: f64,
    /// One verification (BIP340) by libsecp256k1, CPU.
    verification_us: Spread,
    /// Signers (all members on the key path, else the threshold) times inputs.
    verifications: u32,
    /// CPU time of a member over that of so many verifications.
    over_verifications: Spread,
    /// The same with a verification for each message received, too: about all signatures that a member checks.
    over_all_verifications: Spread,
}

/// Measures and prints the sessions for one transaction.
pub(super) fn measured(federation: &Federation, inputs: u32, runs: usize) -> Result<Vec<Row>, Failure> {
    let task = SpendTask::new(federation, inputs)?;
    let spare = federation.members().len() - task.threshold();
    let mut troubles =
        vec![Trouble::None, Trouble::Silent(1), Trouble::Silent(spare), Trouble::Restarted, Trouble::NoNonces];
    troubles.dedup();
    troubles.into_iter().map(|trouble| one(federation, &task, trouble, runs)).collect()
}

fn one(federation: &Federation, task: &SpendTask, trouble: Trouble, runs: usize) -> Result<Row, Failure> {
    let (mut samples, mut checks) = (Vec::new(), Vec::new());
    let (members, threshold) = (federation.members().len(), federation.epoch().threshold());
    let inputs = u32::try_from(task.input_count())?;
    let (path, text) = match trouble {
        Trouble::None => ("key", "none".to_owned()),
        Trouble::Silent(silent) => ("subset", format!("{silent} silent")),
        Trouble::Restarted => ("multi_a", "all restarted".to_owned()),
        Trouble::NoNonces => ("multi_a", "no nonces arrive".to_owned()),
    };
    let signers = if path == "key" { u32::try_from(members)? } else { threshold };
    let verifications = signers * inputs;
    let mut last = None;
    // The first run warms up, and does not count.
    for run in 0..=runs {
        let mut network = Network::new(federation, task, trouble)?;
        let (result, sample) = measure(|| network.run());
        result?;
        network.check(path)?;
        let check = verification(&pair("verification", 0)).cpu_ms;
        if run > 0 {
            samples.push(sample);
            checks.push(check);
        }
        last = Some(network);
    }
    let network = last.ok_or("no run")?;
    let live = figure(network.live());
    let messages = figure(network.messages) / live;
    let over = |verifications: f64| {
        let pairs = samples.iter().zip(&checks);
        Spread::of(pairs.map(|(sample, check)| sample.cpu_ms / live / (check * verifications)))
    };
    let row = Row {
        federation: federation.name(),
        members,
        threshold,
        inputs,
        path,
        trouble: text,
        live_members: network.live(),
        cpu_ms_per_member: Spread::of(samples.iter().map(|sample| sample.cpu_ms / live)),
        wall_ms_per_member: Spread::of(samples.iter().map(|sample| sample.wall_ms / live)),
        waiting_seconds: network.now.as_secs_f64(),
        messages_per_member: messages,
        bytes_per_member: figure(network.bytes) / live,
        verification_us: Spread::of(checks.iter().map(|check| check * 1e3)),
        verifications,
        over_verifications: over(verifications.into()),
        over_all_verifications: over(f64::from(verifications) + messages),
    };
    let Row {
        cpu_ms_per_member: cpu,
        wall_ms_per_member: wall,
        over_verifications: over,
        over_all_verifications: all,
        ..
    } = &row;
    let unit = if inputs == 1 { "input " } else { "inputs" };
    print!("  {:<9} {inputs:>2} {unit} {path:<7} {:<16} ", row.federation, row.trouble);
    print!("CPU {:>7.2} ms ({:.2} to {:.2}), wall {:>7.2} ms; ", cpu.median, cpu.min, cpu.max, wall.median);
    print!("{:>5.1} x, {:>4.1} y; waits {:>3.0} s; ", over.median, all.median, row.waiting_seconds);
    println!("{messages:>4.0} messages, {:>6.1} kB", row.bytes_per_member / 1e3);
    Ok(row)
}

/// A transaction that spends main outputs, with its sighashes, as a member's daemon prepares it.
#[derive(Clone)]
struct SpendTask(Arc<Prepared>);

struct Prepared {
    spend: Spend,
    id: TaskId,
    threshold: usize,
    /// Of each input: the root of its tree, and its sighashes on the key path and for `multi_a`.
    inputs: Vec<([u8; 32], [u8; 32], [u8; 32])>,
}

impl SpendTask {
    fn new(federation: &Federation, inputs: u32) -> Result<Self, Failure> {
        let spend = federation.spend(&CoinScript::Main, inputs, &SpendPath::Key)?;
        let id = TaskId(tagged_hash("causeway/bench", &[&spend.transaction().compute_txid().to_byte_array()]));
        let root = federation.scripts.main_root().to_byte_array();
        let prepared = |input| Ok((root, sighash(&spend, input, &Path::Key)?, sighash(&spend, input, &Path::MultiA)?));
        let inputs = (0..spend.coins().len()).map(prepared).collect::<Result<_, SpendError>>()?;
        let threshold = usize::try_from(federation.epoch().threshold())?;
        Ok(Self(Arc::new(Prepared { spend, id, threshold, inputs })))
    }
}

fn sighash(spend: &Spend, input: usize, path: &Path) -> Result<[u8; 32], SpendError> {
    let path = match path {
        Path::Key => SpendPath::Key,
        Path::Subset(subset) => SpendPath::Subset(subset.clone()),
        Path::MultiA => SpendPath::MultiA,
    };
    Ok(spend.to_sign(input, &path)?.sighash().to_byte_array())
}

impl SigningTask for SpendTask {
    fn task_id(&self) -> TaskId {
        self.0.id
    }

    fn txid(&self) -> Txid {
        self.0.spend.transaction().compute_txid()
    }

    fn members(&self) -> &[PublicKey] {
        self.0.spend.coins().first().map_or(&[], |coin| coin.scripts.epoch().members())
    }

    fn threshold(&self) -> usize {
        self.0.threshold
    }

    fn input_count(&self) -> usize {
        self.0.inputs.len()
    }

    fn merkle_root(&self, input: usize) -> [u8; 32] {
        self.0.inputs[input].0
    }

    fn message(&self, input: usize, path: &Path) -> [u8; 32] {
        match path {
            Path::Key => self.0.inputs[input].1,
            Path::MultiA => self.0.inputs[input].2,
            Path::Subset(_) => sighash(&self.0.spend, input, path).expect("every subset of t members is a path"),
        }
    }
}

/// A member that takes part.
struct Member {
    index: u16,
    session: Session<SpendTask>,
    signer: Signer,
    identity: IdentityKey,
    wake: Option<Duration>,
}

enum Happening {
    /// A message of another member, to be checked.
    Bytes(Rc<[u8]>),
    /// What the member's own process answers.
    Inner(SessionEvent),
}

/// The members, and what is on its way to them. Time passes when there is nothing else to do.
struct Network {
    chain: ChainId,
    members: Vec<Member>,
    identities: Vec<XOnlyPublicKey>,
    queue: VecDeque<(usize, Happening)>,
    loses_nonces: bool,
    now: Duration,
    messages: usize,
    bytes: usize,
}

impl Network {
    fn new(federation: &Federation, task: &SpendTask, trouble: Trouble) -> Result<Self, Failure> {
        let count = u16::try_from(federation.secrets.len())?;
        let identity =
            |index: u16| IdentityKey::from_bytes(&devnet::secret_key("bench identity", index.into()).secret_bytes());
        let identities = (0..count).map(|index| Ok(identity(index)?.public_key())).collect::<Result<_, Failure>>()?;
        let probe = Session::new(task.clone(), 0, Timing::default(), None)?;
        let used = (trouble == Trouble::Restarted).then(|| probe.last_round() - 1);
        let silent = if let Trouble::Silent(silent) = trouble { silent } else { 0 };
        // The last of these are silent.
        let order = (0..count).map(|step| (probe.coordinator(1) + step) % count);
        let mut members = Vec::new();
        for index in order.take(usize::from(count) - silent) {
            let key = MemberKey::from_bytes(&federation.secrets[usize::from(index)].secret_bytes())?;
            members.push(Member {
                index,
                session: Session::new(task.clone(), index, Timing::default(), used)?,
                signer: Signer::new(key),
                identity: identity(index)?,
                wake: None,
            });
        }
        let queue = (0..members.len()).map(|member| (member, Happening::Inner(SessionEvent::Started))).collect();
        Ok(Self {
            chain: federation.chain,
            members,
            identities,
            queue,
            loses_nonces: trouble == Trouble::NoNonces,
            now: Duration::ZERO,
            messages: 0,
            bytes: 0,
        })
    }

    fn live(&self) -> usize {
        self.members.len()
    }

    /// Runs until every member has the signatures and nothing is on its way.
    fn run(&mut self) -> Result<(), Failure> {
        loop {
            while let Some((to, happening)) = self.queue.pop_front() {
                let event = match happening {
                    Happening::Inner(event) => event,
                    Happening::Bytes(bytes) => {
                        self.messages += 1;
                        self.bytes += bytes.len();
                        SessionEvent::Received(SignedMessage::decode(&bytes, self.chain, &self.identities)?)
                    }
                };
                for action in self.members[to].session.handle(self.now, event) {
                    self.perform(to, action)?;
                }
            }
            let waiting = self.members.iter().filter(|member| member.session.signed().is_none());
            let Some(next) = waiting.map(|member| member.wake).min() else { return Ok(()) };
            self.now = next.filter(|at| *at < LIMIT).ok_or("a session does not end: this is a bug")?.max(self.now);
            for (at, member) in self.members.iter_mut().enumerate() {
                if member.wake.is_some_and(|wake| wake <= self.now) {
                    member.wake = None;
                    self.queue.push_back((at, Happening::Inner(SessionEvent::Tick)));
                }
            }
        }
    }

    fn perform(&mut self, at: usize, action: SessionAction) -> Result<(), Failure> {
        let member = &mut self.members[at];
        let answer = match action {
            SessionAction::Send(message) => {
                if !(self.loses_nonces && matches!(message.body, Body::Nonces { .. })) {
                    let signed = SignedMessage::sign(self.chain, member.index, &member.identity, message);
                    self.send(at, &signed);
                }
                return Ok(());
            }
            SessionAction::Relay(signed) => {
                self.send(at, &signed);
                return Ok(());
            }
            SessionAction::SendTo { to, message } => {
                if !(self.loses_nonces && matches!(message.body, Body::Nonces { .. })) {
                    let signed = SignedMessage::sign(self.chain, member.index, &member.identity, message);
                    self.send_to(to, &signed);
                }
                return Ok(());
            }
            SessionAction::RelayTo { to, signed } => {
                self.send_to(to, &signed);
                return Ok(());
            }
            SessionAction::Persist(record) => SessionEvent::Persisted { round: record.round },
            SessionAction::MakeNonces(attempt) => {
                let nonces = member.signer.make_nonces(&attempt)?;
                SessionEvent::NoncesMade { round: attempt.round(), nonces }
            }
            SessionAction::MakePartials { attempt, nonces } => {
                let partials = member.signer.make_partials(&attempt, &nonces)?;
                SessionEvent::PartialsMade { round: attempt.round(), partials }
            }
            SessionAction::MakeSignatures(messages) => {
                SessionEvent::SignaturesMade(member.signer.make_signatures(&messages))
            }
            SessionAction::Burn(attempt) => {
                member.signer.burn(&attempt);
                return Ok(());
            }
            SessionAction::WakeAt(wake) => {
                member.wake = Some(wake);
                return Ok(());
            }
            SessionAction::Alarm(alarm) => return Err(alarm.into()),
            SessionAction::Blame { fault, .. } if fault.is_proven() => return Err(fault.into()),
            SessionAction::Blame { .. } | SessionAction::Done(_) => return Ok(()),
        };
        self.queue.push_back((at, Happening::Inner(answer)));
        Ok(())
    }

    fn send(&mut self, from: usize, signed: &SignedMessage) {
        let bytes: Rc<[u8]> = signed.encode().into();
        let others = (0..self.members.len()).filter(|to| *to != from);
        self.queue.extend(others.map(|to| (to, Happening::Bytes(Rc::clone(&bytes)))));
    }

    fn send_to(&mut self, to: u16, signed: &SignedMessage) {
        if let Some(at) = self.members.iter().position(|member| member.index == to) {
            self.queue.push_back((at, Happening::Bytes(signed.encode().into())));
        }
    }

    /// All members signed by this path.
    fn check(&self, path: &str) -> Result<(), Failure> {
        for member in &self.members {
            let signed = member.session.signed().ok_or("a member without signatures")?;
            let by = match &signed.path {
                Path::Key => "key",
                Path::Subset(_) => "subset",
                Path::MultiA => "multi_a",
            };
            if by != path {
                return Err(format!("signed by {by} instead of {path}").into());
            }
        }
        Ok(())
    }
}
