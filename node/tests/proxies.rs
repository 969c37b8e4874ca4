//! What is asked of a node on this machine stays on it, whatever the environment says of proxies.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use causeway_chainspec::{ChainSpec, Height};
use causeway_node::home::Home;
use serde_json::{Value, json};

/// A server that gives every request what `answer` makes of its path, and counts connections.
fn serve(
    bind: &str,
    answer: impl Fn(&str) -> Option<String> + Send + 'static,
) -> Option<(SocketAddr, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind(bind).ok()?;
    let address = listener.local_addr().expect("an address");
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            count.fetch_add(1, Ordering::SeqCst);
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let found = answer(head.split(' ').nth(1).unwrap_or_default());
            let (status, body) = found.map_or((404, String::new()), |body| (200, body));
            let text = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            let _ = stream.write_all(text.as_bytes());
        }
    });
    Some((address, asked))
}

/// What a node says at the beginning of its chain.
fn node(path: &str) -> Option<String> {
    let spec = ChainSpec::built_in("devnet").expect("built in");
    let hash = |height| spec.derived_block(Height(height)).expect("derived").block_hash();
    match path {
        "/block-height/1" => Some(hash(1).to_string()),
        "/blocks" => Some(json!([{ "height": 1, "id": hash(1) }, { "height": 0, "id": hash(0) }]).to_string()),
        "/v1/status" => Some(
            json!({
                "height": 7, "hash": "11", "time": 5, "round": 0, "sync_target": null, "validator": null, "peers": 3,
                "mempool_transactions": 0, "mempool_vsize": 0, "something_newer": true,
            })
            .to_string(),
        ),
        _ => None,
    }
}

/// The result of a command, in an environment with these variables.
fn run(variables: &[(&str, &str)], arguments: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_causeway"));
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy"] {
        command.env_remove(name);
    }
    command.env("CAUSEWAY_WALLET_PASSPHRASE", "correct horse battery staple");
    let output = command.args(arguments).envs(variables.iter().copied()).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{variables:?} {arguments:?}: {said}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn no_command_sends_what_it_asks_through_a_proxy() {
    let (trap, trapped) = serve("127.0.0.1:0", |_| None).expect("a port");
    let (here, asked) = serve("127.0.0.1:0", node).expect("a port");
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (wallet, home) = (path("wallet"), path("home"));
    init(&home, here);
    let url = format!("http://{here}");
    run(&[], &["wallet", "create", "--json", "--chain", "devnet", "--node", &url, "--wallet", &wallet]);
    // As long as this has the home, a node runs there.
    let _lock = Home::at(&home).lock().expect("nobody has it");

    let (plain, named) = (trap.to_string(), format!("http://{trap}/"));
    let junk = ["::::", "http://", "socks5h://x:y@[", "not a proxy", "", "127.0.0.1:1"];
    let values = junk.iter().copied().chain([plain.as_str(), &named, "http://user:password@127.0.0.1:1"]);
    let mut cases: Vec<Vec<(&str, &str)>> = values.map(|value| vec![("http_proxy", value)]).collect();
    let names = ["HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
    cases.push(names.map(|name| (name, named.as_str())).to_vec());
    cases.push(vec![("all_proxy", &plain)]);
    cases.push(vec![("http_proxy", &named), ("no_proxy", "127.0.0.1")]);
    cases.push(vec![("http_proxy", &named), ("no_proxy", "*")]);
    for case in &cases {
        let status = run(case, &["status", "--json", "--home", &home]);
        assert_eq!((&status["running"], &status["height"]), (&true.into(), &7.into()), "{case:?}");
    }
    // Opening a wallet takes a while: one of each kind.
    for case in cases.iter().filter(|case| case.len() > 1 || case.contains(&("http_proxy", &named))) {
        let before = asked.load(Ordering::SeqCst);
        let balance = run(case, &["wallet", "balance", "--json", "--wallet", &wallet]);
        assert_eq!((&balance["height"], &balance["total_sat"]), (&1.into(), &0.into()), "{case:?}");
        assert_eq!(asked.load(Ordering::SeqCst) - before, 2, "{case:?}");
    }
    assert_eq!(trapped.load(Ordering::SeqCst), 0);
}

#[test]
fn a_node_at_an_ipv6_address_is_asked() {
    // Some machines have no IPv6.
    let Some((here, asked)) = serve("[::1]:0", node) else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (wallet, home) = (path("wallet"), path("home"));
    init(&home, here);
    let url = format!("http://{here}/");
    run(&[], &["wallet", "create", "--json", "--chain", "devnet", "--node", &url, "--wallet", &wallet]);
    assert_eq!(run(&[], &["wallet", "balance", "--json", "--wallet", &wallet])["height"], 1);
    let _lock = Home::at(&home).lock().expect("nobody has it");
    assert_eq!(run(&[], &["status", "--json", "--home", &home])["height"], 7);
    assert_eq!(asked.load(Ordering::SeqCst), 4);
}

/// A home whose node would serve REST there.
fn init(home: &str, rest: SocketAddr) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_causeway"));
    let output = command.args(["init", "--chain", "devnet", "--full-node", "--home", home]).output();
    assert!(output.expect("it starts").status.success());
    let config = Home::at(home).config();
    let text = fs::read_to_string(&config).expect("readable");
    assert!(Path::new(home).exists() && text.contains("127.0.0.1:29380"));
    fs::write(&config, text.replace("127.0.0.1:29380", &rest.to_string())).expect("writable");
}
