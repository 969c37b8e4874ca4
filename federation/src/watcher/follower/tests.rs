use std::collections::BTreeMap;

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash as _;
use bitcoin::transaction::Version as TxVersion;
use bitcoin::{Block, CompactTarget, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut, Witness};
use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { window: 1_000, watches: 100, facts: 10_000, deposit_min: Amount::from_sat(1_000) };

/// A script that is one of a few.
fn script(n: u8) -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x51, 0x01, n])
}

fn pays(value: u64, n: u8) -> TxOut {
    TxOut { value: Amount::from_sat(value), script_pubkey: script(n) }
}

fn spends(previous_output: OutPoint) -> TxIn {
    TxIn { previous_output, script_sig: ScriptBuf::new(), sequence: Sequence::MAX, witness: Witness::new() }
}

fn transaction(input: Vec<TxIn>, output: Vec<TxOut>) -> Transaction {
    Transaction { version: TxVersion::TWO, lock_time: LockTime::ZERO, input, output }
}

/// A block without proof of work. `salt` makes siblings differ.
fn block(parent: BlockHash, salt: u32, transactions: Vec<Transaction>) -> FullBlock {
    let mut coinbase = transaction(vec![spends(OutPoint::null())], vec![pays(5_000, 200)]);
    coinbase.input[0].script_sig = ScriptBuf::from_bytes(salt.to_le_bytes().to_vec());
    let mut txdata = vec![coinbase];
    txdata.extend(transactions);
    let header = Header {
        version: Version::TWO,
        prev_blockhash: parent,
        merkle_root: TxMerkleNode::all_zeros(),
        time: salt,
        bits: CompactTarget::from_consensus(0x207f_ffff),
        nonce: 0,
    };
    let mut block = Block { header, txdata };
    block.header.merkle_root = block.compute_merkle_root().unwrap();
    FullBlock::new(block).unwrap()
}

fn start() -> Header {
    block(BlockHash::all_zeros(), 0, vec![]).block().header
}

fn follower() -> Follower {
    Follower::new(LIMITS, BitcoinHeight(100), start())
}

fn at(height: u32) -> BitcoinHeight {
    BitcoinHeight(height)
}

/// What one would see who scans the whole chain for what is watched.
fn scan(chain: &[FullBlock], watches: &Watches) -> Facts {
    let mut facts = Facts::default();
    for (block, height) in chain.iter().zip(101_u32..) {
        let counts = |from: Option<&BitcoinHeight>| from.is_some_and(|from| from.0 <= height);
        for (index, tx) in block.block().txdata.iter().enumerate() {
            let place = Place { block: block.hash(), height: at(height), index: u32::try_from(index).unwrap() };
            let txid = tx.compute_txid();
            if counts(watches.txids.get(&txid)) {
                facts.confirmed.insert(txid, place);
            }
            for (vout, output) in tx.output.iter().enumerate() {
                let outpoint = OutPoint { txid, vout: u32::try_from(vout).unwrap() };
                if counts(watches.scripts.get(&output.script_pubkey)) && output.value >= LIMITS.deposit_min {
                    let script_pubkey = output.script_pubkey.clone();
                    facts.deposits.insert(outpoint, Deposit { script_pubkey, value: output.value, place });
                }
            }
            for input in &tx.input {
                let outpoint = input.previous_output;
                if counts(watches.outpoints.get(&outpoint)) || facts.deposits.contains_key(&outpoint) {
                    facts.spends.insert(outpoint, Spend { by: txid, place });
                }
            }
        }
    }
    facts
}

/// What happens to a follower in a random history.
#[derive(Clone, Debug)]
enum Event {
    /// A block with transactions, each of an output to a script and a spend of an earlier output by its number.
    Block {
        payments: Vec<(u64, u8, Option<usize>)>,
    },
    Disconnect,
    WatchScript {
        n: u8,
        from: u32,
    },
    WatchOutpoint {
        output: usize,
        from: u32,
    },
    WatchTxid {
        output: usize,
        from: u32,
    },
    UnwatchScript {
        n: u8,
    },
    UnwatchOutpoint {
        output: usize,
    },
    UnwatchTxid {
        output: usize,
    },
    Rescan {
        blocks: u8,
    },
}

fn event() -> impl Strategy<Value = Event> {
    let payment = (900_u64..2_000, 0_u8..6, proptest::option::of(0_usize..40));
    let (output, from) = (0_usize..40, 95_u32..130);
    prop_oneof![
        8 => proptest::collection::vec(payment, 0..5).prop_map(|payments| Event::Block { payments }),
        3 => Just(Event::Disconnect),
        2 => (0_u8..6, from.clone()).prop_map(|(n, from)| Event::WatchScript { n, from }),
        1 => (output.clone(), from.clone()).prop_map(|(output, from)| Event::WatchOutpoint { output, from }),
        1 => (output.clone(), from).prop_map(|(output, from)| Event::WatchTxid { output, from }),
        1 => (0_u8..6).prop_map(|n| Event::UnwatchScript { n }),
        1 => output.clone().prop_map(|output| Event::UnwatchOutpoint { output }),
        1 => output.prop_map(|output| Event::UnwatchTxid { output }),
        4 => (1_u8..4).prop_map(|blocks| Event::Rescan { blocks }),
    ]
}

/// A follower, the chain it follows, and every outpoint that was ever made on any branch.
struct World {
    follower: Follower,
    chain: Vec<FullBlock>,
    outpoints: Vec<OutPoint>,
    salt: u32,
}

impl World {
    fn rescan(&mut self, blocks: usize) {
        for _ in 0..blocks {
            let Some(next) = self.follower.rescan_next() else { return };
            if next < at(101) {
                // The first header has no block here: start above it.
                let lowest = Some(at(101)).filter(|next| *next <= self.follower.tip().0);
                self.follower.rescan = lowest;
                continue;
            }
            let block = &self.chain[usize::try_from(next.0 - 101).unwrap()];
            self.follower.rescanned(block).unwrap();
        }
    }

    fn happen(&mut self, event: Event) {
        let outpoints = &mut self.outpoints;
        let pick = |n: usize, of: &[OutPoint]| of.get(n % of.len().max(1)).copied();
        match event {
            Event::Block { payments } => {
                self.salt += 1;
                // Each output is spent at most once in a chain: what is spent here has to be unspent in it.
                let spent: Vec<OutPoint> = self
                    .chain
                    .iter()
                    .flat_map(|block| block.block().txdata.iter().flat_map(|tx| &tx.input))
                    .map(|input| input.previous_output)
                    .collect();
                let mut here = Vec::new();
                let mut transactions = Vec::new();
                for (value, n, input) in payments {
                    let input = input
                        .and_then(|input| pick(input, outpoints))
                        .filter(|input| !spent.contains(input) && !here.contains(input));
                    // A coin that nobody made: enough to make transactions differ.
                    let filler = OutPoint { txid: Txid::all_zeros(), vout: self.salt * 100 + u32::from(n) };
                    here.extend(input);
                    let tx = transaction(
                        vec![spends(input.unwrap_or(filler))],
                        vec![pays(value, n), pays(value + 500, (n + 1) % 6)],
                    );
                    let txid = tx.compute_txid();
                    if transactions.iter().any(|other: &Transaction| other.compute_txid() == txid) {
                        continue;
                    }
                    outpoints.extend((0..2).map(|vout| OutPoint { txid, vout }));
                    transactions.push(tx);
                }
                let (_, tip) = self.follower.tip();
                let block = block(tip, self.salt, transactions);
                self.follower.connected(&block).unwrap();
                self.chain.push(block);
            }
            Event::Disconnect => {
                let (_, tip) = self.follower.tip();
                match self.chain.pop() {
                    Some(_) => self.follower.disconnected(tip).unwrap(),
                    None => {
                        assert!(matches!(self.follower.disconnected(tip), Err(FollowError::BelowWindow { .. })));
                    }
                }
            }
            Event::WatchScript { n, from } => drop(self.follower.watch(Watch::Script(script(n)), at(from)).unwrap()),
            Event::WatchOutpoint { output, from } => {
                if let Some(outpoint) = pick(output, outpoints) {
                    self.follower.watch(Watch::Outpoint(outpoint), at(from)).unwrap();
                }
            }
            Event::WatchTxid { output, from } => {
                if let Some(outpoint) = pick(output, outpoints) {
                    self.follower.watch(Watch::Txid(outpoint.txid), at(from)).unwrap();
                }
            }
            Event::UnwatchScript { n } => drop(self.follower.unwatch(&[Watch::Script(script(n))])),
            Event::UnwatchOutpoint { output } => {
                if let Some(outpoint) = pick(output, outpoints) {
                    self.follower.unwatch(&[Watch::Outpoint(outpoint)]);
                }
            }
            Event::UnwatchTxid { output } => {
                if let Some(outpoint) = pick(output, outpoints) {
                    self.follower.unwatch(&[Watch::Txid(outpoint.txid)]);
                }
            }
            Event::Rescan { blocks } => self.rescan(blocks.into()),
        }
    }

    /// Facts are those of a scan from scratch; while a rescan is under way, they are among them.
    fn check(&self) {
        let expected = scan(&self.chain, self.follower.watches());
        let facts = &**self.follower.facts();
        if self.follower.rescan_next().is_none() {
            assert_eq!(*facts, expected);
        }
        fn within<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
            part: &BTreeMap<K, V>,
            whole: &BTreeMap<K, V>,
        ) {
            for (key, value) in part {
                assert_eq!(whole.get(key), Some(value), "{key:?}");
            }
        }
        within(&facts.deposits, &expected.deposits);
        within(&facts.spends, &expected.spends);
        within(&facts.confirmed, &expected.confirmed);
        let window = self.follower.headers();
        for (block, height) in self.chain.iter().zip(101_u32..) {
            assert_eq!(window.hash(at(height)), Some(block.hash()));
            assert_eq!(window.height_of(&block.hash()), Some(at(height)));
        }
        assert_eq!(window.count(), self.chain.len() + 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn facts_are_those_of_a_scan_from_scratch(events in proptest::collection::vec(event(), 1..80)) {
        let mut world = World { follower: follower(), chain: vec![], outpoints: vec![], salt: 0 };
        for event in events {
            world.happen(event);
            world.check();
        }
        world.rescan(usize::MAX);
        world.check();

        // And what is written down comes back.
        let bytes = crate::watcher::file::encode(bitcoin::Network::Regtest, &world.follower);
        let content = crate::watcher::file::parse(&bytes).unwrap();
        let restored = crate::watcher::file::restore(content, |_| true, LIMITS).unwrap();
        prop_assert_eq!(restored.headers(), world.follower.headers());
        prop_assert_eq!(restored.facts(), world.follower.facts());
        prop_assert_eq!(restored.watches(), world.follower.watches());
        prop_assert_eq!(restored.rescan_next(), world.follower.rescan_next());
    }
}

#[test]
fn only_what_links_is_connected() {
    let mut follower = follower();
    let (_, tip) = follower.tip();
    let first = block(tip, 1, vec![]);
    let second = block(first.hash(), 2, vec![]);
    assert!(matches!(follower.connected(&second), Err(FollowError::NotOnTip { .. })));
    follower.connected(&first).unwrap();
    assert!(matches!(follower.connected(&first), Err(FollowError::NotOnTip { .. })));
    follower.connected_header(second.block().header).unwrap();
    assert_eq!(follower.tip(), (at(102), second.hash()));
    assert!(matches!(follower.disconnected(first.hash()), Err(FollowError::NotTip { .. })));
    follower.disconnected(second.hash()).unwrap();
    assert_eq!(follower.tip(), (at(101), first.hash()));
}

#[test]
fn a_block_that_matters_is_not_taken_by_its_header() {
    let mut follower = follower();
    follower.watch(Watch::Script(script(1)), at(102)).unwrap();
    let first = block(follower.tip().1, 1, vec![]);
    follower.connected_header(first.block().header).unwrap();
    let second = block(first.hash(), 2, vec![]);
    let refused = follower.connected_header(second.block().header);
    assert_eq!(refused, Err(FollowError::BlockWanted { wanted: second.hash() }));
    follower.connected(&second).unwrap();
}

#[test]
fn the_window_is_bounded_and_grows_down_for_a_scan() {
    let mut follower = Follower::new(Limits { window: 3, ..LIMITS }, at(100), start());
    let mut blocks = vec![];
    for salt in 1..=10 {
        let filler = OutPoint { txid: Txid::all_zeros(), vout: salt };
        let block = block(follower.tip().1, salt, vec![transaction(vec![spends(filler)], vec![pays(1_000, 1)])]);
        follower.connected(&block).unwrap();
        blocks.push(block);
    }
    assert_eq!((follower.headers().bottom().0, follower.headers().count()), (at(108), 3));

    follower.watch(Watch::Script(script(1)), at(105)).unwrap();
    assert_eq!(follower.rescan_next(), Some(at(105)));
    assert!(matches!(follower.rescanned(&blocks[4]), Err(FollowError::BelowWindow { .. })));
    assert!(follower.extend_below(blocks[5].block().header).is_err());
    for block in blocks[4..7].iter().rev() {
        follower.extend_below(block.block().header).unwrap();
    }
    assert!(matches!(follower.rescanned(&blocks[5]), Err(FollowError::BlockWanted { .. })));
    for block in &blocks[4..] {
        follower.rescanned(block).unwrap();
    }
    assert_eq!(follower.rescan_next(), None);
    assert_eq!(follower.facts().deposits().len(), 6);
    assert_eq!((follower.headers().bottom().0, follower.headers().count()), (at(108), 3));

    // Down to its bottom it can be reorganised, and no deeper.
    for height in [110, 109] {
        assert_eq!(follower.tip().0, at(height));
        follower.disconnected(follower.tip().1).unwrap();
    }
    assert_eq!(follower.facts().deposits().len(), 4);
    let refused = follower.disconnected(follower.tip().1);
    assert_eq!(refused, Err(FollowError::BelowWindow { bottom: at(108) }));
}

#[test]
fn watches_and_facts_are_bounded() {
    let mut follower = Follower::new(Limits { watches: 1, facts: 1, ..LIMITS }, at(100), start());
    assert_eq!(follower.watch(Watch::Script(script(1)), at(101)), Ok(true));
    assert_eq!(follower.watch(Watch::Script(script(1)), at(102)), Ok(false));
    let refused = follower.watch(Watch::Txid(Txid::all_zeros()), at(101));
    assert_eq!(refused, Err(FollowError::TooManyWatches { max: 1 }));

    let pay = |salt| transaction(vec![spends(OutPoint { txid: Txid::all_zeros(), vout: salt })], vec![pays(1_000, 1)]);
    let first = block(follower.tip().1, 1, vec![pay(1)]);
    follower.connected(&first).unwrap();
    // The same facts again are not more facts.
    follower.watch(Watch::Script(script(1)), at(100)).unwrap();
    follower.rescan = Some(at(101));
    follower.rescanned(&first).unwrap();
    let second = block(first.hash(), 2, vec![pay(2)]);
    let (before, tip) = (follower.facts().clone(), follower.tip());
    assert_eq!(follower.connected(&second), Err(FollowError::TooManyFacts { max: 1 }));
    assert_eq!((follower.facts(), follower.tip()), (&before, tip));
    assert_eq!(follower.unwatch(&[Watch::Script(script(1)), Watch::Script(script(2))]), 1);
    assert_eq!(follower.facts().count(), 0);
    follower.connected(&second).unwrap();
}

#[test]
fn blocks_that_do_not_fit_their_header_are_refused() {
    use crate::bitcoind::BlockFault;
    let pay = |salt| transaction(vec![spends(OutPoint { txid: Txid::all_zeros(), vout: salt })], vec![pays(1_000, 1)]);
    let good = block(BlockHash::all_zeros(), 1, vec![pay(1), pay(2)]).into_block();
    let hash = good.block_hash();

    let mut missing = good.clone();
    missing.txdata.pop();
    assert_eq!(FullBlock::new(missing), Err(BlockFault::MerkleRoot { hash }));
    let mut none = good.clone();
    none.txdata.clear();
    assert_eq!(FullBlock::new(none), Err(BlockFault::MerkleRoot { hash }));
    // Three transactions have the root of four whose last two are equal.
    let mut repeated = good.clone();
    repeated.txdata.push(repeated.txdata[2].clone());
    assert_eq!(FullBlock::new(repeated), Err(BlockFault::Repeated { hash }));
    let mut swapped = good.clone();
    swapped.txdata.swap(0, 1);
    swapped.header.merkle_root = swapped.compute_merkle_root().unwrap();
    let hash = swapped.block_hash();
    assert_eq!(FullBlock::new(swapped), Err(BlockFault::Coinbase { hash }));
    let mut witness = good;
    witness.txdata[1].input[0].witness.push([1]);
    let hash = witness.block_hash();
    assert_eq!(FullBlock::new(witness), Err(BlockFault::WitnessCommitment { hash }));
}
