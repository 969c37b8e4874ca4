//! Where signing happens: keys, signing log and sessions, on a thread of their own, since all of it computes or waits
//! for the disk. Whatever signs was approved here, from facts that the rest of the daemon gathered.

mod standing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bitcoin::Txid;
use bitcoin::hex::DisplayHex as _;
use bitcoin::secp256k1::XOnlyPublicKey;
use causeway_chainspec::ChainId;
use causeway_consensus::peg::batch::Batch;

use super::records::{self, AlarmRecord, SignedRecord};
use super::status::{Declined, TaskStatus};
use super::task::BatchTask;
use crate::approve::{
    self, ActedOn, BitcoinFacts, BlockPoint, Decline, DepositFacts, DepositsMark, Federation, NodeFacts, NotReady,
    OwnFacts,
};
use crate::command::one_line;
use crate::home::Home;
use crate::keystore::{SigningLog, SigningLogError};
use crate::musig::{IdentityKey, MemberKey};
use crate::session::{
    Attempt, AttemptId, Body, MessageError, Path, Session, SessionAction, SessionEvent, SessionMessage, Signed,
    SignedMessage, Signer, SigningTask, TaskId, Timing,
};

pub(crate) use self::standing::show_path;
use self::standing::{declined, status_of, waits};

/// What a room is made of.
pub(crate) struct RoomParts {
    pub(crate) federation: Federation,
    /// The member's place among the members.
    pub(crate) own: u16,
    /// Identity keys of the members, in their order.
    pub(crate) identities: Vec<XOnlyPublicKey>,
    pub(crate) identity: Arc<IdentityKey>,
    pub(crate) member: MemberKey,
    pub(crate) log: SigningLog,
    pub(crate) timing: Timing,
    pub(crate) home: Home,
    pub(crate) acted_on: Option<ActedOn>,
    pub(crate) deposits: DepositsMark,
    pub(crate) signed: Vec<Arc<SignedRecord>>,
}

/// Everything that was found out in one look at node and bitcoind.
#[derive(Clone, Debug)]
pub(crate) struct Survey {
    pub(crate) node: NodeFacts,
    /// The open batches; without facts where bitcoind did not answer, and why.
    pub(crate) batches: Vec<(Batch, Result<BitcoinFacts, String>)>,
    /// Deposits that were credited since the mark; or why bitcoind did not answer.
    pub(crate) deposits: Result<DepositFacts, String>,
}

/// What the room is told.
#[derive(Debug)]
pub(crate) enum Order {
    /// What was found out.
    Survey(Box<Survey>),
    /// Bytes from another member's process, of anyone's making.
    Received { from: usize, bytes: Vec<u8> },
    /// Give up every session: the facts are too old.
    GiveUp,
}

/// What the room says.
#[derive(Debug)]
pub(crate) enum Report {
    /// To be signed with the identity key and sent to a member; to all if None.
    Say { to: Option<u16>, message: SessionMessage },
    /// To be sent to a member; to all if None.
    Relay { to: Option<u16>, bytes: Vec<u8> },
    /// A peer passed on what nobody signed.
    BadPeer { peer: usize, error: MessageError },
    /// A transaction is signed, and on disk.
    Signed(Arc<SignedRecord>),
    /// Where everything stands, after every survey and every step of a session.
    Standing { tasks: Vec<TaskStatus>, declined: Vec<Declined>, acted_on: Option<BlockPoint>, deposits: DepositsMark },
    /// The batches that are still open, of an answer that was accepted.
    Open(BTreeSet<u32>),
    /// It stopped.
    Alarm(AlarmRecord),
}

struct Open {
    session: Session<BatchTask>,
    started: Duration,
    wake: Option<Duration>,
    /// Attempts whose nonces wait.
    nonces: BTreeMap<AttemptId, Arc<Attempt>>,
    took: Option<Duration>,
}

/// Keys, log and sessions of a member.
pub(crate) struct Room {
    federation: Federation,
    chain: ChainId,
    own: u16,
    identities: Vec<XOnlyPublicKey>,
    identity: Arc<IdentityKey>,
    signer: Signer,
    log: SigningLog,
    timing: Timing,
    home: Home,
    acted_on: Option<ActedOn>,
    deposits: DepositsMark,
    alarm: Option<AlarmRecord>,
    signed: BTreeMap<Txid, Arc<SignedRecord>>,
    open: BTreeMap<TaskId, Open>,
    declined: Vec<Declined>,
    /// Members whose malformed messages were logged.
    malformed: BTreeSet<u16>,
    reports: Vec<Report>,
}

impl Room {
    pub(crate) fn new(parts: RoomParts) -> Self {
        let RoomParts { federation, own, identities, identity, member, log, timing, home, .. } = parts;
        let RoomParts { acted_on, deposits, signed, .. } = parts;
        let alarm = records::load_alarm(&home);
        Self {
            chain: federation.chain,
            federation,
            own,
            identities,
            identity,
            signer: Signer::new(member),
            log,
            timing,
            home,
            acted_on,
            deposits,
            alarm,
            signed: signed.into_iter().map(|record| (record.txid, record)).collect(),
            open: BTreeMap::new(),
            declined: Vec::new(),
            malformed: BTreeSet::new(),
            reports: Vec::new(),
        }
    }

    /// Does what it is told, and returns what there is to say.
    pub(crate) fn handle(&mut self, now: Duration, order: Order) -> Vec<Report> {
        match order {
            Order::Survey(survey) => self.survey(now, *survey),
            Order::Received { from, bytes } => self.received(now, from, &bytes),
            Order::GiveUp => self.give_up(|_| false),
        }
        std::mem::take(&mut self.reports)
    }

    /// Wakes the sessions whose time has come.
    pub(crate) fn tick(&mut self, now: Duration) -> Vec<Report> {
        let due = |open: &Open| open.wake.is_some_and(|wake| wake <= now);
        let tasks: Vec<TaskId> = self.open.iter().filter(|(_, open)| due(open)).map(|(task, _)| *task).collect();
        for task in tasks {
            if let Some(open) = self.open.get_mut(&task) {
                open.wake = None;
            }
            self.feed(now, task, SessionEvent::Tick);
        }
        std::mem::take(&mut self.reports)
    }

    /// When a session wants to be woken.
    pub(crate) fn next_wake(&self) -> Option<Duration> {
        self.open.values().filter_map(|open| open.wake).min()
    }

    fn survey(&mut self, now: Duration, survey: Survey) {
        let Survey { node, batches, deposits } = survey;
        let alarm = records::load_alarm(&self.home);
        self.alarm = alarm;
        let mut own = OwnFacts {
            paused: self.home.is_paused(),
            alarm: self.alarm.as_ref().map(|alarm| alarm.reason.clone()),
            acted_on: self.acted_on.clone(),
            deposits: self.deposits,
        };
        let checked = approve::check_chain(&self.federation, &own, &node);
        if matches!(checked, Err(Decline::NotReady(NotReady::NotAsked { .. }))) {
            // The room has acted while the node was asked: the next survey knows where.
            return self.report_standing(now);
        }
        self.declined.clear();
        if let Err(decline) = checked {
            self.give_up(|_| false);
            if let Decline::Breach(breach) = &decline {
                self.raise_with(breach.to_string(), &breach.proof());
            }
            self.declined.push(declined(None, &decline));
            return self.report_standing(now);
        }
        match self.check_deposits(deposits) {
            Ok(()) => {}
            // What is being signed was approved when all was there.
            Err(declined) if !declined.refused => self.declined.push(declined),
            Err(declined) => {
                self.give_up(|_| false);
                self.declined.push(declined);
                return self.report_standing(now);
            }
        }
        own.deposits = self.deposits;
        let mut wanted = BTreeSet::new();
        for (batch, facts) in &batches {
            let (number, txid) = (batch.number, batch.newest().txid);
            let facts = match facts {
                Ok(facts) => facts,
                Err(reason) => {
                    // What was approved stays so: bitcoind was asked when it began.
                    wanted.extend(self.open_task(&txid));
                    self.declined.push(waits(number, txid, reason.clone()));
                    continue;
                }
            };
            let log = &self.log;
            match approve::approve(&self.federation, &own, &node, batch, facts, |outpoint| log.batch_of(outpoint)) {
                Ok(approved) => {
                    let task = BatchTask::new(approved);
                    wanted.insert(task.task_id());
                    if !self.open.contains_key(&task.task_id())
                        && let Err(reason) = self.begin(now, task)
                    {
                        self.declined.push(Declined { refused: true, ..waits(number, txid, reason) });
                    }
                }
                Err(decline) => {
                    if matches!(decline, Decline::NotReady(NotReady::DepositsUnchecked { .. })) {
                        wanted.extend(self.open_task(&txid));
                    }
                    self.declined.push(declined(Some((number, txid)), &decline));
                }
            }
        }
        self.give_up(|task| wanted.contains(task));
        let open: BTreeSet<u32> = batches.iter().map(|(batch, _)| batch.number).collect();
        self.forget_closed(&open);
        self.reports.push(Report::Open(open));
        self.report_standing(now);
    }

    fn open_task(&self, txid: &Txid) -> Option<TaskId> {
        self.open.iter().find(|(_, open)| open.session.task().txid() == *txid).map(|(task, _)| *task)
    }

    /// Moves the mark up to which credited deposits were found on Bitcoin, on disk too once there were some.
    fn check_deposits(&mut self, facts: Result<DepositFacts, String>) -> Result<(), Declined> {
        let waits = |reason| Declined { batch: None, txid: None, reason, refused: false };
        let mark = approve::check_deposits(&self.deposits, &facts.map_err(waits)?);
        let mark = mark.map_err(|decline| declined(None, &decline))?;
        if mark.newest != self.deposits.newest {
            records::store_deposits(&self.home, &mark).map_err(|error| waits(one_line(&error)))?;
        }
        self.deposits = mark;
        Ok(())
    }

    /// Opens the session of an approved transaction.
    fn begin(&mut self, now: Duration, task: BatchTask) -> Result<(), String> {
        if self.alarm.is_some() {
            return Err("this member has stopped".to_owned());
        }
        let approved = task.approved();
        let (batch, txid, at) = (approved.batch(), approved.txid(), approved.acted_on().clone());
        // Both before anything is said: after a restart the member must know.
        let height = at.block.height;
        if self.acted_on.as_ref() != Some(&at) {
            records::store_acted_on(&self.home, &at).map_err(|error| one_line(&error))?;
            self.acted_on = Some(at);
        }
        self.log.claim(u64::from(batch), &approved.outpoints()).map_err(|error| one_line(&error))?;
        let used = self.log.highest_round(&task.task_id());
        let known = self.signed.get(&txid).and_then(|record| record.signed());
        let known = known.filter(|signed| task.assemble(signed).is_ok());
        let (id, inputs, kind) = (task.task_id(), task.input_count(), approved.kind());
        let session = Session::new(task, self.own, self.timing, used).map_err(|error| error.to_string())?;
        tracing::info!(batch, %txid, ?kind, inputs, height, "signing begins");
        let open = Open { session, started: now, wake: None, nonces: BTreeMap::new(), took: None };
        self.open.insert(id, open);
        let first = match known.and_then(|signed| self.known_result(id, &signed)) {
            // Signed in an earlier life: the session answers those who do not know.
            Some(result) => SessionEvent::Received(result),
            None => SessionEvent::Started,
        };
        self.feed(now, id, first);
        Ok(())
    }

    fn known_result(&self, task: TaskId, signed: &Signed) -> Option<SignedMessage> {
        let crate::session::Signatures::One(signatures) = &signed.signatures else { return None };
        let signers = match &signed.path {
            Path::Subset(signers) => signers.clone(),
            Path::Key | Path::MultiA => Vec::new(),
        };
        let body = Body::Result { signers, signatures: signatures.clone() };
        Some(SignedMessage::sign(self.chain, self.own, &self.identity, SessionMessage { task, round: 0, body }))
    }

    fn received(&mut self, now: Duration, from: usize, bytes: &[u8]) {
        match SignedMessage::decode(bytes, self.chain, &self.identities) {
            Ok(message) => {
                let task = message.message().task;
                if self.open.contains_key(&task) {
                    self.feed(now, task, SessionEvent::Received(message));
                }
            }
            Err(MessageError::Malformed(member)) => {
                if self.malformed.insert(member) {
                    tracing::warn!(
                        member,
                        "a member signed what is no message: its software is broken or of another version"
                    );
                }
            }
            Err(error) => self.reports.push(Report::BadPeer { peer: from, error }),
        }
    }

    /// Feeds an event to a session and does what it asks for, until it asks for nothing more.
    fn feed(&mut self, now: Duration, task: TaskId, event: SessionEvent) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let Some(open) = self.open.get_mut(&task) else { return };
            for action in open.session.handle(now, event) {
                self.perform(now, task, action, &mut events);
            }
        }
    }

    fn perform(&mut self, now: Duration, task: TaskId, action: SessionAction, events: &mut VecDeque<SessionEvent>) {
        let Some(open) = self.open.get_mut(&task) else { return };
        match action {
            SessionAction::Send(message) => self.reports.push(Report::Say { to: None, message }),
            SessionAction::SendTo { to, message } => self.reports.push(Report::Say { to: Some(to), message }),
            SessionAction::Relay(signed) => self.reports.push(Report::Relay { to: None, bytes: signed.encode() }),
            SessionAction::RelayTo { to, signed } => {
                self.reports.push(Report::Relay { to: Some(to), bytes: signed.encode() });
            }
            SessionAction::Persist(record) => match self.log.record(&record) {
                Ok(()) => events.push_back(SessionEvent::Persisted { round: record.round }),
                // The session waits in vain and goes on to the next round.
                Err(error @ SigningLogError::RoundUsed { .. }) => tracing::warn!(%error, "a round is left out"),
                Err(error) => self.raise(one_line(&error)),
            },
            SessionAction::MakeNonces(attempt) => match self.signer.make_nonces(&attempt) {
                Ok(nonces) => {
                    open.nonces.insert(attempt.id(), Arc::clone(&attempt));
                    events.push_back(SessionEvent::NoncesMade { round: attempt.round(), nonces });
                }
                Err(error) => tracing::error!(%error, "no nonces: this member is left out of the attempt"),
            },
            SessionAction::MakePartials { attempt, nonces } => {
                open.nonces.remove(&attempt.id());
                match self.signer.make_partials(&attempt, &nonces) {
                    Ok(partials) => {
                        events.push_back(SessionEvent::PartialsMade { round: attempt.round(), partials });
                    }
                    Err(error) => {
                        tracing::error!(%error, "no partial signatures: this member is left out of the attempt")
                    }
                }
            }
            SessionAction::MakeSignatures(messages) => {
                events.push_back(SessionEvent::SignaturesMade(self.signer.make_signatures(&messages)));
            }
            SessionAction::Burn(attempt) => {
                open.nonces.remove(&attempt.id());
                self.signer.burn(&attempt);
            }
            SessionAction::WakeAt(at) => open.wake = Some(at),
            SessionAction::Blame { member, fault } => {
                let approved = open.session.task().approved();
                let (batch, txid) = (approved.batch(), approved.txid());
                let excluded = fault.is_proven();
                tracing::warn!(batch, %txid, member, %fault, excluded, "a member is at fault");
                self.report_standing(now);
            }
            SessionAction::Alarm(alarm) => self.raise(alarm.to_string()),
            SessionAction::Done(signed) => self.finish(now, task, &signed),
        }
    }

    fn finish(&mut self, now: Duration, task: TaskId, signed: &Signed) {
        let Some(open) = self.open.get_mut(&task) else { return };
        let (took, round) = (now.saturating_sub(open.started), open.session.round());
        open.took = Some(took);
        let approved = open.session.task().approved();
        let (batch, version, txid) = (approved.batch(), approved.version(), approved.txid());
        if self.signed.contains_key(&txid) {
            return self.report_standing(now);
        }
        let transaction = match open.session.task().assemble(signed) {
            Ok(transaction) => transaction,
            Err(error) => return self.raise(error.to_string()),
        };
        let faults: Vec<String> = signed.faults.iter().map(|(member, fault)| format!("{member}: {fault}")).collect();
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(batch, %txid, path = %show_path(&signed.path), round, took_ms, ?faults, "signed");
        let record = Arc::new(SignedRecord { batch, version, txid, path: signed.path.clone(), transaction });
        if let Err(error) = record.store(&self.home) {
            // Others have it too, and it can be signed again.
            tracing::error!(%error, "the signed transaction cannot be kept for a restart: check the disk");
        }
        self.signed.insert(txid, Arc::clone(&record));
        self.reports.push(Report::Signed(record));
        self.report_standing(now);
    }

    /// Stops for good.
    fn raise(&mut self, reason: String) {
        self.raise_with(reason, &[]);
    }

    fn raise_with(&mut self, reason: String, proof: &[Vec<u8>]) {
        self.give_up(|_| false);
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let proof = proof.iter().map(|certificate| certificate.to_lower_hex_string()).collect();
        let alarm = AlarmRecord { time, reason, proof };
        tracing::error!(reason = %alarm.reason, "ALARM: this member signs nothing any more");
        if let Err(error) = records::store_alarm(&self.home, &alarm) {
            tracing::error!(%error, "the alarm cannot be written: do not start this member again before it is looked at");
        }
        self.alarm.get_or_insert_with(|| alarm.clone());
        self.reports.push(Report::Alarm(alarm));
    }

    /// Closes the sessions that are not to be kept, and burns their nonces.
    fn give_up(&mut self, keep: impl Fn(&TaskId) -> bool) {
        let gone: Vec<TaskId> = self.open.keys().filter(|task| !keep(task)).copied().collect();
        for task in gone {
            if let Some(open) = self.open.remove(&task) {
                open.nonces.values().for_each(|attempt| self.signer.burn(attempt));
                let approved = open.session.task().approved();
                if open.session.signed().is_none() {
                    tracing::info!(batch = approved.batch(), txid = %approved.txid(), "signing is given up");
                }
            }
        }
    }

    fn forget_closed(&mut self, open: &BTreeSet<u32>) {
        let closed = |record: &Arc<SignedRecord>| !open.contains(&record.batch);
        let gone: Vec<Arc<SignedRecord>> = self.signed.values().filter(|record| closed(record)).cloned().collect();
        for record in gone {
            self.signed.remove(&record.txid);
            if let Err(error) = record.remove(&self.home) {
                tracing::warn!(%error, txid = %record.txid, "the file of a closed batch cannot be removed");
            }
        }
    }

    fn report_standing(&mut self, now: Duration) {
        let tasks = self.open.values().map(|open| status_of(open, now)).collect();
        let acted_on = self.acted_on.as_ref().map(|acted_on| acted_on.block);
        let (declined, deposits) = (self.declined.clone(), self.deposits);
        self.reports.push(Report::Standing { tasks, declined, acted_on, deposits });
    }
}
