//! A member's seat, taken by a test: it has the home, the keys and the connections of one of a devnet's members, follows
//! sessions with the members' own state machine, hears everything that they say, and says what a test lets it say.
//!
//! It keeps no signing log and sends nothing to Bitcoin.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bitcoin::secp256k1::XOnlyPublicKey;
use causeway_chainspec::ChainId;
use causeway_consensus::bft::ValidatorSet;
use causeway_consensus::peg::batch::Batch;
use causeway_consensus::peg::script::EpochScripts;
use causeway_federation::approve::{self, BitcoinFacts, DepositsMark, Federation, NodeFacts, OwnFacts};
use causeway_federation::bitcoind::{Bitcoind, BitcoindConfig, BitcoindError};
use causeway_federation::config::Config;
use causeway_federation::daemon::{BatchTask, BitcoinAccess, NodeError, NodeView, RestNode};
use causeway_federation::home::Home;
use causeway_federation::keystore::{OpenKeys, Passphrase, PassphraseSource};
use causeway_federation::musig::IdentityKey;
use causeway_federation::session::{
    Session, SessionAction, SessionEvent, SessionMessage, SignedMessage, Signer, SigningTask, TaskId, Timing,
};
use causeway_federation::transport::{Limits, Transport, TransportConfig, transport_key};
use tokio::sync::oneshot;

/// How often the sessions are woken, and new ones looked for.
const TICK: Duration = Duration::from_millis(50);

/// How long a test waits for a word.
const DEADLINE: Duration = Duration::from_secs(90);

/// What becomes of what the member would say: it is said, something else is, or nothing.
pub type Manner = Box<dyn FnMut(SessionMessage) -> Option<SessionMessage> + Send>;

/// Everything that was said, each message once, as it was first heard: the seat's own too.
#[derive(Default)]
struct Heard {
    messages: Mutex<Vec<SignedMessage>>,
    more: Condvar,
}

/// A member that a test plays, on a thread of its own. It leaves when this is dropped.
pub struct Seat {
    member: u16,
    heard: Arc<Heard>,
    leave: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Seat {
    /// Takes the seat of the member whose home this is, which must not run.
    ///
    /// # Panics
    /// If the home is not complete, or somebody else uses its keys.
    pub fn take(home: &Path, manner: Manner) -> Self {
        let heard = Arc::new(Heard::default());
        let (leave, left) = oneshot::channel();
        let sitter = Sitter::open(home, manner, Arc::clone(&heard));
        let member = sitter.own;
        let thread = std::thread::spawn(move || sitter.sit(left));
        Self { member, heard, leave: Some(leave), thread: Some(thread) }
    }

    /// The member's place among the members.
    pub fn member(&self) -> u16 {
        self.member
    }

    /// Everything that was said so far, each message once, as it was first heard.
    pub fn heard(&self) -> Vec<SignedMessage> {
        self.heard.messages.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at everything that was said, at once with every new message, until that gives something.
    ///
    /// # Panics
    /// If that takes too long.
    pub fn wait<T>(&self, what: &str, mut look: impl FnMut(&[SignedMessage]) -> Option<T>) -> T {
        let started = Instant::now();
        let mut messages = self.heard.messages.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(found) = look(&messages) {
                return found;
            }
            let left = DEADLINE.saturating_sub(started.elapsed());
            assert!(!left.is_zero(), "waited too long for {what}: {messages:#?}");
            messages = self.heard.more.wait_timeout(messages, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.leave.take().map(|leave| leave.send(()));
        let joined = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(joined.is_none_or(|joined| joined.is_ok()), "the member that the test plays has failed");
        }
    }
}

/// Plays the member whose home this is until the process ends.
///
/// # Panics
/// As [`Seat::take`].
pub fn sit_for_ever(home: &Path, manner: Manner) {
    let (_never, left) = oneshot::channel();
    Sitter::open(home, manner, Arc::default()).sit(left);
}

/// A session and when it began.
struct Open {
    session: Session<BatchTask>,
    started: Instant,
}

struct Sitter {
    own: u16,
    federation: Federation,
    identities: Vec<XOnlyPublicKey>,
    identity: IdentityKey,
    signer: Signer,
    timing: Timing,
    node: RestNode,
    bitcoin: Bitcoind,
    transport: TransportConfig,
    manner: Manner,
    heard: Arc<Heard>,
    open: BTreeMap<TaskId, Open>,
    /// Nobody else has the keys as long as this is there.
    _lock: causeway_federation::keystore::KeyLock,
}

impl Sitter {
    fn open(home: &Path, manner: Manner, heard: Arc<Heard>) -> Self {
        let home = Home::at(home);
        let config = Config::load(&home.config()).expect("its settings");
        let spec = home.load_chainspec().expect("its chain");
        let (epoch, chain) = (spec.federation(), spec.chain_id());
        let validators = ValidatorSet::new(spec.validators()).expect("a right chainspec");
        let passphrase = config.passphrase_file.clone().map(PassphraseSource::File).expect("a devnet has it in a file");
        let passphrase = Passphrase::get(&passphrase).expect("its passphrase");
        let (keys, lock) = OpenKeys::open(&home.key(), &passphrase).expect("its keys").into_parts();
        let public = keys.public();
        let own = epoch.members().iter().position(|member| *member == public.member).expect("it is a member");
        let members = config.members(&home.config(), epoch, public.member, public.identity);
        let (peers, identities) = members.expect("the other members");
        let bitcoin = BitcoindConfig::new(spec.bitcoin().network(), config.bitcoin);
        let transport = TransportConfig {
            key: transport_key(&keys.identity),
            chain,
            listen: config.listen,
            peers,
            limits: Limits::default(),
        };
        Self {
            own: u16::try_from(own).expect("few members"),
            federation: Federation { chain, validators, epochs: vec![Arc::new(EpochScripts::build(epoch))] },
            identities,
            identity: keys.identity,
            signer: Signer::new(keys.member),
            timing: config.timing,
            node: RestNode::new(config.node),
            bitcoin: Bitcoind::new(bitcoin).expect("its bitcoind"),
            transport,
            manner,
            heard,
            open: BTreeMap::new(),
            _lock: lock,
        }
    }

    fn chain(&self) -> ChainId {
        self.federation.chain
    }

    fn sit(mut self, left: oneshot::Receiver<()>) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a thread");
        runtime.block_on(async {
            let (transport, mut incoming) = Transport::start(self.transport.clone()).await.expect("a port");
            let mut ticks = tokio::time::interval(TICK);
            tokio::pin!(left);
            loop {
                tokio::select! {
                    _ = &mut left => break,
                    frame = incoming.recv() => {
                        let Some(frame) = frame else { break };
                        for bytes in frame.messages {
                            self.received(&transport, &bytes);
                        }
                    }
                    _ = ticks.tick() => {
                        // The node may be down: it is asked again.
                        let _ = self.look(&transport).await;
                        let tasks: Vec<TaskId> = self.open.keys().copied().collect();
                        tasks.into_iter().for_each(|task| self.feed(&transport, task, SessionEvent::Tick));
                    }
                }
            }
        });
    }

    /// Begins the sessions of what is to be signed, and ends the others.
    async fn look(&mut self, transport: &Transport) -> Result<(), NodeError> {
        let chain = self.node.chain().await?;
        let open = self.node.open_batches().await?;
        let certificate = self.node.certificate(open.tip.height).await?;
        let node = NodeFacts { chain, tip: open.tip, frozen: open.frozen, certificate, at_acted_on: None, other: None };
        // It looks for no deposits on Bitcoin.
        let deposits = DepositsMark { height: open.tip.height, ..DepositsMark::default() };
        let own = OwnFacts { deposits, ..OwnFacts::default() };
        let mut wanted = Vec::new();
        for batch in &open.batches {
            let txid = batch.newest().txid;
            if let Some(id) = self.open.iter().find(|(_, open)| open.session.task().txid() == txid).map(|(id, _)| *id) {
                wanted.push(id);
                continue;
            }
            let Ok(facts) = self.facts(batch).await else { continue };
            let approved = approve::approve(&self.federation, &own, &node, batch, &facts, |_| None);
            let Ok(approved) = approved else { continue };
            let task = BatchTask::new(approved);
            let id = task.task_id();
            let session = Session::new(task, self.own, self.timing, None).expect("it is a member");
            self.open.insert(id, Open { session, started: Instant::now() });
            wanted.push(id);
            self.feed(transport, id, SessionEvent::Started);
        }
        self.open.retain(|id, _| wanted.contains(id));
        Ok(())
    }

    async fn facts(&self, batch: &Batch) -> Result<BitcoinFacts, BitcoindError> {
        let tip = BitcoinAccess::tip(&self.bitcoin).await?;
        let mut coins = Vec::new();
        for input in &batch.inputs {
            coins.push(BitcoinAccess::coin(&self.bitcoin, input.outpoint).await?);
        }
        Ok(BitcoinFacts { height: tip.height, best: tip.best, syncing: tip.syncing, coins, confirmed: None })
    }

    fn received(&mut self, transport: &Transport, bytes: &[u8]) {
        let message = SignedMessage::decode(bytes, self.chain(), &self.identities).expect("members sign what they say");
        self.hear(message.clone());
        // What it said itself and did not mean is no news to it.
        if message.member() != self.own {
            self.feed(transport, message.message().task, SessionEvent::Received(message));
        }
    }

    fn hear(&self, message: SignedMessage) {
        let mut messages = self.heard.messages.lock().unwrap_or_else(PoisonError::into_inner);
        if !messages.contains(&message) {
            messages.push(message);
            self.heard.more.notify_all();
        }
    }

    fn feed(&mut self, transport: &Transport, task: TaskId, event: SessionEvent) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let Some(open) = self.open.get_mut(&task) else { return };
            for action in open.session.handle(open.started.elapsed(), event) {
                events.extend(self.perform(transport, action));
            }
        }
    }

    fn perform(&mut self, transport: &Transport, action: SessionAction) -> Option<SessionEvent> {
        match action {
            // Whoever is not meant knows it already.
            SessionAction::Send(message) | SessionAction::SendTo { message, .. } => {
                if let Some(message) = (self.manner)(message) {
                    let signed = SignedMessage::sign(self.chain(), self.own, &self.identity, message);
                    transport.broadcast(signed.encode());
                    self.hear(signed);
                }
                None
            }
            SessionAction::Relay(signed) | SessionAction::RelayTo { signed, .. } => {
                transport.broadcast(signed.encode());
                None
            }
            SessionAction::Persist(record) => Some(SessionEvent::Persisted { round: record.round }),
            SessionAction::MakeNonces(attempt) => {
                let nonces = self.signer.make_nonces(&attempt).expect("one nonce for each attempt");
                Some(SessionEvent::NoncesMade { round: attempt.round(), nonces })
            }
            SessionAction::MakePartials { attempt, nonces } => {
                let partials = self.signer.make_partials(&attempt, &nonces).expect("the nonces are there");
                Some(SessionEvent::PartialsMade { round: attempt.round(), partials })
            }
            SessionAction::MakeSignatures(messages) => {
                Some(SessionEvent::SignaturesMade(self.signer.make_signatures(&messages)))
            }
            SessionAction::Burn(attempt) => {
                self.signer.burn(&attempt);
                None
            }
            SessionAction::WakeAt(_)
            | SessionAction::Blame { .. }
            | SessionAction::Alarm(_)
            | SessionAction::Done(_) => None,
        }
    }
}
