//! The bytes: their number and their form.

use bitcoin::consensus::serialize;
use bitcoin::hex::FromHex;
use bitcoin::{Amount, Weight};
use causeway_consensus::InvalidBlock;
use causeway_consensus::block::{MAX_BLOCK_BYTES, parse_block};
use causeway_tests::draft::{ballast, devnet, edited, free_coin, move_coins, varied_block};

use crate::verdicts::{accepted, accepted_bytes, refused, refused_bytes};

/// A transaction without inputs, written without the segwit marker. Core decodes it and refuses it afterwards; in
/// `bitcoin`'s decoder the second zero is an unknown flag.
const EMPTY_TRANSACTION: &str = "02000000000000000000";

pub(crate) fn too_many_bytes() {
    let mut chain = devnet();
    let coin = free_coin(&mut chain, 1);
    let block = chain.next_block(Amount::ZERO, vec![move_coins(&[coin])]);
    accepted(&chain, &block);

    // No valid block has as many bytes as the limit, since its header weighs four units a byte: one that has them
    // goes on to the rule about weight.
    let empty = serialize(&edited(&block, |block| block.txdata[1].output.push(ballast(MAX_BLOCK_BYTES / 2)))).len();
    let longest = edited(&block, |block| {
        block.txdata[1].output.push(ballast(MAX_BLOCK_BYTES / 2 + MAX_BLOCK_BYTES - empty));
    });
    assert_eq!(serialize(&longest).len(), MAX_BLOCK_BYTES);
    refused(&chain, &longest, InvalidBlock::TooHeavy { weight: longest.weight(), max: Weight::MAX_BLOCK });

    let mut longer = serialize(&longest);
    longer.push(0);
    refused_bytes(&chain, longer, InvalidBlock::TooManyBytes { bytes: MAX_BLOCK_BYTES + 1, max: MAX_BLOCK_BYTES });
}

pub(crate) fn malformed() {
    let mut chain = devnet();
    let block = varied_block(&mut chain);
    let bytes = serialize(&block);
    accepted_bytes(&chain, bytes.clone());

    let trailing = [bytes.as_slice(), &[0]].concat();
    refused_bytes(&chain, trailing, InvalidBlock::Malformed { offset: bytes.len() });
    for length in 0..bytes.len() {
        let verdict = chain.validate(bytes[..length].to_vec()).map(drop).expect_err("cut short");
        assert!(matches!(verdict, InvalidBlock::Malformed { offset } if offset <= length), "{length}: {verdict:?}");
    }

    // The number of transactions, 5, in three bytes instead of one.
    assert_eq!(bytes[80], 5);
    let padded = [&bytes[..80], &[0xfd, 5, 0], &bytes[81..]].concat();
    refused_bytes(&chain, padded, InvalidBlock::Malformed { offset: 83 });
    // One transaction fewer, one more.
    let fewer = [&bytes[..80], &[4], &bytes[81..]].concat();
    let last = serialize(&block.txdata[4]).len();
    refused_bytes(&chain, fewer, InvalidBlock::Malformed { offset: bytes.len() - last });
    let more = [&bytes[..80], &[6], &bytes[81..]].concat();
    refused_bytes(&chain, more, InvalidBlock::Malformed { offset: bytes.len() });
    // More than the rest of the bytes can hold is refused before anything is decoded.
    let billions = [&bytes[..80], &[0xfe, 0xff, 0xff, 0xff, 0xff], &bytes[81..]].concat();
    refused_bytes(&chain, billions, InvalidBlock::Malformed { offset: 85 });

    superfluous_witness();
    let empty = Vec::from_hex(EMPTY_TRANSACTION).expect("hex");
    let with_empty = [&bytes[..80], &[6], &bytes[81..], &empty].concat();
    refused_bytes(&chain, with_empty, InvalidBlock::Malformed { offset: bytes.len() + 6 });
}

/// A transaction without witnesses has no second encoding (BIP-0144).
fn superfluous_witness() {
    let mut chain = devnet();
    let coin = free_coin(&mut chain, 1);
    let block = chain.next_block(Amount::ZERO, vec![move_coins(&[coin])]);
    let bytes = serialize(&block);
    let plain = serialize(&block.txdata[1]);
    let start = bytes.len() - plain.len();
    let (head, lock_time) = plain.split_at(plain.len() - 4);
    // version || marker, flag || inputs and outputs || a witness of no elements || lock time
    let marked = [&bytes[..start], &head[..4], &[0, 1], &head[4..], &[0], lock_time].concat();
    parse_block(bytes).expect("well formed");
    refused_bytes(&chain, marked.clone(), InvalidBlock::Malformed { offset: marked.len() - 4 });
}
