use std::fs;

use super::*;

#[test]
fn a_new_home_is_for_its_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::at(directory.path().join("a/b"));
    drop(home.create().unwrap());
    for path in [home.path().to_owned(), home.keys(), home.data(), home.evidence()] {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, DIRECTORY_MODE, "{}", path.display());
    }

    // An empty directory, such as a mounted volume, becomes a home.
    let empty = Home::at(directory.path().join("empty"));
    fs::create_dir(empty.path()).unwrap();
    drop(empty.create().unwrap());
    assert_eq!(fs::metadata(empty.path()).unwrap().permissions().mode() & 0o7777, DIRECTORY_MODE);
}

#[test]
fn what_exists_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("home");
    fs::write(&path, "a file").unwrap();
    assert!(matches!(Home::at(&path).create(), Err(HomeError::Exists { .. })));
    assert_eq!(fs::read(&path).unwrap(), b"a file");
    fs::remove_file(&path).unwrap();

    fs::create_dir(&path).unwrap();
    fs::write(path.join("notes"), "mine").unwrap();
    assert!(matches!(Home::at(&path).create(), Err(HomeError::Exists { .. })));
    assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
}

#[test]
fn one_process_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::at(directory.path().join("home"));
    let first = home.create().unwrap();
    let error = home.lock().unwrap_err();
    let pid = std::process::id();
    assert!(
        error.to_string().contains(&format!("another causeway runs on {} (pid {pid})", home.path().display())),
        "{error}"
    );
    drop(first);
    assert!(home.lock().is_ok());
}

#[test]
fn a_half_made_home_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::at(directory.path().join("home"));
    assert!(matches!(home.check_present(), Err(HomeError::NotAHome { .. })));
    assert!(matches!(home.lock(), Err(HomeError::NotAHome { .. })));
    drop(home.create().unwrap());
    let error = home.check_present().unwrap_err();
    assert!(error.to_string().contains("causeway init"), "{error}");
    home.write_new(&home.chainspec(), "").unwrap();
    home.write_new(&home.config(), "").unwrap();
    assert!(home.check_present().is_ok());
    assert!(home.write_new(&home.config(), "").is_err());
}
