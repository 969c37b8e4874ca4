use std::os::unix::fs::{PermissionsExt, symlink};

use tempfile::TempDir;

use super::*;

/// So that tests derive in a millisecond.
const CHEAP: Cost = Cost { memory_kib: 64, passes: 1, lanes: 1 };

fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(Zeroizing::new(text.to_owned())).unwrap()
}

fn stored() -> (TempDir, PathBuf, MemberKeys) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("member.key");
    let keys = MemberKeys::generate().unwrap();
    keys.store_with(&path, &passphrase("right"), CHEAP).unwrap();
    (home, path, keys)
}

fn with_checksum(mut body: Vec<u8>) -> Vec<u8> {
    let checksum = tagged_hash(CHECKSUM_TAG, &[&body]);
    body.extend_from_slice(&checksum);
    body
}

#[test]
fn keys_come_back_as_they_were() {
    let (home, path, keys) = stored();
    let open = OpenKeys::open(&path, &passphrase("right")).unwrap();
    assert_eq!(open.keys().public(), keys.public());
    assert_eq!(*open.keys().member.to_bytes(), *keys.member.to_bytes());
    assert_eq!(*open.keys().identity.to_bytes(), *keys.identity.to_bytes());
    assert_eq!(read_public_keys(&path).unwrap(), keys.public());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), FILE_BYTES as u64);
    // The key and its lock, nothing else.
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 2);
    // Neither secret stands in it.
    let bytes = std::fs::read(&path).unwrap();
    for secret in [keys.member.to_bytes(), keys.identity.to_bytes()] {
        assert!(!bytes.windows(32).any(|window| window == *secret));
    }
}

#[test]
fn the_cost_that_is_used_opens_what_it_sealed() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("member.key");
    let keys = MemberKeys::generate().unwrap();
    keys.store_new(&path, &passphrase("right")).unwrap();
    assert_eq!(verify_backup(&path, &passphrase("right")).unwrap(), keys.public());
    assert!(Cost::DEFAULT.is_bounded());
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(Sealed::parse(&bytes).unwrap().cost, Cost::DEFAULT);
}

#[test]
fn a_key_file_is_never_overwritten() {
    let (home, path, _) = stored();
    let before = std::fs::read(&path).unwrap();
    let other = MemberKeys::generate().unwrap();
    // What an earlier crash left is no hindrance, and no way in.
    std::fs::write(home.path().join("member.key.new"), b"half").unwrap();
    let again = other.store_with(&path, &passphrase("right"), CHEAP);
    assert!(matches!(again, Err(KeystoreError::File(PrivateFileError::Exists { .. }))));
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert!(!home.path().join("member.key.new").exists());
}

#[test]
fn a_wrong_passphrase_is_not_damage() {
    let (_home, path, keys) = stored();
    let wrong = verify_backup(&path, &passphrase("wrong"));
    assert!(matches!(wrong, Err(KeystoreError::WrongPassphrase { .. })));
    assert_eq!(verify_backup(&path, &passphrase("right")).unwrap(), keys.public());
}

#[test]
fn a_passphrase_opens_the_file_in_every_unicode_form() {
    let home = tempfile::tempdir().unwrap();
    let keys = MemberKeys::generate().unwrap();
    let (composed, decomposed) = ("caf\u{e9} \u{fb01}", "cafe\u{301} \u{fb01}");
    // Sealed by this build, and by one that took what it was given, with the mark of an editor or without.
    let marked = format!("\u{feff}{composed}");
    let sealed = [
        passphrase(composed),
        passphrase(decomposed),
        Passphrase::as_given(composed),
        Passphrase::as_given(decomposed),
        Passphrase::as_given(&marked),
    ];
    for (number, by) in sealed.iter().enumerate() {
        let path = home.path().join(number.to_string());
        keys.store_with(&path, by, CHEAP).unwrap();
        for typed in [composed, decomposed, &marked] {
            if number == 4 && typed != marked {
                continue;
            }
            assert_eq!(verify_backup(&path, &passphrase(typed)).unwrap(), keys.public(), "{number} {typed:?}");
        }
        let wrong = verify_backup(&path, &passphrase("cafe \u{fb01}"));
        assert!(matches!(wrong, Err(KeystoreError::WrongPassphrase { .. })));
    }
}

#[test]
fn every_damaged_byte_is_seen() {
    let (_home, path, _) = stored();
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(verify_backup(&path, &passphrase("right")), Err(KeystoreError::Damaged { .. })), "{at}");
        assert!(read_public_keys(&path).is_err());
    }
    for length in [0, 1, 31, 32, 100, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert!(matches!(verify_backup(&path, &passphrase("right")), Err(KeystoreError::Damaged { .. })), "{length}");
    }
    std::fs::write(&path, vec![7; 100_000]).unwrap();
    assert!(matches!(verify_backup(&path, &passphrase("right")), Err(KeystoreError::Damaged { .. })));
}

/// Whoever can write the file, and make its checksum, still cannot change what it says.
#[test]
fn every_changed_byte_with_a_right_checksum_is_seen() {
    let (_home, path, _) = stored();
    let whole = std::fs::read(&path).unwrap();
    for at in 8..BODY_BYTES {
        let mut body = whole[..BODY_BYTES].to_vec();
        body[at] ^= 1;
        // Not so many passes or lanes that the test takes long.
        if (12..20).contains(&at) && body[at] > 3 {
            continue;
        }
        std::fs::write(&path, with_checksum(body)).unwrap();
        assert!(verify_backup(&path, &passphrase("right")).is_err(), "{at}");
    }
}

#[test]
fn another_version_and_absurd_costs_are_named() {
    let (_home, path, _) = stored();
    let whole = std::fs::read(&path).unwrap();
    let with = |at: usize, number: u32| {
        let mut body = whole[..BODY_BYTES].to_vec();
        body[at..at + 4].copy_from_slice(&number.to_le_bytes());
        std::fs::write(&path, with_checksum(body)).unwrap();
        verify_backup(&path, &passphrase("right")).unwrap_err()
    };
    assert!(matches!(with(4, 2), KeystoreError::OtherFormat { found: 2, .. }));
    for (at, max) in [(8, Cost::MAX.memory_kib), (12, Cost::MAX.passes), (16, Cost::MAX.lanes)] {
        assert!(matches!(with(at, max + 1), KeystoreError::TooCostly { .. }));
        assert!(matches!(with(at, u32::MAX), KeystoreError::TooCostly { .. }));
        assert!(matches!(with(at, 0), KeystoreError::Derivation { .. }));
    }
}

#[test]
fn a_file_that_others_can_read_is_refused() {
    let (home, path, _) = stored();
    for mode in [0o640, 0o604, 0o620, 0o601] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let refused = verify_backup(&path, &passphrase("right"));
        assert!(
            matches!(refused, Err(KeystoreError::File(PrivateFileError::Exposed { mode: found, .. })) if found == mode)
        );
    }
    let missing = home.path().join("missing");
    assert!(matches!(
        verify_backup(&missing, &passphrase("right")),
        Err(KeystoreError::File(PrivateFileError::Missing { .. }))
    ));
    assert!(matches!(
        OpenKeys::open(&missing, &passphrase("right")),
        Err(KeystoreError::File(PrivateFileError::Missing { .. }))
    ));
    assert!(matches!(
        verify_backup(home.path(), &passphrase("right")),
        Err(KeystoreError::File(PrivateFileError::NotAFile { .. }))
    ));
}

#[test]
fn rule_8_one_process_holds_a_key() {
    let (home, path, _) = stored();
    let open = OpenKeys::open(&path, &passphrase("right")).unwrap();
    let pid = std::process::id().to_string();
    let again = OpenKeys::open(&path, &passphrase("right"));
    assert!(matches!(again, Err(KeystoreError::InUse { pid: holder, .. }) if holder == pid));
    // Under another name it is the same key.
    let link = home.path().join("link");
    symlink(&path, &link).unwrap();
    assert!(matches!(OpenKeys::open(&link, &passphrase("right")), Err(KeystoreError::InUse { .. })));
    // Looking at a backup takes no lock.
    verify_backup(&path, &passphrase("right")).unwrap();
    let (_keys, lock) = open.into_parts();
    assert!(matches!(OpenKeys::open(&path, &passphrase("right")), Err(KeystoreError::InUse { .. })));
    drop(lock);
    OpenKeys::open(&path, &passphrase("right")).unwrap();
}

#[test]
fn nothing_secret_is_shown() {
    let (_home, path, keys) = stored();
    let secret = bitcoin::hex::DisplayHex::to_lower_hex_string(&keys.member.to_bytes()[..]);
    let open = OpenKeys::open(&path, &passphrase("right")).unwrap();
    assert!(!format!("{open:?}").contains(&secret));
    let wrong = verify_backup(&path, &passphrase("a wrong one")).unwrap_err();
    assert!(!format!("{wrong} {wrong:?}").contains("a wrong one"));
    assert_eq!(format!("{:?}", passphrase("a wrong one")), "Passphrase");
}
