use super::*;

fn chain(number: u8) -> ChainId {
    ChainId::from_byte_array([number; 32])
}

fn saved(length: usize) -> Saved {
    let peer = |number: usize| SavedPeer {
        peer: PeerId::random(),
        addresses: vec![("8.8.8.8".parse().unwrap(), 1), ("2600::1".parse().unwrap(), 2)],
        source: if number.is_multiple_of(2) { "1.2.3.4".parse().unwrap() } else { "::1".parse().unwrap() },
        is_tried: number.is_multiple_of(3),
        is_anchor: number.is_multiple_of(5),
    };
    Saved { key: [9; 32], peers: (0..length).map(peer).collect() }
}

#[test]
fn what_was_saved_is_loaded_again() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("peers.dat");
    assert_eq!(load(&path, chain(1)).unwrap(), None);
    for length in [0, 1, KNOWN_MAX] {
        let saved = saved(length);
        save(&path, &encode(chain(1), &saved)).unwrap();
        assert_eq!(load(&path, chain(1)).unwrap(), Some(saved));
    }
    assert!(std::fs::metadata(&path).unwrap().len() <= FILE_BYTES_MAX.try_into().unwrap());
    assert!(matches!(load(&path, chain(2)), Err(BookFileError::OtherChain { .. })));
}

#[test]
fn a_damaged_file_is_not_used() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("peers.dat");
    let good = encode(chain(1), &saved(2));
    let mut damaged: Vec<Vec<u8>> = (0..good.len()).map(|end| good[..end].to_vec()).collect();
    damaged.extend((0..good.len()).map(|at| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    }));
    damaged.push(vec![0; FILE_BYTES_MAX + 1]);
    for bytes in damaged {
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(load(&path, chain(1)), Err(BookFileError::Damaged { .. })), "{} bytes", bytes.len());
    }
    // A right checksum does not make it a book.
    let mut bytes = good[..good.len() - CHECKSUM_BYTES].to_vec();
    bytes[HEAD_BYTES] = 4;
    bytes.extend(sha256::Hash::hash(&bytes).to_byte_array());
    assert_eq!(decode(chain(1), &bytes), Err(Malformed));
}
