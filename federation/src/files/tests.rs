use std::os::unix::fs::PermissionsExt;

use super::*;

#[test]
fn a_replaced_file_is_old_or_new_and_leaves_nothing_behind() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("file");
    for content in [&b"one"[..], b"two"] {
        // What an earlier crash left is no hindrance.
        std::fs::write(home.path().join("file.new"), b"half").unwrap();
        replace(&path, 0o600, content).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), content);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1);
    assert!(create_new(&path, 0o600, b"three").is_err());
    assert!(matches!(create_private(&path, b"three"), Err(PrivateFileError::Exists { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"two");
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1);
}

#[test]
fn reading_stops_at_the_bound() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("file");
    std::fs::write(&path, [7; 10]).unwrap();
    let bounded = |max| read_bounded(&File::open(&path).unwrap(), max).unwrap();
    assert_eq!(bounded(10), Some(vec![7; 10]));
    assert_eq!(bounded(9), None);
    assert_eq!(read(&path, 9).unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert_eq!(read(&home.path().join("none"), 9).unwrap(), None);
}

#[test]
fn texts_are_small_and_texts() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("file");
    std::fs::write(&path, "12345").unwrap();
    assert_eq!(read_text(&path, 5).unwrap(), "12345");
    assert!(matches!(read_text(&path, 4), Err(TextFileError::TooLarge { max: 4, .. })));
    assert!(matches!(read_chainspec(&path), Err(TextFileError::ChainSpec { .. })));
    std::fs::write(&path, [0xff]).unwrap();
    assert!(matches!(read_text(&path, 4), Err(TextFileError::NotText { .. })));
    assert!(read_chainspec(&home.path().join("none")).unwrap_err().is_missing());
}

#[test]
fn a_lock_has_one_holder_who_is_named() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("LOCK");
    let lock = Lock::take(&path, 0o644).unwrap();
    let Err(LockError::Held { pid }) = Lock::take(&path, 0o644) else { panic!("taken twice") };
    assert_eq!(pid, std::process::id().to_string());
    drop(lock);
    Lock::take(&path, 0o644).unwrap();
}
