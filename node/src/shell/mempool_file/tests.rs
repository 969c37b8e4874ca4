use super::*;
use crate::testing::{Bench, COIN, pay};

#[test]
fn the_pool_comes_back() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("mempool.dat");
    assert_eq!(load(&path, 1_000_000).unwrap(), []);
    let mut bench = Bench::new();
    for _ in 0..3 {
        let coin = bench.coin();
        bench.add(&pay(&[coin], &[COIN - 1_000]));
        save(&path, &bench.pool).unwrap();
        let loaded = load(&path, bench.pool.memory()).unwrap();
        assert_eq!(loaded.len(), bench.pool.entries().count());
    }
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1);
}

#[test]
fn a_file_that_is_too_large_or_damaged_is_not_used() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("mempool.dat");
    std::fs::write(&path, vec![0; SNAPSHOT_OVERHEAD_BYTES + 101]).unwrap();
    let error = load(&path, 100).unwrap_err();
    assert!(matches!(error, MempoolFileError::Unusable { source: SnapshotError::TooLong { .. }, .. }), "{error}");
    let error = load(&path, 101).unwrap_err();
    assert!(matches!(error, MempoolFileError::Unusable { source: SnapshotError::NotASnapshot, .. }), "{error}");
}
