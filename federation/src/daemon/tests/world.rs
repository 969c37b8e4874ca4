//! A node, a Bitcoin and the members of a federation in one process: the members are real, over loopback.

use std::collections::{BTreeMap, HashMap};
use std::net::TcpListener;
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::hashes::Hash as _;
use bitcoin::secp256k1::{Message, SECP256K1, XOnlyPublicKey, schnorr};
use bitcoin::sighash::{Prevouts, SighashCache, TapSighashType};
use bitcoin::taproot::{ControlBlock, LeafVersion, TapLeafHash};
use bitcoin::{Amount, BlockHash, OutPoint, Script, ScriptBuf, Transaction, TxOut, Txid};
use causeway_chainspec::{BitcoinHeight, ChainId};
use causeway_consensus::bft::CommitCertificate;
use causeway_consensus::peg::batch::Batch;
use libp2p::Multiaddr;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::super::*;
use crate::approve::tests::{chain, coins, federation, hash, member_secrets, point, secret, signed_by};
use crate::approve::{BitcoinPoint, BlockPoint};
use crate::bitcoind::{BitcoindError, Sent, UnspentCoin};
use crate::musig::{IdentityKey, MemberKey};
use crate::transport::{Limits, PeerAddress, TransportConfig, transport_key};

/// What node and bitcoind of every member say.
pub(super) struct Facts {
    pub(super) height: u32,
    pub(super) frozen: Option<String>,
    pub(super) batches: Vec<Batch>,
    pub(super) coins: HashMap<OutPoint, UnspentCoin>,
    pub(super) best: BlockHash,
    pub(super) mempool: BTreeMap<Txid, Transaction>,
    /// Times that the open batches were asked for, by member.
    pub(super) asked: Vec<u32>,
    /// Blocks that are not what they were.
    pub(super) other_blocks: HashMap<u32, BlockHash>,
    pub(super) node_down: bool,
    /// Deposits that were credited, in order.
    pub(super) peg_ins: Vec<NodeDeposit>,
    /// Blocks of Bitcoin that are not what they were.
    pub(super) other_bitcoin: HashMap<u32, BlockHash>,
    /// How many validators sign the certificates that the node shows; three are enough.
    pub(super) signers: usize,
    /// Most deposits on a page of the node.
    pub(super) page: usize,
}

pub(super) type Shared = Arc<Mutex<Facts>>;

struct FakeNode(Shared, usize);
struct FakeBitcoin(Shared);

fn down() -> NodeError {
    let url: NodeUrl = "http://127.0.0.1:1".parse().unwrap();
    NodeError::Deadline { url, after: Duration::from_secs(5) }
}

#[async_trait]
impl NodeView for FakeNode {
    async fn chain(&self) -> Result<ChainId, NodeError> {
        if self.0.lock().unwrap().node_down { Err(down()) } else { Ok(chain()) }
    }

    async fn open_batches(&self) -> Result<OpenBatches, NodeError> {
        let mut facts = self.0.lock().unwrap();
        facts.asked[self.1] += 1;
        let (tip, frozen, batches) = (point(facts.height), facts.frozen.clone(), facts.batches.clone());
        Ok(OpenBatches { tip, frozen, batches })
    }

    async fn peg_ins(&self, since: u32) -> Result<PegIns, NodeError> {
        let facts = self.0.lock().unwrap();
        let above = facts.peg_ins.iter().filter(|deposit| deposit.credited > since && deposit.credited <= facts.height);
        let peg_ins: Vec<NodeDeposit> = above.clone().take(facts.page).cloned().collect();
        let to = if above.count() > peg_ins.len() { peg_ins[facts.page - 1].credited } else { facts.height };
        Ok(PegIns { tip: point(facts.height), to, peg_ins })
    }

    async fn block_hash(&self, height: u32) -> Result<Option<BlockHash>, NodeError> {
        let facts = self.0.lock().unwrap();
        let block = facts.other_blocks.get(&height).copied().unwrap_or_else(|| hash(height));
        Ok((height <= facts.height).then_some(block))
    }

    async fn certificate(&self, height: u32) -> Result<Option<CommitCertificate>, NodeError> {
        let facts = self.0.lock().unwrap();
        let hash = facts.other_blocks.get(&height).copied().unwrap_or_else(|| hash(height));
        Ok(Some(signed_by(facts.signers, BlockPoint { height, hash })))
    }
}

#[async_trait]
impl BitcoinAccess for FakeBitcoin {
    async fn tip(&self) -> Result<BitcoinTip, BitcoindError> {
        let best = self.0.lock().unwrap().best;
        Ok(BitcoinTip { height: BitcoinHeight(310), best, syncing: false })
    }

    async fn block_hash(&self, height: BitcoinHeight) -> Result<Option<BlockHash>, BitcoindError> {
        let facts = self.0.lock().unwrap();
        let block = facts.other_bitcoin.get(&height.to_u32()).copied();
        Ok((height.to_u32() <= 310).then(|| block.unwrap_or_else(|| bitcoin_block(height.to_u32()).hash)))
    }

    async fn coin(&self, outpoint: OutPoint) -> Result<Option<UnspentCoin>, BitcoindError> {
        Ok(self.0.lock().unwrap().coins.get(&outpoint).cloned())
    }

    async fn send(&self, transaction: &Transaction) -> Result<Sent, BitcoindError> {
        let mut facts = self.0.lock().unwrap();
        check_signatures(&facts, transaction);
        // As replace-by-fee: what spends the same coins goes.
        let spends =
            |other: &Transaction, outpoint: &OutPoint| other.input.iter().any(|i| i.previous_output == *outpoint);
        let inputs: Vec<OutPoint> = transaction.input.iter().map(|input| input.previous_output).collect();
        facts.mempool.retain(|_, other| !inputs.iter().any(|outpoint| spends(other, outpoint)));
        facts.mempool.insert(transaction.compute_txid(), transaction.clone());
        Ok(Sent::InMempool)
    }
}

/// Verifies every input by what stands in its coin and its witness alone.
fn check_signatures(facts: &Facts, transaction: &Transaction) {
    let coin = |input: &bitcoin::TxIn| facts.coins[&input.previous_output].clone();
    let prevouts: Vec<TxOut> = transaction
        .input
        .iter()
        .map(coin)
        .map(|coin| TxOut { value: coin.value, script_pubkey: coin.script_pubkey })
        .collect();
    let mut cache = SighashCache::new(transaction);
    for (index, input) in transaction.input.iter().enumerate() {
        let output_key = XOnlyPublicKey::from_slice(&prevouts[index].script_pubkey.as_bytes()[2..]).unwrap();
        let stack: Vec<&[u8]> = input.witness.iter().collect();
        let all = Prevouts::All(&prevouts);
        if let [signature] = stack[..] {
            let sighash = cache.taproot_key_spend_signature_hash(index, &all, TapSighashType::Default).unwrap();
            let signature = schnorr::Signature::from_slice(signature).unwrap();
            SECP256K1.verify_schnorr(&signature, &Message::from(sighash), &output_key).unwrap();
            continue;
        }
        let (control, script) = (stack[stack.len() - 1], Script::from_bytes(stack[stack.len() - 2]));
        let control = ControlBlock::decode(control).unwrap();
        assert!(control.verify_taproot_commitment(SECP256K1, output_key, script));
        let leaf = TapLeafHash::from_script(script, LeafVersion::TapScript);
        let sighash = cache.taproot_script_spend_signature_hash(index, &all, leaf, TapSighashType::Default).unwrap();
        assert_eq!(stack.len(), 3, "a leaf of one key");
        let key = XOnlyPublicKey::from_slice(&script.as_bytes()[1..33]).unwrap();
        let signature = schnorr::Signature::from_slice(stack[0]).unwrap();
        SECP256K1.verify_schnorr(&signature, &Message::from(sighash), &key).unwrap();
    }
}

/// The block of Bitcoin's best chain at a height.
pub(super) fn bitcoin_block(height: u32) -> BitcoinPoint {
    BitcoinPoint { height, hash: hash(500_000 + height) }
}

/// A deposit that no batch spends, credited at this height.
pub(super) fn credited(height: u32, block: u32) -> (NodeDeposit, UnspentCoin) {
    let outpoint = OutPoint { txid: Txid::from_byte_array(secret("deposit", height as usize)), vout: 1 };
    let value = Amount::from_sat(70_000);
    let deposit =
        NodeDeposit { outpoint, value, credited: height, block: bitcoin_block(block), terms: None, in_batch: false };
    let script_pubkey = ScriptBuf::new();
    let coin = UnspentCoin { value, script_pubkey, confirmations: 10, coinbase: false, as_of: hash(10_000) };
    (deposit, coin)
}

struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), DaemonError>>,
}

/// The members and what they see.
pub(super) struct World {
    pub(super) n: usize,
    pub(super) federation: Federation,
    pub(super) facts: Shared,
    homes: Vec<TempDir>,
    ports: Vec<u16>,
    running: Vec<Option<Running>>,
}

pub(super) fn identity(index: usize) -> IdentityKey {
    IdentityKey::from_bytes(&secret("identity", index)).unwrap()
}

pub(super) fn timing() -> Timing {
    let ms = Duration::from_millis;
    Timing { key_path: ms(1_500), propose: ms(1_500), attempt: ms(4_000), resend: ms(150) }
}

impl World {
    pub(super) fn new(n: usize, t: u32, batches: Vec<Batch>) -> Self {
        let federation = federation(n, t);
        let best = hash(10_000);
        let outpoints = |batch: &Batch| batch.inputs.iter().map(|coin| coin.outpoint).collect::<Vec<_>>();
        let mut found = HashMap::new();
        for batch in &batches {
            let each = coins(&federation, batch, best).into_iter().flatten();
            found.extend(outpoints(batch).into_iter().zip(each));
        }
        let facts = Facts {
            height: 180,
            frozen: None,
            batches,
            coins: found,
            best,
            mempool: BTreeMap::new(),
            asked: vec![0; n],
            other_blocks: HashMap::new(),
            node_down: false,
            peg_ins: Vec::new(),
            other_bitcoin: HashMap::new(),
            signers: 3,
            page: 2,
        };
        let listeners: Vec<TcpListener> = (0..n).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports = listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        Self {
            n,
            federation,
            facts: Arc::new(Mutex::new(facts)),
            homes: (0..n).map(|_| tempfile::tempdir().unwrap()).collect(),
            ports,
            running: (0..n).map(|_| None).collect(),
        }
    }

    pub(super) fn home(&self, member: usize) -> Home {
        Home::at(self.homes[member].path().join("home"))
    }

    pub(super) fn transport(&self, member: usize) -> TransportConfig {
        let address = |port: u16| -> Multiaddr { format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap() };
        let others = (0..self.n).filter(|other| *other != member);
        TransportConfig {
            key: transport_key(&identity(member)),
            chain: chain(),
            listen: address(self.ports[member]),
            peers: others
                .map(|other| PeerAddress {
                    peer: transport_key(&identity(other)).public().to_peer_id(),
                    address: address(self.ports[other]),
                })
                .collect(),
            limits: Limits { redial_min: Duration::from_millis(100), ..Limits::default() },
        }
    }

    pub(super) fn member_key(&self, member: usize) -> MemberKey {
        MemberKey::from_bytes(&member_secrets(self.n)[member].secret_bytes()).unwrap()
    }

    pub(super) fn log(&self, member: usize) -> SigningLog {
        let home = self.home(member);
        home.create().unwrap();
        let (path, key) = (home.signing_log(), self.member_key(member).public_key());
        if path.exists() {
            SigningLog::open(&path, chain(), key).unwrap()
        } else {
            SigningLog::create(&path, chain(), key).unwrap()
        }
    }

    pub(super) fn identities(&self) -> Vec<XOnlyPublicKey> {
        (0..self.n).map(|index| identity(index).public_key()).collect()
    }

    pub(super) fn start(&mut self, member: usize) {
        let parts = DaemonParts {
            home: self.home(member),
            network: "test".to_owned(),
            federation: self.federation.clone(),
            own: u16::try_from(member).unwrap(),
            identities: self.identities(),
            log: self.log(member),
            keys: MemberKeys { member: self.member_key(member), identity: identity(member) },
            node: Arc::new(FakeNode(Arc::clone(&self.facts), member)),
            node_url: "fake".to_owned(),
            bitcoin: Arc::new(FakeBitcoin(Arc::clone(&self.facts))),
            transport: self.transport(member),
            timing: timing(),
            tempo: Tempo { poll: Duration::from_millis(50), ..Tempo::default() },
        };
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(run(parts, async {
            let _ = stopped.await;
        }));
        self.running[member] = Some(Running { stop, task });
    }

    pub(super) async fn stop(&mut self, member: usize) {
        let running = self.running[member].take().unwrap();
        let _ = running.stop.send(());
        running.task.await.unwrap().unwrap();
    }

    pub(super) async fn status(&self, member: usize) -> Option<Status> {
        match &self.running[member] {
            Some(running) if running.task.is_finished() => panic!("member {member} ended"),
            Some(_) => ask_status(&self.home(member)).await.ok().filter(|status| status.running),
            None => None,
        }
    }

    /// Waits until a member's status is so.
    pub(super) async fn until(&self, member: usize, what: &str, is_so: impl Fn(&Status) -> bool) -> Status {
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            let status = self.status(member).await;
            if let Some(status) = status.as_ref().filter(|status| is_so(status)) {
                return status.clone();
            }
            assert!(Instant::now() < deadline, "member {member} is never {what}: {status:#?}");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// Waits until a member has this transaction signed, and returns by what.
    pub(super) async fn signed(&self, member: usize, txid: Txid) -> String {
        let has = |status: &Status| status.transactions.iter().any(|transaction| transaction.txid == txid);
        let status = self.until(member, "signed", has).await;
        status.transactions.into_iter().find(|transaction| transaction.txid == txid).unwrap().path
    }

    /// Waits until every member that runs has looked at its node so many times more.
    pub(super) async fn looks(&self, times: u32) {
        let before = self.facts.lock().unwrap().asked.clone();
        let deadline = Instant::now() + Duration::from_secs(60);
        let enough = |asked: &[u32]| {
            let mut each = (0..self.n).filter(|member| self.running[*member].is_some());
            each.all(|member| asked[member] >= before[member] + times)
        };
        while !enough(&self.facts.lock().unwrap().asked) {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(super) fn mempool(&self) -> Vec<Txid> {
        self.facts.lock().unwrap().mempool.keys().copied().collect()
    }
}
