//! The words of a wallet and its passphrase, as editors and keyboards write them.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const WORDS: &str = "legal winner thank year wave sausage worth useful legal winner thank yellow";

/// Runs the wallet on a file in a directory. Nobody listens at its node.
fn wallet(directory: &Path, file: &str, passphrase: &str, arguments: &[&str]) -> Output {
    let file = directory.join(file).display().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_causeway"));
    command.env("CAUSEWAY_WALLET_PASSPHRASE", passphrase).arg("wallet").args(arguments);
    command.args(["--wallet", &file, "--node", "http://127.0.0.1:1", "--json"]).output().expect("it starts")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_wallet_is_restored_from_a_file_of_any_editor_and_opens_by_any_keyboard() {
    let directory = tempfile::tempdir().expect("a directory");
    let (composed, decomposed) = ("caf\u{e9} noir et un th\u{e9}", "cafe\u{301} noir et un the\u{301}");
    let spaced = format!("\u{feff}{}\r\n", WORDS.replace(' ', "\u{a0}"));
    let numbered: String = WORDS.split(' ').zip(1..).map(|(word, number)| format!("{number:>4} {word}\r\n")).collect();
    let utf16 = |bytes: fn(u16) -> [u8; 2]| spaced.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
    let files = [spaced.clone().into_bytes(), utf16(u16::to_le_bytes), numbered.into_bytes()];
    for (number, content) in files.iter().enumerate() {
        let (words, file) = (directory.path().join("words"), format!("wallet {number}"));
        fs::write(&words, content).expect("writable");
        let words = words.display().to_string();
        let restore = ["restore", "--chain", "devnet", "--mnemonic-file", &words, "--gap", "30"];
        let restored = wallet(directory.path(), &file, composed, &restore);
        assert!(restored.status.success(), "{number}: {}", said(&restored));
        assert!(said(&restored).contains("--rescan --gap 30"), "{}", said(&restored));
        let shown = wallet(directory.path(), &file, decomposed, &["show-mnemonic", "--yes"]);
        assert!(shown.status.success(), "{number}: {}", said(&shown));
        let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).expect("JSON");
        assert_eq!(shown["mnemonic"], WORDS);
    }
    let wrong = wallet(directory.path(), "wallet 0", "cafe noir et un the", &["show-mnemonic", "--yes"]);
    assert!(said(&wrong).contains("passphrase does not open"), "{}", said(&wrong));
}

#[test]
fn what_is_wrong_with_words_is_told_by_their_number() {
    let directory = tempfile::tempdir().expect("a directory");
    let words = directory.path().join("words");
    let path = words.display().to_string();
    for (content, expected) in [
        (WORDS.replacen("legal", "legel", 1), "word 1 is none"),
        (WORDS.replace("yellow", "yelow"), "word 12 is none"),
        (WORDS.replace("yellow", "year"), "together they are no mnemonic"),
        (WORDS.replace(" yellow", ""), "11 words are no mnemonic"),
        (String::new(), "0 words are no mnemonic"),
        ("x ".repeat(20_000), "cannot be read"),
    ] {
        fs::write(&words, content).expect("writable");
        let restore = ["restore", "--chain", "devnet", "--mnemonic-file", &path];
        let refused = wallet(directory.path(), "wallet", "several random words", &restore);
        assert!(!refused.status.success() && said(&refused).contains(expected), "{expected}: {}", said(&refused));
        // No word of it is shown.
        assert!(!said(&refused).contains("winner"), "{}", said(&refused));
    }
    for gap in ["0", "100001", "-1", "many"] {
        let refused =
            wallet(directory.path(), "wallet", "several random words", &["balance", "--rescan", "--gap", gap]);
        assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    }
    assert!(!directory.path().join("wallet").exists());
}
