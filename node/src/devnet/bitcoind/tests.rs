use std::os::unix::fs::OpenOptionsExt;

use super::*;

#[test]
fn versions_are_those_of_bitcoin_core() {
    for (line, version) in [
        ("Bitcoin Core daemon version v31.99.0-unk bitcoind", Some(31)),
        ("Bitcoin Core daemon version v30.0.0", Some(30)),
        ("Bitcoin Core version v27.1.0", Some(27)),
        ("Bitcoin Core daemon version vNext", None),
        ("Bitcoin Knots daemon version v29.2.knots20251110", None),
        ("", None),
    ] {
        assert_eq!(major_version(line), version, "{line}");
    }
}

/// A program that says this.
fn program(directory: &Path, name: &str, says: &str) -> PathBuf {
    let path = directory.join(name);
    let file = fs::File::options().write(true).create_new(true).mode(0o755).open(&path).unwrap();
    std::io::Write::write_all(&mut &file, format!("#!/bin/sh\necho '{says}'\n").as_bytes()).unwrap();
    path
}

#[test]
fn another_program_or_an_old_one_is_refused_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let new = program(directory.path(), "new", "Bitcoin Core daemon version v30.0.0");
    assert_eq!(find_program(Some(&new)).unwrap(), new);
    let old = program(directory.path(), "old", "Bitcoin Core daemon version v29.3.0");
    let error = find_program(Some(&old)).unwrap_err().to_string();
    assert!(error.contains("is Bitcoin Core 29, needs 30 or newer") && error.contains("scripts/devnet"), "{error}");
    let error = find_program(Some(Path::new("/bin/true"))).unwrap_err().to_string();
    assert!(error.contains("/bin/true is no Bitcoin Core") && error.contains("--bitcoind"), "{error}");
    let error = find_program(Some(&directory.path().join("none"))).unwrap_err().to_string();
    assert!(error.contains("none could not be started: check"), "{error}");
    let error = DevnetError::NoBitcoind.to_string();
    assert!(error.contains("Bitcoin Core 30") && error.contains("scripts/devnet"), "{error}");
}

#[test]
fn only_files_that_can_be_run_are_found_on_the_path() {
    let directory = tempfile::tempdir().unwrap();
    let path = std::env::join_paths([Path::new("/nowhere"), directory.path()]).unwrap();
    assert_eq!(on_path("bitcoind", &path), None);
    fs::write(directory.path().join("bitcoind"), "").unwrap();
    assert_eq!(on_path("bitcoind", &path), None);
    fs::remove_file(directory.path().join("bitcoind")).unwrap();
    let found = program(directory.path(), "bitcoind", "");
    assert_eq!(on_path("bitcoind", &path), Some(found));
}

#[test]
fn the_password_is_salted_as_bitcoin_core_does() {
    // openssl dgst -sha256 -hmac 00ff, of "secret".
    let hash = "aaeec185df44eef4284ef0b656613e6c08a30e434f446c3081cbb69736e064db";
    assert_eq!(rpcauth("devnet", "secret", "00ff"), format!("devnet:00ff${hash}"));
    let text = configuration(28_555, "devnet:00ff$aa");
    assert!(text.contains("\nrpcport=28555\n") && text.contains("\nrpcauth=devnet:00ff$aa\n"), "{text}");
}

#[test]
fn nodes_find_it_by_its_port_and_its_cookie() {
    let bitcoin = DevBitcoin::new(Path::new("/devnet/bitcoind"), 28_555);
    let config = bitcoin.node_config();
    assert_eq!(config.endpoints, ["127.0.0.1:28555".parse().unwrap()]);
    assert_eq!((config.cookie, config.header_delay_s), ("/devnet/bitcoind/regtest/.cookie".into(), 0));
}
