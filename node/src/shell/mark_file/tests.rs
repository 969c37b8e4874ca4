use std::fs;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::*;
use crate::shell::files::testing::FakeDisk;

fn chain(fill: u8) -> ChainId {
    ChainId::from_byte_array([fill; 32])
}

const VALIDATOR: Address = Address([7; 32]);

/// Marks that go up with the height.
fn mark(height: u32) -> HighWaterMark {
    HighWaterMark::barrier(chain(1), VALIDATOR, Height(height))
}

struct Keys {
    directory: TempDir,
}

impl Keys {
    /// A home with a key and no mark.
    fn new() -> Self {
        let keys = Self { directory: tempfile::tempdir().unwrap() };
        fs::create_dir(keys.home()).unwrap();
        fs::create_dir(keys.home().join("keys")).unwrap();
        fs::write(keys.key(), b"a key").unwrap();
        keys
    }

    fn with_mark() -> Self {
        let keys = Self::new();
        drop(MarkFile::create(&keys.mark(), &keys.key(), chain(1), VALIDATOR).unwrap());
        keys
    }

    fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    fn mark(&self) -> PathBuf {
        self.home().join("keys/validator.mark")
    }

    fn key(&self) -> PathBuf {
        self.home().join("keys/validator.key")
    }

    fn open(&self) -> Result<MarkFile, MarkFileError> {
        MarkFile::open(&self.mark(), &self.key(), chain(1), VALIDATOR)
    }

    fn adopt(&self, above: u32) -> Result<MarkFile, MarkFileError> {
        MarkFile::adopt(&self.mark(), &self.key(), chain(1), VALIDATOR, Height(above))
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.mark()).unwrap()
    }
}

#[test]
fn the_last_mark_comes_back() {
    let keys = Keys::with_mark();
    assert_eq!(keys.open().unwrap().mark(), &HighWaterMark::never_signed(chain(1), VALIDATOR));
    for height in 101..110 {
        let mut file = keys.open().unwrap();
        file.write(&mark(height)).unwrap();
        // Again changes nothing.
        file.write(&mark(height)).unwrap();
        assert_eq!(file.mark(), &mark(height));
        drop(file);
        assert_eq!(keys.open().unwrap().mark(), &mark(height));
        assert_eq!(MarkFile::peek(&keys.mark(), chain(1), VALIDATOR).unwrap(), mark(height));
    }
    assert_eq!(keys.bytes().len(), FILE_BYTES);
    assert_eq!(fs::metadata(keys.mark()).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_mark_is_made_once() {
    let keys = Keys::with_mark();
    keys.open().unwrap().write(&mark(101)).unwrap();
    let again = MarkFile::create(&keys.mark(), &keys.key(), chain(1), VALIDATOR);
    assert!(matches!(again, Err(MarkFileError::Exists { .. })));
    assert_eq!(keys.open().unwrap().mark(), &mark(101));
}

#[test]
fn a_mark_never_goes_down() {
    let keys = Keys::with_mark();
    let other_key = HighWaterMark::barrier(chain(1), Address([8; 32]), Height(200));
    let other_chain = HighWaterMark::barrier(chain(2), VALIDATOR, Height(200));
    for wrong in [mark(100), HighWaterMark::never_signed(chain(1), VALIDATOR), other_key, other_chain] {
        let mut file = keys.open().unwrap();
        if file.mark() != &mark(101) {
            file.write(&mark(101)).unwrap();
        }
        assert!(matches!(file.write(&wrong), Err(MarkFileError::GoesBack { .. })));
        assert!(matches!(file.write(&mark(102)), Err(MarkFileError::Stopped { .. })));
        drop(file);
        assert_eq!(keys.open().unwrap().mark(), &mark(101));
    }
}

#[test]
fn a_write_that_is_cut_off_leaves_the_old_mark_or_the_new_one() {
    let keys = Keys::with_mark();
    let mut before = (keys.bytes(), HighWaterMark::never_signed(chain(1), VALIDATOR));
    for height in 101..105 {
        keys.open().unwrap().write(&mark(height)).unwrap();
        let after = keys.bytes();
        let slot = if before.0[..SLOT_BYTES] == after[..SLOT_BYTES] { SLOT_BYTES } else { 0 };
        let newest = |bytes: &[u8]| Slot::newest(bytes, &keys.mark()).unwrap().mark;
        for length in 0..=SLOT_BYTES {
            let mut torn = before.0.clone();
            torn[slot..slot + length].copy_from_slice(&after[slot..slot + length]);
            let found = newest(&torn);
            assert!(found == before.1 || found == mark(height), "{length}");
            assert!(length < BODY + 32 || found == mark(height), "{length}");
        }
        // Sectors in any order.
        for sectors in 0_u32..256 {
            let mut torn = before.0.clone();
            for sector in (0..8).filter(|sector| sectors >> sector & 1 == 1) {
                let range = slot + 512 * sector..slot + 512 * (sector + 1);
                torn[range.clone()].copy_from_slice(&after[range]);
            }
            let found = newest(&torn);
            assert!(found == before.1 || found == mark(height), "{sectors:b}");
        }
        before = (after, mark(height));
    }
}

#[test]
fn damage_to_both_copies_is_refused_and_to_one_is_not() {
    let keys = Keys::with_mark();
    keys.open().unwrap().write(&mark(101)).unwrap();
    keys.open().unwrap().write(&mark(102)).unwrap();
    let whole = keys.bytes();
    for bit in (0..(BODY + 32) * 8).step_by(7) {
        let flip = |slot: usize, bytes: &mut Vec<u8>| bytes[slot + bit / 8] ^= 1 << (bit % 8);
        for slot in [0, SLOT_BYTES] {
            let mut one = whole.clone();
            flip(slot, &mut one);
            let found = Slot::newest(&one, &keys.mark()).unwrap().mark;
            assert!(found == mark(101) || found == mark(102));
        }
        let mut both = whole.clone();
        flip(0, &mut both);
        flip(SLOT_BYTES, &mut both);
        fs::write(keys.mark(), &both).unwrap();
        assert!(matches!(keys.open(), Err(MarkFileError::Damaged { .. })), "bit {bit}");
        assert_eq!(keys.bytes(), both);
    }
    for length in [0, 1, BODY, SLOT_BYTES - 1, SLOT_BYTES, FILE_BYTES - 1] {
        assert!(Slot::newest(&whole[..length], &keys.mark()).is_err(), "{length}");
    }
    // Too long, or two marks that did not follow each other.
    fs::write(keys.mark(), [&whole[..], &[0]].concat()).unwrap();
    assert!(matches!(keys.open(), Err(MarkFileError::Damaged { .. })));
    fs::write(keys.mark(), [&whole[..SLOT_BYTES], &whole[..SLOT_BYTES]].concat()).unwrap();
    assert!(matches!(keys.open(), Err(MarkFileError::Damaged { .. })));
}

#[test]
fn a_copy_is_refused_and_a_moved_home_is_not() {
    let keys = Keys::with_mark();
    keys.open().unwrap().write(&mark(101)).unwrap();

    let moved = keys.directory.path().join("moved");
    fs::rename(keys.home(), &moved).unwrap();
    let (mark_path, key_path) = (moved.join("keys/validator.mark"), moved.join("keys/validator.key"));
    assert_eq!(MarkFile::open(&mark_path, &key_path, chain(1), VALIDATOR).unwrap().mark(), &mark(101));

    // A copy of both, of the mark alone, and of the key alone.
    fs::create_dir_all(keys.home().join("keys")).unwrap();
    let copied = |from: &Path, to: &Path| {
        fs::copy(from, to).unwrap();
        to.to_owned()
    };
    let (mark_copy, key_copy) = (copied(&mark_path, &keys.mark()), copied(&key_path, &keys.key()));
    for (mark_path, key_path) in [(&mark_copy, &key_copy), (&mark_copy, &key_path), (&mark_path, &key_copy)] {
        let error = MarkFile::open(mark_path, key_path, chain(1), VALIDATOR).unwrap_err();
        assert!(matches!(error, MarkFileError::Copied { .. }), "{error}");
        assert!(error.to_string().contains("causeway keys adopt --home"));
        assert_eq!(MarkFile::peek(mark_path, chain(1), VALIDATOR).unwrap(), mark(101));
    }

    // Restored in its old place, it is a copy too.
    let backup = keys.bytes();
    fs::remove_file(&mark_path).unwrap();
    fs::write(&mark_path, backup).unwrap();
    fs::set_permissions(&mark_path, fs::Permissions::from_mode(0o600)).unwrap();
    let restored = MarkFile::open(&mark_path, &key_path, chain(1), VALIDATOR);
    assert!(matches!(restored, Err(MarkFileError::Copied { .. })), "{restored:?}");
}

#[test]
fn an_adopted_key_signs_only_above() {
    let keys = Keys::with_mark();
    keys.open().unwrap().write(&mark(150)).unwrap();
    assert!(matches!(keys.adopt(149), Err(MarkFileError::BarrierTooLow { .. })));
    assert_eq!(keys.open().unwrap().mark(), &mark(150));

    // A copy becomes the original.
    let bytes = keys.bytes();
    fs::rename(keys.mark(), keys.home().join("old")).unwrap();
    create_private(&keys.mark(), &bytes);
    assert!(matches!(keys.open(), Err(MarkFileError::Copied { .. })));
    assert_eq!(keys.adopt(160).unwrap().mark(), &mark(160));
    keys.open().unwrap().write(&mark(161)).unwrap();
    assert_eq!(keys.open().unwrap().mark(), &mark(161));
}

#[test]
fn a_lost_or_damaged_mark_can_be_replaced_by_a_barrier() {
    let keys = Keys::with_mark();
    keys.open().unwrap().write(&mark(150)).unwrap();
    fs::remove_file(keys.mark()).unwrap();
    assert!(matches!(keys.open(), Err(MarkFileError::Missing { .. })));
    assert_eq!(keys.adopt(200).unwrap().mark(), &mark(200));

    let whole = keys.bytes();
    let twice = [&whole[..SLOT_BYTES], &whole[..SLOT_BYTES]].concat();
    for damaged in [vec![], vec![1; FILE_BYTES], vec![2; FILE_BYTES + 1], twice] {
        fs::write(keys.mark(), &damaged).unwrap();
        assert!(matches!(keys.open(), Err(MarkFileError::Damaged { .. })));
        drop(keys.adopt(300).unwrap());
        assert_eq!(keys.open().unwrap().mark(), &mark(300));
        keys.open().unwrap().write(&mark(301)).unwrap();
        keys.open().unwrap().write(&mark(302)).unwrap();
        assert_eq!(keys.open().unwrap().mark(), &mark(302));
    }
    // The operator's word does not turn one key's mark into another's.
    let other = MarkFile::adopt(&keys.mark(), &keys.key(), chain(1), Address([8; 32]), Height(400));
    assert!(matches!(other, Err(MarkFileError::OtherKey { .. })));
}

#[test]
fn another_chain_key_or_format_is_refused() {
    let keys = Keys::with_mark();
    let open = |chain, validator| MarkFile::open(&keys.mark(), &keys.key(), chain, validator);
    assert!(matches!(open(chain(2), VALIDATOR), Err(MarkFileError::OtherChain { .. })));
    assert!(matches!(open(chain(1), Address([8; 32])), Err(MarkFileError::OtherKey { .. })));
    let mut bytes = keys.bytes();
    bytes[4] = 2;
    let sum = tagged_hash(TAG, &[&bytes[..BODY]]);
    bytes[BODY..BODY + 32].copy_from_slice(&sum);
    fs::write(keys.mark(), bytes).unwrap();
    assert!(matches!(keys.open(), Err(MarkFileError::OtherFormat { found: 2, .. })));
    assert!(matches!(keys.adopt(500), Err(MarkFileError::OtherFormat { found: 2, .. })));
}

#[test]
fn two_processes_do_not_share_a_mark() {
    let keys = Keys::with_mark();
    let _first = keys.open().unwrap();
    assert!(matches!(keys.open(), Err(MarkFileError::InUse { .. })));
    assert!(matches!(keys.adopt(900), Err(MarkFileError::InUse { .. })));
    assert!(MarkFile::peek(&keys.mark(), chain(1), VALIDATOR).is_ok());
}

#[test]
fn a_mark_that_others_can_write_is_refused() {
    let keys = Keys::with_mark();
    fs::set_permissions(keys.mark(), fs::Permissions::from_mode(0o620)).unwrap();
    let error = keys.open().unwrap_err();
    assert!(error.to_string().contains("chmod 600"), "{error}");
}

#[test]
fn after_a_failure_nothing_is_acknowledged() {
    let keys = Keys::with_mark();
    for lives in 0..6 {
        let MarkFile { places, sequence, mark: start, .. } = keys.open().unwrap();
        let disk = FakeDisk { bytes: keys.bytes(), synced: keys.bytes(), lives: Some(lives), operations: 0 };
        let path = keys.mark();
        let mut file = MarkFile { disk, path: path.clone(), places, sequence, mark: start.clone(), stopped: false };
        let mut acknowledged = start;
        let mut failed = false;
        for height in 101..105 {
            match file.write(&mark(height)) {
                Ok(()) => {
                    assert!(!failed);
                    acknowledged = mark(height);
                }
                Err(MarkFileError::Io { .. }) => assert!(!std::mem::replace(&mut failed, true)),
                Err(MarkFileError::Stopped { .. }) => assert!(failed),
                Err(error) => panic!("{error}"),
            }
        }
        assert!(failed);
        assert_eq!(file.mark(), &acknowledged);
        assert_eq!(Slot::newest(&file.disk.synced, &path).unwrap().mark, acknowledged);
        // What the failed write left does not hide the acknowledged mark.
        assert!(Slot::newest(&file.disk.bytes, &path).unwrap().mark.position() >= acknowledged.position());
    }
}

fn create_private(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}
