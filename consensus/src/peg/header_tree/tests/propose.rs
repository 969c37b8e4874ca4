//! Runs that a proposer makes.

use super::*;
use proptest::prelude::*;
use proptest::sample::Index;

/// The run towards a node whose best chain is `chain`, from the genesis block on.
fn towards(tree: &HeaderTree, chain: &[Header], max: usize) -> Result<HeaderRun, NoRun> {
    let tip = BitcoinHeight(u32::try_from(chain.len()).unwrap() - 1);
    tree.run_towards(tip, LATE, max, |height| chain.get(height.to_u32() as usize).copied())
}

fn above_genesis(headers: &[Header]) -> Vec<Header> {
    [&[*regtest().header()][..], headers].concat()
}

#[test]
fn a_run_towards_a_longer_chain_takes_several_blocks() {
    let mut tree = tree(3);
    let chain = above_genesis(&mine(regtest().header(), 10, 1));
    for tip in [4, 8, 10] {
        let run = towards(&tree, &chain, 4).unwrap();
        tree.extend(&run, LATE, &mut RecordChanges::default()).unwrap();
        assert_eq!(tree.tip().hash, chain[tip].block_hash());
    }
    assert_eq!(towards(&tree, &chain, 4), Err(NoRun::UpToDate { height: BitcoinHeight(10) }));
    // A node that is behind, a little or a lot.
    assert_eq!(towards(&tree, &chain[..10], 4), Err(NoRun::UpToDate { height: BitcoinHeight(9) }));
    assert_eq!(towards(&tree, &chain[..3], 4), Err(NoRun::UpToDate { height: BitcoinHeight(2) }));
}

#[test]
fn a_branch_outweighs_within_one_run() {
    let mut tree = tree(6);
    let chain = above_genesis(&mine(regtest().header(), 6, 1));
    extend(&mut tree, &chain[1..]).unwrap();
    let fork = [&chain[..3], &mine(&chain[2], 9, 2)].concat();
    assert_eq!(towards(&tree, &fork, 4), Err(NoRun::TooLong { max: 4 }));
    assert_eq!(towards(&tree, &fork[..7], 9), Err(NoRun::Weaker { height: BitcoinHeight(6), tip: BitcoinHeight(6) }));
    let run = towards(&tree, &fork, 5).unwrap();
    assert_eq!((run.parent, run.headers.len()), (chain[2].block_hash(), 5));
    tree.extend(&run, LATE, &mut RecordChanges::default()).unwrap();
    assert_eq!(towards(&tree, &fork, 5).unwrap().headers.len(), 4);

    // What is known of a branch is not carried again, and counts.
    let back = [&chain[..], &mine(&chain[6], 3, 1)].concat();
    let run = towards(&tree, &back, 2).unwrap();
    assert_eq!((run.parent, run.headers.len()), (chain[6].block_hash(), 2));
    // A node on the branch that lost.
    assert_eq!(towards(&tree, &chain, 5), Err(NoRun::Weaker { height: BitcoinHeight(6), tip: BitcoinHeight(7) }));
}

#[test]
fn a_fork_too_deep_is_reported() {
    let mut tree = tree(3);
    extend(&mut tree, &mine(regtest().header(), 4, 1)).unwrap();
    let other = above_genesis(&mine(regtest().header(), 9, 2));
    assert_eq!(towards(&tree, &other, 20), Err(NoRun::ForkTooDeep { min: BitcoinHeight(1) }));
}

#[test]
fn headers_of_the_future_wait() {
    let tree = tree(3);
    let chain = above_genesis(&mine(regtest().header(), 3, 1));
    let at = |block_time| {
        tree.run_towards(BitcoinHeight(3), block_time, 9, |height| chain.get(height.to_u32() as usize).copied())
    };
    assert_eq!(at(chain[2].time - 7_200).unwrap().headers.len(), 2);
    assert_eq!(at(chain[3].time - 7_200).unwrap().headers.len(), 3);
    assert_eq!(at(chain[1].time - 7_201), Err(NoRun::UpToDate { height: BitcoinHeight(3) }));
}

#[test]
fn a_node_that_contradicts_itself_yields_no_run() {
    let tree = tree(3);
    let mut chain = above_genesis(&mine(regtest().header(), 3, 1));
    let missing = |height| Err(NoRun::Missing { height: BitcoinHeight(height) });
    assert_eq!(tree.run_towards(BitcoinHeight(3), LATE, 9, |_| None), missing(0));
    assert_eq!(
        tree.run_towards(BitcoinHeight(3), LATE, 9, |h| chain[..2].get(h.to_u32() as usize).copied()),
        missing(2)
    );
    chain[2] = mine(&chain[0], 1, 5)[0];
    assert_eq!(towards(&tree, &chain, 9), missing(2));
    for bits in [0, 0x0100_0001, 0xff7f_ffff, u32::MAX] {
        let mut easy = unsolved(&chain[1], 1);
        easy.bits = CompactTarget::from_consensus(bits);
        assert_eq!(towards(&tree, &[chain[0], chain[1], easy], 9), missing(2));
    }
}

proptest! {
    /// Wherever a node's chain forks off, following it ends at its tip, or for a reason.
    #[test]
    fn runs_lead_to_the_nodes_tip(
        forks in proptest::collection::vec((any::<Index>(), 1..9usize), 1..6),
        max in 1..9usize,
        fork_depth in 1..9u32,
    ) {
        let mut tree = tree(fork_depth);
        let mut chain = above_genesis(&[]);
        for (salt, (fork, count)) in (0..).zip(forks) {
            let fork = fork.index(chain.len());
            let new = mine(&chain[fork], count, salt);
            let other = [&chain[..=fork], &new].concat();
            let more = other.len() > chain.len();
            let near = u32::try_from(fork).unwrap() + fork_depth >= tree.highest().to_u32();
            let needed = if fork + 1 == chain.len() { 1 } else { chain.len() - fork };
            let mut end = None;
            for _ in 0..20 {
                match towards(&tree, &other, max) {
                    Ok(run) => {
                        prop_assert!(run.headers.len() <= max);
                        extend(&mut tree, &run_headers(&run)).unwrap();
                    }
                    Err(no_run) => { end = Some(no_run); break }
                }
            }
            match end.unwrap() {
                NoRun::UpToDate { height } => {
                    let behind = height.to_u32() < tree.lowest_fork_point();
                    prop_assert!(behind || tree.tip().hash == other.last().unwrap().block_hash());
                }
                NoRun::ForkTooDeep { .. } => prop_assert!(!near),
                NoRun::TooLong { .. } => prop_assert!(near && needed > max),
                NoRun::Weaker { .. } => prop_assert!(near && !more),
                NoRun::Missing { .. } => prop_assert!(false),
            }
            if tree.tip().hash == other.last().unwrap().block_hash() {
                chain = other;
            }
        }
    }
}

fn run_headers(run: &HeaderRun) -> Vec<Header> {
    let mut parent = run.parent;
    run.headers
        .iter()
        .map(|bare| {
            let header = bare.after(parent);
            parent = header.block_hash();
            header
        })
        .collect()
}
