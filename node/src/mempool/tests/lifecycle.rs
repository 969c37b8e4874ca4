//! Blocks come, checks come late, nodes restart.

use std::cell::RefCell;
use std::sync::Arc;

use bitcoin::absolute::LockTime;
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::{OutPoint, Sequence, Transaction, Txid};
use causeway_chainspec::Height;
use causeway_consensus::{ChainView, Coin, StateFault, Tip};

use crate::mempool::snapshot::{SNAPSHOT_VERSION, SnapshotEntry, SnapshotError, decode, encode};
use crate::mempool::{Departed, Departure, NotYet, Outcome, Policy, Reject};
use crate::testing::{Bench, COIN, Chain, START_S, first_output, pay};

#[test]
fn a_block_takes_what_it_holds_and_what_it_contradicts() {
    let mut bench = Bench::new();
    let [a, b, c] = [bench.coin(), bench.coin(), bench.coin()];
    let parent = pay(&[a], &[COIN - 1_000]);
    let child = pay(&[first_output(&parent)], &[COIN - 3_000]);
    let doomed = pay(&[b], &[COIN - 1_000]);
    let doomed_child = pay(&[first_output(&doomed), c], &[COIN]);
    for transaction in [&parent, &child, &doomed, &doomed_child] {
        bench.add(transaction);
    }
    let rival = pay(&[b], &[COIN - 500]);
    let mut departed = bench.commit_transactions(vec![parent.clone(), rival], 1_500);
    departed.sort_by_key(|departed| (departed.why as u8, departed.txid));
    let left = |transaction: &Transaction, why| Departed { txid: transaction.compute_txid(), why };
    let mut expected = [
        left(&parent, Departure::Confirmed),
        left(&doomed, Departure::Conflicted),
        left(&doomed_child, Departure::Conflicted),
    ];
    expected.sort_by_key(|departed| (departed.why as u8, departed.txid));
    assert_eq!(departed, expected);
    let entry = bench.pool.get(&child.compute_txid()).expect("its parent is confirmed");
    assert_eq!((entry.ancestors().count, entry.parents().len()), (1, 0));
    bench.pool.graph.assert_consistent();
    bench.mine();
    assert!(bench.pool.is_empty());
}

#[test]
fn a_check_that_comes_late_is_made_again_without_its_scripts() {
    let mut bench = Bench::new();
    let [a, b, c] = [bench.coin(), bench.coin(), bench.coin()];
    let payment = pay(&[a], &[COIN - 1_000]);
    let checked = bench.check(&payment).expect("valid");
    bench.commit_transactions(vec![], 0);
    let Outcome::Again(request) = bench.pool.finish(checked, bench.now_s).outcome else { panic!("the tip moved") };
    assert_eq!(request.wtxid(), payment.compute_wtxid());
    let checked = request.resolve(&bench.chain).expect("the coin is there").run().expect("valid");
    let outcome = bench.pool.finish(checked, bench.now_s).outcome;
    assert!(matches!(outcome, Outcome::Accepted { txid, .. } if txid == payment.compute_txid()));

    // Its coin was spent meanwhile.
    let late = bench.check(&pay(&[b], &[COIN - 1_000])).expect("valid");
    bench.commit_transactions(vec![pay(&[b], &[COIN])], 0);
    let Outcome::Again(request) = bench.pool.finish(late, bench.now_s).outcome else { panic!("the tip moved") };
    let error = request.resolve(&bench.chain).expect_err("spent");
    assert_eq!(error.to_string(), "bad-txns-inputs-missingorspent");

    // The chain moves every time.
    let mut late = bench.check(&pay(&[c], &[COIN - 1_000])).expect("valid");
    for _ in 0..8 {
        bench.commit_transactions(vec![], 0);
        let Outcome::Again(request) = bench.pool.finish(late, bench.now_s).outcome else { panic!("the tip moved") };
        late = request.resolve(&bench.chain).expect("there").run().expect("valid");
    }
    bench.commit_transactions(vec![], 0);
    let outcome = bench.pool.finish(late, bench.now_s).outcome;
    assert!(matches!(outcome, Outcome::Rejected(Reject::NotYet(NotYet::ChainMoved))));
}

#[test]
fn a_parent_that_left_meanwhile_is_looked_up_again() {
    let mut bench = Bench::new();
    let coin = bench.coin();
    let parent = pay(&[coin], &[COIN - 1_000]);
    bench.add(&parent);
    let child = bench.check(&pay(&[first_output(&parent)], &[COIN - 2_000])).expect("valid");
    bench.submit(&pay(&[coin], &[COIN - 5_000])).expect("replaces the parent");
    let Outcome::Again(request) = bench.pool.finish(child, bench.now_s).outcome else { panic!("the parent left") };
    assert_eq!(request.resolve(&bench.chain).expect_err("gone").to_string(), "bad-txns-inputs-missingorspent");

    // Confirmed, it is found in the chain.
    let coin = bench.coin();
    let parent = pay(&[coin], &[COIN - 1_000]);
    bench.add(&parent);
    let child = bench.check(&pay(&[first_output(&parent)], &[COIN - 2_000])).expect("valid");
    bench.mine();
    let Outcome::Again(request) = bench.pool.finish(child, bench.now_s).outcome else { panic!("the tip moved") };
    let checked = request.resolve(&bench.chain).expect("in the chain").run().expect("valid");
    assert!(matches!(bench.pool.finish(checked, bench.now_s).outcome, Outcome::Accepted { .. }));
}

/// A chain that grows whenever someone looks.
struct Restless(RefCell<Vec<Chain>>);

impl ChainView for Restless {
    fn tip(&self) -> Arc<Tip> {
        let mut chains = self.0.borrow_mut();
        let tip = chains[0].tip();
        if chains.len() > 1 {
            chains.remove(0);
        }
        tip
    }

    fn coins(&self, outpoints: &[OutPoint]) -> Result<Vec<Option<Coin>>, StateFault> {
        self.0.borrow()[0].coins(outpoints)
    }

    fn median_times(&self, heights: &[Height]) -> Result<Vec<u32>, StateFault> {
        self.0.borrow()[0].median_times(heights)
    }
}

#[test]
fn coins_of_two_states_are_never_mixed() {
    let mut bench = Bench::new();
    let coin = bench.coin();
    let payment = pay(&[coin], &[COIN - 1_000]);
    let request = bench.pool.begin(payment, bench.now_s).expect("stands");
    let mut chains = vec![bench.chain.clone()];
    for _ in 0..9 {
        bench.commit_transactions(vec![], 0);
        chains.push(bench.chain.clone());
    }
    let view = |chains: &[Chain]| Restless(RefCell::new(chains.to_vec()));
    let error = request.clone().resolve(&view(&chains)).expect_err("every look sees another tip");
    assert_eq!(error.to_string(), "chain moved during the check");
    request.resolve(&view(&chains[..3])).expect("at rest after two blocks").run().expect("valid");
}

#[test]
fn the_same_transaction_checked_twice_enters_once() {
    let mut bench = Bench::new();
    let coin = bench.coin();
    let payment = pay(&[coin], &[COIN - 1_000]);
    let [first, second] = [bench.check(&payment).expect("valid"), bench.check(&payment).expect("valid")];
    assert!(matches!(bench.pool.finish(first, bench.now_s).outcome, Outcome::Accepted { .. }));
    let outcome = bench.pool.finish(second, bench.now_s).outcome;
    assert!(matches!(outcome, Outcome::Rejected(reject) if reject.reason() == "txn-already-in-mempool"));
}

#[test]
fn of_two_that_were_checked_side_by_side_the_second_pays_for_the_first() {
    let mut bench = Bench::new();
    let coin = bench.coin();
    let checked = [1_000, 1_005, 1_010].map(|fee| bench.check(&pay(&[coin], &[COIN - fee])).expect("valid"));
    let outcomes = checked.map(|checked| bench.pool.finish(checked, bench.now_s).outcome);
    assert!(matches!(&outcomes[0], Outcome::Accepted { .. }));
    assert!(matches!(&outcomes[1], Outcome::Rejected(reject) if reject.reason() == "insufficient fee"));
    assert!(matches!(&outcomes[2], Outcome::Accepted { .. }));
}

#[test]
fn a_check_says_what_holds_at_the_tip_it_was_made_at() {
    let mut bench = Bench::new();
    let coin = bench.coin();
    let before = bench.chain.clone();
    bench.commit_transactions(vec![], 0);
    let mut payment = pay(&[coin], &[COIN - 1_000]);
    payment.lock_time = LockTime::from_consensus(bench.chain.tip.height().to_u32());
    payment.input[0].sequence = Sequence::ENABLE_LOCKTIME_NO_RBF;
    let request = bench.pool.begin(payment, bench.now_s).expect("final in the next block");
    let error = request.clone().resolve(&before).expect("the coin is there").run().expect_err("one block too early");
    assert_eq!(error.to_string(), "non-final");
    request.resolve(&bench.chain).expect("there").run().expect("final");
}

#[test]
fn locks_that_are_open_stay_open() {
    let mut bench = Bench::new();
    let coin = bench.coin();
    let mut parent = pay(&[coin], &[COIN - 1_000]);
    parent.input[0].sequence = Sequence::from_height(100);
    // No block and no time after its parent: the same block will do.
    let mut child = pay(&[first_output(&parent)], &[COIN - 2_000]);
    child.input[0].sequence = Sequence::from_512_second_intervals(0);
    bench.add(&parent);
    bench.add(&child);
    let mut locked = pay(&[first_output(&child)], &[COIN - 3_000]);
    locked.input[0].sequence = Sequence::from_height(1);
    assert_eq!(bench.reason(&locked), "non-BIP68-final");
    for _ in 0..3 {
        bench.commit_transactions(vec![], 0);
    }
    bench.mine();
    assert!(bench.pool.is_empty());
    bench.add(&locked);
    bench.mine();
}

#[test]
fn only_what_enters_is_remembered_as_verified() {
    let mut bench = Bench::new();
    let (a, b) = (bench.coin(), bench.coin());
    let accepted = pay(&[a], &[COIN - 1_000]);
    let refused = pay(&[b], &[COIN - 1]);
    bench.add(&accepted);
    assert_eq!(bench.reason(&refused), "min relay fee not met");
    assert!(bench.pool.scripts().contains(&accepted.compute_wtxid()));
    assert!(!bench.pool.scripts().contains(&refused.compute_wtxid()));
}

fn restart(bench: &Bench, entries: Vec<SnapshotEntry>) -> Bench {
    let mut again = Bench::on(bench.chain.clone(), Policy::default());
    again.now_s = bench.now_s + 60;
    for SnapshotEntry { entered_s, transaction } in entries {
        let request = again.pool.begin_again(transaction, entered_s, again.now_s).expect("as before");
        let checked = request.resolve(&again.chain).expect("there").run().expect("valid");
        assert!(matches!(again.pool.finish(checked, again.now_s).outcome, Outcome::Accepted { .. }));
    }
    again
}

#[test]
fn a_pool_survives_a_restart() {
    let mut bench = Bench::new();
    let (a, b) = (bench.coin(), bench.coin());
    let mut tip = a;
    for i in 1..=5 {
        bench.now_s += 10;
        tip = bench.add(&pay(&[tip], &[COIN - 1_000 * i]));
    }
    bench.add(&pay(&[b, tip], &[COIN]));
    let bytes = encode(&bench.pool);
    let again = restart(&bench, decode(&bytes, bytes.len()).expect("just written"));
    let kept = |bench: &Bench| -> Vec<(Txid, u64)> {
        let mut kept: Vec<_> = bench.pool.entries().map(|entry| (entry.txid(), entry.entered_s())).collect();
        kept.sort_unstable();
        kept
    };
    assert_eq!(kept(&bench), kept(&again));
    assert!(kept(&again).iter().any(|(_, entered_s)| *entered_s == START_S + 10));
    assert_eq!(encode(&again.pool), bytes);
    again.pool.graph.assert_consistent();
}

#[test]
fn bytes_that_are_no_snapshot() {
    let mut bench = Bench::new();
    let coin = bench.coin();
    bench.add(&pay(&[coin], &[COIN - 1_000]));
    let bytes = encode(&bench.pool);
    let sealed = |body: &[u8]| [body, sha256d::Hash::hash(body).as_ref()].concat();
    let read = |bytes: &[u8]| decode(bytes, 10_000).map(|entries| entries.len());
    assert_eq!(read(&bytes), Ok(1));
    assert_eq!(read(&encode(&Bench::new().pool)), Ok(0));
    let long = bytes.len();
    assert_eq!(decode(&bytes, long - 1), Err(SnapshotError::TooLong { bytes: long, max: long - 1 }));
    assert_eq!(read(b""), Err(SnapshotError::NotASnapshot));
    assert_eq!(read(b"CWMP\x01\0"), Err(SnapshotError::NotASnapshot));
    assert_eq!(read(b"CWMP\x02\0\0\0rest"), Err(SnapshotError::Version { found: SNAPSHOT_VERSION + 1 }));
    assert_eq!(read(&bytes[..long - 1]), Err(SnapshotError::Checksum));
    assert_eq!(read(&bytes[..20]), Err(SnapshotError::Checksum));
    for place in [8, 20, 60, long - 1] {
        let mut altered = bytes.clone();
        altered[place] ^= 1;
        assert_eq!(read(&altered), Err(SnapshotError::Checksum), "{place}");
    }
    let body = &bytes[..long - 32];
    let cut = sealed(&body[..body.len() - 1]);
    assert_eq!(read(&cut), Err(SnapshotError::Malformed { offset: 12 }));
    assert_eq!(read(&sealed(&body[..10])), Err(SnapshotError::Malformed { offset: 10 }));
    let longer = sealed(&[body, &[0]].concat());
    assert_eq!(read(&longer), Err(SnapshotError::Malformed { offset: body.len() }));
    let mut many = body.to_vec();
    many[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(read(&sealed(&many)), Err(SnapshotError::Malformed { offset: 12 }));
}

#[test]
#[should_panic(expected = "one by one")]
fn a_block_that_is_skipped_is_noticed() {
    let mut bench = Bench::new();
    let tip = bench.chain.tip.clone();
    bench.commit_transactions(vec![], 0);
    let block = bitcoin::consensus::serialize(&causeway_consensus::assemble::assemble_block(
        &tip,
        tip.time() + 1,
        bitcoin::Amount::ZERO,
        bitcoin::ScriptBuf::new(),
        vec![],
    ));
    let block = causeway_consensus::parse_block(block).expect("parses");
    let tip = bench.chain.tip.clone();
    bench.pool.connected(&block, &tip, START_S);
}
