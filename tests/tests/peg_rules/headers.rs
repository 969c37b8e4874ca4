//! Headers (PEG section 2): every rule that a block on regtest can break. `Empty` is refused with the encoding, and `TimeWarp`
//! is testnet4's.

use bitcoin::CompactTarget;
use bitcoin::block::Version;
use bitcoin::hashes::Hash;
use causeway_chainspec::BitcoinHeight;
use causeway_consensus::peg::InvalidPeg;
use causeway_consensus::peg::evidence::Evidence;
use causeway_consensus::peg::header_tree::{BareHeader, HeaderRun, InvalidHeaders};
use causeway_tests::parent::prove_work;

use crate::scene::Scene;

fn of(run: HeaderRun) -> Evidence {
    Evidence { headers: Some(run), ..Evidence::default() }
}

/// A run of one header on the tip, after an edit, with or without work.
fn one(scene: &Scene, work: bool, edit: impl FnOnce(&mut BareHeader)) -> HeaderRun {
    let mut parent = scene.parent.clone();
    parent.clock = scene.chain.next_context().time;
    parent.mine_empty(1);
    let mut run = parent.run_above(scene.parent.tip());
    edit(&mut run.headers[0]);
    let mut header = run.headers[0].after(run.parent);
    if work {
        prove_work(&mut header);
    } else {
        while header.target().is_met_by(header.block_hash()) {
            header.nonce += 1;
        }
    }
    run.headers[0] = BareHeader::from(&header);
    run
}

pub(crate) fn headers() {
    let mut scene = Scene::new();
    scene.parent.mine_empty(40);
    scene.parent.follow(&mut scene.chain);
    let tip = scene.parent.tip();
    let height = BitcoinHeight(tip.0 + 1);
    let refused = |scene: &Scene, run: HeaderRun, source: InvalidHeaders| {
        scene.refuses(of(run), InvalidPeg::Headers(source));
    };
    let right = one(&scene, true, |_| {});
    scene.accepts(of(right.clone()));

    let parent = bitcoin::BlockHash::from_byte_array([9; 32]);
    let min = BitcoinHeight(tip.0 - scene.chain.spec.params().fork_depth);
    let unknown = HeaderRun { parent, ..right.clone() };
    refused(&scene, unknown, InvalidHeaders::UnknownParent { parent, min });

    let wrong_bits = CompactTarget::from_consensus(0x207f_fffe);
    let bits = one(&scene, true, |header| header.bits = wrong_bits);
    let required = right.headers[0].bits;
    refused(&scene, bits, InvalidHeaders::Bits { height, got: wrong_bits, required });

    let idle = one(&scene, false, |_| {});
    let hash = idle.headers[0].after(idle.parent).block_hash();
    refused(&scene, idle, InvalidHeaders::ProofOfWork { height, hash, bits: required });

    let mut times: Vec<u32> =
        (tip.0 - 10..=tip.0).map(|h| scene.parent.header(BitcoinHeight(h)).expect("sound numbers").time).collect();
    times.sort_unstable();
    let median = times[5];
    scene.accepts(of(one(&scene, true, |header| header.time = median + 1)));
    let old = one(&scene, true, |header| header.time = median);
    refused(&scene, old, InvalidHeaders::TimeTooOld { height, got: median, median });

    let max = scene.chain.next_context().time + 7_200;
    scene.accepts(of(one(&scene, true, |header| header.time = max)));
    let new = one(&scene, true, |header| header.time = max + 1);
    refused(&scene, new, InvalidHeaders::TimeTooNew { height, got: max + 1, max: max.into() });

    scene.accepts(of(one(&scene, true, |header| header.version = Version::from_consensus(4))));
    for got in [3, 0, -1, i32::MIN] {
        let version = one(&scene, true, |header| header.version = Version::from_consensus(got));
        refused(&scene, version, InvalidHeaders::Version { height, got });
    }

    branches(scene, tip);
}

fn branches(mut scene: Scene, tip: BitcoinHeight) {
    // A run that starts with what is known.
    scene.parent.mine_empty(1);
    let hash = scene.parent.header(tip).expect("there").block_hash();
    let from_below = scene.parent.run_above(BitcoinHeight(tip.0 - 1));
    scene.refuses(of(from_below), InvalidPeg::Headers(InvalidHeaders::Known { hash }));

    // Branches of as much work and of more.
    let mut other = scene.parent.clone();
    other.rewind(BitcoinHeight(tip.0 - 2));
    other.mine_empty(2);
    let work = scene.peg().headers().chainwork();
    let equal = other.run_above(BitcoinHeight(tip.0 - 2));
    scene.refuses(of(equal), InvalidPeg::Headers(InvalidHeaders::NotMoreWork { got: work, tip: work }));
    other.mine_empty(1);
    let stronger = other.run_above(BitcoinHeight(tip.0 - 2));
    scene.accepts(of(stronger.clone()));
    let block = scene.evidence(of(stronger));
    scene.take(&block);
    assert_eq!(scene.peg().frozen(), None);

    // What lost is a branch, which may win again while it is not too deep.
    let lost = scene.parent.header(tip).expect("there").block_hash();
    let mut again = scene.parent.clone();
    again.mine_empty(2);
    let run = again.run_above(tip);
    assert_eq!(run.parent, lost);
    scene.accepts(of(run));

    let depth = scene.chain.spec.params().fork_depth;
    other.mine_empty(depth - 3);
    other.follow(&mut scene.chain);
    let highest = other.tip();
    assert_eq!(highest.0, tip.0 + depth - 2);
    again.mine_empty(depth);
    let run = again.run_above(tip);
    let connected = scene.accepts(of(run.clone()));
    assert!(connected.tip().peg().frozen().is_some());
    other.mine_empty(1);
    other.follow(&mut scene.chain);
    let source = InvalidHeaders::ForkTooDeep { parent: lost, max: depth, highest: other.tip() };
    scene.refuses(of(run), InvalidPeg::Headers(source));
}
