use proptest::prelude::*;

use super::*;
use crate::shell::files::testing::FakeDisk;

fn chain(fill: u8) -> ChainId {
    ChainId::from_byte_array([fill; 32])
}

/// A timer of a round: six bytes.
fn timer(round: u32) -> LogEntry {
    LogEntry::decode(&[&[4, 1][..], &round.to_le_bytes()].concat()).unwrap()
}

/// A verdict of a height: 43 bytes.
fn verdict(height: u32, round: u32) -> LogEntry {
    let bytes = [&[5][..], &height.to_le_bytes(), &round.to_le_bytes(), &[9; 32], &[1, 0]].concat();
    LogEntry::decode(&bytes).unwrap()
}

fn entries(height: u32, count: u32) -> Vec<LogEntry> {
    (0..count).map(|round| if round % 3 == 0 { verdict(height, round) } else { timer(round) }).collect()
}

fn parse(bytes: &[u8]) -> Result<Content, LogError> {
    Content::parse(bytes, Path::new("consensus.log"), chain(1))
}

fn remembered(bytes: &[u8]) -> Vec<LogEntry> {
    parse(bytes).unwrap().remembered.map(|(_, entries)| entries).unwrap_or_default()
}

fn fake(lives: Option<usize>) -> LogFile<FakeDisk> {
    LogFile::with(FakeDisk { lives, ..FakeDisk::default() }, Path::new("consensus.log"), chain(1), None, 0)
}

/// The bytes of a log, and where each frame ends.
fn log_of(height: u32, all: &[LogEntry]) -> (Vec<u8>, Vec<usize>) {
    let mut log = fake(None);
    let mut ends = Vec::new();
    for entry in all {
        log.append(Height(height), std::slice::from_ref(entry), Writing::Now).unwrap();
        ends.push(log.disk.bytes.len());
    }
    assert_eq!(log.disk.synced, log.disk.bytes);
    (log.disk.bytes, ends)
}

#[test]
fn what_was_appended_comes_back_and_the_log_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("consensus.log");
    let all = entries(101, 9);
    for (index, entry) in all.iter().enumerate() {
        assert_eq!(LogFile::peek(&path, chain(1)).unwrap().map_or(0, |(_, entries)| entries.len()), index);
        let (mut log, before) = LogFile::open(&path, chain(1)).unwrap();
        assert_eq!(before, (index > 0).then(|| (Height(101), all[..index].to_vec())));
        log.append(Height(101), std::slice::from_ref(entry), Writing::Now).unwrap();
    }

    // The next height drops the log of this one.
    let (mut log, _) = LogFile::open(&path, chain(1)).unwrap();
    log.append(Height(102), &[], Writing::Now).unwrap();
    assert_eq!(LogFile::peek(&path, chain(1)).unwrap(), Some((Height(101), all)));
    log.append(Height(102), &[timer(1)], Writing::Later).unwrap();
    assert_eq!(LogFile::peek(&path, chain(1)).unwrap(), Some((Height(102), vec![timer(1)])));

    let error = log.append(Height(101), &[timer(1)], Writing::Now).unwrap_err();
    assert!(matches!(error, LogError::GoesBack { .. }), "{error}");
    assert!(matches!(log.append(Height(102), &[timer(2)], Writing::Now), Err(LogError::Stopped { .. })));
}

#[test]
fn every_truncation_leaves_the_entries_in_front_of_it() {
    let all = entries(101, 7);
    let (bytes, ends) = log_of(101, &all);
    for length in 0..=bytes.len() {
        let whole = ends.iter().filter(|end| **end <= length).count();
        assert_eq!(remembered(&bytes[..length]), all[..whole], "{length}");
        // Zeros may stand where the data did not reach the disk.
        let mut zeros = bytes.clone();
        zeros[length..].fill(0);
        if length == 0 || length >= HEADER_BYTES {
            assert_eq!(remembered(&zeros), all[..whole], "{length} and zeros");
        }
    }
}

#[test]
fn a_torn_tail_is_cut_off_and_written_over() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("consensus.log");
    let all = entries(101, 4);
    let (bytes, ends) = log_of(101, &all);
    std::fs::write(&path, &bytes[..ends[3] - 1]).unwrap();
    let (mut log, before) = LogFile::open(&path, chain(1)).unwrap();
    assert_eq!(before, Some((Height(101), all[..3].to_vec())));
    assert_eq!(std::fs::read(&path).unwrap(), bytes[..ends[2]]);
    log.append(Height(101), &[timer(77)], Writing::Now).unwrap();
    assert_eq!(LogFile::peek(&path, chain(1)).unwrap().unwrap().1, [&all[..3], &[timer(77)]].concat());
}

#[test]
fn every_flipped_bit_is_refused_or_is_in_the_last_entry() {
    let all = entries(101, 6);
    let (bytes, ends) = log_of(101, &all);
    let last = ends[ends.len() - 2];
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        match parse(&changed) {
            Err(LogError::Damaged { .. }) if bit / 8 < last => {}
            Ok(content) if bit / 8 >= last => {
                assert_eq!(content.remembered, Some((Height(101), all[..5].to_vec())), "bit {bit}");
            }
            Err(error) => panic!("bit {bit}: {error}"),
            Ok(_) => panic!("bit {bit} of the middle went unseen"),
        }
    }
}

#[test]
fn no_frame_passes_at_another_height_or_place() {
    let (old, ends) = log_of(101, &entries(101, 6));
    // A new height whose first frame is as long as the old one: what follows is whole, but of another height.
    let (new, new_ends) = log_of(102, &entries(102, 1));
    assert_eq!(ends[0], new_ends[0]);
    let stale = [&new[..], &old[ends[0]..]].concat();
    assert_eq!(remembered(&stale), entries(102, 1));

    // The second frame where the first was.
    let moved = [&old[..HEADER_BYTES], &old[ends[0]..]].concat();
    assert_eq!(remembered(&moved), []);
}

#[test]
fn a_log_of_another_chain_or_format_is_refused() {
    let (bytes, _) = log_of(101, &entries(101, 2));
    let error = Content::parse(&bytes, Path::new("consensus.log"), chain(2)).err().unwrap();
    assert!(matches!(error, LogError::OtherChain { found, expected, .. } if (found, expected) == (chain(1), chain(2))));

    let mut newer = bytes;
    newer[4] = 2;
    let sum = checksum(HEADER_TAG, &[&newer[..44]]);
    newer[44..48].copy_from_slice(&sum);
    assert!(matches!(parse(&newer), Err(LogError::OtherFormat { found: 2, .. })));

    // A whole frame that holds no entry, or one of another height.
    for entry in [vec![99], verdict(102, 0).encode()] {
        let header = encode_header(chain(1), Height(101));
        let mut bytes = header.to_vec();
        encode_frame(&mut bytes, &header, 48, &entry);
        assert!(matches!(parse(&bytes), Err(LogError::Damaged { offset: 48, .. })));
    }
}

#[test]
fn after_a_failure_nothing_is_acknowledged() {
    // Emptied, written, synced; then written, synced for each.
    for lives in 0..9 {
        let mut log = fake(Some(lives));
        let mut acknowledged = Vec::new();
        let mut operations = None;
        for round in 0..4 {
            match log.append(Height(101), &[timer(round)], Writing::Now) {
                Ok(()) => {
                    assert_eq!(operations, None, "acknowledged after a failure");
                    acknowledged.push(timer(round));
                }
                Err(LogError::Io { .. }) if operations.is_none() => operations = Some(log.disk.operations),
                Err(LogError::Stopped { .. }) => assert_eq!(operations, Some(log.disk.operations)),
                Err(error) => panic!("{error}"),
            }
        }
        assert!(operations.is_some());
        assert_eq!(remembered(&log.disk.synced), acknowledged);
        // A part of the failed write may be there too.
        assert!(remembered(&log.disk.bytes).starts_with(&acknowledged));
    }
}

#[test]
fn a_full_disk_is_an_error() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut log = LogFile::with(full, Path::new("/dev/full"), chain(1), Some(Height(101)), 48);
    let error = log.append(Height(101), &[timer(1)], Writing::Now).unwrap_err();
    assert!(matches!(&error, LogError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull), "{error}");
    assert!(matches!(log.append(Height(101), &[], Writing::Now), Err(LogError::Stopped { .. })));
}

#[test]
fn a_log_has_a_bound() {
    let mut log = fake(None);
    log.append(Height(101), &[timer(0)], Writing::Now).unwrap();
    log.end = LOG_BYTES_MAX - 10;
    let error = log.append(Height(101), &[timer(1)], Writing::Now).unwrap_err();
    assert!(matches!(error, LogError::Full { .. }), "{error}");
}

proptest! {
    /// Whatever the power loss leaves of what was not synced, everything acknowledged is there, and nothing was made up.
    #[test]
    fn power_loss_takes_nothing_that_was_acknowledged(
        heights in 1_u32..4,
        batches in prop::collection::vec((0_u32..4, any::<bool>()), 1..12),
        kept in 0_usize..=100,
    ) {
        for height in (0..heights).map(|above| 101 + above) {
            let mut log = fake(None);
            // An earlier height, as it always is but for the first.
            log.append(Height(height - 1), &entries(height - 1, 5), Writing::Now).unwrap();
            let (mut all, mut acknowledged) = (Vec::new(), 0);
            for (count, now) in &batches {
                let batch: Vec<_> = (0..*count).map(|index| verdict(height, index)).collect();
                let writing = if *now { Writing::Now } else { Writing::Later };
                log.append(Height(height), &batch, writing).unwrap();
                all.extend(batch);
                acknowledged = if *now { all.len() } else { acknowledged };
            }
            let FakeDisk { bytes, synced, .. } = log.disk;
            if acknowledged == 0 {
                continue;
            }
            let left = synced.len() + (bytes.len() - synced.len()) * kept / 100;
            let found = remembered(&bytes[..left]);
            prop_assert!(found.len() >= acknowledged);
            prop_assert!(all.starts_with(&found));
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), offset in 0_usize..400) {
        let (mut log, _) = log_of(101, &entries(101, 6));
        let offset = offset.min(log.len());
        log.truncate(offset);
        log.extend(bytes);
        if let Ok(content) = parse(&log) {
            prop_assert!(content.end <= log.len() as u64);
        }
    }
}
