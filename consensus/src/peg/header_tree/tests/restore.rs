//! Damaged records are seen.

use super::*;

/// A chain of eight headers and a branch of two, and its records. The branch's first header is the lowest that is kept.
fn sample() -> (HeaderTree, Records, Vec<Header>) {
    let mut tree = tree(5);
    let best = mine(regtest().header(), 8, 1);
    extend(&mut tree, &best[..2]).unwrap();
    extend(&mut tree, &mine(&best[1], 2, 2)).unwrap();
    extend(&mut tree, &best[2..5]).unwrap();
    extend(&mut tree, &best[5..]).unwrap();
    let branch: Vec<Header> = tree.branches.values().map(|branch| branch.header).collect();
    assert_eq!(branch.len(), 2);
    let records = tree.records().collect();
    (tree, records, branch)
}

fn restore(records: &Records) -> Result<HeaderTree, DamagedHeaders> {
    HeaderTree::restore(&regtest(), 5, records.clone())
}

fn damaged(damage: impl FnOnce(&mut Records)) -> DamagedHeaders {
    let (_, mut records, _) = sample();
    damage(&mut records);
    restore(&records).unwrap_err()
}

#[test]
fn records_restore_the_tree() {
    let (tree, records, _) = sample();
    assert_eq!(restore(&records).unwrap(), tree);
    let reversed: Vec<_> = records.into_iter().rev().collect();
    assert_eq!(HeaderTree::restore(&regtest(), 5, reversed).unwrap(), tree);
}

#[test]
fn foreign_records_are_refused() {
    for key in
        [vec![], vec![0], vec![4, 0, 0, 0, 0], vec![KIND_BEST, 0, 0, 0], vec![KIND_HIGHEST, 0], vec![KIND_BRANCH; 32]]
    {
        let error = damaged(|records| {
            let value = records[&records::best_key(8)].clone();
            records.insert(key.clone(), value);
        });
        assert_eq!(error, DamagedHeaders::Record { key, bytes: 80 });
    }
    for key in [records::best_key(3), vec![KIND_HIGHEST]] {
        let error = damaged(|records| records.get_mut(&key).unwrap().push(0));
        assert!(matches!(error, DamagedHeaders::Record { .. }), "{error}");
    }
    let error = damaged(|records| {
        records.iter_mut().for_each(|(key, value)| {
            if key[0] == KIND_BRANCH {
                value.truncate(83)
            }
        });
    });
    assert!(matches!(error, DamagedHeaders::Record { bytes: 83, .. }), "{error}");
    let (_, records, _) = sample();
    let twice = records.clone().into_iter().chain([(vec![KIND_HIGHEST], vec![8, 0, 0, 0])]);
    let error = HeaderTree::restore(&regtest(), 5, twice).unwrap_err();
    assert_eq!(error, DamagedHeaders::Repeated { key: vec![KIND_HIGHEST] });
}

#[test]
fn the_best_chain_has_no_gap_and_begins_at_the_start() {
    let gone = |height| damaged(|records| assert!(records.remove(&records::best_key(height)).is_some()));
    assert_eq!(gone(0), DamagedHeaders::Start { height: BitcoinHeight(0) });
    assert_eq!(gone(4), DamagedHeaders::Gap { height: BitcoinHeight(4) });
    assert_eq!(gone(8), DamagedHeaders::Highest { got: Some(8), height: BitcoinHeight(7) });
    let error = damaged(|records| {
        let value = records[&records::best_key(1)].clone();
        records.insert(records::best_key(0), value);
    });
    assert_eq!(error, DamagedHeaders::Start { height: BitcoinHeight(0) });
    assert!(matches!(HeaderTree::restore(&regtest(), 5, []), Err(DamagedHeaders::Start { .. })));
}

#[test]
fn every_bit_of_a_best_header_counts() {
    for byte in 0..80 {
        let error = damaged(|records| records.get_mut(&records::best_key(4)).unwrap()[byte] ^= 1);
        let expected = matches!(error, DamagedHeaders::Link { .. } | DamagedHeaders::Rule(_));
        assert!(expected, "{byte}: {error}");
    }
    // The tip's hash is named by nothing, but it breaks a rule.
    let error = damaged(|records| records.get_mut(&records::best_key(8)).unwrap()[72] ^= 1);
    assert!(matches!(error, DamagedHeaders::Rule(InvalidHeaders::Bits { .. })), "{error}");
}

#[test]
fn every_branch_header_has_its_place() {
    let (_, records, branch) = sample();
    let lowest = branch.iter().find(|header| !branch.iter().any(|other| other.block_hash() == header.prev_blockhash));
    let upper = branch.iter().find(|header| Some(*header) != lowest).unwrap();
    let key = records::branch_key(&upper.block_hash());
    for byte in 0..84 {
        let mut records = records.clone();
        records.get_mut(&key).unwrap()[byte] ^= 1;
        let error = restore(&records).unwrap_err();
        assert!(matches!(error, DamagedHeaders::Branch { .. } | DamagedHeaders::Highest { .. }), "{byte}: {error}");
    }
    // Without its parent: only the lowest that is kept can be so.
    let mut headless = records.clone();
    headless.remove(&records::branch_key(&lowest.unwrap().block_hash()));
    assert!(matches!(restore(&headless), Err(DamagedHeaders::Branch { .. })));
    // Too deep, and on the best chain.
    let put = |height: u32, header: Header| {
        let mut records = records.clone();
        let branch = Branch { height, header };
        records.insert(records::branch_key(&header.block_hash()), records::branch_value(&branch));
        restore(&records).unwrap_err()
    };
    let (tree, ..) = sample();
    let two = *tree.best(BitcoinHeight(2)).unwrap();
    let deep = mine(tree.best(BitcoinHeight(1)).unwrap(), 1, 9)[0];
    assert!(matches!(put(2, deep), DamagedHeaders::Branch { .. }));
    assert!(matches!(put(2, two), DamagedHeaders::Branch { .. }));
    assert!(matches!(put(6, *tree.best(BitcoinHeight(6)).unwrap()), DamagedHeaders::Branch { .. }));
    // Bits that no header can have.
    for bits in [0, 0x2100_ffff, 0xff7f_ffff, 0x2080_0000, u32::MAX] {
        let mut header = mine(&two, 1, 9)[0];
        header.bits = CompactTarget::from_consensus(bits);
        assert!(matches!(put(3, header), DamagedHeaders::Branch { .. }), "{bits:08x}");
    }
}

#[test]
fn the_highest_tip_is_that_of_a_known_header() {
    for (value, got) in [(Some(7u32), Some(7)), (Some(9), Some(9)), (None, None)] {
        let error = damaged(|records| {
            records.remove(&vec![KIND_HIGHEST]);
            records.extend(value.map(|value| (vec![KIND_HIGHEST], value.to_le_bytes().to_vec())));
        });
        assert_eq!(error, DamagedHeaders::Highest { got, height: BitcoinHeight(8) });
    }
}

#[test]
fn another_chainspec_does_not_restore() {
    let (_, records, _) = sample();
    let header = mine(regtest().header(), 1, 9)[0];
    let mut work = [0; 32];
    work[30] = 0xff;
    let start =
        BitcoinStart::new(Network::Regtest, BitcoinHeight(2_016), header, Work::from_be_bytes(work), vec![1; 10]);
    let error = HeaderTree::restore(&start.unwrap(), 5, records).unwrap_err();
    assert_eq!(error, DamagedHeaders::Start { height: BitcoinHeight(2_016) });
}
