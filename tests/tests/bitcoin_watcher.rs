//! The watcher of Bitcoin against a real bitcoind: what was seen in a block goes with the block, and nothing that
//! happens to bitcoind loses or invents a fact.

use std::path::Path;
use std::time::Duration;

use bitcoin::absolute::LockTime;
use bitcoin::constants::genesis_block;
use bitcoin::hashes::Hash as _;
use bitcoin::script::Builder;
use bitcoin::transaction::Version;
use bitcoin::{
    Address, Amount, BlockHash, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness,
};
use causeway_chainspec::{BitcoinHeight, ChainSpec, SatPerKvb};
use causeway_federation::bitcoind::{
    Acceptance, Bitcoind, BitcoindConfig, Endpoint, EndpointConfig, Problem, Refusal, Sent, Standing,
};
use causeway_federation::watcher::{BitcoinView, FollowError, State, Watch, Watcher, WatcherConfig, WatcherHandle};
use causeway_tests::bitcoind::Bitcoind as Core;
use tokio::task::JoinHandle;

const DEADLINE: Duration = Duration::from_secs(60);

/// How much a deposit is worth.
const DEPOSIT: Amount = Amount::from_sat(100_000);

fn client(cores: &[&Core]) -> Bitcoind {
    let endpoint = |core: &&Core| EndpointConfig {
        endpoint: Endpoint::loopback(core.rpc_port()),
        credentials_file: core.cookie_file(),
    };
    let mut config = BitcoindConfig::new(Network::Regtest, cores.iter().map(endpoint).collect());
    config.retry_after = Duration::ZERO;
    Bitcoind::new(config).expect("as it was set up")
}

fn config(directory: &Path) -> WatcherConfig {
    let spec = ChainSpec::built_in("devnet").expect("as it was set up");
    let mut config = WatcherConfig::new(&spec, directory.join("watcher"));
    config.start = (BitcoinHeight(0), genesis_block(Network::Regtest).header);
    config.poll = Duration::from_millis(20);
    config.limits.window = 60;
    config
}

fn start(client: &Bitcoind, config: WatcherConfig) -> (WatcherHandle, JoinHandle<()>) {
    let (watcher, handle) = Watcher::open(client.clone(), config).expect("as it was set up");
    (handle, tokio::spawn(watcher.run()))
}

/// The first view that is as wanted.
async fn until(handle: &WatcherHandle, what: &str, wanted: impl Fn(&BitcoinView) -> bool) -> BitcoinView {
    let mut views = handle.subscribe();
    match tokio::time::timeout(DEADLINE, views.wait_for(|view| wanted(view))).await {
        Ok(view) => view.expect("as it was set up").clone(),
        Err(_) => {
            let view = handle.view();
            panic!("{what}: {:?}, tip {:?}, rescan {:?}, {:?}", view.state, view.tip, view.rescan_next, view.facts)
        }
    }
}

async fn until_following(handle: &WatcherHandle, height: u32) -> BitcoinView {
    let what = format!("follows to {height}");
    until(handle, &what, |view| view.state.is_following() && view.tip.0 == BitcoinHeight(height)).await
}

/// A script that anyone spends with [`anyone_witness`].
fn anyone() -> ScriptBuf {
    Builder::new().push_int(1).into_script()
}

/// Addresses for coinbases, so that blocks of the same second differ.
fn miner(n: i64) -> Address {
    let script = if n == 0 {
        anyone()
    } else {
        Builder::new().push_int(n).push_opcode(bitcoin::opcodes::all::OP_DROP).push_int(1).into_script()
    };
    Address::p2wsh(&script, Network::Regtest)
}

fn deposit_script(n: i64) -> ScriptBuf {
    ScriptBuf::new_p2wsh(&Builder::new().push_int(n + 1_000).into_script().wscript_hash())
}

/// Spends the coinbase of the block at `height`, mined for `miner(0)`, to a deposit.
async fn pay(client: &Bitcoind, height: u32, fee: Amount, script: ScriptBuf) -> Transaction {
    let hash = client.block_hash(BitcoinHeight(height)).await.expect("as it was set up").expect("as it was set up");
    let coinbase = client.block(hash).await.expect("as it was set up").block().txdata[0].clone();
    let rest = coinbase.output[0].value - DEPOSIT - fee;
    let mut witness = Witness::new();
    witness.push(anyone().as_bytes());
    Transaction {
        version: Version(3),
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint { txid: coinbase.compute_txid(), vout: 0 },
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness,
        }],
        output: vec![
            TxOut { value: rest, script_pubkey: miner(0).script_pubkey() },
            TxOut { value: DEPOSIT, script_pubkey: script },
        ],
    }
}

fn deposit_of(transaction: &Transaction) -> OutPoint {
    OutPoint { txid: transaction.compute_txid(), vout: 1 }
}

const FEE: Amount = Amount::from_sat(1_000);

#[tokio::test(flavor = "multi_thread")]
async fn facts_go_with_their_blocks() {
    let core = Core::start();
    let client = client(&[&core]);
    let directory = tempfile::tempdir().expect("as it was set up");
    client.generate(110, &miner(0)).await.expect("as it was set up");
    let (handle, _task) = start(&client, config(directory.path()));
    let view = until_following(&handle, 110).await;
    assert_eq!((view.headers.count(), view.headers.bottom().0), (60, BitcoinHeight(51)));
    assert_eq!(view.tip.1, client.best_block_hash().await.expect("as it was set up"));
    assert!(view.feerate.is_none_or(|rate| rate >= SatPerKvb(1_000)));

    // A deposit, before and after its block.
    handle.watch(vec![(Watch::Script(deposit_script(0)), BitcoinHeight(111))]).await.expect("as it was set up");
    let payment = pay(&client, 1, FEE, deposit_script(0)).await;
    let (txid, outpoint) = (payment.compute_txid(), deposit_of(&payment));
    assert!(matches!(
        client.test_accept(&payment).await.expect("as it was set up"),
        Acceptance::Allowed { fee: FEE, .. }
    ));
    assert_eq!(client.mempool_entry(txid).await.expect("as it was set up"), None);
    assert_eq!(client.send(&payment).await.expect("as it was set up"), Sent::InMempool);
    assert_eq!(client.send(&payment).await.expect("as it was set up"), Sent::InMempool);
    assert_eq!(client.test_accept(&payment).await.expect("as it was set up"), Acceptance::InMempool);
    assert_eq!(client.mempool_entry(txid).await.expect("as it was set up").expect("as it was set up").fee, FEE);
    assert_eq!(client.mempool_info().await.expect("as it was set up").transactions, 1);
    assert_eq!(client.transaction(txid, None).await.expect("as it was set up"), Some(payment.clone()));
    let cheaper = pay(&client, 1, Amount::from_sat(900), deposit_script(0)).await;
    assert!(matches!(client.send(&cheaper).await.expect("as it was set up"), Sent::Refused(Refusal::Fee(_))));
    assert_eq!(client.coin(outpoint).await.expect("as it was set up"), None, "only what is in a block counts");
    assert_eq!(handle.view().facts.count(), 0);
    client.generate(1, &miner(1)).await.expect("as it was set up");
    let view = until_following(&handle, 111).await;
    let deposit = view.facts.deposits()[&outpoint].clone();
    assert_eq!((deposit.value, &deposit.script_pubkey), (DEPOSIT, &deposit_script(0)));
    assert_eq!((deposit.place.block, deposit.place.height, deposit.place.index), (view.tip.1, view.tip.0, 1));
    assert_eq!(handle.block_of(&deposit.place).await.expect("as it was set up").txids()[1], txid);
    assert_eq!(client.send(&payment).await.expect("as it was set up"), Sent::InChain);
    assert_eq!(client.test_accept(&payment).await.expect("as it was set up"), Acceptance::InChain);
    assert_eq!(client.transaction(txid, Some(view.tip.1)).await.expect("as it was set up"), Some(payment.clone()));
    assert_eq!(client.transaction(Txid::all_zeros(), Some(view.tip.1)).await.expect("as it was set up"), None);
    let coin = client.coin(outpoint).await.expect("as it was set up").expect("as it was set up");
    assert_eq!((coin.value, coin.confirmations, coin.as_of), (DEPOSIT, 1, view.tip.1));
    let spent = payment.input[0].previous_output;
    assert_eq!(client.coin(spent).await.expect("as it was set up"), None);
    assert!(matches!(client.send(&cheaper).await.expect("as it was set up"), Sent::Refused(Refusal::MissingInputs)));

    // Watches that come late, one from below the window.
    let late = vec![(Watch::Txid(txid), BitcoinHeight(100)), (Watch::Outpoint(spent), BitcoinHeight(20))];
    handle.watch(late).await.expect("as it was set up");
    let view = until(&handle, "scans again", |view| view.rescan_next.is_none()).await;
    assert_eq!(view.facts.confirmed()[&txid], deposit.place);
    assert_eq!((view.facts.spends()[&spent].by, view.facts.spends()[&spent].place), (txid, deposit.place));
    assert_eq!(view.headers.count(), 60);

    // A shallow reorganisation: the block goes, then the transaction is in another one.
    let old = deposit.place.block;
    core.call("invalidateblock", &[&old.to_string()]);
    let view = until_following(&handle, 110).await;
    assert_eq!(view.facts.count(), 0);
    client.generate(2, &miner(2)).await.expect("as it was set up");
    let view = until_following(&handle, 112).await;
    let deposit = view.facts.deposits()[&outpoint].clone();
    assert_eq!(deposit.place.height, BitcoinHeight(111));
    assert_ne!(deposit.place.block, old);
    assert_eq!(view.facts.count(), 3);

    // A deep one, which leaves the transaction without its input.
    let fork = client.block_hash(BitcoinHeight(80)).await.expect("as it was set up").expect("as it was set up");
    core.call("invalidateblock", &[&fork.to_string()]);
    client.generate(40, &miner(3)).await.expect("as it was set up");
    let view = until_following(&handle, 119).await;
    assert_eq!(view.facts.count(), 0);
    assert_eq!(
        view.headers.hash(BitcoinHeight(79)),
        client.block_hash(BitcoinHeight(79)).await.expect("as it was set up")
    );
    let standings = client.standings(&[view.tip.1, old, fork, BlockHash::all_zeros()]).await.expect("as it was set up");
    let best = Standing::BestChain { confirmations: 1 };
    assert_eq!(standings, [best, Standing::Invalid, Standing::Invalid, Standing::Unknown]);
    assert_eq!(client.send(&payment).await.expect("as it was set up"), Sent::InMempool);
    client.generate(1, &miner(3)).await.expect("as it was set up");
    let view = until_following(&handle, 120).await;
    assert_eq!(view.facts.count(), 3);

    // The loser of a race stands well, and changes nothing.
    core.call("reconsiderblock", &[&fork.to_string()]);
    let before = client.block_hash(BitcoinHeight(79)).await.expect("as it was set up").expect("as it was set up");
    let standings = client.standings(&[fork, deposit.place.block, before]).await.expect("as it was set up");
    assert_eq!(standings, [Standing::ValidFork, Standing::ValidFork, Standing::BestChain { confirmations: 42 }]);
    assert_eq!(handle.view().tip, view.tip);

    // Deeper than the window: people are called. bitcoind goes down block by block and calls them invalid, so some are
    // left before that, and what stays is a part of the chain that was.
    let deep = client.block_hash(BitcoinHeight(30)).await.expect("as it was set up").expect("as it was set up");
    core.call("invalidateblock", &[&deep.to_string()]);
    client.generate(100, &miner(4)).await.expect("as it was set up");
    let stuck = until(&handle, "is stuck", |view| matches!(view.state, State::Stuck { .. })).await;
    assert!(matches!(stuck.state, State::Stuck { error: FollowError::BelowWindow { .. } }));
    assert_eq!(view.headers.height_of(&stuck.tip.1), Some(stuck.tip.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_lose_nothing() {
    let mut core = Core::start();
    let client = client(&[&core]);
    let directory = tempfile::tempdir().expect("as it was set up");
    client.generate(105, &miner(0)).await.expect("as it was set up");
    let watches = || (0..3).map(|n| (Watch::Script(deposit_script(n)), BitcoinHeight(100))).collect::<Vec<_>>();
    let (handle, _task) = start(&client, config(directory.path()));
    handle.watch(watches()).await.expect("as it was set up");
    let first = pay(&client, 1, FEE, deposit_script(0)).await;
    client.send(&first).await.expect("as it was set up");
    client.generate(1, &miner(0)).await.expect("as it was set up");
    until_following(&handle, 106).await;

    // bitcoind restarts in order: another cookie. What it knows of fees is gone, what we know of the chain is not.
    let cookie = std::fs::read(core.cookie_file()).expect("as it was set up");
    core.stop();
    let down = until(&handle, "is unavailable", |view| matches!(view.state, State::Unavailable { .. })).await;
    assert_eq!(down.facts.deposits().len(), 1);
    core.start_again();
    assert_ne!(std::fs::read(core.cookie_file()).expect("as it was set up"), cookie);
    until_following(&handle, 106).await;

    // It loses power, and with it the blocks that it had not written down. Nothing is withdrawn on that word.
    let second = pay(&client, 2, FEE, deposit_script(1)).await;
    client.send(&second).await.expect("as it was set up");
    client.generate(3, &miner(1)).await.expect("as it was set up");
    let view = until_following(&handle, 109).await;
    assert_eq!(view.facts.deposits().len(), 2);
    core.kill();
    until(&handle, "is unavailable", |view| matches!(view.state, State::Unavailable { .. })).await;
    core.start_again();
    let view = until(&handle, "answers", |view| matches!(view.state, State::Behind { .. } | State::Following)).await;
    assert_eq!((view.tip.0, view.facts.deposits().len()), (BitcoinHeight(109), 2));
    client.generate(10, &miner(2)).await.expect("as it was set up");
    let tip = client.chain_info().await.expect("as it was set up").blocks.to_u32();
    let view = until_following(&handle, tip).await;
    let lost = !view.facts.deposits().contains_key(&deposit_of(&second));
    assert_eq!(lost, tip < 119, "the second deposit is gone exactly if its block is");
    client.send(&second).await.expect("as it was set up");
    client.generate(1, &miner(0)).await.expect("as it was set up");
    until_following(&handle, tip + 1).await;

    // The watcher itself is away while a block is mined.
    drop(handle);
    _task.await.expect("as it was set up");
    let third = pay(&client, 3, FEE, deposit_script(2)).await;
    client.send(&third).await.expect("as it was set up");
    client.generate(1, &miner(0)).await.expect("as it was set up");
    let (handle, task) = start(&client, config(directory.path()));
    let view = handle.view();
    assert_eq!((view.tip.0, view.facts.deposits().len()), (BitcoinHeight(tip + 1), 2));
    handle.watch(watches()).await.expect("as it was set up");
    assert_eq!(handle.view().rescan_next, None, "what is watched already costs nothing");
    let view = until_following(&handle, tip + 2).await;
    for payment in [&first, &second, &third] {
        assert!(view.facts.deposits().contains_key(&deposit_of(payment)));
    }

    // And without its file it finds the same.
    drop(handle);
    task.await.expect("as it was set up");
    std::fs::write(directory.path().join("watcher"), "causeway-watcher 1 torn").expect("as it was set up");
    let (handle, _task) = start(&client, config(directory.path()));
    assert_eq!(handle.view().tip.0, BitcoinHeight(0));
    handle.watch(watches()).await.expect("as it was set up");
    let again = until_following(&handle, tip + 2).await;
    assert_eq!((again.facts, again.headers), (view.facts, view.headers));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_bitcoind_that_is_behind_withdraws_nothing() {
    let mut good = Core::start();
    let behind = Core::start();
    let client = client(&[&good, &behind]);
    let directory = tempfile::tempdir().expect("as it was set up");
    client.generate(105, &miner(0)).await.expect("as it was set up");
    let (handle, _task) = start(&client, config(directory.path()));
    handle.watch(vec![(Watch::Script(deposit_script(0)), BitcoinHeight(0))]).await.expect("as it was set up");
    let payment = pay(&client, 1, FEE, deposit_script(0)).await;
    client.send(&payment).await.expect("as it was set up");
    client.generate(1, &miner(0)).await.expect("as it was set up");
    let view = until_following(&handle, 106).await;
    good.stop();
    let kept = until(&handle, "is behind", |view| matches!(view.state, State::Behind { .. })).await;
    assert_eq!((kept.tip, kept.facts.deposits().len()), (view.tip, 1));

    // It catches up, block by block from elsewhere.
    good.start_again();
    let own = self::client(&[&good]);
    for height in 1..=106 {
        let hash = own.block_hash(BitcoinHeight(height)).await.expect("as it was set up").expect("as it was set up");
        let hex = bitcoin::consensus::encode::serialize_hex(own.block(hash).await.expect("as it was set up").block());
        behind.call("submitblock", &[&hex]);
    }
    until_following(&handle, 106).await;
    good.stop();
    until_following(&handle, 106).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pruned_block_is_named() {
    let core = Core::start_with(&["-prune=1", "-fastprune"]);
    let client = client(&[&core]);
    let directory = tempfile::tempdir().expect("as it was set up");
    client.generate(700, &miner(0)).await.expect("as it was set up");
    core.call("pruneblockchain", &["400"]);
    let info = client.chain_info().await.expect("as it was set up");
    let below = info.pruned_below.expect("as it was set up");
    assert!(below > BitcoinHeight(100), "{below}");
    let (handle, _task) = start(&client, config(directory.path()));
    until_following(&handle, 700).await;
    handle.watch(vec![(Watch::Script(miner(0).script_pubkey()), BitcoinHeight(50))]).await.expect("as it was set up");
    let view = until(&handle, "misses a block", |view| matches!(view.state, State::Pruned { .. })).await;
    let State::Pruned { height, error } = &view.state else { unreachable!() };
    assert_eq!(*height, BitcoinHeight(50));
    assert!(matches!(error.problem, Problem::Pruned { .. }));
    assert_eq!(handle.unwatch(vec![Watch::Script(miner(0).script_pubkey())]).await.expect("as it was set up"), 1);
    until_following(&handle, 700).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bitcoind_that_words_its_warnings_as_of_old_is_followed() {
    let core = Core::start_with(&["-deprecatedrpc=warnings"]);
    assert!(core.call("getblockchaininfo", &[])["warnings"].is_string());
    let client = client(&[&core]);
    client.generate(3, &miner(0)).await.expect("regtest");
    let info = client.chain_info().await.expect("read");
    assert_eq!((info.blocks, info.headers), (BitcoinHeight(3), BitcoinHeight(3)));
    assert_eq!(client.network_info().await.expect("read").connections, 0);
    let directory = tempfile::tempdir().expect("a directory");
    let (handle, _task) = start(&client, config(directory.path()));
    until_following(&handle, 3).await;
}
