use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use causeway_chainspec::{ChainSpec, Validator, devnet};
use causeway_consensus::bft::{
    Engine, Guarded, Input, Key, Output, Persist, Timer, TimerStep, ValidatorSet, Validity, Writing,
};
use tempfile::TempDir;

use super::*;
use crate::keys::ValidatorKey;
use crate::shell::mark_file::MarkFile;
use crate::shell::persistence::Persistence;

/// A validator's home in which height 101 was voted on and is not decided.
struct Voted {
    directory: TempDir,
    chain: ChainId,
    mark: HighWaterMark,
    /// Entries of the log.
    entries: usize,
}

fn key(index: u32) -> ValidatorKey {
    ValidatorKey::from_bytes(&devnet::secret_key(devnet::VALIDATOR, index).secret_bytes()).unwrap()
}

/// Runs a validator of two through some rounds, without ever hearing of the other.
fn voted(rounds: u32) -> Voted {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::at(directory.path().join("home"));
    drop(home.create().unwrap());
    key(0).store_new(&home.validator_key()).unwrap();
    let chain = ChainSpec::built_in("devnet").unwrap().chain_id();
    let mark = MarkFile::create(&home.validator_mark(), &home.validator_key(), chain, key(0).address()).unwrap();
    let (log, _) = open_log(&home, chain, Height(100), Some(mark.mark())).unwrap();
    let signer = Guarded::new(key(0), mark.mark().clone()).unwrap();
    let mut disk = Persistence::new(log, Some(mark));

    let set: Vec<_> = (0..2).map(|index| Validator { key: key(index).public_key(), power: 1 }).collect();
    let set = ValidatorSet::new(&set).unwrap();
    let mut engine = Engine::new(chain, Default::default(), Some(Box::new(signer)));
    let mut outputs = engine.start(Height(101), set, &[]).unwrap().persist(&mut disk).unwrap();
    for round in 0..rounds {
        let block = BlockHash::from_byte_array([7; 32]);
        while let Some(output) = outputs.pop() {
            let input = match output {
                Output::Propose { height, round, .. } => Input::Propose { height, round, block },
                Output::Accepted { height, round, block, .. } => {
                    Input::Judged { height, round, block, validity: Validity::Valid }
                }
                _ => continue,
            };
            outputs.extend(engine.step(input).unwrap().persist(&mut disk).unwrap());
        }
        for step in [TimerStep::Propose, TimerStep::Prevote, TimerStep::Precommit] {
            let timer = Timer { height: Height(101), step, round };
            outputs.extend(engine.step(Input::TimerElapsed(timer)).unwrap().persist(&mut disk).unwrap());
        }
    }
    drop(disk);
    let mark = MarkFile::peek(&home.validator_mark(), chain, key(0).address()).unwrap();
    let (_, entries) = LogFile::peek(&home.consensus_log(), chain).unwrap().unwrap();
    assert!(mark.stands_in(&entries));
    Voted { directory, chain, mark, entries: entries.len() }
}

impl Voted {
    fn home(&self) -> Home {
        Home::at(self.directory.path().join("home"))
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.home().consensus_log()).unwrap()
    }

    fn write(&self, bytes: &[u8]) {
        std::fs::write(self.home().consensus_log(), bytes).unwrap();
    }

    fn open(&self, tip: u32, mark: &HighWaterMark) -> Result<Remembered, RecoveryError> {
        open_log(&self.home(), self.chain, Height(tip), Some(mark)).map(|(_, remembered)| remembered)
    }
}

#[test]
fn a_whole_log_is_gone_on_with() {
    let voted = voted(3);
    let remembered = voted.open(100, &voted.mark).unwrap();
    assert_eq!(remembered.map(|(height, entries)| (height, entries.len())), Some((Height(101), voted.entries)));
}

#[test]
fn a_log_without_the_last_signed_message_is_refused_until_the_height_is_decided() {
    let voted = voted(3);
    let whole = voted.bytes();
    let (mut refused, mut accepted) = (0, 0);
    for length in 0..=whole.len() {
        voted.write(&whole[..length]);
        match voted.open(100, &voted.mark) {
            Ok(Some((_, entries))) => {
                assert!(voted.mark.stands_in(&entries));
                accepted += 1;
            }
            Err(RecoveryError::LostLog { height: Height(101), tip: Height(100), .. }) => {
                assert_eq!(voted.bytes(), whole[..length], "left as it is");
                refused += 1;
            }
            other => panic!("{length}: {other:?}"),
        }
    }
    // All but the last entries, in which nothing was signed.
    assert!(refused > whole.len() / 2 && accepted > 0, "{refused} {accepted}");

    std::fs::remove_file(voted.home().consensus_log()).unwrap();
    let error = voted.open(100, &voted.mark).unwrap_err();
    assert!(error.to_string().contains("--full-node until the tip is at or above height 101"), "{error}");
    assert_eq!(voted.open(101, &voted.mark).unwrap(), None);
}

#[test]
fn a_damaged_log_is_refused_until_the_height_is_decided() {
    let voted = voted(2);
    let mut damaged = voted.bytes();
    damaged[60] ^= 1;
    voted.write(&damaged);
    let error = voted.open(100, &voted.mark).unwrap_err();
    assert!(matches!(error, RecoveryError::DamagedLog { height: Height(101), .. }), "{error:?}");
    assert_eq!(voted.bytes(), damaged);
    assert_eq!(voted.open(101, &voted.mark).unwrap(), None);
    assert!(voted.bytes().is_empty());
}

#[test]
fn following_does_not_touch_the_log_of_the_validator() {
    let voted = voted(2);
    let mut damaged = voted.bytes();
    damaged[60] ^= 1;
    voted.write(&damaged);
    let (mut log, remembered) = open_log(&voted.home(), voted.chain, Height(100), None).unwrap();
    assert_eq!(remembered, None);
    let entry = LogFile::peek(&voted.home().follower_log(), voted.chain);
    assert_eq!(entry.unwrap(), None);
    log.append(Height(102), &[], Writing::Now).unwrap();
    assert_eq!(voted.bytes(), damaged);
    assert!(voted.open(100, &voted.mark).is_err());
}

#[test]
fn a_store_that_fell_behind_the_key_is_refused() {
    let voted = voted(2);
    let before = voted.bytes();
    let error = voted.open(99, &voted.mark).unwrap_err();
    assert!(matches!(error, RecoveryError::LostLog { height: Height(101), tip: Height(99), .. }), "{error:?}");
    assert_eq!(voted.bytes(), before);
}

#[test]
fn nothing_depends_on_a_log_below_a_barrier_or_of_a_decided_height() {
    let voted = voted(2);
    let barrier = HighWaterMark::barrier(voted.chain, key(0).address(), Height(101));
    let mut damaged = voted.bytes();
    damaged[60] ^= 1;
    voted.write(&damaged);
    assert_eq!(voted.open(100, &barrier).unwrap(), None);

    let unsigned = HighWaterMark::never_signed(voted.chain, key(0).address());
    voted.write(&damaged);
    assert_eq!(voted.open(100, &unsigned).unwrap(), None);
}

#[test]
fn a_decided_log_is_dropped() {
    let voted = voted(1);
    assert_eq!(voted.open(101, &voted.mark).unwrap(), None);
    assert!(voted.bytes().is_empty());
}

#[test]
fn a_node_without_a_key_writes_no_mark() {
    let voted = voted(1);
    let (log, _) = open_log(&voted.home(), voted.chain, Height(100), None).unwrap();
    let mut disk: Persistence = Persistence::new(log, None);
    assert!(disk.persist(Height(101), &[], None, Writing::Now).is_ok());
    assert!(disk.persist(Height(101), &[], Some(&voted.mark), Writing::Now).is_err());
}
