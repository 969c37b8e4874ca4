//! Replays the fuzzer's corpus: what was found once is never lost again.

use std::path::Path;

use causeway_fuzz::{Outcome, chainspec_toml, check_block, evidence, parse_block};

/// Replays a target's corpus and asserts that it has at least so many files that are accepted and refused.
fn replay(target: &str, body: fn(&[u8]) -> Outcome, accepted: usize, refused: usize) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut outcomes = Vec::new();
    for entry in std::fs::read_dir(directory).expect("the corpus is there") {
        let path = entry.expect("the directory can be read").path();
        eprintln!("{}", path.display());
        outcomes.push(body(&std::fs::read(path).expect("the file can be read")));
    }
    let count = |outcome| outcomes.iter().filter(|seen| **seen == outcome).count();
    let counted = (count(Outcome::Accepted), count(Outcome::Refused));
    assert!(counted.0 >= accepted && counted.1 >= refused, "{target}: {counted:?}");
}

#[test]
fn blocks_are_parsed() {
    replay("parse_block", parse_block, 8, 25);
}

#[test]
fn blocks_are_checked() {
    replay("check_block", check_block, 14, 27);
}

#[test]
fn chainspecs_are_read() {
    replay("chainspec_toml", chainspec_toml, 2, 15);
}

#[test]
fn evidence_is_decoded() {
    replay("evidence", evidence, 9, 20);
}
