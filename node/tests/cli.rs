//! The binary against what operators do wrong: it fails, says in one line what to do, and leaves everything as it is.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bitcoin::consensus::serialize;
use bitcoin::secp256k1::SECP256K1;
use bitcoin::{Amount, ScriptBuf};
use causeway_chainspec::{ChainSpec, Height, devnet};
use causeway_consensus::assemble::assemble_block;
use causeway_consensus::bft::{
    CommitCertificate, Engine, Guarded, Input, Key, LinearTimeouts, LogEntry, Timer, TimerStep, ValidatorSet, Vote,
    VoteType, Writing,
};
use causeway_consensus::state::{CoinFlush, Store, StoreOptions};
use causeway_consensus::{ChainView, Workers, check_block, connect_block, parse_block, resolve};
use causeway_node::cli::run::{Prepared, RunAs, Validator, prepare};
use causeway_node::home::Home;
use causeway_node::shell::log_file::LogFile;
use causeway_node::shell::persistence::Persistence;
use tempfile::TempDir;

struct Node {
    directory: TempDir,
}

fn causeway<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_causeway")).args(args).env_remove("RUST_LOG").output().expect("it starts")
}

/// The one line `error: ...` of a command that failed.
fn error(output: &Output, code: i32) -> String {
    let text = String::from_utf8(output.stderr.clone()).expect("text");
    assert_eq!(output.status.code(), Some(code), "{text}");
    let lines: Vec<_> = text.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(lines.len(), 1, "{text}");
    assert_eq!(text.lines().last(), Some(lines[0]), "the error comes last: {text}");
    lines[0].to_owned()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("text")
}

/// Every file below a directory with its content, but for the lock and what RocksDB writes.
fn content(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(content(&path));
        } else if !path.ends_with("LOCK") {
            files.push((path.clone(), fs::read(&path).expect("readable")));
        }
    }
    files.sort();
    files
}

impl Node {
    fn new() -> Self {
        let node = Self { directory: tempfile::tempdir().expect("a directory") };
        text(&causeway(["init", "--chain", "devnet", "--home", node.path_str()]));
        // Several run at once.
        node.edit_config("127.0.0.1:29390", "127.0.0.1:0");
        node
    }

    fn home(&self) -> Home {
        Home::at(self.directory.path().join("home"))
    }

    fn path_str(&self) -> &str {
        // Leaked for the length of a test.
        Box::leak(self.home().path().display().to_string().into_boxed_str())
    }

    fn run(&self) -> Output {
        causeway(["run", "--home", self.path_str()])
    }

    fn edit_config(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.home().config()).expect("readable");
        assert!(text.contains(from));
        fs::write(self.home().config(), text.replace(from, to)).expect("writable");
    }
}

#[test]
fn a_new_home_shows_its_public_keys_and_no_secret() {
    let node = Node::new();
    let secret = fs::read_to_string(node.home().validator_key()).expect("readable");
    let secret = secret.lines().last().expect("the key").to_owned();
    for output in [
        causeway(["keys", "show", "--home", node.path_str()]),
        causeway(["status", "--home", node.path_str()]),
        causeway(["check", "--home", node.path_str()]),
    ] {
        let shown = text(&output) + &String::from_utf8_lossy(&output.stderr);
        assert!(!shown.contains(&secret));
    }
    let shown = text(&causeway(["keys", "show", "--home", node.path_str()]));
    assert!(shown.contains("nothing signed") && shown.contains("12D3KooW"), "{shown}");

    let status = text(&causeway(["status", "--json", "--home", node.path_str()]));
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!((&status["running"], &status["height"]), (&false.into(), &100.into()));
    assert_eq!(status["log_damaged"], false);
}

#[test]
fn a_full_node_has_no_validator_key() {
    let directory = tempfile::tempdir().expect("a directory");
    let home = Home::at(directory.path().join("home"));
    let path = home.path().display().to_string();
    text(&causeway(["init", "--chain", "devnet", "--full-node", "--home", &path]));
    assert!(!home.validator_key().exists() && !home.validator_mark().exists());
    let prepared = prepare(&home, RunAs::Validator).expect("in order");
    assert!(prepared.validator.is_none() && prepared.fee_script.is_none());
    let (_, remembered) = prepared.open_log(Height(100)).expect("a log");
    assert_eq!(remembered, None);
    assert!(home.follower_log().exists() && !home.consensus_log().exists());
}

#[test]
fn an_existing_home_is_left_alone() {
    let node = Node::new();
    let before = content(node.home().path());
    let error = error(&causeway(["init", "--chain", "devnet", "--home", node.path_str()]), 1);
    assert!(error.contains("nothing was changed"), "{error}");
    assert_eq!(content(node.home().path()), before);
}

#[test]
fn an_unknown_key_is_named() {
    let node = Node::new();
    node.edit_config("outbound = 12", "outbonud = 12");
    let error = error(&node.run(), 1);
    assert!(
        error.contains("config.toml line") && error.contains("p2p.outbonud") && error.contains("`outbound`"),
        "{error}"
    );
}

#[test]
fn a_value_out_of_bounds_is_named() {
    let node = Node::new();
    node.edit_config("propose_ms = 3000", "propose_ms = 3");
    let error = error(&node.run(), 1);
    assert!(error.contains("consensus.propose_ms") && error.contains("100 to 60000"), "{error}");
}

#[test]
fn a_missing_key_file_does_not_make_a_full_node() {
    let node = Node::new();
    fs::remove_file(node.home().validator_key()).expect("removed");
    let missing = error(&node.run(), 1);
    assert!(missing.contains("validator.key is missing") && missing.contains("backup"), "{missing}");
    fs::remove_file(node.home().node_key()).expect("removed");
    let missing = error(&node.run(), 1);
    assert!(missing.contains("node.key is missing"), "{missing}");
}

#[test]
fn a_missing_mark_is_not_made_anew() {
    let node = Node::new();
    fs::remove_file(node.home().validator_mark()).expect("removed");
    let error = error(&node.run(), 1);
    assert!(error.contains("validator.mark is missing") && error.contains("causeway keys adopt"), "{error}");
    assert!(!node.home().validator_mark().exists());
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let node = Node::new();
    for path in [node.home().validator_key(), node.home().node_key(), node.home().validator_mark()] {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
        let error = error(&node.run(), 1);
        assert!(error.contains(&format!("chmod 600 {}", path.display())), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
    }
}

#[test]
fn the_key_of_another_chain_is_refused() {
    let node = Node::new();
    let mut parts = ChainSpec::built_in("devnet").expect("built in").to_parts();
    parts.launch = [9; 32];
    let other = ChainSpec::new(parts).expect("a chainspec");
    fs::write(node.home().chainspec(), other.to_toml()).expect("written");
    let error = error(&node.run(), 1);
    assert!(error.contains("is of chain") && error.contains("chainspec"), "{error}");
}

#[test]
fn a_home_of_other_rules_is_refused_by_name() {
    let node = Node::new();
    let path = node.home().chainspec();
    let now = fs::read_to_string(&path).expect("readable");
    for (written, number) in [("", "0"), ("rules = 2\n", "2")] {
        fs::write(&path, now.replace("rules = 1\n", written)).expect("written");
        for command in [["run"], ["check"]] {
            let error = error(&causeway(command.iter().chain(&["--home", node.path_str()])), 1);
            let expected = format!(
                "this chain began under rules {number}; this build runs rules 1: use the build that wrote it, or start a new network"
            );
            assert!(error.contains(&expected) && error.contains("chainspec.toml"), "{error}");
        }
    }
}

#[test]
fn a_copied_home_is_refused_and_can_be_adopted() {
    let node = Node::new();
    let copy = node.directory.path().join("copy");
    let copied = Command::new("cp").arg("-a").arg(node.home().path()).arg(&copy).status().expect("cp");
    assert!(copied.success());
    let copy = copy.display().to_string();
    for command in ["run", "check"] {
        let error = error(&causeway([command, "--home", &copy]), 1);
        assert!(error.contains("one place only") && error.contains("causeway keys adopt --home"), "{error}");
    }
    let low = error(&causeway(["keys", "adopt", "--home", &copy, "--above", "99"]), 2);
    assert!(low.contains("--above 99"), "{low}");
    let adopted = text(&causeway(["keys", "adopt", "--home", &copy, "--above", "700"]));
    assert!(adopted.contains("signs only above height 700"), "{adopted}");
    assert!(prepare(&Home::at(&copy), RunAs::Validator).is_ok());
    let low = error(&causeway(["keys", "adopt", "--home", &copy, "--above", "699"]), 1);
    assert!(low.contains("at least 700"), "{low}");

    // Moved, a home stays what it is.
    let moved = node.directory.path().join("moved");
    fs::rename(node.home().path(), &moved).expect("renamed");
    assert!(prepare(&Home::at(moved), RunAs::Validator).is_ok());
}

#[test]
fn a_second_process_is_refused() {
    let node = Node::new();
    let _prepared = prepare(&node.home(), RunAs::Validator).expect("in order");
    let pid = std::process::id();
    for command in [["run"].as_slice(), &["check"], &["keys", "adopt", "--above", "100"]] {
        let error = error(&causeway(command.iter().chain(&["--home", node.path_str()])), 1);
        assert!(error.contains(&format!("another causeway runs on {} (pid {pid})", node.path_str())), "{error}");
    }
    // Looking is allowed.
    text(&causeway(["keys", "show", "--home", node.path_str()]));
    node.edit_config("127.0.0.1:29380", "127.0.0.1:1");
    let silent = error(&causeway(["status", "--home", node.path_str()]), 1);
    assert!(silent.contains("http://127.0.0.1:1/v1/status does not answer"), "{silent}");
}

#[test]
fn a_damaged_log_is_told() {
    let node = Node::new();
    let chain = ChainSpec::built_in("devnet").expect("built in").chain_id();
    let (mut log, _) = LogFile::open(&node.home().consensus_log(), chain).expect("a log");
    let timer = |round: u8| LogEntry::decode(&[4, 1, round, 0, 0, 0]).expect("an entry");
    log.append(Height(101), &[timer(0), timer(1), timer(2)], Writing::Now).expect("written");
    let mut bytes = fs::read(node.home().consensus_log()).expect("readable");
    bytes[55] ^= 1;
    fs::write(node.home().consensus_log(), &bytes).expect("writable");
    let status = text(&causeway(["status", "--home", node.path_str()]));
    assert!(status.contains("log        damaged"), "{status}");

    // The key has signed nothing, so nothing depends on the log.
    let checked = text(&causeway(["check", "--home", node.path_str()]));
    assert!(checked.contains("of no height that matters"), "{checked}");
    assert_eq!(fs::read(node.home().consensus_log()).expect("readable"), bytes);
}

#[test]
fn a_damaged_log_that_votes_depend_on_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let import = directory.path().join("import.key");
    let secret = |index| devnet::secret_key(devnet::VALIDATOR, index);
    fs::write(&import, secret(0).display_secret().to_string()).expect("written");
    fs::set_permissions(&import, fs::Permissions::from_mode(0o600)).expect("set");
    let (path, import) = (directory.path().join("home").display().to_string(), import.display().to_string());
    text(&causeway(["init", "--chain", "devnet", "--home", &path, "--validator-key", &import, "--above", "0"]));

    // One validator of two, which waits for the other in vain.
    let home = Home::at(&path);
    let prepared = prepare(&home, RunAs::Validator).expect("in order");
    let (log, _) = prepared.open_log(Height(100)).expect("a log");
    let Prepared { chainspec, validator, lock, .. } = prepared;
    let Validator { key, mark } = validator.expect("a validator");
    let signer = Guarded::new(key, mark.mark().clone()).expect("its mark");
    let mut disk = Persistence::new(log, Some(mark));
    let mut engine = Engine::new(chainspec.chain_id(), LinearTimeouts::default(), Some(Box::new(signer)));
    let set = (0..2).map(|index| secret(index).x_only_public_key(SECP256K1).0);
    let set: Vec<_> = set.map(|key| causeway_chainspec::Validator { key, power: 1 }).collect();
    let step = engine.start(Height(101), ValidatorSet::new(&set).expect("a set"), &[]).expect("it starts");
    step.persist(&mut disk).expect("written");
    let timer = Timer { height: Height(101), step: TimerStep::Propose, round: 0 };
    engine.step(Input::TimerElapsed(timer)).expect("a step").persist(&mut disk).expect("written");
    drop((disk, lock));

    let shown = text(&causeway(["keys", "show", "--home", &path]));
    assert!(shown.contains("signed the prevote of height 101, round 0"), "{shown}");
    let checked = text(&causeway(["check", "--home", &path]));
    assert!(checked.contains("of the height above the tip, whole"), "{checked}");
    let whole = fs::read(home.consensus_log()).expect("readable");
    let mut damaged = whole.clone();
    damaged[55] ^= 1;
    for log in [&damaged[..], &whole[..whole.len() - 1], &[]] {
        fs::write(home.consensus_log(), log).expect("writable");
        let error = error(&causeway(["check", "--home", &path]), 1);
        assert!(
            error.contains("must not vote") && error.contains("--full-node until the tip is at or above height 101"),
            "{error}"
        );
        assert!(prepare(&home, RunAs::Validator).expect("in order").open_log(Height(100)).is_err());
        assert_eq!(fs::read(home.consensus_log()).expect("readable"), log);
    }
}

/// Commits a block above the tip whose certificate these validators of the devnet signed.
fn commit(home: &Home, signers: &[u32]) {
    let spec = home.load_chainspec().expect("a chainspec");
    let workers = Workers::new(NonZeroUsize::MIN);
    let store = Store::open(&home.store(), &spec, StoreOptions::default(), &workers).expect("a store");
    let tip = store.tip();
    let block = assemble_block(&tip, tip.time() + 1, Amount::ZERO, ScriptBuf::new(), Vec::new());
    let block = parse_block(serialize(&block)).and_then(|block| check_block(block, spec.params())).expect("valid");
    let connected = connect_block(resolve(block, &store).expect("on the tip"), &workers, None).expect("valid");
    let (height, hash) = (connected.tip().height(), connected.tip().hash());
    let set = ValidatorSet::new(spec.validators()).expect("a set");
    let signatures = signers.iter().map(|index| {
        let key = devnet::secret_key(devnet::VALIDATOR, *index).keypair(SECP256K1);
        let vote = Vote::new(VoteType::Precommit, height, 0, Some(hash), Key::address(&key));
        (Key::address(&key), Key::sign(&key, &vote.digest(spec.chain_id())).expect("a signature"))
    });
    let certificate = CommitCertificate::new(&set, height, 0, hash, signatures).expect("of the set");
    store.commit(&connected, &certificate.encode(), CoinFlush::WithBlock).expect("written");
}

#[test]
fn a_block_that_nothing_proves_is_found() {
    let node = Node::new();
    commit(&node.home(), &[0, 1, 2]);
    commit(&node.home(), &[1, 2, 3]);
    let checked = text(&causeway(["check", "--home", node.path_str()]));
    assert!(checked.contains("0 to 102, each proven"), "{checked}");
    let status = text(&causeway(["status", "--home", node.path_str()]));
    assert!(status.contains("tip        102 ") && status.contains("proof      there"), "{status}");

    commit(&node.home(), &[0, 1]);
    commit(&node.home(), &[0, 1, 2]);
    let error = error(&causeway(["check", "--home", node.path_str()]), 1);
    assert!(error.contains("certificate of height 103 does not prove its block"), "{error}");
    assert!(error.contains("sync again") && error.contains("never delete the directory keys"), "{error}");
}

#[test]
fn a_running_node_is_asked() {
    let node = Node::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    node.edit_config("127.0.0.1:29380", &address);
    let _prepared = prepare(&node.home(), RunAs::Validator).expect("in order");
    let body = r#"{"height":107,"hash":"00ab","time":1,"round":0,"sync_target":120,"validator":null,"peers":3,"mempool_transactions":2,"mempool_vsize":400,"more":1}"#;
    let server = std::thread::spawn(move || {
        for status in ["200 OK", "200 OK", "503 Service Unavailable"] {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut request = [0; 1024];
            let length = stream.read(&mut request).expect("a request");
            assert!(request[..length].starts_with(b"GET /v1/status HTTP/1.1"));
            let length = body.len();
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
                .expect("sent");
        }
    });
    let status = text(&causeway(["status", "--home", node.path_str()]));
    assert!(status.contains("tip        107 00ab") && status.contains("on the way to 120"), "{status}");
    let json = text(&causeway(["status", "--json", "--home", node.path_str()]));
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&json["running"], &json["peers"]), (&true.into(), &3.into()));
    let error = error(&causeway(["status", "--home", node.path_str()]), 1);
    assert!(error.contains("answers with status 503"), "{error}");
    server.join().expect("three requests");
}

#[test]
fn a_damaged_mark_is_refused() {
    let node = Node::new();
    fs::write(node.home().validator_mark(), [3; 8192]).expect("writable");
    let error = error(&node.run(), 1);
    assert!(error.contains("do not delete the file"), "{error}");
}

#[test]
fn no_home_no_chain_no_sense() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("home").display().to_string();
    for command in ["run", "status", "check"] {
        let error = error(&causeway([command, "--home", &path]), 1);
        assert!(error.contains("causeway init --home"), "{error}");
    }
    let unknown = error(&causeway(["init", "--chain", "mainnet", "--home", &path]), 2);
    assert!(unknown.contains("devnet"), "{unknown}");
    let imported = error(&causeway(["init", "--chain", "devnet", "--home", &path, "--validator-key", "/dev/null"]), 2);
    assert!(imported.contains("--above"), "{imported}");
    let fees = error(&causeway(["init", "--chain", "devnet", "--home", &path, "--fee-address", "x"]), 1);
    assert!(fees.contains("consensus.fee_address"), "{fees}");
    assert!(!Path::new(&path).exists());
    assert_eq!(causeway(["launch"]).status.code(), Some(2));
    assert_eq!(causeway(["run"]).status.code(), Some(2));
}

#[test]
fn an_imported_key_signs_only_above() {
    let node = Node::new();
    let copy = node.directory.path().join("copy").display().to_string();
    let key = node.home().validator_key().display().to_string();
    let import = ["init", "--chain", "devnet", "--home", &copy, "--validator-key", &key, "--above", "500"];
    text(&causeway(import));
    let shown = text(&causeway(["keys", "show", "--home", &copy]));
    assert!(shown.contains("signs only above height 500"), "{shown}");
}

#[test]
fn a_chainspec_is_made_from_public_keys() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("net.toml").display().to_string();
    let model = ChainSpec::built_in("devnet").expect("built in");
    let mut args: Vec<String> = ["chainspec", "new", "--name", "mine", "--threshold", "2", "--recovery-threshold", "1"]
        .map(str::to_owned)
        .to_vec();
    let mut push = |flag: &str, value: String| args.extend([flag.to_owned(), value]);
    push("--validator", format!("{}:3", model.validators()[0].key));
    push("--validator", model.validators()[1].key.to_string());
    for member in &model.federation().members()[..3] {
        push("--member", member.to_string());
    }
    push("--recovery-key", model.federation().recovery_keys()[0].to_string());
    push("--out", path.clone());
    let shown = text(&causeway(&args));
    let spec = ChainSpec::from_toml(&fs::read_to_string(&path).expect("readable")).expect("a chainspec");
    assert!(shown.contains(&spec.chain_id().to_string()), "{shown}");
    assert_eq!(spec.total_power(), 4);
    assert_eq!(text(&causeway(["chainspec", "show", &path])), shown);

    // Never over a file, and never the same chain twice.
    assert!(error(&causeway(&args), 1).contains("net.toml"));
    let second = args.last_mut().expect("the path");
    second.push('2');
    text(&causeway(&args));
    let again = ChainSpec::from_toml(&fs::read_to_string(format!("{path}2")).expect("readable")).expect("a chainspec");
    assert_ne!(again.chain_id(), spec.chain_id());

    let start = directory.path().join("bitcoin.toml").display().to_string();
    fs::write(&start, "[bitcoin]\nnetwork = \"regtest\"\nheight = 1\n").expect("written");
    args.extend(["--bitcoin-start".to_owned(), start.clone()]);
    let refused = error(&causeway(&args), 1);
    assert!(refused.contains("bitcoin.toml") && refused.contains("bitcoin.header"), "{refused}");
    let text = model.to_toml();
    let section = &text[text.find("[bitcoin]").expect("there")..];
    fs::write(&start, section).expect("written");
    let out = args.len() - 3;
    args[out].push('3');
    assert!(causeway(&args).status.success());
}
