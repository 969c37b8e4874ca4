use std::os::unix::fs::PermissionsExt as _;

use super::*;

const MAGIC: [u8; 4] = *b"TEST";
const CHEAP: Cost = Cost { memory_kib: 64, passes: 1, lanes: 1 };

fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(Zeroizing::new(text.to_owned())).unwrap()
}

fn new_file(content: &[u8]) -> (tempfile::TempDir, PathBuf, SealedFile) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("wallet");
    let file = SealedFile::create_with(&path, MAGIC, &passphrase("right"), content, CHEAP).unwrap();
    (directory, path, file)
}

fn open(path: &Path, text: &str) -> Result<Vec<u8>, SealedFileError> {
    SealedFile::open(path, MAGIC, &passphrase(text)).map(|(_, content)| content.to_vec())
}

#[test]
fn what_was_saved_last_comes_back() {
    let (_directory, path, file) = new_file(b"first");
    file.save(b"second, which is longer").unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let bytes = std::fs::read(&path).unwrap();
    assert!(!bytes.windows(6).any(|window| window == b"second"));
    file.save(b"second, which is longer").unwrap();
    assert_ne!(std::fs::read(&path).unwrap(), bytes, "every saving has a nonce of its own");
    drop(file);
    assert_eq!(open(&path, "right").unwrap(), b"second, which is longer");
    let (file, _) = SealedFile::open(&path, MAGIC, &passphrase("right")).unwrap();
    file.save(b"").unwrap();
    drop(file);
    assert_eq!(open(&path, "right").unwrap(), b"");
}

#[test]
fn it_opens_by_every_unicode_form_of_its_passphrase() {
    let directory = tempfile::tempdir().unwrap();
    let (composed, decomposed) = ("caf\u{e9} noir", "cafe\u{301} noir");
    let sealed = [passphrase(composed), Passphrase::as_given(composed), Passphrase::as_given(decomposed)];
    for (number, by) in sealed.iter().enumerate() {
        let path = directory.path().join(number.to_string());
        drop(SealedFile::create_with(&path, MAGIC, by, b"content", CHEAP).unwrap());
        for typed in [composed, decomposed] {
            assert_eq!(open(&path, typed).unwrap(), b"content", "{number} {typed:?}");
            // It is saved under the key that opened it.
            let (file, _) = SealedFile::open(&path, MAGIC, &passphrase(typed)).unwrap();
            file.save(b"content").unwrap();
        }
        assert!(matches!(open(&path, "cafe noir"), Err(SealedFileError::WrongPassphrase { .. })));
    }
}

#[test]
fn two_processes_do_not_share_it() {
    let (_directory, path, file) = new_file(b"content");
    let pid = std::process::id().to_string();
    assert!(matches!(open(&path, "right"), Err(SealedFileError::InUse { pid: by, .. }) if by == pid));
    drop(file);
    open(&path, "right").unwrap();
}

#[test]
fn another_passphrase_kind_or_version_is_told_apart_from_damage() {
    let (directory, path, file) = new_file(b"content");
    drop(file);
    assert!(matches!(open(&path, "wrong"), Err(SealedFileError::WrongPassphrase { .. })));
    let other = SealedFile::open(&path, *b"OTHR", &passphrase("right"));
    assert!(matches!(other, Err(SealedFileError::Damaged { .. })));
    let missing = directory.path().join("none");
    assert!(matches!(open(&missing, "right"), Err(SealedFileError::Missing { .. })));
    let again = SealedFile::create_with(&path, MAGIC, &passphrase("right"), b"", CHEAP);
    assert!(matches!(again, Err(SealedFileError::Exists { .. })));

    let good = std::fs::read(&path).unwrap();
    for position in 0..good.len() {
        let mut bad = good.clone();
        bad[position] ^= 1;
        std::fs::write(&path, bad).unwrap();
        assert!(matches!(open(&path, "right"), Err(SealedFileError::Damaged { .. })), "byte {position}");
    }
    for length in 0..good.len() {
        std::fs::write(&path, &good[..length]).unwrap();
        assert!(matches!(open(&path, "right"), Err(SealedFileError::Damaged { .. })), "{length} bytes");
    }
    let checked = |mut body: Vec<u8>| {
        body.truncate(good.len() - CHECKSUM_BYTES);
        let checksum = tagged_hash(CHECKSUM_TAG, &[&body]);
        body.extend_from_slice(&checksum);
        body
    };
    let mut version = good.clone();
    version[4] = 2;
    std::fs::write(&path, checked(version)).unwrap();
    assert!(matches!(open(&path, "right"), Err(SealedFileError::OtherFormat { found: 2, .. })));
    // A header that asks for all memory is refused before any is taken.
    let mut costly = good.clone();
    costly[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    std::fs::write(&path, checked(costly)).unwrap();
    assert!(matches!(open(&path, "right"), Err(SealedFileError::Damaged { .. })));
    // The header is authenticated, beside the checksum that anybody can make.
    let mut nonce = good.clone();
    nonce[8 + 12 + SALT_BYTES] ^= 1;
    std::fs::write(&path, checked(nonce)).unwrap();
    assert!(matches!(open(&path, "right"), Err(SealedFileError::WrongPassphrase { .. })));
    std::fs::write(&path, &good).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(open(&path, "right"), Err(SealedFileError::File { .. })));
}

#[test]
fn nothing_secret_is_printed() {
    let (_directory, _, file) = new_file(b"content");
    assert!(!format!("{file:?}").contains("key"));
}
