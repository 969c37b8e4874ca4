//! The header: version, target, time.

use bitcoin::block::Version;
use bitcoin::{Amount, CompactTarget};
use causeway_chainspec::TARGET_BITS;
use causeway_consensus::{ChainView, InvalidBlock};
use causeway_tests::chain::MemoryChain;
use causeway_tests::draft::{devnet, edited, ground};

use crate::verdicts::{accepted, refused};

pub(crate) fn version_too_low() {
    let chain = devnet();
    let block = chain.next_block(Amount::ZERO, vec![]);
    let with_version = |version| edited(&block, |block| block.header.version = Version::from_consensus(version));
    for version in [4, 5, 0x2000_0000, i32::MAX] {
        accepted(&chain, &with_version(version));
    }
    for version in [3, 2, 1, 0, -1, i32::MIN] {
        refused(&chain, &with_version(version), InvalidBlock::VersionTooLow { version });
    }
}

pub(crate) fn wrong_bits() {
    let chain = devnet();
    let block = chain.next_block(Amount::ZERO, vec![]);
    accepted(&chain, &block);
    // A slightly harder target, an easier one, a negative one, none, and the same target in another form.
    for bits in [TARGET_BITS - 1, TARGET_BITS + 0x0100_0000, 0x2080_0000, 0, 0x2100_7fff] {
        let mut block = block.clone();
        block.header.bits = CompactTarget::from_consensus(bits);
        refused(&chain, &block, InvalidBlock::WrongBits { bits, required: TARGET_BITS });
    }
}

pub(crate) fn hash_above_target() {
    let chain = devnet();
    let block = chain.next_block(Amount::ZERO, vec![]);
    accepted(&chain, &ground(&block, true));
    let unworked = ground(&block, false);
    refused(&chain, &unworked, InvalidBlock::HashAboveTarget { hash: unworked.block_hash() });
}

pub(crate) fn time_not_after_median() {
    let mut chain = devnet();
    // Six of the last eleven blocks at one time: it is their median.
    let time = chain.tip().time() + 10;
    for _ in 0..6 {
        let block = at_time(&chain, time);
        chain.accept(&block).expect("after the median, and not before the parent");
    }
    assert_eq!((chain.tip().time(), chain.tip().median_time_past()), (time, time));
    accepted(&chain, &at_time(&chain, time + 1));
    refused(&chain, &at_time(&chain, time), InvalidBlock::TimeNotAfterMedian { time, median: time });
    refused(&chain, &at_time(&chain, time - 1), InvalidBlock::TimeNotAfterMedian { time: time - 1, median: time });
    // No bound above: a clock is consulted only when voting.
    accepted(&chain, &at_time(&chain, u32::MAX));
}

pub(crate) fn time_before_parent() {
    let mut chain = devnet();
    let parent = chain.tip().time() + 1_000;
    let block = at_time(&chain, parent);
    chain.accept(&block).expect("a valid block");
    assert!(chain.tip().median_time_past() < parent - 1);
    accepted(&chain, &at_time(&chain, parent));
    refused(&chain, &at_time(&chain, parent - 1), InvalidBlock::TimeBeforeParent { time: parent - 1, parent });
}

fn at_time(chain: &MemoryChain, time: u32) -> bitcoin::Block {
    edited(&chain.next_block(Amount::ZERO, vec![]), |block| block.header.time = time)
}
