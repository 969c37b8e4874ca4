//! Final blocks and certificates that a disk has lost: noted by whoever reads them, and fetched again with their proof.

use std::fs;
use std::path::Path;

use bitcoin::secp256k1::SECP256K1;
use bitcoin::{Amount, ScriptBuf};
use causeway_chainspec::{ChainSpec, Height, devnet};
use causeway_consensus::assemble::assemble_block;
use causeway_consensus::bft::{CommitCertificate, Key, ValidatorSet, Vote, VoteType};
use causeway_consensus::state::{CoinFlush, FAMILIES, Store, family_options};
use causeway_consensus::{ChainView, check_block, parse_block};
use causeway_node::home::Home;
use causeway_node::machine::jobs::{FillJob, Proof};
use causeway_node::wire::FinalBlock;
use causeway_tests::history::History;
use causeway_tests::nodes::{Nodes, run_to_end, spec};
use causeway_tests::replay::{connect, open_store, replay, workers};
use rocksdb::{ColumnFamilyDescriptor, DB, Options};
use tempfile::TempDir;

fn directory() -> TempDir {
    TempDir::new().expect("a temporary directory")
}

fn raw_database(store: &Path) -> DB {
    let families = FAMILIES.map(|name| ColumnFamilyDescriptor::new(name, family_options(name)));
    DB::open_cf_descriptors(&Options::default(), store.join("chain"), families).expect("opens")
}

/// Takes the block of one height and the certificate of another from a closed store.
fn lose(store: &Path, block: u32, certificate: u32) {
    let db = raw_database(store);
    for (family, height) in [("blocks", block), ("certificates", certificate)] {
        let family = db.cf_handle(family).expect("there");
        assert!(db.get_cf(family, height.to_be_bytes()).expect("readable").is_some());
        db.delete_cf(family, height.to_be_bytes()).expect("deleted");
    }
}

/// A block of the devnet above the tip, with a certificate that proves it.
fn commit_proven(store: &Store) -> FinalBlock {
    let spec = ChainSpec::built_in("devnet").expect("built in");
    let tip = store.tip();
    let block = assemble_block(&tip, tip.time() + 1, Amount::ZERO, ScriptBuf::new(), Vec::new());
    let connected = connect(store, &spec, &workers(), bitcoin::consensus::serialize(&block));
    let (height, hash) = (connected.tip().height(), connected.tip().hash());
    let set = ValidatorSet::new(spec.validators()).expect("a set");
    let signatures = (0..3).map(|index| {
        let key = devnet::secret_key(devnet::VALIDATOR, index).keypair(SECP256K1);
        let vote = Vote::new(VoteType::Precommit, height, 0, Some(hash), Key::address(&key));
        (Key::address(&key), Key::sign(&key, &vote.digest(spec.chain_id())).expect("a signature"))
    });
    let certificate = CommitCertificate::new(&set, height, 0, hash, signatures).expect("of the set").encode();
    store.commit(&connected, &certificate, CoinFlush::WithBlock).expect("commits");
    FinalBlock { certificate: certificate.into(), block: connected.block().bytes().to_vec().into() }
}

/// The job that puts what a peer sends back in its place, and what comes of it.
fn fill(store: &Store, height: Height, block: &FinalBlock) -> Option<bool> {
    let spec = ChainSpec::built_in("devnet").expect("built in");
    let set = ValidatorSet::new(spec.validators()).expect("a set");
    let certificate = CommitCertificate::decode(&block.certificate).expect("readable");
    let proof = Proof { certificate, chain: spec.chain_id(), set, height };
    let checked = FillJob { block: block.clone(), proof }.check(spec.params())?;
    Some(store.fill_hole(height, &checked, &block.certificate).expect("writes"))
}

#[test]
fn a_block_or_certificate_that_is_gone_is_noted_and_put_back_with_its_proof_only() {
    let home = directory();
    let store = open_store(home.path()).expect("opens");
    let blocks: Vec<_> = (0..5).map(|_| commit_proven(&store)).collect();
    drop(store);
    lose(home.path(), 102, 103);
    let store = open_store(home.path()).expect("opens");
    assert_eq!(store.holes(), [], "nobody has looked");
    for height in (101..=105).map(Height) {
        let of_height = &blocks[height.to_u32() as usize - 101];
        let block = store.block_bytes(height).expect("readable");
        assert_eq!(block.as_deref(), (height != Height(102)).then_some(&of_height.block[..]));
        let certificate = store.certificate(height).expect("readable");
        assert_eq!(certificate.as_deref(), (height != Height(103)).then_some(&of_height.certificate[..]));
    }
    assert_eq!(store.block_bytes(Height(106)).expect("readable"), None);
    assert_eq!(store.certificate(Height(50)).expect("readable"), None);
    assert_eq!(store.holes(), [Height(102), Height(103)], "neither above the tip nor below the first proof");
    drop(store);
    let store = open_store(home.path()).expect("opens");
    assert_eq!(store.holes(), [Height(102), Height(103)], "remembered");

    // A certificate of another height, the block of another height, and a body that is not that of its header.
    let [_, lost, ..] = &blocks[..] else { panic!("five blocks") };
    assert_eq!(fill(&store, Height(102), &blocks[3]), None);
    assert_eq!(fill(&store, Height(102), &FinalBlock { block: blocks[3].block.clone(), ..lost.clone() }), None);
    let mut altered = lost.block.to_vec();
    *altered.last_mut().expect("bytes") ^= 1;
    assert_eq!(fill(&store, Height(102), &FinalBlock { block: altered.into(), ..lost.clone() }), None);
    assert_eq!(store.holes().len(), 2);
    for height in [102, 103] {
        assert_eq!(fill(&store, Height(height), &blocks[height as usize - 101]), Some(true));
    }
    assert_eq!(store.holes(), []);
    drop(store);
    let store = open_store(home.path()).expect("opens");
    assert_eq!(store.holes(), []);
    for (height, block) in (101..).map(Height).zip(&blocks) {
        assert_eq!(store.block_bytes(height).expect("readable").as_deref(), Some(&block.block[..]));
        assert_eq!(store.certificate(height).expect("readable").as_deref(), Some(&block.certificate[..]));
    }
    // One that is proven, but of another chain's history, has no place.
    let checked = check_block(
        parse_block(blocks[0].block.to_vec()).expect("parses"),
        ChainSpec::built_in("devnet").expect("built in").params(),
    );
    assert!(!store.fill_hole(Height(104), &checked.expect("right"), b"").expect("readable"));
}

/// A table that is lost is the newest that may be: the tip's records are in it, and some before.
#[test]
fn what_went_with_the_newest_table_is_noted_when_the_store_opens() {
    let home = directory();
    let store = open_store(home.path()).expect("opens");
    let blocks: Vec<_> = (0..5).map(|_| commit_proven(&store)).collect();
    drop(store);
    lose(home.path(), 105, 104);
    let store = open_store(home.path()).expect("opens");
    assert_eq!(store.holes(), [Height(104), Height(105)]);
    assert_eq!(store.tip().height(), Height(105));
    for height in [104, 105] {
        assert_eq!(fill(&store, Height(height), &blocks[height as usize - 101]), Some(true));
    }
    commit_proven(&store);
    drop(store);
    assert_eq!(open_store(home.path()).expect("opens").holes(), []);
}

/// A block's body is in a file beside the tables: what it holds is read by nobody who validates.
#[test]
fn a_block_that_cannot_be_read_is_a_hole_and_stops_nothing() {
    let home = directory();
    let history = History::new(8, 40, 40);
    let store = open_store(home.path()).expect("opens");
    replay(&store, &history.blocks, CoinFlush::WithBlock, std::io::sink()).expect("replays");
    drop(store);
    drop(open_store(home.path()).expect("opens, and moves what the logs hold into files"));
    let mut damaged = 0;
    for entry in fs::read_dir(home.path().join("chain")).expect("readable") {
        let path = entry.expect("readable").path();
        if path.extension().is_some_and(|end| end == "blob") {
            let mut bytes = fs::read(&path).expect("readable");
            let length = bytes.len();
            bytes[length / 2..length / 2 + 8].fill(0xa5);
            fs::write(&path, bytes).expect("written");
            damaged += 1;
        }
    }
    assert!(damaged > 0, "there are bodies");
    let store = open_store(home.path()).expect("opens");
    let tip = store.tip().height();
    let read = |height| store.block_bytes(Height(height)).expect("no fault").is_some();
    let lost: Vec<_> = (101..=tip.to_u32()).filter(|height| !read(*height)).map(Height).collect();
    assert!(!lost.is_empty());
    assert_eq!(store.holes(), lost);
    let spec = ChainSpec::built_in("devnet").expect("built in");
    for height in lost {
        let index = (height.to_u32() - 101) as usize;
        let block = check_block(parse_block(history.blocks[index].clone()).expect("parses"), spec.params());
        assert!(store.fill_hole(height, &block.expect("right"), b"a proof").expect("writes"));
        assert_eq!(store.block_bytes(height).expect("readable").as_ref(), Some(&history.blocks[index]));
    }
    assert_eq!(store.holes(), []);
    commit_proven(&store);
}

/// Real processes: what one of them lost is found by `causeway check`, and comes back from the others.
#[test]
fn a_node_gets_back_what_its_disk_has_lost() {
    let mut nodes = Nodes::create(spec(4, 300), 0);
    nodes.start_all();
    nodes.wait_height(106);
    nodes.stop([3]);
    let home = Home::at(&nodes.node(3).home);
    lose(&home.store(), 102, 104);
    let path = nodes.node(3).home.display().to_string();
    let check = || run_to_end(&["check", "--home", &path]);
    let (ok, said) = check();
    assert!(
        !ok && said.contains("lacks the block or the certificate of 2 heights, the first of which is 102"),
        "{said}"
    );
    assert!(said.contains("start the node, which fetches them again"), "{said}");

    nodes.start([3]);
    let back = |nodes: &Nodes| {
        let block = nodes.hash(3, 102).and_then(|hash| nodes.get(3, &format!("/block/{hash}/txids")));
        block.is_some() && nodes.get(3, "/v1/finality/104").is_some()
    };
    nodes.wait("what was lost to be back", back);
    let height = nodes.best_height();
    nodes.wait_height(height + 3);
    nodes.assert_one_chain(101, height);
    nodes.stop([3]);
    let (ok, said) = check();
    assert!(ok, "{said}");
}
