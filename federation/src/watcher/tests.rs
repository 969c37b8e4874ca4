//! The loop against a bitcoind that misbehaves. Against a real one: `tests/tests/bitcoin_watcher.rs`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::constants::genesis_block;
use bitcoin::{Amount, Block, BlockHash, Network, ScriptBuf};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::bitcoind::tests::fake::{Asked, Fake, Reply};
use crate::bitcoind::{BitcoindConfig, Problem, has_proof_of_work};

/// What the fake node has and how it lies.
#[derive(Default)]
struct Model {
    blocks: Vec<Block>,
    /// `getblock` answers this instead.
    false_block: Option<Block>,
    /// `getblockhash` answers this for its height.
    false_hash: Option<(usize, BlockHash)>,
    /// `estimatesmartfee` answers this text.
    feerate: Option<&'static str>,
    /// Headers that it knows beyond its blocks.
    ahead: usize,
}

fn mine(parent: BlockHash, salt: u32, script: ScriptBuf) -> Block {
    let mut block = genesis_block(Network::Regtest);
    block.header.prev_blockhash = parent;
    block.header.time += salt;
    block.txdata[0].input[0].script_sig = ScriptBuf::from_bytes(salt.to_le_bytes().to_vec());
    block.txdata[0].output[0].script_pubkey = script;
    block.header.merkle_root = block.compute_merkle_root().unwrap();
    while !has_proof_of_work(Network::Regtest, &block.header) {
        block.header.nonce += 1;
    }
    block
}

fn chain(blocks: u32, salt: u32) -> Vec<Block> {
    let mut chain = vec![genesis_block(Network::Regtest)];
    for n in 1..=blocks {
        chain.push(mine(chain.last().unwrap().block_hash(), salt + n, watched()));
    }
    chain
}

fn watched() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x51])
}

impl Model {
    fn answer(&self, asked: &Asked) -> Reply {
        let one = |call: &Value| -> Option<Value> {
            let param = &call["params"][0];
            let by_hash = || {
                let hash: BlockHash = param.as_str()?.parse().ok()?;
                self.blocks.iter().find(|block| block.block_hash() == hash)
            };
            Some(match call["method"].as_str()? {
                "getblockhash" => {
                    let height = usize::try_from(param.as_u64()?).ok()?;
                    match self.false_hash {
                        Some((at, hash)) if at == height => json!(hash),
                        _ => json!(self.blocks.get(height)?.block_hash()),
                    }
                }
                "getblockheader" => json!(serialize_hex(&by_hash()?.header)),
                "getblock" => json!(serialize_hex(self.false_block.as_ref().unwrap_or(by_hash()?))),
                "getbestblockhash" => json!(self.blocks.last()?.block_hash()),
                "getblockchaininfo" => json!({
                    "chain": "regtest", "blocks": self.blocks.len() - 1, "headers": self.blocks.len() - 1 + self.ahead,
                    "bestblockhash": self.blocks.last()?.block_hash(), "bits": "", "target": "", "difficulty": 1.5,
                    "time": 0, "mediantime": 0, "verificationprogress": 1, "initialblockdownload": true,
                    "chainwork": "", "size_on_disk": 0, "pruned": false, "warnings": [],
                }),
                _ => return None,
            })
        };
        match asked.body.as_array() {
            Some(calls) => match calls.iter().map(one).collect::<Option<Vec<_>>>() {
                Some(answers) => Reply::Result(json!(answers)),
                None => Reply::Error(-5, "Block not found".to_owned()),
            },
            None if asked.method() == "getnetworkinfo" => Reply::Honest,
            None if asked.method() == "estimatesmartfee" => {
                let estimate = self.feerate.unwrap_or(r#"{"errors": [], "blocks": 2}"#);
                let id = &asked.body["id"];
                Reply::Body(format!(r#"{{"jsonrpc": "2.0", "result": {estimate}, "id": {id}}}"#).into())
            }
            None => one(&asked.body).map_or_else(|| Reply::Error(-5, "Block not found".to_owned()), Reply::Result),
        }
    }
}

struct World {
    model: Arc<Mutex<Model>>,
    _fakes: Vec<Fake>,
    handle: WatcherHandle,
    _directory: TempDir,
}

/// A watcher of one fake node, and of a second one that is honest if `blocks` are given for it.
async fn world(model: Model, honest: Option<Vec<Block>>) -> World {
    let model = Arc::new(Mutex::new(model));
    let seen = Arc::clone(&model);
    let mut fakes = vec![Fake::start(move |asked| seen.lock().unwrap().answer(asked)).await];
    if let Some(blocks) = honest {
        let model = Model { blocks, ..Model::default() };
        fakes.push(Fake::start(move |asked| model.answer(asked)).await);
    }
    let client = BitcoindConfig::new(Network::Regtest, fakes.iter().map(Fake::config).collect());
    let directory = tempfile::tempdir().unwrap();
    let config = WatcherConfig {
        file: directory.path().join("watcher"),
        start: (BitcoinHeight(0), genesis_block(Network::Regtest).header),
        poll: Duration::from_millis(5),
        feerate_poll: Duration::ZERO,
        feerate_blocks: 6,
        feerate_max: SatPerKvb(50_000),
        limits: Limits { window: 100, watches: 10, facts: 1_000, deposit_min: Amount::from_sat(1) },
    };
    let (watcher, handle) = Watcher::open(Bitcoind::new(client).unwrap(), config).unwrap();
    handle.requests.try_send(request()).map_err(drop).unwrap();
    tokio::spawn(watcher.run());
    World { model, _fakes: fakes, handle, _directory: directory }
}

fn request() -> Request {
    let (done, _) = oneshot::channel();
    Request::Watch { watches: vec![(Watch::Script(watched()), BitcoinHeight(0))], done }
}

impl World {
    async fn until(&self, wanted: impl Fn(&BitcoinView) -> bool) -> BitcoinView {
        let mut views = self.handle.subscribe();
        match tokio::time::timeout(Duration::from_secs(20), views.wait_for(|view| wanted(view))).await {
            Ok(view) => view.unwrap().clone(),
            Err(_) => panic!("{:?}", self.handle.view()),
        }
    }

    async fn follows_to(&self, height: u32) -> BitcoinView {
        self.until(|view| view.state.is_following() && view.tip.0.0 == height).await
    }
}

#[tokio::test]
async fn a_false_block_is_refused_and_people_are_called() {
    let blocks = chain(4, 0);
    let world = world(Model { blocks: blocks[..=3].to_vec(), ..Model::default() }, None).await;
    let good = world.follows_to(3).await;
    assert_eq!(good.facts.deposits().len(), 3);
    let mut false_block = blocks[4].clone();
    false_block.txdata[0].output[0].value = Amount::from_sat(21_000_000);
    {
        let mut model = world.model.lock().unwrap();
        model.false_block = Some(false_block);
        model.blocks = blocks.clone();
    }
    let view = world.until(|view| matches!(view.state, State::Distrusted { .. })).await;
    assert!(matches!(view.alarm.unwrap().problem, Problem::FalseBlock(_)));
    assert_eq!((view.tip, view.facts), (good.tip, good.facts));
    world.model.lock().unwrap().false_block = None;
    assert!(world.follows_to(4).await.alarm.is_some());
}

#[tokio::test]
async fn an_honest_bitcoind_takes_over_from_a_lying_one() {
    let blocks = chain(4, 0);
    let liar = Model { blocks: blocks.clone(), false_block: Some(blocks[1].clone()), ..Model::default() };
    let world = world(liar, Some(blocks)).await;
    let view = world.follows_to(4).await;
    assert_eq!(view.facts.deposits().len(), 4);
    assert!(view.alarm.is_some());
}

#[tokio::test]
async fn a_chain_that_changes_while_it_is_read_is_read_again() {
    let (blocks, other) = (chain(6, 0), chain(6, 1_000));
    let false_hash = Some((5, other[5].block_hash()));
    let mut mixed = blocks.clone();
    mixed.extend_from_slice(&other[5..6]);
    let world = world(Model { blocks: blocks[..=3].to_vec(), ..Model::default() }, None).await;
    let good = world.follows_to(3).await;
    {
        let mut model = world.model.lock().unwrap();
        model.blocks = mixed;
        model.false_hash = false_hash;
    }
    // What does not link is never followed.
    let asked = || world._fakes[0].count("getblockheader");
    let before = asked();
    while asked() < before + 5 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.handle.view().tip, good.tip);
    {
        let mut model = world.model.lock().unwrap();
        model.blocks = other.clone();
        model.false_hash = None;
    }
    let view = world.follows_to(6).await;
    assert_eq!(view.tip.1, other[6].block_hash());
    assert!(
        view.facts
            .deposits()
            .values()
            .all(|deposit| { other.iter().any(|block| block.block_hash() == deposit.place.block) })
    );
    assert_eq!(view.facts.deposits().len(), 6);
}

#[tokio::test]
async fn a_chain_of_less_work_is_not_followed() {
    let world = world(Model { blocks: chain(6, 0), ..Model::default() }, None).await;
    let good = world.follows_to(6).await;
    // It forgot our blocks and has fewer others.
    world.model.lock().unwrap().blocks = chain(5, 1_000);
    let view = world.until(|view| !view.state.is_following()).await;
    assert_eq!((view.tip, view.facts), (good.tip, good.facts));
    let other = chain(6, 1_000);
    world.model.lock().unwrap().blocks = other.clone();
    world.until(|view| view.tip.1 == other[6].block_hash()).await;
}

#[tokio::test]
async fn a_reorganisation_deeper_than_the_window_stops_the_watcher() {
    let world = world(Model { blocks: chain(120, 0), ..Model::default() }, None).await;
    let good = world.follows_to(120).await;
    world.model.lock().unwrap().blocks = chain(130, 1_000);
    let view = world.until(|view| matches!(view.state, State::Stuck { .. })).await;
    assert!(matches!(view.state, State::Stuck { error: FollowError::BelowWindow { bottom: BitcoinHeight(21) } }));
    assert_eq!((view.tip, view.facts), (good.tip, good.facts));
    // One block less deep it is followed.
    let mut other = chain(21, 0);
    for salt in 0..110 {
        other.push(mine(other.last().unwrap().block_hash(), 2_000 + salt, watched()));
    }
    world.model.lock().unwrap().blocks = other;
    assert_eq!(world.follows_to(131).await.facts.deposits().len(), 131);
}

#[tokio::test]
async fn feerates_are_clamped_and_forgotten() {
    let world = world(Model { blocks: chain(1, 0), ..Model::default() }, None).await;
    assert_eq!(world.follows_to(1).await.feerate, None);
    for (estimate, told) in [
        (r#"{"feerate": 0.00012345, "blocks": 6}"#, Some(SatPerKvb(12_345))),
        (r#"{"feerate": 0.00000001, "blocks": 6}"#, Some(SatPerKvb(1_000))),
        (r#"{"feerate": 21000000.00000001, "blocks": 6}"#, Some(SatPerKvb(50_000))),
        (r#"{"feerate": -1, "blocks": 6}"#, None),
    ] {
        world.model.lock().unwrap().feerate = Some(estimate);
        world.until(|view| view.feerate == told).await;
    }
}

#[tokio::test]
async fn a_node_that_downloads_is_no_node_to_rely_on() {
    let world = world(Model { blocks: chain(3, 0), ahead: 5, ..Model::default() }, None).await;
    let at = BitcoinHeight(3);
    let view = world.until(|view| matches!(view.state, State::Syncing { at: got, .. } if got == at)).await;
    assert!(matches!(view.state, State::Syncing { of: BitcoinHeight(8), .. }));
    world.model.lock().unwrap().ahead = 0;
    world.follows_to(3).await;
}

#[test]
fn a_file_of_another_network_or_another_hand_is_of_no_use() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("watcher");
    let limits = Limits { window: 100, watches: 10, facts: 10, deposit_min: Amount::ZERO };
    let mut follower = Follower::new(limits, BitcoinHeight(0), genesis_block(Network::Regtest).header);
    for block in &chain(3, 0)[1..] {
        follower.connected(&FullBlock::new(block.clone()).unwrap()).unwrap();
    }
    assert!(matches!(file::load(&path, Network::Regtest, limits), Ok(None)));
    let bytes = file::encode(Network::Regtest, &follower);
    file::replace(&path, &bytes).unwrap();
    file::replace(&path, &bytes).unwrap();
    let loaded = file::load(&path, Network::Regtest, limits).unwrap().unwrap();
    assert_eq!(loaded.headers(), follower.headers());
    assert!(matches!(file::load(&path, Network::Bitcoin, limits), Err(FileError::OtherNetwork { .. })));
    for position in 0..bytes.len() {
        let mut torn = bytes.clone();
        torn[position] ^= 1;
        std::fs::write(&path, &torn).unwrap();
        assert!(matches!(file::load(&path, Network::Regtest, limits), Err(FileError::Broken { .. })), "{position}");
    }
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert!(matches!(file::load(&path, Network::Regtest, limits), Err(FileError::Broken { .. })));
    assert!(matches!(file::load(directory.path(), Network::Regtest, limits), Err(FileError::Io { .. })));
}

/// The loop can run in a task of its own.
#[test]
fn the_watcher_can_be_spawned() {
    fn sendable<T: Send>(_: impl Fn(Watcher) -> T) {}
    sendable(Watcher::run);
}
