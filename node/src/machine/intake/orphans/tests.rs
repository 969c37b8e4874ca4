use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{Amount, ScriptBuf, TxOut, absolute};

use super::*;

/// A transaction with this many bytes of script.
fn transaction(bytes: usize) -> Arc<Transaction> {
    let output = TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(vec![0; bytes]) };
    Arc::new(Transaction {
        version: Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: Vec::new(),
        output: vec![output],
    })
}

/// The parent of this number.
fn parent(number: u8) -> Txid {
    Txid::from_byte_array([number; 32])
}

fn count(orphans: &Orphans, peer: PeerId) -> usize {
    orphans.0.iter().filter(|orphan| orphan.peer == peer).count()
}

#[test]
fn a_peer_pushes_out_only_its_own() {
    let mut orphans = Orphans::default();
    let (honest, liar) = (PeerId::random(), PeerId::random());
    for number in 0..3 {
        orphans.keep(Duration::ZERO, honest, transaction(10), parent(number));
    }
    for number in 0..=255 {
        orphans.keep(Duration::ZERO, liar, transaction(10), parent(number));
    }
    assert_eq!((count(&orphans, honest), count(&orphans, liar)), (3, ORPHANS_PER_PEER));
    // Its latest are kept.
    assert_eq!(orphans.take(|missing| *missing == parent(255)).len(), 1);
    assert_eq!(orphans.take(|missing| *missing == parent(100)).len(), 0);
}

#[test]
fn many_peers_push_out_those_of_the_peer_with_most() {
    let mut orphans = Orphans::default();
    let honest = PeerId::random();
    orphans.keep(Duration::ZERO, honest, transaction(10), parent(1));
    for _ in 0..40 {
        let liar = PeerId::random();
        (0..30).for_each(|number| orphans.keep(Duration::ZERO, liar, transaction(10), parent(number)));
        assert!(orphans.len() <= ORPHANS_MAX);
    }
    assert_eq!((orphans.len(), count(&orphans, honest)), (ORPHANS_MAX, 1));
}

#[test]
fn an_orphan_is_small_and_stays_a_minute() {
    let mut orphans = Orphans::default();
    let peer = PeerId::random();
    orphans.keep(Duration::ZERO, peer, transaction(ORPHAN_BYTES_MAX), parent(1));
    assert!(orphans.is_empty());
    orphans.keep(Duration::ZERO, peer, transaction(10), parent(1));
    orphans.keep(ORPHAN_FOR - Duration::from_millis(1), peer, transaction(10), parent(2));
    assert_eq!(orphans.len(), 2);
    orphans.keep(ORPHAN_FOR, peer, transaction(10), parent(3));
    assert_eq!((orphans.len(), orphans.take(|missing| *missing == parent(1)).len()), (2, 0));
}
