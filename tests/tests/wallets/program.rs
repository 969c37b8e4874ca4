//! `causeway wallet`, the program, from a deposit on Bitcoin to a payment there.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bitcoin::{Address, Amount, Network, Txid};
use causeway_tests::devnet::{PegNetwork, payee};
use causeway_tests::nodes::program;
use serde_json::Value;

use super::{alone, replace_in_time};

const PASSPHRASE: &str = "correct horse battery staple";

const DEPOSIT: Amount = Amount::from_sat(300_000_000);

/// How long one line of what is watched may take.
const LINE_DEADLINE: Duration = Duration::from_secs(150);

pub(super) struct Cli {
    file: PathBuf,
    pub(super) url: String,
}

impl Cli {
    pub(super) fn new(directory: &Path, name: &str, url: &str) -> Self {
        Self { file: directory.join(name), url: url.to_owned() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.arg("wallet").args(arguments).arg("--wallet").arg(&self.file);
        command.env("CAUSEWAY_WALLET_PASSPHRASE", PASSPHRASE).stdin(Stdio::null());
        command
    }

    pub(super) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program starts")
    }

    /// The JSON of a command that succeeds.
    pub(super) fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {err}");
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {out}"))
    }

    /// The exit code and the error of a command that fails.
    pub(super) fn fail(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?} succeeds");
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    pub(super) fn create(&self, chain: &Path) -> String {
        let made = self.json(&["create", "--chain", chain.to_str().unwrap(), "--node", &self.url]);
        made["mnemonic"].as_str().unwrap().to_owned()
    }

    fn restore(&self, chain: &Path, mnemonic: &str) -> Value {
        let arguments = ["restore", "--json", "--chain", chain.to_str().unwrap(), "--node", &self.url];
        let mut process = self.command(&arguments);
        let mut process = process.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        writeln!(process.stdin.take().unwrap(), "{mnemonic}").unwrap();
        let output = process.wait_with_output().unwrap();
        assert!(output.status.success());
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn follow(&self, arguments: &[&str]) -> Following {
        let mut command = self.command(&[arguments, &["--json", "--timeout", "150"]].concat());
        let mut process = command.stdout(Stdio::piped()).spawn().expect("the program starts");
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Following { process, lines }
    }
}

/// A command that tells what happens, line by line.
struct Following {
    process: Child,
    lines: Receiver<String>,
}

impl Following {
    /// The next event of this name; those before it must be among `between`.
    fn next(&self, event: &str, between: &[&str]) -> Value {
        loop {
            let line = self.lines.recv_timeout(LINE_DEADLINE).unwrap_or_else(|_| panic!("no event {event}"));
            let json: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            match json["event"].as_str().unwrap() {
                name if name == event => return json,
                name => assert!(between.contains(&name), "{name} before {event}: {line}"),
            }
        }
    }

    fn end(mut self) {
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.process.kill();
    }
}

fn regtest(value: &Value) -> Address {
    let address: Address<bitcoin::address::NetworkUnchecked> = value.as_str().unwrap().parse().unwrap();
    address.require_network(Network::Regtest).unwrap()
}

#[test]
fn a_depositor_is_credited_pays_replaces_and_withdraws() {
    let _alone = alone();
    let mut network = PegNetwork::start();
    let directory = tempfile::tempdir().unwrap();
    let (url, chain) = (network.node().rest.clone(), network.node().home.join("chainspec.toml"));
    let cli = Cli::new(directory.path(), "wallet", &url);
    let mnemonic = cli.create(&chain);
    assert_eq!(mnemonic.split(' ').count(), 12);
    assert_eq!(cli.json(&["balance"])["total_sat"], 0);

    // In. Others use the wallet while somebody watches.
    let watching = cli.follow(&["peg-in", "--watch"]);
    let offer = watching.next("address", &[]);
    let deposit = network.miner.pay(&regtest(&offer["address"]), DEPOSIT).unwrap();
    network.mine(1);
    let seen = watching.next("seen", &[]);
    assert_eq!((&seen["deposit"], &seen["amount_sat"]), (&deposit.to_string().into(), &DEPOSIT.to_sat().into()));
    assert_eq!(watching.next("confirmations", &[])["confirmations"], 1);
    assert_eq!(cli.json(&["deposits"])["deposits"][0]["address"], offer["address"]);
    network.mine(2);
    let credited = watching.next("credited", &["confirmations"]);
    watching.end();
    let balance = cli.json(&["balance"]);
    assert_eq!(balance["final_sat"], credited["amount_sat"]);
    assert_eq!(credited["amount_sat"].as_u64().unwrap() + credited["fee_sat"].as_u64().unwrap(), DEPOSIT.to_sat());

    // What is wrong is refused before anything happens.
    let shop = payee("shop").to_string();
    let (code, error) = cli.fail(&["send", &shop, "1"]);
    assert!(code == 2 && error.contains("0.1 BTC"), "{code}: {error}");
    let (code, error) = cli.fail(&["send", &shop, "1 BTC"]);
    assert!(code == 1 && error.contains("--yes"), "{code}: {error}");
    let (_, error) = cli.fail(&["send", &shop, "100 BTC", "--yes"]);
    assert!(error.contains("can be spent"), "{error}");
    let (_, error) = cli.fail(&["send", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "1 BTC", "--yes"]);
    assert!(error.contains("no address of this chain"), "{error}");
    let (_, error) = cli.fail(&["balance", "--node", "http://127.0.0.1:1"]);
    assert!(error.contains("--node"), "{error}");
    let other = Cli::new(directory.path(), "none", &url);
    assert!(other.fail(&["balance"]).1.contains("wallet create"));
    assert_eq!(cli.json(&["balance"])["total_sat"], balance["total_sat"]);

    // Around.
    let sent = cli.json(&["send", &shop, "0.25 BTC", "--feerate", "2 sat/vB", "--yes", "--wait"]);
    assert!(sent["height"].as_u64().unwrap() > 100, "{sent}");
    assert_eq!(sent["payments"][0]["amount_sat"], 25_000_000);
    let (first, second) = replace_in_time(&mut network, || replace(&cli, &shop));
    let (first, second) = (first.to_string(), second.to_string());
    let (_, error) = cli.fail(&["send", "--replace", &first, "--yes"]);
    assert!(error.contains("not final"), "{error}");
    let history = cli.json(&["history"]);
    let txids: Vec<&str> =
        history["transactions"].as_array().unwrap().iter().map(|entry| entry["txid"].as_str().unwrap()).collect();
    assert!(txids.contains(&second.as_str()) && !txids.contains(&first.as_str()), "{history}");

    // Out.
    let payee = payee("a Bitcoin wallet");
    let watching = cli.follow(&["peg-out", &payee.to_string(), "0.5 BTC", "--yes", "--watch"]);
    let requested = watching.next("requested", &[]);
    watching.next("final", &[]);
    let batched = watching.next("batched", &["waiting"]);
    network.wait_signed(requested["request"].as_str().unwrap().parse().unwrap());
    network.mine(3);
    let paid = watching.next("confirmed", &["batched", "replaced"]);
    watching.end();
    assert_eq!(paid["txid"], batched["txid"]);
    assert_eq!(paid["payout_sat"].as_u64().unwrap() + paid["fee_sat"].as_u64().unwrap(), 50_000_000);
    assert_eq!(network.coins(&payee).first().unwrap().1, paid["payout_sat"].as_u64().unwrap());

    let history = cli.json(&["history"]);
    let kinds: Vec<&str> =
        history["transactions"].as_array().unwrap().iter().map(|entry| entry["kind"].as_str().unwrap()).collect();
    assert_eq!((kinds.first(), kinds.last()), (Some(&"peg_out"), Some(&"peg_in")), "{history}");
    let deltas: i64 =
        history["transactions"].as_array().unwrap().iter().map(|entry| entry["delta_sat"].as_i64().unwrap()).sum();
    let balance = cli.json(&["balance"]);
    assert_eq!(balance["total_sat"].as_i64().unwrap(), deltas);

    // Again, from the words alone.
    let restored = Cli::new(directory.path(), "restored", &url).restore(&chain, &mnemonic);
    assert_eq!(restored["total_sat"], balance["total_sat"]);
    network.accounts();
}

/// Sends a payment and then one in its place.
fn replace(cli: &Cli, payee: &str) -> (Txid, Txid) {
    let first = cli.json(&["send", payee, "0.01 BTC", "--yes"]);
    let first = first["txid"].as_str().unwrap().to_owned();
    let (_, error) = cli.fail(&["send", "--replace", &first, "--feerate", "1 sat/vB", "--yes"]);
    assert!(error.contains("must pay more"), "{error}");
    let second = cli.json(&["send", "--replace", &first, "--yes"]);
    assert_eq!(second["replaces"], first.as_str());
    assert_eq!(second["payments"][0]["amount_sat"], 1_000_000);
    (first.parse().unwrap(), second["txid"].as_str().unwrap().parse().unwrap())
}
