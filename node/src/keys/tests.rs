use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

const SECRET: [u8; 32] = [0x42; 32];

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn keys_come_back_from_their_files() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("validator.key");
    let key = ValidatorKey::generate().unwrap();
    key.store_new(&path).unwrap();
    assert_eq!(ValidatorKey::load(&path).unwrap().public_key(), key.public_key());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_ne!(ValidatorKey::generate().unwrap().public_key(), key.public_key());

    let path = home.path().join("node.key");
    let made = new_node_key(&path).unwrap();
    assert_eq!(load_node_key(&path).unwrap().public(), made.public());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
}

#[test]
fn a_key_file_is_never_written_over() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("validator.key");
    let key = ValidatorKey::from_bytes(&SECRET).unwrap();
    key.store_new(&path).unwrap();
    let before = fs::read(&path).unwrap();
    assert!(matches!(
        ValidatorKey::generate().unwrap().store_new(&path),
        Err(KeyFileError::File(PrivateFileError::Exists { .. }))
    ));
    assert!(matches!(new_node_key(&path), Err(KeyFileError::File(PrivateFileError::Exists { .. }))));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("validator.key");
    ValidatorKey::from_bytes(&SECRET).unwrap().store_new(&path).unwrap();
    for mode in [0o640, 0o604, 0o660, 0o666, 0o601, 0o610] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = ValidatorKey::load(&path).unwrap_err();
        assert!(
            matches!(error, KeyFileError::File(PrivateFileError::Exposed { mode: found, .. }) if found == mode),
            "{error}"
        );
        assert!(error.to_string().contains(&format!("chmod 600 {}", path.display())));
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    assert!(ValidatorKey::load(&path).is_ok());
}

#[test]
fn a_key_of_another_user_is_refused() {
    // Only root can make one.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("validator.key");
    ValidatorKey::from_bytes(&SECRET).unwrap().store_new(&path).unwrap();
    std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
    assert!(matches!(
        ValidatorKey::load(&path),
        Err(KeyFileError::File(PrivateFileError::OtherOwner { owner: 12_345, .. }))
    ));
}

#[test]
fn what_is_no_key_is_refused_and_not_told() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("validator.key");
    let good = "42".repeat(32);
    for text in [good.clone(), format!("# comment\n\n  {good}  \n# more\n"), good.to_uppercase()] {
        write(&path, &text);
        assert!(ValidatorKey::load(&path).is_ok(), "{text}");
    }
    let above_order = "ff".repeat(32);
    let zero = "00".repeat(32);
    let long = format!("{good}\n{}", "#".repeat(5_000));
    for text in
        ["", "# nothing", &good[..62], &format!("{good}42"), &format!("{good}\n{good}"), &zero, &above_order, &long]
    {
        write(&path, text);
        let error = ValidatorKey::load(&path).unwrap_err();
        assert!(matches!(error, KeyFileError::Malformed { .. }), "{text}: {error}");
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("4242") && !shown.contains("ffff"), "{shown}");
    }
    fs::write(&path, [0xff; 40]).unwrap();
    assert!(matches!(ValidatorKey::load(&path), Err(KeyFileError::Malformed { .. })));
    assert!(matches!(ValidatorKey::load(home.path()), Err(KeyFileError::File(PrivateFileError::NotAFile { .. }))));
    let missing = ValidatorKey::load(&home.path().join("other.key")).unwrap_err();
    assert!(missing.to_string().contains("restore it from your backup"), "{missing}");
}

#[test]
fn a_key_is_not_shown() {
    let shown = format!("{:?}", ValidatorKey::from_bytes(&SECRET).unwrap());
    assert!(!shown.contains("4242"), "{shown}");
}
