use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::musig::MemberKey;

fn chain() -> ChainId {
    ChainId::from_byte_array([1; 32])
}

fn member() -> PublicKey {
    MemberKey::from_bytes(&[1; 32]).unwrap().public_key()
}

fn coin(number: u8) -> OutPoint {
    OutPoint { txid: Txid::from_byte_array([number; 32]), vout: number.into() }
}

fn record(task: u8, round: u32) -> AttemptRecord {
    let attempt = AttemptId([u8::try_from(round).unwrap(); 32]);
    AttemptRecord { task: TaskId([task; 32]), txid: Txid::from_byte_array([9; 32]), round, attempt }
}

fn new() -> (TempDir, PathBuf, SigningLog) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("signing.log");
    let log = SigningLog::create(&path, chain(), member()).unwrap();
    (home, path, log)
}

fn reopen(path: &Path) -> Result<SigningLog, SigningLogError> {
    SigningLog::open(path, chain(), member())
}

#[test]
fn a_coin_is_signed_for_in_one_batch_for_ever() {
    let (_home, path, mut log) = new();
    log.claim(1, &[coin(1), coin(2)]).unwrap();
    for _ in 0..2 {
        // Again, and with more coins, in the same batch.
        log.claim(1, &[coin(2), coin(1)]).unwrap();
        log.claim(1, &[coin(2), coin(3)]).unwrap();
        let refused = log.claim(2, &[coin(4), coin(3)]).unwrap_err();
        let SigningLogError::OtherBatch { outpoint, batch: 2, earlier: 1 } = refused else { panic!("{refused}") };
        assert_eq!(outpoint, coin(3));
        // Nothing of what was refused is claimed.
        assert_eq!(log.batch_of(&coin(4)), None);
        assert_eq!(log.batch_of(&coin(3)), Some(1));
        drop(log);
        log = reopen(&path).unwrap();
    }
    assert!(matches!(log.claim(3, &vec![coin(5); INPUTS_MAX + 1]), Err(SigningLogError::TooManyCoins(_))));
}

#[test]
fn rule_7_rounds_go_up_over_restarts() {
    let (_home, path, mut log) = new();
    assert_eq!(log.highest_round(&TaskId([1; 32])), None);
    log.record(&record(1, 0)).unwrap();
    log.record(&record(1, 2)).unwrap();
    log.record(&record(2, 1)).unwrap();
    for _ in 0..2 {
        assert_eq!(log.highest_round(&TaskId([1; 32])), Some(2));
        assert_eq!(log.highest_round(&TaskId([2; 32])), Some(1));
        let size = std::fs::metadata(&path).unwrap().len();
        // The last record again, as multi_a does after a restart.
        log.record(&record(1, 2)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), size);
        let mut other = record(1, 2);
        other.attempt = AttemptId([77; 32]);
        for used in [record(1, 0), record(1, 1), other] {
            assert!(matches!(log.record(&used), Err(SigningLogError::RoundUsed { .. })));
        }
        drop(log);
        log = reopen(&path).unwrap();
    }
}

/// What its documentation says of how it grows.
#[test]
fn a_batch_of_sixteen_coins_takes_720_bytes() {
    let (_home, path, mut log) = new();
    let length = || std::fs::metadata(&path).unwrap().len();
    let start = length();
    log.claim(1, &(0..16).map(coin).collect::<Vec<_>>()).unwrap();
    assert_eq!(length() - start, 27 + 36 * 16);
    log.record(&record(1, 0)).unwrap();
    assert_eq!(length() - start, 720);
    // Neither is written twice.
    log.claim(1, &[coin(3)]).unwrap();
    log.record(&record(1, 0)).unwrap();
    assert_eq!(length() - start, 720);
    log.record(&record(1, 1)).unwrap();
    assert_eq!(length() - start, 720 + 117);
}

#[test]
fn what_a_crash_cut_off_is_dropped_and_the_rest_stays() {
    let (_home, path, mut log) = new();
    let mut ends = vec![HEADER_BYTES];
    for number in 0..4_u8 {
        log.claim(number.into(), &[coin(number)]).unwrap();
        ends.push(usize::try_from(log.inner.end).unwrap());
    }
    drop(log);
    let whole = std::fs::read(&path).unwrap();
    for length in HEADER_BYTES..whole.len() {
        for filler in [None, Some(0), Some(0xff)] {
            let mut bytes = whole[..length].to_vec();
            // A cut may leave space that was never written.
            if let Some(filler) = filler {
                bytes.resize(whole.len(), filler);
            }
            std::fs::write(&path, &bytes).unwrap();
            let mut log = reopen(&path).unwrap();
            let kept = ends.iter().filter(|end| **end <= length).count() - 1;
            for number in 0..4_u8 {
                let expected = (usize::from(number) < kept).then_some(u64::from(number));
                assert_eq!(log.batch_of(&coin(number)), expected, "cut at {length}");
            }
            // It goes on.
            log.claim(9, &[coin(9)]).unwrap();
            drop(log);
            assert_eq!(reopen(&path).unwrap().batch_of(&coin(9)), Some(9));
        }
    }
    // A header that is cut is no crash: it was made whole.
    std::fs::write(&path, &whole[..HEADER_BYTES - 1]).unwrap();
    assert!(matches!(reopen(&path), Err(SigningLogError::Damaged { offset: 0, .. })));
}

#[test]
fn damage_in_the_middle_is_refused_and_nothing_is_changed() {
    let (_home, path, mut log) = new();
    for number in 0..3_u8 {
        log.claim(number.into(), &[coin(number)]).unwrap();
    }
    let last = usize::try_from(log.inner.end).unwrap();
    log.record(&record(1, 0)).unwrap();
    drop(log);
    let whole = std::fs::read(&path).unwrap();
    for at in 0..last {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&path, &bytes).unwrap();
        assert!(reopen(&path).is_err(), "{at}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
    // A frame that is taken out, or stands twice.
    let frame = (last - HEADER_BYTES) / 3;
    let first = HEADER_BYTES..HEADER_BYTES + frame;
    let out = [&whole[..first.start], &whole[first.end..]].concat();
    let twice = [&whole[..first.end], &whole[first.start..]].concat();
    for bytes in [out, twice] {
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(reopen(&path), Err(SigningLogError::Damaged { .. })));
    }
}

#[test]
fn it_is_of_one_chain_one_key_one_process_and_one_user() {
    let (home, path, mut log) = new();
    log.claim(1, &[coin(1)]).unwrap();
    assert!(matches!(reopen(&path), Err(SigningLogError::InUse { .. })));
    assert!(matches!(SigningLog::create(&path, chain(), member()), Err(SigningLogError::Access(_))));
    drop(log);
    let other = ChainId::from_byte_array([2; 32]);
    assert!(matches!(SigningLog::open(&path, other, member()), Err(SigningLogError::OtherChain { .. })));
    let key = MemberKey::from_bytes(&[2; 32]).unwrap().public_key();
    assert!(matches!(SigningLog::open(&path, chain(), key), Err(SigningLogError::OtherKey { .. })));
    let missing = home.path().join("missing");
    assert!(matches!(reopen(&missing), Err(SigningLogError::Access(_))));
    assert!(!missing.exists());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(reopen(&path), Err(SigningLogError::Access(_))));
}

/// A disk that fails from its n-th write on, after half of the bytes.
struct Failing {
    bytes: Vec<u8>,
    lives: usize,
}

impl Disk for Failing {
    fn append(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        let alive = self.lives > 0;
        self.lives = self.lives.saturating_sub(1);
        let bytes = if alive { bytes } else { &bytes[..bytes.len() / 2] };
        self.bytes.truncate(start);
        self.bytes.extend_from_slice(bytes);
        if alive { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }
}

#[test]
fn a_failed_write_stops_the_log_and_claims_nothing() {
    let header = encode_header(chain(), member());
    let disk = Failing { bytes: header.to_vec(), lives: 1 };
    let (path, end) = (PathBuf::from("log"), HEADER_BYTES as u64);
    let mut log = Log { disk, path: path.clone(), header, end, content: Content::default(), stopped: false };
    log.claim(1, &[coin(1)]).unwrap();
    assert!(matches!(log.claim(1, &[coin(2)]), Err(SigningLogError::Io { .. })));
    // Also what is on disk already is not confirmed again.
    assert!(matches!(log.claim(1, &[coin(1)]), Err(SigningLogError::Stopped { .. })));
    assert!(matches!(log.claim(1, &[coin(3)]), Err(SigningLogError::Stopped { .. })));
    assert!(matches!(log.record(&record(1, 0)), Err(SigningLogError::Stopped { .. })));
    assert_eq!(log.content.batches.get(&coin(2)), None);
    let (content, _) = Content::parse(&log.disk.bytes, &path, chain(), member()).unwrap();
    assert_eq!(content.batches, log.content.batches);
}

proptest! {
    #[test]
    fn entries_decode_as_encoded(batch in any::<u64>(), coins in prop::collection::vec(0..255_u8, 0..20), round in 0..200_u32) {
        let coins = Entry::Coins { batch, outpoints: coins.into_iter().map(coin).collect() };
        prop_assert_eq!(Entry::decode(&coins.encode()), Some(coins));
        let attempt = Entry::Attempt(record(3, round));
        prop_assert_eq!(Entry::decode(&attempt.encode()), Some(attempt));
    }

    #[test]
    fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Entry::decode(&bytes);
        let path = PathBuf::from("log");
        let _ = Content::parse(&bytes, &path, chain(), member());
        let behind = [&encode_header(chain(), member())[..], &bytes].concat();
        let _ = Content::parse(&behind, &path, chain(), member());
    }
}
