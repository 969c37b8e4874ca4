//! Metrics and health of running nodes: counters move with what happens, and readiness with the state.

use std::path::Path;
use std::time::{Duration, Instant};

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use causeway_chainspec::ChainSpec;
use causeway_node::config::Config;
use causeway_node::devnet::{Devnet, Process, Shape};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(90);

/// One validator, which decides alone, and a full node.
fn network(directory: &Path) -> Devnet {
    let mut parts = ChainSpec::built_in("devnet").expect("built in").to_parts();
    parts.validators.truncate(1);
    parts.params.block_interval_ms = 200;
    let spec = ChainSpec::new(parts).expect("a right chainspec");
    let mut config = Config::default();
    config.store.coin_cache_mb = 8;
    config.store.block_cache_mb = 8;
    config.store.write_buffer_mb = 8;
    let validator = (0..4).find(|index| {
        let secret = causeway_chainspec::devnet::secret_key(causeway_chainspec::devnet::VALIDATOR, *index);
        secret.x_only_public_key(bitcoin::secp256k1::SECP256K1).0 == spec.validators()[0].key
    });
    let validators = vec![validator.expect("a key of the devnet")];
    Devnet::create(&directory.join("devnet"), &Shape { spec, validators, full_nodes: 1, config }).expect("homes")
}

fn start(devnet: &Devnet, index: usize) -> Process {
    let program = Path::new(env!("CARGO_BIN_EXE_causeway"));
    let mut process = Process::start(program, &devnet.nodes[index]).expect("it starts");
    process.wait_ready(DEADLINE).unwrap_or_else(|error| panic!("{error}"));
    process
}

fn get(base: &str, path: &str) -> (i32, String) {
    let response = minreq::get(format!("{base}{path}")).with_timeout(30).send().expect("an answer");
    (response.status_code, response.as_str().expect("text").to_owned())
}

/// Waits until the answer is as it should be, and returns it.
fn wait<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(started.elapsed() < DEADLINE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn scrape(base: &str, name: &str) -> f64 {
    try_scrape(base, name).unwrap_or_else(|| panic!("{name} is not in the answer"))
}

/// A series with labels begins with the first thing that it counts.
fn try_scrape(base: &str, name: &str) -> Option<f64> {
    let (status, text) = get(base, "/metrics");
    assert_eq!(status, 200);
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

fn ready(base: &str) -> (i32, Value) {
    let (status, body) = get(base, "/health/ready");
    (status, serde_json::from_str(&body).expect("JSON"))
}

/// A transaction of a coin that nobody knows.
fn unknown_coin() -> Transaction {
    let outpoint = OutPoint { txid: Txid::from_byte_array([7; 32]), vout: 0 };
    let input = TxIn {
        previous_output: outpoint,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    };
    let script_pubkey = ScriptBuf::new_p2wsh(&bitcoin::WScriptHash::from_byte_array([8; 32]));
    let output = TxOut { value: Amount::from_sat(10_000), script_pubkey };
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![input], output: vec![output] }
}

#[test]
fn counters_move_with_traffic_and_readiness_with_the_state() {
    let directory = tempfile::tempdir().expect("a directory");
    let devnet = network(directory.path());
    let validator = start(&devnet, 0);
    let (watched, rest) = (devnet.nodes[0].metrics.clone(), devnet.nodes[0].rest.clone());

    // Blocks.
    let blocks = "causeway_consensus_blocks_total{by=\"consensus\"}";
    let few = wait("a block", || try_scrape(&watched, blocks).filter(|count| *count >= 1.0));
    wait("more blocks", || (scrape(&watched, blocks) >= few + 3.0).then_some(()));
    for (name, least) in [
        ("causeway_node_up", 1.0),
        ("causeway_node_ready", 1.0),
        ("causeway_consensus_height", 103.0),
        ("causeway_consensus_rounds_total", 4.0),
        ("causeway_consensus_validator_voting", 1.0),
        ("causeway_consensus_validator_power", 1.0),
        ("causeway_consensus_decision_seconds_count", 4.0),
        ("causeway_consensus_block_interval_seconds_count", 3.0),
        ("causeway_consensus_block_size_bytes_count", 4.0),
        ("causeway_consensus_block_transactions_sum", 4.0),
        ("causeway_consensus_block_assembly_seconds_count", 4.0),
        ("causeway_store_commit_seconds_count", 4.0),
        ("causeway_store_tip_height", 103.0),
        ("causeway_store_keys{family=\"headers\"}", 104.0),
    ] {
        let value = scrape(&watched, name);
        assert!(value >= least, "{name} is {value}");
    }

    // REST.
    let tips = "causeway_rest_requests_total{route=\"blocks\",status=\"2xx\"}";
    assert_eq!(get(&rest, "/blocks/tip/height").0, 200);
    let asked = scrape(&watched, tips);
    assert!(asked >= 1.0);
    for _ in 0..3 {
        assert_eq!(get(&rest, "/api/blocks/tip/hash").0, 200);
    }
    assert!(scrape(&watched, tips) >= asked + 3.0);
    let durations = "causeway_rest_request_duration_seconds_count{route=\"blocks\"}";
    assert!(scrape(&watched, durations) >= asked + 3.0);

    // Transactions.
    let refused = "causeway_mempool_rejected_transactions_total{why=\"not_yet\"}";
    assert_eq!(scrape(&watched, refused), 0.0);
    let post = minreq::post(format!("{rest}/tx")).with_body(serialize_hex(&unknown_coin())).with_timeout(30);
    assert_eq!(post.send().expect("an answer").status_code, 400);
    assert_eq!(scrape(&watched, refused), 1.0);
    assert_eq!(scrape(&watched, "causeway_rest_requests_total{route=\"broadcast\",status=\"4xx\"}"), 1.0);

    // It decides alone, and has no Bitcoin node.
    let (status, body) = ready(&watched);
    assert_eq!((status, &body["ready"], &body["degraded"][0]["reason"]), (200, &true.into(), &"no_bitcoin".into()));
    assert_eq!(get(&watched, "/health/live"), (200, "{\"live\":true}".to_owned()));

    // A full node becomes ready with its peer, and is not without it.
    let full = start(&devnet, 1);
    let follows = devnet.nodes[1].metrics.clone();
    let whole = (200, serde_json::json!({ "ready": true }));
    wait("the full node to be ready, and no block behind", || (ready(&follows) == whole).then_some(()));
    wait("the peers to be counted", || {
        let peers = |direction: &str| scrape(&follows, &format!("causeway_p2p_peers{{direction=\"{direction}\"}}"));
        (peers("inbound") + peers("outbound") >= 1.0).then_some(())
    });
    assert_eq!(scrape(&follows, "causeway_consensus_validator_voting"), 0.0);
    validator.terminate();
    assert!(validator.wait(), "the validator stops well");
    let lost = wait("the full node to be alone", || Some(ready(&follows)).filter(|(status, _)| *status == 503)).1;
    assert_eq!((&lost["ready"], &lost["reason"]), (&false.into(), &"no_peers".into()));
    assert!(lost["hint"].as_str().is_some_and(|hint| hint.contains("persistent_peers")), "{lost}");
    wait("the metric to say so", || (scrape(&follows, "causeway_node_ready") == 0.0).then_some(()));
    full.terminate();
    assert!(full.wait(), "the full node stops well");
}

#[test]
fn a_port_that_is_taken_is_named_before_anything_is_opened() {
    let directory = tempfile::tempdir().expect("a directory");
    let devnet = network(directory.path());
    let address = devnet.nodes[0].metrics.trim_start_matches("http://").to_owned();
    // A process that is just being started by another test may hold it for a moment.
    let _taken = wait("the port to be free", || std::net::TcpListener::bind(&address).ok());
    let mut process = Process::start(Path::new(env!("CARGO_BIN_EXE_causeway")), &devnet.nodes[0]).expect("it starts");
    let error = wait("the node to end", || process.check().err().map(|error| error.to_string()));
    assert!(error.contains(&format!("{address} is in use")) && error.contains("section [metrics]"), "{error}");
    assert!(!devnet.nodes[0].home.join("data/store").exists(), "the store was not opened");
}
