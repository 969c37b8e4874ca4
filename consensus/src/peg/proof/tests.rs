use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::consensus::encode::serialize;
use bitcoin::transaction;
use bitcoin::{
    Amount, BlockHash, CompactTarget, MerkleBlock, OutPoint, ScriptBuf, Sequence, TxIn, TxOut, VarInt, merkle_tree,
};
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

const HEIGHT: BitcoinHeight = BitcoinHeight(900_000);

fn transaction(previous_output: OutPoint, script_sig: ScriptBuf, script_pubkey: ScriptBuf) -> Transaction {
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output,
            script_sig,
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[[7; 3]]),
        }],
        output: vec![TxOut { value: Amount::from_sat(1), script_pubkey }],
    }
}

fn coinbase() -> Transaction {
    transaction(OutPoint::null(), ScriptBuf::from_bytes(vec![3, 1, 2, 3]), ScriptBuf::new())
}

fn payment(salt: u32) -> Transaction {
    let previous = OutPoint { txid: Txid::from_byte_array([9; 32]), vout: salt };
    transaction(previous, ScriptBuf::new(), ScriptBuf::from_bytes(vec![0x51; 30]))
}

fn block_of(txdata: Vec<Transaction>) -> Block {
    let header = Header {
        version: Version::TWO,
        prev_blockhash: BlockHash::all_zeros(),
        merkle_root: TxMerkleNode::all_zeros(),
        time: 0,
        bits: CompactTarget::from_consensus(0x207f_ffff),
        nonce: 0,
    };
    let mut block = Block { header, txdata };
    block.header.merkle_root = block.compute_merkle_root().unwrap();
    block
}

/// A block of so many transactions, the coinbase included.
fn block(count: usize) -> Block {
    block_of([coinbase()].into_iter().chain((1..).map(payment)).take(count).collect())
}

fn encoded(proof: &InclusionProof) -> Vec<u8> {
    let mut bytes = Vec::new();
    proof.encode(&mut bytes);
    bytes
}

/// The proof that all of `bytes` are.
fn decode(bytes: &[u8]) -> Option<InclusionProof> {
    let mut rest = bytes;
    InclusionProof::decode(&mut rest).ok().filter(|_| rest.is_empty())
}

/// The error of a proof at `index` of a block of `count`, damaged.
fn damaged(count: usize, index: usize, damage: impl FnOnce(&mut InclusionProof)) -> InvalidProof {
    let block = block(count);
    let mut proof = InclusionProof::of_block(&block, HEIGHT, index).unwrap();
    assert!(proof.verify(block.header.merkle_root).is_ok());
    damage(&mut proof);
    proof.verify(block.header.merkle_root).unwrap_err()
}

#[test]
fn every_transaction_of_a_block_is_proven() {
    for count in 1..=40 {
        let block = block(count);
        for (index, transaction) in block.txdata.iter().enumerate() {
            let proof = InclusionProof::of_block(&block, HEIGHT, index).unwrap();
            let proven = proof.verify(block.header.merkle_root).unwrap();
            assert_eq!(proven.txid(), transaction.compute_txid());
            assert_eq!(proven.index() as usize, index);
            assert_eq!(proven.transaction().output, transaction.output);
            assert_eq!(proven.is_coinbase(), index == 0);
            assert_eq!(decode(&encoded(&proof)), Some(proof));
        }
        assert_eq!(InclusionProof::of_block(&block, HEIGHT, count), None);
    }
    let mut none = block(1);
    none.txdata.clear();
    assert_eq!(InclusionProof::of_block(&none, HEIGHT, 0), None);
}

#[test]
fn a_branch_has_at_most_15_levels() {
    let sibling = TxMerkleNode::from_byte_array([1; 32]);
    let longer = |proof: &mut InclusionProof, levels| {
        proof.branch.resize(levels, sibling);
        proof.coinbase_branch.resize(levels, sibling);
    };
    assert!(matches!(damaged(3, 2, |proof| longer(proof, 15)), InvalidProof::Root { .. }));
    assert_eq!(damaged(3, 2, |proof| longer(proof, 16)), InvalidProof::BranchTooLong { levels: 16 });
    assert_eq!(damaged(3, 2, |proof| longer(proof, 64)), InvalidProof::BranchTooLong { levels: 64 });
    assert_eq!(
        damaged(3, 2, |proof| proof.coinbase_branch.resize(16, sibling)),
        InvalidProof::BranchTooLong { levels: 16 }
    );
    let mut proof = InclusionProof::of_block(&block(3), HEIGHT, 2).unwrap();
    longer(&mut proof, 16);
    assert_eq!(InclusionProof::decode(&mut &encoded(&proof)[..]), Err(MalformedProof::BranchTooLong { levels: 16 }));
}

/// The bound on levels is of the smallest transaction there is.
#[test]
fn no_block_has_more_transactions_than_levels_allow() {
    let mut smallest = payment(0);
    smallest.output[0].script_pubkey = ScriptBuf::new();
    let smallest = stripped(&smallest);
    assert_eq!(smallest.base_size(), 60);
    assert!(4_000_000 / smallest.weight().to_wu() <= 1 << MAX_BRANCH);
    assert!(4_000_000 / smallest.weight().to_wu() > 1 << (MAX_BRANCH - 1));
}

#[test]
fn branches_have_equal_lengths() {
    assert_eq!(
        damaged(5, 3, |proof| {
            proof.coinbase_branch.pop();
        }),
        InvalidProof::UnequalBranches { branch: 3, coinbase: 2 }
    );
    assert_eq!(
        damaged(5, 3, |proof| proof.branch.push(TxMerkleNode::all_zeros())),
        InvalidProof::UnequalBranches { branch: 4, coinbase: 3 }
    );
}

#[test]
fn an_index_is_a_place_of_the_tree() {
    assert_eq!(damaged(5, 3, |proof| proof.index += 8), InvalidProof::Index { index: 11, levels: 3 });
    assert_eq!(damaged(5, 3, |proof| proof.index = u32::MAX), InvalidProof::Index { index: u32::MAX, levels: 3 });
    assert_eq!(damaged(1, 0, |proof| proof.index = 1), InvalidProof::Index { index: 1, levels: 0 });
    assert!(matches!(damaged(5, 3, |proof| proof.index = 2), InvalidProof::Root { .. }));
}

#[test]
fn witnesses_are_left_out() {
    let witness = |tx: &mut Transaction| tx.input[0].witness = Witness::from_slice(&[[1]]);
    assert_eq!(damaged(5, 3, |proof| witness(&mut proof.transaction)), InvalidProof::Witness);
    assert_eq!(damaged(5, 3, |proof| witness(&mut proof.coinbase)), InvalidProof::Witness);
    assert_eq!(damaged(5, 0, |proof| witness(&mut proof.transaction)), InvalidProof::Witness);

    // Nor do they decode.
    let proof = InclusionProof::of_block(&block(1), HEIGHT, 0).unwrap();
    let mut bytes = encoded(&proof);
    bytes.truncate(9);
    let mut with = bytes.clone();
    with.extend(serialize(&coinbase()));
    assert_eq!(InclusionProof::decode(&mut &with[..]), Err(MalformedProof::Transaction));
    bytes.extend(serialize(&stripped(&coinbase())));
    assert_eq!(decode(&bytes), Some(proof));
}

#[test]
fn transactions_have_inputs() {
    assert_eq!(damaged(5, 3, |proof| proof.transaction.input.clear()), InvalidProof::NoInputs);
    assert_eq!(damaged(5, 3, |proof| proof.coinbase.input.clear()), InvalidProof::NoInputs);
    let mut proof = InclusionProof::of_block(&block(3), HEIGHT, 2).unwrap();
    proof.transaction.input.clear();
    assert_eq!(InclusionProof::decode(&mut &encoded(&proof)[..]), Err(MalformedProof::Transaction));
}

#[test]
fn the_first_transaction_is_a_coinbase() {
    let mut two_inputs = coinbase();
    two_inputs.input.push(payment(1).input[0].clone());
    let mut null_txid = coinbase();
    null_txid.input[0].previous_output.vout = 0;
    for (first, valid) in [(coinbase(), true), (payment(7), false), (two_inputs, false), (null_txid, false)] {
        let block = block_of(vec![first, payment(1), payment(2)]);
        for index in 0..3 {
            let proof = InclusionProof::of_block(&block, HEIGHT, index).unwrap();
            let result = proof.verify(block.header.merkle_root).map(|_| ());
            assert_eq!(result, if valid { Ok(()) } else { Err(InvalidProof::NotCoinbase) });
        }
    }
}

#[test]
fn the_coinbase_is_carried_once() {
    assert_eq!(damaged(5, 0, |proof| proof.transaction = stripped(&payment(1))), InvalidProof::TwoCoinbases);
    assert_eq!(damaged(5, 0, |proof| proof.branch[0] = TxMerkleNode::all_zeros()), InvalidProof::TwoCoinbases);
    let proof = InclusionProof::of_block(&block(5), HEIGHT, 0).unwrap();
    assert_eq!(encoded(&proof).len(), 9 + 3 * 32 + proof.coinbase.base_size());
    let proof = InclusionProof::of_block(&block(5), HEIGHT, 1).unwrap();
    let sizes = proof.coinbase.base_size() + proof.transaction.base_size();
    assert_eq!(encoded(&proof).len(), 9 + 6 * 32 + sizes);
}

#[test]
fn carried_transactions_fit_into_a_block() {
    let sized = |script: usize| {
        let mut transaction = payment(1);
        transaction.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0; script]);
        block_of(vec![coinbase(), transaction])
    };
    let rest = stripped(&coinbase()).base_size() + stripped(&sized(100_000).txdata[1]).base_size() - 100_000;
    for (excess, valid) in [(0, true), (1, false)] {
        let block = sized(MAX_TRANSACTION_BYTES - rest + excess);
        let proof = InclusionProof::of_block(&block, HEIGHT, 1).unwrap();
        let bytes = MAX_TRANSACTION_BYTES + excess;
        let result = proof.verify(block.header.merkle_root).map(|_| ());
        assert_eq!(result, if valid { Ok(()) } else { Err(InvalidProof::TooManyBytes { bytes }) });
        let result = InclusionProof::decode(&mut &encoded(&proof)[..]);
        assert_eq!(result, if valid { Ok(proof) } else { Err(MalformedProof::TooManyBytes { bytes }) });
    }
    // Alone larger than a block: refused before it is read to its end.
    let mut large = coinbase();
    large.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0; 2 * MAX_TRANSACTION_BYTES]);
    let block = block_of(vec![large]);
    let proof = InclusionProof::of_block(&block, HEIGHT, 0).unwrap();
    assert!(matches!(proof.verify(block.header.merkle_root), Err(InvalidProof::TooManyBytes { .. })));
    let error = InclusionProof::decode(&mut &encoded(&proof)[..]).unwrap_err();
    assert!(matches!(error, MalformedProof::TooManyBytes { .. }));
}

/// An odd level repeats its last node, whose copy is at another index (CVE-2012-2459).
#[test]
fn the_copy_of_a_repeated_node_is_no_place() {
    assert_eq!(damaged(3, 2, |proof| proof.index = 3), InvalidProof::RepeatedNode { level: 0 });
    for index in [6, 7] {
        assert_eq!(
            damaged(6, index - 2, |proof| proof.index = u32::try_from(index).unwrap()),
            InvalidProof::RepeatedNode { level: 1 }
        );
    }
    let mut wrong = InclusionProof::of_block(&block(3), HEIGHT, 2).unwrap();
    wrong.index = 3;
    assert!(decode(&encoded(&wrong)).is_some(), "well-formed, but no proof");
}

#[test]
fn both_branches_end_in_the_root() {
    assert!(matches!(damaged(5, 3, |proof| proof.branch[2] = TxMerkleNode::all_zeros()), InvalidProof::Root { .. }));
    assert!(matches!(
        damaged(5, 3, |proof| proof.coinbase_branch[2] = TxMerkleNode::all_zeros()),
        InvalidProof::Root { .. }
    ));
    assert!(matches!(
        damaged(5, 3, |proof| proof.transaction.output[0].value += Amount::ONE_SAT),
        InvalidProof::Root { .. }
    ));
    assert!(matches!(
        damaged(5, 3, |proof| proof.coinbase.output[0].value += Amount::ONE_SAT),
        InvalidProof::Root { .. }
    ));
    let other = InclusionProof::of_block(&block(5), HEIGHT, 3).unwrap();
    assert!(matches!(other.verify(block(6).header.merkle_root), Err(InvalidProof::Root { .. })));
}

/// A transaction of 64 bytes is also a pair of two hashes: its second half can be the txid of a payment that no block
/// holds (CVE-2017-12842). The attacker grinds the payment until the 64 bytes decode; the tree does not see whether they do.
#[test]
fn a_transaction_poses_as_an_inner_node() {
    let forged = stripped(&payment(77));
    let coinbase = stripped(&coinbase());
    let left = TxMerkleNode::from_byte_array([2; 32]);
    let posing = parent(&left, &leaf(forged.compute_txid()));
    let first = leaf(coinbase.compute_txid());
    let root = parent(&first, &posing);
    // A plain proof would be believed.
    let branch = vec![left, first];
    assert_eq!(climb(forged.compute_txid(), 3, &branch, root), Ok(()));

    let mut proof = InclusionProof {
        height: HEIGHT,
        transaction: forged,
        index: 3,
        branch,
        coinbase,
        coinbase_branch: vec![posing],
    };
    assert_eq!(proof.verify(root), Err(InvalidProof::UnequalBranches { branch: 2, coinbase: 1 }));
    // No second sibling makes the coinbase stand one level further down too.
    for other in [posing, first, left, root, TxMerkleNode::all_zeros()] {
        for coinbase_branch in [vec![other, posing], vec![posing, other]] {
            proof.coinbase_branch = coinbase_branch;
            assert!(matches!(proof.verify(root), Err(InvalidProof::Root { .. })));
        }
    }
    proof.branch.remove(0);
    proof.index = 1;
    proof.coinbase_branch = vec![posing];
    assert!(matches!(proof.verify(root), Err(InvalidProof::Root { .. })));
}

/// An inner node of 64 bytes that reads as a transaction: here the pair of the coinbase's txid and the next.
#[test]
fn an_inner_node_poses_as_a_transaction() {
    // Both leaves are ground until their pair decodes; the pair of a payment's two halves stands for that.
    let mut posing = payment(1);
    posing.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x51; 4]);
    let posing = stripped(&posing);
    let bytes = serialize(&posing);
    let pair: Vec<TxMerkleNode> =
        bytes.chunks(32).map(|half| TxMerkleNode::from_byte_array(half.try_into().unwrap())).collect();
    let coinbase = stripped(&coinbase());
    let leaves = vec![leaf(coinbase.compute_txid()), leaf(payment(2).compute_txid()), pair[0], pair[1]];
    let (left, right) = (parent(&leaves[0], &leaves[1]), parent(&leaves[2], &leaves[3]));
    let root = parent(&left, &right);
    assert_eq!(right, leaf(posing.compute_txid()));
    // One level too high: the branch leads to the root, the coinbase's cannot.
    assert!(climb(posing.compute_txid(), 1, &[left], root).is_ok());
    let honest_branch = branch_of(leaves.clone(), 0);
    let mut proof = InclusionProof {
        height: HEIGHT,
        transaction: posing,
        index: 1,
        branch: vec![left],
        coinbase,
        coinbase_branch: honest_branch,
    };
    assert_eq!(proof.verify(root), Err(InvalidProof::UnequalBranches { branch: 1, coinbase: 2 }));
    proof.coinbase_branch.remove(0);
    assert!(matches!(proof.verify(root), Err(InvalidProof::Root { .. })));
    // And the node at the coinbase's place reads as no coinbase: it begins with a hash.
    let node = [leaves[0].to_byte_array(), leaves[1].to_byte_array()].concat();
    assert!(bitcoin::consensus::deserialize::<Transaction>(&node).is_err());
}

#[test]
fn numbers_are_as_short_as_can_be() {
    let proof = InclusionProof::of_block(&block(1), HEIGHT, 0).unwrap();
    let bytes = encoded(&proof);
    // The count of inputs stands after the head and the version.
    assert_eq!(bytes[13], 1);
    let long = [&bytes[..13], &[0xfd, 1, 0], &bytes[14..]].concat();
    assert_eq!(InclusionProof::decode(&mut &long[..]), Err(MalformedProof::Transaction));
    let huge = [&bytes[..13], &serialize(&VarInt(u64::MAX)), &bytes[14..]].concat();
    assert_eq!(InclusionProof::decode(&mut &huge[..]), Err(MalformedProof::Transaction));
}

/// Every changed byte of a proof is refused, except that the height is that of a header which the caller looks up.
#[test]
fn every_byte_counts() {
    for (count, index) in [(1, 0), (2, 1), (5, 0), (5, 4), (7, 3)] {
        let block = block(count);
        let proof = InclusionProof::of_block(&block, HEIGHT, index).unwrap();
        let bytes = encoded(&proof);
        let root_at = |height| if height == HEIGHT { block.header.merkle_root } else { TxMerkleNode::all_zeros() };
        for place in 0..bytes.len() {
            for flip in 1..=u8::MAX {
                let mut bytes = bytes.clone();
                bytes[place] ^= flip;
                let accepted = decode(&bytes).is_some_and(|proof| proof.verify(root_at(proof.height)).is_ok());
                assert!(!accepted, "byte {place} of {} ^ {flip}", bytes.len());
            }
        }
        for length in 0..bytes.len() {
            assert!(InclusionProof::decode(&mut &bytes[..length]).is_err());
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(decode(&longer), None);
        let mut rest = &longer[..];
        assert_eq!(InclusionProof::decode(&mut rest), Ok(proof));
        assert_eq!(rest, [0]);
    }
}

/// The siblings that a partial merkle tree of Bitcoin's has for one transaction.
fn siblings_of_bitcoin(block: &Block, index: usize) -> Vec<TxMerkleNode> {
    let mut level: Vec<TxMerkleNode> = block.txdata.iter().map(|tx| leaf(tx.compute_txid())).collect();
    let mut place = index;
    let mut siblings = Vec::new();
    while level.len() > 1 {
        if level.len() % 2 == 1 {
            level.push(level[level.len() - 1]);
        }
        siblings.push(level[place ^ 1]);
        let pair = |pair: &[TxMerkleNode]| merkle_tree::calculate_root(pair.iter().copied()).unwrap();
        level = level.chunks(2).map(pair).collect();
        place /= 2;
    }
    siblings
}

proptest! {
    #[test]
    fn equals_rust_bitcoin(count in 1..=40usize, index: Index, salt: u16) {
        let index = index.index(count);
        let payments = (0..).map(|n| payment(u32::from(salt) << 8 | n));
        let block = block_of([coinbase()].into_iter().chain(payments).take(count).collect());
        let txid = block.txdata[index].compute_txid();
        let theirs = MerkleBlock::from_block_with_predicate(&block, |candidate| *candidate == txid);
        let (mut matches, mut indexes) = (Vec::new(), Vec::new());
        theirs.extract_matches(&mut matches, &mut indexes).unwrap();
        prop_assert_eq!(matches, vec![txid]);
        let proof = InclusionProof::of_block(&block, HEIGHT, index).unwrap();
        prop_assert_eq!(vec![proof.index], indexes);
        prop_assert_eq!(&proof.branch, &siblings_of_bitcoin(&block, index));
        prop_assert_eq!(&proof.coinbase_branch, &siblings_of_bitcoin(&block, 0));
        let hashes = theirs.txn.hashes();
        prop_assert!(proof.branch.iter().all(|node| hashes.contains(node) || *node == repeated(&proof, node)));
        prop_assert_eq!(proof.verify(block.header.merkle_root).unwrap().txid(), txid);
        // No other place of the tree has this proof.
        for other in 0..1u32 << proof.branch.len() {
            if other != proof.index {
                let moved = InclusionProof { index: other, ..proof.clone() };
                prop_assert!(moved.verify(block.header.merkle_root).is_err());
            }
        }
    }

    #[test]
    fn what_decodes_encodes_to_the_same(index in 0..3u32, levels in 0..3u8, garbage in proptest::collection::vec(any::<u8>(), 0..300), count in 1..3usize) {
        let mut bytes = [&[0; 4][..], &index.to_le_bytes(), &[levels]].concat();
        bytes.extend(garbage.iter().take(usize::from(levels) * 32));
        bytes.extend(serialize(&stripped(&payment(1))).iter().zip(garbage.iter().cycle()).map(|(byte, noise)| if noise % 16 == 0 { noise } else { byte }));
        bytes.extend(garbage.iter().take(usize::from(levels) * 32));
        bytes.extend(serialize(&vec![stripped(&payment(2)); count])[1..].iter());
        let mut rest = &bytes[..];
        if let Ok(proof) = InclusionProof::decode(&mut rest) {
            prop_assert_eq!(&encoded(&proof)[..], &bytes[..bytes.len() - rest.len()]);
        }
    }
}

/// The node on the way up that equals its sibling, where an odd level ends.
fn repeated(proof: &InclusionProof, sibling: &TxMerkleNode) -> TxMerkleNode {
    let mut node = leaf(proof.transaction.compute_txid());
    for (level, next) in proof.branch.iter().enumerate() {
        if node == *sibling {
            return node;
        }
        node = if proof.index >> level & 1 == 1 { parent(next, &node) } else { parent(&node, next) };
    }
    TxMerkleNode::all_zeros()
}
