use std::os::unix::fs::PermissionsExt;

use super::*;

fn file(content: &[u8], mode: u32) -> (tempfile::TempDir, PassphraseSource) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("passphrase");
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    (home, PassphraseSource::File(path))
}

#[test]
fn the_first_line_of_a_private_file_is_the_passphrase() {
    for content in ["several random words", "several random words\n", "several random words\r\nand more\n"] {
        let (_home, source) = file(content.as_bytes(), 0o600);
        assert_eq!(Passphrase::get(&source).unwrap().as_bytes(), b"several random words");
        assert_eq!(Passphrase::get_new(&source).unwrap().as_bytes(), b"several random words");
    }
}

#[test]
fn what_is_no_passphrase_is_named() {
    let get = |content: &[u8], mode| {
        let (_home, source) = file(content, mode);
        Passphrase::get(&source).unwrap_err()
    };
    assert!(matches!(get(b"", 0o600), PassphraseError::Empty));
    assert!(matches!(get(b"\nsecond", 0o600), PassphraseError::Empty));
    assert!(matches!(get(&[0xff, 0xfe], 0o600), PassphraseError::Empty));
    assert!(matches!(get(&[0xef, 0xbb, 0xbf], 0o600), PassphraseError::Empty));
    assert!(matches!(get(&[0xff, 0xfe, b'a'], 0o600), PassphraseError::NotText));
    assert!(matches!(get(b"latin caf\xe9", 0o600), PassphraseError::NotText));
    assert!(matches!(get(&vec![b'a'; BYTES_MAX + 1], 0o600), PassphraseError::TooLong));
    assert!(matches!(get(&vec![b'a'; 100_000], 0o600), PassphraseError::TooLong));
    let exposed = get(b"several random words", 0o644);
    assert!(
        matches!(exposed, PassphraseError::File(error) if matches!(*error, crate::files::PrivateFileError::Exposed { .. }))
    );
    let (_home, short) = file(b"too short", 0o600);
    assert!(matches!(Passphrase::get_new(&short), Err(PassphraseError::TooShort)));
    Passphrase::get(&short).unwrap();
    let unset = PassphraseSource::Variable("CAUSEWAY_TEST_THAT_NOBODY_SETS".to_owned());
    assert!(matches!(Passphrase::get(&unset), Err(PassphraseError::NoVariable { .. })));
    // One that cargo sets.
    let set = PassphraseSource::Variable("CARGO_PKG_NAME".to_owned());
    assert_eq!(Passphrase::get(&set).unwrap().as_bytes(), b"causeway-federation");
}

#[test]
fn a_passphrase_is_the_same_whatever_an_editor_or_a_keyboard_makes_of_it() {
    let normal = "cafe\u{301} noir et un the\u{301}";
    let typed = "caf\u{e9}\u{a0}noir et un th\u{e9}";
    let utf16 =
        |bytes: fn(u16) -> [u8; 2]| format!("\u{feff}{typed}\r\n").encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
    for content in [
        typed.as_bytes().to_vec(),
        normal.as_bytes().to_vec(),
        format!("\u{feff}{typed}\r\nmore").into_bytes(),
        utf16(u16::to_le_bytes),
        utf16(u16::to_be_bytes),
    ] {
        let (_home, source) = file(&content, 0o600);
        let passphrase = Passphrase::get_new(&source).unwrap();
        assert_eq!(passphrase.as_bytes(), normal.as_bytes());
        assert!(passphrase.forms().count() <= 5);
    }
    let (_home, ascii) = file(b"several random words", 0o600);
    assert_eq!(Passphrase::get(&ascii).unwrap().forms().count(), 1);
    // Eleven letters, whose accents are no letters of their own.
    let (_home, short) = file("\u{e9}".repeat(11).as_bytes(), 0o600);
    assert!(matches!(Passphrase::get_new(&short), Err(PassphraseError::TooShort)));
}
