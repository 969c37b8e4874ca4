//! Real node processes behind thin lines: full blocks are agreed on, a node on a line ten times thinner follows and catches
//! up, and a line on which nothing moves for a while costs nobody its peers.
//!
//! Validators have 50 Mbit/s, full nodes 5 Mbit/s, and a byte takes 60 ms from one to another. Lost packets need the
//! kernel's netem, which few machines let a test use: on TCP they are lower rates and stalls, which are here.

use std::time::{Duration, Instant};

use bitcoin::opcodes::all::{OP_NOP, OP_PUSHNUM_1};
use bitcoin::secp256k1::{SECP256K1, XOnlyPublicKey};
use bitcoin::taproot::{LeafVersion, TaprootBuilder};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness, absolute};
use causeway_node::config::Config;
use causeway_tests::lines::{Lines, Shape};
use causeway_tests::nodes::{Nodes, config, spec};
use causeway_tests::wallet::{output, spend};

const VALIDATORS: u32 = 7;

/// A full node that is there from the start.
const SLOW: usize = 7;

/// One that starts when the long blocks are final.
const LATE: usize = 8;

/// Long transactions: three blocks full.
const TRANSACTIONS: u32 = 30;

/// Bytes of the script that each reveals: nearly the weight of a standard transaction.
const SCRIPT: usize = 388_000;

/// What each pays: one sat a vbyte, and something.
const FEE: Amount = Amount::from_sat(120_000);

/// A public key that nobody has the secret of: BIP341's.
const NOBODYS: &str = "50929b74c1a04954b78b4b6035e97a5e078a5a0f28ec96d547bfee9ace803ac0";

/// Coins that whoever knows a long script may spend.
struct Long {
    script: ScriptBuf,
    script_pubkey: ScriptBuf,
    control: Vec<u8>,
}

impl Long {
    fn new() -> Self {
        let nobodys: XOnlyPublicKey = NOBODYS.parse().expect("a key");
        let mut script = vec![OP_NOP.to_u8(); SCRIPT - 1];
        script.push(OP_PUSHNUM_1.to_u8());
        let script = ScriptBuf::from_bytes(script);
        let builder = TaprootBuilder::new().add_leaf(0, script.clone()).expect("one leaf");
        let tree = builder.finalize(SECP256K1, nobodys).expect("complete");
        let control =
            tree.control_block(&(script.clone(), LeafVersion::TapScript)).expect("the leaf is there").serialize();
        Self { script, script_pubkey: ScriptBuf::new_p2tr_tweaked(tree.output_key()), control }
    }

    fn spend(&self, previous_output: OutPoint, value: Amount) -> Transaction {
        let witness = Witness::from_slice(&[self.script.as_bytes(), &self.control]);
        let input = TxIn { previous_output, sequence: Sequence::MAX, witness, ..TxIn::default() };
        let output = vec![TxOut { value: value - FEE, script_pubkey: self.script_pubkey.clone() }];
        Transaction { version: Version::TWO, lock_time: absolute::LockTime::ZERO, input: vec![input], output }
    }
}

/// The devnet's seven validators and two full nodes behind their lines.
fn network() -> (Nodes, Lines) {
    let mut settings = config();
    settings.consensus = Config::default().consensus;
    let nodes = Nodes::create_with_bitcoin(spec(VALIDATORS, 1_000), 2, settings);
    let shape = |bits_per_second| Shape { bits_per_second, delay: Duration::from_millis(30) };
    let shapes: Vec<Shape> = (0..=LATE).map(|index| shape(if index < SLOW { 50_000_000 } else { 5_000_000 })).collect();
    let lines = Lines::new(&shapes);
    // A full node knows three validators.
    nodes.put_behind(&lines, |one, other| one.max(other) < SLOW || one.max(other) >= SLOW && one.min(other) < 3);
    (nodes, lines)
}

/// The number of a counter in a node's metrics.
fn metric(nodes: &Nodes, index: usize, name: &str) -> f64 {
    let text = causeway_node::devnet::get(&nodes.node(index).metrics, "/metrics").expect("it has metrics");
    let line = text.lines().find(|line| line.split([' ', '{']).next() == Some(name));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("no {name}"))
}

/// Waits until all these nodes have the height that the first has now.
fn catch_up(nodes: &mut Nodes, which: &[usize]) {
    let height = nodes.height(0).expect("it answers");
    let what = format!("height {height} at {which:?}");
    nodes.wait(&what, |nodes| which.iter().all(|index| nodes.height(*index).is_some_and(|it| it >= height)));
}

#[test]
fn full_blocks_get_through_thin_lines_and_thinner_ones_catch_up() {
    let (mut nodes, lines) = network();
    nodes.start(0..=SLOW);
    let funds = nodes.fund();
    let long = Long::new();
    let value = (funds.output.value - FEE) / u64::from(TRANSACTIONS);
    let coins = (0..TRANSACTIONS).map(|_| output(value, long.script_pubkey.clone())).collect();
    let split = spend(&[funds], coins);
    let split = nodes.submit(0, &split).unwrap();
    nodes.wait_final(split);

    // Three blocks full of few transactions, handed in at two validators.
    let first = nodes.best_height() + 1;
    let began = Instant::now();
    let txids: Vec<Txid> = (0..TRANSACTIONS)
        .map(|vout| {
            let transaction = long.spend(OutPoint { txid: split, vout }, value);
            nodes.submit(usize::try_from(vout % 2).unwrap(), &transaction).unwrap()
        })
        .collect();
    for txid in &txids {
        let path = format!("/tx/{txid}/status");
        nodes.wait(&format!("{txid} to be final"), |nodes| {
            nodes.get(0, &path).is_some_and(|status| status.contains("\"confirmed\":true"))
        });
    }
    let last = nodes.best_height();
    println!("{TRANSACTIONS} long transactions were final after {:?}, heights {first} to {last}", began.elapsed());
    catch_up(&mut nodes, &[1, 2, 3, 4, 5, 6]);
    let size = |nodes: &Nodes, height: u32| {
        let hash = nodes.hash(0, height).unwrap();
        nodes.json(0, &format!("/block/{hash}"))["size"].as_u64().unwrap()
    };
    let sizes: Vec<u64> = (first..=last).map(|height| size(&nodes, height)).collect();
    println!("bytes of the blocks: {sizes:?}");
    assert!(sizes.iter().any(|size| *size > 1_000_000), "no block was long: {sizes:?}");

    // Both full nodes have a line of 5 Mbit/s: one has kept up as it could, the other begins now.
    catch_up(&mut nodes, &[SLOW]);
    println!("the slow node had them after {:?}", began.elapsed());
    let began = Instant::now();
    nodes.start([LATE]);
    catch_up(&mut nodes, &[LATE]);
    println!("the late node had {last} heights after {:?}", began.elapsed());

    // Nothing moves on a validator's line for longer than a request may be idle. The others go on, and it comes back.
    lines.stall(6, true);
    let height = nodes.height(0).unwrap();
    std::thread::sleep(Duration::from_secs(12));
    nodes.wait("three more heights", |nodes| nodes.height(0).is_some_and(|it| it >= height + 3));
    lines.stall(6, false);
    catch_up(&mut nodes, &[6, SLOW, LATE]);
    // A height that it has a part in: it votes again.
    let height = nodes.best_height();
    nodes.wait_height(height + 2);
    for index in nodes.alive() {
        assert!(metric(&nodes, index, "causeway_p2p_bans_total") == 0.0, "node {index} has banned somebody");
    }
    nodes.assert_one_chain(first, height);
}
