use bitcoin::block::Version;
use bitcoin::constants::genesis_block;
use bitcoin::hashes::Hash;
use bitcoin::{Network, TxMerkleNode};

use super::*;
use crate::peg::record::RecordKey;

mod model;
mod propose;
mod restore;
mod retarget;

/// Far after every header that the tests make.
const LATE: u32 = 4_000_000_000;

type Records = BTreeMap<RecordKey, Vec<u8>>;

/// Regtest from its genesis block on.
fn regtest() -> BitcoinStart {
    let genesis = genesis_block(Network::Regtest).header;
    BitcoinStart::new(Network::Regtest, BitcoinHeight(0), genesis, genesis.work(), vec![]).unwrap()
}

/// A tree of the genesis block.
fn tree(fork_depth: u32) -> HeaderTree {
    HeaderTree::new(&regtest(), fork_depth)
}

/// Varies the nonce until the header meets its target.
fn solve(mut header: Header) -> Header {
    while !header.target().is_met_by(header.block_hash()) {
        header.nonce += 1;
    }
    header
}

/// A header without proof of work.
fn unsolved(parent: &Header, salt: u8) -> Header {
    Header {
        version: Version::from_consensus(4),
        prev_blockhash: parent.block_hash(),
        merkle_root: TxMerkleNode::from_byte_array([salt; 32]),
        time: parent.time + 600,
        bits: parent.bits,
        nonce: 0,
    }
}

/// `count` headers on top of `parent`, which differ from those of another `salt`.
fn mine(parent: &Header, count: usize, salt: u8) -> Vec<Header> {
    let mut headers = Vec::new();
    let mut parent = *parent;
    for _ in 0..count {
        parent = solve(unsolved(&parent, salt));
        headers.push(parent);
    }
    headers
}

fn run(headers: &[Header]) -> HeaderRun {
    HeaderRun::between(headers).unwrap()
}

fn extend(tree: &mut HeaderTree, headers: &[Header]) -> Result<Extension, InvalidHeaders> {
    let mut records: Records = tree.records().collect();
    let mut changes = RecordChanges::default();
    let result = tree.extend(&run(headers), LATE, &mut changes);
    assert!(result.is_ok() || changes.iter().next().is_none(), "an invalid run changes nothing");
    apply(&mut records, &changes);
    assert_eq!(records, tree.records().collect());
    result
}

/// Applies changes of which every value before is the one in `records`.
fn apply(records: &mut Records, changes: &RecordChanges) {
    for (key, change) in changes.iter() {
        assert_eq!(records.get(key), change.before.as_ref(), "{key:02x?}");
        match &change.after {
            Some(value) => records.insert(key.clone(), value.clone()),
            None => records.remove(key),
        };
    }
}

/// What one header on top of the genesis block, changed by `change`, leads to.
fn first_with(change: impl FnOnce(&mut Header), block_time: u32) -> Result<Extension, InvalidHeaders> {
    let mut tree = tree(10);
    let mut header = unsolved(regtest().header(), 1);
    change(&mut header);
    tree.extend(&run(&[solve(header)]), block_time, &mut RecordChanges::default())
}

#[test]
fn a_new_tree_holds_the_start() {
    let (tree, start) = (tree(10), regtest());
    let genesis = start.header();
    let tip = BitcoinTip { height: BitcoinHeight(0), hash: genesis.block_hash(), time: genesis.time };
    assert_eq!(tree.tip(), tip);
    assert_eq!((tree.highest(), tree.start_height()), (BitcoinHeight(0), BitcoinHeight(0)));
    assert_eq!(tree.best(BitcoinHeight(0)), Some(genesis));
    assert_eq!(tree.best(BitcoinHeight(1)), None);
    assert_eq!(tree.chainwork(), genesis.work());
    assert!(tree.knows(&tip.hash));
}

#[test]
fn a_run_extends_the_tip() {
    let mut tree = tree(10);
    let headers = mine(regtest().header(), 5, 1);
    assert!(!extend(&mut tree, &headers[..2]).unwrap().replaced);
    let extension = extend(&mut tree, &headers[2..]).unwrap();
    assert_eq!(extension.fork_point, BitcoinHeight(2));
    assert_eq!(extension.highest_before, BitcoinHeight(2));
    assert!(!extension.replaced);
    assert_eq!(extension.tip, tree.tip());
    assert_eq!((tree.tip().height, tree.tip().hash), (BitcoinHeight(5), headers[4].block_hash()));
    for (height, header) in (1..).zip(&headers) {
        assert_eq!(tree.best(BitcoinHeight(height)), Some(header));
        assert_eq!(tree.best_hash(BitcoinHeight(height)), Some(header.block_hash()));
        assert_eq!(tree.best_height(&header.block_hash()), Some(BitcoinHeight(height)));
    }
    assert_eq!(tree.best(BitcoinHeight(6)), None);
    assert_eq!(tree.best_hash(BitcoinHeight(6)), None);
}

#[test]
fn an_empty_run_is_refused() {
    let mut tree = tree(10);
    let run = HeaderRun { parent: tree.tip().hash, headers: vec![] };
    assert_eq!(tree.extend(&run, LATE, &mut RecordChanges::default()), Err(InvalidHeaders::Empty));
}

#[test]
fn a_run_starts_from_a_known_header() {
    let mut tree = tree(2);
    let headers = mine(regtest().header(), 4, 1);
    let parent = headers[0].block_hash();
    assert_eq!(extend(&mut tree, &headers[1..]), Err(InvalidHeaders::UnknownParent { parent, min: BitcoinHeight(0) }));
    extend(&mut tree, &headers).unwrap();
    // On the best chain, three below the tip.
    let deep = mine(&headers[0], 4, 2);
    assert_eq!(extend(&mut tree, &deep), Err(InvalidHeaders::UnknownParent { parent, min: BitcoinHeight(2) }));
    assert!(!tree.knows(&parent));
    extend(&mut tree, &mine(&headers[1], 3, 2)).unwrap();
}

#[test]
fn a_branch_that_started_too_deep_is_over() {
    let mut tree = tree(3);
    let start = regtest();
    let lost = mine(start.header(), 2, 1);
    let won = mine(start.header(), 7, 2);
    extend(&mut tree, &lost).unwrap();
    extend(&mut tree, &won[..3]).unwrap();
    assert!(tree.clone().extend(&run(&mine(&lost[1], 2, 3)), LATE, &mut RecordChanges::default()).is_ok());
    for (tip, left) in [(4, 2), (5, 1)] {
        extend(&mut tree, &won[tip - 1..tip]).unwrap();
        assert_eq!(tree.branches.len(), left);
        assert_eq!(
            extend(&mut tree, &mine(&lost[1], 9, 3)),
            Err(InvalidHeaders::ForkTooDeep { parent: lost[1].block_hash(), max: 3, highest: tree.tip().height })
        );
    }
    extend(&mut tree, &won[5..6]).unwrap();
    assert!(tree.branches.is_empty());
    let error = extend(&mut tree, &mine(&lost[1], 9, 3)).unwrap_err();
    assert!(matches!(error, InvalidHeaders::UnknownParent { .. }));
    // Nor can it come back from below.
    let again = [&lost[..], &mine(&lost[1], 9, 3)].concat();
    assert!(matches!(extend(&mut tree, &again), Err(InvalidHeaders::UnknownParent { .. })));
}

#[test]
fn a_run_does_not_repeat_what_is_known() {
    let mut tree = tree(10);
    let headers = mine(regtest().header(), 4, 1);
    extend(&mut tree, &headers[..2]).unwrap();
    let hash = headers[1].block_hash();
    assert_eq!(extend(&mut tree, &headers[1..]), Err(InvalidHeaders::Known { hash }));
    extend(&mut tree, &headers[2..]).unwrap();

    // Not on a branch either.
    extend(&mut tree, &mine(&headers[0], 4, 2)).unwrap();
    let more = mine(&headers[3], 2, 1);
    let repeated = [&headers[3..], &more[..]].concat();
    assert_eq!(extend(&mut tree, &repeated), Err(InvalidHeaders::Known { hash: headers[3].block_hash() }));
    extend(&mut tree, &more).unwrap();
    assert_eq!(tree.tip().hash, more[1].block_hash());
}

#[test]
fn a_branch_needs_more_work_than_the_tip() {
    let mut tree = tree(10);
    let headers = mine(regtest().header(), 5, 1);
    extend(&mut tree, &headers).unwrap();
    let branch = mine(&headers[1], 4, 2);
    for short in [2, 3] {
        let error = extend(&mut tree, &branch[..short]).unwrap_err();
        assert!(matches!(error, InvalidHeaders::NotMoreWork { .. }), "{error}");
    }
    assert_eq!(
        extend(&mut tree, &branch[..3]).unwrap_err().to_string(),
        format!("the run ends with a chainwork of {0:x}, which must be more than the tip's, {0:x}", tree.chainwork())
    );
    let extension = extend(&mut tree, &branch).unwrap();
    assert!(extension.replaced);
    assert_eq!((extension.fork_point, extension.tip.height), (BitcoinHeight(2), BitcoinHeight(6)));
    assert!(headers.iter().all(|header| tree.knows(&header.block_hash())));

    // And back, from the branch that lost, of which nothing is carried again.
    let back = mine(&headers[4], 2, 1);
    let extension = extend(&mut tree, &back).unwrap();
    assert!(extension.replaced);
    assert_eq!((extension.fork_point, extension.tip.height), (BitcoinHeight(2), BitcoinHeight(7)));
    assert_eq!(tree.best(BitcoinHeight(4)), Some(&headers[3]));
}

#[test]
fn a_switch_is_frozen_from_final_depth_on() {
    let mut tree = tree(10);
    let headers = mine(regtest().header(), 5, 1);
    // A long way up is no switch, however deep the tip was.
    assert!(!extend(&mut tree, &headers).unwrap().reaches_final(1));
    let extension = extend(&mut tree, &mine(&headers[1], 9, 2)).unwrap();
    assert!(extension.reaches_final(3));
    assert!(!extension.reaches_final(4));
}

#[test]
fn a_stronger_branch_may_be_lower() {
    let mut tree = tree(3);
    let headers = mine(regtest().header(), 6, 1);
    extend(&mut tree, &headers).unwrap();
    let mut records: Records = tree.records().collect();
    let fork = tree.find_fork(&headers[2].block_hash()).unwrap();
    let strong = mine(&headers[2], 1, 2)[0];
    let mut changes = RecordChanges::default();
    let work = tree.chainwork() + strong.work();
    tree.switch(&fork, vec![Link { header: strong, work }], &mut changes);
    apply(&mut records, &changes);
    assert_eq!(records, tree.records().collect());
    assert_eq!((tree.tip().height, tree.highest()), (BitcoinHeight(4), BitcoinHeight(6)));
    assert_eq!(tree.branches.len(), 3);

    // Depth counts from the highest tip.
    let error = extend(&mut tree, &mine(&headers[1], 9, 3)).unwrap_err();
    assert_eq!(error, InvalidHeaders::UnknownParent { parent: headers[1].block_hash(), min: BitcoinHeight(3) });
    let on_top = mine(&strong, 1, 3);
    let extension = extend(&mut tree, &on_top).unwrap();
    assert_eq!((extension.fork_point, extension.highest_before), (BitcoinHeight(4), BitcoinHeight(6)));
    assert!(!extension.reaches_final(2), "below the highest, but nothing left the best chain");
    assert_eq!((tree.tip().height, tree.highest()), (BitcoinHeight(5), BitcoinHeight(6)));
    // Longer than the tip, but not stronger.
    let error = extend(&mut tree, &mine(&headers[5], 1, 1)).unwrap_err();
    assert!(matches!(error, InvalidHeaders::NotMoreWork { .. }));
}

#[test]
fn bits_are_those_required() {
    assert!(first_with(|_| {}, LATE).is_ok());
    assert_eq!(
        first_with(|header| header.bits = CompactTarget::from_consensus(0x207f_fffe), LATE).unwrap_err().to_string(),
        "header 1 has bits 207ffffe, which must be 207fffff"
    );
}

#[test]
fn a_header_has_proof_of_work() {
    let mut tree = tree(10);
    let mut header = unsolved(regtest().header(), 1);
    while header.target().is_met_by(header.block_hash()) {
        header.nonce += 1;
    }
    let error = extend(&mut tree, &[header]).unwrap_err();
    assert_eq!(
        error,
        InvalidHeaders::ProofOfWork { height: BitcoinHeight(1), hash: header.block_hash(), bits: header.bits }
    );
    // In a run's middle too, and then nothing of the run is taken.
    let mut headers = mine(regtest().header(), 2, 1);
    headers.extend(mine(&headers[1], 2, 1));
    let good = headers[2];
    while headers[2].target().is_met_by(headers[2].block_hash()) {
        headers[2].nonce += 1;
    }
    headers[3] = mine(&headers[2], 1, 1)[0];
    assert!(matches!(extend(&mut tree, &headers), Err(InvalidHeaders::ProofOfWork { height: BitcoinHeight(3), .. })));
    assert_eq!(tree.tip().height, BitcoinHeight(0));
    extend(&mut tree, &[headers[0], headers[1], good]).unwrap();
}

#[test]
fn a_time_is_after_the_median_of_eleven() {
    let genesis = regtest().header().time;
    assert!(first_with(|header| header.time = genesis + 1, LATE).is_ok());
    assert_eq!(
        first_with(|header| header.time = genesis, LATE),
        Err(InvalidHeaders::TimeTooOld { height: BitcoinHeight(1), got: genesis, median: genesis })
    );

    // Ten times before the start count; with its own the median is the sixth.
    let header = mine(regtest().header(), 1, 1)[0];
    let times: Vec<u32> = (0..10).map(|n| header.time - 5 + 10 * (n % 4)).collect();
    let mut all = [&times[..], &[header.time]].concat();
    all.sort_unstable();
    let work = Work::from_be_bytes(std::array::from_fn(|i| if i == 30 { 0xff } else { 0 }));
    let start = BitcoinStart::new(Network::Regtest, BitcoinHeight(2_016), header, work, times).unwrap();
    let mut child = unsolved(&header, 2);
    for (time, valid) in [(all[5], false), (all[5] + 1, true)] {
        child.time = time;
        let mut tree = HeaderTree::new(&start, 10);
        assert_eq!(extend(&mut tree, &[solve(child)]).is_ok(), valid, "{time}");
    }
}

#[test]
fn a_time_is_at_most_two_hours_ahead_of_the_block() {
    let time = regtest().header().time + 600;
    assert!(first_with(|_| {}, time - 7_200).is_ok());
    assert_eq!(
        first_with(|_| {}, time - 7_201),
        Err(InvalidHeaders::TimeTooNew { height: BitcoinHeight(1), got: time, max: u64::from(time) - 1 })
    );
    assert!(first_with(|header| header.time = u32::MAX, u32::MAX).is_ok());
}

#[test]
fn versions_below_four_are_over() {
    for (version, valid) in [(4, true), (i32::MAX, true), (3, false), (1, false), (0, false), (-1, false)] {
        let result = first_with(|header| header.version = Version::from_consensus(version), LATE);
        assert_eq!(result.is_ok(), valid, "{version}");
        if !valid {
            assert_eq!(result, Err(InvalidHeaders::Version { height: BitcoinHeight(1), got: version }));
        }
    }
}

#[test]
fn a_clone_shares_what_is_deep() {
    let mut tree = tree(10);
    extend(&mut tree, &mine(regtest().header(), 1_000, 1)).unwrap();
    let before = tree.clone();
    let tip = *tree.best(BitcoinHeight(1_000)).unwrap();
    extend(&mut tree, &mine(&tip, 1, 1)).unwrap();
    assert_eq!(before.tip().height, BitcoinHeight(1_000));
    assert!(std::ptr::eq(before.best(BitcoinHeight(700)).unwrap(), tree.best(BitcoinHeight(700)).unwrap()));
    assert_ne!(before, tree);
}
