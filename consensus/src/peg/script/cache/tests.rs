use bitcoin::hashes::{Hash, sha256};

use super::super::tests::epoch;
use super::*;

fn scripts() -> EpochScripts {
    EpochScripts::build(&epoch(5, 3))
}

/// The same bytes with a checksum that is right again.
fn resealed(epoch: &Epoch, mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = checksum(epoch, &bytes[CHECKSUM..]);
    bytes[..CHECKSUM].copy_from_slice(&sum);
    bytes
}

fn key_at(position: usize) -> std::ops::Range<usize> {
    let start = CHECKSUM + MAIN_SCRIPT + position * KEY;
    start..start + KEY
}

#[test]
fn decode_is_the_inverse_of_encode() {
    for (n, t) in [(1, 1), (2, 2), (5, 3), (7, 3), (15, 11)] {
        let scripts = EpochScripts::build(&epoch(n, t));
        let bytes = scripts.encode();
        assert_eq!(bytes.len() as u64, 66 + 32 * scripts.epoch().subset_count());
        assert_eq!(EpochScripts::decode(scripts.epoch(), &bytes), Ok(scripts));
    }
}

#[test]
fn every_damaged_byte_is_found() {
    let scripts = scripts();
    let bytes = scripts.encode();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert_eq!(EpochScripts::decode(scripts.epoch(), &damaged), Err(CachedScriptsError::Checksum), "{at}");
    }
    for length in 0..bytes.len() {
        let error = EpochScripts::decode(scripts.epoch(), &bytes[..length]).unwrap_err();
        assert_eq!(error, CachedScriptsError::Length { got: length, expected: bytes.len() });
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(matches!(EpochScripts::decode(scripts.epoch(), &longer), Err(CachedScriptsError::Length { .. })));
}

#[test]
fn scripts_of_another_epoch_are_refused() {
    let scripts = scripts();
    let bytes = scripts.encode();
    let parts = scripts.epoch().to_parts();
    let mut others = vec![parts.clone(); 6];
    others[0].number += 1;
    others[1].recovery_threshold += 1;
    others[2].recovery_keys.pop();
    others[3].timelocks.refund_delay += 1;
    // As many subsets.
    others[4].threshold = 2;
    others[5].members[0] = others[5].members[0].negate(secp256k1::SECP256K1);
    for other in others {
        let other = Epoch::new(other).unwrap();
        assert_eq!(EpochScripts::decode(&other, &bytes), Err(CachedScriptsError::Checksum));
    }
    let wider = epoch(6, 3);
    assert!(matches!(EpochScripts::decode(&wider, &bytes), Err(CachedScriptsError::Length { .. })));
}

#[test]
fn wrong_keys_under_a_right_checksum_are_refused() {
    let scripts = scripts();
    let (epoch, bytes) = (scripts.epoch(), scripts.encode());
    // Aggregates 0, 2, 4.. are computed again; 1 and 3 are seen by the main output.
    let with_key = |position: usize, key: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[key_at(position)].copy_from_slice(key);
        EpochScripts::decode(epoch, &resealed(epoch, bytes)).unwrap_err()
    };
    let other = bytes[key_at(9)].to_vec();
    assert_eq!(with_key(4, &other), CachedScriptsError::Aggregate { position: 4 });
    assert_eq!(with_key(3, &other), CachedScriptsError::MainScript);
    assert_eq!(with_key(3, &[0xff; 32]), CachedScriptsError::Key { position: 3 });
    let mut main = bytes.clone();
    main[CHECKSUM + 5] ^= 1;
    assert_eq!(EpochScripts::decode(epoch, &resealed(epoch, main)), Err(CachedScriptsError::MainScript));
}

/// A change of the form needs another tag, so that files of another version are refused.
#[test]
fn the_form_is_pinned() {
    assert_eq!(
        sha256::Hash::hash(&scripts().encode()).to_string(),
        "a19713d6614ef01308e2ca4b02d48caf5867c8a1d378d98ee1a0cb93bc7ac06a"
    );
}
